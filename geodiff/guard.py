# SPDX-License-Identifier: Apache-2.0
"""What every reader of files needs: one kind of error for damaged ones, and no belief in what only the file says."""

import contextlib
import ntpath
import os
import pathlib
from collections.abc import Iterator

from geodiff.validation import fail


@contextlib.contextmanager
def reading(
    where: str,
    path: str | os.PathLike[str],
    kind: str = "",
    *,
    argument: str = "path",
    what: str = "file",
    fix: str = "Is it damaged?",
) -> Iterator[None]:
    """Turn whatever a parser stumbles over into one ValueError that names the file and the fault.

    Passed on as they are: what our own code says of this call (errors that begin with ``where: `` and ImportErrors
    about an extra), FileNotFoundError, PermissionError, warnings that were made errors, and what is no ``Exception``,
    such as Ctrl-C. Errors of other parts of the package (``Mesh: …``) get the name of the file in front.

    Args:
        where: the public function, for the message.
        path: the file.
        kind: what it should be, such as ``"PLY"``; empty for any.
        argument: the argument's name, for the message.
        what: ``"file"``, or what else it should be.
        fix: the advice at the end.

    Raises:
        ValueError: anything in the block went wrong; the cause is chained.

    Example:
        >>> with reading("Mesh.load", "mug.ply", "PLY"):
        ...     {}["vertex"]
        Traceback (most recent call last):
        ...
        ValueError: Mesh.load: `path` must be a readable PLY file; got mug.ply (KeyError: 'vertex'). Is it damaged?
    """
    try:
        yield
    except (FileNotFoundError, PermissionError, Warning):
        raise
    except Exception as error:
        if _ours(where, error):
            raise
        expected = " ".join(["a readable", *([kind] if kind else []), what])
        raise fail(where, argument, expected, f"{os.fspath(path)} ({reason(error)})", fix) from error


def reason(error: BaseException) -> str:
    """Return one short line that says what went wrong; of a ValueError, the message alone."""
    text = (str(error).splitlines() or [""])[0].strip()
    if isinstance(error, MemoryError):
        text = "it asks for more memory than there is"
    elif isinstance(error, RecursionError):
        text = "nested too deeply"
    elif isinstance(error, ImportError):
        text = "of a kind that cannot be told"  # trimesh asks for a module that would guess the encoding of the bytes
    elif not (isinstance(error, ValueError) and text):
        text = f"{type(error).__name__}: {text}" if text else type(error).__name__
    return text if len(text) <= 300 else f"{text[:297]}..."


def _ours(where: str, error: Exception) -> bool:
    """Whether an error already speaks of this call in the house's grammar."""
    text = str(error)
    if isinstance(error, ImportError):
        return text.startswith((f"{where}: ", "geodiff"))
    return isinstance(error, ValueError | TypeError | RuntimeError) and text.startswith(f"{where}: ")


def believed(where: str, path: str | os.PathLike[str], count: float, size: float, what: str) -> int:
    """Return a count that a file's header gives, if the file is long enough to hold so many.

    Args:
        where: the public function, for the message.
        path: the file.
        count: how many, as the header says.
        size: the fewest bytes that one can take in this file.
        what: their name, such as ``"vertices"``.

    Raises:
        ValueError: a negative count, or more than the file has room for.

    Example:
        >>> believed("Mesh.load", __file__, 10**12, 12, "vertices")
        Traceback (most recent call last):
        ...
        ValueError: Mesh.load: `path` must be a file as long as its header says; got ... bytes, too few for ...
    """
    length = os.path.getsize(path)
    if not 0 <= count * size <= length:
        text = f"{os.fspath(path)} of {length} bytes, too few for {count} {what}"
        raise fail(where, "path", "a file as long as its header says", text, "It is cut short or damaged.")
    return int(count)


def inside(folder: str | os.PathLike[str], name: str, allow_outside: bool = False) -> pathlib.Path | None:
    r"""Return the path that a file means by `name`, or None where that leads out of the file's folder.

    Backslashes separate folders too. What counts is how the path is written (``..`` are taken off, links are not
    followed): whoever links a folder of pictures into another means it.

    Args:
        folder: of the file that says the name.
        name: relative to it, or absolute.
        allow_outside: take any path.

    Example:
        >>> inside("scans", "images\\0001.png").as_posix(), inside("scans", "../../etc/passwd")
        ('scans/images/0001.png', None)
    """
    if not isinstance(name, str) or "\0" in name or not name.strip():
        return None
    if os.sep != "\\":
        name = name.replace("\\", "/")
    path = pathlib.Path(os.path.normpath(os.path.join(folder, name)))
    if allow_outside:
        return path
    if ntpath.splitdrive(name)[0] and not os.path.isabs(name):  # C:/… on a system without drives
        return None
    base = os.path.abspath(folder)
    whole = os.path.abspath(path)
    return path if whole.startswith(os.path.join(base, "")) else None
