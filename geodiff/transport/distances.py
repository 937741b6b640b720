# SPDX-License-Identifier: Apache-2.0
"""Measures of how well two clouds agree: Hausdorff distance and F-score."""

from typing import Any

import torch

from geodiff.modes import outside_autocast
from geodiff.transport.chamfer import REDUCTIONS, masked_mean, nearest_index, over_batch
from geodiff.validation import choice, positive

__all__ = ["f_score", "hausdorff"]


@outside_autocast
def hausdorff(
    x: Any, y: Any, one_sided: bool = False, reduction: str = "mean", *, x_mask: Any = None, y_mask: Any = None
) -> torch.Tensor:
    """Return the Hausdorff distance of two clouds: how far the worst point is from the other cloud.

    `max(max_i min_j |x_i − y_j|, max_j min_i |x_i − y_j|)`.

    Args:
        x: `(..., N, D)`, N >= 1; or a list of clouds `(N_i, D)`: a batch of any sizes.
        y: `(..., M, D)`, M >= 1, leading axes broadcast with those of x; or a list as long.
        one_sided: only the first maximum, from x to y: zero where x is part of y.
        reduction: over the batch: ``"mean"``, ``"sum"``, or ``"none"`` for one number `(...)` a pair of clouds.
        x_mask: bool `(..., N)`, which points there are, at least one an item; left out, all.
        y_mask: bool `(..., M)`.

    Gradients: in the two points whose distance it is; where several pairs are as far apart, those of some. Zero where
    the distance is zero.

    Raises:
        TypeError: for tensors that are not floating, masks that are not bool.
        ValueError: an empty cloud, another number of coordinates, batches that do not broadcast, an unknown
            reduction, masks of another shape, NaN.

    Example:
        >>> import torch
        >>> x, y = torch.tensor([[0.0, 0.0], [1.0, 0.0]]), torch.tensor([[0.0, 2.0]])
        >>> hausdorff(x, y), hausdorff(y, x, one_sided=True)
        (tensor(2.2361), tensor(2.))
    """
    choice("hausdorff", "reduction", reduction, REDUCTIONS)

    def distance(x: torch.Tensor, y: torch.Tensor, *more: torch.Tensor | None) -> torch.Tensor:
        x_mask, y_mask = more[2:]
        worst = _worst(x, y, x_mask, y_mask)
        return worst if one_sided else torch.maximum(worst, _worst(y, x, y_mask, x_mask))

    return over_batch("hausdorff", distance, reduction, x, y, x_mask=x_mask, y_mask=y_mask)


@outside_autocast
def f_score(
    x: Any,
    y: Any,
    threshold: float,
    one_sided: bool = False,
    reduction: str = "mean",
    *,
    x_mask: Any = None,
    y_mask: Any = None,
) -> torch.Tensor:
    """Return the F-score of a cloud x against a true one y: the harmonic mean of precision and recall.

    Precision is the share of x within the threshold of y, recall that of y within the threshold of x (Knapitsch et al.,
    "Tanks and Temples", 2017): `2 precision recall/(precision + recall)`, zero where both are.

    Args:
        x: `(..., N, D)`, N >= 1; or a list of clouds `(N_i, D)`: a batch of any sizes.
        y: `(..., M, D)`, M >= 1, leading axes broadcast with those of x; or a list as long.
        threshold: a distance, > 0; a point exactly so far is within it.
        one_sided: the precision alone; with x and y exchanged, the recall.
        reduction: over the batch: ``"mean"``, ``"sum"``, or ``"none"`` for one number `(...)` a pair of clouds.
        x_mask: bool `(..., N)`, which points there are, at least one an item; left out, all.
        y_mask: bool `(..., M)`.

    Returns:
        Numbers in [0, 1].

    Gradients: none; it is piecewise constant.

    Raises:
        TypeError: for tensors that are not floating, masks that are not bool.
        ValueError: an empty cloud, a threshold <= 0, another number of coordinates, batches that do not broadcast, an
            unknown reduction, masks of another shape, NaN.

    Example:
        >>> import torch
        >>> x, y = torch.tensor([[0.0, 0.0], [5.0, 0.0]]), torch.tensor([[0.0, 0.1]])
        >>> f_score(x, y, 0.2), f_score(x, y, 0.2, one_sided=True)
        (tensor(0.6667), tensor(0.5000))
    """
    choice("f_score", "reduction", reduction, REDUCTIONS)
    positive("f_score", "threshold", threshold)

    def share(
        x: torch.Tensor, y: torch.Tensor, x_mask: torch.Tensor | None, y_mask: torch.Tensor | None
    ) -> torch.Tensor:
        return masked_mean((_distances(x, y, y_mask) <= threshold).to(x.dtype), x_mask)

    def score(x: torch.Tensor, y: torch.Tensor, *more: torch.Tensor | None) -> torch.Tensor:
        x_mask, y_mask = more[2:]
        precision = share(x, y, x_mask, y_mask)
        if one_sided:
            return precision
        recall = share(y, x, y_mask, x_mask)
        both = precision + recall
        return 2 * precision * recall / torch.where(both > 0, both, 1)

    with torch.no_grad():
        return over_batch("f_score", score, reduction, x, y, x_mask=x_mask, y_mask=y_mask)


def _distances(x: torch.Tensor, y: torch.Tensor, y_mask: torch.Tensor | None) -> torch.Tensor:
    index = nearest_index(x, y, y_mask)[..., None]
    return torch.linalg.vector_norm(x - torch.take_along_dim(y, index, -2), dim=-1)


def _worst(x: torch.Tensor, y: torch.Tensor, x_mask: torch.Tensor | None, y_mask: torch.Tensor | None) -> torch.Tensor:
    distance = _distances(x, y, y_mask)
    known = distance.detach() if x_mask is None else torch.where(x_mask, distance.detach(), -1)
    return torch.take_along_dim(distance, known.argmax(-1, keepdim=True), -1)[..., 0]
