# SPDX-License-Identifier: Apache-2.0
"""Splines: argument checks, choice of kernel, and their place in autograd and torch.compile."""

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from geodiff import reference
from geodiff.modes import outside_autocast
from geodiff.native import cpu
from geodiff.ops import _op
from geodiff.ops._spline import INPUTS, MAX_AXES, MAX_DEGREE, check_axis, check_packed, meta, unpacked
from geodiff.ops.derivatives import refuse_second
from geodiff.validation import fail, floating, positive

_SPLINE = (
    "Tensor control, Tensor knots_0, Tensor? knots_1, Tensor? knots_2, "
    "Tensor parameters_0, Tensor? parameters_1, Tensor? parameters_2, "
    "int[] degree, int[] order, float[] bandwidth, bool rational, bool grid"
)
_library = torch.library.Library("geodiff", "FRAGMENT")
_library.define("basis(Tensor parameters, Tensor knots, int degree, int order) -> (Tensor, Tensor)")
_library.define(
    "basis_backward(Tensor upstream, Tensor parameters, Tensor knots, int degree, int order, bool[] wants) "
    "-> (Tensor, Tensor)"
)
_library.define(f"spline({_SPLINE}) -> (Tensor, Tensor)")
_library.define(
    f"spline_backward(Tensor upstream, Tensor value, Tensor inverse_weight, {_SPLINE}, bool[] wants) "
    f"-> ({', '.join(['Tensor'] * INPUTS)})"
)


@outside_autocast
def basis(
    parameters: torch.Tensor, knots: torch.Tensor, degree: int, order: int = 0
) -> tuple[torch.Tensor, torch.Tensor]:
    """Evaluate the P + 1 basis functions that are not zero at each parameter, or their derivatives.

    The recursion of de Boor, "On calculating with B-splines" (1972), and Cox (1972). The twin
    `geodiff.reference.basis` has the same name and arguments.

    Args:
        parameters: u, `(..., N)`, float32 or float64. Outside of the domain `[knots[P], knots[K]]` the polynomials of
            its first or last span are extended.
        knots: non-decreasing, `(..., M)` with M = K + P + 1; leading axes broadcast with those of `parameters`.
        degree: P >= 0.
        order: of the derivative, >= 0; zeros where it exceeds P.

    Returns:
        (span, values): int64 `(..., N)` with `knots[span] <= u < knots[span + 1]`, and `(..., N, P + 1)` with
        `values[..., b]` of function `span − P + b`.

    Gradients: in `parameters` and `knots`, with the span held: exact wherever the derivative exists. The same bits on
    any number of threads. Differentiable again (through the twin).

    Raises:
        TypeError: for a wrong dtype or class.
        ValueError: for a wrong shape, too few knots, a negative degree or order, NaN or infinity.

    Example:
        >>> span, values = basis(torch.tensor([0.5]), torch.tensor([0.0, 0, 0, 1, 1, 1]), degree=2)
        >>> values
        tensor([[0.2500, 0.5000, 0.2500]])
    """
    floating("basis", "parameters", parameters, ("...", "N"))
    floating("basis", "knots", knots, ("...", "M"))
    _count("basis", "degree", degree)
    _count("basis", "order", order)
    if knots.shape[-1] < 2 * degree + 2:
        fix = "A spline of degree P has K + P + 1 knots, K >= P + 1."
        raise fail("basis", "knots", f"of at least {2 * degree + 2} knots for degree {degree}", knots, fix)
    batch = _broadcast("basis", [parameters, knots], [1, 1], ["parameters", "knots"])
    parameters, knots = _same("basis", [parameters, knots], ["parameters", "knots"])
    if degree > MAX_DEGREE or _op.for_twin(parameters, knots):
        return reference.basis(parameters, knots, degree, order)
    size = parameters.shape[-1]
    u, flat_knots = _flat(parameters, 1, batch), _flat(knots, 1, batch)
    if flat_knots.shape[0] == 1:
        u = u.reshape(1, -1)
    values, span = torch.ops.geodiff.basis(u, flat_knots, degree, order)
    shape = batch if flat_knots.shape[0] != 1 else parameters.shape[:-1]
    result = span.reshape(*shape, size), values.reshape(*shape, size, degree + 1)
    return result[0].expand(*batch, size), result[1].expand(*batch, size, degree + 1)


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
    axes = _check(where, control_points, knots, parameters, degree, order, rational, bandwidth)
    if not grid and len({u.shape[-1] for u in parameters}) > 1:
        counts = ", ".join(str(u.shape[-1]) for u in parameters)
        raise fail(where, "parameters", "as many along each axis", counts, "For all combinations, use spline_grid.")
    tensors = [control_points, *knots, *parameters]
    names = ["control_points", *["knots"] * axes, *["parameters"] * axes]
    tails = [axes + 1, *[1] * (2 * axes)]
    batch = _broadcast(where, tensors, tails, names)
    tensors = _same(where, tensors, names)
    control_points, knots, parameters = tensors[0], tensors[1 : axes + 1], tensors[axes + 1 :]
    kernel = axes <= MAX_AXES and max(degree) <= MAX_DEGREE and not _op.for_twin(*tensors)
    if not kernel or (grid and bandwidth is not None):
        twin = reference.spline_grid if grid else reference.spline
        return twin(control_points, knots, parameters, degree, order, rational, bandwidth)
    flat = [_flat(tensor, tail, batch) for tensor, tail in zip(tensors, tails, strict=True)]
    sizes = [u.shape[-1] for u in parameters] if grid else [parameters[0].shape[-1]]
    if not grid and all(t.shape[0] == 1 for t in flat[: axes + 1]):
        # One spline: a batch of parameters is but more points.
        flat[axes + 1 :] = [u.expand(*batch, sizes[0]).reshape(1, -1) for u in parameters]
    missing = [None] * (MAX_AXES - axes)
    value, _ = torch.ops.geodiff.spline(
        flat[0],
        *flat[1 : axes + 1],
        *missing,
        *flat[axes + 1 :],
        *missing,
        list(degree),
        [0] * axes if order is None else list(order),
        [] if bandwidth is None else [float(sigma) for sigma in bandwidth],
        rational,
        grid,
    )
    return value.reshape(*batch, *sizes, value.shape[-1])


