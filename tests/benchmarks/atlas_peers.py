# SPDX-License-Identifier: Apache-2.0
"""The atlas beside what people use on clouds without normals, in one run.

    python tests/benchmarks/atlas_peers.py run -o out/peers --seeds 0 1 2
    python tests/benchmarks/atlas_peers.py run -o out/peers --only fandisk --points 4000 --ways atlas Poisson
    python tests/benchmarks/atlas_peers.py table -o out/peers
    python tests/benchmarks/atlas_peers.py summary -o out/peers     # the best of the others, and the atlas
    python tests/benchmarks/atlas_peers.py worst -o out/peers --only "tube, 1 %"  # where the charts are farthest off

Contestants get points only, no normals:

- `Poisson, Open3D's`: screened Poisson (Open3D, depth 8), normals of 16 neighbours oriented by consistent tangent
  planes, turned outwards as a whole by the true normals, which is a help that only this one gets.
- `Poisson, orient`: the same with the normals of `gd.atlas.orient`.
- PyMeshLab, where it is installed (`pip install pymeshlab`; left out else), on the normals of `gd.atlas.orient`:
  `ball pivoting`, `RIMLS` and `APSS` (marching cubes of 200 cells); and `Poisson, PyMeshLab's`, by its own normals.
- `atlas, charts`: the mesh of all charts; `atlas, watertight`: the watertight mesh, depth 8.

On open surfaces, Poisson is also cut where its density is in its lowest twentieth (`cut`) and the atlas's mesh has open
boundaries (`atlas, open`). Accuracy: from the result to the truth; completeness: from the truth to the result's
triangles. Mean and largest, in thousandths of the true diagonal. Seconds: processor time of all that the way needs, one
thread. A row of `peers.jsonl` for each cloud, seed and way; a run that was stopped goes on.
"""

import argparse
import importlib.util
import json
import math
import os
import pathlib
import statistics
import sys
import time
import warnings
from collections.abc import Callable
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch
from scipy.spatial import cKDTree

import geodiff as gd
from geodiff.atlas.atlas import Atlas
from geodiff.atlas.domain import local_spacing
from geodiff.atlas.fit import fit_charts
from geodiff.atlas.proximity import closest_on_mesh, sample_mesh
from geodiff.atlas.watertight import load_open3d

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
import atlas_clouds
from atlas_clouds import STAIRS, Case, blocks, scanned, shared, sheet, tube, wave

DEPTH = 8
NEIGHBOURS = 16
OPEN = " (open)"


def rings(mesh: gd.Mesh, count: int, noise: float, seed: int, number: int = 40) -> Case:
    """Points on so many parallel planes only, as a scanner that turns leaves them."""
    low, high = mesh.bounds
    axis = int((high - low).argmax())
    drawn = sample_mesh(mesh, 100 * count, seed)
    place = (drawn.points[:, axis] - low[axis]) / (high[axis] - low[axis]) * number
    off = (place - place.floor() - 0.5).abs()
    random = torch.Generator().manual_seed(1000 + seed)
    keep = (off < 0.01).nonzero()[:, 0]
    keep = keep[torch.randperm(len(keep), generator=random)[:count]]  # samples come face by face
    points = drawn.points[keep]
    points = points + noise * float((high - low).norm()) * torch.randn(points.shape, generator=random).double()
    return Case(points, drawn.normals[keep], mesh)


def uneven(mesh: gd.Mesh, count: int, noise: float, seed: int) -> Case:
    """Density falls to a twentieth along the longest axis."""
    return scanned(mesh, count, noise, seed, uneven=math.log(20))


def _cases() -> dict[str, Callable[[int, int], Case]]:
    """Return clouds by name: of (points, seed)."""
    cases: dict[str, Callable[[int, int], Case]] = {}
    for name in ("fandisk", "rocker-arm"):
        for noise in (0.1, 0.2, 0.5, 1, 3):
            cases[f"{name}, {noise} %"] = lambda n, seed, name=name, noise=noise: scanned(
                shared(f"{name}.obj"), n, noise / 100, seed
            )
        for share in (1, 5, 20):
            cases[f"{name}, 0.2 %, outliers {share} %"] = lambda n, seed, name=name, share=share: scanned(
                shared(f"{name}.obj"), n, 0.002, seed, outliers=share / 100
            )
        cases[f"{name}, 0.2 %, density 1:20"] = lambda n, seed, name=name: uneven(shared(f"{name}.obj"), n, 0.002, seed)
        cases[f"{name}, 0.1 %, 40 rings"] = lambda n, seed, name=name: rings(shared(f"{name}.obj"), n, 0.001, seed)
    for noise in (0.2, 1):
        cases[f"sheet, {noise} %{OPEN}"] = lambda n, seed, noise=noise: scanned(sheet(wave, 0.2), n, noise / 100, seed)
        cases[f"tube, {noise} %{OPEN}"] = lambda n, seed, noise=noise: scanned(tube(), n, noise / 100, seed)
    cases["stairs, 0.2 %"] = lambda n, seed: scanned(blocks(STAIRS), n, 0.002, seed)
    cases["plate, 0.2 %"] = lambda n, seed: scanned(
        gd.box((1.0, 1.0, 0.04), dtype=torch.float64), n * 3 // 2, 0.002, seed
    )
    cases["p2s_00016513"] = lambda n, seed: atlas_clouds.points2surf()
    return cases


