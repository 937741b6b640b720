# SPDX-License-Identifier: Apache-2.0
"""The table of distributions and T-conorms that have kernels: members.def, which C++ includes and this file reads."""

import pathlib
import re
from typing import NamedTuple

from geodiff.validation import fail


class Row(NamedTuple):
    """One distribution or T-conorm; members.def says what `kind` and `parameter` may be."""

    number: int
    struct: str
    kind: str
    parameter: str

    @property
    def parametric(self) -> bool:
        """Whether the constructor takes a parameter."""
        return self.parameter != "none"


def _rows(macro: str) -> tuple[Row, ...]:
    text = pathlib.Path(__file__).with_suffix(".def").read_text(encoding="utf-8")
    found = re.findall(rf"^{macro}\((\d+), (\w+), (\w+), (\w+)\)$", text, re.MULTILINE)
    rows = tuple(Row(int(number), *rest) for number, *rest in found)
    lines = [line for line in text.splitlines() if line.startswith(f"{macro}(")]
    if [row.number for row in rows] != list(range(len(lines))):
        raise RuntimeError(f"geodiff/members.def: the lines of {macro} must be numbered from 0, without a comment.")
    return rows


DISTRIBUTIONS = _rows("DISTRIBUTION")
"""In the order of their numbers."""

TCONORMS = _rows("TCONORM")
"""In the order of their numbers."""


def distribution(kernel_id: int, where: str = "from_kernel") -> Row:
    """Return the row of a number; ValueError for an unknown one, in the name of the function `where`."""
    return _find(DISTRIBUTIONS, kernel_id, where)


def tconorm(kernel_id: int, where: str = "tconorm_from_kernel") -> Row:
    """Return the row of a number; ValueError for an unknown one, in the name of the function `where`."""
    return _find(TCONORMS, kernel_id, where)


def _find(rows: tuple[Row, ...], kernel_id: int, where: str) -> Row:
    if not 0 <= kernel_id < len(rows):
        raise fail(where, "kernel_id", f"from 0 to {len(rows) - 1}", kernel_id)
    return rows[kernel_id]
