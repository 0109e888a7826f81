"""A generated head for MR: tissues in a volume, and what each sequence makes of them.

Axes are those of the patient (PS3.3 §C.7.6.2.1.1): x to the left, y to the back, z to the head.
"""

from typing import Any

import numpy as np
import numpy.typing as npt

Volume = npt.NDArray[np.floating[Any]]

SLICES, ROWS = 40, 256
PIXEL_SPACING_MM = 0.9375
SLICE_SPACING_MM = 4.0
LOWEST_MM = -74.0

_AIR, _BONE, _MARROW, _FAT, _MUSCLE, _CSF, _GREY, _WHITE, _DEEP_GREY = range(9)
_BRIGHTNESS = {
    "T1": (12.0, 60.0, 560.0, 980.0, 400.0, 170.0, 520.0, 760.0, 600.0),
    "T2": (12.0, 50.0, 330.0, 560.0, 180.0, 1000.0, 470.0, 330.0, 400.0),
}

# Where a reader of the T1 images finds pure tissue, (x, y, z) in millimetres.
VENTRICLE_MM = (-9.0, -8.0, 18.0)
ORBIT_MM = (-32.0, -74.0, -34.0)


def head(seed: int) -> npt.NDArray[np.uint8]:
    """Return the tissue of each voxel, 40 slices from the skull base up, 256 rows and columns."""
    random = np.random.default_rng(seed)
    axis = ((np.arange(ROWS) - (ROWS - 1) / 2) * PIXEL_SPACING_MM).astype(np.float32)
    x, y = axis[None, None, :], axis[None, :, None]
    z = (LOWEST_MM + np.arange(SLICES) * SLICE_SPACING_MM).astype(np.float32)[:, None, None]
    folds = _folds(random)
    depth = _brain_depth(x, y, z) + _waves(random, 26.0) * 0.8
    tissue = np.full((SLICES, ROWS, ROWS), _AIR, np.uint8)
    _shell(tissue, x, y, z, depth)
    _face(tissue, x, y, z)
    fold_depth = 21 + _waves(random, 18.0) * 5
    outer = np.sqrt((x / 36) ** 2 + ((y - 2) / 48) ** 2 + ((z - 10) / 34) ** 2) > 1
    sulcus = (folds < 0.75) & (depth < fold_depth) & outer
    grey = (folds < 4.2) & (depth < fold_depth + 3) & outer
    brain = depth > 0
    tissue[brain] = _WHITE
    tissue[brain & ((depth < 4.8) | grey)] = _GREY
    cerebellum = 1 - np.sqrt((x / 52) ** 2 + ((y - 46) / 34) ** 2 + ((z + 44) / 27) ** 2)
    leaves = np.abs(np.sin(z / 1.9 + np.hypot(x * 0.8, y - 14) / 2.6 + _waves(random, 14.0))) * 6
    inside = cerebellum > 0
    tissue[inside] = np.where(leaves < 2.6, _GREY, _WHITE)[inside]
    tissue[inside & (cerebellum < 0.13)] = _GREY
    cleft = (np.abs(x) < 1.3 + 0.6 * folds.clip(0, 1)) & (np.hypot(y / 50, (z - 12) / 26) > 1)
    tissue[brain & (z > -22) & (sulcus | (depth < 1.6) | cleft)] = _CSF
    tissue[brain & (z <= -22) & ~inside & (sulcus | (depth < 1.6))] = _CSF
    _inner(tissue, x, y, z)
    return tissue


def weighted(tissue: npt.NDArray[np.uint8], sequence: str, seed: int) -> npt.NDArray[np.uint16]:
    """Return the head as the sequence `T1` or `T2` shows it, 12 bits."""
    random = np.random.default_rng((seed, len(sequence), ord(sequence[1])))
    image = np.asarray(_BRIGHTNESS[sequence], np.float32)[tissue]
    for axis in (1, 2, 1, 2):
        lower, upper = np.roll(image, 1, axis), np.roll(image, -1, axis)
        image = image * np.float32(0.5) + (lower + upper) * np.float32(0.25)
    image *= 1 + _waves(random, 70.0) * np.float32(0.07)
    noise = random.standard_normal((2, *image.shape), dtype=np.float32) * np.float32(15)
    received = np.hypot(image + noise[0], noise[1]) * np.float32(2.1)
    return np.asarray(np.clip(received, 0, 4095), np.uint16)


