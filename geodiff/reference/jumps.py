# SPDX-License-Identifier: Apache-2.0
"""The pure-torch twin of the search for where a hard image jumps."""

from typing import NamedTuple

import torch

from geodiff.modes import outside_autocast
from geodiff.reference.arguments import check_packed
from geodiff.reference.outline import edge_cycles
from geodiff.validation import fail, shapes_repr

_STEPS = 64  # faces that a walk between two neighbouring pixels crosses at most
_FANS = 8  # faces at one edge that are looked at
_ON_CENTRE = 1e-6  # pixels
_ROUNDS = 3  # of looking for the two faces that meet


class Jumps(NamedTuple):
    """Where a hard image jumps: mesh edges and meeting planes between neighbouring pixels of different surfaces.

    Attributes:
        pixels: the two pixels, in the flattened `(B·H·W)`: the second is right of the first or below it, `(P, 2)`.
        ends: the vertices, in the packed `(N, 4)`, of the edge between them, `(P, 2)`.
        share: ½ where something that neither pixel sees is between the two, so that this edge is one of two; else 1,
            `(P,)` float64.
        meeting_pixels: the pixels between which two surfaces go through each other, `(M, 2)`.
        corners: the vertices of the two faces that meet there, the first pixel's first, `(M, 2, 3)`.
    """

    def __repr__(self) -> str:
        return shapes_repr(self)

    pixels: torch.Tensor
    ends: torch.Tensor
    share: torch.Tensor
    meeting_pixels: torch.Tensor
    corners: torch.Tensor


@outside_autocast
def jumps(
    clip: torch.Tensor,
    faces: torch.Tensor,
    layout: torch.Tensor,
    face_id: torch.Tensor,
    *,
    near: float = 1e-2,
    edges: torch.Tensor | None = None,
    creases: bool = False,
) -> Jumps:
    """Find the visibility edges of a rasterised image.

    A side of a face is a candidate if the surface does not go on beyond it in the image: borders, and folds between
    what is seen from the front and from the back. It is a visibility edge between two neighbouring pixels if it crosses
    the line between their centres, if a walk over the surface from there leads to the face that the pixel on its side
    sees, and if what the other pixel sees is not in front of it there. Two surfaces meet between two pixels where each
    goes on from its own pixel to a place at which their depths are the same. Derivatives of a rasterised image at edges
    between pixels are an idea of Pidhorskyi et al., "Rasterized Edge Gradients" (2024).

    Args:
        clip: vertices of all images `(x·w, y·w, depth, w)`, `(N, 4)`, float32 or float64; see `Camera.to_clip`.
        faces: corners of all faces, `(F, 3)`, indices local to the image's mesh.
        layout: one row `[vertex_start, face_start, face_count]` an image, `(B, 3)`; images share no vertices.
        face_id: what each pixel sees, `(B, H, W)` int64, −1 for nothing, as `rasterize` returns it.
        near: depth of the near plane, positive.
        edges: `edge_cycles(faces, layout)`, if known.
        creases: also list edges inside a surface, between pixels of different faces: for what is constant on a face.

    Returns:
        `Jumps`, in float64 and int64.

    Gradients: none; `geodiff.render.visibility` makes them from the list.

    Example:
        >>> clip = torch.tensor([[-0.5, -3.0, 2.0, 1.0], [3.0, -3.0, 2.0, 1.0], [-0.5, 3.0, 2.0, 1.0]])
        >>> one = torch.tensor([[0, 1, 2]]), torch.tensor([[0, 0, 1]])
        >>> jumps(clip, *one, torch.tensor([[[-1, 0]]])).ends
        tensor([[2, 0]])
    """
    check_jumps("jumps", clip, faces, layout, face_id, near, edges)
    edges = edge_cycles(faces, layout) if edges is None else edges
    _, height, width = face_id.shape
    sheet = _Sheet(clip, faces, layout, edges)
    seen = face_id.reshape(-1)
    parts = [_edges(sheet, seen, height, width, axis, near) for axis in (0, 1)]
    meetings = []
    for step, (first, second) in ((1, _ACROSS), (width, _DOWN)):
        place = torch.arange(len(seen), device=seen.device).reshape(face_id.shape)
        differ = (face_id[first] != face_id[second]) & (face_id[first] >= 0) & (face_id[second] >= 0)
        p = place[first][differ]
        if creases:
            parts.append(_creases(sheet, seen, height, width, p, p + step))
        meetings.append(_meetings(sheet, seen, height, width, p, p + step))
    pixels, ends, share = (torch.cat(part) for part in zip(*parts, strict=True))
    meeting_pixels, corners = (torch.cat(part) for part in zip(*meetings, strict=True))
    return Jumps(pixels, ends, share, meeting_pixels, corners)


