"""The documents that are generated: `make docs` writes them, `test_docs.py` holds them true."""

import ast
import dataclasses
import typing
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from bfr_core.errors import ArchiveError
from bfr_core.settings import Settings
from bfr_dicomweb import app, errors
from bfr_legacy.dimse import status

ROOT = Path(__file__).parents[1]
UNITS = (
    (1024**3, "GiB"),
    (1024**2, "MiB"),
    (1024, "KiB"),
)


@dataclass(frozen=True)
class Statement:
    """A sentence of a standard that a test shows."""

    section: str
    text: str
    test: str  # path::name


def documents() -> dict[Path, str]:
    """Every generated document: path and text."""
    return {
        ROOT / "docs" / "configuration.md": configuration(),
        ROOT / "docs" / "conformance" / "dicom.md": dicom(),
        ROOT / "docs" / "conformance" / "dicomweb.md": dicomweb(),
    }


def configuration() -> str:
    """The settings with unit, default and meaning."""
    hints = typing.get_type_hints(Settings, include_extras=True)
    rows = []
    for field in dataclasses.fields(Settings):
        annotation = hints[field.name]
        meaning = typing.get_args(annotation)[1]
        rows.append(
            f"| `BFR_{field.name.upper()}` | {_default(field.name, field.default)} | {meaning} |"
        )
    return "\n".join(
        (
            "# Configuration",
            "",
            "Settings are read once, from the environment. The unit is the last word of a name."
            " A variable that begins with `BFR_` and is none of these is refused, so that a"
            " misspelt one does not pass unseen. What changes while the system runs (connections,"
            " archives, nodes) are rows: see `bfr connection`, `bfr archive`, `bfr node`.",
            "",
            "| Variable | Default | Meaning |",
            "|---|---|---|",
            *rows,
            "",
        )
    )


def dicom() -> str:
    """What the DIMSE door does, with the statements that tests show."""
    answers = [
        f"| {_error_name(error)} | {answer.status:04X}H | {answer.rejection.result},"
        f" {answer.rejection.source}, {answer.rejection.reason} |"
        for error, answer in status.ANSWERS.items()
    ]
    return "\n".join(
        (
            "# DICOM conformance",
            "",
            "What the DIMSE door offers at this version. The order of PS3.2 Annex N follows when"
            " Query/Retrieve, commitment and worklist are there.",
            "",
            "| Service | Role | SOP classes | Transfer syntaxes |",
            "|---|---|---|---|",
            "| Verification (PS3.4 Annex A) | SCP | 1.2.840.10008.1.1 | Implicit and Explicit VR"
            " Little Endian |",
            "| Storage (PS3.4 Annex B) | SCP | every storage SOP class of DICOM, private ones |"
            " every one that is proposed; kept as sent |",
            "",
            "Success (0000H) is answered after bytes and index row are committed. Only registered"
            " nodes of the called archive are admitted. Not offered yet: Query/Retrieve, Storage"
            " Commitment, Modality Worklist, MPPS, TLS.",
            "",
            "## Statuses and rejections",
            "",
            "| Error | Status (0000,0900) | A-ASSOCIATE-RJ result, source, reason |",
            "|---|---|---|",
            *answers,
            "",
            *_statements(("PS3.4", "PS3.5", "PS3.7", "PS3.8", "PS3.10"), "PS3.4"),
        )
    )


def dicomweb() -> str:
    """The resources of DICOMweb, with the statements that tests show."""
    resources = [
        f"| {method} | `{path}` | {str(handler.__doc__).splitlines()[0]} |"
        for method, path, handler in app.RESOURCES
        if path  # the root has two spellings
    ]
    answers = [
        f"| {_error_name(error)} | {errors.status_of(error('…'))[0]} |"
        f" {errors.failure_reason_of(error('…')):04X}H |"
        for error in errors.FAILURE_REASON
    ]
    roots = " and ".join(f"`{root}`" for root in app.ROOTS)
    return "\n".join(
        (
            "# DICOMweb conformance (PS3.18)",
            "",
            f"The origin server answers below {roots}: the joint root and one root per archive.",
            "",
            "| Method | Resource | What it does |",
            "|---|---|---|",
            *resources,
            "",
            "Events of the worklist (8.10): a subscriber opens a WebSocket at"
            f" `{app.EVENT_CHANNEL}` below the root, the address that Content-Location of its"
            " subscription tells. It gets every report in order, also those that were written"
            " while it had no channel, for as long as `BFR_WORKITEM_REPORT_KEEP_HOURS`. A report"
            " counts as sent when it was handed to the connection: what was on the way when one"
            " broke may come again or not at all, so a subscriber that comes back searches the"
            " worklist. A notice of restart (event type 4) is not sent, as"
            " workitems and subscriptions outlive every restart. Deletion locks are always granted"
            " and never removed; a final workitem without one is deleted after"
            " `BFR_WORKITEM_KEEP_DAYS`. The archive fills in an empty Worklist Label (0074,1202)"
            " with its name and changes nothing else that is sent. Which status of PS3.4 Annex CC"
            " becomes which of HTTP: [ADR 13](../adr/0013-worklist.md).",
            "",
            "Not offered yet: XML outside the worklist, fuzzy matching, transcoding to compressed"
            " syntaxes, metadata with bulk data in STOW-RS, zip, rendered series and studies,"
            " thumbnails, WADO-URI, non-patient instances, storage commitment. Objects and frames"
            " go out as stored when no transfer syntax, or `*`, is asked for; frames also as"
            " native little endian.",
            "",
            "## Errors",
            "",
            "| Error | HTTP status | Failure Reason (0008,1197) |",
            "|---|---|---|",
            *answers,
            "",
            *_statements(("PS3.18",), "PS3.18"),
        )
    )


def statements() -> list[Statement]:
    """Every statement that a test is marked with, by section."""
    found = [one for path in sorted((ROOT / "tests").rglob("test_*.py")) for one in _marks(path)]
    return sorted(found, key=lambda one: (_order(one.section), one.text))


def _marks(path: Path) -> Iterator[Statement]:
    for node in ast.walk(ast.parse(path.read_text())):
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        for mark in node.decorator_list:
            if isinstance(mark, ast.Call) and ast.unparse(mark.func) == "pytest.mark.conforms":
                section, text = (ast.literal_eval(argument) for argument in mark.args)
                yield Statement(section, text, f"{path.relative_to(ROOT)}::{node.name}")


def _statements(parts: tuple[str, ...], title: str) -> list[str]:
    rows = [
        f"| {one.section} | {one.text} | `{one.test}` |"
        for one in statements()
        if one.section.split(" ")[0] in parts
    ]
    return [
        "## What tests show",
        "",
        "| Section | Statement | Test |",
        "|---|---|---|",
        *rows,
        "",
    ]


def _order(section: str) -> list[tuple[int, str]]:
    parts = section.replace("§", "").replace("PS3.", "").replace("-", ".").replace(" ", ".")
    return [(int(part), "") if part.isdigit() else (10**6, part) for part in parts.split(".")]


def _error_name(error: type[ArchiveError]) -> str:
    return f"{error.__name__}: {str(error.__doc__).splitlines()[0]}"


def _default(name: str, value: object) -> str:
    if isinstance(value, tuple):
        return f"`{','.join(value)}`"
    if isinstance(value, int) and name.endswith("_bytes"):
        for size, unit in UNITS:
            if value >= size and value % size == 0:
                return f"`{value}` ({value // size} {unit})"
    return "–" if value == "" else f"`{value}`"


if __name__ == "__main__":
    for path, text in documents().items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        print(path.relative_to(ROOT))
