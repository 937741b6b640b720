# SPDX-License-Identifier: Apache-2.0
"""Surfaces from curves, and affine maps: against formulas at points, closed forms, finite differences; errors."""

import math
from collections.abc import Callable

import pytest
import torch
from scipy.spatial.transform import Rotation

from geodiff.splines import conics, construct, measure, place, shapes
from geodiff.splines.curve import NURBSCurve
from geodiff.splines.nurbs_volume import NURBSVolume
from geodiff.splines.spline import NURBS
from geodiff.splines.surface import NURBSSurface
from geodiff.splines.sweeping import rotation_minimising_frames, sweep
from tests.helpers import assert_gradient_is_derivative

F64 = torch.float64
EXACT = 1e-12  # some dozens of roundings of numbers of size one to ten, in float64
U = torch.linspace(0, 1, 13, dtype=F64)
V = torch.linspace(0, 1, 7, dtype=F64)


def number(*values: float) -> torch.Tensor:
    return torch.tensor(values if len(values) > 1 else values[0], dtype=F64)


def curve(count: int = 6, degree: int = 3, dim: int = 3, rational: bool = True, periodic: bool = False) -> NURBSCurve:
    weights = 1 + torch.rand(count, dtype=F64) if rational else None
    return NURBSCurve(torch.randn(count, dim, dtype=F64), weights=weights, degree=degree, periodic=periodic)


def gap(actual: torch.Tensor, expected: torch.Tensor) -> float:
    return float((actual - expected).abs().max())


# Affine maps ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["curve", "periodic", "surface", "volume"])
def test_affine_maps_commute_with_evaluation(kind: str) -> None:
    spline: NURBS = {
        "curve": curve(),
        "periodic": curve(periodic=True),
        "surface": shapes.torus(dtype=F64),
        "volume": NURBSVolume(torch.randn(2, 3, 4, 3, dtype=F64), degree=(1, 2, 3)),
    }[kind]
    at = [torch.rand(20, dtype=F64) for _ in range(spline.axes)]
    matrix, offset = torch.randn(3, 3, dtype=F64), torch.randn(3, dtype=F64)
    points = spline(*at)
    assert gap(place.transform(spline, matrix, offset)(*at), points @ matrix.mT + offset) < EXACT
    assert gap(place.translate(spline, offset)(*at), points + offset) < EXACT
    turn = torch.as_tensor(Rotation.from_rotvec((2 * offset / offset.norm()).numpy()).as_matrix())
    turned = place.rotate(spline, math.degrees(2), offset, [1.0, 2.0, 3.0])
    center = number(1.0, 2.0, 3.0)
    assert gap(turned(*at), (points - center) @ turn.mT + center) < EXACT
    assert gap(place.scale(spline, 3.0, center)(*at), (points - center) * 3 + center) < EXACT
    assert gap(place.scale(spline, [1.0, -2.0, 0.5])(*at), points * number(1.0, -2.0, 0.5)) < EXACT


def test_affine_maps_in_the_plane_between_dimensions_and_in_batches() -> None:
    flat = curve(dim=2)
    turned = place.rotate(flat, 90.0, axis_point=[1.0, 0.0])(U)
    x, y = flat(U).unbind(-1)
    assert gap(turned, torch.stack([1 - y, x - 1], -1)) < EXACT
    lift = number(1.0, 0.0, 0.0, 1.0, 2.0, 3.0).reshape(3, 2)
    assert gap(place.transform(flat, lift)(U), flat(U) @ lift.mT) < EXACT
    angles = number(0.0, 30.0, 90.0)
    batch = place.rotate(flat, angles)
    assert batch.batch_shape == (3,) and gap(batch(U)[2], place.rotate(flat, 90.0)(U)) < EXACT
    spheres = place.translate(shapes.sphere(dtype=F64), torch.randn(4, 3, dtype=F64))
    assert spheres.batch_shape == (4,)
    assert gap(measure.volume(spheres), torch.full((4,), 4 / 3 * math.pi, dtype=F64)) < EXACT


# Compatible ----------------------------------------------------------------------------------------------------------


