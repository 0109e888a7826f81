"""A generated echocardiogram: four chambers that beat once, as colour frames."""

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

Plane = npt.NDArray[np.floating[Any]]
Frame = npt.NDArray[np.uint8]

FRAMES, ROWS, COLUMNS = 30, 600, 800
FRAME_TIME_MS = 33.333
DEPTH_MM = 160.0
PIXELS_PER_MM = 3.2
PROBE_COLUMN, PROBE_ROW = 400, 36
_BEAMS, _SAMPLES = 224, 640
_HALF_ANGLE = 0.70


def echocardiogram(seed: int) -> Iterator[Frame]:
    """Yield 30 RGB frames of 600 by 800, one beat of the heart."""
    random = np.random.default_rng(seed)
    depth = np.linspace(0, DEPTH_MM, _SAMPLES, dtype=np.float32)[:, None]
    angle = np.linspace(-_HALF_ANGLE, _HALF_ANGLE, _BEAMS, dtype=np.float32)[None, :]
    x, y = depth * np.sin(angle), depth * np.cos(angle)
    speckles = [_speckle(random) for _ in range(3)]
    uneven = _uneven(random)
    rows, beams, samples = _scan_conversion()
    ecg = _ecg()
    for index in range(FRAMES):
        phase = index / FRAMES
        squeeze = 0.5 - 0.5 * math.cos(2 * math.pi * min(phase / 0.62, 1.0))
        echo, blood, jet = _heart(x, y, squeeze, phase)
        grain = speckles[0] * 0.75 + np.roll(speckles[1], int(squeeze * 9), axis=0) * 0.25
        grain = np.where(blood > 0.5, np.roll(speckles[2], index * 7, axis=0), grain)
        fade = 1.15 - 0.45 * depth / DEPTH_MM - 0.25 * np.abs(angle) / _HALF_ANGLE
        loudness = 20 * np.log10(echo * grain * fade * uneven + 1e-4)
        grey = np.clip((loudness + 50) / 52, 0, 1) ** 1.15 * 255
        frame = np.zeros((ROWS, COLUMNS, 3), np.uint8)
        frame[rows] = grey[samples, beams].astype(np.uint8)[:, None]
        _colour_flow(frame, rows, jet[samples, beams])
        _margins(frame, ecg, index)
        yield frame


def _heart(x: Plane, y: Plane, squeeze: float, phase: float) -> tuple[Plane, Plane, Plane]:
    """Return the echo of each place, how much of it is blood, and the flow through the valve."""
    base = 104 - 9 * squeeze
    shrink = 1 - 0.3 * squeeze
    epicardium = _ellipse(x, y, -2, 78 - 2 * squeeze, 47, 66, 0.08)
    echo = np.where(epicardium < 1, 0.15, 0.035).astype(np.float32)
    echo += 0.5 * np.exp(-(((epicardium - 1.02) / 0.028) ** 2))
    left = _ellipse(x, y, 13, 64, 18 * shrink, 39 - 5 * squeeze, -0.13)
    right = _ellipse(x, y, -24, 70, 11 * (1 - 0.2 * squeeze), 31, 0.24)
    left_atrium = _ellipse(x, y, 17, 127 - 3 * squeeze, 19 + 3 * squeeze, 20, 0.0)
    right_atrium = _ellipse(x, y, -19, 125 - 3 * squeeze, 17 + 2 * squeeze, 18, 0.0)
    nearest = np.minimum(np.minimum(left, right), np.minimum(left_atrium, right_atrium))
    blood = np.clip((1 - nearest) / 0.05 + 0.5, 0, 1).astype(np.float32)
    echo = echo * (1 - blood) + 0.0035 * blood
    echo += 0.25 * np.exp(-(((nearest - 1.03) / 0.03) ** 2)) * (np.abs(np.sin(x / 9)) + 0.2)
    opened = 16 * (1 - squeeze) * abs(math.cos(math.pi * phase * 2.2))
    for hinge, tip, bottom in ((-3, 10, base), (32, 14, base), (-36, -22, base), (-9, -20, base)):
        tip_x = tip + math.copysign(1, hinge - tip) * opened * 0.35
        leaf = _segment(x, y, hinge, bottom, tip_x, bottom - 4 - opened)
        echo = np.maximum(echo, 0.85 * np.exp(-((leaf / 1.3) ** 2)))
    jet = np.exp(-(((x - 13) / 8) ** 2) - ((y - base + 14) / 26) ** 2) * blood
    flow = np.where(squeeze < 0.35, jet, 0).astype(np.float32)
    return echo.astype(np.float32), blood, flow


def _ellipse(
    x: Plane, y: Plane, at_x: float, at_y: float, wide: float, long: float, turn: float
) -> Plane:
    dx, dy = x - np.float32(at_x), y - np.float32(at_y)
    across = (dx * np.float32(np.cos(turn)) + dy * np.float32(np.sin(turn))) / np.float32(wide)
    along = (dy * np.float32(np.cos(turn)) - dx * np.float32(np.sin(turn))) / np.float32(long)
    return np.sqrt(across**2 + along**2)


