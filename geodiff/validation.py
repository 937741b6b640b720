# SPDX-License-Identifier: Apache-2.0
"""Checks at the public border: each says the argument, what was expected, what came and how to mend it."""

import contextlib
import contextvars
import dataclasses
import difflib
import math
import numbers
import os
import sys
import warnings
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import torch

from geodiff.constants import on_device

_checks = contextvars.ContextVar("geodiff.checks", default=False)
# Tuples, since torch.compile cannot make a union of such types.
_ARRAYS, _LISTS = (torch.Tensor, np.ndarray), (list, tuple, numbers.Real)
_NUMBERS = (np.ndarray, *_LISTS)
_FEW = 64
_PACKAGE = os.path.dirname(__file__) + os.sep


@contextlib.contextmanager
def checks(enabled: bool = True) -> Iterator[None]:
    """Look for NaN, infinity and indices out of range in CUDA tensors too, which waits for the device.

    CPU tensors are always checked.

    It holds for this thread, or this task of asyncio.
    """
    before = _checks.set(enabled)
    try:
        yield
    finally:
        _checks.reset(before)


def describe(value: Any) -> str:
    """Say briefly what a value is: dtype and shape for arrays and tensors, else its type and value."""
    shape = getattr(value, "shape", None)
    dtype = getattr(value, "dtype", None)
    if shape is not None and dtype is not None:
        return f"{str(dtype).replace('torch.', '')} of shape {tuple(shape)}"
    text = repr(value)
    return f"{type(value).__name__} {text if len(text) <= 60 else text[:57] + '...'}"


def shapes_repr(self: Any) -> str:
    """Represent a dataclass or named tuple by the shapes of its tensors, not their numbers: for its ``__repr__``."""
    names = getattr(self, "_fields", None) or [field.name for field in dataclasses.fields(self) if field.repr]
    parts = [f"{name}={_brief(getattr(self, name))}" for name in names if hasattr(self, name)]
    return f"{type(self).__name__}({', '.join(parts)})"


def _brief(value: Any) -> str:
    if isinstance(value, torch.Tensor | np.ndarray):
        return describe(value).replace("of shape ", "")
    if isinstance(value, list | tuple) and type(value) in (list, tuple) and len(value) > 4:
        return f"{type(value).__name__} of {len(value)}"
    if type(value) in (list, tuple):
        return ("[{}]" if isinstance(value, list) else "({})").format(", ".join(_brief(part) for part in value))
    text = repr(value)
    return text if len(text) <= 200 else f"{type(value).__name__}(…)"


def fail(
    where: str, argument: str, expected: str, got: Any, fix: str = "", error: type[Exception] = ValueError
) -> Exception:
    """Build the house's error: ``where: `argument` must be EXPECTED; got GOT. FIX``. The caller raises it."""
    text = got if isinstance(got, str) else describe(got)
    return error(f"{where}: `{argument}` must be {expected}; got {text}." + (f" {fix}" if fix else ""))


def warn(text: str, category: type[Warning] = UserWarning) -> None:
    """Warn of the line that called geodiff, however many of our own functions lie between."""
    if torch.compiler.is_compiling():  # which knows no frames
        warnings.warn(text, category)  # noqa: B028
        return
    frame, level = sys._getframe(1), 2
    while frame.f_back is not None and frame.f_code.co_filename.startswith(_PACKAGE):
        frame, level = frame.f_back, level + 1
    warnings.warn(text, category, stacklevel=level)


def nearest(name: str, options: Iterable[str]) -> str:
    """Return a hint naming the closest option, or the whole list where none is close."""
    names = sorted(options)
    close = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    return f"Did you mean '{close[0]}'?" if close else f"Choose one of: {', '.join(names)}."


def choice(where: str, argument: str, value: Any, options: Sequence[str]) -> str:
    """Return ``value`` if it is one of ``options``, else raise with the nearest name."""
    if value in options:
        return str(value)
    raise fail(where, argument, f"one of {', '.join(options)}", repr(value), nearest(str(value), options))


def shape_text(shape: Sequence[int | str]) -> str:
    """Write a shape pattern such as ``("...", "V", 3)`` as ``(..., V, 3)``."""
    inner = ", ".join(str(s) for s in shape)
    return f"({inner},)" if len(shape) == 1 else f"({inner})"


def broadcasts_to(shape: Sequence[int], batch: Sequence[int]) -> bool:
    """Return whether a batch shape expands to that of the images, `batch`."""
    return len(shape) <= len(batch) and all(n in (1, m) for n, m in zip(shape[::-1], batch[::-1], strict=False))


