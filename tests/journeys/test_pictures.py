"""The pictures of the README: written anew when BFR_WRITE_PICTURES=1, else only looked for."""

import os
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
from playwright.sync_api import expect
from tests.journeys.journey import Journey, series_of, study_of
from tests.journeys.painted import is_uniform

PICTURES = Path(__file__).parents[2] / "docs" / "images"
LIMIT_BYTES = 400_000
SIZE = (900, 1440)
NODULE = 157  # the place in the stack that shows it


def viewer(journey: Journey) -> None:
    study = study_of("asa-04")
    journey.open_series(study, series_of(study, 2))
    for series, count in ((0, 1), (1, 200), (2, 44)):
        expect(journey.page.get_by_test_id("series-item").nth(series)).to_have_attribute(
            "data-loaded-count", str(count), timeout=120_000
        )
    for thumbnail in journey.page.locator("img").all():
        expect(thumbnail).to_have_js_property("complete", True)
    journey.viewport.hover()
    for _ in range(NODULE - 100):
        journey.page.mouse.wheel(0, 100)
    journey.sees_image(NODULE)
    journey.sees(lambda picture: not is_uniform(picture))


def timeline(journey: Journey) -> None:
    journey.open_patient("provberg")
    expect(journey.page.get_by_test_id("study-row")).to_have_count(4)
    for thumbnail in journey.page.locator("img").all():
        expect(thumbnail).to_have_js_property("complete", True)


@pytest.mark.parametrize("visit", [viewer, timeline], ids=lambda visit: visit.__name__)
def test_the_readme_shows_the_page_as_it_is(journey: Journey, visit: object) -> None:
    path = PICTURES / f"{visit.__name__}.png"  # type: ignore[attr-defined]
    if os.environ.get("BFR_WRITE_PICTURES") == "1":
        journey.page.emulate_media(color_scheme="light")
        visit(journey)  # type: ignore[operator]
        journey.page.mouse.move(0, 0)
        shot = imagecodecs.png_decode(journey.page.screenshot())[:, :, :3]
        PICTURES.mkdir(parents=True, exist_ok=True)
        path.write_bytes(imagecodecs.png_encode(np.ascontiguousarray(shot), level=9))
    assert path.stat().st_size < LIMIT_BYTES
    picture = np.asarray(imagecodecs.png_decode(path.read_bytes()), np.uint8)
    assert picture.shape[:2] == SIZE
    assert not is_uniform(picture[:, :, :3])
