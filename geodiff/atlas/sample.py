# SPDX-License-Identifier: Apache-2.0
"""Many points of an atlas, uniform in area, with normals."""

from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F

from geodiff.atlas import consensus
from geodiff.atlas.members import Members, step
from geodiff.validation import fail, integer, seed_number, shapes_repr

_MOST = 5  # charts asked about a place, the deepest first
_NEGLIGIBLE = 0.05  # share of the say below which a chart is not asked


class Samples(NamedTuple):
    """Points of an atlas.

    Attributes:
        points: (S, 3).
        normals: (S, 3), unit, outwards.
        confidence: (S,) in [0, 1], between those of the nearest points of the cloud.
        chart: (S,) int64, sorted: the chart that owns the place.
        uv: (S, 2), its place in that chart's square.
    """

    def __repr__(self) -> str:
        return shapes_repr(self)

    points: torch.Tensor
    normals: torch.Tensor
    confidence: torch.Tensor
    chart: torch.Tensor
    uv: torch.Tensor


def sample(atlas: Members, count: int, *, seed: int = 0, blend: bool = True) -> Samples:
    """Draw points of the trimmed atlas, uniform in area.

    A place belongs to the chart that owns the nearest point of the cloud, which is the one in which that point lies
    deepest: overlapping charts give no denser samples. Triangles between members are drawn in proportion to their area
    in space, and places in them uniformly in the square.

    Args:
        atlas: fitted.
        count: S ≥ 1.
        seed: of the draw.
        blend: mix all charts that know the place, by a partition of unity that falls to zero at the edge of charts;
            else the owner alone decides. Mixed points are smoother and nearer to the surface, and take longer. Then
            `atlas(chart, uv)` is not the very same point.

    Raises:
        ValueError: no samples asked for, or an atlas without any triangle.
    """
    count = integer("Atlas.sample", "count", count, 1)
    seed = seed_number("Atlas.sample", seed)
    domain = atlas.domain
    if domain.surface_area <= 0:
        raise fail("Atlas.sample", "atlas", "of positive area", "charts that hold no triangle", "Fit it longer.")
    cell, share = _draw(domain.area, domain.owned, count, seed)
    triangle, corner = cell // 3, cell % 3
    rows = domain.triangles[triangle]
    chart = atlas.chart[rows[:, 0]]
    uv = (share.to(atlas.uv)[..., None] * atlas.uv[rows]).sum(1)
    trust = (share.to(atlas.confidence) * atlas.confidence[atlas.point[rows]]).sum(1)
    nearest = rows.gather(1, corner[:, None])[:, 0]
    points, normals = [], []
    for part in torch.arange(count, device=chart.device).split(step(atlas)):
        own, slope = atlas.charts.flat_jacobian(uv[part], chart[part])
        normal = _normal(slope) * atlas.sign[chart[part], None]
        if blend:
            own, normal = _blend(atlas, own, normal, chart[part], atlas.point[nearest[part]])
        points.append(own)
        normals.append(normal)
    return Samples(torch.cat(points), torch.cat(normals), trust, chart, uv)


def _draw(area: torch.Tensor, owned: torch.Tensor, count: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Draw cells (S,), a third of a triangle about a corner each, sorted, and barycentric coordinates (S, 3) there."""
    random = np.random.default_rng(seed)
    size = (area[:, None] * owned).cpu().double().numpy().reshape(-1)
    edges = np.cumsum(size)
    where = (np.arange(count) + random.random(count)) / count * edges[-1]
    cell = np.minimum(np.searchsorted(edges, where, side="right"), np.flatnonzero(size)[-1])
    a, b = random.random((2, count))
    flip = a + b > 1
    a, b = np.where(flip, 1 - a, a), np.where(flip, 1 - b, b)
    share = np.stack((a, b, 1 - a - b), 1)
    # Places in the corner's third are those where its coordinate is the greatest: move the greatest there.
    largest, corner = share.argmax(1), cell % 3
    rows = np.arange(count)
    share[rows, largest], share[rows, corner] = share[rows, corner], share[rows, largest]
    to = area.device
    return torch.from_numpy(cell).to(to), torch.from_numpy(share).to(to)


def _blend(
    atlas: Members, x: torch.Tensor, normal: torch.Tensor, chart: torch.Tensor, point: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Mix what all charts of the nearest point say about places `x` (S, 3) that chart (S,) has given."""
    charts = atlas.charts
    own = consensus.weights(consensus.depth(x, chart, charts.center, charts.scale)) * atlas.trust[chart]
    # The memberships of the nearest points, S rows of unequal length.
    first, rows = atlas.by_point
    starts, counts = first[point], (first[point + 1] - first[point]).clamp(max=_MOST)
    sample = torch.repeat_interleave(torch.arange(len(x), device=x.device), counts)
    offset = torch.arange(len(sample), device=x.device) - torch.repeat_interleave(counts.cumsum(0) - counts, counts)
    member = rows[torch.repeat_interleave(starts, counts) + offset]
    other = atlas.chart[member]
    some = other != chart[sample]
    sample, member, other = sample[some], member[some], other[some]
    say = consensus.weights(consensus.depth(x[sample], other, charts.center, charts.scale)) * atlas.trust[other]
    keep = say > _NEGLIGIBLE * own[sample]
    sample, member, other, say = sample[keep], member[keep], other[keep], say[keep]
    if len(sample) == 0:
        return x, normal
    # One step of Gauss and Newton from the nearest member, whose place and tangents are known.
    slope = atlas.tangents[member]
    gap = (x[sample] - atlas.domain.places[member])[..., None]
    gram = slope.mT @ slope
    ridge = 1e-6 * gram.diagonal(dim1=-2, dim2=-1).sum(-1).clamp(min=1e-30)
    gram = gram + ridge[:, None, None] * torch.eye(2, dtype=gram.dtype, device=gram.device)
    uv = atlas.uv[member] + torch.linalg.solve(gram, slope.mT @ gap)[..., 0]
    order = torch.argsort(other, stable=True)
    sample, other, say, uv = sample[order], other[order], say[order], uv[order]
    theirs, turned = [], []
    for part in torch.arange(len(other), device=x.device).split(step(atlas)):
        there, tangent = charts.flat_jacobian(uv[part], other[part])
        theirs.append(there)
        turned.append(_normal(tangent) * atlas.sign[other[part], None])
    there, facing = torch.cat(theirs), torch.cat(turned)
    # Only across the surface: along it, charts need not agree. What disagrees by more than the patch is no help.
    lift = ((there - x[sample]) * facing).sum(-1)
    limit = 4 * (atlas.noise + atlas.disagreement)
    say = say * (((lift.abs() <= limit) & ((facing * normal[sample]).sum(-1) > 0)).to(say))
    total = own.index_add(0, sample, say)
    moved = x + x.new_zeros(x.shape).index_add(0, sample, (say * lift)[:, None] * facing) / total[:, None]
    turned_to = (own[:, None] * normal).index_add(0, sample, say[:, None] * facing)
    return moved, F.normalize(turned_to, dim=-1, eps=1e-30)


def _normal(slope: torch.Tensor) -> torch.Tensor:
    return F.normalize(torch.linalg.cross(slope[..., 0], slope[..., 1]), dim=-1, eps=1e-30)
