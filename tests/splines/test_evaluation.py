# SPDX-License-Identifier: Apache-2.0
"""Values and derivatives, against SciPy and geomdl, and by what must not change them."""

import geomdl.NURBS
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.interpolate import BSpline, NdBSpline

import geodiff as gd
from tests.splines.cases import EXACT, F64, inside, random_knots, random_surface


def close(actual: torch.Tensor, expected: np.ndarray | torch.Tensor, size: float = 1.0) -> None:
    expected = torch.as_tensor(expected)
    assert actual.shape == expected.shape
    error = float((actual - expected).abs().max())
    assert error <= EXACT * max(size, float(expected.abs().max())), error


@given(
    degree=st.integers(0, 7),
    spans=st.integers(1, 6),
    kind=st.sampled_from(["clamped", "unclamped"]),
    repeats=st.integers(0, 3),
    seed=st.integers(0, 2**31),
)
def test_curves_are_scipys(degree: int, spans: int, kind: str, repeats: int, seed: int) -> None:
    g = torch.Generator().manual_seed(seed)
    count = degree + spans
    knots = random_knots(g, count, degree, kind, min(repeats, degree))
    points = torch.randn(count, 2, generator=g, dtype=F64)
    curve = gd.NURBSCurve(points, knots, degree=degree)
    low, high = (float(end) for end in curve.domain[0])
    u = torch.cat([inside(g, low, high, 20), knots[(knots >= low) & (knots <= high)]])
    oracle = BSpline(knots.numpy(), points.numpy(), degree)
    for order in range(degree + 2):
        # The k-th derivative carries k divisions by knot spans, of at least 0.2: that is its size.
        size = (degree / 0.2) ** min(order, degree)
        close(curve.derivative(u, order=order), oracle(u.numpy(), nu=order), size)


@given(seed=st.integers(0, 2**31), p=st.integers(0, 5), q=st.integers(0, 5))
def test_surfaces_are_scipys(seed: int, p: int, q: int) -> None:
    g = torch.Generator().manual_seed(seed)
    knots = random_knots(g, p + 4, p, "clamped", min(p, 1)), random_knots(g, q + 3, q, "unclamped")
    net = torch.randn(p + 4, q + 3, 3, generator=g, dtype=F64)
    surface = gd.NURBSSurface(net, *knots, degree=(p, q))
    (a, b), (c, d) = ((float(low), float(high)) for low, high in surface.domain)
    u, v = inside(g, a, b, 12), inside(g, c, d, 12)
    u[:2], v[1:3] = torch.tensor([a, b], dtype=F64), torch.tensor([c, d], dtype=F64)
    oracle = NdBSpline(tuple(k.numpy() for k in knots), net.numpy(), (p, q))
    at = np.stack([u.numpy(), v.numpy()], -1)
    close(surface(u, v), oracle(at))
    nu = (min(p, 1), min(q, 2))
    close(surface.derivative(u, v, order=nu), oracle(at, nu=nu), (p / 0.2) * (q / 0.2) ** 2)
    across = np.stack(np.meshgrid(u.numpy(), v.numpy(), indexing="ij"), -1)
    close(surface.grid(u, v), oracle(across))


def test_volumes_are_scipys() -> None:
    g = torch.Generator().manual_seed(0)
    degree = (3, 2, 1)
    knots = [random_knots(g, p + 3, p) for p in degree]
    net = torch.randn(6, 5, 4, 2, generator=g, dtype=F64)
    volume = gd.NURBSVolume(net, knots, degree=degree)
    at = torch.stack([inside(g, float(a), float(b), 15) for a, b in volume.domain], -1)
    oracle = NdBSpline(tuple(k.numpy() for k in knots), net.numpy(), degree)
    close(volume(*at.unbind(-1)), oracle(at.numpy()))
    close(volume.derivative(*at.unbind(-1), order=(1, 1, 1)), oracle(at.numpy(), nu=(1, 1, 1)), 100.0)
    grid = volume.grid(at[:3, 0], at[:4, 1], at[:5, 2])
    assert grid.shape == (3, 4, 5, 2)
    close(grid[2, 3, 4], oracle([[at[2, 0], at[3, 1], at[4, 2]]])[0])


