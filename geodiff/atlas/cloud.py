# SPDX-License-Identifier: Apache-2.0
"""Make a cloud fit for a cover: checked, without duplicates, not too large, with neighbours, normals, outliers."""

import dataclasses
from typing import Any

import numpy as np
import torch
from scipy.spatial import cKDTree

from geodiff.atlas.axes import neighbour_axes
from geodiff.atlas.lines import ScanLines, neighbours, scan_lines
from geodiff.atlas.noise import Noise, estimate_noise
from geodiff.atlas.orient import orient
from geodiff.atlas.regions import Links
from geodiff.atlas.strays import strays
from geodiff.validation import fail, floating, promote, shapes_repr

LEAST_POINTS = 16
NEIGHBOURS = 12  # of the graph
SCALES = (8, 16, 32, 64)  # neighbours that a normal may be estimated from
IN_NOISE = 48  # neighbours in a thinned cloud, where 16 are as far as the noise asks for
AGREEING = 0.85  # share of neighbours with normals to one side from which on given signs are not looked into
BESIDE = 2.0  # how much farther from its plane than the others those are that face away from a point for good reasons
LEAST_AWAY = 0.1  # share of given normals on the wrong side from which on none of the signs is believed
FLAT = 1e-6  # ratio of the principal spreads of points on a line
_LARGEST = 1e19  # extent, in the unit of the points


@dataclasses.dataclass(frozen=True)
class Cloud:
    """Distinct points with what is known of each.

    Attributes:
        points: (N, 3), dtype as given.
        normals: (N, 3) unit; of either side, unless given.
        given: whether the normals came with the points, and their signs agree.
        index: (N,) int64, where each point was in the input (the first of its duplicates).
        neighbours: (N, K) int64, nearest first, without the point itself. In a cloud of lines, the nearest of those
            that are left if the lines are thinned until their points are about as far apart as they are.
        distances: (N, K).
        outlier: (N,) bool, isolated points.
        diagonal: of the bounding box of the points that are no outliers.
        noise: σ of the points across the surface, on the whole and about each.
        duplicates: how many points were dropped since they repeat another.
        notes: what a user should be told, a sentence each.
        lines: how the points lie in lines, if they do: see `geodiff.atlas.lines.scan_lines`.
    """

    __repr__ = shapes_repr

    points: torch.Tensor
    normals: torch.Tensor
    given: bool
    index: torch.Tensor
    neighbours: torch.Tensor
    distances: torch.Tensor
    outlier: torch.Tensor
    diagonal: float
    noise: Noise
    duplicates: int
    notes: tuple[str, ...]
    lines: ScanLines | None = None


