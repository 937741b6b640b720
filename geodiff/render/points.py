# SPDX-License-Identifier: Apache-2.0
"""Points that are seen on the surface of a mesh: what a shader is given, gathered where it asks for it."""

import functools
import math
from collections.abc import Callable
from types import ModuleType

import torch

from geodiff.modes import lasting, remembered
from geodiff.reference.shading import unit
from geodiff.scene.camera import Camera
from geodiff.scene.light import AmbientLight, DirectionalLight, Light, PointLight
from geodiff.scene.material import Material
from geodiff.scene.mesh import Mesh
from geodiff.validation import common_batch, fail

with torch.device("cpu"):  # whatever the default device is when this is imported
    _PLAIN = Material()


@functools.cache
def _plain(device: str) -> Material:
    """The material of meshes without one, on a device."""
    with lasting():
        return _PLAIN.map(lambda value: value.to(device))


class SurfacePoints:
    """P points seen on the surface of one mesh, in one image or a batch: what a shader makes colours of.

    Attributes:
        mesh: its batch broadcasts to `batch`, as do those of camera, lights and material.
        camera: where the viewer is.
        lights: a list, empty if none were given.
        batch: the shape of the batch of images, `()` for one.
        image: which image of the batch each point is in, `(P,)` int64, ascending.
        face: `(P,)` int64.
        barycentric: `(P, 3)`, perspective-correct; the gradient in positions and camera comes through them.
        at: where in a list of the points of several meshes they are, `(P,)`; None where parts follow each other.
        ops: who computes: `geodiff.ops`, or `geodiff.reference` with ``backend="reference"``.

    Gradients: of all that is gathered, in the mesh's attributes and, through the barycentrics, in vertices and camera.
    """

    def __init__(
        self,
        mesh: Mesh,
        camera: Camera,
        lights: list[Light],
        batch: tuple[int, ...],
        image: torch.Tensor,
        face: torch.Tensor,
        barycentric: torch.Tensor,
        footprint: Callable[[], torch.Tensor] | None = None,
        *,
        ops: ModuleType,
        normals: str = "smooth",
        maps: tuple[str, ...] = (),
        at: torch.Tensor | None = None,
    ) -> None:
        self.mesh, self.camera, self.lights, self.batch, self.ops = mesh, camera, lights, batch, ops
        self.image, self.face, self.barycentric = image, face, barycentric
        # Twice the area of a face in barycentrics (½) over that of a pixel, for mip-maps.
        self._footprint = footprint
        self.is_smooth = normals == "smooth"
        self._maps = maps  # "normal" and "uv", where they are outputs: gathered with the first that a shader asks for
        self.at = at  # where they are in a list of those of several meshes; None where one mesh follows another
        self.images = math.prod(batch)
        self._ones = barycentric.new_ones(len(face), 1)
        self._gathered: dict[str, torch.Tensor] = {}

    def __len__(self) -> int:
        return len(self.face)

    # --- what a shader asks for ---------------------------------------------------------------------------------------

    @property
    def position(self) -> torch.Tensor:
        """Where the points are in the world, `(P, 3)`."""
        return self._attribute("position")

    @property
    def normal(self) -> torch.Tensor:
        """Unit normals, smooth or flat as the renderer has them, `(P, 3)`; 0 where there is none."""
        return unit(self._attribute("normal"))

    @property
    def uv(self) -> torch.Tensor:
        """Texture coordinates, `(P, 2)`; an error where the mesh has none."""
        return self._attribute("uv")

    @property
    def albedo(self) -> torch.Tensor:
        """The mesh's own colours, texture · vertex_colors · face_colors, `(P, 3)`; white where it has none."""
        color = self.own_color()
        return self._ones.expand(-1, 3) if color is None else color

    @property
    def to_viewer(self) -> torch.Tensor:
        """Unit directions from the points to the viewer, `(P, 3)`."""
        if self.camera.is_orthographic:
            return self.of_image(self.camera.rotation[..., 2, :])
        return unit(self.of_image(self.camera.position) - self.position)

    def light(self, highlights: bool = True) -> tuple[torch.Tensor, torch.Tensor]:
        """Return what the lights do by Phong's model: what a colour is multiplied with, and what is added to it.

        Args:
            highlights: whether there are any; zeros else.

        Returns:
            diffuse and specular, each `(P, 3)`, with the mesh's material in them.
        """
        diffuse, specular = self.reflected(*self.light_arguments(True), highlights)
        return diffuse, torch.zeros_like(diffuse) if specular is None else specular

    def interpolate(self, values: torch.Tensor, faces: torch.Tensor | None = None) -> torch.Tensor:
        """Interpolate an attribute of the vertices, `(..., V, C)`, to `(P, C)`.

        Args:
            values: its batch broadcasts to that of the images.
            faces: `(F, 3)` where corners have indices of their own, such as `mesh.uv_faces`.
        """
        rows, stride = self.table(values)
        index = self.corners(self.mesh.faces if faces is None else faces, stride)
        return self.ops.blend(rows, index, self.barycentric)

    def of_face(self, values: torch.Tensor) -> torch.Tensor:
        """Return each point's own of an attribute of the faces, `(..., F, C)`, as `(P, C)`."""
        rows, stride = self.table(values)
        return self.ops.blend(rows, (self.face + self.image * stride)[:, None], self._ones)

    def of_image(self, values: torch.Tensor) -> torch.Tensor:
        """Return each point's own of what images have, `(..., C)`, as `(P, C)`: a camera's position, say."""
        rows, stride = self.table(values[..., None, :])
        own: torch.Tensor = self.ops.blend(rows, self.image[:, None], self._ones) if stride else rows
        return own.expand(len(self.face), -1)

    # --- for the shaders here ---------------------------------------------------------------------------------------

    def gather(self, *names: str) -> None:
        """Interpolate several of "albedo", "position", "normal" and "uv" at once, with the maps that are asked for.

        In one sum over the corners instead of several.
        """
        mesh, missing = self.mesh, {*names, *self._maps}
        if "albedo" in missing and mesh.texture is not None:
            missing.add("uv")
        if "albedo" in missing and mesh.vertex_colors is not None:
            missing.add("vertex_colors")
        missing -= set(self._gathered)
        given: dict[str, torch.Tensor] = {}
        if "uv" in missing:
            if mesh.uv is None:
                raise fail("Renderer", "mesh", "with texture coordinates for the output uv", "none", "Pass Mesh(uv=…).")
            if mesh.uv_faces is mesh.faces:
                given["uv"] = mesh.uv
            else:
                self._gathered["uv"] = self.interpolate(mesh.uv, mesh.uv_faces)
        if "vertex_colors" in missing:
            assert mesh.vertex_colors is not None
            given["vertex_colors"] = mesh.vertex_colors
        if "position" in missing:
            given["position"] = mesh.vertices
        if "normal" in missing and self.is_smooth:
            given["normal"] = self.vertex_normals
        if given:
            rows, stride = self.tables(list(given.values()))
            together = self.ops.blend(rows, self.corners(mesh.faces_int32, stride), self.barycentric)
            one = len(given) == 1
            parts = (together,) if one else together.split([value.shape[-1] for value in given.values()], dim=1)
            self._gathered.update(zip(given, parts, strict=True))
        if "normal" in missing and not self.is_smooth:
            self._gathered["normal"] = self.of_face(mesh.face_normals)

    def _attribute(self, name: str) -> torch.Tensor:
        self.gather(name)
        return self._gathered[name]

    @property
    def vertex_normals(self) -> torch.Tensor:
        """Of the mesh, `(..., V, 3)`."""
        return self.mesh.vertex_normals_by(self.ops)

    @property
    def material(self) -> Material:
        """The mesh's, or the default one."""
        if self.mesh.material is not None:
            return self.mesh.material
        if self.mesh.vertices.is_cpu:
            return _PLAIN
        if torch.compiler.is_compiling():
            return _PLAIN.map(lambda value: value.to(self.mesh.device))
        return _plain(str(self.mesh.device))

    def own_color(self) -> torch.Tensor | None:
        """Return the product of the colours that the mesh has, (P, 3), or None where it has none."""
        mesh = self.mesh
        self.gather("albedo")
        given = {}
        if mesh.vertex_colors is not None:
            given["vertex_colors"] = self._gathered["vertex_colors"]
        if mesh.face_colors is not None:
            given["face_colors"] = self.of_face(mesh.face_colors)
        if mesh.texture is not None:
            texture, which = mesh.texture, None
            if texture.batch_shape.numel() != 1:
                which = self.image
                texture = texture.map(lambda image: image.expand(*self.batch, *image.shape[-3:]))
            given["texture"] = texture.sample_by(self.ops, self._gathered["uv"], self._mip_level(), which)
        result = None
        for name, value in given.items():
            if value.shape[1] not in (1, 3, 4):
                raise fail("Renderer", f"mesh.{name}", "of 1, 3 or 4 channels", f"{value.shape[1]} channels")
            if value.shape[1] != 3:
                value = value[:, :3].expand(-1, 3)
            result = value if result is None else result * value
        return result

    def _mip_level(self) -> torch.Tensor | None:
        """Return the logarithm to base 2 of texels a pixel, from the areas of the face in texture and image."""
        mesh = self.mesh
        if mesh.texture is None or not mesh.texture.mipmaps or self._footprint is None:
            return None
        assert mesh.uv is not None and mesh.uv_faces is not None
        rows, stride = self.table(mesh.uv.detach())
        a, b, c = rows[self.corners(mesh.uv_faces, stride)].unbind(1)
        ab, ac = b - a, c - a
        height, width = mesh.texture.shape[-3:-1]
        texels = (ab[:, 0] * ac[:, 1] - ab[:, 1] * ac[:, 0]).abs() * (height * width) * self._footprint()
        return 0.5 * texels.clamp(min=1e-12).log2()

    def light_arguments(self, near: bool) -> tuple[torch.Tensor | None, torch.Tensor]:
        """Return positions, where the viewer or a light is `near`, and normals of any length; gather colours, too."""
        self.gather("albedo", "normal", *(["position"] if near else []))
        return self._gathered["position"] if near else None, self._gathered["normal"]

    def reflected(
        self, position: torch.Tensor | None, normal: torch.Tensor, glossy: bool
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Return `light` at positions (None where no light needs them) and for normals of any length."""
        table, stride, kinds = self._light_table(normal.dtype)
        both = self.ops.reflect(
            table,
            kinds,
            self.image if stride else self.image[:0],
            normal,
            torch.zeros_like(normal) if position is None else position,
            parallel_view=self.camera.is_orthographic,
            glossy=glossy,
        )
        diffuse, specular = both.split(3, dim=1)
        return diffuse, specular if glossy else None

    def _light_table(self, dtype: torch.dtype) -> tuple[torch.Tensor, int, torch.Tensor]:
        """Return what light is made of in each image, as `ops.reflect` takes it; the stride; the kinds of lights."""
        camera, material = self.camera, self.material
        tensors = [camera.rotation, camera.translation]
        tensors += [material.ambient, material.diffuse, material.specular, material.shininess]
        for light in self.lights:
            tensors += [value for value in vars(light).values() if isinstance(value, torch.Tensor)]
        key = dtype, self.batch, *(type(light) for light in self.lights)
        return remembered(camera, "_light_table", tuple(tensors), lambda: self._made_light_table(dtype), key)

    def _made_light_table(self, dtype: torch.dtype) -> tuple[torch.Tensor, int, torch.Tensor]:
        camera, material = self.camera, self.material
        viewer = camera.rotation[..., 2, :] if camera.is_orthographic else camera.position
        ambients = [material.ambient * light.color for light in self.lights if isinstance(light, AmbientLight)]
        ambient = sum(ambients[1:], ambients[0]) if ambients else viewer.new_zeros(3)
        columns, kinds = [viewer, material.shininess[..., None], ambient], []
        for light in self.lights:
            if isinstance(light, DirectionalLight):
                columns += [unit(light.direction)]
                attenuation = torch.eye(3, dtype=light.color.dtype, device=light.color.device)[0]
            elif isinstance(light, PointLight):
                columns += [light.position]
                attenuation = light.attenuation
            else:
                continue
            columns += [material.diffuse * light.color, material.specular * light.color, attenuation]
            kinds.append(int(isinstance(light, PointLight)))
        batch = common_batch(*(column.shape[:-1] for column in columns))
        if batch:
            columns = [column.expand(*batch, column.shape[-1]) for column in columns]
        row = torch.cat([column.to(dtype) for column in columns], dim=-1)
        table, stride = self.table(row[..., None, :])
        return table, stride, torch.tensor(kinds, dtype=torch.int32, device="cpu")

    @property
    def is_plain(self) -> bool:
        """Whether `textured_in_light` can do all: one bilinear texture on smooth faces, and no other map is wanted."""
        mesh, texture = self.mesh, self.mesh.texture
        return (
            not self._maps
            and self.is_smooth
            and mesh.vertex_colors is None
            and mesh.face_colors is None
            and texture is not None
            and (texture.filter, texture.mipmaps, texture.shape[-1]) == ("bilinear", False, 3)
        )

    def textured_in_light(self, glossy: bool) -> torch.Tensor:
        """Return the colours (P, 3) of a mesh that `is_plain`, from one kernel."""
        mesh = self.mesh
        assert mesh.uv is not None and mesh.uv_faces is not None and mesh.texture is not None
        uv, uv_stride = self.table(mesh.uv)
        frame, stride = self.tables([mesh.vertices, self.vertex_normals])
        corners = self.corners(mesh.faces_int32, stride)
        same = mesh.uv_faces is mesh.faces and uv_stride == stride
        table, table_stride, kinds = self._light_table(frame.dtype)
        texture = mesh.texture.image
        own_texture = mesh.texture.batch_shape.numel() != 1
        if own_texture:
            texture = texture.expand(*self.batch, *texture.shape[-3:])
        return self.ops.surface(
            uv,
            corners if same else self.corners(mesh.uv_faces, uv_stride),
            frame,
            corners,
            self.barycentric,
            self.image if table_stride or own_texture else self.image[:0],
            table,
            kinds,
            texture.reshape(-1, *texture.shape[-3:]).to(frame.dtype),
            wrap=mesh.texture.wrap,
            parallel_view=self.camera.is_orthographic,
            glossy=glossy,
        )

    # --- tables of vertices, faces and images -----------------------------------------------------------------------

    def table(self, value: torch.Tensor, wide: bool = False) -> tuple[torch.Tensor, int]:
        """Return rows (n·V, C) of an attribute (..., V, C), n = 1 or B, and how many of them are each image's own."""
        count, channels = value.shape[-2:]
        value = value.to(self.barycentric.dtype)
        if value.shape[:-2].numel() == 1 and not (wide and self.images != 1):
            return value.reshape(count, channels), 0
        return value.expand(*self.batch, count, channels).reshape(-1, channels), count

    def tables(self, values: list[torch.Tensor]) -> tuple[torch.Tensor, int]:
        """Return several attributes of the vertices side by side, as `table` does one."""
        wide = any(value.shape[:-2].numel() != 1 for value in values)
        tables = [self.table(value, wide) for value in values]
        rows = [rows for rows, _ in tables]
        return rows[0] if len(rows) == 1 else torch.cat(rows, dim=1), tables[0][1]

    def corners(self, faces: torch.Tensor, stride: int) -> torch.Tensor:
        """Return the rows (P, 3) of a table that the corners of the points' faces have."""
        index = faces.index_select(0, self.face)
        return index + (self.image * stride)[:, None] if stride else index
