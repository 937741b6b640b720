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
    root: float,
    unit: float,
) -> None:
    """Take one more point into the least-squares fits of pieces that start at different points, by Givens rotations.

    Args:
        state: (d + 1, d + 1 + C, N), changed: triangular factors, a column a start; of the powers of the parameter
            from the start on, then of the values less those of the first point.
        cost: (N,), changed: what is left of the values adds to it, squared.
        starts: (N,) int64, the first point of each piece.
        at: (N,) parameters.
        x: (C, N) values.
        first: the pieces in hand are those from here …
        last: … to before there.
        point: which point.
        root: the root of its weight.
        unit: what a square counts.
    """
    window = slice(first, last)
    own, begin, count = state[..., window], starts[window], len(state)
    step = at[point] - at[begin]
    row = [torch.full_like(step, root)]
    for _ in range(count - 1):
        row.append(row[-1] * step)
    row.extend((x[:, point, None] - x[:, begin]) * root)
    for r in range(count):
        old = own[r, r].clone()
        length = (old**2 + row[r] ** 2).sqrt()
        safe = torch.where(length > 0, length, 1.0)
        c, s = torch.where(length > 0, old / safe, 1.0), row[r] / safe
        for k in range(r, len(row)):
            above = own[r, k].clone()
            own[r, k] = c * above + s * row[k]
            row[k] = c * row[k] - s * above
    cost[window] += unit * sum(value**2 for value in row[count:])
