# SPDX-License-Identifier: Apache-2.0
"""Which faces the pixels see, those that are there in one list."""

from typing import Any, NamedTuple

import torch

from geodiff.recording import is_replaying, or_nan, places, rows, spread
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
        return spread(values, self.place, self.shape.numel(), fill).reshape(*self.shape, *values.shape[1:])

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
        return spread(values, self.place, self.shape.numel(), fill).reshape(*self.shape, *values.shape[1:])

    def heaviest(self, weight: torch.Tensor) -> torch.Tensor:
        """Return which fragment of each pixel has the largest weight, of equal ones the first, (Q,)."""
        group = self.group()
        largest = weight.new_zeros(len(self.place)).scatter_reduce(0, group, weight, "amax")
        last = len(weight)
        best = torch.where(weight >= largest[group], torch.arange(last, device=weight.device), last)
        found = best.new_full((len(self.place),), last).scatter_reduce(0, group, best, "amin")
        return found.clamp(max=last - 1) if is_replaying() else found  # of pixels that there are too many

    def group(self) -> torch.Tensor:
        """Which of the Q pixels each fragment is in; in a replay, the last one for those that are in none."""
        if self.face.is_cpu:
            return torch.repeat_interleave(self.start[1:] - self.start[:-1])
        own = torch.arange(len(self.face), device=self.face.device)
        return torch.searchsorted(self.start[1:], own, right=True).clamp(max=len(self.place) - 1)


def find(view: View, *, blur: float = 0.0) -> FragmentList:
    """Find the visible face of each pixel."""
    found = view.ops.fragments(*view.packed, **view.frame, blur=blur, order="visible")
    face, shape = found.face_id.reshape(-1), found.face_id.shape
    place = places(face >= 0)
    barycentric = rows(found.barycentric.reshape(-1, 3), place, 0.0)
    if is_replaying():
        barycentric = or_nan(barycentric, (face >= 0).sum(), len(place))
    return listed(view, shape, place, rows(face, place, -1), barycentric, found)


def find_heaviest(view: View, ranking: Ranking, **options: Any) -> Layers:
    """Find the faces of each pixel that have a share in a softmax; options of `ops.heaviest`."""
    found = view.ops.heaviest(*view.packed, **view.frame, ranking=ranking, **options)
    shape = torch.Size((view.images, *view.image_size))
    face, barycentric, place = found.face_id, found.barycentric, found.place
    if is_replaying() and not place.is_cpu:
        face, barycentric = _spared(view, face, barycentric)
    layers = Layers(shape, place, found.start, face, face, found.distance, barycentric, found.depth)
    image = images_of(place, shape)
    return layers._replace(image=image[layers.group()] if view.images > 1 else images_of(face, shape))


def find_visible(view: View, blur: float) -> FragmentList:
    """Find the visible face of each pixel, as `find` does, but without the maps of distance and depth."""
    found = view.ops.visible(*view.packed, **view.frame, blur=blur)
    shape = torch.Size((view.images, *view.image_size, 1))
    return listed(view, shape, found.place, found.face_id, found.barycentric, None)


def listed(
    view: View, shape: torch.Size, place: torch.Tensor, face: torch.Tensor, barycentric: torch.Tensor, maps: Any
) -> FragmentList:
    """Put a list together, of places as `places` finds them."""
    if is_replaying() and not place.is_cpu:
        face, barycentric = _spared(view, face, barycentric)
    return FragmentList(shape, place, images_of(place, shape), face, barycentric, maps)


def _spared(view: View, face: torch.Tensor, barycentric: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Make middles of faces of the last image, seen nowhere, of what a list has too many."""
    there, faces = face >= 0, int(view.layout[-1, 2])
    if faces == 0:
        raise RuntimeError("Recording.replay: the last mesh has no faces, which cannot be replayed. Leave it out.")
    face = torch.where(there, face, torch.arange(len(face), device=face.device) % faces)  # no face has them all
    return face, torch.where(there[:, None], barycentric, 1 / 3)


def images_of(place: torch.Tensor, shape: torch.Size) -> torch.Tensor:
    """Return which image each place in (B, H, W, …) is in; in a replay, the last one for what is nowhere."""
    if shape[0] <= 1:
        return place.new_zeros(1).expand(len(place))
    image = place // shape[1:].numel()
    return image.clamp(max=shape[0] - 1) if is_replaying() else image