_ACROSS = (..., slice(None, -1)), (..., slice(1, None))
_DOWN = (slice(None), slice(None, -1)), (slice(None), slice(1, None))


def check_jumps(
    where: str,
    clip: torch.Tensor,
    faces: torch.Tensor,
    layout: torch.Tensor,
    face_id: torch.Tensor,
    near: float,
    edges: torch.Tensor | None,
    *,
    indices: bool = True,
) -> None:
    """Raise where the arguments of `jumps` do not fit each other."""
    if not isinstance(face_id, torch.Tensor) or face_id.dtype != torch.int64:
        raise fail(where, "face_id", "int64, as rasterize returns it", face_id, error=TypeError)
    if face_id.dim() != 3 or len(face_id) != len(layout):
        raise fail(where, "face_id", f"of shape ({len(layout)}, H, W), one image a row of layout", face_id)
    check_packed(where, clip, faces, layout, tuple(face_id.shape[1:]), near, indices=indices)
    if indices and face_id.numel() and not bool(((face_id >= -1) & (face_id < layout[:, 2, None, None])).all()):
        got = f"from {int(face_id.min())} to {int(face_id.max())}"
        raise fail(where, "face_id", "at least −1, and less than the number of faces of its image", got)
    if edges is not None and (
        not isinstance(edges, torch.Tensor) or edges.shape != faces.shape or edges.dtype != torch.int32
    ):
        raise fail(where, "edges", f"int32 of shape {tuple(faces.shape)}", edges, "Use reference.edge_cycles.")


