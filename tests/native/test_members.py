# SPDX-License-Identifier: Apache-2.0
"""Numbers that the table does not have are errors, wherever they come in."""

import pytest

from geodiff import members
from geodiff.native import cpu

MODEL = {"distribution": 6, "is_reversed": False, "is_squared": False, "scale": 0.1, "shift": 0.0, "shape": 0.0}
MODEL |= {"log_gamma_1": 0.0, "digamma": 0.0, "tconorm": 1, "p": 0.0, "radius": 1e30, "coverage": "faces"}


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("distribution", (-1, len(members.DISTRIBUTIONS))),
        ("tconorm", (-1, len(members.TCONORMS))),
        ("coverage", ("", "face", "contour")),
        ("radii", ([0.0], [0.0] * 87)),
    ],
)
def test_the_kernel_refuses_what_is_unknown(name, values):
    cpu.extension().SilhouetteModel(**MODEL)
    for value in values:
        with pytest.raises(ValueError, match=name):
            cpu.extension().SilhouetteModel(**MODEL | {name: value})


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
