# SPDX-License-Identifier: Apache-2.0
"""The surface where a function of space passes a level, as a closed mesh whose vertices know their derivative.

Surface nets (Gibson 1998) made manifold: the dual of marching cubes. A cell of the grid has a vertex for each sheet of
the surface that passes through it, the mean of the crossings of that sheet with the cell's edges; each crossed edge of
the grid has a quad between the cells around it. Beside marching tetrahedra this gives a quarter of the triangles, all
about as large as a cell, and no slivers where the surface runs close to a node of the grid. It is a manifold without
exception: two vertices are joined by the curve in which a sheet meets a face of the grid, and where a sheet meets one
face in two curves, each of these gets a vertex of its own.
"""

import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

from geodiff.modes import outside_autocast
from geodiff.scene.mesh import Mesh
from geodiff.validation import as_tensor, choice, fail, floating, integer, number

Field = Callable[[torch.Tensor], torch.Tensor]

_WHERE = "isosurface"
_CHUNK = 1 << 17  # points at which a field is evaluated at a time
_SLIVER = 1e-3  # of the mean difference along crossed edges: below it, the gradient of a crossing is damped
_SHARPENING = 0.5  # how far vertices go towards where the middles of their quads would be on the surface
_NEWTON = 3  # steps onto the level
_MOST = 2**31  # nodes


