# SPDX-License-Identifier: Apache-2.0
"""Confidence as the probability that it says it is: on kinds of surfaces that it was not calibrated on."""

import math

import numpy as np
import pytest
import torch

from geodiff.atlas.atlas import Atlas
from geodiff.atlas.confidence import WITHIN, confidence, evidence
from geodiff.atlas.fit import fit_charts
from tests.atlas.clouds import plane, sheets, sphere


def fitted(points: torch.Tensor) -> tuple[Atlas, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return the atlas of a cloud, samples, their confidence and tolerance."""
    atlas = Atlas.from_fit(fit_charts(points))
    drawn = atlas.sample(4000)
    near = torch.cdist(drawn.points.float(), atlas.points.float()).argmin(1)
    return atlas, drawn.points, drawn.confidence, atlas.tolerance[near]


def capsule(count: int) -> torch.Tensor:
    """The points that are 0.3 from the line from z = 0 to z = 1."""
    ball = torch.nn.functional.normalize(torch.randn(count, 3), dim=1) * 0.3
    side = torch.rand(count) < 1 / 1.6
    around = torch.nn.functional.normalize(ball[:, :2], dim=1) * 0.3
    lid = ball + (ball[:, 2:] > 0) * torch.tensor([0.0, 0, 1])
    return torch.where(side[:, None], torch.cat((around, torch.rand(count, 1)), 1), lid)


def from_capsule(x: torch.Tensor) -> torch.Tensor:
    along = torch.cat((torch.zeros(len(x), 2), x[:, 2:].clamp(0, 1)), 1)
    return ((x - along).norm(dim=1) - 0.3).abs()


def steps(count: int) -> torch.Tensor:
    """Four steps of a flight of stairs, 1 wide, deep and high: eight rectangles of one size."""
    t, across, which = torch.rand(count) / 4, torch.rand(count), torch.randint(8, (count,))
    tread, step = which % 2 == 0, torch.div(which, 2, rounding_mode="floor") / 4
    return torch.stack((across, torch.where(tread, step + t, step), torch.where(tread, step + 0.25, step + t)), 1)


def from_steps(x: torch.Tensor) -> torch.Tensor:
    least = torch.full((len(x),), math.inf)
    for step in torch.arange(4) / 4:
        for size in ((1, 0.25, 0), (1, 0, 0.25)):
            low = torch.tensor([0, step, step + (0.25 if size[1] else 0)])
            high = low + torch.tensor(size)
            least = torch.minimum(least, (x - x.clamp(low, high)).norm(dim=1))
    return least


def from_sheets(x: torch.Tensor, gap: float) -> torch.Tensor:
    return torch.minimum(x[:, 2].abs(), (x[:, 2] - gap).abs())


def test_it_is_a_probability() -> None:
    said, true = [], []
    for points, distance in (
        (capsule(2000), from_capsule),
        (steps(1200), from_steps),  # coarse: its edges are what is not sure
        (steps(2500) + 0.003 * torch.randn(2500, 3), from_steps),
    ):
        _, drawn, sure, tolerance = fitted(points)
        said.append(sure.double())
        true.append((distance(drawn.float()) <= tolerance).double())
    sure, within = torch.cat(said), torch.cat(true)
    assert float(sure.mean()) == pytest.approx(float(within.mean()), abs=0.03)
    for low, high, error in ((0.2, 0.8, 0.1), (0.8, 0.95, 0.1), (0.95, 1, 0.02)):  # single scans differ that much
        some = (sure > low) & (sure <= high)
        assert some.sum() > 200, low
        assert float(within[some].mean()) == pytest.approx(float(sure[some].mean()), abs=error), low


def test_scans_without_noise_are_sure() -> None:
    cube = torch.rand(2000, 3)
    cube[torch.arange(2000), torch.randint(3, (2000,))] = torch.randint(2, (2000,)).float()
    for points, least in ((plane(1500), 0.98), (sphere(2000), 0.95), (cube, 0.8)):
        atlas, _, sure, tolerance = fitted(points)
        assert float(sure.mean()) > least
        spacing = math.sqrt(atlas.domain.surface_area / len(points))
        assert 0.05 * spacing < float(tolerance.median()) < 0.2 * spacing


@pytest.mark.parametrize("noise", [0.0, 0.001])
def test_two_sheets_merged_into_one_are_not_sure(noise: float) -> None:
    points = sheets(500, 0.02) + noise * torch.randn(1000, 3)  # half a spacing apart
    _, drawn, sure, tolerance = fitted(points)
    distance = from_sheets(drawn.float(), 0.02)
    between = distance > 0.005
    assert between.float().mean() > 0.5
    assert float(sure[between].mean()) < 0.25
    assert float(sure.mean()) == pytest.approx(float((distance <= tolerance).float().mean()), abs=0.15)


def heights(height: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Points above the unit square at z = 0, where the surface has them, and its normals."""
    flat = plane(len(height))
    return flat + torch.stack((0 * height, 0 * height, height), 1), flat, torch.eye(3)[2].expand(len(height), 3)


def test_two_sheets_are_told_from_noise() -> None:
    def found(height: torch.Tensor, sigma: float) -> tuple[float, float]:
        x, flat, normals = (value.double().numpy() for value in heights(height))
        seen = evidence(x, flat, normals, np.full(len(x), sigma))
        return float(np.median(seen.sigma)), float((seen.terms[:, -1] != 0).mean())

    side = torch.randint(2, (4000,)) * 2 - 1
    for apart in (4, 8):  # σ
        noise, share = found(0.01 * (side * apart / 2 + torch.randn(4000)), 1.0)
        assert noise == pytest.approx(0.01, rel=0.1) and share > 0.8
    noise, share = found(0.01 * torch.randn(4000), 0.01)
    assert noise == pytest.approx(0.01, rel=0.01) and share < 0.02
    _, share = found(0.01 * (torch.rand(4000) - 0.5), 0.01)  # evenly spread, which two sheets 3 σ apart look like
    assert share < 0.35


def room(lines: int, count: int) -> torch.Tensor:
    """A room that is 1 × 0.8 × 0.6 wide, as a scanner in it that turns about z sees it."""
    polar = ((torch.arange(lines) + 0.5) * math.pi / lines).repeat_interleave(count)
    angle = (torch.arange(count) * 2 * math.pi / count).repeat(lines) + torch.rand(lines).repeat_interleave(count)
    ray = torch.stack((polar.sin() * angle.cos(), polar.sin() * angle.sin(), polar.cos()), 1).double()
    start, half = torch.tensor([0.02, -0.03, 0.01]), torch.tensor([0.5, 0.4, 0.3])
    return start + ((ray.sign() * half - start) / ray).amin(1, keepdim=True) * ray


def test_edges_between_lines_are_not_sure() -> None:
    """Along a line the surface seems straight where it bends from one to the next: 0.86 were right of 0.99."""
    points = room(16, 120)
    _, drawn, sure, tolerance = fitted(points)
    half = torch.tensor([0.5, 0.4, 0.3])
    over = drawn.abs() - half
    outside = over.clamp(min=0).norm(dim=1)
    right = (torch.where(outside > 0, outside, -over.amax(1)) <= tolerance).double()
    assert (sure > 0.95).sum() > 1000
    assert float(right[sure > 0.95].mean()) > 0.92
    assert float(sure.mean()) == pytest.approx(float(right.mean()), abs=0.07)


def test_points_far_off_and_in_no_chart() -> None:
    points, flat, normals = heights(0.01 * torch.randn(2000))
    noise = torch.full((2000,), 0.01)
    covered = torch.ones(2000, dtype=torch.bool)
    covered[5] = False
    points[:3, 2] = torch.tensor([0.01, 0.05, 0.5])
    found = confidence(points, flat, normals, covered, noise)
    near, far, farther = found.probability[:3].tolist()
    # A point far off among good ones says little of the surface; one that is fifty σ off, that something is wrong.
    assert near > 0.97 > far + 0.02 and far > 0.8 > 0.2 > farther
    assert found.probability[5] == found.tolerance[5] == 0
    assert float(found.tolerance.median()) == pytest.approx(WITHIN * 0.01, rel=0.1)
    again = confidence(1e3 * points + 1e4, 1e3 * flat + 1e4, -normals, covered, 1e3 * noise)
    torch.testing.assert_close(again.probability, found.probability, atol=1e-2, rtol=0)  # of float32 so far out
    none = confidence(points, flat, normals, torch.zeros(2000, dtype=torch.bool), noise)
    assert not none.probability.any()
    one = confidence(points[:1], flat[:1], normals[:1], covered[:1], noise[:1])
    assert torch.isfinite(one.probability).all() and "Confidence" in repr(one)
