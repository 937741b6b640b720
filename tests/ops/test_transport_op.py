# SPDX-License-Identifier: Apache-2.0
"""Sums of optimal transport: against SciPy, autograd, the twin; outliers, masks, threads, torch.compile, messages."""

import math

import numpy as np
import pytest
import torch
from scipy.spatial.distance import cdist
from scipy.special import logsumexp

from geodiff import ops, reference
from geodiff.native import cpu
from geodiff.ops.transport import Columns, spatial_order, times
from tests import helpers

DTYPES = (torch.float32, torch.float64)
SUMS = ("lse", "apply", "apply_gradient")


def problem(rows: int, columns: int, dim: int, dtype: torch.dtype, width: int = 2, batch: tuple[int, ...] = ()):
    """Clouds in the unit cube whose first points coincide, one column and one row left out, exponents near −7."""
    x, y = torch.rand(*batch, rows, dim, dtype=dtype), torch.rand(*batch, columns, dim, dtype=dtype)
    h, k = torch.randn(*batch, columns, dtype=dtype) - 7, torch.randn(*batch, rows, dtype=dtype)
    v = torch.randn(*batch, columns, width, dtype=dtype)
    shared = min(rows, columns, 4)
    y[..., :shared, :] = x[..., :shared, :]
    if columns > 2:
        h[..., 2] = -math.inf
    if rows > 2:
        k[..., 2] = -math.inf
    return x, y, h, k, v


def call(module, name: str, x, y, h, k, v, epsilon: float, p: int = 2) -> torch.Tensor:
    tensors = (x, y, h) if name == "lse" else (x, y, h, k, v)
    return getattr(module, name)(*tensors, epsilon, p)


def bound(dtype: torch.dtype, largest: float) -> float:
    """Exponents as large as `largest` carry a rounding of that size, which exp makes a relative error of the sum."""
    return helpers.rounding_bound(dtype, largest / 16)


@pytest.mark.usefixtures("backend")
@pytest.mark.parametrize("p", [1, 2])
@pytest.mark.parametrize("dim", [1, 2, 3, 5])
def test_against_scipy_and_autograd(dim, p):
    """The twin, too, since it is what the rest is compared with."""
    x, y, h, k, v = problem(23, 41, dim, torch.float64)
    epsilon = 0.05
    exponent = h.numpy() - cdist(x, y) ** p / epsilon
    plan = torch.from_numpy(np.exp(k[:, None].numpy() + exponent))
    at = x[:, None].clone().requires_grad_()
    difference = at - y
    cost = difference.square().sum(-1)
    if p == 1:
        cost = torch.where(cost > 0, cost, 1.0).sqrt() * (cost > 0)
    slopes = [torch.autograd.grad(cost, at, plan * v[:, e], retain_graph=True)[0][:, 0] for e in range(2)]
    wanted = {
        "lse": torch.from_numpy(logsumexp(exponent, axis=1)),
        "apply": plan @ v,
        "apply_gradient": torch.stack(slopes, 1),
    }
    for name in SUMS:
        for module in (ops, reference):
            found = call(module, name, x, y, h, k, v, epsilon, p)
            helpers.assert_close_relative(found, wanted[name], helpers.rounding_bound(torch.float64), name)


@pytest.mark.usefixtures("backend")
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", SUMS)
def test_twin(name, dtype):
    """Several tiles, the last one not full; sorted columns (1300) and unsorted ones; odd widths; both costs."""
    for dim, p, columns, width in ((1, 2, 300, 1), (2, 1, 1300, 4), (3, 2, 1300, 3), (3, 1, 257, 5), (4, 2, 1300, 2)):
        for epsilon in (1.0, 0.01, 0.001):
            x, y, h, k, v = problem(45, columns, dim, dtype, width, (2,))
            exact = call(reference, name, *(t.double() for t in (x, y, h, k, v)), epsilon, p)
            found = call(ops, name, x, y, h, k, v, epsilon, p)
            assert found.dtype == dtype
            # The terms that count in the row whose nearest column is farthest have the largest exponents.
            largest = float(reference.pair_cost(x, y, p).amin(-1).max()) / epsilon + 10
            what = f"D = {dim}, p = {p}, M = {columns}, ε = {epsilon}"
            helpers.assert_close_relative(found, exact, bound(dtype, largest), what)


