# SPDX-License-Identifier: Apache-2.0
"""The T-conorms of the renderer family, their T-norms, and the plain average.

Formulas: F. Petersen, "Learning with differentiable algorithms", 2022, appendix B, with its misprint for Dombi put
right; Klement, Mesiar and Pap, "Triangular norms", 2000. All but maximum and average are additive:
⊥(a₁…aₙ) = s⁻¹(min(Σ s(aᵢ), s(1))) with a generator s. They are computed here from log a and log(1 - a), so that
neither a value close to 0 nor one close to 1, nor its gradient, is lost.
"""

import math
from collections.abc import Callable
from typing import Any

import torch

from geodiff.soft import special
from geodiff.soft.parameters import Parameter, Tensor, parameter
from geodiff.soft.tconorm_base import (
    NILPOTENT,
    STRICT,
    LogSpaceTConorm,
    Reduced,
    TConormProperties,
    probabilities_of,
)
from geodiff.validation import fail

__all__ = [
    "Average",
    "Einstein",
    "Frank",
    "Hamacher",
    "Maximum",
    "Probabilistic",
    "SugenoWeber",
]

_MOST = 1e30 * (1 + 1e-6)  # 1e30 in float32 is a little more


class Maximum(LogSpaceTConorm, kernel=True):
    """The least T-conorm: max(a, b). Among equal largest values the first one gets the gradient."""

    name = "maximum"
    formula = "max(a, b)"
    properties = TConormProperties(True, False, False, True, False, False)

    def _combine(self, a: Tensor, b: Tensor) -> Tensor:
        return torch.where(b > a, b, a)

    def aggregate(self, probabilities: Tensor, dim: int) -> Tensor:
        """Max along an axis, 0 where it is empty."""
        a = probabilities_of(f"{self}.aggregate", "probabilities", probabilities)
        if a.shape[dim] == 0:
            return a.sum(dim)
        return a.gather(dim, a.argmax(dim, keepdim=True)).squeeze(dim)

    def _reduce_finite(self, log_a: Tensor, log_c: Tensor, dim: int) -> Reduced:
        first = log_a.argmax(dim, keepdim=True)
        log_a, log_c = log_a.gather(dim, first).squeeze(dim), log_c.gather(dim, first).squeeze(dim)
        return Reduced(_value(log_a, log_c), log_a, log_c)

    def _cull_threshold(self, max_error: float, n: int) -> float:
        return max_error


class Average(LogSpaceTConorm, kernel=True):
    """The mean of all values: a baseline, not a T-conorm (neither associative nor with neutral element 0)."""

    name = "average"
    formula = "(a + b) / 2, and the mean of many"

    def _combine(self, a: Tensor, b: Tensor) -> Tensor:
        return (a + b) / 2

    def aggregate(self, probabilities: Tensor, dim: int) -> Tensor:
        """Mean along an axis, 0 where it is empty."""
        a = probabilities_of(f"{self}.aggregate", "probabilities", probabilities)
        return a.sum(dim) / max(a.shape[dim], 1)

    def _reduce_finite(self, log_a: Tensor, log_c: Tensor, dim: int) -> Reduced:
        n = log_a.shape[dim]
        value, complement = torch.exp(log_a).sum(dim) / n, torch.exp(log_c).sum(dim) / n
        return Reduced(value, special.log(value), special.log(complement))

    def _cull_threshold(self, max_error: float, n: int) -> float:
        return max_error


