# SPDX-License-Identifier: Apache-2.0
import math

import pytest
import torch

from geodiff.atlas import smoothing
from geodiff.atlas.smoothing import along_normals


def ball(count: int, noise: float) -> tuple[torch.Tensor, torch.Tensor]:
    random = torch.Generator().manual_seed(0)
    axis = torch.nn.functional.normalize(torch.randn(count, 3, generator=random, dtype=torch.float64), dim=1)
    return axis, axis * (1 + noise * torch.randn(count, 1, generator=random, dtype=torch.float64))


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3])
def test_noise_of_a_ball_is_taken_out_and_its_radius_is_kept(scale: float) -> None:
    axis, rough = ball(4000, 0.005)
    smooth = along_normals(scale * rough, axis, torch.full((4000,), 0.005 * scale)) / scale
    before, after = ((x.norm(dim=1) - 1).abs().mean() for x in (rough, smooth))
    assert after < 0.7 * before
    assert abs(float(smooth.norm(dim=1).mean() - rough.norm(dim=1).mean())) < 5e-4


def test_a_ball_without_noise_stays_where_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    axis = ball(4000, 0.0)[0]
    assert torch.equal(along_normals(axis, axis, torch.zeros(4000)), axis)
    sigma = torch.full((4000,), 0.005)  # of which the points have nothing: heights are free of curvature
    moved = along_normals(axis, axis, sigma)
    assert float((moved.norm(dim=1) - 1).abs().mean()) < 0.15 * 0.005  # from round to round normals tilt a little
    monkeypatch.setattr(smoothing, "ROUNDS", 1)
    assert float((along_normals(axis, axis, sigma) - axis).norm(dim=1).max()) < 1e-12


def test_normals_of_either_side_do_the_same() -> None:
    axis, rough = ball(1000, 0.005)
    sign = torch.where(torch.rand(1000, generator=torch.Generator().manual_seed(1)) < 0.5, -1.0, 1.0).double()
    sigma = torch.full((1000,), 0.005)
    there, same = along_normals(rough, axis, sigma), along_normals(rough, sign[:, None] * axis, sigma)
    assert torch.allclose(there, same, atol=1e-12)


def test_edges_and_the_other_side_of_a_wall_are_left_alone() -> None:
    random = torch.Generator().manual_seed(0)
    flat = 2 * torch.rand(6000, 2, generator=random, dtype=torch.float64) - 1
    # A roof of 90 degrees over x, and below it another, a twentieth lower.
    lower = torch.arange(6000) % 2 == 1
    points = torch.stack((flat[:, 0], flat[:, 1], -flat[:, 0].abs() - 0.05 * lower), 1)
    slope = torch.stack((flat[:, 0].sign(), torch.zeros(6000), torch.ones(6000)), 1) / math.sqrt(2)
    slope = torch.where(lower[:, None], -slope, slope)
    noise = 0.004 * torch.randn(6000, 1, generator=random, dtype=torch.float64)
    rough = points + noise * slope
    smooth = along_normals(rough, slope, torch.full((6000,), 0.004))
    off = ((smooth - points) * slope).sum(1)
    assert off.abs().mean() < 0.6 * noise.abs().mean()
    near = flat[:, 0].abs() < 0.03
    assert off[near].abs().mean() < 0.9 * noise[near].abs().mean()
    assert abs(float(off.mean())) < 2e-4


def test_few_points_stay() -> None:
    points = torch.eye(3)
    assert torch.equal(along_normals(points, points, torch.ones(3)), points)
