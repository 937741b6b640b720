# SPDX-License-Identifier: Apache-2.0
"""Which faces the pixels see, those that are there in one list."""

from typing import Any, NamedTuple

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

    def dense(self, values: torch.Tensor, fill: float = 0.0) -> torch.Tensor:
        """Return values (P, C) or (P,) as (B, H, W, k[, C]), `fill` where there is no fragment."""
        full = values.new_full((self.shape.numel(), *values.shape[1:]), fill)
        return full.index_copy(0, self.place, values).reshape(*self.shape, *values.shape[1:])

    @property
    def there(self) -> torch.Tensor:
        """`(B, H, W, k)` bool."""
        return self.dense(torch.ones_like(self.barycentric[:, 0])) > 0


class Layers(NamedTuple):
    """The fragments that pixels mix, those of a pixel one after another, the heaviest first.

    Attributes:
        shape: `(B, H, W)`.
        place: where in the flattened `(B·H·W)` each of the Q pixels is.
        start: where the fragments of each begin, and P, (Q + 1,).
        image: which image each fragment is in, (P,).
        face: (P,).
        distance: (P,).
        barycentric: (P, 3).
        depth: (P,).
    """

    shape: torch.Size
    place: torch.Tensor
    start: torch.Tensor
    image: torch.Tensor
    face: torch.Tensor
    distance: torch.Tensor
    barycentric: torch.Tensor
    depth: torch.Tensor

    @property
    def points(self) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """`(image, face, barycentric)`."""
        return self.image, self.face, self.barycentric

    @property
    def row(self) -> torch.Tensor | None:
        """Which image each pixel is in, (Q,); None if there is only one."""
        return self.place // self.shape[1:].numel() if self.shape[0] > 1 else None

    def dense(self, values: torch.Tensor, fill: float = 0.0) -> torch.Tensor:
        """Return values (Q, C) or (Q,) as (B, H, W[, C]), `fill` where there is no fragment."""
        full = values.new_full((self.shape.numel(), *values.shape[1:]), fill)
        return full.index_copy(0, self.place, values).reshape(*self.shape, *values.shape[1:])

    def heaviest(self, weight: torch.Tensor) -> torch.Tensor:
        """Return which fragment of each pixel has the largest weight, of equal ones the first, (Q,)."""
        group = torch.repeat_interleave(self.start[1:] - self.start[:-1])
        largest = weight.new_zeros(len(self.place)).scatter_reduce(0, group, weight, "amax")
        best = (weight >= largest[group]).nonzero()[:, 0]
        none = best.new_full((len(self.place),), len(weight))
        return none.scatter_reduce(0, group[best], best, "amin")


def find(view: View, *, blur: float = 0.0) -> FragmentList:
    """Find the visible face of each pixel."""
    found = view.ops.fragments(*view.packed, **view.frame, blur=blur, order="visible")
    face, shape = found.face_id.reshape(-1), found.face_id.shape
    place = (face >= 0).nonzero()[:, 0]
    barycentric = found.barycentric.reshape(-1, 3).index_select(0, place)
    return FragmentList(shape, place, _images(place, shape), face.index_select(0, place), barycentric, found)


def find_heaviest(view: View, ranking: Ranking, **options: Any) -> Layers:
    """Find the faces of each pixel that have a share in a softmax; options of `ops.heaviest`."""
    found = view.ops.heaviest(*view.packed, **view.frame, ranking=ranking, **options)
    shape = torch.Size((view.images, *view.image_size))
    if view.images > 1:
        image = torch.repeat_interleave(found.place // shape[1:].numel(), found.start[1:] - found.start[:-1])
    else:
        image = _images(found.face_id, shape)
    return Layers(shape, found.place, found.start, image, found.face_id, found.distance, found.barycentric, found.depth)


def find_visible(view: View, blur: float) -> FragmentList:
    """Find the visible face of each pixel, as `find` does, but without the maps of distance and depth."""
    found = view.ops.visible(*view.packed, **view.frame, blur=blur)
    shape = torch.Size((view.images, *view.image_size, 1))
    return FragmentList(shape, found.place, _images(found.place, shape), found.face_id, found.barycentric, None)


def _images(place: torch.Tensor, shape: torch.Size) -> torch.Tensor:
    return place // shape[1:].numel() if shape[0] > 1 else place.new_zeros(1).expand(len(place))
