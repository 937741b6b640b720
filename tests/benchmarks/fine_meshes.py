# SPDX-License-Identifier: Apache-2.0
"""Fine, coloured meshes: the colour step and the hard rasteriser, beside DRTK's kernels for the CPU and the twins.

    python tests/benchmarks/fine_meshes.py -o fine.json                  # all parts, ten minutes
    python tests/benchmarks/fine_meshes.py color --threads 1             # one: color, raster, stages, same, memory

Colour step: vertex colours, unlit; forward and backward of Σ rgb², all vertices and colours moving. Ours:
``Renderer(outputs="rgb", coverage=…)``, where it is soft with half a pixel as scale; DRTK's: transform, rasterize,
render, interpolate, edge_grad_estimator, as its documentation has them. Hard raster: faces, depths and barycentrics of
an image, projection included. Contestants take turns in one process, medians; quote the ratios. ``--clock cpu`` counts
the time of processors instead of that of the clock: on a busy machine, with one thread.

DRTK is on no package index: build it from its source. Where ``import drtk`` fails, its columns are left out. The dense
twin takes part where pairs of faces and pixels are few.
"""

import argparse
import json
import pathlib
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import torch

import geodiff as gd
from geodiff import ops
from geodiff.render.view import pack
from tests.benchmarks.report import machine, show

try:
    import drtk
except ImportError:
    drtk = None

Step = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
MESHES: dict[str, Callable[[], gd.Mesh]] = {
    "sphere, 1 280 faces": lambda: gd.icosphere(3),
    "sphere, 20 480": lambda: gd.icosphere(5),
    "sphere, 81 920": lambda: gd.icosphere(6),
    "torus, 100 352": lambda: gd.torus(nu=392, nv=128),
}
SMALL, MIDDLE, FINE, TORUS = MESHES
COLOR = [(SMALL, 512, 1), (MIDDLE, 512, 1), (FINE, 512, 1), (TORUS, 512, 1), (SMALL, 64, 24), (SMALL, 256, 1)]
COLOR += [(SMALL, 64, 1)]  # the dense twin takes part
RASTER = [(SMALL, 512, 1), (FINE, 512, 1), (TORUS, 512, 1), (FINE, 1024, 1), (TORUS, 1024, 1), (SMALL, 64, 24)]
WAYS: dict[str, dict[str, Any]] = {
    "hard": {"coverage": "hard"},
    "antialiased": {"coverage": "antialiased"},
    "contour": {"coverage": "contour", "scale_px": 0.5},
    "faces": {"scale_px": 0.5},
    "softmax": {"coverage": "contour", "scale_px": 0.5, "depth": "softmax"},
}


def scene(name: str, views: int) -> tuple[gd.Mesh, torch.Tensor, gd.Camera]:
    """Return a mesh, colours of its vertices, and one camera or a ring of them."""
    azimuth = 20.0 if views == 1 else torch.arange(views) * (360.0 / views)
    mesh = MESHES[name]()
    colors = 0.5 + 0.5 * torch.sin(5 * mesh.vertices + torch.tensor([0.0, 1.0, 2.0]))
    return mesh, colors, gd.Camera.orbit(2.7, 30.0, azimuth, fov_deg=60.0)


def ours(mesh: gd.Mesh, camera: gd.Camera, size: int, **how: Any) -> Step:
    render = gd.Renderer(size, outputs="rgb", **how)
    return lambda v, c: render(mesh.with_vertices(v).with_attributes(vertex_colors=c), camera).rgb


def to_drtk(camera: gd.Camera, size: int) -> Callable[[torch.Tensor], torch.Tensor]:
    """Return DRTK's map of vertices (V, 3) to pixels: y downwards, pixel centres at whole numbers."""
    half = size / 2
    matrix = torch.zeros(*camera.batch_shape, 3, 3)
    matrix[..., 0, 0], matrix[..., 1, 1], matrix[..., 2, 2] = *(half * camera.focal).unbind(-1), 1.0
    matrix[..., :2, 2] = half - 0.5 + half * camera.principal * torch.tensor([1.0, -1.0])
    pose = torch.cat([camera.rotation, camera.translation[..., None]], dim=-1) * torch.tensor([[1.0], [-1.0], [-1.0]])
    matrix, pose = matrix.reshape(-1, 3, 3), pose.reshape(-1, 3, 4)
    return lambda v: drtk.transform(v.expand(len(pose), *v.shape), K=matrix, Rt=pose)


def drtk_raster(v: torch.Tensor, mesh: gd.Mesh, size: int) -> tuple[torch.Tensor, ...]:
    face = drtk.rasterize(v, mesh.faces_int32, height=size, width=size)
    return face, *drtk.render(v, mesh.faces_int32, face)


