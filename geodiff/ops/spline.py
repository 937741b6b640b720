# SPDX-License-Identifier: Apache-2.0
"""Splines: argument checks, choice of kernel, and their place in autograd and torch.compile."""

from collections.abc import Sequence
from typing import Any

import torch

from geodiff import reference
from geodiff.modes import outside_autocast
from geodiff.ops import _op
from geodiff.ops._spline import (
    INPUTS,
    MAX_AXES,
    MAX_DEGREE,
    broadcast,
    check_packed,
    check_spline,
    flat,
    same,
    unpacked,
)
from geodiff.validation import common_batch, fail

_AXES = [f"{name}_{axis}" for name in ("knots", "parameters") for axis in range(MAX_AXES)]
_TENSORS = ", ".join(["Tensor control", *(f"Tensor{'' if name[-1] == '0' else '?'} {name}" for name in _AXES)])
_SPLINE = f"{_TENSORS}, int[] degree, int[] order, float[] bandwidth, bool rational, bool grid"
_op.library.define(f"spline({_SPLINE}) -> (Tensor value, Tensor inverse_weight)")
_op.library.define(
    f"spline_backward(Tensor upstream, Tensor value, Tensor inverse_weight, {_SPLINE}, bool[] wants) "
    f"-> (Tensor control, {', '.join(f'Tensor {name}' for name in _AXES)})"
)


@outside_autocast
def spline(
    control_points: torch.Tensor,
    knots: Sequence[torch.Tensor],
    parameters: Sequence[torch.Tensor],
    degree: Sequence[int],
    order: Sequence[int] | None = None,
    rational: bool = False,
    bandwidth: Sequence[float] | None = None,
) -> torch.Tensor:
    """Evaluate a tensor-product spline at scattered parameters: `Σ_ij N_i(u) N_j(v) P_ij`.

    One pass over the points: spans, bases, sum and quotient together, so that nothing of the size N × (P + 1)² is
    stored. The twin `geodiff.reference.spline` has the same name and arguments.

    Args:
        control_points: `(..., K1, D)` for a curve, `(..., K1, K2, D)` for a surface, `(..., K1, K2, K3, D)`.
        knots: one non-decreasing `(..., M)` an axis, M = K + P + 1.
        parameters: one `(..., N)` an axis. Outside of the domain `[knots[P], knots[K]]` the end pieces are extended.
        degree: one an axis, >= 0.
        order: of the derivative, one an axis; left out, the value. Zeros where it exceeds the degree.
        rational: the control points are homogeneous `(w·P, w)`; divide by the last coordinate. For values only.
        bandwidth: one σ > 0 an axis, in the units of the knots: their gradients are smoothed by a Gaussian, after Cho
            et al., "Differentiable Spline Approximations" (2021); see `geodiff.reference.basis_matrix`. Left out,
            they are exact.

    Returns:
        `(..., N, D)`, or `(..., N, D − 1)` where rational. Leading axes of all tensors broadcast; what is shared is
        not copied.

    Gradients: in control points, knots and parameters, each only where asked for; the spans are held. The same bits on
    any number of threads. Differentiable again (through the twin, at its cost).

    Raises:
        TypeError: for a wrong dtype or class.
        ValueError: for a wrong shape or number of axes, a value out of range, NaN or infinity.

    Example:
        >>> line = torch.tensor([[0.0, 0.0], [2.0, 4.0]])
        >>> spline(line, [torch.tensor([0.0, 0, 1, 1])], [torch.tensor([0.25])], degree=[1])
        tensor([[0.5000, 1.0000]])
    """
    return _evaluate("spline", control_points, knots, parameters, degree, order, rational, bandwidth, False)


@outside_autocast
def spline_grid(
    control_points: torch.Tensor,
    knots: Sequence[torch.Tensor],
    parameters: Sequence[torch.Tensor],
    degree: Sequence[int],
    order: Sequence[int] | None = None,
    rational: bool = False,
    bandwidth: Sequence[float] | None = None,
) -> torch.Tensor:
    """Evaluate a tensor-product spline on the grid of all combinations of its parameters.

    One axis after the other, which is faster than `spline` at as many points. Takes its arguments, but parameters
    `(..., N1)`, `(..., N2)`, …; with a `bandwidth` the twin computes, `geodiff.reference.spline_grid`.

    Returns:
        `(..., N1[, N2[, N3]], D)`, or `D − 1` where rational.

    Gradients, raises: as `spline`.

    Example:
        >>> plane = torch.tensor([[[0.0], [1.0]], [[2.0], [3.0]]])
        >>> ends = torch.tensor([0.0, 0, 1, 1])
        >>> spline_grid(plane, [ends, ends], [torch.tensor([0.5]), torch.tensor([0.0, 1.0])], degree=[1, 1])[..., 0]
        tensor([[1., 2.]])
    """
    return _evaluate("spline_grid", control_points, knots, parameters, degree, order, rational, bandwidth, True)


