# SPDX-License-Identifier: Apache-2.0
"""The exact distance from points to a triangle mesh, and samples of a mesh uniform in area."""

from typing import NamedTuple

import numpy as np
import torch

from geodiff.atlas.watertight import load_open3d
from geodiff.scene.anchor import anchor
from geodiff.scene.mesh import Mesh
from geodiff.scene.proximity import check_faces, closest_point
from geodiff.validation import fail, integer, promote, seed_number, shapes_repr


class Closest(NamedTuple):
    """The nearest places of a surface.

    Attributes:
        distance: (N,).
        face: (N,) index of the face, or of the point where the surface is a cloud.
        point: (N, 3) the place itself.
    """

    def __repr__(self) -> str:
        return shapes_repr(self)

    distance: torch.Tensor
    face: torch.Tensor
    point: torch.Tensor


class Samples(NamedTuple):
    """Points of a surface.

    Attributes:
        points: (S, 3).
        normals: (S, 3) unit, of the faces.
        face: (S,) index of the face.
    """

    def __repr__(self) -> str:
        return shapes_repr(self)

    points: torch.Tensor
    normals: torch.Tensor
    face: torch.Tensor


def closest_on_mesh(points: torch.Tensor, mesh: Mesh, *, rounded: bool = False) -> Closest:
    """Return the nearest point of a mesh to each of N points, without gradients; see `Mesh.closest_point`.

    Args:
        points: (N, 3).
        mesh: one mesh, no batch, with a face or more.
        rounded: allow float32 (errors below 1e-6 of the extent), so that Open3D does it where it is installed: faster.

    Raises:
        ValueError: wrong shapes, NaN, a batch, or no faces.

    Example:
        >>> import torch, geodiff as gd
        >>> from geodiff.atlas.proximity import closest_on_mesh
        >>> closest_on_mesh(torch.tensor([[0.0, 0.0, 3.0]]), gd.box(2.0)).distance
        tensor([2.])
    """
    where = "closest_on_mesh"
    x = promote(where, points=points)["points"]
    if x.dim() != 2 or x.shape[1] != 3:
        raise fail(where, "points", "of shape (N, 3)", x)
    check_mesh(where, "mesh", mesh)
    # Far from the origin distances are differences of large numbers.
    vertices = mesh.vertices.detach().cpu().double()
    place = anchor(vertices)
    mesh, places = mesh.to("cpu").with_vertices(vertices - place), x.detach().cpu().double() - place
    found = _by_open3d(places.numpy(), mesh) if rounded else None
    if found is None:
        with torch.no_grad():
            exact = closest_point(places, mesh)
        found = exact.distance, exact.face, exact.point
    return Closest(found[0].to(x), found[1].to(x.device), (found[2] + place).to(x))


def sample_mesh(mesh: Mesh, count: int, seed: int = 0) -> Samples:
    """Draw points of a mesh, uniform in area: stratified over the faces, random inside each.

    Args:
        mesh: one mesh, no batch, of positive area.
        count: S ≥ 1.
        seed: of the draw; the same seed gives the same points on every machine.

    Raises:
        ValueError: a batch, no faces, no area, or no samples asked for.

    Example:
        >>> import geodiff as gd
        >>> from geodiff.atlas.proximity import sample_mesh
        >>> sample_mesh(gd.icosphere(2), 1000).points.shape
        torch.Size([1000, 3])
    """
    where = "sample_mesh"
    check_mesh(where, "mesh", mesh)
    count = integer(where, "count", count, 1)
    seed = seed_number(where, seed)
    corners = _corners(mesh)
    cross = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    area = np.linalg.norm(cross, axis=-1)
    total = area.sum()
    if not total > 0:
        raise fail(where, "mesh", "of positive area", "faces that are all degenerate")
    random = np.random.default_rng(seed)
    places = (np.arange(count) + random.random(count)) / count * total
    face = np.minimum(np.searchsorted(np.cumsum(area), places, side="right"), len(area) - 1)
    u, v = random.random((2, count))
    flip = u + v > 1
    u, v = np.where(flip, 1 - u, u), np.where(flip, 1 - v, v)
    a, b, c = corners[face, 0], corners[face, 1], corners[face, 2]
    points = a + u[:, None] * (b - a) + v[:, None] * (c - a)
    normals = cross[face] / area[face, None]
    vertices = mesh.vertices
    return Samples(
        torch.from_numpy(points).to(vertices),
        torch.from_numpy(normals).to(vertices),
        torch.from_numpy(face).to(vertices.device),
    )


