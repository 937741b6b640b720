# SPDX-License-Identifier: Apache-2.0
"""The pure-torch twins of light reflected by surfaces, of samples of textures, and of images composed of colours."""

from typing import Any

import torch

from geodiff.modes import outside_autocast
from geodiff.validation import choice, fail, floating, looks_at_values

HEAD, LIGHT = 7, 12
"""Numbers of an image: viewer (3), shininess, ambient (3); of each light: direction, diffuse, specular, attenuation."""

FAINT = 1e-6
"""A highlight counts as 0 where the mirror image of the light is farther than this from the viewer's side."""


@outside_autocast
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
    `ambient + Σ diffuse·max(0, n·l)/falloff` and `Σ specular·max(0, r·v)^shininess/falloff` where n·l > 0, with
    `falloff = a + b·r + c·r²` at distance r from a point light, 1 for a directional one.

    Args:
        rows: numbers of each image, `(1 or B, 7 + 12·L)`: viewer (3: the eye, or the unit direction to it), shininess,
            ambient (3), then for each light its direction (3: position, or unit direction to it), diffuse (3), specular
            (3) and attenuation (3).
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
    own = rows[image.long()] if len(image) else rows[:1].expand(len(normal), -1)
    n = unit(normal)
    v = own[:, :3] if parallel_view else unit(own[:, :3] - point)
    diffuse, specular = own[:, 4:7], torch.zeros_like(normal)
    for number, kind in enumerate(kinds.tolist()):
        table = own[:, HEAD + LIGHT * number :][:, :LIGHT]
        light_direction, by_diffuse, by_specular, attenuation = table.split(3, dim=1)
        falloff = torch.ones_like(light_direction[:, :1])
        if kind:
            light_direction = light_direction - point
            square = (light_direction * light_direction).sum(dim=1, keepdim=True)
            r = torch.where(square > 0, square, 1.0).sqrt() * (square > 0)
            light_direction = unit(light_direction)
            falloff = attenuation[:, :1] + attenuation[:, 1:2] * r + attenuation[:, 2:] * r * r
        facing = (n * light_direction).sum(dim=1, keepdim=True)
        lit = facing > 0
        falloff = torch.where(lit, falloff, 1.0)
        diffuse = diffuse + torch.where(lit, facing / falloff, 0.0) * by_diffuse
        if glossy:
            mirrored = 2 * facing * (n * v).sum(dim=1, keepdim=True) - (light_direction * v).sum(dim=1, keepdim=True)
            there = lit & (mirrored > FAINT)
            peak = torch.where(there, mirrored, 1.0) ** own[:, 3:4] / falloff
            specular = specular + torch.where(there, peak, 0.0) * by_specular
    return torch.cat([diffuse, specular], dim=1)


def unit(vector: torch.Tensor) -> torch.Tensor:
    """Return vectors (..., 3) over their lengths, 0 with gradient 0 where they have none."""
    square = (vector * vector).sum(dim=-1, keepdim=True)
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
    if torch.compiler.is_compiling():
        return  # how many points there are is not known yet: the kernel will see
    if len(image) not in (0, len(normal)) or (len(image) == 0 and len(rows) != 1 and len(normal) > 0):
        raise fail("reflect", "image", f"({len(normal)},), one a point, or empty with one row", image)


WRAPS = ("repeat", "clamp", "mirror")


@outside_autocast
def sample(image: torch.Tensor, uv: torch.Tensor, index: torch.Tensor, *, wrap: str = "repeat") -> torch.Tensor:
    """Sample images bilinearly at texture coordinates.

    Texel (row i, column j) has its centre at u = (j + ½)/W, v = 1 − (i + ½)/H.

    Args:
        image: `(B, H, W, C)`, row 0 on top.
        uv: `(P, 2)`.
        index: `(P,)` integers, which image; empty for the first.
        wrap: what lies beyond [0, 1]: ``"repeat"``, ``"clamp"`` or ``"mirror"``.

    Returns:
        `(P, C)`.

    Gradients: in `image` and `uv`; in `uv` they jump at the centres of texels.

    Example:
        >>> image = torch.tensor([[[[0.0], [1.0]]]])
        >>> sample(image, torch.tensor([[0.5, 0.5]]), torch.zeros(0, dtype=torch.int64))
        tensor([[0.5000]])
    """
    check_sample(image, uv, index, wrap)
    texels, weights = texels_at(uv, image.shape[1], image.shape[2], wrap)
    if len(index):
        texels = texels + (index.long() * (image.shape[1] * image.shape[2]))[:, None]
    return (image.reshape(-1, image.shape[3])[texels] * weights[..., None]).sum(dim=1)


