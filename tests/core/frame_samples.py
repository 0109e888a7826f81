"""Images to decode and render: small ones made here, and those that come with pydicom."""

from functools import cache
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import numpy.typing as npt
from pydicom.data import get_testdata_file

from bfr_core.frames import frame_ranges
from bfr_core.header import HeaderLimits, inflate_dataset, read_header

EXPLICIT = "1.2.840.10008.1.2.1"
BIG_ENDIAN = "1.2.840.10008.1.2.2"
RLE = "1.2.840.10008.1.2.5"
JPEG = "1.2.840.10008.1.2.4."
PNG = "image/png"

Array = npt.NDArray[Any]
TAGS = {
    "rows": "00280010",
    "columns": "00280011",
    "samples": "00280002",
    "allocated": "00280100",
    "stored": "00280101",
    "high_bit": "00280102",
    "signed": "00280103",
    "planar": "00280006",
    "photometric": "00280004",
    "padding": "00280120",
    "padding_limit": "00280121",
    "centre": "00281050",
    "width": "00281051",
    "function": "00281056",
    "intercept": "00281052",
    "slope": "00281053",
    "shape": "20500020",
    "frames": "00280008",
}


def header(array: Array, **attributes: Any) -> dict[str, Any]:
    """The DICOM JSON object of an image that holds the array."""
    bits = array.dtype.itemsize * 8
    values = {
        "rows": array.shape[0],
        "columns": array.shape[1],
        "samples": 3 if array.ndim == 3 else 1,
        "allocated": bits,
        "stored": bits,
        "signed": int(array.dtype.kind == "i"),
        "photometric": "RGB" if array.ndim == 3 else "MONOCHROME2",
        **attributes,
    }
    return {TAGS[name]: {"vr": "US", "Value": [value]} for name, value in values.items()}


def sequence(item: dict[str, Any]) -> dict[str, Any]:
    return {"vr": "SQ", "Value": [item]}


def lookup_table(first: int, entries: list[int], bits: int) -> dict[str, Any]:
    return {
        "00283002": {"vr": "US", "Value": [len(entries), first, bits]},
        "00283006": {"vr": "US", "Value": entries},
    }


def little_endian(array: Array) -> bytes:
    return array.astype(array.dtype.newbyteorder("<")).tobytes()


@cache
def published(name: str) -> tuple[dict[str, Any], str, str, tuple[bytes, ...], Path]:
    """A sample that comes with pydicom: header, transfer syntax, VR, frames, file."""
    found = get_testdata_file(name, download=False)
    assert isinstance(found, str)
    data = Path(found).read_bytes()
    read = read_header(data, HeaderLimits())
    assert read.pixel_data is not None
    octets = inflate_dataset(data, HeaderLimits()) if read.inflated else data
    ranges = frame_ranges(read.pixel_data, read.dataset, read.transfer_syntax_uid)
    frames = tuple(b"".join(octets[o : o + n] for o, n in frame) for frame in ranges)
    return read.dataset, read.transfer_syntax_uid, read.pixel_data.vr, frames, Path(found)


GREY = (np.add.outer(np.arange(40) * 31, np.arange(24) * 57) % 4096).astype(np.uint16)
SIGNED = (GREY.astype(np.int32) - 2048).astype(np.int16)
COLOUR = np.random.default_rng(1).integers(0, 256, (40, 24, 3)).astype(np.uint8)


ENCODINGS: list[tuple[str, Array, dict[str, Any], Any]] = [
    ("70", GREY, {"stored": 12}, lambda a: imagecodecs.jpeg8_encode(
        a, lossless=True, predictor=1, bitspersample=16)),
    ("57", GREY, {}, lambda a: imagecodecs.jpeg8_encode(
        a, lossless=True, predictor=6, bitspersample=16)),
    ("70", SIGNED, {"stored": 12}, lambda a: imagecodecs.jpeg8_encode(
        a.view(np.uint16) & 0xFFF, lossless=True, predictor=1, bitspersample=16)),
    ("70", COLOUR, {"photometric": "YBR_FULL"}, lambda a: imagecodecs.jpeg8_encode(
        a, lossless=True, predictor=1, colorspace="RGB", outcolorspace="RGB")),
    ("80", GREY, {"stored": 12}, imagecodecs.jpegls_encode),
    ("80", SIGNED, {"stored": 12}, lambda a: imagecodecs.jpegls_encode(a.view(np.uint16) & 0xFFF)),
    ("80", COLOUR, {}, imagecodecs.jpegls_encode),
    ("90", GREY, {}, lambda a: imagecodecs.jpeg2k_encode(a, level=0)),
    ("90", SIGNED, {}, lambda a: imagecodecs.jpeg2k_encode(a, level=0)),
    ("90", COLOUR, {"photometric": "YBR_RCT"}, lambda a: imagecodecs.jpeg2k_encode(a, level=0)),
    ("201", GREY, {"stored": 12}, imagecodecs.htj2k_encode),
    ("201", SIGNED, {"stored": 12}, imagecodecs.htj2k_encode),
    ("202", COLOUR, {"photometric": "YBR_RCT"}, imagecodecs.htj2k_encode),
    ("110", GREY, {"stored": 12}, lambda a: imagecodecs.jpegxl_encode(a, lossless=True)),
    ("110", COLOUR, {}, lambda a: imagecodecs.jpegxl_encode(a, lossless=True)),
]  # fmt: skip
