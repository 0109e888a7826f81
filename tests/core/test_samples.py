"""Frames are decoded and made native as their encodings and peers say (PS3.5 §8)."""

import subprocess
import zlib
from functools import cache
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom import dcmread
from tests.conftest import need
from tests.core.frame_samples import (
    BIG_ENDIAN,
    COLOUR,
    ENCODINGS,
    EXPLICIT,
    GREY,
    JPEG,
    RLE,
    SIGNED,
    TAGS,
    Array,
    header,
    little_endian,
    published,
)

from bfr_core.errors import Invalid
from bfr_core.frames import image_pixel
from bfr_core.pixels import (
    decode_frame,
    decoded_photometric_interpretation,
    native_frame,
    render_frame,
)

NATIVE_SAMPLES = """
CT_small.dcm ExplVR_BigEnd.dcm MR_small.dcm MR_small_RLE.dcm MR_small_bigendian.dcm
MR_small_implicit.dcm SC_rgb_rle.dcm SC_rgb_rle_16bit_2frame.dcm
SC_rgb_rle_32bit.dcm SC_rgb_small_odd.dcm SC_rgb_small_odd_big_endian.dcm examples_overlay.dcm
examples_palette.dcm examples_rgb_color.dcm image_dfl.dcm liver_1frame.dcm liver_expb_1frame.dcm
rtdose.dcm rtdose_expb.dcm rtdose_rle.dcm
""".split()


@pytest.mark.parametrize("name", NATIVE_SAMPLES)
def test_samples_are_decoded_as_pydicom_decodes_them(name: str) -> None:
    dataset, transfer_syntax_uid, vr, frames, path = published(name)
    decoded = np.stack(
        [
            decode_frame(frame, dataset, transfer_syntax_uid, number, vr=vr)
            for number, frame in enumerate(frames, 1)
        ]
    )
    expected = dcmread(path).pixel_array
    assert np.array_equal(decoded.reshape(expected.shape), expected)


JPEG_SAMPLES = """
JPEG-lossy.dcm SC_jpeg_no_color_transform.dcm SC_jpeg_no_color_transform_2.dcm
SC_rgb_dcmtk_+eb+cr.dcm SC_rgb_dcmtk_+eb+cy+n1.dcm SC_rgb_dcmtk_+eb+cy+n2.dcm
SC_rgb_dcmtk_+eb+cy+np.dcm SC_rgb_dcmtk_+eb+cy+s2.dcm SC_rgb_dcmtk_+eb+cy+s4.dcm
SC_rgb_jpeg_dcmtk.dcm SC_rgb_jpeg_gdcm.dcm SC_rgb_jpeg_lossy_gdcm.dcm SC_rgb_small_odd_jpeg.dcm
examples_ybr_color.dcm
""".split()
JPEG_LS_SAMPLES = """
JPEGLSNearLossless_08.dcm JPEGLSNearLossless_16.dcm MR_small_jpeg_ls_lossless.dcm
SC_rgb_jls_lossy_line.dcm SC_rgb_jls_lossy_sample.dcm
""".split()


@pytest.mark.parametrize(
    ("name", "program"),
    [(name, "dcmdjpeg") for name in JPEG_SAMPLES]
    + [(name, "dcmdjpls") for name in JPEG_LS_SAMPLES],
)
def test_jpeg_samples_are_decoded_exactly_as_dcmtk_decodes_them(
    name: str, program: str, tmp_path: Path
) -> None:
    dataset, transfer_syntax_uid, _, frames, path = published(name)
    plain = tmp_path / "plain.dcm"
    subprocess.run([need(program), "-q", path, plain], check=True)
    expected = dcmread(plain).pixel_array
    decoded = np.stack([decode_frame(one, dataset, transfer_syntax_uid) for one in frames])
    assert np.array_equal(decoded.reshape(expected.shape), expected)


def test_jpeg_2000_samples_are_decoded_to_their_native_twins() -> None:
    dataset, transfer_syntax_uid, _, frames, _ = published("MR_small_jp2klossless.dcm")
    twin, twin_syntax, _, twin_frames, _ = published("MR_small.dcm")
    decoded = decode_frame(frames[0], dataset, transfer_syntax_uid)
    assert np.array_equal(decoded, decode_frame(twin_frames[0], twin, twin_syntax))


