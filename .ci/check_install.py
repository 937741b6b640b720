# SPDX-License-Identifier: Apache-2.0
"""Checks an installed wheel without torch: all files compile, the kernels load and compute, the command answers."""

import pathlib
import py_compile
import subprocess
import sys

import numpy as np

import geodiff
from geodiff.native import _cpu

folder = pathlib.Path(geodiff.__file__).parent
files = sorted(folder.rglob("*.py"))
for file in files:
    py_compile.compile(str(file), doraise=True)
x = np.linspace(-20.0, 3.0, 1001)
y = np.empty_like(x)
_cpu.math(0, x, y)  # 0 is exp
assert np.allclose(y, np.exp(x), rtol=1e-14), "the kernels' exp"
help_text = subprocess.run(
    [sys.executable, "-m", "geodiff", "--help"], capture_output=True, text=True, check=True
).stdout
assert "fit-mesh" in help_text
print(f"Python {sys.version.split()[0]}: {len(files)} files, {_cpu.simd_level()} kernels")
