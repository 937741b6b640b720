# SPDX-License-Identifier: Apache-2.0
"""Turn an implicit function into a triangle mesh: `gd.isosurface`, projection onto the level set, decimation.

An implicit function takes points (N, 3) and returns values (N,), negative inside. Deterministic.
"""

import heapq
from collections.abc import Callable

import numpy as np
import torch

import geodiff as gd

Field = Callable[[np.ndarray], np.ndarray]


def extract(field: Field, low: list[float], high: list[float], spacing: list[float]) -> tuple[np.ndarray, np.ndarray]:
    """Mesh ``field = 0`` inside a box with `gd.isosurface`, and move its vertices onto the surface.

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
    last = [axis[-1] for axis in axes]
    mesh = gd.isosurface(torch.from_numpy(values.reshape(shape)), bounds=[low, last])
    return project(field, mesh.vertices.numpy(), 4), mesh.faces.numpy()


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
