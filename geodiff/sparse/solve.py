# SPDX-License-Identifier: Apache-2.0
"""One large sparse linear system, with the gradient on the pattern of its matrix.

`A x = b`: with `λ = A⁻ᵀ ∂L/∂x`, `∂L/∂b = λ` and `∂L/∂A_ij = −λ_i x_j` where A has entries, and nowhere else. The
factorisation of the forward solve serves the backward one.
"""

import importlib
from typing import Any

import numpy as np
import torch

from geodiff.modes import outside_autocast, refuse_transforms
from geodiff.sparse.matrix import Pattern, SparseMatrix
from geodiff.validation import check_finite, choice, fail, floating

# A scaled condition above which ten digits of float64's sixteen would be gone, and a singular matrix always is.
MOST_CONDITION = 1e13
# Of values rounded to float32, no digit would be left; singular ones seem to have 1e7 and more.
MOST_OF_FLOAT32 = 4e6
METHODS = ("lu", "cholmod", "cg")
_REGULAR = "regular"
_FIX = (
    "Hold an unknown of each piece, e.g. dirichlet={'all': 0.0}; where only a constant is undetermined, "
    'fem.solve_poisson has gauge="mean".'
)


def _positive(where: str, method: str, positive: bool) -> None:
    if not positive:
        fix = 'Say positive=True if it is, or use method="lu".'
        raise fail(where, "matrix", f"symmetric and positive for method='{method}'", "one not said to be", fix)


def _most(values: torch.Tensor) -> float:
    return MOST_OF_FLOAT32 if values.dtype == torch.float32 else MOST_CONDITION


class Factor:
    """Solves with a matrix of SciPy by its LU factorisation."""

    def __init__(self, where: str, pattern: Pattern, values: torch.Tensor, positive: bool) -> None:
        import scipy.sparse.linalg

        matrix = pattern.csc(values)
        self._symmetric = positive
        self._most = _most(values)
        # No pivoting and a symmetric order where the matrix is positive.
        how: dict[str, Any] = {"permc_spec": "COLAMD"}
        if positive:
            how = {"permc_spec": "MMD_AT_PLUS_A", "diag_pivot_thresh": 0.0, "options": {"SymmetricMode": True}}
        try:
            self._factor = scipy.sparse.linalg.splu(matrix, **how)
        except RuntimeError as error:
            if "singular" not in str(error):
                raise
            empty = np.flatnonzero(np.diff(matrix.tocsr().indptr) == 0)
            got = f"an empty row {empty[0]}" if len(empty) else "an exactly singular one"
            raise fail(where, "matrix", _REGULAR, got, _FIX) from None
        self._check(where, matrix)

    def solve(self, b: np.ndarray, transposed: bool = False) -> np.ndarray:
        """Solve for columns (N, K) or one vector."""
        return np.asarray(self._factor.solve(b, "T" if transposed and not self._symmetric else "N"))

    def _check(self, where: str, matrix: Any) -> None:
        """Estimate the smallest singular value, rows and columns scaled, by one step or two of inverse iteration."""
        size = abs(matrix)
        rows = np.sqrt(size.max(1).toarray().ravel())
        columns = np.sqrt(size.max(0).toarray().ravel())
        start = np.cos(np.arange(len(rows)) * 1.7) + 0.1  # neither smooth nor without a mean
        with np.errstate(all="ignore"):
            first = columns * self.solve(rows * start)
            length = np.linalg.norm(first)
            # The direction sought is at least about 1/√n of the start; if even so it grows too little, all is well.
            if length <= self._most / len(rows):
                return
            second = rows * self.solve(columns * (first / length), transposed=True)
            condition = np.linalg.norm(second)
        if not condition <= self._most:
            worst = int(np.nanargmax(np.abs(first))) if np.isfinite(length) else 0
            got = f"a direction that it maps to nothing, largest at unknown {worst} (condition {condition:.0e})"
            fix = _FIX if self._most == MOST_CONDITION else f"{_FIX} A fine one needs float64."
            raise fail(where, "matrix", _REGULAR, got, fix)


