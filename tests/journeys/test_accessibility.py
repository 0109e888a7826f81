"""WCAG 2.1 A and AA, as far as a machine can tell, on every page, theme and language."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import expect
from tests.journeys.journey import Journey, series_of, study_of, viewer_path

AXE = Path(__file__).parents[2] / "ui/web/node_modules/axe-core/axe.min.js"
TAGS = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa"]
LANGUAGES = ("SV, Svenska", "EN, English")
NARROW_PX = 320  # WCAG 1.4.10

Visit = Callable[[Journey], None]


def first_page(journey: Journey) -> None:
    journey.go("/")
    expect(journey.page.get_by_test_id("patient-row").first).to_be_visible()


def found_patients(journey: Journey) -> None:
    journey.search("prov")
    expect(journey.page.get_by_test_id("patient-row").first).to_be_visible()


def nobody_found(journey: Journey) -> None:
    journey.search("Finnsinte")
    expect(journey.page.get_by_test_id("patient-row")).to_have_count(0)


def timeline(journey: Journey) -> None:
    journey.open_patient("provberg")
    expect(journey.page.get_by_test_id("study-row")).to_have_count(4)


def viewer(journey: Journey) -> None:
    journey.open_series(study_of("asa-04"), series_of(study_of("asa-04"), 2))


def viewer_with_two_series(journey: Journey) -> None:
    viewer(journey)
    journey.page.keyboard.press("0")
    expect(journey.page.get_by_test_id("viewport")).to_have_count(2)
    expect(journey.page.get_by_test_id("viewport").nth(1)).to_have_attribute(
        "data-rendered", "true"
    )


def viewer_with_help(journey: Journey) -> None:
    viewer(journey)
    journey.page.keyboard.press("?")
    expect(journey.page.get_by_role("dialog")).to_be_visible()


def viewer_with_a_report(journey: Journey) -> None:
    journey.go(viewer_path(study_of("asa-04"), series_of(study_of("asa-04"), 99)))
    expect(journey.page.get_by_role("article")).to_be_visible()


def viewer_with_a_document(journey: Journey) -> None:
    journey.go(viewer_path(study_of("signe-02")))
    expect(journey.page.get_by_role("article")).to_be_visible()


def menu_of_themes(journey: Journey) -> None:
    first_page(journey)
    journey.page.get_by_role("button", name="Tema").click()
    expect(journey.page.get_by_role("menu")).to_be_visible()


def received_studies(journey: Journey) -> None:
    journey.go("/samverkan")
    expect(journey.page.get_by_test_id("study-row").first).to_be_visible()


def administration(journey: Journey) -> None:
    journey.go("/admin")
    expect(journey.page.get_by_role("table").first).to_be_visible()


def accessibility_statement(journey: Journey) -> None:
    journey.go("/tillganglighet")
    expect(journey.page.get_by_role("heading", level=1)).to_be_visible()


def nowhere(journey: Journey) -> None:
    journey.go("/finns/inte")
    expect(journey.page.get_by_role("heading", level=1)).to_be_visible()


def unknown_patient(journey: Journey) -> None:
    journey.expects("status of 404")
    journey.go("/patient/999999999")
    expect(journey.page.get_by_role("alert")).to_be_visible()


def unknown_study(journey: Journey) -> None:
    journey.expects("status of 404")
    journey.go("/viewer/BFRDEMO/1.2.3.4")
    expect(journey.page.get_by_role("alert")).to_be_visible()


TEXT_PAGES: tuple[Visit, ...] = (
    first_page, found_patients, nobody_found, timeline, received_studies, administration,
    accessibility_statement, nowhere, unknown_patient, unknown_study,
)  # fmt: skip
OTHER_STATES: tuple[Visit, ...] = (
    menu_of_themes, viewer, viewer_with_two_series, viewer_with_help, viewer_with_a_report,
    viewer_with_a_document,
)  # fmt: skip


@pytest.mark.parametrize("visit", [*TEXT_PAGES, *OTHER_STATES], ids=lambda visit: visit.__name__)
def test_axe_finds_nothing_in_any_theme_or_language(journey: Journey, visit: Visit) -> None:
    assert AXE.is_file(), "axe-core is not installed: make web"
    journey.page.emulate_media(reduced_motion="reduce", color_scheme="light")
    visit(journey)
    journey.page.evaluate(AXE.read_text())
    found = {}
    for language in LANGUAGES:
        speak(journey, language)
        for scheme in ("light", "dark"):
            journey.page.emulate_media(reduced_motion="reduce", color_scheme=scheme)
            expect(journey.page.locator("html")).to_have_attribute(
                "data-mantine-color-scheme", scheme
            )
            for violation in violations(journey):
                found[f"{language} {scheme} {violation['id']}"] = violation["nodes"]
    assert not found


def speak(journey: Journey, language: str) -> None:
    """Choose the language, also from behind a dialog."""
    button = journey.page.get_by_role("button", name=language, include_hidden=True)
    button.evaluate("button => button.click()")
    expect(journey.page.locator("html")).to_have_attribute("lang", language[:2].lower())


def violations(journey: Journey) -> list[dict[str, Any]]:
    """Return what axe finds on the page: the rule, and where."""
    result: list[dict[str, Any]] = journey.page.evaluate(
        """async tags => {
            // A change of colours runs down the tree, one level a frame, as a transition each.
            const frame = () => new Promise(requestAnimationFrame);
            for (let calm = 0, frames = 0; calm < 3 && frames < 200; frames += 1) {
                await frame();
                calm = document.getAnimations().length > 0 ? 0 : calm + 1;
            }
            const options = { runOnly: { type: 'tag', values: tags }, resultTypes: ['violations'] };
            const { violations } = await axe.run(document, options);
            const where = nodes => nodes.map(({ html }) => html);
            return violations.map(({ id, nodes }) => ({ id, nodes: where(nodes) }));
        }""",
        TAGS,
    )
    return result


@pytest.mark.parametrize("visit", TEXT_PAGES, ids=lambda visit: visit.__name__)
def test_text_pages_fit_a_narrow_screen_without_sideways_scrolling(
    journey: Journey, visit: Visit
) -> None:
    journey.page.set_viewport_size({"width": NARROW_PX, "height": 640})
    visit(journey)
    for language in LANGUAGES:
        speak(journey, language)
        width = journey.page.evaluate("document.documentElement.scrollWidth")
        assert width <= NARROW_PX
        wide = journey.page.evaluate(
            """narrow => [...document.querySelectorAll('h1, h2, p, button, a, input')]
                .filter(one => !one.closest('table, nav') && one.checkVisibility())
                .filter(one => one.getBoundingClientRect().right > narrow + 1)
                .map(one => one.outerHTML.slice(0, 120))""",
            NARROW_PX,
        )
        assert not wide


def test_a_narrow_screen_shows_the_way_to_every_portal(journey: Journey) -> None:
    journey.page.set_viewport_size({"width": NARROW_PX, "height": 640})
    first_page(journey)
    for language in LANGUAGES:
        speak(journey, language)
        for link in journey.page.get_by_role("navigation").first.get_by_role("link").all():
            box = link.bounding_box()
            assert box is not None
            assert box["x"] + box["width"] <= NARROW_PX
