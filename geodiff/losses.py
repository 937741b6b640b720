# SPDX-License-Identifier: Apache-2.0
"""Losses that recover a mesh from images: silhouette overlap, and terms that keep the surface smooth and even.

Every mesh term goes over the vertices, edges or pairs of faces of a mesh, and ``reduction`` means the same in all:

- ``"mean"`` (the default): the average over those of each mesh, and over the meshes of a batch ``(..., V, 3)`` or a
  ``MeshBatch``, each counting alike; so a weight serves meshes of any density. This is PyTorch3D's convention;
- ``"sum"``: everything added up, the convention of Soft Rasterizer and GenDR;
- ``"none"``: the average over each mesh, a value each.

Index tables are made once for each topology, so ``mesh.with_vertices`` costs nothing.

Example:
    >>> import torch, geodiff as gd
    >>> mesh, alpha, image = gd.icosphere(3), torch.rand(24, 64, 64), torch.ones(64, 64)
    >>> loss = gd.losses.iou(alpha, image) + 20.0 * gd.losses.laplacian(mesh) + 0.6 * gd.losses.flatness(mesh)
"""

import numbers
from collections.abc import Callable
from typing import Any

import torch

from geodiff.modes import is_transformed, keep, outside_autocast
from geodiff.scene.anchor import anchor
from geodiff.scene.mesh import Mesh
from geodiff.scene.mesh_batch import MeshBatch
from geodiff.scene.topology import Topology
from geodiff.validation import choice, fail, floating, looks_at_values

# A face's unit normal is n / sqrt(|n|² + SLIVER·S²), S the sum of its squared edges: the exact one for any sound face
# (6e-8 off for an equilateral one), but with a bounded gradient where |n|/S, 0.29 at best, falls to 1e-4.
SLIVER = 1e-8
REDUCTIONS = ("mean", "sum", "none")
_SAME_SIZE = {2: "Render and target must have the same size and views.", 3: "Both must be of the same grid."}


@outside_autocast
def iou(alpha: torch.Tensor, target: torch.Tensor, *, reduction: str = "mean") -> torch.Tensor:
    """Compare silhouettes by the soft intersection over union, 0 where they agree and 1 where they are disjoint.

    ``1 − Σ(p·q) / Σ(p + q − p·q)`` over the pixels of each image, with p = ``alpha`` and q = ``target`` (Liu et al.,
    Soft Rasterizer, ICCV 2019). Two empty images agree: their loss is 0.

    Args:
        alpha: coverage (..., H, W) in [0, 1].
        target: coverage of the same shape, or (H, W) shared by all images; floating, boolean or integer 0 and 1.
        reduction: ``"mean"`` over the images, ``"sum"``, or ``"none"`` for a value each.

    Returns:
        A scalar, or (...) for ``"none"``. The gradient of a pair of empty images is 0.

    Raises:
        TypeError, ValueError: for other types, shapes, values outside [0, 1] (1e-3 of slack is allowed for rounding).

    Example:
        >>> import torch
        >>> iou(torch.full((8, 8), 0.5), torch.ones(8, 8))
        tensor(0.5000)
    """
    return _overlap("losses.iou", ("alpha", alpha), target, ("H", "W"), reduction)


@outside_autocast
def voxel_iou(occupancy: torch.Tensor, target: torch.Tensor, *, reduction: str = "mean") -> torch.Tensor:
    """Compare solids on a grid by the intersection over union, as `iou` does images: 0 if they agree, 1 if disjoint.

    The measure of single-view reconstruction is 1 less this, of grids of 32³ cells (`Mesh.voxelized`).

    Args:
        occupancy: (..., X, Y, Z), boolean, or in [0, 1] as a network predicts it.
        target: of the same shape, or (X, Y, Z) shared by all; floating, boolean or integer 0 and 1.
        reduction: ``"mean"`` over the grids, ``"sum"``, or ``"none"`` for a value each.

    Returns:
        A scalar, or (...) for ``"none"``. The gradient of a pair of empty grids is 0.

    Raises:
        TypeError, ValueError: for other types, shapes, values outside [0, 1] (1e-3 of slack is allowed for rounding).

    Example:
        >>> import geodiff as gd
        >>> voxel_iou(gd.box(1.0).voxelized(8), gd.box(0.5).voxelized(8))  # an eighth of the cells
        tensor(0.8750)
    """
    where = "losses.voxel_iou"
    if isinstance(occupancy, torch.Tensor) and not occupancy.is_floating_point():
        occupancy = occupancy.to(torch.get_default_dtype())
    return _overlap(where, ("occupancy", occupancy), target, ("X", "Y", "Z"), reduction)


