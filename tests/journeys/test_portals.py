"""The portals beside the viewer, and the choices that a person makes once."""

import re

import httpx
from playwright.sync_api import expect
from tests.demo_system import archive_url
from tests.journeys.journey import Journey, series_of, study_of, viewer_path
from tests.journeys.painted import is_uniform
from tests.system import System

from bfr_command.demo.history import STUDIES
from bfr_command.demonstration import ARCHIVE_AE_TITLE


def test_the_language_is_switched_at_once_and_kept(journey: Journey) -> None:
    page = journey.page
    journey.go("/")
    expect(page.locator("html")).to_have_attribute("lang", "sv")
    page.get_by_role("button", name="EN, English").click()
    expect(page.locator("html")).to_have_attribute("lang", "en")
    expect(page.get_by_role("button", name="Search", exact=True)).to_be_visible()
    page.reload()
    expect(page.get_by_role("button", name="Search", exact=True)).to_be_visible()
    journey.go(viewer_path(study_of("asa-04"), series_of(study_of("asa-04"), 2)))
    journey.sees_picture()
    expect(page.get_by_role("button", name="Reset")).to_be_visible()
    page.get_by_role("button", name="SV, Svenska").click()
    expect(page.get_by_role("button", name="Återställ")).to_be_visible()
    journey.sees(lambda picture: not is_uniform(picture))


def test_the_theme_is_switched_at_once_and_kept(journey: Journey) -> None:
    page = journey.page
    journey.go("/")
    html = page.locator("html")
    luminance = {}
    for name, scheme in (("Mörkt", "dark"), ("Ljust", "light"), ("Mörkt", "dark")):
        page.get_by_role("button", name="Tema").click()
        page.get_by_role("menu").get_by_text(name).click()
        expect(html).to_have_attribute("data-mantine-color-scheme", scheme)
        luminance[scheme] = background(journey)
    assert luminance["dark"] < 60
    assert luminance["light"] > 200
    page.reload(wait_until="commit")
    expect(html).to_have_attribute("data-mantine-color-scheme", "dark")
    page.wait_for_load_state()
    assert background(journey) < 60


def background(journey: Journey) -> float:
    """Return how bright the page is behind its content, 0 to 255."""
    colour = journey.page.evaluate("getComputedStyle(document.documentElement).backgroundColor")
    red, green, blue = (int(part) for part in colour.strip("rgb()").split(",")[:3])
    return (red + green + blue) / 3


def test_the_newest_studies_are_listed_filtered_and_opened(journey: Journey) -> None:
    page = journey.page
    journey.go(f"/samverkan?archive={ARCHIVE_AE_TITLE}")
    rows = page.get_by_test_id("study-row")
    expect(rows.first).to_be_visible()
    assert rows.count() >= len(STUDIES)
    magnetic = [study for study in STUDIES if study.description.startswith("MR")]
    page.get_by_role("group", name="Modalitet").get_by_text("MR", exact=True).click()
    expect(rows).to_have_count(len(magnetic))
    expect(page).to_have_url(re.compile("[?&]modality=MR"))
    page.get_by_role("button", name="Undersökt").click()
    expect(page.get_by_role("columnheader", name="Undersökt")).to_have_attribute(
        "aria-sort", "ascending"
    )
    oldest = min(magnetic, key=lambda study: study.started_at)
    first = page.get_by_role("row").nth(1)
    expect(first).to_contain_text(f"{oldest.started_at:%Y-%m-%d}")
    first.get_by_role("link").click()
    expect(page).to_have_url(journey.root + viewer_path(oldest))
    journey.sees_picture()
    journey.sees(lambda picture: not is_uniform(picture))


def test_administration_shows_three_ready_roles_and_what_the_archive_holds(
    journey: Journey, system: System
) -> None:
    page = journey.page
    journey.go("/admin")
    roles = page.get_by_role("region", name="Delar av systemet").get_by_role("listitem")
    expect(roles).to_have_count(3)
    for role in roles.all():
        expect(role).to_contain_text("Redo")
        expect(role).not_to_contain_text("Inte redo")
    row = page.get_by_role("row").filter(has=page.get_by_role("link", name=ARCHIVE_AE_TITLE))
    for level in ("studies", "series", "instances"):
        expect(row).to_contain_text(written(matches(system, level)))
    expect(page.get_by_text(f"port {system.dimse_port}")).to_be_visible()
    connection = page.get_by_role("row").filter(has_text="Demo-PACS")
    for node in ("DEMOPACS", "STORESCU", "ECHOSCU"):
        expect(connection.last).to_contain_text(node)
    expect(page.get_by_role("main")).to_contain_text("Misslyckade")
    expect(page.get_by_text("Allt fungerar.")).to_be_visible()


def matches(system: System, level: str) -> int:
    """Return how many studies, series or instances a search in the archive finds."""
    total = 0
    while True:
        answer = httpx.get(
            f"{archive_url(system)}/{level}", params={"limit": 500, "offset": total}, timeout=30
        )
        found = len(answer.json()) if answer.status_code == 200 else 0
        total += found
        if found < 500:
            return total


def written(number: int) -> str:
    """Return a whole number as Swedish writes it."""
    return f"{number:,}".replace(",", "\u00a0")


def test_a_journey_from_search_to_the_last_slice_needs_only_the_keyboard(
    journey: Journey,
) -> None:
    page = journey.page
    journey.go("/")
    tab_to(journey, "input[type=search]")
    page.keyboard.type("åsa prov")
    page.keyboard.press("Enter")
    expect(page.get_by_test_id("patient-row")).to_have_count(1)
    tab_to(journey, "[data-testid=patient-row]")
    page.keyboard.press("Enter")
    expect(page.get_by_test_id("study-row")).to_have_count(4)
    expect(page.get_by_role("main")).to_be_focused()
    tab_to(journey, "[data-testid=study-row]")
    page.keyboard.press("ArrowDown")
    expect(page.get_by_test_id("study-row").nth(1)).to_be_focused()
    page.keyboard.press("Home")
    page.keyboard.press("Enter")
    journey.sees_picture()
    expect(journey.viewport).to_be_focused()
    page.keyboard.press("PageDown")
    journey.sees_image(100)
    expect(journey.viewport).to_be_focused()
    page.keyboard.press("End")
    journey.sees_image(199)
    journey.sees(lambda picture: not is_uniform(picture))
    page.keyboard.press("?")
    expect(page.get_by_role("dialog", name="Snabbtangenter")).to_be_visible()
    page.keyboard.press("Escape")
    expect(journey.viewport).to_be_focused()
    page.keyboard.press("PageDown")
    page.keyboard.press("PageDown")
    expect(page.get_by_role("article")).to_contain_text("strukturerat svar")
    tab_to(journey, "a[href^='/patient/']", "Shift+Tab")
    page.keyboard.press("Enter")
    expect(page.get_by_test_id("study-row")).to_have_count(4)


def tab_to(journey: Journey, selector: str, key: str = "Tab") -> None:
    """Press Tab until the focus is on an element of the kind."""
    for _ in range(60):
        journey.page.keyboard.press(key)
        if journey.page.evaluate("name => document.activeElement.matches(name)", selector):
            return
    raise AssertionError(f"Tab never reaches {selector}")