def test_compatible_curves_keep_their_shape() -> None:
    double = torch.tensor([2.0, 2.0, 2.0, 2.5, 3.0, 3.0, 4.0, 4.0, 4.0], dtype=F64)
    curves = [
        NURBSCurve(torch.randn(6, 3, dtype=F64), double, degree=2),
        curve(5, 3),
        curve(6, 2, periodic=True),
        NURBSCurve(torch.randn(3, 3, dtype=F64), degree=1),  # its knot at the middle falls on the double one
    ]
    after = construct.compatible(curves)
    assert len({c.shape for c in after}) == 1 and all(c.degree == 3 and c.is_rational for c in after)
    assert all(torch.equal(c.knots[0], after[0].knots[0]) for c in after)
    for one, other in zip(curves, after, strict=True):
        low, high = one.domain[0]
        assert gap(other(2 + 2 * U), one(low + (high - low) * U)) < EXACT


def test_compatible_takes_the_most_of_each_knot() -> None:
    simple = NURBSCurve(torch.randn(3, 2, dtype=F64), degree=1)
    third = NURBSCurve(torch.randn(4, 2, dtype=F64), degree=1)  # knots at 1/3 and 2/3
    one, _ = construct.compatible([simple, third])
    assert gap(one.knots[0], number(0.0, 0.0, 1 / 3, 0.5, 2 / 3, 1.0, 1.0)) < EXACT


# Surfaces ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("periodic", [False, True])
def test_extrude(periodic: bool) -> None:
    profile, direction = curve(periodic=periodic), number(0.5, -1.0, 2.0)
    surface = construct.extrude(profile, direction)
    assert gap(surface.grid(U, V), profile(U)[:, None] + V[:, None] * direction) < EXACT
    assert surface.periodic == (periodic, False)
    wall = construct.extrude(conics.circle(2.0, dtype=F64), [0.0, 0.0, 3.0])
    at = wall(U, 0.5)
    assert ((wall.normal(U, 0.5) * at)[:, :2].sum(-1) - 2).abs().max() < EXACT  # outward
    solid = construct.extrude(shapes.disk(2.0, dtype=F64), [0.0, 0.0, 3.0])
    assert isinstance(solid, NURBSVolume) and float(measure.volume(solid)) > 0
    polynomial = construct.extrude(curve(rational=False), torch.randn(4, 3, dtype=F64))
    assert polynomial.batch_shape == (4,) and not polynomial.is_rational


@pytest.mark.parametrize("angle", [360.0, 200.0, 37.0, -90.0])
def test_revolve_turns_every_point(angle: float) -> None:
    profile, point, axis = curve(), torch.randn(3, dtype=F64), torch.randn(3, dtype=F64)
    surface = construct.revolve(profile, point, axis, angle)
    for share in (0.0, 0.5, 1.0):
        turn = torch.as_tensor(
            Rotation.from_rotvec((math.radians(angle * share) * axis / axis.norm()).numpy()).as_matrix()
        )
        assert gap(surface(share, V), (profile(V) - point) @ turn.mT + point) < 1e-11  # |point| up to ten
    # In between: the same distance along and from the axis.
    arm, own = surface.grid(U, V) - point, profile(V) - point
    unit = axis / axis.norm()
    assert gap(arm @ unit, (own @ unit).expand(13, 7)) < 1e-11
    assert gap(arm.norm(dim=-1), own.norm(dim=-1).expand(13, 7)) < 1e-11


def test_revolve_makes_the_quadrics() -> None:
    half = conics.arc(2.0, -90.0, 90.0, dtype=F64)  # from below to above, in the xy plane
    ball = construct.revolve(half)
    assert gap(ball.grid(U, V).norm(dim=-1), number(2.0).expand(13, 7)) < EXACT
    assert abs(float(measure.volume(ball)) - 32 / 3 * math.pi) < 1e-10  # relative 3e-12; normals outward
    ring = construct.revolve(conics.circle(0.5, (2.0, 0.0), dtype=F64), angle_deg=number(90.0))
    assert abs(float(measure.area(ring)) - math.pi**2 / 2 * 2) < 1e-11
    smooth = construct.revolve(NURBSCurve(torch.tensor([[2.0, 0], [1, 1], [0.5, 0], [1, -1]]), periodic=True))
    assert smooth.periodic == (False, True)


