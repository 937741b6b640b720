# SPDX-License-Identifier: Apache-2.0
"""Where hard images jump, on a GPU, see cuda/raster/jumps_kernels.h."""

from typing import Any

import torch

from geodiff.native.gpu import structs
from geodiff.native.gpu.launcher import launch
from geodiff.native.gpu.schedule.silhouette import most_faces_of
from geodiff.recording import or_nan, packed, rows, sizes

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
    differ = _differ(face_id).cumsum(0)
    lines = start[-1:] if face_id.numel() else differ[:0]
    total, most = sizes(lines.sum(), differ[-1:].sum())
    edges_found = _Edges(2 * total + (most if creases else 0), device)
    run("crossings", total, start, structs.Long(total), edges_found.struct)
    pairs = packed(differ, most)
    corners = torch.empty((most, 2, 3), dtype=torch.int64, device=device)
    keep = torch.empty(most, dtype=torch.bool, device=device)
    given = (structs.Long(differ.numel()), structs.Long(most), edges_found.after(2 * total if creases else None))
    run("pairs", most, pairs, *given, corners, keep)
    kept, met = edges_found.keep.cumsum(0), keep.cumsum(0)
    edge_count, meet_count = sizes(kept[-1:].sum(), met[-1:].sum())
    place = packed(kept, edge_count)
    if creases and images > 1:  # image by image
        image = torch.div(rows(edges_found.pixels[:, 0], place, face_id.numel()), height * width, rounding_mode="floor")
        place = place[torch.argsort(image, stable=True)]
    listed = [rows(part, place, 0) for part in (edges_found.pixels, edges_found.ends, edges_found.share)]
    for all_of, room in ((lines.sum(), total), (differ[-1:].sum(), most), (kept[-1:].sum(), edge_count)):
        listed[2] = or_nan(listed[2], all_of, room)
    listed[2] = or_nan(listed[2], met[-1:].sum(), meet_count)
    place = packed(met, meet_count)
    pair = rows(pairs, place, -1)
    first = pair >> 1
    second = first + torch.where((pair & 1) > 0, width, 1)
    both = torch.stack([first, second], dim=1)
    return *listed, torch.where(pair[:, None] >= 0, both, 0), rows(corners, place, 0)


def _differ(face_id: torch.Tensor) -> torch.Tensor:
    """Which pixels see different faces: at 2 · the first one, and 1 more where the second is below it."""
    differ = torch.zeros((*face_id.shape, 2), dtype=torch.bool, device=face_id.device)
    seen = face_id >= 0
    differ[:, :, :-1, 0] = (face_id[:, :, 1:] != face_id[:, :, :-1]) & seen[:, :, 1:] & seen[:, :, :-1]
    differ[:, :-1, :, 1] = (face_id[:, 1:] != face_id[:, :-1]) & seen[:, 1:] & seen[:, :-1]
    return differ.reshape(-1)


class _Edges:
    """Room for so many edges, of which some are kept."""

    def __init__(self, count: int, device: torch.device) -> None:
        self.pixels, self.ends = (torch.empty((count, 2), dtype=torch.int64, device=device) for _ in range(2))
        self.share = torch.empty(count, dtype=torch.float64, device=device)
        self.keep = torch.zeros(count, dtype=torch.bool, device=device)
        self.struct = self.after(0)

    def after(self, start: int | None) -> Any:
        """The room from there on; none for None."""
        if start is None:
            return structs.make(structs.jump_edges(), pixels=None, ends=None, share=None, keep=None)
        parts = {"pixels": self.pixels, "ends": self.ends, "share": self.share, "keep": self.keep}
        return structs.make(structs.jump_edges(), **{name: part[start:] for name, part in parts.items()})
