# SPDX-License-Identifier: Apache-2.0
"""Find the compiled CPU kernels, and call them with torch tensors."""

import functools
import importlib
from types import ModuleType

import torch


@functools.cache
def extension() -> ModuleType:
    """Return the compiled extension ``geodiff.native._cpu``.

    Raises:
        RuntimeError: if it was never built; says how to mend it.
    """
    try:
        return importlib.import_module("geodiff.native._cpu")
    except ImportError as error:
        raise RuntimeError(
            "geodiff: the compiled CPU kernels (geodiff.native._cpu) cannot be imported "
            f"({error}). Install the package with `pip install .` from its source folder, with a C++17 compiler at "
            "hand, or pass backend='reference' where a function offers it."
        ) from error


def kernels() -> list[str]:
    """List the compiled kernels by name."""
    others = ("math", "parallel_backend", "set_simd_level", "simd_level")
    return [name for name in sorted(vars(extension())) if not name.startswith("_") and name not in others]


def simd_level() -> str:
    """Name the SIMD level in use: 'baseline', 'v3' (AVX2 + FMA) or 'v4' (AVX-512)."""
    return str(extension().simd_level())


def threads() -> int:
    """Return how many threads a kernel may use: what torch itself uses."""
    return torch.get_num_threads()
