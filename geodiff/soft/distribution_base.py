# SPDX-License-Identifier: Apache-2.0
"""What every distribution can do: the base class, its modifiers, a user's own CDF, and closed forms."""

import math
from collections.abc import Callable
from typing import Any

import torch

from geodiff import members
from geodiff.soft import special
from geodiff.soft.parameters import (
    Frozen,
    Parameter,
    Tensor,
    built_in,
    keep_consistent,
    number_repr,
    number_text,
    parameter,
)
from geodiff.validation import fail, floating

_OF_CDF = ("pdf", "survival", "log_cdf", "log_survival", "quantile", "upper_quantile")


class Distribution:
    """A cumulative distribution function F and what follows from it.

    Subclass it with your own torch code: only `cdf` is required, in float32 and float64, elementwise and differentiable
    by autograd. `pdf` then defaults to autograd, `survival` to ``1 - cdf``, the logarithms to those of `cdf`, the
    quantiles to bisection; override those whose tails you need accurate. User-defined distributions work everywhere
    through the reference path.

    A subclass of a built-in one is a user-defined one. With a `cdf` of its own it keeps nothing of its parent that
    speaks of the parent's: neither logarithms, quantiles, support nor tails. Overriding `survival` or a logarithm alone
    is refused, since they would no longer go with F.

    Attributes:
        kernel_id: number of the compiled kernel, None where there is none.
        name: snake_case name.
        formula: F(x) in text.
        support: (lowest, highest) x where F is neither 0 nor 1; may be infinite.
        tail: how F decays (left) and how 1 - F decays (right): "finite", "super-exponential" (faster than any
            exponential), "exponential" or "polynomial"; "unknown" for user-defined ones.
        symmetric: whether F(-x) = 1 - F(x) for every x.
        parametric: whether the constructor takes a shape parameter.
        samples: shapes that the family lists and tests take; () where there is no parameter.
        shape: the shape parameter, or None.
        shift: h in the canonical form F(x + h), and 1 - F(h - x) if reversed.
        is_reversed: whether the canonical form is the reversed one.
        is_squared: whether it is evaluated at ``|x|·x``.

    Example:
        >>> class Smoothstep(Distribution):
        ...     name = "smoothstep"
        ...     def cdf(self, x):
        ...         y = (x.clamp(-1, 1) + 1) / 2
        ...         return y * y * (3 - 2 * y)
        >>> Smoothstep().squared().cdf(torch.tensor([0.5]))
        tensor([0.6836])
    """

    kernel_id: int | None = None
    name: str = "custom"
    formula: str = ""
    support: tuple[float, float] = (-math.inf, math.inf)
    tail: tuple[str, str] = ("unknown", "unknown")
    symmetric: bool = False
    parametric: bool = False
    samples: tuple[float, ...] = ()
    shape: Parameter | None = None
    shift: Parameter = 0.0
    is_reversed: bool = False
    is_squared: bool = False

    # With `kernel`, as for each class of the table members.def: what is written there.
    def __init_subclass__(cls, kernel: bool = False, **options: Any) -> None:
        super().__init_subclass__(**options)
        if kernel:
            cls.symmetric = built_in(cls, members.DISTRIBUTIONS).kind == "symmetric"
            return
        facts = "support", "tail", "symmetric", "formula"
        keep_consistent(cls, Distribution, "cdf", (*_OF_CDF, *facts), ("survival", "log_cdf", "log_survival"))

    @property
    def base(self) -> "Distribution":
        """The distribution without modifiers."""
        return self

    def cdf(self, x: Tensor) -> Tensor:
        """F(x), the probability of a value at most x."""
        raise NotImplementedError(f"{type(self).__name__} must define cdf(self, x).")

    def pdf(self, x: Tensor) -> Tensor:
        """F'(x); here by autograd through `cdf`."""
        attached = torch.is_grad_enabled() and (x.requires_grad or self.cdf(x).requires_grad)
        with torch.enable_grad():
            at = x if x.requires_grad else x.detach().requires_grad_()
            value = self.cdf(at)
            slope = None
            if value.requires_grad:
                (slope,) = torch.autograd.grad(value.sum(), at, create_graph=attached, allow_unused=True)
        return torch.zeros_like(x) if slope is None else slope

    def survival(self, x: Tensor) -> Tensor:
        """1 - F(x)."""
        return 1 - self.cdf(x)

    def log_cdf(self, x: Tensor) -> Tensor:
        """Logarithm of F(x); -inf with gradient 0 where F = 0."""
        return special.log(self.cdf(x))

    def log_survival(self, x: Tensor) -> Tensor:
        """Logarithm of 1 - F(x); -inf with gradient 0 where F = 1."""
        return special.log(self.survival(x))

    def quantile(self, q: Tensor) -> Tensor:
        """The least x with F(x) >= q, for q in [0, 1] (NaN outside); its gradient is 1 / pdf."""
        return _bisect(self, self.cdf, q, 1.0)

    def upper_quantile(self, q: Tensor) -> Tensor:
        """The x with 1 - F(x) = q; unlike ``quantile(1 - q)`` it keeps small q exact."""
        return _bisect(self, self.survival, q, -1.0)

    def cull_radius(self, epsilon: float) -> float:
        """How far outside (in units of x) F falls to ``epsilon``: max(0, -quantile(epsilon)); may be infinite.

        In image units that is τ times the radius, or √τ times it for a squared distribution.
        """
        if not 0 <= epsilon <= 1:
            raise fail("Distribution.cull_radius", "epsilon", "between 0 and 1", epsilon)
        with torch.no_grad():
            x = self.quantile(torch.tensor(epsilon, dtype=torch.float64, device="cpu"))
            return max(0.0, -float(x.min()))

    def shifted(self, shift: Parameter) -> "Distribution":
        """Return F(x + shift)."""
        return Modified(self, shift=shift)

    def reversed(self) -> "Distribution":
        """Return 1 - F(-x)."""
        return Modified(self, is_reversed=True)

    def squared(self) -> "Distribution":
        """Return F(|x|·x); it must come last."""
        return Modified(self, is_squared=True)

    def unsquared(self) -> "Distribution":
        """Return the distribution without the squaring, which the renderer does itself."""
        return self

    def __str__(self) -> str:
        return self.name

    def __repr__(self) -> str:
        return f"{type(self).__name__}()"


