"""The documents that are generated: `make docs` writes them, `test_docs.py` holds them true."""

import ast
import dataclasses
import typing
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from prometheus_client.metrics import MetricWrapperBase
from pydicom.datadict import keyword_for_tag

from bfr_core import metrics
from bfr_core.errors import ArchiveError
from bfr_core.non_patient_categories import CATEGORIES
from bfr_core.settings import Settings
from bfr_core.transcoding import COMPRESSED_TARGETS
from bfr_dicomweb import app, errors
from bfr_legacy.dimse import find_scp, query_retrieve, status
from bfr_legacy.dimse.commitment_scp import STORAGE_COMMITMENT
from bfr_legacy.dimse.mpps_scp import MODALITY_PERFORMED_PROCEDURE_STEP
from bfr_legacy.dimse.node_calls import INSTANCE_AVAILABILITY_NOTIFICATION
from bfr_legacy.dimse.worklist_scp import MODALITY_WORKLIST

ROOT = Path(__file__).parents[1]
OBSERVABILITY = ROOT / "docs" / "operations" / "observability.md"
FIGURES_BEGIN = "<!-- figures: written by `make docs` -->\n"
FIGURES_END = "<!-- end of figures -->\n"
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
        OBSERVABILITY: observability(),
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
    """What the DIMSE door does, in the order of PS3.2 Annex N, with what tests show."""
    answers = [
        f"| {_error_name(error)} | {answer.status:04X}H | {answer.rejection.result},"
        f" {answer.rejection.source}, {answer.rejection.reason} |"
        for error, answer in status.ANSWERS.items()
    ]
    return "\n".join(
        (
            "# DICOM conformance",
            "",
            "What the DIMSE door offers at this version, in the order of PS3.2 Annex N.",
            "",
            "## Overview",
            "",
            "| Service | Role | SOP classes | Transfer syntaxes |",
            "|---|---|---|---|",
            "| Verification (PS3.4 Annex A) | SCP | 1.2.840.10008.1.1 | Implicit and Explicit VR"
            " Little Endian |",
            "| Storage (PS3.4 Annexes B and GG) | SCP | every storage SOP class of DICOM, of"
            " patients and of none, private ones |"
            " every one that is proposed; kept as sent |",
            "| Storage (PS3.4 Annex B) | SCU | of what is stored | as stored; Explicit or Implicit"
            " VR Little Endian for who takes no other |",
            *(
                f"| Query/Retrieve {service} (PS3.4 Annex C) | SCP |"
                f" {query_retrieve.PATIENT_ROOT}{suffix}, {query_retrieve.STUDY_ROOT}{suffix} |"
                " Implicit and Explicit VR Little Endian |"
                for service, suffix in (
                    ("FIND", query_retrieve.FIND),
                    ("MOVE", query_retrieve.MOVE),
                    ("GET", query_retrieve.GET),
                )
            ),
            f"| Modality Worklist (PS3.4 Annex K) | SCP | {MODALITY_WORKLIST} | Implicit and"
            " Explicit VR Little Endian |",
            "| Modality Performed Procedure Step (PS3.4 Annex F.7) | SCP |"
            f" {MODALITY_PERFORMED_PROCEDURE_STEP} | Implicit and Explicit VR Little Endian |",
            f"| Storage Commitment Push (PS3.4 Annex J) | SCP and SCU | {STORAGE_COMMITMENT} |"
            " Implicit and Explicit VR Little Endian |",
            "| Instance Availability Notification (PS3.4 Annex R) | SCU |"
            f" {INSTANCE_AVAILABILITY_NOTIFICATION} | Implicit and Explicit VR Little Endian, as"
            " pynetdicom proposes them |",
            "",
            "Private SOP classes are those of `BFR_DIMSE_PRIVATE_STORAGE_SOP_CLASSES`.",
            "",
            "## Implementation model",
            "",
            "One AE title per archive, and one per virtual archive, which shows all published data"
            " and stores nothing. Success (0000H) of C-STORE is answered after bytes and index row"
            " are committed. C-MOVE calls its destination with the AE title of the archive; C-GET"
            " sends on its own association, in contexts whose SCP role the peer has taken.",
            "",
            "A request for storage commitment is answered at once and reported over its own"
            " association when the peer leaves that open and quiet for a second, else over one that"
            " we ask the registered node for, with the SCP role; again and again for two days. A"
            " study is announced (IAN) when its last series is sealed.",
            "",
            "## Services and interoperability",
            "",
            "### C-FIND keys",
            "",
            "A key of a level may be used at the levels below it too.",
            "",
            "| Attribute | Tag | Levels |",
            "|---|---|---|",
            *_keys(),
            "",
            "Every element of the header may be asked for at the IMAGE level. Other keys are"
            " answered empty, with FF01H. Query/Retrieve Level, Retrieve AE Title and Instance"
            " Availability are always answered, and Timezone Offset From UTC where it is known."
            " Text comes in the character set of the request, or in ISO_IR 192 when that does not"
            " hold it. Names match without regard to case and accents.",
            "",
            "Extended negotiation: relational queries and retrieval, combined date and time, fuzzy"
            " matching of person names, adjustment of time zones.",
            "",
            "### Modality Worklist and performed steps",
            "",
            "Every attribute of a worklist item is a return key and, but for Pregnancy Status, a"
            " matching key, in any sequence. Ranges of Scheduled Procedure Step Start Date and Time"
            " together are one period. Examinations whose status is in `BFR_WORKLIST_STATUSES` are"
            " in the list: those that are performed leave it by MPPS.",
            "",
            "Of MPPS the type 1 attributes are required, type 2 may be absent. A step begins IN"
            " PROGRESS, and ends with its end date and time and, when COMPLETED, a performed"
            " series. Attributes that may not be changed later are left as they were (0107H).",
            "",
            "### Storage Commitment",
            "",
            "| Failure Reason (0008,1197) | Meaning |",
            "|---|---|",
            "| 0110H | the object is registered, but its bytes cannot be read |",
            "| 0112H | this archive has no such object |",
            "| 0119H | the object is of another SOP class |",
            "| 0131H | the node has used the Transaction UID for other objects |",
            "",
            "### Statuses",
            "",
            "| Service | Status | Meaning |",
            "|---|---|---|",
            "| C-FIND | FF00H, FF01H | a match; FF01H: a key is not supported |",
            "| C-FIND | A700H | more matches than `BFR_DIMSE_FIND_MATCHES_MAX`; no database |",
            "| C-MOVE, C-GET | A701H | more than 65,535 instances; no database |",
            "| C-MOVE, C-GET | A702H | every sub-operation has failed |",
            "| C-MOVE | A801H | the destination is no registered node of the archive |",
            "| C-MOVE, C-GET | B000H | some sub-operations have failed or warn |",
            "| all three | A900H | level or unique key is missing or does not fit; with Offending"
            " Element |",
            "| all three | C000H | the identifier, or a value, cannot be understood |",
            "| all three | FE00H | cancelled: after the match or sub-operation at hand |",
            "| N-ACTION | 0112H, 0115H, 0123H | another instance, a request that is none, another"
            " action |",
            "| N-CREATE, N-SET | 0106H, 0120H, 0121H | a value, an attribute, its value is missing"
            " or none of its terms |",
            "| N-CREATE | 0111H | the step exists |",
            "| N-SET | 0107H | some attributes may not be changed and are as they were |",
            "| N-SET | 0110H, Error ID A710H | the step is over and is changed no more |",
            "| N-SET | 0112H | there is no such step |",
            "| every N service | 0124H | asked of a virtual archive |",
            "",
            "| Error | Status (0000,0900) | A-ASSOCIATE-RJ result, source, reason |",
            "|---|---|---|",
            *answers,
            "",
            "## Configuration",
            "",
            "AE titles, hosts, ports and what a node has agreed on are rows: `bfr archive`,"
            " `bfr node`. Settings:"
            " [configuration.md](../configuration.md), `BFR_DIMSE_…`.",
            "",
            "## Network communication",
            "",
            "As requestor at most 128 presentation contexts an association, each with one transfer"
            " syntax; as many associations, one after the other, as that needs. One operation at a"
            " time. A receiver that is silent for `BFR_DIMSE_IDLE_TIMEOUT_S` is given up.",
            "",
            "Several processes may serve one port (`BFR_DIMSE_PROCESSES`). Limits of a node"
            " (associations at once, associations a minute, PDU) are rows and hold over all"
            " processes of a machine; beyond them the answer is 2, 3, 2.",
            "",
            "## Security",
            "",
            "Only registered nodes of the called archive are admitted, to a virtual archive only"
            " nodes that are marked as audited for it. Each association, each query and each series"
            " that goes out makes an audit record.",
            "",
            "A call from another host than the node's is rejected (1, 1, 3), as is one without TLS"
            " where the node has to use it, or with another certificate than the one it is bound"
            " to. User identity (PS3.7 §D.3.3.7) is looked at where users or a secret are"
            " registered for the node: user name, user name and passcode, JSON Web Token (HS256);"
            " who is not known is rejected (1, 1, 1). Elsewhere it is accepted unseen, without an"
            " answer.",
            "",
            "TLS 1.2 and 1.3 after BCP 195 with certificates on both sides, on a port of its own"
            " (`BFR_DIMSE_TLS_PORT`, 2762): ECDHE with AES-GCM or ChaCha20-Poly1305. Nodes that"
            " have to use TLS are called over it too. Files are read again when they change.",
            "",
            *_statements(("PS3.4", "PS3.5", "PS3.7", "PS3.8", "PS3.10", "PS3.15"), "PS3.4"),
        )
    )


