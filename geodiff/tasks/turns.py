# SPDX-License-Identifier: Apache-2.0
"""Views by turns: what is computed of each view alone takes the memory of a few, however many there are."""

from collections.abc import Callable

import torch

from geodiff.scene.files import PosedImages
from geodiff.scene.mesh import Mesh

_MOST = 2**23  # pixels at a time; a soft image takes some 30 bytes for each


def turns(count: int, image_size: tuple[int, int], most: int = _MOST) -> list[slice]:
    """Return slices of views, each of at most so many pixels, or of one view; one slice where all are few."""
    step = max(1, most // max(1, image_size[0] * image_size[1]))
    return [slice(i, min(i + step, count)) for i in range(0, count, step)] or [slice(0, 0)]


def summed_by_turns(
    function: Callable[[Mesh, PosedImages], torch.Tensor], mesh: Mesh, views: PosedImages, parts: list[slice]
) -> torch.Tensor:
    """Return the sum over parts of the views of a function of mesh and part.

    Gradients: in the mesh's vertices, once. Each part's graph is let go before that of the next is made.
    """
    if len(parts) == 1:
        return function(mesh, views)
    vertices = mesh.vertices
    leaf = vertices.detach().requires_grad_(vertices.requires_grad)
    total = vertices.new_zeros(())
    for part in parts:
        value = function(mesh.with_vertices(leaf), views[part])
        if value.requires_grad:
            value.backward()
        total = total + value.detach()
    return total if leaf.grad is None else total + (leaf.grad * (vertices - vertices.detach())).sum()
