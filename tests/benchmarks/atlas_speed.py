# SPDX-License-Identifier: Apache-2.0
"""How fast charts are fitted, beside a plain loop over patches with the published settings, in one run.

    python tests/benchmarks/atlas_speed.py -o atlas_speed.json          # all: about ten minutes
    python tests/benchmarks/atlas_speed.py patch --quick                # one part of it, smaller
    python tests/benchmarks/atlas_speed.py table atlas_speed.json       # as Markdown

`patch`: milliseconds for a patch and epoch (one gradient step of a patch), on one thread. The loop has what the
published code has: for each patch of 46 points a network 2-128-256-512-512-3, the matrix of squared distances, 32
log-domain iterations of Sinkhorn at ε = 1e-3 without gradient, the largest entry of each row as target, backward; then
Adam over the weights of all patches and over the places in the square. Rows with *exact* have assignments by SciPy in
place of Sinkhorn; those with the small network have 2-64-64-64-3. Ours is the local fit as it runs in `fit_atlas`, with
its re-matchings, robust weights and bookkeeping, over the steps of all charts (those between re-matchings count); early
stopping is off. *exact* matches every patch three times in a fit, *hybrid* (the default) only those that fold over
their plane. Contestants take turns; quote the ratios.

`share`: charts × steps a second with early stopping as it is meant, and how much of the time is matching.

`scaling`: CPU seconds and peak memory of a fresh process against the number of points, with early stopping, samples and
mesh; the slope is that of log seconds over log points. The noise is thick for the densest clouds, which makes their
patches larger: more points a chart, fewer charts.

`job`: seconds of each stage of `fit_atlas`, from file to files, processor time and peak memory, of this process and of
that which solves Poisson's equation beside it, each cloud in a fresh process:
the fandisk of 8000 points and the gargoyle of 95 435; `million`, which is not run unless it is named: a ball with bumps
of a million points. `team`: processor and wall time of the fits of the charts, alone and shared by two processes of
torchrun, all of one thread.
"""

import argparse
import itertools
import json
import math
import os
import pathlib
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from typing import Any

import numpy as np
import torch

import geodiff as gd
from geodiff.atlas.atlas import Atlas
from geodiff.atlas.charts import PAPER_WIDTHS, WIDTHS
from geodiff.atlas.cloud import read_cloud
from geodiff.atlas.fit import MATCH_ROUNDS, MATCH_STEPS, Fitter, Settings
from geodiff.tasks.team import Team
from geodiff.transport.assignment import assign

POINTS = 46  # of a published patch
EPSILON, ITERATIONS = 1e-3, 32
NETWORKS = {"paper": PAPER_WIDTHS, "small": WIDTHS}
COUNTS = (5_000, 10_000, 20_000, 40_000, 80_000)


def bumpy(count: int, noise: float = 0.01) -> torch.Tensor:
    """A ball with bumps, and noise."""
    generator = torch.Generator().manual_seed(0)
    x = torch.nn.functional.normalize(torch.randn(count, 3, generator=generator), dim=1)
    bumps = 1 + 0.08 * (6 * x[:, :1]).sin() * (5 * x[:, 1:2]).cos()
    return bumps * x + noise * torch.randn(count, 3, generator=generator)


# --- one patch and epoch ----------------------------------------------------------------------------------------------


class Loop:
    """Patch after patch, as published: its own network, matching and backward pass for each."""

    def __init__(self, widths: tuple[int, ...], patches: int, exact: bool) -> None:
        torch.manual_seed(0)
        self.exact = exact
        sides = (2, *widths)
        self.networks = []
        for _ in range(patches):
            layers: list[torch.nn.Module] = []
            for a, b in itertools.pairwise(sides):
                layers += [torch.nn.Linear(a, b), torch.nn.ReLU()]
            self.networks.append(torch.nn.Sequential(*layers, torch.nn.Linear(sides[-1], 3)))
        self.uv = [torch.rand(POINTS, 2).requires_grad_() for _ in range(patches)]
        flat = 2 * torch.rand(patches, POINTS, 2) - 1
        lift = 0.3 * flat[..., :1] * flat[..., 1:] + 0.02 * torch.randn(patches, POINTS, 1)
        self.points = torch.cat([flat, lift], -1)
        self.adam = torch.optim.Adam([p for network in self.networks for p in network.parameters()], lr=1e-3)
        self.adam_uv = torch.optim.Adam(self.uv, lr=1e-3)

    def epoch(self) -> float:
        """One step of all patches; return the seconds of matching."""
        spent = 0.0
        self.adam.zero_grad()
        self.adam_uv.zero_grad()
        for network, uv, points in zip(self.networks, self.uv, self.points, strict=True):
            image = network(uv)
            begin = time.perf_counter()
            with torch.no_grad():
                target = self._match(image, points)
            spent += time.perf_counter() - begin
            (image - target).square().sum(1).mean().backward()
        self.adam.step()
        self.adam_uv.step()
        return spent

    def _match(self, image: torch.Tensor, points: torch.Tensor) -> torch.Tensor:
        if self.exact:
            (pair,) = assign([image], [points])
            return points[pair.columns[pair.rows.argsort()]]
        cost = torch.cdist(image, points, compute_mode="donot_use_mm_for_euclid_dist").square()
        u, v = torch.zeros(POINTS), torch.zeros(POINTS)
        for _ in range(ITERATIONS):
            before = u
            u = u - EPSILON * torch.logsumexp((-cost + u[:, None] + v) / EPSILON, 1)
            v = v - EPSILON * torch.logsumexp((-cost + u[:, None] + v) / EPSILON, 0)
            if float((u - before).abs().sum()) < 1e-3:
                break
        return points[((-cost + u[:, None] + v) / EPSILON).argmax(1)]


