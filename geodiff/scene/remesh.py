# SPDX-License-Identifier: Apache-2.0
"""Even triangles over the same surface, and what was known at the old vertices carried over to the new ones."""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from geodiff.modes import outside_autocast
from geodiff.ops import _op
from geodiff.scene.intersections import scaled_points, single_mesh
from geodiff.validation import as_tensor, fail, floating, integer, number, positive, shapes_repr

if TYPE_CHECKING:
    from geodiff.scene.mesh import Mesh

_MOST_FACES = 20_000_000
_EVEN = math.sqrt(3) / 4  # area of an equilateral triangle of side 1


@dataclass(frozen=True)
class RemeshResult:
    """What `remesh` returns: the new mesh, and where its V′ vertices lie on the old one.

    Attributes:
        mesh: the new mesh of V′ vertices and F′ faces.
        source_faces: (V′,) int64, the face of the old mesh that each vertex lies on.
        source_barycentrics: (V′, 3) weights of that face's corners, ≥ 0, with the sum 1.
        irregular: (n,) int64, vertices where the old mesh was no surface: on edges of three faces or more, or of two
            that are wound apart, and where several fans meet. They and those edges are as they were.
        splits, collapses, flips: how many of each it took.
    """

    __repr__ = shapes_repr

    mesh: "Mesh"
    source_faces: torch.Tensor
    source_barycentrics: torch.Tensor
    irregular: torch.Tensor
    splits: int
    collapses: int
    flips: int
    _source: "Mesh"

    def carry(self, values: torch.Tensor) -> torch.Tensor:
        """Return what a tensor over the old vertices is at the new ones, between the corners of a face.

        For colours, the moments of an optimiser, or anything else that a vertex has.

        Args:
            values: (V,) or (V, …), floating.

        Returns:
            (V′,) or (V′, …), of the same dtype and device.

        Gradients: to the values; linear.

        Raises:
            TypeError, ValueError: values that are not floating, or not one for each old vertex.
        """
        where, count = "RemeshResult.carry", self._source.num_vertices
        value = as_tensor(where, "values", values)
        if not value.is_floating_point():
            raise fail(where, "values", "a floating tensor", value, "Use .float().", TypeError)
        if value.dim() < 1 or len(value) != count:
            raise fail(where, "values", f"of shape ({count}, …), one for each old vertex", value)
        corners = value[self._source.faces[self.source_faces].to(value.device)]
        weights = self.source_barycentrics.to(value)
        return (corners * weights.reshape(*weights.shape, *(1,) * (value.dim() - 1))).sum(1)


