# SPDX-License-Identifier: Apache-2.0
"""Tools that run once, before or after a fit: on the processor, whatever the device of their tensors."""

import functools
from collections.abc import Callable
from typing import Any

import torch

from geodiff.native import cpu


def _run(name: str, **arguments: Any) -> Any:
    """Call the extension with copies in the processor's memory, and copy back what it wrote into them."""
    tensors = {key: value for key, value in arguments.items() if isinstance(value, torch.Tensor)}
    device = next(iter(tensors.values())).device
    copies = {key: value.detach().cpu().contiguous() for key, value in tensors.items()}
    given = arguments | {key: value.numpy() for key, value in copies.items()}
    result = getattr(cpu.extension(), name)(**given, threads=cpu.threads())
    for key, value in tensors.items():
        if key in ("out", "face") and value.data_ptr() != copies[key].data_ptr():
            value.copy_(copies[key])
    return tuple(torch.from_numpy(part).to(device) for part in result) if isinstance(result, tuple) else result


def __getattr__(name: str) -> Callable[..., Any]:
    return functools.partial(_run, name)
