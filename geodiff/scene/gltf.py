# SPDX-License-Identifier: Apache-2.0
"""The container of glTF 2.0 (Khronos Group, ISO/IEC 12113:2022): JSON, buffers, and the tables that accessors are."""

import base64
import binascii
import json
import os
import pathlib
import struct
import urllib.parse
from typing import Any

import numpy as np

from geodiff.guard import inside
from geodiff.validation import fail

# What a file may require: the others are refused by name. Those that say nothing of shape and colour are passed over.
IMPLEMENTED = frozenset(
    {
        "EXT_mesh_gpu_instancing",
        "EXT_texture_webp",
        "KHR_draco_mesh_compression",
        "KHR_lights_punctual",
        "KHR_materials_emissive_strength",
        "KHR_materials_pbrSpecularGlossiness",
        "KHR_materials_unlit",
        "KHR_mesh_quantization",
        "KHR_node_visibility",
        "KHR_texture_transform",
        "KHR_xmp_json_ld",
    }
)
_TYPES = {5120: "i1", 5121: "u1", 5122: "<i2", 5123: "<u2", 5125: "<u4", 5126: "<f4"}
_WIDTHS = {"SCALAR": 1, "VEC2": 2, "VEC3": 3, "VEC4": 4, "MAT4": 16}
_MOST_MADE_UP = 2**24  # rows of an accessor without data of its own
_CHUNK_JSON, _CHUNK_BINARY = 0x4E4F534A, 0x004E4942
MESHOPT = ("EXT_meshopt_compression", "KHR_meshopt_compression")