def _bisect(distribution: Distribution, function: Callable[[Tensor], Tensor], q: Tensor, sign: float) -> Tensor:
    """Solve function(x) = q for a function rising (sign 1) or falling (sign -1) in x, by bisection in float64."""
    with torch.no_grad():
        target = q.double() * sign
        low, high = (torch.full_like(target, max(-1e300, min(1e300, end))) for end in distribution.support)
        for scale in (10.0**e for e in range(-6, 300, 3)):  # bring infinite ends near the root first
            if not torch.isinf(torch.tensor(distribution.support, device="cpu")).any():
                break
            probe = torch.full_like(target, scale)
            low = torch.where(function(-probe) * sign < target, torch.maximum(low, -probe), low)
            high = torch.where(function(probe) * sign >= target, torch.minimum(high, probe), high)
        for _ in range(200):
            middle = low + (high - low) / 2
            below = function(middle) * sign < target
            low, high = torch.where(below, middle, low), torch.where(below, high, middle)
        x = torch.where(high <= -1e299, -math.inf, torch.where(low >= 1e299, math.inf, high))
        x = torch.where((q >= 0) & (q <= 1), x, math.nan)
        slope = distribution.pdf(x)
        usable = torch.isfinite(x) & (slope > 0)
        start = torch.where(usable, x, 0.0)
    # One Newton step carries the gradient, in q and in every parameter of the distribution.
    step = sign * (q.double() - function(start)) / torch.where(usable, slope, 1.0)
    return special.once(torch.where(usable, x + step - step.detach(), x)).to(q.dtype)


