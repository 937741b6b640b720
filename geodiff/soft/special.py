# SPDX-License-Identifier: Apache-2.0
"""Special functions whose values and gradients stay accurate in the tails, on float32 and float64 tensors."""

import math
from collections.abc import Callable
from typing import Any

import torch

from geodiff.modes import is_transformed

Tensor = torch.Tensor

#: Stands for infinity inside the T-conorms: its exponential vanishes, yet products and differences stay finite.
BIG = 1e30

_MAX_TERMS = 20_000


def finite(slope: Tensor) -> Tensor:
    """Replace infinite slopes by the largest number and NaN by zero, so that a zero cotangent times a slope is zero."""
    return torch.nan_to_num(slope, nan=0.0)


class _Smooth(torch.autograd.Function):
    """``value(z)`` with the derivative ``slope(z)``; differentiable again wherever ``slope`` is."""

    generate_vmap_rule = True

    @staticmethod
    def forward(z: Tensor, value: Callable[[Tensor], Tensor], slope: Callable[[Tensor], Tensor]) -> Tensor:
        return value(z)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        z, _, ctx.slope = inputs
        ctx.save_for_backward(z)
        ctx.save_for_forward(z)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        (z,) = ctx.saved_tensors
        return grads[0] * finite(ctx.slope(z)), None, None


class _SmoothForward(_Smooth):
    """With forward mode; apart, since torch.compile takes no function that has it."""

    @staticmethod
    def jvp(ctx: Any, tangent: Tensor, *_: Any) -> Tensor:
        (z,) = ctx.saved_tensors
        return tangent * finite(ctx.slope(z))


class _Refuse(torch.autograd.Function):
    """The identity, which raises when it is differentiated: marks a gradient as a function of unknown slope."""

    @staticmethod
    def forward(value: Tensor, message: str, *_: Tensor) -> Tensor:
        return value.clone()

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.message = inputs[1]

    @staticmethod
    def backward(ctx: Any, *_: Tensor) -> Tensor:
        raise RuntimeError(ctx.message)


def last_derivative(
    grad: Tensor,
    *tensors: Tensor,
    message: str = "soft: this function is not twice differentiable. Use first derivatives only.",
) -> Tensor:
    """Return a gradient such that differentiating it again in ``tensors`` raises; use it at the end of a backward.

    `torch.autograd.function.once_differentiable` would return a constant where the incoming gradient is one, and
    second derivatives would silently miss a term.
    """
    return _Refuse.apply(grad, message, *tensors) if torch.is_grad_enabled() else grad


class _Known(torch.autograd.Function):
    """A value computed beforehand with its derivatives in several tensors; once differentiable."""

    generate_vmap_rule = True

    @staticmethod
    def forward(value: Tensor, *pairs: Tensor) -> Tensor:
        return value.clone()

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.save_for_backward(*inputs[1:])
        ctx.save_for_forward(*inputs[1:])

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        saved = ctx.saved_tensors
        out: list[Tensor | None] = [None]
        for i, (tensor, slope) in enumerate(zip(saved[::2], saved[1::2], strict=True)):
            grad = None
            if ctx.needs_input_grad[1 + 2 * i]:
                grad = (grads[0] * finite(slope)).sum_to_size(tensor.shape).to(tensor.dtype)
                grad = last_derivative(grad, *saved[::2])
            out += [grad, None]
        return tuple(out)


class _KnownForward(_Known):
    """With forward mode."""

    @staticmethod
    def jvp(ctx: Any, _: Any, *tangents: Tensor | None) -> Tensor:
        slopes = ctx.saved_tensors[1::2]
        terms = [t * finite(slope) for t, slope in zip(tangents[::2], slopes, strict=True) if t is not None]
        return sum(terms[1:], terms[0])


def smooth(z: Tensor, value: Callable[[Tensor], Tensor], slope: Callable[[Tensor], Tensor]) -> Tensor:
    """Apply ``value`` to ``z``, with ``slope`` as its derivative.

    Used where autograd through the formula would cancel, overflow or give NaN. Both functions map a tensor to one of
    its shape. Infinite slopes are replaced by the largest number, NaN by zero. Differentiable again if ``slope`` is.

    Example:
        >>> smooth(torch.zeros(1), torch.sigmoid, lambda z: torch.sigmoid(z) * torch.sigmoid(-z))
        tensor([0.5000])
    """
    kind = _SmoothForward if is_transformed(z) else _Smooth
    return kind.apply(z, value, slope)


