# SPDX-License-Identifier: Apache-2.0
"""Measured surfaces: a landscape by finer and finer nets, or a piece cut out of a scan.

Without a path: the elevation model of the Jacksboro fault in Tennessee (344 × 403 heights, from NASA's shuttle radar
mission) that comes with Matplotlib, as a grid, by linear least squares, with 12 to 96 control points a side.

With the path of a cloud (.ply, .npy, .xyz, .csv): the points in a ball around one of them, those on its sheet of the
surface only, by `fit_cloud`, which finds their parameters too. For example

    python demos/nurbs_scan.py ../shared/data/gargoyle_srb_scan.ply
    python demos/nurbs_scan.py ../shared/data/p2s_00016513_scan.npy --neighbours 60

A ball cuts out a disc, and scans are noisy: `fit_cloud` draws the corners of its first surface in, keeps lengths near
those of it, and smooths as much as the noise asks for.

Errors are given in units of the bounding box's diagonal, that of the landscape or of the piece. Half a minute on two
cores, a cloud a minute; --quick is coarser.
"""

import argparse
import pathlib
import time

import matplotlib.cbook
import numpy as np
import torch
from matplotlib.figure import Figure
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree

from geodiff.splines.fit import fit_surface
from geodiff.splines.fit_unordered import fit_cloud
from geodiff.tasks.nurbs import pictures as nurbs_pictures
from geodiff.tasks.nurbs.job import read_points


def landscape(quick: bool) -> torch.Tensor:
    """Return the elevation model as points (344, 403, 3) in metres: x to the south, y to the east, z up."""
    with matplotlib.cbook.get_sample_data("jacksboro_fault_dem.npz") as data:
        heights = torch.from_numpy(data["elevation"].astype(np.float64))
        latitude = np.deg2rad(0.5 * float(data["ymin"] + data["ymax"]))
        south, east = (float(data[name]) * 111_195.0 for name in ("dy", "dx"))  # metres for a degree of a great circle
    step = 4 if quick else 1
    heights = heights[::step, ::step]
    x = torch.arange(heights.shape[0], dtype=torch.float64) * (south * step)
    y = torch.arange(heights.shape[1], dtype=torch.float64) * (east * np.cos(latitude) * step)
    return torch.stack([*torch.meshgrid(x, y, indexing="ij"), heights], -1)


def sheet_around(cloud: np.ndarray, centre: int, radius: float, neighbours: int = 30) -> np.ndarray:
    """Return the points in a ball around one of them that its sheet of the surface connects to it.

    Neighbours are connected where their normals, those of the planes through their neighbours, differ by less than 30°;
    and the sheet must not turn away from the normal in the middle by more than 45°, so that it does not fold.
    """
    tree = cKDTree(cloud)
    ball = cloud[tree.query_ball_point(cloud[centre], radius)]
    middle = int(np.square(ball - cloud[centre]).sum(1).argmin())
    _, near = cKDTree(ball).query(ball, neighbours)
    spread = ball[near] - ball[near].mean(1, keepdims=True)
    normals = np.linalg.eigh(np.einsum("nki,nkj->nij", spread, spread))[1][:, :, 0]
    first, second = np.repeat(np.arange(len(ball)), neighbours), near.reshape(-1)
    upright = np.abs(normals @ normals[middle]) > np.cos(np.deg2rad(45))
    keep = np.abs((normals[first] * normals[second]).sum(1)) > np.cos(np.deg2rad(30))
    keep &= upright[first] & upright[second]
    graph = coo_matrix((np.ones(keep.sum()), (first[keep], second[keep])), shape=(len(ball), len(ball)))
    label = connected_components(graph, directed=False)[1]
    return ball[label == label[middle]]


