"""Lookup tables: modality, VOI and palette colour (PS3.3 §C.11.1, §C.11.2, §C.7.6.3.1.5–6, §C.7.9).

Numbers come from a DICOM JSON object (PS3.18 §F.2), where binary values are little endian.
"""

import base64
import binascii
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from bfr_core.errors import Invalid

_ENTRIES_MAX = 65536
_DISCRETE, _LINEAR, _INDIRECT = 0, 1, 2  # segment types, PS3.3 §C.7.9.2


@dataclass(frozen=True, slots=True, eq=False)
class LookupTable:
    """A table from stored or modality values to output values."""

    first: int  # the input that the first entry is for; inputs outside get the nearest entry
    entries: npt.NDArray[np.uint16]
    bits: int  # of an entry

    def look_up(self, values: npt.NDArray[Any]) -> npt.NDArray[np.uint16]:
        """Return the entries for the values, in the same shape."""
        last = self.first + len(self.entries) - 1
        nearest = np.clip(np.nan_to_num(np.rint(values), nan=self.first), self.first, last)
        found: npt.NDArray[np.uint16] = self.entries[(nearest - self.first).astype(np.intp)]
        return found


def sequence_table(item: Mapping[str, Any], name: str, *, signed: bool) -> LookupTable:
    """Return the table of an item of Modality LUT or VOI LUT Sequence; `name` is for messages.

    `signed` says that its inputs may be negative. Raises Invalid when it is malformed or is kept as
    bulk data.
    """
    size, first, bits = _descriptor(item, "00283002", name)
    entries = _entries(item, "00283006", name)
    if entries is None:
        raise Invalid(f"The {name} has no LUT Data (0028,3006).")
    entries = _widened(entries, size, name)
    # The third number is often wrong: the entries tell more.
    bits = max(bits, int(entries.max()).bit_length())
    return LookupTable(_signed_first(first, signed), entries, min(bits, 16))


def palette_tables(dataset: Mapping[str, Any], *, signed: bool) -> tuple[LookupTable, ...]:
    """Return the red, green and blue tables of a palette colour image, segments expanded.

    Raises Invalid when one is missing, malformed or kept as bulk data.
    """
    tables = []
    for number, colour in enumerate(("Red", "Green", "Blue"), 1):
        name = f"{colour} Palette Color Lookup Table"
        size, first, bits = _descriptor(dataset, f"0028110{number}", name)
        entries = _entries(dataset, f"0028120{number}", name)
        if entries is None:
            segments = _entries(dataset, f"0028122{number}", name)
            if segments is None:
                raise Invalid(f"The {name} has no data.")
            entries = _expanded(segments, size, 2 if bits > 8 else 1, name)
        wide = _widened(entries, size, name)
        # Entries of 8 bits are also sent in 16, unscaled.
        tables.append(
            LookupTable(_signed_first(first, signed), wide, 16 if wide.max() > 255 else 8)
        )
    return tuple(tables)


def _signed_first(first: int, signed: bool) -> int:
    """Return the first input mapped, which a US value holds as two's complement."""
    return first - 0x10000 if signed and first >= 0x8000 else first


def _descriptor(item: Mapping[str, Any], tag: str, name: str) -> tuple[int, int, int]:
    element = item.get(tag)
    values = element.get("Value") if isinstance(element, Mapping) else None
    if not isinstance(values, Sequence) or len(values) != 3:
        raise Invalid(f"The {name} has no descriptor of three numbers.")
    try:
        size, first, bits = (int(value) for value in values)
    except (TypeError, ValueError, OverflowError) as error:
        raise Invalid(f"The descriptor of the {name} is not of whole numbers.") from error
    size = size % 0x10000 or _ENTRIES_MAX
    if not 0 < bits <= 16:
        raise Invalid(f"The {name} has entries of {bits} bits.")
    return size, first, bits


