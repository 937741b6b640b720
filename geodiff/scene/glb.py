# SPDX-License-Identifier: Apache-2.0
"""What a glTF file says of materials and samplers, which trimesh passes over: read, and added to what it writes.

glTF has no Phong material. Ours goes into the material's ``extras``, the place for what an application needs itself;
its diffuse colour is the base colour that other programs see.
"""

import contextlib
import json
import pathlib
import struct
from collections.abc import Callable
from typing import Any

import torch

from geodiff.scene.material import Material
from geodiff.scene.mesh import Mesh
from geodiff.scene.texture import Texture
from geodiff.validation import fail

_NUMBERS = ("ambient", "diffuse", "specular", "shininess")
_WRAPS = {"repeat": 10497, "clamp": 33071, "mirror": 33648}
_LINEAR = 9729
# By filter and mip-maps.
_FILTERS = {("nearest", False): 9728, ("bilinear", False): _LINEAR, ("nearest", True): 9986, ("bilinear", True): 9987}


def addition(mesh: Mesh) -> Callable[[dict[str, Any]], None]:
    """Return what adds a mesh's material, and the modes of its texture, to the tree of a glTF file.

    Raises:
        ValueError: a material with a batch.
    """
    material, texture = mesh.material, mesh.texture
    if material is not None and material.batch_shape:
        raise fail("Mesh.save", "material", "without a batch", f"a batch of {tuple(material.batch_shape)}")

    def add(tree: dict[str, Any]) -> None:
        if texture is not None:
            wrap, filter_ = _WRAPS[texture.wrap], _FILTERS[texture.filter, texture.mipmaps]
            enlarged = _FILTERS[texture.filter, False]
            tree["samplers"] = [{"wrapS": wrap, "wrapT": wrap, "minFilter": filter_, "magFilter": enlarged}]
            for entry in tree["textures"]:
                entry["sampler"] = 0
        if material is not None:
            surface = tree.setdefault("materials", [{}])[0]
            surface["extras"] = {"phong": {name: getattr(material, name).detach().tolist() for name in _NUMBERS}}
            base = [*material.diffuse.detach().clamp(0.0, 1.0).tolist(), 1.0]
            surface.setdefault("pbrMetallicRoughness", {"metallicFactor": 0.0})["baseColorFactor"] = base
            if mesh.vertex_colors is None:  # trimesh reads no colours of vertices where there is a material
                for entry in tree["meshes"]:
                    for primitive in entry["primitives"]:
                        primitive["material"] = 0

    return add


def with_looks(mesh: Mesh, path: pathlib.Path) -> Mesh:
    """Return a mesh with the material, and with the modes of its texture, of the glTF file it was read from.

    Both are taken where the whole file has one; anything that cannot be read is passed over, as the mesh itself could.
    Of a material without Phong's numbers the base colour counts, for ambient and diffuse light.
    """
    tree: dict[str, Any] = {}
    with contextlib.suppress(ValueError, struct.error):
        data = path.read_bytes()
        if data[:4] == b"glTF":
            (length,) = struct.unpack_from("<I", data, 12)
            data = data[20 : 20 + length]
        tree = json.loads(data)
    if mesh.texture is not None and len(tree.get("samplers", ())) == 1:
        mesh = mesh.with_attributes(texture=_sampled(mesh.texture, tree["samplers"][0]))
    with contextlib.suppress(ValueError, TypeError, KeyError, AttributeError):
        (surface,) = tree["materials"]
        if "phong" in surface.get("extras", {}):
            numbers = surface["extras"]["phong"]
            values = (torch.tensor(numbers[name], dtype=mesh.dtype) for name in _NUMBERS)
            mesh = mesh.with_attributes(material=Material(*values))
        else:  # another program's: what it multiplies colours with
            base = torch.tensor(surface["pbrMetallicRoughness"]["baseColorFactor"][:3], dtype=mesh.dtype)
            if (base != 1).any():
                mesh = mesh.with_attributes(material=Material(ambient=base, diffuse=base))
    return mesh


def _sampled(texture: Texture, sampler: dict[str, Any]) -> Texture:
    wraps = {number: name for name, number in _WRAPS.items()}
    # 9984 and 9985 take the nearest of the levels; here they are blended.
    modes = {**{number: mode for mode, number in _FILTERS.items()}, 9984: ("nearest", True), 9985: ("bilinear", True)}
    filter_, mipmaps = modes.get(sampler.get("minFilter", _LINEAR), ("bilinear", False))
    return Texture(texture.image, wraps.get(sampler.get("wrapS", 0), "repeat"), filter_, mipmaps)
