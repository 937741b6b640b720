# SPDX-License-Identifier: Apache-2.0
"""Fixed knots: against SciPy, against closed forms, and the conditions met exactly."""

import numpy as np
import pytest
import scipy.interpolate
import torch

import geodiff as gd
from geodiff.splines import fit_gram
from geodiff.splines.fit import fit_curve, fit_surface
from geodiff.splines.fit_linear import Problem
from tests.helpers import assert_close_relative, assert_gradient_is_derivative

# SciPy solves the normal equations by a banded Cholesky factor: its error is that of their condition, below 1e6 here.
SCIPY = 1e-9
# Two solvers of condition below 1e3 in float64 each.
SOLVERS = 1e-11
EXACT = 1e-10


def noisy(*shape: int) -> torch.Tensor:
    return torch.randn(shape, dtype=torch.float64)


def random_knots(count: int, degree: int) -> torch.Tensor:
    inner = (torch.arange(1, count - degree) + 0.6 * (torch.rand(count - degree - 1) - 0.5)) / (count - degree)
    return torch.cat([torch.zeros(degree + 1), inner, torch.ones(degree + 1)]).double()


@pytest.mark.parametrize("degree", [1, 2, 3, 5])
def test_curves_agree_with_scipy(degree: int) -> None:
    u, _ = torch.rand(80, dtype=torch.float64).sort()
    points, knots = noisy(80, 3), random_knots(10, degree)
    omega = torch.rand(80, dtype=torch.float64) + 0.1
    for weights in (None, omega):
        # SciPy's weights multiply the residual, ours its square.
        theirs = scipy.interpolate.make_lsq_spline(
            u, points, knots.numpy(), k=degree, w=None if weights is None else weights.sqrt().numpy()
        )
        fit = fit_curve(points, 10, degree, parameters=u, knots=knots, point_weights=weights)
        assert_close_relative(fit.curve.control_points, torch.from_numpy(theirs.c), SCIPY)
        assert fit.rank == 10


def test_surfaces_agree_with_scipy_axis_by_axis() -> None:
    u, v = torch.rand(30, dtype=torch.float64).sort().values, torch.rand(40, dtype=torch.float64).sort().values
    points, ku, kv = noisy(30, 40, 2), random_knots(6, 3), random_knots(7, 2)
    along = scipy.interpolate.make_lsq_spline(u, points.numpy().reshape(30, -1), ku.numpy(), k=3).c.reshape(6, 40, 2)
    both = scipy.interpolate.make_lsq_spline(v, along.transpose(1, 0, 2).reshape(40, -1), kv.numpy(), k=2).c
    expected = torch.from_numpy(both.reshape(7, 6, 2).transpose(1, 0, 2).copy())
    fit = fit_surface(points, (6, 7), (3, 2), parameters=(u, v), knots=(ku, kv))
    assert_close_relative(fit.surface.control_points, expected, SCIPY)
    # The same grid as scattered points, and with equal weights, takes other ways to the same solution.
    grid = [g.flatten() for g in torch.meshgrid(u, v, indexing="ij")]
    scattered = fit_surface(points.flatten(0, 1), (6, 7), (3, 2), parameters=grid, knots=(ku, kv))
    assert_close_relative(scattered.surface.control_points, fit.surface.control_points, SOLVERS)
    weighted = fit_surface(
        points, (6, 7), (3, 2), parameters=(u, v), knots=(ku, kv), point_weights=torch.full((30, 40), 3.0)
    )
    assert_close_relative(weighted.surface.control_points, fit.surface.control_points, SOLVERS)
    assert weighted.mse == pytest.approx(fit.mse, rel=1e-12)


def test_what_a_fit_reports_is_what_its_surface_does() -> None:
    points = noisy(20, 25, 3)
    fit = fit_surface(points, (5, 6), (3, 2))
    difference = fit.surface.grid(20, 25) - points
    assert fit.mse == pytest.approx(float(difference.square().mean()), rel=1e-12)
    assert_close_relative(fit.errors, difference.norm(dim=-1), 1e-12)
    assert fit.rms == pytest.approx(np.sqrt(3 * fit.mse), rel=1e-12)
    assert fit.max == pytest.approx(float(difference.norm(dim=-1).max()), rel=1e-12)
    assert fit.iterations == 0 and fit.converged and fit.rank == 30


