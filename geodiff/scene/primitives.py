# SPDX-License-Identifier: Apache-2.0
"""Simple closed and open meshes, wound counter-clockwise as seen from outside."""

import math
from collections.abc import Sequence

import numpy as np
import torch

from geodiff.modes import outside_autocast
from geodiff.scene.mesh import Mesh
from geodiff.scene.topology import Topology
from geodiff.validation import fail, positive


def _count(where: str, argument: str, value: int, low: int, high: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int | np.integer):
        raise fail(where, argument, f"an integer in [{low}, {high}]", value, error=TypeError)
    if not low <= value <= high:
        raise fail(where, argument, f"in [{low}, {high}]", value)


def _mesh(vertices: torch.Tensor, faces: torch.Tensor, dtype: torch.dtype, uv: torch.Tensor | None = None) -> Mesh:
    return Mesh(vertices.to(dtype), faces, uv=None if uv is None else uv.to(dtype))


@outside_autocast
def icosphere(subdivisions: int = 3, radius: float = 1.0, dtype: torch.dtype = torch.float32) -> Mesh:
    """Make a sphere by cutting each triangle of an icosahedron into four, ``subdivisions`` times.

    Args:
        subdivisions: s in [0, 8]; the mesh has 10·4ˢ + 2 vertices and 20·4ˢ faces (642 and 1280 for s = 3).
        radius: of the sphere on which all vertices lie.
        dtype: of the vertices.

    Returns:
        A closed mesh centred on the origin; each level keeps the vertices of the one before.

    Raises:
        ValueError: subdivisions out of range, or a radius that is not positive.

    Example:
        >>> import geodiff as gd
        >>> gd.icosphere(3)
        Mesh(vertices=(642, 3), faces=(1280, 3), float32, cpu)
    """
    _count("icosphere", "subdivisions", subdivisions, 0, 8)
    positive("icosphere", "radius", radius)
    # The twelve vertices: a pole, two rings of five at height ±1/√5, a pole.
    ring = torch.arange(5, dtype=torch.float64) * (2 * math.pi / 5)
    height, width = 1 / math.sqrt(5), 2 / math.sqrt(5)
    upper = torch.stack((width * ring.sin(), torch.full_like(ring, height), width * ring.cos()), dim=-1)
    lower = torch.stack(
        (width * (ring + math.pi / 5).sin(), torch.full_like(ring, -height), width * (ring + math.pi / 5).cos()), dim=-1
    )
    pole = torch.tensor([[0.0, 1.0, 0.0]], dtype=torch.float64)
    v = torch.cat((pole, upper, lower, -pole))
    i = torch.arange(5)
    j = (i + 1) % 5
    f = torch.cat(
        (
            torch.stack((torch.zeros_like(i), 1 + i, 1 + j), dim=-1),
            torch.stack((1 + i, 6 + i, 1 + j), dim=-1),
            torch.stack((6 + i, 6 + j, 1 + j), dim=-1),
            torch.stack((torch.full_like(i, 11), 6 + j, 6 + i), dim=-1),
        )
    )
    for _ in range(subdivisions):
        edges = Topology(f, len(v)).edges
        middle = v[edges].sum(dim=1)
        key = edges[:, 0] * len(v) + edges[:, 1]
        ends = f[:, [0, 1, 1, 2, 2, 0]].reshape(-1, 2)
        side = torch.searchsorted(key, ends.amin(-1) * len(v) + ends.amax(-1)).reshape(-1, 3) + len(v)
        a, b, c = f.unbind(-1)
        ab, bc, ca = side.unbind(-1)
        corners = ((a, ab, ca), (ab, b, bc), (ca, bc, c), (ab, bc, ca))
        f = torch.stack([torch.stack(corner, dim=-1) for corner in corners], dim=1).reshape(-1, 3)
        v = torch.cat((v, middle / torch.linalg.vector_norm(middle, dim=-1, keepdim=True)))
    return _mesh(v * radius, f, dtype)


@outside_autocast
def box(size: float | Sequence[float] = 1.0, dtype: torch.dtype = torch.float32) -> Mesh:
    """Make a box of 8 vertices and 12 faces, centred on the origin.

    Args:
        size: side length, or the three along x, y and z.
        dtype: of the vertices.

    Raises:
        ValueError: a side that is not positive, or a count of sides other than one or three.

    Example:
        >>> import geodiff as gd
        >>> float(gd.box((1.0, 2.0, 3.0)).face_areas.sum())
        22.0
    """
    sides = [size] * 3 if isinstance(size, int | float) else list(size)
    if len(sides) != 3:
        raise fail("box", "size", "one number or three", f"{len(sides)} numbers")
    for side in sides:
        positive("box", "size", side)
    # Vertex 4x + 2y + z has the signs of its three bits.
    bits = torch.cartesian_prod(*[torch.tensor([-0.5, 0.5], dtype=torch.float64)] * 3)
    quads = [[0, 1, 3, 2], [4, 6, 7, 5], [0, 4, 5, 1], [2, 3, 7, 6], [0, 2, 6, 4], [1, 5, 7, 3]]
    vertices = bits * torch.tensor(sides, dtype=torch.float64)
    return Mesh.triangulated(vertices.to(dtype), torch.tensor(quads))


