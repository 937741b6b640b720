# SPDX-License-Identifier: Apache-2.0
"""Write GLB, the binary form of glTF 2.0 (Khronos Group, ISO/IEC 12113:2022), so that other programs see our colours.

glTF has no Phong material. Ours goes into the material's ``extras``, the place for what an application needs itself;
its diffuse colour is the base colour that other programs see, on a surface that is matt, no metal and has two sides.

glTF's textures are sRGB; its base colours and colours of vertices are linear light (sections 3.9.2 and 3.7.2.1).
"""

import io
import json
import pathlib
import struct
from typing import Any

import numpy as np
import torch

from geodiff.scene.attributes import seams_split
from geodiff.scene.images import as_bytes, to_linear, write_image
from geodiff.scene.looks import color_runs
from geodiff.scene.material import Material
from geodiff.scene.mesh import Mesh
from geodiff.validation import fail

NUMBERS = ("ambient", "diffuse", "specular", "shininess")
WRAPS = {"repeat": 10497, "clamp": 33071, "mirror": 33648}
LINEAR = 9729
# By filter and mip-maps.
FILTERS = {("nearest", False): 9728, ("bilinear", False): LINEAR, ("nearest", True): 9986, ("bilinear", True): 9987}
UNLIT = "KHR_materials_unlit"
SRGB = {"geodiff": {"colors": "sRGB"}}
"""In ``asset.extras``: what colours were before they were made linear."""
_FLOAT, _BYTE, _SHORT, _INDEX = 5126, 5121, 5123, 5125
_CHUNK_JSON, _CHUNK_BINARY = 0x4E4F534A, 0x004E4942


def write_glb(mesh: Mesh, path: pathlib.Path, *, srgb: bool = False, unlit: bool = False) -> None:
    """Write positions, faces, texture coordinates, colours of vertices and of faces, texture and material.

    Colours of faces become materials, one for each run of faces of one colour.

    glTF has one texture coordinate a vertex: vertices on a seam of the texture are repeated. Positions are float32,
    colours 8 bits.

    Args:
        mesh: no batch, with faces.
        path: the file to make.
        srgb: colours are a picture's numbers: those of vertices and faces are written as linear light, in 16 bits.
        unlit: the same, and viewers show them as they are, without lamps.

    Raises:
        ValueError: a material with a batch, or colours of vertices that are not of 1, 3 or 4 channels.
    """
    material, texture = mesh.material, mesh.texture
    if material is not None and material.batch_shape:
        raise fail("Mesh.save", "material", "without a batch", f"a batch of {tuple(material.batch_shape)}")
    srgb |= unlit
    vertices, faces = mesh.vertices.detach().cpu().numpy(), mesh.faces.cpu().numpy()
    uv = None if mesh.uv is None else mesh.uv.detach().cpu().double().numpy()
    colors = None if mesh.vertex_colors is None else _rows(mesh.vertex_colors, srgb)
    if uv is not None and mesh.uv_faces is not None and mesh.uv_faces is not mesh.faces:
        vertex, corner, faces = seams_split(faces, mesh.uv_faces)
        vertices, uv, colors = vertices[vertex], uv[corner], None if colors is None else colors[vertex]
    out = _Binary()
    attributes = {"POSITION": out.accessor(vertices.astype("<f4"), _FLOAT, "VEC3", 34962, bounds=True)}
    if uv is not None:
        attributes["TEXCOORD_0"] = out.accessor(
            np.stack((uv[:, 0], 1.0 - uv[:, 1]), 1).astype("<f4"), _FLOAT, "VEC2", 34962
        )
    if colors is not None:
        attributes["COLOR_0"] = out.accessor(colors, _SHORT if srgb else _BYTE, "VEC4", 34962, normalized=True)
    runs = [(0, len(faces), (1.0, 1.0, 1.0))] if mesh.face_colors is None else color_runs(mesh.face_colors)
    number = {color: k for k, color in enumerate(dict.fromkeys(color for _, _, color in runs))}
    primitives = []
    for begin, end, color in runs:
        indices = out.accessor(faces[begin:end].astype("<u4").reshape(-1), _INDEX, "SCALAR", 34963)
        primitives.append({"attributes": attributes, "indices": indices, "material": number[color]})
    materials = [_material(material, color, srgb) for color in number]
    tree: dict[str, Any] = {
        "asset": {"version": "2.0", "generator": "geodiff"},
        "scene": 0,
        "scenes": [{"nodes": [0]}],
        "nodes": [{"mesh": 0}],
        "meshes": [{"primitives": primitives}],
        "materials": materials,
    }
    if srgb:
        tree["asset"]["extras"] = SRGB
    if unlit:
        tree["extensionsUsed"] = [UNLIT]
        for surface in materials:
            surface["extensions"] = {UNLIT: {}}
    if texture is not None:
        picture = io.BytesIO()
        write_image(picture, texture.image)
        wrap, filter_ = WRAPS[texture.wrap], FILTERS[texture.filter, texture.mipmaps]
        enlarged = FILTERS[texture.filter, False]
        tree["samplers"] = [{"wrapS": wrap, "wrapT": wrap, "minFilter": filter_, "magFilter": enlarged}]
        tree["images"] = [{"mimeType": "image/png", "bufferView": out.view(picture.getvalue())}]
        tree["textures"] = [{"sampler": 0, "source": 0}]
        for surface in materials:
            surface["pbrMetallicRoughness"]["baseColorTexture"] = {"index": 0}
    tree |= {"accessors": out.accessors, "bufferViews": out.views, "buffers": [{"byteLength": len(out.data)}]}
    text = json.dumps(tree).encode()
    text += b" " * (-len(text) % 4)
    chunks = struct.pack("<II", len(text), _CHUNK_JSON) + text + struct.pack("<II", len(out.data), _CHUNK_BINARY)
    path.write_bytes(b"glTF" + struct.pack("<II", 2, 12 + len(chunks) + len(out.data)) + chunks + out.data)


