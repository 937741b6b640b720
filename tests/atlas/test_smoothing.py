# SPDX-License-Identifier: Apache-2.0
import math

import pytest
import torch

from geodiff.atlas import smoothing
from geodiff.atlas.smoothing import NEIGHBOURS, TURN, along_normals
from geodiff.native import cpu


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


def written_out(points: torch.Tensor, normals: torch.Tensor, sigma: float) -> torch.Tensor:
    """One round by the formula, with all distances."""
    apart = (points[:, None] - points).norm(dim=2)
    k = min(NEIGHBOURS, len(points) - 1)
    distance, near = apart.sort(1)
    near, reach = near[:, 1 : k + 1], distance[:, k]
    step, own = points[near] - points[:, None], normals[:, None]
    other = normals[near]
    other = torch.where((own * other).sum(2, keepdim=True) < 0, -other, other)
    height = (step * (own + other)).sum(2) / 2
    bend = (own - other).square().sum(2) / (2 * TURN**2)
    weight = torch.exp(-2 * (step.norm(dim=2) / reach[:, None]).square() - bend - (height / sigma).square())
    return points + ((weight * height).sum(1) / (1 + weight.sum(1)))[:, None] * normals


@pytest.mark.parametrize("count", [4, 7, 40, 700])
@pytest.mark.parametrize("level", cpu.extension().simd_levels())
def test_the_kernel_does_what_is_written(count: int, level: str, monkeypatch: pytest.MonkeyPatch) -> None:
    axis, rough = ball(count, 0.01)
    axis[::3] *= -1
    axis[1] = 0  # of a point in no chart: it stays, and counts for the others
    monkeypatch.setattr(smoothing, "ROUNDS", 1)
    monkeypatch.setattr(smoothing, "_BLOCK", 300)
    best = cpu.simd_level()
    try:
        cpu.extension().set_simd_level(level)
        found = along_normals(rough, axis, torch.full((count,), 2.0**-7))
    finally:
        cpu.extension().set_simd_level(best)
    assert torch.allclose(found, written_out(rough, axis, 2.0**-7), rtol=0, atol=1e-13)
    assert torch.equal(found[1], rough[1])
    assert count < 700 or (found - rough).norm(dim=1).max() > 1e-3  # neighbours have a say


def test_the_order_of_the_points_and_the_number_of_threads_do_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    axis, rough = ball(1500, 0.01)
    sigma = torch.linspace(0.005, 0.02, 1500)
    there = along_normals(rough, axis, sigma)
    order = torch.randperm(1500, generator=torch.Generator().manual_seed(1))
    assert torch.equal(along_normals(rough[order], axis[order], sigma[order]), there[order])
    monkeypatch.setattr(cpu, "threads", lambda: 3)
    assert torch.equal(along_normals(rough, axis, sigma), there)
