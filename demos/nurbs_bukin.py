# SPDX-License-Identifier: Apache-2.0
"""What free knots are worth: Bukin's function, a valley with a kink, by 8 × 8 control points, with and without.

`f(x, y) = 100 √|y − 0.01 x²| + 0.01 |x + 10|` on x ∈ [−15, 5], y ∈ [−3, 5] is the surface of Table 3 of Cho et al.,
"Differentiable Spline Approximations" (2021). Four fits, all from uniform knots and weights 1: by linear least squares;
with free knots, by variable projection; with free weights; with both. The mean squared error is that of the paper: over
the 128² points and over x, y and z. The picture shows each surface with its knot lines, and where it errs.

Takes about half a minute on two cores; --quick, on a coarse grid, a few seconds. The table for 256² and for random
starts is made by tests/benchmarks/bukin.py.
"""

import argparse
import pathlib
import time

import torch
from matplotlib.figure import Figure

import geodiff as gd
from geodiff.splines.fit import fit_surface
from geodiff.tasks import pictures as general
from geodiff.tasks.nurbs import pictures as nurbs_pictures

FITS = {
    "uniform knots": {},
    "free knots": {"free_knots": True},
    "uniform knots, free weights": {"rational": True},
    "free knots, free weights": {"free_knots": True, "rational": True},
}
PAPER = {"uniform knots": "19.83", "free knots": "8.25"}


def bukin(count: int) -> torch.Tensor:
    """Sample the surface on a uniform grid, (count, count, 3)."""
    x, y = torch.linspace(-15, 5, count, dtype=torch.float64), torch.linspace(-3, 5, count, dtype=torch.float64)
    x, y = torch.meshgrid(x, y, indexing="ij")
    return torch.stack([x, y, 100 * (y - 0.01 * x**2).abs().sqrt() + 0.01 * (x + 10).abs()], -1)


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--output", type=pathlib.Path, default=pathlib.Path("out/nurbs_bukin"))
    parser.add_argument("--points", type=int, default=128, help="of the grid, a side")
    parser.add_argument("--starts", type=int, default=1, help="of the free fits; all but the first are random")
    parser.add_argument("--seed", type=int, default=0, help="of the random starts")
    parser.add_argument("--quick", action="store_true", help="a small one, in seconds")
    arguments = parser.parse_args()
    count, control = (16, 5) if arguments.quick else (arguments.points, 8)
    paper = PAPER if (count, control) == (128, 8) else {}
    most = 40 if arguments.quick else 1000  # iterations

    points = bukin(count)
    diagonal = float((points.amax((0, 1)) - points.amin((0, 1))).norm())
    title = f"{count}² points, {control} × {control} cubic"
    lines, fits = [f"{title:30} {'mse':>9} {'paper':>7} {'largest error':>14} {'s':>6}"], {}
    print(lines[0])
    for name, options in FITS.items():
        begin = time.perf_counter()
        free = {"starts": arguments.starts, "seed": arguments.seed} if options else {}
        fit = fit_surface(points, (control, control), (3, 3), max_iterations=most, **options, **free)
        seconds = time.perf_counter() - begin
        fits[name] = fit
        lines.append(f"{name:30} {fit.mse:9.4f} {paper.get(name, '–'):>7} {fit.max:14.2f} {seconds:6.1f}")
        print(lines[-1], flush=True)

    arguments.output.mkdir(parents=True, exist_ok=True)
    (arguments.output / "table.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    picture(fits, points, diagonal).savefig(arguments.output / "nurbs_bukin.png", dpi=90)
    print(f"Look at {arguments.output / 'nurbs_bukin.png'}")


def picture(fits, points: torch.Tensor, diagonal: float) -> Figure:  # type: ignore[no-untyped-def]
    """Draw a column for the function and for each fit: the surface with knot lines, over its error on (u, v)."""
    # The function is ten times as high as wide: it is drawn in a box.
    low, high = points.amin((0, 1)), points.amax((0, 1))
    box = torch.tensor([1.0, 1.0, 0.5], dtype=torch.float64) / (high - low)
    drawn = (points - low) * box
    view = general.looking_at(drawn, azimuth_deg=-125, elevation_deg=38)
    size = (300, 300)
    figure = Figure(figsize=(16, 6.6), layout="constrained")
    axes = figure.subplots(2, len(fits) + 1)
    fine = gd.NURBSSurface((bukin(401) - low) * box, degree=(1, 1))  # samples, joined by straight pieces
    axes[0, 0].imshow(nurbs_pictures.draw_surface(fine, view, size, knot_lines=False, samples=401))
    axes[0, 0].set_title("Bukin's function")
    axes[1, 0].axis("off")
    largest = max(fit.max for fit in fits.values()) / diagonal
    for column, (name, fit) in enumerate(fits.items(), 1):
        surface = fit.surface.replace(control_points=(fit.surface.control_points - low) * box)
        axes[0, column].imshow(nurbs_pictures.draw_surface(surface, view, size))
        axes[0, column].set_title(f"{name}\nmean squared error {fit.mse:.3f}")
        last = column == len(fits)
        nurbs_pictures.draw_error(
            figure, axes[1, column], fit.surface, fit.errors, fit.parameters, diagonal, largest / 2, bar=last
        )
    for one in axes[0]:
        one.axis("off")
    return figure


if __name__ == "__main__":
    main()
