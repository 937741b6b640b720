# SPDX-License-Identifier: Apache-2.0
"""The best partition of a sequence into pieces, by dynamic programming over where pieces start.

Exact: the cost of least squares has no quadrangle inequality, so divide and conquer would not be (0, 10, 0 is a
counterexample: w(0, 2) + w(1, 3) = 100, w(0, 3) + w(1, 2) = 66.7).
"""

import math

import numpy as np
import torch

from geodiff.ops import _op

SPACE = 32  # how often the starts that cannot win any more are taken out


class Costs:
    """Sums of squared residuals of all pieces that end at one point, from all starts in hand, point after point.

    Each start keeps the fit of its own piece and takes in the next point, so a residual is never the difference of
    large sums. This one is for points in equal steps that weigh the same: a fit is its value and backward differences
    z at its last point. The next point is predicted by z_r ← z_r + z_{r+1} and, e away from that, moves z_r by γ_r e
    and adds (1 − γ_0) e² to the cost; γ depends on nothing but the number of points.
    """

    def __init__(self, x: np.ndarray, degree: int) -> None:
        n, channels = x.shape
        self.x = np.ascontiguousarray((x - x.mean(0)).T)
        self.degree = degree
        self.first, self.last = 0, 0  # the starts in hand are columns first : last
        self.starts = np.empty(n, dtype=np.int64)
        self.cost = np.zeros(n)
        self.state = np.zeros((degree + 1, channels, n))
        self.gains = gains(n, degree)[:, ::-1].copy()  # of n, n − 1, … 1 points

    def push(self, m: int, start: bool = True) -> np.ndarray:
        """Take in point m, which starts a piece, too, if so asked; return the cost of each start in hand."""
        if start:
            self.starts[self.last] = m
            self.cost[self.last] = 0
            self._open(self.last, m)
            self.last += 1
        window = slice(self.first, self.last)
        if self.last > self.first:
            self._take(window, m)
        return self.cost[window]

    def drop(self, count: int) -> None:
        """Forget the lowest starts."""
        self.first += count

    def keep(self, mask: np.ndarray) -> None:
        """Forget all starts in hand but those."""
        window, count = slice(self.first, self.last), int(mask.sum())
        into = slice(self.first, self.first + count)
        for array in self._arrays():
            array[..., into] = array[..., window][..., mask]
        self.last = self.first + count

    def _arrays(self) -> tuple[np.ndarray, ...]:
        return self.starts, self.cost, self.state

    def _open(self, column: int, m: int) -> None:
        self.state[..., column] = 0

    def _take(self, window: slice, m: int) -> None:
        starts, state = self.starts[window], self.state[..., window]
        n = self.gains.shape[1]
        if starts[-1] - starts[0] == len(starts) - 1:
            gain = self.gains[:, n - 1 - m + starts[0] : n - m + starts[-1]]
        else:
            gain = self.gains[:, n - 1 - m + starts]
        for r in range(self.degree - 1, -1, -1):
            state[r] += state[r + 1]
        error = self.x[:, m, None] - state[0]
        for r in range(self.degree + 1):
            state[r] += gain[r] * error
        error *= error
        added = error[0] if len(error) == 1 else error.sum(0)
        added *= 1 - gain[0]
        self.cost[window] += added


class WeightedCosts(Costs):
    """The same for points at any parameters and of any weights: each start keeps a triangular factor.

    Its columns are the powers of the parameter from the start on, then the points, less the first one.
    """

    def __init__(self, x: np.ndarray, degree: int, parameters: np.ndarray, weights: np.ndarray) -> None:
        n, channels = x.shape
        self.x = np.ascontiguousarray(x.T)
        self.degree = degree
        self.first, self.last = 0, 0
        self.starts = np.empty(n, dtype=np.int64)
        self.cost = np.zeros(n)
        self.state = np.zeros((degree + 1, degree + 1 + channels, n))
        self.at = (parameters - parameters[0]) * ((n - 1) / (parameters[-1] - parameters[0]))
        # Of weights of any size, products with squares are neither 0 nor infinite.
        self.unit = float(weights.max())
        self.weights = weights / self.unit
        given = (self.state, self.cost, self.starts, self.at, self.x)
        self._tensors = [torch.from_numpy(array) for array in given]

    def _take(self, window: slice, m: int) -> None:
        state, cost, starts, at, x = self._tensors
        _op.call(
            _op.kernels.pieces_take, state=state, cost=cost, starts=starts, at=at, x=x, first=window.start,
            last=window.stop, point=m, weight=float(self.weights[m]), unit=self.unit,
        )  # fmt: skip


