# SPDX-License-Identifier: Apache-2.0
"""Calibrations of OpenCV with the poses of their images, as its FileStorage writes them: YAML, XML and JSON."""

import functools
import json
import os
import pathlib
from typing import Any

import numpy as np
import torch

from geodiff.scene.lens import Lens
from geodiff.scene.pose import rotation_from_vector
from geodiff.scene.storage import xml_storage, yaml_storage
from geodiff.scene.views import IMAGE_ENDINGS, WHERE, View, found_image
from geodiff.validation import fail

# How programs call the same things; in small letters, without underscores.
_NAMES = {
    "matrix": ("cameramatrix", "intrinsicmatrix", "k", "mtx"),
    "coefficients": ("distortioncoefficients", "distcoeffs", "distcoeff", "distcoefs", "distortion", "dist", "d"),
    "poses": ("extrinsicparameters",),
    "rotations": ("rvecs", "rotationvectors", "rvec"),
    "translations": ("tvecs", "translationvectors", "tvec"),
    "names": ("images", "imagenames", "imagelist", "imagefiles", "filenames"),
    "width": ("imagewidth",),
    "height": ("imageheight",),
    "kind": ("distortionmodel", "cameramodel", "fisheyemodel", "fisheye", "isfisheye"),
}
_FISHEYE = ("equidistant", "fisheye", "opencvfisheye", "kannalabrandt", "kannalabrandt4")
_BROWN = (0, 4, 5, 8, 12, 14)  # how many coefficients OpenCV writes


def calibration_views(path: pathlib.Path, images: pathlib.Path | None, allow_outside: bool) -> list[View]:
    """Read the views of a calibration: one lens, and of each image a rotation vector and a translation."""
    text = path.read_bytes().decode("utf-8-sig")
    ending = path.suffix.lower()
    content = json.loads(text) if ending == ".json" else xml_storage(text) if ending == ".xml" else yaml_storage(text)
    if not isinstance(content, dict):
        raise fail(WHERE, "path", "an OpenCV calibration with a `camera_matrix`", str(path))
    known = {str(key).lower().replace("_", "").replace("-", ""): (str(key), value) for key, value in content.items()}
    found = {role: next((known[name] for name in names if name in known), None) for role, names in _NAMES.items()}
    lens = functools.partial(_lens, found, path)
    lens((1, 1))  # so that what is wrong is said before what is not there
    poses = _poses(found, path)
    names, folder = _names(found["names"], path, images, len(poses))
    views = []
    for i, (name, pose) in enumerate(zip(names, poses, strict=True)):
        source = f"{path}, view {i} ({name[:100]})"
        rotation = rotation_from_vector(torch.from_numpy(pose[:3].copy()))
        flip = rotation.new_tensor([1.0, -1.0, -1.0])  # from y down and z forward
        at = flip[:, None] * rotation, flip * torch.from_numpy(pose[3:].copy())
        picture = found_image(folder, "images", name, path, allow_outside)
        views.append(View(source, name, picture, None, folder.parent, functools.partial(_sized, lens, source), at))
    return views


_Found = dict[str, tuple[str, Any] | None]


def _array(entry: tuple[str, Any] | None, path: pathlib.Path, default: str) -> np.ndarray:
    """Return the numbers of a matrix: FileStorage's rows, cols and data, or lists."""
    if entry is None:
        raise fail(WHERE, "path", f"an OpenCV calibration with `{default}`", f"{path} without")
    key, value = entry
    where = f"{path}, {key}"
    try:
        if isinstance(value, dict):
            array = np.array(value["data"], dtype=np.float64).reshape(int(value["rows"]), int(value["cols"]), -1)
            array = array[..., 0] if array.shape[-1] == 1 else array.reshape(array.shape[0], -1)
        else:
            array = np.array(value, dtype=np.float64)
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise fail(WHERE, key, "a matrix of numbers", f"another thing in {where}") from error
    if array.size == 0 or not (np.abs(array) < 1e150).all():  # nor NaN
        raise fail(WHERE, key, "finite numbers", f"others, or none, in {where}")
    return array


