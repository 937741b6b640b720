# SPDX-License-Identifier: Apache-2.0
import math

import numpy as np
import pytest
import torch
from torch.autograd import gradcheck

import geodiff as gd
from geodiff.splines.trim import TrimmedSurface

F64 = torch.float64


def plane(dtype: torch.dtype = F64, bend: float = 0.0) -> gd.NURBSSurface:
    """The square [0, 4] × [0, 2] over the domain [0, 1]², which a bend lifts out of the plane."""
    x, y = torch.meshgrid(torch.linspace(0, 4, 5, dtype=dtype), torch.linspace(0, 2, 6, dtype=dtype), indexing="ij")
    return gd.NURBSSurface(torch.stack([x, y, bend * x * y * (y - 1)], -1))


def affine() -> gd.NURBSSurface:
    """(u, v) itself: over the Greville abscissae a spline is the identity."""
    knots = gd.splines.uniform_knots(6, 3, dtype=F64)
    at = gd.splines.greville(knots, 3)
    u, v = torch.meshgrid(at, at, indexing="ij")
    return gd.NURBSSurface(torch.stack([u, v, 0 * u], -1), knots, knots)


def circle(radius: float = 0.3, centre: float = 0.5, turn: int = 1) -> gd.NURBSCurve:
    """A circle in the (u, v) plane, from four rational arcs (Piegl and Tiller, section 7.5)."""
    square = torch.tensor([[1, 0], [1, 1], [0, 1], [-1, 1], [-1, 0], [-1, -1], [0, -1], [1, -1], [1, 0]], dtype=F64)
    weights = torch.ones(9, dtype=F64)
    weights[1::2] = math.sqrt(0.5)
    knots = torch.tensor([0, 0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 4], dtype=F64)
    points = centre + radius * (square if turn > 0 else square.flip(0))
    return gd.NURBSCurve(points, knots, weights, degree=2)


SQUARE = torch.tensor([[0.2, 0.2], [0.8, 0.2], [0.8, 0.8], [0.2, 0.8]], dtype=F64)


@pytest.mark.parametrize("turn", [1, -1])
def test_annulus(turn: int) -> None:
    """The area of a polygon in a circle is short of the circle's by a share of at most (π / edges)² · 2/3."""
    ring = TrimmedSurface(affine(), [circle(0.4), circle(0.2, turn=turn)])
    for size in (16, 64):
        area, exact = ring.area(size, size).item(), math.pi * (0.4**2 - 0.2**2)
        edges = 2 * math.pi * 0.2 * (size - 1)
        assert abs(area - exact) < exact * (math.pi / edges) ** 2
        mesh = ring.tessellate(size, size)
        # The surface is flat here, so that the triangles have the very area.
        assert abs(mesh.face_areas.sum().item() - area) < 1e-12
    assert mesh.euler_characteristic == 0


def test_hole_is_respected() -> None:
    mesh = TrimmedSurface(affine(), [SQUARE, circle(0.2)]).tessellate(30, 40)
    centres = mesh.vertices[mesh.faces].mean(1)[:, :2] - 0.5
    assert (centres.norm(dim=-1) > 0.2 - 1e-2).all()  # the sagitta of edges of a cell is (1/30)²/8/0.2, below that
    assert (centres.abs() < 0.3).all()
    assert mesh.euler_characteristic == 0


def test_island_in_a_hole() -> None:
    part = TrimmedSurface(affine(), [circle(0.4), circle(0.3), circle(0.1)])
    r = torch.tensor([0.05, 0.2, 0.35, 0.45], dtype=F64)
    assert part.contains(0.5 + r, 0.5).tolist() == [True, False, True, False]
    assert part.contains(0.5 + r[:, None], torch.full((1, 2), 0.5)).shape == (4, 2)
    assert part.tessellate(40, 40).euler_characteristic == 1  # an annulus and a disk
    outside = TrimmedSurface(affine(), part.loops, keep="outside")
    assert outside.contains(0.5 + r, 0.5).tolist() == [False, True, False, True]


def test_contains_by_closed_form() -> None:
    u, v = torch.rand(2, 5000, dtype=F64)
    r = ((u - 0.5) ** 2 + (v - 0.5) ** 2).sqrt()
    clear = ((r - 0.4).abs() > 1e-3) & ((r - 0.2).abs() > 1e-3)
    want = (r < 0.4) & (r > 0.2)
    got = TrimmedSurface(affine(), [circle(0.4), circle(0.2)]).contains(u, v)
    assert torch.equal(got[clear], want[clear])


def border(mesh: gd.Mesh) -> torch.Tensor:
    return mesh.boundary_edges.unique()


