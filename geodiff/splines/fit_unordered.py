# SPDX-License-Identifier: Apache-2.0
"""Fit a curve or a surface to points in no order, by turns: best control points, then closest parameters.

Hoschek, "Intrinsic parametrization for approximation", CAGD 5 (1988), 27–31; Weiss, Andor, Renner and Várady, "Advanced
surface fitting techniques", CAGD 19 (2002), 19–42.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import scipy.sparse
import torch
from scipy.sparse import csgraph
from scipy.spatial import ConvexHull, QhullError, cKDTree

from geodiff.modes import outside_autocast
from geodiff.scene.anchor import anchor
from geodiff.splines import fit_input
from geodiff.splines.curve import NURBSCurve
from geodiff.splines.fit import SplineFit, result
from geodiff.splines.fit_free import Callback, Diverged
from geodiff.splines.fit_linear import Problem
from geodiff.splines.fit_rounds import LEAST_SMOOTHING, Rounds, alternate
from geodiff.splines.knots import uniform_knots
from geodiff.splines.surface import NURBSSurface
from geodiff.validation import choice, fail, floating, number, promote

FLAT = 1e-6  # ratio of the principal spreads of points on a line
LEAST_CELL = 0.15  # of the first surface, in mean areas of its cells
MARGIN = 0.01  # by which the first surface is larger than the cloud
NEIGHBOURS = 8  # of each point, in the graph that orders a curve's points
STARTS = 2  # of a fit without the farthest points: from all but strays, and from those that counted in the end
MOST_TRIMMED = 0.5  # more could be the cloud, and the rest the outliers
STRAY = 5.0  # median distances from the middle: a point farther off would turn the first surface towards itself


@outside_autocast
def fit_cloud(
    points: Any,
    control_shape: int | tuple[int, int] | None = None,
    degree: int | tuple[int, int] = 3,
    *,
    initial: NURBSCurve | NURBSSurface | None = None,
    order: str = "principal",
    smoothing: float | None = None,
    chamfer: float = 0.0,
    trim: float = 0.0,
    max_iterations: int = 50,
    tolerance: float = 1e-3,
    callback: Callback | None = None,
) -> SplineFit:
    """Fit a surface, or a curve, to points in no order and without parameters.

    Of a cloud with its centre at 0 and root mean square distance 1 from it, it minimises over control points and
    parameters (u_i, v_i)

        (1/N) Σ_i |S(u_i, v_i) − p_i|² + λ ∫∫ (|S_uu|² + 2 |S_uv|² + |S_vv|²) + μ E_S
        E_S = ∫∫ |Tᵀ (S_u − S⁰_u)|² / ∫∫ |S⁰_u|² + ∫∫ |Tᵀ (S_v − S⁰_v)|² / ∫∫ |S⁰_v|²

    The stretch E_S keeps lengths and angles near those of the first surface S⁰, measured along its tangents T(u, v), so
    that points cannot slide together and no part runs away from the cloud; the shape across S⁰ is free. Its weight
    follows the noise, the mean square s² of the distances: μ = max(10 s², 1000 λ). For a curve there is no stretch.

    S⁰ is flat, in the plane of the two largest principal components: a patch between the sides of the smallest
    rectangle around the cloud there, drawn in towards the cloud's convex hull, so that on a disc little
    overhangs; or it is the first fit with `initial`. First parameters: the nearest on S⁰ or `initial`; for a curve, as
    `order` says. Then by turns: Gauss–Newton steps of the control points, with λ from strong to what is asked, and of
    the parameters towards the closest points. λ and μ are held after 8 rounds. A cloud that folds over itself in its
    principal plane needs an `initial`.

    Args:
        points: `(N, D)`; D >= 2.
        control_shape: (K1, K2) for a surface, K for a curve; left out, that of `initial`, or (8, 8).
        degree: one, or one an axis, >= 2; that of `initial` where there is one.
        initial: a polynomial curve or surface near the cloud, whose knots (periodic ones too) are kept.
        order: of a curve's points: ``"principal"`` along the first principal component, or ``"neighbours"``: along the
            longest path of the minimum spanning tree of near neighbours, for curves that turn back.
        smoothing: λ > 0, over parameters in the knots' domain. Left out, it follows the noise: `s² γ / (N E)`, at least
            1e-9 and at most 1e-3, with the integral E that it weighs and the number γ of control points that the data
            determine (MacKay, Neural Computation 4, 1992, 415–447).
        trim: the share of the points that are left out as outliers, 0 to 0.5; better too large than too small. Least
            trimmed squares: the mean is over the other points, those nearest the spline, and points between count in
            part (`gd.soft.trimmed_mean` of the squared distances, at a temperature of half their mean). Of the share,
            points more than 5 median distances from the middle do not count at first. Fitted twice where there is no
            `initial`, the second time with the first surface around the points that counted in the first. `.kept` are
            those nearest in the end, all but the share; `.iterations` and `.history` are the second fit's. Outliers
            that hang together may pass for a part of the shape, and `chamfer` looks at all points, the outliers too.
        chamfer: >= 0: weight of the other direction, from samples of the spline to the points nearest them; 1 makes it
            the symmetric Chamfer distance, which draws in what still overhangs a cloud with notches. It is slow.
        max_iterations: at most so many rounds.
        tolerance: it has converged when three rounds in a row lower the objective by less than this fraction each.
        callback: called with (round, objective) after each round; what it raises ends the fit.

    Returns:
        the fit; `.errors` are the distances of the points, in their own units, `.rms` and `.max` sum them up, of
        `.kept` points if some are trimmed, and `.history` has the objective in the scaled units of each round.

    Gradients: none.

    Raises:
        TypeError: arguments of a wrong class or dtype.
        ValueError: wrong shapes, NaN, too few points, points that are all one, on a line for a surface.
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
    automatic = smoothing is None
    value = fit_input.read_smoothing(where, LEAST_SMOOTHING if automatic else smoothing, degrees, False)
    if value == 0:
        fix = "Small values, such as 1e-12, keep parts without points in place."
        raise fail(where, "smoothing", "positive", "0", fix)
    weight = fit_input.read_number(where, "chamfer", chamfer)
    share = number(where, "trim", trim, 0.0, MOST_TRIMMED, "It is the share of the points that are outliers.")
    if (1 - share) * len(data) < axes + 2:
        raise fail(where, "trim", f"such that {axes + 2} points are left", f"{trim} of {len(data)}")
    _, _, most, least = fit_input.read_settings(where, 1, 0, max_iterations, tolerance)

    own = data.detach().to("cpu", torch.float64)
    origin = anchor(own)
    own = own - origin
    counted = _but_strays(own, share)
    past = 0

    def report(iteration: int, objective: float) -> None:
        if callback is not None:
            callback(past + iteration, objective)

    for _ in range(STARTS if share > 0 and initial is None else 1):
        centre = own[counted].mean(0)
        size = float((own[counted] - centre).square().sum(1).mean().sqrt())
        if not 0 < size < math.inf:
            raise fail(where, "points", "spread, on a finite scale", f"a root mean square radius of {size}")
        scaled = (own - centre) / size
        if not math.isfinite(float(scaled.square().sum())):
            raise fail(where, "points", "on a finite scale", "points too far from the others")
        problem = Problem(scaled, (), degrees, periodic, grid=False, smoothing=value)
        with torch.no_grad():
            net = None
            if initial is not None:
                net = initial.control_points.detach().to("cpu", torch.float64)
                shape = (*net.shape[:-1], data.shape[1])
                floating(where, "initial.control_points", net, shape, "The points' dimension.")
                net = (net - origin - centre) / size
            rounds, still = _begun(where, problem, knots, counted, share, net, order)
            try:
                outcome = alternate(rounds, weight, most, least, report, automatic, still)
            except Diverged as error:
                raise RuntimeError(f"{where}: {error}. Raise `smoothing`.") from None
        past += outcome.iterations
        counted = rounds.omega >= 0.5 * rounds.omega.max()
    problem.points, problem.parameters = own - centre, tuple(rounds.u.unbind(-1))
    outcome.control = outcome.control * size
    nearest = _closest(rounds.miss(outcome.control / size, rounds.u, scaled), share)
    kept = nearest.to(data.device) if share > 0 else None
    return result(problem, outcome, data, origin + centre, [outcome.objective], kept)


