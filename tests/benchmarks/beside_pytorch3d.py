# SPDX-License-Identifier: Apache-2.0
"""Soft silhouettes beside PyTorch3D's, in one run: time, memory, image, gradient, and what is not a number.

    python tests/benchmarks/beside_pytorch3d.py -o beside.json    # all parts, two minutes
    python tests/benchmarks/beside_pytorch3d.py speed             # one: speed, difference, memory, hostile, masks

PyTorch3D is on no package index: build it from its source, as its INSTALL.md says. Setting: an icosphere at distance
2.7, field of view 60°; ours logistic squared, τ = 1e-4, probabilistic sum; theirs ``SoftSilhouetteShader`` with
sigma = 1e-4, K = 50 faces a pixel and ``blur_radius`` where its sigmoid is 1e-4, as its tutorials have it; the other
settings its defaults. The contestants take turns; forward + backward of Σ alpha². Quote the ratios.

Both are the same formula, 1 − Π (1 − sigmoid(± d² / σ)), so what differs is what one leaves out: theirs all but the K
nearest faces in depth, faces beyond ``blur_radius``, and faces of less than 5e-9 NDC² (seen edge-on). ``difference``
takes these away one by one.

With -o parts that were not asked for stay in the file.
"""

import argparse
import json
import math
import pathlib
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import torch

import geodiff as gd
from geodiff.interop import camera_to_pytorch3d, to_pytorch3d
from geodiff.native import cpu

SIGMA, K, CUT = 1e-4, 50, 1e-4
SIZES = [(3, 64, 1), (3, 64, 24), (3, 256, 1), (5, 64, 1)]
Alpha = Callable[[torch.Tensor], torch.Tensor]


def scene(level: int, views: int) -> tuple[gd.Mesh, gd.Camera]:
    azimuths = torch.arange(views, dtype=torch.float32) * (360 / views)
    return gd.icosphere(level), gd.Camera.orbit(2.7, 0, azimuths, fov_deg=60)


def ours(mesh: gd.Mesh, camera: gd.Camera, size: int) -> Alpha:
    render = gd.Renderer(size, distribution="logistic.squared", scale=SIGMA)
    return lambda v: render(mesh.with_vertices(v), camera).alpha


def theirs(
    mesh: gd.Mesh, camera: gd.Camera, size: int, k: int = K, cut: float = CUT, seen: list | None = None
) -> Alpha:
    """Return their image of positions; `seen` gets the indices of faces (B, H, W, K) of the last one."""
    from pytorch3d import renderer

    blur = math.log(1 / cut - 1) * SIGMA
    settings = renderer.RasterizationSettings(image_size=size, blur_radius=blur, faces_per_pixel=k)
    raster = renderer.MeshRasterizer(camera_to_pytorch3d(camera, fov=True), settings)
    shader = renderer.SoftSilhouetteShader(blend_params=renderer.BlendParams(sigma=SIGMA))
    still = to_pytorch3d(mesh.with_vertices(torch.zeros_like(mesh.vertices)))
    views = camera.batch_shape.numel()

    def alpha(v: torch.Tensor) -> torch.Tensor:
        meshes = still.offset_verts(v).extend(views)
        fragments = raster(meshes)
        if seen is not None:
            seen[:] = [fragments.pix_to_face]
        return shader(fragments, meshes)[..., 3]

    return alpha


def both(alpha: Alpha, vertices: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, float, float]:
    """Return the image, the gradient, and the seconds forward and forward + backward."""
    v = vertices.clone().requires_grad_()
    began = time.perf_counter()
    image = alpha(v)
    middle = time.perf_counter()
    image.square().sum().backward()
    end = time.perf_counter()
    assert v.grad is not None
    return image.detach(), v.grad, middle - began, end - began


