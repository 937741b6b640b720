# SPDX-License-Identifier: Apache-2.0
"""The skewed distributions of the renderer family: both Gumbel distributions, and those with x >= 0 only.

Formulas: F. Petersen, "Learning with differentiable algorithms", 2022, appendix A, with its misprint for Gumbel-min put
right. See `geodiff.soft.distributions`.
"""

import importlib
import math
from typing import Any

import torch

from geodiff.soft import special
from geodiff.soft.distribution_base import ClosedForm
from geodiff.soft.parameters import Parameter, Tensor, number_repr, number_text, parameter

__all__ = [
    "Exponential",
    "Gamma",
    "GumbelMax",
    "GumbelMin",
    "Levy",
]


class GumbelMax(ClosedForm, kernel=True):
    """Distribution of the maximum of many: F(x) = exp(-exp(-x))."""

    name = "gumbel_max"
    formula = "exp(-exp(-x))"
    tail = ("super-exponential", "exponential")

    def _cdf(self, z: Tensor) -> Tensor:
        return torch.exp(-torch.exp(-z))

    def _survival(self, z: Tensor) -> Tensor:
        return -torch.expm1(-torch.exp(-z))

    def _log_cdf(self, z: Tensor) -> Tensor:
        return -torch.exp(-z)

    def _log_survival(self, z: Tensor) -> Tensor:
        # 1 - exp(-e) = e·(1 - exp(-e))/e with e = exp(-z), whose logarithm is -z for every e that underflows.
        e = torch.exp(-z.clamp(min=-50))
        return torch.where(z > 0, special.log_expm1_ratio(-e) - z, torch.log1p(-torch.exp(-e)))

    def _pdf(self, z: Tensor) -> Tensor:
        z = z.clamp(min=-80)  # where it is 0 already
        return torch.exp(-z - torch.exp(-z))

    def _cdf_rate(self, z: Tensor) -> Tensor:
        e = torch.exp(-z)
        return torch.where(torch.isinf(e), 0.0, e)

    def _survival_rate(self, z: Tensor) -> Tensor:
        return torch.exp(-special.log_expm1_ratio(torch.exp(-z).clamp(max=1e4)))

    def _quantile(self, q: Tensor) -> Tensor:
        return -torch.log(-torch.log(q))

    def _upper_quantile(self, q: Tensor) -> Tensor:
        return -torch.log(-torch.log1p(-q))


class GumbelMin(ClosedForm, kernel=True):
    """Distribution of the minimum of many: F(x) = 1 - exp(-exp(x)), the reverse of `GumbelMax`."""

    name = "gumbel_min"
    formula = "1 - exp(-exp(x))"
    tail = ("exponential", "super-exponential")

    _mirror = GumbelMax()

    def _cdf(self, z: Tensor) -> Tensor:
        return self._mirror._survival(-z)

    def _survival(self, z: Tensor) -> Tensor:
        return self._mirror._cdf(-z)

    def _log_cdf(self, z: Tensor) -> Tensor:
        return self._mirror._log_survival(-z)

    def _log_survival(self, z: Tensor) -> Tensor:
        return self._mirror._log_cdf(-z)

    def _pdf(self, z: Tensor) -> Tensor:
        return self._mirror._pdf(-z)

    def _cdf_rate(self, z: Tensor) -> Tensor:
        return self._mirror._survival_rate(-z)

    def _survival_rate(self, z: Tensor) -> Tensor:
        return self._mirror._cdf_rate(-z)

    def _quantile(self, q: Tensor) -> Tensor:
        return -self._mirror._upper_quantile(q)

    def _upper_quantile(self, q: Tensor) -> Tensor:
        return -self._mirror._quantile(q)


class Exponential(ClosedForm, kernel=True):
    """Exponential: F(x) = 1 - exp(-x) for x >= 0, else 0."""

    name = "exponential"
    formula = "1 - exp(-x) for x >= 0"
    support = (0.0, math.inf)
    tail = ("finite", "exponential")

    def _cdf(self, z: Tensor) -> Tensor:
        return -torch.expm1(-z.clamp(min=0))

    def _survival(self, z: Tensor) -> Tensor:
        return torch.exp(-z.clamp(min=0))

    def _log_cdf(self, z: Tensor) -> Tensor:
        return special.log1mexp(z.clamp(min=0))

    def _log_survival(self, z: Tensor) -> Tensor:
        return -z.clamp(min=0)

    def _pdf(self, z: Tensor) -> Tensor:
        return torch.where(z < 0, 0.0, torch.exp(-z.clamp(min=0)))

    def _cdf_rate(self, z: Tensor) -> Tensor:
        return torch.where(z > 0, 1 / torch.expm1(torch.where(z > 0, z, 1.0)), 0.0)

    def _survival_rate(self, z: Tensor) -> Tensor:
        return (z >= 0).to(z.dtype)

    def _quantile(self, q: Tensor) -> Tensor:
        return -torch.log1p(-q)

    def _upper_quantile(self, q: Tensor) -> Tensor:
        return -torch.log(q)


