# SPDX-License-Identifier: Apache-2.0
# ruff: noqa: E501
import warnings

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import geodiff as gd

X, Y = torch.rand(5, 3), torch.rand(4, 3)
A = torch.full((5,), 0.2)
INFINITE = torch.zeros(3, 3)
INFINITE[1] = torch.inf
BLOCKED = torch.zeros(3, 3)
BLOCKED[:2, 1:] = torch.inf  # two rows that only the first column takes


def solve(x=X, y=Y, a=None, b=None, epsilon=0.1, **options):
    return gd.sinkhorn(x, y, a, b, epsilon=epsilon, **options)


@pytest.mark.parametrize(
    "make, error, message",
    [
        (lambda: gd.sinkhorn(epsilon=0.1), ValueError, "two clouds, or else cost_matrix alone; got none of them"),
        (lambda: gd.sinkhorn(X, epsilon=0.1), ValueError, "two clouds, or else cost_matrix alone; got x"),
        (lambda: solve(cost_matrix=torch.rand(5, 4)), ValueError, "cost_matrix alone; got x, y, cost_matrix"),
        (lambda: solve(y=Y[:, :2]), ValueError, r"`y` must be of shape \(\.\.\., M, 3\)"),
        (lambda: solve(x=X[0]), ValueError, "`x` must be of shape"),
        (lambda: solve(x=X[:0]), ValueError, "`x` must be of one point or more"),
        (lambda: solve(y=Y[:0]), ValueError, "`y` must be of one point or more"),
        (lambda: solve(x=X.new_full((5, 3), torch.nan)), ValueError, "`x` must be finite"),
        (lambda: solve(x=X.half()), TypeError, "`x` must be"),
        (lambda: solve(x=X.expand(2, 5, 3), y=Y.expand(3, 4, 3)), ValueError, "batch that broadcasts"),
        (lambda: solve(x=X.expand(0, 5, 3)), ValueError, "one problem or more"),
        (lambda: solve(a=A[:4]), ValueError, r"`a` must be of shape \(\.\.\., 5\)"),
        (lambda: solve(a=A - torch.tensor([0.3, 0, 0, 0, -0.3])), ValueError, "weights ≥ 0; got -0.1 at index 0 of item 0"),
        (lambda: solve(a=torch.zeros(5)), ValueError, "some are above 0; got zeros only in item 0"),
        (lambda: solve(a=A * 1.1), ValueError, "sum to 1 within 1e-05; got a sum of 1.1.* off by 0.1.*Normalise them"),
        (lambda: solve(a=A * (1 + 3e-5)), ValueError, "sum to 1 within 1e-05"),
        (lambda: solve(X.double(), Y.double(), A.double() * (1 + 3e-9)), ValueError, "sum to 1 within 1e-09"),
        (lambda: solve(a=A * torch.nan), ValueError, "`a` must be finite"),
        (lambda: solve(epsilon=0.0), ValueError, "`epsilon` must be"),
        (lambda: solve(epsilon=-1), ValueError, "`epsilon` must be"),
        (lambda: solve(epsilon=torch.nan), ValueError, "`epsilon` must be"),
        (lambda: solve(X * 1e-20, Y * 1e-20, epsilon=1e-41), ValueError, "`epsilon` must be at least 1.18e-38 in float32"),
        (lambda: solve(epsilon=torch.ones(2)), ValueError, "`epsilon` must be"),
        (lambda: solve(epsilon=1e-9), ValueError, "`epsilon` must be at least 1e-07 of the costs.*assignment"),
        (lambda: solve(p=3), ValueError, "`p` must be 1"),
        (lambda: solve(reach=0.0), ValueError, "`reach` must be"),
        (lambda: solve(reach=torch.tensor(1.0)), TypeError, "`reach` must be a number"),
        (lambda: solve(mask_x=torch.ones(5)), TypeError, "`mask_x` must be a bool tensor"),
        (lambda: solve(mask_x=torch.ones(4).bool()), ValueError, r"`mask_x` must be of shape \(\.\.\., 5\)"),
        (lambda: solve(mask_x=torch.zeros(5).bool()), ValueError, "`mask_x` must be True somewhere"),
        (lambda: solve(x=X.expand(2, 5, 3), mask_x=torch.ones(3, 5).bool()), ValueError, "`mask_x` must be of the batch"),
        (lambda: solve(tolerance=0.0), ValueError, "`tolerance` must be"),
        (lambda: solve(max_iterations=0), ValueError, "`max_iterations` must be an int"),
        (lambda: solve(backend="gpu"), ValueError, "`backend` must be"),
        (lambda: solve(solver="lu"), ValueError, "`solver` must be"),
        (lambda: solve(solver="cholesky", backend="streamed"), ValueError, "`solver` must be cg"),
        (lambda: solve(unrolled=True, backend="streamed"), ValueError, "`backend` must be dense or auto where unrolled"),
        (lambda: gd.sinkhorn(cost_matrix=torch.rand(3, 3), epsilon=0.1, backend="streamed"), ValueError, "`backend` must"),
        (lambda: gd.sinkhorn(cost_matrix=torch.rand(3), epsilon=0.1), ValueError, "`cost_matrix` must be of shape"),
        (lambda: gd.sinkhorn(cost_matrix=torch.full((3, 3), torch.nan), epsilon=0.1), ValueError, "`cost_matrix`"),
        (lambda: gd.sinkhorn(cost_matrix=-INFINITE, epsilon=0.1), ValueError, "`cost_matrix`"),
        (lambda: gd.sinkhorn(cost_matrix=INFINITE, epsilon=0.1), ValueError, "infinite in all of row 1 of item 0"),
        (lambda: gd.sinkhorn(cost_matrix=INFINITE.T, epsilon=0.1), ValueError, "infinite in all of column 1 of item 0"),
        (lambda: gd.sinkhorn(cost_matrix=BLOCKED, epsilon=0.1), ValueError, "33.3 % of the mass of item 0 has nowhere"),
        (lambda: gd.sinkhorn(cost_matrix=torch.rand(3, 4), mask_x=torch.ones(4).bool(), epsilon=0.1), ValueError, "`mask_x`"),
        (lambda: solve(start=1.0), TypeError, "`start` must be an earlier result"),
        (lambda: solve(start=(torch.zeros(4), torch.zeros(4))), ValueError, r"`start` must be .* f of shape \(5,\)"),
        (lambda: solve().lazy_plan @ torch.rand(5), ValueError, "`v` must be"),
        (lambda: gd.SinkhornLoss(0.0), ValueError, "`epsilon` must be"),
        (lambda: gd.SinkhornLoss(0.1, reduction="all"), ValueError, "`reduction` must be"),
        (lambda: gd.sinkhorn_divergence(X, Y, epsilon=0.1, start=1), TypeError, "`start` must be left out"),
    ],
)  # fmt: skip
def test_refusals(make, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        make()


def test_small_epsilon_warns() -> None:
    with pytest.warns(RuntimeWarning) as found:
        solve(X.double(), Y.double(), epsilon=2e-6)
    assert "below 1e-05 of the costs" in str(found[0].message)


def test_no_convergence_warns_or_raises() -> None:
    with pytest.warns(RuntimeWarning, match=r"not converged after \d+ iterations: marginal error .*, tolerance 1e-06"):
        ot = solve(epsilon=0.001, max_iterations=3)
    assert not ot.converged and torch.isfinite(ot.cost) and "not converged" in repr(ot)
    with pytest.raises(RuntimeError, match="not converged after"):
        solve(epsilon=0.001, max_iterations=3, strict=True)


def test_forbidden_pairs_are_free_with_reach() -> None:
    assert torch.isfinite(gd.sinkhorn(cost_matrix=BLOCKED, epsilon=0.1, reach=1.0).cost)


@settings(max_examples=40, deadline=None)
@given(
    n=st.integers(1, 6),
    m=st.integers(1, 6),
    size=st.sampled_from([1e-15, 1e-3, 1.0, 1e6]),
    part=st.sampled_from([1.0, 0.05, 0.003]),
    same=st.booleans(),
    double=st.booleans(),
    reach=st.sampled_from([None, 0.1, 10.0]),
    seed=st.integers(0, 1000),
)
def test_anything_else_has_a_plan(n, m, size, part, same, double, reach, seed) -> None:
    random = torch.Generator().manual_seed(seed)
    dtype = torch.float64 if double else torch.float32
    x = (size * torch.rand(n, 2, generator=random)).to(dtype)
    y = x[:1].expand(m, 2) if same else (size * torch.rand(m, 2, generator=random)).to(dtype)
    with warnings.catch_warnings():
        warnings.simplefilter("error" if double else "ignore")  # in float32 1e-6 may be out of reach
        ot = gd.sinkhorn(x, y, epsilon=part * size**2, reach=None if reach is None else reach * size)
    plan = ot.plan()
    assert torch.isfinite(plan).all() and (plan >= 0).all() and torch.isfinite(ot.cost)
    if reach is None:
        torch.testing.assert_close(plan.sum(-1), torch.full((n,), 1 / n, dtype=dtype), rtol=0, atol=1e-5)
        torch.testing.assert_close(plan.sum(-2), torch.full((m,), 1 / m, dtype=dtype), rtol=0, atol=1e-5)
