# SPDX-License-Identifier: Apache-2.0
"""Normals of vertices: argument checks, kernels, autograd and torch.compile."""

from typing import Any

import torch

from geodiff import reference
from geodiff.modes import outside_autocast
from geodiff.native import cpu
from geodiff.ops import _op
from geodiff.reference.normals import check_corners, check_vertex_normals

_library = torch.library.Library("geodiff", "FRAGMENT")
_library.define("vertex_normals(Tensor vertices, Tensor faces) -> Tensor")
_library.define("vertex_normals_backward(Tensor upstream, Tensor vertices, Tensor faces) -> Tensor")


@outside_autocast
def vertex_normals(vertices: torch.Tensor, faces: torch.Tensor) -> torch.Tensor:
    """Return unit vertex normals: the sum of the surrounding faces' normals weighted by their areas, normalised.

    The twin `geodiff.reference.vertex_normals` has the same name and arguments.

    Args:
        vertices: `(..., V, 3)`, float32 or float64.
        faces: `(F, 3)` integers.

    Returns:
        `(..., V, 3)`. A vertex in no face, or whose faces cancel (but for rounding) or have no area, has normal 0 with
        gradient 0.

    Gradients: in `vertices`, also twice; the same bits on any number of threads. Tensors that are not on the CPU are
    passed on to the twin.

    Raises:
        TypeError, ValueError: wrong dtypes or shapes, NaN, or an index out of range.

    Example:
        >>> square = torch.tensor([[0.0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0]])
        >>> vertex_normals(square, torch.tensor([[0, 1, 2], [0, 2, 3]]))[0]
        tensor([0., 0., 1.])
    """
    check_vertex_normals(vertices, faces)
    if _op.for_twin(vertices):
        return reference.vertex_normals(vertices, faces)
    batch = vertices.reshape(vertices.shape[:-2].numel(), *vertices.shape[-2:])
    result: torch.Tensor = torch.ops.geodiff.vertex_normals(batch.contiguous(), _op.int32(faces))
    return result.reshape(vertices.shape)


def _forward(vertices: torch.Tensor, faces: torch.Tensor) -> torch.Tensor:
    check_corners(vertices, faces)
    out = torch.empty_like(vertices)
    cpu.extension().vertex_normals_forward(vertices.detach().numpy(), faces.numpy(), out.numpy(), cpu.threads())
    return out


def _backward(upstream: torch.Tensor, vertices: torch.Tensor, faces: torch.Tensor) -> torch.Tensor:
    check_corners(vertices, faces)
    grad = torch.empty_like(vertices)
    up = upstream.detach().contiguous().numpy()
    cpu.extension().vertex_normals_backward(vertices.detach().numpy(), faces.numpy(), up, grad.numpy(), cpu.threads())
    return grad


def _fake(vertices: torch.Tensor, faces: torch.Tensor) -> torch.Tensor:
    return torch.empty_like(vertices)


def _fake_backward(upstream: torch.Tensor, vertices: torch.Tensor, faces: torch.Tensor) -> torch.Tensor:
    return torch.empty_like(vertices)


def _setup(ctx: Any, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
    ctx.save_for_backward(*inputs)


def _autograd(ctx: Any, upstream: torch.Tensor) -> tuple[torch.Tensor | None, None]:
    vertices, faces = ctx.saved_tensors
    grad: torch.Tensor = torch.ops.geodiff.vertex_normals_backward(upstream, vertices, faces)
    return grad, None


def _setup_backward(ctx: Any, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
    ctx.save_for_backward(*inputs)


def _autograd_backward(ctx: Any, upstream: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
    """Differentiate the gradient once more, as the twin's."""
    grad, vertices, faces = ctx.saved_tensors
    with torch.enable_grad():
        grad, vertices = grad.detach().requires_grad_(), vertices.detach().requires_grad_()
        normals = reference.vertex_normals(vertices, faces)
        (first,) = torch.autograd.grad(normals, vertices, grad, create_graph=True)
        by_grad, by_vertices = torch.autograd.grad(first, (grad, vertices), upstream, allow_unused=True)
    return by_grad, by_vertices, None


_op.implement(_library, "vertex_normals", _forward, {"vertices": "B V 3", "faces": "int32 F 3"})
_op.implement(
    _library, "vertex_normals_backward", _backward, {"vertices": "B V 3", "faces": "int32 F 3", "upstream": "B V 3"}
)
torch.library.register_fake("geodiff::vertex_normals", _fake, lib=_library)
torch.library.register_fake("geodiff::vertex_normals_backward", _fake_backward, lib=_library)
_op.autograd(_library, "vertex_normals", _autograd, _setup)
_op.autograd(_library, "vertex_normals_backward", _autograd_backward, _setup_backward)
