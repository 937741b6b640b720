# SPDX-License-Identifier: Apache-2.0
"""What a glTF file shows: its nodes where they stand, with their primitives as triangles and their materials."""

import io
import math
import os
import pathlib
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from geodiff.scene.glb import FILTERS, LINEAR, NUMBERS, SRGB, UNLIT, WRAPS
from geodiff.scene.gltf import Container, normalised
from geodiff.scene.images import from_linear, read_image
from geodiff.scene.looks import Look, Picture, dressed, warn_lost
from geodiff.scene.mesh import Mesh

_DRACO = "KHR_draco_mesh_compression"
_INSTANCES = "EXT_mesh_gpu_instancing"
_GLOSSY = "KHR_materials_pbrSpecularGlossiness"
_MOST_NODES = 1_000_000


@dataclass
class _Part:
    """Triangles of one primitive under one transform."""

    vertices: np.ndarray
    faces: np.ndarray
    uv: np.ndarray | None
    colors: np.ndarray | None
    look: int
    same: Any = None  # parts of one mesh that are equal in this have the same vertices


def load_gltf(path: pathlib.Path, dtype: torch.dtype, allow_outside: bool = False) -> tuple[Mesh, bool]:
    """Read all that the file's scene shows, joined into one mesh, and say whether its vertices are torn apart.

    Hierarchies, instances, skins and morph targets are taken as they stand by default; strips and fans become
    triangles; mirrored nodes keep their outside. Of materials the base colour counts, times texture and colours of
    vertices, and what `Mesh.save` wrote. A warning names what is left out.

    Args:
        path: a ``.glb`` or ``.gltf`` file.
        dtype: of the result.
        allow_outside: read buffers and images outside of the file's folder too.

    Raises:
        ImportError: Draco without DracoPy.
        ValueError: an extension that is required and not read, a damaged file, one without triangles.
    """
    scene = _Scene(Container(path, allow_outside))
    scene.walk()
    if not scene.parts:
        raise ValueError("no triangles in its scene")
    return scene.mesh(dtype), scene.torn


