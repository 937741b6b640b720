# SPDX-License-Identifier: Apache-2.0
"""Activation replacement: a distribution of which small differences count more, and large ones less."""

import math
from collections.abc import Callable
from typing import Any

from geodiff.soft import special
from geodiff.soft.distribution_base import Distribution
from geodiff.soft.names import as_distribution
from geodiff.soft.parameters import Frozen, Parameter, Tensor, number_repr, number_text, parameter
from geodiff.validation import fail

__all__ = ["Activated"]


class Activated(Frozen, Distribution):
    """A symmetric distribution F₀ after the activation replacement trick (ART): F(x) = F₀(φ(x)), φ(x) = x/|x|^λ.

    F. Petersen et al., "Differentiable sorting networks for scalable sorting and ranking supervision" (2021); equation
    3.13 of the thesis of 2022. A comparator that sees small differences blurs less, one that sees large ones has more
    gradient. Its relaxed minimum is not monotone.

    At temperature τ it is `F₀(φ(x/τ))`. The source's `σ(β φ(x))` is that at `τ = β^(−1/(1 − λ))`.

    Args:
        distribution: F₀, an object or a name; symmetric.
        strength: λ in [0, 1): 0 is F₀ itself. The source takes ¼, and up to ½ for long inputs. A number, or a tensor.

    Gradients: in x and, where λ is a tensor, in λ. The slope at x = 0 is infinite for λ > 0; it counts as 0, so that
    two values that are exactly equal have a finite gradient.

    Raises:
        ValueError: a distribution that is not symmetric, a strength outside [0, 1).

    Example:
        >>> import torch
        >>> Activated("logistic", 0.5).cdf(torch.tensor([0.01, 100.0]))
        tensor([0.5250, 1.0000])
    """

    source: Distribution
    strength: Parameter
    symmetric = True
    name = "activated"

    def __init__(
        self, distribution: "Distribution | type[Distribution] | str | Callable[..., Any]", strength: Parameter = 0.25
    ) -> None:
        where = "Activated"
        source = as_distribution(distribution)
        if not source.symmetric:
            raise fail(where, "distribution", "symmetric: F(−x) = 1 − F(x)", repr(source), "Such as 'logistic'.")
        parameter(where, "strength", strength, "in [0, 1)", lambda p: (p >= 0) & (p < 1), "It is λ; ¼ is usual.")
        fields = vars(self)
        fields["source"], fields["strength"] = source, strength
        fields["formula"] = f"F(x/|x|^{number_text(strength)}) with F(x) = {source.formula}"
        keep = {"finite", "polynomial"}
        fields["tail"] = tuple(end if end in keep else "unknown" for end in source.tail)

    @property
    def support(self) -> tuple[float, float]:  # type: ignore[override]
        """(lowest, highest) x where F is neither 0 nor 1."""
        end = self.source.support[1]
        power = 1 / (1 - float(self._least()))
        return (-math.inf, math.inf) if math.isinf(end) else (-(end**power), end**power)

    def _least(self) -> Any:
        strength = self.strength
        return strength.detach().min() if isinstance(strength, Tensor) else strength

    def _at(self, x: Tensor) -> Tensor:
        return _replaced(x, 1 - self.strength)

    def cdf(self, x: Tensor) -> Tensor:
        """F₀(φ(x))."""
        return self.source.cdf(self._at(x))

    def survival(self, x: Tensor) -> Tensor:
        """1 − F₀(φ(x))."""
        return self.source.survival(self._at(x))

    def log_cdf(self, x: Tensor) -> Tensor:
        """Logarithm of F₀(φ(x))."""
        return self.source.log_cdf(self._at(x))

    def log_survival(self, x: Tensor) -> Tensor:
        """Logarithm of 1 − F₀(φ(x))."""
        return self.source.log_survival(self._at(x))

    def pdf(self, x: Tensor) -> Tensor:
        """The density; 0 at x = 0, where it is infinite."""
        return self.source.pdf(self._at(x)) * _slope(x, 1 - self.strength)

    def quantile(self, q: Tensor) -> Tensor:
        """The x with F(x) = q, for q in [0, 1] (NaN outside)."""
        return _replaced(self.source.quantile(q), 1 / (1 - self.strength))

    def upper_quantile(self, q: Tensor) -> Tensor:
        """The x with 1 − F(x) = q."""
        return -self.quantile(q)

    def __str__(self) -> str:
        return f"activated({self.source}, {number_text(self.strength)})"

    def __repr__(self) -> str:
        return f"Activated({self.source!r}, {number_repr(self.strength)})"


def _replaced(x: Tensor, power: Parameter) -> Tensor:
    """Return sign(x)·|x|^power."""
    if not isinstance(power, Tensor):
        return special.smooth(x, lambda x: x.sign() * x.abs() ** power, lambda x: _slope(x, power))
    there = x != 0
    safe = x.where(there, x.new_ones(()))
    return (safe.sign() * safe.abs() ** power).where(there, x.new_zeros(()) * power)


def _slope(x: Tensor, power: Parameter) -> Tensor:
    there = x != 0
    safe = x.abs().where(there, x.new_ones(()))
    at_zero = 1.0 if not isinstance(power, Tensor) and power == 1 else 0.0
    return (power * safe ** (power - 1)).where(there, x.new_full((), at_zero))