def _overlap(
    where: str, given: tuple[str, torch.Tensor], target: torch.Tensor, axes: tuple[str, ...], reduction: str
) -> torch.Tensor:
    """Return 1 less the intersection over union, over the last axes."""
    name, own = given
    choice(where, "reduction", reduction, REDUCTIONS)
    floating(where, name, own, ("...", *axes))
    if isinstance(target, torch.Tensor) and not target.is_floating_point():
        target = target.to(own.dtype)
    floating(where, "target", target, ("...", *axes))
    last = own.shape[-len(axes) :]
    if target.shape != own.shape and target.shape != last:
        expected = f"of {name}'s shape {tuple(own.shape)} or {tuple(last)}"
        raise fail(where, "target", expected, target, _SAME_SIZE[len(axes)])
    if target.device != own.device:
        message = f"on {own.device}, where {name} is"
        raise fail(
            where, "target", message, str(target.device), f"Move it with target.to({name}.device).", RuntimeError
        )
    for label, values in ((name, own), ("target", target)):
        if values.device.type == "cpu" and values.numel() and looks_at_values(values):
            low, high = (float(bound) for bound in torch.aminmax(values.detach()))
            if low < -1e-3 or high > 1 + 1e-3:
                fix = "Divide 8-bit images by 255." if len(axes) == 2 else ""
                raise fail(where, label, "in [0, 1]", f"values in [{low:g}, {high:g}]", fix)
    common = torch.promote_types(own.dtype, target.dtype)
    p, q = own.to(common), target.to(common)
    over = tuple(range(-len(axes), 0))
    intersection = (p * q).sum(over)
    union = p.sum(over) + q.sum(over) - intersection
    some = union > 0
    return _reduce(torch.where(some, 1 - intersection / torch.where(some, union, 1), 0), reduction)


@outside_autocast
def laplacian(
    mesh: Mesh | MeshBatch, *, kind: str = "uniform", squared: bool = True, reduction: str = "mean"
) -> torch.Tensor:
    """Measure how far vertices lie from the mean of their neighbours: the mean over the vertices of ``‖(L x)_i‖²``.

    ``(L x)_i = Σ_j w_ij (x_j − x_i) / Σ_j w_ij`` over the neighbours j of i. ``"uniform"`` has w_ij = 1;
    ``"cotangent"`` has ``w_ij = max(0, cot α + cot β)``, the angles opposite to the edge (Pinkall and Polthier 1993),
    which leaves flat regions of uneven triangles alone. An isolated vertex contributes 0. Soft Rasterizer and GenDR
    add the vertices up (``reduction="sum"``); PyTorch3D averages lengths (``squared=False``).

    Args:
        mesh: a :class:`geodiff.Mesh` with vertices (..., V, 3) or a :class:`geodiff.MeshBatch`; lengths in
            the mesh's unit, the result in its square.
        kind: ``"uniform"`` or ``"cotangent"``.
        squared: average ``‖(L x)_i‖²``; False: ``‖(L x)_i‖``.
        reduction: ``"mean"``, over the vertices and then the meshes; ``"sum"`` over all; or ``"none"``, the mean over
            each mesh.

    Returns:
        A scalar, or (...) for ``"none"``. The gradient is complete: cotangents are differentiated too. Where
        ``squared`` is False, a vertex in the very middle of its neighbours has gradient 0.

    Raises:
        TypeError, ValueError: if ``mesh`` is no mesh, or for an unknown kind or reduction.

    Example:
        >>> import geodiff as gd
        >>> laplacian(gd.icosphere(2)), laplacian(gd.icosphere(2), kind="cotangent")
        (tensor(0.0024), tensor(0.0019))
        >>> laplacian(gd.icosphere(2), reduction="sum")  # over 162 vertices
        tensor(0.3811)
    """
    choice("losses.laplacian", "kind", kind, ("uniform", "cotangent"))

    def value(x: torch.Tensor, tables: _Tables) -> _Terms:
        # A sum of many coordinates: far from the origin each would round more than the differences are.
        x = x - anchor(x.movedim(0, -2)) if kind == "uniform" else x
        delta = _product(x, tables.laplacian) if kind == "uniform" else _cotangent_delta(x, tables)
        total = (delta * delta).sum((0, 2)) if squared else torch.linalg.vector_norm(delta, dim=2).sum(0)
        return total, delta.shape[0]

    return _each("losses.laplacian", mesh, reduction, value)


