# SPDX-License-Identifier: Apache-2.0
"""Learn, without labels, to turn clouds of 700 points into NURBS surfaces; the setting of Table 4 of Cho et al. (2021).

A graph network (edge convolutions as in DGCNN, Wang et al., 2019) predicts a bicubic control net in one pass. It sees
clouds only: its loss is the Chamfer distance between the cloud and points on the predicted surface, plus a Laplacian of
the net, through geodiff's evaluator. The clouds are drawn from random smooth patches made on the fly, 6 × 6 control
points turned by up to 20°: not the ABC surfaces of the paper, so the figures compare with each other only.

The table sets the network beside a direct fit (the same loss minimised for each held-out cloud by itself), the flat net
that both start from, and the patch that the cloud was drawn from, which is as good as a surface can be: its points on a
grid are not the points of the cloud. "Chamfer" is the sum of both mean squared distances, of patches about 2 wide;
"to the patch" is the same against 4900 points of the patch instead of the 700 that were seen.

Takes about eight minutes on two cores for the three nets; --quick ten seconds, whose figures mean nothing.
"""

import argparse
import pathlib
import time

import numpy as np
import torch
from scipy.spatial import cKDTree

import geodiff as gd
from geodiff.tasks import pictures
from geodiff.tasks.nurbs import pictures as nurbs_pictures
from geodiff.transport import chamfer

POINTS, NEIGHBOURS, SAMPLES = 700, 10, 36


class EdgeConvolution(torch.nn.Module):
    """Pool over edges: max_j and mean_j of A x_j − B y_i + b over the neighbours j of node i, normalised, rectified."""

    def __init__(self, here: int, there: int, width: int) -> None:
        super().__init__()
        self.own = torch.nn.Linear(here, width)
        self.other = torch.nn.Linear(there, width, bias=False)
        self.norm = torch.nn.LayerNorm(2 * width)

    def forward(self, y: torch.Tensor, x: torch.Tensor, edges: torch.Tensor) -> torch.Tensor:
        """Map features y (B, N, ·) of the nodes and x (B, M, ·) of the points they look at to (B, N, 2 width)."""
        own, table = self.own(y), self.other(x).flatten(0, 1)
        parts = [torch.nn.functional.embedding_bag(edges, table, mode=mode) for mode in ("max", "mean")]
        return torch.nn.functional.leaky_relu(self.norm(torch.cat([p.view_as(own) - own for p in parts], -1)), 0.2)


