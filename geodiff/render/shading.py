# SPDX-License-Identifier: Apache-2.0
"""Shaders, from points seen on a surface to their colours: those built in, by name, and callables of your own."""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch

from geodiff.modes import outside_autocast
from geodiff.recording import is_replaying, spread
from geodiff.render.points import SurfacePoints
from geodiff.render.view import View
from geodiff.scene.light import Light, PointLight
from geodiff.scene.mesh import Mesh
from geodiff.validation import broadcasts_to, choice, fail

Shader = Callable[[SurfacePoints], torch.Tensor]
"""A shader returns the colours (P, 3) of P points, of the dtype of their barycentrics."""


@outside_autocast
def unlit(points: SurfacePoints) -> torch.Tensor:
    """Return the surface's own colour times the material's diffuse one."""
    color = points.own_color()
    if points.mesh.material is None:
        return torch.ones_like(points.barycentric) if color is None else color
    diffuse = points.of_image(points.material.diffuse)
    return diffuse if color is None else color * diffuse


@outside_autocast
def lambert(points: SurfacePoints) -> torch.Tensor:
    """Light each point, without highlights."""
    return _by_pixel(points, False)


@outside_autocast
def phong(points: SurfacePoints) -> torch.Tensor:
    """Light each point, with highlights (Phong, "Illumination for computer generated pictures", 1975)."""
    return _by_pixel(points, True)


def _by_pixel(points: SurfacePoints, glossy: bool) -> torch.Tensor:
    if points.is_plain:
        return points.textured_in_light(glossy)
    near = glossy or any(isinstance(light, PointLight) for light in points.lights)
    position, normal = points.light_arguments(near)
    color = points.own_color()
    return _lit(color, *points.reflected(position, normal, glossy))


def _lit(color: torch.Tensor | None, diffuse: torch.Tensor, specular: torch.Tensor | None) -> torch.Tensor:
    color = diffuse if color is None else color * diffuse
    return color if specular is None else color + specular


@outside_autocast
def gouraud(points: SurfacePoints) -> torch.Tensor:
    """Light the vertices (if flat, each corner of each face), and interpolate that (Gouraud, 1971)."""
    color = points.own_color()
    mesh, images, count = points.mesh, points.images, points.mesh.num_vertices
    position, _ = points.table(mesh.vertices, wide=True)
    if points.is_smooth:
        normal, _ = points.table(points.vertex_normals, wide=True)
        faces = mesh.faces
    else:
        count = 3 * mesh.num_faces
        faces = torch.arange(count, device=mesh.device).reshape(-1, 3)
        own = torch.arange(images, device=mesh.device)[:, None] * mesh.num_vertices + mesh.faces.reshape(1, -1)
        position = position[own.reshape(-1)] if images != 1 else position[mesh.faces.reshape(-1)]
        normal, _ = points.table(mesh.face_normals.repeat_interleave(3, dim=-2), wide=True)
    image = torch.arange(images, device=mesh.device).repeat_interleave(count)
    everywhere = SurfacePoints(
        mesh, points.camera, points.lights, points.batch, image, image, position.new_ones(len(image), 3), ops=points.ops
    )
    diffuse, specular = everywhere.reflected(position, normal, True)
    assert specular is not None
    stride = count if images != 1 else 0
    both = torch.cat([diffuse, specular], dim=1)
    mixed = points.ops.blend(both, points.corners(faces, stride), points.barycentric)
    return _lit(color, mixed[:, :3], mixed[:, 3:])


SHADERS: dict[str, Shader] = {"unlit": unlit, "lambert": lambert, "gouraud": gouraud, "phong": phong}
SHADINGS = tuple(SHADERS)
LIT = (lambert, gouraud, phong)
"""Those that are nothing without lights."""


def as_shader(where: str, value: Any) -> Shader:
    """Return the shader of a name; a callable as it is, of a class an object.

    Raises:
        ValueError, TypeError: an unknown name; anything else.
    """
    if isinstance(value, str):
        return SHADERS[choice(where, "shading", value, SHADINGS)]
    if isinstance(value, type):
        value = value()
    if not callable(value):
        expected = f"one of {', '.join(SHADINGS)}, or a callable from points to colours (P, 3)"
        raise fail(where, "shading", expected, value, error=TypeError)
    shader: Shader = value
    return shader


class SurfaceColors(NamedTuple):
    """What is known of each point: (P, 3) colour, (P, 3) unit normal, (P, 2) texture coordinates; None if not asked."""

    color: torch.Tensor | None
    normal: torch.Tensor | None
    uv: torch.Tensor | None


def shade(
    view: View,
    lights: list[Light],
    image: torch.Tensor,
    face: torch.Tensor,
    barycentric: torch.Tensor,
    *,
    shader: Shader,
    normals: str,
    wanted: tuple[str, ...],
) -> SurfaceColors:
    """Colour the points that are seen.

    Args:
        view: where they are seen.
        lights: not used if unlit.
        image: which image each of the P points is in, ascending.
        face: (P,), an index within the image's mesh.
        barycentric: (P, 3).
        shader: what makes the colours.
        normals: ``"smooth"`` (those of the vertices, interpolated) or ``"flat"`` (those of the faces).
        wanted: of ``"rgb"``, ``"normal"`` and ``"uv"``.
    """
    maps = tuple(name for name in ("normal", "uv") if name in wanted)
    parts, at = [], []
    for points in view.surface_points(image, face, barycentric, lights, normals=normals, maps=maps):
        color = None
        if "rgb" in wanted:
            _check_material(points.mesh, points.batch)
            color = _checked(shader(points), points)
        normal = points.normal if "normal" in wanted else None
        own = SurfaceColors(color, normal, points.uv if "uv" in wanted else None)
        if is_replaying():  # what is a face's knows nothing of a list without room, whose barycentrics are NaN
            none = 0 * points.barycentric[:, :1].detach()
            own = SurfaceColors(*(None if value is None else value + none for value in own))
        parts.append(own)
        at.append(points.at)
    if len(parts) == 1:
        return parts[0]
    joined = (
        None if any(v is None for v in values) else torch.cat([v for v in values if v is not None])
        for values in zip(*parts, strict=True)
    )
    places = [place for place in at if place is not None]
    if not places:
        return SurfaceColors(*joined)
    return SurfaceColors(*(None if v is None else spread(v, torch.cat(places), len(face)) for v in joined))


def _checked(color: Any, points: SurfacePoints) -> torch.Tensor:
    like = points.barycentric
    if not isinstance(color, torch.Tensor) or color.shape != like.shape or color.dtype != like.dtype:
        expected = (
            f"a shader that returns {str(like.dtype).removeprefix('torch.')} colours of shape {tuple(like.shape)}"
        )
        error = ValueError if isinstance(color, torch.Tensor) and color.dtype == like.dtype else TypeError
        raise fail("Renderer", "shading", expected, color, "One colour for each of the points.", error)
    return color


def _check_material(mesh: Mesh, batch: tuple[int, ...]) -> None:
    own = () if mesh.material is None else mesh.material.batch_shape
    if not broadcasts_to(own, batch):
        expected = f"without a batch, or of one that broadcasts to the images' {tuple(batch)}"
        fix = "Give one for each image; in a MeshBatch each mesh has its own."
        raise fail("Renderer", "mesh.material", expected, f"a batch of {tuple(own)}", fix)
