# SPDX-License-Identifier: Apache-2.0
"""Compositing from front to back in a relaxed order of depth: what hides what has a gradient."""

import math
from typing import Any

import torch

from geodiff.modes import outside_autocast
from geodiff.recording import at_most, is_replaying, or_nan
from geodiff.reference.fragments import Ranking
from geodiff.reference.softmax import NEVER, Mixture
from geodiff.render.coverage import Coverage, Softness
from geodiff.render.depth import LEAST_GAMMA, SoftmaxDepth
from geodiff.render.fragment_list import Layers, images_of
from geodiff.render.view import View
from geodiff.validation import fail, floating, looks_at_values, positive

_SHARPNESS = math.log(1000.0)
"""Of what is kept: of two faces a depth range apart, the one in front even where its F is 1000 times less."""
_LEAST_LIGHT = 1e-30
"""What an opaque face lets through: nothing, but with a logarithm."""


@outside_autocast
def front_to_back(opacity: torch.Tensor, depth: torch.Tensor, *, temperature: float | torch.Tensor) -> torch.Tensor:
    """Return how much each of a pixel's fragments is seen, through those in front of it, in a relaxed order of depth.

    With the hard order, fragment i has the weight `a_i Π_{j before i} (1 − a_j)`. It jumps where two fragments swap,
    and no gradient says so. Here ranks are blends of fragments, by the matrix P of SoftSort (`gd.soft.sort_matrix`):
    rank r has the optical thickness `σ̂_r = Σ_j P_rj σ_j` with `σ = −log(1 − a)`, lets `exp(−σ̂_r)` through, and what it
    stops goes to its fragments in the ratio of `P_rj a_j`. As the temperature → 0 it is the hard order; fragments of
    one depth share, whatever their order in the list.

    `rgb = Σ_i w_i c_i + (1 − Σ_i w_i)·background`.

    Args:
        opacity: a in [0, 1], `(..., k)`.
        depth: `(..., k)`; infinite where there is no fragment, as `gd.fragments` has it.
        temperature: > 0, in the units of depth: fragments much closer than that blend.

    Returns:
        w `(..., k)`, 0 where there is no fragment. The sum is at most 1.

    Gradients: in opacity (0 in one that is 1 to rounding), depth and temperature. Memory: k² a pixel.

    Raises:
        TypeError: tensors that are not floating.
        ValueError: shapes that differ, NaN, opacities outside [0, 1], a temperature ≤ 0.

    Example:
        A red pane in front of a blue one, half transparent both; as they come closer, their order fades:

        >>> from geodiff.render import front_to_back
        >>> opacity = torch.tensor([0.5, 0.5])
        >>> front_to_back(opacity, torch.tensor([1.0, 2.0]), temperature=0.1)
        tensor([0.5000, 0.2500])
        >>> front_to_back(opacity, torch.tensor([1.99, 2.0]), temperature=0.1)
        tensor([0.3812, 0.3688])
    """
    where = "front_to_back"
    floating(where, "opacity", opacity, ("...", "k"))
    floating(where, "depth", depth, tuple(opacity.shape), "One depth for each opacity.", finite=False)
    positive(where, "temperature", temperature, "It is in the units of depth.")
    if looks_at_values(opacity) and opacity.numel():
        low, high = (float(end) for end in torch.aminmax(opacity.detach()))
        if low < 0 or high > 1:
            raise fail(where, "opacity", "in [0, 1]", f"values in [{low:g}, {high:g}]")
        if bool(depth.detach().isnan().any()):
            raise fail(where, "depth", "a number, or infinite where there is no fragment", "NaN")
    there = torch.isfinite(depth)
    light = (1 - opacity).clamp_min(_LEAST_LIGHT)
    return _weights(torch.where(there, opacity, 0), -light.log(), torch.where(there, depth, 0), there, temperature)


