# SPDX-License-Identifier: Apache-2.0
"""Things moved by colour alone, in front of others: where an outline knows nothing, and hidden edges do.

    python demos/hidden_edges.py -o out [--quick]

Three scenes whose outer silhouette says nothing, since a wall fills the picture: a cube behind a bar, a hand before a
body, two balls that go through each other. A thing has been moved; the same descent on the mean squared error of
colours brings it back, or not, with each coverage. The picture shows where it ended from one start; table.txt says how
far off that is, from several (the first one with other signs).
"""

import argparse
import math
import pathlib
import time
from collections.abc import Callable

import matplotlib
import torch

import geodiff as gd

matplotlib.use("Agg")
import matplotlib.pyplot as plt

CAMERA = gd.Camera.look_at((0.0, 0.0, 4.0), (0.0, 0.0, 0.0), fov_deg=40.0)
LIGHTS = [gd.AmbientLight(0.45), gd.DirectionalLight((0.5, 0.8, 1.0), 0.55)]
WAYS = {
    "faces": {"coverage": "faces", "scale_px": 0.5},
    "contour": {"coverage": "contour", "scale_px": 0.5},
    "softmax depth": {"coverage": "faces", "scale_px": 0.5, "depth": "softmax"},
    "antialiased": {"coverage": "antialiased"},
    "hard": {"coverage": "hard"},
}


def painted(mesh: gd.Mesh, color: tuple[float, float, float]) -> gd.Mesh:
    """Give all vertices one colour."""
    return gd.Mesh(mesh.vertices, mesh.faces, vertex_colors=torch.tensor(color).expand(len(mesh.vertices), 3))


def joined(*meshes: gd.Mesh) -> gd.Mesh:
    """Put coloured meshes into one."""
    starts = [0]
    for mesh in meshes:
        starts.append(starts[-1] + len(mesh.vertices))
    return gd.Mesh(
        torch.cat([mesh.vertices for mesh in meshes]),
        torch.cat([mesh.faces + start for mesh, start in zip(meshes, starts, strict=False)]),
        vertex_colors=torch.cat([mesh.vertex_colors for mesh in meshes]),
    )


def stretched(mesh: gd.Mesh, scale: tuple[float, float, float], at: tuple[float, float, float]) -> gd.Mesh:
    """Scale a mesh along the axes, and put it somewhere."""
    return mesh.with_vertices(mesh.vertices * torch.tensor(scale) + torch.tensor(at))


def turned(vertices: torch.Tensor, vector: torch.Tensor) -> torch.Tensor:
    """Turn about an axis by its length in radians."""
    x, y, z = vector.unbind()
    zero = torch.zeros_like(x)
    skew = torch.stack([torch.stack([zero, -z, y]), torch.stack([z, zero, -x]), torch.stack([-y, x, zero])])
    return vertices @ torch.linalg.matrix_exp(skew).T


def finger(start: tuple[float, float], angle_deg: float, length: float, radius: float) -> gd.Mesh:
    """A longish ball from a place on the palm, in a direction."""
    ball = gd.icosphere(2)
    angle = math.radians(angle_deg)
    along = torch.tensor([math.sin(angle), math.cos(angle), 0.0])
    v = ball.vertices * torch.tensor([radius, length / 2, radius])
    v = turned(v, torch.tensor([0.0, 0.0, -angle]))
    return ball.with_vertices(v + along * length / 2 + torch.tensor([start[0], start[1], 0.0]))


def hand() -> gd.Mesh:
    """A palm, four fingers and a thumb."""
    skin = (0.86, 0.62, 0.47)
    parts = [stretched(gd.icosphere(2), (0.26, 0.30, 0.1), (0.0, 0.0, 0.0))]
    for i, length in enumerate((0.46, 0.54, 0.52, 0.40)):
        parts.append(finger((-0.18 + 0.12 * i, 0.18), -12 + 8 * i, length, 0.065))
    parts.append(finger((0.18, -0.08), 58, 0.42, 0.075))
    return joined(*(painted(part, skin) for part in parts))


WALL = painted(stretched(gd.box(), (4.0, 4.0, 0.1), (0.0, 0.0, -1.4)), (0.55, 0.6, 0.66))


def cube_behind_a_bar() -> tuple[Callable[[torch.Tensor], gd.Mesh], torch.Tensor]:
    """A cube that slides (two numbers) and turns about the line of sight (one)."""
    bar = painted(stretched(gd.box(), (4.0, 0.3, 0.1), (0.0, 0.1, 0.6)), (0.2, 0.45, 0.35))
    cube = painted(stretched(gd.box(), (1.2, 0.9, 1.0), (0.0, 0.0, 0.0)), (0.85, 0.3, 0.2))

    def scene(state: torch.Tensor) -> gd.Mesh:
        turn = torch.cat([state.new_zeros(2), state[2:]])
        place = torch.cat([state[:2], state.new_full((1,), -0.5)])
        return joined(WALL, bar, cube.with_vertices(turned(cube.vertices, turn) + place))

    return scene, torch.tensor([0.42, -0.25, 0.4])


