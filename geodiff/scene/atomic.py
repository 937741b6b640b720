# SPDX-License-Identifier: Apache-2.0
"""Write files so that they appear whole or not at all."""

import contextlib
import os
import pathlib
import shutil
import tempfile
from collections.abc import Iterator

from geodiff.validation import fail


@contextlib.contextmanager
def replacing(path: str | os.PathLike[str], where: str = "save") -> Iterator[pathlib.Path]:
    """Yield a path to write to; at the end of the block move what was written to ``path``.

    The path yielded has the same name, in a new folder beside the target, which is made where missing. Whatever else
    the block writes into that folder is moved too, before the file itself. If the block fails, nothing is moved and
    an older file stays as it was.

    Args:
        path: the file to make.
        where: the public function, for the message.

    Raises:
        OSError: the folder cannot be made or written to, or ``path`` is a folder.

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
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        folder = pathlib.Path(tempfile.mkdtemp(prefix=".geodiff-", dir=target.parent))
    except OSError as error:
        raise fail(
            where, "path", "in a folder that can be written to", f"{target} ({error})", "Choose another.", OSError
        ) from error
    try:
        yield folder / target.name
        others = [part for part in sorted(folder.iterdir()) if part.name != target.name]
        for part in (*others, folder / target.name):
            os.replace(part, target.parent / part.name)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
