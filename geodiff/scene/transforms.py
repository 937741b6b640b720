# SPDX-License-Identifier: Apache-2.0
"""Meshes moved, scaled, turned and flipped: what the methods of ``Mesh`` of these names do."""

from typing import TYPE_CHECKING, Any

import torch

from geodiff.scene.anchor import anchor
from geodiff.scene.topology import Topology
from geodiff.validation import choice, fail, looks_at_values, matches, promote, shape_text

if TYPE_CHECKING:
    from geodiff.scene.mesh import Mesh


def translated(mesh: "Mesh", offset: Any) -> "Mesh":
    """Add an offset (..., 3)."""
    return mesh.with_vertices(mesh.vertices + _operand(mesh, "translated", "offset", offset, ("...", 3))[..., None, :])


def scaled(mesh: "Mesh", factor: Any) -> "Mesh":
    """Multiply by a number, (..., 1) or (..., 3)."""
    factor = _operand(mesh, "scaled", "factor", factor, ("...",))
    if factor.dim() and factor.shape[-1] not in (1, 3):
        expected = "a number, (..., 1) or (..., 3)"
        raise fail("Mesh.scaled", "factor", expected, factor, "For a batch use factor[:, None].")
    return mesh.with_vertices(mesh.vertices * (factor[..., None, :] if factor.dim() else factor))


def rotated(mesh: "Mesh", rotation: Any) -> "Mesh":
    """Multiply by a matrix (..., 3, 3)."""
    return mesh.with_vertices(mesh.vertices @ _operand(mesh, "rotated", "rotation", rotation, ("...", 3, 3)).mT)


def transformed(mesh: "Mesh", matrix: Any) -> "Mesh":
    """Apply an affine map (..., 4, 4)."""
    matrix = _operand(mesh, "transformed", "matrix", matrix, ("...", 4, 4))
    last = matrix.detach()[..., 3, :]
    if looks_at_values(last) and not torch.equal(last, last.new_tensor([0.0, 0, 0, 1]).expand_as(last)):
        raise fail("Mesh.transformed", "matrix", "affine, its last row (0, 0, 0, 1)", str(last.tolist()))
    return mesh.with_vertices(mesh.vertices @ matrix[..., :3, :3].mT + matrix[..., None, :3, 3])


def normalized(mesh: "Mesh", kind: str) -> "Mesh":
    """Centre the bounding box on the origin, and scale it, or the ball about its middle, to size 1."""
    choice("Mesh.normalized", "kind", kind, ("box", "sphere"))
    near = anchor(mesh.vertices)[..., None, :]
    low, high = (mesh.bounds - near).unbind(-2)
    centred = (mesh.vertices - near) - (0.5 * (low + high))[..., None, :]
    size = (high - low).amax(-1) if kind == "box" else torch.linalg.vector_norm(centred, dim=-1).amax(-1)
    if looks_at_values(size) and not bool((size > 0).all()):
        raise fail("Mesh.normalized", "mesh", "of some extent", "all vertices in one point")
    return mesh.with_vertices(centred / size[..., None, None])


def flipped(mesh: "Mesh") -> "Mesh":
    """Reverse the winding of every face."""
    uv_faces = None if mesh.uv_faces is None or mesh.uv_faces is mesh.faces else mesh.uv_faces.flip(-1)
    return mesh._replace(topology=Topology(mesh.faces.flip(-1), mesh.num_vertices), uv_faces=uv_faces)


def _operand(mesh: "Mesh", method: str, name: str, value: Any, shape: tuple[int | str, ...]) -> torch.Tensor:
    value = promote(f"Mesh.{method}", **{name: value})[name].to(mesh.device)
    if not matches(value.shape, shape):
        raise fail(f"Mesh.{method}", name, f"of shape {shape_text(shape)}", value)
    return value.to(torch.promote_types(value.dtype, mesh.dtype)) if value.dim() else value.to(mesh.dtype)
