# SPDX-License-Identifier: Apache-2.0
"""Twin of `geodiff.ops.spline`: tensor-product B-splines through dense basis matrices, in plain torch."""

import math
from collections.abc import Sequence
from typing import Any

import torch

from geodiff.modes import is_transformed, outside_autocast
from geodiff.validation import common_batch


@outside_autocast
def find_span(knots: torch.Tensor, parameters: torch.Tensor, degree: int) -> torch.Tensor:
    """Find the index s of the non-empty knot span with `knots[s] <= u < knots[s + 1]`.

    The last non-empty span of the domain `[knots[P], knots[K]]` takes its right end too; a parameter outside of the
    domain gets the first or the last span of it, whose polynomials are thereby extended.

    Args:
        knots: non-decreasing, `(..., M)` with M = K + P + 1.
        parameters: `(..., N)`.
        degree: P.

    Returns:
        int64 in [P, K), `(..., N)`.

    Example:
        >>> find_span(torch.tensor([0.0, 0, 0, 1, 2, 2, 2]), torch.tensor([0.0, 1.0, 2.0]), 2)
        tensor([2, 3, 3])
    """
    batch = common_batch(knots.shape[:-1], parameters.shape[:-1])
    knots = knots.detach().expand(*batch, -1).contiguous()
    parameters = parameters.detach().expand(*batch, -1).contiguous()
    low, high = knots[..., degree, None].contiguous(), knots[..., knots.shape[-1] - degree - 1, None].contiguous()
    # The first and the last non-empty span: knots may be repeated at the ends of the domain, clamped or not.
    first = torch.searchsorted(knots, low, right=True) - 1
    last = (torch.searchsorted(knots, high, right=False) - 1).clamp(min=degree)
    span = torch.searchsorted(knots, parameters, right=True) - 1
    return torch.minimum(torch.maximum(span, first), last)


@outside_autocast
def basis(
    parameters: torch.Tensor, knots: torch.Tensor, degree: int, order: int = 0
) -> tuple[torch.Tensor, torch.Tensor]:
    """Evaluate the P + 1 basis functions that are not zero at each parameter, or their derivatives.

    The recursion of Cox and de Boor over the span that holds u, in the triangular form of Piegl and Tiller, "The NURBS
    Book" (1997), A2.2. Its denominators are at least the length of that span, so repeated knots need no special case.
    A derivative of order k is that of degree P − k, taken through k steps of
    `N'_{i,q} = q (N_{i,q−1} / (u_{i+q} − u_i) − N_{i+1,q−1} / (u_{i+q+1} − u_{i+1}))`.

    Args:
        parameters: u, `(..., N)`.
        knots: `(..., M)`; leading axes broadcast with those of `parameters`.
        degree: P >= 0.
        order: of the derivative, >= 0.

    Returns:
        (span, values): int64 `(..., N)`, and `(..., N, P + 1)` with `values[..., b]` of function `span − P + b`.

    Gradients: in `parameters` and `knots`, with the span held: exact wherever the derivative exists (multiplicity
    at most P − 1 − order, and almost everywhere beyond that).

    Example:
        >>> span, values = basis(torch.tensor([0.5]), torch.tensor([0.0, 0, 0, 1, 1, 1]), degree=2)
        >>> values
        tensor([[0.2500, 0.5000, 0.2500]])
    """
    span = find_span(knots, parameters, degree)
    return span, basis_on_span(parameters, knots, degree, order, span)


