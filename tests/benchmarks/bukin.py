# SPDX-License-Identifier: Apache-2.0
"""Table 3 of "Differentiable Spline Approximations" (Cho et al., NeurIPS 2021): Bukin's function N.6 by 8 × 8 cubics.

    python tests/benchmarks/bukin.py -o bukin.json                 # all rows
    python tests/benchmarks/bukin.py --starts 5 --seed 1           # also from random knots and weights

`f(x, y) = 100 √|y − 0.01 x²| + 0.01 |x + 10|` on x ∈ [−15, 5], y ∈ [−3, 5] (the domain of the released code; on that
of the paper's caption its figures cannot be reached), sampled on a uniform grid. The error is the mean over points and
over x, y and z. Every free fit starts from uniform knots and weights 1; `--starts` adds random ones from the seed, and
every start's result is printed.
"""

import argparse
import json
import pathlib
import platform
import time
from typing import Any

import torch

from geodiff.splines.fit import fit_surface

PAPER = {("fixed", 128): 19.83, ("fixed", 256): 19.85, ("free", 128): 8.25, ("free", 256): 8.23}
KINDS: dict[str, dict[str, Any]] = {
    "fixed": {},
    "free": {"free_knots": True},
    "rational": {"rational": True},
    "rational free": {"rational": True, "free_knots": True},
}


def bukin(count: int) -> torch.Tensor:
    """Sample the graph of the function: `(count, count, 3)`."""
    x, y = torch.meshgrid(
        torch.linspace(-15, 5, count, dtype=torch.float64),
        torch.linspace(-3, 5, count, dtype=torch.float64),
        indexing="ij",
    )
    return torch.stack([x, y, 100 * (y - 0.01 * x**2).abs().sqrt() + 0.01 * (x + 10).abs()], -1)


def row(kind: str, count: int, starts: int, seed: int) -> dict[str, Any]:
    """Fit once and measure on the surface that came out."""
    points = bukin(count)
    options = dict(KINDS[kind])
    if options:
        options |= {"starts": starts, "seed": seed}
    began = time.perf_counter()
    fit = fit_surface(points, (8, 8), (3, 3), **options)
    seconds = time.perf_counter() - began
    weights = fit.surface.weights
    return {
        "kind": kind,
        "grid": count,
        "mse": float((fit.surface.grid(count, count) - points).square().mean()),
        "paper": PAPER.get((kind, count)),
        "seconds": round(seconds, 2),
        "iterations": fit.iterations,
        "converged": fit.converged,
        "starts": fit.starts,
        "knots": [k.tolist()[4:-4] for k in fit.surface.knots],
        "weights": None if weights is None else [float(weights.min()), float(weights.max())],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--grids", type=int, nargs="+", default=[128, 256], help="points along each axis")
    parser.add_argument("--kinds", nargs="+", default=list(KINDS), choices=list(KINDS))
    parser.add_argument("--starts", type=int, default=1, help="of each free fit; the first is uniform")
    parser.add_argument("--seed", type=int, default=0, help="of the random starts")
    parser.add_argument("-o", "--output", type=pathlib.Path, help="JSON file")
    arguments = parser.parse_args()
    rows = []
    print(f"{'kind':14} {'grid':>5} {'mse':>10} {'paper':>6} {'s':>7} {'iterations':>10}  all starts")
    for count in arguments.grids:
        for kind in arguments.kinds:
            r = row(kind, count, arguments.starts, arguments.seed)
            rows.append(r)
            every = ", ".join(f"{x:.4f}" for x in r["starts"])
            figures = f"{r['mse']:10.5f} {r['paper'] or '':>6} {r['seconds']:7.2f} {r['iterations']:10}"
            print(f"{kind:14} {count:5} {figures}  {every}", flush=True)
    if arguments.output:
        setting = {
            "seed": arguments.seed,
            "starts": arguments.starts,
            "threads": torch.get_num_threads(),
            "torch": torch.__version__,
            "machine": platform.processor() or platform.machine(),
        }
        arguments.output.write_text(json.dumps({"setting": setting, "rows": rows}, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
