# SPDX-License-Identifier: Apache-2.0
"""From points seen on surfaces to their colours: attributes, normals, light and texture."""

import math
from typing import NamedTuple

import torch

from geodiff import ops
from geodiff.reference.shading import unit
from geodiff.scene.camera import Camera
from geodiff.scene.light import AmbientLight, DirectionalLight, Light, PointLight
from geodiff.scene.material import Material
from geodiff.scene.mesh import Mesh
from geodiff.validation import broadcasts_to, common_batch, fail

SHADINGS = ("unlit", "lambert", "gouraud", "phong")
_PLAIN = Material()


class Hits(NamedTuple):
    """P points seen on the images of one mesh.

    Attributes:
        image: (P,) int64, which image of the batch.
        face: (P,) int64.
        barycentric: (P, 3).
        footprint: (P,) twice the area of a face in barycentrics (½) over that of one pixel, for the level of mip-maps;
            None where not needed.
    """

    image: torch.Tensor
    face: torch.Tensor
    barycentric: torch.Tensor
    footprint: torch.Tensor | None = None


class Seen(NamedTuple):
    """What is known of each hit: (P, 3) colour, (P, 3) unit normal, (P, 2) texture coordinates; None if not asked."""

    color: torch.Tensor | None
    normal: torch.Tensor | None
    uv: torch.Tensor | None


def shade(
    mesh: Mesh,
    camera: Camera,
    lights: list[Light],
    hits: Hits,
    batch: tuple[int, ...],
    *,
    shading: str,
    normals: str,
    wanted: tuple[str, ...],
) -> Seen:
    """Colour the points of one mesh, seen in a batch of images.

    Args:
        mesh: its batch broadcasts to `batch`, as do those of the camera, the lights and the material.
        camera: where the viewer is.
        lights: not used if unlit.
        hits: the points; `image` counts through `batch`.
        batch: the shape of the batch of images.
        shading: of ``SHADINGS``.
        normals: ``"smooth"`` (those of the vertices, interpolated) or ``"flat"`` (those of the faces).
        wanted: of ``"rgb"``, ``"normal"`` and ``"uv"``.
    """
    if mesh.material is not None and "rgb" in wanted:
        _check_material(mesh.material, batch)
    look = _Look(mesh, batch, hits)
    if _is_plain(mesh, wanted, shading, normals):
        return Seen(_surface(mesh, camera, lights, look, shading == "phong"), None, None)
    pixelwise = "rgb" in wanted and shading in ("lambert", "phong")
    needs_points = pixelwise and (shading == "phong" or any(isinstance(light, PointLight) for light in lights))
    needs_normal = pixelwise or "normal" in wanted
    given: dict[str, torch.Tensor] = {}  # attributes that are interpolated between the vertices, at once
    color = normal = uv = None
    if "uv" in wanted or ("rgb" in wanted and mesh.texture is not None):
        if mesh.uv is None:
            raise fail("Renderer", "mesh", "with texture coordinates for the output uv", "none", "Pass Mesh(uv=…).")
        assert mesh.uv_faces is not None
        if mesh.uv_faces is mesh.faces:
            given["uv"] = mesh.uv
        else:
            uv = look.interpolate(mesh.uv, mesh.uv_faces)
    if "rgb" in wanted and mesh.vertex_colors is not None:
        given["color"] = mesh.vertex_colors
    if needs_points:
        given["point"] = mesh.vertices
    if needs_normal and normals == "smooth":
        given["normal"] = mesh.vertex_normals
    parts = look.interpolate_all(given)
    uv = parts.get("uv", uv)
    if needs_normal:
        normal = parts["normal"] if normals == "smooth" else look.of_face(mesh.face_normals)  # of any length, so far
    if "rgb" in wanted:
        color = _albedo(mesh, look, parts.get("color"), uv)
        if shading == "gouraud":
            diffuse, shine = _by_vertex(look, camera, lights, normals)
            color = _lit(color, diffuse, shine)
        elif shading != "unlit":
            assert normal is not None
            material = mesh.material or _PLAIN
            points = parts.get("point")
            color = _lit(color, *_reflected(lights, material, look, points, normal, camera, shading == "phong"))
        else:
            color = _unlit(color, mesh.material, look)
    if "normal" in wanted:
        assert normal is not None
        normal = unit(normal)
    return Seen(color, normal if "normal" in wanted else None, uv if "uv" in wanted else None)


def _check_material(material: Material, batch: tuple[int, ...]) -> None:
    own = material.batch_shape
    if not broadcasts_to(own, batch):
        expected = f"without a batch, or of one that broadcasts to the images' {tuple(batch)}"
        fix = "Give one for each image; in a MeshBatch each mesh has its own."
        raise fail("Renderer", "mesh.material", expected, f"a batch of {tuple(own)}", fix)


