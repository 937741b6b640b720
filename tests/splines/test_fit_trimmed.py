# SPDX-License-Identifier: Apache-2.0
"""Fits of clouds of which some is wrong: least trimmed squares."""

import itertools
import math
from typing import Any

import pytest
import torch

import geodiff as gd
from geodiff.splines.fit_linear import Problem
from geodiff.splines.fit_rounds import BORDER, Rounds
from geodiff.splines.fit_unordered import fit_cloud
from geodiff.splines.knots import uniform_knots

D = torch.float64
NOISE = 0.01


def height(xy: torch.Tensor) -> torch.Tensor:
    return 0.3 * torch.sin(3 * xy[:, :1]) * xy[:, 1:]


def outlying(share: float, where: str, seed: int, count: int = 500) -> torch.Tensor:
    """A bent square of which the first points are elsewhere: in its box, to one side, or far off."""
    draw = torch.Generator().manual_seed(seed)
    xy = 2 * torch.rand(count, 2, dtype=D, generator=draw) - 1
    points = torch.cat([xy, height(xy)], 1)
    points = points + NOISE * torch.randn(points.shape, dtype=D, generator=draw)
    wrong = int(share * count)
    even = torch.rand(wrong, 3, dtype=D, generator=draw)
    if where == "beside":
        points[:wrong, 2] += 0.2 + 0.8 * even[:, 2]
    else:
        points[:wrong] = (3.0 if where == "far" else 1.0) * (2 * even - 1)
    return points


def off(fit: Any) -> float:
    """Rms distance of the true surface from the fit."""
    grid = torch.cartesian_prod(*[torch.linspace(-0.95, 0.95, 25, dtype=D)] * 2)
    true = torch.cat([grid, height(grid)], 1)
    return float(gd.point_mesh_distance(true, fit.surface.tessellate(40, 40)).square().mean().sqrt())


@pytest.mark.parametrize(
    ("share", "where", "seed"), [(0.1, "box", 0), (0.3, "box", 1), (0.3, "beside", 2), (0.1, "far", 3), (0.3, "far", 4)]
)
def test_outliers_do_not_move_the_surface(share: float, where: str, seed: int) -> None:
    cloud = outlying(share, where, seed)
    fit = fit_cloud(cloud, (6, 6), trim=share)
    # A corner may go with the outliers: most are within half a deviation, one of these five is two off.
    assert off(fit) < 2 * NOISE
    assert off(fit_cloud(cloud, (6, 6))) > 3 * off(fit)
    assert fit.kept is not None and int(fit.kept.sum()) == round(len(cloud) * (1 - share))
    # What is left out is what is farthest, and the figures are of the rest.
    assert float(fit.errors[fit.kept].max()) <= float(fit.errors[~fit.kept].min())
    assert fit.max == float(fit.errors[fit.kept].max()) and fit.rms < 1.2 * NOISE
    assert fit.mse == pytest.approx(fit.rms**2 / 3)


def test_outliers_do_not_move_a_curve() -> None:
    for seed, order in itertools.product(range(2), ("principal", "neighbours")):
        draw = torch.Generator().manual_seed(seed)
        t = 3 * torch.rand(300, dtype=D, generator=draw)
        curve = torch.stack([t, t.sin()], -1)
        curve[:60] = torch.tensor([-1.0, -2.0]) + 5 * torch.rand(60, 2, dtype=D, generator=draw)
        fit = fit_cloud(curve, 6, order=order, trim=0.2)
        grid = torch.linspace(0.1, 2.9, 40, dtype=D)
        line = fit.curve(torch.linspace(0, 1, 2000, dtype=D))
        far = torch.cdist(torch.stack([grid, grid.sin()], -1), line).min(1).values
        assert float(far.max()) < 5e-3, (seed, order)
        plain = fit_cloud(curve, 6, order=order).curve(torch.linspace(0, 1, 2000, dtype=D))
        assert float(torch.cdist(torch.stack([grid, grid.sin()], -1), plain).min(1).values.max()) > 0.05


def test_order_units_and_place_do_not_matter() -> None:
    cloud = outlying(0.2, "beside", 5, 300)
    fit = fit_cloud(cloud, (5, 5), trim=0.2)
    other = torch.randperm(300, generator=torch.Generator().manual_seed(0))
    again = fit_cloud(cloud[other], (5, 5), trim=0.2)
    assert fit.kept is not None and again.kept is not None
    assert torch.equal(again.kept, fit.kept[other])
    assert again.rms == pytest.approx(fit.rms, rel=1e-4)
    moved = fit_cloud(1e3 * cloud + 70, (5, 5), trim=0.2)
    assert moved.rms == pytest.approx(1e3 * fit.rms, rel=1e-4)
    told: list[int] = []
    fit_cloud(cloud, (5, 5), trim=0.2, max_iterations=3, callback=lambda i, _: told.append(i))
    assert told == [1, 2, 3, 4, 5, 6]  # of both fits
    nudged = fit_cloud(
        cloud + 1e-6 * torch.randn(cloud.shape, generator=torch.Generator().manual_seed(1)), (5, 5), trim=0.2
    )
    assert nudged.rms == pytest.approx(fit.rms, rel=1e-2)


