# SPDX-License-Identifier: Apache-2.0
"""Random knot vectors, splines and parameters that the tests of this room share."""

import torch

import geodiff as gd

F64 = torch.float64
# Values of order one through a triangle of at most 8 steps: rounding alone, and far below what any mistake gives.
EXACT = 1e-12


def random_knots(
    generator: torch.Generator, count: int, degree: int, kind: str = "clamped", repeats: int = 0
) -> torch.Tensor:
    """Draw K + P + 1 knots in float64; `repeats` interior ones are moved onto their left neighbour."""
    steps = 0.2 + torch.rand(count + degree + 1, generator=generator, dtype=F64)
    knots = steps.cumsum(0)
    inner = list(range(degree + 1, count))
    for i in inner[1 : 1 + repeats]:
        knots[i] = knots[i - 1]
    if kind == "clamped":
        knots[:degree] = knots[degree]
        knots[count:] = knots[count]
    return knots


def random_surface(seed: int, **options) -> gd.NURBSSurface:
    """Draw a rational surface of degree (3, 2) over uneven knots, 6 × 5 control points."""
    g = torch.Generator().manual_seed(seed)
    rows, columns = torch.meshgrid(torch.arange(6.0, dtype=F64), torch.arange(5.0, dtype=F64), indexing="ij")
    net = torch.stack([rows, columns, 0 * rows], -1) + 0.4 * torch.randn(6, 5, 3, generator=g, dtype=F64)
    weights = 0.5 + torch.rand(6, 5, generator=g, dtype=F64)
    return gd.NURBSSurface(
        net, random_knots(g, 6, 3), random_knots(g, 5, 2, "unclamped"), weights, degree=(3, 2), **options
    )


def inside(generator: torch.Generator, low: float, high: float, count: int) -> torch.Tensor:
    """Draw parameters inside of a domain."""
    return low + (high - low) * torch.rand(count, generator=generator, dtype=F64)
