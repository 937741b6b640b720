# SPDX-License-Identifier: Apache-2.0
"""What comes into a spline fit: read and checked."""

import math
import numbers
from collections.abc import Sequence
from typing import Any

import torch

from geodiff.splines.basis import BSplineBasis
from geodiff.splines.fit_linear import Pin, Problem, without_sample
from geodiff.splines.knots import check_knots, uniform_knots
from geodiff.validation import choice, fail, floating, integer, positive, promote, seed_number

Knots = torch.Tensor | str | None


def pair(where: str, name: str, value: Any, kind: type) -> tuple[Any, Any]:
    """Read two values, or one that serves for both axes."""
    if kind is not object and isinstance(value, kind) and (kind is bool or not isinstance(value, bool)):
        return value, value
    good = isinstance(value, Sequence) and not isinstance(value, str) and len(value) == 2
    if not good or not all(isinstance(v, kind) for v in value):
        expected = "a pair, one for each axis" if kind is object else f"a pair of {kind.__name__}"
        raise fail(where, name, expected, value, error=TypeError)
    return value[0], value[1]


def read_points(where: str, points: Any, axes: int) -> torch.Tensor:
    """Require `(N, D)`; for a surface `(N, M, D)` too."""
    data = promote(where, points=points)["points"]
    if axes == 2 and data.dim() != 2:
        fix = "Heights (N, M) are given as (N, M, 1); scattered points as (N, D)."
        return floating(where, "points", data, ("N", "M", "D"), fix, finite=False)
    return floating(where, "points", data, ("N", "D"), finite=False)


def check_shape(where: str, shape: Sequence[int], degree: Sequence[int], periodic: Sequence[bool]) -> None:
    """Require enough control points for the degree."""
    name = "control_count" if len(shape) == 1 else "control_shape"
    for count, p, wraps in zip(shape, degree, periodic, strict=True):
        if isinstance(p, bool) or not isinstance(p, int) or p < 0:
            raise fail(where, "degree", "an integer of 0 or more", p)
        least = 1 if wraps else p + 1
        if isinstance(count, bool) or not isinstance(count, int) or count < least:
            expected = f"at least {least} along each axis for degree {p}"
            raise fail(where, name, expected, repr(count), "Add control points or lower the degree.")


def _knot_name(axis: int, axes: int) -> str:
    return "knots" if axes == 1 else f"knots[{axis}]"


def read_knots(
    where: str, knots: Sequence[Any], shape: Sequence[int], degree: Sequence[int], periodic: Sequence[bool]
) -> tuple[list[Knots], list[tuple[float, float]]]:
    """Return knots in float64 as far as they are given, and the domain along each axis."""
    vectors: list[Knots] = []
    domains = []
    for i, (given, count, p, wraps) in enumerate(zip(knots, shape, degree, periodic, strict=True)):
        name = _knot_name(i, len(shape))
        if given is None or isinstance(given, str):
            vectors.append(given if given is None else choice(where, name, given, ("averaged",)))
            domains.append((0.0, 1.0))
            continue
        vector = promote(where, **{name: given})[name].to("cpu", torch.float64)
        check_knots(where, name, floating(where, name, vector, ("M",)), p, count, wraps)
        vectors.append(vector)
        ends = (vector[0], vector[-1]) if wraps else (vector[p], vector[count])
        domains.append((float(ends[0].detach()), float(ends[1].detach())))
    return vectors, domains


def fill_knots(
    where: str,
    vectors: Sequence[Knots],
    at: Sequence[torch.Tensor],
    shape: Sequence[int],
    degree: Sequence[int],
    periodic: Sequence[bool],
) -> list[torch.Tensor]:
    """Make the knots that are not given."""
    full = []
    for i, (vector, u, count, p, wraps) in enumerate(zip(vectors, at, shape, degree, periodic, strict=True)):
        if vector is None:
            full.append(uniform_knots(count, p, "periodic" if wraps else "clamped", dtype=torch.float64))
        elif isinstance(vector, str):
            name = _knot_name(i, len(shape))
            if wraps:
                raise fail(where, name, "given or left out where periodic", "'averaged'")
            if len(u) < count:
                raise _too_few(where, f"{count} points along axis {i} for {count} control points", len(u))
            full.append(averaged_knots(u.detach(), count, p))
        else:
            full.append(vector)
    return full


