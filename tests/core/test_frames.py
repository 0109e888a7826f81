"""Each frame's bytes are found in native and encapsulated pixel data (PS3.5 §8 and §A.4)."""

import struct
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom import dcmread
from pydicom.data import get_testdata_file
from pydicom.encaps import encapsulate, encapsulate_extended, generate_frames

from bfr_core.errors import Invalid
from bfr_core.frames import frame_ranges
from bfr_core.header import HeaderLimits, PixelData, inflate_dataset, read_header

EXPLICIT = "1.2.840.10008.1.2.1"
BIG_ENDIAN = "1.2.840.10008.1.2.2"
JPEG = "1.2.840.10008.1.2.4.50"
JPEG_2000 = "1.2.840.10008.1.2.4.90"
RLE = "1.2.840.10008.1.2.5"


def image(**changes: Any) -> dict[str, Any]:
    """A DICOM JSON object of an image of 4 x 6 pixels of 16 bits."""
    values = {
        "frames": ("00280008", 1),
        "rows": ("00280010", 4),
        "columns": ("00280011", 6),
        "samples": ("00280002", 1),
        "allocated": ("00280100", 16),
        "stored": ("00280101", None),
        "photometric": ("00280004", "MONOCHROME2"),
    }
    dataset: dict[str, Any] = {}
    for name, (tag, default) in values.items():
        value = changes.pop(name, default)
        if value is not None:
            dataset[tag] = {"vr": "US", "Value": [value]}
    assert not changes
    return dataset


def native(length: int, vr: str = "OW") -> PixelData:
    return PixelData("7FE00010", vr, offset=1000, length=length)


def encapsulated(
    value: bytes, extended_offset_table: tuple[int, ...] = ()
) -> tuple[PixelData, bytes]:
    """The Pixel Data of a value that pydicom has encapsulated, and bytes in which it lies."""
    fragments: list[tuple[int, int]] = []
    data = b"\x00" * 1000 + value
    position = 1000
    while position + 8 <= len(data):
        (length,) = struct.unpack_from("<I", data, position + 4)
        fragments.append((position + 8, length))
        position += 8 + length
    table, table_bytes = fragments[0]
    offsets = struct.unpack_from(f"<{table_bytes // 4}I", data, table)
    pixel_data = PixelData(
        "7FE00010",
        "OB",
        offset=1000,
        length=None,
        basic_offset_table=offsets,
        fragments=tuple(fragments[1:]),
        extended_offset_table=extended_offset_table,
    )
    return pixel_data, data


def frames_of(
    pixel_data: PixelData, data: bytes, dataset: dict[str, Any], transfer_syntax_uid: str
) -> list[bytes]:
    def read(offset: int, length: int) -> bytes:
        return data[offset : offset + length]

    ranges = frame_ranges(pixel_data, dataset, transfer_syntax_uid, read)
    return [b"".join(read(*one) for one in frame) for frame in ranges]


def jpeg(number: int, size: int = 30) -> bytes:
    body = b"\xff\xd8\xff\xe0" + bytes([number]) * size + b"\xff\xd8\xff" + b"\xff\xd9"
    return body + b"\x00" * (len(body) % 2)


def test_native_frames_follow_each_other() -> None:
    ranges = frame_ranges(native(3 * 48), image(frames=3), EXPLICIT)
    assert ranges == [[(1000, 48)], [(1048, 48)], [(1096, 48)]]


def test_an_object_without_number_of_frames_has_one() -> None:
    assert frame_ranges(native(48), image(frames=None), EXPLICIT) == [[(1000, 48)]]


def test_the_padding_after_the_last_frame_belongs_to_none() -> None:
    dataset = image(rows=3, columns=3, allocated=8, frames=3)
    assert frame_ranges(native(28), dataset, EXPLICIT)[-1] == [(1018, 9)]


@pytest.mark.parametrize(
    ("photometric", "length", "frame_bytes"),
    [("RGB", 144, 72), ("YBR_FULL_422", 96, 48), ("YBR_FULL_422", 144, 72)],
)
def test_colour_frames_have_the_size_of_their_sampling(
    photometric: str, length: int, frame_bytes: int
) -> None:
    dataset = image(samples=3, allocated=8, photometric=photometric, frames=2)
    ranges = frame_ranges(native(length), dataset, EXPLICIT)
    assert ranges == [[(1000, frame_bytes)], [(1000 + frame_bytes, frame_bytes)]]


