# SPDX-License-Identifier: Apache-2.0
"""Polygons in space as triangles: convex ones as fans, others by ear clipping on their own planes."""

from typing import Any

import mapbox_earcut
import numpy as np
import torch

from geodiff.validation import as_tensor, fail, integers, warn

# Turns and areas below this part of a polygon's extent squared count as none: corners on a straight line.
_FLAT = 1e-9
_MOST_FOR_PAIRS = 1500  # corners of a polygon whose sides are tried pair by pair for crossings


def polygons_cut(where: str, points: torch.Tensor, polygons: Any) -> torch.Tensor:
    """Return the triangles (F, 3) of polygons as a user gives them; see ``Mesh.triangulated``.

    Args:
        where: the public function, for messages.
        points: (..., V, 3).
        polygons: (F, n) integers, or a list of sequences of them.
    """
    if isinstance(polygons, torch.Tensor | np.ndarray):
        table = integers(where, "polygons", as_tensor(where, "polygons", polygons), ("F", "n"))
        flat, sizes = table.reshape(-1).cpu().numpy(), np.full(len(table), table.shape[1])
    else:
        rows = [np.asarray(row) for row in polygons]
        for row in rows:
            if row.ndim != 1 or not np.issubdtype(row.dtype, np.integer):
                raise fail(where, "polygons", "sequences of integers", row.tolist(), error=TypeError)
        flat = np.concatenate([np.zeros(0, np.int64), *rows]).astype(np.int64)
        sizes = np.array([len(row) for row in rows], dtype=np.int64)
    if len(sizes) and sizes.min() < 3:
        raise fail(where, "polygons", "of three or more vertices", f"{sizes.min()} in polygon {sizes.argmin()}")
    if len(flat) and not 0 <= flat.min() <= flat.max() < points.shape[-2]:
        got = f"indices from {flat.min()} to {flat.max()}"
        raise fail(where, "polygons", f"indices in [0, {points.shape[-2]})", got)
    first = points.detach().reshape(-1, *points.shape[-2:])[:1].reshape(-1, 3).cpu().double().numpy()
    corners, _ = triangulate(first, flat, sizes, where)
    return torch.from_numpy(flat[corners]).to(points.device)


def triangulate(points: np.ndarray, flat: np.ndarray, sizes: np.ndarray, where: str) -> tuple[np.ndarray, np.ndarray]:
    """Cut polygons into triangles that cover them once and keep their sense.

    Args:
        points: (V, 3) float64.
        flat: (C,) the points of the corners, polygon after polygon.
        sizes: (n,) how many corners each has. Those of fewer than three are left out with a warning.
        where: for the warnings, such as ``"Mesh.load: a.obj"``.

    Returns:
        corners: (F, 3) indices into `flat`.
        owner: (F,) the polygon of each triangle.
    """
    short = int((sizes < 3).sum())
    if short:
        text = f"{short} face{'s' if short > 1 else ''} of fewer than three corners"
        warn(f"{where}: left out {text}")
    count = np.maximum(sizes - 2, 0)
    begin = np.cumsum(sizes) - sizes
    owner = np.repeat(np.arange(len(sizes)), count)
    step = np.arange(len(owner)) - np.repeat(np.cumsum(count) - count, count)
    first = begin[owner]
    corners = np.stack((first, first + step + 1, first + step + 2), axis=-1)
    crossing = 0
    start = np.cumsum(count) - count
    for i in np.flatnonzero((sizes > 3) & ~_convex(points, flat, sizes, begin)):
        own = slice(begin[i], begin[i] + sizes[i])
        found, crosses = _cut(points[flat[own]])
        crossing += crosses
        if found is not None:
            rows = corners[start[i] : start[i] + count[i]]
            rows[: len(found)] = found + begin[i]
            rows[len(found) :] = begin[i]  # ears without area that were left out: faces of no area
    if crossing:
        text = f"{crossing} polygon{'s' if crossing > 1 else ''} whose sides cross: what they cover is a guess"
        warn(f"{where}: {text}")
    return corners, owner


