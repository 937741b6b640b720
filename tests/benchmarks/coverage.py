# SPDX-License-Identifier: Apache-2.0
"""How the coverage models depend on tessellation, what they cost, and how well meshes are recovered with each.

    python tests/benchmarks/coverage.py spheres seams time        # seconds to a minute
    python tests/benchmarks/coverage.py fit --steps 200           # minutes
    python tests/benchmarks/coverage.py picture -o docs/images/coverage.png

`spheres`: the largest difference of alpha from the sphere of 81 920 faces. `time`: medians in milliseconds, forward and
forward + backward of Σ alpha², beside the same with "faces". `fit`: a sphere is fitted to the hard masks of a mesh from
12 views, and judged by what it was not fitted to: hard IoU in 24 other views, Chamfer distance of surface samples
(of the unit box, times 1000) and IoU of volumes.
"""

import argparse
import json
import pathlib
import time
from typing import Any

import numpy as np
import torch

import geodiff as gd
from tests.benchmarks.silhouette import median_ms, show

MODELS = ("faces", "edges", "contour")
LEVELS = (2, 3, 5, 6)  # icospheres of 320, 1 280, 20 480 and 81 920 faces
TAU = 0.03
ASSETS = pathlib.Path(__file__).parents[2] / "assets"


def view(count: int = 1) -> gd.Camera:
    azimuth = 30.0 if count == 1 else torch.arange(count) * (360.0 / count)
    return gd.Camera.orbit(distance=2.7, elevation_deg=20.0, azimuth_deg=azimuth, fov_deg=60.0)


def spheres(models: tuple[str, ...] = MODELS, size: int = 64) -> list[dict]:
    rows = []
    for coverage in models:
        render = gd.Renderer(size, scale=TAU, coverage=coverage)
        images = {level: render(gd.icosphere(level), view()).alpha for level in (2, 3, 4, 5, 6)}
        hard = {level: gd.rasterize(gd.icosphere(level), view(), size).mask for level in images}
        for level in (2, 3, 4, 5):
            row = {"coverage": coverage, "tau": TAU, "faces": 20 * 4**level}
            row["largest_difference"] = float((images[level] - images[6]).abs().max())
            row["hard_pixels_that_differ"] = int((hard[level] != hard[6]).sum())
            show(row)
            rows.append(row)
    return rows


def seams(models: tuple[str, ...] = MODELS, size: int = 64) -> list[dict]:
    """The least alpha deep inside of a sphere: of the pixels 12 τ and more from its outline, where F is 1 − 6e-6."""
    rows = []
    for tau in (1e-4, 1e-3, 1e-2, 3e-2):
        mesh = gd.icosphere(3)
        # Uniform on [−2, 2]: alpha says the distance.
        distance = 4 * gd.Renderer(size, "uniform", scale=2.0, coverage="contour")(mesh, view()).alpha - 2
        deep = distance >= 12 * tau
        for coverage in models:
            inside = gd.Renderer(size, scale=tau, coverage=coverage)(mesh, view()).alpha[deep]
            row = {"coverage": coverage, "tau": tau, "pixels": int(deep.sum())}
            row["least_alpha_inside"] = float(inside.min()) if inside.numel() else None
            show(row)
            rows.append(row)
    return rows


def timing(levels: tuple[int, ...], taus: tuple[float, ...], size: int = 256) -> list[dict]:
    rows = []
    for tau in taus:
        for level in levels:
            mesh = gd.icosphere(level)
            _ = mesh.topology.edge_cycles  # once a topology, not once an image
            row: dict[str, Any] = {"faces": mesh.num_faces, "size": size, "tau": tau}
            for coverage in ("faces", "contour"):
                # At a large τ a fine mesh costs the other model seconds: one call says enough.
                slow = coverage == "faces" and tau > 5e-3 and level > 3
                render = gd.Renderer(size, scale=tau, coverage=coverage)
                vertices = mesh.vertices.clone().requires_grad_()

                def both(render=render, vertices=vertices, mesh=mesh) -> None:
                    render(mesh.with_vertices(vertices), view()).alpha.square().sum().backward()

                with torch.no_grad():
                    if slow:
                        began = time.perf_counter()
                        render(mesh, view())
                        row[f"{coverage}_forward_ms"] = 1e3 * (time.perf_counter() - began)
                    else:
                        row[f"{coverage}_forward_ms"] = median_ms(lambda render=render, mesh=mesh: render(mesh, view()))
                if not slow:
                    row[f"{coverage}_both_ms"] = median_ms(both)
            row["times_cheaper_forward"] = row["faces_forward_ms"] / row["contour_forward_ms"]
            show(row)
            rows.append(row)
    return rows


