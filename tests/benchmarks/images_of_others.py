# SPDX-License-Identifier: Apache-2.0
"""A mesh from images that others made: 120 renders of an airplane, from five elevations and 24 azimuths.

`airplane_images.npy` and `cameras.npy` are those of SoftRas and GenDR. Their cameras are left-handed: the images are
flipped left to right and seen from azimuth 180° − a. Every sixth view is held out.

    python tests/benchmarks/images_of_others.py FOLDER
"""

import argparse
import pathlib

import numpy as np
import torch

import geodiff as gd
from geodiff.tasks.overlap import hard_iou
from tests.scene.test_remesh import angles


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=pathlib.Path)
    folder = parser.parse_args().folder
    alpha = torch.from_numpy(np.load(folder / "airplane_images.npy")[:, 3].astype(np.float32) / 255).flip(-1)
    distance, elevation, azimuth = torch.from_numpy(np.load(folder / "cameras.npy").astype(np.float32)).unbind(1)
    every = torch.arange(len(alpha))
    rows = {
        "all 120": every,
        "60, every second azimuth": every[(azimuth / 15).round() % 2 == 0],
        "72, elevations −30°, 0° and 30°": every[elevation.abs() < 45],
        "96, elevations other than 0°": every[elevation.abs() > 15],
    }
    print("| images | hull: fitted, held out | fit: fitted, held out | pairs that meet | below 10° | seconds |")
    print("|---|---|---|---|---|---|")
    for name, chosen in rows.items():
        cameras = gd.Camera.orbit(distance[chosen], elevation[chosen], 180 - azimuth[chosen], fov_deg=30)
        images = gd.PosedImages(None, alpha[chosen], cameras)
        fit = gd.tasks.fit_mesh(images, progress=False)
        hull = gd.tasks.visual_hull(images[fit.train])
        parts = (fit.train, fit.held_out)
        raw = [f"{hard_iou(hull, images.cameras[part], images.alpha[part]):.3f}" for part in parts]
        thin = float((angles(fit.mesh).amin(-1) < 10).double().mean())
        pairs = len(fit.mesh.self_intersections())
        cells = f"{', '.join(raw)} | {fit.iou_train:.3f}, {fit.iou_held_out:.3f} | {pairs} | {100 * thin:.1f} %"
        print(f"| {name} | {cells} | {fit.seconds:.1f} |", flush=True)


if __name__ == "__main__":
    main()
