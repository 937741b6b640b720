# SPDX-License-Identifier: Apache-2.0
"""The visible outline of a mesh's image: which parts of which projected edges border on background."""

from typing import NamedTuple

import torch

from geodiff.modes import outside_autocast
from geodiff.reference.polygons import Polygons, contains, cross, doubled_area, is_degenerate, near_clip, only_rounding
from geodiff.validation import shapes_repr

PUSH = {torch.float32: 4e-6, torch.float64: 1e-10}
"""How far outside of an edge (NDC, times coordinates beyond 1) background must be seen for the edge to be outline.

Wider than the gaps that rounding opens between neighbours, far narrower than a pixel.
"""


class Outline(NamedTuple):
    """Pieces of projected edges that have background on one side.

    Attributes:
        face: the face whose polygon has the edge, `(L,)`, int64.
        edge: which edge of the polygon: from its vertex of this number to the next, `(L,)`, int64.
        along: where on the edge the piece begins and ends, 0…1, `(L, 2)`.
        partner: for each end, the piece's edge crosses that of this row of `segments` there; −1 where it ends in a
            vertex or where another edge ends, `(L, 2)`, int64.
        segments: `[face, edge]` of every candidate edge, `(C, 2)`, int64.
    """

    def __repr__(self) -> str:
        return shapes_repr(self)

    face: torch.Tensor
    edge: torch.Tensor
    along: torch.Tensor
    partner: torch.Tensor
    segments: torch.Tensor


@outside_autocast
def edge_cycles(faces: torch.Tensor, layout: torch.Tensor | None = None) -> torch.Tensor:
    """Link the sides of faces that lie on the same edge, in cycles.

    Side k of face f, from its corner k to the next, has the number `3·f + k`. Following the numbers from side to side
    leads through all faces at that edge, in ascending order, and back. The side of a boundary edge, and those of a face
    that names a vertex twice, lead to themselves.

    Args:
        faces: `(F, 3)`, indices local to the mesh.
        layout: `(B, 3)` rows `[vertex_start, face_start, face_count]`: faces of different meshes are no neighbours.
            Without it all faces are of one mesh.

    Returns:
        The number of the next side, `(F, 3)`, int32.

    Gradients: none.

    Example:
        >>> edge_cycles(torch.tensor([[0, 1, 2], [2, 1, 3]]))
        tensor([[0, 3, 2],
                [1, 4, 5]], dtype=torch.int32)
    """
    count = len(faces)
    faces = faces.long()
    mesh = torch.zeros(count, dtype=torch.int64, device=faces.device)
    if layout is not None and len(layout):
        # Ranges of faces that overlap are of one mesh: it begins where none of those before reaches.
        ranges = torch.unique(layout[layout[:, 2] > 0][:, 1:], dim=0)
        ranges = ranges.to(faces.device)
        ends = ranges.sum(dim=1).cummax(dim=0).values
        fresh = ranges[1:, 0] >= ends[:-1]
        mesh[ranges[:1, 0]] = 1
        mesh[ranges[1:, 0][fresh]] = 1
        mesh = mesh.cumsum(dim=0)
    sides = torch.arange(3 * count, device=faces.device)
    proper = (faces != faces.roll(-1, dims=1)).all(dim=1).repeat_interleave(3).nonzero()[:, 0]
    ends = torch.stack([faces, faces.roll(-1, dims=1)], dim=-1).reshape(-1, 2)[proper]
    width = int(faces.max()) + 1 if count else 1
    key = (mesh.repeat_interleave(3)[proper] * width + ends.amin(dim=1)) * width + ends.amax(dim=1)
    key, order = torch.sort(key, stable=True)
    own = sides[proper][order]
    first = torch.ones(len(own), dtype=torch.bool, device=faces.device)
    first[1:] = key[1:] != key[:-1]
    start = first.nonzero()[:, 0]
    last = torch.cat([start[1:], start.new_full((1,), len(own))])[: len(start)] - 1
    following = own.roll(-1)
    following[last] = own[start]
    sides[own] = following
    return sides.reshape(-1, 3).to(torch.int32)


