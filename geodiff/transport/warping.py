# SPDX-License-Identifier: Apache-2.0
"""Dynamic time warping: how far two polylines are apart when both are walked along from end to end."""

from typing import Any, NamedTuple

import torch

from geodiff.modes import outside_autocast, refuse_torch_func
from geodiff.soft import special
from geodiff.transport.chamfer import clouds
from geodiff.validation import check_finite, fail, looks_at_values, number, shapes_repr

__all__ = ["Warping", "soft_dtw"]

_WHERE = "soft_dtw"


class Warping(NamedTuple):
    """How two sequences are aligned.

    Attributes:
        value: the soft minimum of the costs of all alignments, (...).
        weights: how likely each pair is in the alignment, (..., N, M), without a gradient; for γ → 0 it is 1 on the
            best path. Its columns say where along x each point of y belongs: ``(weights * t[:, None]).sum(-2)`` over
            ``weights.sum(-2)``.
    """

    value: torch.Tensor
    weights: torch.Tensor

    def __repr__(self) -> str:
        return shapes_repr(self)


@outside_autocast
def soft_dtw(x: Any, y: Any, gamma: float = 0.1) -> Warping:
    """Align two polylines, each from its first point to its last: soft dynamic time warping.

    An alignment is a path of pairs (i, j) from (0, 0) to (N − 1, M − 1) whose steps go one further in x, in y, or in
    both; it costs the sum of the squared distances `c_ij` of its pairs. The program is
    `r_ij = c_ij + min_γ(r_{i−1,j−1}, r_{i−1,j}, r_{i,j−1})` with `min_γ = −γ log Σ exp(−·/γ)` (Cuturi and Blondel,
    "Soft-DTW", 2017).

    Unlike the nearest points of `chamfer`, an alignment keeps the order: of a curve that crosses itself, or comes back
    close to where it was, each branch is matched with its own.

    Args:
        x: (..., N, D).
        y: (..., M, D); leading axes broadcast with those of x.
        gamma: γ ≥ 0, in squared units of x: how soft the minimum is; 0 is the hard one.

    Returns:
        `Warping`. With γ > 0 the value may be below 0, by γ times the logarithm of the number of alignments: compare
        `soft_dtw(x, y) − (soft_dtw(x, x) + soft_dtw(y, y)) / 2`.

    Gradients: of the value, in x and y, of first order: that of the costs is `weights`, which comes with the value. At
    γ = 0 that of the best path.

    Raises:
        TypeError, ValueError: for other dtypes and shapes, empty sequences, NaN and infinity.

    Example:
        >>> x = torch.tensor([[0.0, 0.0], [1.0, 0.0], [2.0, 0.0]])
        >>> y = torch.tensor([[0.0, 0.1], [0.9, 0.1], [1.1, 0.1], [2.0, 0.1]])
        >>> soft_dtw(x, y, gamma=0.0).value, soft_dtw(x, y, gamma=0.0).weights
        (tensor(0.0600), tensor([[1., 0., 0., 0.],
                [0., 1., 1., 0.],
                [0., 0., 0., 1.]]))
    """
    gamma = number(_WHERE, "gamma", gamma, 0.0, 1e30)
    refuse_torch_func(_WHERE, x, y)
    x, y = clouds(_WHERE, x, y)
    for name, value in (("x", x), ("y", y)):
        if value.shape[-2] == 0:
            raise fail(_WHERE, name, "of one point or more", value)
        if looks_at_values(value):
            check_finite(_WHERE, name, value)
    costs = (x[..., :, None, :] - y[..., None, :, :]).square().sum(-1)
    with torch.no_grad():
        value, weights = aligned(costs.detach(), gamma)
    spread = (value / costs.shape[-1] / costs.shape[-2])[..., None, None].expand_as(costs)
    return Warping(special.known(spread, (costs, weights)).sum((-2, -1)) if costs.numel() else value, weights)


def aligned(costs: torch.Tensor, gamma: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the value and its derivative in the costs (..., N, M), both of the recursion, by antidiagonals.

    On an antidiagonal nothing depends on anything else: N + M − 1 steps for all of it, forwards and, for the
    derivative, backwards. The results of a step are stored in a skewed matrix, one row for each antidiagonal.
    """
    n, m = costs.shape[-2:]
    rows = torch.arange(n, device=costs.device)
    inf = torch.full((*costs.shape[:-2], n + 1), torch.inf, dtype=costs.dtype, device=costs.device)
    before, last = inf.clone(), inf.clone()  # r of two diagonals and of one ago, by row, shifted by one
    shares = []
    for k in range(n + m - 1):
        column = k - rows
        there = (column >= 0) & (column < m)
        ways = torch.stack([before[..., :-1], last[..., :-1], last[..., 1:]])  # from both, from above, from the left
        if k == 0:
            ways[0, ..., 0] = 0
        least = ways.amin(0)
        firm = least.isfinite()
        low = torch.where(firm, least, 0.0)
        if gamma > 0:
            terms = torch.exp(-(ways - low) / gamma)
            total = terms.sum(0)
            low = low - gamma * torch.where(firm, total, 1.0).log()
        else:
            terms = torch.zeros_like(ways).scatter(0, ways.argmin(0, keepdim=True), 1.0)
            total = terms.sum(0)
        shares.append(torch.where(firm & there, terms / torch.where(firm, total, 1.0), 0.0))
        cost = costs.gather(-1, column.clamp(0, m - 1).expand(*costs.shape[:-2], n)[..., None])[..., 0]
        now = inf.clone()
        now[..., 1:] = torch.where(there & firm, cost + low, torch.inf)
        before, last = last, now
    weights = torch.zeros_like(costs)
    zero = torch.zeros_like(inf)
    ahead, after = zero, zero  # the derivative on the next diagonal and on the one after it, by row
    for k in range(n + m - 2, -1, -1):
        column = k - rows
        there = (column >= 0) & (column < m)
        flow = zero[..., :-1].clone()
        if k == n + m - 2:
            flow[..., -1] = 1
        else:
            flow[..., :-1] += ahead[..., 1:-1] * shares[k + 1][1][..., 1:]  # into the row below
            flow += ahead[..., :-1] * shares[k + 1][2]  # into the same row
            if k + 2 < len(shares):
                flow[..., :-1] += after[..., 1:-1] * shares[k + 2][0][..., 1:]
        flow = torch.where(there, flow, 0.0)
        place = column.clamp(0, m - 1).expand(*costs.shape[:-2], n)[..., None]
        weights.scatter_add_(-1, place, flow[..., None])
        ahead, after = torch.cat([flow, zero[..., :1]], -1), ahead
    return last[..., -1], weights
