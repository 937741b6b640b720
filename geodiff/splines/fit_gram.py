# SPDX-License-Identifier: Apache-2.0
"""Control points by small normal equations, refined: for rational, weighted and scattered problems.

With `W = Σ w N`, the rows of a rational problem are `w_k N_k / W`: no tensor product, but on a grid their Gram matrix
is a contraction of products of basis functions along each axis with 1 / W², which costs no more than a few evaluations
of the spline; and rows of scattered points are sparse. Solved by Cholesky after scaling, and refined by residuals of
the full problem, the result is as accurate as with orthogonal factors while the problem is not too ill-conditioned
(Björck, Linear Algebra Appl. 88/89, 1987, 31–48, on corrected seminormal equations); where it is, the caller must take
those.
"""

import math
from collections.abc import Sequence

import numpy as np
import scipy.sparse
import torch

from geodiff.splines.basis import BSplineBasis

REFINEMENTS = 2
WORST_PIVOT = 1e-5  # of the scaled Cholesky factor: condition of the rows about 1e5, of the Gram matrix 1e10


class GridRows:
    """The rows of all points of a grid."""

    def __init__(self, matrices: Sequence[torch.Tensor], weights: torch.Tensor | None) -> None:
        self.matrices = list(matrices)
        self.counts = [m.shape[1] for m in matrices]
        self.weights = matrices[0].new_ones(self.counts) if weights is None else weights
        self.below = _along(self.matrices, self.weights)

    def gram(self, omega: torch.Tensor | None) -> torch.Tensor:
        """Return `Σ_g ω_g R_gk R_gl` over the points g, `(K, K)`."""
        products = [(m[:, :, None] * m[:, None, :]).flatten(1).mT for m in self.matrices]
        squared = self.below.square()
        net = _along(products, 1 / squared if omega is None else omega / squared)
        net = net.reshape([c for count in self.counts for c in (count, count)])
        axes, total = len(self.counts), math.prod(self.counts)
        net = net.permute(*range(0, 2 * axes, 2), *range(1, 2 * axes, 2)).reshape(total, total)
        return net * torch.outer(self.weights.flatten(), self.weights.flatten())

    def apply(self, control: torch.Tensor) -> torch.Tensor:
        """Evaluate: `(K, D)` to the points' shape."""
        net = (control * self.weights.reshape(-1, 1)).reshape(*self.counts, -1)
        return _along(self.matrices, net) / self.below[..., None]

    def adjoint(self, values: torch.Tensor) -> torch.Tensor:
        """Apply the transpose: points' shape to `(K, D)`."""
        net = _along([m.mT for m in self.matrices], values / self.below[..., None])
        return net.flatten(0, -2) * self.weights.reshape(-1, 1)


class ScatteredRows:
    """The rows of scattered points."""

    def __init__(
        self, bases: Sequence[BSplineBasis], parameters: Sequence[torch.Tensor], weights: torch.Tensor | None
    ) -> None:
        index, values = None, None
        for basis, u in zip(bases, parameters, strict=True):
            span, value = basis.values(u)
            own = span[:, None] + torch.arange(-basis.degree, 1)
            own = own % basis.count if basis.periodic else own
            if index is None or values is None:
                index, values = own, value
            else:
                index = (index[:, :, None] * basis.count + own[:, None, :]).flatten(1)
                values = (values[:, :, None] * value[:, None, :]).flatten(1)
        assert index is not None and values is not None
        if weights is not None:
            values = values * weights.flatten()[index]
            values = values / values.sum(-1, keepdim=True)
        count, each = index.shape
        starts = np.arange(0, count * each + 1, each)
        shape = (count, math.prod(b.count for b in bases))
        self.rows = scipy.sparse.csr_array((values.numpy().ravel(), index.numpy().ravel(), starts), shape=shape)
        self.rows.sum_duplicates()

    def gram(self, omega: torch.Tensor | None) -> torch.Tensor:
        """Return `Σ_n ω_n R_nk R_nl`, `(K, K)`."""
        right = self.rows if omega is None else scipy.sparse.diags_array(omega.numpy()) @ self.rows
        return torch.from_numpy((self.rows.T @ right).toarray())

    def apply(self, control: torch.Tensor) -> torch.Tensor:
        """Evaluate: `(K, D)` to `(N, D)`."""
        return torch.from_numpy(self.rows @ control.numpy())

    def adjoint(self, values: torch.Tensor) -> torch.Tensor:
        """Apply the transpose: `(N, D)` to `(K, D)`."""
        return torch.from_numpy(self.rows.T @ values.numpy())


def solve(
    rows: GridRows | ScatteredRows, points: torch.Tensor, omega: torch.Tensor | None, penalty: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor] | None:
    """Minimise `Σ_i ω_i |R_i c − p_i|² + |L c|²`.

    Args:
        rows: R.
        points: p, `(N1, …, D)`.
        omega: ω, `(N1, …)`, or None for 1.
        penalty: L, `(…, K)`, without rows for 0.

    Returns:
        (control points `(K, D)`, a root `(K, K)` of the inverse of the matrix), or None where the problem is too
        ill-conditioned for it.
    """
    gram = rows.gram(omega) + penalty.mT @ penalty
    diagonal = gram.diagonal()
    if not bool((diagonal > 0).all()):
        return None
    scale = diagonal.rsqrt()
    factor, info = torch.linalg.cholesky_ex(gram * torch.outer(scale, scale))
    if int(info) or float(factor.diagonal().min()) < WORST_PIVOT:
        return None
    root = (
        scale[:, None] * torch.linalg.solve_triangular(factor, torch.eye(len(gram), dtype=gram.dtype), upper=False).mT
    )
    control = points.new_zeros(len(gram), points.shape[-1])
    residual = points
    for again in range(1 + REFINEMENTS):
        if again:
            residual = points - rows.apply(control)
        right = rows.adjoint(residual if omega is None else residual * omega[..., None])
        # From L c, not LᵀL c: strong smoothing makes it small, and so are then its roundings.
        right = right - penalty.mT @ (penalty @ control)
        control = control + root @ (root.mT @ right)
    return control, root


def _along(matrices: Sequence[torch.Tensor], net: torch.Tensor) -> torch.Tensor:
    for axis, matrix in enumerate(matrices):
        net = torch.tensordot(matrix, net, dims=([1], [axis])).movedim(0, axis)
    return net
