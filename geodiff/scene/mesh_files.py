# SPDX-License-Identifier: Apache-2.0
"""Meshes from and to files and ``trimesh.Trimesh``."""

import os
import pathlib
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image

from geodiff.guard import reading
from geodiff.modes import outside_autocast
from geodiff.scene.atomic import replacing
from geodiff.scene.attributes import AXES, seams_split
from geodiff.scene.glb import write_glb
from geodiff.scene.gltf_scene import load_gltf
from geodiff.scene.images import as_bytes, warn_clipped
from geodiff.scene.looks import MOST_RUNS, color_runs
from geodiff.scene.material import Material
from geodiff.scene.mesh import Mesh
from geodiff.scene.obj import load_obj, write_obj
from geodiff.scene.off import load_off
from geodiff.scene.ply import load_ply, write_mesh_ply
from geodiff.scene.stl import load_stl
from geodiff.validation import choice, fail, warn

if TYPE_CHECKING:  # a quarter of a second, and few need it
    import trimesh

# What each format can hold besides vertices and faces.
_HOLDS = {
    "obj": ("vertex_colors", "face_colors", "uv", "texture", "material"),
    "ply": ("vertex_colors", "face_colors", "uv"),
    "stl": (),
    "glb": ("vertex_colors", "face_colors", "uv", "texture", "material"),
}
_LOADS = ("obj", "ply", "stl", "glb", "gltf", "off")


def load_mesh(
    path: str | os.PathLike[str],
    weld: bool | None = None,
    dtype: torch.dtype = torch.float32,
    allow_outside: bool = False,
) -> Mesh:
    """Read a mesh from an OBJ, PLY, STL, GLB, glTF or OFF file.

    The vertices, faces and texture coordinates of the file are kept, in its order; the objects of a scene are joined
    into one, where they stand. Polygons are cut into triangles on their own planes. Several materials become the
    colours of faces and one texture in which their pictures lie side by side; a warning names what a mesh has no place
    for. Colours are taken as the numbers that they are in the file.

    Args:
        path: the file; its ending says its format.
        weld: join vertices at the very same position. None joins them where the format had to tear vertices apart: in
            STL, in PLY with texture coordinates, and in GLB with those, with normals, or without indices.
        dtype: torch.float32 or torch.float64.
        allow_outside: let the file name others (materials, pictures, buffers) outside of its folder.

    Raises:
        FileNotFoundError: no such file.
        ImportError: glTF packed with Draco, without the extra ``geodiff[draco]``.
        ValueError: an unknown ending, a damaged file, one without faces, NaN in it, or glTF that requires an extension
            which is not read here.

    Example:
        >>> import tempfile, geodiff as gd
        >>> path = tempfile.mkdtemp() + "/ball.ply"
        >>> gd.icosphere(2).save(path)
        >>> gd.Mesh.load(path)
        Mesh(vertices=(162, 3), faces=(320, 3), float32, cpu)
    """
    path = pathlib.Path(path)
    ending = _ending("Mesh.load", path, _LOADS)
    if dtype not in (torch.float32, torch.float64):
        raise fail("Mesh.load", "dtype", "torch.float32 or torch.float64", str(dtype), error=TypeError)
    if not os.path.isfile(path):  # unlike Path.is_file, this takes names that are too long
        raise fail("Mesh.load", "path", "a file that exists", str(path), error=FileNotFoundError)
    with reading("Mesh.load", path, ending.upper()), np.errstate(all="ignore"):
        if ending == "obj":
            mesh, torn = load_obj(path, dtype, allow_outside), False
        elif ending in ("glb", "gltf"):
            mesh, torn = load_gltf(path, dtype, allow_outside)
        elif ending == "ply":
            mesh = load_ply(path, dtype, allow_outside)
            torn = mesh.uv is not None
        else:
            mesh, torn = (load_stl if ending == "stl" else load_off)(path, dtype), ending == "stl"
        if mesh.num_faces == 0:
            raise ValueError("no faces of three or more corners")
        return welded(mesh) if (torn if weld is None else weld) else mesh


