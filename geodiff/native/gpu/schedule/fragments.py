# SPDX-License-Identifier: Apache-2.0
"""Lists of faces that pixels see, on a GPU, see cuda/raster/fragments_kernels.h."""

from typing import Any

import torch

from geodiff.native.gpu import structs
from geodiff.native.gpu.launcher import launch
from geodiff.native.gpu.schedule.corners import scatter
from geodiff.native.gpu.schedule.rasterize import rasterize
from geodiff.native.gpu.schedule.silhouette import Scene, back_groups, groups, most_faces_of, set_up
from geodiff.recording import is_replaying, or_nan, packed, rows, sizes

HEADER = "raster/fragments_kernels.h"
_BY_DEPTH, _VISIBLE, _BY_WEIGHT = range(3)
_PARTS = 1 << 16  # warps that fill any card: with fewer faces, each one's fragments are cut into parts
Packed = tuple[torch.Tensor, torch.Tensor, torch.Tensor, int, int, float]
_ANY_LAW = {
    "distribution": 6, "is_reversed": False, "is_squared": False, "coverage": "faces", "scale": 1.0, "shape": 0.0,
    "shift": 0.0, "p": 0.0, "tconorm": 1, "log_gamma_1": 0.0, "digamma": 0.0,
}  # fmt: skip


def fragments_forward(
    *, clip: torch.Tensor, faces: torch.Tensor, layout: torch.Tensor, height: int, width: int, near: float, order: int,
    blur: float, table: torch.Tensor, table_unit: float, sharpness: torch.Tensor, face: torch.Tensor,
    distance: torch.Tensor, barycentric: torch.Tensor, depth: torch.Tensor,
) -> None:  # fmt: skip
    """Fill `face`, `distance`, `barycentric` and `depth`, see `geodiff.ops.fragments`."""
    if face.numel() == 0:
        return
    for own, images in groups(layout, height, width):
        sharp = sharpness[own] if len(sharpness) else sharpness
        outputs = [part[own] for part in (face, distance, barycentric, depth)]
        _forward((clip, faces, images, height, width, near), order, blur, table, table_unit, sharp, *outputs)


def _forward(
    packed: Packed, order: int, blur: float, table: torch.Tensor, table_unit: float, sharpness: torch.Tensor,
    face: torch.Tensor, *outputs: torch.Tensor,
) -> None:  # fmt: skip
    k, clip = face.shape[-1], packed[0]
    scene, hard = scene_of(*packed, blur)
    if order == _VISIBLE or (order == _BY_DEPTH and k == 1 and blur == 0):
        ids = _seen(scene, *packed, blur if order == _VISIBLE else 0.0)
    else:
        ids = torch.full(face.shape, -1, dtype=torch.int32, device=clip.device)
        keys = torch.full(face.shape, torch.finfo(clip.dtype).max, dtype=clip.dtype, device=clip.device)
        ranking = structs.make(
            structs.fragment_ranking(scene.real), table=table, unit=table_unit, size=len(table), k=k,
            sharpness=sharpness,
        )  # fmt: skip
        name = f"fragments_list<{scene.real}, {order}>"
        _launch(scene, name, tiles(scene), 256, hard, ranking, structs.Double(blur), ids, keys)
    write(scene, hard, ids, k, None, face, *outputs)


def fragments_backward(
    *, clip: torch.Tensor, faces: torch.Tensor, layout: torch.Tensor, height: int, width: int, near: float,
    face: torch.Tensor, distance: torch.Tensor, up_distance: torch.Tensor | None, up_barycentric: torch.Tensor | None,
    up_depth: torch.Tensor | None, grad_clip: torch.Tensor,
) -> None:  # fmt: skip
    """Fill `grad_clip`."""
    if face.numel() == 0:
        return
    ids, most_faces = (2 * face + (distance >= 0)).to(torch.int32), most_faces_of(layout)
    image = torch.arange(len(layout), device=clip.device).reshape(-1, 1, 1, 1)
    key = torch.where(face >= 0, face + image * most_faces, len(layout) * most_faces)
    ups = (up_distance, up_barycentric, up_depth)
    back((clip, faces, layout, height, width, near), ids, face.shape[-1], None, key.reshape(-1), ups, grad_clip)


def visible_forward(
    *, clip: torch.Tensor, faces: torch.Tensor, layout: torch.Tensor, height: int, width: int, near: float, blur: float
) -> tuple[torch.Tensor, ...]:
    """Return `place`, `face`, `inside` and `barycentric`, see `geodiff.ops.visible`; reads how many from the device."""
    place = layout.new_empty(0)
    parts = [(place, place.clone(), layout.new_empty(0, dtype=torch.bool), clip.new_empty((0, 3)))]
    pixels = height * width
    for own, images in groups(layout, height, width) if len(faces) and pixels else ():
        given = (clip, faces, images, height, width, near)
        scene, hard = scene_of(*given, blur)
        ids = _seen(scene, *given, blur).reshape(-1)
        before = (ids >= 0).cumsum(0)
        (size,) = sizes(before[-1])
        place = packed(before, size)
        ids = rows(ids, place, -1)
        barycentric = clip.new_empty((size, 3))
        write(scene, hard, ids, 1, place, None, None, barycentric, None)
        barycentric = or_nan(barycentric, before[-1], size)
        parts.append((place + own.start * pixels, (ids >> 1).long(), (ids & 1) > 0, barycentric))
    found = [torch.cat(parts) for parts in zip(*parts, strict=True)]
    if is_replaying() and len(parts) > 2:
        raise RuntimeError("Recording.replay: images that go in groups cannot be replayed. Render fewer at once.")
    return tuple(found)


