# SPDX-License-Identifier: Apache-2.0
"""Small tables that are kept on the host, and their copies on devices: nothing is copied at every call."""

import functools

import torch

_KEPT = 256  # tables and devices


def on_device(table: torch.Tensor, device: torch.device) -> torch.Tensor:
    """Return a table of the host's on a device: copied once for its numbers, not once a call.

    The copy must not be changed. It knows its numbers: its `tolist` does not ask the device, and `host` is the table.
    """
    if table.device == device:
        return table
    if torch.compiler.is_compiling() or not table.is_cpu:
        return table.to(device)
    copy = _copy(tuple(table.reshape(-1).tolist()), tuple(table.shape), table.dtype, str(device))
    if _is_capturing(device):
        _of_graphs[id(copy)] = copy
    return copy


_of_graphs: dict[int, torch.Tensor] = {}
"""Copies that CUDA graphs read whenever they are replayed, so for good: what is not kept may be overwritten."""


def _is_capturing(device: torch.device) -> bool:
    return device.type == "cuda" and torch.cuda.is_current_stream_capturing()


@functools.lru_cache(maxsize=_KEPT)
def _copy(numbers: tuple[float, ...], shape: tuple[int, ...], dtype: torch.dtype, device: str) -> torch.Tensor:
    with torch.inference_mode(False):
        table = torch.tensor(numbers, dtype=dtype, device="cpu").reshape(shape)
        copy = table.to(device)
        copy.host = table  # type: ignore[attr-defined]
        copy.tolist = table.tolist  # type: ignore[method-assign]  # its numbers, without asking the device
        return copy


def numbers(values: list[float] | tuple[float, ...], like: torch.Tensor) -> torch.Tensor:
    """Return ``like.new_tensor(values)``, which waits for the device where that is not the host."""
    if like.is_cpu or torch.compiler.is_compiling():
        return like.new_tensor(values)
    return on_device(torch.tensor(values, dtype=like.dtype, device="cpu"), like.device).clone()
