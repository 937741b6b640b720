# SPDX-License-Identifier: Apache-2.0
"""Length, area, volume and centroid of splines by Gauss-Legendre quadrature on each knot span.

Within a span a spline is smooth, so the error falls exponentially with the number of nodes. The nodes sit at fixed
fractions of the spans and move with the knots. Gradients: in control points, weights, knots and bounds; those of the
knots are right wherever the exact knot gradient is.

Every function takes ``points``, the nodes a span and axis, and ``tolerance``. By default the rule is fixed: 16 nodes,
or as many as make a polynomial integrand exact. In float64 its relative error is below 1e-12 for circles, quadrics and
the torus. For cubic curves with random control points along a line it is typically 1e-12, at most 1e-8 in a hundred;
with control points of pure chance 1e-6 and 4e-4, for they nearly stop somewhere; and with weights that differ a
hundredfold it can be 1e-2. With ``tolerance``, a fraction of the value, all spans are halved until two successive
values agree to it, and the finer one is returned, with the gradient of the finest rule. float32 reaches about 1e-6.
"""

from collections.abc import Sequence
from typing import Any, TypeVar

import torch

from geodiff.modes import outside_autocast
from geodiff.scene.anchor import anchor
from geodiff.splines.conics import read_numbers
from geodiff.splines.curve import NURBSCurve
from geodiff.splines.geometry import Jet
from geodiff.splines.nurbs_volume import NURBSVolume
from geodiff.splines.quadrature import breakpoints, count_of, integral, nodes_on, rule
from geodiff.splines.spline import NURBS
from geodiff.splines.surface import NURBSSurface
from geodiff.validation import common_batch, fail, looks_at_values

Spline = TypeVar("Spline", bound=NURBS)


def _curve(where: str, curve: Any) -> NURBSCurve:
    if not isinstance(curve, NURBSCurve):
        raise fail(where, "curve", "a NURBSCurve", curve, error=TypeError)
    return curve


def _like(where: str, spline: NURBS, name: str, value: Any) -> torch.Tensor:
    return read_numbers(where, spline.dtype, **{name: value})[name].to(spline.control_points)


# Length --------------------------------------------------------------------------------------------------------------


def _speed(jet: Jet) -> torch.Tensor:
    return jet[(1,)].norm(dim=-1, keepdim=True)


@outside_autocast
def arc_length(
    curve: NURBSCurve, low: Any = None, high: Any = None, points: int | None = None, tolerance: float | None = None
) -> torch.Tensor:
    """Return the length of a curve `∫ |C′(u)| du` between two parameters.

    Args:
        curve: in any dimension.
        low: start, in the domain, a number or `(...)`; left out, the start of the domain.
        high: end, at or above low; left out, the end of the domain.
        points: nodes a span; 16 if left out.
        tolerance: fraction of the length to reach; see the module.

    Returns:
        `(...)`, the batch's shape.

    Gradients: in control points, weights, knots and both bounds.

    Raises:
        TypeError: not a curve.
        ValueError: bounds outside of the domain or out of order, a tolerance out of reach.

    Example:
        >>> from geodiff.splines.conics import circle
        >>> radius = torch.tensor(2.0, dtype=torch.float64, requires_grad=True)
        >>> length = arc_length(circle(radius))
        >>> length.backward()
        >>> round(length.item() / torch.pi, 9), round(radius.grad.item() / torch.pi, 9)
        (4.0, 2.0)
    """
    where = "arc_length"
    breaks = breakpoints(_curve(where, curve), 0)
    ends = {}
    for name, value, default in (("low", low, breaks[..., 0]), ("high", high, breaks[..., -1])):
        ends[name] = default if value is None else _like(where, curve, name, value)
    first, last = ends["low"][..., None], ends["high"][..., None]
    if looks_at_values(first):
        _inside(where, curve, **{name: e for name, e in ends.items() if (low if name == "low" else high) is not None})
        if bool((last < first).any()):
            raise fail(where, "high", "at or above low", f"low {first.detach()}, high {last.detach()}", "Swap them.")
    # Cut the spans to [low, high]; those outside become empty.
    inner = torch.where(breaks < first, first, torch.where(breaks > last, last, breaks))
    batch = inner.shape[:-1]
    breaks = torch.cat([first.expand(*batch, 1), inner[..., 1:-1], last.expand(*batch, 1)], -1)
    return integral(where, curve, _speed, [breaks], points, tolerance)[..., 0]


