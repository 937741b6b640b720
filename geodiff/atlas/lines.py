# SPDX-License-Identifier: Apache-2.0
"""Clouds whose points lie along lines: how far the lines are apart, and points as far from each other as these are."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from scipy.spatial import cKDTree

from geodiff.atlas.nearest import nearest
from geodiff.validation import shapes_repr

NEIGHBOURS = 10  # of a look at one scale
_FIRST = 6  # of the first look: 10 on lines that are only some four times as far apart as the points look like a disk
_SITES = 4000
_TOGETHER = 9  # sites that decide together
_FEWEST = 64  # points that a thinned cloud has
_STEP = 2**0.5  # from one thinning to the next
_LINE = 0.15  # middle over largest variance, below which points are a line
_SURFACE = 0.25  # the same, from which on they are a surface, if they are flat as well:
_FLAT = 0.12  # least over middle variance
_SHARE = 0.25  # of the places that must lie on lines, for a cloud to be one of lines
_AROUND, _WIDE, _ROUNDS = 3.0, 0.8, 3  # gaps about a place of which this quantile counts, so many times
_PART = 128  # places whose neighbours are in memory at once
_BESIDE = 2.0  # gaps to a place that tells for another
_THINNED = 0.5  # least distance of the points that are left, in gaps
BRIDGE = 3.0  # radius of patches that reach from line to line, in gaps
_LOOKS = 400  # places where such a patch is looked at
_BENT = 0.4  # gaps off a quadric, from which it is not one sheet
_NEAR = 5.0  # gaps in spacings along the lines, up to which patches of the usual size have several lines in them


_UNBRIDGED = (
    "The points lie in lines, {:.3g} apart (the median), and the shape is finer than patches that reach over several "
    "of them: what lies between lines may be missing."
)


class ScanLines(NamedTuple):
    """What is known of a cloud of N points in lines.

    Attributes:
        gap: (N,) from line to line about each point, the widest nearby; 0 where the points are in no lines.
        anchor: (N,) bool, points left if the lines are thinned until these are half a gap apart or more.
        alone: share of the points that lie on lines with no others beside them.
    """

    def __repr__(self) -> str:
        return shapes_repr(self)

    gap: np.ndarray
    anchor: np.ndarray
    alone: float


def scan_lines(points: np.ndarray, seed: int = 0, notes: list[str] | None = None) -> ScanLines | None:
    """Tell whether points lie along lines, as those of a spinning scanner do, and how far these are apart.

    The points about a place are looked at from near to far: the 6 and 10 nearest of the cloud, and 10 of clouds thinned
    more and more. The first scale at which they are neither a ball of noise nor anything between tells: on surfaces
    sampled evenly they fill a disk. If they make a line, the radius at which they become a disk is the distance of the
    lines.

    Args:
        points: (N, 3) float64, distinct.
        seed: of the places and of the thinning.
        notes: where to say that there are lines which are not bridged.

    Returns:
        None unless a quarter of the points lie on lines with others beside them; nor where the shape is finer than
        patches that reach over its lines, while these are so near to each other that smaller patches do, too.
    """
    count = len(points)
    if count < _FEWEST:
        return None
    order = np.lexsort(points.T)  # the same for any order of the points
    x = points[order] - points.mean(0)
    shuffled = np.random.default_rng(seed).permutation(count)
    sites = np.sort(np.argsort(shuffled, kind="stable")[:_SITES])
    about = cKDTree(x[sites]).query(x[sites], k=min(_TOGETHER, len(sites)), workers=-1)[1]
    line, even = np.zeros((2, len(sites)), dtype=bool)
    left = np.ones(len(sites), dtype=bool)
    gap = np.zeros(len(sites))
    thinning = 1.0
    while left.any() and count >= _FEWEST * thinning:
        members = np.flatnonzero(shuffled * thinning < count) if thinning > 1 else np.arange(count)
        variance, radius = _variances(x, members, sites, NEIGHBOURS)
        (least, middle), radius = np.median(variance[about], axis=1).T, np.median(radius[about], axis=1)
        disk = left & (middle >= _SURFACE) & (least < _FLAT * middle)
        if thinning == 1:
            line = np.median(_variances(x, members, sites, _FIRST)[0][about, 1], axis=1) < _LINE
            even = disk & ~line
            if even.mean() > 1 - _SHARE:
                return None
        gap[disk & line] = radius[disk & line]
        line |= left & (middle < _LINE)
        left &= ~disk
        thinning *= _STEP
    if (gap > 0).mean() < _SHARE:
        return None
    # Where noise or a bend hides the line, the nearest place that shows one tells.
    gap = _spread(x[sites], gap, ~even & (gap == 0))
    alone = line & (gap == 0)
    nearest = cKDTree(x[sites]).query(x, workers=-1)[1]
    anchor = np.zeros(count, dtype=bool)
    anchor[poisson_disk(x, np.argsort(shuffled), (_THINNED * gap[nearest]).item)] = True
    back = np.empty(count, dtype=np.int64)
    back[order] = np.arange(count)
    if _needless(x, sites, gap):
        if notes is not None:
            notes.append(_UNBRIDGED.format(np.median(gap[gap > 0])))
        return None
    wide = gap.copy()
    wide[gap > 0] = _widest(x[sites[gap > 0]], gap[gap > 0])
    wide = _spread(x[sites], wide, gap == 0)  # evenly sampled strips between lines, too
    return ScanLines(wide[nearest][back], anchor[back], float(alone[nearest].mean()))


def _needless(x: np.ndarray, sites: np.ndarray, gap: np.ndarray) -> bool:
    """Whether patches that reach over lines are of several sheets, and smaller ones have some lines in them as well."""
    some = np.flatnonzero(gap > 0)
    some = some[:: max(1, len(some) // _LOOKS)]
    tree, bent, count = cKDTree(x), [], []
    for i in some:
        near = tree.query_ball_point(x[sites[i]], BRIDGE * gap[i])
        offset = x[near] - x[near].mean(0)
        h, v, u = (offset @ np.linalg.eigh(offset.T @ offset)[1]).T
        quadric = np.stack([np.ones_like(u), u, v, u * u, u * v, v * v], 1)
        rest = h - quadric @ np.linalg.lstsq(quadric, h, rcond=None)[0]
        bent.append(np.sqrt(np.square(rest).mean()) / gap[i])
        count.append(len(tree.query_ball_point(x[sites[i]], gap[i])))
    return bool(np.median(bent) > _BENT and np.median(count) / np.pi < _NEAR)


def _spread(x: np.ndarray, gap: np.ndarray, some: np.ndarray) -> np.ndarray:
    """Return gaps (S,) of which `some` (S,) are those of the nearest place that has one, if it is not far."""
    found, some = np.flatnonzero(gap > 0), np.flatnonzero(some)
    far, near = cKDTree(x[found]).query(x[some], workers=-1)
    gap = gap.copy()
    gap[some] = np.where(far <= _BESIDE * gap[found[near]], gap[found[near]], 0)
    return gap


def _widest(x: np.ndarray, gap: np.ndarray) -> np.ndarray:
    """Return for places x (S, 3) a high quantile of the gaps within some gaps: lines run in pairs, and to a point."""
    tree = cKDTree(x)
    for _ in range(_ROUNDS):
        # Where gaps are few and wide, each place has nearly all as neighbours.
        parts = np.array_split(np.arange(len(x)), -(-len(x) // _PART))
        near = (tree.query_ball_point(x[part], _AROUND * gap[part], workers=-1) for part in parts)
        gap = np.array([np.quantile(gap[some], _WIDE) for part in near for some in part])
    return gap


def poisson_disk(x: np.ndarray, order: np.ndarray, radius: Callable[[int], float]) -> np.ndarray:
    """Choose among the points `order` of x (N, 3), in that order, all that are in no earlier one's radius."""
    free = np.zeros(len(x), dtype=bool)
    free[order] = True
    tree = cKDTree(x[order])
    chosen = []
    for i in order.tolist():
        if free[i]:
            chosen.append(i)
            free[order[tree.query_ball_point(x[i], radius(i))]] = False
    return np.array(chosen, dtype=np.int64)


