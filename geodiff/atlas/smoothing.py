# SPDX-License-Identifier: Apache-2.0
"""Noise that charts have left in their points, taken out along the normals and not across edges."""

import numpy as np
import torch
from scipy.spatial import cKDTree

from geodiff.atlas.cover import Cover
from geodiff.atlas.nearest import along_curve
from geodiff.ops import _op

TURN = 0.07  # difference of unit normals up to which points are on one smooth piece
NEIGHBOURS = 64
ROUNDS = 3
_FEWEST = 3
_SPREAD = 2.0  # of the squared distance over that of the farthest neighbour, in the exponent
_LEAF = 32  # of a tree that is asked for many neighbours
_BLOCK = 1 << 16
_ROW = 8  # kSmoothRow of the kernel


def smoothed(
    mean: torch.Tensor, facing: torch.Tensor, trust: torch.Tensor, cover: Cover, sigma: torch.Tensor
) -> torch.Tensor:
    """Return the mean of the charts (N, 3) at each point of a cover, smoothed along the charts' normals.

    Args:
        mean: (N, 3).
        facing: (M, 3), unit normals of the charts at their members, of either side.
        trust: (M,) > 0, the say of charts.
        cover: the patches.
        sigma: (N,), noise about each point.
    """
    n = facing.double()
    away = (n * cover.normals[cover.point].double()).sum(1, keepdim=True) < 0
    n = torch.where(away, -n, n) * trust[:, None]
    normals = torch.zeros(len(mean), 3, dtype=torch.float64).index_add(0, cover.point, n)
    return along_normals(mean, torch.nn.functional.normalize(normals, dim=1, eps=1e-30), sigma)


def along_normals(points: torch.Tensor, normals: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
    """Move points along their normals to where their neighbours have the surface.

    Between two points of a circle, the step is across the sum of their normals. So the height `(x_j − x_i)·(n_i +
    n_j)/2` is free of curvature, and its mean over the neighbours is noise; a plane through them would draw the surface
    inwards. Neighbours count less the farther they are, the more their normals differ (edges, bends), and if they are
    more than σ off (the other side of a wall). Normals are averaged with the same weights.

    Args:
        points: (N, 3).
        normals: (N, 3), unit, of either side.
        sigma: (N,) of the noise; where it is 0 nothing moves.

    Gradients: none.

    Example:
        >>> import torch
        >>> ball = torch.nn.functional.normalize(torch.randn(2000, 3, generator=torch.manual_seed(0)), dim=1)
        >>> rough = ball * (1 + 0.01 * torch.randn(2000, 1))
        >>> smooth = along_normals(rough, ball, torch.full((2000,), 0.01))
        >>> bool((smooth.norm(dim=1) - 1).abs().mean() < 0.6 * (rough.norm(dim=1) - 1).abs().mean())
        True
    """
    x, n = points.detach().double(), normals.detach().double()
    k = min(NEIGHBOURS, len(x) - 1)
    if k < _FEWEST:
        return points
    order = torch.from_numpy(along_curve(x.numpy()))
    now = torch.zeros(len(x), _ROW, dtype=torch.float64)
    now[:, :3], now[:, 3:6] = x[order], n[order]
    near, reach = _neighbours(now[:, :3].numpy(), k)
    width = sigma.double().clamp(min=1e-300)[order]
    moved = torch.zeros_like(now)
    for _ in range(ROUNDS):
        _op.call(
            _op.kernels.smooth_along_normals, points=now, near=near, reach=reach, width=width, spread=_SPREAD,
            turn=1 / (2 * TURN**2), out=moved,
        )  # fmt: skip
        now, moved = moved, now
    result = torch.empty_like(x)
    result[order] = now[:, :3]
    return torch.where((sigma > 0)[:, None], result.to(points), points)


def _neighbours(places: np.ndarray, k: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the k nearest others (N, k) int32 of places (N, 3) in an order that caches like, and the last's distance.

    A block at a time: what a tree returns takes four times as much as what is kept.
    """
    tree = cKDTree(places, leafsize=_LEAF)
    near = np.empty((len(places), k), np.int32)
    reach = np.empty(len(places))
    for first in range(0, len(places), _BLOCK):
        rows = slice(first, first + _BLOCK)
        distance, index = tree.query(places[rows], k=range(2, k + 2), workers=-1)
        near[rows], reach[rows] = index, distance[:, -1]
    return torch.from_numpy(near), torch.from_numpy(reach)
