# SPDX-License-Identifier: Apache-2.0
"""Length, area, volume, centroid: closed forms, SciPy's quadrature, gradients, errors."""

import itertools
import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from scipy import integrate, interpolate

from geodiff.splines import conics, construct, measure, place, quadrature, shapes
from geodiff.splines.curve import NURBSCurve
from geodiff.splines.nurbs_volume import NURBSVolume
from geodiff.splines.surface import NURBSSurface
from tests.helpers import assert_gradient_is_derivative

F64 = torch.float64
EXACT = 1e-12  # relative; the default rule converges below it on quarters of circles
PI = math.pi


def number(*values: float) -> torch.Tensor:
    return torch.tensor(values if len(values) > 1 else values[0], dtype=F64)


def wavy(count: int = 7, dim: int = 3) -> torch.Tensor:
    """A gently curved net of points on a line: its speed has no zeros near the real axis."""
    x = torch.linspace(0, 3, count, dtype=F64)
    return torch.stack([x, *(0.3 * torch.randn(count, dtype=F64) for _ in range(dim - 1))], -1)


def knots(*inner: float, degree: int = 3) -> torch.Tensor:
    return number(*[0.0] * (degree + 1), *inner, *[1.0] * (degree + 1))


def relative(actual: torch.Tensor, expected: float | torch.Tensor) -> float:
    return float(((actual - expected).abs() / torch.as_tensor(expected, dtype=F64).abs()).max())


# Closed forms --------------------------------------------------------------------------------------------------------


def test_lengths_of_conics() -> None:
    assert relative(measure.arc_length(conics.circle(number(1.0, 2.5))), 2 * PI * number(1.0, 2.5)) < EXACT
    assert relative(measure.arc_length(conics.arc(2.0, 10.0, 130.0, dtype=F64)), 2 * PI * 2 / 3) < EXACT
    # ∫ sqrt(1 + x²) dx for y = x²/2 from 0 to 2.
    exact = math.sqrt(5) + math.asinh(2) / 2
    assert relative(measure.arc_length(conics.parabola(0.5, 0.0, 2.0, dtype=F64), tolerance=1e-13), exact) < EXACT
    assert relative(measure.arc_length(conics.polyline([[0.0, 0.0], [3.0, 4.0], [3.0, 5.0]], dtype=F64)), 6) < EXACT


@pytest.mark.parametrize(
    ("surface", "area", "volume"),
    [
        (shapes.sphere(2.0, (5.0, 0.0, -3.0), dtype=F64), 16 * PI, 32 / 3 * PI),
        (shapes.torus(2.0, 0.5, dtype=F64), 4 * PI**2, PI**2),
        (shapes.cylinder(2.0, 3.0, dtype=F64), 20 * PI, 12 * PI),
        (shapes.cone(3.0, 4.0, dtype=F64), 24 * PI, 12 * PI),
        (shapes.cone(2.0, 3.0, 1.0, dtype=F64), PI * (5 + 3 * math.sqrt(10)), 7 * PI),
    ],
    ids=["sphere", "torus", "cylinder", "cone", "frustum"],
)
def test_area_and_volume_of_closed_surfaces(surface: NURBSSurface, area: float, volume: float) -> None:
    assert relative(measure.area(surface), area) < EXACT
    assert relative(measure.volume(surface), volume) < EXACT


def test_area_of_flat_surfaces() -> None:
    assert relative(measure.area(shapes.disk(2.0, dtype=F64)), 4 * PI) < EXACT
    assert relative(measure.area(shapes.plane((2.0, 3.0), (0.0, 0.0), dtype=F64)), 6.0) < EXACT
    four = NURBSSurface(shapes.plane(2.0, dtype=F64).control_points @ torch.eye(3, 4, dtype=F64), degree=(1, 1))
    assert relative(measure.area(four), 4.0) < EXACT  # in four dimensions, by the first fundamental form


