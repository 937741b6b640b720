# SPDX-License-Identifier: Apache-2.0
"""Lights: where light comes from, and of which colour."""

import copy
from collections.abc import Sequence
from typing import Any

import torch

from geodiff.modes import outside_autocast
from geodiff.saving import Saved
from geodiff.scene.pose import vector
from geodiff.validation import Place, broadcasts_to, common_batch, fail, looks_at_values, matches, placement, promote


class Light(Saved):
    """What all lights share: tensors (..., 3) that broadcast with the images."""

    _fields: tuple[str, ...] = ("color",)
    _fields_kept = ("color", "direction", "position", "attenuation")
    color: torch.Tensor

    def _set(self, **values: Any) -> None:
        where = type(self).__name__
        for name, value in promote(where, **values).items():
            if name == "color" and value.dim() == 0:
                value = value.expand(3)
            setattr(self, name, vector(where, name, value))
        self.batch_shape  # noqa: B018 - raises where the fields do not broadcast

    @property
    def batch_shape(self) -> torch.Size:
        """The leading shape that the fields broadcast to."""
        shapes = {name: getattr(self, name).shape[:-1] for name in self._fields}
        try:
            return common_batch(*shapes.values())
        except RuntimeError:
            text = ", ".join(f"{name} {tuple(shape)}" for name, shape in shapes.items())
            raise fail(type(self).__name__, ", ".join(shapes), "of batch shapes that broadcast", text) from None

    def _saved(self) -> dict[str, Any]:
        return dict(self._named())

    def select(self, batch: tuple[int, ...], index: Any) -> "Light":
        """Return the light of one image of a batch of the shape `batch`."""
        light = copy.copy(self)
        for name in self._fields:
            setattr(light, name, getattr(self, name).expand(*batch, 3)[index])
        return light

    def to(self, device: Place = None, dtype: torch.dtype | None = None) -> "Light":
        """Return the light on another device or in another dtype, as `Mesh.to`."""
        device, dtype = placement(f"{type(self).__name__}.to", device, dtype)
        light = copy.copy(self)
        for name in self._fields:
            setattr(light, name, getattr(self, name).to(device=device, dtype=dtype))
        return light

    def __repr__(self) -> str:
        parts = [f"{name}={[round(x, 4) for x in v.detach().flatten().tolist()[:3]]}" for name, v in self._named()]
        batch = f", batch={tuple(self.batch_shape)}" if self.batch_shape else ""
        return f"{type(self).__name__}({', '.join(parts)}{batch})"

    def _named(self) -> list[tuple[str, torch.Tensor]]:
        return [(name, getattr(self, name)) for name in self._fields]


@outside_autocast
class AmbientLight(Light):
    """Light from everywhere: it adds `color` times the material's ambient reflection.

    Args:
        color: (..., 3) or a number, 0 for none; values above 1 are fine.

    Gradients: in the colour.

    Example:
        >>> import geodiff as gd
        >>> gd.AmbientLight(0.5)
        AmbientLight(color=[0.5, 0.5, 0.5])
    """

    def __init__(self, color: Any = (1.0, 1.0, 1.0)) -> None:
        self._set(color=color)


@outside_autocast
class DirectionalLight(Light):
    """Light from far away, such as the sun's.

    Args:
        direction: (..., 3) from the scene towards the light, of any length but zero.
        color: (..., 3) or a number.

    Gradients: in both.

    Raises:
        ValueError: a direction of length zero, or shapes that do not fit.

    Example:
        >>> import geodiff as gd
        >>> gd.DirectionalLight((0, 2, 0), color=0.8)
        DirectionalLight(direction=[0.0, 2.0, 0.0], color=[0.8, 0.8, 0.8])
    """

    _fields = ("direction", "color")
    direction: torch.Tensor

    def __init__(self, direction: Any, color: Any = (1.0, 1.0, 1.0)) -> None:
        self._set(direction=direction, color=color)
        if looks_at_values(self.direction) and bool((self.direction.detach() == 0).all(dim=-1).any()):
            raise fail("DirectionalLight", "direction", "other than zero", "(0, 0, 0)", "Point it towards the light.")


@outside_autocast
class PointLight(Light):
    """Light from one point.

    Args:
        position: (..., 3) in the world.
        color: (..., 3) or a number.
        attenuation: (..., 3) `(a, b, c)`: at distance r its colour is divided by `a + b·r + c·r²`, which must be
            positive; (1, 0, 0) does not fade, (0, 0, 1) fades as in nature.

    Gradients: in all three. At the light's own position the direction is undefined; it counts as 0 there.

    Raises:
        ValueError: an attenuation that is negative or all zero, or shapes that do not fit.

    Example:
        >>> import geodiff as gd
        >>> gd.PointLight((0, 3, 1))
        PointLight(position=[0.0, 3.0, 1.0], color=[1.0, 1.0, 1.0], attenuation=[1.0, 0.0, 0.0])
    """

    _fields = ("position", "color", "attenuation")
    position: torch.Tensor
    attenuation: torch.Tensor

    def __init__(self, position: Any, color: Any = (1.0, 1.0, 1.0), attenuation: Any = (1.0, 0.0, 0.0)) -> None:
        self._set(position=position, color=color, attenuation=attenuation)
        at = self.attenuation.detach()
        if looks_at_values(at) and bool(((at < 0).any(dim=-1) | (at == 0).all(dim=-1)).any()):
            fix = "(1, 0, 0) does not fade."
            raise fail("PointLight", "attenuation", "three numbers ≥ 0, not all 0", str(at.tolist()), fix)


def as_lights(where: str, lights: Any, batch: tuple[int, ...]) -> list[Light]:
    """Return a list of lights whose batches broadcast to `batch`, that of the images.

    Raises:
        TypeError: something other than a light or a sequence of lights.
        ValueError: a batch that does not fit.
    """
    fix = "Use AmbientLight, DirectionalLight or PointLight."
    if isinstance(lights, Light):
        lights = [lights]
    if not isinstance(lights, Sequence) or not all(isinstance(light, Light) for light in lights):
        raise fail(where, "lights", "a light or a sequence of lights", lights, fix, TypeError)
    for light in lights:
        if not broadcasts_to(light.batch_shape, batch):
            expected = f"without a batch, or of one that broadcasts to the images' {tuple(batch)}"
            got = f"{type(light).__name__} of batch {tuple(light.batch_shape)}"
            raise fail(where, "lights", expected, got, "Give one light an image, or a single one for all.")
    return list(lights)


def check_reflection(where: str, name: str, value: torch.Tensor) -> torch.Tensor:
    """Return a reflection as (..., 3), of a number or (..., 3) in the range ≥ 0."""
    if value.dim() == 0:
        value = value.expand(3)
    if not matches(value.shape, ("...", 3)):
        raise fail(where, name, "a number or of shape (..., 3)", value)
    if looks_at_values(value) and bool((value.detach() < 0).any()):
        raise fail(where, name, "0 or more", f"{float(value.detach().min()):g}")
    return value
