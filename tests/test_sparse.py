# SPDX-License-Identifier: Apache-2.0
"""Sparse systems: against dense solves, finite differences, and what a singular one says."""

import sys

import pytest
import torch
from torch.autograd import gradcheck, gradgradcheck

from geodiff import implicit
from geodiff.sparse import solve

F64 = torch.float64
DRAW = torch.Generator().manual_seed(3)
# Two ways to solve one well-conditioned system in float64.
ROUNDING = {"rtol": 1e-12, "atol": 1e-13}


def banded(n: int = 7) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """An unsymmetric matrix in triplets, one place named twice."""
    dense = torch.rand(n, n, generator=DRAW, dtype=F64) * (torch.rand(n, n, generator=DRAW) < 0.4)
    rows, columns = (dense + 4 * torch.eye(n)).nonzero().T
    values = torch.rand(len(rows), generator=DRAW, dtype=F64) + 4 * (rows == columns)
    return torch.cat([rows, rows[:1]]), torch.cat([columns, columns[:1]]), torch.cat([values, values[:1]])


def path(n: int, ends: float = 0.0) -> implicit.SparseMatrix:
    """The Laplacian of a path, whose constants are its kernel, plus something at its ends."""
    i = torch.arange(n - 1)
    weight = 1 + 0.1 * torch.rand(n - 1, generator=DRAW, dtype=F64)
    rows, columns = torch.cat([i, i + 1, i, i + 1, i[:1]]), torch.cat([i, i + 1, i + 1, i, i[:1]])
    values = torch.cat([weight, weight, -weight, -weight, torch.tensor([ends], dtype=F64)])
    return implicit.SparseMatrix(rows, columns, values, (n, n), positive=True)


def dense(rows: torch.Tensor, columns: torch.Tensor, values: torch.Tensor, n: int) -> torch.Tensor:
    return torch.zeros(n, n, dtype=values.dtype).index_put((rows, columns), values, accumulate=True)


def test_values_and_gradients_are_those_of_a_dense_solve() -> None:
    rows, columns, values = banded()
    values.requires_grad_()
    rhs = torch.rand(2, 3, 7, generator=DRAW, dtype=F64, requires_grad=True)
    got = implicit.linear(implicit.SparseMatrix(rows, columns, values, (7, 7)), rhs)
    want = torch.linalg.solve(dense(rows, columns, values, 7), rhs[..., None])[..., 0]
    torch.testing.assert_close(got, want, **ROUNDING)
    cotangent = torch.rand(2, 3, 7, generator=DRAW, dtype=F64)
    for g, w in zip(
        torch.autograd.grad(got, (values, rhs), cotangent),
        torch.autograd.grad(want, (values, rhs), cotangent),
        strict=True,
    ):
        torch.testing.assert_close(g, w, **ROUNDING)


def test_gradients_of_first_and_second_order_by_finite_differences() -> None:
    rows, columns, values = banded(4)
    rhs = torch.rand(2, 4, generator=DRAW, dtype=F64, requires_grad=True)

    def solved(values: torch.Tensor, rhs: torch.Tensor) -> torch.Tensor:
        return implicit.linear(implicit.SparseMatrix(rows, columns, values, (4, 4)), rhs)

    assert gradcheck(solved, (values.requires_grad_(), rhs))
    assert gradgradcheck(solved, (values, rhs))