@outside_autocast
def flatness(mesh: Mesh | MeshBatch, *, reduction: str = "mean") -> torch.Tensor:
    """Penalise creases: the mean of ``(1 + cos θ)²`` over the interior edges, θ the dihedral angle (π where flat).

    θ is the angle between the directions that lead from the edge into its two faces, at right angles to it; the term is
    0 for a flat pair and 4 for one folded upon itself. Boundary edges have no pair; an edge of m > 2 faces counts each
    of its m(m−1)/2 pairs. With ``reduction="sum"`` this is the flattening loss of Soft Rasterizer and GenDR, but over
    **all** interior edges.

    Args:
        mesh: a :class:`geodiff.Mesh` with vertices (..., V, 3) or a :class:`geodiff.MeshBatch`. Faces need not
            be oriented consistently.
        reduction: ``"mean"``, over the pairs and then the meshes; ``"sum"`` over all; or ``"none"``, the mean over each
            mesh.

    Returns:
        A scalar, or (...) for ``"none"``; dimensionless. A face without area has cos θ = 0 and a finite gradient. So
        that this has no jump, a normal n, twice the area long, counts as `n/√(|n|² + 1e-8 S²)`, S the sum of the
        squared edges: a flat pair of right-angled faces has ``1 + cos θ`` of 1.6e-7 where their legs are alike, and of
        4e-8 times the square of the ratio where they are not.

    Raises:
        TypeError, ValueError: if ``mesh`` is no mesh, or for an unknown reduction.

    Example:
        >>> import geodiff as gd
        >>> flatness(gd.box())  # twelve right angles and six flat diagonals
        tensor(0.6667)
        >>> flatness(gd.box(), reduction="sum")
        tensor(12.)
    """
    return _each("losses.flatness", mesh, reduction, lambda x, tables: _terms(_bends(x, tables).square()))


@outside_autocast
def normal_consistency(mesh: Mesh | MeshBatch, *, reduction: str = "mean") -> torch.Tensor:
    """Measure how much the normals of adjacent faces differ: the mean of ``1 − cos(n_a, n_b)`` over adjacent faces.

    Pairs, orientation and what slender faces count are as in :func:`flatness`; the convention is that of PyTorch3D's
    ``mesh_normal_consistency``.

    Args:
        mesh: a :class:`geodiff.Mesh` with vertices (..., V, 3) or a :class:`geodiff.MeshBatch`.
        reduction: ``"mean"``, over the pairs and then the meshes; ``"sum"`` over all; or ``"none"``, the mean over each
            mesh.

    Returns:
        A scalar, or (...) for ``"none"``, in [0, 2]; 0 for a mesh without interior edges.

    Raises:
        TypeError, ValueError: if ``mesh`` is no mesh, or for an unknown reduction.

    Example:
        >>> import geodiff as gd
        >>> normal_consistency(gd.box())  # twelve right angles and six flat diagonals
        tensor(0.6667)
    """
    return _each("losses.normal_consistency", mesh, reduction, lambda x, tables: _terms(_bends(x, tables)))