def _closest(offsets: torch.Tensor, share: float) -> torch.Tensor:
    """Return which of `(N, D)` are left when a share is left out: all but the longest, of which ⌊share N⌋ go."""
    kept = torch.ones(len(offsets), dtype=torch.bool)
    gone = int(share * len(offsets) + 1e-9)  # 0.29 · 100 is 28.999…
    kept[offsets.square().sum(-1).argsort(stable=True)[len(offsets) - gone :]] = False
    return kept


def _but_strays(cloud: torch.Tensor, share: float) -> torch.Tensor:
    """Return which points the first fit begins from: all but strays, which are at most as many as are left out.

    A lone point far off has so long a lever that least squares pass through it: it is no distance away then, and no
    round would leave it out.
    """
    offsets = cloud - cloud.median(0).values
    distance = offsets.norm(dim=1)
    return _closest(offsets, share) | (distance <= STRAY * distance.median())


def _begun(
    where: str,
    problem: Problem,
    knots: Sequence[torch.Tensor],
    counted: torch.Tensor,
    trim: float,
    net: torch.Tensor | None,
    order: str,
) -> tuple[Rounds, torch.Tensor | None]:
    """Give all points their first parameters; return the rounds, and the surface from which the stretch is measured."""
    cloud, degrees = problem.points, problem.degree
    domains = [
        (float(k[0]), float(k[-1])) if w else (float(k[p]), float(k[-p - 1]))
        for k, p, w in _zip(knots, degrees, problem.periodic)
    ]
    still = None
    if net is None and len(knots) == 2:
        net = still = _chart(where, cloud[counted], knots, degrees)
    if net is None:
        low, high = domains[0]
        along = _ordered(cloud[counted], order)
        if not bool(counted.all()):
            along = along[torch.from_numpy(cKDTree(cloud[counted].numpy()).query(cloud.numpy())[1])]
        problem.parameters = (low + (high - low) * along,)
    else:
        problem.parameters = Rounds(problem, knots, domains).nearest(net)
    rounds = Rounds(problem, knots, domains, trim)
    rounds.omega = counted / counted.double().mean()
    if still is not None:
        for _ in range(3):
            rounds.u, _ = rounds.correct(still, rounds.u)
    return rounds, still


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
    """Return the principal axes, as rows, and the spread along each; signs fixed by the largest entry."""
    _, spread, axes = torch.linalg.svd(cloud, full_matrices=False)
    largest = axes.abs().argmax(1, keepdim=True)
    return axes * torch.take_along_dim(axes, largest, 1).sign(), spread


