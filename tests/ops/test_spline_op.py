# SPDX-License-Identifier: Apache-2.0
"""Spline kernels: against the twin and SciPy, in value and gradient; batches, threads, torch.compile, messages."""

import itertools

import numpy as np
import pytest
import torch
from scipy.interpolate import BSpline, NdBSpline

from geodiff import ops, reference
from geodiff.native import cpu
from tests import helpers

DTYPES = (torch.float32, torch.float64)


def knot_vector(count: int, degree: int, kind: str, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    """Knots with domain [0, 1]; spans at least 0.3 of a uniform one, so that rounding is not magnified much."""
    inner = count - degree - 1
    steps = (torch.rand(inner + 1, dtype=torch.float64) + 0.3).cumsum(0)
    middle = (steps / steps[-1])[:-1]
    if kind == "repeated" and inner >= 2:  # as often as it may be: P + 1 where there is room
        middle[: min(degree + 1, inner)] = 0.4
        middle = middle.sort().values
    low, high = torch.zeros(degree + 1, dtype=torch.float64), torch.ones(degree + 1, dtype=torch.float64)
    if kind == "unclamped":
        low = -torch.linspace(0.5, 0, degree + 1, dtype=torch.float64)
        high = torch.linspace(1, 1.5, degree + 1, dtype=torch.float64)
    return torch.cat([low, middle, high]).to(dtype)


def parameters_on(knots: torch.Tensor, count: int) -> torch.Tensor:
    """Parameters in [−0.1, 1.1]: random, on knots, and both ends."""
    fixed = torch.cat([knots[(knots >= 0) & (knots <= 1)].unique(), knots.new_tensor([0.0, 1.0])])
    spread = torch.rand(count, dtype=torch.float64).to(knots) * 1.2 - 0.1
    return torch.cat([fixed, spread])[:count][torch.randperm(count)]


def problem(axes: int, degree: int, kind: str, dtype: torch.dtype, dim: int, rational: bool, count: int):
    """Tensors [control points, knots…, parameters…] and the degrees: of later axes one lower each."""
    degrees = [max(degree - a, 0) for a in range(axes)]
    sizes = [p + 3 + a for a, p in enumerate(degrees)]
    control = torch.randn(*sizes, dim, dtype=dtype)
    if rational:
        control[..., -1] = control[..., -1].abs() + 0.5
    knots = [knot_vector(k, p, kind, dtype) for k, p in zip(sizes, degrees, strict=True)]
    return [control, *knots, *(parameters_on(k, count) for k in knots)], degrees


def call(module, grid: bool, degrees, **options):
    """A function of the flat list of tensors, for helpers.vjp."""
    axes = len(degrees)
    function = module.spline_grid if grid else module.spline
    return lambda control, *rest: function(control, rest[:axes], rest[axes:], degrees, **options)


def bounds(dtype: torch.dtype, degree: int) -> tuple[float, float]:
    """Extension by a tenth of the domain and narrow spans magnify rounding by some power of the degree."""
    value = helpers.rounding_bound(dtype, 4.0 ** (degree - 1))
    return value, 4 * value


@pytest.mark.usefixtures("backend")
@pytest.mark.parametrize("kind", ["clamped", "unclamped", "repeated"])
@pytest.mark.parametrize("grid", [False, True], ids=["scattered", "grid"])
@pytest.mark.parametrize("axes", [1, 2, 3])
def test_twin(axes, grid, kind):
    for degree, dtype in itertools.product(range(6 if axes == 3 else 8), DTYPES):
        rational = degree % 2 == 1
        dim = (1, 2, 3, 4, 5, 4, 3, 2)[degree] + int(rational and degree == 7)
        count = (11 if axes < 3 else 6) if grid else 75
        tensors, degrees = problem(axes, degree, kind, dtype, dim, rational, count)
        args = {"rational": rational}
        helpers.assert_same_vjp(
            call(ops, grid, degrees, **args), call(reference, grid, degrees, **args), tensors, *bounds(dtype, degree)
        )


@pytest.mark.usefixtures("backend")
@pytest.mark.parametrize("grid", [False, True], ids=["scattered", "grid"])
def test_twin_derivatives(grid):
    for degree, order in itertools.product((0, 1, 2, 3, 6), ((1, 0), (0, 2), (3, 1), (7, 0))):
        tensors, degrees = problem(2, degree, "clamped", torch.float64, 3, False, 9 if grid else 70)
        args = {"order": order}
        size = 40.0 ** min(sum(order), degree)  # divided by spans as narrow as 0.1, so often
        ours, twin = call(ops, grid, degrees, **args), call(reference, grid, degrees, **args)
        helpers.assert_same_vjp(ours, twin, tensors, *(size * b for b in bounds(torch.float64, 2)))


@pytest.mark.usefixtures("backend")
@pytest.mark.parametrize("axes", [1, 2, 3])
def test_twin_gaussian(axes):
    for degree, dtype, kind in itertools.product(range(5), DTYPES, ("clamped", "unclamped", "repeated")):
        rational = degree == 2
        tensors, degrees = problem(axes, degree, kind, dtype, 3, rational, 70 if axes < 3 else 30)
        args = {"bandwidth": [0.05, 0.2, 0.01][:axes], "rational": rational}
        value, gradient = bounds(dtype, degree + 1)
        helpers.assert_same_vjp(
            call(ops, False, degrees, **args), call(reference, False, degrees, **args), tensors, value, gradient
        )


def test_gaussian_grid_and_derivative_are_the_twins():
    tensors, degrees = problem(2, 3, "clamped", torch.float64, 3, False, 9)
    args = {"bandwidth": [0.1, 0.1], "order": [1, 0]}
    for grid in (False, True):
        ours, twin = call(ops, grid, degrees, **args), call(reference, grid, degrees, **args)
        helpers.assert_same_vjp(ours, twin, tensors, 1e-11, 1e-11)


@pytest.mark.usefixtures("backend")
def test_gaussian_signal_where_exact_is_zero():
    knots = torch.tensor([0.0, 0.5, 1.0], dtype=torch.float64, requires_grad=True)
    control = torch.tensor([[1.0], [3.0]], dtype=torch.float64)
    u = torch.tensor([0.4], dtype=torch.float64)
    exact = torch.autograd.grad(ops.spline(control, [knots], [u], [0]).sum(), knots)[0]
    assert exact.abs().max() == 0
    smooth = torch.autograd.grad(ops.spline(control, [knots], [u], [0], bandwidth=[0.1]).sum(), knots)[0]
    density = np.exp(-0.5) / (0.1 * np.sqrt(2 * np.pi))
    assert smooth[1].item() == pytest.approx(density * (1 - 3), rel=1e-14)
    assert smooth[0] == smooth[2] == 0


@pytest.mark.usefixtures("backend")
def test_basis_twin():
    for degree, order, dtype in itertools.product(range(8), (0, 1, 3), DTYPES):
        for kind in ("clamped", "unclamped", "repeated"):
            knots = knot_vector(degree + 6, degree, kind, dtype)
            u = parameters_on(knots, 70)
            span, _ = ops.basis(u, knots, degree, order)
            assert torch.equal(span, reference.find_span(knots, u, degree))
            value, gradient = (10.0**order * b for b in bounds(dtype, degree))
            helpers.assert_same_vjp(
                lambda u, k, p=degree, o=order: ops.basis(u, k, p, o)[1],
                lambda u, k, p=degree, o=order: reference.basis(u, k, p, o)[1],
                [u, knots],
                value,
                gradient,
            )


@pytest.mark.usefixtures("backend")
@pytest.mark.parametrize("degree", [0, 1, 2, 3, 5, 9, 15])
def test_scipy(degree):
    # 1e-12: what the issue asks for; the points are inside of the domain, where the basis is a convex combination.
    knots = [knot_vector(degree + 7, degree, kind) for kind in ("clamped", "repeated")]
    control = torch.randn(degree + 7, degree + 7, 3, dtype=torch.float64)
    u, v = torch.rand(2, 200, dtype=torch.float64)
    wanted = NdBSpline(tuple(k.numpy() for k in knots), control.numpy(), (degree, degree))(
        torch.stack([u, v], -1).numpy()
    )
    found = ops.spline(control, knots, [u, v], [degree, degree])
    helpers.assert_close_relative(found, torch.from_numpy(wanted), 1e-12)
    grid = ops.spline_grid(control, knots, [u, v], [degree, degree])
    helpers.assert_close_relative(grid.diagonal().T, torch.from_numpy(wanted), 1e-12)
    curve = BSpline(knots[0].numpy(), control[0].numpy(), degree)(u.numpy())
    helpers.assert_close_relative(ops.spline(control[0], knots[:1], [u], [degree]), torch.from_numpy(curve), 1e-12)


@pytest.mark.parametrize("order", [1, 2, 3])
def test_scipy_derivative(order):
    knots = knot_vector(9, 3, "clamped")
    control = torch.randn(9, 2, dtype=torch.float64)
    u = torch.rand(100, dtype=torch.float64)
    wanted = BSpline(knots.numpy(), control.numpy(), 3).derivative(order)(u.numpy())
    helpers.assert_close_relative(ops.spline(control, [knots], [u], [3], [order]), torch.from_numpy(wanted), 1e-12)


def test_degree_above_the_kernels_goes_to_the_twin():
    knots = knot_vector(20, 16, "clamped")
    u = torch.rand(5, dtype=torch.float64)
    control = torch.randn(20, 2, dtype=torch.float64)
    assert torch.equal(ops.spline(control, [knots], [u], [16]), reference.spline(control, [knots], [u], [16]))
    assert torch.equal(ops.basis(u, knots, 16)[1], reference.basis(u, knots, 16)[1])


@pytest.mark.usefixtures("backend")
@pytest.mark.parametrize("grid", [False, True], ids=["scattered", "grid"])
@pytest.mark.parametrize(
    "leads",
    [
        [(4,), (), (), (), ()],
        [(), (), (), (4,), (4,)],
        [(), (), (), (4,), ()],
        [(), (4,), (), (), ()],
        [(2, 1), (1, 3), (), (3,), (2, 3)],
        [(20,), (20,), (), (20,), ()],
        [(1, 1), (1,), (), (), ()],
    ],
    ids=str,
)
def test_batches(leads, grid):
    tensors, degrees = problem(2, 3, "clamped", torch.float64, 3, False, 7 if grid else 30)
    tensors = [t.expand(*lead, *t.shape).clone() for t, lead in zip(tensors, leads, strict=True)]
    for t in (tensors[0], tensors[3], tensors[4]):
        t += 1e-2 * torch.rand_like(t)
    ours, twin = call(ops, grid, degrees), call(reference, grid, degrees)
    helpers.assert_same_vjp(ours, twin, tensors, *bounds(torch.float64, 4))


@pytest.mark.usefixtures("backend")
@pytest.mark.parametrize("leads", [((4,), ()), ((), (4,)), ((2, 1), (3,)), ((), ()), ((1,), (1, 1))], ids=str)
def test_basis_batches(leads):
    knots = knot_vector(7, 2, "clamped").expand(*leads[0], -1).clone()
    u = torch.rand(*leads[1], 20, dtype=torch.float64)
    ours, twin = (lambda u, k, m=m: m.basis(u, k, 2)[1] for m in (ops, reference))
    helpers.assert_same_vjp(ours, twin, [u, knots], *bounds(torch.float64, 2))
    assert ops.basis(u, knots, 2)[0].shape == reference.basis(u, knots, 2)[0].shape


@pytest.mark.parametrize("grid", [False, True], ids=["scattered", "grid"])
def test_gradcheck_and_twice(grid):
    tensors, degrees = problem(2, 3, "clamped", torch.float64, 3, True, 3 if grid else 5)
    # Away from knots, where the function is smooth.
    tensors[3:] = [0.05 + 0.9 * torch.rand_like(u) for u in tensors[3:]]
    inputs = [t.requires_grad_() for t in tensors]
    function = call(ops, grid, degrees, rational=True)
    assert torch.autograd.gradcheck(function, inputs)
    assert torch.autograd.gradgradcheck(function, inputs)


def test_basis_gradcheck_and_twice():
    knots = knot_vector(6, 3, "clamped").requires_grad_()
    u = torch.rand(4, dtype=torch.float64, requires_grad=True)
    for order in (0, 1):
        assert torch.autograd.gradcheck(lambda u, k, o=order: ops.basis(u, k, 3, o)[1], (u, knots))
        assert torch.autograd.gradgradcheck(lambda u, k, o=order: ops.basis(u, k, 3, o)[1], (u, knots))


@pytest.mark.usefixtures("backend")
@pytest.mark.usefixtures("backend")
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("counts", [[511, 1100], [512, 513, 0], [1, 1025], [1700]])
def test_many_points_of_a_span(counts, dtype):
    """More than are added up at once on a GPU; what else is asked for changes no bit of a gradient."""
    spans, rows = len(counts), torch.tensor(counts)
    knots = torch.cat([torch.zeros(2), torch.arange(spans + 1.0), torch.full((2,), float(spans))]).to(dtype)
    control, given = torch.rand(spans + 2, 3, dtype=dtype), torch.repeat_interleave(torch.arange(spans), rows)
    u = (given + 0.9 * torch.rand(len(given)) + 0.05).to(dtype)[torch.randperm(len(given))]
    upstream = torch.randn(len(u), 3, dtype=dtype)
    leaves = [control.requires_grad_(), knots.requires_grad_(), u.requires_grad_()]
    found = torch.autograd.grad(ops.spline(control, [knots], [u], [2]), leaves, upstream)
    exact = [x.detach().double().requires_grad_() for x in leaves]
    value = reference.spline(exact[0], [exact[1]], [exact[2]], [2])
    wanted = torch.autograd.grad(value, exact, upstream.double())
    for got, want in zip(found, wanted, strict=True):
        helpers.assert_close_relative(got, want.to(dtype), helpers.rounding_bound(dtype, 100))
    alone = [torch.autograd.grad(ops.spline(control, [knots], [u], [2]), leaf, upstream)[0] for leaf in leaves]
    assert all(map(torch.equal, alone, found))


def test_only_what_is_asked_for():
    tensors, degrees = problem(2, 3, "clamped", torch.float64, 3, False, 40)
    for grid in (False, True):
        function = call(ops, grid, degrees)
        everything = helpers.vjp(function, tensors, torch.ones_like(function(*tensors)))
        for i, wanted in enumerate(everything):
            inputs = [t.detach().clone().requires_grad_(i == j) for j, t in enumerate(tensors)]
            (alone,) = torch.autograd.grad(function(*inputs).sum(), inputs[i])
            assert torch.equal(alone, wanted), (grid, i)


@pytest.mark.parametrize("grid", [False, True], ids=["scattered", "grid"])
@pytest.mark.parametrize("axes", [1, 2, 3])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_same_bits_on_any_number_of_threads(axes, grid, dtype):
    count = {1: 9000, 2: 300, 3: 30}[axes] if grid else 9000
    tensors, degrees = problem(axes, 3, "clamped", dtype, 4, True, count)
    function = call(ops, grid, degrees, rational=True)
    cotangent = helpers.random_cotangent(function(*tensors))
    before, results = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            results.append([function(*tensors), *helpers.vjp(function, tensors, cotangent)])
    finally:
        torch.set_num_threads(before)
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


def test_simd_levels_agree():
    names = ["baseline"] + (["v3"] if cpu.simd_level() != "baseline" else [])
    best = cpu.simd_level()
    tensors, degrees = problem(2, 3, "clamped", torch.float64, 3, False, 80)
    twins = [call(reference, grid, degrees) for grid in (False, True)]
    try:
        for name in names:
            cpu.extension().set_simd_level(name)
            for grid, twin in zip((False, True), twins, strict=True):
                helpers.assert_same_vjp(call(ops, grid, degrees), twin, tensors, *bounds(torch.float64, 3))
    finally:
        cpu.extension().set_simd_level(best)


def test_opcheck():
    tensors, degrees = problem(2, 2, "clamped", torch.float64, 3, True, 6)
    control, k0, k1, u0, u1 = (t[None].requires_grad_() for t in tensors)
    for grid in (False, True):
        args = (control, k0, k1, None, u0, u1, None, degrees, [0, 0], [], True, grid)
        torch.library.opcheck(torch.ops.geodiff.spline, args)
    torch.library.opcheck(torch.ops.geodiff.basis, (u0, k0, 2, 1))


@pytest.mark.parametrize("grid", [False, True], ids=["scattered", "grid"])
def test_compile(grid):
    tensors, degrees = problem(2, 3, "clamped", torch.float64, 3, False, 12)
    function = call(ops, grid, degrees)
    compiled = torch.compile(function, fullgraph=True, backend="aot_eager")
    cotangent = helpers.random_cotangent(function(*tensors))
    assert torch.equal(compiled(*tensors), function(*tensors))
    got, wanted = helpers.vjp(compiled, tensors, cotangent), helpers.vjp(function, tensors, cotangent)
    assert all(torch.equal(a, b) for a, b in zip(got, wanted, strict=True))


def test_compile_basis():
    knots = knot_vector(6, 3, "clamped")
    compiled = torch.compile(lambda u: ops.basis(u, knots, 3)[1], fullgraph=True, backend="aot_eager")
    u = torch.rand(9, dtype=torch.float64)
    assert torch.equal(compiled(u), ops.basis(u, knots, 3)[1])


@pytest.mark.usefixtures("backend")
@pytest.mark.parametrize("grid", [False, True], ids=["scattered", "grid"])
def test_empty(grid):
    tensors, degrees = problem(2, 3, "clamped", torch.float64, 3, False, 5)
    tensors[3:] = [u[:0] for u in tensors[3:]]
    function = call(ops, grid, degrees)
    assert function(*tensors).shape == ((0, 0, 3) if grid else (0, 3))
    leaves = [t.clone().requires_grad_() for t in tensors]
    gradients = torch.autograd.grad(function(*leaves).sum(), leaves)
    assert all(bool((g == 0).all()) for g in gradients)
    assert ops.basis(tensors[3], tensors[1], 3)[1].shape == (0, 4)


def test_mixed_precision_promotes():
    tensors, degrees = problem(1, 3, "clamped", torch.float64, 3, False, 5)
    mixed = ops.spline(tensors[0].float(), [tensors[1]], [tensors[2]], degrees)
    assert mixed.dtype == torch.float64
    assert ops.basis(tensors[2].float(), tensors[1], 3)[1].dtype == torch.float64


def test_any_knots_are_safe():
    # Knots that decrease or are all equal are refused by the classes; here they must only not leave the arrays.
    control = torch.randn(6, 6, 2, dtype=torch.float64)
    u = torch.linspace(-5, 5, 100, dtype=torch.float64)
    for knots in (torch.zeros(10), -torch.arange(10.0), 1e300 * torch.randn(10, dtype=torch.float64), torch.randn(10)):
        leaves = [control.clone().requires_grad_(), knots.double().requires_grad_(), u.clone().requires_grad_()]
        for grid, bandwidth in ((False, None), (False, [0.5, 0.5]), (True, None)):
            function = ops.spline_grid if grid else ops.spline
            value = function(leaves[0], [leaves[1]] * 2, [leaves[2]] * 2, [3, 3], bandwidth=bandwidth)
            gradients = torch.autograd.grad(value.sum(), leaves)
            assert value.shape == (*((100, 100) if grid else (100,)), 2)
            assert [g.shape for g in gradients] == [leaf.shape for leaf in leaves]


def test_before_a_repeated_first_knot_the_first_span_is_extended():
    # knots[P] = knots[P + 1]: the span P is empty, and the polynomial of the next one must be taken.
    knots = torch.tensor([-1.0, 0.0, 0.0, 1.0, 2.0, 3.0], dtype=torch.float64)
    control = torch.randn(4, 1, dtype=torch.float64)
    u = torch.tensor([-0.5], dtype=torch.float64)
    near = torch.tensor([0.2, 0.5, 0.8], dtype=torch.float64)
    line = ops.spline(control, [knots], [near], [1])[:, 0]
    slope = (line[2] - line[0]) / 0.6
    assert ops.spline(control, [knots], [u], [1]).item() == pytest.approx(float(line[0] - 0.7 * slope), rel=1e-13)


GOOD = {
    "control_points": torch.zeros(4, 5, 3),
    "knots": [torch.arange(7.0), torch.arange(8.0)],
    "parameters": [torch.ones(6), torch.ones(6)],
    "degree": [2, 2],
}
BAD = [
    ({"knots": torch.arange(7.0)}, TypeError, "`knots` must be a list or tuple"),
    ({"degree": 2}, TypeError, "`degree` must be a list or tuple"),
    ({"degree": [2]}, ValueError, "`degree` must be of length 2"),
    ({"parameters": [torch.ones(6)]}, ValueError, "`parameters` must be of length 2"),
    ({"knots": []}, ValueError, "`knots` must be one to an axis, at least one"),
    ({"degree": [2, 2.0]}, TypeError, "`degree` must be an integer"),
    ({"degree": [2, -1]}, ValueError, "`degree` must be an integer, 0 or more"),
    ({"order": [0, -1]}, ValueError, "`order` must be an integer, 0 or more"),
    ({"order": [1]}, ValueError, "`order` must be of length 2"),
    ({"bandwidth": [1.0, 0.0]}, ValueError, "`bandwidth` must be positive"),
    ({"control_points": torch.zeros(5, 3)}, ValueError, r"`control_points` must be of shape \(..., K1, K2, D\)"),
    ({"control_points": torch.zeros(4, 5, 3).half()}, TypeError, "float32 or float64"),
    ({"control_points": torch.full((4, 5, 3), torch.nan)}, ValueError, "`control_points` must be finite"),
    ({"control_points": torch.zeros(2, 5, 3)}, ValueError, "at least 3 points along axis 0, for degree 2"),
    ({"control_points": torch.zeros(4, 5, 1), "rational": True}, ValueError, "at least two coordinates"),
    ({"knots": [torch.arange(7.0), torch.arange(9.0)]}, ValueError, r"`knots\[1\]` must be of length K \+ P \+ 1 = 5"),
    ({"knots": [torch.arange(7.0), torch.tensor(1.0)]}, ValueError, r"`knots\[1\]` must be of shape"),
    ({"parameters": [torch.ones(6), torch.tensor(1.0)]}, ValueError, r"`parameters\[1\]` must be of shape"),
    ({"rational": True, "order": [1, 0]}, ValueError, "`order` must be 0 where rational"),
    (
        {"control_points": torch.zeros(2, 4, 5, 3), "knots": [torch.zeros(3, 7), torch.arange(8.0)]},
        ValueError,
        "leading axes that broadcast",
    ),
    (
        {"parameters": [torch.ones(6), torch.ones(6, device="meta")]},
        RuntimeError,
        r"`parameters\[1\]` must be on cpu like control_points",
    ),
]


@pytest.mark.parametrize(("change", "error", "match"), BAD, ids=[row[2] for row in BAD])
def test_messages(change, error, match):
    for function in (ops.spline, ops.spline_grid):
        with pytest.raises(error, match=match):
            function(**{**GOOD, **change})
    ops.spline(**GOOD)


def test_scattered_needs_as_many_parameters_an_axis():
    with pytest.raises(ValueError, match=r"as many along each axis; got 6, 7\. For all combinations, use spline_grid"):
        ops.spline(**{**GOOD, "parameters": [torch.ones(6), torch.ones(7)]})


@pytest.mark.parametrize(
    ("change", "error", "match"),
    [
        ({"parameters": 0.5}, TypeError, "`parameters` must be a tensor"),
        ({"knots": torch.arange(8)}, TypeError, "`knots` must be a floating tensor"),
        ({"knots": torch.arange(5.0)}, ValueError, "`knots` must be of at least 6 knots for degree 2"),
        ({"degree": True}, TypeError, "`degree` must be an integer"),
        ({"order": -1}, ValueError, "`order` must be an integer, 0 or more"),
        ({"knots": torch.zeros(2, 8), "parameters": torch.zeros(3, 4)}, ValueError, "leading axes that broadcast"),
    ],
    ids=lambda x: x if isinstance(x, str) else "",
)
def test_basis_messages(change, error, match):
    with pytest.raises(error, match=match):
        ops.basis(**{"parameters": torch.ones(3), "knots": torch.arange(8.0), "degree": 2, **change})
