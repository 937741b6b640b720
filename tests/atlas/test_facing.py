# SPDX-License-Identifier: Apache-2.0
import dataclasses

import pytest
import torch

import geodiff as gd
from geodiff.atlas import facing
from geodiff.atlas.cloud import read_cloud
from geodiff.atlas.fit import fit_charts
from geodiff.atlas.proximity import sample_mesh


def noisy_box(count: int, noise: float) -> tuple[torch.Tensor, torch.Tensor]:
    drawn = sample_mesh(gd.box((1.0, 0.8, 0.6), dtype=torch.float64), count, 0)
    return drawn.points + noise * torch.randn(count, 3, generator=torch.Generator().manual_seed(0)), drawn.normals


@pytest.mark.parametrize("most", [20_000, 500])
def test_normals_face_the_outside(monkeypatch: pytest.MonkeyPatch, most: int) -> None:
    monkeypatch.setattr(facing, "_MOST", most)
    points, outward = noisy_box(1500, 0.04)
    cloud = read_cloud(points)
    found = facing.in_noise(cloud, 0.04)
    assert found.given and not cloud.given
    torch.testing.assert_close(found.normals.norm(dim=1), torch.ones(1500, dtype=torch.float64))
    right = (found.normals * outward).sum(1)[~cloud.outlier] > 0
    assert right.double().mean() > 0.97  # some are beyond an edge by chance
    again = facing.in_noise(cloud, 0.04)
    assert torch.equal(again.normals, found.normals)


def test_few_points_stay_as_they_are() -> None:
    cloud = read_cloud(noisy_box(63, 0.01)[0])
    assert facing.in_noise(cloud, 0.01) is cloud


def test_sides_are_sought_in_thick_noise_only() -> None:
    options = {"steps": 1, "rounds": 0}
    assert not fit_charts(noisy_box(1500, 0.002)[0], **options).cover.sided
    points, outward = noisy_box(1500, 0.05)
    thick = fit_charts(points, **options)
    assert thick.cover.sided
    given = fit_charts(points, normals=outward, **options)
    assert given.cover.sided and torch.allclose(given.cover.normals, outward, atol=1e-12)
    # What an atlas is made of, if nothing else is given:
    plain = gd.Atlas.from_fit(thick)
    other = gd.Atlas.from_fit(
        dataclasses.replace(thick, cover=dataclasses.replace(thick.cover, normals=-thick.cover.normals))
    )
    assert torch.equal(plain.sign, -other.sign)
