# SPDX-License-Identifier: Apache-2.0
"""Faces with a share in a softmax over depth, and their mixture: argument checks, kernels, autograd, torch.compile."""

import math
from collections.abc import Sequence
from typing import Any

import torch

from geodiff import reference
from geodiff.modes import outside_autocast
from geodiff.ops import _op
from geodiff.ops._indices import check_indices, check_range
from geodiff.reference.arguments import check_packed
from geodiff.reference.fragments import Ranking
from geodiff.reference.softmax import Heaviest, Mixture, check_heaviest, check_mix, spread_of
from geodiff.validation import fail, looks_at_values

_op.library.define(
    "heaviest(Tensor clip, Tensor faces, Tensor layout, Tensor table, Tensor sharpness, Tensor origin, "
    "Tensor background, Tensor within, int most, int height, int width, float near, float blur, float rim, "
    "float max_error, float unit) -> (Tensor distance, Tensor barycentric, Tensor depth, Tensor place, Tensor start, "
    "Tensor face_id)"
)
_op.library.define(
    "heaviest_backward(Tensor? up_distance, Tensor? up_barycentric, Tensor? up_depth, Tensor clip, Tensor faces, "
    "Tensor layout, Tensor place, Tensor start, Tensor face_id, Tensor distance, int height, int width, float near) "
    "-> Tensor clip"
)
_op.library.define(
    "mix(Tensor values, Tensor log_weight, Tensor depth, Tensor start, Tensor row, Tensor ends, Tensor sharpness, "
    "bool has_background, float background) -> (Tensor out, Tensor weight, Tensor rest)"
)
_op.library.define(
    "mix_backward(Tensor? up_out, Tensor? up_rest, Tensor values, Tensor log_weight, Tensor depth, Tensor start, "
    "Tensor row, Tensor ends, Tensor sharpness, bool has_background, float background, Tensor weight, Tensor rest, "
    "bool[] wants) -> (Tensor values, Tensor log_weight, Tensor depth, Tensor ends, Tensor sharpness)"
)


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

    What is left out has no more than `max_error` of a pixel's weights, but for what `k` leaves out. The twin
    `geodiff.reference.heaviest` has the same name and arguments, and says more of them.

    Args:
        clip: vertices of all images `(x·w, y·w, depth, w)`, `(N, 4)`, float32 or float64; see `Camera.to_clip`.
        faces: corners of all faces, `(F, 3)`, indices local to the image's mesh.
        layout: one row `[vertex_start, face_start, face_count]` an image, `(B, 3)`; images share no vertices.
        ranking: F and the sharpness.
        image_size: `(H, W)`.
        near: depth of the near plane, positive.
        k: how many faces a pixel keeps at most; None for no limit.
        blur: NDC; faces farther than this from a pixel have no weight.
        rim: NDC; how far from the nearest face most pixels are that none covers: it says where to look first, and
            changes the time, not the result.
        origin: a depth for each image, `(B,)`; 0 where left out.
        background: for each image the logarithm of a weight that all pixels have anyway, `(B,)`.
        within: which pixels count, `(B, H, W)` bool; all where left out.
        max_error: 0 leaves nothing out.

    Returns:
        `Heaviest`: Q pixels with P fragments in all, those of a pixel one after another, the heaviest first.

    Gradients: of distance, barycentrics and depth in `clip`, at fixed faces. The same bits on any number of threads.
    Not twice differentiable.

    Raises:
        TypeError: for a wrong dtype or class.
        ValueError: for a wrong shape, a value out of range, NaN or infinity.
        RuntimeError: for tensors on different devices, or on one that is neither the CPU nor CUDA.

    Example:
        >>> clip = torch.tensor([[-1.0, -1.0, 2.0, 1.0], [0.0, -1.0, 2.0, 1.0], [-1.0, 1.0, 2.0, 1.0]])
        >>> one = torch.tensor([[0, 1, 2]]), torch.tensor([[0, 0, 1]])
        >>> flat = Ranking(torch.zeros(3), 1.0, torch.ones(1))
        >>> heaviest(clip, *one, ranking=flat, image_size=(1, 1)).barycentric
        tensor([[0.0000, 0.6000, 0.4000]])
    """
    check_packed("heaviest", clip, faces, layout, image_size, near, indices=False)
    names = ("clip", "faces", "layout", "origin", "background", "within")
    _op.check_devices("heaviest", names, (clip, faces, layout, origin, background, within))
    check_heaviest("heaviest", clip, layout, image_size, ranking, k, blur, rim, origin, background, within, max_error)
    table, sharpness = ranking.table.detach().to(clip.dtype), ranking.sharpness.detach().to(clip.dtype)
    none = clip.new_zeros(0)
    tensors = (
        table.clamp(-1e30, 1e30),
        sharpness.clamp(max=1e30),
        clip.new_zeros(len(layout)) if origin is None else origin.detach().to(clip.dtype),
        none if background is None else background.detach().to(clip.dtype),
        none.bool() if within is None else within,
    )
    numbers = (k or 0, *image_size, near, float(blur), float(rim), float(max_error), float(ranking.unit))
    distance, barycentric, depth, place, start, face_id = _op.run("heaviest", clip, faces, layout, *tensors, *numbers)
    return Heaviest(place, start, face_id, distance, barycentric, depth)


def _heaviest(
    clip: torch.Tensor, faces: torch.Tensor, layout: torch.Tensor, table: torch.Tensor, sharpness: torch.Tensor,
    origin: torch.Tensor, background: torch.Tensor, within: torch.Tensor, most: int, height: int, width: int,
    near: float, blur: float, rim: float, max_error: float, unit: float,
) -> tuple[torch.Tensor, ...]:  # fmt: skip
    check_indices("heaviest", clip, faces, layout)
    if len(table) < 2:
        raise fail("heaviest", "table", "of two entries or more", table)
    counts = layout[:, 2].tolist()
    found: tuple[torch.Tensor, ...] = _op.call(
        _op.kernels.heaviest, clip=clip, faces=faces, layout=layout, height=height, width=width, near=near, table=table,
        table_unit=unit, sharpness=sharpness, base=origin, floor=-background, within=within, k=most, blur=blur, rim=rim,
        spread=spread_of(max(counts, default=0), max_error), max_error=max_error,
    )  # fmt: skip
    return found


def _heaviest_backward(
    up_distance: torch.Tensor | None, up_barycentric: torch.Tensor | None, up_depth: torch.Tensor | None,
    clip: torch.Tensor, faces: torch.Tensor, layout: torch.Tensor, place: torch.Tensor, start: torch.Tensor,
    face_id: torch.Tensor, distance: torch.Tensor, height: int, width: int, near: float,
) -> torch.Tensor:  # fmt: skip
    check_indices("heaviest_backward", clip, faces, layout)
    _check_list(layout, place, start, face_id, height * width)
    grad_clip = torch.zeros_like(clip)
    _op.call(
        _op.kernels.heaviest_backward, clip=clip, faces=faces, layout=layout, height=height, width=width, near=near,
        place=place, start=start, face=face_id, distance=distance, up_distance=up_distance,
        up_barycentric=up_barycentric, up_depth=up_depth, grad_clip=grad_clip,
    )  # fmt: skip
    return grad_clip


def _check_start(op: str, start: torch.Tensor, points: int) -> None:
    """Raise where `start` does not share out so many points."""
    if len(start) and not looks_at_values(start):
        return
    sound = len(start) > 0 and int(start[0]) == 0 and int(start[-1]) == points
    if not sound or bool((start[1:] < start[:-1]).any()):
        raise fail(op, "start", f"ascending from 0 to {points}", start)


def _check_list(
    layout: torch.Tensor, place: torch.Tensor, start: torch.Tensor, face_id: torch.Tensor, pixels: int
) -> None:
    """Raise where the list is not what `heaviest` returned."""
    op, entries = "heaviest_backward", len(layout) * pixels
    if len(start) != len(place) + 1:
        raise fail(op, "start", f"of {len(place) + 1} entries", start)
    _check_start(op, start, len(face_id))
    if not len(place) or not looks_at_values(place):
        return
    if int(place[0]) < 0 or int(place[-1]) >= entries or bool((place[1:] <= place[:-1]).any()):
        raise fail(op, "place", f"ascending in [0, {entries}), no pixel twice", place)
    ends = start[torch.searchsorted(place, torch.arange(len(layout) + 1, device=place.device) * pixels)].tolist()
    for image, count in enumerate(layout[:, 2].tolist()):
        check_range(op, "face_id", face_id[ends[image] : ends[image + 1]], count, f"faces of image {image}")


def _fake_heaviest(clip: torch.Tensor, faces: Any, layout: torch.Tensor, *_: Any) -> tuple[torch.Tensor, ...]:
    pixels, points = _op.unknown_size(), _op.unknown_size()
    place = clip.new_empty(pixels, dtype=torch.int64)
    start, face_id = place.new_empty(pixels + 1), place.new_empty(points)
    return clip.new_empty(points), clip.new_empty(points, 3), clip.new_empty(points), place, start, face_id


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

    The twin `geodiff.reference.mix` has the same name and arguments.

    Args:
        values: rows `(P, C)`, float32 or float64.
        log_weight: log F, `(P,)`; what is less than −1e30 counts as that.
        depth: `(P,)`.
        start: where each of the Q groups begins, and P, `(Q + 1,)` int64.
        ends: near and far of each image, `(B, 2)`; where they are one, z is ½.
        sharpness: `(1,)`.
        row: which row of `ends` a group has, `(Q,)`; the first where left out.
        background: z of something that takes part in all groups with F = 1 and values 0.

    Returns:
        `Mixture`: `out` `(Q, C)`, `weight` `(P,)`, and the background's, `rest` `(Q,)`.

    Gradients: of `out` and `rest`, in `values`, `log_weight`, `depth`, `ends` and `sharpness`; the same bits on any
    number of threads. Not twice differentiable.

    Raises:
        TypeError, ValueError: wrong dtypes or shapes, or an index out of range.
        RuntimeError: for tensors on different devices, or on one that is neither the CPU nor CUDA.

    Example:
        >>> rows, same = torch.tensor([[0.0], [8.0]]), torch.zeros(2)
        >>> mix(rows, same, same, torch.tensor([0, 2]), torch.tensor([[0.0, 1.0]]), torch.ones(1)).out
        tensor([[4.]])
    """
    check_mix(values, log_weight, depth, start, ends, sharpness, row, background)
    names = {"values": values, "log_weight": log_weight, "depth": depth, "start": start, "ends": ends}
    given = {**names, "sharpness": sharpness, **({} if row is None else {"row": row})}
    if _op.for_twin("mix", **given):
        return reference.mix(values, log_weight, depth, start, ends, sharpness, row=row, background=background)
    rows = start.new_zeros(0, dtype=torch.int32) if row is None else row
    floor = background is not None, float(background or 0.0)
    return Mixture(*_op.run("mix", values, log_weight, depth, start, rows, ends, sharpness, *floor))


