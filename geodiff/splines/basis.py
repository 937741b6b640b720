# SPDX-License-Identifier: Apache-2.0
"""B-spline basis functions over one knot vector."""

from typing import Any

import numpy as np
import torch

from geodiff import ops
from geodiff.modes import outside_autocast
from geodiff.saving import Saved
from geodiff.splines.knots import check_knots, greville, open_periodic
from geodiff.validation import as_tensor, fail, floating, promote


@outside_autocast
class BSplineBasis(Saved):
    """The K basis functions of degree P over a knot vector.

    Args:
        knots: non-decreasing, `(..., K + P + 1)`; where periodic the `(..., K + 1)` breakpoints of one period.
        degree: P >= 0.
        periodic: wrap parameters round, and number the K functions cyclically.

    Gradients: flow to the knots (exact) and to the parameters.

    Raises:
        TypeError: knots that are not float32 or float64.
        ValueError: decreasing knots, a knot repeated more than P + 1 times, an empty domain, NaN.

    Example:
        >>> import torch, geodiff as gd
        >>> basis = gd.BSplineBasis(torch.tensor([0.0, 0, 0, 1, 1, 1]), degree=2)
        >>> basis.matrix(torch.tensor([0.0, 0.5]))
        tensor([[1.0000, 0.0000, 0.0000],
                [0.2500, 0.5000, 0.2500]])
    """

    _fields_kept = ("knots", "degree", "periodic", "count")

    def _saved(self) -> dict[str, Any]:
        return {"knots": self.knots, "degree": self.degree, "periodic": self.periodic}

    def __init__(self, knots: Any, degree: int, periodic: bool = False) -> None:
        knots = promote("BSplineBasis", knots=knots)["knots"]
        if not isinstance(degree, int) or isinstance(degree, bool) or degree < 0:
            raise fail("BSplineBasis", "degree", "an integer, 0 or more", degree)
        floating("BSplineBasis", "knots", knots, ("...", "M"))
        count = knots.shape[-1] - 1 if periodic else knots.shape[-1] - degree - 1
        if count < 1:
            raise fail("BSplineBasis", "knots", f"at least {2 if periodic else degree + 2} long", knots)
        check_knots("BSplineBasis", "knots", knots, degree, count, periodic)
        self.knots = knots
        self.degree = degree
        self.periodic = periodic
        self.count = count

    @property
    def opened_knots(self) -> torch.Tensor:
        """The ordinary knot vector: the periodic one unrolled, any other as it is."""
        return open_periodic(self.knots, self.degree) if self.periodic else self.knots

    @property
    def domain(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Both ends of the parameter's range, each of the batch's shape."""
        if self.periodic:
            return self.knots[..., 0], self.knots[..., -1]
        return self.knots[..., self.degree], self.knots[..., self.count]

    @property
    def greville(self) -> torch.Tensor:
        """Greville abscissae, `(..., K)`; of the unrolled vector, `(..., K + P)`, where periodic."""
        return greville(self.opened_knots, self.degree)

    def values(self, u: Any, order: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
        """Evaluate what is not zero: span `(..., N)`, and values `(..., N, P + 1)` of functions span − P, …, span.

        Where periodic, functions K, K + 1, … are functions 0, 1, … again. See `geodiff.ops.basis`.
        """
        return ops.basis(self._wrapped(u), self.opened_knots, self.degree, order)

    def matrix(self, u: Any, order: int = 0) -> torch.Tensor:
        """Evaluate all functions, or a derivative of them: a dense `(..., N, K)`."""
        span, values = self.values(u, order)
        where = span[..., None] + torch.arange(-self.degree, 1, device=span.device)
        if self.periodic:  # a short period meets the same function twice: add, never overwrite
            where = where % self.count
        return values.new_zeros(*span.shape, self.count).scatter_add(-1, where, values)

    def _wrapped(self, u: Any) -> torch.Tensor:
        low, high = self.domain
        if not isinstance(u, torch.Tensor | np.ndarray):  # numbers are read in the knots' own precision
            as_tensor("BSplineBasis", "u", u)
            u = torch.as_tensor(u, dtype=low.dtype)
        u = promote("BSplineBasis", u=u)["u"].to(low.device)
        floating("BSplineBasis", "u", u, ("...", "N"), finite=False)
        return wrap(u, low[..., None], high[..., None]) if self.periodic else u


def wrap(u: torch.Tensor, low: torch.Tensor, high: torch.Tensor) -> torch.Tensor:
    """Bring a parameter into [low, high) by whole periods."""
    period = high - low
    turns = torch.floor((u - low) / period).detach()
    return u - turns * period
