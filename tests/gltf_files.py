# SPDX-License-Identifier: Apache-2.0
"""Small glTF files made by script, for tests."""

import base64
import json
import pathlib
import struct
from typing import Any

import numpy as np

_COMPONENTS = {"int8": 5120, "uint8": 5121, "int16": 5122, "uint16": 5123, "uint32": 5125, "float32": 5126}
_TYPES = {1: "SCALAR", 2: "VEC2", 3: "VEC3", 4: "VEC4", 16: "MAT4"}


class File:
    """A glTF file while it is made: `data` is its one buffer, `tree` its JSON."""

    def __init__(self) -> None:
        self.data = bytearray()
        self.tree: dict[str, Any] = {"asset": {"version": "2.0"}, "accessors": [], "bufferViews": [], "meshes": []}
        self.tree |= {"nodes": [], "materials": [], "textures": [], "images": [], "samplers": []}

    def view(self, data: bytes, **more: Any) -> int:
        self.data += bytes(-len(self.data) % 4)
        self.tree["bufferViews"].append({"buffer": 0, "byteOffset": len(self.data), "byteLength": len(data), **more})
        self.data += data
        return len(self.tree["bufferViews"]) - 1

    def accessor(self, rows: Any, dtype: str = "float32", *, stride: int = 0, **more: Any) -> int:
        array = np.asarray(rows, dtype=dtype)
        table = array.reshape(len(array), -1)
        data = table.tobytes()
        if stride:
            data = b"".join(row.tobytes() + b"\xaa" * (stride - row.nbytes) for row in table)
        entry = {"componentType": _COMPONENTS[dtype], "count": len(table), "type": _TYPES[table.shape[1]]}
        entry["bufferView"] = self.view(data, **({"byteStride": stride} if stride else {}))
        self.tree["accessors"].append({**entry, **more})
        return len(self.tree["accessors"]) - 1

    def add(self, table: str, **entry: Any) -> int:
        self.tree[table].append(entry)
        return len(self.tree[table]) - 1

    def image(self, pixels: Any) -> int:
        import io

        from PIL import Image

        file = io.BytesIO()
        Image.fromarray(np.asarray(pixels, dtype=np.uint8)).save(file, format="PNG")
        return self.add("images", bufferView=self.view(file.getvalue()), mimeType="image/png")

    def triangle(self, **more: Any) -> dict[str, Any]:
        """Return a primitive: the triangle (0, 0, 0), (1, 0, 0), (0, 1, 0)."""
        attributes = {"POSITION": self.accessor([[0, 0, 0], [1, 0, 0], [0, 1, 0]]), **more.pop("attributes", {})}
        return {"attributes": attributes, **more}

    def square(self, **more: Any) -> dict[str, Any]:
        """Return a primitive: the square [0, 1]² at z = 0 with texture coordinates, (0, 0) the upper left corner."""
        corners = [[0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0]]
        attributes = {"POSITION": self.accessor(corners)}
        attributes["TEXCOORD_0"] = self.accessor([[0, 1], [1, 1], [1, 0], [0, 0]])
        attributes |= more.pop("attributes", {})
        return {"attributes": attributes, "indices": self.accessor([0, 1, 2, 0, 2, 3], "uint16"), **more}

    def shown(self, *primitives: dict[str, Any], **node: Any) -> int:
        """Add a mesh of primitives and a node that shows it."""
        return self.add("nodes", mesh=self.add("meshes", primitives=list(primitives)), **node)

    def _whole(self) -> dict[str, Any]:
        return {name: value for name, value in self.tree.items() if value not in ([], None)}

    def write(self, path: pathlib.Path, external: bool = False) -> pathlib.Path:
        """Write ``.glb``, or ``.gltf`` with its buffer inside or beside it."""
        tree = self._whole()
        self.data += bytes(-len(self.data) % 4)
        buffer: dict[str, Any] = {"byteLength": len(self.data)}
        if path.suffix == ".glb":
            tree["buffers"] = [buffer, *tree.get("buffers", [])]
            text = json.dumps(tree).encode()
            text += b" " * (-len(text) % 4)
            chunks = struct.pack("<II", len(text), 0x4E4F534A) + text
            chunks += struct.pack("<II", len(self.data), 0x004E4942) + bytes(self.data)
            path.write_bytes(b"glTF" + struct.pack("<II", 2, 12 + len(chunks)) + chunks)
            return path
        if external:
            buffer["uri"] = f"{path.stem}%20data.bin"
            (path.parent / f"{path.stem} data.bin").write_bytes(self.data)
        else:
            buffer["uri"] = "data:application/octet-stream;base64," + base64.b64encode(self.data).decode()
        tree["buffers"] = [buffer, *tree.get("buffers", [])]
        path.write_text(json.dumps(tree))
        return path
