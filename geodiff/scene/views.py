# SPDX-License-Identifier: Apache-2.0
"""Views that a file names, of whatever layout, read as images of one size seen by pinhole cameras."""

import os
import pathlib
from collections import Counter
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch

from geodiff.guard import inside
from geodiff.scene.backdrop import cut_out
from geodiff.scene.images import image_size, read_image, scale_of_labels
from geodiff.scene.lens import Lens, Resampler, Window
from geodiff.scene.photographs import Photograph, give_back, rooms
from geodiff.validation import fail, warn

WHERE = "PosedImages.load"
IMAGE_ENDINGS = (".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff")
_MASKS = ("masks", "mask")


class View(NamedTuple):
    """One image, as a file of cameras describes it.

    Attributes:
        source: the file and the place in it, for messages.
        file: the image's name in it.
        image: where that is.
        mask: the mask that the file gives for it.
        base: the folder in which a folder of masks may be.
        lens: from the image's size to its lens.
        pose: R (3, 3) and t (3,), world to camera, in float64 and the axes of `Camera`.
    """

    source: str
    file: str
    image: pathlib.Path
    mask: pathlib.Path | None
    base: pathlib.Path
    lens: Callable[[tuple[int, int]], Lens]
    pose: tuple[torch.Tensor, torch.Tensor]


class Read(NamedTuple):
    """What was read of B views.

    Attributes:
        colors: (H, W, 3) of each, None where they were not wanted.
        alpha: (B, H, W).
        names: of the views.
        K: (B, 3, 3) in pixels, float64.
        R: (B, 3, 3), float64.
        t: (B, 3), float64.
    """

    colors: list[Photograph] | None
    alpha: torch.Tensor
    names: list[str]
    K: torch.Tensor
    R: torch.Tensor
    t: torch.Tensor


def read_views(
    views: Sequence[View],
    *,
    opaque: bool,
    masks: pathlib.Path | None,
    max_size: int | None,
    colors: bool,
    dtype: torch.dtype,
    background: str | torch.Tensor | None = None,
) -> Read:
    """Read the images of views, straighten what lenses bent, and bring all to one size.

    That is the size of most of them, no side longer than ``max_size``. An image that has it already, and no distortion,
    is taken as it is.
    """
    views = _there(views)
    sizes = [image_size(view.image, WHERE) for view in views]
    lenses = [view.lens(size) for view, size in zip(views, sizes, strict=True)]
    size = _common_size(sizes, max_size)
    resample = Resampler(size)
    kept: list[Photograph] = []
    room = rooms(len(views) if colors else 0, size)
    alphas = torch.empty(len(views), *size, dtype=dtype)
    windows: dict[Lens, Window] = {}
    Ks, most, soft = [], [], []
    for i, view in enumerate(views):
        lens = lenses[i]
        if lens not in windows:
            windows[lens] = _window(lens, view)
        color, alpha, cut_out = _picture(view, opaque, masks, background)
        most.append(alpha.amax() if alpha.numel() else alpha.new_zeros(()))
        soft.append(bool(((alpha > 0) & (alpha < 1)).any()))
        # What is transparent has no colour of its own to be mixed into its neighbours.
        weight = alpha[..., None] if cut_out else torch.ones_like(alpha[..., None])
        same = lens.straight and sizes[i] == size
        if colors:
            color = color if same else _mixed(resample, color, weight, lens, windows[lens])
            kept.append(Photograph.of(color, room[i]))
        alphas[i] = alpha if same else resample(alpha[..., None], lens, windows[lens])[..., 0].clamp(0, 1)
        Ks.append(lens.K if same else windows[lens].K(size))
        give_back(sizes[i][0] * sizes[i][1])
    scale = scale_of_labels(torch.stack(most)[:, None, None], soft)
    if bool((scale != 1).any()):
        alphas *= scale
    R, t = (torch.stack(part) for part in zip(*(view.pose for view in views), strict=True))
    return Read(kept if colors else None, alphas, _names(views), torch.stack(Ks), R, t)


def _there(views: Sequence[View]) -> list[View]:
    """Return the views whose images are there, which is not all of them in sets that were thinned out later."""
    there = [view for view in views if os.path.isfile(view.image)]
    gone = [view.file[:100] for view in views if not os.path.isfile(view.image)]
    if gone and there:
        some = ", ".join(gone[:3]) + (", …" if len(gone) > 3 else "")
        warn(f"{WHERE}: {len(gone)} of {len(views)} images are not there, and left out: {some}")
    return there or list(views)  # of which the first is missed by its name


def _mixed(resample: Resampler, color: torch.Tensor, weight: torch.Tensor, lens: Lens, window: Window) -> torch.Tensor:
    """Return colours on the new pixels, each the mean of what is there by its weight; where nothing is, of all."""
    plain = resample(color, lens, window).clamp(0, 1)
    if bool((weight == 1).all()):
        return plain
    total = resample(weight, lens, window)
    return torch.where(total > 1e-6, resample(color * weight, lens, window) / total.clamp_min(1e-6), plain).clamp(0, 1)


def _common_size(sizes: list[tuple[int, int]], max_size: int | None) -> tuple[int, int]:
    """Return the size (H, W) that most images have; of several such the largest."""
    counts = Counter(sizes)
    height, width = max(counts, key=lambda size: (counts[size], size[0] * size[1], size))
    if max_size is not None and max(height, width) > max_size:
        factor = max_size / max(height, width)
        height, width = max(1, round(height * factor)), max(1, round(width * factor))
    if len(counts) > 1:
        some = ", ".join(f"{n} of {h}×{w}" for (h, w), n in counts.most_common(4)) + (", …" if len(counts) > 4 else "")
        warn(f"{WHERE}: images of {len(counts)} sizes ({some}): brought to {height}×{width}, their cameras with them.")
    return height, width


