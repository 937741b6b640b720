# SPDX-License-Identifier: Apache-2.0
"""Knot removal and degree reduction: they undo what is exact, and bound the error of what is not."""

import math
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import lsq_linear

import geodiff as gd
from geodiff.splines import BSplineBasis
from geodiff.splines.knots import greville
from geodiff.splines.reduce import reduced, remove_knot
from geodiff.splines.refine import clamped, elevated, insert_knots
from tests.splines.cad import SAME, assert_same, breakpoints, curves, index_of, inside, net, random_spline, spline_over

# Undoing is a least squares problem; its condition, below a hundred for these knots, magnifies the rounding.
UNDONE = 100 * SAME


def assert_undone(actual: Any, expected: Any) -> None:
    assert all(torch.equal(a, b) for a, b in zip(actual.knots, expected.knots, strict=True))
    assert float((actual.homogeneous - expected.homogeneous).abs().max()) < UNDONE


@given(curves(least=1))
def test_removal_undoes_insertion(curve: Any) -> None:
    value = float(inside(curve, 1))
    finer = insert_knots(curve, [value] * curve.degree)
    less, error = remove_knot(finer, value, times=curve.degree, tolerance=1e-9)
    assert_undone(less, curve)
    assert float(error) < UNDONE


@given(curves(least=1, most=4), st.integers(1, 2))
def test_reduction_undoes_elevation(curve: Any, by: int) -> None:
    less, error = reduced(elevated(curve, by), by, tolerance=1e-9)
    assert_undone(less, clamped(curve))
    assert float(error) < UNDONE


@pytest.mark.parametrize("axes", [1, 2, 3])
@pytest.mark.parametrize("rational", [False, True])
def test_every_axis_of_every_class(axes: int, rational: bool) -> None:
    spline = random_spline(axes, rational)
    for axis in range(axes):
        value = inside(spline, 1, axis)[0]
        less, error = remove_knot(insert_knots(spline, value, axis), value, axis=axis)
        assert_undone(less, spline)
        assert error.shape == () and float(error) < UNDONE
        less, error = reduced(elevated(spline, axis=axis), axis=axis)
        assert_undone(less, clamped(spline, axis))
        assert error.shape == () and float(error) < UNDONE


@pytest.mark.parametrize("own", [False, True])
def test_batches(own: bool) -> None:
    index = index_of((1, 2), 3)
    knots = breakpoints(index, 2)[..., index] if own else breakpoints(index)[..., index]
    curve = spline_over([knots], [3], True, 2)
    value = inside(curve, 1)
    less, error = remove_knot(insert_knots(curve, value), value[..., 0])
    assert_undone(less, curve)
    assert error.shape == (2,)
    less, error = reduced(elevated(curve))
    assert_undone(less, curve)
    assert error.shape == (2,)


def test_a_batch_is_refused_for_one_of_it() -> None:
    good = gd.NURBSCurve(net(4, 2))
    bad = gd.NURBSCurve(net(5, 2), insert_knots(good, 0.5).knots[0])
    both = bad.replace(control_points=torch.stack([insert_knots(good, 0.5).control_points, bad.control_points]))
    with pytest.raises(ValueError, match=r"remove_knot: `spline` must be one for which the result is exact"):
        remove_knot(both, 0.5)
    _, error = remove_knot(both, 0.5, tolerance=math.inf)
    assert float(error[0]) < UNDONE < 1e-2 < float(error[1])


@given(curves(least=2), st.sampled_from(["remove", "reduce"]))
def test_the_error_bounds_the_distance(curve: Any, name: str) -> None:
    value = float(inside(curve, 1))
    if name == "remove":
        finer = insert_knots(curve, value)
        noisy = finer.replace(control_points=finer.control_points + 0.05 * torch.randn_like(finer.control_points))
        less, error = remove_knot(noisy, value, tolerance=math.inf)
    else:
        noisy = clamped(curve)
        if noisy.is_rational:  # near-equal weights stay positive
            noisy = noisy.replace(weights=0.9 + 0.2 * noisy.weights)
        less, error = reduced(noisy, tolerance=math.inf)
        assert less.degree == curve.degree - 1
    u = inside(noisy, 200)
    distance = float((less(u) - noisy(u)).norm(dim=-1).max())
    assert distance <= float(error) + UNDONE
    # Nor is the bound idle: within the condition of the B-spline basis at degree 5 and of the weights.
    assert float(error) <= 200 * distance + UNDONE


