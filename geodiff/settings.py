# SPDX-License-Identifier: Apache-2.0
"""The grammar of settings: frozen dataclasses, given as such, as dictionaries or as keywords; and fields' old names."""

import dataclasses
import inspect
import numbers
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, TypeVar

from geodiff.validation import fail, nearest, warn

Renamed = Mapping[str, "str | tuple[str, Callable[[Any], Any]]"]
"""Old names: the new one, or that and what the old value stands for."""
LARGEST = 1e9  # of numbers without a natural bound; beyond it, powers and sums overflow in float32
_Own = TypeVar("_Own", bound="Settings")


def is_number(value: Any) -> bool:
    """Whether a value is a real number, and no bool."""
    return isinstance(value, numbers.Real) and not isinstance(value, bool)


def with_new_names(where: str, given: Mapping[str, Any], renamed: Renamed) -> dict[str, Any]:
    """Return keywords under their new names, with a DeprecationWarning for each old one.

    Raises:
        TypeError: one given under both names.
    """
    result = {}
    for name, value in given.items():
        if name in renamed:
            entry = renamed[name]
            new, convert = (entry, None) if isinstance(entry, str) else entry
            if new in given:
                raise fail(where, name, f"left out where `{new}` is given", "both", error=TypeError)
            warn(f"{where}: `{name}` is now `{new}`; the old name goes away in a later release", DeprecationWarning)
            name, value = new, value if convert is None else convert(value)
        result[name] = value
    return result


class _Renames(type):
    """Classes that take old names of their fields."""

    _where: str
    _renamed: Renamed

    def __call__(cls, *arguments: Any, **fields: Any) -> Any:
        return super().__call__(*arguments, **with_new_names(cls._where, fields, cls._renamed))

    @property
    def __signature__(cls) -> inspect.Signature:  # of the fields, for those who look it up
        own = inspect.signature(cls.__init__)  # type: ignore[misc]
        return own.replace(parameters=list(own.parameters.values())[1:])


class Renaming(metaclass=_Renames):
    """A base of classes whose fields had other names before: the old ones are taken, and can be read."""

    _where: ClassVar[str]
    _renamed: ClassVar[Renamed] = {}

    def __getattr__(self, name: str) -> Any:  # called for names that are not there
        new = type(self)._renamed.get(name)
        if not isinstance(new, str):
            raise AttributeError(f"{type(self).__name__} has no attribute '{name}'")
        return getattr(self, next(iter(with_new_names(self._where, {name: None}, self._renamed))))


class Settings(Renaming):
    """A base of frozen dataclasses, of all that is set for a job but its data.

    Subclasses say in ``_where`` which function they are of, in ``_renamed`` the old names of fields, and in ``_aside``
    the fields that have no say in the result, so that a job may be resumed with others.
    """

    __dataclass_fields__: ClassVar[dict[str, dataclasses.Field[Any]]]  # of each class that inherits
    _aside: ClassVar[tuple[str, ...]] = ()

    @classmethod
    def of(cls: type[_Own], settings: Any, changes: Mapping[str, Any]) -> _Own:
        """Return settings of a job, with some fields changed.

        Args:
            settings: an instance; one of a class that this one extends; a dictionary by name; None: the defaults.
            changes: fields by name; they count more.

        Raises:
            TypeError: settings of another class, or an unknown name: suggests the nearest.
        """
        if settings is None or isinstance(settings, Mapping):
            start = dict(settings or {})
        elif isinstance(settings, Settings) and (isinstance(settings, cls) or issubclass(cls, type(settings))):
            start = {field.name: getattr(settings, field.name) for field in dataclasses.fields(settings)}
        else:
            expected = f"a {cls.__name__} or a dictionary of its fields"
            raise fail(cls._where, "settings", expected, settings, error=TypeError)
        fields: dict[str, Any] = {}
        names = [field.name for field in dataclasses.fields(cls)]
        for given in (start, changes):
            for name, value in with_new_names(cls._where, given, cls._renamed).items():
                if name not in names:
                    raise fail(cls._where, name, "a known argument", "an unknown name", nearest(name, names), TypeError)
                fields[name] = value
        return cls(**fields)

    def as_dict(self) -> dict[str, Any]:
        """Return plain values, as they are written to JSON: objects as text."""
        return {field.name: _plain(getattr(self, field.name)) for field in dataclasses.fields(self)}

    def inputs(self) -> dict[str, Any]:
        """Return the plain values of the fields that decide the result."""
        return {name: value for name, value in self.as_dict().items() if name not in self._aside}


def _plain(value: Any) -> Any:
    """Return what JSON takes: NumPy's numbers as Python's."""
    if isinstance(value, tuple | list):
        return [_plain(one) for one in value]
    if isinstance(value, numbers.Integral) and not isinstance(value, bool):
        return int(value)
    if is_number(value):
        return float(value)
    return value if value is None or isinstance(value, bool | str) else repr(value)
