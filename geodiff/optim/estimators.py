# SPDX-License-Identifier: Apache-2.0
"""Gradients of functions that have none, from their values at random places around.

`E[f(y + σε)]` is differentiable in y however f jumps, and its gradient is `E[f(y + σε) ν′(ε)]/σ` for noise of density
`e^(−ν)`: stochastic smoothing (Abernethy, Lee and Tewari, "Perturbation techniques in online learning and
optimization", 2016), the score function of reinforcement learning.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch

from geodiff.modes import outside_autocast, refuse_torch_func
from geodiff.optim.noise import Noise, checked_samples, checked_scale, ordered_sum, tried
from geodiff.soft.special import last_derivative
from geodiff.validation import choice, describe, fail, floating, integer, positive, shapes_repr

Function = Callable[[torch.Tensor], torch.Tensor]
_ONCE = "geodiff.optim: gradients are of first order only; a second derivative was asked for."


class SmoothedGradient(NamedTuple):
    """A smoothed function and its gradient, estimated, and how far the estimate may be off.

    Attributes:
        value: `(...)`, the estimate of E[f(y + σε)].
        gradient: `(..., m)`, that of its gradient in y.
        variance: `(..., m)`, of the gradient's entries as estimates: the sample variance over the number of draws.
    """

    def __repr__(self) -> str:
        return shapes_repr(self)

    value: torch.Tensor
    gradient: torch.Tensor
    variance: torch.Tensor


class _Draws(NamedTuple):
    """What was found at the samples: mean (*out,), differences (S, *out) and scores over σ (S, *y)."""

    mean: torch.Tensor
    differences: torch.Tensor
    scores: torch.Tensor


def _drawn(
    where: str, function: Function, y: torch.Tensor, sigma: Any, samples: int, antithetic: bool, noise: Noise
) -> _Draws:
    """Try a function around y. With `antithetic`, S is half of `samples`, and a difference that of a pair, halved."""
    scale = checked_scale(where, sigma, y)
    if not isinstance(antithetic, bool):
        raise fail(where, "antithetic", "True or False", antithetic, error=TypeError)
    samples = checked_samples(where, samples)
    if antithetic and samples % 2:
        raise fail(where, "samples", "even with antithetic=True", str(samples), "They come in pairs y ± σε.")
    count = samples // 2 if antithetic else samples
    epsilon = noise.draw((count, *y.shape), y)
    if antithetic:
        values = tried(where, "function", function, torch.cat([y + scale * epsilon, y - scale * epsilon]))
        differences = 0.5 * (values[:count] - values[count:])
    else:
        values = tried(where, "function", function, torch.cat([y[None], y + scale * epsilon]))
        differences = values[1:] - values[:1]  # f(y), the control variate: E[ν′] = 0
        values = values[1:]
    return _Draws(ordered_sum(values) / samples, differences, noise.score(epsilon) / scale)


class _Smoothed(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, y: torch.Tensor, draws: _Draws, batch: int) -> torch.Tensor:
        ctx.save_for_backward(y, draws.differences, draws.scores)
        ctx.batch = batch
        return draws.mean.clone()

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        y, differences, scores = ctx.saved_tensors
        own = y.shape[: ctx.batch]
        pulled = ordered_sum((gradient * differences)[..., None].flatten(1 + len(own)), -1)
        weighted = pulled.reshape(len(scores), *own, *[1] * (y.dim() - len(own))) * scores
        return last_derivative(ordered_sum(weighted) / len(scores), gradient, y, message=_ONCE), None, None


@outside_autocast
def smoothed(
    function: Function,
    y: torch.Tensor,
    sigma: float | torch.Tensor,
    samples: int = 32,
    *,
    law: Any = "gaussian",
    antithetic: bool = True,
    batch_dims: int = 0,
    generator: torch.Generator | None = None,
) -> torch.Tensor:
    """Return `E[f(y + σε)]`, estimated from samples, with a gradient in y that needs none of f.

    f may return images, or what a solver of a linear problem returns: then this is the perturbed optimiser of Berthet
    et al., "Learning with differentiable perturbed optimizers", 2020.

    Args:
        function: f, called without gradients with all samples at once, `(S, *y.shape)`; returns `(S, ...)`.
        y: of any shape, float32 or float64.
        sigma: σ > 0: a number, or of a shape that broadcasts to y's, for entries of different units.
        samples: how many values of f are drawn, even if antithetic.
        law: of ε: `"gaussian"`, `"logistic"`, `"cauchy"` or another symmetric one of `geodiff.soft`.
        antithetic: draw pairs y ± σε. For what is odd about y, which is what a gradient is of, each pair has no more
            variance than two single draws, and mostly far less. If False, f(y) is drawn as well, and subtracted.
        batch_dims: so many axes of y are a batch, which f's results have too, in front: each item's result depends on
            that item alone, which spares the others its noise.
        generator: of the noise; None: torch's own.

    Returns:
        The mean of f, `(...)`.

    Gradients: in y alone, an unbiased estimate of that of the smoothed function, first order. Its variance falls with
    one over `samples`, and grows with 1/σ² and the number of entries of y; `smoothed_gradient` tells it. None in what f
    holds by itself. The same bits on any number of threads, if f has them.

    Raises:
        TypeError, ValueError: as each argument's check says; a function that returns something else.
        RuntimeError: within torch.func.

    Example:
        >>> y = torch.tensor([0.3], requires_grad=True)
        >>> step = lambda z: (z[:, 0] > 0).float()  # smoothed by Gaussian noise: the Gaussian's CDF
        >>> smooth = smoothed(step, y, 0.5, samples=40_000, generator=torch.Generator().manual_seed(0))
        >>> smooth.backward()
        >>> [round(v.item(), 2) for v in (smooth, y.grad)]  # Φ(0.6) = 0.726, φ(0.6)/0.5 = 0.666
        [0.73, 0.67]
    """
    where = "optim.smoothed"
    floating(where, "y", y, ("...",))
    refuse_torch_func(where, y)
    integer(where, "batch_dims", batch_dims, 0, y.dim())
    draws = _drawn(where, function, y.detach(), sigma, samples, antithetic, Noise(where, law, generator))
    own = y.shape[:batch_dims]
    if draws.mean.shape[:batch_dims] != own:
        expected = f"a function whose results are ({len(draws.scores)}, {', '.join(map(str, own))}, ...)"
        raise fail(where, "function", expected, describe(draws.differences), "That is what batch_dims says.")
    result: torch.Tensor = _Smoothed.apply(y, draws, batch_dims)
    return result


@outside_autocast
def smoothed_gradient(
    loss: Function,
    y: torch.Tensor,
    sigma: float | torch.Tensor,
    samples: int = 32,
    *,
    law: Any = "gaussian",
    antithetic: bool = True,
    generator: torch.Generator | None = None,
) -> SmoothedGradient:
    """Return the gradient of `E[ℓ(y + σε)]`, estimated from values of ℓ alone, and the variance of the estimate.

    Args:
        loss: ℓ, called with `(S, ..., m)`, returns a loss for each row, `(S, ...)`.
        y: `(..., m)`.
        sigma: as of `smoothed`, as are the arguments after it.
        samples: at least two draws (four if antithetic), for a variance.
        law: as of `smoothed`.
        antithetic: as of `smoothed`.
        generator: as of `smoothed`.

    Returns:
        `SmoothedGradient`.

    Gradients: none; it is one.

    Raises:
        TypeError, ValueError: as each argument's check says.

    Example:
        >>> step, g = lambda z: (z[:, 0] > 0).float(), torch.Generator().manual_seed(0)
        >>> found = smoothed_gradient(step, torch.zeros(1), 0.5, 10_000, generator=g)
        >>> [round(v.item(), 2) for v in (found.gradient, found.variance.sqrt())]  # φ(0)/0.5 = 0.798
        [0.8, 0.01]
    """
    where = "optim.smoothed_gradient"
    floating(where, "y", y, ("...", "m"))
    checked_samples(where, samples, 4 if antithetic is True else 2)
    draws = _drawn(where, loss, y.detach(), sigma, samples, antithetic, Noise(where, law, generator))
    if draws.mean.shape != y.shape[:-1]:
        expected = f"a function of (S, {', '.join(map(str, y.shape))}) with a loss for each row, {tuple(y.shape[:-1])}"
        raise fail(where, "loss", expected, f"{tuple(draws.mean.shape)}")
    each = draws.differences[..., None] * draws.scores
    count = len(each)
    gradient = ordered_sum(each) / count
    variance = ordered_sum((each - gradient).square()) / ((count - 1) * count)
    return SmoothedGradient(draws.mean, gradient, variance)


class _WithGradient(torch.autograd.Function):
    """A value with a gradient that was found with it."""

    @staticmethod
    def forward(ctx: Any, y: torch.Tensor, value: torch.Tensor, gradient: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(y, gradient)
        return value.clone()

    @staticmethod
    def backward(ctx: Any, up: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        y, gradient = ctx.saved_tensors
        up = up.reshape(*up.shape, *[1] * (y.dim() - up.dim()))
        return last_derivative(up * gradient, up, y, message=_ONCE), None, None


@outside_autocast
def fenchel_young(
    solver: Function,
    y: torch.Tensor,
    target: torch.Tensor,
    sigma: float | torch.Tensor,
    samples: int = 32,
    *,
    law: Any = "gaussian",
    antithetic: bool = True,
    generator: torch.Generator | None = None,
) -> torch.Tensor:
    """Return the Fenchel–Young loss of a solver of `max_w ⟨y, w⟩`: `E[max_w ⟨y + σε, w⟩] − ⟨y, w*⟩`.

    It is convex in y, and least where the perturbed solver returns the target w* in the mean (Berthet et al., "Learning
    with differentiable perturbed optimizers", 2020); a constant, which depends on w* and σ, is left out.

    Args:
        solver: y ↦ argmax_w ⟨y, w⟩, called with `(S, *y.shape)`, returns the same shape. For a minimum pass −y.
        y: of any shape.
        target: w*, of the shape of y.
        sigma: as of `smoothed`, as are the arguments after it.
        samples: as of `smoothed`.
        law: as of `smoothed`.
        antithetic: as of `smoothed`.
        generator: as of `smoothed`.

    Returns:
        `()`.

    Gradients: in y, `E[argmax_w ⟨y + σε, w⟩] − w*` over the samples, which is exactly that of the value returned.

    Raises:
        TypeError, ValueError: as each argument's check says.

    Example:
        >>> largest = lambda z: torch.nn.functional.one_hot(z.argmax(-1), z.shape[-1]).to(z)
        >>> y = torch.tensor([2.0, 0.0, 1.0], requires_grad=True)
        >>> fenchel_young(largest, y, torch.tensor([1.0, 0.0, 0.0]), 1e-3).backward()
        >>> y.grad
        tensor([0., 0., 0.])
    """
    where = "optim.fenchel_young"
    floating(where, "y", y, ("...",))
    floating(where, "target", target, ("...",))
    refuse_torch_func(where, y)
    if target.shape != y.shape:
        raise fail(where, "target", f"of the shape of `y`, {tuple(y.shape)}", target)
    noise, held = Noise(where, law, generator), y.detach()
    scale = checked_scale(where, sigma, held)
    samples = checked_samples(where, samples)
    half = samples // 2 if antithetic else samples
    if antithetic and samples % 2:
        raise fail(where, "samples", "even with antithetic=True", str(samples), "They come in pairs y ± σε.")
    epsilon = noise.draw((half, *y.shape), held)
    z = torch.cat([held + scale * epsilon, held - scale * epsilon]) if antithetic else held + scale * epsilon
    found = tried(where, "solver", solver, z)
    if found.shape != z.shape:
        raise fail(where, "solver", f"a function that returns the shape it is given, {tuple(z.shape)}", found)
    goal = target.detach().to(held)
    best = ordered_sum((found * z).reshape(-1)) / samples
    value = best - ordered_sum((held * goal).reshape(-1))
    result: torch.Tensor = _WithGradient.apply(y, value, ordered_sum(found) / samples - goal)
    return result


class _Blackbox(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, y: torch.Tensor, solver: Function, strength: float, sense: float) -> torch.Tensor:
        found = _solved(solver, y.detach())
        ctx.save_for_backward(y, found)
        ctx.call = solver, strength, sense
        return found.clone()

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        y, found = ctx.saved_tensors
        solver, strength, sense = ctx.call
        moved = _solved(solver, y.detach() + sense * strength * gradient.detach())
        return last_derivative(sense * (moved - found) / strength, gradient, y, message=_ONCE), None, None, None


def _solved(solver: Function, y: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        found = solver(y)
    if not isinstance(found, torch.Tensor) or found.shape != y.shape:
        kind = ValueError if isinstance(found, torch.Tensor) else TypeError
        expected = f"a function that returns a tensor of the shape it is given, {tuple(y.shape)}"
        raise fail("optim.blackbox", "solver", expected, describe(found), error=kind)
    return found.detach().to(y.dtype)


@outside_autocast
def blackbox(solver: Function, y: torch.Tensor, strength: float, *, sense: str = "minimum") -> torch.Tensor:
    """Return `g(y)` of a solver of a linear problem, with the gradient of a piecewise linear stand-in.

    For `g(y) = argmin_w ⟨y, w⟩` and the gradient ∂ℓ/∂g that comes from behind, the gradient is
    `(g(y + λ ∂ℓ/∂g) − g(y))/λ`: one more call of the solver (Vlastelica et al., "Differentiation of blackbox
    combinatorial solvers", 2020). For a linear ℓ = ⟨c, g⟩ it is exactly that of
    `(min_w ⟨y + λc, w⟩ − min_w ⟨y, w⟩)/λ`, which lies below ℓ, and near it where λ is small.

    Args:
        solver: g, called without gradients with y; returns the shape of y.
        y: costs, of any shape.
        strength: λ > 0: how far the solver is asked to look. Where no cost moves by enough for another solution, the
            gradient is 0.
        sense: `"minimum"`, or `"maximum"` of a solver that maximises, for which λ changes its sign.

    Returns:
        `g(y)`, of the shape of y.

    Gradients: in y alone, first order.

    Raises:
        TypeError, ValueError: as each argument's check says; a solver that returns something else.
        RuntimeError: within torch.func.

    Example:
        The nearest of three depths is not the one that the image shows:

        >>> nearest = lambda d: torch.nn.functional.one_hot(d.argmin(-1), 3).to(d)
        >>> depths = torch.tensor([1.0, 1.2, 3.0], requires_grad=True)
        >>> seen = blackbox(nearest, depths, 1.0)
        >>> (seen - torch.tensor([0.0, 1.0, 0.0])).square().sum().backward()
        >>> depths.grad  # the first goes back, the second comes forward
        tensor([-1.,  1.,  0.])
    """
    where = "optim.blackbox"
    floating(where, "y", y, ("...",))
    refuse_torch_func(where, y)
    positive(where, "strength", strength, "It is λ: how far costs are moved, in their units.")
    choice(where, "sense", sense, ("minimum", "maximum"))
    result: torch.Tensor = _Blackbox.apply(y, solver, float(strength), 1.0 if sense == "minimum" else -1.0)
    return result
