# SPDX-License-Identifier: Apache-2.0
"""Models of COLMAP, as text or binary: cameras and poses of images, and the points seen in them."""

import functools
import math
import os
import pathlib
import struct
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
import torch

from geodiff.guard import believed, reading
from geodiff.scene.lens import Lens
from geodiff.scene.views import WHERE, View, found_image
from geodiff.validation import fail

# COLMAP's numbers and names of camera models, and how many parameters each has.
_MODELS = (
    ("SIMPLE_PINHOLE", 3),
    ("PINHOLE", 4),
    ("SIMPLE_RADIAL", 4),
    ("RADIAL", 5),
    ("OPENCV", 8),
    ("OPENCV_FISHEYE", 8),
    ("FULL_OPENCV", 12),
    ("FOV", 5),
    ("SIMPLE_RADIAL_FISHEYE", 4),
    ("RADIAL_FISHEYE", 5),
    ("THIN_PRISM_FISHEYE", 12),
    ("RAD_TAN_THIN_PRISM_FISHEYE", 16),
)
_UNREAD = ("FOV", "THIN_PRISM_FISHEYE", "RAD_TAN_THIN_PRISM_FISHEYE")
_READ = tuple(name for name, _ in _MODELS if name not in _UNREAD)
_MOST_NAME = 4096  # bytes of a file's name
_UNIT = 1e-2  # how far a quaternion may be from length 1


class _Image(NamedTuple):
    """What the list of images says of one: its place in the list, quaternion, translation, camera and name."""

    source: str
    quaternion: tuple[float, ...]
    translation: tuple[float, ...]
    camera: int
    name: str


def model_in(folder: pathlib.Path) -> pathlib.Path | None:
    """Return the list of images of the model in a folder, None where there is no model; binary before text."""
    for ending in (".bin", ".txt"):
        file = folder / f"images{ending}"
        if file.is_file() and file.with_name(f"cameras{ending}").is_file():
            return file
    return None


def colmap_views(path: pathlib.Path, images: pathlib.Path | None, allow_outside: bool) -> list[View]:
    """Read the views of the model that a list of images belongs to, in the order of their names."""
    file = path.with_name(f"cameras{path.suffix}")
    with reading(WHERE, file, "COLMAP"):
        lenses = (_text_cameras if path.suffix == ".txt" else _binary_cameras)(file)
    listed = (_text_images if path.suffix == ".txt" else _binary_images)(path)
    if not listed:
        raise fail(WHERE, "path", "a COLMAP model of one or more images", f"{path} without any")
    listed.sort(key=lambda image: image.name)
    folder = _picture_folder(path, images, listed[0].name)
    views = []
    for image in listed:
        if image.camera not in lenses:
            known = ", ".join(map(str, list(lenses)[:5])) or "none"
            raise fail(WHERE, "CAMERA_ID", f"one of {file.name} ({known})", f"{image.camera} in {image.source}")
        found = found_image(folder, "NAME", image.name, path, allow_outside)
        lens = functools.partial(_sized, lenses[image.camera], image.source)
        pose = _pose(image)
        views.append(View(image.source, image.name, found, None, folder.parent, lens, pose))
    return views


def _picture_folder(path: pathlib.Path, images: pathlib.Path | None, name: str) -> pathlib.Path:
    """Return the folder that names of images are relative to: ``images`` beside the model, or above it."""
    if images is not None:
        return images
    above = [path.parent, *path.absolute().parents[1:4]]
    places = [place for folder in above for place in (folder / "images", folder)]
    for place in places:
        if os.path.isfile(place / name.replace("\\", "/")):
            return place
    got = f"{name!r} of {path} in none of {', '.join(str(place) for place in places[:3])}, …"
    fix = "Name their folder: PosedImages.load(path, images=…)."
    raise fail(WHERE, "images", "a folder with the images that the model names", got, fix, FileNotFoundError)


# --- cameras --------------------------------------------------------------------------------------------------------


def _lens(model: str, size: tuple[int, int], p: tuple[float, ...], source: str) -> Lens:
    """Return the lens of COLMAP's parameters."""
    if model not in _READ:
        raise fail(WHERE, "camera model", f"one of {', '.join(_READ)}", f"{model} in {source}", "Undistort the images.")
    if not all(math.isfinite(x) for x in p):
        raise fail(WHERE, "PARAMS", "finite", f"{', '.join(map(str, p))} in {source}")
    if model.startswith(("SIMPLE", "RADIAL")):  # one focal length
        p = (p[0], *p)
    fx, fy, cx, cy, *rest = p
    if not (fx > 0 and fy > 0) or not 0 < min(size) <= max(size) < 2**31:
        got = f"focal lengths {fx:g} and {fy:g}, {size[1]}×{size[0]} pixels in {source}"
        raise fail(WHERE, "PARAMS", "of a positive focal length and size", got)
    return Lens(size, (fx, fy), (cx, cy), tuple(rest), "FISHEYE" in model)


