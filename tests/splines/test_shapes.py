# SPDX-License-Identifier: Apache-2.0
"""Exact shapes: their implicit equations, orientation, gradients in sizes, and their errors."""

import math
from collections.abc import Callable

import pytest
import torch

from geodiff.splines import conics, shapes
from geodiff.splines.spline import NURBS
from tests.helpers import assert_gradient_is_derivative

F64 = torch.float64
EXACT = 1e-12  # some dozens of roundings of numbers of size one to three, in float64


def grid(surface: NURBS, n: int = 41) -> torch.Tensor:
    return surface.grid(*[n] * surface.axes)


def number(*values: float) -> torch.Tensor:
    return torch.tensor(values if len(values) > 1 else values[0], dtype=F64)


def test_circle_is_round_and_counter_clockwise() -> None:
    center = number(0.3, -1.0)
    curve = conics.circle(number(1.7), center)
    u = torch.linspace(0, 1, 201, dtype=F64)
    arm = curve(u) - center
    assert (arm.norm(dim=-1) - 1.7).abs().max() < EXACT
    angle = torch.atan2(arm[:, 1], arm[:, 0])
    assert (angle[1:100].diff() > 0).all() and (angle[100] - math.pi).abs() < EXACT
    assert (curve.curvature(u) - 1 / 1.7).abs().max() < 1e-10  # second derivatives at 1/h² the size
    assert curve.control_points.shape == (9, 2) and curve.degree == 2


def test_circle_in_space_lies_in_the_plane_of_its_axes() -> None:
    axes, _ = torch.linalg.qr(torch.randn(3, 2, dtype=F64))
    center = number(1.0, 2.0, 3.0)
    arm = conics.circle(2.0, center, axes.mT)(torch.linspace(0, 1, 50, dtype=F64)) - center
    assert (arm.norm(dim=-1) - 2).abs().max() < EXACT
    assert (arm @ torch.linalg.cross(axes[:, 0], axes[:, 1])).abs().max() < EXACT


@pytest.mark.parametrize(("start", "end"), [(0.0, 90.0), (10.0, 25.0), (-30.0, 250.0), (90.0, -170.0), (5.0, 365.0)])
def test_arc_runs_between_its_angles(start: float, end: float) -> None:
    curve = conics.arc(2.0, start, end, dtype=F64)
    points = curve(torch.linspace(0, 1, 101, dtype=F64))
    assert (points.norm(dim=-1) - 2).abs().max() < EXACT
    for at, degrees in ((0, start), (50, (start + end) / 2), (100, end)):
        angle = math.radians(degrees)
        assert (points[at] - number(2 * math.cos(angle), 2 * math.sin(angle))).abs().max() < EXACT
    assert curve.control_points.shape[0] == 2 * math.ceil(abs(end - start) / 90) + 1


def test_ellipse_and_conics_satisfy_their_equations() -> None:
    u = torch.linspace(0, 1, 99, dtype=F64)
    x, y = conics.ellipse(3.0, 0.5, dtype=F64)(u).unbind(-1)
    assert ((x / 3) ** 2 + (y / 0.5) ** 2 - 1).abs().max() < EXACT
    x, y = conics.parabola(0.7, -1.0, 2.0, dtype=F64)(u).unbind(-1)
    assert (y - x**2 / 2.8).abs().max() < EXACT and (x - (-1 + 3 * u)).abs().max() < EXACT
    curve = conics.hyperbola(2.0, 0.5, -0.5, 1.5, dtype=F64)
    x, y = curve(u).unbind(-1)
    assert ((x / 2) ** 2 - (y / 0.5) ** 2 - 1).abs().max() < EXACT
    assert (curve(1.0) - number(2 * math.cosh(1.5), 0.5 * math.sinh(1.5))).abs().max() < EXACT
    quarter = conics.conic([1.0, 0.0], [1.0, 1.0], [0.0, 1.0], math.sqrt(0.5), dtype=F64)
    assert (quarter(u).norm(dim=-1) - 1).abs().max() < EXACT


