# SPDX-License-Identifier: Apache-2.0
"""Read and write clouds of points, with normals where a file has them."""

import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch

from geodiff.arrays import load_arrays
from geodiff.guard import reading
from geodiff.readers import apart
from geodiff.readers.shapes import Damaged, Missing
from geodiff.scene.atomic import replacing
from geodiff.scene.ply import read_tables
from geodiff.tasks.columns import FIX, Columns, Unclear, as_told, by_content, by_name, is_colors
from geodiff.tasks.tables import TABLES, Rows, read_rows, unclear
from geodiff.validation import choice, fail, shapes_repr

ENDINGS = ("ply", *TABLES, "obj", "npy", "npz", "las", "laz")
# What a LAS file may say of points that are no surface.
_LEFT_OUT = {"noise": "of noise (classes 7 and 18)", "withheld": "that are withheld"}


class CloudFile(NamedTuple):
    """What a file holds.

    Attributes:
        points: (N, 3) float64, finite.
        normals: (N, 3) float64 as they are in the file, of any length, zero where they are not finite; None where it
            has none.
        notes: what a user should be told, a sentence each: what was left out, and what was guessed.
    """

    def __repr__(self) -> str:
        return shapes_repr(self)

    points: torch.Tensor
    normals: torch.Tensor | None
    notes: tuple[str, ...] = ()


def read_cloud_file(
    path: str | os.PathLike[str],
    *,
    array: str | None = None,
    columns: str | Sequence[str] | None = None,
    noise_classes: bool = False,
    where: str = "fit_atlas",
    trusted: bool = False,
) -> CloudFile:
    r"""Read a cloud and its normals, if there are any. Points that are not finite are dropped, and counted.

    PLY: ``x y z``, ``nx ny nz`` or as programs call them. OBJ: ``v`` and ``vn``, in order or as faces join them. Tables
    (XYZ, TXT, CSV, TSV, ASC, PTS, XYZN, XYZRGB): rows of numbers apart by blanks, tabs, commas, semicolons or bars,
    with decimal points or commas; their headings name the columns, or else x, y, z come first, perhaps after a column
    that counts the rows, and normals are known by their length. NPY: (N, 3), or (N, 6) with normals. NPZ: an array of
    those, or ``points`` and ``normals``. LAS and LAZ need the extra ``geodiff[las]``, and are read in a process of
    their own, within limits of memory and time, since damaged ones can crash or hang their library.

    Args:
        path: the file, known by its ending.
        array: which array of an NPZ.
        columns: what the columns of a table or an array are, a word each: ``"x,y,z,-,r,g,b"``; ``nx,ny,nz`` are
            normals, all other words are left out.
        noise_classes: keep the points that a LAS file calls noise (classes 7 and 18) or withheld.
        where: the public function, for messages.
        trusted: read LAS and LAZ in this process and without limits; for large files that you know to be sound.

    Raises:
        FileNotFoundError: no such file.
        ImportError: LAS without laspy, LAZ without what unpacks it.
        RuntimeError: LAS or LAZ where no Python interpreter can be started to read them (in frozen programs).
        ValueError: an unknown ending, a damaged file, one without points or of other numbers, a table whose columns may
            be several things.

    Example:
        >>> import pathlib, tempfile
        >>> path = pathlib.Path(tempfile.mkdtemp()) / "two.csv"
        >>> _ = path.write_text("id;z;y;x\n1;0,5;0;1\n2;0,25;0;2\n")
        >>> read_cloud_file(path).points
        tensor([[1.0000, 0.0000, 0.5000],
                [2.0000, 0.0000, 0.2500]], dtype=torch.float64)
    """
    points, normals, notes = load(where, path, array, ENDINGS, columns, noise_classes, trusted)
    if normals is None and points.ndim == 2 and points.shape[1] == 6:
        colors = is_colors(points[:, 3:])
        notes += ["Columns 4 to 6 are no normals, and were left out."] if colors else []
        points, normals = points[:, :3], None if colors else points[:, 3:]
    if points.ndim != 2 or points.shape[1] != 3:
        fix = FIX if points.ndim == 2 and points.shape[1] > 3 else ""
        raise fail(where, "points", "of shape (N, 3), or (N, 6) with normals", f"{path} with {points.shape}", fix)
    if normals is not None and normals.shape != points.shape:
        raise fail(where, "normals", f"of shape {points.shape}, one a point", f"{path} with {normals.shape}")
    if len(points) == 0:
        said = f" ({' '.join(notes)})" if notes else ""
        raise fail(where, "points", "some points", f"{path}, which holds none{said}", "Is it the right file?")
    kept, with_normals, lost = finite(where, path, points, normals)
    return CloudFile(kept, with_normals, (*notes, *lost))


