# SPDX-License-Identifier: Apache-2.0
"""From gradients of faces' corners to gradients of vertices: the corners that meet at each are added in order."""

import torch

from geodiff.native.gpu import structs
from geodiff.native.gpu.launcher import launch
from geodiff.native.gpu.schedule.kept import Kept

_kept = Kept(4, room=1 << 26)


def scatter(
    grad_corners: torch.Tensor, faces: torch.Tensor, layout: torch.Tensor, most_faces: int, grad_clip: torch.Tensor
) -> None:
    """Fill `grad_clip` (N, 4) from the gradients (images, most_faces, 3) of corners."""
    start, corners = around(faces, layout, most_faces, len(grad_clip))
    name = f"gd::silhouette_scatter<{structs.REALS[grad_clip.dtype]}>"
    count = structs.Long(len(grad_clip))
    grid = (-(-len(grad_clip) // 128),)
    launch("raster/silhouette.h", name, grid, 128, grad_corners, start, corners, count, grad_clip, device=faces.device)


def around(
    faces: torch.Tensor, layout: torch.Tensor, most_faces: int, vertices: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return where each vertex's corners begin (N + 1), and them, ascending: (image · most_faces + face) · 3 + k.

    Kept while faces and layout are the same tensors, as they are from step to step of a fit.
    """
    given = (faces, layout, most_faces, vertices)
    return _kept.of((faces, layout), (most_faces, vertices), lambda: _around(*given))


def _around(
    faces: torch.Tensor, layout: torch.Tensor, most_faces: int, vertices: int
) -> tuple[torch.Tensor, torch.Tensor]:
    device = faces.device
    if most_faces == 0:
        return faces.new_zeros(vertices + 1, dtype=torch.int64), faces.new_zeros(0, dtype=torch.int64)
    own = torch.arange(most_faces, device=device)
    vertex_start, face_start, count = layout[:, :, None].unbind(1)
    key = faces[(face_start + own).clamp(max=len(faces) - 1)] + vertex_start[..., None]
    key = torch.where((own < count)[..., None], key, vertices).reshape(-1)  # what is no face comes last
    key = key.to(torch.int32 if vertices < 2**31 - 1 else torch.int64)  # sorted in half the time
    key, order = torch.sort(key, stable=True)
    return torch.searchsorted(key, torch.arange(vertices + 1, dtype=key.dtype, device=device)), order