def _brain_depth(x: Volume, y: Volume, z: Volume) -> Volume:
    """Return how deep under the surface of the brain each voxel lies; negative outside."""
    upper = (1 - np.sqrt((x / 69) ** 2 + ((y - 2) / 85) ** 2 + ((z + 2) / 74) ** 2)) * 72
    upper = np.minimum(upper, z + 26 + np.maximum(-y - 30, 0) * -0.1)
    side = np.abs(x) - 38
    lobes = (1 - np.sqrt((side / 25) ** 2 + ((y + 4) / 42) ** 2 + ((z + 26) / 24) ** 2)) * 24
    wide = np.interp(z, [-80, -52, -38, -20], [9, 13, 17, 18]).astype(np.float32)
    stem = (1 - np.sqrt((x / wide) ** 2 + ((y - 12) / (wide * 0.9)) ** 2)) * wide
    stem = np.minimum(stem, -z - 12)
    return np.asarray(np.maximum(np.maximum(upper, lobes), stem), np.float32)


def _shell(tissue: npt.NDArray[np.uint8], x: Volume, y: Volume, z: Volume, depth: Volume) -> None:
    """Fill scalp, skull and the space around the brain."""
    lift = np.maximum(z, -34) + 2
    skull = (1 - np.sqrt((x / 73) ** 2 + ((y - 2) / 89) ** 2 + (lift / 78) ** 2)) * 76
    neck = np.maximum(-z - 34, 0) * 0.3
    outside = skull + 15 - neck * (0.7 + 0.3 * np.tanh((y + 20) / 25))
    tissue[outside > 0] = _MUSCLE
    tissue[(outside > 0) & (outside < 5.5)] = _FAT
    tissue[(outside > 0) & (outside < 1.6)] = _MUSCLE
    vault = (skull > 0) | ((skull > -8) & (z > -30))
    tissue[vault] = _BONE
    tissue[(skull > -5.2) & (skull < -2.6) & (z > -26)] = _MARROW
    tissue[(skull > 0) & (depth > -3.5) & (z > -62)] = _CSF
    base = (skull > 0) & (depth <= -3.5)
    tissue[base] = np.where(z > -30, _BONE, _MUSCLE).repeat(ROWS, 1).repeat(ROWS, 2)[base]
    tissue[base & (np.hypot(x / 24, (y + 10) / 17) < 1)] = _MARROW


def _face(tissue: npt.NDArray[np.uint8], x: Volume, y: Volume, z: Volume) -> None:
    """Place eyes, sinuses and the air of the ears, all below the front of the brain."""
    side = np.abs(x)
    socket = np.sqrt(((side - 31) / 19) ** 2 + ((y + 62) / 26) ** 2 + ((z + 35) / 17) ** 2)
    tissue[socket < 1] = _FAT
    nerve = np.hypot(side - 31 + (y + 62) * 0.35, z + 35) < 2.6
    tissue[nerve & (y > -62) & (y < -36)] = _MUSCLE
    for offset in (-10.0, 10.0):
        muscle = np.hypot(side - 31 - offset + (y + 62) * 0.3, (z + 35) / 2) < 2.2
        tissue[muscle & (y > -66) & (y < -42)] = _MUSCLE
    eye = np.sqrt((side - 32) ** 2 + (y + 74) ** 2 + (z + 34) ** 2)
    tissue[eye < 13.2] = _MUSCLE
    tissue[eye < 12] = _CSF
    lens = ((side - 32) / 5) ** 2 + ((y + 83) / 2.4) ** 2 + ((z + 34) / 5) ** 2
    tissue[lens < 1] = _MUSCLE
    sinus = ((side - 6) / 6) ** 2 + ((y + 62) / 24) ** 2 + ((z + 40) / 16) ** 2
    tissue[sinus < 1] = _AIR
    tissue[(((side - 26) / 13) ** 2 + ((y + 58) / 15) ** 2 + ((z + 66) / 14) ** 2) < 1] = _AIR
    tissue[(((side - 60) / 11) ** 2 + ((y - 24) / 13) ** 2 + ((z + 50) / 12) ** 2) < 1] = _BONE


