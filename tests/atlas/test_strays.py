# SPDX-License-Identifier: Apache-2.0
import numpy as np
import pytest
import torch

from geodiff.atlas.strays import strays
from tests.atlas.clouds import plane, sheets, sphere


def with_strays(points: np.ndarray, share: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Add points spread over the box, a tenth larger; return which are farther from a unit sphere than 0.1."""
    count = round(share * len(points) / (1 - share))
    low, high = points.min(0), points.max(0)
    added = np.random.default_rng(seed).uniform(low - 0.1 * (high - low), high + 0.1 * (high - low), (count, 3))
    both = np.concatenate([points, added])
    return both, np.r_[np.zeros(len(points), dtype=bool), abs(np.linalg.norm(added, axis=1) - 1) > 0.1]


@pytest.mark.parametrize("share", [0.01, 0.05, 0.2])
@pytest.mark.parametrize("unit", [1.0, 1e4])
def test_points_that_fill_the_box_are_marked(share: float, unit: float) -> None:
    ball = sphere(3000).double().numpy()
    ball = ball + 0.005 * np.random.default_rng(1).standard_normal(ball.shape)
    points, added = with_strays(ball, share)
    found = strays(points * unit)
    assert found[added].mean() > 0.95
    assert found[: len(ball)].mean() < 0.002


@pytest.mark.parametrize("noise", [0.0, 0.002, 0.01, 0.05])
def test_surfaces_are_left_alone(noise: float) -> None:
    clouds = [sphere(2000), plane(1500), sheets(1500, 0.1), sheets(1500, 0.06)]
    for cloud in clouds:
        points = cloud.double()
        points = points + noise * torch.randn(points.shape, generator=torch.Generator().manual_seed(0)).double()
        assert strays(points.numpy()).mean() < 0.004


def test_a_density_of_1_to_20_is_no_reason() -> None:
    random = np.random.default_rng(2)
    ball = sphere(20_000).double().numpy()
    kept = ball[random.random(len(ball)) < np.exp(-np.log(20) * (ball[:, 0] + 1) / 2)]
    assert strays(kept).mean() < 0.001


def test_lone_groups_are_marked() -> None:
    ball = sphere(2000).double().numpy()
    group = np.array([3.0, 0, 0]) + 0.01 * np.random.default_rng(0).standard_normal((5, 3))
    found = strays(np.concatenate([ball, group]))
    assert found[-5:].all() and not found[:-5].any()


def test_few_points() -> None:
    assert strays(np.random.default_rng(0).random((16, 3))).shape == (16,)