def common_batch(*shapes: Sequence[int]) -> torch.Size:
    """Return what shapes broadcast to, as `torch.broadcast_shapes`, which takes 40 µs, and half a second at first.

    Raises:
        RuntimeError: they do not broadcast.
    """
    some = [shape for shape in shapes if len(shape)]
    if len(some) < 2 or all(shape == some[0] for shape in some):
        return torch.Size(some[0] if some else ())
    if torch.compiler.is_compiling() or any(type(size) is not int for shape in some for size in shape):
        return torch.broadcast_shapes(*some)
    result = [1] * max(map(len, some))
    for shape in some:
        for place, size in enumerate(reversed(shape), 1):
            if size not in (1, result[-place]):
                if result[-place] != 1:
                    raise RuntimeError(f"shapes {', '.join(str(tuple(x)) for x in some)} do not broadcast")
                result[-place] = size
    return torch.Size(result)


def matches(actual: Sequence[int], pattern: Sequence[int | str]) -> bool:
    """Whether a shape fits a pattern of sizes (int), free axes (str) and an optional leading ``"..."``."""
    leading = len(pattern) > 0 and pattern[0] == "..."
    wanted = pattern[1:] if leading else pattern
    before = len(actual) - len(wanted)
    if before < 0 or (before and not leading):
        return False
    for size, want in zip(actual[before:] if before else actual, wanted, strict=True):
        if size != want and not isinstance(want, str):
            return False
    return True


def floating(
    where: str, argument: str, value: Any, shape: Sequence[int | str], fix: str = "", finite: bool = True
) -> torch.Tensor:
    """Require a float32 or float64 tensor of the given shape pattern, free of NaN and infinity.

    Args:
        where: the public function, for the message.
        argument: the argument's name, for the message.
        value: what came.
        shape: sizes (int), free axes (str), an optional leading ``"..."``.
        fix: how to mend a wrong shape.
        finite: also look for NaN and infinity (CPU always, CUDA under ``geodiff.checks(True)``).
    """
    if not isinstance(value, torch.Tensor):
        raise fail(where, argument, f"a tensor of shape {shape_text(shape)}", value, "Use torch.as_tensor.", TypeError)
    if value.dtype in (torch.float16, torch.bfloat16):
        raise fail(where, argument, "float32 or float64", value, "Convert it with .float().", TypeError)
    if value.dtype not in (torch.float32, torch.float64):
        raise fail(where, argument, "a floating tensor (float32 or float64)", value, "Use .float().", TypeError)
    if not matches(value.shape, shape):
        raise fail(where, argument, f"of shape {shape_text(shape)}", value, fix)
    if finite and looks_at_values(value):
        check_finite(where, argument, value)
    return value


def looks_at_values(value: torch.Tensor) -> bool:
    """Whether to check the numbers in a tensor: not while compiling, where they are unknown, nor where it is slow."""
    return not torch.compiler.is_compiling() and (value.is_cpu or _checks.get())


def check_finite(where: str, argument: str, value: torch.Tensor) -> None:
    """Raise if the tensor holds NaN or infinity, naming the first place."""
    if torch._C._functorch.is_batchedtensor(value):
        fix = "Leading axes are a batch: pass the whole of it at once, or loop over its items."
        raise fail(where, argument, "outside of torch.func.vmap", "a tensor that it maps over", fix, RuntimeError)
    with torch.no_grad():
        # The sum of finite numbers can overflow, but a sum that is finite proves there is no NaN or infinity: one
        # cheap pass in the common case.
        if value.numel() == 0 or math.isfinite(value.sum().item()):
            return
        bad = ~torch.isfinite(value)
        count = int(bad.sum())
        if count == 0:
            return
        first = tuple(int(i) for i in bad.nonzero()[0])
        what = float(value[first])
    raise fail(
        where,
        argument,
        "finite",
        f"{what} at index {first} ({count} bad of {value.numel()})",
        "Find where it arose, or drop those entries before the call.",
    )


def positive(where: str, argument: str, value: Any, fix: str = "") -> None:
    """Require a positive finite number or a positive tensor."""
    if isinstance(value, torch.Tensor):
        ok = bool((torch.isfinite(value) & (value > 0)).all()) if looks_at_values(value) else True
    else:
        if not isinstance(value, numbers.Real) or isinstance(value, bool):
            raise fail(where, argument, "a positive number", describe(value), fix, TypeError)
        ok = 0 < float(value) < float("inf")
    if not ok:
        raise fail(where, argument, "positive and finite", str(value), fix)


def integer(where: str, argument: str, value: Any, low: int, high: int | None = None) -> int:
    """Return an integer in [low, high], as a Python number; ``high`` None: of any size."""
    if not isinstance(value, numbers.Integral) or isinstance(value, bool):
        raise fail(where, argument, f"an integer ≥ {low}", describe(value), error=TypeError)
    whole = int(value)
    if whole < low:
        raise fail(where, argument, f"an integer ≥ {low}", str(whole))
    if high is not None and whole > high:
        raise fail(where, argument, f"an integer ≤ {high}", str(whole))
    return whole