def test_area_that_a_curve_encloses() -> None:
    assert relative(measure.area(conics.ellipse(3.0, 0.5, (7.0, 1.0), dtype=F64)), 1.5 * PI) < EXACT
    clockwise = conics.arc(1.0, 360.0, 0.0, dtype=F64)
    assert relative(measure.area(clockwise), -PI) < EXACT
    points = torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0], [0.0, -1.0]], dtype=F64)
    smooth = NURBSCurve(points, periodic=True)
    polygon = smooth(torch.linspace(0, 1, 20001, dtype=F64))
    shoelace = (polygon[:-1, 0] * polygon[1:, 1] - polygon[1:, 0] * polygon[:-1, 1]).sum() / 2
    assert relative(measure.area(smooth), shoelace) < 1e-7  # of a polygon with 20 000 sides: error O(1/n²)


def test_volume_of_volumes() -> None:
    assert relative(measure.volume(shapes.box((2.0, 3.0, 4.0), dtype=F64)), 24.0) < EXACT
    inside_out = place.scale(shapes.box(dtype=F64), [-1.0, 1.0, 1.0])
    assert relative(measure.volume(inside_out), -1.0) < EXACT
    rod = construct.extrude(shapes.disk(2.0, dtype=F64), [0.0, 0.0, 3.0])
    assert isinstance(rod, NURBSVolume) and relative(measure.volume(rod), 12 * PI) < EXACT
    # A polynomial deformation: by the divergence theorem on its six faces.
    axis = torch.linspace(0, 1, 4, dtype=F64)
    net = torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij"), -1)
    net = net + 0.05 * torch.randn(net.shape, dtype=F64)
    solid = NURBSVolume(net, degree=(3, 2, 1))
    patches = []
    for side, end in ((0, 0), (0, 1), (1, 0), (1, 1), (2, 0), (2, 1)):
        part, (p, q) = net.select(side, -end), [p for i, p in enumerate(solid.degree) if i != side]
        # u × v of the two remaining axes points up the third for sides 0 and 2, down it for side 1.
        up = side != 1
        outward = up == bool(end)
        degree = (p, q) if outward else (q, p)
        patches.append(NURBSSurface(part if outward else part.transpose(0, 1), degree=degree))
    assert relative(measure.volume(patches), measure.volume(solid)) < EXACT


def test_centroids() -> None:
    half = conics.arc(2.0, 0.0, 180.0, dtype=F64)
    assert (measure.centroid(half) - number(0.0, 4 / PI)).abs().max() < EXACT
    shell = shapes.cone(1.0, 3.0, center=(5.0, 1.5, 0.0), caps=False, dtype=F64)
    assert (measure.centroid(shell) - number(5.0, 1.0, 0.0)).abs().max() < EXACT
    cone = shapes.cone(1.0, 4.0, center=(5.0, 2.0, 0.0), dtype=F64)
    assert (measure.centroid(cone, solid=True) - number(5.0, 1.0, 0.0)).abs().max() < EXACT
    box = shapes.box((1.0, 2.0, 3.0), (7.0, 8.0, 9.0), dtype=F64)
    assert (measure.centroid(box) - number(7.0, 8.0, 9.0)).abs().max() < 10 * EXACT  # at a distance of 10
    assert (measure.centroid(shapes.sphere(number(1.0, 2.0)), tolerance=1e-12)).abs().max() < EXACT


def test_bounding_box_holds_the_spline() -> None:
    surface = NURBSSurface(torch.randn(2, 6, 5, 3, dtype=F64), weights=torch.rand(2, 6, 5, dtype=F64) + 0.1)
    low, high = measure.bounding_box(surface)
    points = surface.grid(30, 30).flatten(1, 2)
    # A corner of the net that the surface meets is evaluated with a rounding of its own.
    slack = 4 * torch.finfo(torch.float64).eps * (high - low)
    assert (points.amin(1) >= low - slack).all() and (points.amax(1) <= high + slack).all()
    assert torch.equal(low, surface.control_points.amin((1, 2)))


