# SPDX-License-Identifier: Apache-2.0
"""Sphere tracing: depth and its gradient beside the analytic sphere, and the relaxed program beside the hard one."""

from typing import Any

import pytest
import torch

import geodiff as gd
from geodiff import csg
from geodiff.reference.arguments import pixel_centres
from geodiff.render import sphere_trace

F64 = torch.float64
EYE = gd.Camera.orbit(3.0, 20.0, 30.0, fov_deg=45).to(dtype=F64)
SIZE = (9, 11)


def analytic(center: torch.Tensor, radius: torch.Tensor, camera: gd.Camera = EYE) -> torch.Tensor:
    """Depth at which rays meet a sphere, infinite where they do not."""
    plane = pixel_centres(SIZE, camera.position)
    one, two = (camera.unproject(torch.cat([plane, torch.full_like(plane[:, :1], z)], -1)) for z in (1.0, 2.0))
    ahead, away = two - one, one - center
    a, b, c = (ahead**2).sum(-1), (ahead * away).sum(-1), (away**2).sum(-1) - radius**2
    inside = (b * b - a * c).clamp(min=0)
    meets = inside > 0
    depth = 1 + (-b - torch.where(meets, inside, 1.0).sqrt()) / a
    return torch.where(meets, depth, torch.inf).reshape(SIZE)


@pytest.mark.parametrize("beta", [None, 1e5])
def test_beside_the_analytic_sphere(beta: float | None) -> None:
    center = torch.tensor([0.1, -0.2, 0.05], dtype=F64, requires_grad=True)
    radius = torch.tensor(0.8, dtype=F64, requires_grad=True)
    options: dict[str, Any] = {
        "far": 10.0,
        "tolerance": 1e-9 if beta is None else 1e-4,
        "max_steps": 300 if beta is None else 60,
        "beta": beta,
    }
    found = sphere_trace(csg.Sphere(radius, center), EYE, SIZE, **options)
    exact = analytic(center, radius)
    assert int((found.mask != exact.isfinite()).sum()) <= (beta is not None) and int(found.mask.sum()) > 20
    exact = torch.where(found.mask, exact, torch.inf)
    # A tolerance along the ray is more than across it, by one over the cosine.
    assert torch.allclose(found.depth, exact, atol=1e-8 if beta is None else 2e-3)
    weights = torch.where(found.mask, torch.rand(SIZE, dtype=F64), 0.0)
    slopes = [
        torch.autograd.grad((torch.where(found.mask, depth, 0.0) * weights).sum(), (center, radius), retain_graph=True)
        for depth in (found.depth, exact)
    ]
    for one, other in zip(*slopes, strict=True):
        assert torch.allclose(one, other, rtol=1e-6 if beta is None else 0.03, atol=1e-6 if beta is None else 0.03)


def test_the_gradient_reaches_the_camera() -> None:
    distance = torch.tensor(3.0, dtype=F64, requires_grad=True)

    def depth(distance: torch.Tensor) -> torch.Tensor:
        camera = gd.Camera.orbit(distance, 20.0, 30.0, fov_deg=45).to(dtype=F64)
        return sphere_trace(csg.Box(1.0), camera, 5, far=10.0, tolerance=1e-10).depth[2]

    (slope,) = torch.autograd.grad(depth(distance)[2], distance)
    step = 1e-5
    with torch.no_grad():
        rate = (depth(distance + step) - depth(distance - step))[2] / (2 * step)
    assert slope.item() == pytest.approx(rate.item(), rel=1e-5)


def test_a_softer_program_is_a_mean_over_its_steps() -> None:
    """It ends earlier and later than the hard one, and gives no NaN."""
    scale = torch.tensor(1.0, dtype=F64, requires_grad=True)
    hard = sphere_trace(csg.Box(1.0), EYE, SIZE, far=10.0)
    soft = sphere_trace(csg.Box(scale), EYE, SIZE, far=10.0, beta=100.0, max_steps=30)
    both = hard.mask & soft.mask
    assert int(both.sum()) > 10 and float((hard.depth - soft.depth).detach()[both].abs().max()) < 0.2
    soft.depth[both].sum().backward()
    assert -40 < float(scale.grad) < 0


def test_batches_dtypes_and_modes() -> None:
    eyes = gd.Camera.orbit(3.0, 28.0, torch.tensor([0.0, 90.0]), fov_deg=45)
    solid = csg.Box(1.0) - csg.Sphere(0.4, (0.5, 0.5, 0.5))
    both = sphere_trace(solid, eyes, 7)
    assert both.depth.shape == (2, 7, 7) and both.depth.dtype == torch.float32
    assert torch.allclose(both.depth[1], sphere_trace(solid, eyes[1], 7).depth, atol=1e-5)
    mesh = gd.isosurface(solid, resolution=48)
    drawn = gd.Renderer(7, coverage="hard", outputs="depth")(mesh, eyes).depth
    there = both.mask & drawn.isfinite()
    assert int((both.mask != drawn.isfinite()).sum()) <= 2 and float((both.depth - drawn)[there].abs().max()) < 0.05
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(sphere_trace(solid, eyes, 7).depth, both.depth)
    with torch.inference_mode():
        assert torch.allclose(sphere_trace(solid, eyes, 7).depth, both.depth)
    flat = gd.Camera.orthographic((0.0, 0.0, 3.0))
    assert float(sphere_trace(solid, flat, 7).depth[3, 3]) == pytest.approx(2.5, abs=1e-3)


def test_fields_that_are_the_same_everywhere() -> None:
    nothing = csg.Gate(csg.Sphere(1.0), csg.Sphere(0.5), torch.eye(8)[0])
    assert nothing.name == "false" and not sphere_trace(nothing, EYE, 3).mask.any()
    depth = torch.tensor(1.0, requires_grad=True)
    assert not sphere_trace(lambda p: depth.expand(len(p)), EYE, 3).mask.any()  # a gradient, but none in the points
    assert sphere_trace(lambda p: torch.full((len(p),), -1.0), EYE, 3).mask.all()


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"field": 3}, TypeError, "sphere_trace: `field` must be a function of points"),
        ({"field": lambda p: p}, ValueError, r"sphere_trace: `field` must be a function that returns \(9,\)"),
        ({"field": lambda p: p[:, 0] * torch.nan}, ValueError, "`b` must be free of NaN"),
        ({"camera": None}, TypeError, "sphere_trace: `camera` must be a Camera"),
        ({"far": 0.0}, ValueError, "sphere_trace: `far` must be finite and"),
        ({"tolerance": 0.0}, ValueError, "sphere_trace: `tolerance` must be finite and"),
        ({"max_steps": 0}, ValueError, "sphere_trace: `max_steps` must be an integer"),
        ({"beta": -1.0}, ValueError, "sphere_trace: `beta` must be finite and"),
    ],
)
def test_bad_input(options: dict[str, Any], error: type[Exception], message: str) -> None:
    given = {"field": csg.Sphere(1.0), "camera": EYE, "image_size": 3, **options}
    with pytest.raises(error, match=message):
        sphere_trace(**given)
