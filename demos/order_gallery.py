# SPDX-License-Identifier: Apache-2.0
"""A picture that explains relaxed orders: minima, permutation matrices, panes that swap, weights of outliers. Seconds.

    python demos/order_gallery.py -o out/order

Makes order_gallery.png; needs matplotlib (the extra `plot`).
"""

import argparse
import pathlib
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import torch

import geodiff as gd
from geodiff import soft

COLORS = {"logistic": "#777777", "reciprocal": "#d08a1d", "cauchy": "#2468a8", "optimal": "#c0392b"}
METHODS = ("softsort", "neuralsort", "odd_even", "bitonic", "sinkhorn")
D = torch.float64


def minima(panel: Any) -> None:
    """Draw min(x, 0) by each law, all with the slope 1 at 0 (figure 3.5 of the source)."""
    x = torch.linspace(-1, 3, 801, dtype=D)
    for name, color in COLORS.items():
        slope = float(soft.as_distribution(name).pdf(torch.zeros((), dtype=D)))
        panel.plot(x, soft.relaxed_min(x, 0.0, name, temperature=slope), color=color, label=name, lw=1.6)
    panel.plot(x, x.clamp(max=0), color="black", lw=0.8, ls=":", label="minimum")
    panel.set(title="relaxed min(x, 0), F of slope 1", xlim=(-1, 3), ylim=(-0.3, 0.3), xlabel="x")
    panel.legend(frameon=False, fontsize=7)


def panes(panel: Any) -> None:
    """Draw how much is seen of a half transparent pane as it moves from before another to behind it."""
    z = torch.linspace(-0.5, 0.5, 401, dtype=D)
    depth = torch.stack([z, torch.zeros_like(z)], dim=-1)
    for gamma, color in ((1e-4, "black"), (0.03, "#c0392b"), (0.1, "#2468a8"), (0.3, "#d08a1d")):
        weight = gd.render.front_to_back(torch.full_like(depth, 0.6), depth, temperature=gamma)
        panel.plot(z, weight[:, 0], color=color, lw=1.6, label=f"temperature {gamma:g}")
    panel.set(title="a pane of opacity 0.6 passes another", xlabel="its depth less the other's", ylabel="weight")
    panel.legend(frameon=False, fontsize=7)


def weights(panel: Any) -> None:
    """Draw what each of 40 residuals counts in a trimmed loss."""
    r = torch.cat([torch.linspace(0, 1, 30, dtype=D), torch.linspace(1.2, 3, 10, dtype=D)])
    for temperature, color in ((1e-3, "black"), (0.05, "#c0392b"), (0.2, "#2468a8")):
        panel.plot(r, soft.selection(r, 28, temperature=temperature), ".-", color=color, lw=1, ms=4,
                   label=f"temperature {temperature:g}")  # fmt: skip
    panel.set(title="weights: 28 of 40 residuals", xlabel="residual")
    panel.legend(frameon=False, fontsize=7)


def main() -> None:
    """Draw it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--output", type=pathlib.Path, default=pathlib.Path("out/order"))
    parser.add_argument("--quick", action="store_true", help="as it is: it takes seconds")
    output = parser.parse_args().output
    output.mkdir(parents=True, exist_ok=True)
    figure = plt.figure(figsize=(11, 7), layout="constrained")
    grid = figure.add_gridspec(3, 15)
    for draw, columns in ((minima, slice(0, 5)), (panes, slice(5, 10)), (weights, slice(10, 15))):
        panel = figure.add_subplot(grid[0, columns])
        draw(panel)
        panel.spines[["top", "right"]].set_visible(False)
    x = torch.tensor([0.62, 0.1, 0.95, 0.33, 0.36, 0.8, 0.05, 0.5], dtype=D)
    for row, temperature in enumerate((0.03, 0.15), 1):
        for column, method in enumerate(METHODS):
            panel = figure.add_subplot(grid[row, 3 * column : 3 * column + 3])
            matrix = soft.sort_matrix(x, method, temperature=temperature)
            panel.imshow(matrix.numpy(), cmap="gray_r", vmin=0, vmax=1)
            panel.set(title=f"{method.replace('_', '–')}, τ = {temperature:g}", xticks=(), yticks=())
            if column == 0:
                panel.set(ylabel="rank", xlabel="input")
    figure.savefig(output / "order_gallery.png", dpi=90)
    plt.close(figure)
    print(f"{output / 'order_gallery.png'}")


if __name__ == "__main__":
    main()