def speed() -> list[dict]:
    """Medians of three turns or more of ours, of as many of theirs as fit in five seconds, one at least."""
    rows = []
    for level, size, views in SIZES:
        mesh, camera = scene(level, views)
        calls = {"ours": ours(mesh, camera, size), "theirs": theirs(mesh, camera, size)}
        row: dict[str, Any] = {"faces": mesh.num_faces, "size": size, "views": views}
        times: dict[str, list] = {name: [] for name in calls}
        both(calls["ours"], mesh.vertices)
        spent = 0.0
        while len(times["ours"]) < 3 or (spent < 5 and len(times["ours"]) < 5):
            for name, alpha in calls.items():
                if name == "ours" or spent < 5:
                    times[name].append(both(alpha, mesh.vertices)[2:])
            spent = sum(total for _, total in times["theirs"])
        for name, values in times.items():
            row[f"{name}_forward_ms"], row[f"{name}_ms"] = (
                1e3 * statistics.median(part) for part in zip(*values, strict=True)
            )
        row["forward_ratio"] = row["theirs_forward_ms"] / row["ours_forward_ms"]
        row["ratio"] = row["theirs_ms"] / row["ours_ms"]
        show(row)
        rows.append(row)
    return rows


def difference() -> list[dict]:
    """Largest difference of image and gradient: as it is, and with what theirs leaves out put back or left out here."""
    rows = []
    for level in (3, 5):
        mesh, camera = scene(level, 1)
        a, b, c = camera.project(mesh.vertices.double())[0, :, :2][mesh.faces].unbind(1)
        thin = torch.linalg.det(torch.stack((b - a, c - a), -1)).abs() <= 1e-8
        for k, cut, drop in ((K, CUT, False), (400, CUT, False), (400, 1e-9, False), (400, 1e-9, True)):
            if drop and not thin.any():
                continue
            own = gd.Mesh(mesh.vertices, mesh.faces[~thin]) if drop else mesh
            image, gradient, *_ = both(ours(own, camera, 64), mesh.vertices)
            seen: list[torch.Tensor] = []
            peer, peer_gradient, *_ = both(theirs(mesh, camera, 64, k, cut, seen), mesh.vertices)
            error, error_gradient = (image - peer).abs(), (gradient - peer_gradient).abs()
            full = (seen[0] >= 0).all(-1)
            row = {
                "faces": mesh.num_faces,
                "k": k,
                "cut": cut,
                "thin": int(thin.sum()),
                "dropped": drop,
                "full": int(full.sum()),
                "image": float(error.max()),
                # Whether the pixel of the largest difference is one that keeps as many faces as it may.
                "image_at_full": bool(full.reshape(-1)[error.argmax()]),
                "image_elsewhere": float(error[~full].max()),
                "gradient": float(error_gradient.max() / gradient.abs().max()),
                "cosine": float(
                    torch.cosine_similarity(gradient.double().flatten(), peer_gradient.double().flatten(), 0)
                ),
            }
            show(row)
            rows.append(row)
    return rows


def resident(key: str) -> float:
    """MB of this process (Linux): VmRSS now, VmHWM at its peak."""
    lines = pathlib.Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(key)) / 1024


def growth(name: str, level: int, size: int, views: int) -> None:
    """Print the peak of one forward + backward over what was held before it; in a process of its own."""
    torch.set_num_threads(2)
    mesh, camera = scene(level, views)
    alpha = {"ours": ours, "theirs": theirs}[name](mesh, camera, size)
    before = resident("VmRSS")
    both(alpha, mesh.vertices)
    print(resident("VmHWM") - before)


def memory() -> list[dict]:
    rows = []
    for level, size, views in SIZES:
        row: dict[str, Any] = {"faces": 20 * 4**level, "size": size, "views": views}
        for name in ("ours", "theirs"):
            task = [sys.executable, __file__, "--growth", name, str(level), str(size), str(views)]
            found = subprocess.run(task, capture_output=True, text=True, check=True)
            row[f"{name}_mb"] = float(found.stdout.splitlines()[-1])
        show(row)
        rows.append(row)
    return rows