@outside_autocast
def remesh(
    mesh: "Mesh",
    edge_length: Any = None,
    *,
    iterations: int = 5,
    feature_angle_deg: float | None = 60.0,
    allow_intersections: bool = False,
) -> RemeshResult:
    """Make a mesh of even triangles over the same surface.

    Edges longer than 4/3 of what is wanted are split, those shorter than 4/5 collapsed, others flipped where that
    brings vertices nearer to six neighbours or widens the smallest angle, and vertices move along the surface to the
    middle of their surroundings; all that several times over (Botsch and Kobbelt, "A remeshing approach to
    multiresolution modeling", 2004). Vertices end on the old surface, unless it is so crumpled that faces would turn
    over on the way. No edit changes the topology, or makes faces meet that did not: the count of
    ``mesh.self_intersections()`` does not rise.

    Borders stay borders, and creases creases: their vertices move and go along them only, and corners where they end,
    branch or turn by more than 45° stay. What is no surface stays as it is: see ``RemeshResult.irregular``. So do
    vertices at the same position along borders: join them with ``mesh.welded()`` first unless they are seams. Faces
    that name a vertex twice or all three of another face are dropped, and so are vertices in no face.

    Vertex colours and texture coordinates that belong to vertices are interpolated, face colours taken from the old
    face that is nearest to the middle of the new one; texture and material stay. Texture coordinates of corners of
    their own (``uv_faces``) are refused.

    Args:
        mesh: one mesh (V, 3), float32 or float64.
        edge_length: the wanted length of edges, > 0, in the unit of the mesh: a number, or (V,) a length at each old
            vertex, such as ``sizing`` makes; None: the mean length of the edges.
        iterations: how often, ≥ 0.
        feature_angle_deg: edges whose faces' normals are more than this angle apart are creases, in (0, 180]; None: no
            edge is, so that crumples are smoothed away.
        allow_intersections: do not look for self-intersections, which takes about half of the time.

    Returns:
        A `RemeshResult`. It is computed in float64 on the processor and the same to the bit on any number of threads
        and every SIMD level.

    Gradients: to the vertices and attributes, by which old vertices a new one lies between; not to ``edge_length``.

    Raises:
        TypeError: lengths or angles that are no numbers.
        ValueError: a batch; lengths that are not positive or of the wrong shape; texture coordinates of corners; a
            length that would make more than 20 million faces.

    Example:
        >>> import geodiff as gd
        >>> from geodiff.scene.remesh import remesh
        >>> result = remesh(gd.icosphere(3), 0.3)
        >>> moments = result.carry(torch.zeros(642, 3))
        >>> moments.shape == result.mesh.vertices.shape
        True
    """
    where = "Mesh.remeshed"
    single_mesh(where, mesh)
    integer(where, "iterations", iterations, 0, 1000)
    if feature_angle_deg is not None:
        positive(where, "feature_angle_deg", feature_angle_deg, "None keeps no creases.")
        number(where, "feature_angle_deg", feature_angle_deg, 0, 180)
    if mesh.uv is not None and mesh.uv_faces is not mesh.faces:
        fix = "Drop them with mesh.with_attributes(uv=None, texture=None), and unwrap the new mesh."
        raise fail(where, "mesh", "without texture coordinates of corners (uv_faces)", mesh.uv, fix)
    sizes = _sizes(where, mesh, edge_length)
    points, unit = scaled_points(mesh)
    crease = math.cos(math.radians(feature_angle_deg)) if feature_angle_deg is not None else -2.0
    vertices, faces, source, weights, irregular, counts = _op.call(
        _op.kernels.remesh,
        points=points,
        faces=mesh.faces.cpu(),
        sizes=(sizes / unit).contiguous(),
        iterations=iterations,
        crease=crease,
        single=mesh.dtype == torch.float32,
        guard=not allow_intersections,
    )
    splits, collapses, flips = counts.tolist()
    device = mesh.device
    result = RemeshResult(
        mesh, source.to(device), weights.to(device), irregular.to(device), splits, collapses, flips, mesh
    )
    at = (vertices * unit).to(device, mesh.dtype)
    if mesh.vertices.requires_grad and torch.is_grad_enabled():
        between = result.carry(mesh.vertices)
        at = at + (between - between.detach())
    object.__setattr__(result, "mesh", _dressed(result, at, faces.to(device)))
    return result


def remeshed(mesh: "Mesh", edge_length: Any = None, **options: Any) -> "Mesh":
    """Return a mesh of even triangles over the same surface: the ``mesh`` of `remesh`, which has the arguments."""
    return remesh(mesh, edge_length, **options).mesh