def test_residuals_are_at_right_angles_to_the_splines() -> None:
    points = noisy(60, 2)
    fit = fit_curve(points, 9, periodic=True)
    basis = gd.BSplineBasis(fit.curve.knots[0], 3, periodic=True)
    left = basis.matrix(fit.parameters[0]).mT @ (fit.curve(fit.parameters[0]) - points)
    assert float(left.abs().max()) < EXACT
    # Closed: the last parameter is a step before the end.
    assert float(fit.parameters[0][-1]) == pytest.approx(59 / 60)


@pytest.mark.parametrize("wraps", [(False, False), (True, False), (True, True)])
def test_splines_are_recovered_from_their_samples(wraps: tuple[bool, bool]) -> None:
    surface = gd.NURBSSurface(noisy(7, 6, 3), degree=(3, 2), periodic=wraps)
    u, v = torch.rand(40, dtype=torch.float64), torch.linspace(0, 1, 31, dtype=torch.float64)[:30]
    fit = fit_surface(surface.grid(u, v), (7, 6), (3, 2), parameters=(u, v), periodic=wraps)
    assert_close_relative(fit.surface.control_points, surface.control_points, EXACT)
    assert fit.mse < 1e-24


def test_one_coordinate_and_interpolation() -> None:
    heights = noisy(9, 8, 1)
    fit = fit_surface(heights, (9, 8), (3, 3), knots=("averaged", "averaged"))
    assert_close_relative(fit.surface.grid(9, 8), heights, EXACT)
    # SciPy's interpolation with the same knots.
    u = np.linspace(0, 1, 9)
    curve = fit_curve(heights[:, 0], 9, knots="averaged")
    theirs = scipy.interpolate.make_interp_spline(u, heights[:, 0].numpy(), k=3, t=curve.curve.knots[0].numpy())
    assert_close_relative(curve.curve.control_points, torch.from_numpy(theirs.c), EXACT)


def test_averaged_knots_follow_the_book() -> None:
    # Piegl and Tiller, "The NURBS Book", example 9.1: u = 0, 5/17, 9/17, 14/17, 1 gives the knot 28/51.
    points = torch.tensor([[0.0, 0], [3, 4], [-1, 4], [-4, 0], [-4, -3]])
    fit = fit_curve(points, 5, 3, parameters="chord", knots="averaged")
    assert fit.parameters[0].tolist() == pytest.approx([0, 5 / 17, 9 / 17, 14 / 17, 1], abs=1e-7)
    assert float(fit.curve.knots[0][4]) == pytest.approx(28 / 51, abs=1e-7)
    assert fit.curve.control_points.dtype == torch.float32
    # Fewer control points than points: every span holds some.
    u = torch.rand(50, dtype=torch.float64).square().sort().values
    fit = fit_curve(u[:, None], 20, parameters=u, knots="averaged")
    knots = fit.curve.knots[0].unique()
    assert bool((torch.histogram(u, knots).hist > 0).all())


def test_chord_and_centripetal_parameters() -> None:
    points = torch.tensor([[0.0, 0.0], [1.0, 0.0], [1.0, 4.0], [10.0, 4.0]], dtype=torch.float64)
    for kind, steps in (("chord", [1, 4, 9]), ("centripetal", [1, 2, 3]), ("uniform", [1, 1, 1])):
        fit = fit_curve(points, 4, parameters=kind)
        assert fit.parameters[0].tolist() == pytest.approx([0, *np.cumsum(steps) / np.sum(steps)])
    # Where periodic, with the step back to the first point; a grid takes the mean of its rows.
    square = torch.tensor([[0.0, 0.0], [1.0, 0.0], [1.0, 3.0], [0.0, 3.0]])
    fit = fit_curve(square, 4, 2, parameters="chord", periodic=True)
    assert fit.parameters[0].tolist() == pytest.approx([0, 1 / 8, 4 / 8, 5 / 8])
    x, y = torch.tensor([0.0, 1, 4, 9]), torch.tensor([0.0, 3, 4, 5, 6])
    grid = torch.stack(torch.meshgrid(x, y, indexing="ij"), -1)
    at = fit_surface(grid, (4, 4), parameters="chord").parameters
    assert at[0].tolist() == pytest.approx([0, 1 / 9, 4 / 9, 1]) and at[1].tolist() == pytest.approx((y / 6).tolist())
    still = fit_curve(torch.ones(6, 2), 4, parameters="chord")
    assert still.parameters[0].tolist() == pytest.approx(np.linspace(0, 1, 6).tolist())


