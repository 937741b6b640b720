# SPDX-License-Identifier: Apache-2.0
import itertools
import math
import warnings

import numpy as np
import pytest
import torch
from scipy.optimize import linear_sum_assignment, linprog

import geodiff as gd
from geodiff import ops
from geodiff.ops import transport
from geodiff.ops.transport import spatial_order
from geodiff.transport.costs import Streamed
from tests.helpers import assert_close_relative

DOUBLE = 1e-10  # what the issue asks of float64
COST, GRADIENT = 1e-5, 1e-4  # and of float32, relative, at ε = 0.01 and 0.001 of the costs


def costs(x: torch.Tensor, y: torch.Tensor, p: int = 2) -> torch.Tensor:
    square = (x[..., :, None, :] - y[..., None, :, :]).square().sum(-1)
    return square if p == 2 else square.sqrt()


def loop(cost, a, b, epsilon, rho=None, error=1e-13):
    """Annealed iterations with logarithms, then Newton's, in extended precision: cost, plan, f, g.

    Residuals have 64 bits; steps, which only say how fast it gets there, are solved for in double precision.
    """
    shape, pairs = (
        cost.shape[:-2],
        zip(
            cost.double().reshape(-1, *cost.shape[-2:]).numpy(),
            a.double().expand(*cost.shape[:-1]).reshape(-1, cost.shape[-2]).numpy(),
            b.double().expand(*cost.shape[:-2], cost.shape[-1]).reshape(-1, cost.shape[-1]).numpy(),
            strict=True,
        ),
    )
    items = [_loop(*(t.astype(np.longdouble) for t in item), epsilon, rho, error) for item in pairs]
    found = [torch.from_numpy(np.stack(t).astype(np.float64)) for t in zip(*items, strict=True)]
    return tuple(t.reshape((*shape, *t.shape[1:])) for t in found)


def _loop(cost, a, b, epsilon, rho, error):
    epsilon, damp = np.longdouble(epsilon), lambda e: 1 if rho is None else rho / (rho + e)
    f, g = np.zeros_like(a), np.zeros_like(b)

    def lse(z, axis):
        top = z.max(axis, keepdims=True)
        return np.log(np.exp(z - top).sum(axis)) + top.squeeze(axis)

    for level in [e for e in np.geomspace(0.3, float(epsilon), 12) if e > epsilon] + [epsilon]:
        for _ in range(20):
            f = -damp(level) * level * lse(np.log(b) + (g - cost) / level, 1)
            g = -damp(level) * level * lse(np.log(a)[:, None] + (f[:, None] - cost) / level, 0)

    def state(f, g):
        plan = np.exp((f[:, None] + g - cost) / epsilon) * a[:, None] * b
        wanted = (a, b) if rho is None else (a * np.exp(-f / rho), b * np.exp(-g / rho))
        left = np.concatenate([wanted[0] - plan.sum(1), wanted[1] - plan.sum(0)])
        return plan, wanted, left

    plan, wanted, left = state(f, g)
    for _ in range(500):
        if np.abs(left).sum() < error:
            break
        matrix = np.block([[np.diag(plan.sum(1)), plan], [plan.T, np.diag(plan.sum(0))]])
        if rho is not None:
            matrix = matrix + np.diag(np.concatenate(wanted)) * (epsilon / rho)
        scale = 1 / np.sqrt(np.diag(matrix))
        scaled = (matrix * scale[:, None] * scale).astype(np.float64)
        if rho is None:  # f up and g down changes nothing
            kernel = np.concatenate([np.ones_like(a), -np.ones_like(b)]) / scale
            scaled = scaled + np.outer(kernel, kernel).astype(np.float64) / float(kernel @ kernel)
        move = np.linalg.solve(scaled, (left * scale).astype(np.float64)) * scale * epsilon
        size = 1.0
        while size > 1e-6:
            trial = f + size * move[: len(a)], g + size * move[len(a) :]
            new = state(*trial)
            if np.abs(new[2]).sum() < np.abs(left).sum():
                f, g, (plan, wanted, left) = *trial, new
                break
            size /= 2
        f = -damp(epsilon) * epsilon * lse(np.log(b) + (g - cost) / epsilon, 1)
        g = -damp(epsilon) * epsilon * lse(np.log(a)[:, None] + (f[:, None] - cost) / epsilon, 0)
        plan, wanted, left = state(f, g)
    else:
        raise AssertionError(f"the reference did not converge: {np.abs(left).sum()}")

    def divergence(p, q):
        return (np.where(p > 0, p * np.log(np.where(p > 0, p / q, 1)), 0) - p + q).sum()

    value = (plan * np.where(plan > 0, cost, 0)).sum() + epsilon * divergence(plan, a[:, None] * b)
    if rho is not None:
        value = value + rho * (divergence(plan.sum(1), a) + divergence(plan.sum(0), b))
    return value, plan, f, g


