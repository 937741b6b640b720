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
_MARGIN = 1.0  # pixels: what bilinear distances may be off, and levels that are about 0
_NEAR = 0.5  # pixels: those levels


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
        cameras = cameras.detach().to(dtype=dtype)
        #: one for each view, so that its matrix is made once
        self.cameras = [cameras[view] for view in range(len(cameras))]
        alpha = alpha + (0.5 - level) if level != 0.5 else alpha
        filled = alpha >= 0.5
        rims = (filled[:, 0], filled[:, -1], filled[:, :, 0], filled[:, :, -1])
        #: which views the object may leave
        self.touching: list[bool] = torch.stack([rim.any(-1) for rim in rims]).any(0).tolist()
        self.distance = torch.empty(alpha.shape, dtype=dtype)
        for view, image in enumerate(alpha):
            self.distance[view] = outline_distance(image)

        self._spread = [_spread(camera, alpha.shape[-2:]) for camera in self.cameras]

    def __len__(self) -> int:
        return len(self.cameras)

    def seen(self, view: int, points: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return of points (N, 3) in a view: signed distance to the outline, pixels to the border, depth."""
        height, width = self.distance.shape[-2:]
        camera, image = self.cameras[view], self.distance[view]
        x, y, depth = camera.project(points, (height, width)).unbind(-1)
        rim = torch.stack((x, width - x, y, height - y)).amin(0)
        # Bilinear between the centres of pixels; beyond the outermost of them, as there.
        at = torch.stack((x * (2 / width) - 1, y * (2 / height) - 1), dim=-1)
        value = torch.nn.functional.grid_sample(
            image[None, None], at[None, None], mode="bilinear", padding_mode="border", align_corners=False
        )[0, 0, 0]
        ahead = depth > camera.near
        out = (rim < 0) | ~ahead
        if not bool(out.any()):
            return value, rim, depth
        if self.touching[view]:
            value = torch.where(out, FAR, value)
        else:
            # The image is convex: what is this far beyond it is at least as far from what is in it.
            gap = torch.hypot(
                (-x).clamp_min(0) + (x - width).clamp_min(0), (-y).clamp_min(0) + (y - height).clamp_min(0)
            )
            value = torch.where(ahead, torch.where(out, -torch.hypot(gap, value), value), -FAR)
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

    def decided(self, centres: torch.Tensor, radius: float, level: float = 0.0) -> tuple[torch.Tensor, torch.Tensor]:
        """Return which balls around points (N, 3) are all below a level, and which all above it."""
        outside, inside = [], []
        margin = _MARGIN + max(0.0, abs(level) - _NEAR)
        for part in centres.to(self.distance.dtype).split(_CHUNK):
            out, full = torch.zeros(len(part), dtype=torch.bool), torch.ones(len(part), dtype=torch.bool)
            left = torch.arange(len(part))  # one view is enough for what is outside
            for view in range(len(self)):
                value, rim, depth = self.seen(view, part)
                reach, ahead = self._reach(view, depth, radius)
                reach = reach + margin
                sure = ahead if not self.touching[view] else ahead & ((rim > reach) | (rim < -reach))
                gone = sure & (value < -reach)
                full[left] &= sure & (value > reach)
                if bool(gone.any()):
                    out[left[gone]] = True
                    part, left = part[~gone], left[~gone]
            outside.append(out)
            inside.append(full)
        return torch.cat(outside), torch.cat(inside)

    def _reach(self, view: int, depth: torch.Tensor, radius: float) -> tuple[torch.Tensor, torch.Tensor]:
        """Return how far, in pixels, balls reach about their centres' places, and which are all before the camera."""
        camera, (pixels, slant) = self.cameras[view], self._spread[view]
        nearest = depth - radius
        ahead = nearest > camera.near
        if camera.is_orthographic:
            return torch.full_like(depth, pixels * radius), ahead
        return pixels * radius * slant / torch.where(ahead, nearest, 1.0), ahead

    def box(self, centre: torch.Tensor, half: float, level: float = 0.0) -> tuple[torch.Tensor, torch.Tensor] | None:
        """Return a box (2, 3) around what is above a level in a cube, and which of its sides (2, 3) cut it; or None."""
        box = torch.stack((centre - half, centre + half)).to(self.distance.dtype)
        cut = torch.ones(2, 3, dtype=torch.bool)
        for count in (16, 24, 32):
            size = (box[1] - box[0]) / count
            at = torch.stack(torch.meshgrid(*[torch.arange(count)] * 3, indexing="ij"), dim=-1).reshape(-1, 3)
            outside, _ = self.decided(box[0] + (at + 0.5) * size, 0.5 * float(size.norm()), level)
            left = at[~outside]
            if not len(left):
                return None
            low, high = left.amin(0), left.amax(0) + 1
            cut &= torch.stack((low == 0, high == count))
            box = torch.stack((box[0] + low * size, box[0] + high * size))
        return box, cut

    def grid(self, low: torch.Tensor, cell: float, shape: tuple[int, ...], level: float = 0.0) -> torch.Tensor:
        """Return values (X, Y, Z) at the nodes of a grid; ±10 000 in blocks through which the level does not pass."""
        padded = [-(-n // _BLOCKS[0]) * _BLOCKS[0] for n in shape]
        values = torch.full(padded, -FAR, dtype=self.distance.dtype)
        blocks = _blocks(values)
        full, some = self._undecided(low, cell, shape, level)
        blocks[full[:, 0], :, full[:, 1], :, full[:, 2]] = FAR
        fine = _BLOCKS[-1]
        inner = _cube(fine)
        for part in some.split(_CHUNK // fine**3):
            nodes = (part[:, None] * fine + inner).reshape(-1, 3)
            found = self.values(low + nodes * cell).reshape(-1, fine, fine, fine)
            blocks[part[:, 0], :, part[:, 1], :, part[:, 2]] = found
        return values[: shape[0], : shape[1], : shape[2]]

    def above(self, level: float, low: torch.Tensor, cell: float, among: torch.Tensor) -> torch.Tensor:
        """Return which of some nodes of a grid, ``among`` (X, Y, Z), have values above a level: (X, Y, Z)."""
        shape = tuple(among.shape)
        full, some = self._undecided(low, cell, shape, level)
        kept = torch.zeros([-(-n // _BLOCKS[0]) * _BLOCKS[0] for n in shape], dtype=torch.bool)
        wanted = kept.clone()
        wanted[: shape[0], : shape[1], : shape[2]] = among
        blocks = _blocks(wanted)
        _blocks(kept)[full[:, 0], :, full[:, 1], :, full[:, 2]] = True
        fine = _BLOCKS[-1]
        inner = _cube(fine)
        for part in some.split(_CHUNK // fine**3):
            asked = blocks[part[:, 0], :, part[:, 1], :, part[:, 2]].reshape(-1)
            nodes = (part[:, None] * fine + inner).reshape(-1, 3)[asked]
            points = (low + nodes * cell).to(self.distance.dtype)
            for view in range(len(self)):  # one view is enough against a node
                still = self.seen(view, points)[0] > level
                nodes, points = nodes[still], points[still]
                if not len(nodes):
                    break
            kept[nodes[:, 0], nodes[:, 1], nodes[:, 2]] = True
        return kept[: shape[0], : shape[1], : shape[2]] & among

    def _undecided(
        self, low: torch.Tensor, cell: float, shape: tuple[int, ...], level: float
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the blocks (N, 3) of 4³ nodes that are all above a level, and those through which it may pass."""
        coarse, fine = _BLOCKS
        blocks = [torch.arange(-(-n // coarse)) for n in shape]
        at = torch.stack(torch.meshgrid(*blocks, indexing="ij"), dim=-1).reshape(-1, 3)
        full = []
        for side, parts in ((coarse, coarse // fine), (fine, 1)):
            # With the nodes around it, so that no edge of the grid leaves what is decided for what is not.
            middle = low + (at * side + 0.5 * (side - 1)) * cell
            outside, inside = self.decided(middle, 0.5 * math.sqrt(3) * (side + 1) * cell, level)
            steps = _cube(parts)
            full.append((at[inside][:, None] * parts + steps).reshape(-1, 3))
            at = (at[~outside & ~inside][:, None] * parts + steps).reshape(-1, 3)
        return torch.cat(full), at


def _spread(camera: Camera, size: torch.Size) -> tuple[float, float]:
    """Return the pixels of a length of 1 at depth 1 in the middle, and how many times that they are at most elsewhere.

    A ball of radius r at depth z moves a point of it by r/z · √(1 + u²) from where the camera sees its centre, u being
    the tangent of the angle at which one of the two is seen; one of them is in the image.
    """
    height, width = size
    short = min(height, width)
    slope = (1.0 + float(camera.principal.abs().max())) / float(camera.focal.min())
    corner = math.hypot(height / short, width / short) + float(camera.principal.abs().max()) * math.sqrt(2)
    slant = math.hypot(1.0, slope)
    return 0.5 * short * float(camera.focal.max()), max(
        slant * slant, math.hypot(1.0, corner / float(camera.focal.min()))
    )


def _blocks(values: torch.Tensor) -> torch.Tensor:
    """Return a view of a grid as (X/4, 4, Y/4, 4, Z/4, 4), so that blocks can be indexed."""
    fine = _BLOCKS[-1]
    return values.view(*(n for size in values.shape for n in (size // fine, fine)))


def _cube(side: int) -> torch.Tensor:
    return torch.stack(torch.meshgrid(*[torch.arange(side)] * 3, indexing="ij"), dim=-1).reshape(-1, 3)
