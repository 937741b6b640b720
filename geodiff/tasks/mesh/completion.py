# SPDX-License-Identifier: Apache-2.0
"""Parts thinner than a pixel: put back where they fit all images best, after the views edge-on have carved them away.

A wing of a third of a pixel has a coverage of a third in the views that see its edge: nowhere ½, so that these views
cut it off, and the views that see its face are left with silhouettes that nothing covers. Along the ray of such a pixel
the part is where the coverage of all views together is largest. That is told to a fraction of a pixel, since
coverage between the centres of pixels is.
"""

import torch

from geodiff.render.renderer import rasterize
from geodiff.scene.camera import Camera
from geodiff.scene.files import PosedImages
from geodiff.scene.mesh import Mesh
from geodiff.tasks.mesh.carving import Carver

LEVEL = 0.04  # coverage of the views in which a part may be too thin to be seen
_SLACK = 0.2  # pixels out of that
_LOST = 0.01  # of the silhouettes' pixels, a pixel and more from what is covered: hulls of thick parts have none
_LEFT = 0.1  # of those, where something thin is what was missing
_AROUND = 2  # pixels about the lost ones that are covered too, so that what is put back meets what is there
_LEAST = 0.02  # coverage: below, one view alone would decide
_EQUAL = 0.02  # of the mean logarithm of the coverage: places that are as good as the best
_LAYERS = 32  # of the grid
_LIFT = 0.3  # pixels: how far the nodes of a thin part are inside, and those about it outside


class Missing:
    """The pixels of silhouettes that a mesh leaves uncovered.

    Attributes:
        share: of the silhouettes' pixels, those with nothing covered next to them.
        pixels: (B, H, W), those and uncovered ones about them.
    """

    def __init__(self, mesh: Mesh, posed: PosedImages) -> None:
        mask = rasterize(mesh, posed.cameras, posed.image_size).mask
        self.pixels = torch.zeros_like(mask)
        lost = total = 0
        for view, covered in enumerate(mask):
            target = posed.alpha[view] >= 0.5
            alone = target & ~_grown(covered, 1)
            lost, total = lost + int(alone.sum()), total + int(target.sum())
            if bool(alone.any()):
                self.pixels[view] = target & ~covered & _grown(alone, _AROUND)
        self.share = lost / max(total, 1)

    @property
    def is_much(self) -> bool:
        """Whether a part is missing, not only what outlines are uncertain about."""
        return self.share > _LOST

    def explained_by(self, left: "Missing") -> bool:
        """Whether next to nothing of it is left."""
        return left.share <= _LEFT * self.share


def complete(
    values: torch.Tensor,
    missing: Missing,
    posed: PosedImages,
    wide: Carver,
    low: torch.Tensor,
    cell: float,
    slack: float,
) -> bool:
    """Put back, in the values at the nodes of a grid, what covers the missing pixels best; return whether there is any.

    Args:
        values: (X, Y, Z) of `Carver.grid`, changed in place.
        missing: pixels to be covered.
        posed: the images.
        wide: a carver that keeps what all views see some coverage of.
        low: (3,), where the first node is.
        cell: between nodes.
        slack: the hull is where values are above its negative.
    """
    nodes = _between(values, wide, low, cell, slack)
    if not len(nodes):
        return False
    points = low + nodes.to(low.dtype) * cell
    score = torch.zeros(len(points), dtype=low.dtype)
    for view, alpha in enumerate(posed.alpha):
        score += _coverage(wide.cameras[view], alpha.to(low.dtype), points).clamp_min(_LEAST).log() / len(posed)
    chosen = torch.zeros(len(points), dtype=torch.bool)
    for view, pixels in enumerate(missing.pixels):
        if bool(pixels.any()):
            at = _pixel(wide.cameras[view], pixels.shape, points)
            best = torch.full((pixels.numel(),), -torch.inf, dtype=score.dtype).scatter_reduce(0, at, score, "amax")
            chosen |= pixels.reshape(-1)[at] & (score >= best[at] - _EQUAL)
    back = nodes[chosen]
    steps = torch.arange(-1, 2)
    for step in torch.cartesian_prod(steps, steps, steps):  # the surface goes half-way to what is about them
        x, y, z = (back + step).clamp_min(0).minimum(back.new_tensor(values.shape) - 1).unbind(-1)
        values[x, y, z] = values[x, y, z].clamp_min(-slack - _LIFT)
    x, y, z = back.unbind(-1)
    values[x, y, z] = _LIFT - slack
    return bool(len(back))


def _between(values: torch.Tensor, wide: Carver, low: torch.Tensor, cell: float, slack: float) -> torch.Tensor:
    """Return the nodes (N, 3) out of the hull in which all views see something, some layers of the grid at a time."""
    found = []
    for first in range(0, len(values), _LAYERS):
        layers = values[first : first + _LAYERS]
        kept = wide.grid(low + cell * low.new_tensor([first, 0, 0]), cell, tuple(layers.shape)) > -_SLACK
        found.append((kept & (layers < -slack)).nonzero() + torch.tensor([first, 0, 0]))
    return torch.cat(found)


def _grown(mask: torch.Tensor, pixels: int) -> torch.Tensor:
    return torch.nn.functional.max_pool2d(mask[None, None].float(), 2 * pixels + 1, 1, pixels)[0, 0] > 0


def _coverage(camera: Camera, alpha: torch.Tensor, points: torch.Tensor) -> torch.Tensor:
    """Return the coverage at points (N, 3), bilinear between the centres of pixels."""
    height, width = alpha.shape
    x, y, _ = camera.project(points, (height, width)).unbind(-1)
    at = torch.stack((x * (2 / width) - 1, y * (2 / height) - 1), dim=-1)
    return torch.nn.functional.grid_sample(
        alpha[None, None], at[None, None], mode="bilinear", padding_mode="border", align_corners=False
    )[0, 0, 0]


def _pixel(camera: Camera, size: torch.Size, points: torch.Tensor) -> torch.Tensor:
    """Return the pixels, row by row, that points (N, 3) are in; the nearest for those out of the image."""
    height, width = size
    x, y, _ = camera.project(points, (height, width)).unbind(-1)
    return y.floor().long().clamp(0, height - 1) * width + x.floor().long().clamp(0, width - 1)