def read_cloud(
    points: Any, normals: Any = None, *, most: int | None = None, seed: int = 0, where: str = "fit_atlas"
) -> Cloud:
    """Check and prepare a cloud.

    Points that repeat another exactly are dropped and counted. Where `most` is given, a random subset of a cloud of
    more points is kept. Points far from their neighbours, for the distances usual around them, and groups of a few
    points that hang together with nothing else are marked as outliers. Normals of length zero are estimated instead.
    Each of these is told in `notes`.

    Args:
        points: (N, 3).
        normals: (N, 3) of any positive lengths, pointing to one side, or nothing.
        most: how many points to keep; None keeps all.
        seed: of the subset.
        where: the public function, for messages.

    Raises:
        TypeError: arguments that are no numbers.
        ValueError: wrong shapes, NaN or infinity, fewer than 16 distinct points, all of them in one place or on a line.
    """
    arguments = {"points": points} if normals is None else {"points": points, "normals": normals}
    values = promote(where, **arguments)
    x = floating(where, "points", values["points"].detach().cpu(), ("N", 3), "One row a point.", finite=False)
    notes = []
    n, sided = None, True
    if normals is not None:
        fix = "One normal a point, or none at all."
        n = floating(where, "normals", values["normals"].detach().cpu(), (len(x), 3), fix, finite=False)
    given = len(x)
    index = _distinct(x.numpy())
    duplicates = given - len(index)
    if duplicates:
        notes.append(f"{duplicates} of {given} points repeat another and were dropped.")
    if most is not None and len(index) > most:
        if most < LEAST_POINTS:
            raise fail(where, "most", f"at least {LEAST_POINTS}", str(most))
        notes.append(f"Of {len(index)} distinct points {most} were drawn; without max_points all are kept.")
        index = np.sort(np.random.default_rng(seed).permutation(index)[:most])
    if len(index) < LEAST_POINTS:
        text = f"{len(index)} distinct of {given}" if duplicates else str(given)
        raise fail(where, "points", f"at least {LEAST_POINTS} distinct points", text, "Give more points.")
    kept = torch.from_numpy(index)
    x = x[kept].contiguous()
    _check_spread(where, x)

    places = x.double().numpy()
    lines = scan_lines(places, seed, notes)
    anchor = None if lines is None else lines.anchor
    distances, near = neighbours(places, SCALES[-1], anchor)
    own = estimate_normals(x, near)
    outlier = strays(places, (distances, near) if anchor is None else None)
    noise = _noise(x, ~outlier, anchor, seed)
    own = _normals_in_noise(x, own, noise, anchor, seed)
    if lines is not None:
        notes += _on_lines(lines)
    if n is not None:
        length = n[kept].norm(dim=1, keepdim=True)
        zero = length[:, 0] == 0
        lost = int(zero.sum())
        if lost == len(x):
            notes.append("All normals have length zero: they were estimated.")
            n = None
        else:
            if lost:
                notes.append(f"{lost} of {len(x)} normals have length zero: they were estimated.")
            n = torch.where(zero[:, None], own, n[kept] / length.clamp(min=torch.finfo(n.dtype).tiny))
            away = _facing_away(x, n, near)
            if away > LEAST_AWAY:
                sided = False
                text = f"{100 * away:.0f} % face away from those around them"
                notes.append(
                    f"The given normals contradict each other: {text}. The outside was found without their signs."
                )
    if (~outlier).sum() < LEAST_POINTS:
        text = f"{int(outlier.sum())} of {len(x)} far from all others"
        raise fail(where, "points", f"at least {LEAST_POINTS} that lie near others", text, "Give more points.")
    if outlier.any():
        notes.append(f"{int(outlier.sum())} of {len(x)} points are isolated: no chart is fitted to them.")
    inner = x[torch.from_numpy(~outlier)]
    diagonal = float((inner.amax(0) - inner.amin(0)).norm())
    width = min(NEIGHBOURS, near.shape[1])
    return Cloud(
        points=x,
        normals=own if n is None else n,
        given=n is not None and sided,
        index=kept,
        neighbours=torch.from_numpy(near[:, :width].astype(np.int64)),
        distances=torch.from_numpy(distances[:, :width].copy()),  # the rest is not kept in memory
        outlier=torch.from_numpy(outlier),
        diagonal=diagonal,
        noise=noise,
        duplicates=duplicates,
        notes=tuple(notes),
        lines=lines,
    )


def _on_lines(lines: ScanLines) -> list[str]:
    """Return what is to be said of points that lie in lines."""
    inside = lines.gap > 0
    notes = [
        f"The points lie in lines, {np.median(lines.gap[inside]):.3g} apart (the median); along them they are denser. "
        "The surface between was filled in from line to line: what is smaller than that there is not known."
    ]
    if lines.alone > 0.01:
        notes.append(
            f"{100 * lines.alone:.0f} % of the points lie on lines without others beside them, between which no "
            "surface was found: scan more lines, or from other places."
        )
    return notes


def _facing_away(x: torch.Tensor, n: torch.Tensor, neighbours: np.ndarray) -> float:
    """Return the share of given normals (N, 3) whose signs are not the others'; 0 where most neighbours agree."""
    links = Links(x.double().numpy(), n.double().numpy(), neighbours[:, :NEIGHBOURS])
    if links.agreement(np.ones(len(x))) > AGREEING:
        return 0.0
    # On the two sides of a thin wall neighbours disagree for good reasons: those that do lie beside the others' plane.
    beside, opposite = np.abs(links.up), links.same < 0
    if beside[opposite].mean() > BESIDE * beside[~opposite].mean():
        return 0.0
    turned = orient(x, n).turned
    return min(turned, 1 - turned)


