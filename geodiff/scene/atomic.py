# SPDX-License-Identifier: Apache-2.0
"""Write files so that they appear whole or not at all."""

import contextlib
import os
import pathlib
import re
import shutil
import socket
import tempfile
import time
from collections.abc import Iterator

from geodiff.validation import fail

_ASIDE = re.compile(r"\.geodiff-(?:(?P<pid>\d+)-(?P<host>[^/]*)-)?[a-z0-9_]{8}")
_TOLD = re.compile(r"[\w.]+: `\w+` must be ")  # an error of geodiff's own
_OLD = 24 * 3600.0  # seconds, after which a folder aside is nobody's, if whose it is cannot be told
_swept: set[pathlib.Path] = set()  # folders that this process has looked at


@contextlib.contextmanager
def replacing(path: str | os.PathLike[str], where: str = "save") -> Iterator[pathlib.Path]:
    """Yield a path to write to; at the end of the block move what was written to ``path``.

    The path yielded has the same name, in a new folder beside the target, which is made where missing. Whatever else
    the block writes into that folder is moved too, before the file itself. If the block fails, nothing is moved and
    an older file stays as it was. A process that is killed leaves the folder; the next one that writes there removes
    it.

    Args:
        path: the file to make.
        where: the public function, for the message.

    Raises:
        OSError: the folder cannot be made or written to, ``path`` is a folder, or the disk is full.

    Example:
        >>> import pathlib, tempfile
        >>> target = pathlib.Path(tempfile.mkdtemp()) / "note.txt"
        >>> with replacing(target) as part:
        ...     _ = part.write_text("whole")
        >>> target.read_text()
        'whole'
    """
    target = pathlib.Path(path).absolute()
    if target.is_dir():
        raise fail(where, "path", "a file", f"the folder {target}", "Name a file in it.", IsADirectoryError)
    with folder_aside(target.parent, where, target) as folder:
        yield folder / target.name
        others = [part for part in sorted(folder.iterdir()) if part.name != target.name]
        for part in (*others, folder / target.name):
            os.replace(part, target.parent / part.name)


@contextlib.contextmanager
def folder_aside(
    parent: pathlib.Path, where: str, target: pathlib.Path, argument: str = "path"
) -> Iterator[pathlib.Path]:
    """Yield a new folder in another, to write to before files are moved; it is gone afterwards.

    Args:
        parent: the folder around it, made where missing.
        where: the public function, for the message.
        target: what is being written, for the message.
        argument: of the public function, which named it.

    Raises:
        OSError: the folder cannot be made, or something in the block cannot be written; says the target.
    """
    try:
        parent.mkdir(parents=True, exist_ok=True)
        if parent.absolute() not in _swept:
            swept(parent)
        # A host's name may be long, and a file's must not be.
        mine = f".geodiff-{os.getpid()}-{socket.gethostname()[:64]}-"
        folder = pathlib.Path(tempfile.mkdtemp(prefix=mine, dir=parent))
    except OSError as error:
        expected = f"{'a' if argument == 'folder' else 'in a'} folder that can be written to"
        raise fail(where, argument, expected, f"{target} ({error})", "Choose another.", OSError) from error
    try:
        yield folder
    except OSError as error:
        if _TOLD.match(str(error)):  # of a writer within; what it names is where the file was to go in the end
            raise type(error)(str(error).replace(f"{folder}{os.sep}", f"{parent}{os.sep}")) from error
        # Pillow's have no number, and may have no words.
        got = f"{target} ({error.strerror or error or type(error).__name__})"
        fix = "Free some space, or choose another place; nothing was written."
        raise fail(where, argument, "where there is a folder with room for it", got, fix, OSError) from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def swept(folder: pathlib.Path) -> None:
    """Remove what killed processes left in a folder: folders aside of no process that lives.

    Of a process of another machine, or of a release that did not write its number into the name, it is not known
    whether it lives: what it left is removed when it is a day old.

    Args:
        folder: to look at, not what is within its folders.
    """
    _swept.add(folder.absolute())
    with contextlib.suppress(OSError):
        for entry in os.scandir(folder):
            found = _ASIDE.fullmatch(entry.name)
            if found is None or not entry.is_dir(follow_symlinks=False):
                continue
            if found["pid"] and found["host"] == socket.gethostname()[:64]:
                gone = not alive(int(found["pid"]), socket.gethostname())
            else:
                gone = time.time() - entry.stat(follow_symlinks=False).st_mtime > _OLD
            if gone:
                shutil.rmtree(entry.path, ignore_errors=True)


def alive(pid: int, host: str) -> bool:
    """Whether a process lives, as far as this machine can tell: those of other machines do."""
    if host != socket.gethostname() or os.name != "posix":
        return True
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:  # of another user
        return True
    return True
