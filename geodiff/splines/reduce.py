# SPDX-License-Identifier: Apache-2.0
"""Knot removal and degree reduction: exact where possible, else least squares, with a bound of the error.

Both undo an exact map A of `geodiff.splines.refine`: they minimise `Σ_i |(A x − d)_i|²` over the new control points x,
homogeneous ones for rational splines, with d the old ones. Where the end knots are repeated P + 1 times, the control
points at the ends stay, so that pieces that met still meet.

The error is a bound, for all parameters, of the distance between the old and the new geometry at the same parameter.
With δ = A x − d it is `max_i |δ_i|`, since splines lie in the hull of their control points; for rational ones, with
δ = (a, ω), c the middle of the old control points and r their largest distance from it, the difference is
`Σ N_i (a_i − S(u) ω_i) / w'(u)` and hence at most `max_i (|a_i − c ω_i| + r |ω_i|) / min_i (A x)_{i,w}`.

Gradients: of the new spline in control points, weights and knots, also where it is not exact; the error has none.
"""

import math
from collections.abc import Sequence
from typing import Any, TypeVar

import torch

from geodiff.modes import outside_autocast
from geodiff.splines.blossom import Row, chosen, elevated_knots, elevation_matrix, groups, refinement_matrix
from geodiff.splines.refine import clamped, counted, moved, net_of, number, prepared, rebuilt
from geodiff.splines.spline import NURBS
from geodiff.validation import fail, positive

Spline = TypeVar("Spline", bound=NURBS)


@outside_autocast
def remove_knot(
    spline: Spline, value: Any, times: int = 1, axis: int = 0, tolerance: float | None = None
) -> tuple[Spline, torch.Tensor]:
    """Remove an interior knot, once or more often.

    Args:
        spline: any curve, surface or volume.
        value: the knot, a number or one for each of the batch; within 16 roundings.
        times: how many copies, >= 1.
        axis: along which.
        tolerance: largest error allowed, a length; `math.inf` allows any. Left out, 4096 roundings of the size of the
            control net: only removals that are exact.

    Returns:
        (spline, error): the error is a bound of the distance (see the module), of the batch's shape, without gradient.

    Raises:
        TypeError: not a spline, a value that is not a number.
        ValueError: no interior knot there, fewer copies of it, an error above the tolerance, weights that would not
            stay positive.

    Example:
        >>> import torch, geodiff as gd
        >>> from geodiff.splines.refine import insert_knots
        >>> curve = insert_knots(gd.NURBSCurve(torch.tensor([[0.0], [1.0], [0.0]]), degree=2), 0.25)
        >>> less, error = remove_knot(curve, 0.25)
        >>> less.shape, float(error) < 1e-6
        ((3,), True)
    """
    where = "remove_knot"
    spline = prepared(where, spline, axis)
    times = counted(where, "times", times)
    knots, degree = spline.knots[axis], spline.degrees[axis]
    value = number(where, "value", value, knots)

    def rule(row: Row, at: float) -> list[int]:
        inside = [g for g in groups(row) if row[degree] < row[g[0]] < row[len(row) - degree - 1]]
        match = [g for g in inside if row[g[0]] == at]
        if not match:
            known = ", ".join(f"{row[g[0]]:g}" for g in inside[:8]) + (", …" if len(inside) > 8 else "")
            raise fail(where, "value", f"an interior knot ({known or 'there are none'})", f"{at:g}")
        if len(match[0]) < times:
            raise fail(where, "times", f"at most {len(match[0])}, the multiplicity of knot {at:g}", f"{times}")
        gone = match[0][-times:]
        return [i for i in range(len(row)) if i not in gone]

    fewer = chosen(where, knots, rule, value)
    matrix = refinement_matrix(fewer, knots, degree)
    return _undone(where, spline, axis, fewer, degree, matrix, net_of(spline), tolerance)


@outside_autocast
def reduced(spline: Spline, by: int = 1, axis: int = 0, tolerance: float | None = None) -> tuple[Spline, torch.Tensor]:
    """Lower the degree; each knot is then repeated once less for each degree, but at least once.

    Args:
        spline: any curve, surface or volume; ends that are not clamped are clamped first.
        by: how many degrees, >= 1; degree 1 or more is left.
        axis: along which.
        tolerance: largest error allowed, a length; `math.inf` allows any. Left out, 4096 roundings of the size of the
            control net: only reductions that are exact.

    Returns:
        (spline, error): the error is a bound of the distance (see the module), of the batch's shape, without gradient.

    Raises:
        TypeError: not a spline.
        ValueError: too low a degree, an error above the tolerance, weights that would not stay positive.

    Example:
        >>> import math, torch, geodiff as gd
        >>> arch = gd.NURBSCurve(torch.tensor([[0.0, 0.0], [1.0, 2.0], [2.0, 2.0], [3.0, 0.0]]))
        >>> less, error = reduced(arch, tolerance=math.inf)
        >>> less.degree
        2
    """
    where = "reduced"
    spline = prepared(where, spline, axis)
    by, degree = counted(where, "by", by), spline.degrees[axis]
    if by >= degree:
        raise fail(where, "by", f"below the degree, {degree}", f"{by}", "Degree 1 is the least.")
    held = spline.knots[axis].detach()
    if not all(_clamped_ends(held, degree)):
        spline = clamped(spline, axis)
    knots = spline.knots[axis]

    def rule(row: Row) -> list[int]:
        return [i for group in groups(row) for i in group[: max(len(group) - by, 1)]]

    lower = raised = chosen(where, knots, rule)
    matrix = torch.eye(lower.shape[-1] - (degree - by) - 1, dtype=knots.dtype, device=knots.device)
    for p in range(degree - by, degree):
        finer = elevated_knots(where, raised, p)
        matrix, raised = elevation_matrix(raised, finer, p) @ matrix, finer
    target = moved(net_of(spline), refinement_matrix(knots, raised, degree), spline.axes, axis)
    return _undone(where, spline, axis, lower, degree - by, matrix, target, tolerance)


