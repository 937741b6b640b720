# SPDX-License-Identifier: Apache-2.0
"""Parameters of distributions and T-conorms: how they are checked and written."""

import math
import numbers
from collections.abc import Callable
from typing import Any, TypeAlias

import torch

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
