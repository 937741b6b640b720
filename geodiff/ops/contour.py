# SPDX-License-Identifier: Apache-2.0
"""The contour coverage: argument checks, choice of kernel, and its place in autograd and torch.compile."""

import math
from collections.abc import Callable
from typing import Any

import torch

from geodiff import soft
from geodiff.modes import is_transformed, outside_autocast
from geodiff.ops import _op
from geodiff.ops._indices import check_indices, check_of_image
from geodiff.ops.culling import MAX_ERROR, contour_radii
from geodiff.reference.arguments import check_packed
from geodiff.reference.contour import coverage_of
from geodiff.reference.outline import edge_cycles
from geodiff.validation import fail, positive

_op.library.define(
    "contour(Tensor clip, Tensor faces, Tensor layout, Tensor edges, Tensor params, Tensor? scale, int height, "
    "int width, float near, float max_error, int distribution, bool reversed_, bool squared) "
    "-> (Tensor distance, Tensor along, Tensor nearest)"
)
_op.library.define(
    "contour_backward(Tensor upstream, Tensor clip, Tensor faces, Tensor layout, int height, int width, float near, "
    "Tensor distance, Tensor along, Tensor nearest) -> Tensor clip"
)


@outside_autocast
def contour(
    clip: torch.Tensor,
    faces: torch.Tensor,
    layout: torch.Tensor,
    *,
    distribution: "soft.Distribution | str | Callable[..., Any]" = "logistic",
    scale: float | torch.Tensor,
    image_size: tuple[int, int],
    near: float = 1e-2,
    edges: torch.Tensor | None = None,
    max_error: float = MAX_ERROR,
) -> torch.Tensor:
    """Render soft silhouettes from the outline: at each pixel the distribution of the distance to it.

    `alpha(q) = F(d(q) / scale)` with `F` the distribution and `d` the signed distance (NDC) from pixel centre `q` to
    the boundary of the union of all projected faces, positive inside. One CDF a pixel: the image depends on the shape
    that is covered and not on the triangles that cover it. A squared distribution takes `sign(d)·d²/scale`. The twin
    `geodiff.reference.contour` has the same name and arguments.

    Args:
        clip: vertices of all images `(x·w, y·w, depth, w)`, `(N, 4)`, float32 or float64; see `Camera.to_clip`.
        faces: corners of all faces, `(F, 3)`, indices local to the image's mesh.
        layout: one row `[vertex_start, face_start, face_count]` an image, `(B, 3)`; images share no vertices.
        distribution: an object, also of a class of your own, or a name of `geodiff.soft`.
        scale: τ > 0, NDC, or NDC² for a squared distribution; a number or a tensor without axes.
        image_size: `(H, W)`.
        near: depth of the near plane, positive.
        edges: which sides of faces lie on one edge, `(F, 3)` int32, see `geodiff.reference.edge_cycles`; found here
            if left out (`mesh.topology.edge_cycles` keeps it).
        max_error: pixels so far from the outline that alpha changes by no more than this get 0 or 1.

    Returns:
        alpha in [0, 1], `(B, H, W)`.

    Gradients: in `clip`, through the nearest point of the outline (the two ends of its edge, or where two edges cross
    there, the four ends of both), in `scale` and in the distribution's parameters. Deterministic: the same bits on any
    number of threads. alpha jumps where a hole, a slit or an island vanishes, and no gradient knows of it. Not twice
    differentiable in `clip`.

    Raises:
        TypeError: for a wrong dtype or class.
        ValueError: for a wrong shape, a value out of range, NaN or infinity.
        RuntimeError: for tensors on different devices, or on one that is neither the CPU nor CUDA.

    Example:
        >>> clip = torch.tensor([[-3.0, -3.0, 2.0, 1.0], [3.0, -3.0, 2.0, 1.0], [0.0, 3.0, 2.0, 1.0]])
        >>> one = torch.tensor([[0, 1, 2]]), torch.tensor([[0, 0, 1]])
        >>> contour(clip, *one, scale=0.5, image_size=(1, 1))
        tensor([[[0.9360]]])
    """
    distribution = soft.as_distribution(distribution)
    check_packed("contour", clip, faces, layout, image_size, near, indices=False)
    _op.check_devices("contour", ("clip", "faces", "layout"), (clip, faces, layout))
    positive("contour", "scale", scale, "It is a length in NDC (an area for a squared distribution).")
    if not 0 <= max_error < 1:
        raise fail("contour", "max_error", "in [0, 1)", max_error, "It bounds the error of alpha.")
    if isinstance(scale, torch.Tensor) and not _op.on_host(scale):  # where nobody looks
        scale = torch.where(scale > 0, scale, torch.nan)
    if edges is None:
        edges = edge_cycles(faces, layout)
    elif edges.shape != faces.shape or edges.dtype != torch.int32:
        raise fail("contour", "edges", f"int32 of shape {tuple(faces.shape)}", edges, "Use reference.edge_cycles.")
    distance, _, _ = nearest_outline(
        clip, faces, layout, edges, distribution, scale, image_size=image_size, near=near, max_error=max_error
    )
    if torch.compiler.is_compiling() or is_transformed(distance) or not _op.on_host(distance):
        return coverage_of(distance, distribution, scale)
    return _coverage_near(distance, distribution, scale)


