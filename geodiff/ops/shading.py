# SPDX-License-Identifier: Apache-2.0
"""Light at points, samples of textures, images composed of colours: checks, kernels, autograd and torch.compile."""

from typing import Any

import torch

from geodiff import reference
from geodiff.modes import outside_autocast
from geodiff.native import cpu
from geodiff.ops import _op
from geodiff.ops.derivatives import refuse_second
from geodiff.reference.shading import HEAD, LIGHT, WRAPS, check_composite, check_places, check_reflect, check_sample
from geodiff.validation import fail

_library = torch.library.Library("geodiff", "FRAGMENT")
_ARGUMENTS = "Tensor rows, Tensor kinds, Tensor image, Tensor normal, Tensor point, bool parallel_view, bool glossy"
_library.define(f"reflect({_ARGUMENTS}) -> Tensor")
_library.define(f"reflect_backward(Tensor upstream, {_ARGUMENTS}) -> (Tensor, Tensor, Tensor)")
_library.define("sample(Tensor image, Tensor uv, Tensor index, int wrap) -> Tensor")
_library.define(
    "sample_backward(Tensor upstream, Tensor image, Tensor uv, Tensor index, int wrap, bool want_image, bool want_uv) "
    "-> (Tensor, Tensor)"
)
_library.define("composite(Tensor alpha, Tensor color, Tensor place, Tensor background) -> Tensor")
_library.define(
    "composite_backward(Tensor upstream, Tensor alpha, Tensor color, Tensor place, Tensor background) "
    "-> (Tensor, Tensor)"
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
    Tensors that are not on the CPU are passed on to the twin.

    Raises:
        TypeError, ValueError: wrong dtypes or shapes, or an image out of range.

    Example:
        >>> row = torch.tensor([[0.0, 0, 1, 8, 0.1, 0.1, 0.1, 0, 0, 1, 0.5, 0.5, 0.5, 1, 1, 1, 1, 0, 0]])
        >>> one = torch.zeros(1, dtype=torch.int32)
        >>> up = torch.tensor([[0.0, 0.0, 2.0]])
        >>> reflect(row, one, one[:0], up, 0 * up, parallel_view=True)
        tensor([[0.6000, 0.6000, 0.6000, 1.0000, 1.0000, 1.0000]])
    """
    check_reflect(rows, kinds, image, normal, point)
    if _op.for_twin(rows, normal, point):
        return reference.reflect(rows, kinds, image, normal, point, parallel_view=parallel_view, glossy=glossy)
    result: torch.Tensor = torch.ops.geodiff.reflect(
        rows.contiguous(),
        _op.int32(kinds),
        _op.int32(image),
        normal.contiguous(),
        point.contiguous(),
        parallel_view,
        glossy,
    )
    return result


def _forward(
    rows: torch.Tensor,
    kinds: torch.Tensor,
    image: torch.Tensor,
    normal: torch.Tensor,
    point: torch.Tensor,
    parallel_view: bool,
    glossy: bool,
) -> torch.Tensor:
    _check_lights("reflect", rows, kinds, image, len(normal))
    out = normal.new_empty((len(normal), 6))
    cpu.extension().reflect_forward(
        rows.detach().numpy(),
        kinds.numpy(),
        image.numpy(),
        normal.detach().numpy(),
        point.detach().numpy(),
        parallel_view,
        glossy,
        out.numpy(),
        cpu.threads(),
    )
    return out


def _backward(
    upstream: torch.Tensor,
    rows: torch.Tensor,
    kinds: torch.Tensor,
    image: torch.Tensor,
    normal: torch.Tensor,
    point: torch.Tensor,
    parallel_view: bool,
    glossy: bool,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    _check_lights("reflect_backward", rows, kinds, image, len(normal))
    grad_rows = torch.zeros(rows.shape, dtype=torch.float64)
    grad_normal, grad_point = torch.empty_like(normal), torch.empty_like(point)
    cpu.extension().reflect_backward(
        rows.detach().numpy(),
        kinds.numpy(),
        image.numpy(),
        normal.detach().numpy(),
        point.detach().numpy(),
        parallel_view,
        glossy,
        upstream.detach().contiguous().numpy(),
        grad_normal.numpy(),
        grad_point.numpy(),
        grad_rows.numpy(),
        cpu.threads(),
    )
    return grad_rows.to(rows.dtype), grad_normal, grad_point


def _check_lights(op: str, rows: torch.Tensor, kinds: torch.Tensor, image: torch.Tensor, points: int) -> None:
    if rows.shape[1] != HEAD + LIGHT * len(kinds):
        raise fail(op, "rows", f"of {HEAD + LIGHT * len(kinds)} columns for {len(kinds)} lights", rows)
    if len(image) != points and (len(rows) != 1 or len(image)):
        raise fail(op, "image", f"({points},), one a point, or empty with one row", image)
    _op.check_range(op, "image", image, len(rows), "rows")


def _fake(rows: torch.Tensor, kinds: Any, image: Any, normal: torch.Tensor, *_: Any) -> torch.Tensor:
    return normal.new_empty((normal.shape[0], 6))


def _fake_backward(
    upstream: Any, rows: torch.Tensor, kinds: Any, image: Any, normal: torch.Tensor, point: torch.Tensor, *_: Any
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    return torch.empty_like(rows), torch.empty_like(normal), torch.empty_like(point)


def _setup(ctx: Any, inputs: tuple[Any, ...], output: torch.Tensor) -> None:
    *tensors, ctx.parallel_view, ctx.glossy = inputs
    ctx.save_for_backward(*tensors)


def _autograd(ctx: Any, upstream: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
    grads = torch.ops.geodiff.reflect_backward(upstream, *ctx.saved_tensors, ctx.parallel_view, ctx.glossy)
    return grads[0], None, None, grads[1], grads[2], None, None


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

    Gradients: in `image` and `uv`; the same bits on any number of threads. Not twice differentiable. Tensors that are
    not on the CPU are passed on to the twin.

    Raises:
        TypeError, ValueError: wrong dtypes or shapes, or an index out of range.

    Example:
        >>> image = torch.tensor([[[[0.0], [1.0]]]])
        >>> sample(image, torch.tensor([[0.5, 0.5]]), torch.zeros(0, dtype=torch.int64))
        tensor([[0.5000]])
    """
    check_sample(image, uv, index, wrap)
    if _op.for_twin(image, uv):
        return reference.sample(image, uv, index, wrap=wrap)
    result: torch.Tensor = torch.ops.geodiff.sample(
        image.contiguous(), uv.contiguous(), _op.int32(index), WRAPS.index(wrap)
    )
    return result


def _sample(image: torch.Tensor, uv: torch.Tensor, index: torch.Tensor, wrap: int) -> torch.Tensor:
    _check_texels("sample", image, uv, index)
    out = _fake_sample(image, uv)
    rows = image.detach().reshape(-1, image.shape[3])
    size = (image.shape[1], image.shape[2], wrap)
    cpu.extension().texture_forward(rows.numpy(), uv.detach().numpy(), index.numpy(), *size, out.numpy(), cpu.threads())
    return out


def _sample_backward(
    upstream: torch.Tensor,
    image: torch.Tensor,
    uv: torch.Tensor,
    index: torch.Tensor,
    wrap: int,
    want_image: bool,
    want_uv: bool,
) -> tuple[torch.Tensor, torch.Tensor]:
    _check_texels("sample_backward", image, uv, index)
    grad_image = image.new_zeros(image.shape if want_image else (0,))
    grad_uv = uv.new_empty(uv.shape if want_uv else (0,))
    cpu.extension().texture_backward(
        image.detach().reshape(-1, image.shape[3]).numpy(),
        uv.detach().numpy(),
        index.numpy(),
        image.shape[1],
        image.shape[2],
        wrap,
        upstream.detach().contiguous().numpy(),
        grad_image.numpy(),
        grad_uv.numpy(),
        cpu.threads(),
    )
    return grad_image, grad_uv


def _check_texels(op: str, image: torch.Tensor, uv: torch.Tensor, index: torch.Tensor) -> None:
    if len(uv) and 0 in image.shape[:3]:
        raise fail(op, "image", "of one or more images of one or more texels", image)
    if max(image.shape[1:3]) >= 2**31 or len(index) not in (0, len(uv)):
        raise fail(op, "index", f"({len(uv)},), one a point, or empty for the first image", index)
    _op.check_range(op, "index", index, len(image), "images")


def _fake_sample(image: torch.Tensor, uv: torch.Tensor, *_: Any) -> torch.Tensor:
    return image.new_empty((uv.shape[0], image.shape[3]))


def _fake_sample_backward(
    upstream: Any, image: torch.Tensor, uv: torch.Tensor, index: Any, wrap: int, want_image: bool, want_uv: bool
) -> tuple[torch.Tensor, torch.Tensor]:
    return image.new_empty(image.shape if want_image else (0,)), uv.new_empty(uv.shape if want_uv else (0,))


def _setup_sample(ctx: Any, inputs: tuple[Any, ...], output: torch.Tensor) -> None:
    *tensors, ctx.wrap = inputs
    ctx.save_for_backward(*tensors)


def _autograd_sample(ctx: Any, upstream: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
    want = ctx.needs_input_grad[:2]
    image, uv = torch.ops.geodiff.sample_backward(upstream, *ctx.saved_tensors, ctx.wrap, *want)
    return image if want[0] else None, uv if want[1] else None, None, None


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
    Tensors that are not on the CPU are passed on to the twin.

    Raises:
        TypeError, ValueError: wrong dtypes or shapes, or places out of order or range.

    Example:
        >>> white = torch.ones(1, 3)
        >>> composite(torch.tensor([0.0, 0.25]), torch.tensor([[1.0, 0.0, 0.0]]), torch.tensor([1]), white)
        tensor([[1.0000, 1.0000, 1.0000],
                [1.0000, 0.7500, 0.7500]])
    """
    check_composite(alpha, color, place, background)
    if _op.for_twin(alpha, color, background):
        return reference.composite(alpha, color, place, background)
    tensors = (alpha.contiguous(), color.contiguous(), place.contiguous(), background.contiguous())
    result: torch.Tensor = torch.ops.geodiff.composite(*tensors)
    return result


def _composite(alpha: torch.Tensor, color: torch.Tensor, place: torch.Tensor, background: torch.Tensor) -> torch.Tensor:
    _check_background("composite", alpha, background)
    out = _fake_composite(alpha, color)
    tensors = (alpha.detach().numpy(), color.detach().numpy(), place.numpy(), background.detach().numpy())
    if cpu.extension().composite_forward(*tensors, out.numpy(), cpu.threads()) != len(place):
        check_places(place, len(alpha))
    return out


def _composite_backward(
    upstream: torch.Tensor, alpha: torch.Tensor, color: torch.Tensor, place: torch.Tensor, background: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    _check_background("composite_backward", alpha, background)
    grads = _fake_composite_backward(upstream, alpha, color)
    tensors = (alpha.detach().numpy(), color.detach().numpy(), place.numpy(), background.detach().numpy())
    up = upstream.detach().contiguous().numpy()
    met = cpu.extension().composite_backward(*tensors, up, grads[0].numpy(), grads[1].numpy(), cpu.threads())
    if met != len(place):
        check_places(place, len(alpha))
    return grads


def _check_background(op: str, alpha: torch.Tensor, background: torch.Tensor) -> None:
    if len(background) == 0 or len(alpha) % len(background):
        raise fail(op, "background", f"of a number of rows that divides {len(alpha)}", background)


def _fake_composite(alpha: torch.Tensor, color: torch.Tensor, *_: Any) -> torch.Tensor:
    return color.new_empty((alpha.shape[0], color.shape[1]))


def _fake_composite_backward(
    upstream: Any, alpha: torch.Tensor, color: torch.Tensor, *_: Any
) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.empty_like(alpha), torch.empty_like(color)


def _setup_composite(ctx: Any, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
    ctx.save_for_backward(*inputs)


def _autograd_composite(ctx: Any, upstream: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
    alpha, color, place, background = ctx.saved_tensors
    of_background = None
    if ctx.needs_input_grad[3]:
        of_background = ((1 - alpha)[:, None] * upstream).reshape(-1, *background.shape).sum(dim=0)
    grads = torch.ops.geodiff.composite_backward(upstream, alpha, color, place, background)
    return grads[0], grads[1], None, of_background


_op.implement(
    _library,
    "reflect",
    _forward,
    {"rows": "B R", "kinds": "int32 L", "normal": "P 3", "point": "P 3", "image": "? int32 P"},
)
_op.implement(
    _library,
    "reflect_backward",
    _backward,
    {"rows": "B R", "kinds": "int32 L", "normal": "P 3", "point": "P 3", "image": "? int32 P", "upstream": "P 6"},
)
torch.library.register_fake("geodiff::reflect", _fake, lib=_library)
torch.library.register_fake("geodiff::reflect_backward", _fake_backward, lib=_library)
_op.autograd(_library, "reflect", _autograd, _setup)
refuse_second(_library, "reflect")
_op.implement(_library, "sample", _sample, {"image": "B H W C", "uv": "P 2", "index": "? int32 P"})
_op.implement(
    _library,
    "sample_backward",
    _sample_backward,
    {"image": "B H W C", "uv": "P 2", "index": "? int32 P", "upstream": "P C"},
)
torch.library.register_fake("geodiff::sample", _fake_sample, lib=_library)
torch.library.register_fake("geodiff::sample_backward", _fake_sample_backward, lib=_library)
_op.autograd(_library, "sample", _autograd_sample, _setup_sample)
refuse_second(_library, "sample")
_op.implement(
    _library, "composite", _composite, {"alpha": "N", "color": "P C", "place": "int64 P", "background": "K C"}
)
_op.implement(
    _library,
    "composite_backward",
    _composite_backward,
    {"alpha": "N", "color": "P C", "place": "int64 P", "background": "K C", "upstream": "N C"},
)
torch.library.register_fake("geodiff::composite", _fake_composite, lib=_library)
torch.library.register_fake("geodiff::composite_backward", _fake_composite_backward, lib=_library)
_op.autograd(_library, "composite", _autograd_composite, _setup_composite)
refuse_second(_library, "composite")
