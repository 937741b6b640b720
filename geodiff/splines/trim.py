# SPDX-License-Identifier: Apache-2.0
"""Trimmed surfaces: the part of a surface within closed loops in its parameter plane."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from scipy.spatial import Delaunay, cKDTree

from geodiff.modes import outside_autocast
from geodiff.scene.mesh import Mesh
from geodiff.splines.curve import NURBSCurve
from geodiff.splines.surface import NURBSSurface
from geodiff.validation import choice, fail, floating, promote

# How often the edges of the loops are halved until the triangulation has them all.
_ROUNDS = 20
# Loops that coincide would double for ever: how many times their first number of points they may get.
_GROWTH = 8
# Grid points nearer to a loop than this, in cells, make room for the loop's own.
_ROOM = 0.5
# Loops are taken as polygons of so many edges a span, where a polygon serves.
_EDGES = 64


@outside_autocast
class TrimmedSurface:
    """The part of a surface within loops in its (u, v) plane.

    By the even–odd rule: a point belongs to the part if a ray from it meets the loops an odd number of times. So a
    loop within another is a hole and one within a hole an island, whichever way round they go.

    Args:
        surface: a `NURBSSurface` in space; its batch, if any, shares the loops.
        loops: one or more, each a closed 2-D `NURBSCurve`, or the corners of a polygon, `(N, 2)` with N >= 3, its end
            repeated or not. Within the domain of the surface (periodic axes are cut open), and not crossing.
        keep: ``"inside"``; or ``"outside"`` for all but that, as if the border of the domain were one more loop.

    Raises:
        TypeError: a surface or a loop of another class.
        ValueError: no loops; a loop that is open, batched, not in the plane, or leaves the domain; a surface that is
            not in space, or a batch of them with different domains.

    Example:
        >>> import torch, geodiff as gd
        >>> net = torch.stack(torch.meshgrid(*[torch.linspace(0, 1, 4)] * 2, indexing="ij") + (torch.zeros(4, 4),), -1)
        >>> square = torch.tensor([[0.25, 0.25], [0.75, 0.25], [0.75, 0.75], [0.25, 0.75]])
        >>> frame = TrimmedSurface(gd.NURBSSurface(net), [square], keep="outside")
        >>> frame.contains(torch.tensor([0.1, 0.5]), torch.tensor([0.1, 0.5]))
        tensor([ True, False])
        >>> frame.area()
        tensor(0.7500)
    """

    def __init__(self, surface: NURBSSurface, loops: Sequence[Any], keep: str = "inside") -> None:
        where = "TrimmedSurface"
        if not isinstance(surface, NURBSSurface):
            raise fail(where, "surface", "a NURBSSurface", surface, error=TypeError)
        if surface.dim != 3:
            raise fail(where, "surface", "in space, D = 3", f"D = {surface.dim}")
        if not isinstance(loops, Sequence) or len(loops) == 0:
            raise fail(where, "loops", "a list of one loop or more", repr(loops), "Pass [loop] for a single one.")
        ends = (torch.broadcast_tensors(*ends) for ends in zip(*surface.domain, strict=True))
        low, high = (torch.stack(pair, -1).detach().reshape(-1, 2) for pair in ends)
        if bool((low != low[0]).any() | (high != high[0]).any()):
            raise fail(where, "surface", "of one domain for the whole batch", "different ones", "Trim them one by one.")
        self.surface = surface
        self._low, self._high = low[0], high[0]
        self.keep = choice(where, "keep", keep, ("inside", "outside"))
        self.loops = [self._loop(loop, i) for i, loop in enumerate(loops)]

    def _loop(self, loop: Any, number: int) -> NURBSCurve:
        """Check a loop and make it a curve: a polygon one of degree 1 round which its corners repeat."""
        where, name = "TrimmedSurface", f"loops[{number}]"
        if not isinstance(loop, NURBSCurve):
            corners = promote(where, **{name: loop})[name]
            floating(where, name, corners, ("N", 2), "Or pass a NURBSCurve in the plane.")
            if len(corners) > 1 and bool((corners[0] == corners[-1]).all()):
                corners = corners[:-1]
            if len(corners) < 3:
                raise fail(where, name, "of three corners or more", f"{len(corners)}")
            loop = NURBSCurve(torch.cat([corners, corners[:1]]), degree=1)
        if loop.dim != 2 or loop.batch_shape:
            raise fail(where, name, "a single curve in the (u, v) plane, D = 2", repr(loop))
        loop = loop.to(self.surface.device, self.surface.dtype)
        with torch.no_grad():
            slack = 64 * torch.finfo(loop.dtype).eps * torch.maximum(self._high.abs(), self._low.abs())
            start, end = loop.domain[0]
            if not loop.periodic[0]:
                gap = loop(end) - loop(start)
                if bool((gap.abs() > slack).any()):
                    fix = "Repeat the first control point at the end, or pass periodic=True to the curve."
                    raise fail(where, name, "closed", f"ends {gap.abs().max().item():.3g} apart", fix)
            at = self._ring(loop)
            if bool(((at < self._low - slack) | (at > self._high + slack)).any()):
                least, most = at.amin(0).tolist(), at.amax(0).tolist()
                domain = f"[{self._low[0]:g}, {self._high[0]:g}] × [{self._low[1]:g}, {self._high[1]:g}]"
                got = f"u from {least[0]:g} to {most[0]:g}, v from {least[1]:g} to {most[1]:g}"
                raise fail(where, name, f"within the domain {domain} of the surface", got)
        return loop

    def __repr__(self) -> str:
        return f"TrimmedSurface({self.surface!r}, {len(self.loops)} loops, keep {self.keep!r})"

    @property
    def _all_loops(self) -> list[NURBSCurve]:
        """The loops, and the border of the domain if it is one."""
        if self.keep == "inside":
            return self.loops
        (u0, v0), (u1, v1) = self._low, self._high
        corners = [torch.stack(c) for c in ((u0, v0), (u1, v0), (u1, v1), (u0, v1), (u0, v0))]
        return [*self.loops, NURBSCurve(torch.stack(corners), degree=1)]

    def _ring(self, loop: NURBSCurve) -> torch.Tensor:
        """Return the corners `(E, 2)` of a fine polygon in a loop, or of the loop itself where it is one."""
        times = _times(loop)
        return loop(_between(times, np.full(len(times) - 1, 1 if loop.degree == 1 else _EDGES), loop)).detach()

    def contains(self, u: Any, v: Any) -> torch.Tensor:
        """Whether points of the (u, v) plane belong to the part that is kept.

        Args:
            u: any shape.
            v: broadcast with u.

        Returns:
            bool. Curved loops are taken as polygons of 64 edges a span: points nearer to one than its sagitta may be
            on the wrong side.

        Raises:
            ValueError: shapes that do not broadcast, NaN.
        """
        at = promote("TrimmedSurface.contains", u=u, v=v)
        try:
            u, v = torch.broadcast_tensors(at["u"], at["v"])
        except RuntimeError:
            text = f"{tuple(at['u'].shape)} and {tuple(at['v'].shape)}"
            raise fail("TrimmedSurface.contains", "u, v", "of shapes that broadcast", text) from None
        points = torch.stack([u, v], -1).detach().reshape(-1, 2).double().cpu().numpy()
        rings = [self._ring(loop).double().cpu().numpy() for loop in self._all_loops]
        return torch.as_tensor(_inside(points, rings), device=u.device).reshape(u.shape)

    def tessellate(self, n: int = 32, m: int = 32) -> Mesh:
        """Return a triangle mesh of the part; its vertices keep their gradient.

        A Delaunay triangulation, in the (u, v) plane, of a grid and of points of the loops about a cell apart, whose
        edges are halved until the triangulation has them all.

        Args:
            n: how many grid points along u, over the whole domain, >= 2.
            m: how many along v.

        Returns:
            a mesh with texture coordinates (u, v scaled to [0, 1]) and faces seen from where the normals point. Its
            border is exactly that of the loops: the vertices on it are points `S(loop(t))`. Opposite borders of a
            closed surface are not joined. Batched surfaces give batched vertices.

        Gradients: of the vertices, in the surface; of those on the border also in the loops.

        Raises:
            TypeError: counts that are not integers.
            ValueError: counts below 2; loops that cross or touch, themselves or each other.
        """
        uv, faces = self._triangulate("TrimmedSurface.tessellate", n, m)
        vertices = self.surface(uv[:, 0], uv[:, 1])
        texture = (uv.detach() - self._low) / (self._high - self._low)
        return Mesh(vertices, faces, uv=texture)

    def area(self, n: int = 32, m: int = 32) -> torch.Tensor:
        """Return the area of the part, `(...)`, by quadrature over the triangles of `tessellate`.

        The integrand is that of the surface itself; the border is that of the triangles, so that along curved loops
        the error falls with the square of their length.

        Args:
            n: how many grid points along u.
            m: how many along v.

        Gradients: in the surface and in the loops.

        Raises:
            TypeError, ValueError: as for `tessellate`.
        """
        uv, faces = self._triangulate("TrimmedSurface.area", n, m)
        corners = uv[faces]  # (F, 3, 2)
        weight = torch.full((3, 3), 1 / 6, dtype=uv.dtype, device=uv.device).fill_diagonal_(2 / 3)  # exact to degree 2
        at = (weight @ corners).flatten(0, 1)
        jet = self.surface.derivatives(at[:, 0], at[:, 1], order=1)
        density = torch.linalg.cross(jet[(1, 0)], jet[(0, 1)]).norm(dim=-1).unflatten(-1, (-1, 3)).mean(-1)
        a, b = corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]
        return (density * (a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0]) / 2).sum(-1)

    def _triangulate(self, where: str, n: int, m: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Return points `(V, 2)` of the (u, v) plane, those of the loops with gradient, and triangles `(F, 3)`."""
        for name, count in (("n", n), ("m", m)):
            if not isinstance(count, int) or isinstance(count, bool):
                raise fail(where, name, "an integer", count, error=TypeError)
            if count < 2:
                raise fail(where, name, "2 or more", count)
        cell = (self._high - self._low) / torch.tensor([n - 1, m - 1]).to(self._high)
        u, v = torch.meshgrid(torch.arange(n), torch.arange(m), indexing="ij")
        grid = torch.stack([u, v], -1).reshape(-1, 2).double().numpy()
        loops = self._all_loops
        times = [self._spread(loop, cell) for loop in loops]
        most = _GROWTH * sum(len(t) for t in times)
        faces, missing = np.zeros((0, 3), dtype=np.int64), None
        for _ in range(_ROUNDS):
            rings = [
                ((loop(t) - self._low) / cell).detach().double().cpu().numpy()
                for loop, t in zip(loops, times, strict=True)
            ]
            border = np.concatenate(rings)
            middle = np.concatenate([(r + np.roll(r, -1, 0)) / 2 for r in rings])
            near, _ = cKDTree(np.concatenate([border, middle])).query(grid)
            free = grid[near > _ROOM]
            faces, missing = _constrained(np.concatenate([border, free]), rings)
            if missing is None or sum(len(t) for t in times) > most:
                break
            times = _halved(loops, times, missing)
        if missing is not None:
            fix = "Separate them, or smooth corners that are very sharp."
            raise fail(where, "loops", "apart from each other and without self-intersection", "some that meet", fix)
        on_loops = [loop(t) for loop, t in zip(loops, times, strict=True)]
        inner = torch.as_tensor(free).to(cell) * cell + self._low
        keep, renumber = np.unique(faces, return_inverse=True)
        uv = torch.cat([*on_loops, inner])[torch.as_tensor(keep, device=cell.device)]
        return uv, torch.as_tensor(renumber.reshape(faces.shape), device=cell.device)

    def _spread(self, loop: NURBSCurve, cell: torch.Tensor) -> torch.Tensor:
        """Return parameters round a loop whose points are at most about a cell apart, corners included."""
        times = _times(loop)
        fine = 16
        at = loop(_between(times, np.full(len(times) - 1, fine), loop)).detach() / cell
        step = (torch.roll(at, -1, 0) - at).norm(dim=-1).double().cpu().numpy()
        length = step.reshape(-1, fine).sum(-1)
        least = 1 if loop.degree == 1 else 4
        return _between(times, np.maximum(least, np.ceil(length - 1e-4)).astype(int), loop)


