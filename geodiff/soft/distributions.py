# SPDX-License-Identifier: Apache-2.0
"""The fifteen distributions of the renderer family.

Formulas: F. Petersen, "Learning with differentiable algorithms", 2022, appendix A, with its misprint for Gumbel-min put
right. Each class states values for the lower tail in closed form, so that F, 1 - F and their logarithms keep relative
accuracy on both sides, and gives slopes analytically, so that gradients survive where F rounds to 0 or 1.
"""

import math
from typing import Any

import scipy.special
import torch

from geodiff.soft import special
from geodiff.soft.distribution_base import ClosedForm, Symmetric
from geodiff.soft.parameters import Parameter, Tensor, number_repr, number_text, parameter


class Heaviside(ClosedForm):
    """The hard step: F(x) = 0 for x < 0, 1 for x >= 0. Its gradient is 0 everywhere."""

    kernel_id = 0
    name = "heaviside"
    formula = "0 for x < 0, 1 for x >= 0"
    support = (0.0, 0.0)
    tail = ("finite", "finite")

    def _step(self, z: Tensor, below: float, above: float) -> Tensor:
        value = torch.where(z >= 0, torch.full_like(z, above), torch.full_like(z, below))
        return torch.where(torch.isnan(z), z, value)

    def _cdf(self, z: Tensor) -> Tensor:
        return self._step(z, 0.0, 1.0)

    def _survival(self, z: Tensor) -> Tensor:
        return self._step(z, 1.0, 0.0)

    def _log_cdf(self, z: Tensor) -> Tensor:
        return self._step(z, -math.inf, 0.0)

    def _log_survival(self, z: Tensor) -> Tensor:
        return self._step(z, 0.0, -math.inf)

    def _pdf(self, z: Tensor) -> Tensor:
        return torch.zeros_like(z)

    _cdf_rate = _pdf
    _survival_rate = _pdf

    def _quantile(self, q: Tensor) -> Tensor:
        return torch.zeros_like(q)

    _upper_quantile = _quantile


class Uniform(Symmetric):
    """Uniform on [-1, 1]: F(x) = (1 + x) / 2."""

    kernel_id = 1
    name = "uniform"
    formula = "(1 + x) / 2 on [-1, 1]"
    support = (-1.0, 1.0)
    tail = ("finite", "finite")

    def _low(self, z: Tensor) -> Tensor:
        return (1 + z.clamp(min=-1)) / 2

    def _pdf(self, z: Tensor) -> Tensor:
        return torch.where(z.abs() <= 1, torch.full_like(z, 0.5), torch.zeros_like(z))

    def _quantile_low(self, q: Tensor) -> Tensor:
        return 2 * q - 1


class CubicHermite(Symmetric):
    """Smoothstep on [-1, 1]: F(x) = 3y² - 2y³ with y = (x + 1) / 2."""

    kernel_id = 2
    name = "cubic_hermite"
    formula = "3y² - 2y³, y = (x + 1) / 2, on [-1, 1]"
    support = (-1.0, 1.0)
    tail = ("finite", "finite")

    def _low(self, z: Tensor) -> Tensor:
        y = (1 + z.clamp(min=-1)) / 2
        return y * y * (3 - 2 * y)

    def _pdf(self, z: Tensor) -> Tensor:
        return 0.75 * ((1 - z) * (1 + z)).clamp(min=0)

    def _quantile_low(self, q: Tensor) -> Tensor:
        third = torch.asin(q.sqrt()) / 3  # q = sin²(3·third) turns the cubic into the triple angle
        return 4 * torch.cos(math.pi / 6 - third) * torch.sin(third) - 1


