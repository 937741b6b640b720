# SPDX-License-Identifier: Apache-2.0
"""Gradients of a hard image where one surface hides another, and images whose edges are blended along them.

Both take the list of `Jumps`: the mesh edge, or the line where two surfaces meet, between the centres p and q of two
neighbouring pixels. It crosses the way from p to q at s, between 0 and 1, and s is a function of the vertices.
"""

from typing import Any

import torch

from geodiff.modes import outside_autocast, refuse_transforms
from geodiff.reference.jumps import Jumps, centres, nearness
from geodiff.validation import fail, looks_at_values, matches, shape_text


@outside_autocast
def edge_gradient(image: torch.Tensor, jumps: Jumps, clip: torch.Tensor) -> torch.Tensor:
    """Return a hard image as it is, with the gradient of its visibility edges.

    Where an edge moves by ds from p towards q, a strip of the picture of that width changes from what q sees to what p
    sees, so a loss changes by `½·(∂L/∂I_p + ∂L/∂I_q)·(I_p − I_q)·ds`. An edge that is neither upright nor level is met
    by pairs of pixels in rows and in columns: they count by the squares of its normal's components, which add up to
    one. (A derivative of this kind, taken between pixels, is that of Pidhorskyi et al., "Rasterized Edge Gradients",
    2024.)

    Args:
        image: any channels, `(B, H, W, C)`.
        jumps: of that image.
        clip: vertices in clip coordinates, `(N, 4)`.

    Returns:
        The same values, `(B, H, W, C)`.

    Gradients: in the image as it is; in `clip`, of the edges' places. That is the derivative of the picture of
    infinitely many pixels, estimated from these: it is right in the limit, and knows nothing of what is smaller than a
    pixel. Colours that change fast towards an edge (at the rim of a ball) are taken half a pixel away from it.
    Neither twice differentiable nor in forward mode.

    Raises:
        TypeError, ValueError: an image or clip coordinates of another kind or shape.
        RuntimeError: a second derivative, forward mode, torch.func.
    """
    refuse_transforms("edge_gradient", "Take antialias, or torch.autograd.grad.", image, clip)
    place, weight, p, q = _crossings("edge_gradient", jumps, clip, image)
    return _EdgeGradient.apply(image, place, weight.detach(), p, q)


@outside_autocast
def antialias(image: torch.Tensor, jumps: Jumps, clip: torch.Tensor) -> torch.Tensor:
    """Return a hard image with its visibility edges blended: each pixel by how much of it lies beyond the edge.

    An edge nearer to q leaves `s − ½` of q's pixel to what p sees, one nearer to p `½ − s` of p's to what q sees. Rows
    and columns count as in `edge_gradient`. Of a pixel no more than all is taken, so values stay between those around.

    Args:
        image: any channels, `(B, H, W, C)`.
        jumps: of that image.
        clip: vertices in clip coordinates, `(N, 4)`.

    Returns:
        `(B, H, W, C)`.

    Gradients: in the image and in `clip`, exactly those of the picture that is returned, but for the moments at which
    an edge passes a pixel centre.

    Raises:
        TypeError, ValueError: an image or clip coordinates of another kind or shape.
    """
    place, weight, p, q = _crossings("antialias", jumps, clip, image)
    flat = image.reshape(-1, image.shape[-1])
    jump = flat.index_select(0, p) - flat.index_select(0, q)
    beyond = (place - 0.5) * weight
    at_q = beyond.detach() > 0
    taker, taken = torch.where(at_q, q, p), torch.where(at_q, beyond, -beyond)
    # Several edges of what is narrower than a pixel would take more of one than there is.
    total = taken.new_zeros(len(flat)).index_add(0, taker, taken)
    share = taken / total.index_select(0, taker).clamp(min=1)
    return flat.index_add(0, taker, torch.where(at_q, share, -share)[:, None] * jump).reshape(image.shape)


def _crossings(
    where: str, jumps: Jumps, clip: torch.Tensor, image: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return s, the weight of each pair, and its two pixels. Differentiable in `clip`; in float64, lists are short."""
    for name, value, shape in (("image", image, ("B", "H", "W", "C")), ("clip", clip, ("N", 4))):
        if not isinstance(value, torch.Tensor) or not value.is_floating_point():
            raise fail(where, name, "a floating-point tensor", value, error=TypeError)
        if not matches(value.shape, shape):
            raise fail(where, name, f"of shape {shape_text(shape)}", value)
    count = len(image) * image.shape[1] * image.shape[2]
    for name, index, most in (("image", jumps.pixels, count), ("clip", jumps.ends, len(clip))):
        if looks_at_values(index) and index.numel() and int(index.max()) >= most:
            raise fail(where, name, "that whose jumps these are", f"{most} rows for index {int(index.max())}")
    height, width = image.shape[1:3]
    pixels = torch.cat([jumps.pixels, jumps.meeting_pixels])
    p, q = pixels.unbind(1)
    ends = clip[jumps.ends].double()[..., [0, 1, 3]]
    line = torch.linalg.cross(ends[:, 0], ends[:, 1], dim=-1)
    meeting = nearness(clip[jumps.corners].double())
    line = torch.cat([line, meeting[:, 0] - meeting[:, 1]])
    here, there = centres(p, height, width), centres(q, height, width)
    at_p, at_q = (line * here).sum(-1), (line * there).sum(-1)
    along = at_q - at_p
    x, y, _ = (there - here).unbind(1)
    across = line[:, 1] * x - line[:, 0] * y
    square = along * along + across * across
    sound = (along != 0) & square.isfinite()
    place = torch.where(sound, -at_p / torch.where(sound, along, 1.0), 0.5)
    weight = torch.where(sound, along * along / torch.where(sound, square, 1.0), 0.0)
    share = torch.cat([jumps.share, jumps.share.new_ones(len(jumps.corners))])
    return place.to(image.dtype), (weight * share).to(image.dtype), p, q


class _EdgeGradient(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, image: torch.Tensor, place: torch.Tensor, weight: torch.Tensor, p: torch.Tensor, q: torch.Tensor
    ) -> torch.Tensor:
        ctx.save_for_backward(image, weight, p, q)
        return image.view_as(image)

    @staticmethod
    def backward(ctx: Any, upstream: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        if torch.is_grad_enabled():
            raise RuntimeError("edge_gradient is not twice differentiable: it is an estimate. Take antialias.")
        image, weight, p, q = ctx.saved_tensors
        values, slopes = image.reshape(-1, image.shape[-1]), upstream.reshape(-1, image.shape[-1])
        jump = values.index_select(0, p) - values.index_select(0, q)
        slope = slopes.index_select(0, p) + slopes.index_select(0, q)
        return upstream, 0.5 * weight * (slope * jump).sum(-1), None, None, None
