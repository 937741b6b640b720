# SPDX-License-Identifier: Apache-2.0
"""What the host reads from a device in a step, recorded, so that later steps go on without waiting for it.

Sizes of lists (how many pixels see a face, how many edges jump) and the course of iterations are numbers of the
device's that decide what the host launches next. Code above asks for them by `look`, `sizes` and `places` alone.
"""

import contextlib
from collections.abc import Iterator
from typing import Any

import torch

from geodiff.validation import describe, fail

_SPARE = 64  # places more, whatever the number
_now: "list[tuple[str, Recording]]" = []  # one at most; autograd's threads see it, too


class Recording:
    """What a step reads from a device, so that it can be taken again without a read: in a CUDA graph, say.

    `record` notes what an ordinary step reads; within `replay` the same step does not wait for the device. Lists then
    have room for `room` more than they had, and what does not fit makes the results NaN; iterations (Sinkhorn,
    `robust_pool`) take the steps that they took. Record again when the scene has changed much, or at a NaN.

    Args:
        room: what a list may grow by, as a part of its length; 0 or more.

    Raises:
        ValueError: a room below 0.
        RuntimeError: one recording within another; a replay of nothing, or of another step than that recorded.

    Example:
        On a GPU; the steps before the capture load kernels:

        >>> import geodiff as gd
        >>> mesh, camera = gd.icosphere(2), gd.Camera.orbit(3.0, fov_deg=40)
        >>> render = gd.Renderer(16, outputs="depth")
        >>> recording = gd.Recording()
        >>> with recording.record():
        ...     depth = render(mesh, camera).depth
        >>> with recording.replay():
        ...     again = render(mesh, camera).depth
        >>> torch.equal(depth, again)
        True
    """

    def __init__(self, room: float = 0.25) -> None:
        if not isinstance(room, int | float) or isinstance(room, bool) or not 0 <= room < float("inf"):
            raise fail("Recording", "room", "a number, 0 or more", describe(room))
        self.room = float(room)
        self._numbers: list[list[Any]] = []
        self._next, self._is_recorded = 0, False

    def __len__(self) -> int:
        """How often the recorded step has waited for the device."""
        return len(self._numbers)

    def __repr__(self) -> str:
        return f"Recording(room={self.room:g}, {len(self)} reads)"

    @contextlib.contextmanager
    def record(self) -> Iterator["Recording"]:
        """Note what is read until the end, instead of what was noted before."""
        with self._active("record"):
            self._numbers, self._is_recorded = [], False
            yield self
        self._is_recorded = True

    @contextlib.contextmanager
    def replay(self) -> Iterator["Recording"]:
        """Take what was noted for what would be read."""
        if not self._is_recorded:
            raise RuntimeError("Recording.replay: nothing is recorded yet. Take a step within record() before.")
        with self._active("replay"):
            self._next = 0
            yield self
        if self._next != len(self._numbers):
            raise RuntimeError(self._other(f"{self._next} reads where {len(self._numbers)} are recorded"))

    @contextlib.contextmanager
    def _active(self, what: str) -> Iterator[None]:
        if _now:
            raise RuntimeError(f"Recording.{what}: another recording is at work. Use one at a time.")
        _now.append((what, self))
        try:
            yield
        finally:
            _now.clear()

    def _take(self, count: int) -> list[Any]:
        if self._next == len(self._numbers) or len(self._numbers[self._next]) != count:
            raise RuntimeError(self._other("another read"))
        self._next += 1
        return self._numbers[self._next - 1]

    def _other(self, what: str) -> str:
        return f"Recording.replay: this is not the step that was recorded ({what}). Record it again."


def at_most(number: torch.Tensor) -> tuple[torch.Tensor, float]:
    """Return a positive number of a device's, and what it is at most: read, or in a replay as recorded and some more.

    In a replay it is NaN where it is more than that, or not positive.
    """
    return _bounded(number, 1)


def at_least(number: torch.Tensor) -> tuple[torch.Tensor, float]:
    """Return a positive number of a device's, and what it is at least, as `at_most`."""
    return _bounded(number, -1)


def _bounded(number: torch.Tensor, sign: int) -> tuple[torch.Tensor, float]:
    (known,) = _read(number.detach().reshape(1))
    if not is_replaying():
        return number, known
    bound = known * (1 + _now[0][1].room) ** sign
    return torch.where((number > 0) & (sign * number <= sign * bound), number, torch.nan), bound


def is_replaying() -> bool:
    """Whether lists have more room than entries now."""
    return bool(_now) and _now[0][0] == "replay"


def _read(values: torch.Tensor) -> list[Any]:
    """Return the numbers of a vector on a device: read, or as they were recorded."""
    if is_replaying():
        return _now[0][1]._take(len(values))
    found: list[Any] = values.tolist()
    if _now:
        _now[0][1]._numbers.append(found)
    return found


def look(value: torch.Tensor) -> Any:
    """Return the number in a tensor, or the list of those of a vector, that decides how an iteration goes on."""
    if value.is_cpu:
        return value.tolist()
    found = _read(value.reshape(-1))
    return found if value.dim() else found[0]


def sizes(*totals: torch.Tensor) -> list[int]:
    """Return lengths of lists: of a device's at one read, or, in a replay, as recorded and some more."""
    both = _read(torch.stack([total.reshape(()) for total in totals]))
    if not is_replaying():
        return [int(total) for total in both]
    room = _now[0][1].room
    return [int(total * (1 + room)) + _SPARE for total in both]


def packed(before: torch.Tensor, size: int) -> torch.Tensor:
    """Return where `size` flags are set, ascending, of the sums (n,) of all flags up to each; n where there is none."""
    return torch.searchsorted(before, torch.arange(1, size + 1, device=before.device, dtype=before.dtype))


def places(flags: torch.Tensor) -> torch.Tensor:
    """Return where flags (n,) are set, ascending; in a replay also some n after them."""
    if flags.is_cpu or not is_replaying():
        found = flags.nonzero()[:, 0]
        if _now and not flags.is_cpu:
            _now[0][1]._numbers.append([len(found)])
        return found
    before = flags.cumsum(0)
    return packed(before, sizes(before[-1] if len(flags) else before.sum())[0])


def rows(values: torch.Tensor, index: torch.Tensor, fill: Any) -> torch.Tensor:
    """Return the rows of `places` or `packed`; `fill` where there is none."""
    if not is_replaying():
        return values.index_select(0, index)
    if len(values) == 0:
        return values.new_full((len(index), *values.shape[1:]), fill)
    found = values.index_select(0, index.clamp(max=len(values) - 1))
    return torch.where((index < len(values)).reshape(-1, *[1] * (values.dim() - 1)), found, fill)


def spread(values: torch.Tensor, index: torch.Tensor, count: int, fill: Any = 0) -> torch.Tensor:
    """Return `count` rows, those at `index` as given, `fill` elsewhere; what a replay has too many goes nowhere."""
    if not is_replaying():
        return values.new_full((count, *values.shape[1:]), fill).index_copy(0, index, values)
    return values.new_full((count + 1, *values.shape[1:]), fill).index_copy(0, index, values)[:count]


def or_nan(values: torch.Tensor, total: torch.Tensor, size: int) -> torch.Tensor:
    """Return values of a list; NaN in a replay where the list has outgrown its room."""
    return torch.where(total <= size, values, torch.nan) if is_replaying() else values