class Modified(Frozen, Distribution):
    """A distribution F₀ shifted, reversed and squared, kept in one canonical form.

    G(x) = F₀(x + shift), or 1 - F₀(shift - x) if reversed; then G(|x|·x) if squared. Made by `Distribution.shifted`,
    `Distribution.reversed` and `Distribution.squared`. Differentiable in x, in the shift and in F₀'s parameters; the
    slope of |x|·x at 0 is 0.
    """

    def __init__(
        self, source: Distribution, shift: Parameter = 0.0, is_reversed: bool = False, is_squared: bool = False
    ) -> None:
        parameter("Distribution.shifted", "shift", shift, "finite", lambda h: h == h)
        if source.is_squared:
            what = "squared" if is_squared else "reversed" if is_reversed else "shifted"
            fix = "" if is_squared else f" Call .{what}() before .squared()."
            raise ValueError(
                f"Distribution.{what}: {source!r} is squared already, and that must be the last step.{fix}"
            )
        fields = vars(self)
        fields["_base"] = source.base
        if isinstance(shift, torch.Tensor) or shift != 0:
            shift = source.shift - shift if source.is_reversed else source.shift + shift
        else:
            shift = source.shift
        fields["shift"] = shift
        fields["is_reversed"] = source.is_reversed != is_reversed
        fields["is_squared"] = is_squared

    def unsquared(self) -> Distribution:
        """Return the distribution without the squaring."""
        if not self.is_squared:
            return self
        still = isinstance(self.shift, torch.Tensor) or self.shift != 0 or self.is_reversed
        shift = -self.shift if self.is_reversed else self.shift
        source = Modified(self.base, is_reversed=True) if self.is_reversed else self.base
        return Modified(source, shift=shift) if still else self.base

    @property
    def base(self) -> Distribution:
        """The distribution without modifiers."""
        return vars(self)["_base"]

    kernel_id = property(lambda self: self.base.kernel_id)
    name = property(lambda self: self.base.name)
    shape = property(lambda self: self.base.shape)

    @property
    def formula(self) -> str:  # type: ignore[override]
        """F(x) in text, in terms of the distribution without modifiers."""
        y = "|x|·x" if self.is_squared else "x"
        h = number_text(self.shift)
        if self.is_reversed:
            inner = f"1 - F(-{y})" if h == "0" else f"1 - F({h} - {y})"
        else:
            inner = f"F({y})" if h == "0" else f"F({y} + {h})"
        return f"{inner} with F(x) = {self.base.formula}"

    @property
    def symmetric(self) -> bool:  # type: ignore[override]
        """Whether G(-x) = 1 - G(x) for every x."""
        return self.base.symmetric and not bool(torch.as_tensor(self.shift).detach().any())

    @property
    def support(self) -> tuple[float, float]:  # type: ignore[override]
        """(lowest, highest) x where G is neither 0 nor 1; over all elements where the shift is a tensor."""
        ends = torch.tensor(self.base.support, dtype=torch.float64, device="cpu")
        h = torch.as_tensor(self.shift, dtype=torch.float64).detach().cpu().reshape(-1, 1)
        ends = h - ends.flip(0) if self.is_reversed else ends - h
        if self.is_squared:
            ends = torch.sign(ends) * ends.abs().sqrt()
        return float(ends[:, 0].min()), float(ends[:, 1].max())

    @property
    def tail(self) -> tuple[str, str]:  # type: ignore[override]
        """How G decays on the left and 1 - G on the right."""
        left, right = self.base.tail[::-1] if self.is_reversed else self.base.tail
        if self.is_squared:
            left, right = ("super-exponential" if t == "exponential" else t for t in (left, right))
        return left, right

    def _at(self, x: Tensor) -> Tensor:
        x = floating(str(self), "x", x, ("...",), finite=False)
        y = special.smooth(x, lambda x: x.abs() * x, lambda x: 2 * x.abs()) if self.is_squared else x
        y = -y if self.is_reversed else y
        plain = not isinstance(self.shift, torch.Tensor) and self.shift == 0
        return y if plain else y + self.shift

    def cdf(self, x: Tensor) -> Tensor:
        """G(x)."""
        return self.base.survival(self._at(x)) if self.is_reversed else self.base.cdf(self._at(x))

    def survival(self, x: Tensor) -> Tensor:
        """1 - G(x)."""
        return self.base.cdf(self._at(x)) if self.is_reversed else self.base.survival(self._at(x))

    def log_cdf(self, x: Tensor) -> Tensor:
        """Logarithm of G(x)."""
        return self.base.log_survival(self._at(x)) if self.is_reversed else self.base.log_cdf(self._at(x))

    def log_survival(self, x: Tensor) -> Tensor:
        """Logarithm of 1 - G(x)."""
        return self.base.log_cdf(self._at(x)) if self.is_reversed else self.base.log_survival(self._at(x))

    def pdf(self, x: Tensor) -> Tensor:
        """G'(x)."""
        slope = self.base.pdf(self._at(x))
        return torch.where(slope == 0, 0.0, slope * (2 * x.abs())) if self.is_squared else slope

    def quantile(self, q: Tensor) -> Tensor:
        """The x with G(x) = q, for q in [0, 1] (NaN outside)."""
        return self._back(self.base.upper_quantile(q) if self.is_reversed else self.base.quantile(q))

    def upper_quantile(self, q: Tensor) -> Tensor:
        """The x with 1 - G(x) = q."""
        return self._back(self.base.quantile(q) if self.is_reversed else self.base.upper_quantile(q))

    def _back(self, z: Tensor) -> Tensor:
        y = self.shift - z if self.is_reversed else z - self.shift
        if not self.is_squared:
            return y
        safe = torch.where(y == 0, 1.0, y.abs())
        return torch.where(y == 0, 0.0, torch.sign(y) * safe.sqrt())

    def _suffixes(self, number: Callable[[Parameter], str], call: str) -> str:
        moved = isinstance(self.shift, torch.Tensor) or self.shift != 0
        text = f".shifted({number(self.shift)})" if moved else ""
        text += f".reversed{call}" if self.is_reversed else ""
        return text + (f".squared{call}" if self.is_squared else "")

    def __str__(self) -> str:
        return str(self.base) + self._suffixes(number_text, "")

    def __repr__(self) -> str:
        return repr(self.base) + self._suffixes(number_repr, "()")


