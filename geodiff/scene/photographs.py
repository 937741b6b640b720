# SPDX-License-Identifier: Apache-2.0
"""Colours of photographs in the memory that they need: a byte where that is what was in the file."""

import ctypes
from typing import Any, NamedTuple

import torch

_ODD = 5  # of what numbers are no bytes this is the part up to which they are kept apart: their place takes most


class Photograph(NamedTuple):
    """Colours (H, W, 3) of one image, to the bit.

    Attributes:
        pixels: bytes, which stand for k / 255 rounded to float32; or the colours as they are.
        places: (N,) of those that are no bytes.
        values: (N,) what they are.
    """

    pixels: torch.Tensor
    places: torch.Tensor
    values: torch.Tensor

    @classmethod
    def of(cls, colors: torch.Tensor, room: torch.Tensor) -> "Photograph":
        """Keep colours (H, W, 3) in bytes, with the few that are none beside them; as they are where these are many.

        Args:
            colors: in [0, 1] but for rounding.
            room: (H, W, 3) for the bytes, a part of `rooms`.
        """
        colors = colors.detach().contiguous()
        pixels = (colors.clamp(0.0, 1.0) * 255.0).round().to(torch.uint8)
        places = (_numbers(pixels, colors.dtype) != colors).reshape(-1).nonzero()[:, 0]
        if _ODD * len(places) > colors.numel():
            return cls(colors, places[:0], colors.reshape(-1)[:0])
        return cls(room.copy_(pixels), places, colors.reshape(-1)[places])

    def numbers(self, dtype: torch.dtype) -> torch.Tensor:
        """Return the colours, in memory of their own."""
        if self.pixels.dtype != torch.uint8:
            return self.pixels.to(dtype, copy=True)
        colors = _numbers(self.pixels, dtype)
        colors.reshape(-1)[self.places] = self.values.to(dtype)
        return colors

    def to(self, device: torch.device | str | None) -> "Photograph":
        """Return the photograph on another device."""
        return Photograph(*(part.to(device=device) for part in self))

    @property
    def extremes(self) -> list[float]:
        """The least and the greatest number, where there are any."""
        return [float(end) for end in torch.aminmax(self.numbers(torch.float32))] if self.pixels.numel() else []


def rooms(count: int, size: tuple[int, int], device: torch.device | None = None) -> torch.Tensor:
    """Return room for the bytes of some images in one piece: small ones that stay would hold freed memory between them.

    Where nothing is written, no memory is taken.
    """
    return torch.empty(count, *size, 3, dtype=torch.uint8, device=device)


def _trim() -> Any:
    try:
        return ctypes.CDLL(None).malloc_trim  # of glibc
    except (AttributeError, OSError, TypeError):
        return None


_TRIM = _trim()
_LARGE = 2**19  # pixels


def give_back(pixels: int) -> None:
    """Return what work on an image of so many pixels has freed to the system, where these are many.

    glibc keeps freed blocks of up to 32 MB for later. What is small and stays is cut off them, so that the next large
    block does not fit in, and memory grows by tens of megabytes a view.
    """
    if pixels >= _LARGE and _TRIM is not None:
        _TRIM(0)


def _numbers(pixels: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    return pixels.to(torch.float32).div_(255.0).to(dtype)  # as `read_image` has them
