# SPDX-License-Identifier: Apache-2.0
"""Colours of textured surfaces in light, in one pass: argument checks, kernels, autograd and torch.compile."""

from typing import Any

import torch

from geodiff import reference
from geodiff.modes import outside_autocast
from geodiff.ops import _op
from geodiff.reference.shading import HEAD, LIGHT, WRAPS
from geodiff.reference.surface import check_surface
from geodiff.validation import fail, looks_at_values

_ARGUMENTS = (
    "Tensor uv, Tensor uv_corners, Tensor frame, Tensor corners, Tensor weight, Tensor image, Tensor rows, "
    "Tensor kinds, Tensor texture, int wrap, bool parallel_view, bool glossy"
)
_op.library.define(f"surface({_ARGUMENTS}) -> Tensor")
_op.library.define(
    f"surface_backward(Tensor upstream, {_ARGUMENTS}, bool[] wants) "
    "-> (Tensor uv, Tensor frame, Tensor weight, Tensor rows, Tensor texture)"
)


@outside_autocast
def surface(
    uv: torch.Tensor,
    uv_corners: torch.Tensor,
    frame: torch.Tensor,
    corners: torch.Tensor,
    weight: torch.Tensor,
    image: torch.Tensor,
    rows: torch.Tensor,
    kinds: torch.Tensor,
    texture: torch.Tensor,
    *,
    wrap: str = "repeat",
    parallel_view: bool = False,
    glossy: bool = True,
) -> torch.Tensor:
    """Colour textured surfaces in light: `blend`, `sample` and `reflect` at once, `albedo·diffuse + highlight`.

    The twin `geodiff.reference.surface` has the same name and arguments.

    Args:
        uv: texture coordinates, `(T, 2)`.
        uv_corners: `(P, 3)` integers, rows of `uv`: of the corners of each point's face.
        frame: point (3) and normal (3) of each vertex, `(V, 6)`.
        corners: `(P, 3)` integers, rows of `frame`.
        weight: `(P, 3)`, the barycentrics.
        image: `(P,)` integers, ascending: the row and the texture of each point; empty where there is one of both.
        rows: numbers of each image, `(1 or B, 7 + 12·L)`, as of `reflect`.
        kinds: `(L,)` integers, 0 for directional, 1 for point lights.
        texture: `(1 or B, H, W, 3)`.
        wrap: of the texture, as of `sample`.
        parallel_view: the viewer is a direction.
        glossy: whether there are highlights.

    Returns:
        `(P, 3)`.

    Gradients: in `uv`, `frame`, `weight`, `rows` and `texture`; the same bits on any number of threads. Not twice
    differentiable.

    Raises:
        TypeError, ValueError: wrong dtypes or shapes, or an index out of range.
        RuntimeError: for tensors on different devices, or on one that is neither the CPU nor CUDA.

    Example:
        >>> frame, weight = torch.tensor([[0.0, 0.0, 0.0, 0.0, 0.0, 1.0]]), torch.full((1, 3), 1 / 3)
        >>> row = torch.tensor([[0.0, 0, 1, 8, 0.1, 0.1, 0.1, 0, 0, 1, 0.5, 0.5, 0.5, 0, 0, 0, 1, 0, 0]])
        >>> one, none = torch.zeros(1, dtype=torch.int32), torch.zeros(0, dtype=torch.int32)
        >>> red = torch.tensor([[[[1.0, 0.0, 0.0]]]])
        >>> corners = torch.zeros(1, 3, dtype=torch.int32)
        >>> surface(torch.tensor([[0.5, 0.5]]), corners, frame, corners, weight, none, row, one, red)
        tensor([[0.6000, 0.0000, 0.0000]])
    """
    check_surface(uv, uv_corners, frame, corners, weight, image, rows, kinds, texture, wrap)
    tensors = (uv, uv_corners, frame, corners, weight, image, rows, kinds, texture)
    if _op.for_twin("surface", **dict(zip(_SHAPES, tensors, strict=False))):
        return reference.surface(*tensors, wrap=wrap, parallel_view=parallel_view, glossy=glossy)
    result: torch.Tensor = _op.run("surface", *tensors, WRAPS.index(wrap), parallel_view, glossy)
    return result


