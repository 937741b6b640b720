# SPDX-License-Identifier: Apache-2.0
"""Shapes with solutions that are known."""

import math
from collections.abc import Callable

import torch

import geodiff as gd
from geodiff import splines

F64 = torch.float64


def sine(x: torch.Tensor) -> torch.Tensor:
    """∏ sin πx_a."""
    return torch.sin(math.pi * x).prod(-1)


def sine_source(x: torch.Tensor) -> torch.Tensor:
    """−Δ of it."""
    return x.shape[-1] * math.pi**2 * sine(x)


def annulus(degree: int = 2, spans: int = 4) -> gd.NURBSSurface:
    """The quarter of the ring 1 < r < 2 with x, y > 0, exactly, counter-clockwise."""
    ring = torch.tensor([[1.0, 0], [1, 1], [0, 1]], dtype=F64)
    net = torch.stack([ring, 2 * ring])
    weights = torch.tensor([1.0, math.sqrt(0.5), 1.0], dtype=F64).expand(2, 3)
    ends = [0.0, 0, 0, 1, 1, 1]
    surface = gd.NURBSSurface(net, torch.tensor([0.0, 0, 1, 1]), torch.tensor(ends), weights, degree=(1, 2))
    surface = (
        splines.elevated(splines.elevated(surface, degree - 1, axis=0), degree - 2, axis=1)
        if degree > 2
        else (splines.elevated(surface, 1, axis=0))
    )
    inner = torch.arange(1, spans, dtype=F64) / spans
    return splines.insert_knots(splines.insert_knots(surface, inner, axis=0), inner, axis=1)


def annulus_field(x: torch.Tensor) -> torch.Tensor:
    """0 all around the annulus."""
    square = x[..., :2].square().sum(-1)
    return (square - 1) * (square - 4) * x[..., 0] * x[..., 1] / 4


def annulus_source(x: torch.Tensor) -> torch.Tensor:
    """−Δ of it."""
    return (15 - 8 * x[..., :2].square().sum(-1)) * x[..., 0] * x[..., 1]


def l2_error(space: gd.fem.Space, c: torch.Tensor, exact: Callable[[torch.Tensor], torch.Tensor]) -> float:
    """The norm of the difference to a function of positions, by the space's own quadrature."""
    off = [
        (value - exact(group.points)).square() for value, group in zip(space.at_points(c), space.groups, strict=True)
    ]
    return float(space.integral(off).sqrt())