def _convex(points: np.ndarray, flat: np.ndarray, sizes: np.ndarray, begin: np.ndarray) -> np.ndarray:
    """Return (n,) whether a fan covers the polygon: it turns one way only, and once around, seen along its normal."""
    result = np.ones(len(sizes), bool)
    for n in np.unique(sizes[sizes > 3]):
        chosen = np.flatnonzero(sizes == n)
        p = points[flat[begin[chosen][:, None] + np.arange(n)]]
        p = p - p.mean(axis=1, keepdims=True)
        scale = np.abs(p).max(axis=(1, 2))
        p = p / np.where(scale > 0, scale, 1.0)[:, None, None]
        normal = np.cross(p, np.roll(p, -1, axis=1)).sum(axis=1)
        length = np.linalg.norm(normal, axis=1)
        unit = normal / np.where(length > 0, length, 1.0)[:, None]
        side = np.roll(p, -1, axis=1) - p
        turn = np.einsum("kni,ki->kn", np.cross(np.roll(side, 1, axis=1), side), unit)
        ahead = np.einsum("kni,kni->kn", np.roll(side, 1, axis=1), side)
        around = np.arctan2(turn, ahead).sum(axis=1)
        result[chosen] = (turn >= -_FLAT).all(axis=1) & (np.abs(around) < 3 * np.pi) & (length > _FLAT)
    return result


def _cut(p: np.ndarray) -> tuple[np.ndarray | None, bool]:
    """Return the triangles of one polygon (n, 3), or None where a fan is as good; and whether its sides cross."""
    p = p - p.mean(axis=0)
    scale = np.abs(p).max()
    if not 0 < scale < np.inf:
        return None, False
    p = p / scale
    normal = np.cross(p, np.roll(p, -1, axis=0)).sum(axis=0)
    sizes, axes = np.linalg.svd(p, full_matrices=False)[1:]
    if sizes[1] <= _FLAT:  # all on one line
        return None, False
    if np.linalg.norm(normal) > 1e-6 * sizes[1]:
        unit = normal / np.linalg.norm(normal)
        right = np.cross(unit, np.eye(3)[np.abs(unit).argmin()])
        right /= np.linalg.norm(right)
        plane = np.stack((right, np.cross(unit, right)))
    else:  # a figure of eight: the best plane, either sense
        plane = axes[:2]
    q = np.ascontiguousarray(p @ plane.T)
    found = mapbox_earcut.triangulate_float64(q, np.array([len(q)], dtype=np.uint32))
    faces = np.asarray(found, dtype=np.int64).reshape(-1, 3)
    if len(faces) > len(q) - 2:
        faces = faces[: len(q) - 2]
    area = _areas(q, faces)
    faces[area < 0] = faces[area < 0][:, ::-1]
    whole = 0.5 * abs((q[:, 0] * np.roll(q[:, 1], -1) - np.roll(q[:, 0], -1) * q[:, 1]).sum())
    crosses = abs(np.abs(area).sum() - whole) > 1e-6 or _crosses(q)
    return (faces if len(faces) else None), bool(crosses)


def _areas(q: np.ndarray, faces: np.ndarray) -> np.ndarray:
    a, b, c = (q[faces[:, k]] for k in range(3))
    return 0.5 * ((b[:, 0] - a[:, 0]) * (c[:, 1] - a[:, 1]) - (b[:, 1] - a[:, 1]) * (c[:, 0] - a[:, 0]))


def _crosses(q: np.ndarray) -> bool:
    """Whether two sides of a polygon in the plane cross between their ends."""
    n = len(q)
    if n > _MOST_FOR_PAIRS:
        return False
    a, b = q[:, None], np.roll(q, -1, axis=0)[:, None]
    c, d = q[None], np.roll(q, -1, axis=0)[None]

    def side(p: np.ndarray, r: np.ndarray, s: np.ndarray) -> np.ndarray:
        return (r[..., 0] - p[..., 0]) * (s[..., 1] - p[..., 1]) - (r[..., 1] - p[..., 1]) * (s[..., 0] - p[..., 0])

    apart = (side(a, b, c) * side(a, b, d) < -(_FLAT**2)) & (side(c, d, a) * side(c, d, b) < -(_FLAT**2))
    return bool(apart.any())
