# SPDX-License-Identifier: Apache-2.0
"""How two solids were joined, learned from eight silhouettes: a gate of constructive solid geometry, rendered.

    python demos/csg_from_silhouettes.py -o out [--quick] [--starts 8]

The target is a box without a ball at one of its corners; given are eight masks, and that it is made of one box and one
ball. A `csg.Gate` is the mean of eight operations (nothing, and, a − b, a, b − a, b, exclusive or, or) by the
softmax of eight logits, which start at random; sizes and places start off by 0.06, a twentieth of the box.

Two stages. First the gate with the sizes: a silhouette is the largest occupancy along the ray of a pixel. It knows of
a whole region that fades in or out, which the outline of a mesh does not: that jumps when a weight passes ½. Then the
gate of largest logit, exact corners (the T-conorm "maximum"), and the silhouette of its `gd.isosurface`, which is
finer than samples along rays.

table.txt has the gates, how far the sizes are off after each stage, and the share of starts that end in `a - b`; the
picture shows the target, how a start develops, and the logits of all starts.
"""

import argparse
import pathlib

import matplotlib
import torch

import geodiff as gd
from geodiff import csg, soft

matplotlib.use("Agg")
import matplotlib.pyplot as plt

SIZE, CENTER, RADIUS = (1.4, 1.4, 1.4), (0.7, 0.7, 0.7), 0.8
BOUNDS = [[-1.2] * 3, [1.6] * 3]
ELEVATIONS = torch.tensor([35.0, 35, 35, 35, -30, -30, -30, -30])
AZIMUTHS = torch.tensor([0.0, 90, 180, 270, 45, 135, 225, 315])
EYES = gd.Camera.orbit(4.0, ELEVATIONS, AZIMUTHS, fov_deg=40)


class Parts:
    """The unknowns of one start: logits, the sizes of the box, and the place and radius of the ball."""

    def __init__(self, seed: int) -> None:
        draw = torch.Generator().manual_seed(seed)
        self.logits = torch.randn(8, generator=draw).requires_grad_()
        exact = torch.tensor([*SIZE, *CENTER, RADIUS])
        self.sizes = (exact + 0.06 * torch.randn(7, generator=draw)).requires_grad_()

    def gate(self) -> csg.Gate:
        """Return the solid as it is now."""
        box, ball = csg.Box(self.sizes[:3]), csg.Sphere(self.sizes[6], self.sizes[3:6])
        return csg.Gate(box, ball, self.logits)

    def error(self) -> float:
        """Return how far the seven sizes are off, on average."""
        return float((self.sizes.detach() - torch.tensor([*SIZE, *CENTER, RADIUS])).abs().mean())


def rays(size: int, samples: int) -> torch.Tensor:
    """Return points along the rays of all pixels of all views, (8, size², samples, 3)."""
    middle = (torch.arange(size) + 0.5) * 2 / size - 1
    y, x, depth = torch.meshgrid(-middle, middle, torch.linspace(2.7, 5.3, samples), indexing="ij")
    points = torch.stack([x, y, depth], -1).reshape(-1, 3)
    return EYES.unproject(points.expand(len(EYES), -1, -1)).reshape(len(EYES), size * size, samples, 3)


def learn(parts: Parts, targets: torch.Tensor, steps: int, samples: int) -> None:
    """Stage one: gate and sizes, by the largest occupancy along each ray."""
    at = rays(targets.shape[-1], samples)
    near = (at.abs() < 1.3).all(-1)  # elsewhere both solids are far
    optimizer = torch.optim.Adam([{"params": [parts.logits], "lr": 0.2}, {"params": [parts.sizes], "lr": 0.005}])
    for i in range(steps):
        relaxed = parts.gate().relaxed(0.1 * 0.5 ** (i / steps))
        inside = torch.zeros(near.shape).masked_scatter(near, relaxed.occupancy(at[near]))
        loss = (inside.amax(-1) - targets.flatten(1)).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


