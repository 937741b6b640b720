# SPDX-License-Identifier: Apache-2.0
"""Sets of images with known cameras; written as ``transforms.json`` and PNG files (the NeRF and Blender layout)."""

import json
import math
import os
import pathlib
from collections.abc import Sequence
from typing import Any

import torch

from geodiff.guard import reading
from geodiff.modes import outside_autocast
from geodiff.saving import Saved
from geodiff.scene.atomic import folder_aside
from geodiff.scene.backdrop import as_background, cut_out
from geodiff.scene.camera import Camera
from geodiff.scene.images import write_image
from geodiff.scene.layouts import VIEWS, layout
from geodiff.scene.photographs import Photograph, give_back, rooms
from geodiff.scene.views import read_views
from geodiff.validation import Place, as_tensor, fail, floating, integer, placement


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
        self.images = images
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
    def images(self) -> torch.Tensor | None:
        """(B, H, W, 3) colours, None for masks alone.

        What was read from files is kept in bytes until this is asked for; `photograph` takes the memory of one view.
        """
        if self._photographs is not None:
            each = [one.numbers(self.alpha.dtype) for one in self._photographs]
            self.images = torch.stack(each) if each else self.alpha.new_zeros(*self.alpha.shape, 3)
        return self._images

    @images.setter
    def images(self, images: torch.Tensor | None) -> None:
        self._images = images
        self._photographs: list[Photograph] | None = None

    @property
    def in_color(self) -> bool:
        """Whether there are colours."""
        return self._images is not None or self._photographs is not None

    def photograph(self, index: int) -> torch.Tensor:
        """Return the colours (H, W, 3) of one view, as in ``images``, whose memory they do not need.

        Raises:
            TypeError, ValueError: no index of a view, or masks alone.
        """
        if not self.in_color:
            raise fail("PosedImages.photograph", "images", "in colour", "masks alone")
        index = integer("PosedImages.photograph", "index", index, 0, len(self) - 1)
        if self._photographs is not None:
            return self._photographs[index].numbers(self.alpha.dtype)
        assert self._images is not None
        return self._images[index]

    def _with(self, alpha: torch.Tensor, cameras: Camera, photographs: list[Photograph] | None = None) -> "PosedImages":
        """Return the same views with other coverage and cameras; colours are shared, without their graph."""
        images = self._images if photographs is None else None
        made = PosedImages(None if images is None else images.detach(), alpha, cameras, self.names)
        made._photographs = self._photographs if photographs is None else photographs
        return made

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
        what = "images" if self.in_color else "masks"
        kind = f"{str(self.alpha.dtype).removeprefix('torch.')}, {self.alpha.device}"
        return f"PosedImages({len(self)} {what} of {height}×{width}, {kind})"

    def __getitem__(self, index: slice | Sequence[int] | torch.Tensor) -> "PosedImages":
        """Select a subset by slice, list or tensor of numbers."""
        if isinstance(index, int):
            fix = f"Use [{index}:{index} + 1]."
            raise fail("PosedImages", "index", "a slice, list or tensor", index, fix, TypeError)
        chosen = torch.arange(len(self))[index if isinstance(index, slice) else torch.as_tensor(index)]
        images, order = None if self._images is None else self._images[chosen], chosen.tolist()
        made = PosedImages(images, self.alpha[chosen], self.cameras[chosen], [self.names[i] for i in order])
        if self._photographs is not None:
            made._photographs = [self._photographs[i] for i in order]
        return made

    def to(self, device: Place = None, dtype: torch.dtype | None = None) -> "PosedImages":
        """Return the set on another device or in another dtype (float32 or float64), which may also come first."""
        device, dtype = placement("PosedImages.to", device, dtype)
        images = None if self._images is None else self._images.to(device=device, dtype=dtype)
        alpha = self.alpha.to(device=device, dtype=dtype)
        made = PosedImages(images, alpha, self.cameras.to(device, dtype), self.names)
        if self._photographs is not None:
            made._photographs = [one.to(device) for one in self._photographs]
        return made

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
                color = self.photograph(i) if self.in_color else torch.ones_like(alpha).expand(-1, -1, 3)
                pictures = {f"images/{name}.png": (torch.cat((color, alpha), dim=-1), 8)}
                if alpha_bits == 16:
                    pictures = {f"images/{name}.png": (color, 8), f"masks/{name}.png": (alpha, 16)}
                    frame["mask_path"] = f"masks/{name}.png"
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

    def without_background(self, background: Any = "auto") -> "PosedImages":
        """Return the images with what is not the background cut out, whatever their coverage was.

        Where a pixel differs from the background by more than the noise along the border (or 4 %), it is the object;
        on its outline coverage follows from the object's colour beside it.

        Args:
            background: a colour, three numbers in [0, 1] or a name such as ``"white"``; an image (H, W, 3) of it
                alone, or its file; ``"auto"``: the colour along each image's border, if it is one.

        Gradients: none.

        Raises:
            TypeError, ValueError: masks alone; a background that the images' borders do not show.

        Warns:
            UserWarning: of an object that has colours like the background's.

        Example:
            >>> import torch, geodiff as gd
            >>> photograph = torch.ones(1, 16, 16, 3)
            >>> photograph[:, 4:12, 4:12] = 0.2
            >>> images = gd.PosedImages(photograph, torch.ones(1, 16, 16), gd.Camera.orbit(3.0, 30, torch.zeros(1)))
            >>> int(images.without_background("white").alpha.sum())
            64
        """
        where = "PosedImages.without_background"
        if not self.in_color:
            raise fail(where, "images", "in colour", "masks alone")
        ground = as_background(where, background)
        photographs, alphas = [], []
        room = rooms(len(self), self.image_size, self.alpha.device)
        for i, name in enumerate(self.names):
            image = self.photograph(i)
            cut = cut_out(where, image.cpu(), ground, name)
            photographs.append(Photograph.of(cut.color.to(image), room[i]))
            alphas.append(cut.alpha.to(image))
            give_back(cut.alpha.numel())
        if not alphas:
            return self
        return self._with(torch.stack(alphas), self.cameras, photographs)

    def _transforms(self, where: str) -> dict[str, Any]:
        """Return what ``save`` writes into ``transforms.json``; errors name ``where``."""
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
        frames: list[dict[str, Any]] = [
            {"transform_matrix": matrix, "file_path": f"images/{name}.png"}
            for name, matrix in zip(self.names, matrices, strict=True)
        ]
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
        images: str | os.PathLike[str] | None = None,
        masks: str | os.PathLike[str] | None = None,
        max_size: int | None = None,
        colors: bool = True,
        background: Any = None,
    ) -> "PosedImages":
        """Read images and their cameras: a ``transforms.json``, a COLMAP model, or an OpenCV calibration with poses.

        - ``transforms.json``, or its folder, of NeRF, Blender, instant-ngp and nerfstudio. Poses are OpenGL
          camera-to-world matrices. Intrinsics, for all frames or each, are ``fl_x`` (``fl_y``, ``cx``, ``cy``) in
          pixels with centres at +0.5, or ``camera_angle_x``, the horizontal field of view in radians; distortion is
          ``k1``, ``k2``, ``k3``, ``p1``, ``p2``, or with the ``camera_model`` OPENCV_FISHEYE ``k1`` to ``k4``. The
          world is that of the poses: ``applied_transform``, ``scale``, ``offset`` and ``aabb_scale`` are left alone.
        - A folder with a COLMAP model, text or binary, in it or in ``sparse/0``, and the pictures in ``images``.
        - An OpenCV calibration, YAML, XML or JSON: ``camera_matrix``, ``distortion_coefficients`` and
          ``extrinsic_parameters`` (or ``rvecs`` and ``tvecs``) of the pictures in a folder, in the order of their
          names.

        Distorted images are straightened on reading, and their masks: the result shows the greatest upright rectangle
        that is wholly in the image, up to 60° to each side, and its cameras are pinholes. Images of several sizes are
        brought to the size of most of them, width and height each by its own factor, and their intrinsics with them:
        nothing is cut off or added, and a warning says it.

        Coverage comes from ``mask_path`` where given, then from ``masks``, then from the image's alpha channel; else
        the image is itself a mask if it has no colour; else from a folder ``masks`` beside the images. Masks of nothing
        but 0 and 1, as labels are, count as 0 and 255.

        Args:
            path: the file, or its folder.
            opaque: take coloured images without alpha or mask as covering the whole frame, rather than refuse them.
            near: of the cameras.
            dtype: torch.float32 or torch.float64.
            allow_outside: let the file name images outside of its folder.
            images: the folder of the pictures that a COLMAP model or a calibration is of; None: ``images`` beside it,
                or its own folder.
            masks: a folder with a mask for each image, of the same name but for the ending.
            max_size: the longest side in pixels; larger images are made smaller, each pixel the mean of what it covers.
            colors: False leaves the colours out, and with them three quarters of the memory.
            background: what is behind the object in images that have neither mask nor alpha, and taken away: a colour,
                three numbers in [0, 1] or a name such as ``"white"``; an image of it alone, or its file; ``"auto"``:
                the colour along each image's border, if it is one.

        Raises:
            FileNotFoundError: the file, or an image or mask it names, is missing.
            ValueError: a damaged file, no images, no intrinsics, a kind of camera that is not known, distortion that
                cannot be undone, a matrix that is not rigid, images without coverage.
        """
        where = "PosedImages.load"
        path = pathlib.Path(path)
        if dtype not in (torch.float32, torch.float64):
            raise fail(where, "dtype", "torch.float32 or torch.float64", str(dtype), error=TypeError)
        if max_size is not None:
            max_size = integer(where, "max_size", max_size, 1)
        for name, folder in (("images", images), ("masks", masks)):
            if folder is not None and not os.path.isdir(folder):
                raise fail(where, name, "a folder that exists", str(folder), error=FileNotFoundError)
        kind, file = layout(path)
        with reading(where, file, kind):
            views = VIEWS[kind](file, None if images is None else pathlib.Path(images), allow_outside)
            read = read_views(
                views,
                opaque=opaque,
                masks=None if masks is None else pathlib.Path(masks),
                max_size=max_size,
                colors=colors,
                dtype=dtype,
                background=None if background is None else as_background(where, background),
            )
            height, width = read.alpha.shape[1:]
            cameras = Camera.from_K(read.K, read.R, read.t, image_size=(height, width), near=near).to(dtype=dtype)
            made = cls(None, read.alpha, cameras, read.names)
            if read.colors is not None:
                ends = [end for one in read.colors for end in one.extremes]
                _unit_range("PosedImages", "images", torch.tensor(ends))
                made._photographs = read.colors
            return made


def _unit_range(where: str, name: str, value: torch.Tensor) -> None:
    if value.device.type == "cpu" and value.numel():
        low, high = (float(x) for x in torch.aminmax(value.detach()))
        # Sums of rendered fragments stray from [0, 1] by rounding; saving clips them.
        if low < -1e-3 or high > 1.0 + 1e-3:
            fix = "Divide 8-bit values by 255." if high > 2 else "Clamp them with .clamp(0, 1)."
            raise fail(where, name, "in [0, 1]", f"values from {low:g} to {high:g}", fix)
