# SPDX-License-Identifier: Apache-2.0
"""Relaxed sorting: the experiments of the source that need no download, and what geodiff uses orders for.

    python tests/benchmarks/sorting.py table                     # table 3.1, layers of networks: seconds
    python tests/benchmarks/sorting.py digits --steps 1000       # table 3.7 on scikit-learn's digits: 4 s a seed
    python tests/benchmarks/sorting.py topk --steps 400          # tables 4.1 and 4.3 likewise: 1 s a seed and row
    python tests/benchmarks/sorting.py peers                     # the packages diffsort and difftopk: values and time
    python tests/benchmarks/sorting.py panes robust neighbours   # depth, outliers, metrics: a minute
    python tests/benchmarks/sorting.py clouds --seeds 8          # surfaces of clouds with outliers: five minutes

Source: F. Petersen, "Learning with differentiable algorithms" (2022), chapters 3 and 4, of MNIST, SVHN and CIFAR with
convolutional networks and 10⁵ steps and more. What stands beside its figures here is of other data (1797 digits of
8 × 8 pixels) and a small network: it can show whether the method works, and in which order the variants come, no more.
`digits` and `topk` need scikit-learn, `peers` the two packages; geodiff needs none of them.
"""

import argparse
import math
import time
import unittest.mock
from collections.abc import Callable

import torch

import geodiff as gd
from geodiff import soft
from geodiff.soft.networks import depth, splitter
from geodiff.splines import NURBSSurface, fit_cloud, fit_rounds

D = torch.float64
# Inverse temperatures of table 3.8, for odd-even networks of n = 5; of the reciprocal, for F with the slope ½ at 0.
SWAPS: dict[str, tuple[soft.Distribution, float]] = {
    "logistic": (soft.Logistic(), 1 / 30),
    "ART λ = ¼": (soft.Activated("logistic", 0.25), 20 ** (-1 / 0.75)),
    "reciprocal": (soft.Reciprocal(), 1 / 120),
    "Cauchy": (soft.Cauchy(), 1 / 160.2),
    "optimal": (soft.Optimal(), 1 / 20),
}
PUBLISHED = {
    "logistic": (77.2, 89.8), "ART λ = ¼": (83.4, 92.6), "reciprocal": (85.0, 93.3), "Cauchy": (84.9, 93.2),
    "optimal": (85.0, 93.3), "neuralsort": (77.7, 90.1), "sinkhorn": (81.1, 91.7),
}  # fmt: skip


def table() -> None:
    """Table 3.1, and how deep networks are."""
    x = torch.cat([torch.linspace(0, 40, 400001, dtype=D), torch.logspace(2, 9, 400, dtype=D)])
    print("law          slope at 0   error·slope   monotone    (table 3.1: .0696, 1/4, 1/π² = .1013, 1/16)")
    laws = ["logistic", "reciprocal", "cauchy", "optimal", "gaussian", "laplace", "hyperbolic_secant", "algebraic",
            "uniform", "cubic_hermite", "wigner_semicircle"]  # fmt: skip
    for name in laws:
        slope = float(soft.as_distribution(name).pdf(torch.zeros((), dtype=D)))
        low = soft.relaxed_min(x, 0.0, name, temperature=1.0)
        print(f"{name:18} {slope:.4f}  {float(low.max()) * slope:8.4f}  {bool(low.diff().min() >= -1e-7)}")
    print("layers: (n, k)  bitonic  splitter  its comparators    (source: 22 for (1024, 5), 27 for (10450, 5))")
    for n, k in ((16, 5), (100, 5), (1024, 5), (10450, 5)):
        print(n, k, depth("bitonic", n), depth("splitter", n, k), sum(len(low) for low, _ in splitter(n, k)))


