# SPDX-License-Identifier: Apache-2.0
"""Projected faces: near clipping of triangles into polygons, and the signed distance to those polygons."""

from typing import NamedTuple

import torch

from geodiff.modes import outside_autocast
from geodiff.validation import shapes_repr

DEGENERATE = 8.0
"""A polygon is degenerate where `|2·area| ≤ DEGENERATE·eps·m`, with `eps` of the dtype and m the smaller of `(longest
edge)²` and `Σ |x·Δy| + |y·Δx|` over its edges: what rounding can make of an area, also of one that is far wider than
high, as the ground under a camera is."""


class Polygons(NamedTuple):
    """Convex polygons of three or four vertices in the image plane, padded by repeating the last vertex.

    Attributes:
        points: vertices in NDC, `(P, 4, 2)`.
        counts: how many of the four are meant: 3 or 4, or 0 for a polygon that contributes nothing, `(P,)`.
        depth: depth of each vertex, `(P, 4)`.
        w: the divisor of each vertex (its depth for a perspective camera, 1 for an orthographic one), `(P, 4)`.
    """

    def __repr__(self) -> str:
        return shapes_repr(self)

    points: torch.Tensor
    counts: torch.Tensor
    depth: torch.Tensor
    w: torch.Tensor

    def select(self, index: torch.Tensor) -> "Polygons":
        """Return the polygons at `index`, in that order."""
        return Polygons(self.points[index], self.counts[index], self.depth[index], self.w[index])


@outside_autocast
def near_clip(corners: torch.Tensor, near: float) -> Polygons:
    """Clip triangles against the plane `depth = near` and project what is left.

    The clipping is that of Sutherland and Hodgman ("Reentrant polygon clipping", 1974) for one plane: a corner stays
    where `depth > near`, and an edge with one such end is cut where its depth is `near`. Position, depth and `w` are
    linear along the edge. The cut is computed from the visible end, so that two faces sharing an edge share the cut.

    Args:
        corners: triangles in clip coordinates `(x·w, y·w, depth, w)`, `(P, 3, 4)`; `w > 0` wherever `depth > near`.
        near: depth of the near plane, positive.

    Returns:
        One polygon a triangle. `counts` is 0 for a triangle wholly behind the plane and for a degenerate polygon.

    Gradients: exact in `corners`, also through the position of the cut. Corners of a polygon that contributes nothing
    get zeros, never NaN.

    Example:
        >>> corners = torch.tensor([[[0.0, 0.0, 2.0, 2.0], [2.0, 0.0, 2.0, 2.0], [0.0, 2.0, 0.0, 0.0]]])
        >>> near_clip(corners, near=1.0).points[0]
        tensor([[0., 0.],
                [1., 0.],
                [1., 1.],
                [0., 1.]])
    """
    following = corners.roll(-1, dims=1)
    inside = corners[..., 2] > near
    crosses = inside != inside.roll(-1, dims=1)
    seen = torch.where(inside[..., None], corners, following)
    hidden = torch.where(inside[..., None], following, corners)
    fall = torch.where(crosses, seen[..., 2] - hidden[..., 2], 1.0)
    # The shares of both ends: one less the other has no digits where a corner is far beyond the plane.
    along = torch.where(crosses, (seen[..., 2] - near) / fall, 0.0)[..., None]
    rest = torch.where(crosses, (near - hidden[..., 2]) / fall, 1.0)[..., None]
    cut = torch.cat(
        [rest * seen[..., :2] + along * hidden[..., :2], seen[..., 2:] + along * (hidden - seen)[..., 2:]], -1
    )

    # With w = depth, both are `near` at the cut: a difference of far depths would lose it.
    same = (seen[..., 2] == seen[..., 3]) & (hidden[..., 2] == hidden[..., 3])
    exact = cut.detach().clone()
    exact[..., 2:] = torch.where(same[..., None], near, exact[..., 2:])
    cut = cut - cut.detach() + exact

    # Walk around the triangle: corner 0, cut 01, corner 1, cut 12, corner 2, cut 20; keep those that exist, in order.
    candidates = torch.stack([corners, cut], dim=2).reshape(-1, 6, 4)
    exists = torch.stack([inside, crosses], dim=2).reshape(-1, 6)
    counts = exists.sum(dim=1)
    walk = (~exists).to(torch.uint8).argsort(dim=1, stable=True)
    slots = torch.minimum(torch.arange(4, device=corners.device), (counts[:, None] - 1).clamp(min=0))
    vertices = candidates.gather(1, walk.gather(1, slots)[..., None].expand(-1, -1, 4))

    depth = vertices[..., 2]
    w = torch.where(counts[:, None] > 0, vertices[..., 3], 1.0)
    points = vertices[..., :2] / w[..., None]
    return Polygons(points, torch.where(is_degenerate(points.detach()), 0, counts), depth, w)


