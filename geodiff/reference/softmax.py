# SPDX-License-Identifier: Apache-2.0
"""The pure-torch twins of the faces with a share in a softmax over depth, and of their mixture."""

import math
from typing import NamedTuple

import torch

from geodiff.modes import outside_autocast
from geodiff.reference.arguments import check_packed
from geodiff.reference.fragments import FragmentMaps, Ranking, check_fragments, fragments
from geodiff.validation import fail, floating, shapes_repr

NEVER = -1e30
"""log F where F is 0: less than any logarithm of a number, but finite, so that nothing becomes NaN."""


class Heaviest(NamedTuple):
    """P fragments of Q pixels, pixel by pixel, those of a pixel one after another, the heaviest first.

    Attributes:
        place: where in the flattened `(B·H·W)` the pixels are, `(Q,)` int64, ascending.
        start: where the fragments of each begin, and P, `(Q + 1,)` int64.
        face_id: index within the image's faces, `(P,)` int64.
        distance: signed distance of the pixel centre to the face, NDC, positive inside, `(P,)`.
        barycentric: perspective-correct coordinates of the face's point nearest to the pixel centre, `(P, 3)`.
        depth: of that point, `(P,)`.
    """

    def __repr__(self) -> str:
        return shapes_repr(self)

    place: torch.Tensor
    start: torch.Tensor
    face_id: torch.Tensor
    distance: torch.Tensor
    barycentric: torch.Tensor
    depth: torch.Tensor


class Mixture(NamedTuple):
    """Rows mixed by a softmax.

    Attributes:
        out: `(Q, C)`.
        weight: of the rows, `(P,)`; a constant.
        rest: of the background, `(Q,)`; 0 without one.
    """

    def __repr__(self) -> str:
        return shapes_repr(self)

    out: torch.Tensor
    weight: torch.Tensor
    rest: torch.Tensor


def spread_of(faces: int, max_error: float) -> float:
    """Return how much less the logarithm of a weight may be than the largest one's, for n of them to be left out."""
    return math.log(2 * max(faces, 1) / max_error) + 0.05 if max_error > 0 else math.inf


def check_heaviest(
    where: str,
    clip: torch.Tensor,
    layout: torch.Tensor,
    image_size: tuple[int, int],
    ranking: Ranking,
    k: int | None,
    blur: float,
    rim: float,
    origin: torch.Tensor | None,
    background: torch.Tensor | None,
    within: torch.Tensor | None,
    max_error: float,
) -> None:
    """Check what `heaviest` takes besides a packed mesh."""
    check_fragments(where, clip, layout, 1 if k is None else k, blur, "weight", ranking)
    if isinstance(rim, bool) or not isinstance(rim, int | float) or not rim >= 0:
        raise fail(where, "rim", "a number ≥ 0", rim, "It is a distance in NDC.")
    if isinstance(max_error, bool) or not isinstance(max_error, int | float) or not 0 <= max_error < 1:
        raise fail(where, "max_error", "a number in [0, 1)", max_error, "It is a share of a pixel's weights.")
    for name, value in (("origin", origin), ("background", background)):
        if value is not None:
            floating(where, name, value, (len(layout),))
    shape = (len(layout), *image_size)
    if within is not None and (
        not isinstance(within, torch.Tensor) or within.dtype != torch.bool or within.shape != shape
    ):
        raise fail(where, "within", f"a bool tensor of shape {shape}", within, "It says which pixels count.")


