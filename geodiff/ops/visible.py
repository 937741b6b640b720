# SPDX-License-Identifier: Apache-2.0
"""The face that each pixel sees, in a list: argument checks, kernels, autograd and torch.compile."""

from typing import Any

import torch

from geodiff.modes import outside_autocast
from geodiff.native import cpu
from geodiff.ops import _op
from geodiff.ops.derivatives import refuse_second
from geodiff.reference.arguments import check_indices, check_packed
from geodiff.reference.fragments import check_fragments
from geodiff.reference.visible import Visible
from geodiff.validation import fail

_library = torch.library.Library("geodiff", "FRAGMENT")
_library.define(
    "visible(Tensor clip, Tensor faces, Tensor layout, int height, int width, float near, float blur) "
    "-> (Tensor, Tensor, Tensor, Tensor)"
)
_library.define(
    "visible_backward(Tensor upstream, Tensor clip, Tensor faces, Tensor layout, Tensor place, Tensor face_id, "
    "Tensor inside, int height, int width, float near) -> Tensor"
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
        RuntimeError: for tensors that are not on the CPU.

    Example:
        >>> clip = torch.tensor([[-1.0, -1.0, 2.0, 1.0], [0.0, -1.0, 2.0, 1.0], [-1.0, 1.0, 2.0, 1.0]])
        >>> one = torch.tensor([[0, 1, 2]]), torch.tensor([[0, 0, 1]])
        >>> visible(clip, *one, blur=0.5, image_size=(1, 1)).barycentric
        tensor([[0.0000, 0.6000, 0.4000]])
    """
    check_packed("visible", clip, faces, layout, image_size, near, indices=False)
    check_fragments("visible", clip, layout, 1, blur, "visible", None)
    if clip.device.type != "cpu":
        fix = "Use .cpu()."
        raise fail("visible", "clip", "on the CPU (GPU kernels are not released yet)", clip.device, fix, RuntimeError)
    if image_size[0] * image_size[1] >= 2**31:
        raise fail("visible", "image_size", "such that H·W < 2³¹", image_size, "Render in parts.")
    packed = clip.contiguous(), _op.int32(faces), layout.to(torch.int64).contiguous()
    barycentric, place, face_id, inside = torch.ops.geodiff.visible(*packed, *image_size, near, float(blur))
    return Visible(place, face_id, inside, barycentric)


def _forward(
    clip: torch.Tensor, faces: torch.Tensor, layout: torch.Tensor, height: int, width: int, near: float, blur: float
) -> tuple[torch.Tensor, ...]:
    check_indices("visible", clip, faces, layout)
    packed = clip.detach().numpy(), faces.numpy(), layout.numpy()
    winner = faces.new_empty(len(layout), height, width).numpy()
    native, threads = cpu.extension(), cpu.threads()
    points = native.visible_find(*packed, height, width, near, blur, winner, threads)
    out = _outputs(clip, layout, points)
    barycentric, place, face_id, inside = (part.numpy() for part in out)
    native.visible_list(*packed, near, winner, place, face_id, inside, barycentric, threads)
    return out


def _outputs(clip: torch.Tensor, layout: torch.Tensor, points: Any) -> tuple[torch.Tensor, ...]:
    place = layout.new_empty(points)
    return clip.new_empty(points, 3), place, torch.empty_like(place), layout.new_empty(points, dtype=torch.bool)


def _backward(
    upstream: torch.Tensor,
    clip: torch.Tensor,
    faces: torch.Tensor,
    layout: torch.Tensor,
    place: torch.Tensor,
    face_id: torch.Tensor,
    inside: torch.Tensor,
    height: int,
    width: int,
    near: float,
) -> torch.Tensor:
    check_indices("visible_backward", clip, faces, layout)
    _check_list(layout, place, face_id, height * width)
    grad_clip = torch.zeros_like(clip)
    cpu.extension().visible_backward(
        clip.detach().numpy(),
        faces.numpy(),
        layout.numpy(),
        height,
        width,
        near,
        place.numpy(),
        face_id.numpy(),
        inside.numpy(),
        upstream.detach().contiguous().numpy(),
        grad_clip.numpy(),
        cpu.threads(),
    )
    return grad_clip


def _check_list(layout: torch.Tensor, place: torch.Tensor, face_id: torch.Tensor, pixels: int) -> None:
    """Raise where the list is not what `visible` returned: pixels that ascend, faces of their images."""
    if not len(place):
        return
    entries = len(layout) * pixels
    if int(place[0]) < 0 or int(place[-1]) >= entries or bool((place[1:] <= place[:-1]).any()):
        raise fail("visible_backward", "place", f"ascending in [0, {entries}), no pixel twice", place)
    ends = torch.searchsorted(place, torch.arange(len(layout) + 1) * pixels).tolist()
    for image, count in enumerate(layout[:, 2].tolist()):
        own = face_id[ends[image] : ends[image + 1]]
        _op.check_range("visible_backward", "face_id", own, count, f"faces of image {image}")


def _fake(clip: torch.Tensor, faces: torch.Tensor, layout: torch.Tensor, *_: Any) -> tuple[torch.Tensor, ...]:
    return _outputs(clip, layout, torch.library.get_ctx().new_dynamic_size())


def _fake_backward(upstream: torch.Tensor, clip: torch.Tensor, *_: Any) -> torch.Tensor:
    return torch.empty_like(clip)


def _setup(ctx: Any, inputs: tuple[Any, ...], output: tuple[torch.Tensor, ...]) -> None:
    clip, faces, layout, height, width, near, _ = inputs
    ctx.mark_non_differentiable(*output[1:])
    ctx.save_for_backward(clip, faces, layout, *output[1:])
    ctx.size = (height, width, near)


def _autograd(ctx: Any, upstream: torch.Tensor, *_: Any) -> tuple[torch.Tensor | None, ...]:
    grad_clip = torch.ops.geodiff.visible_backward(upstream, *ctx.saved_tensors, *ctx.size)
    return (grad_clip, *(None,) * 6)


_op.implement(_library, "visible", _forward, {"clip": "N 4", "faces": "int32 F 3", "layout": "int64 B 3"})
_op.implement(
    _library,
    "visible_backward",
    _backward,
    {
        "clip": "N 4",
        "faces": "int32 F 3",
        "layout": "int64 B 3",
        "place": "int64 P",
        "face_id": "int64 P",
        "inside": "bool P",
        "upstream": "P 3",
    },
)
torch.library.register_fake("geodiff::visible", _fake, lib=_library)
torch.library.register_fake("geodiff::visible_backward", _fake_backward, lib=_library)
_op.autograd(_library, "visible", _autograd, _setup)
refuse_second(_library, "visible")