def _clamped_ends(knots: torch.Tensor, degree: int) -> tuple[bool, bool]:
    first, last = knots[..., 0] == knots[..., degree], knots[..., -1] == knots[..., -degree - 1]
    return bool(first.all()), bool(last.all())


def _undone(
    where: str,
    spline: Spline,
    axis: int,
    knots: torch.Tensor,
    degree: int,
    matrix: torch.Tensor,
    target: torch.Tensor,
    tolerance: float | None,
) -> tuple[Spline, torch.Tensor]:
    """Solve `matrix @ x = target` along an axis by least squares, and judge the result."""
    if tolerance is not None and tolerance != math.inf:
        positive(where, "tolerance", tolerance, "Leave it out for exact results only, or pass math.inf.")
    axes = spline.axes
    ends = _clamped_ends(knots.detach(), degree) if degree > 0 else (False, False)
    room = matrix[(..., *(None,) * (axes - 1), slice(None), slice(None))]
    net = _least_squares(room, target.movedim(axis - axes - 1, -2), ends).movedim(-2, axis - axes - 1)
    error = _bound(spline, moved(net, matrix, axes, axis).detach(), target.detach())
    if spline.is_rational and not bool((net[..., -1] > 0).all() and torch.isfinite(error).all()):
        worst = f"{float(net[..., -1].detach().min()):.3g} at least"
        raise fail(where, "spline", "one whose weights stay positive", worst, "Refine it, or change less at a time.")
    allowed = _exact(spline) if tolerance is None else torch.as_tensor(tolerance, dtype=error.dtype)
    if bool((error > allowed).any()):
        found, least = float(error.max()), float(allowed.max())
        rule = "exact, to rounding" if tolerance is None else f"within the tolerance {least:.3g}"
        fix = f"Pass a tolerance of at least {found:.3g} to accept it."
        raise fail(where, "spline", f"one for which the result is {rule}", f"an error of up to {found:.6g}", fix)
    return rebuilt(spline, net, axis, knots, degree), error


def _least_squares(matrix: torch.Tensor, target: torch.Tensor, ends: Sequence[bool]) -> torch.Tensor:
    first, last = int(ends[0]), matrix.shape[-1] - int(ends[1])
    held = target[..., :1, :] if ends[0] else target[..., :0, :], target[..., -1:, :] if ends[1] else target[..., :0, :]
    rest = target - matrix[..., :first] @ held[0] - matrix[..., last:] @ held[1]
    inner = matrix[..., first:last]
    if first == last:
        solution = rest[..., :0, :]
    else:
        q, r = torch.linalg.qr(inner)
        solution = torch.linalg.solve_triangular(r, q.mT @ rest, upper=True)
    return torch.cat([part.expand(*solution.shape[:-2], -1, -1) for part in (held[0], solution, held[1])], -2)


def _bound(spline: NURBS, found: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Bound the distance between two splines over the same knots, per spline of the batch."""
    inside = tuple(range(-spline.axes, 0))
    difference = found - target
    if not spline.is_rational:
        return difference.norm(dim=-1).amax(inside)
    middle, radius = _middle(spline)
    shift, weight = difference[..., :-1], difference[..., -1:]
    room = (..., *(None,) * spline.axes, slice(None))
    size = (shift - middle[room] * weight).norm(dim=-1) + radius[(..., *(None,) * spline.axes)] * weight[..., 0].abs()
    least = found[..., -1].amin(inside)
    return torch.where(least > 0, size.amax(inside) / least, math.inf)


def _middle(spline: NURBS) -> tuple[torch.Tensor, torch.Tensor]:
    points = spline.control_points.detach().flatten(-spline.axes - 1, -2)
    middle = (points.amax(-2) + points.amin(-2)) / 2
    return middle, (points - middle[..., None, :]).norm(dim=-1).amax(-1)


def _exact(spline: NURBS) -> torch.Tensor:
    """What rounding explains: of coordinates as far from the origin as they are."""
    middle, radius = _middle(spline)
    return 4096 * torch.finfo(spline.dtype).eps * (middle.norm(dim=-1) + radius)