def save_mesh(mesh: Mesh, path: str | os.PathLike[str], *, srgb: bool = False, unlit: bool = False) -> None:
    """Write one mesh as OBJ, PLY, STL or GLB; the file appears whole or not at all.

    A warning names attributes that the format does not hold. PLY, STL and GLB store positions as float32 and colours in
    8 bits. A texture of an OBJ file goes beside it, as ``STEM.mtl`` and ``STEM.png``; of its modes OBJ holds repeat and
    clamp only.

    Args:
        mesh: no batch; of a batch, save ``mesh[i]``.
        path: the file; its ending says its format, its folder is made where missing.
        srgb: for GLB: colours are a picture's numbers, as photographs have them, and viewers shall show them so. glTF
            takes those of textures for sRGB, but those of vertices and faces for linear light: these are converted, and
            back by `Mesh.load`. Without it all are written as they are, and viewers show vertex colours too light. The
            other formats do not tell the two apart.
        unlit: for GLB: colours hold the light already; viewers show them without lamps (KHR_materials_unlit), and as
            with ``srgb``.

    Raises:
        TypeError: ``srgb`` or ``unlit`` that is no bool.
        ValueError: an unknown ending, a batch, or no faces.
        OSError: the folder cannot be written to.
    """
    path = pathlib.Path(path)
    ending = _ending("Mesh.save", path, tuple(_HOLDS))
    _single("Mesh.save", mesh)
    for name, flag in (("srgb", srgb), ("unlit", unlit)):
        if not isinstance(flag, bool):
            raise fail("Mesh.save", name, "True or False", flag, error=TypeError)
    if mesh.num_faces == 0:
        raise fail("Mesh.save", "mesh", "a mesh with faces, since files without them do not load", "none")
    names = ("vertex_colors", "face_colors", "uv", "texture", "material")
    lost = [name for name in names if getattr(mesh, name) is not None]
    lost = [name for name in lost if name not in _HOLDS[ending]]
    if mesh.face_colors is not None and ending in ("obj", "glb"):
        # They become materials: more than a few thousand are no use.
        if mesh.face_colors.shape[-1] not in (1, 3, 4) or len(color_runs(mesh.face_colors)) > MOST_RUNS:
            lost.append("face_colors")
    if lost:
        warn(f"Mesh.save: {ending.upper()} does not hold {', '.join(lost)}: left out of {path}")
        mesh = mesh.with_attributes(**dict.fromkeys(lost))
    if ending in ("obj", "glb"):  # in PLY `to_trimesh` says so; other colours of OBJ are no bytes
        colors = {} if ending == "obj" else {"vertex_colors": mesh.vertex_colors, "face_colors": mesh.face_colors}
        warn_clipped("Mesh.save", **colors, texture=None if mesh.texture is None else mesh.texture.image)
    with replacing(path, "Mesh.save") as part:
        if ending == "obj":
            write_obj(mesh, part)
        elif ending == "glb":
            write_glb(mesh, part, srgb=srgb, unlit=unlit)
        elif ending == "ply" and not any(getattr(mesh, name) is not None for name in names):
            write_mesh_ply(mesh, part)  # trimesh takes its time, and some to be imported
        else:
            to_trimesh(mesh).export(part, file_type=ending)


@outside_autocast
def from_trimesh(mesh: "trimesh.Trimesh", dtype: torch.dtype = torch.float32) -> Mesh:
    """Make a mesh from a ``trimesh.Trimesh``, with its vertex or face colours, or its texture and coordinates.

    Args:
        mesh: vertices and faces are copied in their order.
        dtype: torch.float32 or torch.float64 (trimesh has float64).

    Raises:
        TypeError: something other than a ``Trimesh``.

    Example:
        >>> import trimesh, geodiff as gd
        >>> gd.Mesh.from_trimesh(trimesh.creation.box())
        Mesh(vertices=(8, 3), faces=(12, 3), float32, cpu)
    """
    import trimesh

    if not isinstance(mesh, trimesh.Trimesh):
        fix = "Join the meshes of a Scene with .to_mesh()."
        raise fail("from_trimesh", "mesh", "a trimesh.Trimesh", mesh, fix, TypeError)
    attributes: dict[str, Any] = {}
    visual: Any = mesh.visual
    if visual.kind == "vertex":
        attributes["vertex_colors"] = _colors(visual.vertex_colors, dtype)
    elif visual.kind == "face":
        attributes["face_colors"] = _colors(visual.face_colors, dtype)
    elif visual.kind == "texture":
        material = visual.material
        color = _base_color(material)
        if color is not None:
            attributes["material"] = Material(ambient=color.to(dtype), diffuse=color.to(dtype))
        image = getattr(material, "baseColorTexture", None) or getattr(material, "image", None)
        if np.shape(visual.uv) == (len(mesh.vertices), 2):
            attributes["uv"] = torch.tensor(np.asarray(visual.uv), dtype=dtype)
            if image is not None and not _is_made_up(material, image):
                with_alpha = "A" in image.getbands() or "transparency" in image.info
                array = np.asarray(image.convert("RGBA" if with_alpha else "RGB"))
                attributes["texture"] = torch.tensor(array, dtype=dtype) / 255.0
    vertices = torch.tensor(np.asarray(mesh.vertices), dtype=dtype).reshape(-1, 3)
    faces = np.asarray(mesh.faces, dtype=np.int64).reshape(-1, 3)
    return Mesh(vertices, faces, **attributes)


