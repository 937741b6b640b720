# SPDX-License-Identifier: Apache-2.0
"""Exact quadrics, a torus, a rectangle and a box, as splines.

All sizes and centres may be tensors with gradient, and leading axes of them make a batch. ``dtype`` is that of the
tensors given, and float32 where only numbers are, unless it is said. Solids of revolution stand around the y axis, as
the meshes of `geodiff.scene` do; `geodiff.splines.construct.transform` puts any of them elsewhere.
"""

from collections.abc import Sequence
from typing import Any

import torch

from geodiff.modes import outside_autocast
from geodiff.splines.conics import ellipse_curve, full_ring, given, plane_axes, quarter_knots, read_numbers
from geodiff.splines.nurbs_volume import NURBSVolume
from geodiff.splines.surface import NURBSSurface
from geodiff.validation import fail, floating, looks_at_values, positive

# Surfaces ------------------------------------------------------------------------------------------------------------


def _turned(
    profile: torch.Tensor, weights: torch.Tensor | None, knots: torch.Tensor, degree: int, center: torch.Tensor
) -> NURBSSurface:
    """Turn a profile of radii and heights `(..., K, 2)` round the y axis: u from +z by +x, v along the profile."""
    ring, ring_weights, ring_knots = full_ring(profile)
    radius, height = profile[..., None, :, 0], profile[..., None, :, 1]  # (..., 1, K)
    sine, cosine = ring[:, 1, None], ring[:, 0, None]  # (9, 1)
    net = torch.stack(torch.broadcast_tensors(radius * sine, height + 0 * sine, radius * cosine), -1)
    both = ring_weights[:, None] * (torch.ones_like(profile[..., 0]) if weights is None else weights)[..., None, :]
    return NURBSSurface(center[..., None, None, :] + net, ring_knots, knots, both, degree=(2, degree))


def _center(where: str, center: torch.Tensor) -> torch.Tensor:
    return floating(where, "center", center, ("...", 3), "A point in space.")


@outside_autocast
def sphere(radius: Any = 1.0, center: Any = (0.0, 0.0, 0.0), dtype: torch.dtype | None = None) -> NURBSSurface:
    """Make a sphere of 9 × 5 points, degree (2, 2), over [0, 1]².

    u goes round the y axis from +z by +x, v from the south pole (−y) to the north; normals point outward.

    Args:
        radius: > 0, `(...)`.
        center: `(..., 3)`.
        dtype: float32 or float64; see the module.

    Raises:
        ValueError: a radius that is not positive.

    Example:
        >>> sphere(2.0)(0.0, 0.5)
        tensor([0., 0., 2.])
    """
    t = read_numbers("sphere", dtype, radius=radius, center=center)
    positive("sphere", "radius", t["radius"])
    center = _center("sphere", t["center"])
    corners = torch.tensor([[0, -1], [1, -1], [1, 0], [1, 1], [0, 1]], dtype=center.dtype, device=center.device)
    weights = full_ring(center)[1][:5]
    return _turned(t["radius"][..., None, None] * corners, weights, quarter_knots(2, center), 2, center)


@outside_autocast
def torus(
    major: Any = 1.0, minor: Any = 0.4, center: Any = (0.0, 0.0, 0.0), dtype: torch.dtype | None = None
) -> NURBSSurface:
    """Make a torus of 9 × 9 points, degree (2, 2), over [0, 1]².

    u goes round the y axis from +z by +x; v goes round the tube from its outer equator by the top. Normals point
    outward.

    Args:
        major: from the axis to the middle of the tube, `(...)`.
        minor: radius of the tube, 0 < minor < major.
        center: `(..., 3)`.
        dtype: float32 or float64; see the module.

    Raises:
        ValueError: radii that are not 0 < minor < major.

    Example:
        >>> torus(2.0, 0.5)(0.0, 0.0)
        tensor([0.0000, 0.0000, 2.5000])
    """
    t = read_numbers("torus", dtype, major=major, minor=minor, center=center)
    positive("torus", "major", t["major"])
    positive("torus", "minor", t["minor"])
    if looks_at_values(t["minor"]) and not bool((t["minor"] < t["major"]).all()):
        got = f"minor {t['minor'].detach()}, major {t['major'].detach()}"
        raise fail("torus", "minor", "less than major", got, "The tube would meet itself.")
    center = _center("torus", t["center"])
    ring, weights, knots = full_ring(center)
    middle = torch.stack([t["major"], torch.zeros_like(t["major"])], -1)
    return _turned(middle[..., None, :] + t["minor"][..., None, None] * ring, weights, knots, 2, center)


