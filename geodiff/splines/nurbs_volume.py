# SPDX-License-Identifier: Apache-2.0
"""NURBS volumes."""

from collections.abc import Sequence
from typing import Any

from geodiff.modes import outside_autocast
from geodiff.splines.spline import NURBS


@outside_autocast
class NURBSVolume(NURBS):
    """A tensor-product B-spline volume `V(u, v, w)`, rational if it has weights.

    Also a free-form deformation: with control points on a box, it maps points of the unit cube.

    Args:
        control_points: `(..., K1, K2, K3, D)`.
        knots: a triple of vectors, `(..., K + P + 1)` each (`(..., K + 1)` along periodic axes), or None for clamped
            uniform ones on [0, 1].
        weights: > 0, `(..., K1, K2, K3)`; left out, polynomial.
        degree: (P1, P2, P3).
        knot_gradient: ``"exact"``, or ``"gaussian"`` with a bandwidth.
        bandwidth: standard deviation of the Gaussian, one for all axes or one each.
        periodic: close it smoothly along each axis.
        outside: ``"error"``, ``"clamp"`` or ``"extend"`` for parameters outside of the domain.

    Gradients: in control points, weights, knots and parameters; see `NURBS`.

    Raises:
        TypeError: for a wrong class or dtype.
        ValueError: as for `NURBSSurface`.

    Example:
        >>> import torch, geodiff as gd
        >>> axis = torch.linspace(0, 1, 4)
        >>> box = gd.NURBSVolume(torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij"), -1))
        >>> box(0.5, 0.25, 0.75)
        tensor([0.5000, 0.2500, 0.7500])
    """

    axes = 3

    def __init__(
        self,
        control_points: Any,
        knots: Sequence[Any] | None = None,
        weights: Any = None,
        degree: tuple[int, int, int] = (3, 3, 3),
        *,
        knot_gradient: str = "exact",
        bandwidth: float | tuple[float, float, float] | None = None,
        periodic: bool | tuple[bool, bool, bool] = (False, False, False),
        outside: str = "error",
    ) -> None:
        vectors = (None, None, None) if knots is None else knots
        super().__init__(
            control_points,
            vectors,
            weights,
            degree,
            knot_gradient,
            bandwidth,
            periodic,
            outside,
        )

    @property
    def degree(self) -> tuple[int, int, int]:
        """(P1, P2, P3)."""
        return self.degrees[0], self.degrees[1], self.degrees[2]
