# SPDX-License-Identifier: Apache-2.0
"""Read a file in a process of its own, so that no file can crash, hang or fill the one that asks."""

import json
import multiprocessing.spawn
import os
import pathlib
import signal
import subprocess
import sys
from typing import Any

import numpy as np

import geodiff
from geodiff.readers import child
from geodiff.readers.shapes import Damaged

# Beyond these, reading is given up: a fixed part, and one for each megabyte of the file. Open CASCADE takes some
# 30 times a file's size, and a second for a megabyte or two.
_MEMORY = (4 << 30, 100)  # bytes, and bytes for each byte
_SECONDS = (60, 20)  # of computing, and for each MB
_PATIENCE = 4  # how much longer by the clock, where other processes compute too
_TRUST = "Where you know that the file is sound, pass trusted=True."
# Nothing is to be gained from threads but room for their stacks.
_QUIET = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "MALLOC_ARENA_MAX": "2"}
# The interpreter starts bare and is told where to look, so that it finds what this one finds, and sooner.
_START = """
import json, sys
sys.path[:] = json.loads(sys.argv[2])
from importlib.util import module_from_spec, spec_from_file_location
spec = spec_from_file_location("geodiff", sys.argv[1])
sys.modules["geodiff"] = package = module_from_spec(spec)
spec.loader.exec_module(package)
from geodiff.readers.child import main
main()
"""


def read(
    task: str, path: pathlib.Path, options: dict[str, Any], *, trusted: bool = False
) -> tuple[dict[str, Any], list[np.ndarray]]:
    """Read a file with the function ``read`` of a module, in a child process unless ``trusted``.

    The child is a new interpreter, not a fork and not `multiprocessing`, so it works from notebooks, scripts without
    ``if __name__ == "__main__"``, daemons and threads. It loads neither torch nor the caller's script, and starts in
    some 0.3 s (Open CASCADE takes 1 s). Memory and time are bounded; on Windows, time alone.

    Args:
        task: the name of the module, such as ``geodiff.readers.las``.
        path: an existing file.
        options: arguments for its ``read``; plain values.
        trusted: read in this process, without limits.

    Returns:
        what the module says, and arrays.

    Raises:
        Damaged: what is wrong with the file, without its name.
        Missing: a library is not installed.
        RuntimeError: there is no interpreter to be started.
    """
    if trusted:
        return child.perform(task, os.fspath(path), options)
    size = path.stat().st_size
    seconds = int(_SECONDS[0] + _SECONDS[1] * size / 1e6)
    request = {
        "task": task,
        "path": os.fspath(path.absolute()),
        "options": options,
        "memory": _MEMORY[0] + _MEMORY[1] * size,
        "seconds": seconds,
        # What is barred here (None in `sys.modules`) is barred there.
        "forbidden": [name for name, module in list(sys.modules.items()) if module is None],
    }
    answer = _ask(request, seconds * _PATIENCE)
    if "damaged" in answer[0]:
        raise Damaged(answer[0]["damaged"])
    if "missing" in answer[0]:
        raise child.Missing(*answer[0]["missing"])
    return answer


def _ask(request: dict[str, Any], patience: float) -> tuple[dict[str, Any], list[np.ndarray]]:
    program = os.fsdecode(multiprocessing.spawn.get_executable() or "")
    if not program or getattr(sys, "frozen", False):
        raise RuntimeError(
            "geodiff: files of this kind are read in a process of their own, and this program has no Python to start. "
            f"Name one with multiprocessing.set_executable. {_TRUST}"
        )
    places = [os.path.abspath(place) for place in sys.path]
    with subprocess.Popen(
        [program, "-s", "-S", "-W", "ignore", "-c", _START, str(geodiff.__file__), json.dumps(places)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, **_QUIET},
        creationflags=getattr(subprocess, "CREATE_NO_WINDOW", 0),
    ) as process:
        try:
            output, said = process.communicate(json.dumps(request).encode(), timeout=patience)
        except subprocess.TimeoutExpired:
            process.kill()
            raise Damaged(_late(request)) from None
        except BaseException:  # Ctrl-C
            process.kill()
            raise
    if process.returncode in (-getattr(signal, "SIGXCPU", 0), -getattr(signal, "SIGKILL", 0)):
        raise Damaged(_late(request))
    if process.returncode > 0:  # Python did not get as far as the file
        text = (said.decode(errors="replace").strip().splitlines() or [f"exit status {process.returncode}"])[-1]
        raise RuntimeError(f"geodiff: the process for reading files apart did not start ({text}). {_TRUST}")
    if process.returncode < 0 or not output:
        raise Damaged(f"the reader crashed with {_name(process.returncode)}")
    return _parsed(output)


def _late(request: dict[str, Any]) -> str:
    memory = request["memory"] / (1 << 30)
    return f"reading it took more than {request['seconds']} s or {memory:.0f} GB; {_TRUST[0].lower()}{_TRUST[1:-1]}"


def _name(status: int) -> str:
    try:
        return f"signal {-status}, {signal.Signals(-status).name}"
    except ValueError:
        return f"status {status}"


def _parsed(output: bytes) -> tuple[dict[str, Any], list[np.ndarray]]:
    start = child.HEAD.size
    end = start + child.HEAD.unpack_from(output)[0]
    facts = json.loads(output[start:end])
    arrays = []
    for kind, shape in facts.pop("arrays"):
        count = int(np.prod(shape, dtype=np.int64))
        array = np.frombuffer(output, dtype=np.dtype(kind), count=count, offset=end).reshape(shape)
        arrays.append(array.copy())
        end += array.nbytes
    return facts, arrays