class _Sheet:
    """The faces of all images, one row each, and walks over them. Line k of a face is opposite its corner k.

    With the corners `v = (x·w, y·w, w)`, a line is `v_i × v_j`; its value at `(x, y, 1)`, by the determinant, is a
    barycentric coordinate but for a positive factor (Olano and Greer, 1997), also if a corner is behind the camera.
    """

    def __init__(self, clip: torch.Tensor, faces: torch.Tensor, layout: torch.Tensor, edges: torch.Tensor) -> None:
        layout = layout.to(clip.device)
        counts = layout[:, 2]
        self.image = torch.repeat_interleave(torch.arange(len(layout), device=clip.device), counts)
        self.first = torch.cat([counts.new_zeros(1), counts.cumsum(0)])  # row of an image's first face
        shift = layout[self.image, 1] - self.first[self.image]  # from rows to places among the packed faces
        packed = torch.arange(len(self.image), device=clip.device) + shift
        self.local = faces[packed].long()
        self.corners = self.local + layout[self.image, :1]
        self.clip = clip.detach()[self.corners].double()
        self.line = lines(self.clip)
        v = self.clip[..., [0, 1, 3]]
        self.orientation = (self.line[:, 0] * v[:, 0]).sum(-1).sign()
        self.next_side = edges.long()[packed] - 3 * shift[:, None]
        self.plane = nearness(self.clip)

    def beta(self, face: torch.Tensor, at: torch.Tensor) -> torch.Tensor:
        return (self.line[face] * at[:, None]).sum(-1) * self.orientation[face, None]

    def near(self, face: torch.Tensor, at: torch.Tensor) -> torch.Tensor:
        return (self.plane[face] * at).sum(-1)

    def beyond(self, face: torch.Tensor, line: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the face on which the surface goes on across a line, −1 for none, and that line's number there."""
        side = (line + 1) % 3
        own, at = 3 * face + side, self.next_side[face, side]
        found, its_line = torch.full_like(face, -1), torch.zeros_like(face)
        for _ in range(_FANS):
            other, other_side = at // 3, at % 3
            same_way = self.local[face, side] == self.local[other, other_side]
            agree = self.orientation[face] * self.orientation[other] * torch.where(same_way, -1, 1) > 0
            goes_on = (at != own) & (found < 0) & agree
            found = torch.where(goes_on, other, found)
            its_line = torch.where(goes_on, (other_side + 2) % 3, its_line)
            at = torch.where(at != own, self.next_side[other, other_side], at)
        return found, its_line

    def walk(
        self,
        face: torch.Tensor,
        entered: torch.Tensor,
        start: torch.Tensor,
        end: torch.Tensor,
        target: torch.Tensor | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Walk straight from `start` in a face, entered through a line (−1: none), to `end`.

        Returns the target, if the way leads over it, or without one the face where `end` is; −1 where the sheet ends
        before. And of the crossing nearest to the middle the face and its line.
        """
        result = torch.full_like(face, -1)
        done = torch.zeros_like(face, dtype=torch.bool)
        best = torch.full_like(start[:, 0], 2.0)
        crossed, crossed_line = result.clone(), result.clone()
        for _ in range(_STEPS):
            if target is not None:
                hit = ~done & (face == target)
                result, done = torch.where(hit, face, result), done | hit
            a, b = self.beta(face, start).clamp(min=0), self.beta(face, end)
            out = (b < 0 if target is None else b <= 0) & (torch.arange(3, device=face.device) != entered[:, None])
            inside = ~out.any(dim=1)
            if target is None:
                result = torch.where(~done & inside, face, result)
            done = done | inside
            along = torch.where(out, torch.where(a - b > 0, a / torch.where(a - b > 0, a - b, 1.0), 0.0), 2.0)
            at, line = along.min(dim=1)
            following, its_line = self.beyond(face, line)
            done = done | (following < 0)
            if bool(done.all()):
                break
            better = ~done & ((at - 0.5).abs() < best)
            best = torch.where(better, (at - 0.5).abs(), best)
            crossed, crossed_line = torch.where(better, face, crossed), torch.where(better, line, crossed_line)
            face, entered = torch.where(done, face, following), torch.where(done, entered, its_line)
        return result, crossed, crossed_line


def lines(corners: torch.Tensor) -> torch.Tensor:
    """Return the line opposite each corner, `(..., 3, 3)`, of triangles in clip coordinates `(..., 3, 4)`."""
    v = torch.cat([corners[..., :2], corners[..., 3:]], dim=-1)  # lists as indices would be sent to a device
    after, before = (torch.cat([v[..., k:, :], v[..., :k, :]], dim=-2) for k in (1, 2))
    return torch.linalg.cross(after, before, dim=-1)


def nearness(corners: torch.Tensor) -> torch.Tensor:
    """Return the planes `(..., 3)` of how near triangles are: linear in the image, greater where nearer.

    It is 1/depth in perspective, where w is the depth, and else −depth.
    """
    line = lines(corners)
    first = torch.cat([corners[..., 0, :2], corners[..., 0, 3:]], dim=-1)
    determinant = (line[..., 0, :] * first).sum(-1, keepdim=True)
    perspective = (corners[..., 2] == corners[..., 3]).all(dim=-1)[..., None]
    factor = torch.where(perspective, 1.0, -corners[..., 2])[..., None]
    sound = determinant != 0
    return torch.where(sound, (factor * line).sum(-2) / torch.where(sound, determinant, 1.0), 0.0)


def centres(pixel: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """Return pixel centres `(P, 3)` as `(x, y, 1)`, NDC, float64."""
    row, column = pixel % (height * width) // width, pixel % width
    shorter = min(height, width)
    x, y = (2 * column + 1 - width).double() / shorter, (height - 1 - 2 * row).double() / shorter
    return torch.stack([x, y, torch.ones_like(x)], dim=-1)


_Edges = tuple[torch.Tensor, torch.Tensor, torch.Tensor]


def _edges(sheet: _Sheet, seen: torch.Tensor, height: int, width: int, axis: int, near: float) -> _Edges:
    """List visibility edges between pixels side by side (axis 0) or one below the other (1)."""
    face = torch.arange(len(sheet.image), device=seen.device).repeat_interleave(3)
    line = torch.arange(3, device=seen.device).repeat(len(sheet.image))
    face, line = (part[sheet.orientation[face] != 0] for part in (face, line))
    ends_here = sheet.beyond(face, line)[0] < 0
    face, line = face[ends_here], line[ends_here]
    a, b = sheet.clip[face, (line + 1) % 3], sheet.clip[face, (line + 2) % 3]
    drawn = (a[:, 2] > near) | (b[:, 2] > near)
    face, line, a, b = face[drawn], line[drawn], a[drawn], b[drawn]
    a, b = _project(a, b, near), _project(b, a, near)
    # The lines through the centres of rows (or columns) that each edge crosses, and where.
    shorter, other = min(height, width), 1 - axis
    if axis == 0:
        levels = (height - 1 - 2 * torch.arange(height, device=seen.device)).double() / shorter
    else:
        levels = (2 * torch.arange(width, device=seen.device) + 1 - width).double() / shorter
    low, high = torch.minimum(a[:, other], b[:, other]), torch.maximum(a[:, other], b[:, other])
    edge, level = ((levels >= low[:, None]) & (levels < high[:, None])).nonzero().unbind(1)
    face, line = face[edge], line[edge]
    own = sheet.line[face, line]
    at = -(own[:, other] * levels[level] + own[:, 2]) / own[:, axis]
    where = (at * shorter + width - 1) / 2 if axis == 0 else (height - 1 - at * shorter) / 2
    last, step = (width - 1, 1) if axis == 0 else (height - 1, width)
    # Through a pixel's centre: on which side of it what is seen changes, rounding has decided.
    whole = where.round()
    on = (where - whole).abs() < _ON_CENTRE
    index = torch.cat([torch.where(on, whole, where.floor()), whole[on] - 1])
    face, line, at, level = (torch.cat([part, part[on]]) for part in (face, line, at, level))
    between = (index >= 0) & (index < last)  # not so for NaN, too
    face, line, at, level, index = (part[between] for part in (face, line, at, level, index))
    row, column = (level, index.long()) if axis == 0 else (index.long(), level)
    p = sheet.image[face] * height * width + row * width + column
    q = p + step
    crossing = [at, levels[level]] if axis == 0 else [levels[level], at]
    at = torch.stack([*crossing, torch.ones_like(at)], dim=-1)
    # Whose side is which.
    rise = sheet.beta(face, centres(p, height, width)) - sheet.beta(face, centres(q, height, width))
    first = rise.gather(1, line[:, None])[:, 0] > 0
    mine, yours = torch.where(first, p, q), torch.where(first, q, p)
    start = sheet.first[sheet.image[face]]
    to_mine, _, _ = sheet.walk(face, line, at, centres(mine, height, width), start + seen[mine])
    visible = (seen[p] != seen[q]) & (seen[mine] >= 0) & (to_mine >= 0)
    other_side = seen[yours] >= 0
    your_face = torch.where(other_side, start + seen[yours], face)
    # One surface from pixel to pixel: the edge goes through a centre, and lies on its other side.
    my_face, none = torch.where(seen[mine] >= 0, start + seen[mine], face), torch.full_like(face, -1)
    ends_at = centres(mine, height, width), centres(yours, height, width)
    one_surface = other_side & (sheet.walk(my_face, none, *ends_at, your_face)[0] >= 0)
    reached, _, _ = sheet.walk(your_face, none, ends_at[1], at)
    there = reached.clamp(min=0)
    hidden = other_side & (reached >= 0) & (reached != face) & (sheet.near(there, at) > sheet.near(face, at))
    share = torch.where(other_side & (reached < 0), 0.5, 1.0).double()
    kept = visible & ~hidden & ~one_surface
    ends = torch.stack([sheet.corners[face, (line + 1) % 3], sheet.corners[face, (line + 2) % 3]], dim=-1)
    return torch.stack([p, q], dim=-1)[kept], ends[kept], share[kept]


def _project(a: torch.Tensor, b: torch.Tensor, near: float) -> torch.Tensor:
    """Return where the ends `a` of edges are in the image; behind the near plane, where the edge comes out of it."""
    hidden = ~(a[:, 2] > near)
    along = torch.where(hidden, (near - a[:, 2]) / torch.where(hidden, b[:, 2] - a[:, 2], 1.0), 0.0)
    cut = a + along[:, None] * (b - a)
    return cut[:, :2] / cut[:, 3:]


def _creases(sheet: _Sheet, seen: torch.Tensor, height: int, width: int, p: torch.Tensor, q: torch.Tensor) -> _Edges:
    """List, between pixels of one surface, the edge nearest to the middle."""
    start = sheet.first[p // (height * width)]
    here, there = centres(p, height, width), centres(q, height, width)
    none = torch.full_like(p, -1)
    reached, face, line = sheet.walk(start + seen[p], none, here, there, start + seen[q])
    kept = (reached >= 0) & (face >= 0)
    p, q, face, line = (part[kept] for part in (p, q, face, line))
    ends = torch.stack([sheet.corners[face, (line + 1) % 3], sheet.corners[face, (line + 2) % 3]], dim=-1)
    return torch.stack([p, q], dim=-1), ends, torch.ones_like(p, dtype=torch.float64)


def _meetings(
    sheet: _Sheet, seen: torch.Tensor, height: int, width: int, p: torch.Tensor, q: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """List pixels between which two surfaces go through each other, and the corners of the two faces."""
    start = sheet.first[p // (height * width)]
    a, b = start + seen[p], start + seen[q]
    apart = ~_share_vertex(sheet, a, b)
    p, q, a, b = p[apart], q[apart], a[apart], b[apart]
    pixels, corners = [], []
    for _ in range(_ROUNDS):
        here, there = centres(p, height, width), centres(q, height, width)
        at_p, at_q = sheet.near(a, here) - sheet.near(b, here), sheet.near(a, there) - sheet.near(b, there)
        cross = (at_p > 0) & (at_q < 0)
        p, q, a, b, here, there, at_p, at_q = (part[cross] for part in (p, q, a, b, here, there, at_p, at_q))
        at = here + (at_p / (at_p - at_q))[:, None] * (there - here)
        start, none = sheet.first[p // (height * width)], torch.full_like(p, -1)
        to_a, _, _ = sheet.walk(start + seen[p], none, here, at)
        to_b, _, _ = sheet.walk(start + seen[q], none, there, at)
        both = (to_a >= 0) & (to_b >= 0) & ~_share_vertex(sheet, to_a.clamp(min=0), to_b.clamp(min=0))
        settled = both & (to_a == a) & (to_b == b)
        pixels.append(torch.stack([p, q], dim=-1)[settled])
        corners.append(torch.stack([sheet.corners[a], sheet.corners[b]], dim=1)[settled])
        on = both & ~settled
        p, q, a, b = p[on], q[on], to_a[on], to_b[on]
    return torch.cat(pixels), torch.cat(corners)


def _share_vertex(sheet: _Sheet, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    return (sheet.corners[a][:, :, None] == sheet.corners[b][:, None]).any(dim=-1).any(dim=-1)