class Cholesky(Factor):
    """Solves with a positive matrix by CHOLMOD's supernodal factorisation, which is CVXOPT's."""

    def __init__(self, where: str, pattern: Pattern, values: torch.Tensor, positive: bool) -> None:
        _positive(where, "cholmod", positive)
        try:
            self._cvxopt = importlib.import_module("cvxopt")
            self._cholmod = importlib.import_module("cvxopt.cholmod")
        except ImportError as error:
            message = f"{where}: method='cholmod' needs CVXOPT ({error}). Use `pip install geodiff[cholmod]`, or 'lu'."
            raise ModuleNotFoundError(message) from error
        matrix = pattern.csc(values)
        self._most = _most(values)
        lower = (pattern.rows >= pattern.columns).numpy()
        parts = (x.numpy()[lower] for x in (values.detach().to("cpu", torch.float64), pattern.rows, pattern.columns))
        own = self._cvxopt.spmatrix(*parts, matrix.shape)
        try:
            self._factor = self._cholmod.symbolic(own, uplo="L")
            self._cholmod.numeric(own, self._factor)
        except ArithmeticError as error:
            got = f"one whose pivot {error} is not positive"
            raise fail(where, "matrix", f"{_REGULAR} and positive", got, _FIX) from None
        self._check(where, matrix)

    def solve(self, b: np.ndarray, transposed: bool = False) -> np.ndarray:
        """Solve for columns (N, K) or one vector."""
        columns = self._cvxopt.matrix(np.asfortranarray(b))
        self._cholmod.solve(self._factor, columns)
        return np.array(columns).reshape(b.shape)


class Iterated:
    """Solves with a positive matrix by conjugate gradients, preconditioned by its diagonal."""

    def __init__(self, where: str, pattern: Pattern, values: torch.Tensor, positive: bool) -> None:
        _positive(where, "cg", positive)
        self._where, self._matrix = where, pattern.csc(values).tocsr()
        diagonal = self._matrix.diagonal()
        if not (diagonal > 0).all():
            row = int(np.flatnonzero(~(diagonal > 0))[0])
            raise fail(where, "matrix", _REGULAR, f"{diagonal[row]:g} on the diagonal of row {row}", _FIX)
        self._inverse = 1 / diagonal

    def solve(self, b: np.ndarray, transposed: bool = False) -> np.ndarray:
        """Solve for columns (N, K), one after the other."""
        import scipy.sparse.linalg

        step = scipy.sparse.linalg.LinearOperator(self._matrix.shape, lambda r: self._inverse * r.ravel())
        out = np.zeros_like(b)
        for k in range(b.shape[1]):
            out[:, k], failed = scipy.sparse.linalg.cg(self._matrix, b[:, k], rtol=1e-13, maxiter=len(b) * 4, M=step)
            if failed:
                got = f"no convergence to 1e-13 in {failed} steps"
                raise fail(self._where, "matrix", "of a condition that method='cg' masters", got, 'Use method="lu".')
        return out


class _Solve(torch.autograd.Function):
    """`A⁻¹ b` or `A⁻ᵀ b` of rows (..., N); its backward is another of the kind, so it has derivatives of all orders."""

    @staticmethod
    def forward(
        values: torch.Tensor, rhs: torch.Tensor, pattern: Pattern, factor: Factor | Iterated, transposed: bool
    ) -> torch.Tensor:
        rows = rhs.detach().reshape(-1, rhs.shape[-1]).to("cpu", torch.float64).numpy()
        solved = factor.solve(np.ascontiguousarray(rows.T), transposed)
        return torch.from_numpy(np.ascontiguousarray(solved.T)).reshape(rhs.shape).to(rhs.device, rhs.dtype)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: torch.Tensor) -> None:
        ctx.save_for_backward(inputs[0], output)
        ctx.others = inputs[2:]

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        values, x = ctx.saved_tensors
        pattern, factor, transposed = ctx.others
        adjoint = _Solve.apply(values, gradient, pattern, factor, not transposed)
        of_values = None
        if ctx.needs_input_grad[0]:
            row, column = pattern.rows.to(x.device), pattern.columns.to(x.device)
            left, right = (x, adjoint) if transposed else (adjoint, x)
            products = left.index_select(-1, row) * right.index_select(-1, column)
            of_values = -products.reshape(-1, len(row)).sum(0).to(values.dtype)
        return of_values, adjoint, None, None, None


