# SPDX-License-Identifier: Apache-2.0
"""Nearest points and the Chamfer distance between clouds of points."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from scipy.spatial import cKDTree

from geodiff.modes import outside_autocast, refuse_torch_func
from geodiff.validation import as_tensor, choice, common_batch, fail, floating, positive, promote

__all__ = ["chamfer", "nearest"]

REDUCTIONS = ("mean", "sum", "none")
CHUNK = 2**24  # distances at once where there is no k-d tree: 64 MB in float32
TREE_DIMENSION = 12  # k-d trees of many more dimensions visit every leaf


@outside_autocast
def nearest(x: Any, y: Any, y_mask: Any = None) -> torch.Tensor:
    """Find for each point of x the nearest of y.

    By k-d trees on the processor; elsewhere, and in more than 12 dimensions, by all distances, some rows at a time.

    Args:
        x: `(..., N, D)`.
        y: `(..., M, D)`, M >= 1; leading axes broadcast with those of x.
        y_mask: bool `(..., M)`, which points of y there are, at least one; left out, all.

    Returns:
        int64 `(..., N)`, indices into the points of y.

    Gradients: none.

    Raises:
        TypeError: for tensors that are not floating, a mask that is not bool.
        ValueError: an empty y, another number of coordinates, batches that do not broadcast, NaN.

    Example:
        >>> import torch
        >>> nearest(torch.tensor([[0.0, 0.0], [5.0, 5.0]]), torch.tensor([[4.0, 4.0], [1.0, 0.0]]))
        tensor([1, 0])
    """
    x, y = clouds("nearest", x, y)
    if y.shape[-2] == 0:
        raise fail("nearest", "y", "of one point or more", y)
    return nearest_index(x, y, point_mask("nearest", "y_mask", y_mask, y))


@outside_autocast
def chamfer(
    x: Any,
    y: Any,
    squared: bool = True,
    one_sided: bool = False,
    reduction: str = "mean",
    *,
    truncated: float | None = None,
    x_normals: Any = None,
    y_normals: Any = None,
    normal_weight: float = 1.0,
    oriented: bool = False,
    x_mask: Any = None,
    y_mask: Any = None,
) -> torch.Tensor:
    """Return the Chamfer distance of two clouds: how far each point is from the other cloud, on average, both ways.

    `(1/N) Σ_i min_j |x_i − y_j|² + (1/M) Σ_j min_i |x_i − y_j|²`: the sum (not the mean) of both mean squared
    distances, as Fan, Su and Guibas, "A Point Set Generation Network" (2017) use it, over their numbers of points.

    With normals, `normal_weight` times the mean of `1 − |n_i · m_j|` over the same pairs is added, both ways;
    `oriented` drops the absolute value, so that a normal that points the other way costs 2.

    Args:
        x: `(..., N, D)`, N >= 1; or a list of clouds `(N_i, D)`: a batch of any sizes.
        y: `(..., M, D)`, M >= 1, leading axes broadcast with those of x; or a list as long.
        squared: average squared distances; False: distances.
        one_sided: only the first sum, from x to y: zero where x is part of y.
        reduction: over the batch: ``"mean"``, ``"sum"``, or ``"none"`` for one number `(...)` a pair of clouds.
        truncated: no pair counts as farther than this distance, > 0, and its normals count as perpendicular.
        x_normals: `(..., N, D)` of any length but zero, with `y_normals`; or lists.
        y_normals: `(..., M, D)`.
        normal_weight: of the normals, > 0.
        oriented: whether normals have a sign.
        x_mask: bool `(..., N)`, which points there are, at least one an item; left out, all.
        y_mask: bool `(..., M)`.

    Gradients: in both clouds and their normals, exact wherever no point has two nearest ones; there, that of one of
    them. Zero for pairs beyond `truncated`, where ``squared`` is False also for pairs at distance zero, and for points
    masked out. Which points are nearest depends on positions alone.

    Raises:
        TypeError: for tensors that are not floating, masks that are not bool.
        ValueError: an empty cloud, another number of coordinates, batches that do not broadcast, an unknown
            reduction, normals of one cloud only or of length zero, masks or normals of another shape, NaN.

    Example:
        >>> import torch, geodiff as gd
        >>> x, y = torch.tensor([[0.0, 0.0], [1.0, 0.0]]), torch.tensor([[0.0, 2.0]])
        >>> gd.chamfer(x, y)  # (4 + 5) / 2 + 4
        tensor(8.5000)
        >>> gd.chamfer([x, y], [y, y], reduction="none")  # two pairs of clouds
        tensor([8.5000, 0.0000])
    """
    where = "chamfer"
    choice(where, "reduction", reduction, REDUCTIONS)
    if truncated is not None:
        positive(where, "truncated", truncated)
    positive(where, "normal_weight", normal_weight)
    if (x_normals is None) != (y_normals is None):
        name = "x_normals" if x_normals is None else "y_normals"
        raise fail(where, name, "given where the other cloud's are", "None", "Give both or neither.")

    def two_sided(x: torch.Tensor, y: torch.Tensor, *more: torch.Tensor | None) -> torch.Tensor:
        n, m, x_mask, y_mask = more
        sides = [(x, y, n, m, x_mask, y_mask)] + ([] if one_sided else [(y, x, m, n, y_mask, x_mask)])
        return sum((_toward(*s, squared, truncated, normal_weight, oriented) for s in sides), x.new_zeros(()))

    return over_batch(where, two_sided, reduction, x, y, (x_normals, y_normals), x_mask, y_mask)


def _toward(
    x: torch.Tensor,
    y: torch.Tensor,
    n: torch.Tensor | None,
    m: torch.Tensor | None,
    x_mask: torch.Tensor | None,
    y_mask: torch.Tensor | None,
    squared: bool,
    truncated: float | None,
    normal_weight: float,
    oriented: bool,
) -> torch.Tensor:
    index = nearest_index(x, y, y_mask)[..., None]
    difference = x - torch.take_along_dim(y, index, -2)
    square = (difference * difference).sum(-1)
    value = square if squared else torch.linalg.vector_norm(difference, dim=-1)
    far = None
    if truncated is not None:
        far = square.detach() > truncated**2
        value = torch.where(far, truncated**2 if squared else truncated, value)
    if n is not None and m is not None:
        cosine = torch.cosine_similarity(n, torch.take_along_dim(m, index, -2), dim=-1)
        cosine = cosine if oriented else cosine.abs()
        value = value + normal_weight * (1 - (cosine if far is None else torch.where(far, 0, cosine)))
    return masked_mean(value, x_mask)


def masked_mean(value: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
    """Mean over the last axis of the entries that the mask keeps."""
    return value.mean(-1) if mask is None else torch.where(mask, value, 0).sum(-1) / mask.sum(-1)


def over_batch(
    where: str,
    distance: Callable[..., torch.Tensor],
    reduction: str,
    x: Any,
    y: Any,
    normals: tuple[Any, Any] = (None, None),
    x_mask: Any = None,
    y_mask: Any = None,
) -> torch.Tensor:
    """Call `distance(x, y, normals of x, of y, mask of x, of y)` on checked clouds, or on each pair of two lists."""
    if is_ragged(x) or is_ragged(y):
        if x_mask is not None or y_mask is not None:
            raise fail(where, "x_mask, y_mask", "left out for lists of clouds", "a mask", "Leave points out instead.")
        pairs = cloud_pairs(where, x, y)
        sides = [[None] * len(pairs) if n is None else n for n in normals]
        for name, side in zip(("x_normals", "y_normals"), sides, strict=True):
            if not isinstance(side, list | tuple) or len(side) != len(pairs):
                raise fail(where, name, f"a list of {len(pairs)}, like the clouds", side)
        values = [over_batch(where, distance, "none", a, b, (n, m)) for (a, b), n, m in zip(pairs, *sides, strict=True)]
        value = torch.stack(values)
    else:
        x, y = clouds(where, x, y)
        for name, cloud in (("x", x), ("y", y)):
            if cloud.shape[-2] == 0:
                raise fail(where, name, "of one point or more", cloud)
        x_mask, y_mask = point_mask(where, "x_mask", x_mask, x), point_mask(where, "y_mask", y_mask, y)
        n = _normals(where, "x_normals", normals[0], x, x_mask)
        m = _normals(where, "y_normals", normals[1], y, y_mask)
        value = distance(x, y, n, m, x_mask, y_mask)
    if reduction == "none":
        return value
    return value.mean() if reduction == "mean" else value.sum()


def is_ragged(value: Any) -> bool:
    """Whether this is a list of clouds or matrices rather than one array written as a list."""
    return isinstance(value, list | tuple) and any(isinstance(v, torch.Tensor | np.ndarray) and v.ndim for v in value)


def cloud_pairs(where: str, x: Any, y: Any) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Check two lists of clouds."""
    if not (is_ragged(x) and is_ragged(y) and len(x) == len(y)):
        text = f"{len(x)} and {len(y)}" if is_ragged(x) and is_ragged(y) else "one list and one array"
        raise fail(where, "x, y", "two lists of as many clouds", text)
    pairs = [clouds(where, a, b, (f"x[{i}]", f"y[{i}]")) for i, (a, b) in enumerate(zip(x, y, strict=True))]
    for i, (a, b) in enumerate(pairs):
        if a.dim() != 2 or b.dim() != 2:
            raise fail(where, f"x[{i}], y[{i}]", "of shape (N, D)", f"{tuple(a.shape)} and {tuple(b.shape)}")
    return pairs


