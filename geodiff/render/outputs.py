# SPDX-License-Identifier: Apache-2.0
"""What renderers return."""

from dataclasses import dataclass, field
from typing import Any

import torch

from geodiff.validation import choice, shapes_repr

OUTPUTS = ("alpha", "rgb", "depth", "normal", "face_id", "uv")


class NotRequestedError(AttributeError):
    """An output that was not asked for; ``getattr(out, "rgb", None)`` and ``hasattr`` work as for any attribute."""


@dataclass(frozen=True, eq=False, init=False)
class RenderOutput:
    """What a renderer returns: images of size `H × W`; the batch is that of mesh and camera, broadcast.

    To ask for one that the renderer was not told to make is an error, which says so; ``in`` tells: ``"rgb" in out``.
    Depth, normal, uv and face_id are, with hard depth, those of the face that is seen at the pixel centre, the same as
    of `rasterize`; with softmax depth the weighted mean over the faces, and the face of the largest weight.

    Attributes:
        alpha: soft coverage in [0, 1], `(..., H, W)`.
        rgb: colour over the background, `(..., H, W, 3)`.
        depth: distance along the viewing direction, infinite where empty, `(..., H, W)`.
        normal: unit normals in the world, 0 where empty, `(..., H, W, 3)`; means are not made unit again.
        face_id: index of the face within its mesh, −1 where empty, `(..., H, W)` int64.
        uv: texture coordinates, 0 where empty, `(..., H, W, 2)`.

    Raises:
        NotRequestedError: an AttributeError, for an output that is not there.
    """

    __repr__ = shapes_repr

    alpha: torch.Tensor
    # A default that is made leaves no attribute on the class, so that `__getattr__` is asked for those not there.
    rgb: torch.Tensor = field(default_factory=lambda: _absent())
    depth: torch.Tensor = field(default_factory=lambda: _absent())
    normal: torch.Tensor = field(default_factory=lambda: _absent())
    face_id: torch.Tensor = field(default_factory=lambda: _absent())
    uv: torch.Tensor = field(default_factory=lambda: _absent())

    def __init__(self, alpha: torch.Tensor, **others: torch.Tensor | None) -> None:
        object.__setattr__(self, "alpha", alpha)
        for name, value in others.items():
            choice("RenderOutput", "outputs", name, OUTPUTS)
            if value is not None:
                object.__setattr__(self, name, value)

    def __getattr__(self, name: str) -> Any:
        if name in OUTPUTS:
            raise NotRequestedError(f"{name} was not asked for: Renderer(outputs=('{name}',)).")
        raise AttributeError(f"'RenderOutput' object has no attribute '{name}'")

    def __contains__(self, name: object) -> bool:
        return name in self.__dict__


def _absent() -> torch.Tensor:
    raise TypeError("RenderOutput has its own constructor")


class _FieldsThere:
    """The fields of a class, and of an object those that it has: for `asdict` and `replace` of `dataclasses`."""

    def __init__(self, fields: dict[str, Any]) -> None:
        self.fields = fields

    def __get__(self, output: RenderOutput | None, kind: type) -> dict[str, Any]:
        return {n: f for n, f in self.fields.items() if output is None or n in output.__dict__}


RenderOutput.__dataclass_fields__ = _FieldsThere(RenderOutput.__dataclass_fields__)  # type: ignore[assignment]


@dataclass(frozen=True)
class HardOutput:
    """What the hard rasteriser returns; the batch is that of mesh and camera, broadcast.

    Attributes:
        mask: whether a face covers the pixel centre, `(..., H, W)` bool.
        depth: distance along the viewing direction, infinite where empty, `(..., H, W)`.
        face_id: index of the nearest face, −1 where empty, `(..., H, W)` int64.
        barycentric: perspective-correct weights of its corners, 0 where empty, `(..., H, W, 3)`.
    """

    __repr__ = shapes_repr

    mask: torch.Tensor
    depth: torch.Tensor
    face_id: torch.Tensor
    barycentric: torch.Tensor
