# SPDX-License-Identifier: Apache-2.0
"""Animations as files: GIF, and MP4 with the extra geodiff[video]; written by imageio."""

import gc
import importlib.util
import os
import pathlib
import warnings
from collections.abc import Sequence

import numpy as np
from PIL import Image

from geodiff.scene.atomic import replacing
from geodiff.validation import choice, fail

ENDINGS = ("gif", "mp4")
_PALETTE = 8  # frames that a GIF's palette is made of


def check_animation(where: str, argument: str, path: str | os.PathLike[str]) -> str:
    """Return the ending of an animation's file, in small letters, if that can be written here.

    Raises:
        ValueError: an ending other than .gif and .mp4.
        IsADirectoryError: a folder of that name.
        ImportError: MP4 without the package that writes it.
    """
    ending = pathlib.Path(path).suffix.lower().removeprefix(".")
    if not ending:
        raise fail(where, argument, "a file name ending in .gif or .mp4", str(path))
    choice(where, argument, ending, ENDINGS)
    if os.path.isdir(path):
        raise fail(where, argument, "a file", f"the folder {path}", "Name a file in it.", IsADirectoryError)
    if ending == "mp4" and importlib.util.find_spec("imageio_ffmpeg") is None:
        raise ImportError(
            f"{where}: imageio-ffmpeg, which writes MP4, is not installed. Install it with "
            "pip install 'geodiff[video]', or name a .gif."
        )
    return ending


def write_animation(
    path: str | os.PathLike[str], frames: Sequence[np.ndarray], fps: float, where: str, dither: bool = False
) -> None:
    """Write frames (H, W, 3) of 8 bits as a GIF that repeats or as an MP4, whole or not at all.

    A GIF has one palette for all frames, or its colours would flicker: that of some of
    them. The same frames give the same bytes.

    Args:
        path: a .gif, or an .mp4.
        frames: one or more of one size; an MP4 of an odd size loses a row or a column.
        fps: frames a second, > 0; a GIF counts in hundredths of a second.
        where: the public function, for messages.
        dither: mix the colours of a GIF's palette, so that smooth shades have no bands.

    Raises:
        ValueError: an ending other than these.
        ImportError: MP4 without imageio-ffmpeg.
        OSError: the file cannot be written.
    """
    import imageio.v3 as imageio

    ending = check_animation(where, "path", path)
    with replacing(path, where) as part:
        if ending == "gif":
            pictures = [Image.fromarray(frame) for frame in frames]
            some = [*frames[:: -(-len(frames) // _PALETTE)], frames[-1]]
            palette = Image.fromarray(np.concatenate(some)).quantize(256, dither=Image.Dither.NONE)
            how = Image.Dither.FLOYDSTEINBERG if dither else Image.Dither.NONE
            few = [np.asarray(picture.quantize(palette=palette, dither=how).convert("RGB")) for picture in pictures]
            imageio.imwrite(part, np.stack(few), extension=".gif", duration=10 * round(100 / fps), loop=0)
            return
        height, width = frames[0].shape[0] // 2 * 2, frames[0].shape[1] // 2 * 2
        even = np.stack([frame[:height, :width] for frame in frames])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of the encoder's process and of blocks of 16 pixels
            # One thread and no date: the same frames make the same file.
            imageio.imwrite(
                part,
                even,
                extension=".mp4",
                fps=fps,
                codec="libx264",
                macro_block_size=1,
                output_params=["-threads", "1", "-fflags", "+bitexact", "-flags:v", "+bitexact", "-map_metadata", "-1"],
            )
            gc.collect()  # it leaves its pipes to the collector, which warns of them