def test_polyline_has_constant_speed_and_may_close() -> None:
    points = torch.randn(5, 3, dtype=F64)
    curve = conics.polyline(points, closed=True)
    length = (points - points.roll(-1, 0)).norm(dim=-1)
    middles = (curve.knots[0][1:-2] + curve.knots[0][2:-1]) / 2
    assert (curve.derivative(middles).norm(dim=-1) - length.sum()).abs().max() < EXACT
    assert (curve(1.0) - points[0]).abs().max() < EXACT
    steps = conics.polyline(points, parametrization="uniform")
    assert (steps(torch.linspace(0, 1, 5, dtype=F64)) - points).abs().max() < EXACT
    assert conics.polyline(torch.randn(2, 4, 3)).knots[0].shape == (2, 6)


def test_sphere() -> None:
    center = number(1.0, -2.0, 0.5)
    surface = shapes.sphere(2.5, center)
    assert ((grid(surface) - center).norm(dim=-1) - 2.5).abs().max() < EXACT
    u, v = torch.rand(50, dtype=F64), torch.linspace(0, 1, 50, dtype=F64)  # both poles included
    outward = (surface(u, v) - center) / 2.5
    assert ((surface.normal(u, v) * outward).sum(-1) - 1).abs().max() < 1e-9  # the limit at a pole divides by little
    assert (surface(0.3, 1.0) - center - number(0.0, 2.5, 0.0)).abs().max() < EXACT
    assert surface.tessellate(16, 16).euler_characteristic == 2


def test_torus() -> None:
    surface = shapes.torus(2.0, 0.6, dtype=F64)
    x, y, z = grid(surface).unbind(-1)
    assert ((torch.hypot(x, z) - 2) ** 2 + y**2 - 0.36).abs().max() < EXACT
    u, v = torch.rand(2, 50, dtype=F64)
    at = surface(u, v)
    middle = at * number(1.0, 0.0, 1.0)
    middle = 2 * middle / middle.norm(dim=-1, keepdim=True)
    assert ((surface.normal(u, v) * (at - middle) / 0.6).sum(-1) - 1).abs().max() < EXACT
    mesh = surface.tessellate(24, 16)
    assert mesh.euler_characteristic == 0 and len(mesh.boundary_edges) == 0


@pytest.mark.parametrize("caps", [True, False])
def test_cylinder(caps: bool) -> None:
    surface = shapes.cylinder(1.5, 3.0, caps=caps, dtype=F64)
    points = surface.grid(33, torch.linspace(1 / 3, 2 / 3, 9, dtype=F64) if caps else 9)
    assert (torch.hypot(points[..., 0], points[..., 2]) - 1.5).abs().max() < EXACT
    assert (points[..., 1] - torch.linspace(-1.5, 1.5, 9, dtype=F64)).abs().max() < 1e-11  # 1/3 is rounded
    u = torch.rand(20, dtype=F64)
    side = surface(u, 0.5)
    assert ((surface.normal(u, 0.5) * side / 1.5)[..., [0, 2]].sum(-1) - 1).abs().max() < EXACT
    if caps:
        assert (surface.normal(u, 0.2) - number(0.0, -1.0, 0.0)).abs().max() < EXACT
        assert (surface.normal(u, 0.9) - number(0.0, 1.0, 0.0)).abs().max() < EXACT


def test_cone_and_frustum() -> None:
    surface = shapes.cone(2.0, 3.0, center=(0.0, 1.5, 0.0), caps=False, dtype=F64)
    x, y, z = grid(surface).unbind(-1)
    assert (torch.hypot(x, z) - 2 * (1 - y / 3)).abs().max() < EXACT
    normal = surface.normal(torch.rand(9, dtype=F64), 0.5)
    assert (normal[..., 1] - 2 / math.sqrt(13)).abs().max() < EXACT  # slope of the side: outward and up
    x, y, z = grid(shapes.cone(2.0, 2.0, 1.0, caps=False, dtype=F64)).unbind(-1)
    assert (torch.hypot(x, z) - (1.5 - y / 2)).abs().max() < EXACT
    assert shapes.cone(1.0, 1.0).shape == (9, 3) and shapes.cone(1.0, 1.0, 0.5).shape == (9, 4)


