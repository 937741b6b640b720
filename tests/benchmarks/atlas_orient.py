# SPDX-License-Identifier: Apache-2.0
"""Share of the normals of `gd.atlas.orient` on the right side: least and median of several draws.

    python tests/benchmarks/atlas_orient.py                        # 40 000 points, no noise and 0.3 %, eight draws
    python tests/benchmarks/atlas_orient.py --points 1000000 --draws 1 --only torus     # minutes
    python tests/benchmarks/atlas_orient.py --assets FOLDER        # meshes, too

Each draw has points, turn and order of its own. Noise is Gaussian in all directions, relative to the diagonal. On
closed surfaces the right side is the outside; of each sheet of an open one, the side that most of its normals have.
"""

import argparse
import math
import time
from collections.abc import Callable
from pathlib import Path

import torch

import geodiff as gd
from geodiff.atlas.proximity import sample_mesh
from geodiff.scene.mesh import Mesh

Cloud = tuple[torch.Tensor, torch.Tensor, torch.Tensor]  # points, normals, number of the open sheet or −1: closed
Surface = Callable[[int, int], Cloud]


def solid(mesh: Mesh) -> Surface:
    """The surface of a closed mesh."""

    def draw(count: int, seed: int) -> Cloud:
        samples = sample_mesh(mesh, count, seed)
        return samples.points.double(), samples.normals.double(), torch.full((count,), -1)

    return draw


def plate(thickness: float) -> Surface:
    """A box, 1 wide."""
    box = gd.box(1.0)
    return solid(box.with_vertices(box.vertices * torch.tensor([1.0, 1.0, thickness])))


def shells(*radii: float) -> Surface:
    """Balls in balls, every other one a cavity."""

    def draw(count: int, seed: int) -> Cloud:
        area = torch.tensor(radii).square()
        numbers = (count * area / area.sum()).long().tolist()
        parts = []
        for k, (radius, number) in enumerate(zip(radii, numbers, strict=True)):
            points, normals, sheet = solid(gd.icosphere(5, radius=radius))(number, seed * 7 + k)
            parts.append((points, normals * (-1) ** k, sheet))
        return tuple(torch.cat(part) for part in zip(*parts, strict=True))  # type: ignore[return-value]

    return draw


def patch(place: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]) -> Surface:
    """An open surface over the unit square, uniform in area by rejection."""

    def draw(count: int, seed: int) -> Cloud:
        generator = torch.Generator().manual_seed(seed)
        uv = torch.rand(2, 6 * count, generator=generator, dtype=torch.float64)

        def at(w: torch.Tensor) -> torch.Tensor:
            return place(w[0], w[1])

        def along(axis: int) -> torch.Tensor:
            step = torch.zeros(2, 1, dtype=torch.float64)
            step[axis] = 1e-6
            return (at(uv + step) - at(uv - step)) / 2e-6

        normals = torch.linalg.cross(along(0), along(1))
        size = normals.norm(dim=1)
        keep = (torch.rand(len(size), generator=generator, dtype=torch.float64) * size.max() < size).nonzero()[
            :count, 0
        ]
        return at(uv)[keep], normals[keep] / size[keep, None], torch.zeros(len(keep), dtype=torch.long)

    return draw