@pytest.mark.usefixtures("backend")
@pytest.mark.parametrize("dtype", DTYPES)
def test_broadcast_batches(dtype):
    x, y, h, k, v = problem(7, 9, 3, dtype, batch=(2, 3))
    shared = (x[:1], y[0, 0], h, k, v[0])
    full = [t.expand(2, 3, *t.shape[t.dim() - n :]) for t, n in zip(shared, (2, 2, 1, 1, 2), strict=True)]
    for name in SUMS:
        found = call(ops, name, *shared, 0.1)
        assert torch.equal(found, call(ops, name, *full, 0.1))
        assert found.shape[:3] == (2, 3, 7)


@pytest.mark.usefixtures("backend")
def test_mixed_precision_takes_the_wider():
    x, y, h, k, v = problem(5, 6, 2, torch.float32)
    assert ops.apply(x, y.double(), h, k, v, 0.1).dtype == torch.float64
    assert ops.lse(x, y, h.double(), 0.1).dtype == torch.float64


@pytest.mark.usefixtures("backend")
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("p", [1, 2])
def test_outliers(p, dtype):
    """One point of each cloud at 10⁴ units: no NaN, no overflow; other rows do not notice, its own is right."""
    x, y, h, k, v = problem(40, 600, 3, dtype)
    x[5] = 1e4
    y[7] = -1e4
    epsilon = 1e-3
    exact = [t.double() for t in (x, y, h, k, v)]
    found = ops.lse(x, y, h, epsilon, p).double()
    distance = torch.from_numpy(cdist(*exact[:2]))
    wanted = torch.logsumexp(exact[2] - distance**p / epsilon, -1)
    assert torch.allclose(found, wanted, rtol=bound(dtype, 1.0), atol=bound(dtype, 100 / epsilon**0.5))
    for name in SUMS[1:]:
        largest = float(reference.pair_cost(x, y, p).amin(-1).median()) / epsilon + 100
        helpers.assert_close_relative(
            call(ops, name, x, y, h, k, v, epsilon, p),
            call(reference, name, *exact, epsilon, p),
            bound(dtype, largest),
            name,
        )


@pytest.mark.usefixtures("backend")
@pytest.mark.parametrize("dtype", DTYPES)
def test_far_from_the_origin(dtype):
    """Differences do not cancel: moving both clouds by a number that leaves their points exact changes no bit."""
    x, y, h, k, v = problem(20, 30, 3, dtype)
    x, y = (x * 64).round() / 64, (y * 64).round() / 64
    for name in SUMS:
        assert torch.equal(call(ops, name, x + 4096, y + 4096, h, k, v, 0.01), call(ops, name, x, y, h, k, v, 0.01))


@pytest.mark.usefixtures("backend")
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("columns", [33, 1100])
def test_points_left_out(columns, dtype):
    x, y, h, k, v = problem(9, columns, 2, dtype)
    kept = torch.arange(columns) % 3 > 0
    h = torch.where(kept, h, -math.inf)
    y_moved = torch.where(kept[:, None], y, 1e4)
    for name in SUMS:
        found = call(ops, name, x, y, h, k, v, 0.1)
        assert torch.equal(found, call(ops, name, x, y_moved, h, k, v, 0.1)) or columns > 1000
        few = call(ops, name, x, y[kept], h[kept], k, v[kept], 0.1)
        helpers.assert_close_relative(found, few, helpers.rounding_bound(dtype), name)
    assert (ops.apply(x, y, h, k, v, 0.1)[2] == 0).all()  # the row that `problem` leaves out
    none = torch.full_like(h, -math.inf)
    assert (ops.lse(x, y, none, 0.1) == -math.inf).all()
    for name in SUMS[1:]:
        assert (call(ops, name, x, y, none, k, v, 0.1) == 0).all()
        assert (call(ops, name, x, y, h, torch.full_like(k, -math.inf), v, 0.1) == 0).all()


