"""Every way to write an image down: the screen shows what the server draws, or nothing at all."""

import httpx
import pytest
from playwright.sync_api import expect
from pydicom import Dataset
from tests.demo_system import archive_url
from tests.journeys.journey import Journey
from tests.journeys.painted import (
    Picture,
    is_uniform,
    picture_of_png,
    worst_difference,
)
from tests.journeys.variants import variants
from tests.samples import part10_bytes
from tests.system import System

ARCHIVE = "ENCODINGS"
# Of 255. A screen smooths what it enlarges: along edges, but not over whole fields.
MEAN, WORST_TENTH = 1.1, 6.0
# A lossy codestream whose reconstruction the standard leaves open; edges ring otherwise.
RINGING = {"signed 1.2.840.10008.1.2.4.112": 2.0, "signed JPEGXL": 2.0}


@pytest.fixture(scope="module")
def stored(system: System) -> dict[str, Dataset]:
    """The variants, in an archive of their own."""
    system.add_archive(ARCHIVE, [])
    found = variants()
    for name, dataset in found.items():
        store(system, part10_bytes(dataset), name)
    return found


def store(system: System, data: bytes, name: str) -> None:
    """Send one object by STOW-RS."""
    answer = httpx.post(
        f"{archive_url(system, ARCHIVE)}/studies",
        content=b"--x\r\nContent-Type: application/dicom\r\n\r\n" + data + b"\r\n--x--\r\n",
        headers={"Content-Type": 'multipart/related; type="application/dicom"; boundary=x'},
        timeout=60,
    )
    assert answer.status_code == 200, f"{name}: {answer.text}"


@pytest.mark.timeout(900)  # some 160 pictures, one after the other
def test_every_encoding_is_painted_as_the_server_draws_it(
    journey: Journey, system: System, stored: dict[str, Dataset]
) -> None:
    study = next(iter(stored.values())).StudyInstanceUID
    journey.go(f"/viewer/{ARCHIVE}/{study}")
    wrong = {}
    for name, dataset in stored.items():
        uid = str(dataset.SeriesInstanceUID)
        journey.page.locator(f'[data-series-instance-uid="{uid}"]').first.click()
        expect(journey.viewport).to_have_attribute("data-series-instance-uid", uid)
        journey.sees_picture()
        painted = journey.sees(lambda picture: not is_uniform(picture))
        drawn = rendered(system, study, uid, str(dataset.SOPInstanceUID))
        mean, worst = differences(painted, drawn)
        if mean > RINGING.get(name, MEAN) or worst > max(WORST_TENTH, RINGING.get(name, 0) * 4):
            wrong[name] = f"{mean:.1f} on the whole, {worst:.1f} in the worst tenth"
    assert not wrong


def rendered(system: System, study: str, series: str, instance: str) -> Picture:
    """Return the first frame as the server draws it."""
    answer = httpx.get(
        f"{archive_url(system, ARCHIVE)}/studies/{study}/series/{series}"
        f"/instances/{instance}/frames/1/rendered",
        headers={"Accept": "image/png"},
        timeout=30,
    )
    assert answer.status_code == 200, answer.text
    return picture_of_png(answer.content)