def clouds(where: str, x: Any, y: Any, names: tuple[str, str] = ("x", "y")) -> tuple[torch.Tensor, torch.Tensor]:
    """Check two clouds and broadcast their leading axes."""
    both = promote(where, **{names[0]: x, names[1]: y})
    x, y = both[names[0]], both[names[1]]
    floating(where, names[0], x, ("...", "N", "D"), finite=False)
    floating(where, names[1], y, ("...", "M", x.shape[-1]), "Both clouds need as many coordinates.", finite=False)
    try:
        batch = common_batch(x.shape[:-2], y.shape[:-2])
    except RuntimeError:
        text = f"{tuple(x.shape)} and {tuple(y.shape)}"
        raise fail(where, "x, y", "of batches that broadcast", text, "Make the leading axes equal.") from None
    return x.expand(*batch, *x.shape[-2:]), y.expand(*batch, *y.shape[-2:])


def point_mask(where: str, name: str, mask: Any, cloud: torch.Tensor) -> torch.Tensor | None:
    """Check which points of a cloud there are."""
    if mask is None:
        return None
    mask = as_tensor(where, name, mask)
    if mask.dtype != torch.bool:
        raise fail(where, name, "bool", mask, "Use mask.bool().", TypeError)
    try:
        mask = mask.to(cloud.device).expand(cloud.shape[:-1])
    except RuntimeError:
        raise fail(where, name, f"of shape {tuple(cloud.shape[:-1])}, one a point", mask) from None
    if not bool(mask.any(-1).all()):
        raise fail(where, name, "true for one point or more of each item", "an item without points")
    return mask


