# SPDX-License-Identifier: Apache-2.0
"""Whether CPU tensors go through the GPU's kernels now, and in which order of threads."""

import contextlib
import dataclasses
import os
from collections.abc import Iterator

from geodiff.validation import fail

ORDERS = ("forward", "backward", "shuffled")


@dataclasses.dataclass(frozen=True)
class Emulation:
    """How the emulator runs kernels, see `emulated`."""

    order: str = "forward"
    seed: int = 0
    sanitize: str = ""


_now: list[Emulation] = []


def current() -> Emulation | None:
    """Return how CPU tensors are emulated now; None where they are the CPU's."""
    return _now[-1] if _now else None


@contextlib.contextmanager
def emulated(order: str = "forward", seed: int = 0, sanitize: str = "") -> Iterator[None]:
    """Let CPU tensors go through the GPU's schedules and kernels, on the host: for tests, thousands of times slower.

    Args:
        order: in which the threads of a block run between barriers: "forward", "backward" or "shuffled".
        seed: of the shuffling.
        sanitize: what ``-fsanitize=`` takes, in a process that has loaded the sanitizer; what the variable
            ``GEODIFF_SANITIZE`` says, unless given.

    Raises:
        ValueError: for an unknown order.
    """
    if order not in ORDERS:
        raise fail("emulated", "order", f"one of {', '.join(ORDERS)}", order)
    _now.append(Emulation(order, seed, sanitize or os.environ.get("GEODIFF_SANITIZE", "")))
    try:
        yield
    finally:
        _now.pop()


def is_emulating() -> bool:
    """Return whether CPU tensors go through the emulator now."""
    return bool(_now)
