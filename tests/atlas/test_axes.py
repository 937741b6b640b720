# SPDX-License-Identifier: Apache-2.0
"""The axes of neighbourhoods, beside LAPACK."""

import numpy as np
import pytest

from geodiff.atlas.axes import neighbour_axes


def members(seed: int, flat: float, unit: float) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    turn = np.linalg.qr(random.standard_normal((3, 3)))[0]
    places = unit * (random.standard_normal((300, 3)) * [1.0, 0.5, flat] @ turn + 3)
    return places, random.integers(0, 300, (200, 24))


def peer(around: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    value, vector = np.linalg.eigh(np.cov(around.T, bias=True))
    return value.clip(0), vector[:, 0]


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("flat", [0.0, 1e-3, 0.4])
@pytest.mark.parametrize("unit", [1e-12, 1.0, 1e12])
def test_variances_and_axes_are_those_of_lapack(seed: int, flat: float, unit: float) -> None:
    places, near = members(seed, flat, unit)
    for own in (False, True):
        spread, axis = neighbour_axes(places, near, own=own)
        for i in range(len(near)):
            value, vector = peer(places[[i, *near[i]] if own else near[i]])
            assert np.abs(spread[i] - value).max() <= 1e-13 * value[2]
            assert abs(axis[i] @ vector) > 1 - 1e-12 and abs(axis[i] @ axis[i] - 1) < 1e-13


@pytest.mark.parametrize("seed", range(8))
def test_the_flattest_size_counts(seed: int) -> None:
    places, near = members(seed, 0.1, 1.0)
    sizes, factors, terms = (6, 12, 24), (1.5, 1.2, 1.0), (0.0, 1e-3, 2e-3)
    axis = neighbour_axes(places, near, sizes=sizes, factors=factors, terms=terms, own=True)[1]
    for i in range(len(near)):
        found = [peer(places[[i, *near[i, :size]]]) for size in sizes]
        ratio = [v[0] / v[1] * f + t for (v, _), f, t in zip(found, factors, terms, strict=True)]
        assert abs(axis[i] @ found[int(np.argmin(ratio))][1]) > 1 - 1e-12


@pytest.mark.parametrize("seed", range(8))
def test_the_farthest_from_the_plane_are_left_out(seed: int) -> None:
    places, near = members(seed, 0.1, 1.0)
    spread, axis = neighbour_axes(places, near[:, :16], own=True, keep=12)
    for i in range(len(near)):
        around = places[[i, *near[i, :16]]]
        off = np.abs((around - around.mean(0)) @ peer(around)[1])
        value, vector = peer(around[np.argsort(off, kind="stable")[:12]])
        assert np.abs(spread[i] - value).max() <= 1e-12 * value[2] and abs(axis[i] @ vector) > 1 - 1e-10