def test_disk_plane_and_box() -> None:
    disk = shapes.disk(2.0, dtype=F64)
    u = torch.linspace(0, 1, 11, dtype=F64)
    radius = disk.grid(u, 30).norm(dim=-1)
    assert (radius - 2 * u[:, None]).abs().max() < EXACT
    assert (disk.normal(u[1:], u[1:]) - number(0.0, 0.0, 1.0)).abs().max() < EXACT
    plane = shapes.plane((2.0, 4.0), (1.0, 1.0, 1.0), dtype=F64)
    corners = plane(number(0.0, 1.0), number(0.0, 1.0))
    assert torch.equal(corners, torch.tensor([[0.0, -1.0, 1.0], [2.0, 3.0, 1.0]], dtype=F64))
    assert (plane.normal(0.5, 0.5) - number(0.0, 0.0, 1.0)).abs().max() < EXACT
    box = shapes.box((1.0, 2.0, 3.0), dtype=F64)
    ends = number(0.0, 1.0)
    assert (box(ends, ends, ends) - torch.tensor([[-0.5, -1, -1.5], [0.5, 1, 1.5]], dtype=F64)).abs().max() < EXACT


@pytest.mark.parametrize(
    ("make", "inputs"),
    [
        (lambda r, c: conics.circle(r, c)(number(0.1, 0.7)), [1.3, [0.2, 0.5]]),
        (lambda r, a, b: conics.arc(r, a, b)(number(0.1, 0.7)), [1.3, 20.0, 200.0]),
        (lambda a, b: conics.ellipse(a, b)(number(0.1, 0.7)), [1.3, 0.4]),
        (lambda a, w: conics.conic([0.0, 0.0], a, [2.0, 0.0], w)(number(0.1, 0.7)), [[1.0, 1.0], 1.4]),
        (lambda f, a, b: conics.parabola(f, a, b)(number(0.1, 0.7)), [0.5, -1.0, 2.0]),
        (lambda a, b, t: conics.hyperbola(a, b, t)(number(0.1, 0.7)), [1.0, 0.5, -1.0]),
        (lambda p: conics.polyline(p)(number(0.1, 0.6)), [[[0.0, 0.0], [1.0, 0.2], [1.5, 2.0]]]),
        (lambda r, c: shapes.sphere(r, c).grid(4, 3), [1.3, [0.2, 0.5, 1.0]]),
        (lambda a, b: shapes.torus(a, b).grid(4, 3), [1.3, 0.4]),
        (lambda r, h: shapes.cylinder(r, h).grid(4, 5), [1.3, 2.0]),
        (lambda r, h, t: shapes.cone(r, h, t).grid(4, 5), [1.3, 2.0, 0.5]),
        (lambda r: shapes.disk(r).grid(4, 5), [1.3]),
        (lambda s: shapes.box(s).grid(2, 3, 2), [[1.0, 2.0, 3.0]]),
    ],
)
def test_points_have_the_gradient_of_sizes(make: Callable[..., torch.Tensor], inputs: list) -> None:
    assert_gradient_is_derivative(make, [torch.tensor(x, dtype=F64) for x in inputs], 1e-5, 1e-7)


def test_radius_moves_a_sphere_along_its_normal() -> None:
    radius = number(1.5).requires_grad_()
    surface = shapes.sphere(radius)
    u, v = number(0.2, 0.6), number(0.3, 0.8)
    (slope,) = torch.autograd.grad((surface(u, v) * surface.normal(u, v).detach()).sum(), radius)
    assert abs(float(slope) - 2) < EXACT


def test_batches() -> None:
    radii = number(1.0, 2.0, 3.0)
    spheres = shapes.sphere(radii)
    assert spheres.batch_shape == (3,)
    assert (grid(spheres, 7).norm(dim=-1) - radii[:, None, None]).abs().max() < EXACT
    arcs = conics.arc(radii, number(0.0, 10.0, 20.0), number(200.0, 60.0, 100.0))
    assert arcs.control_points.shape == (3, 7, 2)
    assert (arcs(number(0.0, 0.3, 1.0)).norm(dim=-1) - radii[:, None]).abs().max() < EXACT
    cylinders = shapes.cylinder(radii, 2.0, torch.zeros(3, 3, dtype=F64))
    assert cylinders.batch_shape == (3,)