class Additive(LogSpaceTConorm):
    """A T-conorm with an additive generator s."""

    #: Whether the parameter may be this; in words.
    _range: tuple[str, Callable[[Any], Any]] = ("", lambda p: True)
    #: It is clamped to this, beyond which it makes no difference and float32 may have no such number: powers of 1e30
    #: leave nothing but the largest value, those of 1e-30 are all alike.
    _kept: tuple[float, float] = (1e-30, 1e30)

    def __init__(self, p: Parameter) -> None:
        words, ok = self._range
        value = parameter(type(self).__name__, "p", p, words, ok)
        if isinstance(value, torch.Tensor) and value.numel() != 1:
            raise fail(type(self).__name__, "p", "a number or a tensor with one element", value)
        vars(self)["p"] = value

    def _p(self, like: Tensor) -> Tensor:
        low, high = self._kept
        if isinstance(self.p, torch.Tensor):
            return self.p.clamp(low, high).to(like.device, like.dtype).reshape(())
        return torch.as_tensor(min(max(self.p or 0.0, low), high), dtype=like.dtype, device=like.device)

    def _number(self) -> float:
        return float(self.p.detach()) if isinstance(self.p, torch.Tensor) else float(self.p or 0.0)

    def _flattest(self) -> float:
        """The a where s' is least; 0 if s is convex."""
        return 0.0

    def _slope(self, a: float) -> float:
        """s'(a); needed only where `_flattest` is not 0."""
        raise NotImplementedError

    def _cull_threshold(self, max_error: float, n: int) -> float:
        return float(self._cull_thresholds(max_error, torch.tensor(float(n), dtype=torch.float64, device="cpu"))[0])

    def _cull_thresholds(self, max_error: float, counts: Tensor) -> tuple[Tensor, float]:
        # ε must satisfy n·s(ε) <= s(a + max_error) - s(a) for every a. If s is convex, a = 0 is the worst; else the
        # mean value theorem bounds the difference by max_error times the least slope.
        plain = self if self.p is None else type(self)(self._number())
        a = plain._flattest()
        room = plain.generator(torch.tensor(max_error, dtype=torch.float64, device="cpu"))
        if a > 0:
            room = torch.tensor(max_error * plain._slope(a), dtype=torch.float64, device="cpu")
            return plain.inverse_generator(room / counts.clamp(min=1.0)), 0.0
        return plain.inverse_generator(room / counts), max_error / max(float(room), 1e-300)


class Probabilistic(Additive, kernel=True):
    """The probabilistic sum a + b - ab, with generator s(a) = -log(1 - a)."""

    name = "probabilistic"
    formula = "a + b - ab"
    properties = STRICT

    def __init__(self) -> None:
        pass

    def _combine(self, a: Tensor, b: Tensor) -> Tensor:
        return a + b - a * b

    def generator(self, a: Tensor) -> Tensor:
        """-log(1 - a)."""
        return -torch.log1p(-a)

    def inverse_generator(self, s: Tensor) -> Tensor:
        """1 - exp(-s)."""
        return -special.expm1(-s)

    def _reduce_finite(self, log_a: Tensor, log_c: Tensor, dim: int) -> Reduced:
        total = log_c.sum(dim)
        return Reduced(-special.expm1(total), special.log1mexp(-total), total)


class Einstein(Additive, kernel=True):
    """The Einstein sum (a + b) / (1 + ab), with generator s(a) = artanh(a); it is Hamacher's with p = 2."""

    name = "einstein"
    formula = "(a + b) / (1 + ab)"
    properties = STRICT

    def __init__(self) -> None:
        pass

    def _combine(self, a: Tensor, b: Tensor) -> Tensor:
        return (a + b) / (1 + a * b)

    def generator(self, a: Tensor) -> Tensor:
        """Artanh(a)."""
        return torch.atanh(a)

    def inverse_generator(self, s: Tensor) -> Tensor:
        """Tanh(s)."""
        return -special.expm1(-2 * s) / (1 + torch.exp(-2 * s))

    def _reduce_finite(self, log_a: Tensor, log_c: Tensor, dim: int) -> Reduced:
        total = (log_c - torch.log1p(torch.exp(log_a))).sum(dim)  # -2 Σ s
        e = torch.exp(total)
        log_one = torch.log1p(e)
        value = -special.expm1(total) / (1 + e)
        small = total > -1
        log_rest = torch.where(small, torch.log1p(-value.where(small, 0.0)), total - log_one + math.log(2))
        return Reduced(value, special.log1mexp(-total) - log_one, log_rest)


