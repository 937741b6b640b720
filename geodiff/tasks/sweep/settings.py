# SPDX-License-Identifier: Apache-2.0
"""The settings of a sweep: what is run, and in how many processes."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from geodiff.settings import LARGEST, Renamed, Settings
from geodiff.validation import fail, integer, number, positive

_WHERE = "sweep"
_MOST_WORKERS = 4096


@dataclass(frozen=True)
class SweepSettings(Settings):
    """What is swept over. The settings of the job that is swept are its ``options``.

    Attributes:
        family: of renderers: spanning, thesis, all, members such as logistic+probabilistic, patterns such as
            'gaussian+*'; with commas between, or several. See `select_family`.
        scales: τ: 0.1,0.03 or FIRST:LAST:COUNT; None: the job's own.
        lrs: learning rates, likewise; None: the job's own.
        workers: processes to run in, of one thread each; 1 uses this one.

    Raises:
        TypeError, ValueError: a value of another type or out of its range.

    Example:
        >>> SweepSettings(family="logistic+*", lrs=[0.1, 0.3]).lrs
        (0.1, 0.3)
    """

    _where = _WHERE
    _renamed: ClassVar[Renamed] = {"rates": "lrs"}

    family: str | Sequence[str] = "spanning"
    scales: Sequence[float] | None = None
    lrs: Sequence[float] | None = None
    workers: int = 1

    def __post_init__(self) -> None:
        family = self.family if isinstance(self.family, str) else tuple(self.family)
        object.__setattr__(self, "family", family)
        integer(_WHERE, "workers", self.workers, 1, _MOST_WORKERS)
        for name in ("scales", "lrs"):
            if getattr(self, name) is not None:
                object.__setattr__(self, name, _numbers(name, getattr(self, name)))


def _numbers(argument: str, given: Sequence[float]) -> tuple[float, ...]:
    values = list(given)
    if not values:
        raise fail(_WHERE, argument, "one number or more", "none")
    for value in values:
        positive(_WHERE, argument, value)
        number(_WHERE, argument, value, 0, LARGEST)
    return tuple(dict.fromkeys(float(value) for value in values))