@outside_autocast
def heaviest(
    clip: torch.Tensor,
    faces: torch.Tensor,
    layout: torch.Tensor,
    *,
    ranking: Ranking,
    image_size: tuple[int, int],
    near: float = 1e-2,
    k: int | None = None,
    blur: float = math.inf,
    rim: float = math.inf,
    origin: torch.Tensor | None = None,
    background: torch.Tensor | None = None,
    within: torch.Tensor | None = None,
    max_error: float = 1e-4,
) -> Heaviest:
    """List the faces of every pixel that have a share in a softmax of `F(d)·exp(−(depth − origin)·sharpness)`.

    Of n faces all are left out whose weight is below `max_error/(2n)` of the largest one's or the background's, and of
    the others the lightest ones, as long as they have less than `max_error/2` of the weights together. F is that of the
    table, so a fraction of a per cent more or less. A pixel that counts and sees any keeps one at least.

    Args:
        clip: vertices of all images `(x·w, y·w, depth, w)`, `(N, 4)`.
        faces: corners of all faces, `(F, 3)`, indices local to the image's mesh.
        layout: one row `[vertex_start, face_start, face_count]` an image, `(B, 3)`; images share no vertices.
        ranking: F and the sharpness.
        image_size: `(H, W)`.
        near: depth of the near plane, positive.
        k: how many faces a pixel keeps at most; None for no limit.
        blur: NDC; faces farther than this from a pixel have no weight.
        rim: not used here.
        origin: a depth for each image, `(B,)`; 0 where left out.
        background: for each image the logarithm of a weight that all pixels have anyway, `(B,)`.
        within: which pixels count, `(B, H, W)` bool; all where left out.
        max_error: 0 leaves nothing out.

    Returns:
        `Heaviest`.

    Gradients: of distance, barycentrics and depth in `clip`, at fixed faces.

    Raises:
        TypeError: for a wrong dtype or class.
        ValueError: for a wrong shape, a value out of range, NaN or infinity.

    Example:
        >>> clip = torch.tensor([[-1.0, -1.0, 2.0, 1.0], [0.0, -1.0, 2.0, 1.0], [-1.0, 1.0, 2.0, 1.0]])
        >>> one = torch.tensor([[0, 1, 2]]), torch.tensor([[0, 0, 1]])
        >>> flat = Ranking(torch.zeros(3), 1.0, torch.ones(1))
        >>> heaviest(clip, *one, ranking=flat, image_size=(1, 1)).barycentric
        tensor([[0.0000, 0.6000, 0.4000]])
    """
    check_packed("heaviest", clip, faces, layout, image_size, near)
    check_heaviest("heaviest", clip, layout, image_size, ranking, k, blur, rim, origin, background, within, max_error)
    count = max(layout[:, 2].tolist(), default=0)
    most = max(1, min(count, count if k is None else k))
    tried, spread = min(most, 32), spread_of(count, max_error)
    while True:
        found = fragments(
            clip, faces, layout, k=tried, blur=blur, image_size=image_size, near=near, order="weight", ranking=ranking
        )
        with torch.no_grad():
            kept, left = _needed(found, ranking, origin, background, within, spread, max_error)
        if tried == most or not left:
            break
        tried = min(most, 2 * tried)
    per_pixel = kept.sum(dim=-1).reshape(-1)
    place = per_pixel.nonzero()[:, 0]
    start = torch.cat([per_pixel.new_zeros(1), per_pixel[place].cumsum(0)])
    at = kept.reshape(-1).nonzero()[:, 0]
    face_id, distance, depth = (part.reshape(-1)[at] for part in (found.face_id, found.distance, found.depth))
    return Heaviest(place, start, face_id, distance, found.barycentric.reshape(-1, 3)[at], depth)


def _needed(
    found: FragmentMaps,
    ranking: Ranking,
    origin: torch.Tensor | None,
    background: torch.Tensor | None,
    within: torch.Tensor | None,
    spread: float,
    max_error: float,
) -> tuple[torch.Tensor, bool]:
    """Return which fragments are kept, `(B, H, W, k)`, and whether more than k would be in some pixel."""
    d, images = found.distance, len(found.distance)
    table, sharpness = ranking.table.to(d), ranking.sharpness.to(d)[:, None, None, None].clamp(max=1e30)
    at = (d / (d.abs() + ranking.unit) + 1) * 0.5 * (len(table) - 1)
    low = at.long().clamp(0, len(table) - 2)
    log_weight = table[low] + (at - low) * (table[low + 1] - table[low])
    base = 0.0 if origin is None else origin.to(d).reshape(images, 1, 1, 1)
    key = ((found.depth - base) * sharpness - log_weight).clamp(-1e30, 1e30)
    there = found.face_id >= 0
    if within is not None:
        there = there & within[..., None]
    key = torch.where(there, key, torch.inf)
    limit = key.amin(dim=-1, keepdim=True)
    if background is not None:
        limit = torch.minimum(limit, -background.to(d).reshape(images, 1, 1, 1))
    limit = limit + spread + 0.01 + 8 * torch.finfo(d.dtype).eps * limit.abs()
    kept = there & (key <= limit)
    left = bool(kept[..., -1].any())
    if max_error > 0:
        first = key[..., :1]
        weight = torch.where(kept, torch.exp(torch.where(kept, first - key, 0.0)), 0.0)
        behind = weight.flip(-1).cumsum(-1).flip(-1)
        light = (behind <= 0.49 * max_error * behind[..., :1]) & (torch.finfo(d.dtype).eps * first.abs() <= 1e-3)
        light[..., 0] = False
        kept = kept & ~light
    return kept, left


