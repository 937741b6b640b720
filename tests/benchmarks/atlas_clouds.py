# SPDX-License-Identifier: Apache-2.0
"""Clouds of points with the surfaces that they came from, for `atlas.py`."""

import math
import pathlib
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
import trimesh

import geodiff as gd
from geodiff.atlas.proximity import closest_on_mesh, sample_mesh

DATA = pathlib.Path(__file__).resolve().parents[2].parent / "shared" / "data"


@dataclass(frozen=True)
class Case:
    """A cloud.

    Attributes:
        points: (N, 3) float64.
        normals: (N, 3), true ones (of a scan: those that came with it).
        truth: the surface, or points of it that were held out.
        truth_normals: of those points.
    """

    points: torch.Tensor
    normals: torch.Tensor
    truth: gd.Mesh | torch.Tensor
    truth_normals: torch.Tensor | None = None

    @property
    def is_open(self) -> bool:
        return isinstance(self.truth, gd.Mesh) and len(self.truth.boundary_edges) > 0


def scanned(
    mesh: gd.Mesh, count: int, noise: float, seed: int = 0, *, uneven: float = 0.0, outliers: float = 0.0
) -> Case:
    """Draw points of a mesh with Gaussian noise in all directions, `noise` relative to the diagonal.

    Args:
        mesh: the truth.
        count: points, outliers among them.
        noise: standard deviation along each axis.
        seed: of everything.
        uneven: density falls by e to this power along the longest axis.
        outliers: share of points uniform in the box, enlarged by a tenth on every side.
    """
    low, high = mesh.bounds
    diagonal = float((high - low).norm())
    random = torch.Generator().manual_seed(1000 + seed)
    strays = round(outliers * count)
    drawn = sample_mesh(mesh, (40 if uneven else 1) * (count - strays), seed)
    points, normals = drawn.points, drawn.normals
    if uneven:
        axis = int((high - low).argmax())
        place = (points[:, axis] - low[axis]) / (high[axis] - low[axis])
        chance = torch.rand(len(points), generator=random, dtype=torch.float64).log().neg()
        # The smallest of exponential variables over their weights: drawn without replacement in proportion to them.
        keep = (chance / torch.exp(-uneven * place)).argsort()[: count - strays]
        points, normals = points[keep], normals[keep]
    points = points + noise * diagonal * torch.randn(points.shape, generator=random, dtype=torch.float64)
    if strays:
        box = low - 0.1 * (high - low) + 1.2 * (high - low) * torch.rand(strays, 3, generator=random).double()
        points = torch.cat((points, box))
        normals = torch.cat((normals, torch.nn.functional.normalize(torch.randn(strays, 3, generator=random).double())))
        order = torch.randperm(count, generator=random)
        points, normals = points[order], normals[order]
    return Case(points, normals, mesh)


def shared(name: str) -> gd.Mesh:
    return gd.Mesh.load(DATA / name, dtype=torch.float64)


def points2surf() -> Case:
    """A simulated scan with its true surface; normals are those of the nearest face."""
    truth = shared("p2s_00016513_gt.ply")
    points = torch.from_numpy(np.load(DATA / "p2s_00016513_scan.npy")).double()[:, :3]
    return Case(points, truth.face_normals[closest_on_mesh(points, truth, rounded=True).face], truth)


