# SPDX-License-Identifier: Apache-2.0
"""How far a camera comes to lie from the true one, by the coverage of the renderer: the same descent for each.

A camera's rotation and position are fitted to a silhouette (256², averaged to 64²) of a mesh by 150 steps of Adam
through `Renderer(64, "logistic", scale, coverage=…)` and `losses.iou`. It starts at the true pose, so a loss without
bias stays there. Soft faces fatten the image of a finely tessellated mesh, which a camera farther away makes thinner.

    python tests/benchmarks/camera_bias.py
"""

import argparse
import json
import pathlib

import torch

import geodiff as gd
from geodiff.tasks.pose.poses import rotation_angle_deg, rotation_from_vector

ASSETS = pathlib.Path(__file__).resolve().parents[2] / "assets"


def descend(mesh: gd.Mesh, coverage: str, scale: float, steps: int = 150) -> dict[str, float]:
    """Return how far off the camera is at the end: degrees, and lengths in distances of the camera."""
    at = mesh.bounds.mean(0)
    radius = float((mesh.vertices - at).norm(dim=-1).max())
    truth = gd.Camera.orbit(3.5 * radius, 25.0, 40.0, fov_deg=40, at=at)
    target = gd.rasterize(mesh, truth, 256).mask.float().unflatten(0, (64, 4)).unflatten(2, (64, 4)).mean((1, 3))
    start = truth
    turn, shift = torch.zeros(3, requires_grad=True), torch.zeros(3, requires_grad=True)
    optimizer = torch.optim.Adam([turn, shift], lr=0.01)
    schedule = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.01 ** (1 / steps))
    render = gd.Renderer(64, "logistic", scale, coverage=coverage)
    position = start.position

    def camera() -> gd.Camera:
        rotation = rotation_from_vector(turn) @ start.rotation
        return gd.Camera(rotation, -(rotation @ (position + radius * shift)), start.focal, near=start.near)

    for _ in range(steps):
        optimizer.zero_grad()
        gd.losses.iou(render(mesh, camera()).alpha, target).backward()
        optimizer.step()
        schedule.step()
    found = camera()
    distance = float((truth.position - at).norm())
    return {
        "angle_deg": float(rotation_angle_deg(found.rotation, truth.rotation)),
        "position": float((found.position - truth.position).norm()) / distance,
        "distance": float((found.position - at).norm()) / distance - 1,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scales", type=float, nargs="+", default=[0.01])
    for scale in parser.parse_args().scales:
        for name in ("teapot", "chair"):
            mesh = gd.Mesh.load(ASSETS / f"{name}.obj")
            for coverage in ("faces", "edges", "contour"):
                row = descend(gd.Mesh(mesh.vertices, mesh.faces), coverage, scale)
                print(json.dumps({"mesh": name, "faces": mesh.num_faces, "scale": scale, "coverage": coverage, **row}))


if __name__ == "__main__":
    main()
