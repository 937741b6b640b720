# SPDX-License-Identifier: Apache-2.0
"""Photo-consistency: vertices move along their normals until the photographs agree on the colour of each.

What silhouettes leave open, dents and corners, colours tell: where the surface lies as it should, and is diffuse, a
point of it has one colour in all photographs that see it. Moved by d along its normal, it is seen in view i as
``cᵢ + gᵢ·d``, whose variance over the views is a parabola in d. All parabolas, the outlines of the masks and smoothness
of d make a sparse linear system, which is solved and set up again (Gauss-Newton), with blurred photographs at first.
"""

import math
from collections.abc import Sequence

import numpy as np
import scipy.sparse
import scipy.sparse.linalg
import torch

from geodiff.render.renderer import rasterize
from geodiff.scene.camera import Camera
from geodiff.scene.files import PosedImages
from geodiff.scene.mesh import Mesh
from geodiff.scene.photographs import give_back
from geodiff.tasks.mesh.outlines import outline_distance
from geodiff.tasks.mesh.refine import untangled

_BLURS = (2.0, 2.0, 1.0, 1.0, 1.0, 0.5, 0.5, 0.5)  # standard deviation in pixels, of each round
_GRAZING = 0.2  # cosine: what is seen more aslant than 78° is left out
_OUTLINE = 0.3  # what a pixel beside an outline counts, where black and white differ by 1
_EVEN = 0.03  # and a pixel between neighbours' d
_BAND = 8.0  # pixels: distances to an outline that are kept


def consistent(mesh: Mesh, posed: PosedImages, views: Sequence[int] | None = None) -> Mesh:
    """Return the mesh with its vertices where the photographs agree, topology unchanged.

    Args:
        mesh: within some pixels of the surface, its edges of about a pixel or two.
        posed: photographs in colour, on the CPU, two or more.
        views: which of them are used; all where left out. (Parts of them would be copies.)
    """
    mesh = mesh.detach()
    views = range(len(posed)) if views is None else views
    distances = {i: outline_distance(posed.alpha[i]).clamp(-_BAND, _BAND).half() for i in views}
    edges = mesh.edges.numpy()
    ends = np.concatenate([edges, edges[:, ::-1]]).T
    joined = scipy.sparse.csr_matrix((np.ones(ends.shape[1]), tuple(ends)), shape=(mesh.num_vertices,) * 2)
    even = _EVEN * (scipy.sparse.diags(np.asarray(joined.sum(1)).reshape(-1)) - joined)
    for blur in _BLURS:
        mesh = _round(mesh, posed, distances, even, blur)
    return untangled(mesh)


def _round(
    mesh: Mesh, posed: PosedImages, distances: dict[int, torch.Tensor], even: scipy.sparse.csr_matrix, blur: float
) -> Mesh:
    count = mesh.num_vertices
    pixels = {i: _pixel(mesh, posed.cameras[i : i + 1], posed.image_size) for i in distances}
    pixel = float(np.median([*pixels.values()]))
    sums = mesh.vertices.new_zeros(count, 9)  # of w, w·c, w·g, w·g·g, w·g·c
    left = even + 1e-6 * scipy.sparse.identity(count)
    right = np.zeros(count)
    for i in distances:
        view = _View(mesh, posed.cameras[i : i + 1], posed.alpha[i], pixels[i])
        index, color, slope, weight = view.colors(posed.photograph(i), blur, pixel)
        products = (slope * slope).sum(-1, keepdim=True), (slope * color).sum(-1, keepdim=True)
        terms = weight[:, None] * torch.cat((torch.ones_like(products[0]), color, slope, *products), -1)
        sums.index_add_(0, index, terms)
        ends, change, gap = view.outline(distances[i].to(mesh.dtype), pixel)
        rows = scipy.sparse.csr_matrix(
            (change.reshape(-1), ends.reshape(-1), np.arange(0, 2 * len(ends) + 1, 2)), shape=(len(ends), count)
        )
        left = left + _OUTLINE * (rows.T @ rows)
        right -= _OUTLINE * (rows.T @ gap)
        give_back(posed.alpha[i].numel())
    total = sums[:, :1].clamp_min(1e-9)
    color, slope = sums[:, 1:4], sums[:, 4:7] / total
    curve = (sums[:, 7] - sums[:, 4:7].mul(slope).sum(-1)).clamp_min(0)
    fall = sums[:, 8] - color.mul(slope).sum(-1)
    left = left + scipy.sparse.diags(curve.double().numpy())
    solver = scipy.sparse.linalg.splu(
        left.tocsc(), permc_spec="MMD_AT_PLUS_A", diag_pivot_thresh=0.0, options={"SymmetricMode": True}
    )
    step = torch.from_numpy(solver.solve(right - fall.double().numpy())).clamp(-1 - blur, 1 + blur)
    return mesh.with_vertices(mesh.vertices + pixel * step.to(mesh.dtype)[:, None] * mesh.vertex_normals)


