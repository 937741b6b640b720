# SPDX-License-Identifier: Apache-2.0
"""Recover a mesh from 24 silhouettes of an airplane: run it from the folder of the repository."""

import torch

import geodiff as gd

airplane = gd.Mesh.load("assets/airplane.obj")
cameras = gd.Camera.orbit(distance=2.732, elevation_deg=30, azimuth_deg=torch.arange(0, 360, 15), fov_deg=30)
fine = gd.rasterize(airplane, cameras, 256).mask.float()
target = torch.nn.functional.avg_pool2d(fine[:, None], 4)[:, 0]  # coverage: pixels on the outline are grey

fit = gd.tasks.fit_mesh(target, cameras, output="out/recover_mesh")

print(f"IoU {fit.iou_train:.3f} in the views fitted, {fit.iou_held_out:.3f} in the held-out ones")
print(f"Look at {fit.files['side_by_side']} and {fit.files['animation']}")
