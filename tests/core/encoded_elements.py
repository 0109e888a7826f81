"""Encoded elements and files for tests, written byte by byte so that they can also be wrong."""

import struct
from typing import Any

from bfr_core.header import Header, HeaderLimits, read_header

IMPLICIT_LITTLE = "1.2.840.10008.1.2"
EXPLICIT_LITTLE = "1.2.840.10008.1.2.1"
DEFLATED = "1.2.840.10008.1.2.1.99"
EXPLICIT_BIG = "1.2.840.10008.1.2.2"
JPEG_BASELINE = "1.2.840.10008.1.2.4.50"
GE_PRIVATE = "1.2.840.113619.5.2"

LIMITS = HeaderLimits()
UNDEFINED = 0xFFFFFFFF
LONG_VRS = ("OB", "OD", "OF", "OL", "OV", "OW", "SQ", "SV", "UC", "UN", "UR", "UT", "UV")


def explicit(tag: int, vr: str, value: bytes, length: int | None = None, order: str = "<") -> bytes:
    """One element; `length` is what it claims, if that is not the truth."""
    length = len(value) if length is None else length
    head = struct.pack(order + "HH", tag >> 16, tag & 0xFFFF) + vr.encode()
    if vr in LONG_VRS:
        return head + struct.pack(order + "HI", 0, length) + value
    return head + struct.pack(order + "H", length) + value


def implicit(tag: int, value: bytes, length: int | None = None) -> bytes:
    length = len(value) if length is None else length
    return struct.pack("<HHI", tag >> 16, tag & 0xFFFF, length) + value


def item(value: bytes, length: int | None = None) -> bytes:
    return implicit(0xFFFEE000, value, length)


ITEM_END = implicit(0xFFFEE00D, b"")
SEQUENCE_END = implicit(0xFFFEE0DD, b"")


def part10(dataset: bytes, transfer_syntax_uid: str = EXPLICIT_LITTLE) -> bytes:
    uid = transfer_syntax_uid.encode()
    meta = explicit(0x00020010, "UI", uid + b"\0" * (len(uid) % 2))
    return (
        bytes(128)
        + b"DICM"
        + explicit(0x00020000, "UL", struct.pack("<I", len(meta)))
        + meta
        + dataset
    )


def read(dataset: bytes, transfer_syntax_uid: str = EXPLICIT_LITTLE) -> Header:
    return read_header(part10(dataset, transfer_syntax_uid), LIMITS)


def values(dataset: bytes, tag: str, transfer_syntax_uid: str = EXPLICIT_LITTLE) -> Any:
    return read(dataset, transfer_syntax_uid).dataset[tag].get("Value")
