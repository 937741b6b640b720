# SPDX-License-Identifier: Apache-2.0
"""Clouds without order: patches and curves sampled at random, and what cannot be fitted."""

import math
from typing import Any

import pytest
import torch

import geodiff as gd
from geodiff.splines.fit_unordered import fit_cloud


def rotation() -> torch.Tensor:
    return torch.linalg.qr(torch.randn(3, 3, dtype=torch.float64)).Q


def patch(height: Any, count: int = 900) -> torch.Tensor:
    """A height field over [−1, 1]², turned, moved, enlarged and in no order."""
    xy = 2 * torch.rand(count, 2, dtype=torch.float64) - 1
    return 10 * torch.cat([xy, height(xy)[:, None]], 1) @ rotation().mT + 5


def test_a_plane_is_met_exactly() -> None:
    cloud = patch(lambda xy: 0 * xy[:, 0])
    fit = fit_cloud(cloud, (5, 4), (3, 2))
    assert fit.max < 1e-9 and fit.converged
    assert fit.surface.shape == (5, 4) and fit.surface.degree == (3, 2)
    # The rectangle's sides are found, so that the square is used to its corners.
    u, v = fit.parameters
    assert float(u.min()) < 0.05 and float(u.max()) > 0.95 and float(v.min()) < 0.05 and float(v.max()) > 0.95
    area = fit.surface.tessellate(8, 8).face_areas.sum()
    assert float(area) == pytest.approx(400, rel=0.05)


@pytest.mark.parametrize("chamfer", [0.0, 0.1])
def test_a_paraboloid_is_met_nearly(chamfer: float) -> None:
    cloud = patch(lambda xy: xy.square().sum(1) / 2)
    fit = fit_cloud(cloud, (6, 6), chamfer=chamfer)
    # Of a cloud of size 10; the other direction draws to points half a spacing away.
    assert fit.rms < (2e-3 if chamfer == 0 else 0.05)
    # The errors are those of the surface at the parameters, and no sample of it is nearer.
    there = fit.surface(*fit.parameters)
    assert torch.allclose(fit.errors, (there - cloud).norm(dim=-1), atol=1e-12)
    samples = fit.surface.grid(60, 60).reshape(-1, 3)
    assert bool((torch.cdist(cloud, samples).min(1).values >= fit.errors - 1e-4).all())
    assert fit.rms == pytest.approx(float(fit.errors.square().mean().sqrt()))
    assert fit.mse == pytest.approx(fit.rms**2 / 3)


def disc(count: int) -> torch.Tensor:
    """Points `(N, 2)` of the unit disc."""
    angle = 2 * math.pi * torch.rand(count, dtype=torch.float64)
    return torch.rand(count, 1, dtype=torch.float64).sqrt() * torch.stack([angle.cos(), angle.sin()], -1)


def overhang(fit: Any, cloud: torch.Tensor) -> float:
    """How far the surface gets from the nearest point, in spacings, the medians of the distance of neighbours."""
    samples = fit.surface.grid(40, 40).reshape(-1, 3)
    spacing = torch.cdist(cloud, cloud).sort(1).values[:, 1:7].mean(1).median()
    return float(torch.cdist(samples, cloud).min(1).values.max() / spacing)


def test_the_other_direction_draws_in_overhangs() -> None:
    # Points on a square without one quarter: no convex hull shows the notch.
    xy = 2 * torch.rand(1000, 2, dtype=torch.float64) - 1
    xy = xy[(xy < 0).any(1)]
    cloud = torch.cat([xy, 0.2 * xy.square().sum(1, keepdim=True)], 1)
    far = [overhang(fit_cloud(cloud, (4, 4), chamfer=c, max_iterations=20), cloud) for c in (0.0, 1.0)]
    assert far[1] < 0.5 * far[0]


NOISE = 0.057  # 2 % of the diagonal of the square [−1, 1]²


