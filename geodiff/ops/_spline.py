# SPDX-License-Identifier: Apache-2.0
"""What direct calls of the spline ops hand over: found among the arguments, and checked."""

from collections.abc import Sequence
from typing import Any

import torch

from geodiff.validation import fail, positive

MAX_DEGREE = 15
"""The most that the kernels take; above it the twin computes."""
MAX_AXES = 3
INPUTS = 1 + 2 * MAX_AXES
"""How many of an op's arguments are tensors: control points, knots and parameters of each axis."""


def unpacked(arguments: Sequence[Any]) -> tuple[Any, ...]:
    """Return (control, knots, parameters, degree, order, bandwidth, rational, grid) with lists as long as the axes."""
    control, *tensors = arguments[:INPUTS]
    knots = [x for x in tensors[:MAX_AXES] if x is not None]
    parameters = [x for x in tensors[MAX_AXES:] if x is not None]
    return control, knots, parameters, *arguments[INPUTS:]


def check_axis(op: str, axis: str, knots: torch.Tensor, parameters: torch.Tensor, degree: int, order: int) -> None:
    """Check one axis of a direct call."""
    if not 0 <= degree <= MAX_DEGREE:
        raise fail(op, "degree", f"from 0 to {MAX_DEGREE}", degree)
    if not 0 <= order < 2**31:
        raise fail(op, "order", "from 0 to 2³¹ − 1", order)
    if knots.shape[1] < 2 * degree + 2:
        raise fail(op, f"knots{axis}", f"of at least {2 * degree + 2} knots for degree {degree}", knots)
    if 1 not in (len(knots), len(parameters)) and len(knots) != len(parameters):
        raise fail(op, f"parameters{axis}", f"of as many rows as the knots, {len(knots)}, or one", parameters)


def check_packed(op: str, arguments: Sequence[Any]) -> None:
    """Check what a direct call says of splines."""
    control, knots, parameters, degree, order, bandwidth, rational, grid = unpacked(arguments)
    axes = len(knots)
    first = [x is not None for x in arguments[1:INPUTS]]
    if axes < 1 or control.dim() != axes + 2 or first != 2 * ([True] * axes + [False] * (MAX_AXES - axes)):
        raise fail(op, "control", "of shape (B, K1, …, D) with as many axes as knots and parameters", control)
    if len(degree) != axes or len(order) != axes or len(bandwidth) not in (0, axes):
        raise fail(op, "degree", f"of {axes} entries, as order", f"{len(degree)} and {len(order)}")
    rows = {len(x) for x in (control, *knots, *parameters)} - {1}
    if len(rows) > 1:
        raise fail(op, "control", "of as many rows as the others, or one", f"{sorted(rows)} rows")
    for a in range(axes):
        check_axis(op, f"_{a}", knots[a], parameters[a], degree[a], order[a])
        if knots[a].shape[1] != control.shape[a + 1] + degree[a] + 1:
            raise fail(op, f"knots_{a}", f"of length K + P + 1 = {control.shape[a + 1] + degree[a] + 1}", knots[a])
        if not grid and parameters[a].shape[1] != parameters[0].shape[1]:
            raise fail(op, f"parameters_{a}", f"of {parameters[0].shape[1]} columns like the first", parameters[a])
    for sigma in bandwidth:
        positive(op, "bandwidth", sigma)
    if control.shape[-1] < 1 + int(rational):
        raise fail(op, "control", "of one coordinate or more, two where rational", control)
    if (rational and any(order)) or (grid and bandwidth and op == "spline"):
        raise fail(op, "order", "0 where rational; no bandwidth on a grid", f"{order}")


def meta(value: Any) -> Any:
    return value.to("meta") if isinstance(value, torch.Tensor) else value
