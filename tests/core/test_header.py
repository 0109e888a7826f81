"""What read_header makes of encoded instances: PS3.5, PS3.10 §7 and PS3.18 §F."""

import mmap
import os
import struct
import tracemalloc
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.core.encoded_elements import (
    DEFLATED,
    EXPLICIT_BIG,
    EXPLICIT_LITTLE,
    GE_PRIVATE,
    IMPLICIT_LITTLE,
    ITEM_END,
    JPEG_BASELINE,
    LIMITS,
    SEQUENCE_END,
    UNDEFINED,
    explicit,
    implicit,
    item,
    part10,
    read,
    values,
)

from bfr_core.errors import Invalid, NotFound
from bfr_core.header import (
    HeaderLimits,
    find_bulk_data,
    inflate_dataset,
    read_header,
)

# Files


def test_what_is_no_part_10_file_is_invalid() -> None:
    for data in (b"", bytes(131), explicit(0x00080016, "UI", b"1.2") * 20):
        with pytest.raises(Invalid, match="no DICOM prefix at byte 128"):
            read_header(data, LIMITS)


def test_a_missing_transfer_syntax_is_invalid() -> None:
    meta = explicit(0x00020002, "UI", b"1.2.840.10008.5.1.4.1.1.2\0")
    with pytest.raises(Invalid, match=r"no Transfer Syntax UID \(0002,0010\)"):
        read_header(bytes(128) + b"DICM" + meta, LIMITS)


def test_the_file_meta_information_is_apart_from_the_data_set() -> None:
    data = part10(explicit(0x00100020, "LO", b"AB"))
    header = read_header(data, LIMITS)
    assert header.transfer_syntax_uid == EXPLICIT_LITTLE
    assert header.file_meta == {"00020010": {"vr": "UI", "Value": [EXPLICIT_LITTLE]}}
    assert header.dataset == {"00100020": {"vr": "LO", "Value": ["AB"]}}
    assert data[header.dataset_offset :] == explicit(0x00100020, "LO", b"AB")


def test_file_meta_information_is_read_without_its_group_length_and_in_implicit_vr() -> None:
    body = explicit(0x00100020, "LO", b"AB")
    for meta in (
        explicit(0x00020010, "UI", EXPLICIT_LITTLE.encode() + b"\0"),
        implicit(0x00020010, EXPLICIT_LITTLE.encode() + b"\0"),
    ):
        header = read_header(bytes(128) + b"DICM" + meta + body, LIMITS)
        assert header.transfer_syntax_uid == EXPLICIT_LITTLE
        assert "00100020" in header.dataset


def test_every_kind_of_buffer_reads_the_same(tmp_path: Path) -> None:
    data = part10(explicit(0x00100020, "LO", b"AB") + explicit(0x7FE00010, "OW", bytes(5000)))
    path = tmp_path / "instance.dcm"
    path.write_bytes(data)
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
        expected = read_header(data, LIMITS)
        for buffer in (bytearray(data), memoryview(data), memoryview(b"x" + data)[1:], mapped):
            assert read_header(buffer, LIMITS) == expected


def test_the_pixels_of_a_large_instance_are_not_copied(tmp_path: Path) -> None:
    size_bytes = 256 << 20
    path = tmp_path / "large.dcm"
    path.write_bytes(part10(explicit(0x7FE00010, "OW", b"", length=size_bytes)))
    os.truncate(path, path.stat().st_size + size_bytes)  # a hole: nothing is written
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
        tracemalloc.start()
        try:
            header = read_header(mapped, LIMITS)
            peak_bytes = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
    assert header.pixel_data is not None
    assert header.pixel_data.length == size_bytes
    assert peak_bytes < 1 << 20


def test_command_elements_before_the_data_set_are_left_out() -> None:
    body = explicit(0x00100020, "LO", b"AB")
    header = read(implicit(0x00000002, b"1.2\0") + body)
    assert list(header.dataset) == ["00100020"]


