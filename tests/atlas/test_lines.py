# SPDX-License-Identifier: Apache-2.0
"""Clouds in lines, such as spinning scanners make: noticed, bridged from line to line, and told."""

import math
import pathlib
import tracemalloc

import numpy as np
import pytest
import torch

import geodiff as gd
from geodiff.atlas.cloud import read_cloud
from geodiff.atlas.cover import cover
from geodiff.atlas.lines import ScanLines, _widest, neighbours, scan_lines
from tests.atlas.clouds import plane, sheets, sphere, torus

CHAIR = pathlib.Path(__file__).parents[2] / "assets" / "chair.obj"
RINGS = 16
APART = math.pi / RINGS


def rings(count: int, noise: float = 0.0, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Sixteen rings of the unit sphere with `count` points each, from another angle each; and true normals."""
    random = np.random.default_rng(seed)
    polar, angle = np.meshgrid((np.arange(RINGS) + 0.5) * APART, np.arange(count) * 2 * np.pi / count, indexing="ij")
    angle = angle + random.uniform(0, 2 * np.pi, (RINGS, 1))
    x = np.stack([np.sin(polar) * np.cos(angle), np.sin(polar) * np.sin(angle), np.cos(polar)], 2).reshape(-1, 3)
    return torch.from_numpy(x + noise * random.normal(size=x.shape)), torch.from_numpy(x)


def looked_at(points: torch.Tensor) -> ScanLines:
    found = scan_lines(points.double().numpy())
    assert found is not None
    return found


EVEN = {
    "plane": lambda: plane(3000),
    "sphere": lambda: sphere(3000),
    "sphere in noise": lambda: sphere(6000, 0.05),
    "torus": lambda: torus(3000, 0.01),
    "sheets": lambda: sheets(2000, 0.02),
    "rod": lambda: plane(1000) * torch.tensor([1.0, 0.01, 1.0]),
    "ball": lambda: torch.rand(3000, 3),
    "few": lambda: plane(40),
}


@pytest.mark.parametrize("name", EVEN)
def test_what_is_sampled_evenly_is_in_no_lines(name: str) -> None:
    torch.manual_seed(0)
    assert scan_lines(EVEN[name]().double().numpy()) is None


@pytest.mark.parametrize("count", [200, 500, 2000])
@pytest.mark.parametrize("noise", [0.0, 0.017])
def test_distances_of_rings(count: int, noise: float) -> None:
    found = looked_at(rings(count, noise)[0])
    assert APART * 0.85 < np.median(found.gap) < APART * 1.25
    assert (found.gap > 0).mean() > 0.98 and found.alone < 0.01
    x = rings(count, noise)[0].numpy()[found.anchor]
    assert len(x) < 1000
    assert np.abs(np.median(neighbours(x, 4, None)[0]) / APART - 0.8) < 0.3  # as far apart as the rings are


@pytest.mark.parametrize("ratio", [3.5, 4.0, 4.5, 5.0])
def test_lines_little_farther_apart_than_their_points(ratio: float) -> None:
    """The ten nearest points look like a disk there, but patches were single lines."""
    random = np.random.default_rng(0)
    along, count = 110, 3000 // 110
    line, place = np.meshgrid(np.arange(count) * ratio, np.arange(along), indexing="ij")
    x = np.stack([line, place + random.uniform(0, 1, (count, 1)), 0 * line], 2).reshape(-1, 3)
    assert abs(np.median(looked_at(torch.from_numpy(x)).gap) / ratio - 1) < 0.15
    patches = cover(torch.from_numpy(x))
    lines = [len((patches.point[patches.chart == chart] // along).unique()) for chart in range(len(patches))]
    assert np.quantile(lines, 0.1) >= 3


def test_lines_follow_the_points() -> None:
    """Order, unit and place change nothing."""
    x = rings(200, 0.01)[0]
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(1))
    first, second = looked_at(x), looked_at((1000 * x + 1e6)[order])
    np.testing.assert_array_equal(first.anchor[order], second.anchor)
    np.testing.assert_allclose(1000 * first.gap[order], second.gap, rtol=1e-6)


def test_few_wide_gaps_take_no_memory() -> None:
    x = np.random.default_rng(0).random((1500, 3))
    tracemalloc.start()
    _widest(x, np.linspace(1, 2, 1500))
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert most < 16 << 20  # it was 70 MB, and 500 with the 4000 places of large clouds


def test_neighbours_are_anchors() -> None:
    x = rings(200)[0].numpy()
    anchor = looked_at(rings(200)[0]).anchor
    far, near = neighbours(x, 12, anchor)
    assert far.shape == near.shape == (len(x), 12)
    assert anchor[near].all() and (near != np.arange(len(x))[:, None]).all() and (np.diff(far, axis=1) >= 0).all()
    np.testing.assert_allclose(np.linalg.norm(x[near] - x[:, None], axis=2), far, atol=1e-12)


def test_patches_reach_over_to_other_rings() -> None:
    patches = cover(rings(300)[0], target=60)
    ring = patches.point // 300
    for chart in range(len(patches)):
        assert len(ring[patches.chart == chart].unique()) >= 4


def test_it_is_told() -> None:
    cloud = read_cloud(rings(200)[0])
    assert cloud.lines is not None and any("lie in lines, 0.2" in note for note in cloud.notes)
    assert not any("without others beside them" in note for note in cloud.notes)
    alone = torch.zeros(600, 3, dtype=torch.float64)
    alone[:, 0] = torch.linspace(8, 12, 600)
    notes = read_cloud(torch.cat([rings(200)[0], alone])).notes
    assert any("of the points lie on lines without others beside them" in note for note in notes)


@pytest.mark.parametrize("noise", [0.0, 0.01])
def test_rings_become_a_sphere(noise: float) -> None:
    """They became ribbons, of half the area."""
    points, _ = rings(200, noise)
    fit = gd.fit_atlas(points, progress=False, steps=40, rounds=1)
    assert abs(fit.metrics["area"] / (4 * math.pi) - 1) < 0.05
    drawn = fit.atlas.sample(4000)
    assert (drawn.points.norm(dim=1) - 1).abs().mean() < 0.004 + 0.4 * noise
    assert ((drawn.normals * drawn.points).sum(1) > 0).double().mean() > 0.99
    assert any("lie in lines" in note for note in fit.notes)


@pytest.mark.parametrize("given", [False, True])
def test_rings_are_oriented(given: bool) -> None:
    points, normals = rings(400, 0.01)
    sign = 2.0 * torch.randint(2, (len(points), 1), generator=torch.Generator().manual_seed(0)) - 1
    found = gd.atlas.orient(points, sign * normals if given else None)
    assert ((found.normals * normals).sum(1) > 0).double().mean() > 0.99
    if given:
        assert abs(found.turned - 0.5) < 0.05
        torch.testing.assert_close((found.normals * normals).sum(1).abs(), torch.ones(len(points), dtype=torch.float64))


def sliced(mesh: gd.Mesh, count: int, number: int, seed: int) -> torch.Tensor:
    """Points of a mesh on parallel planes only, across its longest axis."""
    low, high = mesh.bounds
    axis = int((high - low).argmax())
    points = mesh.sample(60 * count, generator=torch.Generator().manual_seed(seed)).points.detach()
    place = (points[:, axis] - low[axis]) / (high[axis] - low[axis]) * number
    return points[(place - place.floor() - 0.5).abs() < 0.01][:count].double()


@pytest.mark.parametrize("seed", range(3))
def test_lines_around_what_is_thin_are_not_bridged(seed: int) -> None:
    """Patches over three lines would join the legs of a chair: samples were ten times as far off."""
    points = sliced(gd.Mesh.load(CHAIR), 4000, 40, seed)
    for scale in (1.0, 1e-3):
        cloud = read_cloud(scale * points)
        assert cloud.lines is None
        assert any("the shape is finer than patches that reach over several" in note for note in cloud.notes)
    ball = sliced(gd.icosphere(4), 4000, 40, seed)
    assert read_cloud(ball).lines is not None
