# SPDX-License-Identifier: Apache-2.0
"""The face that each pixel sees, in a list: argument checks, kernels, autograd and torch.compile."""

from typing import Any

import torch

from geodiff.modes import outside_autocast
from geodiff.ops import _op
from geodiff.ops._indices import check_indices, check_list
from geodiff.reference.arguments import check_packed
from geodiff.reference.fragments import check_fragments
from geodiff.reference.visible import Visible
from geodiff.validation import fail

_op.library.define(
    "visible(Tensor clip, Tensor faces, Tensor layout, int height, int width, float near, float blur) "
    "-> (Tensor barycentric, Tensor place, Tensor face_id, Tensor inside)"
)
_op.library.define(
    "visible_backward(Tensor upstream, Tensor clip, Tensor faces, Tensor layout, Tensor place, Tensor face_id, "
    "Tensor inside, int height, int width, float near) -> Tensor clip"
)


@outside_autocast
def visible(
    clip: torch.Tensor,
    faces: torch.Tensor,
    layout: torch.Tensor,
    *,
    blur: float = 0.0,
    image_size: tuple[int, int],
    near: float = 1e-2,
) -> Visible:
    """List the face that each pixel sees: ``fragments(order="visible")`` without the pixels that see none.

    Takes less time and memory than `fragments`, which also measures distances and depths. The twin
    `geodiff.reference.visible` has the same name and arguments.

    Args:
        clip: vertices of all images `(x·w, y·w, depth, w)`, `(N, 4)`, float32 or float64; see `Camera.to_clip`.
        faces: corners of all faces, `(F, 3)`, indices local to the image's mesh.
        layout: one row `[vertex_start, face_start, face_count]` an image, `(B, 3)`; images share no vertices.
        blur: NDC; where no face covers the pixel centre, the nearest in the image counts, if no farther than this.
        image_size: `(H, W)`.
        near: depth of the near plane, positive.

    Returns:
        `place` `(P,)` int64, where in the flattened `(B·H·W)` each of the P pixels is, ascending; `face_id` `(P,)`
        int64, within the image's mesh; `inside` `(P,)` bool, whether the face covers the pixel centre; `barycentric`
        `(P, 3)`.

    Gradients: of the barycentrics in `clip`, at fixed faces. The same bits on any number of threads. Not twice
    differentiable.

    Raises:
        TypeError: for a wrong dtype or class.
        ValueError: for a wrong shape, a value out of range, NaN or infinity.
        RuntimeError: for tensors on different devices, or on one that is neither the CPU nor CUDA.

    Example:
        >>> clip = torch.tensor([[-1.0, -1.0, 2.0, 1.0], [0.0, -1.0, 2.0, 1.0], [-1.0, 1.0, 2.0, 1.0]])
        >>> one = torch.tensor([[0, 1, 2]]), torch.tensor([[0, 0, 1]])
        >>> visible(clip, *one, blur=0.5, image_size=(1, 1)).barycentric
        tensor([[0.0000, 0.6000, 0.4000]])
    """
    check_packed("visible", clip, faces, layout, image_size, near, indices=False)
    _op.check_devices("visible", ("clip", "faces", "layout"), (clip, faces, layout))
    check_fragments("visible", clip, layout, 1, blur, "visible", None)
    if image_size[0] * image_size[1] >= 2**31:
        raise fail("visible", "image_size", "such that H·W < 2³¹", image_size, "Render in parts.")
    size = (*image_size, near, float(blur))
    barycentric, place, face_id, inside = _op.run("visible", clip, faces, layout, *size)
    return Visible(place, face_id, inside, barycentric)


def _forward(
    clip: torch.Tensor, faces: torch.Tensor, layout: torch.Tensor, height: int, width: int, near: float, blur: float
) -> tuple[torch.Tensor, ...]:
    check_indices("visible", clip, faces, layout)
    place, face_id, inside, barycentric = _op.call(
        _op.kernels.visible_forward, clip=clip, faces=faces, layout=layout, height=height, width=width, near=near,
        blur=blur,
    )  # fmt: skip
    return barycentric, place, face_id, inside


def _outputs(clip: torch.Tensor, layout: torch.Tensor, points: Any) -> tuple[torch.Tensor, ...]:
    place = clip.new_empty(points, dtype=torch.int64)
    return clip.new_empty(points, 3), place, torch.empty_like(place), clip.new_empty(points, dtype=torch.bool)


def _backward(
    upstream: torch.Tensor, clip: torch.Tensor, faces: torch.Tensor, layout: torch.Tensor, place: torch.Tensor,
    face_id: torch.Tensor, inside: torch.Tensor, height: int, width: int, near: float,
) -> torch.Tensor:  # fmt: skip
    check_indices("visible_backward", clip, faces, layout)
    check_list("visible_backward", layout, place, face_id, height * width)
    grad_clip = torch.zeros_like(clip)
    _op.call(
        _op.kernels.visible_backward, clip=clip, faces=faces, layout=layout, height=height, width=width, near=near,
        place=place, face=face_id, inside=inside, upstream=upstream, grad_clip=grad_clip,
    )  # fmt: skip
    return grad_clip


def _fake(clip: torch.Tensor, faces: torch.Tensor, layout: torch.Tensor, *_: Any) -> tuple[torch.Tensor, ...]:
    return _outputs(clip, layout, _op.unknown_size())


_SHAPES = {
    "clip": "N 4",
    "faces": "int32 F 3",
    "layout": "int64 B 3",
    "place": "int64 P",
    "face_id": "int64 P",
    "inside": "bool P",
    "upstream": "P 3",
}
_op.register("visible", _forward, _fake, _SHAPES, _backward)