def test_ruled() -> None:
    a, b = curve(6, 3, rational=False), curve(4, 2, rational=False)
    surface = construct.ruled(a, b)
    assert gap(surface.grid(U, V), (1 - V[:, None]) * a(U)[:, None] + V[:, None] * b(U)[:, None]) < EXACT
    a, b = conics.arc(1.0, 0.0, 200.0, dtype=F64), curve(5, 3, dim=2)
    surface = construct.ruled(a, b)
    assert gap(surface(U, 0.0), a(U)) < EXACT and gap(surface(U, 1.0), b(U)) < EXACT
    across = torch.stack([surface(U, 0.3) - a(U), b(U) - a(U)], -1)
    assert torch.linalg.det(across).abs().max() < EXACT  # on the straight line


def test_loft_runs_through_its_curves() -> None:
    curves = [curve(6, 3), curve(4, 2), conics.arc(1.0, 0.0, 90.0, (0.0, 0.0, 1.0), dtype=F64), curve(5, 1), curve()]
    parameters = number(0.0, 0.4, 0.7, 1.0, 1.5)
    for degree in (1, 2):
        surface = construct.loft(curves, degree, parameters)
        assert surface.degree == (3, degree)
        for v, one in zip(parameters, curves, strict=True):
            assert gap(surface(U, v), one(U)) < 1e-11  # through a linear system
    assert construct.loft(curves[:2]).degree == (3, 1)


def test_loft_spaces_curves_by_their_distance() -> None:
    rings = [conics.circle(1.0, (0.0, 0.0, z), dtype=F64) for z in (0.0, 1.0, 1.5, 4.0, 5.0, 6.0)]
    surface = construct.loft(rings)
    # Equal circles along a line: a cylinder, whose v is the height.
    at = surface.grid(U, V)
    assert (
        gap(at[..., 2], (6 * V).expand(13, 7)) < EXACT
        and gap(at[..., :2].norm(dim=-1), number(1.0).expand(13, 7)) < EXACT
    )
    batch = construct.loft([NURBSCurve(torch.randn(3, 5, 2, dtype=F64)) for _ in range(4)])
    assert batch.batch_shape == (3,) and batch.knots_v.shape == (3, 8)


def test_coons_has_the_given_borders() -> None:
    corners = torch.randn(4, 2, dtype=F64)

    def between(i: int, j: int, count: int, degree: int) -> NURBSCurve:
        points = torch.randn(count, 2, dtype=F64)
        points[0], points[-1] = corners[i], corners[j]
        return NURBSCurve(points, degree=degree)

    bottom, top, left, right = between(0, 1, 6, 3), between(2, 3, 4, 2), between(0, 2, 3, 1), between(1, 3, 5, 3)
    surface = construct.coons(bottom, top, left, right)
    assert gap(surface(U, 0.0), bottom(U)) < EXACT and gap(surface(U, 1.0), top(U)) < EXACT
    assert gap(surface(0.0, V), left(V)) < EXACT and gap(surface(1.0, V), right(V)) < EXACT
    u, v = U[:, None, None], V[:, None]
    formula = (1 - v) * bottom(U)[:, None] + v * top(U)[:, None] + (1 - u) * left(V) + u * right(V)
    bilinear = (1 - u) * ((1 - v) * corners[0] + v * corners[2]) + u * ((1 - v) * corners[1] + v * corners[3])
    assert gap(surface.grid(U, V), formula - bilinear) < EXACT


def test_coons_of_arcs_fills_a_disk() -> None:
    arcs = [conics.arc(1.0, a, b, dtype=F64) for a, b in ((225.0, 315.0), (135.0, 45.0), (225.0, 135.0), (-45.0, 45.0))]
    surface = construct.coons(*arcs)
    assert abs(float(measure.area(surface)) - math.pi) < 1e-10
    assert gap(surface(U, 1.0).norm(dim=-1), number(1.0).expand(13)) < EXACT


