# SPDX-License-Identifier: Apache-2.0
"""Cover a cloud with overlapping patches, each of one sheet of the surface."""

import dataclasses
from typing import Any

import numpy as np
import torch
from scipy.sparse import coo_matrix, csgraph, csr_matrix
from scipy.spatial import cKDTree

from geodiff.atlas.cloud import Cloud, read_cloud
from geodiff.atlas.lines import BRIDGE, poisson_disk
from geodiff.modes import outside_autocast
from geodiff.validation import fail, integer, positive, seed_number, shapes_repr

TARGET = 60
LEAST_MEMBERS = 8
WELL_INSIDE = 0.75  # of the radius
SPACING = 0.6  # of centres, in radii
STEEP = 0.65  # |normal component| of a step that leaves the sheet
COMMON = 3  # neighbours that two neighbours in a sheet share
TURN = -0.1  # least product of normals of a member and the centre: 95 degrees
ROUNDS = 50
PART = 1 << 20  # steps between neighbours that are looked at at once
WALKED = 1 << 16  # memberships in which ways are sought at once: their heap stays in the caches
CLOSER = 0.5  # spacing of a cloud of lines, at most, in their distances: those beside a point are in its deepest patch


@dataclasses.dataclass(frozen=True)
class Cover:
    """Patches of a cloud of N points: Q of them, M memberships (pairs of patch and point).

    Attributes:
        points: (N, 3) in world units.
        centers: (Q, 3).
        radius: (Q,).
        chart: (M,) int64, sorted.
        point: (M,) int64: `point[m]` is a member of patch `chart[m]`.
        inside: (M,) bool: well inside, within 3/4 of the radius and on the same sheet.
        outlier: (N,) bool: isolated points, in no patch.
        normals: (N, 3) unit, either side unless `sided`.
        sided: whether the normals all face one side of the surface: they were given, or found so.
    """

    __repr__ = shapes_repr

    points: torch.Tensor
    centers: torch.Tensor
    radius: torch.Tensor
    chart: torch.Tensor
    point: torch.Tensor
    inside: torch.Tensor
    outlier: torch.Tensor
    normals: torch.Tensor
    sided: bool = False

    def __post_init__(self) -> None:
        covered = torch.zeros(len(self.points), dtype=torch.bool)
        covered[self.point[self.inside]] = True
        lost = int((~covered & ~self.outlier).sum())
        if lost:
            raise fail("Cover", "inside", "true in some patch for each point that is no outlier", f"{lost} uncovered")

    def __len__(self) -> int:
        return len(self.centers)


@outside_autocast
def cover(
    points: Any,
    *,
    normals: Any = None,
    radius: float | None = None,
    target: int = TARGET,
    spacing: float = SPACING,
    seed: int = 0,
) -> Cover:
    """Cover a cloud with overlapping balls, and keep in each the points of its centre's sheet.

    Centres are points of the cloud, no two nearer than `spacing` radii (Poisson-disk, in a random order). Points hang
    together if they are among each other's nearest neighbours and the step between them is not across the surface. The
    members of a patch are the points of its ball that hang together with its centre within the ball, and whose normals,
    carried from neighbour to neighbour along the shortest ways from the centre, turn by no more than 95 degrees; given
    normals are compared directly. Every point but outliers is within 3/4 of the radius of some centre, on its sheet.

    Args:
        points: (N, 3), or a `Cloud`.
        normals: (N, 3), pointing to one side; estimated, of either side, if left out.
        radius: of all patches, relative to the diagonal of the bounding box; if left out, each patch has its own, the
            distance of its centre's `target`-th neighbour; in a cloud of lines at least 2.5 times that of the lines.
        target: how many points a patch should have, at least 8.
        spacing: of centres, in radii, in (0, 0.75]; smaller for more overlap.
        seed: of the order of the centres.

    Raises:
        TypeError: arguments that are no numbers.
        ValueError: bad clouds (see `read_cloud`), a radius or target out of range.

    Example:
        >>> import torch
        >>> cloud = torch.nn.functional.normalize(torch.randn(2000, 3), dim=1)
        >>> patches = cover(cloud, target=60)
        >>> bool(torch.bincount(patches.point, minlength=2000).min() > 0)
        True
    """
    where = "cover"
    if radius is not None:
        positive(where, "radius", radius, "It is relative to the diagonal: say 0.05.")
    target = integer(where, "target", target, LEAST_MEMBERS)
    seed = seed_number(where, seed)
    if not 0 < spacing <= WELL_INSIDE:
        raise fail(where, "spacing", f"in (0, {WELL_INSIDE}]", repr(spacing), "Farther centres would leave gaps.")
    cloud = points if isinstance(points, Cloud) else read_cloud(points, normals, seed=seed, where=where)
    return _Builder(cloud, radius, target, spacing, seed).build()


