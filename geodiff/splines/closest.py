# SPDX-License-Identifier: Apache-2.0
"""Closest points of splines: Newton's method from a safe start, with implicit gradients."""

import dataclasses
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from scipy.spatial import cKDTree

from geodiff import implicit
from geodiff.modes import outside_autocast, refuse_transforms
from geodiff.reference.spline import find_span
from geodiff.scene.anchor import anchor
from geodiff.splines.basis import wrap
from geodiff.splines.spline import AXIS_NAMES, NURBS
from geodiff.validation import common_batch, fail, floating, promote, shapes_repr

_ITERATIONS = 100
_HOPS = 20
# How many points are searched for at once, which bounds the memory.
_ROWS = 8192
# A gradient below this many times its own rounding counts as zero: to stop, and to call the result converged.
_STOP, _CONVERGED = 4, 2**14


@dataclasses.dataclass(frozen=True)
class ClosestPoint:
    """The points of a spline closest to given ones.

    Attributes:
        parameters: where they are, one `(..., N)` an axis, in the domain.
        points: they themselves, `(..., N, D)`.
        distance: `(..., N)`, >= 0.
        converged: `(..., N)` bool: the tangents are at right angles to the difference, or the domain ends there.
    """

    __repr__ = shapes_repr

    parameters: tuple[torch.Tensor, ...]
    points: torch.Tensor
    distance: torch.Tensor
    converged: torch.Tensor


class _Box(NamedTuple):
    """The smooth piece of a spline that a parameter is in, which ends where the domain does, or at a kink."""

    low: torch.Tensor  # start of the piece, `(..., M, axes)`, −inf where a periodic axis has none
    high: torch.Tensor  # end of it; a kink belongs to the piece after it, so there the last number before
    low_knot: torch.Tensor  # index of the knot at the start, in the opened vector
    high_knot: torch.Tensor  # index of the knot at the end


@outside_autocast
def closest_point(
    spline: NURBS,
    points: Any,
    start: Sequence[Any] | None = None,
    samples: int | None = None,
    starts: int = 3,
) -> ClosestPoint:
    """Find the points of a spline (curve, surface or volume) that are closest to given ones.

    Newton's method on the squared distance (Piegl and Tiller, "The NURBS Book", 1997, section 6.1), Gauss–Newton
    where it is not convex, with steps that shrink until they help, from the nearest of many samples of each span. The
    result is never farther than the nearest sample; features finer than a sample may be missed, and so may points very
    near a pole or the tip of a cone, where Newton's method can stop and call itself converged. Pieces between kinks
    (knots repeated P times or more) are searched apart, so that a kink can be the closest point.

    Args:
        spline: any NURBS; its batch broadcasts with that of the points.
        points: q, `(..., N, D)`.
        start: parameters to start from, one `(..., N)` an axis, for instance those found before a small change; the
            result is then the nearest minimum, not that of the whole spline. Left out, the samples serve.
        samples: how many along each axis of a span; left out, enough for its degree.
        starts: how many samples, not next to each other, to go on from.

    Returns:
        a `ClosestPoint`. It is computed in float64, and rounded to the widest dtype of what came.

    Gradients, of first order, in control points, weights, knots and the query points: of `parameters` and `points`,
    implicit, through `S_i · (S − q) = 0`; where a parameter is at the end of the domain or at a kink, it follows the
    knot there. Where they are not determined (the centre of a circle, a pole), the part that is not is zero. Of
    `distance`, by the envelope theorem; zero where the distance is zero. None in `start`.

    Raises:
        TypeError: a `spline` that is not a NURBS; points that are not numbers.
        ValueError: points with another number of coordinates than the spline's, batches that do not broadcast, a
            start of another shape, too few samples or starts, NaN.

    Example:
        >>> import torch, geodiff as gd
        >>> line = gd.NURBSCurve(torch.tensor([[0.0, 0.0], [2.0, 0.0]]), degree=1)
        >>> found = closest_point(line, torch.tensor([[0.5, 1.0], [5.0, 4.0]]))
        >>> found.parameters[0], found.distance
        (tensor([0.2500, 1.0000]), tensor([1., 5.]))
    """
    if not isinstance(spline, NURBS):
        raise fail("closest_point", "spline", "a NURBSCurve, NURBSSurface or NURBSVolume", spline, error=TypeError)
    query = promote("closest_point", points=points)["points"]
    refuse_transforms(
        "closest_point",
        "Take gradients with torch.autograd.grad or .backward().",
        query,
        *spline.knots,
        spline.control_points,
    )
    fix = "They need as many coordinates as the control points."
    floating("closest_point", "points", query, ("...", "N", spline.dim), fix, finite=False)
    dtype = torch.promote_types(query.dtype, spline.dtype)
    for name, count, least in (("samples", samples, 1), ("starts", starts, 1)):
        if count is not None and (not isinstance(count, int) or count < least):
            raise fail("closest_point", name, f"an integer of {least} or more", count)
    try:
        batch = common_batch(spline.batch_shape, query.shape[:-2])
    except RuntimeError:
        text = f"{tuple(spline.batch_shape)} and {tuple(query.shape[:-2])}"
        raise fail("closest_point", "points", "of a batch that broadcasts with the spline's", text) from None
    spline = spline.to(dtype=torch.float64).replace(outside="extend")
    # Far from the origin distances are differences of large numbers.
    origin = anchor(spline.control_points.flatten(-spline.axes - 1, -2))
    spline = spline.replace(control_points=spline.control_points - origin[(..., *(None,) * spline.axes, slice(None))])
    query = (query.to(spline.device, torch.float64) - origin[..., None, :]).expand(*batch, *query.shape[-2:])
    with torch.no_grad():
        fixed, at = spline.detach(), query.detach()
        if start is None:
            sampled = _Samples(fixed, samples)
            parts = [(x, sampled.starts(x, starts)) for x in at.split(_ROWS, -2)]
        else:
            warm = _given(fixed, start, at.shape[:-1])
            parts = list(zip(at.split(_ROWS, -2), warm.split(_ROWS, -3), strict=True))
        found = [_search(fixed, x, u) for x, u in parts]
        u = torch.cat([u for u, _ in found], -2)
        box = _Box(*(torch.cat(columns, -2) for columns in zip(*(b for _, b in found), strict=True)))
        converged = _converged(fixed, at, u, box)
    parameters, nearest, distance = _attached(spline, query, u, box)
    names = tuple(x.to(dtype) for x in parameters.unbind(-1))
    return ClosestPoint(names, (nearest + origin[..., None, :]).to(dtype), distance.to(dtype), converged)