@pytest.mark.parametrize("syntax", [EXPLICIT_LITTLE, GE_PRIVATE, "1.2.3.4.5"])
def test_a_data_set_in_implicit_vr_is_read_whatever_the_transfer_syntax_says(syntax: str) -> None:
    assert values(implicit(0x00100020, b"AB"), "00100020", syntax) == ["AB"]


def test_a_data_set_in_explicit_vr_is_read_where_implicit_was_announced() -> None:
    assert values(explicit(0x00100020, "LO", b"AB"), "00100020", IMPLICIT_LITTLE) == ["AB"]


# Deflated


def deflated(dataset: bytes) -> bytes:
    deflater = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    return part10(deflater.compress(dataset) + deflater.flush(), DEFLATED)


def test_a_deflated_data_set_is_inflated_and_its_offsets_count_there() -> None:
    pixels = bytes(range(256)) * 8
    lut = bytes(2048)
    data = deflated(explicit(0x00281201, "OW", lut) + explicit(0x7FE00010, "OW", pixels))
    header = read_header(data, LIMITS)
    assert header.inflated
    assert header.pixel_data is not None
    inflated = inflate_dataset(data, LIMITS)
    start = header.pixel_data.offset
    assert inflated[start : start + len(pixels)] == pixels
    offset, length = find_bulk_data(data, "00281201", LIMITS)
    assert inflated[offset : offset + length] == lut


def test_a_deflate_bomb_is_invalid_and_takes_no_more_memory_than_allowed() -> None:
    data = deflated(explicit(0x7FE00010, "OB", bytes(64 << 20)))
    tracemalloc.start()
    try:
        with pytest.raises(Invalid, match="inflates to more than 1048576 bytes"):
            read_header(data, HeaderLimits(inflated_max_bytes=1 << 20))
        assert tracemalloc.get_traced_memory()[1] < 4 << 20
    finally:
        tracemalloc.stop()


def test_a_corrupt_and_a_truncated_deflated_data_set_are_invalid() -> None:
    data = deflated(explicit(0x00100020, "LO", b"AB" * 20))
    with pytest.raises(Invalid, match="the deflated data set is truncated"):
        read_header(data[:-4], LIMITS)
    with pytest.raises(Invalid, match="the deflated data set at byte 174 is corrupt"):
        read_header(part10(b"\xff" * 50, DEFLATED), LIMITS)
    with pytest.raises(Invalid, match="not deflated"):
        inflate_dataset(part10(b""), LIMITS)


# Sequences

SEQUENCES: list[Callable[[bytes], bytes]] = [
    lambda content: explicit(0x00081140, "SQ", item(content)),
    lambda content: explicit(0x00081140, "SQ", item(content + ITEM_END, UNDEFINED)),
    lambda content: explicit(0x00081140, "SQ", item(content) + SEQUENCE_END, UNDEFINED),
    lambda content: explicit(
        0x00081140, "SQ", item(content + ITEM_END, UNDEFINED) + SEQUENCE_END, UNDEFINED
    ),
]


@pytest.mark.parametrize("sequence", SEQUENCES)
def test_sequences_and_items_of_both_kinds_of_length(sequence: Callable[[bytes], bytes]) -> None:
    content = explicit(0x00081150, "UI", b"1.2\0")
    dataset = read(sequence(content) + explicit(0x00100020, "LO", b"AB")).dataset
    assert dataset["00081140"]["Value"] == [{"00081150": {"vr": "UI", "Value": ["1.2"]}}]
    assert dataset["00100020"]["Value"] == ["AB"]


@pytest.mark.conforms("PS3.18 §F.2.5", "an empty sequence has no Value, an empty item is {}")
def test_empty_sequences_and_items() -> None:
    header = read(
        explicit(0x00081110, "SQ", b"")
        + explicit(0x00081111, "SQ", SEQUENCE_END, UNDEFINED)
        + explicit(0x00081140, "SQ", item(b"") + item(ITEM_END, UNDEFINED))
    )
    assert header.dataset == {
        "00081110": {"vr": "SQ"},
        "00081111": {"vr": "SQ"},
        "00081140": {"vr": "SQ", "Value": [{}, {}]},
    }


