# SPDX-License-Identifier: Apache-2.0
"""The pure-torch twin of the contour coverage: brute force in float64, any distribution."""

from collections.abc import Callable
from typing import Any

import torch

from geodiff.modes import outside_autocast
from geodiff.reference.arguments import check_packed, face_corners, pixel_centres
from geodiff.reference.outline import Outline, covered, outline
from geodiff.reference.polygons import Polygons, cross, doubled_area
from geodiff.soft import Distribution, as_distribution
from geodiff.validation import positive


@outside_autocast
def contour(
    clip: torch.Tensor,
    faces: torch.Tensor,
    layout: torch.Tensor,
    *,
    distribution: str | Distribution | Callable[[torch.Tensor], torch.Tensor] = "logistic",
    scale: float | torch.Tensor,
    image_size: tuple[int, int],
    near: float = 1e-2,
    edges: torch.Tensor | None = None,
    max_error: float = 1e-4,
    chunk: int = 2**20,
) -> torch.Tensor:
    """Render soft silhouettes from the outline: at each pixel the distribution of the distance to it.

    `alpha(q) = F(d(q) / scale)` with `F` the distribution and `d` the signed distance (NDC) from pixel centre `q` to
    the boundary of the union of all projected faces, positive inside. One CDF a pixel, so the image depends on the
    shape that is covered and not on the triangles that cover it: no interior seams, no fattening by tessellation. A
    squared distribution takes `sign(d)·d²/scale`.

    Args:
        clip: vertices of all images `(x·w, y·w, depth, w)`, `(N, 4)`; NDC is x right, y up, shorter side in [−1, 1].
        faces: corners of all faces, `(F, 3)`, indices local to the image's mesh.
        layout: one row `[vertex_start, face_start, face_count]` an image, `(B, 3)`.
        distribution: an object, also of a class of your own, a name, or a function `x ↦ F(x)`.
        scale: the scale τ > 0, NDC, or NDC² for a squared distribution; a number or a tensor without axes.
        image_size: `(H, W)`.
        near: depth of the near plane, positive.
        edges: not needed here; the op's table of neighbours.
        max_error: of the op; all pixels are evaluated here.
        chunk: the most pairs held at a time.

    Returns:
        alpha in [0, 1], `(B, H, W)`.

    Gradients: in `clip`, through the nearest point of the outline (the two ends of its edge, or where two edges cross
    there, the four ends of both), in `scale` and in the distribution's parameters. On the medial axis, where two
    points are nearest, through the first of them. alpha jumps where a hole, a slit or an island vanishes, and no
    gradient knows of it.

    Raises:
        TypeError: for a wrong dtype or class.
        ValueError: for a wrong shape, a value out of range, NaN or infinity.

    Example:
        >>> clip = torch.tensor([[-3.0, -3.0, 2.0, 1.0], [3.0, -3.0, 2.0, 1.0], [0.0, 3.0, 2.0, 1.0]])
        >>> one = torch.tensor([[0, 1, 2]]), torch.tensor([[0, 0, 1]])
        >>> contour(clip, *one, scale=0.5, image_size=(1, 1))
        tensor([[[0.9360]]])
    """
    check_packed("contour", clip, faces, layout, image_size, near)
    positive("contour", "scale", scale, "It is a length in NDC (an area for a squared distribution).")
    distance = contour_distance(clip, faces, layout, image_size=image_size, near=near, chunk=chunk)
    return coverage_of(distance, as_distribution(distribution), scale)


def coverage_of(distance: torch.Tensor, distribution: Distribution, scale: Any) -> torch.Tensor:
    """Return `F(d/scale)`, or `F(d·|d|/scale)` for a squared distribution; 0 and 1 at −∞ and ∞, without gradient."""
    far = torch.isinf(distance)
    d = distance.masked_fill(far, 0.0)
    if distribution.is_squared:
        d, distribution = d * d.abs(), distribution.unsquared()
    if not isinstance(scale, torch.Tensor):
        scale = torch.full((), float(scale), dtype=torch.get_default_dtype(), device=d.device)
    alpha = distribution.cdf(d / scale.to(d))
    return torch.where(far, (distance > 0).to(d), alpha.to(d))


