# SPDX-License-Identifier: Apache-2.0
"""Pictures of docs/transport.md: gradients of transport, what epsilon and reach do, and two figures of a paper again.

    python demos/transport_figures.py                                        # the pictures of gradients: seconds
    python demos/transport_figures.py --pooling p.json --transport t.json    # and the two figures, from measurements

The figures are 1 and 3 of "Exploiting Problem Structure in Deep Declarative Networks" (Gould et al., 2022). They are
drawn from what tests/benchmarks/pooling.py and tests/benchmarks/transport.py measured (-o p.json, -o t.json).
"""

import argparse
import json
import math
import pathlib
from typing import Any

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure

import geodiff as gd

BLUE, RED, GREY, GREEN = "#2a6fbb", "#c8502d", "#888888", "#3c8d4f"
METHODS = {
    "autograd": ("autograd, plan", "#999999", "--"),
    "autograd_vectors": ("autograd, vectors", "#555555", ":"),
    "full_inverse": ("full inverse", "#c8502d", "--"),
    "block_inverse": ("block inverse", "#e3a23a", "-"),
    "ours": ("ours", BLUE, "-"),
    "ours_to_tolerance": ("ours, to tolerance", GREEN, "-."),
}


def clouds() -> tuple[torch.Tensor, torch.Tensor]:
    """Make an arc of 14 points and a slanted one of 16."""
    s, t = torch.linspace(0, 1, 14, dtype=torch.float64), torch.linspace(0, 1, 16, dtype=torch.float64)
    x = torch.stack([0.05 + 0.8 * s, 0.25 + 0.2 * (math.pi * s).sin()], -1)
    y = torch.stack([0.15 + 0.85 * t, 0.75 - 0.25 * t + 0.08 * (2 * math.pi * t).sin()], -1)
    return x, y


def draw(axes: Axes, x: torch.Tensor, y: torch.Tensor, title: str) -> None:
    """Draw two clouds."""
    axes.plot(*x.detach().T, "o", color=BLUE, ms=4, zorder=3)
    axes.plot(*y.detach().T, "s", color=RED, ms=4, zorder=3)
    axes.set_title(title, fontsize=9)
    axes.set_aspect("equal")
    axes.set_xticks([])
    axes.set_yticks([])


def arrows(axes: Axes, points: torch.Tensor, way: torch.Tensor, color: str) -> None:
    """Draw where points would go."""
    axes.quiver(*points.detach().T, *way.T, angles="xy", scale_units="xy", scale=1, color=color, width=0.005, zorder=2)


def gradients() -> Figure:
    """Draw what moves points: the cost, the divergence, one entry of the plan."""
    figure = Figure(figsize=(10.5, 2.7), layout="constrained")
    row = figure.subplots(1, 4)
    x, y = (t.requires_grad_() for t in clouds())
    n, epsilon = len(x), 0.05
    values = {
        "cost, ε = 0.05: points go to averages,\nthe cloud shrinks": gd.sinkhorn(x, y, epsilon=epsilon).cost,
        "divergence, ε = 0.05:\nmasses go where they belong": gd.sinkhorn_divergence(x, y, epsilon=epsilon),
        "Chamfer: each to its nearest;\nmany to one": gd.chamfer(x, y, one_sided=True),
    }
    for axes, (title, value) in zip(row, values.items(), strict=False):
        (way,) = torch.autograd.grad(value, x)
        draw(axes, x, y, title)
        arrows(axes, x, -n / 2 * way, BLUE)
    plan = gd.sinkhorn(x, y, epsilon=epsilon).plan()
    i, j = 6, 8
    along = torch.autograd.grad(plan[i, j], [x, y])
    draw(row[3], x, y, "one entry of the plan, circled:\nwhat makes it larger")
    scale = 0.2 / max(float(g.norm(dim=-1).max()) for g in along)
    for points, gradient, color in zip((x, y), along, (BLUE, RED), strict=True):
        arrows(row[3], points, scale * gradient, color)
    for point in (x[i], y[j]):
        row[3].plot(*point.detach(), "o", ms=11, mfc="none", mec="black")
    for axes in row:
        axes.set_xlim(-0.05, 1.1)
        axes.set_ylim(0.1, 1.0)
    return figure


def lines(axes: Axes, x: torch.Tensor, y: torch.Tensor, plan: torch.Tensor) -> None:
    """Draw the plan as lines."""
    top = 1 / min(plan.shape)
    for i, j in (plan > 0.01 * top).nonzero().tolist():
        share = min(1.0, float(plan[i, j]) / top)
        axes.plot(*torch.stack([x[i], y[j]]).T, color=GREY, alpha=share**0.7, lw=2 * share + 0.3, zorder=1)


