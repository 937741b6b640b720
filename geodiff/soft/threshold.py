# SPDX-License-Identifier: Apache-2.0
"""Relaxed quantiles and selections by one threshold: in n numbers' memory, whatever the order of the inputs."""

import math
from typing import Any

import torch

from geodiff.modes import outside_autocast
from geodiff.soft import special
from geodiff.soft.distribution_base import Distribution
from geodiff.soft.order import Law, check_temperature, symmetric
from geodiff.validation import fail, floating, number

__all__ = ["quantile", "selection", "trimmed_mean"]

Tensor = torch.Tensor
_ROUNDS = 80  # halvings of a bracket, in float64


@outside_autocast
def quantile(x: Tensor, q: float, distribution: "Law" = "logistic", *, temperature: float | Tensor) -> Tensor:
    """Return the relaxed quantile: the t with `mean F((t − x_i)/τ) = q`. With q = ½ it is a smooth median.

    Every value has a share in its gradient, `F'((t − x_i)/τ)` over the sum of these: those near t nearly all of it,
    those far off none, so an outlier cannot move it, however far it lies. It rises with every value, whatever F, and
    the shares add up to 1. The order of the inputs does not matter. As τ → 0 it becomes the quantile: the x_i of rank
    ⌈q n⌉; where q n is whole, a point between that and the next, their middle for laws whose tails are not polynomial.

    Args:
        x: `(..., n)`, n ≥ 1, float32 or float64.
        q: between 0 and 1, exclusive.
        distribution: F, symmetric. With the logistic one, at q = ½, t minimises `Σ log cosh((t − x_i)/2τ)`.
        temperature: τ > 0, in the units of x; a number, or a tensor without axes.

    Returns:
        `(...)`.

    Gradients: in x and τ, through the condition, not by unrolling; first order only. Where F' is 0 at all values, as a
    finite F is amid a gap, none. O(n) memory.

    Raises:
        TypeError: x that is no floating tensor.
        ValueError: no values, NaN, q outside (0, 1), τ ≤ 0, a distribution that is not symmetric.

    Example:
        >>> quantile(torch.tensor([1.0, 2.0, 3.0, 4.0, 1000.0]), 0.5, temperature=0.1)
        tensor(3.)
    """
    where = "quantile"
    law = _checked(where, x, distribution, temperature)
    q = number(where, "q", q, 0.0, 1.0, "0.5 is the median.")
    if not 0 < q < 1:
        raise fail(where, "q", "between 0 and 1, exclusive", str(q), "Take x.min() or x.max().")
    return _threshold(x.double(), q * x.shape[-1], law, _wide(temperature)).to(x.dtype)


@outside_autocast
def selection(
    x: Tensor, k: float, distribution: "Law" = "logistic", *, temperature: float | Tensor, largest: bool = False
) -> Tensor:
    """Return how much each value belongs to the k smallest: `F((t − x_i)/τ)`, with the t of which they add up to k.

    With the logistic distribution it is entropic transport to two bins, "in" and "out" (Y. Xie et al., "Differentiable
    top-k with optimal transport", 2020). As τ → 0 it becomes 1 for the k smallest and 0 for the others; values tied at
    the border share. The order of the inputs does not matter.

    Args:
        x: `(..., n)`, n ≥ 1, float32 or float64.
        k: how many, above 0, at most n; not always whole.
        distribution: F, symmetric.
        temperature: τ > 0, in the units of x; a number, or a tensor without axes.
        largest: the k largest instead.

    Returns:
        `(..., n)` in [0, 1], with the sum k.

    Gradients: as for `quantile`; their sum over x is 0. O(n) memory.

    Raises:
        TypeError, ValueError: as `quantile`; k ≤ 0 or above n.

    Example:
        >>> selection(torch.tensor([3.0, 1.0, 2.0, 9.0]), 2, temperature=0.2).round(decimals=2)
        tensor([0.0800, 1.0000, 0.9200, 0.0000])
    """
    where = "selection"
    law = _checked(where, x, distribution, temperature)
    k = number(where, "k", k, 0.0, float(x.shape[-1]), "There are no more values.")
    if k == 0:
        raise fail(where, "k", "above 0", "0")
    return _weights(-x if largest else x, k, law, temperature)


