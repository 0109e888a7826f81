"""Wall, lungs, heart and great vessels of the generated trunk."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from bfr_command.demo.canvas import ANGLE_INDEX, AXIS_MM, FROM_BACK, Painter, Plane, Sphere, edge
from bfr_command.demo.skeleton import paint_spine, rib_thickness_mm

AORTA_HU = 160.0
LUNG_HU = -860.0
NODULE_HU = 35.0
NODULE_CENTRE_MM = (-88.0, 12.0, 84.0)
SUBCUTANEOUS_FAT_HU = -105.0


def paint_wall(plane: Painter, texture: Plane) -> None:
    """Table, skin, fat and muscle."""
    _table(plane)
    plane.fill(edge(plane.inside_body, 1.2), 15.0)
    plane.fill(edge(plane.inside_body - 2.2, 1.2), SUBCUTANEOUS_FAT_HU)
    plane.fill(edge(plane.inside_muscle, 2.0), 52.0 + texture * 0.9)
    # A seam of fat parts the inner from the outer muscles of the wall.
    seam = np.abs(plane.inside_muscle - plane.inside_cage * -0.2 - 7.5) - 0.7
    plane.fill(edge(-seam, 1.5) * 0.6, -70.0)
    plane.fill(edge(plane.inside_cage, 2.0), -98.0 + texture * 0.4)
    for side in (-1, 1):
        width = np.interp(plane.depth, [0, 120, 260, 400], [26, 24, 28, 32])
        plane.ellipse(side * 30.0, 88.0, float(width), 17.0, 54.0, turn=side * -0.15)
    plane.ellipse(0.0, 96.0, 2.0, 10.0, -95.0)


def _table(plane: Painter) -> None:
    sag = 123 - AXIS_MM**2 / 900
    below = AXIS_MM[:, None] - sag[None, :]
    width = edge(188 - np.abs(AXIS_MM), 3.0)[None, :]
    plane.fill(edge(13 - np.abs(below - 13), 1.5) * width, -900.0)
    plane.fill(edge(1.1 - np.abs(below), 1.2) * width, -180.0)
    plane.fill(edge(1.1 - np.abs(below - 26), 1.2) * width, -180.0)


def paint_lungs(
    plane: Painter,
    domes: tuple[Plane, Plane],
    vessels: npt.NDArray[np.uint8],
    texture: Plane,
    nodule_diameter_mm: float,
) -> None:
    """Paint both lungs with their vessels, the diaphragm, and the nodule in the right lung."""
    depth = plane.depth
    if depth < 8 or depth > 300:
        return
    wide = float(np.interp(depth, [0, 40, 75, 110, 160, 215, 300], [16, 30, 34, 36, 34, 34, 40]))
    # The outline of the mediastinum: narrow behind the sternum, wide at the vessels and the spine.
    profile = np.interp(AXIS_MM, [-95, -72, -40, 0, 25, 48, 66, 90], [3, 8, 26, 33, 28, 20, 23, 30])
    half_mm = (profile * wide / 34 + plane.warp_x * 0.8).astype(np.float32)[:, None]
    pleura = edge(plane.inside_cage - 2.0 - max(0.0, 28 - depth) * 1.0, 1.6)
    right = edge(-AXIS_MM[None, :] - half_mm, 1.6) * edge(domes[0] - depth, 4.0)
    left = edge(AXIS_MM[None, :] - half_mm, 1.6) * edge(domes[1] - depth, 4.0)
    alpha = (right + left) * pleura
    air = LUNG_HU + texture * 5.0 + (AXIS_MM * 0.45).astype(np.float32)[:, None]
    for gap, hu in ((_fissure(depth, 0.62, 88.0), 110.0), (_fissure(depth, 0.05, 130.0), 70.0)):
        air = air + edge(0.5 - np.abs(gap), 1.6) * hu
    plane.fill(alpha, air)
    muscle = (1 - right - left) * edge(plane.inside_cage - 1, 2.0)
    right_cap = edge(3.0 - np.abs(domes[0] - depth + 2), 4.0) * (AXIS_MM[None, :] < 0)
    left_cap = edge(3.0 - np.abs(domes[1] - depth + 2), 4.0) * (AXIS_MM[None, :] >= 0)
    plane.fill(np.clip(muscle * (right_cap + left_cap), 0, 1), 48.0)
    plane.fill(alpha * (vessels * np.float32(1 / 255)), 105.0)
    radius = nodule_diameter_mm / 2
    plane.ellipsoid(NODULE_CENTRE_MM, (radius, radius, radius), NODULE_HU, stiff=True)


def _fissure(depth: float, slope: float, start: float) -> Plane:
    """Return the distance in millimetres to a lobar fissure, a plane that falls forward."""
    bend = np.sin(AXIS_MM / 40)[None, :] * 4
    return np.asarray((depth - start) * 0.8 + AXIS_MM[:, None] * slope + bend, np.float32)


def paint_mediastinum(plane: Painter, spheres: Sequence[Sphere]) -> None:
    """Paint heart, gullet, airways and great vessels."""
    depth = plane.depth
    if 92 < depth < 232:
        _heart(plane)
    if depth < 250:
        y = float(np.interp(depth, [0, 80, 200, 250], [14, 20, 16, 4]))
        x = float(np.interp(depth, [0, 180, 250], [4, 6, 26]))
        plane.ellipse(x, y, 7.0, 5.0, 48.0)
        plane.ellipse(x, y, 2.2, 1.2, -350.0)
    if depth < 45:
        plane.ellipse(-21.0, -14.0, 9.0, 13.0 * max(0.2, 1 - depth / 30), 120.0)
        plane.ellipse(21.0, -14.0, 9.0, 13.0 * max(0.2, 1 - depth / 30), 120.0)
    for sphere in spheres:
        reach = sphere.radius**2 - (depth - sphere.depth) ** 2
        if reach > 0.2:
            section = float(np.sqrt(reach))
            plane.ellipse(sphere.x, sphere.y, section, section, sphere.hu, stiff=True)
    for tube in _STRAIGHT_TUBES:
        depths = [point[2] for point in tube.points]
        if depths[0] <= depth <= depths[-1]:
            x = float(np.interp(depth, depths, [point[0] for point in tube.points]))
            y = float(np.interp(depth, depths, [point[1] for point in tube.points]))
            if tube.wall_mm:
                outer = tube.radius_mm + tube.wall_mm
                plane.ellipse(x, y, outer, outer, 45.0, stiff=True)
            plane.ellipse(x, y, tube.radius_mm, tube.radius_mm, tube.hu, stiff=True)


def _heart(plane: Painter) -> None:
    plane.ellipsoid((20.0, -30.0, 164.0), (70.0, 55.0, 66.0), -88.0, turn=0.45)
    plane.ellipsoid((20.0, -30.0, 163.0), (63.0, 48.0, 60.0), 96.0, turn=0.45)
    plane.ellipsoid((-28.0, -24.0, 158.0), (22.0, 27.0, 44.0), 148.0)
    plane.ellipsoid((8.0, 2.0, 140.0), (34.0, 18.0, 30.0), 165.0, turn=0.1)
    plane.ellipsoid((8.0, -58.0, 172.0), (40.0, 15.0, 40.0), 150.0, turn=0.35)
    plane.ellipsoid((46.0, -22.0, 172.0), (30.0, 19.0, 38.0), 168.0, turn=0.7)
    plane.ellipsoid((54.0, -30.0, 182.0), (4.0, 5.0, 16.0), 110.0)
    plane.ellipsoid((38.0, -12.0, 168.0), (5.0, 3.0, 12.0), 112.0)
    plane.ellipsoid((26.0, -46.0, 140.0), (3.0, 2.5, 12.0), 420.0)


def paint_bones(plane: Painter) -> None:
    """Paint ribs, breastbone, shoulder blades and spine."""
    depth = plane.depth
    bone_mm, cartilage_mm = rib_thickness_mm(FROM_BACK, depth)
    offset = np.abs(plane.inside_cage + 6.0)
    ring = offset < 8
    thickness = bone_mm[ANGLE_INDEX[ring]]
    cartilage = cartilage_mm[ANGLE_INDEX[ring]]
    near = offset[ring]
    values = plane.hu[ring]
    values += edge(cartilage - near, 1.5) * (95.0 - values)
    values += edge(thickness - near, 1.5) * (620.0 - values)
    values += edge(thickness - 1.9 - near, 1.5) * (170.0 - values)
    plane.hu[ring] = values
    front = -float(plane.cage_radius[len(FROM_BACK) // 4])
    width = float(np.interp(depth, [18, 26, 60, 70, 170, 205], [0, 34, 26, 15, 19, 0]))
    if width > 1:
        plane.ellipse(0.0, front - 6, width, 7.0, 420.0, stiff=True)
        plane.ellipse(0.0, front - 6, width - 1.8, 5.2, 130.0, stiff=True)
    for side in (-1, 1):
        if 4 < depth < 128:
            taper = float(np.interp(depth, [4, 20, 60, 128], [16, 44, 40, 8]))
            x, y = side * (104 + taper * 0.3), 66.0 - depth * 0.05
            plane.ellipse(x, y, taper, 3.6, 480.0, turn=side * -0.72, stiff=True)
            plane.ellipse(x, y, taper - 2, 1.6, 240.0, turn=side * -0.72, stiff=True)
    paint_spine(plane.ellipse, depth)


@dataclass(frozen=True, slots=True)
class _Tube:
    """A vessel or airway that runs downward, so that each slice meets it once."""

    points: tuple[tuple[float, float, float], ...]
    radius_mm: float
    hu: float
    wall_mm: float = 0.0


_STRAIGHT_TUBES = (
    _Tube(((-2, -2, 0), (0, 2, 40), (-2, 6, 84)), 8.6, -990.0, 1.6),  # trachea
    _Tube(((-14, -26, 62), (-16, -34, 90), (-4, -32, 128)), 15.0, AORTA_HU),  # ascending aorta
    _Tube(((24, 22, 62), (25, 26, 150), (16, 22, 230), (7, 13, 280), (5, 13, 400)), 11.5, AORTA_HU),
    _Tube(((-30, -24, 30), (-32, -26, 125)), 9.0, 190.0),  # superior vena cava
    _Tube(((-26, 2, 200), (-24, 12, 260), (-20, 16, 400)), 11.5, 128.0),  # inferior vena cava
    _Tube(((12, -18, 0), (8, -22, 56)), 4.5, AORTA_HU),  # left common carotid
    _Tube(((-16, -20, 0), (-8, -26, 56)), 5.5, AORTA_HU),  # brachiocephalic trunk
    _Tube(((32, -4, 0), (22, -2, 56)), 4.5, AORTA_HU),  # left subclavian
    _Tube(((-27, -26, 0), (-29, -25, 32)), 6.5, 170.0),  # right brachiocephalic vein
    _Tube(((-6, 31, 60), (-5, 32, 230)), 2.6, 120.0),  # azygos vein
)


def great_vessels() -> list[Sphere]:
    """Return the tubes that do not run straight down, as rows of balls."""
    paths: list[tuple[list[tuple[float, float, float]], float, float]] = [
        ([(-14, -26, 64), (0, -14, 57), (14, 4, 57), (24, 22, 66)], 12.5, AORTA_HU),
        ([(24, -46, 132), (22, -40, 104), (22, -28, 96)], 14.5, 150.0),
        ([(22, -28, 98), (-4, -8, 101), (-40, 0, 106)], 10.0, 150.0),
        ([(22, -28, 96), (38, -4, 92), (48, 10, 98)], 10.0, 150.0),
        ([(-2, 6, 82), (-24, 10, 100), (-42, 12, 116)], 8.4, 45.0),
        ([(-2, 6, 82), (22, 10, 104), (44, 14, 122)], 7.6, 45.0),
        ([(-2, 6, 82), (-24, 10, 100), (-44, 12, 117)], 6.6, -985.0),
        ([(-2, 6, 82), (22, 10, 104), (46, 14, 123)], 5.8, -985.0),
        ([(30, -34, 22), (0, -38, 32), (-24, -28, 40)], 6.0, 175.0),
        ([(-24, -72, 20), (-70, -62, 8), (-120, -34, 2)], 6.0, 520.0),
        ([(24, -72, 20), (70, -62, 8), (120, -34, 2)], 6.0, 520.0),
    ]
    spheres = []
    for points, radius, hu in paths:
        for start, end in itertools.pairwise(points):
            count = max(2, int(np.linalg.norm(np.subtract(end, start)) / 1.6))
            for share in np.linspace(0, 1, count):
                x, y, depth = (a + (b - a) * float(share) for a, b in zip(start, end, strict=True))
                spheres.append(Sphere(x, y, depth, radius, hu))
    return spheres


def diaphragm_domes() -> tuple[Plane, Plane]:
    """Return the depth of the right and left half of the diaphragm at each place."""
    domes = []
    for x, top in ((-68.0, 190.0), (70.0, 202.0)):
        across, along = (AXIS_MM[None, :] - x) / 66, (AXIS_MM[:, None] + 6) / 80
        fall = (across**2 + along**2) ** 1.2 * 46 + np.maximum(AXIS_MM[:, None], 0) * 0.5
        domes.append((top + fall).astype(np.float32))
    return domes[0], domes[1]
