"""A person at a browser: where they go, what they see, and what may never happen on the way."""

import re
import time
from collections.abc import Callable
from typing import Literal
from urllib.parse import unquote

from playwright.sync_api import ConsoleMessage, Locator, Page, Request, Response, expect
from tests.journeys.painted import Picture, picture_of_url

from bfr_command.demo import history
from bfr_command.demo.history import Series, Study
from bfr_command.demo.identities import PATIENTS
from bfr_command.demo.labels import series_uid, study_uid
from bfr_command.demonstration import ARCHIVE_AE_TITLE

Button = Literal["left", "middle", "right"]

PATIENCE_S = 20.0
CANVAS = '[data-testid="viewport"] canvas.cornerstone-canvas'

# What an address may never tell: numbers as they are stored and as they are written, and names.
SECRETS = tuple(
    secret
    for patient in PATIENTS
    for secret in (
        patient.patient_id,
        f"{patient.patient_id[:8]}-{patient.patient_id[8:]}",
        *re.split(r"[\^ ]", patient.name),
    )
)

expect.set_options(timeout=PATIENCE_S * 1000)


class Journey:
    """One person, one browser, one journey."""

    def __init__(self, root: str, page: Page) -> None:
        self.root = root
        self.page = page
        self.requests: list[str] = []
        self.complaints: list[str] = []
        self.warnings: list[str] = []
        self.expected: list[str] = []
        page.on("console", self._hear)
        page.on("pageerror", lambda error: self.complaints.append(f"exception: {error}"))
        page.on("request", self._note_request)
        page.on("response", self._note_response)

    @property
    def viewport(self) -> Locator:
        """The first picture area."""
        return self.page.get_by_test_id("viewport").first

    def go(self, path: str) -> None:
        """Open a page by its address."""
        self.page.goto(self.root + path)

    def search(self, text: str) -> None:
        """Search for a patient from the first page."""
        self.go("/")
        self.page.get_by_role("searchbox").fill(text)
        self.page.keyboard.press("Enter")
        expect(self.page.get_by_role("heading", level=2)).to_have_text("Träffar")

    def open_patient(self, text: str) -> None:
        """Search for the one patient that a text finds and open the timeline."""
        self.search(text)
        row = self.page.get_by_test_id("patient-row")
        expect(row).to_have_count(1)
        row.click()
        expect(self.page.get_by_test_id("study-row").first).to_be_visible()

    def open_series(self, study: Study, series: Series) -> None:
        """Open the viewer at a series and return when its picture is on screen."""
        self.go(viewer_path(study, series))
        self.sees_picture()

    def sees_picture(self) -> None:
        """Return when a picture is on screen."""
        expect(self.viewport).to_have_attribute("data-rendered", "true")
        expect(self.viewport).not_to_have_attribute("data-image-index", "-1")

    def sees_image(self, index: int) -> None:
        """Return when the image at a place in the series, from 0, is on screen."""
        expect(self.viewport).to_have_attribute("data-image-index", str(index))

    def picture(self) -> Picture:
        """Return what is painted in the first picture area, without the text over it."""
        url = self.page.locator(CANVAS).first.evaluate("canvas => canvas.toDataURL('image/png')")
        return picture_of_url(url)

    def sees(self, check: Callable[[Picture], bool]) -> Picture:
        """Return the picture when the check holds for it; fail when it never does."""
        deadline = time.monotonic() + PATIENCE_S
        while True:
            picture = self.picture()
            if check(picture):
                return picture
            assert time.monotonic() < deadline, "the picture never became what it should be"
            self.page.wait_for_timeout(50)

    def attribute(self, name: str) -> float:
        """Return a number that the first picture area tells of itself."""
        value = self.viewport.get_attribute(name)
        assert value is not None, f"{name} is not told"
        return float(value)

    def drag(
        self, start: tuple[float, float], by: tuple[float, float], button: Button = "left"
    ) -> None:
        """Drag over the first picture area; `start` in shares of it, `by` in pixels."""
        box = self.viewport.bounding_box()
        assert box is not None
        x, y = box["x"] + start[0] * box["width"], box["y"] + start[1] * box["height"]
        self.page.mouse.move(x, y)
        self.page.mouse.down(button=button)
        self.page.mouse.move(x + by[0], y + by[1], steps=8)
        self.page.mouse.up(button=button)

    def expects(self, *complaints: str) -> None:
        """Allow what the browser says of a fault that the journey makes on purpose."""
        self.expected += complaints

    def end(self) -> None:
        """Fail when the browser complained, left our host, or told a person in an address."""
        unexpected = [
            one for one in self.complaints if not any(text in one for text in self.expected)
        ]
        assert not unexpected, unexpected
        foreign = [
            url for url in self.requests if not url.startswith((self.root, "data:", "blob:"))
        ]
        assert not foreign, foreign
        addresses = [*self.requests, *self.visited()]
        # The browser names a blob by a number of chance, which may look like a person's.
        own = [one for one in addresses if not one.startswith("blob:")]
        telling = [one for one in own if tells_a_person(one)]
        assert not telling, telling

    def visited(self) -> list[str]:
        """Return address and title of every page in the history of the browser."""
        session = self.page.context.new_cdp_session(self.page)
        entries = session.send("Page.getNavigationHistory")["entries"]
        session.detach()
        return [entry[key] for entry in entries for key in ("url", "userTypedURL", "title")]

    def _hear(self, message: ConsoleMessage) -> None:
        if message.type == "error":
            self.complaints.append(f"console: {message.text}")
        elif message.type == "warning":
            self.warnings.append(message.text)

    def _note_request(self, request: Request) -> None:
        self.requests.append(request.url)

    def _note_response(self, response: Response) -> None:
        if response.status >= 500:
            self.complaints.append(f"{response.status} from {response.url}")


def study_of(key: str) -> Study:
    """Return a study of the demonstration."""
    return next(study for study in history.STUDIES if study.key == key)


def series_of(study: Study, number: int) -> Series:
    """Return a series of a study by its Series Number."""
    return next(series for series in study.series if series.number == number)


def viewer_path(study: Study, series: Series | None = None) -> str:
    """Return the address of the viewer for a study, at one of its series."""
    path = f"/viewer/{ARCHIVE_AE_TITLE}/{study_uid(study)}"
    return path if series is None else f"{path}?series={series_uid(study, series)}"


def tells_a_person(text: str) -> bool:
    """Return whether an address or title holds the number or a name of a patient."""
    folded = unquote(text).casefold()
    return any(secret.casefold() in folded for secret in SECRETS)
