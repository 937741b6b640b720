# SPDX-License-Identifier: Apache-2.0
"""Iso-surfaces: the derivative of a ball's volume, and time beside scikit-image's marching cubes in one run.

    python tests/benchmarks/isosurface.py [--size 256] [--threads 1]

The derivative is that of the mesh (``gradient="edges"``) against 4πr², as a share, over radii: how the surface lies to
the grid decides, so the worst and the root mean square count. Marching cubes has no gradient: differences are
shown.

Times are the least on the clock and of the processor of the turns, both libraries in turn: a ball, a gyroid, whose
surface is eight times as large, and noise, which has all cases. scikit-image (pip install scikit-image) is left out
where it is not installed.
"""

import argparse
import math
import time
from collections.abc import Callable
from typing import Any

import torch

import geodiff as gd

BOX = [[-1.3] * 3, [1.3] * 3]
RADII = [0.8123, *torch.linspace(0.7, 0.9, 41).tolist()]
FIELDS: dict[str, Callable[[torch.Tensor, Any], torch.Tensor]] = {
    "|x| - r": lambda p, r: p.norm(dim=-1) - r,
    "x² - r²": lambda p, r: p.square().sum(-1) - r**2,
    "occupancy": lambda p, r: 0.5 - torch.sigmoid(-40 * (p.norm(dim=-1) - r)),
    "its logit": lambda p, r: -torch.logit(torch.sigmoid(-40 * (p.norm(dim=-1) - r)), 1e-6),
}
TURNS = 4


def grid(count: int, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    """Return the nodes of the cube."""
    steps = torch.linspace(-1.3, 1.3, count, dtype=dtype)
    return torch.stack(torch.meshgrid(steps, steps, steps, indexing="ij"), dim=-1)


def volume(corners: torch.Tensor) -> torch.Tensor:
    """Return the volume inside of triangles (F, 3, 3)."""
    a, b, c = corners.unbind(1)
    return ((a * torch.linalg.cross(b, c)).sum() / 6).abs()


def cubes(values: torch.Tensor) -> Any:
    """Return scikit-image's mesh."""
    from skimage.measure import marching_cubes

    return marching_cubes(values.numpy(), 0.0)


def slope_of_cubes(field: Callable, at: torch.Tensor, radius: float, step: float = 1e-3) -> float:
    """Return a central difference of the volume that marching cubes has."""
    found = []
    for r in (radius + step, radius - step):
        corners, faces, *_ = cubes(field(at, r))
        places = torch.from_numpy(corners.copy()).double() * (2.6 / (len(at) - 1)) - 1.3
        found.append(float(volume(places[torch.from_numpy(faces.copy()).long()])))
    return (found[0] - found[1]) / (2 * step)


def derivatives(count: int, beside: bool) -> None:
    """Print a row for each function."""
    at = grid(count)
    for name, field in FIELDS.items():
        off: dict[str, list[float]] = {"geodiff": [], "marching cubes": []}
        for radius in RADII:
            r = torch.tensor(radius, dtype=torch.float64, requires_grad=True)
            mesh = gd.isosurface(field(at, r), bounds=BOX)
            (slope,) = torch.autograd.grad(volume(mesh.vertices[mesh.faces]), r)
            off["geodiff"].append(float(slope) / (4 * math.pi * radius**2) - 1)
            if beside:
                off["marching cubes"].append(slope_of_cubes(field, at, radius) / (4 * math.pi * radius**2) - 1)
        for library, errors in off.items():
            if errors:
                mean = math.sqrt(sum(e * e for e in errors) / len(errors))
                first, worst = 100 * errors[0], 100 * max(map(abs, errors))
                text = f"r = {RADII[0]}: {first:+.2f} %, root mean square {100 * mean:.2f} %, worst {worst:.2f} %"
                print(f"{count}³ {name:<10} {library:<15} {text}")


def timed(call: Callable[[], Any], best: tuple[float, float]) -> tuple[tuple[float, float], Any]:
    """Return the least times, and what it made."""
    clock, processor = time.perf_counter(), time.process_time()
    found = call()
    return (min(best[0], time.perf_counter() - clock), min(best[1], time.process_time() - processor)), found


def speed(size: int, beside: bool) -> None:
    """Print a row for each function and library."""
    at = grid(size, torch.float32)
    wave = 6 * at
    turned = wave.roll(-1, -1)
    small = torch.randn([size // 4] * 3, generator=torch.Generator().manual_seed(0))
    fields = {
        "ball": at.norm(dim=-1) - RADII[0],
        "gyroid": (wave.sin() * turned.cos()).sum(-1),
        f"noise, {size // 4}³": small,
    }
    for name, values in fields.items():
        best = {"geodiff": (math.inf, math.inf), "scikit-image": (math.inf, math.inf)}
        for _ in range(TURNS):
            best["geodiff"], mesh = timed(lambda v=values: gd.isosurface(v, bounds=BOX), best["geodiff"])
            faces = {"geodiff": mesh.num_faces}
            if beside:
                best["scikit-image"], found = timed(lambda v=values: cubes(v), best["scikit-image"])
                faces["scikit-image"] = len(found[1])
        for library, count in faces.items():
            clock, processor = best[library]
            print(f"{name:<11} {library:<13} {count:>8} faces  {clock:.3f} s on the clock, {processor:.3f} s of cores")


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    try:
        import skimage  # noqa: F401

        beside = True
    except ImportError:
        beside = False
    derivatives(33, beside)
    speed(options.size, beside)


if __name__ == "__main__":
    main()