def load(
    where: str,
    path: str | os.PathLike[str],
    array: str | None,
    endings: Sequence[str],
    columns: str | Sequence[str] | None = None,
    noise_classes: bool = False,
    trusted: bool = False,
) -> tuple[np.ndarray, np.ndarray | None, list[str]]:
    """Read a file of one of the ``endings``: real numbers of any shape, normals (N, 3) or None, and notes.

    Raises:
        FileNotFoundError, ImportError, ValueError: as `read_cloud_file`, but for the shape and for empty files.
    """
    path = pathlib.Path(path)
    ending = choice(where, "points", path.suffix.lower().removeprefix("."), endings)
    if not os.path.isfile(path):
        raise fail(where, "points", "a file that exists", str(path), error=FileNotFoundError)
    if array is not None and ending != "npz":
        raise fail(where, "array", "left out for all files but .npz", repr(array))
    if columns is not None and ending not in (*TABLES, "npy", "npz"):
        raise fail(where, "columns", f"left out for .{ending} files, whose numbers have names", repr(columns))
    notes: list[str] = []
    if ending in ("las", "laz"):
        values, normals, notes = _las(where, path, noise_classes, trusted)
    else:
        with reading(where, path, argument="points"):
            if ending in ("npy", "npz"):
                values, normals = _numpy_arrays(where, path, array)
                if columns is not None and values.ndim == 2:
                    chosen = as_told(where, columns, values.shape[1], path)
                    normals = normals if chosen.normals is None else values[:, chosen.normals]
                    values = values[:, chosen.points]
            elif ending == "ply":
                values, normals = _ply(where, path)
            elif ending == "obj":
                values, normals = _obj(path)
            else:
                values, normals, notes = _table(where, path, columns)
    for part in (values,) if normals is None else (values, normals):
        if not np.issubdtype(part.dtype, np.number) or np.iscomplexobj(part):
            raise fail(where, "points", "real numbers", f"{path} with {part.dtype}")
    return values, normals, notes


def finite(
    where: str, path: str | os.PathLike[str], points: np.ndarray, normals: np.ndarray | None = None
) -> tuple[torch.Tensor, torch.Tensor | None, list[str]]:
    """Return the points that are finite, with their normals, zero for those that are not; and what was lost."""
    keep = np.isfinite(points).all(1)
    lost = int((~keep).sum())
    if lost == len(points):
        raise fail(where, "points", "finite somewhere", f"{path}, whose {lost} points all have NaN or infinity")
    notes = [f"{lost} of {len(points)} points have NaN or infinity, and were dropped."] if lost else []
    if normals is not None:
        normals = normals[keep].astype(np.float64)
        normals[~np.isfinite(normals).all(1)] = 0
    return _doubles(points[keep]), None if normals is None else _doubles(normals), notes


def write_ply(path: pathlib.Path, columns: Mapping[str, torch.Tensor], where: str = "fit_atlas") -> None:
    """Write a cloud as binary PLY, whole or not at all.

    Args:
        path: the file to make.
        columns: of one number a point (N,), by the names of the properties: ``x``, ``nx``, …; float32 or float64.
        where: the public function, for messages.
    """
    arrays = {name: column.detach().cpu().numpy() for name, column in columns.items()}
    kinds = {"float32": "float", "float64": "double"}
    rows = np.empty(len(next(iter(arrays.values()))), dtype=[(n, a.dtype.newbyteorder("<")) for n, a in arrays.items()])
    for name, values in arrays.items():
        rows[name] = values
    heading = ["ply", "format binary_little_endian 1.0", f"element vertex {len(rows)}"]
    heading += [f"property {kinds[values.dtype.name]} {name}" for name, values in arrays.items()]
    with replacing(path, where) as part:
        part.write_bytes(("\n".join([*heading, "end_header"]) + "\n").encode() + rows.tobytes())


def _doubles(values: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.array(values, dtype=np.float64, order="C"))


def _numpy_arrays(where: str, path: pathlib.Path, name: str | None) -> tuple[np.ndarray, np.ndarray | None]:
    loaded = load_arrays(path)
    if isinstance(loaded, np.ndarray):
        return loaded, None
    # What could be meant: not the numbers that often go with a field, such as its spacing.
    large = [key for key in loaded if loaded[key].ndim >= 2]
    if name is None:
        usual = [key for key in ("points", "elevation") if key in large]
        if len(large) != 1 and len(usual) != 1:
            text = f"{', '.join(large) or 'none of two or more axes'} in {path}"
            raise fail(where, "array", "given where a file has several", text, "Name one.")
        name = large[0] if len(large) == 1 else usual[0]
    if name not in loaded:
        raise fail(where, "array", f"in {path}", f"{name!r}, not among {', '.join(loaded)}")
    return loaded[name], loaded["normals"] if "normals" in loaded and name != "normals" else None


