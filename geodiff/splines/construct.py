# SPDX-License-Identifier: Apache-2.0
"""Surfaces from curves: extruded, revolved, ruled, lofted, swept and stretched between borders.

Everything is differentiable in control points, weights, knots and the other arguments, and batches broadcast. Results
have exact knot gradients and raise outside of their domain, whatever the options of their parts. The recipes are those
of Piegl and Tiller, "The NURBS Book" (1997), chapters 8 and 10.
"""

import math
from collections.abc import Sequence
from typing import Any, TypeVar

import torch

from geodiff.modes import outside_autocast
from geodiff.reference.spline import project
from geodiff.splines.basis import BSplineBasis
from geodiff.splines.conics import check_sweep, full_ring, part_ring
from geodiff.splines.curve import NURBSCurve
from geodiff.splines.knots import greville
from geodiff.splines.nurbs_volume import NURBSVolume
from geodiff.splines.place import direction_of, read_like
from geodiff.splines.refine import clamped, elevated, insert_knots, net_of
from geodiff.splines.spline import NURBS
from geodiff.splines.surface import NURBSSurface
from geodiff.validation import fail, floating, looks_at_values

Spline = TypeVar("Spline", bound=NURBS)


def _curve(where: str, argument: str, curve: Any) -> NURBSCurve:
    if not isinstance(curve, NURBSCurve):
        raise fail(where, argument, "a NURBSCurve", curve, error=TypeError)
    return curve


# Compatible curves ---------------------------------------------------------------------------------------------------


@outside_autocast
def compatible(curves: Sequence[NURBSCurve]) -> list[NURBSCurve]:
    """Bring curves to one degree and one knot vector over one domain; each keeps its shape.

    Ends are clamped, domains scaled to that of the first, degrees raised to the highest, and each curve gets the knots
    that others have. If one is rational, all are.

    Args:
        curves: of one dimension. Batches with own knots must have equal knots already.

    Gradients: in everything. A knot that several curves have becomes one, that of the first; its gradient is that of
    moving it in all of them together.

    Raises:
        TypeError: not curves.
        ValueError: none, curves of different dimensions, batches whose knots differ.

    Example:
        >>> from geodiff.splines.conics import arc, line
        >>> compatible([arc(), line([0.0, 0.0], [1.0, 1.0])])[1]
        NURBSCurve((3,) points in 2-D, degree (2,), rational)
    """
    return _compatible("compatible", curves)


def _compatible(where: str, curves: Any) -> list[NURBSCurve]:
    if not isinstance(curves, list | tuple):
        raise fail(where, "curves", "a list of NURBSCurve", curves, error=TypeError)
    if not curves:
        raise fail(where, "curves", "one curve or more", "none")
    result = [_curve(where, "curves", c) for c in curves]
    dims = sorted({c.dim for c in result})
    if len(dims) > 1:
        raise fail(where, "curves", "of one dimension", f"D = {dims[0]} and {dims[-1]}", "transform lifts the lower.")
    wide = torch.float64 if any(c.dtype == torch.float64 for c in result) else torch.float32
    result = [clamped(c.to(dtype=wide)) for c in result]
    degree = max(c.degree for c in result)
    result = [elevated(c, degree - c.degree) for c in result]
    low, high = (end[..., None] for end in result[0].domain[0])
    for i, c in enumerate(result[1:], 1):
        start, end = (x[..., None] for x in c.domain[0])
        knots = low + (c.knots[0] - start) * ((high - low) / (end - start))
        count = knots.shape[-1] - 1
        at = torch.arange(count + 1, device=knots.device)
        knots = torch.where(at <= degree, low, torch.where(at >= count - degree, high, knots))  # the very ends
        result[i] = c.replace(knots=knots)
    if any(c.is_rational for c in result):
        result = [c if c.is_rational else c.replace(weights=torch.ones_like(c.control_points[..., 0])) for c in result]
    return _merged(where, result)


