# SPDX-License-Identifier: Apache-2.0
"""How far the points of a cloud lie from their surface, place by place."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from scipy.spatial import cKDTree

from geodiff.validation import shapes_repr

NEIGHBOURS = 16  # of a quadric
_COEFFICIENTS = 6  # of a quadric height function
_LEVEL = 1e-9  # of coefficients that points do not tell, such as those of points on a line
_LEAST = 10  # points that must be left of the neighbours
_SITES = 12_000
_GROUPS = 8  # of the thinned cloud that are looked at
_FEWEST = 160  # points that a thinned cloud has
_AROUND = 32  # sites whose estimates are one
_USUAL = 256  # sites of a neighbourhood that is wider than an edge
_QUIET = 0.25  # quantile of them that edges leave alone
_WIDE = 96  # sites that choose their scale together
TWO = 0.12  # share of the variance that is left within two sheets
_FAR = 3.0  # σ from which a point does not count
# What the median residual of 16 points of a plane with Gaussian noise is, in σ, when their radius is so many median
# residuals. Found by simulation: in a ball that is little wider than the noise, the noise does not show.
_RADII = np.array([3.54, 3.72, 3.89, 4.01, 4.18, 4.34, 4.64, 4.90, 5.27, 5.85, 6.76, 8.7, 10.6, 15.4, 1e9])
_SEEN = np.array(
    [0.443, 0.551, 0.613, 0.659, 0.697, 0.730, 0.765, 0.797, 0.826, 0.853, 0.878, 0.900, 0.917, 0.930, 0.938]
)
# Radii in median residuals from which the table is trusted, and those from which it is at once: else the next scale's
# residuals count, since those that pass by chance are small by chance.
ENOUGH, AMPLE = 4.01, 6.3
# Two sheets that the noise hides from 16 points are told from one by the distribution of more residuals.
_MANY = 64
_EVERY = 4  # sites of one that is asked
_TOGETHER = 48  # of these that are judged as one
_WIDER = 8  # times that the cloud is thinned once more: a ball little wider than the gap has little of the other sheet
_LOCAL = 10  # least number of such neighbourhoods in the thinned cloud
_MIDDLE = 0.35  # standard deviations, within which 27 % of normal residuals are, 20 % of evenly spread ones
_GAP, _FLAT_TOPPED = 0.19, 2.25  # share of them, and kurtosis, that residuals of two sheets some 3 σ apart stay below
_WELL_APART = 0.15  # σ over the standard deviation of all, below which moments do not tell it
_LOW, _LOW_SEEN = 0.1, 0.6  # a quantile of the estimates of sites over those in a ring; more, on surfaces of one sheet
_SUMMED, _FACES = 1500, 1000  # sites of which the median is taken, and of the neighbourhood that may have several faces
_LESS = 0.965  # that median on a plane, in σ: half of its sites have more than is usual there


class Noise(NamedTuple):
    """What the noise of a cloud is.

    Attributes:
        sigma: standard deviation across the surface, in the unit of the points: the median over places, edges apart.
        local: the same about each point, (N,) float64.
        thinning: of how many points one was used for it, (N,) int64; 1 where the noise is less than some spacings.
    """

    def __repr__(self) -> str:
        return shapes_repr(self)

    sigma: float
    local: torch.Tensor
    thinning: torch.Tensor


def estimate_noise(points: torch.Tensor, seed: int = 0) -> Noise:
    """Estimate the standard deviation σ of the points across the surface, from residuals of local quadrics.

    At up to 12 000 places a quadric height function is fitted to 16 points: the nearest ones of the cloud, or, where
    these reach no farther than the noise does, of a cloud thinned more and more, until they reach some 3 σ. So it is
    the noise that says how large neighbourhoods are, and not how dense the points are. Where the 16 points lie on two
    sheets, those of the place's own count; points farther off than 3 σ do not.

    Residuals are distances from the quadric along its normals: heights over a plane are larger where it is steep, as on
    both sides of an edge. The value of a point is the median over 32 places about it. Edges and folds, which quadrics
    do not fit, make it larger there; on the whole, what most places of a wide neighbourhood have counts. Where 16
    points are now of one sheet, now of two, the lower end of all values tells it. Where the residuals of 64 points have
    a gap in the middle, they are of two sheets closer than some six σ, and their kurtosis tells σ; of a dense cloud,
    those of 64 points eight times as sparse are asked, too.

    Args:
        points: (N, 3), distinct; outliers left out as far as they are known.
        seed: of the places and of the thinning.
    """
    count = len(points)
    x = points.detach().double().numpy()
    order = np.lexsort(x.T)  # the same for any order of the points
    x = x[order]
    x = x - x.mean(0)
    shuffled = np.random.default_rng(seed).permutation(count)
    sites = np.sort(np.argsort(shuffled, kind="stable")[:_SITES])
    wider = cKDTree(x[sites]).query(x[sites], k=min(_WIDE, len(sites)), workers=-1)[1].reshape(len(sites), -1)
    around = wider[:, :_AROUND]
    value = np.full(len(sites), np.nan)
    used = np.ones(len(sites), dtype=np.int64)
    passed = np.zeros(len(sites), dtype=bool)
    left = np.arange(len(sites))
    thinning = 1
    while len(left) and count >= NEIGHBOURS:
        needed = np.unique(wider[left])
        residual, radius = np.full((2, len(sites)), np.nan)
        residual[needed], radius[needed] = _residuals(x, sites[needed], shuffled, thinning)
        usual, wide = _median(residual[wider[left]]), _median(radius[wider[left]])
        with np.errstate(divide="ignore", invalid="ignore"):
            ratio = np.nan_to_num(np.minimum(wide / usual, _RADII[-1]))  # 0 where no site nearby has told
        most = np.quantile(ratio, 0.9)
        step = 4 if most < _RADII[0] else 2 if most < _RADII[1] else 1.5
        following = max(int(thinning * step), thinning + 1)
        enough = passed[left] | (ratio >= AMPLE) | (count < _FEWEST * following)
        passed[left] |= ratio >= ENOUGH
        done = left[enough]
        value[done] = residual[done] / np.interp(ratio[enough], _RADII, _SEEN)
        used[done] = thinning
        left, thinning = left[~enough], following
    about = _median(value[around])
    ring = _median(value[wider[:, _AROUND:]]) if wider.shape[1] > _AROUND else about
    with np.errstate(all="ignore"):
        share = value / ring
    share = share[np.isfinite(share)]
    low = float(np.quantile(share, _LOW)) if len(share) else 1.0
    about = np.nan_to_num(about) * min(1.0, low / _LOW_SEEN)
    about = _of_one_sheet(about, x, sites, used, shuffled)
    nearest = cKDTree(x[sites]).query(x, workers=-1)[1]
    back = np.empty(count, dtype=np.int64)
    back[order] = nearest
    local = about[back]
    return Noise(_usual(about, x[sites]), torch.from_numpy(local), torch.from_numpy(used[back]))


def without_edges(points: torch.Tensor, noise: Noise, seed: int = 0) -> torch.Tensor:
    """Return σ about each point (N,), where points are sparse for it no larger than the median of all.

    What quadrics leave of edges passes for more noise there. But edges are narrow: where three quarters of the 256
    places about a point have more than the median, that is noise, and may be as large as what these exceed.
    """
    x = points.detach().double().numpy()
    order = np.lexsort(x.T)
    sites = order[np.random.default_rng(seed).permutation(len(x))[:_SITES]]
    tree = cKDTree(x[sites])
    near = tree.query(x[sites], k=range(1, min(_USUAL, len(sites)) + 1), workers=-1)[1]
    usual = np.quantile(noise.local.numpy()[sites][near], _QUIET, axis=1)
    bound = torch.from_numpy(usual[tree.query(x, workers=-1)[1]]).clamp(min=noise.sigma)
    return torch.where(noise.thinning > 1, noise.local, torch.minimum(noise.local, bound))


def _usual(sigma: np.ndarray, x: np.ndarray) -> float:
    """Return the median of the noise (S,) at sites x (S, 3), of which each is at most what is usual in the wide around.

    That is the middle of the shortest interval with half of the values: that of faces, where edges are many.
    """
    some = np.arange(0, len(x), max(len(x) // _SUMMED, 1))
    values = np.sort(sigma[cKDTree(x).query(x[some], k=range(1, min(_FACES, len(x)) + 1), workers=-1)[1]], axis=1)
    half = (values.shape[1] + 1) // 2
    first = (values[:, half - 1 :] - values[:, : values.shape[1] - half + 1]).argmin(1)
    rows = np.arange(len(some))
    usual = (values[rows, first] + values[rows, first + half - 1]) / 2
    return float(np.median(np.minimum(sigma[some], usual)) / _LESS)


def _of_one_sheet(
    sigma: np.ndarray, x: np.ndarray, sites: np.ndarray, used: np.ndarray, shuffled: np.ndarray
) -> np.ndarray:
    """Return the noise (S,) at sites without the distance of two sheets that 16 points have taken for noise."""
    for wider in (1, _WIDER):
        thinning = np.where(used > 1, used * wider, 0)
        if wider > 1:
            thinning[thinning * _LOCAL * _MANY > len(x)] = 0
        sigma = np.fmin(sigma, _within_two_sheets(x, sites, thinning, shuffled))
    return sigma


def _within_two_sheets(x: np.ndarray, sites: np.ndarray, thinning: np.ndarray, shuffled: np.ndarray) -> np.ndarray:
    """Return the noise (S,) of either sheet at sites amid two, NaN elsewhere and where `thinning` (S,) is 0."""
    asked = np.flatnonzero(thinning)[::_EVERY]
    told = np.full((3, len(sites)), np.nan)  # variance, fourth moment, share in the middle
    for one_in in np.unique(thinning[asked]):
        some = asked[thinning[asked] == one_in]
        for rows, _, around in _neighbourhoods(x, sites[some], shuffled, int(one_in), _MANY):
            told[:, some[rows]] = _distribution(torch.from_numpy(around)).numpy()
    asked = asked[~np.isnan(told[0, asked])]
    if not len(asked):
        return np.full(len(sites), np.nan)
    tree = cKDTree(x[sites[asked]])
    together = tree.query(x[sites[asked]], k=range(1, min(_TOGETHER, len(asked)) + 1))[1]
    square, fourth, middle = told[:, asked[together]].mean(2)
    kurtosis = fourth / np.maximum(square**2, 1e-300)
    # Of what two sheets at ±a with noise σ have, 3 − 2 (a²/(a² + σ²))², the quadric has taken a part.
    share = np.sqrt(np.clip((3 - kurtosis) / 2, 0, 1)) / (1 - _COEFFICIENTS / _MANY)
    single = np.sqrt(square * np.clip(1 - share, 0, 1) * _MANY / (_MANY - _COEFFICIENTS))
    two = (middle < _GAP) & (kurtosis < _FLAT_TOPPED) & (single > _WELL_APART * np.sqrt(square))
    near = tree.query(x[sites])[1]
    return np.where(two[near] & (thinning > 0), single[near], np.nan)


def _distribution(around: torch.Tensor) -> torch.Tensor:
    """Variances, fourth moments and shares in the middle (3, B) of what quadrics leave of points (B, K, 3)."""
    offset = around - around.mean(1, keepdim=True)
    scale = offset.norm(dim=2).amax(1).clamp(min=1e-300)
    offset = offset / scale[:, None, None]
    height, u, v = (offset @ torch.linalg.eigh(offset.mT @ offset)[1]).unbind(2)
    basis = torch.linalg.qr(torch.stack([torch.ones_like(u), u, v, u * u, u * v, v * v], 2))[0]
    rest = height - (basis @ (basis.mT @ height[:, :, None]))[:, :, 0]
    square = rest.square().mean(1)
    middle = (rest.square() < _MIDDLE**2 * square[:, None]).double().mean(1)
    return torch.stack([square * scale**2, rest.pow(4).mean(1) * scale**4, middle])


def _neighbourhoods(
    x: np.ndarray, sites: np.ndarray, shuffled: np.ndarray, thinning: int, k: int
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Give sites (B,) of the S, radii (B,) and points (B, k, 3) about them of a thinned cloud, in parts.

    A cloud thinned to one in `thinning` is one of as many groups of points; each site has the points of one of them.
    """
    groups = min(thinning, _GROUPS)
    of_site = shuffled[sites] % thinning % groups
    for group in range(groups):
        members = np.flatnonzero(shuffled % thinning == group) if thinning > 1 else np.arange(len(x))
        rows = np.flatnonzero(of_site == group)
        if len(members) < k or not len(rows):
            continue
        far, near = cKDTree(x[members]).query(x[sites[rows]], k=k, workers=-1)
        near = members[near]
        # A site that is not of the group is the first of its points nevertheless.
        alien = near[:, 0] != sites[rows]
        near[alien, 1:], near[alien, 0] = near[alien, :-1], sites[rows[alien]]
        far[alien, -1] = far[alien, -2]
        for some in np.array_split(np.arange(len(rows)), -(-len(rows) // 4096)):
            yield rows[some], far[some, -1], x[near[some]]


def _residuals(x: np.ndarray, sites: np.ndarray, shuffled: np.ndarray, thinning: int) -> tuple[np.ndarray, np.ndarray]:
    """Return residuals of quadrics (S,), NaN where they say nothing, and radii (S,) about sites of a thinned cloud."""
    residual, radius = np.full((2, len(sites)), np.nan)
    for rows, far, around in _neighbourhoods(x, sites, shuffled, thinning, NEIGHBOURS):
        radius[rows], residual[rows] = far, _residual(torch.from_numpy(around)).numpy()
    return residual, radius


def _residual(around: torch.Tensor) -> torch.Tensor:
    """Standard deviations (B,) of points (B, K, 3) from a quadric through the sheet of the first, NaN if it has few."""
    offset = around - around.mean(1, keepdim=True)
    scale = offset.norm(dim=2).amax(1).clamp(min=1e-300)
    offset = offset / scale[:, None, None]
    height, u, v = (offset @ torch.linalg.eigh(offset.mT @ offset)[1]).unbind(2)
    terms = torch.stack([torch.ones_like(u), u, v, u * u, u * v, v * v], 2)
    least = _LEVEL * torch.eye(_COEFFICIENTS, dtype=u.dtype).expand(len(u), -1, -1)

    def rest(weight: torch.Tensor) -> torch.Tensor:
        """Distances along the normals of the quadric of what counts: heights over slopes are larger."""
        basis, upper = torch.linalg.qr(torch.cat([terms * weight[:, :, None], least], 1))
        wanted = basis[:, : height.shape[1]].mT @ (height * weight)[:, :, None]
        part = torch.linalg.solve_triangular(upper, wanted, upper=True)
        _, b, c, d, e, f = part[:, :, 0, None].unbind(1)
        steep = (b + 2 * d * u + e * v).square() + (c + e * u + 2 * f * v).square()
        return (height - (terms @ part)[:, :, 0]) / (1 + steep).sqrt() * weight

    weight = own_sheet(height)
    weight = weight * own_sheet(rest(weight), weight)
    off = rest(weight)
    kept = weight.sum(1)
    usual = torch.where(weight > 0, off.abs(), torch.nan).nanmedian(1).values
    usual = 1.4826 * usual * (kept / (kept - _COEFFICIENTS).clamp(min=1)).sqrt()  # of a normal distribution
    weight = weight * (off.abs() <= _FAR * usual[:, None])
    kept = weight.sum(1)
    square = rest(weight).square().sum(1) / (kept - _COEFFICIENTS).clamp(min=1)
    return torch.where(kept >= _LEAST, square.sqrt() * scale, torch.nan)


def own_sheet(height: torch.Tensor, weight: torch.Tensor | None = None, left: float = TWO) -> torch.Tensor:
    """Weights (B, K): 0 for points beyond a gap that leaves little variance on either side, 1 for the first's side."""
    one = torch.ones_like(height) if weight is None else weight
    ordered, order = height.sort(1)
    share = one.gather(1, order)
    count, total, square = (share * ordered**p for p in range(3))
    below = [part.cumsum(1)[:, :-1] for part in (count, total, square)]
    above = [part.sum(1, keepdim=True) - low for part, low in zip((count, total, square), below, strict=True)]
    within = torch.stack([part[2] - part[1].square() / part[0].clamp(min=1) for part in (below, above)]).sum(0)
    all_in = square.sum(1) - total.sum(1).square() / count.sum(1).clamp(min=1)
    least, at = within.min(1)
    cut = (ordered.gather(1, at[:, None]) + ordered.gather(1, at[:, None] + 1)) / 2
    own = (height < cut) == (height[:, :1] < cut)
    return torch.where((least < left * all_in)[:, None], own.to(height), torch.ones_like(height))


def _median(values: np.ndarray) -> np.ndarray:
    """Medians (S,) over the second axis of what is no NaN; NaN where nothing is."""
    ordered = np.sort(values, axis=1)
    count = (~np.isnan(ordered)).sum(1)
    rows = np.arange(len(values))
    low, high = (
        ordered[rows, np.maximum(count - 1, 0) // 2],
        ordered[rows, np.minimum(count // 2, ordered.shape[1] - 1)],
    )
    return np.where(count > 0, (low + high) / 2, np.nan)  # NaN are sorted last