@outside_autocast
def linear(matrix: SparseMatrix | torch.Tensor, rhs: torch.Tensor, *, method: str = "lu") -> torch.Tensor:
    """Solve `A x = b` with a sparse A, and have the gradient on A's pattern.

    The matrix keeps its factorisation: more right sides, later ones and backward passes cost two triangular solves.

    Args:
        matrix: A, (N, N): a `SparseMatrix`, or a sparse tensor of torch, which keeps nothing. Positive definite ones
            (`positive=True`) are factorised without pivoting.
        rhs: b, `(..., N)`: right sides along the last axis, float32 or float64.
        method: "lu", SuperLU's factorisation; "cholmod", CHOLMOD's for positive matrices, two to three times as fast
            (``pip install geodiff[cholmod]``); "cg", conjugate gradients to 1e-13 for positive ones too large for
            either (solids).

    Returns:
        x, `(..., N)`, computed on the CPU in float64, of the dtype and device of `rhs`.

    Gradients: in the matrix's values and in `rhs`, of any order.

    Raises:
        TypeError: a matrix that is not sparse, a right side that is not floating.
        ValueError: a matrix that is not square, singular (of a condition above 1e13 when its rows and columns are
            scaled, or 4e6 of values in float32), or not positive for "cholmod" and "cg"; a right side of another
            length, NaN.
        ModuleNotFoundError: "cholmod" without CVXOPT.

    Example:
        >>> import torch
        >>> from geodiff import implicit
        >>> values = torch.tensor([2.0, 4.0], requires_grad=True)
        >>> matrix = implicit.SparseMatrix(torch.tensor([0, 1]), torch.tensor([0, 1]), values, (2, 2))
        >>> x = implicit.linear(matrix, torch.tensor([1.0, 1.0]))
        >>> x
        tensor([0.5000, 0.2500], grad_fn=<_SolveBackward>)
        >>> x.sum().backward()
        >>> values.grad
        tensor([-0.2500, -0.0625])
    """
    where = "implicit.linear"
    choice(where, "method", method, METHODS)
    if not isinstance(matrix, SparseMatrix):
        matrix = SparseMatrix.from_torch(matrix)
    if matrix.shape[0] != matrix.shape[1]:
        raise fail(where, "matrix", "square", f"one of {matrix.shape[0]} × {matrix.shape[1]}")
    floating(where, "rhs", rhs, ("...", matrix.shape[0]), "Right sides lie along the last axis.")
    refuse_transforms(where, "Take gradients with torch.autograd.grad or .backward().", matrix.values, rhs)
    if not rhs.numel():
        return rhs.clone()
    kept, factor = matrix.factors.get(method, (None, None))
    if factor is None or kept is None or not torch.equal(kept, matrix.values.detach()):
        check_finite(where, "matrix", matrix.values.detach().cpu())
        kind = {"lu": Factor, "cholmod": Cholesky, "cg": Iterated}[method]
        factor = kind(where, matrix.pattern, matrix.values, matrix.positive)
        matrix.factors[method] = matrix.values.detach().clone(), factor
    solved: torch.Tensor = _Solve.apply(matrix.values, rhs, matrix.pattern, factor, False)
    return solved