def averaged_knots(u: torch.Tensor, count: int, degree: int) -> torch.Tensor:
    """Place clamped knots on [0, 1] so that every span holds parameters.

    Piegl and Tiller, "The NURBS Book" (1997), eq. 9.8 where there are as many points as control points, else 9.69.
    """
    u = u.sort().values
    inner = count - degree - 1
    if len(u) == count:
        inside = [u[j : j + degree].mean() if degree else (u[j - 1] + u[j]) / 2 for j in range(1, inner + 1)]
    else:
        step = len(u) / (count - degree)
        inside = []
        for j in range(1, inner + 1):
            i = int(j * step)
            inside.append((1 - (j * step - i)) * u[i - 1] + (j * step - i) * u[i])
    ends = u.new_ones(degree + 1)
    return torch.cat([0 * ends, torch.stack(inside) if inside else u[:0], ends])


def read_parameters(
    where: str,
    parameters: Any,
    points: torch.Tensor,
    axes: int,
    grid: bool,
    periodic: Sequence[bool],
    domains: Sequence[tuple[float, float]],
) -> tuple[torch.Tensor, ...]:
    """Return one tensor an axis, in float64 and in the domain."""
    if not grid and (parameters is None or isinstance(parameters, str)):
        fix = "For points without parameters use fit_cloud; a grid of points is (N, M, D)."
        raise fail(where, "parameters", "a pair of tensors for scattered points", repr(parameters), fix)
    if isinstance(parameters, str):
        kind = choice(where, "parameters", parameters, ("uniform", "chord", "centripetal"))
        result = []
        for i, (wraps, (low, high)) in enumerate(zip(periodic, domains, strict=True)):
            result.append(low + (high - low) * _spaced(points.detach().movedim(i, 0), kind, wraps))
        return tuple(result)
    given = (parameters,) if axes == 1 else pair(where, "parameters", parameters, object)
    result = []
    for i, (values, (low, high)) in enumerate(zip(given, domains, strict=True)):
        name = "parameters" if axes == 1 else f"parameters[{i}]"
        count = points.shape[i] if grid else len(points)
        u = promote(where, **{name: values})[name].to("cpu", torch.float64)
        floating(where, name, u, (count,), "One parameter a point, along each axis of a grid.", finite=False)
        slack = 1e-6 * (high - low)  # parameters made in float32
        if count and (float(u.detach().min()) < low - slack or float(u.detach().max()) > high + slack):
            got = f"[{float(u.detach().min()):g}, {float(u.detach().max()):g}]"
            raise fail(
                where, name, f"in the domain [{low:g}, {high:g}]", got, "Scale them, or pass knots of that domain."
            )
        result.append(u if periodic[i] else u.clamp(low, high))
    return tuple(result)


def _spaced(points: torch.Tensor, kind: str, wraps: bool) -> torch.Tensor:
    """Parameters in [0, 1] along the first axis, steps averaged over the others."""
    count = len(points)
    spans = count if wraps else max(count - 1, 1)
    even = torch.arange(count, dtype=torch.float64) / spans
    if kind == "uniform" or count < 2:
        return even
    ahead = torch.cat([points[1:], points[:1]]) if wraps else points[1:]
    steps = (ahead - points[: len(ahead)]).norm(dim=-1).reshape(len(ahead), -1)
    if kind == "centripetal":
        steps = steps.sqrt()
    total = steps.sum(0)
    steps = steps[:, total > 0]
    if not steps.numel():  # all points are one
        return even
    reached = torch.cat([steps.new_zeros(1), (steps / total[total > 0]).mean(1).cumsum(0)])
    return (reached / reached[-1])[:count]


