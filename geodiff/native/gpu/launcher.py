# SPDX-License-Identifier: Apache-2.0
"""One kernel, one call: built at its first use, on the device of its tensors or by the emulator, then launched."""

import ctypes
import threading
from collections.abc import Sequence
from typing import Any, Protocol

import torch

from geodiff.native.gpu import structs
from geodiff.native.gpu.emulation import current


class Built(Protocol):
    """A kernel that can be launched."""

    @property
    def sizes(self) -> Sequence[int] | None:
        """Bytes of each parameter; None where an old driver cannot tell."""

    def launch(self, grid: Sequence[int], block: Sequence[int], arguments: ctypes.Array[ctypes.c_void_p]) -> None:
        """Run it."""


MOST_BLOCKS = (2**31 - 1, 65535, 65535)
"""Of a grid, by CUDA."""

_built: dict[tuple[Any, ...], Built] = {}
_lock = threading.RLock()


def launch(header: str, name: str, grid: Sequence[int], block: int, *arguments: Any, device: torch.device) -> None:
    """Run a kernel on the device's current stream.

    Args:
        header: the file in ``cuda/`` that has it.
        name: the C++ name of its instance, as ``gd::transport_lse<float, 3, 2>``.
        grid: up to three numbers of blocks; nothing happens where one is 0.
        block: threads of a block.
        arguments: structs of `structs`, numbers as ctypes, tensors (their address) or None (a null pointer).
        device: where the tensors are.

    Raises:
        RuntimeError: if it cannot be built or launched; the message says why.
    """
    if 0 in grid:
        return
    if any(blocks > most for blocks, most in zip(grid, MOST_BLOCKS, strict=False)):
        fix = "Use fewer images, faces or points at once."
        raise RuntimeError(f"geodiff: {name}: {tuple(grid)} blocks are more than one launch may have. {fix}")
    with _lock:  # the emulator runs one launch at a time; a device's driver would not need it, and hardly notices
        emulation = current()
        key = (device.type, device.index, emulation and emulation.sanitize, header, name)
        if key not in _built:
            _built[key] = _build(header, name, device)
        kernel = _built[key]
        values = [_as_argument(argument) for argument in arguments]
        found = [ctypes.sizeof(value) for value in values]
        if kernel.sizes is not None and found != list(kernel.sizes):
            raise RuntimeError(f"{name} takes parameters of {list(kernel.sizes)} bytes, not {found}.")
        places = (ctypes.c_void_p * max(len(values), 1))(*[ctypes.addressof(value) for value in values])
        kernel.launch((*grid, 1, 1)[:3], (block, 1, 1), places)


def _build(header: str, name: str, device: torch.device) -> Built:
    if emulation := current():
        from geodiff.native.gpu import emulator

        return emulator.build(header, name, emulation.sanitize)
    from geodiff.native.gpu import driver

    return driver.build(header, name, device)


def _as_argument(value: Any) -> Any:
    if isinstance(value, torch.Tensor) or value is None:
        return structs.pointer(value)
    return value