def open3d_cloud(points: torch.Tensor, normals: torch.Tensor | None = None) -> Any:
    open3d = load_open3d("peers")
    cloud = open3d.geometry.PointCloud(open3d.utility.Vector3dVector(points.numpy()))
    if normals is None:
        cloud.estimate_normals(open3d.geometry.KDTreeSearchParamKNN(NEIGHBOURS))
        cloud.orient_normals_consistent_tangent_plane(NEIGHBOURS)
    else:
        cloud.normals = open3d.utility.Vector3dVector(normals.double().numpy())
    return cloud


def by_open3d(case: Case, normals: torch.Tensor | None, cut: bool) -> gd.Mesh:
    open3d = load_open3d("peers")
    cloud = open3d_cloud(case.points, normals)
    if normals is None:
        found = np.asarray(cloud.normals)
        if (found * case.normals.numpy()).sum() < 0:
            cloud.normals = open3d.utility.Vector3dVector(-found)
    with open3d.utility.VerbosityContextManager(open3d.utility.VerbosityLevel.Error):
        mesh, density = open3d.geometry.TriangleMesh.create_from_point_cloud_poisson(cloud, depth=DEPTH, n_threads=1)
    if cut:
        density = np.asarray(density)
        mesh.remove_vertices_by_mask(density < np.quantile(density, 0.05))
    return plain(np.asarray(mesh.vertices), np.asarray(mesh.triangles))


def by_pymeshlab(case: Case, normals: torch.Tensor | None, filters: list[tuple[str, dict[str, Any]]]) -> gd.Mesh:
    import pymeshlab

    given = {} if normals is None else {"v_normals_matrix": normals.double().numpy()}
    meshes = pymeshlab.MeshSet(verbose=False)
    meshes.add_mesh(pymeshlab.Mesh(vertex_matrix=case.points.numpy(), **given))
    for name, options in filters:
        getattr(meshes, name)(**options)
    mesh = meshes.current_mesh()
    return plain(mesh.vertex_matrix(), mesh.face_matrix())


def plain(vertices: np.ndarray, faces: np.ndarray) -> gd.Mesh:
    """Make a mesh; APSS and RIMLS give some vertices that are no numbers, whose faces are left out."""
    vertices, faces = np.array(vertices), np.array(faces, dtype=np.int64)
    finite = np.isfinite(vertices).all(1)
    return gd.Mesh(
        torch.from_numpy(np.where(finite[:, None], vertices, 0)), torch.from_numpy(faces[finite[faces].all(1)])
    )


