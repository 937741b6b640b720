# SPDX-License-Identifier: Apache-2.0
"""Which side of each chart is the outside."""

from typing import NamedTuple

import numpy as np
import torch
from scipy.sparse import coo_matrix, csr_matrix
from scipy.sparse.csgraph import breadth_first_order, connected_components, minimum_spanning_tree
from scipy.spatial import cKDTree

from geodiff.atlas.nearest import nearest
from geodiff.validation import fail

_SWEEPS = 20  # of flipping single charts that disagree with most of their neighbours
_SHRINK = 2.0  # shared points that an edge of the graph must have before it is trusted: n·n' / (count + this)
_FLAT = 0.02  # a component with less volume than this, relative to its area times its size, has no inside of its own
_INSIDE = 0.75  # winding number from which on a component lies inside another one: 1 if closed
_PROBES = 32  # points of a component that vote on that


class Orientation(NamedTuple):
    """Which way charts face.

    Attributes:
        sign: (Q,) +1 or −1: the outward normal is `sign` times ∂φ/∂u × ∂φ/∂v.
        component: (Q,) int64, number of the connected component of the graph of charts.
        agreement: share of shared points at which two charts then face the same way; 1 without shared points.
    """

    sign: torch.Tensor
    component: torch.Tensor
    agreement: float


def chart_sides(
    chart: torch.Tensor,
    point: torch.Tensor,
    places: torch.Tensor,
    normals: torch.Tensor,
    charts: int,
    *,
    given: torch.Tensor | None = None,
) -> Orientation:
    """Choose a side for each of Q charts, so that neighbours agree and components face outwards.

    Charts q, q' that share points i are joined by an edge of weight w = Σ_i n_qi·n_q'i, both normals being those of the
    charts at the very same point, so that sharp edges do not mislead. Signs spread along the spanning forest of
    greatest |w|/(count + 2) (after Hoppe et al. 1992, on charts in place of points), then single charts flip while that
    raises Σ w s_q s_q'. Each component is turned so that the volume inside is positive, then turned again for each
    other component that it lies in (a cavity). Open components without volume of their own, such as parallel sheets,
    face away from the middle of all points; a single flat one faces along the largest part of its normal.

    Args:
        chart: (M,) int64, chart of each membership.
        point: (M,) int64, its point.
        places: (M, 3), the point, as the chart has it.
        normals: (M, 3), unit normals of the chart there, of either side.
        charts: Q.
        given: (N, 3), oriented normals of the points, of any length: if there are any, they decide each chart by the
            majority of its members; the graph decides where they are divided.

    Returns:
        Signs, components and how well the charts agree. Charts without members get +1.

    Raises:
        ValueError: shapes that do not belong together.

    Gradients: none.
    """
    where = "chart_sides"
    if chart.shape != point.shape or places.shape != (*chart.shape, 3) or normals.shape != places.shape:
        shapes = f"{tuple(chart.shape)}, {tuple(point.shape)}, {tuple(places.shape)}, {tuple(normals.shape)}"
        raise fail(where, "chart, point, places, normals", "of shapes (M,), (M,), (M, 3), (M, 3)", shapes)
    if len(chart) and int(chart.max()) >= charts:
        raise fail(where, "charts", f"more than {int(chart.max())}, a number in `chart`", str(charts))
    q, i = chart.cpu().numpy(), point.cpu().numpy()
    x, n = places.detach().cpu().double().numpy(), normals.detach().cpu().double().numpy()
    count = int(i.max()) + 1 if len(i) else 0
    if given is not None and (given.dim() != 2 or given.shape[1] != 3 or len(given) < count):
        raise fail(where, "given", f"of shape ({count}, 3), a normal for each point", given)

    weight, shared = _edges(q, i, n, charts, count)
    sign, component = _spread(weight, shared)
    vote = np.zeros(charts)
    if given is not None:
        vote += np.bincount(q, (given.detach().cpu().double().numpy()[i] * n).sum(1), charts)
        turned = np.bincount(component, weights=vote * sign)
        sign = sign * np.where(turned < 0, -1.0, 1.0)[component]
        # Heavier than all edges of a chart together.
        vote = vote * (1 + 2 * np.asarray(abs(weight).sum(1)).ravel() / np.maximum(np.abs(vote), 1e-12))
    sign = _flip(weight, vote, sign)
    if given is None:
        sign = sign * _outward(q, i, x, n * sign[q, None], component, count)[component]
    total = float(abs(weight).sum())
    agreement = float((weight.multiply(sign[:, None]).multiply(sign[None])).maximum(0).sum()) / total if total else 1.0
    to = chart.device
    return Orientation(torch.from_numpy(sign).to(normals), torch.from_numpy(component).to(to), agreement)


