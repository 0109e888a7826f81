"""A chest radiograph and a scout, projected from front to back through the generated trunk."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from bfr_command.demo.canvas import COLUMNS, PIXEL_SPACING_MM

Plane = npt.NDArray[np.floating[Any]]

ROWS_OF_RADIOGRAPH, COLUMNS_OF_RADIOGRAPH = 2048, 2500
RADIOGRAPH_SPACING_MM = 0.16
_WATER_PER_MM = 0.0195
_TABLE_BEGINS_AT_ROW = 405  # the table lies behind the patient and is no part of a radiograph


def absorbed_by(slice_hu: Plane) -> Plane:
    """Return the absorption of the rays that cross one slice, one for each column."""
    density = np.maximum(slice_hu[:_TABLE_BEGINS_AT_ROW] + 1000, 0) / 1000
    dense = density + np.maximum(density - 1.15, 0) * 2.4  # bone stops more than its density says
    return np.asarray(dense.sum(axis=0) * PIXEL_SPACING_MM * _WATER_PER_MM, np.float32)


def chest_radiograph(absorbed: Sequence[Plane], slice_spacing_mm: float) -> npt.NDArray[np.uint16]:
    """Return a PA chest, 2048 by 2500 at 0.16 mm, 12 bits, bone bright (MONOCHROME2)."""
    rows = np.stack(absorbed)
    image = _magnified(rows, slice_spacing_mm)
    random = np.random.default_rng(2048)
    grain = random.standard_normal(image.shape, dtype=np.float32)
    image += grain * np.float32(0.012) * np.exp(image * np.float32(0.28))
    image += np.float32(1.1) * (image - _box(_box(image, 121), 121)) + np.float32(0.5) * (
        image - _box(image, 15)
    )
    low, high = np.float32(0.2), np.float32(6.6)
    return np.asarray(np.clip((image - low) / (high - low), 0, 1) * 4095, np.uint16)


def scout_view(absorbed: Sequence[Plane], slice_spacing_mm: float) -> npt.NDArray[np.uint16]:
    """Return the scanner's scout of the trunk, 512 by 512 with square pixels, 12 bits."""
    down = _weights(COLUMNS, PIXEL_SPACING_MM, len(absorbed), slice_spacing_mm, 0.0)
    rows = down @ np.stack(absorbed)
    return np.asarray(np.clip(rows / 9.0, 0, 1) * 2600, np.uint16)


def _magnified(rows: Plane, slice_spacing_mm: float) -> Plane:
    down = _weights(ROWS_OF_RADIOGRAPH, RADIOGRAPH_SPACING_MM, len(rows), slice_spacing_mm, 0.0)
    half_mm = (COLUMNS - 1) / 2 * PIXEL_SPACING_MM
    begin_mm = half_mm - (COLUMNS_OF_RADIOGRAPH - 1) / 2 * RADIOGRAPH_SPACING_MM
    across = _weights(
        COLUMNS_OF_RADIOGRAPH, RADIOGRAPH_SPACING_MM, COLUMNS, PIXEL_SPACING_MM, begin_mm
    )
    return np.asarray(down @ rows @ across.T, np.float32)


def _weights(size: int, pixel_mm: float, samples: int, spacing_mm: float, begin_mm: float) -> Plane:
    """Return smooth interpolation as a matrix: cubic B-spline weights of each sample."""
    position = (begin_mm + np.arange(size) * pixel_mm) / spacing_mm
    distance = np.abs(position[:, None] - np.arange(samples)[None, :])
    near = 2 / 3 - distance**2 + distance**3 / 2
    far = np.maximum(2 - distance, 0) ** 3 / 6
    weights = np.where(distance < 1, near, far)
    return np.asarray(weights / np.maximum(weights.sum(axis=1, keepdims=True), 1e-6), np.float32)


def _box(image: Plane, size: int) -> Plane:
    """Return the image averaged over a square of `size` pixels."""
    for axis in (0, 1):
        half = size // 2
        padding = [(half + 1, half) if index == axis else (0, 0) for index in (0, 1)]
        running = np.cumsum(np.pad(image, padding, mode="edge"), axis=axis, dtype=np.float64)
        upper = running[size:] if axis == 0 else running[:, size:]
        lower = running[:-size] if axis == 0 else running[:, :-size]
        image = ((upper - lower) / size).astype(np.float32)
    return image
