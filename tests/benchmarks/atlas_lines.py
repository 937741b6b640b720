# SPDX-License-Identifier: Apache-2.0
"""Surfaces seen in lines, as a spinning scanner or an aircraft sees them: area, errors and confidence of their atlases.

    python tests/benchmarks/atlas_lines.py                    # a few seconds a row
    python tests/benchmarks/atlas_lines.py --only box --seeds 8

Distances are in thousandths of the diagonal. Each seed has directions, noise, turn, place and order of its own.
"""

import argparse
from collections.abc import Callable

import numpy as np
import torch
from scipy.spatial import cKDTree

import geodiff as gd
from geodiff.atlas.atlas import Atlas
from geodiff.atlas.fit import fit_charts
from geodiff.atlas.proximity import closest_on_mesh, sample_mesh

D = torch.float64
SAMPLES = 20_000


def directions(lines: int, count: int, random: np.random.Generator) -> np.ndarray:
    """Unit vectors (lines × count, 3) of a scanner that turns about z: lines evenly apart in angle."""
    polar, angle = np.meshgrid(
        (np.arange(lines) + 0.5) * np.pi / lines, np.arange(count) * 2 * np.pi / count, indexing="ij"
    )
    angle = angle + random.uniform(0, 2 * np.pi, (lines, 1))
    return np.stack([np.sin(polar) * np.cos(angle), np.sin(polar) * np.sin(angle), np.cos(polar)], 2).reshape(-1, 3)


def ball(lines: int, count: int, random: np.random.Generator) -> tuple[np.ndarray, gd.Mesh]:
    return directions(lines, count, random), gd.icosphere(5, dtype=D)


def box(lines: int, count: int, random: np.random.Generator) -> tuple[np.ndarray, gd.Mesh]:
    """A room, from a place near its middle."""
    size, ray = np.array([1.0, 0.8, 0.6]), directions(lines, count, random)
    start = random.uniform(-0.03, 0.03, 3)
    with np.errstate(divide="ignore"):
        way = ((np.sign(ray) * size / 2 - start) / ray).min(1)
    return start + way[:, None] * ray, gd.box(tuple(size.tolist()), dtype=D)


def torus(lines: int, count: int, random: np.random.Generator) -> tuple[np.ndarray, gd.Mesh]:
    """Stripes around the tube."""
    a = 2 * np.pi * (np.repeat(np.arange(lines), count) + random.random()) / lines
    b = 2 * np.pi * (np.tile(np.arange(count), lines) + np.repeat(random.random(lines), count)) / count
    wide = 1 + 0.4 * np.cos(b)
    return np.stack([wide * np.cos(a), 0.4 * np.sin(b), wide * np.sin(a)], 1), gd.torus(1.0, 0.4, 192, 96, dtype=D)


def height(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return 0.08 * np.sin(6 * x + 1) * np.cos(5 * y) + 0.05 * np.sin(3 * x - 4 * y)


def hills(lines: int, count: int, random: np.random.Generator) -> tuple[np.ndarray, gd.Mesh]:
    """Ground in a zigzag from the air; the truth is what lies between its first line and its last."""
    t = (np.arange(lines * count) + random.random()) / count
    x, y = 1 - np.abs(t % 2 - 1), t / lines
    u, v = np.meshgrid(np.linspace(0, 1, 121), np.linspace(0, 1, 121), indexing="ij")
    low, high = u / lines, 1 - (u if lines % 2 == 0 else 1 - u) / lines
    v = low + v * (high - low)
    vertices = np.stack([u, v, height(u, v)], 2).reshape(-1, 3)
    corner = (np.arange(120)[:, None] * 121 + np.arange(120)).reshape(-1, 1)
    faces = np.concatenate([corner + np.array(step) for step in ([0, 121, 122], [0, 122, 1])])
    return np.stack([x, y, height(x, y)], 1), gd.Mesh(torch.from_numpy(vertices), torch.from_numpy(faces))


SHAPES: dict[str, Callable[[int, int, np.random.Generator], tuple[np.ndarray, gd.Mesh]]] = {
    "ball": ball,
    "box": box,
    "torus": torus,
    "hills": hills,
}


def scan(
    name: str, lines: int, count: int, noise: float, seed: int, scale: float = 1.0
) -> tuple[torch.Tensor, gd.Mesh]:
    """Points of a surface in lines, and the surface, turned and moved."""
    random = np.random.default_rng(seed)
    x, mesh = SHAPES[name](lines, count, random)
    low, high = mesh.bounds
    x = x + noise * float((high - low).norm()) * random.standard_normal(x.shape)
    turn = torch.from_numpy(np.linalg.qr(random.standard_normal((3, 3)))[0])
    place = torch.from_numpy(random.uniform(-5, 5, 3))
    x = x[random.permutation(len(x))]
    return scale * (torch.from_numpy(x) @ turn + place), gd.Mesh(scale * (mesh.vertices @ turn + place), mesh.faces)


def measure(atlas: Atlas, mesh: gd.Mesh, seed: int) -> dict[str, float]:
    """Return the area over the true one, mean errors, and the said and the true share within the tolerance."""
    truth, drawn = sample_mesh(mesh, SAMPLES, seed).points, atlas.sample(SAMPLES)
    points = drawn.points.double()
    error = closest_on_mesh(points, mesh, rounded=True).distance
    missed = cKDTree(points.numpy()).query(truth.numpy())[0]
    near = cKDTree(atlas.fitted_points().double().numpy()).query(points.numpy())[1]
    corner = mesh.vertices[mesh.faces]
    area = torch.linalg.cross(corner[:, 1] - corner[:, 0], corner[:, 2] - corner[:, 0]).norm(dim=1).sum() / 2
    diagonal = float((corner.amax((0, 1)) - corner.amin((0, 1))).norm())
    return {
        "area": atlas.domain.surface_area / float(area),
        "error": 1000 * float(error.mean()) / diagonal,
        "completeness": 1000 * float(missed.mean()) / diagonal,
        "said": float(drawn.confidence.double().mean()),
        "true": float((error <= atlas.tolerance.double()[near]).double().mean()),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="shapes whose names have this in them")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument("--scale", type=float, default=1.0)
    parser.add_argument("--rows", default="16x200,32x200,16x200n,32x500", help="lines x points, n: with 0.5 % noise")
    options = parser.parse_args()
    for name in SHAPES:
        for row in options.rows.split(","):
            if options.only not in name:
                continue
            lines, count = map(int, row.rstrip("n").split("x"))
            noise = 0.005 if row.endswith("n") else 0.0
            seeds = range(options.first, options.first + options.seeds)
            found = []
            for seed in seeds:
                points, mesh = scan(name, lines, count, noise, seed, options.scale)
                found.append(measure(Atlas.from_fit(fit_charts(points)), mesh, seed))
            cells = (f"{min(f[k] for f in found):.2f} … {max(f[k] for f in found):.2f}" for k in found[0])
            print(f"| {name} | {lines} × {count} | {100 * noise:g} % | " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main()