def _grid_faces(rows: int, columns: int, wrap_rows: bool, wrap_columns: bool) -> torch.Tensor:
    """Return the triangles of a grid of vertices, counter-clockwise for rows going up and columns to the right."""
    r = torch.arange(rows if wrap_rows else rows - 1)[:, None]
    c = torch.arange(columns if wrap_columns else columns - 1)[None, :]
    r1, c1 = (r + 1) % rows, (c + 1) % columns
    a, b, d, e = ((i * columns + j).reshape(-1) for i, j in ((r, c), (r, c1), (r1, c1), (r1, c)))
    return torch.stack((a, b, d, a, d, e), dim=-1).reshape(-1, 3)


@outside_autocast
def torus(
    major: float = 1.0, minor: float = 0.4, nu: int = 48, nv: int = 24, dtype: torch.dtype = torch.float32
) -> Mesh:
    """Make a torus around the y axis.

    Args:
        major: distance from the axis to the middle of the tube.
        minor: radius of the tube, less than ``major``.
        nu: vertices around the axis, at least 3.
        nv: vertices around the tube, at least 3.
        dtype: of the vertices.

    Returns:
        A closed mesh of nu·nv vertices and 2·nu·nv faces.

    Raises:
        ValueError: radii that are not 0 < minor < major, or too few vertices.

    Example:
        >>> import geodiff as gd
        >>> gd.torus().euler_characteristic
        0
    """
    positive("torus", "major", major)
    positive("torus", "minor", minor)
    if minor >= major:
        raise fail("torus", "minor", f"less than major = {major}", minor)
    _count("torus", "nu", nu, 3, 100_000)
    _count("torus", "nv", nv, 3, 100_000)
    u = (torch.arange(nu, dtype=torch.float64) * (2 * math.pi / nu))[None, :]
    v = (torch.arange(nv, dtype=torch.float64) * (2 * math.pi / nv))[:, None]
    radius = major + minor * v.cos()
    points = torch.stack((radius * u.sin(), (minor * v.sin()).expand(nv, nu), radius * u.cos()), dim=-1)
    return _mesh(points.reshape(-1, 3), _grid_faces(nv, nu, True, True), dtype)


@outside_autocast
def cylinder(
    radius: float = 1.0,
    height: float = 2.0,
    segments: int = 32,
    caps: bool = True,
    dtype: torch.dtype = torch.float32,
) -> Mesh:
    """Make a cylinder around the y axis, centred on the origin.

    Args:
        radius: of the circle on which the vertices lie.
        height: along y.
        segments: vertices around the axis, at least 3.
        caps: close both ends with a fan around a vertex on the axis.
        dtype: of the vertices.

    Returns:
        A mesh of 2·segments vertices and as many faces; with caps 2 more vertices, twice the faces, and closed.

    Raises:
        ValueError: sizes that are not positive, or too few segments.

    Example:
        >>> import geodiff as gd
        >>> gd.cylinder(caps=False).boundary_edges.shape
        torch.Size([64, 2])
    """
    positive("cylinder", "radius", radius)
    positive("cylinder", "height", height)
    _count("cylinder", "segments", segments, 3, 1_000_000)
    u = torch.arange(segments, dtype=torch.float64) * (2 * math.pi / segments)
    circle = torch.stack((radius * u.sin(), torch.zeros_like(u), radius * u.cos()), dim=-1)
    up = torch.tensor([[0.0, 0.5 * height, 0.0]], dtype=torch.float64)
    vertices = torch.cat((circle - up, circle + up))
    faces = _grid_faces(2, segments, False, True)
    if caps:
        i = torch.arange(segments)
        j = (i + 1) % segments
        low, high = torch.full_like(i, 2 * segments), torch.full_like(i, 2 * segments + 1)
        bottom = torch.stack((low, j, i), dim=-1)
        top = torch.stack((high, i + segments, j + segments), dim=-1)
        vertices, faces = torch.cat((vertices, -up, up)), torch.cat((faces, bottom, top))
    return _mesh(vertices, faces, dtype)


@outside_autocast
def plane(
    size: float | Sequence[float] = 1.0, resolution: int | Sequence[int] = 1, dtype: torch.dtype = torch.float32
) -> Mesh:
    """Make a rectangle in the xy plane that faces +z, towards a camera at azimuth 0, with texture coordinates.

    Args:
        size: side length, or the two along x and y.
        resolution: squares along each side, or the two along x and y.
        dtype: of the vertices.

    Returns:
        An open mesh of 2 triangles a square, centred on the origin; ``uv`` runs from (0, 0) at the lower left.

    Raises:
        ValueError: a size or resolution that is not positive.

    Example:
        >>> import geodiff as gd
        >>> gd.plane(2.0, resolution=4)
        Mesh(vertices=(25, 3), faces=(32, 3), uv=(25, 2), float32, cpu)
    """
    sides = [size] * 2 if isinstance(size, int | float) else list(size)
    cells = [resolution] * 2 if isinstance(resolution, int) else list(resolution)
    for name, values in (("size", sides), ("resolution", cells)):
        if len(values) != 2:
            raise fail("plane", name, "one number or two", f"{len(values)} numbers")
    for side in sides:
        positive("plane", "size", side)
    for cell in cells:
        _count("plane", "resolution", cell, 1, 100_000)
    u = torch.linspace(0, 1, cells[0] + 1, dtype=torch.float64)
    v = torch.linspace(0, 1, cells[1] + 1, dtype=torch.float64)
    grid = torch.stack(torch.meshgrid(u, v, indexing="xy"), dim=-1).reshape(-1, 2)
    flat = (grid - 0.5) * torch.tensor(sides, dtype=torch.float64)
    vertices = torch.cat((flat, torch.zeros(len(flat), 1, dtype=torch.float64)), dim=-1)
    return _mesh(vertices, _grid_faces(cells[1] + 1, cells[0] + 1, False, False), dtype, grid)