def _wave(u: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    return torch.stack([2 * u - 1, 2 * v - 1, 0.2 * (10 * u - 5).sin() * (8 * v - 4).cos()], 1)


def _pipe(u: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    return torch.stack([0.3 * (2 * math.pi * u).cos(), 0.3 * (2 * math.pi * u).sin(), 2 * v], 1)


def _half(u: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    ring = (1 - v * v).clamp(min=0).sqrt()
    return torch.stack([ring * (2 * math.pi * u).cos(), ring * (2 * math.pi * u).sin(), v], 1)


def _roll(u: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    angle, r = 6 * math.pi * u, 0.1 + 0.3 * math.pi * u
    return torch.stack([r * angle.cos(), r * angle.sin(), 1.5 * v], 1)


def sheets(gap: float) -> Surface:
    """Two parallel squares."""

    def draw(count: int, seed: int) -> Cloud:
        one = patch(lambda u, v: torch.stack([u, v, 0 * u], 1))
        (a, n, s), (b, m, _) = one(count // 2, 2 * seed), one(count - count // 2, 2 * seed + 1)
        return (
            torch.cat([a, b + torch.tensor([0, 0, gap])]),
            torch.cat([n, m]),
            torch.cat([s, torch.ones(len(b))]).long(),
        )

    return draw


def tube(inner: float) -> Surface:
    """A tube with a wall, of outer radius 1 and length 2."""

    def draw(count: int, seed: int) -> Cloud:
        generator = torch.Generator().manual_seed(seed)
        area = torch.tensor([2.0, 2 * inner, 1 - inner**2])
        part = torch.multinomial(area, count, replacement=True, generator=generator)
        angle, w, side = torch.rand(3, count, generator=generator, dtype=torch.float64)
        radius = torch.where(part == 0, 1.0, torch.where(part == 1, inner, (inner**2 + w * (1 - inner**2)).sqrt()))
        side = (side < 0.5).double() * 2 - 1
        round_ = torch.stack([angle.mul(2 * math.pi).cos(), angle.mul(2 * math.pi).sin(), 0 * w], 1)
        z = torch.where(part == 2, side, 2 * w - 1)
        points = radius[:, None] * round_ + z[:, None] * torch.tensor([0, 0, 1.0])
        normals = torch.where((part == 2)[:, None], side[:, None] * torch.tensor([0, 0, 1.0]),
                              torch.where(part == 1, -1.0, 1.0)[:, None] * round_)  # fmt: skip
        return points, normals, torch.full((count,), -1)

    return draw


SURFACES: dict[str, Surface] = {
    "ball": solid(gd.icosphere(5)),
    "box": solid(gd.box(1.0)),
    "torus": solid(gd.torus(1.0, 0.4)),
    "two shells": shells(1, 0.8),
    "three shells": shells(1, 0.8, 0.5),
    "plate 0.02": plate(0.02),
    "plate 0.01": plate(0.01),
    "plate 0.005": plate(0.005),
    "tube 0.94": tube(0.94),
    "half a ball": patch(_half),
    "pipe": patch(_pipe),
    "wave": patch(_wave),
    "roll": patch(_roll),
    "sheets 0.05": sheets(0.05),
    "sheets 0.01": sheets(0.01),
}


def share_right(surface: Surface, count: int, noise: float, seed: int) -> tuple[float, float]:
    """Share of the normals on the right side, and processor seconds."""
    points, truth, sheet = surface(count, seed)
    generator = torch.Generator().manual_seed(1000 + seed)
    diagonal = float((points.amax(0) - points.amin(0)).norm())
    points = points + noise * diagonal * torch.randn(points.shape, generator=generator, dtype=torch.float64)
    turn = torch.linalg.qr(torch.randn(3, 3, generator=generator, dtype=torch.float64))[0]
    turn[:, 0] *= torch.linalg.det(turn).sign()
    order = torch.randperm(len(points), generator=generator)
    begin = time.process_time()
    found = gd.atlas.orient((points @ turn.T)[order]).normals
    seconds = time.process_time() - begin
    right = torch.empty(len(points), dtype=torch.bool)
    right[order] = (found * (truth @ turn.T)[order]).sum(1) > 0
    for number in sheet.unique().tolist():
        own = sheet == number
        if number >= 0 and right[own].double().mean() < 0.5:
            right[own] = ~right[own]
    return float(right.double().mean()), seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--points", type=int, nargs="+", default=[40_000])
    parser.add_argument("--noise", type=float, nargs="+", default=[0, 0.003])
    parser.add_argument("--draws", type=int, default=8)
    parser.add_argument("--first", type=int, default=0, help="seed of the first draw")
    parser.add_argument("--assets", type=Path, help="folder of meshes that are looked at, too")
    parser.add_argument("--only", nargs="+", default=[""], help="surfaces whose names have one of these in them")
    options = parser.parse_args()
    surfaces = dict(SURFACES)
    for path in sorted(options.assets.glob("*.obj")) if options.assets else []:
        surfaces[path.stem] = solid(gd.Mesh.load(path))
    print("| surface | points | noise | least | median | least seconds | most |\n|---|---|---|---|---|---|---|")
    for name, surface in surfaces.items():
        if not any(some in name for some in options.only):
            continue
        for count in options.points:
            for noise in options.noise:
                rows = [share_right(surface, count, noise, options.first + s) for s in range(options.draws)]
                share, seconds = (sorted(part) for part in zip(*rows, strict=True))
                middle = share[len(share) // 2]
                print(f"| {name} | {count} | {100 * noise:g} % | {share[0]:.4f} | {middle:.4f} | {seconds[0]:.1f} | "
                      f"{seconds[-1]:.1f} |", flush=True)  # fmt: skip


if __name__ == "__main__":
    main()
