# SPDX-License-Identifier: Apache-2.0
"""The hard rasteriser: argument checks, and its place in torch.compile."""

from typing import Any

import torch

from geodiff.modes import outside_autocast, refuse_transforms
from geodiff.native import cpu
from geodiff.ops import _op
from geodiff.reference.arguments import check_indices, check_packed
from geodiff.reference.rasterize import Raster
from geodiff.validation import fail

_library = torch.library.Library("geodiff", "FRAGMENT")
_library.define(
    "rasterize(Tensor clip, Tensor faces, Tensor layout, int height, int width, float near) -> (Tensor, Tensor, Tensor)"
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
        RuntimeError: for tensors that are not on the CPU.

    Example:
        >>> clip = torch.tensor([[-3.0, -3.0, 2.0, 1.0], [3.0, -3.0, 2.0, 1.0], [0.0, 3.0, 2.0, 1.0]])
        >>> rasterize(clip, torch.tensor([[0, 1, 2]]), torch.tensor([[0, 0, 1]]), image_size=(1, 1)).depth
        tensor([[[2.]]])
    """
    check_packed("rasterize", clip, faces, layout, image_size, near, indices=False)
    refuse_transforms("rasterize", "Use geodiff.reference.rasterize, or clip.detach() for constants.", clip)
    if clip.device.type != "cpu":
        raise fail(
            "rasterize",
            "clip",
            "on the CPU (GPU kernels are not released yet)",
            clip.device,
            "Use .cpu().",
            RuntimeError,
        )
    face_id, depth, barycentric = torch.ops.geodiff.rasterize(
        clip.detach().contiguous(),
        _op.int32(faces),
        layout.to(torch.int64).contiguous(),
        *image_size,
        near,
    )
    return Raster(face_id, depth, barycentric)


def _forward(
    clip: torch.Tensor, faces: torch.Tensor, layout: torch.Tensor, height: int, width: int, near: float
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    check_indices("rasterize", clip, faces, layout)
    face_id, depth, barycentric = _fake(clip, faces, layout, height, width, near)
    cpu.extension().rasterize(
        clip.numpy(),
        faces.numpy(),
        layout.numpy(),
        height,
        width,
        near,
        face_id.numpy(),
        depth.numpy(),
        barycentric.numpy(),
        cpu.threads(),
    )
    return face_id, depth, barycentric


def _refuse(ctx: Any, *_: Any) -> None:
    raise RuntimeError("geodiff::rasterize has no gradient. Use geodiff.reference.rasterize, which has.")


def _fake(
    clip: torch.Tensor, faces: torch.Tensor, layout: torch.Tensor, height: int, width: int, near: float
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    shape = (layout.shape[0], height, width)
    return layout.new_empty(shape, dtype=torch.int64), clip.new_empty(shape), clip.new_empty((*shape, 3))


_op.implement(_library, "rasterize", _forward, {"clip": "N 4", "faces": "int32 F 3", "layout": "int64 B 3"})
_op.autograd(_library, "rasterize", _refuse)
torch.library.register_fake("geodiff::rasterize", _fake, lib=_library)
