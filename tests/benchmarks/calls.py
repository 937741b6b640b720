# SPDX-License-Identifier: Apache-2.0
"""What a call costs: images and lists so small that next to nothing is computed.

    python tests/benchmarks/calls.py

Least CPU time of many turns on one thread, in milliseconds, which the load of the machine moves least. Icospheres of
80 and 1 280 faces at distance 2.6, 16², logistic, τ = 0.02; "forward" is a call without gradient, "both" is one of new
vertices with backward, of the mean square. And what a process pays before its first fit, beyond `import torch`.
"""

import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from typing import Any

import torch

import geodiff as gd
from geodiff import ops

TURNS = 300
LIGHTS = [gd.AmbientLight(0.3), gd.DirectionalLight((1.0, 2.0, 3.0), 0.7)]
IMPORTS = """
import time, torch
start = time.process_time()
{}
print(1e3 * (time.process_time() - start))
"""


def least(call: Callable[[], Any]) -> float:
    """Least CPU time of a call, milliseconds."""
    call()
    best = float("inf")
    for _ in range(TURNS):
        start = time.process_time()
        call()
        best = min(best, time.process_time() - start)
    return 1e3 * best


def renderers(level: int) -> None:
    ball, camera = gd.icosphere(level), gd.Camera.orbit(2.6, 20.0, 30.0, fov_deg=50)
    mesh = ball.with_attributes(vertex_colors=torch.rand(ball.num_vertices, 3))
    vertices = ball.vertices.clone().requires_grad_()
    for name, outputs, lights in (("alpha", (), None), ("rgb, unlit", "rgb", None), ("rgb, Phong", "rgb", LIGHTS)):
        render = gd.Renderer(16, scale=0.02, outputs=outputs)

        def image(mesh: gd.Mesh, render: gd.Renderer = render, lights: Any = lights) -> torch.Tensor:
            out = render(mesh, camera, lights)
            return out.rgb if "rgb" in render.outputs else out.alpha

        def both(image: Callable[[gd.Mesh], torch.Tensor] = image) -> None:
            image(mesh.with_vertices(vertices)).square().mean().backward()
            vertices.grad = None

        times = least(lambda i=image: i(mesh)), least(both)  # type: ignore[misc]
        print(f"{ball.num_faces:5d} faces, {name:12s} forward {times[0]:6.3f}, both {times[1]:6.3f}")


def lists() -> None:
    values, index, weight = torch.rand(50, 5).requires_grad_(), torch.randint(50, (10, 3)), torch.rand(10, 3)
    knots, u = torch.tensor([0.0, 0, 0, 0, 0.2, 0.5, 0.7, 1, 1, 1, 1]), torch.rand(10)
    control, points = torch.rand(7, 7, 4).add_(0.5).requires_grad_(), torch.rand(10, 3)
    calls: dict[str, Callable[[], torch.Tensor]] = {
        "blend": lambda: ops.blend(values, index, weight),
        "spline": lambda: ops.spline(control, [knots, knots], [u, u], [3, 3], rational=True),
        "lse": lambda: ops.lse(points, points, torch.zeros(10), 0.1),
    }
    for name, call in calls.items():
        grad = call().requires_grad
        both = f", both {least(lambda c=call: c().sum().backward()):6.3f}" if grad else ""
        print(f"{name} of 10 points: forward {least(call):6.3f}{both}")


def imports() -> None:
    for code in ("import geodiff.tasks", "from geodiff.tasks import fit_mesh"):
        runs = [
            subprocess.run([sys.executable, "-c", IMPORTS.format(code)], capture_output=True, text=True)
            for _ in "12345"
        ]
        print(f"{code}: {min(float(run.stdout) for run in runs):6.1f} after torch")


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    for level in (1, 3):
        renderers(level)
    lists()
    imports()
