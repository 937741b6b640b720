# SPDX-License-Identifier: Apache-2.0
"""Distances, normals and boundaries against closed forms and brute force."""

import json
import math

import numpy as np
import pytest
import torch

import geodiff as gd
from geodiff.atlas.metrics import surface_metrics
from geodiff.atlas.proximity import closest_on_mesh, sample_mesh

ROUNDING = 1e-9  # of sums and roots of float64 numbers of size 1


def soup(faces: int) -> gd.Mesh:
    """Random triangles of all sizes, needles and degenerate ones among them."""
    size = torch.logspace(-2, 0, faces, dtype=torch.float64)[:, None, None]
    corners = torch.rand(faces, 1, 3, dtype=torch.float64) + size * torch.randn(faces, 3, 3, dtype=torch.float64)
    corners[0] = corners[0, 0]
    corners[1, 2] = (corners[1, 0] + corners[1, 1]) / 2
    corners[2, 2] = corners[2, 0] + 1e-4 * torch.randn(3, dtype=torch.float64)
    return gd.Mesh(corners.reshape(-1, 3), torch.arange(3 * faces).reshape(-1, 3))


def brute_force(points: torch.Tensor, mesh: gd.Mesh) -> torch.Tensor:
    """Least distance over a fine grid of each triangle: an upper bound that is near."""
    t = torch.linspace(0, 1, 41, dtype=torch.float64)
    u, v = torch.meshgrid(t, t, indexing="ij")
    u, v = u[u + v <= 1 + 1e-9], v[u + v <= 1 + 1e-9]
    corners = mesh.vertices[mesh.faces]
    grid = torch.einsum("tk,fkd->ftd", torch.stack((1 - u - v, u, v), 1), corners)
    return torch.cdist(points, grid.reshape(-1, 3)).min(1).values


def test_closest_points_of_a_soup() -> None:
    mesh = soup(60)
    points = 3 * torch.randn(300, 3, dtype=torch.float64)
    found = closest_on_mesh(points, mesh)
    bound = brute_force(points, mesh)
    # The grid's nearest node lies within half a cell of the nearest place: never nearer, never much farther.
    assert (found.distance <= bound + ROUNDING).all()
    sides = (mesh.vertices[mesh.faces] - mesh.vertices[mesh.faces].roll(1, 1)).norm(dim=-1).max()
    assert (bound - found.distance <= sides / 40).all()
    assert torch.allclose((points - found.point).norm(dim=1), found.distance)
    on = closest_on_mesh(found.point, gd.Mesh(mesh.vertices, mesh.faces[found.face]))
    assert on.distance.max() < 1e-9


def test_distance_to_a_box() -> None:
    points = torch.tensor([[0.0, 0, 3], [2, 2, 0], [2, 2, 2], [0.5, 0, 0.25], [0, 0, 0]], dtype=torch.float64)
    box = gd.box(2.0, dtype=torch.float64)
    expected = torch.tensor([2, math.sqrt(2), math.sqrt(3), 0.5, 1.0], dtype=torch.float64)
    assert torch.allclose(closest_on_mesh(points, box).distance, expected, atol=ROUNDING)


def test_open3d_finds_the_same() -> None:
    from geodiff.atlas.watertight import load_open3d

    try:
        load_open3d("this test")
    except ImportError as error:
        pytest.skip(str(error))
    mesh, points = soup(60), 3 * torch.randn(300, 3, dtype=torch.float64)
    quick, exact = closest_on_mesh(points, mesh, rounded=True), closest_on_mesh(points, mesh)
    assert (quick.distance - exact.distance).abs().max() < 1e-6 * 10  # float32 on coordinates up to about 10


def test_samples_are_uniform() -> None:
    mesh = gd.Mesh(torch.tensor([[0.0, 0, 0], [4, 0, 0], [0, 1, 0], [0, 0, 1]]), [[0, 1, 2], [0, 2, 3]])
    drawn = sample_mesh(mesh, 9000)
    assert int((drawn.face == 0).sum()) == pytest.approx(7200, abs=1)  # areas 2 and ½, stratified
    # The mean of 7200 uniform places is the centroid; its standard error is 0.943/√7200.
    assert drawn.points[drawn.face == 0].mean(0)[0] == pytest.approx(4 / 3, abs=5 * 0.943 / math.sqrt(7200))
    assert torch.equal(drawn.points, sample_mesh(mesh, 9000).points)
    assert torch.allclose(drawn.normals, mesh.face_normals[drawn.face])
    corners = mesh.vertices[mesh.faces[drawn.face]]
    assert torch.allclose(drawn.points, (drawn.barycentric[..., None] * corners).sum(1), atol=1e-6)


def test_faces_found_elsewhere_give_the_same_points(monkeypatch: pytest.MonkeyPatch) -> None:
    mesh, points = soup(60), 3 * torch.randn(300, 3, dtype=torch.float64)
    exact = closest_on_mesh(points, mesh)
    monkeypatch.setattr("geodiff.atlas.proximity._by_open3d", lambda x, mesh: exact.face)
    for one, other in zip(closest_on_mesh(points, mesh, rounded=True), exact, strict=True):
        assert torch.allclose(one, other, atol=ROUNDING)


