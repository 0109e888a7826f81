"""Composing: a Part 10 file from a data set in the DICOM JSON model and its bulk data (PS3.18 §F).

Long values stay where they are until they are written: an object takes no more memory than its
other attributes do.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from bfr_core.dataset_encoding import Streamed, encode_pieces, item_header, streamed_header
from bfr_core.errors import Invalid
from bfr_core.frames import EXPLICIT_VR_LITTLE_ENDIAN, NATIVE_TRANSFER_SYNTAXES
from bfr_core.instances import SOP_CLASS_UID, SOP_INSTANCE_UID, Dataset
from bfr_core.json_model import checked_dataset
from bfr_core.part10 import part10_prefix

PIXEL_DATA = "7FE00010"
UNDEFINED_LENGTH = 0xFFFFFFFF
_SEQUENCE_STOP = b"\xfe\xff\xdd\xe0\0\0\0\0"


@dataclass(frozen=True, slots=True)
class BulkValue:
    """Where the bytes of one value lie: one range, or a range for each compressed frame."""

    ranges: Sequence[tuple[int, int]]  # offset, length
    transfer_syntax_uid: str

    @property
    def length_bytes(self) -> int:
        """How many bytes they are."""
        return sum(length for _, length in self.ranges)


Find = Callable[[str], BulkValue | None]
Read = Callable[[int, int], Iterator[bytes]]


def compose(
    sent: object, find: Find, read: Read, max_depth: int, inline_max: int
) -> Iterator[bytes]:
    """Yield the bytes of the Part 10 file that the data set describes.

    `find` returns the value of a BulkDataURI, `read` its bytes; within sequences a value may have
    `inline_max` bytes. Raises Invalid naming the attribute at fault, before the first byte.
    """
    # Group 0002 is ours to write: what the sender had of it told of another encoding.
    dataset = {
        tag: element
        for tag, element in checked_dataset(sent, max_depth, bulk_data=True).items()
        if tag[:4] > "0002"
    }
    values: dict[str, BulkValue] = {}
    for tag, element in dataset.items():
        if "BulkDataURI" in element:
            values[tag] = _found(find, element["BulkDataURI"], tag)
        else:
            dataset[tag] = _inlined(element, tag, find, read, inline_max)
    syntax = EXPLICIT_VR_LITTLE_ENDIAN
    if PIXEL_DATA in values and values[PIXEL_DATA].transfer_syntax_uid:
        syntax = values[PIXEL_DATA].transfer_syntax_uid
    if syntax in NATIVE_TRANSFER_SYNTAXES and syntax != EXPLICIT_VR_LITTLE_ENDIAN:
        raise Invalid(f"{PIXEL_DATA}: values are sent in Explicit VR Little Endian, not {syntax}")
    uids = [_uid(dataset, tag) for tag in (SOP_CLASS_UID, SOP_INSTANCE_UID)]
    try:
        pieces = encode_pieces(dataset)
    except ValueError as error:
        raise Invalid(f"the data set cannot be encoded: {error}") from None
    prefix = part10_prefix(
        transfer_syntax_uid=syntax,
        sop_class_uid=uids[0],
        sop_instance_uid=uids[1],
        source_ae_title="",
    )
    return _written(prefix, pieces, values, syntax, read)


def _written(
    prefix: bytes,
    pieces: Sequence[bytes | Streamed],
    values: dict[str, BulkValue],
    syntax: str,
    read: Read,
) -> Iterator[bytes]:
    yield prefix
    for piece in pieces:
        if isinstance(piece, bytes):
            yield piece
            continue
        value = values[piece.tag]
        if piece.tag == PIXEL_DATA and syntax not in NATIVE_TRANSFER_SYNTAXES:
            yield streamed_header(Streamed(piece.tag, "OB"), UNDEFINED_LENGTH) + item_header(0)
            for offset, length in value.ranges:
                yield item_header(length + length % 2)
                yield from read(offset, length)
                yield b"\0" * (length % 2)
            yield _SEQUENCE_STOP
            continue
        length = value.length_bytes
        yield streamed_header(piece, length + length % 2)
        for offset, size in value.ranges:
            yield from read(offset, size)
        yield b"\0" * (length % 2)


def _found(find: Find, uri: str, path: str) -> BulkValue:
    value = find(uri)
    if value is None:
        raise Invalid(f"{path} refers to bulk data that has not come: {uri[:200]!r}")
    return value


def _inlined(
    element: dict[str, Any], path: str, find: Find, read: Read, inline_max: int
) -> dict[str, Any]:
    """Return a sequence whose items hold the bulk data that they refer to."""
    if element["vr"] != "SQ":
        return element
    items = []
    for item in element.get("Value") or []:
        whole: Dataset = {}
        for tag, inner in item.items():
            if "BulkDataURI" not in inner:
                whole[tag] = _inlined(inner, f"{path}.{tag}", find, read, inline_max)
                continue
            value = _found(find, inner["BulkDataURI"], f"{path}.{tag}")
            if value.length_bytes > inline_max:
                raise Invalid(f"{path}.{tag} is longer than {inline_max} bytes")
            data = b"".join(chunk for each in value.ranges for chunk in read(*each))
            whole[tag] = {"vr": inner["vr"], "bytes": data}
        items.append(whole)
    return {"vr": "SQ", "Value": items} if items else {"vr": "SQ"}


def _uid(dataset: Dataset, tag: str) -> str:
    values = dataset.get(tag, {}).get("Value") or [""]
    if not isinstance(values[0], str) or not values[0]:
        raise Invalid(f"{tag} is missing")
    return values[0].strip(" \x00")
