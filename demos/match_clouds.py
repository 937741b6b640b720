# SPDX-License-Identifier: Apache-2.0
"""Match two clouds of points: an airplane, and a turned, bent, shuffled copy of it among points that are no part of it.

Three steps, all by the gradient of transport, none with a known pair:

1. pose: a rotation and a shift by descent on the Sinkhorn divergence with `reach`, so that mass that has nowhere to go
   stays; from several starts, since turned airplanes are local minima. Beside it the same descent on the Chamfer
   distance.
2. pairs: the largest entry of each row of the plan, over ε from coarse to fine, beside the nearest point and the exact
   assignment. A pair is right where it is the copy of the point, near where it is within two mean distances of it.
3. flow: points follow the gradient of the divergence until the clouds agree; what is left is the Chamfer distance.

Takes about a minute on two cores; --quick, with few points, seconds.
"""

import argparse
import math
import pathlib
import time
from collections.abc import Callable

import torch
from matplotlib.figure import Figure

import geodiff as gd

ASSET = pathlib.Path(__file__).parents[1] / "assets" / "airplane.obj"


def sample(mesh: gd.Mesh, count: int, generator: torch.Generator) -> torch.Tensor:
    """Draw points on a surface, about evenly."""
    corners = mesh.vertices[mesh.faces]
    area = torch.linalg.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]).norm(dim=-1)
    face = torch.multinomial(area, count, replacement=True, generator=generator)
    u, v = torch.rand(2, count, 1, generator=generator)
    u, v = torch.where(u + v > 1, 1 - u, u), torch.where(u + v > 1, 1 - v, v)
    a, b, c = corners[face].unbind(1)
    return a + u * (b - a) + v * (c - a)


def rotation(turn: torch.Tensor) -> torch.Tensor:
    """Turn by |turn| about an axis: the exponential of a skew matrix."""
    x, y, z = turn
    none = torch.zeros_like(x)
    return torch.linalg.matrix_exp(torch.stack([none, -z, y, z, none, -x, -y, x, none]).reshape(3, 3))


def degrees(a: torch.Tensor, b: torch.Tensor) -> float:
    """Angle between two rotations."""
    return math.degrees(math.acos(min(1.0, max(-1.0, (float((a * b).sum()) - 1) / 2))))