def _mix(
    values: torch.Tensor, log_weight: torch.Tensor, depth: torch.Tensor, start: torch.Tensor, row: torch.Tensor,
    ends: torch.Tensor, sharpness: torch.Tensor, has_background: bool, background: float,
) -> tuple[torch.Tensor, ...]:  # fmt: skip
    _check_groups("mix", values, start, row, ends)
    out, weight, rest = found = _fake_mix(values, log_weight, depth, start)
    _op.call(
        _op.kernels.mix_forward, values=values, log_weight=log_weight, depth=depth, start=start, row=row, ends=ends,
        has_floor=has_background, floor=background, out=out, weight=weight, rest=rest, **_sharpness(sharpness),
    )  # fmt: skip
    return found


def _mix_backward(
    up_out: torch.Tensor | None, up_rest: torch.Tensor | None, values: torch.Tensor, log_weight: torch.Tensor,
    depth: torch.Tensor, start: torch.Tensor, row: torch.Tensor, ends: torch.Tensor, sharpness: torch.Tensor,
    has_background: bool, background: float, weight: torch.Tensor, rest: torch.Tensor, wants: Sequence[bool],
) -> tuple[torch.Tensor, ...]:  # fmt: skip
    _check_groups("mix_backward", values, start, row, ends)
    if len(rest) != len(start) - 1:
        raise fail("mix_backward", "rest", f"of {len(start) - 1} entries", rest)
    found = torch.empty_like(values), torch.empty_like(log_weight), torch.empty_like(depth)
    grad_ends = ends.new_zeros(ends.shape, dtype=torch.float64)
    # Of a number on the host, a device's gradient is read: only where it is wanted.
    wanted = _op.on_host(values) or wants[4]
    grad_sharpness = sharpness.new_zeros(int(wanted), dtype=torch.float64)
    upstream = values.new_zeros(len(rest), values.shape[1]) if up_out is None else up_out
    _op.call(
        _op.kernels.mix_backward, values=values, log_weight=log_weight, depth=depth, start=start, row=row, ends=ends,
        has_floor=has_background, floor=background, weight=weight, rest=rest, **_sharpness(sharpness),
        upstream=upstream, up_rest=up_rest, grad_values=found[0], grad_log_weight=found[1], grad_depth=found[2],
        grad_ends=grad_ends, grad_sharpness=grad_sharpness,
    )  # fmt: skip
    return *found, grad_ends.to(ends.dtype), grad_sharpness.to(ends.dtype)


