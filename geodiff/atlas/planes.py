# SPDX-License-Identifier: Apache-2.0
"""Planes through points and their neighbours, of two sheets through those of the point's own."""

from typing import NamedTuple

import numpy as np
import torch
from scipy.spatial import cKDTree

from geodiff.atlas.nearest import nearest
from geodiff.atlas.noise import TWO, own_sheet

FLAT = 0.1  # variance across over variance along, up to which points around one make a plane
_SEPARATE = 4.0  # distance of two sheets, in the spread within them
_OVER = (
    0.9  # distance along the plane of the middles of two sheets, squared, in the variance of all: less than at edges
)
_THIN = 0.01  # distance across of two sheets, in the radius of the neighbourhood, below which rounding may be all of it
_GUESS = 0.35  # share of the variance left within two sheets, at first sight
_BETWEEN = 0.2  # of the distance of two sheets, from the middle: points on a rim
_AMID = 0.5  # share of neighbours that see two sheets, from which on there are two
_LEAST = 4  # points of a sheet


class Planes(NamedTuple):
    """Planes of N points and K neighbours each.

    Attributes:
        middle: (N, 3) of the neighbours in the plane.
        axis: (N, 3) unit, across.
        flat: (N,) variance across over that along.
        neighbours: (N, K) all of them, nearest first.
        own: (N, K) bool, whether each is on the sheet of the point, as far as gaps between sheets show.
    """

    middle: torch.Tensor
    axis: torch.Tensor
    flat: torch.Tensor
    neighbours: np.ndarray
    own: np.ndarray


def planes(x: torch.Tensor, pull: torch.Tensor, k: int, *, gaps: bool = True) -> Planes:
    """Fit planes to points (N, 3) and their k nearest neighbours.

    Two sheets with a gap between them are told by their heights, if `gaps`. Else those that are pulled (N, 3) to
    opposite sides may be two, if they are farther apart than each is thick.
    """
    k = min(k, len(x) - 1)
    neighbours = nearest(cKDTree(x.numpy()), x.numpy(), k + 1)[1]
    parts = [_fit(x[rows].double(), pull[rows], gaps) for rows in torch.from_numpy(neighbours).split(1 << 14)]
    middle, axis, flat, own = (torch.cat(part) for part in zip(*parts, strict=True))
    near, same = neighbours[:, 1:], own[:, 1:].numpy()
    # Amid points that see two sheets one that does not tells nothing: those tell on which of them it is.
    two = np.asarray(~same.all(1))
    same[~two & (two[near].mean(1) > _AMID)] = False
    return Planes(middle.float(), axis.float(), flat, near, same)


def plane(around: torch.Tensor, mask: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return middles (B, 3), axes across (B, 3) and flatness (B,) of those of points (B, K, 3) that count (B, K)."""
    weight = mask[:, :, None].to(around)
    middle = (around * weight).sum(1, keepdim=True) / weight.sum(1, keepdim=True)
    around = (around - middle) * weight
    axis, flat = _across(around)
    return middle[:, 0], axis, flat


def _across(offset: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    spread, frame = torch.linalg.eigh(offset.mT @ offset)
    return frame[:, :, 0].contiguous(), spread[:, 0] / spread[:, 1].clamp(min=1e-300)


def _fit(around: torch.Tensor, pull: torch.Tensor, gaps: bool) -> tuple[torch.Tensor, ...]:
    everyone = torch.ones(around.shape[:2], dtype=torch.bool)
    middle, axis, flat = plane(around, everyone)
    offset = around - middle[:, None]
    height = (offset * axis[:, None]).sum(2)
    own, clear = _sheets(offset, height) if gaps else (everyone, everyone)
    gap = ~own.all(1)
    side = (pull * pull[:, :1]).sum(2) >= 0
    here, there = _mean(height, side), _mean(height, ~side)
    within = _mean((height - torch.where(side, here, there)).square(), everyone)
    pulled = ((here - there).square() > _SEPARATE**2 * within)[:, 0] & ~gap
    for some, sheet in ((gap, own), (pulled, side)):
        if some.any():
            middle[some], axis[some], flat[some] = plane(around[some], sheet[some])
    return middle, axis, flat, clear


def _sheets(offset: torch.Tensor, height: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return which points (B, K) are on the sheet of the first: all, where there are not two with a gap between.

    Then which of them clearly are: points on a rim lie between the sheets.
    """
    for left in (_GUESS, TWO):
        own = own_sheet(height, left=left) > 0
        if left == _GUESS:
            # The plane of both is tilted by how the sheets happen to be sampled.
            middle = torch.where(own[:, :, None], _middle(offset, own), _middle(offset, ~own))
            axis = _across(offset - middle)[0]
            height = (offset * axis[:, None]).sum(2)
    here, there = (_middle(offset, mask) for mask in (own, ~own))
    apart = (here - there)[:, 0]
    across = (apart * axis).sum(1).square()
    square = offset.square().sum(2)
    along = square.mean(1) - height.square().mean(1)
    two = (apart.square().sum(1) - across < _OVER * along) & (across > _THIN**2 * square.amax(1))
    two &= torch.minimum(own.sum(1), (~own).sum(1)) >= _LEAST
    level = ((here + there) / 2 * axis[:, None]).sum(2)
    clear = own & ((height - level).abs() > _BETWEEN * across.sqrt()[:, None])
    return own | ~two[:, None], (clear & clear[:, :1]) | ~two[:, None]


def _middle(offset: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    weight = mask[:, :, None].to(offset)
    return (offset * weight).sum(1, keepdim=True) / weight.sum(1, keepdim=True).clamp(min=1)


def _mean(values: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    return (values * mask).sum(1, keepdim=True) / mask.sum(1, keepdim=True).clamp(min=1)
