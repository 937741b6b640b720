# SPDX-License-Identifier: Apache-2.0
"""Images on surfaces: what a texture is, and its colour at texture coordinates."""

from collections.abc import Callable
from types import ModuleType
from typing import Any

import torch
from torch.nn.functional import adaptive_avg_pool2d

from geodiff import ops
from geodiff.constants import on_device
from geodiff.modes import outside_autocast
from geodiff.reference.shading import WRAPS, texels_at, wrapped
from geodiff.saving import Saved
from geodiff.validation import as_tensor, choice, fail, floating


@outside_autocast
class Texture(Saved):
    """An image that lies on a surface, or a batch of them of one size.

    Texel (row i, column j) has its centre at u = (j + ½)/W, v = 1 − (i + ½)/H: u runs to the right, v up, and (0, 0) is
    the lower left corner of the image.

    Args:
        image: (..., H, W, C) float32 or float64, row 0 on top; C is 1 (grey), 3, or 4 (the renderer ignores alpha).
        wrap: what lies beyond [0, 1]: ``"repeat"`` (tiles), ``"clamp"`` (the edge goes on), ``"mirror"`` (tiles, every
            second one flipped).
        filter: ``"bilinear"`` or ``"nearest"``.
        mipmaps: average texels where they are smaller than a pixel: levels of half the size each, blended between two
            (Williams, "Pyramidal parametrics", 1983).

    Gradients: in the image and (bilinear) in the coordinates. They are discontinuous in the coordinates where those
    cross the centres of texels; ``"nearest"`` has none in the coordinates, nor has the choice of the level.

    Raises:
        TypeError, ValueError: an image of the wrong rank, dtype or number of channels, NaN, unknown modes.

    Example:
        >>> import torch, geodiff as gd
        >>> ramp = gd.Texture(torch.tensor([[[0.0], [1.0]]]), wrap="clamp")
        >>> ramp.sample(torch.tensor([[0.25, 0.5], [0.5, 0.5], [0.75, 0.5]]))
        tensor([[0.0000],
                [0.5000],
                [1.0000]])
    """

    _fields_kept = ("image", "wrap", "filter", "mipmaps")

    def __init__(self, image: Any, wrap: str = "repeat", filter: str = "bilinear", mipmaps: bool = False) -> None:
        given = image.image if isinstance(image, Texture) else image
        fix = "Row, column, channel; for one channel use image[..., None]."
        self.image: torch.Tensor = as_tensor("Texture", "image", given)
        floating("Texture", "image", self.image, ("...", "H", "W", "C"), fix)
        height, width, channels = self.image.shape[-3:]
        if channels not in (1, 3, 4) or height == 0 or width == 0:
            raise fail("Texture", "image", "of one or more texels of 1, 3 or 4 channels", self.image, fix)
        self.wrap = choice("Texture", "wrap", wrap, WRAPS)
        self.filter = choice("Texture", "filter", filter, ("bilinear", "nearest"))
        self.mipmaps = bool(mipmaps)

    @property
    def shape(self) -> torch.Size:
        """(..., H, W, C)."""
        return self.image.shape

    @property
    def batch_shape(self) -> torch.Size:
        """The leading shape, empty for a single texture."""
        return self.image.shape[:-3]

    @property
    def dtype(self) -> torch.dtype:
        """Of the image."""
        return self.image.dtype

    @property
    def device(self) -> torch.device:
        """Of the image."""
        return self.image.device

    def __repr__(self) -> str:
        more = ", mipmaps" if self.mipmaps else ""
        return f"Texture({tuple(self.shape)}, {self.wrap}, {self.filter}{more})"

    def map(self, change: Callable[[torch.Tensor], torch.Tensor]) -> "Texture":
        """Return the texture with another image and the same modes."""
        return Texture(change(self.image), self.wrap, self.filter, self.mipmaps)

    def with_image(self, image: torch.Tensor) -> "Texture":
        """Return the texture with another image and the same modes."""
        return self.map(lambda _: image)

    @property
    def levels(self) -> list[torch.Tensor]:
        """The image and its halves (..., H_l, W_l, C), rounded up, down to one texel; or the image alone.

        Made afresh each time, since the image may be changed in place by an optimiser.
        """
        levels = [self.image]
        while self.mipmaps and max(levels[-1].shape[-3:-1]) > 1:
            *batch, height, width, channels = levels[-1].shape
            half = halved(levels[-1].reshape(-1, height, width, channels))
            levels.append(half.reshape(*batch, *half.shape[1:]))
        return levels

    def sample(
        self, uv: torch.Tensor, lod: torch.Tensor | None = None, index: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Return the colours at texture coordinates.

        Args:
            uv: (P, 2).
            lod: (P,) the level for mip-maps, the logarithm to base 2 of texels a pixel; the finest where left out.
            index: (P,) integers, the texture of a batch; the first where left out.

        Returns:
            (P, C).

        Raises:
            ValueError: `uv` of the wrong shape, or a batch without `index`.
        """
        return self.sample_by(ops, uv, lod, index)

    def sample_by(
        self, backend: ModuleType, uv: torch.Tensor, lod: torch.Tensor | None, index: torch.Tensor | None
    ) -> torch.Tensor:
        """Return `sample` as `geodiff.ops` or its twin `geodiff.reference` computes it."""
        floating("Texture.sample", "uv", uv, ("P", 2), finite=False)
        if index is None and self.batch_shape.numel() != 1:
            raise fail("Texture.sample", "index", "given for a batch of textures", "None", "Say which one each has.")
        if self.filter == "bilinear" and (not self.mipmaps or lod is None):
            image = self.image.reshape(-1, *self.shape[-3:]).to(uv.dtype)
            which = torch.zeros(0, dtype=torch.int64, device=uv.device) if index is None else index
            return backend.sample(image, uv, which, wrap=self.wrap)
        if lod is None or not self.mipmaps:
            lod = torch.zeros_like(uv[:, 0])
        # Two levels: texels of both in one table, blended at once.
        levels = self.levels
        table = on_device(torch.tensor([level.shape[-3:-1] for level in levels], device="cpu"), uv.device)
        count = self.batch_shape.numel() * table.prod(dim=1)
        start = count.cumsum(0) - count
        lod = lod.detach().to(uv.dtype).clamp(0, len(levels) - 1)
        fine = lod.floor().long()
        coarse = (fine + 1).clamp(max=len(levels) - 1)
        part = (lod - fine)[:, None]
        parts = [self._terms(uv, table[level, 0], table[level, 1], start[level], index) for level in (fine, coarse)]
        rows = torch.cat([level.reshape(-1, self.shape[-1]) for level in levels])
        weight = torch.cat([parts[0][1] * (1 - part), parts[1][1] * part], dim=1)
        return backend.blend(rows.to(uv.dtype), torch.cat([parts[0][0], parts[1][0]], dim=1), weight)

    def _terms(
        self, uv: torch.Tensor, height: Any, width: Any, start: Any, index: torch.Tensor | None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the texels (P, J) that are blended, rows of a table, and their weights."""
        base = start if index is None else start + index.long() * (height * width)
        if self.filter == "bilinear":
            texels, weights = texels_at(uv, height, width, self.wrap)
            return texels + base[:, None], weights
        row = wrapped(((1 - uv[:, 1]) * height).floor().long(), height, self.wrap)
        column = wrapped((uv[:, 0] * width).floor().long(), width, self.wrap)
        return (base + row * width + column)[:, None], torch.ones_like(uv[:, :1])


def halved(images: torch.Tensor) -> torch.Tensor:
    """Return images (N, H, W, C) of half the size, rounded up: means of two texels, of three where a side is odd.

    Windows of an odd side overlap, and torch's own pooling adds up their gradients on a GPU in any order: these would
    not repeat to the bit. So it is made of slices there.
    """
    if images.is_cpu:
        _, height, width, _ = images.shape
        size = (height + 1) // 2, (width + 1) // 2
        return adaptive_avg_pool2d(images.permute(0, 3, 1, 2), size).permute(0, 2, 3, 1)
    return _halved(_halved(images.movedim(2, 0)).movedim(0, 2).movedim(1, 0)).movedim(0, 1)


def _halved(rows: torch.Tensor) -> torch.Tensor:
    """Return means of neighbouring rows (R, …)."""
    count = len(rows)
    if count == 1:
        return rows
    if count % 2 == 0:
        return (rows[0::2] + rows[1::2]) / 2
    inner = (rows[1:-2:2] + rows[2:-1:2] + rows[3::2]) / 3
    return torch.cat([(rows[:1] + rows[1:2]) / 2, inner, (rows[-2:-1] + rows[-1:]) / 2])