@outside_autocast
def edge_length(mesh: Mesh | MeshBatch, target: float | torch.Tensor = 0.0, *, reduction: str = "mean") -> torch.Tensor:
    """Draw the edges to a common length: the mean over all edges of ``(|e| − target)²``.

    Args:
        mesh: a :class:`geodiff.Mesh` with vertices (..., V, 3) or a :class:`geodiff.MeshBatch`.
        target: the length wished for, ≥ 0, in the mesh's unit; a number or a scalar tensor.
        reduction: ``"mean"``, over the edges and then the meshes; ``"sum"`` over all; or ``"none"``, the mean over each
            mesh.

    Returns:
        A scalar, or (...) for ``"none"``; 0 for a mesh without edges. An edge of length 0 has no direction: its
        gradient is taken to be 0.

    Raises:
        TypeError, ValueError: if ``mesh`` is no mesh, ``target`` is negative or no number, or for an unknown reduction.

    Example:
        >>> import geodiff as gd
        >>> edge_length(gd.icosphere(0), target=1.0)
        tensor(0.0026)
    """
    where = "losses.edge_length"
    if isinstance(target, torch.Tensor):
        floating(where, "target", target, (), "Give one length for all edges.")
    elif not isinstance(target, numbers.Real):
        raise fail(where, "target", "a number or a scalar tensor", repr(target), error=TypeError)
    if not isinstance(target, torch.Tensor) or target.device.type == "cpu":
        length = float(target.detach() if isinstance(target, torch.Tensor) else target)
        if not 0 <= length < float("inf"):
            raise fail(where, "target", "a finite length ≥ 0", str(length))

    def value(x: torch.Tensor, tables: _Tables) -> _Terms:
        start, end = _product(x, tables.edge_ends).chunk(2)
        return _terms((torch.linalg.vector_norm(end - start, dim=-1) - target).square())

    return _each(where, mesh, reduction, value)


def _reduce(values: torch.Tensor, reduction: str) -> torch.Tensor:
    """Average, add or keep the values of a batch."""
    if reduction == "none":
        return values
    return values.mean() if reduction == "mean" and values.numel() else values.sum()


_Terms = tuple[torch.Tensor, int]  # sums (B,) over the terms of each mesh, and how many terms a mesh has


def _terms(values: torch.Tensor) -> _Terms:
    """Add (N, B) up over the N terms of each mesh."""
    return values.sum(0), values.shape[0]


def _each(
    where: str, mesh: Mesh | MeshBatch, reduction: str, value: Callable[[torch.Tensor, "_Tables"], _Terms]
) -> torch.Tensor:
    """Check the arguments, find the terms of vertices (V, B, 3), reduce over those of each mesh and over the batch."""
    choice(where, "reduction", reduction, REDUCTIONS)
    if isinstance(mesh, MeshBatch):
        within = "sum" if reduction == "sum" else "none"
        return _reduce(torch.stack([_each(where, part, within, value) for part in mesh]), reduction)
    if not isinstance(mesh, Mesh):
        fix = "Build one with geodiff.Mesh(vertices, faces)."
        raise fail(where, "mesh", "a geodiff.Mesh or MeshBatch", mesh, fix, TypeError)
    keep(mesh.topology, "_loss_tables", _Tables)
    tables: _Tables = mesh.topology.__dict__["_loss_tables"]
    batch = mesh.vertices.shape[:-2]
    columns = mesh.vertices.reshape(batch.numel(), *mesh.vertices.shape[-2:]).movedim(0, 1)
    total, count = value(columns, tables)
    return _reduce((total if reduction == "sum" else total / max(count, 1)).reshape(batch), reduction)


def _cotangent_delta(x: torch.Tensor, tables: "_Tables") -> torch.Tensor:
    """Rows of the normalised cotangent Laplacian times x (V, B, 3)."""
    a, b, _, softened, _ = _edges_and_normals(x, tables)
    c = b - a
    dots = torch.stack([(a * b).sum(-1), -(a * c).sum(-1), (b * c).sum(-1)])  # at corners 0, 1, 2 of each face
    cotangent = dots / softened[..., 0]
    weight = _product(cotangent.flatten(0, 1), tables.opposite_edge.transposed)[:-1].clamp_min(0)
    start, end = _product(x, tables.edge_ends).chunk(2)
    pull = weight[..., None] * (end - start)
    total = _product(torch.cat([weight, weight]), tables.edge_ends.transposed)
    delta = _product(torch.cat([pull, -pull]), tables.edge_ends.transposed)
    return delta / torch.where(total > 0, total, 1)[..., None]


