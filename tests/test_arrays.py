# SPDX-License-Identifier: Apache-2.0
"""NumPy's files: what their headers say is checked against how long they are."""

import io
import pathlib
import zipfile
from typing import Any

import numpy as np
import pytest

from geodiff.arrays import load_arrays


def npy(shape: Any, descr: Any = "<f8", data: bytes = b"\0" * 48, version: int = 1) -> bytes:
    """Return a .npy file with any header."""
    text = repr({"descr": descr, "fortran_order": False, "shape": shape}).encode() + b"\n"
    size = len(text).to_bytes(2 if version == 1 else 4, "little")
    return b"\x93NUMPY" + bytes([version, 0]) + size + text + data


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("dtype", ["<f8", ">f4", "i2", "?", "U3"])
@pytest.mark.parametrize("shape", [(2, 3), (0, 3), ()])
def test_arrays_are_read(tmp_path: pathlib.Path, shape: tuple, dtype: str, order: Any) -> None:
    array = np.asarray(np.ones(shape, dtype=dtype), order=order)
    np.save(tmp_path / "a.npy", array)
    np.savez(tmp_path / "a.npz", a=array, b=array[..., None])
    np.savez_compressed(tmp_path / "c.npz", a=np.zeros((300, 300)))
    read = load_arrays(tmp_path / "a.npy")
    both = load_arrays(tmp_path / "a.npz")
    assert isinstance(read, np.ndarray) and isinstance(both, dict)
    assert np.array_equal(read, array) and read.dtype == array.dtype
    assert np.array_equal(both["a"], array) and both["b"].shape == (*shape, 1)
    assert load_arrays(tmp_path / "c.npz")["a"].shape == (300, 300)


BAD = {
    "too many rows": (npy((10**12, 3)), r"too short for its shape \(1000000000000, 3\)"),
    "more than there is": (npy((10**30,)), "too short for its shape"),
    "one number less": (npy((2, 3), data=b"\0" * 47), r"too short for its shape \(2, 3\)"),
    "of version 2": (npy((7,), version=2), "too short for its shape"),
    "negative": (npy((-1, 3)), r"has the shape \(-1, 3\)"),
    "a fraction": (npy((1.5, 3)), r"has the shape \(1.5, 3\)"),
    "objects": (npy((1,), "|O"), "holds Python objects"),
    "a long header": (npy((1,), "x" * 20000), "has a header of 20"),
    "no array": (b"not at all, but long enough", "is no NumPy array"),
}


@pytest.mark.parametrize("content, message", BAD.values(), ids=BAD)
def test_headers_are_not_believed(tmp_path: pathlib.Path, content: bytes, message: str) -> None:
    (tmp_path / "a.npy").write_bytes(content)
    with pytest.raises(ValueError, match=message):
        load_arrays(tmp_path / "a.npy")
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        archive.writestr("a.npy", content)
    with pytest.raises(ValueError, match=message):
        load_arrays(tmp_path / "a.npz")


def test_archives_are_not_believed(tmp_path: pathlib.Path) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("a.npy", npy((2, 3)))
    data = bytearray(buffer.getvalue())
    at = data.rindex(b"PK\x01\x02") + 24  # the unpacked size in the directory
    data[at : at + 4] = (10**9).to_bytes(4, "little")
    (tmp_path / "a.npz").write_bytes(data)
    with pytest.raises(ValueError, match=r"a.npy is said to be longer than it can be"):
        load_arrays(tmp_path / "a.npz")
