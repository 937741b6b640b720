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

from geodiff.modes import is_transformed
from geodiff.soft import special
from geodiff.soft.parameters import Parameter, Tensor, parameter
from geodiff.soft.tconorm_base import LogSpaceTConorm, Reduced, probabilities_of
from geodiff.validation import fail


class Maximum(LogSpaceTConorm):
    """The least T-conorm: max(a, b). Among equal largest values the first one gets the gradient."""

    kernel_id = 0
    name = "maximum"
    formula = "max(a, b)"

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


class Average(LogSpaceTConorm):
    """The mean of all values: a baseline, not a T-conorm (neither associative nor with neutral element 0)."""

    kernel_id = 9
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

    def __init__(self, p: Parameter) -> None:
        words, ok = self._range
        value = parameter(type(self).__name__, "p", p, words, ok)
        if isinstance(value, torch.Tensor) and value.numel() != 1:
            raise fail(type(self).__name__, "p", "a number or a tensor with one element", value)
        vars(self)["p"] = value

    def _p(self, like: Tensor) -> Tensor:
        p = torch.as_tensor(self.p, dtype=like.dtype, device=like.device)
        return p.reshape(())

    def _number(self) -> float:
        return float(self.p.detach()) if isinstance(self.p, torch.Tensor) else float(self.p or 0.0)

    def _flattest(self) -> float:
        """The a where s' is least; 0 if s is convex."""
        return 0.0

    def _slope(self, a: float) -> float:
        """s'(a); needed only where `_flattest` is not 0."""
        raise NotImplementedError

    def _cull_threshold(self, max_error: float, n: int) -> float:
        # ε must satisfy n·s(ε) <= s(a + max_error) - s(a) for every a. If s is convex, a = 0 is the worst; else the
        # mean value theorem bounds the difference by max_error times the least slope.
        plain = self if self.p is None else type(self)(self._number())
        a = plain._flattest()
        room = plain.generator(torch.tensor(max_error, dtype=torch.float64))
        if a > 0:
            room = torch.tensor(max_error * plain._slope(a), dtype=torch.float64)
        return float(plain.inverse_generator(room / n))


class Probabilistic(Additive):
    """The probabilistic sum a + b - ab, with generator s(a) = -log(1 - a)."""

    kernel_id = 1
    name = "probabilistic"
    formula = "a + b - ab"

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


class Einstein(Additive):
    """The Einstein sum (a + b) / (1 + ab), with generator s(a) = artanh(a); it is Hamacher's with p = 2."""

    kernel_id = 2
    name = "einstein"
    formula = "(a + b) / (1 + ab)"

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
        log_rest = torch.where(total > -1, torch.log1p(-value), total - log_one + math.log(2))
        return Reduced(value, special.log1mexp(-total) - log_one, log_rest)


class Hamacher(Additive):
    """Hamacher's family (a + b + (p - 2)ab) / (1 + (p - 1)ab), p >= 0.

    Generator s(a) = log(1 + p·a/(1 - a)) / p, its limit a/(1 - a) at p = 0. Probabilistic for p = 1, Einstein for 2.

    Args:
        p: the parameter, >= 0, a number or a tensor with one element. Default ½.
    """

    kernel_id = 3
    name = "hamacher"
    parametric = True
    formula = "(a + b + (p - 2)ab) / (1 + (p - 1)ab)"
    _range = ("at least 0 and finite", lambda p: p >= 0)

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
        return _from_log_odds(_log_odds_total(s.clamp(max=special.BIG), self._p(s))).value

    def _reduce_finite(self, log_a: Tensor, log_c: Tensor, dim: int) -> Reduced:
        p = self._p(log_a)
        return _from_log_odds(_log_odds_total(_odds_term(log_a - log_c, p).sum(dim), p))

    def _flattest(self) -> float:
        p = self._number()
        return (p - 2) / (2 * (p - 1)) if p > 2 else 0.0

    def _slope(self, a: float) -> float:
        return 1 / ((1 - a) * (1 + (self._number() - 1) * a))


class Frank(Additive):
    """Frank's family 1 - log_p(1 + (p^(1-a) - 1)(p^(1-b) - 1)/(p - 1)), p > 0; probabilistic at p = 1.

    Generator s(a) = -log((p^(1-a) - 1)/(p - 1)), continuous in p.

    Args:
        p: the parameter, > 0, a number or a tensor with one element. Default 2.
    """

    kernel_id = 4
    name = "frank"
    parametric = True
    formula = "1 - log_p(1 + (p^(1-a) - 1)(p^(1-b) - 1)/(p - 1))"
    _range = ("positive and finite", lambda p: p > 0)

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