def hand_before_a_body() -> tuple[Callable[[torch.Tensor], gd.Mesh], torch.Tensor]:
    """A hand that moves (three numbers) and turns (three), before a shirt and a face of its own colour."""
    body = painted(stretched(gd.icosphere(4), (1.1, 1.3, 0.4), (0.0, -0.9, -0.7)), (0.2, 0.35, 0.55))
    head = painted(stretched(gd.icosphere(4), (0.42, 0.52, 0.42), (0.0, 0.75, -0.7)), (0.86, 0.62, 0.47))
    palm = hand()

    def scene(state: torch.Tensor) -> gd.Mesh:
        place = state[:3] + torch.tensor([0.0, -0.1, 0.4])
        return joined(WALL, body, head, palm.with_vertices(turned(palm.vertices, state[3:]) + place))

    return scene, torch.tensor([-0.2, -0.12, 0.1, 0.15, 0.15, 0.3])


def balls_through_each_other() -> tuple[Callable[[torch.Tensor], gd.Mesh], torch.Tensor]:
    """Two balls; one moves (three numbers), and the circle in which they meet with it."""
    left = painted(stretched(gd.icosphere(4), (0.6, 0.6, 0.6), (-0.3, 0.0, 0.0)), (0.9, 0.75, 0.25))
    right = painted(stretched(gd.icosphere(4), (0.55, 0.55, 0.55), (0.0, 0.0, 0.0)), (0.25, 0.45, 0.8))

    def scene(state: torch.Tensor) -> gd.Mesh:
        return joined(WALL, left, right.with_vertices(right.vertices + state + torch.tensor([0.3, 0.0, 0.0])))

    return scene, torch.tensor([0.18, -0.2, -0.35])


SCENES = {
    "a cube behind a bar": cube_behind_a_bar,
    "a hand before a body": hand_before_a_body,
    "balls through each other": balls_through_each_other,
}


def descend(
    scene: Callable[[torch.Tensor], gd.Mesh], start: torch.Tensor, target: torch.Tensor, way: str, size: int, steps: int
) -> tuple[torch.Tensor, float]:
    """Bring a state from its start to 0 by colours; return where it ends and the milliseconds of a step."""
    render = gd.Renderer(size, outputs="rgb", **WAYS[way])
    state = start.clone().requires_grad_()
    optimizer = torch.optim.Adam([state], lr=0.02)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    begin = time.perf_counter()
    for _ in range(steps):
        optimizer.zero_grad()
        (render(scene(state), CAMERA, LIGHTS).rgb - target).square().mean().backward()
        optimizer.step()
        schedule.step()
    return state.detach(), 1e3 * (time.perf_counter() - begin) / steps


def starts(first: torch.Tensor, count: int) -> list[torch.Tensor]:
    """Return the first start, and others as far off in other directions: with other signs."""
    signs = torch.tensor([[1 - 2 * (k >> i & 1) for i in (0, 1, 2)] * 2 for k in (0, 3, 5, 6, 1, 2, 4, 7)])
    return list(first * signs[:count, : len(first)])


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--output", type=pathlib.Path, default=pathlib.Path("out"))
    parser.add_argument("--starts", type=int, default=4, help="how many for the table, 8 at most")
    parser.add_argument("--quick", action="store_true", help="one scene, small pictures")
    options = parser.parse_args()
    size, steps = (48, 120) if options.quick else (96, 150)
    names = list(SCENES)[:1] if options.quick else list(SCENES)

    show = gd.Renderer(4 * size, coverage="antialiased", outputs="rgb")
    columns = 2 + len(WAYS)
    figure, axes = plt.subplots(len(names), columns, figsize=(2.2 * columns, 2.5 * len(names)), squeeze=False)
    lines = [f"{'scene':<26}{'coverage':<16}{'off at first':>13}{'at last: median':>17}{'most':>8}{'ms a step':>11}"]
    for row, name in zip(axes, names, strict=True):
        scene, start = SCENES[name]()
        # What is aimed at is no picture of any of the five: many samples a pixel.
        target = gd.Renderer(size, coverage="hard", outputs="rgb", supersample=8)(scene(0 * start), CAMERA, LIGHTS).rgb
        pictures = [("target", 0 * start), (f"start, off by {start.norm():.2f}", start)]
        for way in WAYS:
            ends = [descend(scene, other, target, way, size, steps) for other in starts(start, options.starts)]
            off, cost = torch.stack([state.norm() for state, _ in ends]), min(cost for _, cost in ends)
            pictures.append((f"{way}: {off[0]:.3f}", ends[0][0]))
            lines.append(f"{name:<26}{way:<16}{start.norm():>13.3f}{off.median():>17.4f}{off.max():>8.3f}{cost:>11.1f}")
            print(lines[-1])
        for axis, (title, state) in zip(row, pictures, strict=True):
            axis.imshow(show(scene(state), CAMERA, LIGHTS).rgb.clamp(0, 1).numpy())
            axis.set_title(title, fontsize=9)
            axis.axis("off")
    figure.tight_layout()
    options.output.mkdir(parents=True, exist_ok=True)
    figure.savefig(options.output / "hidden_edges.png", dpi=80)
    (options.output / "table.txt").write_text("\n".join(lines) + "\n")
    print(f"Look at {options.output / 'hidden_edges.png'}")


if __name__ == "__main__":
    main()
