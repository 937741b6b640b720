# SPDX-License-Identifier: Apache-2.0
"""Recover where a camera stood from one silhouette of a chair: run it from the folder of the repository.

    python demos/recover_pose.py [--quick] [-o out/recover_pose]

Nothing is told but the mesh and the lens: rotations from all around are tried. The truth is only compared with.
"""

import argparse
import pathlib

import geodiff as gd

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--quick", action="store_true", help="fewer candidates and steps")
parser.add_argument("-o", "--output", type=pathlib.Path, default=pathlib.Path("out/recover_pose"))
options = parser.parse_args()

chair = gd.Mesh.load("assets/chair.obj")
truth = gd.Camera.orbit(distance=2.2, elevation_deg=25, azimuth_deg=40, fov_deg=40)
image = gd.rasterize(chair, truth, 96).mask.float()

settings = {"size": 96}
if options.quick:
    settings = {"size": 48, "candidates": 300, "starts": 4, "finalists": 2, "steps": 20, "polish": 3}
lens = gd.Camera.orbit(distance=1.0, fov_deg=40)
fit = gd.tasks.fit_pose(chair, image, lens, truth=truth, output=options.output, resume=False, **settings)

print(
    f"{fit.error['angle_deg']:.2f}° from the true rotation, distance × {fit.error['distance']:.3f}, IoU {fit.iou:.3f}"
)
print(f"Look at {fit.files['overlay']} and {fit.files['animation']}")
