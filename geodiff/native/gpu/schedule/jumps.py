# SPDX-License-Identifier: Apache-2.0
"""Where hard images jump, on a GPU, see cuda/raster/jumps_kernels.h."""

from typing import Any

import torch

from geodiff.native.gpu import structs
from geodiff.native.gpu.launcher import launch
from geodiff.native.gpu.schedule.silhouette import most_faces_of

HEADER = "raster/jumps_kernels.h"
_THREADS = 128


def jumps(
    *, clip: torch.Tensor, faces: torch.Tensor, layout: torch.Tensor, edges: torch.Tensor, face_id: torch.Tensor,
    near: float, creases: bool,
) -> tuple[torch.Tensor, ...]:  # fmt: skip
    """Return pixels, ends, share, meeting_pixels and corners, see `geodiff.ops.jumps`.

    How many there are is read from the device.
    """
    real, device, most_faces = structs.REALS[clip.dtype], clip.device, most_faces_of(layout)
    images, height, width = face_id.shape
    count = images * most_faces
    orientation = torch.empty(count, dtype=torch.int8, device=device)
    planes = torch.empty((count, 3), dtype=torch.float64, device=device)
    scene = structs.make(
        structs.jump_scene(real), clip=clip, faces=faces, layout=layout, edges=edges, face_id=face_id, images=images,
        most_faces=most_faces, height=height, width=width, near=near, orientation=orientation, planes=planes,
    )  # fmt: skip

    def run(step: str, threads: int, *arguments: Any) -> None:
        name, grid = f"gd::jumps_{step}<{real}>", (-(-threads // _THREADS),)
        launch(HEADER, name, grid, _THREADS, scene, *arguments, device=device)

    run("prepare", count)
    levels = torch.empty(3 * count, dtype=torch.int32, device=device)
    run("sides", 3 * count, levels)
    start = torch.zeros(3 * count + 1, dtype=torch.int64, device=device)
    torch.cumsum(levels, 0, out=start[1:])
    total = int(start[-1]) if face_id.numel() else 0
    sides = _Edges(2 * total, device)
    run("crossings", total, start, sides.struct)
    pairs = _pairs(face_id)
    found = _Edges(len(pairs) if creases else 0, device)
    corners = torch.empty((len(pairs), 2, 3), dtype=torch.int64, device=device)
    keep = torch.empty(len(pairs), dtype=torch.bool, device=device)
    run("pairs", len(pairs), pairs, structs.Long(len(pairs)), found.struct, corners, keep)
    listed = [torch.cat(parts) for parts in zip(sides.kept(), found.kept(), strict=True)]
    if creases and images > 1:  # image by image
        image = torch.div(listed[0][:, 0], height * width, rounding_mode="floor")
        order = torch.argsort(image, stable=True)
        listed = [part[order] for part in listed]
    pairs = pairs[keep]
    first = pairs >> 1
    second = first + torch.where((pairs & 1) > 0, width, 1)
    return *listed, torch.stack([first, second], dim=1), corners[keep]


def _pairs(face_id: torch.Tensor) -> torch.Tensor:
    """Pixels that see different faces: 2 · the first one, and 1 more where the second is below it."""
    differ = torch.zeros((*face_id.shape, 2), dtype=torch.bool, device=face_id.device)
    seen = face_id >= 0
    differ[:, :, :-1, 0] = (face_id[:, :, 1:] != face_id[:, :, :-1]) & seen[:, :, 1:] & seen[:, :, :-1]
    differ[:, :-1, :, 1] = (face_id[:, 1:] != face_id[:, :-1]) & seen[:, 1:] & seen[:, :-1]
    return differ.reshape(-1).nonzero()[:, 0]


class _Edges:
    """Room for so many edges, of which some are kept."""

    def __init__(self, count: int, device: torch.device) -> None:
        self.pixels, self.ends = (torch.empty((count, 2), dtype=torch.int64, device=device) for _ in range(2))
        self.share = torch.empty(count, dtype=torch.float64, device=device)
        self.keep = torch.zeros(count, dtype=torch.bool, device=device)
        self.struct = structs.make(
            structs.jump_edges(), pixels=self.pixels, ends=self.ends, share=self.share, keep=self.keep
        )

    def kept(self) -> tuple[torch.Tensor, ...]:
        return self.pixels[self.keep], self.ends[self.keep], self.share[self.keep]
