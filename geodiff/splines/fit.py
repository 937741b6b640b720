# SPDX-License-Identifier: Apache-2.0
"""Fit curves and surfaces to ordered points: linear least squares, free knots and free weights."""

import math
from dataclasses import dataclass, field
from typing import Any

import torch

from geodiff.modes import outside_autocast
from geodiff.scene.anchor import anchor
from geodiff.splines import fit_input
from geodiff.splines.creases import creased_knots
from geodiff.splines.curve import NURBSCurve
from geodiff.splines.fit_free import Callback, Diverged, Outcome, Start, minimise, random_starts
from geodiff.splines.fit_linear import Problem
from geodiff.splines.surface import NURBSSurface
from geodiff.validation import shapes_repr, warn


@dataclass(frozen=True, eq=False)
class SplineFit:
    """What a fit returns; figures are those of the solution in float64, before it is rounded to the points' dtype.

    Attributes:
        spline: the fitted curve or surface, in the dtype and on the device of the points; also `.curve`, `.surface`.
        mse: mean of the squared residuals over (kept) points and coordinates.
        errors: distance of each point from the spline at its parameter, of the points' shape without the last axis.
        parameters: of the points, one tensor an axis.
        objective: what was minimised: the (weighted) mse plus the smoothing term.
        history: the objective at the start and after each iteration of the best start.
        iterations: of the best start; 0 for linear fits.
        converged: whether it stopped because the objective fell no further.
        message: why it stopped.
        rank: how many control points the points determine.
        starts: the final objective of each start.
        kept: of a fit that leaves points out (`trim`), which of them it kept, bool of the shape of `errors`; else None.
    """

    __repr__ = shapes_repr

    spline: NURBSCurve | NURBSSurface
    mse: float
    errors: torch.Tensor
    parameters: tuple[torch.Tensor, ...]
    objective: float
    history: list[float]
    iterations: int
    converged: bool
    message: str
    rank: int
    starts: list[float] = field(default_factory=list)
    kept: torch.Tensor | None = None

    @property
    def rms(self) -> float:
        """Root of the mean squared distance over (kept) points."""
        return float(self._counted().double().square().mean().sqrt())

    @property
    def max(self) -> float:
        """Largest distance of a (kept) point."""
        return float(self._counted().max())

    def _counted(self) -> torch.Tensor:
        errors = self.errors.detach()
        return errors if self.kept is None else errors[self.kept]

    @property
    def curve(self) -> NURBSCurve:
        """The fitted curve."""
        if not isinstance(self.spline, NURBSCurve):
            raise AttributeError("SplineFit: this fit is of a surface; take `.surface`")
        return self.spline

    @property
    def surface(self) -> NURBSSurface:
        """The fitted surface."""
        if not isinstance(self.spline, NURBSSurface):
            raise AttributeError("SplineFit: this fit is of a curve; take `.curve`")
        return self.spline


@dataclass(frozen=True)
class FitOptions:
    """How a curve or a surface is fitted, as `fit_curve` and `fit_surface` have it, with one entry an axis."""

    where: str
    shape: tuple[int, ...]
    degree: tuple[int, ...]
    parameters: Any
    knots: tuple[Any, ...]
    free: tuple[bool, ...]
    rational: bool
    weight_bounds: tuple[float, float]
    point_weights: Any
    smoothing: float
    ends: str
    periodic: tuple[bool, ...]
    starts: int
    seed: int
    max_iterations: int
    tolerance: float
    callback: Callback | None
    tangents: tuple[Any, Any] = (None, None)
    creases: Any = None


