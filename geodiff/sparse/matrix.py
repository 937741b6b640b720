# SPDX-License-Identifier: Apache-2.0
"""Sparse matrices as a pattern that stays and a tensor of values that carries gradients."""

from typing import Any

import numpy as np
import torch

from geodiff.modes import outside_autocast, refuse_torch_func
from geodiff.validation import fail, floating, integers, matches


class Pattern:
    """Where a matrix may have entries: distinct places, row by row.

    Args:
        rows: (Z,) of the entries, ordered by row, then column, without repetition.
        columns: (Z,).
        shape: of the matrix.
    """

    def __init__(self, rows: np.ndarray, columns: np.ndarray, shape: tuple[int, int]) -> None:
        self.shape = shape
        self.rows, self.columns = torch.from_numpy(rows), torch.from_numpy(columns)
        self._by_columns: tuple[np.ndarray, np.ndarray, np.ndarray] | None = None

    @classmethod
    def of(cls, rows: np.ndarray, columns: np.ndarray, shape: tuple[int, int]) -> tuple["Pattern", torch.Tensor]:
        """Make one of places in any order, repeated or not; return also the entry that each of them falls on."""
        import scipy.sparse

        order = _sorted(rows, shape[0])
        starts = np.zeros(shape[0] + 1, dtype=order.dtype)
        np.cumsum(np.bincount(rows, minlength=shape[0]), out=starts[1:])
        # SciPy puts each row in order, and takes along where its entries come from.
        matrix = scipy.sparse.csr_matrix((order, columns[order], starts), shape=shape)
        matrix.has_sorted_indices = False
        matrix.sort_indices()
        columns = matrix.indices
        rows = np.repeat(np.arange(shape[0], dtype=columns.dtype), np.diff(starts))
        new = np.ones(len(rows), dtype=bool)
        new[1:] = (rows[1:] != rows[:-1]) | (columns[1:] != columns[:-1])
        entry = np.empty(len(rows), dtype=np.int64)
        entry[matrix.data] = np.cumsum(new) - 1
        return cls(rows[new].astype(np.int64), columns[new].astype(np.int64), shape), torch.from_numpy(entry)

    def csc(self, values: torch.Tensor) -> Any:
        """Return SciPy's matrix, compressed by columns, in float64."""
        import scipy.sparse

        if self._by_columns is None:
            columns = self.columns.numpy()
            order = _sorted(columns, self.shape[1])
            starts = np.searchsorted(columns[order], np.arange(self.shape[1] + 1))
            self._by_columns = order, self.rows.numpy()[order].astype(np.int32), starts.astype(np.int32)
        order, indices, starts = self._by_columns
        numbers = values.detach().to("cpu", torch.float64).numpy()[order]
        return scipy.sparse.csc_matrix((numbers, indices, starts), shape=self.shape)


def _sorted(keys: np.ndarray, size: int) -> np.ndarray:
    """Return the stable order of indices in [0, size), in linear time: SciPy's way from rows to columns is one."""
    import scipy.sparse

    kind = np.int32 if len(keys) < 2**31 - 1 else np.int64
    ones, starts = np.ones(len(keys), dtype=np.int8), np.arange(len(keys) + 1, dtype=kind)
    keys = keys.astype(kind, copy=False)
    return np.asarray(scipy.sparse.csr_matrix((ones, keys, starts), shape=(len(keys), size)).tocsc().indices)