def _variances(x: np.ndarray, members: np.ndarray, sites: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the least and the middle variance over the largest (S, 2), and radii (S,), of the nearest members."""
    far, near = cKDTree(x[members]).query(x[sites], k=min(count, len(members)), workers=-1)
    offset = x[members[near]]
    offset = offset - offset.mean(1, keepdims=True)
    spread = np.linalg.eigvalsh(offset.transpose(0, 2, 1) @ offset).clip(0)
    return spread[:, :2] / np.maximum(spread[:, 2:], 1e-300), far[:, -1]


def neighbours(x: np.ndarray, count: int, anchor: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
    """Return distances and indices (N, count) of the nearest points of x (N, 3), or anchors, without the point itself.

    Fewer columns where there are fewer points.
    """
    members = np.arange(len(x)) if anchor is None else np.flatnonzero(anchor)
    count = min(count, len(members) - 1)
    far, near = nearest(cKDTree(x[members]), x, count + 1)
    if anchor is None:  # the point itself is the first
        return far[:, 1:], near[:, 1:]
    near = members[near]
    # Anchors find themselves; the others leave out the last instead.
    own = near == np.arange(len(x))[:, None]
    own[~own.any(1), -1] = True
    return far[~own].reshape(-1, count), near[~own].reshape(-1, count)
