# SPDX-License-Identifier: Apache-2.0
"""Exact changes of knots and degree: insertion, refinement, elevation, clamping, cutting, Bézier pieces.

All are one linear map of the (homogeneous) control points, with coefficients that are never negative: weights stay
positive. See `geodiff.splines.blossom`.

Each function takes any `NURBS` and returns a new one of its class with the same options. Batches of splines with their
own knots must all change to the same number of control points. A periodic axis is opened first, so that the result is
an ordinary, unclamped spline along it.

Gradients: to control points, weights, knots and the new knots. Where a knot is repeated, its gradient is that of moving
all its copies together.
"""

import numbers
from collections.abc import Callable
from typing import Any, TypeVar

import torch

from geodiff.modes import outside_autocast
from geodiff.reference.spline import project
from geodiff.splines.blossom import (
    Row,
    chosen,
    elevated_knots,
    elevation_matrix,
    groups,
    refinement_matrix,
    snapped,
)
from geodiff.splines.spline import NURBS
from geodiff.validation import as_tensor, common_batch, fail, floating

Spline = TypeVar("Spline", bound=NURBS)

# Helpers -------------------------------------------------------------------------------------------------------------


def prepared(where: str, spline: Spline, axis: int) -> Spline:
    """Check what came, and open a periodic axis."""
    if not isinstance(spline, NURBS):
        raise fail(where, "spline", "a NURBS curve, surface or volume", spline, error=TypeError)
    ok = isinstance(axis, numbers.Integral) and not isinstance(axis, bool) and 0 <= axis < spline.axes
    if not ok:
        raise fail(where, "axis", f"one of {', '.join(map(str, range(spline.axes)))}", repr(axis))
    return spline.opened() if spline.periodic[axis] else spline


def counted(where: str, argument: str, value: Any, least: int = 1) -> int:
    """Require an integer of at least `least`."""
    if not isinstance(value, numbers.Integral) or isinstance(value, bool) or value < least:
        raise fail(where, argument, f"an integer of {least} or more", repr(value))
    return int(value)


def moved(net: torch.Tensor, matrix: torch.Tensor, axes: int, axis: int) -> torch.Tensor:
    """Multiply a net `(..., K…, F)` by a matrix `(..., K', K)` along one axis."""
    room = matrix[(..., *(None,) * (axes - 1), slice(None), slice(None))]
    return (room @ net.movedim(axis - axes - 1, -2)).movedim(-2, axis - axes - 1)


def rebuilt(spline: Spline, net: torch.Tensor, axis: int, knots: torch.Tensor, degree: int) -> Spline:
    """Put a new net (homogeneous if the spline is rational), new knots and degree into a spline."""
    changed: dict[str, Any] = {
        "knots": tuple(knots if i == axis else k for i, k in enumerate(spline.knots)),
        "degree": tuple(degree if i == axis else p for i, p in enumerate(spline.degrees)),
        "control_points": project(net) if spline.is_rational else net,
    }
    if spline.is_rational:
        changed["weights"] = net[..., -1]
    return spline.replace(**changed)


def net_of(spline: NURBS) -> torch.Tensor:
    """Return the control points that operations are linear in."""
    return spline.homogeneous if spline.is_rational else spline.control_points


def number(where: str, argument: str, value: Any, knots: torch.Tensor) -> torch.Tensor:
    """Read a parameter in the precision of the knots, and put it on a knot that is within a few roundings."""
    return snapped(_read(where, argument, value, knots)[..., None], knots)[..., 0]


def _read(where: str, argument: str, value: Any, knots: torch.Tensor) -> torch.Tensor:
    tensor = as_tensor(where, argument, value)
    if tensor.is_complex() or tensor.dtype == torch.bool:
        raise fail(where, argument, "real numbers", tensor, error=TypeError)
    if not isinstance(value, torch.Tensor):  # 0.1 means 0.1 in double precision too
        tensor = torch.as_tensor(value, dtype=torch.float64)
    return floating(where, argument, tensor.to(knots), ("...",))


# The operations ------------------------------------------------------------------------------------------------------


