# SPDX-License-Identifier: Apache-2.0
"""The contour on a GPU, an image at a time, see cuda/raster/contour_kernels.h."""

from typing import Any

import torch

from geodiff.native.gpu import structs
from geodiff.native.gpu.launcher import launch
from geodiff.native.gpu.schedule.corners import scatter

HEADER = "raster/contour_kernels.h"
_PUSH = {"float": 4e-6, "double": 1e-10}
_ROOM = 8  # cuts of a segment that there is room for at first


class _Image:
    """One image of a call: its arguments, and launches with them first."""

    def __init__(
        self, clip: torch.Tensor, faces: torch.Tensor, edges: torch.Tensor | None, row: list[int], height: int,
        width: int, near: float, outside: float, inside: float,
    ) -> None:  # fmt: skip
        self.real, self.clip, self.count, self.pixels = structs.REALS[clip.dtype], clip, row[2], height * width
        self.arguments = structs.make(
            structs.contour_arguments(self.real), clip=clip, faces=faces, edges=edges, vertex_start=row[0],
            face_start=row[1], all_faces=len(faces), count=row[2], height=height, width=width, near=near,
            radius_outside=outside, radius_inside=inside, push=_PUSH[self.real],
        )  # fmt: skip
        self.views = structs.scratch(clip, "View", self.count)
        self.mask = torch.zeros(self.pixels, dtype=torch.uint8, device=clip.device)
        self.launch("views", self.count, 128, self.views, self.mask)

    def launch(self, step: str, count: int, threads: int, *arguments: Any) -> None:
        name, grid = f"gd::contour_{step}<{self.real}>", (-(-count // threads),)
        launch(HEADER, name, grid, threads, self.arguments, *arguments, device=self.clip.device)

    def outline(self) -> tuple[torch.Tensor, torch.Tensor, int]:
        """The segments, and the pieces of them that border on background."""
        device = self.clip.device
        segments = structs.scratch(self.clip, "Segment", 4 * self.count)
        keep = torch.zeros(4 * self.count, dtype=torch.uint8, device=device)
        self.launch("segments", self.count, 128, self.views, segments, keep)
        segments = segments.reshape(-1, structs.SCRATCH["Segment"][0])[: 4 * self.count][keep > 0].contiguous()
        given: tuple[Any, ...]
        count = len(segments)
        counts, room = torch.zeros(count, dtype=torch.int32, device=device), _ROOM
        while True:
            cuts = structs.scratch(self.clip, "CutAt", count * room)
            given = (segments, structs.Int(count), structs.Int(room), cuts, counts)
            launch(HEADER, "gd::contour_cut", (-(-count // 128),), 128, *given, device=device)
            most = int(counts.max()) if count else 0
            if most <= room:
                break
            room = most
        start = torch.zeros(count + 1, dtype=torch.int64, device=device)
        torch.cumsum(counts.long() + 1, 0, out=start[1:])
        total = int(start[-1])
        pieces = structs.scratch(self.clip, "Piece", total)
        given = (segments, structs.Int(count), structs.Int(room), cuts, counts, start, pieces)
        launch(HEADER, "gd::contour_pieces", (-(-count // 128),), 128, *given, device=device)
        seen = torch.zeros(total, dtype=torch.uint8, device=device)
        given = (self.views, structs.Int(self.count), segments, pieces, seen)
        launch(HEADER, "gd::contour_visible", (total,), 64, *given, device=device)
        pieces = pieces.reshape(-1, structs.SCRATCH["Piece"][0])[:total][seen > 0].contiguous()
        return segments, pieces, len(pieces)


def contour_forward(
    *, clip: torch.Tensor, faces: torch.Tensor, layout: torch.Tensor, edges: torch.Tensor, height: int, width: int,
    near: float, radius_outside: float, radius_inside: float, distance: torch.Tensor, along: torch.Tensor,
    nearest: torch.Tensor,
) -> None:  # fmt: skip
    """Fill `distance`, `along` and `nearest`, see `geodiff.ops.contour`."""
    if distance.numel() == 0:
        return
    for i, row in enumerate(layout.tolist()):
        image = _Image(clip, faces, edges, row, height, width, near, radius_outside, radius_inside)
        segments, pieces, count = image.outline()
        given = (segments, pieces, structs.Int(count), image.mask, distance[i], along[i], nearest[i])
        image.launch("forward", image.pixels, 256, *given)


def contour_backward(
    *, clip: torch.Tensor, faces: torch.Tensor, layout: torch.Tensor, height: int, width: int, near: float,
    distance: torch.Tensor, along: torch.Tensor, nearest: torch.Tensor, upstream: torch.Tensor,
    grad_clip: torch.Tensor,
) -> None:  # fmt: skip
    """Fill `grad_clip`."""
    rows = layout.tolist()
    most_faces = max((row[2] for row in rows), default=0)
    size = structs.SCRATCH["Clip"][clip.dtype == torch.float64]
    corners = torch.zeros((len(rows), max(most_faces, 1) * 3 * size), dtype=torch.uint8, device=clip.device)
    for i, row in enumerate(rows):
        if row[2] == 0 or height * width == 0:
            continue
        image = _Image(clip, faces, None, row, height, width, near, 0.0, 0.0)
        codes = torch.empty(2 * image.pixels, dtype=torch.int32, device=clip.device)
        shares = structs.scratch(clip, "EndGradient", 2 * image.pixels)
        given = (image.views, distance[i], along[i], nearest[i], upstream[i], codes, shares)
        image.launch("shares", image.pixels, 256, *given)
        face = torch.div(codes, 4, rounding_mode="floor")
        order = torch.argsort(face, stable=True)
        order = order[int((face < 0).sum()) :].contiguous()
        _, runs = torch.unique_consecutive(face[order], return_counts=True)
        start = torch.zeros(len(runs) + 1, dtype=torch.int64, device=clip.device)
        torch.cumsum(runs, 0, out=start[1:])
        image.launch("backward", len(runs), 128, codes, shares, order, start, structs.Int(len(runs)), corners[i])
    if len(grad_clip):
        scatter(corners, faces, layout, most_faces, grad_clip)