def test_single_bit_frames_of_whole_bytes_are_apart() -> None:
    dataset = image(allocated=1, frames=2)
    assert frame_ranges(native(6), dataset, EXPLICIT) == [[(1000, 3)], [(1003, 3)]]


def test_single_bit_frames_share_the_byte_where_they_meet() -> None:
    dataset = image(rows=3, columns=3, allocated=1, frames=3)
    ranges = frame_ranges(native(4), dataset, EXPLICIT)
    assert ranges == [[(1000, 2)], [(1001, 2)], [(1002, 2)]]


def test_odd_frames_in_big_endian_words_share_the_word_where_they_meet() -> None:
    dataset = image(rows=3, columns=3, allocated=8, frames=2)
    assert frame_ranges(native(18), dataset, BIG_ENDIAN) == [[(1000, 10)], [(1008, 10)]]
    assert frame_ranges(native(18, "OB"), dataset, BIG_ENDIAN) == [[(1000, 9)], [(1009, 9)]]


def test_native_pixel_data_that_are_too_short_are_refused_with_both_sizes() -> None:
    with pytest.raises(Invalid, match="holds 95 bytes, its 2 frames need 96"):
        frame_ranges(native(95), image(frames=2), EXPLICIT)


@pytest.mark.parametrize(
    ("dataset", "reason"),
    [
        (image(rows=None), r"Rows \(0028,0010\) is missing"),
        (image(rows=0), "Rows"),
        (image(columns=70000), "Columns"),
        (image(samples=2), "Samples per Pixel"),
        (image(allocated=12), "Bits Allocated"),
        (image(stored=17), "Bits Stored"),
        (image(frames=0), "Number of Frames"),
        (image(frames="1A"), r"Number of Frames \(0028,0008\) is not a whole number"),
        (image(frames=1.5), "Number of Frames"),
        (image(frames=float("inf")), "Number of Frames"),
    ],
)
def test_a_header_that_does_not_tell_the_size_is_refused(
    dataset: dict[str, Any], reason: str
) -> None:
    with pytest.raises(Invalid, match=reason):
        frame_ranges(native(48), dataset, EXPLICIT)


def test_pixel_data_must_be_encoded_as_the_transfer_syntax_demands() -> None:
    with pytest.raises(Invalid, match="is not encoded as transfer syntax"):
        frame_ranges(native(48), image(), JPEG)
    with pytest.raises(Invalid, match="is not encoded as transfer syntax"):
        frame_ranges(encapsulated(encapsulate([jpeg(1)]))[0], image(), EXPLICIT)


@pytest.mark.parametrize("has_bot", [True, False])
@pytest.mark.parametrize("fragments_per_frame", [1, 3])
def test_encapsulated_frames_are_found_by_table_or_by_markers(
    has_bot: bool, fragments_per_frame: int
) -> None:
    frames = [jpeg(number) for number in range(1, 5)]
    value = encapsulate(frames, fragments_per_frame=fragments_per_frame, has_bot=has_bot)
    pixel_data, data = encapsulated(value)
    assert frames_of(pixel_data, data, image(frames=4), JPEG) == frames


def test_frames_are_found_by_the_extended_offset_table() -> None:
    frames = [bytes([number]) * 20 for number in range(3)]
    value, offsets, _ = encapsulate_extended(frames)
    pixel_data, data = encapsulated(value, struct.unpack("<3Q", offsets))
    assert frames_of(pixel_data, data, image(frames=3), RLE) == frames


def test_one_frame_is_all_fragments_whatever_the_table_says() -> None:
    frame = bytes(range(200))
    pixel_data, data = encapsulated(encapsulate([frame], fragments_per_frame=4, has_bot=False))
    assert frames_of(pixel_data, data, image(), RLE) == [frame]


def test_a_table_that_does_not_fit_the_fragments_is_not_believed() -> None:
    frames = [jpeg(number) for number in range(1, 4)]
    pixel_data, data = encapsulated(encapsulate(frames))
    for table in [(0, 1, 2), (0, 48, 48), (48, 0, 96), (0, 48)]:
        wrong = PixelData(
            "7FE00010", "OB", 1000, None, basic_offset_table=table, fragments=pixel_data.fragments
        )
        assert frames_of(wrong, data, image(frames=3), JPEG) == frames


