# SPDX-License-Identifier: Apache-2.0
"""Noise to try a function with: drawn by a seed, and how its density falls."""

import math
from typing import Any

import torch

from geodiff import soft
from geodiff.validation import describe, fail, integer, positive


class Noise:
    """Draws of a symmetric law on all of the real line, and its score −(log f)′.

    Args:
        where: the function that asks, for messages.
        law: a name or an object of `geodiff.soft`.
        generator: of the draws; None: torch's own of the device.
    """

    def __init__(self, where: str, law: Any, generator: torch.Generator | None) -> None:
        self.law = soft.as_distribution(law)
        if not self.law.symmetric or not math.isinf(self.law.support[1]) or self.law.is_squared:
            fix = "Take 'gaussian', 'logistic' or 'cauchy'."
            raise fail(where, "law", "symmetric, with a density on all of the real line", repr(self.law), fix)
        if generator is not None and not isinstance(generator, torch.Generator):
            raise fail(where, "generator", "a torch.Generator or None", generator, error=TypeError)
        self.where, self.generator = where, generator

    def draw(self, shape: tuple[int, ...], like: torch.Tensor) -> torch.Tensor:
        """Return numbers of the law, scale 1."""
        device = like.device if self.generator is None else self.generator.device
        u = torch.rand(shape, generator=self.generator, dtype=torch.float64, device=device) + 2.0**-54
        return self.law.quantile(u).to(like)

    def score(self, noise: torch.Tensor) -> torch.Tensor:
        """Return −f′/f, that is ν′ of the density e^(−ν)."""
        with torch.enable_grad():
            x = noise.detach().double().requires_grad_()
            (slope,) = torch.autograd.grad(self.law.pdf(x).log().sum(), x)
        return -slope.to(noise)


def checked_scale(where: str, sigma: Any, y: torch.Tensor) -> torch.Tensor:
    """Return σ as a tensor that broadcasts to y."""
    positive(where, "sigma", sigma, "It is how far around y is looked, in the units of y.")
    scale = torch.as_tensor(sigma, dtype=y.dtype, device=y.device).detach()
    try:
        fits = torch.broadcast_shapes(scale.shape, y.shape) == y.shape
    except RuntimeError:
        fits = False
    if not fits:
        raise fail(where, "sigma", f"a number or of a shape that broadcasts to {tuple(y.shape)}, that of `y`", scale)
    return scale


def checked_samples(where: str, samples: Any, low: int = 1) -> int:
    """Return how many samples to draw."""
    return integer(where, "samples", samples, low, 10**7)


def tried(where: str, argument: str, function: Any, z: torch.Tensor) -> torch.Tensor:
    """Return `function(z)`, off the graph, checked: one row for each of z."""
    with torch.no_grad():
        values = function(z)
    if not isinstance(values, torch.Tensor) or values.dim() < 1 or len(values) != len(z):
        expected = f"a function of ({len(z)}, ...) that returns one row for each, ({len(z)}, ...)"
        kind = ValueError if isinstance(values, torch.Tensor) else TypeError
        raise fail(where, argument, expected, describe(values), "It is given all samples at once.", kind)
    return values.detach().to(z.dtype)


def ordered_sum(values: torch.Tensor, dim: int = 0) -> torch.Tensor:
    """Return the sum along an axis in a fixed order, whatever the number of threads; accumulated in float64."""
    if values.shape[dim] == 0:
        return values.sum(dim)
    return values.double().cumsum(dim).select(dim, -1).to(values.dtype)
