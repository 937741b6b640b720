# SPDX-License-Identifier: Apache-2.0
"""Builds kernels with the host's C++ compiler and runs them as a GPU would: see ``cuda/emulated/execution.h``."""

import ctypes
import os
import pathlib
import shutil
import subprocess
from collections.abc import Sequence

from geodiff.native.gpu import cache
from geodiff.native.gpu.emulation import ORDERS, Emulation, current
from geodiff.native.gpu.headers import header_root

FLAGS = ("-O2", "-std=c++17", "-fPIC", "-shared", "-w", "-ffp-contract=off", "-fno-math-errno", "-DGEODIFF_EMULATED")


class Kernel:
    """A kernel in a library of its own."""

    def __init__(self, name: str, library: pathlib.Path) -> None:
        self.name, self.library = name, library
        loaded = ctypes.CDLL(str(library))
        self._run = loaded.geodiff_launch
        self._run.restype = ctypes.c_char_p
        found = (ctypes.c_longlong * 64)()
        self.sizes = [found[i] for i in range(loaded.geodiff_sizes(found))]

    def launch(self, grid: Sequence[int], block: Sequence[int], arguments: ctypes.Array[ctypes.c_void_p]) -> None:
        """Run all blocks, one after another."""
        three = ctypes.c_uint * 3
        now = current() or Emulation()
        order = ORDERS.index(now.order)
        fault = self._run(three(*grid), three(*block), arguments, order, ctypes.c_uint(now.seed))
        if fault:
            raise RuntimeError(f"{self.name}, emulated, {tuple(grid)} blocks of {block[0]} threads: {fault.decode()}.")


def build(header: str, name: str, sanitize: str = "") -> Kernel:
    """Compile a kernel, or take it from the cache.

    Raises:
        RuntimeError: where there is no C++ compiler, or it refuses the source; the message has its log.
    """
    compiler = os.environ.get("CXX") or shutil.which("g++") or shutil.which("c++")
    if not compiler:
        raise RuntimeError("The emulator needs a C++ compiler: install g++, or name one in the variable CXX.")
    source = (
        f'#include "emulated/execution.h"\n#include "{header}"\n'
        'extern "C" const char* geodiff_launch(const unsigned* grid, const unsigned* block, void** arguments, '
        f"int order, unsigned seed) {{\n  return emulated::launch(&{name}, grid, block, arguments, order, seed);\n}}\n"
        f'extern "C" int geodiff_sizes(long long* out) {{ return emulated::sizes(&{name}, out); }}\n'
    )
    flags = [*FLAGS, f"-I{header_root()}"]
    if sanitize:
        flags += [f"-fsanitize={sanitize}", "-fno-omit-frame-pointer", "-g1"]

    def compiled() -> bytes:
        with cache.scratch() as folder:
            unit, library = folder / "unit.cpp", folder / "unit.so"
            unit.write_text(source)
            done = subprocess.run([compiler, *flags, "-o", str(library), str(unit)], capture_output=True, text=True)
            if done.returncode:
                raise RuntimeError(f"{compiler} could not compile {name}:\n{done.stderr[:4000]}")
            return library.read_bytes()

    key = cache.key(source, compiler, *flags)
    return Kernel(name, cache.file("emulated", f"{key}.so", compiled))
