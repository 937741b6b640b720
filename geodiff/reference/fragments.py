# SPDX-License-Identifier: Apache-2.0
"""The pure-torch twins of fragments (the k faces that a pixel sees) and of blending rows by weights."""

from typing import NamedTuple

import torch

from geodiff.modes import outside_autocast
from geodiff.reference.arguments import check_packed, face_corners, pixel_centres, pixel_chunks
from geodiff.reference.polygons import Polygons, contains, cross, doubled_area, near_clip, signed_distance
from geodiff.reference.rasterize import _interpolate, depths_at
from geodiff.validation import choice, fail, floating, positive, shapes_repr

NOWHERE = -1e10
"""Distance of a fragment that is not there: every distribution is 0 that far outside, and has no slope."""

HANDICAP, MIDDLE = 1e-3, 1e-4
"""For ``order="visible"``, faces that meet at an outline are equally near. So the square of the distance to a face that
is turned away counts a thousandth more, and to all is added a ten-thousandth of that to the middle of the face."""

ORDERS = ("depth", "visible", "weight")


class FragmentMaps(NamedTuple):
    """What a pixel sees, k faces of it.

    Attributes:
        face_id: index within the image's faces, −1 where there is none, `(B, H, W, k)`, int64.
        distance: signed distance of the pixel centre to the face, NDC, positive inside, `(B, H, W, k)`; −1e10 where
            there is none.
        barycentric: perspective-correct coordinates, in its triangle, of the face's point nearest to the pixel centre,
            `(B, H, W, k, 3)`; 0 where there is none.
        depth: of that point, infinite where there is none, `(B, H, W, k)`.
    """

    def __repr__(self) -> str:
        return shapes_repr(self)

    face_id: torch.Tensor
    distance: torch.Tensor
    barycentric: torch.Tensor
    depth: torch.Tensor


class Ranking(NamedTuple):
    """How ``order="weight"`` weighs a fragment: `F(d)·exp(−depth·sharpness)`. Only its rank is taken from this.

    Attributes:
        table: log F at `d/(|d| + unit)`, evenly spaced in [−1, 1], `(n,)`, finite.
        unit: a length, NDC.
        sharpness: `(B,)`, one over a depth.
    """

    def __repr__(self) -> str:
        return shapes_repr(self)

    table: torch.Tensor
    unit: float
    sharpness: torch.Tensor


def check_fragments(
    where: str, clip: torch.Tensor, layout: torch.Tensor, k: int, blur: float, order: str, ranking: Ranking | None
) -> None:
    """Check what `fragments` takes besides a packed mesh."""
    if not isinstance(k, int) or isinstance(k, bool) or k < 1:
        raise fail(where, "k", "a positive integer", k, "It is how many faces a pixel keeps.")
    if isinstance(blur, bool) or not isinstance(blur, int | float) or not blur >= 0:
        raise fail(where, "blur", "a number ≥ 0", blur, "It is a distance in NDC; 0 keeps faces that cover the pixel.")
    choice(where, "order", order, ORDERS)
    if order == "visible" and k != 1:
        raise fail(where, "k", "1 with order='visible'", str(k), "A pixel has one visible face.")
    if (ranking is None) == (order == "weight"):
        raise fail(where, "ranking", "given with order='weight', and only then", ranking)
    if ranking is not None and ranking.sharpness.shape != layout.shape[:1]:
        raise fail(where, "ranking", f"of sharpness ({len(layout)},), one an image", ranking.sharpness)
    if ranking is not None:
        positive(where, "ranking", ranking.unit, "Its unit is a length in NDC.")