def test_removal_is_the_least_squares_solution() -> None:
    """Against SciPy: the control points that, with the knot put back, are nearest to the old ones, the ends held."""
    curve = random_spline(1, False)
    curve = clamped(curve)
    value = float(curve.knots[0][5])
    less, _ = remove_knot(curve, value, tolerance=math.inf)
    ours = less.control_points
    assert torch.equal(ours[[0, -1]], curve.control_points[[0, -1]])
    # The map that puts the knot back, column by column, through collocation at the Greville points instead of blossoms.
    at = greville(curve.knots[0], 3)
    fine, coarse = (BSplineBasis(k, 3).matrix(at) for k in (curve.knots[0], less.knots[0]))
    back = torch.linalg.solve(fine, coarse)
    rest = curve.control_points - back[:, :1] @ ours[:1] - back[:, -1:] @ ours[-1:]
    for d in range(3):
        theirs = lsq_linear(back[:, 1:-1].numpy(), rest[:, d].numpy(), tol=1e-14).x
        assert float((ours[1:-1, d] - torch.as_tensor(theirs)).abs().max()) < UNDONE


def test_reduction_of_a_cubic_by_hand() -> None:
    """Raised again, the control points 0, c, 1 are 0, 2c/3, (2c + 1)/3, 1: nearest to 0, 0, 0, 1 at c = −1/4."""
    cubic = gd.NURBSCurve(torch.tensor([[0.0], [0.0], [0.0], [1.0]], dtype=torch.float64))
    less, error = reduced(cubic, tolerance=math.inf)
    assert less.control_points.flatten().tolist() == pytest.approx([0, -0.25, 1], abs=SAME)
    assert float(error) == pytest.approx(1 / 6, abs=SAME)


def test_smooth_knots_stay_once() -> None:
    """A simple knot of a cubic spline stays as a simple one of the quadratic; what was one parabola still is."""
    parabola = gd.NURBSCurve(net(3, 2), degree=2)
    cubic = insert_knots(elevated(parabola), [0.25, 0.5])
    less, error = reduced(cubic)
    assert less.knots[0].tolist() == [0, 0, 0, 0.25, 0.5, 1, 1, 1]
    assert float(error) < UNDONE
    assert_same(less, parabola)


def test_ends_stay_where_they_are() -> None:
    curve = random_spline(1, True)
    curve = clamped(curve)
    for less, error in (
        remove_knot(curve, float(curve.knots[0][4]), tolerance=math.inf),
        reduced(curve, tolerance=math.inf),
    ):
        assert float(error) > 1e-3
        for end in (0, -1):
            # Homogeneous coordinates are divided again: a rounding or two.
            assert float((less.control_points[end] - curve.control_points[end]).abs().max()) < SAME


def test_periodic_axes_are_opened() -> None:
    ring = gd.NURBSCurve(net(6, 2), periodic=True)
    less, _ = remove_knot(insert_knots(ring, 0.3), 0.3)
    assert_same(less, ring)
    less, _ = reduced(elevated(ring))
    assert_same(less, ring)


def test_single_precision() -> None:
    curve = gd.NURBSCurve(torch.randn(6, 3))
    less, error = remove_knot(insert_knots(curve, 0.3), 0.3)
    assert less.dtype == error.dtype == torch.float32
    # A least squares problem in single precision: its condition times a few roundings.
    assert float((less.control_points - curve.control_points).abs().max()) < 1e-4


def test_removal_from_steps_takes_the_mean() -> None:
    steps = gd.NURBSCurve(torch.tensor([[1.0], [3.0], [7.0]]), degree=0)
    less, error = remove_knot(steps, 1 / 3, tolerance=2.0)
    assert less.control_points.flatten().tolist() == pytest.approx([2.0, 7.0])
    assert float(error) == pytest.approx(1.0)