@pytest.mark.parametrize(
    ("shape", "bend", "noise", "options"),
    [
        ("disc", 0.5, 0.0, {}),
        ("disc", 0.3, NOISE, {}),
        ("disc", 0.0, NOISE, {"smoothing": 1e-5}),
        ("square", 0.0, NOISE, {}),
    ],
)
def test_nothing_runs_away_or_folds(shape: str, bend: float, noise: float, options: dict[str, Any]) -> None:
    xy = disc(1200) if shape == "disc" else 2 * torch.rand(1200, 2, dtype=torch.float64) - 1
    cloud = torch.cat([xy, bend * xy.square().sum(1, keepdim=True)], 1)
    cloud = cloud + noise * torch.randn(cloud.shape, dtype=torch.float64)
    fit = fit_cloud(cloud, (10, 10), **options)
    # Across the surface is one of three coordinates of the noise, and a part of the others at the rim.
    assert (fit.rms < 1e-4) if noise == 0 else (0.8 * noise < fit.rms < 1.1 * noise)
    # The corner of a square is 0.41 radii from the disc inside it, here 10 spacings; it is drawn in by half.
    assert overhang(fit, cloud) < 6
    # Of z = b r² over the unit disc: (π/6b²) ((1 + 4b²)^(3/2) − 1).
    area = 4.0 if shape == "square" else math.pi
    if bend > 0:
        area *= ((1 + 4 * bend**2) ** 1.5 - 1) / (6 * bend**2)
    mesh = fit.surface.tessellate(40, 40)
    assert float(mesh.face_areas.sum()) == pytest.approx(area, rel=0.2)
    u = torch.linspace(0, 1, 40, dtype=torch.float64)
    normal = fit.surface.normal(u, u, grid=True)
    for axis in (0, 1):
        turned = (normal.narrow(axis, 1, 39) * normal.narrow(axis, 0, 39)).sum(-1)
        assert float(turned.min()) > math.cos(math.radians(30))


def test_noise_is_averaged() -> None:
    cloud = patch(lambda xy: 0.3 * torch.sin(3 * xy[:, 0]) * xy[:, 1])
    fit = fit_cloud(cloud + 0.1 * torch.randn(cloud.shape, dtype=torch.float64), (6, 6))
    # One of three coordinates of the noise is across the surface; the fit takes up 36 of 900 of it.
    assert 0.09 < fit.rms < 0.11
    # Once the smoothing is what was asked, the objective only falls.
    assert all(b <= a for a, b in zip(fit.history[8:], fit.history[9:], strict=False))


@pytest.mark.parametrize("order", ["principal", "neighbours"])
def test_an_open_curve(order: str) -> None:
    t = 2.5 * torch.rand(400, dtype=torch.float64)
    fit = fit_cloud(torch.stack([t.cos(), t.sin(), t / 5], -1), 10, order=order)
    assert fit.max < 1e-3 and fit.curve.shape == (10,)


def test_a_curve_that_turns_back_needs_its_neighbours() -> None:
    # Four times across along its principal axis.
    t = torch.rand(600, dtype=torch.float64)
    winding = torch.stack([3 * (4 * math.pi * t).cos(), 4 * t], -1)
    fit = fit_cloud(winding, 16, order="neighbours")
    assert fit.rms < 5e-3
    assert fit_cloud(winding, 16, order="principal", max_iterations=20).rms > 10 * fit.rms
    # In two parts, far from each other, there is no path: the principal axis serves.
    t = torch.rand(60, dtype=torch.float64)
    parts = torch.cat([torch.stack([t, 0 * t], -1), torch.stack([t + 9, 0 * t], -1)])
    assert fit_cloud(parts, 6, order="neighbours").max < 1e-6


def test_an_initial_surface_that_closes() -> None:
    # A cylinder, which no plane can order.
    angle, z = 2 * math.pi * torch.rand(500, dtype=torch.float64), torch.rand(500, dtype=torch.float64)
    cloud = torch.stack([angle.cos(), angle.sin(), z], -1)
    turn = 2 * math.pi * torch.arange(10, dtype=torch.float64) / 10
    ring = 1.3 * torch.stack([turn.cos(), turn.sin()], -1)[:, None].expand(10, 4, 2)
    net = torch.cat([ring, torch.linspace(-0.1, 1.2, 4).double().expand(10, 4)[..., None]], -1)
    initial = gd.NURBSSurface(net, degree=(3, 3), periodic=(True, False))
    before = net.clone()
    fit = fit_cloud(cloud, initial=initial)
    # 10 cubic pieces, evenly spread, approximate the circle within (2π/10)⁴/384 = 4e-4; these are not quite even.
    assert fit.rms < 2e-3 and fit.surface.periodic == (True, False)
    assert torch.equal(net, before) and torch.equal(fit.surface.knots_u, initial.knots_u)
    ends = fit.surface(torch.tensor([0.0, 1.0]), torch.tensor([0.5, 0.5]))
    assert torch.allclose(ends[0], ends[1])


