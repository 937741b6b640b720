# SPDX-License-Identifier: Apache-2.0
"""The T-conorms whose generator is a power: Yager, Aczél–Alsina, Dombi, Schweizer–Sklar.

Powers are taken of logarithms with the largest one taken out, as log-sum-exp does. So none overflows or underflows, one
value alone comes out as it went in, and p may be anything: p → ∞ tends to the maximum.
"""

import math
from typing import Any

import torch

from geodiff.modes import is_transformed
from geodiff.soft import special
from geodiff.soft.parameters import Parameter, Tensor
from geodiff.soft.tconorm_base import NILPOTENT, STRICT, Reduced
from geodiff.soft.tconorms import Additive, from_log_odds

__all__ = [
    "AczelAlsina",
    "Dombi",
    "SchweizerSklar",
    "Yager",
]


class Power(Additive):
    """A T-conorm that is a p-norm ‖v‖_p of some monotone v(a): s = v^p.

    The norm is computed from log v with the largest one taken out, so that no power overflows: any p > 0 will do.
    """

    _range = ("positive and finite", lambda p: p > 0)

    def __init__(self, p: Parameter = 2.0) -> None:
        super().__init__(p)

    def _level(self, a: float) -> float:
        """Log v(a)."""
        raise NotImplementedError

    def _at_level(self, level: float) -> float:
        """The a with this log v(a)."""
        raise NotImplementedError

    def _cull_threshold(self, max_error: float, n: int) -> float:
        p, level = self._number(), self._level(max_error)
        if p <= 1 or abs(p * level) < 600:
            return super()._cull_threshold(max_error, n)
        return self._at_level(level - math.log(n) / p)  # s itself may be beyond the range of numbers

    def _drops_zeros(self) -> Tensor:
        return torch.as_tensor(self.p).detach() < 1


class Yager(Power, kernel=True):
    """Yager's family min(1, (a^p + b^p)^(1/p)), p > 0; the bounded sum at p = 1. Generator s(a) = a^p, s(1) = 1.

    Nilpotent: several values below 1 may reach 1, and there the gradient is 0.

    Args:
        p: the parameter, > 0, a number or a tensor with one element. Default 2.
    """

    name = "yager"
    samples = (0.5, 1.0, 2.0, 4.0, 8.0)
    formula = "min(1, (a^p + b^p)^(1/p))"
    properties = NILPOTENT._replace(in_p="falls")

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

    def _level(self, a: float) -> float:
        return math.log(a)

    def _at_level(self, level: float) -> float:
        return math.exp(level)

    def _flattest(self) -> float:
        return 1.0 if self._number() < 1 else 0.0

    def _slope(self, a: float) -> float:
        return self._number()


class AczelAlsina(Power, kernel=True):
    """Aczél and Alsina's family 1 - exp(-(L(a)^p + L(b)^p)^(1/p)) with L(a) = -log(1 - a), p > 0.

    Generator s(a) = L(a)^p. Probabilistic for p = 1.

    Args:
        p: the parameter, > 0, a number or a tensor with one element. Default 2.
    """

    name = "aczel_alsina"
    samples = (0.5, 1.0, 2.0, 4.0, 8.0)
    formula = "1 - exp(-(L(a)^p + L(b)^p)^(1/p)), L(a) = -log(1 - a)"
    properties = STRICT._replace(in_p="falls")

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

    def _level(self, a: float) -> float:
        return math.log(-math.log1p(-a))

    def _at_level(self, level: float) -> float:
        return -math.expm1(-math.exp(level))

    def _flattest(self) -> float:
        return -math.expm1(self._number() - 1) if self._number() < 1 else 0.0

    def _slope(self, a: float) -> float:
        p, length = self._number(), -math.log1p(-a)
        return p * length ** (p - 1) / (1 - a)