@outside_autocast
def insert_knots(spline: Spline, values: Any, axis: int = 0) -> Spline:
    """Insert knots: more control points, the same geometry.

    Args:
        spline: any curve, surface or volume.
        values: inside of the domain; a number or R of them, `(R,)` or `(..., R)`, repeated where wanted.
        axis: along which.

    Returns:
        a spline with R more control points along the axis.

    Gradients: in everything, `values` included; the geometry does not depend on them, the control points do.

    Raises:
        TypeError: not a spline, values that are not numbers.
        ValueError: a value outside of the open domain, or at a knot that would be repeated more than P times (once at
            degree 0).

    Example:
        >>> import torch, geodiff as gd
        >>> curve = gd.NURBSCurve(torch.tensor([[0.0, 0.0], [1.0, 2.0], [2.0, 0.0]]), degree=2)
        >>> insert_knots(curve, 0.5).control_points
        tensor([[0.0000, 0.0000],
                [0.5000, 1.0000],
                [1.5000, 1.0000],
                [2.0000, 0.0000]])
    """
    where = "insert_knots"
    spline = prepared(where, spline, axis)
    knots, degree = spline.knots[axis], spline.degrees[axis]
    values = _read(where, "values", values, knots)
    values = snapped(values[None] if values.dim() == 0 else values, knots)
    _check_insertion(where, values.detach(), knots.detach(), degree)
    batch = common_batch(knots.shape[:-1], values.shape[:-1])
    joint = torch.cat([knots.expand(*batch, -1), values.expand(*batch, -1)], -1)
    new_knots = torch.sort(joint, dim=-1, stable=True).values
    return _onto(spline, axis, new_knots)


def _check_insertion(where: str, values: torch.Tensor, knots: torch.Tensor, degree: int) -> None:
    low, high = knots[..., degree], knots[..., -degree - 1]
    outside = ~((values > low[..., None]) & (values < high[..., None]))
    if bool(outside.any()):
        value = float(values.expand(outside.shape)[tuple(outside.nonzero()[0])])
        expected = f"inside of the domain, between {float(low.max()):g} and {float(high.min()):g}"
        raise fail(where, "values", expected, f"{value:g}", "clamped() repeats the end knots.")
    most = max(degree, 1)
    there = (values[..., :, None] == knots[..., None, :]).sum(-1)
    extra = (values[..., :, None] == values[..., None, :]).sum(-1).expand(there.shape)
    wrong = (there + extra > most).nonzero()
    if len(wrong):
        at = tuple(wrong[0].tolist())
        got = f"{float(values.expand(there.shape)[at]):g} inserted {int(extra[at])} more times"
        expected = f"at a knot repeated at most {most} times in the end (degree {degree})"
        raise fail(where, "values", expected, f"{got}, where {int(there[at])} are", "split() cuts the spline there.")


def _onto(spline: Spline, axis: int, new_knots: torch.Tensor) -> Spline:
    degree = spline.degrees[axis]
    matrix = refinement_matrix(spline.knots[axis], new_knots, degree)
    return rebuilt(spline, moved(net_of(spline), matrix, spline.axes, axis), axis, new_knots, degree)


@outside_autocast
def refined(spline: Spline, times: int = 1, axis: int | None = None) -> Spline:
    """Halve every non-empty span.

    Args:
        spline: any curve, surface or volume.
        times: how often; each doubles the number of spans.
        axis: along which; left out, along all.

    Example:
        >>> import torch, geodiff as gd
        >>> refined(gd.NURBSCurve(torch.randn(5, 3)), times=2)
        NURBSCurve((11,) points in 3-D, degree (3,), polynomial)
    """
    where = "refined"
    times = counted(where, "times", times, least=0)
    spline = prepared(where, spline, 0 if axis is None else axis)
    for a in range(spline.axes) if axis is None else (axis,):
        spline = prepared(where, spline, a)
        for _ in range(times):
            knots, degree = spline.knots[a], spline.degrees[a]

            def rule(row: Row, degree: int = degree) -> list[int]:
                return [i for i in range(degree, len(row) - degree - 1) if row[i] < row[i + 1]]

            def after(row: Row, rule: Callable[[Row], list[int]] = rule) -> list[int]:
                return [i + 1 for i in rule(row)]

            spline = insert_knots(spline, (chosen(where, knots, rule) + chosen(where, knots, after)) / 2, a)
    return spline


