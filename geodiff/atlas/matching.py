# SPDX-License-Identifier: Apache-2.0
"""Give each point of a patch its place in the square: by projection, or by optimal transport."""

import functools
from typing import NamedTuple, cast

import numpy as np
import torch
from scipy.spatial import cKDTree

from geodiff.atlas.ragged import Ragged
from geodiff.modes import lasting
from geodiff.transport.assignment import Assignment, assign
from geodiff.transport.sinkhorn import SinkhornResult, sinkhorn
from geodiff.validation import shapes_repr

MATCHINGS = ("hybrid", "projection", "exact", "sinkhorn")
LLOYD_ROUNDS = 20
LLOYD_SIDE = 64  # of the grid on which Lloyd's cells are measured
EPSILON = 2e-3  # of Sinkhorn, in squared patch radii
FOLDED = 0.1  # share of members whose normal turns away from the patch's


def project(local: torch.Tensor) -> torch.Tensor:
    """Places (M, 2) of points (M, 3) in local coordinates, straight down to the principal plane."""
    return ((local[:, :2] + 1) / 2).clamp(0, 1)


@functools.lru_cache(maxsize=512)
def lloyd(count: int) -> torch.Tensor:
    """Places (count, 2) spread evenly over the unit square.

    Lloyd's algorithm ("Least squares quantization in PCM", 1982) on a grid of 64 × 64, from the points of the R2
    sequence (Roberts, 2018). The same for every seed.
    """
    plastic = 1.32471795724474602596
    start = np.arange(1, count + 1)[:, None] * np.array([1 / plastic, 1 / plastic**2])
    sites = (start + 0.5) % 1
    axis = (np.arange(LLOYD_SIDE) + 0.5) / LLOYD_SIDE
    grid = np.stack(np.meshgrid(axis, axis, indexing="ij"), -1).reshape(-1, 2)
    for _ in range(LLOYD_ROUNDS):
        cell = cKDTree(sites).query(grid)[1]
        size = np.bincount(cell, minlength=count)
        sums = np.stack([np.bincount(cell, grid[:, k], count) for k in range(2)], 1)
        sites = np.where(size[:, None] > 0, sums / np.maximum(size, 1)[:, None], sites)
    with lasting():
        return torch.from_numpy(sites).float()


def folded(normals: torch.Tensor, chart: torch.Tensor, axis: torch.Tensor) -> torch.Tensor:
    """Whether patches (Q,) fold over in their principal plane, so that projection would mix their points.

    Args:
        normals: (M, 3) of the members, of either side.
        chart: (M,).
        axis: (Q, 3), across the planes.
    """
    # Where a surface turns upright, less than a quarter of its normal is left along the axis.
    steep = ((normals * axis[chart]).sum(1).abs() < 0.25).to(normals)
    count = torch.bincount(chart, minlength=len(axis)).clamp(min=1).to(normals)
    return normals.new_zeros(len(axis)).index_add(0, chart, steep) / count > FOLDED


class Match(NamedTuple):
    """A matching of points with places.

    Attributes:
        uv: (M, 2), a place for each point: none goes without.
        soft: of each block, the target (G, S, 3) of each place, the mean of all points weighted by the plan: squared
            distances to these have the gradient of the transport cost. None for exact matchings, where the target of a
            place is the one point that has it.
        potentials: of each block, to start the next matching from.
    """

    def __repr__(self) -> str:
        return shapes_repr(self)

    uv: torch.Tensor
    soft: list[torch.Tensor] | None
    potentials: list[SinkhornResult] | None


def match(
    points: torch.Tensor, images: list[torch.Tensor], layout: Ragged, method: str, before: Match | None = None
) -> Match:
    """Match the points of patches with as many places each.

    Args:
        points: (M, 3) in local coordinates.
        images: of each block of the layout, where the charts map the `places(layout)`, (G, S, 3); rows that repeat
            others are ignored.
        layout: which rows belong to which chart.
        method: ``"exact"``: each place goes to one point, at the least sum of squared distances; ``"sinkhorn"``: the
            entropic plan of ε = 0.002 (squared patch radii); a point's place is the mean of all, weighted by the plan.
        before: an earlier matching of the same points, whose potentials the solver starts from.
    """
    spread = places(layout)
    uv, soft, potentials = [], [], []
    for i, (block, image, place) in enumerate(zip(layout.blocks, images, spread, strict=True)):
        x = points[block.slots]
        if method == "sinkhorn":
            start = before.potentials[i] if before is not None and before.potentials else None
            ot = sinkhorn(x, image, epsilon=EPSILON, mask_x=block.mask, mask_y=block.mask, tolerance=1e-3, start=start)
            plan = ot.plan()
            uv.append(plan @ place / plan.sum(2, keepdim=True).clamp(min=1e-30))
            soft.append(plan.mT @ x / plan.sum(1)[:, :, None].clamp(min=1e-30))
            potentials.append(ot)
            continue
        sizes = block.mask.sum(1).tolist()
        pairs = assign([x[g, :s] for g, s in enumerate(sizes)], [image[g, :s] for g, s in enumerate(sizes)])
        own = torch.zeros_like(place)
        for g, pair in enumerate(cast(list[Assignment], pairs)):
            own[g, pair.rows] = place[g, pair.columns]
        uv.append(own)
    return Match(layout.join(uv), soft or None, potentials or None)


def places(layout: Ragged) -> list[torch.Tensor]:
    """Lloyd places (G, S, 2) of each block, as many for a chart as it has points, then repeats of the last."""
    result = []
    for block in layout.blocks:
        width = block.slots.shape[1]
        sizes = block.mask.sum(1).tolist()
        spread = [lloyd(s) for s in sizes]
        result.append(torch.stack([torch.cat([p, p[-1:].expand(width - len(p), 2)]) for p in spread]))
    return result