def _check(
    where: str,
    control_points: torch.Tensor,
    knots: Sequence[torch.Tensor],
    parameters: Sequence[torch.Tensor],
    degree: Sequence[int],
    order: Sequence[int] | None,
    rational: bool,
    bandwidth: Sequence[float] | None,
) -> int:
    """Check what scattered and grid evaluation have in common; return the number of axes."""
    lists = {"knots": knots, "parameters": parameters, "degree": degree, "order": order, "bandwidth": bandwidth}
    for name, value in lists.items():
        if value is None and name in ("order", "bandwidth"):
            continue
        if not isinstance(value, list | tuple):
            raise fail(where, name, "a list or tuple, one entry an axis", value, error=TypeError)
        if len(value) != len(knots) or not value:
            expected = f"of length {len(knots)}, one entry an axis" if knots else "one to an axis, at least one"
            raise fail(where, name, expected, f"length {len(value)}", "Curves have one axis, surfaces two.")
    axes = len(knots)
    for number in degree:
        _count(where, "degree", number)
    for number in order or []:
        _count(where, "order", number)
    for sigma in bandwidth or []:
        positive(where, "bandwidth", sigma, "It is σ in the units of the knots; leave it out for exact gradients.")
    shape = ("...", *(f"K{a + 1}" for a in range(axes)), "D")
    floating(where, "control_points", control_points, shape, "Control axes come before the coordinates.")
    for a in range(axes):
        floating(where, f"knots[{a}]", knots[a], ("...", "M"))
        floating(where, f"parameters[{a}]", parameters[a], ("...", "N"))
        count = control_points.shape[a - axes - 1]
        if count <= degree[a]:
            fix = "Add control points, or lower the degree."
            expected = f"of at least {degree[a] + 1} points along axis {a}, for degree {degree[a]}"
            raise fail(where, "control_points", expected, control_points, fix)
        if knots[a].shape[-1] != count + degree[a] + 1:
            expected = f"of length K + P + 1 = {count} + {degree[a]} + 1 = {count + degree[a] + 1}"
            raise fail(where, f"knots[{a}]", expected, knots[a], "K is the number of control points along the axis.")
    if rational and control_points.shape[-1] < 2:
        fix = "Homogeneous points are (w·x, w)."
        raise fail(where, "control_points", "of at least two coordinates where rational", control_points, fix)
    if rational and any(order or []):
        fix = "Differentiate the homogeneous spline, and apply the quotient rule."
        raise fail(where, "order", "0 where rational", str(list(order or [])), fix)
    return axes


