# SPDX-License-Identifier: Apache-2.0
"""A device that is not the host, for tests where there is no GPU: ``torch.device("pretend")``.

Its tensors are plain `torch.Tensor`s whose memory is the host's, but torch does not know: it refuses to mix them with
CPU tensors and to give them to NumPy, as for CUDA, and what passes between them and the host is noted. The ops run the
GPU's schedules and kernels on them, emulated. Registering a device holds for a whole process, and must come before its
first backward pass: tests that use it run in a process of their own, see ``tests/test_pretend.py``.
"""

import contextlib
import ctypes
import traceback
from collections import Counter
from collections.abc import Iterator
from typing import Any

import torch
from torch.utils import backend_registration

from geodiff.native.gpu import emulated, schedule
from geodiff.native.gpu.schedule import fragments
from geodiff.ops import _op

_CPU, _OTHER = 1, 12  # DLPack's names for the host and for a device of one's own
_READS = {
    "_local_scalar_dense", "nonzero", "nonzero_static", "masked_select", "equal", "unique_dim", "_unique2", "bincount",
    "unique_consecutive", "unique_dim_consecutive", "_linalg_eigh", "linalg_eig", "is_set_to",
}  # fmt: skip
"""Ops that wait for the device and read from it, on CUDA."""
_VIEWS = (
    "as_strided",
    "view",
    "_reshape_alias",
    "unfold",
    "alias",
    "view_as_real",
    "set_.source_Tensor",
    "set_.source_Storage_storage_offset",
)
_COPIES = {"_copy_from", "_copy_from_and_resize", "copy_"}


class Crossings(Counter[str]):
    """What passed between device and host, by what it was and the line of geodiff that asked for it."""

    @property
    def reads(self) -> int:
        """How often the host waited for a number of the device's."""
        return sum(count for what, count in self.items() if what.startswith("read"))

    @property
    def uploads(self) -> int:
        """How often the device waited for a tensor of the host's."""
        return sum(count for what, count in self.items() if what.startswith("upload"))


_watching: list[Crossings] = []


@contextlib.contextmanager
def watched() -> Iterator[Crossings]:
    """Count what passes between the device and the host."""
    found = Crossings()
    _watching.append(found)
    try:
        yield found
    finally:
        _watching.remove(found)


def _note(kind: str, op: str) -> None:
    if not _watching:
        return
    lines = [f for f in traceback.extract_stack() if "/geodiff/" in f.filename and "/tests/" not in f.filename]
    line = f"{lines[-1].filename.rpartition('/geodiff/')[2]}:{lines[-1].lineno}" if lines else "torch"
    for found in _watching:
        found[f"{kind} {op} {line}"] += 1


class _Device(ctypes.Structure):
    _fields_ = [("type", ctypes.c_int), ("id", ctypes.c_int)]


class _Capsule(ctypes.Structure):
    _fields_ = [("data", ctypes.c_void_p), ("device", _Device)]


_address = ctypes.pythonapi.PyCapsule_GetPointer
_address.restype, _address.argtypes = ctypes.c_void_p, [ctypes.py_object, ctypes.c_char_p]


def _as(tensor: torch.Tensor, kind: int) -> torch.Tensor:
    """The same memory, on another device."""
    capsule = torch._C._to_dlpack(tensor)
    place = _address(capsule, b"dltensor")
    _Capsule.from_address(place).device.type = kind
    _Capsule.from_address(place).device.id = 0
    return torch._C._from_dlpack(capsule)


def host(tensor: torch.Tensor) -> torch.Tensor:
    """The host's view of a tensor on the device: for tests, uncounted."""
    return tensor if tensor.is_cpu else _as(tensor, _CPU)


def _map(value: Any, change: Any) -> Any:
    if isinstance(value, torch.Tensor):
        return change(value)
    if isinstance(value, list | tuple):
        return type(value)(_map(part, change) for part in value)
    return value