@outside_autocast
def isosurface(
    values: Any,
    level: float = 0.0,
    *,
    bounds: Any = None,
    resolution: int | tuple[int, int, int] | None = None,
    inside: str = "below",
    gradient: str = "edges",
) -> Mesh:
    """Return the mesh on which a grid of values, or a function of space, equals ``level``.

    The vertices are differentiable in the values (or in whatever the function depends on), so a mesh may split, join
    and open holes while it is fitted: extract it anew at each step. Its topology is a step function of the values.

    Args:
        values: (X, Y, Z), at the nodes of a grid, ``values[i, j, k]`` at the i-th x, j-th y and k-th z; or a function
            that takes points (N, 3) and returns (N,).
        level: what the values equal on the surface.
        bounds: the lowest and the highest corner of the grid, (2, 3); left out, the cube [−1, 1]³.
        resolution: for a function, the number of nodes: (X, Y, Z), or one for all three; each ≥ 2.
        inside: ``"below"`` the level, as for signed distances, or ``"above"``, as for occupancies.
        gradient: ``"edges"``: the derivative of this very mesh, of crossings ``a / (a − b)`` on the edges of the grid;
            it is exact for any values. ``"normal"``, for a function alone: its vertices are moved onto the level, and
            by the implicit function theorem ``−n (∂f/∂θ) / |∇f|`` is the derivative of each (Guillard et al.,
            "DeepMesh", 2021), the part along the surface left out. It needs f with a gradient of its own.

    Returns:
        A closed, consistently oriented manifold `Mesh` with normals outwards, in the values' dtype. Where the solid
        reaches the border of the grid it is closed there, by walls that do not move. Nothing inside: no faces.

    Gradients: to ``values``, or to what the function depends on; 0 where the mesh ends at the border. Where values
    barely differ along a crossed edge the derivative of the crossing has no bound: it is damped below a thousandth of
    the mean difference. NaN counts as outside, and what borders on it or on infinity does not move.

    Raises:
        TypeError, ValueError: for other types, shapes, a level that is not finite, and bounds that are no box.
        RuntimeError: values on a GPU.

    Example:
        >>> import torch, geodiff as gd
        >>> radius = torch.tensor(0.8, requires_grad=True)
        >>> ball = gd.isosurface(lambda p: p.norm(dim=-1) - radius, bounds=[[-1] * 3, [1] * 3], resolution=32)
        >>> ball.is_closed, ball.euler_characteristic
        (True, 2)
        >>> ball.vertices.norm(dim=-1).mean().backward()
        >>> round(float(radius.grad), 2)
        1.0
    """
    choice(_WHERE, "inside", inside, ("below", "above"))
    choice(_WHERE, "gradient", gradient, ("edges", "normal"))
    level = number(_WHERE, "level", level, -1e30, 1e30)
    sign = 1.0 if inside == "below" else -1.0
    if callable(values):
        low, spacing, shape = _grid(bounds, _nodes(resolution))
        with torch.no_grad():
            grid = _evaluate(values, low, spacing, shape)
    else:
        grid = as_tensor(_WHERE, "values", values)
        if not grid.is_floating_point():
            raise fail(_WHERE, "values", "floating-point", grid, "Use .float().", TypeError)
        _check_values(grid, resolution, gradient)
        low, spacing, shape = _grid(bounds, tuple(grid.shape))
    step = max(1, _CHUNK * shape[0] // max(1, grid.numel()))  # layers at a time, for the memory
    net = Net(torch.cat([sign * (layers - level) < 0 for layers in grid.detach().split(step)]).numpy())
    a, b = net.ends(shape)
    if callable(values) and gradient == "edges" and torch.is_grad_enabled() and len(a):
        # With a graph at the ends of crossed edges alone.
        nodes, row = torch.unique(torch.cat((a, b[b >= 0])), return_inverse=True)
        known = _called(values, _places(nodes, low, spacing, shape, grid.dtype))
        first = known.index_select(0, row[: len(a)])
        second = torch.full_like(first, torch.inf)
        second[b >= 0] = known.index_select(0, row[len(a) :])
    else:
        flat = grid.reshape(-1)
        first = flat.index_select(0, a)
        second = torch.where(b < 0, sign * torch.inf, flat.index_select(0, b.clamp_min(0)))  # beyond the border
    share = _crossing(sign * (first - level), sign * (second - level))
    vertices, faces = net.mesh(share, low, spacing)
    if gradient == "normal" and len(vertices):
        vertices = _on_level(values, vertices.detach(), level, float(spacing.max()))
    return Mesh(vertices, faces)


def _nodes(resolution: Any) -> tuple[int, ...]:
    if resolution is None:
        raise fail(
            _WHERE, "resolution", "the number of nodes along each axis", None, "A function has no grid.", TypeError
        )
    counts = tuple(resolution) if isinstance(resolution, Sequence | np.ndarray) else (resolution,) * 3
    if len(counts) != 3:
        raise fail(_WHERE, "resolution", "one number, or three", resolution)
    return tuple(integer(_WHERE, "resolution", count, 2) for count in counts)


def _check_values(grid: torch.Tensor, resolution: Any, gradient: str) -> None:
    if grid.dim() != 3 or min(grid.shape) < 2:
        fix = "For a batch, call it for each: their topologies differ."
        raise fail(_WHERE, "values", "of shape (X, Y, Z), each 2 or more", grid, fix)
    if grid.device.type != "cpu":
        raise fail(_WHERE, "values", "on the CPU", f"on {grid.device}", "Use .to('cpu').", RuntimeError)
    if resolution is not None:
        raise fail(_WHERE, "resolution", "left out where `values` is a grid", resolution)
    if gradient == "normal":
        raise fail(
            _WHERE, "values", "a function for gradient='normal'", grid, "Of a grid, ∇f is too rough: use 'edges'."
        )


def _grid(bounds: Any, shape: tuple[int, ...]) -> tuple[torch.Tensor, torch.Tensor, tuple[int, ...]]:
    """Return the lowest corner, the spacing and the shape of the grid."""
    box = torch.tensor([[-1.0] * 3, [1.0] * 3]) if bounds is None else as_tensor(_WHERE, "bounds", bounds)
    box = (box if box.is_floating_point() else box.float()).detach().double()
    floating(_WHERE, "bounds", box, (2, 3))
    if not bool((box[0] < box[1]).all()):
        raise fail(_WHERE, "bounds", "a lowest and a highest corner", box.tolist())
    if np.prod([float(n) for n in shape]) >= _MOST:
        raise fail(_WHERE, "resolution", "of fewer than 2³¹ nodes", shape)
    return box[0], (box[1] - box[0]) / (torch.tensor(shape) - 1), shape


def _places(
    nodes: torch.Tensor, low: torch.Tensor, spacing: torch.Tensor, shape: tuple[int, ...], dtype: torch.dtype
) -> torch.Tensor:
    """Return where the nodes of these numbers are, (N, 3)."""
    at = torch.stack((nodes // (shape[1] * shape[2]), nodes // shape[2] % shape[1], nodes % shape[2]), dim=-1)
    return (low + at * spacing).to(dtype)


def _called(field: Field, points: torch.Tensor) -> torch.Tensor:
    values = field(points)
    if not isinstance(values, torch.Tensor) or values.shape != points.shape[:1] or not values.is_floating_point():
        expected = f"a function that returns ({len(points)},) floating-point numbers for points {tuple(points.shape)}"
        raise fail(_WHERE, "values", expected, values)
    return values


def _evaluate(field: Field, low: torch.Tensor, spacing: torch.Tensor, shape: tuple[int, ...]) -> torch.Tensor:
    """Return the field at all nodes (X, Y, Z), some at a time; in float64 if that is the default dtype."""
    count, dtype = int(np.prod(shape)), torch.get_default_dtype()
    parts = [
        _called(field, _places(torch.arange(start, min(start + _CHUNK, count)), low, spacing, shape, dtype))
        for start in range(0, count, _CHUNK)
    ]
    return torch.cat(parts).reshape(shape)


def _crossing(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Return where on an edge from a < 0 to b ≥ 0 the line between them is 0, in [0, 1]."""
    firm = a.isfinite() & b.isfinite()
    low, high = torch.where(firm, a, -1.0), torch.where(firm, b, 1.0)
    # In a unit of their own, a power of two: squares of large values are infinite, and of small ones 0.
    size = float(torch.maximum(-low, high).detach()[firm].max()) if bool(firm.any()) else 0.0
    unit = math.ldexp(1.0, math.frexp(size)[1]) if size > 0 else 1.0
    low, high = torch.where(firm, low / unit, low), torch.where(firm, high / unit, high)
    difference = (high - low).detach()
    # A crossing beside infinity or NaN is as near as it can be to what is inside.
    share = torch.where(firm, low / (low - high), torch.where(a.isfinite(), 0.0, 0.5))
    least = _SLIVER * difference[firm].mean() if bool(firm.any()) else 0.0
    damped = difference.square() / (difference.square() + least**2)
    still = share.detach()
    return still + damped * (share - still)


def _on_level(field: Field, points: torch.Tensor, level: float, reach: float) -> torch.Tensor:
    """Move points onto the level along the field's gradient, and give them its derivative there."""

    def slope(at: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        with torch.enable_grad():
            at = at.detach().requires_grad_()
            value = _called(field, at) - level
            if not value.requires_grad:
                raise fail(_WHERE, "values", "a function that is differentiable in the points", "one that is not")
            (rise,) = torch.autograd.grad(value.sum(), at)
        return value.detach(), rise

    for _ in range(_NEWTON):
        value, rise = slope(points)
        step = -value[:, None] * rise / rise.square().sum(-1, keepdim=True).clamp_min(1e-30)
        # No further than the cell is wide: what is flat would throw it out.
        points = points + step * (reach / step.norm(dim=-1, keepdim=True).clamp_min(1e-30)).clamp_max(1.0)
    if not torch.is_grad_enabled():
        return points
    _, rise = slope(points)
    value = _called(field, points)
    along = rise / rise.square().sum(-1, keepdim=True).clamp_min(1e-30)
    return points - along * (value - value.detach())[:, None]


class Net:
    """The mesh of a grid of what is inside: everything but where on its edges the surface passes.

    Args:
        inside: booleans (X, Y, Z).
    """

    def __init__(self, inside: np.ndarray) -> None:
        # A ring of what is outside around it, so that each crossed edge has four cells.
        solid = np.pad(inside, 1)
        shape = solid.shape
        stride = np.array([shape[1] * shape[2], shape[2], 1])
        corners = (np.arange(8)[:, None] >> np.array([2, 1, 0]) & 1) @ stride
        flat = solid.reshape(-1)
        starts, around, facing = [], [], []
        for axis in range(3):
            changes = np.moveaxis(solid, axis, 0)
            place = np.nonzero(np.moveaxis(changes[:-1] != changes[1:], 0, axis))
            start = np.ravel_multi_index(place, shape)
            u, v = stride[(axis + 1) % 3], stride[(axis + 2) % 3]
            cells = np.stack([start - u - v, start - v, start, start - u], 1)
            starts.append(np.stack([start, np.full_like(start, axis)], 1))
            around.append(np.concatenate([cells, np.tile(4 * axis + np.array([3, 1, 0, 2]), (len(start), 1))], 1))
            facing.append(flat[start])
        self._shape, self._edges = shape, np.concatenate(starts)
        both, out = np.concatenate(around), np.concatenate(facing)
        cells, sides = both[:, :4], both[:, 4:]
        cell, row = np.unique(cells, return_inverse=True)
        pattern = np.packbits(flat[cell[:, None] + corners], axis=1, bitorder="little")[:, 0]
        sheet = _SHEETS[pattern[row.reshape(-1)], sides.reshape(-1)]
        vertex, row = np.unique(4 * cells.reshape(-1) + sheet, return_inverse=True)
        self.num_vertices = len(vertex)
        #: the vertices around each crossed edge, counter-clockwise seen from where it goes, and so a quad
        self._incident = row.reshape(-1, 4)
        self._quads = np.where(out[:, None], self._incident, self._incident[:, ::-1])
        # The end of each edge that is inside, and the step to the other.
        step = stride[self._edges[:, 1]]
        self._inner = self._edges[:, 0] + np.where(out, 0, step)
        self._outer = self._edges[:, 0] + np.where(out, step, 0)

    def ends(self, shape: tuple[int, ...]) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the nodes of the grid (X, Y, Z) at the inner and the outer end of each crossed edge; −1: beyond it."""
        numbers = []
        for node in (self._inner, self._outer):
            at = np.stack(np.unravel_index(node, self._shape), 1) - 1
            beyond = ((at < 0) | (at >= np.array(shape))).any(1)
            number = (at[:, 0] * shape[1] + at[:, 1]) * shape[2] + at[:, 2]
            numbers.append(torch.from_numpy(np.where(beyond, -1, number)))
        return numbers[0], numbers[1]

    def mesh(self, share: torch.Tensor, low: torch.Tensor, spacing: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return vertices and faces, given how far along each crossed edge, from its inner end, the surface is."""
        inner, outer = (
            np.stack(np.unravel_index(node, self._shape), 1).astype(np.float64) - 1
            for node in (self._inner, self._outer)
        )
        # Steps of the grid first, small whole numbers; the unit and place of the world last.
        points = torch.from_numpy(inner).to(share.dtype)
        points = points + share[:, None] * torch.from_numpy(outer - inner).to(share.dtype)
        around = torch.from_numpy(self._incident)
        vertices = self._mean(points, around)
        # Means of what lies on a curved surface lie on its inner side; so do the quads' middles, by twice as much.
        vertices = vertices + _SHARPENING * self._mean(points - _gathered(vertices, around).mean(1), around)
        high = torch.tensor(self._shape) - 3
        vertices = torch.minimum(vertices.clamp_min(0), high)
        crowded = self._crowded()
        if crowded is not None:
            vertices = torch.cat((vertices, points[crowded[1]].mean(1)))
        place = vertices * spacing.to(vertices.dtype) + low.to(vertices.dtype)
        return place, torch.from_numpy(self._triangles(vertices.detach().double().numpy(), crowded))

    def _mean(self, points: torch.Tensor, around: torch.Tensor) -> torch.Tensor:
        """Return for each vertex the mean over the crossings (E, 3) that it was made of."""
        count = torch.bincount(around.reshape(-1), minlength=self.num_vertices)
        total = points.new_zeros(self.num_vertices, 3)
        total = total.index_add(0, around.reshape(-1), points[:, None].expand(-1, 4, 3).reshape(-1, 3))
        return total / count[:, None]

    def _crowded(self) -> tuple[np.ndarray, torch.Tensor] | None:
        """Return what else than the vertices of its cells a side of a quad has: a new vertex's number (E, 4), or −1.

        A sheet that meets a face of the grid in two curves would join the same two vertices twice, and give that edge
        four faces. Each curve gets a vertex then, between its two crossings, whose numbers come second, (N, 2).
        """
        quads = self._quads
        key = np.sort(np.stack([quads, np.roll(quads, -1, 1)], -1), -1) @ np.array([self.num_vertices, 1])
        key = key.reshape(-1)
        _, row, count = np.unique(key, return_inverse=True, return_counts=True)
        often = np.nonzero(count[row] > 2)[0]
        if not len(often):
            return None
        # A curve on a face with four crossings goes around the corner that is inside.
        curve = np.stack([row[often], self._inner[often // 4]], 1)
        curves, number = np.unique(curve, axis=0, return_inverse=True)
        more = np.full(len(key), -1)
        more[often] = self.num_vertices + number.reshape(-1)
        order = np.argsort(number.reshape(-1), kind="stable")
        return more.reshape(-1, 4), torch.from_numpy((often // 4)[order].reshape(len(curves), 2))

    def _triangles(self, vertices: np.ndarray, crowded: tuple[np.ndarray, torch.Tensor] | None) -> np.ndarray:
        """Cut the quads, those with more than four corners into a fan around the first one that is new."""
        if crowded is None:
            return split_quads(vertices, self._quads)
        plain = (crowded[0] < 0).all(1)
        faces = [split_quads(vertices, self._quads[plain])]
        for quad, more in zip(self._quads[~plain].tolist(), crowded[0][~plain].tolist(), strict=True):
            polygon = [corner for pair in zip(quad, more, strict=True) for corner in pair if corner >= 0]
            first = polygon.index(max(polygon))
            ring = polygon[first + 1 :] + polygon[:first]
            faces.append(np.array([[polygon[first], *pair] for pair in itertools.pairwise(ring)]))
        return np.concatenate(faces)


def _gathered(vertices: torch.Tensor, around: torch.Tensor) -> torch.Tensor:
    return vertices.index_select(0, around.reshape(-1)).reshape(-1, 4, 3)


def split_quads(vertices: np.ndarray, quads: np.ndarray) -> np.ndarray:
    """Cut each quad (Q, 4) into two triangles along its shorter diagonal."""
    a, b, c, d = quads.T
    first, second = (np.linalg.norm(vertices[p] - vertices[q], axis=1) for p, q in ((a, c), (b, d)))
    other = second < (1 - 1e-6) * first  # rounding must not decide where both are the same
    one = np.where(other[:, None], np.stack([a, b, d], 1), np.stack([a, b, c], 1))
    two = np.where(other[:, None], np.stack([b, c, d], 1), np.stack([a, c, d], 1))
    return np.concatenate([one, two])


def _sheets() -> np.ndarray:
    """Number the sheets that pass through a cell: (256, 12), by pattern of inside corners and by edge.

    Corner 4x + 2y + z, edge 4·axis + 2·(place along the next axis) + (along the one after). Crossed edges belong
    together if a curve on a face of the cell joins them; a face with four crossings keeps its inside corners apart.
    """

    def edge(a: int, b: int) -> int:
        axis = {4: 0, 2: 1, 1: 2}[a ^ b]
        bits = [a >> 2 & 1, a >> 1 & 1, a & 1]
        return 4 * axis + 2 * bits[(axis + 1) % 3] + bits[(axis + 2) % 3]

    faces = [[low, low + p, low + p + q, low + q] for n, p, q in ((4, 2, 1), (2, 1, 4), (1, 4, 2)) for low in (0, n)]
    table = np.zeros((256, 12), dtype=np.int64)
    for pattern in range(256):
        group, crossed = list(range(12)), set()
        for cycle in faces:
            sides = [edge(cycle[k - 1], cycle[k]) for k in range(4)]
            inside = [pattern >> corner & 1 for corner in cycle]
            cut = [side for k, side in enumerate(sides) if inside[k - 1] != inside[k]]
            crossed.update(cut)
            joints = [cut] if len(cut) == 2 else []
            if len(cut) == 4:
                joints = [[sides[k], sides[(k + 1) % 4]] for k in range(4) if inside[k]]
            for one, other in joints:
                group = [group[one] if label == group[other] else label for label in group]
        names = sorted({group[k] for k in crossed})
        for k in crossed:
            table[pattern, k] = names.index(group[k])
    return table


_SHEETS = _sheets()
