"""The slice while it is painted: shapes in millimetres, tissue in Hounsfield units.

Axes are those of the patient (PS3.3 §C.7.6.2.1.1): x to the left, y to the back. The depth of a
slice is its distance below the topmost one, in millimetres.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Plane = npt.NDArray[np.floating[Any]]

COLUMNS = 512
PIXEL_SPACING_MM = 0.78125
AIR_HU = -1000.0
NOISE_HU = 11.0  # standard deviation in even tissue

_ANGLES = 4096
AXIS_MM = ((np.arange(COLUMNS) - (COLUMNS - 1) / 2) * PIXEL_SPACING_MM).astype(np.float32)
_THETA = np.linspace(-np.pi, np.pi, _ANGLES, endpoint=False, dtype=np.float32)
# Angle from the back, 0 at the spine and pi at the sternum, the same on both sides.
FROM_BACK = np.abs(np.angle(np.exp(1j * (_THETA - np.pi / 2)))).astype(np.float32)
_RADIUS_MM = np.hypot(AXIS_MM[None, :], AXIS_MM[:, None])
ANGLE_INDEX = (
    np.round(
        (np.arctan2(AXIS_MM[:, None], AXIS_MM[None, :]) + np.pi) * (_ANGLES / (2 * np.pi))
    ).astype(np.int32)
    % _ANGLES
)


@dataclass(frozen=True, slots=True)
class Sphere:
    """A ball of one tissue; rows of balls make the tubes that do not run straight down."""

    x: float
    y: float
    depth: float
    radius: float
    hu: float


class Painter:
    """One slice while it is painted, with the outlines that several organs share."""

    def __init__(self, depth: float) -> None:
        self.depth = depth
        self.hu = np.full((COLUMNS, COLUMNS), AIR_HU, np.float32)
        # Slow waves that differ from slice to slice keep organs from looking drawn with compasses.
        rows = np.sin(AXIS_MM / 17 + depth / 23) * 2.0 + np.sin(AXIS_MM / 7.3 - depth / 11) * 0.8
        columns = np.sin(AXIS_MM / 19 - depth / 29) * 2.0 + np.sin(AXIS_MM / 8.1 + depth / 13)
        self.warp_x = rows.astype(np.float32)
        self.warp_y = columns.astype(np.float32)
        self.cage_radius = _cage_radius(depth)
        muscle_radius = self.cage_radius + _muscle_thickness(depth)
        body_radius = np.maximum(_body_radius(depth), muscle_radius + 4)
        self.inside_body = body_radius[ANGLE_INDEX] - _RADIUS_MM
        self.inside_muscle = muscle_radius[ANGLE_INDEX] - _RADIUS_MM
        self.inside_cage = self.cage_radius[ANGLE_INDEX] - _RADIUS_MM

    def fill(self, alpha: Plane, hu: float | Plane) -> None:
        """Mix tissue of `hu` into the slice by `alpha`."""
        change = hu - self.hu
        change *= alpha
        self.hu += change

    def ellipse(
        self,
        x: float,
        y: float,
        radius_x: float,
        radius_y: float,
        hu: float,
        *,
        turn: float = 0.0,
        soft: float = 1.6,
        stiff: bool = False,
        above_y: float | None = None,
        texture: Plane | None = None,
    ) -> None:
        """Paint one ellipse, turned by `turn` radians; `above_y` cuts it at a fluid level."""
        if radius_x < 0.4 or radius_y < 0.4:
            return
        reach = max(radius_x, radius_y) + 6
        rows, columns = _window(y, reach), _window(x, reach)
        dx = AXIS_MM[columns][None, :] - x
        dy = AXIS_MM[rows][:, None] - y
        if not stiff:
            dx = dx + self.warp_x[rows][:, None]
            dy = dy + self.warp_y[columns][None, :]
        cosine, sine = np.float32(np.cos(turn)), np.float32(np.sin(turn))
        across = (dx * cosine + dy * sine) / np.float32(radius_x)
        along = (dy * cosine - dx * sine) / np.float32(radius_y)
        inside = (1 - np.sqrt(across * across + along * along)) * np.float32(
            min(radius_x, radius_y)
        )
        alpha = np.clip(inside / np.float32(soft) + np.float32(0.5), 0, 1)
        if above_y is not None:
            alpha = alpha * edge(above_y - AXIS_MM[rows][:, None], 1.5)
        window = self.hu[rows, columns]
        tissue = hu if texture is None else hu + texture[rows, columns]
        window += alpha * (tissue - window)

    def ellipsoid(
        self,
        centre: tuple[float, float, float],
        radii: tuple[float, float, float],
        hu: float,
        *,
        turn: float = 0.0,
        stiff: bool = False,
        above_y: float | None = None,
        texture: Plane | None = None,
    ) -> None:
        """Paint the section of an ellipsoid, if this slice meets it."""
        share = 1 - ((self.depth - centre[2]) / radii[2]) ** 2
        if share > 0.01:
            scale = float(np.sqrt(share))
            self.ellipse(
                centre[0],
                centre[1],
                radii[0] * scale,
                radii[1] * scale,
                hu,
                turn=turn,
                stiff=stiff,
                above_y=above_y,
                texture=texture,
            )


def _body_radius(depth: float) -> Plane:
    width = np.interp(
        depth, [0, 30, 60, 100, 150, 220, 300, 400], [170, 172, 172, 169, 165, 160, 157, 164]
    )
    front = np.interp(depth, [0, 40, 120, 200, 300, 400], [82, 98, 116, 118, 112, 108])
    back = np.interp(depth, [0, 60, 150, 300, 400], [104, 114, 118, 112, 110])
    radius = _oval(float(width), float(front), float(back), 2.4)
    # Breasts at the front of the chest, a groove over the spine, and no two sides quite alike.
    bust = 15 * np.exp(-(((depth - 140) / 42) ** 2) - ((FROM_BACK - 2.5) / 0.3) ** 2)
    groove = 5 * np.exp(-((FROM_BACK / 0.16) ** 2))
    sway = 1.6 * np.sin(2 * _THETA + depth / 60) + 1.2 * np.sin(5 * _THETA - depth / 45)
    return np.asarray(radius + bust - groove + sway, np.float32)


def _cage_radius(depth: float) -> Plane:
    width = np.interp(
        depth, [0, 20, 60, 120, 180, 240, 300, 400], [44, 80, 112, 129, 134, 132, 126, 122]
    )
    front = np.interp(depth, [0, 30, 80, 140, 240, 400], [46, 64, 82, 91, 92, 82])
    back = np.interp(depth, [0, 30, 100, 200, 300, 400], [58, 70, 82, 86, 80, 74])
    radius = _oval(float(width), float(front), float(back), 2.3)
    return np.asarray(radius * (1 - 0.3 * np.exp(-((FROM_BACK / 0.42) ** 2))), np.float32)


def _muscle_thickness(depth: float) -> Plane:
    shoulder = float(np.interp(depth, [0, 30, 90, 150], [46, 30, 16, 0]))
    chest = float(np.interp(depth, [0, 40, 110, 160], [10, 17, 10, 2]))
    thickness = 14 + 6 * np.exp(-(((FROM_BACK - 1.6) / 0.6) ** 2))
    thickness += shoulder * np.exp(-(((FROM_BACK - 1.05) / 0.5) ** 2))
    thickness += chest * np.exp(-(((FROM_BACK - 2.5) / 0.35) ** 2))
    thickness += 16 * np.exp(-((FROM_BACK / 0.5) ** 2))
    flank = float(np.interp(depth, [270, 310], [0, 8]))
    thickness -= flank * np.exp(-(((FROM_BACK - 2.4) / 0.14) ** 2))
    return np.asarray(thickness, np.float32)


def _oval(width: float, front: float, back: float, power: float) -> Plane:
    """Return the radius in each direction of an oval that differs between front and back."""
    height = np.where(_THETA < 0, front, back)
    across = np.abs(np.cos(_THETA) / width) ** power
    along = np.abs(np.sin(_THETA) / height) ** power
    return np.asarray((across + along) ** (-1 / power), np.float32)


def texture_at(planes: Sequence[Plane], depth_mm: float) -> Plane:
    """Return the unevenness of tissue at a depth, between the two nearest planes."""
    place = depth_mm / 7.0
    share = np.float32(place % 1.0)
    above, below = planes[int(place) % len(planes)], planes[(int(place) + 1) % len(planes)]
    return np.asarray(above * np.sqrt(1 - share) + below * np.sqrt(share), np.float32)


def textures(random: np.random.Generator) -> list[Plane]:
    """Return unevenness of tissue, independent planes of about unit deviation."""
    planes = []
    for _ in range(6):
        coarse = random.standard_normal((COLUMNS // 4, COLUMNS // 4)).astype(np.float32)
        plane = np.kron(coarse, np.ones((4, 4), np.float32))
        planes.append(_blurred(_blurred(_blurred(plane))) * 5)
    return planes


def detected(plane: Plane, random: np.random.Generator) -> Plane:
    """Return the slice as the scanner would show it: blurred a little, with grainy noise."""
    noise = random.standard_normal(plane.shape, dtype=np.float32)
    noise *= np.float32(NOISE_HU * 2.67)  # the blur leaves 1/2.67 of the deviation
    noise += plane
    return _blurred(noise)


def _blurred(plane: Plane) -> Plane:
    down = plane * np.float32(0.5)
    down[1:-1] += (plane[:-2] + plane[2:]) * np.float32(0.25)
    down[[0, -1]] *= 2
    across = down * np.float32(0.5)
    across[:, 1:-1] += (down[:, :-2] + down[:, 2:]) * np.float32(0.25)
    across[:, [0, -1]] *= 2
    return across


def edge(distance_mm: Plane, soft_mm: float) -> Plane:
    """Return how much of each pixel lies inside an edge `soft_mm` wide."""
    inside = np.multiply(distance_mm, np.float32(1 / soft_mm), dtype=np.float32)
    inside += np.float32(0.5)
    return np.clip(inside, 0, 1, out=inside)


def _window(centre_mm: float, reach_mm: float) -> slice:
    middle = (COLUMNS - 1) / 2 + centre_mm / PIXEL_SPACING_MM
    reach = reach_mm / PIXEL_SPACING_MM
    return slice(max(0, int(middle - reach)), min(COLUMNS, max(0, int(middle + reach) + 2)))