def _edges(q: np.ndarray, i: np.ndarray, n: np.ndarray, charts: int, points: int) -> tuple[csr_matrix, csr_matrix]:
    """Return the sparse (Q, Q) matrices of Σ n·n' over shared points, and of their numbers."""
    shape = (charts, max(points, 1))
    columns = [coo_matrix((n[:, d], (q, i)), shape).tocsr() for d in range(3)]
    member = coo_matrix((np.ones(len(q)), (q, i)), shape).tocsr()
    weight = sum((c @ c.T for c in columns[1:]), columns[0] @ columns[0].T).tocsr()
    shared = (member @ member.T).tocsr()
    weight.setdiag(0)
    shared.setdiag(0)
    weight.eliminate_zeros()
    shared.eliminate_zeros()
    return weight, shared


def _spread(weight: csr_matrix, shared: csr_matrix) -> tuple[np.ndarray, np.ndarray]:
    charts = weight.shape[0]
    edges = weight.tocoo()
    if edges.nnz == 0:
        return np.ones(charts), np.arange(charts)
    counts = np.asarray(shared[edges.row, edges.col]).ravel()
    # Costs must not be 0, which means "no edge" to SciPy.
    cost = 1.01 - np.abs(edges.data) / (counts + _SHRINK)
    graph = csr_matrix((cost, (edges.row, edges.col)), weight.shape)
    number, component = connected_components(graph, directed=False)
    forest = minimum_spanning_tree(graph)
    forest = (forest + forest.T).tocsr()
    sign = np.ones(charts)
    roots = np.zeros(number, dtype=np.int64)
    roots[component[::-1]] = np.arange(charts)[::-1]
    for root in roots:
        order, before = breadth_first_order(forest, root, directed=False)
        if len(order) > 1:
            link = np.asarray(weight[order[1:], before[order[1:]]]).ravel()
            for node, parent, w in zip(order[1:], before[order[1:]], link, strict=True):
                sign[node] = sign[parent] if w >= 0 else -sign[parent]
    return sign, component.astype(np.int64)


def _flip(weight: csr_matrix, vote: np.ndarray, sign: np.ndarray) -> np.ndarray:
    for _ in range(_SWEEPS):
        changed = False
        for node in np.flatnonzero((weight @ sign + vote) * sign < 0):
            row = slice(weight.indptr[node], weight.indptr[node + 1])
            if (weight.data[row] @ sign[weight.indices[row]] + vote[node]) * sign[node] < 0:
                sign[node] = -sign[node]
                changed = True
        if not changed:
            break
    return sign


def _outward(
    q: np.ndarray, i: np.ndarray, x: np.ndarray, n: np.ndarray, component: np.ndarray, points: int
) -> np.ndarray:
    """Return +1 or −1 for each component, for normals that agree within it."""
    number = int(component.max()) + 1 if len(component) else 0
    result = np.ones(number)
    if len(q) == 0:
        return result
    # One place and normal for each point in each component, with an equal share of area: enough for signs.
    key = component[q] * points + i
    unique, inverse, copies = np.unique(key, return_inverse=True, return_counts=True)
    place = np.stack([np.bincount(inverse, x[:, d]) for d in range(3)], 1) / copies[:, None]
    normal = np.stack([np.bincount(inverse, n[:, d]) for d in range(3)], 1)
    normal = normal / np.maximum(np.linalg.norm(normal, axis=1, keepdims=True), 1e-12)
    area = _areas(place)
    of = unique // points
    middle = np.average(place, axis=0, weights=area)
    clouds = []
    for c in range(number):
        mine = of == c
        p, m, a = place[mine], normal[mine], area[mine]
        clouds.append((p, m, a))
        if len(p) == 0:
            continue
        for origin in (np.average(p, axis=0, weights=a), middle):
            arm = p - origin
            volume, size = (a * (arm * m).sum(1)).sum(), (a * np.linalg.norm(arm, axis=1)).sum()
            if abs(volume) > _FLAT * size:
                break
        else:
            mean = (a[:, None] * m).sum(0)
            volume = mean[np.abs(mean).argmax()]
        result[c] = -1.0 if volume < 0 else 1.0
    # Cavities: from inside of a closed surface its solid angle is all of 4π.
    cavity = np.zeros(number, dtype=bool)
    for c, (p, _, _) in enumerate(clouds):
        if len(p) == 0:
            continue
        probes = p[np.linspace(0, len(p) - 1, min(_PROBES, len(p))).astype(np.int64)]
        low, high = probes.min(0), probes.max(0)
        for d, (s, m, a) in enumerate(clouds):
            if c == d or len(s) == 0 or (low < s.min(0)).any() or (high > s.max(0)).any():
                continue
            arm = s[None] - probes[:, None]
            cube = np.maximum(np.linalg.norm(arm, axis=-1), 1e-12) ** 3
            winding = result[d] * ((arm * m).sum(-1) * a / cube).sum(1) / (4 * np.pi)
            cavity[c] ^= np.median(winding) > _INSIDE
    return np.where(cavity, -result, result)


def _areas(x: np.ndarray) -> np.ndarray:
    """Return the area about each point: π r_k² / k for the distance r_k to its k-th neighbour."""
    k = min(8, len(x) - 1)
    if k < 1:
        return np.ones(len(x))
    return np.maximum(np.pi * nearest(cKDTree(x), x, [k + 1])[0][:, 0] ** 2 / k, 1e-300)