def test_dtype() -> None:
    assert conics.circle().dtype == torch.float32
    assert conics.circle(number(1.0)).dtype == F64
    assert shapes.sphere(0.1, dtype=F64)(0.0, 0.5)[2] == 0.1  # read in double precision at once
    assert (conics.circle(2.0)(torch.linspace(0, 1, 99)).norm(dim=-1) - 2).abs().max() < 1e-6  # float32
    assert shapes.torus(number(2.0), 0.5, dtype=torch.float32).dtype == torch.float32


@pytest.mark.parametrize(
    ("call", "error", "match"),
    [
        (lambda: conics.circle(0.0), ValueError, "circle: `radius` must be positive"),
        (lambda: conics.circle(-number(1.0)), ValueError, "circle: `radius` must be positive"),
        (lambda: conics.circle(1.0, dtype=torch.float16), TypeError, "`dtype` must be torch.float32 or torch.float64"),
        (lambda: conics.circle(1.0, (0.0,)), ValueError, "`center` must be a point of 2 or more coordinates"),
        (lambda: conics.circle(1.0, axes=[[1.0, 0.0], [1.0, 0.0]]), ValueError, "`axes` must be two orthogonal"),
        (lambda: conics.circle(1.0, axes=[[1.0, 0.0, 0.0]]), ValueError, "`axes` must be of shape"),
        (lambda: conics.arc(1.0, 30.0, 30.0), ValueError, "arc: `end_deg` must be within 360 degrees"),
        (lambda: conics.arc(1.0, 0.0, 400.0), ValueError, "A whole turn is 360"),
        (lambda: conics.ellipse(1.0, -1.0), ValueError, "ellipse: `radius_b` must be positive"),
        (lambda: conics.line([0.0, 0.0], [0.0, 0.0, 1.0]), ValueError, "line: `end` must be of shape"),
        (lambda: conics.polyline([[0.0, 0.0]]), ValueError, "`points` must be two points or more"),
        (lambda: conics.polyline([[0.0, 0.0], [0.0, 0.0]]), ValueError, "points 0 and 1 equal"),
        (lambda: conics.polyline([[0.0, 0.0]] * 2, parametrization="cord"), ValueError, "Did you mean 'chord'"),
        (lambda: conics.conic([0.0, 0.0], [1.0, 0.0], [1.0], 1.0), ValueError, "conic: `end` must be of shape"),
        (lambda: conics.conic([0.0, 0.0], [1.0, 0.0], [1.0, 1.0], 0.0), ValueError, "`weight` must be positive"),
        (lambda: conics.parabola(0.0), ValueError, "`focal_length` must be positive"),
        (lambda: conics.hyperbola(1.0, 0.0), ValueError, "`radius_b` must be positive"),
        (lambda: shapes.sphere(float("nan")), ValueError, "`radius` must be finite"),
        (lambda: shapes.sphere(1.0, (0.0, 0.0)), ValueError, r"`center` must be of shape \(..., 3\)"),
        (lambda: shapes.torus(1.0, 1.0), ValueError, "torus: `minor` must be less than major"),
        (lambda: shapes.cylinder(1.0, 0.0), ValueError, "cylinder: `height` must be positive"),
        (lambda: shapes.cone(1.0, 1.0, -0.1), ValueError, "cone: `top_radius` must be 0 or more"),
        (lambda: shapes.cone(1.0, 1.0, number(0.0, 1.0)), ValueError, "Make cones with a point and frusta apart"),
        (lambda: shapes.disk(0.0), ValueError, "disk: `radius` must be positive"),
        (lambda: shapes.plane((1.0, 2.0, 3.0)), ValueError, "plane: `size` must be one number or 2"),
        (lambda: shapes.plane(0.0), ValueError, "plane: `size` must be positive"),
        (lambda: shapes.box((1.0, 2.0)), ValueError, "box: `size` must be one number or 3"),
    ],
)
def test_errors(call: Callable[[], object], error: type[Exception], match: str) -> None:
    with pytest.raises(error, match=match):
        call()
