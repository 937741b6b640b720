# SPDX-License-Identifier: Apache-2.0
"""Rearranged splines: the same map after the same change of parameters, by definition."""

from typing import Any

import pytest
import torch
from hypothesis import given

import geodiff as gd
from geodiff.splines.arrange import joined, normalised, reversed_, swapaxes, transposed
from geodiff.splines.refine import elevated, split
from tests.splines.cad import SAME, assert_same, curves, inside, net, random_spline


def mirrored(spline: Any, u: torch.Tensor, axis: int = 0) -> torch.Tensor:
    low, high = (end[..., None] for end in spline.domain[axis])
    return low + (high - u)


@given(curves())
def test_reversal(curve: Any) -> None:
    back = reversed_(curve)
    assert all(torch.equal(a, b) for a, b in zip(back.domain[0], curve.domain[0], strict=True))
    u = inside(curve, 20)
    assert float((back(u) - curve(mirrored(curve, u))).abs().max()) < SAME
    assert_same(reversed_(back), curve)


@pytest.mark.parametrize("axes", [2, 3])
def test_reversal_of_every_axis(axes: int) -> None:
    spline = random_spline(axes)
    at = [inside(spline, 9, a) for a in range(axes)]
    for axis in range(axes):
        there = [mirrored(spline, u, a) if a == axis else u for a, u in enumerate(at)]
        assert float((reversed_(spline, axis)(*at) - spline(*there)).abs().max()) < SAME


@pytest.mark.parametrize("count", [2, 5])
def test_reversal_keeps_periods(count: int) -> None:
    knots = torch.rand(count + 1, dtype=torch.float64).add(0.1).cumsum(0)
    ring = gd.NURBSCurve(net(count, 2), knots, torch.rand(count).double() + 0.5, periodic=True)
    back = reversed_(ring)
    assert back.periodic == (True,)
    u = inside(ring, 30)
    assert float((back(u) - ring(mirrored(ring, u))).abs().max()) < SAME


def test_swapped_axes() -> None:
    volume = random_spline(3, knot_gradient="gaussian", bandwidth=(0.1, 0.2, 0.3))
    at = [inside(volume, 9, a) for a in range(3)]
    other = swapaxes(volume, 0, 2)
    assert other.degree == (1, 2, 3) and other.bandwidth == (0.3, 0.2, 0.1)
    assert float((other(*at[::-1]) - volume(*at)).abs().max()) < SAME
    surface = gd.NURBSSurface(net(5, 4, 3), weights=torch.rand(5, 4).double() + 0.5, periodic=(True, False))
    u, v = (inside(surface, 9, a) for a in range(2))
    turned = transposed(surface)
    assert turned.periodic == (False, True)
    assert float((turned(v, u) - surface(u, v)).abs().max()) < SAME
    # Normals are of order one, but divide by |S_u × S_v|.
    assert float((turned.normal(v, u) + surface.normal(u, v)).abs().max()) < 1e-10


@given(curves())
def test_normalised_domain(curve: Any) -> None:
    unit = normalised(curve)
    assert [float(x) for x in unit.domain[0]] == [0.0, 1.0]
    low, high = curve.domain[0]
    t = torch.rand(20, dtype=torch.float64)
    assert float((unit(t) - curve(low + t * (high - low))).abs().max()) < 10 * SAME


def test_normalised_axes_and_bandwidths() -> None:
    surface = random_spline(2, knot_gradient="gaussian", bandwidth=(0.1, 0.2))
    one = normalised(surface, axis=1)
    low, high = surface.domain[1]
    assert torch.equal(one.knots_u, surface.knots_u)
    assert one.bandwidth == pytest.approx((0.1, 0.2 / float(high - low)))
    assert [[float(x) for x in ends] for ends in normalised(surface).domain] == [[0.0, 1.0], [0.0, 1.0]]
    ring = normalised(gd.NURBSCurve(net(3, 2), torch.tensor([1.0, 2, 4, 5]).double(), periodic=True))
    assert ring.knots[0].tolist() == [0, 0.25, 0.75, 1]


@given(curves(least=1))
def test_joining_undoes_splitting(curve: Any) -> None:
    left, right = split(curve, float(inside(curve, 1)))
    right = right.replace(knots=right.knots[0] + 7)  # the second's parameters are moved to follow
    if right.is_rational:
        right = right.replace(weights=right.weights * 3)  # which changes nothing
    assert_same(joined(left, right), curve, order=0)
    # By halves of different degrees, too.
    assert_same(joined(elevated(left), right), curve, order=0)


