"""The CT of 200 slices: what is painted is what the files hold, wherever the reader goes."""

import re
from functools import partial
from pathlib import Path

import httpx
import imagecodecs
import numpy as np
import pytest
from playwright.sync_api import Route, expect
from tests.demo_system import archive_url
from tests.journeys.journey import Journey, series_of, study_of, viewer_path
from tests.journeys.painted import (
    Picture,
    alike,
    bright_share,
    difference,
    fitted,
    hounsfield,
    is_uniform,
    windowed,
)
from tests.system import System

from bfr_command.demo.canvas import COLUMNS, PIXEL_SPACING_MM
from bfr_command.demo.labels import instance_uid, series_uid, study_uid
from bfr_command.demo.pictures import CT_SLICES

STUDY = study_of("asa-04")
CT = series_of(STUDY, 2)
MIDDLE = CT_SLICES // 2
SOFT_TISSUE, LUNG, BONE = (400, 40), (1500, -600), (2500, 480)
SAME = 1.0  # of 255, for two ways to draw one image; the next slice differs by 2.4


@pytest.fixture
def stack(journey: Journey) -> Journey:
    """The viewer with the middle slice on screen."""
    journey.open_series(STUDY, CT)
    journey.sees_image(MIDDLE)
    return journey


def file_of(system: System, index: int) -> Path:
    """Return the file of a place in the stack: shown from the feet up, sent from the head down."""
    return system.directory / "var" / "demo" / STUDY.key / f"002-{CT_SLICES - index:04d}.dcm"


def expected(system: System, index: int, window: tuple[int, int] = SOFT_TISSUE) -> Picture:
    """Return the slice at a place in the stack as its file says it looks."""
    return windowed(hounsfield(file_of(system, index)), *window)


def shows(picture: Picture, slice_: Picture) -> bool:
    """Return whether the slice fills the picture area as when it just fits."""
    return alike(fitted(picture, COLUMNS, COLUMNS), slice_) < SAME


def test_the_first_image_is_painted_while_the_rest_of_the_series_is_still_under_way(
    journey: Journey, system: System
) -> None:
    asked: list[str] = []
    held: list[Route] = []
    holding = True

    def hold_all_but_the_first(route: Route) -> None:
        asked.append(route.request.url)
        if len(asked) > 1 and holding:
            held.append(route)
        else:
            route.continue_()

    journey.page.route("**/frames/*", hold_all_but_the_first)
    journey.open_series(STUDY, CT)
    journey.sees_image(MIDDLE)
    expect(journey.viewport).to_have_attribute("data-loaded-count", "1")
    expect(journey.viewport).to_have_attribute("data-image-count", str(CT_SLICES))
    expect(journey.page.get_by_text(f"1/{CT_SLICES} bilder")).to_be_visible()
    journey.sees(lambda picture: shows(picture, expected(system, MIDDLE)))
    assert str(instance_uid(STUDY, CT, CT_SLICES - MIDDLE)) in asked[0]
    metadata = [url for url in journey.requests if url.endswith("/metadata")]
    assert len(metadata) == 1, "only the chosen series is read before its first image"
    assert str(series_uid(STUDY, CT)) in metadata[0]
    # Outwards from what is on screen.
    near = {
        str(instance_uid(STUDY, CT, CT_SLICES - MIDDLE + step)) for step in (-3, -2, -1, 1, 2, 3)
    }
    assert held
    assert all(any(uid in url for uid in near) for url in asked[1:4])
    holding = False
    for route in held:
        route.continue_()
    expect(journey.viewport).to_have_attribute("data-loaded-count", str(CT_SLICES), timeout=60_000)


def test_the_painted_slice_is_on_screen_under_its_text(stack: Journey, system: System) -> None:
    box = stack.viewport.bounding_box()
    assert box is not None
    left, top = round(box["width"] / 2) - 150, round(box["height"] / 2) - 150
    shot = stack.page.screenshot(
        clip={"x": box["x"] + left, "y": box["y"] + top, "width": 300, "height": 300}
    )
    screen = imagecodecs.png_decode(shot)[:, :, :3]
    canvas = stack.picture()[top : top + 300, left : left + 300]
    assert difference(np.asarray(screen, np.uint8), canvas) < SAME
    assert not is_uniform(canvas)
    for text in ("Åsa Provberg", "Bild 101 av 200", "W 400 C 40"):
        expect(stack.page.get_by_role("region", name="Bildyta 1")).to_contain_text(text)


