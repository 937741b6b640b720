# SPDX-License-Identifier: Apache-2.0
"""Sets of images with known cameras, as ``transforms.json`` and PNG files (the NeRF and Blender layout)."""

import json
import math
import os
import pathlib
import reprlib
from collections.abc import Sequence
from typing import Any

import torch

from geodiff.guard import inside, reading
from geodiff.modes import outside_autocast
from geodiff.saving import Saved
from geodiff.scene.atomic import folder_aside
from geodiff.scene.camera import Camera
from geodiff.scene.images import label_scale, read_image, write_image
from geodiff.validation import Place, as_tensor, fail, floating, placement

_IMAGE_ENDINGS = (".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff")
_PINHOLE = ("PINHOLE", "SIMPLE_PINHOLE", "OPENCV")
_DISTORTION = ("k1", "k2", "k3", "k4", "k5", "k6", "p1", "p2")
_RIGID = 1e-3


@outside_autocast
class PosedImages(Saved):
    """Images of one size, their coverage and their cameras.

    Args:
        images: (B, H, W, 3) colours in [0, 1], row 0 on top, not multiplied by alpha; (B, H, W, 4) with alpha; or None
            where there are only masks.
        alpha: (B, H, W) coverage in [0, 1]; may be left out where ``images`` has it.
        cameras: a batch of B cameras.
        names: B different names, relative paths without ending; "000", "001", … where left out.

    Raises:
        TypeError: cameras that are not a ``Camera``.
        ValueError: shapes that do not go together, NaN, values outside [0, 1], or names that are not file names.

    Example:
        >>> import torch, geodiff as gd
        >>> cameras = gd.Camera.orbit(3.0, 30, torch.arange(0, 360, 90))
        >>> gd.PosedImages(None, torch.ones(4, 8, 8), cameras)
        PosedImages(4 masks of 8×8, float32, cpu)
    """

    def __init__(
        self, images: Any, alpha: Any = None, cameras: Camera | None = None, names: Sequence[str] | None = None
    ) -> None:
        where = "PosedImages"
        if images is None and alpha is None:
            raise fail(where, "images", "given where `alpha` is left out", "None")
        if images is not None:
            images = floating(where, "images", as_tensor(where, "images", images), ("B", "H", "W", "C"))
            if images.shape[-1] not in (3, 4):
                raise fail(where, "images", "of 3 or 4 channels, last", images, "Move them with .movedim(1, -1).")
            if images.shape[-1] == 4 and alpha is None:
                alpha = images[..., 3]
            images = images[..., :3]
            _unit_range(where, "images", images)
        if alpha is None:
            expected = "given where `images` has no alpha channel"
            raise fail(where, "alpha", expected, "None", "Pass the masks, or all ones.")
        alpha = floating(where, "alpha", as_tensor(where, "alpha", alpha), ("B", "H", "W"))
        _unit_range(where, "alpha", alpha)
        if images is not None and images.shape[:3] != alpha.shape:
            raise fail(where, "alpha", f"of shape {tuple(images.shape[:3])} like the images", alpha)
        if not isinstance(cameras, Camera):
            raise fail(where, "cameras", "a Camera", cameras, error=TypeError)
        if tuple(cameras.batch_shape) != (len(alpha),):
            raise fail(where, "cameras", f"a batch of {len(alpha)}, one for each image", repr(cameras))
        self.images: torch.Tensor | None = images
        self.alpha: torch.Tensor = alpha
        self.cameras = cameras
        self.names = [f"{i:03d}" for i in range(len(alpha))] if names is None else [str(name) for name in names]
        if len(self.names) != len(alpha) or len(set(self.names)) != len(alpha):
            raise fail(where, "names", f"{len(alpha)} different names", f"{self.names}")
        for name in self.names:
            parts = pathlib.PurePosixPath(name)
            if not parts.name or parts.is_absolute() or ".." in parts.parts:
                raise fail(where, "names", "relative paths without '..'", repr(name))

    _fields_kept = ("images", "alpha", "cameras", "names")

    @property
    def image_size(self) -> tuple[int, int]:
        """(H, W)."""
        return self.alpha.shape[1], self.alpha.shape[2]

    def __len__(self) -> int:
        return len(self.alpha)

    def __bool__(self) -> bool:
        return True

    def __repr__(self) -> str:
        height, width = self.image_size
        what = "masks" if self.images is None else "images"
        kind = f"{str(self.alpha.dtype).removeprefix('torch.')}, {self.alpha.device}"
        return f"PosedImages({len(self)} {what} of {height}×{width}, {kind})"

    def __getitem__(self, index: slice | Sequence[int] | torch.Tensor) -> "PosedImages":
        """Select a subset by slice, list or tensor of numbers."""
        if isinstance(index, int):
            fix = f"Use [{index}:{index} + 1]."
            raise fail("PosedImages", "index", "a slice, list or tensor", index, fix, TypeError)
        chosen = torch.arange(len(self))[index if isinstance(index, slice) else torch.as_tensor(index)]
        images = None if self.images is None else self.images[chosen]
        return PosedImages(images, self.alpha[chosen], self.cameras[chosen], [self.names[i] for i in chosen.tolist()])

    def to(self, device: Place = None, dtype: torch.dtype | None = None) -> "PosedImages":
        """Return the set on another device or in another dtype (float32 or float64), which may also come first."""
        device, dtype = placement("PosedImages.to", device, dtype)
        images = None if self.images is None else self.images.to(device=device, dtype=dtype)
        alpha = self.alpha.to(device=device, dtype=dtype)
        return PosedImages(images, alpha, self.cameras.to(device, dtype), self.names)

    def split(self, train_indices: Sequence[int] | torch.Tensor) -> tuple["PosedImages", "PosedImages"]:
        """Return the images named and the rest, each in their order here.

        Raises:
            ValueError: indices out of range or twice, or one of the two would be empty.
        """
        chosen = torch.as_tensor(train_indices, dtype=torch.int64).reshape(-1)
        keep = torch.zeros(len(self), dtype=torch.bool)
        if chosen.numel() and (int(chosen.min()) < 0 or int(chosen.max()) >= len(self)):
            raise fail("PosedImages.split", "train_indices", f"in [0, {len(self)})", str(chosen.tolist()))
        keep[chosen] = True
        if int(keep.sum()) != len(chosen) or bool(keep.all()) or not bool(keep.any()):
            expected = f"different, at least one and fewer than all {len(self)}"
            raise fail("PosedImages.split", "train_indices", expected, str(chosen.tolist()))
        return self[keep.nonzero()[:, 0]], self[(~keep).nonzero()[:, 0]]

    def hold_out(self, every: int = 6) -> tuple["PosedImages", "PosedImages"]:
        """Return (train, test), where test is every ``every``-th image, the first among them.

        Raises:
            ValueError: ``every`` less than 2, or fewer than two images.
        """
        if not isinstance(every, int) or every < 2:
            raise fail("PosedImages.hold_out", "every", "an integer of at least 2", every)
        return self.split([i for i in range(len(self)) if i % every])

    # --- files --------------------------------------------------------------------------------------------------------

    def save(self, folder: str | os.PathLike[str], *, alpha_bits: int = 8) -> pathlib.Path:
        """Write ``transforms.json`` and one PNG an image, and return the path of the former.

        ``images/NAME.png`` holds colour (white where there is none) and alpha in 8 bits. Everything is written aside
        first and moved at the end, ``transforms.json`` last: while it is there, all that it names is too.

        Args:
            folder: made where missing; a set that is already there is replaced.
            alpha_bits: 8, or 16 for alpha in a grey ``masks/NAME.png`` of its own.

        Raises:
            ValueError: orthographic cameras, which the layout does not know, or other ``alpha_bits``.
            OSError: the folder cannot be written to.

        Example:
            >>> import tempfile, torch, geodiff as gd
            >>> cameras = gd.Camera.orbit(3.0, 30, torch.arange(0, 360, 90))
            >>> path = gd.PosedImages(None, torch.ones(4, 8, 8), cameras).save(tempfile.mkdtemp())
            >>> gd.PosedImages.load(path)
            PosedImages(4 images of 8×8, float32, cpu)
        """
        where = "PosedImages.save"
        if alpha_bits not in (8, 16):
            raise fail(where, "alpha_bits", "8 or 16", alpha_bits)
        meta = self._transforms(where)
        folder = pathlib.Path(folder)
        target = folder / "transforms.json"
        with folder_aside(folder, where, target, "folder") as aside:
            files = []
            for i, (name, frame) in enumerate(zip(self.names, meta["frames"], strict=True)):
                alpha = self.alpha[i, ..., None]
                color = torch.ones_like(alpha).expand(-1, -1, 3) if self.images is None else self.images[i]
                pictures = {f"images/{name}.png": (torch.cat((color, alpha), dim=-1), 8)}
                if alpha_bits == 16:
                    pictures = {f"images/{name}.png": (color, 8), f"masks/{name}.png": (alpha, 16)}
                    frame["mask_path"] = f"masks/{name}.png"
                frame["file_path"] = f"images/{name}.png"
                for file, (picture, bits) in pictures.items():
                    (aside / file).parent.mkdir(parents=True, exist_ok=True)
                    write_image(aside / file, picture, bits)
                    files.append(file)
            (aside / "transforms.json").write_text(json.dumps(meta, indent=1))
            target.unlink(missing_ok=True)
            for file in files:
                (folder / file).parent.mkdir(parents=True, exist_ok=True)
                os.replace(aside / file, folder / file)
            os.replace(aside / "transforms.json", target)
        return target

    def _transforms(self, where: str) -> dict[str, Any]:
        """Return what goes into ``transforms.json``, but for the paths of the images."""
        if self.cameras.is_orthographic:
            raise fail(where, "cameras", "perspective", "orthographic ones, which transforms.json does not know")
        cameras = self.cameras.detach().to("cpu", torch.float64)
        height, width = self.image_size
        K = cameras.K(self.image_size)
        matrices = cameras.camera_to_world.tolist()
        lenses = [
            {"fl_x": k[0][0], "fl_y": k[1][1], "cx": k[0][2], "cy": k[1][2], "w": width, "h": height}
            for k in K.tolist()
        ]
        frames: list[dict[str, Any]] = [{"transform_matrix": matrix} for matrix in matrices]
        shared: dict[str, Any] = {"camera_model": "PINHOLE"}
        if all(lens == lenses[0] for lens in lenses):
            shared |= {"camera_angle_x": 2 * math.atan(0.5 * width / lenses[0]["fl_x"])} | lenses[0]
        else:
            for frame, lens in zip(frames, lenses, strict=True):
                frame.update(lens)
        return {**shared, "frames": frames}

    @classmethod
    def load(
        cls,
        path: str | os.PathLike[str],
        *,
        opaque: bool = False,
        near: float = 1e-2,
        dtype: torch.dtype = torch.float32,
        allow_outside: bool = False,
    ) -> "PosedImages":
        """Read a ``transforms.json`` (or the folder it is in) and the images it names.

        Poses are OpenGL camera-to-world matrices. Intrinsics, for all frames or each, are ``fl_x`` (``fl_y``, ``cx``,
        ``cy``) in pixels with centres at +0.5, or ``camera_angle_x``, the horizontal field of view in radians.
        Coverage comes from ``mask_path`` where given, else from the image's alpha channel, else the image is itself a
        mask if it has no colour. Masks of nothing but 0 and 1, as labels are, count as 0 and 255.

        Args:
            path: the JSON file, or its folder.
            opaque: take coloured images without alpha or mask as covering the whole frame, rather than refuse them.
            near: of the cameras.
            dtype: torch.float32 or torch.float64.
            allow_outside: let the file name images outside of its folder.

        Raises:
            FileNotFoundError: the file, or an image it names, is missing.
            ValueError: damaged JSON, no frames, no intrinsics, lens distortion, a camera that is not a pinhole, a
                matrix that is not rigid, images of different sizes or without coverage.
        """
        path = _json_file(pathlib.Path(path))
        if dtype not in (torch.float32, torch.float64):
            raise fail("PosedImages.load", "dtype", "torch.float32 or torch.float64", str(dtype), error=TypeError)
        with reading("PosedImages.load", path, "JSON"):
            return cls._read(path, opaque, near, dtype, allow_outside)

    @classmethod
    def _read(
        cls, path: pathlib.Path, opaque: bool, near: float, dtype: torch.dtype, allow_outside: bool
    ) -> "PosedImages":
        meta = json.loads(path.read_bytes().decode("utf-8-sig"))
        frames = meta.get("frames") if isinstance(meta, dict) else None
        if not isinstance(frames, list) or not frames or not all(isinstance(frame, dict) for frame in frames):
            raise fail("PosedImages.load", "path", "a transforms.json with a list of `frames`", str(path))
        colors, alphas, names, Ks, matrices = [], [], [], [], []
        size: tuple[int, int] | None = None
        for i, frame in enumerate(frames):
            if not isinstance(frame.get("file_path"), str):
                raise fail("PosedImages.load", "frames", "given a `file_path` each", f"frame {i} without in {path}")
            color, alpha = _picture(path, frame, opaque, allow_outside)
            if size is not None and alpha.shape != size:
                expected = f"images of one size, {size[0]}×{size[1]} like the first"
                got = f"{alpha.shape[0]}×{alpha.shape[1]} in {frame['file_path']}"
                fix = "Resize or crop them, and their intrinsics, first."
                raise fail("PosedImages.load", "frames", expected, got, fix)
            size = (alpha.shape[0], alpha.shape[1])
            colors.append(color)
            alphas.append(alpha)
            names.append(_name(frame["file_path"]))
            Ks.append(_intrinsics({**meta, **frame}, size, f"{path}, frame {i}"))
            matrices.append(_matrix(frame.get("transform_matrix"), f"{path}, frame {i}"))
        world = torch.stack(matrices)
        R = world[:, :3, :3].mT
        t = -(R @ world[:, :3, 3:])[..., 0]
        assert size is not None
        cameras = Camera.from_K(torch.stack(Ks), R, t, image_size=size, near=near).to(dtype=dtype)
        alpha = torch.stack(alphas)
        return cls(torch.stack(colors).to(dtype), (alpha * label_scale(alpha)).to(dtype), cameras, names)


