# SPDX-License-Identifier: Apache-2.0
"""The matrix `K_ij = exp(k_i + h_j − C_ij/ε)` of entropic transport: stored, or streamed from points and never stored.

Batched, without autograd; `h` and `k` come as float64 and hold the logarithms of the weights too, −infinity where
there is none.
"""

import abc
from collections.abc import Iterator

import torch

from geodiff.ops.transport import Columns, times

BLOCK = 1 << 18
"""Entries of a matrix treated at a time where a whole one is not wanted."""
DIRECT = 2000
"""Most unknowns that are solved for by factors where conjugate gradients do not get there."""


class Kernel(abc.ABC):
    """What the solver and the gradients need of K, for points x (B, N, D), y (B, M, D) or a matrix of costs."""

    def __init__(
        self, x: torch.Tensor | None, y: torch.Tensor | None, matrix: torch.Tensor | None, p: int, dtype: torch.dtype
    ) -> None:
        self.points = None if x is None or y is None else (x, y)
        self.matrix, self.p, self.dtype = matrix, p, dtype
        self.epsilon = 1.0
        self.device = (matrix if x is None else x).device  # type: ignore[union-attr]
        if matrix is not None:
            self.shape = torch.Size(matrix.shape)
        else:
            assert x is not None and y is not None
            self.shape = torch.Size((*x.shape[:2], y.shape[1]))

    @abc.abstractmethod
    def absorb(
        self, k: torch.Tensor, h: torch.Tensor, epsilon: float, exact: bool = True
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Make K of these exponents; return factors (B, N), (B, M) that rounding them has left over."""

    @abc.abstractmethod
    def rows(self, v: torch.Tensor) -> torch.Tensor:
        """`K v` (B, N) for v (B, M), or (B, N, E) for (B, M, E)."""

    @abc.abstractmethod
    def columns(self, u: torch.Tensor) -> torch.Tensor:
        """`Kᵀ u` (B, M) for u (B, N), or (B, M, E) for (B, N, E)."""

    @abc.abstractmethod
    def squares(self, w: torch.Tensor) -> torch.Tensor:
        """`Σ_j K_ij² w_j` (B, N) for w (B, M)."""

    @abc.abstractmethod
    def pull(self, left: torch.Tensor, right: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Gradients of `Σ W_ij C_ij`, `W_ij = K_ij Σ_e left_ie right_je`, in x and y, or in the matrix: W."""

    @abc.abstractmethod
    def lse_rows(self, h: torch.Tensor, epsilon: float) -> torch.Tensor:
        """`log Σ_j exp(h_j − C_ij/ε)` (B, N), float64."""

    @abc.abstractmethod
    def lse_columns(self, k: torch.Tensor, epsilon: float) -> torch.Tensor:
        """`log Σ_i exp(k_i − C_ij/ε)` (B, M), float64."""

    @abc.abstractmethod
    def sums(self, u: torch.Tensor, v: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Sums of the rows (B, N) and columns (B, M) of `u_i K_ij v_j`, added up in float64."""

    @abc.abstractmethod
    def widen(self) -> None:
        """Make K and its products in float64 from the next call of `absorb` on, as far as memory stays the same."""

    @abc.abstractmethod
    def release(self) -> None:
        """Drop what only further calls of `absorb` would need."""

    def block(self, items: slice, rows: slice) -> torch.Tensor:
        """Costs of some rows, float64, the caller's to overwrite; unlike products, differences do not cancel."""
        if self.matrix is not None:  # never a view: the matrix may be the user's
            return self.matrix[items, rows].to(torch.float64, copy=True)
        assert self.points is not None
        x, y = self.points[0][items, rows].double(), self.points[1][items].double()
        if self.dtype == torch.float64 or x.shape[-1] < 3:
            cost = torch.zeros(x.shape[0], x.shape[1], y.shape[1], dtype=torch.float64, device=x.device)
            for a in range(x.shape[-1]):
                cost.add_((x[:, :, None, a] - y[:, None, :, a]).square_())
        else:  # the cancellation of products in float64 is far below what float32 points resolve
            centre = y.mean(1, keepdim=True)
            x, y = x - centre, y - centre
            cost = torch.baddbmm(y.square().sum(-1)[:, None], x, y.mT, alpha=-2).add_(x.square().sum(-1)[..., None])
            cost.clamp_(min=0)
        return cost if self.p == 2 else cost.sqrt_()

    def some(self, item: int, index: torch.Tensor, transposed: bool = False) -> torch.Tensor:
        """Costs of some rows (or columns) of one item, float64."""
        if self.matrix is not None:
            return (self.matrix[item].mT if transposed else self.matrix[item])[index].double()
        assert self.points is not None
        x, y = self.points[::-1] if transposed else self.points
        cost = torch.cdist(x[item, index].double(), y[item].double(), compute_mode="donot_use_mm_for_euclid_dist")
        return cost.square() if self.p == 2 else cost

    def blocks(self) -> Iterator[tuple[slice, slice]]:
        """Slices of items and rows, about BLOCK entries each."""
        batch, n, m = self.shape
        items = max(1, min(batch, BLOCK // max(1, n * m)))
        rows = n if items > 1 else max(1, min(n, BLOCK // max(1, m)))
        for b in range(0, batch, items):
            for i in range(0, n, rows):
                yield slice(b, min(b + items, batch)), slice(i, min(i + rows, n))

    def moments(self, left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
        """`Σ_ij K_ij C_ij Σ_e left_ie right_je` (B,), float64."""
        total = torch.zeros(self.shape[0], dtype=torch.float64, device=left.device)
        for items, rows in self.blocks():
            cost = self.block(items, rows)
            weight = left[items, rows].double() @ right[items].double().mT
            weight.mul_(self.weights(items, rows, cost))
            total[items] += torch.where(weight == 0, 0.0, cost).mul_(weight).sum((-1, -2))
        return total

    def whole(self) -> torch.Tensor | None:
        """K of each problem (B, N, M), to factor it; None where that is too large."""
        if self.shape[1] > DIRECT or self.shape[1] * self.shape[2] > DIRECT * DIRECT:
            return None
        value = torch.empty(self.shape, dtype=self.dtype, device=self.device)
        for items, rows in self.blocks():
            value[items, rows] = self.weights(items, rows, self.block(items, rows))
        return value

    @abc.abstractmethod
    def weights(self, items: slice, rows: slice, cost: torch.Tensor) -> torch.Tensor:
        """K in a block whose costs are given."""

    def gather(self, weight: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Gradients of `Σ W_ij C_ij` in x and y, or in the matrix, for a whole W (B, N, M)."""
        if self.matrix is not None:
            return (weight,)
        pulled = Pulled(self)
        for items, rows in self.blocks():
            pulled.add(items, rows, weight[items, rows])
        return pulled.parts

    def steepened(
        self, left: torch.Tensor, right: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, tuple[torch.Tensor, ...]]:
        """For `W_ij = K_ij l_i r_j C_ij`: sums over j, over i, `Σ W_ij C_ij`, and the gradients of that at fixed W."""
        batch, n, m = self.shape
        rows_sum = torch.zeros(batch, n, dtype=self.dtype, device=left.device)
        columns_sum = torch.zeros(batch, m, dtype=self.dtype, device=left.device)
        total = torch.zeros((), dtype=torch.float64, device=left.device)
        pulled = Pulled(self)
        for items, rows in self.blocks():
            cost = self.block(items, rows)
            weight = self.weights(items, rows, cost)
            weight = weight * left[items, rows, None] * right[items, None]
            weight = torch.where(weight == 0, 0.0, cost.to(weight.dtype)).mul_(weight)
            rows_sum[items, rows] = weight.sum(-1)
            columns_sum[items] += weight.sum(-2)
            total += torch.where(weight == 0, 0.0, cost).mul_(weight).sum()
            pulled.add(items, rows, weight, cost)
        return rows_sum, columns_sum, total, pulled.parts


class Pulled:
    """Gradients of `Σ W_ij C_ij` in x and y, or in the matrix, gathered block by block of W."""

    def __init__(self, kernel: Kernel) -> None:
        self.kernel = kernel
        if kernel.points is None:
            assert kernel.matrix is not None
            self.parts: tuple[torch.Tensor, ...] = (torch.zeros_like(kernel.matrix),)
        else:
            x, y = kernel.points
            self.parts = (torch.zeros_like(x), torch.zeros_like(y))
            self.centre = y.mean(1, keepdim=True)

    def add(self, items: slice, rows: slice, weight: torch.Tensor, cost: torch.Tensor | None = None) -> None:
        """Take in a block of W; for p = 1 with its costs."""
        kernel = self.kernel
        if kernel.points is None:
            self.parts[0][items, rows] = weight
            return
        x, y = (a[items] - self.centre[items] for a in kernel.points)
        x = x[:, rows]
        if kernel.p == 1:
            cost = kernel.block(items, rows) if cost is None else cost
            weight = torch.where(cost > 0, weight / torch.where(cost > 0, cost, 1.0), 0.0).to(weight.dtype)
        else:
            weight = 2 * weight
        self.parts[0][items, rows] += weight.sum(-1)[..., None] * x - weight @ y
        self.parts[1][items] += weight.sum(-2)[..., None] * y - weight.mT @ x


class Stored(Kernel):
    """K as a dense matrix: a product with it costs a fraction of making it."""

    def __init__(
        self, x: torch.Tensor | None, y: torch.Tensor | None, matrix: torch.Tensor | None, p: int, dtype: torch.dtype
    ) -> None:
        super().__init__(x, y, matrix, p, dtype)
        self.value = torch.empty(self.shape, dtype=dtype, device=self.device)
        self.rough: torch.Tensor | None = None  # costs in the working precision

    def absorb(
        self, k: torch.Tensor, h: torch.Tensor, epsilon: float, exact: bool = True
    ) -> tuple[torch.Tensor, torch.Tensor]:
        self.epsilon = epsilon
        if exact and (self.dtype == torch.float32 or self.rough is None):
            # In double precision: with potentials of size 1 and ε = 0.001 exponents in float32 have errors of 1e-4.
            for items, rows in self.blocks():
                exponent = self.block(items, rows).mul_(-1 / epsilon)
                exponent.add_(k[items, rows, None]).add_(h[items, None])
                self.value[items, rows] = exponent.exp_()
        else:
            if self.rough is None:
                self.rough = self._costs()
            torch.sub(k.to(self.dtype)[..., None], self.rough, alpha=1 / epsilon, out=self.value)
            self.value.add_(h.to(self.dtype)[:, None]).exp_()
        return torch.ones_like(k, dtype=self.dtype), torch.ones_like(h, dtype=self.dtype)

    def _costs(self) -> torch.Tensor:
        if self.matrix is not None:
            return self.matrix
        cost = torch.empty_like(self.value)
        for items, rows in self.blocks():
            cost[items, rows] = self.block(items, rows)
        return cost

    def release(self) -> None:
        self.rough = None

    def widen(self) -> None:
        """Nothing: exponents are in float64 as it is."""

    def fold(self, u: torch.Tensor, v: torch.Tensor) -> None:
        """Multiply rows and columns by u and v."""
        self.value.mul_(u[..., None]).mul_(v[:, None])

    def sums(self, u: torch.Tensor, v: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The same, of a K that u and v were folded into."""
        return self.value.sum(-1, dtype=torch.float64), self.value.sum(-2, dtype=torch.float64)

    def whole(self) -> torch.Tensor | None:
        return self.value if self.shape[1] <= DIRECT else None

    def rows(self, v: torch.Tensor) -> torch.Tensor:
        return multiply(self.value, v)

    def columns(self, u: torch.Tensor) -> torch.Tensor:
        return multiply(self.value.mT, u)

    def squares(self, w: torch.Tensor) -> torch.Tensor:
        total = torch.empty(self.shape[:2], dtype=self.dtype, device=w.device)
        for items, rows in self.blocks():
            total[items, rows] = multiply(self.value[items, rows].square(), w[items])
        return total

    def weights(self, items: slice, rows: slice, cost: torch.Tensor) -> torch.Tensor:
        return self.value[items, rows]

    def pull(self, left: torch.Tensor, right: torch.Tensor) -> tuple[torch.Tensor, ...]:
        pulled = Pulled(self)
        for items, rows in self.blocks():
            pulled.add(items, rows, (left[items, rows] @ right[items].mT).mul_(self.value[items, rows]))
        return pulled.parts

    def lse_rows(self, h: torch.Tensor, epsilon: float) -> torch.Tensor:
        total = torch.empty(self.shape[:2], dtype=torch.float64, device=h.device)
        for items, rows in self.blocks():
            total[items, rows] = torch.logsumexp(h[items, None] - self.block(items, rows) / epsilon, -1)
        return total

    def lse_columns(self, k: torch.Tensor, epsilon: float) -> torch.Tensor:
        total = torch.full((self.shape[0], self.shape[2]), -torch.inf, dtype=torch.float64, device=k.device)
        for items, rows in self.blocks():
            part = torch.logsumexp(k[items, rows, None] - self.block(items, rows) / epsilon, -2)
            total[items] = torch.logaddexp(total[items], part)
        return total


class Streamed(Kernel):
    """K made anew from the points, entry by entry, for every product with it."""

    k: torch.Tensor
    h: torch.Tensor
    wide = False

    def __init__(
        self, x: torch.Tensor | None, y: torch.Tensor | None, matrix: torch.Tensor | None, p: int, dtype: torch.dtype
    ) -> None:
        super().__init__(x, y, matrix, p, dtype)
        self.sorted: dict[tuple[int, torch.dtype], tuple[int | None, Columns]] = {}

    def absorb(
        self, k: torch.Tensor, h: torch.Tensor, epsilon: float, exact: bool = True
    ) -> tuple[torch.Tensor, torch.Tensor]:
        self.epsilon = epsilon
        self.k, self.h = (k, h) if self.wide else (k.to(self.dtype), h.to(self.dtype))
        left = torch.where(torch.isfinite(k), k - self.k.double(), 0.0).exp().to(self.dtype)
        right = torch.where(torch.isfinite(h), h - self.h.double(), 0.0).exp().to(self.dtype)
        return left, right

    def release(self) -> None:
        pass

    def widen(self) -> None:
        self.wide = True

    def _side(self, side: int, dtype: torch.dtype) -> torch.Tensor:
        """The points x, or y."""
        assert self.points is not None
        return self.points[side].to(dtype)

    def _over(self, side: int, dtype: torch.dtype) -> Columns:
        """The points that sums are over, sorted once for all iterations, and again where they were changed."""
        assert self.points is not None
        points = self.points[side]
        version = None if points.is_inference() else points._version
        found = self.sorted.get((side, dtype))
        if found is None or found[0] != version:
            found = self.sorted[side, dtype] = version, Columns(points.to(dtype))
        return found[1]

    def _times(self, v: torch.Tensor, transposed: bool, double: bool = False) -> torch.Tensor:
        """`K v`, or `Kᵀ v`, of the dtype of v."""
        dtype = torch.float64 if double else self.k.dtype
        k, h = self.k.to(dtype), self.h.to(dtype)
        if transposed:
            k, h = h, k
        return self._sum(transposed, h, k, v.to(dtype), self.epsilon).to(v.dtype)

    def _sum(self, transposed: bool, h: torch.Tensor, k: torch.Tensor, v: torch.Tensor, epsilon: float) -> torch.Tensor:
        rows, columns = self._side(transposed, k.dtype), self._over(not transposed, k.dtype)
        if v.dim() == 2:
            return columns.apply(rows, h, k, v[..., None].contiguous(), epsilon, self.p)[..., 0]
        return columns.apply(rows, h, k, v.contiguous(), epsilon, self.p)

    def rows(self, v: torch.Tensor) -> torch.Tensor:
        return self._times(v, False)

    def columns(self, u: torch.Tensor) -> torch.Tensor:
        return self._times(u, True)

    def sums(self, u: torch.Tensor, v: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        u, v = u.double(), v.double()
        return u * self._times(v, False, double=True), v * self._times(u, True, double=True)

    def squares(self, w: torch.Tensor) -> torch.Tensor:
        return self._sum(False, 2 * self.h, 2 * self.k, w.to(self.k.dtype), self.epsilon / 2).to(w.dtype)

    def weights(self, items: slice, rows: slice, cost: torch.Tensor) -> torch.Tensor:
        exponent = self.k[items, rows, None].double() + self.h[items, None].double()
        return exponent.sub_(cost, alpha=1 / self.epsilon).exp_().to(self.dtype)

    def pull(self, left: torch.Tensor, right: torch.Tensor) -> tuple[torch.Tensor, ...]:
        dtype = self.k.dtype
        (x, y), over = (self._side(side, dtype) for side in (0, 1)), [self._over(side, dtype) for side in (0, 1)]
        by_x = over[1].apply_gradient(x, self.h, self.k, right.to(dtype), self.epsilon, self.p).to(self.dtype)
        by_y = over[0].apply_gradient(y, self.k, self.h, left.to(dtype), self.epsilon, self.p).to(self.dtype)
        return (by_x * left[..., None]).sum(-2), (by_y * right[..., None]).sum(-2)

    def lse_rows(self, h: torch.Tensor, epsilon: float) -> torch.Tensor:
        return self._lse(0, h, epsilon)

    def lse_columns(self, k: torch.Tensor, epsilon: float) -> torch.Tensor:
        return self._lse(1, k, epsilon)

    def _lse(self, side: int, h: torch.Tensor, epsilon: float) -> torch.Tensor:
        dtype = torch.float64 if self.wide else self.dtype
        return self._over(1 - side, dtype).lse(self._side(side, dtype), h.to(dtype), epsilon, self.p).double()


def multiply(matrix: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    """Multiply (B, N, M) by v (B, M) or (B, M, E)."""
    if v.dim() == 3:
        return matrix @ v
    if matrix.is_cpu and matrix.shape[-1] * matrix.shape[-2] >= 4096:
        return times(matrix, v)
    return (matrix @ v[..., None])[..., 0]
