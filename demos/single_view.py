# SPDX-License-Identifier: Apache-2.0
"""One picture in, one mesh out: a network that saw silhouettes only (Petersen, 2022, sections 2.5 and 5.4.3).

    python demos/single_view.py                      # four classes × 300 shapes at 32²
    python demos/single_view.py --quick              # a few steps, whose figures mean nothing
    python demos/single_view.py --size 64 --batch 64 --steps 250000 --rate 1e-4 --members all    # the published size
    torchrun --nproc-per-node 2 demos/single_view.py # two with half of each batch: the bits of one with --parts 2
    python demos/single_view.py --shapenet FOLDER    # the images and voxels that NMR and SoftRas were trained on

A picture goes through three convolutions and three layers to 512 numbers, and on to the places of the 642 vertices of a
ball. Each step takes two views of each shape, makes a mesh of each, and draws both meshes from both views; the loss is
the intersection over union with the four silhouettes, the Laplacian and the flatness of the meshes. No step sees a
shape.

ShapeNet is not ours to give, so the shapes are random airplanes, chairs, pots and lamps from assets/families.py: its
figures compare with each other only. The table has the IoU of 32³ voxels of held-out shapes, seen from views spread
around, beside three answers that need no network: the mean of the class's training shapes; the training shape whose
picture, from whatever view, is most like this one; and the training shape that is best of all, which takes the truth to
find. For a few shapes, it also has the ball fitted to all 24 silhouettes of the shape itself.
"""

import argparse
import os
import pathlib
import sys
import time
from collections.abc import Callable
from typing import Any

import imageio.v3 as iio
import numpy as np
import torch

import geodiff as gd

ROOT = pathlib.Path(__file__).resolve().parents[1]
VIEWS, DISTANCE, ELEVATION, FOV = 24, 2.732, 30.0, 30.0
VOXELS, BOX = 32, [[-0.5] * 3, [0.5] * 3]
LIGHTS = [gd.AmbientLight(0.35), gd.DirectionalLight([0.3, 0.8, 0.5], 0.65)]
# Distribution, and τ at 64² pixels for a length, or for a length squared.
MEMBERS: dict[str, tuple[Any, float, int]] = {
    "uniform": (gd.soft.Uniform(), 3e-2, 1),
    "logistic squared": (gd.soft.Logistic().squared(), 1e-4, 2),
    "gamma reversed": (gd.soft.Gamma(0.5).reversed(), 3e-3, 1),
}
# In each quarter of the steps: what is left of τ, as a length, and samples a side of a pixel (pictures have 2).
STAGES = ((1.0, 1), (0.3, 1), (0.15, 2), (0.15, 2))


def cameras(views: torch.Tensor) -> gd.Camera:
    """Return cameras of view numbers (N,) around the shape, every 15°."""
    return gd.Camera.orbit(DISTANCE, ELEVATION, views * (360.0 / VIEWS), fov_deg=FOV)


class Shapes:
    """Pictures (K, 24, S, S, 4) of 8 bits, voxels (K, 32, 32, 32) and classes (K,); the last fifth is held out."""

    def __init__(self, images: torch.Tensor, voxels: torch.Tensor, kinds: torch.Tensor, names: list[str]) -> None:
        self.images, self.voxels, self.kinds, self.names = images, voxels, kinds, names
        place = torch.cat([torch.arange(int((kinds == k).sum())) / (kinds == k).sum() for k in range(len(names))])
        self.train, self.test = (place < 0.8).nonzero()[:, 0], (place >= 0.8).nonzero()[:, 0]

    def pictures(self, shapes: torch.Tensor, views: torch.Tensor) -> torch.Tensor:
        """Return (N, 4, S, S) in [0, 1]."""
        return self.images[shapes, views].permute(0, 3, 1, 2).float() / 255