def read_point_weights(where: str, weights: Any, data: torch.Tensor) -> torch.Tensor | None:
    """Require weights >= 0, one a point, not all 0."""
    if weights is None:
        return None
    values = promote(where, point_weights=weights)["point_weights"].detach().to("cpu", torch.float64)
    floating(where, "point_weights", values, tuple(data.shape[:-1]), "One weight a point.", finite=False)
    if bool((values < 0).any()) or not float(values.sum()) > 0:
        raise fail(where, "point_weights", "0 or more, and not all 0", f"a least value of {float(values.min())}")
    return values / values.mean()


def read_number(where: str, name: str, value: Any) -> float:
    """Require a finite number >= 0."""
    if not isinstance(value, numbers.Real) or isinstance(value, bool):
        raise fail(where, name, "a number of 0 or more", value, error=TypeError)
    if not 0 <= float(value) < math.inf:
        raise fail(where, name, "0 or more, and finite", str(value))
    return float(value)


def read_smoothing(where: str, smoothing: Any, degree: Sequence[int], rational: bool) -> float:
    """Require a number >= 0, and a spline that it applies to."""
    value = read_number(where, "smoothing", smoothing)
    if value > 0 and rational:
        raise fail(where, "smoothing", "0 for rational fits", str(value), "Fit with rational=False.")
    if value > 0 and min(degree) < 2:
        raise fail(where, "smoothing", "0 below degree 2, which has no second derivative", str(value))
    return value


def read_ends(
    where: str, problem: Problem, knots: Sequence[torch.Tensor], ends: str, tangents: Any, moves: bool
) -> list[Pin]:
    """Return the conditions to be met exactly."""
    choice(where, "ends", ends, ("free", "interpolate"))
    axes = len(knots)
    given = pair(where, "tangents", tangents, object)
    pins: list[Pin] = []
    if ends == "free" and given == (None, None):
        return pins
    named = "ends" if ends != "free" else "tangents"
    if any(problem.periodic):
        raise fail(where, named, "left out where periodic", repr(ends), "A closed spline has no ends.")
    if ends == "interpolate":
        if not problem.grid:
            raise fail(where, "ends", "'free' for scattered points", repr(ends))
        for corner in range(2**axes):
            index = tuple(-(corner >> a & 1) for a in range(axes))
            at = tuple(float(u.detach()[i]) for u, i in zip(problem.parameters, index, strict=True))
            pins.append(Pin(at, (0,) * axes, problem.points[index]))
        for u, k, p in zip(problem.parameters, knots, problem.degree, strict=True):
            domain = [float(k.detach()[p]), float(k.detach()[-p - 1])]
            if [float(u.detach()[0]), float(u.detach()[-1])] != domain:
                expected = f"from end to end of the domain {domain} to interpolate"
                raise fail(where, "parameters", expected, f"[{float(u[0]):g}, {float(u[-1]):g}]")
    for end, tangent in enumerate(given):
        if tangent is None:
            continue
        if moves:
            raise fail(where, "tangents", "left out where knots or weights move", "a tangent", "Fix the knots.")
        name, p = f"tangents[{end}]", problem.degree[0]
        value = promote(where, **{name: tangent})[name].to("cpu", torch.float64)
        floating(where, name, value, (problem.dim,), "One derivative a coordinate.", finite=False)
        knot = float(knots[0].detach()[p] if end == 0 else knots[0].detach()[-p - 1])
        pins.append(Pin((knot,), (1,), value))
    count = math.prod(len(k) - p - 1 for k, p in zip(knots, problem.degree, strict=True))
    if len(pins) > count or (pins[-1].order != (0,) * axes and problem.degree[0] < 1):
        expected = f"conditions that {count} control points of degree {problem.degree[0]} can meet"
        raise fail(where, named, expected, f"{len(pins)} conditions", "Add control points.")
    return pins


