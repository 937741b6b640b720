# SPDX-License-Identifier: Apache-2.0
"""Compiled kernels on disk: each file ends in a sum of what it holds, so that a damaged one is made again."""

import contextlib
import functools
import hashlib
import os
import pathlib
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator

from geodiff.native.gpu.headers import header_root

_SUM = 32  # bytes of a SHA-256


def folder() -> pathlib.Path:
    """Return where compiled kernels are kept: ``$GEODIFF_CACHE``, or ``geodiff`` in the user's folder of caches."""
    if given := os.environ.get("GEODIFF_CACHE"):
        return pathlib.Path(given)
    if sys.platform == "win32":
        return pathlib.Path(os.environ.get("LOCALAPPDATA") or pathlib.Path.home(), "geodiff", "cache")
    if sys.platform == "darwin":
        return pathlib.Path.home() / "Library" / "Caches" / "geodiff"
    return pathlib.Path(os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache", "geodiff")


def key(*parts: str) -> str:
    """Return a name for what is made of these texts and of the kernels' headers."""
    return hashlib.sha256("\0".join([_headers(), *parts]).encode()).hexdigest()[:40]


@functools.cache
def _headers() -> str:
    """The sum of all headers that a GPU compiler may see."""
    total, root = hashlib.sha256(), header_root()
    for path in sorted(root.rglob("*")):
        if path.suffix in (".h", ".def", ".inl") and path.relative_to(root).parts[0] != "cpu":
            total.update(path.relative_to(root).as_posix().encode() + b"\0" + path.read_bytes())
    return total.hexdigest()


def file(kind: str, name: str, make: Callable[[], bytes]) -> pathlib.Path:
    """Return the file of a compiled kernel, made unless it is there and whole.

    Two processes that want it at once both make it, and the last one's stays: they are the same. Where the folder
    cannot be written, a warning says so and the file lasts as long as the process.
    """
    place = folder() / kind / name
    with contextlib.suppress(OSError):
        content = place.read_bytes()
        if hashlib.sha256(content[:-_SUM]).digest() == content[-_SUM:]:
            return place
    content = make()
    content += hashlib.sha256(content).digest()
    try:
        _write(place, content)
    except OSError as error:
        _warn_once(str(folder()), str(error))
        place = pathlib.Path(_of_process().name, name)
        _write(place, content)
    return place


def content(place: pathlib.Path) -> bytes:
    """Return what `file` was given."""
    return place.read_bytes()[:-_SUM]


def _write(place: pathlib.Path, content: bytes) -> None:
    place.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=place.parent, prefix=place.name)
    try:
        with os.fdopen(handle, "wb") as stream:
            stream.write(content)
        os.replace(temporary, place)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise


@functools.cache
def _of_process() -> "tempfile.TemporaryDirectory[str]":
    return tempfile.TemporaryDirectory(prefix="geodiff-")


@functools.cache
def _warn_once(place: str, why: str) -> None:
    text = f"geodiff: compiled kernels cannot be kept in {place} ({why}): they are compiled again in each process."
    warnings.warn(f"{text} Name a folder that can be written in GEODIFF_CACHE.", RuntimeWarning, stacklevel=4)


@contextlib.contextmanager
def scratch() -> Iterator[pathlib.Path]:
    """Give a folder to compile in, for a while."""
    with tempfile.TemporaryDirectory(prefix="geodiff-") as name:
        yield pathlib.Path(name)