def _base_color(material: Any) -> torch.Tensor | None:
    """Return the colour (3,) of a trimesh material; None where it is white, or trimesh's own for want of one."""
    import trimesh

    simple = isinstance(material, trimesh.visual.material.SimpleMaterial)
    value = material.diffuse if simple else getattr(material, "baseColorFactor", None)
    if value is None or (simple and np.array_equal(value, trimesh.visual.color.DEFAULT_COLOR)):
        return None
    value = np.asarray(value)
    color = value[:3] / 255.0 if value.dtype.kind in "ui" else value[:3].astype(np.float64)
    return None if len(color) != 3 or (color == 1.0).all() else torch.from_numpy(color)


def _is_made_up(material: Any, image: Image.Image) -> bool:
    """Whether it is the grey picture that trimesh makes up for texture coordinates without any."""
    import trimesh

    simple = isinstance(material, trimesh.visual.material.SimpleMaterial)
    return simple and image.size == (2, 2) and image.mode == "RGBA" and image.getcolors() == [(4, (100, 100, 100, 255))]


@outside_autocast
def to_trimesh(mesh: Mesh) -> "trimesh.Trimesh":
    """Return a ``trimesh.Trimesh`` (float64 positions, 8-bit colours, off the autograd graph) with the same order.

    trimesh holds one kind of appearance and one texture coordinate a vertex: texture coordinates are taken before
    vertex colours, those before face colours, those before a material's diffuse colour, with a warning for what is left
    out; and vertices on a seam of the texture are repeated, so V may grow.

    Args:
        mesh: no batch.

    Raises:
        TypeError: something other than a ``Mesh``.
        ValueError: a batch.
    """
    import trimesh

    if not isinstance(mesh, Mesh):
        raise fail("to_trimesh", "mesh", "a Mesh", mesh, error=TypeError)
    _single("to_trimesh", mesh)
    looks = [n for n in ("uv", "vertex_colors", "face_colors") if getattr(mesh, n) is not None]
    if mesh.uv is None and mesh.material is not None and bool((mesh.material.diffuse != 1).any()):
        looks.append("material")
    if len(looks) > 1:
        warn(f"to_trimesh: trimesh holds one of {', '.join(looks)}: only {looks[0]} kept")
    vertices = mesh.vertices.detach().cpu().double().numpy()
    faces = mesh.faces.cpu().numpy()
    if mesh.material is not None:
        _single_material(mesh.material)
    if mesh.uv is None:
        colors: dict[str, Any] = {}
        if mesh.vertex_colors is not None:
            colors["vertex_colors"] = _color_bytes("vertex_colors", mesh.vertex_colors)
        elif mesh.face_colors is not None:
            colors["face_colors"] = _color_bytes("face_colors", mesh.face_colors)
        elif mesh.material is not None:
            colors["visual"] = trimesh.visual.TextureVisuals(material=_surface(mesh))
        return trimesh.Trimesh(vertices, faces, process=False, validate=False, **colors)
    uv = mesh.uv.detach().cpu().double().numpy()
    if mesh.uv_faces is not None and mesh.uv_faces is not mesh.faces:
        vertex, corner, faces = seams_split(faces, mesh.uv_faces)
        vertices, uv = vertices[vertex], uv[corner]
    visual: Any = trimesh.visual.TextureVisuals(uv=uv, material=_surface(mesh))
    return trimesh.Trimesh(vertices, faces, visual=visual, process=False, validate=False)


