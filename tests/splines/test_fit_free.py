# SPDX-License-Identifier: Apache-2.0
"""Free knots and weights: known breaks, exact arcs, Bukin's table, and the reduced gradient."""

import importlib.util
import math
import pathlib
from typing import Any

import numpy as np
import pytest
import scipy.interpolate
import torch

import geodiff as gd
from geodiff.splines.fit import SplineFit, fit_curve, fit_surface
from geodiff.splines.fit_free import Reduced, Start, minimise
from geodiff.splines.fit_linear import Pin, Problem
from tests.helpers import assert_close_relative


def bukin(count: int) -> torch.Tensor:
    path = pathlib.Path(__file__).resolve().parents[1] / "benchmarks" / "bukin.py"
    spec = importlib.util.spec_from_file_location("bukin", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.bukin(count)


def scipy_mse(fit: SplineFit, points: torch.Tensor) -> float:
    """The error by SciPy's basis functions and the definition of a rational surface."""
    matrices = []
    for knots, p, count in zip(fit.surface.knots, fit.surface.degree, points.shape, strict=False):
        u = np.linspace(0, 1, count)
        matrices.append(scipy.interpolate.BSpline.design_matrix(u, knots.numpy(), p).toarray())
    control = fit.surface.control_points.numpy()
    w = np.ones(control.shape[:2]) if fit.surface.weights is None else fit.surface.weights.numpy()
    above = np.einsum("nk,ml,kl,kld->nmd", *matrices, w, control)
    below = np.einsum("nk,ml,kl->nm", *matrices, w)
    return float(((above / below[..., None] - points.numpy()) ** 2).mean())


@pytest.mark.parametrize(("count", "fixed", "free"), [(128, 19.838, 8.145), (256, 19.849, 8.11)])
def test_bukin_table(count: int, fixed: float, free: float) -> None:
    points = bukin(count)
    assert points.shape == (count, count, 3)
    fit = fit_surface(points, (8, 8), (3, 3))
    assert round(fit.mse, 3) == fixed  # the exact optimum
    moved = fit_surface(points, (8, 8), (3, 3), free_knots=True)
    # The global optima are 8.1402 and 8.1034 (differential evolution, many starts).
    assert 8.10 < moved.mse <= free and moved.converged
    assert moved.mse == pytest.approx(scipy_mse(moved, points), rel=1e-9)
    # Two knots of v meet, on the vertex of the crease.
    v = moved.surface.knots_v[4:-4]
    assert float(v[1] - v[0]) < 1e-3 and float(v[0]) == pytest.approx(0.3758, abs=1e-3)


def test_bukin_rational() -> None:
    points = bukin(128)
    # 120 steps are enough to show it; the benchmark goes on to 1.285.
    fit = fit_surface(points, (8, 8), (3, 3), free_knots=True, rational=True, max_iterations=120)
    assert fit.mse <= 2.7
    assert fit.mse == pytest.approx(scipy_mse(fit, points), rel=1e-9)
    weights = fit.surface.weights
    assert weights is not None
    assert float(weights.min()) >= 0.1 * (1 - 1e-12) and float(weights.max()) <= 10 * (1 + 1e-12)
    only = fit_surface(points, (8, 8), (3, 3), rational=True)
    assert only.mse < 8 and torch.equal(only.surface.knots_u, gd.splines.uniform_knots(8, 3, dtype=torch.float64))


def test_known_breaks_are_found() -> None:
    u = torch.linspace(0, 1, 101, dtype=torch.float64)
    corner = (u - 0.37).abs()[:, None]
    fit = fit_curve(corner, 3, 1, free_knots=True, tolerance=1e-14)
    assert float(fit.curve.knots[0][2]) == pytest.approx(0.37, abs=1e-6) and fit.mse < 1e-12
    bend = torch.where(u > 0.62, (u - 0.62) ** 3, 0.0 * u)[:, None]
    fit = fit_curve(bend, 5, 3, free_knots=True, tolerance=1e-14)
    assert float(fit.curve.knots[0][4]) == pytest.approx(0.62, abs=1e-4) and fit.mse < 1e-14


def test_a_corner_draws_two_knots_together() -> None:
    # A parabola's corner needs a double knot, which is at an infinite logit: approached, and never passed.
    u = torch.linspace(0, 1, 201, dtype=torch.float64)
    fit = fit_curve((u - 0.4).abs()[:, None], 5, 2, free_knots=True, tolerance=1e-12)
    inner = fit.curve.knots[0][3:5]
    assert inner.tolist() == pytest.approx([0.4, 0.4], abs=5e-3) and bool(inner.diff() > 0)
    assert fit.mse < 1e-3 * fit_curve((u - 0.4).abs()[:, None], 5, 2).mse


def test_an_arc_is_recovered_with_its_weights() -> None:
    half = math.sqrt(0.5)
    arc = gd.NURBSCurve(
        torch.tensor([[1.0, 0], [1, 1], [0, 1]], dtype=torch.float64),
        weights=torch.tensor([1, half, 1], dtype=torch.float64),
        degree=2,
    )
    fit = fit_curve(arc.grid(50), 3, 2, rational=True, tolerance=1e-15)
    assert fit.mse < 1e-14
    w = fit.curve.weights
    assert w is not None
    # Weights are determined up to reparametrisation w_i -> a bⁱ w_i; here the parameters fix b too.
    assert_close_relative(w / w[0], torch.tensor([1, half, 1]).double(), 1e-5)
    assert_close_relative(fit.curve(torch.rand(20)).norm(dim=-1), torch.ones(20).double(), 1e-6)


def cases() -> dict[str, tuple[Problem, Start]]:
    """Every kind of reduced problem."""
    torch.manual_seed(5)
    f64 = torch.float64
    u, v = torch.linspace(0, 1, 17, dtype=f64), torch.linspace(0, 1, 19, dtype=f64)
    grid, cloud = torch.randn(17, 19, 2, dtype=f64), torch.randn(60, 2, dtype=f64)
    ku, kv = gd.splines.uniform_knots(6, 3, dtype=f64), gd.splines.uniform_knots(5, 2, dtype=f64)
    ring = gd.splines.uniform_knots(6, 3, "periodic", dtype=f64)
    logs = 0.3 * torch.randn(6, 5, dtype=f64)
    both, plain = (True, True), (False, False)
    scattered = tuple(torch.rand(60, dtype=f64) for _ in range(2))
    omega = torch.rand(17, 19, dtype=f64) + 0.2
    corners = [Pin((0.0, 1.0), (0, 0), grid[0, -1])]
    problem = Problem(grid, (u, v), (3, 2), plain, True)
    return {
        "polynomial": (problem, Start((ku, kv), both)),
        "one axis": (problem, Start((ku, kv), (False, True))),
        "rational": (problem, Start((ku, kv), both, logs)),
        "weights only": (problem, Start((ku, kv), plain, logs)),
        "point weights": (Problem(grid, (u, v), (3, 2), plain, True, 0.0, omega), Start((ku, kv), both, logs)),
        "smooth": (Problem(grid, (u, v), (3, 2), plain, True, 1e-3), Start((ku, kv), both)),
        "pins": (Problem(grid, (u, v), (3, 2), plain, True, 0.0, None, corners), Start((ku, kv), both, logs)),
        "scattered": (Problem(cloud, scattered, (3, 2), plain, False, 1e-4), Start((ku, kv), both)),
        "scattered rational": (Problem(cloud, scattered, (3, 2), plain, False), Start((ku, kv), both, logs)),
        "periodic": (Problem(grid, (u * 0.9, v), (3, 2), (True, False), True), Start((ring, kv), both)),
    }


@pytest.mark.parametrize("name", list(cases()))
def test_the_reduced_gradient_is_that_of_differences(name: str) -> None:
    problem, start = cases()[name]
    reduced = Reduced(problem, start)
    x = reduced.initial() + 0.1 * np.random.default_rng(1).standard_normal(len(reduced.initial()))
    value, gradient = reduced.value_and_gradient(x)
    step = 1e-5
    for i in range(len(x)):
        ahead, back = (reduced.value_and_gradient(x + s * step * np.eye(len(x))[i])[0] for s in (1, -1))
        # Truncation of order step², and rounding of the value over the step.
        assert gradient[i] == pytest.approx((ahead - back) / (2 * step), abs=1e-7 * value)
    assert float(np.abs(gradient).max()) > 1e-4 * value


def test_periodic_knots_move() -> None:
    truth = torch.tensor([0.0, 0.1, 0.2, 0.3, 0.7, 1.0], dtype=torch.float64)
    curve = gd.NURBSCurve(torch.randn(5, 2, dtype=torch.float64), truth, degree=3, periodic=True)
    points = curve.grid(121)[:120]
    fit = fit_curve(points, 5, 3, periodic=True, free_knots=True)
    assert fit.mse < 0.5 * fit_curve(points, 5, 3, periodic=True).mse
    assert fit.curve.periodic == (True,) and float(fit.curve.knots[0][-1]) == 1.0


def test_starts_are_seeded_and_reported() -> None:
    u = torch.linspace(0, 1, 80, dtype=torch.float64)
    points = torch.stack([u, torch.sin(20 * u**2)], -1)

    def fit(**options: Any) -> SplineFit:
        return fit_curve(points, 9, free_knots=True, rational=True, max_iterations=12, **options)

    one, again, other = fit(starts=3, seed=4), fit(starts=3, seed=4), fit(starts=3, seed=5)
    assert one.starts == again.starts and torch.equal(one.curve.control_points, again.curve.control_points)
    assert len(one.starts) == 3 and one.objective == min(one.starts) == one.history[-1]
    assert one.starts[0] == other.starts[0] == fit().starts[0] and one.starts[1:] != other.starts[1:]
    assert all(b <= a * (1 + 1e-12) for a, b in zip(one.history, one.history[1:], strict=False))
    assert not fit().converged and "ITERATIONS" in fit().message


def test_progress_and_stopping() -> None:
    u = torch.linspace(0, 1, 60, dtype=torch.float64)
    points = torch.stack([u, torch.sin(20 * u**2)], -1)
    before = points.clone()
    seen: list[tuple[int, float]] = []
    fit = fit_curve(points, 9, free_knots=True, starts=2, callback=lambda i, f: seen.append((i, f)))
    assert [i for i, _ in seen] == list(range(1, len(seen) + 1))
    assert min(f for _, f in seen) == fit.objective

    def stop(iteration: int, objective: float) -> None:
        raise InterruptedError

    with pytest.raises(InterruptedError):
        fit_curve(points, 9, free_knots=True, callback=stop)
    assert torch.equal(points, before)


def test_nothing_to_move() -> None:
    points = torch.randn(12, 2, dtype=torch.float64)
    fit = fit_curve(points, 4, 3, free_knots=True)  # no interior knot
    assert fit.mse == pytest.approx(fit_curve(points, 4, 3).mse) and fit.converged
    exact = fit_curve(torch.zeros(12, 2), 6, free_knots=True)
    assert exact.mse == 0 and exact.message == "nothing left to improve" and exact.curve.dtype == torch.float32


def test_free_fits_with_ends_and_smoothing() -> None:
    u = torch.linspace(0, 1, 60, dtype=torch.float64)
    points = torch.stack([u, torch.sin(20 * u**2)], -1)
    fit = fit_curve(points, 9, free_knots=True, ends="interpolate")
    assert_close_relative(fit.curve(torch.tensor([0.0, 1.0])), points[[0, -1]], 1e-10)
    assert fit.mse < 0.9 * fit_curve(points, 9, ends="interpolate").mse
    smooth = fit_curve(points, 9, free_knots=True, smoothing=1e-7)
    assert fit_curve(points, 9, smoothing=1e-7).objective > smooth.objective > smooth.mse
    scattered = fit_surface(
        points.repeat(3, 1), (6, 4), parameters=(u.repeat(3), torch.rand(180)), free_knots=(True, False), smoothing=1e-6
    )
    assert scattered.iterations > 0
    assert torch.equal(scattered.surface.knots_v, gd.splines.uniform_knots(4, 3, dtype=torch.float64))


def test_what_diverges_is_told_and_changes_nothing() -> None:
    points = torch.full((20, 2), 1e200, dtype=torch.float64)
    points[::2] = -1e200
    before = points.clone()
    with pytest.raises(RuntimeError, match=r"fit_curve: the objective became inf\. Scale the points"):
        fit_curve(points, 5, free_knots=True)
    with pytest.raises(RuntimeError, match=r"fit_curve: the objective is inf\. Scale the points"):
        fit_curve(points, 5)
    assert torch.equal(points, before)


def test_outcomes_carry_the_weights_of_the_start() -> None:
    problem, start = cases()["weights only"]
    outcome = minimise(problem, start, (0.5, 2.0), 20, 1e-8)
    assert outcome.weights is not None and bool((outcome.weights >= 0.5 - 1e-12).all())
    assert outcome.objective < outcome.history[0]
