# SPDX-License-Identifier: Apache-2.0
"""Functions along one axis, tabulated on its spans: Lagrange polynomials or B-splines.

Tensor products are made of them.
"""

import dataclasses

import numpy as np
import torch

from geodiff.splines.basis import BSplineBasis


@dataclasses.dataclass(frozen=True)
class Axis:
    """Functions along one axis.

    Attributes:
        count: K, how many unknowns.
        degree: P.
        breaks: (S + 1,), ends of the spans.
        dofs: (S, n), functions that are not zero on a span.
        periodic: whether the ends are one place.
        basis: of B-splines; None for Lagrange polynomials, where all spans are alike.
    """

    count: int
    degree: int
    breaks: torch.Tensor
    dofs: torch.Tensor
    periodic: bool
    basis: BSplineBasis | None

    @property
    def smooth(self) -> bool:
        """Whether first derivatives are continuous: no knot inside is repeated P times."""
        if self.basis is None or self.degree < 2:
            return False
        return bool(((self.dofs[1:, 0] - self.dofs[:-1, 0]) % self.count < self.degree).all())

    def nodes(self, points: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Return Gauss points and weights of all spans, (S, points)."""
        x, w = np.polynomial.legendre.leggauss(points)
        width = self.breaks.diff()[:, None]
        return self.breaks[:-1, None] + width * torch.from_numpy((x + 1) / 2).to(width), width * torch.from_numpy(
            w / 2
        ).to(width)

    def table(self, points: int, order: int) -> torch.Tensor:
        """Return values, or a derivative, at the Gauss points: (S or 1, points, n)."""
        u = self.nodes(points)[0]
        if self.basis is None:
            width = self.breaks[1] - self.breaks[0]
            return lagrange((u[:1] - self.breaks[0]) / width, self.degree, order) / width**order
        return self.basis.values(u.reshape(-1), order)[1].reshape(*u.shape, -1).to(u)

    def at(self, u: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the unknowns and values of functions at parameters (M,): (M, n) each."""
        if self.basis is not None:
            span, values = self.basis.values(u)
            dofs = span[:, None] + torch.arange(-self.degree, 1)
            return (dofs % self.count if self.periodic else dofs), values
        width = self.breaks[1] - self.breaks[0]
        if self.periodic:
            u = self.breaks[0] + (u - self.breaks[0]) % (self.breaks[-1] - self.breaks[0])
        span = torch.searchsorted(self.breaks, u.detach(), right=True).sub(1).clamp(0, len(self.dofs) - 1)
        return self.dofs[span], lagrange((u - self.breaks[span]) / width, self.degree, 0)


def lagrange(x: torch.Tensor, degree: int, order: int) -> torch.Tensor:
    """Return Lagrange polynomials on nodes i/P of [0, 1], or a derivative, at x: (..., P + 1)."""
    nodes = np.linspace(0, 1, degree + 1)
    columns = [np.polynomial.polynomial.polyder(c, order) for c in np.linalg.inv(np.vander(nodes, increasing=True)).T]
    powers = torch.stack([x**k for k in range(degree + 1)], -1)
    coefficients = np.zeros((degree + 1, degree + 1))
    for i, c in enumerate(columns):
        coefficients[: len(c), i] = c
    return powers @ torch.from_numpy(coefficients).to(x)


def lagrange_axis(count: int, degree: int, low: float, high: float, periodic: bool, dtype: torch.dtype) -> Axis:
    """Make one of nodes that are equally far apart; a periodic one has its end node only once."""
    spans = count // degree if periodic else (count - 1) // degree
    dofs = torch.arange(spans)[:, None] * degree + torch.arange(degree + 1)
    breaks = torch.linspace(low, high, spans + 1, dtype=dtype)
    return Axis(count, degree, breaks, dofs % count if periodic else dofs, periodic, None)


def spline_axis(knots: torch.Tensor, degree: int, periodic: bool) -> Axis:
    """Make one of B-splines on a knot vector (the breakpoints of a period where periodic), without its gradient."""
    basis = BSplineBasis(knots.detach(), degree, periodic)
    low, high = basis.domain
    breaks = knots.detach().unique()
    breaks = breaks[(breaks >= low) & (breaks <= high)]
    span, _ = basis.values((breaks[1:] + breaks[:-1]) / 2)
    dofs = span[:, None] + torch.arange(-degree, 1)
    return Axis(basis.count, degree, breaks, dofs % basis.count if periodic else dofs, periodic, basis)


def clamped_at(axis: Axis, end: int) -> bool:
    """Whether only the first (last) function is not zero at an end of the axis."""
    if axis.basis is None:
        return True
    knots = axis.basis.knots if end == 0 else axis.basis.knots.flip(-1)
    return bool((knots[: axis.degree + 1] == knots[0]).all())
