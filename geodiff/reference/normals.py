# SPDX-License-Identifier: Apache-2.0
"""Normals of vertices."""

from typing import Any

import torch

from geodiff.modes import outside_autocast
from geodiff.validation import fail, floating, looks_at_values, matches


@outside_autocast
def vertex_normals(vertices: torch.Tensor, faces: torch.Tensor) -> torch.Tensor:
    """Return unit vertex normals: the sum of the surrounding faces' normals weighted by their areas, normalised.

    Args:
        vertices: `(..., V, 3)`, float32 or float64.
        faces: `(F, 3)` integers.

    Returns:
        `(..., V, 3)`. A vertex in no face, or whose faces cancel or have no area, has normal 0 with gradient 0.

    Gradients: in `vertices`.

    Raises:
        TypeError, ValueError: wrong dtypes or shapes, NaN, or an index out of range.

    Example:
        >>> square = torch.tensor([[0.0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0]])
        >>> vertex_normals(square, torch.tensor([[0, 1, 2], [0, 2, 3]]))[0]
        tensor([0., 0., 1.])
    """
    check_vertex_normals(vertices, faces)
    if looks_at_values(faces):
        check_corners(vertices, faces)
    faces = faces.long()
    sides, scale = scaled_sides(vertices, faces)
    cross = torch.linalg.cross(sides[..., 0, :], sides[..., 1, :])
    # Relative to the largest face of the mesh, for the same reason as in scaled_sides.
    largest = scale.amax(-1, keepdim=True) if scale.numel() else scale
    weighted = cross * ((scale / largest) ** 2)[..., None]
    total = torch.zeros_like(vertices)
    for corner in range(3):
        total = total.index_add(-2, faces[:, corner], weighted)
    return unit_or_zero(total)


def scaled_sides(vertices: torch.Tensor, faces: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return two sides of each face over their largest coordinate, and that, so that no square under- or overflows."""
    a, b, c = (vertices.index_select(-2, faces[:, k]) for k in range(3))
    sides = torch.stack((b - a, c - a), dim=-2)
    # The scale is a constant to autograd: normals and cotangents do not change with it, and areas are multiplied back.
    scale = sides.detach().abs().amax(dim=(-2, -1)) if sides.numel() else sides.new_zeros(sides.shape[:-2])
    scale = torch.where(scale > 0, scale, 1.0)
    return sides / scale[..., None, None], scale


def unit_or_zero(vector: torch.Tensor) -> torch.Tensor:
    """Return vectors (..., 3) of any length over their lengths, with value and gradient 0 at the zero vector."""
    largest = vector.detach().abs().amax(-1, keepdim=True)
    zero = largest == 0
    scaled = torch.where(zero, 1.0, vector / torch.where(zero, 1.0, largest))
    return torch.where(zero, 0.0, scaled / torch.linalg.vector_norm(scaled, dim=-1, keepdim=True))


def check_vertex_normals(vertices: torch.Tensor, faces: Any) -> None:
    """Check the arguments of `vertex_normals`, but for the numbers in `faces`."""
    floating("vertex_normals", "vertices", vertices, ("...", "V", 3))
    if not isinstance(faces, torch.Tensor) or faces.dtype.is_floating_point or faces.dtype == torch.bool:
        raise fail("vertex_normals", "faces", "an integer tensor of shape (F, 3)", faces, error=TypeError)
    if not matches(faces.shape, ("F", 3)):
        raise fail("vertex_normals", "faces", "of shape (F, 3)", faces, "Triangulate quads first.")


def check_corners(vertices: torch.Tensor, faces: torch.Tensor) -> None:
    """Check the numbers in `faces`."""
    if not faces.numel() or not looks_at_values(faces):
        return
    low, high = (int(end) for end in faces.aminmax())
    if not 0 <= low <= high < vertices.shape[-2]:
        got = f"from {low} to {high}"
        raise fail("vertex_normals", "faces", f"indices in [0, {vertices.shape[-2]})", got, "Indices count from 0.")
