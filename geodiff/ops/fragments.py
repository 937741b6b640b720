# SPDX-License-Identifier: Apache-2.0
"""The k faces that a pixel sees, and rows blended by weights: argument checks, kernels, autograd, torch.compile."""

from typing import Any

import torch

from geodiff import reference
from geodiff.modes import outside_autocast
from geodiff.native import cpu
from geodiff.ops import _op
from geodiff.ops.derivatives import refuse_second
from geodiff.reference.arguments import check_indices, check_packed
from geodiff.reference.fragments import ORDERS, Fragments, Ranking, check_blend, check_fragments
from geodiff.validation import fail

_WEIGHT = ORDERS.index("weight")
_library = torch.library.Library("geodiff", "FRAGMENT")
_library.define(
    "fragments(Tensor clip, Tensor faces, Tensor layout, Tensor table, Tensor sharpness, int k, int height, int width, "
    "float near, float blur, int order, float unit) -> (Tensor, Tensor, Tensor, Tensor)"
)
_library.define(
    "fragments_backward(Tensor up_distance, Tensor up_barycentric, Tensor up_depth, Tensor clip, Tensor faces, "
    "Tensor layout, Tensor face_id, Tensor distance, int height, int width, float near) -> Tensor"
)
_library.define("blend(Tensor values, Tensor index, Tensor weight) -> Tensor")
_library.define(
    "blend_backward(Tensor upstream, Tensor values, Tensor index, Tensor weight, bool want_values, bool want_weight) "
    "-> (Tensor, Tensor)"
)


@outside_autocast
def fragments(
    clip: torch.Tensor,
    faces: torch.Tensor,
    layout: torch.Tensor,
    *,
    k: int = 1,
    blur: float = 0.0,
    image_size: tuple[int, int],
    near: float = 1e-2,
    order: str = "depth",
    ranking: Ranking | None = None,
) -> Fragments:
    """Find k faces for every pixel: those that cover its centre, and those at most `blur` away from it in the image.

    A face is seen in the point of it that is nearest to the pixel centre in the image: where the face covers the
    centre (edges included, from either side), right there. The twin `geodiff.reference.fragments` has the same name and
    arguments, and says more of them.

    Args:
        clip: vertices of all images `(x·w, y·w, depth, w)`, `(N, 4)`, float32 or float64; see `Camera.to_clip`.
        faces: corners of all faces, `(F, 3)`, indices local to the image's mesh.
        layout: one row `[vertex_start, face_start, face_count]` an image, `(B, 3)`; images share no vertices.
        k: how many faces a pixel keeps.
        blur: NDC; 0 keeps only faces that cover the pixel centre; may be infinite.
        image_size: `(H, W)`.
        near: depth of the near plane, positive.
        order: ``"depth"``, ``"visible"`` or ``"weight"``: which k faces, and in which order.
        ranking: for ``"weight"``.

    Returns:
        `face_id` `(B, H, W, k)` int64, −1 where there is none; `distance`, `depth` `(B, H, W, k)`; `barycentric`
        `(B, H, W, k, 3)`.

    Gradients: of distance, barycentrics and depth in `clip`, at fixed `face_id`. The same bits on any number of
    threads. Not twice differentiable.

    Raises:
        TypeError: for a wrong dtype or class.
        ValueError: for a wrong shape, a value out of range, NaN or infinity.
        RuntimeError: for tensors that are not on the CPU.

    Example:
        >>> clip = torch.tensor([[-1.0, -1.0, 2.0, 1.0], [0.0, -1.0, 2.0, 1.0], [-1.0, 1.0, 2.0, 1.0]])
        >>> one = torch.tensor([[0, 1, 2]]), torch.tensor([[0, 0, 1]])
        >>> fragments(clip, *one, blur=0.5, image_size=(1, 1)).barycentric
        tensor([[[[[0.0000, 0.6000, 0.4000]]]]])
    """
    check_packed("fragments", clip, faces, layout, image_size, near, indices=False)
    check_fragments("fragments", clip, layout, k, blur, order, ranking)
    if clip.device.type != "cpu":
        fix = "Use .cpu()."
        raise fail("fragments", "clip", "on the CPU (GPU kernels are not released yet)", clip.device, fix, RuntimeError)
    if image_size[0] * image_size[1] * k >= 2**31:
        raise fail("fragments", "k", "such that H·W·k < 2³¹", k, "Keep fewer fragments, or render smaller images.")
    table = clip.new_zeros(2) if ranking is None else ranking.table.detach().to(clip.dtype).contiguous()
    sharpness = clip.new_zeros(0) if ranking is None else ranking.sharpness.detach().to(clip.dtype).contiguous()
    distance, barycentric, depth, face_id = torch.ops.geodiff.fragments(
        clip.contiguous(),
        _op.int32(faces),
        layout.to(torch.int64).contiguous(),
        table,
        sharpness,
        k,
        *image_size,
        near,
        float(blur),
        ORDERS.index(order),
        1.0 if ranking is None else float(ranking.unit),
    )
    return Fragments(face_id, distance, barycentric, depth)