def _forward(
    uv: torch.Tensor, uv_corners: torch.Tensor, frame: torch.Tensor, corners: torch.Tensor, weight: torch.Tensor,
    image: torch.Tensor, rows: torch.Tensor, kinds: torch.Tensor, texture: torch.Tensor, wrap: int,
    parallel_view: bool, glossy: bool,
) -> torch.Tensor:  # fmt: skip
    _check("surface", uv, uv_corners, frame, corners, image, rows, kinds, texture)
    out = _fake(uv, uv_corners)
    _op.call(
        _op.kernels.surface_forward, uv=uv, uv_corners=uv_corners, frame=frame, corners=corners, weight=weight,
        image=image, rows=rows, kinds=kinds, texture=texture, wrap=wrap, parallel_view=parallel_view, glossy=glossy,
        out=out,
    )  # fmt: skip
    return out


def _check(
    op: str,
    uv: torch.Tensor,
    uv_corners: torch.Tensor,
    frame: torch.Tensor,
    corners: torch.Tensor,
    image: torch.Tensor,
    rows: torch.Tensor,
    kinds: torch.Tensor,
    texture: torch.Tensor,
) -> None:
    images, points = max(len(rows), len(texture)), len(corners)
    if rows.shape[1] != HEAD + LIGHT * len(kinds) or len(rows) not in (1, images):
        raise fail(op, "rows", f"of shape (1 or {images}, {HEAD + LIGHT * len(kinds)}) for {len(kinds)} lights", rows)
    if len(texture) not in (1, images) or (points and 0 in texture.shape):
        raise fail(op, "texture", f"(1 or {images}, H, W, 3) of one or more texels", texture)
    if len(image) != points and (images != 1 or len(image)):
        raise fail(op, "image", f"({points},), one a point, or empty with one image", image)
    for name, index, count in (
        ("corners", corners, len(frame)),
        ("uv_corners", uv_corners, len(uv)),
        ("image", image, images),
    ):
        checked = name == "uv_corners" and index.data_ptr() == corners.data_ptr() and count >= len(frame)
        if checked or not index.numel():
            continue
        if not looks_at_values(index):
            continue
        low, high = (int(end) for end in index.aminmax())
        if not 0 <= low <= high < count:
            raise fail(op, name, f"in [0, {count})", f"from {low} to {high}")


def _backward(
    upstream: torch.Tensor, uv: torch.Tensor, uv_corners: torch.Tensor, frame: torch.Tensor, corners: torch.Tensor,
    weight: torch.Tensor, image: torch.Tensor, rows: torch.Tensor, kinds: torch.Tensor, texture: torch.Tensor,
    wrap: int, parallel_view: bool, glossy: bool, wants: list[bool],
) -> tuple[torch.Tensor, ...]:  # fmt: skip
    _check("surface_backward", uv, uv_corners, frame, corners, image, rows, kinds, texture)
    grad_uv, grad_frame, grad_texture = (
        _op.buffer(uv, wants[0]),
        _op.buffer(frame, wants[1]),
        _op.buffer(texture, wants[4]),
    )
    grad_weight, grad_rows = torch.empty_like(weight), _op.buffer(rows, wants[3]).double()
    _op.call(
        _op.kernels.surface_backward, uv=uv, uv_corners=uv_corners, frame=frame, corners=corners, weight=weight,
        image=image, rows=rows, kinds=kinds, texture=texture, wrap=wrap, parallel_view=parallel_view, glossy=glossy,
        upstream=upstream, grad_uv=grad_uv, grad_frame=grad_frame, grad_weight=grad_weight, grad_rows=grad_rows,
        grad_texels=grad_texture,
    )  # fmt: skip
    return grad_uv, grad_frame, grad_weight, grad_rows.to(rows.dtype), grad_texture


def _fake(uv: torch.Tensor, uv_corners: torch.Tensor, *_: Any) -> torch.Tensor:
    return uv.new_empty((uv_corners.shape[0], 3))


_SHAPES = {
    "uv": "T 2",
    "uv_corners": "int32 P 3",
    "frame": "V 6",
    "corners": "int32 P 3",
    "weight": "P 3",
    "image": "? int32 P",
    "rows": "B R",
    "kinds": "int32 L",
    "texture": "Q H W 3",
    "upstream": "P 3",
}
_op.register("surface", _forward, _fake, _SHAPES, _backward)
