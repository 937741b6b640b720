# SPDX-License-Identifier: Apache-2.0
"""Light at points, samples of textures, images composed of colours: checks, kernels, autograd and torch.compile."""

from typing import Any

import torch

from geodiff import reference
from geodiff.modes import outside_autocast
from geodiff.ops import _op
from geodiff.ops._indices import check_range
from geodiff.reference.shading import HEAD, LIGHT, WRAPS, check_composite, check_places, check_reflect, check_sample
from geodiff.validation import fail

_ARGUMENTS = "Tensor rows, Tensor kinds, Tensor image, Tensor normal, Tensor point, bool parallel_view, bool glossy"
_op.library.define(f"reflect({_ARGUMENTS}) -> Tensor")
_op.library.define(f"reflect_backward(Tensor upstream, {_ARGUMENTS}) -> (Tensor rows, Tensor normal, Tensor point)")
_op.library.define("sample(Tensor image, Tensor uv, Tensor index, int wrap) -> Tensor")
_op.library.define(
    "sample_backward(Tensor upstream, Tensor image, Tensor uv, Tensor index, int wrap, bool[] wants) "
    "-> (Tensor image, Tensor uv)"
)
_op.library.define("composite(Tensor alpha, Tensor color, Tensor place, Tensor background) -> Tensor")
_op.library.define(
    "composite_backward(Tensor upstream, Tensor alpha, Tensor color, Tensor place, Tensor background, bool[] wants) "
    "-> (Tensor alpha, Tensor color, Tensor background)"
)


@outside_autocast
def reflect(
    rows: torch.Tensor,
    kinds: torch.Tensor,
    image: torch.Tensor,
    normal: torch.Tensor,
    point: torch.Tensor,
    *,
    parallel_view: bool = False,
    glossy: bool = True,
) -> torch.Tensor:
    """Reflect lights by Phong's model: what a surface's colour is multiplied with, and the highlight that is added.

    The twin `geodiff.reference.reflect` has the same name and arguments, and says more of them.

    Args:
        rows: numbers of each image, `(1 or B, 7 + 12·L)`.
        kinds: `(L,)` integers, 0 for directional, 1 for point lights.
        image: `(P,)` integers, ascending: the row of each point; empty where there is only one.
        normal: `(P, 3)`, of any length.
        point: `(P, 3)` in the world.
        parallel_view: the viewer is a direction, as for an orthographic camera.
        glossy: whether there are highlights.

    Returns:
        `(P, 6)`: diffuse and highlight.

    Gradients: in `rows`, `normal` and `point`; the same bits on any number of threads. Not twice differentiable.

    Raises:
        TypeError, ValueError: wrong dtypes or shapes, or an image out of range.
        RuntimeError: for tensors on different devices, or on one that is neither the CPU nor CUDA.

    Example:
        >>> row = torch.tensor([[0.0, 0, 1, 8, 0.1, 0.1, 0.1, 0, 0, 1, 0.5, 0.5, 0.5, 1, 1, 1, 1, 0, 0]])
        >>> one = torch.zeros(1, dtype=torch.int32)
        >>> up = torch.tensor([[0.0, 0.0, 2.0]])
        >>> reflect(row, one, one[:0], up, 0 * up, parallel_view=True)
        tensor([[0.6000, 0.6000, 0.6000, 1.0000, 1.0000, 1.0000]])
    """
    check_reflect(rows, kinds, image, normal, point)
    if _op.for_twin("reflect", rows=rows, kinds=kinds, image=image, normal=normal, point=point):
        return reference.reflect(rows, kinds, image, normal, point, parallel_view=parallel_view, glossy=glossy)
    result: torch.Tensor = _op.run("reflect", rows, kinds, image, normal, point, parallel_view, glossy)
    return result


def _reflect(
    rows: torch.Tensor, kinds: torch.Tensor, image: torch.Tensor, normal: torch.Tensor, point: torch.Tensor,
    parallel_view: bool, glossy: bool,
) -> torch.Tensor:  # fmt: skip
    _check_lights("reflect", rows, kinds, image, len(normal))
    out = _fake_reflect(rows, kinds, image, normal)
    _op.call(
        _op.kernels.reflect_forward, rows=rows, kinds=kinds, image=image, normal=normal, point=point,
        parallel_view=parallel_view, glossy=glossy, out=out,
    )  # fmt: skip
    return out


