# SPDX-License-Identifier: Apache-2.0
"""How far each pixel is from the outline of a mask: what makes a smooth surface of many of them.

Coverage says where the outline is within the pixels that it passes through, and nothing beyond. A distance is as exact
there, and goes on at the same slope, so that its zero is found between samples that are pixels apart.
"""

import numpy as np
import scipy.spatial
import torch

_NEAREST = 4  # pieces of outline looked at for each pixel
_REACH = 16.0  # pixels: farther ones count as that far


def outline_distance(alpha: torch.Tensor) -> torch.Tensor:
    """Return the signed distance in pixels, positive inside, of pixel centres to the outline of a mask (H, W).

    The outline is where the coverage, bilinear between the centres of pixels, is ½. Of an anti-aliased mask that is
    where the shape's edge is; of one that is 0 or 1 it is half-way between pixels, corners cut.

    Returns:
        (H, W), in [−16, 16]; −16 or 16 everywhere where there is no outline.
    """
    values = alpha.detach().double().numpy() - 0.5
    far = np.where(values >= 0, _REACH, -_REACH)
    ends = _pieces(values)
    if not len(ends):
        return torch.from_numpy(far).to(alpha.dtype)
    tree = scipy.spatial.cKDTree(ends.mean(1))
    pixels = np.indices(values.shape).reshape(2, -1).T.astype(float)
    count = min(_NEAREST, len(ends))
    distance, row = tree.query(pixels, k=range(1, count + 1), distance_upper_bound=_REACH)
    near = distance[:, 0] < _REACH
    first, second = np.moveaxis(ends[np.minimum(row[near], len(ends) - 1)], 2, 0)
    along = second - first
    away = pixels[near][:, None] - first
    place = (away * along).sum(-1) / np.maximum((along**2).sum(-1), 1e-30)
    gap = np.linalg.norm(away - np.clip(place, 0, 1)[..., None] * along, axis=-1)
    result = far.reshape(-1)
    result[near] = np.copysign(np.minimum(gap.min(1), _REACH), result[near])
    return torch.from_numpy(result.reshape(values.shape)).to(alpha.dtype)


def _pieces(values: np.ndarray) -> np.ndarray:
    """Return the straight pieces (N, 2, 2) of the zero line in the squares between four samples, as (row, column).

    Two for a square with four crossings: what is inside stays apart.
    """
    height, width = values.shape
    inside = values >= 0
    corners = [(0, 0), (0, 1), (1, 1), (1, 0)]
    signs = [inside[i : height - 1 + i, j : width - 1 + j] for i, j in corners]
    mixed = np.argwhere(np.logical_or.reduce(signs) & ~np.logical_and.reduce(signs))
    value = np.stack([values[mixed[:, 0] + i, mixed[:, 1] + j] for i, j in corners], 1)
    following = np.roll(value, -1, 1)
    crossed = (value >= 0) != (following >= 0)
    share = np.divide(value, value - following, out=np.zeros_like(value), where=crossed)
    start = np.array(corners, dtype=float)
    step = np.roll(start, -1, 0) - start
    points = mixed[:, None] + start + share[..., None] * step
    pieces = []
    count = crossed.sum(1)
    two = count == 2
    side = np.argsort(~crossed[two], axis=1, kind="stable")[:, :2]
    pieces.append(np.take_along_axis(points[two], side[..., None], 1))
    four = count == 4
    # Around each corner that is inside: the sides before and after it.
    odd = (value[four, 0] < 0).astype(int)
    for k in (0, 2):
        corner = odd + k
        rows = np.arange(len(odd))
        pieces.append(np.stack([points[four][rows, (corner - 1) % 4], points[four][rows, corner]], 1))
    return np.concatenate(pieces)
