# SPDX-License-Identifier: Apache-2.0
"""Solids of known genus, made of simple parts: four to choose settings on, and twelve others to report."""

import math
from collections.abc import Callable
from typing import NamedTuple

import torch

import geodiff as gd

Field = Callable[[torch.Tensor], torch.Tensor]


_Y, _X = math.radians(20.0), math.radians(12.0)
_TURN = torch.tensor([[1.0, 0, 0], [0, math.cos(_X), -math.sin(_X)], [0, math.sin(_X), math.cos(_X)]]) @ torch.tensor(
    [[math.cos(_Y), 0, math.sin(_Y)], [0, 1.0, 0], [-math.sin(_Y), 0, math.cos(_Y)]]
)


class Solid(NamedTuple):
    """An implicit solid.

    Attributes:
        field: points (N, 3) to values (N,), negative inside, about the distance.
        genus: of all of its surfaces together.
        components: how many there are.
    """

    field: Field
    genus: int
    components: int = 1

    def mesh(self, resolution: int = 160) -> gd.Mesh:
        """Return its surface, the longest side of its box 1, around the origin, turned.

        Turned, so that no camera looks along a face, which would say more or less than cameras commonly do.
        """
        mesh = gd.isosurface(self.field, bounds=[[-1.0] * 3, [1.0] * 3], resolution=resolution, gradient="normal")
        return mesh.detach().normalized("box").rotated(_TURN)


def ball(centre: list[float], radius: float) -> Field:
    return lambda p: (p - p.new_tensor(centre)).norm(dim=-1) - radius


def rod(start: list[float], end: list[float], radius: float) -> Field:
    def field(p: torch.Tensor) -> torch.Tensor:
        a, d = p.new_tensor(start), p.new_tensor(end) - p.new_tensor(start)
        t = ((p - a) @ d / (d @ d)).clamp(0, 1)
        return (p - a - t[:, None] * d).norm(dim=-1) - radius

    return field


def block(centre: list[float], half: list[float], rounding: float = 0.02) -> Field:
    def field(p: torch.Tensor) -> torch.Tensor:
        q = (p - p.new_tensor(centre)).abs() - p.new_tensor(half) + rounding
        return q.clamp_min(0).norm(dim=-1) + q.amax(-1).clamp_max(0) - rounding

    return field


def ring(centre: list[float], axis: int, large: float, small: float) -> Field:
    def field(p: torch.Tensor) -> torch.Tensor:
        q = p - p.new_tensor(centre)
        others = [k for k in range(3) if k != axis]
        return torch.hypot(q[:, others].norm(dim=-1) - large, q[:, axis]) - small

    return field


def drum(centre: list[float], axis: int, radius: float, half: float) -> Field:
    """A cylinder."""

    def field(p: torch.Tensor) -> torch.Tensor:
        q = p - p.new_tensor(centre)
        others = [k for k in range(3) if k != axis]
        return torch.maximum(q[:, others].norm(dim=-1) - radius, q[:, axis].abs() - half)

    return field


def union(*fields: Field, blend: float = 0.03) -> Field:
    """Unite, with fillets of about ``blend``."""

    def field(p: torch.Tensor) -> torch.Tensor:
        total = fields[0](p)
        for other in fields[1:]:
            value = other(p)
            overlap = (blend - (total - value).abs()).clamp_min(0) / blend
            total = torch.minimum(total, value) - 0.25 * blend * overlap.square()
        return total

    return field


def cut(first: Field, *others: Field, blend: float = 0.03) -> Field:
    """Take the others away from the first."""

    def field(p: torch.Tensor) -> torch.Tensor:
        return -union(lambda q: -first(q), *others, blend=blend)(p)

    return field


def frame(corners: list[list[float]], bars: list[tuple[int, int]], radius: float) -> Field:
    return union(*[rod(corners[a], corners[b], radius) for a, b in bars])


_CUBE = [[x, y, z] for x in (-0.6, 0.6) for y in (-0.6, 0.6) for z in (-0.6, 0.6)]
_CUBE_BARS = [(a, b) for a in range(8) for b in range(a) if bin(a ^ b).count("1") == 1]
_TETRA = [[0.7, 0.5, -0.35], [-0.7, 0.5, -0.35], [0.0, 0.5, 0.8], [0.0, -0.7, 0.0]]
_TETRA_BARS = [(0, 1), (1, 2), (0, 2), (0, 3), (1, 3), (2, 3)]

