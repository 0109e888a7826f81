"""Transcoding: a stored object in a transfer syntax that its receiver can take (PS3.5 §10, §A).

To Explicit or Implicit VR Little Endian, or without loss to the syntaxes of `frame_encoding`, from
every syntax that the codecs read. Values are copied as they stand; only what the encoding demands
is changed.
"""

import struct
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from bfr_core.element_headers import (
    ITEM,
    ITEM_END,
    SEQUENCE_END,
    UNDEFINED_LENGTH,
    ElementHeader,
    ElementHeaderReader,
    Octets,
    is_vr,
)
from bfr_core.errors import Invalid
from bfr_core.frame_encoding import ENCODERS, encode_frame
from bfr_core.frames import (
    EXPLICIT_VR_BIG_ENDIAN,
    EXPLICIT_VR_LITTLE_ENDIAN,
    IMPLICIT_VR_LITTLE_ENDIAN,
    frame_ranges,
    image_pixel,
)
from bfr_core.header import Header, HeaderLimits, inflate_dataset, read_header
from bfr_core.pixels import decoded_photometric_interpretation, frame_attributes, native_frame

TARGETS = (EXPLICIT_VR_LITTLE_ENDIAN, IMPLICIT_VR_LITTLE_ENDIAN)  # in the order of preference
COMPRESSED_TARGETS = tuple(ENCODERS)

_PHOTOMETRIC_INTERPRETATION = "00280004"
_PLANAR_CONFIGURATION = "00280006"
_PIXEL_DATA = "7FE00010"
_OFFSET_TABLES = frozenset({"7FE00001", "7FE00002"})
_LONG = frozenset({"OB", "OD", "OF", "OL", "OV", "OW", "SQ", "SV", "UC", "UN", "UR", "UT", "UV"})
_WORD_BYTES = {
    **dict.fromkeys(("AT", "OW", "SS", "US"), 2),
    **dict.fromkeys(("FL", "OF", "OL", "SL", "UL"), 4),
    **dict.fromkeys(("FD", "OD", "OV", "SV", "UV"), 8),
}
_ENDS = frozenset({ITEM_END, SEQUENCE_END})
_ITEM_START = b"\xfe\xff\x00\xe0\xff\xff\xff\xff"
_ITEM_STOP = b"\xfe\xff\x0d\xe0\0\0\0\0"
_SEQUENCE_STOP = b"\xfe\xff\xdd\xe0\0\0\0\0"


def transcode(part10: Octets, transfer_syntax_uid: str, limits: HeaderLimits) -> bytes:
    """Return the data set of a Part 10 file in one of `TARGETS` or `COMPRESSED_TARGETS`.

    Group lengths and offset tables go; decoded colour is as its Photometric Interpretation then
    says. Raises Invalid when the pixels cannot be decoded, would be more bytes than
    `limits.inflated_max_bytes`, or the target cannot hold them without loss.
    """
    if transfer_syntax_uid not in TARGETS + COMPRESSED_TARGETS:
        raise Invalid(f"objects are not transcoded to {transfer_syntax_uid}")
    header = read_header(part10, limits)
    if header.inflated:
        data: Octets = inflate_dataset(part10, limits)
        start = 0
    else:
        data, start = part10, header.dataset_offset
    return _Rewriter(data, header, limits, transfer_syntax_uid).rewrite(start)


def transcode_frame(
    frame: bytes,
    attributes: Mapping[str, Any],
    transfer_syntax_uid: str,
    number: int,
    max_pixels: int,
    vr: str,
    target: str,
) -> bytes:
    """Return one stored frame as native little endian pixels, or in a compressed target.

    Raises Invalid as `transcode` does.
    """
    native = native_frame(frame, attributes, transfer_syntax_uid, number, max_pixels, vr)
    if target not in ENCODERS:
        return native
    return encode_frame(native, image_pixel(attributes), target)


