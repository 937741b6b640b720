# SPDX-License-Identifier: Apache-2.0
"""Learn to tell outlines apart from point sets, and see what outliers do to mean, max and robust pooling.

    python demos/learn_pooling.py            # about a minute
    python demos/learn_pooling.py --quick    # seconds

A small network maps every point to 32 features, pools them over the points, and names the outline: circle, square,
triangle or cross, turned at random. It learns from clean sets, and is tested with outliers that it has never seen.
Welsch's penalty, not convex, forgets points whose features are far from all others; pseudo-Huber's only bounds their
pull. Both get their gradient from the optimality condition, and alpha is learned with the weights.
"""

import argparse
import math
import time
from collections.abc import Callable

import torch

from geodiff.transport.pooling import RobustPool2d

POINTS, CLASSES, FEATURES = 64, 4, 32
RATES = (0.0, 0.05, 0.2, 0.4)


def outlines(count: int, outliers: float, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    """Draw point sets `(count, POINTS, 2)` and their classes; outliers lie up to six radii away."""
    kind = torch.randint(CLASSES, (count,), generator=generator)
    t = torch.rand(count, POINTS, generator=generator)
    circle = torch.stack([(2 * math.pi * t).cos(), (2 * math.pi * t).sin()], -1)
    polygons = []
    for corners in (4, 3):
        angle = torch.arange(corners + 1) * (2 * math.pi / corners)
        corner = torch.stack([angle.cos(), angle.sin()], -1)
        side = (t * corners).long().clamp_max(corners - 1)
        along = (t * corners - side)[..., None]
        polygons.append(corner[side] * (1 - along) + corner[side + 1] * along)
    half = torch.rand(count, POINTS, 1, generator=generator) < 0.5
    cross = torch.where(half, torch.stack([2 * t - 1, 0 * t], -1), torch.stack([0 * t, 2 * t - 1], -1))
    x = torch.stack([circle, *polygons, cross], 1)[torch.arange(count), kind]
    turn = torch.rand(count, generator=generator) * 2 * math.pi
    rotation = torch.stack([turn.cos(), -turn.sin(), turn.sin(), turn.cos()], -1).reshape(-1, 2, 2)
    x = x @ rotation.mT + 0.03 * torch.randn(count, POINTS, 2, generator=generator)
    wild = torch.rand(count, POINTS, 1, generator=generator) < outliers
    return torch.where(wild, 12 * torch.rand(count, POINTS, 2, generator=generator) - 6, x), kind


class Network(torch.nn.Module):
    """Points, features, pooling, class."""

    def __init__(self, pool: Callable[[torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        self.features = torch.nn.Sequential(
            torch.nn.Linear(2, 64),
            torch.nn.ReLU(),
            torch.nn.Linear(64, 64),
            torch.nn.ReLU(),
            torch.nn.Linear(64, FEATURES),
        )
        self.pool = pool
        self.head = torch.nn.Sequential(torch.nn.Linear(FEATURES, 64), torch.nn.ReLU(), torch.nn.Linear(64, CLASSES))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Score `(B, N, 2)` points: `(B, CLASSES)`."""
        features = self.features(x).mT[..., None]  # (B, C, N, 1): a feature map one pixel wide
        return self.head(self.pool(features))


def main() -> None:
    """Train one network a pooling and print how often each is right."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--quick", action="store_true", help="80 steps: seconds, and less accurate")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    steps = 80 if arguments.quick else arguments.steps
    pools: dict[str, Callable[[], Callable[[torch.Tensor], torch.Tensor]]] = {
        "mean": lambda: lambda x: x.mean((2, 3)),
        "max": lambda: lambda x: x.amax((2, 3)),
        "pseudo_huber": lambda: RobustPool2d("pseudo_huber", 1.0, learn_alpha=True),
        "welsch": lambda: RobustPool2d("welsch", 3.0, learn_alpha=True),
    }
    print(f"accuracy with outliers:  {'':10}" + "".join(f"{rate:8.0%}" for rate in RATES) + "   alpha  seconds")
    for name, make in pools.items():
        torch.manual_seed(arguments.seed)
        generator = torch.Generator().manual_seed(arguments.seed)
        network = Network(make())
        optimizer = torch.optim.Adam(network.parameters(), lr=3e-3)
        began = time.perf_counter()
        for _ in range(steps):
            x, kind = outlines(32, 0.0, generator)
            loss = torch.nn.functional.cross_entropy(network(x), kind)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        seconds = time.perf_counter() - began
        accuracies = []
        with torch.no_grad():
            for rate in RATES:
                x, kind = outlines(500, rate, torch.Generator().manual_seed(1 + arguments.seed))
                accuracies.append(float((network(x).argmax(-1) == kind).float().mean()))
        pool = network.pool
        alpha = f"{float(pool.log_alpha.detach().exp()):8.2f}" if isinstance(pool, RobustPool2d) else f"{'':8}"
        print(f"{name:35}" + "".join(f"{a:8.1%}" for a in accuracies) + f"{alpha}{seconds:9.1f}", flush=True)


if __name__ == "__main__":
    main()
