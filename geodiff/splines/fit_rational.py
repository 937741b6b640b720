# SPDX-License-Identifier: Apache-2.0
"""Control points of a rational spline on a grid, for given weights and knots: small normal equations, refined.

With `W = Σ w N` on the grid, the rows are `w_k N_k / W`: no tensor product, but their Gram matrix is a contraction of
products of basis functions along each axis with 1 / W², which costs no more than a few evaluations of the spline.
Solved by Cholesky after scaling, and refined by residuals of the full problem, it is as accurate as orthogonal factors
while it is not too ill-conditioned (Björck, Linear Algebra Appl. 88/89, 1987, 31–48, on corrected seminormal
equations); where it is, the caller must take those.
"""

import math
from collections.abc import Sequence

import torch

REFINEMENTS = 2
WORST_PIVOT = 1e-5  # of the scaled Cholesky factor: condition of the rows about 1e5, of the Gram matrix 1e10


def solve_grid(
    matrices: Sequence[torch.Tensor],
    points: torch.Tensor,
    weights: torch.Tensor | None,
    point_weights: torch.Tensor | None,
) -> tuple[torch.Tensor, torch.Tensor] | None:
    """Find the control points of least squares on a grid.

    Args:
        matrices: basis matrices, `(N_a, K_a)` an axis.
        points: `(N1, …, D)`.
        weights: of the control points, `(K1, …)`, or None for 1.
        point_weights: of the points, `(N1, …)`, or None for 1.

    Returns:
        (control points `(K1, …, D)`, a root `(K, K)` of the inverse of the Gram matrix), or None where the problem is
        too ill-conditioned for it.
    """
    shape = [m.shape[1] for m in matrices]
    ones = points.new_ones(shape) if weights is None else weights
    below = _along(matrices, ones)
    omega = torch.ones_like(below) if point_weights is None else point_weights
    gram = _gram(matrices, omega / below.square()) * torch.outer(ones.flatten(), ones.flatten())
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
    transposed = [m.mT for m in matrices]
    dim = points.shape[-1]
    control = points.new_zeros(*shape, dim)
    residual = points
    for again in range(1 + REFINEMENTS):
        if again:
            residual = points - _along(matrices, control * ones[..., None]) / below[..., None]
        right = ones[..., None] * _along(transposed, residual * (omega / below)[..., None])
        control = control + (root @ (root.mT @ right.reshape(-1, dim))).reshape(control.shape)
    return control, root


def _along(matrices: Sequence[torch.Tensor], net: torch.Tensor) -> torch.Tensor:
    for axis, matrix in enumerate(matrices):
        net = torch.tensordot(matrix, net, dims=([1], [axis])).movedim(0, axis)
    return net


def _gram(matrices: Sequence[torch.Tensor], omega: torch.Tensor) -> torch.Tensor:
    """Return `Σ_g ω_g N_k(g) N_l(g)` over grid points g, `(K, K)`."""
    products = [(m[:, :, None] * m[:, None, :]).flatten(1).mT for m in matrices]
    net = _along(products, omega)
    counts = [m.shape[1] for m in matrices]
    net = net.reshape([c for count in counts for c in (count, count)])
    axes = len(counts)
    net = net.permute(*range(0, 2 * axes, 2), *range(1, 2 * axes, 2))
    return net.reshape(math.prod(counts), math.prod(counts))