def texels_at(uv: torch.Tensor, height: Any, width: Any, wrap: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Return which texels `(P, 4)` of an image a coordinate lies between, and their weights."""
    x, y = uv[:, 0] * width - 0.5, (1 - uv[:, 1]) * height - 0.5
    left, top = x.detach().floor(), y.detach().floor()
    right, down = x - left, y - top
    columns = [wrapped(left.long() + i, width, wrap) for i in (0, 1)]
    rows = [wrapped(top.long() + i, height, wrap) * width for i in (0, 1)]
    texels = torch.stack([row + column for row in rows for column in columns], dim=1)
    weights = torch.stack([a * b for a in (1 - down, down) for b in (1 - right, right)], dim=1)
    return texels, weights


def wrapped(index: torch.Tensor, size: Any, wrap: str) -> torch.Tensor:
    """Bring rows or columns of an image into [0, size)."""
    if wrap == "repeat":
        return torch.remainder(index, size)
    if wrap == "mirror":
        index = torch.remainder(index, 2 * size)
        return torch.minimum(index, 2 * size - 1 - index)
    return index.clamp(min=0).minimum(torch.as_tensor(size - 1, device=index.device))


def check_sample(image: torch.Tensor, uv: torch.Tensor, index: torch.Tensor, wrap: str) -> None:
    """Check the arguments of `sample`."""
    floating("sample", "image", image, ("B", "H", "W", "C"), finite=False)
    floating("sample", "uv", uv, ("P", 2), finite=False)
    choice("sample", "wrap", wrap, WRAPS)
    if uv.dtype != image.dtype:
        raise fail("sample", "uv", f"of the dtype of `image`, {image.dtype}", uv, error=TypeError)
    if torch.compiler.is_compiling():
        return  # as in check_reflect
    if len(uv) and 0 in image.shape[:3]:
        raise fail("sample", "image", "of one or more images of one or more texels", image)
    if len(index) not in (0, len(uv)):
        raise fail("sample", "index", f"({len(uv)},), one a point, or empty for the first image", index)


@outside_autocast
def composite(alpha: torch.Tensor, color: torch.Tensor, place: torch.Tensor, background: torch.Tensor) -> torch.Tensor:
    """Compose an image of a surface's colours and a background: `alpha·color + (1 − alpha)·background`.

    Args:
        alpha: coverage of all pixels, `(N,)`, float32 or float64.
        color: `(P, C)`, of the pixels that see a surface; the others count as black.
        place: `(P,)` int64, ascending, no pixel twice: which pixels they are.
        background: `(K, C)`, where K divides N: pixel i has row i mod K.

    Returns:
        `(N, C)`.

    Gradients: in `alpha`, `color` and `background`.

    Example:
        >>> white = torch.ones(1, 3)
        >>> composite(torch.tensor([0.0, 0.25]), torch.tensor([[1.0, 0.0, 0.0]]), torch.tensor([1]), white)
        tensor([[1.0000, 1.0000, 1.0000],
                [1.0000, 0.7500, 0.7500]])
    """
    check_composite(alpha, color, place, background)
    if looks_at_values(place):
        check_places(place, len(alpha))
    full = color.new_zeros(len(alpha), color.shape[1]).index_copy(0, place, color)
    rows = background.repeat(len(alpha) // max(len(background), 1), 1)
    return torch.lerp(rows, full, alpha[:, None])


def check_composite(alpha: torch.Tensor, color: torch.Tensor, place: torch.Tensor, background: torch.Tensor) -> None:
    """Check the arguments of `composite`, but for the numbers in `place`."""
    floating("composite", "alpha", alpha, ("N",), finite=False)
    floating("composite", "color", color, ("P", "C"), finite=False)
    floating("composite", "background", background, ("K", color.shape[1]), finite=False)
    if not alpha.dtype == color.dtype == background.dtype:
        expected = f"of the dtype of `alpha`, {alpha.dtype}, as `background`"
        raise fail("composite", "color", expected, color, error=TypeError)
    if len(background) == 0 or len(alpha) % len(background):
        raise fail("composite", "background", f"of a number of rows that divides {len(alpha)}", background)
    if not isinstance(place, torch.Tensor) or place.dtype != torch.int64 or place.shape != color.shape[:1]:
        raise fail("composite", "place", f"int64 of shape ({len(color)},), one for each colour", place)


def check_places(place: torch.Tensor, pixels: int) -> None:
    """Check the numbers in `place`."""
    if len(place) and (int(place[0]) < 0 or int(place[-1]) >= pixels or bool((place[1:] <= place[:-1]).any())):
        raise fail("composite", "place", f"ascending in [0, {pixels}), no pixel twice", place)