def nearest_outline(
    clip: torch.Tensor,
    faces: torch.Tensor,
    layout: torch.Tensor,
    edges: torch.Tensor,
    distribution: soft.Distribution,
    scale: float | torch.Tensor,
    *,
    image_size: tuple[int, int],
    near: float,
    max_error: float,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Find the nearest point of the outline to each pixel within reach of it; arguments as of `contour`, unchecked.

    Returns:
        The signed distance (B, H, W), ±infinity out of reach; how far along its edge the point is (B, H, W), in the
        image; and (B, H, W, 2) the edge, 4·face + number, or −1, and what the point is: −1 within the edge, −2 an end
        of it, else the edge that crosses there.
    """
    number = -1 if distribution.kernel_id is None else distribution.kernel_id
    form = (number, distribution.is_reversed, distribution.is_squared)
    scale, there = _op.left_there("contour", "scale", scale, clip)
    there = None if there is None else there.detach()
    model = (_params(distribution, scale), there, *image_size, near, max_error, *form)
    found: tuple[torch.Tensor, torch.Tensor, torch.Tensor] = _op.run("contour", clip, faces, layout, edges, *model)
    return found


def _coverage_near(distance: torch.Tensor, distribution: soft.Distribution, scale: Any) -> torch.Tensor:
    """`coverage_of` where most pixels are far from the outline: F of the others alone."""
    flat = distance.detach().reshape(-1)
    near = flat.isfinite().nonzero()[:, 0]
    if 2 * len(near) > len(flat):
        return coverage_of(distance, distribution, scale)
    # So few at a time that torch does not share them out: the ends of a thread's part round otherwise.
    parts = distance.reshape(-1).index_select(0, near).split(1 << 14)
    values = torch.cat([coverage_of(part, distribution, scale) for part in parts])
    return (flat > 0).to(values).index_copy(0, near, values).reshape(distance.shape)


def _params(distribution: soft.Distribution, scale: Any) -> torch.Tensor:
    values = [0.0 if value is None else value for value in (scale, distribution.shape, distribution.shift)]
    if not any(isinstance(value, torch.Tensor) for value in values):
        return torch.tensor(values, dtype=torch.float64, device="cpu")
    return torch.stack([torch.as_tensor(value, dtype=torch.float64).detach().reshape(()).cpu() for value in values])


def _forward(
    clip: torch.Tensor, faces: torch.Tensor, layout: torch.Tensor, edges: torch.Tensor, params: torch.Tensor,
    scale: torch.Tensor | None, height: int, width: int, near: float, max_error: float, distribution: int,
    reversed_: bool, squared: bool,
) -> tuple[torch.Tensor, ...]:  # fmt: skip
    check_indices("contour", clip, faces, layout)
    distance, along, nearest = out = _fake(clip, faces, layout, edges, params, scale, height, width)
    numbers = params.tolist()
    there: dict[str, Any] = {}
    if scale is not None and _op.on_host(scale):
        numbers[0] *= float(scale)
    elif scale is not None:
        there = {"unit": scale.sqrt() if squared else scale}
    if not all(map(math.isfinite, numbers)) or numbers[0] <= 0:
        raise fail("contour", "params", "finite, with a positive scale", str(numbers))
    outside, inside = contour_radii(distribution, reversed_, squared, *numbers, max_error)
    _op.call(
        _op.kernels.contour_forward, clip=clip, faces=faces, layout=layout, edges=edges, height=height, width=width,
        near=near, radius_outside=outside, radius_inside=inside, distance=distance, along=along, nearest=nearest,
        **there,
    )  # fmt: skip
    return out


def _backward(
    upstream: torch.Tensor, clip: torch.Tensor, faces: torch.Tensor, layout: torch.Tensor, height: int, width: int,
    near: float, distance: torch.Tensor, along: torch.Tensor, nearest: torch.Tensor,
) -> torch.Tensor:  # fmt: skip
    check_indices("contour_backward", clip, faces, layout)
    check_of_image("contour_backward", "nearest", nearest, (4 * layout[:, 2]).tolist(), least=-2)
    grad_clip = torch.empty_like(clip)
    _op.call(
        _op.kernels.contour_backward, clip=clip, faces=faces, layout=layout, height=height, width=width, near=near,
        distance=distance, along=along, nearest=nearest, upstream=upstream, grad_clip=grad_clip,
    )  # fmt: skip
    return grad_clip


def _fake(
    clip: torch.Tensor, faces: torch.Tensor, layout: torch.Tensor, edges: Any, params: Any, scale: Any, height: int,
    width: int, *_: Any,
) -> tuple[torch.Tensor, ...]:  # fmt: skip
    shape = (layout.shape[0], height, width)
    return clip.new_empty(shape), clip.new_empty(shape), faces.new_empty((*shape, 2), dtype=torch.int32)


_SHAPES = {
    "clip": "N 4",
    "faces": "int32 F 3",
    "layout": "int64 B 3",
    "edges": "int32 F 3",
    "params": "float64 3",
    "scale": "? float64",
    "upstream": "B height width",
    "distance": "B height width",
    "along": "B height width",
    "nearest": "int32 B height width 2",
}
_op.register("contour", _forward, _fake, _SHAPES, _backward)
