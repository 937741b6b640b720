# SPDX-License-Identifier: Apache-2.0
"""Patches of a ball's points, as the cover makes them, beside patches that end at a distance along the sheet.

    python tests/benchmarks/atlas_on_sheet.py [--points 6000] [--seeds 0 1] [--clouds plate spheres]

Two thin clouds: both sides of a plate 2 × 2 × 0.04, noise 0.004, and spheres of radius 1 and 0.94 about one centre,
noise 0.006. Distances along the sheet are those along the cover's own steps between neighbours. `target` is halved in
the third row, for patches as small as those in the second. Shown: charts, points in each, which share of them is of the
sheet that fewer are of, how far samples are from the truth, and the truth from samples, both times 1000.
"""

import argparse
from typing import Any

import numpy as np
import torch
from scipy.sparse import coo_matrix, csgraph
from scipy.spatial import cKDTree

from geodiff.atlas.atlas import Atlas
from geodiff.atlas.cover import TURN, WELL_INSIDE, _Builder
from geodiff.atlas.fit import fit_charts

balls = _Builder._patches


def along(self: Any, center: np.ndarray, chart: np.ndarray, point: np.ndarray) -> np.ndarray:
    """Return the way from each membership's centre, within its ball."""
    _, columns, lengths = self.edges
    degree = np.diff(self.starts)[point]
    source = np.repeat(np.arange(len(point)), degree)
    slot = np.arange(len(source)) - np.repeat(np.cumsum(degree) - degree, degree) + self.starts[point[source]]
    key = chart * len(self.x) + point
    wanted = chart[source] * len(self.x) + columns[slot]
    found = np.minimum(np.searchsorted(key, wanted), len(key) - 1)
    there = key[found] == wanted
    root = len(point)
    first = np.searchsorted(key, np.arange(len(center)) * len(self.x) + center)
    rows = np.concatenate([source[there], np.full(len(center), root)])
    weight = np.concatenate([lengths[slot[there]], np.full(len(center), 1e-9)])
    graph = coo_matrix((weight, (rows, np.concatenate([found[there], first]))), shape=(root + 1, root + 1))
    return csgraph.dijkstra(graph.tocsr(), indices=root)[:root]


def sheets(self: Any, center: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Do as the cover does, but with the distance along the sheet for that through space."""
    found = self.tree.query_ball_point(self.x[center], self.radius[center], return_sorted=True)
    chart = np.repeat(np.arange(len(center)), [len(ball) for ball in found])
    point = self.good[np.concatenate([np.asarray(ball, dtype=np.int64) for ball in found])]
    reached, turn = self._walk(center, chart, point)
    far = along(self, center, chart, point) / self.radius[center[chart]]
    keep = reached & (turn > TURN) & (far <= 1)
    return chart[keep], point[keep], far[keep] <= WELL_INSIDE


def cloud(kind: str, count: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return points, which sheet each is of, and where it was before the noise."""
    draw = np.random.default_rng(seed)
    if kind == "plate":
        true = np.c_[draw.uniform(-1, 1, (count, 2)), np.where(draw.random(count) < 0.5, -0.02, 0.02)]
        return true + 0.004 * draw.normal(size=true.shape), true[:, 2] > 0, true
    true = draw.normal(size=(count, 3))
    outer = draw.random(count) < 0.53
    true *= (np.where(outer, 1.0, 0.94) / np.linalg.norm(true, axis=1))[:, None]
    return true + 0.006 * draw.normal(size=true.shape), outer, true


def away(kind: str, samples: np.ndarray) -> np.ndarray:
    """Return the distances to the nearer sheet."""
    if kind == "plate":
        return np.abs(np.abs(samples[:, 2]) - 0.02)
    radius = np.linalg.norm(samples, axis=1)
    return np.minimum(np.abs(radius - 1), np.abs(radius - 0.94))


def row(kind: str, count: int, seed: int, target: int) -> str:
    """Fit; return the figures."""
    points, sheet, true = cloud(kind, count, seed)
    fit = fit_charts(torch.from_numpy(points).float(), target=target)
    chart, point = fit.cover.chart.numpy(), fit.cover.point.numpy()
    share = np.bincount(chart, sheet[point]) / np.bincount(chart)
    samples = Atlas.from_fit(fit, normals=fit.cover.normals).sample(40_000).points.double().numpy()
    far, back = away(kind, samples), cKDTree(samples).query(true)[0]
    figures = f"charts {len(fit.cover):4}, points {len(point) / len(fit.cover):5.1f}, of the other sheet "
    figures += f"{100 * np.minimum(share, 1 - share).mean():5.2f} %, accuracy {1e3 * far.mean():.2f}, "
    return figures + f"95 % {1e3 * np.quantile(far, 0.95):.1f}, completeness {1e3 * back.mean():.2f}"


def main() -> None:
    """Print a row for each cloud, seed and kind of patch."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--points", type=int, default=6000)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--clouds", nargs="+", default=["plate", "spheres"], choices=["plate", "spheres"])
    parser.add_argument("--target", type=int, default=100)
    options = parser.parse_args()
    torch.set_num_threads(1)
    for kind in options.clouds:
        for seed in options.seeds:
            for name, patches, target in (
                ("balls", balls, options.target),
                ("along the sheet", sheets, options.target),
                ("balls, half", balls, options.target // 2),
            ):
                _Builder._patches = patches
                print(f"{kind}, seed {seed}, {name:<15}: {row(kind, options.points, seed, target)}", flush=True)


if __name__ == "__main__":
    main()
