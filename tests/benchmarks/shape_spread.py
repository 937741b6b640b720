# SPDX-License-Identifier: Apache-2.0
"""How much of the README's airplane is luck: the same job from starts moved by a millionth, on each SIMD level.

The job is that of `make demo`: 24 views of the airplane, every sixth held out, `fit-mesh` with its defaults. The
descent is chaotic: what moves the start by a millionth, or rounds a sum otherwise, moves the result by some hundredths.
So a single run says little, and two figures are different only if they differ by more than this spread.

    python tests/benchmarks/shape_spread.py
"""

import argparse
import json
import pathlib
import statistics
import tempfile

import torch

import geodiff as gd
from geodiff.native import cpu
from geodiff.tasks.mesh import refine
from geodiff.tasks.mesh.start import object_frame, split, start_mesh
from geodiff.tasks.overlap import hard_iou

ASSETS = pathlib.Path(__file__).resolve().parents[2] / "assets"
LEVELS = ("baseline", "v3", "v4")


def levels() -> list[str]:
    """Return the SIMD levels that this machine has, from the least."""
    return list(LEVELS[: LEVELS.index(cpu.simd_level()) + 1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mesh", type=pathlib.Path, default=ASSETS / "airplane.obj")
    parser.add_argument("--starts", type=int, default=8)
    parser.add_argument("--moved", type=float, default=1e-6, help="standard deviation, in units of the world")
    parser.add_argument("--template", choices=("hull", "sphere"), default="hull")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:  # through files, as the job goes: alpha in 8 bits
        gd.tasks.render_views(gd.Mesh.load(options.mesh), views=24).save(folder)
        images = gd.PosedImages.load(folder)
    settings = gd.tasks.FitMeshSettings().completed(options.template, min(images.image_size))
    print(f"| SIMD level ({torch.get_num_threads()} threads) | fitted: least, median, greatest | held out |")
    print("|---|---|---|")
    extension = cpu.extension()
    seconds: list[float] = []
    crossing: list[int] = []
    every: dict[str, list[tuple[float, float]]] = {}
    for level in levels():
        extension.set_simd_level(level)
        train, held_out = split(len(images), settings.hold_out)
        if options.template == "hull":
            first = gd.tasks.visual_hull(images[train])
        else:
            first = start_mesh("sphere", settings, images, object_frame(images)[0])
        for seed in range(options.starts):
            noise = torch.randn(first.vertices.shape, generator=torch.Generator().manual_seed(seed))
            start = first.with_vertices(first.vertices + options.moved * noise)
            mesh = refine.even(start) if options.template == "hull" else start  # as `fit_mesh` does with its own
            fit = gd.tasks.fit_mesh(images, template=mesh, settings=settings, progress=False)
            mesh = refine.finished(fit.mesh) if options.template == "hull" else fit.mesh
            crossing.append(len(mesh.self_intersections()))
            ious = [hard_iou(mesh, images.cameras[part], images.alpha[part]) for part in (train, held_out)]
            every.setdefault(level, []).append((ious[0], ious[1]))
            seconds.append(fit.seconds)
        line(level, every[level])
    line("all", [pair for pairs in every.values() for pair in pairs])
    print(f"most pairs of faces that meet: {max(crossing)}")
    print(f"median seconds of a fit: {statistics.median(seconds):.1f}")
    print(json.dumps(every))


def line(name: str, pairs: list[tuple[float, float]]) -> None:
    """Print a row of the table."""
    cells = [
        f"{min(values):.3f}, {statistics.median(values):.3f}, {max(values):.3f}" for values in zip(*pairs, strict=True)
    ]
    print(f"| {name} | {cells[0]} | {cells[1]} |", flush=True)


if __name__ == "__main__":
    main()
