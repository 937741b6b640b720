# SPDX-License-Identifier: Apache-2.0
"""Loads and launches kernels on an NVIDIA GPU: the one file that talks to its driver."""

import ctypes
import functools
import os
from collections.abc import Sequence
from types import ModuleType
from typing import Any

import torch

from geodiff.native.gpu import compiler


class Kernel:
    """A kernel on one device."""

    def __init__(self, name: str, handle: Any, device: torch.device, arch: str, sizes: list[int]) -> None:
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
            if self._waits:
                try:
                    torch.cuda.synchronize()
                except RuntimeError as error:
                    raise RuntimeError(f"{what}: {error}") from error


def build(header: str, name: str, device: torch.device) -> Kernel:
    """Compile a kernel for a device, or take it from the cache, and load it.

    Raises:
        RuntimeError: where there is no NVRTC, or the driver refuses; the message has the compiler's log.
    """
    driver, arch = _driver(), architecture(device)
    code, lowered = compiler.kernel(header, name, arch)
    with torch.cuda.device(device):
        torch.cuda.current_stream()
        library = _check(*driver.cuLibraryLoadData(code, [], [], 0, [], [], 0), what=f"loading {name} on {device}")
        handle = _check(*driver.cuLibraryGetKernel(library, lowered.encode()), what=f"finding {name} on {device}")
        sizes: list[int] = []
        while True:
            status, *found = driver.cuKernelGetParamInfo(handle, len(sizes))
            if status != driver.CUresult.CUDA_SUCCESS:
                break
            sizes.append(int(found[1]))
    return Kernel(name, handle, device, arch, sizes)


def architecture(device: torch.device) -> str:
    """Name a device's architecture, as ``sm_90``."""
    major, minor = torch.cuda.get_device_capability(device)
    return f"sm_{major}{minor}"


def version() -> str | None:
    """Return the newest CUDA that the driver knows, as ``13.0``; None where there is no driver."""
    try:
        driver = _driver()
        status, number = driver.cuDriverGetVersion()
    except RuntimeError:
        return None
    return f"{number // 1000}.{number % 1000 // 10}" if status == driver.CUresult.CUDA_SUCCESS else None


@functools.cache
def _driver() -> ModuleType:
    """The bindings of the driver, once it has been found."""
    try:
        from cuda.bindings import driver

        (status,) = driver.cuInit(0)
    except (ImportError, RuntimeError) as error:
        if isinstance(error, ImportError):
            fix = "Install them with: pip install 'geodiff[cuda]'."
            raise RuntimeError(f"geodiff: the CUDA bindings were not found ({error}). {fix}") from error
        fix = "Install NVIDIA's driver, or use .cpu()."
        raise RuntimeError(f"geodiff: there is no CUDA driver on this machine ({error}). {fix}") from error
    if status != driver.CUresult.CUDA_SUCCESS:
        fix = "Look at `nvidia-smi`, or use .cpu()."
        raise RuntimeError(f"geodiff: the CUDA driver does not start ({status.name}). {fix}")
    return driver


_FIXES = {
    "CUDA_ERROR_NO_BINARY_FOR_GPU": "The cache is of another device: empty the folder that `geodiff info` names.",
    "CUDA_ERROR_UNSUPPORTED_PTX_VERSION": "The driver is older than NVRTC: update it.",
    "CUDA_ERROR_OUT_OF_MEMORY": "Free memory on the device, or render smaller or fewer images at once.",
    "CUDA_ERROR_ILLEGAL_ADDRESS": "Run again with GEODIFF_SYNC=1, which names the kernel.",
}


def _check(status: Any, *values: Any, what: str = "") -> Any:
    """Return what a call of the driver's gave beside its status, or raise where the status is an error."""
    if status != _driver().CUresult.CUDA_SUCCESS:
        raise RuntimeError(f"geodiff: {what}: {status.name}. {_FIXES.get(status.name, '')}".rstrip())
    return values[0] if values else None
