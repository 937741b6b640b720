# SPDX-License-Identifier: Apache-2.0
"""Cameras of ``transforms.json``, as NeRF, Blender, instant-ngp and nerfstudio write them."""

import functools
import json
import math
import pathlib
import reprlib
from typing import Any

import torch

from geodiff.scene.lens import Lens
from geodiff.scene.views import WHERE, View, found_image
from geodiff.validation import fail

_MODELS = ("PINHOLE", "SIMPLE_PINHOLE", "SIMPLE_RADIAL", "RADIAL", "OPENCV", "OPENCV_FISHEYE")
_BROWN = ("k1", "k2", "p1", "p2", "k3")
_FISHEYE = ("k1", "k2", "k3", "k4")
_ALL = ("k1", "k2", "k3", "k4", "k5", "k6", "p1", "p2")
# Projections of instant-ngp that are none of the above.
_OTHER = ("is_equirectangular", "equirectangular", "is_latlong", "latlong", "ftheta_p0")
_RIGID = 1e-3


def frame_views(path: pathlib.Path, images: pathlib.Path | None, allow_outside: bool) -> list[View]:
    """Read the frames of a ``transforms.json``; ``images`` in place of its folder."""
    meta = json.loads(path.read_bytes().decode("utf-8-sig"))
    frames = meta.get("frames") if isinstance(meta, dict) else None
    if not isinstance(frames, list) or not frames or not all(isinstance(frame, dict) for frame in frames):
        raise fail(WHERE, "path", "a transforms.json with a list of `frames`", str(path))
    folder = path.parent if images is None else images
    views = []
    for i, frame in enumerate(frames):
        name, source = frame.get("file_path"), f"{path}, frame {i}"
        if not isinstance(name, str):
            raise fail(WHERE, "frames", "given a `file_path` each", f"frame {i} without in {path}")
        mask = frame.get("mask_path")
        views.append(
            View(
                source=source,
                file=name,
                image=found_image(folder, "file_path", name, path, allow_outside),
                mask=None if mask in (None, "") else found_image(folder, "mask_path", mask, path, allow_outside),
                base=folder,
                lens=functools.partial(_lens, {**meta, **frame}, source),
                pose=_pose(frame.get("transform_matrix"), source),
            )
        )
    return views


def _number(lens: dict[str, Any], key: str, source: str) -> float | None:
    value = lens.get(key)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < 1e300:  # nor NaN
        raise fail(WHERE, key, "a finite number", f"{reprlib.repr(value)} in {source}")
    return float(value)


def _lens(lens: dict[str, Any], source: str, size: tuple[int, int]) -> Lens:
    """Return the lens of a frame from its keys, and those of the file, for an image of a size."""
    model = lens.get("camera_model", "OPENCV")
    odd = [key for key in _OTHER if lens.get(key)]
    if not isinstance(model, str) or model not in _MODELS or odd:
        got = f"{odd[0] if odd else reprlib.repr(model)} in {source}"
        raise fail(WHERE, "camera_model", f"one of {', '.join(_MODELS)}", got, "Rectify the images first.")
    fisheye = model == "OPENCV_FISHEYE" or bool(lens.get("is_fisheye"))
    keys = _FISHEYE if fisheye else _BROWN
    given = {key: _number(lens, key, source) or 0.0 for key in _ALL}
    strange = [key for key in _ALL if given[key] and key not in keys]
    if strange:
        got = f"{', '.join(f'{given[key]:g}' for key in strange)} in {source}"
        kind, fix = "of a fisheye" if fisheye else "of a lens that is no fisheye", "Undistort the images first."
        raise fail(WHERE, ", ".join(strange), f"0, where {', '.join(keys)} are the coefficients {kind}", got, fix)
    height, width = size
    for key, side in (("w", width), ("h", height)):
        stated = _number(lens, key, source)
        if stated is not None and stated != side:
            fix = "Were the images resized? Scale fl_x, fl_y, cx, cy, w and h too."
            raise fail(WHERE, key, f"{side}, the size of the images", f"{stated:g} in {source}", fix)
    fx = _focal(lens, ("fl_x", "camera_angle_x", "x_fov"), width, source)
    fy = _focal(lens, ("fl_y", "camera_angle_y", "y_fov"), height, source)
    fx, fy = fy if fx is None else fx, fx if fy is None else fy
    if fx is None or fy is None or fx <= 0 or fy <= 0:
        expected = "a transforms.json with positive `fl_x` (pixels) or `camera_angle_x` (radians, in (0, π))"
        raise fail(WHERE, "path", expected, f"{source} without")
    cx, cy = _number(lens, "cx", source), _number(lens, "cy", source)
    principal = (0.5 * width if cx is None else cx, 0.5 * height if cy is None else cy)
    return Lens(size, (fx, fy), principal, tuple(given[key] for key in keys), fisheye)


def _focal(lens: dict[str, Any], keys: tuple[str, str, str], side: int, source: str) -> float | None:
    """Return a focal length given in pixels, or by a field of view in radians or (instant-ngp) in degrees."""
    pixels, radians, degrees = (_number(lens, key, source) for key in keys)
    if radians is None and degrees is not None:
        radians = math.radians(degrees)
    if pixels is None and radians is not None and 0 < radians < math.pi:
        pixels = 0.5 * side / math.tan(0.5 * radians)
    return pixels


def _pose(value: Any, source: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Return R and t of a camera-to-world matrix, which must be a rotation and a translation."""
    try:
        matrix = torch.tensor(value, dtype=torch.float64)
    except (TypeError, ValueError, OverflowError, RuntimeError) as error:
        raise fail(WHERE, "transform_matrix", "4×4 numbers", f"{reprlib.repr(value)} in {source}") from error
    if matrix.shape == (3, 4):
        matrix = torch.cat((matrix, matrix.new_tensor([[0.0, 0.0, 0.0, 1.0]])))
    if matrix.shape != (4, 4) or not bool(torch.isfinite(matrix).all()):
        raise fail(WHERE, "transform_matrix", "4×4 finite numbers", f"{reprlib.repr(value)} in {source}")
    r = matrix[:3, :3]
    error_size = float((r @ r.mT - torch.eye(3, dtype=torch.float64)).abs().max())
    last_row = matrix[3].tolist()
    if error_size > _RIGID or float(torch.linalg.det(r)) < 0 or last_row != [0.0, 0.0, 0.0, 1.0]:
        got = (
            f"{source}: R Rᵀ off by {error_size:.3g}, determinant {float(torch.linalg.det(r)):.3g}, last row {last_row}"
        )
        fix = "Divide scales out, and mirror left-handed poses together with their images."
        raise fail(WHERE, "transform_matrix", "rigid: a rotation (determinant +1) and a translation", got, fix)
    R = r.mT
    return R, -(R @ matrix[:3, 3:])[..., 0]
