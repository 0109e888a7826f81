"""Branching vessels of the generated lungs and liver; places in millimetres (x, y, depth)."""

import numpy as np
import numpy.typing as npt

Branches = npt.NDArray[np.float32]  # one row a piece: x, y, depth, x, y, depth, radius
Axis = npt.NDArray[np.float32]

_LUNG_ROOTS = (
    # hilum, the middle of the lung, and its half axes
    ((-40.0, 4.0, 106.0), (-82.0, 0.0, 130.0), (56.0, 92.0, 130.0)),
    ((44.0, 8.0, 104.0), (84.0, 4.0, 130.0), (54.0, 90.0, 130.0)),
)
_LIVER_ROOT = ((-26.0, -6.0, 262.0), (-72.0, 0.0, 262.0), (66.0, 80.0, 84.0))


def lung_branches(random: np.random.Generator) -> Branches:
    """Return the vessels of both lungs, from the hilum outward."""
    pieces: list[tuple[float, ...]] = []
    for hilum, centre, half_axes in _LUNG_ROOTS:
        for direction in _directions(random, 24):
            aim = np.asarray(centre) + direction * np.asarray(half_axes) * 0.85 - np.asarray(hilum)
            length = float(np.linalg.norm(aim))
            radius = float(random.uniform(2.6, 4.0))
            _grow(pieces, random, np.asarray(hilum), aim / length, length * 0.24, radius, 0, 0.42)
    return np.asarray(pieces, np.float32)


def liver_branches(random: np.random.Generator) -> Branches:
    """Return portal and hepatic veins, from the porta outward."""
    pieces: list[tuple[float, ...]] = []
    hilum, centre, half_axes = _LIVER_ROOT
    for direction in _directions(random, 9):
        aim = np.asarray(centre) + direction * np.asarray(half_axes) * 0.8 - np.asarray(hilum)
        length = float(np.linalg.norm(aim))
        _grow(pieces, random, np.asarray(hilum), aim / length, length * 0.3, 4.6, 0, 1.4)
    return np.asarray(pieces, np.float32)


def draw_branches(
    branches: Branches, axis_mm: Axis, depths_mm: Axis, thickness_mm: float
) -> npt.NDArray[np.uint8]:
    """Return how much of each voxel is vessel (0 to 255), by slice, row and column."""
    drawn = np.zeros((len(depths_mm), len(axis_mm), len(axis_mm)), np.uint8)
    spacing_mm = float(axis_mm[1] - axis_mm[0])
    step_mm = float(depths_mm[1] - depths_mm[0]) if len(depths_mm) > 1 else thickness_mm
    soft = np.float32(0.8 + thickness_mm * 0.25)
    for row in branches:
        start, end, radius = row[0:3], row[3:6], row[6]
        low, high = np.minimum(start, end) - radius - 1, np.maximum(start, end) + radius + 1
        box = []
        for value, top, first, step, size in (
            (low[2], high[2], depths_mm[0], step_mm, len(depths_mm)),
            (low[1], high[1], axis_mm[0], spacing_mm, len(axis_mm)),
            (low[0], high[0], axis_mm[0], spacing_mm, len(axis_mm)),
        ):
            begin = max(0, int(np.ceil((value - first) / step)))
            box.append(slice(begin, max(begin, min(size, int((top - first) / step) + 1))))
        if any(part.start >= part.stop for part in box):
            continue
        along = end - start
        depth = depths_mm[box[0]][:, None, None] - start[2]
        y = axis_mm[box[1]][None, :, None] - start[1]
        x = axis_mm[box[2]][None, None, :] - start[0]
        share = (x * along[0] + y * along[1] + depth * along[2]) / np.dot(along, along)
        share = np.clip(share, 0, 1)
        distance = np.sqrt(
            (x - share * along[0]) ** 2
            + (y - share * along[1]) ** 2
            + (depth - share * along[2]) ** 2
        )
        alpha = np.clip((radius - distance) / soft + np.float32(0.5), 0, 1) * 255
        place = drawn[box[0], box[1], box[2]]
        np.maximum(place, alpha.astype(np.uint8), out=place)
    return drawn


def _grow(
    pieces: list[tuple[float, ...]],
    random: np.random.Generator,
    start: npt.NDArray[np.float64],
    direction: npt.NDArray[np.float64],
    length: float,
    radius: float,
    generation: int,
    thinnest: float,
) -> None:
    """Add one branch as two slightly bent pieces, then its two children."""
    bend = direction + random.normal(0, 0.12, 3)
    middle = start + direction * length / 2
    end = middle + bend / np.linalg.norm(bend) * length / 2
    pieces.append((*start, *middle, radius))
    pieces.append((*middle, *end, radius * 0.93))
    if generation == 7 or radius < thinnest:
        return
    side = np.cross(bend, random.normal(0, 1, 3))
    side /= np.linalg.norm(side)
    for sign, share in ((1, random.uniform(0.74, 0.9)), (-1, random.uniform(0.58, 0.78))):
        child = bend + side * sign * (1.15 - share)
        child /= np.linalg.norm(child)
        shorter = length * random.uniform(0.72, 0.92)
        _grow(pieces, random, end, child, shorter, radius * share, generation + 1, thinnest)


def _directions(random: np.random.Generator, count: int) -> npt.NDArray[np.float64]:
    """Return unit vectors spread evenly over the sphere, shaken a little."""
    order = np.arange(count) + 0.5
    polar = np.arccos(1 - 2 * order / count)
    turn = np.pi * (1 + 5**0.5) * order
    vectors = np.stack(
        [np.cos(turn) * np.sin(polar), np.sin(turn) * np.sin(polar), np.cos(polar)], axis=1
    )
    vectors += random.normal(0, 0.12, vectors.shape)
    return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), np.float64)