def hostile() -> list[dict]:
    """Count what is not finite in image and gradient where meshes and cameras are as they should not be."""
    torch.manual_seed(0)
    torus, ball = gd.torus(nu=24, nv=12), gd.icosphere(2)
    flat = ball.vertices * torch.tensor([1.0, 1.0, 0.0])
    needles = ball.vertices.clone()
    needles[ball.faces[::7, 1]] = needles[ball.faces[::7, 0]]
    eyes = torch.randn(20, 3) * 0.7
    inside = gd.Camera.look_at(eyes, eyes + torch.randn(20, 3), fov_deg=60)
    ring = gd.Camera.orbit(2.7, 20 * torch.randn(20), 360 * torch.rand(20), fov_deg=60)
    at_vertices = gd.Camera.look_at(ball.vertices[:20], (0, 0, 0), up=(1.0, 0.3, 0.2), fov_deg=60)
    side = gd.Camera.orbit(2.7, 0, torch.full((20,), 90.0), fov_deg=60)
    cases = {
        "20 cameras in and around a torus, faces across the near plane": (torus, inside),
        "20 cameras in a vertex of a sphere": (ball, at_vertices),
        "faces without area, vertices in one place": (ball.with_vertices(needles), ring),
        "a flat mesh seen edge-on": (ball.with_vertices(flat), side),
        "all vertices in one point": (ball.with_vertices(torch.zeros_like(ball.vertices)), ring),
        "coordinates of 1e10": (ball.with_vertices(ball.vertices * 1e10), ring),
    }
    rows = []
    for what, (mesh, camera) in cases.items():
        row: dict[str, Any] = {"what": what}
        for name, make in (("ours", ours), ("theirs", theirs)):
            image, gradient, *_ = both(make(mesh, camera, 32), mesh.vertices)
            row[f"{name}_image"], row[f"{name}_gradient"] = (int((~x.isfinite()).sum()) for x in (image, gradient))
        row |= {"pixels": image.numel(), "components": gradient.numel()}
        show(row)
        rows.append(row)
    return rows


def masks() -> list[dict]:
    """Share of pixels on which hard masks agree, over 20 random cameras."""
    from pytorch3d import renderer

    torch.manual_seed(0)
    rows = []
    for name, mesh in (("torus", gd.torus()), ("icosphere(3)", gd.icosphere(3))):
        camera = gd.Camera.orbit(1.5 + torch.rand(20), 160 * torch.rand(20) - 80, 360 * torch.rand(20), fov_deg=60)
        settings = renderer.RasterizationSettings(image_size=(96, 128))
        raster = renderer.MeshRasterizer(camera_to_pytorch3d(camera, fov=True), settings)
        peer = raster(to_pytorch3d(mesh).extend(20)).pix_to_face[..., 0] >= 0
        own = gd.rasterize(mesh, camera, (96, 128)).mask
        row = {"mesh": name, "pixels": own.numel(), "covered": int(own.sum()), "different": int((own != peer).sum())}
        show(row)
        rows.append(row)
    return rows


def show(row: dict) -> None:
    print({k: round(v, 9) if isinstance(v, float) else v for k, v in row.items()}, flush=True)


def main() -> None:
    parts = {"speed": speed, "difference": difference, "memory": memory, "hostile": hostile, "masks": masks}
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", choices=[*parts, []], help="which; all where left out")
    parser.add_argument("-o", "--output", type=pathlib.Path)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--growth", nargs=4, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.growth:
        name, *numbers = options.growth
        growth(name, *(int(n) for n in numbers))
        return
    import pytorch3d

    torch.set_num_threads(options.threads)
    result: dict[str, Any] = {}
    if options.output and options.output.exists():
        result = json.loads(options.output.read_text())
    result |= {"simd": cpu.simd_level(), "torch": torch.__version__, "machine": platform.machine()}
    result |= {"pytorch3d": pytorch3d.__version__, "threads": options.threads}
    for name in options.parts or parts:
        result[name] = parts[name]()
    if options.output:
        options.output.write_text(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
