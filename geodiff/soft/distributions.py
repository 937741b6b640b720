# SPDX-License-Identifier: Apache-2.0
"""The symmetric distributions of the renderer family, and the hard step; the others are in `geodiff.soft.skewed`.

Formulas: F. Petersen, "Learning with differentiable algorithms", 2022, appendix A, and equation 3.24 for the optimal
one; the algebraic one is none of the source's. Each class states values for the lower tail in closed form, so that F,
1 - F and their logarithms keep relative accuracy on both sides, and gives slopes analytically, so that gradients
survive where F rounds to 0 or 1.
"""

import math

import torch

from geodiff.soft import special
from geodiff.soft.distribution_base import ClosedForm, Symmetric
from geodiff.soft.parameters import Tensor

__all__ = [
    "Algebraic",
    "Cauchy",
    "CubicHermite",
    "Gaussian",
    "Heaviside",
    "HyperbolicSecant",
    "Laplace",
    "Logistic",
    "Optimal",
    "Reciprocal",
    "Uniform",
    "WignerSemicircle",
]


class Heaviside(ClosedForm, kernel=True):
    """The hard step: F(x) = 0 for x < 0, 1 for x >= 0. Its gradient is 0 everywhere."""

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


class Uniform(Symmetric, kernel=True):
    """Uniform on [-1, 1]: F(x) = (1 + x) / 2."""

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


class CubicHermite(Symmetric, kernel=True):
    """Smoothstep on [-1, 1]: F(x) = 3y² - 2y³ with y = (x + 1) / 2."""

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


class WignerSemicircle(Symmetric, kernel=True):
    """Semicircle density on [-1, 1]: F(x) = 1/2 + (x √(1 - x²) + asin x) / π."""

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


class Gaussian(Symmetric, kernel=True):
    """Standard normal: F(x) = (1 + erf(x / √2)) / 2."""

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


class Laplace(Symmetric, kernel=True):
    """Double exponential: F(x) = exp(x) / 2 for x <= 0, 1 - exp(-x) / 2 above."""

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


class Logistic(Symmetric, kernel=True):
    """Logistic sigmoid: F(x) = 1 / (1 + exp(-x))."""

    name = "logistic"
    formula = "1 / (1 + exp(-x))"
    tail = ("exponential", "exponential")

    def _low(self, z: Tensor) -> Tensor:
        return torch.sigmoid(z)

    def _log_cdf(self, z: Tensor) -> Tensor:
        return torch.nn.functional.logsigmoid(z)

    def _cdf_rate(self, z: Tensor) -> Tensor:
        return torch.sigmoid(-z)

    def _pdf(self, z: Tensor) -> Tensor:
        return torch.sigmoid(z) * torch.sigmoid(-z)

    def _quantile_low(self, q: Tensor) -> Tensor:
        return torch.log(q) - torch.log1p(-q)


class HyperbolicSecant(Symmetric, kernel=True):
    """Gudermannian: F(x) = (2/π) atan(exp(πx/2))."""

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


class Cauchy(Symmetric, kernel=True):
    """Cauchy: F(x) = 1/2 + atan(x) / π."""

    name = "cauchy"
    formula = "1/2 + atan(x) / π"
    tail = ("polynomial", "polynomial")

    def _low(self, z: Tensor) -> Tensor:
        return torch.atan2(torch.ones_like(z), -z) / math.pi

    def _pdf(self, z: Tensor) -> Tensor:
        return 1 / (math.pi * (1 + z * z))

    def _quantile_low(self, q: Tensor) -> Tensor:
        return -1 / torch.tan(math.pi * q)


class Reciprocal(Symmetric, kernel=True):
    """Reciprocal sigmoid: F(x) = 1/2 + x / (2 + 2|x|)."""

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


class Algebraic(Symmetric, kernel=True):
    """Algebraic sigmoid: F(x) = 1/2 + x / (2 √(1 + x²)). An extra, in none of the family's sources."""

    name = "algebraic"
    formula = "1/2 + x / (2 √(1 + x²))"
    tail = ("polynomial", "polynomial")

    def _parts(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Return r = √(1 + z²) and r + |z|; F = 1 / (2 r (r + |z|)) for z <= 0."""
        r = torch.hypot(torch.ones_like(z), z)
        return r, r + z.abs()

    def _low(self, z: Tensor) -> Tensor:
        r, total = self._parts(z)
        return 0.5 / r / total

    def _log_low(self, z: Tensor) -> Tensor:
        r, total = self._parts(z)
        return -torch.log(r) - torch.log(total) - math.log(2)

    def _rate_low(self, z: Tensor) -> Tensor:
        r, _ = self._parts(z)
        return (1 + z.abs().clamp(max=1e30) / r) / r

    def _pdf(self, z: Tensor) -> Tensor:
        r, _ = self._parts(z)
        return 0.5 / r / r / r

    def _quantile_low(self, q: Tensor) -> Tensor:
        return (q - 0.5) / (q * (1 - q)).sqrt()


class Optimal(Symmetric, kernel=True):
    """The sigmoid of slope 1 whose relaxed minimum is monotone and least off: 1/16 at most. F(x) = x + 1/2 near 0."""

    name = "optimal"
    formula = "x + 1/2 for |x| <= 1/4, -1 / (16x) for x < -1/4, 1 - 1 / (16x) for x > 1/4"
    tail = ("polynomial", "polynomial")

    def _low(self, z: Tensor) -> Tensor:
        return torch.where(z < -0.25, -0.0625 / z.clamp(max=-0.25), 0.5 + z.clamp(min=-0.25))

    def _pdf(self, z: Tensor) -> Tensor:
        return 0.0625 / z.abs().clamp(min=0.25) ** 2

    def _quantile_low(self, q: Tensor) -> Tensor:
        return torch.where(q < 0.25, -0.0625 / q.clamp(max=0.25), q - 0.5)