class Container:
    """A glTF file: its JSON, checked as it is looked at, and its binary data.

    Args:
        path: a ``.glb`` or ``.gltf`` file.
        allow_outside: read buffers and images outside of the file's folder too.

    Raises:
        ValueError: not glTF 2, or a required extension that is not implemented. Other faults of a file are whatever
            Python raises: use this within `geodiff.guard.reading`.
    """

    def __init__(self, path: pathlib.Path, allow_outside: bool = False) -> None:
        self.path, self.allow_outside = path, allow_outside
        data = path.read_bytes()
        self._binary: bytes | None = None
        if data[:4] == b"glTF":
            data = self._chunks(data)
        self.tree: dict[str, Any] = json.loads(data.decode("utf-8-sig"))
        if not isinstance(self.tree, dict) or not isinstance(self.tree.get("asset"), dict):
            raise ValueError("no JSON object with an asset")
        version = str(self.tree["asset"].get("version"))
        if not version.startswith("2."):
            raise fail("Mesh.load", "path", "glTF of version 2", f"{path} of version {version}", "Convert it to 2.0.")
        required = self.tree.get("extensionsRequired", [])
        unknown = sorted(set(required) - IMPLEMENTED)
        if unknown:
            fix = "Save it without: gltf-transform and Blender can."
            text = f"{path}, which requires {', '.join(unknown)}"
            raise fail("Mesh.load", "path", "a glTF file without extensions that are not read here", text, fix)
        self._buffers: dict[int, bytes] = {}

    def _chunks(self, data: bytes) -> bytes:
        version, length = struct.unpack_from("<II", data, 4)
        if version != 2:
            raise fail("Mesh.load", "path", "glTF of version 2", f"{self.path} of version {version}", "Convert it.")
        if length > len(data):
            raise ValueError(f"cut short: {len(data)} bytes of {length}")
        text, offset = None, 12
        while offset + 8 <= length:
            size, kind = struct.unpack_from("<II", data, offset)
            chunk = data[offset + 8 : offset + 8 + size]
            if len(chunk) < size:
                raise ValueError("a chunk that is longer than the file")
            if kind == _CHUNK_JSON and text is None:
                text = chunk
            elif kind == _CHUNK_BINARY and self._binary is None:
                self._binary = chunk
            offset += 8 + size
        if text is None:
            raise ValueError("no JSON chunk")
        return text

    def at(self, table: str, index: Any) -> dict[str, Any]:
        """Return an entry of one of the tables."""
        rows = self.tree.get(table, [])
        if not isinstance(index, int) or isinstance(index, bool) or not 0 <= index < len(rows):
            raise ValueError(f"{table}[{index!r}] is not there")
        if not isinstance(rows[index], dict):
            raise ValueError(f"{table}[{index}] is no object")
        return rows[index]

    def external(self, uri: str) -> bytes | pathlib.Path | None:
        """Return the bytes of a data URI, or the path of a file in the folder; None if that is outside."""
        if uri.startswith("data:"):
            try:
                head, text = uri.split(",", 1)
                return base64.b64decode(text, validate=False) if head.endswith(";base64") else text.encode()
            except (ValueError, binascii.Error) as error:
                raise ValueError(f"a data URI that cannot be read ({error})") from error
        return inside(self.path.parent, urllib.parse.unquote(uri), self.allow_outside)

    def buffer(self, index: Any) -> bytes:
        """Return all of a buffer."""
        if index not in self._buffers:
            entry = self.at("buffers", index)
            uri = entry.get("uri")
            if uri is None and (index != 0 or self._binary is None):
                raise ValueError(f"no data for buffer {index}")
            found: Any = self._binary if uri is None else self.external(uri)
            if found is None:
                text = f"{self.path}, which names {str(uri)[:200]!r}"
                fix = "Pass allow_outside=True to read it."
                raise fail("Mesh.load", "path", "a file whose data lies in its folder", text, fix)
            if isinstance(found, pathlib.Path):
                if not os.path.isfile(found):
                    text = f"{self.path}, which names {found.name}"
                    raise fail("Mesh.load", "path", "a file whose data is there", text, error=FileNotFoundError)
                found = found.read_bytes()
            if len(found) < entry["byteLength"]:
                raise ValueError(f"buffer {index} is cut short: {len(found)} bytes of {entry['byteLength']}")
            self._buffers[index] = found
        return self._buffers[index]

    def view(self, index: Any) -> memoryview:
        """Return the bytes of a buffer view."""
        entry = self.at("bufferViews", index)
        for name in MESHOPT:
            if name not in entry.get("extensions", {}):
                continue
            spare = self.at("buffers", entry["buffer"])  # of unpacked data, which may be left out
            if "uri" not in spare and spare.get("extensions", {}).get(name, {}).get("fallback"):
                text = f"{self.path}, packed with {name} alone"
                fix = "Unpack it: gltfpack and gltf-transform can."
                raise fail("Mesh.load", "path", "a glTF file without extensions that are not read here", text, fix)
        data = self.buffer(entry["buffer"])
        start, length = entry.get("byteOffset", 0), entry["byteLength"]
        if not (0 <= start and 0 < length and start + length <= len(data)):
            raise ValueError(f"bufferViews[{index}] reaches beyond its buffer")
        return memoryview(data)[start : start + length]

    def accessor(self, index: Any) -> np.ndarray:
        """Return the rows (n, C) of an accessor: integers as they are, or where normalised as float64 in [−1, 1]."""
        entry = self.at("accessors", index)
        dtype, width = np.dtype(_TYPES[entry["componentType"]]), _WIDTHS[entry["type"]]
        count = entry["count"]
        if not isinstance(count, int) or count < 0:
            raise ValueError(f"accessors[{index}] of {count!r} rows")
        if "bufferView" in entry:
            view = self.at("bufferViews", entry["bufferView"])
            rows = self._rows(entry["bufferView"], entry.get("byteOffset", 0), count, dtype, width, view)
        else:
            if count > _MOST_MADE_UP:
                raise ValueError(f"accessors[{index}] of {count} rows without data")
            rows = np.zeros((count, width), dtype)
        if "sparse" in entry:
            sparse = entry["sparse"]
            few = sparse["count"]
            if not isinstance(few, int) or not 0 < few <= count:
                raise ValueError(f"accessors[{index}] has {few!r} sparse rows of {count}")
            where, what = sparse["indices"], sparse["values"]
            indices = self._rows(
                where["bufferView"], where.get("byteOffset", 0), few, np.dtype(_TYPES[where["componentType"]]), 1
            )[:, 0]
            if indices.dtype.kind != "u" or indices.max() >= count:
                raise ValueError(f"accessors[{index}] has sparse rows beyond its {count}")
            rows = rows.copy()
            rows[indices] = self._rows(what["bufferView"], what.get("byteOffset", 0), few, dtype, width)
        return normalised(rows) if entry.get("normalized") else rows

    def _rows(
        self, view: Any, offset: Any, count: int, dtype: np.dtype, width: int, entry: dict[str, Any] | None = None
    ) -> np.ndarray:
        data = self.view(view)
        size = dtype.itemsize * width
        stride = (entry or {}).get("byteStride", size)
        if not isinstance(offset, int) or not isinstance(stride, int) or offset < 0 or stride < size:
            raise ValueError(f"bufferViews[{view}] with offset {offset!r} and stride {stride!r}")
        if count and offset + (count - 1) * stride + size > len(data):
            raise ValueError(f"bufferViews[{view}] of {len(data)} bytes is too short for {count} rows")
        if count == 0:
            return np.zeros((0, width), dtype)
        return np.ndarray((count, width), dtype, data, offset, (stride, dtype.itemsize))


def normalised(rows: np.ndarray) -> np.ndarray:
    """Return what normalised integers stand for: c / max, signed ones not below −1; floats as they are."""
    if rows.dtype.kind == "f":
        return rows
    return np.maximum(rows / float(np.iinfo(rows.dtype).max), -1.0)
