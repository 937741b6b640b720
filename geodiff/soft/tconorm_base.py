# SPDX-License-Identifier: Apache-2.0
"""What every T-conorm can do: the base classes, the dual T-norm, and the wrapper around a user's own function."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import torch

from geodiff import members
from geodiff.soft import special
from geodiff.soft.parameters import Frozen, Parameter, Tensor, built_in, keep_consistent, number_repr, number_text
from geodiff.validation import fail, floating


class Reduced(NamedTuple):
    """An aggregate ⊥ and its logarithms."""

    value: Tensor
    log: Tensor
    log_complement: Tensor


class TConormProperties(NamedTuple):
    """What is known of a T-conorm ⊥ or of a family (F. Petersen, "Learning with differentiable algorithms", 2022).

    The columns of its table 5.2, but for the last: the arrows printed there are those of the T-norms, whose order in p
    is the opposite.

    Attributes:
        continuous: on [0, 1]².
        continuously_differentiable: in (0, 1)².
        strict: continuous, and strictly rising in both arguments on [0, 1)².
        idempotent: ⊥(a, a) = a.
        nilpotent: continuous, and finitely many values a < 1 come to 1, whatever a > 0.
        archimedean: of a, however small, finitely many come to more than any b < 1.
        in_p: ``"rises"`` or ``"falls"``: how ⊥(a, b) goes as p grows; None without a parameter.
    """

    continuous: bool
    continuously_differentiable: bool
    strict: bool
    idempotent: bool
    nilpotent: bool
    archimedean: bool
    in_p: str | None = None


STRICT = TConormProperties(True, True, True, False, False, True)
NILPOTENT = TConormProperties(True, False, False, False, True, True)

_OF_COMBINE = ("aggregate", "aggregate_log", "aggregate_log_pair", "generator", "inverse_generator")


class TConorm:
    """A T-conorm: the "or" of fuzzy logic, [0, 1]² → [0, 1], commutative, associative, monotone, with ⊥(a, 0) = a.

    Subclass it with your own torch code: only `combine` is required. `aggregate` then folds it along an axis, and
    `aggregate_log` calls `aggregate` on exp(log F). User-defined T-conorms work everywhere through the reference path.

    A subclass of a built-in one is a user-defined one. With a `combine` of its own it keeps nothing of its parent that
    speaks of the parent's: neither aggregates nor the generator. Overriding those alone is refused.

    Attributes:
        kernel_id: number of the compiled kernel, None where there is none.
        name: snake_case name.
        formula: ⊥(a, b) in text.
        parametric: whether the constructor takes a parameter p.
        samples: parameters that the family lists and tests take; () where there is none.
        p: the parameter, or None.
        properties: what is known of it, `TConormProperties`; None of one's own, and of the average, which is none.

    Example:
        >>> class Nilpotent(TConorm):
        ...     name = "nilpotent"
        ...     def combine(self, a, b):
        ...         return torch.where(a + b < 1, torch.maximum(a, b), 1.0)
        >>> Nilpotent().aggregate(torch.tensor([0.2, 0.1, 0.3]), dim=0)
        tensor(0.3000)
    """

    kernel_id: int | None = None
    name: str = "custom"
    formula: str = ""
    parametric: bool = False
    samples: tuple[float, ...] = ()
    p: Parameter | None = None
    properties: TConormProperties | None = None

    # With `kernel`, as for each class of the table members.def: what is written there.
    def __init_subclass__(cls, kernel: bool = False, **options: Any) -> None:
        super().__init_subclass__(**options)
        if kernel:
            built_in(cls, members.TCONORMS)
            return
        followers = (*_OF_COMBINE, "_reduce", "_cull_threshold", "formula", "properties")
        keep_consistent(cls, TConorm, "combine", followers, _OF_COMBINE)

    def combine(self, a: Tensor, b: Tensor) -> Tensor:
        """⊥(a, b) for probabilities of broadcastable shapes."""
        raise NotImplementedError(f"{type(self).__name__} must define combine(self, a, b).")

    def aggregate(self, probabilities: Tensor, dim: int) -> Tensor:
        """⊥ over all probabilities along an axis, 0 where it is empty; here by folding `combine`."""
        total: Tensor | None = None
        for a in probabilities.unbind(dim):
            total = a if total is None else self.combine(total, a)
        return probabilities.sum(dim) if total is None else total

    def aggregate_log(self, log_cdf: Tensor, log_survival: Tensor, dim: int) -> Tensor:
        """⊥ along an axis, from log F and log(1 - F), so that gradients survive where F rounds to 0 or 1.

        Args:
            log_cdf: log F, at most 0; may be -inf.
            log_survival: log(1 - F) of the same F and shape. Gradients reach F through one or the other, whichever is
                accurate: only their sum along F means anything.
            dim: the axis.

        Returns:
            ⊥ without that axis. Never NaN; the gradient of an input that is -inf is 0.
        """
        return self._reduce(log_cdf, log_survival, dim).value

    def aggregate_log_pair(self, log_cdf: Tensor, log_survival: Tensor, dim: int) -> tuple[Tensor, Tensor]:
        """Logarithms of ⊥ and of 1 - ⊥, ready for another aggregation; arguments as of `aggregate_log`."""
        result = self._reduce(log_cdf, log_survival, dim)
        return _to_inf(result.log), _to_inf(result.log_complement)

    def _reduce(self, log_cdf: Tensor, log_survival: Tensor, dim: int) -> Reduced:
        value = self.aggregate(torch.exp(log_cdf), dim)
        return Reduced(value, special.log(value), special.log(1 - value))

    def generator(self, a: Tensor) -> Tensor:
        """s(a), for the additive T-conorms."""
        raise NotImplementedError(f"{self!r} has no additive generator.")

    def inverse_generator(self, s: Tensor) -> Tensor:
        """s⁻¹(min(s, s(1))), for the additive T-conorms."""
        raise NotImplementedError(f"{self!r} has no additive generator.")

    def dual(self) -> "TNorm":
        """Return the T-norm ⊤(a, b) = 1 - ⊥(1 - a, 1 - b)."""
        return TNorm(self)

    def cull_threshold(self, max_error: float, n: int) -> float:
        """How small ε must be so that leaving out n values F <= ε changes no aggregate by more than ``max_error``.

        Args:
            max_error: the bound, in (0, 1).
            n: how many values may be left out, at least 1.

        Returns:
            ε, the largest one up to terms of the order of ``max_error``; 0, which is always safe, where it underflows
            and for user-defined T-conorms.
        """
        if not 0 < max_error < 1:
            raise fail(f"{self}.cull_threshold", "max_error", "between 0 and 1, exclusive", max_error)
        if isinstance(n, bool) or not isinstance(n, int) or n < 1:
            raise fail(f"{self}.cull_threshold", "n", "a positive integer", n)
        return self._cull_threshold(max_error, n)

    def _cull_threshold(self, max_error: float, n: int) -> float:
        return 0.0

    def _cull_thresholds(self, max_error: float, counts: Tensor) -> tuple[Tensor, float]:
        """`cull_threshold` for many n; and, if s is convex, `max_error/s(max_error)`, else 0.

        Then n may be less than 1 where a is not 0: the room s(a + max_error) - s(a) is at least max_error·s'(a).
        """
        return torch.full_like(counts, self._cull_threshold(max_error, 1)), 0.0

    def __str__(self) -> str:
        return self.name if self.p is None else f"{self.name}({number_text(self.p)})"

    def __repr__(self) -> str:
        return f"{type(self).__name__}({'' if self.p is None else 'p=' + number_repr(self.p)})"


class TNorm(Frozen):
    """The T-norm ("and") dual to a T-conorm: ⊤(a, b) = 1 - ⊥(1 - a, 1 - b). Made by `TConorm.dual`."""

    def __init__(self, conorm: TConorm) -> None:
        vars(self)["conorm"] = conorm

    @property
    def _conorm(self) -> TConorm:
        return vars(self)["conorm"]

    def combine(self, a: Tensor, b: Tensor) -> Tensor:
        """⊤(a, b) for probabilities of broadcastable shapes."""
        return 1 - self._conorm.combine(1 - a, 1 - b)

    def aggregate(self, probabilities: Tensor, dim: int) -> Tensor:
        """⊤ over all probabilities along an axis, 1 where it is empty; without the cancellation of the definition."""
        if not isinstance(self._conorm, LogSpaceTConorm):
            return 1 - self._conorm.aggregate(1 - probabilities, dim)
        a = probabilities_of(f"{self}.aggregate", "probabilities", probabilities)
        log_a, log_c = _logs(a)
        log_c = torch.where(self._conorm._drops_zeros() & (a == 1), -special.BIG, log_c)
        return torch.exp(self._conorm._reduce(log_c, log_a, dim).log_complement)

    def aggregate_log(self, log_cdf: Tensor, log_survival: Tensor, dim: int) -> Tensor:
        """⊤ along an axis, from log F and log(1 - F); arguments as of `TConorm.aggregate_log`."""
        return torch.exp(self._conorm._reduce(log_survival, log_cdf, dim).log_complement)

    def aggregate_log_pair(self, log_cdf: Tensor, log_survival: Tensor, dim: int) -> tuple[Tensor, Tensor]:
        """Logarithms of ⊤ and of 1 - ⊤, ready for another aggregation."""
        log_or, log_nor = self._conorm.aggregate_log_pair(log_survival, log_cdf, dim)
        return log_nor, log_or

    def dual(self) -> TConorm:
        """Return the T-conorm that this T-norm came from."""
        return self._conorm

    def __str__(self) -> str:
        return f"{self._conorm}.dual"

    def __repr__(self) -> str:
        return f"{self._conorm!r}.dual()"


class CustomTConorm(Frozen, TConorm):
    """A T-conorm made from a plain function (a, b) ↦ ⊥(a, b). Usually made by `geodiff.soft.as_tconorm`."""

    def __init__(self, function: Callable[[Tensor, Tensor], Tensor], name: str = "") -> None:
        vars(self)["function"] = function
        vars(self)["name"] = name or getattr(function, "__name__", type(function).__name__)

    def combine(self, a: Tensor, b: Tensor) -> Tensor:
        """⊥(a, b), by the user's function."""
        return vars(self)["function"](a, b)

    def __repr__(self) -> str:
        return f"CustomTConorm({self.name})"


