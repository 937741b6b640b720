# SPDX-License-Identifier: Apache-2.0
"""A bracket under load, made as stiff as its volume allows: shape optimisation through finite elements, rendered.

    python demos/stiff_bracket.py -o out [--quick]

A plate is bolted to a wall on its left and carries a load on its right side. It is one NURBS surface: the same control
points draw it and carry the displacements, so that there is no mesh to make or to move. Its two long edges are free;
the loss is the compliance (what the load does, twice the stored energy), the area is held by a projection after each
step. The gradient goes through the elastic solve, the assembly and knot insertion, back to the edges' control points.

Beam theory has the answer to compare with: the height should fall like the root of the distance to the load, which
leaves 16/27 of the compliance of an even plate and the same stress all along the edges.

The picture shows the start and the end, bent five times as much as they are and coloured by von Mises' stress, and how
the compliance fell; table.txt has the numbers.
"""

import argparse
import pathlib

import matplotlib
import torch

import geodiff as gd
from geodiff import fem, splines

matplotlib.use("Agg")
import matplotlib.pyplot as plt

F64 = torch.float64
LENGTH, HEIGHT, THICKNESS, YOUNGS, LOAD = 3.0, 1.0, 0.12, 10000.0, -1.0
SHOWN = 5.0  # times the displacements


def bracket(edges: torch.Tensor) -> gd.NURBSSurface:
    """Make the plate between a lower and an upper edge, given by heights (2, K)."""
    x = torch.linspace(0, LENGTH, edges.shape[1], dtype=F64)
    rows = torch.stack([edges[0] + (edges[1] - edges[0]) * part for part in (0.0, 0.5, 1.0)], 1)
    return gd.NURBSSurface(torch.stack([x[:, None].expand_as(rows), rows], -1), degree=(3, 2))


