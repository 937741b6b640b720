# SPDX-License-Identifier: Apache-2.0
"""Nearest neighbours of many places, asked for in an order that caches like."""

from collections.abc import Sequence

import numpy as np
from scipy.spatial import cKDTree

_MANY = 20_000  # queries from which on the order matters
_CELLS = 1 << 10  # along each axis


def nearest(tree: cKDTree, places: np.ndarray, k: int | Sequence[int] = 1) -> tuple[np.ndarray, np.ndarray]:
    """Return `tree.query(places, k=k, workers=-1)`, the same to the bit.

    Many places are asked for along a curve that fills space, each next to the one before: in a tree of a million points
    that takes a third of the time of a random order.
    """
    if len(places) < _MANY:
        distance, index = tree.query(places, k=k, workers=-1)
        return np.asarray(distance), np.asarray(index)
    order = along_curve(places)
    far, near = tree.query(places[order], k=k, workers=-1)
    distance, index = np.empty_like(far), np.empty_like(near)
    distance[order], index[order] = far, near
    return distance, index


def along_curve(places: np.ndarray) -> np.ndarray:
    """Return the order (N,) of places (N, 3) along Morton's curve through cells."""
    low = places.min(0)
    size = max(float((places.max(0) - low).max()), 1e-300)
    cell = ((places - low) * ((_CELLS - 1) / size)).astype(np.int64)
    for shift, mask in ((16, 0x030000FF), (8, 0x0300F00F), (4, 0x030C30C3), (2, 0x09249249)):
        cell = (cell | cell << shift) & mask
    return np.argsort(cell[:, 0] | cell[:, 1] << 1 | cell[:, 2] << 2, kind="stable")
