# SPDX-License-Identifier: Apache-2.0
"""Surfaces from clouds: the atlas beside screened Poisson reconstruction, on the same clouds, in one run.

    python tests/benchmarks/atlas.py run -o out/atlas
    python tests/benchmarks/atlas.py run -o out/atlas --only fandisk --samples 50000
    python tests/benchmarks/atlas.py table -o out/atlas > out/atlas/tables.md
    python tests/benchmarks/atlas.py plot -o out/atlas

Contestants: the raw points; screened Poisson (Open3D, depth 8) with normals estimated from 16 neighbours, oriented by
consistent tangent planes and turned outwards as a whole by the true normals; the same with true normals; on open
surfaces both also cut, as is usual, where the density is in its lowest twentieth; the atlas, which gets no normals: its
points, 200 000 samples, the charts' mesh, the watertight mesh, and that with open boundaries. Lengths: thousandths
of the true surface's diagonal. Of the gargoyle, whose surface nobody knows, a tenth of the points is the truth.

A row of `rows.jsonl` for each cloud and contestant; a run that is killed goes on with the next one. Fitted atlases are
kept as `CLOUD.npz`.
"""

import argparse
import json
import pathlib
import platform
import resource
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

import geodiff as gd
from geodiff.atlas.atlas import Atlas
from geodiff.atlas.fit import fit_charts
from geodiff.atlas.metrics import surface_metrics
from geodiff.atlas.watertight import load_open3d, poisson_mesh

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
import atlas_clouds
from atlas_clouds import CASES, Case

Surface = tuple[gd.Mesh | torch.Tensor, torch.Tensor | None]
DEPTH = 8
NEIGHBOURS = 16
SAMPLES = 200_000


def estimated_normals(case: Case) -> torch.Tensor:
    open3d = load_open3d("atlas benchmark")
    cloud = open3d.geometry.PointCloud(open3d.utility.Vector3dVector(case.points.numpy()))
    cloud.estimate_normals(open3d.geometry.KDTreeSearchParamKNN(NEIGHBOURS))
    cloud.orient_normals_consistent_tangent_plane(NEIGHBOURS)
    normals = torch.from_numpy(np.asarray(cloud.normals).copy())
    return normals if float((normals * case.normals).sum()) >= 0 else -normals


def cut(points: torch.Tensor, normals: torch.Tensor, share: float = 0.05) -> gd.Mesh:
    """Poisson without the vertices of least density, as its users trim it."""
    open3d = load_open3d("atlas benchmark")
    vector = open3d.utility.Vector3dVector
    cloud = open3d.geometry.PointCloud(vector(points.numpy()))
    cloud.normals = vector(normals.numpy())
    mesh, density = open3d.geometry.TriangleMesh.create_from_point_cloud_poisson(cloud, depth=DEPTH, n_threads=1)
    density = np.asarray(density)
    mesh.remove_vertices_by_mask(density < np.quantile(density, share))
    return gd.Mesh(
        torch.from_numpy(np.asarray(mesh.vertices).copy()),
        torch.from_numpy(np.asarray(mesh.triangles).astype(np.int64)),
    )


def fitted(case: Case, path: pathlib.Path, options: dict[str, Any]) -> tuple[Atlas, dict[str, float]]:
    """Fit the atlas of a cloud, or load it."""
    notes = path.with_suffix(".json")
    if not (path.is_file() and notes.is_file()):
        start, cpu = time.perf_counter(), time.process_time()
        fit = fit_charts(case.points, **options)
        atlas = Atlas.from_fit(fit)
        figures = {
            "fit_seconds": time.perf_counter() - start,
            "fit_cpu_seconds": time.process_time() - cpu,
            "charts": len(atlas),
            "memberships": len(atlas.chart),
            "noise": atlas.noise,
            "outliers": int(atlas.outlier.sum()),
            "unfitted": fit.unfitted,
            "threads": torch.get_num_threads(),
        }
        atlas.save(path)
        notes.write_text(json.dumps(figures))
    return Atlas.load(path), json.loads(notes.read_text())