class Hamacher(Additive, kernel=True):
    """Hamacher's family (a + b + (p - 2)ab) / (1 + (p - 1)ab), p >= 0.

    Generator s(a) = log(1 + p·a/(1 - a)) / p, its limit a/(1 - a) at p = 0. Probabilistic for p = 1, Einstein for 2.

    Args:
        p: the parameter, from 0 to 1e30, a number or a tensor with one element. Default ½.
    """

    name = "hamacher"
    samples = (0.5, 1.0, 2.0, 4.0, 0.0, 8.0)
    formula = "(a + b + (p - 2)ab) / (1 + (p - 1)ab)"
    properties = STRICT._replace(in_p="rises")
    _range = ("from 0 to 1e30", lambda p: (p >= 0) & (p <= _MOST))
    _kept = (0.0, 1e30)

    def __init__(self, p: Parameter = 0.5) -> None:
        super().__init__(p)

    def _combine(self, a: Tensor, b: Tensor) -> Tensor:
        p = self._p(a)
        below = 1 + (p - 1) * a * b
        certain = below == 0
        value = (a + b + (p - 2) * a * b) / torch.where(certain, 1.0, below)
        return torch.where(certain, 1.0, value)

    def generator(self, a: Tensor) -> Tensor:
        """log(1 + p·a/(1 - a)) / p."""
        log_odds = (torch.log(a) - torch.log1p(-a)).clamp(-special.BIG, special.BIG)
        return torch.where(a == 1, math.inf, _odds_term(log_odds, self._p(a)))

    def inverse_generator(self, s: Tensor) -> Tensor:
        """o/(1 + o) with o = (exp(p·s) - 1) / p."""
        return from_log_odds(_log_odds_total(s.clamp(max=special.BIG), self._p(s))).value

    def _reduce_finite(self, log_a: Tensor, log_c: Tensor, dim: int) -> Reduced:
        p = self._p(log_a)
        return from_log_odds(_log_odds_total(_odds_term(log_a - log_c, p).sum(dim), p))

    def _flattest(self) -> float:
        p = self._number()
        return (p - 2) / (2 * (p - 1)) if p > 2 else 0.0

    def _slope(self, a: float) -> float:
        return 1 / ((1 - a) * (1 + (self._number() - 1) * a))


class Frank(Additive, kernel=True):
    """Frank's family 1 - log_p(1 + (p^(1-a) - 1)(p^(1-b) - 1)/(p - 1)), p > 0; probabilistic at p = 1.

    Generator s(a) = -log((p^(1-a) - 1)/(p - 1)), continuous in p.

    Args:
        p: the parameter, from 1e-30 to 1e30, a number or a tensor with one element. Default 2.
    """

    name = "frank"
    samples = (0.5, 1.0, 2.0, 4.0, 0.1, 1 + 1e-7, 10.0)
    formula = "1 - log_p(1 + (p^(1-a) - 1)(p^(1-b) - 1)/(p - 1))"
    properties = STRICT._replace(in_p="rises")
    _range = ("from 1e-30 to 1e30", lambda p: (p >= 1e-30) & (p <= _MOST))

    def __init__(self, p: Parameter = 2.0) -> None:
        super().__init__(p)

    def generator(self, a: Tensor) -> Tensor:
        """-log((p^(1-a) - 1)/(p - 1))."""
        return self._term(torch.log(a), torch.log1p(-a), torch.log(self._p(a)))

    def inverse_generator(self, s: Tensor) -> Tensor:
        """1 - log_p(1 + (p - 1)exp(-s))."""
        return self._inverse(s, torch.log(self._p(s))).value

    def _reduce_finite(self, log_a: Tensor, log_c: Tensor, dim: int) -> Reduced:
        c = torch.log(self._p(log_a))
        return self._inverse(self._term(log_a, log_c, c).sum(dim), c)

    def _term(self, log_a: Tensor, log_c: Tensor, c: Tensor) -> Tensor:
        # With R(t) = log((e^t - 1)/t): s = -log(1 - a·e^(R(-ca) - R(-c))) = -log(1 - a) - R(c(1 - a)) + R(c).
        ratio = special.log_expm1_ratio
        y = torch.exp(log_a + ratio(-c * torch.exp(log_a)) - ratio(-c))
        low = y < 0.5
        small = -torch.log1p(-torch.where(low, y, 0.5))
        large = ratio(c) - log_c - ratio(c * torch.exp(log_c))
        return torch.where(low, small, large)

    def _inverse(self, s: Tensor, c: Tensor) -> Reduced:
        ratio, logs = special.log_expm1_ratio, special.log_log1p_ratio
        low = s < math.log(2)
        near, far = torch.where(low, s, 0.1), torch.where(low, 1.0, s)
        y = -special.expm1(-near)
        log_a = special.log(y) + ratio(-c) + logs(y * special.expm1(-c))
        log_c = ratio(c) - far + logs(special.expm1(c) * torch.exp(-far))
        value = torch.where(low, torch.exp(log_a), -special.expm1(log_c))
        log_rest = torch.log1p(-torch.exp(torch.where(low, log_a, log_c)))
        return Reduced(value, torch.where(low, log_a, log_rest), torch.where(low, log_rest, log_c))