@pytest.mark.parametrize("name", ["remove", "reduce"])
@pytest.mark.parametrize("degree", [2, 3])
def test_gradcheck(name: str, degree: int) -> None:
    index = index_of((1, 2), degree)
    points = breakpoints(index)
    start = spline_over([points[index]], [degree], True)

    def results(p: torch.Tensor, w: torch.Tensor, b: torch.Tensor) -> tuple[torch.Tensor, ...]:
        curve = gd.NURBSCurve(p, b[index], w, degree)
        if name == "remove":
            less, error = remove_knot(curve, float(b[1].detach()), tolerance=math.inf)
        else:
            less, error = reduced(curve, tolerance=math.inf)
        assert not error.requires_grad
        return less.control_points, less.weights, less.knots[0]

    weights = 0.9 + 0.2 * start.weights
    inputs = [x.clone().requires_grad_() for x in (start.control_points[:, :1], weights, points)]
    assert torch.autograd.gradcheck(results, inputs)


# Refusals ------------------------------------------------------------------------------------------------------------


def test_refuses_what_is_not_a_spline() -> None:
    with pytest.raises(TypeError, match=r"remove_knot: `spline` must be a NURBS"):
        remove_knot("curve", 0.5)
    with pytest.raises(TypeError, match=r"reduced: `spline` must be a NURBS"):
        reduced("curve")
    with pytest.raises(ValueError, match=r"reduced: `axis` must be one of 0, 1; got 2"):
        reduced(random_spline(2), axis=2)


def test_refuses_knots_that_are_not_there() -> None:
    curve = gd.NURBSCurve(net(6, 2))
    with pytest.raises(ValueError, match=r"`value` must be an interior knot \(0.333333, 0.666667\); got 0.5"):
        remove_knot(curve, 0.5)
    with pytest.raises(ValueError, match=r"`value` must be an interior knot \(there are none\); got 0\."):
        remove_knot(gd.NURBSCurve(net(4, 2)), 0.0)
    with pytest.raises(ValueError, match=r"`times` must be at most 1, the multiplicity of knot 0.333333; got 2"):
        remove_knot(curve, 1 / 3, times=2)
    with pytest.raises(ValueError, match=r"remove_knot: `times` must be an integer of 1 or more; got 0"):
        remove_knot(curve, 1 / 3, times=0)
    with pytest.raises(TypeError, match=r"remove_knot: `value` must be a tensor or an array of numbers"):
        remove_knot(curve, "third")


def test_refuses_too_low_a_degree() -> None:
    with pytest.raises(ValueError, match=r"reduced: `by` must be below the degree, 3; got 3. Degree 1 is the least"):
        reduced(gd.NURBSCurve(net(6, 2)), 3)
    with pytest.raises(ValueError, match=r"reduced: `by` must be an integer of 1 or more; got 0"):
        reduced(gd.NURBSCurve(net(6, 2)), 0)


def test_refuses_errors_above_the_tolerance_and_names_them() -> None:
    curve = gd.NURBSCurve(net(6, 2))
    _, error = remove_knot(curve, 1 / 3, tolerance=math.inf)
    found = f"{float(error):.6g}"
    with pytest.raises(ValueError, match=rf"the result is exact, to rounding; got an error of up to {found}"):
        remove_knot(curve, 1 / 3)
    with pytest.raises(ValueError, match=rf"within the tolerance 1e-06; got an error of up to {found}"):
        remove_knot(curve, 1 / 3, tolerance=1e-6)
    with pytest.raises(ValueError, match=r"reduced: `spline` .* Pass a tolerance of at least .* to accept it"):
        reduced(curve)
    remove_knot(curve, 1 / 3, tolerance=1.01 * float(error))


@pytest.mark.parametrize("tolerance", [0.0, -1.0, float("nan")])
def test_refuses_bad_tolerances(tolerance: float) -> None:
    with pytest.raises(ValueError, match=r"remove_knot: `tolerance` must be positive and finite.* pass math.inf"):
        remove_knot(gd.NURBSCurve(net(6, 2)), 1 / 3, tolerance=tolerance)


def test_refuses_weights_that_turn_negative() -> None:
    weights = torch.tensor([1.0, 1e-3, 1e-3, 5.0, 1e-3, 1.0])
    with pytest.raises(ValueError, match=r"reduced: `spline` must be one whose weights stay positive; got -\d"):
        reduced(gd.NURBSCurve(net(6, 2), weights=weights), tolerance=math.inf)