def test_parallel_planes() -> None:
    low = gd.plane(2.0, 4, dtype=torch.float64)
    low = low.with_vertices(low.vertices - low.vertices.mean(0))
    high = low.translated(0.125 * low.face_normals[0])
    report = surface_metrics(high, low, samples=20_000, scale=1.0)
    assert report.accuracy.mean == pytest.approx(0.125, abs=1e-6)
    assert report.accuracy.max == pytest.approx(0.125, abs=1e-6)  # float32 of Open3D where it is installed
    # √(1/64 + r²) with r the distance to the nearest of 5000 places a unit of area: E r² = 1/(π·5000).
    expected = math.sqrt(1 / 64 + 1 / (math.pi * 5000))
    assert report.completeness.rms == pytest.approx(expected, rel=1e-3)
    assert report.normal_consistency == pytest.approx(1.0, abs=1e-6) and report.orientation == 1.0
    turned = surface_metrics(high.flipped(), low, samples=1000, scale=1.0)
    assert turned.normal_consistency == pytest.approx(1.0, abs=1e-6) and turned.orientation == 0.0


def test_spheres() -> None:
    inner, outer = gd.icosphere(4, radius=1.0), gd.icosphere(4, radius=1.05)
    report = surface_metrics(outer, inner, samples=50_000, scale=1.0, thresholds=(0.04, 0.06), curve=(0.0, 0.04, 0.06))
    sagitta = 0.004  # of icosphere(4)'s triangles
    assert report.accuracy.mean == pytest.approx(0.05, abs=sagitta)
    assert report.f_score == {0.04: 0.0, 0.06: 1.0}
    assert report.curve["output"] == [0.0, 0.0, 1.0] and report.curve["threshold"] == [0.0, 0.04, 0.06]
    assert report.normal_consistency is not None and report.normal_consistency > 0.99
    assert surface_metrics(outer, inner, samples=1000).scale == pytest.approx(math.sqrt(12), rel=0.01)
    assert report.boundary is None
    json.dumps(report.as_dict())


def test_quantiles_of_points() -> None:
    truth = torch.zeros(1, 3)
    output = torch.cat((torch.arange(101.0)[:, None], torch.zeros(101, 2)), 1)
    report = surface_metrics(output, truth, scale=1.0)
    assert (report.accuracy.mean, report.accuracy.median, report.accuracy.p95, report.accuracy.max) == (50, 50, 95, 100)
    assert report.completeness.max == 0 and report.normal_consistency is None


def test_boundary_of_a_sheet() -> None:
    sheet = gd.plane(1.0, 8, dtype=torch.float64)
    wide = sheet.scaled(1.2)
    report = surface_metrics(wide, sheet, samples=40_000, scale=1.0, boundary_width=0.02)
    assert report.boundary is not None
    # Beyond the boundary by up to 0.1, less the spacing of the samples; by 0.1·√2 at the corners.
    assert 0.075 < report.boundary["overshoot"] < 0.1
    assert report.boundary["accuracy_max"] == pytest.approx(0.1 * math.sqrt(2), abs=0.01)
    narrow = surface_metrics(sheet.scaled(0.8), sheet, samples=40_000, scale=1.0, boundary_width=0.02)
    assert narrow.boundary is not None
    # The strip is 0.02 wide and 0.1 away: 0.09 on average, more at the corners.
    assert 0.085 < narrow.boundary["completeness"] < 0.105 and narrow.boundary["overshoot"] == 0
    same = surface_metrics(sheet, sheet, samples=40_000, scale=1.0, boundary_width=0.02)
    assert same.boundary is not None and same.boundary["worse"] < 0.005  # the spacing of the samples


def test_bad_input() -> None:
    ball, cloud = gd.icosphere(1), torch.rand(10, 3)
    with pytest.raises(TypeError, match=r"`output` must be a geodiff\.Mesh or a tensor"):
        surface_metrics("mesh.obj", ball)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="`samples` must be positive"):
        surface_metrics(ball, ball, samples=0)
    with pytest.raises(ValueError, match="`boundary_width` must be positive"):
        surface_metrics(ball, ball, boundary_width=0.0)
    with pytest.raises(ValueError, match="`scale` must be positive and finite"):
        surface_metrics(cloud, torch.zeros(2, 3))
    with pytest.raises(ValueError, match="`output_normals` must be None where `output` is a mesh"):
        surface_metrics(ball, ball, output_normals=cloud)
    with pytest.raises(ValueError, match=r"`truth` must be of shape \(N, 3\)"):
        surface_metrics(ball, torch.rand(10, 2))
    with pytest.raises(ValueError, match="`output` must be finite"):
        surface_metrics(cloud * torch.nan, ball)
    with pytest.raises(ValueError, match=r"`points` must be of shape \(N, 3\)"):
        closest_on_mesh(torch.rand(4), ball)
    with pytest.raises(TypeError, match=r"`mesh` must be a geodiff\.Mesh"):
        closest_on_mesh(cloud, cloud)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="`mesh` must be a mesh with faces"):
        closest_on_mesh(cloud, gd.Mesh(cloud, np.zeros((0, 3), dtype=np.int64)))
    with pytest.raises(ValueError, match="`mesh` must be one mesh"):
        closest_on_mesh(cloud, gd.Mesh(ball.vertices[None], ball.faces))
    with pytest.raises(ValueError, match="`count` must be an integer ≥ 1"):
        sample_mesh(ball, 0)
    with pytest.raises(ValueError, match="`mesh` must be of positive area"):
        sample_mesh(gd.Mesh(torch.zeros(3, 3), [[0, 1, 2]]), 10)
