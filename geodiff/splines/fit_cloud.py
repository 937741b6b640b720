# SPDX-License-Identifier: Apache-2.0
"""Fit a curve or a surface to points in no order, by turns: best control points, then closest parameters.

Hoschek, "Intrinsic parametrization for approximation", CAGD 5 (1988), 27–31; Weiss, Andor, Renner and Várady, "Advanced
surface fitting techniques", CAGD 19 (2002), 19–42.
"""

import math
from dataclasses import replace
from typing import Any

import numpy as np
import scipy.sparse
import torch
from scipy.sparse import csgraph
from scipy.spatial import ConvexHull, QhullError, cKDTree

from geodiff.splines import fit_gram, fit_input
from geodiff.splines.curve import NURBSCurve
from geodiff.splines.fit import SplineFit, result
from geodiff.splines.fit_free import Callback, Outcome
from geodiff.splines.fit_linear import Problem, apply_grid, apply_scattered
from geodiff.splines.knots import uniform_knots
from geodiff.splines.surface import NURBSSurface
from geodiff.validation import choice, fail, floating, promote

FIRST_SMOOTHING = 1e-2  # of the first round, in the scale of the cloud; falls to the asked one within ANNEALING rounds
ANNEALING = 8
NEWTON_STEPS = 3  # of the parameters, in each round
LEAST_SLIDE = 1e-4  # see _step
RIDGE = 1e-13
EXACT = 1e-20  # an objective that is zero, for points of unit scale
SAMPLES = 4  # of the spline, for each span and axis, among which the nearest is looked for
NEIGHBOURS = 8  # of each point, in the graph that orders a curve's points


def fit_cloud(
    points: Any,
    control_shape: int | tuple[int, int] | None = None,
    degree: int | tuple[int, int] = 3,
    *,
    initial: NURBSCurve | NURBSSurface | None = None,
    order: str = "principal",
    smoothing: float = 1e-8,
    chamfer: float = 0.0,
    max_iterations: int = 50,
    tolerance: float = 1e-4,
    callback: Callback | None = None,
) -> SplineFit:
    """Fit a surface, or a curve, to points in no order and without parameters.

    First parameters: for a surface, in the plane of the two largest principal components, along the sides of the
    smallest rectangle around the cloud there; for a curve, as `order` says; or the nearest on `initial`. Then by turns:
    least squares with smoothing (strong at first) for the control points, and Gauss–Newton steps towards the closest
    points for the parameters. A cloud that folds over itself in that plane needs an `initial`.

    Args:
        points: `(N, D)`; D >= 2.
        control_shape: (K1, K2) for a surface, K for a curve; left out, that of `initial`, or (8, 8).
        degree: one, or one an axis, >= 2; that of `initial` where there is one.
        initial: a polynomial curve or surface near the cloud, whose knots (periodic ones too) are kept.
        order: of a curve's points: ``"principal"`` along the first principal component, or ``"neighbours"``: along the
            longest path of the minimum spanning tree of near neighbours, for curves that turn back.
        smoothing: λ > 0, as in `fit_surface`, over parameters in the knots' domain and with points scaled to unit root
            mean square distance from their centre.
        chamfer: >= 0: weight of the other direction, from samples of the spline to the points nearest them; 1 makes it
            the symmetric Chamfer distance, which draws in what overhangs the cloud.
        max_iterations: at most so many rounds.
        tolerance: it has converged when a round lowers the objective by less than this fraction.
        callback: called with (round, objective) after each round; what it raises ends the fit.

    Returns:
        the fit; `.errors` are the distances of the points, in their own units, `.rms` and `.max` sum them up, and
        `.history` has the objective in the scaled units of each round.

    Gradients: none.

    Raises:
        TypeError: arguments of a wrong class or dtype.
        ValueError: wrong shapes, NaN, too few points, points in one place, on a line for a surface.
        RuntimeError: the fit diverged.

    Example:
        >>> import torch
        >>> uv = torch.rand(500, 2, generator=torch.Generator().manual_seed(0))
        >>> cloud = torch.cat([uv, uv.prod(1, keepdim=True)], 1)
        >>> fit_cloud(cloud, (5, 5)).rms < 1e-3
        True
    """
    where = "fit_cloud"
    data = promote(where, points=points)["points"]
    floating(where, "points", data, ("N", "D"), "One row a point.", finite=False)
    knots, degrees, periodic = _layout(where, control_shape, degree, initial)
    axes = len(knots)
    if data.shape[1] < 2:
        raise fail(where, "points", "of 2 coordinates or more", data)
    if len(data) < axes + 2:
        raise fail(where, "points", f"at least {axes + 2} points", f"{len(data)}", "Give more points.")
    choice(where, "order", order, ("principal", "neighbours"))
    value = fit_input.read_smoothing(where, smoothing, degrees, False)
    if value == 0:
        raise fail(
            where, "smoothing", "positive", "0", "Small values, such as 1e-10, keep parts without points in place."
        )
    weight = fit_input.read_number(where, "chamfer", chamfer)
    _, _, most, least = fit_input.read_settings(where, 1, 0, max_iterations, tolerance)

    own = data.detach().to("cpu", torch.float64)
    centre = own.mean(0)
    size = float((own - centre).square().sum(1).mean().sqrt())
    if not 0 < size < math.inf:
        raise fail(where, "points", "spread, on a finite scale", f"a root mean square radius of {size}")
    cloud = (own - centre) / size
    domains = [
        (float(k[0]), float(k[-1])) if w else (float(k[p]), float(k[-p - 1]))
        for k, p, w in _zip(knots, degrees, periodic)
    ]
    problem = Problem(cloud, (), degrees, periodic, grid=False, smoothing=value)
    with torch.no_grad():
        if initial is None:
            unit = _flatten(where, cloud) if axes == 2 else [_ordered(cloud, order)]
            problem.parameters = tuple(low + (high - low) * u for u, (low, high) in zip(unit, domains, strict=True))
        else:
            net = initial.control_points.detach().to("cpu", torch.float64)
            floating(where, "initial.control_points", net, (*net.shape[:-1], data.shape[1]), "The points' dimension.")
            net = (net - centre) / size
            problem.parameters = _nearest(problem, knots, domains, net)
        outcome = _alternate(where, problem, knots, domains, weight, most, least, callback)
        problem.points, problem.smoothing = own, 0.0
        outcome.control = outcome.control * size + centre
    return result(problem, outcome, data, [outcome.objective])


