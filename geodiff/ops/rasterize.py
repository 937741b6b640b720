# SPDX-License-Identifier: Apache-2.0
"""The hard rasteriser: argument checks, and its place in torch.compile."""

import torch

from geodiff.modes import outside_autocast, refuse_transforms
from geodiff.ops import _op
from geodiff.ops._indices import check_indices
from geodiff.reference.arguments import check_packed
from geodiff.reference.rasterize import Raster

_op.library.define(
    "rasterize(Tensor clip, Tensor faces, Tensor layout, int height, int width, float near) "
    "-> (Tensor face_id, Tensor depth, Tensor barycentric)"
)


@outside_autocast
def rasterize(
    clip: torch.Tensor,
    faces: torch.Tensor,
    layout: torch.Tensor,
    *,
    image_size: tuple[int, int],
    near: float = 1e-2,
) -> Raster:
    """Find the nearest face at every pixel centre.

    A face covers a pixel whose centre is inside it or on its edge, from either side, where its depth exceeds `near`.
    The nearest depth wins; of equal depths, the lowest face index. Neighbouring faces evaluate their common edge to
    opposite numbers, so no pixel falls between them. The twin is `geodiff.reference.rasterize`.

    Args:
        clip: vertices of all images `(x·w, y·w, depth, w)`, `(N, 4)`, float32 or float64; see `Camera.to_clip`.
        faces: corners of all faces, `(F, 3)`, indices local to the image's mesh.
        layout: one row `[vertex_start, face_start, face_count]` an image, `(B, 3)`; images share no vertices.
        image_size: `(H, W)`.
        near: depth of the near plane, positive.

    Returns:
        `face_id` `(B, H, W)` int64, −1 where empty; `depth` `(B, H, W)`, infinite where empty; `barycentric`
        `(B, H, W, 3)`, perspective-correct, 0 where empty.

    Gradients: none; the results are constants to autograd. (The twin differentiates depth and barycentrics.)

    Raises:
        TypeError: for a wrong dtype or class.
        ValueError: for a wrong shape, a value out of range, NaN or infinity.
        RuntimeError: for tensors on different devices, or on one that is neither the CPU nor CUDA.

    Example:
        >>> clip = torch.tensor([[-3.0, -3.0, 2.0, 1.0], [3.0, -3.0, 2.0, 1.0], [0.0, 3.0, 2.0, 1.0]])
        >>> rasterize(clip, torch.tensor([[0, 1, 2]]), torch.tensor([[0, 0, 1]]), image_size=(1, 1)).depth
        tensor([[[2.]]])
    """
    check_packed("rasterize", clip, faces, layout, image_size, near, indices=False)
    _op.check_devices("rasterize", ("clip", "faces", "layout"), (clip, faces, layout))
    refuse_transforms("rasterize", "Use geodiff.reference.rasterize, or clip.detach() for constants.", clip)
    return Raster(*_op.run("rasterize", clip.detach(), faces, layout, *image_size, near))


def _forward(
    clip: torch.Tensor, faces: torch.Tensor, layout: torch.Tensor, height: int, width: int, near: float
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    check_indices("rasterize", clip, faces, layout)
    face_id, depth, barycentric = out = _fake(clip, faces, layout, height, width, near)
    _op.call(
        _op.kernels.rasterize, clip=clip, faces=faces, layout=layout, height=height, width=width, near=near,
        face=face_id, depth=depth, barycentric=barycentric,
    )  # fmt: skip
    return out


def _fake(
    clip: torch.Tensor, faces: torch.Tensor, layout: torch.Tensor, height: int, width: int, near: float
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    shape = (layout.shape[0], height, width)
    return clip.new_empty(shape, dtype=torch.int64), clip.new_empty(shape), clip.new_empty((*shape, 3))


_SHAPES = {"clip": "N 4", "faces": "int32 F 3", "layout": "int64 B 3"}
_ADVICE = "Use geodiff.reference.rasterize, which has."
_op.register("rasterize", _forward, _fake, _SHAPES, advice=_ADVICE)