# Fits ----------------------------------------------------------------------------------------------------------------


def orbit(count: int, first: float, elevations: tuple[float, ...]) -> gd.Camera:
    azimuth = first + torch.arange(count) * (360.0 / count)
    elevation = torch.tensor([elevations[i % len(elevations)] for i in range(count)])
    return gd.Camera.orbit(distance=2.7, elevation_deg=elevation, azimuth_deg=azimuth, fov_deg=40.0)


def fit(
    target: gd.Mesh, start: gd.Mesh, coverage: str, scale: tuple[float, float], steps: int, size: int
) -> tuple[gd.Mesh, float]:
    """Fit the sphere to the target's hard masks with τ falling geometrically; returns the mesh and seconds a step."""
    cameras = orbit(12, 0.0, (-35.0, 0.0, 30.0, 60.0))
    masks = gd.rasterize(target, cameras, size).mask.float()
    vertices = start.vertices.clone().requires_grad_()
    adam = torch.optim.Adam([vertices], lr=0.01, betas=(0.5, 0.95))
    began = time.perf_counter()
    for step in range(steps):
        tau = scale[0] * (scale[1] / scale[0]) ** (step / max(steps - 1, 1))
        mesh = start.with_vertices(vertices)
        alpha = gd.Renderer(size, scale=tau, coverage=coverage)(mesh, cameras).alpha
        loss = (
            gd.losses.iou(alpha, masks)
            + 0.03 * gd.losses.laplacian(mesh, reduction="sum")
            + 0.0003 * gd.losses.flatness(mesh, reduction="sum")
        )
        adam.zero_grad()
        loss.backward()
        adam.step()
    return start.with_vertices(vertices.detach()), (time.perf_counter() - began) / steps


def judge(mesh: gd.Mesh, target: gd.Mesh) -> dict[str, float]:
    cameras = orbit(24, 7.5, (-50.0, -15.0, 15.0, 45.0, 75.0))
    own, true = (gd.rasterize(m, cameras, 128).mask for m in (mesh, target))
    held_out = ((own & true).sum(dim=(1, 2)) / (own | true).sum(dim=(1, 2))).mean()
    points = [torch.as_tensor(m.to_trimesh().sample(20000, seed=1)) for m in (mesh, target)]
    a, b = (torch.cdist(x, y).amin(dim=1).mean() for x, y in (points, points[::-1]))
    volumes = [filled(m) for m in (mesh, target)]
    volume = np.logical_and(*volumes).sum() / np.logical_or(*volumes).sum()
    return {"held_out_iou": float(held_out), "chamfer_1000": 500 * float(a + b), "volume_iou": float(volume)}


def filled(mesh: gd.Mesh, size: int = 64) -> np.ndarray:
    """Voxels of [−0.6, 0.6]³ that lie between the nearest and the farthest surface along each of the three axes.

    Whatever the winding, and also for a surface that cuts itself; cavities that no axis sees count as inside.
    """
    inside = np.ones((size, size, size), dtype=bool)
    for axis in range(3):
        near, far = (depth_map(mesh, axis, sign, size) for sign in (1, -1))
        # near: distance from the +side; far: distance from the −side.
        at = (np.arange(size) + 0.5) * (1.2 / size)
        between = (at >= far[..., None]) & (1.2 - at >= near[..., None])
        inside &= np.moveaxis(between, -1, axis)
    return inside


