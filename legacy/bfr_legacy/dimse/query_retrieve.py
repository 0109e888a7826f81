"""Query/Retrieve: SOP classes, levels and identifiers that its services share (PS3.4 Annex C)."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import cast

from pynetdicom.events import Event

from bfr_core.data_elements import DataElementReader, HeaderLimits
from bfr_core.errors import Invalid
from bfr_core.instances import Dataset
from bfr_legacy.dimse.exchange import (
    EXPLICIT_VR_LITTLE_ENDIAN,
    IMPLICIT_VR_LITTLE_ENDIAN,
    Exchange,
)
from bfr_legacy.dimse.peers import Peer
from bfr_legacy.dimse.status import CANNOT_UNDERSTAND, IDENTIFIER_DOES_NOT_MATCH_SOP_CLASS

PATIENT_ROOT = "1.2.840.10008.5.1.4.1.2.1"
STUDY_ROOT = "1.2.840.10008.5.1.4.1.2.2"
FIND, MOVE, GET = ".1", ".2", ".3"  # of each root
SYNTAXES = frozenset({IMPLICIT_VR_LITTLE_ENDIAN, EXPLICIT_VR_LITTLE_ENDIAN})

LEVEL = "00080052"  # Query/Retrieve Level
LEVELS = {
    PATIENT_ROOT: ("PATIENT", "STUDY", "SERIES", "IMAGE"),
    STUDY_ROOT: ("STUDY", "SERIES", "IMAGE"),
}
PATIENT_ID, STUDY_UID, SERIES_UID, INSTANCE_UID = "00100020", "0020000D", "0020000E", "00080018"
ISSUER = "00100021"  # tells two patients with the same Patient ID apart
UNIQUE_KEYS = {
    "PATIENT": PATIENT_ID,
    "STUDY": STUDY_UID,
    "SERIES": SERIES_UID,
    "IMAGE": INSTANCE_UID,
}
# What we can of what extended negotiation asks for, byte by byte: relational queries, combined
# date and time, fuzzy names, time zones (§C.5.1.1); relational retrieval (§C.5.2.1).
CAPABILITIES = {FIND: b"\1\1\1\1", MOVE: b"\1", GET: b"\1"}
RELATIONAL, COMBINED_MOMENTS, FUZZY_NAMES, TIMEZONES = range(4)

_TAG_IN_MESSAGE = re.compile(r"([0-9A-F]{8})[.:]")


class Refused(Exception):
    """The identifier cannot be served; it says how that is answered."""

    def __init__(self, status: int, message: str, tag: str = "") -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.offending_element = int(tag, 16) if tag else None


@dataclass(frozen=True, slots=True)
class Identifier:
    """The identifier of a request, of which the level is one of its model's."""

    root: str
    level: str
    dataset: Dataset
    character_set: tuple[str, ...]

    def values(self, tag: str) -> tuple[str, ...]:
        """Return the values of a key as text; () when it is absent or empty."""
        return values_of(self.dataset.get(tag, {}))


def agrees(exchange: Exchange, capability: int) -> bool:
    """Tell whether the peer has asked for a capability of extended negotiation, and got it."""
    return exchange.agreed[capability : capability + 1] == b"\1"


def answer_extended_negotiation(event: Event, peer: Peer) -> dict[str, bytes]:
    """Return what is agreed to, for each SOP class of Query/Retrieve that was asked about."""
    agreed = {}
    asked = cast("dict[str, bytes]", event.app_info)  # type: ignore[attr-defined]
    for uid, information in asked.items():
        root, service = str(uid)[:-2], str(uid)[-2:]
        if root in LEVELS and service in CAPABILITIES:
            ours = CAPABILITIES[service].ljust(len(information), b"\0")
            agreed[str(uid)] = bytes(
                one & other for one, other in zip(information, ours, strict=False)
            )
    return agreed


def read_identifier(exchange: Exchange, limits: HeaderLimits) -> Identifier:
    """Return the identifier of a request.

    Raises Refused when it cannot be decoded, or its level is missing or none of its model's.
    """
    data = exchange.identifier
    reader = DataElementReader(data, limits)
    try:
        dataset = reader.read(0, len(data), explicit=exchange.explicit)
    except Invalid as error:
        raise Refused(CANNOT_UNDERSTAND, error.message) from error
    root = exchange.sop_class_uid[:-2]
    level = "".join(values_of(dataset.get(LEVEL, {})))
    if not level:
        raise misfit("Query/Retrieve Level is missing", LEVEL)
    if level not in LEVELS[root]:
        raise misfit("Query/Retrieve Level is none of this model", LEVEL)
    return Identifier(root, level, dataset, reader.character_set)


def require_keys_above(identifier: Identifier) -> None:
    """Raise Refused when a unique key above the level is not a single value (§C.4.1.3.1.1)."""
    for level in LEVELS[identifier.root]:
        if level == identifier.level:
            return
        tag = UNIQUE_KEYS[level]
        values = identifier.values(tag)
        if len(values) != 1 or "*" in values[0] or "?" in values[0]:
            raise misfit(f"the unique key of the {level} level is not a single value", tag)


def misfit(message: str, tag: str) -> Refused:
    """Return that the identifier does not match its SOP class, and which element is at fault."""
    return Refused(IDENTIFIER_DOES_NOT_MATCH_SOP_CLASS, message, tag)


def not_understood(error: Invalid) -> Refused:
    """Return that the value of a key is none, and of which."""
    tag = _TAG_IN_MESSAGE.match(error.message)
    return Refused(CANNOT_UNDERSTAND, error.message, tag[1] if tag else "")


def values_of(element: Mapping[str, object]) -> tuple[str, ...]:
    """Return the values of an element of DICOM JSON as text, without the empty ones."""
    values = element.get("Value")
    texts = [_text(value) for value in values] if isinstance(values, list) else []
    return tuple(text for text in texts if text)


def _text(value: object) -> str:
    if isinstance(value, dict):  # of a person name
        groups = ("Alphabetic", "Ideographic", "Phonetic")
        return "=".join(str(value.get(group, "")) for group in groups).rstrip("=")
    return "" if value is None else str(value).strip()
