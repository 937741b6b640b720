# SPDX-License-Identifier: Apache-2.0
"""Robust pooling: the point that a penalty of the distances to many points makes best, and its implicit gradient."""

from typing import Any

import torch

from geodiff.modes import outside_autocast, refuse_transforms
from geodiff.recording import look
from geodiff.soft.special import last_derivative
from geodiff.transport.robust_mean import Penalty, descend, vector_jacobian, weighted_median
from geodiff.validation import check_finite, fail, floating, looks_at_values, nearest, positive, promote, warn

__all__ = ["PENALTIES", "Penalty", "RobustPool2d", "robust_pool"]

_ONCE = "robust_pool: gradients are of first order only; a second derivative was asked for."


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
            gradients = vector_jacobian(x, alpha, mass, y, v, ctx.penalty, ctx.needs_input_grad)
        gradients = [g if g is None else last_derivative(g, x, alpha, mass, v, message=_ONCE) for g in gradients]
        return *gradients, None, None, None


def _solve(
    x: torch.Tensor, alpha: torch.Tensor, mass: torch.Tensor, penalty: Penalty, weighted: bool, limit: int
) -> torch.Tensor:
    if len(x) == 0:
        return x.new_zeros(x.shape[:2])
    mean = torch.bmm(x, mass[:, :, None])[:, :, 0] if weighted else x.mean(-1)
    if isinstance(penalty, _Quadratic):
        return mean
    y, value, late = descend(x, alpha, mass, mean, penalty, limit)
    if not penalty.convex:
        other, lower, slow = descend(x, alpha, mass, weighted_median(x, mass, weighted), penalty, limit)
        better = lower < value
        y, late = torch.where(better[:, None], other, y), torch.where(better, slow, late)
    if look(late.any()):
        warn(
            f"robust_pool: {int(late.sum())} of {len(late)} items did not converge in {limit} iterations; "
            "raise max_iterations, or alpha.",
            RuntimeWarning,
        )
    return y
