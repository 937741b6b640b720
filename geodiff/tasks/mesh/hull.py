# SPDX-License-Identifier: Apache-2.0
"""The visual hull: the largest solid that has the silhouettes of the images, as a mesh."""

import math
from typing import Any

import torch

from geodiff.modes import outside_autocast
from geodiff.scene.files import PosedImages
from geodiff.scene.isosurface import isosurface
from geodiff.scene.mesh import Mesh
from geodiff.tasks.mesh.carving import Carver
from geodiff.tasks.mesh.start import object_frame, posed_images
from geodiff.validation import fail, integer, number, warn

_WHERE = "visual_hull"
_START = 1.5  # half the cube that is carved, in the silhouettes' largest half
_CELL = 0.5  # of a pixel at the object
_MOST = 160  # cells along the longest side, unless told
_SLACK = (0.25, 0.1)  # pixels, of masks that are 0 or 1 and of anti-aliased ones
_SPECK = 8.0  # pixels³: smaller pieces are what noise left


@outside_autocast
def visual_hull(images: Any, cameras: Any = None, resolution: int | None = None, *, slack: float | None = None) -> Mesh:
    posed = posed_images(images, cameras, _WHERE)
    return hull_of(posed, resolution, slack, _WHERE)


def hull_of(posed: PosedImages, resolution: int | None, slack: float | None, where: str) -> Mesh:
    centre, unit = object_frame(posed)
    carver = Carver(posed.alpha, posed.cameras)
    if slack is None:
        soft = ((posed.alpha > 0.02) & (posed.alpha < 0.98)).any()
        slack = _SLACK[int(soft)]
    pixel = unit * 2 / min(posed.image_size)
    half = _START * reach(posed) * pixel
    found = carver.box(centre, half)
    if found is None:
        raise fail(where, "images", "silhouettes of one object", "an empty hull")
    box, cut = found
    if cut.any():
        warn("unknown " + str(cut.tolist()))
    size = float((box[1] - box[0]).max())
    cell = size / resolution if resolution is not None else max(_CELL * pixel, size / _MOST)
    low = box[0] - cell
    shape = tuple(int(n) for n in torch.ceil((box[1] - box[0]) / cell).long() + 3)
    values = carver.grid(low, cell, shape)
    high = low + cell * (low.new_tensor(shape) - 1)
    mesh = isosurface(values, -slack, bounds=torch.stack((low, high)), inside="above")
    return mesh


def reach(posed: PosedImages) -> float:
    """Return the largest half of the silhouettes' boxes, in pixels."""
    filled = posed.alpha >= 0.5
    most = 0.0
    for rows, columns in zip(filled.any(-1), filled.any(-2), strict=True):
        y, x = rows.nonzero(), columns.nonzero()
        if len(y):
            most = max(most, 0.5 * math.hypot(float(y[-1] - y[0]) + 1, float(x[-1] - x[0]) + 1))
    return most
