# SPDX-License-Identifier: Apache-2.0
"""What keeps a triangle mesh from being a closed, consistently oriented manifold, and how that is mended."""

import dataclasses

import numpy as np
import torch
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree

from geodiff.scene.mesh import Mesh

_ONE_PLACE = 1e-3  # of the mean edge, up to which vertices are taken for one
_APART = 0.02  # of the mean edge, by which vertices that were split part
_ROUNDS = 6  # of smoothing where faces cross
_LONGEST_HOLE = 48  # edges around a hole that a fan of triangles fills


@dataclasses.dataclass(frozen=True)
class Faults:
    """How many things of each kind keep a mesh from being watertight; all 0 if it is.

    Attributes:
        boundary_edges: edges with one face.
        nonmanifold_edges: edges with three faces or more.
        turned_edges: edges whose two faces run along them the same way, so that one of them faces inwards.
        nonmanifold_vertices: vertices at which two or more fans of faces touch.
        duplicate_faces: faces that repeat the three vertices of another.
        degenerate_faces: faces that name a vertex twice.
    """

    boundary_edges: int
    nonmanifold_edges: int
    turned_edges: int
    nonmanifold_vertices: int
    duplicate_faces: int
    degenerate_faces: int

    def told(self, open_boundaries: bool = False) -> str:
        """Return the kinds that there are in words; "" if none. Boundary edges do not count where they are wanted."""
        kinds = {name: n for name, n in dataclasses.asdict(self).items() if n}
        if open_boundaries:
            kinds.pop("boundary_edges", None)
        return ", ".join(f"{n} {name.replace('_', ' ').replace('nonm', 'non-m')}" for name, n in kinds.items())


def faults(faces: np.ndarray) -> Faults:
    """Count what is wrong with faces (F, 3) of vertex indices."""
    whole = _proper(faces)
    edge, forward = _half_edges(whole)
    _, label, count = np.unique(edge, return_inverse=True, return_counts=True)
    ahead = np.bincount(label, forward, len(count))
    corner = _fans(whole, *_pairs(whole, None))
    fans = np.bincount(whole.reshape(-1)[np.unique(corner, return_index=True)[1]])
    return Faults(
        boundary_edges=int((count == 1).sum()),
        nonmanifold_edges=int((count > 2).sum()),
        turned_edges=int(((count == 2) & (ahead != 1)).sum()),
        nonmanifold_vertices=int((fans > 1).sum()),
        duplicate_faces=len(whole) - len(_same(whole)[0]),
        degenerate_faces=len(faces) - len(whole),
    )


def components(faces: np.ndarray) -> np.ndarray:
    """Return the number (F,) of the connected component of each face, by shared vertices."""
    if not len(faces):
        return np.zeros(0, np.int64)
    one, other = faces[:, [0, 1]].reshape(-1), faces[:, [1, 2]].reshape(-1)
    label = _connected(one, other, int(faces.max()) + 1)
    return np.unique(label[faces[:, 0]], return_inverse=True)[1].reshape(-1)