@outside_autocast
def fit_curve(
    points: Any,
    control_count: int = 8,
    degree: int = 3,
    *,
    parameters: Any = "uniform",
    knots: Any = None,
    free_knots: bool = False,
    rational: bool = False,
    weight_bounds: tuple[float, float] = (0.1, 10.0),
    point_weights: Any = None,
    smoothing: float = 0.0,
    ends: str = "free",
    tangents: tuple[Any, Any] = (None, None),
    periodic: bool = False,
    creases: Any = None,
    starts: int = 1,
    seed: int = 0,
    max_iterations: int = 1000,
    tolerance: float = 1e-8,
    callback: Callback | None = None,
) -> SplineFit:
    """Fit a curve to points in order, by least squares.

    Minimises `Σ_i ω_i |C(u_i) − p_i|² / (D Σ ω_i) + smoothing · ∫ |C″|² du / D`.

    Args:
        points: p, `(N, D)`, D >= 1.
        control_count: K.
        degree: P.
        parameters: u, `(N,)`, in the domain; or ``"uniform"``, ``"chord"`` (steps as long as those of the points) or
            ``"centripetal"`` (as their square roots; Lee 1989). Where periodic, the last step leads back to the first
            point, which must not be repeated.
        knots: K + P + 1 knots (K + 1 breakpoints where periodic); left out, uniform on [0, 1]; ``"averaged"``, so
            spread that each span has points (Piegl and Tiller, "The NURBS Book", eqs. 9.8 and 9.69).
        free_knots: let the interior knots move, by variable projection from where they are.
        rational: let weights move too.
        weight_bounds: of the weights; 1 must lie between.
        point_weights: ω >= 0, `(N,)`.
        smoothing: λ >= 0; large values tend to the straight line. Polynomial fits of degree 2 or more only.
        ends: ``"interpolate"`` meets the first and the last point exactly; ``"free"``.
        tangents: derivatives dC/du at both ends to be met exactly, `(D,)` each, or None.
        periodic: close the curve smoothly.
        creases: where the curve may have a corner: parameters inside of (0, 1), or ``"auto"``, where a best piecewise
            polynomial (`fit_pieces`) has a cut at which its derivative jumps. A knot is there P times; the others are
            spread evenly, and free knots start from there. None: a corner only where knots say so.
        starts: of free fits: one from the given knots and weights 1, the others random; the best is returned.
        seed: of the random starts.
        max_iterations: of each start.
        tolerance: a free fit stops when a step lowers the objective by less than this fraction.
        callback: called with (iteration, objective) as free fits go on; what it raises ends the fit.

    Returns:
        the fit: `.curve`, `.mse`, `.errors` and more.

    Gradients: of the control points in points, parameters and knots where knots and weights are fixed; none from free
        fits, nor in point weights.

    Raises:
        TypeError: arguments of a wrong class or dtype.
        ValueError: wrong shapes, NaN, too few points, a basis function without points, contradicting conditions.
        RuntimeError: the optimisation diverged.

    Example:
        >>> import torch
        >>> u = torch.linspace(0, 1, 50, dtype=torch.float64)
        >>> fit = fit_curve(torch.stack([u, u**3], -1), control_count=6)
        >>> fit.mse < 1e-25
        True
    """
    return _fit(
        points,
        FitOptions(
            where="fit_curve",
            shape=(control_count,),
            degree=(degree,),
            parameters=parameters,
            knots=(knots,),
            free=(free_knots,),
            rational=rational,
            weight_bounds=weight_bounds,
            point_weights=point_weights,
            smoothing=smoothing,
            ends=ends,
            tangents=tangents,
            periodic=(periodic,),
            creases=creases,
            starts=starts,
            seed=seed,
            max_iterations=max_iterations,
            tolerance=tolerance,
            callback=callback,
        ),
    )


