# SPDX-License-Identifier: Apache-2.0
"""Is the confidence of an atlas what it says? Calibrate it on simulated scans, and test it on others.

    python tests/benchmarks/atlas_confidence.py scan -o out/confidence   # fits all 80 scans, 2 to 4 s each
    python tests/benchmarks/atlas_confidence.py fit -o out/confidence    # prints the constants
    python tests/benchmarks/atlas_confidence.py plot -o out/confidence   # tables of both, and the plot

Scans are drawn of known surfaces, 2 000 to 5 000 points with noise in all directions, and fitted with all defaults. Of
each, 3 000 samples are measured: whether the true surface is within two σ (`Atlas.tolerance`). `fit` is a logistic
regression of that on `geodiff.atlas.confidence.evidence` at the nearest point; each scan weighs the same. `plot` uses
the constants that the package has.
"""

import argparse
import itertools
import json
import math
import pathlib
import sys
from collections.abc import Callable

import numpy as np
import torch
from matplotlib.figure import Figure
from scipy.optimize import minimize
from scipy.spatial import cKDTree

import geodiff as gd
from geodiff.atlas.atlas import Atlas
from geodiff.atlas.confidence import ODDS, WITHIN, evidence
from geodiff.atlas.fit import fit_charts
from geodiff.atlas.proximity import closest_on_mesh

sys.path.insert(0, str(pathlib.Path(__file__).parent))
from atlas_clouds import DATA, STAIRS, blocks, scanned, shared, sheet, tube, wave

D = torch.float64
SAMPLES = 3000
EDGES = (0.0, 0.05, 0.15, 0.25, 0.35, 0.45, 0.55, 0.65, 0.75, 0.85, 0.95, 1.0001)
Make = Callable[[], gd.Mesh]


def join(first: gd.Mesh, second: gd.Mesh) -> gd.Mesh:
    """Two meshes as one."""
    return gd.Mesh(
        torch.cat((first.vertices, second.vertices)), torch.cat((first.faces, second.faces + first.num_vertices))
    )


def sheets(gap: float, height: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]) -> gd.Mesh:
    """Two equal sheets above each other, each with a hole."""
    one = sheet(height, 0.15, 40)
    return join(one, gd.Mesh(one.vertices + torch.tensor([0.0, 0.0, gap], dtype=D), one.faces))


