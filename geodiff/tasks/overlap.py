# SPDX-License-Identifier: Apache-2.0
"""How well a mesh covers its images."""

import torch

from geodiff.render.renderer import rasterize
from geodiff.scene.camera import Camera
from geodiff.scene.files import PosedImages
from geodiff.scene.mesh import Mesh
from geodiff.tasks.turns import turns

_MOST = 2**20  # vertices in all views at a time


def covered(mesh: Mesh, posed: PosedImages) -> torch.Tensor:
    """Return what a mesh covers in posed images: (B, H, W), some views at a time, however fine it is."""
    views = turns(len(posed), posed.image_size)[0].stop
    step = max(1, min(views, _MOST // max(1, mesh.num_vertices)))
    size = posed.image_size
    return torch.cat([rasterize(mesh, posed.cameras[i : i + step], size).mask for i in range(0, len(posed), step)])


def hard_iou(mesh: Mesh, cameras: Camera, alpha: torch.Tensor) -> float:
    """Return the mean over the views of |mask ∩ target| / |mask ∪ target|, both hard; two empty ones count as 1.

    Args:
        mesh: one mesh.
        cameras: one, or a batch of B.
        alpha: coverage (H, W) or (B, H, W), of which ½ and more is the target.
    """
    size = (alpha.shape[-2], alpha.shape[-1])
    if alpha.dim() == 3 and len(parts := turns(len(alpha), size)) > 1:
        means = [hard_iou(mesh, cameras[part], alpha[part]) * len(alpha[part]) for part in parts]
        return sum(means) / len(alpha)
    mask, target = rasterize(mesh.detach(), cameras.detach(), size).mask, alpha >= 0.5
    intersection, union = (mask & target).sum((-2, -1)).double(), (mask | target).sum((-2, -1)).double()
    return float(torch.where(union > 0, intersection / union.clamp_min(1), 1.0).mean())
