# SPDX-License-Identifier: Apache-2.0
"""The pure-torch twin of the hard z-buffer rasteriser."""

from typing import NamedTuple

import torch

from geodiff.modes import outside_autocast
from geodiff.reference.arguments import check_packed, face_corners, pixel_centres, pixel_chunks
from geodiff.reference.polygons import Polygons, contains, cross, near_clip
from geodiff.validation import shapes_repr


class Raster(NamedTuple):
    """What a pixel sees.

    Attributes:
        face_id: the nearest face, an index within the image's faces, −1 where there is none, `(B, H, W)`, int64.
        depth: its depth, infinite where there is none, `(B, H, W)`.
        barycentric: perspective-correct coordinates in its (unclipped) triangle, 0 where there is none, `(B, H, W, 3)`.
    """

    def __repr__(self) -> str:
        return shapes_repr(self)

    face_id: torch.Tensor
    depth: torch.Tensor
    barycentric: torch.Tensor


@outside_autocast
def rasterize(
    clip: torch.Tensor,
    faces: torch.Tensor,
    layout: torch.Tensor,
    *,
    image_size: tuple[int, int],
    near: float = 1e-2,
    chunk: int = 2**20,
) -> Raster:
    """Find the nearest face at every pixel centre.

    A face covers a pixel whose centre is inside it or on its edge, from either side, and whose depth there is at least
    `near`. Degenerate faces and faces wholly behind `near` cover nothing, by the rule of `near_clip`. The nearest depth
    wins; of equal depths, the lowest face index.

    With the corners `v_i = (x_i·w_i, y_i·w_i, w_i)` and a pixel at `(x, y)`, the homogeneous edge functions
    `e_i = r_j × r_k`, `r_i = (x_i·w_i − x·w_i, y_i·w_i − y·w_i)`, are in the ratio of the perspective-correct
    barycentrics (Olano and Greer, "Triangle scan conversion using 2D homogeneous coordinates", 1997), also where a
    corner is behind the camera. Two faces that share an edge get the same function of it, but for its sign.

    Args:
        clip: vertices of all images `(x·w, y·w, depth, w)`, `(N, 4)`; NDC is x right, y up, shorter side in [−1, 1].
        faces: corners of all faces, `(F, 3)`, indices local to the image's mesh.
        layout: one row `[vertex_start, face_start, face_count]` an image, `(B, 3)`.
        image_size: `(H, W)`.
        near: depth of the near plane, positive.
        chunk: the most (pixel, face) pairs held at a time; changes memory, not the result.

    Returns:
        `face_id`, `depth` and `barycentric` of every pixel.

    Gradients: of `depth` and `barycentric` in `clip`, for the face that is seen; where pixels change from one face to
    another the image jumps, and no gradient knows of it.

    Raises:
        TypeError: for a wrong dtype or class.
        ValueError: for a wrong shape, a value out of range, NaN or infinity.

    Example:
        >>> clip = torch.tensor([[-1.0, -1.0, 2.0, 1.0], [1.0, -1.0, 2.0, 1.0], [-1.0, 1.0, 2.0, 1.0]])
        >>> layout = torch.tensor([[0, 0, 1]])
        >>> rasterize(clip, torch.tensor([[0, 1, 2]]), layout, image_size=(2, 2)).face_id
        tensor([[[ 0, -1],
                 [ 0,  0]]])
    """
    check_packed("rasterize", clip, faces, layout, image_size, near)
    pixels = pixel_centres(image_size, clip)
    images = [_one_image(face_corners(clip, faces, row), pixels, near, chunk) for row in layout.tolist()]
    shape = (len(images), *image_size)
    if not images:
        return Raster(faces.new_empty(shape, dtype=torch.int64), clip.new_empty(shape), clip.new_empty((*shape, 3)))
    face_id, depth, barycentric = (torch.stack(parts) for parts in zip(*images, strict=True))
    return Raster(face_id.reshape(shape), depth.reshape(shape), barycentric.reshape(*shape, 3))


def _one_image(
    corners: torch.Tensor, pixels: torch.Tensor, near: float, chunk: int
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    with torch.no_grad():
        polygons = near_clip(corners, near)
        drawn = polygons.counts.nonzero()[:, 0]
        polygons = polygons.select(drawn)
        pieces = pixel_chunks(pixels, len(drawn), chunk)
        face_id = torch.cat([_nearest_face(corners[drawn], polygons, drawn, piece) for piece in pieces])
    hit = (face_id >= 0).nonzero()[:, 0]
    barycentric, depth = _interpolate(corners[face_id[hit]], pixels[hit])
    return (
        face_id,
        pixels.new_full((len(pixels),), torch.inf).index_copy(0, hit, depth),
        pixels.new_zeros(len(pixels), 3).index_copy(0, hit, barycentric),
    )


def _nearest_face(corners: torch.Tensor, polygons: Polygons, drawn: torch.Tensor, pixels: torch.Tensor) -> torch.Tensor:
    if len(drawn) == 0:
        return drawn.new_full((len(pixels),), -1)
    depth = depths_at(corners, pixels[:, None])
    # A ray in the plane of a face has no barycentrics, and a depth that is NaN.
    covered = contains(pixels, polygons) & ~depth.isnan()
    nearest, which = torch.where(covered, depth, torch.inf).min(dim=1)
    return torch.where(torch.isfinite(nearest), drawn[which], -1)


def depths_at(corners: torch.Tensor, pixels: torch.Tensor) -> torch.Tensor:
    """Return the depths of pixels in triangles `(F, 3, 4)`, the same bits in whatever order these name their corners.

    So faces on top of each other tie, and the one of lowest index wins.
    """
    order = torch.arange(3, device=corners.device).expand(len(corners), 3)
    for i in (3, 2, 1, 0):
        order = order.gather(1, corners[..., i].gather(1, order).argsort(dim=1, stable=True))
    return _interpolate(corners.gather(1, order[..., None].expand_as(corners)), pixels)[1]


def _interpolate(corners: torch.Tensor, pixels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the barycentrics `(..., 3)` and depths `(...)` of pixels `(..., 2)` in triangles `(..., 3, 4)`."""
    # Barycentrics are ratios: a power of two for each face changes no bit and keeps its products from overflowing.
    plane = corners[..., [0, 1, 3]]
    exponent = torch.frexp(plane.detach().abs().amax(dim=(-2, -1), keepdim=True)).exponent
    plane = plane * torch.ldexp(torch.ones_like(exponent, dtype=plane.dtype), -exponent)
    relative = plane[..., :2] - pixels[..., None, :] * plane[..., 2:]
    edges = cross(relative.roll(-1, dims=-2), relative.roll(-2, dims=-2))
    barycentric = edges / edges.sum(dim=-1, keepdim=True)
    depths = corners[..., 2]
    # Relative to the first corner, so that faces parallel to the image tie exactly.
    rise = depths[..., 1:] - depths[..., :1]
    return barycentric, depths[..., 0] + (barycentric[..., 1:] * rise).sum(dim=-1)
