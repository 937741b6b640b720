# SPDX-License-Identifier: Apache-2.0
"""How fast splines are, beside SciPy and (where installed) splinepy and geomdl, in one run.

    python tests/benchmarks/splines.py -o splines.json      # all parts
    python tests/benchmarks/splines.py surface              # one: surface, growth, memory

Setting: bicubic rational surface, 20 × 20 control points, weights in [0.5, 1.5], clamped uniform knots; points on a
grid of n × n parameters, or as many scattered ones, in random order. Times are wall-clock medians; contestants take
turns, so that a busy machine slows all of them. Quote the ratios: single times depend on the machine.

SciPy evaluates homogeneous coordinates, `BSpline` along u and then along v, or `NdBSpline`, and then divides. Forward +
backward is in control points, weights, both knot vectors and both parameters.
"""

import pathlib
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import report
import torch
from scipy.interpolate import BSpline, NdBSpline

from geodiff import ops

COUNT, DEGREE = 20, 3
SLOW = 0.5  # seconds: a contestant that takes longer has two turns


class Problem:
    """The surface, its parameters, and what each contestant is called with."""

    def __init__(self, size: int, dtype: torch.dtype) -> None:
        generator = torch.Generator().manual_seed(0)
        draw = {"generator": generator, "dtype": torch.float64}
        self.points = torch.randn(COUNT, COUNT, 3, **draw).to(dtype)
        self.weights = (0.5 + torch.rand(COUNT, COUNT, 1, **draw)).to(dtype)
        inner = torch.linspace(0, 1, COUNT - DEGREE + 1, dtype=dtype)
        self.knots = torch.cat([torch.zeros(DEGREE, dtype=dtype), inner, torch.ones(DEGREE, dtype=dtype)])
        self.line = torch.linspace(0, 1, size, dtype=dtype)
        order = torch.randperm(size * size, generator=generator)
        mesh = torch.meshgrid(self.line, self.line, indexing="ij")
        self.u, self.v = (x.flatten()[order].contiguous() for x in mesh)
        self.upstream = torch.randn(size * size, 3, **draw).to(dtype)
        self.size = size

    def ours(self, grid: bool) -> tuple[Callable[[], Any], Callable[[], Any]]:
        """Forward alone, and forward + backward in everything."""
        parameters = [self.line, self.line] if grid else [self.u, self.v]
        inputs = [self.points, self.weights, self.knots, self.knots, *parameters]
        leaves = [x.clone().requires_grad_() for x in inputs]
        upstream = self.upstream.reshape(self.size, self.size, 3) if grid else self.upstream
        evaluate = ops.spline_grid if grid else ops.spline

        def forward(inputs: list[torch.Tensor] = inputs) -> torch.Tensor:
            points, weights, *rest = inputs
            control = torch.cat([points * weights, weights], dim=-1)
            return evaluate(control, rest[:2], rest[2:], [DEGREE, DEGREE], rational=True)

        return forward, lambda: torch.autograd.grad(forward(leaves), leaves, upstream)

    def scipy(self, grid: bool) -> Callable[[], Any]:
        control = torch.cat([self.points * self.weights, self.weights], dim=-1).double().numpy()
        knots, line = self.knots.double().numpy(), self.line.double().numpy()
        if not grid:
            at = torch.stack([self.u, self.v], dim=-1).double().numpy()
            surface = NdBSpline((knots, knots), control, (DEGREE, DEGREE))
            return lambda: project(surface(at))

        def evaluate() -> np.ndarray:
            rows = BSpline(knots, control, DEGREE)(line)
            return project(BSpline(knots, rows.swapaxes(0, 1), DEGREE)(line).swapaxes(0, 1))

        return evaluate

    def splinepy(self, threads: int) -> Callable[[], Any] | None:
        try:
            import splinepy  # type: ignore[import-not-found]
        except ImportError:
            print("splinepy is not installed: no ratio to it", flush=True)
            return None
        first_fastest = self.points.double().transpose(0, 1).reshape(-1, 3).numpy()
        weights = self.weights.double().transpose(0, 1).reshape(-1, 1).numpy()
        knots = self.knots.double().tolist()
        surface = splinepy.NURBS([DEGREE, DEGREE], [knots, knots], first_fastest, weights)
        at = np.ascontiguousarray(torch.stack([self.u, self.v], dim=-1).double().numpy())
        return lambda: surface.evaluate(at, nthreads=threads)

    def geomdl(self) -> Callable[[], Any] | None:
        try:
            from geomdl import NURBS  # type: ignore[import-untyped]
        except ImportError:
            print("geomdl is not installed: no ratio to it", flush=True)
            return None
        surface = NURBS.Surface()
        surface.degree_u = surface.degree_v = DEGREE
        surface.ctrlpts2d = torch.cat([self.points * self.weights, self.weights], dim=-1).double().tolist()
        surface.knotvector_u = surface.knotvector_v = self.knots.double().tolist()
        surface.sample_size = self.size

        def evaluate() -> np.ndarray:
            surface.evaluate()
            return np.asarray(surface.evalpts).reshape(self.size, self.size, 3)

        return evaluate


