# SPDX-License-Identifier: Apache-2.0
"""Where a job runs: what `device=` and ``--device`` mean."""

from typing import Any

import torch

from geodiff.native.gpu import driver
from geodiff.ops import _op
from geodiff.validation import fail

AUTO = "auto"


def job_device(where: str, wanted: torch.device | str | None, data: torch.device | None = None) -> torch.device:
    """Return the device that a job is to run on.

    Args:
        where: the task, for the message.
        wanted: ``"cpu"``, ``"cuda"``, ``"cuda:1"``; ``"auto"``, a GPU if one works here and else the CPU; None, where
            the data are.
        data: where that is.

    Raises:
        TypeError, ValueError: it names no device.
        RuntimeError: there is no such device here, or there are no kernels for it.
    """
    if wanted is None:
        wanted = torch.device("cpu") if data is None else data
    if isinstance(wanted, str) and wanted == AUTO:
        wanted = "cuda" if _works() else "cpu"
    if not isinstance(wanted, str | torch.device):
        raise fail(where, "device", "a torch.device or its name", wanted, error=TypeError)
    expected = "cpu, cuda, cuda:N or auto"
    try:
        device = torch.device(wanted)
    except RuntimeError:
        raise fail(where, "device", expected, repr(wanted)) from None
    if not _op.has_kernels(device):
        raise fail(where, "device", expected, str(device), "There are no kernels for others.", RuntimeError)
    if device.type == "cuda":
        count = torch.cuda.device_count() if _works() else 0
        if (device.index or 0) >= count:
            there = f"one of cuda:0 to cuda:{count - 1}" if count else "cpu: no GPU works here"
            fix = "Look at `geodiff info`, or take auto, which uses a GPU where there is one."
            raise fail(where, "device", there, str(device), fix, RuntimeError)
        device = torch.device("cuda", torch.cuda.current_device() if device.index is None else device.index)
    return torch.device("cpu") if device.type == "cpu" else device  # "cpu:0" is no other


def _works() -> bool:
    """Whether torch and geodiff both find a GPU's driver."""
    return torch.cuda.is_available() and driver.version() is not None


def brought_home(where: str, name: str, thing: Any) -> Any:
    """Return a tensor, a mesh, cameras or images on the host, where inputs are checked and prepared.

    Raises:
        RuntimeError: tensors of shapes alone.
    """
    if thing.device.type == "meta":
        raise fail(where, name, "on a device with numbers", f"on {thing.device}", error=RuntimeError)
    return thing if thing.device.type == "cpu" else thing.to("cpu")