def _pixel(mesh: Mesh, camera: Camera, size: tuple[int, int]) -> float:
    """Return the length of a pixel at the middle of the mesh."""
    bounds = mesh.bounds
    middle, reach = bounds.mean(0), 1e-3 * float((bounds[1] - bounds[0]).norm())
    points = torch.cat((middle[None], middle + reach * torch.eye(3, dtype=middle.dtype)))
    at = camera.project(points, size)[0, :, :2]
    return reach * math.sqrt(2) / max(float((at[1:] - at[0]).norm()), 1e-12)


class _View:
    """What one view sees of the mesh."""

    def __init__(self, mesh: Mesh, camera: Camera, alpha: torch.Tensor, pixel: float) -> None:
        self.mesh, self.camera, self.alpha, self.pixel = mesh, camera, alpha, pixel
        self.size = (alpha.shape[0], alpha.shape[1])
        hard = rasterize(mesh, camera, self.size)
        self.depth, self.mask, self.face = hard.depth[0], hard.mask[0], hard.face_id[0].clamp_min(0)
        self.at = camera.project(mesh.vertices, self.size)[0]
        self.facing = -(mesh.vertex_normals * toward(camera, mesh.vertices)).sum(-1)
        self.nearest = -_most(torch.where(self.mask, -self.depth, -math.inf), 1)

    def colors(
        self, image: torch.Tensor, blur: float, pixel: float
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
        """Which vertices are seen well, their colours, what these change by where it moves by a pixel, and weights."""
        mesh = self.mesh
        slant = (mesh.face_normals * toward(self.camera, mesh.vertices[mesh.faces].mean(1))).sum(-1).abs()[self.face]
        farthest = _most(torch.where(self.mask, self.depth, -math.inf), 1)
        edge = farthest - self.nearest > 4 * self.pixel * (1 + _tangent(slant))
        # What a blurred colour reaches must be one surface, wholly inside the mask.
        spoilt = _most((~self.mask | edge | (self.alpha < 0.999)).to(image.dtype), 1 + math.ceil(blur)) > 0
        row, column, within = self._pixels(self.at)
        seen = within & (self.facing > _GRAZING) & ~spoilt[row, column]
        gap = (self.at[:, 2] - self.depth[row, column]).abs()
        seen &= gap < 2 * self.pixel * (1 + _tangent(self.facing))
        index = seen.nonzero()[:, 0]
        points = mesh.vertices[index]
        moved = self.camera.project(points + pixel * mesh.vertex_normals[index], self.size)[0, :, :2]
        shift = moved - self.at[index, :2]
        cover = self.alpha[..., None]
        smooth = blurred(image * cover, blur) / blurred(cover, blur).clamp_min(1e-6)
        across, down = torch.zeros_like(smooth), torch.zeros_like(smooth)
        across[:, 1:-1] = 0.5 * (smooth[:, 2:] - smooth[:, :-2])
        down[1:-1] = 0.5 * (smooth[2:] - smooth[:-2])
        found = self._read(torch.cat((smooth, across, down), -1), self.at[index])
        slope = found[:, 3:6] * shift[:, :1] + found[:, 6:] * shift[:, 1:]
        return index, found[:, :3], slope, self.facing[index].square()

    def outline(self, distance: torch.Tensor, pixel: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return where the mesh's outline crosses edges.

        Returns:
            The edges' ends (N, 2); by how much the distance to the mask's outline changes where each end moves by a
            pixel, (N, 2); that distance (N,), in pixels.
        """
        ends = self.mesh.edges
        facing = self.facing[ends]
        ends = ends[(facing[:, 0] > 0) != (facing[:, 1] > 0)]
        a, b = self.facing[ends].unbind(-1)
        share = torch.stack((-b, a), -1) / (a - b)[:, None]
        points = (self.mesh.vertices[ends] * share[..., None]).sum(1)
        normals = (self.mesh.vertex_normals[ends] * share[..., None]).sum(1)
        reach = 0.5 * pixel * torch.nn.functional.normalize(normals, dim=-1)
        at, out, back = (self.camera.project(p, self.size)[0] for p in (points, points + reach, points - reach))
        gap, farther, closer = (self._read(distance[..., None], p)[:, 0] for p in (at, out, back))
        change = farther - closer
        # It is the outline if there is nothing of the mesh just beyond, nor before it.
        beyond = at[:, :2] + 1.5 * torch.nn.functional.normalize(out[:, :2] - back[:, :2], dim=-1)
        row, column, within = self._pixels(at)
        good = within & (gap.abs() < 2) & (change < -0.5) & (at[:, 2] < self.nearest[row, column] + 4 * self.pixel)
        row, column, _ = self._pixels(beyond)
        good &= ~self.mask[row, column]
        changes = (share * change[:, None])[good].double()
        return ends[good].numpy(), changes.numpy(), gap[good].double().numpy()

    def _pixels(self, at: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return row and column of the pixels that places are in, the nearest of the image, and which are in it."""
        height, width = self.size
        at = at.nan_to_num(-1.0).clamp(-1e6, 1e6)
        column, row = at[:, 0].floor().long(), at[:, 1].floor().long()
        inside = (column >= 0) & (column < width) & (row >= 0) & (row < height)
        if at.shape[1] > 2:
            inside &= at[:, 2] > self.camera.near
        return row.clamp(0, height - 1), column.clamp(0, width - 1), inside

    def _read(self, image: torch.Tensor, at: torch.Tensor) -> torch.Tensor:
        """Return what an image (H, W, C) has at places, bilinear."""
        height, width = self.size
        grid = torch.stack((at[:, 0] * (2 / width) - 1, at[:, 1] * (2 / height) - 1), dim=-1)
        planes = image.movedim(-1, 0)[None]
        return torch.nn.functional.grid_sample(
            planes, grid[None, None], mode="bilinear", padding_mode="border", align_corners=False
        )[0, :, 0].T


def toward(camera: Camera, points: torch.Tensor) -> torch.Tensor:
    """Return unit vectors (N, 3) along which one camera, a batch of 1, sees points."""
    if camera.is_orthographic:
        return camera.forward.expand(len(points), 3)
    return torch.nn.functional.normalize(points - camera.position[0], dim=-1)


def _tangent(cosine: torch.Tensor) -> torch.Tensor:
    return (1 - cosine.square()).clamp_min(0).sqrt() / cosine.clamp_min(1e-3)


def _most(values: torch.Tensor, reach: int) -> torch.Tensor:
    """Return the greatest value around each pixel."""
    return torch.nn.functional.max_pool2d(values[None], 2 * reach + 1, 1, reach)[0]


def blurred(image: torch.Tensor, deviation: float) -> torch.Tensor:
    """Return an image (H, W, C) weighted with a Gaussian, zero beyond its border."""
    radius = math.ceil(3 * deviation)
    ramp = torch.exp(-(torch.arange(-radius, radius + 1, dtype=image.dtype).square()) / (2 * deviation * deviation))
    ramp = (ramp / ramp.sum())[None, None]
    planes = image.movedim(-1, 0)[:, None]
    planes = torch.nn.functional.conv2d(planes, ramp[..., None], padding=(radius, 0))
    return torch.nn.functional.conv2d(planes, ramp[:, :, None], padding=(0, radius))[:, 0].movedim(0, -1)
