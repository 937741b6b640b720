# SPDX-License-Identifier: Apache-2.0
"""The k faces that a pixel sees, and rows blended by weights: argument checks, kernels, autograd, torch.compile."""

from typing import Any

import torch

from geodiff import reference
from geodiff.modes import outside_autocast
from geodiff.ops import _op
from geodiff.ops._indices import check_indices, check_of_image, check_range
from geodiff.reference.arguments import check_packed
from geodiff.reference.fragments import ORDERS, FragmentMaps, Ranking, check_blend, check_fragments
from geodiff.validation import fail

_WEIGHT = ORDERS.index("weight")
_op.library.define(
    "fragments(Tensor clip, Tensor faces, Tensor layout, Tensor table, Tensor sharpness, int k, int height, int width, "
    "float near, float blur, int order, float unit) "
    "-> (Tensor distance, Tensor barycentric, Tensor depth, Tensor face_id)"
)
_op.library.define(
    "fragments_backward(Tensor? up_distance, Tensor? up_barycentric, Tensor? up_depth, Tensor clip, Tensor faces, "
    "Tensor layout, Tensor face_id, Tensor distance, int height, int width, float near) -> Tensor clip"
)
_op.library.define("blend(Tensor values, Tensor index, Tensor weight) -> Tensor")
_op.library.define(
    "blend_backward(Tensor upstream, Tensor values, Tensor index, Tensor weight, bool[] wants) "
    "-> (Tensor values, Tensor weight)"
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
) -> FragmentMaps:
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
        RuntimeError: for tensors on different devices, or on one that is neither the CPU nor CUDA.

    Example:
        >>> clip = torch.tensor([[-1.0, -1.0, 2.0, 1.0], [0.0, -1.0, 2.0, 1.0], [-1.0, 1.0, 2.0, 1.0]])
        >>> one = torch.tensor([[0, 1, 2]]), torch.tensor([[0, 0, 1]])
        >>> fragments(clip, *one, blur=0.5, image_size=(1, 1)).barycentric
        tensor([[[[[0.0000, 0.6000, 0.4000]]]]])
    """
    check_packed("fragments", clip, faces, layout, image_size, near, indices=False)
    _op.check_devices("fragments", ("clip", "faces", "layout"), (clip, faces, layout))
    check_fragments("fragments", clip, layout, k, blur, order, ranking)
    if image_size[0] * image_size[1] * k >= 2**31:
        raise fail("fragments", "k", "such that H·W·k < 2³¹", k, "Keep fewer fragments, or render smaller images.")
    table = clip.new_zeros(2) if ranking is None else ranking.table.detach().to(clip.dtype)
    sharpness = clip.new_zeros(0) if ranking is None else ranking.sharpness.detach().to(clip.dtype)
    unit = 1.0 if ranking is None else float(ranking.unit)
    model = (table, sharpness, k, *image_size, near, float(blur), ORDERS.index(order), unit)
    distance, barycentric, depth, face_id = _op.run("fragments", clip, faces, layout, *model)
    return FragmentMaps(face_id, distance, barycentric, depth)


def _forward(
    clip: torch.Tensor, faces: torch.Tensor, layout: torch.Tensor, table: torch.Tensor, sharpness: torch.Tensor,
    k: int, height: int, width: int, near: float, blur: float, order: int, unit: float,
) -> tuple[torch.Tensor, ...]:  # fmt: skip
    check_indices("fragments", clip, faces, layout)
    ranking = Ranking(table, unit, sharpness) if order == _WEIGHT else None
    check_fragments("fragments", clip, layout, k, blur, ORDERS[order], ranking)
    if len(table) < 2:
        raise fail("fragments", "table", "of two entries or more", table)
    distance, barycentric, depth, face_id = out = _fake(clip, faces, layout, table, sharpness, k, height, width)
    _op.call(
        _op.kernels.fragments_forward, clip=clip, faces=faces, layout=layout, height=height, width=width, near=near,
        order=order, blur=blur, table=table, table_unit=unit, sharpness=sharpness, face=face_id, distance=distance,
        barycentric=barycentric, depth=depth,
    )  # fmt: skip
    return out


def _backward(
    up_distance: torch.Tensor | None, up_barycentric: torch.Tensor | None, up_depth: torch.Tensor | None,
    clip: torch.Tensor, faces: torch.Tensor, layout: torch.Tensor, face_id: torch.Tensor, distance: torch.Tensor,
    height: int, width: int, near: float,
) -> torch.Tensor:  # fmt: skip
    check_indices("fragments_backward", clip, faces, layout)
    check_of_image("fragments_backward", "face_id", face_id, layout[:, 2].tolist())
    grad_clip = torch.zeros_like(clip)
    _op.call(
        _op.kernels.fragments_backward, clip=clip, faces=faces, layout=layout, height=height, width=width, near=near,
        face=face_id, distance=distance, up_distance=up_distance, up_barycentric=up_barycentric, up_depth=up_depth,
        grad_clip=grad_clip,
    )  # fmt: skip
    return grad_clip


def _fake(
    clip: torch.Tensor, faces: Any, layout: torch.Tensor, table: Any, sharpness: Any, k: int, height: int, width: int,
    *_: Any,
) -> tuple[torch.Tensor, ...]:  # fmt: skip
    shape = (layout.shape[0], height, width, k)
    face_id = clip.new_empty(shape, dtype=torch.int64)
    return clip.new_empty(shape), clip.new_empty((*shape, 3)), clip.new_empty(shape), face_id


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

    Raises:
        TypeError, ValueError: wrong dtypes or shapes, or an index out of range.
        RuntimeError: for tensors on different devices, or on one that is neither the CPU nor CUDA.

    Example:
        >>> blend(torch.tensor([[0.0], [8.0]]), torch.tensor([[0, 1]]), torch.tensor([[0.75, 0.25]]))
        tensor([[2.]])
    """
    check_blend(values, index, weight)
    if _op.for_twin("blend", values=values, index=index, weight=weight):
        return reference.blend(values, index, weight)
    result: torch.Tensor = _op.run("blend", values, index, weight)
    return result


