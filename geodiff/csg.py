# SPDX-License-Identifier: Apache-2.0
"""Constructive solid geometry: solids joined, cut and subtracted, with gradients, and gates that are learned.

A solid is a function of space, negative inside. `Solid.relaxed` makes every primitive a soft "inside", the
distribution's F(−d/τ), and every operation a T-norm or a T-conorm of such probabilities; `gd.isosurface` makes a mesh
of either. See docs/csg.md.
"""

import math
from collections.abc import Callable
from typing import Any

import torch

from geodiff.modes import outside_autocast
from geodiff.soft import GATES, Distribution, TConorm, as_distribution, as_tconorm, gate_names
from geodiff.soft.gates import Pair, gate_pair, gate_shares, mixed_pair
from geodiff.validation import fail, floating, number, positive, promote

__all__ = ["Box", "Cylinder", "Gate", "HalfSpace", "Implicit", "RelaxedSolid", "Solid", "Sphere"]


@outside_autocast
class Solid:
    """A solid: a function of points that is negative inside, and what is made of two by `|`, `&`, `-`, `^` and `~`.

    Called with points (..., 3) it returns (...,) signed distances: exact for primitives; joined solids have the minimum
    and the maximum of their parts', which is no further than the surface is, and 0 there.

    Example:
        >>> import torch, geodiff as gd
        >>> from geodiff import csg
        >>> bitten = csg.Box(2.0) - csg.Sphere(1.0, center=(1, 1, 1))
        >>> bitten(torch.tensor([[0.0, 0, 0], [0.9, 0.9, 0.9], [2.0, 0, 0]]))
        tensor([-0.7321,  0.8268,  1.0000])
        >>> gd.isosurface(bitten, bounds=[[-1.2] * 3, [1.2] * 3], resolution=25).is_closed
        True
    """

    def __call__(self, points: torch.Tensor) -> torch.Tensor:
        """Return the signed distance of points (..., 3), (...,)."""
        return self._distance(floating(type(self).__name__, "points", points, ("...", 3), finite=False))

    def relaxed(self, scale: Any, tconorm: Any = "probabilistic", distribution: Any = "logistic") -> "RelaxedSolid":
        """Return the same solid with soft operations.

        Args:
            scale: τ > 0, how soft the border of each primitive is, in units of the world; a number or a tensor.
            tconorm: the "or", by name or as an object of `geodiff.soft`; its dual is the "and". With ``"maximum"`` the
                surface is that of the hard solid, at any τ.
            distribution: F, a symmetric one (else single primitives would shrink or grow).

        Raises:
            TypeError, ValueError: as each argument's check says.
        """
        return RelaxedSolid(self, scale, tconorm, distribution)

    def translated(self, offset: Any) -> "Solid":
        """Return it moved by (3,)."""
        return _Placed(self, offset=offset)

    def rotated(self, rotation: Any) -> "Solid":
        """Return it turned about the origin by an orthogonal matrix (3, 3): p ↦ R p."""
        return _Placed(self, rotation=rotation)

    def scaled(self, factor: Any) -> "Solid":
        """Return it larger by a positive factor, from the origin."""
        return _Placed(self, factor=factor)

    def __or__(self, other: "Solid") -> "Solid":
        return _Combined("or", self, other)

    def __and__(self, other: "Solid") -> "Solid":
        return _Combined("and", self, other)

    def __sub__(self, other: "Solid") -> "Solid":
        return _Combined("a_not_b", self, other)

    def __xor__(self, other: "Solid") -> "Solid":
        return _Combined("xor", self, other)

    def __invert__(self) -> "Solid":
        return _Combined("not_a", self, self)

    def _distance(self, points: torch.Tensor) -> torch.Tensor:
        raise NotImplementedError(f"{type(self).__name__} must define _distance(self, points).")

    def _pair(self, points: torch.Tensor, soft: "RelaxedSolid", scale: torch.Tensor) -> Pair:
        """Return the logarithms of the occupancy and of 1 minus it."""
        x = -self._distance(points) / scale
        return soft.distribution.log_cdf(x), soft.distribution.log_survival(x)