def _chart(where: str, cloud: torch.Tensor, knots: Sequence[torch.Tensor], degrees: tuple[int, ...]) -> torch.Tensor:
    """Return control points `(K1, K2, D)` of a flat surface, about as large as the cloud in its principal plane.

    The sides of the smallest rectangle around the cloud, moved towards the nearest points of the cloud's convex hull
    as far as no cell becomes much smaller than the others, and inside them the bilinear patch of Coons (MIT Project MAC
    TR-41, 1967): on a disc, the corners overhang little.
    """
    axes, spread = _principal(cloud)
    plane = (cloud @ axes[:2].mT).numpy()
    try:
        if float(spread[1]) <= FLAT * float(spread[0]):
            raise QhullError
        hull = plane[ConvexHull(plane).vertices]
    except QhullError:
        fix = "Pass a count to fit a curve."
        raise fail(where, "points", "spread over a surface", "points on a line", fix) from None
    # One side of the smallest rectangle lies on an edge of the hull (Freeman and Shapira, Comm. ACM 18, 1975).
    edges = np.roll(hull, -1, axis=0) - hull
    angles = np.arctan2(edges[:, 1], edges[:, 0]) % (np.pi / 2)
    turns = np.stack(
        [np.stack([np.cos(angles), np.sin(angles)], -1), np.stack([-np.sin(angles), np.cos(angles)], -1)], 1
    )
    sides = np.ptp(turns @ hull.T, axis=-1)
    turn = turns[int(np.argmin(sides.prod(1)))]
    low, high = (hull @ turn.T).min(0), (hull @ turn.T).max(0)
    count = max(65, 4 * max(len(k) for k in knots))
    t = np.linspace(0, 1, count)
    zero, one = np.zeros(count), np.ones(count)
    square = np.stack([np.stack(s, -1) for s in ((t, zero), (t, one), (zero, t), (one, t))])
    square = (low + (high - low) * square) @ turn
    drawn = np.stack([_even(_onto(side, hull)) for side in square])
    for part in np.linspace(1, 0, 11):
        patch = _coons(square + part * (drawn - square))
        first, second = np.diff(patch, axis=0)[:, :-1], np.diff(patch, axis=1)[:-1]
        areas = first[..., 0] * second[..., 1] - first[..., 1] * second[..., 0]
        if areas.min() >= LEAST_CELL * areas.mean():
            break
    middle = patch.mean((0, 1))
    patch = middle + (1 + MARGIN) * (patch - middle)
    flat = torch.from_numpy(patch) @ axes[:2]
    parameters = tuple(
        torch.linspace(float(k[p]), float(k[-p - 1]), count, dtype=torch.float64)
        for k, p in zip(knots, degrees, strict=True)
    )
    return Problem(flat, parameters, degrees, (False, False), grid=True).solve(knots)[0]