def contestants(case: Case, atlas: Callable[[], Atlas]) -> dict[str, Callable[[], Surface]]:
    """Each makes its surface; those with "atlas" in their name need a fit."""

    def samples() -> Surface:
        drawn = atlas().sample(SAMPLES)
        return drawn.points, drawn.normals

    methods: dict[str, Callable[[], Surface]] = {
        "raw points": lambda: (case.points, None),
        "Poisson, estimated normals": lambda: (poisson_mesh(case.points, estimated_normals(case), depth=DEPTH), None),
        "Poisson, true normals": lambda: (poisson_mesh(case.points, case.normals, depth=DEPTH), None),
    }
    if case.is_open:
        methods["Poisson, estimated normals, cut"] = lambda: (cut(case.points, estimated_normals(case)), None)
        methods["Poisson, true normals, cut"] = lambda: (cut(case.points, case.normals), None)
    methods |= {
        "atlas, fitted points": lambda: (atlas().fitted_points()[~atlas().outlier], None),
        "atlas, samples": samples,
        "atlas, chart mesh": lambda: (atlas().to_mesh(1), None),
        "atlas, watertight": lambda: (atlas().watertight_mesh(DEPTH, samples=SAMPLES), None),
    }
    if case.is_open:
        methods["atlas, Poisson, open"] = lambda: (
            atlas().watertight_mesh(DEPTH, samples=SAMPLES, open_boundaries=True),
            None,
        )
    return methods


def run(folder: pathlib.Path, only: str, samples: int, options: dict[str, Any]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "rows.jsonl"
    rows = read(folder)
    done = {(row["cloud"], row["method"]) for row in rows}
    for cloud, make in CASES.items():
        if only not in cloud:
            continue
        case, kept = make(), {}
        archive = folder / f"{cloud.replace(' ', '_').replace(',', '').replace('%', '')}.npz"

        def atlas(case: Case = case, archive: pathlib.Path = archive, kept: dict[str, Any] = kept) -> Atlas:
            if not kept:
                kept["atlas"], kept["figures"] = fitted(case, archive, options)
            return kept["atlas"]

        for method, surface in contestants(case, atlas).items():
            if (cloud, method) in done:
                continue
            row: dict[str, Any] = {"cloud": cloud, "method": method, "points": len(case.points)}
            try:
                if method.startswith("atlas"):
                    atlas()
                    row |= kept["figures"]
                start = time.perf_counter()
                output, normals = surface()
                row["seconds"] = time.perf_counter() - start
                row["metrics"] = surface_metrics(
                    output, case.truth, output_normals=normals, truth_normals=case.truth_normals, samples=samples
                ).as_dict()
            except (ImportError, ValueError, RuntimeError) as error:
                row["failed"] = f"{type(error).__name__}: {error}"
            row |= {
                "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
                "machine": f"{platform.machine()}, {torch.get_num_threads()} threads, torch {torch.__version__}",
            }
            with path.open("a") as file:
                file.write(json.dumps(row) + "\n")
            print(line(row), flush=True)


def read(folder: pathlib.Path) -> list[dict[str, Any]]:
    path = folder / "rows.jsonl"
    rows = []
    for text in path.read_text().splitlines() if path.is_file() else []:
        try:
            rows.append(json.loads(text))
        except json.JSONDecodeError:  # cut off by a kill: done again
            continue
    return rows


def line(row: dict[str, Any]) -> str:
    head = f"| {row['cloud']} | {row['method']} "
    if "failed" in row:
        return f"{head}| {row['failed']} " + "|" * 11
    m = row["metrics"]
    f = m["f_score"]["0.002"]
    cells = [f"{row['seconds'] + row.get('fit_seconds', 0.0):.1f}"]
    cells += [f"{1e3 * m[way][name]:.2f}" for way in ("accuracy", "completeness") for name in ("mean", "p95", "max")]
    cells += ["–" if m[name] is None else f"{m[name]:.3f}" for name in ("normal_consistency", "orientation")]
    cells += [f"{100 * f:.1f}", " / ".join(f"{100 * fitted_within(m, t):.0f}" for t in (0.001, 0.002, 0.005))]
    return f"{head}| " + " | ".join(cells) + " |"


def fitted_within(metrics: dict[str, Any], threshold: float) -> float:
    """Share of the truth within a threshold of the output."""
    curve = metrics["curve"]
    return float(np.interp(threshold, curve["threshold"], curve["truth"]))


def tables(folder: pathlib.Path) -> str:
    rows = read(folder)
    head = ["cloud", "method", "seconds", "accuracy mean", "p95", "max", "completeness mean", "p95", "max",
            "normals", "oriented", "F at 2", "% of truth within 1 / 2 / 5"]  # fmt: skip
    text = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head), *map(line, rows)]
    bounded = [row for row in rows if "metrics" in row and row["metrics"]["boundary"]]
    if bounded:
        names = ["completeness", "completeness_max", "accuracy", "accuracy_max", "overshoot", "worse"]
        text += ["", "Within 1 % of the diagonal of an open boundary:", ""]
        text += ["| " + " | ".join(["cloud", "method", *(n.replace("_", " ") for n in names)]) + " |"]
        text += ["|" + "---|" * (len(names) + 2)]
        for row in bounded:
            cells = [f"{1e3 * row['metrics']['boundary'][name]:.2f}" for name in names]
            text.append(f"| {row['cloud']} | {row['method']} | " + " | ".join(cells) + " |")
    return "\n".join(text) + "\n"