def _merged(where: str, curves: list[NURBSCurve]) -> list[NURBSCurve]:
    first = curves[0].knots[0]
    near = 64 * torch.finfo(first.dtype).eps * float(first.detach().abs().max())

    def equal(knots: torch.Tensor) -> bool:
        return knots.shape[-1] == first.shape[-1] and bool(((knots - first).detach().abs() <= near).all())

    if not all(equal(c.knots[0]) for c in curves):
        if any(c.knots[0].dim() > 1 for c in curves):
            fix = "Take the splines one by one: spline[i]."
            raise fail(where, "curves", "with equal knots where each of a batch has its own", "different ones", fix)
        # Each distinct knot, with where it is repeated most: (value, [its copies]).
        union: list[tuple[float, list[torch.Tensor]]] = []
        for c in curves:
            for value, copies in _groups(c.knots[0], near):
                there = [i for i, (other, _) in enumerate(union) if abs(other - value) <= near]
                if not there:
                    union.append((value, copies))
                elif len(union[there[0]][1]) < len(copies):
                    union[there[0]] = (union[there[0]][0], copies)
        for n, c in enumerate(curves):
            missing: list[torch.Tensor] = []
            own = _groups(c.knots[0], near)
            for value, copies in sorted(union, key=lambda group: group[0]):
                has = next((len(mine) for other, mine in own if abs(other - value) <= near), 0)
                missing += copies[has:]
            if missing:
                curves[n] = insert_knots(c, torch.stack(missing))
    knots = curves[0].knots[0]
    return [c.replace(knots=knots) for c in curves]


def _groups(knots: torch.Tensor, near: float) -> list[tuple[float, list[torch.Tensor]]]:
    result: list[tuple[float, list[torch.Tensor]]] = []
    for knot, value in zip(knots.unbind(), knots.tolist(), strict=True):
        if result and value - result[-1][0] <= near:
            result[-1][1].append(knot)
        else:
            result.append((value, [knot]))
    return result


# Surfaces ------------------------------------------------------------------------------------------------------------


def _lifted(spline: Spline) -> Spline:
    """Put a plane spline into space, at z = 0."""
    points = spline.control_points
    return spline.replace(control_points=torch.cat([points, torch.zeros_like(points[..., :1])], -1))


def _ones(spline: NURBS) -> torch.Tensor:
    return torch.ones_like(spline.control_points[..., 0]) if spline.weights is None else spline.weights


@outside_autocast
def extrude(spline: NURBSCurve | NURBSSurface, direction: Any) -> NURBSSurface | NURBSVolume:
    """Move a curve along a vector to make a surface, or a surface to make a volume, exactly.

    `S(u, v) = C(u) + v direction` for v in [0, 1]; the degree along v is 1.

    Args:
        spline: a curve or a surface; one in the plane is put at z = 0 if the direction is in space. Stays periodic.
        direction: `(..., D)`.

    Returns:
        a surface whose normal is `C′ × direction`: outward for a curve that runs counter-clockwise as seen against
        the direction. Or a volume, right-handed if the direction is on the side of the surface's normal.

    Raises:
        TypeError: neither a curve nor a surface.
        ValueError: a direction of another dimension.

    Example:
        >>> from geodiff.splines.conics import circle
        >>> extrude(circle(2.0), [0.0, 0.0, 5.0])(0.25, 1.0)
        tensor([0., 2., 5.])
    """
    where = "extrude"
    if not isinstance(spline, NURBSCurve | NURBSSurface):
        raise fail(where, "spline", "a NURBSCurve or a NURBSSurface", spline, error=TypeError)
    (direction,) = read_like(where, spline, direction=direction)
    if spline.dim == 2 and direction.dim() and direction.shape[-1] == 3:
        spline = _lifted(spline)
    floating(where, "direction", direction, ("...", spline.dim), "As many coordinates as the spline's points.")
    points = spline.control_points
    top = points + direction[(..., *(None,) * spline.axes, slice(None))]
    net = torch.stack(torch.broadcast_tensors(points, top), -2)
    weights = None if spline.weights is None else torch.stack([spline.weights] * 2, -1)
    if isinstance(spline, NURBSCurve):
        wraps = (spline.periodic[0], False)
        return NURBSSurface(net, spline.knots[0], None, weights, (spline.degree, 1), periodic=wraps)
    knots = (*spline.knots, spline.knots[0].new_tensor([0, 0, 1, 1]))
    periodic = (spline.periodic[0], spline.periodic[1], False)
    return NURBSVolume(net, knots, weights, (*spline.degree, 1), periodic=periodic)