@outside_autocast
class RelaxedSolid:
    """A solid with soft operations, made by `Solid.relaxed`: a function of points for `gd.isosurface`.

    Its value is `−τ·log(o / (1 − o))` of the occupancy o: of a single primitive, with the logistic distribution, the
    signed distance; of all, 0 where o = ½. It is infinite where o is 0 or 1 to rounding: with "probabilistic",
    "maximum", "dombi" and "aczel_alsina" nowhere, with the other T-conorms from about 87 τ outside on (708 τ in
    float64), and inside where nilpotent ones come to 1. A grid for `gd.isosurface` should be finer than that.

    Gradients: in the points, τ, all sizes and places, and the logits of gates.

    Example:
        >>> from geodiff import csg
        >>> both = csg.Sphere(1.0) | csg.Sphere(1.0, center=(1, 0, 0))
        >>> soft = both.relaxed(0.1)
        >>> at = torch.tensor([[0.5, 0.9, 0.0]])  # outside of both, by 0.03
        >>> both(at) > 0, soft(at) < 0, soft.occupancy(at)
        (tensor([True]), tensor([True]), tensor([0.6712]))
    """

    def __init__(self, solid: Solid, scale: Any, tconorm: Any, distribution: Any) -> None:
        positive("Solid.relaxed", "scale", scale, "It is a length: how soft the border is.")
        self.solid = solid
        self.scale = promote("Solid.relaxed", scale=scale)["scale"]
        if self.scale.numel() != 1:
            raise fail("Solid.relaxed", "scale", "one number", self.scale)
        self.tconorm: TConorm = as_tconorm(tconorm)
        self.distribution: Distribution = as_distribution(distribution)
        if not self.distribution.symmetric or self.distribution.is_squared:
            fix = "Else F(0) would not be ½, where the surface is."
            raise fail("Solid.relaxed", "distribution", "symmetric", repr(self.distribution), fix)

    def __call__(self, points: torch.Tensor) -> torch.Tensor:
        """Return `−τ·log(o / (1 − o))` at points (..., 3), (...,)."""
        log_in, log_out = self._pair(points)
        return self._tau(points) * (log_out - log_in)

    def occupancy(self, points: torch.Tensor) -> torch.Tensor:
        """Return how far points (..., 3) are inside, in [0, 1], (...,)."""
        return self._pair(points)[0].exp()

    def level(self, occupancy: float) -> float:
        """Return the value where the occupancy is this one, for the ``level`` of `gd.isosurface`."""
        o = number("RelaxedSolid.level", "occupancy", occupancy, 1e-6, 1 - 1e-6)
        return -float(self.scale.detach()) * math.log(o / (1 - o))

    def _tau(self, points: torch.Tensor) -> torch.Tensor:
        return self.scale.reshape(()).to(points)

    def _pair(self, points: torch.Tensor) -> Pair:
        points = floating("RelaxedSolid", "points", points, ("...", 3), finite=False)
        return self.solid._pair(points, self, self._tau(points))

    def __repr__(self) -> str:
        return f"{self.solid!r}.relaxed({float(self.scale.detach()):g}, {self.tconorm!r}, {self.distribution!r})"


@outside_autocast
class Sphere(Solid):
    """A ball.

    Args:
        radius: > 0, a number or a tensor, which may require a gradient.
        center: (3,).
    """

    def __init__(self, radius: Any = 1.0, center: Any = (0.0, 0.0, 0.0)) -> None:
        self.radius = _size("Sphere", "radius", radius)
        self.center = _vector("Sphere", "center", center)

    def _distance(self, points: torch.Tensor) -> torch.Tensor:
        return _length(points - self.center.to(points)) - self.radius.to(points)

    def __repr__(self) -> str:
        return f"Sphere({_text(self.radius)}, {_text(self.center)})"


@outside_autocast
class Box(Solid):
    """A box along the axes.

    Args:
        size: its edges' lengths > 0: one, or (3,).
        center: (3,).
    """

    def __init__(self, size: Any = 1.0, center: Any = (0.0, 0.0, 0.0)) -> None:
        self.size = _size("Box", "size", size, (3,))
        self.center = _vector("Box", "center", center)

    def _distance(self, points: torch.Tensor) -> torch.Tensor:
        beyond = (points - self.center.to(points)).abs() - self.size.to(points) / 2
        return _length(beyond.clamp(min=0)) + beyond.amax(dim=-1).clamp(max=0)

    def __repr__(self) -> str:
        return f"Box({_text(self.size)}, {_text(self.center)})"


@outside_autocast
class Cylinder(Solid):
    """A cylinder around the y axis, like `gd.cylinder`.

    Args:
        radius: > 0.
        height: along y, > 0.
        center: (3,), its middle.
    """

    def __init__(self, radius: Any = 1.0, height: Any = 2.0, center: Any = (0.0, 0.0, 0.0)) -> None:
        self.radius, self.height = _size("Cylinder", "radius", radius), _size("Cylinder", "height", height)
        self.center = _vector("Cylinder", "center", center)

    def _distance(self, points: torch.Tensor) -> torch.Tensor:
        at = points - self.center.to(points)
        around = _length(at[..., [0, 2]]) - self.radius.to(points)
        beyond = torch.stack([around, at[..., 1].abs() - self.height.to(points) / 2], dim=-1)
        return _length(beyond.clamp(min=0)) + beyond.amax(dim=-1).clamp(max=0)

    def __repr__(self) -> str:
        return f"Cylinder({_text(self.radius)}, {_text(self.height)}, {_text(self.center)})"


