# SPDX-License-Identifier: Apache-2.0
"""Move, turn and scale splines: affine maps of the control points, exact for rational splines too."""

from typing import Any, TypeVar

import torch

from geodiff.modes import outside_autocast
from geodiff.splines.conics import read_numbers
from geodiff.splines.spline import NURBS
from geodiff.validation import fail, floating, looks_at_values

Spline = TypeVar("Spline", bound=NURBS)


def _spline(where: str, spline: Any) -> None:
    if not isinstance(spline, NURBS):
        raise fail(where, "spline", "a NURBS curve, surface or volume", spline, error=TypeError)


def read_like(where: str, spline: NURBS, **values: Any) -> list[torch.Tensor]:
    """Read numbers in the spline's dtype and on its device."""
    return [x.to(spline.control_points) for x in read_numbers(where, spline.dtype, **values).values()]


@outside_autocast
def transform(spline: Spline, matrix: Any = None, offset: Any = None) -> Spline:
    """Map a spline by `x → matrix x + offset`, exactly.

    Args:
        spline: any curve, surface or volume.
        matrix: `(..., D', D)`; another dimension D' lifts or projects. Left out, the identity.
        offset: `(..., D')`. Left out, zero.

    Returns:
        a spline of the same class. A matrix of negative determinant turns normals inward.

    Raises:
        TypeError: not a spline.
        ValueError: a matrix or offset of a wrong shape.

    Example:
        >>> from geodiff.splines.conics import line
        >>> transform(line([0.0, 0.0], [1.0, 0.0]), [[0.0, -1.0], [1.0, 0.0]], [5.0, 0.0])(1.0)
        tensor([5., 1.])
    """
    _spline("transform", spline)
    points = spline.control_points
    room = (..., *(None,) * spline.axes)
    if matrix is not None:
        (matrix,) = read_like("transform", spline, matrix=matrix)
        floating("transform", "matrix", matrix, ("...", "D'", spline.dim), "A row for each new coordinate.")
        points = (matrix[(*room, slice(None), slice(None))] @ points[..., None])[..., 0]
    if offset is not None:
        (offset,) = read_like("transform", spline, offset=offset)
        floating("transform", "offset", offset, ("...", points.shape[-1]), "One number a coordinate.")
        points = points + offset[(*room, slice(None))]
    return spline.replace(control_points=points)


@outside_autocast
def translate(spline: Spline, offset: Any) -> Spline:
    """Move a spline by `offset`, `(..., D)`; see `transform`.

    Example:
        >>> from geodiff.splines.shapes import sphere
        >>> translate(sphere(), [0.0, 5.0, 0.0])(0.0, 1.0)
        tensor([0., 6., 0.])
    """
    return transform(spline, None, offset)


@outside_autocast
def rotate(spline: Spline, angle_deg: Any, axis_direction: Any = None, axis_point: Any = None) -> Spline:
    """Turn a spline by an angle, right-handed round an axis in space, counter-clockwise round a point in the plane.

    Args:
        spline: any curve, surface or volume with D = 2 or 3.
        angle_deg: `(...)`, in degrees.
        axis_direction: `(..., 3)`, of any length but zero; left out in the plane.
        axis_point: a point that stays, `(..., D)`; left out, the origin.

    Raises:
        TypeError: not a spline.
        ValueError: D other than 2 or 3, an axis missing in space or given in the plane, an axis of length zero.

    Example:
        >>> from geodiff.splines.conics import line
        >>> rotate(line([0.0, 0.0], [2.0, 0.0]), 90.0)(1.0).round(decimals=5) + 0.0
        tensor([0., 2.])
    """
    where = "rotate"
    _spline(where, spline)
    dim = spline.dim
    if dim not in (2, 3):
        raise fail(where, "spline", "in the plane or in space", f"D = {dim}", "Use transform with a matrix.")
    if (axis_direction is None) != (dim == 2):
        raise fail(where, "axis_direction", "given in space and left out in the plane", f"D = {dim}")
    (angle,) = read_like(where, spline, angle_deg=angle_deg)
    angle = torch.deg2rad(angle)
    if dim == 2:
        rows = [torch.stack([angle.cos(), -angle.sin()], -1), torch.stack([angle.sin(), angle.cos()], -1)]
        matrix = torch.stack(rows, -2)
    else:
        axis = direction_of(where, "axis_direction", axis_direction, spline)
        matrix = rotation_matrix(axis, angle)
    if axis_point is None:
        return transform(spline, matrix)
    (point,) = read_like(where, spline, axis_point=axis_point)
    floating(where, "axis_point", point, ("...", dim))
    return transform(spline, matrix, point - (matrix @ point[..., None])[..., 0])


def rotation_matrix(axis: torch.Tensor, angle: torch.Tensor) -> torch.Tensor:
    """Return `(..., 3, 3)` that turns by `angle` (radians) round the unit vector `axis`, right-handed (Rodrigues)."""
    axis, angle = torch.broadcast_tensors(axis, angle[..., None])
    c, s = angle[..., :1, None].cos(), angle[..., :1, None].sin()
    eye = torch.eye(3, dtype=axis.dtype, device=axis.device)
    skew = torch.linalg.cross(axis[..., None, :].expand(*axis.shape[:-1], 3, 3), eye.expand(*axis.shape[:-1], 3, 3))
    return c * eye + (1 - c) * (axis[..., :, None] * axis[..., None, :]) + s * skew.mT


def direction_of(where: str, argument: str, value: Any, spline: NURBS) -> torch.Tensor:
    """Read a vector in space and scale it to length one."""
    (vector,) = read_like(where, spline, **{argument: value})
    floating(where, argument, vector, ("...", 3), "A vector in space.")
    length = vector.norm(dim=-1, keepdim=True)
    if looks_at_values(length) and not bool((length > 0).all()):
        raise fail(where, argument, "of a length above zero", str(vector.detach().tolist()))
    return vector / length


@outside_autocast
def scale(spline: Spline, factor: Any, center: Any = None) -> Spline:
    """Scale a spline about a point.

    Args:
        spline: any curve, surface or volume.
        factor: one number for all coordinates, or `(..., D)`. Negative ones mirror.
        center: the point that stays, `(..., D)`; left out, the origin.

    Raises:
        TypeError: not a spline.
        ValueError: factors or a centre of a wrong shape.

    Example:
        >>> from geodiff.splines.shapes import sphere
        >>> scale(sphere(), [1.0, 3.0, 1.0])(0.0, 1.0)
        tensor([0., 3., 0.])
    """
    _spline("scale", spline)
    (factor,) = read_like("scale", spline, factor=factor)
    factor = factor.expand(spline.dim) if factor.dim() == 0 else factor
    floating("scale", "factor", factor, ("...", spline.dim), "One number, or one a coordinate.")
    if center is None:
        return transform(spline, torch.diag_embed(factor))
    (center,) = read_like("scale", spline, center=center)
    floating("scale", "center", center, ("...", spline.dim))
    return transform(spline, torch.diag_embed(factor), center * (1 - factor))
