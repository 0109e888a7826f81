"""Headers: from the bytes of an instance to its DICOM JSON model, in one pass.

Sources: PS3.10 §7 (file format), PS3.5 §6–§7 and §A (encoding), PS3.18 §F (JSON model).
"""

import struct
import zlib
from base64 import b64decode
from dataclasses import dataclass
from typing import Any

from bfr_core.data_elements import DataElementReader, HeaderLimits, NativeValue
from bfr_core.element_headers import Octets
from bfr_core.errors import Invalid, NotFound
from bfr_core.value_representations import SPECIFIC_CHARACTER_SET

__all__ = [
    "Header",
    "HeaderLimits",
    "PixelData",
    "find_bulk_data",
    "inflate_dataset",
    "read_dataset",
    "read_header",
]

IMPLICIT_VR_LITTLE_ENDIAN = "1.2.840.10008.1.2"
EXPLICIT_VR_BIG_ENDIAN = "1.2.840.10008.1.2.2"
DEFLATED = frozenset(
    {
        "1.2.840.10008.1.2.1.99",  # Deflated Explicit VR Little Endian
        "1.2.840.10008.1.2.4.95",  # JPIP Referenced Deflate
        "1.2.840.10008.1.2.4.205",  # JPIP HTJ2K Referenced Deflate
    }
)

_EXTENDED_OFFSET_TABLES = {
    "7FE00001": "the Extended Offset Table (7FE0,0001)",
    "7FE00002": "the Extended Offset Table Lengths (7FE0,0002)",
}
_PREAMBLE_BYTES = 128
_META_OFFSET = 132
_META_GROUP = b"\x02\x00"
_COMMAND_GROUP = b"\x00\x00"
_LITTLE_ENDIAN_LENGTH = struct.Struct("<I")
_INFLATE_CHUNK_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class PixelData:
    """Where the pixels lie.

    Offsets count from the first byte of the instance, or of the inflated data set where the
    header says `inflated`.
    """

    tag: str  # "7FE00010", "7FE00008" or "7FE00009"
    vr: str
    offset: int  # first byte of the value (native) or of the first item (encapsulated)
    length: int | None  # None: encapsulated
    basic_offset_table: tuple[int, ...] = ()  # as found; () when empty or native
    fragments: tuple[tuple[int, int], ...] = ()  # (offset, length) of each value; () when native
    extended_offset_table: tuple[int, ...] = ()  # (7FE0,0001), () when absent
    extended_offset_table_lengths: tuple[int, ...] = ()  # (7FE0,0002), () when absent


@dataclass(frozen=True, slots=True)
class Header:
    """All of an instance but its pixels, padding and large binary values."""

    transfer_syntax_uid: str
    file_meta: dict[str, Any]  # group 0002 as the DICOM JSON model
    dataset_offset: int  # first byte of the data set within the instance
    dataset: dict[str, Any]  # the DICOM JSON model (PS3.18 §F.2), in the order of tags
    pixel_data: PixelData | None
    inflated: bool  # the data set is deflated in the file: see `inflate_dataset`
    character_set: tuple[str, ...]  # (0008,0005) as sent; `dataset` says ISO_IR 192


def read_header(data: Octets, limits: HeaderLimits) -> Header:
    """Return the header of a whole Part 10 file.

    Strings are Unicode; binary values above `limits.inline_binary_max_bytes` are a BulkDataURI
    "bulkdata/<path>", to be resolved by `find_bulk_data`. Neither group lengths nor the pixel data
    of the instance itself are in the data set. Raises Invalid, which names the part at fault.
    """
    return _read(data, limits)[0]


def read_dataset(
    data: Octets, dataset_offset: int, transfer_syntax_uid: str, limits: HeaderLimits
) -> Header:
    """Return the header of a Part 10 file whose file meta information we wrote ourselves.

    As `read_header`, but `file_meta` is empty. Raises Invalid.
    """
    return _read_dataset(data, _FileMeta(transfer_syntax_uid, {}, dataset_offset), limits)[0]


def find_bulk_data(data: Octets, path: str, limits: HeaderLimits) -> tuple[int, int]:
    """Return (offset, length) of the value that the BulkDataURI "bulkdata/<path>" names.

    The offset counts as in PixelData: where the header says `inflated` it lies within
    `inflate_dataset(data, limits)`. The bytes are in the byte order of the transfer syntax.
    Raises NotFound when no BulkDataURI of this instance has that path; raises Invalid.
    """
    found = _read(data, limits)[1].bulk_data.get(path)
    if found is None:
        raise NotFound("the instance has no bulk data of that path")
    return found


def inflate_dataset(data: Octets, limits: HeaderLimits) -> bytes:
    """Return the inflated data set of an instance in a deflated transfer syntax (PS3.5 §A.5).

    Raises Invalid, also when the transfer syntax is another.
    """
    meta = _read_file_meta(data, limits)
    if meta.transfer_syntax_uid not in DEFLATED:
        raise Invalid("the data set is not deflated")
    return _inflate(data, meta.end, limits)


@dataclass(frozen=True, slots=True)
class _FileMeta:
    transfer_syntax_uid: str
    elements: dict[str, Any]
    end: int


def _read(data: Octets, limits: HeaderLimits) -> tuple[Header, DataElementReader]:
    return _read_dataset(data, _read_file_meta(data, limits), limits)