def _keys() -> list[str]:
    """The keys of C-FIND with the levels that they are of."""
    rows = []
    told: set[str] = set()
    for level, keys in find_scp.KEYS.items():
        for tag in sorted(keys - told):
            steps = tag.split(".")
            keyword = ".".join(keyword_for_tag(int(step, 16)) for step in steps)
            numbers = ".".join(f"({step[:4]},{step[4:]})" for step in steps)
            rows.append(f"| {keyword} | {numbers} | {level} |")
        told |= keys
    answered = sorted(frozenset().union(*find_scp.ANSWERED.values()) - told)
    rows += [
        f"| {keyword_for_tag(int(tag, 16))} | ({tag[:4]},{tag[4:]}) | answered, not matched |"
        for tag in answered
    ]
    return rows


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
            "`application/zip` of a study, a series or an instance is a file-set of the objects as"
            " stored, with a DICOMDIR and File IDs after PS3.10; nothing is deflated. The length is"
            " told before the first byte, and an answer whose bytes cannot all be read breaks off:"
            " [ADR 22](../adr/0022-zip-and-dicomdir.md).",
            "",
            "WADO-URI (chapter 9) answers at the base of every root and at `/wado` below it. Each"
            " request becomes the one of WADO-RS that means the same. Optional parameters:"
            " `contentType`, `charset`, `transferSyntax`, `frameNumber`, `rows` with `columns`,"
            " `windowCenter` with `windowWidth`, `imageQuality`, `region`."
            " `anonymize` and presentation states are refused with 406, any other parameter with"
            " 400.",
            "",
            "Non-patient instances (chapter 12) are retrieved, stored and searched for: "
            + ", ".join(f"`{name}`" for name in CATEGORIES)
            + ". Every attribute is a key. What an object is, its SOP class decides; one that names"
            " a study is of that study: [ADR 23](../adr/0023-non-patient-instances.md).",
            "",
            "Storage commitment (chapter 13): a request is answered at once, never with 202, and"
            " its result is kept for good. Objects may be named by SOP instance or by study; one"
            " that lies in another series than was said is not committed. The Failure Reasons are"
            " those of the DIMSE service: [dicom.md](dicom.md). The joint root takes a request"
            " where there is one archive only.",
            "",
            "Beyond the standard: the change feed at `/changes`. Parameters: `since`, a Sequence"
            " that the answer begins after; `limit`; `starttime` and `endtime` (RFC 3339), between"
            " which a change was published. Nothing is missed and nothing comes twice by who goes"
            " on from the last Sequence: [ADR 20](../adr/0020-the-change-feed.md).",
            "",
            "Beyond the standard: DELETE of a study, series or instance rejects what it holds."
            " `code` is one of CID 7011: 113001, 113037, 113038, 113039; the body may tell more:"
            ' `{"reason": "…"}`. The objects are in no answer from then on and are refused when'
            " they come again. A rejection note stays in the study: a key object selection that"
            " names them, with the code, the text and who rejected. Storing such a note, by STOW-RS"
            " or C-STORE, has the same effect: for callers on this machine, and for nodes that"
            " are registered with `--accept-rejections`; the note of another node is stored, has no"
            " effect and opens a case. Objects of other studies than the note's stay. With the"
            " UIDs of the note `bfr undelete` takes the rejection back, and the note.",
            "",
            "Beyond the standard: `/count` below each resource of a search takes the same keys and"
            " answers with `count` and `atLeast`, which is true when there are more than the"
            " `BFR_SEARCH_COUNTED_MAX` that are counted. Instances are counted by keys of their"
            " study and series.",
            "",
            "Search: beside the keys of the tables, instances of a study, series or UID that is"
            " named match by any attribute, also in sequences. Person names match without regard to"
            " case and accents, by component groups; `fuzzymatching` finds each word of the key in"
            " the name, or what is much like it by three-letter groups, in any order."
            " `emptyvaluematching` takes two quotation marks, `multiplevaluematching` a backslash"
            " between values. `includefield` adds attributes of patient, study and series that only"
            " objects tell, for at most `BFR_SEARCH_HEADERS_MAX` results. A page goes on behind the"
            " one before it: [ADR 15](../adr/0015-search-positions.md).",
            "",
            "Retrieve: objects and frames go out as stored when no transfer syntax, or `*`, is"
            " asked for; else as stored, in Explicit or Implicit VR Little Endian, or without loss"
            " in "
            + ", ".join(f"`{uid}`" for uid in COMPRESSED_TARGETS)
            + ", each picture compared before it leaves: [ADR 17](../adr/0017-transcoding-for-"
            "dicomweb.md). Metadata, single objects, single frames and single values have an ETag;"
            " the last three give ranges.",
            "",
            "Rendered: JPEG, PNG and animated GIF; MP4 (H.264) where the extra `video` is"
            " installed; HTML and text for structured reports; encapsulated PDF and CDA as they"
            " are. Parameters `viewport`, `window`, `quality`:"
            " [ADR 18](../adr/0018-rendered-resources.md).",
            "",
            "Store: Part 10, and metadata in JSON or XML with bulk data in parts, text of which is"
            " stored in UTF-8: [ADR 19](../adr/0019-objects-from-metadata.md).",
            "",
            "What an OpenAPI client needs stands at `/openapi.json`.",
            "",
            "Not offered: `annotation` and `iccprofile` of rendered resources, rendering by"
            " presentation states, search attributes that are registered later, JPEG 2000 pictures,"
            " store of lossy pictures as JPEG alone without metadata.",
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


@dataclass(frozen=True)
class Figure:
    """One metric as Prometheus names it."""

    name: str
    kind: str
    labels: tuple[str, ...]
    meaning: str


def figures() -> list[Figure]:
    """Every metric of the system, by name."""
    labels = {
        one._name: one._labelnames
        for one in vars(metrics).values()
        if isinstance(one, MetricWrapperBase)
    }
    return sorted(
        (
            Figure(
                family.name + ("_total" if family.type == "counter" else ""),
                family.type,
                tuple(labels.get(family.name, ())),
                family.documentation,
            )
            for family in metrics.REGISTRY.collect()
        ),
        key=lambda one: one.name,
    )


def observability() -> str:
    """The document of operations with the table of all metrics."""
    head, begin, rest = OBSERVABILITY.read_text().partition(FIGURES_BEGIN)
    _, end, tail = rest.partition(FIGURES_END)
    rows = [
        f"| `{one.name}` | {one.kind} | {', '.join(f'`{label}`' for label in one.labels)} |"
        f" {one.meaning} |"
        for one in figures()
    ]
    table = "\n".join(("| Name | Kind | Labels | Meaning |", "|---|---|---|---|", *rows, ""))
    return f"{head}{begin}{table}{end}{tail}"


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