@pytest.mark.usefixtures("backend")
@pytest.mark.parametrize("dtype", DTYPES)
def test_coincident_points_have_no_slope(dtype):
    x = torch.rand(1, 3, dtype=dtype).expand(6, 3)
    zero, one = torch.zeros(6, dtype=dtype), torch.ones(6, 1, dtype=dtype)
    for p in (1, 2):
        assert (ops.apply_gradient(x, x, zero, zero, one, 0.1, p) == 0).all()
        assert torch.equal(ops.apply(x, x, zero, zero, one, 0.1, p), torch.full((6, 1), 6.0, dtype=dtype))
    assert torch.allclose(ops.lse(x, x, zero, 0.1), zero + math.log(6), rtol=1e-6)


@pytest.mark.usefixtures("backend")
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("rows", "columns"), [(0, 5), (5, 0), (0, 0), (1, 1), (1, 5), (5, 1), (33, 2000)])
def test_sizes(rows, columns, dtype):
    x, y, h, k, v = problem(rows, columns, 3, dtype)
    for name in SUMS:
        found = call(ops, name, x, y, h, k, v, 0.5)
        wanted = call(reference, name, *(t.double() for t in (x, y, h, k, v)), 0.5)
        assert found.shape == wanted.shape
        if columns == 0:
            assert torch.equal(found.double(), wanted)
        else:
            helpers.assert_close_relative(found, wanted, bound(dtype, 20.0), name)
    assert ops.apply(x, y, h, k, v[:, :0], 0.5).shape == (rows, 0)
    assert ops.lse(x[None][:0], y, h, 0.5).shape == (0, rows)


@pytest.mark.usefixtures("backend")
@pytest.mark.parametrize("dtype", DTYPES)
def test_far_from_convergence(dtype):
    """Huge exponents are cut off, as in the twin; tiny ones are zero. Nothing overflows on the way."""
    x, y, h, k, v = problem(20, 700, 2, dtype)
    for shift in (1e3, 1e30):
        for name in SUMS[1:]:
            found = call(ops, name, x, y, h + shift, k, v, 0.1)
            wanted = call(reference, name, x, y, h + shift, k, v, 0.1)
            helpers.assert_close_relative(found, wanted, bound(dtype, 100), name)
            assert (call(ops, name, x, y, h - shift, k, v, 0.1) == 0).all()
        found = ops.lse(x, y, h + shift, 0.1)
        helpers.assert_close_relative(found, reference.lse(x, y, h + shift, 0.1), bound(dtype, 1), "lse")


@pytest.mark.usefixtures("backend")
@pytest.mark.parametrize("dtype", DTYPES)
def test_long_sums(dtype):
    """20 000 terms of nearly one size: a float32 sum in order would be wrong by 30 units in the last place."""
    x = torch.rand(3, 3, dtype=dtype)
    y, h = torch.rand(20_000, 3, dtype=dtype), torch.zeros(20_000, dtype=dtype)
    v, k = torch.rand(20_000, 1, dtype=dtype) + 1, torch.zeros(3, dtype=dtype)
    for name in SUMS:
        exact = call(reference, name, *(t.double() for t in (x, y, h, k, v)), 100.0)
        found = call(ops, name, x, y, h, k, v, 100.0)
        roundings = 4 if dtype == torch.float32 else 32  # in float64 the twin's own are among them
        helpers.assert_close_relative(found, exact, roundings * torch.finfo(dtype).eps, name)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", SUMS)
def test_same_bits_on_any_number_of_threads(name, dtype):
    tensors = problem(150, 1500, 3, dtype, 3, (2,))
    before, results = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 5):
            torch.set_num_threads(threads)
            results.append(call(ops, name, *tensors, 0.01))
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(result, results[0]) for result in results)


@pytest.mark.parametrize("dtype", DTYPES)
def test_simd_levels_agree(dtype):
    tensors = problem(20, 300, 3, dtype)
    best = cpu.simd_level()
    for name in SUMS:
        fast = call(ops, name, *tensors, 0.1)
        try:
            cpu.extension().set_simd_level("baseline")
            slow = call(ops, name, *tensors, 0.1)
        finally:
            cpu.extension().set_simd_level(best)
        helpers.assert_close_relative(fast, slow, bound(dtype, 10), name)


