# SPDX-License-Identifier: Apache-2.0
"""STL, binary and ASCII: triangles without vertices of their own."""

import itertools
import pathlib
import re

import numpy as np
import torch

from geodiff.scene.mesh import Mesh
from geodiff.validation import fail

_ROW = np.dtype([("normal", "<f4", 3), ("corners", "<f4", (3, 3)), ("extra", "<u2")])
_HEADER = 84
_VERTEX = re.compile(rb"^[ \t]*vertex\b([^\r\n]*)", re.IGNORECASE | re.MULTILINE)


def load_stl(path: pathlib.Path, dtype: torch.dtype) -> Mesh:
    """Read the triangles of an STL file; each has three vertices of its own.

    A file is ASCII if it starts with ``solid`` and has lines with ``vertex``, else binary. ``endsolid`` may be missing;
    several solids are joined.

    Args:
        path: the file.
        dtype: of the result.

    Raises:
        ValueError: cut short, or without triangles.
    """
    data = path.read_bytes()
    head = data[:_HEADER].lstrip()[:5].lower()
    count = int.from_bytes(data[80:_HEADER], "little") if len(data) >= _HEADER else -1
    whole = count >= 0 and len(data) == _HEADER + count * _ROW.itemsize
    fits = count >= 0 and len(data) >= _HEADER + count * _ROW.itemsize  # binary, with more bytes after it
    if not whole and (b"facet" in data[:1000].lower() or (head == b"solid" and not fits)):
        corners = _ascii(path, data)
    else:
        if count < 0:
            raise fail("Mesh.load", "path", "a readable STL file", f"{path} of {len(data)} bytes", "It is cut short.")
        there = (len(data) - _HEADER) // _ROW.itemsize
        if count > there:
            text = f"{path} with {there} of {count} triangles"
            raise fail("Mesh.load", "path", "a whole STL file", text, "It is cut short, or damaged.")
        corners = np.frombuffer(data, _ROW, count, _HEADER)["corners"]
    if len(corners) == 0:
        raise fail("Mesh.load", "path", "a STL file with faces", f"{path} without any", "Is it damaged?")
    vertices = torch.from_numpy(np.array(corners, dtype=np.float64).reshape(-1, 3)).to(dtype)
    return Mesh(vertices, torch.arange(len(vertices)).reshape(-1, 3))


def _ascii(path: pathlib.Path, data: bytes) -> np.ndarray:
    rows = [row.split() for row in _VERTEX.findall(data)]
    whole = sum(len(row) == 3 for row in rows)
    if whole != len(rows) or whole % 3:
        text = f"{path} with {len(rows)} corners, {whole} of them of three numbers"
        raise fail("Mesh.load", "path", "a whole STL file", text, "It is cut short, or damaged.")
    numbers = map(float, itertools.chain.from_iterable(rows))
    return np.fromiter(numbers, np.float64, 3 * whole).reshape(-1, 3, 3)