# Where to start -------------------------------------------------------------------------------------------------------


class _Samples:
    """Samples of each span, to start from: their parameters, points and tangents."""

    def __init__(self, spline: NURBS, samples: int | None) -> None:
        self.spline = spline
        self.grid: list[torch.Tensor] = []
        self.pieces: list[torch.Tensor] = []
        self.before: list[torch.Tensor] = []
        self.after: list[torch.Tensor] = []
        for knots, p in zip(spline._opened_knots(), spline.degrees, strict=True):
            count = samples or (max(8, 4 * p) if spline.axes < 3 else max(3, 2 * p + 1))
            domain = knots[..., p : knots.shape[-1] - p]
            spans = domain.diff(dim=-1)
            used = (spans > 0).reshape(-1, spans.shape[-1]).any(0).nonzero()[:, 0]
            steps = torch.arange(count, dtype=knots.dtype, device=knots.device) / count
            inner = domain[..., used, None] + spans[..., used, None] * steps
            u = torch.cat([inner.flatten(-2), domain[..., -1:]], -1)
            self.grid.append(u)
            self.pieces.append(_piece(knots, u, p)[0])
            # How far the next samples are: nothing, where the domain ends.
            for gaps, sides in ((self.before, (1, 0)), (self.after, (0, 1))):
                gaps.append(torch.nn.functional.pad(u.diff(dim=-1), sides))
        jet = spline.derivatives(*self.grid, order=1, grid=True)
        flat = {order: x.flatten(-spline.axes - 1, -2) for order, x in jet.items()}
        self.points = flat[(0,) * spline.axes]
        self.tangents = [flat[tuple(int(i == j) for j in range(spline.axes))] for i in range(spline.axes)]
        # One spline: one tree for all batches of points.
        trees = self.points.expand(*spline.batch_shape, *self.points.shape[-2:]).cpu()
        self.trees = [cKDTree(x) for x in trees.reshape(-1, *trees.shape[-2:]).numpy()]

    def starts(self, query: torch.Tensor, starts: int) -> torch.Tensor:
        """Return for each point the parameters `(..., N, starts, axes)` of near samples that are not neighbours."""
        near = self._nearest(query, min(self.points.shape[-2], 5**self.spline.axes * starts))
        along = torch.unravel_index(near, tuple(u.shape[-1] for u in self.grid))  # one (..., N, count) an axis
        where = torch.stack(along, -1)
        u, piece, before, after = (
            torch.stack([_look_up(x, i) for x, i in zip(table, along, strict=True)], -1)
            for table in (self.grid, self.pieces, self.before, self.after)
        )
        promise = self._promise(query, near, u, before, after)
        # Take the nearest, then the most promising, but none next to (in the same smooth piece) one that was taken.
        pick = torch.zeros_like(near[..., :1, None])
        chosen = []
        for _ in range(starts):
            chosen.append(_take(u, pick))
            close = ((where - _take(where, pick)).abs() <= 1).all(-1) & (piece == _take(piece, pick)).all(-1)
            promise = promise.masked_fill(close, torch.inf)
            pick = promise.argmin(-1)[..., None, None]
        return torch.cat(chosen, -2)

    def _nearest(self, query: torch.Tensor, count: int) -> torch.Tensor:
        """Return the indices `(..., N, count)` of the samples nearest to each point, the nearest first."""
        near = torch.empty(*query.shape[:-1], count, dtype=torch.int64)
        trees = self.trees
        if len(trees) > 1:  # points may have batch axes that the splines lack
            index = torch.arange(len(trees)).reshape(self.spline.batch_shape).expand(query.shape[:-2])
            trees = [trees[i] for i in index.flatten().tolist()]
        shape = (len(trees), query.shape[:-1].numel() // len(trees))
        points, found = query.cpu().reshape(*shape, query.shape[-1]).numpy(), near.view(*shape, count).numpy()
        for i, tree in enumerate(trees):
            found[i] = tree.query(points[i], k=range(1, count + 1))[1]
        return near.to(query.device)

    def _promise(
        self, query: torch.Tensor, near: torch.Tensor, u: torch.Tensor, before: torch.Tensor, after: torch.Tensor
    ) -> torch.Tensor:
        """Return how near to the query one step from each near sample gets, squared: that of the tangent plane, cut.

        Taken on the spline itself and not past the next sample or the end of the domain: a tangent plane that leaves
        the spline there would promise too much, and at the tip of a cone all the wrong sides.
        """
        reach = torch.maximum(before, after)

        def at_samples(x: torch.Tensor) -> torch.Tensor:
            x = x.expand(*near.shape[:-2], *x.shape[-2:])
            return _take(x, near.flatten(-2)[..., None]).unflatten(-2, near.shape[-2:])

        offset = at_samples(self.points) - query[..., None, :]
        tangents = torch.stack([at_samples(x) for x in self.tangents], -2) * reach[..., None]
        gauss = tangents @ tangents.mT
        eye = torch.eye(gauss.shape[-1], dtype=gauss.dtype, device=gauss.device)
        gauss = gauss + 1e-9 * (gauss.diagonal(dim1=-2, dim2=-1).amax(-1)[..., None, None] + 1e-300) * eye
        move = -torch.linalg.solve(gauss, tangents @ offset[..., None])[..., 0].nan_to_num()  # no tangents: degree 0
        move = torch.minimum(torch.maximum(move, -before / reach), after / reach)
        to = (u + move * reach).flatten(-3, -2)
        there = self.spline(*to.unbind(-1)).unflatten(-2, near.shape[-2:]) - query[..., None, :]
        return torch.minimum(there.square().sum(-1), offset.square().sum(-1))


def _look_up(table: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
    """Return entries of a table `(..., S)` at indices `(..., N, count)`."""
    table = table.expand(*index.shape[:-2], table.shape[-1])
    return table.gather(-1, index.flatten(-2)).reshape(index.shape)


def _given(spline: NURBS, start: Sequence[Any], shape: torch.Size) -> torch.Tensor:
    """Check the parameters to start from, and return them as `(..., N, 1, axes)`, brought into the domain."""
    if not isinstance(start, Sequence) or len(start) != spline.axes:
        raise fail("closest_point", "start", f"parameters along {', '.join(AXIS_NAMES[: spline.axes])}", start)
    columns = []
    for x, (low, high), wraps in zip(start, spline.domain, spline.periodic, strict=True):
        x = promote("closest_point", start=x)["start"].detach().to(spline.control_points)
        try:
            x = x.expand(shape)
        except RuntimeError:
            raise fail("closest_point", "start", f"of shape {tuple(shape)} along each axis", x) from None
        low, high = low[..., None], high[..., None]
        columns.append(wrap(x, low, high) if wraps else torch.minimum(torch.maximum(x, low), high))
    return torch.stack(columns, -1)[..., None, :]


# How to go on ---------------------------------------------------------------------------------------------------------


def _piece(knots: torch.Tensor, u: torch.Tensor, degree: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the indices of the knots between which the spline is smooth round each parameter."""
    count = knots.shape[-1]
    index = torch.arange(count, device=knots.device)
    more = max(degree - 1, 0)
    first = knots[..., : count - more] == knots[..., more:]  # the first of P equal knots
    pad = torch.nn.functional.pad
    kink = torch.stack([pad(first, (i, more - i)) for i in range(more + 1)]).any(0)
    kink = kink & (index >= degree) & (index < count - degree)
    before = torch.where(kink, index, degree).cummax(-1).values
    after = torch.where(kink, index, count - degree - 1).flip(-1).cummin(-1).values.flip(-1)
    span = find_span(knots, u, degree)
    before, after = (x.expand(*span.shape[:-1], count) for x in (before, after))
    return before.gather(-1, span), after.gather(-1, span + 1)


def _box(spline: NURBS, u: torch.Tensor) -> _Box:
    columns: list[list[torch.Tensor]] = [[], [], [], []]
    for i, (knots, p) in enumerate(zip(spline._opened_knots(), spline.degrees, strict=True)):
        before, after = _piece(knots, u[..., i], p)
        table = knots.expand(*before.shape[:-1], knots.shape[-1])
        low, high = table.gather(-1, before), table.gather(-1, after)
        last = knots.shape[-1] - p - 1
        high = torch.where((after < last) | spline.periodic[i], torch.nextafter(high, low), high)
        if spline.periodic[i] and p != 1:  # smooth all round
            low, high = torch.full_like(low, -torch.inf), torch.full_like(high, torch.inf)
        for column, x in zip(columns, (low, high, before, after), strict=True):
            column.append(x)
    return _Box(*(torch.stack(column, -1) for column in columns))


def _width(spline: NURBS) -> torch.Tensor:
    """Return the lengths of the domain, `(..., 1, axes)`: the unit in which steps and gradients are compared."""
    batch = spline.batch_shape
    return torch.stack([(high - low).detach().expand(batch) for low, high in spline.domain], -1)[..., None, :]


def _size(spline: NURBS) -> torch.Tensor:
    """Return how large coordinates are, `(..., 1)`: what rounding is relative to."""
    return spline.control_points.abs().flatten(-spline.axes - 1).amax(-1, keepdim=True)


def _take(x: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
    return torch.take_along_dim(x, index, -2)


def _slopes(spline: NURBS, query: torch.Tensor, u: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, dict]:
    """Return `S − q` `(..., M, D)`, the tangents `(..., M, axes, D)` and the jet, by the units of the domain."""
    jet = spline.derivatives(*u.unbind(-1), order=2)
    unit = [tuple(int(i == j) for j in range(spline.axes)) for i in range(spline.axes)]
    tangents = torch.stack([jet[o] for o in unit], -2) * _width(spline)[..., None]
    return jet[(0,) * spline.axes] - query, tangents, jet


def _search(spline: NURBS, query: torch.Tensor, starts: torch.Tensor) -> tuple[torch.Tensor, _Box]:
    """Go down from starts `(..., N, many, axes)`, and return the best end `(..., N, axes)` of each point's."""
    many = starts.shape[-2]
    each = query.repeat_interleave(many, -2)
    u = starts.flatten(-3, -2)
    box = _box(spline, u)
    u = _descend(spline, each, u, box, torch.zeros_like(u[..., 0], dtype=torch.bool))
    far = (spline(*u.unbind(-1)) - each).square().sum(-1)
    # Over a kink to the next piece, along one axis after the other, as long as that is nearer.
    for _ in range(_HOPS):
        moved = False
        for axis in range(spline.axes):
            over = _over(spline, u, box, axis)
            hop = over != u[..., axis]
            if not bool(hop.any()):
                continue
            to = torch.cat([u[..., :axis], over[..., None], u[..., axis + 1 :]], -1)
            other = _box(spline, to)
            to = _descend(spline, each, to, other, ~hop)
            there = (spline(*to.unbind(-1)) - each).square().sum(-1)
            better = hop & (there < far - 1e-12 * (far + _size(spline) ** 2))
            u, far = torch.where(better[..., None], to, u), torch.where(better, there, far)
            box = _Box(*(torch.where(better[..., None], b, a) for a, b in zip(box, other, strict=True)))
            moved = moved or bool(better.any())
        if not moved:
            break
    best = far.unflatten(-1, (-1, many)).argmin(-1)
    best = (best + many * torch.arange(query.shape[-2], device=best.device))[..., None]
    return _take(u, best), _Box(*(_take(x, best) for x in box))


def _over(spline: NURBS, u: torch.Tensor, box: _Box, axis: int) -> torch.Tensor:
    """Return the parameters along an axis, those at a kink on the other side of it."""
    low, high = (x[..., None] for x in spline.domain[axis])
    u, first, last = u[..., axis], box.low[..., axis], box.high[..., axis]
    before = torch.nextafter(first, torch.full_like(first, -torch.inf))
    after = torch.nextafter(last, torch.full_like(last, torch.inf))
    if spline.periodic[axis]:
        before = torch.where(first > low, before, torch.nextafter(high, low).expand_as(before))
        after = torch.where(after < high, after, low)
        return torch.where(u <= first, before, torch.where(u >= last, after, u))
    return torch.where((u <= first) & (first > low), before, torch.where((u >= last) & (last < high), after, u))


def _descend(spline: NURBS, query: torch.Tensor, u: torch.Tensor, box: _Box, done: torch.Tensor) -> torch.Tensor:
    """Go from the parameters u `(..., M, axes)` to a minimum of the squared distance in the same smooth piece."""
    u = torch.minimum(torch.maximum(u, box.low), box.high)
    length = torch.ones_like(u[..., :1])
    for _ in range(_ITERATIONS):
        left = int((~done).sum(-1).max()) if done.numel() else 0
        if left == 0:
            break
        # Only those that are not done; of a batch, as many of each as there are of the one with most.
        pick = done.to(torch.uint8).argsort(stable=True)[..., :left, None]
        part = _Box(*(_take(x, pick) for x in box))
        to, scale, stop = _step(spline, _take(query, pick), _take(u, pick), part, _take(length, pick))
        u = u.scatter(-2, pick.expand(to.shape), to)
        length = length.scatter(-2, pick, scale)
        done = done.scatter(-1, pick[..., 0], stop)
    ends = [(low[..., None], high[..., None]) for low, high in spline.domain]
    smooth = [wraps and p != 1 for wraps, p in zip(spline.periodic, spline.degrees, strict=True)]
    return torch.stack([wrap(x, *e) if w else x for x, e, w in zip(u.unbind(-1), ends, smooth, strict=True)], -1)


def _step(
    spline: NURBS, query: torch.Tensor, u: torch.Tensor, box: _Box, length: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Try one step of Newton's method, shortened to `length`: where to, the next length, and whether to stop."""
    width = _width(spline)
    offset, tangents, jet = _slopes(spline, query, u)
    slope = (tangents @ offset[..., None])[..., 0]
    held = (u <= box.low) & (slope > 0) | (u >= box.high) & (slope < 0)
    slope = torch.where(held, 0.0, slope)
    gauss = tangents @ tangents.mT
    hessian = gauss.clone()
    for i in range(spline.axes):
        for j in range(spline.axes):
            order = tuple(int(i == k) + int(j == k) for k in range(spline.axes))
            hessian[..., i, j] += (jet[order] * offset).sum(-1) * width[..., i] * width[..., j]
    scale = gauss.diagonal(dim1=-2, dim2=-1).amax(-1)[..., None, None]
    scale = torch.where(scale > 0, scale, 1.0)
    eye = torch.eye(spline.axes, dtype=u.dtype, device=u.device)
    loose = (~held[..., None] & ~held[..., None, :]).to(u.dtype)
    hessian, gauss = (h * loose + scale * eye * (1 - loose) for h in (hessian, gauss))
    convex = torch.linalg.cholesky_ex(hessian - 1e-12 * scale * eye).info == 0
    matrix = torch.where(convex[..., None, None], hessian, gauss + 1e-3 * scale * eye)
    way = -torch.linalg.solve(matrix, slope[..., None])[..., 0]
    way = way * (0.25 / way.abs().amax(-1, keepdim=True).clamp(min=0.25))  # at most a quarter of the domain
    to = torch.minimum(torch.maximum(u + length * way * width, box.low), box.high)
    before, after = (offset * offset).sum(-1), ((spline(*to.unbind(-1)) - query) ** 2).sum(-1)
    eps = torch.finfo(u.dtype).eps
    error = eps * before.sqrt() * (_size(spline) + before.sqrt())
    better = after <= before + 2e-4 * (slope * (to - u) / width).sum(-1) + 4 * error
    flat = _flat(slope, tangents, offset, _size(spline), _STOP)
    still = ((to - u).abs() <= eps * width).all(-1)
    stuck = ~better & (length[..., 0] < 1e-8)
    longer = torch.where(better[..., None], (4 * length).clamp(max=1.0), length / 4)
    return torch.where((better & ~flat)[..., None], to, u), longer, flat | still | stuck


def _flat(
    slope: torch.Tensor, tangents: torch.Tensor, offset: torch.Tensor, size: torch.Tensor, times: float
) -> torch.Tensor:
    """Whether all slopes are zero but for rounding, which is relative to the lengths that they are made of."""
    rounding = torch.finfo(slope.dtype).eps * (offset.norm(dim=-1) + size)
    return (slope.abs() <= times * rounding[..., None] * tangents.norm(dim=-1)).all(-1)


def _converged(spline: NURBS, query: torch.Tensor, u: torch.Tensor, box: _Box) -> torch.Tensor:
    offset, tangents, _ = _slopes(spline, query, u)
    slope = (tangents @ offset[..., None])[..., 0]
    held = (u <= box.low) & (slope > 0) | (u >= box.high) & (slope < 0)
    return _flat(torch.where(held, 0.0, slope), tangents, offset, _size(spline), _CONVERGED)


# Gradients ------------------------------------------------------------------------------------------------------------


def _attached(
    spline: NURBS, query: torch.Tensor, u: torch.Tensor, box: _Box
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return parameters, points and distance with their gradients."""
    width = _width(spline)
    ends = []
    for i, knots in enumerate(spline._opened_knots()):
        table = knots.expand(*u.shape[:-2], knots.shape[-1])
        low, high = table.gather(-1, box.low_knot[..., i]), table.gather(-1, box.high_knot[..., i])
        at = torch.where(u[..., i] >= box.high[..., i], high, low)
        ends.append(at - at.detach() + u[..., i])  # the number before a kink is not the kink
    end = torch.stack(ends, -1)
    held = (u <= box.low) | (u >= box.high)
    with torch.no_grad():
        offset, tangents, _ = _slopes(spline, query, u)
        scale = (tangents * tangents).sum(-1).amax(-1)
        scale = torch.where(scale > 0, scale, 1.0)
        slope = (tangents @ offset[..., None])[..., 0]
        # At the end of the domain but at right angles: the end does not hold it.
        held &= ~((u <= box.low) & (slope < 0) | (u >= box.high) & (slope > 0))

    def residual(move: torch.Tensor, end: torch.Tensor) -> torch.Tensor:
        offset, tangents, _ = _slopes(spline, query, u + move * width)
        slope = (tangents @ offset[..., None])[..., 0]
        return torch.where(held, scale[..., None] * (move - (end - end.detach()) / width), slope)

    parameters = u + implicit.root(torch.zeros_like(u), residual, end, scale=scale) * width
    points = spline(*parameters.unbind(-1))
    # By the envelope theorem the distance moves with the spline as if free parameters stood still.
    offset = spline(*torch.where(held, end, u).unbind(-1)) - query
    distance = torch.linalg.vector_norm(offset, dim=-1)
    rounding = 16 * torch.finfo(u.dtype).eps * _size(spline)
    apart = distance.detach() > rounding
    return parameters, points, torch.where(apart, distance, distance.detach())
