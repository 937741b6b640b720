# SPDX-License-Identifier: Apache-2.0
"""How sure it is that a fitted surface is where the true one is: a calibrated probability, and within what distance."""

from typing import NamedTuple

import numpy as np
import torch
from scipy.spatial import cKDTree

from geodiff.atlas.domain import local_spacing, spacing_about
from geodiff.atlas.lines import neighbours
from geodiff.atlas.nearest import along_curve
from geodiff.validation import shapes_repr

WITHIN = 2.0  # σ of the tolerance
_FLOOR = 0.05  # least σ, in spacings: without noise nothing is known between the points but that surfaces are smooth
_NEIGHBOURS = 32
_BESIDE = 8  # neighbours by which the surface's turn is measured, and whose median residual counts
_ALIKE = 0.5  # cosine of normals from which on a neighbour is of the same sheet
_FITTED = 1.15  # σ over the residuals of charts that were fitted to it
_MIDDLE = 0.35  # of the residuals' standard deviation: within it are 27 % of normal and 20 % of uniform ones
_TWO = 0.155  # share of residuals within it, below which they are of two sheets: 3.2 σ apart
_FLAT_TOPPED = 2.3  # kurtosis that two sheets stay below
# The constant, and the weights of what `evidence` returns, in log odds. Found by logistic regression on simulated
# scans, and tested on others: `python tests/benchmarks/atlas_confidence.py`, which also draws the reliability plot.
ODDS = (6.53, -0.65, -1.74, -0.63, -0.53, -0.26)


class Confidence(NamedTuple):
    """How far a fitted surface can be relied on at each point of the cloud.

    Attributes:
        probability: (N,) in [0, 1], that the true surface is within `tolerance`; 0 for points in no chart.
        tolerance: (N,), two standard deviations of the noise there, world units; 0 for points in no chart.
    """

    def __repr__(self) -> str:
        return shapes_repr(self)

    probability: torch.Tensor
    tolerance: torch.Tensor


class Evidence(NamedTuple):
    """What the probability is computed from, at P points that are in charts.

    Attributes:
        sigma: (P,), standard deviation of the noise there, at least a twentieth of the spacing.
        terms: (P, 5): logarithms of one plus the square of the point's distance from the surface, of the root mean
            square of its 32 neighbours' (at most 2), of the median of the nearest 8, and of how far the surface turns
            from one point to the next, all in σ; and, where the residuals are those of two sheets with the surface
            between them, how much more than 2 σ they are away.
    """

    def __repr__(self) -> str:
        return shapes_repr(self)

    sigma: np.ndarray
    terms: np.ndarray


def confidence(
    points: torch.Tensor,
    fitted: torch.Tensor,
    normals: torch.Tensor,
    covered: torch.Tensor,
    noise: torch.Tensor,
    anchor: np.ndarray | None = None,
) -> Confidence:
    """Judge a fitted surface at each point: the probability that the true one is within two σ of it.

    σ is the noise about the point, but not more than the residuals show: two sheets that the estimate took for noise
    are told by residuals with a gap in the middle. It is at least a twentieth of the spacing of the points, which is
    how well a scan without noise can say where the surface is between them. Of a cloud of lines, the spacing and how
    far the surface turns are those from line to line: along a line neither is seen.

    Args:
        points: (N, 3).
        fitted: (N, 3), where the surface has them.
        normals: (N, 3), of the surface there, of either side.
        covered: (N,) bool, points in a chart.
        noise: (N,) ≥ 0, estimated standard deviations about the points.
        anchor: (N,) bool, of a cloud of lines, the points that are left if these are thinned: `ScanLines.anchor`.

    Gradients: none.
    """
    good = covered.nonzero()[:, 0].cpu()
    probability = torch.zeros(len(points), dtype=torch.float64)
    tolerance = torch.zeros(len(points), dtype=torch.float64)
    if len(good):
        # Neighbours are looked up faster where they are near in memory.
        good = good[torch.from_numpy(along_curve(fitted.detach().cpu()[good].double().numpy()))]
        x, f, n, sigma = (value.detach().cpu()[good].double().numpy() for value in (points, fitted, normals, noise))
        left = None if anchor is None else anchor[good.numpy()]
        found = evidence(x, f, n, sigma, left if left is not None and left.sum() > _BESIDE else None)
        odds = ODDS[0] + found.terms @ np.array(ODDS[1:])
        probability[good] = torch.from_numpy(odds).sigmoid()
        tolerance[good] = torch.from_numpy(WITHIN * found.sigma)
    return Confidence(probability.to(points), tolerance.to(points))