def test_determinism_dtype_progress() -> None:
    cloud = patch(lambda xy: xy[:, 0] * xy[:, 1], 300).float()
    before, seen = cloud.clone(), []
    fit = fit_cloud(cloud, (4, 4), max_iterations=3, callback=lambda i, f: seen.append((i, f)))
    assert [i for i, _ in seen] == [1, 2, 3] and [f for _, f in seen] == fit.history
    assert not fit.converged and "limit" in fit.message and fit.iterations == 3
    assert fit.surface.dtype == torch.float32 and torch.equal(cloud, before)
    again = fit_cloud(cloud, (4, 4), max_iterations=3)
    assert torch.equal(fit.surface.control_points, again.surface.control_points)
    # Of size and place nothing but the scale of the result depends.
    moved = fit_cloud(cloud.double() * 1e3 + 7, (4, 4), max_iterations=3)
    assert moved.rms == pytest.approx(1e3 * fit.rms, rel=1e-3)


LINE = torch.linspace(0, 1, 50)[:, None] * torch.tensor([1.0, 2.0, 3.0])
SURFACE = gd.NURBSSurface(torch.rand(4, 4, 3))


@pytest.mark.parametrize(
    ("points", "options", "message"),
    [
        (torch.rand(4, 5, 3), {}, r"`points` must be of shape \(N, D\)"),
        (torch.rand(40, 1), {}, r"`points` must be of 2 coordinates or more"),
        (torch.rand(3, 3), {}, r"`points` must be at least 4 points; got 3"),
        (torch.ones(30, 3), {}, r"`points` must be spread, on a finite scale"),
        (LINE, {}, r"`points` must be spread over a surface; got points on a line\. Pass a count"),
        (torch.full((9, 3), torch.nan), {}, r"`points` must be finite"),
        (torch.rand(40, 3), {"order": "nearest"}, r"`order` must be one of principal, neighbours"),
        (torch.rand(40, 3), {"smoothing": 0}, r"`smoothing` must be positive; got 0"),
        (torch.rand(40, 3), {"smoothing": -1.0}, r"`smoothing` must be 0 or more"),
        (torch.rand(40, 3), {"degree": 1}, r"`smoothing` must be 0 below degree 2"),
        (torch.rand(40, 3), {"chamfer": -1.0}, r"`chamfer` must be 0 or more, and finite; got -1"),
        (torch.rand(40, 3), {"control_shape": (3, 8)}, r"`control_shape` must be at least 4 along each axis"),
        (torch.rand(40, 3), {"max_iterations": 0}, r"`max_iterations` must be an integer ≥ 1"),
        (torch.rand(40, 3), {"tolerance": 0.0}, r"`tolerance` must be positive"),
        (
            torch.rand(40, 3),
            {"control_shape": (5, 5), "initial": SURFACE},
            r"`control_shape` must be left out, or \(4,",
        ),
        (torch.rand(40, 2), {"initial": SURFACE}, r"`initial.control_points` must be of shape \(4, 4, 2\)"),
        (torch.rand(40, 3), {"initial": SURFACE.replace(weights=torch.ones(4, 4))}, r"`initial` must be polynomial"),
    ],
)
def test_errors(points: torch.Tensor, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match="fit_cloud: " + message):
        fit_cloud(points, **options)


def test_wrong_classes() -> None:
    with pytest.raises(TypeError, match=r"fit_cloud: `initial` must be a NURBSCurve or NURBSSurface"):
        fit_cloud(torch.rand(40, 3), initial=torch.rand(4, 4, 3))  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"fit_cloud: `control_shape` must be a pair of int"):
        fit_cloud(torch.rand(40, 3), (4, 4, 4))  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"fit_cloud: `chamfer` must be a number"):
        fit_cloud(torch.rand(40, 3), chamfer="both")  # type: ignore[arg-type]
