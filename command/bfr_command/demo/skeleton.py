"""Spine and ribs of the generated trunk; lengths in millimetres, tissue in Hounsfield units."""

from typing import Protocol

import numpy as np
import numpy.typing as npt

Table = npt.NDArray[np.float32]

_RIB_SPACING_MM = 24.0
_FIRST_RIB_DEPTH_MM = -4.0
# How far round the chest each rib reaches as bone and as cartilage, in radians from the spine.
_BONE_ENDS = np.array([2.2, 2.3, 2.35, 2.4, 2.4, 2.35, 2.3, 2.2, 2.1, 1.95, 1.3, 0.8], np.float32)
_CARTILAGE_ENDS = np.array([3, 3, 3, 3, 3, 3, 2.95, 2.8, 2.65, 2.4, 1.3, 0.8], np.float32)


class PaintEllipse(Protocol):
    """Paints one ellipse of a tissue into the current slice."""

    def __call__(
        self,
        x: float,
        y: float,
        radius_x: float,
        radius_y: float,
        hu: float,
        *,
        turn: float = ...,
        soft: float = ...,
        stiff: bool = ...,
    ) -> None:
        """Paint it, centred on (x, y)."""
        ...


def rib_thickness_mm(from_back: Table, depth_mm: float) -> tuple[Table, Table]:
    """Return half the thickness of bone and of cartilage in each direction; negative: none."""
    fall_mm = 46 * (1 - np.cos(from_back * 1.02)) - 6 * np.sin(from_back * 2)
    position = (depth_mm - _FIRST_RIB_DEPTH_MM - fall_mm) / _RIB_SPACING_MM
    rib = np.clip(np.round(position), 0, len(_BONE_ENDS) - 1).astype(np.int64)
    offset_mm = (position - rib) * _RIB_SPACING_MM
    height_mm = np.where(rib < 1, 5.0, 6.8)
    inside = 1 - (offset_mm / height_mm) ** 2
    thickness = np.where(inside > 0, 4.2 * np.sqrt(np.maximum(inside, 0)), -9.0)
    bone = np.where((from_back > 0.32) & (from_back < _BONE_ENDS[rib]), thickness, -9.0)
    wings = (from_back >= _BONE_ENDS[rib]) & (from_back < _CARTILAGE_ENDS[rib])
    cartilage = np.where(wings, thickness, -9.0)
    return bone.astype(np.float32), cartilage.astype(np.float32)


def vertebra_at(depth_mm: float) -> tuple[int, float]:
    """Return which vertebra a depth meets, 0 for the first thoracic, and how far down it is."""
    heights = np.interp(np.arange(20), [0, 11, 16, 19], [19.5, 27.0, 34.0, 35.0])
    edges = np.concatenate([[-6.0], -6.0 + np.cumsum(heights)])
    index = int(np.searchsorted(edges, depth_mm, side="right")) - 1
    return index, float((depth_mm - edges[index]) / heights[index])


def spine_centre_mm(depth_mm: float) -> float:
    """Return how far behind the middle the vertebral bodies lie at a depth."""
    return float(np.interp(depth_mm, [0, 60, 140, 220, 300, 400], [32, 42, 49, 47, 43, 40]))


def paint_spine(ellipse: PaintEllipse, depth_mm: float) -> None:
    """Paint vertebra or disc, arch and processes, and the spinal canal of one slice."""
    _, share = vertebra_at(depth_mm)
    y = spine_centre_mm(depth_mm)
    wide = float(np.interp(depth_mm, [0, 120, 250, 400], [14, 16, 20, 24]))
    tall = float(np.interp(depth_mm, [0, 120, 250, 400], [10, 14, 15.5, 17]))
    waist = 1.0 - 0.09 * float(np.sin(np.pi * min(share / 0.8, 1.0)))
    canal_y = y + tall + 7.5
    if share < 0.8:
        endplate = max(0.0, 1 - min(share, 0.8 - share) / 0.09)
        ellipse(0.0, y, wide * waist, tall * waist, 560.0, stiff=True)
        marrow = 185.0 + 330.0 * endplate
        ellipse(0.0, y, wide * waist - 1.7, tall * waist - 1.7, marrow, stiff=True, soft=2.2)
        ellipse(0.0, y + tall * 0.5, 2.2, tall * 0.35, 110.0, stiff=True)
    else:
        ellipse(0.0, y, wide, tall, 88.0, stiff=True)
        ellipse(0.0, y + 1, wide * 0.6, tall * 0.5, 70.0, stiff=True, soft=4.0)
    for side in (-1, 1):
        if 0.08 < share < 0.52:
            ellipse(side * 12.5, canal_y - 4.0, 4.2, 8.0, 480.0, stiff=True)
            ellipse(side * 12.5, canal_y - 4.0, 2.4, 6.0, 230.0, stiff=True)
            turn = side * 0.35
            ellipse(side * 25.0, canal_y + 3.0, 14.0, 4.2, 430.0, turn=turn, stiff=True)
            ellipse(side * 25.0, canal_y + 3.0, 12.0, 2.2, 230.0, turn=turn, stiff=True)
        else:
            ellipse(side * 13.5, canal_y + 3.5, 5.2, 4.2, 430.0, stiff=True)
            ellipse(side * 13.5, canal_y + 3.5, 0.6, 4.0, 60.0, turn=side * 0.5, stiff=True)
        ellipse(side * 7.5, canal_y + 9.0, 9.0, 2.9, 460.0, turn=side * -0.62, stiff=True)
    if 0.2 < share < 0.95:
        length = 10.0 * float(np.sin(np.pi * (share - 0.2) / 0.75)) + 3
        ellipse(0.0, canal_y + 11 + length * 0.7, 3.2, length, 460.0, stiff=True)
        ellipse(0.0, canal_y + 11 + length * 0.7, 1.5, length - 2, 230.0, stiff=True)
    ellipse(0.0, canal_y, 9.0, 7.6, -40.0, stiff=True)
    ellipse(0.0, canal_y, 7.6, 6.4, 12.0, stiff=True)
    ellipse(0.0, canal_y, 5.2, 4.2, 40.0, stiff=True)
