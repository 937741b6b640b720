# SPDX-License-Identifier: Apache-2.0
"""NumPy's files, read without belief in what their headers say."""

import ast
import math
import os
import pathlib
import struct
import zipfile
from typing import IO

import numpy as np

_LONGEST = 10_000  # bytes of a header: as NumPy has it
_DEFLATED = 1033  # how many times longer deflate's output can be than its input


def load_arrays(path: str | os.PathLike[str]) -> np.ndarray | dict[str, np.ndarray]:
    """Read a .npy file, or all arrays of a .npz archive, without pickles; sizes are checked against the file's first.

    Raises:
        Exception: whatever NumPy and zipfile raise at damaged files: to be called within `geodiff.guard.reading`.

    Example:
        >>> import numpy as np, tempfile
        >>> path = tempfile.mkdtemp() + "/two.npz"
        >>> np.savez(path, a=np.zeros(3), b=np.ones((2, 2)))
        >>> {name: array.shape for name, array in load_arrays(path).items()}
        {'a': (3,), 'b': (2, 2)}
    """
    path = pathlib.Path(path)
    if not zipfile.is_zipfile(path):
        with path.open("rb") as file:
            _check(file, path.stat().st_size, path.name)
        return np.asarray(np.load(path, allow_pickle=False))
    with zipfile.ZipFile(path) as archive:
        for info in archive.infolist():
            packed = info.compress_size if info.compress_type == zipfile.ZIP_STORED else info.compress_size * _DEFLATED
            if info.file_size > packed + 100 or info.compress_size > path.stat().st_size:
                raise ValueError(f"{info.filename} is said to be longer than it can be")
            with archive.open(info) as member:
                _check(member, info.file_size, info.filename)
    with np.load(path, allow_pickle=False) as loaded:
        return {name: loaded[name] for name in loaded.files}


def _check(file: IO[bytes], length: int, name: str) -> None:
    """Check that an array of `length` bytes, header included, is as large as its header says."""
    start = file.read(12)
    if start[:6] != b"\x93NUMPY" or len(start) < 12:
        raise ValueError(f"{name} is no NumPy array")
    wide = start[6] > 1
    size = struct.unpack("<I" if wide else "<H", start[8:12] if wide else start[8:10])[0]
    if size > _LONGEST:
        raise ValueError(f"{name} has a header of {size} bytes")
    offset = (12 if wide else 10) + size
    text = (start[12 if wide else 10 :] + file.read(size))[:size]
    header = ast.literal_eval(text.decode("latin-1"))
    kind = np.lib.format.descr_to_dtype(header["descr"])
    shape = header["shape"]
    if kind.hasobject:
        raise ValueError(f"{name} holds Python objects")
    if not isinstance(shape, tuple) or not all(type(n) is int and n >= 0 for n in shape):
        raise ValueError(f"{name} has the shape {shape!r}")
    if offset + math.prod(shape) * kind.itemsize > length:
        raise ValueError(f"{name} is too short for its shape {shape}")