def gains(n: int, degree: int) -> np.ndarray:
    """Return γ `(degree + 1, n)`: what a deviation of 1 of the last of 1, 2, … n equal steps adds to the differences.

    γ_r = Σ_q p_q(0) ∇^r p_q(0) / |p_q|² over the discrete Legendre (Gram) polynomials, 1 at the last point.
    """
    count = np.arange(1.0, n + 1)
    result = np.zeros((degree + 1, n))
    for q in range(degree + 1):
        share = np.full(n, 2.0 * q + 1)  # of one over the squared norm
        for i in range(q):
            share = share * np.maximum(count - 1 - i, 0) / (count + i)
        share = share / (count + q)
        slope = np.ones(n)
        for r in range(q + 1):
            if r:
                divisor = np.maximum(count - r, 1)
                slope = slope * (q - r + 1) * (q + r) / r / divisor
            result[r] += share * slope
    return result


def best_of_count(costs: Costs, n: int, pieces: int, least: int, bound: float) -> np.ndarray:
    """Return the starts of the 2nd, 3rd, … of `pieces` pieces of at least so many points; lowest ones where equal.

    O(n² pieces). `bound` is the cost of some partition, and a little for rounding: a piece that costs more is in no
    best one, and neither is a longer one.
    """
    if pieces == 1:
        return np.empty(0, dtype=np.int64)
    best = np.full((pieces + 1, n + 1), np.inf)
    origin = np.zeros((pieces + 1, n + 1), dtype=np.int64)
    sums = np.empty((pieces - 1) * n)
    for m in range(1, n + 1):
        cost = costs.push(m - 1)
        low, width = costs.first, min(m - least + 1, costs.last) - costs.first
        if width > 0:
            if low == 0:
                best[1, m] = cost[0]
            rows = slice(1, min(m // least, pieces - 1)) if m < n else slice(pieces - 1, pieces)
            many = rows.stop - rows.start
            if many > 0:
                total = sums[: many * width].reshape(many, width)
                np.add(best[rows, low : low + width], cost[:width], out=total)
                start = total.argmin(1)
                best[rows.start + 1 : rows.stop + 1, m] = total[np.arange(many), start]
                origin[rows.start + 1 : rows.stop + 1, m] = start + low
        if m % SPACE == 0 and cost[0] > bound:
            costs.drop(int((cost > bound).sum()))
    cuts, end = [], n
    for j in range(pieces, 1, -1):
        end = int(origin[j, end])
        cuts.append(end)
    return np.array(cuts[::-1], dtype=np.int64)


def best_of_price(costs: Costs, n: int, price: float, least: int) -> np.ndarray:
    """Return the starts of all pieces but the first where a piece costs `price`, by pruned search.

    A start that loses by the price against a cut at m loses against it at every later end, too (PELT; Killick,
    Fearnhead and Eckley, JASA 107, 2012), as soon as that last piece is long enough. O(n) where pieces stay short.
    """
    best = np.full(n + 1, np.inf)
    best[0] = 0.0
    origin = np.zeros(n + 1, dtype=np.int64)
    until = np.full(n + 1, n + 1)  # the end from which on a start is out
    for m in range(1, n + 1):
        cost = costs.push(m - 1, bool(np.isfinite(best[m - 1])))
        starts = costs.starts[costs.first : costs.last]
        width = int(np.searchsorted(starts, m - least, side="right"))
        if width > 0:
            starts = starts[:width]
            total = best[starts] + cost[:width]
            at = int(total.argmin())
            best[m], origin[m] = total[at] + price, starts[at]
            losing = starts[total > best[m]]
            until[losing] = np.minimum(until[losing], m + least)
        if m % SPACE == 0:
            mask = until[costs.starts[costs.first : costs.last]] > m
            if not mask.all():
                costs.keep(mask)
    cuts, end = [], n
    while origin[end] > 0:
        end = int(origin[end])
        cuts.append(end)
    return np.array(cuts[::-1], dtype=np.int64)


def equal_cuts(n: int, pieces: int) -> np.ndarray:
    """Return the starts of pieces of the same length, as near as can be."""
    return np.array([math.ceil(n * i / pieces) for i in range(1, pieces)], dtype=np.int64)
