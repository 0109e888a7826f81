"""Rejection notes: the key object selections that say what was rejected and why.

PS3.3 §A.35.4, PS3.16 TID 2010 and CID 7011; IHE Radiology, Imaging Object Change Management.
"""

import datetime
import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bfr_core.instances import Dataset
from bfr_core.part10 import IMPLEMENTATION_CLASS_UID

KEY_OBJECT_SELECTION = "1.2.840.10008.5.1.4.1.1.88.59"
# Code values of DCM with their meanings (PS3.16 CID 7011).
CODES: Mapping[str, str] = {
    "113001": "Rejected for Quality Reasons",
    "113037": "Rejected for Patient Safety Reasons",
    "113038": "Incorrect Modality Worklist Entry",
    "113039": "Data Retention Policy Expired",
}
TITLE, CODE_VALUE, CODING_SCHEME = "0040A043", "00080100", "00080102"
EVIDENCE, SERIES, SOPS = "0040A375", "00081115", "00081199"
CLASS_UID, STUDY_UID, SERIES_UID = "00080016", "0020000D", "0020000E"
REFERENCED_CLASS_UID, REFERENCED_UID = "00081150", "00081155"
CONTENT, TEXT = "0040A730", "0040A160"
DESCRIPTION = "113012"  # Key Object Description
# What a note says of patient and study, as every object of the study does; type 2, then 3.
STUDY_TAGS: Mapping[str, str] = {
    "00080020": "DA",
    "00080030": "TM",
    "00080050": "SH",
    "00080090": "PN",
    "00100010": "PN",
    "00100020": "LO",
    "00100030": "DA",
    "00100040": "CS",
    "00200010": "SH",
}
OPTIONAL_TAGS = ("00080051", "00081030", "00100021")


@dataclass(frozen=True, slots=True)
class Rejected:
    """One object that is rejected."""

    series_instance_uid: str
    sop_class_uid: str
    sop_instance_uid: str
    is_image: bool


@dataclass(frozen=True, slots=True)
class Note:
    """What a rejection note says."""

    code: str
    text: str  # "" without a description
    sop_instance_uids: frozenset[str]  # of its own study


def may_be_note(sop_class_uid: str) -> bool:
    """Tell whether objects of the class can be rejection notes."""
    return sop_class_uid == KEY_OBJECT_SELECTION


def read_note(dataset: Dataset) -> Note | None:
    """Return what the object says; None when it is no rejection note."""
    if not may_be_note(str(_first(dataset, CLASS_UID))):
        return None
    title = next(iter(_items(dataset, TITLE)), {})
    code = str(_first(title, CODE_VALUE))
    if code not in CODES or _first(title, CODING_SCHEME) != "DCM":
        return None
    own = _first(dataset, STUDY_UID)
    named = [
        str(_first(item, REFERENCED_UID))
        for study in _items(dataset, EVIDENCE)
        if _first(study, STUDY_UID) == own
        for series in _items(study, SERIES)
        for item in _items(series, SOPS)
    ]
    texts = [
        str(_first(item, TEXT))
        for item in _items(dataset, CONTENT)
        if any(_first(concept, CODE_VALUE) == DESCRIPTION for concept in _items(item, TITLE))
    ]
    return Note(code, " ".join(texts), frozenset(named))