def _times(loop: NURBSCurve) -> np.ndarray:
    """Return the ends of the spans of a loop, each once."""
    (low, high), (knots,) = loop.domain[0], loop.knots
    inner = knots[(knots >= low) & (knots <= high)]
    return np.unique(inner.detach().double().cpu().numpy())


def _between(times: np.ndarray, counts: np.ndarray, loop: NURBSCurve) -> torch.Tensor:
    """Cut spans into equal parts, as many as `counts` says, and return where they start."""
    ends = zip(times[:-1], times[1:], counts, strict=True)
    return torch.as_tensor(np.concatenate([np.linspace(a, b, k, endpoint=False) for a, b, k in ends])).to(loop.knots[0])


def _halved(loops: list[NURBSCurve], times: list[torch.Tensor], missing: list[np.ndarray]) -> list[torch.Tensor]:
    result = []
    for loop, t, cut in zip(loops, times, missing, strict=True):
        after = torch.cat([t[1:], loop.domain[0][1].detach()[None]])
        result.append(torch.cat([t, ((t + after) / 2)[torch.as_tensor(cut, device=t.device)]]).unique())
    return result


def _constrained(points: np.ndarray, rings: list[np.ndarray]) -> tuple[np.ndarray, list[np.ndarray] | None]:
    """Triangulate points that begin with those of the rings.

    Returns:
        the triangles within the rings, counter-clockwise; and for each ring, which of its edges the border of these
        lacks, or None if the border is the rings.
    """
    faces = Delaunay(points).simplices
    a, b, c = (points[faces[:, i]] for i in range(3))
    area = (b[:, 0] - a[:, 0]) * (c[:, 1] - a[:, 1]) - (b[:, 1] - a[:, 1]) * (c[:, 0] - a[:, 0])
    faces = np.where(area[:, None] < 0, faces[:, ::-1], faces)
    faces = faces[_inside((a + b + c) / 3, rings) & (area != 0)]
    sides = np.sort(np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]]), 1).astype(np.int64)
    code, times = np.unique(sides[:, 0] * len(points) + sides[:, 1], return_counts=True)
    border = code[times == 1]
    missing, wanted, start = [], 0, 0
    for ring in rings:
        first = start + np.arange(len(ring))
        second = np.roll(first, -1)
        key = np.minimum(first, second) * len(points) + np.maximum(first, second)
        missing.append(~np.isin(key, border))
        wanted, start = wanted + len(ring), start + len(ring)
    whole = not any(cut.any() for cut in missing) and len(border) == wanted
    return faces, None if whole else missing


def _inside(points: np.ndarray, rings: list[np.ndarray]) -> np.ndarray:
    """Whether points `(N, 2)` are within closed polygons, by the even–odd rule: rays towards +u."""
    start = np.concatenate(rings)
    end = np.concatenate([np.roll(r, -1, 0) for r in rings])
    rising = start[:, 1] != end[:, 1]  # level edges meet no ray
    start, end = start[rising], end[rising]
    slope = (end[:, 0] - start[:, 0]) / (end[:, 1] - start[:, 1])
    low, high = np.minimum(start[:, 1], end[:, 1]), np.maximum(start[:, 1], end[:, 1])
    result = np.zeros(len(points), dtype=bool)
    order = np.argsort(points[:, 1])
    for i in range(0, len(points), 512):  # neighbours in height meet few of the edges
        rows = order[i : i + 512]
        u, v = points[rows, :1], points[rows, 1:]
        near = (high >= v[0]) & (low <= v[-1])
        a, b = low[near], high[near]
        meets = (a <= v) & (v < b) & (u < start[near, 0] + slope[near] * (v - start[near, 1]))
        result[rows] = meets.sum(1) % 2 == 1
    return result
