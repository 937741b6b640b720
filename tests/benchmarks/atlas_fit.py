# SPDX-License-Identifier: Apache-2.0
"""Accuracy and time of the fit of charts: `python tests/benchmarks/atlas_fit.py fandisk --noise 0.002`.

Errors are distances to the true surface, in thousandths of its diagonal: mean, 95th percentile and maximum, of the raw
points, of the points as all their charts put them, and of dense samples, each in the chart most trusted there.
Needs the real data kept beside the checkout.
"""

import argparse
import json
import pathlib
import resource
import time

import numpy as np
import torch
import trimesh
from scipy.spatial import cKDTree

from geodiff.atlas.fit import FittedCharts, fit_charts

SHARED = pathlib.Path(__file__).resolve().parents[3] / "shared" / "data"
SCANS = {"p2s_00016513": ("p2s_00016513_scan.npy", "p2s_00016513_gt.ply"), "gargoyle": ("gargoyle_srb_scan.ply", None)}


class Truth:
    """Distances to a mesh: exact to the triangles of the 4 nearest of 200 000 samples."""

    def __init__(self, mesh: trimesh.Trimesh) -> None:
        samples, self.face = trimesh.sample.sample_surface(mesh, 200_000, seed=1)
        self.tree, self.triangles = cKDTree(samples), np.asarray(mesh.triangles)
        self.diagonal = float(np.linalg.norm(np.ptp(mesh.vertices, axis=0)))

    def errors(self, points: torch.Tensor) -> list[float]:
        """Mean, 95th percentile, maximum, in thousandths of the diagonal."""
        x = points.detach().double().numpy()
        near = self.face[self.tree.query(x, k=4)[1]]
        best = np.full(len(x), np.inf)
        for k in range(4):
            foot = trimesh.triangles.closest_point(self.triangles[near[:, k]], x)
            best = np.minimum(best, np.linalg.norm(foot - x, axis=1))
        best *= 1000 / self.diagonal
        return [round(float(v), 3) for v in (best.mean(), np.percentile(best, 95), best.max())]


def load(name: str, count: int, noise: float, seed: int, data: pathlib.Path) -> tuple[torch.Tensor, Truth | None]:
    """Return a cloud and what it was sampled from."""
    if name in SCANS:
        scan, surface = SCANS[name]
        path = data / scan
        points = np.load(path)[:, :3] if path.suffix == ".npy" else trimesh.load(path).vertices
        return torch.tensor(np.asarray(points)), Truth(trimesh.load(data / surface)) if surface else None
    mesh = trimesh.load(data / f"{name}.obj", process=False, force="mesh")
    truth = Truth(mesh)
    points = trimesh.sample.sample_surface(mesh, count, seed=seed)[0]
    offset = np.random.default_rng(seed).standard_normal(points.shape) * noise * truth.diagonal
    return torch.tensor(points + offset), truth


def dense(fit: FittedCharts, count: int) -> torch.Tensor:
    """Sample around the members of the chart that is most trusted for each point."""
    point, weight = fit.cover.point, fit.weight
    most = torch.zeros(len(fit.cover.points), dtype=weight.dtype).scatter_reduce(0, point, weight, "amax")
    best = torch.nonzero(weight >= most[point])[:, 0]
    generator = torch.Generator().manual_seed(0)
    pick = best[torch.randint(len(best), (count,), generator=generator)].sort()[0]
    cell = 0.8 / torch.bincount(fit.cover.chart)[fit.cover.chart[pick], None].float().sqrt()
    uv = fit.uv[pick] + (torch.rand(count, 2, generator=generator) - 0.5) * cell
    return fit.charts.flat(uv.clamp(0, 1), fit.cover.chart[pick])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("cloud", help="a mesh in the data folder without .obj, or " + " or ".join(SCANS))
    parser.add_argument("--points", type=int, default=8000)
    parser.add_argument("--noise", type=float, default=0.002, help="of the diagonal")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--data", type=pathlib.Path, default=SHARED)
    parser.add_argument("--samples", type=int, default=200_000)
    parser.add_argument("--options", type=json.loads, default={}, help="fields of Settings, as JSON")
    arguments = parser.parse_args()
    points, truth = load(arguments.cloud, arguments.points, arguments.noise, arguments.seed, arguments.data)
    wall, cpu = time.perf_counter(), time.process_time()
    fit = fit_charts(points, **arguments.options)
    result = {
        "cloud": arguments.cloud,
        "points": len(points),
        "options": arguments.options,
        "threads": torch.get_num_threads(),
        "wall_s": round(time.perf_counter() - wall, 1),
        "cpu_s": round(time.process_time() - cpu, 1),
        "peak_gb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6, 2),
        "charts": len(fit.charts),
        "members": len(fit.uv),
        "chart_steps": int(fit.steps.sum()),
        "converged": int(fit.converged.sum()),
        "folded": fit.folded,
        "unfitted": fit.unfitted,
        "noise": fit.noise,
        "spread": float(fit.spread().mean()),
        "notes": list(fit.notes),
    }
    if truth is not None:
        result["noise_of_diagonal"] = round(fit.noise / truth.diagonal, 5)
        result["raw"] = truth.errors(points)
        result["fitted"] = truth.errors(fit.fitted_points())
        result["dense"] = truth.errors(dense(fit, arguments.samples))
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