@outside_autocast
class SparseMatrix:
    """A sparse matrix whose pattern is fixed and whose values carry gradients.

    Args:
        rows: (Z,) int64, of the entries, in any order; entries at one place add up.
        columns: (Z,) int64.
        values: (Z,) float32 or float64.
        shape: (N, M).
        positive: whether it is symmetric and positive definite (or would be with enough unknowns held), which lets
            `implicit.linear` do without pivoting; it is not verified.

    Gradients: in the values.

    Raises:
        TypeError: indices that are no integers, values that are not float32 or float64.
        ValueError: indices out of range, lengths that differ, NaN.

    Example:
        >>> import torch
        >>> from geodiff.implicit import SparseMatrix
        >>> rows, columns = torch.tensor([0, 1, 1]), torch.tensor([0, 0, 1])
        >>> matrix = SparseMatrix(rows, columns, torch.tensor([1.0, 2.0, 3.0]), (2, 2))
        >>> matrix.multiply(torch.tensor([1.0, 1.0]))
        tensor([1., 5.])
    """

    def __init__(
        self,
        rows: torch.Tensor,
        columns: torch.Tensor,
        values: torch.Tensor,
        shape: tuple[int, int],
        *,
        positive: bool = False,
    ) -> None:
        floating("SparseMatrix", "values", values, ("Z",))
        refuse_torch_func("SparseMatrix", values)
        places = []
        for name, index, size in (("rows", rows, shape[0]), ("columns", columns, shape[1])):
            if not isinstance(index, torch.Tensor):
                raise fail("SparseMatrix", name, f"an integer tensor of shape ({len(values)},)", index, error=TypeError)
            index = integers("SparseMatrix", name, index, (len(values),)).cpu()
            if len(index) and not (0 <= int(index.min()) and int(index.max()) < size):
                got = f"indices from {int(index.min())} to {int(index.max())}"
                raise fail("SparseMatrix", name, f"in [0, {size})", got)
            places.append(index.numpy())
        pattern, entry = Pattern.of(places[0], places[1], (int(shape[0]), int(shape[1])))
        summed = values.new_zeros(len(pattern.rows)).index_add(0, entry.to(values.device), values)
        self._set(pattern, summed, positive)

    def _set(self, pattern: Pattern, values: torch.Tensor, positive: bool) -> None:
        self.pattern, self.values, self.positive = pattern, values, positive
        self.factors: dict[str, tuple[torch.Tensor, Any]] = {}  # of `implicit.linear`, each with the values it is of

    @classmethod
    def _on(cls, pattern: Pattern, values: torch.Tensor, positive: bool) -> "SparseMatrix":
        new = cls.__new__(cls)
        new._set(pattern, values, positive)
        return new

    @classmethod
    def from_torch(cls, matrix: torch.Tensor, *, positive: bool = False) -> "SparseMatrix":
        """Make one of a sparse tensor of torch (COO or CSR), of two axes."""
        if not isinstance(matrix, torch.Tensor) or matrix.layout not in (torch.sparse_coo, torch.sparse_csr):
            fix = "Use matrix.to_sparse() where it is dense."
            raise fail("SparseMatrix.from_torch", "matrix", "a sparse tensor, COO or CSR", matrix, fix, TypeError)
        if not matches(matrix.shape, ("N", "M")):
            raise fail("SparseMatrix.from_torch", "matrix", "of shape (N, M)", matrix)
        matrix = matrix.to_sparse_coo().coalesce()
        rows, columns = matrix.indices()
        return cls(rows, columns, matrix.values(), (matrix.shape[0], matrix.shape[1]), positive=positive)

    @property
    def shape(self) -> tuple[int, int]:
        """(N, M)."""
        return self.pattern.shape

    @property
    def rows(self) -> torch.Tensor:
        """Rows of the entries, (Z,), in order."""
        return self.pattern.rows.to(self.values.device)

    @property
    def columns(self) -> torch.Tensor:
        """Columns of the entries, (Z,), in order within a row."""
        return self.pattern.columns.to(self.values.device)

    def __repr__(self) -> str:
        return f"SparseMatrix({self.shape[0]} × {self.shape[1]}, {len(self.values)} entries)"

    def to_torch(self) -> torch.Tensor:
        """Return a coalesced sparse COO tensor of torch, with the gradient."""
        places = torch.stack([self.rows, self.columns])
        return torch.sparse_coo_tensor(places, self.values, self.shape, is_coalesced=True, check_invariants=False)

    def multiply(self, x: torch.Tensor) -> torch.Tensor:
        """Return `A x` of vectors (..., M), as (..., N)."""
        floating("SparseMatrix.multiply", "x", x, ("...", self.shape[1]))
        products = self.values * x.index_select(-1, self.columns)
        return products.new_zeros(*x.shape[:-1], self.shape[0]).index_add(-1, self.rows, products)

    def diagonal(self) -> torch.Tensor:
        """Return the diagonal, (min(N, M),)."""
        on = self.rows == self.columns
        return self.values.new_zeros(min(self.shape)).index_add(0, self.rows[on], self.values[on])

    def part(self, rows: torch.Tensor, columns: torch.Tensor) -> "SparseMatrix":
        """Return the block of the given rows and columns, each named once, in their order."""
        keep = torch.ones(len(self.values), dtype=torch.bool)
        found = []
        for name, index, own, size in (
            ("rows", rows, self.pattern.rows, self.shape[0]),
            ("columns", columns, self.pattern.columns, self.shape[1]),
        ):
            index = integers("SparseMatrix.part", name, index, ("K",)).cpu()
            place = torch.full((size,), -1)
            if len(index) and not (0 <= int(index.min()) and int(index.max()) < size):
                got = f"indices from {int(index.min())} to {int(index.max())}"
                raise fail("SparseMatrix.part", name, f"in [0, {size})", got)
            place[index] = torch.arange(len(index))
            if int((place >= 0).sum()) < len(index):
                number = int(index.bincount().argmax())
                raise fail("SparseMatrix.part", name, "of indices that are each named once", f"{number} more than once")
            keep &= place[own] >= 0
            found.append(place[own])
        own_rows, own_columns = found[0][keep], found[1][keep]
        values = self.values[keep.to(self.values.device)]
        shape = (len(rows), len(columns))
        if bool((rows[1:] > rows[:-1]).all()) and bool((columns[1:] > columns[:-1]).all()):
            pattern = Pattern(own_rows.numpy(), own_columns.numpy(), shape)
        else:
            pattern, entry = Pattern.of(own_rows.numpy(), own_columns.numpy(), shape)
            order = torch.empty_like(entry)
            order[entry] = torch.arange(len(entry))
            values = values[order.to(values.device)]
        same = len(rows) == len(columns) and torch.equal(rows, columns)
        return self._on(pattern, values, self.positive and same)

    def __add__(self, other: "SparseMatrix") -> "SparseMatrix":
        if not isinstance(other, SparseMatrix):
            return NotImplemented
        if self.shape != other.shape:
            raise fail("SparseMatrix", "other", f"of shape {self.shape}", str(other.shape))
        positive = self.positive and other.positive
        if self.pattern is other.pattern:
            return self._on(self.pattern, self.values + other.values, positive)
        rows, columns = torch.cat([self.rows, other.rows]), torch.cat([self.columns, other.columns])
        values = torch.cat([self.values, other.values])
        return SparseMatrix(rows, columns, values, self.shape, positive=positive)

    def __mul__(self, factor: Any) -> "SparseMatrix":
        """Times a number, which must be positive where the matrix is to stay positive."""
        return self._on(self.pattern, self.values * factor, self.positive)

    __rmul__ = __mul__
