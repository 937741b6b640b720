# SPDX-License-Identifier: Apache-2.0
"""What torch.save, pickle and copy keep of our objects: what their constructors take, and never a cache.

``torch.load`` calls nothing but functions that it knows to be harmless. Ours, `restored`, calls one of the constructors
below, which check everything as if a user had called them: a file can neither run code nor smuggle in an index out of
range. torch knows it as soon as geodiff is imported after torch, or anything of geodiff is used.
"""

import importlib
from typing import Any, TypeVar

import torch

T = TypeVar("T", bound="Saved")
_CLASSES = {
    "Mesh": "geodiff.scene.mesh",
    "MeshBatch": "geodiff.scene.mesh_batch",
    "Topology": "geodiff.scene.topology",
    "Texture": "geodiff.scene.texture",
    "Material": "geodiff.scene.material",
    "Camera": "geodiff.scene.camera",
    "AmbientLight": "geodiff.scene.light",
    "DirectionalLight": "geodiff.scene.light",
    "PointLight": "geodiff.scene.light",
    "PosedImages": "geodiff.scene.files",
    "BSplineBasis": "geodiff.splines.basis",
    "NURBSCurve": "geodiff.splines.curve",
    "NURBSSurface": "geodiff.splines.surface",
    "NURBSVolume": "geodiff.splines.nurbs_volume",
}


def restored(name: str, arguments: dict[str, Any], more: dict[str, Any]) -> Any:
    """Make an object of a class in `_CLASSES` again.

    Args:
        name: of the class.
        arguments: of its constructor.
        more: attributes that a user gave it.

    Raises:
        KeyError: another class.
        TypeError, ValueError: as the constructor.
    """
    cls = getattr(importlib.import_module(_CLASSES[name]), name)
    value = cls(**arguments)
    value.__dict__.update({key: item for key, item in more.items() if not _is_own(value, key)})
    return value


def _is_own(value: Any, name: str) -> bool:
    """Whether an attribute is ours: of the class, or set by its constructor."""
    return name.startswith("_") or hasattr(type(value), name) or name in type(value)._fields_kept


class Saved:
    """An object that is saved by what its constructor takes."""

    _fields_kept: tuple[str, ...] = ()  # attributes that the constructor sets, but for those that start with _

    def _saved(self) -> dict[str, Any]:
        """Return the arguments of the constructor that make the object again."""
        return {name: getattr(self, name) for name in self._fields_kept}

    def __reduce_ex__(self, protocol: Any) -> Any:
        name = type(self).__name__
        if _CLASSES.get(name) != type(self).__module__:  # a class of a user's, derived from ours
            return super().__reduce_ex__(protocol)
        more = {key: value for key, value in self.__dict__.items() if not _is_own(self, key)}
        return restored, (name, self._saved(), more)

    def __copy__(self: T) -> T:
        copy = object.__new__(type(self))
        copy.__dict__.update(self.__dict__)
        return copy


torch.serialization.add_safe_globals([restored])
