# SPDX-License-Identifier: Apache-2.0
"""How fast the soft silhouette is, beside the dense torch twin and (where installed) PyTorch3D, in one run.

    python tests/benchmarks/silhouette.py -o silhouette.json      # all parts
    python tests/benchmarks/silhouette.py sizes                   # one: sizes, growth, family, clock

Setting: logistic squared (SoftRas), τ = 1e-4, probabilistic sum; icosphere at distance 2.7, field of view 60°. Medians
of repeated calls after a warm-up, forward and forward + backward of Σ alpha². Quote the ratios: single times depend on
the machine. PyTorch3D runs with the same σ, its own cut-off at probability 1e-4 and K = 50 faces a pixel.
"""

import argparse
import json
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
from geodiff import ops, reference
from geodiff.native import cpu
from geodiff.render.view import pack

TAU = 1e-4
DENSE_PAIRS = 6e6  # the most the twin is asked for; --dense raises it (1e8 pairs: a minute a call)
limits = {"dense": DENSE_PAIRS}
SIZES = [(3, 64, 1), (3, 64, 24), (3, 256, 1), (3, 512, 1), (5, 64, 1), (5, 64, 24), (5, 256, 1), (5, 512, 1)]


def scene(level: int, views: int) -> tuple[gd.Mesh, gd.Camera]:
    azimuths = torch.arange(views, dtype=torch.float32) * (360 / views)
    return gd.icosphere(level), gd.Camera.orbit(distance=2.7, elevation_deg=0, azimuth_deg=azimuths, fov_deg=60)


def median_ms(call: Callable[[], Any], budget: float = 1.0, most: int = 25) -> float:
    """Median wall time of a call in milliseconds; as many calls as `budget` seconds allow, at least 3."""
    call()
    times: list[float] = []
    while len(times) < 3 or (sum(times) < budget and len(times) < most):
        began = time.perf_counter()
        call()
        times.append(time.perf_counter() - began)
    return 1e3 * statistics.median(times)


def timings(alpha: Callable[[torch.Tensor], torch.Tensor], vertices: torch.Tensor, **how: Any) -> tuple[float, float]:
    """Forward, and forward + backward."""

    def both() -> None:
        v = vertices.clone().requires_grad_()
        alpha(v).square().sum().backward()

    with torch.no_grad():
        forward = median_ms(lambda: alpha(vertices), **how)
    return forward, median_ms(both, **how)


def kernel_row(level: int, size: int, views: int, threads: int, distribution: str, tconorm: str, tau: float) -> dict:
    mesh, camera = scene(level, views)
    render = gd.Renderer(size, distribution=distribution, scale=tau, tconorm=tconorm)
    torch.set_num_threads(threads)
    forward, both = timings(lambda v: render(mesh.with_vertices(v), camera).alpha, mesh.vertices)
    clip, faces, layout = pack("benchmark", mesh, camera, (1, 1)).packed
    pairs = ops.count_pairs(
        clip, faces, layout, distribution=distribution, tconorm=tconorm, scale=tau, image_size=(size, size)
    )
    count = int(pairs.sum())
    return {
        "faces": mesh.num_faces,
        "size": size,
        "views": views,
        "threads": threads,
        "pairs": count,
        "forward_ms": forward,
        "both_ms": both,
        "ns_per_pair": 1e6 * both / max(count, 1),
    }


def dense_ms(level: int, size: int, views: int, threads: int) -> tuple[float, float] | None:
    mesh, camera = scene(level, views)
    if size * size * views * mesh.num_faces > limits["dense"]:
        return None
    torch.set_num_threads(threads)
    model = {"distribution": "logistic.squared", "tconorm": "probabilistic", "scale": TAU, "image_size": (size, size)}

    def alpha(v: torch.Tensor) -> torch.Tensor:
        clip, faces, layout = pack("benchmark", mesh.with_vertices(v), camera, (1, 1)).packed
        return reference.silhouette(clip, faces, layout, **model)

    return timings(alpha, mesh.vertices, budget=0.0)


