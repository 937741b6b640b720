# SPDX-License-Identifier: Apache-2.0
"""Transport whose mass is left out or underflows, and what `converged` says: measured on the plan, in every mode."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import geodiff as gd
from geodiff.transport import gradients, settle

# Costs and potentials beside an iteration in float64: roundings of potentials that are up to 1e5 ε.
BOUND = {torch.float32: 1e-5, torch.float64: 1e-9}
TOLERANCE = {torch.float32: 1e-6, torch.float64: 1e-12}
IGNORED = pytest.mark.filterwarnings("ignore:.*expect many iterations.*")


def lse(z: np.ndarray, axis: int) -> np.ndarray:
    top = z.max(axis, keepdims=True)
    return np.log(np.exp(z - top).sum(axis)) + top.squeeze(axis)


def by_logarithms(cost: np.ndarray, a: np.ndarray, b: np.ndarray, epsilon: float, rho: float) -> tuple[Any, ...]:
    """Cost, plan, potentials: annealed iterations on logarithms in float64, and Newton's method on `f = T(f)`."""
    with np.errstate(divide="ignore"):
        log_a, log_b = np.log(a), np.log(b)
    f = np.zeros_like(a)
    for level in [e for e in epsilon * 4.0 ** np.arange(14, 0, -1) if e < 2 * cost.max()] + [epsilon]:
        damp = rho / (rho + level)

        def columns(f: np.ndarray, level: float = level, damp: float = damp) -> np.ndarray:
            return -damp * level * lse(log_a[:, None] + (f[:, None] - cost) / level, 0)

        def rows(g: np.ndarray, level: float = level, damp: float = damp) -> np.ndarray:
            return -damp * level * lse(log_b + (g - cost) / level, 1)

        for _ in range(30 if level > epsilon else 1000):
            g = columns(f)
            gap = rows(g) - f
            if np.abs(gap).max() <= 1e-14 * max(1.0, np.abs(f).max()):
                break
            exponent, other = log_b + (g - cost) / level, log_a[:, None] + (f[:, None] - cost) / level
            w = np.exp(exponent - lse(exponent, 1)[:, None])
            v = np.exp(other - lse(other, 0))
            step = np.linalg.solve(np.eye(len(f)) - damp**2 * w @ v.T, gap)
            trials = [f + gap, *(f + part * step for part in (1.0, 0.3, 0.1))]
            f = min(trials, key=lambda t: np.abs(rows(columns(t)) - t).max())
    g = columns(f)
    f = rows(g)
    with np.errstate(over="ignore"):
        plan = np.exp(np.where((a > 0)[:, None] & (b > 0), (f[:, None] + g - cost) / epsilon, -np.inf)) * a[:, None] * b

    def divergence(p: np.ndarray, q: np.ndarray) -> float:
        return (np.where(p > 0, p * np.log(np.where(p > 0, p / np.where(q > 0, q, 1), 1)), 0) - p + q).sum()

    value = (plan * cost).sum() + epsilon * divergence(plan, a[:, None] * b)
    return value + rho * (divergence(plan.sum(1), a) + divergence(plan.sum(0), b)), plan, f, g


def distances(x: torch.Tensor, y: torch.Tensor, p: int) -> torch.Tensor:
    return (x[..., :, None, :] - y[..., None, :, :]).norm(dim=-1) ** p


def gaps(ot: Any, a: torch.Tensor, b: torch.Tensor, rho: float | None) -> torch.Tensor:
    """The larger distance of the marginals of `plan()`, added up in float64, from what they are to be."""
    plan, f, g = (t.detach().double() for t in (ot.plan(), ot.f, ot.g))
    wanted = [w.double() * (1.0 if rho is None else torch.exp(-t / rho)) for w, t in ((a, f), (b, g))]
    sides = zip((plan.sum(-1), plan.sum(-2)), wanted, (a, b), strict=True)
    return torch.maximum(*(torch.where(w > 0, s - t, 0.0).abs().sum(-1) for s, t, w in sides))


def slack(ot: Any, epsilon: float, rho: float | None) -> float:
    """What rounding of the plan and of potentials handed out adds to a gap, relative to the mass."""
    eps = torch.finfo(ot.f.dtype).eps
    size = float(torch.maximum(ot.f.detach().abs().max(), ot.g.detach().abs().max()))
    return 8 * eps + (0.0 if rho is None else eps * size / rho) + 1e-15 * size / epsilon