def known(value: Tensor, *pairs: tuple[Tensor, Tensor]) -> Tensor:
    """Return ``value`` as a function of tensors whose derivatives are known.

    Args:
        value: the result, already computed without gradient.
        pairs: ``(tensor, derivative of value in that tensor)``; each derivative has ``value``'s shape, and is summed
            over the axes along which its tensor was broadcast.

    Returns:
        ``value`` attached to the graph. Differentiating twice raises.
    """
    flat = [t.detach() if i else t for pair in pairs for i, t in enumerate(pair)]
    kind = _KnownForward if any(is_transformed(tensor) for tensor, _ in pairs) else _Known
    return kind.apply(value.detach(), *flat)


def once(value: Tensor) -> Tensor:
    """Return ``value`` itself, but raise if it is differentiated twice."""
    return known(value, (value, torch.ones_like(value)))


# Logarithms and exponentials ------------------------------------------------------------------------------------------


def log(a: Tensor) -> Tensor:
    """Logarithm whose gradient at a = 0 is 0 (and whose value there is -inf)."""
    return smooth(a, torch.log, lambda a: torch.where(a == 0, 0.0, 1 / a))


def expm1(t: Tensor) -> Tensor:
    """exp(t) - 1 with the gradient exp(t), which torch's own rule loses to rounding for t < -37."""
    return smooth(t, torch.expm1, torch.exp)


def log1mexp(t: Tensor) -> Tensor:
    """log(1 - exp(-t)) for t >= 0, accurate for small and large t; at t = 0 it is -inf with gradient 0.

    Mächler, "Accurately computing log(1 - exp(-|a|))", 2012.
    """
    return smooth(t, _log1mexp, lambda t: torch.where(t == 0, 0.0, 1 / torch.expm1(t)))


def _log1mexp(t: Tensor) -> Tensor:
    return torch.where(t < math.log(2.0), torch.log(-torch.expm1(-t)), torch.log1p(-torch.exp(-t)))


def log_expm1_ratio(t: Tensor) -> Tensor:
    """log((exp(t) - 1) / t), continued by 0 at t = 0; accurate for every t, also far beyond the range of exp."""

    def value(t: Tensor) -> Tensor:
        a = t.abs()
        h = (t / 2) ** 2
        series = t / 2 + h * (1 / 6 - h * (1 / 180 - h * (1 / 2835 - h / 37800)))
        return torch.where(a < 0.1, series, torch.relu(t) + _log1mexp(a) - torch.log(a))

    return smooth(t, value, log_expm1_ratio_slope)


def log_expm1_ratio_slope(t: Tensor) -> Tensor:
    """Derivative of `log_expm1_ratio`: 1/(1 - exp(-t)) - 1/t, and ½ at t = 0."""
    small = t.abs() < 0.1
    s = torch.where(small, 1.0, t)
    h = t * t
    return torch.where(small, 0.5 + t / 12 * (1 - h / 60 * (1 - h / 42 * (1 - h / 40))), -1 / torch.expm1(-s) - 1 / s)


# d/dt log(log(1 + t) / t) as a power series, from that of log(1 + t).
_LOG1P_RATIO = (-1 / 2, 5 / 12, -3 / 8, 251 / 720, -95 / 288, 19087 / 60480, -5257 / 17280, 1070017 / 3628800)


def log_log1p_ratio(t: Tensor) -> Tensor:
    """log(log(1 + t) / t) for t > -1, continued by 0 at t = 0."""

    def value(t: Tensor) -> Tensor:
        small, s = _away(t)
        series = torch.zeros_like(t)
        for n in range(len(_LOG1P_RATIO), 0, -1):
            series = (series + _LOG1P_RATIO[n - 1] / n) * t
        return torch.where(small, series, torch.log(torch.log1p(s) / s))

    def slope(t: Tensor) -> Tensor:
        small, s = _away(t)
        series = torch.zeros_like(t)
        for c in reversed(_LOG1P_RATIO):
            series = series * t + c
        return torch.where(small, series, 1 / ((1 + s) * torch.log1p(s)) - 1 / s)

    return smooth(t, value, slope)


