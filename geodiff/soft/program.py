# SPDX-License-Identifier: Apache-2.0
"""Programs with branches and loops, relaxed: conditions are probabilities, and both ways are taken in their shares.

A value x that a program compares is taken for a random one, distributed by F around x with the scale 1/β. What the
program returns is then its expected value (F. Petersen, "Learning with differentiable algorithms", 2022, chapter 2).
Conditions are tensors; the state of a program is a tensor, or tuples, lists and dictionaries of states. For β → ∞, and
at once with ``distribution="heaviside"``, it is the program as it stands. See docs/programs.md.
"""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from geodiff.modes import outside_autocast
from geodiff.soft import special
from geodiff.soft.distribution_base import Distribution
from geodiff.soft.distributions import Heaviside
from geodiff.soft.names import as_distribution
from geodiff.validation import (
    as_tensor,
    fail,
    floating,
    integer,
    looks_at_values,
    matches,
    number,
    positive,
    promote,
    warn,
)

__all__ = ["choose", "eq", "index", "lt", "soft_argmax", "while_loop"]

State = Any
Law = Distribution | str
_SLACK = 1e-5  # how far rounding may take a probability out of [0, 1]


@outside_autocast
def lt(a: Any, b: Any, beta: Any = 1.0, distribution: Law = "logistic") -> torch.Tensor:
    """Return the probability that a < b: `F(β (b − a))`; of a > b: ``lt(b, a)``.

    Args:
        a: numbers of any shape.
        b: numbers whose shape broadcasts with that of a; infinite ones compare as they should.
        beta: β > 0, one over the scale of the noise; a number or a tensor.
        distribution: F, a symmetric one of `geodiff.soft`, or ``"heaviside"`` for the hard comparison, whose gradient
            is 0.

    Returns:
        Probabilities, float32 or float64; ½ where a = b (with ``"heaviside"`` 0).

    Gradients: in a, b and β.

    Raises:
        TypeError, ValueError: for other dtypes, shapes, and distributions that are not symmetric.

    Example:
        >>> lt(torch.tensor([0.0, 1.0, 2.0]), 1.0, beta=10.0)
        tensor([9.9995e-01, 5.0000e-01, 4.5398e-05])
    """
    law = _law("lt", distribution)
    return law.survival(_difference("lt", a, b, beta))


@outside_autocast
def eq(a: Any, b: Any, beta: Any = 1.0, distribution: Law = "logistic") -> torch.Tensor:
    """Return how far a and b may be taken for equal: `f(β (a − b)) / f(0)`, `sech²(β (a − b)/2)` for the logistic one.

    That is the likelihood of a to be drawn around b instead of around itself: 1 where they are equal.

    Args:
        a: numbers of any shape.
        b: numbers whose shape broadcasts with that of a.
        beta: β > 0, a number or a tensor.
        distribution: a symmetric one of `geodiff.soft`, whose density is f; or ``"heaviside"``.

    Returns:
        Numbers in [0, 1], float32 or float64.

    Gradients: in a, b and β.

    Raises:
        TypeError, ValueError: as `lt`; a distribution without a density at 0, such as an `Activated` one.

    Example:
        >>> eq(torch.tensor([1.0, 1.5, 4.0]), 1.0, beta=2.0)
        tensor([1.0000, 0.7864, 0.0099])
    """
    law = _law("eq", distribution)
    x = _difference("eq", a, b, beta)
    if isinstance(law, Heaviside):
        return (x == 0).to(x.dtype)
    most = law.pdf(torch.zeros_like(x[..., :1] if x.dim() else x))
    if looks_at_values(most) and not _is_mapped(most) and not bool(((most > 0) & most.isfinite()).all()):
        fix = "Nothing is as likely as to be equal; take the distribution that it is made of."
        raise fail("eq", "distribution", "of a density that is positive and finite at 0", repr(law), fix)
    return law.pdf(x) / most


