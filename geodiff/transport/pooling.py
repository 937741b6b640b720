# SPDX-License-Identifier: Apache-2.0
"""Robust pooling: the point that a penalty of the distances to many points makes best, and its implicit gradient."""

from collections.abc import Sequence
from typing import Any

import torch

from geodiff.modes import outside_autocast, refuse_transforms
from geodiff.soft.special import last_derivative
from geodiff.validation import check_finite, fail, floating, looks_at_values, nearest, positive, promote, warn

__all__ = ["PENALTIES", "Penalty", "RobustPool2d", "robust_pool"]

_ONCE = "robust_pool: gradients are of first order only; a second derivative was asked for."


class Penalty:
    """A penalty φ(z; alpha) of distances z >= 0, given in `u = z/alpha`; subclass it for one of your own.

    φ must grow with u and be concave in u², as all the usual ones are: then reweighted averages never increase the sum.

    Attributes:
        name: for messages.
        convex: whether φ is convex, so that every local minimum is the minimum.
        curved: False where `fraction` is zero everywhere.

    Example:
        >>> import torch
        >>> class Cauchy(Penalty):
        ...     name, convex = "cauchy", False
        ...     def value(self, u):
        ...         return (u * u).log1p() / 2
        ...     def kappa(self, u, least):
        ...         return 1 / (1 + u * u)
        ...     def fraction(self, u):
        ...         return 2 * u * u / (1 + u * u)
        >>> robust_pool(torch.tensor([[0.0, 1.0, 2.0, 100.0]]), Cauchy(), alpha=0.1).round(decimals=2)
        tensor([1.])
    """

    name = "penalty"
    convex = True
    curved = True

    def value(self, u: torch.Tensor) -> torch.Tensor:
        """Return φ(u), up to a constant factor."""
        raise NotImplementedError(f"{type(self).__name__} needs value(u)")

    def kappa(self, u: torch.Tensor, least: torch.Tensor) -> torch.Tensor:
        """Return `κ₁ = φ'(u)/u`, up to one factor an item; `least (..., 1)` is its smallest u, to scale by."""
        raise NotImplementedError(f"{type(self).__name__} needs kappa(u, least)")

    def fraction(self, u: torch.Tensor) -> torch.Tensor:
        """Return `1 − φ''(u)/κ₁(u) = −κ₂ z²/κ₁ >= 0`."""
        raise NotImplementedError(f"{type(self).__name__} needs fraction(u)")

    def total(self, u: torch.Tensor, mass: torch.Tensor) -> torch.Tensor:
        """Return `Σ mass_n φ(u_n)`, or a growing function of it."""
        return (mass * self.value(u)).sum(-1)


class _Quadratic(Penalty):
    name, curved = "quadratic", False

    def value(self, u: torch.Tensor) -> torch.Tensor:
        return u * u / 2

    def kappa(self, u: torch.Tensor, least: torch.Tensor) -> torch.Tensor:
        return torch.ones_like(u)

    def fraction(self, u: torch.Tensor) -> torch.Tensor:
        return torch.zeros_like(u)


class _PseudoHuber(Penalty):
    name = "pseudo_huber"

    def value(self, u: torch.Tensor) -> torch.Tensor:
        return u * (u / (1 + torch.hypot(u, torch.ones_like(u))))  # √(1 + u²) − 1 without cancellation or overflow

    def kappa(self, u: torch.Tensor, least: torch.Tensor) -> torch.Tensor:
        return 1 / torch.hypot(u, torch.ones_like(u))

    def fraction(self, u: torch.Tensor) -> torch.Tensor:
        return (u / torch.hypot(u, torch.ones_like(u))).square()


class _Huber(Penalty):
    name = "huber"

    def value(self, u: torch.Tensor) -> torch.Tensor:
        return torch.where(u <= 1, u * u / 2, u - 0.5)

    def kappa(self, u: torch.Tensor, least: torch.Tensor) -> torch.Tensor:
        return 1 / u.clamp_min(1)

    def fraction(self, u: torch.Tensor) -> torch.Tensor:
        return (u > 1).to(u.dtype)


