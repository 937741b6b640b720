# SPDX-License-Identifier: Apache-2.0
"""Colours of textured surfaces in light, in one pass: argument checks, kernels, autograd and torch.compile."""

from typing import Any

import torch

from geodiff import reference
from geodiff.modes import outside_autocast
from geodiff.native import cpu
from geodiff.ops import _op
from geodiff.ops.derivatives import refuse_second
from geodiff.reference.shading import HEAD, LIGHT, WRAPS
from geodiff.reference.surface import check_surface
from geodiff.validation import fail

_library = torch.library.Library("geodiff", "FRAGMENT")
_ARGUMENTS = (
    "Tensor uv, Tensor uv_corners, Tensor frame, Tensor corners, Tensor weight, Tensor image, Tensor rows, "
    "Tensor kinds, Tensor texture, int wrap, bool parallel_view, bool glossy"
)
_library.define(f"surface({_ARGUMENTS}) -> Tensor")
_library.define(
    f"surface_backward(Tensor upstream, {_ARGUMENTS}, bool want_uv, bool want_frame, bool want_rows, "
    "bool want_texture) -> (Tensor, Tensor, Tensor, Tensor, Tensor)"
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
    differentiable. Tensors that are not on the CPU are passed on to the twin.

    Raises:
        TypeError, ValueError: wrong dtypes or shapes, or an index out of range.

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
    if _op.for_twin(uv, frame, weight, rows, texture):
        options: dict[str, Any] = {"wrap": wrap, "parallel_view": parallel_view, "glossy": glossy}
        return reference.surface(uv, uv_corners, frame, corners, weight, image, rows, kinds, texture, **options)
    result: torch.Tensor = torch.ops.geodiff.surface(
        uv.contiguous(),
        _op.int32(uv_corners),
        frame.contiguous(),
        _op.int32(corners),
        weight.contiguous(),
        _op.int32(image),
        rows.contiguous(),
        _op.int32(kinds),
        texture.contiguous(),
        WRAPS.index(wrap),
        parallel_view,
        glossy,
    )
    return result


def _forward(
    uv: torch.Tensor,
    uv_corners: torch.Tensor,
    frame: torch.Tensor,
    corners: torch.Tensor,
    weight: torch.Tensor,
    image: torch.Tensor,
    rows: torch.Tensor,
    kinds: torch.Tensor,
    texture: torch.Tensor,
    wrap: int,
    parallel_view: bool,
    glossy: bool,
) -> torch.Tensor:
    _check("surface", uv, uv_corners, frame, corners, image, rows, kinds, texture)
    out = _fake(uv, uv_corners)
    tensors = [t.numpy() for t in (uv, uv_corners, frame, corners, weight, image, rows, kinds, texture)]
    cpu.extension().surface_forward(*tensors, wrap, parallel_view, glossy, out.numpy(), cpu.threads())
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
        low, high = (int(end) for end in index.aminmax())
        if not 0 <= low <= high < count:
            raise fail(op, name, f"in [0, {count})", f"from {low} to {high}")


def _backward(
    upstream: torch.Tensor,
    uv: torch.Tensor,
    uv_corners: torch.Tensor,
    frame: torch.Tensor,
    corners: torch.Tensor,
    weight: torch.Tensor,
    image: torch.Tensor,
    rows: torch.Tensor,
    kinds: torch.Tensor,
    texture: torch.Tensor,
    wrap: int,
    parallel_view: bool,
    glossy: bool,
    want_uv: bool,
    want_frame: bool,
    want_rows: bool,
    want_texture: bool,
) -> tuple[torch.Tensor, ...]:
    _check("surface_backward", uv, uv_corners, frame, corners, image, rows, kinds, texture)
    grad_uv = uv.new_zeros(uv.shape if want_uv else (0,))
    grad_frame = frame.new_zeros(frame.shape if want_frame else (0,))
    grad_texture = texture.new_zeros(texture.shape if want_texture else (0,))
    grad_weight = torch.empty_like(weight)
    grad_rows = torch.zeros(rows.shape if want_rows else (0,), dtype=torch.float64)
    tensors = [t.detach().numpy() for t in (uv, uv_corners, frame, corners, weight, image, rows, kinds, texture)]
    cpu.extension().surface_backward(
        *tensors,
        wrap,
        parallel_view,
        glossy,
        upstream.detach().contiguous().numpy(),
        grad_uv.numpy(),
        grad_frame.numpy(),
        grad_weight.numpy(),
        grad_rows.numpy(),
        grad_texture.numpy(),
        cpu.threads(),
    )
    return grad_uv, grad_frame, grad_weight, grad_rows.to(rows.dtype), grad_texture


def _fake(uv: torch.Tensor, uv_corners: torch.Tensor, *_: Any) -> torch.Tensor:
    return uv.new_empty((uv_corners.shape[0], 3))


def _fake_backward(
    upstream: Any,
    uv: torch.Tensor,
    uv_corners: Any,
    frame: torch.Tensor,
    corners: Any,
    weight: torch.Tensor,
    image: Any,
    rows: torch.Tensor,
    kinds: Any,
    texture: torch.Tensor,
    wrap: Any,
    parallel_view: Any,
    glossy: Any,
    want_uv: bool,
    want_frame: bool,
    want_rows: bool,
    want_texture: bool,
) -> tuple[torch.Tensor, ...]:
    grad_uv = uv.new_empty(uv.shape if want_uv else (0,))
    grad_frame = frame.new_empty(frame.shape if want_frame else (0,))
    grad_texture = texture.new_empty(texture.shape if want_texture else (0,))
    grad_rows = rows.new_empty(rows.shape if want_rows else (0,))
    return grad_uv, grad_frame, torch.empty_like(weight), grad_rows, grad_texture


def _setup(ctx: Any, inputs: tuple[Any, ...], output: torch.Tensor) -> None:
    ctx.save_for_backward(*inputs[:9])
    ctx.options = inputs[9:]


def _autograd(ctx: Any, upstream: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
    want = tuple(ctx.needs_input_grad[i] for i in (0, 2, 6, 8))
    grads = torch.ops.geodiff.surface_backward(upstream, *ctx.saved_tensors, *ctx.options, *want)
    uv, frame, rows, texture = (grads[i] if wanted else None for i, wanted in zip((0, 1, 3, 4), want, strict=True))
    return uv, None, frame, None, grads[2], None, rows, None, texture, None, None, None


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
}
_op.implement(_library, "surface", _forward, _SHAPES)
_op.implement(_library, "surface_backward", _backward, _SHAPES | {"upstream": "P 3"})
torch.library.register_fake("geodiff::surface", _fake, lib=_library)
torch.library.register_fake("geodiff::surface_backward", _fake_backward, lib=_library)
_op.autograd(_library, "surface", _autograd, _setup)
refuse_second(_library, "surface")