def test_an_item_in_implicit_vr_is_read_in_an_explicit_data_set() -> None:
    sequence = explicit(0x00081140, "SQ", item(implicit(0x00081150, b"1.2\0")))
    assert values(sequence, "00081140") == [{"00081150": {"vr": "UI", "Value": ["1.2"]}}]


def test_an_element_that_passes_the_end_of_its_item_is_read_like_pydicom_does() -> None:
    content = explicit(0x00081150, "UI", b"1.2\0")
    sequence = explicit(0x00081140, "SQ", item(content, len(content) - 2))
    assert values(sequence, "00081140") == [{"00081150": {"vr": "UI", "Value": ["1.2"]}}]


def test_sequences_nest_as_deep_as_allowed_and_no_deeper() -> None:
    def nested(depth: int) -> bytes:
        content = b""
        for _ in range(depth):
            content = explicit(0x00081140, "SQ", item(content))
        return content

    value = read(nested(32)).dataset
    for _ in range(32):
        (value,) = value["00081140"]["Value"]
    assert value == {}
    with pytest.raises(Invalid, match=r"nest deeper than 32 at (00081140/1/){32}\(0008,1140\)"):
        read(nested(33))
    with pytest.raises(Invalid, match="nest deeper than 32"):
        read((explicit(0x00081140, "SQ", b"", UNDEFINED) + item(b"", UNDEFINED)) * 5000)


# What senders get wrong


def test_an_unknown_vr_is_read_by_the_length_that_fits() -> None:
    after = explicit(0x00100020, "LO", b"AB")
    short = b"\x09\x00\x10\x10ZZ\x04\x00abcd"
    long = b"\x09\x00\x10\x10ZZ\x00\x00\x04\x00\x00\x00abcd"
    without_vr = implicit(0x00091010, b"abcd")
    for element in (short, long, without_vr):
        dataset = read(explicit(0x00080060, "CS", b"CT") + element + after).dataset
        assert dataset["00091010"] == {"vr": "UN", "InlineBinary": "YWJjZA=="}
        assert dataset["00100020"]["Value"] == ["AB"]


def test_stray_delimiters_are_passed_over() -> None:
    dataset = read(
        explicit(0x00080060, "CS", b"CT")
        + SEQUENCE_END
        + explicit(0x00100020, "LO", b"AB")
        + ITEM_END
    ).dataset
    assert list(dataset) == ["00080060", "00100020"]


@pytest.mark.parametrize(
    ("dataset", "message"),
    [
        (
            explicit(0x00100020, "LO", b"AB", length=16),
            r"\(0010,0020\) is truncated: it promises 16 bytes at byte 180, 2 are there",
        ),
        (
            explicit(0x00081140, "SQ", item(explicit(0x00081150, "UI", b"1", length=9))),
            r"00081140/1/\(0008,1150\) is truncated: it promises 9 bytes at byte 200, 1 are there",
        ),
        (explicit(0x00420011, "OB", b"AB", length=0xFFFFFFFE), r"promises 4294967294 bytes"),
        (explicit(0x00420011, "OB", b"")[:10], r"\(0042,0011\) is truncated"),
        (
            explicit(0x00100020, "LO", b"AB") + b"\x10\x00\x30",
            "the 3 bytes at byte 182 are too few",
        ),
        (explicit(0x00081140, "SQ", item(b""), UNDEFINED), "its last item is not there"),
        (explicit(0x00081140, "SQ", implicit(0x00081150, b"")), "in place of an item"),
        (item(b""), "outside a sequence"),
        (explicit(0x7FE00010, "OW", bytes(10), length=20), r"\(7FE0,0010\) is truncated"),
        (implicit(0x00000002, b"1.2\0", length=400), "a command element at byte 172 is truncated"),
    ],
)
def test_what_is_not_there_is_named(dataset: bytes, message: str) -> None:
    with pytest.raises(Invalid, match=message):
        read(dataset)