class _Welsch(Penalty):
    name, convex = "welsch", False

    def value(self, u: torch.Tensor) -> torch.Tensor:
        return -torch.expm1(-u * u / 2)

    def kappa(self, u: torch.Tensor, least: torch.Tensor) -> torch.Tensor:
        # Scaled by that of the nearest point, so that not all vanish where every point is far. Points of weight zero
        # may be nearer: their factor is held finite.
        return torch.exp((-(u - least) * (u + least) / 2).clamp_max(80))

    def fraction(self, u: torch.Tensor) -> torch.Tensor:
        return u * u

    def total(self, u: torch.Tensor, mass: torch.Tensor) -> torch.Tensor:
        # −log(1 − Σ mass φ): tells apart values that are 1 to rounding.
        plain = (mass * self.value(u)).sum(-1)
        far = -torch.logsumexp(mass.log() - u * u / 2, -1)
        return torch.where(plain < 0.5, -torch.log1p(-plain), far)


class _TruncatedQuadratic(Penalty):
    name, convex, curved = "truncated_quadratic", False, False

    def value(self, u: torch.Tensor) -> torch.Tensor:
        return u.clamp_max(1).square() / 2

    def kappa(self, u: torch.Tensor, least: torch.Tensor) -> torch.Tensor:
        # With no point inside, the nearest: the sum is constant there, and any step to a point decreases it.
        return (u <= least.clamp_min(1)).to(u.dtype)

    def fraction(self, u: torch.Tensor) -> torch.Tensor:
        return torch.zeros_like(u)


PENALTIES: dict[str, Penalty] = {
    p.name: p for p in (_Quadratic(), _PseudoHuber(), _Huber(), _Welsch(), _TruncatedQuadratic())
}


def _penalty(where: str, penalty: Any) -> Penalty:
    if isinstance(penalty, Penalty):
        return penalty
    if isinstance(penalty, str):
        if penalty in PENALTIES:
            return PENALTIES[penalty]
        raise fail(where, "penalty", f"one of {', '.join(PENALTIES)}", repr(penalty), nearest(penalty, PENALTIES))
    raise fail(where, "penalty", "a name or a Penalty", penalty, f"Names: {', '.join(PENALTIES)}.", TypeError)