@outside_autocast
def cylinder(
    radius: Any = 1.0,
    height: Any = 2.0,
    center: Any = (0.0, 0.0, 0.0),
    caps: bool = True,
    dtype: torch.dtype | None = None,
) -> NURBSSurface:
    """Make a cylinder round the y axis, degree (2, 1), over [0, 1]².

    u goes round the axis from +z by +x, v upward: with caps from the middle of the bottom over its rim and the top's
    to the middle of the top, a third each. Normals point outward.

    Args:
        radius: > 0, `(...)`.
        height: along y, > 0, `(...)`.
        center: halfway up, `(..., 3)`.
        caps: close both ends (sharp edges at v = 1/3 and 2/3).
        dtype: float32 or float64; see the module.

    Raises:
        ValueError: sizes that are not positive.

    Example:
        >>> cylinder(1.0, 2.0, caps=False)(0.0, 1.0)
        tensor([0., 1., 1.])
    """
    t = read_numbers("cylinder", dtype, radius=radius, height=height, center=center)
    positive("cylinder", "radius", t["radius"])
    return _frustum("cylinder", t["radius"], t["radius"], t["height"], t["center"], caps, caps)


@outside_autocast
def cone(
    radius: Any = 1.0,
    height: Any = 2.0,
    top_radius: Any = 0.0,
    center: Any = (0.0, 0.0, 0.0),
    caps: bool = True,
    dtype: torch.dtype | None = None,
) -> NURBSSurface:
    """Make a cone round the y axis, or a frustum where it has a top, degree (2, 1), over [0, 1]².

    Parameters and normals are those of `cylinder`; a cone with a point has no cap there, and with its bottom closed
    the edge is at v = 1/2.

    Args:
        radius: of the bottom, > 0, `(...)`.
        height: along y, > 0, `(...)`.
        top_radius: >= 0, `(...)`; 0 for all of a batch or for none.
        center: halfway up, `(..., 3)`.
        caps: close the bottom, and the top where it has one.
        dtype: float32 or float64; see the module.

    Raises:
        ValueError: sizes that are not positive, a negative top radius.

    Example:
        >>> cone(1.0, 2.0)(0.3, 1.0).round(decimals=6)
        tensor([0., 1., 0.])
    """
    t = read_numbers("cone", dtype, radius=radius, height=height, top_radius=top_radius, center=center)
    positive("cone", "radius", t["radius"])
    top = t["top_radius"]
    if bool((top < 0).any()) or (bool((top == 0).any()) and bool((top > 0).any())):
        fix = "Make cones with a point and frusta apart."
        raise fail("cone", "top_radius", "0 or more, and 0 for all of a batch or none", str(top.detach()), fix)
    return _frustum("cone", t["radius"], top, t["height"], t["center"], caps, caps and bool((top > 0).all()))


def _frustum(
    where: str,
    low: torch.Tensor,
    high: torch.Tensor,
    height: torch.Tensor,
    center: torch.Tensor,
    bottom: bool,
    top: bool,
) -> NURBSSurface:
    positive(where, "height", height)
    half = height / 2
    low, high, half = torch.broadcast_tensors(low, high, half)
    zero = torch.zeros_like(half)
    corners = [(low, -half), (high, half)]
    corners = ([(zero, -half)] if bottom else []) + corners + ([(zero, half)] if top else [])
    profile = torch.stack([torch.stack(corner, -1) for corner in corners], -2)
    steps = torch.arange(len(corners), dtype=profile.dtype, device=profile.device) / (len(corners) - 1)
    knots = torch.cat([steps[:1], steps, steps[-1:]])
    return _turned(profile, None, knots, 1, _center(where, center))


