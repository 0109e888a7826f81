"""Samples look as dcmtk shows them.

dcmtk cuts fractions off where rendering here rounds: hence a tolerance of 1 of 255.
"""

import subprocess
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import pytest
from tests.conftest import need
from tests.core.frame_samples import (
    PNG,
    Array,
    published,
)

from bfr_core.pixels import (
    render_frame,
)

GREY_SAMPLES = """
CT_small.dcm JPEG-lossy.dcm MR_small.dcm MR_small_RLE.dcm MR_small_bigendian.dcm
examples_overlay.dcm image_dfl.dcm liver_1frame.dcm rtdose.dcm dicomdirtests/77654033/CR1/6154
dicomdirtests/77654033/CT2/17106
""".split()
COLOUR_SAMPLES = """
ExplVR_BigEnd.dcm SC_rgb_dcmtk_+eb+cr.dcm SC_rgb_dcmtk_+eb+cy+np.dcm SC_rgb_rle_16bit.dcm
SC_rgb_small_odd_big_endian.dcm SC_ybr_full_422_uncompressed.dcm examples_palette.dcm
examples_ybr_color.dcm
""".split()
WINDOWS = [
    (["+Ww", "40", "400"], (40.0, 400.0, "linear")),
    (["+Ww", "500", "900", "+Wfs"], (500.0, 900.0, "sigmoid")),
]


def peer_picture(path: Path, tmp_path: Path, options: list[str]) -> Array:
    picture = tmp_path / "peer.ppm"
    command = [need("dcmj2pnm"), "-q", "-O", "+op", *options, str(path), str(picture)]
    subprocess.run(command, check=True)
    return read_pnm(picture.read_bytes()).astype(int)


def read_pnm(data: bytes) -> Array:
    kind, width, height, _ = data.split(maxsplit=4)[:4]
    channels = 3 if kind == b"P6" else 1
    size = int(width) * int(height) * channels
    pixels = np.frombuffer(data[-size:], np.uint8).reshape(int(height), int(width), channels)
    return pixels if channels == 3 else pixels[:, :, 0]


def sample_picture(name: str, **options: Any) -> Array:
    dataset, transfer_syntax_uid, vr, frames, _ = published(name)
    png = render_frame(frames[0], dataset, transfer_syntax_uid, media_type=PNG, vr=vr, **options)
    return imagecodecs.png_decode(png)


@pytest.mark.parametrize("name", GREY_SAMPLES)
def test_grey_samples_look_as_dcmtk_shows_them(name: str, tmp_path: Path) -> None:
    dataset, _, _, _, path = published(name)
    windowed = "Value" in dataset.get("00281050", {})
    expected = peer_picture(path, tmp_path, ["+Wi", "1"] if windowed else ["+Wm"])
    assert np.abs(sample_picture(name) - expected).max() <= 1


@pytest.mark.parametrize(("peer_options", "window"), WINDOWS)
@pytest.mark.parametrize("name", ["CT_small.dcm", "MR_small.dcm", "JPEG-lossy.dcm"])
def test_asked_windows_look_as_dcmtk_shows_them(
    name: str, peer_options: list[str], window: tuple[float, float, str], tmp_path: Path
) -> None:
    expected = peer_picture(published(name)[4], tmp_path, peer_options)
    assert np.abs(sample_picture(name, window=window) - expected).max() <= 1


@pytest.mark.parametrize("name", COLOUR_SAMPLES)
def test_colour_samples_look_as_dcmtk_shows_them(name: str, tmp_path: Path) -> None:
    expected = peer_picture(published(name)[4], tmp_path, [])
    assert np.abs(sample_picture(name) - expected).max() <= 1
