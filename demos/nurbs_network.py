# SPDX-License-Identifier: Apache-2.0
"""Learn to turn clouds of 700 points into NURBS surfaces, with and without labels; Table 4 of Cho et al. (2021).

A graph network (edge convolutions as in DGCNN, Wang et al., 2019) predicts a bicubic control net in one pass. What it
learns from is what differs:

    control points   those of the best net of that size, known; no spline layer: this is the paper's baseline
    net as a cloud   Chamfer distance of the control points themselves to the cloud; no labels, no spline layer
    points           points of the surface where the parameters of the cloud are known; labels and spline layer
    Chamfer          Chamfer distance of points on the surface to the cloud; spline layer, no labels: the paper's own

"+ weights" predicts the rational weights too. All have a Laplacian of the net added, and the same networks, clouds and
steps. The clouds are drawn from random smooth patches, 6 × 6 control points turned by up to 20°: not the ABC surfaces
of the paper, so the figures compare with each other only.

The table sets the networks beside a direct fit (Chamfer minimised for each held-out cloud by itself), the flat net that
all start from, the labels, and the patch that the cloud was drawn from, which is as good as a surface can be: its
points on a grid are not the points of the cloud. "Chamfer" is the sum of both mean squared distances, of patches about
2 wide; "to the patch" is the same against 4900 points of the patch instead of the 700 that were seen. Both are times
100.

Each seed adds to the table when it is done; --quick takes ten seconds, and its figures mean nothing.
"""

import argparse
import pathlib
import statistics
import time
from collections.abc import Callable, Iterable

import numpy as np
import torch
from PIL import Image
from scipy.spatial import cKDTree

import geodiff as gd
from geodiff.tasks import pictures
from geodiff.tasks.nurbs import pictures as nurbs_pictures
from geodiff.transport import chamfer

POINTS, NEIGHBOURS, TRUE = 700, 10, 6
LEARNED, MEASURED = 24, 36  # points along a side of a surface that Chamfer distances take
LOSSES = ("control points", "net as a cloud", "points", "Chamfer", "Chamfer + weights")


class EdgeConvolution(torch.nn.Module):
    """Pool over edges: max_j and mean_j of A x_j − B y_i + b over the neighbours j of node i, normalised, rectified."""

    def __init__(self, here: int, there: int, width: int) -> None:
        super().__init__()
        self.own = torch.nn.Linear(here, width)
        self.other = torch.nn.Linear(there, width, bias=False)
        self.norm = torch.nn.LayerNorm(2 * width)

    def forward(self, y: torch.Tensor, x: torch.Tensor, edges: torch.Tensor) -> torch.Tensor:
        """Map features y (B, N, ·) of nodes and x (B, M, ·) of the points (B, N, k) they look at to (B, N, 2 width)."""
        own, table = self.own(y), self.other(x).flatten(0, 1)
        through = (edges + x.shape[1] * torch.arange(len(x))[:, None, None]).flatten(0, 1)
        parts = [torch.nn.functional.embedding_bag(through, table, mode=mode) for mode in ("max", "mean")]
        return torch.nn.functional.leaky_relu(self.norm(torch.cat([p.view_as(own) - own for p in parts], -1)), 0.2)


