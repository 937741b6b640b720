# SPDX-License-Identifier: Apache-2.0
"""Far from the origin, differences of coordinates are all that has digits: computations are moved there first."""

import torch

FAR = 8.0
"""Points farther from the origin than this many times their extent are far."""


def anchor(points: torch.Tensor) -> torch.Tensor:
    """Return the middle of the box of points `(..., N, D)`, along each axis where it is far, else 0: `(..., D)`.

    Without gradient: subtracted before and added after, it changes roundings only, and none near the origin.

    Example:
        >>> anchor(torch.tensor([[1000.0, 0.0], [1001.0, 3.0]]))
        tensor([1000.5000,    0.0000])
    """
    if points.shape[-2] == 0:
        return points.new_zeros((*points.shape[:-2], points.shape[-1]))
    low, high = torch.aminmax(points.detach(), dim=-2)
    middle = low + (high - low) / 2
    return torch.where(middle.abs() > FAR * (high - low), middle, 0)