WEIGHTS = {
    "one-hot": lambda n: torch.eye(n)[n // 2].double(),
    "uniform": lambda n: torch.full((n,), 1 / n).double(),
    "half": lambda n: (torch.arange(n) % 2 + 0.0).double(),
    "wild": lambda n: torch.logspace(-8, 0, n).double(),
}


@IGNORED
@settings(max_examples=25)
@given(
    kinds=st.tuples(st.sampled_from(sorted(WEIGHTS)), st.sampled_from(sorted(WEIGHTS))),
    reach=st.sampled_from([0.003, 0.01, 0.1, 1.0]),
    epsilon=st.sampled_from([1e-5, 1e-4, 1e-3, 1e-2, 0.1]),
    p=st.sampled_from([1, 2]),
    dtype=st.sampled_from([torch.float32, torch.float64]),
    backend=st.sampled_from(["dense", "streamed"]),
    batch=st.sampled_from([(), (2,)]),
    seed=st.integers(0, 99),
)
@pytest.mark.filterwarnings("ignore:.*not converged.*")
def test_against_logarithms(kinds, reach, epsilon, p, dtype, backend, batch, seed):
    draw = torch.Generator().manual_seed(seed)
    x, y = (torch.rand(*batch, n, 2, generator=draw, dtype=torch.float64).to(dtype).requires_grad_() for n in (6, 5))
    a, b = (WEIGHTS[kind](n).to(dtype) for kind, n in zip(kinds, (6, 5), strict=True))
    rho = reach**p
    ot = gd.sinkhorn(x, y, a, b, epsilon=epsilon, p=p, reach=reach, backend=backend, max_iterations=3000)
    cost = distances(x.detach().double(), y.detach().double(), p)
    found = [
        by_logarithms(c.numpy(), a.double().numpy(), b.double().numpy(), epsilon, rho) for c in cost.reshape(-1, 6, 5)
    ]
    value, plan, f, g = (
        torch.from_numpy(np.stack(t)).reshape(batch + np.shape(t[0])) for t in zip(*found, strict=True)
    )
    assert torch.isfinite(ot.cost).all() and torch.isfinite(ot.plan()).all()
    mass = float(a.double().sum() * b.double().sum() + a.double().sum())
    off = gaps(ot, a, b, rho)
    assert (off[ot.converged] <= 1.1 * TOLERANCE[dtype] + mass * slack(ot, epsilon, rho)).all()
    if not bool(ot.converged.all()):  # float64 resolves costs of 1 to 1e-16, potentials at 1e-5 of them to 1e-11
        assert dtype == torch.float32 or float(ot.marginal_error.max()) < 1e-10
        return
    torch.testing.assert_close(ot.cost.detach().double(), value, rtol=BOUND[dtype], atol=0)
    torch.testing.assert_close(ot.plan().detach().double(), plan, rtol=0, atol=100 * BOUND[dtype])
    for got, wanted, weight in ((ot.f, f, a), (ot.g, g, b)):
        wild = 1e3 if "wild" in kinds else 1.0  # a marginal within 1e-6 says little of a weight of 1e-8
        size = float(wanted.abs().max())
        assert float(((got.detach().double() - wanted).abs() * (weight > 0)).max()) <= 10 * wild * BOUND[dtype] * size
    total = (
        ot.cost.sum()
        + ot.transport_cost.sum()
        + ot.plan().square().sum()
        + ot.f[..., a > 0].sum()
        + ot.g[..., b > 0].sum()
    )
    assert all(torch.isfinite(t).all() for t in torch.autograd.grad(total, (x, y)))


@IGNORED
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_one_far_pair_has_a_closed_form(dtype: torch.dtype):
    # Of one pair at cost C: f = g = C ρ/(2ρ + ε) where both weights are 1, and P = exp(−C/(2ρ + ε)).
    epsilon, reach = 1e-5, 0.01
    x, y = torch.tensor([[0.0, 0.0]], dtype=dtype), torch.tensor([[0.6, 0.8]], dtype=dtype)
    rho = reach**2
    for backend in ("dense", "streamed"):
        held = x.clone().requires_grad_()
        ot = gd.sinkhorn(held, y, epsilon=epsilon, reach=reach, backend=backend)
        assert ot.converged and ot.plan().item() == 0
        assert ot.f.item() == pytest.approx(rho / (2 * rho + epsilon), rel=BOUND[dtype])
        assert ot.cost.item() == pytest.approx(2 * rho + epsilon, rel=BOUND[dtype])
        (slope,) = torch.autograd.grad(ot.f.sum(), held)
        wanted = -2 * y * rho / (2 * rho + epsilon)
        torch.testing.assert_close(slope, wanted, rtol=BOUND[dtype], atol=0)
        near = gd.sinkhorn(x, x + 0.001, epsilon=epsilon, reach=reach, backend=backend)
        wanted = math.exp(-2e-6 / (2 * rho + epsilon))
        assert near.plan().item() == pytest.approx(wanted, rel=1e2 * BOUND[dtype])


@pytest.mark.parametrize("backend", ["dense", "streamed"])
@pytest.mark.parametrize("reach, epsilon", [(0.1, 0.003), (0.3, 0.02)])
def test_gradients_of_potentials_beyond_reach(reach: float, epsilon: float, backend: str):
    x, y = torch.rand(4, 2, dtype=torch.float64), torch.rand(5, 2, dtype=torch.float64)
    x[0] += 3
    y[1] -= 2
    a, b = torch.tensor([0.2, 0.3, 0.5, 0.1]).double(), torch.tensor([0.3, 0.3, 0.2, 0.1, 0.4]).double()
    along = torch.randn(4, dtype=torch.float64), torch.randn(5, dtype=torch.float64)

    def value(x, y, a, b, epsilon):
        ot = gd.sinkhorn(x, y, a, b, epsilon=epsilon, reach=reach, backend=backend, tolerance=1e-14)
        assert float((ot.f.detach() / reach**2).max()) > 100  # mass of e^−100
        return (along[0] * ot.f).sum() + (along[1] * ot.g).sum()

    inputs = (x, y, a, b, torch.tensor(epsilon, dtype=torch.float64))
    leaves = [t.clone().requires_grad_() for t in inputs]
    for i, slope in enumerate(torch.autograd.grad(value(*leaves), leaves)):
        way = torch.randn_like(inputs[i]) if i < 4 else torch.tensor(epsilon, dtype=torch.float64)
        up, down = (value(*inputs[:i], inputs[i] + h * way, *inputs[i + 1 :]) for h in (1e-6, -1e-6))
        assert float((slope * way).sum()) == pytest.approx(float((up - down) / 2e-6), rel=1e-5)


def test_pot_agrees() -> None:
    ot = pytest.importorskip("ot")
    x, y = torch.rand(20, 2, dtype=torch.float64), torch.rand(15, 2, dtype=torch.float64)
    a, b = torch.rand(20, dtype=torch.float64), torch.rand(15, dtype=torch.float64)
    x[:3] += 1
    cost = distances(x, y, 2).numpy()
    plan = ot.unbalanced.sinkhorn_unbalanced(
        a.numpy(),
        b.numpy(),
        cost,
        0.05,
        0.3,
        method="sinkhorn",
        reg_type="kl",
        numItermax=100_000,
        stopThr=1e-14,
    )
    mine = gd.sinkhorn(x, y, a, b, epsilon=0.05, reach=math.sqrt(0.3))
    torch.testing.assert_close(mine.plan(), torch.from_numpy(plan), rtol=1e-6, atol=1e-12)


@IGNORED
@pytest.mark.parametrize("reach", [None, 0.3], ids=["balanced", "unbalanced"])
@pytest.mark.parametrize("backend", ["dense", "streamed"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_converged_is_measured_on_the_plan(dtype: torch.dtype, backend: str, reach: float | None):
    x, y = torch.rand(2, 40, 3).to(dtype) / math.sqrt(3), torch.rand(2, 30, 3).to(dtype) / math.sqrt(3)
    mask = torch.rand(2, 40) > 0.3
    # At the smallest, sums in float32 alone would be 20 times off.
    for p, epsilon in ((2, 0.1), (1, 0.001), (1, 1e-4))[: 3 if dtype == torch.float32 else 2]:
        rho = None if reach is None else reach**p
        first = gd.sinkhorn(x, y, epsilon=epsilon, p=p, reach=reach, backend=backend)
        warm = gd.sinkhorn(x + 1e-4, y, epsilon=epsilon, p=p, reach=reach, backend=backend, start=first)
        covered = gd.sinkhorn(x, y, epsilon=epsilon, p=p, reach=reach, backend=backend, mask_x=mask)
        even = torch.full((40,), 1 / 40, dtype=dtype), torch.full((30,), 1 / 30, dtype=dtype)
        for ot, a in ((first, even[0]), (warm, even[0]), (covered, mask.double() / mask.sum(-1, keepdim=True))):
            assert ot.converged.all()
            assert (gaps(ot, a, even[1], rho) <= 1.1 * TOLERANCE[dtype] + slack(ot, epsilon, rho)).all()


def test_unrolled_measures_its_plan_too() -> None:
    x, y = torch.rand(12, 2), torch.rand(9, 2)
    even = torch.full((12,), 1 / 12), torch.full((9,), 1 / 9)
    for reach in (None, 0.5):
        ot = gd.sinkhorn(x, y, epsilon=0.05, reach=reach, unrolled=True, tolerance=1e-5)
        off = gaps(ot, *even, None if reach is None else reach**2)
        assert ot.converged and abs(float(off) - float(ot.marginal_error)) < 1e-6


def test_it_does_not_claim_what_it_did_not_reach() -> None:
    x, y = torch.rand(40, 2, dtype=torch.float64), torch.rand(30, 2, dtype=torch.float64)
    even = [torch.full((n,), 1 / n, dtype=torch.float64) for n in (40, 30)]
    for reach in (None, 0.5):
        for limit in (1, 7, 20):
            with pytest.warns(RuntimeWarning, match="not converged after"):
                ot = gd.sinkhorn(x, y, epsilon=0.001, reach=reach, max_iterations=limit)
            off = gaps(ot, *even, None if reach is None else reach**2)
            assert not ot.converged and float(ot.marginal_error) >= 0.99 * float(off)


def test_a_state_that_is_not_a_number_starts_again() -> None:
    x, y = torch.rand(6, 2, dtype=torch.float64), torch.rand(5, 2, dtype=torch.float64)
    good = gd.sinkhorn(x, y, epsilon=0.01, reach=0.2)
    start = torch.full((6,), 1e300, dtype=torch.float64), torch.full((5,), -1e300, dtype=torch.float64)
    again = gd.sinkhorn(x, y, epsilon=0.01, reach=0.2, start=start)
    assert again.converged
    torch.testing.assert_close(again.cost, good.cost, rtol=1e-10, atol=0)


def test_errors(monkeypatch: pytest.MonkeyPatch) -> None:
    cost = -torch.rand(5, 4, dtype=torch.float64)
    with pytest.raises(
        ValueError, match=r"sinkhorn: `reach` must be of the size of negative costs or above; got 0\.001"
    ):
        gd.sinkhorn(cost_matrix=cost, epsilon=1e-3, reach=0.001)
    x, y = torch.tensor([[0.0], [1.0]]).double().requires_grad_(), torch.tensor([[1.0]]).double()
    a = torch.tensor([1.0, 0.0]).double()
    ot = gd.sinkhorn(x, y, a, epsilon=1e-4, reach=0.02)
    assert ot.converged and torch.isfinite(torch.autograd.grad(ot.cost, x)[0]).all()
    with pytest.raises(RuntimeError, match=r"the gradient in `a` is beyond the range of float64.* mask_x="):
        gd.sinkhorn(x, y, a.requires_grad_(), epsilon=1e-4, reach=0.02).cost.backward()
    monkeypatch.setattr(gradients, "DIRECT", 1)
    with pytest.raises(RuntimeError, match="out of reach have a gradient only for clouds of up to 1 points"):
        ot.f[0].backward()


def test_an_argument_changed_before_the_gradient_is_an_error() -> None:
    cost = torch.rand(5, 4, dtype=torch.float64)
    held = cost.clone().requires_grad_()
    ot = gd.sinkhorn(cost_matrix=held, epsilon=0.1)
    with torch.no_grad():
        held += 1
    with pytest.raises(RuntimeError, match="an argument that was changed in place after the call"):
        ot.transport_cost.backward()


def test_larger_clouds_iterate_plainly(monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = torch.rand(6, 2, dtype=torch.float64), torch.rand(5, 2, dtype=torch.float64) + 2
    wanted = gd.sinkhorn(x, y, epsilon=0.01, reach=0.2)
    monkeypatch.setattr(settle, "DIRECT", 1)
    torch.testing.assert_close(gd.sinkhorn(x, y, epsilon=0.01, reach=0.2).f, wanted.f, rtol=1e-10, atol=0)