@outside_autocast
def revolve(
    curve: NURBSCurve, axis_point: Any = (0.0, 0.0, 0.0), axis_direction: Any = (0.0, 1.0, 0.0), angle_deg: Any = 360.0
) -> NURBSSurface:
    """Turn a curve round an axis, exactly: a rational surface of degree 2 along u.

    Args:
        curve: in space, or in the plane, which is put at z = 0. May touch the axis (poles) but should not cross it.
        axis_point: any point on the axis, `(..., 3)`.
        axis_direction: of the axis, `(..., 3)`, of any length but zero; the y axis if left out.
        angle_deg: how far, right-handed round the axis; up to 360 degrees either way, `(...)`.

    Returns:
        a surface with u in [0, 1] round the axis from the curve's own place, and v the curve's parameter. Where the
        curve runs along the axis direction, normals point away from the axis.

    Gradients: in the curve, the axis and the angle.

    Raises:
        TypeError: not a curve.
        ValueError: a curve not in space, an axis of length zero, an angle of 0 or beyond 360 degrees.

    Example:
        >>> from geodiff.splines.conics import line
        >>> cone = revolve(line([1.0, 0.0], [0.0, 1.0]))
        >>> cone(0.5, 0.0)
        tensor([-1.,  0.,  0.])
    """
    where = "revolve"
    curve = _curve(where, "curve", curve)
    curve = _lifted(curve) if curve.dim == 2 else curve
    if curve.dim != 3:
        raise fail(where, "curve", "in the plane or in space", f"D = {curve.dim}")
    point, angle = read_like(where, curve, axis_point=axis_point, angle_deg=angle_deg)
    floating(where, "axis_point", point, ("...", 3))
    axis = direction_of(where, "axis_direction", axis_direction, curve)[..., None, :]
    check_sweep(where, "angle_deg", angle)
    if not isinstance(angle_deg, torch.Tensor) and float(angle) == 360:
        ring, ring_weights, knots = full_ring(curve.control_points)
    else:
        ring, ring_weights, knots = part_ring(torch.zeros_like(angle), torch.deg2rad(angle))
    arm = curve.control_points - point[..., None, :]
    along = (arm * axis).sum(-1, keepdim=True) * axis
    out = arm - along
    side = torch.linalg.cross(axis.expand_as(out), out)
    foot = (point[..., None, :] + along)[..., None, :, :]  # (..., 1, K, 3)
    cosine, sine = ring[..., :, None, 0, None], ring[..., :, None, 1, None]  # (..., n, 1, 1)
    net = foot + cosine * out[..., None, :, :] + sine * side[..., None, :, :]
    weights = ring_weights[..., :, None] * _ones(curve)[..., None, :]
    return NURBSSurface(net, knots, curve.knots[0], weights, (2, curve.degree), periodic=(False, curve.periodic[0]))


@outside_autocast
def ruled(curve_a: NURBSCurve, curve_b: NURBSCurve) -> NURBSSurface:
    """Join two curves by straight lines between equal parameters: `S(u, v) = (1 − v) A(u) + v B(u)` if polynomial.

    Rational curves are joined in homogeneous coordinates: still straight lines, but v is not even along them where the
    weights differ.

    Args:
        curve_a: at v = 0.
        curve_b: at v = 1; its domain is scaled to that of the first. See `compatible`.

    Raises:
        TypeError: not curves.
        ValueError: curves of different dimensions, batches whose knots differ.

    Example:
        >>> from geodiff.splines.conics import arc, line
        >>> ruled(arc(), line([2.0, 0.0], [0.0, 2.0]))
        NURBSSurface((3, 2) points in 2-D, degree (2, 1), rational)
    """
    a, b = _compatible("ruled", [_curve("ruled", "curve_a", curve_a), _curve("ruled", "curve_b", curve_b)])
    points = torch.stack(torch.broadcast_tensors(a.control_points, b.control_points), -2)
    weights = torch.stack(torch.broadcast_tensors(_ones(a), _ones(b)), -1) if a.is_rational else None
    return NURBSSurface(points, a.knots[0], None, weights, (a.degree, 1))


