# SPDX-License-Identifier: Apache-2.0
"""The visual hull: the largest solid with the silhouettes of the images, as a mesh."""

from dataclasses import dataclass

import torch

from geodiff.scene.camera import Camera
from geodiff.scene.isosurface import isosurface
from geodiff.scene.mesh import Mesh
from geodiff.tasks.mesh.outlines import outline_distance

_CHUNK = 1 << 16  # points carved at a time
_COARSE = 32  # cells along the longest side in the search for the box
_BLOCK = 4  # cells a side of the smallest block that is decided as a whole


@dataclass
class Views:
    """Signed distances to the outlines, as images that go on beyond their borders.

    Attributes:
        cameras: B of them.
        distance: (B, H + 2, W + 2), pixels, with a ring of what is beyond.
        pixels: pixels of one NDC unit, of which the shorter side has two.
    """

    cameras: Camera
    distance: torch.Tensor
    open: torch.Tensor

    @property
    def size(self):
        return self.distance.shape[-2] - 2, self.distance.shape[-1] - 2


def make_views(alpha: torch.Tensor, cameras: Camera) -> Views:
    filled = alpha >= 0.5
    touching = filled[:, 0].any(-1) | filled[:, -1].any(-1) | filled[:, :, 0].any(-1) | filled[:, :, -1].any(-1)
    beyond = torch.where(touching, 16.0, -16.0).to(alpha.dtype)
    distance = torch.stack([outline_distance(image) for image in alpha])
    padded = beyond[:, None, None].repeat(1, alpha.shape[-2] + 2, alpha.shape[-1] + 2)
    padded[:, 1:-1, 1:-1] = distance
    return Views(cameras, padded, touching)


def carve(views: Views, points: torch.Tensor, soft: float = 0.0) -> torch.Tensor:
    """least distance over views, in pixels"""
    height, width = views.size
    result = points.new_full((len(points),), float("inf"))
    acc = points.new_zeros(len(points))
    for b in range(len(views.cameras)):
        at = views.cameras[b].project(points, (height, width))
        grid = torch.stack(((at[:, 0] + 1) * (2 / (width + 2)) - 1, (at[:, 1] + 1) * (2 / (height + 2)) - 1), -1)
        value = torch.nn.functional.grid_sample(
            views.distance[b][None, None], grid[None, None], mode="bilinear", padding_mode="border", align_corners=False
        )[0, 0, 0]
        value = torch.where(at[:, 2] > views.cameras.near, value, float("inf"))
        if soft:
            acc += torch.exp(-value / soft)
        result = torch.minimum(result, value)
    return -soft * acc.log() if soft else result