def visible_backward(
    *, clip: torch.Tensor, faces: torch.Tensor, layout: torch.Tensor, height: int, width: int, near: float,
    place: torch.Tensor, face: torch.Tensor, inside: torch.Tensor, upstream: torch.Tensor, grad_clip: torch.Tensor,
) -> None:  # fmt: skip
    """Fill `grad_clip`."""
    if len(place) == 0:
        return
    ids, most_faces = (2 * face + inside).to(torch.int32), most_faces_of(layout)
    key = face + torch.div(place, height * width, rounding_mode="floor") * most_faces
    if is_replaying():
        key = torch.where(face >= 0, key, len(layout) * most_faces)
    back((clip, faces, layout, height, width, near), ids, 1, place, key, (None, upstream, None), grad_clip)


def set_up_plain(
    clip: torch.Tensor, faces: torch.Tensor, layout: torch.Tensor, height: int, width: int, near: float, blur: float,
    marks: bool = True, whole: torch.Tensor | None = None,
) -> Scene:  # fmt: skip
    """Set up the images of one of `groups`, or of `back_groups` without marks, with the blur for a radius."""
    return set_up(clip, faces, layout, height, width, near, {**_ANY_LAW, "radius": blur}, marks, whole)


def scene_of(
    clip: torch.Tensor, faces: torch.Tensor, layout: torch.Tensor, height: int, width: int, near: float, blur: float
) -> tuple[Scene, torch.Tensor]:
    """Set up the images of one of `groups`; return the scene, and faces that are ready for `write`."""
    scene = set_up_plain(clip, faces, layout, height, width, near, blur)
    count = scene.images * scene.most_faces
    hard = structs.scratch(clip, "HardFace", count)
    _launch(scene, f"fragments_prepare<{scene.real}>", -(-count // 128), 128, hard)
    return scene, hard


def _launch(scene: Scene, name: str, grid: int, threads: int, *arguments: Any) -> None:
    launch(HEADER, f"gd::{name}", (grid,), threads, scene.struct, *arguments, device=scene.units.device)


def tiles(scene: Scene) -> int:
    """Return how many there are, of all images."""
    return scene.struct.across * scene.struct.down * scene.images


def _seen(
    scene: Scene, clip: torch.Tensor, faces: torch.Tensor, layout: torch.Tensor, height: int, width: int, near: float,
    blur: float,
) -> torch.Tensor:  # fmt: skip
    """2 · face + (1 if it covers the pixel) of each pixel, −1 where there is none."""
    shape = (scene.images, height, width)
    face, depth = layout.new_empty(shape), clip.new_empty(shape)
    rasterize(
        clip=clip, faces=faces, layout=layout, height=height, width=width, near=near, face=face, depth=depth,
        barycentric=clip.new_empty((*shape, 3)),
    )  # fmt: skip
    ids = torch.where(face >= 0, 2 * face + 1, -1).to(torch.int32)
    if blur > 0:
        _launch(scene, f"fragments_rim<{scene.real}>", tiles(scene), 256, structs.Double(blur), ids)
    return ids


def _items(scene: Scene, ids: torch.Tensor, k: int, place: Any, *outputs: torch.Tensor | None) -> Any:
    names = ("face", "distance", "barycentric", "depth")
    return structs.make(
        structs.fragment_items(scene.real), count=ids.numel(), k=k, ids=ids, place=place,
        **dict(zip(names, outputs or (None,) * 4, strict=True)),
    )  # fmt: skip


def write(scene: Scene, hard: torch.Tensor, ids: torch.Tensor, k: int, place: Any, *outputs: Any) -> None:
    """Fill face, distance, barycentrics and depth, those that are not None, of fragments."""
    items = _items(scene, ids, k, place, *outputs)
    _launch(scene, f"fragments_write<{scene.real}>", -(-ids.numel() // 128), 128, hard, items)


def back(
    packed: Packed, ids: torch.Tensor, k: int, place: torch.Tensor | None, key: torch.Tensor, ups: tuple[Any, Any, Any],
    grad_clip: torch.Tensor,
) -> None:  # fmt: skip
    """Go from fragments, of face `key` each (image · most faces + face), to vertices."""
    clip, faces, layout, height, width, near = packed
    images, most_faces = len(layout), most_faces_of(layout)
    count = images * most_faces
    if count == 0:
        return
    order = torch.argsort(key, stable=True)
    start = torch.searchsorted(key[order], torch.arange(count + 1, device=ids.device))
    parts = max(1, min(64, _PARTS // count, -(-ids.numel() // 32)))
    corners = structs.scratch(grad_clip, "Clip", 3 * count).reshape(images, -1)
    for own, images_of in back_groups(layout):
        scene = set_up_plain(clip, faces, images_of, height, width, near, 0.0, False, layout)
        given = structs.make(
            structs.fragment_upstream(scene.real), order=order, start=start[own.start * most_faces :], distance=ups[0],
            barycentric=ups[1], depth=ups[2], parts=parts,
        )  # fmt: skip
        many = scene.images * most_faces
        partial = torch.empty((many, parts, 28), dtype=torch.float64, device=ids.device)
        items = _items(scene, ids, k, place)
        _launch(scene, f"fragments_backward<{scene.real}>", -(-many * parts // 4), 128, items, given, partial)
        name = f"fragments_faces<{scene.real}>"
        _launch(scene, name, -(-many // 128), 128, partial, structs.Int(parts), corners[own])
    scatter(corners, faces, layout, most_faces, grad_clip)