@outside_autocast
def elevated(spline: Spline, by: int = 1, axis: int = 0) -> Spline:
    """Raise the degree; each knot is then repeated once more for each degree, and the geometry is the same.

    Args:
        spline: any curve, surface or volume.
        by: how many degrees, >= 0.
        axis: along which.

    Example:
        >>> import torch, geodiff as gd
        >>> line = gd.NURBSCurve(torch.tensor([[0.0, 0.0], [4.0, 2.0]]), degree=1)
        >>> elevated(line).control_points
        tensor([[0., 0.],
                [2., 1.],
                [4., 2.]])
    """
    where = "elevated"
    spline = prepared(where, spline, axis)
    for _ in range(counted(where, "by", by, least=0)):
        degree = spline.degrees[axis]
        new_knots = elevated_knots(where, spline.knots[axis], degree)
        matrix = elevation_matrix(spline.knots[axis], new_knots, degree)
        spline = rebuilt(spline, moved(net_of(spline), matrix, spline.axes, axis), axis, new_knots, degree + 1)
    return spline


@outside_autocast
def trimmed_to(spline: Spline, low: Any = None, high: Any = None, axis: int = 0) -> Spline:
    """Cut out the piece over [low, high], clamped at both ends.

    Args:
        spline: any curve, surface or volume.
        low: start of the piece, a number or one for each of the batch; left out, the start of the domain.
        high: end of it, above `low`.
        axis: along which.

    Raises:
        TypeError: not a spline, ends that are not numbers.
        ValueError: ends outside of the domain or out of order.

    Example:
        >>> import torch, geodiff as gd
        >>> curve = gd.NURBSCurve(torch.tensor([[0.0], [1.0], [0.0]]), degree=2)
        >>> trimmed_to(curve, 0.0, 0.5).control_points.flatten()
        tensor([0.0000, 0.5000, 0.5000])
    """
    return _trimmed("trimmed_to", spline, low, high, axis, ("low", "high"))


def _trimmed(where: str, spline: Spline, low: Any, high: Any, axis: int, names: tuple[str, str]) -> Spline:
    spline = prepared(where, spline, axis)
    knots, degree, (first, last) = spline.knots[axis], spline.degrees[axis], spline.domain[axis]
    low = first if low is None else number(where, names[0], low, knots)
    high = last if high is None else number(where, names[1], high, knots)
    _check_piece(where, names, *(x.detach() for x in (low, high, first, last)))

    def rule(row: Row, start: float, end: float) -> list[int]:
        return [i for i, value in enumerate(row) if start < value < end]

    inside = chosen(where, knots, rule, low, high)
    ends = [x.expand(inside.shape[:-1])[..., None].expand(*inside.shape[:-1], degree + 1) for x in (low, high)]
    return _onto(spline, axis, torch.cat([ends[0], inside, ends[1]], -1))


def _check_piece(
    where: str, names: tuple[str, str], low: torch.Tensor, high: torch.Tensor, first: torch.Tensor, last: torch.Tensor
) -> None:
    for name, value, wrong in ((names[0], low, (low < first) | (low >= last)), (names[1], high, high > last)):
        if bool(wrong.any()):
            got = f"{float(value.expand(wrong.shape)[tuple(wrong.nonzero()[0])]):g}"
            raise fail(where, name, f"in the domain [{float(first.max()):g}, {float(last.min()):g}]", got)
    if bool((low >= high).any()):
        raise fail(where, names[1], f"above {names[0]}", f"{high.tolist()} for {names[0]} = {low.tolist()}")


