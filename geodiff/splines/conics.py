# SPDX-License-Identifier: Apache-2.0
"""Exact lines, circles and other conics, as splines.

All sizes, centres and angles may be tensors with gradient, and leading axes of them make a batch. ``dtype`` is that of
the tensors given, and float32 where only numbers are, unless it is said.
"""

import math
from typing import Any

import torch

from geodiff.modes import outside_autocast
from geodiff.splines.curve import NURBSCurve
from geodiff.validation import as_tensor, choice, fail, floating, looks_at_values, positive, promote


def read_numbers(where: str, dtype: torch.dtype | None, **values: Any) -> dict[str, torch.Tensor]:
    """Bring numbers, arrays and tensors to ``dtype``, or else to the widest of them."""
    if dtype is None:
        return promote(where, **values)
    if dtype not in (torch.float32, torch.float64):
        raise fail(where, "dtype", "torch.float32 or torch.float64", str(dtype), error=TypeError)
    tensors = {}
    for name, value in values.items():
        tensor = as_tensor(where, name, value)
        # A Python number is read at once in the precision that was asked for.
        tensors[name] = tensor.to(dtype) if isinstance(value, torch.Tensor) else torch.as_tensor(value, dtype=dtype)
    return promote(where, **tensors)


# Circles in homogeneous coordinates ----------------------------------------------------------------------------------