def ways(case: Case, name: str, options: dict[str, Any]) -> dict[str, Callable[[], gd.Mesh]]:
    kept: dict[str, Any] = {}

    def shared_work(key: str, make: Callable[[], Any]) -> Any:
        # Its seconds count for each way that needs it.
        if key not in kept:
            start = time.process_time()
            kept[key] = make(), 0.0
            kept[key] = kept[key][0], time.process_time() - start
        else:
            kept["debt"] = kept.get("debt", 0.0) + kept[key][1]
        return kept[key][0]

    def normals() -> torch.Tensor:
        return shared_work("normals", lambda: gd.atlas.orient(case.points).normals)

    def atlas() -> Atlas:
        return shared_work("atlas", lambda: Atlas.from_fit(fit_charts(case.points, **options)))

    found: dict[str, Callable[[], gd.Mesh]] = {
        "Poisson, Open3D's": lambda: by_open3d(case, None, False),
        "Poisson, orient": lambda: by_open3d(case, normals(), False),
    }
    if name.endswith(OPEN):
        found["Poisson, Open3D's, cut"] = lambda: by_open3d(case, None, True)
        found["Poisson, orient, cut"] = lambda: by_open3d(case, normals(), True)
    if importlib.util.find_spec("pymeshlab"):
        poisson = "generate_surface_reconstruction_screened_poisson"
        lab = {
            "ball pivoting": [("generate_surface_reconstruction_ball_pivoting", {})],
            "RIMLS": [("generate_marching_cubes_rimls", {"resolution": 200})],
            "APSS": [("generate_marching_cubes_apss", {"resolution": 200})],
        }
        for key, filters in lab.items():
            found[key] = lambda filters=filters: by_pymeshlab(case, normals(), filters)
        own = [("compute_normal_for_point_clouds", {"k": NEIGHBOURS}), (poisson, {"depth": DEPTH, "threads": 1})]
        found["Poisson, PyMeshLab's"] = lambda: by_pymeshlab(case, None, own)
    found["atlas, charts"] = lambda: atlas().to_mesh(1)
    found["atlas, watertight"] = lambda: atlas().watertight_mesh(DEPTH)
    if name.endswith(OPEN):
        found["atlas, open"] = lambda: atlas().watertight_mesh(DEPTH, open_boundaries=True)

    def timed(make: Callable[[], gd.Mesh]) -> tuple[gd.Mesh, float]:
        start = time.process_time()
        kept["debt"] = 0.0
        mesh = make()
        return mesh, time.process_time() - start + kept["debt"]

    return {key: (lambda make=make: timed(make)) for key, make in found.items()}


def measured(mesh: gd.Mesh, truth: gd.Mesh, samples: int) -> dict[str, float]:
    low, high = truth.bounds
    scale = 1e-3 * float((high - low).norm())
    there = closest_on_mesh(sample_mesh(mesh, samples, 0).points, truth, rounded=True).distance / scale
    back = closest_on_mesh(sample_mesh(truth, samples, 1).points, mesh, rounded=True).distance / scale
    return {
        "accuracy": float(there.mean()),
        "accuracy_max": float(there.max()),
        "completeness": float(back.mean()),
        "completeness_max": float(back.max()),
    }


def rows_of(folder: pathlib.Path) -> list[dict[str, Any]]:
    path = folder / "peers.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.is_file() else []


def run(given: argparse.Namespace) -> None:
    torch.set_num_threads(1)
    given.output.mkdir(parents=True, exist_ok=True)
    options = {name: json.loads(value) for name, value in (text.split("=", 1) for text in given.set)}
    done = {(row["cloud"], row["seed"], row["way"]) for row in rows_of(given.output)}
    for cloud, make in _cases().items():
        if not any(word in cloud for word in given.only or [""]):
            continue
        for seed in given.seeds:
            case = make(given.points, seed)
            for way, surface in ways(case, cloud, options).items():
                if (cloud, seed, way) in done or not any(word in way for word in given.ways or [""]):
                    continue
                row: dict[str, Any] = {"cloud": cloud, "seed": seed, "way": way, "points": len(case.points)}
                try:
                    with warnings.catch_warnings():
                        warnings.simplefilter("ignore")
                        mesh, row["seconds"] = surface()
                    row |= measured(mesh, case.truth, given.samples)
                except Exception as error:  # a way that finds no surface at all is a row, too
                    row["error"] = f"{type(error).__name__}: {error}"[:300]
                with open(given.output / "peers.jsonl", "a") as file:
                    file.write(json.dumps(row) + "\n")
                text = " ".join(f"{k}={v:.2f}" for k, v in row.items() if isinstance(v, float))
                print(f"{cloud:34} {seed} {way:24} {text or row['error']}", flush=True)


COLUMNS = ("accuracy", "completeness", "accuracy_max", "completeness_max", "seconds")


def table(folder: pathlib.Path) -> str:
    rows = rows_of(folder)
    lines = ["| cloud | way | accuracy | completeness | largest error | largest miss | s |", "|---|---|" + "---|" * 5]
    for cloud in dict.fromkeys(row["cloud"] for row in rows):
        mine = [row for row in rows if row["cloud"] == cloud]
        means: dict[str, list[list[float]]] = {}
        for row in mine:
            if "error" not in row:
                means.setdefault(row["way"], []).append([row[column] for column in COLUMNS])
        middle = {way: [statistics.fmean(c) for c in zip(*values, strict=True)] for way, values in means.items()}
        best = [min(values[k] for values in middle.values()) for k in range(4)]
        first = cloud
        for way, values in means.items():
            cells = []
            for k, column in enumerate(zip(*values, strict=True)):
                text = f"{middle[way][k]:.2f}" if k < 2 else f"{middle[way][k]:.1f}"
                if len(column) > 1 and k < 2:
                    text += f" ± {(max(column) - min(column)) / 2:.2f}"
                cells.append(f"**{text}**" if k < 4 and middle[way][k] <= best[k] else text)
            lines.append(f"| {first} | {way} | {' | '.join(cells)} |")
            first = ""
    return "\n".join(lines) + "\n"


