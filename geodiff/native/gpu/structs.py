# SPDX-License-Identifier: Apache-2.0
"""What kernels are handed, as ctypes: mirrors of the structs in ``cuda/*/arguments.h``, field by field.

Their sizes are compared with those of the kernel's parameters at its first launch, and their offsets by a test.
"""

import ctypes
import functools
from typing import Any

import torch

Pointer = ctypes.c_void_p
Int = ctypes.c_int
Long = ctypes.c_longlong
Double = ctypes.c_double
Struct = type[ctypes.Structure]

REALS = {torch.float32: "float", torch.float64: "double"}
"""Names of real types in C++."""

_C = {"float": ctypes.c_float, "double": ctypes.c_double}


def pointer(tensor: torch.Tensor | None) -> ctypes.c_void_p:
    """Return a tensor's address; null for None and for a tensor of nothing."""
    return ctypes.c_void_p(tensor.data_ptr() if tensor is not None and tensor.numel() else 0)


def make(kind: Struct, **fields: Any) -> ctypes.Structure:
    """Return a struct of named fields, tensors as their addresses.

    Raises:
        TypeError: where the names are not those of all fields.
    """
    names = [field[0] for field in kind._fields_]
    if sorted(names) != sorted(fields):
        raise TypeError(f"{kind.__name__} has the fields {', '.join(names)}, not {', '.join(fields)}")
    given = {n: pointer(v) if v is None or isinstance(v, torch.Tensor) else v for n, v in fields.items()}
    return kind(**given)


def _struct(name: str, **fields: Any) -> Struct:
    return type(name, (ctypes.Structure,), {"_fields_": list(fields.items())})


@functools.cache
def transport_job(real: str) -> Struct:
    """``geodiff::TransportJob<real>``."""
    return _struct(
        f"geodiff::TransportJob<{real}>", x=Pointer, y=Pointer, h=Pointer, k=Pointer, v=Pointer, out=Pointer,
        batch=Long, rows=Long, columns=Long, dim=Int, width=Int, p=Int, epsilon=Double, threads=Int,
    )  # fmt: skip


@functools.cache
def transport_slices() -> Struct:
    """``gd::TransportSlices``."""
    return _struct("gd::TransportSlices", row_blocks=Long, slices=Int, chunks=Int, most=Pointer, sum=Pointer)


OF_REALS = (transport_job,)
OTHERS = (transport_slices,)