def _count(where: str, name: str, value: Any) -> None:
    if not isinstance(value, int) or isinstance(value, bool):
        raise fail(where, name, "an integer, 0 or more", value, error=TypeError)
    if value < 0:
        raise fail(where, name, "an integer, 0 or more", value)


def _broadcast(where: str, tensors: Sequence[torch.Tensor], tails: Sequence[int], names: Sequence[str]) -> torch.Size:
    leads = [tensor.shape[: tensor.dim() - tail] for tensor, tail in zip(tensors, tails, strict=True)]
    try:
        return torch.broadcast_shapes(*leads)
    except RuntimeError as error:
        text = ", ".join(f"{name} {tuple(lead)}" for name, lead in zip(names, leads, strict=True))
        fix = "Insert axes of length 1."
        raise fail(where, names[0], "of leading axes that broadcast with the others'", text, fix) from error


def _same(where: str, tensors: Sequence[torch.Tensor], names: Sequence[str]) -> list[torch.Tensor]:
    """Bring tensors to the widest dtype among them; refuse several devices."""
    for tensor, name in zip(tensors, names, strict=True):
        if tensor.device != tensors[0].device:
            expected = f"on {tensors[0].device} like {names[0]}"
            raise fail(where, name, expected, str(tensor.device), "Use .to(device).", RuntimeError)
    wide = torch.float64 if any(tensor.dtype == torch.float64 for tensor in tensors) else torch.float32
    return [tensor.to(wide) for tensor in tensors]


def _flat(tensor: torch.Tensor, tail: int, batch: torch.Size) -> torch.Tensor:
    """Make one axis of the leading ones, of length 1 where the whole batch shares the tensor: then it is not copied."""
    shape = tensor.shape[tensor.dim() - tail :]
    lead = tensor.shape[: tensor.dim() - tail]
    if lead.numel() == 1:
        return tensor.reshape(1, *shape).contiguous()
    return tensor.expand(*batch, *shape).reshape(batch.numel(), *shape).contiguous()


def _array(tensor: torch.Tensor) -> np.ndarray:
    return tensor.detach().contiguous().numpy()