def new_note(
    header: Dataset, rejected: Sequence[Rejected], code: str, text: str, rejected_by: str
) -> Dataset:
    """Return a note for the study of which `header` is an object's, in a series of its own."""
    now = datetime.datetime.now(datetime.UTC)
    date, time = now.strftime("%Y%m%d"), now.strftime("%H%M%S")
    note = {tag: header.get(tag, {"vr": vr}) for tag, vr in STUDY_TAGS.items()}
    note |= {tag: header[tag] for tag in OPTIONAL_TAGS if tag in header}
    study_uid = str(_first(header, STUDY_UID))
    return note | {
        "00080016": _element("UI", KEY_OBJECT_SELECTION),
        "00080018": _element("UI", _new_uid()),
        "00080021": _element("DA", date),
        "00080023": _element("DA", date),
        "00080031": _element("TM", time),
        "00080033": _element("TM", time),
        "00080060": _element("CS", "KO"),
        "00080070": _element("LO", "BFR"),
        "00080201": _element("SH", "+0000"),
        "0008103E": _element("LO", CODES[code]),
        "00081111": {"vr": "SQ"},
        "0020000D": _element("UI", study_uid),
        "0020000E": _element("UI", _new_uid()),
        "00200011": _element("IS", 1),
        "00200013": _element("IS", 1),
        "0040A040": _element("CS", "CONTAINER"),
        TITLE: _code(code, CODES[code]),
        "0040A050": _element("CS", "SEPARATE"),
        EVIDENCE: _element("SQ", _evidence(study_uid, rejected)),
        "0040A504": _element(
            "SQ", {"00080105": _element("CS", "DCMR"), "0040DB00": _element("CS", "2010")}
        ),
        CONTENT: _element("SQ", *_content(rejected, text, rejected_by)),
    }


def _content(rejected: Iterable[Rejected], text: str, rejected_by: str) -> Iterable[Dataset]:
    device = {"0040A168": _code("121007", "Device")}
    uid = {"0040A124": _element("UI", IMPLEMENTATION_CLASS_UID)}
    name, description = {TEXT: _element("UT", rejected_by)}, {TEXT: _element("UT", text)}
    for relation, kind, concept, meaning, value in (
        ("HAS OBS CONTEXT", "CODE", "121005", "Observer Type", device),
        ("HAS OBS CONTEXT", "UIDREF", "121012", "Device Observer UID", uid),
        ("HAS OBS CONTEXT", "TEXT", "121013", "Device Observer Name", name),
        ("CONTAINS", "TEXT", DESCRIPTION, "Key Object Description", description),
    ):
        yield {
            "0040A010": _element("CS", relation),
            "0040A040": _element("CS", kind),
            TITLE: _code(concept, meaning),
            **value,
        }
    for one in rejected:
        yield {
            "0040A010": _element("CS", "CONTAINS"),
            "0040A040": _element("CS", "IMAGE" if one.is_image else "COMPOSITE"),
            SOPS: _element("SQ", _reference(one)),
        }


def _evidence(study_uid: str, rejected: Iterable[Rejected]) -> Dataset:
    series: dict[str, list[Dataset]] = {}
    for one in rejected:
        series.setdefault(one.series_instance_uid, []).append(_reference(one))
    items = [
        {SOPS: _element("SQ", *references), SERIES_UID: _element("UI", uid)}
        for uid, references in series.items()
    ]
    return {SERIES: _element("SQ", *items), STUDY_UID: _element("UI", study_uid)}


def _reference(one: Rejected) -> Dataset:
    return {
        REFERENCED_CLASS_UID: _element("UI", one.sop_class_uid),
        REFERENCED_UID: _element("UI", one.sop_instance_uid),
    }


def _code(value: str, meaning: str) -> dict[str, Any]:
    item = {
        CODE_VALUE: _element("SH", value),
        CODING_SCHEME: _element("SH", "DCM"),
        "00080104": _element("LO", meaning),
    }
    return _element("SQ", item)


def _items(dataset: Dataset, tag: str) -> list[Dataset]:
    return [one for one in dataset.get(tag, {}).get("Value") or [] if isinstance(one, dict)]


def _first(dataset: Dataset, tag: str) -> Any:
    values = dataset.get(tag, {}).get("Value") or [""]
    return values[0]


def _element(vr: str, *values: Any) -> dict[str, Any]:
    return {"vr": vr, "Value": list(values)}


def _new_uid() -> str:
    return f"2.25.{uuid.uuid4().int}"
