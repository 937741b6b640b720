# SPDX-License-Identifier: Apache-2.0
"""Fitting steps on the pretend device, counted and held against the host's: what ``docs/gpu.md`` has in a table.

``python -m tests.pretend.cases`` prints, as JSON, for each row of it how often the host read from the device and how
often it sent something there in a step that is not the first, and how far gradients are from the host's.
"""

import contextlib
import json
import sys
import traceback
from collections.abc import Callable
from typing import Any

import torch

import geodiff as gd
from geodiff.native.gpu import schedule
from tests.pretend import device

Step = tuple[list[torch.Tensor], Callable[[], torch.Tensor]]
"""Leaves, and a loss of them."""


def random(*shape: int) -> torch.Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(len(shape)))


def leaf(tensor: torch.Tensor, place: str) -> torch.Tensor:
    return tensor.to(place).clone().requires_grad_()


def rendered(
    lights: bool = False, batch: bool = False, tau: str = "", gamma: bool = False, **options: Any
) -> Callable[[str], Step]:
    """A mesh that is moved to look otherwise: all that the renderer's options ask for; τ, too, where it is said."""
    looks = options.pop("looks", {})

    def make(place: str) -> Step:
        mesh = gd.icosphere(0).with_attributes(**{k: v() for k, v in looks.items()}).to(place)
        camera = gd.Camera.orbit(torch.tensor([2.5, 3.0]), 30, torch.tensor([20.0, 50.0]), fov_deg=60).to(place)
        lamps = [gd.AmbientLight(0.3), gd.DirectionalLight((0, 1, 1)), gd.PointLight((1, 2, 3))]
        lamps = [lamp.to(place) for lamp in lamps]
        pair: Any = gd.MeshBatch([mesh, mesh.scaled(0.5)]) if batch else mesh
        vertices = leaf(pair.vertices, place)
        leaves = [vertices] + [leaf(torch.tensor(0.05), "cpu" if tau == "host" else place)] * bool(tau)
        own = {"scale": leaves[-1] if tau else 0.05, **options}
        if gamma:
            leaves.append(leaf(torch.tensor(0.1), place))
            own["gamma"] = leaves[-1]
        render = gd.Renderer((8, 8), **own)

        def loss() -> torch.Tensor:
            out = render(pair.with_vertices(vertices), camera, *([lamps] if lights else []))
            total = out.alpha.square().mean()
            for name in render.outputs:
                image = getattr(out, name)
                if name == "depth":
                    image = torch.where(torch.isfinite(image), image, 0.0)
                if name not in ("alpha", "face_id"):
                    total = total + image.square().mean()
            return total

        return leaves, loss

    return make


def regular(place: str) -> Step:
    mesh = gd.icosphere(1).to(place)
    vertices = leaf(gd.icosphere(1).vertices, place)

    def loss() -> torch.Tensor:
        own = mesh.with_vertices(vertices)
        terms = (gd.losses.laplacian, gd.losses.flatness, gd.losses.normal_consistency, gd.losses.edge_length)
        return sum((term(own) for term in terms), own.sample(20).points.square().mean() * 0)

    return [vertices], loss


def overlap(place: str) -> Step:
    alpha, target = leaf(random(9, 9).sigmoid(), place), (random(9, 9) > 0.5).to(place)
    return [alpha], lambda: gd.losses.iou(alpha, target)


def camera(place: str) -> Step:
    distance, up = leaf(torch.tensor(2.5), place), leaf(torch.tensor(20.0), place)
    points = random(9, 3).to(place)

    def loss() -> torch.Tensor:
        orbit = gd.Camera.orbit(distance, up, 30.0, fov_deg=50)
        looks = gd.Camera.look_at(orbit.position, fov_deg=50)
        return orbit.to_clip(points).square().mean() + looks.project(points).square().mean()

    return [distance, up], loss


def clouds(function: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]) -> Callable[[str], Step]:
    def make(place: str) -> Step:
        x, y = leaf(random(20, 3), place), random(24, 3).flip(0).to(place)
        return [x], lambda: function(x, y)

    return make


def spline(place: str) -> Step:
    net, weights = leaf(random(6, 5, 3), place), leaf(1 + random(6, 5), place)
    u, v = (3 * random(9, 2)).to(place).unbind(1)

    def loss() -> torch.Tensor:
        surface = gd.NURBSSurface(net, weights=weights, degree=(3, 2))
        low, high = surface.domain[0]
        some = surface(low + (high - low) * u / 3, v / 3), surface.grid(4, 5), surface.normal(u / 3, v / 3)[:, 0]
        return sum((part.square().mean() for part in some), torch.zeros(()))

    return [net, weights], loss


