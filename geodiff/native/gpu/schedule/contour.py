# SPDX-License-Identifier: Apache-2.0
"""The contour on a GPU, all images at once: see cuda/raster/contour_kernels.h and contour_pixels.h."""

from typing import Any

import torch

from geodiff.native.gpu import structs
from geodiff.native.gpu.launcher import launch
from geodiff.native.gpu.schedule.corners import scatter
from geodiff.recording import is_replaying, or_nan, sizes

OUTLINE, PIXELS = "raster/contour_kernels.h", "raster/contour_pixels.h"
_PUSH = {"float": 4e-6, "double": 1e-10}
_CHUNK, _TILE, _POINTS = 256, 16, 8
_BLOCKS = 1024  # so many fill any card


def _before(counts: torch.Tensor, dtype: torch.dtype = torch.int64) -> torch.Tensor:
    """Sums of all numbers before each, and of all."""
    found = torch.zeros(len(counts) + 1, dtype=dtype, device=counts.device)
    torch.cumsum(counts, 0, dtype=dtype, out=found[1:])
    return found


class _Scene:
    """All images of a call: their faces, seen."""

    def __init__(
        self, clip: torch.Tensor, faces: torch.Tensor, edges: torch.Tensor | None, layout: torch.Tensor, height: int,
        width: int, near: float, outside: float, inside: float, unit: torch.Tensor | None = None,
    ) -> None:  # fmt: skip
        self.real, self.clip, self.images = structs.REALS[clip.dtype], clip, len(layout)
        self.totals: list[tuple[torch.Tensor, int]] = []  # of segments and pieces, and for how many there is room
        self.most_faces = max((row[2] for row in layout.tolist()), default=0)
        self.count, self.pixels = self.images * self.most_faces, height * width
        self.height, self.width = height, width
        self.views = structs.scratch(clip, "View", self.count)
        self.boxes = structs.scratch(clip, "OuterBox", self.count)
        self.struct = structs.make(
            structs.contour_scene(self.real), clip=clip, faces=faces, edges=edges, layout=layout, all_faces=len(faces),
            images=self.images, most_faces=self.most_faces, height=height, width=width, near=near,
            radius_outside=outside, radius_inside=inside, unit=unit, push=_PUSH[self.real], views=self.views,
            boxes=self.boxes,
        )  # fmt: skip
        self.box_of_pixels = torch.empty((self.count, 4), dtype=torch.int32, device=clip.device)
        self.units = torch.empty(self.count, dtype=torch.int32, device=clip.device)
        self.launch(OUTLINE, "views", self.count, 128, self.box_of_pixels, self.units)

    def launch(self, header: str, step: str, count: int, threads: int, *arguments: Any, more: str = "") -> None:
        """Run a kernel that takes the scene first, with as many threads."""
        name, grid = f"gd::contour_{step}<{self.real}{more}>", (-(-count // threads),)
        launch(header, name, grid, threads, self.struct, *arguments, device=self.clip.device)

    def mask(self) -> torch.Tensor:
        """Which pixels are covered."""
        found = torch.zeros(self.images * self.pixels, dtype=torch.uint8, device=self.clip.device)
        start = _before(self.units, torch.int32)
        self.launch(OUTLINE, "mask", 128 * min(_BLOCKS, -(-self.count // 4)), 128, self.box_of_pixels, start, found)
        return found

    def segments(self) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, int]:
        """Edges that may be outline, their boxes, where each image's begin, and for how many there is room."""
        keep = torch.empty(4 * self.count, dtype=torch.uint8, device=self.clip.device)
        self.launch(OUTLINE, "segments", self.count, 128, keep, None, structs.Long(0), None, None, more=", false")
        place = _before(keep)
        (count,) = sizes(place[-1])
        self.totals.append((place[-1], count))
        found, boxes = (structs.scratch(self.clip, name, count) for name in ("Segment", "OuterBox"))
        given = (keep, place, structs.Long(count), found, boxes)
        self.launch(OUTLINE, "segments", self.count, 128, *given, more=", true")
        return found, boxes, place[:: 4 * self.most_faces].clamp(max=count), count

    def outline(self) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """The segments, the pieces of them that border on background, and where each image's begin."""
        device = self.clip.device
        segments, boxes, first, count = self.segments()
        given: tuple[Any, ...]
        counts = torch.zeros(count, dtype=torch.int32, device=device)
        there = self.totals[0][0]
        given = (segments, boxes, first, structs.Long(count), there, counts)
        grid = (-(-count // 4),)
        launch(OUTLINE, "gd::contour_cut<false>", grid, 128, *given, None, structs.Long(0), None, device=device)
        start = _before(counts)
        every = start[-1] + there.clamp(max=count)
        (total,) = sizes(every)
        self.totals.append((every, total))
        cuts, room = structs.scratch(self.clip, "CutAt", total), structs.Long(total)
        launch(OUTLINE, "gd::contour_cut<true>", grid, 128, *given, start, room, cuts, device=device)
        pieces, packed = (structs.scratch(self.clip, "Piece", total) for _ in range(2))
        name = f"gd::contour_pieces<{self.real}>"
        given = (segments, structs.Long(count), there, cuts, start, room, pieces)
        launch(OUTLINE, name, (-(-count // 128),), 128, *given, device=device)
        hidden = (torch.arange(total, device=device) >= every).to(torch.uint8)
        blocks = -(-total // _POINTS)
        slices = max(1, min(_BLOCKS // max(blocks, 1), self.most_faces // 1024))
        given = (segments, pieces, structs.Long(total), structs.Int(slices), hidden)
        self.launch(OUTLINE, "visible", 128 * blocks * slices, 128, *given)
        place = _before(1 - hidden)
        name = f"gd::contour_pack<{self.real}>"
        given = (pieces, hidden, place, structs.Long(total), packed)
        launch(OUTLINE, name, (-(-total // 128),), 128, *given, device=device)
        return segments, packed, place[(start[first] + first).clamp(max=total)]


def contour_forward(
    *, clip: torch.Tensor, faces: torch.Tensor, layout: torch.Tensor, edges: torch.Tensor, height: int, width: int,
    near: float, radius_outside: float, radius_inside: float, distance: torch.Tensor, along: torch.Tensor,
    nearest: torch.Tensor, unit: torch.Tensor | None = None,
) -> None:  # fmt: skip
    """Fill `distance`, `along` and `nearest`, see `geodiff.ops.contour`; radii are in units, if the device has one."""
    if distance.numel() == 0:
        return
    scene = _Scene(clip, faces, edges, layout, height, width, near, radius_outside, radius_inside, unit)
    if scene.count == 0:
        distance.fill_(-torch.inf)
        along.zero_()
        nearest.fill_(-1)
        return
    segments, pieces, first = scene.outline()
    tiles = -(-height // _TILE) * -(-width // _TILE) * scene.images
    given = (segments, pieces, first, scene.mask(), distance, along, nearest)
    scene.launch(PIXELS, "nearest", 256 * tiles, 256, *given)
    if is_replaying():
        for total, room in scene.totals:
            distance.copy_(or_nan(distance, total, room))


def contour_backward(
    *, clip: torch.Tensor, faces: torch.Tensor, layout: torch.Tensor, height: int, width: int, near: float,
    distance: torch.Tensor, along: torch.Tensor, nearest: torch.Tensor, upstream: torch.Tensor,
    grad_clip: torch.Tensor,
) -> None:  # fmt: skip
    """Fill `grad_clip`."""
    scene = _Scene(clip, faces, None, layout, height, width, near, 0.0, 0.0)
    device, both = clip.device, 2 * scene.images * scene.pixels
    corners = structs.scratch(clip, "Clip", 3 * scene.count)
    keys = torch.empty(both, dtype=torch.int32, device=device)
    shares = structs.scratch(clip, "EndGradient", both)
    scene.launch(PIXELS, "shares", both // 2, 128, distance, along, nearest, upstream, keys, shares)
    keys, order = torch.sort(keys, stable=True)
    start = torch.searchsorted(keys, torch.arange(scene.count + 1, dtype=torch.int32, device=device))
    chunks = _before((start.diff() + _CHUNK - 1).div(_CHUNK, rounding_mode="floor"), torch.int32)
    room = min(scene.count, both) + both // _CHUNK
    partial = torch.empty((room, 8), dtype=torch.float64, device=device)
    scene.launch(PIXELS, "chunks", 32 * room, 128, nearest, shares, order, start, chunks, partial)
    scene.launch(PIXELS, "faces", scene.count, 128, chunks, partial, corners)
    if len(grad_clip):
        scatter(corners, faces, layout, scene.most_faces, grad_clip)