@outside_autocast
def contour_distance(
    clip: torch.Tensor,
    faces: torch.Tensor,
    layout: torch.Tensor,
    *,
    image_size: tuple[int, int],
    near: float = 1e-2,
    chunk: int = 2**20,
) -> torch.Tensor:
    """Measure the signed distance from pixel centres to the outline; arguments and gradients as of `contour`.

    Returns:
        Distances in NDC, positive inside, `(B, H, W)`; `−inf` where the image has no face at all.

    Example:
        >>> clip = torch.tensor([[-3.0, -3.0, 2.0, 1.0], [3.0, -3.0, 2.0, 1.0], [0.0, 3.0, 2.0, 1.0]])
        >>> one = torch.tensor([[0, 1, 2]]), torch.tensor([[0, 0, 1]])
        >>> contour_distance(clip, *one, image_size=(1, 1))
        tensor([[[1.3416]]])
    """
    pixels = pixel_centres(image_size, clip).double()
    images = []
    for row in layout.tolist():
        own = faces[row[1] : row[1] + row[2]].long()
        polygons, pieces = outline(face_corners(clip, faces, row), own, near, chunk)
        images.append(_distance(pixels, polygons, pieces, chunk).to(clip.dtype))
    return torch.stack(images).reshape(-1, *image_size) if images else clip.new_empty((0, *image_size))


def _distance(pixels: torch.Tensor, polygons: Polygons, pieces: Outline, chunk: int) -> torch.Tensor:
    if len(pieces.face) == 0:
        return pixels.new_full((len(pixels),), -torch.inf)
    with torch.no_grad():
        inside = covered(pixels, polygons, chunk)
        nearest, t = _nearest(pixels, polygons, pieces, chunk)
    face, edge = pieces.face[nearest], pieces.edge[nearest]
    a, b = _edge(polygons, face, edge)
    e = b - a
    # Between the ends of an edge, its line; this keeps the gradient on the edge itself, where d = 0.
    low, high = pieces.along[nearest].unbind(-1)
    strip = (t > low) & (t < high)
    length = torch.linalg.vector_norm(e, dim=-1)
    side = doubled_area(polygons.points.detach())[face].sign() * cross(e, pixels - a) / length
    side = torch.where((side > 0) == inside, side, torch.where(side == 0, side, -side))

    nearest_point = a + t[:, None] * e
    partner = torch.where(t <= low, pieces.partner[nearest, 0], pieces.partner[nearest, 1])
    crossed = (~strip & (partner >= 0)).nonzero()[:, 0]
    if len(crossed):
        other = pieces.segments[partner[crossed]]
        c, d = _edge(polygons, other[:, 0], other[:, 1])
        own, f = e[crossed], d - c
        at = cross(c - a[crossed], f) / cross(own, f)
        nearest_point = nearest_point.index_copy(0, crossed, a[crossed] + at[:, None] * own)
    gap = pixels - nearest_point
    far2 = (gap * gap).sum(dim=-1)
    strip = strip | (far2 == 0)
    size = torch.where(strip, 1.0, far2).sqrt()
    return torch.where(strip, side, torch.where(inside, size, -size))


def _edge(polygons: Polygons, face: torch.Tensor, edge: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    following = torch.where(edge + 1 < polygons.counts[face], edge + 1, 0)
    return polygons.points[face, edge], polygons.points[face, following]


def _nearest(
    pixels: torch.Tensor, polygons: Polygons, pieces: Outline, chunk: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return which piece is nearest to each pixel, and where along its edge the nearest point is."""
    a, b = _edge(polygons, pieces.face, pieces.edge)
    e = b - a
    length2 = (e * e).sum(dim=-1)
    found, parameters = [], []
    for some in pixels.split(max(1, chunk // len(a))):
        arm = some[:, None] - a
        t = (arm * e).sum(dim=-1) / length2
        t = t.clamp(min=pieces.along[:, 0]).clamp(max=pieces.along[:, 1])
        gap = arm - t[..., None] * e
        nearest = (gap * gap).sum(dim=-1).argmin(dim=-1)
        found.append(nearest)
        parameters.append(t.gather(1, nearest[:, None])[:, 0])
    return torch.cat(found), torch.cat(parameters)
