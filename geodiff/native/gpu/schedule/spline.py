# SPDX-License-Identifier: Apache-2.0
"""Splines and their bases at scattered parameters, on a GPU: see cuda/spline/point_kernels.h and sum_kernels.h."""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import torch

from geodiff.native.gpu import structs
from geodiff.native.gpu.launcher import launch
from geodiff.native.gpu.schedule.kept import Kept

POINTS, SUMS = "spline/point_kernels.h", "spline/sum_kernels.h"
THREADS = 128
OWN_DEGREES = frozenset(range(6))
"""Degrees that have kernels of their own; others share some that are slower."""
_CHUNK, _SUMS, _WARPS = 512, 256, 4  # a cell's points are cut into as few chunks as have no more, all as large
_MOST_CELLS = 2**31 - 1
_BLOCKS = 1024  # so many fill any card


def blocks(count: int) -> tuple[int]:
    """Blocks for so many threads."""
    return (-(-count // THREADS),)


def axis_of(
    knots: torch.Tensor, parameters: torch.Tensor, degree: int, order: int, bandwidth: float = 0.0,
    grad_knots: torch.Tensor | None = None, grad_parameters: torch.Tensor | None = None,
) -> Any:  # fmt: skip
    """``geodiff::SplineAxis``."""
    return structs.make(
        structs.spline_axis(structs.REALS[knots.dtype]), knots=knots, parameters=parameters,
        knots_stride=knots.shape[1] if len(knots) > 1 else 0,
        parameters_stride=parameters.shape[1] if len(parameters) > 1 else 0, points=parameters.shape[1],
        count=knots.shape[1] - degree - 1, degree=degree, order=order, bandwidth=bandwidth, grad_knots=grad_knots,
        grad_parameters=grad_parameters,
    )  # fmt: skip


def job_of(
    real: str, axes: list[Any], batch: int, control: torch.Tensor | None = None, dim: int = 0, rational: bool = False,
    **tensors: torch.Tensor | None,
) -> Any:  # fmt: skip
    """``geodiff::SplineJob``."""
    kind = structs.spline_axis(real)
    stride = 0 if control is None or len(control) == 1 else math.prod(control.shape[1:])
    names = ("value", "inverse_weight", "upstream", "grad_control")
    return structs.make(
        structs.spline_job(real), axis=(kind * 3)(*axes), axes=len(axes), control=control, control_stride=stride,
        batch=batch, dim=dim, rational=rational, threads=0, **{name: tensors.get(name) for name in names},
    )  # fmt: skip


def ranges_of(real: str, job: Any, device: torch.device) -> torch.Tensor:
    """The spans that points may fall into (axes, batch, 2)."""
    found = torch.empty((job.axes, job.batch, 2), dtype=torch.int32, device=device)
    launch(POINTS, f"gd::spline_ranges<{real}>", blocks(job.axes * job.batch), THREADS, job, found, device=device)
    return found


def _own(degree: Sequence[int]) -> list[int]:
    return list(degree) if OWN_DEGREES.issuperset(degree) else [-1] * len(degree)


def spline_basis(
    *, knots: torch.Tensor, parameters: torch.Tensor, degree: int, order: int, span: torch.Tensor, values: torch.Tensor
) -> None:
    """Fill `span` and `values`, see `geodiff.ops.basis`."""
    real, axis, device = structs.REALS[knots.dtype], axis_of(knots, parameters, degree, order), knots.device
    job = structs.make(
        structs.basis_job(real), axis=axis, batch=len(span), span=span, values=values, upstream=None, threads=0
    )
    ranges = ranges_of(real, job_of(real, [axis], len(span)), device)
    name = f"gd::basis_forward<{real}, {_own([degree])[0]}>"
    launch(POINTS, name, blocks(span.numel()), THREADS, job, ranges, device=device)


def spline_basis_backward(
    *, knots: torch.Tensor, parameters: torch.Tensor, degree: int, order: int, upstream: torch.Tensor,
    grad_knots: torch.Tensor, grad_parameters: torch.Tensor,
) -> None:  # fmt: skip
    """Fill `grad_knots` and `grad_parameters` where they are not empty."""
    real, device = structs.REALS[knots.dtype], knots.device
    batch, points = upstream.shape[:2]
    axis = axis_of(knots, parameters, degree, order, 0.0, grad_knots, grad_parameters)
    basis = structs.make(
        structs.basis_job(real), axis=axis, batch=batch, span=None, values=None, upstream=upstream, threads=0
    )
    job = job_of(real, [axis], batch)
    rows = _Rows(knots, job, functions=[1, 1, 1], net=0, values=0, windows=[grad_knots.numel() > 0],
                 given=[knots, parameters])  # fmt: skip
    name = f"gd::basis_backward<{real}, {_own([degree])[0]}>"
    ranges = ranges_of(real, job, device)
    launch(POINTS, name, blocks(batch * points), THREADS, basis, ranges, rows.struct, device=device)
    if grad_knots.numel():
        rows.add_up()
        rows.knots(0)


def forward(
    *, control: torch.Tensor, knots: Sequence[torch.Tensor], parameters: Sequence[torch.Tensor], degree: Sequence[int],
    order: Sequence[int], rational: bool, value: torch.Tensor, inverse_weight: torch.Tensor,
) -> None:  # fmt: skip
    """Fill `value` and `inverse_weight` of scattered points, see `geodiff.ops.spline`."""
    real, control = structs.REALS[control.dtype], _aligned(control)
    axes = [axis_of(k, u, p, o) for k, u, p, o in zip(knots, parameters, degree, order, strict=True)]
    job = job_of(
        real, axes, len(value), control, control.shape[-1], rational, value=value, inverse_weight=inverse_weight
    )
    name = f"gd::spline_forward<{real}, {_instance(degree, order, control)}, {str(rational).lower()}>"
    ranges = ranges_of(real, job, control.device)
    launch(POINTS, name, blocks(value.shape[0] * value.shape[1]), THREADS, job, ranges, device=control.device)


def backward(
    *, control: torch.Tensor, knots: Sequence[torch.Tensor], parameters: Sequence[torch.Tensor], degree: Sequence[int],
    order: Sequence[int], bandwidth: Sequence[float], rational: bool, value: torch.Tensor,
    inverse_weight: torch.Tensor, upstream: torch.Tensor, grad_control: torch.Tensor,
    grad_knots: Sequence[torch.Tensor], grad_parameters: Sequence[torch.Tensor],
) -> None:  # fmt: skip
    """Fill the gradients that are not empty, of scattered points, see `geodiff.ops.spline`."""
    real, control = structs.REALS[control.dtype], _aligned(control)
    batch, count = value.shape[:2]
    axes = [
        axis_of(k, u, p, o, s, gk, gu)
        for k, u, p, o, s, gk, gu in zip(
            knots, parameters, degree, order, list(bandwidth) or [0.0] * len(knots), grad_knots, grad_parameters,
            strict=True,
        )
    ]  # fmt: skip
    job = job_of(
        real, axes, batch, control, control.shape[-1], rational, value=value, inverse_weight=inverse_weight,
        upstream=upstream, grad_control=grad_control,
    )  # fmt: skip
    functions = [p + 1 for p in degree] + [1] * (3 - len(degree))
    net = math.prod(functions) * control.shape[-1] if grad_control.numel() else 0
    windows = [gradient.numel() > 0 for gradient in grad_knots]
    rows = _Rows(control, job, functions, net, sum(functions[: len(degree)]), windows, [*knots, *parameters])
    name = f"gd::spline_backward_points<{real}, {_instance(degree, order, control)}>"
    ranges = ranges_of(real, job, control.device)
    launch(POINTS, name, blocks(batch * count), THREADS, job, ranges, rows.struct, device=control.device)
    if not net and not any(windows):
        return
    rows.add_up()
    if net:
        grid_of = (-(-grad_control.numel() // _WARPS),)
        launch(SUMS, f"gd::spline_control<{real}>", grid_of, THREADS, job, rows.cells, device=control.device)
    for a, window in enumerate(windows):
        if window:
            rows.knots(a)


def _instance(degree: Sequence[int], order: Sequence[int], control: torch.Tensor) -> str:
    """Template arguments that both directions have."""
    own, dim, plain = _own(degree), control.shape[-1], not any(order)
    degrees = ", ".join(map(str, own))
    return f"gd::Degrees<{degrees}>, {dim if dim <= 4 else 0}, {str(plain and own[0] >= 0).lower()}"


def _aligned(control: torch.Tensor) -> torch.Tensor:
    """As kernels load several numbers at once."""
    return control if control.data_ptr() % 16 == 0 else control.clone()


_sorted = Kept(1)


def _in_cells(cell: torch.Tensor, cells: int) -> tuple[torch.Tensor, ...]:
    """Return the order of points by cell, where each cell's points begin, where its chunks do, and each chunk's cell.

    There are fewer chunks than the last one has room for.
    """
    keys, order = torch.sort(cell, stable=True)
    start = torch.searchsorted(keys, torch.arange(cells + 1, dtype=torch.int32, device=cell.device))
    chunks = torch.zeros(cells + 1, dtype=torch.int64, device=cell.device)
    torch.cumsum((start.diff() + _CHUNK - 1).div(_CHUNK, rounding_mode="floor"), 0, out=chunks[1:])
    room = torch.arange(min(cells, len(cell)) + len(cell) // _CHUNK, device=cell.device)
    cell_of = torch.searchsorted(chunks, room, right=True, out_int32=True).sub_(1)
    return order, start, chunks, cell_of


@dataclasses.dataclass
class _Rows:
    """What the pass over points leaves, and the sums of it."""

    like: torch.Tensor
    job: Any
    functions: list[int]
    net: int
    values: int
    windows: list[bool]
    given: Sequence[torch.Tensor]  # knots and parameters: what the cells follow from

    def __post_init__(self) -> None:
        job, device = self.job, self.like.device
        self.real = structs.REALS[self.like.dtype]
        axes = [job.axis[a] for a in range(job.axes)]
        self.total = job.batch * axes[0].points
        sizes = [2 * axis.degree * wanted for axis, wanted in zip(axes, self.windows, strict=True)]
        before = self.values + job.dim
        self.starts = [before + sum(sizes[:a]) for a in range(len(sizes))]
        self.numbers = self.net + sum(sizes)
        self.sizes = [size for size in sizes if size]
        size = before + sum(sizes)
        self.rows = self.like.new_empty((self.total, size))
        self.cell = torch.empty(self.total if any(self.windows) or self.net else 0, dtype=torch.int32, device=device)
        self.spans = [axis.count - axis.degree for axis in axes] + [1] * (3 - len(axes))
        places = [start if wanted else -1 for start, wanted in zip(self.starts, self.windows, strict=True)]
        self.struct = structs.make(
            structs.spline_rows(self.real), rows=self.rows, cell=self.cell, size=size, upstream=self.values,
            window=(structs.Int * 3)(*places, *[-1] * (3 - len(places))),
        )  # fmt: skip
        self.size = size

    def add_up(self) -> None:
        """Sort the points by cell and add up chunks of them; nothing is read back."""
        cells, device = self.job.batch * math.prod(self.spans), self.like.device
        if cells > _MOST_CELLS:
            raise RuntimeError(f"spline: {cells} combinations of spans are too many for a GPU. Use .cpu().")
        more = (len(self.cell), self.job.batch, *self.spans)
        order, start, chunks, cell_of = _sorted.of(self.given, more, lambda: _in_cells(self.cell, cells))
        room = len(cell_of)
        partial = torch.empty((room, self.numbers), dtype=torch.float64, device=device)
        self.kept = (order, start, chunks, cell_of, partial)
        three, quads = structs.Int * 3, math.prod(self.functions) * -(-self.job.dim // 4) if self.net else 0
        slices = max(1, -(-quads // _SUMS))
        self.cells = structs.make(
            structs.spline_cells(), order=order, start=start, chunks=chunks, cell=cell_of, cells=cells,
            axes=self.job.axes, functions=three(*self.functions), spans=three(*self.spans), net=self.net,
            numbers=self.numbers, slices=slices, windows=three(*self.sizes), partial=partial,
        )  # fmt: skip
        grid = (room * slices,)
        name = f"gd::spline_chunks<{self.real}, {self.job.axes}>"
        launch(SUMS, name, grid, _SUMS, self.struct, self.cells, device=device)

    def knots(self, a: int) -> None:
        """Fill an axis's gradient of knots."""
        axis, device = self.job.axis[a], self.like.device
        count, slices = axis.count + axis.degree + 1, 0
        extra: torch.Tensor | None = None
        given: tuple[Any, ...]
        if axis.bandwidth > 0:
            slices = max(1, min(_BLOCKS // count, axis.points // 1024))
            extra = torch.empty((self.job.batch, count, slices), dtype=torch.float64, device=device)
            given = (self.job, self.struct, self.cells, structs.Int(a), structs.Int(slices), extra)
            grid = (count * slices, self.job.batch)
            launch(SUMS, f"gd::spline_gaussian<{self.real}>", grid, THREADS, *given, device=device)
        first = self.net + self.starts[a] - self.values - self.job.dim
        given = (self.job, self.cells, structs.Int(a), structs.Int(first), extra, structs.Int(slices))
        launch(SUMS, f"gd::spline_knots<{self.real}>", (count, self.job.batch), THREADS, *given, device=device)
