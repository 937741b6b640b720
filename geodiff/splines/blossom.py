# SPDX-License-Identifier: Apache-2.0
"""The linear maps behind exact changes of knots and degree, and the knot vectors they lead to.

A new control point i of degree P is the blossom (polar form) of a polynomial piece at the new knots
`v_{i+1}, …, v_{i+P}` (Ramshaw, "Blossoms are polar forms", CAGD 6, 1989). Taken on the old span that holds `v_i`, with
the arguments in order, its coefficients are those of Cohen, Lyche and Riesenfeld, "Discrete B-splines and subdivision
techniques" (1980): never negative, of sum one, and exact zeros and ones where nothing changes. No denominator is an
empty span.
"""

from collections.abc import Callable, Sequence

import torch

from geodiff.validation import common_batch, fail

Row = list[float]


def refinement_matrix(knots: torch.Tensor, new_knots: torch.Tensor, degree: int) -> torch.Tensor:
    """Return the matrix `(..., K', K)` that takes control points to those over finer knots.

    Args:
        knots: `(..., K + P + 1)`.
        new_knots: `(..., K' + P + 1)`, a run of consecutive knots of a vector that holds all of `knots`, with equal
            numbers exactly equal; at most P + 1 times the same.
        degree: P.

    Gradients: to both; at a new knot that is an old one, that of moving it to the right.

    Example:
        >>> refinement_matrix(torch.tensor([0.0, 0.0, 1.0, 1.0]), torch.tensor([0.0, 0.0, 0.25, 1.0, 1.0]), 1)
        tensor([[1.0000, 0.0000],
                [0.7500, 0.2500],
                [0.0000, 1.0000]])
    """
    count = new_knots.shape[-1] - degree - 1
    return _blossom_matrix(knots, degree, new_knots[..., :count], _windows(new_knots, degree, count))


def elevation_matrix(knots: torch.Tensor, new_knots: torch.Tensor, degree: int) -> torch.Tensor:
    """Return the matrix `(..., K', K)` that takes control points of degree P to those of degree P + 1.

    The elevated blossom is the mean of the old one over leaving out one of its P + 1 arguments.

    Args:
        knots: `(..., K + P + 1)`.
        new_knots: `(..., K' + P + 2)`, each knot once more than in `knots` (outer ones may be left out).
        degree: P.

    Example:
        >>> line = torch.tensor([0.0, 0.0, 1.0, 1.0])
        >>> elevation_matrix(line, torch.tensor([0.0, 0.0, 0.0, 1.0, 1.0, 1.0]), 1)
        tensor([[1.0000, 0.0000],
                [0.5000, 0.5000],
                [0.0000, 1.0000]])
    """
    count = new_knots.shape[-1] - degree - 2
    windows, start = _windows(new_knots, degree + 1, count), new_knots[..., :count]
    left_out = [torch.cat([windows[..., :k], windows[..., k + 1 :]], -1) for k in range(degree + 1)]
    return torch.stack([_blossom_matrix(knots, degree, start, arguments) for arguments in left_out]).mean(0)


def _windows(knots: torch.Tensor, degree: int, count: int) -> torch.Tensor:
    index = torch.arange(count, device=knots.device)[:, None] + torch.arange(1, degree + 1, device=knots.device)
    return knots[..., index]


def _blossom_matrix(knots: torch.Tensor, degree: int, start: torch.Tensor, arguments: torch.Tensor) -> torch.Tensor:
    """Return the blossoms `(..., N, K)` of the pieces that hold `start` `(..., N)` at `arguments` `(..., N, P)`.

    Cox and de Boor with another parameter each step, over knots continued by P distinct ones at both ends.
    """
    batch = common_batch(knots.shape[:-1], start.shape[:-1])
    knots, start = knots.expand(*batch, -1), start.expand(*batch, -1)
    count = knots.shape[-1] - degree - 1
    held = knots.detach().contiguous()
    span = torch.searchsorted(held, start.detach().contiguous(), right=True) - 1 + degree
    steps = torch.arange(1, degree + 1, dtype=knots.dtype, device=knots.device)
    width = held[..., -1:] - held[..., :1]
    padded = torch.cat([held[..., :1] - width * steps.flip(0), knots, held[..., -1:] + width * steps], -1)
    window = span[..., None] + torch.arange(1 - degree, degree + 1, device=span.device)
    around = torch.take_along_dim(padded, window.flatten(-2), -1).reshape(window.shape)
    values = torch.ones_like(start)[..., None]
    pad = torch.nn.functional.pad
    for q in range(1, degree + 1):
        low, high, at = around[..., degree - q : degree], around[..., degree : degree + q], arguments[..., q - 1 : q]
        left, right = values * ((high - at) / (high - low)), values * ((at - low) / (high - low))
        values = pad(left, (0, 1)) + pad(right, (1, 0))
    where = span[..., None] + torch.arange(-degree, 1, device=span.device)
    matrix = values.new_zeros(*span.shape, count + 2 * degree).scatter(-1, where, values)
    return matrix[..., degree : degree + count]


def chosen(where: str, knots: torch.Tensor, rule: Callable[..., Sequence[int]], *others: torch.Tensor) -> torch.Tensor:
    """Take knots by a rule that returns their indices for one vector (and one number each of `others`)."""
    batch = common_batch(knots.shape[:-1], *(x.shape for x in others))
    knots = knots.expand(*batch, -1)
    rows = knots.detach().reshape(-1, knots.shape[-1]).tolist()
    extra = [x.detach().expand(batch).flatten().tolist() for x in others]
    picks = [list(rule(row, *(e[i] for e in extra))) for i, row in enumerate(rows)]
    sizes = sorted({len(p) for p in picks})
    if len(sizes) > 1:
        expected = "of a batch whose splines all get the same number of knots"
        got = f"between {sizes[0]} and {sizes[-1]} of them"
        raise fail(where, "knots", expected, got, "Take the splines one by one: spline[i].")
    index = torch.tensor(picks, dtype=torch.int64, device=knots.device).reshape(*batch, sizes[0])
    return torch.take_along_dim(knots, index, -1)


def groups(row: Row) -> list[list[int]]:
    """Return the indices of each distinct knot."""
    result: list[list[int]] = []
    for i, value in enumerate(row):
        if result and row[result[-1][0]] == value:
            result[-1].append(i)
        else:
            result.append([i])
    return result


def elevated_knots(where: str, knots: torch.Tensor, degree: int) -> torch.Tensor:
    """Repeat each knot once more; keep the last P + 2 up to the domain's start, and the first P + 2 from its end."""

    def rule(row: Row) -> list[int]:
        low, high = row[degree], row[len(row) - degree - 1]
        every = [i for group in groups(row) for i in (*group, group[-1])]
        before, after = [i for i in every if row[i] <= low], [i for i in every if row[i] >= high]
        inside = [i for i in every if low < row[i] < high]
        return before[-degree - 2 :] + inside + after[: degree + 2]

    return chosen(where, knots, rule)


def snapped(values: torch.Tensor, knots: torch.Tensor) -> torch.Tensor:
    """Put values `(..., R)` that are within 16 roundings of a knot exactly on it."""
    held = knots.detach()
    slack = 16 * torch.finfo(knots.dtype).eps * held.abs().amax(-1, keepdim=True)
    distance = (held[..., None, :] - values.detach()[..., None]).abs()
    nearest = torch.take_along_dim(held.expand(*distance.shape[:-2], -1), distance.argmin(-1), -1)
    return torch.where(distance.amin(-1) <= slack, nearest + (values - values.detach()), values)
