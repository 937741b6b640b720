# SPDX-License-Identifier: Apache-2.0
"""From gradients of faces' corners to gradients of vertices: the corners that meet at each are added in order."""

import torch

from geodiff.native.gpu import structs
from geodiff.native.gpu.launcher import launch


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
    """Return where each vertex's corners begin (N + 1), and them, ascending: (image · most_faces + face) · 3 + k."""
    none = torch.zeros(0, dtype=torch.int64, device=faces.device)
    keys, places = [none], [none]
    for image, (vertex_start, face_start, count) in enumerate(layout.tolist()):
        keys.append(faces[face_start : face_start + count].reshape(-1).long() + vertex_start)
        first = 3 * image * most_faces
        places.append(torch.arange(first, first + 3 * count, device=faces.device))
    key = torch.cat(keys)
    order = torch.argsort(key, stable=True)
    start = torch.searchsorted(key[order], torch.arange(vertices + 1, device=faces.device))
    return start, torch.cat(places)[order]
