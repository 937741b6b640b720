# SPDX-License-Identifier: Apache-2.0
"""Whether a mesh explains an image at all, in whatever pose."""

import torch

from geodiff.render.renderer import rasterize
from geodiff.scene.camera import Camera
from geodiff.scene.mesh import Mesh
from geodiff.validation import warn

_NONE, _ALL = 0.5, 0.8  # overlap of what any shape put there has, and of what is explained
_OFF = 0.25  # of the pixels on both sides of the outline, so half a pixel: much of the overlap where the mask is thin
_NONE_NEAR, _ALL_NEAR = 0.75, 0.95  # the same, of the share of both masks that is not off by more than a pixel
_FAINT = 0.05  # coverage
_FINE, _MOST = 4, 512  # samples a side of a pixel, and most of an image


@torch.no_grad()
def explained(mesh: Mesh, camera: Camera, alpha: torch.Tensor) -> float:
    """Return from 0 to 1 how far a mesh explains coverage (H, W): the less of what two measures say.

    One is the intersection over union of the hard masks, but for a quarter of the pixels on both sides of the mesh's
    outline, which the pixels' grid may get wrong: 1 for 0.8 and more, 0 for ½ and less. The other is the share of both
    masks that is no farther than a pixel from where the other one has anything, however faint: 1 for 0.95 and more, 0
    for 0.75 and less. It is for what is thin, all of which is outline.

    Example:
        >>> import geodiff as gd
        >>> eye = gd.Camera.orbit(3.0, 20, 30, fov_deg=40)
        >>> image = gd.rasterize(gd.box(), eye, 32).mask.float()
        >>> explained(gd.box(), eye, image), explained(gd.box(0.5), eye, image)
        (1.0, 0.0)
    """
    mesh, camera = mesh.detach(), camera.detach()
    height, width = alpha.shape[-2:]
    mask, target = rasterize(mesh, camera, (height, width)).mask, alpha >= 0.5
    wrong = max(float((mask ^ target).sum()) - _OFF * outline_pixels(mask), 0.0)
    overlap = 1 - wrong / max(float((mask | target).sum()), 1.0)
    fine = max(min(_FINE, _MOST // max(height, width)), 1)
    samples = rasterize(mesh, camera, (fine * height, fine * width)).mask.to(alpha.dtype)
    cover = torch.nn.functional.avg_pool2d(samples[None], fine)[0]
    # What covers a pixel wholly: the image may have missed what is thinner.
    off = ((cover == 1) & ~_grown(alpha > _FAINT)) | (target & ~_grown(cover > 0))
    near = 1 - float(off.sum()) / max(float((mask | target).sum()), 1.0)
    shares = (overlap - _NONE) / (_ALL - _NONE), (near - _NONE_NEAR) / (_ALL_NEAR - _NONE_NEAR)
    return min(max(min(shares), 0.0), 1.0)


def _grown(inside: torch.Tensor) -> torch.Tensor:
    """Return a mask (H, W) with the pixels around it."""
    return torch.nn.functional.max_pool2d(inside[None].float(), 3, stride=1, padding=1)[0] > 0


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