def problem(n, m, dtype=torch.float64, batch=(), d=3):
    """Clouds in a box of diagonal 1, and weights."""
    x, y = (torch.rand(*batch, k, d, dtype=dtype) / math.sqrt(d) for k in (n, m))
    a, b = (torch.rand(*batch, k, dtype=dtype) + 0.1 for k in (n, m))
    return x, y, a / a.sum(-1, keepdim=True), b / b.sum(-1, keepdim=True)


@pytest.mark.parametrize("backend", ["dense", "streamed"])
@pytest.mark.parametrize("epsilon", [0.01, 0.001])
@pytest.mark.parametrize("p", [1, 2])
def test_accuracy(epsilon: float, backend: str, p: int) -> None:
    epsilon = epsilon if p == 2 else 5 * epsilon
    x, y, a, b = problem(30, 25, torch.float64, (2,))
    x, y = x.float(), y.float()
    cost = costs(x.double(), y.double(), p)
    value, plan, *_ = loop(cost, a, b, epsilon)
    slope = x.double()[..., :, None, :] - y.double()[..., None, :, :]
    slope = 2 * slope if p == 2 else slope / cost[..., None]
    gradient = (plan[..., None] * slope).sum(-2)
    for dtype, of_cost, of_gradient in ((torch.float32, COST, GRADIENT), (torch.float64, DOUBLE, DOUBLE)):
        here = x.to(dtype, copy=True).requires_grad_()
        ot = gd.sinkhorn(here, y.to(dtype), a.to(dtype), b.to(dtype), epsilon=epsilon, p=p, backend=backend)
        assert ot.converged.all() and ot.cost.shape == (2,)
        assert_close_relative(ot.cost, value, of_cost, "cost")
        assert_close_relative(ot.transport_cost, (plan * cost).sum((-1, -2)), of_cost, "⟨P, C⟩")
        # Entries of the plan carry the error of the potentials over ε.
        assert_close_relative(ot.plan(), plan, of_gradient, "plan")
        ot.cost.sum().backward()
        assert_close_relative(here.grad, gradient, of_gradient, "gradient")


def test_potentials_are_halves_of_the_cost() -> None:
    x, y, a, b = problem(20, 30, batch=(3,))
    value, _, f, g = loop(costs(x, y), a, b, 0.05)
    ot = gd.sinkhorn(x, y, a, b, epsilon=0.05)
    torch.testing.assert_close((a * ot.f).sum(-1), value / 2, rtol=DOUBLE, atol=0)
    torch.testing.assert_close((b * ot.g).sum(-1), value / 2, rtol=DOUBLE, atol=0)
    sums = f[..., :, None] + g[..., None, :]
    torch.testing.assert_close(ot.f[..., :, None] + ot.g[..., None, :], sums, rtol=0, atol=DOUBLE)


