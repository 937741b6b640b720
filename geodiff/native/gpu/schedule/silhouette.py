# SPDX-License-Identifier: Apache-2.0
"""The soft silhouette on a GPU, see cuda/raster/silhouette.h."""

import dataclasses
from collections.abc import Iterator
from typing import Any

import torch

from geodiff import members
from geodiff.native.gpu import structs
from geodiff.native.gpu.launcher import launch
from geodiff.native.gpu.names import instance
from geodiff.native.gpu.schedule.corners import scatter

HEADER = "raster/silhouette.h"
_TILE = 16
_SETUP = 64  # threads of silhouette_setup
_BLOCKS = 8192  # more than fit on a card at once, since tiles differ: with fewer, a tile's faces are cut into slices
_UNIT_BLOCKS = 8192  # of the way back, likewise
_UNITS = 1 << 21  # of all faces: with many faces, each is cut into fewer
_BITS = 1 << 29  # of a call: with more images they go in groups, with more faces tiles have theirs in common
_FACES = 1 << 19  # of a call's way back: more images go in groups, since each face has some 500 bytes there
_LEAST_Q = {"SchweizerSklar": (1e-12, 1e-20)}


@dataclasses.dataclass
class Scene:
    """The scene of a call, set up; its tensors live as long as it."""

    real: str
    images: int
    most_faces: int
    height: int
    width: int
    slices: int
    names: tuple[str, str, str, str]
    struct: Any
    kept: list[torch.Tensor]
    units: torch.Tensor

    @property
    def pixels(self) -> int:
        """Of all images."""
        return self.images * self.height * self.width

    def launch(self, kernel: str, grid: int, threads: int, *arguments: Any) -> None:
        """Run a kernel that takes the scene first."""
        launch(HEADER, f"gd::{kernel}", (grid,), threads, self.struct, *arguments, device=self.units.device)


def most_faces_of(layout: torch.Tensor) -> int:
    """Return the most faces of an image."""
    return max((row[2] for row in layout.tolist()), default=0)


