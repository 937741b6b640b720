# SPDX-License-Identifier: Apache-2.0
"""A hat from a noisy cloud of points: sharp edges, an open border, no normals.

    python demos/fit_atlas.py --quick          # 2 500 points, some seconds
    python demos/fit_atlas.py                  # 10 000 points
    python demos/fit_atlas.py scan.ply --truth mesh.ply

A dome stands on a brim that turns up at the rim: three smooth pieces that meet in two sharp circles, and a border where
the surface ends. Points are drawn uniformly and moved by Gaussian noise. `fit_atlas` gets nothing else; the true hat is
only compared with. Writes what the command `geodiff fit-atlas` writes, and fit_atlas.png.
"""

import argparse
import pathlib

import numpy as np
import torch

import geodiff as gd
from geodiff.atlas.proximity import sample_mesh
from geodiff.tasks import pictures
from geodiff.tasks.atlas import pictures as atlas_pictures

SIZE = (330, 440)


def hat(around: int = 240) -> gd.Mesh:
    """The surface of revolution about y of a quarter circle, a horizontal and a short upright line."""
    angle = np.linspace(np.pi / 2, 0, 60)
    dome = np.stack([np.cos(angle), 1.05 * np.sin(angle)], 1)
    brim = np.stack([np.linspace(1, 1.7, 20), np.zeros(20)], 1)[1:]
    rim = np.stack([np.full(12, 1.7), np.linspace(0, 0.35, 12)], 1)[1:]
    profile = np.concatenate([dome, brim, rim])[1:]  # the tip is one vertex, not a circle
    turn = 2 * np.pi * np.arange(around) / around
    ring = np.stack([profile[:, :1] * np.cos(turn), np.broadcast_to(profile[:, 1:], (len(profile), around)),
                     profile[:, :1] * np.sin(turn)], -1).reshape(-1, 3)  # fmt: skip
    vertices = np.concatenate([ring, [[0.0, 1.05, 0.0]]])
    i, j = np.meshgrid(np.arange(len(profile) - 1), np.arange(around), indexing="ij")
    a, b = i * around + j, i * around + (j + 1) % around
    c, d = a + around, b + around
    tip = np.stack([np.full(around, len(ring)), (np.arange(around) + 1) % around, np.arange(around)], 1)
    faces = np.concatenate([np.stack([a, b, c], -1).reshape(-1, 3), np.stack([b, d, c], -1).reshape(-1, 3), tip])
    return gd.Mesh(torch.from_numpy(vertices), torch.from_numpy(faces))


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cloud", nargs="?", type=pathlib.Path, help="of a scan; left out, the hat")
    parser.add_argument("-o", "--output", type=pathlib.Path, default=pathlib.Path("out/fit_atlas"))
    parser.add_argument("--truth", type=pathlib.Path, help="the true surface of the scan")
    parser.add_argument("--points", type=int, help="drawn of the hat")
    parser.add_argument("--noise", type=float, default=0.003, help="σ, of the diagonal")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--quick", action="store_true", help="a small one, in seconds")
    arguments = parser.parse_args()

    quick = {"widths": (32, 32), "samples": 20_000, "watertight": False}
    options: dict = quick if arguments.quick else {}
    if arguments.cloud is None:
        truth = hat()
        count = arguments.points or (2500 if arguments.quick else 10_000)
        drawn = sample_mesh(truth, count, arguments.seed).points
        diagonal = float((truth.bounds[1] - truth.bounds[0]).norm())
        generator = torch.Generator().manual_seed(arguments.seed)
        cloud = drawn + arguments.noise * diagonal * torch.randn(drawn.shape, generator=generator, dtype=drawn.dtype)
        cloud = cloud[torch.randperm(len(cloud), generator=generator)]
    else:
        truth, cloud = arguments.truth, arguments.cloud
    fit = gd.fit_atlas(
        cloud, truth=truth, output=arguments.output, open_boundaries=True, seed=arguments.seed, **options
    )

    lines = [f"{fit.atlas}, noise {fit.metrics['noise_over_diagonal']:.2e} of the diagonal, {fit.seconds:.1f} s"]
    if truth is not None:
        lines.append(
            f"{'1e-3 diagonals':>15} {'accuracy':>9} {'p95':>6} {'max':>6} {'complete':>9} {'p95':>6} {'border':>7}"
        )
        for name in ("input", "fitted_points", "samples", "charts", "watertight"):
            one = fit.metrics["truth"].get(name)
            if one is not None:
                there, back, border = one["accuracy"], one["completeness"], one["boundary"]
                text = "-" if border is None else f"{1e3 * border['completeness']:.2f}"
                lines.append(
                    f"{name:>15} {1e3 * there['mean']:9.2f} {1e3 * there['p95']:6.2f} {1e3 * there['max']:6.1f} "
                    f"{1e3 * back['mean']:9.2f} {1e3 * back['p95']:6.2f} {text:>7}"
                )
    lines += fit.notes
    print("\n".join(lines))
    (arguments.output / "table.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    picture(fit.atlas).save(arguments.output / "fit_atlas.png")
    print(f"Look at {arguments.output / 'fit_atlas.png'}")


def picture(atlas: gd.Atlas):  # type: ignore[no-untyped-def]
    """Draw the points, the surface, the charts and the confidence from above, and the surface from below."""
    middle = (atlas.points.amin(0) + atlas.points.amax(0)) / 2
    mesh = atlas.to_mesh(refine=1)
    points = (atlas.points - middle).float()
    chart, sure = atlas_pictures.face_facts(atlas, mesh.vertices, mesh.faces)
    mesh = gd.Mesh((mesh.vertices - middle).float(), mesh.faces)
    above, below = (
        pictures.looking_at(points, 30, tilt, (0, 1, 0), aspect=SIZE[1] / SIZE[0]).to(dtype=torch.float32)
        for tilt in (32, -25)
    )
    colors = atlas_pictures.chart_colors(len(atlas))[chart]
    shown = [
        [
            atlas_pictures.draw_points(atlas, points, mesh, above, SIZE),
            *atlas_pictures.draw(mesh, above, SIZE, None, colors),
        ],
        [
            *atlas_pictures.draw(mesh, above, SIZE, atlas_pictures.confidence_colors(sure)),
            *atlas_pictures.draw(mesh, below, SIZE, None, colors),
        ],
    ]
    return pictures.grid(shown, ["", ""], ["points, confidence", "surface", f"{len(atlas)} charts"])


if __name__ == "__main__":
    main()