def _sized(lens: Lens, source: str, size: tuple[int, int]) -> Lens:
    """Return the lens for an image that may have been made larger or smaller."""
    if size == lens.size:
        return lens
    factor = math.sqrt(size[0] * size[1] / (lens.size[0] * lens.size[1]))
    if any(abs(side - factor * stated) > 1.5 for side, stated in zip(size, lens.size, strict=True)):
        expected = f"of the proportions of its camera, {lens.size[0]}×{lens.size[1]}"
        fix = "Cropped or turned images need other intrinsics."
        raise fail(WHERE, "images", expected, f"{size[0]}×{size[1]} for {source}", fix)
    return lens.scaled(size)


def _text_cameras(path: pathlib.Path) -> dict[int, Lens]:
    lenses = {}
    for number, line in _lines(path):
        source, fields = f"{path}, line {number}", line.split()
        if not fields:
            continue
        if len(fields) < 4:
            raise fail(WHERE, "path", "lines CAMERA_ID MODEL WIDTH HEIGHT PARAMS…", f"{line[:80]!r} in {source}")
        camera, model = _whole(fields[0], "CAMERA_ID", source), fields[1]
        size = (_whole(fields[3], "HEIGHT", source), _whole(fields[2], "WIDTH", source))
        parameters = tuple(_real(field, "PARAMS", source) for field in fields[4:])
        count = dict(_MODELS).get(model, len(parameters))
        if len(parameters) != count:
            raise fail(WHERE, "PARAMS", f"{count} numbers for {model}", f"{len(parameters)} in {source}")
        lenses[camera] = _lens(model, size, parameters, source)
    return lenses


def _binary_cameras(path: pathlib.Path) -> dict[int, Lens]:
    data = _Bytes(path)
    lenses = {}
    for i in range(data.count(24, "cameras")):
        camera, model, width, height = data.take("<IiQQ")
        source = f"{path}, camera {camera} (the {i + 1}. one)"
        if not 0 <= model < len(_MODELS):
            raise fail(WHERE, "camera model", f"one of {', '.join(_READ)}", f"number {model} in {source}")
        name, count = _MODELS[model]
        lenses[camera] = _lens(name, (height, width), data.take(f"<{count}d"), source)
    return lenses


# --- images ---------------------------------------------------------------------------------------------------------


