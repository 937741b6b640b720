# SPDX-License-Identifier: Apache-2.0
"""What the two image-plane ops share: checks of packed meshes, and where the pixels are."""

import itertools
from collections.abc import Iterator, Sequence
from typing import Any

import torch

from geodiff.validation import fail, floating, matches, positive


def check_packed(
    where: str,
    clip: torch.Tensor,
    faces: torch.Tensor,
    layout: torch.Tensor,
    image_size: Sequence[int],
    near: float,
    indices: bool = True,
) -> None:
    """Check the arguments that silhouettes and the rasteriser have in common.

    Args:
        where: the public function, for the message.
        clip: vertices of all images, `(N, 4)`.
        faces: corners of all faces, `(F, 3)`, indices local to the image's mesh.
        layout: one row `[vertex_start, face_start, face_count]` an image, `(B, 3)`.
        image_size: `(H, W)`.
        near: depth of the near plane.
        indices: look at the numbers in `faces` and `layout`, too. The kernels do that themselves, inside of the op,
            since they are unknown while torch.compile traces.

    Raises:
        TypeError: for a wrong dtype or class.
        ValueError: for a wrong shape, a value out of range, NaN or infinity.
    """
    floating(where, "clip", clip, ("N", 4), "Use camera.to_clip(points).")
    _check_integers(where, "faces", faces, "F", "Triangulate quads first.")
    _check_integers(where, "layout", layout, "B", "One row [vertex_start, face_start, face_count] an image.")
    positive(where, "near", near, "It is a depth in the units of the scene.")
    sizes = list(image_size) if isinstance(image_size, Sequence) else []
    if len(sizes) != 2 or not all(isinstance(n, int) and n > 0 for n in sizes):
        raise fail(where, "image_size", "two positive integers (H, W)", image_size, "Give rows, then columns.")
    if indices:
        check_indices(where, clip, faces, layout)


def check_indices(where: str, clip: torch.Tensor, faces: torch.Tensor, layout: torch.Tensor) -> None:
    """Check that layout and faces stay within what there is, and that no images share vertices.

    Arguments and errors are those of `check_packed`. Gradients of shared vertices would be added to from image after
    image, in no fixed order.
    """
    ends = []
    for image, (vertex_start, face_start, face_count) in enumerate(layout.tolist()):
        if vertex_start < 0 or face_start < 0 or face_count < 0 or face_start + face_count > len(faces):
            row = f"row {image} = {[vertex_start, face_start, face_count]}"
            fix = "A row is [vertex_start, face_start, face_count]."
            raise fail(where, "layout", f"non-negative and within the {len(faces)} faces", row, fix)
        if face_count == 0:
            continue
        own = faces[face_start : face_start + face_count]
        least, most = own.aminmax()
        low, high, count = int(least), int(most), len(clip) - vertex_start
        if low < 0 or high >= count:
            got = f"{low if low < 0 else high} in image {image}"
            raise fail(where, "faces", f"indices from 0 to {count - 1}", got, "Indices count from 0.")
        ends.append((vertex_start + low, vertex_start + high, image))
    ends.sort()
    for (_, last, one), (first, _, other) in itertools.pairwise(ends):
        if first <= last:
            got = f"vertex {first} in images {one} and {other}"
            raise fail(where, "layout", "of images that share no vertices", got, "Repeat the vertices for each image.")


def _check_integers(where: str, argument: str, value: Any, axis: str, fix: str) -> None:
    expected = f"an integer tensor of shape ({axis}, 3)"
    if not isinstance(value, torch.Tensor) or value.dtype.is_floating_point or value.dtype in (torch.bool,):
        raise fail(where, argument, expected, value, fix, TypeError)
    if not matches(value.shape, (axis, 3)):
        raise fail(where, argument, expected, value, fix)


def face_corners(clip: torch.Tensor, faces: torch.Tensor, row: Sequence[int]) -> torch.Tensor:
    """Gather the corners of one image's faces.

    Args:
        clip: vertices of all images, `(N, 4)`.
        faces: corners of all faces, `(F_total, 3)`, indices local to the image's mesh.
        row: the image's `[vertex_start, face_start, face_count]`.

    Returns:
        Corners in clip coordinates, `(F, 3, 4)`.
    """
    vertex_start, face_start, face_count = row
    return clip[faces[face_start : face_start + face_count].long() + vertex_start]


def pixel_centres(image_size: Sequence[int], like: torch.Tensor) -> torch.Tensor:
    """Return the pixel centres of an image in NDC, row by row from the top left.

    Pixel (row i, column j) of an `H × W` image is at `((2j + 1 − W)/s, (H − 1 − 2i)/s)` with `s = min(H, W)`: whole
    numbers divided once, so each is the number of its dtype nearest to the exact position, as in the kernels.

    Args:
        image_size: `(H, W)`.
        like: a tensor whose dtype and device the result takes.

    Returns:
        Points `(H·W, 2)`: x to the right, y up.

    Example:
        >>> pixel_centres((1, 2), torch.zeros(1))
        tensor([[-1.,  0.],
                [ 1.,  0.]])
    """
    height, width = image_size
    shorter = min(height, width)
    x = torch.arange(1 - width, width, 2, dtype=like.dtype, device=like.device) / shorter
    y = torch.arange(height - 1, -height, -2, dtype=like.dtype, device=like.device) / shorter
    return torch.stack([x.expand(height, width), y[:, None].expand(height, width)], dim=-1).reshape(-1, 2)


def pixel_chunks(pixels: torch.Tensor, face_count: int, chunk: int) -> Iterator[torch.Tensor]:
    """Cut the pixels into pieces of at most `chunk` (pixel, face) pairs, and of at least one pixel."""
    yield from pixels.split(max(1, chunk // max(1, face_count)))
