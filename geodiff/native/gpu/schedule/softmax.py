# SPDX-License-Identifier: Apache-2.0
"""Faces with a share in a softmax over depth, and their mixture, on a GPU.

See cuda/raster/heaviest_kernels.h and cuda/shading/mix_kernels.h.
"""

from typing import Any

import torch

from geodiff.native.gpu import structs
from geodiff.native.gpu.launcher import launch
from geodiff.native.gpu.schedule import fragments
from geodiff.native.gpu.schedule.silhouette import groups, most_faces_of
from geodiff.recording import is_replaying, or_nan, packed, rows, sizes

_FACES, _ROWS = "raster/heaviest_kernels.h", "shading/mix_kernels.h"
_BLOCKS = 2048


def heaviest(
    *, clip: torch.Tensor, faces: torch.Tensor, layout: torch.Tensor, height: int, width: int, near: float,
    table: torch.Tensor, table_unit: float, sharpness: torch.Tensor, base: torch.Tensor, floor: torch.Tensor,
    within: torch.Tensor, k: int, blur: float, rim: float, spread: float, max_error: float,
) -> tuple[torch.Tensor, ...]:  # fmt: skip
    """Return distance, barycentrics, depth, place, start and face, see `geodiff.ops.heaviest`.

    How many there are is read from the device.
    """
    none = clip.new_empty(0)
    parts: list[Any] = [(none, clip.new_empty((0, 3)), none, layout.new_empty(0), layout.new_empty(0))]
    counts = [layout.new_empty(0)]
    for own, images in groups(layout, height, width) if len(faces) and height * width else ():
        scene = (clip, faces, images, height, width, near)
        search = _Search(scene, blur, table, table_unit, sharpness[own], base[own], k, spread, 0.49 * max_error)
        limits = search.limits(floor[own] if len(floor) else None, within[own] if len(within) else None, rim)
        ids, pixel, count, place = search.found(limits)
        counts.append(rows(count, place, 0))
        face = layout.new_empty(len(ids))
        values = [clip.new_empty((len(ids), 3) if i == 1 else (len(ids),)) for i in range(3)]
        fragments.write(search.scene, search.hard, ids, 1, pixel, face, *values)
        if is_replaying():  # finite where there is nothing
            values[0], values[2] = (torch.where(ids >= 0, value, 0.0) for value in (values[0], values[2]))
            values[0] = search.or_nan(values[0])
        parts.append((*values, place + own.start * height * width, face))
    distance, barycentric, depth, place, face = map(torch.cat, zip(*parts, strict=True))
    if is_replaying() and len(parts) > 2:
        raise RuntimeError("Recording.replay: images that go in groups cannot be replayed. Render fewer at once.")
    start = layout.new_zeros(len(place) + 1)
    torch.cumsum(torch.cat(counts), 0, out=start[1:])
    return distance, barycentric, depth, place, start.clamp(max=len(face)), face