@outside_autocast
def fragments(
    clip: torch.Tensor,
    faces: torch.Tensor,
    layout: torch.Tensor,
    *,
    k: int = 1,
    blur: float = 0.0,
    image_size: tuple[int, int],
    near: float = 1e-2,
    order: str = "depth",
    ranking: Ranking | None = None,
    chunk: int = 2**20,
) -> FragmentMaps:
    """Find k faces for every pixel: those that cover its centre, and those at most `blur` away from it in the image.

    A face is seen in the point of it that is nearest to the pixel centre in the image: where the face covers the
    centre (edges included, from either side), right there. A face that crosses the near plane is clipped and stays one
    fragment; degenerate faces and those behind the plane leave none.

    Args:
        clip: vertices of all images `(x·w, y·w, depth, w)`, `(N, 4)`; NDC is x right, y up, shorter side in [−1, 1].
        faces: corners of all faces, `(F, 3)`, indices local to the image's mesh.
        layout: one row `[vertex_start, face_start, face_count]` an image, `(B, 3)`.
        k: how many faces a pixel keeps.
        blur: NDC; 0 keeps only faces that cover the pixel centre; may be infinite.
        image_size: `(H, W)`.
        near: depth of the near plane, positive.
        order: which k faces, and in which order. ``"depth"``: the nearest in depth first. ``"visible"`` (k = 1): the
            nearest in depth of those that cover the pixel; where none does, the nearest in the image; of those that
            share the nearest edge or corner, one seen from the front (counter-clockwise) whose middle is nearest.
            ``"weight"``: the largest `F(d)·exp(−depth·sharpness)` first. Ties go to the lowest index.
        ranking: F and the sharpness, for ``"weight"``.
        chunk: the most (pixel, face) pairs held at a time; changes memory, not the result.

    Returns:
        `FragmentMaps`.

    Gradients: of distance, barycentrics and depth in `clip`, at fixed `face_id`. Distances are differentiable as said
    in `signed_distance`; barycentrics and depth bend where the nearest point passes from an edge to a corner. Fragments
    that are not there get zeros.

    Raises:
        TypeError: for a wrong dtype or class.
        ValueError: for a wrong shape, a value out of range, NaN or infinity.

    Example:
        >>> clip = torch.tensor([[-1.0, -1.0, 2.0, 1.0], [0.0, -1.0, 2.0, 1.0], [-1.0, 1.0, 2.0, 1.0]])
        >>> one = torch.tensor([[0, 1, 2]]), torch.tensor([[0, 0, 1]])
        >>> fragments(clip, *one, blur=0.5, image_size=(1, 1)).barycentric
        tensor([[[[[0.0000, 0.6000, 0.4000]]]]])
    """
    check_packed("fragments", clip, faces, layout, image_size, near)
    check_fragments("fragments", clip, layout, k, blur, order, ranking)
    pixels = pixel_centres(image_size, clip)
    images = []
    for image, row in enumerate(layout.tolist()):
        corners = face_corners(clip, faces, row)
        sharpness = None if ranking is None else ranking.sharpness[image]
        with torch.no_grad():
            polygons = near_clip(corners, near)
            pieces = pixel_chunks(pixels, len(corners), chunk)
            chosen = [_choose(corners, polygons, piece, k, blur, order, ranking, sharpness) for piece in pieces]
        images.append(_images(corners, pixels, near, *(torch.cat(part) for part in zip(*chosen, strict=True))))
    shape = (len(images), *image_size, k)
    if not images:
        empty = clip.new_empty(shape)
        return FragmentMaps(
            faces.new_empty(shape, dtype=torch.int64), empty, clip.new_empty((*shape, 3)), empty.clone()
        )
    face_id, distance, barycentric, depth = (torch.stack(parts) for parts in zip(*images, strict=True))
    return FragmentMaps(
        face_id.reshape(shape), distance.reshape(shape), barycentric.reshape(*shape, 3), depth.reshape(shape)
    )