def _ply(where: str, path: pathlib.Path) -> tuple[np.ndarray, np.ndarray | None]:
    vertex = read_tables(path, where)[0].get("vertex", {})
    plain = {name: np.asarray(values) for name, values in vertex.items() if isinstance(values, np.ndarray)}
    found = by_name([*plain])
    if found is None:
        raise ValueError("no vertices with x, y and z")
    arrays = [*plain.values()]
    normals = None if found.normals is None else np.stack([arrays[i] for i in found.normals], 1)
    return np.stack([arrays[i] for i in found.points], 1), normals


def _obj(path: pathlib.Path) -> tuple[np.ndarray, np.ndarray | None]:
    points: list[list[float]] = []
    normals: list[list[float]] = []
    corners: set[tuple[int, int]] = set()
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        words = line.split()
        if not words or words[0] not in ("v", "vn", "f"):
            continue
        if words[0] == "f":
            parts = [word.split("/") for word in words[1:]]
            ends = [(int(p[0]), int(p[2])) for p in parts if len(p) == 3 and p[2]]
            corners.update((a - 1 if a > 0 else len(points) + a, b - 1 if b > 0 else len(normals) + b) for a, b in ends)
        else:
            (points if words[0] == "v" else normals).append([float(word) for word in words[1:4]])
    values = np.asarray(points, dtype=np.float64).reshape(-1, 3)
    given = np.asarray(normals, dtype=np.float64).reshape(-1, 3)
    if corners:
        vertex, normal = np.array(sorted(corners)).T
        total = np.zeros_like(values)
        np.add.at(total, vertex, given[normal])
        return values, total
    return values, given if 0 < len(given) == len(values) else None


def _las(
    where: str, path: pathlib.Path, noise_classes: bool, trusted: bool
) -> tuple[np.ndarray, np.ndarray | None, list[str]]:
    options = {"noise": noise_classes}
    try:
        facts, arrays = apart.read("geodiff.readers.las", path, options, trusted=trusted)
    except Missing as error:
        module = error.needs[0]
        text = (
            f"{path}, and {'laspy is not installed' if module == 'laspy' else 'nothing is installed that unpacks it'}"
        )
        fix = (
            f'pip install "geodiff[las]", or {"convert the file to PLY or XYZ" if module == "laspy" else "unpack it"}.'
        )
        raise fail(where, "points", "of a kind that can be read here", text, fix, ImportError) from error
    except Damaged as error:
        raise fail(where, "points", "a readable file", f"{path} ({error})", "Is it damaged?") from error
    left = [f"{facts[name]} points {text}" for name, text in _LEFT_OUT.items() if facts.get(name)]
    notes = [f"Left out: {' and '.join(left)}; --noise-classes keeps them."] if left else []
    return arrays[0], arrays[1] if len(arrays) > 1 else None, notes


def _table(
    where: str, path: pathlib.Path, columns: str | Sequence[str] | None
) -> tuple[np.ndarray, np.ndarray | None, list[str]]:
    rows = read_rows(where, path)
    try:
        chosen = _columns(where, path, rows, columns)
    except Unclear as error:
        raise unclear(where, path, rows.lines, str(error), FIX) from error
    for column in [*chosen.points, *(chosen.normals or ())]:
        if column in rows.texts:
            line, number = rows.texts[column]
            raise fail(where, "points", "rows of numbers", f"{line!r} in line {number} of {path}")
    normals = None if chosen.normals is None else rows.values[:, chosen.normals]
    return rows.values[:, chosen.points], normals, [*rows.notes, *chosen.notes]


def _columns(where: str, path: pathlib.Path, rows: Rows, columns: str | Sequence[str] | None) -> Columns:
    """Choose by what the user says, by the heading, by the ending, and by what the columns hold."""
    width = rows.values.shape[1]
    if columns is not None:
        return as_told(where, columns, width, path)
    if rows.heading is not None:
        # R writes no word over the names of the rows.
        found = by_name(["", *rows.heading] if len(rows.heading) < width else rows.heading)
        if found is None:
            raise Unclear("a table with columns called x, y and z")
        return found
    if path.suffix.lower() == ".xyzrgb":
        return Columns([0, 1, 2], None)
    if path.suffix.lower() == ".xyzn" and width >= 6:
        return Columns([0, 1, 2], [3, 4, 5])
    if 0 in rows.texts and width > 3:
        raise Unclear("a table whose first column is a number")
    if not len(rows.values):
        return Columns([0, 1, 2], None)
    # Tabs before each row, or two between all.
    kept = [c for c in range(width) if c in rows.texts or not np.isnan(rows.values[:, c]).all()]
    if len(kept) < 3:
        kept = [*range(width)]
    found = by_content(rows.values[:, kept])
    normals = None if found.normals is None else [kept[c] for c in found.normals]
    return Columns([kept[c] for c in found.points], normals, found.notes)