def effects() -> Figure:
    """Draw plans at three values of ε, and of reach with two points that belong nowhere."""
    figure = Figure(figsize=(10.5, 4.1), layout="constrained")
    rows = figure.subplots(2, 3)
    x, y = clouds()
    for axes, epsilon in zip(rows[0], (0.3, 0.03, 0.003), strict=True):
        result = gd.sinkhorn(x, y, epsilon=epsilon)
        bias = gd.sinkhorn_divergence(x, y, epsilon=epsilon)
        title = f"ε = {epsilon:g}: ⟨P, C⟩ = {float(result.transport_cost):.3f}, divergence {float(bias):.3f}"
        draw(axes, x, y, title)
        lines(axes, x, y, result.plan())
    far = torch.tensor([[1.6, 0.3], [1.65, 0.45]], dtype=torch.float64)
    wild = torch.cat([x, far])
    for axes, reach in zip(rows[1], (None, 0.6, 0.2), strict=True):
        result = gd.sinkhorn(wild, y, epsilon=0.003, reach=reach)
        plan = result.plan()
        kept = float(plan[-2:].sum() / (2 / len(wild)))
        name = "no reach" if reach is None else f"reach = {reach:g}"
        arc = float(plan[:-2].sum() * len(wild) / len(x))
        draw(axes, wild, y, f"{name}: moves {kept:.0%} of the outliers, {arc:.0%} of the arc")
        lines(axes, wild, y, plan)
    return figure


def figure_1(measured: dict[str, Any]) -> Figure:
    """Draw time and memory of robust pooling."""
    figure = Figure(figsize=(8, 6), layout="constrained")
    plots = figure.subplots(2, 2)
    names = list(dict.fromkeys(r["penalty"] for r in measured["rows"]))
    for k, name in enumerate(names):
        found = [r for r in measured["rows"] if r["penalty"] == name]
        for row, unit in enumerate(("ms", "mb")):
            for axes, way in zip(plots[row], ("forward", "backward"), strict=True):
                n = [r["n"] for r in found]
                axes.plot(n, [r[f"ours_{way}_{unit}"] for r in found], color=f"C{k}", label=name.replace("_", " "))
                axes.plot(n, [r[f"published_{way}_{unit}"] for r in found], color=f"C{k}", ls=":", lw=1)
                axes.set_title(f"{way}, {'ms' if unit == 'ms' else 'MB'}", fontsize=9)
                axes.set_xscale("log")
                axes.set_yscale("log")
                axes.grid(alpha=0.3)
    plots[0][0].legend(fontsize=7)
    for axes in plots[1]:
        axes.set_xlabel("n pixels of 128 channels; dotted: L-BFGS and the paper's backward", fontsize=7)
    return figure


def figure_3(measured: dict[str, Any]) -> Figure:
    """Draw time and memory of the plan with its gradient."""
    figure = Figure(figsize=(10.5, 9.5), layout="constrained")
    plots = figure.subplots(4, 2)
    for column, batch in enumerate((1, 8)):
        for row, (against, key) in enumerate(
            (("size", "both_ms"), ("size", "both_mb"), ("iterations", "both_ms"), ("iterations", "both_mb"))
        ):
            axes = plots[row][column]
            for name, (label, color, style) in METHODS.items():
                rows = [r for r in measured["figure"] if r["name"] == name and r["against"] == against]
                rows = [r for r in rows if r["batch"] == batch and r[key] is not None]
                axes.plot(
                    [r[against] for r in rows], [r[key] for r in rows], style, color=color, label=label, marker="."
                )
            fixed = "50 iterations" if against == "size" else "N = 500"
            unit = "MB" if key == "both_mb" else "ms, one thread"
            axes.set_title(f"batch {batch}, {fixed}: forward + backward, {unit}", fontsize=9)
            axes.set_xlabel("N" if against == "size" else "iterations", fontsize=8)
            axes.set_xscale("log")
            axes.set_yscale("log")
            axes.grid(alpha=0.3)
    plots[0][0].legend(fontsize=7)
    return figure


def main() -> None:
    """Draw them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--output", type=pathlib.Path, default=pathlib.Path("out/transport_figures"))
    parser.add_argument("--pooling", type=pathlib.Path, help="JSON of tests/benchmarks/pooling.py")
    parser.add_argument("--transport", type=pathlib.Path, help="JSON of tests/benchmarks/transport.py")
    arguments = parser.parse_args()
    figures = {"transport_gradients": gradients(), "transport_effects": effects()}
    if arguments.pooling:
        figures["transport_figure1"] = figure_1(json.loads(arguments.pooling.read_text(encoding="utf-8")))
    if arguments.transport:
        figures["transport_figure3"] = figure_3(json.loads(arguments.transport.read_text(encoding="utf-8")))
    arguments.output.mkdir(parents=True, exist_ok=True)
    for name, figure in figures.items():
        figure.savefig(arguments.output / f"{name}.png", dpi=80)
        print(f"Look at {arguments.output / f'{name}.png'}")


if __name__ == "__main__":
    main()