def halves() -> tuple[torch.Tensor, torch.Tensor, int]:
    """Digits, their labels, and how many are for training."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    order = torch.randperm(len(digits.images), generator=torch.Generator().manual_seed(0))
    return torch.tensor(digits.images).float()[order] / 16, torch.tensor(digits.target)[order], 1400


def numbers(first: int, last: int, count: int, draw: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    """Four digits each, side by side, and the numbers that they are."""
    images, labels, _ = halves()
    which = torch.randint(first, last, (*([count] if isinstance(count, int) else count), 4), generator=draw)
    value = (labels[which] * torch.tensor([1000, 100, 10, 1])).sum(-1)
    return images[which].movedim(-3, -2).flatten(-3), value


def train_order(
    method: str, law: soft.Distribution | None, temperature: float, steps: int, n: int, seed: int
) -> tuple[float, float]:
    """Train a network from the order of n numbers alone; return how many orders and ranks are right, per cent."""
    torch.manual_seed(seed)
    draw, split = torch.Generator().manual_seed(seed), halves()[2]
    net = torch.nn.Sequential(torch.nn.Linear(256, 64), torch.nn.ReLU(), torch.nn.Linear(64, 1))
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-3)
    images, values = numbers(0, split, 20000, draw)
    for _ in range(steps):
        which = torch.randint(0, len(images), (100, n), generator=draw)
        score = net(images[which])[..., 0]
        matrix = soft.sort_matrix(score, method, temperature=temperature, distribution=law)
        loss = soft.permutation_loss(matrix, values[which].argsort(-1))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    images, values = numbers(split, 1797, (2000, n), torch.Generator().manual_seed(99))
    with torch.no_grad():
        same = net(images)[..., 0].argsort(-1) == values.argsort(-1)
    return 100 * float(same.all(-1).float().mean()), 100 * float(same.float().mean())


def digits(steps: int, seeds: int, n: int) -> None:
    """Table 3.7: sorting supervision, all orders right (EM) and ranks right (EW)."""
    rows = [(name, "odd_even", *swap) for name, swap in SWAPS.items()]
    rows += [(name, name, None, t) for name, t in (("softsort", 0.1), ("neuralsort", 0.3))]
    print(f"n = {n}, {steps} steps: EM, EW; EM of each seed; published for MNIST at n = 5")
    for name, method, law, temperature in rows:
        found = [train_order(method, law, temperature, steps, n, seed) for seed in range(seeds)]
        text = " ".join(f"{em:.1f}" for em, _ in found)
        print(f"{name:12} {spread(found)}  EM {text}   published {PUBLISHED.get(name, '–')}", flush=True)


def spread(rows: list[tuple[float, ...]]) -> str:
    """Mean and standard deviation over seeds, of each column."""
    values = torch.tensor(rows)
    deviation = values.std(0) if len(rows) > 1 else torch.full_like(values[0], torch.nan)
    return "  ".join(f"{m:.1f} ± {d:.1f}" for m, d in zip(values.mean(0).tolist(), deviation.tolist(), strict=True))


def topk(steps: int, seeds: int) -> None:
    """Tables 4.1 and 4.3: digits classified by the loss of P_K; per cent right in the first, first 2, first 3."""
    images, labels, split = halves()
    images = images.flatten(1)
    losses = {"softmax cross-entropy": None, "[1]": [1.0], "[0, 0, 1]": [0.0, 0.0, 1.0], "[.5, 0, .5]": [0.5, 0.0, 0.5],
              "[⅓, ⅓, ⅓]": [1 / 3, 1 / 3, 1 / 3]}  # fmt: skip
    for method in ("splitter", "softsort", "neuralsort"):
        for name, p_k in losses.items():
            if p_k is None and method != "splitter":
                continue
            result = []
            for seed in range(seeds):
                torch.manual_seed(seed)
                net = torch.nn.Sequential(torch.nn.Linear(64, 32), torch.nn.ReLU(), torch.nn.Linear(32, 10))
                optimizer = torch.optim.Adam(net.parameters(), lr=3e-3)
                for _ in range(steps):
                    which = torch.randint(0, split, (100,))
                    score = net(images[which])
                    if p_k is None:
                        loss = torch.nn.functional.cross_entropy(score, labels[which])
                    else:
                        found = soft.topk(score, len(p_k), method, temperature=1.0)
                        loss = soft.rank_loss(found.matrix, labels[which], p_k)
                    optimizer.zero_grad()
                    loss.backward()
                    optimizer.step()
                with torch.no_grad():
                    best = net(images[split:]).topk(3).indices == labels[split:, None]
                result.append(tuple(100 * float(best[:, :k].any(-1).float().mean()) for k in (1, 2, 3)))
            print(f"{method if p_k else '':10} {name:22} {spread(result)}", flush=True)


def least(call: Callable[[], object], turns: int = 5) -> float:
    """Milliseconds of the processor, the least of some turns."""
    found = []
    for _ in range(turns):
        begin = time.process_time()
        call()
        found.append(time.process_time() - begin)
    return 1e3 * min(found)


def peers() -> None:
    """Matrices and times of diffsort and difftopk, forward and backward."""
    import diffsort
    import difftopk

    for kind, n in (("odd_even", 16), ("bitonic", 16), ("bitonic", 128), ("bitonic", 1024)):
        x = torch.randn(1, n, dtype=D)
        theirs = diffsort.DiffSortNet(kind, n, steepness=10.0, distribution="cauchy")
        off = (soft.sort_matrix(x, kind, temperature=0.1) - theirs(x)[1].mT).abs().max() if n < 1000 else math.nan
        y = x.float().requires_grad_()
        ours = least(lambda y=y, kind=kind: soft.sort_matrix(y, kind, temperature=0.1).square().sum().backward())
        other = least(lambda y=y, net=theirs: net(y)[1].square().sum().backward(), 2)
        few = least(lambda y=y: soft.topk(y, 5, "splitter", temperature=0.1).matrix.square().sum().backward())
        alone = least(lambda y=y, kind=kind: soft.sort(y, kind, temperature=0.1).square().sum().backward())
        print(
            f"{kind} {n}: differ {off:.1e}; ms: matrix {ours:.2f}, diffsort {other:.2f}, values {alone:.2f}, "
            f"5 rows {few:.2f}"
        )
    x = torch.randn(4, 16)
    for name, theirs in (("softsort", difftopk.SoftSort(tau=0.5)), ("neuralsort", difftopk.NeuralSort(tau=0.5))):
        matrix = soft.sort_matrix(x, name, temperature=0.5, descending=name == "softsort")
        other = theirs(x) if name == "softsort" else theirs(x).mT
        print(f"{name}: differ {(matrix - other).abs().max():.1e}")
    for p_k in ([0.5, 0.0, 0.5], [0.2, 0.3, 0.5]):
        y = torch.randint(0, 16, (4,))
        theirs = difftopk.TopKCrossEntropyLoss(
            "bitonic__non_sparse", 2.0, p_k, 16, distribution="cauchy", top1_mode="sm"
        )
        found = soft.topk(x, 3, "bitonic", temperature=0.5)
        print("rank_loss:", float(soft.rank_loss(found.matrix, y, p_k, scores=x)), "difftopk:", float(theirs(x, y)))


def panes() -> None:
    """Depth in a relaxed order beside the softmax: how far from front to back, and the time."""
    colors = torch.rand(1280, 3, generator=torch.Generator().manual_seed(0))
    mesh, eye = gd.icosphere(3).with_attributes(face_colors=colors), gd.Camera.orbit(2.7, 20.0, 37.0, fov_deg=50.0)
    for tau in (1e-2, 1e-3):
        options = {"scale": tau, "outputs": ("rgb",)}
        exact = gd.Renderer(64, depth="sort", gamma=1e-7, max_fragments=None, max_error=1e-6, **options)(mesh, eye).rgb
        for depth_mode, gamma in (("hard", 1.0), ("softmax", 1e-1), ("softmax", 1e-2), ("softmax", 1e-4),
                                  ("sort", 1e-1), ("sort", 1e-2), ("sort", 1e-4)):  # fmt: skip
            render = gd.Renderer(64, depth=depth_mode, gamma=gamma, **options)
            off = (render(mesh, eye).rgb - exact).abs().mean()
            vertices = mesh.vertices.clone().requires_grad_()
            both = least(lambda r=render, v=vertices: r(mesh.with_vertices(v), eye).rgb.square().sum().backward())
            print(
                f"τ {tau:g} {depth_mode} γ {gamma:g}: mean |rgb − front to back| {float(off):.5f}, "
                f"both ways {both:.1f} ms"
            )


def robust(seeds: int) -> None:
    """A cloud with outliers is moved onto a mesh: which mean of its distances to descend on."""
    mesh = gd.box((1.0, 0.7, 0.4))
    kinds: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
        "mean of squares": lambda r: r.square().mean(),
        "mean": lambda r: r.mean(),
        "Huber, 0.05": lambda r: torch.nn.functional.huber_loss(r, torch.zeros_like(r), delta=0.05),
        "soft median": lambda r: soft.quantile(r, 0.5, temperature=0.01),
        "trimmed, keep 0.5": lambda r: soft.trimmed_mean(r, 0.5, temperature=0.01),
        "trimmed, keep 0.65": lambda r: soft.trimmed_mean(r, 0.65, temperature=0.01),
    }
    print("outliers (one side)  loss  median over seeds of the largest error of a point, in mesh units")
    for share in (0.0, 0.3):
        for name, kind in kinds.items():
            errors = []
            for seed in range(seeds):
                draw = torch.Generator().manual_seed(seed)
                points = _surface(mesh, 300, draw)
                true = points.clone()
                count = int(share * len(points))
                points = points + 0.005 * torch.randn(points.shape, generator=draw)
                points[:count] = 0.5 * torch.rand(count, 3, generator=draw) + torch.tensor([0.4, 0.4, 0.3])
                turn = 0.25 * torch.randn(3, generator=draw)
                shift = 0.08 * torch.randn(3, generator=draw)
                moved = points @ _rotation(turn).T + shift
                pose = torch.zeros(6, requires_grad=True)
                optimizer = torch.optim.Adam([pose], lr=2e-2)
                for step in range(200):
                    optimizer.param_groups[0]["lr"] = 2e-2 * 0.98**step
                    back = moved @ _rotation(pose[:3]).T + pose[3:]
                    loss = kind(gd.point_mesh_distance(back, mesh))
                    optimizer.zero_grad()
                    loss.backward()
                    optimizer.step()
                with torch.no_grad():
                    again = (true @ _rotation(turn).T + shift) @ _rotation(pose[:3]).T + pose[3:]
                errors.append(float((again - true).norm(dim=-1).max()))
            print(f"{share:.0%}  {name:20} {torch.tensor(errors).median():.4f}  (worst {max(errors):.3f})", flush=True)


def clouds(seeds: int) -> None:
    """A NURBS surface fitted to a cloud of which some is wrong: by least squares, and without the farthest points."""
    grid = torch.cartesian_prod(*[torch.linspace(-0.97, 0.97, 40, dtype=D)] * 2)
    true = torch.cat([grid, _height(grid)], 1)
    print(
        "rms distance of the true surface from the fit, in deviations of the noise: median (least to largest); s a fit"
    )
    for where in ("none", "box", "beside", "far", "clump"):
        for share in (0.0,) if where == "none" else (0.1, 0.3):
            kinds: dict[str, Callable[[torch.Tensor], NURBSSurface]] = {
                "plain": lambda x: fit_cloud(x).surface,
                "Huber": _huber,
                "farthest dropped": lambda x, share=share: _dropped(x, share),
                "trim, hard": lambda x, share=share: _hard(x, share),
                "trim": lambda x, share=share: fit_cloud(x, trim=share).surface,
                "trim 0.3": lambda x: fit_cloud(x, trim=0.3).surface,
            }
            for name, fit in kinds.items():
                if where == "none" and name.split(",")[0] == "trim":
                    continue
                found, begin = [], time.process_time()
                for seed in range(seeds):
                    mesh = fit(_outlying(where, share, seed)).tessellate(60, 60)
                    found.append(float(gd.point_mesh_distance(true, mesh).square().mean().sqrt() / NOISE))
                seconds = (time.process_time() - begin) / seeds
                text = f"{torch.tensor(found).median():.2f} ({min(found):.2f} to {max(found):.2f})"
                print(f"{where:7} {share:.0%}  {name:18} {text}  {seconds:.2f} s", flush=True)


NOISE = 0.01


def _height(xy: torch.Tensor) -> torch.Tensor:
    return 0.3 * torch.sin(3 * xy[:, :1]) * xy[:, 1:] + 0.1 * xy[:, :1]


def _outlying(where: str, share: float, seed: int, n: int = 500) -> torch.Tensor:
    """A bent square, and points elsewhere: in its box, to one side, in a box three times as large, in a clump."""
    draw = torch.Generator().manual_seed(seed)
    xy = 2 * torch.rand(n, 2, dtype=D, generator=draw) - 1
    points = torch.cat([xy, _height(xy)], 1)
    points = points + NOISE * torch.randn(points.shape, dtype=D, generator=draw)
    count = int(share * n)
    even, normal = torch.rand(count, 3, dtype=D, generator=draw), torch.randn(count, 3, dtype=D, generator=draw)
    if where == "beside":
        points[:count, 2] += 0.2 + 0.8 * even[:, 2]
    elif where == "clump":
        points[:count] = torch.tensor([0.7, 0.6, 0.9], dtype=D) + 0.15 * normal
    else:
        points[:count] = (3.0 if where == "far" else 1.0) * (2 * even - 1)
    return points


def _dropped(points: torch.Tensor, share: float) -> NURBSSurface:
    """By hand: fit, drop the farthest, fit again, thrice."""
    left, keep = points, math.ceil((1 - share) * len(points))
    for _ in range(3):
        surface = fit_cloud(left).surface
        left = points[gd.point_mesh_distance(points, surface.tessellate(60, 60)).argsort()[:keep]]
    return fit_cloud(left).surface


def _hard(points: torch.Tensor, share: float) -> NURBSSurface:
    """Weights of 0 or 1 from the first round on."""
    with unittest.mock.patch.object(fit_rounds, "BORDER", 1e-9):
        return fit_cloud(points, trim=share).surface


def _huber(points: torch.Tensor) -> NURBSSurface:
    """Weights of Huber's loss, at 1.345 deviations as the median of distances across tells them."""

    def choose(rounds: fit_rounds.Rounds, residuals: torch.Tensor) -> None:
        distance = residuals.norm(dim=-1)
        weight = (1.345 * distance.median() / 0.6745 / distance.clamp_min(1e-12)).clamp_max(1)
        rounds.omega = weight / weight.mean()

    with unittest.mock.patch.object(fit_rounds.Rounds, "choose", choose):
        return fit_cloud(points, trim=1e-9).surface


