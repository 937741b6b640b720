# SPDX-License-Identifier: Apache-2.0
"""Exact CAD operations: the geometry stays, the control points are those of other libraries, gradients are right."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.interpolate import BSpline

import geodiff as gd
from geodiff.splines.blossom import refinement_matrix
from geodiff.splines.knots import multiplicities
from geodiff.splines.refine import bezier, clamped, elevated, insert_knots, refined, split, trimmed_to
from tests.splines.cad import (
    assert_same,
    breakpoints,
    curves,
    index_of,
    inside,
    least_positive,
    net,
    random_spline,
    spline_over,
)

# The geometry stays --------------------------------------------------------------------------------------------------


@given(curves(), st.data())
def test_insertion_keeps_curves(curve: Any, data: st.DataObject) -> None:
    values = inside(curve, 2)
    interior = [float(v) for v in curve.knots[0] if curve.domain[0][0] < v < curve.domain[0][1]]
    free = [v for v in dict.fromkeys(interior) if interior.count(v) < curve.degree]
    chosen = values.tolist() + ([data.draw(st.sampled_from(free))] if free else [])
    chosen += chosen[-1:] * (max(curve.degree, 1) - interior.count(chosen[-1]) - 1)  # up to the full multiplicity
    finer = insert_knots(curve, chosen)
    assert finer.shape[0] == curve.shape[0] + len(chosen)
    assert int(multiplicities(finer.knots[0])[1][multiplicities(finer.knots[0])[0] == chosen[-1]]) == max(
        curve.degree, 1
    )
    assert_same(finer, curve, order=curve.degree)


@given(curves(), st.sampled_from(["refined", "elevated", "elevated twice", "clamped", "trimmed"]))
def test_exact_operations_keep_curves(curve: Any, name: str) -> None:
    low, high = sorted(inside(curve, 2).tolist())
    operation: dict[str, Callable[[Any], Any]] = {
        "refined": refined,
        "elevated": elevated,
        "elevated twice": lambda c: elevated(c, 2),
        "clamped": clamped,
        "trimmed": lambda c: trimmed_to(c, low, high),
    }
    result = operation[name](curve)
    assert_same(result, curve, order=curve.degree)
    assert least_positive(result) >= min(least_positive(curve), 0.5) * (1 - 1e-15 * 100) or name == "trimmed"
    if name in ("clamped", "trimmed"):
        p = curve.degree
        assert bool((result.knots[0][: p + 1] == result.domain[0][0]).all())
        assert bool((result.knots[0][-p - 1 :] == result.domain[0][1]).all())
    else:
        assert [float(x) for x in result.domain[0]] == [float(x) for x in curve.domain[0]]


@settings(max_examples=25)
@given(curves())
def test_split_and_bezier_keep_curves(curve: Any) -> None:
    at = float(inside(curve, 1))
    left, right = split(curve, at)
    assert float(left.domain[0][1]) == float(right.domain[0][0]) == pytest.approx(at, abs=1e-14)
    assert_same(left, curve, order=curve.degree)
    assert_same(right, curve, order=curve.degree)
    pieces = bezier(curve)
    low, high = curve.domain[0]
    inner = curve.knots[0][(curve.knots[0] > low) & (curve.knots[0] < high)].unique()
    assert pieces.batch_shape == (len(inner) + 1,)
    assert pieces.shape == (curve.degree + 1,)
    for i in range(len(inner) + 1):
        assert_same(pieces[i], curve, order=curve.degree)


@pytest.mark.parametrize("axes", [1, 2, 3])
@pytest.mark.parametrize("rational", [False, True])
def test_every_axis_of_every_class(axes: int, rational: bool) -> None:
    spline = random_spline(axes, rational)
    assert_same(refined(spline), spline)
    for axis in range(axes):
        middle = inside(spline, 2, axis)
        results = [
            insert_knots(spline, middle, axis),
            refined(spline, 2, axis),
            elevated(spline, 2, axis),
            *split(spline, middle[0], axis),
            trimmed_to(spline, high=middle[0], axis=axis),
            clamped(spline, axis),
        ]
        for result in results:
            assert_same(result, spline)
            assert all(torch.equal(result.knots[a], spline.knots[a]) for a in range(axes) if a != axis)
    assert_same(clamped(spline), spline)


@pytest.mark.parametrize("axes", [1, 2, 3])
def test_bezier_pieces_of_every_class(axes: int) -> None:
    spline = random_spline(axes)
    pieces = bezier(spline)
    spans = (4, 3, 2)[:axes]
    assert pieces.batch_shape == spans
    assert pieces.control_points.shape == (*spans, *(p + 1 for p in spline.degrees), 3)
    for index in torch.cartesian_prod(*(torch.arange(s) for s in spans)).reshape(-1, axes).tolist():
        assert_same(pieces[tuple(index)], spline)


@pytest.mark.parametrize("own", [False, True])
def test_batches(own: bool) -> None:
    index = index_of((1, 2), 3)
    knots = breakpoints(index, 2)[..., index] if own else breakpoints(index)[..., index]
    curve = spline_over([knots], [3], True, 2)
    values = inside(curve, 2)
    at = values[..., 0]
    for result in (
        insert_knots(curve, values),
        refined(curve),
        elevated(curve),
        clamped(curve),
        *split(curve, at),
        trimmed_to(curve, *(0.99 * end + 0.01 * other for end, other in (curve.domain[0], curve.domain[0][::-1]))),
    ):
        assert_same(result, curve)
        assert result.batch_shape == (2,)
        assert_same(result[1], curve[1])
    pieces = bezier(curve)
    assert pieces.batch_shape == (2, 3)
    assert_same(pieces[1, 2], curve[1])


def test_knots_of_its_own_for_each_copy() -> None:
    curve = spline_over([breakpoints(index_of((1,), 2))[index_of((1,), 2)]], [2], False)
    values = inside(curve, 6).reshape(3, 2)
    copies = insert_knots(curve, values)
    assert copies.batch_shape == (3,)
    assert_same(copies[1], curve)


def test_periodic_axes_are_opened() -> None:
    ring = gd.NURBSCurve(net(5, 2), weights=torch.rand(5).double() + 0.5, periodic=True)
    for result in (insert_knots(ring, 0.3), refined(ring), elevated(ring), clamped(ring), *split(ring, 0.3)):
        assert result.periodic == (False,)
        assert_same(result, ring)
    ends = clamped(ring).control_points
    # The same point by two ways of rounding.
    assert float((ends[0] - ends[-1]).abs().max()) < 1e-14
    tube = gd.NURBSSurface(net(5, 4, 3), periodic=(True, False))
    assert insert_knots(tube, 0.3, axis=1).periodic == (True, False)
    assert_same(insert_knots(tube, 0.3, axis=1), tube)
    assert bezier(tube).batch_shape == (5, 1)


def test_options_stay() -> None:
    curve = random_spline(1, knot_gradient="gaussian", bandwidth=0.1, outside="extend")
    for result in (insert_knots(curve, inside(curve, 1)), elevated(curve), split(curve, inside(curve, 1)[0])[0]):
        assert (result.knot_gradient, result.bandwidth, result.outside) == ("gaussian", (0.1,), "extend")


def test_single_precision_stays() -> None:
    curve = gd.NURBSCurve(torch.randn(6, 3))
    finer = insert_knots(curve, torch.tensor([0.1, 0.2], dtype=torch.float64))
    assert finer.dtype == torch.float32 and finer.knots[0].dtype == torch.float32
    u = torch.rand(20)
    # A few dozen roundings of order-one coordinates.
    assert float((finer(u) - curve(u)).abs().max()) < 1e-5


def test_what_does_not_change_keeps_its_bits() -> None:
    curve = random_spline()
    finer = insert_knots(curve, float(curve.knots[0][-6:-4].mean()))
    assert torch.equal(refinement_matrix(curve.knots[0], curve.knots[0], 3), torch.eye(curve.shape[0]).double())
    assert torch.equal(finer.homogeneous[0], curve.homogeneous[0])


def test_values_on_a_knot_but_for_rounding_are_that_knot() -> None:
    curve = gd.NURBSCurve(net(6, 2), torch.tensor([0, 0, 0, 0, 0.1, 0.3, 1, 1, 1, 1]).double())
    curve = curve.replace(knots=torch.tensor([0, 0, 0, 0, 0.1, 0.3, 1, 1, 1, 1], dtype=torch.float64))
    finer = insert_knots(curve, 0.1 + 0.2)
    assert 0.1 + 0.2 != 0.3 and finer.knots[0].tolist().count(0.3) == 2
    assert split(curve, 0.1 + 0.2)[0].shape == (5,)


# Against other libraries ---------------------------------------------------------------------------------------------

# Both do the same few dozen operations on order-one numbers in another order.
AGREE = 1e-12


@pytest.mark.parametrize("degree", range(1, 6))
@pytest.mark.parametrize("ends", [(True, True), (False, False)])
def test_insertion_agrees_with_scipy(degree: int, ends: tuple[bool, bool]) -> None:
    index = index_of((1, min(2, degree), 1), degree, ends)
    curve = spline_over([breakpoints(index)[index]], [degree], False)
    value = float(inside(curve, 1))
    theirs = BSpline(curve.knots[0].numpy(), curve.control_points.numpy(), degree).insert_knot(value, degree)
    ours = insert_knots(curve, [value] * degree)
    assert torch.equal(ours.knots[0], torch.as_tensor(theirs.t))
    count = ours.shape[0]
    assert float((ours.control_points - torch.as_tensor(theirs.c[:count])).abs().max()) < AGREE


def geomdl_curve(curve: Any) -> Any:
    pytest.importorskip("geomdl")
    from geomdl import NURBS

    theirs = NURBS.Curve()
    theirs.degree = curve.degree
    theirs.ctrlptsw = curve.homogeneous.tolist()
    theirs.knotvector = curve.knots[0].tolist()
    return theirs


def unit_curve(degree: int, counts: tuple[int, ...]) -> Any:
    index = index_of(counts, degree)
    points = breakpoints(index)
    return spline_over([((points - points[0]) / (points[-1] - points[0]))[index]], [degree], True)


def assert_same_as_geomdl(ours: Any, theirs: Any) -> None:
    assert float((ours.knots[0] - torch.tensor(theirs.knotvector, dtype=torch.float64)).abs().max()) < AGREE
    assert float((ours.homogeneous - torch.tensor(theirs.ctrlptsw, dtype=torch.float64)).abs().max()) < AGREE


@pytest.mark.parametrize("degree", [1, 2, 3, 5])
def test_agrees_with_geomdl(degree: int) -> None:
    operations = pytest.importorskip("geomdl.operations")
    curve = unit_curve(degree, (1, 1))
    value = float(inside(curve, 1))
    assert_same_as_geomdl(
        insert_knots(curve, [value] * degree), operations.insert_knot(geomdl_curve(curve), [value], [degree])
    )
    for ours, theirs in zip(split(curve, value), operations.split_curve(geomdl_curve(curve), value), strict=True):
        # geomdl moves the domain of each piece to [0, 1].
        assert float((ours.homogeneous - torch.tensor(theirs.ctrlptsw, dtype=torch.float64)).abs().max()) < AGREE
    pieces = bezier(curve)
    theirs = operations.decompose_curve(geomdl_curve(curve))
    assert pieces.batch_shape == (len(theirs),)
    for i, piece in enumerate(theirs):
        assert float((pieces[i].homogeneous - torch.tensor(piece.ctrlptsw, dtype=torch.float64)).abs().max()) < AGREE
    single = unit_curve(degree, ())
    assert_same_as_geomdl(elevated(single, 2), operations.degree_operations(geomdl_curve(single), [2]))


def test_surface_agrees_with_geomdl() -> None:
    pytest.importorskip("geomdl")
    from geomdl import NURBS, operations

    surface = gd.NURBSSurface(net(5, 4, 3), weights=torch.rand(5, 4).double() + 0.5, degree=(3, 2))
    theirs = NURBS.Surface()
    theirs.degree_u, theirs.degree_v = 3, 2
    theirs.set_ctrlpts(surface.homogeneous.reshape(-1, 4).tolist(), 5, 4)
    theirs.knotvector_u, theirs.knotvector_v = surface.knots_u.tolist(), surface.knots_v.tolist()
    operations.insert_knot(theirs, [0.3, 0.4], [2, 1])
    ours = insert_knots(insert_knots(surface, [0.3, 0.3]), 0.4, axis=1)
    assert ours.shape == (theirs.ctrlpts_size_u, theirs.ctrlpts_size_v)
    expected = torch.tensor(theirs.ctrlptsw, dtype=torch.float64).reshape(*ours.shape, 4)
    assert float((ours.homogeneous - expected).abs().max()) < AGREE


# Gradients -----------------------------------------------------------------------------------------------------------


OPERATIONS: dict[str, Callable[[Any, torch.Tensor], Any]] = {
    "insert": lambda c, t: insert_knots(c, t),
    "insert twice": lambda c, t: insert_knots(c, torch.cat([t, t])),
    "refined": lambda c, t: refined(c),
    "elevated": lambda c, t: elevated(c, 2),
    "clamped": lambda c, t: clamped(c),
    "trimmed": lambda c, t: trimmed_to(c, t[0], t[0] + 0.5),
    "split": lambda c, t: split(c, t[0])[1],
    "bezier": lambda c, t: bezier(c),
}


@pytest.mark.parametrize(("degree", "ends"), [(1, (False, True)), (2, (True, True)), (3, (False, False))])
@pytest.mark.parametrize("name", OPERATIONS)
def test_gradcheck(name: str, degree: int, ends: tuple[bool, bool]) -> None:
    if name == "insert twice" and degree == 1:
        pytest.skip("a knot of degree 1 is there once at most")
    index = index_of((1, min(2, degree)), degree, ends)
    points = breakpoints(index)
    start = spline_over([points[index]], [degree], True)
    value = inside(start, 1) * 0.1 + start.domain[0][0] * 0.9

    def results(p: torch.Tensor, w: torch.Tensor, b: torch.Tensor, t: torch.Tensor) -> tuple[torch.Tensor, ...]:
        result = OPERATIONS[name](gd.NURBSCurve(p, b[index], w, degree), t)
        return result.control_points, result.weights, result.knots[0]

    inputs = [x.clone().requires_grad_() for x in (start.control_points[:, :1], start.weights, points, value)]
    assert torch.autograd.gradcheck(results, inputs)


def test_gradcheck_on_a_surface() -> None:
    index = index_of((2,), 2, (True, False))
    points = breakpoints(index)
    start = spline_over([breakpoints(torch.arange(4)), points[index]], [1, 2], True)
    value = inside(start, 1, 1)

    def results(h: torch.Tensor, b: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        surface = gd.NURBSSurface.from_homogeneous(h, (start.knots_u, b[index]), start.degree)
        return elevated(insert_knots(surface, t, axis=1), axis=0).homogeneous

    inputs = [x.clone().requires_grad_() for x in (start.homogeneous[..., 2:], points, value)]
    assert torch.autograd.gradcheck(results, inputs)


@pytest.mark.parametrize("name", ["insert", "refined", "elevated"])
def test_the_geometry_has_the_gradient_it_had(name: str) -> None:
    """The inserted value moves control points, never the geometry; the knots move it as they did before."""
    index = index_of((1, 1), 3)
    points = breakpoints(index).requires_grad_()
    start = spline_over([points[index]], [3], True)
    value = inside(start, 1).detach().requires_grad_()
    u = inside(start, 9).detach()[1:]
    cotangent = torch.randn(8, 3, dtype=torch.float64)
    (before,) = torch.autograd.grad(start(u), points, cotangent, retain_graph=True)
    after = torch.autograd.grad(
        OPERATIONS[name](start, value)(u), (points, value), cotangent, materialize_grads=True, allow_unused=True
    )
    # Derivatives over spans of 0.2 and more: some thousand roundings.
    assert float(before.abs().max()) > 1e-2
    assert float((after[0] - before).abs().max()) < 1e-10 * float(before.abs().max())
    assert float(after[1].abs().max()) < 1e-10


# Refusals ------------------------------------------------------------------------------------------------------------


def test_refuses_what_is_not_a_spline() -> None:
    for operation in (insert_knots, split):
        with pytest.raises(TypeError, match=r"`spline` must be a NURBS curve, surface or volume; got curve"):
            operation("curve", 0.5)
    for simple in (refined, elevated, clamped, bezier, trimmed_to):
        with pytest.raises(TypeError, match=r"`spline` must be a NURBS curve, surface or volume; got int 3"):
            simple(3)


@pytest.mark.parametrize("axis", [1, -1, 0.0, True])
def test_refuses_other_axes(axis: Any) -> None:
    with pytest.raises(ValueError, match=r"insert_knots: `axis` must be one of 0; got"):
        insert_knots(random_spline(), 0.5, axis)
    with pytest.raises(ValueError, match=r"refined: `axis` must be one of 0; got"):
        refined(random_spline(), axis=axis)


def test_refuses_too_many_of_a_knot() -> None:
    curve = gd.NURBSCurve(net(7, 2), torch.tensor([0.0, 0, 0, 0, 0.5, 0.5, 0.75, 1, 1, 1, 1]))
    with pytest.raises(ValueError, match=r"at most 3 times in the end .*; got 0.5 inserted 2 more times, where 2 are"):
        insert_knots(curve, [0.25, 0.5, 0.5])
    with pytest.raises(ValueError, match=r"at most 1 times .* got 0.5 inserted 1 more times, where 1 are"):
        insert_knots(gd.NURBSCurve(net(2, 2), degree=0), 0.5)


@pytest.mark.parametrize("value", [0.0, 1.0, -0.1, 2.0])
def test_refuses_values_outside(value: float) -> None:
    curve = gd.NURBSCurve(net(6, 2))
    with pytest.raises(ValueError, match=r"`values` must be inside of the domain, between 0 and 1; got .*clamped\(\)"):
        insert_knots(curve, [0.5, value])
    with pytest.raises(ValueError, match=r"split: `at` must be inside of the domain, between 0 and 1; got"):
        split(curve, value)


def test_refuses_bad_values() -> None:
    curve = gd.NURBSCurve(net(6, 2))
    with pytest.raises(ValueError, match=r"insert_knots: `values` must be finite; got nan"):
        insert_knots(curve, float("nan"))
    with pytest.raises(TypeError, match=r"insert_knots: `values` must be a tensor or an array of numbers"):
        insert_knots(curve, "middle")
    with pytest.raises(TypeError, match=r"split: `at` must be real numbers"):
        split(curve, torch.tensor(True))
    with pytest.raises(TypeError, match=r"trimmed_to: `low` must be real numbers"):
        trimmed_to(curve, torch.tensor(1j))


def test_refuses_bad_pieces() -> None:
    curve = gd.NURBSCurve(net(6, 2))
    with pytest.raises(ValueError, match=r"trimmed_to: `low` must be in the domain \[0, 1\]; got -0.5"):
        trimmed_to(curve, -0.5, 0.5)
    with pytest.raises(ValueError, match=r"trimmed_to: `high` must be in the domain \[0, 1\]; got 1.5"):
        trimmed_to(curve, 0.5, 1.5)
    with pytest.raises(ValueError, match=r"trimmed_to: `high` must be above low; got 0.25 for low = 0.5"):
        trimmed_to(curve, 0.5, 0.25)


@pytest.mark.parametrize("count", [-1, 1.5, True])
def test_refuses_other_counts(count: Any) -> None:
    with pytest.raises(ValueError, match=r"refined: `times` must be an integer of 0 or more; got"):
        refined(random_spline(), count)
    with pytest.raises(ValueError, match=r"elevated: `by` must be an integer of 0 or more; got"):
        elevated(random_spline(), count)


def test_refuses_batches_that_come_out_ragged() -> None:
    knots = torch.tensor([[0, 0, 0, 0.5, 0.5, 1, 1, 1], [0, 0, 0, 0.25, 0.5, 1, 1, 1]]).double()
    curve = spline_over([knots], [2], False, 2)
    for operation in (refined, elevated, bezier, lambda c: trimmed_to(c, high=0.4)):
        with pytest.raises(ValueError, match=r"`knots` must be of a batch .* got between \d+ and \d+ .* one by one"):
            operation(curve)
