# SPDX-License-Identifier: Apache-2.0
"""What a chart's loss does for it: places by projection, by transport at the start, and by transport at each step.

    python tests/benchmarks/atlas_loss.py            # a minute; --no-paper without the published network

Patches of 150 points over [−1, 1]², noise σ = 0.05 in all directions, six surfaces and some draws of each; one chart a
patch, stopped when the points are down to σ across it, as `fit_atlas` does. Mean distances from the truth in σ: at the
stop, and the least on the way, which nobody knows who has only the points.
"""

import argparse
import math
import time
from collections.abc import Callable
from typing import Any

import torch

from geodiff.atlas import matching
from geodiff.atlas.charts import PAPER_WIDTHS, Charts, Placement
from geodiff.atlas.rematch import Rematch
from geodiff.atlas.training import Batch

POINTS, SIGMA = 150, 0.05
Height = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
SURFACES: dict[str, Height] = {
    "waves": lambda x, y: 0.25 * torch.sin(3 * x) * torch.cos(2.5 * y),
    "bowl": lambda x, y: 0.3 * (x * x + y * y),
    "saddle": lambda x, y: 0.4 * x * y,
    "ripple": lambda x, y: 0.1 * torch.sin(6 * x + 2 * y),
    "roof": lambda x, y: -0.5 * (x + 0.3 * y).abs(),
    "corner": lambda x, y: -0.6 * torch.maximum(x.abs(), y.abs()),
}
WIDE = {"widths": PAPER_WIDTHS, "residual": False, "gain": 1.0, "rate": 1e-3, "steps": 250, "decay": False}
CONTESTANTS: dict[str, dict[str, Any]] = {
    "projection, gain √6": {"gain": None},
    "projection, gain 1.5": {},
    "projection, gain 1": {"gain": 1.0},
    "exact at the start, gain √6": {"method": "exact", "every": 0, "gain": None},
    "exact at the start": {"method": "exact", "every": 0},
    "exact each step": {"method": "exact", "every": 1, "steps": 150},
    "exact every 5 steps": {"method": "exact", "every": 5, "steps": 150},
    "exact each step, places fixed": {"method": "exact", "every": 1, "steps": 150, "move_uv": False},
    "Sinkhorn ε 0.01 each step": {"method": "sinkhorn", "every": 1, "steps": 150},
    "exact each step, no plane, gain 1": {"method": "exact", "every": 1, "steps": 250, "gain": 1.0, "residual": False},
    "published network, projection": {**WIDE},
    "published network, exact each step": {**WIDE, "method": "exact", "every": 1},
    "published, exact, places fixed": {**WIDE, "method": "exact", "every": 1, "move_uv": False},
}


def off(points: torch.Tensor, height: Height) -> torch.Tensor:
    """Distances of points (S, 3), by the tangent plane above or below."""
    x, y = (points[:, k].detach().clone().requires_grad_() for k in range(2))
    z = height(x, y)
    slopes = torch.autograd.grad(z.sum(), (x, y))
    return (points[:, 2] - z.detach()).abs() / (1 + slopes[0].square() + slopes[1].square()).sqrt()


def train(points: torch.Tensor, heights: list[Height], *, method: str = "projection", every: int = 0, steps: int = 60,
          rate: float = 5e-3, decay: bool = True, gain: float | None = 1.5, widths: tuple[int, ...] = (64, 64, 64),
          residual: bool = True, move_uv: bool = True) -> dict[str, Any]:  # fmt: skip
    """Train charts of patches (G, S, 3) at once; errors (G,) in σ at the stop and at best, steps, time of a step."""
    patches, count, _ = points.shape
    chart = torch.arange(patches).repeat_interleave(count)
    place = Placement.of(points.flatten(0, 1), chart, patches)
    local = place.into(points.flatten(0, 1), chart).unflatten(0, (patches, count))
    charts = Charts.create(None, widths, 0, residual=residual, gain=gain, placement=place)  # type: ignore[arg-type]
    mask = torch.ones(patches, count, dtype=torch.bool)
    plans = Rematch(local, mask, method, 0.01) if method != "projection" else None
    uv = matching.project(local.flatten(0, 1)).unflatten(0, (patches, count))
    if plans is not None:
        uv = matching.lloyd(count).expand(patches, count, 2)
        if not every:  # three rounds of ten steps, then places as they are found
            early = Batch(torch.arange(patches), charts, uv, local, mask.float(), move_uv=False)
            for k in range(30):
                early.step(rate, plans if k % 10 == 0 else None)
            charts, uv, plans = early.charts(), plans.uv, None
    batch = Batch(torch.arange(patches), charts, uv, local, mask.float(), move_uv=move_uv, residual=residual)
    goal = (SIGMA / place.scale).float().square()
    stopped = torch.full((patches,), steps)
    at_stop, least = torch.zeros(patches), torch.full((patches,), math.inf)
    spent = 0.0
    for k in range(steps):
        start = time.process_time()
        again = plans if plans is not None and k % every == 0 else None
        loss = batch.step(rate * (0.5 * (1 + math.cos(math.pi * k / steps)) if decay else 1.0), again)
        spent += time.process_time() - start
        if (k + 1) % 5 and k + 1 < steps:
            continue
        if plans is not None:
            loss = plans.across(batch)
        out = batch.charts().local(batch.uv).to(place.center)
        world = place.center[:, None] + place.scale[:, None, None] * (out @ place.rotation)
        far = torch.stack([off(world[g], heights[g]).mean() for g in range(patches)]).float() / SIGMA
        least = torch.minimum(least, far)
        stops = (stopped == steps) & (loss <= goal) & (k + 1 >= 20) | (k + 1 == steps) & (stopped == steps)
        at_stop = torch.where(stops, far, at_stop)
        stopped = torch.where(stops, k + 1, stopped)
    return {"stop": at_stop, "least": least, "steps": stopped, "ms": 1e3 * spent / steps / patches}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--draws", type=int, default=3)
    parser.add_argument("--only", default="", help="contestants whose name contains this")
    parser.add_argument("--no-paper", action="store_true", help="leave the published network out: it takes most time")
    given = parser.parse_args()
    clouds, heights = [], []
    for height in SURFACES.values():
        for draw in range(given.draws):
            random = torch.Generator().manual_seed(draw)
            flat = 2 * torch.rand(POINTS, 2, generator=random, dtype=torch.float64) - 1
            clean = torch.cat((flat, height(flat[:, 0], flat[:, 1])[:, None]), 1)
            clouds.append(clean + SIGMA * torch.randn(POINTS, 3, generator=random, dtype=torch.float64))
            heights.append(height)
    names = list(SURFACES)
    print("| contestant | " + " | ".join(names) + " | all | least on the way | steps | ms a step |")
    print("|---" * (len(names) + 5) + "|")
    for name, options in CONTESTANTS.items():
        if given.only not in name or (given.no_paper and options.get("widths") == PAPER_WIDTHS):
            continue
        found = train(torch.stack(clouds), heights, **options)
        cells = [f"{float(v):.2f}" for v in found["stop"].unflatten(0, (len(names), given.draws)).mean(1)]
        cells += [f"{float(found['stop'].mean()):.3f}", f"{float(found['least'].mean()):.3f}"]
        cells += [f"{float(found['steps'].median()):.0f}", f"{found['ms']:.2f}"]
        print(f"| {name} | " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main()