def _segment(x: Plane, y: Plane, x0: float, y0: float, x1: float, y1: float) -> Plane:
    """Return the distance to a line segment."""
    dx, dy = np.float32(x1 - x0), np.float32(y1 - y0)
    share = ((x - np.float32(x0)) * dx + (y - np.float32(y0)) * dy) / (dx * dx + dy * dy)
    share = np.clip(share, 0, 1)
    return np.hypot(x - np.float32(x0) - share * dx, y - np.float32(y0) - share * dy)


def _speckle(random: np.random.Generator) -> Plane:
    """Return the grain of ultrasound: the amplitude of many small echoes, blurred by the beam."""
    real, imaginary = random.standard_normal((2, _SAMPLES, _BEAMS), dtype=np.float32)
    for _ in range(3):
        for axis in (0, 1, 1):
            real = real + np.roll(real, 1, axis)
            imaginary = imaginary + np.roll(imaginary, 1, axis)
    amplitude = np.hypot(real, imaginary)
    return np.asarray(amplitude / amplitude.mean(), np.float32)


def _uneven(random: np.random.Generator) -> Plane:
    """Return how loudly each place answers: patches of tissue, and beams behind ribs."""
    patches = random.standard_normal((_SAMPLES // 20, _BEAMS // 14))
    grown = np.kron(patches, np.ones((20, 14)))
    for axis, reach in ((0, 21), (1, 15), (0, 21), (1, 15)):
        steps = range(-(reach // 2), reach // 2 + 1)
        grown = np.mean([np.roll(grown, step, axis) for step in steps], axis=0)
    shadow = 1 - 0.6 * np.exp(-(((np.arange(_BEAMS) - 18) / 16) ** 2))
    return np.asarray(np.exp(grown * 1.4) * shadow, np.float32)


def _scan_conversion() -> tuple[
    tuple[npt.NDArray[np.intp], ...], npt.NDArray[np.intp], npt.NDArray[np.intp]
]:
    """Return which pixels lie in the sector, and which beam and sample each of them shows."""
    dx = (np.arange(COLUMNS)[None, :] - PROBE_COLUMN) / PIXELS_PER_MM
    dy = (np.arange(ROWS)[:, None] - PROBE_ROW) / PIXELS_PER_MM
    depth, angle = np.hypot(dx, dy), np.arctan2(dx, dy)
    inside = np.nonzero((depth < DEPTH_MM) & (depth > 2) & (np.abs(angle) < _HALF_ANGLE))
    beams = np.round((angle[inside] / _HALF_ANGLE + 1) / 2 * (_BEAMS - 1)).astype(np.intp)
    samples = np.round(depth[inside] / DEPTH_MM * (_SAMPLES - 1)).astype(np.intp)
    return inside, beams, samples


def _colour_flow(frame: Frame, pixels: tuple[npt.NDArray[np.intp], ...], flow: Plane) -> None:
    """Colour what flows toward the probe, red to yellow."""
    moving = flow > 0.25
    speed = flow[moving]
    rows, columns = pixels[0][moving], pixels[1][moving]
    frame[rows, columns, 0] = (150 + 105 * speed).astype(np.uint8)
    frame[rows, columns, 1] = (200 * speed**2).astype(np.uint8)
    frame[rows, columns, 2] = 10


def _margins(frame: Frame, ecg: npt.NDArray[np.intp], index: int) -> None:
    """Draw the grey scale, the depth marks and the running electrocardiogram."""
    frame[60:260, 40:52] = np.linspace(255, 0, 200).astype(np.uint8)[:, None, None]
    for centimetre in range(0, 17):
        row = PROBE_ROW + int(centimetre * 10 * PIXELS_PER_MM)
        length = 12 if centimetre % 5 == 0 else 6
        frame[row : row + 2, 770 - length : 770] = 200
    reached = int((index + 1) / FRAMES * len(ecg))
    for column in range(1, reached):
        top, bottom = sorted((int(ecg[column - 1]), int(ecg[column])))
        frame[top : bottom + 2, 120 + column] = (60, 220, 90)
    frame[556:592, 120 + reached : 124 + reached] = (200, 200, 60)


def _ecg() -> npt.NDArray[np.intp]:
    """Return the row of the trace at each of 520 columns: P, QRS and T of one beat."""
    time = np.linspace(0, 1, 520)
    trace = np.zeros(520)
    for centre, width, height in (
        (0.02, 0.006, -3),
        (0.035, 0.007, 26),
        (0.05, 0.007, -6),
        (0.32, 0.045, 7),
        (0.88, 0.03, 4),
    ):
        trace += height * np.exp(-(((time - centre) / width) ** 2))
    return (582 - trace).astype(np.intp)
