# SPDX-License-Identifier: Apache-2.0
"""Where a surface goes through itself."""

import math
from typing import TYPE_CHECKING

import torch

from geodiff.modes import refuse_torch_func
from geodiff.ops import _op
from geodiff.validation import fail

if TYPE_CHECKING:
    from geodiff.scene.mesh import Mesh


def self_intersections(mesh: "Mesh") -> torch.Tensor:
    """Return the pairs of faces that meet elsewhere than in the vertices and the edge that they share.

    Exact, without a tolerance: the coordinates are taken as they are, and signs of determinants are computed without
    rounding where double precision leaves them open. So faces that touch in a point count, and so do faces in one plane
    that overlap: two faces with an edge in common if one is folded onto the other, duplicates always. Vertices at the
    very same position count as one, so a mesh whose seams are not welded is as good as one whose are. Faces without
    area are nobody's pair.

    Args:
        mesh: one mesh (V, 3).

    Returns:
        (N, 2) int64 indices of faces, the lower first, each pair once, in lexicographic order; N = 0 for a clean mesh.
        Found on the processor; the same on any number of threads.

    Gradients: none, these are indices.

    Raises:
        ValueError: a batch of meshes.

    Example:
        >>> import torch, geodiff as gd
        >>> gd.icosphere(2).self_intersections().shape
        torch.Size([0, 2])
        >>> faces = torch.tensor([[0, 1, 2], [3, 4, 5]])
        >>> cross = torch.tensor([[0.0, 0, 0], [2, 0, 0], [0, 2, 0], [0.5, 0.5, -1], [0.5, 0.5, 1], [2, 2, 1]])
        >>> gd.Mesh(cross, faces).self_intersections().tolist()
        [[0, 1]]
    """
    single_mesh("Mesh.self_intersections", mesh)
    points, _ = scaled_points(mesh)
    (pairs,) = _op.call(_op.kernels.self_intersections, points=points, faces=mesh.faces.cpu())
    result: torch.Tensor = pairs.to(mesh.device)
    return result


def single_mesh(where: str, mesh: "Mesh") -> None:
    """Require one mesh, no batch, whose numbers can be looked at."""
    if mesh.batch_shape:
        raise fail(where, "mesh", "one mesh of vertices (V, 3)", mesh.vertices, "Take mesh[i].")
    refuse_torch_func("A search among faces", mesh.vertices)


def scaled_points(mesh: "Mesh") -> tuple[torch.Tensor, float]:
    """Return the vertices in float64 on the CPU, times a power of two that brings their size near 1; and its inverse.

    Without any rounding, and products of them neither over- nor underflow.
    """
    points = mesh.vertices.detach().double().cpu()
    size = float(points.abs().max()) if points.numel() else 0.0
    unit = math.ldexp(1.0, math.frexp(size)[1] - 1) if size > 0 else 1.0
    return (points / unit).contiguous(), unit
