# SPDX-License-Identifier: Apache-2.0
"""Noise that charts have left in their points, taken out along the normals and not across edges."""

import torch
from scipy.spatial import cKDTree

from geodiff.atlas.cover import Cover
from geodiff.atlas.nearest import nearest

TURN = 0.07  # difference of unit normals up to which points are on one smooth piece
NEIGHBOURS = 64
ROUNDS = 3
_FEWEST = 3
_SPREAD = 2.0  # of the squared distance over that of the farthest neighbour, in the exponent
_BLOCK = 1 << 13


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
    found = nearest(cKDTree(x.numpy()), x.numpy(), range(2, k + 2))
    near = torch.from_numpy(found[1].astype("int32"))
    reach = torch.from_numpy(found[0][:, -1:].copy())
    del found
    width = sigma.double().clamp(min=1e-300)[:, None]
    for _ in range(ROUNDS):
        parts = [
            _moved(x, n, rows, near[rows].long(), reach[rows], width[rows])
            for rows in torch.arange(len(x)).split(_BLOCK)
        ]
        x, n = (torch.cat(part) for part in zip(*parts, strict=True))
    return torch.where((sigma > 0)[:, None], x.to(points), points)


def _moved(x: torch.Tensor, n: torch.Tensor, rows: torch.Tensor, near: torch.Tensor, reach: torch.Tensor,
           width: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:  # fmt: skip
    own, other, step = n[rows, None], n[near], x[near] - x[rows, None]
    other = torch.where((own * other).sum(2, keepdim=True) < 0, -other, other)
    height = (step * (own + other)).sum(2) / 2
    apart = step.square().sum(2) / reach.square().clamp(min=1e-300) * _SPREAD
    weight = torch.exp(-apart - (own - other).square().sum(2) / (2 * TURN**2) - (height / width).square())
    total = 1 + weight.sum(1, keepdim=True)
    mean = n[rows] + (weight[:, :, None] * other).sum(1)
    x = x[rows] + (weight * height).sum(1, keepdim=True) / total * n[rows]
    return x, torch.nn.functional.normalize(mean, dim=1, eps=1e-30)
