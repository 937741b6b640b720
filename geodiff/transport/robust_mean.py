# SPDX-License-Identifier: Apache-2.0
"""The robust mean of a batch of points: Newton's method with reweighted averages, and derivatives at the optimum."""

from collections.abc import Sequence

import torch

from geodiff.recording import look

_LOOK = 4
"""Of a device's iterations, how many are taken before one looks whether they are done."""


class Penalty:
    """A penalty φ(z; alpha) of distances z >= 0, given in `u = z/alpha`; subclass it for one of your own.

    φ must grow with u and be concave in u², as all the usual ones are: then reweighted averages never increase the sum.

    Attributes:
        name: for messages.
        convex: whether φ is convex, so that every local minimum is the minimum.
        curved: False where `fraction` is zero everywhere.

    Example:
        >>> import torch, geodiff as gd
        >>> class Cauchy(Penalty):
        ...     name, convex = "cauchy", False
        ...     def value(self, u):
        ...         return (u * u).log1p() / 2
        ...     def kappa(self, u, least):
        ...         return 1 / (1 + u * u)
        ...     def fraction(self, u):
        ...         return 2 * u * u / (1 + u * u)
        >>> gd.robust_pool(torch.tensor([[0.0, 1.0, 2.0, 100.0]]), Cauchy(), alpha=0.1).round(decimals=2)
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


def vector_jacobian(
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
    one = torch.eye(factor.shape[-1], dtype=v.dtype, device=v.device)
    factor = torch.where(sound[:, None, None], factor, one)
    if state.bent.shape[2] < state.bent.shape[1]:
        inner = torch.cholesky_solve(state.bent.mT @ plain[:, :, None], factor) / state.total[:, None, None]
        inner = inner if blend is None else inner * blend[:, None, None]
        return plain + (state.bent @ inner)[:, :, 0], sound
    return torch.cholesky_solve(plain[:, :, None], factor)[:, :, 0], sound


def _divide_any(state: _State, v: torch.Tensor) -> torch.Tensor:
    """`H⁻¹ v`, by the pseudo-inverse where H is singular."""
    w, sound = _divide(state, v)
    if state.bent is None or look(sound.all()):
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


def weighted_median(x: torch.Tensor, mass: torch.Tensor, weighted: bool) -> torch.Tensor:
    """The (lower, weighted) median of each coordinate, `(B, C)`."""
    if not weighted:
        return x.median(-1).values
    values, order = x.sort(-1)
    below = mass[:, None, :].expand_as(x).gather(-1, order).cumsum_(-1)
    half = 0.5 - torch.finfo(x.dtype).eps ** 0.75  # with equal weights, the same as without, whatever their rounding
    rank = (below < half * below[..., -1:]).sum(-1, keepdim=True)
    return values.gather(-1, rank)[..., 0]


def descend(
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
    for turn in range(limit):
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
        if not x.is_cpu and turn % _LOOK != _LOOK - 1:
            continue  # those that are done stay as they are
        left = look((~done).sum())
        if left == 0 or (2 * left <= len(rows) and x.is_cpu):
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
