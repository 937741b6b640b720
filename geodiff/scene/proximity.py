# SPDX-License-Identifier: Apache-2.0
"""The exact nearest points of a mesh, and the distance to it, with their gradients in points and vertices."""

from typing import NamedTuple

import torch

from geodiff.modes import outside_autocast, refuse_torch_func
from geodiff.ops import _op
from geodiff.scene.mesh import Mesh
from geodiff.scene.mesh_batch import MeshBatch
from geodiff.scene.quantities import face_normals, safe_length
from geodiff.validation import common_batch, fail, promote, shapes_repr


class ClosestPoints(NamedTuple):
    """The nearest points of a mesh.

    Attributes:
        point: (..., N, 3) the points themselves.
        face: (..., N) int64, the face that each lies on; where several are as near, one of them.
        barycentric: (..., N, 3) weights of the face's corners: 1 is at a vertex, a 0 on a side.
        distance: (..., N).
    """

    def __repr__(self) -> str:
        return shapes_repr(self)

    point: torch.Tensor
    face: torch.Tensor
    barycentric: torch.Tensor
    distance: torch.Tensor


@outside_autocast
def closest_point(points: torch.Tensor, mesh: Mesh) -> ClosestPoints:
    """Return the point of a mesh nearest to each of N points: exactly, by Euclidean distance to its triangles.

    Computed in float64 about the middle of the mesh, whatever the dtype and however far the origin; which face is the
    nearest is found on the processor.

    Args:
        points: (..., N, 3).
        mesh: of a face or more; its batch broadcasts with the leading axes of ``points``.

    Gradients: of all but ``face``, in points and vertices, to any order. They are exact wherever one point is the
    nearest; where two are as near (on the medial axis), that of the one found. The gradient of a distance is the unit
    vector from the nearest point; at distance 0 it is 0.

    Raises:
        TypeError: something other than a ``Mesh``, or points that are not numbers.
        ValueError: wrong shapes, batches that do not broadcast, NaN, or a mesh without faces.

    Example:
        >>> import torch, geodiff as gd
        >>> found = gd.box(2.0).closest_point(torch.tensor([[0.5, 0.0, 3.0], [4.0, 4.0, 0.0]]))
        >>> found.point.tolist(), found.distance.tolist()
        ([[0.5, 0.0, 1.0], [1.0, 1.0, 0.0]], [2.0, 4.242640495300293])
    """
    where = "closest_point"
    x = _points(where, points)
    check_faces(where, mesh)
    dtype = torch.promote_types(x.dtype, mesh.dtype)
    x, vertices = x.to(mesh.device).double(), mesh.vertices.double()
    try:
        batch = common_batch(x.shape[:-2], mesh.batch_shape)
    except RuntimeError:
        expected = f"of a batch that broadcasts with the mesh's {tuple(mesh.batch_shape)}"
        raise fail(where, "points", expected, points) from None
    middle, unit = _frame(vertices.detach())
    x, vertices = (x - middle) / unit, (vertices - middle) / unit
    x = x.expand(*batch, *x.shape[-2:])
    refuse_torch_func("The search for the nearest faces", x, vertices)
    if mesh.batch_shape:
        vertices = vertices.expand(*batch, *vertices.shape[-2:])
    found = on_faces(x, vertices, mesh.faces, _nearest_faces(x.detach(), vertices.detach(), mesh.faces))
    return ClosestPoints(
        (found.point * unit + middle).to(dtype),
        found.face,
        found.barycentric.to(dtype),
        (found.distance * unit[..., 0]).to(dtype),
    )


def on_faces(x: torch.Tensor, vertices: torch.Tensor, faces: torch.Tensor, face: torch.Tensor) -> ClosestPoints:
    """Return the nearest point of a given face for each of N points.

    Args:
        x: (..., N, 3).
        vertices: (V, 3) or (..., V, 3).
        faces: (F, 3).
        face: (..., N) indices of faces.
    """
    a, b, c = _corners(vertices, faces, face).unbind(-2)
    weights = _barycentric(x, a, b, c)
    point = weights[..., 0:1] * a + weights[..., 1:2] * b + weights[..., 2:3] * c
    return ClosestPoints(point, face, weights, safe_length(x - point))


