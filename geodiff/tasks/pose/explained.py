# SPDX-License-Identifier: Apache-2.0
"""Whether a mesh explains an image at all, in whatever pose."""

import torch

from geodiff.render.renderer import rasterize
from geodiff.scene.camera import Camera
from geodiff.scene.mesh import Mesh
from geodiff.validation import warn

_NONE, _ALL = 0.5, 0.8  # overlap of what any shape put there has, and of what is explained
_OFF = 0.25  # of the pixels on both sides of the outline, so half a pixel: much of the overlap where the mask is thin


@torch.no_grad()
def explained(mesh: Mesh, camera: Camera, alpha: torch.Tensor) -> float:
    """Return from 0 to 1 how far a mesh explains coverage (H, W): 1 for an overlap of 0.8 and more, 0 for ½ and less.

    The overlap is the intersection over union of the hard masks, but for a quarter of the pixels on both sides of the
    mesh's outline, which the pixels' grid may get wrong.

    Example:
        >>> import geodiff as gd
        >>> eye = gd.Camera.orbit(3.0, 20, 30, fov_deg=40)
        >>> image = gd.rasterize(gd.box(), eye, 32).mask.float()
        >>> explained(gd.box(), eye, image), explained(gd.box(0.5), eye, image)
        (1.0, 0.0)
    """
    mask, target = rasterize(mesh.detach(), camera.detach(), (alpha.shape[-2], alpha.shape[-1])).mask, alpha >= 0.5
    wrong = max(float((mask ^ target).sum()) - _OFF * outline_pixels(mask), 0.0)
    overlap = 1 - wrong / max(float((mask | target).sum()), 1.0)
    return min(max((overlap - _NONE) / (_ALL - _NONE), 0.0), 1.0)


def say_unexplained(share: float, iou: float) -> None:
    """Warn of a mesh that does not explain the image."""
    if share < 1:
        found = f"the mesh does not explain the image in any pose that was found: IoU {iou:.2f}"
        warn(
            f"fit_pose: {found}. Is it the mesh of this image, in one piece and uncovered, and the lens the right one?"
        )


def outline_pixels(inside: torch.Tensor) -> float:
    """Return how many pixels of a mask (H, W) have another one beside them on the other side; 1 at least."""
    padded = torch.nn.functional.pad(inside[None, None].double(), (1, 1, 1, 1), mode="replicate")[0, 0]
    middle = padded[1:-1, 1:-1]
    around = (padded[:-2, 1:-1], padded[2:, 1:-1], padded[1:-1, :-2], padded[1:-1, 2:])
    return max(float(torch.stack([other != middle for other in around]).any(0).sum()), 1.0)