@pytest.mark.parametrize("degree", [1, 2, 3, 4, 5])
def test_rational_curves_are_geomdls(degree: int) -> None:
    g = torch.Generator().manual_seed(degree)
    count = degree + 4
    knots = random_knots(g, count, degree, "clamped", min(1, degree - 1))
    knots = (knots - knots[0]) / (knots[-1] - knots[0])
    points, weights = torch.randn(count, 3, generator=g, dtype=F64), 0.5 + torch.rand(count, generator=g, dtype=F64)
    curve = gd.NURBSCurve(points, knots, weights, degree)
    oracle = geomdl.NURBS.Curve(normalize_kv=False)
    oracle.degree = degree
    oracle.ctrlptsw = curve.homogeneous.tolist()
    oracle.knotvector = knots.tolist()
    for u in [*torch.rand(10, generator=g, dtype=F64).tolist(), 0.0, 1.0]:
        jet = np.array(oracle.derivatives(u, order=2))
        for order in range(min(degree, 2) + 1):
            close(curve.derivative(u, order=order), jet[order], (degree / 0.05) ** order)


def test_rational_surfaces_are_geomdls() -> None:
    surface = random_surface(3)
    oracle = geomdl.NURBS.Surface(normalize_kv=False)
    oracle.degree_u, oracle.degree_v = surface.degree
    oracle.set_ctrlpts(surface.homogeneous.reshape(-1, 4).tolist(), 6, 5)
    oracle.knotvector_u, oracle.knotvector_v = surface.knots_u.tolist(), surface.knots_v.tolist()
    g = torch.Generator().manual_seed(0)
    (a, b), (c, d) = surface.domain
    u, v = inside(g, float(a), float(b), 12), inside(g, float(c), float(d), 12)
    jets = surface.derivatives(u, v, order=2)
    for i in range(12):
        jet = oracle.derivatives(float(u[i]), float(v[i]), order=2)
        for (k, m), value in jets.items():
            close(value[i], np.array(jet[k][m]), 100.0)


@pytest.mark.parametrize("degree", [1, 2, 3, 5])
def test_periodic_curves_are_scipys(degree: int) -> None:
    g = torch.Generator().manual_seed(degree)
    breakpoints = (0.2 + torch.rand(7, generator=g, dtype=F64)).cumsum(0)
    points = torch.randn(6, 2, generator=g, dtype=F64)
    curve = gd.NURBSCurve(points, breakpoints, degree=degree, periodic=True)
    period = float(breakpoints[-1] - breakpoints[0])
    opened = curve.opened()
    oracle = BSpline(opened.knots[0].numpy(), opened.control_points.numpy(), degree, extrapolate="periodic")
    assert torch.equal(opened.control_points[:6], points)
    u = float(breakpoints[0]) + period * (5 * torch.rand(40, generator=g, dtype=F64) - 2)
    for order in range(degree + 1):
        close(curve.derivative(u, order=order), oracle(u.numpy(), nu=order), (degree / 0.2) ** order)
    seam = torch.stack([curve.derivative(x, order=degree - 1) for x in (breakpoints[0], breakpoints[-1])])
    close(seam[0], seam[1])


def test_a_short_period_meets_its_functions_again() -> None:
    """One function of a degree 3 over a period of one span: it is there four times, and is one everywhere."""
    basis = gd.BSplineBasis(torch.tensor([0.0, 1.0], dtype=F64), 3, periodic=True)
    close(basis.matrix(torch.rand(9, dtype=F64)), torch.ones(9, 1, dtype=F64))


@given(degree=st.integers(0, 6), seed=st.integers(0, 2**31), times=st.integers(1, 7))
def test_the_basis_sums_to_one(degree: int, seed: int, times: int) -> None:
    g = torch.Generator().manual_seed(seed)
    times = min(times, degree + 1)
    breaks = torch.rand(4, generator=g, dtype=F64).sort().values
    repeat = torch.tensor([degree + 1, times, 1, degree + 1])
    basis = gd.BSplineBasis(breaks.repeat_interleave(repeat), degree)
    u = torch.cat([breaks, inside(g, float(breaks[0]), float(breaks[3]), 20)])
    matrix = basis.matrix(u)
    assert bool((matrix >= -EXACT).all())
    close(matrix.sum(-1), torch.ones(len(u), dtype=F64))
    for order in range(1, degree + 1):
        shortest = float(breaks.diff().min())
        total = basis.matrix(u, order).sum(-1)
        assert float(total.abs().max()) <= EXACT * (degree / shortest) ** order