@outside_autocast
def point_mesh_distance(
    points: torch.Tensor, mesh: Mesh | MeshBatch, *, squared: bool = False, signed: bool = False
) -> torch.Tensor:
    """Return the exact distance from points to a mesh.

    Args:
        points: (..., N, 3); for a ``MeshBatch`` (B, N, 3), or (N, 3) for all of them.
        mesh: of a face or more; the batch of a ``Mesh`` broadcasts with that of the points.
        squared: return the squared distance, which is smooth at the surface.
        signed: negative inside. The mesh must be closed, and its faces alike in winding, counter-clockwise as seen
            from outside. By pseudonormals (Bærentzen and Aanæs, "Signed distance computation using the angle weighted
            pseudonormal", 2005), so it is right where the nearest point is on an edge or a vertex, too.

    Returns:
        (..., N), in the unit of the mesh or its square.

    Gradients: as :func:`closest_point`; of a signed distance also on the way through the surface, but at it.

    Raises:
        TypeError, ValueError: as :func:`closest_point`; a mesh that is open or wound both ways where ``signed``; both
            ``squared`` and ``signed``.

    Example:
        >>> import torch, geodiff as gd
        >>> points = torch.tensor([[0.0, 0.0, 3.0], [0.0, 0.0, 0.75]])
        >>> gd.point_mesh_distance(points, gd.box(2.0)), gd.point_mesh_distance(points, gd.box(2.0), signed=True)
        (tensor([2.0000, 0.2500]), tensor([ 2.0000, -0.2500]))
    """
    where = "point_mesh_distance"
    if squared and signed:
        raise fail(where, "signed", "False where `squared` is True", "both", "Ask for one of them.")
    if isinstance(mesh, MeshBatch):
        x = _points(where, points)
        if x.dim() not in (2, 3) or (x.dim() == 3 and len(x) != len(mesh)):
            raise fail(where, "points", f"of shape ({len(mesh)}, N, 3) or (N, 3)", x, "One cloud for each mesh.")
        clouds = x if x.dim() == 3 else [x] * len(mesh)
        parts = [
            point_mesh_distance(cloud, one, squared=squared, signed=signed)
            for cloud, one in zip(clouds, mesh, strict=True)
        ]
        return torch.stack(parts)
    if not isinstance(mesh, Mesh):
        fix = "Make one with Mesh(vertices, faces)."
        raise fail(where, "mesh", "a geodiff.Mesh or MeshBatch", mesh, fix, TypeError)
    if signed:
        _check_closed(where, mesh)
    found = closest_point(points, mesh)
    if squared:
        return found.distance.square()
    return found.distance * _sign(_points(where, points), mesh, found) if signed else found.distance


def check_faces(where: str, mesh: Mesh, argument: str = "mesh") -> None:
    """Require a mesh, or a batch of one topology, with faces.

    Raises:
        TypeError: something other than a `Mesh`.
        ValueError: no faces.
    """
    if not isinstance(mesh, Mesh):
        raise fail(where, argument, "a geodiff.Mesh", mesh, "Make one with Mesh(vertices, faces).", TypeError)
    if mesh.num_faces == 0:
        raise fail(where, argument, "a mesh with faces", "none")


def _points(where: str, points: torch.Tensor) -> torch.Tensor:
    x = promote(where, points=points)["points"]
    if x.dim() < 2 or x.shape[-1] != 3:
        raise fail(where, "points", "of shape (..., N, 3)", x, "One point is points[None].")
    return x