def cross(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Return the cross product `a_x·b_y − a_y·b_x` of plane vectors `(..., 2)`."""
    return a[..., 0] * b[..., 1] - a[..., 1] * b[..., 0]


def doubled_area(points: torch.Tensor) -> torch.Tensor:
    """Return twice the signed area of padded polygons `(P, 4, 2)`, positive when counter-clockwise."""
    arms = points[:, 1:] - points[:, :1]
    return cross(arms[:, 0], arms[:, 1]) + cross(arms[:, 1], arms[:, 2])


def is_degenerate(points: torch.Tensor, epsilon: float | None = None) -> torch.Tensor:
    """Whether padded polygons `(P, 4, 2)` are too thin, for their dtype or an epsilon, to have an inside."""
    epsilon = torch.finfo(points.dtype).eps if epsilon is None else epsilon
    edges = points.roll(-1, dims=1) - points
    longest = (edges * edges).sum(dim=-1).amax(dim=1)
    terms = (points * edges.flip(-1)).abs().sum(dim=(-2, -1))
    longest = torch.minimum(longest, terms)
    # Written so that NaN, from an overflow far outside the image, counts as degenerate.
    return ~(doubled_area(points).abs() > DEGENERATE * epsilon * longest)


@outside_autocast
def signed_distance(points: torch.Tensor, polygons: Polygons, *, squared: bool = False) -> torch.Tensor:
    """Return the signed distance from points to the boundaries of polygons, positive inside.

    Where an edge is nearest, this is the signed distance `n·(q − a)` to its line (`n` the inner normal, `a` its first
    vertex, `q` the point); where a vertex is nearest, the distance to the vertex. Everything is computed relative to a
    vertex, so a small polygon far from the origin keeps its relative accuracy.

    Args:
        points: `(M, 2)`, NDC.
        polygons: P polygons, from `near_clip`.
        squared: return `sign(d)·d²` instead of `d`, without a square root on the way.

    Returns:
        `(M, P)`, NDC (NDC² if `squared`); `−inf` for polygons with `counts` 0.

    Gradients: exact in `points` and `polygons.points`, through the nearest feature; on the medial axis through the
    edge that comes first. On an edge (`d = 0`) the gradient is the edge's inner normal. On a vertex it is the normal of
    one of its two edges: as the signed distance to a convex set is concave, that is a supergradient, between the
    one-sided derivatives. The squared form has the gradient `2·|d|·∇d`, zero there. Polygons with `counts` 0 get zeros.

    Example:
        >>> triangle = torch.tensor([[[0.0, 0.0, 1.0, 1.0], [1.0, 0.0, 1.0, 1.0], [0.0, 1.0, 1.0, 1.0]]])
        >>> signed_distance(torch.tensor([[0.25, 0.125], [-3.0, -4.0]]), near_clip(triangle, near=0.01))
        tensor([[ 0.1250],
                [-5.0000]])
    """
    drawn = polygons.counts.nonzero()[:, 0]
    empty = points.new_full((len(points), len(polygons.counts)), -torch.inf)
    return empty.index_copy(1, drawn, _signed_distance(points, polygons.points[drawn], squared))


def contains(points: torch.Tensor, polygons: Polygons) -> torch.Tensor:
    """Say which points lie inside of polygons or on their boundaries.

    Two polygons judge a point beside their common edge by the same numbers, so that none falls between them.

    Args:
        points: `(M, 2)`, NDC.
        polygons: P polygons that contribute, from `near_clip`.

    Returns:
        `(M, P)`, bool.

    Gradients: none.

    Example:
        >>> triangle = torch.tensor([[[0.0, 0.0, 1.0, 1.0], [1.0, 0.0, 1.0, 1.0], [0.0, 1.0, 1.0, 1.0]]])
        >>> contains(torch.tensor([[0.5, 0.5], [0.5, 0.75]]), near_clip(triangle, near=0.01))
        tensor([[ True],
                [False]])
    """
    a = polygons.points.detach()
    b = a.roll(-1, dims=1)
    first, second, ahead = _in_order(a, b)
    along = second - first
    none = only_rounding(a, b, polygons.counts[:, None])
    turn = doubled_area(a).sign()[:, None] * ahead
    along = torch.where(none[..., None], 0.0, along * turn[..., None])
    arm = points[:, None, None] - first
    return (along[..., 0] * arm[..., 1] >= along[..., 1] * arm[..., 0]).all(dim=-1)


def only_rounding(a: torch.Tensor, b: torch.Tensor, counts: torch.Tensor) -> torch.Tensor:
    """Say which edges from a to b `(..., 2)`, of polygons of `counts` corners, have no direction: without gradients.

    They are the padding, and a corner that lies on the near plane with the cut at its position. The rounding is that of
    their own two ends: another cut may be a million times as far away.
    """
    a, b = a.detach(), b.detach()
    far = torch.maximum(a.abs().amax(dim=-1), b.abs().amax(dim=-1))
    return (b - a).abs().amax(dim=-1) <= torch.where(counts == 4, 64 * torch.finfo(a.dtype).eps * far, 0.0)


def _in_order(a: torch.Tensor, b: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Put the ends `(..., 2)` of edges in one order, whatever the face, and return 1, or −1 where they changed places.

    The nearer to the middle of the image comes first: points are measured from it, and cuts that are far away cost no
    digits.
    """
    with torch.no_grad():
        at_a, at_b = a.abs().amax(dim=-1), b.abs().amax(dim=-1)
        swap = (b[..., 0] < a[..., 0]) | ((b[..., 0] == a[..., 0]) & (b[..., 1] < a[..., 1]))
        swap = torch.where(at_a == at_b, swap, at_b < at_a)
        ahead = torch.where(swap, -1.0, 1.0).to(a)
    return torch.where(swap[..., None], b, a), torch.where(swap[..., None], a, b), ahead


def line_distances(points: torch.Tensor, polygons: Polygons) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the signed distances from points to the lines of all edges of polygons, positive on the inner side.

    Args:
        points: `(M, 2)`, NDC.
        polygons: P polygons that contribute, from `near_clip`.

    Returns:
        Distances in NDC, `(M, P, 4)`, and which of the four edges have a line, `(P, 4)` bool: three for a triangle, and
        none for an edge between a corner that lies on the near plane and the cut at the same position.

    Gradients: exact in `points` and `polygons.points`.

    Example:
        >>> triangle = torch.tensor([[[0.0, 0.0, 1.0, 1.0], [1.0, 0.0, 1.0, 1.0], [0.0, 1.0, 1.0, 1.0]]])
        >>> line_distances(torch.tensor([[0.25, -0.125]]), near_clip(triangle, near=0.01))[0][0, 0, [0, 3]]
        tensor([-0.1250,  0.2500])
    """
    return paired_line_distances(points[:, None], polygons)


def paired_line_distances(points: torch.Tensor, polygons: Polygons) -> tuple[torch.Tensor, torch.Tensor]:
    """Return `line_distances` of points `(..., P, 2)`, each to the polygon of its own number, `(..., P, 4)`."""
    a = polygons.points
    first, second, ahead = _in_order(a, a.roll(-1, dims=1))
    along = second - first
    length2 = (along * along).sum(dim=-1)
    has_line = ~only_rounding(a, a.roll(-1, dims=1), polygons.counts[:, None]) & (length2 > 0)  # it may underflow
    length = torch.where(has_line, length2, 1.0).sqrt()
    winding = doubled_area(a.detach()).sign()[:, None] * ahead
    return winding * cross(along, points[..., None, :] - first) / length, has_line


def _signed_distance(points: torch.Tensor, vertices: torch.Tensor, squared: bool) -> torch.Tensor:
    # Which edge is nearest, and on which side the point is, are chosen first and carry no gradient.
    with torch.no_grad():
        edge, inside = _nearest_edge(points, vertices)
        winding = doubled_area(vertices).sign()
    polygon = torch.arange(len(vertices), device=vertices.device)
    a, b, ahead = _in_order(vertices[polygon, edge], vertices[polygon, (edge + 1) % 4])
    along = b - a
    arm = points[:, None] - a
    length = torch.linalg.vector_norm(along, dim=-1)
    t = ((arm * along).sum(dim=-1) / length / length).detach()
    to_vertex = points[:, None] - torch.where((t <= 0)[..., None], a, b)
    vertex2 = (to_vertex * to_vertex).sum(dim=-1)

    # The line's distance times the edge's length. Exactly on the line either sign would do for the value, and only this
    # one has the inner normal as its gradient.
    side = winding * ahead * cross(along, arm)
    side = torch.where((side != 0) & ((side > 0) != inside), -side, side)
    on_edge = ((t > 0) & (t < 1)) | (vertex2 == 0)
    sign = inside.to(points.dtype) * 2 - 1
    side = side / length  # not by its square, which in the backward pass of a tiny edge overflows
    if squared:
        return torch.where(on_edge, side * side.abs(), sign * vertex2)
    return torch.where(on_edge, side, sign * torch.where(on_edge, 1.0, vertex2).sqrt())


def _nearest_edge(points: torch.Tensor, vertices: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the index of the nearest edge of each polygon, `(M, P)`, and whether the point is inside."""
    a = vertices
    b = vertices.roll(-1, dims=1)
    first, second, ahead = _in_order(a, b)
    along = second - first
    length2 = (along * along).sum(dim=-1)
    has_length = length2 > 0  # the padding, and a corner that lies exactly on the near plane, have none
    length2 = torch.where(has_length, length2, 1.0)
    arm = points[:, None, None] - a
    arm_b = points[:, None, None] - b
    from_first = points[:, None, None] - first
    side = cross(along, from_first) * ahead
    t = (from_first * along).sum(dim=-1) / length2
    line2 = side * (side / length2)
    vertex2 = torch.minimum((arm * arm).sum(dim=-1), (arm_b * arm_b).sum(dim=-1))
    distance2 = torch.where((t > 0) & (t < 1), line2, vertex2).masked_fill(~has_length, torch.inf)

    # The winding number, not one half-plane after another: an edge so short that rounding decides its direction (a
    # corner barely in front of the near plane) then only matters as far as it reaches.
    upward = (arm[..., 1] >= 0) & (arm_b[..., 1] < 0) & (side > 0)
    downward = (arm[..., 1] < 0) & (arm_b[..., 1] >= 0) & (side < 0)
    inside = upward.sum(dim=-1) != downward.sum(dim=-1)
    return distance2.argmin(dim=-1), inside
