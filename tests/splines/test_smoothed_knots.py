# SPDX-License-Identifier: Apache-2.0
"""The Gaussian mode of the knot gradient: its two definitions, its limit, and what it is good for."""

import math

import numpy as np
import pytest
import torch
from scipy.interpolate import BSpline
from scipy.stats import norm

import geodiff as gd
from geodiff import ops, reference
from tests.splines.cases import F64, inside, random_knots
from tests.splines.test_gradients import closed_form


def smoothed(knots: np.ndarray, points: np.ndarray, degree: int, u: np.ndarray, j: int, sigma: float) -> np.ndarray:
    """Return the closed form: exact + g_σ(u − u_j) (A₋(u) − A₊(u)) / m, pieces by Taylor series."""
    curve = BSpline(knots, points, degree)
    below, above = np.flatnonzero(knots < knots[j])[-1], np.flatnonzero(knots <= knots[j])[-1]

    def piece(i: int) -> np.ndarray:
        middle = (knots[i] + knots[i + 1]) / 2
        t = (u - middle)[:, None]
        return sum(curve(middle, nu=k)[None] * t**k / math.factorial(k) for k in range(degree + 1))

    exact = closed_form(knots, points, degree, u, j) if degree else np.zeros((len(u), points.shape[1]))
    density = norm.pdf(u - knots[j], scale=sigma)[:, None]
    return exact + density * (piece(below) - piece(above)) / np.sum(knots == knots[j])


def carried(knots: np.ndarray, points: np.ndarray, degree: int, u: float, j: int, sigma: float) -> np.ndarray:
    """Return the derivative that Cox–de Boor carries up from `∂N_i⁰/∂u_i = −g_σ(u − u_i)`, `∂N_i⁰/∂u_{i+1} = +g_σ`."""
    count = len(knots) - 1
    value = [float(knots[i] <= u < knots[i + 1]) for i in range(count)]
    slope = [
        (norm.pdf(u - knots[j], scale=sigma) if i + 1 == j else 0.0)
        - (norm.pdf(u - knots[j], scale=sigma) if i == j else 0.0)
        for i in range(count)
    ]
    for p in range(1, degree + 1):
        new_value, new_slope = [], []
        for i in range(count - p):
            v = s = 0.0
            width = knots[i + p] - knots[i]
            if width > 0:
                ratio = (u - knots[i]) / width
                d_ratio = (-(i == j) - ratio * ((i + p == j) - (i == j))) / width
                v += ratio * value[i]
                s += ratio * slope[i] + d_ratio * value[i]
            width = knots[i + p + 1] - knots[i + 1]
            if width > 0:
                ratio = (knots[i + p + 1] - u) / width
                d_ratio = ((i + p + 1 == j) - ratio * ((i + p + 1 == j) - (i + 1 == j))) / width
                v += ratio * value[i + 1]
                s += ratio * slope[i + 1] + d_ratio * value[i + 1]
            new_value.append(v)
            new_slope.append(s)
        value, slope = new_value, new_slope
    return np.array(slope) @ points


def gradient(evaluate, knots, points, degree, u, upstream, sigma) -> torch.Tensor:
    knots = knots.clone().requires_grad_()
    bandwidth = None if sigma is None else [sigma]
    value = evaluate(points, [knots], [u], [degree], None, False, bandwidth)
    return torch.autograd.grad(value, knots, upstream, allow_unused=True, materialize_grads=True)[0]


