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
from geodiff.validation import choice, fail, shapes_repr

ENDINGS = ("ply", "xyz", "csv", "txt", "obj", "npy", "npz", "las", "laz")
_UNIT = 0.05  # how far from 1 the lengths of normals may be in a table without headings


class CloudFile(NamedTuple):
    """What a file holds.

    Attributes:
        points: (N, 3) float64.
        normals: (N, 3) float64 as they are in the file, of any length; None where it has none.
    """

    def __repr__(self) -> str:
        return shapes_repr(self)

    points: torch.Tensor
    normals: torch.Tensor | None


def read_cloud_file(
    path: str | os.PathLike[str], *, array: str | None = None, where: str = "fit_atlas", trusted: bool = False
) -> CloudFile:
    r"""Read a cloud and its normals, if there are any.

    PLY: ``x y z``, ``nx ny nz``. OBJ: ``v`` and ``vn``, in order or as faces join them. XYZ, TXT and CSV: three
    columns, or six with normals (if the headings say so or their lengths are 1); further columns and headings are
    skipped. NPY: (N, 3), or (N, 6) with normals. NPZ: an array of those, or ``points`` and ``normals``. LAS and LAZ
    need the extra ``geodiff[las]``, and are read in a process of their own, within limits of memory and time, since
    damaged ones can crash or hang their library.

    Args:
        path: the file, known by its ending.
        array: which array of an NPZ.
        where: the public function, for messages.
        trusted: read LAS and LAZ in this process and without limits; for large files that you know to be sound.

    Raises:
        FileNotFoundError: no such file.
        ImportError: LAS without laspy, LAZ without what unpacks it.
        RuntimeError: LAS or LAZ where no Python interpreter can be started to read them (in frozen programs).
        ValueError: an unknown ending, a damaged file, one without points or of other numbers.

    Example:
        >>> import pathlib, tempfile
        >>> path = pathlib.Path(tempfile.mkdtemp()) / "two.xyz"
        >>> _ = path.write_text("0 0 0 0 0 1\n1 0 0 0 0 1\n")
        >>> read_cloud_file(path).normals
        tensor([[0., 0., 1.],
                [0., 0., 1.]], dtype=torch.float64)
    """
    points, normals = load(where, path, array, ENDINGS, trusted)
    if normals is None and points.ndim == 2 and points.shape[1] == 6:
        points, normals = points[:, :3], points[:, 3:]
    if points.ndim != 2 or points.shape[1] != 3:
        raise fail(where, "points", "of shape (N, 3), or (N, 6) with normals", f"{path} with {points.shape}")
    if len(points) == 0:
        raise fail(where, "points", "some points", f"{path}, which holds none", "Is it the right file?")
    if normals is not None and normals.shape != points.shape:
        raise fail(where, "normals", f"of shape {points.shape}, one a point", f"{path} with {normals.shape}")
    return CloudFile(_doubles(points), None if normals is None else _doubles(normals))


def load(
    where: str, path: str | os.PathLike[str], array: str | None, endings: Sequence[str], trusted: bool = False
) -> tuple[np.ndarray, np.ndarray | None]:
    """Read a file of one of the ``endings``: real numbers of any shape, and normals (N, 3) or None.

    Raises:
        FileNotFoundError, ImportError, ValueError: as `read_cloud_file`, but for the shape and for empty files.
    """
    path = pathlib.Path(path)
    ending = choice(where, "points", path.suffix.lower().removeprefix("."), endings)
    if not os.path.isfile(path):
        raise fail(where, "points", "a file that exists", str(path), error=FileNotFoundError)
    if array is not None and ending != "npz":
        raise fail(where, "array", "left out for all files but .npz", repr(array))
    if ending in ("las", "laz"):
        values, normals = _las(where, path, trusted)
    else:
        with reading(where, path, argument="points"):
            if ending in ("npy", "npz"):
                values, normals = _numpy_arrays(where, path, array)
            elif ending == "ply":
                values, normals = _ply(where, path)
            elif ending == "obj":
                values, normals = _obj(path)
            else:
                values, normals = _table(where, path)
    for part in (values,) if normals is None else (values, normals):
        if not np.issubdtype(part.dtype, np.number) or np.iscomplexobj(part):
            raise fail(where, "points", "real numbers", f"{path} with {part.dtype}")
    return values, normals


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
    if not {"x", "y", "z"} <= set(plain):
        raise ValueError("no vertices with x, y and z")
    values = np.stack([plain[name] for name in "xyz"], 1)
    given = {"nx", "ny", "nz"} <= set(plain)
    return values, np.stack([plain[name] for name in ("nx", "ny", "nz")], 1) if given else None


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


def _las(where: str, path: pathlib.Path, trusted: bool) -> tuple[np.ndarray, np.ndarray | None]:
    try:
        _, arrays = apart.read("geodiff.readers.las", path, {}, trusted=trusted)
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
    return arrays[0], arrays[1] if len(arrays) > 1 else None


def _table(where: str, path: pathlib.Path) -> tuple[np.ndarray, np.ndarray | None]:
    """Read rows of numbers, apart by commas, semicolons or blanks; a first row without numbers is their heading."""
    rows: list[list[float]] = []
    heading: list[str] = []
    width = 6
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        words = line.split("#")[0].replace(",", " ").replace(";", " ").split()
        if not words:
            continue
        try:
            rows.append([float(word) for word in words[:3]])
        except ValueError:
            if not rows and not heading:
                heading = [word.strip('"').lower() for word in words]
                continue
            text = f"{line.strip()[:40]!r} in line {number} of {path}"
            raise fail(where, "points", "rows of numbers", text) from None
        if len(words) < 3:
            text = f"{len(words)} in line {number} of {path}"
            raise fail(where, "points", "x, y and z in each row", text)
        if width == 6:
            width = 6 if len(words) >= 6 else 3
            try:
                rows[-1] += [float(word) for word in words[3:6]] if width == 6 else []
            except ValueError:
                width = 3
    points = np.asarray([row[:3] for row in rows], dtype=np.float64).reshape(-1, 3)
    if width == 3 or not rows:
        return points, None
    normals = np.asarray([row[3:] for row in rows], dtype=np.float64)
    named = heading[3:6] in (["nx", "ny", "nz"], ["normal_x", "normal_y", "normal_z"])
    with np.errstate(over="ignore", invalid="ignore"):
        length = np.linalg.norm(normals, axis=1)
    unit = (length > 0).any() and bool((np.abs(length[length > 0] - 1) <= _UNIT).all())
    return points, normals if named or (not heading and unit) else None  # else they are colours, or the like