def _sharpness(sharpness: torch.Tensor) -> dict[str, Any]:
    """A number, or, for a device's kernels, where it is."""
    there = None if _op.on_host(sharpness) else sharpness
    return {"sharpness": float(sharpness)} if there is None else {"sharpness": 1.0, "sharpness_there": there}


def _check_groups(op: str, values: torch.Tensor, start: torch.Tensor, row: torch.Tensor, ends: torch.Tensor) -> None:
    _check_start(op, start, len(values))
    groups = len(start) - 1
    if len(row) not in (0, groups):
        raise fail(op, "row", f"of {groups} entries, or none", row)
    if groups and not len(row) and not len(ends):
        raise fail(op, "ends", "of one row or more", ends)
    check_range(op, "row", row, len(ends), "rows of `ends`")


def _fake_mix(
    values: torch.Tensor, log_weight: torch.Tensor, depth: Any, start: torch.Tensor, *_: Any
) -> tuple[torch.Tensor, ...]:
    groups = start.shape[0] - 1
    return values.new_empty(groups, values.shape[1]), torch.empty_like(log_weight), values.new_empty(groups)


_SHAPES = {
    "clip": "N 4",
    "faces": "int32 F 3",
    "layout": "int64 B 3",
    "table": "S",
    "sharpness": "B",
    "origin": "B",
    "background": "? B",
    "within": "? bool B height width",
    "place": "int64 Q",
    "start": "int64 R",
    "face_id": "int64 P",
    "distance": "P",
    "up_distance": "? P",
    "up_barycentric": "? P 3",
    "up_depth": "? P",
}
_LENGTHS = {"rim": (0.0, math.inf, "0 or more"), "most": (0.0, 2**31 - 1, "from 0 to 2³¹ − 1")}
_op.register("heaviest", _heaviest, _fake_heaviest, _SHAPES, _heaviest_backward, numbers=_LENGTHS)
_OF_MIX = {
    "values": "P C",
    "log_weight": "P",
    "depth": "P",
    "start": "int64 R",
    "row": "int32 G",
    "ends": "B 2",
    "sharpness": "1",
    "weight": "P",
    "rest": "Q",
    "up_out": "? Q C",
    "up_rest": "? Q",
}
_op.register("mix", _mix, _fake_mix, _OF_MIX, _mix_backward)