def _away(t: Tensor) -> tuple[Tensor, Tensor]:
    small = t.abs() < 0.02
    return small, torch.where(small, 1.0, t)


# The normal distribution ----------------------------------------------------------------------------------------------


def log_ndtr(z: Tensor) -> Tensor:
    """Logarithm of the standard normal CDF, relatively accurate in both tails, with gradient pdf / CDF everywhere."""
    return smooth(z, log_ndtr_value, ndtr_rate)


def log_ndtr_value(z: Tensor) -> Tensor:
    """Logarithm of the standard normal CDF without a gradient rule of its own."""
    t = z * -math.sqrt(0.5)
    low = torch.log(torch.special.erfcx(torch.relu(t)) / 2) - z * z / 2
    return torch.where(z < -1, low, torch.log1p(-torch.erfc(-t) / 2))


def ndtr_rate(z: Tensor) -> Tensor:
    """Standard normal pdf divided by its CDF; it grows like -z on the left and vanishes on the right."""
    return math.sqrt(2 / math.pi) / torch.special.erfcx(z * -math.sqrt(0.5))


# The regularised incomplete gamma function ----------------------------------------------------------------------------


def gammainc(k: Tensor, x: Tensor) -> Tensor:
    """Regularised lower incomplete gamma function P(k, x), differentiable in x and in the shape k.

    P(k, x) = 1/Γ(k) ∫₀ˣ t^(k-1) e^(-t) dt, by the power series for x below k + 1 and the continued fraction above
    (DLMF 8.7.1, 8.9.2), each differentiated term by term in k. Worked out in float64 whatever the inputs.

    Args:
        k: shape, > 0, broadcastable with x.
        x: any real; P is 0 for x <= 0.

    Returns:
        P(k, x). Gradients are 0 for x < 0; at x = 0 the one in x is the density there (1 for k = 1, else set to 0).

    Example:
        >>> gammainc(torch.tensor(1.0), torch.tensor([1.0]))
        tensor([0.6321])
    """
    return _gamma(k, x, "p")


def gammaincc(k: Tensor, x: Tensor) -> Tensor:
    """Regularised upper incomplete gamma function Q(k, x) = 1 - P(k, x), see `gammainc`."""
    return _gamma(k, x, "q")


def log_gammainc(k: Tensor, x: Tensor) -> Tensor:
    """Logarithm of P(k, x), relatively accurate in both tails, -inf (gradient 0) for x <= 0, see `gammainc`."""
    return _gamma(k, x, "log_p")


def log_gammaincc(k: Tensor, x: Tensor) -> Tensor:
    """Logarithm of Q(k, x), relatively accurate in both tails, 0 for x <= 0, see `gammainc`."""
    return _gamma(k, x, "log_q")


def _gamma(k: Tensor, x: Tensor, what: str) -> Tensor:
    dtype = torch.result_type(k, x)
    with torch.no_grad():
        kk, xx = torch.broadcast_tensors(k.double(), x.double())
        inside = (xx > 0) & (xx < math.inf) & (kk > 0) & (kk < math.inf)
        ks, xs = torch.where(inside, kk, 1.0), torch.where(inside, xx, 1.0)
        log_p, log_q, p_rate, q_rate, p_k, q_k = _gamma_logs(ks, xs)
        if what == "p":
            value, dx, dk = torch.exp(log_p), torch.exp(log_p) * p_rate, torch.exp(log_p) * p_k
        elif what == "q":
            value, dx, dk = torch.exp(log_q), -torch.exp(log_q) * q_rate, torch.exp(log_q) * q_k
        elif what == "log_p":
            value, dx, dk = log_p, p_rate, p_k
        else:
            value, dx, dk = log_q, -q_rate, q_k
        below, above = {"p": (0.0, 1.0), "q": (1.0, 0.0), "log_p": (-math.inf, 0.0), "log_q": (0.0, -math.inf)}[what]
        value = torch.where(inside, value, torch.where(xx <= 0, below, above))
        value = torch.where(torch.isnan(xx) | ~(kk > 0) | ~(kk < math.inf), math.nan, value)
        edge = {"p": 1.0, "q": -1.0, "log_p": 0.0, "log_q": -1.0}[what]
        dx = torch.where(inside, dx, torch.where((xx == 0) & (kk == 1), edge, 0.0))
        dk = torch.where(inside, dk, 0.0)
    return known(value.to(dtype), (k, dk.to(dtype)), (x, dx.to(dtype)))


