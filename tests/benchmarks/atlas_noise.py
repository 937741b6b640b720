# SPDX-License-Identifier: Apache-2.0
"""The estimated noise of known surfaces over the true one: least and largest of several draws.

    python tests/benchmarks/atlas_noise.py                             # 3 000 and 30 000 points, some minutes
    python tests/benchmarks/atlas_noise.py --points 300000 --draws 1   # two minutes, one core

Noise is Gaussian in all directions, relative to the diagonal; without noise, the estimate is. "varying" is a plane
whose noise, across it, is ten times as large on one side as on the other: the ratio is of the medians of both sides.
"""

import argparse
import time
from collections.abc import Callable

import numpy as np
import torch

from geodiff.atlas.noise import estimate_noise

Surface = Callable[[int, np.random.Generator], np.ndarray]


def plane(count: int, random: np.random.Generator) -> np.ndarray:
    return random.random((count, 3)) * [1, 1, 0]


def sphere(count: int, random: np.random.Generator) -> np.ndarray:
    x = random.standard_normal((count, 3))
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def box(*size: float) -> Surface:
    """The surface of a box."""

    def draw(count: int, random: np.random.Generator) -> np.ndarray:
        side = np.prod(size) / np.array(size)
        axis = random.choice(3, count, p=side / side.sum())
        x = random.random((count, 3))
        x[np.arange(count), axis] = random.integers(0, 2, count)
        return x * size

    return draw


SURFACES: dict[str, Surface] = {
    "plane": plane,
    "sphere": sphere,
    "cube": box(1, 1, 1),
    "plate 0.1": box(1, 1, 0.1),
    "plate 0.02": box(1, 1, 0.02),
}


def ratio(surface: Surface, count: int, noise: float, seed: int) -> float:
    """Estimated over true σ, or the estimate over the diagonal where there is no noise."""
    random = np.random.default_rng(seed)
    x = surface(count, random)
    diagonal = float(np.linalg.norm(np.ptp(x, axis=0)))
    x = x + noise * diagonal * random.standard_normal(x.shape)
    return estimate_noise(torch.from_numpy(x)).sigma / diagonal / (noise or 1)


def varying(count: int, noise: float, seed: int) -> list[float]:
    """Medians of the estimated over the true σ, on either side of a plane."""
    random = np.random.default_rng(seed)
    x = plane(count, random)
    sigma = noise * 2**0.5 * np.where(x[:, 0] < 0.5, 0.1, 1)
    x[:, 2] = sigma * random.standard_normal(count)
    share = estimate_noise(torch.from_numpy(x)).local.numpy() / sigma
    return [float(np.median(share[side])) for side in (x[:, 0] < 0.4, x[:, 0] > 0.6)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--points", type=int, nargs="+", default=[3000, 30_000])
    parser.add_argument("--noise", type=float, nargs="+", default=[0, 0.003, 0.01, 0.03])
    parser.add_argument("--draws", type=int, default=8)
    parser.add_argument("--only", default="", help="surfaces whose names have this in them")
    options = parser.parse_args()
    print("| surface | points | " + " | ".join(f"{100 * noise:g} %" for noise in options.noise) + " |")
    for name in (*SURFACES, "varying"):
        if options.only not in name:
            continue
        for count in options.points:
            begin, cells = time.process_time(), []
            for noise in options.noise:
                if name == "varying":
                    found = [r for s in range(options.draws) for r in varying(count, noise, s)] if noise else []
                else:
                    found = [ratio(SURFACES[name], count, noise, s) for s in range(options.draws)]
                form = ".2f" if noise else ".0e"
                cells.append(f"{min(found):{form}} … {max(found):{form}}" if found else "–")
            print(f"| {name} | {count} | " + " | ".join(cells) + f" | {time.process_time() - begin:.0f} s", flush=True)


if __name__ == "__main__":
    main()