def _read_dataset(
    data: Octets, meta: _FileMeta, limits: HeaderLimits
) -> tuple[Header, DataElementReader]:
    inflated = meta.transfer_syntax_uid in DEFLATED
    octets: Octets = _inflate(data, meta.end, limits) if inflated else data
    start = _skip_command_set(octets, 0 if inflated else meta.end)
    reader = DataElementReader(
        octets, limits, big_endian=meta.transfer_syntax_uid == EXPLICIT_VR_BIG_ENDIAN
    )
    explicit = reader.headers.is_explicit(
        start, len(octets), expected=meta.transfer_syntax_uid != IMPLICIT_VR_LITTLE_ENDIAN
    )
    dataset = reader.read(start, len(octets), explicit=explicit)
    header = Header(
        transfer_syntax_uid=meta.transfer_syntax_uid,
        file_meta=meta.elements,
        dataset_offset=meta.end if inflated else start,
        dataset=_in_unicode(dataset, reader),
        pixel_data=_pixel_data(octets, dataset, reader, limits),
        inflated=inflated,
        character_set=reader.character_set,
    )
    return header, reader


def _read_file_meta(data: Octets, limits: HeaderLimits) -> _FileMeta:
    if len(data) < _META_OFFSET or bytes(data[_PREAMBLE_BYTES:_META_OFFSET]) != b"DICM":
        raise Invalid(f"no DICOM prefix at byte {_PREAMBLE_BYTES}")
    reader = DataElementReader(data, limits)
    end = reader.headers.end_of_group(_META_GROUP, _META_OFFSET, len(data))
    elements = reader.read(_META_OFFSET, end, explicit=True)
    values = elements.get("00020010", {}).get("Value")
    if not values or not isinstance(values[0], str):
        raise Invalid("the file meta information has no Transfer Syntax UID (0002,0010)")
    return _FileMeta(values[0], elements, end)


def _skip_command_set(data: Octets, at: int) -> int:
    """Return where the data set begins, past command elements (group 0000) that some writers leave.

    They are Implicit VR Little Endian in every transfer syntax (PS3.7 §6.3).
    """
    size = len(data)
    while at + 8 <= size and bytes(data[at : at + 2]) == _COMMAND_GROUP:
        (length,) = _LITTLE_ENDIAN_LENGTH.unpack_from(data, at + 4)
        at += 8 + length
        if at > size:
            raise Invalid(f"a command element at byte {at - 8 - length} is truncated")
    return at


def _inflate(data: Octets, offset: int, limits: HeaderLimits) -> bytes:
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    chunks = []
    inflated_bytes = 0
    with memoryview(data) as view:
        for start in range(offset, len(view), _INFLATE_CHUNK_BYTES):
            room = limits.inflated_max_bytes - inflated_bytes + 1
            try:
                chunk = inflater.decompress(view[start : start + _INFLATE_CHUNK_BYTES], room)
            except zlib.error:
                raise Invalid(f"the deflated data set at byte {offset} is corrupt") from None
            chunks.append(chunk)
            inflated_bytes += len(chunk)
            if inflated_bytes > limits.inflated_max_bytes:
                raise Invalid(
                    f"the deflated data set inflates to more than {limits.inflated_max_bytes} bytes"
                )
            if inflater.eof:
                return b"".join(chunks)
    raise Invalid("the deflated data set is truncated")


def _in_unicode(dataset: dict[str, Any], reader: DataElementReader) -> dict[str, Any]:
    """Return `dataset` saying that its strings are Unicode, where ASCII does not cover them."""
    if SPECIFIC_CHARACTER_SET in dataset or not reader.beyond_ascii:
        return dataset
    dataset[SPECIFIC_CHARACTER_SET] = {"vr": "CS", "Value": ["ISO_IR 192"]}
    return dict(sorted(dataset.items()))


def _pixel_data(
    data: Octets, dataset: dict[str, Any], reader: DataElementReader, limits: HeaderLimits
) -> PixelData | None:
    if reader.pixel_data is None:
        return None
    tag, vr, value = reader.pixel_data
    if isinstance(value, NativeValue):
        return PixelData(tag, vr, value.offset, value.length)
    basic: tuple[int, ...] = ()
    if value.fragments:
        offset, length = value.fragments[0]
        if length > limits.header_max_bytes:
            raise Invalid(f"the Basic Offset Table is longer than {limits.header_max_bytes} bytes")
        basic = _offsets(bytes(data[offset : offset + length]), "I", "the Basic Offset Table")
    extended = []
    for key, name in _EXTENDED_OFFSET_TABLES.items():
        element = dataset.get(key, {})
        octets = b64decode(element.get("InlineBinary", ""))
        if "BulkDataURI" in element:
            offset, length = reader.bulk_data[key]
            if length > limits.header_max_bytes:
                raise Invalid(f"{name} is longer than {limits.header_max_bytes} bytes")
            octets = bytes(data[offset : offset + length])
        extended.append(_offsets(octets, "Q", name))
    return PixelData(tag, vr, value.offset, None, basic, value.fragments[1:], *extended)


def _offsets(octets: bytes, code: str, name: str) -> tuple[int, ...]:
    count, rest = divmod(len(octets), struct.calcsize("<" + code))
    if rest:
        raise Invalid(f"{name} is no whole number of entries: it has {len(octets)} bytes")
    return struct.unpack(f"<{count}{code}", octets)
