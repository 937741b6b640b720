# SPDX-License-Identifier: Apache-2.0
"""Parameters of distributions and T-conorms: how they are checked and written."""

import math
import numbers
from collections.abc import Callable
from typing import Any, TypeAlias

import torch

from geodiff.members import Row
from geodiff.validation import describe, fail, floating

Tensor = torch.Tensor
Parameter: TypeAlias = float | torch.Tensor


def parameter(
    where: str, argument: str, value: Any, expected: str, ok: Callable[[Any], Any], fix: str = ""
) -> Parameter:
    """Return a finite real number as float, or a floating tensor, if ``ok`` holds for it; else raise.

    Args:
        where: the public function, for the message.
        argument: the argument's name.
        value: a real number or a floating tensor. The range is checked on the CPU only: elsewhere it would synchronise.
        expected: the range in words.
        ok: the range as a function of a float or tensor.
        fix: how to mend a wrong value.
    """
    if isinstance(value, torch.Tensor):
        floating(where, argument, value, ("...",))
        if value.device.type == "cpu" and not bool(torch.as_tensor(ok(value)).all()):
            raise fail(where, argument, expected, str(value.detach()), fix)
        return value
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise fail(where, argument, f"{expected}, as a number or a tensor", describe(value), fix, TypeError)
    if not (math.isfinite(float(value)) and bool(ok(float(value)))):
        raise fail(where, argument, expected, str(value), fix)
    return float(value)


def number_text(value: Parameter) -> str:
    """Write a parameter for names: shortest digits that read back as the same float, without a trailing ``.0``."""
    if isinstance(value, torch.Tensor):
        if value.numel() != 1:
            return f"tensor{tuple(value.shape)}"
        value = float(value.detach())
    text = repr(value)
    return text[:-2] if text.endswith(".0") else text


def number_repr(value: Parameter) -> str:
    """Write a parameter for ``repr``: a float as it is, a tensor marked as one."""
    return f"tensor({number_text(value)})" if isinstance(value, torch.Tensor) else repr(value)


class Frozen:
    """Mixin that refuses assignment after construction; constructors write to ``vars(self)``."""

    def __setattr__(self, name: str, value: Any) -> None:
        raise AttributeError(f"{self!r} is frozen: cannot set '{name}'. Build a new one instead.")

    def __delattr__(self, name: str) -> None:
        raise AttributeError(f"{self!r} is frozen: cannot delete '{name}'. Build a new one instead.")


BUILT_IN: dict[str, Any] = {}
"""The classes that have kernels, by their structs' names."""


def built_in(cls: Any, rows: tuple[Row, ...]) -> Row:
    """Give a class its kernel: the one whose struct has its name. Returns the row of the table."""
    (row,) = (row for row in rows if row.struct == cls.__name__)
    cls.kernel_id, cls.parametric = row.number, row.parametric
    BUILT_IN[row.struct] = cls
    return row


def keep_consistent(cls: type, root: type, source: str, followers: tuple[str, ...], demanding: tuple[str, ...]) -> None:
    """Make a subclass of a distribution or T-conorm mean what it says, not what its parent says.

    A kernel, and the name that stands for one, belong to the class that states them. Where a class has another `source`
    than its parent, what its parent wrote to go with the old one is put back to what `root` derives from `source`.

    Args:
        cls: the new class.
        root: the class that derives all else from `source`.
        source: the method that defines the object.
        followers: attributes that must agree with it.
        demanding: those of them that may not be defined without it.

    Raises:
        TypeError: for one of `demanding` over a parent's `source`.
    """
    if "kernel_id" in vars(cls):
        return
    if getattr(cls, "kernel_id", None) is not None and "name" not in vars(cls):
        cls.name = root.name  # type: ignore[attr-defined]  # the parent's would read back as the parent
    cls.kernel_id = None  # type: ignore[attr-defined]
    line = cls.__mro__
    rank = {name: next(i for i, c in enumerate(line) if name in vars(c)) for name in (source, *followers)}
    at, top = rank[source], line.index(root)
    # A class with a kernel has all of it in order, whichever of its bases each part comes from.
    whole = next((i for i, c in enumerate(line) if isinstance(vars(c).get("kernel_id"), int)), top)
    for name in demanding:
        if rank[name] < min(at, whole) and at < top:
            fix = f"Define {source}(), or subclass {root.__name__}."
            got = f"that of {line[min(at, whole)].__name__}"
            raise fail(cls.__name__, source, f"defined where {name}() is", got, fix, TypeError)
    for name in followers:
        if at < min(rank[name], whole) and rank[name] < top and issubclass(line[rank[name]], root):
            setattr(cls, name, vars(root)[name])