@outside_autocast
class HalfSpace(Solid):
    """All that lies behind a plane: `normal · p ≤ offset`.

    Args:
        normal: (3,), of any length but 0; it points out of the solid.
        offset: how far along the (unit) normal the plane is from the origin.
    """

    def __init__(self, normal: Any = (0.0, 1.0, 0.0), offset: Any = 0.0) -> None:
        normal = _vector("HalfSpace", "normal", normal)
        if not bool(normal.detach().norm() > 0):
            raise fail("HalfSpace", "normal", "a vector other than 0", _text(normal))
        self.normal = normal / normal.norm()
        self.offset = promote("HalfSpace", offset=offset)["offset"]
        if self.offset.numel() != 1:
            raise fail("HalfSpace", "offset", "one number", self.offset)

    def _distance(self, points: torch.Tensor) -> torch.Tensor:
        return (points * self.normal.to(points)).sum(-1) - self.offset.reshape(()).to(points)

    def __repr__(self) -> str:
        return f"HalfSpace({_text(self.normal)}, {_text(self.offset)})"


@outside_autocast
class Implicit(Solid):
    """A solid by a function of one's own, such as a network or the distance to a mesh.

    Args:
        function: of points (..., 3) returns (...,): negative inside, about the distance near the surface.
    """

    def __init__(self, function: Callable[[torch.Tensor], torch.Tensor]) -> None:
        if not callable(function):
            raise fail("Implicit", "function", "a function of points", function, error=TypeError)
        self.function = function

    def _distance(self, points: torch.Tensor) -> torch.Tensor:
        value = self.function(points)
        if not isinstance(value, torch.Tensor) or value.shape != points.shape[:-1]:
            expected = f"a function that returns {tuple(points.shape[:-1])} for points {tuple(points.shape)}"
            raise fail("Implicit", "function", expected, value)
        return value

    def __repr__(self) -> str:
        return f"Implicit({getattr(self.function, '__name__', type(self.function).__name__)})"


@outside_autocast
class Gate(Solid):
    """Two solids joined by a gate that is learned: relaxed, the mean over eight gates by the softmax of logits.

    The eight are those that leave outside what is outside of both, in the order of `soft.GATES`: nothing, `a & b`,
    `a - b`, a, `b - a`, b, `a ^ b`, `a | b`. Not relaxed, it is the gate of largest logit.

    Args:
        a: a solid.
        b: a solid.
        logits: (8,), float32 or float64, finite.

    Example:
        >>> from geodiff import csg
        >>> logits = torch.tensor([0.0, 0, 3, 0, 0, 0, 0, 0], requires_grad=True)
        >>> gate = csg.Gate(csg.Box(2.0), csg.Sphere(1.0), logits)
        >>> gate.name, gate.hard()
        ('a_not_b', (Box((2, 2, 2), (0, 0, 0)) - Sphere(1, (0, 0, 0))))
    """

    def __init__(self, a: Solid, b: Solid, logits: torch.Tensor) -> None:
        self.a, self.b = _solid("Gate", "a", a), _solid("Gate", "b", b)
        self.logits = floating("Gate", "logits", logits, (8,), "One for each of the first eight of soft.GATES.")

    @property
    def name(self) -> str:
        """The name of the gate of largest logit, of `soft.GATES`."""
        return str(gate_names(self.logits))

    def hard(self) -> Solid:
        """Return the two solids joined by the gate of largest logit."""
        return _Combined(self.name, self.a, self.b)

    def _distance(self, points: torch.Tensor) -> torch.Tensor:
        return self.hard()._distance(points)

    def _pair(self, points: torch.Tensor, soft: RelaxedSolid, scale: torch.Tensor) -> Pair:
        a, b = self.a._pair(points, soft, scale), self.b._pair(points, soft, scale)
        return mixed_pair(gate_shares("Gate", self.logits).to(points), a, b, soft.tconorm)

    def __repr__(self) -> str:
        return f"Gate({self.a!r}, {self.b!r}, {self.name})"


