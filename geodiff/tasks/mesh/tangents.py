# SPDX-License-Identifier: Apache-2.0
"""Cameras from silhouettes alone: planes through two cameras that touch the object touch it in both of their images.

For two cameras, a plane through both is known by its angle about the line between them. Where it touches the object,
at a frontier point, it touches the outline in each of the two images (Porrill and Pollard 1991; Wong and Cipolla 2001).
So the outermost angles at which one silhouette lies are those of the other, and so are those of inner bulges, where
they are seen in both. That needs no surface: it finds cameras that are degrees off, from where a surface can go on.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch

from geodiff.scene.files import PosedImages
from geodiff.tasks.mesh.camera_moves import Moves, Prior
from geodiff.tasks.mesh.outlines import outline_pieces

_LEVEL = 0.25  # of coverage: lower than ½, where parts thinner than a pixel would be lost
_NOISE = 0.2  # pixels, of one touch beside another
_ITERATIONS = 15
_OUTER = 4  # of them, with the outermost touches alone
_REACH = 1.0  # pixels between inner touches that are taken for one
_PAIRS = 3000  # of views, at most
_WIDE = 0.9 * math.pi  # a silhouette that spans more, seen from the line between cameras, is on that line
_NEAR = 1e-3  # of their distance: cameras so near each other tell nothing
_BORDER = 1.5  # pixels from the border of the image: there the object may go on
_ENOUGH = 1e-5


class _Touch(NamedTuple):
    """Points of outlines at which planes touch: of which pair, and which points of its two views."""

    pair: torch.Tensor
    first: torch.Tensor
    second: torch.Tensor


class Outlines:
    """The outlines of masks, as closed chains of points.

    Attributes:
        at: (B, K, 2) pixels, x right and y down; chains shorter than the longest are filled up with their last point.
        outwards: (B, K, 2) the same, half a pixel farther out.
        before, after: (B, K) the neighbours.
        usable: (B, K) which are points of their own and not at the border of the image.
        rim: (B, L) which points are on the convex hull, where the outermost touches are; the last again and again.
    """

    def __init__(self, alpha: torch.Tensor) -> None:
        chains = [_chain(image.double().numpy()) for image in alpha]
        most = max(len(chain[0]) for chain in chains)
        height, width = alpha.shape[-2:]
        at, outwards, before, after, usable = [], [], [], [], []
        for points, normal, a, b in chains:
            rest = most - len(points)
            rim = np.minimum(points, [width, height] - points).min(1)
            at.append(np.pad(points, ((0, rest), (0, 0)), "edge"))
            outwards.append(np.pad(points + 0.5 * normal, ((0, rest), (0, 0)), "edge"))
            before.append(np.pad(a, (0, rest)))
            after.append(np.pad(b, (0, rest)))
            usable.append(np.pad(rim > _BORDER, (0, rest)))
        self.at, self.outwards = torch.from_numpy(np.stack(at)), torch.from_numpy(np.stack(outwards))
        self.before, self.after = torch.from_numpy(np.stack(before)), torch.from_numpy(np.stack(after))
        self.usable = torch.from_numpy(np.stack(usable))
        rims = [_rim(chain[0]) for chain in chains]
        longest = max(len(rim) for rim in rims)
        self.rim = torch.from_numpy(np.stack([np.pad(rim, (0, longest - len(rim)), "edge") for rim in rims])).long()


def _rim(points: np.ndarray) -> np.ndarray:
    """Return which of points (N, 2) are corners of their convex hull; all of them where they are on a line."""
    from scipy.spatial import ConvexHull, QhullError

    try:
        corners: np.ndarray = ConvexHull(points).vertices
    except (QhullError, ValueError):
        return np.arange(len(points))
    return corners


def _chain(alpha: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return the points (N, 2) of a mask's outline as (x, y), normals outwards, and the neighbours of each."""
    alpha = np.pad(alpha, 1)
    ends = outline_pieces(alpha - _LEVEL)
    if not len(ends):  # a point out of the image, which is not used
        return np.full((1, 2), -1.0), np.zeros((1, 2)), np.zeros(1, dtype=int), np.zeros(1, dtype=int)
    _, row, inverse = np.unique(np.round(ends.reshape(-1, 2), 7), axis=0, return_index=True, return_inverse=True)
    points, piece = ends.reshape(-1, 2)[row], inverse.reshape(-1, 2)
    count = len(points)
    # Each point has two pieces; the first that names it leads to one neighbour, the last to the other.
    neighbour = np.stack((np.arange(count), np.arange(count)))
    for a, b in ((piece[:, 0], piece[:, 1]), (piece[:, 1], piece[:, 0])):
        neighbour[0, a] = b
    neighbour[1, piece[::-1, 1]] = piece[::-1, 0]
    lone = neighbour[1] == neighbour[0]
    back = neighbour[1].copy()
    back[piece[::-1, 0]] = piece[::-1, 1]
    neighbour[1] = np.where(lone | (neighbour[1] == np.arange(count)), back, neighbour[1])
    # Outwards: where coverage falls, along the bilinear gradient.
    i, j = (np.clip(np.floor(points[:, k]).astype(int), 0, alpha.shape[k] - 2) for k in (0, 1))
    u, v = points[:, 0] - i, points[:, 1] - j
    a, b, c, d = alpha[i, j], alpha[i, j + 1], alpha[i + 1, j], alpha[i + 1, j + 1]
    fall = -np.stack(((1 - u) * (b - a) + u * (d - c), (1 - v) * (c - a) + v * (d - b)), 1)
    fall /= np.maximum(np.linalg.norm(fall, axis=1, keepdims=True), 1e-9)
    return points[:, ::-1] - 0.5, fall, neighbour[0], neighbour[1]