@pytest.mark.parametrize("evaluate", [reference.spline, ops.spline])
@pytest.mark.parametrize(("degree", "repeats"), [(0, 0), (1, 0), (2, 0), (2, 1), (3, 0), (3, 1), (3, 2), (4, 1)])
def test_it_is_its_closed_form(evaluate, degree: int, repeats: int) -> None:
    """Clamped, with simple and repeated knots up to multiplicity P; the upstream gradient random, so it is used."""
    g = torch.Generator().manual_seed(10 * degree + repeats)
    count = degree + 5
    knots = random_knots(g, count, degree, "clamped", repeats)
    points = torch.randn(count, 2, generator=g, dtype=F64)
    u = inside(g, float(knots[degree]), float(knots[count]), 60)
    upstream = torch.randn(60, 2, generator=g, dtype=F64)
    got = gradient(evaluate, knots, points, degree, u, upstream, 0.15)
    for j in range(degree + 1, count):
        expected = smoothed(knots.numpy(), points.numpy(), degree, u.numpy(), j, 0.15) * upstream.numpy()
        # Extended pieces grow like (u/span)^P before they cancel or the density damps them.
        assert abs(float(got[j]) - expected.sum()) <= 1e-11 * np.abs(expected).sum()
    doubled = gradient(evaluate, knots, points, degree, u, 2 * upstream, 0.15)
    torch.testing.assert_close(doubled, 2 * got, rtol=1e-13, atol=0)


@pytest.mark.parametrize("degree", [0, 1, 2, 3])
@pytest.mark.parametrize("kind", ["clamped", "unclamped"])
def test_it_is_what_the_recursion_carries_up(degree: int, kind: str) -> None:
    """Simple knots: the definition by the recursion itself, at one point at a time."""
    g = torch.Generator().manual_seed(degree)
    count = degree + 5
    knots = random_knots(g, count, degree, kind)
    points = torch.randn(count, 2, generator=g, dtype=F64)
    u = inside(g, float(knots[degree]), float(knots[count]), 15)
    upstream = torch.randn(15, 2, generator=g, dtype=F64)
    got = gradient(reference.spline, knots, points, degree, u, upstream, 0.2)
    # Outermost knots have a piece on one side only, which the recursion would take for a jump from nothing.
    interior = range(degree + 1, count) if kind == "clamped" else range(1, len(knots) - 1)
    for j in interior:
        rows = np.stack([carried(knots.numpy(), points.numpy(), degree, float(x), j, 0.2) for x in u])
        expected = float((rows * upstream.numpy()).sum())
        assert abs(float(got[j]) - expected) <= 1e-11 * np.abs(rows).sum()


def test_surfaces_and_grids_in_gaussian_mode() -> None:
    """The gradient of a surface is that of the curve of control points that the other parameter selects."""
    g = torch.Generator().manual_seed(2)
    ku, kv = random_knots(g, 7, 3), random_knots(g, 6, 2)
    net, weights = torch.randn(7, 6, 3, generator=g, dtype=F64), 0.5 + torch.rand(7, 6, generator=g, dtype=F64)
    u, v = inside(g, float(ku[3]), float(ku[7]), 9), inside(g, float(kv[2]), float(kv[6]), 9)
    upstream = torch.randn(9, 9, 3, generator=g, dtype=F64)
    options = {"degree": (3, 2), "knot_gradient": "gaussian", "bandwidth": (0.2, 0.1)}

    def along(grid: bool) -> list[torch.Tensor]:
        a, b = ku.clone().requires_grad_(), kv.clone().requires_grad_()
        surface = gd.NURBSSurface(net, a, b, weights, **options)
        if grid:
            value = surface.grid(u, v)
        else:
            uu, vv = torch.meshgrid(u, v, indexing="ij")
            value = surface(uu.flatten(), vv.flatten()).reshape(9, 9, 3)
        assert torch.allclose(value, surface.replace(knot_gradient="exact", bandwidth=None).grid(u, v), atol=1e-12)
        return list(torch.autograd.grad(value, (a, b), upstream))

    flat, grid = along(False), along(True)
    for one, two in zip(flat, grid, strict=True):
        torch.testing.assert_close(one, two, rtol=1e-10, atol=1e-10)
    surface = gd.NURBSSurface(net, ku, kv, weights, degree=(3, 2))
    lifted = reference.basis_matrix(v, kv, 2) @ surface.homogeneous  # (7, 9, 4): one curve a column of the grid
    total = np.zeros(7)
    for m in range(9):
        curve = lifted[:, m].numpy()
        point = BSpline(ku.numpy(), curve, 3)(u.numpy())
        for j in range(4, 7):
            d = smoothed(ku.numpy(), curve, 3, u.numpy(), j, 0.2)
            d = (d[:, :3] - d[:, 3:] * point[:, :3] / point[:, 3:]) / point[:, 3:]
            total[j] += (d * upstream[:, m].numpy()).sum()
    np.testing.assert_allclose(flat[0][4:7].numpy(), total[4:7], rtol=1e-9)