class SugenoWeber(Additive, kernel=True):
    """Sugeno and Weber's family min(1, a + b + p·ab), p > -1: an extra, in none of the family's sources.

    Generator s(a) = log(1 + p·a) / p, its limit a at p = 0; s(1) = log(1 + p) / p. The bounded sum at p = 0; it tends
    to the probabilistic sum as p tends to -1. Nilpotent: several values below 1 may reach 1, and there the gradient is
    0. (Klement, Mesiar and Pap's λ is -p / (1 + p).)

    Args:
        p: the parameter, above -1 and up to 1e30, a number or a tensor with one element. Default -½.
    """

    name = "sugeno_weber"
    samples = (-0.99, -0.5, 0.0, 1.0, 8.0)
    formula = "min(1, a + b + p·ab)"
    properties = NILPOTENT._replace(in_p="rises")
    _range = ("above -1 and up to 1e30", lambda p: (p > -1) & (p <= _MOST))
    _kept = (math.nextafter(-1, 0), 1e30)

    def __init__(self, p: Parameter = -0.5) -> None:
        super().__init__(p)

    def _combine(self, a: Tensor, b: Tensor) -> Tensor:
        value = a + b + self._p(a) * a * b
        return torch.where(value < 1, value, 1.0)

    def generator(self, a: Tensor) -> Tensor:
        """log(1 + p·a) / p."""
        return a * torch.exp(special.log_log1p_ratio(self._p(a) * a))

    def inverse_generator(self, s: Tensor) -> Tensor:
        """(exp(p·s) - 1) / p, at most 1."""
        p, limit = self._p(s), self.generator(torch.ones_like(s))
        low = torch.minimum(s, limit)
        return torch.where(s < limit, low * torch.exp(special.log_expm1_ratio(p * low)), 1.0)

    def _reduce_finite(self, log_a: Tensor, log_c: Tensor, dim: int) -> Reduced:
        given, p = log_a.dtype, self._p(log_a.double())  # float32 has nothing between -1 and -1 + 6e-8
        log_a, log_c = log_a.double(), log_c.double()
        with torch.no_grad():
            a, c = torch.exp(log_a), torch.exp(log_c)
            low, rise = log_a < -0.7, torch.where(p * a < -0.5, c + (1 + p) * a, 1 + p * a)
            s = torch.where(
                p * a < -0.5, torch.log(rise) / p, a * torch.exp(special.log_log1p_ratio((p * a).clamp(-0.5)))
            )
            # What the largest lacks of s(1), from its 1 - a: in s itself it may be less than rounding.
            first = log_a.argmax(dim, keepdim=True)
            near = torch.where(low, 0.0, c / rise)
            lack = torch.where(
                low, self.generator(torch.ones_like(s)) - s, near * torch.exp(special.log_log1p_ratio(p * near))
            )
            lack = lack.gather(dim, first).squeeze(dim) - s.scatter(dim, first, 0.0).sum(dim)
        s = special.known(
            s, (log_a, torch.where(low, a / rise, 0.0)), (log_c, torch.where(low, 0.0, -c / rise)), (p, _by_p(s, p))
        )
        t = s.sum(dim)
        with torch.no_grad():
            z, free = p * t, lack > 0
            lack = torch.where(free, lack, 1.0)
            log_rest = z + torch.log(lack) + special.log_expm1_ratio(p * lack)
            log_value = torch.log(t) + special.log_expm1_ratio(z)
            low = log_value < -0.7
            log_rest = torch.where(low, torch.log1p(-torch.exp(log_value.clamp(max=-0.7))), log_rest)
            log_value = torch.where(low, log_value, torch.log1p(-torch.exp(log_rest)))
            value = torch.exp(log_value)
            slope = torch.where(free, torch.exp(z), 0.0)
            log_value, log_rest = log_value.clamp(min=-special.BIG), torch.where(free, log_rest, -special.BIG)
            value, log_value = torch.where(free, value, 1.0), torch.where(free, log_value, 0.0)
        by_p = -slope * _by_p(t.detach(), p.detach())
        results = []
        for result, factor in ((value, torch.ones_like(t)), (log_value, 1 / value), (log_rest, -torch.exp(-log_rest))):
            factor = torch.where((slope == 0) | (value == 0), 0.0, factor)
            results.append(special.known(result, (t, slope * factor), (p, by_p * factor)).to(given))
        return Reduced(*results)

    def _flattest(self) -> float:
        return 1.0 if self._number() > 0 else 0.0

    def _slope(self, a: float) -> float:
        return 1 / (1 + self._number() * a)


