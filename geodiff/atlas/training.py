# SPDX-License-Identifier: Apache-2.0
"""Gradient steps of many charts at once, with their backward pass written out."""

from collections.abc import Callable, Sequence

import torch

from geodiff.adam import Adam
from geodiff.atlas.charts import SHARPNESS, Charts

UV_SHARE = 0.6  # of the step, for the places

Rematching = Callable[[torch.Tensor, torch.Tensor], tuple[torch.Tensor, torch.Tensor]]


class Batch:
    """Charts of like size in training, with the places of their points: G charts, S places each.

    A step lowers, for each chart on its own, `Σ_s w_s |φ(u_s) − t_s|² / Σ_s w_s` in weights and places by one step of
    Adam. A chart's numbers do not depend on the others in the batch.

    Attributes:
        index: (G,) int64, numbers of the charts.
        uv: (G, S, 2), the places, kept in the unit square.
        target: (G, S, 3) local.
        weight: (G, S) ≥ 0.
        out: (G, S, 3), the points before the last step.
    """

    def __init__(
        self,
        index: torch.Tensor,
        charts: Charts,
        uv: torch.Tensor,
        target: torch.Tensor,
        weight: torch.Tensor,
        *,
        move_uv: bool = True,
        residual: bool = True,
    ) -> None:
        self.index, self.target, self.weight = index, target, weight
        self.activation, self.layers, self.residual = charts.activation, len(charts.weights), residual
        self.placed = charts
        self.parameters = [p.clone() for p in charts.parameters()]
        self.uv = uv.clone()
        self.out = target
        self.move_uv = move_uv
        self._begin()

    def _begin(self) -> None:
        groups = [{"params": self.parameters, "relative": 1.0}]
        if self.move_uv:
            groups.append({"params": [self.uv], "relative": UV_SHARE})
        self.optimizer = Adam(groups, lr=1e-3, fused=True)

    def __len__(self) -> int:
        return len(self.index)

    @torch.no_grad()
    def forward(self) -> tuple[torch.Tensor, list[torch.Tensor]]:
        """Return the points (G, S, 3), and what each layer takes in."""
        p, n = self.parameters, self.layers
        inputs = [2 * self.uv - 1]
        for layer in range(n - 1):
            z = torch.baddbmm(p[n + layer][:, None], inputs[-1], p[layer])
            if self.activation == "relu":
                z.relu_()
            elif self.activation == "tanh":
                z.tanh_()
            else:
                z = torch.nn.functional.softplus(z, SHARPNESS)
            inputs.append(z)
        out = torch.baddbmm(p[2 * n + 1][:, None], inputs[0], p[2 * n])
        out.add_(p[2 * n - 1][:, None]).baddbmm_(inputs[-1], p[n - 1])
        return out, inputs

    @torch.no_grad()
    def backward(self, inputs: Sequence[torch.Tensor], slope: torch.Tensor) -> None:
        """Put gradients into `.grad`, from those with respect to the points (G, S, 3)."""
        p, n = self.parameters, self.layers
        plane = slope if self.residual else torch.zeros_like(slope)
        p[2 * n + 1].grad = plane.sum(1)
        p[2 * n].grad = torch.bmm(inputs[0].mT, plane)
        p[2 * n - 1].grad = slope.sum(1)
        # The product of inputs and slope, the other way round: four times as fast, as only three columns are left.
        p[n - 1].grad = torch.bmm(slope.mT, inputs[-1]).mT.contiguous()
        back = torch.bmm(slope, p[n - 1].mT)
        for layer in range(n - 2, -1, -1):
            h = inputs[layer + 1]
            if self.activation == "relu":
                # `torch.where(h > 0, back, 0)`, which takes longer than the product.
                back = torch.ops.aten.threshold_backward(back, h, 0)
            elif self.activation == "tanh":
                back.mul_(1 - h.square())
            else:  # the sigmoid, from what softplus returned
                back.mul_(-torch.expm1(-SHARPNESS * h))
            p[n + layer].grad = back.sum(1)
            p[layer].grad = torch.bmm(inputs[layer].mT, back)
            if layer or self.move_uv:
                back = torch.bmm(back, p[layer].mT)
        if self.move_uv:
            self.uv.grad = 2 * back.baddbmm_(slope, p[2 * n].mT)

    @torch.no_grad()
    def step(self, rate: float, rematch: Rematching | None = None) -> torch.Tensor:
        """Take a step of Adam and return each chart's loss (G,) before it.

        Args:
            rate: length of the step.
            rematch: finds new targets and weights, from where the charts are (G, S, 3) and their places.
        """
        self.out, inputs = self.forward()
        if rematch is not None:
            self.target, self.weight = rematch(self.out, self.uv)
        rest = self.out - self.target
        share = self.weight / self.weight.sum(1, keepdim=True).clamp(min=1e-30)
        self.backward(inputs, rest * (2 * share[:, :, None]))
        for group in self.optimizer.param_groups:
            group["lr"] = rate * group["relative"]
        self.optimizer.step()
        if self.move_uv:
            self.uv.clamp_(0, 1)
        return (rest.square().sum(2) * share).sum(1)

    def steps(self, rates: Sequence[float], active: torch.Tensor | None = None) -> torch.Tensor:
        """Take steps of these lengths and return each chart's loss (G,) before the last.

        Args:
            rates: one or more.
            active: (G,) bool, the charts whose steps count; of the others anything may be left.
        """
        return [self.step(rate) for rate in rates][-1]

    def image(self, active: torch.Tensor | None = None) -> torch.Tensor:
        """Return where the places are now (G, S, 3); of charts that are not active (G,) bool anything may be said."""
        return self.forward()[0]

    def charts(self) -> Charts:
        """Return the charts as they are now."""
        return self.placed.with_parameters(self.parameters)

    def keep(self, stay: torch.Tensor) -> None:
        """Go on with some of the charts only, (G,) bool."""
        state = self.optimizer.state
        self.index, self.target, self.weight, self.out = (
            t[stay] for t in (self.index, self.target, self.weight, self.out)
        )
        self.placed = self.placed.subset(stay)
        for group in self.optimizer.param_groups:
            for i, old in enumerate(group["params"]):
                new = old[stay]
                moments = state.pop(old, {})
                state[new] = {k: v[stay] if k != "step" else v for k, v in moments.items()}
                group["params"][i] = new
        self.parameters = list(self.optimizer.param_groups[0]["params"])
        self.uv = self.optimizer.param_groups[1]["params"][0] if self.move_uv else self.uv[stay]
