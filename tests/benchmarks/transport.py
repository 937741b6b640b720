# SPDX-License-Identifier: Apache-2.0
"""How fast and small optimal transport is, beside autograd, the paper's layers, POT and GeomLoss, in one run.

    python tests/benchmarks/transport.py -o transport.json          # figure, batch, large: about half an hour
    python tests/benchmarks/transport.py figure --quick             # a few small sizes
    python tests/benchmarks/transport.py huge                       # 50 000 × 50 000: many minutes

`figure` is figure 3 of "Exploiting Problem Structure in Deep Declarative Networks" (Gould et al., 2022): forward and
backward of the plan for a random N × N matrix in [0, 1], ε = 0.02, with random upstream gradient, on one thread,
against the size (at 50 iterations) and against the number of iterations (at N = 500). Contestants: autograd through
iterations that normalise the plan; autograd through iterations that scale two vectors; equation 3 with the whole matrix
of equation 18 inverted; with its blocks (equations 20 to 23, Cholesky); without the constraints, −P ∘ v / ε, which the
figure calls approximate and whose error is as large as the gradient; and ours. Ours is asked for a tolerance that it
cannot reach, so that it goes on to as many iterations, or rounding stops it; its annealing counts, and is done even
where fewer are asked for. *To tolerance* is how it is meant to be used: it stops by itself. The error is that of the
gradient against a converged one in double precision.

`batch`: 8 pairs of clouds of 500 points in the unit cube, C = |x − y|²/2, ε = 0.01, gradient in the matrix, or in the
points for *points* and GeomLoss: of ⟨P, C⟩ with the plan's gradient for *plan*, the block layer and POT's autodiff, of
the regularised cost for the others. GeomLoss goes from the diameter to ε in as many steps, or in its default ones,
which leave it far from converged.

`large`: 10 000 × 10 000 points, gradient in both clouds, streamed, beside logarithms of rows of the matrix that are
computed some rows at a time.

Times are medians of turns that the contestants take, so that a busy machine slows all of them; in `figure`, which has
one thread, of the processor. Quote the ratios.
Memory is the peak of a fresh process (Linux) over what it held before the call: inputs are not part of it, the gradient
is.
"""

import argparse
import functools
import json
import math
import os
import pathlib
import statistics
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from typing import Any

import report
import torch

import geodiff as gd

FIGURE = ("autograd", "autograd_vectors", "full_inverse", "block_inverse", "approximate", "ours", "ours_to_tolerance")
EPSILON = 0.02
MOST_MB = 6000  # a contestant that would record more is not asked
SLOW = 4.0  # seconds: a contestant that takes longer has one turn
CHUNKS = (16, 64, 256)


# Contestants of figure 3: the matrix M (B, N, N), equal weights, so many iterations.


def normalised(matrix: torch.Tensor, epsilon: float, iterations: int) -> torch.Tensor:
    """Scale rows and columns of the plan in turn."""
    n = matrix.shape[-1]
    plan = torch.exp(-matrix / epsilon)
    for _ in range(iterations):
        plan = plan / (n * plan.sum(-1, keepdim=True))
        plan = plan / (n * plan.sum(-2, keepdim=True))
    return plan


def scaled(matrix: torch.Tensor, epsilon: float, iterations: int) -> torch.Tensor:
    """Scale two vectors in turn: autograd keeps these, and the kernel once."""
    n = matrix.shape[-1]
    kernel = torch.exp(-matrix / epsilon)
    v = torch.ones_like(matrix[:, 0])
    for _ in range(iterations):
        u = 1 / (n * (kernel @ v[..., None])[..., 0])
        v = 1 / (n * (kernel.mT @ u[..., None])[..., 0])
    return u[..., None] * kernel * v[:, None]


Solve = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], tuple[torch.Tensor, torch.Tensor]]


