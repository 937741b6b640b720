# SPDX-License-Identifier: Apache-2.0
"""Everything geometric far from the origin is what it is at the origin: only places move, and round there."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

import geodiff as gd
from geodiff import atlas, losses, splines, transport
from geodiff.atlas.proximity import closest_on_mesh, sample_mesh
from tests.atlas.shapes import torus as torus_points

# Survey coordinates in metres, and a large part in single precision.
OFFSETS = {torch.float64: (1e6, -5.8e6, 3e6), torch.float32: (1e3, -2e3, 3e3)}


class At:
    """Puts points somewhere: far away, or, with the very roundings they get there, at the origin."""

    def __init__(self, dtype: torch.dtype, far: bool) -> None:
        self.dtype, self.far = dtype, far
        self.random = torch.Generator().manual_seed(3)
        self.offset = torch.tensor(OFFSETS[dtype], dtype=dtype)
        self.places: list[torch.Tensor] = []

    def __call__(self, points: torch.Tensor) -> torch.Tensor:
        """Return points (..., D) of the dtype, moved by the first D offsets."""
        offset = self.offset[: points.shape[-1]]
        rounded = points.to(self.dtype) + offset
        return (rounded if self.far else rounded - offset).requires_grad_()

    def back(self, points: torch.Tensor) -> torch.Tensor:
        """Return where points would be at the origin; they have the roundings of where they are."""
        self.places.append(points - self.offset[: points.shape[-1]] if self.far else points + 0)
        return self.places[-1]

    def rand(self, *shape: int) -> torch.Tensor:
        """Random points in the unit cube."""
        return torch.rand(*shape, generator=self.random, dtype=torch.float64)

    def mesh(self, subdivisions: int = 1) -> gd.Mesh:
        """Return a bumpy ball."""
        ball = gd.icosphere(subdivisions, dtype=torch.float64)
        return gd.Mesh(self(ball.vertices * (1 + 0.3 * self.rand(len(ball.vertices), 1))), ball.faces)

    def spline(self, spline: Any, bend: float = 0.1) -> Any:
        """Return a spline whose control points are bent a little and put there."""
        points = spline.control_points
        bent = points.double() + bend * self.rand(*points.shape) if bend else points.double()
        move = {"weights": None if spline.weights is None else spline.weights.to(self.dtype)}
        return spline.to(dtype=self.dtype).replace(control_points=self(bent), **move)

    def curve(self) -> Any:
        """Return a rational curve in space."""
        points = torch.cumsum(self.rand(7, 3), 0)
        return gd.NURBSCurve(self(points), weights=(0.5 + self.rand(7)).to(self.dtype))

    def surface(self, rational: bool = True) -> Any:
        """Return a bumpy patch."""
        grid = torch.stack(torch.meshgrid(*[torch.linspace(0, 1, 6, dtype=torch.float64)] * 2, indexing="ij"), -1)
        weights = (0.5 + self.rand(6, 6)).to(self.dtype) if rational else None
        return gd.NURBSSurface(self(torch.cat([grid, 0.5 * self.rand(6, 6, 1)], -1)), weights=weights)


Case = Callable[[At], list[torch.Tensor]]
U = torch.linspace(0.05, 0.95, 9)


def _clouds(at: At) -> tuple[torch.Tensor, torch.Tensor]:
    return at(at.rand(40, 3)), at(at.rand(30, 3))


def _with_gradients(value: torch.Tensor, *leaves: torch.Tensor) -> list[torch.Tensor]:
    return [value, *torch.autograd.grad(value.sum(), leaves)]


def _distances(at: At) -> list[torch.Tensor]:
    x, y = _clouds(at)
    out = _with_gradients(gd.chamfer(x, y), x, y) + _with_gradients(gd.chamfer(x, y, squared=False), x, y)
    out += [*_with_gradients(transport.hausdorff(x, y), x), transport.f_score(x, y, 0.2)]
    out += [
        transport.nearest(x, y).double(),
        transport.nearest(*(at(at.rand(9, 3).repeat(1, 5)[:, :3]) for _ in "xy")).double(),
    ]
    return [*out, transport.assign(x, at(at.rand(40, 3))).cost]


def _transport(at: At) -> list[torch.Tensor]:
    x, y = _clouds(at)
    out = []
    for p, backend in ((1, "dense"), (2, "dense"), (1, "streamed"), (2, "streamed")):
        ot = gd.sinkhorn(x, y, epsilon=0.1, p=p, backend=backend)
        out += [
            *_with_gradients(ot.cost, x, y),
            ot.plan() * 40,
            ot.f,
            *torch.autograd.grad(ot.plan()[0, :9].sum() * 40, (x, y)),
        ]
        lazy = 40 * (ot.lazy_plan @ at.rand(30, 2).to(at.dtype))
        out += [lazy, *torch.autograd.grad(lazy.square().sum(), (x, y))]
    unrolled = gd.sinkhorn(x, y, epsilon=0.3, unrolled=True, tolerance=1e-6)
    return [*out, *_with_gradients(unrolled.cost, x), gd.sinkhorn_divergence(x, y, epsilon=0.1)]


def _pooling(at: At) -> list[torch.Tensor]:
    out = []
    for name in ("quadratic", "huber", "pseudo_huber", "welsch", "truncated_quadratic"):
        x = at(at.rand(2, 9, 3)).movedim(-1, 1)  # (B, C, N)
        out.append(at.back(gd.robust_pool(x, name, alpha=0.3)))
    return out


def _meshes(at: At) -> list[torch.Tensor]:
    mesh = at.mesh()
    v = mesh.vertices
    out = [mesh.face_normals, mesh.vertex_normals, mesh.laplacian("cotangent").to_dense()]
    values = [mesh.face_areas, losses.laplacian(mesh), losses.laplacian(mesh, kind="cotangent")]
    values += [losses.flatness(mesh), losses.edge_length(mesh), losses.normal_consistency(mesh)]
    out += [t for value in values for t in _with_gradients(value, v)]
    return [*out, mesh.normalized().vertices, mesh.normalized("sphere").vertices]


def _on_meshes(at: At) -> list[torch.Tensor]:
    mesh = at.mesh().detach()
    points = at(3 * at.rand(50, 3) - 1).detach()
    found = closest_on_mesh(points, mesh)
    drawn = sample_mesh(mesh, 100)
    rough = closest_on_mesh(points, mesh, rounded=True)
    metrics = atlas.surface_metrics(mesh, at.mesh().detach(), samples=300, scale=1.0).as_dict()
    del metrics["normal_consistency"]  # on an edge, rounding says which of two faces is the nearest
    numbers = [v for v in metrics.values() if isinstance(v, float) and v == v]
    out = [found.distance, at.back(found.point), at.back(drawn.points), drawn.normals, rough.distance]
    return [*out, torch.tensor(numbers, dtype=torch.float64)]


def _lengths(at: At) -> list[torch.Tensor]:
    curve = at.curve()
    u = U.to(at.dtype)
    out = [*_with_gradients(splines.arc_length(curve), curve.control_points), splines.length_at(curve, u)]
    out += [splines.parameter_at_length(curve, u), curve.curvature(u), curve.torsion(u), curve.tangent(u)]
    jet = curve.derivatives(u, order=2)
    return [*out, at.back(splines.centroid(curve)), at.back(jet[(0,)]), jet[(1,)], jet[(2,)]]


def _areas(at: At) -> list[torch.Tensor]:
    out: list[torch.Tensor] = []
    u = U.to(at.dtype)
    for rational in (True, False):
        surface = at.surface(rational)
        out += _with_gradients(splines.area(surface), surface.control_points)
        out += [surface.normal(u, u), surface.gaussian_curvature(u, u), surface.mean_curvature(u, u)]
        out += [surface.first_fundamental_form(u, u), surface.second_fundamental_form(u, u)]
        out += [at.back(splines.centroid(surface)), surface.derivative(u, u, order=(1, 1))]
    trimmed = splines.TrimmedSurface(at.surface(), [[[0.2, 0.2], [0.8, 0.3], [0.5, 0.8]]])
    circle = at.spline(splines.circle(1.0, dtype=torch.float64), 0.0)
    return [*out, trimmed.area(), splines.area(circle)]


def _volumes(at: At) -> list[torch.Tensor]:
    ball = at.spline(splines.sphere(dtype=torch.float64), 0.0)
    box = at.spline(splines.elevated(splines.box(dtype=torch.float64)))
    out = [*_with_gradients(splines.volume(ball), ball.control_points), at.back(splines.centroid(ball, solid=True))]
    return [*out, *_with_gradients(splines.volume(box), box.control_points), at.back(splines.centroid(box))]


def _closest(at: At) -> list[torch.Tensor]:
    out = []
    for spline in (at.curve(), at.surface(), at.spline(splines.torus(dtype=torch.float64), 0.0)):
        points = at(3 * at.rand(40, 3) - 1)
        found = splines.closest_point(spline, points)
        assert found.converged.all()
        out += [at.back(found.points), *_with_gradients(found.distance, points, spline.control_points)]
    return out


def _fits(at: At) -> list[torch.Tensor]:
    u = torch.linspace(0, 1, 30, dtype=torch.float64)
    line = at(torch.stack([u, (5 * u).sin(), u**2], -1))
    x, y = torch.meshgrid(u[::3], u[::3], indexing="ij")
    grid = at(torch.stack([x, y, (3 * x * y).sin()], -1))
    out = []
    for parameters in ("uniform", "chord"):
        fit = splines.fit_curve(line, 6, parameters=parameters)
        out += [at.back(fit.curve.control_points), torch.as_tensor(fit.mse)]
    free = splines.fit_curve(line.detach(), 6, free_knots=True, max_iterations=20)
    out += [torch.as_tensor(free.mse).sqrt(), at.back(splines.fit_surface(grid, (5, 5)).surface.control_points)]
    # Of no square: its axes would be a matter of rounding, and with them the way that a descent takes.
    cloud = at(torch.stack([x, 0.7 * y, (3 * x * y).sin()], -1)).detach().reshape(-1, 3)
    scattered = splines.fit_cloud(cloud, (4, 4), degree=2, max_iterations=5, smoothing=1e-3)
    return [*out, scattered.errors.double().square().mean().sqrt()]


def _refined(at: At) -> list[torch.Tensor]:
    curve = at.curve()
    raised, _ = splines.reduced(splines.elevated(curve))
    inserted = splines.insert_knots(curve, [0.3])
    removed, _ = splines.remove_knot(inserted, 0.3)
    return [at.back(x.control_points) for x in (raised, inserted, removed)]


def _covers(at: At) -> list[torch.Tensor]:
    points = at(torus_points(400)).detach()
    found = atlas.cover(points)
    return [found.radius, at.back(found.centers), found.chart.double(), found.point.double(), found.normals.abs()]


CASES: dict[str, Case] = {
    "distances": _distances,
    "transport": _transport,
    "pooling": _pooling,
    "meshes": _meshes,
    "on meshes": _on_meshes,
    "lengths": _lengths,
    "areas": _areas,
    "volumes": _volumes,
    "closest": _closest,
    "fits": _fits,
    "refined": _refined,
    "covers": _covers,
}


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
@pytest.mark.parametrize("name", CASES)
def test_far_is_near(name: str, dtype: torch.dtype) -> None:
    sides = [At(dtype, away) for away in (False, True)]
    near, far = (CASES[name](side) for side in sides)
    eps, offset = torch.finfo(dtype).eps, float(sides[1].offset.abs().max())
    assert len(near) == len(far)
    for i, (wanted, got) in enumerate(zip(near, far, strict=True)):
        # 3000 roundings of a result's own size; without care it is millions. A place has four of its distance too.
        bound = 3000 * eps * max(float(wanted.detach().abs().max()), 1e-3)
        bound += 4 * eps * offset if any(got is place for place in sides[1].places) else 0.0
        error = float((wanted - got).detach().abs().max())
        assert error <= bound, (
            f"{name}, result {i} of shape {tuple(got.shape)}: off by {error:.3g}, allowed {bound:.3g}"
        )
