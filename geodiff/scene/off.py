# SPDX-License-Identifier: Apache-2.0
"""OFF (Geomview's object file format), in ASCII: positions, polygons, and colours of either."""

import pathlib
import re

import numpy as np
import torch

from geodiff.guard import believed
from geodiff.scene.mesh import Mesh
from geodiff.scene.polygons import triangulate


def load_off(path: pathlib.Path, dtype: torch.dtype) -> Mesh:
    """Read an OFF file, with the prefixes ST, C and N; normals and texture coordinates are passed over.

    Args:
        path: the file.
        dtype: of the result.

    Raises:
        ValueError: another prefix, a damaged file, or one without faces.
    """
    text = path.read_bytes().decode("utf-8-sig")
    lines = [line for line in (line.split("#", 1)[0].split() for line in text.splitlines()) if line]
    head = re.fullmatch(r"((?:ST)?C?N?)OFF(\d*)", lines[0][0].upper())
    if head is None:
        raise ValueError(f"it begins with {lines[0][0][:20]!r}: only OFF, with ST, C or N before, is read")
    prefix = head.group(1)
    lines[0] = [*([head.group(2)] if head.group(2) else []), *lines[0][1:]]  # the counts may follow at once
    if not lines[0]:
        del lines[0]
    if lines and lines[0] == ["BINARY"]:
        raise ValueError("binary OFF is not read")
    points, polygons = (int(x) for x in lines[0][:2])
    believed("Mesh.load", path, points, 6, "vertices")
    believed("Mesh.load", path, polygons, 2, "faces")
    rows = lines[1 : 1 + points]
    faces = lines[1 + points : 1 + points + polygons]
    if len(rows) < points or len(faces) < polygons:
        raise ValueError(f"cut short: {len(rows)} of {points} vertices and {len(faces)} of {polygons} faces")
    if polygons == 0:
        raise ValueError("it has no faces: a point cloud?")
    width = min(map(len, rows))
    if width < 3:
        raise ValueError(f"a vertex of {width} numbers")
    table = np.array([row[:width] for row in rows], dtype=np.float64)
    sizes = np.array([int(row[0]) for row in faces], dtype=np.int64)
    if sizes.min() < 0 or any(len(row) <= size for row, size in zip(faces, sizes.tolist(), strict=True)):
        raise ValueError("a face with fewer corners than it says")
    flat = np.array([int(x) for row, n in zip(faces, sizes.tolist(), strict=True) for x in row[1 : 1 + n]], np.int64)
    if len(flat) and not 0 <= flat.min() <= flat.max() < points:
        raise ValueError(f"a face with a vertex that is none of the {points}")
    corners, owner = triangulate(table[:, :3], flat, sizes, f"Mesh.load: {path}")
    colors = None
    if "C" in prefix:
        first = 6 if "N" in prefix else 3
        colors = _colors(table[:, first : first + 4], [row[first : first + 4] for row in rows])
    own = [row[1 + n :] for row, n in zip(faces, sizes.tolist(), strict=True)]
    face_colors = None
    if min(map(len, own)) >= 3:
        face_colors = _colors(np.array([row[:3] for row in own], dtype=np.float64), own)[owner]
    return Mesh(
        torch.from_numpy(table[:, :3].copy()).to(dtype),
        flat[corners],
        vertex_colors=None if colors is None else torch.from_numpy(colors).to(dtype),
        face_colors=None if face_colors is None else torch.from_numpy(face_colors).to(dtype),
    )


def _colors(table: np.ndarray, words: list[list[str]]) -> np.ndarray:
    """Return colours in [0, 1], opaque ones without alpha: whole numbers are bytes."""
    if all(word.isdigit() for row in words for word in row[:3]) and table.max(initial=0.0) > 1:
        table = table / 255.0
    opaque = table.shape[1] < 4 or bool((table[:, 3] >= 1).all())
    return np.ascontiguousarray(table[:, :3] if opaque else table)
