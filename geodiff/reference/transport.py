# SPDX-License-Identifier: Apache-2.0
"""The sums over all pairs of two clouds that entropic optimal transport consists of; the whole matrix is stored."""

import torch

from geodiff.modes import outside_autocast

EXPONENT_CAP = {torch.float32: 60.0, torch.float64: 600.0}
"""`apply` and `apply_gradient` take larger exponents for these: far from convergence sums stay finite."""


@outside_autocast
def pair_cost(x: torch.Tensor, y: torch.Tensor, p: int = 2) -> torch.Tensor:
    """Return the costs of all pairs `(..., N, M)`: `|x_i − y_j|²` for p = 2, `|x_i − y_j|` for p = 1.

    Args:
        x: `(..., N, D)`.
        y: `(..., M, D)`.
        p: 1 or 2.

    Gradients: in both clouds; zero for p = 1 where points coincide.

    Example:
        >>> pair_cost(torch.tensor([[0.0, 0.0]]), torch.tensor([[3.0, 4.0]]), p=1)
        tensor([[5.]])
    """
    square = (x[..., :, None, :] - y[..., None, :, :]).square().sum(-1)
    if p == 2:
        return square
    apart = square > 0
    return torch.where(apart, torch.where(apart, square, 1.0).sqrt(), 0.0)


@outside_autocast
def lse(x: torch.Tensor, y: torch.Tensor, h: torch.Tensor, epsilon: float, p: int = 2) -> torch.Tensor:
    """Return `log Σ_j exp(h_j − C_ij/ε)` for each i: half an iteration of Sinkhorn; twin of `geodiff.ops.lse`.

    Args:
        x: `(..., N, D)`.
        y: `(..., M, D)`.
        h: `(..., M)`, less than infinity; −infinity leaves a point out.
        epsilon: ε > 0, in the units of C.
        p: the cost C_ij is `|x_i − y_j|ᵖ`, p = 1 or 2.

    Returns:
        `(..., N)`; −infinity where no term is left.

    Example:
        >>> lse(torch.zeros(1, 1), torch.tensor([[0.0], [1.0]]), torch.zeros(2), epsilon=1.0)
        tensor([0.3133])
    """
    return torch.logsumexp(h[..., None, :] - pair_cost(x, y, p) / epsilon, -1)


def _weights(
    x: torch.Tensor, y: torch.Tensor, h: torch.Tensor, k: torch.Tensor, epsilon: float, p: int
) -> torch.Tensor:
    exponent = k[..., :, None] + h[..., None, :] - pair_cost(x, y, p) / epsilon
    return exponent.clamp(max=EXPONENT_CAP[exponent.dtype]).exp()


@outside_autocast
def apply(
    x: torch.Tensor,
    y: torch.Tensor,
    h: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    epsilon: float,
    p: int = 2,
) -> torch.Tensor:
    """Return `Σ_j P_ij v_j` with `P_ij = exp(k_i + h_j − C_ij/ε)`, the plan times v; twin of `geodiff.ops.apply`.

    Args:
        x: `(..., N, D)`.
        y: `(..., M, D)`.
        h: `(..., M)`; −infinity makes a column of exact zeros.
        k: `(..., N)`; −infinity makes a row of exact zeros.
        v: `(..., M, E)`.
        epsilon: ε > 0, in the units of C.
        p: the cost C_ij is `|x_i − y_j|ᵖ`, p = 1 or 2.

    Returns:
        `(..., N, E)`. Exponents above 60 (float32) or 600 (float64) count as that much.

    Example:
        >>> x, zero, v = torch.tensor([[0.0], [1.0]]), torch.zeros(2), torch.ones(2, 1)
        >>> apply(x, x, zero, zero, v, epsilon=1.0)
        tensor([[1.3679],
                [1.3679]])
    """
    return _weights(x, y, h, k, epsilon, p) @ v


@outside_autocast
def apply_gradient(
    x: torch.Tensor,
    y: torch.Tensor,
    h: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    epsilon: float,
    p: int = 2,
) -> torch.Tensor:
    """Return `Σ_j P_ij v_je ∂C_ij/∂x_i` with `P_ij = exp(k_i + h_j − C_ij/ε)`; twin of `geodiff.ops.apply_gradient`.

    The gradient in x_i of `Σ_ij W_ij C_ij`, W held, for weights W that are sums of products of P_ij with numbers of
    the rows and of the columns.

    Args:
        x: `(..., N, D)`.
        y: `(..., M, D)`.
        h: `(..., M)`; −infinity makes a column of exact zeros.
        k: `(..., N)`; −infinity makes a row of exact zeros.
        v: `(..., M, E)`.
        epsilon: ε > 0, in the units of C.
        p: the cost C_ij is `|x_i − y_j|ᵖ`, p = 1 or 2; for p = 1 its gradient is 0 where points coincide.

    Returns:
        `(..., N, E, D)`. Exponents above 60 (float32) or 600 (float64) count as that much.

    Example:
        >>> x, y, zero = torch.tensor([[0.0]]), torch.tensor([[1.0]]), torch.zeros(1)
        >>> apply_gradient(x, y, zero, zero, torch.ones(1, 1), epsilon=1.0)
        tensor([[[-0.7358]]])
    """
    difference = x[..., :, None, :] - y[..., None, :, :]
    if p == 2:
        slope = 2 * difference
    else:
        length = pair_cost(x, y, 1)[..., None]
        slope = torch.where(length > 0, difference / torch.where(length > 0, length, 1.0), 0.0)
    return torch.einsum("...ij,...je,...ijd->...ied", _weights(x, y, h, k, epsilon, p), v, slope)