class _Scene:
    def __init__(self, file: Container) -> None:
        self.file = file
        self.parts: list[_Part] = []
        self.lost: list[str] = []
        self.looks: list[Look] = []
        self.torn = False
        self.was_srgb = file.tree["asset"].get("extras") == SRGB  # written by us, of a picture's numbers
        self._look_of: dict[Any, int] = {}
        self._pictures: dict[tuple[int, Any], Picture | None] = {}
        self._images: dict[int, torch.Tensor | None] = {}
        self._placed: dict[int, np.ndarray] = {}

    # --- nodes ---

    def walk(self) -> None:
        """Collect the parts of the scene's nodes."""
        tree = self.file.tree
        count = len(tree.get("nodes", []))
        if count > _MOST_NODES:
            raise ValueError(f"{count} nodes")
        children = {child for i in range(count) for child in self.file.at("nodes", i).get("children", [])}
        if tree.get("scenes"):
            roots = self.file.at("scenes", tree.get("scene", 0)).get("nodes", [])
        else:  # a library of things: all of them
            roots = [i for i in range(count) if i not in children]
        order: list[tuple[int, bool]] = []
        waiting = [(root, np.eye(4), True) for root in reversed(roots)]
        while waiting:
            index, outer, shown = waiting.pop()
            node = self.file.at("nodes", index)
            if index in self._placed:
                raise ValueError(f"nodes[{index}] hangs from two others")
            self._placed[index] = outer @ _matrix(node)
            shown = shown and node.get("extensions", {}).get("KHR_node_visibility", {}).get("visible", True)
            order.append((index, shown))
            waiting += [(child, self._placed[index], shown) for child in reversed(node.get("children", []))]
        for index, shown in order:
            node = self.file.at("nodes", index)
            if shown and "mesh" in node:
                self._add(node, self._placed[index])
        if not count:
            for mesh in range(len(tree.get("meshes", []))):
                self._add({"mesh": mesh}, np.eye(4))

    def _add(self, node: dict[str, Any], world: np.ndarray) -> None:
        mesh = self.file.at("meshes", node["mesh"])
        weights = node.get("weights", mesh.get("weights", []))
        matrices = self._instances(node, world)
        for primitive in mesh["primitives"]:
            part = self._primitive(primitive, weights)
            if part is None:
                continue
            if "skin" in node and "JOINTS_0" in primitive["attributes"]:
                part.vertices = self._skinned(node["skin"], primitive["attributes"], part.vertices)
                part.same = None
                self.parts.append(part)
                continue
            for k, matrix in enumerate(matrices):
                moved = part.vertices @ matrix[:3, :3].T + matrix[:3, 3]
                faces = part.faces[:, ::-1] if np.linalg.det(matrix[:3, :3]) < 0 else part.faces
                same = None if part.same is None else (id(node), k, part.same)
                self.parts.append(_Part(moved, faces, part.uv, part.colors, part.look, same))

    def _instances(self, node: dict[str, Any], matrix: np.ndarray) -> list[np.ndarray]:
        found = node.get("extensions", {}).get(_INSTANCES)
        if found is None:
            return [matrix]
        rows = {name: self._numbers(index) for name, index in found["attributes"].items() if not name.startswith("_")}
        count = {len(values) for values in rows.values()}
        if len(count) != 1:
            raise ValueError(f"instances of {sorted(count)} rows")
        result = []
        for i in range(count.pop()):
            one = {name.lower(): values[i].tolist() for name, values in rows.items()}
            result.append(matrix @ _matrix(one))
        return result

    def _skinned(self, index: Any, attributes: dict[str, Any], vertices: np.ndarray) -> np.ndarray:
        """Return vertices moved by their joints as these stand; the node's own transform has no effect on them."""
        skin = self.file.at("skins", index)
        missing = [joint for joint in skin["joints"] if joint not in self._placed]
        if missing:
            raise ValueError(f"skins[{index}] has joints outside of the scene")
        matrices = np.stack([self._placed[joint] for joint in skin["joints"]])
        if "inverseBindMatrices" in skin:
            bind = self.file.accessor(skin["inverseBindMatrices"]).astype(np.float64)
            matrices = matrices @ bind.reshape(-1, 4, 4)[: len(matrices)].transpose(0, 2, 1)
        total, share = np.zeros((len(vertices), 4, 4)), np.zeros(len(vertices))
        for k in range(len(attributes)):
            if f"JOINTS_{k}" not in attributes:
                break
            joints, weights = self.file.accessor(attributes[f"JOINTS_{k}"]), self._numbers(attributes[f"WEIGHTS_{k}"])
            for column in range(4):
                total += matrices[joints[:, column].astype(np.int64)] * weights[:, column, None, None]
                share += weights[:, column]
        total /= np.where(share > 0, share, 1.0)[:, None, None]
        return np.einsum("nij,nj->ni", total[:, :3, :3], vertices) + total[:, :3, 3]

    # --- primitives ---

    def _numbers(self, index: Any) -> np.ndarray:
        return np.asarray(self.file.accessor(index), dtype=np.float64)

    def _primitive(self, primitive: dict[str, Any], weights: list[float]) -> _Part | None:
        """Return the triangles of a primitive where its mesh stands; None for points and lines."""
        mode, attributes = primitive.get("mode", 4), primitive["attributes"]
        if mode in (0, 1, 2, 3):
            self.lost.append("points and lines")
            return None
        if mode not in (4, 5, 6) or "POSITION" not in attributes:
            raise ValueError(f"a primitive of mode {mode!r} with {', '.join(attributes) or 'nothing'}")
        packed = primitive.get("extensions", {}).get(_DRACO)
        if packed is not None and self._must_unpack(attributes):
            rows, index = self._unpacked(packed)
        else:
            rows = {name: self.file.accessor(k) for name, k in attributes.items() if _is_read(name)}
            index = None if primitive.get("indices") is None else self.file.accessor(primitive["indices"])
        vertices = np.array(rows["POSITION"], dtype=np.float64)
        if vertices.shape[1] != 3 or any(len(values) != len(vertices) for values in rows.values()):
            raise ValueError("attributes that do not go together")
        for target, weight in zip(primitive.get("targets", []), weights, strict=False):
            if weight and "POSITION" in target:
                vertices += weight * self._numbers(target["POSITION"])
        order = np.arange(len(vertices)) if index is None else index.reshape(-1)
        if order.dtype.kind not in "ui" or (
            len(order) and not 0 <= int(order.min()) <= int(order.max()) < len(vertices)
        ):
            raise ValueError(f"indices beyond the {len(vertices)} vertices")
        self.torn |= index is None or "NORMAL" in attributes or any(name.startswith("TEXCOORD") for name in attributes)
        material = primitive.get("material")
        look, channel, transform = self._look(material)
        uv = rows.get(f"TEXCOORD_{channel}")
        if uv is not None:
            uv = np.asarray(uv, dtype=np.float64)[:, :2] @ transform[:2, :2].T + transform[:2, 2]
            uv = np.stack((uv[:, 0], 1.0 - uv[:, 1]), axis=1)
        colors = rows.get("COLOR_0")
        if colors is not None:
            colors = np.array(normalised(colors), dtype=np.float64)
            if self.was_srgb:
                colors[:, :3] = from_linear(colors[:, :3])
        same = None
        if packed is None and not primitive.get("targets"):
            same = (tuple(sorted(attributes.items())), channel, transform.tobytes(), uv is None)
        return _Part(vertices, _triangles(mode, order.astype(np.int64)), uv, colors, look, same)

    def _must_unpack(self, attributes: dict[str, Any]) -> bool:
        """Whether there is no plain copy of packed data, or it can be unpacked anyway."""
        try:
            import DracoPy  # noqa: F401
        except ImportError:
            return "bufferView" not in self.file.at("accessors", attributes["POSITION"])
        return True

    def _unpacked(self, packed: dict[str, Any]) -> tuple[dict[str, np.ndarray], np.ndarray | None]:
        try:
            import DracoPy
        except ImportError as error:
            text = f'{self.file.path} is packed with Draco, which needs DracoPy: pip install "geodiff[draco]"'
            raise ImportError(f"Mesh.load: {text}, or save it unpacked.") from error
        found = DracoPy.decode(bytes(self.file.view(packed["bufferView"])))
        rows = {}
        for name, number in packed["attributes"].items():
            if _is_read(name):
                values = np.asarray(found.get_attribute_by_unique_id(number)["data"])
                rows[name] = values.reshape(len(values), -1)
        return rows, np.asarray(found.faces)

    # --- materials ---

    def _look(self, index: Any) -> tuple[int, int, np.ndarray]:
        """Return the number of a material's look, and which coordinates its texture takes, moved by what matrix."""
        material = {} if index is None else self.file.at("materials", index)
        glossy = material.get("extensions", {}).get(_GLOSSY)
        surface = material.get("pbrMetallicRoughness", {}) if glossy is None else glossy
        base = surface.get("baseColorFactor" if glossy is None else "diffuseFactor", [1.0, 1.0, 1.0, 1.0])
        texture = surface.get("baseColorTexture" if glossy is None else "diffuseTexture")
        channel, transform = 0, np.eye(3)
        if texture is not None:
            channel, transform = _transform(texture)
        if index not in self._look_of:
            color = tuple(float(x) for x in base[:3])
            if len(color) != 3 or not all(0 <= x < math.inf for x in color):
                raise ValueError(f"materials[{index}] of base colour {base!r}")
            if self.was_srgb:
                color = tuple(from_linear(np.array(color)).tolist())
            picture = None if texture is None else self._picture(texture["index"])
            phong = material.get("extras", {}).get("phong") if isinstance(material.get("extras"), dict) else None
            if phong is None:
                look = Look(color, picture)
            else:  # written by us
                ambient, diffuse, specular = (_triple(phong[name]) for name in NUMBERS[:3])
                look = Look(diffuse, picture, ambient, specular, float(phong["shininess"]))
            self._look_of[index] = len(self.looks)
            self.looks.append(look)
            self._lost_of(material, base)
        return self._look_of[index], channel, transform

    def _lost_of(self, material: dict[str, Any], base: list[float]) -> None:
        """Note what of a material a mesh cannot hold."""
        mode = material.get("alphaMode", "OPAQUE")
        if mode == "MASK" or (mode == "BLEND" and len(base) > 3 and base[3] < 1):
            self.lost.append(f"transparency (alphaMode {mode})")
        extensions = material.get("extensions", {})
        if any(x > 0 for x in material.get("emissiveFactor", [0.0])):
            self.lost.append("emitted light")
        if "normalTexture" in material:
            self.lost.append("normal maps")
        surface = material.get("pbrMetallicRoughness", {})
        unlit = UNLIT in extensions
        written_here = isinstance(material.get("extras"), dict) and "phong" in material["extras"]
        if "metallicRoughnessTexture" in surface or (
            surface and surface.get("metallicFactor", 1.0) > 0 and not unlit and not written_here
        ):
            self.lost.append("metalness")
        plain = {UNLIT, _GLOSSY, "KHR_materials_emissive_strength", "KHR_materials_ior"}
        self.lost += [name for name in sorted(extensions) if name.startswith("KHR_materials_") and name not in plain]

    def _picture(self, index: Any) -> Picture | None:
        texture = self.file.at("textures", index)
        extensions = texture.get("extensions", {})
        source = extensions.get("EXT_texture_webp", {}).get("source", texture.get("source"))
        if source is None:
            self.lost.append(f"a texture ({', '.join(extensions) or 'without image'})")
            return None
        key = (source, texture.get("sampler"))
        if key not in self._pictures:
            if source not in self._images:
                self._images[source] = self._image(source)
            image = self._images[source]
            sampler = self.file.at("samplers", key[1]) if key[1] is not None else {}
            self._pictures[key] = None if image is None else _sampled(image, sampler, self.lost)
        return self._pictures[key]

    def _image(self, index: Any) -> torch.Tensor | None:
        entry = self.file.at("images", index)
        if "bufferView" in entry:
            data: Any = bytes(self.file.view(entry["bufferView"]))
        else:
            data = self.file.external(entry["uri"])
            if data is None:
                self.lost.append(f"the image {entry['uri'][:200]!r} (outside of its folder: pass allow_outside=True)")
                return None
            if isinstance(data, pathlib.Path) and not os.path.isfile(data):
                self.lost.append(f"the image {data.name[:200]}, which is not there")
                return None
        return read_image(data if isinstance(data, pathlib.Path) else io.BytesIO(data), "Mesh.load", self.file.path)

    # --- all together ---

    def mesh(self, dtype: torch.dtype) -> Mesh:
        """Return the parts as one mesh."""
        own, start, seen, count = [], [], {}, 0  # parts with vertices of their own; where each part's begin
        for part in self.parts:
            key = id(part) if part.same is None else part.same
            if key not in seen:
                seen[key] = count
                own.append(part)
                count += len(part.vertices)
            start.append(seen[key])
        vertices = np.concatenate([part.vertices for part in own])
        faces = np.concatenate([part.faces + k for part, k in zip(self.parts, start, strict=True)])
        of_face = np.repeat([part.look for part in self.parts], [len(part.faces) for part in self.parts])
        colors = uv = uv_faces = None
        if any(part.colors is not None for part in own):
            rows = [np.ones((len(part.vertices), 3)) if part.colors is None else part.colors for part in own]
            if any(row.shape[1] == 4 and (row[:, 3] < 1).any() for row in rows):
                rows = [row if row.shape[1] == 4 else np.c_[row, np.ones(len(row))] for row in rows]
            else:
                rows = [row[:, :3] for row in rows]
            colors = torch.from_numpy(np.concatenate(rows)).to(dtype)
        if any(part.uv is not None for part in own):
            uv = np.concatenate([np.zeros((len(part.vertices), 2)) if part.uv is None else part.uv for part in own])
            bare = np.repeat([part.uv is None for part in self.parts], [len(part.faces) for part in self.parts])
            uv_faces = np.where(bare[:, None], -1, faces)
        dress = dressed(self.looks, of_face, uv, uv_faces)
        self.lost += dress.lost
        warn_lost(self.file.path, self.lost)
        apart = dress.uv_faces is not None and not np.array_equal(dress.uv_faces, faces)
        return Mesh(
            torch.from_numpy(vertices).to(dtype),
            faces,
            vertex_colors=colors,
            uv=None if dress.uv is None else torch.from_numpy(dress.uv).to(dtype),
            uv_faces=dress.uv_faces if apart else None,
            face_colors=None if dress.face_colors is None else torch.from_numpy(dress.face_colors).to(dtype),
            texture=dress.texture,
            material=dress.material,
        )


