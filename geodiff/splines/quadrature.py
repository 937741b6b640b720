# SPDX-License-Identifier: Apache-2.0
"""Gauss-Legendre quadrature on the knot spans of a spline; `geodiff.splines.measure` says how accurate it is."""

import functools
import numbers
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

from geodiff.splines.geometry import Jet
from geodiff.splines.spline import NURBS
from geodiff.validation import fail, positive

POINTS = 16
MOST_NODES = 2**20


@functools.lru_cache(maxsize=64)
def _legendre(points: int) -> tuple[np.ndarray, np.ndarray]:
    nodes, weights = np.polynomial.legendre.leggauss(points)
    return (nodes + 1) / 2, weights / 2


def rule(points: int, pieces: int, like: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return nodes and weights on [0, 1], cut into equal pieces, `(pieces · points,)` each."""
    nodes, weights = _legendre(points)
    nodes = ((np.arange(pieces)[:, None] + nodes) / pieces).ravel()
    return torch.as_tensor(nodes).to(like), torch.as_tensor(np.tile(weights / pieces, pieces)).to(like)


def breakpoints(spline: NURBS, axis: int) -> torch.Tensor:
    """Return the breakpoints of the domain, `(..., S + 1)`, without the spans that are empty in all of a batch.

    Neighbouring spans share one knot, so that moving it takes from one what it gives to the other.
    """
    knots = spline.knots[axis]
    if not spline.periodic[axis]:
        knots = knots[..., spline.degrees[axis] : spline.shape[axis] + 1]
    held = knots.detach().reshape(-1, knots.shape[-1])
    full = (held[:, 1:] > held[:, :-1]).any(0)
    return torch.cat([knots[..., :1], knots[..., 1:][..., full]], -1)


def nodes_on(breaks: torch.Tensor, points: int, pieces: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return nodes and weights over all spans, `(..., S · pieces · points)` each."""
    x, w = rule(points, pieces, breaks)
    width = breaks.diff(dim=-1)[..., None]
    return (breaks[..., :-1, None] + width * x).flatten(-2), (width * w).flatten(-2)


def integral(
    where: str,
    spline: NURBS,
    integrand: Callable[[Jet], torch.Tensor],
    breaks: Sequence[torch.Tensor],
    points: int | Sequence[int] | None,
    tolerance: float | None,
) -> torch.Tensor:
    """Integrate `(..., N…, C)`, made from the value and the first derivatives, over a grid on all spans: `(..., C)`."""
    counts = list(points) if isinstance(points, Sequence) else [count_of(where, points)] * spline.axes

    def evaluate(pieces: int) -> torch.Tensor:
        rules = [nodes_on(b, q, pieces) for b, q in zip(breaks, counts, strict=True)]
        values = integrand(spline.derivatives(*(u for u, _ in rules), order=1, grid=True))
        for axis in reversed(range(spline.axes)):
            values = (values * rules[axis][1][(..., *(None,) * axis, slice(None), None)]).sum(-2)
        return values

    if tolerance is None:
        return evaluate(1)
    positive(where, "tolerance", tolerance, "It is a fraction of the value.")
    rounding = 8 * torch.finfo(spline.dtype).eps
    if tolerance < rounding:
        text = f"at least {rounding:.2g}, eight roundings of {str(spline.dtype).replace('torch.', '')}"
        raise fail(where, "tolerance", text, f"{tolerance:g}", "Ask for less, or compute in float64.")
    nodes = [(b.shape[-1] - 1) * q for b, q in zip(breaks, counts, strict=True)]
    batch = max(1, int(np.prod(spline.batch_shape)))
    pieces, change = 1, float("inf")
    with torch.no_grad():
        coarse = evaluate(1)
    while batch * np.prod([float(n * pieces * 2) for n in nodes]) <= MOST_NODES:
        pieces *= 2
        with torch.no_grad():
            fine = evaluate(pieces)
        size = fine.abs().amax(-1)
        change = float(((fine - coarse).abs().amax(-1) / torch.where(size > 0, size, torch.ones_like(size))).max())
        if change <= tolerance:
            return evaluate(pieces) if torch.is_grad_enabled() else fine
        coarse = fine
    got = f"{tolerance:g}, while the last two values differ by {change:.2g}"
    fix = "Ask for less; a fold or a cusp is smooth only if it is on a knot."
    raise fail(where, "tolerance", f"within reach of {MOST_NODES} nodes", got, fix)


def count_of(where: str, points: Any) -> int:
    """Read how many nodes a span gets."""
    if points is None:
        return POINTS
    if not isinstance(points, numbers.Integral) or isinstance(points, bool) or not 1 <= int(points) <= 256:
        raise fail(where, "points", "an integer in [1, 256]", repr(points))
    return int(points)