class LogSpaceTConorm(Frozen, TConorm):
    """A T-conorm computed from log a and log(1 - a)."""

    def combine(self, a: Tensor, b: Tensor) -> Tensor:
        """⊥(a, b) for probabilities of broadcastable shapes."""
        pair = probabilities_of(f"{self}.combine", "a", a), probabilities_of(f"{self}.combine", "b", b)
        value = self._combine(*pair)
        return value - (value.detach() - 1).clamp(min=0)  # what rounding puts above 1, off; the slope stays

    def _combine(self, a: Tensor, b: Tensor) -> Tensor:
        return self.aggregate(torch.stack(torch.broadcast_tensors(a, b)), 0)

    def aggregate(self, probabilities: Tensor, dim: int) -> Tensor:
        """⊥ over all probabilities along an axis, 0 where it is empty.

        Where the slope at a probability of exactly 0 or 1 is infinite it is replaced by a large or zero one.
        """
        a = probabilities_of(f"{self}.aggregate", "probabilities", probabilities)
        if a.shape[dim] == 0:
            return a.sum(dim)
        log_a, log_c = _logs(a)
        log_a = torch.where(self._drops_zeros() & (a == 0), -special.BIG, log_a)
        value = self._reduce(log_a, log_c, dim).value
        return torch.where((a == 0).all(dim), value - value.detach(), value)

    def _drops_zeros(self) -> Tensor:
        """Whether the stand-in for 0 would change the value."""
        return torch.tensor(False, device="cpu")

    def _reduce(self, log_cdf: Tensor, log_survival: Tensor, dim: int) -> Reduced:
        log_cdf, log_survival = log_cdf.clamp(min=-special.BIG), log_survival.clamp(min=-special.BIG)
        if log_cdf.shape[dim] == 0:
            none = log_cdf.sum(dim)
            return Reduced(none, none - special.BIG, none)
        return self._reduce_finite(log_cdf, log_survival, dim)

    def _reduce_finite(self, log_a: Tensor, log_c: Tensor, dim: int) -> Reduced:
        """Aggregate logarithms that are at least -BIG, along an axis that is not empty."""
        raise NotImplementedError


