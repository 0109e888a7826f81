"""A generated trunk for CT: the person, what is true of them, and their slices.

Axes are those of the patient (PS3.3 §C.7.6.2.1.1): x to the left, y to the back. The depth of a
slice is its distance in millimetres below the topmost one, at the first thoracic vertebra.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from bfr_command.demo.abdomen import LIVER_HU, paint_abdomen, place_bowel
from bfr_command.demo.canvas import AIR_HU, AXIS_MM, Painter, Plane, detected, texture_at, textures
from bfr_command.demo.chest import (
    AORTA_HU,
    LUNG_HU,
    NODULE_CENTRE_MM,
    NODULE_HU,
    diaphragm_domes,
    great_vessels,
    paint_bones,
    paint_lungs,
    paint_mediastinum,
    paint_wall,
)
from bfr_command.demo.vessels import draw_branches, liver_branches, lung_branches

# Tissue of even brightness at known places: (x, y, depth) in millimetres and Hounsfield units.
KNOWN_TISSUE = {
    "aorta": ((25.0, 26.0, 150.0), AORTA_HU),
    "liver": ((-100.0, 20.0, 250.0), LIVER_HU),
    "lung": ((-56.0, -22.0, 124.0), LUNG_HU),
    "nodule": (NODULE_CENTRE_MM, NODULE_HU),
    "air": ((0.0, -180.0, 150.0), AIR_HU),
}


@dataclass(frozen=True, slots=True)
class Trunk:
    """One person's chest and upper abdomen as it was at one examination."""

    seed: int  # of the person
    examination: int  # every examination has noise of its own
    nodule_diameter_mm: float


def trunk_slices(trunk: Trunk, depths_mm: Sequence[float]) -> Iterator[Plane]:
    """Yield one plane of Hounsfield units, 512 by 512, for each depth below the top slice."""
    depths = np.asarray(depths_mm, np.float32)
    spacing_mm = float(depths[1] - depths[0]) if len(depths) > 1 else 2.0
    random = np.random.default_rng(trunk.seed)
    branches = np.concatenate([lung_branches(random), liver_branches(random)])
    vessels = draw_branches(branches, AXIS_MM, depths, spacing_mm)
    planes = textures(random)
    domes = diaphragm_domes()
    spheres = great_vessels()
    bowel = place_bowel(random)
    for index, depth in enumerate(depths):
        plane = Painter(float(depth))
        texture = texture_at(planes, float(depth))
        paint_wall(plane, texture)
        paint_lungs(plane, domes, vessels[index], texture, trunk.nodule_diameter_mm)
        paint_abdomen(plane, domes, vessels[index], texture, bowel)
        paint_mediastinum(plane, spheres)
        paint_bones(plane)
        yield detected(plane.hu, np.random.default_rng((trunk.examination, index)))