@outside_autocast
def trimmed_mean(residuals: Tensor, keep: float = 0.8, *, temperature: float | Tensor) -> Tensor:
    """Average the smallest residuals and leave the others out, smoothly: a loss for data of which some is wrong.

    The k = ``keep``·n smallest of n count: ``min_w (Σ w r + τ Σ w log w + (1 − w) log(1 − w)) / k`` over weights w in
    [0, 1] with the sum k. The weight of a residual is that of `selection`, ``σ((t − r)/τ)`` with the t of which they
    add up to k; as τ → 0, 1 for the k smallest and 0 for the others.

    Args:
        residuals: `(..., n)`, distances or squared ones, for instance of `gd.point_mesh_distance`.
        keep: the share of the residuals that counts, in (0, 1]; 1 is the mean.
        temperature: τ > 0, in the units of the residuals: those within about τ of the border count in part.

    Returns:
        `(...)`: at most the mean of the k smallest, below it by τ n log 2 / k at most.

    Gradients: exact, and never negative: that in a residual is its weight over k, so an outlier has none, however far
    off. In τ as well. First order only. O(n) memory.

    Raises:
        TypeError, ValueError: for other types, shapes, no residuals, NaN, a share outside (0, 1], τ ≤ 0.

    Example:
        >>> trimmed_mean(torch.tensor([1.0, 2.0, 3.0, 1000.0]), 0.75, temperature=0.01)
        tensor(2.)
    """
    where = "trimmed_mean"
    law = _checked(where, residuals, "logistic", temperature, "residuals")
    keep = number(where, "keep", keep, 0.0, 1.0, "It is a share.")
    if keep == 0:
        raise fail(where, "keep", "above 0", "0")
    count = keep * residuals.shape[-1]
    with torch.no_grad():
        weight = _weights(residuals, count, law, temperature)
        entropy = (torch.special.entr(weight) + torch.special.entr(1 - weight)).sum(-1)
    # At the minimum, weights may be held constant for a first derivative.
    return special.once(((weight * residuals).sum(-1) - temperature * entropy) / count)


def _weights(x: Tensor, count: float, law: Distribution, temperature: float | Tensor) -> Tensor:
    if count == x.shape[-1]:
        return torch.ones_like(x)
    # In float64: values within a few τ of the border may be less than a rounding of float32 apart from it.
    wide, scale = x.double(), _wide(temperature)
    return law.cdf((_threshold(wide, count, law, scale)[..., None] - wide) / scale).to(x.dtype)


def _wide(temperature: float | Tensor) -> float | Tensor:
    return temperature.double() if isinstance(temperature, Tensor) else temperature


def _checked(where: str, x: Any, distribution: Any, temperature: Any, name: str = "x") -> Distribution:
    floating(where, name, x, ("...", "n"), "Values lie along the last axis.")
    if x.shape[-1] == 0:
        raise fail(where, name, "of one value or more along the last axis", x)
    check_temperature(where, temperature, x)
    return symmetric(where, distribution)


def _threshold(x: Tensor, count: float, law: Distribution, temperature: float | Tensor) -> Tensor:
    """Return the t with `Σ F((t − x_i)/τ) = count`, of numbers in float64."""
    with torch.no_grad():
        values = x.detach()
        scale = temperature.detach() if isinstance(temperature, Tensor) else temperature
        # With m > count, the m smallest alone have Σ F ≥ count where m F((t − x_m)/τ) = count. With m − 1 < count, all
        # have Σ F ≤ count where F((t − x_m)/τ) of x_m and those above makes up for what m − 1 ones leave.
        n, ordered = x.shape[-1], values.sort(-1).values
        least, most = max(math.ceil(count), 1), min(math.floor(count) + 1, n)
        shares = [(count - least + 1) / (n - least + 1), count / most]
        below, above = law.quantile(torch.tensor(shares, dtype=torch.float64, device=x.device)) * scale
        # Halved for both ends of what fits at once: amid a gap it is a whole stretch, of which the middle is taken.
        side = torch.tensor([-_EDGE, _EDGE], dtype=torch.float64, device=x.device) * count
        side = side.reshape(2, *[1] * (x.dim() - 1))
        low = (ordered[..., least - 1] + below).expand(2, *x.shape[:-1])
        high = (ordered[..., most - 1] + above).expand(2, *x.shape[:-1])
        for _ in range(_ROUNDS):
            middle = low + (high - low) / 2
            few = law.cdf((middle[..., None] - values) / scale).sum(-1) < count + side
            low, high = torch.where(few, middle, low), torch.where(few, high, middle)
        start = (low + (high - low) / 2).mean(0)
    # One Newton step carries the gradient.
    offset = (start[..., None] - x) / temperature
    slope = (law.pdf(offset.detach()) / temperature).sum(-1).detach()
    usable = slope > 0
    step = (count - law.cdf(offset).sum(-1)) / torch.where(usable, slope, 1.0)
    return special.once(torch.where(usable, start + step - step.detach(), start))


_EDGE = 1e-13  # of the count, within which sums of F are equal