def outline(corners: torch.Tensor, faces: torch.Tensor, near: float, chunk: int = 2**20) -> tuple[Polygons, Outline]:
    """Find the outline of one image: the boundary of the union of its projected faces.

    An edge is a candidate if all of its faces lie on one side of it in the image: boundary edges, edges between a face
    seen from the front and one seen from the back, and the cuts of the near plane. Candidates are cut where they cross
    or touch each other. A piece is outline if no face covers the point a tiny step outside of its middle.

    Args:
        corners: corners of the image's faces in clip coordinates, `(F, 3, 4)`.
        faces: the same corners as vertex numbers, `(F, 3)`: sides with the same ends are one edge.
        near: depth of the near plane.
        chunk: the most pairs held at a time.

    Returns:
        The projected faces in float64, and the outline's pieces in the order of faces, edges, and along the edge.

    Gradients: the polygons are differentiable in `corners`; which pieces are outline is not.
    """
    dtype = corners.dtype
    near = float(torch.tensor(near, dtype=dtype))  # the plane that the vertices' dtype can say
    corners = corners.double()
    polygons = near_clip(corners, near)
    with torch.no_grad():
        drawn = (polygons.counts > 0) & ~_degenerate(polygons.points, dtype)
        polygons = polygons._replace(counts=torch.where(drawn, polygons.counts, 0))
        segments = _candidates(corners, faces, polygons, near)
        pieces = _visible(segments, polygons, PUSH[dtype], chunk)
    return polygons, pieces


