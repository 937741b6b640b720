# SPDX-License-Identifier: Apache-2.0
"""Splines on grids of parameters on a GPU, an axis at a time: see cuda/spline/grid_kernels.h."""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import torch

from geodiff.native.gpu import structs
from geodiff.native.gpu.launcher import launch
from geodiff.native.gpu.schedule import spline

HEADER = "spline/grid_kernels.h"
_THREADS = 1 << 17  # so many fill any card: with fewer, sums are cut into slices
_LEAST = 64  # numbers of a slice


@dataclasses.dataclass
class _Axis:
    """An axis's spans and basis functions."""

    knots: torch.Tensor
    parameters: torch.Tensor
    degree: int
    order: int

    def __post_init__(self) -> None:
        self.rows, self.points = max(len(self.knots), len(self.parameters)), self.parameters.shape[1]
        self.count = self.knots.shape[1] - self.degree - 1
        device = self.knots.device
        self.span = torch.empty((self.rows, self.points), dtype=torch.int64, device=device)
        self.values = self.knots.new_empty((self.rows, self.points, self.degree + 1))
        spline.spline_basis(
            knots=self.knots, parameters=self.parameters, degree=self.degree, order=self.order, span=self.span,
            values=self.values,
        )  # fmt: skip
        self.by_span: tuple[torch.Tensor, torch.Tensor] | None = None

    def sorted(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Parameters by span, and where each span's begin."""
        if self.by_span is None:
            keys, order = torch.sort(self.span, stable=True)
            spans = torch.arange(self.degree, self.count + 1, device=self.span.device)
            self.by_span = order, torch.searchsorted(keys, spans.expand(self.rows, -1).contiguous())
        return self.by_span

    def struct(
        self, batch: int, left: int, right: int, item_stride: int = 0, slices: int = 1, back: bool = True
    ) -> Any:
        """``gd::SplineBand``; parameters by span for the way back alone."""
        order, start = self.sorted() if back else (None, None)
        return structs.make(
            structs.spline_band(structs.REALS[self.knots.dtype]), span=self.span, values=self.values, order=order,
            start=start, batch=batch, left=left, right=right, points=self.points, count=self.count, degree=self.degree,
            slices=slices, own_basis=self.rows > 1, item_stride=item_stride,
        )  # fmt: skip


def _around(shape: Sequence[int], a: int) -> tuple[int, int]:
    """Numbers before and behind axis `a` of a shape (batch, axes…, dim)."""
    return math.prod(shape[1 : 1 + a]), math.prod(shape[2 + a :])


def _launch(like: torch.Tensor, name: str, grid: tuple[int], *arguments: Any) -> None:
    launch(HEADER, f"gd::{name}<{structs.REALS[like.dtype]}>", grid, spline.THREADS, *arguments, device=like.device)


def forward(
    control: torch.Tensor, knots: Sequence[torch.Tensor], parameters: Sequence[torch.Tensor], degree: Sequence[int],
    order: Sequence[int], rational: bool, value: torch.Tensor, inverse_weight: torch.Tensor,
) -> None:  # fmt: skip
    """Fill `value` and `inverse_weight`."""
    axes = [_Axis(*given) for given in zip(knots, parameters, degree, order, strict=True)]
    batch, found = len(value), control
    for a, axis in enumerate(axes):
        left, right = _around(found.shape, a)
        stride = found[0].numel() if len(found) > 1 else 0
        shape = (batch, *found.shape[1 : 1 + a], axis.points, *found.shape[2 + a :])
        last = a + 1 == len(axes) and not rational
        out = value if last else control.new_empty(shape)
        band = axis.struct(batch, left, right, stride, back=False)
        _launch(control, "spline_band", spline.blocks(math.prod(shape)), band, found, out)
        found = out.reshape(shape)
    if rational:
        job = spline.job_of(
            structs.REALS[control.dtype], [], batch, None, control.shape[-1], True, value=value,
            inverse_weight=inverse_weight,
        )  # fmt: skip
        count = value.shape[0] * value.shape[1]
        _launch(control, "spline_divide", spline.blocks(count), job, structs.Long(count), found)


def backward(
    control: torch.Tensor, knots: Sequence[torch.Tensor], parameters: Sequence[torch.Tensor], degree: Sequence[int],
    order: Sequence[int], rational: bool, value: torch.Tensor, inverse_weight: torch.Tensor, upstream: torch.Tensor,
    grad_control: torch.Tensor, grad_knots: Sequence[torch.Tensor], grad_parameters: Sequence[torch.Tensor],
) -> None:  # fmt: skip
    """Fill the gradients that are not empty."""
    axes = [_Axis(*given) for given in zip(knots, parameters, degree, order, strict=True)]
    batch, dim = len(value), control.shape[-1]
    if rational:
        count = value.shape[0] * value.shape[1]
        job = spline.job_of(
            structs.REALS[control.dtype], [], batch, None, dim, True, value=value, inverse_weight=inverse_weight,
            upstream=upstream,
        )  # fmt: skip
        upstream = control.new_empty((count, dim))
        _launch(control, "spline_upstream", spline.blocks(count), job, structs.Long(count), upstream)
    # By the axes, from the last one on, that are control points already.
    known: dict[tuple[int, ...], torch.Tensor] = {}
    known[()] = upstream.reshape(batch, *(axis.points for axis in axes), dim)

    def without(skip: int) -> torch.Tensor:
        done: tuple[int, ...] = ()
        for a in reversed(range(len(axes))):
            if a == skip:
                continue
            if (*done, a) not in known:
                known[(*done, a)] = _back(axes[a], known[done], a)
            done = (*done, a)
        return known[done]

    if grad_control.numel():
        grad_control.copy_(without(-1))
    for a, axis in enumerate(axes):
        if not grad_knots[a].numel() and not grad_parameters[a].numel():
            continue
        found = without(a)
        bar = control.new_empty((batch, axis.points, axis.degree + 1))
        band = axis.struct(batch, *_around(found.shape, a), control[0].numel() if len(control) > 1 else 0, back=False)
        _launch(control, "spline_band_dots", (-(-bar.numel() // 4),), band, found, control, bar)
        spline.spline_basis_backward(
            knots=axis.knots, parameters=axis.parameters, degree=axis.degree, order=axis.order, upstream=bar,
            grad_knots=grad_knots[a], grad_parameters=grad_parameters[a],
        )  # fmt: skip


def _back(axis: _Axis, given: torch.Tensor, a: int) -> torch.Tensor:
    """From parameters along axis `a` to control points."""
    batch, (left, right) = len(given), _around(given.shape, a)
    out = given.new_empty((batch, *given.shape[1 : 1 + a], axis.count, *given.shape[2 + a :]))
    total = out.numel()
    slices = max(1, min(_THREADS // total, axis.points // (_LEAST * (axis.count - axis.degree))))
    partial = given.new_empty((slices, total) if slices > 1 else (0,), dtype=torch.float64)
    band = axis.struct(batch, left, right, 0, slices)
    _launch(given, "spline_band_back", spline.blocks(total * slices), band, given, out, partial)
    if slices > 1:
        count = structs.Long(total)
        _launch(given, "spline_band_add", spline.blocks(total), partial, count, structs.Int(slices), out)
    return out
