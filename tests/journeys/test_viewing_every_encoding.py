"""Every way to write an image down: the screen shows what the server draws, or nothing at all."""

import httpx
import numpy as np
import pytest
from playwright.sync_api import ViewportSize, expect
from pydicom import Dataset
from tests.demo_system import archive_url
from tests.journeys.journey import Journey
from tests.journeys.painted import (
    Picture,
    is_uniform,
    picture_of_png,
    pixels_of,
)
from tests.journeys.variants import ROWS, variants
from tests.samples import part10_bytes
from tests.system import System

ARCHIVE = "ENCODINGS"
# A window in which the picture area is just so high that each row takes seven of the screen's.
ENLARGED = 7
WINDOW_PX = ViewportSize(width=1440, height=812)
# Of 255: what rounding may do, in each single pixel.
ALLOWED = 2
# Pixels that are no squares: of seven rows or columns each side makes its own others along edges.
STRETCHED, ALONG_EDGES = ("pixels twice as high", "pixels twice as wide"), 0.02


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


@pytest.mark.timeout(600)  # some 140 pictures, one after the other
def test_every_encoding_is_painted_as_the_server_draws_it(
    journey: Journey, system: System, stored: dict[str, Dataset]
) -> None:
    study = next(iter(stored.values())).StudyInstanceUID
    journey.page.set_viewport_size(WINDOW_PX)
    journey.go(f"/viewer/{ARCHIVE}/{study}")
    wrong = {}
    for name, dataset in stored.items():
        uid = str(dataset.SeriesInstanceUID)
        journey.page.locator(f'[data-series-instance-uid="{uid}"]').first.click()
        expect(journey.viewport).to_have_attribute("data-series-instance-uid", uid)
        journey.sees_picture()
        painted = journey.sees(lambda picture: not is_uniform(picture))
        assert painted.shape[0] == ENLARGED * ROWS
        drawn = rendered(system, study, uid, str(dataset.SOPInstanceUID))
        differences = np.abs(pixels_of(painted, *drawn.shape[:2]).astype(int) - drawn)
        off = float((differences > ALLOWED).any(axis=2).mean())
        if off > (ALONG_EDGES if name in STRETCHED else 0):
            wrong[name] = f"up to {differences.max()} in {off:.1%} of the pixels"
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
