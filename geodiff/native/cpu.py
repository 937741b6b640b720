# SPDX-License-Identifier: Apache-2.0
"""Find the compiled CPU kernels, and call them with torch tensors."""

import functools
import importlib
import os
from types import ModuleType

import torch

from geodiff.validation import fail


@functools.cache
def extension() -> ModuleType:
    """Return the compiled extension ``geodiff.native._cpu``.

    The environment variable ``GEODIFF_SIMD`` names the SIMD level of its kernels (``baseline``, ``v3`` or ``v4``);
    without it, they use the widest that this machine has.

    Raises:
        RuntimeError: if it was never built; says how to mend it.
        ValueError: if ``GEODIFF_SIMD`` names a level that is unknown, or that this machine or this build lacks.
    """
    try:
        module = importlib.import_module("geodiff.native._cpu")
    except ImportError as error:
        raise RuntimeError(
            "geodiff: the compiled CPU kernels (geodiff.native._cpu) cannot be imported "
            f"({error}). Install the package with `pip install .` from its source folder, with a C++17 compiler at "
            "hand, or pass backend='reference' where a function offers it."
        ) from error
    wanted = os.environ.get("GEODIFF_SIMD", "")
    if wanted and wanted not in module.simd_levels():
        fix = "Leave the variable out to use the widest."
        raise fail("geodiff", "GEODIFF_SIMD", f"one of {', '.join(module.simd_levels())} on this machine", wanted, fix)
    if wanted:
        module.set_simd_level(wanted)
    return module


def simd_levels() -> tuple[str, ...]:
    """Name the SIMD levels that this machine and this build have, the widest last."""
    return tuple(extension().simd_levels())


def kernels() -> list[str]:
    """Name the compiled kernels."""
    return list(extension().kernels())


def simd_level() -> str:
    """Name the SIMD level in use: 'baseline', 'v3' (AVX2 + FMA) or 'v4' (AVX-512)."""
    return str(extension().simd_level())


def threads() -> int:
    """Return how many threads a kernel may use: what torch itself uses."""
    return torch.get_num_threads()