@pytest.mark.parametrize("dtype", [torch.float32, F64])
def test_border_is_on_the_loops(dtype: torch.dtype) -> None:
    surface, loop = plane(dtype, bend=0.3), circle(0.35)
    mesh = TrimmedSurface(surface, [loop]).tessellate(20, 25)
    uv = mesh.uv[border(mesh)].double() - 0.5
    # Some roundings: that of the coordinates of the loop, of size one.
    assert ((uv.norm(dim=-1) - 0.35).abs() < 8 * torch.finfo(dtype).eps).all()
    assert mesh.vertices.dtype == dtype
    again = surface(mesh.uv[:, 0], mesh.uv[:, 1])
    torch.testing.assert_close(mesh.vertices, again, rtol=0, atol=64 * torch.finfo(dtype).eps)
    # One ring: as many border edges as border points, each point in two.
    edges = mesh.boundary_edges
    assert len(edges) == len(border(mesh)) > 30
    assert (torch.bincount(edges.flatten())[border(mesh)] == 2).all()


def test_faces_look_along_the_normals() -> None:
    mesh = TrimmedSurface(plane(), [circle()]).tessellate(12, 12)
    assert (mesh.face_normals[:, 2] > 0.999).all()


def test_watertight_with_what_was_cut_out() -> None:
    """Inside and outside share the points of the loop, and together are the whole."""
    surface = plane(bend=0.2)
    loops = [circle(0.3)]
    inside, outside = (TrimmedSurface(surface, loops, keep=k).tessellate(24, 24) for k in ("inside", "outside"))
    shared = inside.vertices[border(inside)]
    other = outside.vertices[border(outside)]
    gap = torch.cdist(shared, other, compute_mode="donot_use_mm_for_euclid_dist").amin(-1)
    assert gap.max() == 0
    both = torch.cat([inside.vertices, outside.vertices])
    points, renumber = np.unique(both.numpy(), axis=0, return_inverse=True)
    faces = torch.cat([inside.faces, outside.faces + len(inside.vertices)])
    whole = gd.Mesh(torch.as_tensor(points), torch.as_tensor(renumber.reshape(-1))[faces])
    assert whole.euler_characteristic == 1
    x, y = whole.vertices[border(whole), :2].T
    on_edge = torch.stack([x, 4 - x, y, 2 - y]).abs().amin(0)
    assert on_edge.max() < 1e-14  # a rounding of the evaluation


@pytest.mark.parametrize(
    "loop",
    [
        torch.tensor([[0.1, 0.1], [0.9, 0.12], [0.1, 0.14]]),  # a sharp corner
        torch.tensor([[0.1, 0.5], [0.5, 0.49], [0.9, 0.5], [0.5, 0.51]]),  # thinner than a cell
        torch.tensor([[0.0, 0.0], [1.0, 0.0], [1.0, 1.0], [0.0, 1.0]]),  # the border of the domain
    ],
)
def test_narrow_loops(loop: torch.Tensor) -> None:
    loop = loop.double()
    part = TrimmedSurface(affine(), [loop])
    mesh = part.tessellate(11, 11)
    x, y = loop.T
    exact = 0.5 * (x * y.roll(-1) - y * x.roll(-1)).sum().item()
    assert abs(mesh.face_areas.sum().item() - exact) < 1e-12
    assert abs(part.area(11, 11).item() - exact) < 1e-12
    assert mesh.euler_characteristic == 1


def test_closed_loops_of_all_kinds_agree() -> None:
    corners = SQUARE
    repeated = torch.cat([corners, corners[:1]])
    curve = gd.NURBSCurve(repeated, degree=1)
    round_ = gd.NURBSCurve(corners, degree=1, periodic=True)
    areas = [TrimmedSurface(affine(), [loop]).area(9, 9).item() for loop in (corners, repeated, curve, round_)]
    assert np.allclose(areas, 0.36, rtol=0, atol=1e-12)
    smooth = gd.NURBSCurve(corners, degree=3, periodic=True)
    assert 0.05 < TrimmedSurface(affine(), [smooth]).area(9, 9).item() < 0.36


def test_area_of_a_bent_part_by_quadrature() -> None:
    """Against a fine Riemann sum over the rectangle that a polygon cuts out."""
    surface = plane(bend=0.3)
    part = TrimmedSurface(surface, [SQUARE])
    middle = 0.2 + 0.6 * (torch.arange(400, dtype=F64) + 0.5) / 400
    jet = surface.derivatives(middle, middle, order=1, grid=True)
    exact = torch.linalg.cross(jet[(1, 0)], jet[(0, 1)]).norm(dim=-1).mean().item() * 0.36
    assert abs(part.area(40, 40).item() / exact - 1) < 1e-5


