# SPDX-License-Identifier: Apache-2.0
"""Pictures that explain splines: basis functions, the two knot gradients, curvature and normals. Seconds.

    python demos/spline_gallery.py -o out/splines

Makes basis.png, knot_gradient.png and curvature.png; needs matplotlib (the extra `plot`).
"""

import argparse
import math
import pathlib

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import torch

import geodiff as gd

F64 = torch.float64
INK, RED, BLUE, GREY = "#222222", "#c0392b", "#2468a8", "#999999"


def basis(path: pathlib.Path) -> None:
    """Draw four cubic bases: clamped, unclamped, with repeated knots, periodic."""
    repeated = torch.tensor([0.0] * 4 + [0.2, 0.4, 0.4, 0.7, 0.7, 0.7] + [1.0] * 4, dtype=F64)
    vectors = {
        "clamped": (gd.splines.uniform_knots(8, 3, dtype=F64), False),
        "unclamped": (gd.splines.uniform_knots(8, 3, "unclamped", dtype=F64), False),
        "double knot at 0.4, triple at 0.7": (repeated, False),
        "periodic": (gd.splines.uniform_knots(5, 3, "periodic", dtype=F64), True),
    }
    figure, panels = plt.subplots(1, 4, figsize=(12, 2.4), sharey=True, layout="constrained")
    for panel, (title, (knots, periodic)) in zip(panels, vectors.items(), strict=True):
        functions = gd.BSplineBasis(knots, 3, periodic)
        u = torch.linspace(0, 1, 401, dtype=F64)
        panel.plot(u, functions.matrix(u), lw=1.6)
        at, times = gd.splines.multiplicities(knots)
        inside = (at >= 0) & (at <= 1)
        for x, m in zip(at[inside].tolist(), times[inside].tolist(), strict=True):
            panel.plot([x] * m, [-0.04 - 0.035 * i for i in range(m)], "v", color=INK, ms=4, clip_on=False)
        panel.set(title=title, xlim=(-0.02, 1.02), ylim=(-0.2, 1.05), xlabel="u")
        panel.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def knot_gradient(path: pathlib.Path) -> None:
    """Draw ∂C(u)/∂u_j of one knot over u, exact and smoothed, for degrees 0 to 3."""
    figure, panels = plt.subplots(1, 4, figsize=(12, 2.4), layout="constrained")
    g = torch.Generator().manual_seed(3)
    u = torch.linspace(0, 1, 801, dtype=F64)
    for degree, panel in enumerate(panels):
        knots = gd.splines.uniform_knots(degree + 4, degree, dtype=F64)
        points = torch.randn(degree + 4, 1, generator=g, dtype=F64)
        j = degree + 2
        for mode, label, style in (
            ({}, "exact", {"color": INK, "lw": 1.8}),
            ({"knot_gradient": "gaussian", "bandwidth": 0.06}, "σ = 0.06", {"color": RED, "lw": 1.2}),
            ({"knot_gradient": "gaussian", "bandwidth": 0.02}, "σ = 0.02", {"color": BLUE, "lw": 1.2}),
        ):
            own = (
                knots.expand(len(u), -1).clone().requires_grad_()
            )  # a curve for each parameter: all derivatives at once
            gd.NURBSCurve(points, own, degree=degree, **mode)(u[:, None]).sum().backward()
            panel.plot(u, own.grad[:, j], label=label, **style)
        panel.axvline(float(knots[j]), color=GREY, lw=0.8, ls=":")
        panel.set(title=f"degree {degree}", xlabel="u")
        panel.spines[["top", "right"]].set_visible(False)
    panels[0].set_ylabel("∂C(u) / ∂u_j")
    panels[0].legend(frameon=False, fontsize=8)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def curvature(path: pathlib.Path) -> None:
    """Draw a periodic ring with its net, coloured by Gaussian and mean curvature, and with its normals."""
    turn, around = torch.arange(12, dtype=F64) * (math.tau / 12), torch.arange(8, dtype=F64) * (math.tau / 8)
    thick = 0.9 + 0.35 * torch.cos(2 * turn)[:, None]
    radius = 2.6 + thick * around.cos()
    net = torch.stack([radius * turn.cos()[:, None], radius * turn.sin()[:, None], thick * around.sin()], -1)
    ring = gd.NURBSSurface(net, periodic=True)
    points = ring.grid(121, 61)
    values = {
        "Gaussian curvature": ring.gaussian_curvature(121, 61, grid=True),
        "mean curvature": ring.mean_curvature(121, 61, grid=True),
    }
    figure = plt.figure(figsize=(12, 3.6), layout="constrained")
    for i, title in enumerate(["control net and normals", *values]):
        panel = figure.add_subplot(1, 3, i + 1, projection="3d", computed_zorder=False)
        if i == 0:
            closed = torch.cat([net, net[:1]])
            closed = torch.cat([closed, closed[:, :1]], 1).numpy()
            panel.plot_wireframe(*closed.transpose(2, 0, 1), color=GREY, lw=0.6)
            panel.plot_surface(*points.numpy().transpose(2, 0, 1), color="#b8cfe0", rstride=2, cstride=2, shade=True)
            at, n = ring.grid(25, 13).reshape(-1, 3), ring.normal(25, 13, grid=True).reshape(-1, 3)
            panel.quiver(*at.numpy().T, *n.numpy().T, length=0.45, color=RED, lw=0.7)
        else:
            field = values[title].numpy()
            limit = abs(field).max()
            colours = plt.get_cmap("RdBu_r")((field + limit) / (2 * limit))
            panel.plot_surface(
                *points.numpy().transpose(2, 0, 1), facecolors=colours, rstride=1, cstride=1, shade=False
            )
        panel.set_title(title)
        panel.set_axis_off()
        panel.set_box_aspect((7, 7, 2.6), zoom=1.5)
        panel.view_init(38, 30)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def main() -> None:
    """Make the pictures."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("-o", "--output", type=pathlib.Path, default=pathlib.Path("out/splines"))
    output = parser.parse_args().output
    output.mkdir(parents=True, exist_ok=True)
    for picture in (basis, knot_gradient, curvature):
        picture(output / f"{picture.__name__}.png")
        print(output / f"{picture.__name__}.png")


if __name__ == "__main__":
    main()
