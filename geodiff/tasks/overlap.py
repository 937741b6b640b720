# SPDX-License-Identifier: Apache-2.0
"""How well a mesh covers its images."""

import torch

from geodiff.render.renderer import rasterize
from geodiff.scene.camera import Camera
from geodiff.scene.mesh import Mesh


def hard_iou(mesh: Mesh, cameras: Camera, alpha: torch.Tensor) -> float:
    """Return the mean over the views of |mask ∩ target| / |mask ∪ target|, both hard; two empty ones count as 1.

    Args:
        mesh: one mesh.
        cameras: one, or a batch of B.
        alpha: coverage (H, W) or (B, H, W), of which ½ and more is the target.
    """
    mask, target = rasterize(mesh.detach(), cameras, (alpha.shape[-2], alpha.shape[-1])).mask, alpha >= 0.5
    intersection, union = (mask & target).sum((-2, -1)).double(), (mask | target).sum((-2, -1)).double()
    return float(torch.where(union > 0, intersection / union.clamp_min(1), 1.0).mean())
