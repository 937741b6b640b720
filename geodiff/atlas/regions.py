# SPDX-License-Identifier: Apache-2.0
"""Parts of a cloud whose normals agree, and how they are turned to agree with each other."""

import numpy as np
import torch
from scipy.sparse import coo_matrix, csr_matrix
from scipy.sparse.csgraph import breadth_first_order, connected_components, minimum_spanning_tree

from geodiff.atlas.winding import WindingTree

_STEEP = 0.5  # sine of a link against the plane of either end from which on it says nothing
_ALIKE = 0.5  # weight of agreement, as a share of all, from which on two clusters belong together
_FACING = 0.15  # mean sine of the links between two regions from which on they are two sides, no border of one
_LEAST_LINKS = 4
_BORDER = 3.0  # links of a border, in the root of the points of the smaller part
_ROUNDS = 20
_SWEEPS = 3
_TESTED = 16  # regions whose own winding number is computed
_LEAST_SHARE = 0.01  # of the area, of such a region: of less, the sides of its points tell more
_INDIFFERENT = 0.01  # improvement of (W − ½)² that is none
_UNSURE = 0.1  # the same, up to which links to other regions tell more


class Links:
    """Pairs of neighbours in the plane of both, and whether their normals face the same way.

    The normal at one end is reflected at the plane between both ends, so that round the bend of an edge it comes out as
    the other one (Xie, Wang, Hua, Qin and Kaufman 2003).

    Attributes:
        i, j: (L,) the ends.
        same: (L,) from −1, opposite ways, to 1, the same.
        up, down: (L,) sine of the link against the plane of i, and of its reverse against that of j.
        points: N.
    """

    def __init__(
        self, x: np.ndarray, normals: np.ndarray, neighbours: np.ndarray, own: np.ndarray | None = None
    ) -> None:
        parts = []
        for first in range(0, len(x), 1 << 16):
            near = neighbours[first : first + (1 << 16)]
            i, j = np.repeat(np.arange(first, first + len(near)), near.shape[1]), near.ravel()
            way = x[j] - x[i]
            length = np.linalg.norm(way, axis=1)
            way = way / np.maximum(length, 1e-30)[:, None]
            up, over = (way * normals[i]).sum(1), (way * normals[j]).sum(1)
            same = (normals[i] * normals[j]).sum(1) - 2 * up * over
            keep = (length > 0) & (np.maximum(np.abs(up), np.abs(over)) < _STEEP)
            if own is not None:
                keep &= own[first : first + (1 << 16)].ravel()
            parts.append((i[keep], j[keep], same[keep], up[keep], -over[keep]))
        self.i, self.j, self.same, self.up, self.down = (np.concatenate(part) for part in zip(*parts, strict=True))
        self.points = len(x)

    def agreement(self, sign: np.ndarray) -> float:
        """Return the share of links, by weight, whose ends face the same way."""
        total = np.abs(self.same).sum()
        agrees = np.maximum(self.same * sign[self.i] * sign[self.j], 0).sum()
        return float(agrees / total) if total > 0 else 1.0

    def regions(self, x: np.ndarray, sign: np.ndarray, cell: float) -> np.ndarray:
        """Return the region (N,) of each point: clusters of a cell's points that agree, joined where most links do."""
        same = self.same * sign[self.i] * sign[self.j]
        grid = np.floor((x - x.min(0)) / cell).astype(np.int64)
        size = grid.max(0) + 1
        box = (grid[:, 0] * size[1] + grid[:, 1]) * size[2] + grid[:, 2]
        within = (box[self.i] == box[self.j]) & (same > _ALIKE)
        cluster = _connected(self.i[within], self.j[within], self.points)
        a, b, number, (weight, total) = self.between(cluster, same, np.abs(same))
        alike = (weight > _ALIKE * total) & wide(number, a, b, np.bincount(cluster))
        return np.asarray(_connected(a[alike], b[alike], int(cluster.max()) + 1)[cluster])

    def between(
        self, label: np.ndarray, *values: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, list[np.ndarray]]:
        """Return pairs of labels with links between them, the number of these, and sums of values over them."""
        label = label.astype(np.int64)  # SciPy gives int32, which products of two would not fit into
        a, b = label[self.i], label[self.j]
        differ = a != b
        count = int(label.max()) + 1
        key = np.minimum(a, b)[differ] * count + np.maximum(a, b)[differ]
        unique, inverse, number = np.unique(key, return_inverse=True, return_counts=True)
        sums = [np.bincount(inverse, value[differ], len(unique)) for value in values]
        return unique // count, unique % count, number, sums


def wide(number: np.ndarray, a: np.ndarray, b: np.ndarray, size: np.ndarray) -> np.ndarray:
    """Return which borders (B,) of so many links are as long as one within a sheet, of parts a, b of such sizes.

    The others may be a few links that are wrong: from one side of a thin wall to the other.
    """
    return np.asarray(number >= _BORDER * np.sqrt(np.minimum(size[a], size[b])))


def outvoted(links: Links, sign: np.ndarray) -> np.ndarray:
    """Return signs of which those are turned that disagree with three quarters of their neighbours."""
    weight = np.abs(links.same)
    total = np.bincount(links.i, weight, links.points)
    for _ in range(_SWEEPS):
        vote = np.bincount(links.i, links.same * sign[links.j], links.points) * sign
        wrong = vote < -0.5 * total
        if not wrong.any():
            break
        sign = np.where(wrong, -sign, sign)
    return sign


