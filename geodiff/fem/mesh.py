# SPDX-License-Identifier: Apache-2.0
"""P1 functions on a triangle mesh: one unknown a vertex, linear on each face."""

import torch

from geodiff.fem.space import Elements, Space, on_cpu
from geodiff.modes import outside_autocast
from geodiff.scene.mesh import Mesh
from geodiff.validation import fail

# The edges' middles integrate quadratics on a triangle exactly, two Gauss points cubics on an edge.
_MIDDLES = torch.tensor([[0.5, 0.5, 0.0], [0.0, 0.5, 0.5], [0.5, 0.0, 0.5]], dtype=torch.float64)
_GAUSS = torch.tensor([0.5 - 12**-0.5, 0.5 + 12**-0.5], dtype=torch.float64)


@outside_autocast
def mesh_space(mesh: Mesh, *, plane: bool = False) -> Space:
    """Make the continuous functions that are linear on each face of a mesh, given by their values at its vertices.

    Its stiffness is the cotangent Laplacian (Laplace–Beltrami) of the surface.

    Args:
        mesh: one mesh, without a batch.
        plane: take x and y only, in which all faces must then be counter-clockwise: for elasticity in the plane.

    Gradients: in the vertices.

    Raises:
        TypeError: another class.
        RuntimeError: a mesh on another device than the CPU.
        ValueError: a batch, faces without area, with ``plane`` faces turned over.

    Example:
        >>> import torch, geodiff as gd
        >>> space = gd.fem.mesh_space(gd.icosphere(2, dtype=torch.float64))
        >>> space
        Space(162 unknowns, 320 elements in 3-D)
        >>> float(space.measure()) < 4 * torch.pi
        True
    """
    if not isinstance(mesh, Mesh):
        raise fail("mesh_space", "mesh", "a geodiff.Mesh", mesh, error=TypeError)
    if mesh.batch_shape:
        raise fail("mesh_space", "mesh", "one mesh", repr(mesh), "Take mesh[i].")
    vertices, faces = mesh.vertices, mesh.faces
    on_cpu("mesh_space", "mesh", vertices)
    if plane:
        vertices = vertices[:, :2]
    corners = vertices[faces]
    sides = corners[:, 1:] - corners[:, :1]  # (F, 2, D)
    one, two = sides.unbind(1)
    first, mixed, second = _dot(one, one), _dot(one, two), _dot(two, two)
    square = first * second - mixed**2
    longest = torch.maximum(first, second).detach()
    flat = square.detach() <= (8 * torch.finfo(vertices.dtype).eps * longest) ** 2
    if bool(flat.any()):
        face = int(flat.nonzero()[0])
        raise fail("mesh_space", "mesh", "of faces that have an area", f"none in face {face}", "See Mesh.remeshed.")
    if plane:
        turned = (one[:, 0] * two[:, 1] - one[:, 1] * two[:, 0]).detach() <= 0
        if bool(turned.any()):
            got = f"face {int(turned.nonzero()[0])} inverted ({int(turned.sum())} of {len(faces)})"
            raise fail("mesh_space", "mesh", "of counter-clockwise faces", got, "A vertex has crossed an edge.")
    inverse = 1 / square[:, None]
    dual_one = (second[:, None] * one - mixed[:, None] * two) * inverse  # of the second corner, and of the third
    dual_two = (first[:, None] * two - mixed[:, None] * one) * inverse
    gradients = torch.stack([-dual_one - dual_two, dual_one, dual_two], 1)
    values = _MIDDLES.to(vertices)
    middles = torch.stack(
        [corners[:, 0] + corners[:, 1], corners[:, 1] + corners[:, 2], corners[:, 0] + corners[:, 2]], 1
    )
    weights = (square.sqrt() / 6)[:, None].expand(-1, 3)
    elements = Elements(faces, values[None], gradients[:, None], weights, middles / 2)

    def rim() -> list[Elements]:
        edges = mesh.boundary_edges
        ends = vertices[edges]
        along = ends[:, 1] - ends[:, 0]
        square = along.square().sum(-1, keepdim=True)
        first = (along / square)[:, None, None]
        at = torch.stack([1 - _GAUSS, _GAUSS], -1).to(vertices)
        slope = torch.cat([-first, first], 2)
        return [Elements(edges, at[None], slope, (square.sqrt() / 2).expand(-1, 2), at @ ends)]

    return Space(mesh.num_vertices, [elements], vertices, True, {"rim": rim}, 2)


def _dot(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Return products of short vectors (F, D), a column at a time."""
    total = a[:, 0] * b[:, 0]
    for k in range(1, a.shape[1]):
        total = total + a[:, k] * b[:, k]
    return total