class Gamma(ClosedForm, kernel=True):
    """Gamma distribution of shape k: F(x) = P(k, x), the regularised lower incomplete gamma function, for x >= 0.

    Differentiable in the shape, too (`geodiff.soft.special.gammainc`), except `quantile` and the values themselves
    twice. For k < 1 the density is infinite at 0; it and the slope of F are set to 0 at x = 0 exactly.

    Args:
        shape: k > 0, a number or a floating tensor that broadcasts with x. Default ½.

    Raises:
        ValueError: if the shape is not positive and finite.
    """

    name = "gamma"
    samples = (0.5, 2.0, 3.7)
    shape: Parameter
    formula = "P(shape, x) for x >= 0"
    support = (0.0, math.inf)
    tail = ("finite", "exponential")

    def __init__(self, shape: Parameter = 0.5) -> None:
        vars(self)["shape"] = parameter("Gamma", "shape", shape, "positive and finite", lambda k: k > 0)

    def cdf(self, x: Tensor) -> Tensor:
        """P(shape, x)."""
        return special.gammainc(self._k(x), self._input(x))

    def survival(self, x: Tensor) -> Tensor:
        """Q(shape, x) = 1 - P(shape, x), without cancellation."""
        return special.gammaincc(self._k(x), self._input(x))

    def log_cdf(self, x: Tensor) -> Tensor:
        """Logarithm of P(shape, x), accurate in both tails; -inf with gradient 0 for x <= 0."""
        return special.log_gammainc(self._k(x), self._input(x))

    def log_survival(self, x: Tensor) -> Tensor:
        """Logarithm of Q(shape, x), accurate in both tails."""
        return special.log_gammaincc(self._k(x), self._input(x))

    def _k(self, x: Tensor) -> Tensor:
        self._input(x)
        if isinstance(self.shape, torch.Tensor):
            return self.shape
        return torch.tensor(self.shape, dtype=x.dtype, device=x.device)

    def _pdf(self, z: Tensor) -> Tensor:
        k = self._k(z)
        inside = z > 0
        s = torch.where(inside, z, 1.0).clamp(max=1e30)  # infinity minus infinity
        density = torch.exp((k - 1) * torch.log(s) - s - torch.lgamma(k))
        edge = torch.where((z == 0) & (k == 1), 1.0, 0.0)
        return torch.where(inside, density, torch.where(torch.isnan(z), z, edge))

    def _quantile(self, q: Tensor) -> Tensor:
        return self._solve(q, "gammaincinv", self.cdf, 1.0)

    def _upper_quantile(self, q: Tensor) -> Tensor:
        return self._solve(q, "gammainccinv", self.survival, -1.0)

    def _solve(self, q: Tensor, name: str, function: Any, sign: float) -> Tensor:
        inverse = getattr(importlib.import_module("scipy.special"), name)
        with torch.no_grad():
            k = self._k(q)
            x = torch.as_tensor(inverse(k.double().cpu().numpy(), q.double().cpu().numpy()))
            x = x.to(device=q.device, dtype=torch.result_type(k, q))
            slope = self._pdf(x)
            usable = torch.isfinite(x) & (slope > 0)
            start = torch.where(usable, x, 1.0)
        # One Newton step carries the gradients in q and in the shape.
        step = sign * (q - function(start)) / torch.where(usable, slope, 1.0)
        return special.once(torch.where(usable, x + step - step.detach(), x))

    def __str__(self) -> str:
        return f"gamma({number_text(self.shape)})"

    def __repr__(self) -> str:
        return f"Gamma(shape={number_repr(self.shape)})"


class Levy(ClosedForm, kernel=True):
    """Lévy: F(x) = erfc(√(1 / (2x))) for x > 0, else 0."""

    name = "levy"
    formula = "erfc(√(1 / (2x))) for x > 0"
    support = (0.0, math.inf)
    tail = ("finite", "polynomial")

    def _root(self, z: Tensor) -> tuple[Tensor, Tensor]:
        inside = z > torch.finfo(z.dtype).tiny
        return inside, torch.where(inside, z, 1.0).rsqrt()

    def _outside(self, z: Tensor, inside: Tensor, value: Tensor, limit: float) -> Tensor:
        return torch.where(inside, value, torch.where(torch.isnan(z), z, limit))

    def _cdf(self, z: Tensor) -> Tensor:
        inside, r = self._root(z)
        return self._outside(z, inside, torch.erfc(r * math.sqrt(0.5)), 0.0)

    def _survival(self, z: Tensor) -> Tensor:
        inside, r = self._root(z)
        return self._outside(z, inside, torch.erf(r * math.sqrt(0.5)), 1.0)

    def _log_cdf(self, z: Tensor) -> Tensor:
        inside, r = self._root(z)
        low = special.log_ndtr_value(-r) + math.log(2)
        return self._outside(
            z, inside, torch.where(r > 0.5, low, torch.log1p(-torch.erf(r * math.sqrt(0.5)))), -math.inf
        )

    def _log_survival(self, z: Tensor) -> Tensor:
        inside, r = self._root(z)
        low, high = torch.log1p(-torch.erfc(r * math.sqrt(0.5))), torch.log(torch.erf(r * math.sqrt(0.5)))
        return self._outside(z, inside, torch.where(r > 0.5, low, high), 0.0)

    def _pdf(self, z: Tensor) -> Tensor:
        inside, r = self._root(z)
        cube = torch.exp(3 * torch.log(r) - r * r / 2)  # r³ alone may overflow
        return self._outside(z, inside, cube / math.sqrt(2 * math.pi), 0.0)

    def _cdf_rate(self, z: Tensor) -> Tensor:
        inside, r = self._root(z)
        return self._outside(z, inside, special.ndtr_rate(-r) / 2 * r * r * r, 0.0)

    def _survival_rate(self, z: Tensor) -> Tensor:
        inside, r = self._root(z)
        value = self._pdf(z) / torch.erf(r * math.sqrt(0.5))
        return self._outside(z, inside, value, 0.0)

    def _quantile(self, q: Tensor) -> Tensor:
        return torch.special.ndtri(q / 2) ** -2

    def _upper_quantile(self, q: Tensor) -> Tensor:
        return 0.5 * torch.erfinv(q) ** -2