def covered(points: torch.Tensor, polygons: Polygons, chunk: int = 2**20) -> torch.Tensor:
    """Say whether each of the points `(M, 2)` is inside of a polygon or on its boundary, `(M,)` bool."""
    with torch.no_grad():
        own = polygons.select((polygons.counts > 0).nonzero()[:, 0])
        hits = [points.new_zeros(0, dtype=torch.bool)]
        for some in points.split(max(1, chunk // max(1, len(own.counts)))):
            hits.append(contains(some, own).any(dim=-1))
        return torch.cat(hits)


def _degenerate(points: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """Whether polygons are too thin for the dtype that the vertices came in."""
    return is_degenerate(points, torch.finfo(dtype).eps)


def _candidates(corners: torch.Tensor, faces: torch.Tensor, polygons: Polygons, near: float) -> torch.Tensor:
    """Return `[face, edge]` of the polygon edges all of whose faces are on one side, `(C, 2)`."""
    # Walking around a triangle, position 2i is corner i and position 2i + 1 the cut between corners i and i + 1.
    front = corners[..., 2] > near
    cut = front != front.roll(-1, dims=1)
    there = torch.stack([front, cut], dim=-1).reshape(-1, 6)
    position = (~there).to(torch.uint8).argsort(dim=1, stable=True)[:, :4]
    number = torch.arange(4, device=faces.device)
    following = torch.where(number + 1 < polygons.counts[:, None], (number + 1) % 4, 0)
    to = position.gather(1, following)
    meant = number < polygons.counts[:, None]
    # A polygon edge from a cut to a cut lies in the near plane; any other one on the side where it begins.
    clip_edge = meant & (position % 2 == 1) & (to % 2 == 1)
    side = position // 2

    ends = torch.stack([faces, faces.roll(-1, dims=1)], dim=-1)
    width = int(faces.max()) + 1 if len(faces) else 1
    _, edge = torch.unique(ends.amin(dim=-1) * width + ends.amax(dim=-1), return_inverse=True)
    winding = doubled_area(polygons.points).sign()[:, None]
    left = torch.where(ends[..., 0] < ends[..., 1], winding, -winding).gather(1, side) > 0
    own = edge.gather(1, side)
    count = int(edge.max()) + 1 if edge.numel() else 0
    sides = meant & ~clip_edge
    on_left = torch.zeros(count, dtype=torch.int64, device=faces.device).index_add(0, own[sides], left[sides].long())
    total = torch.zeros(count, dtype=torch.int64, device=faces.device).index_add(0, own[sides], sides[sides].long())
    one_sided = ((on_left == 0) | (on_left == total))[own] if count else sides

    rows = (clip_edge | (sides & one_sided)).nonzero()
    # An edge is listed once, with the first of its faces.
    key = torch.where(clip_edge[rows[:, 0], rows[:, 1]], count + torch.arange(len(rows)), own[rows[:, 0], rows[:, 1]])
    first = torch.full((count + len(rows),), len(rows)).scatter_reduce(0, key, torch.arange(len(rows)), "amin")
    rows = rows[first[key] == torch.arange(len(rows))]
    a, b = _ends(rows, polygons)
    there = ~only_rounding(a, b, polygons.counts[rows[:, 0]])
    return rows[there & (((b - a) * (b - a)).sum(dim=-1) > 0)]


def _ends(rows: torch.Tensor, polygons: Polygons) -> tuple[torch.Tensor, torch.Tensor]:
    face, edge = rows.unbind(-1)
    following = torch.where(edge + 1 < polygons.counts[face], edge + 1, 0)
    return polygons.points[face, edge], polygons.points[face, following]


def _visible(segments: torch.Tensor, polygons: Polygons, push: float, chunk: int) -> Outline:
    a, b = _ends(segments, polygons)
    e = b - a
    count = len(segments)
    length = torch.linalg.vector_norm(e, dim=-1)
    step = push * torch.cat([a, b], dim=1).abs().amax(dim=1).clamp(min=1.0) if count else length

    # Every row, cut by every column.
    arm = a[None] - a[:, None]
    area = cross(e[:, None], e[None])
    t = cross(arm, e[None]) / area
    s = cross(arm, e[:, None]) / area
    meets = torch.stack([(a[:, None] == p[None]).all(-1) | (b[:, None] == p[None]).all(-1) for p in (a, b)]).any(0)
    crosses = (t > 0) & (t < 1) & (s >= 0) & (s <= 1) & ~meets
    row, column = crosses.nonzero().unbind(-1)
    cuts = [(row, t[row, column], column)]
    for end in (a, b):
        to = end[None] - a[:, None]
        u = (to * e[:, None]).sum(dim=-1) / (length * length)[:, None]
        off = torch.linalg.vector_norm(to - u[..., None] * e[:, None], dim=-1)
        margin = 2 * step / length
        touches = (off <= 2 * step[:, None]) & (u > margin[:, None]) & (u < 1 - margin[:, None])
        row, column = touches.nonzero().unbind(-1)
        cuts.append((row, u[row, column], torch.full_like(row, -1)))
    for value in (0.0, 1.0):
        own = torch.arange(count)
        cuts.append((own, torch.full_like(length, value), torch.full_like(own, -1)))

    rows, along_edge, partners = (torch.cat(parts) for parts in zip(*cuts, strict=True))
    order = torch.argsort(along_edge, stable=True)
    order = order[torch.argsort(rows[order], stable=True)]
    rows, along_edge, partners = rows[order], along_edge[order], partners[order]
    same = (rows[1:] == rows[:-1]) & (along_edge[1:] > along_edge[:-1])
    begin = same.nonzero()[:, 0]
    row = rows[begin]
    along = torch.stack([along_edge[begin], along_edge[begin + 1]], dim=-1)
    partner = torch.stack([partners[begin], partners[begin + 1]], dim=-1)

    winding = doubled_area(polygons.points).sign()[segments[row, 0]]
    normal = torch.stack([e[row, 1], -e[row, 0]], dim=-1) * (winding / length[row])[:, None]
    middle = a[row] + along.mean(dim=-1, keepdim=True) * e[row]
    seen = ~covered(middle + step[row, None] * normal, polygons, chunk)
    row, along, partner = row[seen], along[seen], partner[seen]
    return Outline(segments[row, 0], segments[row, 1], along, partner, segments)
