# SPDX-License-Identifier: Apache-2.0
"""Creases of a sequence of points: where a curve through them turns at once; and knots that allow it to."""

import itertools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from geodiff.splines.pieces import PieceFit, fit_pieces
from geodiff.validation import fail, floating, promote

TURN = math.radians(20)  # a corner of less is taken for a bend
SEARCH = 3  # degree of the pieces: quadratic ones find a little more in noise, and more that is not there
SIGNIFICANT = 5.0  # standard deviations that a jump of the derivative must exceed
MEDIAN = 0.6745  # median of the absolute value of a standard normal number
EXACT = 1e-14  # of the sum of squares: what a piece costs at least, however smooth the points are
NEAR = 2  # how many points beyond its own step the place of a crease is looked for
SAMPLES = 512


def creased_knots(
    where: str, creases: Any, points: torch.Tensor, u: torch.Tensor, count: int, degree: int, wraps: bool, given: bool
) -> torch.Tensor:
    """Return clamped knots on [0, 1] with a knot of multiplicity P at each crease, and the others spread evenly.

    Args:
        where: the public function, for messages.
        creases: ``"auto"``, or parameters inside of (0, 1), increasing.
        points: `(N, D)` float64.
        u: their parameters, `(N,)`.
        count: K.
        degree: P.
        wraps: whether the curve is periodic.
        given: whether there are knots already.

    Raises:
        ValueError: creases where they cannot be, or too few control points for them.
    """
    if wraps or given or degree < 1:
        what = "where periodic" if wraps else "where knots are given" if given else "at degree 0"
        raise fail(where, "creases", f"left out {what}", repr(creases), "Repeat P times the knots that are corners.")
    if isinstance(creases, str):
        if creases != "auto":
            raise fail(where, "creases", "'auto' or a tensor of parameters", repr(creases))
        if not bool((u[1:] > u[:-1]).all()):
            raise fail(where, "parameters", "increasing to find creases", "others", "Sort the points by them.")
        places = find_creases(points.detach().numpy(), u.detach().numpy())
    else:
        tensor = promote(where, creases=creases)["creases"].detach().to("cpu", torch.float64)
        places = floating(where, "creases", tensor, ("J",)).tolist()
        if any(b <= a for a, b in itertools.pairwise((0.0, *places, 1.0))):
            raise fail(where, "creases", "increasing and inside of (0, 1)", str([round(x, 6) for x in places]))
    least = (degree + 1) + degree * len(places)
    if count < least:
        expected = f"at least {least} for {len(places)} creases of degree {degree}"
        raise fail(where, "control_count", expected, str(count), "Add control points, or name fewer creases.")
    ends = np.array([0.0, *places, 1.0])
    inner: list[float] = []
    for i, extra in enumerate(_spread(count - least, np.diff(ends))):
        inner += np.linspace(ends[i], ends[i + 1], extra + 2)[1:-1].tolist()
        inner += [float(ends[i + 1])] * (degree if i < len(places) else 0)
    return torch.tensor([0.0] * (degree + 1) + inner + [1.0] * (degree + 1), dtype=torch.float64)


def find_creases(points: np.ndarray, u: np.ndarray) -> list[float]:
    """Return the parameters of corners, in order; none of fewer than 16 points.

    The best piecewise polynomial of a price per piece, which is that of the Bayesian information criterion for noise as
    large as the differences of the points say, has a cut at each; a cut counts where the derivative jumps by more than
    a turn of 20° or, of one coordinate, a change of slope as large, and by more than noise makes it, and where one
    polynomial from the middle of the piece before to the middle of the piece after is worse by two prices: pieces of a
    smooth curve could be cut anywhere.
    """
    degree, n = SEARCH, len(points)
    least = 2 * (degree + 1)
    if n < 2 * least:
        return []
    order = degree + 1
    spread = np.abs(np.diff(points, order, axis=0))
    variance = np.square(np.median(spread, axis=0) / MEDIAN) / math.comb(2 * order, order)
    price = float(variance.sum()) * (degree + 2) * math.log(n)
    price += EXACT * float(np.square(points - points.mean(0)).sum())
    if price == 0:
        return []
    fit = fit_pieces(torch.from_numpy(points), degree=degree, penalty=price, parameters=u, min_length=least)
    ends = [0, *fit.cuts.tolist(), n]
    typical = float(np.median(np.linalg.norm(np.gradient(fit.values.numpy(), u, axis=0), axis=-1)))
    squares = np.square(points - fit.values.numpy()).sum(-1)
    creases = []
    for i, cut in enumerate(ends[1:-1]):
        place = _meeting(fit, i, u[max(cut - 1 - NEAR, 0)], u[min(cut + NEAR, n - 1)])
        slopes, noise = [], 0.0
        for piece in (i, i + 1):
            slope, doubt = _slope(fit, piece, place, u[ends[piece] : ends[piece + 1]])
            slopes.append(slope)
            noise += doubt * float(variance.sum())
        jump = float(np.linalg.norm(slopes[1] - slopes[0]))
        speed = max(sum(float(np.linalg.norm(s)) for s in slopes) / 2, typical)
        turns = jump > 2 * math.sin(TURN / 2) * speed and jump > SIGNIFICANT * math.sqrt(noise)
        window = slice((ends[i] + cut) // 2, (cut + ends[i + 2]) // 2)
        if turns and _sse(points[window], u[window], degree) - float(squares[window].sum()) > 2 * price:
            creases.append(place)
    bounds = [*creases, 1.0]
    return [a for a, b in zip(creases, bounds[1:], strict=True) if 0 < a < b]


def _basis(u: np.ndarray, low: float, high: float, degree: int) -> np.ndarray:
    return np.polynomial.legendre.legvander((2 * u - low - high) / (high - low), degree)


def _sse(points: np.ndarray, u: np.ndarray, degree: int) -> float:
    """The sum of squares of one polynomial."""
    centred = points - points.mean(0)
    q = np.linalg.qr(_basis(u, u[0], u[-1], degree))[0]
    return float(np.square(centred - q @ (q.T @ centred)).sum())


def _meeting(fit: PieceFit, i: int, low: float, high: float) -> float:
    """Where pieces i and i + 1, extended, are nearest to each other."""
    u = np.linspace(low, high, SAMPLES)
    sides = []
    for piece in (i, i + 1):
        c, ends = fit.coefficients[piece].numpy(), fit.breaks[piece : piece + 2].tolist()
        sides.append(_basis(u, ends[0], ends[1], len(c) - 1) @ c)
    return float(u[np.square(sides[1] - sides[0]).sum(-1).argmin()])


def _slope(fit: PieceFit, piece: int, place: float, own: np.ndarray) -> tuple[np.ndarray, float]:
    """The derivative of a piece, and its variance where that of each coordinate is 1."""
    c = fit.coefficients[piece].numpy()
    low, high = fit.breaks[piece : piece + 2].tolist()
    degree, s = len(c) - 1, (2 * place - low - high) / (high - low)
    rise = np.array(
        [np.polynomial.legendre.legval(s, np.polynomial.legendre.legder(row)) for row in np.eye(degree + 1)]
    )
    rise *= 2 / (high - low)
    inverse = np.linalg.inv(np.linalg.qr(_basis(own, low, high, degree))[1])
    return rise @ c, float(np.square(rise @ inverse).sum())


def _spread(count: int, lengths: np.ndarray) -> Sequence[int]:
    """Divide a number of knots among stretches, so that the longest span is as short as can be."""
    shares = [0] * len(lengths)
    for _ in range(count):
        shares[int(np.argmax(lengths / (np.array(shares) + 1)))] += 1
    return shares