def test_joins_a_polynomial_and_a_rational_curve() -> None:
    arc = torch.tensor([[1.0, 0.0], [1.0, 1.0], [0.0, 1.0]])
    quarter = gd.NURBSCurve(arc, weights=torch.tensor([1.0, 0.5**0.5, 1.0]), degree=2)
    line = gd.NURBSCurve(torch.tensor([[0.0, 1.0], [-2.0, 1.0]]), degree=1)
    path = joined(quarter, line)
    u = torch.linspace(0, 1, 20)
    # Single precision, order one.
    assert float((path(u).norm(dim=-1) - 1).abs().max()) < 1e-6
    assert float((path(u + 1) - line(u)).abs().max()) < 1e-6
    loop = gd.NURBSCurve(net(5, 2), periodic=True)
    twice = joined(loop, loop)
    assert_same(twice, loop, at=[torch.rand(9, dtype=torch.float64)])


def test_joins_batches() -> None:
    both = random_spline(1, True, 2)
    low, high = both.domain[0]
    left, right = split(both, low + 0.01 * (high - low))  # before the first knot of each
    assert_same(joined(left, right), both, order=0)


def test_gradients_flow_through() -> None:
    def results(p: torch.Tensor, w: torch.Tensor, k: torch.Tensor) -> tuple[torch.Tensor, ...]:
        knots = torch.cat([k[:1].expand(2), k, k[-1:].expand(2)])
        curve = normalised(gd.NURBSCurve(p, knots, w, degree=2))
        curve = joined(reversed_(curve), curve)
        return curve.control_points, curve.weights, curve.knots[0]

    inputs = [net(4, 1), torch.rand(4).double() + 0.5, torch.tensor([0.0, 0.7, 2.0]).double()]
    assert torch.autograd.gradcheck(results, [x.requires_grad_() for x in inputs])


# Refusals ------------------------------------------------------------------------------------------------------------


def test_refuses_curves_that_do_not_meet() -> None:
    one, two = (gd.NURBSCurve(torch.tensor([[a, 0.0], [a + 1, 0.0]]), degree=1) for a in (0.0, 1.5))
    with pytest.raises(ValueError, match=r"joined: `second` must be starting within .* of the first; got 0.5 away"):
        joined(one, two)
    assert joined(one, two, tolerance=0.6).control_points.flatten().tolist() == [0, 0, 1, 0, 2.5, 0]
    with pytest.raises(ValueError, match=r"joined: `tolerance` must be positive"):
        joined(one, two, tolerance=-1.0)


def test_refuses_what_cannot_be_joined() -> None:
    curve = gd.NURBSCurve(net(4, 2))
    with pytest.raises(TypeError, match=r"joined: `second` must be a NURBSCurve; got"):
        joined(curve, random_spline(2))
    with pytest.raises(ValueError, match=r"joined: `first` must be of degree 1 or more; got degree 0"):
        joined(gd.NURBSCurve(net(4, 2), degree=0), curve)
    with pytest.raises(ValueError, match=r"joined: `second` must be a curve in 2 dimensions like the first; got 3"):
        joined(curve, gd.NURBSCurve(net(4, 3)))


def test_refuses_what_is_not_a_spline() -> None:
    for operation in (normalised, reversed_):
        with pytest.raises(TypeError, match=r"`spline` must be a NURBS curve, surface or volume"):
            operation("curve")
        with pytest.raises(ValueError, match=r"`axis` must be one of 0; got 1"):
            operation(random_spline(), 1)
    with pytest.raises(ValueError, match=r"swapaxes: `axis` must be one of 0, 1; got 2"):
        swapaxes(random_spline(2), 0, 2)
    with pytest.raises(TypeError, match=r"transposed: `surface` must be a NURBSSurface; got .* swapaxes\(\)"):
        transposed(random_spline(3))


def test_refuses_one_bandwidth_for_several_domains() -> None:
    curve = random_spline(1, True, 2, knot_gradient="gaussian", bandwidth=0.1)
    with pytest.raises(ValueError, match=r"normalised: `domain` must be of one length .* got between"):
        normalised(curve)