@outside_autocast
def fit_surface(
    points: Any,
    control_shape: tuple[int, int] = (8, 8),
    degree: tuple[int, int] = (3, 3),
    *,
    parameters: Any = "uniform",
    knots: tuple[Any, Any] | None = None,
    free_knots: bool | tuple[bool, bool] = False,
    rational: bool = False,
    weight_bounds: tuple[float, float] = (0.1, 10.0),
    point_weights: Any = None,
    smoothing: float = 0.0,
    ends: str = "free",
    periodic: bool | tuple[bool, bool] = False,
    starts: int = 1,
    seed: int = 0,
    max_iterations: int = 1000,
    tolerance: float = 1e-8,
    callback: Callback | None = None,
) -> SplineFit:
    """Fit a surface to a grid of points, or to scattered points of known parameters, by least squares.

    Minimises `Σ_i ω_i |S(u_i, v_i) − p_i|² / (D Σ ω_i) + smoothing · ∫∫ |S_uu|² + 2 |S_uv|² + |S_vv|² du dv / D`.
    For scattered points without parameters see `fit_cloud`.

    Args:
        points: p, a grid `(N, M, D)`, or scattered `(N, D)`; D >= 1. Heights `(N, M)` are given as `(N, M, 1)`.
        control_shape: (K1, K2).
        degree: (P1, P2).
        parameters: a pair of tensors: `(N,)` and `(M,)` for a grid, `(N,)` both for scattered points; for a grid also
            ``"uniform"`` (`linspace(0, 1)`), ``"chord"`` or ``"centripetal"``, averaged over its rows and columns.
        knots: a pair, each as in `fit_curve`.
        free_knots: let the interior knots move, by variable projection from where they are; one flag or one an axis.
        rational: let weights move too.
        weight_bounds: of the weights; 1 must lie between.
        point_weights: ω >= 0, `(N, M)` or `(N,)`.
        smoothing: λ >= 0; large values tend to the plane. Polynomial fits of degree 2 or more only.
        ends: ``"interpolate"`` meets the four corners of the grid exactly; ``"free"``.
        periodic: close the surface smoothly along u, along v.
        starts: of free fits: one from the given knots and weights 1, the others random; the best is returned.
        seed: of the random starts.
        max_iterations: of each start.
        tolerance: a free fit stops when a step lowers the objective by less than this fraction.
        callback: called with (iteration, objective) as free fits go on; what it raises ends the fit.

    Returns:
        the fit: `.surface`, `.mse`, `.errors` and more.

    Gradients: of the control points in points, parameters and knots where knots and weights are fixed; none from free
        fits, nor in point weights.

    Raises:
        TypeError: arguments of a wrong class or dtype.
        ValueError: wrong shapes, NaN, too few points, a basis function without points, contradicting conditions.
        RuntimeError: the optimisation diverged.

    Example:
        >>> import torch
        >>> x, y = torch.meshgrid(torch.linspace(0, 1, 20), torch.linspace(0, 1, 30), indexing="ij")
        >>> fit = fit_surface(torch.stack([x, y, x * y], -1), control_shape=(4, 5))
        >>> fit.surface.control_points.shape, fit.mse < 1e-12
        (torch.Size([4, 5, 3]), True)
    """
    where = "fit_surface"
    return _fit(
        points,
        FitOptions(
            where=where,
            shape=fit_input.pair(where, "control_shape", control_shape, int),
            degree=fit_input.pair(where, "degree", degree, int),
            parameters=parameters,
            knots=(None, None) if knots is None else fit_input.pair(where, "knots", knots, object),
            free=fit_input.pair(where, "free_knots", free_knots, bool),
            rational=rational,
            weight_bounds=weight_bounds,
            point_weights=point_weights,
            smoothing=smoothing,
            ends=ends,
            periodic=fit_input.pair(where, "periodic", periodic, bool),
            starts=starts,
            seed=seed,
            max_iterations=max_iterations,
            tolerance=tolerance,
            callback=callback,
        ),
    )


