# SPDX-License-Identifier: Apache-2.0
"""The percentage of vertices fitted to within an error: the atlas, with its own and the published loss, and Poisson.

    python tests/benchmarks/atlas_curve.py -o out/curve            # a minute; --paper adds the published network: ten

4 000 points of the fandisk (in ../shared/data; else of stairs) with noise of 0.2 % of the diagonal, which come without
normals. Left: the share of the output within a distance of the truth, right: of the truth within a distance of the
output. EAR and AtlasNet, the peers of the original figure, cannot be installed. Poisson needs Open3D; without it, the
surface where the winding number of the points, oriented by `gd.atlas.orient`, is ½ stands for it.
"""

import argparse
import json
import pathlib
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure

import geodiff as gd
from geodiff.atlas.charts import PAPER_WIDTHS
from geodiff.atlas.fit import fit_charts
from geodiff.atlas.metrics import surface_metrics
from geodiff.atlas.solid import solid_mesh
from geodiff.atlas.watertight import load_open3d, poisson_mesh

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
import atlas_clouds

PUBLISHED = {"matching": "exact", "rematch": 1, "agreement": "pairs", "steps": 150}
PAPER = {**PUBLISHED, "widths": PAPER_WIDTHS, "residual": False, "gain": 1.0, "lr": 1e-3, "steps": 120}
Surface = gd.Mesh | torch.Tensor


def atlas(points: torch.Tensor, **options: Any) -> torch.Tensor:
    return gd.Atlas.from_fit(fit_charts(points, **options)).sample(50_000).points


def by_winding(points: torch.Tensor) -> gd.Mesh:
    vertices, faces = solid_mesh(points.numpy(), gd.atlas.orient(points).normals.numpy(), depth=7)
    return gd.Mesh(torch.from_numpy(vertices), torch.from_numpy(faces))


def contestants(case: atlas_clouds.Case, paper: bool) -> dict[str, Callable[[], Surface]]:
    found: dict[str, Callable[[], Surface]] = {
        "points": lambda: case.points,
        "atlas": lambda: atlas(case.points),
        "atlas, published loss": lambda: atlas(case.points, **PUBLISHED),
    }
    if paper:
        found["atlas, published loss and network"] = lambda: atlas(case.points, **PAPER)
    try:
        load_open3d("atlas_curve")
    except ImportError:
        print("no Open3D: the winding number in the place of Poisson", flush=True)
        found["winding number"] = lambda: by_winding(case.points)
        return found
    found["Poisson, gd.atlas.orient"] = lambda: poisson_mesh(case.points, gd.atlas.orient(case.points).normals, depth=8)
    found["Poisson, true normals"] = lambda: poisson_mesh(case.points, case.normals, depth=8)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--output", type=pathlib.Path, required=True)
    parser.add_argument("--points", type=int, default=4000)
    parser.add_argument("--paper", action="store_true", help="the published network, too: 429 000 numbers a chart")
    given = parser.parse_args()
    there = (atlas_clouds.DATA / "fandisk.obj").is_file()
    mesh = atlas_clouds.shared("fandisk.obj") if there else atlas_clouds.blocks(atlas_clouds.STAIRS)
    case = atlas_clouds.scanned(mesh, given.points, 0.002)
    figure = Figure(figsize=(9.5, 3.6), layout="constrained")
    panels = figure.subplots(1, 2, sharey=True)
    rows = {}
    for name, make in contestants(case, given.paper).items():
        start = time.process_time()
        surface = make()
        spent = time.process_time() - start
        measured = surface_metrics(surface, mesh, samples=50_000)
        curve, within = measured.curve, {}
        for panel, side in zip(panels, ("output", "truth"), strict=True):
            style = {"color": "0.6"} if name == "points" else {}
            panel.plot(1e3 * np.array(curve["threshold"]), 100 * np.array(curve[side]), label=name, **style)
            within[side] = [round(100 * float(np.interp(t, curve["threshold"], curve[side])), 1) for t in (1e-3, 2e-3)]
        rows[name] = {"seconds": spent, "mean": 1e3 * measured.accuracy.mean, "within": within, "curve": curve}
        print(
            f"{name:34} {spent:6.1f} s, mean {1e3 * measured.accuracy.mean:.2f}, % within 1 and 2: {within}", flush=True
        )
    for panel, title in zip(panels, ("of the output, from the truth", "of the truth, from the output"), strict=True):
        panel.set_title(title, fontsize=10)
        panel.set_xlim(0, 6)
        panel.set_xlabel("distance, thousandths of the diagonal")
        panel.grid(alpha=0.3)
    panels[0].set_ylabel("percentage of vertices within")
    panels[0].legend(frameon=False, fontsize=8, loc="lower right")
    given.output.mkdir(parents=True, exist_ok=True)
    figure.savefig(given.output / "atlas_curve.png", dpi=75)
    (given.output / "atlas_curve.json").write_text(json.dumps(rows) + "\n")


if __name__ == "__main__":
    main()
