# SPDX-License-Identifier: Apache-2.0
"""Parts thinner than a pixel: put back where they fit all images best, after the views edge-on have carved them away.

A wing of a third of a pixel has a coverage of a third in the views that see its edge: nowhere ½, so that these views
cut it off, and the views that see its face are left with silhouettes that nothing covers. Along the ray of such a pixel
the part is where the coverage of all views together is largest. That is told to a fraction of a pixel, since
coverage between the centres of pixels is.
"""

from collections.abc import Iterator

import torch

from geodiff.scene.camera import Camera
from geodiff.scene.files import PosedImages
from geodiff.scene.mesh import Mesh
from geodiff.tasks.mesh.carving import Carver
from geodiff.tasks.overlap import covered

LEVEL = 0.04  # coverage of the views in which a part may be too thin to be seen
_SLACK = 0.2  # pixels out of that
_LOST = 0.01  # of the silhouettes' pixels, a pixel and more from what is covered: hulls of thick parts have none
_LEFT = 0.1  # of those, where something thin is what was missing
_AROUND = 2  # pixels about the lost ones that are covered too, so that what is put back meets what is there
_LEAST = 0.02  # coverage: below, one view alone would decide
_EQUAL = 0.02  # of the mean logarithm of the coverage: places that are as good as the best
_NODES = 1 << 21  # of the grid, at a time
_CHUNK = 1 << 16  # nodes at a time
_LIFT = 0.3  # pixels: how far the nodes of a thin part are inside, and those about it outside


class Missing:
    """The pixels of silhouettes that a mesh leaves uncovered.

    Attributes:
        share: of the silhouettes' pixels, those with nothing covered next to them.
        pixels: (B, H, W), those and uncovered ones about them.
        lacks: of each view, whether it has any.
    """

    def __init__(self, mesh: Mesh, posed: PosedImages) -> None:
        mask = covered(mesh, posed)
        self.lacks = [False] * len(mask)
        self.pixels = torch.zeros_like(mask)
        lost = total = 0
        for view, seen in enumerate(mask):
            target = posed.alpha[view] >= 0.5
            alone = target & ~_grown(seen, 1)
            lost, total = lost + int(alone.sum()), total + int(target.sum())
            self.lacks[view] = bool(alone.any())
            if self.lacks[view]:
                self.pixels[view] = target & ~seen & _grown(alone, _AROUND)
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
    score = torch.zeros(len(nodes), dtype=low.dtype)
    for view, alpha in enumerate(posed.alpha):
        image = alpha.to(low.dtype)
        for part, x, y in _places(nodes, wide.cameras[view], posed.image_size, low, cell):
            score[part] += _coverage(image, x, y).clamp_min(_LEAST).log() / len(posed)
    chosen = torch.zeros(len(nodes), dtype=torch.bool)
    for view, pixels in enumerate(missing.pixels):
        if missing.lacks[view]:
            at = torch.empty(len(nodes), dtype=torch.int32)
            for part, x, y in _places(nodes, wide.cameras[view], posed.image_size, low, cell):
                at[part] = _pixel(posed.image_size, x, y)
            here = pixels.reshape(-1)[at].nonzero()[:, 0]
            at, own = at[here].long(), score[here]
            best = torch.full((pixels.numel(),), -torch.inf, dtype=score.dtype).scatter_reduce(0, at, own, "amax")
            chosen[here[own >= best[at] - _EQUAL]] = True
    back = nodes[chosen]
    steps = torch.arange(-1, 2)
    for step in torch.cartesian_prod(steps, steps, steps):  # the surface goes half-way to what is about them
        x, y, z = (back + step).clamp_min(0).minimum(back.new_tensor(values.shape) - 1).unbind(-1)
        values[x, y, z] = values[x, y, z].clamp_min(-slack - _LIFT)
    x, y, z = back.unbind(-1)
    values[x, y, z] = _LIFT - slack
    return bool(len(back))


def _places(
    nodes: torch.Tensor, camera: Camera, size: tuple[int, int], low: torch.Tensor, cell: float
) -> Iterator[tuple[slice, torch.Tensor, torch.Tensor]]:
    """Yield where nodes (N, 3) are in a view, some at a time: which, and the columns and rows of their places."""
    for first in range(0, len(nodes), _CHUNK):
        part = slice(first, first + _CHUNK)
        x, y, _ = camera.project(low + nodes[part].to(low.dtype) * cell, size).unbind(-1)
        yield part, x, y


def _between(values: torch.Tensor, wide: Carver, low: torch.Tensor, cell: float, slack: float) -> torch.Tensor:
    """Return the nodes (N, 3) out of the hull in which all views see something, some layers of the grid at a time."""
    found = []
    step = max(16, _NODES // values[0].numel() // 16 * 16)  # whole blocks
    for first in range(0, len(values), step):
        layers = values[first : first + step]
        kept = wide.above(-_SLACK, low + cell * low.new_tensor([first, 0, 0]), cell, layers < -slack)
        found.append(kept.nonzero() + torch.tensor([first, 0, 0]))
    return torch.cat(found)


def _grown(mask: torch.Tensor, pixels: int) -> torch.Tensor:
    return torch.nn.functional.max_pool2d(mask[None, None].float(), 2 * pixels + 1, 1, pixels)[0, 0] > 0


def _coverage(alpha: torch.Tensor, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """Return the coverage at places (N,) of an image, bilinear between the centres of pixels."""
    height, width = alpha.shape
    at = torch.stack((x * (2 / width) - 1, y * (2 / height) - 1), dim=-1)
    return torch.nn.functional.grid_sample(
        alpha[None, None], at[None, None], mode="bilinear", padding_mode="border", align_corners=False
    )[0, 0, 0]


def _pixel(size: tuple[int, int], x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """Return the pixels, row by row, that places (N,) of an image are in; the nearest for those out of it."""
    height, width = size
    return y.floor().long().clamp(0, height - 1) * width + x.floor().long().clamp(0, width - 1)
