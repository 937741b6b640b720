# SPDX-License-Identifier: Apache-2.0
"""How far the points of a cloud lie from their surface."""

from typing import TYPE_CHECKING

import torch
from scipy.stats import chi2

from geodiff.atlas.charts import Placement
from geodiff.atlas.ragged import Ragged

if TYPE_CHECKING:
    from geodiff.atlas.cover import Cover

COEFFICIENTS = 6  # of a quadric height function
SITES = 20_000
QUANTILE = 0.25


def estimate_noise(patches: "Cover", neighbours: int = 24) -> float:
    """Estimate the standard deviation σ of the points across the surface, from residuals of local quadrics.

    At up to 20 000 places, a quadric height function over the plane of `neighbours` points of a patch is fitted to them
    by least squares: those nearest along the patch's plane, since the nearest in space would be near in height too.
    σ² is the lower quartile of the sums of squares left, over that of a χ² variable. Edges and folds, which quadrics
    do not fit, lie above it as long as most of the surface is smooth. Since patches are of one sheet, the distance of
    two sheets does not count as noise.

    Args:
        patches: of the cloud.
        neighbours: how many points are fitted at once; patches with fewer points are left out.

    Returns:
        σ in the unit of the points; 0 where no patch has enough points.
    """
    layout = Ragged(patches.chart, len(patches))
    members = patches.points[patches.point]
    flat = Placement.of(members, patches.chart, len(patches)).into(members, patches.chart)[:, :2]
    sites = int(patches.inside.sum())
    stride = max(1, sites // SITES)
    sums = []
    for block in layout.blocks:
        if block.slots.shape[1] < neighbours:
            continue
        sizes = block.mask.sum(1)
        for g in torch.nonzero(sizes >= neighbours).flatten().split(256):
            x = patches.points[patches.point[block.slots[g]]].double()
            plane = flat[block.slots[g]]
            far = torch.cdist(plane, plane).masked_fill(~block.mask[g][:, None], torch.inf)
            near = far.topk(neighbours, largest=False)[1]
            well = (patches.inside[block.slots[g]] & block.mask[g]).nonzero()[::stride]
            if len(well):
                own = torch.arange(len(g))[:, None, None].expand_as(near)[well[:, 0], well[:, 1]]
                sums.append(_residuals(x[own, near[well[:, 0], well[:, 1]]]))
    if not sums:
        return 0.0
    free = neighbours - COEFFICIENTS
    return float((torch.cat(sums).quantile(QUANTILE) / float(chi2.ppf(QUANTILE, free))).sqrt())


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
