# SPDX-License-Identifier: Apache-2.0
"""The kernel regime of a network beside the active one: a curve in one dimension, and charts.

    python tests/benchmarks/atlas_kernel.py -o out/kernel

A network f(x) = s Σ_i c_i relu(a_i x + b_i) of n units starts at normal numbers. With s = 1/√n and n → ∞ it is a kernel
machine ("lazy"): neurons hardly move, and descent ends at the interpolant of least norm of the kernel

    K(x, x') = (⟨x, x'⟩ (π − α) + |x| |x'| ((π − α) cos α + sin α)) / 2π,   α the angle of (x, 1) and (x', 1).

With s = 1/n ("active", mean field) neurons move to where the curve needs them. Both are trained to the same loss by
full gradient descent, beside the kernel's interpolant and a cubic spline. Then, of charts with the networks of
`fit_atlas`: how far their own tangent kernel moves until they are down to the noise, and how good the chart is that is
held linear in its weights.
"""

import argparse
import json
import pathlib
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from scipy.interpolate import CubicSpline

from geodiff.atlas.charts import Charts, Placement
from geodiff.atlas.matching import project

PASS = 1e-4  # mean square at which descent ends
MOMENTUM = 0.98


def kernel(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """The tangent kernel (N, M) of one hidden layer of infinitely many relu units, for x (N, D) and y (M, D)."""
    size = x.norm(dim=1)[:, None] * y.norm(dim=1)
    inner = x @ y.T
    angle = (inner / size).clamp(-1, 1).acos()
    return (inner * (np.pi - angle) + size * ((np.pi - angle) * angle.cos() + angle.sin())) / (2 * np.pi)


def lifted(x: torch.Tensor) -> torch.Tensor:
    """(N, 2) of (N,): with a 1 for the bias."""
    return torch.stack((x, torch.ones_like(x)), 1)


class Network:
    """One hidden layer, trained by full gradient descent, with an equal and opposite half so that it starts at 0."""

    def __init__(self, units: int, lazy: bool, seed: int = 0) -> None:
        random = torch.Generator().manual_seed(seed)
        half = torch.randn(units // 2, 3, generator=random, dtype=torch.float64)
        flip = torch.tensor([1, 1, -1])
        self.weights = torch.cat((half, half * flip))
        self.scale = units**-0.5 if lazy else 1 / units
        # Time is such that the function moves at a rate that does not depend on the width.
        self.speed = 1.0 if lazy else float(units)

    def features(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        inner = lifted(x) @ self.weights[:, :2].T
        return inner.relu(), (inner > 0).to(inner)

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        return self.scale * self.features(x)[0] @ self.weights[:, 2]

    def tangent(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """The kernel (N, M) of now between x (N,) and y (M,), in the units of `kernel`."""
        (active, on), (other, other_on) = self.features(x), self.features(y)
        total = active @ other.T + lifted(x) @ lifted(y).T * ((on * self.weights[:, 2] ** 2) @ other_on.T)
        return total / len(self.weights)

    def train(self, x: torch.Tensor, y: torch.Tensor, steps: int, rate: float, until: float = PASS) -> int:
        speed = torch.zeros_like(self.weights)
        for step in range(steps):
            active, on = self.features(x)
            rest = self.scale * active @ self.weights[:, 2] - y
            if float(rest.square().mean()) < until:
                return step
            pull = rate * self.speed * self.scale / len(x) * rest
            inner = (pull[:, None] * on * self.weights[:, 2]).T @ lifted(x)
            outer = active.T @ pull
            # Momentum stays within the span of the gradients, so the interpolant is still that of least norm.
            speed = MOMENTUM * speed - torch.cat((inner, outer[:, None]), 1)
            self.weights = self.weights + speed
        return steps


def curve(x: torch.Tensor) -> torch.Tensor:
    """Slow on the left, with a kink and then fast on the right."""
    return torch.where(x < 0, 0.4 * torch.sin(2.5 * x), 0.5 * (2 - (6 * x - 2).abs().clamp(max=2)))


def one_dimension(units: int, steps: int) -> dict[str, Any]:
    x = torch.cat((torch.linspace(-1, -0.1, 5), torch.linspace(0.05, 1, 13)))  # more points where it is fast
    y, dense = curve(x), torch.linspace(-1, 1, 401)
    own = kernel(lifted(x), lifted(x))
    limit = kernel(lifted(dense), lifted(x)) @ torch.linalg.solve(own, y)
    curves = {"kernel": limit, "cubic spline": torch.from_numpy(CubicSpline(x, y, bc_type="natural")(dense))}
    result: dict[str, Any] = {"x": x.tolist(), "y": y.tolist(), "dense": dense.tolist(), "truth": curve(dense).tolist()}
    for name, lazy in (("lazy", True), ("active", False)):
        network = Network(units, lazy)
        before = network.tangent(x, x)
        taken = network.train(x, y, steps, 0.1)
        moved = float((network.tangent(x, x) - before).norm() / before.norm())
        curves[name] = network(dense)
        far = float((network(dense) - limit).square().mean().sqrt())
        result[f"{name}_facts"] = {"steps": taken, "kernel_moved": moved, "rms_from_kernel": far}
    for name, values in curves.items():
        off = float((values - curve(dense)).square().mean().sqrt())
        result[name] = values.tolist()
        result[f"{name}_truth"] = off
        print(f"{name:13} rms from the truth {off:.4f}", result.get(f"{name}_facts", ""), flush=True)
    return result


def chart_regimes(widths: tuple[int, ...], seeds: int, points: int = 100, noise: float = 0.05) -> dict[str, float]:
    """How far the tangent kernel of charts moves while they are fitted, and how good the chart with that held is."""
    moved, errors = [], {"trained": [], "held": []}
    for seed in range(seeds):
        random = torch.Generator().manual_seed(seed)
        flat = 2 * torch.rand(points, 2, generator=random) - 1
        clean = torch.cat((flat, (0.25 * torch.sin(3 * flat[:, 0]) * torch.cos(2.5 * flat[:, 1]))[:, None]), 1)
        cloud = clean + noise * torch.randn(points, 3, generator=random)
        chart = torch.zeros(points, dtype=torch.int64)
        place = Placement.of(cloud, chart, 1)
        goal, sigma = place.into(cloud, chart, torch.float64), noise / float(place.scale[0])
        charts = Charts.create(None, widths, seed, placement=place)  # type: ignore[arg-type]
        start = [p.double() for p in charts.parameters()]
        charts = charts.with_parameters(start)
        uv = project(goal)[None]

        def height(values: list[torch.Tensor], charts: Charts = charts, uv: torch.Tensor = uv) -> torch.Tensor:
            return charts.with_parameters(values).local(uv)[0, :, 2]

        def rows(values: list[torch.Tensor], height: Any = height) -> torch.Tensor:
            leaves = [v.clone().requires_grad_() for v in values]
            out = height(leaves)
            grads = [torch.autograd.grad(h, leaves, retain_graph=True) for h in out]
            return torch.stack([torch.cat([g.flatten() for g in own]) for own in grads])

        first = rows(start)
        k0 = first @ first.T
        z = goal[:, 2]
        found = {}
        # With the kernel held, descent in continuous time is z (1 − exp(−K t)); t by bisection where it is down to σ.
        size, axes = torch.linalg.eigh(k0)
        size, part = size.clamp(min=0.0), axes.T @ (z - height(start))
        low, high = -20.0, 40.0
        for _ in range(60):
            middle = (low + high) / 2
            left = torch.exp(-size * float(np.exp(middle)))
            low, high = (middle, high) if float((left * part).square().mean()) > sigma**2 else (low, middle)
        found["held"] = z - axes @ (left * part)
        step = 1 / float(size[-1])
        values = [v.clone() for v in start]
        for _ in range(6000):
            leaves = [v.clone().requires_grad_() for v in values]
            out = height(leaves)
            if float((out.detach() - z).square().mean()) <= sigma**2:
                break
            slope = torch.autograd.grad(0.5 * (out - z).square().sum(), leaves)
            values = [v - step * s for v, s in zip(values, slope, strict=True)]
        last = rows(values)
        found["trained"] = height(values)
        moved.append(float((last @ last.T - k0).norm() / k0.norm()))
        flat_local = goal[:, :2]
        for name, heights in found.items():
            local = torch.cat((flat_local, heights[:, None]), 1)
            world = place.center + place.scale[:, None] * (local @ place.rotation[0])
            x, y = world[:, 0], world[:, 1]
            truth = 0.25 * torch.sin(3 * x) * torch.cos(2.5 * y)
            slope = torch.stack((0.75 * torch.cos(3 * x) * torch.cos(2.5 * y),
                                 -0.625 * torch.sin(3 * x) * torch.sin(2.5 * y)), 1)  # fmt: skip
            far = (world[:, 2] - truth).abs() / (1 + slope.square().sum(1)).sqrt()
            errors[name].append(float(far.square().mean().sqrt()) / noise)
    means = {name: float(np.mean(one)) for name, one in {"kernel_moved": moved, **errors}.items() if one}
    print("charts", widths, {name: round(value, 3) for name, value in means.items()}, flush=True)
    return means


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--output", type=pathlib.Path, required=True)
    parser.add_argument("--units", type=int, default=1000)
    parser.add_argument("--steps", type=int, default=20_000)
    parser.add_argument("--seeds", type=int, default=4)
    given = parser.parse_args()
    torch.set_default_dtype(torch.float64)
    line = one_dimension(given.units, given.steps)
    widths = {str(w): chart_regimes((w,) * 3, given.seeds) for w in (16, 64, 256)}
    given.output.mkdir(parents=True, exist_ok=True)
    (given.output / "atlas_kernel.json").write_text(json.dumps({"curve": line, "charts": widths}) + "\n")
    figure = Figure(figsize=(11, 3.6), layout="constrained")
    panels = figure.subplots(1, 2, width_ratios=(1.8, 1))
    for name, style in {
        "truth": "k:",
        "cubic spline": "C2--",
        "kernel": "C0-",
        "lazy": "C1--",
        "active": "C3-",
    }.items():
        label = name if name == "truth" else f"{name}, {line[f'{name}_truth']:.3f} off"
        panels[0].plot(line["dense"], line[name], style, lw=1.4, label=label)
    panels[0].plot(line["x"], line["y"], "ko", ms=3)
    panels[0].set_title(f"a curve, {given.units} units: kernel and active regime")
    x = np.arange(len(widths))
    panels[1].bar(x - 0.2, [one["trained"] for one in widths.values()], 0.4, label="trained")
    panels[1].bar(x + 0.2, [one["held"] for one in widths.values()], 0.4, label="kernel of the start")
    panels[1].plot(x, [one["kernel_moved"] for one in widths.values()], "ko-", label="how far the kernel moved")
    panels[1].set_xticks(x, list(widths))
    panels[1].set_xlabel("width of three layers")
    panels[1].set_title("charts at the stop: off the truth, σ")
    for panel in panels:
        panel.legend(frameon=False, fontsize=8)
        panel.grid(alpha=0.3)
    figure.savefig(given.output / "atlas_kernel.png", dpi=75)


if __name__ == "__main__":
    main()