def test_jpeg_2000_frames_are_found_by_their_markers() -> None:
    frames = [
        b"\xff\x4f\xff\x51" + bytes([number]) * 31 + b"\xff\xd9" + b"\x00" for number in range(3)
    ]
    pixel_data, data = encapsulated(encapsulate(frames, fragments_per_frame=2, has_bot=False))
    assert frames_of(pixel_data, data, image(frames=3), JPEG_2000) == frames


@pytest.mark.parametrize("transfer_syntax_uid", [RLE, JPEG])
def test_frames_that_nothing_tells_apart_are_refused(transfer_syntax_uid: str) -> None:
    value = encapsulate([bytes(40)] * 3, fragments_per_frame=2, has_bot=False)
    pixel_data, data = encapsulated(value)
    with pytest.raises(Invalid, match="6 fragments for 3 frames"):
        frames_of(pixel_data, data, image(frames=3), transfer_syntax_uid)


def test_fewer_fragments_than_frames_are_refused() -> None:
    pixel_data, data = encapsulated(encapsulate([jpeg(1)]))
    with pytest.raises(Invalid, match="1 fragments for 2 frames"):
        frames_of(pixel_data, data, image(frames=2), JPEG)


def test_the_frames_of_a_video_are_not_told_apart() -> None:
    pixel_data, _ = encapsulated(encapsulate([bytes(40)]))
    with pytest.raises(Invalid, match="video"):
        frame_ranges(pixel_data, image(frames=2), "1.2.840.10008.1.2.4.102")


SAMPLES = """
CT_small.dcm MR_small_RLE.dcm MR_small_bigendian.dcm MR_small_implicit.dcm MR_small_padded.dcm
SC_rgb_rle_16bit_2frame.dcm SC_rgb_small_odd.dcm SC_ybr_full_422_uncompressed.dcm image_dfl.dcm
liver_1frame.dcm rtdose.dcm rtdose_expb.dcm rtdose_rle.dcm examples_ybr_color.dcm JPEG2000.dcm
""".split()


@pytest.mark.parametrize("name", SAMPLES)
def test_published_samples_give_the_frames_that_pydicom_gives(name: str) -> None:
    path = get_testdata_file(name, download=False)
    assert isinstance(path, str)
    with open(path, "rb") as file:
        data = file.read()
    header = read_header(data, HeaderLimits())
    assert header.pixel_data is not None
    octets = inflate_dataset(data, HeaderLimits()) if header.inflated else data
    frames = frames_of(header.pixel_data, octets, header.dataset, header.transfer_syntax_uid)
    expected = dcmread(path)
    if header.pixel_data.length is not None:
        value = expected.PixelData[: sum(map(len, frames))]
        assert b"".join(frames) == value
    else:
        number_of_frames = int(expected.get("NumberOfFrames", 1))
        assert frames == list(
            generate_frames(expected.PixelData, number_of_frames=number_of_frames)
        )


@given(
    frames=st.lists(st.binary(min_size=1, max_size=60), min_size=1, max_size=6),
    fragments_per_frame=st.integers(1, 3),
)
def test_any_frames_come_back_when_there_is_a_table(
    frames: list[bytes], fragments_per_frame: int
) -> None:
    padded = [frame * 6 for frame in frames]
    pixel_data, data = encapsulated(encapsulate(padded, fragments_per_frame=fragments_per_frame))
    assert frames_of(pixel_data, data, image(frames=len(frames)), RLE) == padded


@given(
    table=st.lists(st.integers(-10, 300), max_size=5).map(tuple),
    lengths=st.lists(st.integers(0, 60), max_size=6),
    number_of_frames=st.integers(1, 6),
    data=st.binary(max_size=400),
    transfer_syntax_uid=st.sampled_from([JPEG, JPEG_2000, RLE, "1.2.840.10008.1.2.4.110"]),
)
def test_encapsulated_frames_hold_each_fragment_once_or_are_refused(
    table: tuple[int, ...],
    lengths: list[int],
    number_of_frames: int,
    data: bytes,
    transfer_syntax_uid: str,
) -> None:
    fragments = []
    position = 16
    for length in lengths:
        fragments.append((position, length))
        position += length + 8
    pixel_data = PixelData(
        "7FE00010", "OB", 0, None, basic_offset_table=table, fragments=tuple(fragments)
    )
    try:
        ranges = frame_ranges(
            pixel_data,
            image(frames=number_of_frames),
            transfer_syntax_uid,
            lambda offset, length: data[offset : offset + length],
        )
    except Invalid:
        return
    assert len(ranges) == number_of_frames
    assert [fragment for frame in ranges for fragment in frame] == fragments