def test_strong_smoothing_leaves_the_line_and_the_plane() -> None:
    u = torch.linspace(0, 1, 40, dtype=torch.float64)
    points = noisy(40, 2)
    fit = fit_curve(points, 12, smoothing=1e6)
    design = torch.stack([torch.ones(40).double(), u], -1)
    line = design @ torch.linalg.lstsq(design, points).solution
    # What bending is left is of the order of 1 / smoothing.
    assert_close_relative(fit.curve(u), line, 1e-5)
    heights, v = noisy(20, 30, 1), torch.linspace(0, 1, 30, dtype=torch.float64)
    u = torch.linspace(0, 1, 20, dtype=torch.float64)
    flat = [g.flatten() for g in torch.meshgrid(u, v, indexing="ij")]
    design = torch.stack([torch.ones(600).double(), *flat], -1)
    plane = design @ torch.linalg.lstsq(design, heights.reshape(-1, 1)).solution
    grid = fit_surface(heights, (7, 8), smoothing=1e6)
    assert_close_relative(grid.surface.grid(20, 30).reshape(-1, 1), plane, 1e-4)
    scattered = fit_surface(heights.reshape(-1, 1), (7, 8), parameters=flat, smoothing=1e6)
    assert_close_relative(scattered.surface.control_points, grid.surface.control_points, 1e-8)


def test_smoothing_minimises_what_it_says() -> None:
    # A cubic Bézier curve: the integral of |C″|² by fine sums, and the minimum by a dense solve.
    u = torch.linspace(0, 1, 9, dtype=torch.float64)
    points = noisy(9, 2)
    basis = gd.BSplineBasis(torch.tensor([0.0, 0, 0, 0, 1, 1, 1, 1], dtype=torch.float64), 3)
    fine = (torch.arange(20000, dtype=torch.float64) + 0.5) / 20000
    second = basis.matrix(fine, 2)
    bending, rows = second.mT @ second / 20000, basis.matrix(u)
    expected = torch.linalg.solve(rows.mT @ rows / 9 + 0.01 * bending, rows.mT @ points / 9)
    fit = fit_curve(points, 4, smoothing=0.01)
    assert_close_relative(fit.curve.control_points, expected, 1e-7)  # of the sums
    # Fewer points than control points: smoothing fills in.
    assert fit_curve(points[:3], 8, smoothing=1e-3).rank == 8


def test_energy_of_a_known_surface() -> None:
    # S = (u², u v, v²) has |S_uu|² + 2 |S_uv|² + |S_vv|² = 4 + 2 + 4, over D = 3.
    u = torch.linspace(0, 1, 12, dtype=torch.float64)
    x, y = torch.meshgrid(u, u, indexing="ij")
    points = torch.stack([x**2, x * y, y**2], -1)
    problem = Problem(points, (u, u), (3, 2), (False, False), True)
    knots = (random_knots(6, 3), random_knots(5, 2))
    control, _ = problem.solve(knots)
    assert float(problem.energy(control, knots)) == pytest.approx(10 / 3, rel=1e-9)


def test_ends_and_tangents_are_met() -> None:
    points = noisy(30, 3)
    start, end = noisy(3), noisy(3)
    for smoothing in (0.0, 1e-3):
        fit = fit_curve(points, 8, ends="interpolate", tangents=(start, end), smoothing=smoothing)
        assert_close_relative(fit.curve(torch.tensor([0.0, 1.0])), points[[0, -1]], EXACT)
        assert_close_relative(fit.curve.derivative(torch.tensor([0.0, 1.0])), torch.stack([start, end]), EXACT)
    one = fit_curve(points, 8, tangents=(None, end))
    assert_close_relative(one.curve.derivative(torch.tensor([1.0])), end[None], EXACT)
    # The rest is least squares among what remains free: control points 2 … 5.
    free = gd.BSplineBasis(fit.curve.knots[0], 3).matrix(fit.parameters[0])[:, 2:6]
    fit = fit_curve(points, 8, ends="interpolate", tangents=(start, end))
    left = free.mT @ (fit.curve(fit.parameters[0]) - points)
    assert float(left.abs().max()) < EXACT
    grid = noisy(12, 14, 2)
    surface = fit_surface(grid, (5, 6), ends="interpolate").surface
    assert_close_relative(surface.control_points[::4, ::5], grid[::11, ::13], EXACT)


def test_few_points_for_a_tangent_are_filled_by_it() -> None:
    points = noisy(4, 2)
    fit = fit_curve(points, 5, tangents=(torch.zeros(2).double(), None))
    assert fit.mse < 1e-20 and fit.rank == 5


