# SPDX-License-Identifier: Apache-2.0
"""Coverage of photographs before a background that is known: a colour, an image of it alone, or what is along the rim.

A pixel is ``α·object + (1 − α)·background``. Where it is as the background, up to the noise that is measured where the
background is surely seen, α is 0; away from the outline it is 1; on the outline it follows from the object's colour
beside it.
"""

import os
import pathlib
from typing import Any, NamedTuple

import numpy as np
import torch

from geodiff.scene.images import read_image
from geodiff.validation import as_tensor, fail, warn

_RIM = 3  # pixels along the border of an image
_LEAST, _NOISE = 0.04, 4.0  # of a difference in some channel; of the noise's standard deviation
_EVEN = 0.15  # by how much the colours along the border may differ, for "auto"
_AGREES = 0.6  # the share of the border that must show the background
_SPECK = 9  # pixels of what is noise
_BESIDE = 3  # pixels: how far the outline's colour is looked for
_LIKE = 0.02  # the share of an object's pixels that may be like the background without a warning


class Cut(NamedTuple):
    """An object cut out: its colours (H, W, 3), free of the background, and its coverage (H, W)."""

    color: torch.Tensor
    alpha: torch.Tensor


def as_background(where: str, value: Any) -> str | torch.Tensor:
    """Return a background that is given as a colour, its name, a file or ``"auto"``: that word, (3,) or (H, W, 3)."""
    if isinstance(value, str) and value == "auto":
        return value
    if isinstance(value, str | os.PathLike):
        from PIL import ImageColor

        if os.path.isfile(value):
            image = read_image(pathlib.Path(value), where)
            return image[..., :3] if image.shape[-1] >= 3 else image.expand(-1, -1, 3)
        try:
            return torch.tensor(ImageColor.getrgb(str(value))[:3], dtype=torch.float32) / 255
        except ValueError:
            expected = "a colour such as 'white' or '#00ff00', the file of an image, or 'auto'"
            raise fail(where, "background", expected, repr(str(value))) from None
    color = as_tensor(where, "background", value)
    if not (color.is_floating_point() or color.dtype == torch.bool or color.is_complex()):
        if color.numel() and int(color.max()) > 1:
            raise fail(where, "background", "in [0, 1]", color, "Divide 8-bit values by 255.")
        color = color.float()
    if not color.is_floating_point() or color.shape[-1:] != (3,) or color.dim() not in (1, 3):
        raise fail(where, "background", "a colour (3,) or an image (H, W, 3) in [0, 1], or 'auto'", color)
    if color.numel() and not (float(color.min()) >= 0 and float(color.max()) <= 1):
        raise fail(where, "background", "in [0, 1]", color, "Divide 8-bit values by 255.")
    return color.detach()


def cut_out(where: str, image: torch.Tensor, background: str | torch.Tensor, name: str) -> Cut:
    """Cut what is not the background out of an image (H, W, 3).

    Args:
        where: the public function, for messages.
        image: colours in [0, 1].
        background: as `as_background` returns it.
        name: of the image, for messages.

    Raises:
        ValueError: a background that the border of the image does not show; for ``"auto"``, a border of many colours;
            an image of the background of another size.

    Warns:
        UserWarning: of an object that has colours like the background's.
    """
    from scipy import ndimage

    picture = image.detach().double().numpy()
    height, width = picture.shape[:2]
    rim = np.ones((height, width), dtype=bool)
    rim[_RIM : height - _RIM, _RIM : width - _RIM] = False
    if isinstance(background, str):
        ground = np.median(picture[rim], axis=0)
        spread = float((np.quantile(picture[rim], 0.9, axis=0) - np.quantile(picture[rim], 0.1, axis=0)).max())
        if spread > _EVEN:
            got = f"colours that differ by {spread:.2f} in {name}"
            fix = "Give its colour or an image of it alone, or masks."
            raise fail(where, "background", "one colour along the border of each image, for 'auto'", got, fix)
    else:
        ground = background.double().numpy()
        if ground.ndim == 3 and ground.shape != picture.shape:
            expected = f"of the size {height}×{width} of {name}"
            raise fail(where, "background", expected, f"{ground.shape[0]}×{ground.shape[1]}")
    ground = np.broadcast_to(ground, picture.shape)
    off = np.abs(picture - ground).max(-1)
    noise = 1.4826 * float(np.median(off[rim]))
    limit = max(_LEAST, _NOISE * noise)
    shown = float((off[rim] < max(_LEAST, min(limit, _EVEN))).mean())
    if shown < _AGREES:
        raise fail(
            where,
            "background",
            "what is along the border of the images",
            f"another in {1 - shown:.0%} of the border of {name}",
            "Is it lit unevenly? Give an image of it alone, or masks.",
        )
    inside = off > limit
    # What is open to all sides for a pixel or two is noise, and so is a gap of so few.
    for value in (True, False):
        label, count = ndimage.label(inside == value)
        if count:
            size = np.bincount(label.reshape(-1))
            inside[(size < _SPECK)[label] & (label > 0)] = not value
    near = ndimage.binary_dilation(inside, iterations=1, structure=np.ones((3, 3)))
    core = ndimage.binary_erosion(inside, iterations=2, structure=np.ones((3, 3)), border_value=1)
    core &= off > 2 * limit
    alpha = inside.astype(float)
    clean = picture.copy()
    if core.any():
        far, nearest = ndimage.distance_transform_edt(~core, return_indices=True)
        own = picture[tuple(nearest)]
        contrast = own - ground
        rims = near & ~core & (far <= _BESIDE * 1.5)
        power = (contrast**2).sum(-1)
        share = np.clip(((picture - ground) * contrast).sum(-1) / np.maximum(power, 1e-12), 0, 1)
        # Next to the inside, only what is like the background is the less of it.
        alpha = np.where(rims, share, alpha)
        deep = ndimage.binary_erosion(inside, iterations=1, structure=np.ones((3, 3)), border_value=1)
        alpha[deep & ~core] = 1.0
        alpha[alpha < limit / np.maximum(np.sqrt(power), limit)] = 0.0
        some = rims & (alpha > 0)
        mixed = (picture - (1 - alpha[..., None]) * ground) / np.maximum(alpha[..., None], 1e-6)
        clean = np.where((some & (alpha > 0.25))[..., None], np.clip(mixed, 0, 1), clean)
        clean = np.where((some & (alpha <= 0.25))[..., None], own, clean)
    area = int(inside.sum())
    alike = float((off[core | (alpha >= 1)] < 2 * limit).mean()) if (core | (alpha >= 1)).any() else 0.0
    filled = ndimage.binary_fill_holes(inside)
    gaps = int(filled.sum()) - area
    if area and (alike > _LIKE or gaps > _LIKE * area):
        what = f"{alike:.0%} of it is close to it" if alike > _LIKE else f"{gaps} pixels like it are in its midst"
        warn(f"{where}: in {name} the object may have the colour of the background ({what}): look at the masks.")
    return Cut(torch.from_numpy(clean).to(image.dtype), torch.from_numpy(alpha).to(image.dtype))