def _inner(tissue: npt.NDArray[np.uint8], x: Volume, y: Volume, z: Volume) -> None:
    """Place what lies deep in the brain: white commissure, deep nuclei and the ventricles."""
    side = np.abs(x)
    commissure = np.hypot((y - 4) / 40, (z - 14) / 20)
    tissue[(side < 14) & (commissure > 0.78) & (commissure < 1.02) & (z > 8)] = _WHITE
    for centre, radii, kind in (
        ((16.0, -20.0, 15.0), (5.0, 13.0, 9.0), _DEEP_GREY),
        ((27.0, -3.0, 6.0), (7.0, 18.0, 11.0), _DEEP_GREY),
        ((11.0, 13.0, 8.0), (8.0, 13.0, 9.0), _DEEP_GREY),
        ((9.0, -8.0, 18.0), (5.5, 30.0, 8.0), _CSF),
        ((15.0, -32.0, 13.0), (6.0, 11.0, 7.0), _CSF),
        ((21.0, 30.0, 14.0), (7.0, 20.0, 8.0), _CSF),
        ((34.0, 14.0, -16.0), (4.0, 20.0, 4.0), _CSF),
        ((0.0, 8.0, 3.0), (2.4, 15.0, 10.0), _CSF),
        ((0.0, 31.0, -40.0), (7.0, 6.0, 11.0), _CSF),
        ((43.0, -6.0, 3.0), (3.5, 24.0, 4.0), _CSF),
    ):
        turned = side + (y - centre[1]) * (0.18 if centre[0] > 5 else 0.0)
        form = (
            ((turned - centre[0]) / radii[0]) ** 2
            + ((y - centre[1]) / radii[1]) ** 2
            + ((z - centre[2]) / radii[2]) ** 2
        )
        tissue[form < 1] = kind
    tissue[(side < 1.2) & (np.hypot((y + 10) / 30, (z - 18) / 8) < 1)] = _WHITE


def _folds(random: np.random.Generator) -> Volume:
    """Return the distance in millimetres to the nearest fold of the cortex."""
    field = _waves(random, 9.0) + _waves(random, 6.0) * np.float32(0.3)
    slopes = np.gradient(field, SLICE_SPACING_MM, PIXEL_SPACING_MM, PIXEL_SPACING_MM)
    steepness = np.sqrt(sum(slope**2 for slope in slopes)) + np.float32(0.02)
    return np.asarray(np.abs(field / steepness), np.float32)


def _waves(random: np.random.Generator, length_mm: float) -> Volume:
    """Return smooth random waves of about unit deviation over the whole volume."""
    sizes = (SLICES * SLICE_SPACING_MM, ROWS * PIXEL_SPACING_MM, ROWS * PIXEL_SPACING_MM)
    field = random.standard_normal([int(size / length_mm) + 4 for size in sizes])
    for axis, (count, size) in enumerate(zip((SLICES, ROWS, ROWS), sizes, strict=True)):
        position = np.linspace(1, 1 + size / length_mm, count)
        distance = np.abs(position[:, None] - np.arange(field.shape[axis])[None, :])
        near = 2 / 3 - distance**2 + distance**3 / 2
        weights = np.where(distance < 1, near, np.maximum(2 - distance, 0) ** 3 / 6)
        field = np.moveaxis(np.tensordot(weights, field, axes=(1, axis)), 0, axis)
    return np.asarray(field / field.std(), np.float32)
