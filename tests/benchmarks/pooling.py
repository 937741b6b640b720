# SPDX-License-Identifier: Apache-2.0
"""Figure 1 of "Exploiting Problem Structure in Deep Declarative Networks" (Gould et al., 2022): robust pooling.

    python tests/benchmarks/pooling.py -o pooling.json             # 10² to 100² pixels, 128 channels
    python tests/benchmarks/pooling.py --sides 10 32 --channels 16

A feature map of √n × √n pixels, batch 1, is pooled with each of the five penalties: time of forward and of backward
(medians), and memory: the most that the allocator held beyond what it held before the call. The result of the backward
pass, as large as the map, is part of it. Beside it the same by L-BFGS forward (as in the paper, by torch.optim) and the
paper's backward (its figure 2), and how far from stationary each result is. Features are normal, and a tenth of the
pixels are outliers; alpha is their typical distance.
"""

import argparse
import contextlib
import json
import math
import os
import pathlib
import platform
import statistics
import time
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

import geodiff as gd
from geodiff.transport.pooling import PENALTIES

ALPHA = 10.0


def feature_map(side: int, channels: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(1, channels, side * side, generator=generator)
    x[:, :, : side * side // 10] += 3
    return x


def phi(name: str, z: torch.Tensor) -> torch.Tensor:
    u = z / ALPHA
    if name == "quadratic":
        return z * z / 2
    if name == "pseudo_huber":
        return ALPHA**2 * ((1 + u * u).sqrt() - 1)
    if name == "huber":
        return torch.where(u <= 1, z * z / 2, ALPHA * (z - ALPHA / 2))
    if name == "welsch":
        return 1 - (-u * u / 2).exp()
    return torch.where(u <= 1, z * z / 2, torch.full_like(z, ALPHA**2 / 2))


def kappa(name: str, z: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Table 1 of the paper."""
    u = z / ALPHA
    one, none = torch.ones_like(z), torch.zeros_like(z)
    if name == "quadratic":
        return one, none
    if name == "pseudo_huber":
        return (1 + u * u) ** -0.5, -((1 + u * u) ** -1.5) / ALPHA**2
    if name == "huber":
        return torch.where(u <= 1, one, ALPHA / z), torch.where(u <= 1, none, -ALPHA / z**3)
    if name == "welsch":
        return (-u * u / 2).exp() / ALPHA**2, -(-u * u / 2).exp() / ALPHA**4
    return (u <= 1).to(z.dtype), none


class Published(torch.autograd.Function):
    """L-BFGS from the mean (and the median, where the penalty is not convex), and the backward pass of figure 2."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, name: str) -> torch.Tensor:
        starts = [x.mean(-1)] if PENALTIES[name].convex else [x.mean(-1), x.median(-1).values]
        best, least = starts[0], math.inf
        for start in starts if name != "quadratic" else []:
            y = start.clone().requires_grad_()
            solver = torch.optim.LBFGS([y], max_iter=100, tolerance_grad=1e-5, line_search_fn="strong_wolfe")

            def closure(y: torch.Tensor = y, solver: Any = solver) -> torch.Tensor:
                solver.zero_grad()
                value = phi(name, (y[:, :, None] - x).norm(dim=1)).sum()
                value.backward()
                return value

            with torch.enable_grad():
                solver.step(closure)
                value = float(closure().detach())
            if value < least:
                best, least = y.detach(), value
        ctx.save_for_backward(x, best)
        ctx.name = name
        return best.clone()

    @staticmethod
    def backward(ctx: Any, v: torch.Tensor) -> tuple[torch.Tensor, None]:
        x, y = ctx.saved_tensors
        difference = y[:, :, None] - x
        k1, k2 = kappa(ctx.name, difference.norm(dim=1, keepdim=True) + 1e-9)
        if bool((k2 == 0).all()):
            return k1 * (v / k1.sum(2))[:, :, None], None
        h = k1.sum(2)[:, :, None] * torch.eye(x.shape[1]) + torch.einsum("bik,bjk->bij", difference, k2 * difference)
        w = torch.cholesky_solve(v[:, :, None], torch.linalg.cholesky(h))[:, :, 0]
        u = torch.einsum("bi,bik->bk", w, k2 * difference)
        return k1 * w[:, :, None] + torch.einsum("bk,bik->bik", u, difference), None


def median_ms(calls: dict[str, Callable[[], Any]], budget: float = 1.0) -> dict[str, float]:
    """Medians in milliseconds; the calls take turns, so that a busy machine slows all of them."""
    times: dict[str, list[float]] = {name: [] for name in calls}
    for call in calls.values():
        call()
    began = time.perf_counter()
    while len(next(iter(times.values()))) < 3 or time.perf_counter() - began < budget:
        for name, call in calls.items():
            start = time.perf_counter()
            call()
            times[name].append(time.perf_counter() - start)
    return {name: 1e3 * statistics.median(values) for name, values in times.items()}


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Drop what native code writes to stderr: torch's profiler is talkative."""
    kept, null = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(null)


def peak_mb(call: Callable[[], Any]) -> float:
    """The most that the call's tensors held at once, from the allocator's own record."""
    call()
    with quiet(), profile(activities=[ProfilerActivity.CPU], profile_memory=True) as record:
        kept = call()
    del kept
    held = most = 0
    events = record.profiler.kineto_results.events()
    for event in sorted((e for e in events if e.name() == "[memory]"), key=lambda e: e.start_ns()):
        held += event.nbytes()
        most = max(most, held)
    return most / 2**20


def left(name: str, x: torch.Tensor, y: torch.Tensor) -> float:
    """How far the result is from the weighted average that it should equal, relative to the points' distances."""
    x, y = x.double(), y.detach().double()
    difference = y[:, :, None] - x
    z = difference.norm(dim=1, keepdim=True)
    k1 = kappa(name, z)[0]
    return float((k1 * difference).sum(-1).norm() / (k1 * z).sum())


def row(name: str, side: int, channels: int) -> dict[str, Any]:
    x = feature_map(side, channels)
    leaf = x.clone().requires_grad_()
    poolers = {
        "ours": lambda t: gd.robust_pool(t, name, ALPHA),
        "published": lambda t: Published.apply(t, name),
    }
    result: dict[str, Any] = {"penalty": name, "n": side * side, "channels": channels, "map_mb": x.nbytes / 2**20}
    outputs = {who: pool(leaf) for who, pool in poolers.items()}
    upstream = torch.randn(outputs["ours"].shape, generator=torch.Generator().manual_seed(1))

    def back(who: str) -> torch.Tensor:
        return torch.autograd.grad(outputs[who], leaf, upstream, retain_graph=True)[0]

    passes = {
        "forward": {who: lambda pool=pool: pool(x) for who, pool in poolers.items()},
        "backward": {who: lambda who=who: back(who) for who in poolers},
    }
    for which, calls in passes.items():
        for who, value in median_ms(calls).items():
            result[f"{who}_{which}_ms"] = value
        for who, call in calls.items():
            result[f"{who}_{which}_mb"] = peak_mb(call)
    for who in poolers:
        result[f"{who}_residual"] = left(name, x, outputs[who])
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sides", type=int, nargs="+", default=[10, 20, 32, 50, 75, 100], help="√n")
    parser.add_argument("--channels", type=int, default=128)
    parser.add_argument("--penalties", nargs="+", default=list(PENALTIES), choices=list(PENALTIES))
    parser.add_argument("-o", "--output", type=pathlib.Path, help="JSON file")
    arguments = parser.parse_args()
    print(f"{'':33}{'forward':>18}{'backward':>18}{'forward':>16}{'backward':>16}{'residual':>18}")
    print(f"{'penalty':20} {'n':>6} MB ", *["ms: ours  published"] * 2, *["MB: ours  publ."] * 2, "   ours published")
    rows = []
    for side in arguments.sides:
        for name in arguments.penalties:
            r = row(name, side, arguments.channels)
            rows.append(r)
            cells = [f"{name:20} {r['n']:6} {r['map_mb']:4.1f}"]
            for unit, width in (("ms", 8), ("mb", 7)):
                for which in ("forward", "backward"):
                    cells += [f"{r[f'{who}_{which}_{unit}']:{width}.2f}" for who in ("ours", "published")]
            cells += [f"{r[f'{who}_residual']:9.1e}" for who in ("ours", "published")]
            print(" ".join(cells), flush=True)
    if arguments.output:
        setting = {
            "alpha": ALPHA,
            "threads": torch.get_num_threads(),
            "torch": torch.__version__,
            "machine": platform.processor() or platform.machine(),
        }
        arguments.output.write_text(json.dumps({"setting": setting, "rows": rows}, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