def pytorch3d_ms(level: int, size: int, views: int, threads: int) -> tuple[float, float] | None:
    try:
        from pytorch3d.renderer import (  # type: ignore[import-not-found]
            BlendParams,
            FoVPerspectiveCameras,
            MeshRasterizer,
            RasterizationSettings,
            SoftSilhouetteShader,
            look_at_view_transform,
        )
        from pytorch3d.structures import Meshes  # type: ignore[import-not-found]
    except ImportError:
        return None
    torch.set_num_threads(threads)
    mesh, _ = scene(level, views)
    azimuths = torch.arange(views, dtype=torch.float32) * (360 / views)
    rotation, translation = look_at_view_transform(2.7, 0, azimuths)
    cameras = FoVPerspectiveCameras(R=rotation, T=translation, fov=60)
    blur = float(torch.log(torch.tensor(1 / 1e-4 - 1)) * TAU)
    settings = RasterizationSettings(image_size=size, blur_radius=blur, faces_per_pixel=50)
    raster = MeshRasterizer(cameras=cameras, raster_settings=settings)
    shader = SoftSilhouetteShader(blend_params=BlendParams(sigma=TAU))

    def alpha(v: torch.Tensor) -> torch.Tensor:
        meshes = Meshes([v], [mesh.faces]).extend(views)
        return shader(raster(meshes), meshes)[..., 3]

    return timings(alpha, mesh.vertices, budget=1.0, most=3)


def sizes(threads: list[int]) -> list[dict]:
    rows = []
    for level, size, views in SIZES:
        for n in threads:
            row = kernel_row(level, size, views, n, "logistic.squared", "probabilistic", TAU)
            for name, peer in (("dense", dense_ms), ("pytorch3d", pytorch3d_ms)):
                got = peer(level, size, views, n)
                row |= {f"{name}_both_ms": got and got[1], f"{name}_ratio": got and got[1] / row["both_ms"]}
            show(row)
            rows.append(row)
    return rows


def growth(threads: list[int]) -> list[dict]:
    """Nanoseconds a pair as faces grow 64-fold at 512²: constant if time follows the pairs, not pixels × faces."""
    rows = [kernel_row(level, 512, 1, threads[-1], "logistic.squared", "probabilistic", TAU) for level in (3, 4, 5, 6)]
    for row in rows:
        row["times_first"] = row["ns_per_pair"] / rows[0]["ns_per_pair"]
        show(row)
    return rows


def matching_scale(distribution: str, tconorm: str, pairs: int) -> float:
    """Bisect for the τ at which a member evaluates about so many pairs."""
    mesh, camera = scene(3, 1)
    clip, faces, layout = pack("benchmark", mesh, camera, (1, 1)).packed
    low, high = 1e-6, 1.0
    for _ in range(16):
        middle = (low * high) ** 0.5
        model = {"distribution": distribution, "tconorm": tconorm, "scale": middle, "image_size": (256, 256)}
        if int(ops.count_pairs(clip, faces, layout, **model).sum()) < pairs:
            low = middle
        else:
            high = middle
    return low if high > 0.9 else high


def family(threads: list[int]) -> list[dict]:
    """Every distribution and T-conorm beside logistic + probabilistic.

    Each with the τ that gives it the base's number of pairs, so that a ratio compares like with like. Heavy tails reach
    over the whole image whatever τ, and laws that live inside the face have fewer pairs: their pairs say so.
    """
    base = None
    rows = []
    members = [("logistic", "probabilistic")]
    members += [(name, "probabilistic") for name in gd.soft.DISTRIBUTIONS if name not in ("logistic", "heaviside")]
    members += [
        ("gamma(2)", "probabilistic"),
        ("gamma(0.5).reversed", "probabilistic"),
        ("gamma(3.3).reversed", "probabilistic"),
        ("exponential.reversed", "probabilistic"),
        ("gamma(3.3)", "probabilistic"),
    ]
    members += [("logistic", name) for name in gd.soft.TCONORMS if name != "probabilistic"]
    for distribution, tconorm in members:
        row = {"distribution": distribution, "tconorm": tconorm}
        row["scale"] = 2e-3 if base is None else matching_scale(distribution, tconorm, base["pairs"])
        row |= kernel_row(3, 256, 1, threads[-1], distribution, tconorm, row["scale"])
        base = base or row
        row["times_logistic"] = row["both_ms"] / base["both_ms"]
        row["times_logistic_a_pair"] = row["ns_per_pair"] / base["ns_per_pair"]
        show(row)
        rows.append(row)
    return rows