def _forward(
    clip: torch.Tensor,
    faces: torch.Tensor,
    layout: torch.Tensor,
    table: torch.Tensor,
    sharpness: torch.Tensor,
    k: int,
    height: int,
    width: int,
    near: float,
    blur: float,
    order: int,
    unit: float,
) -> tuple[torch.Tensor, ...]:
    check_indices("fragments", clip, faces, layout)
    check_fragments(
        "fragments", clip, layout, k, blur, ORDERS[order], None if order != _WEIGHT else Ranking(table, unit, sharpness)
    )
    if len(table) < 2:
        raise fail("fragments", "table", "of two entries or more", table)
    distance, barycentric, depth, face_id = _fake(clip, faces, layout, table, sharpness, k, height, width)
    cpu.extension().fragments_forward(
        clip.detach().numpy(),
        faces.numpy(),
        layout.numpy(),
        height,
        width,
        near,
        order,
        blur,
        table.numpy(),
        unit,
        sharpness.numpy(),
        face_id.numpy(),
        distance.numpy(),
        barycentric.numpy(),
        depth.numpy(),
        cpu.threads(),
    )
    return distance, barycentric, depth, face_id


def _backward(
    up_distance: torch.Tensor,
    up_barycentric: torch.Tensor,
    up_depth: torch.Tensor,
    clip: torch.Tensor,
    faces: torch.Tensor,
    layout: torch.Tensor,
    face_id: torch.Tensor,
    distance: torch.Tensor,
    height: int,
    width: int,
    near: float,
) -> torch.Tensor:
    check_indices("fragments_backward", clip, faces, layout)
    _op.check_of_image("fragments_backward", "face_id", face_id, layout[:, 2].tolist())
    grad_clip = torch.zeros_like(clip)
    cpu.extension().fragments_backward(
        clip.detach().numpy(),
        faces.numpy(),
        layout.numpy(),
        height,
        width,
        near,
        face_id.numpy(),
        distance.detach().numpy(),
        *(up.detach().contiguous().numpy() for up in (up_distance, up_barycentric, up_depth)),
        grad_clip.numpy(),
        cpu.threads(),
    )
    return grad_clip


def _fake(
    clip: torch.Tensor,
    faces: torch.Tensor,
    layout: torch.Tensor,
    table: torch.Tensor,
    sharpness: torch.Tensor,
    k: int,
    height: int,
    width: int,
    *_: Any,
) -> tuple[torch.Tensor, ...]:
    shape = (layout.shape[0], height, width, k)
    face_id = layout.new_empty(shape, dtype=torch.int64)
    return clip.new_empty(shape), clip.new_empty((*shape, 3)), clip.new_empty(shape), face_id


def _fake_backward(up_distance: Any, up_barycentric: Any, up_depth: Any, clip: torch.Tensor, *_: Any) -> torch.Tensor:
    return torch.empty_like(clip)


def _setup(ctx: Any, inputs: tuple[Any, ...], output: tuple[torch.Tensor, ...]) -> None:
    clip, faces, layout, _, _, _, height, width, near, *_ = inputs
    distance, _, _, face_id = output
    ctx.mark_non_differentiable(face_id)
    ctx.save_for_backward(clip, faces, layout, face_id, distance)
    ctx.size = (height, width, near)
    ctx.set_materialize_grads(False)


def _autograd(ctx: Any, *upstream: torch.Tensor | None) -> tuple[torch.Tensor | None, ...]:
    none = ctx.saved_tensors[0].new_zeros(0)  # where the loss does not look
    given = (none if up is None else up for up in upstream[:3])
    grad_clip = torch.ops.geodiff.fragments_backward(*given, *ctx.saved_tensors, *ctx.size)
    return (grad_clip, *(None,) * 11)


