# SPDX-License-Identifier: Apache-2.0
"""Poisson reconstruction in a process of its own, while this one goes on: Open3D keeps the interpreter to itself."""

import contextlib
import importlib.util
import multiprocessing.spawn
import os
import subprocess
import sys
import threading
from types import TracebackType

import numpy as np

from geodiff.atlas import poisson_worker

# The interpreter starts bare and is told where to look, so that it finds what this one finds, and sooner. Before that
# it would import what happens to lie in the working directory.
_START = """
import sys
sys.path[:] = sys.argv[2:]
import runpy
runpy.run_path(sys.argv[1], run_name="__main__")
"""


class Beside:
    """A process that has Open3D and solves once; it ends with the block. Same bits as in this process.

    Whatever goes wrong in it, or if there is none, `result` is None: then it is to be done here.

    Args:
        wanted: False: no process. There is none without Open3D, either.

    Example:
        ``with Beside() as beside: beside.ask(places, normals, 8, 1); …; found = beside.result()``
    """

    def __init__(self, wanted: bool = True) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._thread: threading.Thread | None = None
        self._answer = b""
        program = os.fsdecode(multiprocessing.spawn.get_executable() or "")
        if not (wanted and program and not getattr(sys, "frozen", False) and _installed()):
            return
        try:
            places = [os.path.abspath(place) for place in sys.path if isinstance(place, str)]
            self._process = subprocess.Popen(
                [program, "-s", "-S", "-W", "ignore", "-c", _START, poisson_worker.__file__, *places],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                creationflags=getattr(subprocess, "CREATE_NO_WINDOW", 0),
            )
        except OSError:  # no more processes, no interpreter, no working directory: then without
            return

    def __enter__(self) -> "Beside":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process is None:
            return
        self._process.kill()
        if self._thread is not None:
            self._thread.join()
        self._process.__exit__(kind, error, trace)

    def ask(self, places: np.ndarray, normals: np.ndarray, depth: int, threads: int) -> None:
        """Begin to reconstruct the surface through places (N, 3) in [0, 1]³ with normals (N, 3)."""
        if self._process is None or self._thread is not None:
            return
        question = poisson_worker.packed(places, normals, np.array([depth, threads]))
        process = self._process

        def talk() -> None:
            with contextlib.suppress(OSError, ValueError):  # an interrupted join may let the pipes be closed under it
                self._answer = process.communicate(question)[0]

        self._thread = threading.Thread(target=talk, daemon=True)
        self._thread.start()

    def result(self) -> tuple[np.ndarray, np.ndarray] | None:
        """Wait for the vertices (V, 3) and faces (F, 3) of what was asked; None where they are to be found here."""
        if self._process is None or self._thread is None:
            return None
        self._thread.join()
        if self._process.returncode:
            return None
        try:
            vertices, faces = poisson_worker.unpacked(self._answer, 2)
        except (ValueError, EOFError, OSError):
            return None
        return vertices, faces


def _installed() -> bool:
    try:
        return importlib.util.find_spec("open3d") is not None
    except (ImportError, ValueError):  # hidden, or a stand-in
        return False