def test_an_instance_cut_anywhere_is_invalid_or_ends_at_an_element() -> None:
    elements = [
        explicit(0x00080005, "CS", b"ISO_IR 100"),
        explicit(0x00081140, "SQ", item(explicit(0x00081150, "UI", b"1.2\0"))),
        explicit(0x00100020, "LO", b"AB"),
        explicit(0x7FE00010, "OW", b"\1" * 100),
    ]
    start = len(part10(b""))
    ends = {start + sum(map(len, elements[:n])) for n in range(len(elements) + 1)}
    data = part10(b"".join(elements))
    for length in range(start, len(data)):
        if length in ends:
            read_header(data[:length], LIMITS)
        else:
            with pytest.raises(Invalid):
                read_header(data[:length], LIMITS)


# Limits


def test_large_binary_values_do_not_count_as_header_but_texts_do() -> None:
    limits = HeaderLimits(header_max_bytes=4000)
    large = explicit(0x00420011, "OB", bytes(100_000)) + explicit(0x00420012, "LO", b"text/xml")
    assert read_header(part10(large), limits).dataset["00420012"]["Value"] == ["text/xml"]
    with pytest.raises(Invalid, match=r"the header is longer than 4000 bytes at \(0040,A160\)"):
        read_header(part10(explicit(0x0040A160, "UT", b"x" * 5000)), limits)


def test_too_many_elements_items_fragments_and_values_are_invalid() -> None:
    limits = HeaderLimits(max_elements=100, max_values=1000)
    many = [
        b"".join(explicit(0x00090000 + n, "LO", b"") for n in range(1, 102)),
        explicit(0x00081140, "SQ", item(b"") * 101),
        explicit(0x7FE00010, "OB", item(b"") * 101 + SEQUENCE_END, UNDEFINED),
    ]
    for dataset in many:
        with pytest.raises(Invalid, match="more than 100 elements"):
            read_header(part10(dataset), limits)
    with pytest.raises(Invalid, match="more than 1000 values"):
        read_header(part10(explicit(0x3006_0050, "DS", b"1\\" * 1001)), limits)


# Bulk data


@pytest.mark.conforms("PS3.18 §F.2.6", "a large value is a BulkDataURI")
def test_bulk_data_is_found_by_its_path() -> None:
    lut, curve, document = bytes(1026), b"\1" * 2000, b"\2" * 1025
    data = part10(
        explicit(0x00281201, "OW", lut)
        + explicit(0x00281202, "OW", bytes(1024))
        + explicit(
            0x00480200,
            "SQ",
            item(explicit(0x00091010, "UN", curve))
            + item(explicit(0x00081140, "SQ", item(explicit(0x00420011, "OB", document)))),
        )
    )
    dataset = read_header(data, LIMITS).dataset
    assert dataset["00281201"] == {"vr": "OW", "BulkDataURI": "bulkdata/00281201"}
    assert set(dataset["00281202"]) == {"vr", "InlineBinary"}
    deep = "00480200/2/00081140/1/00420011"
    nested = dataset["00480200"]["Value"][1]["00081140"]["Value"][0]["00420011"]
    assert nested == {"vr": "OB", "BulkDataURI": f"bulkdata/{deep}"}
    for path, expected in (("00281201", lut), ("00480200/1/00091010", curve), (deep, document)):
        offset, length = find_bulk_data(data, path, LIMITS)
        assert data[offset : offset + length] == expected
    for path in ("00281202", "00480200/3/00091010", "bulkdata/00281201", "", "../00281201"):
        with pytest.raises(NotFound):
            find_bulk_data(data, path, LIMITS)


