# SPDX-License-Identifier: Apache-2.0
"""What splines refuse, and what they say then."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import geodiff as gd
from geodiff.splines import greville, knots_to_logits, logits_to_knots, multiplicities, uniform_knots

POINTS = torch.zeros(5, 3)
NET = torch.zeros(5, 4, 3)


def knots(*values: float) -> torch.Tensor:
    return torch.tensor(values)


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: gd.NURBSCurve(POINTS, knots(0, 0, 0, 0, 0.5, 1, 1, 1)), ValueError,
         r"NURBSCurve: `knots` must be 9 knots = K \+ P \+ 1 for K = 5 .* P = 3; got 8 knots\. Add or drop"),
        (lambda: gd.NURBSCurve(POINTS, torch.rand(10)), ValueError, "must be 9 knots .* got 10 knots"),
        (lambda: gd.NURBSCurve(POINTS, knots(0, 0, 0, 0, 0.5, 0.4, 1, 1, 1)), ValueError,
         r"`knots` must be non-decreasing; got 0\.5 before 0\.4.* at index 4\. Sort"),
        (lambda: gd.NURBSCurve(POINTS, knots(0, 0, 1, 1, 1, 2, 2), degree=1), ValueError,
         r"must be repeated at most 2 times \(degree 1 \+ 1\); got 1\.0 repeated 3 times or more from index 2"),
        (lambda: gd.NURBSCurve(POINTS, torch.full((9,), 2.0)), ValueError, "of a domain that is not empty"),
        (lambda: gd.NURBSCurve(POINTS, knots(0, 0, 0, 0, math.nan, 1, 1, 1, 1)), ValueError,
         r"`knots` must be finite; got nan at index \(4,\)"),
        (lambda: gd.NURBSCurve(POINTS, torch.arange(9)[None, None].half()), TypeError, "`knots` must be float32 or"),
        (lambda: gd.NURBSCurve(POINTS, torch.arange(6.0)[:5], periodic=True), ValueError,
         r"6 knots = K \+ 1 \(one period\)"),
        (lambda: gd.NURBSSurface(NET, None, torch.rand(3)), ValueError, r"`knots_v` must be 8 knots"),
        (lambda: gd.NURBSCurve(POINTS, degree=5), ValueError,
         "at least 6 control points along u for degree 5; got .*5. Add control points or lower the degree"),
        (lambda: gd.NURBSSurface(NET, degree=(2, 4)), ValueError, "at least 5 control points along v for degree 4"),
        (lambda: gd.NURBSCurve(POINTS, degree=-1), ValueError, "`degree` must be an integer of 0 or more; got"),
        (lambda: gd.NURBSSurface(NET, degree=(3, 2.5)), ValueError, "`degree` must be 2 integers of 0 or more"),
        (lambda: gd.NURBSSurface(NET, degree=(3, 2, 1)), ValueError, "`degree` must be 2 integers"),
        (lambda: gd.NURBSCurve(POINTS, weights=torch.tensor([1.0, 2, 0, 1, 1])), ValueError,
         r"`weights` must be positive; got 0\.0 at index \(2,\)\. Optimise their logarithms"),
        (lambda: gd.NURBSCurve(POINTS, weights=torch.tensor([1.0, 2, -3, 1, 1])), ValueError, "`weights` must be pos"),
        (lambda: gd.NURBSCurve(POINTS, weights=torch.ones(4)), ValueError, r"`weights` must be of shape \(\.\.\., 5\)"),
        (lambda: gd.NURBSCurve(POINTS, weights=torch.tensor([1.0, 1, math.inf, 1, 1])), ValueError,
         "`weights` must be finite; got inf"),
        (lambda: gd.NURBSCurve(POINTS * math.nan), ValueError, "`control_points` must be finite"),
        (lambda: gd.NURBSCurve(torch.zeros(5)), ValueError, r"`control_points` must be of shape \(\.\.\., K, D\)"),
        (lambda: gd.NURBSCurve("a curve"), TypeError, "`control_points` must be a tensor or an array"),
        (lambda: gd.NURBSCurve(torch.zeros(2, 5, 3), uniform_knots(5, 3).repeat(3, 1)), ValueError,
         r"of a batch that broadcasts; got control_points \(2,\), knots \(3,\)"),
        (lambda: gd.NURBSCurve(torch.zeros(2, 5, 3), weights=torch.ones(3, 5)), ValueError,
         r"of a batch that broadcasts; got control_points \(2,\), weights \(3,\)"),
        (lambda: gd.NURBSCurve(POINTS, outside="clip"), ValueError, "`outside` must be one of error, clamp, extend"),
        (lambda: gd.NURBSSurface(NET, periodic=1), TypeError, "`periodic` must be a bool, or 2 of them"),
        (lambda: gd.NURBSCurve(POINTS).replace(points=POINTS), ValueError, "replace: `points` must be one of"),
        (lambda: gd.NURBSCurve(POINTS)[0], ValueError, "`index` must be left out for a single spline"),
        (lambda: gd.NURBSSurface(NET).replace(knots=uniform_knots(5, 3)), ValueError,
         "`knots` must be a tuple of 2, one vector an axis; got float32"),
        (lambda: gd.NURBSVolume(torch.zeros(4, 4, 4, 3), (None, None)), ValueError, "`knots` must be a tuple of 3"),
        (lambda: gd.NURBSCurve.from_homogeneous(torch.ones(5, 4), uniform_knots(5, 3), (3,)), ValueError,
         "`knots` must be a tuple of 1"),
        (lambda: gd.NURBSCurve(POINTS, knot_gradient="gaussian", bandwidth=torch.tensor(0.1)), ValueError,
         "`bandwidth` must be a number, or 1 of them"),
        (lambda: gd.NURBSCurve(POINTS[:, :2]).torsion(0.5), ValueError, "torsion: .* in space, D = 3; got D = 2"),
        (lambda: gd.BSplineBasis(torch.arange(4.0), -1), ValueError, "`degree` must be an integer, 0 or more"),
        (lambda: gd.BSplineBasis(torch.arange(4.0), 1.0), ValueError, "`degree` must be an integer, 0 or more"),
        (lambda: uniform_knots(5.0, 3), TypeError, "`count` must be an integer"),
        (lambda: uniform_knots(5, 3, dtype=torch.int64), TypeError, "`dtype` must be torch.float32 or"),
        (lambda: multiplicities(torch.zeros(2, 4)), ValueError, r"`knots` must be one vector, of shape \(M,\)"),
        (lambda: logits_to_knots(torch.zeros(4), -1), ValueError, "`degree` must be 0 or more"),
        (lambda: logits_to_knots(torch.zeros(()), 1), ValueError, r"`logits` must be of shape \(\.\.\., S\)"),
        (lambda: gd.BSplineBasis(torch.arange(3.0), 2), ValueError, "`knots` must be at least 4 long"),
        (lambda: uniform_knots(3, 3), ValueError, "`count` must be at least 4 for degree 3"),
        (lambda: uniform_knots(3, -1), ValueError, "`degree` must be 0 or more"),
        (lambda: uniform_knots(5, 3, low=1, high=1), ValueError, "`high` must be above low = 1"),
        (lambda: uniform_knots(5, 3, "open"), ValueError, "`kind` must be one of clamped, unclamped, periodic"),
        (lambda: logits_to_knots(torch.zeros(4), 2, min_fraction=0.25), ValueError,
         r"`min_fraction` must be in \[0, 1/4"),
    ],
)  # fmt: skip
def test_constructors(make, error: type[Exception], message: str | None) -> None:
    with pytest.raises(error, match=message):
        make()


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda s: s(0.5), TypeError, "`parameters` must be 2 of them, for u, v; got 1"),
        (lambda s: s(1.5, 0.5), ValueError,
         r'`u` must be in the domain \[0, 1\]; got 1\.5 \(1 outside of 1\)\. Pass outside="clamp"'),
        (lambda s: s([0.5, 0.1], [0.2, -0.01]), ValueError, r"`v` must be in the domain .* \(1 outside of 2\)"),
        (lambda s: s(math.nan, 0.5), ValueError, "`u` must be finite"),
        (lambda s: s(torch.rand(3), torch.rand(4)), ValueError, r"`u, v` must be of shapes that .* use grid\(\)"),
        (lambda s: s("0.5", 0.5), TypeError, "`u` must be a tensor or an array"),
        (lambda s: s.grid(1, 5), ValueError, "`u` must be a count of 2 or more, or parameters; got int 1"),
        (lambda s: s.grid(0.5, 5), ValueError, r"`u` must be of shape \(\.\.\., N\)"),
        (lambda s: s.derivative(0.5, 0.5, order=(1, -1)), ValueError, "`order` must be 2 integers of 0 or more"),
        (lambda s: s.derivative(0.5, 0.5), ValueError, "`order` must be a tuple of 2, one an axis; got the number 1"),
        (lambda s: s.derivatives(0.5, 0.5, order=-1), ValueError, "`order` must be an integer of 0 or more"),
        (lambda s: s.replace(control_points=NET[..., :2]).normal(0.5, 0.5), ValueError, "normal: .* D = 3; got D = 2"),
    ],
)  # fmt: skip
def test_calls(call, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call(gd.NURBSSurface(NET, degree=(3, 2)))


@given(
    values=st.lists(st.floats(-1e3, 1e3), min_size=2, max_size=12),
    degree=st.integers(0, 4),
    count=st.integers(1, 8),
)
def test_any_knots_work_or_are_refused(values: list[float], degree: int, count: int) -> None:
    """Whatever comes: a curve with finite points, or a ValueError that names an argument."""
    try:
        curve = gd.NURBSCurve(torch.randn(count, 2).double(), torch.tensor(values).double(), degree=degree)
    except ValueError as error:
        assert "NURBSCurve: `" in str(error)
        return
    low, high = curve.domain[0]
    assert low < high
    points = curve(low + torch.linspace(0, 1, 33).double() * (high - low))
    assert bool(torch.isfinite(points).all())
    assert float(points.abs().max()) <= float(curve.control_points.abs().max()) * (1 + 1e-9)


def test_other_spellings_that_work() -> None:
    """NumPy's integers as counts, a dtype given first, lists of knots, knots left out of homogeneous points."""
    surface = gd.NURBSSurface(torch.randn(5, 4, 3), degree=(3, 2))
    assert torch.equal(surface.grid(np.int64(4), 3), surface.grid(4, 3))
    assert surface.tessellate(np.int64(4), 3).num_vertices == 12
    assert surface.to(torch.float64).dtype == torch.float64
    own = uniform_knots(5, 3)
    assert torch.equal(greville(own.tolist(), 3), greville(own, 3))
    assert torch.equal(knots_to_logits(own.tolist(), 3), knots_to_logits(own, 3))
    assert torch.equal(logits_to_knots([0.0, 0.0], 3), own)
    curve = gd.NURBSCurve.from_homogeneous(torch.ones(5, 4), None, (3,))
    assert torch.equal(curve.knots[0], own)
    assert torch.equal(curve.replace(knots=own.numpy()).knots[0], own)
