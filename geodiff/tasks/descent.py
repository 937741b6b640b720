# SPDX-License-Identifier: Apache-2.0
"""What the settings of jobs have in common: checkpoints; and those of descents, with schedules over the steps."""

import math
from collections.abc import Callable
from typing import Any, ClassVar

from geodiff import soft
from geodiff.settings import LARGEST, Renamed, Settings, is_number
from geodiff.validation import fail, number

MOST_STEPS = 10**7


def _in_seconds(steps: Any) -> Any:
    """Return what steps between checkpoints stand for: after each, so that no more is lost; and 0 is never."""
    if not is_number(steps) or not 0 <= steps < math.inf:
        return steps  # to be refused
    return 0.0 if steps else None


def check_seconds(where: str, seconds: Any) -> None:
    """Check seconds between checkpoints."""
    if seconds is not None:
        number(where, "checkpoint_seconds", seconds, 0, math.inf)


class DescentSettings(Settings):
    """A base of frozen dataclasses: the fields that every descent through the soft renderer has.

    Attributes:
        steps: how many.
        lr, lr_decay: the step length, and what is left of it at the last step.
        betas: decay of the moments.
        scale: τ at the first and at the last step.
        distribution, tconorm: of the renderer.
        checkpoint_seconds: between checkpoints.
    """

    _renamed: ClassVar[Renamed] = {"checkpoint_every": ("checkpoint_seconds", _in_seconds)}
    _aside = ("checkpoint_seconds", "formats")
    _blank: ClassVar[tuple[str, ...]] = ()  # fields that may be None, to be filled in when the job is known

    steps: int
    lr: float
    lr_decay: float
    betas: tuple[float, float]
    scale: tuple[float, float]
    distribution: "soft.Distribution | str | Callable[..., Any]"
    tconorm: "soft.TConorm | str | Callable[..., Any]"
    checkpoint_seconds: float | None

    def _check_descent(self) -> None:
        """Check the fields of this class but steps and lr, and make them what they stand for."""
        self._check_share("lr_decay", "step length")
        check_seconds(self._where, self.checkpoint_seconds)
        for name, good, text in (
            ("betas", lambda x: 0 <= x < 1, "two numbers in [0, 1)"),
            ("scale", lambda x: 0 < x <= LARGEST, "two positive numbers ≤ 1e9, τ at the start and at the end"),
        ):
            pair = getattr(self, name)
            blank = name in self._blank
            if blank and pair is None:
                continue
            if is_number(pair) and name == "scale":
                pair = (pair, pair)
            if (
                not isinstance(pair, tuple | list)
                or len(pair) != 2
                or not all((blank and x is None) or (is_number(x) and good(x)) for x in pair)
            ):
                raise fail(self._where, name, text, repr(pair))
            object.__setattr__(self, name, tuple(None if x is None else float(x) for x in pair))
        object.__setattr__(self, "distribution", soft.as_distribution(self.distribution))
        object.__setattr__(self, "tconorm", soft.as_tconorm(self.tconorm))

    def _check_share(self, name: str, what: str) -> None:
        left = getattr(self, name)
        if left is None and name in self._blank:
            return
        if not is_number(left) or not 0 < left <= 1:
            raise fail(self._where, name, "a number in (0, 1]", left, f"1 keeps the {what} as it is.")

    def scale_at(self, step: int) -> float:
        """Return τ at a step counted from 0."""
        start, end = self.scale
        return float(start * (end / start) ** self._progress(step))

    def lr_at(self, step: int) -> float:
        """Return the step length at a step counted from 0."""
        return float(self.lr * self.lr_decay ** self._progress(step))

    def _progress(self, step: int) -> float:
        return step / max(self.steps - 1, 1)