def _reflect_backward(
    upstream: torch.Tensor, rows: torch.Tensor, kinds: torch.Tensor, image: torch.Tensor, normal: torch.Tensor,
    point: torch.Tensor, parallel_view: bool, glossy: bool,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:  # fmt: skip
    _check_lights("reflect_backward", rows, kinds, image, len(normal))
    grad_rows = rows.new_zeros(rows.shape, dtype=torch.float64)
    grad_normal, grad_point = torch.empty_like(normal), torch.empty_like(point)
    _op.call(
        _op.kernels.reflect_backward, rows=rows, kinds=kinds, image=image, normal=normal, point=point,
        parallel_view=parallel_view, glossy=glossy, upstream=upstream, grad_normal=grad_normal, grad_point=grad_point,
        grad_rows=grad_rows,
    )  # fmt: skip
    return grad_rows.to(rows.dtype), grad_normal, grad_point


def _check_lights(op: str, rows: torch.Tensor, kinds: torch.Tensor, image: torch.Tensor, points: int) -> None:
    if rows.shape[1] != HEAD + LIGHT * len(kinds):
        raise fail(op, "rows", f"of {HEAD + LIGHT * len(kinds)} columns for {len(kinds)} lights", rows)
    if len(image) != points and (len(rows) != 1 or len(image)):
        raise fail(op, "image", f"({points},), one a point, or empty with one row", image)
    check_range(op, "image", image, len(rows), "rows")


def _fake_reflect(rows: torch.Tensor, kinds: Any, image: Any, normal: torch.Tensor, *_: Any) -> torch.Tensor:
    return normal.new_empty((normal.shape[0], 6))


@outside_autocast
def sample(image: torch.Tensor, uv: torch.Tensor, index: torch.Tensor, *, wrap: str = "repeat") -> torch.Tensor:
    """Sample images bilinearly at texture coordinates.

    The twin `geodiff.reference.sample` has the same name and arguments.

    Args:
        image: `(B, H, W, C)`, row 0 on top.
        uv: `(P, 2)`.
        index: `(P,)` integers, which image; empty for the first.
        wrap: what lies beyond [0, 1]: ``"repeat"``, ``"clamp"`` or ``"mirror"``.

    Returns:
        `(P, C)`.

    Gradients: in `image` and `uv`; the same bits on any number of threads. Not twice differentiable.

    Raises:
        TypeError, ValueError: wrong dtypes or shapes, or an index out of range.
        RuntimeError: for tensors on different devices, or on one that is neither the CPU nor CUDA.

    Example:
        >>> image = torch.tensor([[[[0.0], [1.0]]]])
        >>> sample(image, torch.tensor([[0.5, 0.5]]), torch.zeros(0, dtype=torch.int64))
        tensor([[0.5000]])
    """
    check_sample(image, uv, index, wrap)
    if _op.for_twin("sample", image=image, uv=uv, index=index):
        return reference.sample(image, uv, index, wrap=wrap)
    result: torch.Tensor = _op.run("sample", image, uv, index, WRAPS.index(wrap))
    return result


def _sample(image: torch.Tensor, uv: torch.Tensor, index: torch.Tensor, wrap: int) -> torch.Tensor:
    _check_texels("sample", image, uv, index)
    out = _fake_sample(image, uv)
    _, height, width, channels = image.shape
    _op.call(
        _op.kernels.texture_forward, values=image.reshape(-1, channels), uv=uv, image=index, height=height, width=width,
        wrap=wrap, out=out,
    )  # fmt: skip
    return out


def _sample_backward(
    upstream: torch.Tensor, image: torch.Tensor, uv: torch.Tensor, index: torch.Tensor, wrap: int, wants: list[bool]
) -> tuple[torch.Tensor, torch.Tensor]:
    _check_texels("sample_backward", image, uv, index)
    grad_image, grad_uv = _op.buffer(image, wants[0]), _op.buffer(uv, wants[1])
    _, height, width, channels = image.shape
    _op.call(
        _op.kernels.texture_backward, values=image.reshape(-1, channels), uv=uv, image=index, height=height,
        width=width, wrap=wrap, upstream=upstream, grad_values=grad_image, grad_uv=grad_uv,
    )  # fmt: skip
    return grad_image, grad_uv


def _check_texels(op: str, image: torch.Tensor, uv: torch.Tensor, index: torch.Tensor) -> None:
    if len(uv) and 0 in image.shape[:3]:
        raise fail(op, "image", "of one or more images of one or more texels", image)
    if max(image.shape[1:3]) >= 2**31 or len(index) not in (0, len(uv)):
        raise fail(op, "index", f"({len(uv)},), one a point, or empty for the first image", index)
    check_range(op, "index", index, len(image), "images")


def _fake_sample(image: torch.Tensor, uv: torch.Tensor, *_: Any) -> torch.Tensor:
    return image.new_empty((uv.shape[0], image.shape[3]))


@outside_autocast
def composite(alpha: torch.Tensor, color: torch.Tensor, place: torch.Tensor, background: torch.Tensor) -> torch.Tensor:
    """Compose an image of a surface's colours and a background: `alpha·color + (1 − alpha)·background`.

    The twin `geodiff.reference.composite` has the same name and arguments.

    Args:
        alpha: coverage of all pixels, `(N,)`, float32 or float64.
        color: `(P, C)`, of the pixels that see a surface; the others count as black.
        place: `(P,)` int64, ascending, no pixel twice: which pixels they are.
        background: `(K, C)`, where K divides N: pixel i has row i mod K.

    Returns:
        `(N, C)`.

    Gradients: in `alpha`, `color` and `background`; the same bits on any number of threads. Not twice differentiable.

    Raises:
        TypeError, ValueError: wrong dtypes or shapes, or places out of order or range.
        RuntimeError: for tensors on different devices, or on one that is neither the CPU nor CUDA.

    Example:
        >>> white = torch.ones(1, 3)
        >>> composite(torch.tensor([0.0, 0.25]), torch.tensor([[1.0, 0.0, 0.0]]), torch.tensor([1]), white)
        tensor([[1.0000, 1.0000, 1.0000],
                [1.0000, 0.7500, 0.7500]])
    """
    check_composite(alpha, color, place, background)
    if _op.for_twin("composite", alpha=alpha, color=color, place=place, background=background):
        return reference.composite(alpha, color, place, background)
    result: torch.Tensor = _op.run("composite", alpha, color, place, background)
    return result


def _composite(alpha: torch.Tensor, color: torch.Tensor, place: torch.Tensor, background: torch.Tensor) -> torch.Tensor:
    _check_background("composite", alpha, background)
    out = _fake_composite(alpha, color)
    met = _op.call(_op.kernels.composite_forward, alpha=alpha, color=color, place=place, background=background, out=out)
    if met != len(place):
        check_places(place, len(alpha))
    return out


def _composite_backward(
    upstream: torch.Tensor, alpha: torch.Tensor, color: torch.Tensor, place: torch.Tensor, background: torch.Tensor,
    wants: list[bool],
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:  # fmt: skip
    _check_background("composite_backward", alpha, background)
    grad_alpha, grad_color, grad_background = torch.empty_like(alpha), torch.empty_like(color), background
    met = _op.call(
        _op.kernels.composite_backward, alpha=alpha, color=color, place=place, background=background,
        upstream=upstream, grad_alpha=grad_alpha, grad_color=grad_color,
    )  # fmt: skip
    if met != len(place):
        check_places(place, len(alpha))
    if wants[2]:
        grad_background = ((1 - alpha)[:, None] * upstream).reshape(-1, *background.shape).sum(dim=0)
    return grad_alpha, grad_color, grad_background


def _check_background(op: str, alpha: torch.Tensor, background: torch.Tensor) -> None:
    if len(background) == 0 or len(alpha) % len(background):
        raise fail(op, "background", f"of a number of rows that divides {len(alpha)}", background)


def _fake_composite(alpha: torch.Tensor, color: torch.Tensor, *_: Any) -> torch.Tensor:
    return color.new_empty((alpha.shape[0], color.shape[1]))


_OF_REFLECT = {
    "rows": "B R",
    "kinds": "int32 L",
    "normal": "P 3",
    "point": "P 3",
    "image": "? int32 P",
    "upstream": "P 6",
}
_OF_SAMPLE = {"image": "B H W C", "uv": "P 2", "index": "? int32 P", "upstream": "P C"}
_OF_COMPOSITE = {"alpha": "N", "color": "P C", "place": "int64 P", "background": "K C", "upstream": "N C"}
_op.register("reflect", _reflect, _fake_reflect, _OF_REFLECT, _reflect_backward)
_op.register("sample", _sample, _fake_sample, _OF_SAMPLE, _sample_backward)
_op.register("composite", _composite, _fake_composite, _OF_COMPOSITE, _composite_backward)
