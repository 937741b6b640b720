# SPDX-License-Identifier: Apache-2.0
"""Light, textures, blending and normals on a GPU, see cuda/shading/kernels.h."""

from typing import Any

import torch

from geodiff.constants import on_device
from geodiff.native.gpu import structs
from geodiff.native.gpu.launcher import launch
from geodiff.native.gpu.schedule.corners import around
from geodiff.recording import is_replaying

HEADER = "shading/kernels.h"
_THREADS = 128
_BLOCKS = 2048
_TERMS = 13  # of a light: shininess and its own twelve numbers


def _launch(name: str, like: torch.Tensor, count: int, *arguments: Any) -> None:
    real = structs.REALS[like.dtype]
    name = f"gd::{name}<{real}>" if "<" not in name else f"gd::{name.replace('REAL', real)}"
    launch(HEADER, name, (-(-count // _THREADS),), _THREADS, *arguments, device=like.device)


def gather(
    index: torch.Tensor, weight: torch.Tensor, values: torch.Tensor, terms: int, rows: int, out: torch.Tensor
) -> None:
    """Fill `out` (rows, C): at row index[i], the sum of weight[i]·values[i / terms] in the order of i.

    Args:
        index: which row each term belongs to, of any shape.
        weight: as many.
        values: `(points, C)`.
        terms: of a point.
        rows: how many.
        out: `(rows, C)`, of the dtype of `values`.
    """
    key = index.reshape(-1).long()
    order = torch.argsort(key, stable=True)
    start = torch.searchsorted(key[order], torch.arange(rows + 1, device=key.device))
    lanes = 32 if len(key) >= 8 * rows else 1
    given = (order, start, structs.Long(rows), weight, values, structs.Int(terms), structs.Int(values.shape[1]), out)
    _launch(f"gather_rows<REAL, {lanes}>", values, rows * lanes, *given)


def blend_forward(*, values: torch.Tensor, index: torch.Tensor, weight: torch.Tensor, out: torch.Tensor) -> None:
    """Fill `out`, see `geodiff.ops.blend`."""
    _launch("blend_forward", values, out.numel(), _blend(values, index, weight, out))


def blend_backward(
    *, values: torch.Tensor, index: torch.Tensor, weight: torch.Tensor, upstream: torch.Tensor,
    grad_values: torch.Tensor, grad_weight: torch.Tensor,
) -> None:  # fmt: skip
    """Fill the gradients that are not empty."""
    if grad_weight.numel():
        job = _blend(values, index, weight, None, upstream, grad_weight)
        _launch("blend_backward", values, index.numel(), job)
    if grad_values.numel():
        gather(index, weight, upstream, index.shape[1], len(values), grad_values)


def _blend(
    values: torch.Tensor, index: torch.Tensor, weight: torch.Tensor, out: torch.Tensor | None,
    upstream: torch.Tensor | None = None, grad_weight: torch.Tensor | None = None,
) -> Any:  # fmt: skip
    return structs.make(
        structs.blend_job(structs.REALS[values.dtype]), values=values, index=index, weight=weight, rows=len(values),
        points=len(index), terms=index.shape[1], channels=values.shape[1], threads=0, out=out, upstream=upstream,
        grad_values=None, grad_weight=grad_weight,
    )  # fmt: skip


def texture_forward(
    *, values: torch.Tensor, uv: torch.Tensor, image: torch.Tensor, height: int, width: int, wrap: int,
    out: torch.Tensor,
) -> None:  # fmt: skip
    """Fill `out`, see `geodiff.ops.sample`."""
    _launch("sample_forward", values, len(uv), _texture(values, uv, image, height, width, wrap, out=out))


def texture_backward(
    *, values: torch.Tensor, uv: torch.Tensor, image: torch.Tensor, height: int, width: int, wrap: int,
    upstream: torch.Tensor, grad_values: torch.Tensor, grad_uv: torch.Tensor,
) -> None:  # fmt: skip
    """Fill the gradients that are not empty."""
    points = len(uv) if grad_values.numel() else 0
    rows = torch.empty((points, 4), dtype=torch.int64, device=uv.device)
    weights = uv.new_empty((points, 4))
    job = _texture(values, uv, image, height, width, wrap, upstream=upstream, grad_uv=grad_uv)
    _launch("sample_backward", values, len(uv), job, rows, weights)
    if grad_values.numel():
        gather(rows, weights, upstream, 4, len(values), grad_values)


def _texture(
    values: torch.Tensor, uv: torch.Tensor, image: torch.Tensor, height: int, width: int, wrap: int,
    out: torch.Tensor | None = None, upstream: torch.Tensor | None = None, grad_uv: torch.Tensor | None = None,
) -> Any:  # fmt: skip
    return structs.make(
        structs.texture_job(structs.REALS[values.dtype]), values=values, uv=uv, image=image, rows=len(values),
        points=len(uv), height=height, width=width, channels=values.shape[1], wrap=wrap, threads=0, out=out,
        upstream=upstream, grad_values=None, grad_uv=grad_uv,
    )  # fmt: skip


def composite_forward(
    *, alpha: torch.Tensor, color: torch.Tensor, place: torch.Tensor, background: torch.Tensor, out: torch.Tensor
) -> int:
    """Fill `out`, see `geodiff.ops.composite`. The order of places is not looked at."""
    _launch("composite_pixels", alpha, len(alpha), _composite(alpha, color, place, background, out=out))
    return len(place)


def composite_backward(
    *, alpha: torch.Tensor, color: torch.Tensor, place: torch.Tensor, background: torch.Tensor,
    upstream: torch.Tensor, grad_alpha: torch.Tensor, grad_color: torch.Tensor,
) -> int:  # fmt: skip
    """Fill `grad_alpha` and `grad_color`."""
    if len(alpha) and color.shape[1]:
        job = _composite(alpha, color, place, background, None, upstream, grad_alpha, grad_color)
        if is_replaying():  # colours that are in no pixel
            grad_color.zero_()
        _launch("composite_pixels", alpha, len(alpha), job)
    else:
        grad_alpha.zero_()
    return len(place)


def _composite(
    alpha: torch.Tensor, color: torch.Tensor, place: torch.Tensor, background: torch.Tensor,
    out: torch.Tensor | None = None, upstream: torch.Tensor | None = None, grad_alpha: torch.Tensor | None = None,
    grad_color: torch.Tensor | None = None,
) -> Any:  # fmt: skip
    return structs.make(
        structs.composite_job(structs.REALS[alpha.dtype]), alpha=alpha, color=color, place=place,
        background=background, pixels=len(alpha), points=len(place), background_rows=len(background),
        channels=color.shape[1], threads=0, out=out, met=None, upstream=upstream, grad_alpha=grad_alpha,
        grad_color=grad_color,
    )  # fmt: skip


def reflect_forward(
    *, rows: torch.Tensor, kinds: torch.Tensor, image: torch.Tensor, normal: torch.Tensor, point: torch.Tensor,
    parallel_view: bool, glossy: bool, out: torch.Tensor,
) -> None:  # fmt: skip
    """Fill `out`, see `geodiff.ops.reflect`."""
    _launch(
        "reflect_forward", normal, len(normal), _reflect(rows, kinds, image, normal, point, parallel_view, glossy, out)
    )


def reflect_backward(
    *, rows: torch.Tensor, kinds: torch.Tensor, image: torch.Tensor, normal: torch.Tensor, point: torch.Tensor,
    parallel_view: bool, glossy: bool, upstream: torch.Tensor, grad_normal: torch.Tensor, grad_point: torch.Tensor,
    grad_rows: torch.Tensor,
) -> None:  # fmt: skip
    """Fill the gradients."""
    given = (rows, kinds, image, normal, point, parallel_view, glossy)
    job = _reflect(*given, None, upstream, grad_normal, grad_point)
    by_viewer = torch.empty_like(normal)
    _launch("reflect_backward", normal, len(normal), job, by_viewer)
    _light_rows(job, by_viewer, image, len(rows), len(kinds), grad_rows)


def _reflect(
    rows: torch.Tensor, kinds: torch.Tensor, image: torch.Tensor | None, normal: torch.Tensor, point: torch.Tensor,
    parallel_view: bool, glossy: bool, out: torch.Tensor | None = None, upstream: torch.Tensor | None = None,
    grad_normal: torch.Tensor | None = None, grad_point: torch.Tensor | None = None,
) -> Any:  # fmt: skip
    return structs.make(
        structs.reflect_job(structs.REALS[normal.dtype]), rows=rows, kinds=kinds, image=image, normal=normal,
        point=point, points=len(normal), lights=len(kinds), row_size=rows.shape[1], threads=0,
        parallel_view=parallel_view, glossy=glossy, out=out, upstream=upstream, grad_normal=grad_normal,
        grad_point=grad_point, grad_rows=None,
    )  # fmt: skip


def _light_rows(
    job: Any, by_viewer: torch.Tensor, image: torch.Tensor | None, images: int, lights: int, grad_rows: torch.Tensor
) -> None:
    """Fill `grad_rows` (images, row_size) from all points."""
    points, device = len(by_viewer), by_viewer.device
    if image is not None and images > 1:  # also where no image has a point
        start = torch.searchsorted(image.long(), torch.arange(images + 1, device=device))
    else:
        start = torch.arange(2, device=device) * points
    slices = max(1, min(_BLOCKS // max(images * (lights + 1), 1), -(-points // 1024)))
    blocks = images * slices * (lights + 1)
    partial = torch.empty(blocks * _TERMS, dtype=torch.float64, device=device)
    real = structs.REALS[by_viewer.dtype]
    cut = structs.Int(slices)
    launch(HEADER, f"gd::light_sums<{real}>", (blocks,), 128, job, by_viewer, start, cut, partial, device=device)
    given = (partial, structs.Int(images), cut, structs.Int(lights), grad_rows)
    _launch("light_add", grad_rows, grad_rows.numel(), *given)


def surface_forward(
    *, uv: torch.Tensor, uv_corners: torch.Tensor, frame: torch.Tensor, corners: torch.Tensor, weight: torch.Tensor,
    image: torch.Tensor, rows: torch.Tensor, kinds: torch.Tensor, texture: torch.Tensor, wrap: int,
    parallel_view: bool, glossy: bool, out: torch.Tensor,
) -> None:  # fmt: skip
    """Fill `out`, see `geodiff.ops.surface`."""
    scene = (uv, uv_corners, frame, corners, weight, image, rows, kinds, texture, wrap, parallel_view, glossy)
    _launch("surface_forward", uv, len(corners), _surface(*scene, out=out))


def surface_backward(
    *, uv: torch.Tensor, uv_corners: torch.Tensor, frame: torch.Tensor, corners: torch.Tensor, weight: torch.Tensor,
    image: torch.Tensor, rows: torch.Tensor, kinds: torch.Tensor, texture: torch.Tensor, wrap: int,
    parallel_view: bool, glossy: bool, upstream: torch.Tensor, grad_uv: torch.Tensor, grad_frame: torch.Tensor,
    grad_weight: torch.Tensor, grad_rows: torch.Tensor, grad_texels: torch.Tensor,
) -> None:  # fmt: skip
    """Fill the gradients that are not empty."""
    points = len(corners)
    if points == 0:
        return
    scene = (uv, uv_corners, frame, corners, weight, image, rows, kinds, texture, wrap, parallel_view, glossy)
    job = _surface(*scene, upstream=upstream, grad_weight=grad_weight)
    room = {name: uv.new_empty((points, width)) for name, width in _SHARES.items()}
    room["texel"] = torch.empty((points, 4), dtype=torch.int64, device=uv.device)
    shares = structs.make(structs.surface_shares(structs.REALS[uv.dtype]), **room)
    _launch("surface_shares", uv, points, job, shares)
    if grad_uv.numel():
        gather(uv_corners, weight, room["by_uv"], 3, len(uv), grad_uv)
    if grad_frame.numel():
        gather(corners, weight, room["by_frame"], 3, len(frame), grad_frame)
    if grad_texels.numel():
        gather(room["texel"], room["texel_weight"], room["by_albedo"], 4, grad_texels.numel() // 3, grad_texels)
    if grad_rows.numel():
        of = image if len(rows) > 1 else None
        light = _reflect(rows, kinds, of, room["normal"], room["point"], parallel_view, glossy, None, room["upstream"])
        _light_rows(light, room["by_viewer"], of, len(rows), len(kinds), grad_rows)


_SHARES = {
    "by_uv": 2, "by_frame": 6, "by_albedo": 3, "texel_weight": 4, "normal": 3, "point": 3, "upstream": 6, "by_viewer": 3
}  # fmt: skip


def _surface(
    uv: torch.Tensor, uv_corners: torch.Tensor, frame: torch.Tensor, corners: torch.Tensor, weight: torch.Tensor,
    image: torch.Tensor, rows: torch.Tensor, kinds: torch.Tensor, texture: torch.Tensor, wrap: int,
    parallel_view: bool, glossy: bool, out: torch.Tensor | None = None, upstream: torch.Tensor | None = None,
    grad_weight: torch.Tensor | None = None,
) -> Any:  # fmt: skip
    return structs.make(
        structs.surface_job(structs.REALS[uv.dtype]), uv=uv, uv_corners=uv_corners, frame=frame, corners=corners,
        weight=weight, image=image, rows=rows, kinds=kinds, texels=texture, points=len(corners), coordinates=len(uv),
        vertices=len(frame), texel_rows=texture.numel() // 3, lights=len(kinds), row_size=rows.shape[1],
        height=texture.shape[1], width=texture.shape[2], wrap=wrap, threads=0, own_row=len(rows) > 1,
        own_texture=len(texture) > 1, parallel_view=parallel_view, glossy=glossy, out=out, upstream=upstream,
        grad_uv=None, grad_frame=None, grad_weight=grad_weight, grad_texels=None, grad_rows=None,
    )  # fmt: skip


def vertex_normals_forward(*, vertices: torch.Tensor, faces: torch.Tensor, out: torch.Tensor) -> None:
    """Fill `out`, see `geodiff.ops.vertex_normals`."""
    job, scale, start, corners = _normals(vertices, faces, out)
    _launch("normals_forward", vertices, out.numel() // 3, job, scale, start, corners)


def vertex_normals_backward(
    *, vertices: torch.Tensor, faces: torch.Tensor, upstream: torch.Tensor, grad: torch.Tensor
) -> None:
    """Fill `grad`."""
    job, scale, start, corners = _normals(vertices, faces, None, upstream, grad)
    by_sum = torch.empty(vertices.shape, dtype=torch.float64, device=vertices.device)
    count = vertices.numel() // 3
    _launch("normals_to_sums", vertices, count, job, scale, start, corners, by_sum)
    _launch("normals_backward", vertices, count, job, scale, start, corners, by_sum)


def _normals(
    vertices: torch.Tensor, faces: torch.Tensor, out: torch.Tensor | None, upstream: torch.Tensor | None = None,
    grad: torch.Tensor | None = None,
) -> tuple[Any, torch.Tensor, torch.Tensor, torch.Tensor]:  # fmt: skip
    batch, count = vertices.shape[:2]
    job = structs.make(
        structs.normals_job(structs.REALS[vertices.dtype]), vertices=vertices, faces=faces, batch=batch,
        num_vertices=count, num_faces=len(faces), threads=0, out=out, upstream=upstream, grad=grad,
    )  # fmt: skip
    whole = on_device(torch.tensor([[0, 0, len(faces)]], device="cpu"), faces.device)
    start, corners = around(faces, whole, len(faces), count)
    scale = torch.zeros(batch, dtype=torch.int64, device=vertices.device)
    _launch("normals_scale", vertices, batch * len(faces), job, scale)
    return job, scale, start, corners
