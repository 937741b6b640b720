# SPDX-License-Identifier: Apache-2.0
"""Where charts are trusted: triangles between neighbouring members, and which chart gives which place."""

import dataclasses
import itertools
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from scipy.spatial import Delaunay, QhullError, cKDTree

from geodiff.atlas.nearest import nearest
from geodiff.modes import cached
from geodiff.validation import shapes_repr

_NEIGHBOURS = 8
_OFF = 1 / 3
_PART = 1 << 19  # triangles that are looked at at once
_CHARTS = 32  # that a thread takes at once
_BETWEEN = 0.6  # of the distance of lines, spacing that closes what is between them, and half as much again


@dataclasses.dataclass(frozen=True)
class Domain:
    """The trimmed parts of all squares, as triangles between members.

    Attributes:
        triangles: (T, 3) int64, rows of the M memberships, counter-clockwise in the square, sorted by chart.
        chart: (T,) int64.
        places: (M, 3), members as their chart has them.
        owner: (N,) int64, the chart in which a point lies deepest; −1 for points in no triangle.
        owned: (T, 3) bool, corners whose point this chart owns.
        area: (T,) in space.
    """

    __repr__ = shapes_repr

    triangles: torch.Tensor
    chart: torch.Tensor
    places: torch.Tensor
    owner: torch.Tensor
    owned: torch.Tensor
    area: torch.Tensor

    @cached
    def surface_area(self) -> float:
        """Area of the surface, each place counted once: a third of a triangle goes to each corner's owner."""
        return float((self.area[:, None] * self.owned).double().sum() / 3)


def trim(
    chart: torch.Tensor,
    point: torch.Tensor,
    uv: torch.Tensor,
    places: torch.Tensor,
    normals: torch.Tensor,
    depth: torch.Tensor,
    points: int,
    surface: Callable[[torch.Tensor, torch.Tensor], torch.Tensor],
    usable: torch.Tensor,
    reach: float = 2.3,
    gap: np.ndarray | None = None,
) -> Domain:
    """Keep of each square the part among the members: an alpha shape whose radius follows the local spacing.

    The members' Delaunay triangles in the square are kept where the circle about the triangle in space is smaller than
    `reach` times the spacing √(area a point) there. So borders and holes of the cloud that are wider than that stay
    open, and nothing is extrapolated. Of those, triangles that cut a corner go: whose middle is farther than a third of
    the spacing from the planes of all of the three nearest points of the cloud, as the deepest charts have them.

    Args:
        chart: (M,) int64, sorted.
        point: (M,) int64.
        uv: (M, 2).
        places: (M, 3), the charts there.
        normals: (M, 3), unit, of either side.
        depth: (M,), the greater the deeper the member lies in its chart.
        points: N.
        surface: points (S, 3) of charts (S,) at places uv (S, 2).
        usable: (M,) bool, members that may be corners.
        reach: see above. At 2 a few of the triangles of a random sample are lost; holes of radius `reach` are closed.
        gap: (N,), of a cloud of lines: how far these are apart, and so the spacing at least.

    Returns:
        Triangles and owners.

    Gradients: none.
    """
    u, x = uv.detach().cpu().double().numpy(), places.detach().cpu().double().numpy()
    i = point.cpu().numpy()
    starts = np.searchsorted(chart.cpu().numpy(), np.arange(int(chart[-1]) + 2 if len(chart) else 1))
    kept = np.flatnonzero(usable.cpu().numpy())
    starts = np.searchsorted(kept, starts)
    runs = [(a, b) for a, b in itertools.pairwise(starts) if b - a >= 3]
    # Qhull lets other threads have the interpreter meanwhile.
    with ThreadPoolExecutor(torch.get_num_threads()) as pool:
        parts = [runs[first : first + _CHARTS] for first in range(0, len(runs), _CHARTS)]
        found = [
            one
            for part in pool.map(lambda some: [kept[_delaunay(u[kept[a:b]]) + a] for a, b in some], parts)
            for one in part
        ]
    triangles = np.concatenate(found) if found else np.zeros((0, 3), dtype=np.int64)
    spacing = local_spacing(x, i, points)
    if gap is not None:
        spacing = np.maximum(spacing, _BETWEEN * gap)
    circles = [_circumradius(x[part]) for part in _parts(triangles)]
    radius, area = (np.concatenate([one[k] for one in circles]) for k in (0, 1))
    local = spacing[i[triangles]].mean(axis=1)
    keep = radius <= reach * local
    triangles, area, local = triangles[keep], area[keep], local[keep]
    deep = depth.detach().cpu().double().numpy()
    trusted = _deepest(np.arange(len(i)), i, deep, points)
    trusted = trusted[trusted >= 0]
    if len(triangles):
        corner = torch.from_numpy(triangles).to(chart.device)
        middle = surface(chart[corner[:, 0]], uv.detach()[corner].mean(1)).detach().cpu().double().numpy()
        near = trusted[nearest(cKDTree(x[trusted]), middle, range(1, min(3, len(trusted)) + 1))[1]]
        n = normals.detach().cpu().double().numpy()
        pairs = zip(_parts(middle), _parts(near), strict=True)
        off = np.concatenate([np.abs(((m[:, None] - x[k]) * n[k]).sum(-1)).min(axis=1) for m, k in pairs])
        supported = off <= _OFF * local
        triangles, area = triangles[supported], area[supported]
    if gap is not None:  # whose own lines are the outermost of a chart, it does not have what is beside them
        deep = deep + deep.max(initial=0) * ~_at_border(triangles, len(i))
    used = np.zeros(len(i), dtype=bool)
    used[triangles] = True
    best = _deepest(np.flatnonzero(used), i, deep, points)
    owned = best[i[triangles]] == triangles
    owner = torch.from_numpy(best)
    owner = torch.where(owner >= 0, chart.cpu()[owner.clamp(min=0)] if len(chart) else owner, owner)
    to = chart.device
    corners = torch.from_numpy(triangles).to(to)
    return Domain(
        corners,
        chart[corners[:, 0]],
        places.detach(),
        owner.to(to),
        torch.from_numpy(owned).to(to),
        torch.from_numpy(area).to(places),
    )


