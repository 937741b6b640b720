# SPDX-License-Identifier: Apache-2.0
"""Points drawn from the surface of a mesh, with what the mesh is like there."""

from typing import TYPE_CHECKING, NamedTuple

import torch

from geodiff.scene.quantities import face_normals
from geodiff.validation import choice, fail, looks_at_values, shapes_repr

if TYPE_CHECKING:
    from geodiff.scene.mesh import Mesh


class SurfaceSamples(NamedTuple):
    """Points of a mesh.

    Attributes:
        points: (..., n, 3).
        normals: (..., n, 3) unit, 0 on a face of no area.
        colors: (..., n, C), those of vertices, faces, texture and material multiplied, or None where the mesh has none.
        face: (..., n) int64, the face that each lies on.
        barycentric: (..., n, 3) weights of its corners.
    """

    def __repr__(self) -> str:
        return shapes_repr(self)

    points: torch.Tensor
    normals: torch.Tensor
    colors: torch.Tensor | None
    face: torch.Tensor
    barycentric: torch.Tensor


def sample_surface(
    mesh: "Mesh",
    count: int,
    *,
    seed: int | None = None,
    generator: torch.Generator | None = None,
    normals: str = "flat",
) -> SurfaceSamples:
    """Draw points of a mesh, uniform in area, in random order.

    The draw is stratified: a face of share p of the area gets n·p points, up to one more or less.

    Args:
        mesh: of positive area; each mesh of a batch gets points of its own.
        count: n ≥ 1, for each mesh.
        seed: for the same points every time; left out, they are new at every call, by torch's own random numbers
            (``torch.manual_seed``) or those of ``generator``.
        generator: of random numbers, instead of ``seed``.
        normals: ``"flat"``, those of the faces, or ``"smooth"``, those of the vertices, interpolated.

    Gradients: of points, normals and colours, in vertices and attributes, with face and barycentric coordinates held:
    samples move along with the surface. That areas change how often a face is drawn has no gradient.

    Raises:
        TypeError: a generator that is none.
        ValueError: no faces, no area, no samples asked for, or both a seed and a generator.

    Example:
        >>> import geodiff as gd
        >>> drawn = gd.icosphere(2).sample(1000, seed=0)
        >>> drawn.points.shape, drawn.normals.shape, drawn.colors
        (torch.Size([1000, 3]), torch.Size([1000, 3]), None)
    """
    where = "Mesh.sample"
    if not isinstance(count, int) or isinstance(count, bool) or count < 1:
        raise fail(where, "count", "an integer ≥ 1", count)
    choice(where, "normals", normals, ("flat", "smooth"))
    if seed is not None and generator is not None:
        raise fail(where, "seed", "left out where `generator` is given", "both", "Give one of them.")
    if seed is not None:
        if not isinstance(seed, int) or isinstance(seed, bool) or not -(2**63) <= seed < 2**64:
            raise fail(where, "seed", "an integer of 64 bits", seed)
        generator = torch.Generator().manual_seed(seed)
    elif generator is not None and not isinstance(generator, torch.Generator):
        raise fail(where, "generator", "a torch.Generator", generator, error=TypeError)
    batch = mesh.batch_shape
    with torch.no_grad():
        # In float64 and from differences, so that points far from the origin do not round areas away.
        corners = mesh.vertices.double()[..., mesh.faces, :]
        sides = corners[..., 1:, :] - corners[..., :1, :]
        size = sides.abs().amax((-3, -2, -1), keepdim=True) if mesh.num_faces else sides.new_ones(())
        sides = sides / torch.where(size > 0, size, 1.0)
        total = torch.linalg.cross(sides[..., 0, :], sides[..., 1, :]).norm(dim=-1).cumsum(-1)
        if mesh.num_faces == 0 or (looks_at_values(total) and bool((total[..., -1] <= 0).any())):
            got = "no faces" if mesh.num_faces == 0 else "faces that are all degenerate"
            raise fail(where, "mesh", "of positive area", got)
        device = mesh.device if generator is None else generator.device
        u = torch.rand(3, *batch, count, dtype=torch.float64, device=device, generator=generator).to(mesh.device)
        order = torch.rand(*batch, count, dtype=torch.float64, device=device, generator=generator).to(mesh.device)
        step = order.argsort(-1)  # the strata in random order
        end = total[..., -1:] * (1 - 2.0**-52)  # below the end of the last face that has an area
        reached = torch.minimum((step + u[0]) / count * total[..., -1:], end)
        face = torch.searchsorted(total, reached, right=True)
        flip = u[1] + u[2] > 1
        v, w = torch.where(flip, 1 - u[1], u[1]), torch.where(flip, 1 - u[2], u[2])
        weights = torch.stack((1 - v - w, v, w), dim=-1).to(mesh.dtype)

    def mixed(values: torch.Tensor, faces: torch.Tensor) -> torch.Tensor:
        """Interpolate values (..., V, C) at the samples."""
        rows = _rows(values, faces[face], batch)
        return (rows * weights[..., None]).sum(-2)

    # From a corner outwards, which rounds less far from the origin than a sum of three points.
    first, second, third = _rows(mesh.vertices, mesh.faces[face], batch).unbind(-2)
    points = first + (weights[..., 1:2] * (second - first) + weights[..., 2:3] * (third - first))
    if normals == "smooth":
        direction = mixed(mesh.vertex_normals, mesh.faces)
        direction = torch.nn.functional.normalize(direction, dim=-1)
    else:
        three = torch.stack((first, second, third), dim=-2).reshape(-1, 3)
        alone = torch.arange(len(three), device=mesh.device).reshape(-1, 3)
        direction = face_normals(three, alone).reshape(points.shape)
    colors = None
    if mesh.vertex_colors is not None:
        colors = mixed(mesh.vertex_colors, mesh.faces)
    if mesh.face_colors is not None:
        colors = _times(colors, _rows(mesh.face_colors, face, batch))
    if mesh.texture is not None:
        assert mesh.uv is not None and mesh.uv_faces is not None
        uv = mixed(mesh.uv, mesh.uv_faces)
        texture, index = mesh.texture, None
        if texture.batch_shape.numel() != 1:
            texture = texture.map(lambda image: image.expand(*batch, *image.shape[-3:]))
            index = torch.arange(batch.numel(), device=mesh.device).repeat_interleave(count)
        colors = _times(colors, texture.sample(uv.reshape(-1, 2), index=index).reshape(*uv.shape[:-1], -1))
    if mesh.material is not None:
        diffuse = mesh.material.diffuse.to(mesh.dtype)[..., None, :].expand(*batch, count, 3)
        colors = _times(colors, diffuse)
    return SurfaceSamples(points, direction, colors, face, weights)


def _rows(values: torch.Tensor, index: torch.Tensor, batch: torch.Size) -> torch.Tensor:
    """Pick rows (*batch, ..., C) of values (V, C), or (..., V, C) of a batch that broadcasts to that of the mesh."""
    if values.dim() > 2:
        values = values.expand(*batch, *values.shape[-2:])
        start = torch.arange(batch.numel(), device=index.device) * values.shape[-2]
        index = index + start.reshape(*batch, *[1] * (index.dim() - len(batch)))
    return values.reshape(-1, values.shape[-1])[index]


def _times(one: torch.Tensor | None, other: torch.Tensor) -> torch.Tensor:
    """Multiply colours as the renderer does: grey goes with colour, and alpha is kept only where it is alone."""
    if one is None:
        return other
    if one.shape[-1] != other.shape[-1]:
        one, other = (x[..., :3].expand(*x.shape[:-1], 3) if x.shape[-1] in (1, 4) else x for x in (one, other))
    return one * other
