# SPDX-License-Identifier: Apache-2.0
"""Names and other stand-ins: strings, classes and callables become distributions and T-conorms."""

import re
from collections.abc import Callable
from typing import Any

import torch

from geodiff import members
from geodiff.soft import distributions, skewed, tconorm_powers, tconorms  # noqa: F401 (they fill BUILT_IN)
from geodiff.soft.distribution_base import Custom, Distribution
from geodiff.soft.parameters import BUILT_IN, Parameter
from geodiff.soft.tconorm_base import CustomTConorm, TConorm
from geodiff.validation import describe, fail, nearest

DISTRIBUTIONS: dict[str, type[Distribution]] = {
    BUILT_IN[r.struct].name: BUILT_IN[r.struct] for r in members.DISTRIBUTIONS
}
"""The distributions by name, in the order of their kernel numbers."""

TCONORMS: dict[str, type[TConorm]] = {BUILT_IN[r.struct].name: BUILT_IN[r.struct] for r in members.TCONORMS}
"""The T-conorms by name, in the order of their kernel numbers."""

_MODIFIERS = ("shifted", "reversed", "squared")
_TOKEN = re.compile(r"\s*([A-Za-z_]\w*)\s*(?:\(\s*([^()]*?)\s*\))?\s*(\.|$)")


def as_distribution(value: Distribution | type[Distribution] | str | Callable[..., Any]) -> Distribution:
    """Turn a name, a class or a callable into a distribution; return a distribution as it is.

    Args:
        value: a `Distribution`; a subclass that needs no arguments; a callable x ↦ F(x) from tensor to tensor; or a
            string ``name[(shape)][.shifted(h)][.reversed][.squared]``, with the modifiers applied from left to right.
            ``h`` is a number or ``median``, which moves the median to 0.

    Raises:
        ValueError: for an unknown name or modifier, naming the nearest one.
        TypeError: for anything else.

    Example:
        >>> as_distribution("gamma(0.5).reversed.squared")
        Gamma(shape=0.5).reversed().squared()
        >>> as_distribution(torch.sigmoid)
        Custom(sigmoid)
    """
    where = "as_distribution"
    if isinstance(value, Distribution):
        return value
    if isinstance(value, str):
        (name, argument), *modifiers = _parse(where, "distribution", value)
        cls = _find(where, "distribution", name, DISTRIBUTIONS)
        result = _construct(where, "distribution", value, cls, argument)
        for modifier, text in modifiers:
            result = _modify(where, value, result, modifier, text)
        return result
    if isinstance(value, type) and issubclass(value, Distribution):
        return value()
    if callable(value) and not isinstance(value, type):
        return _checked(where, value)
    expected = "a Distribution, a name such as 'logistic', or a callable x -> F(x)"
    raise fail(where, "distribution", expected, value, error=TypeError)


def as_tconorm(value: TConorm | type[TConorm] | str | Callable[..., Any]) -> TConorm:
    """Turn a name, a class or a callable into a T-conorm; return a T-conorm as it is.

    Args:
        value: a `TConorm`; a subclass that needs no arguments; a callable (a, b) ↦ ⊥(a, b) on tensors; or a string
            ``name[(p)]``, where p may be left out for its default.

    Raises:
        ValueError: for an unknown name, naming the nearest one.
        TypeError: for anything else.

    Example:
        >>> as_tconorm("yager(0.5)")
        Yager(p=0.5)
    """
    where = "as_tconorm"
    if isinstance(value, TConorm):
        return value
    if isinstance(value, str):
        (name, argument), *rest = _parse(where, "tconorm", value)
        cls = _find(where, "tconorm", name, TCONORMS)
        if rest:
            raise fail(where, "tconorm", "a name without modifiers", repr(value), f"Write '{name}' alone.")
        return _construct(where, "tconorm", value, cls, argument)
    if isinstance(value, type) and issubclass(value, TConorm):
        return value()
    if callable(value) and not isinstance(value, type):
        return CustomTConorm(value)
    expected = "a TConorm, a name such as 'probabilistic', or a callable (a, b) -> a or b"
    raise fail(where, "tconorm", expected, value, error=TypeError)


def samples_of(cls: Any) -> list[Any]:
    """Make one of each of the parameters that a built-in distribution or T-conorm names as its samples."""
    return [cls(p) for p in cls.samples] if cls.parametric else [cls()]