class Custom(Frozen, Distribution):
    """A distribution made from a plain function: x ↦ F(x), a torch tensor to one of its shape.

    Everything but the CDF follows from it, see `Distribution`. Usually made by `geodiff.soft.as_distribution`.
    """

    def __init__(self, function: Callable[[Tensor], Tensor], name: str = "") -> None:
        vars(self)["function"] = function
        vars(self)["name"] = name or getattr(function, "__name__", type(function).__name__)

    def cdf(self, x: Tensor) -> Tensor:
        """F(x), by the user's function."""
        return vars(self)["function"](x)

    def __repr__(self) -> str:
        return f"Custom({self.name})"


class ClosedForm(Frozen, Distribution):
    """A distribution with closed forms: public methods check the input and attach exact slopes to the values.

    Subclasses define ``_cdf``, ``_survival``, ``_log_cdf``, ``_log_survival``, ``_pdf``, the rates ``_cdf_rate`` =
    pdf / F and ``_survival_rate`` = pdf / (1 - F), ``_quantile`` and ``_upper_quantile``.
    """

    def _input(self, x: Any, argument: str = "x") -> Tensor:
        return floating(str(self), argument, x, ("...",), finite=False)

    def cdf(self, x: Tensor) -> Tensor:
        """F(x)."""
        return special.smooth(self._input(x), self._cdf, self._pdf)

    def survival(self, x: Tensor) -> Tensor:
        """1 - F(x), without cancellation."""
        return special.smooth(self._input(x), self._survival, lambda z: -self._pdf(z))

    def log_cdf(self, x: Tensor) -> Tensor:
        """Logarithm of F(x), accurate in both tails; -inf with gradient 0 where F = 0."""
        return special.smooth(self._input(x), self._log_cdf, self._cdf_rate)

    def log_survival(self, x: Tensor) -> Tensor:
        """Logarithm of 1 - F(x), accurate in both tails; -inf with gradient 0 where F = 1."""
        return special.smooth(self._input(x), self._log_survival, lambda z: -self._survival_rate(z))

    def pdf(self, x: Tensor) -> Tensor:
        """F'(x); at the ends of the support the value from inside, or 0 where that is infinite."""
        return self._pdf(self._input(x))

    def quantile(self, q: Tensor) -> Tensor:
        """The x with F(x) = q, for q in [0, 1] (NaN outside)."""
        return torch.where((self._input(q, "q") >= 0) & (q <= 1), self._quantile(q), math.nan)

    def upper_quantile(self, q: Tensor) -> Tensor:
        """The x with 1 - F(x) = q, for q in [0, 1] (NaN outside)."""
        return torch.where((self._input(q, "q") >= 0) & (q <= 1), self._upper_quantile(q), math.nan)

    def _cdf(self, z: Tensor) -> Tensor:
        raise NotImplementedError

    def _survival(self, z: Tensor) -> Tensor:
        raise NotImplementedError

    def _log_cdf(self, z: Tensor) -> Tensor:
        raise NotImplementedError

    def _log_survival(self, z: Tensor) -> Tensor:
        raise NotImplementedError

    def _pdf(self, z: Tensor) -> Tensor:
        raise NotImplementedError

    def _cdf_rate(self, z: Tensor) -> Tensor:
        raise NotImplementedError

    def _survival_rate(self, z: Tensor) -> Tensor:
        raise NotImplementedError

    def _quantile(self, q: Tensor) -> Tensor:
        raise NotImplementedError

    def _upper_quantile(self, q: Tensor) -> Tensor:
        raise NotImplementedError


