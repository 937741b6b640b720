# SPDX-License-Identifier: Apache-2.0
"""What is handed to the spline ops, by users and by direct calls: found among the arguments, and checked."""

from collections.abc import Sequence
from typing import Any

import torch

from geodiff.validation import common_batch, fail, floating, positive

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


def check_spline(
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
        count(where, "degree", number)
    for number in order or []:
        count(where, "order", number)
    for sigma in bandwidth or []:
        positive(where, "bandwidth", sigma, "It is σ in the units of the knots; leave it out for exact gradients.")
    shape = ("...", *(f"K{a + 1}" for a in range(axes)), "D")
    floating(where, "control_points", control_points, shape, "Control axes come before the coordinates.")
    for a in range(axes):
        floating(where, f"knots[{a}]", knots[a], ("...", "M"))
        floating(where, f"parameters[{a}]", parameters[a], ("...", "N"))
        points = control_points.shape[a - axes - 1]
        if points <= degree[a]:
            fix = "Add control points, or lower the degree."
            expected = f"of at least {degree[a] + 1} points along axis {a}, for degree {degree[a]}"
            raise fail(where, "control_points", expected, control_points, fix)
        if knots[a].shape[-1] != points + degree[a] + 1:
            expected = f"of length K + P + 1 = {points} + {degree[a]} + 1 = {points + degree[a] + 1}"
            raise fail(where, f"knots[{a}]", expected, knots[a], "K is the number of control points along the axis.")
    if rational and control_points.shape[-1] < 2:
        fix = "Homogeneous points are (w·x, w)."
        raise fail(where, "control_points", "of at least two coordinates where rational", control_points, fix)
    if rational and any(order or []):
        fix = "Differentiate the homogeneous spline, and apply the quotient rule."
        raise fail(where, "order", "0 where rational", str(list(order or [])), fix)
    return axes


def count(where: str, name: str, value: Any) -> None:
    if not isinstance(value, int) or isinstance(value, bool):
        raise fail(where, name, "an integer, 0 or more", value, error=TypeError)
    if value < 0:
        raise fail(where, name, "an integer, 0 or more", value)


def broadcast(where: str, tensors: Sequence[torch.Tensor], tails: Sequence[int], names: Sequence[str]) -> torch.Size:
    leads = [tensor.shape[: tensor.dim() - tail] for tensor, tail in zip(tensors, tails, strict=True)]
    try:
        return common_batch(*leads)
    except RuntimeError as error:
        text = ", ".join(f"{name} {tuple(lead)}" for name, lead in zip(names, leads, strict=True))
        fix = "Insert axes of length 1."
        raise fail(where, names[0], "of leading axes that broadcast with the others'", text, fix) from error


def same(tensors: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    """Bring tensors to the widest dtype among them."""
    wide = torch.float64 if any(tensor.dtype == torch.float64 for tensor in tensors) else torch.float32
    return [tensor.to(wide) for tensor in tensors]


def flat(tensor: torch.Tensor, tail: int, batch: torch.Size) -> torch.Tensor:
    """Make one axis of the leading ones, of length 1 where the whole batch shares the tensor: then it is not copied."""
    shape = tensor.shape[tensor.dim() - tail :]
    lead = tensor.shape[: tensor.dim() - tail]
    if lead.numel() == 1:
        return tensor.reshape(1, *shape).contiguous()
    return tensor.expand(*batch, *shape).reshape(batch.numel(), *shape).contiguous()