def gargoyle() -> Case:
    """A scan without truth: a tenth of its points is held out."""
    cloud = trimesh.load(DATA / "gargoyle_srb_scan.ply", process=False)
    data = cloud.metadata["_ply_raw"]["vertex"]["data"]
    points, normals = (
        torch.from_numpy(np.stack([np.asarray(data[key], dtype=np.float64) for key in keys], 1))
        for keys in (("x", "y", "z"), ("nx", "ny", "nz"))
    )
    held = torch.zeros(len(points), dtype=torch.bool)
    held[torch.randperm(len(points), generator=torch.Generator().manual_seed(0))[: len(points) // 10]] = True
    return Case(points[~held], normals[~held], points[held], normals[held])


def sheet(height: Callable[[torch.Tensor, torch.Tensor], torch.Tensor], hole: float, cells: int = 160) -> gd.Mesh:
    """The graph of a function over [0, 1]², with a round hole of that radius in the middle."""
    t = torch.linspace(0, 1, cells + 1, dtype=torch.float64)
    x, y = torch.meshgrid(t, t, indexing="ij")
    # Rings about the middle are moved onto the hole's rim, so that it is round.
    dx, dy = x - 0.5, y - 0.5
    far = torch.maximum(dx.abs(), dy.abs())
    ring = torch.hypot(dx, dy).clamp(min=1e-9)
    blend = ((0.5 - far) / (0.5 - hole)).clamp(0, 1)
    scale = 1 + blend * (far / ring - 1)
    x, y = 0.5 + dx * scale, 0.5 + dy * scale
    row = torch.arange(cells * (cells + 1)).reshape(cells, cells + 1)[:, :cells].reshape(-1)
    quads = torch.stack((row, row + cells + 1, row + cells + 2, row + 1), 1)
    radius = torch.hypot(x - 0.5, y - 0.5).reshape(-1)
    quads = quads[(radius[quads] >= hole - 1e-9).all(1)]
    vertices = torch.stack((x, y, height(x, y)), -1).reshape(-1, 3)
    used, faces = torch.unique(torch.cat((quads[:, :3], quads[:, [0, 2, 3]])), return_inverse=True)
    return gd.Mesh(vertices[used], faces)


def tube(rows: int = 60, columns: int = 160) -> gd.Mesh:
    """A cylinder without caps."""
    angle = torch.arange(columns, dtype=torch.float64) * 2 * math.pi / columns
    z = torch.linspace(0, 1.5, rows + 1, dtype=torch.float64)
    z, angle = torch.meshgrid(z, angle, indexing="ij")
    vertices = torch.stack((0.4 * angle.cos(), 0.4 * angle.sin(), z), -1).reshape(-1, 3)
    i, j = torch.cartesian_prod(torch.arange(rows), torch.arange(columns)).unbind(1)
    a, b = i * columns + j, i * columns + (j + 1) % columns
    faces = torch.cat((torch.stack((a, b, b + columns), 1), torch.stack((a, b + columns, a + columns), 1)))
    return gd.Mesh(vertices, faces)


def blocks(filled: list[tuple[int, int, int]]) -> gd.Mesh:
    """Unit cubes glued together: their outer faces."""
    cells = set(filled)
    corners, faces = [], []
    for cell in filled:
        for axis in range(3):
            for side in (0, 1):
                step = [0, 0, 0]
                step[axis] = 2 * side - 1
                if tuple(np.add(cell, step)) in cells:
                    continue
                u, v = np.eye(3, dtype=np.int64)[[(axis + 1) % 3, (axis + 2) % 3]]
                base = np.add(cell, side * np.eye(3, dtype=np.int64)[axis])
                loop = [base, base + u, base + u + v, base + v]
                first = len(corners)
                corners += loop if side else loop[::-1]
                faces += [[first, first + 1, first + 2], [first, first + 2, first + 3]]
    vertices, index = np.unique(np.array(corners), axis=0, return_inverse=True)
    return gd.Mesh(torch.from_numpy(vertices).double(), torch.from_numpy(index.reshape(-1)[np.array(faces)]))


def wave(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    return 0.1 * torch.sin(2 * math.pi * x) * torch.cos(2 * math.pi * y)


STAIRS = [(x, y, z) for x in range(4) for y in range(3) for z in range(x + 1)]

CASES: dict[str, Callable[[], Case]] = {
    "fandisk 0.2 %": lambda: scanned(shared("fandisk.obj"), 8000, 0.002),
    "fandisk 0.5 %": lambda: scanned(shared("fandisk.obj"), 8000, 0.005),
    "rocker-arm 0.2 %": lambda: scanned(shared("rocker-arm.obj"), 8000, 0.002),
    "rocker-arm 0.5 %": lambda: scanned(shared("rocker-arm.obj"), 8000, 0.005),
    "fandisk uneven": lambda: scanned(shared("fandisk.obj"), 8000, 0.002, uneven=4),
    "fandisk outliers 5 %": lambda: scanned(shared("fandisk.obj"), 8000, 0.002, outliers=0.05),
    "sheet with a hole, open": lambda: scanned(sheet(wave, 0.2), 8000, 0.002),
    "tube, open": lambda: scanned(tube(), 8000, 0.002),
    "stairs, sharp": lambda: scanned(blocks(STAIRS), 8000, 0.002),
    "plate, thin": lambda: scanned(gd.box((1.0, 1.0, 0.04), dtype=torch.float64), 12_000, 0.002),
    "p2s_00016513": points2surf,
    "gargoyle, held out": gargoyle,
}
