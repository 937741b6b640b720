# SPDX-License-Identifier: Apache-2.0
"""The linear part of a spline fit: for given parameters, knots and weights the best control points are linear in data.

Least squares by orthogonal factors, axis by axis where the problem is a tensor product, else over all rows at once in
blocks; never by normal equations (Golub and Van Loan, "Matrix Computations", 4th edition 2013, chapter 5).
"""

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch

from geodiff.splines import fit_gram
from geodiff.splines.basis import BSplineBasis

BLOCK = 1 << 21  # entries of the design matrix held at once
RANK_TOLERANCE = 1e-12  # relative singular value below which a direction counts as not determined


@dataclass
class Pin:
    """A condition met exactly: the derivative of some order at some parameters is this value `(D,)`."""

    at: tuple[float, ...]
    order: tuple[int, ...]
    value: torch.Tensor


@dataclass
class Problem:
    """Points `(N, D)` with one parameter an axis each, or a grid `(N1, N2, …, D)`, in float64.

    The objective is `Σ_i ω_i |S(u_i) − p_i|² / (D Σ_i ω_i) + λ ∫ Σ_{|a| = 2} (2 / a!) |∂^a S|² / D`, with weights ω_i
    of the points and λ the smoothing: for a curve the integral of |C″|², for a surface the thin-plate energy
    `∫∫ |S_uu|² + 2 |S_uv|² + |S_vv|²`.
    """

    points: torch.Tensor
    parameters: tuple[torch.Tensor, ...]
    degree: tuple[int, ...]
    periodic: tuple[bool, ...]
    grid: bool
    smoothing: float = 0.0
    point_weights: torch.Tensor | None = None
    pins: list[Pin] = field(default_factory=list)

    @property
    def dim(self) -> int:
        """D."""
        return self.points.shape[-1]

    def bases(self, knots: Sequence[torch.Tensor]) -> list[BSplineBasis]:
        """One basis an axis."""
        return [BSplineBasis(k, p, w) for k, p, w in zip(knots, self.degree, self.periodic, strict=True)]

    def matrices(self, knots: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        """Basis matrices at the parameters, `(N, K)` an axis; differentiable in the knots and the parameters."""
        return [b.matrix(u) for b, u in zip(self.bases(knots), self.parameters, strict=True)]

    def predict(
        self, control: torch.Tensor, matrices: Sequence[torch.Tensor], weights: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Evaluate the spline with control points `(K1, …, D)` where the points are."""
        if weights is not None:
            control = torch.cat([control * weights[..., None], weights[..., None]], -1)
        value = apply_grid(matrices, control) if self.grid else apply_scattered(matrices, control)
        return value if weights is None else value[..., :-1] / value[..., -1:]

    def objective(
        self, control: torch.Tensor, knots: Sequence[torch.Tensor], weights: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Return the objective.

        At the best control points, held, its gradient in knots and weights is that of the objective reduced to them,
        since that in the control points vanishes (the envelope theorem).
        """
        squares = (self.predict(control, self.matrices(knots), weights) - self.points).square()
        if self.point_weights is None:
            value = squares.mean()
        else:
            value = (squares.mean(-1) * self.point_weights).sum() / self.point_weights.sum()
        if self.smoothing > 0:
            value = value + self.smoothing * self.energy(control, knots)
        return value

    def energy(self, control: torch.Tensor, knots: Sequence[torch.Tensor]) -> torch.Tensor:
        """Return the smoothing integral over D, by Gauss quadrature on each span, which is exact."""
        terms = [factor * apply_grid(m, control).square().sum() for factor, m in self._bending(knots)]
        return torch.stack(terms).sum() / self.dim

    def _bending(
        self, knots: Sequence[torch.Tensor], reduce: bool = False
    ) -> Iterator[tuple[float, list[torch.Tensor]]]:
        roots = [[quadrature_root(b, order) for order in range(3)] for b in self.bases(knots)]
        if reduce:
            roots = [[torch.linalg.qr(r, mode="r").R for r in axis] for axis in roots]
        for order in itertools.product(range(3), repeat=len(roots)):
            if sum(order) == 2:
                factor = 2.0 / math.prod(math.factorial(o) for o in order)
                yield factor, [axis[o] for axis, o in zip(roots, order, strict=True)]

    # Solving ---------------------------------------------------------------------------------------------------------

    def solve(self, knots: Sequence[torch.Tensor], weights: torch.Tensor | None = None) -> tuple[torch.Tensor, int]:
        """Find the control points `(K1, …, D)` of least objective, of least norm where several are.

        Returns:
            (control points, rank of the problem); the rank is the product of the K where all is determined.

        Gradients: in points, parameters and knots, where they ask for it.
        """
        with torch.no_grad():
            matrices = self.matrices(knots)
            control, rank, inverse = self._solve(matrices, knots, weights)
        sources = [self.points, *self.parameters, *knots]
        if torch.is_grad_enabled() and any(s.requires_grad for s in sources):
            control = self._attach(control, knots, weights, inverse)
        return control, rank

    def _solve(
        self, matrices: list[torch.Tensor], knots: Sequence[torch.Tensor], weights: torch.Tensor | None
    ) -> tuple[torch.Tensor, int, list[torch.Tensor]]:
        shape = tuple(m.shape[-1] for m in matrices)
        tensor = self.grid and weights is None and self.point_weights is None
        if tensor and not self.pins and self.smoothing == 0:
            inverses, rank = [], 1
            for m in matrices:
                inverse, r = pseudo_inverse(m)
                inverses.append(inverse)
                rank *= r
            return apply_grid(inverses, self.points), rank, inverses
        if not tensor and not self.pins:
            quick = self._solve_gram(matrices, knots, weights)
            if quick is not None:
                return quick[0].reshape(*shape, self.dim), math.prod(shape), [quick[1]]
        points = self.points
        if tensor:  # |A C Bᵀ − Z|² = |R_A C R_Bᵀ − Q_Aᵀ Z Q_B|² + a constant
            factors = [torch.linalg.qr(m) for m in matrices]
            points = apply_grid([f.Q.mT for f in factors], points)
            matrices = [f.R for f in factors]
        null, special = self._pinned(knots, weights, shape)
        triangle = torch.zeros(0, null.shape[1] + self.dim, dtype=torch.float64)

        def add(rows: torch.Tensor, data: torch.Tensor) -> torch.Tensor:
            block = torch.cat([rows @ null, data - rows @ special], -1)
            return torch.linalg.qr(torch.cat([triangle, block]), mode="r").R

        for rows, data, omega in self._blocks(matrices, points, weights):
            root = 1.0 if omega is None else omega.sqrt()[:, None]
            triangle = add(root * rows, root * data)
        if self.smoothing > 0:
            rows = self.penalty_roots(knots)
            triangle = add(rows, rows.new_zeros(len(rows), self.dim))
        free = null.shape[1]
        inverse, rank = triangular_inverse(triangle[:free, :free])
        solution = special + null @ (inverse @ triangle[:free, free:])
        return solution.reshape(*shape, self.dim), rank + len(self.pins), [null @ inverse]

    def _solve_gram(
        self, matrices: list[torch.Tensor], knots: Sequence[torch.Tensor], weights: torch.Tensor | None
    ) -> tuple[torch.Tensor, torch.Tensor] | None:
        rows: fit_gram.GridRows | fit_gram.ScatteredRows
        if self.grid:
            rows = fit_gram.GridRows(matrices, weights)
        else:
            rows = fit_gram.ScatteredRows(self.bases(knots), self.parameters, weights)
        return fit_gram.solve(rows, self.points, self.point_weights, self.penalty_roots(knots))

    def penalty_roots(self, knots: Sequence[torch.Tensor]) -> torch.Tensor:
        """Return rows L `(…, K)` with `|L c|²` the smoothing on the scale of `Σ ω |S − p|²`; none without smoothing."""
        if self.smoothing == 0:
            return torch.zeros(0, math.prod(b.count for b in self.bases(knots)), dtype=torch.float64)
        scale = self.smoothing * self._total()
        return torch.cat([math.sqrt(f * scale) * joint_grid(roots) for f, roots in self._bending(knots, True)])

    def _total(self) -> float:
        return float(self.points[..., 0].numel() if self.point_weights is None else self.point_weights.sum())

    def _blocks(
        self, matrices: list[torch.Tensor], points: torch.Tensor, weights: torch.Tensor | None
    ) -> Iterator[tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]]:
        columns = math.prod(m.shape[-1] for m in matrices)
        inner = math.prod(len(m) for m in matrices[1:]) if self.grid else 1
        step = max(1, BLOCK // (columns * inner), 2 * columns // inner)
        for start in range(0, len(matrices[0]), step):
            part = slice(start, start + step)
            if self.grid:
                rows = joint_grid([matrices[0][part], *matrices[1:]])
            else:
                rows = joint_scattered([m[part] for m in matrices])
            if weights is not None:
                rows = rational_rows(rows, weights)
            omega = None if self.point_weights is None else self.point_weights[part].reshape(-1)
            yield rows, points[part].reshape(-1, self.dim), omega

    def _pinned(
        self, knots: Sequence[torch.Tensor], weights: torch.Tensor | None, shape: tuple[int, ...]
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return a basis of the control points that meet the pins with value 0, and a solution that meets them."""
        count = math.prod(shape)
        if not self.pins:
            return torch.eye(count, dtype=torch.float64), torch.zeros(count, self.dim, dtype=torch.float64)
        rows, values = self._pin_rows(knots, weights)
        lift, null = _lift(rows)
        return null, lift @ values

    def _pin_rows(
        self, knots: Sequence[torch.Tensor], weights: torch.Tensor | None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        bases = self.bases(knots)
        rows = []
        for pin in self.pins:
            at = [torch.tensor([a], dtype=torch.float64) for a in pin.at]
            rows.append(joint_scattered([b.matrix(a, o) for b, a, o in zip(bases, at, pin.order, strict=True)]))
        joined = torch.cat(rows)
        return (
            joined if weights is None else rational_rows(joined, weights),
            torch.stack([pin.value for pin in self.pins]),
        )

    def _attach(
        self,
        control: torch.Tensor,
        knots: Sequence[torch.Tensor],
        weights: torch.Tensor | None,
        inverse: list[torch.Tensor],
    ) -> torch.Tensor:
        """Take one Newton step on the optimality conditions with their derivative held.

        It changes no value, and its derivative is the implicit one of the solution.
        """
        total = self._total()
        moved = control.detach().requires_grad_()
        if not self.pins:
            (gradient,) = torch.autograd.grad(self.objective(moved, knots, weights), moved, create_graph=True)
        else:  # with multipliers μ of the pins E c = f: ∇f(c) + Eᵀ μ = 0
            rows, values = self._pin_rows(knots, weights)
            lift, _ = _lift(rows.detach())
            (slope,) = torch.autograd.grad(self.objective(moved, knots, weights), moved)
            multipliers = -(lift.mT @ slope.flatten(0, -2))
            missed = lift @ (rows @ control.flatten(0, -2) - values)
            moved = moved - (missed - missed.detach()).reshape(control.shape)
            (gradient,) = torch.autograd.grad(self.objective(moved, knots, weights), moved, create_graph=True)
            gradient = gradient + (rows.mT @ multipliers).reshape(control.shape)
        scaled = gradient * (total * self.dim / 2)
        if len(inverse) > 1:
            step = apply_grid([g @ g.mT for g in inverse], scaled)
        else:
            step = (inverse[0] @ (inverse[0].mT @ scaled.flatten(0, -2))).reshape(control.shape)
        return moved - (step - step.detach())


def _lift(rows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the right inverse of full rows `(q, K)`, `(K, q)`, and a basis of their null space, `(K, K − q)`."""
    q, r = torch.linalg.qr(rows.mT, mode="complete")
    held = len(rows)
    eye = torch.eye(held, dtype=rows.dtype)
    return q[:, :held] @ torch.linalg.solve_triangular(r[:held].mT, eye, upper=False), q[:, held:]


def without_sample(basis: BSplineBasis, u: torch.Tensor) -> int | None:
    """Return the first basis function that can be given no sample of its own, or None.

    The condition of Schoenberg and Whitney: some distinct parameters `u_0 < u_1 < …` have `N_k(u_k) ≠ 0` for all k
    (de Boor, "A Practical Guide to Splines", 2001, chapter XIV). Where periodic, only supports without samples count.
    """
    sites = u.detach().unique()
    inside = basis.matrix(sites).detach() != 0
    if basis.periodic:
        empty = (~inside.any(0)).nonzero()
        return int(empty[0]) if len(empty) else None
    taken = -1
    for k in range(basis.count):
        later = inside[taken + 1 :, k].nonzero()
        if not len(later):
            return k
        taken += 1 + int(later[0])
    return None


def apply_grid(matrices: Sequence[torch.Tensor], net: torch.Tensor) -> torch.Tensor:
    """Apply one matrix `(N, K)` along each axis of `(K1, K2, …, D)`."""
    for axis, matrix in enumerate(matrices):
        net = torch.tensordot(matrix, net, dims=([1], [axis])).movedim(0, axis)
    return net


def apply_scattered(matrices: Sequence[torch.Tensor], net: torch.Tensor) -> torch.Tensor:
    """Sum `Π A_a[n, k_a] · net[k1, k2, …]` over the control points: `(N, D)`."""
    value = (matrices[0] @ net.flatten(1)).unflatten(-1, net.shape[1:])
    for matrix in matrices[1:]:
        value = torch.einsum("nk,nk...->n...", matrix, value)
    return value


def joint_grid(matrices: Sequence[torch.Tensor]) -> torch.Tensor:
    """Rows of all grid points over all control points: the Kronecker product."""
    rows = matrices[0]
    for matrix in matrices[1:]:
        rows = torch.kron(rows.contiguous(), matrix.contiguous())
    return rows


def joint_scattered(matrices: Sequence[torch.Tensor]) -> torch.Tensor:
    """Rows `(N, K1 · K2 · …)` of scattered points."""
    rows = matrices[0]
    for matrix in matrices[1:]:
        rows = (rows[:, :, None] * matrix[:, None, :]).flatten(1)
    return rows


def rational_rows(rows: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """Rows of `w_k N_k / Σ w N`."""
    weighted = rows * weights.reshape(-1)
    return weighted / weighted.sum(-1, keepdim=True)


def pseudo_inverse(matrix: torch.Tensor) -> tuple[torch.Tensor, int]:
    """Return the pseudo-inverse and the rank."""
    q, r = torch.linalg.qr(matrix)
    inverse, rank = triangular_inverse(r)
    return inverse @ q.mT, rank


def triangular_inverse(r: torch.Tensor) -> tuple[torch.Tensor, int]:
    """Invert an upper triangle `(min(N, K), K)`, or pseudo-invert it where it is singular; returns the rank too."""
    rows, count = r.shape
    diagonal = r.diagonal().abs()
    if rows == count and count and float(diagonal.min()) > 1e-9 * float(diagonal.max()):
        return torch.linalg.solve_triangular(r, torch.eye(count, dtype=r.dtype), upper=True), count
    if not bool(torch.isfinite(r).all()):  # the caller finds it in the objective
        return r.new_full((count, rows), float("nan")), 0
    u, s, vt = torch.linalg.svd(r, full_matrices=False)
    rank = int((s > RANK_TOLERANCE * s.max()).sum()) if len(s) else 0
    return (vt[:rank].mT / s[:rank]) @ u[:, :rank].mT, rank


def quadrature_root(basis: BSplineBasis, order: int) -> torch.Tensor:
    """Rows `√w_q N^(order)(u_q)` at Gauss points of each span: their Gram matrix is the exact integral of products."""
    nodes, weights = (torch.from_numpy(a) for a in np.polynomial.legendre.leggauss(basis.degree + 1))
    ends = basis.knots if basis.periodic else basis.knots[basis.degree : basis.count + 1]
    low, high = ends[:-1], ends[1:]
    full = (high > low).detach()
    low, half = low[full][:, None], (high - low)[full][:, None] / 2
    at = (low + half * (1 + nodes)).flatten()
    return (half * weights).flatten().sqrt()[:, None] * basis.matrix(at, order)
