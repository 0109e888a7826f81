"""Liver, kidneys, spleen, stomach and bowel of the generated trunk."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from bfr_command.demo.canvas import AXIS_MM, Painter, Plane, Sphere, edge

LIVER_HU = 105.0


def paint_abdomen(
    plane: Painter,
    domes: tuple[Plane, Plane],
    vessels: npt.NDArray[np.uint8],
    texture: Plane,
    bowel: Sequence[Sphere],
) -> None:
    """Paint what lies below the diaphragm; slices above it stay as they are."""
    depth = plane.depth
    if depth < 175:
        return
    # Left side first: the liver lies over the stomach where both reach the midline.
    plane.ellipsoid((62.0, -28.0, 258.0), (48.0, 40.0, 54.0), 75.0, turn=0.3)
    plane.ellipsoid((62.0, -28.0, 258.0), (43.0, 35.0, 49.0), 22.0, turn=0.3, texture=texture)
    plane.ellipsoid((62.0, -28.0, 258.0), (43.0, 35.0, 49.0), -960.0, turn=0.3, above_y=-44.0)
    plane.ellipsoid((88.0, 38.0, 262.0), (24.0, 46.0, 50.0), 122.0, turn=-0.35, texture=texture)
    plane.ellipsoid((82.0, -12.0, 292.0), (16.0, 20.0, 26.0), 60.0)
    plane.ellipsoid((18.0, -6.0, 284.0), (52.0, 11.0, 17.0), 92.0, turn=-0.22, texture=texture)
    plane.ellipsoid((-30.0, 4.0, 298.0), (17.0, 14.0, 30.0), 92.0, texture=texture)
    for loop in bowel:
        at = (loop.x, loop.y, loop.depth)
        turn, inner = loop.radius * 9, loop.radius - 1.8
        plane.ellipsoid(at, (loop.radius * 1.7, loop.radius, loop.radius), 88.0, turn=turn)
        radii = (inner * 1.7, inner, inner)
        plane.ellipsoid(at, radii, loop.hu, turn=turn, texture=texture)
    _colon(plane, texture)
    _liver(plane, domes[0], vessels, texture)
    _kidneys(plane, texture)
    plane.ellipsoid((-42.0, -50.0, 292.0), (16.0, 21.0, 30.0), 62.0, turn=0.4)
    plane.ellipsoid((-42.0, -50.0, 292.0), (14.0, 19.0, 28.0), 8.0, turn=0.4)
    for side in (-1, 1):
        size = float(np.interp(depth, [270, 330, 400], [0, 15, 24]))
        plane.ellipse(side * (30 + size * 0.4), 50.0, size * 0.8, size, 55.0, turn=side * 0.3)
    for x, y, radius in ((-4.0, -2.0, 4.0), (-13.0, -4.0, 5.5)):
        plane.ellipse(x, y, *(radius * min(1.0, max(0.0, (depth - 290) / 8)),) * 2, 150.0)


def _colon(plane: Painter, texture: Plane) -> None:
    depth = plane.depth
    across = [(float(x), -64 + (float(x) / 90) ** 2 * 16) for x in np.linspace(-84, 92, 15)]
    for shrunk, hu in ((0.0, 60.0), (3.0, -160.0), (3.6, -900.0)):
        for x, y in across:
            radius = 15.0 + 2 * np.sin(x) - shrunk
            at = (x, y, 322 + abs(x) * 0.12)
            air = y - 2 if hu < -500 else None
            plane.ellipsoid(at, (radius,) * 3, hu, above_y=air, texture=texture * -(hu / 20))
    for x, y, top, radius in ((-96.0, -4.0, 322.0, 25.0), (101.0, 14.0, 284.0, 17.0)):
        if depth > top:
            grown = radius * min(1.0, (depth - top) / 14 + 0.3)
            haustra = 1 + 0.18 * np.sin(depth / 5.5)
            plane.ellipse(x, y, grown * haustra, grown, 55.0)
            plane.ellipse(x, y, grown * haustra - 3, grown - 3, -120.0, texture=texture * 9)
            plane.ellipse(x, y, grown - 4, grown - 4, -900.0, above_y=y - grown * 0.3)


def _liver(plane: Painter, dome: Plane, vessels: npt.NDArray[np.uint8], texture: Plane) -> None:
    depth = plane.depth
    if depth > 372:
        return
    shrink = float(np.sqrt(max(0.0, 1 - max(0.0, (depth - 262) / 110) ** 2)))
    across = (AXIS_MM[None, :] + plane.warp_x[:, None] * 1.5 + 78 + 12 * (1 - shrink)) / 74
    along = (AXIS_MM[:, None] + plane.warp_y[None, :] * 1.5 - 2) / (84 * max(shrink, 0.05))
    right = (1 - np.sqrt((across / max(shrink, 0.05)) ** 2 + along**2)) * 70
    size = float(np.sqrt(max(0.0, 1 - ((depth - 258) / 50) ** 2)))
    across = (AXIS_MM[None, :] + plane.warp_x[:, None] + 2) / (74 * max(size, 0.05))
    along = (AXIS_MM[:, None] + plane.warp_y[None, :] + 48 + across * 6) / (30 * max(size, 0.05))
    left = (1 - np.sqrt(across**2 + along**2)) * 28
    lobes = np.maximum(edge(right, 1.8) * edge(depth - 3 - dome, 4.0), edge(left, 1.8))
    alpha = lobes * edge(plane.inside_cage - 4.0, 1.6)
    plane.fill(alpha, LIVER_HU + texture * 0.8)
    plane.fill(alpha * (vessels * np.float32(0.8 / 255)), 150.0)


def _kidneys(plane: Painter, texture: Plane) -> None:
    for side, centre in ((-1, 330.0), (1, 318.0)):
        at = (side * 60.0, 40.0, centre)
        turn = side * 0.5
        plane.ellipsoid(at, (33.0, 38.0, 64.0), -100.0, turn=turn)
        plane.ellipsoid(at, (24.0, 29.0, 54.0), 185.0, turn=turn, texture=texture)
        for offset in (-16.0, 0.0, 16.0):
            inner = (at[0] - side * 3, at[1] + offset * 0.7, centre + offset * 1.6)
            plane.ellipsoid(inner, (11.0, 10.0, 20.0), 135.0, turn=turn)
        plane.ellipsoid((at[0] - side * 13, at[1] - 7, centre), (16.0, 10.0, 26.0), -85.0)
        plane.ellipsoid((at[0] - side * 14, at[1] - 7, centre + 4), (8.0, 4.5, 14.0), 20.0)
        plane.ellipsoid((at[0] - side * 26, at[1] - 16, centre - 6), (22.0, 3.5, 4.5), 150.0)


def place_bowel(random: np.random.Generator) -> list[Sphere]:
    """Return where the loops of the small bowel lie."""
    loops = []
    for _ in range(58):
        x, y = random.uniform(-72, 76), random.uniform(-62, -8)
        hu = random.uniform(15, 45)
        loops.append(Sphere(x, y, random.uniform(330, 412), random.uniform(8, 12), hu))
    return loops