def _fallback(op: Any, *arguments: Any, **named: Any) -> Any:
    """Any op of torch's: on the host's view of the tensors."""
    name = op._schema.name.removeprefix("aten::")
    if name in _COPIES:
        source, to = arguments[:2] if name.startswith("_copy_from") else arguments[1::-1]
        if source.device != to.device:
            _note("read" if to.is_cpu else "upload", "copy")
        _map(to, host).copy_(_map(source, host))
        return to
    given: list[tuple[torch.Tensor, torch.Tensor]] = []  # views, and what they are of
    target = named.get("device")
    make = target is None or torch.device(target).type == "pretend"
    if target is not None:
        named["device"] = torch.device("cpu")
    if name in _READS:
        _note("read", name)
    if name in ("repeat_interleave",) and named.get("output_size") is None and len(arguments) < 2:
        _note("read", name)
    if name in ("index", "index_put_", "_index_put_impl_", "index_put"):
        masks = [i for i in arguments[1] if i is not None and i.dtype in (torch.bool, torch.uint8)]
        filled = name != "index" and len(masks) == 1 and arguments[2].numel() == 1 and len(arguments[1]) == 1
        if masks and not filled:
            _note("read", f"{name} by a mask")
        for i in arguments[1]:
            if i is not None and i.is_cpu and i.dim():
                _note("upload", name)
    else:
        devices = [x for x in _tensors((arguments, named)) if not (x.is_cpu and x.dim() == 0)]
        if len({x.device for x in devices}) > 1:
            text = ", ".join(sorted({str(x.device) for x in devices}))
            raise RuntimeError(f"Expected all tensors to be on the same device, but found {text} ({op}).")
    outputs = [named.get(argument.name) for argument in op._schema.arguments if argument.is_out]

    def grows(tensor: torch.Tensor) -> bool:
        return tensor.numel() == 0 and any(tensor is output for output in outputs)

    def view(tensor: torch.Tensor) -> torch.Tensor:
        if tensor.device.type != "pretend":
            return tensor
        found = torch.empty(0, dtype=tensor.dtype) if grows(tensor) else _as(tensor, _CPU)
        given.append((found, tensor))
        return found

    kinds = [str(argument.type) for argument in op._schema.arguments]
    real = next((x.dtype for x in _tensors(arguments) if x.is_floating_point()), None)
    arguments = tuple(  # torch has made numbers of tensors that were made of numbers
        torch.tensor(value, dtype=real if isinstance(value, float) else None)
        if kind == "Tensor" and isinstance(value, int | float)
        else value
        for value, kind in zip(arguments, kinds, strict=False)
    )
    result = op(*_map(arguments, view), **{key: _map(value, view) for key, value in named.items()})

    def back(tensor: torch.Tensor) -> torch.Tensor:
        for mine, original in given:
            if mine is tensor:
                if grows(original) and tensor.numel():
                    original.set_(_as(tensor, _OTHER))
                return original
        return _as(tensor, _OTHER) if make else tensor

    return _map(result, back)


def _tensors(value: Any) -> Iterator[torch.Tensor]:
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, list | tuple):
        for part in value:
            yield from _tensors(part)
    elif isinstance(value, dict):
        yield from _tensors(list(value.values()))


def _view(name: str) -> Any:
    packet, _, overload = name.partition(".")
    op = getattr(getattr(torch.ops.aten, packet), overload or "default")
    keys = torch._C.DispatchKeySet(torch._C.DispatchKey.CPU)
    return lambda *arguments: op.redispatch(keys, *arguments)  # torch's own, which does not touch the memory


def _schedules(name: str, arguments: dict[str, Any]) -> Any:
    with emulated():
        return schedule.of(name)(**arguments)


_libraries: list[torch.library.Library] = []


def register() -> None:
    """Make the device: once, and before the process has gone backward."""
    if _libraries:
        return
    backend_registration._setup_privateuseone_for_python_backend(rename="pretend")
    every = torch.library.Library("_", "IMPL")
    every.fallback(_fallback, "PrivateUse1")
    aten = torch.library.Library("aten", "IMPL")
    for name in _VIEWS:
        with contextlib.suppress(RuntimeError):
            aten.impl(name, _view(name), "PrivateUse1")
    _libraries.extend([every, aten])
    fragments._PARTS = 256  # as many blocks as keep a GPU busy take the emulator minutes
    _op._BACKENDS["pretend"] = _schedules
