# SPDX-License-Identifier: Apache-2.0
"""Foreign errors become one ValueError with the file's name; headers are not believed; paths stay in their folder."""

import pathlib
import tokenize
import warnings
import zlib

import pytest
from PIL import Image

import geodiff as gd
from geodiff.guard import believed, inside, reading


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (KeyError("vertex"), "KeyError: 'vertex'"),
        (AttributeError("no such thing"), "AttributeError: no such thing"),
        (TypeError("bad operand"), "TypeError: bad operand"),
        (OverflowError(), r"\(OverflowError\)"),
        (zlib.error("Error -3"), "error: Error -3"),
        (tokenize.TokenError("EOF in multi-line"), "TokenError"),
        (Image.DecompressionBombError("too large"), "DecompressionBombError: too large"),
        (MemoryError("a"), "it asks for more memory than there is"),
        (RecursionError("b"), "nested too deeply"),
        (ModuleNotFoundError("no chardet"), "of a kind that cannot be told"),
        (OSError(36, "File name too long"), "File name too long"),
        (ValueError("Mesh: `faces` must be in [0, 3); got 7."), r"\(Mesh: `faces` must be in"),
        (RuntimeError("line one\nline two"), r"line one\)"),
    ],
)
def test_foreign_errors_become_one_that_names_the_file(error: Exception, text: str) -> None:
    with pytest.raises(ValueError, match=r"Mesh\.load: `path` must be a readable PLY file; got a/mug\.ply .*damaged"):
        with reading("Mesh.load", pathlib.Path("a/mug.ply"), "PLY"):
            raise error
    with pytest.raises(ValueError, match=text) as caught, reading("Mesh.load", "mug.ply"):
        raise error
    assert caught.value.__cause__ is error


@pytest.mark.parametrize(
    "error",
    [
        ValueError("Mesh.load: `path` must be this; got that."),
        TypeError("Mesh.load: `dtype` must be this; got that."),
        ImportError("geodiff.splines: .3dm files need rhino3dm"),
        ImportError("Mesh.load: needs DracoPy"),
        FileNotFoundError("gone"),
        PermissionError("no"),
        UserWarning("made an error by a filter"),
        KeyboardInterrupt(),
    ],
)
def test_what_already_says_it_passes(error: BaseException) -> None:
    with pytest.raises(type(error)) as caught, reading("Mesh.load", "mug.ply"):
        raise error
    assert caught.value is error


def test_reading_lets_results_and_warnings_through() -> None:
    with pytest.warns(UserWarning, match="beware"), reading("Mesh.load", "mug.ply"):
        warnings.warn("beware", stacklevel=1)


def test_counts_are_believed_as_far_as_the_file_is_long(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "a.bin"
    path.write_bytes(bytes(120))
    assert believed("Mesh.load", path, 10, 12, "vertices") == 10
    for count in (11, 10**12, -1, float("inf")):
        with pytest.raises(ValueError, match=r"as long as its header says; got .*a\.bin of 120 bytes, too few for"):
            believed("Mesh.load", path, count, 12, "vertices")


def test_paths_stay_in_the_folder_of_the_file(tmp_path: pathlib.Path) -> None:
    assert inside(tmp_path, "a/b.png") == tmp_path / "a" / "b.png"
    assert inside(tmp_path, "a\\b.png") == tmp_path / "a" / "b.png"
    assert inside(tmp_path, "./a/../b.png") == tmp_path / "b.png"
    assert inside(tmp_path, str(tmp_path / "b.png")) == tmp_path / "b.png"
    assert inside(tmp_path / "a", "../b.png", allow_outside=True) == tmp_path / "b.png"
    for name in ("../b.png", "a/../../b.png", "/etc/passwd", "C:\\b.png", "a\0b", "", ".", 7, f"../{tmp_path.name}x/b"):
        assert inside(tmp_path, name) is None, name  # type: ignore[arg-type]


def test_a_name_too_long_is_a_file_that_is_not_there() -> None:
    with pytest.raises(FileNotFoundError, match=r"Mesh\.load: `path` must be a file that exists"):
        gd.Mesh.load("a" * 5000 + ".ply")
