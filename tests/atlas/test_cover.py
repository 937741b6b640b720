# SPDX-License-Identifier: Apache-2.0
"""Covers: every point well inside a patch, and patches of one sheet."""

import dataclasses
from collections.abc import Callable

import pytest
import torch

from geodiff.atlas.cloud import read_cloud
from geodiff.atlas.cover import Cover, cover
from tests.atlas.clouds import plane, sheets, sphere, torus


def covered(patches: Cover) -> torch.Tensor:
    """How many patches each point is well inside of, counted by distances alone."""
    distance = (patches.points[patches.point] - patches.centers[patches.chart]).norm(dim=1)
    well = distance <= 0.75 * patches.radius[patches.chart] * (1 + 1e-5)
    assert bool((patches.inside <= well).all())
    return torch.bincount(patches.point[patches.inside], minlength=len(patches.points))


@pytest.mark.parametrize("make", [plane, sphere, torus])
@pytest.mark.parametrize("spacing", [0.5, 0.75])
def test_every_point_is_well_inside(make: Callable[..., torch.Tensor], spacing: float) -> None:
    points = make(1500, 0.01)
    patches = cover(points, target=40, spacing=spacing)
    assert bool((covered(patches) > 0)[~patches.outlier].all())
    assert bool((patches.chart[1:] >= patches.chart[:-1]).all())
    # Sorted pairs, each once.
    key = patches.chart * 1500 + patches.point
    assert bool((key[1:] > key[:-1]).all())


def test_members_are_those_of_the_ball() -> None:
    points = plane(800)
    patches = cover(points, radius=0.1)
    assert torch.allclose(patches.radius, patches.radius[:1].expand(len(patches)))
    diagonal = (points.amax(0) - points.amin(0)).norm()
    assert torch.isclose(patches.radius[0], 0.1 * diagonal)
    # One connected sheet: the members of a patch are all points of its ball.
    ball = torch.cdist(patches.centers.double(), points.double()) <= patches.radius[0].double()
    member = torch.zeros_like(ball)
    member[patches.chart, patches.point] = True
    assert int((ball != member).sum()) <= 2  # rounding at the rim
    apart = torch.cdist(patches.centers, patches.centers) + torch.eye(len(patches))
    assert float(apart.min()) > 0.6 * float(patches.radius[0])


def test_patches_hold_the_target() -> None:
    size = torch.bincount(cover(sphere(2000), target=60).chart)
    assert int(size.min()) >= 50 and int(size.max()) <= 62


@pytest.mark.parametrize("gap", [0.06, 0.1])
def test_near_sheets_are_told_apart(gap: float) -> None:
    points = sheets(1500, gap)  # the usual distance of neighbours is 0.013, ...
    patches = cover(points, radius=0.15)
    assert gap < float(patches.radius[0])  # ... and the other sheet is well within the ball
    upper = (patches.point >= 1500).float()
    size = torch.bincount(patches.chart)
    share = torch.zeros(len(patches)).index_add(0, patches.chart, upper) / size
    assert bool(((share == 0) | (share == 1)).all())
    assert bool((covered(patches) > 0).all())


def test_back_of_a_thin_plate_is_left_out() -> None:
    # A plate with a round rim: both sides hang together around it, within most balls near it.
    angle = torch.rand(600) * torch.pi
    top, bottom = plane(3000, height=0.06), plane(3000, height=-0.06)
    rim = torch.stack([1 + 0.06 * torch.sin(angle), torch.rand(600), 0.06 * torch.cos(angle)], 1)
    patches = cover(torch.cat([top, bottom, rim]), radius=0.1)
    sides = torch.stack([patches.point < 3000, (patches.point >= 3000) & (patches.point < 6000)], 1).float()
    inner = patches.centers[:, 0] < 1 - 0.02
    count = torch.zeros(len(patches), 2).index_add(0, patches.chart, sides)
    both = count.amin(1) / count.sum(1).clamp(min=1)
    assert float(both[inner].max()) < 0.05


def test_given_normals_separate_what_touches() -> None:
    points = sheets(1500, 0.012)  # nearer than neighbours in a sheet
    normals = torch.zeros(3000, 3)
    normals[:1500, 2], normals[1500:, 2] = -1, 1
    patches = cover(points, normals=normals, radius=0.1)
    share = torch.zeros(len(patches)).index_add(0, patches.chart, (patches.point >= 1500).float())
    share = share / torch.bincount(patches.chart)
    assert bool(((share == 0) | (share == 1)).all())


def test_components_have_their_own_patches() -> None:
    points = torch.cat([sphere(600), sphere(600) + torch.tensor([2.05, 0.0, 0.0])])
    patches = cover(points, target=50)
    assert bool((covered(patches) > 0).all())


def test_uneven_density_has_patches_of_uneven_size() -> None:
    u = torch.rand(3000, 1) ** 2
    patches = cover(torch.cat([u, torch.rand(3000, 1), torch.zeros(3000, 1)], 1), target=50)
    dense, sparse = patches.centers[:, 0] < 0.1, patches.centers[:, 0] > 0.7
    assert float(patches.radius[sparse].median()) > 1.3 * float(patches.radius[dense].median())


def test_outliers_are_in_no_patch() -> None:
    points = torch.cat([sphere(800), torch.tensor([[4.0, 0.0, 0.0]])])
    patches = cover(points)
    assert patches.outlier.tolist() == [False] * 800 + [True]
    assert 800 not in patches.point


def test_same_seed_same_cover() -> None:
    points = sphere(500)
    a, b, c = cover(points), cover(read_cloud(points)), cover(points, seed=1)
    assert not a.sided
    for field in dataclasses.fields(Cover):
        one, other = getattr(a, field.name), getattr(b, field.name)
        assert torch.equal(one, other) if isinstance(one, torch.Tensor) else one == other
    assert not torch.equal(a.centers[0], c.centers[0])


def test_bad_covers() -> None:
    points = sphere(100)
    with pytest.raises(ValueError, match=r"`radius` must be positive.*relative to the diagonal"):
        cover(points, radius=0.0)
    with pytest.raises(ValueError, match="`target` must be an integer ≥ 8; got 3"):
        cover(points, target=3)
    with pytest.raises(ValueError, match=r"`spacing` must be in \(0, 0.75\]; got 1.0"):
        cover(points, spacing=1.0)
    patches = cover(points, target=20)
    with pytest.raises(ValueError, match=r"`inside` must be true in some patch.*got 100 uncovered"):
        dataclasses.replace(patches, inside=torch.zeros_like(patches.inside))