def project(homogeneous: np.ndarray) -> np.ndarray:
    return homogeneous[..., :-1] / homogeneous[..., -1:]


def take_turns(calls: dict[str, Callable[[], Any] | None], rounds: int = 15) -> dict[str, float | None]:
    """Median milliseconds of each call; they take turns."""
    present = {name: call for name, call in calls.items() if call is not None}
    times: dict[str, list[float]] = {name: [] for name in present}
    for i in range(-1, rounds):  # the first is a warm-up
        for name, call in present.items():
            if len(times[name]) >= 2 and times[name][-1] > SLOW:
                continue
            began = time.perf_counter()
            call()
            if i >= 0 or time.perf_counter() - began > SLOW:
                times[name].append(time.perf_counter() - began)
    return {name: 1e3 * statistics.median(times[name]) if name in times else None for name in calls}


def ratio(a: float | None, b: float | None) -> float | None:
    return None if a is None or b is None else a / b


def agreement(problem: Problem, grid: bool, peers: dict[str, Callable[[], Any] | None]) -> float:
    """Largest difference between our values and those of the peers, relative to the largest value."""
    found = problem.ours(grid)[0]().double().numpy()
    results = [np.asarray(peer()) for peer in peers.values() if peer is not None]
    return max(float(np.abs(found - wanted).max() / np.abs(wanted).max()) for wanted in results)


def surface(threads: list[int]) -> list[dict]:
    rows = []
    for size in (256, 512):
        for dtype in (torch.float64, torch.float32):
            problem = Problem(size, dtype)
            for n in threads:
                torch.set_num_threads(n)
                for grid in (True, False):
                    forward, both = problem.ours(grid)
                    peers: dict[str, Callable[[], Any] | None] = {"scipy": problem.scipy(grid)}
                    if grid and dtype == torch.float64:
                        peers["geomdl"] = problem.geomdl()
                    if not grid:
                        peers["splinepy"] = problem.splinepy(n)
                    row: dict[str, Any] = {"path": "grid" if grid else "scattered", "size": size, "threads": n}
                    row |= {"dtype": str(dtype).removeprefix("torch."), "difference": agreement(problem, grid, peers)}
                    with torch.no_grad():
                        times = take_turns({"forward": forward, **peers})
                    # The two that make the ratio take turns, too.
                    pair = take_turns({"forward": forward, "both": both}, rounds=25)
                    row |= {f"{name}_ms": value for name, value in times.items()}
                    row |= {"both_ms": pair["both"], "both_over_forward": ratio(pair["both"], pair["forward"])}
                    row |= {f"times_{name}": ratio(times[name], times["forward"]) for name in peers}
                    report.show(row)
                    rows.append(row)
    return rows


def growth(threads: list[int]) -> list[dict]:
    """Nanoseconds a scattered point as their number grows 64-fold: constant if time follows it."""
    torch.set_num_threads(threads[-1])
    rows: list[dict] = []
    for size in (128, 256, 512, 1024):
        forward, both = Problem(size, torch.float64).ours(grid=False)
        times = take_turns({"forward": forward, "both": both}, rounds=7)
        row = {"points": size * size} | {f"{k}_ns_a_point": 1e6 * (v or 0) / size**2 for k, v in times.items()}
        row["times_first"] = row["both_ns_a_point"] / (rows or [row])[0]["both_ns_a_point"]
        report.show(row)
        rows.append(row)
    return rows


def memory(threads: list[int]) -> list[dict]:
    """Peak memory of a fresh process (Linux) that takes all gradients at N scattered points, over one with few points.

    Bytes a point beside those of inputs, upstream, result and gradients: 16 + 24 + 32 + 16 = 88 in double precision.
    Sixteen control points a point would be 512 bytes.
    """
    code = (
        "import sys; sys.path.insert(0, 'tests/benchmarks')\n"
        "import torch, splines\n"
        "torch.set_num_threads(1)\n"
        "splines.Problem(int(sys.argv[1]), torch.float64).ours(grid=sys.argv[2] == 'grid')[int(sys.argv[3])]()\n"
        "print(next(int(l.split()[1]) for l in open('/proc/self/status') if l.startswith('VmHWM')) * 1024)\n"
    )

    def peak(size: int, path: str, backward: bool) -> int:
        command = [sys.executable, "-c", code, str(size), path, str(int(backward))]
        root = pathlib.Path(__file__).parents[2]
        return int(subprocess.run(command, capture_output=True, text=True, check=True, cwd=root).stdout)

    rows = []
    for path in ("grid", "scattered"):
        least = peak(16, path, True)
        for size in (512, 1024, 2048):
            alone, most = peak(size, path, False), peak(size, path, True)
            row = {"path": path, "points": size**2, "peak_mb": most / 2**20}
            row |= {"bytes_a_point": (most - least) / size**2, "backward_bytes_a_point": (most - alone) / size**2}
            report.show(row)
            rows.append(row)
    return rows


if __name__ == "__main__":
    report.measure(__doc__, {"surface": surface, "growth": growth, "memory": memory})
