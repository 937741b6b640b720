# SPDX-License-Identifier: Apache-2.0
"""The surface where a function of space passes a level, as a closed mesh whose vertices know their derivative.

Surface nets (Gibson 1998) made manifold: the dual of marching cubes. A cell of the grid has a vertex for each sheet of
the surface that passes through it, the mean of the crossings of that sheet with the cell's edges; each crossed edge of
the grid has a quad between the cells around it. Beside marching tetrahedra this gives a quarter of the triangles, all
about as large as a cell, and no slivers where the surface runs close to a node of the grid. It is a manifold without
exception: two vertices are joined by the curve in which a sheet meets a face of the grid, and where a sheet meets one
face in two curves, each of these gets a vertex of its own.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

from geodiff.modes import outside_autocast
from geodiff.ops import _op
from geodiff.reference.surface_net import SHEETS
from geodiff.scene.mesh import Mesh
from geodiff.validation import as_tensor, choice, fail, floating, integer, number

Field = Callable[[torch.Tensor], torch.Tensor]

_WHERE = "isosurface"
_CHUNK = 1 << 17  # points at which a field is evaluated at a time
_SLIVER = 1e-3  # of the mean difference along crossed edges: below it, the gradient of a crossing is damped
_SHARPENING = 0.5  # how far vertices go towards where the middles of their quads would be on the surface
_NEWTON = 3  # steps onto the level
_MOST = 2**31  # nodes
_SHEETS = torch.from_numpy(SHEETS)
_WAYS = torch.tensor([[-1, 0, 0], [1, 0, 0], [0, -1, 0], [0, 1, 0], [0, 0, -1], [0, 0, 1]])


@outside_autocast
def isosurface(
    values: Any,
    level: float = 0.0,
    *,
    bounds: Any = None,
    resolution: int | tuple[int, int, int] | None = None,
    inside: str = "below",
    gradient: str = "edges",
    empty: str = "mesh",
) -> Mesh:
    """Return the mesh on which a grid of values, or a function of space, equals ``level``.

    The vertices are differentiable in the values (or in whatever the function depends on), so a mesh may split, join
    and open holes while it is fitted: extract it anew at each step. Its topology is a step function of the values.

    Args:
        values: (X, Y, Z), at the nodes of a grid, ``values[i, j, k]`` at the i-th x, j-th y and k-th z; or a function
            that takes points (N, 3) and returns (N,). Of occupancies that go from 0 to 1 within a cell, their logits,
            since crossings take values to be straight along an edge.
        level: what the values equal on the surface.
        bounds: the lowest and the highest corner of the grid, (2, 3); left out, the cube [−1, 1]³.
        resolution: for a function, the number of nodes: (X, Y, Z), or one for all three; each ≥ 2.
        inside: ``"below"`` the level, as for signed distances, or ``"above"``, as for occupancies.
        gradient: ``"edges"``: the derivative of this very mesh, of crossings ``a / (a − b)`` on the edges of the grid;
            it is exact for any values. ``"normal"``, for a function alone: its vertices are moved onto the level, and
            by the implicit function theorem ``−n (∂f/∂θ) / |∇f|`` is the derivative of each (Guillard et al.,
            "DeepMesh", 2021), the part along the surface left out. It needs f with a gradient of its own.
        empty: where nothing is inside: ``"mesh"`` without faces, or ``"error"``, which names the range of the values.

    Returns:
        A closed, consistently oriented manifold `Mesh` with normals outwards, in the values' dtype. Where the solid
        reaches the border of the grid it is closed there, by walls that do not move. Nothing inside: no faces.

    Gradients: to ``values``, or to what the function depends on; 0 where the mesh ends at the border. Where values
    barely differ along a crossed edge the derivative of the crossing has no bound: it is damped below a thousandth of
    the mean difference. NaN counts as outside, and what borders on it or on infinity does not move.

    Raises:
        TypeError, ValueError: for other types, shapes, a level that is not finite, bounds that are no box, a grid
            without a single number, and with ``empty="error"`` a level outside of the values.
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
    choice(_WHERE, "empty", empty, ("mesh", "error"))
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
    net = Net(grid.detach() < level if inside == "below" else grid.detach() > level)
    a, b = net.inner, net.outer
    if not len(a):
        _check_empty(grid.detach(), level, inside, empty)
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