def _edges_and_normals(x: torch.Tensor, tables: "_Tables") -> tuple[torch.Tensor, ...]:
    """Of each face: edges a, b out of its first corner, n = a × b, |n| kept away from 0, the sum of squared edges."""
    p, q, r = _product(x, tables.corners).chunk(3)
    a, b = q - p, r - p
    normal = torch.linalg.cross(a, b, dim=-1)
    squares = 2 * (a * (a - b) + b * b).sum(-1, keepdim=True)
    softened = (normal * normal).sum(-1, keepdim=True) + SLIVER * squares * squares
    return a, b, normal, softened.clamp_min(torch.finfo(x.dtype).tiny).sqrt(), squares


def _unit_pairs(unit: torch.Tensor, tables: "_Tables") -> tuple[torch.Tensor, ...]:
    """Unit normals (P, B, 3) of both faces of each pair, as if all faces were oriented alike."""
    left, right = _product(unit, tables.pairs).chunk(2)
    return left, right if tables.pair_sign is None else right * tables.pair_sign.to(unit.dtype)


class _NormalCosines(torch.autograd.Function):
    """Cosines between the normals of adjacent faces, with a backward pass by hand in half autograd's time."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, tables: "_Tables") -> torch.Tensor:
        a, b, normal, softened, squares = _edges_and_normals(x, tables)
        unit = normal / softened
        left, right = _unit_pairs(unit, tables)
        ctx.tables = tables
        ctx.save_for_backward(x, a, b, unit, softened, squares, left, right)
        return (left * right).sum(-1)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, None]:
        tables = ctx.tables
        x, a, b, unit, softened, squares, left, right = ctx.saved_tensors
        if torch.is_grad_enabled():  # a second derivative is wanted: leave it all to autograd
            _, _, normal, softened, _ = _edges_and_normals(x, tables)
            left, right = _unit_pairs(normal / softened, tables)
            return torch.autograd.grad((left * right).sum(-1), x, gradient, create_graph=True)[0], None
        if tables.pair_sign is not None:
            left = left * tables.pair_sign.to(left.dtype)
        g = gradient[..., None]
        by_unit = _product(torch.cat([right * g, left * g]), tables.pairs.transposed)
        along = (unit * by_unit).sum(-1, keepdim=True)
        by_normal = (by_unit - unit * along) / softened
        by_squares = (-2 * SLIVER) * along * squares / (softened * softened)
        by_a = torch.linalg.cross(b, by_normal, dim=-1) + by_squares * (2 * a - b)
        by_b = torch.linalg.cross(by_normal, a, dim=-1) + by_squares * (2 * b - a)
        return _product(torch.cat([-by_a - by_b, by_a, by_b]), tables.corners.transposed), None


def _bends(x: torch.Tensor, tables: "_Tables") -> torch.Tensor:
    """One minus the cosine between the normals of adjacent faces (P, B)."""
    if is_transformed(x):
        _, _, normal, softened, _ = _edges_and_normals(x, tables)
        left, right = _unit_pairs(normal / softened, tables)
        return 1 - (left * right).sum(-1)
    cosine: torch.Tensor = _NormalCosines.apply(x, tables)
    return 1 - cosine


class _Rows:
    """A sparse matrix: ``y[i] = Σ weight[k]·x[index[k]]`` over the k of row i; without offsets ``y = x[index]``.

    ``transposed`` is its transpose, so that the gradient is such a product again: a gather or an ordered segment sum,
    never an atomic addition, hence the same bits every time on every device, and differentiable to any order.
    """

    transposed: "_Rows"

    def __init__(
        self, index: torch.Tensor, offsets: torch.Tensor | None = None, weight: torch.Tensor | None = None
    ) -> None:
        self.index, self.offsets, self.weight = index.contiguous(), offsets, weight

    def times(self, x: torch.Tensor) -> torch.Tensor:
        """Multiply x (N, ...) along dimension 0, unseen by autograd."""
        if self.offsets is None:
            return x.index_select(0, self.index)
        flat = x.flatten(1).contiguous()
        weight = None if self.weight is None else self.weight.to(x.dtype)
        total = torch.nn.functional.embedding_bag(self.index, flat, self.offsets, mode="sum", per_sample_weights=weight)
        return total.reshape(-1, *x.shape[1:])

    def plainly_times(self, x: torch.Tensor) -> torch.Tensor:
        """Multiply as `times`, by functions that take part in forward mode and torch.func."""
        rows = x.index_select(0, self.index)
        if self.offsets is None:
            return rows
        if self.weight is not None:
            rows = rows * self.weight.to(x.dtype).reshape(-1, *[1] * (x.dim() - 1))
        places = torch.arange(len(self.index), device=x.device)
        row = torch.searchsorted(self.offsets, places, right=True) - 1
        return x.new_zeros(len(self.offsets), *x.shape[1:]).index_add(0, row, rows)

    @classmethod
    def gather(cls, index: torch.Tensor, count: int) -> "_Rows":
        """Make the matrix that picks rows ``index`` out of ``count``."""
        rows, order = cls(index), torch.argsort(index, stable=True)
        rows.transposed = cls(order, _starts(index[order], count))
        rows.transposed.transposed = rows
        return rows


def _starts(sorted_rows: torch.Tensor, count: int) -> torch.Tensor:
    """Where each of ``count`` rows begins in a sorted list of row numbers."""
    return torch.searchsorted(sorted_rows, torch.arange(count, device=sorted_rows.device))


class _Product(torch.autograd.Function):
    """Multiply by a :class:`_Rows` along dimension 0."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, rows: _Rows) -> torch.Tensor:
        ctx.rows = rows
        return rows.times(x)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, None]:
        return _product(gradient, ctx.rows.transposed), None


