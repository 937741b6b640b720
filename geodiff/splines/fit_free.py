# SPDX-License-Identifier: Apache-2.0
"""Free knots and weights by variable projection: control points eliminated, L-BFGS over the rest.

The reduced objective `F(θ) = min_C f(C, θ)` is minimised over the logits of the knot spans and the logarithms of the
weights (Golub and Pereyra, SIAM J. Numer. Anal. 10, 1973, 413–432). Its gradient is that of f at the best control
points, held.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import scipy.optimize
import torch

from geodiff.splines.fit_linear import Problem
from geodiff.splines.knots import knots_to_logits, logits_to_knots

MIN_FRACTION = 1e-6  # shortest knot span, as a fraction of the domain: two such knots act as a double one
WEIGHT_SPREAD = 0.5  # standard deviation of the log-weights of random starts
CORRECTIONS = 20  # pairs of steps that L-BFGS remembers

Callback = Callable[[int, float], object]


@dataclass
class Start:
    """Where an optimisation begins, and what may move."""

    knots: tuple[torch.Tensor, ...]
    free: tuple[bool, ...]
    log_weights: torch.Tensor | None = None


@dataclass
class Outcome:
    """Where an optimisation ended."""

    control: torch.Tensor
    knots: tuple[torch.Tensor, ...]
    weights: torch.Tensor | None
    objective: float
    rank: int
    iterations: int = 0
    converged: bool = True
    message: str = "linear"
    history: list[float] = field(default_factory=list)


class Diverged(RuntimeError):
    """The objective stopped being a number."""


class Reduced:
    """The reduced objective as a function of one flat vector: the logits of the free axes, then the log-weights."""

    def __init__(self, problem: Problem, start: Start) -> None:
        self.problem, self.start = problem, start
        self.logits = []
        for knots, p, moves, wraps in zip(start.knots, problem.degree, start.free, problem.periodic, strict=True):
            self.logits.append(knots_to_logits(knots, 0 if wraps else p, MIN_FRACTION) if moves else None)

    def initial(self) -> np.ndarray:
        """Return the vector of the start."""
        parts = [x for x in self.logits if x is not None]
        if self.start.log_weights is not None:
            parts.append(self.start.log_weights.flatten())
        return torch.cat(parts).numpy().copy()

    def bounds(self, weight_bounds: tuple[float, float]) -> scipy.optimize.Bounds:
        """Bound the log-weights; leave the logits free."""
        free = sum(len(x) for x in self.logits if x is not None)
        many = 0 if self.start.log_weights is None else self.start.log_weights.numel()
        low, high = (math.log(b) for b in weight_bounds)
        return scipy.optimize.Bounds(
            np.r_[np.full(free, -np.inf), np.full(many, low)], np.r_[np.full(free, np.inf), np.full(many, high)]
        )

    def unpack(self, x: torch.Tensor) -> tuple[tuple[torch.Tensor, ...], torch.Tensor | None]:
        """Return knots and weights, differentiable in the vector."""
        knots, at = [], 0
        for given, logits, p, wraps in zip(
            self.start.knots, self.logits, self.problem.degree, self.problem.periodic, strict=True
        ):
            if logits is None:
                knots.append(given)
                continue
            own = x[at : at + len(logits)]
            at += len(logits)
            knots.append(logits_to_knots(own, 0 if wraps else p, float(given[0]), float(given[-1]), MIN_FRACTION))
        if self.start.log_weights is None:
            return tuple(knots), None
        return tuple(knots), x[at:].exp().reshape(self.start.log_weights.shape)

    def value_and_gradient(self, x: np.ndarray) -> tuple[float, np.ndarray]:
        """Return F and its gradient."""
        leaf = torch.from_numpy(np.array(x, dtype=np.float64)).requires_grad_()
        with torch.enable_grad():
            knots, weights = self.unpack(leaf)
            with torch.no_grad():
                control, _ = self.problem.solve(knots, weights)
            value = self.problem.objective(control, knots, weights)
            (gradient,) = torch.autograd.grad(value, leaf)
        value = value.detach()
        if not (math.isfinite(float(value)) and bool(torch.isfinite(gradient).all())):
            raise Diverged(f"the objective became {float(value)}")
        return float(value), gradient.numpy()


def minimise(
    problem: Problem,
    start: Start,
    weight_bounds: tuple[float, float],
    max_iterations: int,
    tolerance: float,
    callback: Callback | None = None,
) -> Outcome:
    """Minimise the reduced objective from one start with L-BFGS-B; stops where it falls by less than `tolerance`.

    Args:
        problem: the data.
        start: where from.
        weight_bounds: of the weights.
        max_iterations: at most so many steps.
        tolerance: relative fall of the objective in a step, below which the fit has converged.
        callback: called with (iteration, objective) after each step.

    Raises:
        Diverged: the objective is no longer finite.
    """
    reduced = Reduced(problem, start)
    first = reduced.initial()
    value, _ = reduced.value_and_gradient(first)
    history = [value]
    if value > 0 and len(first):
        # Scaled by its start, so that the first step does not depend on the units of the points.
        def scaled(x: np.ndarray) -> tuple[float, np.ndarray]:
            f, g = reduced.value_and_gradient(x)
            return f / value, g / value

        def step(intermediate_result: scipy.optimize.OptimizeResult) -> None:
            history.append(float(intermediate_result.fun) * value)
            if callback is not None:
                callback(len(history) - 1, history[-1])

        options = {
            "maxiter": max_iterations,
            "maxfun": 3 * max_iterations + 100,
            "maxcor": CORRECTIONS,
            "ftol": tolerance,
            "gtol": 1e-10,
        }
        found = scipy.optimize.minimize(
            scaled,
            first,
            jac=True,
            method="L-BFGS-B",
            bounds=reduced.bounds(weight_bounds),
            callback=step,
            options=options,
        )
        x, converged, message = found.x, bool(found.success), str(found.message)
    else:
        x, converged, message = first, True, "nothing left to improve"
    with torch.no_grad():
        knots, weights = reduced.unpack(torch.from_numpy(np.array(x)))
        control, rank = problem.solve(knots, weights)
        objective = float(problem.objective(control, knots, weights))
    return Outcome(control, knots, weights, objective, rank, len(history) - 1, converged, message, history)


def random_starts(start: Start, count: int, seed: int, weight_bounds: tuple[float, float]) -> Sequence[Start]:
    """Return a start and `count − 1` random ones: knots at sorted uniform positions, log-normal weights."""
    low, high = (math.log(b) for b in weight_bounds)
    generator = torch.Generator().manual_seed(seed)
    starts = [start]
    for _ in range(count - 1):
        vectors = []
        for knots, moves in zip(start.knots, start.free, strict=True):
            if not moves:
                vectors.append(knots)
                continue
            inside = (knots > knots[0]) & (knots < knots[-1])
            inner = torch.rand(int(inside.sum()), generator=generator, dtype=torch.float64).sort().values
            moved = knots.clone()
            moved[inside] = knots[0] + (knots[-1] - knots[0]) * inner
            vectors.append(moved)
        logs = start.log_weights
        if logs is not None:
            logs = WEIGHT_SPREAD * torch.randn(logs.shape, generator=generator, dtype=torch.float64)
            logs = logs.clamp(low, high)
        starts.append(Start(tuple(vectors), start.free, logs))
    return starts
