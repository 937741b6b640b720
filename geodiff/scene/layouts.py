# SPDX-License-Identifier: Apache-2.0
"""Which file of images with cameras a path means, and who reads it."""

import json
import os
import pathlib
from collections.abc import Callable

from geodiff.scene.calibration import calibration_views
from geodiff.scene.colmap import colmap_views, model_in
from geodiff.scene.frames import frame_views
from geodiff.scene.views import WHERE, View
from geodiff.validation import fail, warn

VIEWS: dict[str, Callable[[pathlib.Path, pathlib.Path | None, bool], list[View]]] = {
    "JSON": frame_views,
    "COLMAP": colmap_views,
    "OpenCV calibration": calibration_views,
}
_CALIBRATIONS = (".yml", ".yaml", ".xml")
_MODELS = ("", "sparse/0", "sparse", "colmap/sparse/0", "colmap/sparse", "dense/sparse", "dense/0/sparse")


def layout(path: pathlib.Path) -> tuple[str, pathlib.Path]:
    """Return the kind of a file or folder, a key of `VIEWS`, and the file; of COLMAP, the list of images."""
    if os.path.isdir(path):
        return _folder(path)
    if not os.path.isfile(path):
        raise fail(WHERE, "path", "a file or folder that exists", str(path), error=FileNotFoundError)
    ending = path.suffix.lower()
    if ending in _CALIBRATIONS:
        return "OpenCV calibration", path
    if ending in (".txt", ".bin"):
        model = model_in(path.parent)
        if model is None:
            fix = "It has cameras.txt and images.txt, or both as .bin."
            raise fail(WHERE, "path", "a file of a COLMAP model", f"{path} without the others", fix)
        return "COLMAP", model
    return ("OpenCV calibration" if _is_calibration(path) else "JSON"), path


def _is_calibration(path: pathlib.Path) -> bool:
    """Whether a JSON file has the matrix of one camera rather than frames."""
    try:
        content = json.loads(path.read_bytes().decode("utf-8-sig"))
    except (ValueError, RecursionError):  # whoever reads it says what is wrong
        return False
    return isinstance(content, dict) and "frames" not in content and "camera_matrix" in {key.lower() for key in content}


def _folder(path: pathlib.Path) -> tuple[str, pathlib.Path]:
    named = path / "transforms.json"
    found = [named] if named.is_file() else sorted(path.glob("transforms*.json"))
    if len(found) == 1:
        return "JSON", found[0]
    if found:
        names = ", ".join(file.name for file in found)
        raise fail(WHERE, "path", "a folder with a transforms.json", f"{path} with {names}", "Name the file itself.")
    for place in _MODELS:
        model = model_in(path / place)
        if model is not None:
            others = [other.name for other in sorted(model.parent.parent.iterdir()) if model_in(other) is not None]
            if place.endswith("/0") and len(others) > 1:
                warn(f"{WHERE}: {path} has the models {', '.join(others)}, of which 0 is taken; name another's folder.")
            return "COLMAP", model
    calibrations = sorted(file for file in path.iterdir() if file.suffix.lower() in _CALIBRATIONS)
    if len(calibrations) == 1:
        return "OpenCV calibration", calibrations[0]
    names = ", ".join(file.name for file in calibrations) or "none"
    expected, got = "a folder with a transforms.json, a COLMAP model or an OpenCV calibration", f"{path} with {names}"
    fix = "Images need their cameras: write them with PosedImages.save."
    if calibrations:
        raise fail(WHERE, "path", expected, got, "Name the file itself.")
    raise fail(WHERE, "path", expected, got, fix, FileNotFoundError)