def _unit_range(where: str, name: str, value: torch.Tensor) -> None:
    if value.device.type == "cpu" and value.numel():
        low, high = (float(x) for x in torch.aminmax(value.detach()))
        # Sums of rendered fragments stray from [0, 1] by rounding; saving clips them.
        if low < -1e-3 or high > 1.0 + 1e-3:
            fix = "Divide 8-bit values by 255." if high > 2 else "Clamp them with .clamp(0, 1)."
            raise fail(where, name, "in [0, 1]", f"values from {low:g} to {high:g}", fix)


def _json_file(path: pathlib.Path) -> pathlib.Path:
    """Return the JSON file itself, or the one in the folder."""
    if os.path.isdir(path):
        found = (
            [path / "transforms.json"]
            if (path / "transforms.json").is_file()
            else sorted(path.glob("transforms*.json"))
        )
        if len(found) != 1:
            names = ", ".join(file.name for file in found) or "none"
            expected, got = "a folder with a transforms.json", f"{path} with {names}"
            fix = "Name the file itself." if found else "Images need their cameras: write them with PosedImages.save."
            raise fail("PosedImages.load", "path", expected, got, fix, ValueError if found else FileNotFoundError)
        return found[0]
    if not os.path.isfile(path):
        raise fail("PosedImages.load", "path", "a file or folder that exists", str(path), error=FileNotFoundError)
    return path