def _gathered(gradient: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """Add up what the batch gave to an input that it shares, item after item whatever the threads."""
    if gradient.numel() == 0 or gradient.shape[0] == like.shape[0]:
        return gradient
    return torch.from_numpy(gradient.numpy().sum(axis=0, keepdims=True))


# --- basis


def _basis_forward(
    parameters: torch.Tensor, knots: torch.Tensor, degree: int, order: int
) -> tuple[torch.Tensor, torch.Tensor]:
    check_axis("basis", "", knots, parameters, degree, order)
    values, span = _basis_fake(parameters, knots, degree, order)
    if span.numel():
        cpu.extension().spline_basis(
            _array(knots), _array(parameters), degree, order, span.numpy(), values.numpy(), cpu.threads()
        )
    return values, span


def _basis_fake(
    parameters: torch.Tensor, knots: torch.Tensor, degree: int, order: int
) -> tuple[torch.Tensor, torch.Tensor]:
    shape = (*torch.broadcast_shapes(parameters.shape[:1], knots.shape[:1]), parameters.shape[1])
    return parameters.new_empty((*shape, degree + 1)), parameters.new_empty(shape, dtype=torch.int64)


def _basis_backward(
    upstream: torch.Tensor, parameters: torch.Tensor, knots: torch.Tensor, degree: int, order: int, wants: list[bool]
) -> tuple[torch.Tensor, torch.Tensor]:
    check_axis("basis_backward", "", knots, parameters, degree, order)
    (batch,) = torch.broadcast_shapes(parameters.shape[:1], knots.shape[:1])
    if upstream.shape != (batch, parameters.shape[1], degree + 1) or len(wants) != 2:
        raise fail("basis_backward", "upstream", f"of shape {(batch, parameters.shape[1], degree + 1)}", upstream)
    bars = [
        x.new_zeros((batch, x.shape[1]) if want else (0,)) for x, want in zip((parameters, knots), wants, strict=True)
    ]
    if upstream.numel() and any(wants):
        cpu.extension().spline_basis_backward(
            _array(knots),
            _array(parameters),
            degree,
            order,
            _array(upstream),
            bars[1].numpy(),
            bars[0].numpy(),
            cpu.threads(),
        )
    return _gathered(bars[0], parameters), _gathered(bars[1], knots)


def _basis_backward_fake(
    upstream: torch.Tensor, parameters: torch.Tensor, knots: torch.Tensor, degree: int, order: int, wants: list[bool]
) -> tuple[torch.Tensor, torch.Tensor]:
    grad_parameters, grad_knots = (
        x.new_empty(x.shape if want else (0,)) for x, want in zip((parameters, knots), wants, strict=True)
    )
    return grad_parameters, grad_knots


def _basis_setup(ctx: Any, inputs: tuple[Any, ...], output: tuple[torch.Tensor, ...]) -> None:
    parameters, knots, *ctx.numbers = inputs
    ctx.mark_non_differentiable(output[1])
    ctx.save_for_backward(parameters, knots)


def _basis_autograd(ctx: Any, upstream: torch.Tensor, _: Any) -> tuple[torch.Tensor | None, ...]:
    inputs = ctx.saved_tensors
    wants = list(ctx.needs_input_grad[:2])
    if torch.is_grad_enabled():
        values = reference.basis(*inputs, *ctx.numbers)[1]
        gradients = _differentiable(values, inputs, wants, upstream)
    else:
        gradients = torch.ops.geodiff.basis_backward(upstream.contiguous(), *inputs, *ctx.numbers, wants)
    return (*(g if want else None for g, want in zip(gradients, wants, strict=True)), None, None)


def _differentiable(
    value: torch.Tensor, inputs: Sequence[torch.Tensor | None], wants: Sequence[bool], upstream: torch.Tensor
) -> list[torch.Tensor | None]:
    """Gradients of the twin, which have gradients themselves: what create_graph=True gets."""
    wanted = [x for x, want in zip(inputs, wants, strict=True) if want and x is not None]
    found = iter(torch.autograd.grad(value, wanted, upstream, create_graph=True, materialize_grads=True))
    return [next(found) if want else None for want in wants]


# --- spline: tensors are the control points, three knot vectors and three lists of parameters, None where not there


def _forward(*arguments: Any) -> tuple[torch.Tensor, torch.Tensor]:
    check_packed("spline", arguments)
    value, inverse_weight = _fake(*arguments)
    control, knots, parameters, degree, order, _, rational, grid = unpacked(arguments)
    if value.numel():
        cpu.extension().spline_forward(
            _array(control),
            [_array(k) for k in knots],
            [_array(u) for u in parameters],
            degree,
            order,
            rational,
            grid,
            value.numpy(),
            inverse_weight.numpy(),
            cpu.threads(),
        )
    return value, inverse_weight


def _fake(*arguments: Any) -> tuple[torch.Tensor, torch.Tensor]:
    control, knots, parameters, _, _, _, rational, grid = unpacked(arguments)
    (batch,) = torch.broadcast_shapes(*(x.shape[:1] for x in (control, *knots, *parameters)))
    points = 1
    for u in parameters if grid else parameters[:1]:
        points = points * u.shape[1]
    value = control.new_empty((batch, points, control.shape[-1] - int(rational)))
    return value, control.new_empty((batch, points) if rational else (0,))


def _backward(
    upstream: torch.Tensor, value: torch.Tensor, inverse_weight: torch.Tensor, *rest: Any
) -> tuple[torch.Tensor, ...]:
    *arguments, wants = rest
    control, knots, parameters, degree, order, bandwidth, rational, grid = unpacked(arguments)
    check_packed("spline_backward", arguments)
    shapes = [torch.empty(0).shape if x is None else x.shape for x in _fake(*(meta(x) for x in arguments))]
    for name, x, shape in (
        ("value", value, shapes[0]),
        ("inverse_weight", inverse_weight, shapes[1]),
        ("upstream", upstream, shapes[0]),
    ):
        if x.shape != shape:
            raise fail("spline_backward", name, f"of shape {tuple(shape)}", x)
    if len(wants) != INPUTS:
        raise fail("spline_backward", "wants", f"of length {INPUTS}", str(len(wants)))
    batch = value.shape[0]
    bars = [
        control.new_zeros((batch, *x.shape[1:]) if want and x is not None else (0,))
        for x, want in zip(arguments[:INPUTS], wants, strict=True)
    ]
    arrays = [bar.numpy() for bar in bars]
    if value.numel() and any(wants):
        cpu.extension().spline_backward(
            _array(control),
            [_array(k) for k in knots],
            [_array(u) for u in parameters],
            degree,
            order,
            bandwidth,
            rational,
            grid,
            _array(value),
            _array(inverse_weight),
            _array(upstream),
            arrays[0],
            arrays[1 : 1 + len(knots)],
            arrays[1 + MAX_AXES : 1 + MAX_AXES + len(knots)],
            cpu.threads(),
        )
    return tuple(bar if x is None else _gathered(bar, x) for bar, x in zip(bars, arguments[:INPUTS], strict=True))


def _backward_fake(
    upstream: torch.Tensor, value: torch.Tensor, inverse_weight: torch.Tensor, *rest: Any
) -> tuple[torch.Tensor, ...]:
    *arguments, wants = rest
    return tuple(
        value.new_empty(x.shape if want and x is not None else (0,))
        for x, want in zip(arguments[:INPUTS], wants, strict=True)
    )


def _setup(ctx: Any, inputs: tuple[Any, ...], output: tuple[torch.Tensor, ...]) -> None:
    value, inverse_weight = output
    ctx.mark_non_differentiable(inverse_weight)
    ctx.save_for_backward(*inputs[:INPUTS], value, inverse_weight)
    ctx.numbers = inputs[INPUTS:]


def _autograd(ctx: Any, upstream: torch.Tensor, _: Any) -> tuple[torch.Tensor | None, ...]:
    *inputs, value, inverse_weight = ctx.saved_tensors
    wants = list(ctx.needs_input_grad[:INPUTS])
    if torch.is_grad_enabled():
        gradients = _differentiable(_twin(inputs, ctx.numbers), inputs, wants, upstream)
    else:
        gradients = torch.ops.geodiff.spline_backward(
            upstream.contiguous(), value, inverse_weight, *inputs, *ctx.numbers, wants
        )
    nothing = itertools.repeat(None, len(ctx.numbers))
    return (*(g if want else None for g, want in zip(gradients, wants, strict=True)), *nothing)


def _twin(inputs: Sequence[torch.Tensor | None], numbers: Sequence[Any]) -> torch.Tensor:
    control, knots, parameters, degree, order, bandwidth, rational, grid = unpacked((*inputs, *numbers))
    twin = reference.spline_grid if grid else reference.spline
    value = twin(control, knots, parameters, degree, order, rational, bandwidth or None)
    return value.flatten(1, -2)


_op.implement(_library, "basis", _basis_forward, {"parameters": "U N", "knots": "K M"})
_op.implement(_library, "basis_backward", _basis_backward, {"parameters": "U N", "knots": "K M", "upstream": "B N W"})
_TENSORS = {"control": "*", **{f"{name}_{axis}": "_ _" for name in ("knots", "parameters") for axis in range(MAX_AXES)}}
_op.implement(_library, "spline", _forward, _TENSORS)
_op.implement(
    _library, "spline_backward", _backward, {**_TENSORS, "value": "_ _ _", "inverse_weight": "*", "upstream": "_ _ _"}
)
torch.library.register_fake("geodiff::basis", _basis_fake, lib=_library)
torch.library.register_fake("geodiff::basis_backward", _basis_backward_fake, lib=_library)
torch.library.register_fake("geodiff::spline", _fake, lib=_library)
torch.library.register_fake("geodiff::spline_backward", _backward_fake, lib=_library)
_op.autograd(_library, "basis", _basis_autograd, _basis_setup)
_op.autograd(_library, "spline", _autograd, _setup)
refuse_second(_library, "basis")
refuse_second(_library, "spline")