class Dombi(Power, kernel=True):
    """Dombi's family o/(1 + o), o = (o(a)^p + o(b)^p)^(1/p) with the odds o(a) = a/(1 - a), p > 0.

    Generator s(a) = (a/(1 - a))^p. Hamacher's with p = 0 for p = 1.

    Args:
        p: the parameter, > 0, a number or a tensor with one element. Default 2.
    """

    name = "dombi"
    samples = (0.5, 1.0, 2.0, 4.0, 8.0)
    formula = "1 / (1 + ((a/(1-a))^p + (b/(1-b))^p)^(-1/p))"
    properties = STRICT._replace(in_p="falls")

    def generator(self, a: Tensor) -> Tensor:
        """(a/(1 - a))^p."""
        return (a / (1 - a)) ** self._p(a)

    def inverse_generator(self, s: Tensor) -> Tensor:
        """o/(1 + o) with o = s^(1/p)."""
        odds = s ** (1 / self._p(s))
        return torch.where(torch.isinf(odds), 1.0, odds / (1 + odds))

    def _reduce_finite(self, log_a: Tensor, log_c: Tensor, dim: int) -> Reduced:
        return from_log_odds(_log_norm(log_a - log_c, self._p(log_a), dim))

    def _level(self, a: float) -> float:
        return math.log(a) - math.log1p(-a)

    def _at_level(self, level: float) -> float:
        return 1 / (1 + math.exp(-level))

    def _flattest(self) -> float:
        return (1 - self._number()) / 2 if self._number() < 1 else 0.0

    def _slope(self, a: float) -> float:
        p = self._number()
        return p * a ** (p - 1) * (1 - a) ** (-p - 1)


class SchweizerSklar(Additive, kernel=True):
    """Schweizer and Sklar's family 1 - ((1 - a)^p + (1 - b)^p - 1)^(1/p), p < 0.

    Generator s(a) = (1 - a)^p - 1. Hamacher's with p = 0 for p = -1.

    Args:
        p: the parameter, < 0, a number or a tensor with one element. Default -2.
    """

    name = "schweizer_sklar"
    samples = (-0.5, -1.0, -2.0, -4.0, -8.0)
    formula = "1 - ((1 - a)^p + (1 - b)^p - 1)^(1/p)"
    properties = STRICT._replace(in_p="rises")
    _range = ("negative and finite", lambda p: p < 0)
    _kept = (-1e30, -1e-30)

    def __init__(self, p: Parameter = -2.0) -> None:
        super().__init__(p)

    def generator(self, a: Tensor) -> Tensor:
        """(1 - a)^p - 1."""
        return special.expm1(self._p(a) * torch.log1p(-a))

    def inverse_generator(self, s: Tensor) -> Tensor:
        """1 - (1 + s)^(1/p)."""
        return -special.expm1(torch.log1p(s) / self._p(s))

    def _reduce_finite(self, log_a: Tensor, log_c: Tensor, dim: int) -> Reduced:
        q, w = -self._p(log_a), -log_c
        top = w.detach().amax(dim, keepdim=True)
        near = q.detach() * top < 1
        # -log(1 - ⊥) = log(1 + Σ s)/q with s = exp(q·w) - 1. Near 0: Σ s/q, whose slope in q does not cancel;
        v = torch.where(near, w, 0.0)
        total = (v * torch.exp(special.log_expm1_ratio(q * v))).sum(dim)
        low = total * torch.exp(special.log_log1p_ratio(q * total))
        # else e^(q·top)·(e^(-q·top) + Σ e^(-q·top)·s), every term positive and none overflowing.
        scaled = torch.exp(q * (w - top)) * -special.expm1(-q * w)
        top, near = top.squeeze(dim), near.squeeze(dim)
        high = top + torch.log(torch.exp(-q * top) + scaled.sum(dim)) / q
        rest = torch.where(near, low, high)
        return Reduced(-special.expm1(-rest), special.log1mexp(rest), -rest)

    def _cull_threshold(self, max_error: float, n: int) -> float:
        p, level = self._number(), math.log1p(-max_error)
        if p * level < 600:
            return super()._cull_threshold(max_error, n)
        return -math.expm1(level - math.log(n) / p)  # s itself may be beyond the range of numbers


# Helpers --------------------------------------------------------------------------------------------------------------


def _log_norm(log_v: Tensor, p: Tensor, dim: int) -> Tensor:
    """Logarithm of the p-norm (Σ v^p)^(1/p) along an axis; once differentiable, in p too."""
    kind = _LogNormForward if is_transformed(log_v) or is_transformed(p) else _LogNorm
    return kind.apply(log_v, p, dim)[0]


class _LogNorm(torch.autograd.Function):
    @staticmethod
    def forward(log_v: Tensor, p: Tensor, dim: int) -> tuple[Tensor, Tensor]:
        top = log_v.amax(dim, keepdim=True)
        # v = 0 has the power 0 also where p is so small that exp would not see to it
        power = torch.where(log_v > -special.BIG / 10, torch.exp(p * (log_v - top)), 0.0)
        total = power.sum(dim, keepdim=True).clamp(min=1)
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
        by_p = special.finite((grad * torch.special.xlogy(share, share)).sum() / p / p)
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
            total = total + special.finite(torch.special.xlogy(share, share).sum(ctx.dim) / p / p) * by_p
        return total, None