@pytest.mark.parametrize(("degree", "multiplicity"), [(1, 1), (2, 1), (3, 1), (2, 2), (3, 2), (3, 3)])
def test_it_tends_to_the_exact_one(degree: int, multiplicity: int) -> None:
    """In L1 like σ^(P − m + 1), the order to which the two pieces agree at the knot."""
    g = torch.Generator().manual_seed(degree + multiplicity)
    count = degree + 6
    knots = random_knots(g, count, degree, "clamped", multiplicity - 1)
    j = int(torch.unique_consecutive(knots, return_counts=True)[1][1:-1].argmax()) + degree + 1
    assert int((knots == knots[j]).sum()) == multiplicity
    points = torch.randn(count, 1, generator=g, dtype=F64)
    u = torch.linspace(float(knots[degree]), float(knots[count]), 20001, dtype=F64)
    exact = closed_form(knots.numpy(), points.numpy(), degree, u.numpy(), j)
    sigmas = np.array([0.02, 0.01, 0.005])
    errors = [np.abs(smoothed(knots.numpy(), points.numpy(), degree, u.numpy(), j, s) - exact).mean() for s in sigmas]
    rates = np.log2(np.array(errors[:-1]) / errors[1:])
    np.testing.assert_allclose(rates, degree - multiplicity + 1, atol=0.12)
    # And the package's own, at the smallest σ, against the same integral of the exact one.
    upstream = torch.randn(u.shape[0], 1, generator=g, dtype=F64)
    ours = gradient(ops.spline, knots, points, degree, u, upstream, 1e-4)[j]
    plain = (exact * upstream.numpy()).sum()
    assert abs(float(ours) - plain) <= 0.05 * np.abs(exact).sum()


def test_it_differs_only_near_knots() -> None:
    g = torch.Generator().manual_seed(4)
    knots, points = random_knots(g, 8, 3), torch.randn(8, 2, generator=g, dtype=F64)
    u = inside(g, float(knots[3]), float(knots[8]), 400)
    far = ((u[:, None] - knots) / 0.004).abs().min(-1).values > 9
    assert 100 < int(far.sum()) < 400
    upstream = torch.randn(400, 2, generator=g, dtype=F64)
    near_only, far_only = upstream * ~far[:, None], upstream * far[:, None]
    exact, ours = (gradient(ops.spline, knots, points, 3, u, far_only, s) for s in (None, 0.004))
    torch.testing.assert_close(ours, exact, rtol=1e-12, atol=1e-12)
    exact, ours = (gradient(ops.spline, knots, points, 3, u, near_only, s) for s in (None, 0.004))
    assert float((ours - exact)[4:8].abs().max()) > 1e-6


def test_a_step_of_degree_zero_finds_its_place() -> None:
    """Piecewise constant data: the exact gradient is zero; the smoothed one moves the knot to the jump."""
    u = torch.linspace(0, 1, 101, dtype=F64)
    target = (u >= 0.62).double()[:, None]
    levels = torch.tensor([[0.0], [1.0]], dtype=F64)
    inner = torch.tensor([0.3], dtype=F64, requires_grad=True)

    def loss(**mode) -> torch.Tensor:
        ends = torch.zeros(1, dtype=F64), torch.ones(1, dtype=F64)
        curve = gd.NURBSCurve(levels, torch.cat([ends[0], inner, ends[1]]), degree=0, **mode)
        return (curve(u) - target).square().mean()

    assert float(torch.autograd.grad(loss(), inner, allow_unused=True, materialize_grads=True)[0]) == 0
    start = float(loss().detach())
    for step in range(60):
        sigma = 0.2 * 0.93**step
        (slope,) = torch.autograd.grad(loss(knot_gradient="gaussian", bandwidth=sigma), inner)
        inner.data -= 0.1 * slope
    assert abs(float(inner.detach()) - 0.615) <= 0.01 and float(loss().detach()) < 0.02 * start


