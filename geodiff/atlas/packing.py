# SPDX-License-Identifier: Apache-2.0
"""Rectangles into one square: the layout of an atlas's texture."""

from typing import NamedTuple

import numpy as np
import torch

from geodiff.validation import fail, floating

_ROUNDS = 24  # halvings of the search for the square's side


class Packing(NamedTuple):
    """Where rectangles lie in the unit square.

    Attributes:
        corner: (Q, 2), lower left corners.
        scale: the factor by which all sizes were multiplied, float.
        turned: (Q,) bool, those lying on their side: their x and y are exchanged.
        filled: share of the square that the rectangles cover, float.
    """

    corner: torch.Tensor
    scale: float
    turned: torch.Tensor
    filled: float


def pack_rectangles(sizes: torch.Tensor, *, gap: float = 0.002) -> Packing:
    """Place Q rectangles in the unit square without overlap, all enlarged by the same factor.

    Shelves: rectangles lie on their longer side, sorted by height, row after row; the smallest square that holds the
    rows is found by bisection.

    Args:
        sizes: (Q, 2) widths and heights, positive, Q ≥ 1.
        gap: between rectangles, and around them, in the unit square: 0 or more, below 0.05.

    Raises:
        ValueError: wrong shapes, no rectangles, sizes that are not positive, or gaps that fill the square.

    Gradients: none.

    Example:
        >>> import torch
        >>> from geodiff.atlas.packing import pack_rectangles
        >>> pack_rectangles(torch.ones(4, 2), gap=0.0).scale
        0.5
    """
    where = "pack_rectangles"
    floating(where, "sizes", sizes, ("Q", 2))
    if len(sizes) == 0 or not bool((sizes > 0).all()):
        raise fail(where, "sizes", "positive, one rectangle or more", sizes)
    if not 0 <= gap < 0.05:
        raise fail(where, "gap", "at least 0 and below 0.05", str(gap))
    given = sizes.detach().cpu().double().numpy()
    turned = given[:, 1] > given[:, 0]
    size = np.where(turned[:, None], given[:, ::-1], given)
    order = np.lexsort((-size[:, 0], -size[:, 1]))
    size = size[order]

    def height(side: float) -> tuple[float, np.ndarray]:
        """Return the height of the rows in a square of that side, and the corners."""
        margin = gap * side
        corner = np.zeros_like(size)
        x = y = margin
        shelf = size[0, 1]
        for k, (w, h) in enumerate(size):
            if x + w + margin > side * (1 + 1e-12) and x > margin:
                x, y, shelf = margin, y + shelf + margin, h
            corner[k] = x, y
            x += w + margin
        return y + shelf + margin, corner

    def fits(side: float) -> bool:
        return bool(size[:, 0].max() + 2 * gap * side <= side * (1 + 1e-12)) and height(side)[0] <= side * (1 + 1e-12)

    area = float((size[:, 0] * size[:, 1]).sum())
    low, high = float(np.sqrt(area)), float(np.sqrt(area))
    while not fits(high):
        high *= 1.25
        if high > 1e4 * np.sqrt(area) + 1e4 * size[:, 0].max():
            raise fail(where, "gap", f"small beside 1/√Q for {len(size)} rectangles", str(gap), "Make it smaller.")
    for _ in range(_ROUNDS if high > low else 0):
        middle = (low + high) / 2
        low, high = (low, middle) if fits(middle) else (middle, high)
    corner = np.empty_like(size)
    corner[order] = height(high)[1] / high
    return Packing(
        torch.from_numpy(corner).to(sizes), 1 / high, torch.from_numpy(turned).to(sizes.device), area / high**2
    )