def basis_on_span(
    parameters: torch.Tensor, knots: torch.Tensor, degree: int, order: int, span: torch.Tensor
) -> torch.Tensor:
    """Evaluate the polynomials of the given spans `(..., N)`, extended to wherever the parameters are."""
    u = parameters.expand(span.shape)[..., None]
    # Zero, but of all that it depends on: where nothing changes, gradients are zero rather than missing.
    zero = 0 * (u - knots[..., :1, None])
    if order > degree:
        return zero.expand(*span.shape, degree + 1)
    window = span[..., None] + torch.arange(1 - degree, degree + 1, device=span.device)
    around = torch.take_along_dim(
        knots[..., None, :].expand(*span.shape[:-1], 1, -1), window.flatten(-2)[..., None, :], -1
    ).reshape(window.shape)
    values = 1 + zero
    for q in range(1, degree + 1):
        low, high = around[..., degree - q : degree], around[..., degree : degree + q]
        ratio = values / (high - low)
        if q <= degree - order:
            values = _grow(ratio * (high - u), ratio * (u - low))
        else:
            values = _grow(-q * ratio, q * ratio)
    return values


def _grow(left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    pad = torch.nn.functional.pad
    return pad(left, (0, 1)) + pad(right, (1, 0))


@outside_autocast
def basis_matrix(
    parameters: torch.Tensor, knots: torch.Tensor, degree: int, order: int = 0, bandwidth: float | None = None
) -> torch.Tensor:
    """Evaluate all K basis functions, `(..., N, K)`, zeros included.

    With a `bandwidth` σ the value is the same, and the gradient in the knots gets what Cox–de Boor carries up from
    degree 0 when the jump at a knot is smoothed by a Gaussian: for knot u_j of multiplicity m,
    `g_σ(u − u_j) (A₋(u) − A₊(u)) / m`, with A∓ the polynomials of the non-empty spans on either side of it, extended.
    A knot with a span on one side only has no such term. After Cho et al., "Differentiable Spline Approximations"
    (2021), section 2.2, with the density normalised and squared as it should be.

    Args:
        parameters: `(..., N)`.
        knots: `(..., M)`.
        degree: P.
        order: of the derivative.
        bandwidth: σ > 0 in the units of the knots, or None for the exact gradient.
    """
    span, values = basis(parameters, knots, degree, order)
    count = knots.shape[-1] - degree - 1
    matrix = _scatter(values, span, degree, count)
    if bandwidth is None or not (knots.requires_grad or is_transformed(knots)):
        return matrix
    knots = knots.expand(*span.shape[:-1], -1)
    padded = _padded(knots, degree)
    held = knots.detach().contiguous()
    for j in range(knots.shape[-1]):
        at = held[..., j, None].contiguous()
        left = torch.searchsorted(held, at, right=False) - 1
        right = torch.searchsorted(held, at, right=True) - 1
        inside = (left >= 0) & (right + 1 < knots.shape[-1])
        if not bool(inside.any()):
            continue
        last = knots.shape[-1] - 2
        before, after = (
            _piece(parameters, padded, degree, order, s.clamp(0, last).expand(span.shape), count) for s in (left, right)
        )
        distance = (parameters - knots[..., j, None]) / bandwidth
        density = torch.exp(-0.5 * distance**2) / (bandwidth * math.sqrt(2 * math.pi))
        weight = torch.where(inside, density / (right - left), torch.zeros_like(density))
        kind = _SmoothedForward if is_transformed(knots) else _Smoothed
        matrix = kind.apply(matrix, knots[..., j], weight[..., None] * (before - after))
    return matrix


class _Smoothed(torch.autograd.Function):
    """Return a matrix as it is, and give a knot the gradient that it is told, which may have a graph of its own."""

    @staticmethod
    def forward(matrix: torch.Tensor, knot: torch.Tensor, slope: torch.Tensor) -> torch.Tensor:
        return matrix.clone()

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
        ctx.save_for_backward(inputs[2])
        ctx.save_for_forward(*inputs)

    @staticmethod
    def backward(ctx: Any, upstream: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        (slope,) = ctx.saved_tensors
        return upstream, (upstream * slope).sum((-2, -1)), None


class _SmoothedForward(_Smoothed):
    """With forward mode; apart, since torch.compile takes no function that has it."""

    @staticmethod
    def jvp(ctx: Any, tangent: torch.Tensor | None, by_knot: torch.Tensor | None, _: Any) -> torch.Tensor:
        matrix, _, slope = ctx.saved_tensors
        tangent = torch.zeros_like(matrix) if tangent is None else tangent
        return tangent if by_knot is None else tangent + slope * by_knot[..., None, None]


def _scatter(values: torch.Tensor, span: torch.Tensor, degree: int, count: int) -> torch.Tensor:
    where = span[..., None] + torch.arange(-degree, 1, device=span.device)
    return values.new_zeros(*span.shape, count).scatter(-1, where, values)


def _padded(knots: torch.Tensor, degree: int) -> torch.Tensor:
    """Continue a knot vector by P distinct knots on both sides; functions of the original one do not see them."""
    steps = torch.arange(1, degree + 1, dtype=knots.dtype, device=knots.device)
    width = (knots[..., -1:] - knots[..., :1]).detach()
    return torch.cat([knots[..., :1] - width * steps.flip(0), knots, knots[..., -1:] + width * steps], -1)


def _piece(
    parameters: torch.Tensor, padded: torch.Tensor, degree: int, order: int, span: torch.Tensor, count: int
) -> torch.Tensor:
    values = basis_on_span(parameters, padded, degree, order, span + degree)
    return _scatter(values, span + degree, degree, count + 2 * degree)[..., degree : degree + count]


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

    Args:
        control_points: `(..., K1, D)` for a curve, `(..., K1, K2, D)` for a surface, and so on.
        knots: one `(..., M)` an axis.
        parameters: one `(..., N)` an axis.
        degree: one an axis.
        order: of the derivative, one an axis; left out, the value.
        rational: the control points are homogeneous `(w P, w)`; divide by the last coordinate. For values only.
        bandwidth: σ an axis for smoothed knot gradients (see `basis_matrix`); left out, exact ones.

    Returns:
        `(..., N, D)`, or `(..., N, D − 1)` where rational.
    """
    matrices = _matrices(knots, parameters, degree, order, bandwidth)
    axes = len(matrices)
    value = torch.einsum("...nk,...kf->...nf", matrices[0], control_points.flatten(-axes, -1))
    for axis, matrix in enumerate(matrices[1:], start=1):
        value = value.unflatten(-1, (control_points.shape[axis - axes - 1], -1))
        value = torch.einsum("...nk,...nkf->...nf", matrix, value)
    return project(value) if rational else value


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

    Takes the arguments of `spline`, but parameters `(..., N1)`, `(..., N2)`, …; returns `(..., N1, N2, …, D)`.
    """
    matrices = _matrices(knots, parameters, degree, order, bandwidth)
    axes = len(matrices)
    # Each step replaces the first remaining control axis by a grid axis and moves it behind the others.
    value = control_points.movedim(-1, -axes - 1)
    for matrix in matrices:
        value = value.movedim(-axes, -1)
        value = torch.einsum("...nk,...k->...n", _lead(matrix, axes), value)
    value = value.movedim(-axes - 1, -1)
    return project(value) if rational else value


def _lead(matrix: torch.Tensor, axes: int) -> torch.Tensor:
    """Give a matrix `(..., N, K)` room for the coordinates and the other axes before its two."""
    return matrix[(..., *(None,) * axes, slice(None), slice(None))]


def project(homogeneous: torch.Tensor) -> torch.Tensor:
    """Divide homogeneous coordinates `(w x, w)` by the last one."""
    return homogeneous[..., :-1] / homogeneous[..., -1:]


def _matrices(
    knots: Sequence[torch.Tensor],
    parameters: Sequence[torch.Tensor],
    degree: Sequence[int],
    order: Sequence[int] | None,
    bandwidth: Sequence[float] | None,
) -> list[torch.Tensor]:
    orders = [0] * len(knots) if order is None else order
    sigmas = [None] * len(knots) if bandwidth is None else bandwidth
    return [basis_matrix(*args) for args in zip(parameters, knots, degree, orders, sigmas, strict=True)]
