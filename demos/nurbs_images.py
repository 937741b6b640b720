# SPDX-License-Identifier: Apache-2.0
"""Fit a NURBS surface to images, through the renderer: a vase from 20 silhouettes.

The start is a ball: one rational bicubic surface, closed along u, a pole at both ends of v. Each step tessellates it,
renders the mesh softly, and sends the gradient of the overlap (IoU) through pixels and vertices back into control
points, weights and the knots of v. The target, a twisted vase with five flutes, is an ordinary mesh: no spline made it.
Four more views are held out. Takes about a minute on two cores; --quick a few seconds.
"""

import argparse
import math
import pathlib
import time

import torch

import geodiff as gd
from geodiff.splines import knots_to_logits, logits_to_knots
from geodiff.tasks import pictures
from geodiff.tasks.nurbs import pictures as nurbs_pictures


def vase(rows: int = 96, columns: int = 144) -> gd.Mesh:
    """Make the target: r(z, φ), fluted and twisted, closed above and below, y up, longest side 1."""
    t = torch.linspace(0, 1, rows, dtype=torch.float64)[:, None]
    angle = torch.arange(columns, dtype=torch.float64)[None] * (2 * math.pi / columns)
    body = 0.17 + 0.15 * torch.sin(math.pi * (1.25 * t + 0.05)) ** 2 + 0.05 * t**6
    flutes = 1 + 0.10 * torch.sin(math.pi * t) * torch.cos(5 * (angle - 0.8 * t))
    rim = torch.sqrt((1 - (2 * t - 1).abs() ** 24).clamp_min(0))  # rounds off bottom and mouth
    radius = body * flutes * rim
    points = torch.stack([radius * angle.sin(), (t - 0.5).expand_as(radius), radius * angle.cos()], -1)
    number = torch.arange(rows * columns).reshape(rows, columns)
    a, b = number[:-1], number[1:]
    c, d = b.roll(-1, 1), a.roll(-1, 1)
    faces = torch.stack([torch.stack([a, d, c], -1), torch.stack([a, c, b], -1)], -2).reshape(-1, 3)
    return gd.Mesh(points.reshape(-1, 3).float(), faces)


class Ball(torch.nn.Module):
    """A closed NURBS surface with free control points, weights and knots along v; a ball before it is trained."""

    def __init__(self, around: int, along: int, radius: float) -> None:
        super().__init__()
        knots = gd.splines.uniform_knots(along, 3)
        # Control points over the Greville abscissae, a little outside of the sphere: its rows of constant v.
        angle = torch.arange(around) * (2 * math.pi / around)
        tilt = gd.splines.greville(knots, 3)[1:-1] * math.pi
        ring = torch.stack([angle.sin(), torch.zeros(around), angle.cos()], -1)
        up = torch.tensor([0.0, 1.0, 0.0])
        self.rings = torch.nn.Parameter(radius * (tilt.sin()[:, None] * ring[:, None] - tilt.cos()[:, None] * up))
        self.poles = torch.nn.Parameter(radius * torch.stack([-up, up]))
        self.log_weights = torch.nn.Parameter(torch.zeros(around, along - 2))
        self.logits = torch.nn.Parameter(knots_to_logits(knots, 3))

    def surface(self) -> gd.NURBSSurface:
        """Return the surface as it is now, with its graph."""
        around = self.rings.shape[0]
        first, last = (pole.expand(around, 1, 3) for pole in self.poles)
        weights = torch.nn.functional.pad(self.log_weights.clamp(-1.5, 1.5).exp(), (1, 1), value=1.0)
        return gd.NURBSSurface(
            torch.cat([first, self.rings, last], 1),
            knots_v=logits_to_knots(self.logits, 3, min_fraction=0.02),
            weights=weights,
            periodic=(True, False),
        )