class GraphNetwork(torch.nn.Module):
    """A cloud (B, N, 3) to a control net (B, K, K, 3) and logarithms of weights (B, K, K).

    Three edge convolutions over the cloud, each on half as many points; one from the cloud to the control points, which
    look at the points nearest to where they start; two over the control net. The weights do not depend on K.
    """

    def __init__(self, count: int, width: int = 32) -> None:
        super().__init__()
        self.count = count
        self.cloud = torch.nn.ModuleList(EdgeConvolution(n, n, width) for n in (3, 2 * width, 2 * width))
        self.look = EdgeConvolution(3, 2 * width + 3, 2 * width)
        self.join = torch.nn.Linear(4 * width + 4 * width + 3, 64)
        self.net = torch.nn.ModuleList(torch.nn.Conv2d(64, 64, 3, padding=1, padding_mode="replicate") for _ in "ab")
        self.last = torch.nn.Linear(64, 4)
        with torch.no_grad():
            self.last.weight *= 0.1

    def forward(self, cloud: torch.Tensor, edges: list[torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
        """Return control points, offsets from a flat net; and logarithms of weights in (−1, 1): others degenerate."""
        leaky = torch.nn.functional.leaky_relu
        x, first = cloud, cloud
        for number, layer in enumerate(self.cloud):
            x = layer(x, x, edges[number])
            first = first if number else x
            whole = torch.cat([x.amax(1), x.mean(1)], -1)
            x = x[:, ::2]
        start = flat_net(self.count).flatten(0, 1).expand(len(cloud), -1, 3)
        nodes = self.look(start, torch.cat([first, cloud], -1), edges[-1])
        nodes = self.join(torch.cat([nodes, whole[:, None].expand(-1, nodes.shape[1], -1), start], -1))
        grid = leaky(nodes, 0.2).mT.unflatten(-1, (self.count, self.count))
        for layer in self.net:
            grid = grid + leaky(layer(grid), 0.2)
        found = self.last(grid.permute(0, 2, 3, 1))
        return flat_net(self.count) + found[..., :3], found[..., 3].tanh()


class Clouds:
    """Clouds (N, 700, 3) of patches (N, 6, 6, 3) at parameters (N, 700, 2), with the neighbours in each cloud."""

    def __init__(self, count: int, generator: torch.Generator) -> None:
        self.patches = random_patches(count, generator)
        self.parameters = torch.rand(count, POINTS, 2, generator=generator)
        self.points = gd.NURBSSurface(self.patches)(*self.parameters.unbind(-1))
        # Points come in random order: every second one is a thinner cloud.
        thinner = [self.points[:, :: 2**level] for level in range(3)]
        self.edges = [neighbours(points, points, NEIGHBOURS) for points in thinner]

    def seen_from(self, count: int) -> torch.Tensor:
        """Find the points that each control point of a flat net looks at, (N, K², ·)."""
        start = flat_net(count).flatten(0, 1).expand(len(self.points), -1, 3)
        return neighbours(start, self.points, max(16, POINTS // count**2))


def neighbours(nodes: torch.Tensor, points: torch.Tensor, count: int) -> torch.Tensor:
    """Find the points (N, ·, 3) of a cloud nearest to each node (N, ·, 3).

    DGCNN looks for them anew among the features of each layer; here they are those in space.
    """
    found = [cKDTree(b).query(a, count)[1] for a, b in zip(nodes.numpy(), points.numpy(), strict=True)]
    return torch.as_tensor(np.stack(found))


def flat_net(count: int) -> torch.Tensor:
    """Return control points (K, K, 3) of the square [−1, 1]²."""
    axis = 2 * gd.splines.greville(gd.splines.uniform_knots(count, 3), 3) - 1
    x, y = torch.meshgrid(axis, axis, indexing="ij")
    return torch.stack([x, y, torch.zeros_like(x)], -1)


def random_patches(count: int, generator: torch.Generator) -> torch.Tensor:
    """Make nets (N, 6, 6, 3) of smooth bicubic patches: random heights, shifted in the plane, turned a little."""
    net = flat_net(TRUE).repeat(count, 1, 1, 1)
    net = net + torch.randn(count, TRUE, TRUE, 3, generator=generator) * torch.tensor([0.06, 0.06, 0.25])
    angle = (2 * torch.rand(3, count, generator=generator) - 1) * (torch.pi / 9)
    skew = torch.zeros(count, 3, 3)
    skew[:, [2, 0, 1], [1, 2, 0]] = angle.mT
    turn = torch.linalg.matrix_exp(skew - skew.mT)
    return net @ turn.mT[:, None]


def labels(patches: torch.Tensor, count: int) -> torch.Tensor:
    """Return the nets (N, K, K, 3) whose surfaces are nearest to the patches, parameter by parameter."""
    u = torch.linspace(0, 1, 201, dtype=torch.float64)
    here, there = (gd.BSplineBasis(gd.splines.uniform_knots(n, 3).double(), 3).matrix(u) for n in (count, TRUE))
    best = torch.linalg.lstsq(here, there).solution.float()
    return torch.einsum("ai,bj,nijd->nabd", best, best, patches)


def bending(net: torch.Tensor) -> torch.Tensor:
    """Return the Laplacian of control nets, squared and averaged, (N,)."""
    spacing = 2 / (net.shape[1] - 1)
    bent = [(net.diff(n=2, dim=d) / spacing**2).square().sum(-1).flatten(1).mean(1) for d in (1, 2)]
    return bent[0] + bent[1]


def misfit(
    kind: str, net: torch.Tensor, weights: torch.Tensor | None, clouds: Clouds, rows: torch.Tensor, label: torch.Tensor
) -> torch.Tensor:
    """Return one of LOSSES for predicted nets (B, K, K, 3), one number a surface, (B,)."""
    points = clouds.points[rows]
    surface = gd.NURBSSurface(net, weights=weights)
    if kind == "control points":
        return (net - label[rows]).square().sum(-1).flatten(1).mean(1)
    if kind == "net as a cloud":
        return chamfer(net.flatten(1, 2), points, reduction="none")
    if kind == "points":
        return (surface(*clouds.parameters[rows].unbind(-1)) - points).square().sum(-1).mean(1)
    return chamfer(surface.grid(LEARNED, LEARNED).flatten(1, 2), points, reduction="none")


def minimise(parameters: Iterable[torch.Tensor], loss: Callable[[], torch.Tensor], steps: int, lr: float) -> float:
    """Take steps with Adam, their length falling to a twentieth along half a cosine; return the processor seconds."""
    optimizer = torch.optim.Adam(parameters, lr=lr)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps, eta_min=lr / 20)
    begin = time.process_time()
    for _ in range(steps):
        optimizer.zero_grad()
        loss().backward()
        optimizer.step()
        schedule.step()
    return time.process_time() - begin


def train(kind: str, count: int, clouds: Clouds, seed: int, arguments: argparse.Namespace) -> GraphNetwork:
    """Fit a network to one of LOSSES."""
    torch.manual_seed(seed)
    network, stream = GraphNetwork(count), torch.Generator().manual_seed(seed)
    seen, label = clouds.seen_from(count), labels(clouds.patches, count)

    def loss() -> torch.Tensor:
        rows = torch.randint(len(seen), (arguments.batch,), generator=stream)
        net, logs = network(clouds.points[rows], [edges[rows] for edges in (*clouds.edges, seen)])
        weights = logs.exp() if "weights" in kind else None
        return (misfit(kind, net, weights, clouds, rows, label) + arguments.smoothness * bending(net)).mean()

    seconds = minimise(network.parameters(), loss, arguments.steps, 2e-3)
    print(f"  {count}×{count} {kind}, seed {seed}: {seconds:.0f} s of a processor", flush=True)
    return network


def fit_directly(count: int, clouds: Clouds, arguments: argparse.Namespace) -> torch.Tensor:
    """Minimise the Chamfer distance of each cloud by itself; return nets (N, K, K, 3)."""
    free = flat_net(count).repeat(len(clouds.points), 1, 1, 1).requires_grad_()

    def loss() -> torch.Tensor:
        points = gd.NURBSSurface(free).grid(LEARNED, LEARNED).flatten(1, 2)
        # A sum: the clouds do not touch one another.
        return (chamfer(points, clouds.points, reduction="none") + arguments.smoothness * bending(free)).sum()

    minimise([free], loss, arguments.direct_steps, 0.05)
    return free.detach()


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--output", type=pathlib.Path, default=pathlib.Path("out/nurbs_network"))
    parser.add_argument("--nets", type=int, nargs="+", default=(4, 5, 20), help="control points a side")
    parser.add_argument("--losses", nargs="+", default=LOSSES, choices=LOSSES)
    parser.add_argument("--surfaces", type=int, default=512, help="to train on")
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--held-out", type=int, default=32, help="surfaces to measure with")
    parser.add_argument("--direct-steps", type=int, default=150)
    parser.add_argument("--smoothness", type=float, default=2e-5, help="weight of the Laplacian")
    parser.add_argument("--seeds", type=int, default=3, help="networks and training sets, from --seed on")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--quick", action="store_true", help="a small one, in seconds")
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.nets, arguments.steps, arguments.batch, arguments.seeds = (4, 5), 12, 4, 1
        arguments.surfaces, arguments.held_out, arguments.direct_steps = 16, 4, 12

    held_out = Clouds(arguments.held_out, torch.Generator().manual_seed(1000))  # the same for all seeds
    dense = gd.NURBSSurface(held_out.patches).grid(70, 70).flatten(1, 2)

    def measured(surface: gd.NURBSSurface) -> tuple[float, float]:
        points = surface.grid(MEASURED, MEASURED).flatten(1, 2)
        return 100 * float(chamfer(points, held_out.points)), 100 * float(chamfer(points, dense))

    flat = flat_net(4).expand(arguments.held_out, 4, 4, 3)
    given = {"flat net": flat, "patch": held_out.patches}
    results = {name: [measured(gd.NURBSSurface(net))] for name, net in given.items()}
    shown = {}
    for count in arguments.nets:
        direct = fit_directly(count, held_out, arguments)
        shown[f"{count} x {count} direct fit"] = direct
        results[f"{count}×{count} labels"] = [measured(gd.NURBSSurface(labels(held_out.patches, count)))]
        results[f"{count}×{count} direct fit"] = [measured(gd.NURBSSurface(direct))]
    arguments.output.mkdir(parents=True, exist_ok=True)
    for seed in range(arguments.seed, arguments.seed + arguments.seeds):
        clouds = Clouds(arguments.surfaces, torch.Generator().manual_seed(seed))
        for count in arguments.nets:
            seen = held_out.seen_from(count)
            for kind in arguments.losses:
                network = train(kind, count, clouds, seed, arguments)
                with torch.no_grad():
                    net, logs = network(held_out.points, [*held_out.edges, seen])
                    surface = gd.NURBSSurface(net, weights=logs.exp() if "weights" in kind else None)
                    results.setdefault(f"{count}×{count} {kind}", []).append(measured(surface))
                if kind in ("control points", "Chamfer") and seed == arguments.seed:
                    shown[f"{count} x {count} {kind}"] = net
        table = [f"{f'held out: {arguments.held_out} clouds':24} {'100 Chamfer':>16} {'100 to the patch':>18}"]
        table += [f"{name:24} {cell(a):>16} {cell(b):>18}" for name, (a, b) in columns(results)]
        (arguments.output / "table.txt").write_text("\n".join(table) + "\n", encoding="utf-8")
        print("\n".join(table), flush=True)
    picture(held_out.patches, shown).save(arguments.output / "nurbs_network.png")
    print(f"Look at {arguments.output / 'nurbs_network.png'}")


def columns(results: dict[str, list[tuple[float, float]]]) -> list[tuple[str, tuple[tuple[float, ...], ...]]]:
    """Sort rows by net, and turn measurements of several seeds into columns."""
    names = sorted(results, key=lambda name: int(name.split("×")[0]) if "×" in name else 0)
    return [(name, tuple(zip(*results[name], strict=True))) for name in names]


def cell(values: tuple[float, ...]) -> str:
    """Write a mean and, of several seeds, the standard deviation."""
    return f"{statistics.mean(values):.3f}" + (f" ± {statistics.stdev(values):.3f}" if len(values) > 1 else "")


def picture(truth: torch.Tensor, shown: dict[str, torch.Tensor]) -> Image.Image:
    """Draw the first four held-out patches, and below them what was predicted and fitted, with knot lines."""
    size = (150, 210)
    views = [pictures.looking_at(net.reshape(-1, 3)) for net in truth[:4]]
    drawn = zip(truth[:4], views, strict=True)
    rows = [[nurbs_pictures.draw_surface(gd.NURBSSurface(net), view, size, knot_lines=False) for net, view in drawn]]
    for nets in shown.values():
        drawn = zip(nets[:4], views, strict=True)
        rows.append([nurbs_pictures.draw_surface(gd.NURBSSurface(net), view, size) for net, view in drawn])
    return pictures.grid(rows, ["true patch", *shown], [f"held-out cloud {i}" for i in range(4)])


if __name__ == "__main__":
    main()