def test_gradients() -> None:
    """Both of the surface and of the loops; the triangulation stands still under small changes."""
    net = plane(bend=0.3).control_points.clone().requires_grad_()
    loop = circle(0.31)
    corners = loop.control_points.clone().requires_grad_()

    def part(net: torch.Tensor, corners: torch.Tensor) -> TrimmedSurface:
        return TrimmedSurface(gd.NURBSSurface(net), [loop.replace(control_points=closed(corners))])

    def closed(corners: torch.Tensor) -> torch.Tensor:
        return torch.cat([corners[:-1], corners[:1]])

    assert gradcheck(lambda net, c: part(net, c).area(7, 7), (net, corners), fast_mode=True)
    assert gradcheck(lambda net, c: part(net, c).tessellate(7, 7).vertices, (net, corners), fast_mode=True)
    # The area of a disk of radius r grows by 2πr dr.
    radius = torch.tensor(0.3, dtype=F64, requires_grad=True)
    grown = loop.replace(control_points=0.5 + radius * (loop.control_points - 0.5) / 0.31)
    (rate,) = torch.autograd.grad(TrimmedSurface(affine(), [grown]).area(60, 60), radius)
    assert abs(rate.item() / (2 * math.pi * 0.3) - 1) < 1e-3


def test_batches_share_their_loops() -> None:
    net = torch.stack([plane().control_points, plane(bend=0.4).control_points])
    part = TrimmedSurface(gd.NURBSSurface(net), [circle()])
    assert part.tessellate(9, 9).vertices.shape[0] == 2
    alone = TrimmedSurface(gd.NURBSSurface(net[1]), [circle()])
    torch.testing.assert_close(part.area(9, 9)[1], alone.area(9, 9))


def lone(loop) -> TrimmedSurface:
    return TrimmedSurface(affine(), [loop])


@pytest.mark.parametrize(
    "call, error, text",
    [
        (lambda: TrimmedSurface("plane", [SQUARE]), TypeError, "`surface` must be a NURBSSurface"),
        (lambda: TrimmedSurface(gd.NURBSSurface(torch.rand(4, 4, 2)), [SQUARE]), ValueError, "in space, D = 3"),
        (lambda: TrimmedSurface(affine(), []), ValueError, "a list of one loop or more"),
        (lambda: TrimmedSurface(affine(), SQUARE), ValueError, r"Pass \[loop\] for a single one"),
        (lambda: TrimmedSurface(affine(), [SQUARE], keep="in"), ValueError, "Did you mean 'inside'"),
        (lambda: lone(SQUARE[:2]), ValueError, "three corners or more; got 2"),
        (lambda: lone(torch.rand(4, 3)), ValueError, r"`loops\[0\]` must be of shape \(N, 2\)"),
        (lambda: lone(gd.NURBSCurve(torch.rand(4, 3))), ValueError, r"a single curve in the \(u, v\) plane"),
        (lambda: lone(gd.NURBSCurve(torch.rand(2, 4, 2))), ValueError, r"a single curve in the \(u, v\) plane"),
        (lambda: lone(gd.NURBSCurve(SQUARE)), ValueError, r"`loops\[0\]` must be closed; got ends 0.6 apart"),
        (lambda: lone(SQUARE + 0.5), ValueError, r"within the domain \[0, 1\] × \[0, 1\].*u from 0.7 to 1.3"),
        (lambda: lone(SQUARE * torch.nan), ValueError, "must be finite"),
        (lambda: lone(SQUARE).tessellate(1, 5), ValueError, "tessellate: `n` must be 2 or more"),
        (lambda: lone(SQUARE).area(5, 2.5), TypeError, "area: `m` must be an integer"),
        (lambda: lone(SQUARE).contains(torch.rand(3), torch.rand(2)), ValueError, "of shapes that broadcast"),
        (lambda: lone(SQUARE[[0, 2, 1, 3]]).tessellate(9, 9), ValueError, "`loops` must be apart from each other"),
        (lambda: TrimmedSurface(affine(), [SQUARE, SQUARE + 0.1]).area(9, 9), ValueError, "some that meet"),
        (lambda: TrimmedSurface(affine(), [SQUARE, SQUARE]).area(9, 9), ValueError, "some that meet"),
    ],
)
def test_errors(call, error, text) -> None:
    with pytest.raises(error, match=text):
        call()


def test_a_batch_of_different_domains_is_refused() -> None:
    knots = torch.stack([gd.splines.uniform_knots(4, 3), gd.splines.uniform_knots(4, 3, high=2.0)])
    with pytest.raises(ValueError, match="of one domain for the whole batch"):
        TrimmedSurface(gd.NURBSSurface(torch.rand(2, 4, 4, 3), knots), [SQUARE])