def _is_read(name: str) -> bool:
    return name in ("POSITION", "COLOR_0") or name.startswith("TEXCOORD_")


def _triangles(mode: int, order: np.ndarray) -> np.ndarray:
    """Return the triangles of a list (4), strip (5) or fan (6) of vertices."""
    count = len(order) // 3 if mode == 4 else len(order) - 2
    if count < 1 or (mode == 4 and len(order) % 3):
        raise ValueError(f"{len(order)} corners, which are no triangles")
    if mode == 4:
        return order.reshape(-1, 3)
    i = np.arange(count)
    if mode == 5:
        faces = order[np.stack((i, i + 1 + i % 2, i + 2 - i % 2), axis=1)]
        # Corners that come twice only join strips.
        return faces[(faces[:, 0] != faces[:, 1]) & (faces[:, 1] != faces[:, 2]) & (faces[:, 2] != faces[:, 0])]
    return order[np.stack((i + 1, i + 2, 0 * i), axis=1)]


def _matrix(node: dict[str, Any]) -> np.ndarray:
    """Return a node's own matrix (4, 4): T·R·S, or as it is given, column by column."""
    if "matrix" in node:
        matrix = np.array(node["matrix"], dtype=np.float64).reshape(4, 4).T
    else:
        x, y, z, w = (float(q) for q in node.get("rotation", (0.0, 0.0, 0.0, 1.0)))
        length = x * x + y * y + z * z + w * w
        s = 2.0 / length if length > 0 else 0.0
        rotation = np.array(
            [
                [1 - s * (y * y + z * z), s * (x * y - z * w), s * (x * z + y * w)],
                [s * (x * y + z * w), 1 - s * (x * x + z * z), s * (y * z - x * w)],
                [s * (x * z - y * w), s * (y * z + x * w), 1 - s * (x * x + y * y)],
            ]
        )
        matrix = np.eye(4)
        matrix[:3, :3] = rotation * np.array(node.get("scale", (1.0, 1.0, 1.0)), dtype=np.float64).reshape(3)
        matrix[:3, 3] = np.array(node.get("translation", (0.0, 0.0, 0.0)), dtype=np.float64).reshape(3)
    if not np.isfinite(matrix).all():
        raise ValueError("a node with a transform that is not finite")
    return matrix