@outside_autocast
def split(spline: Spline, at: Any, axis: int = 0) -> tuple[Spline, Spline]:
    """Cut a spline in two at a parameter; both pieces keep their part of the domain and are clamped.

    Args:
        spline: any curve, surface or volume.
        at: inside of the domain, a number or one for each of the batch.
        axis: along which.

    Raises:
        TypeError: not a spline, `at` not a number.
        ValueError: `at` outside of the open domain.

    Example:
        >>> import torch, geodiff as gd
        >>> left, right = split(gd.NURBSCurve(torch.randn(6, 3)), 0.3)
        >>> left.domain[0][1], right.domain[0][0]
        (tensor(0.3000), tensor(0.3000))
    """
    where = "split"
    spline = prepared(where, spline, axis)
    at, (low, high) = number(where, "at", at, spline.knots[axis]), (x.detach() for x in spline.domain[axis])
    if bool(((at <= low) | (at >= high)).any()):
        expected = f"inside of the domain, between {float(low.max()):g} and {float(high.min()):g}"
        raise fail(where, "at", expected, str(at.tolist()))
    return _trimmed(where, spline, None, at, axis, ("low", "at")), _trimmed(where, spline, at, None, axis, ("at", ""))


@outside_autocast
def clamped(spline: Spline, axis: int | None = None) -> Spline:
    """Repeat each end knot P + 1 times, so that the spline starts and ends at its outer control points.

    Args:
        spline: any curve, surface or volume.
        axis: along which; left out, along all.

    Example:
        >>> import torch, geodiff as gd
        >>> ring = gd.NURBSCurve(torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0], [0.0, -1.0]]), periodic=True)
        >>> clamped(ring).control_points[0] == clamped(ring).control_points[-1]
        tensor([True, True])
    """
    for a in range(spline.axes) if axis is None and isinstance(spline, NURBS) else (axis or 0,):
        spline = _trimmed("clamped", spline, None, None, a, ("low", "high"))
    return spline


@outside_autocast
def bezier(spline: Spline) -> Spline:
    """Cut a spline into its polynomial (or rational) pieces: a batch of Bézier curves, patches or boxes.

    Args:
        spline: any curve, surface or volume, with S non-empty spans along each axis.

    Returns:
        a spline of the same class and degree with batch `(..., S1[, S2[, S3]])` and P + 1 control points an axis.
        Each piece has its own knots, both ends of its span P + 1 times, and so takes the parameters it took before.

    Example:
        >>> import torch, geodiff as gd
        >>> patches = bezier(gd.NURBSSurface(torch.randn(6, 5, 3)))
        >>> patches.batch_shape, patches.control_points.shape
        (torch.Size([3, 2]), torch.Size([3, 2, 4, 4, 3]))
    """
    where = "bezier"
    spline = prepared(where, spline, 0)
    spline = spline.opened()
    axes, net, knots = spline.axes, net_of(spline), []
    for axis in range(axes):
        degree = spline.degrees[axis]

        def rule(row: Row, degree: int = degree) -> list[int]:
            low, high = degree, len(row) - degree - 1
            inner = [group[0] for group in groups(row) if row[low] < row[group[0]] < row[high]]
            return [i for i in (low, *inner, high) for _ in range(degree + 1)]

        fine = chosen(where, spline.knots[axis], rule)
        net = moved(net, refinement_matrix(spline.knots[axis], fine, degree), axes, axis)
        ends = fine.unflatten(-1, (-1, degree + 1))
        own = torch.cat([ends[..., :-1, :], ends[..., 1:, :]], -1)
        knots.append(own[(..., *(None,) * axis, slice(None), *(None,) * (axes - 1 - axis), slice(None))])
    for axis in range(axes):  # (..., K1, K2, F) to (..., S1, P1 + 1, S2, P2 + 1, F)
        net = net.unflatten(axis - axes - 1, (-1, spline.degrees[axis] + 1))
    lead = net.dim() - 2 * axes - 1
    order = [*range(lead), *(lead + 2 * a for a in range(axes)), *(lead + 2 * a + 1 for a in range(axes)), -1]
    net = net.permute([d % net.dim() for d in order])
    weights = net[..., -1] if spline.is_rational else None
    points = project(net) if spline.is_rational else net
    return spline.replace(control_points=points, weights=weights, knots=tuple(knots))