def test_spatial_order_keeps_neighbours_together():
    points = torch.rand(2, 2000, 3)
    order = spatial_order(points)
    assert torch.equal(order.sort(1).values, torch.arange(2000).expand(2, -1))
    path = torch.take_along_dim(points, order[..., None], 1).diff(dim=1).norm(dim=-1)
    assert path.mean() < 0.2 * points.diff(dim=1).norm(dim=-1).mean()
    assert spatial_order(torch.zeros(1, 3, 2)).tolist() == [[0, 1, 2]]
    assert spatial_order(torch.rand(2, 0, 3)).shape == (2, 0)
    assert spatial_order(torch.rand(1, 50, 40)).shape == (1, 50)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("dim", range(1, 10))
def test_spatial_order_is_by_interleaved_bits(dim: int, dtype: torch.dtype):
    """Of eight coordinates at most, the first one's bits in front; points of one cell stay as they come."""
    bits = max(30 // min(dim, 8), 1)
    cells = torch.randint(0, 2 ** min(bits, 20), (200, dim), dtype=dtype) * 2 ** (bits - min(bits, 20))
    cells[0], cells[1] = 0, 2**bits - 1  # which float32 may round up
    points = cells / (2**bits - 1)
    keys = [
        sum((c >> bit & 1) << (bit * len(row) + len(row) - 1 - i) for i, c in enumerate(row) for bit in range(bits + 1))
        for row in ((points * (2**bits - 1)).int()[:, :8]).tolist()
    ]
    assert spatial_order(points[None])[0].tolist() == sorted(range(200), key=keys.__getitem__)


@pytest.mark.usefixtures("backend")
@pytest.mark.parametrize("columns", [40, 1100])
@pytest.mark.parametrize("name", SUMS)
def test_columns_that_were_sorted_before_give_the_same_bits(name, columns):
    x, y, h, k, v = problem(9, columns, 3, torch.float32, batch=(2,))
    once = Columns(y)
    assert (once.order is None) == (columns < 1024)
    for epsilon in (0.1, 0.01):
        given = (x, h) if name == "lse" else (x, h, k, v)
        assert torch.equal(getattr(once, name)(*given, epsilon, 2), call(ops, name, x, y, h, k, v, epsilon))


def test_opcheck():
    x, y, h, k, v = problem(5, 6, 3, torch.float64, batch=(2,))
    torch.library.opcheck(torch.ops.geodiff.transport_lse, (x, y, h, 0.1, 2))
    torch.library.opcheck(torch.ops.geodiff.transport_lse, (x, y, h, 0.1, 2, True))
    torch.library.opcheck(torch.ops.geodiff.transport_apply, (x, y, h, k, v, 0.1, 1))
    torch.library.opcheck(torch.ops.geodiff.transport_apply_gradient, (x, y, h, k, v, 0.1, 2))


@pytest.mark.parametrize("name", SUMS)
def test_compile(name):
    tensors = problem(5, 6, 3, torch.float64, batch=(2,))
    compiled = torch.compile(lambda *t: call(ops, name, *t, 0.1), fullgraph=True, backend="aot_eager")
    assert torch.equal(compiled(*tensors), call(ops, name, *tensors, 0.1))


@pytest.mark.parametrize("name", SUMS)
def test_gradients_are_refused(name):
    x, *rest = problem(5, 6, 3, torch.float64)
    with pytest.raises(RuntimeError, match=r"has no gradient\. Use geodiff\.sinkhorn"):
        call(ops, name, x.requires_grad_(), *rest, 0.1).nan_to_num(0.0, 0.0, 0.0).sum().backward()


def changed(**values):
    names = ("x", "y", "h", "k", "v")
    tensors = dict(zip(names, problem(4, 5, 3, torch.float32), strict=True)) | {"epsilon": 0.1, "p": 2}
    return tensors | values


@pytest.mark.parametrize(
    ("values", "error", "message"),
    [
        ({"x": torch.zeros(4, 3).int()}, TypeError, r"`x` must be a floating tensor"),
        ({"x": [[0.0]]}, TypeError, r"`x` must be a tensor"),
        ({"x": torch.zeros(3)}, ValueError, r"`x` must be of shape \(\.\.\., N, D\)"),
        ({"x": torch.zeros(4, 0), "y": torch.zeros(5, 0)}, ValueError, r"`x` must be of one coordinate or more"),
        ({"x": torch.full((4, 3), math.nan)}, ValueError, r"`x` must be finite; got nan at index \(0, 0\)"),
        ({"y": torch.zeros(5, 2)}, ValueError, r"`y` must be of shape \(\.\.\., M, 3\).*as many coordinates"),
        ({"y": torch.full((5, 3), math.inf)}, ValueError, r"`y` must be finite"),
        ({"h": torch.zeros(4)}, ValueError, r"`h` must be of shape \(\.\.\., 5\).*One number a point of y"),
        ({"h": torch.full((5,), math.nan)}, ValueError, r"`h` must be less than infinity and not NaN"),
        ({"h": torch.full((5,), math.inf)}, ValueError, r"`h` must be less than infinity.*Only −infinity is allowed"),
        ({"k": torch.zeros(5)}, ValueError, r"`k` must be of shape \(\.\.\., 4\).*One number a point of x"),
        ({"k": torch.full((4,), math.inf)}, ValueError, r"`k` must be less than infinity"),
        ({"v": torch.zeros(5)}, ValueError, r"`v` must be of shape \(\.\.\., 5, E\).*use v\[:, None\]"),
        ({"v": torch.full((5, 2), math.nan)}, ValueError, r"`v` must be finite"),
        ({"epsilon": 0.0}, ValueError, r"`epsilon` must be positive and finite; got 0\.0"),
        ({"epsilon": math.nan}, ValueError, r"`epsilon` must be positive and finite"),
        ({"epsilon": torch.tensor(0.1)}, TypeError, r"`epsilon` must be a positive number.*float\(epsilon\)"),
        ({"epsilon": "small"}, TypeError, r"`epsilon` must be a positive number"),
        ({"p": 3}, ValueError, r"`p` must be 1 or 2; got int 3"),
        (
            {"x": torch.zeros(2, 4, 3), "y": torch.zeros(3, 5, 3)},
            ValueError,
            r"of batches that broadcast; got x \(2,\)",
        ),
        ({"y": torch.zeros(5, 3, device="meta")}, RuntimeError, r"`y` must be on cpu like x"),
    ],
)
def test_messages(values, error, message):
    with pytest.raises(error, match="^apply: .*" + message):
        ops.apply(**changed(**values))
    if not {"k", "v"} & set(values):
        rest = changed(**values)
        for name in ("k", "v"):
            del rest[name]
        with pytest.raises(error, match="^lse: .*" + message):
            ops.lse(**rest)
    with pytest.raises(error, match="^apply_gradient: .*" + message):
        ops.apply_gradient(**changed(**values))


@pytest.mark.usefixtures("backend")
@pytest.mark.parametrize("real", [torch.float32, torch.float64])
@pytest.mark.parametrize(
    "shape", [(8, 100, 130), (1, 7, 3), (2, 33, 1025), (3, 1, 700), (1, 300, 513), (2, 0, 5), (2, 5, 0)]
)
def test_products_with_stored_matrices(shape: tuple[int, int, int], real: torch.dtype) -> None:
    """In float32, rounding of the terms alone: sums of tiles are in double."""
    matrix = torch.rand(shape, dtype=real)
    v, u = torch.rand(shape[0], shape[2], dtype=real), torch.rand(shape[0], shape[1], dtype=real)
    before, found = torch.get_num_threads(), []
    try:
        for threads in (1, 3):
            torch.set_num_threads(threads)
            found.append((times(matrix, v), times(matrix.mT, u)))
    finally:
        torch.set_num_threads(before)
    for a, b, left, right in zip(*found, (matrix, matrix.mT), (v, u), strict=True):
        exact = (left.double() @ right.double()[..., None])[..., 0]
        assert torch.equal(a, b) and a.shape == exact.shape
        torch.testing.assert_close(a.double(), exact, rtol=16 * torch.finfo(real).eps, atol=0)


def test_products_of_other_shapes() -> None:
    with pytest.raises(
        ValueError, match=r"times: `v` must be torch.float32 of shape \(1, 3\); got float32 of shape \(1, 2\)"
    ):
        times(torch.ones(1, 2, 3), torch.ones(1, 2))