def _entries(item: Mapping[str, Any], tag: str, name: str) -> bytes | npt.NDArray[np.uint16] | None:
    """Return the data of a table: the numbers of a US or SS value, else bytes; None if absent.

    Raises Invalid when they are not at hand or no 16-bit numbers.
    """
    element = item.get(tag)
    if not isinstance(element, Mapping):
        return None
    if "BulkDataURI" in element:
        raise Invalid(f"The data of the {name} are bulk data that were not read.")
    inline = element.get("InlineBinary")
    if isinstance(inline, str):
        try:
            return base64.b64decode(inline)
        except (binascii.Error, ValueError) as error:
            raise Invalid(f"The data of the {name} are not in base64.") from error
    values = element.get("Value")
    if not isinstance(values, Sequence) or not values or len(values) > 2 * _ENTRIES_MAX:
        return None
    try:
        return np.asarray([int(value) & 0xFFFF for value in values], np.uint16)
    except (TypeError, ValueError, OverflowError) as error:
        raise Invalid(f"The data of the {name} are not whole numbers.") from error


def _widened(
    entries: bytes | npt.NDArray[np.uint16], size: int, name: str
) -> npt.NDArray[np.uint16]:
    """Return just so many entries of 16 bits, whichever width they were sent in."""
    if isinstance(entries, bytes):
        wide = len(entries) >= 2 * size
        numbers = np.frombuffer(entries[: len(entries) // 2 * 2], "<u2") if wide else None
        entries = np.frombuffer(entries, np.uint8).astype(np.uint16) if numbers is None else numbers
    elif len(entries) < size <= 2 * len(entries):
        # Two entries of 8 bits in each number, the first in the low byte.
        entries = entries.astype("<u2").view(np.uint8).astype(np.uint16)
    if len(entries) < size:
        raise Invalid(f"The {name} has {len(entries)} entries, its descriptor says {size}.")
    return entries[:size].astype(np.uint16, copy=False)


def _expanded(
    segments: bytes | npt.NDArray[np.uint16], size: int, entry_bytes: int, name: str
) -> npt.NDArray[np.uint16]:
    """Return a segmented table whole (PS3.3 §C.7.9.2).

    Raises Invalid when a segment is malformed, or they make another number of entries.
    """
    if not isinstance(segments, bytes):
        segments = segments.astype("<u2").tobytes()
    count = len(segments) // entry_bytes
    numbers = struct.unpack_from(f"<{count}{'H' if entry_bytes == 2 else 'B'}", segments)
    entries: list[int] = []
    position = 0
    # A trailing byte of padding is no segment.
    while position + 1 < count and len(entries) < size:
        if numbers[position] == _INDIRECT:
            offset_numbers = 4 // entry_bytes
            if position + 2 + offset_numbers > count:
                raise Invalid(f"The segments of the {name} end too early.")
            start = (position + 2) * entry_bytes
            (offset_bytes,) = struct.unpack_from("<I", segments, start)
            source = offset_bytes // entry_bytes
            for _ in range(numbers[position + 1]):
                source = _add_segment(numbers, source, entries, size, name)
            position += 2 + offset_numbers
        else:
            position = _add_segment(numbers, position, entries, size, name)
    if len(entries) != size:
        raise Invalid(f"The {name} expands to {len(entries)} entries, its descriptor says {size}.")
    return np.asarray(entries, np.uint16)


def _add_segment(
    numbers: Sequence[int], position: int, entries: list[int], size: int, name: str
) -> int:
    """Add the entries of a discrete or linear segment and return where the next segment begins."""
    kind, length = numbers[position : position + 2] if position + 2 < len(numbers) else (-1, 0)
    if kind not in (_DISCRETE, _LINEAR) or not 0 < length <= size - len(entries):
        raise Invalid(f"The {name} has a malformed segment.")
    if kind == _DISCRETE:
        values = numbers[position + 2 : position + 2 + length]
        if len(values) < length:
            raise Invalid(f"The segments of the {name} end too early.")
        entries.extend(values)
        return position + 2 + length
    if not entries:
        raise Invalid(f"The {name} begins with a linear segment.")
    line = np.linspace(entries[-1], numbers[position + 2], length + 1)[1:]
    entries.extend(np.rint(line).astype(int).tolist())
    return position + 3