def _bits(most_faces: int, height: int, width: int, side: int = _TILE) -> int:
    """Of an image, with tiles of so many pixels a side."""
    return 32 * -(-most_faces // 32) * -(-height // side) * -(-width // side)


def groups(layout: torch.Tensor, height: int, width: int) -> Iterator[tuple[slice, torch.Tensor]]:
    """Yield the images that go together, so that the bits of their tiles have room, and their rows of the layout."""
    yield from _in_groups(layout, _BITS // max(1, _bits(most_faces_of(layout), height, width)))


def back_groups(layout: torch.Tensor) -> Iterator[tuple[slice, torch.Tensor]]:
    """Yield the images whose faces have room on the way back together, and their rows of the layout."""
    yield from _in_groups(layout, _FACES // max(1, most_faces_of(layout)))


def _in_groups(layout: torch.Tensor, many: int) -> Iterator[tuple[slice, torch.Tensor]]:
    many = max(1, many)
    for first in range(0, len(layout), many):
        own = slice(first, min(first + many, len(layout)))
        rows = layout if len(layout) <= many else layout[own]
        if rows is not layout and hasattr(layout, "host"):  # where its numbers are known without asking the device
            rows.host = layout.host[own]  # type: ignore[attr-defined]
            rows.tolist = rows.host.tolist  # type: ignore[attr-defined,method-assign]
        yield own, rows


def set_up(
    clip: torch.Tensor, faces: torch.Tensor, layout: torch.Tensor, height: int, width: int, near: float, fields: Any,
    marks: bool = True, whole: torch.Tensor | None = None, scale: torch.Tensor | None = None,
) -> Scene:  # fmt: skip
    """Project all faces and, with `marks`, note which tiles they reach.

    `fields` are those of the extension's SilhouetteModel, whose scale is to be multiplied by `scale`, if there is one.
    Images with marks are those of one of `groups`; faces of one of `back_groups` are cut as in the whole layout, so
    that sums are the same to the bit.
    """
    whole = layout if whole is None else whole
    real, device, images = structs.REALS[clip.dtype], clip.device, len(layout)
    most_faces, shift = most_faces_of(whole), 0
    while images * _bits(most_faces, height, width, _TILE << shift) > _BITS and _TILE << shift < max(height, width):
        shift += 1
    law = members.distribution(fields["distribution"])
    mirrored = fields["is_reversed"] and law.kind == "symmetric"
    join = members.tconorm(fields["tconorm"])
    form = ("distribution", "is_reversed", "is_squared", "coverage", "tconorm", "p")
    names = instance(**{name: fields[name] for name in form})
    across, down, words = -(-width // _TILE), -(-height // _TILE), -(-most_faces // 32)
    tiles = across * down
    slices = max(1, min(_BLOCKS // max(tiles * images, 1), -(-words // 2)))
    most_units = max(1, min(16, _UNITS // max(len(whole) * most_faces, 1)))
    count = images * most_faces
    numbers = structs.scratch(clip, "SoftNumbers", 1)
    polygons, prepared = structs.scratch(clip, "Polygon", count), structs.scratch(clip, "SoftFace", count)
    boxes = torch.empty((count, 4), dtype=torch.int32, device=device)
    units = torch.empty(count, dtype=torch.int32, device=device)
    marked = images * _bits(most_faces, height, width, _TILE << shift) // 32 if marks else 0
    bits = torch.zeros(marked, dtype=torch.int32, device=device)
    struct = structs.make(
        structs.silhouette_scene(real), clip=clip, faces=faces, layout=layout, images=images, most_faces=most_faces,
        height=height, width=width, across=across, down=down, shift=shift, words=words, slices=slices,
        most_units=most_units, near=near, numbers=numbers, polygons=polygons, prepared=prepared, boxes=boxes,
        units=units, bits=bits,
    )  # fmt: skip
    kept = [numbers, polygons, prepared, boxes, bits]
    scene = Scene(real, images, most_faces, height, width, slices, names, struct, kept, units)
    least = _LEAST_Q.get(join.struct, (1e-30, 1e-30))[real == "double"]
    parameters = structs.make(
        structs.silhouette_parameters(), **{n: fields[n] for n in ("scale", "shape", "shift", "p", "radius")},
        log_gamma_1=fields["log_gamma_1"], digamma=fields["digamma"], least_q=least, mirrored=mirrored,
        parametric=law.parametric, squared=fields["is_squared"], times=scale,
    )  # fmt: skip
    launch(HEADER, f"gd::silhouette_prepare<{real}>", (1,), 32, parameters, numbers, device=device)
    scene.launch(f"silhouette_setup<{real}, {names[3]}>", -(-images * words * 32 // _SETUP), _SETUP)
    return scene


def silhouette_forward(
    *, clip: torch.Tensor, faces: torch.Tensor, layout: torch.Tensor, height: int, width: int, near: float, model: Any,
    alpha: torch.Tensor, sum: torch.Tensor, best: torch.Tensor, pairs: torch.Tensor | None,
    scale: torch.Tensor | None = None,
) -> None:  # fmt: skip
    """Fill `alpha`, `sum` and `best`, see `geodiff.ops.silhouette`."""
    if alpha.numel() == 0:
        return
    kept = sum.reshape(-1, *alpha.shape)
    for own, rows in groups(layout, height, width):
        view = kept[:, own]
        part = view.contiguous()
        winners = best[own] if best.numel() else best
        counts = None if pairs is None else pairs[own]
        _forward(clip, faces, rows, height, width, near, model.fields, scale, alpha[own], part, winners, counts)
        if part.data_ptr() != view.data_ptr():
            view.copy_(part)


def _forward(
    clip: torch.Tensor, faces: torch.Tensor, layout: torch.Tensor, height: int, width: int, near: float, fields: Any,
    scale: torch.Tensor | None, alpha: torch.Tensor, sum: torch.Tensor, best: torch.Tensor, pairs: torch.Tensor | None,
) -> None:  # fmt: skip
    scene = set_up(clip, faces, layout, height, width, near, fields, scale=scale)
    law, join, squared, coverage = scene.names
    room = (scene.slices, scene.pixels)
    totals = clip.new_empty(room)
    powers = clip.new_empty(room if join.endswith("Levels") else 0)
    winners = best.new_empty(room if best.numel() else 0)
    tiles = -(-height // _TILE) * -(-width // _TILE)
    instance = f"{scene.real}, {law}, {join}, {squared}, {coverage}"
    blocks = tiles * scene.slices * scene.images
    scene.launch(f"silhouette_forward<{instance}>", blocks, 256, totals, powers, winners, pairs)
    name = f"silhouette_combine<{scene.real}, {join}>"
    scene.launch(name, -(-scene.pixels // 256), 256, totals, powers, winners, alpha, sum, best)


def silhouette_backward(
    *, clip: torch.Tensor, faces: torch.Tensor, layout: torch.Tensor, height: int, width: int, near: float, model: Any,
    sum: torch.Tensor, best: torch.Tensor, upstream: torch.Tensor, grad_clip: torch.Tensor, grad_params: torch.Tensor,
    want_params: bool, want_shape: bool, want_p: bool, scale: torch.Tensor | None = None,
) -> None:  # fmt: skip
    """Fill `grad_clip` and `grad_params`, see `geodiff.ops.silhouette`."""
    images, most_faces = len(layout), most_faces_of(layout)
    if upstream.numel() == 0 or most_faces == 0:
        return
    want = want_params + 2 * (want_params and want_shape) + 4 * (want_params and want_p)
    corners = structs.scratch(clip, "Clip", 3 * images * most_faces).reshape(images, -1)
    by_face = torch.empty((images, most_faces, 4) if want else (images, 0), dtype=torch.float64, device=clip.device)
    apart = by_face.new_empty((images, height, width) if want & 4 else (images, 0))
    kept = sum.reshape(-1, *upstream.shape)
    for own, rows in back_groups(layout):
        scene = set_up(clip, faces, rows, height, width, near, model.fields, False, layout, scale)
        winners = best[own] if best.numel() else best
        _backward(
            scene, kept[:, own].contiguous(), winners, upstream[own], want, apart[own], corners[own], by_face[own]
        )
    if want:
        every = type(scene.struct).from_buffer_copy(scene.struct)
        every.images = images
        gradient, is_reversed = by_face.new_empty(4), structs.Int(model.fields["is_reversed"])
        name = f"gd::silhouette_numbers<{scene.real}>"
        launch(HEADER, name, (1,), 256, every, by_face, apart, is_reversed, gradient, device=clip.device)
        grad_params.copy_(gradient)
    scatter(corners, faces, layout, most_faces, grad_clip)


def _backward(
    scene: Scene, sum: torch.Tensor, best: torch.Tensor, upstream: torch.Tensor, want: int, apart: torch.Tensor,
    corners: torch.Tensor, by_face: torch.Tensor,
) -> None:  # fmt: skip
    """Fill `apart`, `corners` and `by_face`, what pixels and faces of some images give."""
    law, join, squared, coverage = scene.names
    real, count, most_units = scene.real, scene.images * scene.most_faces, scene.struct.most_units
    weight, e = upstream.new_empty(scene.pixels), upstream.new_empty(scene.pixels)
    slope, rest = (upstream.new_empty(scene.pixels if want & 4 else 0) for _ in range(2))
    factors = structs.make(structs.silhouette_factors(real), weight=weight, e=e, slope=slope, rest=rest, apart=apart)
    scene.launch(f"silhouette_factors<{real}, {join}>", -(-scene.pixels // 256), 256, sum, upstream, factors)
    start = torch.zeros(count + 1, dtype=torch.int32, device=upstream.device)
    torch.cumsum(scene.units, 0, dtype=torch.int32, out=start[1:])
    partial = upstream.new_empty((count, most_units, 8))
    parts = by_face.new_empty((count, most_units, 4) if want else 0)
    instance = f"{real}, {law}, {join}, {squared}, {coverage}, {want}"
    blocks = min(_UNIT_BLOCKS, -(-count * most_units // 4))
    scene.launch(f"silhouette_backward<{instance}>", blocks, 128, sum, best, factors, start, partial, parts)
    scene.launch(f"silhouette_faces<{real}>", -(-count // 128), 128, partial, parts, corners, by_face)
