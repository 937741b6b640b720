# SPDX-License-Identifier: Apache-2.0
"""What colour costs beside the silhouette alone, in one run.

    python tests/benchmarks/shading.py -o shading.json      # all parts
    python tests/benchmarks/shading.py color                # one: color, alone, tiny, softmax, stages

Setting: icosphere at distance 2.7, field of view 60°, 256², a texture of 512², ambient and directional light, Phong.
Forward + backward of Σ rgb² (Σ alpha²) in vertices and texture. Contestants take turns, so that a busy machine slows
all of them. Quote the ratios: single times depend on the machine.
"""

import argparse
import json
import math
import pathlib
import platform
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

import torch

import geodiff as gd
from geodiff import ops
from geodiff.native import cpu
from geodiff.render.view import pack

SIZE = 256
MODELS = (("logistic", 1e-2), ("logistic", 1e-3), ("logistic.squared", 1e-4))
WAYS: dict[str, dict[str, Any]] = {
    "alpha": {},
    "hard": {"outputs": "rgb"},
}


def turns(calls: dict[str, Callable[[], Any]], budget: float = 6.0, most: int = 25) -> dict[str, float]:
    """Median wall time of each call in milliseconds; they take turns, at least 3 each."""
    times: dict[str, list[float]] = {name: [] for name in calls}
    for call in calls.values():
        call()
    began = time.perf_counter()
    for turn in range(most):
        if turn >= 3 and time.perf_counter() - began > budget:
            break
        for name, call in calls.items():
            start = time.perf_counter()
            call()
            times[name].append(time.perf_counter() - start)
    return {name: 1e3 * statistics.median(values) for name, values in times.items()}


def textured(level: int) -> gd.Mesh:
    mesh = gd.icosphere(level)
    x, y, z = mesh.vertices.unbind(1)
    uv = torch.stack([torch.atan2(x, z) / (2 * math.pi) + 0.5, y.clamp(-1, 1).asin() / math.pi + 0.5], dim=1)
    return mesh.with_attributes(uv=uv, texture=torch.rand(512, 512, 3))


def color(
    threads: int,
    size: int = SIZE,
    levels: Sequence[int] = (3, 4, 5),
    ways: Sequence[str] = tuple(WAYS),
    models: Sequence[tuple[str, float]] = MODELS,
) -> list[dict]:
    torch.set_num_threads(threads)
    rows = []
    eye = gd.Camera.orbit(2.7, 30, 20, fov_deg=60)
    lights = [gd.AmbientLight(0.3), gd.DirectionalLight((1, 1, 1), 0.7)]
    for level in levels:
        mesh = textured(level)
        image = mesh.texture.image.clone().requires_grad_()
        for law, tau in models:

            def both(way: str, law: str = law, tau: float = tau, mesh: gd.Mesh = mesh, image: torch.Tensor = image):
                render = gd.Renderer(size, law, tau, **WAYS[way])
                image.grad = None  # as optimisers leave it: nothing is added up from step to step
                vertices = mesh.vertices.clone().requires_grad_()
                if way == "alpha":
                    render(mesh.with_vertices(vertices), eye).alpha.square().sum().backward()
                else:
                    own = mesh.with_attributes(texture=image).with_vertices(vertices)
                    render(own, eye, lights).rgb.square().sum().backward()

            times = turns({way: lambda way=way: both(way) for way in ways})
            row = {"faces": mesh.num_faces, "size": size, "distribution": law, "tau": tau, "threads": threads}
            row |= {f"{way}_ms": value for way, value in times.items()}
            row |= {f"{way}_ratio": times[way] / times["alpha"] for way in ways if way != "alpha"}
            print(json.dumps(row), flush=True)
            rows.append(row)
    return rows


def alone(threads: int) -> list[dict]:
    """The dearest of these settings, five times, where only alpha and hard depth take turns: caches stay warm."""
    return [row for _ in range(5) for row in color(threads, SIZE, (3,), ("alpha", "hard"), MODELS[1:2])]


def tiny(threads: int) -> list[dict]:
    """The same at 16²: what a call costs whatever the number of pixels."""
    return color(threads, 16, (3,))