class Symmetric(ClosedForm):
    """A distribution with F(-x) = 1 - F(x), given by its lower half: ``_low`` and friends see only z <= 0, q <= ½."""

    def _low(self, z: Tensor) -> Tensor:
        raise NotImplementedError

    def _log_low(self, z: Tensor) -> Tensor:
        return torch.log(self._low(z))

    def _rate_low(self, z: Tensor) -> Tensor:
        low = self._low(z)
        return torch.where(low == 0, 0.0, self._pdf(z) / torch.where(low == 0, 1.0, low))

    def _quantile_low(self, q: Tensor) -> Tensor:
        raise NotImplementedError

    def _cdf(self, z: Tensor) -> Tensor:
        low = self._low(-z.abs())
        return torch.where(z < 0, low, 1 - low)

    def _log_cdf(self, z: Tensor) -> Tensor:
        t = -z.abs()
        return torch.where(z < 0, self._log_low(t), torch.log1p(-self._low(t)))

    def _cdf_rate(self, z: Tensor) -> Tensor:
        t = -z.abs()
        return torch.where(z < 0, self._rate_low(t), self._pdf(t) / (1 - self._low(t)))

    def _survival(self, z: Tensor) -> Tensor:
        return self._cdf(-z)

    def _log_survival(self, z: Tensor) -> Tensor:
        return self._log_cdf(-z)

    def _survival_rate(self, z: Tensor) -> Tensor:
        return self._cdf_rate(-z)

    def _quantile(self, q: Tensor) -> Tensor:
        low = q <= 0.5
        z = self._quantile_low(torch.where(low, q, 1 - q))
        return torch.where(low, z, -z)

    def _upper_quantile(self, q: Tensor) -> Tensor:
        return -self._quantile(q)