class Power(Additive):
    """A T-conorm that is a p-norm ‖v‖_p of some monotone v(a): s = v^p."""

    parametric = True
    _range = ("positive and finite", lambda p: p > 0)

    def __init__(self, p: Parameter = 2.0) -> None:
        super().__init__(p)

    def _drops_zeros(self) -> Tensor:
        return torch.as_tensor(self.p).detach() < 1


class Yager(Power):
    """Yager's family min(1, (a^p + b^p)^(1/p)), p > 0; the bounded sum at p = 1. Generator s(a) = a^p, s(1) = 1.

    Nilpotent: several values below 1 may reach 1, and there the gradient is 0.

    Args:
        p: the parameter, > 0, a number or a tensor with one element. Default 2.
    """

    kernel_id = 5
    name = "yager"
    formula = "min(1, (a^p + b^p)^(1/p))"

    def generator(self, a: Tensor) -> Tensor:
        """a^p."""
        return a ** self._p(a)

    def inverse_generator(self, s: Tensor) -> Tensor:
        """min(s, 1)^(1/p)."""
        return s.clamp(max=1) ** (1 / self._p(s))

    def _reduce_finite(self, log_a: Tensor, log_c: Tensor, dim: int) -> Reduced:
        log_norm = _log_norm(log_a, self._p(log_a), dim)
        free = log_norm < 0
        log_value = torch.where(free, log_norm, 0.0)
        rest = special.log1mexp(-log_value)
        return Reduced(torch.exp(log_value), log_value, torch.where(free, rest, -special.BIG))

    def _flattest(self) -> float:
        return 1.0 if self._number() < 1 else 0.0

    def _slope(self, a: float) -> float:
        return self._number()


class AczelAlsina(Power):
    """Aczél and Alsina's family 1 - exp(-(L(a)^p + L(b)^p)^(1/p)) with L(a) = -log(1 - a), p > 0.

    Generator s(a) = L(a)^p. Probabilistic for p = 1.

    Args:
        p: the parameter, > 0, a number or a tensor with one element. Default 2.
    """

    kernel_id = 6
    name = "aczel_alsina"
    formula = "1 - exp(-(L(a)^p + L(b)^p)^(1/p)), L(a) = -log(1 - a)"

    def generator(self, a: Tensor) -> Tensor:
        """(-log(1 - a))^p."""
        return (-torch.log1p(-a)) ** self._p(a)

    def inverse_generator(self, s: Tensor) -> Tensor:
        """1 - exp(-s^(1/p))."""
        return -special.expm1(-(s ** (1 / self._p(s))))

    def _reduce_finite(self, log_a: Tensor, log_c: Tensor, dim: int) -> Reduced:
        low = log_a < -0.7
        near = torch.where(low, log_a, -1.0)
        # log L(a) = log a + log(L(a)/a) for small a, of which nothing underflows
        log_l = torch.where(
            low, near + special.log_log1p_ratio(-torch.exp(near)), torch.log(torch.where(low, 1.0, -log_c))
        )
        log_norm = _log_norm(log_l, self._p(log_a), dim).clamp(max=69)  # exp(69) is just below BIG
        norm = torch.exp(log_norm)
        log_value = torch.where(log_norm < 0, log_norm + special.log_expm1_ratio(-norm), special.log1mexp(norm))
        return Reduced(-special.expm1(-norm), log_value, -norm)

    def _flattest(self) -> float:
        return -math.expm1(self._number() - 1) if self._number() < 1 else 0.0

    def _slope(self, a: float) -> float:
        p, length = self._number(), -math.log1p(-a)
        return p * length ** (p - 1) / (1 - a)


class Dombi(Power):
    """Dombi's family o/(1 + o), o = (o(a)^p + o(b)^p)^(1/p) with the odds o(a) = a/(1 - a), p > 0.

    Generator s(a) = (a/(1 - a))^p. Hamacher's with p = 0 for p = 1.

    Args:
        p: the parameter, > 0, a number or a tensor with one element. Default 2.
    """

    kernel_id = 7
    name = "dombi"
    formula = "1 / (1 + ((a/(1-a))^p + (b/(1-b))^p)^(-1/p))"

    def generator(self, a: Tensor) -> Tensor:
        """(a/(1 - a))^p."""
        return (a / (1 - a)) ** self._p(a)

    def inverse_generator(self, s: Tensor) -> Tensor:
        """o/(1 + o) with o = s^(1/p)."""
        odds = s ** (1 / self._p(s))
        return torch.where(torch.isinf(odds), 1.0, odds / (1 + odds))

    def _reduce_finite(self, log_a: Tensor, log_c: Tensor, dim: int) -> Reduced:
        return _from_log_odds(_log_norm(log_a - log_c, self._p(log_a), dim))

    def _flattest(self) -> float:
        return (1 - self._number()) / 2 if self._number() < 1 else 0.0

    def _slope(self, a: float) -> float:
        p = self._number()
        return p * a ** (p - 1) * (1 - a) ** (-p - 1)