def depth(points: np.ndarray) -> float:
    """Return how deep a piece is for its width; a small one (the rest of a ball was cut away) counts as deep."""
    _, spread, _ = np.linalg.svd(points - points.mean(0), full_matrices=False)
    return float(spread[2] / spread[1]) if len(points) > 400 else np.inf


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cloud", nargs="?", type=pathlib.Path, help="of a scan; left out, the landscape")
    parser.add_argument("-o", "--output", type=pathlib.Path, default=pathlib.Path("out/nurbs_scan"))
    parser.add_argument("--control", type=int, nargs="+", help="control points a side, one fit each")
    parser.add_argument("--centre", type=int, help="number of the point to cut around; left out, the flattest of 20")
    parser.add_argument("--radius", type=float, default=0.08, help="of the ball, in diagonals of the whole cloud")
    parser.add_argument("--neighbours", type=int, default=30, help="that a normal is made of: more for noisy clouds")
    parser.add_argument("--smoothing", type=float, help="of the fits to a cloud; left out, it follows the noise")
    parser.add_argument("--seed", type=int, default=0, help="draws the 20")
    parser.add_argument("--quick", action="store_true", help="a small one, in seconds")
    arguments = parser.parse_args()

    if arguments.cloud is None:
        points, kind, name = landscape(arguments.quick), "heights", "Jacksboro fault"
        counts = arguments.control or ((8, 16) if arguments.quick else (12, 24, 48, 96))
    else:
        cloud = read_points(arguments.cloud).numpy()
        whole = float(np.linalg.norm(np.ptp(cloud, axis=0)))
        if arguments.centre is None:
            drawn = np.random.default_rng(arguments.seed).integers(len(cloud), size=3 if arguments.quick else 20)
            sheets = {
                int(i): sheet_around(cloud, int(i), arguments.radius * whole, arguments.neighbours) for i in drawn
            }
            centre = min(sheets, key=lambda i: depth(sheets[i]))
        else:
            centre = arguments.centre
        points = torch.from_numpy(sheet_around(cloud, centre, arguments.radius * whole, arguments.neighbours))
        kind, name = "cloud", f"{arguments.cloud.name}, around point {centre}"
        counts = arguments.control or ((6,) if arguments.quick else (6, 12))
    flat = points.reshape(-1, 3)
    diagonal = float((flat.amax(0) - flat.amin(0)).norm())
    unit = " m" if kind == "heights" else ""
    lines = [f"{name}: {len(flat)} points, diagonal {diagonal:.5g}{unit}"]
    lines += [f"{'control':>9} {'rms':>9} {'largest':>9} {'rms/diag.':>10} {'largest/diag.':>14} {'seconds':>8}"]
    print("\n".join(lines))
    fits = []
    for count in counts:
        begin = time.perf_counter()
        if kind == "heights":
            fit = fit_surface(points, (count, count))
        else:
            fit = fit_cloud(points, (count, count), smoothing=arguments.smoothing)
        seconds = time.perf_counter() - begin
        fits.append(fit)
        lines.append(f"{f'{count}x{count}':>9} {fit.rms:9.4g} {fit.max:9.4g} {fit.rms / diagonal:10.2e} "
                     f"{fit.max / diagonal:14.2e} {seconds:8.1f}")  # fmt: skip
        print(lines[-1], flush=True)

    arguments.output.mkdir(parents=True, exist_ok=True)
    (arguments.output / "table.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    picture(fits, points, kind, diagonal, name).savefig(arguments.output / "nurbs_scan.png", dpi=80)
    print(f"Look at {arguments.output / 'nurbs_scan.png'}")


def picture(fits, points: torch.Tensor, kind: str, diagonal: float, name: str) -> Figure:  # type: ignore[no-untyped-def]
    """Draw the points, and a column for each fit: the surface with its knot lines, over its error on (u, v)."""
    size = (300, 400)
    figure = Figure(figsize=(4.4 * (len(fits) + 1), 6.8), layout="constrained")
    axes = figure.subplots(2, len(fits) + 1, squeeze=False)
    figure.suptitle(name)
    axes[0, 0].imshow(nurbs_pictures.draw_points(fits[-1].surface, points, kind, size))
    axes[0, 0].set_title(f"{points.reshape(-1, 3).shape[0]} points")
    axes[1, 0].axis("off")
    largest = 2 * fits[0].rms / diagonal
    for column, fit in enumerate(fits, 1):
        axes[0, column].imshow(nurbs_pictures.draw_fit(fit.surface, points, kind, size))
        axes[0, column].set_title(f"{' x '.join(map(str, fit.surface.shape))}, rms {fit.rms / diagonal:.2g} diagonals")
        last = column == len(fits)
        nurbs_pictures.draw_error(
            figure, axes[1, column], fit.surface, fit.errors, fit.parameters, diagonal, largest, bar=last
        )
    for one in axes[0]:
        one.axis("off")
    return figure


if __name__ == "__main__":
    main()