def _evaluate(
    where: str,
    control_points: torch.Tensor,
    knots: Sequence[torch.Tensor],
    parameters: Sequence[torch.Tensor],
    degree: Sequence[int],
    order: Sequence[int] | None,
    rational: bool,
    bandwidth: Sequence[float] | None,
    grid: bool,
) -> torch.Tensor:
    axes = check_spline(where, control_points, knots, parameters, degree, order, rational, bandwidth)
    if not grid and len({u.shape[-1] for u in parameters}) > 1:
        counts = ", ".join(str(u.shape[-1]) for u in parameters)
        raise fail(where, "parameters", "as many along each axis", counts, "For all combinations, use spline_grid.")
    tensors = [control_points, *knots, *parameters]
    names = ["control_points", *(f"{name}[{a}]" for name in ("knots", "parameters") for a in range(axes))]
    tails = [axes + 1, *[1] * (2 * axes)]
    batch = broadcast(where, tensors, tails, ["control_points", *["knots"] * axes, *["parameters"] * axes])
    transformed = _op.for_twin(where, **dict(zip(names, tensors, strict=True)))
    tensors = same(tensors)
    control_points, knots, parameters = tensors[0], tensors[1 : axes + 1], tensors[axes + 1 :]
    if axes > MAX_AXES or max(degree) > MAX_DEGREE or transformed or (grid and bandwidth is not None):
        twin = reference.spline_grid if grid else reference.spline
        return twin(control_points, knots, parameters, degree, order, rational, bandwidth)
    packed = [flat(tensor, tail, batch) for tensor, tail in zip(tensors, tails, strict=True)]
    sizes = [u.shape[-1] for u in parameters] if grid else [parameters[0].shape[-1]]
    if not grid and all(t.shape[0] == 1 for t in packed[: axes + 1]):
        # One spline: a batch of parameters is but more points.
        packed[axes + 1 :] = [u.expand(*batch, sizes[0]).reshape(1, -1) for u in parameters]
    missing = [None] * (MAX_AXES - axes)
    order = [0] * axes if order is None else list(order)
    bandwidth = [] if bandwidth is None else [float(sigma) for sigma in bandwidth]
    inputs = [*packed[: axes + 1], *missing, *packed[axes + 1 :], *missing]
    value = _op.run("spline", *inputs, list(degree), order, bandwidth, rational, grid)[0]
    return value.reshape(*batch, *sizes, value.shape[-1])


# Tensors are the control points, three knot vectors and three lists of parameters, None where not there.


def _forward(*arguments: Any) -> tuple[torch.Tensor, torch.Tensor]:
    check_packed("spline", arguments)
    value, inverse_weight = _fake(*arguments)
    control, knots, parameters, degree, order, _, rational, grid = unpacked(arguments)
    if value.numel():
        _op.call(
            _op.kernels.spline_forward, control=control, knots=knots, parameters=parameters, degree=degree, order=order,
            rational=rational, grid=grid, value=value, inverse_weight=inverse_weight,
        )  # fmt: skip
    return value, inverse_weight


def _fake(*arguments: Any) -> tuple[torch.Tensor, torch.Tensor]:
    control, *_, rational, _ = unpacked(arguments)
    batch, points = _size(arguments)
    value = control.new_empty((batch, points, control.shape[-1] - int(rational)))
    return value, control.new_empty((batch, points) if rational else (0,))


def _size(arguments: Sequence[Any]) -> tuple[Any, Any]:
    """How many splines, and points of each."""
    control, knots, parameters, *_, grid = unpacked(arguments)
    (batch,) = common_batch(*(x.shape[:1] for x in (control, *knots, *parameters)))
    points = 1
    for u in parameters if grid else parameters[:1]:
        points = points * u.shape[1]
    return batch, points


def _backward(
    upstream: torch.Tensor, value: torch.Tensor, inverse_weight: torch.Tensor, *rest: Any
) -> tuple[torch.Tensor, ...]:
    *arguments, wants = rest
    check_packed("spline_backward", arguments)
    control, knots, parameters, degree, order, bandwidth, rational, grid = unpacked(arguments)
    batch, points = _size(arguments)
    shape = (batch, points, control.shape[-1] - int(rational))
    weights = (batch, points) if rational else (0,)
    for name, x, wanted in (
        ("value", value, shape),
        ("inverse_weight", inverse_weight, weights),
        ("upstream", upstream, shape),
    ):
        if x.shape != wanted:
            raise fail("spline_backward", name, f"of shape {wanted}", x)
    gradients = [
        control.new_zeros((batch, *x.shape[1:]) if want and x is not None else (0,))
        for x, want in zip(arguments[:INPUTS], wants, strict=True)
    ]
    if value.numel() and any(wants):
        _op.call(
            _op.kernels.spline_backward, control=control, knots=knots, parameters=parameters, degree=degree,
            order=order, bandwidth=bandwidth, rational=rational, grid=grid, value=value, inverse_weight=inverse_weight,
            upstream=upstream, grad_control=gradients[0], grad_knots=gradients[1 : 1 + len(knots)],
            grad_parameters=gradients[1 + MAX_AXES : 1 + MAX_AXES + len(knots)],
        )  # fmt: skip
    pairs = zip(gradients, arguments[:INPUTS], strict=True)
    return tuple(gradient if x is None else _op.added_up(gradient, x) for gradient, x in pairs)


def _twin(*arguments: Any) -> torch.Tensor:
    control, knots, parameters, degree, order, bandwidth, rational, grid = unpacked(arguments)
    twin = reference.spline_grid if grid else reference.spline
    return twin(control, knots, parameters, degree, order, rational, bandwidth or None).flatten(1, -2)


_SHAPES = {"control": "*", **dict.fromkeys(_AXES, "_ _"), "value": "_ _ _", "inverse_weight": "*", "upstream": "_ _ _"}
_op.register("spline", _forward, _fake, _SHAPES, _backward, twin=_twin)
