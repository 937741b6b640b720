# SPDX-License-Identifier: Apache-2.0
"""How a chart learns: the questions of the deep geometric prior, asked of some charts of a known surface.

    python tests/benchmarks/atlas_dynamics.py -o out/dynamics          # some minutes; figure and table
    python tests/benchmarks/atlas_dynamics.py -o out/dynamics --quick

The surface is z = 0.12 sin 5x cos 4y over the unit square, or a roof with a ridge; points of it, moved by Gaussian
noise, are covered by patches of 150. Charts are trained without stopping, at a constant step length, and measured on
the way: the distance of the charts from their points (what they are trained for), and from the true surface (what one
wants), root mean squares over all points of all charts, in units of σ. Starting weights keep the variance (gain √6),
not the default's.
"""

import argparse
import json
import pathlib
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure

from geodiff.atlas.charts import PAPER_WIDTHS
from geodiff.atlas.cloud import read_cloud
from geodiff.atlas.fit import Fitter, Settings
from geodiff.atlas.ragged import Ragged

POINTS, TARGET = 2500, 150
RADIUS = (TARGET / (np.pi * POINTS)) ** 0.5  # of a patch, about
SMALL = (64, 64, 64)
Height = Callable[[torch.Tensor], torch.Tensor]


def waves(xy: torch.Tensor) -> torch.Tensor:
    """Smooth."""
    return 0.12 * (5 * xy[..., 0]).sin() * (4 * xy[..., 1]).cos()


def roof(xy: torch.Tensor) -> torch.Tensor:
    """With an edge of 90 degrees."""
    return -((xy[..., 0] + 0.3 * xy[..., 1] - 0.65) / 1.09**0.5).abs()


def off(points: torch.Tensor, height: Height) -> torch.Tensor:
    """Distances from the surface, by its tangent plane above or below a point."""
    xy = points[..., :2].detach().clone().requires_grad_()
    z = height(xy)
    (slope,) = torch.autograd.grad(z.sum(), xy)
    return (points[..., 2] - z.detach()).abs() / (1 + slope.square().sum(-1)).sqrt()


def train(
    height: Height = waves,
    *,
    widths: tuple[int, ...] = SMALL,
    residual: bool = True,
    matching: str = "projection",
    move_uv: bool = True,
    sigma: float = 0.05,
    steps: int = 1000,
    charts: int = 24,
    rate: float = 5e-3,
    gain: float | None = None,
) -> dict[str, Any]:
    """Train some charts and measure them on the way.

    Returns:
        ``step``; ``points`` and ``truth``, root mean squares over σ; ``stretch`` and ``area``: medians over the places
        of the ratio of the two singular values of ∂φ/∂u, and of the factor between the area and the chart's mean.
    """
    torch.manual_seed(0)
    flat = torch.rand(POINTS, 2, dtype=torch.float64)
    noise = sigma * RADIUS
    clean = torch.cat([flat, height(flat)[:, None]], 1)
    cloud = read_cloud(clean + noise * torch.randn(POINTS, 3, dtype=torch.float64))
    settings = Settings(widths=widths, residual=residual, gain=gain, matching=matching, move_uv=move_uv, target=TARGET,
                        noise=noise, robust=False, spacing=0.75)  # fmt: skip
    fitter = Fitter(cloud, settings)
    count = min(charts, len(fitter.cover))
    transported = fitter._transported(0, count)
    if len(transported[0]):
        fitter._start(*transported)
    layout = Ragged(fitter.cover.chart[: fitter.edges[count]], count)
    place = fitter.placement
    marks = sorted({round(x) for x in np.geomspace(1, steps, 40)})
    sums: dict[int, list[float]] = {k: [0.0, 0.0, 0.0] for k in marks}
    stretch, area = [], []
    for block in layout.blocks:
        batch = fitter._batch(block.charts, fitter.uv[block.slots], fitter.local[block.slots], block.mask.float())
        center, scale, axes = (t[block.charts].double() for t in (place.center, place.scale, place.rotation))
        given = fitter.cover.points[fitter.cover.point[block.slots]].double()
        for k in range(1, steps + 1):
            batch.step(rate)
            if k in sums:
                world = center[:, None] + scale[:, None, None] * (batch.out.double() @ axes)
                far = off(world, height)[block.mask]
                # Across the surface only: along it, points may go where they like.
                rest = ((world - given) ** 2).sum(-1)[block.mask]
                sums[k][0] += float(rest.sum())
                sums[k][1] += float(far.square().sum())
                sums[k][2] += len(far)
        slope = batch.charts().local_jacobian(batch.uv)[1].double()[block.mask]
        values = torch.linalg.svdvals(slope).clamp(min=1e-9)
        stretch.append(values[:, 0] / values[:, 1])
        size = values.prod(1).log()
        number = torch.arange(len(block.charts))[:, None].expand_as(block.mask)[block.mask]
        total = torch.zeros(len(block.charts), dtype=size.dtype).index_add(0, number, size)
        area.append((size - (total / block.mask.sum(1))[number]).abs().exp())
    return {
        "step": marks,
        "points": [(sums[k][0] / sums[k][2]) ** 0.5 / noise for k in marks],
        "truth": [(sums[k][1] / sums[k][2]) ** 0.5 / noise for k in marks],
        "stretch": float(torch.cat(stretch).median()),
        "area": float(torch.cat(area).median()),
    }