def _fit(points: Any, options: FitOptions) -> SplineFit:
    where, shape, degree, periodic = options.where, options.shape, options.degree, options.periodic
    free, rational = options.free, options.rational
    data = fit_input.read_points(where, points, len(shape))
    fit_input.check_shape(where, shape, degree, periodic)
    own = data.to("cpu", torch.float64)
    grid = data.dim() == len(shape) + 1
    vectors, domains = fit_input.read_knots(where, options.knots, shape, degree, periodic)
    at = fit_input.read_parameters(where, options.parameters, own, len(shape), grid, periodic, domains)
    if options.creases is not None:
        given = vectors[0] is not None
        vectors = [creased_knots(where, options.creases, own, at[0], shape[0], degree[0], periodic[0], given)]
    full = fit_input.fill_knots(where, vectors, at, shape, degree, periodic)
    origin = anchor(own.reshape(-1, own.shape[-1]))
    own = own - origin
    problem = Problem(own, at, degree, periodic, grid)
    problem.point_weights = fit_input.read_point_weights(where, options.point_weights, data)
    problem.smoothing = fit_input.read_smoothing(where, options.smoothing, degree, rational)
    problem.pins = fit_input.read_ends(where, problem, full, options.ends, options.tangents, any(free) or rational)
    fit_input.check_enough(where, problem, full, shape)
    if not any(free) and not rational:
        control, rank = problem.solve(full)
        if rank < math.prod(shape):
            text = f"the points determine only {rank} of {math.prod(shape)} control points; the rest have least norm"
            warn(f"{where}: {text}. Use fewer control points, or smoothing.", RuntimeWarning)
        with torch.no_grad():
            objective = float(problem.objective(control, full))
        if not math.isfinite(objective):
            raise RuntimeError(f"{where}: the objective is {objective}. Scale the points.")
        best = Outcome(control, tuple(full), None, objective, rank, history=[objective])
        return result(problem, best, data, origin, [objective])
    fit_input.check_clamped(where, full, degree, free, periodic)
    count, seed, most, tolerance = fit_input.read_settings(
        where, options.starts, options.seed, options.max_iterations, options.tolerance
    )
    low, high = fit_input.read_bounds(where, options.weight_bounds)
    logs = torch.zeros(shape, dtype=torch.float64) if rational else None
    problem.points, problem.parameters = own.detach(), tuple(u.detach() for u in at)
    start = Start(tuple(k.detach() for k in full), free, logs)
    outcomes: list[Outcome] = []
    past = 0

    def report(iteration: int, objective: float) -> None:
        if options.callback is not None:
            options.callback(past + iteration, objective)

    try:
        for one in random_starts(start, count, seed, (low, high)):
            outcomes.append(minimise(problem, one, (low, high), most, tolerance, report))
            past += outcomes[-1].iterations
    except Diverged as error:
        raise RuntimeError(f"{where}: {error}. Scale the points, or use smoothing or fewer control points.") from None
    best = min(outcomes, key=lambda o: o.objective)
    return result(problem, best, data, origin, [o.objective for o in outcomes])


def result(
    problem: Problem,
    best: Outcome,
    data: torch.Tensor,
    origin: torch.Tensor,
    starts: list[float],
    kept: torch.Tensor | None = None,
) -> SplineFit:
    """Put together what is returned, in the dtype and on the device of the points, of a problem about `origin`."""
    with torch.no_grad():
        difference = problem.predict(best.control, problem.matrices(best.knots), best.weights) - problem.points
        mse = float((difference if kept is None else difference[kept.cpu()]).square().mean())
        errors = difference.norm(dim=-1)

    def back(x: torch.Tensor) -> torch.Tensor:
        return x.to(data.device, data.dtype)

    control = back(best.control + origin)
    weights = None if best.weights is None else back(best.weights)
    knots = [back(k) for k in best.knots]
    spline: NURBSCurve | NURBSSurface
    if len(knots) == 1:
        spline = NURBSCurve(control, knots[0], weights, problem.degree[0], periodic=problem.periodic[0])
    else:
        pair = (problem.degree[0], problem.degree[1])
        wraps = (problem.periodic[0], problem.periodic[1])
        spline = NURBSSurface(control, knots[0], knots[1], weights, pair, periodic=wraps)
    return SplineFit(
        spline,
        mse,
        back(errors),
        tuple(back(u) for u in problem.parameters),
        best.objective,
        best.history,
        best.iterations,
        best.converged,
        best.message,
        best.rank,
        starts,
        kept,
    )