@outside_autocast
def sizing(
    mesh: "Mesh", error: float, *, shortest: float | None = None, longest: float | None = None, growth: float = 0.5
) -> torch.Tensor:
    """Return edge lengths for `remesh` that keep the triangles within a distance of the surface: short where it bends.

    A triangle of side ``L = √(6ε/κ − 3ε²)`` leaves a sphere of curvature κ by ε (Dunyach et al., "Adaptive remeshing
    for real-time mesh deformation", 2013). κ at a vertex is the largest over its edges, of the normals' change along
    the edge by its length.

    Args:
        mesh: one mesh (V, 3).
        error: ε > 0, in the unit of the mesh.
        shortest: lengths are no less, > 0; None: a quarter of the mean edge.
        longest: nor more; None: four times the mean edge.
        growth: how much lengths may grow per length along an edge, > 0, so that neighbours are of similar sizes.

    Returns:
        (V,) lengths, without a gradient.

    Raises:
        TypeError, ValueError: numbers that are none or not positive; a batch; ``longest`` below ``shortest``.

    Example:
        >>> import geodiff as gd
        >>> from geodiff.scene.remesh import sizing
        >>> lengths = sizing(gd.torus(1.0, 0.3), error=0.01)
        >>> mesh = gd.torus(1.0, 0.3).remeshed(lengths)
    """
    where = "sizing"
    single_mesh(where, mesh)
    positive(where, "error", error)
    positive(where, "growth", growth)
    mean = mean_edge_length(mesh)
    least, most = 0.25 * mean, 4 * mean
    if shortest is not None:
        positive(where, "shortest", shortest)
        least = float(shortest)
    if longest is not None:
        positive(where, "longest", longest)
        most = float(longest)
    if most < least:
        raise fail(where, "longest", f"at least `shortest`, {least:g}", f"{most:g}")
    with torch.no_grad():
        points, edges = mesh.vertices.detach().double(), mesh.edges
        a, b = edges.unbind(-1)
        way, turn = points[b] - points[a], mesh.vertex_normals.detach().double()
        square = way.square().sum(-1)
        length = square.sqrt()
        bend = torch.where(square > 0, ((turn[b] - turn[a]) * way).sum(-1).abs() / square.clamp_min(1e-300), 0.0)
        ends = edges.reshape(-1)
        curvature = points.new_zeros(mesh.num_vertices).scatter_reduce(0, ends, bend.repeat_interleave(2), "amax")
        wanted = (6 * error / curvature.clamp_min(1e-300) - 3 * error**2).clamp_min(0).sqrt().clamp(least, most)
        for _ in range(mesh.num_vertices):  # lengths spread along edges, until none is too long
            other = wanted[edges.flip(-1)] + growth * length[:, None]
            slower = wanted.scatter_reduce(0, ends, other.reshape(-1), "amin")
            if torch.equal(slower, wanted):
                break
            wanted = slower
        return wanted.to(mesh.dtype)


def mean_edge_length(mesh: "Mesh") -> float:
    """Return the mean length of the edges; 1 where there are none, or none of any length."""
    ends = mesh.vertices.detach().double()[mesh.edges]
    mean = float((ends[:, 1] - ends[:, 0]).norm(dim=-1).mean()) if len(ends) else 0.0
    return mean if mean > 0 else 1.0


def _sizes(where: str, mesh: "Mesh", edge_length: Any) -> torch.Tensor:
    """Return the wanted length (V,) at each vertex, float64 on the CPU."""
    count = mesh.num_vertices
    fix = f"Pass a number, or one length for each of the {count} vertices."
    value = mean_edge_length(mesh) if edge_length is None else edge_length
    if isinstance(value, torch.Tensor) and value.dim() == 0:
        value = float(value)
    if isinstance(value, int | float):
        positive(where, "edge_length", value, fix)
        sizes = torch.full((count,), float(value), dtype=torch.float64)
    else:
        sizes = floating(where, "edge_length", as_tensor(where, "edge_length", value), (count,), fix)
        if bool((sizes <= 0).any()):
            raise fail(where, "edge_length", "positive", f"{float(sizes.min()):g}", fix)
        sizes = sizes.detach().double().cpu()
    areas = mesh.face_areas.detach().double().cpu()
    faces = float((areas / (_EVEN * sizes[mesh.faces.cpu()].mean(-1).square())).sum())
    if not faces <= _MOST_FACES:
        expected = f"long enough for at most {_MOST_FACES} faces"
        raise fail(where, "edge_length", expected, f"lengths from {float(sizes.min()):g}, for about {faces:.2g} faces")
    return sizes


def _dressed(result: RemeshResult, at: torch.Tensor, faces: torch.Tensor) -> "Mesh":
    """Return the new mesh with what the old one carries."""
    from geodiff.scene.mesh import Mesh

    old = result._source
    colors = None
    if old.face_colors is not None:
        middles = at.detach()[faces].mean(1)
        colors = old.face_colors[..., old.detach().closest_point(middles).face if len(faces) else faces[:, 0], :]
    return Mesh(
        at,
        faces,
        vertex_colors=None if old.vertex_colors is None else result.carry(old.vertex_colors),
        uv=None if old.uv is None else result.carry(old.uv),
        face_colors=colors,
        texture=old.texture,
        material=old.material,
    )
