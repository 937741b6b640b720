# SPDX-License-Identifier: Apache-2.0
"""Atlases whose answer is known: planes as charts, placed by hand, and points of simple surfaces."""

import math

import torch

from geodiff.atlas.atlas import Atlas
from geodiff.atlas.charts import Charts, Placement


def sphere(count: int, seed: int = 0) -> torch.Tensor:
    """Random points of the unit sphere."""
    return torch.nn.functional.normalize(torch.randn(count, 3, generator=_generator(seed), dtype=torch.float64), dim=1)


def torus(count: int, seed: int = 0, major: float = 1.0, minor: float = 0.35) -> torch.Tensor:
    """Random points of a torus about z, uniform in area."""
    generator = _generator(seed)
    angle, tube, dice = torch.rand(3, 4 * count, generator=generator, dtype=torch.float64)
    tube = 2 * math.pi * tube
    keep = (dice < (major + minor * tube.cos()) / (major + minor)).nonzero()[:count, 0]
    angle, tube = 2 * math.pi * angle[keep], tube[keep]
    ring = major + minor * tube.cos()
    return torch.stack((ring * angle.cos(), ring * angle.sin(), minor * tube.sin()), 1)


def plane(count: int, seed: int = 0, height: float = 0.0) -> torch.Tensor:
    """Random points of the square [0, 1]² at a height."""
    flat = torch.rand(count, 2, generator=_generator(seed), dtype=torch.float64)
    return torch.cat((flat, torch.full((count, 1), height, dtype=torch.float64)), 1)


def flat_atlas(
    points: torch.Tensor,
    centers: torch.Tensor,
    radius: float,
    *,
    sheet: torch.Tensor | None = None,
    center_sheet: torch.Tensor | None = None,
    noise: float = 0.0,
    flip: bool = True,
    normals: torch.Tensor | None = None,
    dtype: torch.dtype = torch.float64,
) -> Atlas:
    """An atlas whose charts are the principal planes of balls: exact on planes, off by radius² on round shapes.

    Every other chart is turned over (`flip`), so that orientation has work to do.
    """
    near = torch.cdist(points, centers) <= radius
    if sheet is not None and center_sheet is not None:
        near &= sheet[:, None] == center_sheet[None]
    chart, point = near.T.nonzero().unbind(1)
    place = Placement.of(points[point], chart, len(centers))
    count = len(centers)
    linear = torch.zeros(count, 2, 3, dtype=dtype)
    linear[:, 0, 0] = linear[:, 1, 1] = 1
    if flip:
        linear[1::2, 0, 0] = -1
    zero = torch.zeros(count, 3, dtype=dtype)
    charts = Charts(
        (torch.zeros(count, 2, 3, dtype=dtype),), (zero,), linear, zero, place.center.to(dtype),
        place.rotation.to(dtype), place.scale.to(dtype),
    )  # fmt: skip
    local = place.into(points[point], chart, dtype)[:, :2]
    uv = (local * torch.stack((linear[chart, 0, 0], linear[chart, 1, 1]), 1) + 1) / 2
    inside = (points[point] - centers[chart]).norm(dim=1) <= 0.75 * radius
    return Atlas.of(charts, points.to(dtype), chart, point, uv, inside=inside, noise=noise, normals=normals)


def _generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)