def check_mesh(where: str, argument: str, mesh: Mesh) -> None:
    """Require one mesh with faces.

    Raises:
        TypeError: something other than a `Mesh`.
        ValueError: a batch, or no faces.
    """
    if isinstance(mesh, Mesh) and mesh.batch_shape:
        raise fail(where, argument, "one mesh", f"a batch of {tuple(mesh.batch_shape)}", "Take mesh[i].")
    check_faces(where, mesh, argument)


def _corners(mesh: Mesh) -> np.ndarray:
    vertices = mesh.vertices.detach().cpu().double().numpy()
    return np.asarray(vertices[mesh.faces.cpu().numpy()])


def _by_open3d(x: np.ndarray, mesh: Mesh) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor] | None:
    try:
        open3d = load_open3d("closest_on_mesh")
    except ImportError:
        return None
    corners = _corners(mesh)
    # About the middle and of size 1, where float32 is finest.
    middle = (corners.min(axis=(0, 1)) + corners.max(axis=(0, 1))) / 2
    size = max(np.abs(corners - middle).max(), 1e-300)
    tensor = open3d.core.Tensor
    scene = open3d.t.geometry.RaycastingScene()
    flat = ((corners - middle) / size).reshape(-1, 3)
    scene.add_triangles(tensor(flat.astype(np.float32)), tensor(np.arange(len(flat), dtype=np.uint32).reshape(-1, 3)))
    found = scene.compute_closest_points(tensor(((x - middle) / size).astype(np.float32)))
    face = found["primitive_ids"].numpy().astype(np.int64)
    # The distance to the face found, from the numbers as they came.
    point = _on_triangles(x, corners[face, 0], corners[face, 1], corners[face, 2])
    distance = np.linalg.norm(point - x, axis=-1)
    return torch.from_numpy(distance), torch.from_numpy(face), torch.from_numpy(point)


def _on_triangles(x: np.ndarray, a: np.ndarray, b: np.ndarray, c: np.ndarray) -> np.ndarray:
    """Return the nearest points of triangles: the foot of the perpendicular if it is inside, else on a side."""
    ab, ac, ax = b - a, c - a, x - a
    d00, d01, d11 = (ab * ab).sum(-1), (ab * ac).sum(-1), (ac * ac).sum(-1)
    d20, d21 = (ax * ab).sum(-1), (ax * ac).sum(-1)
    area = d00 * d11 - d01 * d01
    safe = np.where(area > 0, area, 1.0)
    v, w = (d11 * d20 - d01 * d21) / safe, (d00 * d21 - d01 * d20) / safe
    inside = (area > 1e-24 * d00 * d11) & (v >= 0) & (w >= 0) & (v + w <= 1)
    best = a + v[..., None] * ab + w[..., None] * ac
    least = np.where(inside, ((best - x) ** 2).sum(-1), np.inf)
    outside = ~inside
    x = np.broadcast_to(x, a.shape)
    nearest, gap = None, None
    corner = [side[outside] for side in (a, b, c)]
    target = x[outside]
    for i in range(3):
        start, way = corner[i], corner[(i + 1) % 3] - corner[i]
        length = (way * way).sum(-1)
        t = ((target - start) * way).sum(-1) / np.where(length > 0, length, 1.0)
        place = start + np.clip(t, 0.0, 1.0)[:, None] * way
        far = ((place - target) ** 2).sum(-1)
        if nearest is None or gap is None:
            nearest, gap = place, far
        else:
            closer = far < gap
            nearest[closer], gap[closer] = place[closer], far[closer]
    least[outside] = gap
    best[outside] = nearest
    return best
