# SPDX-License-Identifier: Apache-2.0
"""Read and write single images as tensors of numbers in [0, 1]."""

import contextlib
import logging
import os
import pathlib
import warnings
from collections.abc import Sequence
from typing import IO, Any

import numpy as np
import torch
from PIL import Image, ImageFile, ImageOps, UnidentifiedImageError

from geodiff.guard import reading
from geodiff.validation import fail, warn

# Kinds that Pillow does not read, or only in part: colours in floating point or 16 bits.
_BY_IMAGEIO = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+", b"#?RADIANCE", b"#?RGBE", b"v/1\x01", b"BM6")
_MOST_PIXELS = 2**28


def read_image(path: pathlib.Path | IO[bytes], where: str, name: pathlib.Path | None = None) -> torch.Tensor:
    """Read an image as (H, W, C) float32 in [0, 1], row 0 on top; C is 1 for grey, 3 for colour, 4 with alpha.

    Sixteen bits are kept, numbers in floating point taken as they are, and images turned as their EXIF data say.

    Args:
        path: PNG, JPEG, WebP, TIFF or whatever else Pillow or imageio reads; or an open file with it.
        where: the public function, for the message.
        name: the file that an open one is from, for the message.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not an image.
    """
    shown = path if isinstance(path, pathlib.Path) else name
    if isinstance(path, pathlib.Path) and not os.path.isfile(path):
        raise fail(where, "path", "an image that exists", str(path), error=FileNotFoundError)
    # Pillow warns of pictures of many pixels, which are limited here, and of odd metadata.
    with reading(where, str(shown), what="image", fix="Is the file damaged?"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            array = _array(path)
        except UnidentifiedImageError:
            raise ValueError("of no kind that is known") from None
        if array.size == 0 or not np.isfinite(array).all():
            raise ValueError("no pixels" if array.size == 0 else "NaN or infinity in it")
    return torch.from_numpy(np.ascontiguousarray(array, dtype=np.float32))


def _array(path: pathlib.Path | IO[bytes]) -> np.ndarray:
    """Return (H, W, C) numbers in [0, 1]."""
    if isinstance(path, pathlib.Path):
        with path.open("rb") as file:
            return _array(file)
    start = path.read(16)
    path.seek(0)
    if start.startswith(_BY_IMAGEIO[:4]):
        return _tiff(path)
    if start.startswith(_BY_IMAGEIO[4:7]):
        import imageio.v3 as iio

        return _scaled(np.asarray(iio.imread(path.read())))
    with Image.open(path) as opened:
        if opened.width * opened.height > _MOST_PIXELS:
            raise ValueError(f"{opened.width}×{opened.height} pixels, more than {_MOST_PIXELS}")
        fine = _sixteen_bits(opened)
        turn = opened.getexif().get(0x0112, 1)
        if fine is None:
            image = ImageOps.exif_transpose(opened)
            if image.mode in ("I", "F") or image.mode.startswith("I;"):
                return _scaled(np.asarray(image))
            with_alpha = "A" in image.getbands() or "transparency" in image.info
            mode = "RGBA" if with_alpha else "L" if image.mode in ("1", "L") else "RGB"
            return _scaled(np.asarray(image.convert(mode)))
    return _scaled(_turned(fine, turn))


def _sixteen_bits(image: ImageFile.ImageFile) -> np.ndarray | None:
    """Return the colours of a PNG of 16 bits a channel, of which Pillow keeps the high bytes; None for others.

    Decoded once more with the bytes taken the other way round, it gives the low ones.
    """
    modes = {"RGB;16B": "RGB;16L", "RGBA;16B": "RGBA;16L", "LA;16B": None}
    tile = getattr(image, "tile", [])
    other = modes.get(tile[0][3]) if image.format == "PNG" and len(tile) == 1 and isinstance(tile[0][3], str) else None
    if other is None or image.fp is None or "transparency" in image.info:
        return None
    image.fp.seek(0)
    second = Image.open(image.fp)
    second.tile = [(*tile[0][:3], other)]  # type: ignore[list-item]
    low = np.asarray(second).astype(np.uint16)
    image.fp.seek(0)
    high = np.asarray(Image.open(image.fp)).astype(np.uint16)
    return high * 256 + low


def _tiff(file: IO[bytes]) -> np.ndarray:
    """Return a TIFF, of whole numbers or in floating point; its first page where it has several."""
    log = logging.getLogger("tifffile")
    before, log.disabled = log.disabled, True  # it tells of each fault of a damaged file
    try:
        return _tiff_page(file)
    except Exception:  # what it stumbles over, such as compressions that only Pillow knows
        file.seek(0)
        with Image.open(file) as opened:
            if opened.width * opened.height > _MOST_PIXELS:
                raise
            image = ImageOps.exif_transpose(opened)
            plain = image.mode in ("I", "F", "L", "RGB", "RGBA", "I;16", "I;16B")
            return _scaled(np.asarray(image if plain else image.convert("RGB")))
    finally:
        log.disabled = before


def _tiff_page(file: IO[bytes]) -> np.ndarray:
    import imageio.v3 as iio
    import tifffile

    with tifffile.TiffFile(file) as tiff:
        page: Any = tiff.pages[0]
        if page.size > 4 * _MOST_PIXELS:
            raise ValueError(f"{page.shape} pixels, more than {_MOST_PIXELS}")
        if int(page.photometric) == 3:
            raise LookupError("a palette")
        tag = page.tags.get(274)
        planar = int(page.planarconfig) == 2 and page.ndim == 3
        inverted = int(page.photometric) == 0
    file.seek(0)
    array = np.asarray(iio.imread(file.read(), plugin="tifffile", index=0))
    if planar and array.ndim == 3 and array.shape[0] in (1, 3, 4):
        array = np.moveaxis(array, 0, -1)
    array = _scaled(array)
    return _turned(1.0 - array if inverted else array, int(tag.value) if tag is not None else 1)


def _scaled(array: np.ndarray) -> np.ndarray:
    """Return (H, W, C) in [0, 1] of whole numbers, or of others as they are."""
    if array.dtype == bool:
        array = array.astype(np.float32)
    elif array.dtype.kind in "ui":
        # Pillow hands out 16-bit grey as 32 bits.
        most = 255.0 if array.dtype.itemsize == 1 else 65535.0 if array.max(initial=0) <= 65535 else 2.0**32 - 1
        array = np.maximum(array, 0).astype(np.float32) / np.float32(most)
    elif array.dtype.kind != "f":
        raise ValueError(f"pixels of {array.dtype}")
    if array.ndim == 2:
        array = array[..., None]
    if array.ndim != 3 or array.shape[-1] not in (1, 2, 3, 4):
        raise ValueError(f"pixels of shape {array.shape}")
    if array.shape[-1] == 2:  # grey with alpha
        array = np.concatenate((array[..., :1].repeat(3, axis=-1), array[..., 1:]), axis=-1)
    return array


def _turned(array: np.ndarray, turn: int) -> np.ndarray:
    """Return an image the way up that its orientation tag says (Exif 2.3, tag 0x0112)."""
    if turn in (5, 6, 7, 8):
        array = array.swapaxes(0, 1)
    if turn in (2, 3, 6, 7):
        array = array[:, ::-1]
    if turn in (3, 4, 7, 8):
        array = array[::-1]
    return array


def image_size(path: pathlib.Path, where: str) -> tuple[int, int]:
    """Return (H, W) of what `read_image` returns, from the file's heading alone where Pillow can tell it."""
    if os.path.isfile(path):
        with reading(where, str(path), what="image", fix="Is the file damaged?"), path.open("rb") as file:
            if not file.read(16).startswith(_BY_IMAGEIO):
                file.seek(0)
                with warnings.catch_warnings(), contextlib.suppress(UnidentifiedImageError):
                    warnings.simplefilter("ignore")
                    with Image.open(file) as opened:
                        turned = opened.getexif().get(0x0112, 1) in (5, 6, 7, 8)
                        return (opened.width, opened.height) if turned else (opened.height, opened.width)
    image = read_image(path, where)
    return image.shape[0], image.shape[1]


def label_scale(masks: torch.Tensor) -> torch.Tensor:
    """Return what masks (..., H, W) are multiplied with, (..., 1, 1): see `scale_of_labels`."""
    if masks.numel() == 0:
        return masks.new_ones(())
    soft = ((masks > 0) & (masks < 1)).flatten(-2).any(-1)
    return scale_of_labels(masks.amax((-2, -1), keepdim=True), soft.reshape(-1).tolist())


def scale_of_labels(most: torch.Tensor, soft: Sequence[bool]) -> torch.Tensor:
    """Return what masks are multiplied with: more than 1 for those of the labels 0 and 1.

    Of 8 or 16 bits these are read as 1/255 or 1/65535. Of several masks all are looked at, since a soft one may show
    very little: where others are soft, one of 0 and 1 stays as it is, and a warning says so.

    Args:
        most: (..., 1, 1) the greatest number of each mask.
        soft: whether each has one between 0 and 1.
    """
    scale = torch.ones_like(most)
    for n in (255.0, 65535.0):
        scale[(most * n - 1.0).abs() < 1e-3] = n
    labels = (scale > 1).reshape(-1).tolist()
    if any(labels) and any(some and not label for some, label in zip(soft, labels, strict=True)):
        warn(
            f"PosedImages.load: {sum(labels)} of {len(labels)} masks hold only 0 and 1, among soft ones: "
            "taken for almost empty. Where they are labels, multiply them by 255."
        )
        return torch.ones_like(scale)
    return scale


def as_bytes(colors: torch.Tensor) -> np.ndarray:
    """Return numbers in [0, 1] as bytes; those outside are clipped, see `warn_clipped`."""
    return np.rint(colors.detach().cpu().double().clamp(0.0, 1.0).numpy() * 255.0).astype(np.uint8)


def to_linear(numbers: np.ndarray) -> np.ndarray:
    """Return light in [0, 1] of a picture's numbers in [0, 1] (sRGB, IEC 61966-2-1)."""
    return np.where(numbers <= 0.04045, numbers / 12.92, ((np.maximum(numbers, 0.04045) + 0.055) / 1.055) ** 2.4)


def from_linear(light: np.ndarray) -> np.ndarray:
    """Return a picture's numbers of light, the inverse of `to_linear`."""
    root = np.maximum(light, 0.0031308) ** (1 / 2.4)
    return np.where(light <= 0.0031308, light * 12.92, root + 0.055 * (root - 1.0))  # 1 stays 1, to the bit


def warn_clipped(where: str, **colors: torch.Tensor | None) -> None:
    """Warn once of colours that do not fit into 8 bits, being outside of [0, 1] by more than their rounding."""
    found = []
    for name, value in colors.items():
        if value is None or value.numel() == 0:
            continue
        outside = int(((value < -0.5 / 255) | (value > 1 + 0.5 / 255)).sum())
        if outside:
            low, high = (float(bound) for bound in torch.aminmax(value.detach()))
            found.append(f"{outside} of {value.numel()} numbers of {name}, which go from {low:g} to {high:g}")
    if found:
        warn(f"{where}: colours outside of [0, 1] are clipped: {'; '.join(found)}")


def write_image(path: pathlib.Path | IO[bytes], image: torch.Tensor, bits: int = 8) -> None:
    """Write (H, W, C) in [0, 1] as a PNG, values outside clipped; with one channel 16 bits are possible."""
    array = image[..., 0] if image.shape[-1] == 1 else image
    if bits == 16:
        pixels = np.rint(array.detach().cpu().double().clamp(0.0, 1.0).numpy() * 65535.0).astype(np.uint16)
    else:
        pixels = as_bytes(array)
    Image.fromarray(pixels).save(path, format="PNG")
