# SPDX-License-Identifier: Apache-2.0
"""Losses of relaxed orders: against a known permutation, and of a class that shall be among the first k."""

from collections.abc import Sequence
from typing import Any

import torch

from geodiff.modes import outside_autocast
from geodiff.validation import choice, fail, floating, integers, looks_at_values, number

__all__ = ["permutation_loss", "rank_loss"]

Tensor = torch.Tensor
REDUCTIONS = ("mean", "sum", "none")
_SLACK = 1e-4  # of probabilities, for rounding


@outside_autocast
def rank_loss(
    matrix: Tensor, target: Any, p_k: Sequence[float], *, scores: Tensor | None = None, reduction: str = "mean"
) -> Tensor:
    """Return `−log Σ_k P_K(k) Σ_{m ≤ k} P_{m, target}`: how surely the target is among the first k.

    F. Petersen et al., "Differentiable top-k classification learning" (2022), equation 4.3 of the thesis. `p_k` says
    how much each k matters: `[1]` asks for the first rank, `[0, 0, 0, 0, 1]` for any of the first five, `[.5, 0, 0, 0,
    .5]` for both.

    Args:
        matrix: `(..., k, n)`, the first ranks of `topk` or `sort_matrix(descending=True)`.
        target: `(...)` integers from 0 to n − 1: which input shall be there.
        p_k: P_K, no more numbers than the matrix has rows; none negative, with the sum 1.
        scores: `(..., n)`; if given, their softmax stands for "is the first" (the term of k = 1), which is steadier
            where the matrix is far from sorted.
        reduction: ``"mean"`` over the batch, ``"sum"`` or ``"none"``.

    Returns:
        A scalar, or `(...)`. At most 87 (float32) or 708 (float64), where the probability rounds to 0; without gradient
        there.

    Gradients: in matrix and scores.

    Raises:
        TypeError: a matrix that is no floating tensor, targets that are no integers.
        ValueError: shapes that do not fit, targets out of range, `p_k` that is no distribution.

    Example:
        >>> from geodiff.soft import topk
        >>> scores = torch.tensor([[2.0, 1.0, 0.0], [0.0, 1.0, 2.0]])
        >>> found = topk(scores, 2, "bitonic", temperature=0.1)
        >>> rank_loss(found.matrix, torch.tensor([1, 1]), [0.5, 0.5])
        tensor(0.6776)
    """
    where = "rank_loss"
    choice(where, "reduction", reduction, REDUCTIONS)
    floating(where, "matrix", matrix, ("...", "k", "n"), "It comes from topk.")
    batch, (k, n) = matrix.shape[:-2], matrix.shape[-2:]
    index = _index(where, "target", target, batch, n, matrix)
    weights = [number(where, "p_k", p, 0.0, 1.0) for p in _numbers(where, p_k)]
    if not 1 <= len(weights) <= k or abs(sum(weights) - 1) > _SLACK:
        expected = f"of 1 to {k} numbers with the sum 1, no more than the matrix has rows"
        raise fail(where, "p_k", expected, repr(list(p_k)))
    # A rank counts for every k that it is within.
    tails = [sum(weights[m:]) for m in range(len(weights))]
    picked = matrix[..., : len(weights), :].gather(-1, index[..., None, None].expand(*batch, len(weights), 1))[..., 0]
    if scores is None:
        total = (picked * picked.new_tensor(tails)).sum(-1)
    else:
        floating(where, "scores", scores, (*batch, n), "One score for each column of the matrix.")
        first = torch.softmax(scores, dim=-1).gather(-1, index[..., None])[..., 0]
        rest = [sum(weights[max(m, 1) :]) for m in range(len(weights))]
        total = weights[0] * first + (picked * picked.new_tensor(rest)).sum(-1)
    loss = -total.clamp_min(torch.finfo(total.dtype).tiny).log()
    return _reduced(loss, reduction)


@outside_autocast
def permutation_loss(matrix: Tensor, order: Any, *, reduction: str = "mean") -> Tensor:
    """Return the binary cross-entropy between a relaxed permutation and the true one, the mean over all entries.

    Equation 3.12 of the thesis, the loss of sorting supervision: only the order is known, not the values.

    Args:
        matrix: `(..., k, n)`, of `sort_matrix`.
        order: `(..., k)` integers: which input belongs in each rank, as `torch.argsort` gives them.
        reduction: ``"mean"`` over the batch, ``"sum"`` or ``"none"``.

    Returns:
        A scalar, or `(...)`. Logarithms are held above −100.

    Gradients: in the matrix; none in an entry that is as wrong as can be to rounding, 0 for 1 or 1 for 0.

    Raises:
        TypeError: a matrix that is no floating tensor, an order that is no integers.
        ValueError: shapes that do not fit, indices out of range, a matrix with entries outside [0, 1].

    Example:
        >>> from geodiff.soft import sort_matrix
        >>> x = torch.tensor([0.3, 0.1, 0.2])
        >>> permutation_loss(sort_matrix(x, "odd_even", temperature=0.01), torch.tensor([1, 2, 0]))
        tensor(0.0360)
    """
    where = "permutation_loss"
    choice(where, "reduction", reduction, REDUCTIONS)
    floating(where, "matrix", matrix, ("...", "k", "n"), "It comes from sort_matrix.")
    if matrix.numel() and looks_at_values(matrix):
        low, high = (float(end) for end in torch.aminmax(matrix.detach()))
        if low < -_SLACK or high > 1 + _SLACK:
            raise fail(where, "matrix", "of entries in [0, 1]", f"values in [{low:g}, {high:g}]")
    index = _index(where, "order", order, matrix.shape[:-1], matrix.shape[-1], matrix)
    hit = torch.zeros_like(matrix).scatter(-1, index[..., None], 1.0)
    # Of a hit −log p, of a miss −log(1 − p).
    missing = torch.where(hit > 0, matrix, 1 - matrix)
    floor = torch.finfo(matrix.dtype).tiny
    loss = -missing.clamp(floor, 1.0).log().clamp_min(-100.0)
    return _reduced(loss.mean((-2, -1)), reduction)


def _reduced(loss: Tensor, reduction: str) -> Tensor:
    if reduction == "none":
        return loss
    return loss.mean() if reduction == "mean" and loss.numel() else loss.sum()


def _numbers(where: str, value: Any) -> list[Any]:
    if isinstance(value, Tensor):
        return list(value.detach().double().reshape(-1).tolist())
    if isinstance(value, Sequence) and not isinstance(value, str):
        return list(value)
    raise fail(where, "p_k", "a sequence of numbers", value, error=TypeError)


def _index(where: str, argument: str, value: Any, shape: torch.Size, n: int, like: Tensor) -> Tensor:
    index = integers(where, argument, torch.as_tensor(value, device=like.device), tuple(shape))
    if index.numel() and looks_at_values(index) and not 0 <= int(index.min()) <= int(index.max()) < n:
        raise fail(where, argument, f"from 0 to {n - 1}", f"{int(index.min())} to {int(index.max())}")
    return index