def hard_iou(mesh: gd.Mesh, cameras: gd.Camera, target: torch.Tensor) -> float:
    """Return the mean intersection over union of hard silhouettes."""
    mask, wanted = gd.rasterize(mesh, cameras, target.shape[-1]).mask, target > 0.5
    return float(((mask & wanted).sum((1, 2)) / (mask | wanted).sum((1, 2))).mean())


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--output", type=pathlib.Path, default=pathlib.Path("out/nurbs_images"))
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--control", type=int, nargs=2, default=(24, 14), help="control points around and along")
    parser.add_argument("--size", type=int, default=96, help="pixels a side")
    parser.add_argument("--seed", type=int, default=0, help="of the views that each step draws")
    parser.add_argument("--quick", action="store_true", help="a small one, in seconds")
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.steps, arguments.control, arguments.size = 20, (8, 8), 32

    target_mesh = vase()
    azimuth = torch.arange(0, 360, 15.0)
    elevation = torch.tensor([10.0, 35.0, -20.0, 60.0]).repeat(6)
    cameras = gd.Camera.orbit(distance=2.6, elevation_deg=elevation, azimuth_deg=azimuth, fov_deg=28)
    target = gd.rasterize(target_mesh, cameras, arguments.size).mask.float()
    held_out = torch.arange(len(azimuth)) % 6 == 3
    train, test = (~held_out).nonzero()[:, 0], held_out.nonzero()[:, 0]

    ball = Ball(*arguments.control, radius=0.3)
    start = ball.surface().detach()
    steps, samples = arguments.steps, (64, 48) if not arguments.quick else (24, 20)
    optimizer = torch.optim.Adam(
        [
            {"params": [ball.rings, ball.poles], "lr": 0.01},
            {"params": [ball.log_weights], "lr": 0.02},
            {"params": [ball.logits], "lr": 0.01},
        ],
        betas=(0.8, 0.95),
    )
    decay = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.1 ** (1 / steps))
    generator = torch.Generator().manual_seed(arguments.seed)
    begin = time.perf_counter()
    for step in range(steps):
        views = train[torch.randperm(len(train), generator=generator)[:10].sort().values]
        surface = ball.surface()
        mesh = surface.tessellate(*samples)
        render = gd.Renderer(arguments.size, "logistic", scale=1e-2 * 0.1 ** (step / steps), tconorm="probabilistic")
        overlap = gd.losses.iou(render(mesh, cameras[views]).alpha.clamp(0, 1), target[views])
        net = surface.opened().control_points
        bending = net.diff(n=2, dim=0).square().sum(-1).mean() + net.diff(n=2, dim=1).square().sum(-1).mean()
        loss = overlap + 2.0 * bending + 1e-3 * ball.log_weights.square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        decay.step()
        if step % max(steps // 10, 1) == 0 or step == steps - 1:
            fit_iou = hard_iou(mesh.detach(), cameras[train], target[train])
            print(f"step {step:4}  loss {float(loss.detach()):.4f}  IoU {fit_iou:.4f}", flush=True)
    seconds = time.perf_counter() - begin
    fit = ball.surface().detach()
    mesh = fit.tessellate(*samples)
    scores = [hard_iou(mesh, cameras[which], target[which]) for which in (train, test)]
    print(f"IoU {scores[0]:.4f} in {len(train)} views fitted, {scores[1]:.4f} in {len(test)} held out; {seconds:.0f} s")
    print(f"weights from {float(fit.weights.min()):.2f} to {float(fit.weights.max()):.2f}; knots of v", end=" ")
    print(" ".join(f"{float(k):.3f}" for k in fit.knots_v[4:-4]))

    arguments.output.mkdir(parents=True, exist_ok=True)
    mesh.save(arguments.output / "vase.obj")
    picture(target_mesh, start, fit, cameras, target, mesh, [*train[[0, 5, 17]], *test[:2]], test).save(
        arguments.output / "nurbs_images.png"
    )
    print(f"Look at {arguments.output / 'nurbs_images.png'}")


def picture(target_mesh, start, fit, cameras, target, mesh, chosen, test):  # type: ignore[no-untyped-def]
    """Draw, in a few views: the target's shape, the ball at the start, the fit with its knot lines, the difference."""
    size = (200, 200)
    rows = [[], [], [], []]
    for i in chosen:
        view = cameras[int(i)]
        rows[0].append(pictures.over(*pictures.shaded(target_mesh, view, size), pictures.backdrop(size)))
        rows[1].append(nurbs_pictures.draw_surface(start, view, size))
        rows[2].append(nurbs_pictures.draw_surface(fit, view, size))
        wanted = pictures.resized(target[int(i)].numpy(), size)
        rows[3].append(pictures.difference(wanted, pictures.coverage(mesh, view, size)))
    titles = [f"view {int(i)}, {'held out' if i in test else 'fitted'}" for i in chosen]
    return pictures.grid(rows, ("target", "start", "fit", "difference"), titles)


if __name__ == "__main__":
    main()