def _name(file_path: str) -> str:
    parts = [part for part in pathlib.PurePosixPath(file_path.replace("\\", "/")).parts if part not in ("..", ".", "/")]
    if parts[0] == "images" and len(parts) > 1:
        parts = parts[1:]
    name = "/".join(parts)
    ending = pathlib.PurePosixPath(name).suffix
    return name[: -len(ending)] if ending.lower() in _IMAGE_ENDINGS else name


def _found(path: pathlib.Path, key: str, name: Any, allow_outside: bool) -> pathlib.Path:
    """Return the image file that a JSON file names; Blender leaves the ending out, cameras write it in capitals."""
    where = "PosedImages.load"
    if not isinstance(name, str):
        raise fail(where, key, "the name of a file", f"{name!r} in {path}")
    found = inside(path.parent, name, allow_outside)
    if found is None:
        fix = "Pass allow_outside=True to read it all the same."
        raise fail(where, key, f"in the folder of {path.name}", f"{name[:200]!r} in {path}", fix)
    if os.path.isfile(found):
        return found
    stems = [found.name] + ([found.stem] if found.suffix.lower() in _IMAGE_ENDINGS else [])
    for stem in stems:
        for ending in _IMAGE_ENDINGS:
            for spelt in (ending, ending.upper()):
                other = found.with_name(stem + spelt)
                if other.suffix.lower() == (found.suffix.lower() if stem != found.name else ending):
                    if os.path.isfile(other):
                        return other
    return found