# Pixel data


def test_native_pixel_data_is_located_and_what_follows_is_read() -> None:
    pixels = b"\1\2" * 700
    after = explicit(0xFFFAFFFA, "SQ", item(explicit(0x04000005, "US", b"\1\0")))
    data = part10(explicit(0x7FE00010, "OW", pixels) + after)
    header = read_header(data, LIMITS)
    found = header.pixel_data
    assert found is not None
    assert (found.tag, found.vr, found.length) == ("7FE00010", "OW", len(pixels))
    assert data[found.offset : found.offset + len(pixels)] == pixels
    assert not found.fragments
    assert not found.basic_offset_table
    assert list(header.dataset) == ["FFFAFFFA"]


@pytest.mark.parametrize(
    ("tag", "vr"), [(0x7FE00008, "OF"), (0x7FE00009, "OD"), (0x7FE00010, "OW")]
)
def test_pixel_data_in_implicit_vr_has_the_vr_of_its_tag(tag: int, vr: str) -> None:
    header = read(implicit(tag, bytes(16)), IMPLICIT_LITTLE)
    assert header.pixel_data is not None
    assert (header.pixel_data.tag, header.pixel_data.vr) == (f"{tag:08X}", vr)
    assert header.dataset == {}


@given(
    fragments=st.lists(st.binary(max_size=40), min_size=1, max_size=8),
    offset_table=st.lists(st.integers(0, 2**32 - 1), max_size=8),
    extended=st.lists(st.integers(0, 2**64 - 1), max_size=200),
)
def test_fragments_and_offset_tables_come_out_as_written(
    fragments: list[bytes], offset_table: list[int], extended: list[int]
) -> None:
    table = struct.pack(f"<{len(offset_table)}I", *offset_table)
    octets = struct.pack(f"<{len(extended)}Q", *extended)
    body = item(table) + b"".join(map(item, fragments)) + SEQUENCE_END
    data = part10(
        explicit(0x7FE00001, "OV", octets)
        + explicit(0x7FE00002, "OV", octets[::-1])
        + explicit(0x7FE00010, "OB", body, UNDEFINED)
        + explicit(0xFFFCFFFC, "OB", b"\0\0"),
        JPEG_BASELINE,
    )
    found = read_header(data, LIMITS).pixel_data
    assert found is not None
    assert found.length is None
    assert data[found.offset :].startswith(item(table))
    assert found.basic_offset_table == tuple(offset_table)
    assert [data[offset : offset + length] for offset, length in found.fragments] == fragments
    assert found.extended_offset_table == tuple(extended)
    assert struct.pack(f"<{len(extended)}Q", *found.extended_offset_table_lengths) == octets[::-1]


def test_broken_encapsulation_is_named() -> None:
    for body, message in (
        (item(b"") + item(b"abcd"), "2 fragments without a sequence delimitation item"),
        (item(b"") + item(b"abcd", length=99), "fragment 1 promises 99 bytes"),
        (item(b"") + implicit(0x00100020, b""), r"has \(0010,0020\) in place of a fragment"),
        (item(b"abc") + SEQUENCE_END, "the Basic Offset Table is no whole number of entries"),
    ):
        with pytest.raises(Invalid, match=message):
            read(explicit(0x7FE00010, "OB", body, UNDEFINED), JPEG_BASELINE)


def test_the_pixel_data_of_an_icon_is_an_ordinary_element() -> None:
    fragments = item(b"") + item(bytes(3000))
    icon = explicit(0x7FE00010, "OB", fragments + SEQUENCE_END, UNDEFINED)
    small = explicit(0x7FE00010, "OW", bytes(8))
    data = part10(explicit(0x00880200, "SQ", item(icon) + item(small)), JPEG_BASELINE)
    header = read_header(data, LIMITS)
    assert header.pixel_data is None
    first, second = header.dataset["00880200"]["Value"]
    assert first["7FE00010"]["BulkDataURI"] == "bulkdata/00880200/1/7FE00010"
    assert set(second["7FE00010"]) == {"vr", "InlineBinary"}
    offset, length = find_bulk_data(data, "00880200/1/7FE00010", LIMITS)
    assert data[offset : offset + length] == fragments