def _surface(mesh: Mesh) -> Any:
    """Return a matt material of two sides: trimesh's own is grey, and dark metal in most viewers."""
    import trimesh

    texture = None if mesh.texture is None else mesh.texture.image
    diffuse = None if mesh.material is None else mesh.material.diffuse
    warn_clipped("to_trimesh", texture=texture, material=diffuse)
    image = None if texture is None else Image.fromarray(as_bytes(texture.squeeze(-1)))
    base = np.ones(4)
    if diffuse is not None:
        base[:3] = diffuse.detach().cpu().double().clamp(0.0, 1.0).numpy()
    return trimesh.visual.material.PBRMaterial(
        baseColorTexture=image, baseColorFactor=base, metallicFactor=0.0, roughnessFactor=1.0, doubleSided=True
    )


def _single_material(material: Material) -> None:
    if material.batch_shape:
        raise fail("to_trimesh", "material", "without a batch", f"a batch of {tuple(material.batch_shape)}")


def welded(mesh: Mesh) -> Mesh:
    """Return the mesh with vertices at the very same position joined, in the order of their first appearance.

    Texture coordinates stay with the corners (``uv_faces``). Vertices of different colours are not joined.

    Args:
        mesh: no batch.

    Raises:
        ValueError: a batch.
    """
    _single("welded", mesh)
    if mesh.num_vertices == 0:
        return mesh
    key = mesh.vertices.detach() if mesh.vertex_colors is None else torch.cat((mesh.vertices, mesh.vertex_colors), -1)
    # Adding zero makes −0 and 0 one.
    rows = key.detach().cpu().numpy() + 0.0
    _, first, inverse = np.unique(rows, axis=0, return_index=True, return_inverse=True)
    order = np.argsort(first)
    rank = np.empty_like(order)
    rank[order] = np.arange(len(order))
    keep = torch.as_tensor(first[order], device=mesh.device)
    names = torch.as_tensor(rank[inverse.reshape(-1)], device=mesh.device)
    return Mesh(
        mesh.vertices[keep],
        names[mesh.faces],
        vertex_colors=None if mesh.vertex_colors is None else mesh.vertex_colors[keep],
        uv=mesh.uv,
        uv_faces=mesh.uv_faces,
        face_colors=mesh.face_colors,
        texture=mesh.texture,
        material=mesh.material,
    )


def _ending(where: str, path: pathlib.Path, known: tuple[str, ...]) -> str:
    ending = path.suffix.lower().removeprefix(".")
    if not ending:
        raise fail(where, "path", f"a file name ending in one of .{', .'.join(known)}", str(path))
    return choice(where, "path", ending, known)


def _single(where: str, mesh: Mesh) -> None:
    if mesh.batch_shape:
        raise fail(where, "mesh", "one mesh", f"a batch of {tuple(mesh.batch_shape)}", "Take mesh[i].")
    for name, axes in AXES.items():
        value = getattr(mesh, name)
        if value is not None and len(value.shape) > axes:
            raise fail(where, name, "without a batch", str(tuple(value.shape)))


def _colors(array: np.ndarray, dtype: torch.dtype) -> torch.Tensor:
    """Return 8-bit RGBA as numbers in [0, 1], without alpha where all is opaque."""
    array = np.asarray(array)
    opaque = array.shape[-1] == 4 and bool((array[:, 3] == 255).all())
    return torch.tensor(array[:, :3] if opaque else array, dtype=dtype) / 255.0


def _color_bytes(name: str, colors: torch.Tensor) -> np.ndarray:
    """Return colours as trimesh takes them, of three or four channels."""
    if colors.shape[-1] not in (1, 3, 4):
        raise fail("to_trimesh", name, "of 1, 3 or 4 channels", f"{colors.shape[-1]} channels")
    warn_clipped("to_trimesh", **{name: colors})
    rows = as_bytes(colors)
    return rows.repeat(3, axis=1) if rows.shape[1] == 1 else rows