class Declarative(torch.autograd.Function):
    """The plan without a graph; backward by equation 3 with the paper's A and H."""

    @staticmethod
    def forward(ctx: Any, matrix: torch.Tensor, epsilon: float, iterations: int, solve: Solve | None) -> torch.Tensor:
        n = matrix.shape[-1]
        plan = torch.exp(matrix / -epsilon)
        for _ in range(iterations):
            plan /= n * plan.sum(-1, keepdim=True)
            plan /= n * plan.sum(-2, keepdim=True)
        ctx.save_for_backward(plan)
        ctx.epsilon, ctx.solve = epsilon, solve
        return plan

    @staticmethod
    def backward(ctx: Any, upstream: torch.Tensor) -> tuple[torch.Tensor, None, None, None]:
        (plan,) = ctx.saved_tensors
        start = upstream * plan  # what v H⁻¹ B is, times ε
        if ctx.solve is None:  # no constraints
            return -start / ctx.epsilon, None, None, None
        rows, columns = start[:, 1:].sum(-1), start.sum(-2)
        s, t = ctx.solve(plan[:, 1:], rows, columns)
        gradient = plan * t[:, None]
        gradient[:, 1:] += plan[:, 1:] * s[..., None]
        return (gradient - start) / ctx.epsilon, None, None, None


