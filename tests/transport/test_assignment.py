# SPDX-License-Identifier: Apache-2.0
import importlib
import itertools

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import linprog
from scipy.stats import wasserstein_distance

from geodiff.transport.assignment import assign, assignment, emd


def cheapest(cost: np.ndarray) -> float:
    """Least cost over all injections of the smaller side, one by one."""
    cost = cost if cost.shape[0] <= cost.shape[1] else cost.T
    n, m = cost.shape
    return min(sum(cost[i, j] for i, j in enumerate(p)) for p in itertools.permutations(range(m), n))


def transport_by_simplex(costs: np.ndarray, a: np.ndarray, b: np.ndarray) -> float:
    """The linear programme itself, by SciPy's HiGHS."""
    n, m = costs.shape
    rows, columns = np.kron(np.eye(n), np.ones((1, m))), np.kron(np.ones((1, n)), np.eye(m))
    right = np.concatenate([a / a.sum(), b / b.sum()])
    return linprog(costs.ravel(), A_eq=np.vstack([rows, columns]), b_eq=right, method="highs").fun


def squares(x: torch.Tensor, y: torch.Tensor, p: int) -> np.ndarray:
    return ((x[:, None] - y[None]).norm(dim=-1) ** p).numpy()


@given(seed=st.integers(0, 1000), n=st.integers(1, 5), m=st.integers(1, 5))
def test_assignment_is_the_cheapest_of_all(seed: int, n: int, m: int) -> None:
    cost = torch.randn(2, n, m, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    match = assignment(cost)
    assert match.rows.shape == match.columns.shape == (2, min(n, m))
    most = assignment(cost, maximize=True).cost
    for i in range(2):
        assert match.cost[i].item() == pytest.approx(cheapest(cost[i].numpy()), rel=1e-12)
        assert most[i].item() == pytest.approx(-cheapest(-cost[i].numpy()), rel=1e-12)
        assert cost[i][match.rows[i], match.columns[i]].sum().item() == pytest.approx(match.cost[i].item())
        assert len(set(match.columns[i].tolist())) == min(n, m)


def test_envelope_gradient_of_a_matrix() -> None:
    cost = torch.rand(3, 4, 6, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda c: assignment(c).cost, (cost,))


@pytest.mark.parametrize("p", [1, 2])
def test_assign_points(p: int) -> None:
    x = torch.randn(2, 1, 4, 3, dtype=torch.float64, requires_grad=True)
    y = torch.randn(3, 5, 3, dtype=torch.float64, requires_grad=True)
    match = assign(x, y, p)
    assert match.cost.shape == (2, 3) and match.columns.shape == (2, 3, 4)
    for i, j in itertools.product(range(2), range(3)):
        wanted = cheapest(squares(x[i, 0].detach(), y[j].detach(), p))
        assert match.cost[i, j].item() == pytest.approx(wanted, rel=1e-12)
    assert torch.autograd.gradcheck(lambda x, y: assign(x, y, p).cost, (x, y))


def test_same_on_one_thread_and_on_many() -> None:
    cost = torch.rand(9, 30, 30)
    for one, many in zip(assignment(cost, threads=1), assignment(cost, threads=4), strict=True):
        assert torch.equal(one, many)


def test_lists_of_any_sizes() -> None:
    sizes = [(3, 5), (4, 4), (6, 2), (0, 3)]
    costs = [torch.rand(n, m) for n, m in sizes]
    for got, cost in zip(assignment(costs), costs, strict=True):
        wanted = assignment(cost)
        assert all(torch.equal(g, w) for g, w in zip(got, wanted, strict=True))
    x, y = [torch.randn(n, 2) for n, _ in sizes], [torch.randn(m, 2) for _, m in sizes]
    for got, a, b in zip(assign(x, y), x, y, strict=True):
        assert all(torch.equal(g, w) for g, w in zip(got, assign(a, b), strict=True))


def test_forbidden_pairs_and_empty_batches() -> None:
    inf = torch.inf
    match = assignment(torch.tensor([[inf, 1.0], [2.0, 0.0]]))
    assert match.columns.tolist() == [1, 0] and match.cost == 3
    assert assignment(torch.tensor([[-inf, 1.0], [2.0, 9.0]]), maximize=True).cost == 3
    empty = assignment(torch.zeros(0, 3, 4))
    assert empty.rows.shape == (0, 3) and empty.cost.shape == (0,)
    assert assign(torch.zeros(2, 0, 3), torch.zeros(4, 3)).cost.tolist() == [0.0, 0.0]
    assert assignment([[1.0, 2.0], [3.0, 1.0]]).cost == 2


def test_emd_without_weights_is_assignment() -> None:
    x, y = torch.randn(2, 6, 3, dtype=torch.float64), torch.randn(2, 6, 3, dtype=torch.float64)
    wanted = assign(x, y).cost / 6
    assert torch.equal(emd(x, y), wanted)
    assert torch.equal(emd(x, y, torch.full((6,), 0.5), torch.ones(2, 6)), wanted)
    line = emd(x[..., :1], y[..., :1], p=1)
    for i in range(2):
        assert line[i].item() == pytest.approx(wasserstein_distance(x[i, :, 0], y[i, :, 0]), rel=1e-12)


class TestWithPOT:
    """Weighted transport, where POT is installed."""

    @pytest.fixture(autouse=True)
    def pot(self) -> None:
        pytest.importorskip("ot")

    @pytest.mark.parametrize("p", [1, 2])
    @pytest.mark.parametrize("weighted", [True, False])
    def test_is_the_linear_programme(self, p: int, weighted: bool) -> None:
        x, y = torch.randn(2, 7, 2, dtype=torch.float64), torch.randn(5, 2, dtype=torch.float64)
        a, b = torch.rand(2, 7, dtype=torch.float64), 3 * torch.rand(5, dtype=torch.float64)
        a[0, 3] = 0
        got = emd(x, y, a, b, p) if weighted else emd(x, y, p=p)
        for i in range(2):
            masses = (a[i].numpy(), b.numpy()) if weighted else (np.ones(7), np.ones(5))
            wanted = transport_by_simplex(squares(x[i], y, p), *masses)
            assert got[i].item() == pytest.approx(wanted, rel=1e-9)  # HiGHS stops at 1e-7 of feasibility or better

    def test_equal_weights_agree_with_assignment(self) -> None:
        x, y = torch.randn(8, 3, dtype=torch.float64), torch.randn(8, 3, dtype=torch.float64)
        by_pot = emd(x, y, torch.ones(8, requires_grad=True))
        assert by_pot.item() == pytest.approx(emd(x, y).item(), rel=1e-12)

    @pytest.mark.parametrize("p", [1, 2])
    def test_gradients(self, p: int) -> None:
        x, y = torch.randn(2, 5, 2, dtype=torch.float64), torch.randn(4, 2, dtype=torch.float64)
        a, b = torch.rand(2, 5, dtype=torch.float64) + 0.1, torch.rand(4, dtype=torch.float64) + 0.1
        inputs = [t.requires_grad_() for t in (x, y, a, b)]
        assert torch.autograd.gradcheck(lambda *t: emd(*t, p=p), inputs)
        gradients = torch.autograd.grad(emd(*inputs, p=p).sum(), [a, b])
        for weights, gradient in zip((a, b), gradients, strict=True):
            assert (weights * gradient).sum(-1).abs().max() < 1e-12  # scaling the weights changes nothing

    def test_gradient_of_a_weight_of_zero_is_that_from_above(self) -> None:
        x, y = torch.randn(5, 2, dtype=torch.float64), torch.randn(4, 2, dtype=torch.float64)
        a, b = torch.rand(5, dtype=torch.float64), torch.rand(4, dtype=torch.float64)
        a[1] = b[2] = 0
        gradients = torch.autograd.grad(emd(x, y, a.requires_grad_(), b.requires_grad_()), [a, b])
        for weights, i, gradient in ((a, 1, gradients[0]), (b, 2, gradients[1])):
            ahead = weights.detach().clone()
            ahead[i] += 1e-7
            pair = (ahead, b.detach()) if weights is a else (a.detach(), ahead)
            change = (emd(x, y, *pair) - emd(x, y, a.detach(), b.detach())).item() / 1e-7
            assert gradient[i].item() == pytest.approx(change, rel=1e-5, abs=1e-6)

    def test_says_when_the_simplex_stops_early(self, monkeypatch: pytest.MonkeyPatch) -> None:
        import ot

        original = ot.lp.emd
        monkeypatch.setattr(ot.lp, "emd", lambda *a, **k: original(*a, **(k | {"numItermax": 1})))
        with pytest.warns(UserWarning, match="numItermax"), pytest.raises(RuntimeError, match="stopped early"):
            emd(torch.rand(50, 2), torch.rand(40, 2))


def test_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(name: str, *rest: object) -> object:
        raise ModuleNotFoundError(name)

    monkeypatch.setattr(importlib, "import_module", absent)
    with pytest.raises(ModuleNotFoundError, match=r"need the package POT: pip install 'geodiff\[pot\]'"):
        emd(torch.rand(3, 2), torch.rand(4, 2))


x23, nan, inf = torch.zeros(2, 3), torch.nan, torch.inf


@pytest.mark.parametrize(
    "call, error, text",
    [
        (lambda: assignment(torch.tensor([[1.0, nan]])), ValueError, r"free of NaN; got NaN at index \(0, 1\)"),
        (lambda: assignment(torch.tensor([[1.0, -inf]])), ValueError, "free of -inf.* inf forbids"),
        (lambda: assignment(torch.tensor([[1.0, inf]]), maximize=True), ValueError, "free of inf.* -inf forbids"),
        (lambda: assignment(torch.tensor([[[0.0]], [[inf]]])), ValueError, "finite for enough pairs; got item 1"),
        (lambda: assignment(torch.zeros(3)), ValueError, r"`cost` must be of shape \(..., N, M\)"),
        (lambda: assignment(torch.zeros(3, 3).int()), TypeError, "`cost` must be a floating tensor"),
        (lambda: assignment([x23, x23[None]]), ValueError, r"`cost\[1\]` must be of shape \(N, M\)"),
        (lambda: assignment(x23, threads=0), ValueError, "`threads` must be at least 1"),
        (lambda: assign(x23, x23[:, :2]), ValueError, "assign: `y`.*as many coordinates"),
        (lambda: assign(x23, x23, p=3), ValueError, "assign: `p` must be 1"),
        (lambda: assign([x23], x23), ValueError, "assign: `x, y` must be two lists"),
        (lambda: assign(x23 / 0, x23), ValueError, "assign: `x` must be finite"),
        (lambda: emd(x23[:0], x23), ValueError, "emd: `x` must be of one point"),
        (lambda: emd(x23, x23[:0]), ValueError, "emd: `y` must be of one point"),
        (lambda: emd(x23, x23, p=0), ValueError, "emd: `p` must be 1"),
        (lambda: emd(x23, x23, -torch.ones(2)), ValueError, "emd: `a` must be at least 0; got -1"),
        (lambda: emd(x23, x23, b=torch.zeros(2)), ValueError, "emd: `b` must be positive for one point or more"),
        (lambda: emd(x23, x23, torch.ones(3)), ValueError, r"emd: `a` must be of shape \(2,\)"),
        (lambda: emd(x23, x23, torch.tensor([1.0, nan])), ValueError, "emd: `a` must be finite"),
    ],
)  # fmt: skip
def test_errors(call, error, text) -> None:
    with pytest.raises(error, match=text):
        call()