def pooled(place: str) -> Step:
    x, pool = leaf(random(1, 2, 6, 6), place), gd.transport.RobustPool2d("welsch", learn_alpha=True).to(place)
    return [x], lambda: pool(x).square().mean()


COLORS: dict[str, Any] = {"vertex_colors": lambda: random(12, 3)}
TEXTURE: dict[str, Any] = {"uv": lambda: random(12, 2), "texture": lambda: random(4, 5, 3)}
MIPMAPS = {**TEXTURE, "texture": lambda: gd.Texture(random(4, 5, 3), mipmaps=True)}
RGB = ("alpha", "rgb")
STEPS: dict[str, Callable[[str], Step]] = {
    "silhouette, faces": rendered(),
    "silhouette, edges": rendered(coverage="edges"),
    "silhouette of a `MeshBatch`": rendered(batch=True),
    "silhouette, τ of the host's learnt": rendered(tau="host"),
    "silhouette, τ of the device's learnt": rendered(tau="device"),
    "contour": rendered(coverage="contour"),
    "contour, τ of the device's learnt": rendered(tau="device", coverage="contour"),
    "colours, unlit": rendered(outputs=RGB, looks=COLORS, background=(0.2, 0.3, 0.4)),
    "colours, τ of the device's learnt": rendered(tau="device", outputs=RGB, looks=COLORS),
    "texture in light, Phong": rendered(True, outputs=RGB, looks=TEXTURE),
    "mip-maps in light": rendered(True, outputs=RGB, looks=MIPMAPS),
    "colours in light, Gouraud": rendered(True, outputs=RGB, looks=COLORS, shading="gouraud"),
    "colours in light of a `MeshBatch`": rendered(True, True, outputs=RGB, looks=COLORS),
    "depth and normals": rendered(outputs=("alpha", "depth", "normal")),
    "hard, with its visibility gradient": rendered(outputs=RGB, looks=COLORS, coverage="hard"),
    "softmax over depth": rendered(outputs=RGB, looks=COLORS, depth="softmax"),
    "sorted depth": rendered(outputs=RGB, looks=COLORS, depth="sort"),
    "soft z-buffer": rendered(outputs=RGB, looks=COLORS, depth="zbuffer"),
    "softmax over depth, τ and γ of the device's learnt": rendered(
        tau="device", gamma=True, outputs=RGB, looks=COLORS, depth="softmax"
    ),
    "penalties of a mesh": regular,
    "`losses.iou`": overlap,
    "`Camera.orbit`, `look_at`": camera,
    "`chamfer`": clouds(gd.chamfer),
    "`sinkhorn`": clouds(lambda x, y: gd.sinkhorn(x, y, epsilon=0.1).cost),
    "`NURBSSurface`, points, grid and normals": spline,
    "`robust_pool`": pooled,
}
NEED = {"hard, with its visibility gradient": "jumps", "softmax over depth": "heaviest"}
"""Kernels that a row needs beside those of the others."""


def measure(make: Callable[[str], Step]) -> dict[str, Any]:
    """Take three steps on either device, the last one without a look."""
    found, watched = {}, []
    for place in ("cpu", "pretend"):
        leaves, loss = make(place)
        optimizer = torch.optim.Adam(leaves, 1e-2)
        recording = gd.Recording()
        for mode in (contextlib.nullcontext, recording.record, recording.replay):
            with mode(), device.watched() as crossings:
                optimizer.zero_grad()
                loss().backward()
                gradients = [leaf.grad.clone() for leaf in leaves if leaf.grad is not None]
                optimizer.step()
            watched.append(crossings)
        found[place] = [device.host(gradient) for gradient in gradients]
    off = max(
        float((a - b).abs().max() / b.abs().max().clamp(min=1e-6))
        for a, b in zip(found["pretend"], found["cpu"], strict=True)
    )
    first, again = watched[-2:]
    counts = {"reads": first.reads, "uploads": first.uploads, "replayed": again.reads + again.uploads}
    return {"off": off, **counts, "where": dict(first), "again": dict(again)}


def main() -> None:
    device.register()
    report: dict[str, Any] = {}
    for name, make in STEPS.items():
        if (sys.argv[1:] and name not in sys.argv[1:]) or NEED.get(name, "rasterize") not in schedule._FILES:
            continue
        try:
            report[name] = measure(make)
        except Exception:
            report[name] = {"error": traceback.format_exc()}
    print(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
