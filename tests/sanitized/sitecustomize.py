# SPDX-License-Identifier: Apache-2.0
"""Have Python import the kernels of another build: with this folder in PYTHONPATH, GEODIFF_KERNELS says which.

`make test-asan` uses it, so that child processes have the sanitizers too.
"""

import importlib.machinery
import importlib.util
import os
import sys
from typing import Any


class _Finder:
    def find_spec(self, name: str, path: Any = None, target: Any = None) -> importlib.machinery.ModuleSpec | None:
        file = os.environ.get("GEODIFF_KERNELS")
        if name != "geodiff.native._cpu" or not file:
            return None
        return importlib.util.spec_from_file_location(name, file)


sys.meta_path.insert(0, _Finder())