def theirs(mesh: gd.Mesh, camera: gd.Camera, size: int) -> Step:
    project = to_drtk(camera, size)

    def image(v: torch.Tensor, c: torch.Tensor) -> torch.Tensor:
        pixels, corners = project(v), mesh.faces_int32
        face, _, barycentric = drtk_raster(pixels, mesh, size)
        img = drtk.interpolate(c.expand(len(pixels), *c.shape), corners, face, barycentric)
        img = img * (face != -1)[:, None]
        return drtk.edge_grad_estimator(v_pix=pixels, vi=corners, bary_img=barycentric, img=img, index_img=face)

    return image


def both(step: Step, vertices: torch.Tensor, colors: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the image and the gradient in the vertices."""
    v, c = vertices.clone().requires_grad_(), colors.clone().requires_grad_()
    image = step(v, c)
    image.square().sum().backward()
    assert v.grad is not None
    return image.detach(), v.grad


def color_steps(name: str, size: int, views: int, twins: bool = False) -> dict[str, Callable[[], Any]]:
    mesh, colors, camera = scene(name, views)
    steps = {way: ours(mesh, camera, size, **how) for way, how in WAYS.items()}
    if drtk is not None:
        steps["drtk"] = theirs(mesh, camera, size)
    if twins and mesh.num_faces * size * size * views < 1e7:
        steps["twin"] = ours(mesh, camera, size, coverage="hard", backend="reference")
    return {way: partial(both, step, mesh.vertices, colors) for way, step in steps.items()}


def raster_steps(name: str, size: int, views: int) -> dict[str, Callable[[], Any]]:
    mesh, _, camera = scene(name, views)
    steps: dict[str, Callable[[], Any]] = {"ours": lambda: gd.rasterize(mesh, camera, size)}
    if drtk is not None:
        project = to_drtk(camera, size)
        steps["drtk"] = torch.no_grad()(lambda: drtk_raster(project(mesh.vertices), mesh, size))
    return steps


class Timer:
    """Medians, or the least, of calls that take turns, at least three each, until the budget of seconds is spent."""

    def __init__(self, clock: str, budget: float, least: bool = False) -> None:
        self.pick: Callable[[list[float]], float] = min if least else statistics.median
        self.now = {"wall": time.perf_counter, "cpu": time.process_time}[clock]
        self.budget = budget

    def turns(self, calls: dict[str, Callable[[], Any]]) -> dict[str, float]:
        times: dict[str, list[float]] = {name: [] for name in calls}
        for call in calls.values():
            call()
        began = time.perf_counter()
        while min(map(len, times.values())) < 3 or time.perf_counter() - began < self.budget:
            for name, call in calls.items():
                start = self.now()
                call()
                times[name].append(1e3 * (self.now() - start))
        return {f"{name}_ms": self.pick(values) for name, values in times.items()}

    def table(self, steps: Callable[..., dict], rows: list[tuple[str, int, int]], threads: list[int]) -> list[dict]:
        found = []
        for name, size, views in rows:
            for count in threads:
                torch.set_num_threads(count)
                row = {"mesh": name, "size": size, "views": views, "threads": count}
                row |= self.turns(steps(name, size, views))
                show(row)
                found.append(row)
        return found


def stages(timer: Timer, threads: list[int]) -> list[dict]:
    """Where the time of the hard colour step goes, with the sphere of 81 920 faces: each op alone, and the whole."""
    mesh, colors, camera = scene(FINE, 1)
    size = (512, 512)
    packed = pack("benchmark", mesh, camera, size).packed
    found = ops.visible(*packed, image_size=size)
    face_id = torch.full((1, *size), -1)
    face_id.view(-1)[found.place] = found.face_id
    corners = mesh.faces_int32[found.face_id]
    alpha, black = (face_id.reshape(-1) >= 0).float(), torch.zeros(1, 3)
    color = ops.blend(colors, corners, found.barycentric)

    def gradient(make: Callable[..., torch.Tensor], *leaves: torch.Tensor) -> None:
        given = [leaf.detach().clone().requires_grad_() for leaf in leaves]
        made = make(*given)
        made.backward(torch.ones_like(made))

    calls: dict[str, Callable[[], Any]] = {
        "projection": lambda: gradient(lambda v: camera.to_clip(v), mesh.vertices),
        "visible": lambda: ops.visible(*packed, image_size=size),
        "visible, backward too": lambda: gradient(
            lambda clip: ops.visible(clip, *packed[1:], image_size=size).barycentric, packed[0]
        ),
        "blend": lambda: gradient(lambda c, w: ops.blend(c, corners, w), colors, found.barycentric),
        "composite": lambda: gradient(lambda c: ops.composite(alpha, c, found.place, black), color),
        "jumps": lambda: ops.jumps(*packed, face_id, edges=mesh.topology.edge_cycles),
        "whole": color_steps(FINE, *size[:1], 1)["hard"],
    }
    rows = []
    for count in threads:
        torch.set_num_threads(count)
        row = {"threads": count, **timer.turns(calls)}
        show(row)
        rows.append(row)
    return rows


def same() -> list[dict]:
    """Whether both draw the same picture, and how alike their gradients are."""
    rows = []
    if drtk is None:
        print("DRTK is not installed")
        return rows
    for name, size, views in COLOR:
        mesh, colors, camera = scene(name, views)
        image, gradient = both(ours(mesh, camera, size, coverage="hard"), mesh.vertices, colors)
        other, slope = both(theirs(mesh, camera, size), mesh.vertices, colors)
        face = drtk_raster(to_drtk(camera, size)(mesh.vertices), mesh, size)[0]
        differ = (face != gd.rasterize(mesh, camera, size).face_id.reshape(face.shape)).float().mean()
        gap = (image.reshape(-1, size, size, 3) - other.movedim(1, -1)).abs().amax(dim=-1)
        row = {"mesh": name, "size": size, "views": views, "faces_that_differ": float(differ)}
        row |= {"largest_difference": float(gap.max()), "pixels_over_1e_3": float((gap > 1e-3).float().mean())}
        row["cosine"] = float(torch.nn.functional.cosine_similarity(gradient.flatten(), slope.flatten(), dim=0))
        grown = mesh.vertices / mesh.vertices.norm(dim=1, keepdim=True)  # a motion of all vertices, ours over theirs
        row["growing"] = float((gradient * grown).sum() / (slope * grown).sum())
        show(row)
        rows.append(row)
    return rows


def resident(key: str) -> float:
    """MB of this process (Linux): VmRSS now, VmHWM at its peak."""
    lines = pathlib.Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(key)) / 1024


def held(way: str, name: str, size: int, views: int) -> None:
    """Print MB at the peak of one step over what was held before, and what twenty more leave."""
    torch.set_num_threads(1)
    call = color_steps(name, size, views, twins=True)[way]
    before = resident("VmRSS")
    call()
    peak, after = resident("VmHWM") - before, resident("VmRSS")
    for _ in range(20 if way != "twin" else 1):
        call()
    print(json.dumps({"mb": peak, "growth_mb": resident("VmRSS") - after}))


def memory() -> list[dict]:
    rows = []
    for name, size, views in COLOR:
        for way in (
            "hard",
            "antialiased",
            "contour",
            *(["drtk"] if drtk else []),
            *(["twin"] if (size, views) == (64, 1) else []),
        ):
            task = [sys.executable, __file__, "--held", way, name, str(size), str(views)]
            found = json.loads(subprocess.run(task, capture_output=True, text=True, check=True).stdout.splitlines()[-1])
            rows.append({"mesh": name, "size": size, "views": views, "way": way, **found})
            show(rows[-1])
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", default=["color", "raster", "stages", "same", "memory"])
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--ways", nargs="+", default=[*WAYS, "twin"], help="of ours, in `color`")
    parser.add_argument("--clock", choices=["wall", "cpu"], default="wall")
    parser.add_argument("--least", action="store_true", help="the least of all turns: several threads, a busy machine")
    parser.add_argument("--budget", type=float, default=8.0, help="seconds a row")
    parser.add_argument("-o", "--output", type=pathlib.Path, help="parts that were not asked for stay in the file")
    parser.add_argument("--held", nargs=4, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.held:
        way, name, size, views = options.held
        return held(way, name, int(size), int(views))
    timer = Timer(options.clock, options.budget, options.least)
    kept = ("drtk", *options.ways)

    def color_rows(*row: Any) -> dict[str, Callable[[], Any]]:
        return {way: step for way, step in color_steps(*row, twins=True).items() if way in kept}

    parts: dict[str, Callable[[], list[dict]]] = {
        "color": lambda: timer.table(color_rows, COLOR, options.threads),
        "raster": lambda: timer.table(raster_steps, RASTER, options.threads),
        "stages": lambda: stages(timer, options.threads),
        "same": same,
        "memory": memory,
    }
    result: dict[str, Any] = {}
    if options.output and options.output.exists():
        result = json.loads(options.output.read_text())
    result |= machine() | {"clock": options.clock, "least": options.least, "drtk": getattr(drtk, "__version__", None)}
    for part in options.parts:
        print(f"--- {part}", flush=True)
        result[part] = parts[part]()
    if options.output:
        options.output.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