# Helpers --------------------------------------------------------------------------------------------------------------


def _value(log_a: Tensor, log_c: Tensor) -> Tensor:
    """A probability from its logarithm and its complement's, by the one that is accurate."""
    return torch.where(log_a < -0.7, torch.exp(log_a), -special.expm1(log_c))


def from_log_odds(log_odds: Tensor) -> Reduced:
    """Return the probability with these log odds, and its logarithms."""
    log_a, log_c = torch.nn.functional.logsigmoid(log_odds), torch.nn.functional.logsigmoid(-log_odds)
    return Reduced(_value(log_a, log_c), log_a, log_c)


def _odds_term(log_odds: Tensor, p: Tensor) -> Tensor:
    """Hamacher's generator log(1 + p·o)/p as a function of log o, down to p = 0."""
    with torch.no_grad():
        most = math.log(torch.finfo(log_odds.dtype).max) - 1
        odds = torch.exp(log_odds.clamp(max=most))
        u = log_odds + torch.log(p)
        t = torch.exp(u.clamp(max=0))
        near = u < math.log(0.05)
        value = torch.where(u < 0, odds * _log1p_over(t), torch.nn.functional.softplus(u, threshold=40) / p)
        by_odds = torch.where(u < 0, odds / (1 + t), 1 / (torch.exp(-log_odds.clamp(min=-most)) + p))
        series = torch.zeros_like(t)
        for n in range(14, 1, -1):  # (t/(1 + t) - log(1 + t))/t² = -Σ (-t)^(n-2)·(n - 1)/n
            series = -(n - 1) / n - t * series
        far = (torch.sigmoid(u) - torch.nn.functional.softplus(u, threshold=40)) / (p * p)
        by_p = torch.where(near, (odds * series) * odds, far)
        by_p = torch.where(log_odds > most, 0.0, by_p)  # a = 1, whatever p
    return special.known(value, (log_odds, by_odds), (p, by_p))


def _log_odds_total(s: Tensor, p: Tensor) -> Tensor:
    """Logarithm of (exp(p·s) - 1)/p, the inverse of `_odds_term`, down to p = 0."""
    with torch.no_grad():
        most = s.clamp(max=torch.finfo(s.dtype).max)  # 0·∞ at p = 0 would be NaN
        v = p * most
        value = torch.log(most) + special.log_expm1_ratio(v)
        by_s = torch.where(s == 0, 0.0, torch.exp(-torch.log(most) - special.log_expm1_ratio(-v)))
        full = torch.log(most) > math.log(torch.finfo(s.dtype).max) - 1.5  # ⊥ = 1, whatever p
        by_p = torch.where(full, 0.0, most * special.log_expm1_ratio_slope(v))
    return special.known(value.clamp(min=-special.BIG), (s, by_s), (p, by_p))


def _by_p(s: Tensor, p: Tensor) -> Tensor:
    """Slope in p of Sugeno and Weber's generator log(1 + p·a)/p at fixed a, written in s."""
    z = p * s
    series = torch.zeros_like(z)
    for n in range(20, 1, -1):  # (exp(-z) - 1 + z)/z² = Σ (-z)^(n-2)/n!
        series = 1 / math.factorial(n) - z * series
    far = (torch.expm1(-z) + z) / (p * p)
    return -torch.where(z.abs() < 1, s * s * series, far)


def _log1p_over(t: Tensor) -> Tensor:
    s = torch.where(t == 0, 1.0, t)
    return torch.where(t == 0, 1.0, torch.log1p(s) / s)