def _product(x: torch.Tensor, rows: _Rows) -> torch.Tensor:
    """Multiply ``rows`` by x (N, ...) along dimension 0."""
    if is_transformed(x):
        return rows.plainly_times(x)
    if not (torch.is_grad_enabled() and x.requires_grad):
        return rows.times(x)
    result: torch.Tensor = _Product.apply(x, rows)
    return result


class _Tables:
    """What the losses read of a topology, as matrices to multiply by."""

    def __init__(self, topology: Topology) -> None:
        faces, edges, pairs, count = topology.faces, topology.edges, topology.face_pairs, topology.num_vertices
        self.corners = _Rows.gather(faces.t().reshape(-1), count)
        self.edge_ends = _Rows.gather(edges.t().reshape(-1), count)
        self.pairs = _Rows.gather(pairs.t().reshape(-1), len(faces))
        # Faces are oriented alike if they run along their common edge in opposite directions.
        around = faces[pairs]
        low, high = edges[topology.face_pair_edges][:, None, :, None].unbind(2)
        forward = ((around == low) & (around.roll(-1, dims=-1) == high)).any(-1)
        alike = forward[:, 0] != forward[:, 1]
        self.pair_sign = None if bool(alike.all()) else torch.where(alike, 1.0, -1.0)[:, None, None]
        # Corner c of face f faces the edge number c·F + f; a slot after the edges takes the corners of faces that
        # repeat a vertex.
        a, b, c = faces.unbind(1)
        start, end = torch.cat([b, c, a]), torch.cat([c, a, b])
        width = max(count, 1)
        side = torch.minimum(start, end) * width + torch.maximum(start, end)
        number = torch.searchsorted(edges[:, 0] * width + edges[:, 1], side)
        proper = ((a != b) & (b != c) & (c != a)).repeat(3)
        self.opposite_edge = _Rows.gather(torch.where(proper, number, len(edges)), len(edges) + 1)
        # Row i of L: −1 at i, 1/degree(i) at its neighbours. Its transpose has the same places.
        used = topology.vertex_degree.nonzero()[:, 0]
        row, column = torch.cat([edges[:, 0], edges[:, 1], used]), torch.cat([edges[:, 1], edges[:, 0], used])
        order = torch.argsort(row, stable=True)
        row, column = row[order], column[order]
        inverse = 1.0 / topology.vertex_degree.clamp_min(1).double()
        starts = _starts(row, count)
        self.laplacian = _Rows(column, starts, torch.where(row == column, -1.0, inverse[row]))
        self.laplacian.transposed = _Rows(column, starts, torch.where(row == column, -1.0, inverse[column]))
        self.laplacian.transposed.transposed = self.laplacian