def test_an_unsigned_codestream_under_a_signed_header_is_signed() -> None:
    dataset, transfer_syntax_uid, _, frames, _ = published("J2K_pixelrep_mismatch.dcm")
    decoded = decode_frame(frames[0], dataset, transfer_syntax_uid)
    assert decoded.dtype == np.int16
    assert decoded[0, 0] == -2000


@pytest.mark.parametrize(("syntax", "array", "attributes", "encode"), ENCODINGS)
def test_lossless_frames_come_back_exactly(
    syntax: str, array: Array, attributes: dict[str, Any], encode: Any
) -> None:
    frame = bytes(encode(array))
    dataset = header(array, **attributes)
    decoded = decode_frame(frame, dataset, JPEG + syntax)
    assert decoded.dtype == array.dtype
    assert np.array_equal(decoded, array)
    assert native_frame(frame, dataset, JPEG + syntax) == little_endian(array)


def test_jpeg_recompressed_as_jpeg_xl_is_the_same_picture() -> None:
    baseline = bytes(imagecodecs.jpeg8_encode(COLOUR))
    dataset = header(COLOUR, photometric="YBR_FULL_422")
    recompressed = bytes(imagecodecs.jpegxl_encode_jpeg(baseline, usecontainer=True))
    expected = decode_frame(baseline, dataset, JPEG + "50").astype(int)
    found = decode_frame(recompressed, dataset, JPEG + "111")
    assert np.abs(found - expected).max() <= 8


def test_single_bit_frames_are_cut_out_of_shared_bytes() -> None:
    frames = np.random.default_rng(2).integers(0, 2, (3, 3, 5)).astype(np.uint8)
    packed = np.packbits(frames.ravel(), bitorder="little").tobytes()
    dataset = header(frames[0], allocated=1, stored=1)
    for number, (first, size) in enumerate([(0, 2), (1, 3), (3, 3)], 1):
        covering = packed[first : first + size]
        assert np.array_equal(decode_frame(covering, dataset, EXPLICIT, number), frames[number - 1])
        native = native_frame(covering, dataset, EXPLICIT, number)
        assert native == np.packbits(frames[number - 1].ravel(), bitorder="little").tobytes()


def test_bits_beside_the_stored_ones_do_not_count() -> None:
    allocated = (GREY << 4 | 0xF).astype(np.uint16)
    dataset = header(allocated, stored=12, high_bit=15)
    assert np.array_equal(decode_frame(little_endian(allocated), dataset, EXPLICIT), GREY)


@pytest.mark.parametrize("planar", [0, 1])
def test_planar_colour_is_put_together_and_stays_planar_when_native(planar: int) -> None:
    value = (COLOUR.transpose(2, 0, 1) if planar else COLOUR).tobytes()
    dataset = header(COLOUR, planar=planar)
    assert np.array_equal(decode_frame(value, dataset, EXPLICIT), COLOUR)
    lossless = bytes(imagecodecs.jpegls_encode(COLOUR))
    assert native_frame(lossless, dataset, JPEG + "80") == value


@pytest.mark.parametrize("array", [GREY, SIGNED, GREY.astype(np.uint32), GREY.astype(np.float32)])
def test_big_endian_frames_become_little_endian(array: Array) -> None:
    dataset = header(array)
    if array.dtype.kind == "f":
        dataset.pop(TAGS["stored"])
    swapped = array.astype(array.dtype.newbyteorder(">")).tobytes()
    assert native_frame(swapped, dataset, BIG_ENDIAN) == little_endian(array)
    assert np.array_equal(decode_frame(swapped, dataset, BIG_ENDIAN), array)


def test_deflated_frames_are_inflated() -> None:
    squeezed = zlib.compressobj(wbits=-15)
    frame = squeezed.compress(little_endian(GREY)) + squeezed.flush()
    syntax = "1.2.840.10008.1.2.8.1"
    assert np.array_equal(decode_frame(frame, header(GREY), syntax), GREY)
    with pytest.raises(Invalid, match="damaged"):
        decode_frame(frame[:20], header(GREY), syntax)
    with pytest.raises(Invalid, match="holds 1874 bytes"):
        decode_frame(frame, header(GREY[:39]), syntax)


@pytest.mark.parametrize(
    ("photometric", "syntax", "expected"),
    [
        ("YBR_FULL_422", JPEG + "50", "RGB"),
        ("YBR_FULL", JPEG + "70", "YBR_FULL"),
        ("YBR_RCT", JPEG + "90", "RGB"),
        ("YBR_ICT", JPEG + "203", "RGB"),
        ("YBR_FULL", RLE, "YBR_FULL"),
        ("YBR_FULL_422", EXPLICIT, "YBR_FULL"),
        ("RGB", JPEG + "80", "RGB"),
    ],
)
def test_the_colour_space_after_decoding_is_told(
    photometric: str, syntax: str, expected: str
) -> None:
    image = image_pixel(header(COLOUR, photometric=photometric))
    assert decoded_photometric_interpretation(image, syntax) == expected


