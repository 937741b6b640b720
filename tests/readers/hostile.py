# SPDX-License-Identifier: Apache-2.0
"""A reader that does what libraries do with damaged files; it runs in the child process."""

import os
import pathlib
import sys
import time
from typing import Any

import numpy as np


def read(path: str, *, what: str) -> tuple[dict[str, Any], list[np.ndarray]]:
    if what == "crash":
        os.abort()
    if what == "exit":
        os._exit(0)
    if what == "hang":
        while True:
            pass
    if what == "sleep":
        time.sleep(60)
    if what == "fill":
        return {}, [np.ones(1 << 40, dtype=np.uint8)]
    if what == "raise":
        raise LookupError("no such\nthing")
    if what == "print":
        print("noise")
        os.write(1, b"more noise")
        print("noise", file=sys.stderr)
    kinds = [np.arange(6.0).reshape(2, 3), np.zeros((0, 3)), np.array(7), np.arange(4, dtype=np.int32)[::2]]
    return {"pid": os.getpid(), "modules": sorted(sys.modules), "text": "é"}, kinds


def ask(path: pathlib.Path, queue: Any) -> None:
    """Read in a process of a process."""
    from geodiff.readers import apart

    queue.put(len(apart.read("tests.readers.hostile", path, {"what": "print"})[1]))