# Against SciPy -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("degree", [1, 2, 3, 5])
def test_length_agrees_with_scipy(degree: int) -> None:
    points, vector = wavy(9), None
    vector = torch.cat([torch.zeros(degree), torch.linspace(0, 1, 10 - degree), torch.ones(degree)]).double()
    derivative = interpolate.BSpline(vector.numpy(), points.numpy(), degree).derivative()
    curve = NURBSCurve(points, vector, degree=degree)
    inner = np.unique(vector.numpy())

    def speed(u: float) -> float:
        return float(np.linalg.norm(derivative(u)))

    def truth(low: float, high: float) -> float:
        ends = np.concatenate([[low], inner[(inner > low) & (inner < high)], [high]])
        return sum(integrate.quad(speed, a, b, epsabs=0, epsrel=1e-12)[0] for a, b in itertools.pairwise(ends))

    assert relative(measure.arc_length(curve, tolerance=1e-12), truth(0, 1)) < 1e-11
    assert relative(measure.arc_length(curve, 0.23, 0.71, tolerance=1e-12), truth(0.23, 0.71)) < 1e-11
    assert relative(measure.arc_length(curve), truth(0, 1)) < 1e-5  # the fixed rule, on a curve of chance


def test_tolerance_reaches_a_near_cusp() -> None:
    points = torch.tensor([[0.0, 0.0], [1.0, 1.0], [0.001, 1.0], [1.0, 0.0]], dtype=F64)
    curve = NURBSCurve(points)
    derivative = interpolate.BSpline(curve.knots[0].numpy(), points.numpy(), 3).derivative()
    exact = integrate.quad(lambda u: float(np.linalg.norm(derivative(u))), 0, 1, points=[0.5], epsrel=1e-12, limit=500)
    assert relative(measure.arc_length(curve), exact[0]) > 1e-7
    assert relative(measure.arc_length(curve, tolerance=1e-10), exact[0]) < 1e-9


def test_tolerance_out_of_reach(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quadrature, "MOST_NODES", 2**12)
    net = torch.tensor([[[0.0, 0.0], [0.0, 1.0]], [[1.0, 0.0], [1.0, 1.0]], [[0.3, 0.0], [0.1, 1.0]]], dtype=F64)
    folded = NURBSSurface(net, degree=(2, 1))
    with pytest.raises(ValueError, match="`tolerance` must be within reach of 4096 nodes; got 1e-12, while the last"):
        measure.area(folded, tolerance=1e-12)


def test_area_agrees_with_scipy() -> None:
    net = torch.stack(torch.meshgrid(*[torch.linspace(0, 1, 4, dtype=F64)] * 2, indexing="ij"), -1)
    net = torch.cat([net, 0.3 * torch.randn(4, 4, 1, dtype=F64)], -1)
    surface = NURBSSurface(net, weights=0.5 + torch.rand(4, 4, dtype=F64), degree=(3, 3))

    at = torch.linspace(0, 1, 401, dtype=F64)
    su, sv = (surface.derivative(at, at, order=o, grid=True) for o in ((1, 0), (0, 1)))
    elements = torch.linalg.cross(su, sv).norm(dim=-1).numpy()
    truth = float(integrate.simpson(integrate.simpson(elements, x=at.numpy()), x=at.numpy()))
    assert (
        relative(measure.area(surface), truth) < 1e-8
    )  # Simpson's rule: h⁴ = 4e-11 times a fourth derivative of some dozens


# Length as a parameter -----------------------------------------------------------------------------------------------


def test_length_at_is_additive_and_inverse() -> None:
    curve = NURBSCurve(torch.stack([wavy(), wavy()]), knots(0.2, 0.5, 0.6), weights=0.5 + torch.rand(7, dtype=F64))
    u = torch.linspace(0, 1, 23, dtype=F64)
    lengths = measure.length_at(curve, u)
    assert lengths.shape == (2, 23) and (lengths.diff() > 0).all()
    assert relative(lengths[:, -1], measure.arc_length(curve)) < EXACT
    middle = measure.arc_length(curve, u[3], u[17], points=40)
    assert relative(lengths[:, 17] - lengths[:, 3], middle) < 1e-8  # 16 nodes a span, of chance
    back = measure.parameter_at_length(curve, lengths)
    assert (back - u).abs().max() < 1e-11  # rounding of a length over the speed, at least a third here


