# SPDX-License-Identifier: Apache-2.0
"""Numbers that the table does not have are errors, wherever they come in."""

import numpy as np
import pytest

from geodiff import members
from geodiff.native import cpu

# distribution, reversed, squared, scale, shift, shape, log Γ(shape + 1), ψ(shape), T-conorm, p, radius, coverage
MODEL = np.array([6, 0, 0, 0.1, 0, 0, 0, 0, 1, 0, 1e30, 0], dtype=np.float64)


def draw(model: np.ndarray) -> np.ndarray:
    """Draw one triangle around the image's middle with the kernel itself, past all that Python checks."""
    clip = np.array([[-1, -1, 1, 1], [1, -1, 1, 1], [0, 1, 1, 1]], dtype=np.float32)
    faces, layout = np.array([[0, 1, 2]], dtype=np.int32), np.array([[0, 0, 1]], dtype=np.int64)
    alpha, total = np.zeros((1, 2, 2), np.float32), np.zeros((1, 2, 2), np.float32)
    best, pairs = np.zeros(0, np.int32), np.zeros(0, np.int64)
    cpu.extension().silhouette_forward(clip, faces, layout, 2, 2, 0.01, model, alpha, total, best, pairs, 1)
    return alpha


@pytest.mark.parametrize(
    ("at", "numbers", "message"),
    [
        (0, (-1, len(members.DISTRIBUTIONS)), "distribution"),
        (8, (-1, len(members.TCONORMS)), "T-conorm"),
        (11, (-1, 2), "coverage"),
    ],
)
def test_the_kernel_refuses_unknown_numbers(at, numbers, message):
    assert 0.5 < draw(MODEL).max() < 1
    for number in numbers:
        model = MODEL.copy()
        model[at] = number
        with pytest.raises(ValueError, match=message):
            draw(model)


def test_the_table_refuses_unknown_numbers():
    for find, rows in ((members.distribution, members.DISTRIBUTIONS), (members.tconorm, members.TCONORMS)):
        assert [find(row.number) for row in rows] == list(rows)
        for number in (-1, len(rows)):
            with pytest.raises(ValueError, match=f"somewhere: `kernel_id` must be from 0 to {len(rows) - 1}"):
                find(number, "somewhere")


def test_what_the_table_may_say():
    assert {row.kind for row in members.DISTRIBUTIONS} == {"symmetric", "skewed"}
    assert {row.kind for row in members.TCONORMS} == {"sum", "levels", "winner", "mean"}
    assert {row.parameter for row in members.DISTRIBUTIONS} == {"none", "shape"}
    assert {row.parameter for row in members.TCONORMS} == {"none", "p"}