def _zip(*lists: Any) -> Any:
    return zip(*lists, strict=True)


def _layout(
    where: str, control_shape: Any, degree: Any, initial: Any
) -> tuple[tuple[torch.Tensor, ...], tuple[int, ...], tuple[bool, ...]]:
    """Return knots, degrees and which axes are periodic."""
    if initial is not None:
        if not isinstance(initial, NURBSCurve | NURBSSurface):
            raise fail(where, "initial", "a NURBSCurve or NURBSSurface", initial, error=TypeError)
        if initial.is_rational or initial.batch_shape:
            raise fail(where, "initial", "polynomial, and one", repr(initial), "Fit the weights with fit_surface.")
        shape = (control_shape,) if isinstance(control_shape, int) else control_shape
        if shape is not None and tuple(shape) != initial.shape:
            raise fail(where, "control_shape", f"left out, or {initial.shape} as in `initial`", repr(control_shape))
        knots = tuple(k.detach().to("cpu", torch.float64) for k in initial.knots)
        return knots, initial.degrees, initial.periodic
    shape = (8, 8) if control_shape is None else control_shape
    degrees: tuple[Any, ...]
    if isinstance(shape, int) and not isinstance(shape, bool):
        degrees, shape = (degree,), (shape,)
    else:
        shape = fit_input.pair(where, "control_shape", shape, int)
        degrees = fit_input.pair(where, "degree", degree, int)
    periodic = (False,) * len(shape)
    fit_input.check_shape(where, shape, degrees, periodic)
    knots = tuple(uniform_knots(n, p, dtype=torch.float64) for n, p in zip(shape, degrees, strict=True))
    return knots, degrees, periodic


# First parameters ----------------------------------------------------------------------------------------------------


