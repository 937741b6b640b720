# SPDX-License-Identifier: Apache-2.0
"""The exact distance from points to a triangle mesh, and samples of a mesh uniform in area."""

import numpy as np
import torch

from geodiff.atlas.watertight import load_open3d
from geodiff.scene.anchor import anchor
from geodiff.scene.mesh import Mesh
from geodiff.scene.proximity import ClosestPoints, check_faces, closest_point, on_faces
from geodiff.scene.sampling import SurfaceSamples
from geodiff.validation import fail, integer, promote, seed_number


def closest_on_mesh(points: torch.Tensor, mesh: Mesh, *, rounded: bool = False) -> ClosestPoints:
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
    origin = anchor(vertices)
    mesh, local = mesh.to("cpu").with_vertices(vertices - origin), x.detach().cpu().double() - origin
    face = _by_open3d(local.numpy(), mesh) if rounded else None
    with torch.no_grad():
        found = closest_point(local, mesh) if face is None else on_faces(local, mesh.vertices, mesh.faces, face)
    barycentric, distance = found.barycentric.to(x), found.distance.to(x)
    return ClosestPoints((found.point + origin).to(x), found.face.to(x.device), barycentric, distance)


def sample_mesh(mesh: Mesh, count: int, seed: int = 0) -> SurfaceSamples:
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
    reached = (np.arange(count) + random.random(count)) / count * total
    face = np.minimum(np.searchsorted(np.cumsum(area), reached, side="right"), len(area) - 1)
    u, v = random.random((2, count))
    flip = u + v > 1
    u, v = np.where(flip, 1 - u, u), np.where(flip, 1 - v, v)
    a, b, c = corners[face, 0], corners[face, 1], corners[face, 2]
    points = a + u[:, None] * (b - a) + v[:, None] * (c - a)
    drawn = points, cross[face] / area[face, None], np.stack((1 - u - v, u, v), axis=-1)
    points, normals, weights = (torch.from_numpy(part).to(mesh.vertices) for part in drawn)
    return SurfaceSamples(points, normals, None, torch.from_numpy(face).to(mesh.device), weights)


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


def _by_open3d(x: np.ndarray, mesh: Mesh) -> torch.Tensor | None:
    """Return the nearest faces (N,), up to float32; None without Open3D."""
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
    return torch.from_numpy(found["primitive_ids"].numpy().astype(np.int64))