def _normals(
    where: str, name: str, normals: Any, cloud: torch.Tensor, mask: torch.Tensor | None
) -> torch.Tensor | None:
    if normals is None:
        return None
    normals = promote(where, **{name: normals})[name].to(cloud)
    try:
        normals = normals.expand(cloud.shape)
    except RuntimeError:
        raise fail(where, name, f"of shape {tuple(cloud.shape)}, like the points", normals) from None
    zero = (normals.detach() == 0).all(-1)
    if bool((zero if mask is None else zero & mask).any()):
        raise fail(where, name, "of a length above zero", "a normal of zeros")
    return normals


def nearest_index(x: torch.Tensor, y: torch.Tensor, y_mask: torch.Tensor | None = None) -> torch.Tensor:
    """Find the nearest points of checked clouds `(..., N, D)` and `(..., M, D)` of one batch shape."""
    refuse_torch_func("The search for nearest points", x, y)
    x, y = x.detach(), y.detach()
    count = x.shape[:-2].numel()
    queries, points = (a.reshape(count, *a.shape[-2:]) for a in (x, y))
    masks = None if y_mask is None else y_mask.reshape(count, -1)
    found = torch.empty(queries.shape[:-1], dtype=torch.int64, device=x.device)
    find = _by_tree if x.device.type == "cpu" and x.shape[-1] <= TREE_DIMENSION else _by_distances
    for i in range(count):
        find(queries[i], points[i], None if masks is None else masks[i], found[i])
    return found.reshape(x.shape[:-1])


def _by_tree(x: torch.Tensor, y: torch.Tensor, mask: torch.Tensor | None, out: torch.Tensor) -> None:
    rows = None if mask is None else mask.nonzero()[:, 0]
    tree = cKDTree((y if rows is None else y[rows]).numpy())
    index = torch.from_numpy(tree.query(x.numpy(), workers=torch.get_num_threads())[1])
    out.copy_(index if rows is None else rows[index])


def _by_distances(x: torch.Tensor, y: torch.Tensor, mask: torch.Tensor | None, out: torch.Tensor) -> None:
    size = max(1, CHUNK // len(y))
    for i in range(0, len(x), size):
        # Not by |x|² + |y|² − 2 x·y, which loses near neighbours to rounding.
        distance = torch.cdist(x[i : i + size], y, compute_mode="donot_use_mm_for_euclid_dist")
        if mask is not None:
            distance.masked_fill_(~mask, torch.inf)
        out[i : i + size] = distance.argmin(-1)
