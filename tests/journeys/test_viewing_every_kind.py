"""Every series of the demonstration: the picture the server draws too, or text one can read."""

import httpx
import pytest
from playwright.sync_api import Route, expect
from tests.demo_system import archive_url
from tests.journeys.journey import Journey, series_of, study_of, viewer_path
from tests.journeys.painted import (
    Picture,
    alike,
    difference,
    fitted,
    is_grey,
    is_uniform,
    picture_of_png,
)
from tests.system import System

from bfr_command.demo import documents, pictures
from bfr_command.demo.history import STUDIES, Series, Study
from bfr_command.demo.labels import instance_uid, series_uid, study_uid

# Structures, plans, reports and curves: what their page says they are.
TEXTS = {
    ("asa-01", 1): "Det här är en kurva",
    ("asa-04", 99): "Det här är ett strukturerat svar",
    ("goran-03", 1): "uppgifter för strålbehandling (RTSTRUCT)",
    ("goran-03", 2): "uppgifter för strålbehandling (RTPLAN)",
    ("goran-04", 1): "Det här är en segmentering",
    ("goran-04", 2): "Det här är en segmentering",
    ("signe-01", 1): "Det här är ett strukturerat svar",
    ("signe-01", 2): "Det här är ett strukturerat svar",
    ("signe-02", 1): "Det här är ett inbäddat dokument",
}
# Of 255. A screen smooths what it enlarges, most of all pictures of a few pixels.
ALIKE, TINY_ALIKE = 2.0, 10.0
TINY = 64  # rows
# Twelve bits of lossy JPEG without a window: each side guesses one.
GUESSED = {("goran-01", 1): 6.0}


@pytest.mark.parametrize("key", [study.key for study in STUDIES])
def test_every_series_of_a_study_is_painted_or_readable(
    journey: Journey, system: System, key: str
) -> None:
    study = study_of(key)
    journey.go(viewer_path(study, study.series[0]))
    wrong = {}
    for series in study.series:
        place = (study.key, series.number)
        choose(journey, study, series)
        if place in TEXTS:
            expect(journey.page.get_by_role("article")).to_contain_text(TEXTS[place])
        else:
            journey.sees_picture()
            fault = fault_of(journey, system, study, series)
            if fault:
                wrong[series.description] = fault
    assert not wrong


def choose(journey: Journey, study: Study, series: Series) -> None:
    """Choose a series in the list beside the picture."""
    uid = str(series_uid(study, series))
    journey.page.locator(f'[data-testid="series-item"][data-series-instance-uid="{uid}"]').click()
    expect(journey.viewport).to_have_attribute("data-series-instance-uid", uid)


def fault_of(journey: Journey, system: System, study: Study, series: Series) -> str:
    """Return how the picture on screen differs from the server's; empty when it does not."""
    painted = journey.sees(lambda picture: not is_uniform(picture))
    index = int(journey.attribute("data-image-index"))
    nearest = 255.0
    for number in candidates(series):
        frame = index + 1 if count(series) == 1 else 1
        drawn = rendered(system, study, series, number, frame)
        rows, columns = drawn.shape[:2]
        nearest = min(nearest, alike(fitted(painted, rows, columns), drawn))
        if is_grey(drawn) != is_grey(painted):
            return "a grey picture has colours, or the other way round"
    allowed = GUESSED.get((study.key, series.number), TINY_ALIKE if rows <= TINY else ALIKE)
    return f"differs by {nearest:.1f} from what the server draws" if nearest > allowed else ""


def count(series: Series) -> int:
    """Return how many images a series holds."""
    return len(series.bundled) or pictures.COUNTS[series.generated]