@outside_autocast
def robust_pool(
    x: Any, penalty: str | Penalty = "huber", alpha: Any = 1.0, weights: Any = None, *, max_iterations: int = 1000
) -> torch.Tensor:
    """Return the robust mean `y = argmin Σ_n weights_n φ(|y − x_n|; alpha)` of points in C dimensions.

    Gould et al., "Exploiting Problem Structure in Deep Declarative Networks: Two Case Studies" (2022), equation 4, with
    the penalties of its table 1, in `z = |y − x_n|`:

    - ``"quadratic"``: `z²/2`: the mean;
    - ``"pseudo_huber"``: `alpha² (√(1 + (z/alpha)²) − 1)`, convex and smooth;
    - ``"huber"``: `z²/2` up to alpha, then `alpha (z − alpha/2)`, convex; the geometric median as alpha → 0;
    - ``"welsch"``: `1 − exp(−z²/(2 alpha²))`, not convex;
    - ``"truncated_quadratic"``: `min(z², alpha²)/2`, not convex: the mean of the points within alpha.

    Newton steps, with reweighted averages (IRLS) where they do not decrease the sum; every item of the batch stops by
    itself, when its steps are at the size of rounding. The penalties that are not convex start at the mean and at the
    coordinate-wise median, and the better result is kept: a local minimum, not always the least.

    Args:
        x: `(..., C, N)`, N points with C channels, N >= 1, C >= 1.
        penalty: its name, or a `Penalty` of one's own.
        alpha: the distance beyond which points count less, > 0, in the units of x; a number or `(...)`.
        weights: `(..., N)` >= 0, not all zero; only their ratios matter. A point of weight 0 is as if absent.
        max_iterations: of each item and start; a warning says when they did not suffice.

    Returns:
        `(..., C)`.

    Gradients: in x, alpha and weights through the optimality condition (equation 10), without unrolling, in O(C N)
    memory; first order only. Kinks (a point exactly at distance alpha) take one side. Of "truncated_quadratic", zero
    in alpha and in points beyond it. Where the Hessian is singular, so that the data do not determine y (Huber's with
    all points beyond alpha and on one line, such as a median of an even count), its pseudo-inverse: none along the
    directions left free, never NaN. In weights, that of `weights / Σ weights`.

    Raises:
        TypeError: for tensors that are not floating.
        ValueError: no points or channels, an unknown penalty, alpha <= 0, weights that are negative or all zero, shapes
            that do not fit, NaN.

    Example:
        >>> import torch
        >>> x = torch.tensor([[[0.0, 1.0, 2.0, 3.0, 100.0]]])
        >>> [round(float(robust_pool(x, name, 2.0)), 3) for name in ("quadratic", "huber", "truncated_quadratic")]
        [21.2, 2.0, 1.5]
    """
    where = "robust_pool"
    kind = _penalty(where, penalty)
    refuse_transforms(where, "Take gradients with torch.autograd.grad or .backward().", x, alpha, weights)
    given = promote(where, x=x, alpha=alpha, **({} if weights is None else {"weights": weights}))
    x, alpha = given["x"], given["alpha"]
    floating(where, "x", x, ("...", "C", "N"), "Points lie along the last axis, channels before it.", finite=False)
    if x.shape[-1] == 0 or x.shape[-2] == 0:
        raise fail(where, "x", "of one point and one channel or more", x)
    positive(where, "alpha", alpha)
    if max_iterations < 1:
        raise fail(where, "max_iterations", "at least 1", max_iterations)
    batch, (channels, points) = x.shape[:-2], x.shape[-2:]
    try:
        alpha = alpha.expand(batch)
    except RuntimeError:
        text = f"one number or of shape {tuple(batch)}, one an item"
        raise fail(where, "alpha", text, alpha) from None
    mass = _mass(where, given.get("weights"), x)
    flat = x.reshape(-1, channels, points)
    mass = mass.reshape(-1, points)
    y = _Pool.apply(flat, alpha.reshape(-1), mass, kind, weights is not None, max_iterations)
    return y.reshape(*batch, channels)


@outside_autocast
class RobustPool2d(torch.nn.Module):
    """Pool the pixels of a feature map `(B, C, H, W)` robustly to `(B, C)`; see `robust_pool`.

    Args:
        penalty: its name, or a `Penalty` of one's own.
        alpha: > 0, in the units of the features.
        learn_alpha: make `log_alpha` a parameter that trains with the network.
        max_iterations: of each item.

    Raises:
        ValueError: an unknown penalty, alpha <= 0, a map of another shape.

    Example:
        >>> import torch
        >>> RobustPool2d("huber", alpha=0.5)(torch.zeros(2, 8, 5, 5)).shape
        torch.Size([2, 8])
    """

    log_alpha: torch.Tensor

    def __init__(
        self,
        penalty: str | Penalty = "huber",
        alpha: float = 1.0,
        learn_alpha: bool = False,
        max_iterations: int = 1000,
    ) -> None:
        super().__init__()
        positive("RobustPool2d", "alpha", alpha)
        self.penalty = _penalty("RobustPool2d", penalty)
        self.max_iterations = max_iterations
        start = torch.tensor(float(alpha)).log()
        if learn_alpha:
            self.log_alpha = torch.nn.Parameter(start)
        else:
            self.register_buffer("log_alpha", start)

    def forward(self, x: torch.Tensor, weights: torch.Tensor | None = None) -> torch.Tensor:
        """Pool `(B, C, H, W)` to `(B, C)`, with weights `(B, H, W)`."""
        floating("RobustPool2d", "x", x, ("B", "C", "H", "W"), finite=False)
        if weights is not None:
            floating("RobustPool2d", "weights", weights, (x.shape[0], *x.shape[2:]), finite=False)
            weights = weights.flatten(1)
        alpha = self.log_alpha.to(x.dtype).exp()
        return robust_pool(x.flatten(2), self.penalty, alpha, weights, max_iterations=self.max_iterations)

    def extra_repr(self) -> str:
        """Name the penalty and alpha."""
        return f"{self.penalty.name}, alpha={float(self.log_alpha.detach().exp()):.4g}"