def softmax(threads: int) -> list[dict]:
    """Softmax depth beside hard depth: CPU time of one thread, the least of several turns."""
    torch.set_num_threads(1)
    eye, rows = gd.Camera.orbit(2.6, 20, 30, fov_deg=50), []
    kinds: dict[str, dict[str, Any]] = {"hard": {}} | {
        f"softmax_{k}": {"depth": "softmax", "max_fragments": k} for k in (8, None)
    }
    for level, size, tau in ((3, 64, 1e-3), (3, 256, 1e-3), (3, 256, 1e-4), (5, 256, 1e-3), (5, 256, 1e-4)):
        ball = gd.icosphere(level)
        mesh = ball.with_attributes(vertex_colors=torch.rand(ball.num_vertices, 3))
        row: dict[str, Any] = {"faces": ball.num_faces, "size": size, "tau": tau}
        for both in (False, True):
            for name, options in kinds.items():
                render = gd.Renderer(size, scale=tau, outputs="rgb", **options)
                times = []
                for _ in range(7):
                    vertices = ball.vertices.clone().requires_grad_(both)
                    start = time.process_time()
                    loss = render(mesh.with_vertices(vertices), eye).rgb.square().mean()
                    if both:
                        loss.backward()
                    times.append(time.process_time() - start)
                row[f"{name}_{'both' if both else 'forward'}_ms"] = 1e3 * min(times)
        print(json.dumps(row), flush=True)
        rows.append(row)
    return rows


def stages(threads: int) -> list[dict]:
    """Where the time of the hard Phong image goes, forward and backward."""
    torch.set_num_threads(threads)
    mesh, eye = textured(3), gd.Camera.orbit(2.7, 30, 20, fov_deg=60)
    clip, faces, layout = pack("benchmark", mesh, eye, (1, 1)).packed
    size = (SIZE, SIZE)
    found = ops.visible(clip, faces, layout, blur=0.016, image_size=size)
    corners = mesh.faces[found.face_id]
    row, kind, none = torch.rand(1, 19), torch.zeros(1, dtype=torch.int32), torch.zeros(0, dtype=torch.int32)
    white = torch.ones(1, 3)
    assert mesh.uv is not None and mesh.texture is not None
    leaves = {
        "clip": clip,
        "uv": mesh.uv,
        "frame": torch.cat([mesh.vertices, mesh.vertex_normals], dim=1),
        "weight": found.barycentric,
        "texture": mesh.texture.image[None],
        "alpha": torch.rand(SIZE * SIZE),
        "color": torch.rand(len(found.place), 3),
        "vertices": mesh.vertices,
    }
    leaves = {name: value.detach().clone().requires_grad_() for name, value in leaves.items()}

    def visible(blur: float = 0.016) -> torch.Tensor:
        return ops.visible(leaves["clip"], faces, layout, blur=blur, image_size=size).barycentric

    def surface() -> torch.Tensor:
        uv, frame, weight, texture = (leaves[name] for name in ("uv", "frame", "weight", "texture"))
        return ops.surface(uv, corners, frame, corners, weight, none, row, kind, texture)

    parts = {
        "silhouette": lambda: ops.silhouette(leaves["clip"], faces, layout, scale=1e-3, image_size=size),
        "visible faces": visible,
        "of these without rim": lambda: visible(0.0),
        "normals of the vertices": lambda: mesh.with_vertices(leaves["vertices"]).vertex_normals,
        "texture and light": surface,
        "over the background": lambda: ops.composite(leaves["alpha"], leaves["color"], found.place, white),
    }

    def both(make: Callable[[], torch.Tensor]) -> None:
        for leaf in leaves.values():
            leaf.grad = None
        out = make()
        out.backward(torch.ones_like(out))

    forward = turns(parts, budget=2.0)
    whole = turns({name: lambda make=make: both(make) for name, make in parts.items()}, budget=2.0)
    rows = [{"stage": name, "threads": threads, "forward_ms": forward[name], "both_ms": whole[name]} for name in parts]
    for r in rows:
        print(json.dumps({**r, "hits": len(found.place)}), flush=True)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parts = {"color": color, "alone": alone, "tiny": tiny, "softmax": softmax, "stages": stages}
    parser.add_argument("parts", nargs="*", choices=[*parts, []], help="which; all where left out")
    parser.add_argument("-o", "--output", type=pathlib.Path)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    result: dict[str, Any] = {"simd": cpu.simd_level(), "torch": torch.__version__, "machine": platform.machine()}
    for name in options.parts or parts:
        result[name] = parts[name](options.threads)
    if options.output:
        options.output.write_text(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
