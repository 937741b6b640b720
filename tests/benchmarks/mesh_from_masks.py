# SPDX-License-Identifier: Apache-2.0
"""Twelve solids of genus 0 to 5 from masks: what the visual hull says of them, and `fit_mesh` from there.

24 anti-aliased masks each, from five elevations by turns; every sixth is held out. Settings were chosen on other shapes
(`solids.TRAIN`, the chair and the mug). Chamfer is the mean distance between the surfaces, either way, where the
longest side of a shape is 1. Crumples: pairs of triangles that meet, and the share with an angle below 10°.

    python tests/benchmarks/mesh_from_masks.py [--size 128] [--only NAME ...]
"""

import argparse
import json
import tempfile
import time

from solids import TEST, TRAIN, Solid, genus_and_components

import geodiff as gd
from geodiff.tasks.mesh.start import split
from geodiff.tasks.overlap import hard_iou
from tests.scene.test_remesh import angles

ELEVATIONS = (-30.0, 0.0, 25.0, 50.0, 10.0)
_POINTS = 20_000


def chamfer(mesh: gd.Mesh, truth: gd.Mesh) -> float:
    """Return the mean distance between two surfaces, either way."""
    total = 0.0
    for one, other in ((mesh, truth), (truth, mesh)):
        points = one.sample(_POINTS, seed=0).points
        total += 0.5 * float(other.closest_point(points).distance.mean())
    return total


def crumples(mesh: gd.Mesh) -> tuple[int, float]:
    """Return how many pairs of triangles meet, and which share has an angle below 10°."""
    return len(mesh.self_intersections()), float((angles(mesh).amin(-1) < 10).double().mean())


def row(name: str, solid: Solid, size: int) -> dict[str, object]:
    truth = solid.mesh(96)
    with tempfile.TemporaryDirectory() as folder:  # through files, as the job goes: alpha in 8 bits
        gd.tasks.render_views(truth, views=24, elevation=ELEVATIONS, size=size).save(folder)
        images = gd.PosedImages.load(folder)
    train, held_out = split(len(images), 6)
    start = time.process_time()
    hull = gd.tasks.visual_hull(images[train])
    between = time.process_time()
    fit = gd.tasks.fit_mesh(images, progress=False)
    end = time.process_time()
    return {
        "name": name,
        "wanted": (solid.genus, solid.components),
        "hull": (
            hard_iou(hull, images.cameras[held_out], images.alpha[held_out]),
            *genus_and_components(hull),
            1e3 * chamfer(hull, truth),
            between - start,
        ),
        "fit": (fit.iou_held_out, *genus_and_components(fit.mesh), 1e3 * chamfer(fit.mesh, truth), end - between),
        "truth": hard_iou(truth, images.cameras[held_out], images.alpha[held_out]),
        "crumples": [crumples(hull), crumples(fit.mesh)],
        "faces": fit.mesh.num_faces,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--only", nargs="*", choices=[*TEST, *TRAIN])
    options = parser.parse_args()
    print("| shape | genus, parts | held-out IoU of the truth, hull, fit | genus, parts of the fit |", end="")
    print(" Chamfer · 1000 of hull, fit | crumples of hull, fit | triangles | CPU seconds of hull, job |")
    print("|---|---|---|---|---|---|---|---|")
    rows = []
    for name in options.only or TEST:
        result = row(name, {**TEST, **TRAIN}[name], options.size)
        rows.append(result)
        hull, fit, wanted = result["hull"], result["fit"], result["wanted"]
        crumpled = ", ".join(f"{pairs} and {100 * thin:.1f} %" for pairs, thin in result["crumples"])
        print(
            f"| {name} | {wanted[0]}, {wanted[1]} | {result['truth']:.3f}, {hull[0]:.3f}, {fit[0]:.3f} |"
            f" {fit[1]}, {fit[2]} | {hull[3]:.2f}, {fit[3]:.2f} | {crumpled} |"
            f" {result['faces']} | {hull[4]:.1f}, {fit[4]:.1f} |",
            flush=True,
        )
    print(json.dumps(rows))


if __name__ == "__main__":
    main()
