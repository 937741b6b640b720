# SPDX-License-Identifier: Apache-2.0
"""Random splines for the tests of CAD operations, and what it means that two are the same."""

import math
from collections.abc import Sequence
from typing import Any

import torch
from hypothesis import strategies as st

import geodiff as gd
from geodiff.splines import NURBS

CLASSES = {1: gd.NURBSCurve, 2: gd.NURBSSurface, 3: gd.NURBSVolume}
# Splines of order-one coordinates and weights in [0.5, 1.5]: some hundred roundings, far below the 1e-12.
SAME = 1e-12


def index_of(counts: Sequence[int], degree: int, ends: tuple[bool, bool] = (True, True)) -> torch.Tensor:
    """Number the breakpoints of a vector: interior ones of given multiplicities, ends clamped or followed by others."""
    before = [0] * (degree + 1) if ends[0] else [*range(degree + 1)]
    inner = [before[-1] + 1 + i for i, m in enumerate(counts) for _ in range(m)]
    last = before[-1] + len(counts) + 1
    after = [last] * (degree + 1) if ends[1] else [*range(last, last + degree + 1)]
    return torch.tensor(before + inner + after)


def breakpoints(index: torch.Tensor, *batch: int) -> torch.Tensor:
    """Draw as many increasing numbers as there are distinct knots, no two very near."""
    steps = 0.2 + torch.rand(*batch, int(index[-1]) + 1, dtype=torch.float64)
    return steps.cumsum(-1) - 1


def net(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64)


def spline_over(
    knots: Sequence[torch.Tensor], degree: Sequence[int], rational: bool, *batch: int, **options: Any
) -> Any:
    """Make a spline with random control points over given knots."""
    axes = len(knots)
    shape = [k.shape[-1] - p - 1 for k, p in zip(knots, degree, strict=True)]
    options["weights"] = 0.5 + torch.rand(*batch, *shape, dtype=torch.float64) if rational else None
    options["degree"] = degree[0] if axes == 1 else tuple(degree)
    vectors = (tuple(knots),) if axes == 3 else knots
    return CLASSES[axes](net(*batch, *shape, 3), *vectors, **options)


def random_spline(axes: int = 1, rational: bool = True, *batch: int, **options: Any) -> Any:
    """Make a spline with degrees 3, 2, 1, a double knot, and one end that is not clamped."""
    plans = [((1, 2, 1), 3, (True, False)), ((1, 1), 2, (False, True)), ((1,), 1, (True, True))][:axes]
    indices = [index_of(*plan) for plan in plans]
    knots = [breakpoints(i, *batch)[..., i] for i in indices]
    return spline_over(knots, [p for _, p, _ in plans], rational, *batch, **options)


@st.composite
def curves(draw: st.DrawFn, least: int = 0, most: int = 5) -> Any:
    """Draw curves of any degree, with interior knots of any multiplicity up to P + 1, clamped or not."""
    degree = draw(st.integers(least, most))
    counts = draw(st.lists(st.integers(1, degree + 1), max_size=4))
    ends = draw(st.tuples(st.booleans(), st.booleans()))
    torch.manual_seed(draw(st.integers(0, 2**20)))
    index = index_of(counts, degree, ends)
    return spline_over([breakpoints(index)[index]], [degree], draw(st.booleans()))


def inside(spline: NURBS, count: int, axis: int = 0) -> torch.Tensor:
    """Draw parameters in the domain, `(..., N)`."""
    low, high = (end[..., None] for end in spline.domain[axis])
    return low + (high - low) * torch.rand(*low.shape[:-1], count, dtype=spline.dtype)


def assert_same(actual: NURBS, expected: NURBS, at: Sequence[torch.Tensor] | None = None, order: int = 1) -> None:
    """Assert that two splines are the same map, with derivatives, where both are defined.

    A derivative of order k divides k times by the length of a span, and multiplies by the degree: so does its rounding.
    """
    assert type(actual) is type(expected)
    assert actual.is_rational == expected.is_rational
    at = [inside(actual, 12, axis) for axis in range(actual.axes)] if at is None else at
    found, wanted = (s.derivatives(*at, order=order) for s in (actual, expected))
    for key, value in wanted.items():
        scale = max(1.0, float(value.abs().max()))
        for k, p, knots in zip(key, actual.degrees, actual.knots, strict=True):
            spans = knots.diff(dim=-1)
            scale *= max(1.0, 2 * p / float(spans[spans > 0].min())) ** k
        error = float((found[key] - value).abs().max()) / scale
        assert error <= SAME, f"derivative {key}: off by {error:.3g} of {scale:.3g}"


def least_positive(spline: NURBS) -> float:
    return math.inf if spline.weights is None else float(spline.weights.min())
