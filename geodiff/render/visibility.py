# SPDX-License-Identifier: Apache-2.0
"""Gradients of a hard image where one surface hides another, and images whose edges are blended along them.

Both take the list of `Jumps`: the mesh edge, or the line where two surfaces meet, between the centres p and q of two
neighbouring pixels. It crosses the way from p to q at s, between 0 and 1, and s is a function of the vertices.
"""

from typing import Any, NamedTuple

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
    _check("edge_gradient", jumps, clip, image)
    return _EdgeGradient.apply(image, clip, *jumps)


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
    _check("antialias", jumps, clip, image)
    at = _crossings(jumps, clip, image)
    (p, q), place, weight = at.pixels, at.place.to(image.dtype), at.weight.to(image.dtype)
    flat = image.reshape(-1, image.shape[-1])
    jump = flat.index_select(0, p) - flat.index_select(0, q)
    beyond = (place - 0.5) * weight
    at_q = beyond.detach() > 0
    taker, taken = torch.where(at_q, q, p), torch.where(at_q, beyond, -beyond)
    # Several edges of what is narrower than a pixel would take more of one than there is.
    total = taken.new_zeros(len(flat)).index_add(0, taker, taken)
    share = taken / total.index_select(0, taker).clamp(min=1)
    return flat.index_add(0, taker, torch.where(at_q, share, -share)[:, None] * jump).reshape(image.shape)


def _check(where: str, jumps: Jumps, clip: torch.Tensor, image: torch.Tensor) -> None:
    for name, value, shape in (("image", image, ("B", "H", "W", "C")), ("clip", clip, ("N", 4))):
        if not isinstance(value, torch.Tensor) or not value.is_floating_point():
            raise fail(where, name, "a floating-point tensor", value, error=TypeError)
        if not matches(value.shape, shape):
            raise fail(where, name, f"of shape {shape_text(shape)}", value)
    count = len(image) * image.shape[1] * image.shape[2]
    for name, index, most in (("image", jumps.pixels, count), ("clip", jumps.ends, len(clip))):
        if looks_at_values(index) and index.numel() and int(index.max()) >= most:
            raise fail(where, name, "that whose jumps these are", f"{most} rows for index {int(index.max())}")


class _Crossings(NamedTuple):
    """Where lines cross the ways from p to q: those of mesh edges first, then those where surfaces meet. In float64."""

    pixels: tuple[torch.Tensor, torch.Tensor]
    here: torch.Tensor  # (J, 3), the centre of p
    way: torch.Tensor  # (J, 3), from there to q
    along: torch.Tensor  # (J,), how fast the value of the line grows on the way; 1 where it is not sound
    sound: torch.Tensor
    place: torch.Tensor  # (J,), s
    weight: torch.Tensor  # (J,)


def _crossings(jumps: Jumps, clip: torch.Tensor, image: torch.Tensor) -> _Crossings:
    """Return where the lines cross; differentiable in `clip`."""
    height, width = image.shape[1:3]
    ends = _xyw(clip[jumps.ends].double())
    line, pixels, share = torch.linalg.cross(ends[:, 0], ends[:, 1], dim=-1), jumps.pixels, jumps.share
    if _some_meet(jumps):
        meeting = nearness(clip[jumps.corners].double())
        line = torch.cat([line, meeting[:, 0] - meeting[:, 1]])
        pixels = torch.cat([pixels, jumps.meeting_pixels])
        share = torch.cat([share, share.new_ones(len(jumps.corners))])
    p, q = pixels.unbind(1)
    here = centres(p, height, width)
    way = centres(q, height, width) - here
    at_p, along = (line * here).sum(-1), (line * way).sum(-1)
    across = line[:, 1] * way[:, 0] - line[:, 0] * way[:, 1]
    square = along * along + across * across
    sound = (along != 0) & square.isfinite()
    along = torch.where(sound, along, 1.0)
    place = torch.where(sound, -at_p / along, 0.5)
    weight = torch.where(sound, along * along / torch.where(sound, square, 1.0), 0.0) * share
    return _Crossings((p, q), here, way, along, sound, place, weight)