def plot(folder: pathlib.Path) -> pathlib.Path:
    """Draw the percentage of the truth fitted within an error, a panel a cloud."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    rows = [row for row in read(folder) if "metrics" in row]
    clouds = list(dict.fromkeys(row["cloud"] for row in rows))
    columns = min(4, len(clouds))
    deep = -(-len(clouds) // columns)
    figure, panels = pyplot.subplots(deep, columns, figsize=(4 * columns, 3 * deep), squeeze=False)
    for panel, cloud in zip(panels.flat, clouds, strict=False):
        for row in rows:
            if row["cloud"] == cloud and "fitted" not in row["method"]:
                curve = row["metrics"]["curve"]
                panel.plot(1e3 * np.array(curve["threshold"]), 100 * np.array(curve["truth"]), label=row["method"])
        panel.set_title(cloud, fontsize=9)
        panel.set_xlim(0, 10)
        panel.grid(alpha=0.3)
    for panel in panels.flat[len(clouds) :]:
        panel.axis("off")
    panels[0, 0].legend(fontsize=6)
    figure.supxlabel("distance from the truth to the output, thousandths of the diagonal")
    figure.supylabel("share of the true surface, %")
    path = folder / "curves.png"
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    return path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("run", "table", "plot"))
    parser.add_argument("-o", "--output", type=pathlib.Path, required=True)
    parser.add_argument("--only", default="", help="clouds whose name contains this")
    parser.add_argument("--samples", type=int, default=SAMPLES, help="that the metrics draw of each surface")
    parser.add_argument(
        "--set", nargs="*", default=[], metavar="NAME=VALUE", help="settings of the fit, as JSON values"
    )
    parser.add_argument("--data", type=pathlib.Path, default=atlas_clouds.DATA, help="the folder of real scans")
    given = parser.parse_args()
    atlas_clouds.DATA = given.data
    if given.what == "run":
        options = {name: json.loads(value) for name, value in (text.split("=", 1) for text in given.set)}
        run(given.output, given.only, given.samples, options)
    elif given.what == "table":
        print(tables(given.output), end="")
    else:
        print(plot(given.output))


if __name__ == "__main__":
    main()
