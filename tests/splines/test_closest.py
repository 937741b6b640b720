# SPDX-License-Identifier: Apache-2.0
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.autograd import gradcheck

import geodiff as gd
from geodiff.splines.closest import closest_point

F64 = torch.float64
# What Newton's method leaves where it is well-conditioned: some roundings of coordinates of size one.
EXACT = 1e-13


def circle() -> gd.NURBSCurve:
    """The unit circle from four rational quadratic arcs (Piegl and Tiller, section 7.5)."""
    square = [[1, 0], [1, 1], [0, 1], [-1, 1], [-1, 0], [-1, -1], [0, -1], [1, -1], [1, 0]]
    weights = torch.ones(9, dtype=F64)
    weights[1::2] = math.sqrt(0.5)
    knots = torch.tensor([0, 0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 4], dtype=F64)
    return gd.NURBSCurve(torch.tensor(square, dtype=F64), knots, weights, degree=2)


def sphere() -> gd.NURBSSurface:
    """The unit sphere: a half circle turned round the z axis, u from the south pole up."""
    half = torch.tensor([[0, -1], [1, -1], [1, 0], [1, 1], [0, 1]], dtype=F64)
    turn = circle()
    points = torch.cat(
        [half[:, None, :1] * turn.control_points[None], half[:, None, 1:].expand(5, 9, 1)],
        -1,
    )
    own = torch.tensor([1, math.sqrt(0.5), 1, math.sqrt(0.5), 1], dtype=F64)
    knots = torch.tensor([0, 0, 0, 1, 1, 2, 2, 2], dtype=F64)
    return gd.NURBSSurface(points, knots, turn.knots[0], own[:, None] * turn.weights, degree=(2, 2))


def bowl(dtype: torch.dtype = F64, **options) -> gd.NURBSSurface:
    """A gently bent patch over [−1, 1]², rational."""
    axis = torch.linspace(-1, 1, 6, dtype=dtype)
    x, y = torch.meshgrid(axis, axis, indexing="ij")
    weights = 1 + 0.3 * torch.sin(5 * x + y)
    return gd.NURBSSurface(torch.stack([x, y, 0.3 * x * x - 0.2 * y * y], -1), weights=weights, **options)


def brute(spline: gd.splines.NURBS, query: torch.Tensor, count: int) -> torch.Tensor:
    """The distance to the nearest of very many points."""
    points = spline.grid(*[count] * spline.axes).flatten(-spline.axes - 1, -2)
    return torch.cdist(query, points, compute_mode="donot_use_mm_for_euclid_dist").amin(-1)


def test_circle_by_closed_form() -> None:
    query = torch.randn(200, 2, dtype=F64)
    found = closest_point(circle(), query)
    assert found.converged.all()
    torch.testing.assert_close(found.distance, (query.norm(dim=-1) - 1).abs(), rtol=0, atol=EXACT)
    torch.testing.assert_close(found.points, query / query.norm(dim=-1, keepdim=True), rtol=0, atol=1e-12)
    torch.testing.assert_close(circle()(*found.parameters), found.points, rtol=0, atol=EXACT)


def test_sphere_by_closed_form() -> None:
    query = torch.randn(100, 3, dtype=F64)
    found = closest_point(sphere(), query)
    assert found.converged.all()
    torch.testing.assert_close(found.distance, (query.norm(dim=-1) - 1).abs(), rtol=0, atol=EXACT)
    torch.testing.assert_close(found.points, query / query.norm(dim=-1, keepdim=True), rtol=0, atol=1e-12)


