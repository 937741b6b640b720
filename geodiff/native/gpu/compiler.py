# SPDX-License-Identifier: Apache-2.0
"""Compiles kernels from the headers in ``cuda/`` at run time with NVRTC, which needs no GPU and no CUDA toolkit."""

import functools
import json
import pathlib
from collections.abc import Sequence
from types import ModuleType
from typing import Any

import torch

from geodiff.native.gpu import cache
from geodiff.native.gpu.headers import header_root


def compile_cubin(
    source: str,
    names: Sequence[str] = (),
    arch: str = "sm_80",
    include: pathlib.Path | None = None,
    options: Sequence[str] = (),
    log: list[str] | None = None,
) -> tuple[bytes, dict[str, str]]:
    """Compile CUDA C++17 source to a CUBIN for one architecture.

    A CUBIN is compiled for the very device rather than PTX, because a driver refuses PTX that is newer than itself.

    Args:
        source: The text of one translation unit; its includes are looked up under ``include``.
        names: Name expressions of kernels to instantiate, such as ``"gd::forward<float, gd::Logistic>"``.
        arch: The real architecture, ``sm_80`` for example; ``compute_80`` gives PTX instead.
        include: The include path; ``header_root()`` unless given.
        options: Further NVRTC options.
        log: Gets what the compiler says of a source that it takes.

    Returns:
        The CUBIN, and for each name expression the mangled name under which the CUBIN has it.

    Raises:
        RuntimeError: If NVRTC is absent, or refuses the source; the message has NVRTC's log.

    Example:
        >>> source = "template <class T> __global__ void fill(T* x, T value) { x[threadIdx.x] = value; }"
        >>> cubin, lowered = compile_cubin(source, ["fill<float>"], arch="sm_90")  # doctest: +SKIP
    """
    nvrtc = _load()
    flags = [f"--gpu-architecture={arch}", "--std=c++17", f"-I{include or header_root()}", *options]
    program = _call(nvrtc, nvrtc.nvrtcCreateProgram(source.encode(), b"geodiff.cu", 0, [], []))
    try:
        for name in names:
            _call(nvrtc, nvrtc.nvrtcAddNameExpression(program, name.encode()))
        (status,) = nvrtc.nvrtcCompileProgram(program, len(flags), [flag.encode() for flag in flags])
        said = _room(_call(nvrtc, nvrtc.nvrtcGetProgramLogSize(program)))
        _call(nvrtc, nvrtc.nvrtcGetProgramLog(program, said))
        text = said.rstrip(b"\0 \n").decode(errors="replace")
        if log is not None:
            log.append(text)
        if status != nvrtc.nvrtcResult.NVRTC_SUCCESS:
            raise RuntimeError(f"NVRTC could not compile for {arch} ({status.name}):\n{text}")
        form = "PTX" if arch.startswith("compute_") else "CUBIN"
        cubin = _room(_call(nvrtc, getattr(nvrtc, f"nvrtcGet{form}Size")(program)))
        _call(nvrtc, getattr(nvrtc, f"nvrtcGet{form}")(program, cubin))
        lowered = {name: _call(nvrtc, nvrtc.nvrtcGetLoweredName(program, name.encode())).decode() for name in names}
        return cubin, lowered
    finally:
        nvrtc.nvrtcDestroyProgram(program)


def _room(size: int) -> bytes:
    """Return bytes of a length for C to write to: at least two, as shorter ones are shared by all of Python."""
    return bytes(max(size, 2))


_UNFUSED = tuple(f"raster/{name}_kernels.h" for name in ("hard", "fragments", "heaviest", "jumps", "contour"))
"""Files in which products must not be fused with sums: what decides which face a pixel sees, or counts what another
kernel then writes. Compilers fuse the same text otherwise in another kernel."""


def options_of(header: str, name: str) -> tuple[str, ...]:
    """Return the options that a kernel is compiled with."""
    # Its faces are those of these files, too: where one is degenerate, all must say so.
    unfused = header in _UNFUSED or name.startswith("gd::silhouette_setup<")
    return ("-lineinfo", "--fmad=false") if unfused else ("-lineinfo",)


def kernel(header: str, name: str, arch: str) -> tuple[bytes, str]:
    """Return a kernel for an architecture, from the cache or compiled, and its mangled name.

    Where NVRTC does not know the architecture it is PTX for the newest one before, which the driver translates.

    Raises:
        RuntimeError: where there is no NVRTC, or it refuses the source or the architecture.
    """
    options, arch = options_of(header, name), known(arch)

    def compiled() -> bytes:
        code, lowered = compile_cubin(f'#include "{header}"\n', [name], arch, options=options)
        return json.dumps({"kernel": name, "lowered": lowered[name]}).encode() + b"\n" + code

    key = cache.key(header, name, version(), arch, *options)
    about, _, code = cache.content(arch, f"{key}.cubin", compiled).partition(b"\n")
    return code, json.loads(about)["lowered"]


def known(arch: str) -> str:
    """Return an architecture as NVRTC compiles for it: itself, or ``compute_`` and the newest before, for PTX.

    Raises:
        RuntimeError: it is older than all that NVRTC knows.
    """
    number = int(arch.removeprefix("sm_"))
    older = [other for other in supported() if other <= number]
    if not older:
        fix = "An older NVRTC serves it: pip install 'geodiff[cuda12]'. Or use .cpu()."
        raise RuntimeError(
            f"NVRTC {version()} compiles for sm_{min(supported())} and newer, the device is {arch}. {fix}"
        )
    return arch if max(older) == number else f"compute_{max(older)}"


@functools.cache
def supported() -> tuple[int, ...]:
    """Return the architectures that NVRTC compiles for, as 90 for ``sm_90``."""
    nvrtc = _load()
    _call(nvrtc, nvrtc.nvrtcGetNumSupportedArchs())
    return tuple(_call(nvrtc, nvrtc.nvrtcGetSupportedArchs()))


@functools.cache
def version() -> str:
    """Return NVRTC's version, as ``13.0``."""
    nvrtc = _load()
    status, major, minor = nvrtc.nvrtcVersion()
    _call(nvrtc, (status,))
    return f"{major}.{minor}"


def extra() -> str:
    """Name the extra of ours that goes with this torch, as ``geodiff[cuda]``."""
    return "geodiff[cuda12]" if (torch.version.cuda or "").startswith("12.") else "geodiff[cuda]"


def _load() -> ModuleType:
    """Import the bindings (0.2 s, hence only when needed) and make sure that the library behind them is there."""
    try:
        from cuda.bindings import nvrtc

        nvrtc.nvrtcVersion()
    except (ImportError, RuntimeError, OSError) as error:
        raise RuntimeError(f"NVRTC was not found ({error}). Install it with: pip install '{extra()}'.") from error
    return nvrtc


def _call(nvrtc: ModuleType, result: tuple[Any, ...]) -> Any:
    """Return what an NVRTC call gave beside its status, or raise where the status is an error."""
    status, *values = result
    if status != nvrtc.nvrtcResult.NVRTC_SUCCESS:
        raise RuntimeError(f"NVRTC failed: {status.name}.")
    return values[0] if values else None
