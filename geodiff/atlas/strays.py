# SPDX-License-Identifier: Apache-2.0
"""Which points of a cloud are not of its surface: those that fill space, those beside all sheets, and lone groups."""

import numpy as np
from scipy.sparse import coo_matrix, csgraph
from scipy.spatial import cKDTree

from geodiff.atlas.axes import neighbour_axes
from geodiff.atlas.nearest import nearest

_NEAR = 8  # neighbours whose distance tells of the density
_PLANE = 16  # neighbours that a plane is put through
_THICK = 0.1  # of the largest variance, from which the least shows points that fill space
_FAR = 3.0  # distances of a point from its neighbours, in those usual around it
_LONELY = 4.0  # the same, in those usual in all of the cloud
_BACKGROUND = 0.3  # share of a point's neighbours from which on a background as dense would explain them
_PROBES = 2000  # places in the box at which the background is looked for
_EMPTY = 0.8  # share of the places that are nearer to points than the one that is taken to be empty
_MANY = 0.02  # of the points, from which on some of even density are more than the sparse corners of a surface
_FLAT = 10.0  # usual distances of the eighth neighbour, which no side of the box is below
_KEPT = 12  # of those, once the ones farthest from it are left out
_SUPPORT = 3  # neighbours on whose sheet a point of the surface lies
_OFF = 6.0  # distance from a neighbour's plane, in the deviations there, up to which a point is on its sheet
_STEP = 1.0  # the same, in the distance to its neighbours: what edges and tips of few points are off
_GROUP = 8  # points of the smallest group that may be a part of the surface
_SPARED = 0.001  # share of points beside all sheets from which on the search goes on without them


def strays(x: np.ndarray, known: tuple[np.ndarray, np.ndarray] | None = None) -> np.ndarray:
    """Mark points (N, 3) that are not of the surface that the others are of: (N,) bool.

    A point is one if it is much farther from its neighbours than is usual around it; if the points around it fill space
    and are no denser than what is marked would be, spread evenly over the box; or if it is beside the planes of all but
    two of its neighbours, by more than their own deviations and spacing. So are groups of fewer than eight points that
    hang together with nothing else.

    Args:
        x: distinct points.
        known: distances (N, K) and numbers (N, K) of the K ≥ 16 nearest of all, without the point itself, if they are
            known; of a smaller cloud all.
    """
    every = _Around(x, known)
    marked = _spread_out(x, every)
    while True:  # what is off the surface hides others: of the neighbours, and in the planes
        few = marked.mean() <= _SPARED
        left = np.arange(len(x)) if few else np.flatnonzero(~marked)
        if len(left) <= _PLANE:
            return marked
        more = left[_beside(x[left], every if few else _Around(x[left]))]
        added = int((~marked[more]).sum())
        marked[more] = True
        if added <= _SPARED * len(left):
            return marked | _lone(every, marked)


class _Around:
    """What is around each of N points.

    Attributes:
        near: (N, 16) neighbours; fewer in a small cloud.
        distances: (N, 8).
        neighbours: (N, 8).
        reach: (N,) mean distance.
        spread: (N, 3) variances of these and the point itself along their axes, ascending.
    """

    def __init__(self, x: np.ndarray, known: tuple[np.ndarray, np.ndarray] | None = None) -> None:
        count = min(_PLANE, len(x) - 1)
        if known is None:
            far, near = nearest(cKDTree(x), x, count + 1)
            known = far[:, 1:], near[:, 1:]
        distances, self.near = known[0][:, :count], known[1][:, :count]
        self.distances, self.neighbours = distances[:, :_NEAR], self.near[:, :_NEAR]
        self.reach = self.distances.mean(1)
        self.spread = neighbour_axes(x, self.near, own=True)[0]


def _spread_out(x: np.ndarray, around: _Around) -> np.ndarray:
    """Mark points far from their neighbours, and those that a background of even density would explain."""
    reach, spread, last = around.reach, around.spread, around.distances[:, -1]
    usual = np.median(reach[around.neighbours], axis=1)
    # Where the density changes from one side to the other, distances do so by less than a factor of 3. Outliers among
    # outliers are as far from each other as is usual there; but they fill space, while a sparse surface is thin.
    thick = spread[:, 0] > _THICK * spread[:, 2]
    far = (reach > _FAR * usual) | ((reach > _LONELY * np.median(reach)) & thick)
    dense = around.distances.shape[1] / (4 / 3 * np.pi * np.maximum(last, 1e-300) ** 3)
    even = thick & (dense * _BACKGROUND < _background(x, float(np.median(last))))
    return np.asarray(far | even if even.mean() > _MANY else far)


def _background(x: np.ndarray, usual: float) -> float:
    """Return how many points a volume holds in the emptier parts of the box: few, unless strays fill it."""
    low, size = x.min(0), np.ptp(x, axis=0)
    wide = np.maximum(size, _FLAT * usual)  # the box of a flat cloud has no empty parts
    probes = low + size / 2 + (np.random.default_rng(0).random((_PROBES, 3)) - 0.5) * wide
    count = min(_NEAR, len(x))
    gap = cKDTree(x).query(probes, k=[count], workers=-1)[0][:, 0]
    return float(count / (4 / 3 * np.pi * np.quantile(gap, _EMPTY) ** 3))


def _beside(x: np.ndarray, around: _Around) -> np.ndarray:
    """Mark points that lie on the sheet of hardly any of their neighbours."""
    kept = _KEPT * (around.near.shape[1] + 1) // _PLANE
    spread, axes = neighbour_axes(x, around.near, own=True, keep=kept)
    within = np.maximum(_OFF * np.sqrt(spread[:, 0]), _STEP * around.reach)
    support = np.empty(len(x), dtype=np.int64)
    for rows in np.array_split(np.arange(len(x)), max(len(x) >> 15, 1)):
        near = around.neighbours[rows]
        off = np.abs(np.einsum("nkd,nkd->nk", x[rows, None] - x[near], axes[near]))
        support[rows] = (off <= within[near]).sum(1)
    return np.asarray(support < min(_SUPPORT, around.neighbours.shape[1]))


def _lone(around: _Around, marked: np.ndarray) -> np.ndarray:
    """Mark small groups that the graph of neighbours leaves alone."""
    usual = np.median(around.reach[around.neighbours], axis=1)
    near = around.distances <= _FAR * np.minimum(around.reach, usual)[:, None]
    rows = np.repeat(np.arange(len(marked)), near.sum(1))
    columns = around.neighbours[near]
    good = ~marked[rows] & ~marked[columns]
    graph = coo_matrix((np.ones(good.sum(), np.int8), (rows[good], columns[good])), shape=(len(marked), len(marked)))
    labels = csgraph.connected_components(graph, directed=False)[1]
    return np.asarray(np.bincount(labels)[labels] < _GROUP)