def depth_map(mesh: gd.Mesh, axis: int, sign: int, size: int) -> np.ndarray:
    """Distance from the box's side to the surface along an axis, over the other two in ascending order."""
    others = [i for i in range(3) if i != axis]
    v = mesh.vertices.detach()
    depth = 0.6 - sign * v[:, axis] + 1.0
    ndc = v[:, others] / 0.6
    clip = torch.stack([ndc[:, 1], -ndc[:, 0], depth, torch.ones_like(depth)], dim=-1)
    raster = gd.ops.rasterize(clip, mesh.faces, mesh.layout_for(1), image_size=(size, size), near=1e-3)
    return raster.depth[0].numpy() - 1.0


def fits(names: list[str], steps: int, size: int, level: int, folder: pathlib.Path | None) -> list[dict]:
    rows = []
    start = gd.icosphere(level).scaled(0.5)
    for name in names:
        target = gd.Mesh.load(ASSETS / f"{name}.obj").normalized()
        for coverage in MODELS:
            for scale in ((1e-2, 1e-3), (3e-3, 1e-3)):
                mesh, seconds = fit(target, start, coverage, scale, steps, size)
                row = {"target": name, "coverage": coverage, "tau": scale, **judge(mesh, target)}
                row["ms_a_step"] = 1e3 * seconds
                show(row)
                rows.append(row)
                if folder is not None:
                    folder.mkdir(parents=True, exist_ok=True)
                    mesh.save(folder / f"{name}_{coverage}_{scale[0]:g}.obj")
    return rows


def picture(path: pathlib.Path) -> None:
    """One sphere, coarse and fine, under each model at a large and a small τ."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(3, 4, figsize=(8.4, 6.6), layout="constrained")
    columns = [(2, 0.03), (5, 0.03), (2, 0.006), (5, 0.006)]
    for row, coverage in enumerate(MODELS):
        for column, (level, tau) in enumerate(columns):
            alpha = gd.Renderer(128, scale=tau, coverage=coverage)(gd.icosphere(level), view()).alpha
            axis = axes[row, column]
            axis.imshow(alpha.numpy(), cmap="gray", vmin=0, vmax=1)
            axis.set_xticks([])
            axis.set_yticks([])
            if row == 0:
                axis.set_title(f"{20 * 4**level} faces, τ = {tau:g}", fontsize=9)
            if column == 0:
                axis.set_ylabel(f'"{coverage}"', fontsize=10)
    figure.savefig(path, dpi=100)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", default=["spheres", "seams", "time"])
    parser.add_argument("--levels", type=int, nargs="+", default=[3, 5, 6], help="of icospheres, for `time`")
    parser.add_argument("--taus", type=float, nargs="+", default=[1e-3, 1e-2])
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--size", type=int, default=64, help="of images in `fit`")
    parser.add_argument("--level", type=int, default=3, help="of the sphere that `fit` starts from")
    parser.add_argument("--targets", nargs="+", default=["airplane", "teapot", "mug", "chair"])
    parser.add_argument("--models", nargs="+", default=list(MODELS))
    parser.add_argument("--folder", type=pathlib.Path, help="where `fit` leaves its meshes")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("-o", "--output", type=pathlib.Path, help="JSON, or the picture")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    models = tuple(options.models)
    result: dict[str, Any] = {"torch": torch.__version__, "geodiff": gd.__version__, "threads": options.threads}
    for part in options.parts:
        print(f"--- {part}", flush=True)
        if part == "picture":
            picture(options.output or pathlib.Path("coverage.png"))
            return
        if part == "fit":
            result[part] = fits(options.targets, options.steps, options.size, options.level, options.folder)
        elif part == "time":
            result[part] = timing(tuple(options.levels), tuple(options.taus))
        else:
            result[part] = {"spheres": spheres, "seams": seams}[part](models)
    if options.output:
        options.output.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
