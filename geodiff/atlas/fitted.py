# SPDX-License-Identifier: Apache-2.0
"""Fitted charts, and what they say of the points together."""

import dataclasses

import torch

from geodiff.atlas import consensus
from geodiff.atlas.charts import Charts
from geodiff.atlas.cover import Cover
from geodiff.modes import outside_autocast
from geodiff.validation import shapes_repr


@outside_autocast
@dataclasses.dataclass(frozen=True)
class FittedCharts:
    """Charts fitted to a cover.

    Attributes:
        charts: all Q.
        cover: the patches; N points, M memberships.
        uv: (M, 2) float32, where each member lies in its chart.
        predicted: (M, 3), the chart there, world units.
        weight: (M,) > 0: how far to trust the chart there: `(1 − (d/r)²)²`, d the distance from the centre, over the
            fourth power of the chart's residual. Relative: only ratios mean something.
        rms: (Q,) root mean square distance of a chart from its points, world units.
        steps: (Q,) int64 in the local fit.
        converged: (Q,) bool: it reached the noise.
        noise: σ, world units.
        local_noise: (N,) float64, σ about each point.
        unfitted: how many points that are no outliers lie farther than 4 σ (or usual residuals) from all their charts.
        folded: how many patches fold over their plane.
        notes: what a user should be told.
    """

    __repr__ = shapes_repr

    charts: Charts
    cover: Cover
    uv: torch.Tensor
    predicted: torch.Tensor
    weight: torch.Tensor
    rms: torch.Tensor
    steps: torch.Tensor
    converged: torch.Tensor
    noise: float
    local_noise: torch.Tensor
    unfitted: int
    folded: int
    notes: tuple[str, ...]

    def fitted_points(self) -> torch.Tensor:
        """Where the charts of each point, weighted by trust, put it: (N, 3); outliers stay where they are."""
        return mean_of_charts(self.predicted, self.weight, self.cover)

    def pair_loss(self) -> torch.Tensor:
        """Return the published disagreement of the charts, `Σ_{q<q'} Σ_i |φ_q − φ_q'|²` over shared points i."""
        return consensus.pair_loss(self.predicted.double(), self.cover.point, len(self.cover.points))

    def spread(self) -> torch.Tensor:
        """Root mean square distance (N,) of the charts of a point from their mean; 0 for outliers."""
        mean = self.fitted_points()[self.cover.point]
        square = (self.predicted - mean).square().sum(1).to(self.weight)
        zeros = square.new_zeros(len(self.cover.points))
        total = zeros.index_add(0, self.cover.point, self.weight)
        return (zeros.index_add(0, self.cover.point, square * self.weight) / total.clamp(min=1e-300)).sqrt()


def mean_of_charts(predicted: torch.Tensor, weight: torch.Tensor, patches: Cover) -> torch.Tensor:
    """Weighted mean (N, 3) of what charts predict for each point; points without charts stay."""
    x = patches.points
    zeros = weight.new_zeros(len(x))
    total = zeros.index_add(0, patches.point, weight)
    sums = weight.new_zeros(len(x), 3).index_add(0, patches.point, predicted.to(weight) * weight[:, None])
    return torch.where(total[:, None] > 0, (sums / total.clamp(min=1e-300)[:, None]).to(x.dtype), x)
