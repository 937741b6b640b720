# SPDX-License-Identifier: Apache-2.0
"""What several charts say of the same point, in one."""

import torch

AGREEMENTS = ("mean", "pairs")
_ROUNDS = 5
_TRUST = 4  # how fast trust in a chart falls with its residual
_WIDTH = 2.5  # of the Welsch penalty, in median deviations: far charts lose their say


def depth(places: torch.Tensor, chart: torch.Tensor, center: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    """Return how deep places (M, 3) lie in their charts (M,): `1 − |x − center|²/scale²`, 1 in the middle.

    `center` (Q, 3) and `scale` (Q,) are those of the charts. Negative beyond the farthest member.
    """
    return 1 - ((places - center[chart]) / scale[chart, None]).square().sum(-1)


def weights(depth: torch.Tensor) -> torch.Tensor:
    """Return the say of charts by `depth`: its square, which falls to zero smoothly at the edge of the chart."""
    return depth.clamp(min=0.0) ** 2 + 1e-6


def trust(places: torch.Tensor, goals: torch.Tensor, chart: torch.Tensor, charts: int, noise: float) -> torch.Tensor:
    """Return how far each of Q charts is to be trusted, in (0, 1]: σ⁴ over the fourth power of its residual.

    The residual is the root mean square of |places − goals|, and σ the noise or, if that is less, a tenth of the usual
    residual; charts that fit to within σ have 1.

    Args:
        places: (M, 3), members as their chart has them.
        goals: (M, 3), the members.
        chart: (M,) int64.
        charts: Q.
        noise: ≥ 0.
    """
    square = (places - goals).double().square().sum(-1)
    zero = square.new_zeros(charts)
    count = torch.bincount(chart, minlength=charts)
    rms = (zero.index_add(0, chart, square) / count.clamp(min=1)).sqrt()
    usual = max(noise, 0.1 * float(rms[count > 0].median()) if len(chart) else 0.0, 1e-300)
    return (rms.clamp(min=usual) / usual).pow(-_TRUST).to(places)


def consensus(
    places: torch.Tensor, weight: torch.Tensor, point: torch.Tensor, points: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the robust mean of each point's places, and how far they spread.

    Iteratively reweighted mean with the Welsch penalty, w·exp(−d²/2c²), where c is 2.5 times the median of all
    deviations: the mean where charts agree, without those that do not. (Robust pooling of `geodiff.robust_pool` does
    the same for batches of equal size.)

    Args:
        places: (M, 3), what the charts say.
        weight: (M,) positive.
        point: (M,) int64.
        points: N.

    Returns:
        (N, 3), zero for points without places; and the weighted root mean square of deviations (N,).

    Gradients: none.
    """
    x, w = places.detach().double(), weight.detach().double()
    zeros = x.new_zeros(points)

    def mean(w: torch.Tensor) -> torch.Tensor:
        total = zeros.index_add(0, point, w)
        return zeros[:, None].expand(-1, 3).index_add(0, point, w[:, None] * x) / total.clamp(min=1e-300)[:, None]

    center = mean(w)
    several = torch.bincount(point, minlength=points)[point] > 2  # of two charts, neither is the outlier
    use = w
    for _ in range(_ROUNDS):
        gap = (x - center[point]).square().sum(-1)
        if not bool(several.any()):
            break
        width = _WIDTH**2 * gap[several].median()
        use = torch.where(several, w * torch.exp(-gap / (2 * width.clamp(min=1e-300))) + 1e-12 * w, w)
        center = mean(use)
    gap = (x - center[point]).square().sum(-1)
    total = zeros.index_add(0, point, use).clamp(min=1e-300)
    spread = (zeros.index_add(0, point, use * gap) / total).sqrt()
    return center.to(places), spread.to(places)


def others(places: torch.Tensor, point: torch.Tensor, points: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the mean (M, 3) of what the other charts of each member's point say, and how many these are (M,).

    Args:
        places: (M, 3), what the charts say.
        point: (M,) int64.
        points: N.
    """
    x = places.detach().double()
    count = torch.bincount(point, minlength=points)[point] - 1
    total = x.new_zeros(points, 3).index_add(0, point, x)
    return ((total[point] - x) / count.clamp(min=1)[:, None]).to(places), count.to(places)


def pair_loss(places: torch.Tensor, point: torch.Tensor, points: int) -> torch.Tensor:
    """Return the published disagreement of charts, `Σ_{q<q'} Σ_i |φ_q(v_qi) − φ_q'(v_q'i)|²` over shared points i.

    By `Σ_{pairs} |a − b|² = m Σ |a − mean|²` for the m charts of a point, at the cost of a sum over the members. With
    the other charts held, its gradient in a place is that of `(m − 1) |a − mean of the others|²`.

    Args:
        places: (M, 3), what the charts say.
        point: (M,) int64.
        points: N.

    Gradients: with respect to places.
    """
    count = torch.bincount(point, minlength=points).to(places)
    total = places.new_zeros(points, 3).index_add(0, point, places)
    off = places - (total / count.clamp(min=1)[:, None])[point]
    return (count[point] * off.square().sum(1)).sum()