def _onto(points: np.ndarray, hull: np.ndarray) -> np.ndarray:
    """Return the points of a polygon's sides nearest the points."""
    edges = np.roll(hull, -1, axis=0) - hull
    t = ((points[:, None] - hull) * edges).sum(-1) / np.square(edges).sum(-1)
    feet = hull + np.clip(t, 0, 1)[..., None] * edges
    nearest = np.square(feet - points[:, None]).sum(-1).argmin(1)
    return feet[np.arange(len(points)), nearest]


def _even(line: np.ndarray) -> np.ndarray:
    """Return as many points of a polyline, evenly spaced along it."""
    length = np.concatenate([[0.0], np.linalg.norm(np.diff(line, axis=0), axis=1).cumsum()])
    at = np.linspace(0, length[-1], len(line))
    return np.stack([np.interp(at, length, line[:, d]) for d in range(2)], -1)


def _coons(sides: np.ndarray) -> np.ndarray:
    """Return the grid `(N, N, 2)` between sides `(4, N, 2)` at v = 0, v = 1, u = 0 and u = 1."""
    bottom, top, left, right = sides
    u = np.linspace(0, 1, len(bottom))[:, None, None]
    v = u.swapaxes(0, 1)
    ruled = (1 - v) * bottom[:, None] + v * top[:, None] + (1 - u) * left + u * right
    corners = (1 - u) * ((1 - v) * left[0] + v * left[-1]) + u * ((1 - v) * right[0] + v * right[-1])
    return ruled - corners


def _ordered(cloud: torch.Tensor, order: str) -> torch.Tensor:
    """Return a parameter in [0, 1] for each point of a curve."""
    if order == "principal":
        at = cloud @ _principal(cloud)[0][0]
    else:
        points = cloud.numpy()
        count = min(NEIGHBOURS + 1, len(points))
        distance, index = cKDTree(points).query(points, k=count)
        rows = np.repeat(np.arange(len(points), dtype=np.int32), count)  # SciPy before 1.15 takes no wider index here
        # Points at the same position must stay joined: a zero would be no edge.
        lengths = np.maximum(distance.ravel(), 1e-12)
        graph = scipy.sparse.coo_array(
            (lengths, (rows, index.ravel().astype(np.int32))), shape=(len(points),) * 2
        ).tocsr()
        tree = csgraph.minimum_spanning_tree(graph.maximum(graph.T))
        first = csgraph.shortest_path(tree, directed=False, indices=0)
        if not np.isfinite(first).all():
            return _ordered(cloud, "principal")  # the cloud is in several parts
        end = int(first.argmax())
        at = torch.from_numpy(csgraph.shortest_path(tree, directed=False, indices=end))
    return (at - at.min()) / (at.max() - at.min())