# Any bytes


def reads_or_is_invalid(data: bytes) -> None:
    limits = HeaderLimits(inflated_max_bytes=1 << 20)
    try:
        header = read_header(data, limits)
    except Invalid:
        return
    orjson.dumps(header.dataset)
    orjson.dumps(header.file_meta)
    assert list(header.dataset) == sorted(header.dataset)


SYNTAXES = st.sampled_from(
    [EXPLICIT_LITTLE, IMPLICIT_LITTLE, EXPLICIT_BIG, DEFLATED, JPEG_BASELINE, GE_PRIVATE]
)
SOME_ELEMENTS = st.sampled_from(
    [
        explicit(0x00080005, "CS", b"\\ISO 2022 IR 87"),
        explicit(0x00100010, "PN", b"Yamada=\x1b$B;3ED\x1b(B"),
        explicit(0x00200032, "DS", b"1\\2\\3.5"),
        explicit(0x00280103, "US", b"\1\0"),
        explicit(0x00281101, "SS", b"\1\0\2\0\3\0"),
        explicit(0x00091001, "UN", item(implicit(0x00080005, b"x")) + SEQUENCE_END, UNDEFINED),
        explicit(0x7FE00010, "OB", item(bytes(4)) + item(b"abcd") + SEQUENCE_END, UNDEFINED),
        implicit(0x00080060, b"CT"),
        implicit(0x00280106, b"\1\0"),
        item(b""),
        ITEM_END,
        SEQUENCE_END,
        explicit(0x00081140, "SQ", item(explicit(0x00081155, "UI", b"1.2\0"))),
        explicit(0x00081140, "SQ", b"", UNDEFINED) + item(b"", UNDEFINED),
    ]
)


@given(st.binary(max_size=300))
def test_arbitrary_bytes_are_read_or_invalid(data: bytes) -> None:
    reads_or_is_invalid(data)


@given(st.lists(SOME_ELEMENTS | st.binary(max_size=20), max_size=12), SYNTAXES)
def test_arbitrary_data_sets_are_read_or_invalid(parts: list[bytes], syntax: str) -> None:
    dataset = b"".join(parts)
    reads_or_is_invalid(deflated(dataset) if syntax == DEFLATED else part10(dataset, syntax))


class CountingBuffer(bytes):
    """Counts what is taken out of it: a measure of work without a clock."""

    sliced_bytes = 0

    def __getitem__(self, key: Any) -> Any:
        found = super().__getitem__(key)
        if isinstance(key, slice):
            self.sliced_bytes += len(found) + 1
        return found


@pytest.mark.parametrize(
    "repeated",
    [
        item(b""),
        explicit(0x00081140, "UN", item(b"")),
        explicit(0x00091001, "UN", b"\xfe\xff\x00\xe0\xff\xff\xff\xff"),
        b"\x09\x00\x10\x10ZZ\x04\x00abcd",
        explicit(0x00100010, "PN", b"=" * 64),
        explicit(0x00081030, "LO", b"\x1b$B" * 20),
        explicit(0x00080005, "CS", b"\\" * 64),
        bytes(64),
    ],
    ids=lambda octets: octets[:12].hex(),
)
def test_work_grows_no_faster_than_the_input(repeated: bytes) -> None:
    def sliced_bytes(count: int) -> int:
        data = CountingBuffer(
            part10(explicit(0x00081140, "SQ", b"", UNDEFINED) + item(repeated * count))
        )
        reads_or_is_invalid(data)
        return data.sliced_bytes

    small, large = sliced_bytes(100), sliced_bytes(400)
    assert large <= 4 * small + 2000
