# SPDX-License-Identifier: Apache-2.0
"""Splitting backpropagation: a step for the output of a model first, then one for the model towards it.

Instead of `min_θ ℓ(f(x; θ))` by one optimiser, each step finds a target z* for the output y = f(x; θ) by any means, and
then takes a step of `½‖z* − f(x; θ)‖²` (F. Petersen, "Learning with differentiable algorithms", 2022, chapter 7). With
gradient descent as the first means, that *is* gradient descent; with Newton's, or with samples, it is not.
"""

import math
from collections.abc import Callable
from typing import Any

import torch

from geodiff.modes import outside_autocast, refuse_torch_func
from geodiff.optim.noise import Noise, checked_samples, checked_scale, ordered_sum, tried
from geodiff.validation import choice, describe, fail, floating, integer, positive

Loss = Callable[[torch.Tensor], torch.Tensor]
_KINDS = ("hessian", "fisher", "elementwise")


@outside_autocast
def split_loss(y: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Return `½‖z* − y‖²`, summed over all rows.

    Args:
        y: `(..., m)`, outputs.
        target: z*, of the same shape, taken as a constant.

    Gradients: in y, `y − z*`.

    Raises:
        TypeError, ValueError: shapes or dtypes that do not fit.

    Example:
        >>> y = torch.tensor([1.0, 2.0], requires_grad=True)
        >>> split_loss(y, torch.tensor([0.0, 5.0])).backward()
        >>> y.grad
        tensor([ 1., -3.])
    """
    floating("optim.split_loss", "y", y, ("...",))
    floating("optim.split_loss", "target", target, ("...",))
    if target.shape != y.shape:
        raise fail("optim.split_loss", "target", f"of the shape of `y`, {tuple(y.shape)}", target)
    return 0.5 * (target.detach() - y).square().sum()


def split_step(
    optimizer: torch.optim.Optimizer, model: Callable[[], torch.Tensor], target: Callable[[torch.Tensor], torch.Tensor]
) -> torch.Tensor:
    """Take one step in two stages, and return the target z*.

    Args:
        optimizer: of the model's parameters; takes one step of `½‖z* − y‖²`.
        model: returns y with its graph, `(..., m)`.
        target: y ↦ z*, for instance `lambda y: newton_target(loss, y)`.

    Raises:
        TypeError, ValueError: a target of another shape than y.

    Example:
        >>> w = torch.zeros(2, requires_grad=True)
        >>> descent = torch.optim.SGD([w], lr=1.0)
        >>> loss = lambda y: (y - torch.tensor([3.0, -1.0])).square().mul(torch.tensor([1.0, 100.0])).sum(-1)
        >>> _ = split_step(descent, lambda: w, lambda y: newton_target(loss, y, damping=0.0))
        >>> w.detach()
        tensor([ 3., -1.])
    """
    optimizer.zero_grad()
    y = model()
    goal = target(y.detach())
    split_loss(y, goal).backward()
    optimizer.step()
    return goal.detach()


@outside_autocast
def gradient_target(loss: Loss, y: torch.Tensor, step: float = 1.0) -> torch.Tensor:
    """Return `y − η ∇ℓ(y)`: with η = 1, a split step is a step of gradient descent on ℓ (theorem 7.2).

    Args:
        loss: ℓ, differentiable; y ↦ a loss for each row `(...)`, or one for all.
        y: `(..., m)`.
        step: η > 0.

    Returns:
        z*, `(..., m)`; a constant.

    Raises:
        TypeError, ValueError: as each argument's check says.

    Example:
        >>> gradient_target(lambda y: y.square().sum(-1), torch.tensor([1.0, 2.0]), 0.25)
        tensor([0.5000, 1.0000])
    """
    where = "optim.gradient_target"
    positive(where, "step", step, "It is the length of the step.")
    floating(where, "y", y, ("...", "m"))
    return y.detach() - step * _gradient(where, loss, y, graph=False)[0].detach()


@outside_autocast
def newton_target(
    loss: Loss,
    y: torch.Tensor,
    *,
    kind: str = "hessian",
    damping: float = 1e-3,
    max_step: float | None = None,
) -> torch.Tensor:
    """Return a Newton step's end, `z* = y − (|M| + λI)⁻¹ ∇ℓ(y)`, for each row.

    M is the mean over the rows of the Hessians of ℓ (``"hessian"``), or of `∇ℓ ∇ℓᵀ` (``"fisher"``, for losses without a
    second derivative), or each row's own Hessian (``"elementwise"``): definitions 7.1 to 7.3. |M| has M's eigenvalues
    without their signs, so that the step goes down also where ℓ is not convex. It takes m more backward passes and a
    decomposition m × m: for outputs of few numbers (poses, lenses, frames; m up to 64 or so), not for images.

    Args:
        loss: ℓ, y ↦ a loss for each row, `(...)`; each depends on its own row alone.
        y: `(..., m)`; without a batch, `(m,)`.
        kind: what M is.
        damping: λ ≥ 0, in the units of M. It must be positive where M may be singular, as that of a softmax cross
            entropy is, whose logits may all grow alike.
        max_step: how long a step may be, ‖z* − y‖ ≤ max_step; None: any.

    Returns:
        z*, `(..., m)`; a constant. `split_loss` of it is the Newton loss.

    Gradients: none.

    Raises:
        TypeError, ValueError: as each argument's check says; a loss that is not one for each row, or not finite.
        RuntimeError: a singular M without damping.

    Example:
        >>> bowl = lambda y: 5.0 * y[..., 0].square() + 0.1 * (y[..., 1] - 3.0).square()
        >>> newton_target(bowl, torch.tensor([2.0, -4.0]), damping=0.0)
        tensor([0., 3.])
    """
    where = "optim.newton_target"
    floating(where, "y", y, ("...", "m"))
    choice(where, "kind", kind, _KINDS)
    if isinstance(damping, bool) or not isinstance(damping, int | float) or not 0 <= damping < math.inf:
        raise fail(where, "damping", "a finite number ≥ 0", damping, "It is added to the eigenvalues.")
    if max_step is not None:
        positive(where, "max_step", max_step, "It is a length in the units of y; None for any.")
    size = y.shape[-1]
    slope, held = _gradient(where, loss, y, graph=kind != "fisher", one_for_all=False)
    with torch.no_grad():
        g = slope.detach().double().reshape(-1, size)
    if kind == "fisher":
        matrix = ordered_sum(g[:, :, None] * g[:, None, :]) / max(len(g), 1)
    else:
        rows = [_row(slope[..., i].sum(), held) for i in range(size)]
        own = torch.stack(rows, dim=-2).detach().double().reshape(-1, size, size)
        own = 0.5 * (own + own.mT)
        matrix = own if kind == "elementwise" else ordered_sum(own) / max(len(own), 1)
    curvature, axes = torch.linalg.eigh(matrix)
    curvature = curvature.abs() + damping
    if bool((curvature <= torch.finfo(y.dtype).eps * curvature.amax(-1, keepdim=True)).any()):
        fix = "Give it some: the loss is flat in some direction."
        raise RuntimeError(
            f"{where}: `damping` must be positive where the curvature is singular; got {damping:g}. {fix}"
        )
    step = -(axes @ ((axes.mT @ g[..., None]) / curvature[..., None]))[..., 0]
    if max_step is not None:
        step = step * (max_step / step.norm(dim=-1, keepdim=True).clamp(min=max_step))
    return y.detach() + step.reshape(y.shape).to(y.dtype)


@outside_autocast
def resgro_target(
    loss: Loss,
    y: torch.Tensor,
    samples: int,
    sigma: float | torch.Tensor,
    *,
    law: Any = "gaussian",
    subset: int | None = None,
    keep: bool = False,
    generator: torch.Generator | None = None,
) -> torch.Tensor:
    """Return the best of some random places around y: the regularised sampling greedy optimiser (RESGRO), (7.46).

    It needs no gradient, and no continuity: what limits how far it goes is how few samples it has. With `subset` K, it
    is the mean of the best over all subsets of K of the samples (7.47), in closed form: the r-th best of M, from 0, is
    the best of a share `C(M−1−r, K−1)/C(M, K)` of them.

    Args:
        loss: ℓ, called without gradients with all places at once, `(S, ..., m)`; returns a loss for each row,
            `(S, ...)`. NaN counts as infinite.
        y: `(..., m)`; each row has samples of its own.
        samples: how many places are tried, M.
        sigma: σ > 0: a number, or of a shape that broadcasts to y's, for entries of different units.
        law: of the noise: `"gaussian"`, `"cauchy"` or another symmetric one of `geodiff.soft`.
        subset: K, from 1 to M; None: the best of all.
        keep: whether y itself is one of the places, so that no step makes it worse.
        generator: of the noise; None: torch's own.

    Returns:
        z*, `(..., m)`; a constant. Of places as good as each other the first.

    Gradients: none. The same bits on any number of threads, if ℓ has them.

    Raises:
        TypeError, ValueError: as each argument's check says; a loss that is not one for each row.

    Example:
        >>> steps = lambda z: (z - 2.0).abs().round().sum(-1)  # flat nearly everywhere
        >>> y, g = torch.zeros(1), torch.Generator().manual_seed(0)
        >>> for _ in range(20):
        ...     y = resgro_target(steps, y, 8, 0.5, keep=True, generator=g)
        >>> float(steps(y))
        0.0
    """
    where = "optim.resgro_target"
    floating(where, "y", y, ("...", "m"))
    if not isinstance(keep, bool):
        raise fail(where, "keep", "True or False", keep, error=TypeError)
    count = checked_samples(where, samples)
    noise, held = Noise(where, law, generator), y.detach()
    places = held + checked_scale(where, sigma, held) * noise.draw((count, *y.shape), held)
    if keep:
        places = torch.cat([held[None], places])
    values = tried(where, "loss", loss, places)
    if values.shape != places.shape[:-1]:
        expected = f"a function with a loss for each row, {tuple(places.shape[:-1])}"
        raise fail(where, "loss", expected, describe(values))
    order = torch.where(values.isnan(), math.inf, values).argsort(dim=0, stable=True)
    if subset is None:
        return places.gather(0, order[:1, ..., None].expand(1, *y.shape))[0]
    chosen = integer(where, "subset", subset, 1, len(places))
    shares = held.new_tensor([math.comb(len(places) - 1 - r, chosen - 1) / math.comb(len(places), chosen)
                              for r in range(len(places))], dtype=torch.float64)  # fmt: skip
    ranked = places.gather(0, order[..., None].expand(places.shape))
    return ordered_sum(ranked * shares.reshape(-1, *[1] * y.dim())).to(y.dtype)


def _gradient(
    where: str, loss: Loss, y: torch.Tensor, graph: bool, one_for_all: bool = True
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return ∇ℓ at y, and the leaf that it is a function of; each row's own."""
    refuse_torch_func(where, y)
    with torch.enable_grad():
        held = y.detach().clone().requires_grad_()
        values = loss(held)
        if not isinstance(values, torch.Tensor) or values.shape not in (y.shape[:-1], *[()] * one_for_all):
            kind = ValueError if isinstance(values, torch.Tensor) else TypeError
            expected = f"a function that returns a loss for each row, {tuple(y.shape[:-1])}"
            raise fail(where, "loss", expected, describe(values), error=kind)
        if not values.requires_grad:
            return torch.zeros_like(held), held
        (slope,) = torch.autograd.grad(values.sum(), held, create_graph=graph, allow_unused=True)
    slope = torch.zeros_like(held) if slope is None else slope
    if held.is_cpu and not bool(torch.isfinite(slope.detach()).all()):
        raise fail(where, "loss", "a function with a finite gradient at y", "NaN or infinity")
    return slope, held


def _row(entry: torch.Tensor, held: torch.Tensor) -> torch.Tensor:
    """Return the gradient of one entry of a gradient, 0 where it is a constant."""
    if not entry.requires_grad:
        return torch.zeros_like(held)
    (row,) = torch.autograd.grad(entry, held, retain_graph=True, allow_unused=True)
    return torch.zeros_like(held) if row is None else row