@pytest.mark.parametrize("how", ["plain", "smooth", "pins", "weighted", "scattered"])
def test_gradients_of_fixed_fits(how: str) -> None:
    points, u = noisy(14, 2), torch.linspace(0, 1, 14, dtype=torch.float64)
    u = torch.cat([u[:1], u[1:-1] + 0.02 * (torch.rand(12, dtype=torch.float64) - 0.5), u[-1:]])
    knots = random_knots(6, 3)
    inner = knots[4:6].clone()

    if how == "scattered":
        other = torch.rand(14, dtype=torch.float64)

        def control(p: torch.Tensor, at: torch.Tensor, k: torch.Tensor) -> torch.Tensor:
            both = (torch.cat([at[:1].detach(), at[1:-1], at[-1:].detach()]), other)
            full = (torch.cat([knots[:4], k[:1], knots[-4:]]), None)
            fit = fit_surface(p, (5, 2), (3, 1), parameters=both, knots=full, point_weights=1 + other)
            return fit.surface.control_points
    else:
        options = {
            "plain": {},
            "smooth": {"smoothing": 1e-3},
            "pins": {"ends": "interpolate", "tangents": (torch.ones(2).double(), None)},
            "weighted": {"point_weights": torch.rand(14) + 0.5},
        }[how]

        def control(p: torch.Tensor, at: torch.Tensor, k: torch.Tensor) -> torch.Tensor:
            at = torch.cat([at[:1].detach(), at[1:-1], at[-1:].detach()])
            full = torch.cat([knots[:4], k, knots[-4:]])
            return fit_curve(p, 6, 3, parameters=at, knots=full, **options).curve.control_points

    def inside(p: torch.Tensor, at: torch.Tensor, k: torch.Tensor) -> torch.Tensor:
        # Finite differences move the end parameters too, which must stay in the domain.
        held = torch.cat([u[:1], at[1:-1], u[-1:]])
        return control(p, held, k)

    assert_gradient_is_derivative(inside, [points, u, inner], 1e-6)


def test_rank_deficiency_is_told() -> None:
    # Points on a diagonal of the square: every function has some, but they cannot tell the functions apart.
    u = torch.linspace(0, 1, 50, dtype=torch.float64)
    with pytest.warns(RuntimeWarning, match=r"fit_surface: the points determine only 7 of 16 control points"):
        fit = fit_surface(noisy(50, 1), (4, 4), parameters=(u, u))
    # Products of two cubics on the diagonal are polynomials of degree 6: 7 of them.
    assert fit.rank == 7 and bool(torch.isfinite(fit.surface.control_points).all())


def test_ill_conditioned_problems_go_back_to_orthogonal_factors() -> None:
    # Points so near each other that the Gram matrix is numerically singular; the rows are not.
    u = torch.linspace(0.48, 0.52, 30, dtype=torch.float64)
    truth = noisy(5, 2)
    basis = gd.BSplineBasis(gd.splines.uniform_knots(5, 4, dtype=torch.float64), 4)
    points = basis.matrix(u) @ truth
    rows = fit_gram.ScatteredRows([basis], [u], None)
    assert fit_gram.solve(rows, points, None, torch.zeros(0, 5).double()) is None
    fit = fit_curve(points, 5, 4, parameters=u, point_weights=torch.ones(30))
    assert fit.mse < 1e-24 and fit.rank == 5


def test_dtype_and_lists() -> None:
    points = torch.rand(20, 2)
    fit = fit_curve(points, 5)
    assert fit.curve.control_points.dtype == fit.errors.dtype == fit.parameters[0].dtype == torch.float32
    double = fit_curve(points.double().numpy(), 5)
    assert double.curve.control_points.dtype == torch.float64
    assert_close_relative(fit.curve.control_points, double.curve.control_points, 1e-6)  # float32
    assert fit_curve([[0.0, 1.0], [1.0, 2.0], [2.0, 5.0]], 2, 1).mse > 0


def test_other_domains() -> None:
    knots = torch.tensor([2.0, 2, 2, 2, 5, 8, 8, 8, 8], dtype=torch.float64)
    points = noisy(20, 2)
    fit = fit_curve(points, knots=knots, control_count=5)
    assert fit.parameters[0][0] == 2 and fit.parameters[0][-1] == 8
    same = fit_curve(points, 5)
    assert_close_relative(fit.curve.control_points, same.curve.control_points, SOLVERS)
    # Unclamped: the domain is the inner part.
    unclamped = gd.splines.uniform_knots(6, 3, "unclamped", dtype=torch.float64)
    assert fit_curve(points, 6, knots=unclamped).mse == pytest.approx(fit_curve(points, 6).mse, rel=1e-9)