# Sweeps --------------------------------------------------------------------------------------------------------------


def test_sweep_with_a_fixed_frame_is_a_translation() -> None:
    profile, path = curve(5, 2), NURBSCurve(torch.randn(6, 3, dtype=F64), periodic=True)
    surface = sweep(profile, path, "fixed")
    assert gap(surface.grid(U, V), profile(U)[:, None] + (path(V) - path(0.0))) < EXACT


@pytest.mark.parametrize("flat", [True, False])
def test_sweep_along_an_arc_is_a_torus(flat: bool) -> None:
    path = conics.arc(3.0, 0.0, 90.0, (0.0, 0.0, 0.0), dtype=F64)
    if flat:
        profile = conics.circle(0.5, dtype=F64)
    else:  # where it stands: across the path's start (3, 0, 0), seen against +y
        axes = torch.tensor([[0.0, 0.0, 1.0], [1.0, 0.0, 0.0]], dtype=F64)
        profile = conics.circle(0.5, (3.0, 0.0, 0.0), axes, dtype=F64)
    errors = []
    for sections in (9, 17, 33):
        surface = sweep(profile, path, sections=sections)
        x, y, z = surface.grid(40, 101).unbind(-1)
        errors.append(float(((torch.hypot(x, y) - 3) ** 2 + z**2 - 0.25).abs().max()))
    assert errors[2] < 1e-6 and errors[1] < errors[0] / 8 and errors[2] < errors[1] / 8  # fourth order, less than 16
    assert abs(float(measure.area(surface)) - math.pi * 3 / 2 * math.pi) < 1e-5
    outward = surface(U, 0.5) - path(0.5)
    assert ((surface.normal(U, 0.5) * outward).sum(-1) > 0.49).all()


def test_frames_turn_no_more_than_they_must() -> None:
    t = torch.linspace(0, 4 * math.pi, 60, dtype=F64)
    path = NURBSCurve(torch.stack([t.cos(), t.sin(), t / 3], -1))
    at = torch.linspace(0, 1, 2001, dtype=F64)
    frames = rotation_minimising_frames(path, at, [1.0, 0.0, 0.0])
    assert gap(frames @ frames.mT, torch.eye(3, dtype=F64).expand(2001, 3, 3)) < 1e-11  # 2000 steps
    assert gap(frames[:, 2], path.tangent(at)) < EXACT and bool((torch.linalg.det(frames) > 0).all())
    # The normal turns round the tangent at rate zero: its change along the binormal is of second order in the step.
    turn = (frames.diff(dim=0)[:, 0] * (frames[1:, 1] + frames[:-1, 1]) / 2).sum(-1)
    assert float(turn.abs().sum()) < 1e-4
    closed = NURBSCurve(torch.randn(8, 3, dtype=F64), periodic=True)
    ring = rotation_minimising_frames(closed, at, close=True)
    assert gap(ring[0], ring[-1]) < 1e-11
    assert gap(ring @ ring.mT, torch.eye(3, dtype=F64).expand(2001, 3, 3)) < 1e-11


# Gradients -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "inputs"),
    [
        (lambda p, d: construct.extrude(NURBSCurve(p), d), [(5, 3), (3,)]),
        (lambda p, a, d, t: construct.revolve(NURBSCurve(p), a, d, 100 + 20 * t), [(5, 3), (3,), (3,), ()]),
        (lambda p, q: construct.ruled(NURBSCurve(p), NURBSCurve(q, degree=2)), [(5, 3), (4, 3)]),
        (lambda p, q, r: construct.loft([NURBSCurve(x) for x in (p, q, r)], 2), [(5, 3)] * 3),
        (lambda p, q: sweep(NURBSCurve(p), NURBSCurve(q), sections=5), [(5, 3), (5, 3)]),
        (lambda p, q: sweep(NURBSCurve(p), NURBSCurve(q), "fixed"), [(5, 3), (5, 3)]),
        (lambda p, m, o: place.transform(NURBSSurface(p), m, o), [(4, 4, 3), (3, 3), (3,)]),
        (lambda p, t, d, o: place.rotate(NURBSSurface(p), 50 * t, d, o), [(4, 4, 3), (), (3,), (3,)]),
    ],
)
def test_gradients(make: Callable[..., NURBS], inputs: list) -> None:
    values = [torch.randn(shape, dtype=F64) for shape in inputs]
    assert_gradient_is_derivative(lambda *x: make(*x).grid(number(0.2, 0.7), number(0.1, 0.8)), values, 1e-5, 1e-5)