def facing_regions(links: Links, x: np.ndarray, sign: np.ndarray, trust: np.ndarray, cell: float) -> np.ndarray:
    """Return signs after regions are turned that face opposite ways across a border within one sheet.

    Between the two sides of a thin wall links lean to the inside of both; across a border within one sheet they lean to
    neither. Each region is joined along its border of most disagreement, again and again; what is joined keeps the side
    that most of it had, weighted by `trust` (N,).
    """
    for _ in range(_ROUNDS):
        region = links.regions(x, sign, cell)
        count = int(region.max()) + 1
        same = links.same * sign[links.i] * sign[links.j]
        lean = (links.up * sign[links.i] + links.down * sign[links.j]) / 2
        a, b, number, (weight, total, leans) = links.between(region, -same, np.abs(same), lean)
        turn = (weight > _ALIKE * total) & (np.abs(leans) < _FACING * number) & (number >= _LEAST_LINKS)
        turn &= wide(number, a, b, np.bincount(region))
        if not turn.any():
            break
        most = np.zeros(count)
        np.maximum.at(most, a[turn], weight[turn])
        np.maximum.at(most, b[turn], weight[turn])
        turn &= weight >= np.minimum(most[a], most[b])
        forest = minimum_spanning_tree(csr_matrix((1 / weight[turn], (a[turn], b[turn])), (count, count)))
        forest = (forest + forest.T).tocsr()
        tree = connected_components(forest, directed=False)[1]
        flip = np.ones(count)
        roots, sizes = np.unique(tree, return_index=True, return_counts=True)[1:]
        for root in roots[sizes > 1]:
            order, before = breadth_first_order(forest, root, directed=False)
            for node in order[1:]:
                flip[node] = -flip[before[node]]
        kept = np.bincount(tree[region], trust * flip[region])
        flip = flip * np.where(kept < 0, -1.0, 1.0)[tree]
        sign = sign * flip[region]
    return sign


def turned_regions(
    tree: WindingTree,
    normals: torch.Tensor,
    area: torch.Tensor,
    links: Links,
    signs: np.ndarray,
    region: np.ndarray,
    width: float,
) -> np.ndarray:
    """Return +1 or −1 for each region of normals with signs, so that the mean winding number on each is nearest to ½.

    Where that makes little difference, on open sheets, the few links to other regions tell; where it makes none, the
    largest part of the mean normal of the first of those that hang together is made positive.
    """
    weight = area.double().numpy()
    size = np.bincount(region, weight)
    sign = np.ones(len(size))
    tested = np.argsort(-size)[:_TESTED]
    tested = tested[size[tested] > _LEAST_SHARE * size.sum()]
    mu = normals * (area * torch.from_numpy(signs).to(area))[:, None]
    by = np.empty((len(tested), len(tested)))
    for column, source in enumerate(tested):
        part = torch.where(torch.from_numpy(region == source)[:, None], mu, 0.0)
        field = tree.field(part, width).double().numpy() * weight
        by[:, column] = np.bincount(region, field, len(size))[tested] / size[tested]
    share, chosen = size[tested] / size.sum(), np.ones(len(tested))

    def error(turns: np.ndarray) -> float:
        return float((share * (by @ turns - 0.5) ** 2).sum())

    for _ in range(_ROUNDS):
        changed = False
        for r in range(len(tested)):
            other = chosen.copy()
            other[r] = -other[r]
            gain = error(chosen) - error(other)
            if gain > _INDIFFERENT * share[r]:
                chosen, changed = other, True
        if not changed:
            break
    unlike = np.empty(len(tested))
    for r in range(len(tested)):
        other = chosen.copy()
        other[r] = -other[r]
        unlike[r] = abs(error(chosen) - error(other)) / share[r]
    free = unlike <= _UNSURE
    if free.any():
        vote = np.zeros((len(tested), len(tested)))
        place = np.full(len(size), -1)
        place[tested] = np.arange(len(tested))
        a, b, _, (total,) = links.between(region, links.same * signs[links.i] * signs[links.j])
        a, b = place[a], place[b]
        known = (a >= 0) & (b >= 0)
        vote[a[known], b[known]] = vote[b[known], a[known]] = total[known]
        settled = ~free
        for _ in range(int(free.sum())):
            # Next the one that most links tell of; the largest, where none do.
            told = np.where(settled, -1.0, np.abs(vote @ (chosen * settled)))
            r = int(told.argmax())
            pull = float(vote[r] @ (chosen * settled))
            if pull == 0 and unlike[r] > _INDIFFERENT:
                pull = chosen[r]
            elif pull == 0:
                mean = mu[torch.from_numpy(region == tested[r])].double().sum(0).numpy()
                pull = mean[np.abs(mean).argmax()]
            chosen[r] = -1.0 if pull < 0 else 1.0
            settled[r] = True
    sign[tested] = chosen
    return sign


def _connected(i: np.ndarray, j: np.ndarray, count: int) -> np.ndarray:
    links = coo_matrix((np.ones(len(i), dtype=np.int8), (i, j)), (count, count))
    return np.asarray(connected_components(links, directed=False)[1])