@outside_autocast
def choose(p: torch.Tensor, a: State, b: State) -> State:
    """Return a with the probability p, else b: `p·a + (1 − p)·b`, of each part of a state.

    Args:
        p: probabilities, of `lt`, `eq`, their products (and) and complements (not).
        a: a tensor whose first axes are those of p (or that has none, or a number), or tuples, lists and dictionaries
            of such.
        b: of the same structure.

    Returns:
        A state of that structure. What is infinite or NaN does not count where its weight is exactly 0.

    Gradients: in p and both states.

    Raises:
        TypeError, ValueError: for p that are no probabilities, and states that do not go together.

    Example:
        >>> choose(torch.tensor([1.0, 0.25]), {"x": torch.zeros(2, 3)}, {"x": torch.ones(2, 3)})["x"]
        tensor([[0.0000, 0.0000, 0.0000],
                [0.7500, 0.7500, 0.7500]])
    """
    _probability("choose", "p", p)

    def mix(path: str, one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
        weight = _aligned("choose", path, p, one, other)
        return _share(weight, one) + _share(1 - weight, other)

    return _mapped("choose", mix, ("a", "b"), a, b)


def while_loop(
    condition: Callable[[State], torch.Tensor],
    body: Callable[[State], State],
    state: State,
    *,
    max_steps: int = 1000,
    epsilon: float | None = 1e-5,
) -> State:
    """Return the state after ``while condition(state): state = body(state)``, with a condition that is a probability.

    With the states s₀, s₁ = body(s₀), … and P_i = condition(s_i), that is their mean by how likely it is that there are
    exactly i steps, `Σ_i (Π_{j<i} P_j)·(1 − P_i)·s_i`. (The source prints `Π_{j≤i} P_j` and `P_{i+1}`, whose weights do
    not add up to 1.) What is left when the loop ends goes to its last state.

    Args:
        condition: of a state, the probability to go on, (...).
        body: of a state, the next one, of the same structure, shapes and dtypes.
        state: the first one: a tensor whose first axes are those of the condition, or tuples, lists and dictionaries of
            such.
        max_steps: how often the body runs at most, at least 1. A loop that then is more likely to go on than not is
            warned of.
        epsilon: the loop ends when no entry goes on with more than this probability; entries that have come to it stay
            as they are meanwhile. None: all steps are taken and no values looked at, as `torch.func.vmap` and graphs
            without breaks need it.

    Returns:
        The mean, of the structure of the state.

    Gradients: through all steps, in whatever condition, body and state depend on. All states are kept for it.

    Raises:
        TypeError, ValueError: for conditions that are no probabilities (NaN, too), and bodies that change the
            structure, a shape or a dtype.

    Example:
        How often 100 can be halved until it is below 1:

        >>> start = {"x": torch.tensor(100.0), "n": torch.tensor(0.0)}
        >>> body = lambda s: {"x": s["x"] / 2, "n": s["n"] + 1}
        >>> while_loop(lambda s: lt(1.0, s["x"], beta=100.0), body, start)["n"]
        tensor(7.)
    """
    max_steps = integer("while_loop", "max_steps", max_steps, 1)
    if epsilon is not None:
        epsilon = number("while_loop", "epsilon", epsilon, 0.0, 0.5)
    mean, left = loop(condition, body, state, max_steps, epsilon)
    if epsilon is not None and not torch.compiler.is_compiling() and bool((left > 0.5).any()):
        count = int((left > 0.5).sum())
        warn(f"while_loop: after max_steps={max_steps}, {count} of {left.numel()} loops would rather go on than end.")
    return mean


def loop(
    condition: Callable[[State], torch.Tensor],
    body: Callable[[State], State],
    state: State,
    max_steps: int,
    epsilon: float | None,
) -> tuple[State, torch.Tensor]:
    """Return what `while_loop` returns, and with which probabilities the loop would go on after that."""
    state = _mapped("while_loop", lambda path, value: value, ("state",), state)
    reached: torch.Tensor | None = None
    mean: State = None

    def add(weight: torch.Tensor) -> State:
        def summed(path: str, value: torch.Tensor, *total: torch.Tensor) -> torch.Tensor:
            part = _share(_aligned("while_loop", path, weight, value), value)
            return total[0] + part if total else part

        states = (state,) if mean is None else (state, mean)
        return _mapped("while_loop", summed, ("state", "state"), *states)

    for _ in range(max_steps):
        p = condition(state)
        _probability("while_loop", "condition", p)
        reached = torch.ones_like(p) if reached is None else reached
        mean = add(reached * (1 - p))
        reached = reached * p
        alive = None if epsilon is None else reached > epsilon
        if alive is not None and not bool(alive.any()):
            break
        state = _next(state, body(state), alive)
    assert reached is not None
    return add(reached), reached


def _next(state: State, following: State, alive: torch.Tensor | None) -> State:
    """Check what a body returned, and keep what has ended as it is: else it might grow beyond all numbers."""

    def step(path: str, before: torch.Tensor, after: torch.Tensor) -> torch.Tensor:
        if after.shape != before.shape or after.dtype != before.dtype:
            expected = f"to keep shape {tuple(before.shape)} and dtype {before.dtype} of {path}"
            raise fail("while_loop", "body", expected, after, "Start with a state of the shape that it comes to.")
        if alive is None:
            return after
        return torch.where(_aligned("while_loop", path, alive, after), after, before)

    return _mapped("while_loop", step, ("state", "what body returns"), state, following)


@outside_autocast
def index(values: torch.Tensor, places: Any, beta: Any = 1.0, *, axes: int = 1) -> torch.Tensor:
    """Return ``values[places]`` for places between whole numbers: a mean over all entries, by a logistic density.

    The weights `g(β (j − i))` of all entries j of an axis are divided by their sum, so that they add up to 1; the sum
    counts as a constant in the gradient, or a place could gain by moving to where the entries are sparse.

    Args:
        values: (N, ...), or (N₁, …, N_axes, ...).
        places: numbers (...) counted from 0; for several axes (..., axes). Beyond the ends, those weigh most.
        beta: β > 0, one over the width in entries, a number or a tensor without axes; 10 is close to the nearest entry.
        axes: how many of the first axes of ``values`` are indexed.

    Returns:
        One entry, of the shape ``values.shape[axes:]``, for each place.

    Gradients: in values, and in places and β as said.

    Raises:
        TypeError, ValueError: for other dtypes and shapes, NaN and infinity.

    Example:
        >>> index(torch.tensor([10.0, 20.0, 40.0]), torch.tensor([1.0, 1.5]), beta=20.0)
        tensor([20.0000, 30.0000])
    """
    where = "index"
    axes = integer(where, "axes", axes, 1)
    _positive_beta(where, beta)
    given = promote(where, values=values, places=places, beta=beta)
    values, places, beta = given["values"], given["places"], given["beta"]
    if values.dim() < axes or 0 in values.shape[:axes]:
        raise fail(where, "values", f"of {axes} axes or more, none of them empty", values)
    floating(where, "values", values, ("...",))
    floating(where, "places", places, ("...",) if axes == 1 else ("...", axes))
    if axes == 1:
        places = places[..., None]
    rest = values.shape[axes:]
    result = values.reshape(-1, rest.numel()) if rest.numel() else values.reshape(math.prod(values.shape[:axes]), 0)
    weight = places.new_ones(*places.shape[:-1], 1)
    for axis in range(axes):
        steps = torch.arange(values.shape[axis], dtype=places.dtype, device=places.device)
        x = beta * (steps - places[..., axis, None])
        log_density = torch.nn.functional.logsigmoid(x) + torch.nn.functional.logsigmoid(-x)
        share = torch.exp(log_density - log_density.logsumexp(dim=-1, keepdim=True).detach())
        weight = (weight[..., :, None] * share[..., None, :]).flatten(-2)
    return (weight @ result).reshape(places.shape[:-1] + rest)


@outside_autocast
def soft_argmax(x: Any, beta: Any = 1.0, dim: int = -1) -> torch.Tensor:
    """Return the probability of each entry to be the largest, under Gumbel noise: softmax of `β x`.

    Args:
        x: numbers.
        beta: β > 0, a number or a tensor that broadcasts with x. For the smallest entry: ``soft_argmax(-x)``.
        dim: the axis.

    Returns:
        Weights of the shape of x that add up to 1 along the axis: `(w * values).sum(dim)` is what a program that looks
        up the best entry returns.

    Gradients: in x and β.

    Raises:
        TypeError, ValueError: for other dtypes, an empty axis, NaN and infinity.

    Example:
        >>> soft_argmax(torch.tensor([1.0, 3.0, 2.0]), beta=2.0)
        tensor([0.0159, 0.8668, 0.1173])
    """
    _positive_beta("soft_argmax", beta)
    given = promote("soft_argmax", x=x, beta=beta)
    floating("soft_argmax", "x", given["x"], ("...",))
    if given["x"].dim() == 0 or not -given["x"].dim() <= dim < given["x"].dim() or given["x"].shape[dim] == 0:
        raise fail("soft_argmax", "x", f"with entries along the axis {dim}", given["x"])
    return torch.softmax(given["beta"] * given["x"], dim)


def _is_mapped(value: torch.Tensor) -> bool:
    """Whether torch.func maps over a tensor, so that nobody knows its values."""
    return not torch.compiler.is_compiling() and torch._C._functorch.is_batchedtensor(value)


def _law(where: str, distribution: Law) -> Distribution:
    law = as_distribution(distribution)
    if not law.symmetric and not isinstance(law, Heaviside):
        fix = "Else a < b or b < a would have a probability other than 1."
        raise fail(where, "distribution", "symmetric, or 'heaviside'", repr(law), fix)
    return law


def _positive_beta(where: str, beta: Any) -> None:
    positive(where, "beta", beta, "It is one over the scale of the noise; distribution='heaviside' has none.")


def _difference(where: str, a: Any, b: Any, beta: Any) -> torch.Tensor:
    """Return β (a − b); of infinite numbers, too, which a buffer of depths begins with."""
    _positive_beta(where, beta)
    named = {"a": a, "b": b, "beta": beta}
    wide = any(getattr(value, "dtype", None) in (torch.float64, np.float64) for value in named.values())
    tensors = {
        name: torch.tensor(value, dtype=torch.float64) if isinstance(value, float) else as_tensor(where, name, value)
        for name, value in named.items()
    }
    for name, value in tensors.items():
        if value.is_complex() or value.dtype in (torch.bool, torch.float16, torch.bfloat16):
            raise fail(where, name, "float32 or float64", value, "Convert it with .float().", TypeError)
        tensors[name] = value = value.to(torch.float64 if wide else torch.float32)
        if looks_at_values(value) and not _is_mapped(value) and bool(value.isnan().any()):
            raise fail(where, name, "free of NaN", f"{int(value.isnan().sum())} of {value.numel()}")
    a, b, beta = tensors.values()
    try:
        difference = torch.where((a == b) & a.isinf(), 0.0, a - b)
        return beta * difference.clamp(-special.BIG, special.BIG)
    except RuntimeError:
        shapes = [tuple(value.shape) for value in (a, b, beta)]
        raise fail(
            where, "b", f"of a shape that broadcasts with {shapes[0]}", f"{shapes[1]} and β {shapes[2]}"
        ) from None


def _probability(where: str, argument: str, p: Any) -> None:
    floating(where, argument, p, ("...",), finite=False)
    if not looks_at_values(p) or _is_mapped(p) or p.numel() == 0:
        return
    with torch.no_grad():
        low, high = (float(end) for end in torch.aminmax(p))
    if not (low >= -_SLACK and high <= 1 + _SLACK):
        fix = "Conditions are made by lt and eq, `p * q` (and), `1 - p` (not)."
        raise fail(where, argument, "probabilities, between 0 and 1", f"values from {low:g} to {high:g}", fix)


def _aligned(where: str, path: str, p: torch.Tensor, *values: torch.Tensor) -> torch.Tensor:
    """Return p with axes for what its entries have inside of a state, so that it broadcasts with them."""
    most = max(value.dim() for value in values)
    for value in values:
        if value.dim() and not all(n in (1, m) or m == 1 for n, m in zip(value.shape, p.shape, strict=False)):
            expected = f"of a shape that begins with {tuple(p.shape)}, the condition's"
            raise fail(where, path, expected, value, "The first axes are the batch; a number has none.")
        if 0 < value.dim() < p.dim():
            expected = f"of a shape that begins with {tuple(p.shape)}, the condition's, or without axes"
            raise fail(where, path, expected, value, "Use .expand.")
    return p.reshape(p.shape + (1,) * max(most - p.dim(), 0))


def _share(weight: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
    """Return weight · value, where 0 · ∞ is 0."""
    return weight * torch.where((weight == 0) & ~torch.isfinite(value), 0.0, value)


def _mapped(where: str, function: Callable[..., torch.Tensor], names: tuple[str, ...], *states: State) -> State:
    """Apply a function of a path and tensors to all leaves of states of one structure."""
    first, name = states[0], names[0]
    if isinstance(first, dict):
        for other in states[1:]:
            if not isinstance(other, dict) or other.keys() != first.keys():
                raise fail(where, names[1], f"a dictionary of {sorted(first)} as {name}", _kind(other), error=TypeError)
        return {
            key: _mapped(where, function, tuple(f"{n}[{key!r}]" for n in names), *(s[key] for s in states))
            for key in first
        }
    if isinstance(first, tuple | list):
        for other in states[1:]:
            if type(other) is not type(first) or len(other) != len(first):
                expected = f"a {type(first).__name__} of {len(first)} as {name}"
                raise fail(where, names[1], expected, _kind(other), error=TypeError)
        parts = [
            _mapped(where, function, tuple(f"{n}[{i}]" for n in names), *(s[i] for s in states))
            for i in range(len(first))
        ]
        if isinstance(first, list):
            return parts
        return type(first)(*parts) if hasattr(first, "_fields") else tuple(parts)
    leaves = []
    for own, value in zip(names, states, strict=False):
        if isinstance(value, int | float) and not isinstance(value, bool):
            tensors = [s for s in states if isinstance(s, torch.Tensor)]
            like = tensors[0] if tensors else torch.empty(0)
            value = like.new_full((), float(value)) if like.is_floating_point() else torch.tensor(float(value))
        if not isinstance(value, torch.Tensor):
            expected = "a tensor, or a tuple, a list or a dictionary of tensors"
            raise fail(where, own, expected if value is first else f"{expected}, as {name}", value, error=TypeError)
        if not value.is_floating_point() or not matches(value.shape, ("...",)):
            raise fail(
                where, own, "of floating-point numbers", value, "What is mixed must be: use .float().", TypeError
            )
        leaves.append(value)
    return function(name, *leaves)


def _kind(value: Any) -> str:
    if isinstance(value, dict):
        return f"a dictionary of {sorted(value)}"
    return f"{type(value).__name__} of {len(value)}" if isinstance(value, tuple | list) else type(value).__name__