class Ours:
    """The local fits of a chunk of charts, over and over."""

    def __init__(self, widths: tuple[int, ...], patches: int, matching: str, steps: int) -> None:
        count = patches * POINTS // 3  # a point is in about three patches
        settings = Settings(widths=widths, matching=matching, steps=steps, noise=0.0, rounds=0, target=POINTS,
                            chunk=1 << 20, spacing=0.7)  # fmt: skip
        self.fitter = Fitter(read_cloud(bumpy(count)), settings)
        matched = len(self.fitter.cover) if matching == "exact" else int(self.fitter.folded.sum())
        self.steps = steps * len(self.fitter.cover) + MATCH_ROUNDS * MATCH_STEPS * matched
        self.start = {k: v.clone() for k, v in self.fitter.state().items()}

    def fit(self) -> float:
        """Fit anew; return the seconds for a patch and step."""
        self.fitter.restore(self.start)
        begin = time.perf_counter()
        self.fitter.run()
        return (time.perf_counter() - begin) / self.steps


def patch(quick: bool) -> dict[str, Any]:
    """Time contestants in turns."""
    torch.set_num_threads(1)
    steps, turns = (10, 2) if quick else (25, 3)
    loops = {(n, e): Loop(w, 4 if quick else 10, e) for n, w in NETWORKS.items() for e in (False, True)}
    ours = {(n, m): Ours(w, 40, m, steps) for n, w in NETWORKS.items() for m in ("exact", "hybrid")}
    times: dict[str, list[float]] = {}
    matching: dict[str, list[float]] = {}
    for turn in range(turns + 1):
        for (network, exact), loop in loops.items():
            name = f"loop, {'exact' if exact else 'sinkhorn'}, {network}"
            begin = time.perf_counter()
            spent = loop.epoch()
            if turn:  # the first warms up
                times.setdefault(name, []).append(1e3 * (time.perf_counter() - begin) / len(loop.networks))
                matching.setdefault(name, []).append(1e3 * spent / len(loop.networks))
        for (network, method), one in ours.items():
            seconds = one.fit()
            if turn:
                times.setdefault(f"ours, {method}, {network}", []).append(1e3 * seconds)
    result: dict[str, Any] = {"ms": {k: statistics.median(v) for k, v in times.items()},
                              "of it matching": {k: statistics.median(v) for k, v in matching.items()}}  # fmt: skip
    base = "loop, sinkhorn, paper"
    ratios = {k: [a / b for a, b in zip(times[base], v, strict=True)] for k, v in times.items()}
    result["times as fast as the published loop"] = {k: statistics.median(v) for k, v in ratios.items()}
    same = {k: [a / b for a, b in zip(times[f"loop, sinkhorn, {k.split(', ')[2]}"], v, strict=True)]
            for k, v in times.items()}  # fmt: skip
    result["times as fast as the loop with the same network"] = {k: statistics.median(v) for k, v in same.items()}
    result["patches"] = {f"{k[1]}, {k[0]}": len(v.fitter.cover) for k, v in ours.items()}
    return result


# --- the share of matching --------------------------------------------------------------------------------------------


def share(quick: bool) -> dict[str, Any]:
    """Time whole fits with each matching."""
    cloud = read_cloud(bumpy(2000 if quick else 8000))
    result = {}
    for method in ("hybrid", "projection", "exact", "sinkhorn"):
        fitter = Fitter(cloud, Settings(matching=method))
        spent = [0.0]
        start = fitter._start

        def timed(first: int, last: int, start: Any = start, spent: list[float] = spent) -> None:
            begin = time.perf_counter()
            start(first, last)
            spent[0] += time.perf_counter() - begin

        fitter._start = timed  # type: ignore[method-assign]
        begin = time.perf_counter()
        fit = fitter.run()
        seconds = time.perf_counter() - begin
        result[method] = {
            "charts": len(fit.charts),
            "seconds": seconds,
            "steps": int(fit.steps.sum()),
            "charts x steps / s": int(fit.steps.sum()) / seconds,
            "matching": spent[0] / seconds,
            "rms / noise": float((fit.rms.double().square().mean().sqrt()) / fit.noise),
        }
    return result


