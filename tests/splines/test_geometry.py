# SPDX-License-Identifier: Apache-2.0
"""Normals, curvatures and fundamental forms where they are known; meshes of surfaces."""

import math

import pytest
import torch

import geodiff as gd
from tests.splines.cases import EXACT, F64, random_surface

HALF = math.sqrt(0.5)


def quarter_circle(dtype=F64) -> tuple[torch.Tensor, torch.Tensor]:
    """Exact as a rational parabola: control points of the unit quarter circle, and their weights."""
    return torch.tensor([[1, 0], [1, 1], [0, 1]], dtype=dtype), torch.tensor([1, HALF, 1], dtype=dtype)


def octant(radius: float = 2.0) -> gd.NURBSSurface:
    """An eighth of a sphere: a quarter circle in x, z turned about z; its edge v = 1 is the north pole."""
    arc, w = quarter_circle()
    net = torch.stack([torch.stack([x * r, y * r, z], -1) for x, y in arc for r, z in arc]).reshape(3, 3, 3)
    return gd.NURBSSurface(radius * net, weights=w[:, None] * w, degree=(2, 2))


def paraboloid() -> gd.NURBSSurface:
    """z = x² − 3 x y / 2 + y² / 2 over [−1, 1]², exactly, with u, v = (x + 1)/2, (y + 1)/2."""
    t = torch.tensor([-1.0, 0.0, 1.0], dtype=F64)  # Greville: blossom of x; x² has the blossom x₁ x₂
    square = torch.tensor([1.0, -1.0, 1.0], dtype=F64)
    x, y = torch.meshgrid(t, t, indexing="ij")
    z = square[:, None] - 1.5 * x * y + 0.5 * square
    return gd.NURBSSurface(torch.stack([x, y, z], -1), degree=(2, 2))


def test_a_quarter_circle() -> None:
    points, weights = quarter_circle()
    circle = gd.NURBSCurve(2.5 * points, weights=weights, degree=2)
    u = torch.rand(20, dtype=F64)
    at = circle(u)
    torch.testing.assert_close(at.norm(dim=-1), torch.full((20,), 2.5, dtype=F64), rtol=EXACT, atol=0)
    torch.testing.assert_close(circle.curvature(u), torch.full((20,), 0.4, dtype=F64), rtol=EXACT, atol=0)
    assert float((circle.tangent(u) * at).sum(-1).abs().max()) < EXACT
    torch.testing.assert_close(circle.tangent(u).norm(dim=-1), torch.ones(20, dtype=F64))


def test_a_twisted_cubic() -> None:
    """(t, t², t³) at 0: curvature 2, torsion 3; elsewhere by their formulas."""
    bernstein = torch.tensor([[0, 0, 0], [1, 0, 0], [2, 1, 0], [3, 3, 3]], dtype=F64) / 3
    cubic = gd.NURBSCurve(bernstein)
    t = torch.tensor([0.0, 0.3, 1.0], dtype=F64)
    torch.testing.assert_close(cubic(t), torch.stack([t, t**2, t**3], -1), rtol=EXACT, atol=EXACT)
    grow = 9 * t**4 + 9 * t**2 + 1
    curvature = 2 * grow.sqrt() / (9 * t**4 + 4 * t**2 + 1) ** 1.5
    torch.testing.assert_close(cubic.curvature(t), curvature, rtol=1e-11, atol=0)
    torch.testing.assert_close(cubic.torsion(t), 3 / grow, rtol=1e-11, atol=0)