def inverse_whole(plan: torch.Tensor, rows: torch.Tensor, columns: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Invert the matrix of equation 18."""
    n, m = plan.shape[-2:]
    matrix = plan.new_zeros(len(plan), n + m, n + m)
    matrix[:, :n, n:], matrix[:, n:, :n] = plan, plan.mT
    matrix.diagonal(dim1=-2, dim2=-1).copy_(torch.cat([plan.sum(-1), plan.new_full((len(plan), m), 1 / m)], -1))
    inverse = torch.stack([torch.linalg.inv(item) for item in matrix])  # batched, torch 2.13 fails on two threads
    found = (inverse @ torch.cat([rows, columns], -1)[..., None])[..., 0]
    return found[:, :n], found[:, n:]


def inverse_blocks(plan: torch.Tensor, rows: torch.Tensor, columns: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Invert it by blocks, equations 21 to 23, as the code of the paper does."""
    m = plan.shape[-1]
    over = plan * m  # P diag(1/c)
    factor = torch.linalg.cholesky(torch.diag_embed(plan.sum(-1)) - plan @ over.mT)
    mixed = torch.cholesky_solve(over, factor)  # −Λ₁₂
    last = m * torch.eye(m) + over.mT @ mixed  # Λ₂₂
    s = torch.cholesky_solve(rows[..., None], factor)[..., 0] - (mixed @ columns[..., None])[..., 0]
    t = (last @ columns[..., None])[..., 0] - (mixed.mT @ rows[..., None])[..., 0]
    return s, t


def ours(matrix: torch.Tensor, epsilon: float, iterations: int) -> torch.Tensor:
    return gd.sinkhorn(cost_matrix=matrix, epsilon=epsilon, tolerance=1e-30, max_iterations=iterations).plan()


PLANS: dict[str, Callable[[torch.Tensor, float, int], torch.Tensor]] = {
    "autograd": normalised,
    "autograd_vectors": scaled,
    "full_inverse": lambda m, epsilon, k: Declarative.apply(m, epsilon, k, inverse_whole),
    "block_inverse": lambda m, epsilon, k: Declarative.apply(m, epsilon, k, inverse_blocks),
    "approximate": lambda m, epsilon, k: Declarative.apply(m, epsilon, k, None),
    "ours": ours,
    "ours_to_tolerance": lambda m, epsilon, k: gd.sinkhorn(cost_matrix=m, epsilon=epsilon).plan(),
}


def random_matrix(batch: int, size: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    matrix = torch.rand(batch, size, size, generator=generator)
    return matrix.requires_grad_(), torch.randn(batch, size, size, generator=generator)


def figure_call(name: str, batch: int, size: int, iterations: int, backward: bool) -> Callable[[], Any]:
    matrix, upstream = random_matrix(batch, size)

    def forward() -> torch.Tensor:
        return PLANS[name](matrix, EPSILON, iterations)

    def both() -> torch.Tensor:
        return torch.autograd.grad(forward(), matrix, upstream)[0]

    return both if backward else torch.no_grad()(forward)


# Contestants of the batch.


def clouds(batch: int, size: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    x, y = (torch.rand(batch, size, 3, generator=generator) for _ in range(2))
    return x, y


def with_pot(name: str, iterations: int) -> Callable[[], Any]:
    import ot  # type: ignore[import-untyped]

    matrix = costs()
    weight = torch.full((matrix.shape[-1],), 1 / matrix.shape[-1])
    options = {"max_iter": iterations, "tol": 1e-30}

    def batched(grad: str) -> torch.Tensor:
        weights = weight.expand(len(matrix), -1)
        return ot.batch.solve_batch(matrix, 0.01, weights, weights, grad=grad, **options).value.sum()

    def looped() -> torch.Tensor:
        return sum(ot.solve(m, weight, weight, reg=0.01, grad="envelope", **options).value for m in matrix)

    def logs() -> torch.Tensor:
        settings = {"numItermax": iterations, "stopThr": 1e-30, "warn": False}
        return sum((ot.sinkhorn(weight, weight, m, 0.01, method="sinkhorn_log", **settings) * m).sum() for m in matrix)

    value = {
        "pot_solve_batch": lambda: batched("envelope"),
        "pot_solve_envelope": looped,
        "pot_log_autodiff": logs,
    }[name]
    return lambda: torch.autograd.grad(value(), matrix)


def with_geomloss(name: str, iterations: int) -> Callable[[], Any]:
    from geomloss import SamplesLoss  # type: ignore[import-untyped]

    x, y = (t.requires_grad_() for t in clouds(8, 500))
    diameter = 3**0.5
    # ε goes from the diameter's square to 0.01 = blur² by factors of scaling², in so many steps.
    scaling = (0.1 / diameter) ** (1 / max(1, iterations - 2)) if name == "geomloss" else 0.5
    loss = SamplesLoss("sinkhorn", 2, blur=0.1, scaling=scaling, diameter=diameter, debias=False, backend="tensorized")
    return lambda: torch.autograd.grad(loss(x, y).sum(), [x, y])


def costs() -> torch.Tensor:
    x, y = clouds(8, 500)
    return ((x[:, :, None] - y[:, None]).square().sum(-1) / 2).requires_grad_()


def batch_call(name: str, iterations: int) -> Callable[[], Any]:
    if name.startswith("pot"):
        return with_pot(name, iterations)
    if name.startswith("geomloss"):
        return with_geomloss(name, iterations)
    fixed: dict[str, Any] = {} if name.endswith("tolerance") else {"tolerance": 1e-30, "max_iterations": iterations}
    if name.startswith("ours_points"):
        x, y = (t.mul(0.5**0.5).requires_grad_() for t in clouds(8, 500))  # |x − y|² is then half of what it was
        return lambda: torch.autograd.grad(gd.sinkhorn(x, y, epsilon=0.01, **fixed).cost.sum(), [x, y])
    matrix = costs()
    if name.startswith("ours_cost"):
        return lambda: torch.autograd.grad(gd.sinkhorn(cost_matrix=matrix, epsilon=0.01, **fixed).cost.sum(), matrix)
    if name.startswith("ours_plan"):

        def plan() -> torch.Tensor:
            return gd.sinkhorn(cost_matrix=matrix, epsilon=0.01, **fixed).plan()
    else:
        plan = functools.partial(PLANS[name], matrix, 0.01, iterations)
    return lambda: torch.autograd.grad((plan() * matrix.detach()).sum(), matrix)


BATCH = (
    *("ours_plan", "ours_plan_to_tolerance", "block_inverse"),
    *("ours_cost", "ours_points", "ours_points_to_tolerance"),
    *("pot_solve_batch", "pot_solve_envelope", "pot_log_autodiff", "geomloss", "geomloss_default"),
)


# The large problems.


def large_call(size: int, dtype: str = "float32") -> Callable[[], Any]:
    x, y = (t[0].to(getattr(torch, dtype)).requires_grad_() for t in clouds(1, size))

    def both() -> Any:
        result = gd.sinkhorn(x, y, epsilon=0.01, tolerance=1e-5 if size > 20_000 else None)
        result.cost.backward()
        return result

    return both


def by_rows(x: torch.Tensor, y: torch.Tensor, epsilon: float, iterations: int, chunk: int) -> torch.Tensor:
    """Plain iterations with logarithms, some rows of the matrix at a time."""
    g, f = torch.zeros(len(y)), torch.zeros(len(x))
    for _ in range(iterations):
        for one, other, old, new in ((x, y, g, f), (y, x, f, g)):
            height = old / epsilon - math.log(len(other)) - other.square().sum(-1) / epsilon
            across = other.T * (2 / epsilon)
            for i in range(0, len(one), chunk):
                part = one[i : i + chunk]
                sums = torch.logsumexp(torch.addmm(height, part, across), -1) - part.square().sum(-1) / epsilon
                new[i : i + chunk] = -epsilon * sums
    return f


# Measuring.


def seconds(call: Callable[[], Any], clock: Callable[[], float] = time.perf_counter) -> float:
    began = clock()
    call()
    return clock() - began


def take_turns(
    calls: dict[str, Callable[[], Any]], rounds: int, clock: Callable[[], float] = time.perf_counter
) -> dict[str, float]:
    """Median milliseconds; the calls take turns."""
    times: dict[str, list[float]] = {name: [] for name in calls}
    for i in range(-1, rounds):  # the first is a warm-up
        for name, call in calls.items():
            if times[name] and times[name][-1] > SLOW:
                continue
            took = seconds(call, clock)
            if i >= 0 or took > SLOW:
                times[name].append(took)
    return {name: 1e3 * statistics.median(t) for name, t in times.items()}


def memory(key: str) -> int:
    """Read a figure of this process, in bytes."""
    with open("/proc/self/status") as lines:
        return next(int(line.split()[1]) for line in lines if line.startswith(key)) * 1024


def case(what: str, *arguments: Any) -> None:
    """Print the peak of one call over what was held before it; run by `extra_mb` in a process of its own."""
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    calls: dict[str, Callable[..., Callable[[], Any]]]
    calls = {"figure": figure_call, "batch": batch_call, "large": large_call}
    make = calls[what]
    if what != "batch":  # load what loads at the first call
        small: tuple = {"figure": (arguments[0], 1, 50, 50, True), "large": (64,)}[what]
        make(*small)()
    elif arguments[0].startswith(("ours", "block")):
        figure_call("block_inverse" if arguments[0] == "block_inverse" else "ours", 1, 50, 50, True)()
    peaks = []
    call = make(*arguments)
    before = memory("VmRSS")
    if what == "figure":  # the forward pass alone holds less
        make(*arguments[:-1], False)()
        peaks.append((memory("VmHWM") - before) / 2**20)
    kept = call()
    print(json.dumps([*peaks, (memory("VmHWM") - before) / 2**20]))
    del kept


def extra_mb(*arguments: Any) -> list[float | None]:
    command = [sys.executable, __file__, "--case", json.dumps(arguments)]
    found = subprocess.run(command, capture_output=True, text=True, cwd=pathlib.Path(__file__).parents[2])
    if found.returncode:
        print(found.stderr[-2000:], flush=True)
        return [None, None]
    peaks: list[float | None] = json.loads(found.stdout.splitlines()[-1])
    return peaks


def recorded_mb(name: str, batch: int, size: int, iterations: int) -> float:
    """What autograd keeps, about."""
    return 4 * batch * size**2 / 2**20 * (3 * iterations if name == "autograd" else 6)


def figure(options: argparse.Namespace) -> list[dict]:
    sizes = (100, 300) if options.quick else (100, 200, 300, 500, 700, 1000)
    counts = (1, 10) if options.quick else (1, 4, 10, 50, 100, 200)
    settings = [("size", batch, n, 50) for batch in (1, 8) for n in sizes]
    settings += [("iterations", batch, 500 if not options.quick else 200, k) for batch in (1, 8) for k in counts]
    torch.set_num_threads(1)
    rows = []
    for against, batch, size, iterations in settings:
        key = (batch, size, iterations)
        names = [n for n in FIGURE if recorded_mb(n, *key) < MOST_MB]
        rounds = 3 if batch * size**2 > 10**6 else 7
        forward = take_turns({n: figure_call(n, *key, False) for n in names}, rounds, time.process_time)
        both = take_turns({n: figure_call(n, *key, True) for n in names}, rounds, time.process_time)
        for name in names:
            row: dict[str, Any] = {"against": against, "batch": batch, "size": size, "iterations": iterations}
            row |= {"name": name, "threads": 1, "forward_ms": forward[name], "both_ms": both[name]}
            row["forward_mb"], row["both_mb"] = extra_mb("figure", name, *key, True)
            row["error"] = difference(name, *key)
            report.show(row)
            rows.append(row)
    return rows


@functools.cache
def exact(batch: int, size: int) -> torch.Tensor:
    """The gradient in double precision, converged, of the first problem."""
    matrix, upstream = (t[:1].detach().double() for t in random_matrix(batch, size))
    plan = gd.sinkhorn(cost_matrix=matrix.requires_grad_(), epsilon=EPSILON, solver="cholesky").plan()
    return torch.autograd.grad(plan, matrix, upstream)[0]


def difference(name: str, batch: int, size: int, iterations: int) -> float:
    """Relative error of the gradient of the first problem, in float32."""
    matrix, upstream = (t[:1].detach() for t in random_matrix(batch, size))
    (found,) = torch.autograd.grad(PLANS[name](matrix.requires_grad_(), EPSILON, iterations), matrix, upstream)
    wanted = exact(batch, size)
    return float((found - wanted).norm() / wanted.norm())


def batch(options: argparse.Namespace) -> list[dict]:
    rows = []
    for iterations in (50, 200):
        names = []
        for name in BATCH:
            try:
                batch_call(name, iterations)
                names.append(name)
            except ImportError as error:
                print(f"{name}: {error}", flush=True)
        extra = {name: extra_mb("batch", name, iterations)[-1] for name in names}
        for threads in options.threads:
            torch.set_num_threads(threads)
            times = take_turns({name: batch_call(name, iterations) for name in names}, 3 if options.quick else 5)
            for name in names:
                row: dict[str, Any] = {"name": name, "iterations": iterations, "threads": threads}
                row |= {"both_ms": times[name], "both_mb": extra[name]}
                report.show(row)
                rows.append(row)
    return rows


def large(options: argparse.Namespace, size: int = 10_000) -> list[dict]:
    rows: list[dict] = []
    size = 2_000 if options.quick else size
    x, y = (t[0] for t in clouds(1, size))
    for threads in options.threads if size <= 10_000 else options.threads[-1:]:
        torch.set_num_threads(threads)
        call = large_call(size)
        began = time.perf_counter()
        result = call()
        whole = time.perf_counter() - began
        row: dict[str, Any] = {"size": size, "threads": threads, "seconds": whole, "iterations": result.iterations}
        row |= {"ms_an_iteration": 1e3 * whole / result.iterations, "marginal_error": float(result.marginal_error)}
        if size <= 10_000:
            trial = {c: seconds(functools.partial(by_rows, x, y, 0.01, 1, c)) for c in CHUNKS}
            chunk = min(trial, key=lambda c: trial[c])
            peer = statistics.median(seconds(functools.partial(by_rows, x, y, 0.01, 1, chunk)) for _ in range(3))
            row |= {"chunk": chunk, "rows_ms_an_iteration": 1e3 * peer}
            row["times_rows"] = row["rows_ms_an_iteration"] / row["ms_an_iteration"]
        if not rows:
            row["extra_mb"] = extra_mb("large", size)[-1]
        row["matrix_mb"] = 4 * size**2 / 2**20
        report.show(row)
        rows.append(row)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parts: dict[str, Callable[[argparse.Namespace], list[dict]]] = {"figure": figure, "batch": batch, "large": large}
    more = {"huge": lambda options: large(options, 50_000)}
    parser.add_argument("parts", nargs="*", default=list(parts), help=", ".join([*parts, *more]))
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--quick", action="store_true", help="small sizes, few turns")
    parser.add_argument("--case", help=argparse.SUPPRESS)
    parser.add_argument("-o", "--output", type=pathlib.Path, help="JSON file; parts that it has already are kept")
    options = parser.parse_args()
    if options.case:
        case(*json.loads(options.case))
        return
    warnings.simplefilter("ignore")
    result: dict[str, Any] = {}
    if options.output and options.output.exists():
        result = json.loads(options.output.read_text())
    result |= report.machine()
    for part in options.parts:
        print(f"--- {part}", flush=True)
        before = os.getloadavg()[0]
        result[part] = (parts | more)[part](options)
        result.setdefault("load", {})[part] = [before, os.getloadavg()[0]]
        if options.output:
            options.output.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