@pytest.mark.parametrize("backend", ["dense", "streamed"])
@pytest.mark.parametrize("p, reach", [(2, 0.3), (2, 3.0), (1, 0.5)])
def test_unbalanced(p: int, reach: float, backend: str) -> None:
    x, y, a, b = problem(20, 25)
    b = 1.5 * b
    value, plan, f, _ = loop(costs(x, y, p), a, b, 0.02, reach**p)
    ot = gd.sinkhorn(x, y, a, b, epsilon=0.02, p=p, reach=reach, backend=backend)
    assert ot.converged
    torch.testing.assert_close(ot.cost, value, rtol=DOUBLE, atol=0)
    torch.testing.assert_close(ot.plan(), plan, rtol=0, atol=DOUBLE)
    torch.testing.assert_close(ot.f, f, rtol=0, atol=DOUBLE)


def test_unbalanced_leaves_out_what_is_beyond_reach() -> None:
    x, y = torch.tensor([[0.0], [1.0]]).double(), torch.tensor([[0.0], [50.0]]).double()
    ot = gd.sinkhorn(x, y, epsilon=0.01, reach=1.0)
    assert ot.plan()[:, 1].sum() < 1e-3 < ot.plan()[:, 0].sum()


def test_two_points_have_a_closed_form() -> None:
    # Uniform weights on {0, 1} against itself, C = 1 off the diagonal: P = diag/2 · 1/(1 + e^(−1/ε)).
    epsilon = 0.3
    x = torch.tensor([[0.0], [1.0]]).double()
    stay = 0.5 / (1 + math.exp(-1 / epsilon))
    ot = gd.sinkhorn(x, x.clone(), epsilon=epsilon)
    wanted = torch.tensor([[stay, 0.5 - stay], [0.5 - stay, stay]], dtype=torch.float64)
    torch.testing.assert_close(ot.plan(), wanted, rtol=1e-12, atol=0)
    entropy = 2 * stay * math.log(4 * stay) + (1 - 2 * stay) * math.log(4 * (0.5 - stay))
    assert ot.cost.item() == pytest.approx(1 - 2 * stay + epsilon * entropy, rel=1e-12)


def test_gaussians() -> None:
    # Janati et al. (2020): of N(0, s²) and N(m, t²), with C = |x − y|² and ε: mean² + s² + t² − (ε/2)(k − 1 − log((1 +
    # k)/2)), k = √(1 + 16 s² t²/ε²). On quadrature nodes of 6 standard deviations the sums are the integrals.
    s, t, shift, epsilon = 0.3, 0.2, 0.5, 0.1
    nodes = torch.linspace(-6, 6, 121, dtype=torch.float64)
    weight = torch.exp(-nodes.square() / 2)
    weight = weight / weight.sum()
    ot = gd.sinkhorn(s * nodes[:, None], shift + t * nodes[:, None], weight, weight, epsilon=epsilon)
    k = math.sqrt(1 + 16 * s**2 * t**2 / epsilon**2)
    wanted = shift**2 + s**2 + t**2 - epsilon / 2 * (k - 1 - math.log((1 + k) / 2))
    assert ot.cost.item() == pytest.approx(wanted, rel=1e-6)  # the tails beyond 6 standard deviations


def test_small_epsilon_is_the_exact_cost() -> None:
    x, y, a, b = problem(12, 9, d=2)
    cost = costs(x, y)
    rows = np.kron(np.eye(12), np.ones(9))
    columns = np.kron(np.ones(12), np.eye(9))
    exact = linprog(cost.flatten().numpy(), A_eq=np.vstack([rows, columns]), b_eq=torch.cat([a, b]).numpy()).fun
    epsilon = 2e-4
    ot = gd.sinkhorn(x, y, a, b, epsilon=epsilon)
    # ⟨P, C⟩ lies between the exact cost and that plus ε times the largest entropy.
    assert exact - 1e-12 <= ot.transport_cost.item() <= exact + epsilon * math.log(12 * 9)


def test_argmax_is_the_assignment() -> None:
    x, y, *_ = problem(40, 40)
    wanted = linear_sum_assignment(costs(x, y).numpy())[1]
    for backend in ("dense", "streamed"):
        plan = gd.sinkhorn(x, y, epsilon=3e-4, backend=backend).lazy_plan
        assert plan.argmax().tolist() == wanted.tolist()
        assert plan.T.argmax()[wanted].tolist() == list(range(40))


