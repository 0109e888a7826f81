"""Element headers: tag, VR and length of a data element, also where a sender got them wrong.

Sources: PS3.5 §7.1 (element structure), §6.2.2 (UN), PS3.7 §6.3 (command elements).
"""

import mmap
import struct
from typing import Final, NamedTuple

from bfr_core.errors import Invalid
from bfr_core.value_representations import Convert, key_of, look_up, tables

Octets = bytes | bytearray | memoryview | mmap.mmap

ITEM = "FFFEE000"
ITEM_END = "FFFEE00D"
SEQUENCE_END = "FFFEE0DD"
UNDEFINED_LENGTH = 0xFFFFFFFF


class ElementHeader(NamedTuple):
    """What precedes a value; `convert` is None where the value holds elements or octets."""

    key: str
    name: str  # VR, also "US or SS" and the like
    convert: Convert | None
    value: int  # offset
    length: int


def is_vr(octets: bytes) -> bool:
    """Return whether two bytes look like a VR, one of the standard or not."""
    return octets.isalpha() and octets.isupper()


class ElementHeaderReader:
    """Reads the headers of elements under one byte order."""

    def __init__(self, data: Octets, *, big_endian: bool) -> None:
        order = ">" if big_endian else "<"
        self.explicit: Final = struct.Struct(order + "4s2sH").unpack_from  # tag, VR, 16-bit length
        self.implicit: Final = struct.Struct(order + "4sI").unpack_from  # tag, 32-bit length
        self.length: Final = struct.Struct(order + "I").unpack_from
        self.tables: Final = tables(big_endian=big_endian)
        self._data: Final = data
        self._big_endian: Final = big_endian

    def is_explicit(self, start: int, end: int, *, expected: bool) -> bool:
        """Return whether the element at `start` shows its VR; `expected` if there is no element.

        Some writers do not encode as the transfer syntax says.
        """
        if start + 8 > end:
            return expected
        vr = bytes(self._data[start + 4 : start + 6])
        return is_vr(vr) if expected else vr in self.tables.by_vr

    def end_of_group(self, group: bytes, start: int, end: int) -> int:
        """Return where the Explicit VR elements from `start` on that are of `group` end."""
        at = start
        while at + 8 <= end and bytes(self._data[at : at + 2]) == group:
            _, vr, length = self.explicit(self._data, at)
            kind = self.tables.by_vr.get(vr)
            if kind is None:
                header = self.odd_header(at, end, end, explicit=True)
                at = header.value + header.length
            elif not kind.long:
                at += 8 + length
            elif at + 12 <= end:
                at += 12 + self.length(self._data, at + 8)[0]
            else:
                break
        return min(at, end)

    def odd_header(self, at: int, soft_end: int, end: int, *, explicit: bool) -> ElementHeader:
        """Return the header of an element whose tag or VR is in no table.

        Implicit VR: private elements, repeating groups, group lengths and delimiters. Explicit VR:
        a VR that PS3.5 does not know, or an element that is in Implicit VR after all. `soft_end` is
        where the item ends, `end` where the bytes do. Raises Invalid.
        """
        tag, length = self.implicit(self._data, at)
        key = self.key(tag)
        if key == ITEM:
            raise Invalid(f"an item (FFFE,E000) at byte {at} lies outside a sequence")
        if key in (ITEM_END, SEQUENCE_END):
            return ElementHeader(key, "UN", None, at + 8, 0)
        entry = self.tables.dictionary.get(tag) or look_up(key, self._big_endian)
        implicit = ElementHeader(*entry, at + 8, length)
        if not explicit:
            return implicit
        _, vr, short_length = self.explicit(self._data, at)
        readings = [ElementHeader(key, "UN", None, at + 8, short_length)]
        if bytes(self._data[at + 6 : at + 8]) == b"\0\0" and at + 12 <= end:
            # PS3.5 §6.2: the VRs to come have a 32-bit length.
            (long_length,) = self.length(self._data, at + 8)
            readings.insert(0, ElementHeader(key, "UN", None, at + 12, long_length))
        if not is_vr(vr):
            readings.insert(0, implicit)
        for reading in readings:
            if self._is_followed(reading, soft_end, end):
                return reading
        return readings[0]

    def _is_followed(self, header: ElementHeader, soft_end: int, end: int) -> bool:
        """Return whether a higher tag, an item's first tag or the end comes after the value."""
        stop = header.value
        if header.length != UNDEFINED_LENGTH:
            stop += header.length
        if stop in (soft_end, end):
            return True
        return stop + 8 <= end and self.key(bytes(self._data[stop : stop + 4])) > header.key

    def key(self, tag: bytes) -> str:
        """Return the JSON key of a tag as it stands in the file."""
        return key_of(tag, self._big_endian)
