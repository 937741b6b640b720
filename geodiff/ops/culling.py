# SPDX-License-Identifier: Apache-2.0
"""How far from a face a pixel must be for it not to count: from the distribution, with a bound on alpha's error."""

import functools
import math
from typing import Any

import torch

from geodiff import soft
from geodiff.modes import constant_in_graphs

MAX_ERROR = 1e-4
"""Default bound on what culling may change of any alpha: a fortieth of a step of an 8-bit image."""


@functools.lru_cache(maxsize=512)
def cull_radius(
    distribution: int,
    reversed_: bool,
    squared: bool,
    scale: float,
    shape: float,
    shift: float,
    tconorm: int,
    p: float,
    faces: int,
    max_error: float,
) -> float:
    """Return the distance (NDC) outside a face beyond which it is left out of a pixel.

    With n faces, all of them left out with `F ≤ ε`, the sum of the T-conorm's generator s is short by at most `n·s(ε)`.
    ε is the largest for which that moves no alpha by more than `max_error`, see `TConorm.cull_threshold`; the radius is
    `scale·(−quantile(ε))`, or the root of that for a squared distribution. Infinite where the tail is too heavy: then
    nothing is left out.

    Args:
        distribution: kernel number of the distribution.
        reversed_: whether it is the reversed form.
        squared: whether it is the squared form.
        scale: τ.
        shape: the gamma distribution's shape; ignored by the others.
        shift: canonical shift.
        tconorm: kernel number of the T-conorm.
        p: its parameter; ignored by those without.
        faces: how many faces an image has at most.
        max_error: the bound; 0 leaves nothing out that has any weight.
    """
    member = soft.from_kernel(distribution, shape=shape, shift=shift, is_reversed=reversed_, is_squared=squared)
    conorm = soft.tconorm_from_kernel(tconorm, p=p)
    epsilon = conorm.cull_threshold(max_error, max(faces, 1)) if max_error > 0 else 0.0
    radius = float(member.cull_radius(epsilon))
    return radius * (scale**0.5 if squared else scale)


RADII, DEAREST = 88, 28
"""How many radii `fine_radii` has, and which of them is that of a single face; as in `cuda/cpu/jobs.h`."""


@functools.lru_cache(maxsize=512)
def fine_radii(
    distribution: int,
    reversed_: bool,
    squared: bool,
    shape: float,
    shift: float,
    tconorm: int,
    p: float,
    max_error: float,
) -> tuple[tuple[float, ...], float]:
    """Return for a scale of 1 the distances that fewer faces need, and how they shrink where a pixel is nearly covered.

    The i-th is the `cull_radius` of `2^((i − DEAREST)/2)` faces. Less than one: a face that alone would move an alpha
    of 0 by more than `max_error`, but not that of a pixel which is nearly covered. By how much more such a pixel bears
    says the second number over the slope of s⁻¹ there, since `s(a + max_error) − s(a) ≥ max_error·s′(a)` for a convex
    s; it is 0 where s is not known to be convex.

    Arguments as of `cull_radius`; `max_error` positive.
    """
    member = soft.from_kernel(distribution, shape=shape, shift=shift, is_reversed=reversed_, is_squared=squared)
    conorm = soft.tconorm_from_kernel(tconorm, p=p)
    counts = torch.exp2(0.5 * (torch.arange(RADII, dtype=torch.float64, device="cpu") - DEAREST))
    with torch.no_grad():
        shares, ease = conorm._cull_thresholds(max_error, counts)
        radii = -member.quantile(shares)
    return tuple(radii.clamp(min=0.0).tolist()), ease


def special_values(shape: float) -> tuple[float, float]:
    """Return `log Γ(shape + 1)` and `ψ(shape)`, which the gamma kernels start from."""
    x = torch.tensor(shape, dtype=torch.float64, device="cpu")
    return float(torch.lgamma(x + 1)), float(torch.digamma(x))


@functools.lru_cache(maxsize=512)
def contour_radii(
    distribution: int, reversed_: bool, squared: bool, scale: float, shape: float, shift: float, max_error: float
) -> tuple[float, float]:
    """Return the distances (NDC) outside and inside of an outline beyond which alpha is within `max_error` of 0 and 1.

    A pixel has one CDF, so these are its quantiles: `scale·(−quantile(max_error))` outside and
    `scale·upper_quantile(max_error)` inside, or the roots for a squared distribution; not below 0, and infinite where
    the tail is too heavy or, with `distribution` −1, unknown. Arguments as of `cull_radius`.
    """
    if distribution < 0:
        return float("inf"), float("inf")
    member = soft.from_kernel(distribution, shape=shape, shift=shift, is_reversed=reversed_, is_squared=squared)
    rest = torch.tensor(float(max_error), dtype=torch.float64, device="cpu")
    size = scale**0.5 if squared else scale
    radii = [max(0.0, float(end)) * size for end in (-member.quantile(rest), member.upper_quantile(rest))]
    return radii[0], radii[1]


def radius_of(
    distribution: "soft.Distribution",
    tconorm: "soft.TConorm",
    scale: float | torch.Tensor,
    faces: int,
    max_error: float,
) -> float:
    """Return `cull_radius` of objects of `geodiff.soft`; infinite for user-defined ones, of which nothing is known."""
    if distribution.kernel_id is None or tconorm.kernel_id is None:
        return math.inf
    scale, shape, shift, p = _numbers(scale, distribution.shape, distribution.shift, tconorm.p)
    return _constant_radius(
        distribution.kernel_id,
        distribution.is_reversed,
        distribution.is_squared,
        scale,
        shape,
        shift,
        tconorm.kernel_id,
        p,
        faces,
        max_error,
    )


def contour_reach(distribution: "soft.Distribution", scale: float | torch.Tensor, max_error: float) -> float:
    """Return the first of `contour_radii`, a hundredth more for rounding; infinite for a user-defined distribution."""
    if distribution.kernel_id is None:
        return math.inf
    form = distribution.kernel_id, distribution.is_reversed, distribution.is_squared
    numbers = _numbers(scale, distribution.shape, distribution.shift)
    return 1.01 * _constant_radii(*form, *numbers, max_error)[0]


def _numbers(*given: Any) -> list[float]:
    return [0.0 if v is None else float(v.detach() if isinstance(v, torch.Tensor) else v) for v in given]


@constant_in_graphs
def _constant_radii(*numbers: Any) -> tuple[float, float]:
    return contour_radii(*numbers)


@constant_in_graphs
def _constant_radius(*numbers: Any) -> float:
    return cull_radius(*numbers)  # found while torch.compile traces: all that it depends on are numbers