def test_equal_lengths_on_a_circle_are_equal_angles() -> None:
    curve = conics.circle(2.0, dtype=F64)
    at = curve(measure.parameter_at_length(curve, torch.linspace(0, 4 * PI, 13, dtype=F64)))
    angle = torch.atan2(at[:, 1], at[:, 0]) % (2 * PI)
    assert (angle[:-1] - torch.arange(12, dtype=F64) * PI / 6).abs().max() < 1e-11
    periodic = NURBSCurve(torch.randn(6, 2, dtype=F64), periodic=True)
    u = measure.parameter_at_length(periodic, measure.arc_length(periodic) * number(0.25, 0.5))
    assert relative(measure.length_at(periodic, u), measure.arc_length(periodic) * number(0.25, 0.5)) < EXACT


# Gradients -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("of", "slope"),
    [
        (lambda r: measure.arc_length(conics.circle(r)), 2 * PI),
        (lambda r: measure.area(conics.circle(r)), 3 * PI),
        (lambda r: measure.area(shapes.sphere(r)), 12 * PI),
        (lambda r: measure.volume(shapes.sphere(r)), 9 * PI),
        (lambda r: measure.volume(shapes.torus(3.0, r)), 18 * PI**2),
        (lambda r: measure.volume(shapes.cone(r, 2.0)), 2 * PI),
    ],
)
def test_gradient_in_radius_is_the_closed_form(of: Callable[[torch.Tensor], torch.Tensor], slope: float) -> None:
    radius = number(1.5).requires_grad_()
    (gradient,) = torch.autograd.grad(of(radius), radius)
    assert relative(gradient, slope) < EXACT


def length(points: torch.Tensor, weights: torch.Tensor, vector: torch.Tensor) -> torch.Tensor:
    return measure.arc_length(NURBSCurve(points, vector, weights), points=24)


def test_gradient_of_length() -> None:
    inputs = [wavy(), 0.5 + torch.rand(7, dtype=F64), knots(0.3, 0.5, 0.55)]

    def inner(points: torch.Tensor, weights: torch.Tensor, inside: torch.Tensor) -> torch.Tensor:
        return length(points, weights, torch.cat([inputs[2][:4], inside, inputs[2][7:]]))

    inside = inputs[2][4:7]
    assert_gradient_is_derivative(inner, [*inputs[:2], inside], 1e-5, 1e-6)
    assert torch.autograd.gradcheck(inner, [x.clone().requires_grad_() for x in (*inputs[:2], inside)])


def test_gradient_of_length_in_each_knot_of_a_double_one() -> None:
    points, weights = wavy(), torch.ones(7, dtype=F64)
    vector = knots(0.3, 0.6, 0.6).requires_grad_()
    (gradient,) = torch.autograd.grad(length(points, weights, vector), vector)
    for index, way in ((4, 0), (5, -1), (6, 1)):  # the copies can only move apart
        step, rows = 1e-6, []
        for factor in (-1, 1) if way == 0 else (0, way):
            moved = vector.detach().clone()
            moved[index] += factor * step
            rows.append(length(points, weights, moved))
        slope = (rows[1] - rows[0]) / (2 * step if way == 0 else way * step)
        assert abs(float(gradient[index] - slope)) < 1e-4 * float(
            gradient.abs().max()
        )  # a one-sided difference: O(step)
    assert float(gradient[4:7].abs().min()) > 1e-3


def test_gradient_in_bounds_is_the_speed() -> None:
    curve = NURBSCurve(wavy(), knots(0.2, 0.5, 0.6))
    low, high = number(0.31).requires_grad_(), number(0.5).requires_grad_()
    slopes = torch.autograd.grad(measure.arc_length(curve, low, high, points=24), (low, high))
    speed = curve.derivative(number(0.31, 0.5)).norm(dim=-1)
    assert relative(torch.stack(slopes) * number(-1.0, 1.0), speed) < 1e-9  # a derivative of the rule, at 24 nodes
    ends = [number(0.31), number(0.77)]
    assert_gradient_is_derivative(lambda a, b: measure.arc_length(curve, a, b), ends, 1e-5, 1e-6)