class _Combined(Solid):
    """Two solids and a gate, by its name in `soft.GATES`."""

    def __init__(self, kind: str, a: Solid, b: Solid) -> None:
        self.kind, self.a, self.b = kind, a, _solid("Solid", "other", b)

    def _distance(self, points: torch.Tensor) -> torch.Tensor:
        a = self.a._distance(points)
        return _hard(self.kind, a, a if self.b is self.a else self.b._distance(points))

    def _pair(self, points: torch.Tensor, soft: RelaxedSolid, scale: torch.Tensor) -> Pair:
        a = self.a._pair(points, soft, scale)
        return gate_pair(self.kind, a, a if self.b is self.a else self.b._pair(points, soft, scale), soft.tconorm)

    def __repr__(self) -> str:
        signs = {"or": "|", "and": "&", "a_not_b": "-", "xor": "^"}
        return f"~{self.a!r}" if self.kind == "not_a" else f"({self.a!r} {signs.get(self.kind, self.kind)} {self.b!r})"


class _Placed(Solid):
    """A solid p ↦ s·R p + t away from where it was."""

    def __init__(self, solid: Solid, *, offset: Any = None, rotation: Any = None, factor: Any = None) -> None:
        self.solid, self.offset, self.rotation, self.factor = solid, None, None, None
        if offset is not None:
            self.offset = _vector("Solid.translated", "offset", offset)
        if rotation is not None:
            rotation = floating("Solid.rotated", "rotation", promote("", rotation=rotation)["rotation"], (3, 3))
            product = (rotation @ rotation.mT).detach().double()
            if not torch.allclose(product, torch.eye(3, dtype=product.dtype, device=product.device), atol=1e-4):
                fix = "A factor goes into .scaled."
                raise fail("Solid.rotated", "rotation", "orthogonal, R Rᵀ = 1", rotation.tolist().__repr__(), fix)
            self.rotation = rotation
        if factor is not None:
            self.factor = _size("Solid.scaled", "factor", factor)

    def _inner(self, points: torch.Tensor) -> torch.Tensor:
        if self.offset is not None:
            points = points - self.offset.to(points)
        if self.rotation is not None:
            points = (points[..., None, :] * self.rotation.mT.to(points)).sum(-1)
        return points if self.factor is None else points / self.factor.to(points)

    def _distance(self, points: torch.Tensor) -> torch.Tensor:
        inner = self.solid._distance(self._inner(points))
        return inner if self.factor is None else inner * self.factor.to(points)

    def _pair(self, points: torch.Tensor, soft: RelaxedSolid, scale: torch.Tensor) -> Pair:
        inner = scale if self.factor is None else scale / self.factor.to(points)
        return self.solid._pair(self._inner(points), soft, inner)

    def __repr__(self) -> str:
        if self.offset is not None:
            return f"{self.solid!r}.translated({_text(self.offset)})"
        return f"{self.solid!r}.rotated(…)" if self.factor is None else f"{self.solid!r}.scaled({_text(self.factor)})"


def _length(vector: torch.Tensor) -> torch.Tensor:
    """Return the norm along the last axis, whose derivatives at 0, of any order, are 0: torch's second one is NaN."""
    square = vector.square().sum(-1)
    there = square > 0
    return torch.where(there, torch.where(there, square, 1.0).sqrt(), 0.0)


def _hard(kind: str, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Return what a gate makes of signed distances."""
    number = GATES.index(kind)
    if number > 7:
        return -_hard(GATES[15 - number], a, b)
    if kind == "false":
        return torch.full_like(a, torch.inf)
    if kind in ("a", "b"):
        return a if kind == "a" else b
    if kind == "xor":
        return torch.minimum(torch.maximum(a, -b), torch.maximum(-a, b))
    if kind == "or":
        return torch.minimum(a, b)
    return torch.maximum(-a if kind == "b_not_a" else a, -b if kind == "a_not_b" else b)


def _solid(where: str, argument: str, value: Any) -> Solid:
    if not isinstance(value, Solid):
        fix = "Solid functions of your own go into csg.Implicit."
        raise fail(where, argument, "a solid of geodiff.csg", value, fix, TypeError)
    return value


def _size(where: str, argument: str, value: Any, shape: tuple[int, ...] = ()) -> torch.Tensor:
    size = promote(where, **{argument: value})[argument]
    positive(where, argument, size)
    if size.numel() != 1 and size.shape != shape:
        raise fail(where, argument, "one number" + (f", or {shape}" if shape else ""), size)
    return size.reshape(()) if not shape else size.expand(shape) if size.dim() < 2 else size.reshape(1).expand(shape)


def _vector(where: str, argument: str, value: Any) -> torch.Tensor:
    return floating(where, argument, promote(where, **{argument: value})[argument], (3,))


def _text(value: torch.Tensor) -> str:
    numbers = value.detach().reshape(-1).tolist()
    return f"({', '.join(f'{x:g}' for x in numbers)})" if value.dim() else f"{numbers[0]:g}"
