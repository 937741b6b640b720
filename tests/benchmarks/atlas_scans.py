# SPDX-License-Identifier: Apache-2.0
"""Pictures of scans and what the atlas makes of them: `python tests/benchmarks/atlas_scans.py -o out/scans`.

A row for each scan: its points, the mesh of all charts, the watertight mesh, and the confidence. The gargoyle is a scan
of a real object, p2s_00016513 a simulated one with the noise of a time-of-flight sensor; of both a random part of the
points is taken. The rocker-arm is a mesh of which points are drawn, a fifth of them strays. Normals are not used.
Atlases are kept as `NAME.npz`; a second call draws only. Needs the real data kept beside the checkout.
"""

import argparse
import pathlib
import sys
import warnings

import torch

import geodiff as gd
from geodiff.atlas.atlas import Atlas
from geodiff.atlas.fit import fit_charts
from geodiff.tasks import pictures
from geodiff.tasks.atlas import pictures as atlas_pictures

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
from atlas_clouds import Case, gargoyle, points2surf, scanned, shared

SIZE = (300, 300)


def strayed() -> Case:
    return scanned(shared("rocker-arm.obj"), 10_000, 0.002, outliers=0.2)


# Points to take, direction that is up, azimuth of the view, and the cloud.
SCANS = {
    "gargoyle": (40_000, (0.0, -1.0, 0.0), 20.0, lambda: gargoyle().points),
    "p2s_00016513": (25_000, (0.0, 1.0, 0.0), 30.0, lambda: points2surf().points),
    "rocker-arm": (10_000, (0.0, 1.0, 0.0), 30.0, lambda: strayed().points),
}


def fitted(name: str, folder: pathlib.Path, share: float) -> Atlas:
    path = folder / f"{name}.npz"
    if not path.is_file():
        count, _, _, make = SCANS[name]
        points = make()
        order = torch.randperm(len(points), generator=torch.Generator().manual_seed(0))
        Atlas.from_fit(fit_charts(points[order[: round(share * count)]])).save(path)
    return Atlas.load(path)


def row(name: str, atlas: Atlas) -> list:  # type: ignore[type-arg]
    _, up, azimuth, _ = SCANS[name]
    middle = (atlas.points.amin(0) + atlas.points.amax(0)) / 2
    mesh = atlas.to_mesh()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        closed = atlas.watertight_mesh(7, samples=60_000)
    points = (atlas.points - middle).float()
    camera = pictures.looking_at(points[~atlas.outlier], azimuth, 20, up).to(dtype=torch.float32)
    _, sure = atlas_pictures.face_facts(atlas, mesh.vertices.double(), mesh.faces)
    mesh, closed = (gd.Mesh((m.vertices - middle.to(m.vertices)).float(), m.faces) for m in (mesh, closed))
    return [
        atlas_pictures.draw_points(atlas, points, mesh, camera, SIZE),
        *atlas_pictures.draw(mesh, camera, SIZE, None),
        *atlas_pictures.draw(closed, camera, SIZE, None),
        *atlas_pictures.draw(mesh, camera, SIZE, atlas_pictures.confidence_colors(sure)),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--output", type=pathlib.Path, required=True)
    parser.add_argument("--only", nargs="*", default=list(SCANS), choices=list(SCANS))
    parser.add_argument("--share", type=float, default=1.0, help="of the points that are taken")
    given = parser.parse_args()
    given.output.mkdir(parents=True, exist_ok=True)
    rows = [row(name, fitted(name, given.output, given.share)) for name in given.only]
    columns = ["points", "charts", "watertight", "confidence"]
    pictures.grid(rows, given.only, columns).save(given.output / "scans.png")
    print(given.output / "scans.png")


if __name__ == "__main__":
    main()