def _pull(jumps: Jumps, at: _Crossings, clip: torch.Tensor, by_place: torch.Tensor) -> torch.Tensor:
    """Return the gradient in `clip` of what has this gradient (J,) in the places."""
    by_line = torch.where(at.sound, -by_place / at.along, 0.0)[:, None] * (at.here + at.place[:, None] * at.way)
    grad, edges = torch.zeros_like(clip), len(jumps.ends)
    (a, b), normal = _xyw(clip[jumps.ends].double()).unbind(1), by_line[:edges]
    both = torch.stack([torch.linalg.cross(b, normal, dim=-1), torch.linalg.cross(normal, a, dim=-1)], dim=1)
    by_ends = _with_depth(both, torch.zeros_like(both[..., 0])).to(clip.dtype)
    grad.index_put_((jumps.ends,), by_ends, accumulate=True)
    if _some_meet(jumps):
        corners, up = clip[jumps.corners].double(), by_line[edges:]
        by_corners = _nearness_backward(corners, torch.stack([up, -up], dim=1))
        grad.index_put_((jumps.corners,), by_corners.to(clip.dtype), accumulate=True)
    return grad


def _some_meet(jumps: Jumps) -> bool:
    """Whether surfaces go through each other, or may do: how many is unknown to torch.compile."""
    return torch.compiler.is_compiling() or len(jumps.corners) > 0


def _nearness_backward(corners: torch.Tensor, upstream: torch.Tensor) -> torch.Tensor:
    """Return the gradient in the corners `(..., 3, 4)` of their `nearness` `(..., 3)`, Σ f_k·(c_k+1 × c_k+2) / det."""
    c = _xyw(corners)
    after, before = c.roll(-1, -2), c.roll(1, -2)
    line = torch.linalg.cross(after, before, dim=-1)
    det = (line[..., 0, :] * c[..., 0, :]).sum(-1)
    inverse = torch.where(det != 0, 1 / torch.where(det != 0, det, 1.0), 0.0)[..., None]
    perspective = (corners[..., 2] == corners[..., 3]).all(dim=-1)[..., None]
    factor = torch.where(perspective, 1.0, -corners[..., 2])[..., None]
    own = upstream * inverse
    share = factor * own[..., None, :]  # of the line opposite each corner
    by_det = ((factor * line).sum(-2) * inverse * own).sum(-1)[..., None, None]
    by_xyw = (
        torch.linalg.cross(after, share.roll(1, -2), dim=-1)
        + torch.linalg.cross(share.roll(-1, -2), before, dim=-1)
        - by_det * line
    )
    return _with_depth(by_xyw, torch.where(perspective, 0.0, -(own[..., None, :] * line).sum(-1)))


def _xyw(clip: torch.Tensor) -> torch.Tensor:
    """Return clip coordinates (..., 4) without the depth. A list as index would be sent to a device at each call."""
    return torch.cat([clip[..., :2], clip[..., 3:]], dim=-1)


def _with_depth(xyw: torch.Tensor, depth: torch.Tensor) -> torch.Tensor:
    """Return the clip coordinates (..., 4) of `_xyw`'s (..., 3) and the depth (...)."""
    return torch.cat([xyw[..., :2], depth[..., None], xyw[..., 2:]], dim=-1)


class _EdgeGradient(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, image: torch.Tensor, clip: torch.Tensor, *jumps: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(image, clip, *jumps)
        return image.view_as(image)

    @staticmethod
    def backward(ctx: Any, upstream: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        if torch.is_grad_enabled():
            raise RuntimeError("edge_gradient is not twice differentiable: it is an estimate. Take antialias.")
        image, clip, *parts = ctx.saved_tensors
        if not ctx.needs_input_grad[1]:
            return (upstream, *[None] * 6)
        jumps = Jumps(*parts)
        at = _crossings(jumps, clip, image)
        p, q = at.pixels
        values, slopes = image.reshape(-1, image.shape[-1]), upstream.reshape(-1, image.shape[-1])
        jump = values.index_select(0, p) - values.index_select(0, q)
        slope = slopes.index_select(0, p) + slopes.index_select(0, q)
        by_place = 0.5 * at.weight.to(image.dtype) * (slope * jump).sum(-1)
        return (upstream, _pull(jumps, at, clip, by_place.double()), *[None] * 5)