def clock(threads: list[int]) -> list[dict]:
    """The user's clock: 100 Adam steps on 24 views of 64², 642 vertices, IoU + Laplacian + flatness."""
    rows = []
    for n in threads:
        torch.set_num_threads(n)
        mesh, camera = scene(3, 24)
        target = gd.rasterize(mesh.scaled(0.7), camera, 64).mask.float()
        render = gd.Renderer(64, distribution="logistic.squared", scale=TAU)

        def fit(mesh=mesh, camera=camera, target=target, render=render) -> None:
            v = mesh.vertices.clone().requires_grad_()
            adam = torch.optim.Adam([v], lr=0.01)
            for _ in range(100):
                now = mesh.with_vertices(v)
                loss = gd.losses.iou(render(now, camera).alpha, target)
                loss = (
                    loss
                    + 0.03 * gd.losses.laplacian(now, reduction="sum")
                    + 0.0003 * gd.losses.flatness(now, reduction="sum")
                )
                adam.zero_grad()
                loss.backward()
                adam.step()

        row = {"threads": n, "seconds_100_steps": median_ms(fit, budget=6.0, most=5) / 1e3}
        show(row)
        rows.append(row)
    return rows


def memory() -> list[dict]:
    """Peak memory of a fresh process (Linux), beside that of one that only imports."""
    code = (
        "import sys, torch, geodiff as gd\n"
        "level, size = int(sys.argv[1]), int(sys.argv[2])\n"
        "mesh = gd.icosphere(max(level, 0)); camera = gd.Camera.orbit(2.7, 0, 0.0, fov_deg=60)\n"
        "v = mesh.vertices.clone().requires_grad_()\n"
        "r = gd.Renderer(size, distribution='logistic.squared', scale=1e-4)\n"
        "if level >= 0: r(mesh.with_vertices(v), camera).alpha.square().sum().backward()\n"
        "print(next(int(l.split()[1]) for l in open('/proc/self/status') if l.startswith('VmHWM')) / 1024)\n"
    )
    rows = []
    for level, size in ((-1, 8), (3, 512), (5, 512), (5, 1024)):
        done = subprocess.run([sys.executable, "-c", code, str(level), str(size)], capture_output=True, text=True)
        rows.append({"level": level, "size": size, "peak_mb": float(done.stdout)})
        show(rows[-1])
    return rows


def show(row: dict) -> None:
    print({k: round(v, 3) if isinstance(v, float) else v for k, v in row.items()}, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", default=["sizes", "growth", "family", "clock", "memory"])
    parser.add_argument("--dense", type=float, default=DENSE_PAIRS, help="most pairs asked of the twin")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("-o", "--output", type=pathlib.Path)
    options = parser.parse_args()
    limits["dense"] = options.dense
    result: dict[str, Any] = {
        "machine": platform.processor() or platform.machine(),
        "simd": cpu.simd_level(),
        "torch": torch.__version__,
        "geodiff": gd.__version__,
    }
    for part in options.parts:
        print(f"--- {part}", flush=True)
        run = {"sizes": sizes, "growth": growth, "family": family, "clock": clock}.get(part)
        result[part] = run(options.threads) if run else memory()
    if options.output:
        options.output.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