class _Builder:
    """The graph of a cloud, and patches made of it round by round until all points are covered."""

    def __init__(self, cloud: Cloud, radius: float | None, target: int, spacing: float, seed: int) -> None:
        self.cloud, self.spacing = cloud, spacing if cloud.lines is None else min(spacing, CLOSER)
        self.x = cloud.points.double().numpy()
        self.n = cloud.normals.double().numpy()
        self.good = np.flatnonzero(~cloud.outlier.numpy())
        self.tree = cKDTree(self.x[self.good])
        self.order = np.random.default_rng(seed).permutation(self.good)
        self.target = min(target, len(self.good))
        # Of patches that each have their own, it is found for those that are asked for.
        self.radius = np.full(len(self.x), np.nan if radius is None else radius * cloud.diagonal)
        self.edges = self._edges()
        self.starts = np.searchsorted(self.edges[0], np.arange(len(self.x) + 1))

    def _edges(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Directed steps (from, to, length) between neighbours, both ways, that do not leave the sheet."""
        near = self.cloud.neighbours.numpy()
        count, width = near.shape
        a, b = np.repeat(np.arange(count), width), near.ravel()
        across = np.concatenate([self._across(rows) for rows in _parts(count, PART // width)])
        outlier = self.cloud.outlier.numpy()
        good = ~outlier[a] & ~outlier[b]
        gentle = good & (across <= STEEP)
        ones = np.ones(int(gentle.sum()), dtype=np.int32)
        graph = coo_matrix((ones, (a[gentle], b[gentle])), shape=(count, count)).tocsr()
        # In a cloud of lines, where only anchors are neighbours of others, only they have it both ways: of hundreds.
        both = graph if self.cloud.lines is None else graph.multiply(self.cloud.lines.anchor[:, None]).tocsr()
        both = both.maximum(both.T)
        graph = graph.maximum(both)
        # Neighbours in a sheet have others in common; where a normal is wrong, a step may lead to another sheet, but
        # seldom several side by side.
        rows, columns = _firm(graph, both)
        # Points that this leaves alone hang on to the gentlest neighbour that is not; nothing else hangs on to them.
        links = coo_matrix((np.ones(len(rows), dtype=np.int8), (rows, columns)), shape=(count, count))
        labels = csgraph.connected_components(links, directed=False)[1]
        alone = np.bincount(labels)[labels] < LEAST_MEMBERS
        hang = np.flatnonzero(good & alone[a] & ~alone[b])
        hang = hang[np.lexsort((across[hang], a[hang]))]
        hang = hang[np.unique(a[hang], return_index=True)[1]]
        within = ~alone[rows]
        rows = np.concatenate([rows[within], a[hang], b[hang]])
        columns = np.concatenate([columns[within], b[hang], a[hang]])
        key = rows * count + columns
        if self.cloud.lines is not None:
            key = np.unique(np.concatenate([key, columns * count + rows]))
        rows, columns = np.divmod(np.sort(key), count)
        return rows, columns, np.linalg.norm(self.x[rows] - self.x[columns], axis=1)

    def _across(self, rows: slice) -> np.ndarray:
        """Return the largest share (R·K,) of the steps from some points to their neighbours that is along a normal."""
        near, far = self.cloud.neighbours[rows].numpy(), self.cloud.distances[rows].numpy()
        step = (self.x[near] - self.x[rows, None]) / np.maximum(far, 1e-300)[:, :, None]
        ends = np.abs((step * self.n[rows, None]).sum(2)), np.abs((step * self.n[near]).sum(2))
        return np.maximum(*ends).ravel()

    def build(self) -> Cover:
        covered = self.cloud.outlier.numpy().copy()
        centers, charts, members, insides = [], [], [], []
        done = 0
        for _ in range(ROUNDS):
            chosen = self._disk(covered)
            if not len(chosen):
                break
            # In parts, to bound the memory.
            sizes = self.tree.query_ball_point(self.x[chosen[:64]], self.radius[chosen[:64]], return_length=True)
            parts = _parts(len(chosen), int(WALKED // sizes.mean()))
            found = [self._patches(chosen[part]) for part in parts]
            chart = np.concatenate([one[0] + part.start for one, part in zip(found, parts, strict=True)])
            point, inside = (np.concatenate([one[k] for one in found]) for k in (1, 2))
            covered[point[inside]] = True
            centers.append(chosen)
            charts.append(chart + done)
            members.append(point)
            insides.append(inside)
            done += len(chosen)
        center = np.concatenate(centers)
        dtype = self.cloud.points.dtype
        return Cover(
            points=self.cloud.points,
            centers=self.cloud.points[torch.from_numpy(center)],
            radius=torch.from_numpy(self.radius[center]).to(dtype),
            chart=torch.from_numpy(np.concatenate(charts)),
            point=torch.from_numpy(np.concatenate(members)),
            inside=torch.from_numpy(np.concatenate(insides)),
            outlier=self.cloud.outlier,
            normals=self.cloud.normals,
            sided=self.cloud.given,
        )

    def _disk(self, covered: np.ndarray) -> np.ndarray:
        """Choose centres among the points not covered, none within `spacing` radii of an earlier one."""
        left = self.order[~covered[self.order]]
        if not len(left):
            return left
        return poisson_disk(self.x, left, lambda i: self.spacing * self._reach(i))

    def _reach(self, i: int) -> float:
        """Return the radius of a patch about point i."""
        if np.isnan(self.radius[i]):
            # A point counts itself, so ask for one more; on two sheets a ball of `target` has half of them on each.
            k = min(self.target + 1, len(self.good))
            reach = self.tree.query(self.x[i], k=[k])[0][0] * (1 + 1e-9)
            self.radius[i] = reach if self.cloud.lines is None else max(reach, BRIDGE * self.cloud.lines.gap[i])
        return float(self.radius[i])

    def _patches(self, center: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Members of the patches around centres: patch, point, whether well inside; sorted by patch, then by point."""
        balls = self.tree.query_ball_point(self.x[center], self.radius[center], workers=-1, return_sorted=True)
        sizes = np.fromiter((len(b) for b in balls), dtype=np.int64, count=len(balls))
        chart = np.repeat(np.arange(len(center)), sizes)
        point = self.good[np.concatenate([np.asarray(b, dtype=np.int64) for b in balls])]
        reached, turn = self._walk(center, chart, point)
        if self.cloud.given:
            turn = (self.n[point] * self.n[center[chart]]).sum(1)
        keep = reached & (turn > TURN)
        chart, point = chart[keep], point[keep]
        distance = np.linalg.norm(self.x[point] - self.x[center[chart]], axis=1)
        return chart, point, distance <= WELL_INSIDE * self.radius[center[chart]]

    def _walk(self, center: np.ndarray, chart: np.ndarray, point: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Walk from the centres to all memberships, each within its own ball, by the shortest ways.

        Returns:
            whether each is reached, and the product of its normal, carried along the way, with the centre's.
        """
        _, columns, lengths = self.edges
        count, starts = len(self.x), self.starts
        degree = (starts[1:] - starts[:-1])[point]
        # All balls are one graph of memberships without edges between balls.
        source = np.repeat(np.arange(len(point)), degree)
        slot = np.arange(len(source)) - np.repeat(np.cumsum(degree) - degree, degree) + starts[point[source]]
        wanted = chart[source] * count + columns[slot]
        key = chart * count + point
        found = np.minimum(np.searchsorted(key, wanted), len(key) - 1)
        exists = key[found] == wanted
        source, target, slot = source[exists], found[exists], slot[exists]
        agree = np.abs((self.n[point[source]] * self.n[point[target]]).sum(1))
        # Ways along which normals hardly turn carry them most safely.
        weight = lengths[slot] * (1.05 - agree)
        root = len(point)
        first = np.searchsorted(key, np.arange(len(center)) * count + center)
        source = np.concatenate([source, np.full(len(center), root)])
        target = np.concatenate([target, first])
        weight = np.concatenate([weight, np.full(len(center), weight.max(initial=1.0))])
        graph = coo_matrix((weight, (source, target)), shape=(root + 1, root + 1)).tocsr()
        length, before = csgraph.dijkstra(graph, directed=True, indices=root, return_predecessors=True)
        reached = np.isfinite(length[:root])
        before = before[:root].astype(np.int64)
        before[first] = first
        before = np.where(reached, before, np.arange(root))
        product = (self.n[point] * self.n[point[before]]).sum(1)
        sign = np.where(product < 0, -1.0, 1.0)
        while True:  # signs along ways of doubling length
            further = before[before]
            if np.array_equal(further, before):
                break
            sign = sign * sign[before]
            before = further
        return reached, sign * (self.n[point] * self.n[center[chart]]).sum(1)


def _parts(count: int, size: int) -> list[slice]:
    """Cut `count` rows into parts of about `size`."""
    size = max(size, 1)
    return [slice(first, min(first + size, count)) for first in range(0, count, size)]


def _firm(graph: csr_matrix, other: csr_matrix) -> tuple[np.ndarray, np.ndarray]:
    """Return rows and columns of the entries of a graph at which its product with another is large enough."""
    found = []
    for part in _parts(graph.shape[0], PART // 8):
        common = graph[part].multiply(graph[part] @ other).tocoo()
        firm = common.data >= COMMON
        found.append((common.row[firm].astype(np.int64) + part.start, common.col[firm].astype(np.int64)))
    return np.concatenate([rows for rows, _ in found]), np.concatenate([columns for _, columns in found])