@outside_autocast
def loft(curves: Sequence[NURBSCurve], degree_v: int = 3, parameters: Any = None) -> NURBSSurface:
    """Skin curves: the surface that runs through all of them, in their order.

    The curves are made compatible, and their control points interpolated along v with knots averaged from the
    parameters (The NURBS Book, sections 9.2 and 10.3).

    Args:
        curves: n >= 2 of one dimension.
        degree_v: degree along v; n − 1 where there are too few curves for it.
        parameters: v at each curve, `(n,)`, increasing; left out, chord length averaged over the control points, on
            [0, 1].

    Returns:
        a surface with `S(u, parameters[k]) = curves[k](u)`, where u is scaled to the first curve's domain.

    Gradients: in all curves, the parameters, and through the chord lengths.

    Raises:
        TypeError: not curves.
        ValueError: fewer than two curves, neighbours that coincide, parameters that do not increase, rational curves
            whose weights differ so much that an interpolated weight is not positive.

    Example:
        >>> from geodiff.splines.conics import circle
        >>> rings = [circle(r, center=(0.0, 0.0, z)) for z, r in ((0.0, 1.0), (1.0, 2.0), (2.0, 1.5), (3.0, 1.0))]
        >>> loft(rings)
        NURBSSurface((9, 4) points in 3-D, degree (2, 3), rational)
    """
    where = "loft"
    sections = _compatible(where, curves)
    if len(sections) < 2:
        raise fail(where, "curves", "two curves or more", f"{len(sections)}")
    if isinstance(degree_v, bool) or not isinstance(degree_v, int) or degree_v < 1:
        raise fail(where, "degree_v", "an integer of 1 or more", repr(degree_v))
    degree = min(degree_v, len(sections) - 1)
    points = torch.stack(torch.broadcast_tensors(*(c.control_points for c in sections)), -3)  # (..., n, K, D)
    if parameters is None:
        steps = points.diff(dim=-3).norm(dim=-1).mean(-1)
        if looks_at_values(steps) and not bool((steps > 0).all()):
            i = int((steps == 0).nonzero()[0, -1])
            raise fail(where, "curves", "of distinct neighbours", f"curves {i} and {i + 1} equal", "Drop one of them.")
        v = torch.nn.functional.pad(steps.cumsum(-1) / steps.sum(-1, keepdim=True), (1, 0))
        v = torch.cat([v[..., :-1], torch.ones_like(v[..., :1])], -1)
    else:
        (v,) = read_like(where, sections[0], parameters=parameters)
        floating(where, "parameters", v, ("...", len(sections)), "One for each curve.")
        if looks_at_values(v) and not bool((v.diff(dim=-1) > 0).all()):
            raise fail(where, "parameters", "increasing", str(v.detach().tolist()))
    inner = v[..., 1:-1].unfold(-1, degree, 1).mean(-1) if len(sections) > degree + 1 else v[..., :0]
    knots = torch.cat([v[..., :1]] * (degree + 1) + [inner] + [v[..., -1:]] * (degree + 1), -1)
    nets = torch.stack(torch.broadcast_tensors(*(net_of(c) for c in sections)), -3)
    matrix = BSplineBasis(knots.double(), degree).matrix(v.double())
    net = torch.linalg.solve(matrix, nets.double().flatten(-2)).unflatten(-1, nets.shape[-2:]).movedim(-3, -2)
    net = net.to(nets.dtype)
    if not sections[0].is_rational:
        return NURBSSurface(net, sections[0].knots[0], knots, degree=(sections[0].degree, degree))
    if looks_at_values(net) and not bool((net[..., -1] > 0).all()):
        got = f"one of {float(net[..., -1].detach().min()):.3g}"
        fix = "Lower degree_v (1 always works), or bring the weights of the curves together."
        raise fail(where, "curves", "of weights whose interpolation stays positive", got, fix)
    return NURBSSurface(project(net), sections[0].knots[0], knots, net[..., -1], degree=(sections[0].degree, degree))