class SchweizerSklar(Additive):
    """Schweizer and Sklar's family 1 - ((1 - a)^p + (1 - b)^p - 1)^(1/p), p < 0.

    Generator s(a) = (1 - a)^p - 1. Hamacher's with p = 0 for p = -1.

    Args:
        p: the parameter, < 0, a number or a tensor with one element. Default -2.
    """

    kernel_id = 8
    name = "schweizer_sklar"
    parametric = True
    formula = "1 - ((1 - a)^p + (1 - b)^p - 1)^(1/p)"
    _range = ("negative and finite", lambda p: p < 0)

    def __init__(self, p: Parameter = -2.0) -> None:
        super().__init__(p)

    def generator(self, a: Tensor) -> Tensor:
        """(1 - a)^p - 1."""
        return special.expm1(self._p(a) * torch.log1p(-a))

    def inverse_generator(self, s: Tensor) -> Tensor:
        """1 - (1 + s)^(1/p)."""
        return -special.expm1(torch.log1p(s) / self._p(s))

    def _reduce_finite(self, log_a: Tensor, log_c: Tensor, dim: int) -> Reduced:
        p = self._p(log_a)
        u = p * log_c  # log(1 + s(a))
        top = u.detach().amax(dim, keepdim=True)
        near = u < 1
        # 1 + Σ s = e^top·(e^-top + Σ e^-top·s), every term positive and none overflowing
        scaled = torch.where(
            near, torch.exp(-top) * special.expm1(torch.where(near, u, 0.0)), torch.exp(u - top) - torch.exp(-top)
        )
        top, total = top.squeeze(dim), scaled.sum(dim)
        small = top < 1
        exact = torch.log1p(special.expm1(torch.where(small.unsqueeze(dim), u, 0.0)).sum(dim))
        log_sum = torch.where(small, exact, top + torch.log(torch.exp(-top) + total))
        log_rest = log_sum / p
        return Reduced(-special.expm1(log_rest), special.log1mexp(-log_rest), log_rest)


# Helpers --------------------------------------------------------------------------------------------------------------


def _value(log_a: Tensor, log_c: Tensor) -> Tensor:
    """A probability from its logarithm and its complement's, by the one that is accurate."""
    return torch.where(log_a < -0.7, torch.exp(log_a), -special.expm1(log_c))


def _from_log_odds(log_odds: Tensor) -> Reduced:
    log_a, log_c = torch.nn.functional.logsigmoid(log_odds), torch.nn.functional.logsigmoid(-log_odds)
    return Reduced(_value(log_a, log_c), log_a, log_c)


def _log_norm(log_v: Tensor, p: Tensor, dim: int) -> Tensor:
    """Logarithm of the p-norm (Σ v^p)^(1/p) along an axis; once differentiable, in p too."""
    kind = _LogNormForward if is_transformed(log_v) or is_transformed(p) else _LogNorm
    return kind.apply(log_v, p, dim)[0]


class _LogNorm(torch.autograd.Function):
    @staticmethod
    def forward(log_v: Tensor, p: Tensor, dim: int) -> tuple[Tensor, Tensor]:
        top = log_v.amax(dim, keepdim=True)
        power = torch.exp(p * (log_v - top))
        total = power.sum(dim, keepdim=True)
        return (top + torch.log(total) / p).squeeze(dim), power / total

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
        log_v, p, ctx.dim = inputs
        ctx.mark_non_differentiable(output[1])
        ctx.save_for_backward(log_v, p, output[1])
        ctx.save_for_forward(log_v, p, output[1])

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        log_v, p, share = ctx.saved_tensors
        grad = grads[0].unsqueeze(ctx.dim)
        by_v = special.last_derivative(grad * share, log_v, p)
        if not ctx.needs_input_grad[1]:
            return by_v, None, None
        by_p = (grad * torch.special.xlogy(share, share)).sum() / (p * p)
        return by_v, special.last_derivative(by_p, log_v, p), None


class _LogNormForward(_LogNorm):
    """With forward mode; apart, since torch.compile takes no function that has it."""

    @staticmethod
    def jvp(ctx: Any, by_v: Tensor | None, by_p: Tensor | None, _: Any) -> tuple[Tensor, None]:
        _, p, share = ctx.saved_tensors
        total = torch.zeros_like(share.sum(ctx.dim))
        if by_v is not None:
            total = total + (share * by_v).sum(ctx.dim)
        if by_p is not None:
            total = total + torch.special.xlogy(share, share).sum(ctx.dim) / (p * p) * by_p
        return total, None


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


def _log1p_over(t: Tensor) -> Tensor:
    s = torch.where(t == 0, 1.0, t)
    return torch.where(t == 0, 1.0, torch.log1p(s) / s)
