# SPDX-License-Identifier: Apache-2.0
"""What the callbacks of all jobs are told."""

import inspect
from collections.abc import Callable, ItemsView, Iterator, KeysView
from dataclasses import dataclass, field
from typing import Any

from geodiff.validation import fail, shapes_repr, warn


@dataclass(frozen=True)
class Progress:
    """How far a job is; jobs call ``callback(progress)`` after each step. What it raises ends the job.

    Attributes:
        step: how many steps are done, by this process where there are several: of descent, chunks of charts, runs of a
            sweep, iterations of a fit.
        total: how many there are to be; None where that is not known.
        loss: at this step; None where there is none.
        record: the step's line of the job's ``history``, or the row of a sweep.
        state: what the step started from (the mesh of `fit_mesh`) or led to (the cameras of `fit_pose`), else None.
    """

    __repr__ = shapes_repr

    step: int
    total: int | None
    loss: float | None
    record: dict[str, Any] = field(repr=False)
    state: Any = field(default=None, repr=False)

    def _old(self) -> dict[str, Any]:
        warn("callback: `progress[name]` is now `progress.record[name]`", DeprecationWarning)
        return self.record

    def __getitem__(self, name: str) -> Any:
        return self._old()[name]

    def __contains__(self, name: object) -> bool:
        return name in self._old()

    def __iter__(self) -> Iterator[str]:
        return iter(self._old())

    def keys(self) -> KeysView[str]:
        """Return those of `record`, as callbacks of a dictionary expect."""
        return self._old().keys()

    def get(self, name: str, default: Any = None) -> Any:
        """Return an entry of `record`, as callbacks of a dictionary expect."""
        return self._old().get(name, default)

    def items(self) -> ItemsView[str, Any]:
        """Return those of `record`, as callbacks of a dictionary expect."""
        return self._old().items()


Callback = Callable[[Progress], Any]


def as_callback(where: str, callback: Any) -> Callback | None:
    """Return what to call with each `Progress`; None where there is no callback.

    One that takes (step, record, state), step from 0, is called so, with a DeprecationWarning.

    Raises:
        TypeError: something that cannot be called.
    """
    if callback is None:
        return None
    if not callable(callback):
        raise fail(where, "callback", "a function of a Progress", callback, error=TypeError)
    try:
        takes = list(inspect.signature(callback).parameters.values())
    except (ValueError, TypeError):  # a function of C
        return callback
    plain = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    needed = sum(one.kind in plain and one.default is one.empty for one in takes)
    if needed > 1 or (needed == 1 and any(one.kind is one.VAR_POSITIONAL for one in takes)):
        warn(f"{where}: `callback(step, record, state)` is now `callback(progress)`, a Progress", DeprecationWarning)
        return lambda progress: callback(progress.step - 1, progress.record, progress.state)
    return callback
