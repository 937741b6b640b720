# SPDX-License-Identifier: Apache-2.0
"""Gradients in control points, weights, parameters and knots: finite differences and closed forms."""

import numpy as np
import pytest
import torch
from scipy.interpolate import BSpline

import geodiff as gd
from geodiff import reference
from tests.splines.cases import EXACT, F64, inside, random_knots


def closed_form(knots: np.ndarray, points: np.ndarray, degree: int, u: np.ndarray, j: int) -> np.ndarray:
    """Return ∂C/∂u_j, (N, D): `−Σ_i N̄_i(u) (P_i − P_{i−1}) / (u_{i+P} − u_i)`, i = j − P … j, N̄ with u_j twice."""
    doubled = np.insert(knots, j, knots[j])
    total = np.zeros((len(u), points.shape[1]))
    for i in range(max(j - degree, 1), min(j, len(points) - 1) + 1):
        coefficients = np.zeros(len(doubled) - degree - 1)
        coefficients[i] = 1
        bump = BSpline(doubled, coefficients, degree)(u)
        total -= bump[:, None] * (points[i] - points[i - 1]) / (knots[i + degree] - knots[i])
    return total


@pytest.mark.parametrize("evaluate", [reference.spline, gd.ops.spline])
@pytest.mark.parametrize("kind", ["clamped", "unclamped"])
@pytest.mark.parametrize(("degree", "repeats"), [(1, 0), (2, 0), (3, 0), (3, 1), (4, 1), (4, 2), (5, 1), (5, 3)])
def test_knot_gradient_is_the_closed_form(evaluate, kind: str, degree: int, repeats: int) -> None:
    """Simple, double, triple and quadruple interior knots, up to multiplicity P − 1."""
    g = torch.Generator().manual_seed(degree)
    count = degree + 6
    knots = random_knots(g, count, degree, kind, repeats).requires_grad_()
    points = torch.randn(count, 2, generator=g, dtype=F64)
    u = inside(g, float(knots[degree].detach()), float(knots[count].detach()), 40)
    upstream = torch.randn(40, 2, generator=g, dtype=F64)
    value = evaluate(points, [knots], [u], [degree])
    (gradient,) = torch.autograd.grad(value, knots, upstream)
    held = knots.detach().numpy()
    interior = range(degree + 1, count)
    expected = [
        float((closed_form(held, points.numpy(), degree, u.numpy(), j) * upstream.numpy()).sum()) for j in interior
    ]
    size = max(abs(x) for x in expected)
    np.testing.assert_allclose(gradient[list(interior)].numpy(), expected, rtol=0, atol=EXACT * size)


def problem(degree: int, kind: str) -> tuple[torch.Tensor, ...]:
    g = torch.Generator().manual_seed(degree)
    q = max(degree - 1, 1)
    knots = random_knots(g, degree + 3, degree, kind), random_knots(g, q + 2, q, kind)
    net = torch.randn(degree + 3, q + 2, 3, generator=g, dtype=F64)
    weights = 0.5 + torch.rand(degree + 3, q + 2, generator=g, dtype=F64)
    ends = [(float(k[p]), float(k[-p - 1])) for k, p in zip(knots, (degree, q), strict=True)]
    u, v = (inside(g, low + 0.01, high - 0.01, 5) for low, high in ends)
    return net, weights, *knots, u, v


def surface(degree: int, *args: torch.Tensor) -> gd.NURBSSurface:
    net, weights, *knots = args
    return gd.NURBSSurface(net, *knots, weights, (degree, max(degree - 1, 1)), outside="extend")


@pytest.mark.parametrize("grid", [False, True])
@pytest.mark.parametrize("order", [(0, 0), (1, 1)])
@pytest.mark.parametrize("kind", ["clamped", "unclamped"])
@pytest.mark.parametrize("degree", [1, 2, 3, 4, 5])
def test_gradcheck(degree: int, kind: str, order: tuple[int, int], grid: bool) -> None:
    """All of it at once: control points, weights, interior knots, u and v, for values and for derivatives."""
    net, weights, knots_u, knots_v, u, v = problem(degree, kind)
    q = max(degree - 1, 1)

    def value(net, weights, inner_u, inner_v, u, v):
        a, b = knots_u.clone(), knots_v.clone()
        # Clamped ends are held together; a difference may not pull them apart.
        cut_u, cut_v = (degree + 1, q + 1) if kind == "clamped" else (0, 0)
        a[cut_u : len(a) - cut_u], b[cut_v : len(b) - cut_v] = inner_u, inner_v
        return surface(degree, net, weights, a, b).derivative(u, v, order=order, grid=grid)

    cut_u, cut_v = (degree + 1, q + 1) if kind == "clamped" else (0, 0)
    inner = knots_u[cut_u : len(knots_u) - cut_u], knots_v[cut_v : len(knots_v) - cut_v]
    inputs = [x.clone().requires_grad_() for x in (net, weights, *inner, u, v)]
    fast = degree > 2  # one random direction instead of the whole Jacobian
    if min(degree, q) > 1 or order == (0, 0):  # the derivative of a degree-1 spline jumps at the knots, not in them
        torch.autograd.gradcheck(value, inputs, fast_mode=fast, atol=1e-4 if order != (0, 0) else 1e-5)