def _principal(cloud: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return coordinates along the principal axes and the spread along each; signs fixed by the largest entry."""
    _, spread, axes = torch.linalg.svd(cloud, full_matrices=False)
    largest = axes.abs().argmax(1, keepdim=True)
    axes = axes * torch.take_along_dim(axes, largest, 1).sign()
    return cloud @ axes.mT, spread


def _flatten(where: str, cloud: torch.Tensor) -> list[torch.Tensor]:
    """Return coordinates in [0, 1]² along the smallest rectangle around the cloud in its principal plane."""
    along, spread = _principal(cloud)
    plane = along[:, :2].numpy()
    try:
        if float(spread[1]) <= 1e-9 * float(spread[0]):
            raise QhullError
        hull = plane[ConvexHull(plane).vertices]
    except QhullError:
        raise fail(
            where, "points", "spread over a surface", "points on a line", "Pass a count to fit a curve."
        ) from None
    # One side of the smallest rectangle lies on an edge of the hull (Freeman and Shapira, Comm. ACM 18, 1975).
    edges = np.roll(hull, -1, axis=0) - hull
    angles = np.arctan2(edges[:, 1], edges[:, 0]) % (np.pi / 2)
    turns = np.stack(
        [np.stack([np.cos(angles), np.sin(angles)], -1), np.stack([-np.sin(angles), np.cos(angles)], -1)], 1
    )
    sides = np.ptp(turns @ hull.T, axis=-1)
    turned = plane @ turns[int(np.argmin(sides.prod(1)))].T
    low = turned.min(0)
    unit = torch.from_numpy((turned - low) / (turned.max(0) - low))
    return [unit[:, 0], unit[:, 1]]


def _ordered(cloud: torch.Tensor, order: str) -> torch.Tensor:
    """Return a parameter in [0, 1] for each point of a curve."""
    if order == "principal":
        at = _principal(cloud)[0][:, 0]
    else:
        points = cloud.numpy()
        count = min(NEIGHBOURS + 1, len(points))
        distance, index = cKDTree(points).query(points, k=count)
        rows = np.repeat(np.arange(len(points)), count)
        # Points in the same place must stay joined: a zero would be no edge.
        lengths = np.maximum(distance.ravel(), 1e-12)
        graph = scipy.sparse.coo_array((lengths, (rows, index.ravel())), shape=(len(points),) * 2).tocsr()
        tree = csgraph.minimum_spanning_tree(graph.maximum(graph.T))
        first = csgraph.shortest_path(tree, directed=False, indices=0)
        if not np.isfinite(first).all():
            return _ordered(cloud, "principal")  # the cloud is in several parts
        end = int(first.argmax())
        at = torch.from_numpy(csgraph.shortest_path(tree, directed=False, indices=end))
    return (at - at.min()) / (at.max() - at.min())


# Rounds --------------------------------------------------------------------------------------------------------------


def _alternate(
    where: str,
    problem: Problem,
    knots: tuple[torch.Tensor, ...],
    domains: list[tuple[float, float]],
    chamfer: float,
    most: int,
    least: float,
    callback: Callback | None,
) -> Outcome:
    smoothing, tree = problem.smoothing, cKDTree(problem.points.numpy())
    strong = max(FIRST_SMOOTHING, smoothing)
    problem.smoothing = strong
    control, rank = problem.solve(knots)
    history: list[float] = []
    converged, slide = False, 1.0
    for i in range(most):
        problem.smoothing = smoothing if i >= ANNEALING else strong * (smoothing / strong) ** (i / ANNEALING)
        rounds = _both_ways(problem, knots, domains, control, tree, chamfer) if chamfer > 0 else problem
        before = float(rounds.objective(control, knots))
        old = problem.parameters
        while True:
            trial = control + _step(rounds, knots, domains, control, slide)
            if not bool(torch.isfinite(trial).all()):
                raise RuntimeError(f"{where}: the control points are no longer finite. Raise `smoothing`.")
            problem.parameters = _correct(problem, knots, domains, trial)
            rounds.parameters = tuple(
                torch.cat([u, v[len(u) :]]) for u, v in zip(problem.parameters, rounds.parameters, strict=True)
            )
            after = float(rounds.objective(trial, knots))
            if after <= before or slide == 1.0:
                break
            slide = min(1.0, 10 * slide)
            problem.parameters = old
        control = trial
        slide = max(LEAST_SLIDE, slide / 3)
        history.append(after)
        if callback is not None:
            callback(i + 1, after)
        if i >= ANNEALING and (before - after <= least * before or after < EXACT):
            converged = True
            break
    message = "the objective falls no further" if converged else "the limit of rounds was reached"
    return Outcome(control, knots, None, history[-1], rank, len(history), converged, message, history)


def _step(
    problem: Problem,
    knots: tuple[torch.Tensor, ...],
    domains: list[tuple[float, float]],
    control: torch.Tensor,
    slide: float,
) -> torch.Tensor:
    """Return the change of the control points that minimises `Σ_i r_iᵀ M_i r_i` with smoothing, for residuals r.

    `M = I − (1 − slide) T Tᵀ` with an orthonormal basis T of the tangents along which the parameter may move: with
    slide = 0 this is the Gauss–Newton step for parameters that follow (tangent distance), with 1 the step for fixed
    parameters, which never fails but is slow (Wang, Pottmann and Liu, ACM Trans. Graph. 25, 2006, 214–238).
    """
    dim = problem.dim
    bases = problem.bases(knots)
    rows = fit_gram.ScatteredRows(bases, problem.parameters, None)
    miss, *slopes = _jet(problem, knots, control, torch.stack(problem.parameters, -1), True)
    free = ~_stuck(problem, domains, miss, slopes)
    q, r = torch.linalg.qr(torch.stack(slopes, -1) * free[:, None, :])
    sound = r.diagonal(dim1=-2, dim2=-1).abs()
    q = q * (sound > 1e-9 * sound.amax(-1, keepdim=True))[:, None, :]
    metric = torch.eye(dim, dtype=torch.float64) - (1 - slide) * q @ q.mT
    if problem.point_weights is not None:
        metric = metric * problem.point_weights[:, None, None]
    penalty = problem.penalty(knots)
    blocks = [[rows.gram(metric[:, min(d, e), max(d, e)].contiguous()) for e in range(dim)] for d in range(dim)]
    matrix = torch.cat([torch.cat(row, 1) for row in blocks]) + torch.block_diag(*[penalty] * dim)
    net = control.flatten(0, -2)
    right = -rows.adjoint((metric @ miss[..., None])[..., 0]) - penalty @ net
    # A ridge far below the smoothing, for the directions that it leaves: rotations and shears within the surface.
    ridge = RIDGE * float(matrix.diagonal().mean()) * torch.eye(len(matrix), dtype=torch.float64)
    factor, info = torch.linalg.cholesky_ex(matrix + ridge)
    if int(info):
        return torch.full_like(control, math.nan)
    change = torch.cholesky_solve(right.mT.reshape(-1, 1), factor)
    return change.reshape(dim, -1).mT.reshape(control.shape)


def _both_ways(
    problem: Problem,
    knots: tuple[torch.Tensor, ...],
    domains: list[tuple[float, float]],
    control: torch.Tensor,
    tree: cKDTree,
    chamfer: float,
) -> Problem:
    """Add rows that draw samples of the spline to the points nearest them."""
    at, samples = _samples(problem, knots, domains, control)
    _, index = tree.query(samples.numpy())
    count, more = len(problem.points), len(samples)
    weights = torch.cat([torch.ones(count), torch.full((more,), chamfer * count / more)]).double()
    return Problem(
        torch.cat([problem.points, problem.points[torch.from_numpy(index)]]),
        tuple(torch.cat([u, own]) for u, own in zip(problem.parameters, at, strict=True)),
        problem.degree,
        problem.periodic,
        grid=False,
        smoothing=problem.smoothing,
        point_weights=weights,
    )


def _samples(
    problem: Problem, knots: tuple[torch.Tensor, ...], domains: list[tuple[float, float]], control: torch.Tensor
) -> tuple[list[torch.Tensor], torch.Tensor]:
    """Return parameters, one flat tensor an axis, and points of an even grid on the spline."""
    along = []
    for (low, high), count in zip(domains, control.shape, strict=False):
        along.append(torch.linspace(low, high, SAMPLES * count + 1, dtype=torch.float64))
    matrices = [b.matrix(u) for b, u in zip(problem.bases(knots), along, strict=True)]
    grid = [g.flatten() for g in torch.meshgrid(*along, indexing="ij")]
    return grid, apply_grid(matrices, control).flatten(0, -2)


def _nearest(
    problem: Problem, knots: tuple[torch.Tensor, ...], domains: list[tuple[float, float]], control: torch.Tensor
) -> tuple[torch.Tensor, ...]:
    at, samples = _samples(problem, knots, domains, control)
    _, index = cKDTree(samples.numpy()).query(problem.points.numpy())
    return tuple(u[torch.from_numpy(index)] for u in at)


def _jet(
    problem: Problem, knots: tuple[torch.Tensor, ...], control: torch.Tensor, u: torch.Tensor, first: bool
) -> list[torch.Tensor]:
    """Return the residuals `(N, D)` at parameters `(N, axes)` and, where asked, the derivative along each axis."""
    bases = problem.bases(knots)
    values = [b.matrix(u[:, a]) for a, b in enumerate(bases)]
    jets = [apply_scattered(values, control) - problem.points]
    for a, b in enumerate(bases if first else []):
        jets.append(apply_scattered([*values[:a], b.matrix(u[:, a], 1), *values[a + 1 :]], control))
    return jets


def _stuck(
    problem: Problem, domains: list[tuple[float, float]], miss: torch.Tensor, slopes: list[torch.Tensor]
) -> torch.Tensor:
    """Which parameters are at an end of the domain beyond which the spline would come closer: `(N, axes)`."""
    held = []
    for u, slope, (low, high), wraps in zip(problem.parameters, slopes, domains, problem.periodic, strict=True):
        rising = (slope * miss).sum(-1)
        held.append(
            ((u <= low) & (rising > 0)) | ((u >= high) & (rising < 0)) if not wraps else torch.zeros_like(u) > 0
        )
    return torch.stack(held, -1)


def _correct(
    problem: Problem, knots: tuple[torch.Tensor, ...], domains: list[tuple[float, float]], control: torch.Tensor
) -> tuple[torch.Tensor, ...]:
    """Move each parameter to a closer point of the spline, never to one farther."""
    axes = len(knots)
    low, high = (torch.tensor([d[end] for d in domains], dtype=torch.float64) for end in (0, 1))
    wraps = torch.tensor(problem.periodic)
    moving = replace(problem)
    u = torch.stack(problem.parameters, -1)
    other = torch.stack(_nearest(problem, knots, domains, control), -1)
    here, there = (_jet(problem, knots, control, at, False)[0].square().sum(-1) for at in (u, other))
    u = torch.where((there < here)[:, None], other, u)
    length = torch.ones(len(u), dtype=torch.float64)
    for _ in range(NEWTON_STEPS):
        moving.parameters = tuple(u.unbind(-1))
        miss, *slopes = _jet(problem, knots, control, u, True)
        jacobian = torch.stack(slopes, -1)
        stuck = _stuck(moving, domains, miss, slopes)
        jacobian = torch.where(stuck[:, None, :], 0.0, jacobian)
        gradient = (jacobian * miss[..., None]).sum(-2)
        normal = jacobian.mT @ jacobian
        ridge = normal.diagonal(dim1=-2, dim2=-1).sum(-1) * 1e-12 + torch.finfo(torch.float64).tiny
        normal = normal + (ridge[:, None] + stuck)[..., None] * torch.eye(axes, dtype=torch.float64)
        step = -torch.linalg.solve(normal, gradient) * length[:, None]
        trial = torch.where(wraps, u + step, torch.clamp(u + step, low, high))
        closer = _jet(problem, knots, control, trial, False)[0].square().sum(-1) <= miss.square().sum(-1)
        u = torch.where(closer[:, None], trial, u)
        length = torch.where(closer, 1.0, length / 4)
    u = torch.where(wraps, low + torch.remainder(u - low, high - low), u)
    return tuple(u.unbind(-1))