class _Search:
    """The images of one of `groups`, set up."""

    def __init__(
        self, seen: fragments.Packed, blur: float, table: torch.Tensor, unit: float, sharpness: torch.Tensor,
        base: torch.Tensor, k: int, spread: float, error: float,
    ) -> None:  # fmt: skip
        self.scene = fragments.set_up_plain(*seen, blur)
        self.clip, self.blur, self.spread, self.k = seen[0], blur, spread, k
        count = self.scene.images * self.scene.most_faces
        self.ranking = structs.make(
            structs.heaviest_ranking(self.scene.real), table=table, unit=unit, size=len(table), k=k,
            sharpness=sharpness, base=base, spread=spread, error=error,
        )  # fmt: skip
        self.error = error
        self.kept = (table, sharpness, base)
        self.hard, self.bounds = (structs.scratch(self.clip, name, count) for name in ("HardFace", "FaceBound"))
        self._launch("bounds", -(-count // 128), 128, self.ranking, self.hard, self.bounds)

    def _launch(self, step: str, grid: int, threads: int, *arguments: Any) -> None:
        scene, name = self.scene, f"gd::heaviest_{step}<{self.scene.real}>"
        launch(_FACES, name, (grid,), threads, scene.struct, *arguments, device=self.clip.device)

    def limits(self, floor: torch.Tensor | None, within: torch.Tensor | None, rim: float) -> torch.Tensor:
        """Return what keys of pixels may be at most, `(images, H, W)`."""
        scene, finfo = self.scene, torch.finfo(self.clip.dtype)
        shape = (scene.images, scene.height, scene.width)
        limits = self.clip.new_full(shape, finfo.max)
        if floor is not None:
            least = floor + min(self.spread, 1e30) + (0.01 + 8 * finfo.eps * floor.abs())
            limits = least[:, None, None].expand(shape).contiguous()
        if within is not None:
            limits = torch.where(within, limits, -finfo.max)
        # Faces near by first: with what they say of limits, those farther away are passed over.
        step = 2 / min(scene.height, scene.width)
        for radius in sorted({min(2 * step, self.blur), min(rim, self.blur), self.blur}):
            given = (self.ranking, self.hard, self.bounds, structs.Double(radius), limits)
            self._launch("limits", fragments.tiles(scene), 256, *given)
        return limits

    def or_nan(self, values: torch.Tensor) -> torch.Tensor:
        """Return them; NaN where `found` had no room for all."""
        for total, size in self.totals:
            values = or_nan(values, total, size)
        return values

    def found(self, limits: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return ids pixel by pixel, the heaviest first, and their pixels; how many each has; those that have some."""
        device, pixels = self.clip.device, limits.numel()
        count = torch.empty(pixels, dtype=torch.int32, device=device)
        start = torch.zeros(pixels + 1, dtype=torch.int64, device=device)
        given = (self.ranking, self.hard, self.bounds, structs.Double(self.blur), limits, count)
        self._launch("list", fragments.tiles(self.scene), 256, *given, None, None, None)
        torch.cumsum(count, 0, out=start[1:])
        (total,) = sizes(start[-1])
        self.totals = [(start[-1], total)]
        start = start.clamp(max=total)
        ids = torch.full((total,), -1, dtype=torch.int32, device=device)
        keys = self.clip.new_full((total,), torch.finfo(self.clip.dtype).max)
        self._launch("list", fragments.tiles(self.scene), 256, *given, start, ids, keys)
        own = torch.arange(total, device=device)
        pixel = torch.searchsorted(start[1:], own, right=True)  # `pixels` for what is too many
        if self.k == 0:
            order = torch.argsort(keys, stable=True)
            order = order[torch.argsort(pixel[order], stable=True)]
            ids, keys = ids[order], keys[order]
        needed = torch.empty_like(count)
        name, error = f"gd::heaviest_needed<{self.scene.real}>", structs.Double(self.error)
        given_keys = (keys, start, structs.Long(pixels), error, needed)
        launch(_FACES, name, (-(-pixels // 128),), 128, *given_keys, device=device)
        kept = (own - start[pixel] < rows(needed, pixel, 0)).cumsum(0)
        some = (needed > 0).cumsum(0)
        many, groups = sizes(kept[-1:].sum(), some[-1])
        self.totals += [(kept[-1:].sum(), many), (some[-1], groups)]
        keep, place = packed(kept, many), packed(some, groups)
        return rows(ids, keep, -1), rows(pixel, keep, pixels), needed, place


def heaviest_backward(
    *, clip: torch.Tensor, faces: torch.Tensor, layout: torch.Tensor, height: int, width: int, near: float,
    place: torch.Tensor, start: torch.Tensor, face: torch.Tensor, distance: torch.Tensor,
    up_distance: torch.Tensor | None, up_barycentric: torch.Tensor | None, up_depth: torch.Tensor | None,
    grad_clip: torch.Tensor,
) -> None:  # fmt: skip
    """Fill `grad_clip`."""
    if len(face) == 0:
        return
    ids, most_faces = (2 * face + (distance >= 0)).to(torch.int32), most_faces_of(layout)
    pixel = rows(place, torch.searchsorted(start[1:], torch.arange(len(face), device=face.device), right=True), 0)
    key = face + torch.div(pixel, height * width, rounding_mode="floor") * most_faces
    if is_replaying():
        key = torch.where(face >= 0, key, len(layout) * most_faces)
    ups = (up_distance, up_barycentric, up_depth)
    fragments.back((clip, faces, layout, height, width, near), ids, 1, pixel, key, ups, grad_clip)


def mix_forward(
    *, values: torch.Tensor, log_weight: torch.Tensor, depth: torch.Tensor, start: torch.Tensor, row: torch.Tensor,
    ends: torch.Tensor, sharpness: float, has_floor: bool, floor: float, out: torch.Tensor, weight: torch.Tensor,
    rest: torch.Tensor, sharpness_there: torch.Tensor | None = None,
) -> None:  # fmt: skip
    """Fill `out`, `weight` and `rest`, see `geodiff.ops.mix`; a sharpness that the device has is `sharpness_there`."""
    given = (values, log_weight, depth, start, row, ends, sharpness, has_floor, floor)
    if is_replaying():  # rows of no group
        weight.zero_()
    job = _mix(*given, out=out, weight=weight, rest=rest)
    _rows("forward", values, -(-len(rest) // 128), job, sharpness_there)


def mix_backward(
    *, values: torch.Tensor, log_weight: torch.Tensor, depth: torch.Tensor, start: torch.Tensor, row: torch.Tensor,
    ends: torch.Tensor, sharpness: float, has_floor: bool, floor: float, weight: torch.Tensor, rest: torch.Tensor,
    upstream: torch.Tensor, up_rest: torch.Tensor | None, grad_values: torch.Tensor, grad_log_weight: torch.Tensor,
    grad_depth: torch.Tensor, grad_ends: torch.Tensor, grad_sharpness: torch.Tensor,
    sharpness_there: torch.Tensor | None = None,
) -> None:  # fmt: skip
    """Fill the gradients."""
    device, count, images = values.device, len(rest), len(ends)
    if is_replaying():  # rows of no group
        for gradient in (grad_values, grad_log_weight, grad_depth):
            gradient.zero_()
    by_group = torch.empty((count, 3), dtype=torch.float64, device=device)
    given = (values, log_weight, depth, start, row, ends, sharpness, has_floor, floor)
    job = _mix(
        *given, weight=weight, rest=rest, upstream=upstream, up_rest=up_rest, grad_values=grad_values,
        grad_log_weight=grad_log_weight, grad_depth=grad_depth,
    )  # fmt: skip
    _rows("backward", values, -(-count // 128), job, sharpness_there, by_group)
    own = row.long() if len(row) else start.new_zeros(count)
    order = torch.argsort(own, stable=True)
    begin = torch.searchsorted(own[order], torch.arange(images + 1, device=device))
    slices = max(1, min(_BLOCKS // max(images, 1), -(-count // 1024)))
    partial = by_group.new_empty((images, slices, 3))
    cut = structs.Int(slices)
    _rows("sums", values, images * slices, by_group, order, begin, cut, partial)
    # Zeros so far. Those of the sharpness may be on the host, and of no length where they are not wanted.
    sums = grad_sharpness.new_zeros(1, device=device)
    _rows("add", values, 1, partial, structs.Long(images), cut, grad_ends, sums)
    if grad_sharpness.numel():
        grad_sharpness.copy_(sums)


def _rows(step: str, like: torch.Tensor, grid: int, *arguments: Any) -> None:
    name = f"gd::mix_{step}<{structs.REALS[like.dtype]}>"
    launch(_ROWS, name, (grid,), 128, *arguments, device=like.device)


def _mix(
    values: torch.Tensor, log_weight: torch.Tensor, depth: torch.Tensor, start: torch.Tensor, row: torch.Tensor,
    ends: torch.Tensor, sharpness: float, has_floor: bool, floor: float, **more: torch.Tensor | None,
) -> Any:  # fmt: skip
    outputs = ("out", "weight", "rest", "upstream", "up_rest", "grad_values", "grad_log_weight", "grad_depth")
    return structs.make(
        structs.mix_job(structs.REALS[values.dtype]), values=values, log_weight=log_weight, depth=depth, start=start,
        row=row, ends=ends, sharpness=sharpness, has_floor=has_floor, floor=floor, groups=len(start) - 1,
        points=len(values), rows=len(ends), channels=values.shape[1], threads=0, grad_ends=None, grad_sharpness=None,
        **{name: more.get(name) for name in outputs},
    )  # fmt: skip
