"""Data set encoding: from the DICOM JSON model to bytes (PS3.5 §7 and §A.1–§A.2, PS3.18 §F.2).

For what is made here: answers to searches and identifiers. Stored objects go out as they came.
"""

import struct
from base64 import b64decode
from collections.abc import Callable, Sequence
from dataclasses import dataclass
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


@dataclass(frozen=True, slots=True)
class Streamed:
    """The place of an element whose value is written from elsewhere."""

    tag: str
    vr: str


def encode_pieces(dataset: Dataset) -> list[bytes | Streamed]:
    """Return the data set in Explicit VR Little Endian, in pieces around its top-level bulk data.

    Character set and errors as `encode_dataset`.
    """
    runs: list[Dataset | Streamed] = [{}]
    for tag in sorted(dataset):
        element = dataset[tag]
        run = runs[-1]
        if "BulkDataURI" in element:
            runs += [Streamed(tag, str(element["vr"])), {}]
        elif tag != SPECIFIC_CHARACTER_SET and isinstance(run, dict):
            run[tag] = element
    try:
        return _encode_runs(runs, TextEncoder(()))
    except UnicodeEncodeError:
        first = runs[0]
        told: Dataset = {SPECIFIC_CHARACTER_SET: {"vr": "CS", "Value": list(UNICODE)}}
        runs[0] = {**told, **(first if isinstance(first, dict) else {})}
        return _encode_runs(runs, TextEncoder(UNICODE))


def _encode_runs(runs: Sequence[Dataset | Streamed], text: TextEncoder) -> list[bytes | Streamed]:
    return [run if isinstance(run, Streamed) else _encode(run, True, text) for run in runs]


def streamed_header(element: Streamed, length: int) -> bytes:
    """Return the header of an element in Explicit VR, of the length that its value will have."""
    tag, vr = element.tag, element.vr
    number = struct.pack("<HH", int(tag[:4], 16), int(tag[4:], 16))
    if vr in _LONG or length > _SHORT_VALUE_MAX_BYTES:
        name = vr if vr in _LONG else "UN"
        return number + struct.pack("<2sHI", name.encode(), 0, length)
    return number + struct.pack("<2sH", vr.encode(), length)


def item_header(length: int) -> bytes:
    """Return the header of an item or a fragment."""
    return struct.pack("<HHI", 0xFFFE, 0xE000, length)


def _encode(dataset: Dataset, explicit: bool, text: TextEncoder) -> bytes:
    pieces = []
    for tag in sorted(dataset):
        element = dataset[tag]
        vr = str(element["vr"])
        value = _value(vr, element, explicit, text)
        if len(value) % 2:
            value += b"\0" if vr in ("UI", "OB", "UN") else b" "
        if explicit:
            # A long value of a short VR is UN (PS3.5 §6.2.2).
            pieces.append(streamed_header(Streamed(tag, vr), len(value)))
        else:
            number = struct.pack("<HH", int(tag[:4], 16), int(tag[4:], 16))
            pieces.append(number + struct.pack("<I", len(value)))
        pieces.append(value)
    return b"".join(pieces)


def _value(vr: str, element: dict[str, Any], explicit: bool, text: TextEncoder) -> bytes:
    if "InlineBinary" in element:
        return b64decode(element["InlineBinary"])
    if "bytes" in element:
        return bytes(element["bytes"])
    values = element.get("Value") or []
    if vr == "SQ":
        items = [_encode(item, explicit, text) for item in values]
        return b"".join(item_header(len(item)) + item for item in items)
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