def from_kernel(
    kernel_id: int,
    shape: Parameter = 0.5,
    shift: Parameter = 0.0,
    is_reversed: bool = False,
    is_squared: bool = False,
) -> Distribution:
    """Build a distribution from its kernel number and canonical form.

    Args:
        kernel_id: the number, of `Distribution.kernel_id`.
        shape: the gamma distribution's shape; ignored by the others.
        shift: h in F(x + h), and 1 - F(h - x) if reversed.
        is_reversed: whether it is the reversed form.
        is_squared: whether it is evaluated at |x|·x.

    Raises:
        ValueError: for an unknown number.
    """
    cls: Any = BUILT_IN[members.distribution(kernel_id).struct]
    result: Distribution = cls(shape) if cls.parametric else cls()
    if isinstance(shift, torch.Tensor) or shift != 0:
        result = result.shifted(shift)
    result = result.reversed() if is_reversed else result
    return result.squared() if is_squared else result


def tconorm_from_kernel(kernel_id: int, p: Parameter = 0.0) -> TConorm:
    """Build a T-conorm from its kernel number and parameter.

    Args:
        kernel_id: the number, of `TConorm.kernel_id`.
        p: the parameter; ignored by those without.

    Raises:
        ValueError: for an unknown number or a parameter out of range.
    """
    cls: Any = BUILT_IN[members.tconorm(kernel_id).struct]
    result: TConorm = cls(p) if cls.parametric else cls()
    return result


def _parse(where: str, argument: str, text: str) -> list[tuple[str, str | None]]:
    parts, at = [], 0
    while True:
        token = _TOKEN.match(text, at)
        if not token:
            example = "gamma(0.5).reversed.squared" if argument == "distribution" else "yager(2)"
            raise fail(where, argument, f"a name such as '{example}'", repr(text))
        parts.append((token[1], token[2]))
        at = token.end()
        if token[3] == "":
            return parts


def _find(where: str, argument: str, name: str, options: dict[str, Any]) -> Any:
    if name not in options:
        raise fail(where, argument, "the name of a known one", repr(name), nearest(name, options))
    return options[name]


def _number(where: str, argument: str, text: str, of: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise fail(where, argument, f"a number in the parentheses of '{of}'", repr(text)) from None


def _construct(where: str, argument: str, text: str, cls: Any, number: str | None) -> Any:
    if number is None or number == "":
        return cls()
    if not cls.parametric:
        raise fail(where, argument, f"'{cls.name}' without a parameter", repr(text), "It has none.")
    return cls(_number(where, argument, number, cls.name))


def _modify(where: str, text: str, source: Distribution, modifier: str, number: str | None) -> Distribution:
    if modifier not in _MODIFIERS:
        raise fail(where, "distribution", "followed by known modifiers", repr(modifier), nearest(modifier, _MODIFIERS))
    if modifier != "shifted":
        if number:
            raise fail(where, "distribution", f"'.{modifier}' without a number", repr(text))
        return source.reversed() if modifier == "reversed" else source.squared()
    if number == "median":
        return source.shifted(median(source))
    if not number:
        fix = "Write .shifted(0.5) or .shifted(median)."
        raise fail(where, "distribution", "shifted by a number", repr(text), fix)
    return source.shifted(_number(where, "distribution", number, modifier))


def median(distribution: Distribution) -> float:
    """Return the x with F(x) = ½."""
    with torch.no_grad():
        return float(distribution.quantile(torch.tensor(0.5, dtype=torch.float64)))


def _checked(where: str, function: Callable[..., Any]) -> Custom:
    """Try a user's CDF on a few numbers before anything is built on it."""
    custom = Custom(function)
    x = torch.linspace(-3, 3, 13, dtype=torch.float64)
    with torch.no_grad():
        value = function(x)
    argument = f"distribution ({custom.name})"
    if not isinstance(value, torch.Tensor) or value.shape != x.shape:
        raise fail(
            where, argument, "a callable that maps a tensor to one of its shape", describe(value), error=TypeError
        )
    low, high = float(value.min()), float(value.max())
    if not (low >= -1e-6 and high <= 1 + 1e-6 and bool((value.diff() >= -1e-6).all())):
        got = f"values from {low:g} to {high:g}" + ("" if bool((value.diff() >= -1e-6).all()) else ", not rising")
        raise fail(where, argument, "a cumulative distribution function, rising from 0 to 1", got)
    return custom
