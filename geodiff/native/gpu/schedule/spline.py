# SPDX-License-Identifier: Apache-2.0
"""Splines and their bases on a GPU, see cuda/spline/kernels.h."""

import math
from collections.abc import Sequence
from typing import Any

import torch

from geodiff.native.gpu import structs
from geodiff.native.gpu.launcher import launch

HEADER = "spline/kernels.h"
_THREADS = 128


def _blocks(count: int) -> tuple[int]:
    return (-(-count // _THREADS),)


def _axis(
    knots: torch.Tensor, parameters: torch.Tensor, degree: int, order: int, bandwidth: float = 0.0,
    grad_knots: torch.Tensor | None = None, grad_parameters: torch.Tensor | None = None,
) -> Any:  # fmt: skip
    return structs.make(
        structs.spline_axis(structs.REALS[knots.dtype]), knots=knots, parameters=parameters,
        knots_stride=knots.shape[1] if len(knots) > 1 else 0,
        parameters_stride=parameters.shape[1] if len(parameters) > 1 else 0, points=parameters.shape[1],
        count=knots.shape[1] - degree - 1, degree=degree, order=order, bandwidth=bandwidth, grad_knots=grad_knots,
        grad_parameters=grad_parameters,
    )  # fmt: skip


def spline_basis(
    *, knots: torch.Tensor, parameters: torch.Tensor, degree: int, order: int, span: torch.Tensor, values: torch.Tensor
) -> None:
    """Fill `span` and `values`, see `geodiff.ops.basis`."""
    real, axis = structs.REALS[knots.dtype], _axis(knots, parameters, degree, order)
    job = structs.make(
        structs.basis_job(real), axis=axis, batch=len(span), span=span, values=values, upstream=None, threads=0
    )
    launch(HEADER, f"gd::basis_forward<{real}>", _blocks(span.numel()), _THREADS, job, device=knots.device)


def spline_basis_backward(
    *, knots: torch.Tensor, parameters: torch.Tensor, degree: int, order: int, upstream: torch.Tensor,
    grad_knots: torch.Tensor, grad_parameters: torch.Tensor,
) -> None:  # fmt: skip
    """Fill `grad_knots` and `grad_parameters` where they are not empty."""
    real, device = structs.REALS[knots.dtype], knots.device
    batch, points = upstream.shape[:2]
    total = batch * points
    axis = _axis(knots, parameters, degree, order, 0.0, grad_knots, grad_parameters)
    job = structs.make(
        structs.basis_job(real), axis=axis, batch=batch, span=None, values=None, upstream=upstream, threads=0
    )
    room = _room(knots, [degree], total, 0)
    given = _points(real, room)
    launch(HEADER, f"gd::basis_backward<{real}>", _blocks(total), _THREADS, job, given, device=device)
    if grad_knots.numel():
        of_knots = _job(real, [axis], None, 0, batch, 0, False)
        grid = (knots.shape[1], batch)
        name = f"gd::spline_backward_knots<{real}, false>"
        launch(HEADER, name, grid, _THREADS, of_knots, given, structs.Int(0), device=device)


def spline_forward(
    *, control: torch.Tensor, knots: Sequence[torch.Tensor], parameters: Sequence[torch.Tensor], degree: Sequence[int],
    order: Sequence[int], rational: bool, grid: bool, value: torch.Tensor, inverse_weight: torch.Tensor,
) -> None:  # fmt: skip
    """Fill `value` and `inverse_weight`, see `geodiff.ops.spline`."""
    real = structs.REALS[control.dtype]
    expanded = _expanded(parameters) if grid else list(parameters)
    axes = [_axis(k, u, p, o) for k, u, p, o in zip(knots, expanded, degree, order, strict=True)]
    job = _job(real, axes, control, control.shape[-1], len(value), value, rational, inverse_weight)
    count = value.shape[0] * value.shape[1]
    launch(HEADER, f"gd::spline_forward<{real}>", _blocks(count), _THREADS, job, device=control.device)


def spline_backward(
    *, control: torch.Tensor, knots: Sequence[torch.Tensor], parameters: Sequence[torch.Tensor], degree: Sequence[int],
    order: Sequence[int], bandwidth: Sequence[float], rational: bool, grid: bool, value: torch.Tensor,
    inverse_weight: torch.Tensor, upstream: torch.Tensor, grad_control: torch.Tensor,
    grad_knots: Sequence[torch.Tensor], grad_parameters: Sequence[torch.Tensor],
) -> None:  # fmt: skip
    """Fill the gradients that are not empty, see `geodiff.ops.spline`."""
    real, device = structs.REALS[control.dtype], control.device
    batch, count = value.shape[:2]
    total, dim = batch * count, control.shape[-1]
    expanded = _expanded(parameters) if grid else list(parameters)
    wide = [g.new_empty((batch, count) if g.numel() else 0) if grid else g for g in grad_parameters]
    sigmas = list(bandwidth) or [0.0] * len(knots)
    axes = [
        _axis(k, u, p, o, s, gk, gu)
        for k, u, p, o, s, gk, gu in zip(knots, expanded, degree, order, sigmas, grad_knots, wide, strict=True)
    ]
    job = _job(real, axes, control, dim, batch, value, rational, inverse_weight, upstream, grad_control)
    room = _room(control, degree, total, dim)
    given = _points(real, room)
    launch(HEADER, f"gd::spline_backward_points<{real}>", _blocks(total), _THREADS, job, given, device=device)
    if grad_control.numel():
        net = (math.prod(control.shape[1:]), batch)
        launch(HEADER, f"gd::spline_backward_control<{real}>", net, _THREADS, job, given, device=device)
    for a, gradient in enumerate(grad_knots):
        if gradient.numel():
            name = f"gd::spline_backward_knots<{real}, {str(sigmas[a] > 0).lower()}>"
            grid_of = (gradient.shape[1], batch)
            launch(HEADER, name, grid_of, _THREADS, job, given, structs.Int(a), device=device)
    if grid:
        sizes = [u.shape[1] for u in parameters]
        for a, (gradient, found) in enumerate(zip(grad_parameters, wide, strict=True)):
            if gradient.numel():
                others = [1 + b for b in range(len(sizes)) if b != a]
                found = found.reshape(batch, *sizes)
                gradient.copy_(found.sum(others) if others else found)


def _expanded(parameters: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    """All combinations of a grid's parameters, as points."""
    sizes = [u.shape[1] for u in parameters]
    found = []
    for a, u in enumerate(parameters):
        shape = [len(u), *(size if b == a else 1 for b, size in enumerate(sizes))]
        found.append(u.reshape(shape).expand(len(u), *sizes).reshape(len(u), -1).contiguous())
    return found


def _job(
    real: str, axes: list[Any], control: torch.Tensor | None, dim: int, batch: int, value: Any, rational: bool,
    inverse_weight: torch.Tensor | None = None, upstream: torch.Tensor | None = None,
    grad_control: torch.Tensor | None = None,
) -> Any:  # fmt: skip
    kind = structs.spline_axis(real)
    stride = 0 if control is None or len(control) == 1 else math.prod(control.shape[1:])
    return structs.make(
        structs.spline_job(real), axis=(kind * 3)(*axes), axes=len(axes), control=control, control_stride=stride,
        batch=batch, dim=dim, rational=rational, value=value if isinstance(value, torch.Tensor) else None,
        inverse_weight=inverse_weight, upstream=upstream, grad_control=grad_control, threads=0,
    )  # fmt: skip


def _room(like: torch.Tensor, degree: Sequence[int], total: int, dim: int) -> list[torch.Tensor]:
    """What the passes hand on: for each axis first functions, values and windows, then upstream gradients."""
    room = []
    for p in degree:
        room.append(torch.empty(total, dtype=torch.int32, device=like.device))
        room += [like.new_empty((p + 1, total)), like.new_empty((2 * p, total))]
    return [*room, like.new_empty((dim, total))]


def _points(real: str, room: list[torch.Tensor]) -> Any:
    three = structs.Pointer * 3
    parts = [three(*[structs.pointer(x).value for x in room[i:-1:3]]) for i in range(3)]
    return structs.make(
        structs.spline_points(real), first=parts[0], values=parts[1], window=parts[2], upstream=room[-1]
    )
