"""Data set encoding: from the DICOM JSON model to bytes (PS3.5 §7 and §A.1–§A.2, PS3.18 §F.2).

For what is made here: answers to searches and identifiers. Stored objects go out as they came.
"""

import struct
from base64 import b64decode
from collections.abc import Callable, Sequence
from typing import Any

from bfr_core.character_sets import TextEncoder
from bfr_core.instances import Dataset

SPECIFIC_CHARACTER_SET = "00080005"
UNICODE = ("ISO_IR 192",)
_TEXTS = frozenset({"LO", "LT", "PN", "SH", "ST", "UC", "UT"})  # of the character set (§6.1.2.3)
_LONG = frozenset({"OB", "OD", "OF", "OL", "OV", "OW", "SQ", "SV", "UC", "UN", "UR", "UT", "UV"})
_NUMBERS = {
    "FD": "d",
    "FL": "f",
    "SL": "i",
    "SS": "h",
    "SV": "q",
    "UL": "I",
    "US": "H",
    "UV": "Q",
}
_GROUPS = ("Alphabetic", "Ideographic", "Phonetic")
_SHORT_VALUE_MAX_BYTES = 0xFFFE


def encode_dataset(
    dataset: Dataset, *, explicit: bool, character_set: Sequence[str] = UNICODE
) -> bytes:
    """Return the data set in little endian order, its elements by tag.

    The text is in `character_set`, or in Unicode when that does not hold all of it; Specific
    Character Set (0008,0005) tells which. Without text beyond ASCII it is left out. A BulkDataURI
    has no value here. Raises ValueError for a number that its VR does not hold.
    """
    plain = {tag: element for tag, element in dataset.items() if tag != SPECIFIC_CHARACTER_SET}
    try:
        return _encode(plain, explicit, TextEncoder(()))
    except UnicodeEncodeError:
        pass
    for terms in (character_set, UNICODE):
        told: Dataset = {SPECIFIC_CHARACTER_SET: {"vr": "CS", "Value": list(terms)}, **plain}
        try:
            return _encode(told, explicit, TextEncoder(terms))
        except ValueError:
            if terms is UNICODE:
                raise
    raise AssertionError("Unicode holds every text")


def _encode(dataset: Dataset, explicit: bool, text: TextEncoder) -> bytes:
    pieces = []
    for tag in sorted(dataset):
        element = dataset[tag]
        vr = str(element["vr"])
        value = _value(vr, element, explicit, text)
        if len(value) % 2:
            value += b"\0" if vr in ("UI", "OB", "UN") else b" "
        number = struct.pack("<HH", int(tag[:4], 16), int(tag[4:], 16))
        if not explicit:
            pieces.append(number + struct.pack("<I", len(value)))
        elif vr in _LONG or len(value) > _SHORT_VALUE_MAX_BYTES:
            # A long value of a short VR is UN (PS3.5 §6.2.2).
            name = vr if vr in _LONG else "UN"
            pieces.append(number + struct.pack("<2sHI", name.encode(), 0, len(value)))
        else:
            pieces.append(number + struct.pack("<2sH", vr.encode(), len(value)))
        pieces.append(value)
    return b"".join(pieces)


def _value(vr: str, element: dict[str, Any], explicit: bool, text: TextEncoder) -> bytes:
    if "InlineBinary" in element:
        return b64decode(element["InlineBinary"])
    values = element.get("Value") or []
    if vr == "SQ":
        items = [_encode(item, explicit, text) for item in values]
        return b"".join(struct.pack("<HHI", 0xFFFE, 0xE000, len(item)) + item for item in items)
    if vr == "AT":
        return b"".join(struct.pack("<HH", int(v[:4], 16), int(v[4:], 16)) for v in values)
    if vr in _NUMBERS:
        try:
            return b"".join(
                struct.pack("<" + _NUMBERS[vr], float(v) if vr in ("FD", "FL") else v)
                for v in values
            )
        except struct.error as error:
            raise ValueError(f"a value does not fit {vr}") from error
    encode: Callable[[str], bytes] = text.encode if vr in _TEXTS else _encode_default
    return b"\\".join(encode(_text_of(value)) for value in values)


def _text_of(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, dict):
        return "=".join(str(value.get(group, "")) for group in _GROUPS).rstrip("=")
    if isinstance(value, float):
        # A DS has at most 16 characters (§6.2).
        return next(t for p in range(17, 0, -1) if len(t := f"{value:.{p}g}") <= 16)
    return str(value)


def _encode_default(text: str) -> bytes:
    """Return text of the default repertoire; what does not belong to it is kept as it was read."""
    return text.encode("latin-1", "replace")