def at_stop(run: dict[str, Any]) -> tuple[int, float]:
    """Return the step at which the points are met to within σ, or the last, and the distance from the truth there."""
    place = next((i for i, value in enumerate(run["points"]) if value <= 1), len(run["step"]) - 1)
    return run["step"][place], run["truth"][place]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--output", type=pathlib.Path, required=True)
    parser.add_argument("--quick", action="store_true")
    arguments = parser.parse_args()
    few = {"charts": 6} if arguments.quick else {}
    steps = 150 if arguments.quick else 1500
    runs: dict[str, Any] = {}

    def run(name: str, **options: Any) -> dict[str, Any]:
        if name not in runs:
            runs[name] = train(**{"steps": steps, **few, **options})
            step, truth = at_stop(runs[name])
            least, end = min(runs[name]["truth"]), runs[name]["truth"][-1]
            form = f"stretch {runs[name]['stretch']:.2f}, area {runs[name]['area']:.2f}"
            text = f"{name:26} at σ after {step:5} steps: truth {truth:.3f} σ, least {least:.3f}, at the end {end:.3f}"
            print(f"{text}; {form}", flush=True)
        return runs[name]

    figure = Figure(figsize=(13, 7.4), layout="constrained")
    axes = figure.subplots(2, 3)

    def draw(panel: Any, one: dict[str, Any], label: str, color: str, both: bool = False) -> None:
        panel.loglog(one["step"], one["truth"], color=color, label=label)
        if both:
            panel.loglog(one["step"], one["points"], color=color, ls=":", label=f"{label}, to the points")

    paper = {"widths": PAPER_WIDTHS, "charts": 3, "steps": max(steps // 3, 50), "rate": 1e-3}
    draw(axes[0, 0], run("small"), "64-64-64", "C0", True)
    draw(axes[0, 0], run("paper", **paper), "128-256-512-512, rate 0.001", "C3", True)
    axes[0, 0].axhline(1, color="0.6", lw=0.8)
    axes[0, 0].set_title("noise is learned last")
    for i, (name, options) in enumerate({"residual": {}, "plain": {"residual": False}}.items()):
        draw(axes[0, 1], run("small" if not options else name, **options), f"{name}, smooth", f"C{i}")
        one = run(f"{name}, edge", height=roof, **options)
        axes[0, 1].loglog(one["step"], one["truth"], color=f"C{i}", ls="--", label=f"{name}, edge")
    axes[0, 1].set_title("start: on the plane, or anywhere")
    for i, name in enumerate(("projection", "exact", "sinkhorn")):
        draw(axes[0, 2], run("small" if name == "projection" else name, matching=name), name, f"C{i}")
    axes[0, 2].set_title("where places come from")
    sizes = (8, 16, 32, 64, 128)
    stops = [at_stop(run("small" if w == 64 else f"width {w}", widths=(w,) * 3)) for w in sizes]
    axes[1, 0].semilogx(sizes, [truth for _, truth in stops], "o-", label="truth at the stop, σ")
    twin = axes[1, 0].twinx()
    twin.semilogx(sizes, [step for step, _ in stops], "s--", color="0.5")
    twin.set_ylabel("steps to the stop (dashed)")
    axes[1, 0].set_title("width of three layers")
    noises = (0.01, 0.02, 0.05, 0.1, 0.2)
    several = [run("small" if s == 0.05 else f"noise {s}", sigma=s) for s in noises]
    for label, values in (
        ("when the points are met to σ", [at_stop(one)[1] for one in several]),
        ("at the best time", [min(one["truth"]) for one in several]),
        ("in the end", [one["truth"][-1] for one in several]),
    ):
        axes[1, 1].semilogx(noises, values, "o-", label=label)
    axes[1, 1].set_title("early stopping against noise")
    axes[1, 1].set_xlabel("σ, in radii of a patch")
    bars = {}
    for name in ("projection", "exact", "sinkhorn"):
        for move in (True, False):
            key = ("small" if name == "projection" else name) if move else f"{name}, places fixed"
            bars[f"{name}\n{'moving' if move else 'fixed'}"] = run(key, matching=name, move_uv=move)
    x = np.arange(len(bars))
    axes[1, 2].bar(x - 0.2, [one["stretch"] for one in bars.values()], 0.4, label="stretch")
    axes[1, 2].bar(x + 0.2, [one["area"] for one in bars.values()], 0.4, label="area")
    axes[1, 2].set_xticks(x, list(bars), fontsize=7)
    axes[1, 2].set_ylim(1)
    axes[1, 2].set_title("distortion in the end, medians")
    for panel in axes[0]:
        panel.set_xlabel("steps")
    for panel in (axes[0, 0], axes[1, 0], axes[1, 1]):
        panel.set_ylabel("distance, σ")
    for panel in axes.flat:
        panel.grid(alpha=0.3)
        panel.legend(frameon=False, fontsize=8)
    arguments.output.mkdir(parents=True, exist_ok=True)
    figure.savefig(arguments.output / "atlas_dynamics.png", dpi=75)
    (arguments.output / "atlas_dynamics.json").write_text(json.dumps(runs, indent=1) + "\n")


if __name__ == "__main__":
    main()