def test_weight_gradient_has_the_right_sign() -> None:
    """Raising a weight pulls the curve towards its control point: `∂C/∂w_i = N_i (P_i − C) / W`."""
    points = torch.tensor([[0.0, 0.0], [1.0, 2.0], [2.0, 0.0]], dtype=F64)
    weights = torch.tensor([1.0, 1.7, 1.0], dtype=F64, requires_grad=True)
    curve = gd.NURBSCurve(points, weights=weights, degree=2)
    value = curve(0.4)
    (gradient,) = torch.autograd.grad(value[1], weights)
    bernstein = torch.tensor([0.36, 0.48, 0.16], dtype=F64)
    total = (bernstein * weights).sum()
    expected = bernstein * (points[:, 1] - value[1]) / total
    torch.testing.assert_close(gradient, expected.detach(), rtol=EXACT, atol=EXACT)
    assert gradient[1] > 0


@pytest.mark.parametrize("periodic", [False, True])
def test_parameter_gradient_is_the_derivative(periodic: bool) -> None:
    points, weights = torch.randn(7, 3, dtype=F64), 0.5 + torch.rand(7, dtype=F64)
    curve = gd.NURBSCurve(points, weights=weights, periodic=periodic)
    u = torch.rand(20, dtype=F64, requires_grad=True)
    jacobian = torch.stack([torch.autograd.grad(curve(u)[:, d].sum(), u)[0] for d in range(3)], -1)
    torch.testing.assert_close(jacobian, curve.derivative(u.detach()), rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("rational", [False, True])
def test_second_derivatives(rational: bool) -> None:
    net, weights, knots_u, knots_v, u, v = problem(4, "unclamped")
    if not rational:
        weights = torch.ones_like(weights)

    def value(net, weights, knots_u, u):
        return surface(4, net, weights, knots_u, knots_v)(u, v[:2])

    inputs = [x.clone().requires_grad_() for x in (net, weights, knots_u, u[:2])]
    torch.autograd.gradgradcheck(value, inputs, fast_mode=True, atol=1e-3)


def test_hessian_in_a_parameter_is_the_second_derivative() -> None:
    curve = gd.NURBSCurve(torch.randn(6, 3, dtype=F64), weights=0.5 + torch.rand(6, dtype=F64), degree=4)
    at = torch.tensor(0.37, dtype=F64)
    hessian = torch.autograd.functional.hessian(lambda u: curve(u)[1], at)
    torch.testing.assert_close(hessian, curve.derivative(at, order=2)[1], rtol=1e-10, atol=1e-10)


def test_periodic_knots_have_the_gradient_of_their_unrolled_copies() -> None:
    """The breakpoints' gradient, by finite differences; both ends move the period too."""
    breakpoints = torch.tensor([0.0, 0.7, 1.5, 2.0, 3.1, 4.0], dtype=F64)
    points = torch.randn(5, 2, dtype=F64)
    u = torch.tensor([0.1, 1.1, 2.6, 3.9], dtype=F64)

    def value(k: torch.Tensor) -> torch.Tensor:
        return gd.NURBSCurve(points, k, periodic=True)(u)

    torch.autograd.gradcheck(value, breakpoints.requires_grad_())


def test_logits_keep_knots_in_order_and_carry_the_gradient() -> None:
    knots = gd.splines.uniform_knots(9, 3, low=-1, high=3, dtype=F64)
    logits = gd.splines.knots_to_logits(knots, 3)
    torch.testing.assert_close(gd.splines.logits_to_knots(logits, 3, -1, 3), knots, rtol=EXACT, atol=EXACT)
    wild = 20 * torch.randn(6, dtype=F64)
    wild = gd.splines.logits_to_knots(wild, 3, min_fraction=0.02)
    assert float(wild[3:-3].diff().min()) >= 0.02 - EXACT and wild[0] == 0 and wild[-1] == 1
    floor = 0.05
    uneven = torch.cat([torch.zeros(3), torch.tensor([0.0, 0.2, 0.3, 1.0]), torch.ones(3)]).double()
    back = gd.splines.logits_to_knots(gd.splines.knots_to_logits(uneven, 3, floor), 3, min_fraction=floor)
    torch.testing.assert_close(back, uneven, rtol=EXACT, atol=EXACT)
    torch.autograd.gradcheck(lambda x: gd.splines.logits_to_knots(x, 2, 0.0, 2.0, 0.01), logits.requires_grad_())


def test_a_surface_fits_images_through_its_mesh() -> None:
    """The gradient of a silhouette in the control points, weights and knots is its derivative."""
    g = torch.Generator().manual_seed(0)
    grid = torch.stack(torch.meshgrid(*[torch.linspace(-1, 1, 5, dtype=F64)] * 2, indexing="ij"), -1)
    net = torch.cat([grid, 0.3 * torch.randn(5, 5, 1, generator=g, dtype=F64)], -1).requires_grad_()
    weights = (0.8 + 0.4 * torch.rand(5, 5, generator=g, dtype=F64)).requires_grad_()
    inner = torch.tensor([0.45], dtype=F64, requires_grad=True)
    camera = gd.Camera.orbit(4.0, 35, 20).to(dtype=F64)
    render = gd.Renderer(16, scale=0.03)

    def loss(net, weights, inner):
        ends = torch.zeros(4, dtype=F64), torch.ones(4, dtype=F64)
        surface = gd.NURBSSurface(net, torch.cat([ends[0], inner, ends[1]]), None, weights)
        return (render(surface.tessellate(7, 6), camera).alpha * picture).sum()

    picture = torch.randn(16, 16, generator=g, dtype=F64)
    torch.autograd.gradcheck(loss, (net, weights, inner), fast_mode=True, eps=1e-7, atol=1e-4)
