# SPDX-License-Identifier: Apache-2.0
"""The pure-torch twin of the colours of textured surfaces in light."""

import torch

from geodiff.modes import outside_autocast
from geodiff.reference.fragments import blend, check_blend
from geodiff.reference.shading import check_reflect, check_sample, reflect, sample
from geodiff.validation import fail


@outside_autocast
def surface(
    uv: torch.Tensor,
    uv_corners: torch.Tensor,
    frame: torch.Tensor,
    corners: torch.Tensor,
    weight: torch.Tensor,
    image: torch.Tensor,
    rows: torch.Tensor,
    kinds: torch.Tensor,
    texture: torch.Tensor,
    *,
    wrap: str = "repeat",
    parallel_view: bool = False,
    glossy: bool = True,
) -> torch.Tensor:
    """Colour textured surfaces in light: `blend`, `sample` and `reflect` at once, `albedo·diffuse + highlight`.

    Args:
        uv: texture coordinates, `(T, 2)`.
        uv_corners: `(P, 3)` integers, rows of `uv`: of the corners of each point's face.
        frame: point (3) and normal (3) of each vertex, `(V, 6)`.
        corners: `(P, 3)` integers, rows of `frame`.
        weight: `(P, 3)`, the barycentrics.
        image: `(P,)` integers, ascending: the row and the texture of each point; empty where there is one of both.
        rows: numbers of each image, `(1 or B, 7 + 12·L)`, as of `reflect`.
        kinds: `(L,)` integers, 0 for directional, 1 for point lights.
        texture: `(1 or B, H, W, 3)`.
        wrap: of the texture, as of `sample`.
        parallel_view: the viewer is a direction.
        glossy: whether there are highlights.

    Returns:
        `(P, 3)`.

    Gradients: in `uv`, `frame`, `weight`, `rows` and `texture`; they jump where those of `sample` and `reflect` do.

    Example:
        >>> frame, weight = torch.tensor([[0.0, 0.0, 0.0, 0.0, 0.0, 1.0]]), torch.full((1, 3), 1 / 3)
        >>> row = torch.tensor([[0.0, 0, 1, 8, 0.1, 0.1, 0.1, 0, 0, 1, 0.5, 0.5, 0.5, 0, 0, 0, 1, 0, 0]])
        >>> one, none = torch.zeros(1, dtype=torch.int32), torch.zeros(0, dtype=torch.int32)
        >>> red = torch.tensor([[[[1.0, 0.0, 0.0]]]])
        >>> corners = torch.zeros(1, 3, dtype=torch.int32)
        >>> surface(torch.tensor([[0.5, 0.5]]), corners, frame, corners, weight, none, row, one, red)
        tensor([[0.6000, 0.0000, 0.0000]])
    """
    check_surface(uv, uv_corners, frame, corners, weight, image, rows, kinds, texture, wrap)
    point, normal = blend(frame, corners, weight).split(3, dim=1)
    light = reflect(
        rows, kinds, image if len(rows) > 1 else image[:0], normal, point, parallel_view=parallel_view, glossy=glossy
    )
    albedo = sample(texture, blend(uv, uv_corners, weight), image if len(texture) > 1 else image[:0], wrap=wrap)
    return albedo * light[:, :3] + light[:, 3:]


def check_surface(
    uv: torch.Tensor,
    uv_corners: torch.Tensor,
    frame: torch.Tensor,
    corners: torch.Tensor,
    weight: torch.Tensor,
    image: torch.Tensor,
    rows: torch.Tensor,
    kinds: torch.Tensor,
    texture: torch.Tensor,
    wrap: str,
) -> None:
    """Check the arguments of `surface`, but for the numbers in the corners and in `image`."""
    check_blend(uv, uv_corners, weight)
    check_blend(frame, corners, weight)
    for name, value, columns in (("uv", uv, 2), ("frame", frame, 6), ("weight", weight, 3)):
        if value.shape[1] != columns:
            raise fail("surface", name, f"of {columns} columns", value)
    # Points and normals have the shape and dtype of the weights.
    check_reflect(rows, kinds, image if len(rows) > 1 else image[:0], weight, weight)
    check_sample(texture, weight[:, :2], image if len(texture) > 1 else image[:0], wrap)
    if texture.shape[3] != 3:
        raise fail("surface", "texture", "of 3 channels", texture)
    compiling = torch.compiler.is_compiling()  # how many points there are is not known yet: the kernel will see
    if not compiling and len(image) not in (0, len(weight)):
        raise fail("surface", "image", f"({len(weight)},), one a point, or empty", image)
    batch = {len(rows), len(texture)} - {1}
    if len(batch) > 1:
        expected = f"1 or as many as there are rows, {len(rows)}"
        raise fail("surface", "texture", f"of a batch of {expected}", texture)
    if batch and not compiling and len(image) == 0 and len(weight) > 0:
        raise fail("surface", "image", f"({len(weight)},), one a point, where images have rows or textures", image)
