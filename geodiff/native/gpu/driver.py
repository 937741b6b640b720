# SPDX-License-Identifier: Apache-2.0
"""Loads and launches kernels on an NVIDIA GPU: the one file that talks to its driver."""

import ctypes
import functools
import os
from collections.abc import Sequence
from types import ModuleType
from typing import Any

import torch

from geodiff.native.gpu import cache, compiler

_OLDEST = 12000  # CUDA 12.0: libraries that belong to no context
_TELLS_SIZES = 12040  # CUDA 12.4: sizes of a kernel's parameters


class Kernel:
    """A kernel on one device."""

    def __init__(self, name: str, handle: Any, device: torch.device, arch: str, sizes: list[int] | None) -> None:
        self.name, self.device, self.arch, self.sizes = name, device, arch, sizes
        self._handle = handle
        self._launch = _driver().cuLaunchKernel
        self._waits = os.environ.get("GEODIFF_SYNC", "") == "1"

    def launch(self, grid: Sequence[int], block: Sequence[int], arguments: ctypes.Array[ctypes.c_void_p]) -> None:
        """Put it on torch's current stream; with ``GEODIFF_SYNC=1`` also wait for its end, so that its faults show."""
        with torch.cuda.device(self.device):  # the context, too, in threads of autograd's that have none yet
            stream = torch.cuda.current_stream().cuda_stream
            (status,) = self._launch(self._handle, *grid, *block, 0, stream, ctypes.addressof(arguments), 0)
            what = f"{self.name} on {self.device} ({self.arch}), {tuple(grid)} blocks of {block[0]} threads"
            _check(status, what=what)
            if self._waits and not torch.cuda.is_current_stream_capturing():
                try:
                    torch.cuda.synchronize()
                except RuntimeError as error:
                    raise RuntimeError(f"geodiff: {what}: {error}") from error


def build(header: str, name: str, device: torch.device) -> Kernel:
    """Compile a kernel for a device, or take it from the cache, and load it.

    Raises:
        RuntimeError: where there is no NVRTC, or the driver refuses, or a CUDA graph is being captured; the message has
            the compiler's log, or what to do.
    """
    driver, arch = _driver(), architecture(device)
    with torch.cuda.device(device):
        if torch.cuda.is_current_stream_capturing():
            fix = "Do once before, with tensors of the same kinds, what the graph is to hold."
            raise RuntimeError(
                f"geodiff: {name} is not loaded yet, and cannot be while a CUDA graph is captured. {fix}"
            )
        code, lowered = compiler.kernel(header, name, arch)
        where = f"{name} on {device} ({arch})"
        library = _check(*driver.cuLibraryLoadData(code, [], [], 0, [], [], 0), what=f"loading {where}")
        handle = _check(*driver.cuLibraryGetKernel(library, lowered.encode()), what=f"finding {where}")
    return Kernel(name, handle, device, arch, _sizes(driver, handle))


def _sizes(driver: ModuleType, handle: Any) -> list[int] | None:
    """Bytes of each parameter of a kernel; None where the driver cannot tell."""
    if _number(driver) < _TELLS_SIZES:
        return None
    sizes: list[int] = []
    while True:
        status, *found = driver.cuKernelGetParamInfo(handle, len(sizes))
        if status != driver.CUresult.CUDA_SUCCESS:
            return sizes
        sizes.append(int(found[1]))


def architecture(device: torch.device) -> str:
    """Name a device's architecture, as ``sm_90``.

    Raises:
        RuntimeError: there is no such device, or this torch knows none.
    """
    try:
        major, minor = torch.cuda.get_device_capability(device)
    except AssertionError as error:  # of torch's: it was built without CUDA, or has fewer devices
        count = torch.cuda.device_count()
        there = (
            f"torch finds {count} device{'s' * (count != 1)}, from cuda:0 on" if count else "torch finds no GPU here"
        )
        raise RuntimeError(f"geodiff: {device} is not there ({error}): {there}. Use another, or .cpu().") from error
    return f"sm_{major}{minor}"