def test_corners_and_ends_of_a_clamped_surface() -> None:
    net = torch.randn(5, 6, 3, dtype=F64)
    surface = gd.NURBSSurface(net, weights=0.5 + torch.rand(5, 6, dtype=F64), degree=(3, 4))
    close(surface.grid(2, 2), net[::4, ::5])
    assert torch.equal(gd.NURBSSurface(net.float(), degree=(3, 4)).grid(7, 9)[::6, ::8], net.float()[::4, ::5])


def test_affine_maps_move_points_and_surface_alike() -> None:
    surface = random_surface(1)
    matrix, offset = torch.randn(3, 3, dtype=F64), torch.randn(3, dtype=F64)
    moved = surface.replace(control_points=surface.control_points @ matrix.mT + offset)
    close(moved.grid(6, 7), surface.grid(6, 7) @ matrix.mT + offset)


def test_scaling_all_weights_changes_nothing() -> None:
    surface = random_surface(2)
    scaled = surface.replace(weights=surface.weights * 7.25)
    for order in ((0, 0), (1, 0), (1, 2)):
        close(scaled.derivative(9, 8, order=order, grid=True), surface.derivative(9, 8, order=order, grid=True), 100.0)


def test_equal_weights_are_no_weights() -> None:
    surface = random_surface(4)
    plain = surface.replace(weights=None)
    close(surface.replace(weights=torch.full((6, 5), 3.0, dtype=F64)).grid(5, 5), plain.grid(5, 5))
    assert torch.equal(plain.homogeneous[..., 3], torch.ones(6, 5, dtype=F64))
    assert not plain.is_rational and surface.is_rational


def test_homogeneous_points_round_trip() -> None:
    surface = random_surface(5)
    again = gd.NURBSSurface.from_homogeneous(surface.homogeneous, surface.knots, surface.degree, outside="clamp")
    close(again.control_points, surface.control_points)
    close(again.grid(4, 4), surface.grid(4, 4))
    assert again.outside == "clamp"


def test_reparametrised_knots_give_the_same_surface() -> None:
    surface = random_surface(6)
    moved = surface.replace(knots=(3 * surface.knots_u - 2, surface.knots_v / 5))
    close(moved.grid(6, 8), surface.grid(6, 8))


@pytest.mark.parametrize("periodic", [(False, False), (True, False), (True, True)])
def test_grid_and_scattered_agree(periodic: tuple[bool, bool]) -> None:
    net, weights = torch.randn(2, 6, 5, 3, dtype=F64), 0.5 + torch.rand(2, 6, 5, dtype=F64)
    surface = gd.NURBSSurface(net, weights=weights, degree=(3, 2), periodic=periodic)
    u, v = torch.rand(4, dtype=F64), torch.rand(7, dtype=F64)
    uu, vv = (x.flatten() for x in torch.meshgrid(u, v, indexing="ij"))
    for order in ((0, 0), (0, 1), (2, 1)):
        scattered = surface.derivative(uu, vv, order=order).reshape(2, 4, 7, 3)
        close(surface.derivative(u, v, order=order, grid=True), scattered, 100.0)


def test_batches_are_loops() -> None:
    nets = torch.randn(3, 6, 5, 3, dtype=F64)
    weights = 0.5 + torch.rand(3, 6, 5, dtype=F64)
    g = torch.Generator().manual_seed(0)
    own = torch.stack([random_knots(g, 6, 3) for _ in range(3)])
    own = (own - own[:, :1]) / (own[:, -1:] - own[:, :1])
    shared = gd.splines.uniform_knots(5, 2, dtype=F64)
    batch = gd.NURBSSurface(nets, own, shared, weights, degree=(3, 2))
    assert batch.batch_shape == (3,)
    u, v = torch.rand(3, 8, dtype=F64), torch.rand(8, dtype=F64)
    for i in range(3):
        one = batch[i]
        assert one.batch_shape == () and torch.equal(one.knots_u, own[i])
        close(batch(u, v)[i], one(u[i], v))
        close(batch.grid(5, 4)[i], one.grid(5, 4))
    lone = gd.NURBSCurve(torch.randn(4, 2, dtype=F64))
    assert lone(torch.rand(2, 5, 3, dtype=F64)).shape == (2, 5, 3, 2)
    assert lone(0.25).shape == (2,)
    assert gd.NURBSCurve(torch.randn(7, 4, 2))(0.25).shape == (7, 2)