def _parts(rows: np.ndarray) -> list[np.ndarray]:
    """Cut rows into parts that bound the memory."""
    return np.array_split(rows, -(-max(len(rows), 1) // _PART))


def _at_border(triangles: np.ndarray, members: int) -> np.ndarray:
    """Return which members (M,) are on an edge of only one triangle."""
    edges = np.sort(triangles[:, [0, 1, 1, 2, 2, 0]].reshape(-1, 2), 1)
    key, count = np.unique(edges[:, 0] * members + edges[:, 1], return_counts=True)
    border = np.zeros(members, dtype=bool)
    border[key[count == 1] // members] = border[key[count == 1] % members] = True
    return border


def _deepest(rows: np.ndarray, i: np.ndarray, depth: np.ndarray, points: int) -> np.ndarray:
    """Return the deepest of the given memberships of each point (N,), −1 where there is none."""
    rows = rows[np.lexsort((rows, depth[rows]))]
    best = np.full(points, -1, dtype=np.int64)
    best[i[rows]] = rows  # the last assignment, of the greatest depth, stays
    return best


def local_spacing(x: np.ndarray, i: np.ndarray, points: int) -> np.ndarray:
    """Return √(area a point) (N,) about each point, from eighth neighbours; `x` (M, 3) are places of points `i` (M,).

    Places of the same point are averaged first; points without places get 0.
    """
    count = np.bincount(i, minlength=points)
    mean = np.stack([np.bincount(i, x[:, d], points) for d in range(3)], 1) / np.maximum(count, 1)[:, None]
    result = np.zeros(points)
    here = np.flatnonzero(count)
    if len(here) > 1:
        k = min(_NEIGHBOURS, len(here) - 1)
        result[here] = spacing_about(*nearest(cKDTree(mean[here]), mean[here], range(1, k + 2)))
    return result


def spacing_about(far: np.ndarray, near: np.ndarray) -> np.ndarray:
    """Return √(area a point) (N,) about N points of known neighbours, from the eighth: distances and indices (N, K).

    The point itself is among its neighbours; a cloud of fewer than nine points has fewer.
    """
    k = min(_NEIGHBOURS, far.shape[1] - 1)
    if k < 1:
        return np.zeros(len(far))
    spacing = far[:, k] * np.sqrt(np.pi / k)
    # At borders half of the disc is empty: the neighbours further in know better.
    return np.asarray(np.quantile(spacing[near[:, : k + 1]], 0.25, axis=1))


def _delaunay(u: np.ndarray) -> np.ndarray:
    try:
        return np.asarray(Delaunay(u).simplices, dtype=np.int64)
    except QhullError:  # all on a line, or in one place
        return np.zeros((0, 3), dtype=np.int64)


def _circumradius(corners: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    a, b, c = (np.linalg.norm(corners[:, i] - corners[:, j], axis=-1) for i, j in ((0, 1), (1, 2), (2, 0)))
    area = np.linalg.norm(np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]), axis=-1) / 2
    longest = np.maximum(np.maximum(a, b), c)
    # Flat triangles have circles without end, but are no reason to open the surface where their sides are short.
    radius = np.minimum(a * b * c / np.maximum(4 * area, 1e-300), longest)
    return radius, area