class _Rewriter:
    """Writes the elements of one data set anew."""

    def __init__(self, data: Octets, header: Header, limits: HeaderLimits, target: str) -> None:
        self._data = data
        self._header = header
        self._limits = limits
        self._target = target
        self._explicit = target != IMPLICIT_VR_LITTLE_ENDIAN  # what is written
        self._big_endian = header.transfer_syntax_uid == EXPLICIT_VR_BIG_ENDIAN
        self._headers = ElementHeaderReader(data, big_endian=self._big_endian)
        self._signed = header.dataset.get("00280103", {}).get("Value") == [1]
        self._out: list[bytes] = []

    def rewrite(self, start: int) -> bytes:
        """Return the whole data set."""
        expected = self._header.transfer_syntax_uid != IMPLICIT_VR_LITTLE_ENDIAN
        end = len(self._data)
        explicit = self._headers.is_explicit(start, end, expected=expected)
        if self._target in ENCODERS and self._header.pixel_data is None:
            raise Invalid("an object without pixels is not compressed")
        self._elements(start, end, end, explicit, 0)
        return b"".join(self._out)

    def _elements(self, at: int, soft_end: int, end: int, explicit: bool, depth: int) -> int:
        """Write the elements that start before `soft_end`; return the offset after them."""
        while at < soft_end and at + 8 <= end:
            element = self._element_header(at, soft_end, end, explicit)
            if element.key in _ENDS:
                if depth and element.key == SEQUENCE_END and soft_end == end:
                    return at  # the sequence ends with it, not the item alone
                at = element.value
                if depth and element.key == ITEM_END:
                    return at
                continue
            at = self._element(element, end, explicit, depth)
        return max(at, min(soft_end, end)) if at + 8 > end else at

    def _element_header(self, at: int, soft_end: int, end: int, explicit: bool) -> ElementHeader:
        headers = self._headers
        if explicit:
            tag, vr, length = headers.explicit(self._data, at)
            kind = headers.tables.by_vr.get(vr)
            if kind is not None:
                value = at + 8
                if kind.long:
                    if at + 12 > end:
                        raise Invalid(f"the element at byte {at} is truncated")
                    value = at + 12
                    (length,) = headers.length(self._data, at + 8)
                return ElementHeader(headers.key(tag), kind.name, kind.convert, value, length)
        else:
            tag, length = headers.implicit(self._data, at)
            entry = headers.tables.dictionary.get(tag)
            if entry is not None:
                return ElementHeader(*entry, at + 8, length)
        return headers.odd_header(at, soft_end, end, explicit=explicit)

    def _element(self, element: ElementHeader, end: int, explicit: bool, depth: int) -> int:
        key, name, _, value, length = element
        if depth == 0 and key in _OFFSET_TABLES:
            return value + length
        if length == UNDEFINED_LENGTH:
            if depth == 0 and key == _PIXEL_DATA:
                self._write_pixels()
                return self._end_of_fragments(value, end)
            # UN of undefined length is a sequence in Implicit VR (PS3.5 §6.2.2).
            return self._sequence(key, value, end, end, explicit and name != "UN", depth)
        stop = value + length
        if stop > end:
            raise Invalid(f"({key[:4]},{key[4:]}) is truncated")
        if name == "SQ":
            self._sequence(key, value, stop, stop, explicit, depth)
            return stop
        if key.endswith("0000"):
            return stop
        if depth == 0 and key == _PIXEL_DATA and self._target in ENCODERS:
            self._write_pixels()
            return stop
        self._write(key, self._vr(key, name, length), self._value(key, name, value, stop, depth))
        return stop

    def _value(self, key: str, name: str, value: int, stop: int, depth: int) -> bytes:
        raw = bytes(self._data[value:stop])
        if depth == 0 and key == _PHOTOMETRIC_INTERPRETATION and self._is_encapsulated:
            image = image_pixel(self._header.dataset)
            decoded = decoded_photometric_interpretation(image, self._header.transfer_syntax_uid)
            return decoded.encode("ascii")
        if depth == 0 and key == _PLANAR_CONFIGURATION and self._target in ENCODERS:
            return b"\0\0"
        if not self._big_endian:
            return raw
        word_bytes = _WORD_BYTES.get(self._vr(key, name, len(raw)), 1)
        if depth == 0 and key == _PIXEL_DATA and name != "OB":
            word_bytes = max(image_pixel(self._header.dataset).bits_allocated // 8, 2)
        if word_bytes == 1 or len(raw) % word_bytes:
            return raw
        return np.frombuffer(raw, f">u{word_bytes}").byteswap().tobytes()

    def _vr(self, key: str, name: str, length: int) -> str:
        """Return one VR where the dictionary has several (PS3.5 §A.1, PS3.6)."""
        if " or " not in name:
            return name
        if name == "US or OW":
            return "US" if length <= 2 else "OW"
        if "OW" in name:
            return "OW"
        return "SS" if self._signed and key != "00281101" else "US"

    def _sequence(
        self, key: str, at: int, soft_end: int, end: int, explicit: bool, depth: int
    ) -> int:
        if depth >= self._limits.max_depth:
            raise Invalid(f"sequences nest deeper than {self._limits.max_depth}")
        delimited = soft_end == end
        self._write_header(key, "SQ", UNDEFINED_LENGTH)
        while at + 8 <= soft_end:
            tag, length = self._headers.implicit(self._data, at)
            item = self._headers.key(tag)
            content = at + 8
            if item == SEQUENCE_END:
                at = content
                break
            if item != ITEM:
                raise Invalid(f"({key[:4]},{key[4:]}) has something else in place of an item")
            item_end = end if length == UNDEFINED_LENGTH else content + length
            if item_end > end:
                raise Invalid(f"an item of ({key[:4]},{key[4:]}) is truncated")
            # An explicit data set may hold items in Implicit VR, never the reverse.
            item_explicit = explicit and is_vr(bytes(self._data[content + 4 : content + 6]))
            self._out.append(_ITEM_START)
            at = self._elements(content, item_end, end, item_explicit, depth + 1)
            self._out.append(_ITEM_STOP)
        self._out.append(_SEQUENCE_STOP)
        return at if delimited else soft_end

    @property
    def _is_encapsulated(self) -> bool:
        pixel_data = self._header.pixel_data
        return pixel_data is not None and pixel_data.length is None

    def _write_pixels(self) -> None:
        image = image_pixel(self._header.dataset)
        bits = image.full_frame_bits * image.number_of_frames
        if bits > self._limits.inflated_max_bytes * 8:
            raise Invalid(
                f"the decoded pixels are more than {self._limits.inflated_max_bytes} bytes"
            )
        if self._target in ENCODERS:
            self._write_fragments(
                [encode_frame(one, image, self._target) for one in self._frames()]
            )
            return
        pixels = b"".join(self._frames())
        if image.bits_allocated == 1 and image.full_frame_bits % 8:
            # Frames of single bits follow each other without padding (PS3.5 §8.1.1).
            frame_bytes = -(-image.full_frame_bits // 8)
            frames = np.frombuffer(pixels, np.uint8).reshape(-1, frame_bytes)
            rows = np.unpackbits(frames, axis=1, bitorder="little")[:, : image.full_frame_bits]
            pixels = np.packbits(rows.reshape(-1), bitorder="little").tobytes()
        self._write(_PIXEL_DATA, "OW" if image.bits_allocated > 8 else "OB", pixels)

    def _frames(self) -> Iterator[bytes]:
        header, pixel_data = self._header, self._header.pixel_data
        if pixel_data is None:
            return

        def read(offset: int, length: int) -> bytes:
            return bytes(self._data[offset : offset + length])

        ranges = frame_ranges(pixel_data, header.dataset, header.transfer_syntax_uid, read)
        for number, frame in enumerate(ranges, 1):
            yield native_frame(
                b"".join(read(*one) for one in frame),
                frame_attributes(header.dataset, number),
                header.transfer_syntax_uid,
                number,
                vr=pixel_data.vr,
            )

    def _write_fragments(self, frames: list[bytes]) -> None:
        """Write a fragment a frame, found by the Basic Offset Table (PS3.5 §A.4)."""
        self._write_header(_PIXEL_DATA, "OB", UNDEFINED_LENGTH)
        offsets, at = [], 0
        for frame in frames:
            offsets.append(at)
            at += 8 + len(frame)
        for item in (struct.pack(f"<{len(offsets)}I", *offsets), *frames):
            self._out += [struct.pack("<HHI", 0xFFFE, 0xE000, len(item)), item]
        self._out.append(_SEQUENCE_STOP)

    def _end_of_fragments(self, at: int, end: int) -> int:
        while at + 8 <= end:
            tag, length = self._headers.implicit(self._data, at)
            at += 8
            if self._headers.key(tag) == SEQUENCE_END:
                break
            at += length
        return min(at, end)

    def _write(self, key: str, vr: str, value: bytes) -> None:
        if len(value) % 2:
            value += b"\0" if vr in ("UI", "OB", "UN") else b" "
        self._write_header(key, vr, len(value))
        self._out.append(value)

    def _write_header(self, key: str, vr: str, length: int) -> None:
        tag = struct.pack("<HH", int(key[:4], 16), int(key[4:], 16))
        if not self._explicit:
            self._out.append(tag + struct.pack("<I", length))
        elif vr in _LONG or length > 0xFFFE:
            name = vr if vr in _LONG else "UN"
            self._out.append(tag + struct.pack("<2sHI", name.encode(), 0, length))
        else:
            self._out.append(tag + struct.pack("<2sH", vr.encode(), length))