def _surface(mesh: gd.Mesh, count: int, draw: torch.Generator) -> torch.Tensor:
    face = torch.multinomial(mesh.face_areas, count, replacement=True, generator=draw)
    u, v = torch.rand(2, count, 1, generator=draw)
    a, b, c = mesh.vertices[mesh.faces[face]].unbind(1)
    return a + (1 - u.sqrt()) * (b - a) + u.sqrt() * v * (c - a)


def _rotation(turn: torch.Tensor) -> torch.Tensor:
    zero = torch.zeros(())
    x, y, z = turn
    return torch.linalg.matrix_exp(torch.stack([zero, -z, y, z, zero, -x, -y, x, zero]).reshape(3, 3))


def neighbours(seeds: int) -> None:
    """Two sheets close together: learn how much normals count beside positions, so that neighbours are of one sheet."""
    for seed in range(seeds):
        draw = torch.Generator().manual_seed(seed)

        def cloud(draw: torch.Generator = draw) -> tuple[torch.Tensor, torch.Tensor]:
            uv, side = torch.rand(600, 2, generator=draw), torch.randint(0, 2, (600,), generator=draw)
            height = 0.1 * torch.sin(6 * uv[:, :1]) + 0.03 * side[:, None]
            slope = 0.6 * torch.cos(6 * uv[:, :1])
            normal = torch.cat([-slope, torch.zeros_like(slope), torch.ones_like(slope)], 1) * (1 - 2 * side[:, None])
            normal = torch.nn.functional.normalize(normal, dim=1) + 0.3 * torch.randn(600, 3, generator=draw)
            return torch.cat([uv, height, normal], 1) + 0.005 * torch.randn(600, 6, generator=draw), side

        def wrong(points: torch.Tensor, side: torch.Tensor, scale: torch.Tensor) -> float:
            near = torch.cdist(points * scale, points * scale).topk(9, largest=False).indices[:, 1:]
            return 100 * float((side[near] != side[:, None]).float().mean())

        (points, side), (held, their) = cloud(), cloud()
        scale = torch.zeros(6, requires_grad=True)
        with torch.no_grad():
            scale[3:] = math.log(1e-2)  # normals hardly count
        begin, optimizer = wrong(held, their, scale.detach().exp()), torch.optim.Adam([scale], lr=0.1)
        for _ in range(60):
            some = points * scale.exp()
            near = gd.transport.soft_nearest(some, some, 9, temperature=0.02, candidates=40)
            same = near.gather(torch.nn.functional.one_hot(side).float())[:, 1:].gather(
                -1, side[:, None, None].expand(-1, 8, 1)
            )
            loss = -same.clamp_min(1e-6).log().mean() + 0.1 * scale[:2].square().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        end = wrong(held, their, scale.detach().exp())
        scales = [round(float(s), 2) for s in scale.detach().exp()]
        print(f"seed {seed}: wrong neighbours of 8, held out: {begin:.1f} % -> {end:.1f} %, scales {scales}")


def main() -> None:
    """Run what is named."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    names = ("table", "digits", "topk", "peers", "panes", "robust", "clouds", "neighbours")
    parser.add_argument("what", nargs="+", choices=names)
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--n", type=int, default=5)
    options = parser.parse_args()
    torch.set_num_threads(1)
    for name in options.what:
        if name == "digits":
            digits(options.steps, options.seeds, options.n)
        elif name == "topk":
            topk(options.steps, options.seeds)
        elif name in ("robust", "clouds", "neighbours"):
            {"robust": robust, "clouds": clouds, "neighbours": neighbours}[name](options.seeds)
        else:
            {"table": table, "peers": peers, "panes": panes}[name]()


if __name__ == "__main__":
    main()
