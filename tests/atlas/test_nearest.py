# SPDX-License-Identifier: Apache-2.0
"""Neighbours in another order of asking: the same to the bit."""

import numpy as np
import pytest
from scipy.spatial import cKDTree

from geodiff.atlas import nearest as module
from geodiff.atlas.nearest import along_curve, nearest


@pytest.mark.parametrize("count", [10, module._MANY + 1])
@pytest.mark.parametrize("k", [1, [3], range(1, 5), 4])
def test_it_is_the_trees_own_answer(count: int, k: object) -> None:
    random = np.random.default_rng(0)
    places = 1e3 * random.normal(size=(count, 3)) + [1e6, 0, 0]
    places[1] = places[0]
    tree = cKDTree(places[: count // 2])
    for own, other in zip(nearest(tree, places, k), tree.query(places, k=k), strict=True):  # type: ignore[arg-type]
        assert own.dtype == other.dtype and np.array_equal(own, other)


def test_the_curve_goes_from_place_to_place() -> None:
    places = np.random.default_rng(0).random((50_000, 3))
    order = along_curve(places)
    assert np.array_equal(np.sort(order), np.arange(len(places)))
    steps = np.linalg.norm(np.diff(places[order], axis=0), axis=1)
    assert np.median(steps) < 0.06  # some 50 000^(-1/3); at random it is 0.66
    assert np.array_equal(along_curve(np.zeros((3, 3))), np.arange(3))