def _weights(
    opacity: torch.Tensor, thickness: torch.Tensor, key: torch.Tensor, there: torch.Tensor, temperature: Any
) -> torch.Tensor:
    """Return `front_to_back` of rows (..., k); `thickness` is −log(1 − opacity)."""
    order = torch.where(there, key.detach(), torch.inf).argsort(dim=-1)
    ranked = key.gather(-1, order)
    logits = -(ranked[..., :, None] - key[..., None, :]).abs() / temperature
    matrix = torch.softmax(torch.where(there[..., None, :], logits, NEVER), dim=-1)
    matrix = matrix * there.gather(-1, order)[..., :, None]
    stopped = (matrix @ torch.where(there, thickness, 0)[..., None])[..., 0]
    before = stopped.cumsum(-1) - stopped
    seen = torch.exp(-before) * -torch.expm1(-stopped)
    parts = matrix * opacity[..., None, :]
    total = parts.sum(-1)
    some = total > 0
    # What stops nothing yet would stop its share of the light that comes through: that is its derivative.
    ratio = torch.where(some, seen, torch.exp(-before)) / torch.where(some, total, 1)
    return (ratio[..., None, :] @ parts)[..., 0, :]


class SortDepth(SoftmaxDepth):
    """Weights of `front_to_back` with F for the opacities, over their sum: alpha says how much is covered.

    Args:
        view: what is seen.
        coverage: says how far colours are looked for.
        softness: F and τ.
        gamma: γ, the temperature in units of the depth range.
        depth_range: the depths that it is between, or None for those of the scene.
        max_fragments: how many faces a pixel has at most, or None for enough.
    """

    def __init__(
        self,
        view: View,
        coverage: Coverage,
        softness: Softness,
        gamma: float | torch.Tensor,
        depth_range: tuple[float, float] | None,
        max_fragments: int | None,
    ) -> None:
        super().__init__(view, coverage, softness, gamma, depth_range, None, max_fragments)

    def _ranking(self) -> Ranking:
        """Return what picks the fragments: F, and somewhat the depth, whatever γ."""
        ranking = super()._ranking()
        return ranking._replace(sharpness=ranking.sharpness * (self._gamma() * _SHARPNESS))

    def _mix(self, found: Layers, log_weight: torch.Tensor, values: Any, background: float | None) -> Mixture:
        """Mix rows (P, C); gradients in them, in distances, depths, γ and the range."""
        assert background is None
        counts = found.start[1:] - found.start[:-1]
        most = _most(counts) if len(counts) else 0
        column = torch.arange(most, device=counts.device)
        there = column < counts[:, None]
        index = torch.where(there, found.start[:-1, None] + column, 0)
        ends = self.ends.to(values.dtype)
        span = ends[:, 1] - ends[:, 0]
        # Depths that are all the same are in no order.
        sharp = torch.where(span > 0, 1 / torch.where(span > 0, span, 1.0), 0.0)
        image = images_of(found.place, found.shape)
        key = torch.where(there, found.depth[index], 0) * sharp[image][:, None]
        gamma = self.gamma.to(values) if isinstance(self.gamma, torch.Tensor) else self.gamma
        gamma = gamma.clamp_min(LEAST_GAMMA) if isinstance(gamma, torch.Tensor) else max(gamma, LEAST_GAMMA)
        chance = torch.where(there, log_weight[index], NEVER)
        thickness = -(-torch.expm1(chance)).clamp_min(_LEAST_LIGHT).log()
        weight = _weights(chance.exp(), thickness, key, there, gamma)
        total = weight.sum(-1, keepdim=True)
        some = total != 0  # or no number, which stays one
        weight = torch.where(some, weight, 0) / torch.where(some, total, 1)
        if is_replaying():
            weight = or_nan(weight, counts.max(), most) + 0 * gamma  # which is NaN beyond its bounds
        out = (weight[..., None, :] @ torch.where(there[..., None], values[index], 0))[..., 0, :]
        group = found.group()
        own = torch.arange(len(group), device=group.device) - found.start[group]
        flat = weight.detach()[group, own.clamp(max=most - 1)] if most else weight.new_zeros(0)
        return Mixture(out, flat, total.new_zeros(len(counts)))


def _most(counts: torch.Tensor) -> int:
    """Return how many the largest group has; in a replay, how many it may have."""
    if counts.is_cpu:
        return int(counts.max())
    return math.ceil(at_most(counts.max())[1])