def descend(
    loss: Callable[[torch.Tensor], torch.Tensor], x: torch.Tensor, start: torch.Tensor, steps: int
) -> tuple[torch.Tensor, torch.Tensor, float]:
    """Find the pose of x by descent; return the rotation, x in it, and the loss."""
    turn, shift = start.clone().requires_grad_(), torch.zeros(3, requires_grad=True)
    optimizer = torch.optim.Adam([turn, shift], lr=0.05)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for _ in range(steps):
        value = loss(x @ rotation(turn).T + shift)
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        schedule.step()
    with torch.no_grad():
        turned = rotation(turn)
        moved = x @ turned.T + shift
        return turned, moved, float(loss(moved))


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--output", type=pathlib.Path, default=pathlib.Path("out/match_clouds"))
    parser.add_argument("--points", type=int, default=400)
    parser.add_argument("--outliers", type=float, default=0.1, help="points that are no part, as a share of the others")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--quick", action="store_true", help="150 points and few steps: seconds")
    arguments = parser.parse_args()
    count, steps = (150, 25) if arguments.quick else (arguments.points, 50)
    generator = torch.Generator().manual_seed(arguments.seed)

    x = sample(gd.Mesh.load(ASSET), count, generator)
    x = (x - x.mean(0)) / x.norm(dim=-1).amax()
    true = rotation(torch.tensor([0.5, 0.9, -0.3]))
    bent = x + torch.stack([0 * x[:, 0], 0.15 * x[:, 0] ** 2, 0.05 * (3 * x[:, 0]).sin()], -1)
    order = torch.randperm(count, generator=generator)
    wild = 2 * torch.rand(round(arguments.outliers * count), 3, generator=generator) - 1
    y = torch.cat([bent @ true.T + torch.tensor([0.2, -0.1, 0.1]), wild])
    y = y[torch.cat([order, torch.arange(count, len(y))])]
    where = order.argsort()  # of the copy of each point
    spacing = float(torch.cdist(x, x).fill_diagonal_(math.inf).amin(-1).mean())
    print(f"{count} points, {len(wild)} outliers, turned by {degrees(true, torch.eye(3)):.0f}°; spacing {spacing:.3f}")

    lines: list[str] = []

    def say(text: str) -> None:
        lines.append(text)
        print(text, flush=True)

    say(f"{'pose':28} {'error of the rotation':>22} {'chamfer':>9} {'s':>6}")
    starts = [torch.zeros(3)] + [0.5 * math.pi * s * torch.eye(3)[i] for i in range(3) for s in (1, -1)]
    # A point weighs the same in both clouds, so that a pair can be whole: with reach, sums may differ.
    a, b = torch.full((count,), 1 / count), torch.full((len(y),), 1 / count)
    divergence = gd.SinkhornLoss(epsilon=0.02, reach=0.5, tolerance=1e-3)
    losses: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
        "chamfer": lambda moved: gd.chamfer(moved, y),
        "divergence, reach 0.5": lambda moved: divergence(moved, y, a, b),
    }
    poses = {"none": (torch.eye(3), x)}
    for name, loss in losses.items():
        began = time.perf_counter()
        found = min((descend(loss, x, start, steps) for start in starts), key=lambda f: f[2])
        poses[name] = found[:2]
        seconds = time.perf_counter() - began
        say(f"{name:28} {degrees(found[0], true):21.1f}° {float(gd.chamfer(found[1], y)):9.4f} {seconds:6.1f}")
    moved = poses["divergence, reach 0.5"][1]

    def judge(name: str, pairs: torch.Tensor, seconds: float) -> None:
        distance = (y[pairs] - y[where]).norm(dim=-1)
        right, near = float((pairs == where).float().mean()), float((distance < 2 * spacing).float().mean())
        distinct = len(pairs.unique()) / count
        say(f"{name:28} {right:8.1%} {near:8.1%} {float(distance.mean()):14.4f} {distinct:10.1%} {seconds:6.2f}")

    say(f"{'pairs':28} {'right':>8} {'near':>8} {'mean distance':>14} {'distinct':>10} {'s':>6}")
    ways: dict[str, Callable[[], torch.Tensor]] = {
        "nearest point": lambda: gd.transport.nearest(moved, y),
        "exact assignment": lambda: gd.transport.assign(moved, y).columns,  # type: ignore[union-attr]
    }
    for epsilon in (0.1, 0.01, 0.001):
        ways[f"plan, ε = {epsilon:g}, reach 0.2"] = lambda e=epsilon: gd.sinkhorn(  # type: ignore[misc]
            moved, y, a, b, epsilon=e, reach=0.2, tolerance=1e-4
        ).lazy_plan.argmax()
    for name, way in ways.items():
        began = time.perf_counter()
        pairs = way()
        judge(name, pairs, time.perf_counter() - began)

    say(f"{'flow':28} {'chamfer to the copy':>22} {'s':>6}")
    copy = y[where]  # the flow is to the copy alone: it moves all mass
    began, points, track = time.perf_counter(), moved.clone(), [moved]
    pull = gd.SinkhornLoss(epsilon=0.003, tolerance=1e-4)
    for step in range(8):
        points.requires_grad_()
        (gradient,) = torch.autograd.grad(pull(points, copy), points)
        points = (points - 0.7 * count / 2 * gradient).detach()
        track.append(points)
        if step in (0, 3, 7):
            value, seconds = float(gd.chamfer(points, copy)), time.perf_counter() - began
            say(f"after {step + 1} step{'s' if step else ' '}{'':15} {value:28.6f} {seconds:6.1f}")

    arguments.output.mkdir(parents=True, exist_ok=True)
    (arguments.output / "table.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    picture(x, y, moved, pairs, where, torch.stack(track)).savefig(arguments.output / "match_clouds.png", dpi=80)
    print(f"Look at {arguments.output / 'match_clouds.png'}")


def picture(
    x: torch.Tensor,
    y: torch.Tensor,
    moved: torch.Tensor,
    pairs: torch.Tensor,
    where: torch.Tensor,
    track: torch.Tensor,
) -> Figure:
    """Draw the clouds, the pose, the pairs and the flow, seen from above and aside."""
    figure = Figure(figsize=(13, 3.5), layout="constrained")
    view = rotation(torch.tensor([0.9, 0.0, 0.0])) @ rotation(torch.tensor([0.0, 0.6, 0.0]))
    flat = [(t @ view.T)[..., :2].detach() for t in (x, y, moved, track)]
    panels = figure.subplots(1, 4)
    titles = ("the clouds", "in the pose that was found", "pairs: green right or near, red wrong", "flow")
    copy = torch.zeros(len(y), dtype=torch.bool)
    copy[where] = True
    spacing = float(torch.cdist(x, x).fill_diagonal_(math.inf).amin(-1).mean())
    for axes, title in zip(panels, titles, strict=True):
        axes.set_title(title, fontsize=9)
        axes.set_aspect("equal")
        axes.axis("off")
    panels[0].plot(*flat[0].T, ".", ms=3, color="#2a6fbb")
    for axes, points in zip(panels[:3], (None, flat[2], flat[2]), strict=True):
        axes.plot(*flat[1][copy].T, ".", ms=3, color="#c8502d")
        axes.plot(*flat[1][~copy].T, "x", ms=3, color="#999999")
        if points is not None:
            axes.plot(*points.T, ".", ms=3, color="#2a6fbb")
    near = (y[pairs] - y[where]).norm(dim=-1) < 2 * spacing
    for i, j in enumerate(pairs.tolist()):
        color = "#3c8d4f" if near[i] else "#d02020"
        panels[2].plot(*torch.stack([flat[2][i], flat[1][j]]).T, color=color, lw=0.6)
    for axes in panels:
        axes.set_xlim(-1, 1.1)
        axes.set_ylim(-1, 1.1)
    panels[3].plot(*flat[1][copy].T, ".", ms=3, color="#c8502d")
    panels[3].plot(*flat[3].permute(2, 0, 1), color="#2a6fbb", lw=0.5)
    return figure


if __name__ == "__main__":
    main()