def _window(lens: Lens, view: View) -> Window:
    window = lens.window()
    if window is None:
        numbers = ", ".join(f"{c:g}" for c in lens.coefficients)
        fix = "Is their order right, and the focal length in pixels?"
        raise fail(WHERE, "path", "of distortion that can be undone", f"coefficients {numbers} in {view.source}", fix)
    return window


def _picture(
    view: View, opaque: bool, masks: pathlib.Path | None, background: str | torch.Tensor | None
) -> tuple[torch.Tensor, torch.Tensor, bool]:
    """Return the colour (H, W, 3), the coverage (H, W), and whether that is the image's own alpha."""
    image = read_image(view.image, WHERE)
    color = image[..., :3] if image.shape[-1] > 1 else image.expand(-1, -1, 3)
    mask = view.mask
    if mask is None and masks is not None:
        mask = _beside(view, [masks])
        if mask is None:
            raise fail(
                WHERE, "masks", f"a folder with a mask for {view.file}", f"{masks} without", error=FileNotFoundError
            )
    if mask is None and image.shape[-1] == 4:
        return color, image[..., 3], True
    if mask is None and background is not None:
        return *cut_out(WHERE, color, background, view.file), True
    if mask is None and (image.shape[-1] == 1 or bool((image == image[..., :1]).all())):
        return color, image[..., 0], False
    if mask is None:
        mask = _beside(view, [view.base / name for name in _MASKS])
    if mask is not None:
        return color, _mask(mask, view, color), False
    if opaque:
        return color, torch.ones_like(image[..., 0]), False
    got = f"colour without either in {view.file}"
    fix = "Add masks, in a folder masks beside them, or pass opaque=True if the object fills every image."
    raise fail(WHERE, "frames", "images with an alpha channel or a `mask_path`", got, fix)


def _mask(path: pathlib.Path, view: View, color: torch.Tensor) -> torch.Tensor:
    """Return a mask (H, W): of a cut-out picture, a grey one, or a grey one saved in colour."""
    mask = read_image(path, WHERE)
    alpha = mask[..., 3] if mask.shape[-1] == 4 else mask[..., :3].mean(-1)
    if alpha.shape != color.shape[:2]:
        expected = f"of the size {color.shape[0]}×{color.shape[1]} of its image {view.file}"
        raise fail(WHERE, "mask_path", expected, f"{alpha.shape[0]}×{alpha.shape[1]} in {path}")
    return alpha


def _beside(view: View, folders: Sequence[pathlib.Path]) -> pathlib.Path | None:
    """Return the image's mask in a folder of them: of the same name but for the ending, or with one more."""
    parts = _parts(view.file)
    for folder in folders:
        if not folder.is_dir():
            continue
        for k in range(len(parts)):
            whole = folder.joinpath(*parts[k:])
            for name in (whole.stem, whole.name, view.image.name):  # whose ending the file may leave out
                found = with_ending(whole.with_name(name))
                if found is not None:
                    return found
    return None


def with_ending(path: pathlib.Path) -> pathlib.Path | None:
    """Return the image file of a path without ending, whichever it has, or None."""
    for ending in IMAGE_ENDINGS:
        for spelt in (ending, ending.upper()):
            other = path.with_name(path.name + spelt)
            if os.path.isfile(other):
                return other
    return None


def found_image(folder: pathlib.Path, key: str, name: object, file: pathlib.Path, allow_outside: bool) -> pathlib.Path:
    """Return the image in a folder that a file names; Blender leaves the ending out, cameras write it in capitals."""
    if not isinstance(name, str):
        raise fail(WHERE, key, "the name of a file", f"{name!r} in {file}")
    found = inside(folder, name, allow_outside)
    if found is None:
        place = f"the folder of {file.name}" if folder == file.parent else str(folder)
        fix = "Pass allow_outside=True to read it all the same."
        raise fail(WHERE, key, f"in {place}", f"{name[:200]!r} in {file}", fix)
    if os.path.isfile(found):
        return found
    stems = [found.name] + ([found.stem] if found.suffix.lower() in IMAGE_ENDINGS else [])
    for stem in stems:
        for ending in IMAGE_ENDINGS:
            for spelt in (ending, ending.upper()):
                other = found.with_name(stem + spelt)
                if other.suffix.lower() == (found.suffix.lower() if stem != found.name else ending):
                    if os.path.isfile(other):
                        return other
    return found


def _parts(file: str) -> list[str]:
    parts = pathlib.PurePosixPath(file.replace("\\", "/")).parts
    return [part for part in parts if part not in ("..", ".", "/")]


def _names(views: Sequence[View]) -> list[str]:
    """Return the views' names: their files without ``images/`` and, where that leaves them different, their endings."""
    whole, short = [], []
    for view in views:
        parts = _parts(view.file)
        name = "/".join(parts[1:] if parts[0] == "images" and len(parts) > 1 else parts)
        ending = pathlib.PurePosixPath(name).suffix
        whole.append(name)
        short.append(name[: -len(ending)] if ending.lower() in IMAGE_ENDINGS else name)
    return whole if len(set(short)) < len(short) == len(set(whole)) else short