def refine(parts: Parts, targets: torch.Tensor, steps: int, resolution: int) -> None:
    """Stage two: the sizes, with the gate as it is now, by the outline of its isosurface."""
    render = gd.Renderer(targets.shape[-1], scale_px=0.5, coverage="contour")
    optimizer = torch.optim.Adam([parts.sizes], lr=0.01)
    for i in range(steps):
        optimizer.param_groups[0]["lr"] = 0.01 * 0.1 ** (i / steps)
        mesh = gd.isosurface(parts.gate().hard(), bounds=BOUNDS, resolution=resolution)
        if mesh.num_faces == 0:
            return
        loss = (render(mesh, EYES).alpha - targets).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


def picture(solid: csg.Solid, size: int, resolution: int) -> torch.Tensor:
    """Render a solid."""
    mesh = gd.isosurface(solid, bounds=BOUNDS, resolution=resolution)
    if mesh.num_faces == 0:
        return torch.ones(size, size, 3)
    camera = gd.Camera.orbit(4.0, 35.0, 45.0, fov_deg=38)
    lights = [gd.AmbientLight(0.35), gd.DirectionalLight((0.2, 1.0, 0.6), 0.6)]
    lights += [gd.DirectionalLight((1.0, 0.2, 0.1), 0.25)]
    colors = torch.tensor([0.93, 0.72, 0.42]).expand(mesh.num_vertices, 3)
    render = gd.Renderer(
        size, coverage="antialiased", outputs="rgb", background=(1.0, 1.0, 1.0), shading="lambert", supersample=2
    )
    return render(mesh.with_attributes(vertex_colors=colors), camera, lights).rgb.clamp(0, 1)


def main() -> None:
    """Learn from several starts, write the picture and the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--output", type=pathlib.Path, default=pathlib.Path("out"))
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--starts", type=int, default=None)
    options = parser.parse_args()
    options.output.mkdir(parents=True, exist_ok=True)
    count = options.starts or (1 if options.quick else 8)
    size, samples, steps = (16, 14, 40) if options.quick else (24, 20, 80)
    fine, more, resolution = (32, 4, 24) if options.quick else (48, 40, 40)

    truth = csg.Box(SIZE) - csg.Sphere(RADIUS, CENTER)
    solid = gd.isosurface(truth, bounds=BOUNDS, resolution=40 if options.quick else 64)
    coarse, sharp = (gd.Renderer(n, coverage="antialiased")(solid, EYES).alpha for n in (size, fine))

    first = Parts(0).gate().name  # nothing to be seen, where that is "false"
    rows, shares, stages = ["start  gate      share   sizes off by  after stage 1  after stage 2"], [], []
    for seed in range(count):
        parts = Parts(seed)
        errors = [parts.error()]
        stages.append([parts.gate().hard()] if seed == 0 else [])
        learn(parts, coarse, steps, samples)
        errors.append(parts.error())
        share = parts.logits.detach().softmax(0)
        shares.append(share)
        stages[seed].append(parts.gate().hard())
        refine(parts, sharp, more, resolution)
        errors.append(parts.error())
        stages[seed].append(parts.gate().hard())
        name = parts.gate().name
        rows.append(
            f"{seed:<6} {name:<9} {float(share.max()):<7.2f} {errors[0]:<13.4f} {errors[1]:<14.4f} {errors[2]:.4f}"
        )
    right = sum(row.split()[1] == "a_not_b" for row in rows[1:])
    rows.append(f"{right} of {count} starts end in a - b")
    (options.output / "table.txt").write_text("\n".join(rows) + "\n")
    print("\n".join(rows))

    titles = "target", f"start: '{first}'", "gate learned", "sizes refined"
    pictures = zip(titles, [truth, *stages[0]], strict=True)
    figure, axes = plt.subplots(1, 5, figsize=(15, 3.4), layout="constrained", width_ratios=(1, 1, 1, 1, 1.3))
    for axis, (title, shape) in zip(axes, pictures, strict=False):
        axis.imshow(picture(shape, *(120, 32) if options.quick else (240, 64)).detach().numpy())
        axis.set_title(title)
        axis.axis("off")
    axes[4].imshow(torch.stack(shares).numpy(), vmin=0, vmax=1, cmap="Blues", aspect="auto")
    axes[4].set_xticks(range(8), soft.GATES[:8], rotation=60)
    axes[4].set(title="share of each gate at the end", ylabel="start", yticks=range(count))
    figure.savefig(options.output / "csg_from_silhouettes.png", dpi=80)


if __name__ == "__main__":
    main()
