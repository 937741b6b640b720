# SPDX-License-Identifier: Apache-2.0
"""The geometry of placing a camera, and the checks that cameras share."""

import numbers
from collections.abc import Sequence
from typing import Any

import torch

from geodiff.validation import common_batch, describe, fail, looks_at_values, matches

# How far a rotation may be from orthonormal: files hold few digits, and optimisers stray a little between projections.
RIGID = 1e-3
MOST = 2**16  # pixels a side: beyond it, indices of pixels would not fit in 32 bits


def vector(where: str, name: str, value: torch.Tensor) -> torch.Tensor:
    """Require shape (..., 3)."""
    if not matches(value.shape, ("...", 3)):
        raise fail(where, name, "of shape (..., 3)", value)
    return value


def line_of_sight(where: str, eye: torch.Tensor, at: torch.Tensor) -> torch.Tensor:
    """Return eye − at (..., 3), the direction backwards, which must not be zero."""
    backward = vector(where, "eye", eye) - vector(where, "at", at)
    length = torch.linalg.vector_norm(backward.detach(), dim=-1)
    reach = torch.linalg.vector_norm(eye.detach(), dim=-1)
    if looks_at_values(length) and bool((length <= 8 * torch.finfo(length.dtype).eps * reach).any()):
        raise fail(where, "eye", "elsewhere than `at`", "the same point", "Move one of them.")
    return backward


def pose(where: str, eye: torch.Tensor, backward: torch.Tensor, up: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return R and t of a camera at ``eye`` (..., 3) with its z axis along ``backward`` and ``up`` up in the image.

    The rows of R are the camera's axes in the world: z along ``backward``, x = up × z normalised, y = z × x;
    t = −R eye.

    Raises:
        ValueError: ``up`` is zero or along ``backward``, to within rounding.
    """
    z = backward / torch.linalg.vector_norm(backward, dim=-1, keepdim=True)
    right = torch.linalg.cross(*torch.broadcast_tensors(vector(where, "up", up), z))
    length = torch.linalg.vector_norm(right, dim=-1, keepdim=True)
    size = torch.linalg.vector_norm(up.detach(), dim=-1, keepdim=True)
    if looks_at_values(z) and bool((length.detach() <= 8 * torch.finfo(z.dtype).eps * size).any()):
        fix = "Choose a direction that is not the viewing direction."
        raise fail(where, "up", "other than zero or along the line of sight", str(up.detach().tolist()), fix)
    x = right / length
    y = torch.linalg.cross(z, x)
    rotation = torch.stack(torch.broadcast_tensors(x, y, z), dim=-2)
    return rotation, -(rotation @ eye[..., None])[..., 0]


def check_batches(where: str, values: dict[str, torch.Tensor]) -> None:
    """Require batch shapes that broadcast, of numbers (...) and of the vectors (..., 3) `eye`, `at` and `up`."""
    batches = {name: v.shape[:-1] if name in ("eye", "at", "up") else v.shape for name, v in values.items()}
    try:
        common_batch(*batches.values())
    except RuntimeError:
        several = {name: tuple(batch) for name, batch in batches.items() if batch}
        text = ", ".join(f"{name} {batch}" for name, batch in several.items())
        fix = "For all pairs give one of them an axis more, such as value[:, None]."
        raise fail(where, ", ".join(several), "of batch shapes that broadcast", text, fix) from None


def check_rotation(where: str, name: str, rotation: torch.Tensor) -> None:
    """Require R Rᵀ = 1 and det R = +1 to within ``RIGID``, where values are looked at."""
    r = rotation.detach()
    if not looks_at_values(r) or r.numel() == 0:
        return
    error = float((r @ r.mT - torch.eye(3, dtype=r.dtype, device=r.device)).abs().max())
    if error > RIGID:
        raise fail(where, name, "a rotation, R Rᵀ = 1", f"R Rᵀ off by {error:.3g}", "Divide a scale out of it first.")
    if bool((torch.linalg.det(r) < 0).any()):
        fix = "The data is left-handed: mirror the images and the poses."
        raise fail(where, name, "a rotation of determinant +1", "a reflection", fix)


def pixel_size(where: str, image_size: Any, argument: str = "image_size") -> tuple[int, int]:
    """Return (H, W) of a number or a pair; NumPy's integers count."""
    sides = tuple(image_size) if isinstance(image_size, Sequence) else (image_size, image_size)
    whole = all(isinstance(s, numbers.Integral) and not isinstance(s, bool) and 0 < int(s) <= MOST for s in sides)
    if len(sides) != 2 or not whole:
        expected = f"a positive integer, or two as (H, W), up to {MOST}"
        raise fail(where, argument, expected, describe(image_size), "Give rows, then columns.")
    return int(sides[0]), int(sides[1])


def rotation_from_vector(vector: torch.Tensor) -> torch.Tensor:
    """Return the rotation matrices (..., 3, 3) of rotation vectors (..., 3): axes times angles in radians (Rodrigues).

    `R = I + (sin θ / θ) K + ((1 − cos θ) / θ²) K²`, θ its length and K the matrix of the cross product with it.

    Gradients: in the vector, to any order; at zero, too.
    """
    square = (vector * vector).sum(-1)[..., None, None]
    small = square < 1e-4  # series: the next terms are below 1e-17
    angle = torch.where(small, 1.0, square).sqrt()
    first = torch.where(small, 1 - square / 6 * (1 - square / 20 * (1 - square / 42)), angle.sin() / angle)
    half = torch.where(small, 1.0, angle) / 2
    second = torch.where(
        small, 0.5 - square / 24 * (1 - square / 30 * (1 - square / 56)), 0.5 * (half.sin() / half).square()
    )
    x, y, z = vector.unbind(-1)
    zero = torch.zeros_like(x)
    cross = torch.stack((zero, -z, y, z, zero, -x, -y, x, zero), dim=-1).reshape(*vector.shape[:-1], 3, 3)
    identity = torch.eye(3, dtype=vector.dtype, device=vector.device)
    return identity + first * cross + second * (cross @ cross)