def summary(folder: pathlib.Path) -> str:
    """A line for each cloud: the best of the others in each column, whoever it is, and the atlas."""
    rows = [row for row in rows_of(folder) if "error" not in row]
    names = ("accuracy", "completeness", "largest error", "largest miss")
    lines = [
        f"| cloud | points | draws |{''.join(f' {name} | charts | watertight |' for name in names)}",
        "|---|---|---|" + "---|" * 12,
    ]
    for cloud in dict.fromkeys(row["cloud"] for row in rows):
        mine = [row for row in rows if row["cloud"] == cloud]
        cells = []
        for k, column in enumerate(COLUMNS[:4]):
            mean = {
                way: statistics.fmean(row[column] for row in mine if row["way"] == way)
                for way in dict.fromkeys(row["way"] for row in mine)
            }
            others = {way: value for way, value in mean.items() if not way.startswith("atlas")}
            best = min(others, key=lambda way: others[way])
            ours = [
                mean.get("atlas, charts", math.nan),
                mean.get("atlas, open", mean.get("atlas, watertight", math.nan)),
            ]
            digits = 2 if k < 2 else 1
            cells.append(f"{others[best]:.{digits}f} {best}")
            cells += [f"**{x:.{digits}f}**" if x <= others[best] else f"{x:.{digits}f}" for x in ours]
        draws = len({row["seed"] for row in mine})
        lines.append(f"| {cloud} | {mine[0]['points']} | {draws} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def worst(given: argparse.Namespace, most: int = 8) -> None:
    """Print where the mesh of all charts is farthest off, a line a place: what is there, in thousandths or σ."""
    torch.set_num_threads(1)
    for cloud, make in _cases().items():
        if not any(word in cloud for word in given.only or [""]):
            continue
        case = make(given.points, given.seeds[0])
        atlas = Atlas.from_fit(fit_charts(case.points))
        low, high = case.truth.bounds
        scale = 1e-3 * float((high - low).norm())
        drawn = sample_mesh(atlas.to_mesh(1), given.samples, 0).points
        error = closest_on_mesh(drawn, case.truth, rounded=True).distance / scale
        fitted = atlas.fitted_points()
        gap, near = (torch.from_numpy(value) for value in cKDTree(fitted.numpy()).query(drawn.numpy()))
        spacing = local_spacing(fitted.numpy(), np.arange(len(fitted)), len(fitted))
        points = closest_on_mesh(case.points, case.truth, rounded=True).distance / scale
        sure = atlas.confidence[near]
        print(f"{cloud}: mean {float(error.mean()):.2f}, largest {float(error.max()):.1f}, "
              f"of samples with confidence above 0.9 {float(torch.where(sure > 0.9, error, 0).max()):.1f}")  # fmt: skip
        left = torch.ones(len(error), dtype=torch.bool)
        for _ in range(most):
            i = int(torch.where(left, error, -1).argmax())
            left &= (drawn - drawn[i]).norm(dim=1) > 15 * scale
            away, itself = float(gap[i] / spacing[near[i]]), float(points[near[i]])
            print(f"  error {float(error[i]):5.1f}, confidence {float(sure[i]):.2f}, "
                  f"nearest point {away:.1f} spacings off, itself {itself:.1f} off")  # fmt: skip
            if not bool(left.any()):
                break


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("run", "table", "summary", "worst"))
    parser.add_argument("-o", "--output", type=pathlib.Path, required=True)
    parser.add_argument("--only", nargs="*", default=[], help="clouds whose name contains one of these")
    parser.add_argument("--ways", nargs="*", default=[], help="ways whose name contains one of these")
    parser.add_argument("--seeds", nargs="*", type=int, default=[0])
    parser.add_argument("--points", type=int, default=8000)
    parser.add_argument("--samples", type=int, default=50_000, help="that the measure draws of each surface")
    parser.add_argument("--set", nargs="*", default=[], metavar="NAME=VALUE", help="settings of the fit, JSON values")
    given = parser.parse_args()
    if given.what in ("run", "worst"):
        (run if given.what == "run" else worst)(given)
    else:
        print((table if given.what == "table" else summary)(given.output), end="")


if __name__ == "__main__":
    main()