class _Look:
    """Gathers what belongs to the hits from tables of vertices, faces and images."""

    def __init__(self, mesh: Mesh, batch: tuple[int, ...], hits: Hits) -> None:
        self.mesh, self.batch, self.hits = mesh, batch, hits
        self.images = math.prod(batch)
        self.ones = hits.barycentric.new_ones(len(hits.face), 1)

    def table(self, value: torch.Tensor, wide: bool = False) -> tuple[torch.Tensor, int]:
        """Return rows (n·V, C) of an attribute (..., V, C), n = 1 or B, and how many of them are each image's own."""
        count, channels = value.shape[-2:]
        value = value.to(self.hits.barycentric.dtype)
        if value.shape[:-2].numel() == 1 and not (wide and self.images != 1):
            return value.reshape(count, channels), 0
        return value.expand(*self.batch, count, channels).reshape(-1, channels), count

    def tables(self, values: list[torch.Tensor]) -> tuple[torch.Tensor, int]:
        """Return several attributes of the vertices side by side, as `table` does one."""
        wide = any(value.shape[:-2].numel() != 1 for value in values)
        tables = [self.table(value, wide) for value in values]
        return torch.cat([rows for rows, _ in tables], dim=1), tables[0][1]

    def corners(self, faces: torch.Tensor, stride: int) -> torch.Tensor:
        index = faces.index_select(0, self.hits.face)
        return index + (self.hits.image * stride)[:, None] if stride else index

    def interpolate(self, value: torch.Tensor, faces: torch.Tensor) -> torch.Tensor:
        rows, stride = self.table(value)
        return ops.blend(rows, self.corners(faces, stride), self.hits.barycentric)

    def interpolate_all(self, values: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Interpolate attributes of the vertices, at once."""
        if not values:
            return {}
        rows, stride = self.tables(list(values.values()))
        mixed = ops.blend(rows, self.corners(self.mesh.faces, stride), self.hits.barycentric)
        return dict(zip(values, mixed.split([value.shape[-1] for value in values.values()], dim=1), strict=True))

    def of_face(self, value: torch.Tensor) -> torch.Tensor:
        rows, stride = self.table(value)
        return ops.blend(rows, (self.hits.face + self.hits.image * stride)[:, None], self.ones)


def _albedo(
    mesh: Mesh, look: _Look, vertex_colors: torch.Tensor | None, uv: torch.Tensor | None
) -> torch.Tensor | None:
    """Return the product of the colours that the mesh has, (P, 3), or None where it has none."""
    given = {}
    if vertex_colors is not None:
        given["vertex_colors"] = vertex_colors
    if mesh.face_colors is not None:
        given["face_colors"] = look.of_face(mesh.face_colors)
    if mesh.texture is not None:
        assert uv is not None
        index = look.hits.image if mesh.texture.batch_shape.numel() != 1 else None
        texture = mesh.texture
        if index is not None:
            texture = texture.map(lambda image: image.expand(*look.batch, *image.shape[-3:]))
        given["texture"] = texture.sample(uv, _level(mesh, look), index)
    result = None
    for name, value in given.items():
        if value.shape[1] not in (1, 3, 4):
            raise fail("Renderer", f"mesh.{name}", "of 1, 3 or 4 channels", f"{value.shape[1]} channels")
        if value.shape[1] != 3:
            value = value[:, :3].expand(-1, 3)
        result = value if result is None else result * value
    return result


def _level(mesh: Mesh, look: _Look) -> torch.Tensor | None:
    """Return the logarithm to base 2 of texels a pixel, from the areas of the face in the texture and in the image."""
    footprint = look.hits.footprint
    if mesh.texture is None or not mesh.texture.mipmaps or footprint is None:
        return None
    assert mesh.uv is not None and mesh.uv_faces is not None
    rows, stride = look.table(mesh.uv.detach())
    a, b, c = rows[look.corners(mesh.uv_faces, stride)].unbind(1)
    ab, ac = b - a, c - a
    height, width = mesh.texture.shape[-3:-1]
    texels = (ab[:, 0] * ac[:, 1] - ab[:, 1] * ac[:, 0]).abs() * (height * width) * footprint
    return 0.5 * texels.clamp(min=1e-12).log2()


def _lit(color: torch.Tensor | None, diffuse: torch.Tensor, shine: torch.Tensor | None) -> torch.Tensor:
    color = diffuse if color is None else color * diffuse
    return color if shine is None else color + shine


def _unlit(color: torch.Tensor | None, material: Material | None, look: _Look) -> torch.Tensor:
    """Return the surface's own colour (P, 3) times the material's diffuse one."""
    if material is not None:
        rows, stride = look.table(material.diffuse[..., None, :])
        diffuse = ops.blend(rows, look.hits.image[:, None], look.ones) if stride else rows.expand(len(look.ones), 3)
        return diffuse if color is None else color * diffuse
    return look.hits.barycentric.new_ones(len(look.hits.face), 3) if color is None else color


def _light_rows(
    lights: list[Light], material: Material, look: _Look, camera: Camera, dtype: torch.dtype
) -> tuple[torch.Tensor, int, torch.Tensor]:
    """Return the numbers of each image that light is made of, as `ops.reflect` has them; their stride; the kinds."""
    viewer = camera.rotation[..., 2, :] if camera.is_orthographic else camera.position
    ambients = [material.ambient * light.color for light in lights if isinstance(light, AmbientLight)]
    ambient = sum(ambients[1:], ambients[0]) if ambients else viewer.new_zeros(3)
    columns, kinds = [viewer, material.shininess[..., None], ambient], []
    for light in lights:
        if isinstance(light, DirectionalLight):
            columns += [unit(light.direction)]
            fading = light.color.new_tensor([1.0, 0.0, 0.0])
        elif isinstance(light, PointLight):
            columns += [light.position]
            fading = light.attenuation
        else:
            continue
        columns += [material.diffuse * light.color, material.specular * light.color, fading]
        kinds.append(int(isinstance(light, PointLight)))
    batch = common_batch(*(column.shape[:-1] for column in columns))
    if batch:
        columns = [column.expand(*batch, column.shape[-1]) for column in columns]
    row = torch.cat([column.to(dtype) for column in columns], dim=-1)
    rows, stride = look.table(row[..., None, :])
    return rows, stride, torch.tensor(kinds, dtype=torch.int32, device=rows.device)


def _reflected(
    lights: list[Light],
    material: Material,
    look: _Look,
    points: torch.Tensor | None,
    normal: torch.Tensor,
    camera: Camera,
    glossy: bool,
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Return what the surface's colour is multiplied with, and the highlights that are added, both (P, 3)."""
    rows, stride, kinds = _light_rows(lights, material, look, camera, normal.dtype)
    both = ops.reflect(
        rows,
        kinds,
        look.hits.image if stride else look.hits.image[:0],
        normal,
        torch.zeros_like(normal) if points is None else points,
        parallel_view=camera.is_orthographic,
        glossy=glossy,
    )
    diffuse, shine = both.split(3, dim=1)
    return diffuse, shine if glossy else None


def _is_plain(mesh: Mesh, wanted: tuple[str, ...], shading: str, normals: str) -> bool:
    """Whether `ops.surface` can do all: one bilinear texture on smooth faces, and nothing but its colour is wanted."""
    texture = mesh.texture
    return (
        "rgb" in wanted
        and not {"normal", "uv"} & set(wanted)
        and shading in ("lambert", "phong")
        and normals == "smooth"
        and mesh.vertex_colors is None
        and mesh.face_colors is None
        and texture is not None
        and (texture.filter, texture.mipmaps, texture.shape[-1]) == ("bilinear", False, 3)
    )


def _surface(mesh: Mesh, camera: Camera, lights: list[Light], look: _Look, glossy: bool) -> torch.Tensor:
    """Return the colours (P, 3) of a mesh that `_is_plain`, from one kernel."""
    assert mesh.uv is not None and mesh.uv_faces is not None and mesh.texture is not None
    uv, uv_stride = look.table(mesh.uv)
    frame, stride = look.tables([mesh.vertices, mesh.vertex_normals])
    corners = look.corners(mesh.faces_int32, stride)
    same = mesh.uv_faces is mesh.faces and uv_stride == stride
    rows, row_stride, kinds = _light_rows(lights, mesh.material or _PLAIN, look, camera, frame.dtype)
    texture = mesh.texture.image
    own_texture = mesh.texture.batch_shape.numel() != 1
    if own_texture:
        texture = texture.expand(*look.batch, *texture.shape[-3:])
    return ops.surface(
        uv,
        corners if same else look.corners(mesh.uv_faces, uv_stride),
        frame,
        corners,
        look.hits.barycentric,
        look.hits.image if row_stride or own_texture else look.hits.image[:0],
        rows,
        kinds,
        texture.reshape(-1, *texture.shape[-3:]).to(frame.dtype),
        wrap=mesh.texture.wrap,
        parallel_view=camera.is_orthographic,
        glossy=glossy,
    )


def _by_vertex(
    look: _Look, camera: Camera, lights: list[Light], normals: str
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Light each vertex (if flat, each corner of each face) of each image, and interpolate that: Gouraud's shading."""
    mesh, images, count = look.mesh, look.images, look.mesh.num_vertices
    points, _ = look.table(mesh.vertices, wide=True)
    if normals == "smooth":
        normal, _ = look.table(mesh.vertex_normals, wide=True)
        faces = mesh.faces
    else:
        count = 3 * mesh.num_faces
        faces = torch.arange(count, device=mesh.device).reshape(-1, 3)
        own = torch.arange(images, device=mesh.device)[:, None] * mesh.num_vertices + mesh.faces.reshape(1, -1)
        points = points[own.reshape(-1)] if images != 1 else points[mesh.faces.reshape(-1)]
        normal, _ = look.table(mesh.face_normals.repeat_interleave(3, dim=-2), wide=True)
    image = torch.arange(images, device=mesh.device).repeat_interleave(count)
    everywhere = _Look(mesh, look.batch, Hits(image, image, points.new_ones(len(image), 3)))
    diffuse, shine = _reflected(lights, mesh.material or _PLAIN, everywhere, points, normal, camera, True)
    stride = count if images != 1 else 0
    both = diffuse if shine is None else torch.cat([diffuse, shine], dim=1)
    mixed = ops.blend(both, look.corners(faces, stride), look.hits.barycentric)
    return mixed[:, :3], None if shine is None else mixed[:, 3:]
