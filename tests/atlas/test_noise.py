# SPDX-License-Identifier: Apache-2.0
"""The noise of known surfaces, at any density, scale and order of the points."""

from collections.abc import Callable

import numpy as np
import pytest
import torch

from geodiff.atlas.cloud import read_cloud
from geodiff.atlas.noise import estimate_noise, without_edges
from tests.atlas.clouds import plane, sheets, sphere, torus

# σ of one draw of some hundred neighbourhoods, and what is left of curvature in them.
ERROR = 0.06
EDGES = 0.13  # the same where half of all neighbourhoods are over an edge
QUIET = 0.2  # what a low quantile is below the middle
SHARP = 0.13  # and where σ is a twentieth of a side, so that nearly all are


def cube(count: int) -> torch.Tensor:
    """The surface of the unit cube."""
    points = torch.rand(count, 3)
    points[torch.arange(count), torch.randint(3, (count,))] = torch.randint(2, (count,)).float()
    return points


def noisy(points: torch.Tensor, relative: float) -> tuple[torch.Tensor, float]:
    """Points with noise in all directions, relative to the diagonal, and its σ."""
    sigma = relative * float((points.amax(0) - points.amin(0)).norm())
    return points + sigma * torch.randn(points.shape), sigma


@pytest.mark.parametrize("make", [plane, sphere])
@pytest.mark.parametrize("relative", [0.001, 0.01, 0.03])
@pytest.mark.parametrize("count", [3000, 10_000])
def test_noise_is_found_at_any_density(make: Callable[..., torch.Tensor], relative: float, count: int) -> None:
    points, sigma = noisy(make(count), relative)
    assert estimate_noise(points).sigma == pytest.approx(sigma, rel=ERROR)


@pytest.mark.slow
@pytest.mark.parametrize("make", [plane, sphere, torus])
@pytest.mark.parametrize("relative", [0.003, 0.02])
def test_more_points_do_not_change_it(make: Callable[..., torch.Tensor], relative: float) -> None:
    points, _ = noisy(make(100_000), relative)  # 300 000: tests/benchmarks/atlas_noise.py
    found = [estimate_noise(points[:count]).sigma for count in (3000, 17_000, 100_000)]
    assert max(found) / min(found) < 1 + ERROR


@pytest.mark.parametrize("relative", [0.003, 0.03])
def test_edges_are_not_taken_for_noise(relative: float) -> None:
    for count in (3000, 10_000):
        points, sigma = noisy(cube(count), relative)
        assert estimate_noise(points).sigma == pytest.approx(sigma, rel=SHARP if relative > 0.01 else EDGES)


def test_no_noise_is_next_to_none() -> None:
    assert estimate_noise(plane(3000)).sigma < 1e-7
    for make in (sphere, torus, cube):  # what quadrics leave of 16 points
        points = make(3000).double()
        assert estimate_noise(points).sigma < 2e-4 * float((points.amax(0) - points.amin(0)).norm())


def test_a_near_sheet_is_no_noise() -> None:
    for gap in (0.03, 0.06):  # one spacing and two; 16 points reach two
        assert estimate_noise(sheets(1500, gap)).sigma < 0.02 * gap
    points = sheets(1500, 0.06) + 0.001 * torch.randn(3000, 3)
    assert estimate_noise(points).sigma == pytest.approx(0.001, rel=EDGES)


@pytest.mark.parametrize("apart", [4, 6])
def test_two_sheets_that_hide_in_the_noise(apart: int) -> None:
    points = sheets(2000, 0.02) + 0.02 / apart * torch.randn(4000, 3)  # less than a spacing apart
    assert estimate_noise(points).sigma == pytest.approx(0.02 / apart, rel=EDGES)
    even = plane(4000)  # noise as flat as that of two sheets 3 σ apart, but of one
    even[:, 2] = 0.02 * torch.rand(4000)
    assert estimate_noise(even).sigma == pytest.approx(0.02 / 12**0.5, rel=EDGES)


@pytest.mark.parametrize("apart", [4.5, 6])
def test_two_sheets_hide_no_better_where_points_are_many(apart: float) -> None:
    points = sheets(50_000, 0.02) + 0.02 / apart * torch.randn(100_000, 3)
    assert estimate_noise(points).sigma == pytest.approx(0.02 / apart, rel=ERROR)


def test_noise_may_differ_from_place_to_place() -> None:
    points = plane(10_000)
    sigma = torch.where(points[:, 0] < 0.5, 0.002, 0.02)
    points[:, 2] = sigma * torch.randn(len(points))
    local = estimate_noise(points).local
    for side in (points[:, 0] < 0.4, points[:, 0] > 0.6):
        ratio = local[side] / sigma[side]
        assert float(ratio.median()) == pytest.approx(1, rel=ERROR)
        assert 0.7 < float(ratio.quantile(0.02)) and float(ratio.quantile(0.98)) < 1.4


@pytest.mark.parametrize("share", [0.01, 0.2])
def test_outliers_are_no_noise(share: float) -> None:
    points, sigma = noisy(sphere(4000), 0.005)
    stray = 4 * torch.rand(int(share * len(points)), 3) - 2
    found = read_cloud(torch.cat([points, stray])).noise
    assert found.sigma == pytest.approx(sigma, rel=ERROR + 0.3 * share)  # strays within 3 σ of the surface


def test_unit_and_order_do_not_matter() -> None:
    points, _ = noisy(sphere(3000).double(), 0.01)
    found = estimate_noise(points)
    for scale in (1e-3, 1e3):
        again = estimate_noise(scale * points)
        torch.testing.assert_close(again.local / scale, found.local, rtol=1e-6, atol=0)
    moved = estimate_noise(points + 1e4)
    assert moved.sigma == pytest.approx(found.sigma, rel=1e-6)
    order = torch.randperm(len(points))
    again = estimate_noise(points[order] / 3)  # of which no sum is exact
    found = estimate_noise(points / 3)
    assert torch.equal(again.local, found.local[order]) and again.sigma == found.sigma
    other = estimate_noise(points, seed=1)
    assert 3 * found.sigma == pytest.approx(other.sigma, rel=ERROR)


def test_few_points() -> None:
    for count in (5, 16, 17, 60):
        found = estimate_noise(plane(count))
        assert found.sigma == pytest.approx(0, abs=1e-6) and found.local.shape == (count,)
    assert np.isfinite(estimate_noise(torch.rand(40, 3)).sigma)  # no surface at all


@pytest.mark.parametrize("seed", range(3))
def test_noise_that_differs_from_place_to_place_is_no_edge(seed: int) -> None:
    """From one side of a sphere to the other it grows fivefold; points are sparse for it."""
    torch.manual_seed(seed)
    points = sphere(4000)
    sigma = 0.0035 * 5 ** ((points[:, :1] + 1) / 2)
    points = points + sigma * torch.randn(points.shape)
    found = estimate_noise(points)
    share = without_edges(points, found) / sigma[:, 0]
    for side in (sigma[:, 0] < 0.005, sigma[:, 0] > 0.012):
        assert float(share[side].median()) == pytest.approx(1, abs=QUIET)


def test_edges_are_no_noise() -> None:
    points, sigma = noisy(cube(4000), 0.001)
    found = estimate_noise(points)
    assert int(found.thinning.max()) == 1 and float(found.local.max()) > 2 * sigma
    assert float(without_edges(points, found).quantile(0.99)) < (1 + EDGES) * sigma
