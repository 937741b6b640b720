# SPDX-License-Identifier: Apache-2.0
"""Read and write single images as tensors of numbers in [0, 1]."""

import pathlib

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError

from geodiff.validation import fail


def read_image(path: pathlib.Path, where: str) -> torch.Tensor:
    """Read an image as (H, W, C) float32 in [0, 1], row 0 on top; C is 1 for grey, 3 for colour, 4 with alpha.

    Args:
        path: PNG, JPEG or whatever else Pillow reads; 16 bits are kept where the image is grey.
        where: the public function, for the message.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not an image.
    """
    if not path.is_file():
        raise fail(where, "path", "an image that exists", str(path), error=FileNotFoundError)
    try:
        with Image.open(path) as image:
            if image.mode.startswith("I"):
                return torch.from_numpy(np.asarray(image).astype(np.float32) / 65535.0)[..., None]
            with_alpha = "A" in image.getbands() or "transparency" in image.info
            mode = "RGBA" if with_alpha else "L" if image.mode in ("1", "L") else "RGB"
            array = np.asarray(image.convert(mode)).astype(np.float32) / 255.0
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError) as error:
        raise fail(where, "path", "a readable image", f"{path} ({error})", "Is the file damaged?") from error
    return torch.from_numpy(array if array.ndim == 3 else array[..., None])


def write_image(path: pathlib.Path, image: torch.Tensor, bits: int = 8) -> None:
    """Write (H, W, C) in [0, 1] as a PNG, values outside clipped; with one channel 16 bits are possible."""
    array = image.detach().cpu().double().clamp(0.0, 1.0).numpy()
    if array.shape[-1] == 1:
        array = array[..., 0]
    scaled = np.rint(array * (2**bits - 1))
    Image.fromarray(scaled.astype(np.uint16 if bits == 16 else np.uint8)).save(path, format="PNG")