@pytest.mark.parametrize("backend", ["dense", "streamed"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("away", [2.0, 100.0, 1e4])
def test_an_outlier_far_away(away: float, dtype: torch.dtype, backend: str) -> None:
    # The peers' kernels underflow here. Far away at distance R along e the outlier's row of P has the same limit.
    x, y, *_ = problem(30, 30)
    x[0] += away
    if dtype == torch.float32:
        x, y = x.float(), y.float()
    far = x.clone().requires_grad_()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore" if away > 2 and dtype == torch.float32 and backend == "streamed" else "error")
        ot = gd.sinkhorn(far, y, epsilon=0.01, backend=backend)
    gradient = torch.autograd.grad(ot.cost, far)[0]
    assert torch.isfinite(ot.plan()).all() and torch.isfinite(gradient).all()
    uniform = torch.full((30,), 1 / 30, dtype=torch.float64)
    value, plan, *_ = loop(costs(x.double(), y.double()), uniform, uniform, 0.01, error=1e-8)
    assert_close_relative(ot.cost, value, COST, "cost")
    if backend == "dense" or dtype == torch.float64:  # streamed in float32, the costs of the outlier are rounded
        assert_close_relative(ot.plan(), plan, GRADIENT, "plan")


def test_masks_are_the_smaller_clouds() -> None:
    x, y, *_ = problem(9, 8, batch=(3,))
    mask_x, mask_y = torch.arange(9) < torch.tensor([[9], [4], [6]]), torch.arange(8) < torch.tensor([[3], [8], [5]])
    for covered in (0.0, torch.nan):
        padded = torch.where(mask_x[..., None], x, covered).requires_grad_()
        for backend in ("dense", "streamed"):
            ot = gd.sinkhorn(padded, y, epsilon=0.05, mask_x=mask_x, mask_y=mask_y, backend=backend)
            (gradient,) = torch.autograd.grad(ot.cost.sum() + ot.plan().square().sum(), padded)
            for i in range(3):
                small = x[i, mask_x[i]].requires_grad_()
                alone = gd.sinkhorn(small, y[i, mask_y[i]], epsilon=0.05)
                torch.testing.assert_close(ot.cost[i], alone.cost, rtol=DOUBLE, atol=0)
                torch.testing.assert_close(ot.f[i, mask_x[i]], alone.f, rtol=0, atol=DOUBLE)
                torch.testing.assert_close(ot.plan()[i][mask_x[i]][:, mask_y[i]], alone.plan(), rtol=0, atol=DOUBLE)
                (one,) = torch.autograd.grad(alone.cost + alone.plan().square().sum(), small)
                torch.testing.assert_close(gradient[i, mask_x[i]], one, rtol=0, atol=DOUBLE)
            assert (ot.plan()[~(mask_x[:, :, None] & mask_y[:, None])] == 0).all()
            assert (ot.f[~mask_x] == 0).all() and (gradient[~mask_x] == 0).all()


def test_batches_are_their_items_and_broadcast() -> None:
    x, y, a, _ = problem(8, 7, batch=(2, 3))
    ot = gd.sinkhorn(x, y[0, 0], a, epsilon=0.05)
    assert ot.cost.shape == ot.converged.shape == ot.marginal_error.shape == (2, 3)
    assert ot.f.shape == (2, 3, 8) and ot.g.shape == (2, 3, 7) and ot.plan().shape == (2, 3, 8, 7)
    v = torch.randn(7, 2, dtype=torch.float64)
    torch.testing.assert_close(ot.lazy_plan @ v, ot.plan() @ v)
    torch.testing.assert_close(ot.lazy_plan @ v[:, 0], ot.plan() @ v[:, 0])
    assert ot.lazy_plan.shape == (2, 3, 8, 7) and ot.lazy_plan.T.shape == (2, 3, 7, 8)
    for i, j in itertools.product(range(2), range(3)):
        one = gd.sinkhorn(x[i, j], y[0, 0], a[i, j], epsilon=0.05)
        torch.testing.assert_close(ot.cost[i, j], one.cost, rtol=DOUBLE, atol=0)
    assert one.cost.shape == () and one.f.shape == (8,) and one.plan().shape == (8, 7)
    assert "converged" in repr(one)


def test_zero_weights_are_absent_points() -> None:
    x, y, a, b = problem(8, 7)
    keep = torch.tensor([1, 1, 0, 1, 1, 0, 1, 1], dtype=torch.bool)
    a = torch.where(keep, a, 0)
    a = a / a.sum()
    small = gd.sinkhorn(x[keep], y, a[keep], b, epsilon=0.05)
    for backend in ("dense", "streamed"):
        ot = gd.sinkhorn(x, y, a, b, epsilon=0.05, backend=backend)
        torch.testing.assert_close(ot.cost, small.cost, rtol=DOUBLE, atol=0)
        torch.testing.assert_close(ot.f[keep], small.f, rtol=0, atol=DOUBLE)
        assert (ot.plan()[~keep] == 0).all()


@pytest.mark.parametrize("what", ["cost", "transport_cost", "plan", "product"])
def test_derivative_at_a_weight_of_zero(what: str) -> None:
    # On the right: a small weight moved onto the absent point.
    x, y, a, b = problem(5, 4)
    a = torch.tensor([0.0, 0.1, 0.2, 0.3, 0.4], dtype=torch.float64)
    ways = torch.tensor([1.0, -1.0, 0.0, 0.0, 0.0], dtype=torch.float64)
    random = torch.randn(5, 4, dtype=torch.float64)

    def value(a):
        ot = gd.sinkhorn(x, y, a, b, epsilon=0.1)
        if what == "product":
            return ((ot.lazy_plan @ y) * random[:, :3]).sum()
        return (ot.plan() * random).sum() if what == "plan" else getattr(ot, what)

    held = a.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(value(held), held)
    step = 1e-6
    numeric = (-3 * value(a) + 4 * value(a + step * ways) - value(a + 2 * step * ways)) / (2 * step)
    assert float(gradient @ ways) == pytest.approx(float(numeric), rel=1e-5)


def test_forbidden_pairs() -> None:
    cost = torch.rand(6, 5, dtype=torch.float64)
    cost[0, :3] = cost[4, 1:] = torch.inf
    uniform = torch.full((6,), 1 / 6, dtype=torch.float64), torch.full((5,), 1 / 5, dtype=torch.float64)
    value, plan, *_ = loop(cost, *uniform, 0.1)
    held = cost.clone().requires_grad_()
    ot = gd.sinkhorn(cost_matrix=held, epsilon=0.1)
    torch.testing.assert_close(ot.cost, value, rtol=DOUBLE, atol=0)
    torch.testing.assert_close(ot.plan(), plan, rtol=0, atol=DOUBLE)
    assert (ot.plan()[torch.isinf(cost)] == 0).all()
    torch.testing.assert_close(torch.autograd.grad(ot.cost, held, retain_graph=True)[0], plan, rtol=0, atol=DOUBLE)
    (gradient,) = torch.autograd.grad((ot.transport_cost + ot.plan()[0, 3]), held)
    assert torch.isfinite(gradient).all() and (gradient[torch.isinf(cost)] == 0).all()


def test_a_matrix_and_its_shift() -> None:
    # Adding to rows and columns of C changes potentials, not the plan.
    cost = torch.rand(7, 9, dtype=torch.float64)
    base = gd.sinkhorn(cost_matrix=cost, epsilon=0.05)
    row, column = 100 * torch.randn(7, 1, dtype=torch.float64), 100 * torch.randn(9, dtype=torch.float64)
    moved = gd.sinkhorn(cost_matrix=cost + row + column, epsilon=0.05)
    torch.testing.assert_close(moved.plan(), base.plan(), rtol=0, atol=1e-10)  # 100 / 0.05 roundings
    shift = float(row.mean() + column.mean())
    assert moved.cost.item() == pytest.approx(base.cost.item() + shift, rel=1e-10)


def test_warm_start_takes_fewer_iterations() -> None:
    x, y, *_ = problem(80, 80)
    for backend in ("dense", "streamed"):
        cold = gd.sinkhorn(x, y, epsilon=0.01, backend=backend)
        moved = x + 1e-4 * torch.randn_like(x)
        again = gd.sinkhorn(moved, y, epsilon=0.01, start=cold, backend=backend)
        both = gd.sinkhorn(moved, y, epsilon=0.01, start=(cold.f, cold.g), backend=backend)
        assert max(again.iterations, both.iterations) < cold.iterations
        fresh = gd.sinkhorn(moved, y, epsilon=0.01, backend=backend)
        torch.testing.assert_close(again.cost, fresh.cost, rtol=DOUBLE, atol=0)


def test_a_bad_start_does_no_harm() -> None:
    x, y, *_ = problem(30, 20)
    good = gd.sinkhorn(x, y, epsilon=0.01)
    bad = 1e3 * torch.randn(30, dtype=torch.float64), torch.full((20,), torch.nan, dtype=torch.float64)
    torch.testing.assert_close(gd.sinkhorn(x, y, epsilon=0.01, start=bad).cost, good.cost, rtol=DOUBLE, atol=0)


def test_a_cloud_against_itself() -> None:
    x, _, a, _ = problem(50, 1)
    for backend, reach in itertools.product(("dense", "streamed"), (None, 0.5)):
        fast = gd.sinkhorn(x, x, a, a, epsilon=0.001, reach=reach, backend=backend)
        slow = gd.sinkhorn(x, x.clone(), a, a, epsilon=0.001, reach=reach, backend=backend)
        torch.testing.assert_close(fast.cost, slow.cost, rtol=0, atol=1e-12)
        torch.testing.assert_close(fast.f, fast.g, rtol=0, atol=1e-12)
        torch.testing.assert_close(fast.plan(), slow.plan(), rtol=0, atol=1e-10)


def test_same_bits_twice() -> None:
    x, y, *_ = problem(40, 30, torch.float32)
    first, second = (gd.sinkhorn(x, y, epsilon=0.01) for _ in range(2))
    assert torch.equal(first.f, second.f) and torch.equal(first.plan(), second.plan())


def test_points_that_coincide() -> None:
    x = torch.zeros(4, 2, dtype=torch.float64, requires_grad=True)
    for p in (1, 2):
        ot = gd.sinkhorn(x, torch.zeros(3, 2, dtype=torch.float64), epsilon=0.1, p=p)
        assert ot.cost.item() == pytest.approx(0, abs=1e-15)
        (gradient,) = torch.autograd.grad(ot.cost + ot.plan().square().sum() + ot.transport_cost, x)
        assert torch.equal(gradient, torch.zeros_like(x))
    single = gd.sinkhorn(torch.zeros(1, 2), torch.ones(1, 2), epsilon=0.1)
    assert single.cost.item() == pytest.approx(2, rel=1e-6)


def test_clouds_are_sorted_once_and_again_where_they_change(monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = torch.rand(1, 1100, 2), torch.rand(1, 1200, 2)
    sorts: list[int] = []

    def counted(points: torch.Tensor) -> torch.Tensor:
        sorts.append(points.shape[1])
        return spatial_order(points)

    monkeypatch.setattr(transport, "spatial_order", counted)
    kernel = Streamed(x, y, None, 2, torch.float32)
    h, k = torch.randn(1, 1200, dtype=torch.float64), torch.randn(1, 1100, dtype=torch.float64)
    for _ in range(3):
        kernel.lse_rows(h, 0.1)
        kernel.lse_columns(k, 0.1)
    assert sorts == [1200, 1100]
    y.copy_(y.flip(-1) ** 2)
    assert torch.equal(kernel.lse_rows(h, 0.1), ops.lse(x, y, h.float(), 0.1).double())
    assert sorts == [1200, 1100, 1200, 1200]
    sorts.clear()
    x.requires_grad_()
    gd.sinkhorn(x, y, epsilon=0.1, backend="streamed").cost.sum().backward()
    assert sorted(sorts) == [1100, 1100, 1200, 1200]  # in float32, and for the last sums in float64