@pytest.mark.parametrize("syntax", ["50", "70", "80", "90", "201", "110"])
def test_a_codestream_of_another_size_than_its_header_says_is_refused(syntax: str) -> None:
    encoders: dict[str, Any] = {
        "50": imagecodecs.jpeg8_encode,
        "70": lambda a: imagecodecs.jpeg8_encode(a, lossless=True, predictor=1),
        "80": imagecodecs.jpegls_encode,
        "90": lambda a: imagecodecs.jpeg2k_encode(a, level=0),
        "201": imagecodecs.htj2k_encode,
        "110": lambda a: imagecodecs.jpegxl_encode(a, lossless=True),
    }
    frame = bytes(encoders[syntax](COLOUR[:, :, 0].copy()))
    with pytest.raises(Invalid, match=r"its header says 40, 25|not as its header says"):
        decode_frame(frame, header(np.zeros((40, 25), np.uint8)), JPEG + syntax)


@pytest.mark.parametrize(
    ("frame", "dataset", "syntax", "reason"),
    [
        (b"\x00" * 10, header(GREY), EXPLICIT, "holds 10 bytes, its header calls for 1920"),
        (b"", header(GREY), JPEG + "50", "no frame header"),
        (b"", header(GREY), JPEG + "90", "no image size"),
        (b"", header(GREY), RLE, "segments"),
        (b"", header(GREY), JPEG + "102", "not decoded"),
        (b"", header(GREY, rows=65535, columns=65535), EXPLICIT, "more than the 100000000 pixels"),
        (
            bytes(imagecodecs.jpegls_encode(GREY)),
            header(GREY, allocated=8, stored=8),
            JPEG + "80",
            "has 16 bits a sample, its header has room for 8",
        ),
        (bytes(imagecodecs.jpeg8_encode(COLOUR))[:-2], header(COLOUR), JPEG + "50", "end marker"),
    ],
)
def test_a_frame_that_contradicts_its_header_is_refused(
    frame: bytes, dataset: dict[str, Any], syntax: str, reason: str
) -> None:
    with pytest.raises(Invalid, match=reason):
        decode_frame(frame, dataset, syntax)


DAMAGED = """
JPEG-lossy.dcm JPEGLSNearLossless_16.dcm MR_small_RLE.dcm MR_small_jp2klossless.dcm
MR_small_jpeg_ls_lossless.dcm SC_rgb_dcmtk_+eb+cy+np.dcm SC_rgb_gdcm_KY.dcm SC_rgb_jpeg_gdcm.dcm
""".split()


@cache
def intact(kind: str) -> tuple[dict[str, Any], str, bytes]:
    if kind.endswith(".dcm"):
        dataset, transfer_syntax_uid, _, frames, _ = published(kind)
        return dataset, transfer_syntax_uid, frames[0]
    syntax, array, attributes, encode = ENCODINGS[int(kind)]
    return header(array, **attributes), JPEG + syntax, bytes(encode(array))


@given(
    kind=st.sampled_from([*DAMAGED, *(str(number) for number in range(len(ENCODINGS)))]),
    changes=st.lists(st.tuples(st.integers(0, 5000), st.binary(max_size=6)), max_size=4),
    cut=st.integers(0, 5000) | st.none(),
)
@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_a_damaged_frame_is_refused_or_shown_but_breaks_nothing(
    kind: str, changes: list[tuple[int, bytes]], cut: int | None
) -> None:
    dataset, transfer_syntax_uid, frame = intact(kind)
    damaged = bytearray(frame)
    for position, data in changes:
        position %= len(damaged)
        damaged[position : position + len(data)] = data
    if cut is not None:
        del damaged[cut % len(damaged) :]
    image = image_pixel(dataset)
    try:
        decoded = decode_frame(bytes(damaged), dataset, transfer_syntax_uid)
        picture = render_frame(bytes(damaged), dataset, transfer_syntax_uid)
    except Invalid:
        return
    assert decoded.shape[:2] == (image.rows, image.columns)
    assert picture.startswith(b"\xff\xd8\xff")
