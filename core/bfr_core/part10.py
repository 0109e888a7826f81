"""Part 10: the file header that an object gets when it arrived without one (PS3.10 §7.1)."""

import struct

# Ours, below the root for UIDs derived from a UUID (PS3.5 §B.2).
IMPLEMENTATION_CLASS_UID = "2.25.208453961472117393618364710328419230551"
IMPLEMENTATION_VERSION_NAME = "BFR_0_1"


def part10_prefix(
    *, transfer_syntax_uid: str, sop_class_uid: str, sop_instance_uid: str, source_ae_title: str
) -> bytes:
    """Return preamble, "DICM" and file meta information for a data set that came over DIMSE.

    `source_ae_title` is left out when it is empty.
    """
    elements = [
        b"\x02\x00\x01\x00OB\x00\x00\x02\x00\x00\x00\x00\x01",
        _element(0x0002, "UI", sop_class_uid),
        _element(0x0003, "UI", sop_instance_uid),
        _element(0x0010, "UI", transfer_syntax_uid),
        _element(0x0012, "UI", IMPLEMENTATION_CLASS_UID),
        _element(0x0013, "SH", IMPLEMENTATION_VERSION_NAME),
    ]
    if source_ae_title:
        elements.append(_element(0x0016, "AE", source_ae_title))
    body = b"".join(elements)
    group_length = struct.pack("<HH2sHI", 0x0002, 0x0000, b"UL", 4, len(body))
    return bytes(128) + b"DICM" + group_length + body


def _element(element: int, vr: str, text: str) -> bytes:
    value = text.encode("ascii", "replace")
    if len(value) % 2:
        value += b"\x00" if vr == "UI" else b" "
    return struct.pack("<HH2sH", 0x0002, element, vr.encode(), len(value)) + value