@outside_autocast
def blend(values: torch.Tensor, index: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """Blend rows by weights: `out_p = Σ_j weight_pj · values[index_pj]`.

    Attributes of corners at barycentrics are one use, texels at texture coordinates another. The twin is
    `geodiff.reference.blend`.

    Args:
        values: rows `(N, C)`, float32 or float64.
        index: which rows, `(P, J)`, integers in [0, N).
        weight: `(P, J)`, of the dtype of `values`.

    Returns:
        `(P, C)`.

    Gradients: in `values` and `weight`; the same bits on any number of threads. Not twice differentiable.
    Tensors that are not on the CPU are passed on to the twin.

    Raises:
        TypeError, ValueError: wrong dtypes or shapes, or an index out of range.

    Example:
        >>> blend(torch.tensor([[0.0], [8.0]]), torch.tensor([[0, 1]]), torch.tensor([[0.75, 0.25]]))
        tensor([[2.]])
    """
    check_blend(values, index, weight)
    if _op.for_twin(values, weight):
        return reference.blend(values, index, weight)
    result: torch.Tensor = torch.ops.geodiff.blend(values.contiguous(), _op.int32(index), weight.contiguous())
    return result


def _blend(values: torch.Tensor, index: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    _op.check_range("blend", "index", index, len(values), "rows of `values`")
    out = _fake_blend(values, index, weight)
    cpu.extension().blend_forward(
        values.detach().numpy(), index.numpy(), weight.detach().numpy(), out.numpy(), cpu.threads()
    )
    return out


def _fake_blend(values: torch.Tensor, index: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    return values.new_empty((index.shape[0], values.shape[1]))


def _blend_backward(
    upstream: torch.Tensor,
    values: torch.Tensor,
    index: torch.Tensor,
    weight: torch.Tensor,
    want_values: bool,
    want_weight: bool,
) -> tuple[torch.Tensor, torch.Tensor]:
    _op.check_range("blend_backward", "index", index, len(values), "rows of `values`")
    grad_values, grad_weight = _fake_blend_backward(upstream, values, index, weight, want_values, want_weight)
    grad_values.zero_()
    cpu.extension().blend_backward(
        values.detach().numpy(),
        index.numpy(),
        weight.detach().numpy(),
        upstream.detach().contiguous().numpy(),
        grad_values.numpy(),
        grad_weight.numpy(),
        cpu.threads(),
    )
    return grad_values, grad_weight


def _fake_blend_backward(
    upstream: torch.Tensor,
    values: torch.Tensor,
    index: torch.Tensor,
    weight: torch.Tensor,
    want_values: bool,
    want_weight: bool,
) -> tuple[torch.Tensor, torch.Tensor]:
    return (
        values.new_empty(values.shape if want_values else (0,)),
        weight.new_empty(weight.shape if want_weight else (0,)),
    )


def _setup_blend(ctx: Any, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
    ctx.save_for_backward(*inputs)


def _autograd_blend(ctx: Any, upstream: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
    want = ctx.needs_input_grad[0], ctx.needs_input_grad[2]
    values, weight = torch.ops.geodiff.blend_backward(upstream, *ctx.saved_tensors, *want)
    return values if want[0] else None, None, weight if want[1] else None


_op.implement(
    _library,
    "fragments",
    _forward,
    {"clip": "N 4", "faces": "int32 F 3", "layout": "int64 B 3", "table": "S", "sharpness": "? B"},
    {"order": (0, 2, "0, 1 or 2")},
)
_op.implement(
    _library,
    "fragments_backward",
    _backward,
    {
        "clip": "N 4",
        "faces": "int32 F 3",
        "layout": "int64 B 3",
        "face_id": "int64 B height width K",
        "distance": "B height width K",
        "up_distance": "? B height width K",
        "up_barycentric": "? B height width K 3",
        "up_depth": "? B height width K",
    },
)
_op.implement(_library, "blend", _blend, {"values": "N C", "index": "int32 P J", "weight": "P J"})
_op.implement(
    _library,
    "blend_backward",
    _blend_backward,
    {"values": "N C", "index": "int32 P J", "weight": "P J", "upstream": "P C"},
)
torch.library.register_fake("geodiff::fragments", _fake, lib=_library)
torch.library.register_fake("geodiff::fragments_backward", _fake_backward, lib=_library)
torch.library.register_fake("geodiff::blend", _fake_blend, lib=_library)
torch.library.register_fake("geodiff::blend_backward", _fake_blend_backward, lib=_library)
_op.autograd(_library, "fragments", _autograd, _setup)
refuse_second(_library, "fragments")
_op.autograd(_library, "blend", _autograd_blend, _setup_blend)
refuse_second(_library, "blend")
