# SPDX-License-Identifier: Apache-2.0
"""One process at a time in an output folder, and a folder swept of what killed ones left."""

import contextlib
import errno
import json
import os
import pathlib
import socket
import sys
import tempfile
from collections.abc import Iterator
from typing import Any, BinaryIO

from geodiff.scene.atomic import alive, swept
from geodiff.validation import fail

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

LOCK = ".geodiff-lock"


@contextlib.contextmanager
def output_folder(where: str, output: str | os.PathLike[str] | None) -> Iterator[pathlib.Path | None]:
    """Make the output folder, prove that it can be written to, and hold it until the end of the block.

    The system holds the lock for as long as the process lives, so one that a killed process left is taken over. Where
    the file system has no locks, the file says whose it is, and one of a process that is gone is taken over.

    Args:
        where: the job.
        output: the folder; None: there is none.

    Yields:
        Its path, or None.

    Raises:
        OSError: it cannot be made or written to.
        ValueError: another process holds it; says which.
    """
    if output is None:
        yield None
        return
    folder = check_folder(where, output)
    with _held(where, folder):
        swept(folder)
        yield folder


def check_folder(where: str, output: str | os.PathLike[str]) -> pathlib.Path:
    """Make the output folder and prove that it can be written to, before the work starts.

    Raises:
        OSError: it cannot be made or written to.
    """
    folder = pathlib.Path(output)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        got = f"{folder} ({error})"
        raise fail(where, "output", "a folder that can be written to", got, "Choose another.", OSError) from error
    return folder


@contextlib.contextmanager
def _held(where: str, folder: pathlib.Path) -> Iterator[None]:
    path = folder / LOCK
    while True:
        try:
            file = path.open("a+b")
        except OSError as error:
            got = f"{path} ({error})"
            raise fail(where, "output", "a folder that can be written to", got, "Choose another.", OSError) from error
        holder = _holder(file)
        if not _locked(file, holder):
            file.close()
            raise _busy(where, path, holder)
        # Whoever held it may have removed the file between our opening and our locking it.
        with contextlib.suppress(OSError):
            if os.path.samestat(os.fstat(file.fileno()), path.stat()):
                break
        file.close()
    try:
        try:
            file.truncate(0)
            file.write(json.dumps({"pid": os.getpid(), "host": socket.gethostname(), "job": where}).encode())
            file.flush()
        except OSError as error:
            raise fail(where, "output", "a folder with room on its disk", f"{path} ({error})", error=OSError) from error
        yield
    finally:
        if sys.platform == "win32":  # where no open file can be removed
            file.close()
        with contextlib.suppress(OSError):  # the folder may be gone
            path.unlink()
        with contextlib.suppress(OSError):
            file.close()


def _holder(file: BinaryIO) -> dict[str, Any]:
    """Return what a lock says of its process; nothing where it says nothing that can be read."""
    file.seek(0)
    try:
        holder = json.loads(file.read(4096))
        return {"pid": int(holder["pid"]), "host": str(holder["host"]), "job": str(holder["job"])}
    except (ValueError, TypeError, KeyError, OverflowError):
        return {}


def _locked(file: BinaryIO, holder: dict[str, Any]) -> bool:
    """Whether the lock is ours now."""
    if fcntl is not None:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except OSError as error:
            if error.errno in (errno.EWOULDBLOCK, errno.EACCES):
                return False
    return not holder or not alive(holder["pid"], holder["host"])


def _busy(where: str, path: pathlib.Path, holder: dict[str, Any]) -> Exception:
    whose = f"process {holder['pid']} on {holder['host']} ({holder['job']})" if holder else "another process"
    fix = "Wait for it or end it, or choose another output folder."
    if holder and holder["host"] != socket.gethostname():
        fix = f"Wait for it or end it; if it is gone, remove {path}; or choose another output folder."
    return fail(where, "output", "a folder that no other process writes to", f"{path.parent}, held by {whose}", fix)
