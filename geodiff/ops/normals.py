# SPDX-License-Identifier: Apache-2.0
"""Normals of vertices: argument checks, kernels, autograd and torch.compile."""

import torch

from geodiff import reference
from geodiff.modes import outside_autocast
from geodiff.ops import _op
from geodiff.reference.normals import check_corners, check_vertex_normals

_op.library.define("vertex_normals(Tensor vertices, Tensor faces) -> Tensor")
_op.library.define("vertex_normals_backward(Tensor upstream, Tensor vertices, Tensor faces) -> Tensor vertices")


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

    Gradients: in `vertices`, also twice (through the twin); the same bits on any number of threads.

    Raises:
        TypeError, ValueError: wrong dtypes or shapes, NaN, or an index out of range.
        RuntimeError: for tensors on different devices, or on one that is neither the CPU nor CUDA.

    Example:
        >>> square = torch.tensor([[0.0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0]])
        >>> vertex_normals(square, torch.tensor([[0, 1, 2], [0, 2, 3]]))[0]
        tensor([0., 0., 1.])
    """
    check_vertex_normals(vertices, faces)
    if _op.for_twin("vertex_normals", vertices=vertices, faces=faces):
        return reference.vertex_normals(vertices, faces)
    batch = vertices.reshape(vertices.shape[:-2].numel(), *vertices.shape[-2:])
    result: torch.Tensor = _op.run("vertex_normals", batch, faces)
    return result.reshape(vertices.shape)


def _forward(vertices: torch.Tensor, faces: torch.Tensor) -> torch.Tensor:
    check_corners(vertices, faces)
    out = torch.empty_like(vertices)
    _op.call(_op.kernels.vertex_normals_forward, vertices=vertices, faces=faces, out=out)
    return out


def _backward(upstream: torch.Tensor, vertices: torch.Tensor, faces: torch.Tensor) -> torch.Tensor:
    check_corners(vertices, faces)
    grad = torch.empty_like(vertices)
    _op.call(_op.kernels.vertex_normals_backward, vertices=vertices, faces=faces, upstream=upstream, grad=grad)
    return grad


def _fake(vertices: torch.Tensor, faces: torch.Tensor) -> torch.Tensor:
    return torch.empty_like(vertices)


_SHAPES = {"vertices": "B V 3", "faces": "int32 F 3", "upstream": "B V 3"}
_op.register("vertex_normals", _forward, _fake, _SHAPES, _backward, twin=reference.vertex_normals)
