# SPDX-License-Identifier: Apache-2.0
"""Where a hard image jumps: argument checks, and its place in torch.compile."""

from typing import Any

import torch

from geodiff.modes import outside_autocast
from geodiff.ops import _op
from geodiff.ops._indices import check_indices, check_of_image
from geodiff.reference.jumps import Jumps, check_jumps
from geodiff.reference.outline import edge_cycles
from geodiff.validation import fail

_op.library.define(
    "jumps(Tensor clip, Tensor faces, Tensor layout, Tensor edges, Tensor face_id, float near, bool creases) "
    "-> (Tensor pixels, Tensor ends, Tensor share, Tensor meeting_pixels, Tensor corners)"
)


@outside_autocast
def jumps(
    clip: torch.Tensor,
    faces: torch.Tensor,
    layout: torch.Tensor,
    face_id: torch.Tensor,
    *,
    near: float = 1e-2,
    edges: torch.Tensor | None = None,
    creases: bool = False,
) -> Jumps:
    """Find the visibility edges of a rasterised image, as `geodiff.reference.jumps` does, which says what they are.

    The time grows with faces and pixels, not with pairs of them: only borders and folds of the mesh are followed, and
    pixels next to each other are compared.

    Args:
        clip: vertices of all images `(x·w, y·w, depth, w)`, `(N, 4)`, float32 or float64; see `Camera.to_clip`.
        faces: corners of all faces, `(F, 3)`, indices local to the image's mesh.
        layout: one row `[vertex_start, face_start, face_count]` an image, `(B, 3)`; images share no vertices.
        face_id: what each pixel sees, `(B, H, W)` int64, −1 for nothing, as `rasterize` returns it.
        near: depth of the near plane, positive.
        edges: `reference.edge_cycles(faces, layout)`, if known.
        creases: also list edges inside a surface, between pixels of different faces: for what is constant on a face.

    Returns:
        `Jumps`: the same on any number of threads and at any SIMD level.

    Gradients: none; `geodiff.render.visibility` makes them from the list.

    Raises:
        TypeError: for a wrong dtype or class.
        ValueError: for a wrong shape, a value out of range, NaN or infinity.
        RuntimeError: for tensors on different devices, or on one that is neither the CPU nor CUDA.

    Example:
        >>> clip = torch.tensor([[-0.5, -3.0, 2.0, 1.0], [3.0, -3.0, 2.0, 1.0], [-0.5, 3.0, 2.0, 1.0]])
        >>> one = torch.tensor([[0, 1, 2]]), torch.tensor([[0, 0, 1]])
        >>> jumps(clip, *one, torch.tensor([[[-1, 0]]])).ends
        tensor([[2, 0]])
    """
    names = ("clip", "faces", "layout", "face_id", "edges")
    if all(isinstance(part, torch.Tensor) for part in (clip, faces, layout, face_id, edges) if part is not None):
        _op.check_devices("jumps", names, (clip, faces, layout, face_id, edges))
    check_jumps("jumps", clip, faces, layout, face_id, near, edges, indices=False)
    edges = edge_cycles(faces, layout) if edges is None else edges
    return Jumps(*_op.run("jumps", clip.detach(), faces, layout, edges, face_id, near, bool(creases)))


def _forward(
    clip: torch.Tensor, faces: torch.Tensor, layout: torch.Tensor, edges: torch.Tensor, face_id: torch.Tensor,
    near: float, creases: bool,
) -> tuple[torch.Tensor, ...]:  # fmt: skip
    if max(face_id.shape) >= 2**31 or face_id.numel() >= 2**31:
        raise fail("jumps", "face_id", "of fewer than 2³¹ entries", face_id)
    check_indices("jumps", clip, faces, layout)
    check_of_image("jumps", "face_id", face_id, layout[:, 2].tolist())
    found: tuple[torch.Tensor, ...] = _op.call(
        _op.kernels.jumps, clip=clip, faces=faces, layout=layout, edges=edges, face_id=face_id, near=near,
        creases=creases,
    )  # fmt: skip
    return found


def _fake(clip: torch.Tensor, faces: torch.Tensor, layout: torch.Tensor, *_: Any) -> tuple[torch.Tensor, ...]:
    found, meetings = _op.unknown_size(), _op.unknown_size()
    share = clip.new_empty(found, dtype=torch.float64)
    pixels = clip.new_empty(found, 2, dtype=torch.int64)
    corners = clip.new_empty(meetings, 2, 3, dtype=torch.int64)
    return pixels, torch.empty_like(pixels), share, corners.new_empty(meetings, 2), corners


_SHAPES = {
    "clip": "N 4",
    "faces": "int32 F 3",
    "layout": "int64 B 3",
    "edges": "int32 F 3",
    "face_id": "int64 B _ _",
}
_op.register("jumps", _forward, _fake, _SHAPES, advice="geodiff.render.visibility has those of an image.")