def test_gradient_in_knots_reaches_through_compatibility() -> None:
    points, others = torch.randn(5, 3, dtype=F64), torch.randn(6, 3, dtype=F64)

    def make(inside: torch.Tensor, more: torch.Tensor) -> torch.Tensor:
        ends = torch.zeros(4, dtype=F64)
        one = NURBSCurve(points, torch.cat([ends, inside, ends + 1]))
        two = NURBSCurve(others, torch.cat([ends, more, ends + 1]))
        return construct.ruled(one, two).grid(number(0.2, 0.7), number(0.1, 0.8))

    assert_gradient_is_derivative(make, [number(0.4)[None], number(0.3, 0.6)], 1e-5, 1e-6)


def test_gradient_of_coons() -> None:
    def make(points: torch.Tensor) -> torch.Tensor:
        sides = [NURBSCurve(x, degree=2) for x in (points[0], points[2], points[:, 0], points[:, 2])]
        return construct.coons(*sides).grid(number(0.2, 0.7), number(0.1, 0.8))

    assert_gradient_is_derivative(make, [torch.randn(3, 3, 2, dtype=F64)], 1e-4, 1e-7)


# Errors --------------------------------------------------------------------------------------------------------------


def lines(*ends: list[float]) -> list[NURBSCurve]:
    return [conics.line([0.0] * len(end), end) for end in ends]


def spread(weight: float) -> NURBSCurve:
    return conics.conic([0.0, weight], [1.0, weight], [1.0, 1.0 + weight], weight)


