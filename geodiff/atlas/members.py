# SPDX-License-Identifier: Apache-2.0
"""What the charts of an atlas say of the points in them: the part of `Atlas` that samples and meshes are made of."""

import dataclasses

import torch

from geodiff.atlas import consensus
from geodiff.atlas.charts import Charts
from geodiff.atlas.domain import Domain, trim
from geodiff.atlas.lines import ScanLines, scan_lines
from geodiff.modes import cached, outside_autocast
from geodiff.validation import fail, floating, integers

_NUMBERS = 3 << 21  # rows times the widest layer at once: what the layers hold stays near the caches
_TURNED = 0.5  # cosine of the angle by which a chart may see a point otherwise than the others


@outside_autocast
@dataclasses.dataclass(frozen=True)
class Members:
    """The fields of `geodiff.atlas.atlas.Atlas`, and what follows from them."""

    charts: Charts
    points: torch.Tensor
    chart: torch.Tensor
    point: torch.Tensor
    uv: torch.Tensor
    inside: torch.Tensor
    outlier: torch.Tensor
    sign: torch.Tensor
    confidence: torch.Tensor
    noise: float = 0.0
    seed: int = 0
    tolerance: torch.Tensor | None = None

    def __post_init__(self) -> None:
        where, n, m, q = "Atlas", len(self.points), len(self.chart), len(self.charts)
        floating(where, "points", self.points, ("N", 3))
        floating(where, "uv", self.uv, (m, 2))
        floating(where, "sign", self.sign, (q,))
        floating(where, "confidence", self.confidence, (n,))
        if self.tolerance is not None and self.tolerance.shape != (n,):
            raise fail(where, "tolerance", f"of shape ({n},)", self.tolerance)
        for name, top in (("chart", q), ("point", n)):
            value = integers(where, name, getattr(self, name), (m,))
            if m and (int(value.min()) < 0 or int(value.max()) >= top):
                raise fail(where, name, f"within 0 … {top - 1}", f"{int(value.min())} … {int(value.max())}")
            object.__setattr__(self, name, value)
        if bool((self.chart[1:] < self.chart[:-1]).any()):
            raise fail(where, "chart", "sorted", "another order", "Sort the memberships by chart.")
        for name, size in (("inside", m), ("outlier", n)):
            value = getattr(self, name)
            if value.dtype != torch.bool or value.shape != (size,):
                raise fail(where, name, f"bool of shape ({size},)", value)

    @cached
    def domain(self) -> Domain:
        """Where the charts are trusted; computed on first use."""
        center, scale = self.charts.center, self.charts.scale
        lines = self._lines
        deep = consensus.depth(self.predictions, self.chart, center, scale).clamp(min=1e-3)
        if lines is None:
            deep = deep * self.trust[self.chart] * (1 + 3 * self.inside.to(center))
        return trim(
            self.chart, self.point, self.uv, self.predictions, self._plain_normals, deep, len(self.points),
            lambda chart, uv: evaluate(self, chart, uv), self._same_side(),
            gap=None if lines is None else lines.gap,
        )  # fmt: skip

    @cached
    def _lines(self) -> ScanLines | None:
        return scan_lines(self.points.detach().cpu().double().numpy(), self.seed)

    def _same_side(self) -> torch.Tensor:
        """Which members (M,) their charts see as the others do: not so where a patch has points of a sheet behind."""
        facing = self._plain_normals * self.sign[self.chart, None]
        return (facing * self.fitted_normals()[self.point]).sum(-1) > _TURNED

    @cached
    def _at_members(self) -> tuple[torch.Tensor, torch.Tensor]:
        with torch.no_grad():
            parts = [
                self.charts.flat_jacobian(self.uv[part], self.chart[part])
                for part in torch.arange(len(self.chart), device=self.chart.device).split(step(self))
            ]
        if not parts:
            return self.points.new_zeros(0, 3), self.points.new_zeros(0, 3, 2)
        return torch.cat([p for p, _ in parts]), torch.cat([j for _, j in parts])

    @property
    def predictions(self) -> torch.Tensor:
        """Where each chart has its members (M, 3)."""
        return self._at_members[0]

    @property
    def tangents(self) -> torch.Tensor:
        """Derivatives ∂φ/∂u at the members (M, 3, 2)."""
        return self._at_members[1]

    @property
    def _plain_normals(self) -> torch.Tensor:
        t = self.tangents
        return torch.nn.functional.normalize(torch.linalg.cross(t[..., 0], t[..., 1]), dim=-1, eps=1e-30)

    @cached
    def _consensus(self) -> tuple[torch.Tensor, torch.Tensor]:
        fitted, spread = consensus.consensus(self.predictions, self._say, self.point, len(self.points))
        covered = torch.bincount(self.point, minlength=len(self.points)) > 0
        return torch.where(covered[:, None], fitted, self.points.to(fitted)), spread

    @cached
    def _say(self) -> torch.Tensor:
        say = consensus.weights(consensus.depth(self.predictions, self.chart, self.charts.center, self.charts.scale))
        return say * self.trust[self.chart]

    @cached
    def trust(self) -> torch.Tensor:
        """How far each chart is to be trusted (Q,), in (0, 1]: `geodiff.atlas.consensus.trust`."""
        goals = self.points[self.point].to(self.predictions)
        return consensus.trust(self.predictions, goals, self.chart, len(self), self.noise)

    @cached
    def disagreement(self) -> float:
        """Typical distance between charts at the same point: root mean square of the spread, without its worst 5 %."""
        spread = self._consensus[1]
        spread = spread[spread <= spread.quantile(0.95)] if 0 < len(spread) < 1 << 24 else spread
        return float(spread.square().mean().sqrt()) if len(spread) else 0.0

    @cached
    def by_point(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Memberships of each point, deepest first: those of point i are `rows[first[i] : first[i + 1]]`.

        `first` is (N + 1,), `rows` (M,).
        """
        deep = consensus.depth(self.predictions, self.chart, self.charts.center, self.charts.scale)
        rows = torch.argsort(deep, descending=True, stable=True)
        count = torch.bincount(self.point, minlength=len(self.points))
        first = torch.cat((count.new_zeros(1), count.cumsum(0)))
        return first, rows[torch.argsort(self.point[rows], stable=True)]

    def fitted_points(self) -> torch.Tensor:
        """Return where the surface has each point of the cloud (N, 3): the robust mean of its charts.

        Outliers stay where they are.
        """
        return self._consensus[0]

    def fitted_normals(self) -> torch.Tensor:
        """Return outward unit normals of the surface at each point of the cloud (N, 3); 0 for points in no chart."""
        return self._normals_turned(self.sign)

    def _normals_turned(self, sign: torch.Tensor) -> torch.Tensor:
        facing = self._say[:, None] * self._plain_normals * sign[self.chart, None]
        total = facing.new_zeros(len(self.points), 3).index_add(0, self.point, facing)
        return torch.nn.functional.normalize(total, dim=-1, eps=1e-30)

    def __len__(self) -> int:
        return len(self.charts)


def step(atlas: Members) -> int:
    """Return how many rows to evaluate at once."""
    return max(1024, _NUMBERS // (3 * max(3, *atlas.charts.widths, 3)))


def evaluate(atlas: Members, chart: torch.Tensor, uv: torch.Tensor) -> torch.Tensor:
    """Return points (S, 3) of charts (S,), in any order, at uv (S, 2), in parts that bound the memory."""
    if len(chart) == 0:
        return atlas.points.new_zeros(0, 3)
    order = torch.argsort(chart, stable=True)
    with torch.no_grad():
        parts = [atlas.charts.flat(uv[part], chart[part]) for part in order.split(step(atlas))]
    return torch.cat(parts)[torch.argsort(order)]