def test_a_knot_between_sparse_samples_feels_them() -> None:
    """No sample in the support of a knot's derivative: exactly zero; smoothed, a slope towards the better place."""
    # Hat functions with a fold at 0.5 that no sample's span touches.
    knots = torch.tensor([0.0, 0.0, 0.3, 0.45, 0.5, 0.55, 0.7, 1.0, 1.0], dtype=F64)
    points = torch.tensor([[0.0], [0.0], [0.0], [1.0], [0.0], [0.0], [0.0]], dtype=F64)
    u = torch.tensor([0.1, 0.25, 0.75, 0.9], dtype=F64)
    residual = torch.tensor([[0.0], [-0.4], [0.0], [0.0]], dtype=F64)
    assert float(gradient(ops.spline, knots, points, 1, u, residual, None)[4]) == 0
    slope = gradient(ops.spline, knots, points, 1, u, residual, 0.1)[4]
    wanted = smoothed(knots.numpy(), points.numpy(), 1, u.numpy(), 4, 0.1) * residual.numpy()
    assert abs(float(slope)) > 1e-2 and abs(float(slope) - wanted.sum()) < 1e-12


def test_bad_bandwidths_are_refused() -> None:
    points = torch.zeros(5, 2)
    with pytest.raises(ValueError, match=r'`bandwidth` must be given with knot_gradient="gaussian"; got None'):
        gd.NURBSCurve(points, knot_gradient="gaussian")
    with pytest.raises(ValueError, match="`bandwidth` must be left out for exact knot gradients"):
        gd.NURBSCurve(points, bandwidth=0.1)
    with pytest.raises(ValueError, match="`bandwidth` must be positive and finite; got -1"):
        gd.NURBSCurve(points, knot_gradient="gaussian", bandwidth=-1.0)
    with pytest.raises(ValueError, match="`bandwidth` must be a number, or 1 of them"):
        gd.NURBSCurve(points, knot_gradient="gaussian", bandwidth=(0.1, 0.2))
    with pytest.raises(ValueError, match=r"`knot_gradient` must be one of exact, gaussian; .*Did you mean 'gaussian'"):
        gd.NURBSCurve(points, knot_gradient="gausian")


def test_its_own_derivative_is_that_of_the_smoothed_gradient() -> None:
    """Second derivatives in Gaussian mode: differences of the first ones, for simple knots."""
    g = torch.Generator().manual_seed(8)
    knots, points = random_knots(g, 7, 3), torch.randn(7, 1, generator=g, dtype=F64)
    u = inside(g, float(knots[3]), float(knots[7]), 30)
    upstream = torch.randn(30, 1, generator=g, dtype=F64)
    leaf = knots.clone().requires_grad_()
    value = ops.spline(points, [leaf], [u], [3], None, False, [0.2])
    (first,) = torch.autograd.grad(value, leaf, upstream, create_graph=True)
    (second,) = torch.autograd.grad(first[5], leaf)
    for j in (4, 5, 6):
        step = torch.zeros_like(knots)
        step[j] = 1e-5
        ahead, behind = (gradient(ops.spline, knots + s * step, points, 3, u, upstream, 0.2)[5] for s in (1, -1))
        # Central differences of the gradient: 1e-10 of truncation, 1e-16 / 1e-5 of rounding, of terms of order 100.
        assert abs(float(second[j]) - float(ahead - behind) / 2e-5) < 1e-6 * (1 + abs(float(second[j])))