def loaded(surface: gd.NURBSSurface, times: int) -> tuple[fem.Space, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return a finer space on the plate, displacements, compliance and area."""
    space = fem.nurbs_space(splines.refined(surface, times))
    side = space.side("right").measure()
    u = fem.solve_elasticity(
        space, youngs=YOUNGS * THICKNESS, dirichlet={"left": 0.0}, neumann={"right": (0.0, LOAD / side)}
    )
    return space, u, 2 * fem.elastic_energy(space, u, YOUNGS * THICKNESS), space.measure()


def to_area(edges: torch.Tensor, area: float, least: float) -> torch.Tensor:
    """Scale the heights about the middle so that the area, which is linear in them, is what it shall be."""
    middle = edges.mean(0)
    half = (edges[1] - edges[0]) / 2
    weights = torch.stack(
        [splines.area(_lifted(bracket(torch.stack([-h, h])))) for h in torch.eye(len(half), dtype=F64)]
    )
    for _ in range(20):  # what is at its least stays there
        half = half.clamp(min=least)
        half = half + weights * (area - weights @ half) / (weights @ weights)
    return torch.stack([middle - half, middle + half])


def _lifted(surface: gd.NURBSSurface) -> gd.NURBSSurface:
    points = surface.control_points
    return surface.replace(control_points=torch.cat([points, torch.zeros_like(points[..., :1])], -1))


def solid(space: fem.Space, surface: gd.NURBSSurface, u: torch.Tensor, most: float, times: int) -> gd.Mesh:
    """Return the bent plate with its thickness as a coloured mesh."""
    n, m = 91, 31
    line, across = torch.linspace(0, 1, n, dtype=F64), torch.linspace(0, 1, m, dtype=F64)
    flat = surface.grid(line, across) + SHOWN * space.evaluate(u.mT, line, across, grid=True).movedim(0, -1)
    # Stress lives at quadrature points; its projection is a field like any other.
    stress = fem.von_mises(space, u, YOUNGS)
    field = gd.implicit.linear(space.mass(), space.load(stress))
    shade = (space.evaluate(field, line, across, grid=True) / most).clamp(0, 1).reshape(-1)
    colors = torch.tensor(matplotlib.colormaps["turbo"](shade.numpy())[:, :3])
    points = torch.cat([flat.reshape(-1, 2), torch.full((n * m, 1), THICKNESS, dtype=F64)], -1)
    a = torch.arange(n * m).reshape(n, m)
    quads = torch.stack([a[:-1, :-1], a[1:, :-1], a[1:, 1:], a[:-1, 1:]], -1).reshape(-1, 4)
    rim = torch.cat([a[:, 0], a[-1, 1:], a[:-1, -1].flip(0), a[0, 1:-1].flip(0)])
    walls = torch.stack([rim + n * m, rim.roll(-1) + n * m, rim.roll(-1), rim], -1)
    quads = torch.cat([quads, quads.flip(1) + n * m, walls])
    points = torch.cat([points, points * torch.tensor([1, 1, -1.0], dtype=F64)])
    faces = torch.cat([quads[:, [0, 1, 2]], quads[:, [0, 2, 3]]])
    return gd.Mesh(points.float(), faces, vertex_colors=torch.cat([colors, colors]).float())


def main() -> None:
    """Optimise, write the picture and the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--output", type=pathlib.Path, default=pathlib.Path("out"))
    parser.add_argument("--quick", action="store_true")
    options = parser.parse_args()
    options.output.mkdir(parents=True, exist_ok=True)
    steps, times, count = (30, 1, 7) if options.quick else (60, 2, 9)

    start = torch.stack([torch.zeros(count, dtype=F64), torch.full((count,), HEIGHT, dtype=F64)])
    area = LENGTH * HEIGHT
    edges = start.clone().requires_grad_()
    optimizer = torch.optim.SGD([edges], lr=1.0)
    history = []
    for _ in range(steps):
        optimizer.zero_grad()
        _, _, compliance, _ = loaded(bracket(edges), times)
        compliance.log().backward()
        edges.grad.mul_(0.03 / edges.grad.abs().max())
        optimizer.step()
        with torch.no_grad():
            edges.copy_(to_area(edges, area, 0.1))
        history.append(compliance.item())

    pages = [loaded(bracket(shape.detach()), times + 1) for shape in (start, edges)]
    rows = ["shape       compliance  area    highest stress"]
    for name, (space, u, compliance, own) in zip(("start", "optimised"), pages, strict=True):
        highest = float(fem.von_mises(space, u, YOUNGS)[0].quantile(0.99))
        rows.append(f"{name:<11} {float(compliance):<11.5f} {float(own):<7.4f} {highest:.2f}")
    (options.output / "table.txt").write_text("\n".join(rows) + "\n")
    print("\n".join(rows))

    most = float(fem.von_mises(pages[0][0], pages[0][1], YOUNGS)[0].quantile(0.99))
    camera = gd.Camera.look_at((1.5, 0.9, 5.6), (1.5, 0.35, 0.0), fov_deg=34)
    lights = [gd.AmbientLight(0.6), gd.DirectionalLight((0.3, 0.6, 1.0), 0.45)]
    render = gd.Renderer((300, 480), coverage="antialiased", outputs=("rgb",), background=(1.0, 1.0, 1.0))
    figure, axes = plt.subplots(1, 3, figsize=(15, 4), layout="constrained")
    for axis, name, shape, (space, u, compliance, _) in zip(
        axes, ("start", "optimised"), (start, edges), pages, strict=False
    ):
        mesh = solid(space, bracket(shape.detach()), u, most, times)
        axis.imshow(render(mesh, camera, lights).rgb.clamp(0, 1).numpy())
        axis.set_title(f"{name}: compliance {float(compliance):.4f}")
        axis.axis("off")
    axes[2].plot(history)
    axes[2].set(title="compliance at one area", xlabel="step")
    figure.savefig(options.output / "stiff_bracket.png", dpi=80)


if __name__ == "__main__":
    main()
