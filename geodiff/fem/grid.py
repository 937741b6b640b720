# SPDX-License-Identifier: Apache-2.0
"""Functions on a regular grid in one, two or three dimensions: Lagrange polynomials and B-splines."""

import math
import numbers
from collections.abc import Sequence
from typing import Any

import torch

from geodiff.fem.axis import lagrange_axis, spline_axis
from geodiff.fem.space import Space
from geodiff.fem.tensor import Patch, grid_of
from geodiff.modes import outside_autocast
from geodiff.splines.knots import greville, uniform_knots
from geodiff.validation import choice, fail, integer

FAMILIES = ("lagrange", "bspline")


@outside_autocast
def grid_space(
    shape: int | Sequence[int],
    degree: int = 1,
    *,
    family: str = "lagrange",
    bounds: Sequence[Any] | None = None,
    periodic: bool | Sequence[bool] = False,
    quadrature: int | None = None,
    dtype: torch.dtype = torch.float64,
) -> Space:
    """Make tensor-product functions on a box.

    Args:
        shape: unknowns along each axis, one to three of them: nodes of Lagrange polynomials, control points of
            B-splines.
        degree: P: 1 to 3 of Lagrange polynomials (n − 1 must be a multiple of P), any of B-splines, which are P − 1
            times continuously differentiable on n − P spans of one length.
        family: "lagrange" or "bspline".
        bounds: (low, high) of each axis, or one for all; left out, [0, 1].
        periodic: of all axes or each; the end is then not counted again in ``shape``.
        quadrature: Gauss points a span and axis; left out, P + 1.
        dtype: float64, which degree 2 and more need.

    Raises:
        ValueError: nodes that do not fit the degree, a family that is unknown, bounds that are not increasing.

    Example:
        >>> import geodiff as gd
        >>> gd.fem.grid_space((5, 9), degree=2)
        Space(45 unknowns, 8 elements in 2-D)
        >>> gd.fem.grid_space(7, degree=4, family="bspline")
        Space(7 unknowns, 3 elements in 1-D)
    """
    where = "grid_space"
    choice(where, "family", family, FAMILIES)
    integer(where, "degree", degree, 1, 3 if family == "lagrange" else None)
    counts = [shape] if isinstance(shape, numbers.Integral) else list(shape)  # type: ignore[arg-type]
    if not 1 <= len(counts) <= 3:
        raise fail(where, "shape", "of one to three axes", str(counts))
    wraps = [bool(periodic)] * len(counts) if isinstance(periodic, bool) else list(periodic)
    ranges = _bounds(bounds, len(counts))
    if len(wraps) != len(counts):
        raise fail(where, "periodic", f"a bool or {len(counts)} of them", repr(periodic))
    if quadrature is not None:
        integer(where, "quadrature", quadrature, 1, 64)
    axes = []
    for raw, (low, high), wrap in zip(counts, ranges, wraps, strict=True):
        count = integer(where, "shape", raw, degree + 1)
        if family == "lagrange":
            if (count - (not wrap)) % degree:
                kind = "a multiple of the degree" if wrap else "one more than a multiple of the degree"
                less = (count - (not wrap)) // degree * degree + (not wrap)
                fix = f"Take {less} or {less + degree}." if less > degree else f"Take {less + degree}."
                raise fail(where, "shape", f"{kind} {degree}", str(count), fix)
            axes.append(lagrange_axis(count, degree, low, high, wrap, dtype))
            continue
        knots = uniform_knots(count, degree, "periodic" if wrap else "clamped", dtype=torch.float64)
        axes.append(spline_axis((low + (high - low) * knots).to(dtype), degree, wrap))
    nodes = []
    for axis in axes:
        if axis.basis is None:
            places = torch.linspace(0, 1, axis.count + axis.periodic, dtype=dtype)[: axis.count]
            nodes.append(axis.breaks[0] + (axis.breaks[-1] - axis.breaks[0]) * places)
        else:
            nodes.append(greville(axis.basis.opened_knots, degree)[: axis.count])
    positions = grid_of([n[:, None] for n in nodes])[:, 0]
    index = torch.arange(math.prod(a.count for a in axes)).reshape([a.count for a in axes])
    points = degree + 1 if quadrature is None else quadrature
    return Patch(axes, index, None, None, [points] * len(axes)).space(positions, family == "lagrange")


def _bounds(bounds: Sequence[Any] | None, count: int) -> list[tuple[float, float]]:
    if bounds is None:
        return [(0.0, 1.0)] * count
    pairs = [bounds] * count if isinstance(bounds[0], numbers.Real) else list(bounds)
    if len(pairs) != count or any(len(pair) != 2 or not -math.inf < pair[0] < pair[1] < math.inf for pair in pairs):
        raise fail("grid_space", "bounds", f"(low, high), or {count} of them, low < high", repr(bounds))
    return [(float(low), float(high)) for low, high in pairs]
