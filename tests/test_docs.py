"""What the documents say is so."""

import json
import re
import tomllib
from pathlib import Path

import pytest
from tests.documents import OBSERVABILITY, ROOT, documents, figures

from bfr_core.errors import ArchiveError
from bfr_dicomweb.errors import failure_reason_of, status_of
from bfr_legacy.dimse.status import answer_to
from bfr_ui.errors import problem


def subclasses(kind: type[ArchiveError]) -> list[type[ArchiveError]]:
    return [one for sub in kind.__subclasses__() for one in (sub, *subclasses(sub))]


@pytest.mark.parametrize("path", documents(), ids=lambda path: path.name)
def test_a_generated_document_is_up_to_date(path: Path) -> None:
    assert path.read_text() == documents()[path], "run `make docs`"


@pytest.mark.parametrize("error", subclasses(ArchiveError), ids=lambda one: one.__name__)
def test_every_error_has_a_word_in_every_rim(error: type[ArchiveError]) -> None:
    raised = error("said")
    assert 400 <= status_of(raised)[0] < 600
    assert failure_reason_of(raised) > 0
    assert answer_to(raised).status > 0
    if error.__module__.startswith("bfr_core"):
        assert 400 <= problem(raised).status_code < 600


def test_every_dependency_has_its_reason() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    told = (ROOT / "docs" / "dependencies.md").read_text()
    required = [*project["dependencies"], *project["optional-dependencies"]["dev"]]
    missing = [
        name
        for name in (re.split(r"[\[=]", requirement)[0] for requirement in required)
        if name not in told
    ]
    assert missing == []


DASHBOARD = OBSERVABILITY.with_name("grafana-dashboard.json")


def asked_figures(text: str) -> set[str]:
    """The metrics that the expressions in a text ask for."""
    names = re.findall(r"\b((?:bfr|process)_[a-z_]+)\b", text)
    return {re.sub("_(bucket|sum|count)$", "", name) for name in names}


@pytest.mark.parametrize("path", [OBSERVABILITY, DASHBOARD], ids=lambda path: path.name)
def test_no_document_names_a_figure_that_is_not_there(path: Path) -> None:
    known = {re.sub("_(bucket|sum|count)$", "", one.name) for one in figures()}
    asked = asked_figures(path.read_text())
    assert len(asked) > 20
    assert asked - known == set()


def test_every_figure_of_ours_is_in_the_dashboard() -> None:
    panels = json.loads(DASHBOARD.read_text())["panels"]
    asked = asked_figures("\n".join(t["expr"] for one in panels for t in one.get("targets", [])))
    ours = {one.name for one in figures() if one.name.startswith("bfr_")}
    assert ours - asked == set()


def test_every_figure_says_what_it_is_in_the_units_of_prometheus() -> None:
    for one in figures():
        assert len(one.meaning) > 3, one.name
        if one.kind == "histogram" and one.name.endswith("duration_seconds"):
            assert "Time" in one.meaning, one.name
        assert not re.search("_(ms|us|kb|mb)($|_)", one.name), one.name


def test_every_link_in_the_documents_leads_somewhere() -> None:
    broken = []
    for path in [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]:
        for target in re.findall(r"\]\(([^)#\s]+)", path.read_text()):
            if "://" not in target and not (path.parent / target).exists():
                broken.append(f"{path.name}: {target}")
    assert broken == []