def mended(vertices: np.ndarray, faces: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return vertices and faces of a manifold: without duplicate faces, its sheets apart where they touched.

    Vertices in one place become one. Sides of faces are joined two by two, in opposite directions; where more than two
    meet at an edge, those with the solid between them. A vertex is then what such joints hold together: where one
    becomes several, each moves into its own solid by a fiftieth of an edge, so that they stay apart for readers that
    join what is in one place. Faces at an edge that cannot be parted so, since its sheets meet again at both of its
    ends, are taken out. Sides without a partner are left as boundary.

    Args:
        vertices: (V, 3).
        faces: (F, 3), facing outwards.
    """
    vertices, faces = _welded(vertices, faces)
    faces = _unrepeated(_proper(faces))
    while len(faces):
        vertices, faces = _parted(vertices, faces)
        edge, forward = _half_edges(faces)
        _, label, count = np.unique(edge, return_inverse=True, return_counts=True)
        label = label.reshape(-1)
        ahead = np.bincount(label, forward, len(count))
        wrong = ((count > 2) | ((count == 2) & (ahead != 1)))[label].reshape(-1, 3).any(1)
        if not wrong.any():
            return vertices, faces
        faces = faces[~wrong]
    return vertices[:0], faces


def written(vertices: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """Return faces whose vertices are joined where single precision, as files have it, puts them in one place."""
    places = np.ascontiguousarray(vertices.astype(np.float32) + np.float32(0)).view("V12").reshape(-1)
    return np.asarray(np.unique(places, return_inverse=True)[1].reshape(-1)[faces])


def untangled(vertices: np.ndarray, faces: np.ndarray) -> tuple[np.ndarray, int]:
    """Return vertices moved so that faces no longer cross, and how many pairs of faces still do.

    Corners of faces that meet elsewhere than where they are joined go to the mean of their neighbours, and back where
    that leaves more such pairs than before. Looked at in single precision, as files have it.
    """
    pairs = _crossing(vertices, faces)
    for _ in range(_ROUNDS):
        if not len(pairs):
            break
        corner = np.unique(faces[np.unique(pairs)])
        one, other = faces.reshape(-1), np.roll(faces, -1, axis=1).reshape(-1)
        start, end = np.r_[one, other], np.r_[other, one]
        mine = np.isin(start, corner)
        start, end = start[mine], end[mine]
        degree = np.bincount(start, minlength=len(vertices))
        moved = vertices.copy()
        for axis in range(3):
            mean = np.bincount(start, vertices[end, axis], len(vertices))
            moved[corner, axis] = (mean / np.maximum(degree, 1))[corner]
        left = _crossing(moved, faces)
        if len(left) > len(pairs):
            break
        vertices, pairs = moved, left
    return vertices, len(pairs)


def _crossing(vertices: np.ndarray, faces: np.ndarray) -> np.ndarray:
    places = torch.from_numpy(vertices.astype(np.float32)).double()
    return np.asarray(Mesh(places, torch.from_numpy(faces)).self_intersections().numpy())


def _edge(vertices: np.ndarray, faces: np.ndarray) -> float:
    return float(np.linalg.norm(vertices[faces] - vertices[np.roll(faces, 1, axis=1)], axis=2).mean())


def _welded(vertices: np.ndarray, faces: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Join vertices that are in one place, or as good as."""
    if not len(faces):
        return vertices, faces
    near = cKDTree(vertices).query_pairs(_ONE_PLACE * _edge(vertices, faces), output_type="ndarray")
    label = _connected(near[:, 0], near[:, 1], len(vertices))
    _, first, label = np.unique(label, return_index=True, return_inverse=True)
    return vertices[first], label.reshape(-1)[faces]


def _parted(vertices: np.ndarray, faces: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    corner = _fans(faces, *_pairs(faces, vertices))
    _, first, label = np.unique(corner, return_index=True, return_inverse=True)
    new = label.reshape(-1, 3)
    old = faces.reshape(-1)[first]
    places = vertices[old].copy()
    split = np.bincount(old, minlength=len(vertices))[old] > 1
    if split.any():
        a, b, c = (vertices[faces[:, k]] for k in range(3))
        normal = np.repeat(np.cross(b - a, c - a), 3, axis=0)
        out = np.stack([np.bincount(new.reshape(-1), normal[:, k], len(places)) for k in range(3)], 1)[split]
        out /= np.maximum(np.linalg.norm(out, axis=1, keepdims=True), 1e-300)
        places[split] -= _APART * _edge(vertices, faces) * out
    return places, new


def filled(vertices: np.ndarray, faces: np.ndarray, longest: int = _LONGEST_HOLE) -> tuple[np.ndarray, np.ndarray]:
    """Fill holes of at most so many edges: a triangle, or a fan about the middle of the border.

    Args:
        vertices: (V, 3).
        faces: (F, 3) of a manifold, as `mended` gives it.
        longest: edges around a hole.
    """
    alone = np.ones(3 * len(faces), dtype=bool)
    for sides in _pairs(faces, None):
        alone[sides] = False
    start, end = faces.reshape(-1), np.roll(faces, -1, axis=1).reshape(-1)
    after = dict(zip(start[alone].tolist(), end[alone].tolist(), strict=True))
    places, more = [vertices], [faces]
    total = len(vertices)
    while after:
        loop = [next(iter(after))]
        while (step := after.pop(loop[-1], None)) is not None and step != loop[0]:
            loop.append(step)
        if step is None or not 3 <= len(loop) <= longest:
            continue
        if len(loop) == 3:
            more.append(np.array([loop[::-1]]))
            continue
        ring = np.array(loop)
        places.append(vertices[ring].mean(0, keepdims=True))
        more.append(np.stack([np.roll(ring, -1), ring, np.full_like(ring, total)], 1))
        total += 1
    return np.concatenate(places), np.concatenate(more)


def _proper(faces: np.ndarray) -> np.ndarray:
    a, b, c = faces.T
    return faces[(a != b) & (b != c) & (c != a)]


def _same(faces: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the first face of each set of three vertices, and a label (F,) of the set."""
    rows = np.sort(faces, axis=1)
    order = np.lexsort(rows.T)
    new = np.ones(len(rows), dtype=bool)
    new[1:] = (rows[order[1:]] != rows[order[:-1]]).any(1)
    label = np.empty(len(rows), np.int64)
    label[order] = np.cumsum(new) - 1
    return order[new], label


def _unrepeated(faces: np.ndarray) -> np.ndarray:
    """Keep one of faces that are the same, and none of those that come as often turned: a wall without thickness."""
    rows = np.take_along_axis(faces, (faces.argmin(1)[:, None] + np.arange(3)) % 3, 1)
    turned = rows[:, 1] > rows[:, 2]
    first, label = _same(rows)
    balance = np.bincount(label, np.where(turned, -1, 1), len(first))
    keep = np.zeros(len(faces), dtype=bool)
    for side, sign in ((turned, -1), (~turned, 1)):
        rows_here = np.flatnonzero(side & (np.sign(balance)[label] == sign))
        keep[rows_here[np.unique(label[rows_here], return_index=True)[1]]] = True
    return faces[keep]


def _half_edges(faces: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return a key (3 F,) of the edge along each side of a face, and whether the side runs from low to high."""
    start, end = faces.reshape(-1), np.roll(faces, -1, axis=1).reshape(-1)
    low, high = np.minimum(start, end), np.maximum(start, end)
    return low * (int(faces.max(initial=0)) + 1) + high, start < end


def _pairs(faces: np.ndarray, vertices: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
    """Return the sides (P,) and (P,) that are joined: of edges with two opposite ones; with places, of others, too."""
    edge, forward = _half_edges(faces)
    order = np.argsort(edge, kind="stable")
    first = np.flatnonzero(np.r_[True, edge[order][1:] != edge[order][:-1]]) if len(edge) else np.zeros(0, np.int64)
    count = np.diff(np.r_[first, len(edge)])
    at = first[count == 2]
    one, other = order[at], order[at + 1]
    opposite = forward[one] != forward[other]
    one, other = one[opposite], other[opposite]
    if vertices is None:
        return one, other
    more: list[tuple[int, int]] = []
    for begin, many in zip(first[count > 2], count[count > 2], strict=True):
        more += _around(vertices, faces, order[begin : begin + many], forward)
    joined = np.array(more, dtype=np.int64).reshape(-1, 2)
    return np.r_[one, joined[:, 0]], np.r_[other, joined[:, 1]]


def _around(vertices: np.ndarray, faces: np.ndarray, sides: np.ndarray, forward: np.ndarray) -> list[tuple[int, int]]:
    """Pair the sides along one edge that have the solid between them, in the order in which they lie about it."""
    face, k = sides // 3, sides % 3
    a, b, c = (vertices[faces[face, (k + i) % 3]] for i in range(3))
    ahead = forward[sides]
    axis = (b - a)[0] * (1 if ahead[0] else -1)
    axis = axis / max(float(np.linalg.norm(axis)), 1e-300)
    across = c - a - ((c - a) @ axis)[:, None] * axis
    u = across[0] / max(float(np.linalg.norm(across[0])), 1e-300)
    turn = np.argsort(np.arctan2(across @ np.cross(axis, u), across @ u), kind="stable")
    # The solid is behind a side that runs along the axis, and ahead of one that runs against it.
    pairs: list[tuple[int, int]] = []
    waiting: list[int] = []
    for row in [*turn, *turn]:
        side = int(sides[row])
        if any(side in pair for pair in pairs):
            continue
        if not ahead[row]:
            if side not in waiting:
                waiting.append(side)
        elif waiting:
            pairs.append((waiting.pop(), side))
    return pairs


def _fans(faces: np.ndarray, one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Return a label (3 F,) of the fan that each corner is of, given which sides are joined."""
    follow = np.arange(3 * len(faces)).reshape(-1, 3)[:, [1, 2, 0]].reshape(-1)
    return _connected(np.r_[one, follow[one]], np.r_[follow[other], other], 3 * len(faces))


def _connected(one: np.ndarray, other: np.ndarray, count: int) -> np.ndarray:
    graph = coo_matrix((np.ones(len(one), np.int8), (one, other)), shape=(count, count))
    return np.asarray(connected_components(graph, directed=False)[1])
