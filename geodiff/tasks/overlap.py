# SPDX-License-Identifier: Apache-2.0
"""How well a mesh covers its images."""

import torch

from geodiff.render.renderer import rasterize
from geodiff.scene.camera import Camera
from geodiff.scene.mesh import Mesh
from geodiff.tasks.turns import turns


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
