# SPDX-License-Identifier: Apache-2.0
"""Rectangles in a square: inside, apart, and tight."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from geodiff.atlas.packing import pack_rectangles

TOUCH = 1e-9  # rounding of places in the unit square


@given(st.lists(st.tuples(st.floats(0.05, 5), st.floats(0.05, 5)), min_size=1, max_size=40), st.floats(0, 0.004))
def test_apart_and_inside(sizes: list[tuple[float, float]], gap: float) -> None:
    given = torch.tensor(sizes, dtype=torch.float64)
    packing = pack_rectangles(given, gap=gap)
    size = packing.scale * torch.where(packing.turned[:, None], given.flip(1), given)
    low, high = packing.corner, packing.corner + size
    assert (low >= gap - TOUCH).all() and (high <= 1 - gap + TOUCH).all()
    apart = (low[:, None] >= high[None] + gap - TOUCH).any(-1) | (low[None] >= high[:, None] + gap - TOUCH).any(-1)
    apart.fill_diagonal_(True)
    assert apart.all()
    assert packing.filled == pytest.approx(float(size.prod(1).sum()), rel=1e-9)


def test_tight() -> None:
    assert pack_rectangles(torch.ones(9, 2, dtype=torch.float64), gap=0.0).filled == pytest.approx(1.0, abs=1e-6)
    assert pack_rectangles(0.5 + torch.rand(500, 2, dtype=torch.float64), gap=0.0).filled > 0.85
    assert pack_rectangles(torch.ones(1, 2), gap=0.0).corner.tolist() == [[0, 0]]


def test_bad_input() -> None:
    with pytest.raises(ValueError, match="`sizes` must be positive"):
        pack_rectangles(torch.tensor([[1.0, 0.0]]))
    with pytest.raises(ValueError, match="`sizes` must be positive, one rectangle or more"):
        pack_rectangles(torch.zeros(0, 2))
    with pytest.raises(ValueError, match="`gap` must be at least 0"):
        pack_rectangles(torch.ones(2, 2), gap=-1.0)
    with pytest.raises(ValueError, match="`gap` must be small beside"):
        pack_rectangles(torch.ones(5000, 2), gap=0.04)
