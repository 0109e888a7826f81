"""What the documents say is so."""

import re
import tomllib
from pathlib import Path

import pytest
from tests.documents import ROOT, documents

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


def test_every_link_in_the_documents_leads_somewhere() -> None:
    broken = []
    for path in [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]:
        for target in re.findall(r"\]\(([^)#\s]+)", path.read_text()):
            if "://" not in target and not (path.parent / target).exists():
                broken.append(f"{path.name}: {target}")
    assert broken == []
