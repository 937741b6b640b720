# SPDX-License-Identifier: Apache-2.0
"""Vertices moved, scaled and turned: what the methods of ``Mesh`` of these names do."""

from typing import Any

import torch

from geodiff.scene.anchor import anchor
from geodiff.validation import choice, fail, looks_at_values, matches, promote, shape_text


def translated(vertices: torch.Tensor, offset: Any) -> torch.Tensor:
    """Add an offset (..., 3)."""
    return vertices + _operand(vertices, "translated", "offset", offset, ("...", 3))[..., None, :]


def scaled(vertices: torch.Tensor, factor: Any) -> torch.Tensor:
    """Multiply by a number, (..., 1) or (..., 3)."""
    factor = _operand(vertices, "scaled", "factor", factor, ("...",))
    if factor.dim() and factor.shape[-1] not in (1, 3):
        expected = "a number, (..., 1) or (..., 3)"
        raise fail("Mesh.scaled", "factor", expected, factor, "For a batch use factor[:, None].")
    return vertices * (factor[..., None, :] if factor.dim() else factor)


def rotated(vertices: torch.Tensor, rotation: Any) -> torch.Tensor:
    """Multiply by a matrix (..., 3, 3)."""
    return vertices @ _operand(vertices, "rotated", "rotation", rotation, ("...", 3, 3)).mT


def transformed(vertices: torch.Tensor, matrix: Any) -> torch.Tensor:
    """Apply an affine map (..., 4, 4)."""
    matrix = _operand(vertices, "transformed", "matrix", matrix, ("...", 4, 4))
    last = matrix.detach()[..., 3, :]
    if looks_at_values(last) and not torch.equal(last, last.new_tensor([0.0, 0, 0, 1]).expand_as(last)):
        raise fail("Mesh.transformed", "matrix", "affine, its last row (0, 0, 0, 1)", str(last.tolist()))
    return vertices @ matrix[..., :3, :3].mT + matrix[..., None, :3, 3]


def normalized(vertices: torch.Tensor, kind: str) -> torch.Tensor:
    """Centre the bounding box on the origin, and scale it, or the ball about its middle, to size 1."""
    choice("Mesh.normalized", "kind", kind, ("box", "sphere"))
    near = anchor(vertices)[..., None, :]
    low, high = (bounds(vertices) - near).unbind(-2)
    centred = (vertices - near) - (0.5 * (low + high))[..., None, :]
    size = (high - low).amax(-1) if kind == "box" else torch.linalg.vector_norm(centred, dim=-1).amax(-1)
    if looks_at_values(size) and not bool((size > 0).all()):
        raise fail("Mesh.normalized", "mesh", "of some extent", "all vertices in one point")
    return centred / size[..., None, None]


def bounds(vertices: torch.Tensor) -> torch.Tensor:
    """Return the least and greatest coordinates (..., 2, 3)."""
    if vertices.shape[-2] == 0:
        raise fail("Mesh.bounds", "mesh", "of at least one vertex", "none")
    return torch.stack((vertices.amin(-2), vertices.amax(-2)), dim=-2)


def _operand(vertices: torch.Tensor, method: str, name: str, value: Any, shape: tuple[int | str, ...]) -> torch.Tensor:
    value = promote(f"Mesh.{method}", **{name: value})[name].to(vertices.device)
    if not matches(value.shape, shape):
        raise fail(f"Mesh.{method}", name, f"of shape {shape_text(shape)}", value)
    return value.to(torch.promote_types(value.dtype, vertices.dtype)) if value.dim() else value.to(vertices.dtype)
