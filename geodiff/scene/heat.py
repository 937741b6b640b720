# SPDX-License-Identifier: Apache-2.0
"""Distances on a surface by the heat method (Crane, Weischedel and Wardetzky, ACM TOG 32, 2013).

Heat that starts at the sources flows for a short time t: `(M + t K) u = δ`. Its slope points to the sources, its length
is of no use; the distance is the function whose slope is −∇u / |∇u| as nearly as can be: `K d = ∫ ∇R · (−∇u / |∇u|)`,
0 at the sources. Both systems are linear and sparse, so all is differentiable.

Nothing but lengths of edges is looked at. Where a triangle is flat, all of them are made a little longer first
(Sharp and Crane, "A Laplacian for nonmanifold triangle meshes", 2020), which spares needles a division by zero.
"""

import torch

from geodiff.sparse import SparseMatrix, linear

FLAT = 1e-5  # of the mean length: what two sides of a triangle must exceed the third by
FARTHEST = 300.0  # diffusion lengths √t: heat falls by e each, and ends at e⁻⁷⁰⁰


def heat_distances(
    lengths: torch.Tensor, faces: torch.Tensor, sources: torch.Tensor, count: int, farthest: torch.Tensor
) -> torch.Tensor:
    """Return distances (count,) from the sources.

    Args:
        lengths: (F, 3) float64 of the sides opposite to each corner.
        faces: (F, 3), each vertex of which hangs together with a source.
        sources: (S,) vertices.
        count: of vertices, all of which faces have.
        farthest: an estimate of the largest distance.
    """
    size = lengths.mean()
    lack = (2 * lengths.amax(1) - lengths.sum(1)).amax() + FLAT * size
    lengths = lengths + lack.clamp_min(0)
    slopes, areas = _slopes(lengths)
    time = torch.maximum(size, farthest / FARTHEST) ** 2
    rows, columns = faces[:, :, None].expand(-1, 3, 3), faces[:, None, :].expand(-1, 3, 3)
    own = slopes @ slopes.mT * areas[:, None, None]
    stiffness = SparseMatrix(rows.reshape(-1), columns.reshape(-1), own.reshape(-1), (count, count), positive=True)
    third = (areas / 3)[:, None].expand(-1, 3).reshape(-1)
    mass = SparseMatrix(faces.reshape(-1), faces.reshape(-1), third, (count, count), positive=True)
    heat = linear(mass + stiffness * time, torch.zeros(count, dtype=lengths.dtype).index_fill(0, sources, 1.0))
    rise = (slopes * heat[faces][..., None]).sum(1)
    steep = rise.square().sum(1, keepdim=True)
    unit = torch.where(steep > 0, -rise / torch.where(steep > 0, steep, 1.0).sqrt(), 0.0)
    parts = (slopes @ unit[..., None])[..., 0] * areas[:, None]
    load = parts.new_zeros(count).index_add(0, faces.reshape(-1), parts.reshape(-1))
    free = torch.ones(count, dtype=torch.bool).index_fill(0, sources, False).nonzero()[:, 0]
    away = linear(stiffness.part(free, free), load[free])
    # The fit may fall a little below zero beside a source.
    return torch.zeros(count, dtype=lengths.dtype).index_copy(0, free, away.clamp_min(0))


def _slopes(lengths: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the slopes (F, 3, 2) of the three functions that are 1 at a corner, laid flat, and areas (F,)."""
    a, b, c = lengths.unbind(1)  # the first corner at 0, the second at (c, 0)
    x = (b * b + c * c - a * a) / (2 * c)
    # Kahan's form of Heron's formula, which keeps the digits of needles.
    high, low = torch.maximum(torch.maximum(a, b), c), torch.minimum(torch.minimum(a, b), c)
    mid = a + b + c - high - low
    square = (high + (mid + low)) * (low - (high - mid)) * (low + (high - mid)) * (high + (mid - low))
    areas = square.sqrt() / 4
    y = 2 * areas / c
    zero = torch.zeros_like(x)
    first = torch.stack([-1 / c, (x - c) / (c * y)], -1)
    second = torch.stack([1 / c, -x / (c * y)], -1)
    third = torch.stack([zero, 1 / y], -1)
    return torch.stack([first, second, third], 1), areas