def version() -> str | None:
    """Return the newest CUDA that the driver knows, as ``13.0``; None where there is no driver."""
    try:
        number = _number(_loaded())
    except RuntimeError:
        return None
    return f"{number // 1000}.{number % 1000 // 10}"


def _number(driver: ModuleType) -> int:
    """The newest CUDA that the driver knows, as 13000 for 13.0."""
    return int(_check(*driver.cuDriverGetVersion(), what="the driver's version"))


@functools.cache
def _driver() -> ModuleType:
    """The bindings of the driver, once it has been found, has started and is new enough."""
    if torch.version.hip:
        raise RuntimeError(
            "geodiff: its kernels are for NVIDIA's GPUs, and this torch was built for AMD's. Use .cpu()."
        )
    driver = _loaded()
    (status,) = driver.cuInit(0)
    if status != driver.CUresult.CUDA_SUCCESS:
        fix = "Look at what `nvidia-smi` says, or use .cpu()."
        raise RuntimeError(f"geodiff: the CUDA driver does not start ({status.name}). {fix}")
    if _number(driver) < _OLDEST:
        fix = "Update NVIDIA's driver, or use .cpu()."
        raise RuntimeError(f"geodiff: the driver knows CUDA {version()}, kernels need 12.0 or newer. {fix}")
    return driver


@functools.cache
def _loaded() -> ModuleType:
    """The bindings of the driver, once it has been found."""
    try:
        from cuda.bindings import driver
    except ImportError as error:
        fix = f"Install them with: pip install '{compiler.extra()}'."
        raise RuntimeError(f"geodiff: the CUDA bindings were not found ({error}). {fix}") from error
    try:
        driver.cuDriverGetVersion()
    except (RuntimeError, OSError) as error:
        fix = "Install NVIDIA's driver, or use .cpu()."
        raise RuntimeError(f"geodiff: there is no CUDA driver on this machine ({error}). {fix}") from error
    return driver


_LOST = "This process can use the device no more: start it again, with GEODIFF_SYNC=1, which names the kernel."
_FIXES = {
    "CUDA_ERROR_OUT_OF_MEMORY": "Free memory on the device, or render smaller or fewer images at once.",
    "CUDA_ERROR_ILLEGAL_ADDRESS": _LOST,
    "CUDA_ERROR_MISALIGNED_ADDRESS": _LOST,
    "CUDA_ERROR_LAUNCH_FAILED": _LOST,
    "CUDA_ERROR_ASSERT": _LOST,
    "CUDA_ERROR_LAUNCH_TIMEOUT": "It ran longer than a display's GPU allows: use fewer faces or images at once.",
    "CUDA_ERROR_INVALID_VALUE": "It is more than one launch may have: use fewer images or points at once.",
    "CUDA_ERROR_STREAM_CAPTURE_INVALIDATED": "Capture the graph again; something before it cannot be in a graph.",
}
_REFUSED = ("NO_BINARY_FOR_GPU", "UNSUPPORTED_PTX_VERSION", "INVALID_IMAGE", "INVALID_PTX", "INVALID_SOURCE")


def _check(status: Any, *values: Any, what: str) -> Any:
    """Return what a call of the driver's gave beside its status, or raise where the status is an error."""
    if status != _loaded().CUresult.CUDA_SUCCESS:
        fix = _FIXES.get(status.name, "")
        if status.name.removeprefix("CUDA_ERROR_") in _REFUSED:
            fix = (
                f"The driver knows CUDA {version()}, NVRTC is {compiler.version()}: a driver of an older major version "
            )
            fix += "must be updated, or NVRTC replaced by one as old, pip install 'geodiff[cuda12]'. "
            fix += f"If it is not older, empty {cache.place()}."
        raise RuntimeError(f"geodiff: {what}: {status.name}. {fix}".rstrip())
    return values[0] if values else None
