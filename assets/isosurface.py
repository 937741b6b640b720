# SPDX-License-Identifier: Apache-2.0
"""Turn an implicit function into a triangle mesh: surface nets, projection onto the level set, decimation.

An implicit function takes points (N, 3) and returns values (N,), negative inside. NumPy only, and deterministic.
"""

import heapq
from collections.abc import Callable

import numpy as np

Field = Callable[[np.ndarray], np.ndarray]


def extract(field: Field, low: list[float], high: list[float], spacing: list[float]) -> tuple[np.ndarray, np.ndarray]:
    """Mesh ``field = 0`` inside a box by surface nets (Gibson 1998): one quad for each crossed edge of the grid.

    A cell has a vertex for each sheet of the surface that passes through it, so that sheets which come near each other
    stay apart. Only a sheet that meets itself across one face of the grid can give an edge more than two faces.

    Returns:
        Vertices (V, 3) on the level set and triangles (F, 3), counter-clockwise seen from outside.
    """
    axes = [np.arange(a, b + s, s, dtype=float) for a, b, s in zip(low, high, spacing, strict=True)]
    shape = tuple(len(axis) for axis in axes)
    grid = np.stack(np.meshgrid(*axes, indexing="ij"), -1).reshape(-1, 3)
    # Far from the surface only the sign counts: a coarse look first, then all places that may be near.
    coarse = field(np.stack([g[::4, ::4, ::4] for g in np.moveaxis(grid.reshape(*shape, 3), 3, 0)], -1).reshape(-1, 3))
    coarse = coarse.reshape([-(-n // 4) for n in shape])
    values = coarse.repeat(4, 0).repeat(4, 1).repeat(4, 2)[: shape[0], : shape[1], : shape[2]].reshape(-1)
    near = np.abs(values) < 12 * max(spacing)
    values[near] = np.concatenate([field(p) for p in np.array_split(grid[near], 1 + len(grid) // 50_000)])
    values = values.reshape(shape)
    # A cell is named by its lowest corner; an edge along one axis touches four cells, shifted along the two others.
    stride = np.array([shape[1] * shape[2], shape[2], 1])
    corners = (np.arange(8)[:, None] >> np.array([2, 1, 0]) & 1) @ stride
    sheet = sheets()
    inside = np.append(values.reshape(-1) < 0, np.zeros(corners.max(), dtype=bool))
    cells, points, quads = [], [], []
    for axis in range(3):
        first = np.moveaxis(values, axis, 0)[:-1]
        second = np.moveaxis(values, axis, 0)[1:]
        place = np.argwhere(np.moveaxis((first < 0) != (second < 0), 0, axis))
        start = place @ stride
        a, b = values.reshape(-1)[start], values.reshape(-1)[start + stride[axis]]
        point = grid[start].copy()
        point[:, axis] += spacing[axis] * a / (a - b)
        u, v = stride[(axis + 1) % 3], stride[(axis + 2) % 3]
        around = np.stack([start - u - v, start - v, start, start - u], 1)
        pattern = (inside[around[..., None] + corners] << np.arange(8)).sum(-1)
        around = 4 * around + sheet[pattern, 4 * axis + np.array([3, 1, 0, 2])]
        quads.append(np.where((a < 0)[:, None], around, around[:, ::-1]))
        cells.append(around.T.reshape(-1))
        points.append(np.tile(point, (4, 1)))
    cell, number = np.unique(np.concatenate(cells), return_inverse=True)
    points = np.concatenate(points)
    count = np.bincount(number)
    vertices = np.stack([np.bincount(number, points[:, k]) / count for k in range(3)], 1)
    vertices = project(field, vertices, 4)
    quad = np.searchsorted(cell, np.concatenate(quads))
    return vertices, split(vertices, quad)


def sheets() -> np.ndarray:
    """Number the sheets that pass through a cell: (256, 12), by pattern of inside corners and by edge.

    Corner 4x + 2y + z, edge 4·axis + 2·(place along the next axis) + (along the one after). Crossed edges belong
    together if a curve on a face of the cell joins them; a face with four crossings keeps its inside corners apart.
    """

    def edge(a: int, b: int) -> int:
        axis = {4: 0, 2: 1, 1: 2}[a ^ b]
        bits = [a >> 2 & 1, a >> 1 & 1, a & 1]
        return 4 * axis + 2 * bits[(axis + 1) % 3] + bits[(axis + 2) % 3]

    table = np.zeros((256, 12), dtype=np.int64)
    for pattern in range(256):
        group = list(range(12))
        for n, p, q in ((4, 2, 1), (2, 1, 4), (1, 4, 2)):
            for low in (0, n):
                cycle = [low, low + p, low + p + q, low + q]
                sides = [edge(cycle[k - 1], cycle[k]) for k in range(4)]
                inside = [pattern >> corner & 1 for corner in cycle]
                crossed = [side for k, side in enumerate(sides) if inside[k - 1] != inside[k]]
                joints = [crossed] if len(crossed) == 2 else []
                if len(crossed) == 4:
                    joints = [[sides[k], sides[(k + 1) % 4]] for k in range(4) if inside[k]]
                for one, other in joints:
                    group = [group[one] if label == group[other] else label for label in group]
        crossed = [k for k in range(12) if crosses(pattern, k)]
        names = sorted({group[k] for k in crossed})
        for k in crossed:
            table[pattern, k] = names.index(group[k])
    return table


def crosses(pattern: int, edge: int) -> bool:
    """Whether the two ends of an edge of a cell are on different sides."""
    axis, second, third = edge // 4, edge >> 1 & 1, edge & 1
    weight = [4, 2, 1]
    start = second * weight[(axis + 1) % 3] + third * weight[(axis + 2) % 3]
    return bool((pattern >> start ^ pattern >> (start + weight[axis])) & 1)


def split(vertices: np.ndarray, quads: np.ndarray) -> np.ndarray:
    """Cut each quad (Q, 4) along its shorter diagonal."""
    a, b, c, d = quads.T
    first, second = (np.linalg.norm(vertices[p] - vertices[q], axis=1) for p, q in ((a, c), (b, d)))
    other = second < (1 - 1e-9) * first  # rounding must not decide where both are the same
    one = np.where(other[:, None], np.stack([a, b, d], 1), np.stack([a, b, c], 1))
    two = np.where(other[:, None], np.stack([b, c, d], 1), np.stack([a, c, d], 1))
    return np.concatenate([one, two])


def gradient(field: Field, points: np.ndarray, step: float = 1e-4) -> np.ndarray:
    """Differentiate the field by central differences."""
    shifts = step * np.eye(3)
    return np.stack([field(points + shift) - field(points - shift) for shift in shifts], 1) / (2 * step)


def project(field: Field, points: np.ndarray, iterations: int = 2) -> np.ndarray:
    """Move points onto the level set by Newton steps along the gradient, none longer than 0.02."""
    for _ in range(iterations):
        slope = gradient(field, points)
        step = (field(points) / np.maximum((slope**2).sum(1), 1e-2))[:, None] * slope
        points = points - step * np.minimum(1, 0.02 / np.maximum(np.linalg.norm(step, axis=1, keepdims=True), 1e-9))
    return points


def relax(field: Field, vertices: np.ndarray, faces: np.ndarray, iterations: int, rate: float = 0.5) -> np.ndarray:
    """Even out the triangles: move vertices towards their neighbours' mean within the surface, and back onto it."""
    ends = np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]])
    degree = np.bincount(ends[:, 0], minlength=len(vertices))
    for _ in range(iterations):
        mean = np.stack([np.bincount(ends[:, 0], vertices[ends[:, 1], k], len(vertices)) for k in range(3)], 1)
        move = mean / degree[:, None] - vertices
        normal = gradient(field, vertices)
        normal /= np.maximum(np.linalg.norm(normal, axis=1, keepdims=True), 1e-9)
        vertices = project(field, vertices + rate * (move - normal * (move * normal).sum(1, keepdims=True)), 1)
    return vertices


def decimate(vertices: np.ndarray, faces: np.ndarray, target: int, evenness: float = 1e-3) -> tuple[np.ndarray, ...]:
    """Collapse edges of a closed manifold, cheapest first, until ``target`` faces are left.

    The cost is the quadric error of Garland and Heckbert (1997) plus ``evenness`` times the fourth power of the edge's
    length, which keeps triangles from growing needles in flat places. The topology stays: an edge collapses only if its
    ends have exactly two common neighbours, and if no face turns over or becomes a needle.
    """
    points = [tuple(p) for p in vertices.tolist()]
    triangles: dict[int, tuple[int, int, int]] = {i: tuple(f) for i, f in enumerate(faces.tolist())}
    around: list[set[int]] = [set() for _ in points]
    for i, face in triangles.items():
        for vertex in face:
            around[vertex].add(i)
    corner = vertices[faces]
    normal = np.cross(corner[:, 1] - corner[:, 0], corner[:, 2] - corner[:, 0])
    area = np.linalg.norm(normal, axis=1, keepdims=True)
    normal = normal / np.maximum(area, 1e-300)
    plane = np.concatenate([normal, -(normal * corner[:, 0]).sum(1, keepdims=True)], 1)
    quadrics = np.zeros((len(points), 4, 4))
    for k in range(3):
        np.add.at(quadrics, faces[:, k], area[:, :, None] * plane[:, :, None] * plane[:, None, :])

    def costs(pairs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Where each pair would best be joined, and at what price."""
        total = quadrics[pairs[:, 0]] + quadrics[pairs[:, 1]]
        ends = np.array([[points[a], points[b]] for a, b in pairs])
        middle = ends.mean(1)
        # Where the quadric leaves a direction free (flat or cylindrical places), a weak pull holds the middle.
        weak = 1e-3 * np.trace(total[:, :3, :3], axis1=1, axis2=2)[:, None, None] * np.eye(3) + 1e-30 * np.eye(3)
        where = np.linalg.solve(total[:, :3, :3] + weak, (weak @ middle[:, :, None]) - total[:, :3, 3:])[:, :, 0]
        at = np.concatenate([where, np.ones((len(where), 1))], 1)
        error = np.einsum("ni,nij,nj->n", at, total, at)
        length = ((ends[:, 0] - ends[:, 1]) ** 2).sum(1)
        return where, np.maximum(error, 0) + evenness * length**2

    ends = np.sort(np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]]), axis=1)
    edges = np.unique(ends, axis=0)
    where, cost = costs(edges)
    version = [0] * len(points)
    candidates = zip(cost.tolist(), edges.tolist(), where.tolist(), strict=True)
    heap = [(c, a, b, 0, 0, tuple(p)) for c, (a, b), p in candidates]
    heapq.heapify(heap)

    def neighbours(vertex: int) -> set[int]:
        return {other for face in around[vertex] for other in triangles[face]} - {vertex}

    while len(triangles) > target and heap:
        _, keep, drop, version_keep, version_drop, place = heapq.heappop(heap)
        if version[keep] != version_keep or version[drop] != version_drop or not around[keep] or not around[drop]:
            continue
        shared = around[keep] & around[drop]
        if len(shared) != 2 or len(neighbours(keep) & neighbours(drop)) != 2:
            continue
        moved = [face for face in (around[keep] | around[drop]) - shared]
        shapes = [([points[v] for v in triangles[f]], [v in (keep, drop) for v in triangles[f]]) for f in moved]
        if not all(survives(corners, moving, place) for corners, moving in shapes):
            continue
        points[keep] = place
        quadrics[keep] += quadrics[drop]
        for face in shared:
            for vertex in triangles.pop(face):
                around[vertex].discard(face)
        for face in around[drop]:
            a, b, c = (keep if vertex == drop else vertex for vertex in triangles[face])
            triangles[face] = (a, b, c)
            around[keep].add(face)
        around[drop] = set()
        version[keep] += 1
        ring = sorted(neighbours(keep))
        pairs = np.array([[min(keep, v), max(keep, v)] for v in ring])
        where, cost = costs(pairs)
        for c, (a, b), p in zip(cost.tolist(), pairs.tolist(), where.tolist(), strict=True):
            heapq.heappush(heap, (c, a, b, version[a], version[b], tuple(p)))
    left = np.array([triangles[i] for i in sorted(triangles)])
    used, number = np.unique(left, return_inverse=True)
    return np.array(points)[used], number.reshape(-1, 3)


def survives(corners: list[tuple[float, ...]], moving: list[bool], place: tuple[float, ...]) -> bool:
    """Whether a triangle keeps its side and some shape when its moving corner goes to ``place``."""

    def cross(p: list[tuple[float, ...]]) -> tuple[float, float, float]:
        (a, b, c), (d, e, f), (g, h, i) = p
        d, e, f, g, h, i = d - a, e - b, f - c, g - a, h - b, i - c
        return e * i - f * h, f * g - d * i, d * h - e * g

    after = [place if move else corner for corner, move in zip(corners, moving, strict=True)]
    n, m = cross(corners), cross(after)
    nn, mm, nm = (sum(x * y for x, y in zip(p, q, strict=True)) for p, q in ((n, n), (m, m), (n, m)))
    sides = sum((after[j][k] - after[j - 1][k]) ** 2 for j in range(3) for k in range(3))
    return nm > 0.2 * (nn * mm) ** 0.5 and mm**0.5 > 0.05 * sides
