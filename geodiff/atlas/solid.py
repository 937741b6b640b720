# SPDX-License-Identifier: Apache-2.0
"""A closed mesh through oriented points without Poisson's equation: closed by construction, whatever the points."""

import numpy as np
import torch
from scipy.ndimage import map_coordinates
from scipy.spatial import cKDTree

from geodiff.atlas.winding import WindingTree
from geodiff.scene.isosurface import isosurface

_FINEST = 8  # the grid is dense
_COARSE = 40  # cells of the grid on which the winding number is found away from the points
_BAND = 3.0  # cells from a point up to which the distance to the planes of points holds
_THICK = 1.8  # cells from those planes up to which it does: above √3, a sheet alone becomes a plate without gaps
_NEAREST = 8  # points whose planes are averaged
_MARGIN = 0.05  # of the extent, around the points
_LIGHT = 1e-9  # area of a place without a point, against the mean of the points


def solid_mesh(places: np.ndarray, normals: np.ndarray, depth: int) -> tuple[np.ndarray, np.ndarray]:
    """Return vertices and faces of the border of what points enclose.

    Next to points the field is the distance to the planes of the points around, in Gaussian weights, as moving least
    squares have it; its sign elsewhere is that of ½ minus the winding number of the points. Holes are closed by the
    surface on which the winding number is ½; a sheet that encloses nothing becomes a plate of two cells.

    Args:
        places: (N, 3) in [0, 1]³.
        normals: (N, 3), unit, outwards.
        depth: the grid has 2^depth cells along the longest side; at most 8.
    """
    tree = cKDTree(places)
    k = min(9, len(places))
    far = tree.query(places, k=[k])[0][:, 0]
    area = np.pi * far**2 / max(k - 1, 1)
    area = np.maximum(area, 1e-6 * max(area.mean(), 1e-30))
    spacing = float(np.sqrt(np.median(area)))
    low, high = places.min(0), places.max(0)
    # A cell not below the spacing: below it, between two points there is a place near neither.
    cell = max(float((high - low).max()) * (1 + 2 * _MARGIN) / 2 ** min(depth, _FINEST), spacing)
    margin = max(_MARGIN * float((high - low).max()), 3 * cell)
    low, high = low - margin, high + margin
    shape = np.ceil((high - low) / cell).astype(int) + 1

    near = _near(places, low, cell, shape)
    nodes = low + near * cell
    gap, around = tree.query(nodes, k=min(_NEAREST, len(places)), workers=-1)
    gap, around = gap.reshape(len(nodes), -1), around.reshape(len(nodes), -1)
    weight = np.exp(-((gap**2 - gap[:, :1] ** 2) / (2 * max(spacing, 0.5 * cell) ** 2)))
    height = ((nodes[:, None] - places[around]) * normals[around]).sum(2)
    height = (weight * height).sum(1) / weight.sum(1)
    known = (np.abs(height) <= _THICK * cell) & (gap[:, 0] <= _BAND * cell)

    # The winding number is for the places of which the planes tell nothing: beside the sheets, and on a coarse grid.
    step = max(1.0, float(shape.max()) / _COARSE)
    coarse = np.ceil((shape - 1) / step).astype(int) + 1
    rows = np.stack(np.meshgrid(*(np.arange(n) for n in coarse), indexing="ij"), -1).reshape(-1, 3)
    asked = np.concatenate([low + rows * step * cell, nodes[~known]])
    winding = _winding(places, normals, area, asked, max(spacing, 0.5 * cell))
    wide = winding[: len(rows)].reshape(coarse)
    field = height
    field[~known] = np.copysign(cell, 0.5 - winding[len(rows) :])
    values = np.empty(shape, np.float32)
    grid = np.stack(np.meshgrid(np.arange(shape[1]), np.arange(shape[2]), indexing="ij")) / step
    for i in range(shape[0]):  # a slice at a time, to save memory
        at = np.concatenate([np.full((1, *grid.shape[1:]), i / step), grid])
        values[i] = np.copysign(cell, 0.5 - map_coordinates(wide, at, order=1, mode="nearest"))
    values[tuple(near.T)] = field
    mesh = isosurface(torch.from_numpy(values), bounds=torch.from_numpy(np.stack([low, low + (shape - 1) * cell])))
    return mesh.vertices.double().numpy(), mesh.faces.numpy()


def _near(places: np.ndarray, low: np.ndarray, cell: float, shape: np.ndarray) -> np.ndarray:
    """Return the nodes (M, 3) of the grid that are within `_BAND` + 1 cells of a point along each axis."""
    reach = int(_BAND) + 1
    there = np.zeros(shape, dtype=bool)
    there[tuple(np.clip(np.rint((places - low) / cell).astype(int), 0, shape - 1).T)] = True
    for axis in range(3):
        wider = there.copy()
        for step in range(1, reach + 1):
            one = [slice(None)] * 3
            other = [slice(None)] * 3
            one[axis], other[axis] = slice(step, None), slice(None, -step)
            wider[tuple(one)] |= there[tuple(other)]
            wider[tuple(other)] |= there[tuple(one)]
        there = wider
    return np.argwhere(there)


def _winding(places: np.ndarray, normals: np.ndarray, area: np.ndarray, at: np.ndarray, width: float) -> np.ndarray:
    """Return the winding number of oriented points at other places: points of the tree, too, but without area."""
    both = np.concatenate([places, at]) - 0.5
    light = np.full(len(at), _LIGHT * area.mean())
    tree = WindingTree(torch.from_numpy(both).float(), torch.from_numpy(np.concatenate([area, light])).float())
    source = np.concatenate([normals * area[:, None], np.zeros_like(at)])
    return tree.field(torch.from_numpy(source).float(), width)[len(places) :].double().numpy()