def _lens(found: _Found, path: pathlib.Path, size: tuple[int, int]) -> Lens:
    """Return the lens of the size that the file says, or else of ``size``."""
    K = _array(found["matrix"], path, "camera_matrix")
    key = found["matrix"][0] if found["matrix"] else ""
    if K.size != 9:
        raise fail(WHERE, key, "a matrix of 3×3", f"{K.shape} in {path}")
    K = K.reshape(3, 3)
    if not (K[0, 0] > 0 and K[1, 1] > 0) or K[1, 0] != 0 or abs(K[0, 1]) > 1e-6 * K[0, 0] or K[2].tolist() != [0, 0, 1]:
        expected = "[[fx, 0, cx], [0, fy, cy], [0, 0, 1]] with positive fx and fy"
        raise fail(WHERE, key, expected, f"{K.tolist()} in {path}", "Skew is not supported.")
    coefficients = [] if found["coefficients"] is None else _array(found["coefficients"], path, "").reshape(-1).tolist()
    key = found["coefficients"][0] if found["coefficients"] else ""
    fisheye = _is_fisheye(found["kind"])
    if len(coefficients) not in ((0, 4) if fisheye else _BROWN) or any(coefficients[12:]):
        expected = "4 numbers of a fisheye" if fisheye else "4, 5, 8 or 12 numbers (a tilted sensor is not supported)"
        raise fail(WHERE, key, expected, f"{len(coefficients)} in {path}")
    sides = []
    for side, default in (("height", size[0]), ("width", size[1])):
        entry = found[side]
        value = default if entry is None else entry[1]
        if isinstance(value, bool) or not isinstance(value, int | float) or not 1 <= value < 2**31:
            raise fail(WHERE, "" if entry is None else entry[0], "a number of pixels", f"{value!r} in {path}")
        sides.append(int(value))
    # OpenCV counts from the middle of the first pixel.
    principal = (float(K[0, 2]) + 0.5, float(K[1, 2]) + 0.5)
    return Lens((sides[0], sides[1]), (float(K[0, 0]), float(K[1, 1])), principal, tuple(coefficients[:12]), fisheye)


def _is_fisheye(entry: tuple[str, Any] | None) -> bool:
    if entry is None:
        return False
    if isinstance(entry[1], str):
        return entry[1].lower().replace("_", "").replace("-", "") in (*_FISHEYE, "true")
    return bool(entry[1])


def _sized(lens: Any, source: str, size: tuple[int, int]) -> Lens:
    found: Lens = lens(size)
    if found.size != size:
        expected = f"of the size {found.size[0]}×{found.size[1]} of the calibration"
        raise fail(WHERE, "images", expected, f"{size[0]}×{size[1]} for {source}")
    return found


def _poses(found: _Found, path: pathlib.Path) -> list[np.ndarray]:
    """Return of each image the rotation vector and the translation (6,), from the board's axes to the camera's."""
    if found["poses"] is not None or found["rotations"] is None:
        poses = _array(found["poses"], path, "extrinsic_parameters")
        key = found["poses"][0] if found["poses"] else ""
        if poses.ndim != 2 or poses.shape[1] != 6:
            expected = "of 6 columns, rotation vectors and translations"
            raise fail(WHERE, key, expected, f"{poses.shape} in {path}")
        return list(poses)
    parts = []
    for role, default in (("rotations", "rvecs"), ("translations", "tvecs")):
        array = _array(found[role], path, default)
        if array.size % 3:
            raise fail(WHERE, default, "three numbers for each image", f"{array.shape} in {path}")
        parts.append(array.reshape(-1, 3))
    if len(parts[0]) != len(parts[1]):
        raise fail(WHERE, "rvecs", "as many as tvecs", f"{len(parts[0])} and {len(parts[1])} in {path}")
    return list(np.concatenate(parts, axis=1))


def _names(
    entry: tuple[str, Any] | None, path: pathlib.Path, images: pathlib.Path | None, count: int
) -> tuple[list[str], pathlib.Path]:
    """Return the names of the images, and the folder they are relative to: those listed, or all pictures there."""
    own = path.parent
    folder = images if images is not None else own / "images" if (own / "images").is_dir() else own
    if entry is not None:
        names = entry[1].split() if isinstance(entry[1], str) else entry[1]
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise fail(WHERE, entry[0], "a list of names", f"another thing in {path}")
        if images is None and names and os.path.isfile(own / names[0].replace("\\", "/")):
            folder = own
    else:
        names = sorted(file.name for file in folder.iterdir() if file.suffix.lower() in IMAGE_ENDINGS)
    if len(names) != count:
        fix = "List the names of those with a pose as `image_names`." if entry is None else ""
        raise fail(WHERE, "images", f"{count}, one for each pose of {path.name}", f"{len(names)} in {folder}", fix)
    return names, folder