def _picture(
    path: pathlib.Path, frame: dict[str, Any], opaque: bool, allow_outside: bool
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the colour (H, W, 3) and the coverage (H, W) of a frame."""
    where = "PosedImages.load"
    image = read_image(_found(path, "file_path", frame["file_path"], allow_outside), where)
    color = image[..., :3] if image.shape[-1] > 1 else image.expand(-1, -1, 3)
    if frame.get("mask_path") not in (None, ""):
        mask = read_image(_found(path, "mask_path", frame["mask_path"], allow_outside), where)
        # A mask may be a cut-out picture, a grey one, or a grey one saved in colour.
        alpha = mask[..., 3] if mask.shape[-1] == 4 else mask[..., :3].mean(-1)
        if alpha.shape != color.shape[:2]:
            expected = f"of the size {color.shape[0]}×{color.shape[1]} of its image"
            raise fail(where, "mask_path", expected, f"{alpha.shape[0]}×{alpha.shape[1]} in {frame['mask_path']}")
        return color, alpha
    if image.shape[-1] == 4:
        return color, image[..., 3]
    if image.shape[-1] == 1 or bool((image == image[..., :1]).all()):
        return color, image[..., 0]
    if opaque:
        return color, torch.ones_like(image[..., 0])
    got = f"colour without either in {frame['file_path']}"
    fix = "Add masks, or pass opaque=True if the object fills every image."
    raise fail(where, "frames", "images with an alpha channel or a `mask_path`", got, fix)


def _number(lens: dict[str, Any], key: str, file: str) -> float | None:
    value = lens.get(key)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < 1e300:  # nor NaN
        raise fail("PosedImages.load", key, "a finite number", f"{reprlib.repr(value)} in {file}")
    return float(value)


def _intrinsics(lens: dict[str, Any], size: tuple[int, int], file: str) -> torch.Tensor:
    """Return K (3, 3) in float64 from the keys of a frame and of the file."""
    where = "PosedImages.load"
    model = lens.get("camera_model", "PINHOLE")
    if not isinstance(model, str) or model not in _PINHOLE or lens.get("is_fisheye"):
        named = "a fisheye" if lens.get("is_fisheye") else repr(model)
        raise fail(
            where, "camera_model", f"one of {', '.join(_PINHOLE)}", f"{named} in {file}", "Rectify the images first."
        )
    bent = [key for key in _DISTORTION if _number(lens, key, file)]
    if bent:
        got = f"{', '.join(str(lens[key]) for key in bent)} in {file}"
        fix = "Undistort the images first, for example with COLMAP's image_undistorter."
        raise fail(where, ", ".join(bent), "0, as lens distortion is not modelled", got, fix)
    height, width = size
    for key, side in (("w", width), ("h", height)):
        stated = _number(lens, key, file)
        if stated is not None and stated != side:
            fix = "Were the images resized? Scale fl_x, fl_y, cx, cy, w and h too."
            raise fail(where, key, f"{side}, the size of the images", f"{stated:g} in {file}", fix)

    def focal(length: str, angle: str, side: int) -> float | None:
        pixels, radians = _number(lens, length, file), _number(lens, angle, file)
        if pixels is None and radians is not None and 0 < radians < math.pi:
            pixels = 0.5 * side / math.tan(0.5 * radians)
        return pixels

    fx, fy = focal("fl_x", "camera_angle_x", width), focal("fl_y", "camera_angle_y", height)
    fx, fy = fy if fx is None else fx, fx if fy is None else fy
    if fx is None or fy is None or fx <= 0 or fy <= 0:
        expected = "a transforms.json with positive `fl_x` (pixels) or `camera_angle_x` (radians, in (0, π))"
        raise fail(where, "path", expected, f"{file} without")
    cx, cy = _number(lens, "cx", file), _number(lens, "cy", file)
    cx, cy = 0.5 * width if cx is None else cx, 0.5 * height if cy is None else cy
    return torch.tensor([[fx, 0.0, cx], [0.0, fy, cy], [0.0, 0.0, 1.0]], dtype=torch.float64)


def _matrix(value: Any, file: str) -> torch.Tensor:
    """Return the camera-to-world matrix (4, 4) in float64, which must be a rotation and a translation."""
    where = "PosedImages.load"
    try:
        matrix = torch.tensor(value, dtype=torch.float64)
    except (TypeError, ValueError, OverflowError, RuntimeError) as error:
        raise fail(where, "transform_matrix", "4×4 numbers", f"{reprlib.repr(value)} in {file}") from error
    if matrix.shape == (3, 4):
        matrix = torch.cat((matrix, matrix.new_tensor([[0.0, 0.0, 0.0, 1.0]])))
    if matrix.shape != (4, 4) or not bool(torch.isfinite(matrix).all()):
        raise fail(where, "transform_matrix", "4×4 finite numbers", f"{reprlib.repr(value)} in {file}")
    r = matrix[:3, :3]
    error_size = float((r @ r.mT - torch.eye(3, dtype=torch.float64)).abs().max())
    last_row = matrix[3].tolist()
    if error_size > _RIGID or float(torch.linalg.det(r)) < 0 or last_row != [0.0, 0.0, 0.0, 1.0]:
        got = f"{file}: R Rᵀ off by {error_size:.3g}, determinant {float(torch.linalg.det(r)):.3g}, last row {last_row}"
        fix = "Divide scales out, and mirror left-handed poses together with their images."
        raise fail(where, "transform_matrix", "rigid: a rotation (determinant +1) and a translation", got, fix)
    return matrix
