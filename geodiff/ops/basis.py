# SPDX-License-Identifier: Apache-2.0
"""Basis functions of splines: argument checks, kernels, and their place in autograd and torch.compile."""

import torch

from geodiff import reference
from geodiff.modes import outside_autocast
from geodiff.ops import _op
from geodiff.ops._spline import MAX_DEGREE, broadcast, check_axis, count, flat, same
from geodiff.validation import common_batch, fail, floating

_op.library.define("basis(Tensor parameters, Tensor knots, int degree, int order) -> (Tensor values, Tensor span)")
_op.library.define(
    "basis_backward(Tensor upstream, Tensor parameters, Tensor knots, int degree, int order, bool[] wants) "
    "-> (Tensor parameters, Tensor knots)"
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
    count("basis", "degree", degree)
    count("basis", "order", order)
    if knots.shape[-1] < 2 * degree + 2:
        fix = "A spline of degree P has K + P + 1 knots, K >= P + 1."
        raise fail("basis", "knots", f"of at least {2 * degree + 2} knots for degree {degree}", knots, fix)
    batch = broadcast("basis", [parameters, knots], [1, 1], ["parameters", "knots"])
    twin = _op.for_twin("basis", parameters=parameters, knots=knots)
    parameters, knots = same([parameters, knots])
    if degree > MAX_DEGREE or twin:
        return reference.basis(parameters, knots, degree, order)
    size = parameters.shape[-1]
    u, flat_knots = flat(parameters, 1, batch), flat(knots, 1, batch)
    if flat_knots.shape[0] == 1:
        u = u.reshape(1, -1)
    values, span = _op.run("basis", u, flat_knots, degree, order)
    shape = batch if flat_knots.shape[0] != 1 else parameters.shape[:-1]
    result = span.reshape(*shape, size), values.reshape(*shape, size, degree + 1)
    return result[0].expand(*batch, size), result[1].expand(*batch, size, degree + 1)


def _forward(
    parameters: torch.Tensor, knots: torch.Tensor, degree: int, order: int
) -> tuple[torch.Tensor, torch.Tensor]:
    check_axis("basis", "", knots, parameters, degree, order)
    values, span = _fake(parameters, knots, degree, order)
    if span.numel():
        _op.call(
            _op.kernels.spline_basis, knots=knots, parameters=parameters, degree=degree, order=order, span=span,
            values=values,
        )  # fmt: skip
    return values, span


def _fake(parameters: torch.Tensor, knots: torch.Tensor, degree: int, order: int) -> tuple[torch.Tensor, torch.Tensor]:
    shape = (*common_batch(parameters.shape[:1], knots.shape[:1]), parameters.shape[1])
    return parameters.new_empty((*shape, degree + 1)), parameters.new_empty(shape, dtype=torch.int64)


def _backward(
    upstream: torch.Tensor, parameters: torch.Tensor, knots: torch.Tensor, degree: int, order: int, wants: list[bool]
) -> tuple[torch.Tensor, torch.Tensor]:
    check_axis("basis_backward", "", knots, parameters, degree, order)
    (batch,) = common_batch(parameters.shape[:1], knots.shape[:1])
    if upstream.shape != (batch, parameters.shape[1], degree + 1):
        raise fail("basis_backward", "upstream", f"of shape {(batch, parameters.shape[1], degree + 1)}", upstream)
    of_parameters, of_knots = (
        x.new_zeros((batch, x.shape[1]) if want else (0,)) for x, want in zip((parameters, knots), wants, strict=True)
    )
    if upstream.numel() and any(wants):
        _op.call(
            _op.kernels.spline_basis_backward, knots=knots, parameters=parameters, degree=degree, order=order,
            upstream=upstream, grad_knots=of_knots, grad_parameters=of_parameters,
        )  # fmt: skip
    return _op.added_up(of_parameters, parameters), _op.added_up(of_knots, knots)


def _twin(parameters: torch.Tensor, knots: torch.Tensor, degree: int, order: int) -> torch.Tensor:
    return reference.basis(parameters, knots, degree, order)[1]


_SHAPES = {"parameters": "U N", "knots": "K M", "upstream": "B N W"}
_op.register("basis", _forward, _fake, _SHAPES, _backward, twin=_twin)