class GraphNetwork(torch.nn.Module):
    """A cloud (B, N, 3) to a control net (B, K, K, 3).

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
        self.last = torch.nn.Linear(64, 3)
        with torch.no_grad():
            self.last.weight *= 0.1

    def forward(self, cloud: torch.Tensor) -> torch.Tensor:
        """Return control points, offsets from a flat net."""
        leaky = torch.nn.functional.leaky_relu
        x, thin, first = cloud, cloud, None
        for layer in self.cloud:
            x = layer(x, x, neighbours(thin, thin, NEIGHBOURS))
            first = x if first is None else first
            whole = torch.cat([x.amax(1), x.mean(1)], -1)
            x, thin = x[:, ::2], thin[:, ::2]  # points come in random order: every second one is a thinner cloud
        start = flat_net(self.count).flatten(0, 1).expand(len(cloud), -1, 3)
        seen = neighbours(start, cloud, max(16, POINTS // self.count**2))
        nodes = self.look(start, torch.cat([first, cloud], -1), seen)
        nodes = self.join(torch.cat([nodes, whole[:, None].expand(-1, nodes.shape[1], -1), start], -1))
        grid = leaky(nodes, 0.2).mT.unflatten(-1, (self.count, self.count))
        for layer in self.net:
            grid = grid + leaky(layer(grid), 0.2)
        return flat_net(self.count) + self.last(grid.permute(0, 2, 3, 1))


def neighbours(nodes: torch.Tensor, cloud: torch.Tensor, count: int) -> torch.Tensor:
    """Find the points of a cloud nearest to each node, (B · N, count), the points of all clouds numbered through.

    DGCNN looks for them anew among the features of each layer; here they are those in space.
    """
    pairs = zip(nodes.numpy(), cloud.numpy(), strict=True)
    found = [cKDTree(points).query(node, count)[1] for node, points in pairs]
    return torch.as_tensor(np.concatenate([one + i * cloud.shape[1] for i, one in enumerate(found)]))


def flat_net(count: int) -> torch.Tensor:
    """Return control points (K, K, 3) of the square [−1, 1]²."""
    axis = 2 * gd.splines.greville(gd.splines.uniform_knots(count, 3), 3) - 1
    x, y = torch.meshgrid(axis, axis, indexing="ij")
    return torch.stack([x, y, torch.zeros_like(x)], -1)


def random_patches(batch: int, generator: torch.Generator) -> gd.NURBSSurface:
    """Make smooth bicubic patches: 6 × 6 points, random heights, shifted in the plane, turned a little."""
    net = flat_net(6).repeat(batch, 1, 1, 1)
    noise = torch.randn(batch, 6, 6, 3, generator=generator)
    net = net + noise * torch.tensor([0.06, 0.06, 0.25])
    angle = (2 * torch.rand(3, batch, generator=generator) - 1) * (torch.pi / 9)
    skew = torch.zeros(batch, 3, 3)
    skew[:, [2, 0, 1], [1, 2, 0]] = angle.mT
    turn = torch.linalg.matrix_exp(skew - skew.mT)
    return gd.NURBSSurface(net @ turn.mT[:, None])


def clouds_on(surface: gd.NURBSSurface, generator: torch.Generator) -> torch.Tensor:
    """Draw 700 points at random parameters, (B, 700, 3)."""
    u, v = torch.rand(2, *surface.batch_shape, POINTS, generator=generator)
    return surface(u, v)


def loss_of(net: torch.Tensor, cloud: torch.Tensor, smoothness: float) -> torch.Tensor:
    """Chamfer distance to the cloud and Laplacian of the net, one number a surface, (B,)."""
    points = gd.NURBSSurface(net).grid(SAMPLES, SAMPLES).flatten(1, 2)
    spacing = 2 / (net.shape[1] - 1)
    bent = [(net.diff(n=2, dim=d) / spacing**2).square().sum(-1).flatten(1).mean(1) for d in (1, 2)]
    return chamfer(points, cloud, reduction="none") + smoothness * (bent[0] + bent[1])


def minimise(parameters, loss, steps: int, lr: float, label: str) -> float:  # type: ignore[no-untyped-def]
    """Take steps with Adam, the step length falling to a twentieth along half a cosine; return the seconds."""
    optimizer = torch.optim.Adam(parameters, lr=lr)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps, eta_min=lr / 20)
    begin = time.perf_counter()
    for step in range(steps):
        optimizer.zero_grad()
        value = loss()
        value.backward()
        optimizer.step()
        schedule.step()
        if label and (step % max(steps // 5, 1) == 0 or step == steps - 1):
            print(f"  {label} step {step:4}  loss {float(value.detach()):.4f}", flush=True)
    return time.perf_counter() - begin


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--output", type=pathlib.Path, default=pathlib.Path("out/nurbs_network"))
    parser.add_argument("--nets", type=int, nargs="+", default=(4, 5, 20), help="control points a side")
    parser.add_argument("--steps", type=int, default=600, help="of training, each on a fresh batch")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--held-out", type=int, default=32, help="surfaces to measure with")
    parser.add_argument("--direct-steps", type=int, default=150)
    parser.add_argument("--smoothness", type=float, default=2e-5, help="weight of the Laplacian")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--quick", action="store_true", help="a small one, in seconds")
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.nets, arguments.steps, arguments.batch = (4, 5), 12, 4
        arguments.held_out, arguments.direct_steps = 4, 12

    def seeded(offset: int) -> torch.Generator:
        return torch.Generator().manual_seed(1000 * arguments.seed + offset)

    generator = seeded(1)
    truth = random_patches(arguments.held_out, generator)  # never trained on: training draws from another stream
    cloud = clouds_on(truth, generator)
    dense = truth.grid(70, 70).flatten(1, 2)

    def measured(net: torch.Tensor) -> tuple[float, float]:
        points = gd.NURBSSurface(net.detach()).grid(SAMPLES, SAMPLES).flatten(1, 2)
        return float(chamfer(points, cloud)), float(chamfer(points, dense))

    lines = [("flat net, no fit", *measured(flat_net(4).expand(arguments.held_out, 4, 4, 3)), 0.0)]
    lines += [("the patch itself", *measured(truth.control_points), 0.0)]
    shown = {}
    for count in arguments.nets:
        torch.manual_seed(arguments.seed)
        network, stream = GraphNetwork(count), seeded(2)

        def training(network: GraphNetwork = network, stream: torch.Generator = stream) -> torch.Tensor:
            seen = clouds_on(random_patches(arguments.batch, stream), stream)
            return loss_of(network(seen), seen, arguments.smoothness).mean()

        trained = minimise(network.parameters(), training, arguments.steps, 2e-3, f"{count}×{count} network")
        begin = time.perf_counter()
        with torch.no_grad():
            predicted = network(cloud)
        once = (time.perf_counter() - begin) / arguments.held_out
        lines.append((f"{count}×{count} network ({trained:.0f} s of training)", *measured(predicted), once))

        free = flat_net(count).repeat(arguments.held_out, 1, 1, 1).requires_grad_()

        def direct(free: torch.Tensor = free) -> torch.Tensor:
            return loss_of(free, cloud, arguments.smoothness).sum()  # a sum: the clouds do not touch one another

        seconds = (
            minimise([free], direct, arguments.direct_steps, 0.05, f"{count}×{count} direct ") / arguments.held_out
        )
        lines.append((f"{count}×{count} direct fit", *measured(free), seconds))
        shown[count] = predicted, free.detach()

    head = f"{f'held out: {arguments.held_out} clouds':38} {'Chamfer':>9} {'to the patch':>13} {'ms a cloud':>11}"
    table = [head] + [f"{name:38} {a:9.5f} {b:13.5f} {1e3 * s:11.1f}" for name, a, b, s in lines]
    print("\n" + "\n".join(table))
    arguments.output.mkdir(parents=True, exist_ok=True)
    (arguments.output / "table.txt").write_text("\n".join(table) + "\n", encoding="utf-8")
    picture(truth, shown).save(arguments.output / "nurbs_network.png")
    print(f"Look at {arguments.output / 'nurbs_network.png'}")


def picture(truth, shown):  # type: ignore[no-untyped-def]
    """Draw the first four held-out patches, and below them what was predicted and fitted, with knot lines."""
    size = (150, 210)
    rows, titles = [[]], ["true patch"]
    views = [pictures.looking_at(truth.control_points[i].reshape(-1, 3)) for i in range(4)]
    for i, view in enumerate(views):
        rows[0].append(nurbs_pictures.draw_surface(truth[i], view, size, knot_lines=False))
    for count, nets in shown.items():
        for name, net in zip(("network", "direct fit"), nets, strict=True):
            rows.append([nurbs_pictures.draw_surface(gd.NURBSSurface(net[i]), v, size) for i, v in enumerate(views)])
            titles.append(f"{count} x {count} {name}")
    return pictures.grid(rows, titles, [f"held-out cloud {i}" for i in range(4)])


if __name__ == "__main__":
    main()