def test_file_server_and_screen_show_the_same_hounsfield_units(
    stack: Journey, system: System
) -> None:
    truth = expected(system, MIDDLE)
    painted = fitted(stack.picture(), COLUMNS, COLUMNS)
    instance = instance_uid(STUDY, CT, CT_SLICES - MIDDLE)
    answer = httpx.get(
        f"{archive_url(system)}/studies/{study_uid(STUDY)}/series/{series_uid(STUDY, CT)}"
        f"/instances/{instance}/rendered?window=40,400,linear",
        headers={"Accept": "image/jpeg"},
    )
    assert answer.status_code == 200
    rendered = np.asarray(imagecodecs.jpeg_decode(answer.content), np.uint8)
    rendered = rendered.reshape(*rendered.shape[:2], -1).repeat(3, axis=2)[:, :, :3]
    assert alike(painted, truth) < SAME
    assert alike(rendered, truth) < SAME
    # A slice further on is another picture: the comparison above can fail.
    assert alike(painted, expected(system, MIDDLE + 1)) > 2 * SAME


def test_wheel_and_keys_walk_the_whole_stack(stack: Journey, system: System) -> None:
    page = stack.page
    stack.viewport.hover()
    page.mouse.wheel(0, 100)
    stack.sees_image(MIDDLE + 1)
    stack.sees(lambda picture: shows(picture, expected(system, MIDDLE + 1)))
    page.mouse.wheel(0, -100)
    page.mouse.wheel(0, -100)
    stack.sees_image(MIDDLE - 1)
    stack.viewport.focus()
    page.keyboard.press("End")
    stack.sees_image(CT_SLICES - 1)
    stack.sees(lambda picture: shows(picture, expected(system, CT_SLICES - 1)))
    page.keyboard.press("ArrowDown")
    stack.sees_image(CT_SLICES - 1)
    page.keyboard.press("ArrowUp")
    stack.sees_image(CT_SLICES - 2)
    stack.sees(lambda picture: shows(picture, expected(system, CT_SLICES - 2)))
    page.keyboard.press("Home")
    stack.sees_image(0)
    stack.sees(lambda picture: shows(picture, expected(system, 0)))
    for _ in range(12):
        page.keyboard.press("ArrowDown")
    stack.sees_image(12)
    slider = page.get_by_role("slider", name="Plats i serien")
    slider.focus()
    page.keyboard.press("PageDown")
    stack.sees_image(22)
    stack.sees(lambda picture: shows(picture, expected(system, 22)))


def test_preset_keys_set_the_window_that_is_painted(stack: Journey, system: System) -> None:
    stack.viewport.focus()
    for key, window in (("3", LUNG), ("4", BONE), ("2", SOFT_TISSUE)):
        stack.page.keyboard.press(key)
        expect(stack.viewport).to_have_attribute("data-window-width", str(window[0]))
        expect(stack.viewport).to_have_attribute("data-window-center", str(window[1]))
        slice_ = expected(system, MIDDLE, window)
        stack.sees(partial(shows, slice_=slice_))


def test_a_window_stays_from_slice_to_slice_and_is_chosen_by_name_too(
    stack: Journey, system: System
) -> None:
    stack.page.get_by_test_id("window-preset").select_option(label="3 Lunga (1500/−600)")
    stack.viewport.focus()
    stack.page.keyboard.press("ArrowDown")
    stack.sees_image(MIDDLE + 1)
    stack.sees(lambda picture: shows(picture, expected(system, MIDDLE + 1, LUNG)))


def test_dragging_changes_the_window_and_reset_brings_the_image_back(
    stack: Journey, system: System
) -> None:
    before = stack.picture()
    stack.drag((0.5, 0.5), (250, 0))
    wide = stack.sees(lambda picture: difference(picture, before) > SAME)
    assert stack.attribute("data-window-width") > 400
    stack.drag((0.5, 0.5), (0, -200))
    stack.sees(lambda picture: difference(picture, wide) > SAME)
    width, center = (stack.attribute(f"data-window-{name}") for name in ("width", "center"))
    slice_ = windowed(hounsfield(file_of(system, MIDDLE)), width, center)
    stack.sees(lambda picture: shows(picture, slice_))
    stack.viewport.focus()
    stack.page.keyboard.press("Space")
    stack.sees(lambda picture: shows(picture, expected(system, MIDDLE)))
    assert stack.attribute("data-window-width") == 400