@outside_autocast
def disk(
    radius: Any = 1.0, center: Any = (0.0, 0.0, 0.0), axes: Any = None, dtype: torch.dtype | None = None
) -> NURBSSurface:
    """Make a disk, degree (1, 2), over [0, 1]²: u from the centre to the rim, v round it from the first axis.

    The normal is `a × b`: +z unless axes are given.

    Args:
        radius: > 0, `(...)`.
        center: `(..., D)`.
        axes: the orthonormal a and b, `(..., 2, D)`; left out, the first two coordinate axes.
        dtype: float32 or float64; see the module.

    Raises:
        ValueError: a radius that is not positive, axes that are not orthonormal.

    Example:
        >>> disk(2.0)(0.5, 0.0)
        tensor([1., 0., 0.])
    """
    rim = ellipse_curve("disk", ("radius", "radius"), (radius, radius), None, center, axes, dtype)
    points, weights = rim.control_points, rim.weights
    middle = read_numbers("disk", points.dtype, center=center)["center"][..., None, :].expand_as(points)
    net = torch.stack([middle, points], -3)
    assert weights is not None
    return NURBSSurface(net, None, rim.knots[0], torch.stack([weights, weights], -2), degree=(1, 2))


@outside_autocast
def plane(
    size: Any = 1.0, center: Any = (0.0, 0.0, 0.0), axes: Any = None, dtype: torch.dtype | None = None
) -> NURBSSurface:
    """Make a rectangle, degree (1, 1), over [0, 1]²: u along the first axis, v along the second.

    The normal is `a × b`: +z unless axes are given.

    Args:
        size: side length, or the two `(..., 2)`.
        center: `(..., D)`.
        axes: the orthonormal a and b, `(..., 2, D)`; left out, the first two coordinate axes.
        dtype: float32 or float64; see the module.

    Raises:
        ValueError: sizes that are not positive or not one or two, axes that are not orthonormal.

    Example:
        >>> plane((2.0, 4.0))(1.0, 1.0)
        tensor([1., 2., 0.])
    """
    t = read_numbers("plane", dtype, size=size, center=center, **given(axes=axes))
    frame = plane_axes("plane", t["center"], t.get("axes"))
    net = _corners("plane", t["size"], 2) @ frame[..., None, :, :]
    return NURBSSurface(t["center"][..., None, None, :] + net, degree=(1, 1))


def _corners(where: str, size: torch.Tensor, dim: int) -> torch.Tensor:
    """Return the corners ±size / 2 as a net `(..., 2, …, 2, dim)`."""
    positive(where, "size", size)
    if size.dim() and size.shape[-1] != dim:
        raise fail(where, "size", f"one number or {dim}", f"{size.shape[-1]} numbers")
    ends = torch.tensor([-0.5, 0.5], dtype=size.dtype, device=size.device)
    unit = torch.stack(torch.meshgrid(*[ends] * dim, indexing="ij"), -1)
    return unit * (size.reshape(*size.shape[:-1], *[1] * dim, dim) if size.dim() else size)


# Volumes -------------------------------------------------------------------------------------------------------------


@outside_autocast
def box(
    size: float | Sequence[float] | torch.Tensor = 1.0,
    center: Any = (0.0, 0.0, 0.0),
    dtype: torch.dtype | None = None,
) -> NURBSVolume:
    """Make a solid box, degree (1, 1, 1), over [0, 1]³, with u, v, w along x, y, z.

    Args:
        size: side length, or the three `(..., 3)`.
        center: `(..., 3)`.
        dtype: float32 or float64; see the module.

    Raises:
        ValueError: sizes that are not positive, or not one or three.

    Example:
        >>> box((2.0, 4.0, 6.0))(1.0, 1.0, 0.5)
        tensor([1., 2., 0.])
    """
    t = read_numbers("box", dtype, size=size, center=center)
    center = _center("box", t["center"])
    return NURBSVolume(center[..., None, None, None, :] + _corners("box", t["size"], 3), degree=(1, 1, 1))
