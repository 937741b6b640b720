# SPDX-License-Identifier: Apache-2.0
"""Clouds of known surfaces, with noise."""

import math

import torch


def plane(count: int, noise: float = 0.0, height: float = 0.0) -> torch.Tensor:
    """The square [0, 1]² at z = height, noise across it."""
    flat = torch.rand(count, 2)
    return torch.cat([flat, height + noise * torch.randn(count, 1)], 1)


def sphere(count: int, noise: float = 0.0) -> torch.Tensor:
    """The unit sphere, noise in all directions."""
    return torch.nn.functional.normalize(torch.randn(count, 3), dim=1) + noise * torch.randn(count, 3)


def torus(count: int, noise: float = 0.0) -> torch.Tensor:
    """The torus of radii 1 and 0.4 about the z axis, uniform by rejection, noise in all directions."""
    v = 2 * math.pi * torch.rand(4 * count)
    v = v[torch.rand(len(v)) * 1.4 < 1 + 0.4 * torch.cos(v)][:count]
    u = 2 * math.pi * torch.rand(count)
    ring = 1 + 0.4 * torch.cos(v)
    points = torch.stack([ring * torch.cos(u), ring * torch.sin(u), 0.4 * torch.sin(v)], 1)
    return points + noise * torch.randn(count, 3)


def from_torus(points: torch.Tensor) -> torch.Tensor:
    """Distances from that torus."""
    ring = points[:, :2].norm(dim=1) - 1
    return (torch.stack([ring, points[:, 2]], 1).norm(dim=1) - 0.4).abs()


def sheets(count: int, gap: float) -> torch.Tensor:
    """Two squares, `count` points on each, the second `gap` above the first."""
    return torch.cat([plane(count), plane(count, height=gap)])
