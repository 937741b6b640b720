# SPDX-License-Identifier: Apache-2.0
"""Connected components of images, and the layer that replaces each by its mean."""

import numpy as np
import torch

from geodiff.modes import outside_autocast, refuse_torch_func
from geodiff.scene.components import kept_labels, read_limits
from geodiff.validation import choice, describe, fail, floating, number

_NEIGHBOURS = {4: [[0, 1, 0], [1, 1, 1], [0, 1, 0]], 8: [[1, 1, 1], [1, 1, 1], [1, 1, 1]]}


@outside_autocast
def connected_components(
    mask: torch.Tensor, connectivity: int = 4, *, keep: int | None = None, min_area: float = 0
) -> torch.Tensor:
    """Label the pixels of masks by the connected components they belong to.

    Args:
        mask: (..., H, W) boolean.
        connectivity: 4: pixels are neighbours across a side; 8: across a corner, too.
        keep: only the so many largest components of each image, the first ones where equal; None: all.
        min_area: only components of at least so many pixels.

    Returns:
        (..., H, W) int64: 1, 2, … in each image, in the order of their first pixels row by row; 0 outside and where a
        component was dropped.

    Gradients: none.

    Raises:
        TypeError: a mask that is not boolean.
        ValueError: another shape or connectivity, keep below 1, a negative area.

    Example:
        >>> import torch
        >>> connected_components(torch.tensor([[1, 0, 1], [1, 0, 0], [0, 1, 1]]).bool())
        tensor([[1, 0, 2],
                [1, 0, 0],
                [0, 3, 3]])
    """
    where = "connected_components"
    if not isinstance(mask, torch.Tensor) or mask.dtype != torch.bool:
        fix = "Compare it with a threshold, such as mask > 0.5."
        raise fail(where, "mask", "a boolean tensor of shape (..., H, W)", describe(mask), fix, TypeError)
    if mask.dim() < 2:
        raise fail(where, "mask", "of shape (..., H, W)", mask)
    refuse_torch_func(where, mask)
    _check(where, connectivity)
    keep, least = read_limits(where, keep, min_area)
    return torch.from_numpy(_labels(mask.cpu().numpy(), connectivity, keep, least)).to(mask.device)


@outside_autocast
def component_means(
    p: torch.Tensor,
    threshold: float = 0.5,
    connectivity: int = 4,
    background: str = "keep",
    *,
    keep: int | None = None,
    min_area: float = 0,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Replace each connected component of `p > threshold` by its mean: piecewise constant approximation of an image.

    The 2-D layer of Cho et al., "Differentiable Spline Approximations", 2021, section 3. The mean of values above a
    threshold is above it, so by itself the layer changes no mask; `keep` and `min_area` do.

    Args:
        p: (..., H, W), such as probabilities or coverage.
        threshold: of the components.
        connectivity: 4: pixels are neighbours across a side; 8: across a corner, too. The background has the other one.
        background: ``"keep"`` leaves the pixels at or below the threshold as they are, and sets components that are
            dropped to zero; ``"components"`` replaces the components of the background by their means, too, which take
            in the components that are dropped.
        keep: only the so many largest components of each image, the first ones where equal; None: all.
        min_area: only components of at least so many pixels.

    Returns:
        The values, of the shape of p, and labels, (..., H, W) int64: 1, 2, … for the components above the threshold, in
        the order of their first pixels, −1, −2, … for those of the background where these are replaced, and else 0.

    Gradients: of the values in p, at fixed labels, which are piecewise constant in p: J = Σ_C 1_C 1_Cᵀ / |C|, symmetric
        and idempotent. One component all over the image, as before training, makes it of rank one.

    Computed on the CPU, sums in float64.

    Raises:
        TypeError: p that is no floating tensor.
        ValueError: another shape, NaN, connectivity or background, keep below 1, a negative area.

    Example:
        >>> import torch
        >>> values, labels = component_means(torch.tensor([[0.9, 0.7, 0.1], [0.2, 0.1, 0.6]]))
        >>> values
        tensor([[0.8000, 0.8000, 0.1000],
                [0.2000, 0.1000, 0.6000]])
        >>> component_means(torch.tensor([[0.9, 0.7, 0.1], [0.2, 0.1, 0.6]]), keep=1)[0][1]
        tensor([0.2000, 0.1000, 0.0000])
    """
    where = "component_means"
    refuse_torch_func(where, p)
    floating(where, "p", p, ("...", "H", "W"))
    number(where, "threshold", threshold, -np.inf, np.inf)
    choice(where, "background", background, ("keep", "components"))
    _check(where, connectivity)
    keep, least = read_limits(where, keep, min_area)
    own = p.to("cpu", torch.float64)
    above = (p.detach() > threshold).cpu().numpy()  # as torch compares in the dtype of p
    labels = _labels(above, connectivity, keep, least)
    if background == "components":
        labels -= _labels(labels == 0, 12 - connectivity, None, 0)
    if labels.size == 0:
        return p.clone(), torch.from_numpy(labels).to(p.device)
    values = _means(own.reshape(-1), labels.reshape(-1, labels.shape[-2] * labels.shape[-1]))
    left = torch.from_numpy(labels == 0)
    rest = own * torch.from_numpy(~above)
    result = torch.where(left, rest, values.reshape(p.shape)).to(p.device, p.dtype)
    return result, torch.from_numpy(labels).to(p.device)


def _check(where: str, connectivity: int) -> None:
    if isinstance(connectivity, bool) or connectivity not in _NEIGHBOURS:
        raise fail(where, "connectivity", "4 or 8", str(connectivity))


def _labels(masks: np.ndarray, connectivity: int, keep: int | None, least: float) -> np.ndarray:
    from scipy.ndimage import label

    labels = np.zeros(masks.shape, dtype=np.int64)
    if labels.size == 0:
        return labels
    rows = labels.reshape(-1, *masks.shape[-2:])
    for row, mask in zip(rows, masks.reshape(rows.shape), strict=True):
        row[:] = label(mask, _NEIGHBOURS[connectivity])[0]
        if keep is not None or least > 0:
            row[:] = kept_labels(np.bincount(row.reshape(-1)), keep, least)[row]
    return labels


def _means(values: torch.Tensor, labels: np.ndarray) -> torch.Tensor:
    """Replace each value by the mean of those of its image and label."""
    labels = labels - labels.min(1, keepdims=True)
    width = int(labels.max()) + 1
    group = torch.from_numpy((labels + width * np.arange(len(labels))[:, None]).reshape(-1))
    count = group.bincount(minlength=width * len(labels)).clamp_min(1)
    sums = values.new_zeros(width * len(labels)).index_add(0, group, values)
    return (sums / count).index_select(0, group)
