# SPDX-License-Identifier: Apache-2.0
"""Light at points of surfaces: argument checks, kernel, autograd and torch.compile."""

from typing import Any

import torch

from geodiff import reference
from geodiff.native import cpu
from geodiff.reference.shading import check_reflect
from geodiff.validation import fail

_library = torch.library.Library("geodiff", "FRAGMENT")
_ARGUMENTS = "Tensor rows, Tensor kinds, Tensor image, Tensor normal, Tensor point, bool parallel_view, bool glossy"
_library.define(f"reflect({_ARGUMENTS}) -> Tensor")
_library.define(f"reflect_backward(Tensor upstream, {_ARGUMENTS}) -> (Tensor, Tensor, Tensor)")


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
    if rows.device.type != "cpu":
        return reference.reflect(rows, kinds, image, normal, point, parallel_view=parallel_view, glossy=glossy)
    result: torch.Tensor = torch.ops.geodiff.reflect(
        rows.contiguous(),
        kinds.to(torch.int32).contiguous(),
        image.to(torch.int32).contiguous(),
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
    if len(image) and not 0 <= int(image.min()) <= int(image.max()) < len(rows):
        got = f"from {int(image.min())} to {int(image.max())}"
        raise fail("reflect", "image", f"in [0, {len(rows)})", got, "It names rows.")
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


def _refuse(ctx: Any, *_: Any) -> None:
    raise RuntimeError(
        "geodiff::reflect is not twice differentiable. For second derivatives use geodiff.reference.reflect, which is "
        "plain torch."
    )


_library.impl("reflect", _forward, "CPU")
_library.impl("reflect_backward", _backward, "CPU")
torch.library.register_fake("geodiff::reflect", _fake, lib=_library)
torch.library.register_fake("geodiff::reflect_backward", _fake_backward, lib=_library)
torch.library.register_autograd("geodiff::reflect", _autograd, setup_context=_setup, lib=_library)
torch.library.register_autograd("geodiff::reflect_backward", _refuse, lib=_library)
