# SPDX-License-Identifier: Apache-2.0
"""Twin of the CPU's kernel of pieces (cuda/cpu/bind_pieces.cpp), in torch."""

import torch


def pieces_take(
    state: torch.Tensor,
    cost: torch.Tensor,
    starts: torch.Tensor,
    at: torch.Tensor,
    x: torch.Tensor,
    first: int,
    last: int,
    point: int,
    weight: float,
    unit: float,
) -> None:
    """Take one more point into the least-squares fits of pieces that start at different points.

    By plane rotations without square roots (Gentleman 1973).

    Args:
        state: (d + 1, d + 1 + C, N), changed: triangular factors `Rᵀ D R`, a column a start: D on the diagonal, and R
            above it, whose own diagonal is 1; of the powers of the parameter from the start on, then of the values
            less those of the first point.
        cost: (N,), changed: what is left of the values adds to it, squared.
        starts: (N,) int64, the first point of each piece.
        at: (N,) parameters.
        x: (C, N) values.
        first: the pieces in hand are those from here …
        last: … to before there.
        point: which point.
        weight: of it.
        unit: what a square counts.
    """
    window = slice(first, last)
    own, begin, count = state[..., window], starts[window], len(state)
    step = at[point] - at[begin]
    row = [torch.ones_like(step)]
    for _ in range(count - 1):
        row.append(row[-1] * step)
    row.extend(x[:, point, None] - x[:, begin])
    left = torch.full_like(step, weight)  # of the weight, for what the rows so far do not explain
    for r in range(count):
        old = own[r, r].clone()
        heavy = left * row[r]
        total = old + heavy * row[r]
        there = total >= torch.finfo(total.dtype).tiny  # whose inverse is finite
        safe = torch.where(there, total, 1.0)
        kept, gain = torch.where(there, old / safe, 1.0), heavy / safe
        left = left * kept
        own[r, r] = total
        for k in range(r + 1, len(row)):
            above = own[r, k].clone()
            own[r, k] = kept * above + gain * row[k]
            row[k] = row[k] - row[r] * above
    cost[window] += unit * left * sum(value**2 for value in row[count:])