def _check_empty(grid: torch.Tensor, level: float, inside: str, empty: str) -> None:
    """Look why nothing is inside."""
    numbers = grid[~grid.isnan()]
    if not len(numbers):
        raise fail(_WHERE, "values", "numbers", "NaN everywhere", "Find where it arose.")
    if empty == "error":
        got = f"{level:g}, and values from {float(numbers.min()):g} to {float(numbers.max()):g}"
        raise fail(_WHERE, "level", f"one that some values are {inside}", got, "Is `inside` the right way round?")


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

    def __init__(self, inside: torch.Tensor) -> None:
        self._shape = inside.shape
        found = _op.call(_op.kernels.surface_net, inside=inside.contiguous(), sheets=_SHEETS)
        #: the nodes of the grid at the inner and the outer end of each crossed edge; −1: beyond it
        self.inner, self.outer, self._at, self._way, self._around, self._quads, self._doubtful, count = found
        self.num_vertices = int(count)
        self._crossings = torch.bincount(self._around.reshape(-1), minlength=self.num_vertices)

    def mesh(self, share: torch.Tensor, low: torch.Tensor, spacing: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return vertices and faces, given how far along each crossed edge, from its inner end, the surface is."""
        # Steps of the grid first, small whole numbers; the unit and place of the world last.
        points = self._at.to(share.dtype) + share[:, None] * _WAYS.to(share.dtype).index_select(0, self._way)
        vertices = self._mean(points)
        # Means of what lies on a curved surface lie on its inner side; so do the quads' middles, by twice as much.
        middles = _Sums.apply(vertices, self._around, True, len(share)) / 4
        vertices = vertices + _SHARPENING * self._mean(points - middles)
        vertices = torch.minimum(vertices.clamp_min(0), torch.tensor(self._shape) - 1)
        crowded = self._crowded()
        if crowded is not None:
            vertices = torch.cat((vertices, points[crowded[1]].mean(1)))
        place = vertices * spacing.to(vertices.dtype) + low.to(vertices.dtype)
        return place, self._triangles(vertices.detach().double(), crowded)

    def _mean(self, points: torch.Tensor) -> torch.Tensor:
        """Return for each vertex the mean over the crossings (E, 3) that it was made of."""
        total: torch.Tensor = _Sums.apply(points, self._around, False, self.num_vertices)
        return total / self._crossings[:, None]

    def _crowded(self) -> tuple[torch.Tensor, torch.Tensor] | None:
        """Return what else than the vertices of its cells a side of a quad has: a new vertex's number (E, 4), or −1.

        A sheet that meets a face of the grid in two curves would join the same two vertices twice, and give that edge
        four faces. Each curve gets a vertex then, between its two crossings, whose numbers come second, (N, 2).
        """
        corners = self._quads.reshape(-1)
        one = corners.index_select(0, self._doubtful)
        other = corners.index_select(0, (self._doubtful & ~3) + ((self._doubtful + 1) & 3))
        key = (torch.minimum(one, other) * self.num_vertices + torch.maximum(one, other)).numpy()
        order = np.argsort(key)
        run = np.flatnonzero(np.diff(key[order], prepend=-1, append=-1))  # where each key starts, and the end
        many = np.repeat(np.diff(run) > 2, np.diff(run))
        if not many.any():
            return None
        often = np.sort(order[many])
        doubtful = self._doubtful.numpy()[often]
        row = doubtful // 4
        # A curve on a face with four crossings goes around the corner that is inside.
        curve = np.concatenate([key[often, None], self._at.numpy()[row]], 1)
        curves, number = np.unique(curve, axis=0, return_inverse=True)
        more = torch.full((len(corners),), -1)
        more[torch.from_numpy(doubtful)] = self.num_vertices + torch.from_numpy(number.reshape(-1))
        order = np.argsort(number.reshape(-1), kind="stable")
        crossings = row[order].reshape(len(curves), 2)
        return more.reshape(-1, 4), torch.from_numpy(crossings)

    def _triangles(self, vertices: torch.Tensor, crowded: tuple[torch.Tensor, torch.Tensor] | None) -> torch.Tensor:
        """Cut the quads, those with more than four corners into a fan around the first one that is new."""
        if crowded is None:
            return split_quads(vertices, self._quads)
        plain = (crowded[0] < 0).all(1)
        return torch.cat((split_quads(vertices, self._quads[plain]), fans(self._quads[~plain], crowded[0][~plain])))


class _Sums(torch.autograd.Function):
    """Points of edges added up at the vertices around them, or with `gather` the transpose; of all orders."""

    @staticmethod
    def forward(points: torch.Tensor, around: torch.Tensor, gather: bool, count: int) -> torch.Tensor:
        out = points.new_zeros(count, 3)
        _op.call(_op.kernels.net_sum, points=points.detach().contiguous(), around=around, gather=gather, out=out)
        return out

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: torch.Tensor) -> None:
        ctx.around, ctx.gather, ctx.counts = inputs[1], inputs[2], (len(inputs[0]), len(output))

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        return _Sums.apply(gradient, ctx.around, not ctx.gather, ctx.counts[0]), None, None, None

    @staticmethod
    def jvp(ctx: Any, tangent: torch.Tensor, *_: Any) -> torch.Tensor:
        result: torch.Tensor = _Sums.apply(tangent, ctx.around, ctx.gather, ctx.counts[1])
        return result


def split_quads(vertices: torch.Tensor, quads: torch.Tensor) -> torch.Tensor:
    """Cut each quad (Q, 4) into two triangles along its shorter diagonal."""
    a, b, c, d = quads.unbind(1)
    first, second = (
        torch.linalg.vector_norm(vertices.index_select(0, p) - vertices.index_select(0, q), dim=1)
        for p, q in ((a, c), (b, d))
    )
    other = second < (1 - 1e-6) * first  # rounding must not decide where both are the same
    faces = quads.new_empty(2, len(quads), 3)
    faces[0, :, :2], faces[0, :, 2] = quads[:, :2], torch.where(other, d, c)
    faces[1, :, 0], faces[1, :, 1:] = torch.where(other, b, a), quads[:, 2:]
    return faces.reshape(-1, 3)


def fans(quads: torch.Tensor, more: torch.Tensor) -> torch.Tensor:
    """Cut quads (Q, 4) with further corners in the middles of their sides, or −1, into fans around the highest one."""
    corners = torch.stack((quads, more), 2).reshape(-1, 8)
    there = corners >= 0
    # Those that there are first, in their order, then around from the one after the highest.
    corners = corners.gather(1, (~there).to(torch.uint8).argsort(dim=1, stable=True))
    count = there.sum(1, keepdim=True)
    first = corners.argmax(1, keepdim=True)
    steps = torch.arange(1, 8)
    ring = corners.gather(1, (first + steps) % count)
    faces = torch.stack((corners.gather(1, first).expand(-1, 6), ring[:, :-1], ring[:, 1:]), 2)
    return faces[steps[1:] < count]
