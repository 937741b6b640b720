# SPDX-License-Identifier: Apache-2.0
"""Chamfer distance between clouds of points."""

from typing import Any

import torch
from scipy.spatial import cKDTree

from geodiff.validation import choice, fail, floating, promote


def nearest(x: Any, y: Any) -> torch.Tensor:
    """Find for each point of x the nearest of y, by k-d trees on the processor.

    Args:
        x: `(..., N, D)`.
        y: `(..., M, D)`, M >= 1; leading axes broadcast with those of x.

    Returns:
        int64 `(..., N)`, indices into the points of y.

    Gradients: none.

    Raises:
        TypeError: for tensors that are not floating.
        ValueError: an empty y, another number of coordinates, batches that do not broadcast, NaN.

    Example:
        >>> import torch
        >>> nearest(torch.tensor([[0.0, 0.0], [5.0, 5.0]]), torch.tensor([[4.0, 4.0], [1.0, 0.0]]))
        tensor([1, 0])
    """
    return _nearest(*_clouds("nearest", x, y))


def chamfer(x: Any, y: Any, squared: bool = True, one_sided: bool = False, reduction: str = "mean") -> torch.Tensor:
    """Return the Chamfer distance of two clouds: how far each point is from the other cloud, on average, both ways.

    `(1/N) Σ_i min_j |x_i − y_j|² + (1/M) Σ_j min_i |x_i − y_j|²`: the sum (not the mean) of both mean squared
    distances, as Fan, Su and Guibas, "A Point Set Generation Network" (2017) use it, over their numbers of points.

    Args:
        x: `(..., N, D)`, N >= 1.
        y: `(..., M, D)`, M >= 1; leading axes broadcast with those of x.
        squared: average squared distances; False: distances.
        one_sided: only the first sum, from x to y: zero where x is part of y.
        reduction: over the batch: ``"mean"``, ``"sum"``, or ``"none"`` for one number `(...)` a pair of clouds.

    Gradients: in both clouds, exact wherever no point has two nearest ones; there, that of one of them. Where
    ``squared`` is False, zero for pairs at distance zero. The neighbours are found on the processor.

    Raises:
        TypeError: for tensors that are not floating.
        ValueError: an empty cloud, another number of coordinates, batches that do not broadcast, an unknown
            reduction, NaN.

    Example:
        >>> import torch, geodiff as gd
        >>> x, y = torch.tensor([[0.0, 0.0], [1.0, 0.0]]), torch.tensor([[0.0, 2.0]])
        >>> gd.chamfer(x, y)  # (4 + 5) / 2 + 4
        tensor(8.5000)
    """
    choice("chamfer", "reduction", reduction, ("mean", "sum", "none"))
    x, y = _clouds("chamfer", x, y)
    if x.shape[-2] == 0:
        raise fail("chamfer", "x", "of one point or more", x)
    value = _toward(x, y, squared)
    if not one_sided:
        value = value + _toward(y, x, squared)
    if reduction == "none":
        return value
    return value.mean() if reduction == "mean" else value.sum()


def _toward(x: torch.Tensor, y: torch.Tensor, squared: bool) -> torch.Tensor:
    difference = x - torch.take_along_dim(y, _nearest(x, y)[..., None], -2)
    if squared:
        return (difference * difference).sum(-1).mean(-1)
    return torch.linalg.vector_norm(difference, dim=-1).mean(-1)


def _clouds(where: str, x: Any, y: Any) -> tuple[torch.Tensor, torch.Tensor]:
    clouds = promote(where, x=x, y=y)
    x, y = clouds["x"], clouds["y"]
    floating(where, "x", x, ("...", "N", "D"), finite=False)
    floating(where, "y", y, ("...", "M", x.shape[-1]), "Both clouds need as many coordinates.", finite=False)
    if y.shape[-2] == 0:
        raise fail(where, "y", "of one point or more", y)
    try:
        batch = torch.broadcast_shapes(x.shape[:-2], y.shape[:-2])
    except RuntimeError:
        text = f"{tuple(x.shape)} and {tuple(y.shape)}"
        raise fail(where, "x, y", "of batches that broadcast", text, "Make the leading axes equal.") from None
    return x.expand(*batch, *x.shape[-2:]), y.expand(*batch, *y.shape[-2:])


def _nearest(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    found = torch.empty(x.shape[:-1], dtype=torch.int64)
    count = x.shape[:-2].numel()
    queries, points = (a.detach().cpu().reshape(count, *a.shape[-2:]).numpy() for a in (x, y))
    rows = found.reshape(count, x.shape[-2]).numpy()
    for i in range(count):
        rows[i] = cKDTree(points[i]).query(queries[i])[1]
    return found.to(x.device)
