# SPDX-License-Identifier: Apache-2.0
"""Finer meshes of the same shape."""

from typing import TYPE_CHECKING

import torch

from geodiff.scene.topology import Topology
from geodiff.validation import fail

if TYPE_CHECKING:
    from geodiff.scene.mesh import Mesh


def subdivided(mesh: "Mesh", times: int = 1) -> "Mesh":
    """Return the mesh with each triangle cut into four at the middles of its sides, ``times`` times.

    The surface stays the same. Old vertices keep their numbers, and face f becomes faces 4f to 4f + 3: those at its
    corners 0, 1 and 2, and the one in the middle. Vertex colours and texture coordinates of the new vertices are the
    means of the two ends, face colours are handed down, seams of the texture stay where they are, and texture and
    material are the same. The result of T faces has 4ᵗ·T of them.

    Args:
        mesh: one, or a batch.
        times: how often, ≥ 0.

    Gradients: to the vertices and attributes.

    Raises:
        ValueError: a count that is none, or more than 2³¹ faces.

    Example:
        >>> import geodiff as gd
        >>> gd.box().subdivided(2)
        Mesh(vertices=(98, 3), faces=(192, 3), float32, cpu)
    """
    where = "Mesh.subdivided"
    if not isinstance(times, int) or isinstance(times, bool) or times < 0:
        raise fail(where, "times", "an integer ≥ 0", times)
    if mesh.num_faces * 4.0**times >= 2**31:
        raise fail(where, "times", "small enough for fewer than 2³¹ faces", f"{mesh.num_faces}·4^{times} faces")
    for _ in range(times):
        mesh = _once(mesh)
    return mesh


def _once(mesh: "Mesh") -> "Mesh":
    ends, faces = _halved(mesh.faces, mesh.num_vertices)
    topology = Topology(faces, mesh.num_vertices + len(ends))
    uv, uv_faces = mesh.uv, None
    if uv is not None:
        if mesh.uv_faces is mesh.faces:
            uv, uv_faces = _with_middles(uv, ends), topology.faces
        else:
            assert mesh.uv_faces is not None
            uv_ends, uv_faces = _halved(mesh.uv_faces, uv.shape[-2])
            uv = _with_middles(uv, uv_ends)
    colors = mesh.vertex_colors
    return mesh._replace(
        vertices=_with_middles(mesh.vertices, ends),
        topology=topology,
        vertex_colors=None if colors is None else _with_middles(colors, ends),
        face_colors=None if mesh.face_colors is None else mesh.face_colors.repeat_interleave(4, dim=-2),
        uv=uv,
        uv_faces=uv_faces,
    )


def _halved(faces: torch.Tensor, count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the ends (E, 2) of the edges, in whose middles the vertices from ``count`` on lie, and the faces (4F, 3).

    Unlike a topology's, these edges are those of degenerate faces, too.
    """
    sides = faces[:, [0, 1, 1, 2, 2, 0]].reshape(-1, 2)
    width = max(count, 1)
    key, row = torch.unique(sides.amin(-1) * width + sides.amax(-1), return_inverse=True)
    a, b, c = faces.unbind(-1)
    ab, bc, ca = (row.reshape(-1, 3) + count).unbind(-1)
    parts = ((a, ab, ca), (ab, b, bc), (ca, bc, c), (ab, bc, ca))
    cut = torch.stack([torch.stack(part, dim=-1) for part in parts], dim=1).reshape(-1, 3)
    return torch.stack((key // width, key % width), dim=-1), cut


def _with_middles(values: torch.Tensor, ends: torch.Tensor) -> torch.Tensor:
    """Return values (..., V, C) and behind them the means at the ends of the edges."""
    # Halved first: the sum of two large coordinates could overflow.
    return torch.cat((values, 0.5 * values[..., ends[:, 0], :] + 0.5 * values[..., ends[:, 1], :]), dim=-2)