TRAIN: dict[str, Solid] = {
    "snowman with a thin brim": Solid(
        union(ball([0, -0.4, 0], 0.4), ball([0, 0.2, 0], 0.28), drum([0, 0.45, 0], 1, 0.4, 0.025)), 0
    ),
    "dart": Solid(
        union(
            rod([0, 0, -0.9], [0, 0, 0.8], 0.06),
            block([0, 0, -0.6], [0.5, 0.015, 0.2]),
            block([0, 0.2, -0.6], [0.015, 0.25, 0.15]),
        ),
        0,
    ),
    "anchor": Solid(
        union(
            ring([0, 0.6, 0], 2, 0.15, 0.05),
            rod([0, 0.45, 0], [0, -0.7, 0], 0.06),
            rod([-0.5, -0.45, 0], [0, -0.75, 0], 0.06),
            rod([0.5, -0.45, 0], [0, -0.75, 0], 0.06),
        ),
        1,
    ),
    "prism of rods": Solid(
        frame(
            [[0.6 * math.cos(a), y, 0.6 * math.sin(a)] for y in (-0.5, 0.5) for a in (0.3, 2.4, 4.5)],
            [(0, 1), (1, 2), (2, 0), (3, 4), (4, 5), (5, 3), (0, 3), (1, 4), (2, 5)],
            0.07,
        ),
        4,
    ),
}

TEST: dict[str, Solid] = {
    "three balls": Solid(
        union(ball([-0.4, 0, 0], 0.4), ball([0.3, 0.2, 0.1], 0.35), ball([0.1, -0.4, 0.3], 0.3), blend=0.15), 0
    ),
    "thin blade": Solid(
        union(
            block([0, 0.2, 0], [0.12, 0.6, 0.02], 0.02),
            rod([0, -0.4, 0], [0, -0.85, 0], 0.06),
            block([0, -0.38, 0], [0.3, 0.04, 0.05]),
        ),
        0,
    ),
    "pipe bend": Solid(
        union(
            rod([-0.7, -0.4, 0], [0.3, -0.4, 0], 0.16),
            rod([0.3, -0.4, 0], [0.3, 0.6, 0.3], 0.16),
            drum([-0.7, -0.4, 0], 0, 0.3, 0.04),
        ),
        0,
    ),
    "ring": Solid(ring([0, 0, 0], 2, 0.65, 0.09), 1),
    "padlock": Solid(union(block([0, -0.35, 0], [0.45, 0.35, 0.15], 0.05), ring([0, 0.05, 0], 2, 0.3, 0.07)), 1),
    "ring over a ball": Solid(union(ball([0, -0.45, 0], 0.35), ring([0, 0.4, 0], 2, 0.35, 0.07)), 1, 2),
    "slab with two holes": Solid(
        cut(block([0, 0, 0], [0.8, 0.45, 0.1]), drum([-0.38, 0, 0], 2, 0.26, 0.5), drum([0.38, 0, 0], 2, 0.26, 0.5)), 2
    ),
    "two standing rings": Solid(union(ring([-0.5, 0, 0.0], 2, 0.32, 0.08), ring([0.5, 0, 0.0], 0, 0.32, 0.08)), 2, 2),
    "tetrahedron of rods": Solid(frame(_TETRA, _TETRA_BARS, 0.06), 3),
    "slab with three holes": Solid(
        cut(block([0, 0, 0], [0.25 * 3.6, 0.3, 0.09]), *[drum([x, 0, 0], 2, 0.19, 0.5) for x in (-0.58, 0, 0.58)]), 3
    ),
    "ladder": Solid(
        union(
            rod([-0.35, -0.9, 0], [-0.35, 0.9, 0], 0.05),
            rod([0.35, -0.9, 0], [0.35, 0.9, 0], 0.05),
            *[rod([-0.35, y, 0], [0.35, y, 0], 0.04) for y in (-0.72, -0.36, 0.0, 0.36, 0.72)],
        ),
        4,
    ),
    "cube of rods": Solid(frame(_CUBE, _CUBE_BARS, 0.07), 5),
}


def genus_and_components(mesh: gd.Mesh) -> tuple[int, int]:
    """Return the genus of a closed mesh's surfaces together, and how many there are."""
    label = torch.arange(mesh.num_vertices)
    while True:
        lowest = label.clone()
        for a, b in ((0, 1), (1, 0)):
            lowest.scatter_reduce_(0, mesh.edges[:, a], label[mesh.edges[:, b]], "amin")
        lowest = lowest[lowest]
        if torch.equal(lowest, label):
            break
        label = lowest
    used = torch.zeros(mesh.num_vertices, dtype=torch.bool)
    used[mesh.faces.reshape(-1)] = True
    parts = len(label[used].unique())
    return (2 * parts - mesh.euler_characteristic) // 2, parts
