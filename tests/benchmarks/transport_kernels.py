# SPDX-License-Identifier: Apache-2.0
"""How fast the sums of optimal transport are, beside torch in the log domain, in one run; and their peak memory.

    python tests/benchmarks/transport_kernels.py -o transport_kernels.json   # all parts
    python tests/benchmarks/transport_kernels.py speed                       # one: speed, large, memory

Setting: two clouds of N points, uniform in the unit cube, equal weights, potentials of a few iterations at that ε. The
peer computes rows of the matrix a chunk at a time, `logsumexp(h − C/ε)` with `C` from a matrix product, which is
faster and less accurate than differences; the chunk is the fastest of several. At ε = 1 every term counts; at smaller ε
torch computes denormals, which are slow, and ours skip what is too far to count. 50 000 points run without the peer,
which takes minutes. Times are wall-clock medians of turns
that the contestants take, so that a busy machine slows all of them. Quote the ratios: single times depend on the
machine. Peak memory is that of a fresh process (Linux), over one with few points.
"""

import functools
import math
import pathlib
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import report
import torch

from geodiff import ops

CHUNKS = (16, 64, 256)  # rows of the matrix that the peer holds


class Problem:
    """Two clouds with potentials near those of convergence, and what each contestant is called with."""

    def __init__(self, size: int, dim: int, dtype: torch.dtype, epsilon: float, iterations: int = 3) -> None:
        generator = torch.Generator().manual_seed(0)
        draw: dict[str, Any] = {"generator": generator, "dtype": torch.float64}
        self.x, self.y = torch.rand(size, dim, **draw).to(dtype), torch.rand(size, dim, **draw).to(dtype)
        self.epsilon, self.weight = epsilon, -math.log(size)
        self.h = torch.full((size,), self.weight, dtype=dtype)
        self.k = self.h
        for _ in range(iterations):
            self.k = self.weight - ops.lse(self.x, self.y, self.h, epsilon)
            self.h = self.weight - ops.lse(self.y, self.x, self.k, epsilon)

    def lse(self) -> torch.Tensor:
        return ops.lse(self.x, self.y, self.h, self.epsilon)

    def apply(self) -> torch.Tensor:
        return ops.apply(self.x, self.y, self.h, self.k, self.y, self.epsilon)

    def apply_gradient(self) -> torch.Tensor:
        return ops.apply_gradient(self.x, self.y, self.h, self.k, torch.ones_like(self.h)[:, None], self.epsilon)

    def peer(self, chunk: int, plan: bool = False) -> torch.Tensor:
        """`lse`, or where `plan` is set `apply`, a chunk of rows at a time."""
        squares = self.h - self.y.square().sum(-1) / self.epsilon
        scaled = self.y.T * (2 / self.epsilon)
        out = []
        for begin in range(0, len(self.x), chunk):
            x = self.x[begin : begin + chunk]
            exponent = torch.addmm(squares, x, scaled)
            exponent -= x.square().sum(-1, keepdim=True) / self.epsilon
            if plan:
                exponent += self.k[begin : begin + chunk, None]
                out.append(exponent.exp_() @ self.y)
            else:
                out.append(torch.logsumexp(exponent, -1))
        return torch.cat(out)


def take_turns(calls: dict[str, Callable[[], Any]], rounds: int) -> dict[str, float]:
    """Median seconds of each call; they take turns."""
    times: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            began = time.perf_counter()
            call()
            times[name].append(time.perf_counter() - began)
    return {name: statistics.median(t) for name, t in times.items()}


def measure(problem: Problem, threads: int, rounds: int) -> dict:
    torch.set_num_threads(threads)
    size = len(problem.x)
    found = take_turns({str(chunk): functools.partial(problem.peer, chunk) for chunk in CHUNKS}, 1)
    chunk = int(min(found, key=lambda name: found[name]))
    calls = {
        "lse": problem.lse,
        "apply": problem.apply,
        "apply_gradient": problem.apply_gradient,
        "torch_lse": lambda: problem.peer(chunk),
        "torch_apply": lambda: problem.peer(chunk, plan=True),
    }
    times = take_turns(calls, rounds)
    row: dict[str, Any] = {"size": size, "dim": problem.x.shape[1], "epsilon": problem.epsilon, "threads": threads}
    row |= {"dtype": str(problem.x.dtype).removeprefix("torch."), "chunk": chunk}
    row |= {f"{name}_ns_a_pair": 1e9 * t / size**2 for name, t in times.items()}
    row |= {f"{name}_times_torch": times[f"torch_{name}"] / times[name] for name in ("lse", "apply")}
    row["difference"] = float((problem.lse() - problem.peer(chunk)).abs().max())
    report.show(row)
    return row


def speed(threads: list[int]) -> list[dict]:
    rows = []
    for dtype, dim, epsilon in (
        (torch.float32, 3, 1.0),
        (torch.float32, 3, 0.01),
        (torch.float32, 3, 0.001),
        (torch.float32, 2, 0.01),
        (torch.float64, 3, 0.01),
    ):
        problem = Problem(10_000, dim, dtype, epsilon)
        rows += [measure(problem, n, 5) for n in threads]
    return rows


def large(threads: list[int]) -> list[dict]:
    torch.set_num_threads(threads[-1])
    rows = []
    for epsilon in (1.0, 0.01, 0.001):
        problem = Problem(50_000, 3, torch.float32, epsilon, iterations=1)
        calls = {"lse": problem.lse, "apply": problem.apply, "apply_gradient": problem.apply_gradient}
        row: dict[str, Any] = {"size": 50_000, "epsilon": epsilon, "threads": threads[-1], "dtype": "float32"}
        rows.append(row | {f"{name}_s": t for name, t in take_turns(calls, 1).items()})
        report.show(rows[-1])
    return rows


def memory(threads: list[int]) -> list[dict]:
    """Bytes a point are those of inputs, result, the sorted copy and the tiles: 4·(3 + 3 + 1 + 1 + …) in float32."""
    code = (
        "import sys; sys.path.insert(0, 'tests/benchmarks')\n"
        "import torch, transport_kernels\n"
        "torch.set_num_threads(1)\n"
        "p = transport_kernels.Problem(int(sys.argv[1]), 3, torch.float32, 0.001, 1)\n"
        "getattr(p, sys.argv[2])()\n"
        "print(next(int(l.split()[1]) for l in open('/proc/self/status') if l.startswith('VmHWM')) * 1024)\n"
    )

    def peak(size: int, name: str) -> int:
        command = [sys.executable, "-c", code, str(size), name]
        root = pathlib.Path(__file__).parents[2]
        return int(subprocess.run(command, capture_output=True, text=True, check=True, cwd=root).stdout)

    rows = []
    for name in ("lse", "apply", "apply_gradient"):
        least = peak(1100, name)
        for size in (10_000, 50_000):
            most = peak(size, name)
            row = {"sum": name, "size": size, "peak_mb": most / 2**20, "extra_mb": (most - least) / 2**20}
            row["matrix_mb"] = 4 * size**2 / 2**20
            report.show(row)
            rows.append(row)
    return rows


if __name__ == "__main__":
    report.measure(__doc__, {"speed": speed, "large": large, "memory": memory})