def probabilities_of(where: str, argument: str, value: Any) -> Tensor:
    """Require a float32 or float64 tensor of values in [0, 1]; the range is looked at on the CPU only."""
    a = floating(where, argument, value, ("...",), finite=False)
    if a.device.type == "cpu" and a.numel() and not bool(((a >= 0) & (a <= 1)).all()):
        low, high = float(a.detach().min()), float(a.detach().max())
        raise fail(where, argument, "between 0 and 1", f"values from {low:g} to {high:g}", "Give probabilities.")
    return a


def _to_inf(log_value: Tensor) -> Tensor:
    return torch.where(log_value < -special.BIG / 10, -math.inf, log_value)


def _logs(a: Tensor) -> tuple[Tensor, Tensor]:
    """Logarithms of a and 1 - a, the tiniest number standing in for exact 0: values stay, slopes are the limits'."""
    tiny = torch.finfo(a.dtype).tiny
    low = a < 0.5
    small = torch.where(low, torch.where(a == 0, a + tiny, a), 0.5)
    rest = torch.where(low, 0.5, torch.where(a == 1, (1 - a) + tiny, 1 - a))
    log_a = torch.where(low, torch.log(small), torch.log1p(-rest))
    return log_a, torch.where(low, torch.log1p(-small), torch.log(rest))