def _choose(
    corners: torch.Tensor,
    polygons: Polygons,
    pixels: torch.Tensor,
    k: int,
    blur: float,
    order: str,
    ranking: Ranking | None,
    sharpness: torch.Tensor | None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the faces `(M, k)` of M pixels, −1 where there is none, and whether they cover the pixel."""
    drawn = polygons.counts.nonzero()[:, 0]
    if len(drawn) == 0:
        none = drawn.new_full((len(pixels), k), -1)
        return none, none == 0
    depth = depths_at(corners[drawn], pixels[:, None])
    seen = polygons.select(drawn)
    distance = signed_distance(pixels, seen)
    covers = contains(pixels, seen) & ~depth.isnan()
    length = distance.abs()
    counts = covers | ((length <= blur) & (blur > 0))
    pixel, face = (counts & ~covers).nonzero().unbind(1)
    point = _boundary(pixels[pixel], seen.select(face), covers[pixel, face])[0]
    depth[pixel, face] = _interpolate(corners[drawn[face]], point)[1]
    if order == "depth":
        key = depth
    elif order == "visible":
        # Whatever covers comes before whatever does not.
        behind = depth[covers].max() + 1 if covers.any() else 0.0
        handicap = 1 + HANDICAP * (doubled_area(seen.points) < 0)
        drawn_corners = torch.arange(4, device=pixels.device) < seen.counts[:, None]
        middle = (seen.points * drawn_corners[..., None]).sum(dim=1) / seen.counts[:, None]
        away = ((pixels[:, None] - middle) ** 2).sum(dim=-1)
        key = torch.where(covers, depth, behind + length * length * handicap + MIDDLE * away)
    else:
        assert ranking is not None and sharpness is not None
        d = torch.where(covers, length, -length)
        at = (d / (length + ranking.unit) + 1) * 0.5 * (len(ranking.table) - 1)
        low = at.long().clamp(0, len(ranking.table) - 2)
        log_weight = ranking.table[low] + (at - low) * (ranking.table[low + 1] - ranking.table[low])
        key = depth * sharpness - log_weight
    key = torch.where(counts, key, torch.inf)
    if key.shape[1] < k:
        key = torch.cat([key, key.new_full((len(key), k - key.shape[1]), torch.inf)], dim=1)
    best, rank = key.sort(dim=1, stable=True)
    best, rank = best[:, :k], rank[:, :k].clamp(max=len(drawn) - 1)
    there = torch.isfinite(best)
    return torch.where(there, drawn[rank], -1), there & covers.gather(1, rank)


def _images(
    corners: torch.Tensor, pixels: torch.Tensor, near: float, face_id: torch.Tensor, covers: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    pixel, slot = (face_id >= 0).nonzero().unbind(1)
    # In float64: of coordinates of all sizes float32 loses the products, and gradients overflow on the way.
    own, at, inside = corners[face_id[pixel, slot]].double(), pixels[pixel].double(), covers[pixel, slot]
    near = float(torch.tensor(near, dtype=pixels.dtype))  # the plane that the corners' dtype can say
    edge, distance = _boundary(at, near_clip(own, near), inside)
    barycentric, depth = _interpolate(own, torch.where(inside[:, None], at, edge))
    distance, barycentric, depth = (part.to(pixels.dtype) for part in (distance, barycentric, depth))
    row = pixel * face_id.shape[1] + slot
    size = face_id.numel()
    return (
        face_id,
        pixels.new_full((size,), NOWHERE).index_copy(0, row, distance),
        pixels.new_zeros(size, 3).index_copy(0, row, barycentric),
        pixels.new_full((size,), torch.inf).index_copy(0, row, depth),
    )


def _boundary(points: torch.Tensor, polygons: Polygons, inside: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the point of each polygon's boundary nearest to its own point `(S, 2)`, and the signed distance `(S,)`."""
    vertices = polygons.points
    with torch.no_grad():
        along = vertices.roll(-1, dims=1) - vertices
        length2 = (along * along).sum(dim=-1)
        has_length = length2 > 0
        arm = points[:, None] - vertices
        t = ((arm * along).sum(dim=-1) / torch.where(has_length, length2, 1.0)).clamp(0, 1)
        miss = arm - t[..., None] * along
        edge = (miss * miss).sum(dim=-1).masked_fill(~has_length, torch.inf).argmin(dim=1)
        winding = doubled_area(vertices).sign()
        polygon = torch.arange(len(vertices), device=vertices.device)
    a, b = vertices[polygon, edge], vertices[polygon, (edge + 1) % 4]
    along, arm = b - a, points - a
    # Twice by the length, not once by its square, which in the backward pass of a tiny edge overflows.
    length = torch.linalg.vector_norm(along, dim=-1)
    t = (arm * along).sum(dim=-1) / length / length
    nearest = a + t.clamp(0, 1)[:, None] * along
    side = winding * cross(along, arm) / length
    miss2 = ((points - torch.where((t <= 0)[:, None], a, b)) ** 2).sum(dim=-1)
    strip = ((t > 0) & (t < 1)) | inside | (miss2 == 0)
    # On the line the sign is what was decided; only the other factor carries a gradient there.
    side = torch.where(inside, torch.where(side < 0, -side, side), torch.where(side > 0, -side, side))
    return nearest, torch.where(strip, side, -torch.where(strip, 1.0, miss2).sqrt())


@outside_autocast
def blend(values: torch.Tensor, index: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """Blend rows by weights: `out_p = Σ_j weight_pj · values[index_pj]`.

    Attributes of corners at barycentrics are one use, texels at texture coordinates another.

    Args:
        values: rows `(N, C)`, float32 or float64.
        index: which rows, `(P, J)`, integers in [0, N).
        weight: `(P, J)`, of the dtype of `values`.

    Returns:
        `(P, C)`.

    Gradients: in `values` and `weight`.

    Example:
        >>> blend(torch.tensor([[0.0], [8.0]]), torch.tensor([[0, 1]]), torch.tensor([[0.75, 0.25]]))
        tensor([[2.]])
    """
    check_blend(values, index, weight)
    return (values[index.long()] * weight[..., None]).sum(dim=-2)


def check_blend(values: torch.Tensor, index: torch.Tensor, weight: torch.Tensor) -> None:
    """Check the arguments of `blend`, but for the numbers in `index`."""
    floating("blend", "values", values, ("N", "C"), finite=False)
    floating("blend", "weight", weight, ("P", "J"), finite=False)
    if weight.dtype != values.dtype:
        raise fail("blend", "weight", f"of the dtype of `values`, {values.dtype}", weight, error=TypeError)
    whole = isinstance(index, torch.Tensor) and index.dtype in (torch.int32, torch.int64)
    if not whole or index.shape != weight.shape:
        expected = f"int32 or int64 of the shape of `weight`, {tuple(weight.shape)}"
        raise fail("blend", "index", expected, index, error=ValueError if whole else TypeError)
