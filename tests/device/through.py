# SPDX-License-Identifier: Apache-2.0
"""Sends what kernels are handed through a device: so the ops' tests run there as they are, on CPU tensors."""

from collections.abc import Callable
from typing import Any

import torch

from geodiff.native.gpu import schedule


def bits(value: torch.Tensor) -> torch.Tensor:
    """Return the bytes of a tensor, in which NaN is itself."""
    return value.flatten().view(torch.uint8)


def through(device: torch.device) -> Callable[[str, dict[str, Any]], Any]:
    """Return what runs a kernel on a device: tensors are copied there, and back, since some of them are filled."""

    def there(value: Any) -> Any:
        if isinstance(value, torch.Tensor):
            return value.to(device, copy=True)
        return [there(part) for part in value] if isinstance(value, list) else value

    def back(value: Any, moved: Any) -> None:
        if isinstance(value, torch.Tensor):
            moved = moved.to(value.device)
            if not torch.equal(bits(value), bits(moved)):  # what is only read must not count as changed
                value.copy_(moved)
        elif isinstance(value, list):
            for part, other in zip(value, moved, strict=True):
                back(part, other)

    def run(kernel: str, arguments: dict[str, Any]) -> Any:
        moved = {name: there(value) for name, value in arguments.items()}
        result = schedule.of(kernel)(**moved)
        for name, value in arguments.items():
            back(value, moved[name])
        return tuple(part.cpu() for part in result) if isinstance(result, tuple) else result

    return run