def _too_few(where: str, need: str, got: int) -> Exception:
    return fail(where, "points", f"at least {need}", f"{got}", "Use fewer control points, more points, or smoothing.")


def check_enough(where: str, problem: Problem, knots: Sequence[torch.Tensor], shape: Sequence[int]) -> None:
    """Require points for all unknowns, unless smoothing fills in."""
    axes = len(shape)
    if problem.smoothing > 0:
        least = axes + 1
        if problem.points[..., 0].numel() < least:
            raise _too_few(where, f"{least} points to smooth", problem.points[..., 0].numel())
        return
    if not problem.grid:
        _enough_scattered(where, problem, knots, shape)
        return
    held = sum(pin.order != (0,) * axes for pin in problem.pins)  # the others are points themselves
    for i, (basis, u, count) in enumerate(zip(problem.bases(knots), problem.parameters, shape, strict=True)):
        along = "" if axes == 1 else f" along axis {i}"
        if len(u) < count - held:
            raise _too_few(where, f"{count - held} points{along} for {count} control points", len(u))
        function = without_sample(basis, u) if not held else None
        if function is not None:
            raise _lonely(where, f"function {function}{along}", _support(basis, function))


def _enough_scattered(where: str, problem: Problem, knots: Sequence[torch.Tensor], shape: Sequence[int]) -> None:
    unknowns, count = math.prod(shape), len(problem.points)
    if count < unknowns:
        raise _too_few(where, f"{unknowns} points for {' × '.join(str(n) for n in shape)} control points", count)
    inside = [(m.detach() != 0).double() for m in problem.matrices(knots)]
    empty = (inside[0].mT @ inside[1] == 0).nonzero()
    if len(empty):
        index = empty[0].tolist()
        supports = [_support(b, i) for b, i in zip(problem.bases(knots), index, strict=True)]
        raise _lonely(where, f"function {tuple(index)}", " × ".join(supports))


def _support(basis: BSplineBasis, function: int) -> str:
    knots = basis.opened_knots.detach()
    return f"[{float(knots[function]):g}, {float(knots[function + basis.degree + 1]):g}]"


def _lonely(where: str, which: str, support: str) -> Exception:
    return fail(
        where,
        "parameters",
        "such that every basis function has a point of its own in its support",
        f"none for {which}, whose support is {support}",
        'Pass knots="averaged", use fewer control points, or smoothing.',
    )


def check_clamped(
    where: str,
    knots: Sequence[torch.Tensor],
    degree: Sequence[int],
    free: Sequence[bool],
    periodic: Sequence[bool],
) -> None:
    """Require free knot vectors to be clamped or periodic."""
    for i, (k, p, moves, wraps) in enumerate(zip(knots, degree, free, periodic, strict=True)):
        clamped = bool((k[: p + 1] == k[0]).all() and (k[-p - 1 :] == k[-1]).all())
        if moves and not wraps and not clamped:
            raise fail(where, _knot_name(i, len(knots)), "clamped where knots are free", "an unclamped vector")


def read_settings(
    where: str, starts: Any, seed: Any, max_iterations: Any, tolerance: Any
) -> tuple[int, int, int, float]:
    """Require positive counts and a positive tolerance."""
    starts = integer(where, "starts", starts, 1, 10**6)
    max_iterations = integer(where, "max_iterations", max_iterations, 1)
    seed = seed_number(where, seed)
    positive(where, "tolerance", tolerance)
    return starts, seed, max_iterations, float(tolerance)


def read_bounds(where: str, bounds: Any) -> tuple[float, float]:
    """Require 0 < low <= 1 <= high."""
    low, high = pair(where, "weight_bounds", bounds, numbers.Real)
    if not 0 < low <= 1 <= high < math.inf:
        raise fail(where, "weight_bounds", "a pair 0 < low <= 1 <= high", f"({low}, {high})")
    return float(low), float(high)
