# SPDX-License-Identifier: Apache-2.0
"""Which places the silhouettes leave standing: the least distance to their outlines, on a grid, block by block.

A point belongs to the visual hull if it is inside the silhouette in every image. Its value is the least of its signed
distances to the outlines, in pixels, over the images; the hull's surface is where that is 0. Distances change by no
more than one pixel a pixel, so a look at the middle of a block often decides all of it: only the blocks through which
the surface passes are sampled.
"""

import math

import torch

from geodiff.scene.camera import Camera
from geodiff.tasks.mesh.outlines import FAR, outline_distance

_CHUNK = 1 << 16  # points at a time
_BLOCKS = (16, 4)  # nodes a side of the blocks that are decided as a whole, from coarse to fine
_MARGIN = 1.0  # pixels: what bilinear distances may be off, and the level below 0


class Carver:
    """Masks and cameras, ready to tell which points are inside all of the silhouettes.

    A view whose mask does not touch the border of its image shows all of the object: what is out of the image, or
    behind the camera, is not the object. Where a mask touches the border the object may go on beyond, and the view says
    nothing about what it does not see.

    Args:
        alpha: coverage (B, H, W), on the CPU.
        cameras: the B cameras.
        level: of coverage, where the outlines are.
    """

    def __init__(self, alpha: torch.Tensor, cameras: Camera, level: float = 0.5) -> None:
        dtype = torch.promote_types(alpha.dtype, cameras.dtype)
        self.cameras = cameras.detach().to(dtype=dtype)
        alpha = alpha + (0.5 - level) if level != 0.5 else alpha
        filled = alpha >= 0.5
        rims = (filled[:, 0], filled[:, -1], filled[:, :, 0], filled[:, :, -1])
        #: which views the object may leave
        self.touching: list[bool] = torch.stack([rim.any(-1) for rim in rims]).any(0).tolist()
        self.distance = torch.empty(alpha.shape, dtype=dtype)
        for view, image in enumerate(alpha):
            self.distance[view] = outline_distance(image)

    def __len__(self) -> int:
        return len(self.cameras)

    def seen(self, view: int, points: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return of points (N, 3) in a view: signed distance to the outline, pixels to the border, depth."""
        height, width = self.distance.shape[-2:]
        camera, image = self.cameras[view], self.distance[view]
        x, y, depth = camera.project(points, (height, width)).unbind(-1)
        rim = torch.stack((x, width - x, y, height - y)).amin(0)
        ahead = depth > camera.near
        # Bilinear between the centres of pixels; beyond the outermost of them, as there.
        at = torch.stack((x * (2 / width) - 1, y * (2 / height) - 1), dim=-1)
        inside = torch.nn.functional.grid_sample(
            image[None, None], at[None, None], mode="bilinear", padding_mode="border", align_corners=False
        )[0, 0, 0]
        out = (rim < 0) | ~ahead
        if self.touching[view]:
            value = torch.where(out, FAR, inside)
        else:
            # The image is convex: what is this far beyond it is at least as far from what is in it.
            gap = torch.hypot(
                (-x).clamp_min(0) + (x - width).clamp_min(0), (-y).clamp_min(0) + (y - height).clamp_min(0)
            )
            value = torch.where(ahead, torch.where(out, -torch.hypot(gap, inside), inside), -FAR)
        return value, rim, depth

    def values(self, points: torch.Tensor) -> torch.Tensor:
        """Return the least signed distance, in pixels, of points (N, 3) over the views."""
        parts = []
        for part in points.to(self.distance.dtype).split(_CHUNK):
            least = self.seen(0, part)[0]
            for view in range(1, len(self)):
                least = torch.minimum(least, self.seen(view, part)[0])
            parts.append(least)
        return torch.cat(parts) if parts else points.new_zeros(0)

    def decided(self, centres: torch.Tensor, radius: float) -> tuple[torch.Tensor, torch.Tensor]:
        """Return which balls around points (N, 3) are all outside the hull, and which all inside."""
        outside, inside = [], []
        height, width = self.distance.shape[-2:]
        for part in centres.to(self.distance.dtype).split(_CHUNK):
            out, full = torch.zeros(len(part), dtype=torch.bool), torch.ones(len(part), dtype=torch.bool)
            for view in range(len(self)):
                value, rim, depth = self.seen(view, part)
                camera = self.cameras[view]
                pixels = 0.5 * min(height, width) * float(camera.focal.max())
                if camera.is_orthographic:
                    reach = torch.full_like(depth, pixels * radius)
                    ahead = depth - radius > camera.near
                else:
                    # A ball seen aslant is longer than one in the middle.
                    slant = math.hypot(1.0, (1.0 + float(camera.principal.abs().max())) / float(camera.focal.min()))
                    nearest = depth - radius
                    ahead = nearest > camera.near
                    reach = pixels * radius * slant * slant / torch.where(ahead, nearest, 1.0)
                reach = reach + _MARGIN
                sure = ahead if not self.touching[view] else ahead & ((rim > reach) | (rim < -reach))
                out |= sure & (value < -reach)
                full &= sure & (value > reach)
            outside.append(out)
            inside.append(full)
        return torch.cat(outside), torch.cat(inside)

    def box(self, centre: torch.Tensor, half: float) -> tuple[torch.Tensor, torch.Tensor] | None:
        """Return a box (2, 3) around what is left of a cube, and which of its sides (2, 3) cut it; None: nothing."""
        box = torch.stack((centre - half, centre + half)).to(self.distance.dtype)
        cut = torch.ones(2, 3, dtype=torch.bool)
        for count in (16, 24, 32):
            size = (box[1] - box[0]) / count
            at = torch.stack(torch.meshgrid(*[torch.arange(count)] * 3, indexing="ij"), dim=-1).reshape(-1, 3)
            outside, _ = self.decided(box[0] + (at + 0.5) * size, 0.5 * float(size.norm()))
            left = at[~outside]
            if not len(left):
                return None
            low, high = left.amin(0), left.amax(0) + 1
            cut &= torch.stack((low == 0, high == count))
            box = torch.stack((box[0] + low * size, box[0] + high * size))
        return box, cut

    def grid(self, low: torch.Tensor, cell: float, shape: tuple[int, ...]) -> torch.Tensor:
        """Return values (X, Y, Z) at the nodes of a grid; ±10 000 in blocks that the surface does not pass through."""
        dtype = self.distance.dtype
        coarse, fine = _BLOCKS
        count = [-(-n // coarse) * (coarse // fine) for n in shape]
        # By block first, then by node in it.
        values = torch.full((count[0] * count[1] * count[2], fine**3), -FAR, dtype=dtype)
        blocks = [torch.arange(-(-n // coarse)) for n in shape]
        at = torch.stack(torch.meshgrid(*blocks, indexing="ij"), dim=-1).reshape(-1, 3)
        for side, parts in ((coarse, coarse // fine), (fine, 1)):
            # With the nodes around it, so that no edge of the grid leaves what is decided for what is not.
            middle = low + (at * side + 0.5 * (side - 1)) * cell
            outside, inside = self.decided(middle, 0.5 * math.sqrt(3) * (side + 1) * cell)
            steps = _cube(parts)
            full = (at[inside][:, None] * parts + steps).reshape(-1, 3)
            values[_number(full, count)] = FAR
            at = (at[~outside & ~inside][:, None] * parts + steps).reshape(-1, 3)
        inner = _cube(fine)
        for some in at.split(_CHUNK // fine**3):
            nodes = (some[:, None] * fine + inner).reshape(-1, 3)
            values[_number(some, count)] = self.values(low + nodes * cell).reshape(-1, fine**3)
        values = values.reshape(*count, fine, fine, fine).permute(0, 3, 1, 4, 2, 5)
        return values.reshape([n * fine for n in count])[: shape[0], : shape[1], : shape[2]]


def _cube(side: int) -> torch.Tensor:
    return torch.stack(torch.meshgrid(*[torch.arange(side)] * 3, indexing="ij"), dim=-1).reshape(-1, 3)


def _number(at: torch.Tensor, count: list[int]) -> torch.Tensor:
    return (at[:, 0] * count[1] + at[:, 1]) * count[2] + at[:, 2]