@outside_autocast
def mix(
    values: torch.Tensor,
    log_weight: torch.Tensor,
    depth: torch.Tensor,
    start: torch.Tensor,
    ends: torch.Tensor,
    sharpness: torch.Tensor,
    *,
    row: torch.Tensor | None = None,
    background: float | None = None,
) -> Mixture:
    """Mix the rows of each group by a softmax: `w ∝ F·exp(z·sharpness)`, `z = (far − depth)/(far − near)`.

    The largest z of a group is subtracted first, so nothing overflows.

    Args:
        values: rows `(P, C)`.
        log_weight: log F, `(P,)`; what is less than −1e30 counts as that.
        depth: `(P,)`.
        start: where each of the Q groups begins, and P, `(Q + 1,)` int64.
        ends: near and far of each image, `(B, 2)`; where they are one, z is ½.
        sharpness: `(1,)`.
        row: which row of `ends` a group has, `(Q,)`; the first where left out.
        background: z of something that takes part in all groups with F = 1 and values 0.

    Returns:
        `Mixture`.

    Gradients: of `out` and `rest`, in `values`, `log_weight`, `depth`, `ends` and `sharpness`.

    Raises:
        TypeError, ValueError: wrong dtypes or shapes.

    Example:
        >>> rows, same = torch.tensor([[0.0], [8.0]]), torch.zeros(2)
        >>> mix(rows, same, same, torch.tensor([0, 2]), torch.tensor([[0.0, 1.0]]), torch.ones(1)).out
        tensor([[4.]])
    """
    check_mix(values, log_weight, depth, start, ends, sharpness, row, background)
    sharpness = sharpness.to(values.device)
    groups = len(start) - 1
    group = torch.repeat_interleave(torch.arange(groups, device=start.device), start[1:] - start[:-1])
    own = ends[group.new_zeros(groups) if row is None else row.long()][group]
    span = own[:, 1] - own[:, 0]
    z = torch.where(span > 0, (own[:, 1] - depth) / torch.where(span > 0, span, 1.0), 0.5)
    lowest = 0.0 if background is None else background

    def largest(x: torch.Tensor, least: torch.Tensor) -> torch.Tensor:
        return least.scatter_reduce(0, group, x.detach(), "amax") if len(x) else least

    top = largest(z, z.new_full((groups,), lowest)) if len(z) else values.new_full((groups,), lowest)
    logits = log_weight.clamp(min=NEVER) + (z - top[group]) * sharpness
    least = values.new_full((groups,), -torch.inf) if background is None else (background - top) * sharpness
    most = largest(logits, least.detach())
    weight = torch.exp(logits - most[group])
    rest = torch.exp(least - most) if background is not None else values.new_zeros(groups)
    total = rest.index_add(0, group, weight)
    total = torch.where(total > 0, total, 1.0)
    weight = weight / total[group]
    out = values.new_zeros(groups, values.shape[1]).index_add(0, group, weight[:, None] * values)
    return Mixture(out, weight.detach(), rest / total)


def check_mix(
    values: torch.Tensor,
    log_weight: torch.Tensor,
    depth: torch.Tensor,
    start: torch.Tensor,
    ends: torch.Tensor,
    sharpness: torch.Tensor,
    row: torch.Tensor | None,
    background: float | None,
) -> None:
    """Check the arguments of `mix`, but for the numbers in `start` and `row`."""
    floating("mix", "values", values, ("P", "C"), finite=False)
    shapes: dict[str, tuple[torch.Tensor, tuple[str | int, ...]]] = {
        "log_weight": (log_weight, (len(values),)),
        "depth": (depth, (len(values),)),
        "ends": (ends, ("B", 2)),
        "sharpness": (sharpness, (1,)),
    }
    for name, (value, shape) in shapes.items():
        floating("mix", name, value, shape, finite=False)
        if value.dtype != values.dtype:
            raise fail("mix", name, f"of the dtype of `values`, {values.dtype}", value, error=TypeError)
    if not isinstance(start, torch.Tensor) or start.dtype != torch.int64 or start.dim() != 1 or not len(start):
        raise fail("mix", "start", "int64 of shape (Q + 1,)", start)
    whole = row is None or (isinstance(row, torch.Tensor) and row.dtype in (torch.int32, torch.int64))
    if row is not None and (not whole or row.shape != (len(start) - 1,)):
        raise fail("mix", "row", f"integers of shape ({len(start) - 1},), one for each group", row)
    if background is not None and (isinstance(background, bool) or not isinstance(background, int | float)):
        raise fail("mix", "background", "a number", background, "It is a place between far (0) and near (1).")
