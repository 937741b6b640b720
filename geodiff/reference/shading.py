# SPDX-License-Identifier: Apache-2.0
"""The pure-torch twin of the reflection of light at points of surfaces."""

import torch

from geodiff.validation import fail, floating

HEAD, LIGHT = 7, 12
"""Numbers of an image: viewer (3), shininess, ambient (3); of each light: way, diffuse, specular, attenuation (3)."""

FAINT = 1e-6
"""A highlight counts as 0 where the mirror image of the light is farther than this from the viewer's side."""


def reflect(
    rows: torch.Tensor,
    kinds: torch.Tensor,
    image: torch.Tensor,
    normal: torch.Tensor,
    point: torch.Tensor,
    *,
    parallel_view: bool = False,
    glossy: bool = True,
) -> torch.Tensor:
    """Reflect lights by Phong's model: what a surface's colour is multiplied with, and the highlight that is added.

    With unit normal n, direction l to each light, mirror image r = 2(n·l)n − l and direction v to the viewer:
    `ambient + Σ diffuse·max(0, n·l)/fade` and `Σ specular·max(0, r·v)^shininess/fade` where n·l > 0, with
    `fade = a + b·r + c·r²` at distance r from a point light, 1 for a directional one.

    Args:
        rows: numbers of each image, `(1 or B, 7 + 12·L)`: viewer (3: the eye, or the unit direction to it), shininess,
            ambient (3), then for each light way (3: position, or unit direction to it), diffuse (3), specular (3) and
            attenuation (3).
        kinds: `(L,)` integers, 0 for directional, 1 for point lights.
        image: `(P,)` integers, ascending: the row of each point; empty where there is only one.
        normal: `(P, 3)`, of any length; of length 0 they reflect ambient light only.
        point: `(P, 3)` in the world.
        parallel_view: the viewer is a direction, as for an orthographic camera.
        glossy: whether there are highlights.

    Returns:
        `(P, 6)`: diffuse and highlight.

    Gradients: in `rows`, `normal` and `point`. Highlights jump where n·l = 0 and the viewer looks into the light.

    Example:
        >>> row = torch.tensor([[0.0, 0, 1, 8, 0.1, 0.1, 0.1, 0, 0, 1, 0.5, 0.5, 0.5, 1, 1, 1, 1, 0, 0]])
        >>> one = torch.zeros(1, dtype=torch.int32)
        >>> up = torch.tensor([[0.0, 0.0, 2.0]])
        >>> reflect(row, one, one[:0], up, 0 * up, parallel_view=True)
        tensor([[0.6000, 0.6000, 0.6000, 1.0000, 1.0000, 1.0000]])
    """
    check_reflect(rows, kinds, image, normal, point)
    own = rows[image.long()] if len(image) else rows.expand(len(normal), -1)
    n = _unit(normal)
    v = own[:, :3] if parallel_view else _unit(own[:, :3] - point)
    diffuse, shine = own[:, 4:7], torch.zeros_like(normal)
    for number, kind in enumerate(kinds.tolist()):
        way, by_diffuse, by_shine, fading = own[:, HEAD + LIGHT * number :][:, :LIGHT].split(3, dim=1)
        fade = torch.ones_like(way[:, :1])
        if kind:
            way = way - point
            square = (way * way).sum(dim=1, keepdim=True)
            r = torch.where(square > 0, square, 1.0).sqrt() * (square > 0)
            way = _unit(way)
            fade = fading[:, :1] + fading[:, 1:2] * r + fading[:, 2:] * r * r
        facing = (n * way).sum(dim=1, keepdim=True)
        lit = facing > 0
        diffuse = diffuse + torch.where(lit, facing / fade, 0.0) * by_diffuse
        if glossy:
            mirrored = 2 * facing * (n * v).sum(dim=1, keepdim=True) - (way * v).sum(dim=1, keepdim=True)
            there = lit & (mirrored > FAINT)
            peak = torch.where(there, mirrored, 1.0) ** own[:, 3:4] / fade
            shine = shine + torch.where(there, peak, 0.0) * by_shine
    return torch.cat([diffuse, shine], dim=1)


def _unit(vector: torch.Tensor) -> torch.Tensor:
    square = (vector * vector).sum(dim=1, keepdim=True)
    some = square > torch.finfo(vector.dtype).tiny * 1e8
    return vector * (torch.where(some, square, 1.0).rsqrt() * some)


def check_reflect(
    rows: torch.Tensor, kinds: torch.Tensor, image: torch.Tensor, normal: torch.Tensor, point: torch.Tensor
) -> None:
    """Check the arguments of `reflect`."""
    floating("reflect", "rows", rows, ("B", HEAD + LIGHT * len(kinds)), finite=False)
    floating("reflect", "normal", normal, ("P", 3), finite=False)
    floating("reflect", "point", point, (len(normal), 3), finite=False)
    if not rows.dtype == normal.dtype == point.dtype:
        raise fail("reflect", "normal", f"of the dtype of `rows`, {rows.dtype}, as `point`", normal, error=TypeError)
    if len(image) not in (0, len(normal)) or (len(image) == 0 and len(rows) != 1 and len(normal) > 0):
        raise fail("reflect", "image", f"({len(normal)},), one a point, or empty with one row", image)