def candidates(series: Series) -> list[int]:
    """Return the Instance Numbers that may be on screen first: the middle, either way round."""
    total = count(series)
    return list(range(1, total + 1)) if total <= 10 else [total // 2, total // 2 + 1]


def rendered(system: System, study: Study, series: Series, number: int, frame: int) -> Picture:
    """Return a frame as the server draws it."""
    answer = httpx.get(
        f"{archive_url(system)}/studies/{study_uid(study)}/series/{series_uid(study, series)}"
        f"/instances/{instance_uid(study, series, number)}/frames/{frame}/rendered",
        headers={"Accept": "image/png"},
        timeout=30,
    )
    assert answer.status_code == 200, answer.text
    return picture_of_png(answer.content)


def test_a_colour_film_plays_and_stops(journey: Journey) -> None:
    study = study_of("orjan-03")
    journey.open_series(study, study.series[0])
    page = journey.page
    first = journey.picture()
    assert not is_grey(first)
    page.get_by_role("button", name="Spela upp").click()
    moved = journey.sees(lambda picture: difference(picture, first) > 0.3)
    journey.sees(lambda picture: difference(picture, moved) > 0.3)
    page.get_by_role("button", name="Pausa").click()
    expect(page.get_by_role("button", name="Spela upp")).to_be_visible()
    page.wait_for_timeout(300)
    stopped = journey.picture()
    page.wait_for_timeout(300)
    assert difference(journey.picture(), stopped) == 0
    journey.viewport.focus()
    page.keyboard.press("c")
    journey.sees(lambda picture: difference(picture, stopped) > 0.3)


def test_the_report_of_a_study_reads_as_text(journey: Journey) -> None:
    study = study_of("asa-04")
    journey.go(viewer_path(study, series_of(study, 99)))
    report = journey.page.get_by_role("article")
    expect(report.get_by_role("heading", name="Diagnostic imaging report")).to_be_visible()
    for text in (documents._QUESTION, documents._FINDINGS, documents._CONCLUSION):
        expect(report).to_contain_text(text)
    for heading in ("History", "Findings", "Conclusions"):
        expect(report.get_by_role("heading", name=heading)).to_be_visible()
    expect(report).to_contain_text("Ylva Granskare")


def test_a_curve_and_a_plan_show_their_attributes(journey: Journey) -> None:
    curve = study_of("asa-01")
    journey.go(viewer_path(curve, curve.series[0]))
    article = journey.page.get_by_role("article")
    article.get_by_text("Waveform Sequence").click()
    expect(article).to_contain_text("Number Of Waveform Channels")
    plan = study_of("goran-03")
    journey.go(viewer_path(plan, series_of(plan, 1)))
    article.get_by_text("Structure Set ROI Sequence").click()
    expect(article).to_contain_text("ROI Name")


def test_a_scanned_referral_is_saved_byte_for_byte(journey: Journey) -> None:
    study = study_of("signe-02")
    journey.go(viewer_path(study, study.series[0]))
    expect(journey.page.get_by_role("article")).to_contain_text("Remiss (application/pdf)")
    with journey.page.expect_download() as download:
        journey.page.get_by_role("button", name="Spara filen").click()
    saved = download.value.path().read_bytes()
    original = documents.pdf(documents._REFERRAL)
    assert saved == original + b"\x00" * (len(original) % 2)
    assert download.value.suggested_filename == "dokument.pdf"


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ({"status": 200, "body": "no picture at all"}, "kortare eller längre"),
        ({"status": 500, "body": "out of order"}, "HTTP 500"),
    ],
    ids=["garbage", "refused"],
)
def test_a_frame_that_cannot_be_read_says_so_and_the_others_are_seen(
    journey: Journey, answer: dict[str, object], reason: str
) -> None:
    study = study_of("asa-04")
    series = series_of(study, 2)
    middle = count(series) // 2
    broken = instance_uid(study, series, count(series) - middle)
    headers = {
        "Content-Type": "multipart/related; type=application/octet-stream; boundary=x",
    }

    def spoil(route: Route) -> None:
        body = (
            "--x\r\nContent-Type: application/octet-stream; "
            f"transfer-syntax=1.2.840.10008.1.2.1\r\n\r\n{answer['body']}\r\n--x--\r\n"
        )
        route.fulfill(status=int(str(answer["status"])), headers=headers, body=body)

    # Cornerstone lets what it was told of a picture that failed through to the console.
    journey.expects("status of 500", "500 from", "exception: XMLHttpRequest", "exception: size")
    journey.page.route(f"**/instances/{broken}/frames/*", spoil)
    journey.go(viewer_path(study, series))
    alert = journey.page.get_by_role("alert")
    expect(alert).to_contain_text(f"Bild {middle + 1} kunde inte läsas")
    expect(alert).to_contain_text(reason)
    expect(alert).to_contain_text("Övriga bilder går att se.")
    expect(journey.page.get_by_text("1 av 200 bilder kunde inte läsas")).to_be_visible()
    journey.viewport.focus()
    journey.page.keyboard.press("ArrowDown")
    journey.sees_image(middle + 1)
    journey.sees(lambda picture: not is_uniform(picture))
    expect(alert).to_have_count(0)
    journey.page.keyboard.press("ArrowUp")
    expect(alert).to_contain_text(f"Bild {middle + 1} kunde inte läsas")
