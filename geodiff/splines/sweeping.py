# SPDX-License-Identifier: Apache-2.0
"""Sweep a profile along a path."""

from typing import Any

import torch

from geodiff.modes import outside_autocast
from geodiff.splines.construct import loft
from geodiff.splines.curve import NURBSCurve
from geodiff.splines.place import direction_of, rotation_matrix, transform
from geodiff.splines.refine import clamped
from geodiff.splines.surface import NURBSSurface
from geodiff.validation import choice, fail, looks_at_values


def _unit(vectors: torch.Tensor) -> torch.Tensor:
    return vectors / vectors.norm(dim=-1, keepdim=True)


def _dot(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    return (a * b).sum(-1, keepdim=True)


def _read(where: str, argument: str, curve: Any) -> NURBSCurve:
    if not isinstance(curve, NURBSCurve):
        raise fail(where, argument, "a NURBSCurve", curve, error=TypeError)
    return curve


def rotation_minimising_frames(
    path: NURBSCurve, parameters: torch.Tensor, normal: Any = None, close: bool = False
) -> torch.Tensor:
    """Return frames along a path in space that turn no more than they must.

    By double reflection (Wang, Jüttler, Zheng and Liu, "Computation of rotation minimizing frames", ACM Trans. Graph.
    27, 2008): the error of the angle is O(h⁴) in the step h.

    Args:
        path: in space, smooth, not standing still.
        parameters: increasing, `(..., N)`; the frames are carried from each to the next.
        normal: a vector across the start of the path, `(..., 3)`: the first frame's normal is its part across. Left
            out, the coordinate axis most across is used.
        close: turn the frames, in proportion to the length run, so that the last one is the first: for closed paths.

    Returns:
        `(..., N, 3, 3)`: rows are the unit normal, binormal = tangent × normal, and tangent.

    Gradients: in the path, the parameters and the normal.

    Raises:
        TypeError: not a curve.
        ValueError: a path not in space, that stands still, or with a normal along its start.

    Example:
        >>> from geodiff.splines.conics import line
        >>> rotation_minimising_frames(line([0.0, 0.0, 0.0], [0.0, 0.0, 1.0]), torch.tensor([0.0, 1.0]))[1]
        tensor([[1., 0., 0.],
                [0., 1., 0.],
                [0., 0., 1.]])
    """
    where = "rotation_minimising_frames"
    if _read(where, "path", path).dim != 3:
        raise fail(where, "path", "in space, D = 3", f"D = {path.dim}", "transform lifts it.")
    jet = path.derivatives(parameters, order=1)
    points, speed = jet[(0,)], jet[(1,)]
    chords = points.diff(dim=-2)
    if looks_at_values(points) and not (bool((speed.norm(dim=-1) > 0).all()) and bool((chords.norm(dim=-1) > 0).all())):
        raise fail(where, "path", "moving everywhere", "standing still somewhere", "Join equal control points.")
    tangents = _unit(speed)
    first = tangents[..., 0, :]
    if normal is None:
        axis = first.detach().abs().argmin(-1, keepdim=True)
        start = torch.zeros_like(first).scatter(-1, axis, 1.0)
    else:
        start = direction_of(where, "normal", normal, path)
    start = start - _dot(start, first) * first
    if looks_at_values(start) and not bool((start.norm(dim=-1) > 1e-4).all()):
        raise fail(where, "normal", "across the path's start", "one along its tangent", "Choose another direction.")
    r = _unit(start)
    normals = [r]
    for i in range(points.shape[-2] - 1):
        chord, t, following = chords[..., i, :], tangents[..., i, :], tangents[..., i + 1, :]
        across = 2 / _dot(chord, chord)
        left_r, left_t = r - across * _dot(chord, r) * chord, t - across * _dot(chord, t) * chord
        second = following - left_t
        r = _unit(left_r - 2 / _dot(second, second) * _dot(second, left_r) * second)
        normals.append(r)
    n = torch.stack(normals, -2)
    if close:
        back = n[..., -1:, :], n[..., :1, :], tangents[..., :1, :]
        angle = torch.atan2(_dot(torch.linalg.cross(back[0], back[1]), back[2]), _dot(back[0], back[1]))
        run = chords.norm(dim=-1).cumsum(-1)
        share = torch.nn.functional.pad(run / run[..., -1:], (1, 0))
        n = (rotation_matrix(tangents, share * angle[..., 0]) @ n[..., None])[..., 0]
    return torch.stack([n, torch.linalg.cross(tangents, n), tangents], -2)


@outside_autocast
def sweep(
    profile: NURBSCurve,
    path: NURBSCurve,
    frame: str = "minimising",
    sections: int = 33,
    normal: Any = None,
    close: bool = False,
) -> NURBSSurface:
    """Move a profile along a path.

    With ``frame="fixed"`` it only shifts, which is exact: `S(u, v) = profile(u) + path(v) − path(start)`.

    With ``frame="minimising"`` it turns with the path by rotation-minimising frames, which no spline does exactly: the
    profile is placed at ``sections`` parameters, spread evenly over the path's domain, and skinned cubically by `loft`.
    It is exact at the sections; in between the error falls with the fourth power of their number on a smooth path:
    double them and compare. Corners of the path are rounded off.

    Args:
        profile: in space, to be swept from where it stands at the path's start. Or, for ``"minimising"``, in the
            plane: its x is put along the first normal, its y along the binormal, its origin on the path.
        path: of the same dimension as the profile, or in space.
        frame: ``"minimising"`` or ``"fixed"``.
        sections: how many, >= 2.
        normal: first normal; see `rotation_minimising_frames`.
        close: for a closed path, make the last section the first (its seam is not smooth in general).

    Returns:
        a surface with the profile's parameter u and the path's v. Its normal points outward for a profile that runs
        counter-clockwise as seen against the path's direction.

    Gradients: in profile, path and normal.

    Raises:
        TypeError: not curves.
        ValueError: wrong dimensions, a path that stands still, fewer than two sections, an unknown frame.

    Example:
        >>> from geodiff.splines.conics import arc, circle
        >>> bend = arc(4.0, center=(0.0, 0.0, 0.0))
        >>> sweep(circle(1.0), bend, sections=9)
        NURBSSurface((9, 9) points in 3-D, degree (2, 3), rational)
    """
    where = "sweep"
    choice(where, "frame", frame, ("minimising", "fixed"))
    _read(where, "profile", profile)
    _read(where, "path", path)
    if frame == "fixed":
        return _shifted(profile, path)
    if path.dim != 3:
        raise fail(where, "path", "in space, D = 3", f"D = {path.dim}", "transform lifts it.")
    if profile.dim not in (2, 3):
        raise fail(where, "profile", "in the plane or in space", f"D = {profile.dim}")
    if isinstance(sections, bool) or not isinstance(sections, int) or sections < 2:
        raise fail(where, "sections", "an integer of 2 or more", repr(sections))
    wide = torch.promote_types(profile.dtype, path.dtype)
    profile, path = profile.to(dtype=wide), path.to(dtype=wide)
    low, high = (end[..., None] for end in path.domain[0])
    share = torch.linspace(0, 1, sections, dtype=torch.float64, device=path.device).to(wide)
    at = torch.where(share < 1, low + share * (high - low), high)
    frames = rotation_minimising_frames(path, at, normal, close).mT  # columns: where x, y and z go
    points = path(at)
    if profile.dim == 3:
        turns, offsets = frames @ frames[..., :1, :, :].mT, points
        profile = transform(profile, offset=-points[..., 0, :])
    else:
        turns, offsets = frames[..., :2], points
    placed = [transform(profile, turns[..., i, :, :], offsets[..., i, :]) for i in range(sections)]
    return loft(placed, 3, at)


def _shifted(profile: NURBSCurve, path: NURBSCurve) -> NURBSSurface:
    where = "sweep"
    if profile.dim != path.dim:
        fix = "transform lifts a plane curve into space."
        raise fail(where, "profile", f"of the path's dimension, D = {path.dim}", f"D = {profile.dim}", fix)
    wide = torch.promote_types(profile.dtype, path.dtype)
    profile, path = profile.to(dtype=wide), clamped(path.to(dtype=wide))
    shift = path.control_points - path.control_points[..., :1, :]
    net = profile.control_points[..., :, None, :] + shift[..., None, :, :]
    weights = None
    if profile.is_rational or path.is_rational:
        a, b = (torch.ones_like(c.control_points[..., 0]) if c.weights is None else c.weights for c in (profile, path))
        weights = a[..., :, None] * b[..., None, :]
    degree, periodic = (profile.degree, path.degree), (profile.periodic[0], False)
    return NURBSSurface(net, profile.knots[0], path.knots[0], weights, degree, periodic=periodic)