def test_gradient_of_parameter_at_length() -> None:
    vector = knots(0.2, 0.5, 0.6)

    def at(points: torch.Tensor, inside: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        curve = NURBSCurve(points, torch.cat([vector[:4], inside, vector[7:]]))
        return measure.parameter_at_length(curve, lengths, points=24)

    assert_gradient_is_derivative(at, [wavy(), vector[4:7], number(0.4, 1.1, 2.2)], 1e-4, 1e-5)
    assert_gradient_is_derivative(
        lambda u: measure.length_at(NURBSCurve(torch.eye(4, dtype=F64)), u), [number(0.2, 0.9)], 1e-5
    )


def test_gradient_of_area_volume_and_centroid() -> None:
    net = torch.stack(torch.meshgrid(*[torch.linspace(0, 1, 5, dtype=F64)] * 2, indexing="ij"), -1)
    net = torch.cat([net, 0.3 * torch.randn(5, 5, 1, dtype=F64)], -1)
    ends = number(0.0, 0.0, 0.0, 1.0, 1.0, 1.0)

    def surface(points: torch.Tensor, weights: torch.Tensor, inside: torch.Tensor) -> NURBSSurface:
        vector = torch.cat([ends[:3], inside, ends[3:]])
        return NURBSSurface(points, vector, None, weights, degree=(2, 2))

    inputs = [net, 0.5 + torch.rand(5, 5, dtype=F64), number(0.3, 0.6)]
    assert_gradient_is_derivative(lambda *x: measure.area(surface(*x)), inputs, 1e-5, 1e-5)
    assert_gradient_is_derivative(lambda *x: measure.centroid(surface(*x)), inputs, 1e-5, 1e-5)
    cube = shapes.box(dtype=F64).control_points + 0.1 * torch.randn(2, 2, 2, 3, dtype=F64)
    solid = [lambda x: measure.volume(NURBSVolume(x, degree=(1, 1, 1)))]
    solid += [lambda x: measure.centroid(NURBSVolume(x, degree=(1, 1, 1)))]
    for function in solid:
        assert_gradient_is_derivative(function, [cube], 1e-5, 1e-6)
    assert_gradient_is_derivative(
        lambda r, c: measure.centroid(shapes.cone(r, 2.0, 0.5 * r, c), solid=True),
        [number(1.2), number(0.1, 0.2, 0.3)],
        1e-5,
    )


# Batches, dtypes, errors ---------------------------------------------------------------------------------------------


def test_batches_with_their_own_knots() -> None:
    vectors = torch.stack([knots(0.2, 0.5, 0.7), knots(0.4, 0.4, 0.9), knots(0.5, 0.5, 0.5)])
    points = wavy()
    together = measure.arc_length(NURBSCurve(points, vectors))
    alone = torch.stack([measure.arc_length(NURBSCurve(points, v)) for v in vectors])
    assert relative(together, alone) < EXACT
    bounds = measure.arc_length(NURBSCurve(points, vectors[0]), number(0.0, 0.3), number(0.5, 1.0))
    each = [measure.arc_length(NURBSCurve(points, vectors[0]), a, b) for a, b in ((0.0, 0.5), (0.3, 1.0))]
    assert relative(bounds, torch.stack(each)) < EXACT
    polyline = conics.polyline(torch.randn(3, 4, 2, dtype=F64))  # own knots as well
    assert relative(measure.length_at(polyline, number(0.5)[None])[:, 0] * 2, measure.arc_length(polyline)) < EXACT
    surfaces = NURBSSurface(torch.randn(5, 5, 3, dtype=F64), vectors[:, [0, 1, 2, 4, 5, 8, 9, 10]], None, degree=(2, 2))
    assert relative(measure.area(surfaces)[1], measure.area(surfaces[1])) < EXACT


def test_float32() -> None:
    near = 1e-5  # 64 roundings and more of a sum of thousands of nodes
    assert relative(measure.area(shapes.sphere(2.0)), 16 * PI) < near
    assert relative(measure.volume(shapes.torus(2.0, 0.5)), PI**2) < near
    assert relative(measure.arc_length(conics.circle(), tolerance=1e-5), 2 * PI) < near


def test_closed_surfaces_of_several_patches() -> None:
    side = shapes.cylinder(1.0, 2.0, caps=False, dtype=F64)
    axes = torch.tensor([[0.0, 0.0, 1.0], [1.0, 0.0, 0.0]], dtype=F64)  # where the side starts, and on by +x
    top = shapes.disk(1.0, (0.0, 1.0, 0.0), axes, dtype=F64)
    bottom = place.transform(top, offset=[0.0, -2.0, 0.0])
    flipped = NURBSSurface(
        bottom.control_points.flip(1), None, bottom.knots_v, bottom.weights.flip(1), degree=(1, 2)
    )  # downward
    assert relative(measure.volume([side, top, flipped]), 2 * PI) < EXACT
    with pytest.raises(ValueError, match="open border: surface 0 along its low v"):
        measure.volume([side, top])
    assert float(measure.volume(side, check=False)) < 2 * PI


def square() -> NURBSCurve:
    return conics.polyline([[0.0, 0.0], [1.0, 0.0], [1.0, 1.0]])


@pytest.mark.parametrize(
    ("call", "error", "match"),
    [
        (lambda: measure.arc_length(shapes.sphere()), TypeError, "arc_length: `curve` must be a NURBSCurve"),
        (lambda: measure.arc_length(square(), 0.5, 0.2), ValueError, "`high` must be at or above low"),
        (lambda: measure.arc_length(square(), -0.5), ValueError, r"`low` must be in the domain \[0, 1\]"),
        (lambda: measure.arc_length(square(), 0.0, 1.5), ValueError, r"`high` must be in the domain \[0, 1\]"),
        (lambda: measure.arc_length(square(), points=0), ValueError, r"`points` must be an integer in \[1, 256\]"),
        (lambda: measure.arc_length(square(), tolerance=-1.0), ValueError, "`tolerance` must be positive"),
        (
            lambda: measure.arc_length(conics.circle(), tolerance=1e-12),
            ValueError,
            "`tolerance` must be at least 9.5e-07, eight roundings of float32; got 1e-12",
        ),
        (lambda: measure.length_at(square(), 0.5), ValueError, r"`u` must be of shape \(..., N\)"),
        (lambda: measure.length_at(square(), [2.0]), ValueError, "`u` must be in the domain"),
        (lambda: measure.length_at(1.0, [2.0]), TypeError, "length_at: `curve` must be a NURBSCurve"),
        (lambda: measure.parameter_at_length(square(), 0.5), ValueError, "`lengths` must be of shape"),
        (lambda: measure.parameter_at_length(square(), [3.0]), ValueError, "from 0 to the curve's length, 2; got 3"),
        (lambda: measure.parameter_at_length(None, [3.0]), TypeError, "must be a NURBSCurve"),
        (lambda: measure.area(1.0), TypeError, "area: `spline` must be a surface or a closed plane curve"),
        (lambda: measure.area(square()), ValueError, "`spline` must be closed; got ends 1.41 apart"),
        (lambda: measure.area(conics.circle(1.0, (0.0, 0.0, 0.0))), ValueError, "in the plane, D = 2"),
        (lambda: measure.volume(shapes.sphere().control_points), TypeError, "volume: `spline` must be a NURBSVolume"),
        (lambda: measure.volume([]), ValueError, "one surface or more"),
        (lambda: measure.volume(shapes.plane(1.0, (0.0, 0.0))), ValueError, "in space, D = 3; got D = 2"),
        (lambda: measure.volume(shapes.disk()), ValueError, "closed; got an open border: surface 0 along its high u"),
        (lambda: measure.centroid(1.0), TypeError, "centroid: `spline` must be a NURBS"),
        (lambda: measure.centroid(square(), solid=True), TypeError, "`solid` must be left out unless for a surface"),
        (lambda: measure.centroid(shapes.disk(), solid=True), ValueError, "open border"),
        (lambda: measure.bounding_box(1.0), TypeError, "bounding_box: `spline` must be a NURBS"),
    ],
)
def test_errors(call: Callable[[], object], error: type[Exception], match: str) -> None:
    with pytest.raises(error, match=match):
        call()