def test_zoom_pan_flip_and_invert_are_painted_and_reset_takes_them_back(
    stack: Journey, system: System
) -> None:
    page = stack.page
    start = stack.picture()
    stack.drag((0.5, 0.5), (0, -120), button="right")
    zoomed = stack.sees(lambda picture: difference(picture, start) > 5)
    assert abs(stack.attribute("data-zoom") - 1) > 0.1
    stack.drag((0.5, 0.5), (180, 0), button="middle")
    panned = stack.sees(lambda picture: difference(picture, zoomed) > 5)
    assert difference(panned[:, 180:], zoomed[:, :-180]) < SAME
    stack.viewport.focus()
    page.keyboard.press("Space")
    stack.sees(lambda picture: difference(picture, start) < SAME)
    page.keyboard.press("i")
    stack.sees(lambda picture: bright_share(picture) > 0.5)
    page.keyboard.press("i")
    page.keyboard.press("h")
    stack.sees(lambda picture: difference(picture, start[:, ::-1]) < 2 * SAME)
    expect(page.get_by_role("region", name="Bildyta 1")).to_contain_text("L")
    page.keyboard.press("Space")
    stack.sees(lambda picture: difference(picture, start) < SAME)
    page.keyboard.press("+")
    page.keyboard.press("Control+ArrowRight")
    stack.sees(lambda picture: difference(picture, start) > 5)
    page.get_by_role("button", name="Återställ").click()
    stack.sees(lambda picture: difference(picture, start) < SAME)


def test_a_measured_length_is_the_length_in_the_patient(stack: Journey) -> None:
    box = stack.viewport.bounding_box()
    assert box is not None
    stack.page.get_by_role("button", name="Mät längd").click()
    stack.drag((0.4, 0.3), (200, 0))
    mark = stack.page.locator('[data-testid="viewport"] svg')
    expect(mark).to_contain_text("mm")
    length = pytest.approx(200 / box["height"] * COLUMNS * PIXEL_SPACING_MM, abs=1)
    # The mark follows the drag, and is drawn a last time after it.
    stack.sees(lambda _: bool(number_before("mm", mark.text_content()) == length))
    stack.page.get_by_role("button", name="Ta bort alla mätningar").click()
    expect(mark).not_to_contain_text("mm")


def test_the_value_at_a_point_is_the_value_in_the_file(stack: Journey, system: System) -> None:
    box = stack.viewport.bounding_box()
    assert box is not None
    row, column = 250, 300
    scale = box["height"] / COLUMNS
    left = box["x"] + (box["width"] - box["height"]) / 2
    stack.page.get_by_role("button", name="Värde i en punkt").click()
    stack.page.mouse.click(left + (column + 0.5) * scale, box["y"] + (row + 0.5) * scale)
    mark = stack.page.locator('[data-testid="viewport"] svg')
    expect(mark).to_contain_text("HU")
    around = hounsfield(file_of(system, MIDDLE))[row - 1 : row + 2, column - 1 : column + 2]
    assert number_before("HU", mark.text_content()) in around


def test_two_series_stand_side_by_side_and_keys_move_between_them(stack: Journey) -> None:
    page = stack.page
    stack.viewport.focus()
    page.keyboard.press("0")
    panes = page.get_by_test_id("viewport")
    expect(panes).to_have_count(2)
    for pane in panes.all():
        expect(pane).to_have_attribute("data-rendered", "true")
    page.keyboard.press("ArrowRight")
    expect(panes.nth(1)).to_be_focused()
    page.keyboard.press("0")
    expect(panes).to_have_count(1)
    journey_picture = stack.sees(lambda picture: not is_uniform(picture))
    assert bright_share(journey_picture) > 0.05


def test_the_viewer_is_the_link_that_a_reader_can_send(journey: Journey) -> None:
    journey.go(viewer_path(STUDY))
    journey.sees_picture()
    journey.page.get_by_test_id("series-item").nth(1).click()
    journey.sees_image(MIDDLE)
    expect(journey.page).to_have_url(re.compile(re.escape(viewer_path(STUDY, CT))))


def number_before(unit: str, text: str | None) -> float:
    """Return the number written before a unit."""
    found = re.search(rf"([-−]?[\d.,\s]+)\s*{unit}", text or "")
    assert found is not None, text
    return float(re.sub(r"\s", "", found[1]).replace("−", "-").replace(",", "."))