def full_ring(like: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return the unit circle of nine points: `(9, 2)`, their weights `(9,)` and knots `(12,)`, of degree 2."""
    x = [1, 1, 0, -1, -1, -1, 0, 1, 1]
    y = [0, 1, 1, 1, 0, -1, -1, -1, 0]
    points = torch.tensor([x, y], dtype=like.dtype, device=like.device).mT
    weights = torch.tensor([1, math.sqrt(0.5)] * 4 + [1], dtype=like.dtype, device=like.device)
    return points, weights, quarter_knots(4, like)


def part_ring(start: torch.Tensor, sweep: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return an arc of the unit circle as `full_ring` does, by n equal parts of at most 90 degrees.

    Args:
        start: its first angle in radians, `(...)`.
        sweep: how far it goes, `(...)`, counter-clockwise where positive.

    Returns:
        points `(..., 2n + 1, 2)`, weights `(..., 2n + 1)`, knots `(2n + 4,)`.
    """
    quarters = float(sweep.detach().abs().max()) / (math.pi / 2)
    parts = max(1, math.ceil(quarters - 1e-6))  # 1e-6: rounding of the angle is no reason for one part more
    k = torch.arange(2 * parts + 1, dtype=sweep.dtype, device=sweep.device)
    angle = start[..., None] + sweep[..., None] * (k / (2 * parts))
    weights = torch.where(k % 2 == 1, (sweep / (2 * parts)).cos()[..., None], torch.ones_like(k))
    weights = weights.expand(angle.shape)
    return torch.stack([angle.cos(), angle.sin()], -1) / weights[..., None], weights, quarter_knots(parts, sweep)


def quarter_knots(parts: int, like: torch.Tensor) -> torch.Tensor:
    """Return the knots of degree 2 over [0, 1] of as many equal parts, each inner one double."""
    breaks = torch.arange(parts + 1, dtype=like.dtype, device=like.device) / parts
    return torch.cat([breaks[:1], breaks.repeat_interleave(2), breaks[-1:]])


def plane_axes(where: str, center: torch.Tensor, axes: Any, least: int = 2) -> torch.Tensor:
    """Return the two orthonormal vectors of a plane, `(..., 2, D)`; left out, along the first two coordinates."""
    floating(where, "center", center, ("...", "D"), "A point in the plane or in space.")
    dim = center.shape[-1]
    if dim < least:
        raise fail(where, "center", f"a point of {least} or more coordinates", center)
    if axes is None:
        return torch.eye(dim, dtype=center.dtype, device=center.device)[:2]
    floating(where, "axes", axes, ("...", 2, dim), "Two vectors, of as many coordinates as the centre.")
    if looks_at_values(axes):
        held = axes.detach()
        gram = held @ held.mT
        off = float((gram - torch.eye(2, dtype=gram.dtype, device=gram.device)).abs().max())
        if off > 1e-4:
            fix = "Normalise both, and take from the second its part along the first."
            raise fail(where, "axes", "two orthogonal vectors of length one", f"products off by {off:.3g}", fix)
    return axes


def given(**values: Any) -> dict[str, Any]:
    """Drop what was left out."""
    return {name: value for name, value in values.items() if value is not None}


# Curves --------------------------------------------------------------------------------------------------------------


@outside_autocast
def line(start: Any, end: Any, dtype: torch.dtype | None = None) -> NURBSCurve:
    """Make the segment `(1 − u) start + u end`, of degree 1 over [0, 1].

    Args:
        start: `(..., D)`.
        end: `(..., D)`.
        dtype: float32 or float64; see the module.

    Raises:
        ValueError: ends of different dimensions.

    Example:
        >>> line([0.0, 0.0], [2.0, 4.0])(0.5)
        tensor([1., 2.])
    """
    t = read_numbers("line", dtype, start=start, end=end)
    floating("line", "start", t["start"], ("...", "D"))
    floating("line", "end", t["end"], ("...", t["start"].shape[-1]), "Both ends have as many coordinates.")
    ends = torch.broadcast_tensors(t["start"], t["end"])
    return NURBSCurve(torch.stack(ends, -2), degree=1)


@outside_autocast
def polyline(
    points: Any, closed: bool = False, parametrization: str = "chord", dtype: torch.dtype | None = None
) -> NURBSCurve:
    """Make the curve of degree 1 through points, over [0, 1].

    Args:
        points: `(..., K, D)`, K >= 2.
        closed: return to the first point, which is then repeated at the end.
        parametrization: ``"chord"``, by length (constant speed; knots move with the points, and each curve of a
            batch has its own), or ``"uniform"``, equal steps from point to point.
        dtype: float32 or float64; see the module.

    Raises:
        ValueError: fewer than two points, an unknown parametrisation, or equal neighbours under ``"chord"``.

    Example:
        >>> polyline([[0.0, 0.0], [3.0, 0.0], [3.0, 1.0]]).knots[0]
        tensor([0.0000, 0.0000, 0.7500, 1.0000, 1.0000])
    """
    points = read_numbers("polyline", dtype, points=points)["points"]
    choice("polyline", "parametrization", parametrization, ("chord", "uniform"))
    floating("polyline", "points", points, ("...", "K", "D"))
    if points.shape[-2] < 2:
        raise fail("polyline", "points", "two points or more", points)
    if closed:
        points = torch.cat([points, points[..., :1, :]], -2)
    if parametrization == "uniform":
        return NURBSCurve(points, degree=1)
    chords = points.diff(dim=-2).norm(dim=-1)
    if looks_at_values(chords) and not bool((chords > 0).all()):
        i = int((chords == 0).nonzero()[0, -1])
        fix = 'Drop one of the two, or pass parametrization="uniform".'
        raise fail("polyline", "points", "of distinct neighbours", f"points {i} and {i + 1} equal", fix)
    inner = (chords.cumsum(-1) / chords.sum(-1, keepdim=True))[..., :-1]
    zero = inner.new_zeros(*inner.shape[:-1], 2)
    return NURBSCurve(points, torch.cat([zero, inner, zero + 1], -1), degree=1)


@outside_autocast
def circle(
    radius: Any = 1.0, center: Any = (0.0, 0.0), axes: Any = None, dtype: torch.dtype | None = None
) -> NURBSCurve:
    """Make a full circle: nine points, degree 2, over [0, 1], a quarter for each quarter of the parameter.

    `C(u) = center + radius (cos θ a + sin θ b)`, where θ grows from 0 to 2π with u, but not evenly (Piegl and Tiller,
    "The NURBS Book", 1997, section 7.5).

    Args:
        radius: > 0, `(...)`.
        center: `(..., D)`, in the plane or in space.
        axes: the orthonormal a and b, `(..., 2, D)`; left out, the first two coordinate axes. The circle runs from a
            to b: counter-clockwise as seen from `a × b`.
        dtype: float32 or float64; see the module.

    Gradients: in radius, centre and axes.

    Raises:
        ValueError: a radius that is not positive, axes that are not orthonormal.

    Example:
        >>> circle(2.0, center=(1.0, 0.0))(torch.tensor([0.0, 0.25, 0.5]))
        tensor([[ 3.,  0.],
                [ 1.,  2.],
                [-1.,  0.]])
    """
    return ellipse_curve("circle", ("radius", "radius"), (radius, radius), None, center, axes, dtype)


@outside_autocast
def arc(
    radius: Any = 1.0,
    start_deg: Any = 0.0,
    end_deg: Any = 90.0,
    center: Any = (0.0, 0.0),
    axes: Any = None,
    dtype: torch.dtype | None = None,
) -> NURBSCurve:
    """Make an arc of a circle over [0, 1], of equal parts of at most 90 degrees, degree 2.

    Args:
        radius: > 0, `(...)`.
        start_deg: its first angle, from the first axis, in degrees, `(...)`.
        end_deg: its last; below the first one it runs clockwise. At most 360 degrees away.
        center: `(..., D)`.
        axes: as for `circle`.
        dtype: float32 or float64; see the module.

    Gradients: in radius, angles, centre and axes.

    Raises:
        ValueError: a radius that is not positive, equal angles or more than 360 degrees between them.

    Example:
        >>> arc(1.0, 90.0, 0.0)(torch.tensor([0.0, 1.0])).round(decimals=6).abs()
        tensor([[0., 1.],
                [1., 0.]])
    """
    return ellipse_curve("arc", ("radius", "radius"), (radius, radius), (start_deg, end_deg), center, axes, dtype)


@outside_autocast
def ellipse(
    radius_a: Any = 1.0,
    radius_b: Any = 0.5,
    center: Any = (0.0, 0.0),
    axes: Any = None,
    dtype: torch.dtype | None = None,
) -> NURBSCurve:
    """Make a full ellipse `center + radius_a cos θ a + radius_b sin θ b`; see `circle`.

    Args:
        radius_a: half its size along the first axis, > 0, `(...)`.
        radius_b: half its size along the second.
        center: `(..., D)`.
        axes: as for `circle`.
        dtype: float32 or float64; see the module.

    Raises:
        ValueError: radii that are not positive, axes that are not orthonormal.

    Example:
        >>> ellipse(3.0, 1.0)(0.25)
        tensor([0., 1.])
    """
    return ellipse_curve("ellipse", ("radius_a", "radius_b"), (radius_a, radius_b), None, center, axes, dtype)


def ellipse_curve(
    where: str,
    names: tuple[str, str],
    radii: tuple[Any, Any],
    angles: tuple[Any, Any] | None,
    center: Any,
    axes: Any,
    dtype: torch.dtype | None,
) -> NURBSCurve:
    """Make an ellipse, whole or, with its angles (first, last) in degrees, an arc of it."""
    ends = {} if angles is None else {"start_deg": angles[0], "end_deg": angles[1]}
    t = read_numbers(where, dtype, **dict(zip(names, radii, strict=True)), **ends, center=center, **given(axes=axes))
    for name in names:
        positive(where, name, t[name])
    frame = plane_axes(where, t["center"], t.get("axes"))
    if angles is None:
        ring, weights, knots = full_ring(t["center"])
    else:
        start, sweep = t["start_deg"], t["end_deg"] - t["start_deg"]
        check_sweep(where, "end_deg", sweep, "start_deg + ")
        ring, weights, knots = part_ring(torch.deg2rad(start), torch.deg2rad(sweep))
    sizes = torch.stack(torch.broadcast_tensors(t[names[0]], t[names[1]]), -1)
    points = t["center"][..., None, :] + (sizes[..., None, :] * ring) @ frame
    return NURBSCurve(points, knots, weights, degree=2)


def check_sweep(where: str, argument: str, sweep: torch.Tensor, of: str = "") -> None:
    """Require angles in degrees that are not zero and at most a full turn."""
    if looks_at_values(sweep) and not bool(((sweep != 0) & (sweep.abs() <= 360 + 1e-4)).all()):
        fix = "A whole turn is 360; negative angles run clockwise."
        raise fail(where, argument, f"within 360 degrees, but not 0 ({of}-360 ... 360)", str(sweep.detach()), fix)


@outside_autocast
def conic(start: Any, tangent_point: Any, end: Any, weight: Any, dtype: torch.dtype | None = None) -> NURBSCurve:
    """Make an arc of a conic: one rational quadratic piece over [0, 1].

    Args:
        start: its first point, `(..., D)`.
        tangent_point: where the tangents of both ends meet, `(..., D)`.
        end: its last point.
        weight: w > 0 of the tangent point, `(...)`: below 1 an ellipse, 1 a parabola, above 1 a hyperbola. For an arc
            of a circle, the cosine of half the angle it spans.
        dtype: float32 or float64; see the module.

    Raises:
        ValueError: points of different dimensions, a weight that is not positive.

    Example:
        >>> float(conic([1.0, 0.0], [1.0, 1.0], [0.0, 1.0], 0.5**0.5)(0.3).norm().round(decimals=5))
        1.0
    """
    t = read_numbers("conic", dtype, start=start, tangent_point=tangent_point, end=end, weight=weight)
    dim = t["start"].shape[-1] if t["start"].dim() else 0
    for name in ("start", "tangent_point", "end"):
        floating("conic", name, t[name], ("...", dim or "D"), "All points have as many coordinates.")
    positive("conic", "weight", t["weight"])
    points = torch.stack(torch.broadcast_tensors(t["start"], t["tangent_point"], t["end"]), -2)
    one = torch.ones_like(t["weight"])
    return NURBSCurve(points, weights=torch.stack([one, t["weight"], one], -1), degree=2)


@outside_autocast
def parabola(focal_length: Any, low: Any = -1.0, high: Any = 1.0, dtype: torch.dtype | None = None) -> NURBSCurve:
    """Make the parabola `y = x² / (4 focal_length)` from x = low to x = high, polynomial, with x linear in u.

    Args:
        focal_length: f > 0, `(...)`.
        low: x at u = 0, `(...)`.
        high: x at u = 1, not equal to low.
        dtype: float32 or float64; see the module.

    Raises:
        ValueError: a focal length that is not positive.

    Example:
        >>> parabola(0.25, 0.0, 2.0)(torch.tensor([0.5, 1.0]))
        tensor([[1., 1.],
                [2., 4.]])
    """
    t = read_numbers("parabola", dtype, focal_length=focal_length, low=low, high=high)
    positive("parabola", "focal_length", t["focal_length"])
    low, high = t["low"], t["high"]
    x = torch.stack(torch.broadcast_tensors(low, (low + high) / 2, high), -1)
    products = torch.stack(torch.broadcast_tensors(low * low, low * high, high * high), -1)  # the polar form of x²
    y = products / (4 * t["focal_length"][..., None])
    return NURBSCurve(torch.stack(torch.broadcast_tensors(x, y), -1), degree=2)


@outside_autocast
def hyperbola(
    radius_a: Any = 1.0, radius_b: Any = 1.0, low: Any = -1.0, high: Any = 1.0, dtype: torch.dtype | None = None
) -> NURBSCurve:
    """Make the arc `(radius_a cosh t, radius_b sinh t)` of a hyperbola from t = low to t = high.

    Args:
        radius_a: a > 0 in `x² / a² − y² / b² = 1`, `(...)`.
        radius_b: b > 0.
        low: t at u = 0, `(...)`.
        high: t at u = 1; it does not grow evenly between them.
        dtype: float32 or float64; see the module.

    Raises:
        ValueError: radii that are not positive.

    Example:
        >>> hyperbola()(0.5)
        tensor([1., 0.])
    """
    t = read_numbers("hyperbola", dtype, radius_a=radius_a, radius_b=radius_b, low=low, high=high)
    for name in ("radius_a", "radius_b"):
        positive("hyperbola", name, t[name])
    low, high = torch.broadcast_tensors(t["low"], t["high"])
    weight, middle = ((high - low) / 2).cosh(), (high + low) / 2
    x = t["radius_a"][..., None] * torch.stack([low.cosh(), middle.cosh() / weight, high.cosh()], -1)
    y = t["radius_b"][..., None] * torch.stack([low.sinh(), middle.sinh() / weight, high.sinh()], -1)
    one = torch.ones_like(weight)
    points = torch.stack(torch.broadcast_tensors(x, y), -1)
    return NURBSCurve(points, weights=torch.stack([one, weight, one], -1), degree=2)