def _material(material: Material | None, color: tuple[float, float, float], srgb: bool) -> dict[str, Any]:
    """Return a matt surface of two sides, with the colours of a material times that of some faces."""
    base = torch.tensor(color, dtype=torch.float64) * (1.0 if material is None else material.diffuse.detach().cpu())
    base = base.clamp(0.0, 1.0)
    factor = [*(to_linear(base.numpy()) if srgb else base).tolist(), 1.0]
    surface: dict[str, Any] = {
        "pbrMetallicRoughness": {"baseColorFactor": factor, "metallicFactor": 0.0, "roughnessFactor": 1.0},
        "doubleSided": True,
    }
    if material is not None:
        numbers = {name: getattr(material, name).detach().cpu() for name in NUMBERS}
        for name in ("ambient", "diffuse"):
            numbers[name] = numbers[name] * numbers[name].new_tensor(color)
        surface["extras"] = {"phong": {name: value.tolist() for name, value in numbers.items()}}
    return surface


class _Binary:
    """The binary part of a GLB while it is made, with the tables that describe it."""

    def __init__(self) -> None:
        self.data = bytearray()
        self.views: list[dict[str, Any]] = []
        self.accessors: list[dict[str, Any]] = []

    def view(self, data: bytes, **more: Any) -> int:
        self.views.append({"buffer": 0, "byteOffset": len(self.data), "byteLength": len(data), **more})
        self.data += data + bytes(-len(data) % 4)
        return len(self.views) - 1

    def accessor(
        self,
        rows: np.ndarray,
        component: int,
        kind: str,
        target: int,
        *,
        bounds: bool = False,
        normalized: bool = False,
    ) -> int:
        entry: dict[str, Any] = {"bufferView": self.view(rows.tobytes(), target=target), "componentType": component}
        entry |= {"count": len(rows), "type": kind}
        if bounds:
            entry |= {"min": rows.min(axis=0).tolist(), "max": rows.max(axis=0).tolist()}
        if normalized:
            entry["normalized"] = True
        self.accessors.append(entry)
        return len(self.accessors) - 1


def _rows(colors: torch.Tensor, srgb: bool) -> np.ndarray:
    """Return colours as (V, 4), grey in all three and opaque where they have no alpha: bytes, or 16 bits of light."""
    if colors.shape[-1] not in (1, 3, 4):
        raise fail("Mesh.save", "vertex_colors", "of 1, 3 or 4 channels in GLB files", f"{colors.shape[-1]} channels")
    rgb = colors[:, :3].expand(-1, 3)
    rows = torch.cat((rgb, colors[:, 3:] if colors.shape[-1] == 4 else torch.ones_like(rgb[:, :1])), dim=1)
    if not srgb:
        return as_bytes(rows)
    numbers = rows.detach().cpu().double().clamp(0.0, 1.0).numpy()
    light = np.concatenate((to_linear(numbers[:, :3]), numbers[:, 3:]), axis=1)
    return np.rint(65535.0 * light).astype("<u2")
