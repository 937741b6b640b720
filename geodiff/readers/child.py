# SPDX-License-Identifier: Apache-2.0
"""The process in which files are read apart: a request as JSON on its input, the answer on its output."""

import contextlib
import importlib
import json
import os
import struct
import sys
import time
from typing import Any, BinaryIO

import numpy as np

from geodiff.readers.shapes import Damaged, Missing

HEAD = struct.Struct("<Q")  # length of the JSON that is followed by the arrays


def perform(task: str, path: str, options: dict[str, Any]) -> tuple[dict[str, Any], list[np.ndarray]]:
    """Read a file with the function ``read`` of a module; whatever goes wrong is `Damaged` or `Missing`."""
    try:
        facts, arrays = importlib.import_module(task).read(path, **options)
    except (Damaged, Missing, KeyboardInterrupt, SystemExit):
        raise
    except MemoryError as error:
        raise Damaged("it asks for more memory than there is") from error
    except BaseException as error:  # a panic of Rust is no Exception
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        text = (str(error).strip().splitlines() or [""])[0]
        raise Damaged(f"{type(error).__name__}: {text}" if text else type(error).__name__) from error
    return facts, [np.ascontiguousarray(array) for array in arrays]


def write(stream: BinaryIO, facts: dict[str, Any], arrays: list[np.ndarray]) -> None:
    """Write JSON, then the bytes of the arrays, whose dtypes and shapes it lists."""
    listed = [[array.dtype.str, list(array.shape)] for array in arrays]
    head = json.dumps({**facts, "arrays": listed}).encode()
    stream.write(HEAD.pack(len(head)) + head)
    for array in arrays:
        stream.write(array.data.cast("B") if array.size else b"")
    stream.flush()


def main() -> None:
    """Answer one request, within limits of memory and time."""
    request = json.loads(sys.stdin.buffer.read())
    with os.fdopen(os.dup(1), "wb") as answer:
        nothing = os.open(os.devnull, os.O_RDWR)
        for stream in (0, 1, 2):  # libraries print
            os.dup2(nothing, stream)
        limit(request["memory"], request["seconds"])
        for name in request["forbidden"]:
            sys.modules[name] = None  # type: ignore[assignment]
        begin = time.perf_counter()
        try:
            facts, arrays = perform(request["task"], request["path"], request["options"])
            facts["seconds"] = time.perf_counter() - begin
        except Missing as error:
            facts, arrays = {"missing": error.needs}, []
        except Damaged as error:
            facts, arrays = {"damaged": str(error)}, []
        write(answer, facts, arrays)
    os._exit(0)  # what a library would still do, or crash in, is of no interest


def limit(memory: int, seconds: int) -> None:
    """Bound what this process may take beyond what it has now, where the system can."""
    try:
        import resource
    except ImportError:  # Windows: the parent's clock alone
        return
    taken = 0
    with contextlib.suppress(OSError, ValueError, IndexError), open("/proc/self/statm", "rb") as file:
        taken = int(file.read().split()[0]) * resource.getpagesize()
    used = sum(resource.getrusage(resource.RUSAGE_SELF)[:2])
    for kind, most in (("AS", taken + memory), ("CPU", int(used) + seconds), ("CORE", 0)):
        number = getattr(resource, f"RLIMIT_{kind}", None)
        if number is None:
            continue
        with contextlib.suppress(OSError, ValueError):  # macOS refuses some
            hard = resource.getrlimit(number)[1]
            most = most if hard == resource.RLIM_INFINITY else min(most, hard)
            resource.setrlimit(number, (most, hard))
