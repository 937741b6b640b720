# SPDX-License-Identifier: Apache-2.0
"""NURBS curves."""

from collections.abc import Sequence
from typing import Any

import torch

from geodiff.modes import outside_autocast
from geodiff.splines import geometry
from geodiff.splines.spline import NURBS
from geodiff.validation import fail


@outside_autocast
class NURBSCurve(NURBS):
    """A B-spline curve, rational if it has weights: `C(u) = Σ w_i N_i(u) P_i / Σ w_i N_i(u)`.

    Args:
        control_points: P, `(..., K, D)`.
        knots: `(..., K + P + 1)`, non-decreasing; left out, clamped and uniform on [0, 1]. Where periodic, the
            `(..., K + 1)` breakpoints of one period.
        weights: w > 0, `(..., K)`; left out, polynomial.
        degree: P >= 0, below K.
        knot_gradient: ``"exact"``, or ``"gaussian"`` with a bandwidth; the values are the same.
        bandwidth: standard deviation of the Gaussian, in the units of the knots.
        periodic: close the curve, smoothly; the control points are then numbered cyclically.
        outside: what to do with parameters outside of the domain: ``"error"``, ``"clamp"`` them to it, or
            ``"extend"`` the end pieces.

    Gradients: in control points, weights, knots and parameters; see `NURBS`.

    Raises:
        TypeError: for a wrong class or dtype.
        ValueError: for a wrong shape, too few points, decreasing knots, a knot repeated more than P + 1 times, weights
            that are not positive, NaN.

    Example:
        >>> import torch, geodiff as gd
        >>> curve = gd.NURBSCurve(torch.tensor([[0.0, 0.0], [1.0, 2.0], [2.0, 0.0]]), degree=2)
        >>> curve(torch.tensor([0.0, 0.5]))
        tensor([[0., 0.],
                [1., 1.]])
    """

    axes = 1

    def __init__(
        self,
        control_points: Any,
        knots: Any = None,
        weights: Any = None,
        degree: int = 3,
        *,
        knot_gradient: str = "exact",
        bandwidth: float | None = None,
        periodic: bool = False,
        outside: str = "error",
    ) -> None:
        degrees: Any = degree if isinstance(degree, Sequence) else (degree,)
        super().__init__(control_points, (knots,), weights, degrees, knot_gradient, bandwidth, periodic, outside)

    @property
    def degree(self) -> int:
        """P."""
        return self.degrees[0]

    def tangent(self, u: Any, grid: bool = False) -> torch.Tensor:
        """Return unit tangents, `(..., N, D)`; NaN-free, but meaningless where the first derivative is zero."""
        return geometry.unit(self.derivative(u, order=1, grid=grid))

    def curvature(self, u: Any, grid: bool = False) -> torch.Tensor:
        """Return the curvature `κ = |C′ ∧ C″| / |C′|³ >= 0`, `(..., N)`, in any dimension."""
        jet = self.derivatives(u, order=2, grid=grid)
        return geometry.curvature(jet[(1,)], jet[(2,)])

    def torsion(self, u: Any, grid: bool = False) -> torch.Tensor:
        """Return the torsion `τ = det(C′, C″, C‴) / |C′ × C″|²`, `(..., N)`, of a curve in space."""
        if self.dim != 3:
            raise fail("NURBSCurve.torsion", "control_points", "points in space, D = 3", f"D = {self.dim}")
        jet = self.derivatives(u, order=3, grid=grid)
        return geometry.torsion(jet[(1,)], jet[(2,)], jet[(3,)])
