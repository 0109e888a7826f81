"""From a name to a person's whole history, without telling any address who the person is."""

import pytest
from playwright.sync_api import expect
from tests.journeys.journey import Journey, study_of, tells_a_person

from bfr_command.demo import identities


def test_a_name_typed_without_accents_finds_the_patient_and_opens_the_timeline(
    journey: Journey,
) -> None:
    page = journey.page
    journey.search("provberg asa")
    row = page.get_by_test_id("patient-row")
    expect(row).to_have_count(1)
    expect(row).to_contain_text("Åsa Provberg")
    row.click()
    expect(page.get_by_role("heading", level=1)).to_contain_text("Åsa Provberg")
    studies = page.get_by_test_id("study-row")
    expect(studies).to_have_count(4)
    dates = [study_of(f"asa-0{number}").started_at for number in (4, 3, 2, 1)]
    for row, started in zip(studies.all(), dates, strict=True):
        expect(row).to_contain_text(f"{started:%Y-%m-%d}")


@pytest.mark.parametrize("written", ["{0}-{1}", "{0}{1}", "{0}"])
def test_a_person_number_finds_the_patient_however_it_is_written(
    journey: Journey, written: str
) -> None:
    number = identities.ASA.patient_id
    journey.go("/")
    journey.page.get_by_role("searchbox").fill(written.format(number[:8], number[8:]))
    journey.page.get_by_role("button", name="Sök", exact=True).click()
    expect(journey.page.get_by_role("heading", level=2)).to_have_text("Träffar")
    expect(journey.page.get_by_test_id("patient-row").first).to_contain_text("Provberg")


def test_no_address_title_or_storage_of_the_browser_tells_the_person(journey: Journey) -> None:
    page = journey.page
    journey.open_patient(identities.ASA.patient_id)
    page.get_by_test_id("study-row").nth(1).click()
    journey.sees_picture()
    page.go_back()
    expect(page.get_by_test_id("study-row")).to_have_count(4)
    page.go_forward()
    journey.sees_picture()
    visited = journey.visited()
    assert len(visited) >= 9
    kept = page.evaluate(
        "JSON.stringify([{...localStorage}, {...sessionStorage}, history.state, document.cookie])"
    )
    referrer = page.evaluate("document.referrer")
    assert not [text for text in (*visited, *journey.requests, kept, referrer)
                if tells_a_person(text)]  # fmt: skip


def test_leaving_the_viewer_forgets_the_attributes_of_its_pictures(journey: Journey) -> None:
    study = study_of("asa-03")
    for _ in range(2):
        journey.open_patient("provberg")
        journey.page.get_by_role("link", name=study.description).click()
        journey.sees_picture()
        journey.page.get_by_role("link", name="Till patientens undersökningar").click()
    # The library says so when it is given attributes that it holds already.
    assert not [text for text in journey.warnings if "already has a value" in text]


def test_nobody_found_says_so_and_what_to_try(journey: Journey) -> None:
    journey.search("Finnsinte")
    expect(journey.page.get_by_text("Ingen patient passar sökningen.")).to_be_visible()
    journey.page.get_by_role("button", name="Rensa sökningen").click()
    expect(journey.page.get_by_test_id("patient-row").first).to_be_visible()


@pytest.mark.parametrize(
    "path",
    [
        "/patient/999999999",
        "/patient/x",
        "/viewer/BFRDEMO/1.2.3.4",
        "/viewer/NOWHERE/1.2.3.4",
    ],
)
def test_an_unknown_patient_or_study_gets_a_clear_page(journey: Journey, path: str) -> None:
    journey.expects("status of 404")
    journey.go(path)
    alert = journey.page.get_by_role("alert")
    expect(alert).to_contain_text("Det du söker finns inte, eller är inte ditt att se.")
    expect(alert).to_contain_text("Gå tillbaka och välj på nytt.")
    journey.page.get_by_role("link", name="Till sökningen").click()
    expect(journey.page.get_by_role("searchbox")).to_be_visible()


def test_an_address_that_leads_nowhere_says_so_and_shows_the_way_back(journey: Journey) -> None:
    journey.go("/finns/inte")
    expect(journey.page.get_by_role("heading", level=1)).to_have_text("Sidan finns inte")
    journey.page.get_by_role("main").get_by_role("link").click()
    expect(journey.page.get_by_role("searchbox")).to_be_visible()
