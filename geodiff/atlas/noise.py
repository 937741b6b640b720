# SPDX-License-Identifier: Apache-2.0
"""How far the points of a cloud lie from their surface."""

import torch
from scipy.spatial import cKDTree
from scipy.stats import chi2

COEFFICIENTS = 6  # of a quadric height function
SITES = 20_000
QUANTILE = 0.25


def estimate_noise(points: torch.Tensor, neighbours: int = 24) -> float:
    """Estimate the standard deviation σ of the points across the surface, from residuals of local quadrics.

    At up to 20 000 places, a quadric height function over the plane of the nearest `neighbours` points is fitted to
    them by least squares. σ² is the lower quartile of the sums of squares left, over that of a χ² variable. Edges and
    folds, which quadrics do not fit, lie above it as long as most of the surface is smooth.

    Args:
        points: (N, 3) without outliers.
        neighbours: how many points are fitted at once.

    Returns:
        σ in the unit of the points; 0 for fewer than 7 points.
    """
    x = points.detach().double()
    count = min(neighbours, len(x))
    free = count - COEFFICIENTS
    if free < 1:
        return 0.0
    tree = cKDTree(x.numpy())
    near = tree.query(tree.data[:: max(1, len(x) // SITES)], k=count, workers=-1)[1]
    sums = torch.cat([_residuals(x[part]) for part in torch.from_numpy(near).split(4096)])
    return float((sums.quantile(QUANTILE) / float(chi2.ppf(QUANTILE, free))).sqrt())


def _residuals(around: torch.Tensor) -> torch.Tensor:
    """Sums of squares (B,) that quadrics leave of neighbourhoods (B, K, 3)."""
    offset = around - around.mean(1, keepdim=True)
    scale = offset.norm(dim=2).amax(1).clamp(min=1e-300)[:, None, None]
    offset = offset / scale
    axes = torch.linalg.eigh(offset.mT @ offset)[1]
    height, u, v = (offset @ axes).unbind(2)
    terms = torch.stack([torch.ones_like(u), u, v, u * u, u * v, v * v], 2)
    basis = torch.linalg.qr(terms)[0]
    rest = height - (basis @ (basis.mT @ height[:, :, None]))[:, :, 0]
    return (rest * scale[:, :, 0]).square().sum(1)
