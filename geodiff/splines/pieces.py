# SPDX-License-Identifier: Apache-2.0
"""Piecewise polynomials that may jump: the best partition of a sequence, and the fit on each piece."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from geodiff.modes import outside_autocast, refuse_torch_func
from geodiff.splines import pieces_search as search
from geodiff.splines.curve import NURBSCurve
from geodiff.validation import check_finite, fail, integer, number, promote, shapes_repr

MAX_DEGREE = 9  # powers of a parameter are told apart up to here
SLACK = 1e-20  # of the sum of squares: below it costs are rounding


@dataclass(frozen=True, eq=False)
class PieceFit:
    """What `fit_pieces` returns; of a batch, items with fewer pieces than another have empty ones at the end.

    Attributes:
        values: h, of the shape of the points.
        cuts: `(..., k − 1)` int64, the index of the first point of each piece but the first; N where there is none.
        count: `(...)` int64, how many pieces.
        sse: `(...)`, `Σ_i ω_i |x_i − h_i|²`.
        breaks: `(..., k + 1)`, the parameters where pieces begin and end: halfway between points.
        coefficients: `(..., k, d + 1, C)` of the Legendre polynomials on each piece, whose ends are −1 and 1.
    """

    __repr__ = shapes_repr

    values: torch.Tensor
    cuts: torch.Tensor
    count: torch.Tensor
    sse: torch.Tensor
    breaks: torch.Tensor
    coefficients: torch.Tensor

    @outside_autocast
    def curve(self, i: int) -> NURBSCurve:
        """Return piece i as a curve over its own part of the parameters, with gradient; of a single sequence only.

        Raises:
            ValueError: a batch, or no such piece.
        """
        if self.coefficients.dim() != 3:
            raise fail("PieceFit.curve", "fit", "of one sequence", f"a batch {tuple(self.count.shape)}", "Fit one.")
        i = integer("PieceFit.curve", "i", i, 0, int(self.count) - 1)
        degree = self.coefficients.shape[1] - 1
        control = _bernstein(degree).to(self.coefficients) @ self.coefficients[i]
        knots = self.breaks[i : i + 2].repeat_interleave(degree + 1)
        return NURBSCurve(control, knots, degree=degree)


@outside_autocast
def fit_pieces(
    x: Any,
    pieces: int | None = None,
    degree: int = 0,
    *,
    penalty: float | None = None,
    weights: Any = None,
    parameters: Any = None,
    min_length: int | None = None,
) -> PieceFit:
    """Fit a piecewise polynomial with free cuts to a sequence: the best of all partitions into intervals.

    Minimises `Σ_i ω_i |x_i − h_i|²` over all h that are a polynomial of degree d on each of k intervals, with no
    continuity between them, by dynamic programming, exactly (Cho et al., "Differentiable Spline Approximations", 2021,
    section 2.1). For `penalty` λ instead of k: that plus λ k, over all k.

    Args:
        x: `(N,)` numbers, or `(..., N, C)`: C values a point share one partition; leading axes are a batch, each with
            its own.
        pieces: k; or None, with a penalty.
        degree: d, from 0 to 9.
        penalty: λ > 0, what a piece costs, in units of x²; or None.
        weights: ω > 0, `(..., N)`.
        parameters: of the points, `(N,)`, increasing; left out, equal steps (0, 1, 2, …).
        min_length: points that a piece has at least; left out, d + 1, of which one piece is exact.

    Returns:
        the fit: `.values`, `.cuts`, `.sse`, `.curve(i)` and more. Of equal cuts, the lowest, up to rounding.

    Gradients: of values, sse and coefficients in x. The partition is piecewise constant in x, so the Jacobian of the
        values is, almost everywhere, block diagonal: `V (Vᵀ Ω V)⁻¹ Vᵀ Ω`, the projection on the polynomials of each
        piece; a vector takes O(N d). None of the cuts, nor in weights and parameters.

    Time grows with N² k, at most (N = 10⁴, k = 20, d = 3: about 1 s, up to twice that with weights or
    parameters); with a penalty, with N where pieces stay short. Computed on the CPU in float64.

    Raises:
        TypeError: arguments of a wrong class or dtype.
        ValueError: neither or both of `pieces` and `penalty`, more pieces than points suffice for, wrong shapes, NaN.

    Example:
        >>> import torch
        >>> fit = fit_pieces(torch.tensor([0.0, 0.2, -0.2, 5.0, 5.1, 4.9]), pieces=2)
        >>> fit.cuts
        tensor([3])
        >>> fit.values
        tensor([0., 0., 0., 5., 5., 5.])
    """
    where = "fit_pieces"
    refuse_torch_func(where, x)
    data = promote(where, x=x)["x"]
    if data.dim() == 0 or data.shape[-1 if data.dim() == 1 else -2] < 2 or data.numel() == 0:
        raise fail(where, "x", "of shape (N,) or (..., N, C) with N >= 2", data)
    own = (data[:, None] if data.dim() == 1 else data).to("cpu", torch.float64)
    batch, (n, channels) = own.shape[:-2], own.shape[-2:]
    degree = integer(where, "degree", degree, 0, MAX_DEGREE)
    least = degree + 1 if min_length is None else integer(where, "min_length", min_length, degree + 1)
    if (pieces is None) == (penalty is None):
        got = "neither" if pieces is None else "both"
        raise fail(where, "pieces", "given, or `penalty`, but not both", got)
    if pieces is not None and integer(where, "pieces", pieces, 1) * least > n:
        fix = f"At most {n // least} pieces have {least} points each; lower `degree` or `min_length`."
        raise fail(where, "pieces", f"at most N / {least} for N = {n} points", str(pieces), fix)
    if penalty is not None and number(where, "penalty", penalty, 0, np.inf) == 0:
        raise fail(where, "penalty", "more than 0", str(penalty), "Give `pieces` for a fixed number.")
    if n < least:
        raise fail(where, "x", f"at least {least} points for degree {degree}", str(n))
    at = _parameters(where, parameters, n)
    omega = _weights(where, weights, (*batch, n))
    flat = own.reshape(-1, n, channels)
    plain = flat.detach().numpy()
    rows = None if omega is None else omega.reshape(-1, n)
    cuts = []
    for item in range(len(plain)):
        row = None if rows is None else rows[item]
        cuts.append(_cuts(plain[item], degree, at, row, pieces, penalty, least))
    places = np.arange(n, dtype=np.float64) if at is None else at
    fit = _Projection(cuts, places, rows, degree)
    coefficients, values = fit(flat)
    squares = (flat - values).square().sum(-1)
    sse = (squares if rows is None else squares * torch.from_numpy(rows)).sum(-1)

    def back(y: torch.Tensor, *shape: int) -> torch.Tensor:
        y = y.reshape((*batch, *shape))
        return y.to(data.device, data.dtype if y.is_floating_point() else y.dtype)

    most = fit.most
    return PieceFit(
        back(values, n, channels).reshape(data.shape),
        back(torch.from_numpy(fit.cuts), most - 1),
        back(torch.tensor([len(c) + 1 for c in cuts])),
        back(sse),
        back(torch.from_numpy(fit.breaks), most + 1),
        back(coefficients, most, degree + 1, channels),
    )


def _parameters(where: str, given: Any, n: int) -> np.ndarray | None:
    if given is None:
        return None
    u = promote(where, parameters=given)["parameters"].detach().to("cpu", torch.float64)
    if u.shape != (n,):
        raise fail(where, "parameters", f"of shape ({n},)", u)
    if not bool((u[1:] > u[:-1]).all()):
        at = int((u[1:] <= u[:-1]).nonzero()[0])
        got = f"{float(u[at]):g} before {float(u[at + 1]):g} at index {at}"
        raise fail(where, "parameters", "increasing", got, "Sort the points by them, and merge equal ones.")
    check_finite(where, "parameters", u)
    return u.numpy().copy()


def _weights(where: str, given: Any, shape: tuple[int, ...]) -> np.ndarray | None:
    if given is None:
        return None
    omega = promote(where, weights=given)["weights"].detach().to("cpu", torch.float64)
    if omega.dim() == 0 or omega.shape[-1] != shape[-1] or omega.dim() > len(shape):
        raise fail(where, "weights", f"of shape {shape}", omega)
    if any(a not in (1, b) for a, b in zip(omega.shape[::-1], shape[::-1], strict=False)):
        raise fail(where, "weights", f"of shape {shape}", omega)
    if not bool((omega > 0).all()):
        raise fail(where, "weights", "positive", f"{float(omega.min()):g}", "Leave out points that count for nothing.")
    return omega.expand(shape).contiguous().numpy().copy()


def _cuts(
    x: np.ndarray,
    degree: int,
    at: np.ndarray | None,
    weights: np.ndarray | None,
    pieces: int | None,
    penalty: float | None,
    least: int,
) -> np.ndarray:
    n = len(x)
    costs: search.Costs
    if at is None and weights is None:
        costs = search.Costs(x, degree)
    else:
        given = np.ones(n) if weights is None else weights
        costs = search.WeightedCosts(x, degree, np.arange(n, dtype=np.float64) if at is None else at, given)
    if penalty is not None:
        return search.best_of_price(costs, n, float(penalty), least)
    assert pieces is not None
    cuts = search.equal_cuts(n, pieces)
    roots = np.ones((n, 1)) if weights is None else np.sqrt(weights)[:, None]
    centred = (x - x.mean(0)) * roots
    bound = SLACK * float(np.square(centred).sum())
    for part in np.split(np.arange(n), cuts):
        u = np.linspace(-1, 1, len(part)) if at is None else _to_unit(at[part], at[part[0]], at[part[-1]])
        basis = np.linalg.qr(np.polynomial.legendre.legvander(u, degree) * roots[part])[0]
        bound += float(np.square(centred[part] - basis @ (basis.T @ centred[part])).sum())
    return search.best_of_count(costs, n, pieces, least, bound * (1 + 1e-9))


def _to_unit(u: np.ndarray, low: float, high: float) -> np.ndarray:
    return (2 * u - low - high) / (high - low) if high > low else 0 * u


class _Projection:
    """Polynomials on given pieces: coefficients are `Σ_i A_i x_i` over a piece, values `V_i · coefficients`."""

    def __init__(self, cuts: list[np.ndarray], at: np.ndarray, weights: np.ndarray | None, degree: int) -> None:
        n, items = len(at), len(cuts)
        self.most = max(len(c) for c in cuts) + 1
        self.cuts = np.full((items, self.most - 1), n)
        self.breaks = np.full((items, self.most + 1), at[-1])
        self.forward = np.empty((items, n, degree + 1))
        self.basis = np.empty((items, n, degree + 1))
        piece = np.empty((items, n), dtype=np.int64)
        for item, own in enumerate(cuts):
            self.cuts[item, : len(own)] = own
            self.breaks[item, 0] = at[0]
            self.breaks[item, 1 : len(own) + 1] = (at[own - 1] + at[own]) / 2
            for i, part in enumerate(np.split(np.arange(n), own)):
                low, high = self.breaks[item, i : i + 2]
                v = np.polynomial.legendre.legvander(_to_unit(at[part], low, high), degree)
                roots = np.ones((len(part), 1)) if weights is None else np.sqrt(weights[item, part])[:, None]
                q, r = np.linalg.qr(v * roots)
                self.basis[item, part] = v
                self.forward[item, part] = np.linalg.solve(r, q.T).T * roots
                piece[item, part] = item * self.most + i
        self.piece = torch.from_numpy(piece.reshape(-1))

    def __call__(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        items, n, channels = x.shape
        degree = self.basis.shape[-1]
        parts = torch.from_numpy(self.forward)[..., None] * x[:, :, None]
        empty = parts.new_zeros(items * self.most, degree, channels)
        coefficients = empty.index_add(0, self.piece, parts.reshape(items * n, degree, channels))
        each = coefficients.index_select(0, self.piece).reshape(items, n, degree, channels)
        return coefficients, (torch.from_numpy(self.basis)[..., None] * each).sum(2)


def _bernstein(degree: int) -> torch.Tensor:
    """Return the matrix from Legendre coefficients on [−1, 1] to Bézier control points."""
    nodes = np.cos(np.pi * (np.arange(degree + 1) + 0.5) / (degree + 1))
    legendre = np.polynomial.legendre.legvander(nodes, degree)
    u = (nodes[:, None] + 1) / 2
    j = np.arange(degree + 1)
    choose = np.cumprod(np.r_[1.0, (degree - j[:-1]) / (j[:-1] + 1)])
    return torch.from_numpy(np.linalg.solve(choose * u**j * (1 - u) ** (degree - j), legendre))
