# SPDX-License-Identifier: Apache-2.0
"""Knot vectors: make them, check them, and optimise them so that they stay in order."""

import torch

from geodiff.constants import on_device
from geodiff.modes import outside_autocast
from geodiff.validation import as_tensor, choice, fail, floating, looks_at_values, promote


@outside_autocast
def uniform_knots(
    count: int,
    degree: int,
    kind: str = "clamped",
    low: float = 0.0,
    high: float = 1.0,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str | None = None,
) -> torch.Tensor:
    """Make equally spaced knots for K control points over the domain [low, high].

    Args:
        count: K >= P + 1 (at least 1 where periodic).
        degree: P >= 0.
        kind: ``"clamped"`` repeats each end P + 1 times, so that the spline starts and ends at its outer control
            points; ``"unclamped"`` continues the spacing beyond the domain; ``"periodic"`` returns the K + 1
            breakpoints of one period.
        low: start of the domain.
        high: end of it.
        dtype: float32 or float64.
        device: of the result.

    Returns:
        `(K + P + 1,)`, or `(K + 1,)` where periodic.

    Raises:
        TypeError: a count or degree that is no integer, another dtype.
        ValueError: too few control points, a negative degree, an empty domain.

    Example:
        >>> uniform_knots(5, 2)
        tensor([0.0000, 0.0000, 0.0000, 0.3333, 0.6667, 1.0000, 1.0000, 1.0000])
    """
    choice("uniform_knots", "kind", kind, ("clamped", "unclamped", "periodic"))
    for name, value in (("count", count), ("degree", degree)):
        if not isinstance(value, int) or isinstance(value, bool):
            raise fail("uniform_knots", name, "an integer", value, error=TypeError)
    if dtype not in (torch.float32, torch.float64):
        raise fail("uniform_knots", "dtype", "torch.float32 or torch.float64", str(dtype), error=TypeError)
    if degree < 0:
        raise fail("uniform_knots", "degree", "0 or more", degree)
    least = 1 if kind == "periodic" else degree + 1
    if count < least:
        raise fail("uniform_knots", "count", f"at least {least} for degree {degree}", count, "Lower the degree.")
    if not low < high:
        raise fail("uniform_knots", "high", f"above low = {low}", high)
    spans = count if kind == "periodic" else count - degree
    inner = torch.linspace(low, high, spans + 1, dtype=torch.float64)
    if kind == "periodic":
        knots = inner
    elif kind == "clamped":
        knots = torch.cat([inner[:1].expand(degree), inner, inner[-1:].expand(degree)])
    else:
        steps = torch.arange(1, degree + 1, dtype=torch.float64) * ((high - low) / spans)
        knots = torch.cat([low - steps.flip(0), inner, high + steps])
    knots = knots.to(dtype)
    return knots if device is None else on_device(knots, torch.device(device)).clone()


def check_knots(
    where: str, argument: str, knots: torch.Tensor, degree: int, count: int, periodic: bool = False
) -> None:
    """Require a knot vector that fits K control points of degree P.

    Raises:
        TypeError: not float32 or float64.
        ValueError: too few or too many, decreasing, one repeated more than P + 1 times, an empty domain, NaN.
    """
    floating(where, argument, knots, ("...", "M"))
    wanted = count + 1 if periodic else count + degree + 1
    if knots.shape[-1] != wanted:
        rule = "K + 1 (one period)" if periodic else "K + P + 1"
        expected = f"{wanted} knots = {rule} for K = {count} control points of degree P = {degree}"
        fix = "Add or drop knots or control points, or leave the knots out for uniform ones."
        raise fail(where, argument, expected, f"{knots.shape[-1]} knots", fix)
    if not looks_at_values(knots):
        return
    held = knots.detach()
    wrong = (held[..., 1:] < held[..., :-1]).nonzero()
    if len(wrong):
        *row, i = wrong[0].tolist()
        first, second = float(held[(*row, i)]), float(held[(*row, i + 1)])
        raise fail(
            where, argument, "non-decreasing", f"{first} before {second} at index {i}", "Sort them with torch.sort."
        )
    span = 1 if periodic else degree + 1
    repeated = (held[..., span:] == held[..., : held.shape[-1] - span]).nonzero()
    domain = held[..., 0 if periodic else degree], held[..., count]
    if bool((domain[1] <= domain[0]).any()):
        raise fail(where, argument, "of a domain that is not empty", f"[{domain[0]}, {domain[1]}]", "Spread them.")
    if len(repeated):
        *row, i = repeated[0].tolist()
        expected = f"repeated at most {span} times" + ("" if periodic else f" (degree {degree} + 1)")
        got = f"{float(held[(*row, i)])} repeated {span + 1} times or more from index {i}"
        raise fail(where, argument, expected, got, "Drop one of them.")