@pytest.mark.parametrize(
    ("call", "error", "match"),
    [
        (lambda: place.transform(1.0), TypeError, "transform: `spline` must be a NURBS"),
        (lambda: place.transform(shapes.sphere(), [[1.0, 0.0]]), ValueError, "`matrix` must be of shape"),
        (lambda: place.transform(shapes.sphere(), offset=[1.0, 0.0]), ValueError, "`offset` must be of shape"),
        (lambda: place.rotate(1.0, 3.0), TypeError, "rotate: `spline` must be a NURBS"),
        (lambda: place.rotate(shapes.sphere(), 3.0), ValueError, "`axis_direction` must be given in space"),
        (lambda: place.rotate(conics.circle(), 3.0, [0.0, 0.0, 1.0]), ValueError, "left out in the plane"),
        (lambda: place.rotate(lines([1.0] * 4)[0], 3.0), ValueError, "rotate: `spline` must be in the plane or in"),
        (lambda: place.rotate(shapes.sphere(), 3.0, [0.0] * 3), ValueError, "`axis_direction` must be of a length"),
        (lambda: place.rotate(conics.circle(), 3.0, axis_point=[0.0]), ValueError, "`axis_point` must be of shape"),
        (lambda: place.scale(1.0, 3.0), TypeError, "scale: `spline` must be a NURBS"),
        (lambda: place.scale(conics.circle(), [3.0]), ValueError, "`factor` must be of shape"),
        (lambda: place.scale(conics.circle(), 3.0, [1.0]), ValueError, "`center` must be of shape"),
        (lambda: construct.compatible(conics.circle()), TypeError, "`curves` must be a list of NURBSCurve"),
        (lambda: construct.compatible([]), ValueError, "`curves` must be one curve or more"),
        (lambda: construct.compatible([shapes.sphere()]), TypeError, "`curves` must be a NURBSCurve"),
        (lambda: construct.compatible(lines([1.0, 0.0], [1.0, 0.0, 0.0])), ValueError, "one dimension; got D = 2"),
        (
            lambda: construct.compatible([conics.polyline(torch.randn(2, 4, 2)), conics.circle()]),
            ValueError,
            "equal knots where each of a batch has its own",
        ),
        (lambda: construct.extrude(1.0, [1.0]), TypeError, "extrude: `spline` must be a NURBSCurve or a NURBSSurface"),
        (lambda: construct.extrude(conics.circle(), [1.0]), ValueError, "`direction` must be of shape"),
        (lambda: construct.revolve(1.0), TypeError, "revolve: `curve` must be a NURBSCurve"),
        (lambda: construct.revolve(*lines([1.0] * 4)), ValueError, "revolve: `curve` must be in the plane or in space"),
        (lambda: construct.revolve(conics.circle(), angle_deg=0.0), ValueError, "`angle_deg` must be within 360"),
        (lambda: construct.revolve(conics.circle(), [0.0]), ValueError, "`axis_point` must be of shape"),
        (lambda: construct.revolve(conics.circle(), axis_direction=[0.0] * 3), ValueError, "length above zero"),
        (lambda: construct.ruled(conics.circle(), 1.0), TypeError, "ruled: `curve_b` must be a NURBSCurve"),
        (lambda: construct.loft([conics.circle()]), ValueError, "`curves` must be two curves or more"),
        (lambda: construct.loft([conics.circle()] * 2), ValueError, "curves 0 and 1 equal. Drop one of them"),
        (lambda: construct.loft(lines([1.0], [2.0]), 0), ValueError, "`degree_v` must be an integer of 1 or more"),
        (lambda: construct.loft(lines([1.0], [2.0]), 1, [0.0]), ValueError, "`parameters` must be of shape"),
        (lambda: construct.loft(lines([1.0], [2.0]), 1, [1.0, 0.0]), ValueError, "`parameters` must be increasing"),
        (
            lambda: construct.loft([spread(w) for w in (1.0, 0.01, 3.0, 0.02, 5.0)]),
            ValueError,
            "of weights whose interpolation stays positive",
        ),
        (lambda: construct.coons(*lines([1.0, 0.0], [1.0, 1.0], [0.0, 1.0]), None), TypeError, "`right` must be a"),
        (lambda: construct.coons(*lines(*[[1.0, 0.0]] * 4)), ValueError, "1 apart where bottom ends and right starts"),
        (
            lambda: construct.coons(*lines([1.0, 0.0], [1.0, 0.0], [0.0, 1.0, 0.0], [0.0, 1.0, 1.0])),
            ValueError,
            "coons: `left` must be of the dimension of the bottom",
        ),
        (lambda: sweep(1.0, conics.circle()), TypeError, "sweep: `profile` must be a NURBSCurve"),
        (lambda: sweep(conics.circle(), 1.0), TypeError, "sweep: `path` must be a NURBSCurve"),
        (lambda: sweep(conics.circle(), conics.circle()), ValueError, "sweep: `path` must be in space"),
        (lambda: sweep(*lines([1.0], [1.0] * 3)), ValueError, "sweep: `profile` must be in the plane or in space"),
        (lambda: sweep(*lines([1.0] * 2, [1.0] * 3), sections=1), ValueError, "`sections` must be an integer of 2"),
        (lambda: sweep(*lines([1.0] * 2, [1.0] * 3), frame="fix"), ValueError, "Did you mean 'fixed'"),
        (lambda: sweep(*lines([1.0] * 2, [1.0] * 3), frame="fixed"), ValueError, "of the path's dimension, D = 3"),
        (lambda: sweep(*lines([1.0] * 2, [0.0] * 3)), ValueError, "`path` must be moving everywhere"),
        (lambda: sweep(*lines([1.0] * 2, [0.0, 0.0, 1.0]), normal=[0.0, 0.0, 1.0]), ValueError, "across the path"),
        (lambda: rotation_minimising_frames(conics.circle(), U), ValueError, "`path` must be in space, D = 3"),
    ],
)  # fmt: skip
def test_errors(call: Callable[[], object], error: type[Exception], match: str) -> None:
    with pytest.raises(error, match=match):
        call()
