# SPDX-License-Identifier: Apache-2.0
"""Pictures that explain distributions and T-conorms: their functions, and an image by each. Seconds.

    python demos/soft_gallery.py -o out/soft

Makes distributions.png and tconorms.png; needs matplotlib (the extra `plot`).
"""

import argparse
import math
import pathlib

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import torch

import geodiff as gd

INK, RED, BLUE, GREY = "#222222", "#c0392b", "#2468a8", "#bbbbbb"
EYE = gd.Camera.orbit(2.7, 25, 30, fov_deg=40)


def distributions(path: pathlib.Path) -> None:
    """Draw each F and its density, and a box through it; red: where the gradient of a pixel's alpha lies."""
    x = torch.linspace(-4, 4, 801, dtype=torch.float64)
    columns = 6
    rows = 2 * math.ceil(len(gd.soft.DISTRIBUTIONS) / columns)
    figure, panels = plt.subplots(rows, columns, figsize=(2.2 * columns, 1.75 * rows), layout="constrained")
    box = gd.box((0.9, 0.6, 0.5))
    for i, (name, law) in enumerate(gd.soft.DISTRIBUTIONS.items()):
        law = law()
        above, below = panels[2 * (i // columns), i % columns], panels[2 * (i // columns) + 1, i % columns]
        above.plot(x, law.cdf(x), color=INK, lw=1.6)
        if name != "heaviside":
            density = law.pdf(x).nan_to_num(posinf=2.0)
            above.fill_between(x, 0, density.clamp(max=1), color=RED, alpha=0.25, lw=0)
        above.set(title=name.replace("_", " "), xlim=(-4, 4), ylim=(-0.03, 1.03), xticks=(-2, 0, 2), yticks=(0, 1))
        above.spines[["top", "right"]].set_visible(False)
        alpha = gd.Renderer(96, law, 0.03)(box, EYE).alpha
        below.imshow(alpha.numpy(), cmap="gray_r", vmin=0, vmax=1)
        below.set(xticks=(), yticks=())
    for panel in panels.flat:
        panel.set_visible(panel.has_data())
    figure.savefig(path, dpi=90)
    plt.close(figure)


def tconorms(path: pathlib.Path) -> None:
    """Draw level lines of a ⊥ b, its slope along a at b = 0.4, and two overlapping triangles joined by each."""
    grid = torch.linspace(0, 1, 101, dtype=torch.float64)
    a, b = torch.meshgrid(grid, grid, indexing="xy")
    vertices = torch.tensor([[-0.9, -0.6, 0.0], [0.4, -0.6, 0], [-0.3, 0.8, 0], [-0.4, -0.8, 0], [0.9, -0.4, 0],
                             [0.3, 0.7, 0]])  # fmt: skip
    pair = gd.Mesh(vertices, torch.tensor([[0, 1, 2], [3, 4, 5]]))
    eye = gd.Camera.orbit(2.7, fov_deg=45)
    rules = gd.soft.TCONORMS
    figure, panels = plt.subplots(3, len(rules), figsize=(1.35 * len(rules), 4.3), layout="constrained")
    for i, (name, rule) in enumerate(rules.items()):
        rule = rule()
        both = rule.combine(a, b)
        panels[0, i].contourf(a, b, both, levels=torch.linspace(0, 1.0001, 11).tolist(), cmap="gray_r")
        panels[0, i].set(xticks=(0, 1), yticks=(0, 1), aspect="equal")
        panels[0, i].set_title(name.replace("_", "\n"), fontsize=9)
        u = torch.linspace(0, 1, 401, dtype=torch.float64).requires_grad_()
        (slope,) = torch.autograd.grad(rule.combine(u, torch.full_like(u, 0.4)).sum(), u)
        panels[1, i].plot(u.detach(), slope.clamp(max=2.2), color=RED, lw=1.4)
        panels[1, i].set(xlim=(0, 1), ylim=(-0.08, 2.0), xticks=(0, 1), yticks=(0, 1, 2))
        panels[1, i].spines[["top", "right"]].set_visible(False)
        alpha = gd.Renderer(96, "logistic", 0.06, rule)(pair, eye).alpha
        panels[2, i].imshow(alpha.numpy(), cmap="gray_r", vmin=0, vmax=1)
        panels[2, i].set(xticks=(), yticks=())
    figure.savefig(path, dpi=90)
    plt.close(figure)


def main() -> None:
    """Draw both."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--output", type=pathlib.Path, default=pathlib.Path("out/soft"))
    folder = parser.parse_args().output
    folder.mkdir(parents=True, exist_ok=True)
    distributions(folder / "distributions.png")
    tconorms(folder / "tconorms.png")
    print(f"Look at {folder}")


if __name__ == "__main__":
    main()
