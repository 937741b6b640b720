# SPDX-License-Identifier: Apache-2.0
"""Arguments in every layout that remember what they were."""

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch

import geodiff as gd
from geodiff.splines import NURBSCurve, NURBSSurface, NURBSVolume

LAYOUTS = ("contiguous", "transposed", "strided", "expanded", "numpy")
Case = Callable[["Arguments"], Any]


class Arguments:
    """Makes arguments of one dtype and layout, keeps copies of them, and says afterwards which are no longer the same.

    What a view has between its entries counts too: the buffer below is compared.
    """

    def __init__(self, dtype: torch.dtype, layout: str) -> None:
        self.dtype, self.layout = dtype, layout
        self.random = torch.Generator().manual_seed(1)
        self.kept: list[tuple[str, Any, Any]] = []
        self.leaves: list[torch.Tensor] = []
        self.takes = set(LAYOUTS[:3])

    def __call__(self, value: Any, *, gradient: bool = True, array: bool = False, batch: bool = False) -> Any:
        """Return `value` in the dtype, if it is floating, and the layout.

        Args:
            value: a tensor or nested lists.
            gradient: whether it may want one, if it is floating.
            array: whether the function takes NumPy arrays; else tensors stand for them.
            batch: whether the function takes an axis more in front, which is expanded.
        """
        value = torch.as_tensor(value).detach()
        value = value.to(self.dtype) if value.is_floating_point() else value
        layout = self.layout
        self.takes |= {name for name, wanted in (("numpy", array), ("expanded", batch)) if wanted}
        if layout == "numpy" and array:
            made = value.numpy().copy()
            self.kept.append(("array", made, made.copy()))
            return made
        buffer = value.clone(memory_format=torch.contiguous_format)
        view = buffer
        if layout == "transposed" and value.dim() >= 2:
            buffer = value.mT.contiguous()
            view = buffer.mT
        elif layout in ("strided", "transposed") and value.dim() >= 1:
            buffer = torch.stack([value, torch.full_like(value, 3)], -1).contiguous()
            view = buffer[..., 0]
        elif layout == "expanded" and batch:
            view = buffer[None].expand(2, *buffer.shape)
        self.kept.append(("tensor", buffer, buffer.clone()))
        if gradient and view.is_floating_point():
            view = view.detach().requires_grad_()
            self.leaves.append(view)
        return view

    def rand(self, *shape: int, **options: Any) -> Any:
        """Random numbers in [0, 1)."""
        return self(torch.rand(shape, generator=self.random, dtype=torch.float64), **options)

    def randn(self, *shape: int, **options: Any) -> Any:
        """Normal random numbers."""
        return self(torch.randn(shape, generator=self.random, dtype=torch.float64), **options)

    def hold(self, thing: Any) -> Any:
        """Remember the tensors of an object, and return it."""
        for name, tensor in tensors(thing, type(thing).__name__):
            self.kept.append((name, tensor, tensor.detach().clone()))
        return thing

    def changed(self) -> list[str]:
        """Names of what is not the same any more."""
        return [f"{name} {tuple(now.shape)}" for name, now, then in self.kept if not same(now, then)]

    def mesh(self, **options: Any) -> gd.Mesh:
        """Return an octahedron, all corners of it wanting gradients."""
        ball = gd.icosphere(0, dtype=torch.float64)
        return self.hold(gd.Mesh(self(ball.vertices), self(ball.faces), **options))

    def coloured(self) -> gd.Mesh:
        """Return a mesh with colours of vertices."""
        return self.mesh(vertex_colors=self.rand(12, 3))

    def textured(self) -> gd.Mesh:
        """Return a mesh with a texture and texture coordinates of its own."""
        return self.mesh(
            uv=self.rand(60, 2), uv_faces=self(torch.arange(60).reshape(20, 3)), texture=self.rand(4, 5, 3)
        )

    def camera(self) -> gd.Camera:
        """Return two views."""
        return self.hold(gd.Camera.orbit(self(3.0), 20.0, self([10.0, 50.0]), fov_deg=self(40.0)))

    def clip(self, near: float = 3.0) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Clip coordinates, faces and layout of a ball."""
        ball = gd.icosphere(0, dtype=torch.float64)
        x, y, z = (ball.vertices + 0.01 * torch.randn(12, 3, generator=self.random, dtype=torch.float64)).unbind(1)
        return self(torch.stack([x, y, near - z, near - z], 1)), self(ball.faces), self(torch.tensor([[0, 0, 20]]))

    def curve(self, count: int = 6, dim: int = 3, degree: int = 3) -> NURBSCurve:
        """Return a rational curve with uneven knots."""
        knots = torch.cat([torch.zeros(degree), (torch.arange(count - degree + 1) / (count - degree)) ** 1.2])
        knots = torch.cat([knots, torch.ones(degree)])
        points = self(torch.cumsum(torch.rand(count, dim, generator=self.random, dtype=torch.float64), 0))
        return self.hold(NURBSCurve(points, self(knots), self.rand(count) + 0.5, degree))

    def surface(self, shape: tuple[int, int] = (5, 4)) -> NURBSSurface:
        """Return a rational surface, a bumpy patch."""
        grid = torch.stack(
            torch.meshgrid(*(torch.linspace(0, 1, n, dtype=torch.float64) for n in shape), indexing="ij")
        )
        bump = 0.3 * torch.rand(1, *shape, generator=self.random, dtype=torch.float64)
        points = self(torch.cat([grid, bump]).movedim(0, -1))
        return self.hold(NURBSSurface(points, weights=self.rand(*shape) + 0.5, degree=(3, 2)))

    def volume(self) -> NURBSVolume:
        """Return a box whose inside is bent a little."""
        axes = [torch.linspace(0, 1, 3, dtype=torch.float64)] * 3
        grid = torch.stack(torch.meshgrid(*axes, indexing="ij"), -1)
        bend = 0.1 * torch.rand(grid.shape, generator=self.random, dtype=torch.float64)
        return self.hold(NURBSVolume(self(grid + bend), degree=(2, 2, 2)))


def tensors(thing: Any, name: str = "result", depth: int = 4) -> Iterator[tuple[str, torch.Tensor]]:
    """All tensors in an object of the library, in lists, in mappings."""
    if isinstance(thing, torch.Tensor):
        yield name, thing
    elif depth == 0:
        return
    elif isinstance(thing, dict):
        for key, value in thing.items():
            yield from tensors(value, f"{name}[{key}]", depth - 1)
    elif isinstance(thing, list | tuple):
        for i, value in enumerate(thing):
            yield from tensors(value, f"{name}[{i}]", depth - 1)
    elif dataclasses.is_dataclass(thing) or type(thing).__module__.startswith("geodiff"):
        slots = {key: getattr(thing, key) for key in getattr(type(thing), "__slots__", ()) if hasattr(thing, key)}
        for key, value in {**slots, **getattr(thing, "__dict__", {})}.items():
            yield from tensors(value, f"{name}.{key}", depth - 1)


def check(case: Case) -> None:
    """Run a case forwards and backwards in all that it takes; its arguments, and cotangents, must be what they were."""
    for dtype in (torch.float64, torch.float32):
        takes = set(LAYOUTS)
        for layout in LAYOUTS:
            if layout in takes:
                arguments = Arguments(dtype, layout)
                _check(case, arguments, f"{dtype}, {layout}")
                takes &= arguments.takes


def _check(case: Case, arguments: Arguments, variant: str) -> None:
    result = case(arguments)
    assert not arguments.changed(), f"{variant}: changed by the call: {arguments.changed()}"
    outputs = [t for _, t in tensors(result) if t.requires_grad and t.grad_fn is not None]
    if not outputs or not arguments.leaves:
        return
    cotangents = [torch.rand(t.shape, generator=arguments.random, dtype=torch.float64).to(t) for t in outputs]
    for cotangent in cotangents:
        arguments.kept.append(("cotangent", cotangent, cotangent.clone()))
    values = [(t, t.detach().clone()) for t in outputs]
    torch.autograd.grad(outputs, arguments.leaves, cotangents, allow_unused=True)
    assert not arguments.changed(), f"{variant}: changed by the gradient: {arguments.changed()}"
    assert all(same(now.detach(), then) for now, then in values), f"{variant}: the gradient changed the result"


def same(now: Any, then: Any) -> bool:
    """Whether two tensors or arrays hold the same numbers, NaN included."""
    if isinstance(now, np.ndarray):
        return bool(np.array_equal(now, then, equal_nan=now.dtype.kind == "f"))
    if now.is_sparse:
        now, then = now.to_dense(), then.to_dense()
    return bool(((now == then) | ((now != now) & (then != then))).all())