def test_tip_of_a_cone_does_not_catch_points_beside_it() -> None:
    """Every u is the tip there; only the right one leads down. Found from the meridian: two segments in the plane."""
    cone = gd.splines.cone(1.0, 2.0, dtype=F64)
    generator = torch.Generator().manual_seed(0)
    query = 3 * torch.randn(1000, 3, dtype=F64, generator=generator)
    found = closest_point(cone, query)
    flat = torch.stack([query[:, [0, 2]].norm(dim=-1), query[:, 1]], -1)
    tip, rim, base = torch.tensor([[0.0, 1.0], [1.0, -1.0], [0.0, -1.0]], dtype=F64)

    def segment(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        along = ((flat - a) @ (b - a) / ((b - a) @ (b - a))).clamp(0, 1)[:, None]
        return (flat - a - along * (b - a)).norm(dim=-1)

    expected = torch.minimum(segment(tip, rim), segment(rim, base))
    # What is left to the samples, 0.14 apart along the side: feet that are nearly at the tip.
    side = (rim - tip) / (rim - tip).norm()
    nearly = ((flat - tip) @ side > 0) & ((flat - tip) @ side < 0.03)
    torch.testing.assert_close(found.distance[~nearly], expected[~nearly], rtol=0, atol=EXACT)


@pytest.mark.parametrize("query", [[0.0, 0, 2], [0, 0, -0.5], [0, 0, 1], [0, 0, 0]])
def test_poles_and_centre_of_a_sphere_have_finite_gradients(query) -> None:
    ball = sphere()
    at = torch.tensor([query], dtype=F64, requires_grad=True)
    net = ball.control_points.requires_grad_()
    found = closest_point(ball, at)
    assert abs(found.distance.item() - abs(at.detach().norm().item() - 1)) < EXACT
    total = sum(x.sum() for x in (*found.parameters, found.points, found.distance))
    for gradient in torch.autograd.grad(total, (at, net)):
        assert torch.isfinite(gradient).all()


def test_centre_of_a_circle_determines_no_parameter() -> None:
    query = torch.zeros(1, 2, dtype=F64, requires_grad=True)
    found = closest_point(circle(), query)
    assert abs(found.distance.item() - 1) < EXACT
    (gradient,) = torch.autograd.grad(found.parameters[0].sum(), query)
    assert torch.equal(gradient, torch.zeros_like(gradient))
    # Any of the directions from the nearest points is a subgradient of the distance.
    assert abs(torch.autograd.grad(found.distance.sum(), query)[0].norm() - 1) < EXACT


SPLINES = {
    "cubic": lambda net, w: gd.NURBSCurve(net[0], weights=None),
    "rational": lambda net, w: gd.NURBSCurve(net[0], weights=w[0]),
    "closed": lambda net, w: gd.NURBSCurve(net[0], weights=w[0], periodic=True),
    "polyline": lambda net, w: gd.NURBSCurve(net[0], degree=1),
    "closed polyline": lambda net, w: gd.NURBSCurve(net[0], degree=1, periodic=True),
    "kinks": lambda net, w: gd.NURBSCurve(net[0], torch.tensor([0, 0, 0, 0.3, 0.3, 0.6, 1, 1, 1.0]).double(), degree=2),
    "steps": lambda net, w: gd.NURBSCurve(net[0], degree=0),
    "unclamped": lambda net, w: gd.NURBSCurve(net[0], gd.splines.uniform_knots(6, 2, "unclamped").double(), degree=2),
}


@pytest.mark.parametrize("kind", SPLINES)
@given(seed=st.integers(0, 2**20))
@settings(max_examples=8)
def test_curves_by_brute_force(kind: str, seed: int) -> None:
    torch.manual_seed(seed)
    net, weights = torch.randn(6, 6, 3, dtype=F64), 0.5 + torch.rand(6, 6, dtype=F64)
    spline, query = SPLINES[kind](net, weights), 1.5 * torch.randn(40, 3, dtype=F64)
    found = closest_point(spline, query)
    dense = brute(spline, query, 4001)
    # Above the best of 4001 samples: never. Below: by no more than half their spacing, of curves some ten long.
    assert (found.distance <= dense + EXACT).all()
    assert (found.distance >= dense - 0.01).all()
    assert found.converged.all()
    u, (low, high) = found.parameters[0], spline.domain[0]
    assert ((u >= low) & (u <= high)).all()
    torch.testing.assert_close((found.points - query).norm(dim=-1), found.distance, rtol=0, atol=EXACT)


@pytest.mark.parametrize("options", [{}, {"degree": (1, 2)}, {"degree": (2, 3), "periodic": (False, True)}])
def test_surfaces_by_brute_force(options) -> None:
    spline, query = bowl(**options), torch.randn(150, 3, dtype=F64)
    found = closest_point(spline, query)
    dense = brute(spline, query, 301)
    assert (found.distance <= dense + EXACT).all()
    # The nearest sample is within a spacing, 0.01, of the foot; for a point nearly on the surface that is all.
    assert (found.distance >= dense - 0.02).all()
    assert found.converged.all()


@given(seed=st.integers(0, 2**20), axes=st.sampled_from([1, 2]), samples=st.integers(1, 4))
@settings(max_examples=15)
def test_never_farther_than_the_nearest_sample(seed: int, axes: int, samples: int) -> None:
    """However wild the spline, and however few the samples."""
    torch.manual_seed(seed)
    net = torch.randn(*[5] * axes, 3, dtype=F64)
    spline = gd.NURBSCurve(net) if axes == 1 else gd.NURBSSurface(net, degree=(2, 3))
    query = torch.randn(20, 3, dtype=F64)
    spans = [5 - p for p in spline.degrees]
    sampled = spline.grid(*[n * samples + 1 for n in spans]).flatten(0, -2)
    found = closest_point(spline, query, samples=samples, starts=1)
    assert (found.distance <= torch.cdist(query, sampled).amin(-1) + EXACT).all()


def test_points_of_a_volume_are_inverted() -> None:
    axis = torch.linspace(0, 1, 4, dtype=F64)
    box = torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij"), -1)
    volume = gd.NURBSVolume(box + 0.05 * torch.randn_like(box))
    u = torch.rand(3, 20, dtype=F64)
    found = closest_point(volume, volume(*u))
    torch.testing.assert_close(torch.stack(found.parameters), u, rtol=0, atol=1e-11)


# Gradients ------------------------------------------------------------------------------------------------------------


def parts(spline: gd.splines.NURBS, query: torch.Tensor) -> tuple[torch.Tensor, ...]:
    found = closest_point(spline, query)
    return (*found.parameters, found.points, found.distance)


def test_curve_gradients() -> None:
    """Some points have their foot inside of the domain, some at its ends, in control points, weights, knots, query."""
    net = torch.tensor([[-2.0, 0], [-1, 1], [0, -0.5], [1, 1], [2, 0]], dtype=F64, requires_grad=True)
    weights = torch.tensor([1.0, 0.8, 1.3, 1.1, 0.9], dtype=F64, requires_grad=True)
    knots = torch.tensor([0.0, 0.1, 0.2, 0.3, 0.7, 1.2, 1.3, 1.4, 1.5], dtype=F64, requires_grad=True)
    query = torch.tensor([[-0.5, 0.8], [0.4, -1], [-5, 0], [6, 1]], dtype=F64, requires_grad=True)

    def curve(net, weights, knots, query):
        return parts(gd.NURBSCurve(net, knots, weights, degree=3), query)

    u = curve(net, weights, knots, query)[0]
    assert (u[:2] > 0.3).all() and (u[:2] < 1.2).all() and u[2].item() == 0.3 and u[3].item() == 1.2
    assert gradcheck(curve, (net, weights, knots, query))


@pytest.mark.parametrize("periodic", [(False, False), (True, False)])
def test_surface_gradients(periodic) -> None:
    patch = bowl(degree=(2, 3), periodic=periodic)
    query = torch.tensor([[0.2, 0.3, 1.0], [-0.5, 0.1, -0.6], [0.3, 3, 0.2]], dtype=F64)
    # The ends of the domain move with the other knots of their multiplicity, or its clamping is lost.
    inner = [k.unique()[1:-1] for k in patch.knots]

    def surface(net, weights, query, *inner):
        knots = []
        for old, middle, p, wraps in zip(patch.knots, inner, (2, 3), periodic, strict=True):
            ends = 1 if wraps else p + 1
            knots.append(torch.cat([old[:1].expand(ends), middle, old[-1:].expand(ends)]))
        return parts(gd.NURBSSurface(net, *knots, weights, (2, 3), periodic=periodic), query)

    leaves = [x.detach().clone().requires_grad_() for x in (patch.control_points, patch.weights, query, *inner)]
    assert gradcheck(surface, leaves, fast_mode=True)


def test_a_kink_that_is_closest_keeps_its_point_and_its_knot() -> None:
    net = torch.tensor([[0.0, 0.0], [1.0, 1.0], [2.0, 0.0]], dtype=F64, requires_grad=True)
    knots = torch.tensor([0.0, 0.0, 0.4, 1.0, 1.0], dtype=F64, requires_grad=True)
    query = torch.tensor([[1.1, 3.0], [0.9, 3.0]], dtype=F64)
    found = closest_point(gd.NURBSCurve(net, knots, degree=1), query)
    torch.testing.assert_close(found.parameters[0], torch.full((2,), 0.4, dtype=F64), rtol=0, atol=1e-15)
    d_net, d_knots = torch.autograd.grad(found.parameters[0].sum(), (net, knots), retain_graph=True)
    assert torch.equal(d_net, torch.zeros_like(net))
    torch.testing.assert_close(d_knots, torch.tensor([0, 0, 2, 0, 0], dtype=F64), rtol=0, atol=1e-14)
    d_net, d_knots = torch.autograd.grad(found.distance.sum(), (net, knots))
    towards = ((net[1] - query) / (net[1] - query).norm(dim=-1, keepdim=True)).sum(0).detach()
    torch.testing.assert_close(d_net[1], towards, rtol=0, atol=1e-14)
    assert d_net[[0, 2]].abs().max() < 1e-14
    assert d_knots.abs().max() < 1e-14


def test_distance_zero_has_gradient_zero() -> None:
    patch = bowl()
    net = patch.control_points.requires_grad_()
    query = patch(torch.rand(10, dtype=F64), torch.rand(10, dtype=F64)).detach().requires_grad_()
    found = closest_point(patch, query)
    assert found.distance.max() < EXACT
    gradients = torch.autograd.grad(found.distance.sum(), (net, query))
    assert all(torch.equal(g, torch.zeros_like(g)) for g in gradients)


# Shapes, starts, errors -----------------------------------------------------------------------------------------------


def test_batches_are_their_items() -> None:
    net, knots = torch.randn(3, 6, 2, dtype=F64), gd.splines.uniform_knots(6, 3, dtype=F64).repeat(3, 1)
    knots[1, 4] = 0.2
    many = gd.NURBSCurve(net, knots)
    query = torch.randn(2, 3, 7, 2, dtype=F64)
    found = closest_point(many, query)
    assert found.parameters[0].shape == found.distance.shape == found.converged.shape == (2, 3, 7)
    for i in range(2):
        for j in range(3):
            alone = closest_point(many[j], query[i, j])
            torch.testing.assert_close(found.parameters[0][i, j], alone.parameters[0], rtol=0, atol=1e-12)
    shared = closest_point(many, query[0, 0])
    torch.testing.assert_close(shared.distance[0], found.distance[0, 0], rtol=0, atol=EXACT)
    one = closest_point(many[0], query)
    torch.testing.assert_close(one.distance[:, 0], found.distance[:, 0], rtol=0, atol=EXACT)


def test_single_precision_is_double_precision_rounded() -> None:
    patch, query = bowl(torch.float32), torch.randn(50, 3)
    found = closest_point(patch, query)
    truth = closest_point(patch.to(dtype=F64), query.double())
    assert found.distance.dtype == found.points.dtype == found.parameters[0].dtype == torch.float32
    assert torch.equal(found.distance, truth.distance.float())
    assert closest_point(patch, query.double()).points.dtype == F64


def test_a_start_finds_the_minimum_next_to_it() -> None:
    # Each side of an arch has a point of its own nearest to a query between them.
    arch = gd.NURBSCurve(torch.tensor([[-1.0, 0], [-1, 4], [1, 4], [1, 0]], dtype=F64))
    query = torch.tensor([[0.1, 0.5], [0.1, 0.5]], dtype=F64)
    found = closest_point(arch, query, start=(torch.tensor([0.1, 0.9]),))
    assert found.points[0, 0] < 0 < found.points[1, 0]
    assert found.converged.all()
    assert found.distance[1] < found.distance[0]
    anywhere = closest_point(arch, query)
    torch.testing.assert_close(anywhere.distance, found.distance[1].expand(2), rtol=0, atol=EXACT)


def test_no_points() -> None:
    assert closest_point(circle(), torch.zeros(0, 2)).distance.shape == (0,)


@pytest.mark.parametrize(
    "change, error, text",
    [
        ({"spline": "circle"}, TypeError, "`spline` must be a NURBSCurve"),
        ({"points": torch.zeros(4, 3)}, ValueError, "as many coordinates as the control points"),
        ({"points": torch.zeros(2)}, ValueError, r"`points` must be of shape \(\.\.\., N, 2\)"),
        ({"points": torch.full((1, 2), torch.nan)}, ValueError, "`points` must be finite"),
        ({"points": None}, TypeError, "`points` must be a tensor"),
        ({"start": 0.5}, ValueError, "`start` must be parameters along u"),
        ({"start": (torch.zeros(3),)}, ValueError, r"`start` must be of shape \(4,\) along each axis"),
        ({"samples": 0}, ValueError, "`samples` must be an integer of 1 or more"),
        ({"starts": 1.5}, ValueError, "`starts` must be an integer of 1 or more"),
    ],
)
def test_errors(change, error, text) -> None:
    with pytest.raises(error, match=text):
        closest_point(**{"spline": circle(), "points": torch.zeros(4, 2), **change})


def test_batches_that_do_not_broadcast() -> None:
    curves = gd.NURBSCurve(torch.randn(3, 4, 2))
    with pytest.raises(ValueError, match="`points` must be of a batch that broadcasts with the spline's"):
        closest_point(curves, torch.zeros(2, 5, 2))


def test_a_torus_in_survey_coordinates() -> None:
    # The distance from a torus of radii R and r about y is | |(ρ − R, y)| − r |, ρ the distance from the axis.
    offset = torch.tensor([5.8e6, -4.1e6, 2.2e6], dtype=torch.float64)
    torus = gd.splines.torus(1.5, 0.5, offset, dtype=torch.float64)
    points = 6 * torch.rand(600, 3, dtype=torch.float64) - 3 + offset
    found = gd.splines.closest_point(torus, points)
    local = points - offset
    ring = torch.stack([local[:, ::2].norm(dim=1) - 1.5, local[:, 1]], 1).norm(dim=1)
    assert found.converged.all()
    # Control points at 5.8e6 have digits down to 1e-9.
    assert ((found.distance - (ring - 0.5).abs()).abs() < 3e-9).all()
    assert ((found.points - points).norm(dim=1) - found.distance).abs().max() < 3e-9