def number(where: str, argument: str, value: Any, low: float, high: float, fix: str = "") -> float:
    """Return a finite real number in [low, high], as a Python one."""
    if not isinstance(value, numbers.Real) or isinstance(value, bool):
        raise fail(where, argument, f"a number ≥ {low:g}", describe(value), fix, TypeError)
    try:
        real = float(value)
    except OverflowError:  # an integer of more than 308 digits
        real = math.inf
    if not low <= real < math.inf:
        raise fail(where, argument, f"finite and ≥ {low:g}", str(real), fix)
    if real > high:
        raise fail(where, argument, f"at most {high:g}", str(real), fix)
    return real


def seed_number(where: str, value: Any, argument: str = "seed") -> int:
    """Return a seed: an integer from 0 to 2³² − 1, which is what all generators of random numbers take."""
    return integer(where, argument, value, 0, 2**32 - 1)


def as_tensor(where: str, argument: str, value: Any) -> torch.Tensor:
    """Return a tensor as it is; copy a NumPy array, list or number into one."""
    if isinstance(value, torch.Tensor):
        return value
    if isinstance(value, _NUMBERS) and not isinstance(value, bool):
        try:
            if isinstance(value, np.ndarray):
                return torch.from_numpy(np.array(value, dtype=value.dtype.newbyteorder("="), order="C"))
            return torch.as_tensor(value)
        except (TypeError, ValueError, RuntimeError):
            pass
    raise fail(where, argument, "a tensor or an array of numbers", describe(value), error=TypeError)


def integers(where: str, argument: str, value: torch.Tensor, shape: Sequence[int | str], fix: str = "") -> torch.Tensor:
    """Require an integer tensor of the given shape pattern and return it as contiguous int64."""
    if value.is_floating_point() or value.is_complex() or value.dtype == torch.bool or not matches(value.shape, shape):
        wrong_shape = not matches(value.shape, shape)
        raise fail(
            where,
            argument,
            f"an integer tensor of shape {shape_text(shape)}",
            value,
            fix if wrong_shape else "Convert it with .long().",
            ValueError if wrong_shape else TypeError,
        )
    return value.to(torch.int64).contiguous()


Place = torch.device | torch.dtype | str | None
"""What a method ``to`` takes first."""


def placement(
    where: str, device: Place, dtype: torch.dtype | None
) -> tuple[torch.device | str | None, torch.dtype | None]:
    """Return the device and the dtype that a method ``to`` was asked for; the dtype may come first, as for tensors.

    Raises:
        TypeError: two dtypes, or one that is neither float32 nor float64.
    """
    if isinstance(device, torch.dtype):
        if dtype is not None:
            raise fail(where, "device", "a device", str(device), "Give one dtype.", TypeError)
        device, dtype = None, device
    if dtype is not None and dtype not in (torch.float32, torch.float64):
        raise fail(where, "dtype", "torch.float32 or torch.float64", str(dtype), error=TypeError)
    return device, dtype


def promote(where: str, **values: Any) -> dict[str, torch.Tensor]:
    """Bring numbers, arrays and tensors to one floating dtype (the widest) on one device.

    Integers count as numbers: only floating tensors and arrays decide the dtype, float32 where there are none.
    """
    tensors = {name: as_tensor(where, name, value) for name, value in values.items()}
    wide = torch.float32
    device = torch.device("cpu")
    for name, tensor in tensors.items():
        if tensor.dtype in (torch.float16, torch.bfloat16):
            raise fail(where, name, "float32 or float64", tensor, "Convert it with .float().", TypeError)
        if tensor.is_complex() or tensor.dtype == torch.bool:
            raise fail(where, name, "real numbers", tensor, error=TypeError)
        if isinstance(values[name], _ARRAYS) and tensor.dtype == torch.float64:
            wide = torch.float64
        if tensor.device.type != "cpu":
            if device.type != "cpu" and device != tensor.device:
                raise fail(
                    where, name, f"on {device} like the others", str(tensor.device), "Use .to(device).", RuntimeError
                )
            device = tensor.device
    # A list or a Python number is read at double precision first, so that 0.1 means 0.1 in a float64 computation.
    result = {}
    for name, tensor in tensors.items():
        if isinstance(values[name], _LISTS) and tensor.is_floating_point():
            tensor = torch.as_tensor(values[name], dtype=torch.float64)
        if tensor.device != device and isinstance(values[name], torch.Tensor) and tensor.dim() > 0:
            raise fail(
                where, name, f"on {device} like the others", str(tensor.device), "Use .to(device).", RuntimeError
            )
        if device.type == "cpu" or isinstance(values[name], _ARRAYS) or tensor.numel() > _FEW:
            result[name] = tensor.to(device=device, dtype=wide)
        else:  # of numbers in the code: a device gets its copy once
            result[name] = on_device(tensor.to(wide), device).clone()
        if looks_at_values(result[name]):
            check_finite(where, name, result[name])
    return result