def test_weights_are_those_of_the_trimmed_mean() -> None:
    # The gradient of the relaxed trimmed mean in the squares is the weight over the number of points that count.
    cloud = torch.randn(40, 2, generator=torch.Generator().manual_seed(0), dtype=D)
    problem = Problem(cloud, (torch.linspace(0, 1, 40, dtype=D),), (3,), (False,), grid=False, smoothing=1e-6)
    rounds = Rounds(problem, (uniform_knots(6, 3, dtype=D),), [(0.0, 1.0)], trim=0.25)
    residuals = rounds.miss(rounds.first(), rounds.u, cloud)
    squares = residuals.square().sum(-1)
    rounds.choose(residuals)
    tau = BORDER * float(squares.mean())
    squares.requires_grad_()
    (slope,) = torch.autograd.grad(gd.soft.trimmed_mean(squares, 0.75, temperature=tau), squares)
    torch.testing.assert_close(rounds.omega / 40, slope, rtol=1e-9, atol=1e-12)


def test_without_outliers_little_is_lost() -> None:
    cloud = outlying(0.0, "box", 6)
    plain, trimmed = fit_cloud(cloud, (6, 6)), fit_cloud(cloud, (6, 6), trim=0.2)
    assert plain.kept is None and off(trimmed) < 2.5 * off(plain)
    # What is exact stays exact, however few points count.
    grid = torch.cartesian_prod(*[torch.linspace(-1, 1, 12, dtype=D)] * 2)
    flat = torch.cat([grid, torch.zeros(144, 1, dtype=D)], 1)
    flat[::7, 2] += 0.5
    fit = fit_cloud(flat, (4, 4), trim=0.2)
    # Corners that did not count may lie a little outside of the surface.
    assert fit.kept is not None and not bool(fit.kept[::7].any())
    assert fit.rms < 1e-6 and fit.max < 1e-5 and math.isfinite(fit.objective)


@pytest.mark.parametrize("far", [30.0, 1e7])
def test_a_lone_point_far_off_is_left_out(far: float) -> None:
    # Its lever is so long that a surface, or a curve, of least squares passes through it.
    cloud = outlying(0.0, "box", 8, 200)
    cloud[0] = far * torch.tensor([0.6, 0.0, 0.8], dtype=D)
    fit = fit_cloud(cloud, (5, 5), trim=0.05)
    assert fit.kept is not None and not bool(fit.kept[0]) and int(fit.kept.sum()) == 190
    assert off(fit) < 2 * NOISE
    t = torch.linspace(0, 3, 100, dtype=D)
    line = torch.stack([t, t.sin()], -1)
    line[50] = torch.tensor([far, far])
    curve = fit_cloud(line, 6, trim=0.05)
    assert curve.kept is not None and not bool(curve.kept[50]) and curve.rms < 2e-3


def test_what_is_kept_is_nearest_however_early_it_ends() -> None:
    for trim, rounds in ((0.2, 1), (0.29, 2), (1e-9, 1)):
        fit = fit_cloud(outlying(0.2, "beside", 1, 100), (5, 5), trim=trim, max_iterations=rounds)
        assert fit.kept is not None and int((~fit.kept).sum()) == round(100 * trim)
        assert fit.max <= float(fit.errors[~fit.kept].min() if trim > 0.1 else fit.max)
    # Where points are exact, as many are left out as anywhere.
    flat = torch.rand(60, 3, generator=torch.Generator().manual_seed(0), dtype=D) * torch.tensor([1.0, 1.0, 0.0])
    fit = fit_cloud(flat, (4, 4), trim=0.3)
    assert fit.kept is not None and int(fit.kept.sum()) == 42


def test_an_initial_surface_is_kept() -> None:
    cloud = outlying(0.2, "beside", 7)
    flat = fit_cloud(torch.cat([cloud[100:, :2], torch.full((400, 1), 0.1, dtype=D)], 1), (5, 5)).surface
    fit = fit_cloud(cloud, initial=flat, trim=0.2)
    assert torch.equal(fit.surface.knots_u, flat.knots_u) and off(fit) < 2 * NOISE


@pytest.mark.parametrize(
    ("trim", "error", "message"),
    [
        (-0.1, ValueError, r"`trim` must be .*; got -0\.1\. It is the share of the points"),
        (0.51, ValueError, r"`trim` must be .*0\.5"),
        (math.nan, ValueError, r"`trim` must be "),
        (10, ValueError, r"`trim` must be "),
        ("0.1", TypeError, r"`trim` must be a number"),
        (True, TypeError, r"`trim` must be a number"),
        (0.5, ValueError, r"`trim` must be such that 4 points are left; got 0\.5 of 6"),
    ],
)
def test_errors(trim: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match="fit_cloud: " + message):
        fit_cloud(torch.rand(6, 3), (4, 4), trim=trim)
