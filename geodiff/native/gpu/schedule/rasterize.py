# SPDX-License-Identifier: Apache-2.0
"""The hard rasteriser on a GPU, see cuda/raster/hard_kernels.h."""

import torch

from geodiff.native.gpu import structs
from geodiff.native.gpu.launcher import launch

HEADER = "raster/hard_kernels.h"


def rasterize(
    *, clip: torch.Tensor, faces: torch.Tensor, layout: torch.Tensor, height: int, width: int, near: float,
    face: torch.Tensor, depth: torch.Tensor, barycentric: torch.Tensor,
) -> None:  # fmt: skip
    """Fill `face`, `depth` and `barycentric`, see `geodiff.ops.rasterize`."""
    if face.numel() == 0:
        return
    real, device, images = structs.REALS[clip.dtype], clip.device, len(layout)
    most_faces = max((row[2] for row in layout.tolist()), default=0)
    count = images * most_faces
    prepared = structs.scratch(clip, "HardFace", count)
    boxes = torch.empty((count, 4), dtype=torch.int32, device=device)
    start = torch.zeros(count + 1, dtype=torch.int32, device=device)
    units = torch.empty(count, dtype=torch.int32, device=device)
    key = torch.full((face.numel(),), -1, dtype=torch.int64, device=device)
    winner = torch.full((face.numel() if real == "double" else 0,), -1, dtype=torch.int32, device=device)
    scene = structs.make(
        structs.hard_scene(real), clip=clip, faces=faces, layout=layout, images=images, most_faces=most_faces,
        height=height, width=width, near=near, prepared=prepared, boxes=boxes, units=units, key=key, winner=winner,
    )  # fmt: skip
    for step in range(2 if real == "double" else 1):
        launch(HEADER, f"gd::hard_setup<{real}, {step}>", (-(-count // 128),), 128, scene, device=device)
        if step == 0:
            torch.cumsum(units, 0, dtype=torch.int32, out=start[1:])
        launch(HEADER, f"gd::hard_draw<{real}, {step}>", (min(1024, -(-count // 4)),), 128, scene, start, device=device)
    grid = (-(-face.numel() // 256),)
    launch(HEADER, f"gd::hard_resolve<{real}>", grid, 256, scene, face, depth, barycentric, device=device)
