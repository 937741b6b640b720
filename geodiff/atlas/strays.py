# SPDX-License-Identifier: Apache-2.0
"""Which points of a cloud are not of its surface: those that fill space, those beside all sheets, and lone groups."""

import numpy as np
from scipy.sparse import coo_matrix, csgraph
from scipy.spatial import cKDTree

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
_KEPT = 12  # of those, after the ones farthest from it are left out
_SUPPORT = 3  # neighbours on whose sheet a point of the surface lies
_OFF = 6.0  # distance from a neighbour's plane, in the deviations there, up to which a point is on its sheet
_STEP = 1.0  # the same, in the distance to its neighbours: what edges and tips of few points are off
_GROUP = 8  # points of the smallest group that may be a part of the surface
_SPARED = 0.001  # share of points beside all sheets from which on the search goes on without them


def strays(x: np.ndarray) -> np.ndarray:
    """Mark points (N, 3) that are not of the surface that the others are of: (N,) bool.

    A point is one if it is much farther from its neighbours than is usual around it; if the points around it fill space
    and are no denser than what is marked would be, spread evenly over the box; or if it is beside the planes of all but
    two of its neighbours, by more than their own deviations and spacing. So are groups of fewer than eight points that
    hang together with nothing else.

    Args:
        x: distinct points.
    """
    there = np.arange(len(x))
    marked = _spread_out(x)
    while True:  # what is off the surface hides others: of the neighbours, and in the planes
        left = there[~marked]
        if len(left) <= _PLANE:
            return marked
        more = _beside(x[left])
        marked[left[more]] = True
        if more.sum() <= _SPARED * len(left):
            break
    return marked | _lone(x, marked)


def _spread_out(x: np.ndarray) -> np.ndarray:
    """Mark points far from their neighbours, and those that a background of even density would explain."""
    distances, neighbours, spread = _around(x)
    reach = distances.mean(1)
    usual = np.median(reach[neighbours], axis=1)
    # Where the density changes from one side to the other, distances do so by less than a factor of 3. Outliers among
    # outliers are as far from each other as is usual there; but they fill space, while a sparse surface is thin.
    thick = spread[:, 0] > _THICK * spread[:, 2]
    far = (reach > _FAR * usual) | ((reach > _LONELY * np.median(reach)) & thick)
    dense = _NEAR / (4 / 3 * np.pi * np.maximum(distances[:, -1], 1e-300) ** 3)
    even = thick & (dense * _BACKGROUND < _background(x, float(np.median(distances[:, -1]))))
    return np.asarray(far | even if even.mean() > _MANY else far)


def _background(x: np.ndarray, usual: float) -> float:
    """Return how many points a volume holds in the emptier parts of the box: few, unless strays fill it."""
    low, size = x.min(0), np.ptp(x, axis=0)
    wide = np.maximum(size, _FLAT * usual)  # the box of a flat cloud has no empty parts
    probes = low + size / 2 + (np.random.default_rng(0).random((_PROBES, 3)) - 0.5) * wide
    gap = cKDTree(x).query(probes, k=[min(_NEAR, len(x))], workers=-1)[0][:, 0]
    return float(_NEAR / (4 / 3 * np.pi * np.quantile(gap, _EMPTY) ** 3))


def _beside(x: np.ndarray) -> np.ndarray:
    """Mark points that lie on the sheet of hardly any of their neighbours."""
    distances, neighbours, spread, axes = _around(x, planes=True)
    step = x[:, None] - x[neighbours]
    off = np.abs((step * axes[neighbours]).sum(2))
    reach = distances.mean(1)
    within = np.maximum(_OFF * np.sqrt(spread[:, 0]), _STEP * reach)
    return np.asarray((off <= within[neighbours]).sum(1) < min(_SUPPORT, neighbours.shape[1]))


def _around(x: np.ndarray, planes: bool = False) -> tuple[np.ndarray, ...]:
    """Return distances and neighbours (N, 8), variances (N, 3) of 16 neighbours, ascending; and their normals."""
    count = min(_PLANE, len(x) - 1)
    distances, neighbours = cKDTree(x).query(x, k=count + 1, workers=-1)
    near, around = distances[:, 1 : _NEAR + 1], neighbours[:, 1 : _NEAR + 1]
    spread, axes = np.empty((len(x), 3)), np.empty((len(x), 3))
    for rows in np.array_split(np.arange(len(x)), max(len(x) >> 15, 1)):
        some = x[neighbours[rows]]
        spread[rows], axes[rows] = _plane(some)
        if planes:  # once more without what is farthest from it
            off = np.abs(((some - some.mean(1, keepdims=True)) * axes[rows][:, None]).sum(2))
            order = np.argsort(off, axis=1)[:, : _KEPT * (count + 1) // _PLANE]
            spread[rows], axes[rows] = _plane(np.take_along_axis(some, order[:, :, None], 1))
    return (near, around, spread, axes) if planes else (near, around, spread)


def _plane(some: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    some = some - some.mean(1, keepdims=True)
    value, vector = np.linalg.eigh(np.einsum("nki,nkj->nij", some, some) / some.shape[1])
    return np.maximum(value, 0), vector[:, :, 0]


def _lone(x: np.ndarray, marked: np.ndarray) -> np.ndarray:
    """Mark small groups that the graph of neighbours leaves alone."""
    left = np.flatnonzero(~marked)
    lone = np.zeros(len(x), dtype=bool)
    if len(left) < 2:
        return lone
    distances, neighbours = cKDTree(x[left]).query(x[left], k=min(_NEAR, len(left) - 1) + 1, workers=-1)
    distances, neighbours = distances[:, 1:], neighbours[:, 1:]
    reach = distances.mean(1)
    usual = np.median(reach[neighbours], axis=1)
    near = distances <= _FAR * np.minimum(reach, usual)[:, None]
    rows = np.repeat(np.arange(len(left)), near.sum(1))
    graph = coo_matrix((np.ones(len(rows), np.int8), (rows, neighbours[near])), shape=(len(left), len(left)))
    labels = csgraph.connected_components(graph, directed=False)[1]
    lone[left] = np.bincount(labels)[labels] < _GROUP
    return lone