class Tangents:
    """What the outlines of B views say of their cameras.

    Args:
        posed: the views.
        moves: how their cameras move.
        wanted: (B, B), which pairs to look at; None: all.
    """

    def __init__(self, posed: PosedImages, moves: Moves, wanted: torch.Tensor | None = None) -> None:
        self.outlines = Outlines(posed.alpha)
        self.size, self.centre, self.moves = posed.image_size, moves.centre, moves
        self.principal = moves.cameras.principal
        apart = torch.cdist(moves.cameras.position, moves.cameras.position)
        good = (apart > _NEAR * moves.distance) & (True if wanted is None else wanted)
        first, second = good.triu(1).nonzero().unbind(1)
        if len(first) > _PAIRS:  # spread over all
            chosen = torch.linspace(0, len(first) - 1, _PAIRS).round().long()
            first, second = first[chosen], second[chosen]
        self.first, self.second = first, second

    def touches(self, x: torch.Tensor, inner: bool) -> _Touch:
        """Return the touches of the views moved by x (B, 7)."""
        found = []
        R, c, f = self.moves.parts(x)
        o = self.outlines
        at = o.at if inner else o.at.gather(1, o.rim[..., None].expand(-1, -1, 2))
        step = max(1, (1 << 21) // at.shape[1])
        for k in range(0, len(self.first), step):
            views = self.first[k : k + step], self.second[k : k + step]
            frame = self._frame(c[views[0]], c[views[1]])
            angle = [self._angles(view, R, f, frame, at) for view in views]
            seen = torch.stack([a.amax(1) - a.amin(1) < _WIDE for a in angle]).all(0)
            if inner:
                bulge, size = zip(
                    *[self._bulges(v, a, R, f, frame) for v, a in zip(views, angle, strict=True)], strict=True
                )
            for sign in (-1, 1):
                ends = [(sign * a).argmax(1) for a in angle]
                if not inner:
                    ends = [o.rim[v, end] for v, end in zip(views, ends, strict=True)]
                good = seen & o.usable[views[0], ends[0]] & o.usable[views[1], ends[1]]
                rows = good.nonzero()[:, 0]
                found.append(_Touch(k + rows, ends[0][rows], ends[1][rows]))
                if inner:
                    found.append(_matched([sign * a for a in angle], [b == sign for b in bulge], size, seen, ends, k))
        none = torch.zeros(0, dtype=torch.int64)
        return _Touch(*(torch.cat(part) for part in zip(*found, strict=True))) if found else _Touch(none, none, none)

    def _frame(self, a: torch.Tensor, b: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return the axis between two cameras, the direction from it to the object, and the normal of both."""
        axis = torch.nn.functional.normalize(b - a, dim=-1)
        away = self.centre - 0.5 * (a + b)
        away = torch.nn.functional.normalize(away - (away * axis).sum(-1, keepdim=True) * axis, dim=-1)
        return axis, away, torch.linalg.cross(axis, away)

    def _rays(self, at: torch.Tensor, R: torch.Tensor, f: torch.Tensor, principal: torch.Tensor) -> torch.Tensor:
        height, width = self.size
        s = 2.0 / min(height, width)
        plane = torch.stack(((at[..., 0] - 0.5 * width) * s, (0.5 * height - at[..., 1]) * s), dim=-1)
        plane = (plane - principal[..., None, :]) / f[..., None, :]
        return torch.cat((plane, -torch.ones_like(plane[..., :1])), dim=-1) @ R

    def _angles(
        self, view: torch.Tensor, R: torch.Tensor, f: torch.Tensor, frame: tuple[torch.Tensor, ...], at: torch.Tensor
    ) -> torch.Tensor:
        """Return the angles about the axis of N pairs at which the points (B, K, 2) of a view each are, (N, K)."""
        _, away, normal = frame
        rays = self._rays(at, R, f, self.principal)[view]
        return torch.atan2((rays @ normal[..., None])[..., 0], (rays @ away[..., None])[..., 0])

    def _bulges(
        self, view: torch.Tensor, angle: torch.Tensor, R: torch.Tensor, f: torch.Tensor, frame: tuple[torch.Tensor, ...]
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return where outlines bulge (1 to larger angles, −1 to smaller, 0), and angles a pixel, both (N, K)."""
        o = self.outlines
        out = self._angles(view, R, f, frame, o.outwards)
        a, b = angle.gather(1, o.before[view]), angle.gather(1, o.after[view])
        up = (angle >= a) & (angle > b) & (out > angle)
        down = (angle <= a) & (angle < b) & (out < angle)
        return (up.int() - down.int()) * o.usable[view], 2 * (out - angle).abs()

    def residuals(self, touch: _Touch, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """Return how far touches are apart, in pixels, (N,), of views moved by x (N, 7) and y (N, 7)."""
        first, second = self.first[touch.pair], self.second[touch.pair]
        parts = [self.moves.parts(z, view) for z, view in ((x, first), (y, second))]
        axis, away, normal = self._frame(parts[0][1], parts[1][1])
        angles, sizes = [], []
        for (R, _, f), view, point in zip(parts, (first, second), (touch.first, touch.second), strict=True):
            ray = self._rays(self.outlines.at[view, point][:, None], R, f, self.principal[view])[:, 0]
            up, ahead = (ray * normal).sum(-1), (ray * away).sum(-1)
            angles.append(torch.atan2(up, ahead))
            # How much a pixel across the plane changes its angle.
            across = torch.nn.functional.normalize((R @ torch.linalg.cross(axis, ray)[..., None])[..., 0], dim=-1)
            pixel = 2.0 / min(self.size) / f.mean(-1)
            sizes.append((across[:, :2].norm(dim=-1) * pixel / torch.hypot(up, ahead)).detach())
        return (angles[0] - angles[1]) / torch.hypot(*sizes).clamp_min(1e-12)

    def solve(self, prior: Prior, free: torch.Tensor | None = None) -> torch.Tensor:
        """Return moves x (B, 7) of the cameras.

        Gauss–Newton on all touches and on the prior; large residuals count little, as of false touches.

        Args:
            prior: how far they may be off.
            free: which views (B,) move; None: all.
        """
        moves = self.moves
        count = len(moves)
        x = torch.zeros(count, 7, dtype=torch.float64)
        if free is None:
            free = torch.ones(count, dtype=torch.bool)
        for turn in range(_ITERATIONS):
            touch = self.touches(x, turn >= _OUTER)
            first, second = self.first[touch.pair], self.second[touch.pair]
            a, b = x[first].requires_grad_(), x[second].requires_grad_()
            r = self.residuals(touch, a, b)
            slopes = torch.autograd.grad(r.sum(), (a, b)) if len(r) else (a.detach(), b.detach())
            r = r.detach()
            middle = float(r.abs().median()) if len(r) else 0.0
            weight = 1 / (1 + (r / (2 * max(1.4826 * middle, _NOISE))).square()) / _NOISE**2
            A, g = prior.normal_equations(moves, x)
            for i, J in zip((first, second), slopes, strict=True):
                g.index_add_(0, i, J * (weight * r)[:, None])
                for k, L in zip((first, second), slopes, strict=True):
                    A.view(-1, 7, 7).index_add_(0, i * count + k, (weight[:, None] * J)[:, :, None] * L[:, None, :])
            A, g = A[free][:, free], g[free]
            step = torch.linalg.solve(A.permute(0, 2, 1, 3).reshape(2 * (g.numel(),)), -g.reshape(-1)).reshape(g.shape)
            x[free] += step
            if turn > _OUTER and float(step.abs().max()) < _ENOUGH:
                break
        return x


def _matched(
    angle: list[torch.Tensor],
    bulge: list[torch.Tensor],
    size: Sequence[torch.Tensor],
    seen: torch.Tensor,
    ends: list[torch.Tensor],
    start: int,
) -> _Touch:
    """Return inner touches that are each other's nearest, within reach: of bulges (N, K) of the two views."""
    rows, points, keys, sizes = [], [], [], []
    for a, b, s, end in zip(angle, bulge, size, ends, strict=True):
        b = b & seen[:, None]
        b[torch.arange(len(b)), end] = False  # the outermost have their own
        row, point = b.nonzero().unbind(1)
        key = 8.0 * row + a[row, point].clamp(-3, 3)  # angles of one pair are near, of two are not
        order = key.argsort(stable=True)
        rows.append(row[order])
        points.append(point[order])
        keys.append(key[order])
        sizes.append(s[row, point][order])
    if not len(keys[0]) or not len(keys[1]):
        none = torch.zeros(0, dtype=torch.int64)
        return _Touch(none, none, none)
    to, back = _nearest(keys[0], keys[1]), _nearest(keys[1], keys[0])
    mine = torch.arange(len(to))
    gap = (keys[0] - keys[1][to]).abs() / torch.hypot(sizes[0], sizes[1][to]).clamp_min(1e-12)
    good = (back[to] == mine) & (rows[0] == rows[1][to]) & (gap < _REACH)
    return _Touch(start + rows[0][good], points[0][good], points[1][to[good]])


def _nearest(keys: torch.Tensor, others: torch.Tensor) -> torch.Tensor:
    right = torch.searchsorted(others, keys).clamp(1, max(len(others) - 1, 1))
    right = right.clamp(max=len(others) - 1)
    left = (right - 1).clamp_min(0)
    return torch.where((keys - others[left]).abs() <= (others[right] - keys).abs(), left, right)