def _inside(where: str, curve: NURBSCurve, **parameters: torch.Tensor) -> None:
    start, end = (bound.detach() for bound in curve.domain[0])
    for name, u in parameters.items():
        slack = 16 * torch.finfo(u.dtype).eps * float(torch.maximum(start.abs(), end.abs()).max())
        if bool(((u < start - slack) | (u > end + slack)).any()):
            text = f"in the domain [{float(start.max()):g}, {float(end.min()):g}]"
            raise fail(where, name, text, str(u.detach()))


def _length_to(curve: NURBSCurve, u: torch.Tensor, points: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return the lengths up to `u` `(..., N)`, and the breakpoints with the lengths up to them, `(..., S + 1)`."""
    breaks = breakpoints(curve, 0)
    at, weights = nodes_on(breaks, points, 1)
    speed = _speed(curve.derivatives(at, order=1))[..., 0] * weights
    spans = speed.unflatten(-1, (-1, points)).sum(-1)
    sums = torch.nn.functional.pad(spans.cumsum(-1), (1, 0))
    batch = common_batch(u.shape[:-1], sums.shape[:-1])
    u, breaks, sums = (x.expand(*batch, -1) for x in (u, breaks, sums))
    inner = breaks.detach()[..., 1:-1].contiguous()
    span = torch.searchsorted(inner, u.detach().contiguous(), right=True)
    start = breaks.gather(-1, span)
    x, w = rule(points, 1, breaks)
    partial = start[..., None] + (u - start)[..., None] * x
    speed = _speed(curve.derivatives(partial.flatten(-2), order=1))[..., 0].unflatten(-1, (-1, points))
    return sums.gather(-1, span) + (u - start) * (speed * w).sum(-1), breaks, sums


@outside_autocast
def length_at(curve: NURBSCurve, u: Any, points: int | None = None) -> torch.Tensor:
    """Return the length of a curve from its start to each of many parameters.

    Args:
        curve: in any dimension.
        u: in the domain, `(..., N)`.
        points: nodes a span; 16 if left out.

    Returns:
        `(..., N)`, from 0 at the start to the whole length at the end.

    Gradients: in control points, weights, knots and u.

    Raises:
        TypeError: not a curve.
        ValueError: parameters outside of the domain.

    Example:
        >>> from geodiff.splines.conics import line
        >>> length_at(line([0.0, 0.0], [3.0, 4.0]), torch.tensor([0.0, 0.5, 1.0]))
        tensor([0.0000, 2.5000, 5.0000])
    """
    u = _like("length_at", _curve("length_at", curve), "u", u)
    if u.dim() == 0:
        raise fail("length_at", "u", "of shape (..., N)", u, "For one bound, use arc_length(curve, high=u).")
    if looks_at_values(u):
        _inside("length_at", curve, u=u)
    return _length_to(curve, u, count_of("length_at", points))[0]


@outside_autocast
def parameter_at_length(curve: NURBSCurve, lengths: Any, points: int | None = None) -> torch.Tensor:
    """Return the parameters at which a curve has run given lengths: the inverse of `length_at`.

    By Newton's method kept in a bracket that is halved where it fails, to 32 roundings of the length.

    Args:
        curve: in any dimension; it must not stand still.
        lengths: from 0 to the curve's length, `(..., N)`.
        points: nodes a span; 16 if left out.

    Returns:
        `(..., N)`. Evaluating there gives points spaced by those lengths.

    Gradients: in control points, weights, knots and lengths, by the implicit function theorem; infinite where the
    speed is zero.

    Raises:
        TypeError: not a curve.
        ValueError: lengths that are negative or beyond the end.

    Example:
        >>> from geodiff.splines.conics import parabola
        >>> curve = parabola(0.25, 0.0, 2.0, dtype=torch.float64)
        >>> u = parameter_at_length(curve, arc_length(curve) * torch.linspace(0, 1, 5, dtype=torch.float64))
        >>> length_at(curve, u).diff().std() < 1e-12
        tensor(True)
    """
    where = "parameter_at_length"
    lengths = _like(where, _curve(where, curve), "lengths", lengths)
    if lengths.dim() == 0:
        raise fail(where, "lengths", "of shape (..., N)", lengths, "Pass lengths[None].")
    count = count_of(where, points)
    curve = curve.replace(outside="clamp")
    eps = torch.finfo(lengths.dtype).eps
    with torch.no_grad():
        low, high = (end[..., None] for end in curve.domain[0])
        _, breaks, sums = _length_to(curve, low, count)
        batch = common_batch(lengths.shape[:-1], sums.shape[:-1])
        breaks, sums, wanted = (x.expand(*batch, -1).contiguous() for x in (breaks, sums, lengths))
        whole = sums[..., -1:]
        if looks_at_values(wanted) and bool(((wanted < -64 * eps * whole) | (wanted > whole * (1 + 64 * eps))).any()):
            text = f"from 0 to the curve's length, {float(whole.min()):g}"
            raise fail(where, "lengths", text, f"{float(wanted.min()):g} to {float(wanted.max()):g}")
        wanted = torch.minimum(wanted.clamp(min=0), whole)
        span = torch.searchsorted(sums[..., 1:-1].contiguous(), wanted, right=True)
        low, high = breaks.gather(-1, span), breaks.gather(-1, span + 1)
        below, above = sums.gather(-1, span), sums.gather(-1, span + 1)
        u = low + (high - low) * (wanted - below) / (above - below).clamp(min=torch.finfo(wanted.dtype).tiny)
        for _ in range(60):
            error = _length_to(curve, u, count)[0] - wanted
            low, high = torch.where(error <= 0, u, low), torch.where(error >= 0, u, high)
            if bool((error.abs() <= 32 * eps * whole).all()):
                break
            step = u - error / _speed(curve.derivatives(u, order=1))[..., 0]
            u = torch.where((step >= low) & (step <= high), step, (low + high) / 2)
    # The value is there; add the derivative of the implicit function.
    reached = _length_to(curve, u, count)[0]
    with torch.no_grad():
        speed = _speed(curve.derivatives(u, order=1))[..., 0]
    return u + (lengths - lengths.detach() - (reached - reached.detach())) / speed


# Area and volume -----------------------------------------------------------------------------------------------------


def _surface_normal(jet: Jet) -> torch.Tensor:
    return torch.linalg.cross(jet[(1, 0)], jet[(0, 1)])


def _area_element(jet: Jet) -> torch.Tensor:
    su, sv = jet[(1, 0)], jet[(0, 1)]
    if su.shape[-1] == 2:
        return (su[..., 0] * sv[..., 1] - su[..., 1] * sv[..., 0]).abs()[..., None]
    if su.shape[-1] == 3:
        return _surface_normal(jet).norm(dim=-1, keepdim=True)
    across = sv - ((su * sv).sum(-1) / (su * su).sum(-1))[..., None] * su
    return (su.norm(dim=-1) * across.norm(dim=-1))[..., None]


def _jacobian(jet: Jet) -> torch.Tensor:
    columns = torch.stack([jet[(1, 0, 0)], jet[(0, 1, 0)], jet[(0, 0, 1)]], -1)
    return torch.linalg.det(columns)[..., None]


def _exact(spline: NURBS, points: int | None, factor: int) -> int | list[int] | None:
    """Return the nodes that make exact the integral of polynomials of degree factor · P − 1 along each axis."""
    if points is not None or spline.is_rational:
        return points
    return [max(1, (factor * p + 1) // 2) for p in spline.degrees]


@outside_autocast
def area(spline: NURBS, points: int | None = None, tolerance: float | None = None) -> torch.Tensor:
    """Return the area of a surface `∫∫ |S_u × S_v| du dv`, or the area that a closed plane curve encloses.

    Args:
        spline: a surface in any dimension, or a closed `NURBSCurve` in the plane: its area is `½ ∮ x dy − y dx`,
            positive if it runs counter-clockwise.
        points: nodes a span and axis; left out, exact for polynomial curves, 16 otherwise.
        tolerance: fraction of the area to reach; see the module.

    Returns:
        `(...)`, the batch's shape.

    Gradients: in control points, weights and knots; undefined where a surface folds.

    Raises:
        TypeError: neither a surface nor a curve.
        ValueError: a curve that is not closed or not in the plane, a tolerance out of reach.

    Example:
        >>> from geodiff.splines.shapes import sphere
        >>> round(float(area(sphere(dtype=torch.float64)) / torch.pi), 9)
        4.0
    """
    breaks = [breakpoints(spline, i) for i in range(spline.axes)] if isinstance(spline, NURBS) else []
    if isinstance(spline, NURBSSurface):
        return integral("area", spline, _area_element, breaks, points, tolerance)[..., 0]
    if not isinstance(spline, NURBSCurve):
        raise fail("area", "spline", "a surface or a closed plane curve", spline, error=TypeError)
    if spline.dim != 2:
        raise fail("area", "spline", "a curve in the plane, D = 2, or a surface", f"D = {spline.dim}")
    _check_closed_curve("area", spline)
    spline = _moved(spline, _middle(spline))

    def swept(jet: Jet) -> torch.Tensor:
        c, d = jet[(0,)], jet[(1,)]
        return ((c[..., 0] * d[..., 1] - c[..., 1] * d[..., 0]) / 2)[..., None]

    return integral("area", spline, swept, breaks, _exact(spline, points, 2), tolerance)[..., 0]


def _middle(spline: NURBS) -> torch.Tensor:
    """Return a fixed point `(..., D)` near the spline: moments about it lose no digits."""
    return spline.control_points.detach().mean(tuple(range(-spline.axes - 1, -1)))


def _moved(spline: Spline, middle: torch.Tensor) -> Spline:
    """Return the spline about its middle: differences from it have all digits, however far from the origin."""
    return spline.replace(control_points=spline.control_points - middle[(..., *(None,) * spline.axes, slice(None))])


def _size(spline: NURBS) -> torch.Tensor:
    points = spline.control_points.detach().flatten(-spline.axes - 1, -2)
    return (points.amax(-2) - points.amin(-2)).amax(-1)


def _near(spline: NURBS) -> torch.Tensor:
    # Coordinates far from the origin round by their own size.
    return 256 * torch.finfo(spline.dtype).eps * (_size(spline) + _middle(spline).abs().amax(-1)).max()


def _check_closed_curve(where: str, curve: NURBSCurve) -> None:
    if curve.periodic[0] or not looks_at_values(curve.control_points):
        return
    with torch.no_grad():
        ends = curve(torch.stack(curve.domain[0], -1))
        gap = float((ends[..., 0, :] - ends[..., -1, :]).norm(dim=-1).max())
    if gap > float(_near(curve)):
        raise fail(where, "spline", "closed", f"ends {gap:.3g} apart", "Join a line from its end to its start.")


@outside_autocast
def volume(
    spline: NURBSVolume | NURBSSurface | Sequence[NURBSSurface],
    points: int | None = None,
    tolerance: float | None = None,
    check: bool = True,
) -> torch.Tensor:
    """Return the volume of a spline volume, `∫ det DV`, or enclosed by surfaces, `⅓ ∮ S · (S_u × S_v)`.

    Args:
        spline: a volume in space (negative where it is inside out); a closed surface; or several that close together,
            all normals outward (a body with normals inward has a negative volume).
        points: nodes a span and axis; left out, exact for polynomial splines, 16 for rational ones.
        tolerance: fraction of the volume (of each surface's part) to reach; see the module.
        check: require surfaces to be closed: each border is a point or lies on another border, with equal
            parameters. Where surfaces meet otherwise, pass False.

    Returns:
        `(...)`, the batch's shape.

    Gradients: in control points, weights and knots, as long as the surface stays closed: a gap that opens is closed
    by a cone from the middle of the control points.

    Raises:
        TypeError: not a volume or surfaces.
        ValueError: not in space, not closed, a tolerance out of reach.

    Example:
        >>> from geodiff.splines.shapes import cylinder, sphere
        >>> round(float(volume(cylinder(1.0, 2.0, dtype=torch.float64)) / torch.pi), 9)
        2.0
    """
    if isinstance(spline, NURBSVolume):
        _in_space("volume", spline)
        breaks = [breakpoints(spline, i) for i in range(3)]
        return integral("volume", spline, _jacobian, breaks, _exact(spline, points, 3), tolerance)[..., 0]
    surfaces = _closed("volume", spline, check)
    origin = anchor(surfaces[0].control_points.flatten(-3, -2))
    surfaces = [_moved(s, origin) for s in surfaces]
    middle = _middle(surfaces[0])
    return torch.stack([_moments("volume", s, middle, points, tolerance)[..., 0] for s in surfaces]).sum(0)


def _moments(
    where: str, surface: NURBSSurface, middle: torch.Tensor, points: int | None, tolerance: float | None
) -> torch.Tensor:
    """Return a surface's part of the volume and of the first moments over the size, about the middle, `(..., 4)`."""
    size = _size(surface)[..., None, None, None]
    surface = _moved(surface, middle)

    def swept(jet: Jet) -> torch.Tensor:
        arm, normal = jet[(0, 0)], _surface_normal(jet)
        return torch.cat([(arm * normal).sum(-1, keepdim=True) / 3, arm * arm * normal / (2 * size)], -1)

    breaks = [breakpoints(surface, i) for i in range(2)]
    # The moments have a degree higher by P than the volume.
    return integral(where, surface, swept, breaks, _exact(surface, points, 4), tolerance)


def _in_space(where: str, spline: NURBS) -> None:
    if spline.dim != 3:
        raise fail(where, "spline", "in space, D = 3", f"D = {spline.dim}")


def _closed(where: str, spline: Any, check: bool) -> list[NURBSSurface]:
    """Require surfaces in space whose borders are points or meet another border."""
    surfaces = list(spline) if isinstance(spline, list | tuple) else [spline]
    for surface in surfaces:
        if not isinstance(surface, NURBSSurface):
            expected = "a NURBSVolume, a NURBSSurface or a list of NURBSSurface"
            raise fail(where, "spline", expected, surface, error=TypeError)
        _in_space(where, surface)
    if not surfaces:
        raise fail(where, "spline", "one surface or more", "none")
    if not check or not looks_at_values(surfaces[0].control_points):
        return surfaces
    borders, names = [], []
    with torch.no_grad():
        for number, surface in enumerate(surfaces):
            for axis in range(2):
                if surface.periodic[axis]:
                    continue
                (low, high), (first, last) = surface.domain[axis], surface.domain[1 - axis]
                across = torch.stack([low, high], -1)
                along = first[..., None] + (last - first)[..., None] * torch.linspace(0, 1, 9).to(first)
                along = torch.minimum(along, last[..., None])
                at = surface.grid(across, along) if axis == 0 else surface.grid(along, across)
                for end, letter in enumerate(("low", "high")):
                    borders.append(at.select(axis - 3, end).reshape(-1, 9, 3))
                    names.append(f"surface {number} along its {letter} {'uv'[axis]}")
        near = max(float(_near(s)) for s in surfaces)

        def same(a: torch.Tensor, b: torch.Tensor) -> bool:
            return bool((a - b).abs().max() <= near)

        for i, border in enumerate(borders):
            others = [b for j, b in enumerate(borders) if j != i]
            if same(border, border[:, :1]) or any(same(border, b) or same(border, b.flip(1)) for b in others):
                continue
            fix = "Add what is missing (caps, say), or pass check=False if it is closed all the same."
            raise fail(where, "spline", "closed", f"an open border: {names[i]}", fix)
    return surfaces


# Centroid and box ----------------------------------------------------------------------------------------------------


@outside_autocast
def centroid(
    spline: NURBS, solid: bool = False, points: int | None = None, tolerance: float | None = None
) -> torch.Tensor:
    """Return the centre of mass of a curve by length, of a surface by area, or of a volume.

    Args:
        spline: a curve or surface in any dimension, or a volume in space.
        solid: of what a closed surface encloses.
        points: nodes a span and axis; 16 if left out.
        tolerance: fraction of the size of the control net to reach; see the module.

    Returns:
        `(..., D)`.

    Gradients: in control points, weights and knots.

    Raises:
        TypeError: not a spline, or ``solid`` for anything but a surface.
        ValueError: a solid that is not closed, a tolerance out of reach.

    Example:
        >>> from geodiff.splines.shapes import cone
        >>> centroid(cone(1.0, 4.0), solid=True).abs().round(decimals=4)  # a quarter up from the bottom at −2
        tensor([0., 1., 0.])
    """
    if not isinstance(spline, NURBS):
        raise fail("centroid", "spline", "a NURBS curve, surface or volume", spline, error=TypeError)
    if solid and not isinstance(spline, NURBSSurface):
        raise fail("centroid", "solid", "left out unless for a surface", spline, error=TypeError)
    if solid:
        _closed("centroid", spline, True)
    origin = anchor(spline.control_points.flatten(-spline.axes - 1, -2))
    spline = _moved(spline, origin)
    middle, size = _middle(spline), _size(spline)[..., None]
    if isinstance(spline, NURBSSurface) and solid:
        moments = _moments("centroid", spline, middle, points, tolerance)
        return origin + (middle + moments[..., 1:] / moments[..., :1] * size)
    if isinstance(spline, NURBSVolume):
        _in_space("centroid", spline)
    spline = _moved(spline, middle)
    element = {1: _speed, 2: _area_element, 3: _jacobian}[spline.axes]
    room = (..., *(None,) * spline.axes, slice(None))

    def weighed(jet: Jet) -> torch.Tensor:
        mass = element(jet)
        arm = jet[(0,) * spline.axes] / size[room]
        return torch.cat([mass, mass * arm], -1)

    breaks = [breakpoints(spline, i) for i in range(spline.axes)]
    moments = integral("centroid", spline, weighed, breaks, points, tolerance)
    return origin + (middle + moments[..., 1:] / moments[..., :1] * size)


@outside_autocast
def bounding_box(spline: NURBS) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the lowest and highest coordinates of the control points, `(..., D)` each.

    The spline lies within (its points are weighted means of control points) but need not touch the box; inserting
    knots tightens it, quadratically in the length of the spans.

    Raises:
        TypeError: not a spline.

    Example:
        >>> from geodiff.splines.conics import circle
        >>> bounding_box(circle(2.0))
        (tensor([-2., -2.]), tensor([2., 2.]))
    """
    if not isinstance(spline, NURBS):
        raise fail("bounding_box", "spline", "a NURBS curve, surface or volume", spline, error=TypeError)
    points = spline.control_points.flatten(-spline.axes - 1, -2)
    return points.amin(-2), points.amax(-2)
