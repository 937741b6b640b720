# SPDX-License-Identifier: Apache-2.0
"""Which columns of a table are the coordinates of points, and which their normals: by name, or by what is in them."""

import re
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from geodiff.validation import fail

_AXES = ("x", "y", "z")
# How programs call the three coordinates, without anything but letters and digits.
_PLACES = (
    _AXES,
    *(tuple(f"{name}{axis}" for axis in _AXES) for name in ("coord", "point", "points", "position", "pos", "location")),
    *(tuple(f"{axis}{name}" for axis in _AXES) for name in ("coord", "coordinate", "m", "mm", "pos", "position")),
    *(tuple(f"{name}{i}" for i in range(3)) for name in ("points", "point", "coordinates", "position")),
    *((east, north, up) for east, north in (("x", "y"), ("easting", "northing"), ("east", "north"), ("e", "n"))
      for up in ("z", "elevation", "elev", "height", "altitude")),
)  # fmt: skip
_NORMALS = tuple(
    tuple(f"{name}{end}" for end in ends)
    for ends in (_AXES, ("0", "1", "2"))
    for name in ("n", "normal", "normals", "scalarn", "scalarnormal", "vertexnormal", "vn")
)
_UNIT = 0.05  # how far from 1 the lengths of normals may be in a table without headings
_EXACT = 1e-3  # the same where no component is negative, as with colours
_RUN = 8  # rows from which a column that counts is no chance
FIX = "Name them: --columns x,y,z,-,r,g,b or columns=…, one word a column, - for what is left out."


class Columns(NamedTuple):
    """Numbers of columns: of x, y, z, and of the normals, if there are any; and what a user should be told."""

    points: list[int]
    normals: list[int] | None
    notes: tuple[str, ...] = ()


class Unclear(ValueError):
    """Columns that may be several things; the text says what would be clear."""


def trio(names: Sequence[str], families: Sequence[tuple[str, ...]]) -> list[int] | None:
    """Return where the three names of the first family that is there stand; None where there is none.

    Raises:
        Unclear: one of them stands twice.
    """
    plain = [re.sub(r"[^a-z0-9]", "", re.sub(r"[\[(].*?[\])]", "", name.lower())) for name in names]
    for family in families:
        if set(family) <= set(plain):
            for name in family:
                if plain.count(name) > 1:
                    raise Unclear(f"a table in which one column is called {name}")
            return [plain.index(name) for name in family]
    return None


def by_name(names: Sequence[str]) -> Columns | None:
    """Return the columns that are called x, y and z, or as programs call them, and their normals; None without x."""
    points = trio(names, _PLACES)
    return None if points is None else Columns(points, trio(names, _NORMALS))


def as_told(where: str, columns: str | Sequence[str], width: int, path: object) -> Columns:
    """Return the columns that the argument `columns` names.

    Raises:
        TypeError, ValueError: not words, not as many as there are columns, or not with x, y and z.
    """
    words = columns.split(",") if isinstance(columns, str) else columns
    if not isinstance(words, Sequence) or not all(isinstance(word, str) for word in words):
        raise fail(where, "columns", "words, such as x,y,z,-,r,g,b", repr(columns), error=TypeError)
    names = [word.strip().lower() for word in words]
    if len(names) != width:
        fix = "One word a column, - for what is left out."
        raise fail(where, "columns", f"{width} words, as {path} has columns", f"{len(names)}: {','.join(names)}", fix)
    normals = ("nx", "ny", "nz")
    some = [name for name in normals if name in names]
    if (
        any(names.count(axis) != 1 for axis in _AXES)
        or len(some) not in (0, 3)
        or any(names.count(n) > 1 for n in some)
    ):
        raise fail(where, "columns", "with x, y, z, each once, and nx, ny, nz or none of these", ",".join(names))
    return Columns([names.index(a) for a in _AXES], [names.index(n) for n in normals] if some else None)


def by_content(values: np.ndarray) -> Columns:
    """Return what the columns of a table (N, K) without names must be: x, y, z first, or after a count of the rows.

    Normals are three columns side by side of length 1, unless they may as well be colours.

    Raises:
        Unclear: it may be something else.
    """
    width = values.shape[1]
    notes: list[str] = []
    first = 0
    if width > 3 and len(values) >= 2 and _counts(values[:, 0]):
        if len(values) < _RUN:
            raise Unclear("a table whose first column is a coordinate, or said to be none")
        first = 1
        notes.append("The first column counts the rows: the next three were read as x, y, z.")
    elif width > 3 and len(values) >= _RUN and bool((np.diff(values[:, 0]) > 0).all()):
        raise Unclear("a table whose first column is not always larger than in the row before, as times are")
    for start in range(first + 3, width - 2):
        kind = _direction(values[:, start : start + 3])
        if kind == "either":
            notes.append(
                f"Columns {start + 1} to {start + 3} may be normals or colours, and were left out; --columns tells."
            )
            break
        if kind == "normals":
            return Columns([first, first + 1, first + 2], [start, start + 1, start + 2], tuple(notes))
    return Columns([first, first + 1, first + 2], None, tuple(notes))


def is_colors(values: np.ndarray) -> bool:
    """Whether three columns (N, 3) cannot be normals: none is negative, and they are not of length 1."""
    return bool((values >= 0).all()) and _direction(values) != "normals"


def _counts(column: np.ndarray) -> bool:
    return bool(column[0] in (0, 1)) and bool((np.diff(column) == 1).all())


def _direction(values: np.ndarray) -> str:
    """Say whether three columns are ``"normals"``, ``"either"`` these or colours, or ``"neither"``."""
    good = np.isfinite(values).all(1)
    with np.errstate(over="ignore", invalid="ignore"):
        length = np.linalg.norm(values[good], axis=1)
    values, length = values[good][length > 0], length[length > 0]
    if not len(length):
        return "neither"
    off = np.abs(length - 1).max()
    if (values < 0).any():
        return "normals" if off <= _UNIT else "neither"
    if np.isin(values, (0, 1)).all() and off == 0:
        return "either"
    return "normals" if off <= _EXACT else "neither"