def _transform(texture: dict[str, Any]) -> tuple[int, np.ndarray]:
    """Return which texture coordinates are meant and the matrix (3, 3) of KHR_texture_transform."""
    channel = texture.get("texCoord", 0)
    more = texture.get("extensions", {}).get("KHR_texture_transform")
    matrix = np.eye(3)
    if more is not None:
        channel = more.get("texCoord", channel)
        (x, y), (across, down), turn = more.get("offset", (0, 0)), more.get("scale", (1, 1)), more.get("rotation", 0)
        c, s = math.cos(turn), math.sin(turn)
        matrix = np.array([[c * across, s * down, x], [-s * across, c * down, y], [0.0, 0.0, 1.0]], dtype=np.float64)
    if not isinstance(channel, int) or channel < 0:
        raise ValueError(f"texCoord {channel!r}")
    return channel, matrix


def _sampled(image: torch.Tensor, sampler: dict[str, Any], lost: list[str]) -> Picture:
    """Return a picture with the modes of a sampler; of its two filters that for enlarging counts."""
    wraps = {number: name for name, number in WRAPS.items()}
    # 9984 and 9985 take the nearest of the levels; here they are blended.
    modes = {**{number: mode for mode, number in FILTERS.items()}, 9984: ("nearest", True), 9985: ("bilinear", True)}
    smaller, mipmaps = modes.get(sampler.get("minFilter", LINEAR), ("bilinear", False))
    larger, _ = modes.get(sampler.get("magFilter", -1), (smaller, False))
    # With mip-maps a picture made smaller is blended anyway.
    if larger != smaller and "minFilter" in sampler and not mipmaps:
        lost.append("filters for pictures made smaller (those for enlarging are taken)")
    wrap = tuple(wraps.get(sampler.get(axis, 10497), "repeat") for axis in ("wrapS", "wrapT"))
    return Picture(image, (wrap[0], wrap[1]), larger, mipmaps)


def _triple(value: Any) -> tuple[float, ...]:
    numbers = value if isinstance(value, list) else [value] * 3
    if len(numbers) != 3:
        raise ValueError(f"a colour of {len(numbers)} numbers")
    return tuple(float(x) for x in numbers)
