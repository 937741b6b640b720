# SPDX-License-Identifier: Apache-2.0
"""The published loss of a chart: transport between its points and its places, solved again as the chart moves."""

import torch

from geodiff.atlas.matching import Plan, Potentials
from geodiff.atlas.training import Batch


class Rematch:
    """The plans of the charts of a batch: `min_P Σ_ij P_ij |x_i − φ(v_j)|²`, exact or with entropy.

    A call solves for the plans where the charts are now, starting from the potentials of the last call, and returns
    what a step of the batch takes. The plan is held in the step, which by the envelope theorem is the gradient of the
    least cost.

    Args:
        points: (G, S, 3) local.
        mask: (G, S) bool, False where a row repeats another.
        method: ``"exact"`` or ``"sinkhorn"``.
        epsilon: of entropic plans, in squared patch radii.

    Attributes:
        weight: (G, S) of the points; 0 where masked.
        uv: (G, S, 2), places of the points: after a call.
        near: (G, S, 3), where the charts had these places then.
    """

    def __init__(self, points: torch.Tensor, mask: torch.Tensor, method: str, epsilon: float) -> None:
        self.points, self.mask, self.method, self.epsilon = points, mask, method, epsilon
        self.weight = mask.to(points)
        self.uv, self.near = points[:, :, :2], points
        self._potentials: Potentials | None = None

    def __call__(self, images: torch.Tensor, places: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return targets (G, S, 3) and weights (G, S) of places (G, S, 2) whose images are (G, S, 3)."""
        plan = Plan(self.points, images, self.mask, self.method, self.epsilon, self._potentials)
        self._potentials = plan.potentials
        self.near, self.uv = plan.to_points(torch.cat((images, places), 2)).split((3, 2), 2)
        target, weight = plan.goals(self.points, self.weight)
        return target, weight * self.mask

    def across(self, batch: Batch) -> torch.Tensor:
        """Mean squares (G,) of the distances of the points from the charts' tangent planes at their places."""
        found, slope = batch.charts().local_jacobian(self.uv)
        normal = torch.nn.functional.normalize(torch.linalg.cross(slope[..., 0], slope[..., 1]), dim=-1, eps=1e-30)
        square = ((self.points - found) * normal).sum(2).square() * self.weight
        return square.sum(1) / self.weight.sum(1).clamp(min=1e-30)

    def keep(self, stay: torch.Tensor) -> None:
        """Go on with some of the charts only, (G,) bool."""
        for name in ("points", "mask", "weight", "uv", "near"):
            setattr(self, name, getattr(self, name)[stay])
        if self._potentials is not None:
            self._potentials = (self._potentials[0][stay], self._potentials[1][stay])