def _blend(values: torch.Tensor, index: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    check_range("blend", "index", index, len(values), "rows of `values`")
    out = _fake_blend(values, index, weight)
    _op.call(_op.kernels.blend_forward, values=values, index=index, weight=weight, out=out)
    return out


def _blend_backward(
    upstream: torch.Tensor, values: torch.Tensor, index: torch.Tensor, weight: torch.Tensor, wants: list[bool]
) -> tuple[torch.Tensor, torch.Tensor]:
    check_range("blend_backward", "index", index, len(values), "rows of `values`")
    grad_values = _op.buffer(values, wants[0])
    grad_weight = weight.new_empty(weight.shape if wants[1] else (0,))
    _op.call(
        _op.kernels.blend_backward, values=values, index=index, weight=weight, upstream=upstream,
        grad_values=grad_values, grad_weight=grad_weight,
    )  # fmt: skip
    return grad_values, grad_weight


def _fake_blend(values: torch.Tensor, index: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    return values.new_empty((index.shape[0], values.shape[1]))


_SHAPES = {
    "clip": "N 4",
    "faces": "int32 F 3",
    "layout": "int64 B 3",
    "table": "S",
    "sharpness": "? B",
    "face_id": "int64 B height width K",
    "distance": "B height width K",
    "up_distance": "? B height width K",
    "up_barycentric": "? B height width K 3",
    "up_depth": "? B height width K",
}
_op.register("fragments", _forward, _fake, _SHAPES, _backward, numbers={"order": (0, 2, "0, 1 or 2")})
_OF_BLEND = {"values": "N C", "index": "int32 P J", "weight": "P J", "upstream": "P C"}
_op.register("blend", _blend, _fake_blend, _OF_BLEND, _blend_backward)