def _mass(where: str, weights: torch.Tensor | None, x: torch.Tensor) -> torch.Tensor:
    """Weights that sum to one, `(..., N)`."""
    shape = (*x.shape[:-2], x.shape[-1])
    if weights is None:
        return x.new_full((1,), 1 / x.shape[-1]).expand(shape)
    try:
        weights = weights.expand(shape)
    except RuntimeError:
        raise fail(where, "weights", f"of shape {tuple(shape)}, one a point", weights) from None
    if looks_at_values(weights):
        check_finite(where, "weights", weights)
        if bool((weights < 0).any()):
            raise fail(where, "weights", "at least 0", f"{float(weights.min())}")
        if not bool((weights.sum(-1) > 0).all()):
            item = tuple((weights.sum(-1) <= 0).nonzero()[0].tolist())
            raise fail(where, "weights", "positive for one point or more of each item", f"all zero in item {item}")
    return weights / weights.sum(-1, keepdim=True)


class _Pool(torch.autograd.Function):
    """`(B, C, N)`, `(B,)`, `(B, N)` to `(B, C)`."""

    @staticmethod
    def forward(
        ctx: Any,
        x: torch.Tensor,
        alpha: torch.Tensor,
        mass: torch.Tensor,
        penalty: Penalty,
        weighted: bool,
        limit: int,
    ) -> torch.Tensor:
        y = _solve(x, alpha, mass, penalty, weighted, limit)
        ctx.save_for_backward(x, alpha, mass, y)
        ctx.penalty = penalty
        return y

    @staticmethod
    def backward(ctx: Any, v: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        x, alpha, mass, y = ctx.saved_tensors
        with torch.no_grad():
            gradients = _vector_jacobian(x, alpha, mass, y, v, ctx.penalty, ctx.needs_input_grad)
        gradients = [g if g is None else last_derivative(g, x, alpha, mass, v, message=_ONCE) for g in gradients]
        return *gradients, None, None, None


def _vector_jacobian(
    x: torch.Tensor,
    alpha: torch.Tensor,
    mass: torch.Tensor,
    y: torch.Tensor,
    v: torch.Tensor,
    penalty: Penalty,
    needed: Sequence[bool],
) -> list[torch.Tensor | None]:
    """Gradients in x, alpha and mass: with `w = H⁻¹ v`, that in x_n is `pull_n (w − fraction_n e_n e_nᵀ w)`."""
    state = _State(x, alpha, mass, y, penalty)
    w = _divide_any(state, v)
    for_x = for_alpha = for_mass = None
    if needed[2]:
        for_mass = -state.kappa * torch.bmm(w[:, None, :], y[:, :, None] - x)[:, 0]
    if state.bent is None:
        for_alpha = torch.zeros_like(alpha) if needed[1] else None
        for_x = w[:, :, None] * state.pull[:, None, :] if needed[0] else None
        return [for_x, for_alpha, for_mass]
    across = torch.bmm(w[:, None, :], state.bent)
    if needed[1]:
        # κ₁ is a power of alpha times a function of z/alpha, and that power alone does not move y.
        for_alpha = -((state.pull * state.fraction).sqrt() * state.z * across[:, 0]).sum(-1) / alpha
    if needed[0]:
        for_x = state.bent.mul_(-across).addcmul_(w[:, :, None], state.pull[:, None, :])
    return [for_x, for_alpha, for_mass]


class _State:
    """What a penalty says at y: the sum, its gradient `Σ pull_n (y − x_n)`, and `H = total I − bent bentᵀ`.

    One buffer of the size of x. Both are scaled by alpha² and by the factor that `kappa` leaves open.
    """

    def __init__(
        self, x: torch.Tensor, alpha: torch.Tensor, mass: torch.Tensor, y: torch.Tensor, penalty: Penalty
    ) -> None:
        difference = y[:, :, None] - x
        # Some channels at a time: several times faster than `vector_norm`, without a second buffer.
        self.z = sum(part.square().sum(1) for part in difference.split(16, dim=1)).sqrt_()
        u = self.z / alpha[:, None]
        least = torch.where(mass > 0, u, torch.inf).amin(-1, keepdim=True)
        self.kappa = penalty.kappa(u, least)
        self.pull = mass * self.kappa
        self.total = self.pull.sum(-1)
        self.value = penalty.total(u, mass)
        self.gradient = torch.bmm(difference, self.pull[:, :, None])[:, :, 0]
        self.bent: torch.Tensor | None = None
        if penalty.curved:
            self.fraction = penalty.fraction(u)
            scale = (self.pull * self.fraction).sqrt() / self.z.clamp_min(torch.finfo(x.dtype).tiny)
            self.bent = difference.mul_(scale[:, None, :])


def _matrix(state: _State, blend: torch.Tensor | None = None) -> torch.Tensor:
    """`I − blend bent bentᵀ/total`, or `I − blend bentᵀ bent/total` where that is the smaller one."""
    assert state.bent is not None
    bent = state.bent
    square = bent.mT @ bent if bent.shape[2] < bent.shape[1] else bent @ bent.mT
    factor = -1 / state.total if blend is None else -blend / state.total
    square *= factor[:, None, None]
    square.diagonal(dim1=1, dim2=2).add_(1)
    return square


def _divide(state: _State, v: torch.Tensor, blend: torch.Tensor | None = None) -> tuple[torch.Tensor, torch.Tensor]:
    """Return `(total I − blend bent bentᵀ)⁻¹ v` by Cholesky, and for which items that is sound."""
    plain = v / state.total[:, None]
    if state.bent is None:
        return plain, torch.ones_like(state.total, dtype=torch.bool)
    factor, info = torch.linalg.cholesky_ex(_matrix(state, blend))
    least = factor.diagonal(dim1=1, dim2=2).amin(-1).square()
    sound = (info == 0) & (least > torch.finfo(v.dtype).eps ** 0.75)
    factor[~sound] = torch.eye(factor.shape[-1], dtype=v.dtype, device=v.device)
    if state.bent.shape[2] < state.bent.shape[1]:
        inner = torch.cholesky_solve(state.bent.mT @ plain[:, :, None], factor) / state.total[:, None, None]
        inner = inner if blend is None else inner * blend[:, None, None]
        return plain + (state.bent @ inner)[:, :, 0], sound
    return torch.cholesky_solve(plain[:, :, None], factor)[:, :, 0], sound


def _divide_any(state: _State, v: torch.Tensor) -> torch.Tensor:
    """`H⁻¹ v`, by the pseudo-inverse where H is singular."""
    w, sound = _divide(state, v)
    if state.bent is None or bool(sound.all()):
        return w
    poor = ~sound
    values, vectors = torch.linalg.eigh(_matrix(state)[poor])
    free = values < torch.finfo(v.dtype).eps ** 0.75
    bent, total = state.bent[poor], state.total[poor][:, None]
    plain = v[poor] / total
    if bent.shape[2] < bent.shape[1]:
        # With bentᵀ bent/total = Q (1 − values) Qᵀ, the inverse adds bent Q (1/values) Qᵀ bentᵀ/total to the identity;
        # where H is singular, taking away that direction's part of the identity makes it the pseudo-inverse.
        part = (vectors.mT @ (bent.mT @ plain[:, :, None]))[:, :, 0] / total
        part = torch.where(free, -part / (1 - values), part / torch.where(free, 1, values))
        w[poor] = plain + (bent @ (vectors @ part[:, :, None]))[:, :, 0]
    else:
        part = (vectors.mT @ plain[:, :, None])[:, :, 0]
        w[poor] = (vectors @ torch.where(free, 0, part / torch.where(free, 1, values))[:, :, None])[:, :, 0]
    return w


def _solve(
    x: torch.Tensor, alpha: torch.Tensor, mass: torch.Tensor, penalty: Penalty, weighted: bool, limit: int
) -> torch.Tensor:
    if len(x) == 0:
        return x.new_zeros(x.shape[:2])
    mean = torch.bmm(x, mass[:, :, None])[:, :, 0] if weighted else x.mean(-1)
    if isinstance(penalty, _Quadratic):
        return mean
    y, value, late = _descend(x, alpha, mass, mean, penalty, limit)
    if not penalty.convex:
        other, lower, slow = _descend(x, alpha, mass, _median(x, mass, weighted), penalty, limit)
        better = lower < value
        y, late = torch.where(better[:, None], other, y), torch.where(better, slow, late)
    if bool(late.any()):
        warn(
            f"robust_pool: {int(late.sum())} of {len(late)} items did not converge in {limit} iterations; "
            "raise max_iterations, or alpha.",
            RuntimeWarning,
        )
    return y


def _median(x: torch.Tensor, mass: torch.Tensor, weighted: bool) -> torch.Tensor:
    """The (lower, weighted) median of each coordinate, `(B, C)`."""
    if not weighted:
        return x.median(-1).values
    values, order = x.sort(-1)
    below = mass[:, None, :].expand_as(x).gather(-1, order).cumsum_(-1)
    half = 0.5 - torch.finfo(x.dtype).eps ** 0.75  # with equal weights, the same as without, whatever their rounding
    place = (below < half * below[..., -1:]).sum(-1, keepdim=True)
    return values.gather(-1, place)[..., 0]


def _descend(
    x: torch.Tensor, alpha: torch.Tensor, mass: torch.Tensor, start: torch.Tensor, penalty: Penalty, limit: int
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return a minimiser `(B, C)`, its value, and which items ran out of iterations.

    A step solves `(total I − (1 − damp) bent bentᵀ) step = gradient`: Newton's for damp 0, and that of reweighted
    averages for damp 1, which never increases the sum. A step that fails is replaced by the latter.
    """
    eps = torch.finfo(x.dtype).eps
    result, result_value = start.clone(), start.new_full((len(x),), torch.inf)
    rows = torch.arange(len(x), device=x.device)
    y, safe_y, trial = start, start, start
    value, length = result_value.clone(), result_value.clone()
    damp, safe = torch.zeros_like(value), torch.ones_like(value, dtype=torch.bool)
    done = torch.zeros_like(safe)
    for _ in range(limit):
        state = None  # its buffer goes before the next one comes
        state = _State(x, alpha, mass, trial, penalty)
        average = state.gradient / state.total[:, None]
        reach = torch.linalg.vector_norm(average, dim=1)
        # Below rounding, the sum cannot tell which point is better; its gradient can.
        noise = 16 * eps * state.value.abs()
        level = (state.value - value).abs() <= noise
        better = ~done & torch.where(level, reach < length, state.value < value)
        y = torch.where(better[:, None], trial, y)
        safe_y = torch.where(better[:, None], trial - average, safe_y)
        value, length = torch.where(better, state.value, value), torch.where(better, reach, length)
        step, sound = _divide(state, state.gradient, 1 - damp)
        step = torch.where(sound[:, None], step, average)
        spread = (state.pull * state.z).sum(-1) / state.total + torch.linalg.vector_norm(y, dim=1)
        arrived = better & (torch.linalg.vector_norm(step, dim=1) <= 2 * eps * spread)
        done = done | arrived | (~better & safe)
        eased = torch.where(sound, torch.where(damp < 0.05, 0, damp / 3), (3 * damp).clamp(0.01, 1))
        damp = torch.where(better, eased, (3 * damp).clamp(0.1, 1))
        safe = ~better | ~sound if penalty.curved else torch.ones_like(safe)
        trial = torch.where(better[:, None], trial - step, safe_y)
        left = int((~done).sum())
        if 2 * left <= len(rows):
            result[rows], result_value[rows] = y, value
            if left == 0:
                break
            keep = ~done
            x, alpha, mass, rows = x[keep], alpha[keep], mass[keep], rows[keep]
            y, safe_y, trial, value, length = y[keep], safe_y[keep], trial[keep], value[keep], length[keep]
            damp, safe, done = damp[keep], safe[keep], done[keep]
    result[rows], result_value[rows] = y, value
    late = torch.zeros(len(result), dtype=torch.bool, device=x.device)
    late[rows] = ~done
    return result, result_value, late
