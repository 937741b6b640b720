# SPDX-License-Identifier: Apache-2.0
"""The k nearest points of a cloud in a relaxed order: which points they are has a gradient."""

from typing import Any, NamedTuple

import torch
from scipy.spatial import cKDTree

from geodiff.modes import outside_autocast, refuse_torch_func
from geodiff.soft.order import sort_matrix
from geodiff.transport.chamfer import CHUNK, TREE_DIMENSION, clouds
from geodiff.validation import fail, floating, integer, shapes_repr

__all__ = ["SoftNeighbours", "soft_nearest"]


class SoftNeighbours(NamedTuple):
    """The k nearest of m candidates.

    Attributes:
        distance: `(..., N, k)`, rising with the rank.
        weight: `(..., N, k, m)`, the shares of the candidates in each rank; their sum is 1.
        candidates: `(..., N, m)` int64: which points of y they are, the nearest first.
    """

    def __repr__(self) -> str:
        return shapes_repr(self)

    distance: torch.Tensor
    weight: torch.Tensor
    candidates: torch.Tensor

    @outside_autocast
    def gather(self, values: torch.Tensor) -> torch.Tensor:
        """Blend what the points of y have, such as positions, normals or labels: `(..., M, C)` to `(..., N, k, C)`.

        Raises:
            TypeError: values that are not floating; one-hot labels are, as `.to(weight)`.
            ValueError: another shape, fewer rows than y has points.
        """
        where, least = "SoftNeighbours.gather", int(self.candidates.max()) + 1 if self.candidates.numel() else 0
        floating(where, "values", values, ("...", "M", "C"), "A row for each point of y.", finite=False)
        if values.shape[-2] < least:
            raise fail(where, "values", f"of shape (..., M, C) with M ≥ {least}", values, "A row for each point of y.")
        if values.dtype != self.weight.dtype:
            raise fail(where, "values", f"{self.weight.dtype} like the weights", values, "Convert it.", TypeError)
        return self.weight @ _picked(values, self.candidates)


@outside_autocast
def soft_nearest(
    x: Any,
    y: Any,
    k: int = 1,
    *,
    temperature: float | torch.Tensor,
    candidates: int | None = None,
    method: str = "softsort",
) -> SoftNeighbours:
    """Find the k nearest points of y to each of x, in a relaxed order of distance (`gd.soft.sort_matrix`).

    Which point is the nearest is piecewise constant: what is read off the neighbours, a label for instance, jumps where
    they change, and has no gradient in the metric that chose them. Here every rank is a blend of the candidates about
    as near, and has one. As the temperature → 0 it is the exact k nearest.

    Args:
        x: `(..., N, D)`.
        y: `(..., M, D)`; leading axes broadcast.
        k: from 1 to the candidates.
        temperature: τ > 0, in the units of x: points whose distances differ by less share a rank.
        candidates: m, how many of the nearest points take part, k to M; left out, 4 k or all. The others have no share:
            enough where the m-th is several τ farther than the k-th.
        method: ``"softsort"``, or another of `gd.soft.sort_matrix`.

    Returns:
        `SoftNeighbours`.

    Gradients: in x, y and τ, at fixed candidates; where points coincide, that of their distance is 0. Memory:
        N m (k + D).

    Raises:
        TypeError: clouds that are not floating.
        ValueError: empty clouds, NaN, shapes that do not fit, k above m, m above M, τ ≤ 0.

    Example:
        >>> import torch, geodiff as gd
        >>> x, y = torch.zeros(1, 2), torch.tensor([[3.0, 0.0], [0.0, 1.0], [2.0, 0.0]])
        >>> near = gd.transport.soft_nearest(x, y, 2, temperature=0.1)
        >>> near.distance, near.gather(y)[0].round(decimals=2)
        (tensor([[1.0000, 2.0000]]), tensor([[0., 1.],
                [2., 0.]]))
    """
    where = "soft_nearest"
    x, y = clouds(where, x, y)
    k = integer(where, "k", k, 1)
    total = y.shape[-2]
    m = min(4 * k, total) if candidates is None else integer(where, "candidates", candidates, 1, total)
    if k > m:
        raise fail(where, "k", f"at most the {m} candidates" if candidates else f"at most M = {total}", str(k))
    index = _nearest(x, y, m)
    difference = x[..., :, None, :] - _picked(y, index)
    squared = difference.square().sum(-1)
    apart = squared > 0
    distance = torch.where(apart, torch.where(apart, squared, 1).sqrt(), 0)
    weight = sort_matrix(distance, method, temperature=temperature, rows=k)
    return SoftNeighbours((weight @ distance[..., None])[..., 0], weight, index)


def _picked(values: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
    """Return rows of `(..., M, C)` by `(..., N, m)`."""
    batch, (n, m) = index.shape[:-2], index.shape[-2:]
    rows = values.expand(*batch, *values.shape[-2:])
    flat = index.reshape(*batch, n * m, 1).expand(*batch, n * m, values.shape[-1])
    return rows.gather(-2, flat).reshape(*batch, n, m, values.shape[-1])


def _nearest(x: torch.Tensor, y: torch.Tensor, m: int) -> torch.Tensor:
    """Return which m points of y are nearest to each of x, the nearest first."""
    refuse_torch_func("The search for nearest points", x, y)
    x, y = x.detach(), y.detach()
    count = x.shape[:-2].numel()
    queries, points = (a.reshape(count, *a.shape[-2:]) for a in (x, y))
    found = torch.empty(*queries.shape[:-1], m, dtype=torch.int64, device=x.device)
    for item, query, cloud in zip(found, queries, points, strict=True):
        if x.is_cpu and x.shape[-1] <= TREE_DIMENSION:
            tree = cKDTree(cloud.numpy())
            # As a list of ranks: with the number 1, it would leave out the last axis.
            ranks = tree.query(query.numpy(), k=range(1, m + 1), workers=torch.get_num_threads())[1]
            item.copy_(torch.from_numpy(ranks))
            continue
        size = max(1, CHUNK // len(cloud))
        for i in range(0, len(query), size):
            distance = torch.cdist(query[i : i + size], cloud, compute_mode="donot_use_mm_for_euclid_dist")
            item[i : i + size] = distance.topk(m, largest=False).indices
    return found.reshape(*x.shape[:-1], m)