def estimate_normals(points: torch.Tensor, neighbours: np.ndarray) -> torch.Tensor:
    """Estimate normals from planes through points and their neighbours, each at the scale where these are flattest.

    Noise asks for many neighbours, edges and other sheets nearby for few. Of 8, 16, 32 and 64, those are taken whose
    ratio of the least to the middle variance is smallest, after a handicap of `(1 + 4/k)²` for what k points through
    one plane leave of noise.

    Args:
        points: (N, 3).
        neighbours: (N, K), nearest first.

    Returns:
        unit normals (N, 3) of either side.
    """
    near = np.asarray(neighbours, dtype=np.int64)
    scales = [k for k in SCALES if k <= max(near.shape[1], SCALES[0])]
    axis = neighbour_axes(
        points.double().numpy(), near, sizes=[min(k, near.shape[1]) for k in scales], own=True,
        # Where no scale has any thickness, the smallest is kept.
        factors=[(1 + 4 / k) ** 2 for k in scales], terms=[1e-9 * k for k in scales],
    )[1]  # fmt: skip
    return torch.from_numpy(axis).to(points)


def _noise(x: torch.Tensor, good: np.ndarray, anchor: np.ndarray | None, seed: int) -> Noise:
    """Estimate the noise from the points (N, 3) that are good, of lines the anchors; others get that of the nearest.

    Outliers get the value on the whole.
    """
    local = torch.zeros(len(x), dtype=torch.float64)
    thinning = torch.ones(len(x), dtype=torch.int64)
    used = np.flatnonzero(good if anchor is None else good & anchor)
    if not len(used):
        return Noise(0.0, local, thinning)
    found = estimate_noise(x[used], seed)
    nearest: Any = slice(None)
    some = used
    if anchor is not None:
        some = np.flatnonzero(good)
        places = x.double().numpy()
        nearest = cKDTree(places[used]).query(places[some], workers=-1)[1]
    local.fill_(found.sigma)
    local[some], thinning[some] = found.local[nearest], found.thinning[nearest]
    return Noise(found.sigma, local, thinning)


def _normals_in_noise(
    x: torch.Tensor, normals: torch.Tensor, noise: Noise, anchor: np.ndarray | None, seed: int
) -> torch.Tensor:
    """Replace normals (N, 3) where 64 neighbours reach no farther than the noise by those of a thinned cloud."""
    normals = normals.clone()
    points = x.double().numpy()
    shuffled = np.random.default_rng(seed).permutation(len(x))
    for thinning in noise.thinning[noise.thinning > 1].unique().tolist():
        some = (noise.thinning == thinning).numpy().nonzero()[0]
        kept = shuffled % thinning == 0
        members = np.flatnonzero(kept if anchor is None else kept & anchor)
        around = cKDTree(points[members]).query(points[some], k=min(IN_NOISE, len(members)), workers=-1)[1]
        for rows in np.array_split(np.arange(len(some)), -(-len(some) // (1 << 14))):
            offset = torch.from_numpy(points[members[around[rows]]])
            offset = offset - offset.mean(1, keepdim=True)
            normals[torch.from_numpy(some[rows])] = torch.linalg.eigh(offset.mT @ offset)[1][:, :, 0].to(normals)
    return normals


def _distinct(x: np.ndarray) -> np.ndarray:
    """Return where rows (N, 3) come first, ascending."""
    order = np.lexsort((np.arange(len(x)), x[:, 2], x[:, 1], x[:, 0]))
    ordered = x[order]
    new = np.ones(len(x), dtype=bool)
    new[1:] = (ordered[1:] != ordered[:-1]).any(1)
    return np.sort(order[new])


def _check_spread(where: str, x: torch.Tensor) -> None:
    extent = float((x.amax(0).double() - x.amin(0).double()).max())
    if not 1 / _LARGEST <= extent <= _LARGEST:
        expected = f"of an extent from {1 / _LARGEST:g} to {_LARGEST:g}"
        raise fail(where, "points", expected, f"{extent:g}", "Take another unit: squares of lengths must be numbers.")
    centred = x.double() - x.double().mean(0)
    spread = torch.linalg.eigvalsh(centred.mT @ centred).clamp(min=0).sqrt()
    # A line has one spread; a plane, two, is a surface like others.
    if float(spread[1]) <= FLAT * float(spread[2]):
        raise fail(where, "points", "points of a surface", "points on a line", "A curve has no charts.")
