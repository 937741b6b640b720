# SPDX-License-Identifier: Apache-2.0
"""What the settings of jobs have in common: fields changed by name, checks, and schedules over the steps."""

import dataclasses
import numbers
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

from geodiff import soft
from geodiff.validation import fail, nearest

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

_Settings = TypeVar("_Settings", bound="DataclassInstance")
MOST_STEPS = 10**7
LARGEST = 1e9  # of numbers without a natural bound; beyond it, powers and sums overflow in float32
_Own = TypeVar("_Own", bound="DescentSettings")


def changed(where: str, kind: type[_Settings], settings: Any, changes: dict[str, Any], name: str = "") -> _Settings:
    """Return ``settings`` (or the defaults) of a dataclass with some fields changed; unknown names suggest the nearest.

    Raises:
        TypeError: settings of another class, or an unknown name.
    """
    if settings is not None and not isinstance(settings, kind):
        raise fail(where, "settings", f"a {name or kind.__name__}", settings, error=TypeError)
    names = [field.name for field in dataclasses.fields(kind)]
    for own in changes:
        if own not in names:
            raise fail(where, own, "a known argument", "an unknown name", nearest(own, names), TypeError)
    return dataclasses.replace(settings or kind(), **changes)


def is_number(value: Any) -> bool:
    """Whether a value is a real number, and no bool."""
    return isinstance(value, numbers.Real) and not isinstance(value, bool)


def _plain(value: Any) -> Any:
    """Return what JSON takes: NumPy's numbers as Python's."""
    if isinstance(value, tuple):
        return [_plain(one) for one in value]
    if isinstance(value, numbers.Integral) and not isinstance(value, bool):
        return int(value)
    return float(value) if is_number(value) else value


class DescentSettings:
    """A base of frozen dataclasses: the fields that every descent through the soft renderer has.

    Attributes:
        steps: how many.
        lr, lr_decay: the step length, and what is left of it at the last step.
        betas: decay of the moments.
        scale: τ at the first and at the last step.
        distribution, tconorm: of the renderer.
    """

    __dataclass_fields__: ClassVar[dict[str, dataclasses.Field[Any]]]  # of each class that inherits

    steps: int
    lr: float
    lr_decay: float
    betas: tuple[float, float]
    scale: tuple[float, float]
    distribution: "soft.Distribution | str | Callable[..., Any]"
    tconorm: "soft.TConorm | str | Callable[..., Any]"
    _where: str

    @classmethod
    def of(cls: type[_Own], settings: _Own | None, changes: dict[str, Any]) -> _Own:
        """Return ``settings`` (or the defaults) with some fields changed; unknown names suggest the nearest."""
        return changed(cls._where, cls, settings, changes)

    def _check_descent(self) -> None:
        """Check the fields of this class but steps and lr, and make them what they stand for."""
        self._check_share("lr_decay", "step length")
        for name, good, text in (
            ("betas", lambda x: 0 <= x < 1, "two numbers in [0, 1)"),
            ("scale", lambda x: 0 < x <= LARGEST, "two positive numbers ≤ 1e9, τ at the start and at the end"),
        ):
            pair = getattr(self, name)
            if is_number(pair) and name == "scale":
                pair = (pair, pair)
            if not isinstance(pair, tuple | list) or len(pair) != 2 or not all(is_number(x) and good(x) for x in pair):
                raise fail(self._where, name, text, repr(pair))
            object.__setattr__(self, name, (float(pair[0]), float(pair[1])))
        object.__setattr__(self, "distribution", soft.as_distribution(self.distribution))
        object.__setattr__(self, "tconorm", soft.as_tconorm(self.tconorm))

    def _check_share(self, name: str, what: str) -> None:
        left = getattr(self, name)
        if not is_number(left) or not 0 < left <= 1:
            raise fail(self._where, name, "a number in (0, 1]", left, f"1 keeps the {what} as it is.")

    def as_dict(self) -> dict[str, Any]:
        """Return plain values, as they are written to JSON: distribution and T-conorm as text."""
        values = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        for name in ("distribution", "tconorm"):
            values[name] = repr(values[name])
        return {name: _plain(value) for name, value in values.items()}

    def scale_at(self, step: int) -> float:
        """Return τ at a step counted from 0."""
        start, end = self.scale
        return float(start * (end / start) ** self._progress(step))

    def lr_at(self, step: int) -> float:
        """Return the step length at a step counted from 0."""
        return float(self.lr * self.lr_decay ** self._progress(step))

    def _progress(self, step: int) -> float:
        return step / max(self.steps - 1, 1)
