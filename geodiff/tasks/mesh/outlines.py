# SPDX-License-Identifier: Apache-2.0
"""How far each pixel is from the outline of a mask: what makes a smooth surface of many of them.

Coverage says where the outline is within the pixels that it passes through, and nothing beyond. A distance is as exact
there and goes on at the same slope, so that its zero is found between samples that are pixels apart.
"""

import numpy as np
import torch

from geodiff.scene.photographs import give_back

_NEAREST = 4  # pieces of outline looked at for a pixel beside it
_BAND = 2.5  # pixels from the outline: beyond, distances to the centres of pixels are exact enough
FAR = 1e4  # pixels: where there is no outline


def outline_distance(alpha: torch.Tensor) -> torch.Tensor:
    """Return the signed distance in pixels, positive inside, of pixel centres to the outline of a mask.

    The outline is where the coverage, bilinear between the centres of pixels, is ½. Of an anti-aliased mask that is
    where the shape's edge is; of one that is 0 or 1 it is half-way between pixels, corners cut.

    Args:
        alpha: coverage (H, W).

    Returns:
        (H, W) in the same dtype; ±10 000 everywhere where there is no outline.
    """
    values = alpha.detach().double().numpy() - 0.5
    inside = values >= 0
    if inside.all() or not inside.any():
        return torch.full_like(alpha, FAR if inside.all() else -FAR)
    from scipy.ndimage import distance_transform_edt

    far = distance_transform_edt(inside) + distance_transform_edt(~inside) - 0.5
    near, pieces = np.nonzero(far < _BAND), outline_pieces(values)
    if len(pieces):  # an image of one row or column has no squares of pixels
        far[near] = _to_pieces(np.stack(near, 1).astype(float), pieces)
    distance = torch.from_numpy(np.where(inside, far, -far)).to(alpha.dtype)
    del values, inside, far
    give_back(alpha.numel())
    return distance


def _to_pieces(points: np.ndarray, ends: np.ndarray) -> np.ndarray:
    """Return the distances of points (N, 2) to the nearest of straight pieces (M, 2, 2), none much longer than 1."""
    from scipy.spatial import cKDTree

    tree = cKDTree(ends.mean(1))
    _, row = tree.query(points, k=range(1, min(_NEAREST, len(ends)) + 1))
    first, along = ends[row, 0], ends[row, 1] - ends[row, 0]
    away = points[:, None] - first
    share = (away * along).sum(-1) / np.maximum((along**2).sum(-1), 1e-30)
    gap: np.ndarray = np.linalg.norm(away - np.clip(share, 0, 1)[..., None] * along, axis=-1).min(1)
    return gap


def outline_pieces(values: np.ndarray) -> np.ndarray:
    """Return the straight pieces (N, 2, 2) of the zero line in the squares between four samples, as (row, column).

    Two for a square with four crossings: what is inside stays apart.
    """
    height, width = values.shape
    corners = [(0, 0), (0, 1), (1, 1), (1, 0)]
    inside = np.stack([values[i : height - 1 + i, j : width - 1 + j] >= 0 for i, j in corners])
    mixed = np.argwhere(inside.any(0) & ~inside.all(0))
    value = np.stack([values[mixed[:, 0] + i, mixed[:, 1] + j] for i, j in corners], 1)
    following = np.roll(value, -1, 1)
    crossed = (value >= 0) != (following >= 0)
    share = np.divide(value, value - following, out=np.zeros_like(value), where=crossed)
    start = np.array(corners, dtype=float)
    points = mixed[:, None] + start + share[..., None] * (np.roll(start, -1, 0) - start)
    two, four = crossed.sum(1) == 2, crossed.sum(1) == 4
    side = np.argsort(~crossed[two], axis=1, kind="stable")[:, :2]
    pieces = [np.take_along_axis(points[two], side[..., None], 1)]
    # Around each of the two corners that are inside: the sides before and after it.
    first, each = (value[four, 0] < 0).astype(int), np.arange(int(four.sum()))
    for corner in (first, first + 2):
        pieces.append(np.stack([points[four][each, corner - 1], points[four][each, corner]], 1))
    return np.concatenate(pieces)