@outside_autocast
def multiplicities(knots: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the distinct knots of one vector `(M,)` and how often each is there; without gradient.

    Raises:
        ValueError: a batch of vectors.

    Example:
        >>> multiplicities(torch.tensor([0.0, 0.0, 0.5, 1.0, 1.0]))
        (tensor([0.0000, 0.5000, 1.0000]), tensor([2, 1, 2]))
    """
    knots = as_tensor("multiplicities", "knots", knots)
    if knots.dim() != 1:
        raise fail("multiplicities", "knots", "one vector, of shape (M,)", knots, "Take those of a batch one by one.")
    return torch.unique_consecutive(knots.detach(), return_counts=True)


@outside_autocast
def greville(knots: torch.Tensor, degree: int) -> torch.Tensor:
    """Return the Greville abscissae, `(..., K)`: the mean of the P inner knots of each function's support.

    Control points at these heights give the identity (linear precision), for P >= 1. At P = 0, the spans' middles.

    Example:
        >>> greville(torch.tensor([0.0, 0.0, 0.0, 1.0, 1.0, 1.0]), 2)
        tensor([0.0000, 0.5000, 1.0000])
    """
    (knots,) = promote("greville", knots=knots).values()
    if degree == 0:
        return (knots[..., 1:] + knots[..., :-1]) / 2
    return knots[..., 1:-1].unfold(-1, degree, 1).mean(-1)


def open_periodic(breakpoints: torch.Tensor, degree: int) -> torch.Tensor:
    """Unroll the K + 1 breakpoints of one period into the K + 2P + 1 knots of an unclamped spline.

    Its first K control points are the periodic spline's, followed by the first P of them again, cyclically.
    """
    count = breakpoints.shape[-1] - 1
    period = breakpoints[..., -1:] - breakpoints[..., :1]
    index = torch.arange(-degree, count + degree + 1, device=breakpoints.device)
    turns = torch.div(index, count, rounding_mode="floor")
    return breakpoints[..., index - turns * count] + turns * period


@outside_autocast
def knots_to_logits(knots: torch.Tensor, degree: int, min_fraction: float = 0.0) -> torch.Tensor:
    """Return the free parameters `(..., S)` of a clamped vector of S = K − P spans; see `logits_to_knots`.

    Spans of length zero (repeated interior knots) are taken as a millionth of the domain.
    """
    (knots,) = promote("knots_to_logits", knots=knots).values()
    inner = knots[..., degree : knots.shape[-1] - degree]
    spans = inner.diff(dim=-1) / (inner[..., -1:] - inner[..., :1])
    free = (spans - min_fraction) / (1 - spans.shape[-1] * min_fraction)
    return free.clamp(min=1e-6).log()


@outside_autocast
def logits_to_knots(
    logits: torch.Tensor, degree: int, low: float = 0.0, high: float = 1.0, min_fraction: float = 0.0
) -> torch.Tensor:
    """Make a clamped knot vector whose spans are the softmax of free numbers: in order whatever the optimiser does.

    Args:
        logits: one number a span, `(..., S)`; adding a constant changes nothing.
        degree: P; each end knot is repeated P + 1 times and held.
        low: start of the domain.
        high: end of it.
        min_fraction: shortest span allowed, as a fraction of the domain, in [0, 1 / S).

    Returns:
        `(..., S + 2P + 1)`, for K = S + P control points.

    Gradients: in `logits`, through the interior knots.

    Raises:
        ValueError: `min_fraction` out of its range, a negative degree, NaN.

    Example:
        >>> logits_to_knots(torch.zeros(4), degree=1)
        tensor([0.0000, 0.0000, 0.2500, 0.5000, 0.7500, 1.0000, 1.0000])
    """
    (logits,) = promote("logits_to_knots", logits=logits).values()
    floating("logits_to_knots", "logits", logits, ("...", "S"), finite=False)
    if degree < 0:
        raise fail("logits_to_knots", "degree", "0 or more", degree)
    spans = logits.shape[-1]
    if not 0 <= min_fraction < 1 / spans:
        raise fail("logits_to_knots", "min_fraction", f"in [0, 1/{spans}) for {spans} spans", min_fraction)
    width = min_fraction + (1 - spans * min_fraction) * torch.softmax(logits, -1)
    inner = low + (high - low) * width.cumsum(-1)[..., :-1]
    ends = inner.new_ones(*logits.shape[:-1], degree + 1)
    return torch.cat([ends * low, inner, ends * high], -1)