@pytest.mark.parametrize("method", ["lu", "cholmod", "cg"])
def test_positive_matrices_by_all_methods(method: str) -> None:
    if method == "cholmod":
        pytest.importorskip("cvxopt")
    matrix = path(40, 1.0)
    rhs = torch.rand(3, 40, generator=DRAW, dtype=F64)
    got = implicit.linear(matrix, rhs, method=method)
    # The condition is below 1e4, and cg stops at 1e-13.
    torch.testing.assert_close(matrix.multiply(got), rhs, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(got, torch.linalg.solve(matrix.to_torch().to_dense(), rhs.T).T, rtol=1e-8, atol=1e-8)


def test_the_factor_serves_later_solves_and_backward(monkeypatch: pytest.MonkeyPatch) -> None:
    made = []
    start = solve.Factor.__init__
    monkeypatch.setattr(solve.Factor, "__init__", lambda self, *rest: (made.append(1), start(self, *rest))[0])
    matrix, rhs = path(9, 1.0), torch.ones(9, dtype=F64, requires_grad=True)
    for _ in range(3):
        implicit.linear(matrix, rhs).sum().backward()
    assert len(made) == 1
    matrix.values.mul_(2)  # no longer the same matrix
    torch.testing.assert_close(matrix.multiply(implicit.linear(matrix, rhs)), rhs, **ROUNDING)
    assert len(made) == 2


@pytest.mark.parametrize("inference", [False, True])
def test_a_factor_of_other_values_is_not_used(inference: bool) -> None:
    rhs = torch.ones(9, dtype=F64)
    with torch.inference_mode(inference), torch.no_grad():
        matrix = path(9, 1.0)
        first = implicit.linear(matrix, rhs)
        matrix.values.mul_(2)
        assert torch.equal(implicit.linear(matrix, rhs), first / 2)
        matrix.values = matrix.values * 2  # a new tensor, which has a version of its own
        assert torch.equal(implicit.linear(matrix, rhs), first / 4)
        assert torch.equal(implicit.linear(matrix, 4 * rhs), first)


def test_cholmod_has_the_same_gradients_and_refusals(monkeypatch: pytest.MonkeyPatch) -> None:
    """First and second order, several right sides; what it reads is the lower half, in any order of entries."""
    cholmod = pytest.importorskip("cvxopt.cholmod")
    made, numeric = [], cholmod.numeric
    monkeypatch.setattr(cholmod, "numeric", lambda *given: (made.append(1), numeric(*given))[0])
    rhs = torch.rand(3, 40, generator=DRAW, dtype=F64, requires_grad=True)
    found, base = [], path(40, 1.0)
    for method in ("lu", "cholmod"):
        values = base.values.detach().clone().requires_grad_()
        matrix = implicit.SparseMatrix(base.rows.flip(0), base.columns.flip(0), values.flip(0), (40, 40), positive=True)
        first = torch.autograd.grad(
            implicit.linear(matrix, rhs, method=method).square().sum(), (values, rhs), create_graph=True
        )
        second = torch.autograd.grad(sum(g.square().sum() for g in first), (values, rhs))
        found.append((*first, *second))
    assert len(made) == 1  # one factorisation for all of it
    for own, other in zip(*found, strict=True):
        torch.testing.assert_close(own, other, rtol=1e-8, atol=1e-8 * float(other.detach().abs().max()))
    for n in (3, 3000):
        with pytest.raises(ValueError, match=r"`matrix` must be regular.*; got .*dirichlet="):
            implicit.linear(path(n), torch.ones(n, dtype=F64), method="cholmod")
    one = torch.ones(1, dtype=torch.int64)
    with pytest.raises(ValueError, match=r"must be symmetric and positive for method='cholmod'"):
        implicit.linear(implicit.SparseMatrix(one, one, torch.ones(1), (2, 2)), torch.ones(2), method="cholmod")
    monkeypatch.setitem(sys.modules, "cvxopt", None)
    with pytest.raises(ModuleNotFoundError, match=r"method='cholmod' needs CVXOPT .*pip install geodiff\[cholmod\]"):
        implicit.linear(path(9, 1.0), torch.ones(9, dtype=F64), method="cholmod")


def test_float32_is_solved_in_float64() -> None:
    rows, columns, values = banded()
    matrix = implicit.SparseMatrix(rows, columns, values.float(), (7, 7))
    x = implicit.linear(matrix, torch.ones(7))
    assert x.dtype == torch.float32
    want = torch.linalg.solve(dense(rows, columns, values.float().double(), 7), torch.ones(7, dtype=F64))
    torch.testing.assert_close(x.double(), want, rtol=1e-7, atol=1e-7)


@pytest.mark.filterwarnings("ignore:Sparse CSR tensor support is in beta")
def test_parts_sums_products_and_torch() -> None:
    rows, columns, values = banded()
    matrix = implicit.SparseMatrix(rows, columns, values, (7, 7))
    full = dense(rows, columns, values, 7)
    assert torch.equal(matrix.to_torch().to_dense(), full)
    assert torch.equal(matrix.diagonal(), full.diagonal())
    keep, other = torch.tensor([5, 0, 3]), torch.tensor([1, 6])
    assert torch.equal(matrix.part(keep, other).to_torch().to_dense(), full[keep][:, other])
    torch.testing.assert_close((matrix + 2.0 * matrix).to_torch().to_dense(), 3 * full, **ROUNDING)
    eye = implicit.SparseMatrix.from_torch(torch.eye(7, dtype=F64).to_sparse_csr())
    torch.testing.assert_close((matrix + eye).to_torch().to_dense(), full + torch.eye(7), **ROUNDING)
    x = torch.rand(2, 7, generator=DRAW, dtype=F64)
    torch.testing.assert_close(implicit.linear(full.to_sparse(), x), torch.linalg.solve(full, x.T).T, **ROUNDING)


@pytest.mark.parametrize("n", [3, 300, 30000])
def test_singular_ones_are_named(n: int) -> None:
    with pytest.raises(ValueError, match=r"linear: `matrix` must be regular; got .*dirichlet=.*gauge="):
        implicit.linear(path(n), torch.ones(n, dtype=F64))
    implicit.linear(path(n, 1.0), torch.ones(n, dtype=F64))  # held at one end: regular, its condition grows like n²


def test_errors() -> None:
    one = torch.ones(1, dtype=torch.int64)
    with pytest.raises(ValueError, match=r"`matrix` must be regular; got an empty row 0"):
        implicit.linear(implicit.SparseMatrix(one, one, torch.ones(1), (2, 2)), torch.ones(2))
    with pytest.raises(ValueError, match=r"`matrix` must be square; got one of 2 × 3"):
        implicit.linear(implicit.SparseMatrix(one, one, torch.ones(1), (2, 3)), torch.ones(3))
    with pytest.raises(ValueError, match=r"`rhs` must be of shape \(..., 9\)"):
        implicit.linear(path(9, 1.0), torch.ones(8, dtype=F64))
    with pytest.raises(ValueError, match=r"`rhs` must be finite"):
        implicit.linear(path(9, 1.0), torch.full((9,), torch.nan, dtype=F64))
    with pytest.raises(ValueError, match=r"`method` must be one of lu, cholmod, cg; got 'LU'"):
        implicit.linear(path(9, 1.0), torch.ones(9), method="LU")
    with pytest.raises(TypeError, match=r"from_torch: `matrix` must be a sparse tensor, COO or CSR; got float32"):
        implicit.linear(torch.eye(3), torch.ones(3))
    with pytest.raises(ValueError, match=r"from_torch: `matrix` must be of shape \(N, M\)"):
        implicit.SparseMatrix.from_torch(torch.ones(2, 2, 2).to_sparse())
    with pytest.raises(ValueError, match=r"must be symmetric and positive for method='cg'"):
        implicit.linear(implicit.SparseMatrix(one, one, torch.ones(1), (2, 2)), torch.ones(2), method="cg")
    with pytest.raises(ValueError, match=r"must be regular; got 0 on the diagonal of row 0"):
        lone = implicit.SparseMatrix(one, one, torch.ones(1), (2, 2), positive=True)
        implicit.linear(lone, torch.ones(2), method="cg")
    with pytest.raises(ValueError, match=r"of a condition that method='cg' masters; got no convergence"):
        implicit.linear(path(300), torch.ones(300, dtype=F64), method="cg")
    with pytest.raises(ValueError, match=r"SparseMatrix: `columns` must be in \[0, 1\); got indices from 1 to 1"):
        implicit.SparseMatrix(one - 1, one, torch.ones(1), (1, 1))
    with pytest.raises(TypeError, match=r"`rows` must be an integer tensor of shape \(1,\); got list"):
        implicit.SparseMatrix([0], one, torch.ones(1), (1, 2))
    with pytest.raises(ValueError, match=r"part: `rows` must be in \[0, 9\); got indices from 1 to 9"):
        path(9).part(torch.tensor([1, 9]), one)
    with pytest.raises(ValueError, match=r"part: `columns` must be of indices that are each named once; got 2 more"):
        path(9).part(one, torch.tensor([0, 2, 2]))
    with pytest.raises(ValueError, match=r"`other` must be of shape \(9, 9\); got \(8, 8\)"):
        path(9) + path(8)
    with pytest.raises(TypeError):
        path(9) + 1.0
    with pytest.raises(RuntimeError, match=r"implicit.linear has no forward-mode derivative"):
        held = path(9, 1.0)
        torch.func.grad(lambda x: implicit.linear(held, x).sum())(torch.ones(9, dtype=F64))
    with pytest.raises(RuntimeError, match=r"SparseMatrix does not take part in torch.func"):
        torch.func.grad(lambda v: implicit.SparseMatrix(one, one, v, (2, 2)).diagonal().sum())(torch.ones(1))
    assert implicit.linear(path(9, 1.0), torch.zeros(0, 9, dtype=F64)).shape == (0, 9)
    assert repr(path(9)) == "SparseMatrix(9 × 9, 25 entries)"
