# SPDX-License-Identifier: Apache-2.0
"""Normals of faces, areas and Laplacians as plain functions; ``Mesh`` caches what they return."""

import torch

from geodiff.reference.normals import scaled_sides, unit_or_zero
from geodiff.scene.topology import Topology
from geodiff.validation import choice, fail

# A triangle whose |signed area · 2| is at most this many units of rounding of (longest edge)² has no direction: the
# renderer drops it by the same rule.
DEGENERATE = 8.0


def safe_length(vector: torch.Tensor) -> torch.Tensor:
    """Return the Euclidean length, whose derivatives of any order are 0 at the zero vector."""
    square = (vector * vector).sum(-1)
    return torch.where(square > 0, torch.where(square > 0, square, 1.0).sqrt(), 0.0)


def face_normals(vertices: torch.Tensor, faces: torch.Tensor) -> torch.Tensor:
    """Return the unit normal (b − a) × (c − a) / ‖·‖ of each face, which sees its vertices counter-clockwise.

    Args:
        vertices: (..., V, 3).
        faces: (F, 3) int64.

    Returns:
        (..., F, 3). A face of no area (see ``DEGENERATE``) has normal 0 with gradient 0.
    """
    sides, _ = scaled_sides(vertices, faces)
    cross = torch.linalg.cross(sides[..., 0, :], sides[..., 1, :])
    # The longest of the three edges is at most twice the scaled sides, which is near enough for a rounding bound.
    longest = (sides.detach() ** 2).sum(-1).amax(-1)
    flat = safe_length(cross.detach()) <= DEGENERATE * torch.finfo(vertices.dtype).eps * longest
    return unit_or_zero(torch.where(flat[..., None], 0.0, cross))


def face_areas(vertices: torch.Tensor, faces: torch.Tensor) -> torch.Tensor:
    """Return the area ‖(b − a) × (c − a)‖ / 2 of each face.

    Args:
        vertices: (..., V, 3).
        faces: (F, 3) int64.

    Returns:
        (..., F), 0 with gradient 0 (a subgradient) where the three corners are in line.
    """
    sides, scale = scaled_sides(vertices, faces)
    cross = torch.linalg.cross(sides[..., 0, :], sides[..., 1, :])
    return 0.5 * safe_length(cross) * scale**2


def cotangents(vertices: torch.Tensor, faces: torch.Tensor) -> torch.Tensor:
    """Return the cotangent of the angle at each corner of each face.

    Args:
        vertices: (..., V, 3).
        faces: (F, 3) int64.

    Returns:
        (..., F, 3), corner k at ``faces[:, k]``; 0 with gradient 0 for a face of no area.
    """
    sides, _ = scaled_sides(vertices, faces)
    ab, ac = sides[..., 0, :], sides[..., 1, :]
    bc = ac - ab
    double_area = safe_length(torch.linalg.cross(ab, ac))
    flat = double_area.detach() <= DEGENERATE * torch.finfo(vertices.dtype).eps * (sides.detach() ** 2).sum(-1).amax(-1)
    dots = torch.stack(((ab * ac).sum(-1), -(ab * bc).sum(-1), (ac * bc).sum(-1)), dim=-1)
    return torch.where(flat[..., None], 0.0, dots / torch.where(flat, 1.0, double_area)[..., None])


def laplacian(
    topology: Topology, vertices: torch.Tensor, kind: str = "uniform", normalized: bool = False
) -> torch.Tensor:
    """Build the sparse Laplacian L of a mesh, symmetric and positive semi-definite unless normalised.

    ``uniform``: L = D − A, with the adjacency A and the degrees D.
    ``cotangent``: L_ij = −(cot α_ij + cot β_ij) / 2 over the angles that face edge ij, L_ii = −Σ_j L_ij
    (Pinkall and Polthier 1993); faces of no area are left out.
    ``normalized`` divides each row by its diagonal, so that (L x)_i is x_i less the mean of its neighbours.

    Args:
        topology: the faces.
        vertices: (V, 3); only ``cotangent`` looks at where they are, and is differentiable in them.
        kind: "uniform" or "cotangent".
        normalized: divide each row by its diagonal; rows of isolated vertices stay 0.

    Returns:
        (V, V) coalesced sparse COO tensor; ``.to_sparse_csr()`` converts it.

    Raises:
        ValueError: an unknown kind, or "cotangent" of a batch.

    Example:
        >>> import geodiff as gd
        >>> ball = gd.icosphere(2)
        >>> umbrella = ball.laplacian("uniform", normalized=True) @ ball.vertices
        >>> umbrella.shape
        torch.Size([162, 3])
    """
    choice("laplacian", "kind", kind, ("uniform", "cotangent"))
    edges, v = topology.edges, topology.num_vertices
    if kind == "uniform":
        weight = vertices.new_ones(len(edges))
    else:
        if vertices.dim() != 2:
            fix = "Take one mesh: mesh[i].laplacian()."
            raise fail("laplacian", "vertices", "(V, 3) for kind='cotangent'", vertices, fix)
        # Corner k faces the side between the other two corners.
        opposite = topology.faces[:, [1, 2, 2, 0, 0, 1]].reshape(-1, 2)
        keys = edges[:, 0] * v + edges[:, 1]
        key = opposite.amin(-1) * v + opposite.amax(-1)
        row = torch.searchsorted(keys, key).clamp(max=max(len(keys) - 1, 0))
        known = (keys[row] == key) if len(keys) else torch.zeros_like(key, dtype=torch.bool)
        halves = 0.5 * cotangents(vertices, topology.faces).reshape(-1)
        weight = vertices.new_zeros(len(edges)).index_add(0, row[known], halves[known])
    i, j = edges[:, 0], edges[:, 1]
    diagonal = vertices.new_zeros(v).index_add(0, i, weight).index_add(0, j, weight)
    row = torch.cat((i, j, torch.arange(v, device=edges.device)))
    column = torch.cat((j, i, torch.arange(v, device=edges.device)))
    values = torch.cat((-weight, -weight, diagonal))
    if normalized:
        empty = diagonal == 0
        values = values / torch.where(empty, 1.0, diagonal)[row]
    order = torch.argsort(row * v + column)
    indices = torch.stack((row, column))[:, order]
    return torch.sparse_coo_tensor(indices, values[order], (v, v), is_coalesced=True, check_invariants=False)