def _gamma_logs(k: Tensor, x: Tensor) -> tuple[Tensor, ...]:
    """Return log P, log Q, pdf/P, pdf/Q, ∂log P/∂k and ∂log Q/∂k for finite k, x > 0 in float64."""
    shape = k.shape
    k, x = k.reshape(-1), x.reshape(-1)
    out = torch.empty(6, k.numel(), dtype=torch.float64, device=k.device)
    fraction = x > torch.where(k > 1, k + 1, torch.ones_like(k))
    out[:, ~fraction] = torch.stack(_gamma_series(k[~fraction], x[~fraction]))
    out[:, fraction] = torch.stack(_gamma_fraction(k[fraction], x[fraction]))
    return tuple(out.reshape(6, *shape))


def _gamma_series(k: Tensor, x: Tensor) -> tuple[Tensor, ...]:
    # P = x^k e^-x / Γ(k+1) · Σ x^n / ((k+1)...(k+n)): all terms positive, and so are those of minus its k-derivative.
    term, total = torch.ones_like(x), torch.ones_like(x)
    harmonic, total_k = torch.zeros_like(x), torch.zeros_like(x)
    for n in range(1, _MAX_TERMS):
        term = term * (x / (k + n))
        harmonic = harmonic + 1 / (k + n)
        total, total_k = total + term, total_k - term * harmonic
        if n % 8 == 0 and not bool(((term > 1e-17 * total) | (term * harmonic > -1e-17 * total_k)).any()):
            break
    log_front = k * torch.log(x) - torch.lgamma(k + 1)
    log_p = log_front - x + torch.log(total)
    p_k = torch.log(x) - torch.digamma(k + 1) + total_k / total
    p = torch.exp(log_p)
    # For k < 1, P may come close to 1, and 1 - P would cancel: Q = (1 - x^k/Γ(k+1)) + x^k/Γ(k+1)·(…), both small.
    tail, sign = torch.zeros_like(x), torch.ones_like(x)
    xs = torch.where(k < 1, x, 0.0)
    for n in range(1, 25):
        sign = sign * (-xs / n)
        tail = tail - sign * k / (k + n)
    q = torch.where(k < 1, torch.exp(log_front) * tail - torch.expm1(log_front), 1 - p)
    log_q = torch.where(p < 0.5, torch.log1p(-p), torch.log(q))
    log_p = torch.where(q < 0.5, torch.log1p(-q), log_p)
    p_rate = k / (x * total)
    odds = torch.where(q < 0.5, 1 / q - 1, p / torch.where(p < 0.5, 1 - p, q))
    return log_p, log_q, p_rate, odds * p_rate, p_k, -odds * p_k


def _gamma_fraction(k: Tensor, x: Tensor) -> tuple[Tensor, ...]:
    # Q = x^k e^-x / Γ(k) · 1/(x+1-k - 1(1-k)/(x+3-k - 2(2-k)/(x+5-k - ...))), modified Lentz with the k-derivatives.
    b = x.clamp(max=1e100) + 1 - k  # beyond, squares would underflow, and the fraction is 1/x anyway
    c, c_k = torch.full_like(x, 1e300), torch.zeros_like(x)
    d = 1 / b
    d_k = d * d
    log_f, log_f_k = torch.log(d), d
    for n in range(1, _MAX_TERMS):
        a = -n * (n - k)
        b = b + 2
        d_k = n * d + a * d_k - 1
        d = 1 / (b + a * d)
        d_k = -d * d * d_k
        c_k = -1 + (n - a * c_k / c) / c
        c = b + a / c
        step, step_k = torch.log(c * d), c_k / c + d_k / d
        log_f, log_f_k = log_f + step, log_f_k + step_k
        moving = (step.abs() > 4e-16) | (step_k.abs() > 4e-16 * (log_f_k.abs() + (c_k / c).abs()))
        if n % 8 == 0 and not bool(moving.any()):
            break
    log_q = k * torch.log(x) - x - torch.lgamma(k) + log_f
    q_k = torch.log(x) - torch.digamma(k) + log_f_k
    q = torch.exp(log_q)
    q_rate = torch.exp(-log_f) / x
    odds = q / (1 - q)
    return torch.log1p(-q), log_q, odds * q_rate, q_rate, -odds * q_k, q_k