def evidence(
    x: np.ndarray, fitted: np.ndarray, normals: np.ndarray, noise: np.ndarray, anchor: np.ndarray | None = None
) -> Evidence:
    """Return what tells of the surface at each of P points, P ≥ 1; arguments as in `confidence`, all in charts."""
    far, near = cKDTree(fitted).query(fitted, k=range(1, min(_NEIGHBOURS, len(x)) + 1), workers=-1)
    if anchor is None:
        spacing, across = spacing_about(far, near), near[:, 1 : 1 + _BESIDE]
    else:
        left = fitted[anchor]
        spacing = local_spacing(left, np.arange(len(left)), len(left))
        spacing, across = spacing[cKDTree(left).query(fitted)[1]], neighbours(fitted, _BESIDE, anchor)[1]
    del far  # a million points have enough in memory
    off = x - fitted
    height = (off * normals).sum(1)
    square, fourth, middle, turn, beside = np.empty((5, len(x)))
    parts = np.array_split(np.arange(len(x)), -(-len(x) // (1 << 15)))
    for rows in parts:
        cosine = np.einsum("pkd,pd->pk", normals[near[rows]], normals[rows])
        turned = np.einsum("pkd,pd->pk", normals[across[rows]], normals[rows])
        turn[rows] = np.sqrt(np.clip(1 - turned**2, 0, 1)).mean(1) if across.shape[1] else 0
        same = np.abs(cosine) > _ALIKE
        same[:, 0] = True
        moments = np.where(same, height[near[rows]], 0) ** 2
        beside[rows] = np.median(np.abs(height[near[rows, : 1 + _BESIDE]]), axis=1)
        count = same.sum(1)
        square[rows], fourth[rows] = moments.sum(1) / count, (moments**2).sum(1) / count
    # A few points have no distribution: what follows is of neighbours of neighbours, and of theirs.
    spread, fourth = _around(square, near), _around(fourth, near)
    kurtosis = _around(fourth, near) / np.maximum(_around(spread, near) ** 2, 1e-300)
    for rows in parts:
        middle[rows] = (height[near[rows]] ** 2 < _MIDDLE**2 * spread[rows, None]).mean(1)
    middle = _around(_around(middle, near), near)
    two = (middle < _TWO) & (kurtosis < _FLAT_TOPPED) & (spread > 0)
    share = np.sqrt(np.clip((3 - kurtosis) / 2, 0, 1))  # sheets at ±a have kurtosis 3 − 2 (a²/(a² + σ²))²
    rms = np.sqrt(square)
    sigma = np.minimum(noise, _FITTED * rms)
    sigma = np.where(two, np.minimum(sigma, rms * np.sqrt(1 - share)), sigma)
    sigma = np.maximum(np.maximum(sigma, _FLOOR * spacing), 1e-300)
    away = np.where(two, np.clip(rms * np.sqrt(share) / sigma - WITHIN, -1.5, 3), 0)
    ratios = np.stack([np.linalg.norm(off, axis=1), rms, beside, turn * spacing], 1) / sigma[:, None]
    ratios[:, 1] = np.minimum(ratios[:, 1], WITHIN)  # more may be of a few outliers
    return Evidence(sigma, np.column_stack([np.log1p(np.minimum(ratios, 1e100) ** 2), away]))


def _around(values: np.ndarray, near: np.ndarray) -> np.ndarray:
    """Means (P,) of values (P,) over neighbours (P, k)."""
    return np.concatenate([values[some].mean(1) for some in np.array_split(near, -(-len(near) // (1 << 15)))])