def _frame(vertices: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the middle (..., 1, 3) of the boxes of meshes and their sizes (..., 1, 1), powers of two."""
    low, high = vertices.amin(-2, keepdim=True), vertices.amax(-2, keepdim=True)
    size = (0.5 * high - 0.5 * low).amax(-1, keepdim=True)
    return 0.5 * low + 0.5 * high, torch.where(size > 0, torch.exp2(size.log2().ceil()), 1.0)


def _nearest_faces(x: torch.Tensor, vertices: torch.Tensor, faces: torch.Tensor) -> torch.Tensor:
    """Return the nearest face (..., N) of points (..., N, 3) for each mesh (..., V, 3), or of one mesh (V, 3)."""
    if vertices.dim() > 2:
        parts = [
            _nearest_faces(one, mesh, faces)
            for one, mesh in zip(x.flatten(0, -3), vertices.flatten(0, -3), strict=True)
        ]
        return torch.stack(parts).reshape(x.shape[:-1]) if parts else faces.new_zeros(x.shape[:-1])
    queries, corners = x.reshape(-1, 3).cpu().contiguous(), vertices[faces].cpu().contiguous()
    face = torch.empty(len(queries), dtype=torch.int64)
    _op.call(_op.kernels.nearest_triangle, corners=corners, points=queries, face=face)
    return face.to(x.device).reshape(x.shape[:-1])


def _corners(values: torch.Tensor, faces: torch.Tensor, face: torch.Tensor) -> torch.Tensor:
    """Return the values (..., N, 3, C) at the corners of a face (..., N) each; values (V, C) or (..., V, C)."""
    index = faces[face]
    if values.dim() > 2:
        start = torch.arange(face.shape[:-1].numel(), device=face.device) * values.shape[-2]
        index = index + start.reshape(*face.shape[:-1], 1, 1)
    return values.reshape(-1, values.shape[-1])[index]


def _dot(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    return (a * b).sum(-1)


def _barycentric(x: torch.Tensor, a: torch.Tensor, b: torch.Tensor, c: torch.Tensor) -> torch.Tensor:
    """Return the weights (..., 3) of the nearest point of each triangle: the foot if it is inside, else on a side."""
    ab, ac, ax = b - a, c - a, x - a
    normal = torch.linalg.cross(ab, ac)
    square = _dot(normal, normal)
    sound = square > 1e-24 * _dot(ab, ab) * _dot(ac, ac)
    inverse = 1 / torch.where(sound, square, 1.0)
    v = _dot(torch.linalg.cross(ax, ac), normal) * inverse
    w = _dot(torch.linalg.cross(ab, ax), normal) * inverse
    inside = sound & (v >= 0) & (w >= 0) & (v + w <= 1)
    sides, gaps = [], []
    zero = torch.zeros_like(v)
    for i, (start, end) in enumerate(((a, b), (b, c), (c, a))):
        along = end - start
        length = _dot(along, along)
        t = (_dot(x - start, along) / torch.where(length > 0, length, 1.0)).clamp(0.0, 1.0)
        gaps.append((start + t[..., None] * along - x).detach().square().sum(-1))
        weights = [1 - t, t, zero]
        sides.append(torch.stack(weights[-i:] + weights[:-i] if i else weights, dim=-1))
    best = torch.stack(gaps).argmin(0)
    side = torch.where((best == 0)[..., None], sides[0], torch.where((best == 1)[..., None], sides[1], sides[2]))
    return torch.where(inside[..., None], torch.stack((1 - v - w, v, w), dim=-1), side)


# --- inside and outside -----------------------------------------------------------------------------------------------


def _check_closed(where: str, mesh: Mesh) -> None:
    """Require that each side of a face is run along as often one way as the other, and at least once each."""
    ends = mesh.faces[:, [0, 1, 1, 2, 2, 0]].reshape(-1, 2)
    ends = ends[ends[:, 0] != ends[:, 1]]
    key = ends.amin(-1) * mesh.num_vertices + ends.amax(-1)
    _, row = torch.unique(key, return_inverse=True)
    sense = torch.where(ends[:, 0] < ends[:, 1], 1, -1)
    balance = torch.zeros(int(row.max()) + 1 if len(row) else 0, dtype=sense.dtype, device=sense.device)
    balance = balance.index_add(0, row, sense)
    odd = int((balance != 0).sum())
    if odd:
        fix = "Join vertices at the same position with mesh.welded(), and close the holes."
        raise fail(where, "mesh", "closed and wound alike where `signed`", f"{odd} edges without a counterpart", fix)


def _sign(x: torch.Tensor, mesh: Mesh, found: ClosestPoints) -> torch.Tensor:
    """Return 1 outside and −1 inside (..., N), by the normal of the face, edge or vertex that is nearest."""
    with torch.no_grad():
        vertices = mesh.vertices.double()
        middle, unit = _frame(vertices)
        vertices = (vertices - middle) / unit
        x = (x.detach().to(mesh.device).double() - middle) / unit
        x = x.expand(*found.face.shape, 3)
        if mesh.batch_shape:
            vertices = vertices.expand(*found.face.shape[:-1], *vertices.shape[-2:])
        corners = vertices[..., mesh.faces, :]
        normals = face_normals(vertices, mesh.faces)
        sides = torch.stack([corners.roll(-1, -2) - corners, corners.roll(1, -2) - corners])
        angle = torch.atan2(
            torch.linalg.cross(sides[0], sides[1]).norm(dim=-1), (sides[0] * sides[1]).sum(-1)
        )  # at each corner
        at_vertex = torch.zeros_like(vertices).index_add(
            -2, mesh.faces.reshape(-1), (angle[..., None] * normals[..., None, :]).flatten(-3, -2)
        )
        # The sides opposite to corners 0, 1 and 2; a key for each edge.
        opposite = mesh.faces[:, [1, 2, 2, 0, 0, 1]].reshape(-1, 3, 2)
        key = opposite.amin(-1) * mesh.num_vertices + opposite.amax(-1)
        _, edge = torch.unique(key, return_inverse=True)
        at_edge = normals.new_zeros(*normals.shape[:-2], int(edge.max()) + 1, 3).index_add(
            -2, edge.reshape(-1), normals.repeat_interleave(3, dim=-2)
        )
        weights = _barycentric(x, *_corners(vertices, mesh.faces, found.face).unbind(-2))
        nearest = (weights[..., None] * _corners(vertices, mesh.faces, found.face)).sum(-2)
        zeros = (weights == 0).sum(-1)
        of_face = _corners(normals, torch.arange(mesh.num_faces, device=mesh.device)[:, None], found.face)[..., 0, :]
        of_edge = _corners(at_edge, edge, found.face)
        of_edge = of_edge.gather(-2, weights.argmin(-1)[..., None, None].expand(*weights.shape[:-1], 1, 3))[..., 0, :]
        of_vertex = _corners(at_vertex, mesh.faces, found.face)
        of_vertex = of_vertex.gather(-2, weights.argmax(-1)[..., None, None].expand(*weights.shape[:-1], 1, 3))
        normal = torch.where((zeros == 0)[..., None], of_face, of_edge)
        normal = torch.where((zeros == 2)[..., None], of_vertex[..., 0, :], normal)
        return torch.where(_dot(x - nearest, normal) < 0, -1.0, 1.0).to(found.distance.dtype)
