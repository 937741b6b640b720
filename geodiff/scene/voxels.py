# SPDX-License-Identifier: Apache-2.0
"""Which cells of a grid have their centre inside a mesh, by winding numbers along z."""

from typing import Any

import numpy as np
import torch

from geodiff.modes import outside_autocast, refuse_torch_func
from geodiff.scene.mesh import Mesh
from geodiff.scene.topology import Topology
from geodiff.validation import as_tensor, describe, fail, integer

_WHERE = "voxelized"
_MOST = 1 << 22  # pairs of a face and a column that are looked at together


@outside_autocast
def voxelized(mesh: Mesh, resolution: int = 32, *, bounds: Any = None) -> torch.Tensor:
    """Return which cells of a grid have their centre inside a closed mesh.

    A centre is inside where its winding number is not 0: parts that overlap are united, and a part turned inside out
    within another is a cavity. Exact up to rounding: a centre straight below an edge or a corner counts once.

    Args:
        mesh: closed, consistently oriented, (..., V, 3).
        resolution: N cells along each side, ≥ 1.
        bounds: the lowest and the highest corner of the grid, (2, 3); left out, the cube [−1, 1]³.

    Returns:
        (..., N, N, N) boolean, ``[i, j, k]`` at the i-th x, j-th y and k-th z, computed on the CPU.

    Gradients: none.

    Raises:
        TypeError: something else than a mesh.
        ValueError: a mesh that is not closed, or whose faces are not all turned the same way; bounds that are no box.

    Example:
        >>> import geodiff as gd
        >>> gd.box(1.0).voxelized(4).sum()  # half as wide as the grid: 2³ cells
        tensor(8)
    """
    if not isinstance(mesh, Mesh):
        raise fail(_WHERE, "mesh", "a Mesh", describe(mesh), error=TypeError)
    refuse_torch_func(_WHERE, mesh.vertices)
    count = integer(_WHERE, "resolution", resolution, 1)
    if not mesh.is_closed:
        got = f"one with {len(mesh.boundary_edges)} boundary edges" if mesh.num_faces else "one without faces"
        raise fail(_WHERE, "mesh", "closed", got, "A surface with a border has no inside.")
    low, high = _box(bounds)
    axes = [a + (b - a) * (np.arange(count) + 0.5) / count for a, b in zip(low, high, strict=True)]
    vertices = mesh.vertices.detach().to("cpu", torch.float64).numpy()
    topology = mesh.topology
    rows = [_inside(item, topology, axes) for item in vertices.reshape(-1, *vertices.shape[-2:])]
    inside = np.stack(rows) if rows else np.zeros((0, count, count, count), dtype=bool)
    return torch.from_numpy(inside).reshape(*mesh.batch_shape, count, count, count).to(mesh.device)


def _box(bounds: Any) -> tuple[np.ndarray, np.ndarray]:
    if bounds is None:
        return -np.ones(3), np.ones(3)
    box = as_tensor(_WHERE, "bounds", bounds).detach().to("cpu", torch.float64).numpy()
    if box.shape != (2, 3) or not (np.isfinite(box).all() and (box[0] < box[1]).all()):
        raise fail(_WHERE, "bounds", "the lowest and the highest corner of a box, (2, 3)", bounds)
    return box[0], box[1]


def _inside(vertices: np.ndarray, topology: Topology, axes: list[np.ndarray]) -> np.ndarray:
    faces, (x, y, z) = topology.faces.cpu().numpy(), axes
    if not np.isfinite(vertices[faces]).all():
        raise fail(_WHERE, "mesh", "of finite vertices", "NaN or infinity")
    # Where each edge crosses each row of centres: computed once for both of its faces, so that they agree to the bit.
    corners = np.stack([faces, np.roll(faces, -1, 1)], 2)
    a, b = vertices[corners.min(2)], vertices[corners.max(2)]
    upwards = np.sign(vertices[corners[..., 1], 1] - vertices[corners[..., 0], 1]).astype(np.int8)
    step = max(1, _MOST // (len(x) * len(y)))
    # From above down to each centre: how often the surface is entered less how often it is left.
    steps = np.zeros((len(x), len(y), len(z) + 1), dtype=np.int64)
    for first in range(0, len(faces), step):
        part = slice(first, first + step)
        face, column, row, winding = _columns(a[part], b[part], upwards[part], x, y)
        below = np.searchsorted(z, _height(vertices[faces[part][face]], x[column], y[row]))
        np.add.at(steps, (column, row, below), winding)
    if steps.sum(2).any():
        raise fail(_WHERE, "mesh", "of faces that are all turned the same way", "one where some are not")
    return np.asarray(steps[..., :0:-1].cumsum(2)[..., ::-1] != 0)


def _columns(
    a: np.ndarray, b: np.ndarray, upwards: np.ndarray, x: np.ndarray, y: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return face, column, row and winding number of the centres (x, y) that faces lie above or below of.

    Args:
        a: (F, 3, 3), of each side of a face the end with the lower index.
        b: the other end.
        upwards: (F, 3), whether the face's side runs towards larger y: 1, or −1, or 0.
        x: (N,) of the centres.
        y: (N,).
    """
    lower, upper = np.minimum(a[..., 1], b[..., 1])[..., None], np.maximum(a[..., 1], b[..., 1])[..., None]
    rise = b[..., 1] - a[..., 1]
    slope = (b[..., 0] - a[..., 0]) / np.where(rise == 0, 1, rise)
    across = a[..., 0, None] + slope[..., None] * (y - a[..., 1, None])
    across = np.where((lower <= y) & (y < upper), across, -np.inf)
    winding = ((across[:, :, None] > x[:, None]) * upwards[:, :, None, None]).sum(1, dtype=np.int8)
    face, column, row = winding.nonzero()
    return face, column, row, winding[face, column, row]


def _height(corners: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Return z of the planes of triangles (K, 3, 3) at x and y, within the triangles' own range."""
    origin = corners[:, 0]
    normal = np.cross(corners[:, 1] - origin, corners[:, 2] - origin)
    tilt = normal[:, 0] * (x - origin[:, 0]) + normal[:, 1] * (y - origin[:, 1])
    with np.errstate(divide="ignore", invalid="ignore"):
        z = np.where(normal[:, 2] == 0, origin[:, 2], origin[:, 2] - tilt / normal[:, 2])
    return np.clip(z, corners[..., 2].min(1), corners[..., 2].max(1))