class WignerSemicircle(Symmetric):
    """Semicircle density on [-1, 1]: F(x) = 1/2 + (x √(1 - x²) + asin x) / π."""

    kernel_id = 3
    name = "wigner_semicircle"
    formula = "1/2 + (x √(1 - x²) + asin x) / π on [-1, 1]"
    support = (-1.0, 1.0)
    tail = ("finite", "finite")

    def _low(self, z: Tensor) -> Tensor:
        # With x = -cos(angle / 2), F = (angle - sin angle) / 2π.
        z = z.clamp(min=-1)
        return _angle_minus_sine(4 * torch.asin(((1 + z) / 2).sqrt())) / (2 * math.pi)

    def _pdf(self, z: Tensor) -> Tensor:
        square = ((1 - z) * (1 + z)).clamp(min=0)
        inside = square > 0
        return torch.where(inside, 2 / math.pi * torch.where(inside, square, 1.0).sqrt(), square)

    def _quantile_low(self, q: Tensor) -> Tensor:
        with torch.no_grad():
            angle = (12 * math.pi * q).pow(1 / 3)  # below the root, whence Newton's iteration is monotone
            for _ in range(10):
                half = torch.sin(angle / 2)
                excess = _angle_minus_sine(angle) - 2 * math.pi * q
                angle = torch.where(half == 0, angle, angle - excess / (2 * half * half))
            z = 2 * torch.sin(angle / 4) ** 2 - 1
            slope = 1 / self._pdf(z)
        return special.known(z, (q, slope))


def _angle_minus_sine(angle: Tensor) -> Tensor:
    h = angle * angle
    series = torch.ones_like(h)
    for n in range(8, 0, -1):
        series = 1 - h / ((2 * n + 2) * (2 * n + 3)) * series
    return torch.where(angle < 1, angle * h / 6 * series, angle - torch.sin(angle))


class Gaussian(Symmetric):
    """Standard normal: F(x) = (1 + erf(x / √2)) / 2."""

    kernel_id = 4
    name = "gaussian"
    formula = "(1 + erf(x / √2)) / 2"
    tail = ("super-exponential", "super-exponential")

    def _low(self, z: Tensor) -> Tensor:
        return torch.erfc(z * -math.sqrt(0.5)) / 2

    def _log_low(self, z: Tensor) -> Tensor:
        return special.log_ndtr_value(z)

    def _rate_low(self, z: Tensor) -> Tensor:
        return special.ndtr_rate(z)

    def _pdf(self, z: Tensor) -> Tensor:
        return torch.exp(-z * z / 2) / math.sqrt(2 * math.pi)

    def _quantile_low(self, q: Tensor) -> Tensor:
        return torch.special.ndtri(q)


class Laplace(Symmetric):
    """Double exponential: F(x) = exp(x) / 2 for x <= 0, 1 - exp(-x) / 2 above."""

    kernel_id = 5
    name = "laplace"
    formula = "exp(x) / 2 for x <= 0, 1 - exp(-x) / 2 for x >= 0"
    tail = ("exponential", "exponential")

    def _low(self, z: Tensor) -> Tensor:
        return torch.exp(z) / 2

    def _log_low(self, z: Tensor) -> Tensor:
        return z - math.log(2)

    def _rate_low(self, z: Tensor) -> Tensor:
        return torch.ones_like(z)

    def _pdf(self, z: Tensor) -> Tensor:
        return torch.exp(-z.abs()) / 2

    def _quantile_low(self, q: Tensor) -> Tensor:
        return torch.log(2 * q)


class Logistic(Symmetric):
    """Logistic sigmoid: F(x) = 1 / (1 + exp(-x))."""

    kernel_id = 6
    name = "logistic"
    formula = "1 / (1 + exp(-x))"
    tail = ("exponential", "exponential")

    def _low(self, z: Tensor) -> Tensor:
        return torch.sigmoid(z)

    def _log_low(self, z: Tensor) -> Tensor:
        return torch.nn.functional.logsigmoid(z)

    def _rate_low(self, z: Tensor) -> Tensor:
        return torch.sigmoid(-z)

    def _pdf(self, z: Tensor) -> Tensor:
        return torch.sigmoid(z) * torch.sigmoid(-z)

    def _quantile_low(self, q: Tensor) -> Tensor:
        return torch.log(q) - torch.log1p(-q)