def make_shapes(count: int, size: int, nodes: int, first: int = 0) -> Shapes:
    """Draw members of each class of assets/families.py, from grids of so many nodes along each side."""
    sys.path.insert(0, str(ROOT / "assets"))
    import families

    render = gd.Renderer(
        size, coverage="hard", shading="lambert", normals="flat", outputs=("rgb", "alpha"), supersample=2
    )
    images, voxels, names = [], [], list(families.CLASSES)
    for name in names:
        for number in range(first, first + count):
            values = sampled(families.member(name, number), nodes)
            mesh = gd.isosurface(values.float(), bounds=[[-0.85] * 3, [0.85] * 3]).normalized()
            out = render(mesh, cameras(torch.arange(VIEWS)), LIGHTS)
            image = torch.cat([out.rgb, out.alpha[..., None]], -1).clamp(0, 1)
            images.append((image * 255).round().byte())
            voxels.append(mesh.voxelized(VOXELS, bounds=BOX))
    return Shapes(torch.stack(images), torch.stack(voxels), torch.arange(len(names)).repeat_interleave(count), names)


def sampled(solid: Callable[[np.ndarray], np.ndarray], nodes: int) -> torch.Tensor:
    """Return a solid's distances on a grid of even size: each eighth node, and all that are near the surface."""
    axis = np.linspace(-0.85, 0.85, nodes)
    grid = np.stack(np.meshgrid(axis, axis, axis, indexing="ij"), -1)
    coarse = solid(grid[::2, ::2, ::2].reshape(-1, 3)).reshape([nodes // 2] * 3)
    values = coarse.repeat(2, 0).repeat(2, 1).repeat(2, 2)
    # What a node has from its neighbour is at most √3 cells away, and no solid of these is steeper than 2.
    near = np.abs(values) < 2 * 3**0.5 * (axis[1] - axis[0])
    values[near] = solid(grid[near])
    return torch.from_numpy(values)


def kept_shapes(path: pathlib.Path, team: "Team", *made_of: int) -> Shapes:
    """Read the shapes of an earlier run, or make them and keep them for the next one."""
    if team.rank == 0 and not path.is_file():
        made = make_shapes(*made_of)
        torch.save([made.images, made.voxels, made.kinds, made.names], path.with_suffix(".tmp"))
        path.with_suffix(".tmp").replace(path)
    team.wait()
    return Shapes(*torch.load(path, weights_only=True))


def read_shapenet(folder: pathlib.Path) -> Shapes:
    """Read `<class>_<set>_images.npz` (N, 24, 4, S, S) and `<class>_<set>_voxels.npz` (N, 32, 32, 32) of all classes.

    Written for the layout that is described, and tried on files of our own making in it, not on ShapeNet's.
    """
    names = sorted({path.name.split("_")[0] for path in folder.glob("*_train_images.npz")})
    if not names:
        raise SystemExit(f"single_view: --shapenet must be a folder of *_train_images.npz; got {folder} with none.")
    images, voxels, kinds = [], [], []
    for kind, name in enumerate(names):
        for part in ("train", "test"):
            image, voxel = (np.load(folder / f"{name}_{part}_{what}.npz") for what in ("images", "voxels"))
            images.append(torch.from_numpy(image[image.files[0]]).permute(0, 1, 3, 4, 2))
            voxels.append(torch.from_numpy(voxel[voxel.files[0]]) > 0)
            kinds.append(torch.full((len(images[-1]),), kind))
    shapes = Shapes(torch.cat(images), torch.cat(voxels), torch.cat(kinds), names)
    # Their own split, in place of the last fifth.
    marks = torch.cat([torch.full((len(k),), i % 2) for i, k in enumerate(kinds)])
    shapes.train, shapes.test = (marks == 0).nonzero()[:, 0], (marks == 1).nonzero()[:, 0]
    return shapes


class Network(torch.nn.Module):
    """Pictures (N, 4, S, S) to vertices (N, 642, 3) in the cube [−½, ½]³."""

    def __init__(self, size: int) -> None:
        super().__init__()
        linear, relu = torch.nn.Linear, torch.nn.ReLU
        layers: list[torch.nn.Module] = []
        for inside, outside in ((4, 64), (64, 128), (128, 256)):
            layers += [torch.nn.Conv2d(inside, outside, 5, stride=2, padding=2), relu()]
        self.encode = torch.nn.Sequential(
            *layers,
            torch.nn.Flatten(),
            *(linear(256 * (-(-size // 8)) ** 2, 1024), relu(), linear(1024, 1024), relu(), linear(1024, 512), relu()),
        )
        self.decode = torch.nn.Sequential(linear(512, 1024), relu(), linear(1024, 1024), relu())
        # He's: with PyTorch's own, each layer hands on two fifths of what it sees, and nine of them next to nothing.
        for layer in (*self.encode, *self.decode):
            if isinstance(layer, (torch.nn.Conv2d, linear)):
                torch.nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
                torch.nn.init.zeros_(layer.bias)
        self.offset, self.centre = linear(1024, 642 * 3), linear(1024, 3)
        # Turned, so that no vertex lies on a plane between two signs, which it could not leave.
        turn = torch.linalg.matrix_exp(torch.tensor([[0.0, -0.3, 0.2], [0.3, 0, -0.4], [-0.2, 0.4, 0]]))
        ball = gd.icosphere(3, 0.5)
        self.register_buffer("ball", ball.vertices @ turn.mT)
        self.mesh = ball

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Move the ball's vertices: in logit space within their octants, then all of them with a centre."""
        # Channels last: a fifth quicker.
        code = self.decode(self.encode(images.contiguous(memory_format=torch.channels_last)))
        return self.moved(self.offset(code).unflatten(-1, (642, 3)), self.centre(code))

    def moved(self, offset: torch.Tensor, centre: torch.Tensor) -> torch.Tensor:
        """Move the ball's vertices by offsets (N, 642, 3) of logits, and all of them with centres (N, 3)."""
        sign, size = self.ball.sign(), self.ball.abs().clamp(1e-3)
        places = sign * torch.sigmoid(torch.logit(size) + offset)
        centre = torch.tanh(0.1 * centre)[:, None]
        return 0.5 * (places + centre * (1 - places.abs()))


def loss_of(
    mesh: gd.Mesh, vertices: torch.Tensor, render: gd.Renderer, target: torch.Tensor, views: torch.Tensor
) -> torch.Tensor:
    """Draw meshes (2, B, 642, 3) from both views (2, B), whose silhouettes (2, B, S, S) are known; one number."""
    both = mesh.with_vertices(torch.cat([vertices, vertices]).flatten(0, 1))
    at = torch.cat([views, views.flip(0)]).flatten()
    alpha = render(both, cameras(at)).alpha
    overlap = gd.losses.iou(alpha, torch.cat([target, target.flip(0)]).flatten(0, 1))
    made = mesh.with_vertices(vertices.flatten(0, 1))
    smooth = 5e-3 * gd.losses.laplacian(made, reduction="sum") + 5e-4 * gd.losses.flatness(made, reduction="sum")
    return overlap + smooth / len(vertices.flatten(0, 1))


def soft_renderer(member: str, size: int, share: float) -> gd.Renderer:
    """Return one of MEMBERS for what comes after a share of the steps: τ falls, as many pixels at each size.

    A wide τ finds the shape, and makes it too thin: where several triangles meet an edge, each of them is half there.
    """
    law, scale, power = MEMBERS[member]
    factor, samples = STAGES[min(int(4 * share), 3)]
    return gd.Renderer(size, law, scale * (64 / size * factor) ** power, supersample=samples)


def rate_at(rate: float, share: float) -> float:
    """Return the learning rate after a share of the steps: in the last quarter it falls to zero."""
    return rate * min(1.0, 4 * (1 - share))


class Team:
    """The processes of torchrun, or one alone: each takes some parts of a batch, and gradients add up part by part."""

    def __init__(self, parts: int | None) -> None:
        self.rank, self.world = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
        self.parts = parts = parts or self.world
        if parts % self.world:
            raise SystemExit(f"single_view: --parts must be a multiple of the {self.world} processes; got {parts}.")
        if self.world > 1:
            torch.distributed.init_process_group("gloo")

    def wait(self) -> None:
        """Wait until all processes have come here."""
        if self.world > 1:
            torch.distributed.barrier()

    def sum(self, own: list[list[torch.Tensor]]) -> list[torch.Tensor]:
        """Add the gradients of all parts, in the order of the parts, whoever made them."""
        if self.world > 1:
            stacked = torch.stack([torch.cat([g.flatten() for g in part]) for part in own])
            found = [torch.empty_like(stacked) for _ in range(self.world)]
            torch.distributed.all_gather(found, stacked)
            sizes = [g.numel() for g in own[0]]
            vectors = [vector.split(sizes) for several in found for vector in several]
            own = [[v.view_as(g) for v, g in zip(vector, own[0], strict=True)] for vector in vectors]
        whole = own[0]
        for part in own[1:]:
            for total, one in zip(whole, part, strict=True):
                total += one
        return whole


def train(shapes: Shapes, member: str, options: argparse.Namespace, team: Team, output: pathlib.Path) -> Network:
    """Fit a network; go on from a checkpoint of the same run if there is one."""
    torch.manual_seed(options.seed)
    network = Network(options.size)
    optimizer = torch.optim.Adam(network.parameters(), options.rate, fused=True)
    random, done, start = torch.Generator().manual_seed(options.seed), 0, time.process_time()
    saved = output / f"{member.replace(' ', '_')}.pt"
    same = {name: value for name, value in vars(options).items() if name in ("size", "batch", "steps", "rate", "seed")}
    if saved.is_file():
        state = torch.load(saved, weights_only=True)
        if state["options"] == same:
            network.load_state_dict(state["network"])
            optimizer.load_state_dict(state["optimizer"])
            random.set_state(state["random"])
            done = state["step"]
    for step in range(done, options.steps):
        render = soft_renderer(member, options.size, step / options.steps)
        for group in optimizer.param_groups:
            group["lr"] = rate_at(options.rate, step / options.steps)
        chosen = shapes.train[torch.randint(len(shapes.train), (options.batch,), generator=random)]
        views = torch.randint(VIEWS, (2, options.batch), generator=random)
        gradients, losses = [], []
        for part in range(team.rank * team.parts // team.world, (team.rank + 1) * team.parts // team.world):
            rows = slice(part, None, team.parts)
            images = torch.stack([shapes.pictures(chosen[rows], v[rows]) for v in views])
            vertices = network(images.flatten(0, 1)).unflatten(0, images.shape[:2])
            loss = loss_of(network.mesh, vertices, render, images[:, :, 3], views[:, rows])
            # Those of convolutions come with channels last, which the fused step of Adam would read in a wrong order.
            gradients.append([g.contiguous() for g in torch.autograd.grad(loss, list(network.parameters()))])
            losses.append(loss.detach())
        for p, g in zip(network.parameters(), team.sum(gradients), strict=True):
            p.grad = g.div_(team.parts)
        optimizer.step()
        last = step + 1 == options.steps
        if team.rank == 0 and ((step + 1) % 500 == 0 or last):
            mean = float(torch.stack(losses).mean())
            spent = time.process_time() - start
            print(f"{member}: step {step + 1} of {options.steps}, loss {mean:.4f}, {spent:.0f} s", flush=True)
            state = {"network": network.state_dict(), "optimizer": optimizer.state_dict(), "random": random.get_state()}
            torch.save({**state, "step": step + 1, "options": same}, saved.with_suffix(".tmp"))
            saved.with_suffix(".tmp").replace(saved)
    return network


def views_of(chosen: torch.Tensor, count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return shapes and views (N,): `count` of each shape (K,), spread around and shifted from shape to shape."""
    shift = torch.arange(len(chosen)).repeat_interleave(count)
    views = (torch.arange(count).repeat(len(chosen)) * (VIEWS // count) + shift) % VIEWS
    return chosen.repeat_interleave(count), views


@torch.no_grad()
def solids(network: Network, images: torch.Tensor) -> torch.Tensor:
    """Return the voxels of the meshes that a network makes of pictures (N, 4, S, S)."""
    made = [network.mesh.with_vertices(network(few)).voxelized(VOXELS, bounds=BOX) for few in images.split(64)]
    return torch.cat(made)


def overlap(voxels: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
    """Return the IoU of each pair (N,)."""
    return 1 - gd.losses.voxel_iou(voxels, truth, reduction="none")


def without_network(shapes: Shapes, unseen: Shapes, rows: torch.Tensor, views: torch.Tensor) -> dict[str, torch.Tensor]:
    """Return the IoU (N,) of the mean shape, the shape of the most similar picture, and the best shape."""
    truth, known = unseen.voxels[rows], shapes.voxels[shapes.train]
    kinds = shapes.kinds[shapes.train]
    means = torch.stack([known[kinds == k].float().mean(0) > 0.5 for k in range(len(shapes.names))])
    table = shapes.images[shapes.train].flatten(0, 1).flatten(1).float()
    nearest = []
    for image in unseen.images[rows, views].flatten(1).float().split(32):
        squares = table.square().sum(1) - 2 * image @ table.mT
        nearest.append(squares.argmin(1) // VIEWS)
    flat = known.flatten(1).float()
    both = truth.flatten(1).float() @ flat.mT
    union = truth.flatten(1).float().sum(1, keepdim=True) + flat.sum(1) - both
    return {
        "mean shape": overlap(means[unseen.kinds[rows]], truth),
        "most similar picture": overlap(known[torch.cat(nearest)], truth),
        "best shape": (both / union).amax(1),
    }


def measured(
    networks: dict[str, Network], shapes: Shapes, unseen: Shapes, rows: torch.Tensor, views: torch.Tensor
) -> dict[str, torch.Tensor]:
    """Return the IoU (N,) of each network, and of what needs none, on views of unseen shapes."""
    images, truth = unseen.pictures(rows, views), unseen.voxels[rows]
    scores = {member: overlap(solids(network, images), truth) for member, network in networks.items()}
    return scores | without_network(shapes, unseen, rows, views)


def lead(scores: dict[str, torch.Tensor], rows: torch.Tensor) -> str:
    """Say what the first network has more than the most similar picture, and the standard error of that over shapes."""
    ahead = next(iter(scores.values())) - scores["most similar picture"]
    means = torch.stack([ahead[rows == shape].mean() for shape in rows.unique()])
    error = float(means.std()) / len(means) ** 0.5
    return f"ahead of the most similar picture by {float(means.mean()):.4f} ± {error:.4f}"


def fitted(network: Network, shapes: Shapes, chosen: torch.Tensor, member: str, size: int, steps: int) -> torch.Tensor:
    """Fit the ball itself to all 24 silhouettes of each shape (K,), two at a time; return voxels.

    It is where this ball and this loss lead when nothing has to be guessed.
    """
    random = torch.Generator().manual_seed(0)
    offset, centre = (torch.zeros(len(chosen), *rest, requires_grad=True) for rest in ((642, 3), (3,)))
    optimizer = torch.optim.Adam([offset, centre], 0.05)
    for step in range(steps):
        optimizer.param_groups[0]["lr"] = rate_at(0.05, step / steps)
        views = torch.randint(VIEWS, (2, len(chosen)), generator=random)
        target = torch.stack([shapes.pictures(chosen, v)[:, 3] for v in views])
        vertices = network.moved(offset, centre)
        render = soft_renderer(member, size, step / steps)
        loss = loss_of(network.mesh, vertices.expand(2, -1, -1, -1), render, target, views)
        optimizer.zero_grad()
        # Each shape by itself: the mean over them becomes a sum.
        (loss * len(chosen)).backward()
        optimizer.step()
    return network.mesh.with_vertices(network.moved(offset, centre).detach()).voxelized(VOXELS, bounds=BOX)


def table_of(scores: dict[str, torch.Tensor], kinds: torch.Tensor, names: list[str], title: str) -> list[str]:
    """Return lines of the mean scores (N,) of each class, and of their mean."""
    lines = [f"{title:26}" + "".join(f"{name:>10}" for name in [*names, "mean"])]
    for name, score in scores.items():
        means = torch.stack([score[kinds == k].mean() for k in range(len(names))])
        lines.append(f"{name:26}" + "".join(f"{float(x):10.3f}" for x in [*means, means.mean()]))
    return lines


def picture(shapes: Shapes, network: Network, path: pathlib.Path) -> None:
    """Draw inputs, and the meshes from the same view and from the other side, two of each class."""
    render = gd.Renderer(160, coverage="antialiased", shading="lambert", outputs=("rgb",), background=(1.0, 1.0, 1.0))
    columns = []
    for kind in range(len(shapes.names)):
        for shape in shapes.test[shapes.kinds[shapes.test] == kind][:2]:
            view = torch.tensor([(5 * int(shape)) % VIEWS])
            image = shapes.pictures(shape[None], view)
            with torch.no_grad():
                mesh = network.mesh.with_vertices(network(image)[0])
                drawn = render(mesh, cameras(torch.cat([view, view + 9])), LIGHTS).rgb
            seen = torch.nn.functional.interpolate(image[:, :3] * image[:, 3:] + 1 - image[:, 3:], size=160)
            columns.append(torch.cat([seen[0].permute(1, 2, 0), *drawn]))
    iio.imwrite(path, (torch.cat(columns, 1).clamp(0, 1) * 255).byte().numpy())


def main() -> None:
    """Train, measure, draw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--output", type=pathlib.Path, default=pathlib.Path("out/single_view"))
    parser.add_argument("--shapes", type=int, default=300, help="of each class")
    parser.add_argument("--size", type=int, default=32, help="pixels of a side")
    parser.add_argument("--batch", type=int, default=16, help="shapes a step, each seen from two views")
    parser.add_argument("--steps", type=int, default=16000)
    parser.add_argument("--rate", type=float, default=4e-4, help="of Adam, until the last quarter")
    parser.add_argument("--members", nargs="+", default=["uniform"], choices=[*MEMBERS, "all"])
    parser.add_argument("--views", type=int, default=4, help="of each held-out shape that are measured")
    parser.add_argument("--more", type=int, default=0, help="shapes of each class to draw and measure besides")
    parser.add_argument("--fits", type=int, default=4, help="held-out shapes of each class that a ball is fitted to")
    parser.add_argument("--parts", type=int, help="of a batch, that processes can share: one for each if not given")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--shapenet", type=pathlib.Path, help="folder of the files of NMR and SoftRas")
    parser.add_argument("--quick", action="store_true", help="few shapes, few steps: for tests")
    options = parser.parse_args()
    if options.more and options.shapenet:
        raise SystemExit("single_view: --more draws shapes of our own; leave it out with --shapenet.")
    # Adam's means of units that are off fade to numbers so small that a step takes twice as long. Threads inherit this
    # where they begin, so it comes before whatever begins them.
    torch.set_flush_denormal(True)
    if options.quick:
        options.shapes, options.steps, options.batch, options.views = 5, 12, 2, 2
        options.fits = min(options.fits, 1)
    options.output.mkdir(parents=True, exist_ok=True)
    team = Team(options.parts)
    kept, nodes = options.output / f"shapes_{options.shapes}_{options.size}.pt", 40 if options.quick else 64
    shapes = (
        read_shapenet(options.shapenet)
        if options.shapenet
        else kept_shapes(kept, team, options.shapes, options.size, nodes)
    )
    if shapes.images.shape[2] != options.size:
        raise SystemExit(f"single_view: --size must be the {shapes.images.shape[2]} of the images; got {options.size}.")
    members = list(MEMBERS) if "all" in options.members else options.members
    networks = {member: train(shapes, member, options, team, options.output) for member in members}
    if team.rank:
        return
    rows, views = views_of(shapes.test, options.views)
    scores = measured(networks, shapes, shapes, rows, views)
    lines = table_of(scores, shapes.kinds[rows], shapes.names, "IoU of held-out shapes")
    lines.append(lead(scores, rows))
    if options.more:
        more = make_shapes(options.more, options.size, nodes, options.shapes)
        chosen, seen = views_of(torch.arange(len(more.kinds)), options.views)
        found = measured(networks, shapes, more, chosen, seen)
        lines += table_of(found, more.kinds[chosen], more.names, f"of {options.more} more of each")
        lines.append(lead(found, chosen))
    if options.fits:
        chosen = torch.cat(
            [shapes.test[shapes.kinds[shapes.test] == k][: options.fits] for k in range(len(shapes.names))]
        )
        voxels = fitted(networks[members[0]], shapes, chosen, members[0], options.size, 12 if options.quick else 300)
        few = {name: torch.stack([score[rows == k].mean() for k in chosen]) for name, score in scores.items()}
        few["ball fitted to 24 views"] = overlap(voxels, shapes.voxels[chosen])
        title = f"of the first {options.fits} of each"
        lines += table_of(few, shapes.kinds[chosen], shapes.names, title)
    (options.output / "table.txt").write_text("\n".join(lines) + "\n")
    print("\n".join(lines))
    picture(shapes, networks[members[0]], options.output / "single_view.png")


if __name__ == "__main__":
    main()
