# SPDX-License-Identifier: Apache-2.0
"""Which faces the pixels see, those that are there in one list."""

from typing import NamedTuple

import torch

from geodiff.reference.fragments import FragmentMaps, Ranking
from geodiff.render.view import View


class FragmentList(NamedTuple):
    """The fragments of a batch of images, those that are there in one list.

    Attributes:
        shape: `(B, H, W, k)`.
        place: where in the flattened `(B·H·W·k)` each of the P is.
        image: which image it is in, (P,).
        face: (P,).
        barycentric: (P, 3).
        maps: `(B, H, W, k)`; None if they were not asked for.
    """

    shape: torch.Size
    place: torch.Tensor
    image: torch.Tensor
    face: torch.Tensor
    barycentric: torch.Tensor
    maps: FragmentMaps | None

    @property
    def points(self) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """`(image, face, barycentric)`."""
        return self.image, self.face, self.barycentric

    @property
    def dense_maps(self) -> FragmentMaps:
        """The maps; only where they were asked for."""
        assert self.maps is not None
        return self.maps

    @property
    def distance(self) -> torch.Tensor:
        """(P,)."""
        return self.dense_maps.distance.reshape(-1).index_select(0, self.place)

    @property
    def depth(self) -> torch.Tensor:
        """(P,)."""
        return self.dense_maps.depth.reshape(-1).index_select(0, self.place)

    def only(self, kept: torch.Tensor) -> "FragmentList":
        """Return those fragments alone for which `kept` (B, H, W, k) holds; the maps stay."""
        own = kept.reshape(-1).index_select(0, self.place).nonzero()[:, 0]
        place, image, face, barycentric = (part.index_select(0, own) for part in self[1:5])
        return FragmentList(self.shape, place, image, face, barycentric, self.maps)

    def dense(self, values: torch.Tensor, fill: float = 0.0) -> torch.Tensor:
        """Return values (P, C) or (P,) as (B, H, W, k[, C]), `fill` where there is no fragment."""
        full = values.new_full((self.shape.numel(), *values.shape[1:]), fill)
        return full.index_copy(0, self.place, values).reshape(*self.shape, *values.shape[1:])

    @property
    def there(self) -> torch.Tensor:
        """`(B, H, W, k)` bool."""
        return self.dense(torch.ones_like(self.barycentric[:, 0])) > 0


def find(
    view: View, *, k: int = 1, blur: float = 0.0, ranking: Ranking | None = None, within: torch.Tensor | None = None
) -> FragmentList:
    """Find the visible face of each pixel, or the k of the largest weight; only those `within` (B, H, W) are listed."""
    order = "visible" if ranking is None else "weight"
    found = view.ops.fragments(*view.packed, **view.frame, k=k, blur=blur, order=order, ranking=ranking)
    face, shape = found.face_id.reshape(-1), found.face_id.shape
    listed = found.face_id >= 0 if within is None else (found.face_id >= 0) & within[..., None]
    place = listed.reshape(-1).nonzero()[:, 0]
    barycentric = found.barycentric.reshape(-1, 3).index_select(0, place)
    return FragmentList(shape, place, _images(place, shape), face.index_select(0, place), barycentric, found)


def find_visible(view: View, blur: float) -> FragmentList:
    """Find the visible face of each pixel, as `find` does, but without the maps of distance and depth."""
    found = view.ops.visible(*view.packed, **view.frame, blur=blur)
    shape = torch.Size((view.images, *view.image_size, 1))
    return FragmentList(shape, found.place, _images(found.place, shape), found.face_id, found.barycentric, None)


def _images(place: torch.Tensor, shape: torch.Size) -> torch.Tensor:
    return place // shape[1:].numel() if shape[0] > 1 else place.new_zeros(1).expand(len(place))