@outside_autocast
def coons(bottom: NURBSCurve, top: NURBSCurve, left: NURBSCurve, right: NURBSCurve) -> NURBSSurface:
    """Fill four border curves with the bilinearly blended Coons patch.

    `S = ruled(bottom, top) + ruled(left, right) − the bilinear patch of the corners`, exactly, as one surface.

    Args:
        bottom: S(u, 0).
        top: S(u, 1), in the same direction as the bottom.
        left: S(0, v), from the start of the bottom to the start of the top.
        right: S(1, v), from the end of the bottom to the end of the top.

    Returns:
        a surface over the domains of `bottom` and `left`. Rational curves are blended in homogeneous coordinates; their
        weights must agree at the corners, as those of arcs do.

    Raises:
        TypeError: not curves.
        ValueError: curves of different dimensions, corners that do not meet, weights that do not stay positive.

    Example:
        >>> from geodiff.splines.conics import arc, line
        >>> sides = [line([0.0, 0.0], [1.0, 0.0]), line([0.0, 1.0], [1.0, 1.0])]
        >>> sides += [line([0.0, 0.0], [0.0, 1.0]), line([1.0, 0.0], [1.0, 1.0])]
        >>> coons(*sides)(0.25, 0.5)
        tensor([0.2500, 0.5000])
    """
    where = "coons"
    given = {"bottom": bottom, "top": top, "left": left, "right": right}
    curves = [_curve(where, name, c) for name, c in given.items()]
    wide = torch.float64 if any(c.dtype == torch.float64 for c in curves) else torch.float32
    curves = [c.to(dtype=wide) for c in curves]
    if any(c.is_rational for c in curves):
        curves = [c.replace(weights=_ones(c)) for c in curves]
    along_u, along_v = _compatible(where, curves[:2]), _compatible(where, curves[2:])
    (south, north), (west, east) = ([net_of(c) for c in pair] for pair in (along_u, along_v))
    if south.shape[-1] != west.shape[-1]:
        raise fail(where, "left", "of the dimension of the bottom", f"D = {along_v[0].dim}")
    size = float(along_u[0].control_points.detach().abs().amax())
    for text, a, b in (
        ("bottom and left start", south[..., 0, :], west[..., 0, :]),
        ("bottom ends and right starts", south[..., -1, :], east[..., 0, :]),
        ("left ends and top starts", west[..., -1, :], north[..., 0, :]),
        ("top and right end", north[..., -1, :], east[..., -1, :]),
    ):
        gap = float((a - b).detach().norm(dim=-1).max())
        if gap > math.sqrt(torch.finfo(a.dtype).eps) * max(size, 1e-30):
            fix = "Move the ends together, reverse a curve, or give both the same weight there."
            raise fail(where, "left", "meeting the others at the corners", f"{gap:.3g} apart where {text}", fix)
    # Control points at the Greville abscissae are a linear function: no elevation or insertion is needed.
    u, v = (_heights(pair[0]) for pair in (along_u, along_v))
    u, v = u[..., :, None, None], v[..., None, :, None]
    net = (1 - v) * south[..., :, None, :] + v * north[..., :, None, :]
    net = net + (1 - u) * west[..., None, :, :] + u * east[..., None, :, :]
    corners = [x[..., i, :][..., None, None, :] for x in (south, north) for i in (0, -1)]
    net = net - (1 - v) * ((1 - u) * corners[0] + u * corners[1]) - v * ((1 - u) * corners[2] + u * corners[3])
    knots, degree = (along_u[0].knots[0], along_v[0].knots[0]), (along_u[0].degree, along_v[0].degree)
    if not along_u[0].is_rational:
        return NURBSSurface(net, *knots, degree=degree)
    if looks_at_values(net) and not bool((net[..., -1] > 0).all()):
        got = f"one of {float(net[..., -1].detach().min()):.3g}"
        raise fail(where, "bottom", "of weights whose blend stays positive", got, "Cut the arcs into shorter ones.")
    return NURBSSurface(project(net), *knots, net[..., -1], degree=degree)


def _heights(curve: NURBSCurve) -> torch.Tensor:
    """Return the Greville abscissae on a domain scaled to [0, 1]."""
    low, high = (end[..., None] for end in curve.domain[0])
    return (greville(curve.knots[0], curve.degree) - low) / (high - low)
