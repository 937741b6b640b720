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
from geodiff.transport.plan import LazyPlan
from geodiff.transport.sinkhorn import sinkhorn
from geodiff.validation import shapes_repr

Potentials = tuple[torch.Tensor, torch.Tensor]  # (f, g) of entropic transport
MATCHINGS = ("hybrid", "projection", "exact", "sinkhorn")
LLOYD_ROUNDS = 20
LLOYD_SIDE = 64  # of the grid on which Lloyd's cells are measured
FEW_SITES = 200  # of which all distances are found sooner than by a tree
EPSILON = 2e-3  # of Sinkhorn, in squared patch radii
MARGINALS = 1e-3  # its tolerance
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
        cell = _nearest_sites(sites, axis)
        size = np.bincount(cell, minlength=count)
        sums = np.stack([np.bincount(cell, grid[:, k], count) for k in range(2)], 1)
        sites = np.where(size[:, None] > 0, sums / np.maximum(size, 1)[:, None], sites)
    with lasting():
        return torch.from_numpy(sites).float()


def _nearest_sites(sites: np.ndarray, axis: np.ndarray) -> np.ndarray:
    """Return which of the sites (S, 2) is nearest to each place (A²,) of the grid with these coordinates (A,)."""
    if len(sites) > FEW_SITES:
        return np.asarray(cKDTree(sites).query(np.stack(np.meshgrid(axis, axis, indexing="ij"), -1).reshape(-1, 2))[1])
    x, y = ((axis[:, None] - sites[:, k]) ** 2 for k in range(2))
    return np.asarray((x[:, None] + y).argmin(2).reshape(-1))


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


class Plan:
    """The transport plan between the points and the places of some charts: G of S each, all of the same weight.

    A plan moves what points have to places (`to_places`) and what places have to points (`to_points`): of an exact one
    each goes to its one partner, of an entropic one to all, by P. Where `mask` is False, there is neither.

    Args:
        points: (G, S, 3).
        images: where the charts map the places, (G, S, 3).
        mask: (G, S) bool.
        method: ``"exact"``: the least sum of squared distances; ``"sinkhorn"``: with ε times the entropy.
        epsilon: ε, in squared patch radii.
        before: the potentials of an earlier plan of the same points, to start from.

    Attributes:
        potentials: (G, S) each, of an entropic plan.
    """

    def __init__(self, points: torch.Tensor, images: torch.Tensor, mask: torch.Tensor, method: str,
                 epsilon: float = EPSILON, before: "Potentials | None" = None) -> None:  # fmt: skip
        self.potentials: Potentials | None = None
        self._lazy: LazyPlan | None = None
        if method == "sinkhorn":
            # How the rows that repeat others look does not matter, but they must be numbers.
            found = sinkhorn(
                points, images, epsilon=epsilon, mask_x=mask, mask_y=mask, tolerance=MARGINALS, start=before
            )
            self.potentials, self._lazy = (found.f, found.g), found.lazy_plan
            return
        sizes = mask.sum(1).tolist()
        pairs = assign([x[:s] for x, s in zip(points, sizes, strict=True)],
                       [y[:s] for y, s in zip(images, sizes, strict=True)])  # fmt: skip
        self._place = torch.arange(mask.shape[1]).repeat(len(mask), 1)  # of each point
        for own, pair in zip(self._place, cast(list[Assignment], pairs), strict=True):
            own[pair.rows] = pair.columns
        self._point = self._place.argsort(1)

    def to_places(self, values: torch.Tensor) -> torch.Tensor:
        """`Σ_i P_ij values_i` for each place j, P in shares of a place: (G, S, E) from (G, S, E)."""
        if self._lazy is None:
            return torch.take_along_dim(values, self._point[:, :, None], 1)
        return self._shares(self._lazy.T, values)

    def to_points(self, values: torch.Tensor) -> torch.Tensor:
        """`Σ_j P_ij values_j` for each point i, P in shares of a point."""
        if self._lazy is None:
            return torch.take_along_dim(values, self._place[:, :, None], 1)
        return self._shares(self._lazy, values)

    @staticmethod
    def _shares(plan: LazyPlan, values: torch.Tensor) -> torch.Tensor:
        one = torch.ones_like(values[:, :, :1])
        moved = plan @ torch.cat((values, one), 2)
        return moved[:, :, :-1] / moved[:, :, -1:].clamp(min=1e-30)

    def goals(self, points: torch.Tensor, weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return targets (G, S, 3) and weights (G, S) of the places, for points (G, S, 3) with weights (G, S).

        With the plan held, `Σ_ij w_i P_ij |x_i − φ(v_j)|²` and the sum of squared distances of the φ(v_j) from these
        have the same gradient: that of the least cost of transport (envelope theorem), if all w are 1.
        """
        moved = self.to_places(torch.cat((points * weight[:, :, None], weight[:, :, None]), 2))
        share = moved[:, :, 3]
        return moved[:, :, :3] / share[:, :, None].clamp(min=1e-30), share


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
    potentials: "list[Potentials | None] | None"


def match(
    points: torch.Tensor, images: list[torch.Tensor], layout: Ragged, method: str, before: Match | None = None,
    epsilon: float = EPSILON,
) -> Match:  # fmt: skip
    """Match the points of patches with as many places each.

    Args:
        points: (M, 3) in local coordinates.
        images: of each block of the layout, where the charts map the `places(layout)`, (G, S, 3); rows that repeat
            others are ignored.
        layout: which rows belong to which chart.
        method: ``"exact"``: each place goes to one point, at the least sum of squared distances; ``"sinkhorn"``: the
            entropic plan; a point's place is the mean of all, weighted by the plan.
        before: an earlier matching of the same points, whose potentials the solver starts from.
        epsilon: of entropic plans, in squared patch radii.
    """
    uv, soft, potentials = [], [], []
    for i, (block, image, place) in enumerate(zip(layout.blocks, images, places(layout), strict=True)):
        x = points[block.slots]
        start = before.potentials[i] if before is not None and before.potentials else None
        plan = Plan(x, image, block.mask, method, epsilon, start)
        uv.append(plan.to_points(place))
        potentials.append(plan.potentials)
        if method == "sinkhorn":
            soft.append(plan.to_places(x))
    return Match(layout.join(uv), soft or None, potentials if soft else None)


def places(layout: Ragged) -> list[torch.Tensor]:
    """Lloyd places (G, S, 2) of each block, as many for a chart as it has points, then repeats of the last."""
    result = []
    for block in layout.blocks:
        width = block.slots.shape[1]
        sizes = block.mask.sum(1).tolist()
        spread = [lloyd(s) for s in sizes]
        result.append(torch.stack([torch.cat([p, p[-1:].expand(width - len(p), 2)]) for p in spread]))
    return result