def test_a_sphere_is_equally_curved() -> None:
    sphere = octant(2.0)
    u, v = torch.rand(30, dtype=F64), 0.95 * torch.rand(30, dtype=F64)
    points = sphere(u, v)
    torch.testing.assert_close(points.norm(dim=-1), torch.full((30,), 2.0, dtype=F64), rtol=EXACT, atol=0)
    torch.testing.assert_close(sphere.normal(u, v), points / 2, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(sphere.gaussian_curvature(u, v), torch.full((30,), 0.25, dtype=F64), rtol=1e-8, atol=0)
    torch.testing.assert_close(sphere.mean_curvature(u, v), torch.full((30,), -0.5, dtype=F64), rtol=1e-8, atol=0)


@pytest.mark.parametrize("dtype", [torch.float32, F64])
def test_normals_at_a_pole_are_the_limit(dtype: torch.dtype) -> None:
    sphere = octant(1.0).to(dtype=dtype)
    north = torch.tensor([0.0, 0.0, 1.0], dtype=dtype).expand(9, 3)
    bound = 1e3 * torch.finfo(dtype).eps
    u = torch.linspace(0, 1, 9, dtype=dtype)
    torch.testing.assert_close(sphere.normal(u, torch.ones(9, dtype=dtype)), north, rtol=0, atol=bound)
    grid = sphere.normal(9, 5, grid=True)
    torch.testing.assert_close(grid, sphere.grid(9, 5), rtol=0, atol=bound)
    assert sphere.normal(0.3, 1.0).shape == (3,)
    turned = gd.NURBSSurface(
        sphere.control_points.transpose(0, 1).flip(0),
        weights=sphere.weights.mT.flip(0),
        degree=(2, 2),
    )  # the pole now at u = 0; (u, v) keep their handedness
    torch.testing.assert_close(turned.normal(torch.zeros(9, dtype=dtype), u), north, rtol=0, atol=bound)


def test_forms_of_a_graph() -> None:
    """z = f(x, y): E = 1 + f_x², F = f_x f_y, …; L = f_xx / W, …, with W² = 1 + f_x² + f_y²."""
    surface = paraboloid()
    x, y = 2 * torch.rand(20, dtype=F64) - 1, 2 * torch.rand(20, dtype=F64) - 1
    u, v = (x + 1) / 2, (y + 1) / 2
    torch.testing.assert_close(surface(u, v)[:, 2], x**2 - 1.5 * x * y + y**2 / 2, rtol=EXACT, atol=EXACT)
    fx, fy = 2 * x - 1.5 * y, y - 1.5 * x
    w = (1 + fx**2 + fy**2).sqrt()
    first = torch.stack([1 + fx**2, fx * fy, fx * fy, 1 + fy**2], -1).reshape(20, 2, 2)
    second = torch.tensor([[2.0, -1.5], [-1.5, 1.0]], dtype=F64) / w[:, None, None]
    torch.testing.assert_close(surface.first_fundamental_form(u, v), 4 * first, rtol=1e-11, atol=1e-11)
    torch.testing.assert_close(surface.second_fundamental_form(u, v), 4 * second, rtol=1e-11, atol=1e-11)
    torch.testing.assert_close(surface.gaussian_curvature(u, v), (2 - 2.25) / w**4, rtol=1e-10, atol=1e-10)
    mean = ((1 + fx**2) - 2 * fx * fy * -1.5 + (1 + fy**2) * 2) / (2 * w**3)
    torch.testing.assert_close(surface.mean_curvature(u, v), mean, rtol=1e-10, atol=1e-10)
    normal = torch.stack([-fx, -fy, torch.ones_like(fx)], -1) / w[:, None]
    torch.testing.assert_close(surface.normal(u, v), normal, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(surface.normal(u, v, grid=True).diagonal(0, 0, 1).mT, normal, rtol=1e-10, atol=1e-10)


def test_curvature_is_differentiable() -> None:
    surface = paraboloid()
    u, v = torch.tensor([0.3, 0.8], dtype=F64), torch.tensor([0.6, 0.1], dtype=F64)

    def mean(net: torch.Tensor, u: torch.Tensor) -> torch.Tensor:
        return surface.replace(control_points=net).mean_curvature(u, v)

    torch.autograd.gradcheck(mean, (surface.control_points.requires_grad_(), u.requires_grad_()), fast_mode=True)


def test_a_surface_becomes_a_mesh() -> None:
    surface = random_surface(0)
    surface.control_points.requires_grad_()
    mesh = surface.tessellate(7, 9)
    assert mesh.vertices.shape == (63, 3) and mesh.faces.shape == (2 * 6 * 8, 3)
    assert torch.equal(mesh.vertices.reshape(7, 9, 3), surface.grid(7, 9))
    (gradient,) = torch.autograd.grad(mesh.vertices.square().sum(), surface.control_points)
    assert bool((gradient != 0).any(-1).all())
    mesh = surface.detach().tessellate(60, 50)
    # Faces look where the normals point, and texture coordinates are the parameters scaled to the unit square.
    corners = mesh.uv[mesh.uv_faces if mesh.uv_faces is not None else mesh.faces].mean(1)
    (a, b), (c, d) = surface.domain
    normals = surface.detach().normal(a + corners[:, 0] * (b - a), c + corners[:, 1] * (d - c))
    assert float((mesh.face_normals * normals).sum(-1).min()) > 0.99


def test_closed_surfaces_give_closed_meshes() -> None:
    angle = torch.arange(6, dtype=F64) * (math.pi / 3)
    big, small = torch.stack([angle.cos(), angle.sin()], -1), torch.stack([angle.cos(), angle.sin()], -1)
    radius = 3 + small[None, :, :1]
    net = torch.cat([big[:, None] * radius, small[None, :, 1:].expand(6, 6, 1)], -1)
    torus = gd.NURBSSurface(net, degree=(3, 2), periodic=True)
    mesh = torus.tessellate(25, 17)
    assert mesh.is_closed and mesh.euler_characteristic == 0 and mesh.num_vertices == 24 * 16
    assert mesh.uv.shape == (25 * 17, 2) and float(mesh.uv[-1].sum()) == 2
    loose = torus.tessellate(25, 17, weld=False)
    assert loose.num_vertices == 25 * 17 and not loose.is_closed
    pole = octant().tessellate(6, 7)
    assert pole.num_vertices == 6 * 6 + 1 and pole.euler_characteristic == 1
    assert float(pole.face_areas.min()) > 0


def test_batches_and_chosen_parameters_tessellate() -> None:
    nets = torch.randn(4, 5, 5, 3)
    mesh = gd.NURBSSurface(nets).tessellate(6, 7)
    assert mesh.batch_shape == (4,) and mesh.num_vertices == 42
    chosen = gd.NURBSSurface(nets[0]).tessellate([0.0, 0.1, 1.0], torch.tensor([0.25, 0.75]))
    assert chosen.num_vertices == 6 and chosen.uv[:, 0].unique().tolist() == pytest.approx([0.0, 0.1, 1.0])
    with pytest.raises(ValueError, match=r"tessellate: `control_points` must be points in space, D = 3; got D = 2"):
        gd.NURBSSurface(nets[..., :2]).tessellate()
