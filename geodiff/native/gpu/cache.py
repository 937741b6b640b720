# SPDX-License-Identifier: Apache-2.0
"""Compiled kernels on disk: each file ends in a sum of what it holds, so that a damaged one is made again."""

import contextlib
import functools
import hashlib
import os
import pathlib
import sys
import tempfile
from collections.abc import Callable, Iterator

from geodiff.native.gpu.headers import header_root
from geodiff.validation import warn

_SUM = 32  # bytes of a SHA-256


def folder() -> pathlib.Path:
    """Return where compiled kernels are kept: ``$GEODIFF_CACHE``, or ``geodiff`` in the user's folder of caches.

    Raises:
        RuntimeError: a user without a home, and the variable is not set.
    """
    if given := os.environ.get("GEODIFF_CACHE"):
        return pathlib.Path(given).expanduser()
    if sys.platform == "win32":
        return pathlib.Path(os.environ.get("LOCALAPPDATA") or pathlib.Path.home(), "geodiff", "cache")
    if sys.platform == "darwin":
        return pathlib.Path.home() / "Library" / "Caches" / "geodiff"
    return pathlib.Path(os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache", "geodiff")


def place() -> str:
    """Name that folder, for messages."""
    try:
        return str(folder())
    except RuntimeError:
        return "none (GEODIFF_CACHE is not set, and the user has no home)"


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


def content(kind: str, name: str, make: Callable[[], bytes]) -> bytes:
    """Return a compiled kernel, made unless it is on disk and whole.

    Two processes that want it at once both make it, and the last one's stays: they are the same. Where the folder
    cannot be written, a warning says so once, and the kernel stays in the memory of the process.
    """
    if (kind, name) in _in_memory:
        return _in_memory[kind, name]
    with contextlib.suppress(OSError, RuntimeError):
        if (found := _whole(folder() / kind / name)) is not None:
            return found
    made = make()
    try:
        _write(folder() / kind / name, made + hashlib.sha256(made).digest())
    except (OSError, RuntimeError) as error:
        _in_memory[kind, name] = made
        _warn_once(place(), str(error))
    return made


def file(kind: str, name: str, make: Callable[[], bytes]) -> pathlib.Path:
    """Return the file of what `content` returns: in the cache, or where that cannot be, in a folder of the process."""
    made = content(kind, name, make)
    if (kind, name) not in _in_memory:
        return folder() / kind / name
    spare = pathlib.Path(_of_process().name, kind, name)
    if not spare.exists():
        _write(spare, made)
    return spare


_in_memory: dict[tuple[str, str], bytes] = {}


def is_in_memory() -> bool:
    """Return whether some kernels could not be written."""
    return bool(_in_memory)


def _whole(path: pathlib.Path) -> bytes | None:
    """What a file holds; None where its sum is not that of what it holds."""
    read = path.read_bytes()
    return read[:-_SUM] if hashlib.sha256(read[:-_SUM]).digest() == read[-_SUM:] else None


def _write(path: pathlib.Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=path.name)
    try:
        with os.fdopen(handle, "wb") as stream:
            stream.write(content)
        os.chmod(temporary, 0o644)  # other users, too, may read a folder that they share
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise


@functools.cache
def _of_process() -> "tempfile.TemporaryDirectory[str]":
    return tempfile.TemporaryDirectory(prefix="geodiff-")


_warned: set[str] = set()


def _warn_once(where: str, why: str) -> None:
    if where in _warned:
        return
    _warned.add(where)
    text = f"geodiff: compiled kernels cannot be kept in {where} ({why}): they are compiled again in each process."
    warn(f"{text} Name a folder that can be written in GEODIFF_CACHE.", RuntimeWarning)


@contextlib.contextmanager
def scratch() -> Iterator[pathlib.Path]:
    """Give a folder to compile in, for a while."""
    with tempfile.TemporaryDirectory(prefix="geodiff-") as name:
        yield pathlib.Path(name)