def _pose(image: _Image) -> tuple[torch.Tensor, torch.Tensor]:
    """Return R and t in the axes of `Camera` of a quaternion (w, x, y, z), Hamilton's, world to camera, and t."""
    numbers = (*image.quaternion, *image.translation)
    length = math.sqrt(sum(q * q for q in image.quaternion)) if all(abs(n) < 1e150 for n in numbers) else math.inf
    if not abs(length - 1.0) < _UNIT or not all(math.isfinite(n) for n in numbers):
        got = f"{', '.join(f'{n:g}' for n in numbers)} in {image.source}"
        raise fail(WHERE, "QW QX QY QZ TX TY TZ", "a quaternion of length 1 and a translation", got)
    w, x, y, z = (q / length for q in image.quaternion)
    R = torch.tensor(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
            [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
            [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
        ],
        dtype=torch.float64,
    )
    flip = R.new_tensor([1.0, -1.0, -1.0])  # from y down and z forward
    return flip[:, None] * R, flip * R.new_tensor(image.translation)


def _text_images(path: pathlib.Path) -> list[_Image]:
    """Read pairs of lines: the image, and the points seen in it, which may be none."""
    found = []
    lines = _lines(path)
    for number, line in lines:
        if not line.strip():
            continue
        source, fields = f"{path}, line {number}", line.split(maxsplit=9)
        if len(fields) < 10:
            expected = "lines IMAGE_ID QW QX QY QZ TX TY TZ CAMERA_ID NAME, each before one of points"
            raise fail(WHERE, "path", expected, f"{line[:80]!r} in {source}")
        numbers = tuple(_real(field, "QW QX QY QZ TX TY TZ", source) for field in fields[1:8])
        camera, name = _whole(fields[8], "CAMERA_ID", source), fields[9].strip()
        found.append(_Image(f"{source} ({name[:100]})", numbers[:4], numbers[4:], camera, name))
        next(lines, None)
    return found


def _binary_images(path: pathlib.Path) -> list[_Image]:
    data = _Bytes(path)
    found = []
    for i in range(data.count(73, "images")):
        numbers = data.take("<I7dI")
        name = data.name()
        data.skip(data.count(24, f"points of image {name}"), 24)
        found.append(_Image(f"{path}, image {i} ({name[:100]})", numbers[1:5], numbers[5:8], numbers[8], name))
    return found


# --- points ---------------------------------------------------------------------------------------------------------


def read_colmap_points(folder: str | os.PathLike[str]) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the points of a COLMAP model and their colours.

    Args:
        folder: with ``points3D.bin`` or ``points3D.txt``.

    Returns:
        (P, 3) points in the model's world, float64, and (P, 3) colours in [0, 1], float32.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is damaged.
    """
    where = "read_colmap_points"
    for ending in (".bin", ".txt"):
        path = pathlib.Path(folder) / f"points3D{ending}"
        if path.is_file():
            with reading(where, path, "COLMAP"):
                rows = np.array((_text_points if ending == ".txt" else _binary_points)(path)).reshape(-1, 6)
                if not np.isfinite(rows).all():
                    raise ValueError("NaN or infinity in it")
            return torch.from_numpy(rows[:, :3].copy()), torch.from_numpy(rows[:, 3:] / 255).float()
    raise fail(where, "folder", "one with points3D.bin or points3D.txt", str(folder), error=FileNotFoundError)


def _text_points(path: pathlib.Path) -> list[tuple[float, ...]]:
    rows = []
    for number, line in _lines(path):
        fields = line.split(maxsplit=8)
        if fields and len(fields) < 8:
            raise ValueError(f"line {number} has {len(fields)} numbers, not POINT3D_ID X Y Z R G B ERROR …")
        if fields:
            rows.append(tuple(float(field) for field in fields[1:7]))
    return rows


def _binary_points(path: pathlib.Path) -> list[tuple[float, ...]]:
    data = _Bytes(path)
    rows = []
    for _ in range(data.count(51, "points")):
        rows.append(data.take("<Q3d3Bd")[1:7])
        data.skip(data.count(8, "images of a point"), 8)
    return rows


# --- how they are written -------------------------------------------------------------------------------------------


class _Bytes:
    """The bytes of a file, taken one after the other: little-endian, without gaps."""

    def __init__(self, path: pathlib.Path) -> None:
        self.path, self.data, self.at = path, path.read_bytes(), 0

    def take(self, kinds: str) -> tuple[Any, ...]:
        """Return numbers of the kinds that a format of `struct` says."""
        size = struct.calcsize(kinds)
        self.skip(1, size)
        return struct.unpack_from(kinds, self.data, self.at - size)

    def count(self, size: int, what: str) -> int:
        """Return how many of at least `size` bytes follow, if there is room for them."""
        (count,) = self.take("<Q")
        believed(WHERE, self.path, count, size, what)
        return int(count)

    def skip(self, count: int, size: int) -> None:
        """Pass over so many of `size` bytes."""
        self.at += count * size
        if self.at > len(self.data):
            raise ValueError(f"its end is missing: {len(self.data)} bytes, at least {self.at} are told of")

    def name(self) -> str:
        """Return the text up to the next zero byte."""
        end = self.data.find(b"\0", self.at, self.at + _MOST_NAME)
        if end < 0:
            raise ValueError(f"a name without end at byte {self.at}")
        text = self.data[self.at : end].decode(errors="replace")
        self.at = end + 1
        return text


def _lines(path: pathlib.Path) -> Iterator[tuple[int, str]]:
    """Yield numbers, from 1, and lines but for those of comments."""
    with path.open(encoding="utf-8-sig", errors="replace") as file:
        for number, line in enumerate(file, 1):
            if not line.lstrip().startswith("#"):
                yield number, line


def _converted(kind: Callable[[str], float], text: str, key: str, source: str, what: str) -> float:
    try:
        return kind(text)
    except ValueError:
        raise fail(WHERE, key, what, f"{text[:40]!r} in {source}") from None


def _whole(text: str, key: str, source: str) -> int:
    return int(_converted(int, text, key, source, "a whole number"))


def _real(text: str, key: str, source: str) -> float:
    return _converted(float, text, key, source, "a number")
