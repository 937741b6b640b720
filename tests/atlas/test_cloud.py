# SPDX-License-Identifier: Apache-2.0
"""Clouds: what is refused, what is dropped and said, and normals in noise."""

import numpy as np
import pytest
import torch

from geodiff.atlas.cloud import read_cloud
from tests.atlas.clouds import from_torus, plane, sphere, torus


def test_duplicates_are_dropped_and_counted() -> None:
    points = sphere(300)
    doubled = torch.cat([points, points[7:8], points[:50]])
    cloud = read_cloud(doubled)
    assert cloud.duplicates == 51 and cloud.notes[0] == "51 of 351 points repeat another and were dropped."
    assert torch.equal(cloud.points, points[:300]) and torch.equal(cloud.index, torch.arange(300))
    zeros = plane(50)
    zeros[0], zeros[1] = torch.tensor([0.0, 0.5, 0.0]), torch.tensor([-0.0, 0.5, -0.0])
    assert read_cloud(zeros).duplicates == 1  # −0 is 0


@pytest.mark.slow
def test_a_million_points_are_thinned_and_said() -> None:
    points = torch.rand(1_000_000, 3)
    points[:, 2] = 0
    cloud = read_cloud(points, most=2000)
    assert len(cloud.points) == 2000 and torch.equal(points[cloud.index], cloud.points)
    assert cloud.notes[-1].endswith("points 2000 were drawn; without max_points all are kept.")
    again, other = read_cloud(points, most=2000), read_cloud(points, most=2000, seed=1)
    assert torch.equal(again.index, cloud.index) and not torch.equal(other.index, cloud.index)
    quarters = np.histogram2d(*cloud.points[:, :2].T.numpy(), bins=2, range=[[0, 1], [0, 1]])[0]
    assert quarters.min() > 400  # from everywhere: 500 ± 19


def test_neighbours_are_nearest() -> None:
    points = sphere(200)
    cloud = read_cloud(points)
    far = torch.cdist(points.double(), points.double()) + torch.eye(200) * 9
    assert torch.equal(cloud.neighbours, far.topk(12, largest=False)[1])


def test_normals_are_estimated_or_kept() -> None:
    points = sphere(2000)
    outward = torch.nn.functional.normalize(points, dim=1)
    own = read_cloud(points).normals
    assert float((own * outward).sum(1).abs().min()) > 0.95  # 9 to 65 neighbours, within 0.4 rad
    given = read_cloud(points, 3 * outward)
    assert given.given and torch.allclose(given.normals, outward)


@pytest.mark.parametrize("count", [3000, 10_000])
def test_normals_do_not_drown_in_noise(count: int) -> None:
    points = sphere(count)
    noisy = points + 0.05 * torch.randn(count, 3)  # 2 spacings of the larger cloud
    own = read_cloud(noisy).normals
    # Planes through 48 points within some 5 σ: σ/(5/2 σ √48), less than 0.1 rad, and the curvature.
    assert float((own * points).sum(1).abs().quantile(0.05)) > 0.95


def test_zero_normals_are_estimated_and_said() -> None:
    points = sphere(500)
    normals = points.clone()
    normals[:20] = 0
    cloud = read_cloud(points, normals)
    assert cloud.given and "20 of 500 normals have length zero: they were estimated." in cloud.notes
    assert torch.allclose(cloud.normals.norm(dim=1), torch.ones(500), atol=1e-5)
    none = read_cloud(points, torch.zeros(500, 3))
    assert not none.given and "All normals have length zero: they were estimated." in none.notes


def test_isolated_points_are_marked() -> None:
    surface = torus(4000)
    stray = torch.rand(200, 3) * torch.tensor([3.0, 3.0, 1.2]) - torch.tensor([1.5, 1.5, 0.6])
    far = from_torus(stray) > 0.2  # four spacings
    cloud = read_cloud(torch.cat([surface, stray]))
    assert int(cloud.outlier[:4000].sum()) <= 4
    assert float(cloud.outlier[4000:][far].float().mean()) > 0.75
    assert any("points are isolated: no chart is fitted to them." in note for note in cloud.notes)


def test_uneven_density_is_no_outlier() -> None:
    u = torch.rand(4000, 1) ** 3  # 30 times denser at one end
    cloud = read_cloud(torch.cat([u, torch.rand(4000, 1) * 0.3, 0.1 * u.square()], 1))
    assert int(cloud.outlier.sum()) <= 8


def test_plane_is_a_surface_and_a_line_is_not() -> None:
    assert not read_cloud(plane(100)).outlier.any()
    line = torch.rand(100, 1) * torch.tensor([[1.0, 2.0, 3.0]])
    with pytest.raises(ValueError, match="`points` must be points of a surface; got points on a line"):
        read_cloud(line)
    ball = torch.nn.functional.normalize(torch.randn(50, 3, dtype=torch.float64), dim=1)
    for unit in (1e-200, 1e-25, 1e25, 1e200):
        with pytest.raises(ValueError, match=r"`points` must be of an extent from 1e-19 to 1e\+19; got .*another unit"):
            read_cloud(ball * unit)


def test_bad_clouds() -> None:
    points = sphere(100)
    with pytest.raises(ValueError, match=r"`points` must be at least 16 distinct points; got 15\. Give more"):
        read_cloud(points[:15])
    with pytest.raises(ValueError, match=r"at least 16 distinct points; got 1 distinct of 100"):
        read_cloud(points[:1].expand(100, 3))
    with pytest.raises(ValueError, match=r"`points` must be of shape \(N, 3\).*One row a point"):
        read_cloud(points[:, :2])
    for bad in (float("nan"), float("inf")):
        broken = points.clone()
        broken[3, 1] = bad
        with pytest.raises(ValueError, match=rf"`points` must be finite; got {bad} at index \(3, 1\)"):
            read_cloud(broken)
        with pytest.raises(ValueError, match=rf"`normals` must be finite; got {bad} at index \(3, 1\)"):
            read_cloud(points, broken)
    with pytest.raises(ValueError, match=r"`normals` must be of shape \(100, 3\).*or none at all"):
        read_cloud(points, points[:50])
    with pytest.raises(TypeError, match="`points` must be a tensor or an array of numbers"):
        read_cloud("cloud.ply")
    with pytest.raises(ValueError, match="`most` must be at least 16; got 3"):
        read_cloud(points, most=3)
    axis = torch.eye(3, dtype=torch.float64)[torch.arange(20) % 3]
    spiral = 10.0 ** torch.arange(20, dtype=torch.float64)[:, None] * axis
    with pytest.raises(ValueError, match=r"`points` must be at least 16 that lie near others; got \d+ of 20 far"):
        read_cloud(spiral)