class HyperbolicSecant(Symmetric):
    """Gudermannian: F(x) = (2/π) atan(exp(πx/2))."""

    kernel_id = 7
    name = "hyperbolic_secant"
    formula = "(2/π) atan(exp(πx/2))"
    tail = ("exponential", "exponential")

    def _low(self, z: Tensor) -> Tensor:
        return 2 / math.pi * torch.atan(torch.exp(math.pi / 2 * z))

    def _log_low(self, z: Tensor) -> Tensor:
        return math.pi / 2 * z + torch.log(2 / math.pi / self._ratio(z))

    def _rate_low(self, z: Tensor) -> Tensor:
        return math.pi / 2 * self._ratio(z) / (1 + torch.exp(math.pi * z))

    def _ratio(self, z: Tensor) -> Tensor:
        e = torch.exp(math.pi / 2 * z)
        small = e < 1e-5
        s = torch.where(small, 1.0, e)
        return torch.where(small, 1 + e * e / 3, s / torch.atan(s))

    def _pdf(self, z: Tensor) -> Tensor:
        e = torch.exp(-math.pi / 2 * z.abs())
        return e / (1 + e * e)

    def _quantile_low(self, q: Tensor) -> Tensor:
        return 2 / math.pi * torch.log(torch.tan(math.pi / 2 * q))


class Cauchy(Symmetric):
    """Cauchy: F(x) = 1/2 + atan(x) / π."""

    kernel_id = 8
    name = "cauchy"
    formula = "1/2 + atan(x) / π"
    tail = ("polynomial", "polynomial")

    def _low(self, z: Tensor) -> Tensor:
        return torch.atan2(torch.ones_like(z), -z) / math.pi

    def _pdf(self, z: Tensor) -> Tensor:
        return 1 / (math.pi * (1 + z * z))

    def _quantile_low(self, q: Tensor) -> Tensor:
        return -1 / torch.tan(math.pi * q)


class Reciprocal(Symmetric):
    """Reciprocal sigmoid: F(x) = 1/2 + x / (2 + 2|x|)."""

    kernel_id = 9
    name = "reciprocal"
    formula = "1/2 + x / (2 + 2|x|)"
    tail = ("polynomial", "polynomial")

    def _low(self, z: Tensor) -> Tensor:
        return 1 / (2 - 2 * z)

    def _log_low(self, z: Tensor) -> Tensor:
        return -torch.log1p(-z) - math.log(2)

    def _rate_low(self, z: Tensor) -> Tensor:
        return 1 / (1 - z)

    def _pdf(self, z: Tensor) -> Tensor:
        return 0.5 / (1 + z.abs()) ** 2

    def _quantile_low(self, q: Tensor) -> Tensor:
        return 1 - 0.5 / q


class GumbelMax(ClosedForm):
    """Distribution of the maximum of many: F(x) = exp(-exp(-x))."""

    kernel_id = 10
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


class GumbelMin(ClosedForm):
    """Distribution of the minimum of many: F(x) = 1 - exp(-exp(x)), the reverse of `GumbelMax`."""

    kernel_id = 11
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


class Exponential(ClosedForm):
    """Exponential: F(x) = 1 - exp(-x) for x >= 0, else 0."""

    kernel_id = 12
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


class Gamma(ClosedForm):
    """Gamma distribution of shape k: F(x) = P(k, x), the regularised lower incomplete gamma function, for x >= 0.

    Differentiable in the shape, too (`geodiff.soft.special.gammainc`), except `quantile` and the values themselves
    twice. For k < 1 the density is infinite at 0; it and the slope of F are set to 0 at x = 0 exactly.

    Args:
        shape: k > 0, a number or a floating tensor that broadcasts with x. Default ½.

    Raises:
        ValueError: if the shape is not positive and finite.
    """

    kernel_id = 13
    name = "gamma"
    parametric = True
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
        return self._solve(q, scipy.special.gammaincinv, self.cdf, 1.0)

    def _upper_quantile(self, q: Tensor) -> Tensor:
        return self._solve(q, scipy.special.gammainccinv, self.survival, -1.0)

    def _solve(self, q: Tensor, inverse: Any, function: Any, sign: float) -> Tensor:
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


class Levy(ClosedForm):
    """Lévy: F(x) = erfc(√(1 / (2x))) for x > 0, else 0."""

    kernel_id = 14
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