# --- scaling ----------------------------------------------------------------------------------------------------------


def once(count: int) -> dict[str, Any]:
    """Fit a cloud in this process; in CPU seconds, which other jobs on the machine hardly change."""
    held = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    clock = [time.process_time()]
    stages = {}

    def lap(name: str) -> None:
        clock.append(time.process_time())
        stages[name] = clock[-1] - clock[-2]

    fitter = Fitter(read_cloud(bumpy(count), most=None), Settings())
    lap("cover")
    fit = fitter.run()
    lap("fit")
    atlas = Atlas.from_fit(fit)
    lap("orient")
    atlas.sample(200_000)
    lap("samples")
    atlas.to_mesh()
    lap("mesh")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {"points": count, "charts": len(atlas), "steps": int(fit.steps.sum()), **stages,
            "seconds": clock[-1] - clock[0], "peak MB": peak / 1024, "MB more": (peak - held) / 1024}  # fmt: skip


def scaling(quick: bool) -> dict[str, Any]:
    """Fit larger and larger clouds, each in a fresh process."""
    rows = []
    for count in COUNTS[:2] if quick else COUNTS:
        command = [sys.executable, __file__, "once", str(count)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        rows.append(json.loads(done.stdout))
        print(rows[-1], file=sys.stderr, flush=True)
    x = torch.tensor([math.log(r["points"]) for r in rows])
    slopes = {}
    for name in ("fit", "seconds"):
        y = torch.tensor([math.log(r[name]) for r in rows])
        slopes[name] = float(((x - x.mean()) * (y - y.mean())).sum() / (x - x.mean()).square().sum())
    return {"rows": rows, "slope": slopes}


# --- whole jobs -------------------------------------------------------------------------------------------------------


def one_job(cloud: str) -> dict[str, Any]:
    """Fit a cloud from file to files in this process."""
    begin, cpu = time.perf_counter(), time.process_time()
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "cloud.npy"
        if cloud == "million":
            points = bumpy(1_000_000, 0.002)
        else:
            sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
            from atlas_clouds import CASES

            points = CASES[{"fandisk": "fandisk 0.2 %", "gargoyle": "gargoyle, held out"}[cloud]]().points
        np.save(path, points.numpy())
        begin, cpu = time.perf_counter(), time.process_time()
        fit = gd.fit_atlas(path, output=pathlib.Path(folder) / "out", progress=False)
    beside = resource.getrusage(resource.RUSAGE_CHILDREN)
    return {"cloud": cloud, "points": len(points), "charts": len(fit.atlas), "threads": torch.get_num_threads(),
            "stages": fit.metrics["speed"]["stages"], "seconds": time.perf_counter() - begin,
            "cpu seconds": time.process_time() - cpu, "notes": fit.notes, "load": os.getloadavg()[0],
            "cpu seconds beside": beside.ru_utime + beside.ru_stime, "peak MB beside": beside.ru_maxrss / 1024,
            "peak MB": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}  # fmt: skip


def fresh(*arguments: str) -> Any:
    """Run this file in a process of its own, and return what it prints as JSON last."""
    done = subprocess.run([sys.executable, __file__, *arguments], capture_output=True, text=True, check=True)
    print(done.stdout.splitlines()[-1], file=sys.stderr, flush=True)
    return json.loads(done.stdout.splitlines()[-1])


def job(quick: bool) -> dict[str, Any]:
    """Fit two scans."""
    return {name: fresh("job of", name) for name in (("fandisk",) if quick else ("fandisk", "gargoyle"))}


def million(quick: bool) -> dict[str, Any]:
    """Fit a million points."""
    return fresh("job of", "million")


def one_of_a_team(count: int) -> None:
    """Fit the charts, alone or as one of a team; each process prints what it took."""
    torch.set_num_threads(1)
    with Team.join() as team:
        fitter = Fitter(read_cloud(bumpy(count)), Settings())
        start = {k: v.clone() for k, v in fitter.state().items()}
        cpu, wall = [], []
        for _ in range(3):
            fitter.restore(start)
            team.wait()
            begin, work = time.perf_counter(), time.process_time()
            fitter.run(None, None, team)
            wall.append(time.perf_counter() - begin)
            cpu.append(time.process_time() - work)
        found = team.union({team.rank: {"cpu": min(cpu), "wall": min(wall)}})
        if team.leads:
            print(json.dumps({"charts": len(fitter.cover), "chunks": len(fitter.starts), "processes": found}))


def team(quick: bool) -> dict[str, Any]:
    """Compare one process with two of torchrun."""
    count = "4000" if quick else "20000"
    two = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", __file__, "one of a team", count]
    rows = {}
    for name, command in {"alone": [__file__, "one of a team", count], "two": two}.items():
        done = subprocess.run([sys.executable, *command], capture_output=True, text=True, check=True)
        rows[name] = json.loads(done.stdout.splitlines()[-1])
    ratios = {kind: max(p[kind] for p in rows["alone"]["processes"].values())
              / max(p[kind] for p in rows["two"]["processes"].values()) for kind in ("cpu", "wall")}  # fmt: skip
    return {**rows, "times as fast": ratios}


def table(results: dict[str, Any]) -> str:
    """Write the results as Markdown."""
    lines = []
    if "patch" in results:
        one = results["patch"]
        lines += ["| a patch of 46 points, one epoch | ms | of it matching | times as fast as the published loop | "
                  "as the loop with the same network |", "|---|---|---|---|---|"]  # fmt: skip
        for name, ms in one["ms"].items():
            of = one["of it matching"].get(name)
            fast = [one[f"times as fast as the {k}"][name] for k in ("published loop", "loop with the same network")]
            lines.append(f"| {name} | {ms:.3g} | {'' if of is None else f'{of:.3g}'} | {fast[0]:.3g} | {fast[1]:.3g} |")
        lines.append("")
    if "share" in results:
        lines += [
            "| matching | charts | s | charts × steps / s | share of matching | rms / σ |",
            "|---|---|---|---|---|---|",
        ]
        for name, row in results["share"].items():
            lines.append(f"| {name} | {row['charts']} | {row['seconds']:.1f} | {row['charts x steps / s']:.0f} | "
                         f"{100 * row['matching']:.0f} % | {row['rms / noise']:.2f} |")  # fmt: skip
        lines.append("")
    if "scaling" in results:
        stages = ("cover", "fit", "orient", "samples", "mesh", "seconds")
        lines += [f"| points | charts | {' | '.join(stages)} | peak MB |", "|---" * (3 + len(stages)) + "|"]
        for row in results["scaling"]["rows"]:
            cells = " | ".join(f"{row[s]:.1f}" for s in stages)
            lines.append(f"| {row['points']} | {row['charts']} | {cells} | {row['peak MB']:.0f} |")
        slope = results["scaling"]["slope"]
        lines += ["", f"Slopes: fit {slope['fit']:.2f}, in all {slope['seconds']:.2f}."]
    for row in [*results.get("job", {}).values(), *([results["million"]] if "million" in results else [])]:
        lines += ["", f"{row['cloud']}: {row['points']} points, {row['charts']} charts, {row['seconds']:.1f} s, "
                      f"{row['cpu seconds']:.1f} + {row['cpu seconds beside']:.1f} s of processors, "
                      f"{row['peak MB']:.0f} + {row['peak MB beside']:.0f} MB; "
                      + ", ".join(f"{name} {s:.1f}" for name, s in row["stages"].items())]  # fmt: skip
    if "team" in results:
        lines += ["", f"Two processes: {results['team']['times as fast']}"]
    return "\n".join(lines)


PARTS = {"patch": patch, "share": share, "scaling": scaling, "job": job, "team": team}
NAMED = {**PARTS, "million": million}


def main() -> None:
    if sys.argv[1:2] == ["once"]:
        print(json.dumps(once(int(sys.argv[2]))))
        return
    if sys.argv[1:2] == ["job of"]:
        print(json.dumps(one_job(sys.argv[2])))
        return
    if sys.argv[1:2] == ["one of a team"]:
        one_of_a_team(int(sys.argv[2]))
        return
    if sys.argv[1:2] == ["table"]:
        print(table(json.loads(pathlib.Path(sys.argv[2]).read_text())))
        return
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", help=f"of {', '.join(NAMED)}; table FILE")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("-o", "--output", type=pathlib.Path)
    arguments = parser.parse_args()
    results: dict[str, Any] = {"machine": platform.processor() or platform.machine(), "cores": os.cpu_count(),
                               "threads": torch.get_num_threads(), "torch": torch.__version__}  # fmt: skip
    for name in arguments.parts or PARTS:
        results[name] = NAMED[name](arguments.quick)
        if arguments.output is not None:
            arguments.output.write_text(json.dumps(results, indent=1) + "\n")
    print(table(results))


if __name__ == "__main__":
    main()