def test_one_spline_many_knot_vectors() -> None:
    """Shared control points with knots of a batch."""
    points = torch.randn(4, 2, dtype=F64)
    knots = torch.tensor([[0.0, 0, 0, 0.3, 1, 1, 1], [0.0, 0, 0, 0.6, 1, 1, 1]], dtype=F64)
    both = gd.NURBSCurve(points, knots, degree=2)
    assert both.batch_shape == (2,)
    close(both(torch.tensor([0.45], dtype=F64))[1], gd.NURBSCurve(points, knots[1], degree=2)([0.45]))


def test_outside_of_the_domain() -> None:
    g = torch.Generator().manual_seed(1)
    knots, points = random_knots(g, 6, 3), torch.randn(6, 2, generator=g, dtype=F64)
    low, high = float(knots[3]), float(knots[6])
    u = torch.tensor([low - 0.3, low, high, high + 0.2], dtype=F64)
    extended = gd.NURBSCurve(points, knots, outside="extend")
    close(extended(u), BSpline(knots.numpy(), points.numpy(), 3, extrapolate=True)(u.numpy()), 100.0)
    clamped = gd.NURBSCurve(points, knots, outside="clamp")
    close(clamped(u), clamped(torch.tensor([low, low, high, high], dtype=F64)))
    u.requires_grad_()
    clamped(u)[:, 0].sum().backward()
    assert u.grad is not None and u.grad[0] == 0 == u.grad[3]
    close(u.grad[1:3], extended.derivative(u[1:3].detach())[:, 0])
    with pytest.raises(ValueError, match=r"`u` must be in the domain .* got .* \(2 outside of 4\)"):
        gd.NURBSCurve(points, knots)(u)


def test_ends_that_rounding_moved_are_inside() -> None:
    curve = gd.NURBSCurve(torch.randn(5, 3), 0.1 + 0.7 * gd.splines.uniform_knots(5, 3))
    low, high = (float(end) for end in curve.domain[0])
    assert torch.isfinite(curve(torch.linspace(low, high, 1001, dtype=F64))).all()
    assert torch.isfinite(curve(torch.tensor([high]).nextafter(torch.tensor(10.0)))).all()


def test_precision_follows_the_widest() -> None:
    curve = gd.NURBSCurve(torch.randn(5, 3), degree=2)
    assert curve(torch.rand(4)).dtype == torch.float32
    assert curve(torch.rand(4, dtype=F64)).dtype == F64
    assert curve.to(dtype=F64)(torch.rand(4)).dtype == F64
    assert gd.NURBSCurve(torch.randn(5, 3), torch.arange(9, dtype=F64)).dtype == F64
    close(curve.to(dtype=F64)(0.1), BSpline(curve.knots[0].double(), curve.control_points.double(), 2)(0.1))


def test_degree_zero_is_piecewise_constant() -> None:
    curve = gd.NURBSCurve(torch.tensor([[1.0], [2.0], [4.0]]), torch.tensor([0.0, 1, 2, 3]), degree=0)
    assert curve(torch.tensor([0.0, 0.99, 1.0, 2.5, 3.0]))[:, 0].tolist() == [1, 1, 2, 4, 4]


def test_it_says_what_it_is() -> None:
    assert repr(random_surface(0)) == "NURBSSurface((6, 5) points in 3-D, degree (3, 2), rational)"
    text = repr(gd.NURBSCurve(torch.zeros(2, 5, 2), degree=2, periodic=True))
    assert text == "NURBSCurve(batch (2,), (5,) points in 2-D, degree (2,), polynomial, periodic (True,))"


def test_every_name_is_what_it_says() -> None:
    """A file of the room that had the name of a function would hide it once imported."""
    import pkgutil

    files = {module.name for module in pkgutil.iter_modules(gd.splines.__path__)}
    assert not files & set(gd.splines.__all__)
    for name in gd.splines.__all__:
        assert callable(getattr(gd.splines, name)), name
    assert set(gd.splines.__all__) <= set(dir(gd.splines))
    with pytest.raises(AttributeError, match="no attribute 'nurb'"):
        _ = gd.splines.nurb