def level(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    return torch.zeros_like(x)


def bumpy() -> gd.Mesh:
    """A ball whose radius waves by a tenth."""
    ball = gd.icosphere(6, dtype=D)
    bump = (9 * ball.vertices + torch.arange(3)).sin().prod(1, keepdim=True)
    return gd.Mesh(ball.vertices * (1 + 0.12 * bump), ball.faces)


def prism(radius: torch.Tensor, height: float) -> gd.Mesh:
    """The prism over a star-shaped polygon; a height of the middle of the top."""
    count = len(radius)
    angle = torch.arange(count, dtype=D) * 2 * math.pi / count
    ring = torch.stack((radius * angle.cos(), radius * angle.sin(), 0 * angle), 1)
    up = torch.tensor([0.0, 0.0, height], dtype=D)
    a, b = torch.arange(count), (torch.arange(count) + 1) % count
    below, above = torch.full_like(a, 2 * count), torch.full_like(a, 2 * count + 1)
    faces = [(a, b, b + count), (a, b + count, a + count), (b, a, below), (a + count, b + count, above)]
    vertices = torch.cat((ring, ring + up, torch.stack((0 * up, up))))
    return gd.Mesh(vertices, torch.cat([torch.stack(face, 1) for face in faces]))


def gear() -> gd.Mesh:
    """Nine teeth, a quarter of the radius deep."""
    return prism(torch.where(torch.arange(36) // 2 % 2 == 0, 1.0, 0.75).to(D), 0.5)


def cone() -> gd.Mesh:
    """A pointed cone with its base."""
    count = 96
    angle = torch.arange(count, dtype=D) * 2 * math.pi / count
    ring = torch.stack((angle.cos(), angle.sin(), 0 * angle), 1)
    a, b = torch.arange(count), (torch.arange(count) + 1) % count
    tips = torch.tensor([[0.0, 0, 1.5], [0, 0, 0]], dtype=D)
    faces = [torch.stack((a, b, torch.full_like(a, count)), 1), torch.stack((b, a, torch.full_like(a, count + 1)), 1)]
    return gd.Mesh(torch.cat((ring, tips)), torch.cat(faces))


def fitted_on() -> dict[str, tuple[Make, dict]]:
    """Scans that the constants are found on."""
    kinds: dict[str, Make] = {
        "ball": lambda: gd.icosphere(5, dtype=D),
        "box": lambda: gd.box((1.0, 0.8, 0.6), dtype=D),
        "torus": lambda: gd.torus(1.0, 0.4, 96, 48, dtype=D),
        "plate": lambda: gd.box((1.0, 1.0, 0.04), dtype=D),
        "wave": lambda: sheet(wave, 0.2),
    }
    scans: dict[str, tuple[Make, dict]] = {}

    def add(name: str, make: Make, count: int, noise: float, **more: float) -> None:
        scans[f"{name} {count} {noise}"] = (make, {"count": count, "noise": noise, "seed": len(scans), **more})

    for name, make in kinds.items():
        for noise in (0, 0.001, 0.003, 0.01, 0.03):
            add(name, make, 2000, noise)
    for name in ("ball", "box"):
        for noise in (0, 0.002):
            add(f"{name} uneven", kinds[name], 2500, noise, uneven=True)
            add(f"{name} outliers", kinds[name], 2500, noise, outliers=0.05)
    for name, make in (("bumpy", bumpy), ("gear", gear)):
        for count, noise in ((2500, 0), (2500, 0.001), (2500, 0.004)):
            add(name, make, count, noise)
    for count, gap, noise in ((3000, 0.02, 0), (3000, 0.02, 0.0007), (3000, 0.02, 0.002), (3000, 0.02, 0.0035),
                              (3000, 0.05, 0), (3000, 0.05, 0.002), (3000, 0.05, 0.005), (3000, 0.1, 0.003),
                              (5000, 0.02, 0.0015), (5000, 0.03, 0.004), (5000, 0.04, 0.01)):  # fmt: skip
        add(f"sheets {gap}", lambda gap=gap: sheets(gap, level), count, noise)
    return scans


def held_out() -> dict[str, tuple[Make, dict]]:
    """Scans of other kinds and seeds, that it is tested on."""
    kinds: dict[str, Make] = {"stairs": lambda: blocks(STAIRS), "tube": tube, "cone": cone}
    if DATA.is_dir():
        for name in ("fandisk", "teapot", "rocker-arm"):
            kinds[name] = lambda name=name: shared(f"{name}.obj")
    scans: dict[str, tuple[Make, dict]] = {}

    def add(name: str, make: Make, count: int, noise: float, **more: float) -> None:
        scans[f"{name} {count} {noise}"] = (make, {"count": count, "noise": noise, "seed": 500 + len(scans), **more})

    for count, noise in ((3000, 0), (3000, 0.002), (2500, 0.01), (2500, 0.025)):
        for name, make in kinds.items():
            add(name, make, count, noise)
    for count, gap, noise in ((3000, 0.03, 0), (3000, 0.025, 0.001), (4000, 0.02, 0.003), (3000, 0.04, 0.006)):
        add(f"wavy sheets {gap}", lambda gap=gap: sheets(gap, wave), count, noise)
    name = "fandisk" if "fandisk" in kinds else "stairs"
    add(f"{name} uneven", kinds[name], 3000, 0.002, uneven=True)
    add(f"{name} outliers", kinds[name], 3000, 0.002, outliers=0.05)
    return scans


def measure(make: Make, how: dict) -> dict[str, np.ndarray]:
    """Fit a scan; return what `evidence` asks for, and of samples the nearest point and the distance from the truth."""
    mesh = make()
    case = scanned(mesh, **how)
    fit = fit_charts(case.points)
    atlas = Atlas.from_fit(fit)
    drawn = atlas.sample(SAMPLES)
    good = (atlas.tolerance > 0).nonzero()[:, 0]
    parts = (atlas.points, atlas.fitted_points(), atlas.fitted_normals(), fit.local_noise)
    points, fitted, normals, noise = (part[good].double().numpy() for part in parts)
    low, high = mesh.bounds
    return {
        "points": points,
        "fitted": fitted,
        "normals": normals,
        "noise": noise,
        "near": cKDTree(fitted).query(drawn.points.double().numpy())[1],
        "error": closest_on_mesh(drawn.points.double(), mesh, rounded=True).distance.numpy(),
        "true": np.array(how["noise"] * float((high - low).norm())),
    }


def load(folder: pathlib.Path, part: str) -> dict[str, dict[str, np.ndarray]]:
    """Read what `scan` has written, with the evidence and σ of each sample."""
    names = fitted_on() if part == "fitted" else held_out()
    files = {name: folder / f"{part} {name}.npz" for name in names}
    return {name: judged(dict(np.load(file))) for name, file in files.items() if file.is_file()}


def judged(scan: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Add to what `measure` returned the evidence and σ of each sample: those of the nearest point."""
    found = evidence(*(scan[name] for name in ("points", "fitted", "normals", "noise")))
    return {**scan, "terms": found.terms[scan["near"]], "sigma": found.sigma[scan["near"]]}


def within(scan: dict[str, np.ndarray]) -> np.ndarray:
    """Whether the truth is within the tolerance of each sample, as 0 or 1."""
    return (scan["error"] <= WITHIN * scan["sigma"]).astype(float)


def regression(scans: dict[str, dict[str, np.ndarray]]) -> np.ndarray:
    """Return the constants of the most likely odds, whose weights are not positive."""
    terms = np.concatenate([scan["terms"] for scan in scans.values()])
    true = np.concatenate([within(scan) for scan in scans.values()])
    weight = np.concatenate(
        [np.full(len(scan["sigma"]), 1 / len(scan["sigma"]) / len(scans)) for scan in scans.values()]
    )

    def loss(odds: np.ndarray) -> tuple[float, np.ndarray]:
        x = odds[0] + terms @ odds[1:]
        slope = weight * (1 / (1 + np.exp(-x)) - true)
        value = (weight * (np.logaddexp(0, x) - true * x)).sum() + 1e-4 * (odds[1:] ** 2).sum()
        return value, np.concatenate([[slope.sum()], terms.T @ slope + 2e-4 * odds[1:]])

    bounds = [(None, None)] + [(None, 0)] * terms.shape[1]
    start = np.concatenate([[2.0], np.full(terms.shape[1], -0.3)])
    return minimize(loss, start, jac=True, method="L-BFGS-B", bounds=bounds).x


def reliability(sure: np.ndarray, true: np.ndarray) -> list[dict[str, float]]:
    """Return for bins of confidence how many there are, their mean, and the share that is true."""
    rows = []
    for low, high in itertools.pairwise(EDGES):
        some = (sure >= low) & (sure < high)
        if some.any():
            rows.append({"count": int(some.sum()), "said": float(sure[some].mean()), "true": float(true[some].mean())})
    return rows


def plot(rows: dict[str, list[dict[str, float]]], path: pathlib.Path) -> None:
    figure = Figure(figsize=(4.6, 4.2), layout="constrained")
    axes = figure.subplots()
    axes.plot([0, 1], [0, 1], color="0.7", linewidth=1)
    for (name, bins), color, marker in zip(rows.items(), ("0.55", "tab:blue"), ("s", "o"), strict=True):
        axes.plot(
            [b["said"] for b in bins], [b["true"] for b in bins], marker + "-", color=color, label=name, markersize=4
        )
    axes.set(xlabel="confidence", ylabel="share within 2 σ of the truth", xlim=(0, 1), ylim=(0, 1), aspect="equal")
    axes.legend(frameon=False, loc="upper left")
    figure.savefig(path, dpi=80)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=("scan", "fit", "plot"))
    parser.add_argument("-o", "--output", type=pathlib.Path, required=True)
    parser.add_argument("--only", default="", help="scans whose names have this in them")
    options = parser.parse_args()
    options.output.mkdir(parents=True, exist_ok=True)
    if options.part == "scan":
        for part, scans in (("fitted", fitted_on()), ("held", held_out())):
            for name, (make, how) in scans.items():
                if options.only in f"{part} {name}" and not (options.output / f"{part} {name}.npz").exists():
                    scan = measure(make, how)
                    np.savez(options.output / f"{part} {name}.npz", **scan)
                    print(f"{part} {name}: {within(judged(scan)).mean():.3f}", flush=True)
        return
    parts = {"fitted on": load(options.output, "fitted"), "other kinds": load(options.output, "held")}
    if options.part == "fit":
        print("ODDS =", tuple(float(round(value, 2)) for value in regression(parts["fitted on"])))
    rows = {}
    for part, scans in parts.items():
        odds = regression(parts["fitted on"]) if options.part == "fit" else np.array(ODDS)
        said = [1 / (1 + np.exp(-odds[0] - scan["terms"] @ odds[1:])) for scan in scans.values()]
        for (name, scan), sure in zip(scans.items(), said, strict=True):
            print(f"{part}: {name:30} within {within(scan).mean():.3f} said {sure.mean():.3f} "
                  f"σ {np.median(scan['sigma']):.5f} true {float(scan['true']):.5f}")  # fmt: skip
        rows[part] = reliability(np.concatenate(said), np.concatenate([within(scan) for scan in scans.values()]))
        print(part, *(f"\n  {row['count']:7d} said {row['said']:.2f} true {row['true']:.2f}" for row in rows[part]))
    if options.part == "plot":
        (options.output / "reliability.json").write_text(json.dumps({"odds": ODDS, **rows}, indent=1))
        plot(rows, options.output / "reliability.png")


if __name__ == "__main__":
    main()
