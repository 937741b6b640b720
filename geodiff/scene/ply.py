# SPDX-License-Identifier: Apache-2.0
"""PLY (Turk, "The PLY polygon file format", 1994): ASCII and both binary forms, polygons, strips and fans."""

import pathlib
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import torch

from geodiff.guard import believed, inside
from geodiff.scene.images import read_image
from geodiff.scene.looks import Look, Picture, dressed, warn_lost
from geodiff.scene.mesh import Mesh
from geodiff.scene.polygons import triangulate
from geodiff.validation import fail

_TYPES = {
    **dict.fromkeys(("char", "int8"), "i1"),
    **dict.fromkeys(("uchar", "uint8"), "u1"),
    **dict.fromkeys(("short", "int16"), "i2"),
    **dict.fromkeys(("ushort", "uint16"), "u2"),
    **dict.fromkeys(("int", "int32"), "i4"),
    **dict.fromkeys(("uint", "uint32"), "u4"),
    **dict.fromkeys(("float", "float32"), "f4"),
    **dict.fromkeys(("double", "float64"), "f8"),
}
_ORDERS = {"binary_little_endian": "<", "binary_big_endian": ">", "ascii": ""}
_UV = (("s", "t"), ("u", "v"), ("texture_u", "texture_v"))


@dataclass
class _List:
    """A property that is a list: its values, row after row, and how many each row has."""

    flat: np.ndarray
    sizes: np.ndarray


@dataclass
class _Element:
    """A table of the file: properties by name with the dtype of their values, and of their counts where lists."""

    name: str
    count: int
    properties: dict[str, tuple[str, str | None]] = field(default_factory=dict)


def load_ply(path: pathlib.Path, dtype: torch.dtype, allow_outside: bool = False) -> Mesh:
    """Read positions, colours and texture coordinates of vertices, polygons, strips and fans, and colours of faces.

    Texture coordinates and pictures (``comment TextureFile``) as MeshLab writes them, for corners, are read too.

    Args:
        path: the file.
        dtype: of the result.
        allow_outside: read pictures outside of the file's folder.

    Raises:
        ValueError: not PLY, cut short or damaged, or without faces.
    """
    tables, comments = read_tables(path, "Mesh.load")
    vertex = tables.get("vertex", {})
    if not {"x", "y", "z"} <= set(vertex):
        raise ValueError("no vertices with x, y and z")
    points = np.stack([np.asarray(vertex[axis], dtype=np.float64) for axis in "xyz"], axis=1)
    flat, sizes, joins = _polygons(tables)
    if len(sizes) == 0:
        text = f"{path} without any"
        raise fail("Mesh.load", "path", "a PLY file with faces", text, "It is damaged, or a point cloud.")
    if len(flat) and not 0 <= int(flat.min()) <= int(flat.max()) < len(points):
        raise ValueError(f"faces that name vertices beyond the {len(points)} it has")
    corners, owner = triangulate(points, flat, sizes, f"Mesh.load: {path}")
    faces = flat[corners]
    face = tables.get("face", {})
    colors, face_colors = _colors(vertex), _colors(face)
    if face_colors is not None:
        rows = np.ones((len(sizes), face_colors.shape[1]))  # strips have no colours of their own
        rows[: len(face_colors)] = face_colors
        face_colors = rows[owner]
    attributes = _looks(path, vertex, face, comments, corners, owner, faces, joins, allow_outside)
    if attributes.get("face_colors") is None:
        attributes["face_colors"] = face_colors
    tensors = {k: torch.from_numpy(np.ascontiguousarray(v)) for k, v in attributes.items() if isinstance(v, np.ndarray)}
    floats = {name: value.to(dtype) for name, value in tensors.items() if name != "uv_faces"}
    return Mesh(
        torch.from_numpy(points).to(dtype),
        faces,
        vertex_colors=None if colors is None else torch.from_numpy(colors).to(dtype),
        **{**attributes, **tensors, **floats},
    )


def read_tables(path: pathlib.Path, where: str) -> tuple[dict[str, dict[str, Any]], list[str]]:
    """Return the tables of a PLY file, of arrays by property by element, lists as `flat` and `sizes`; its comments.

    Raises:
        ValueError: cut short or damaged. Other faults are whatever Python raises: use `geodiff.guard.reading`.
    """
    order, elements, comments, body = _heading(path, path.read_bytes(), where)
    return (_Text if order == "" else _Binary)(path, body, order, where).tables(elements), comments


def _heading(path: pathlib.Path, data: bytes, where: str) -> tuple[str, list[_Element], list[str], bytes]:
    """Return byte order, tables, comments, and what follows the heading."""
    start = data[:4].lstrip(b"\r\n\xef\xbb\xbf")
    end = data.find(b"end_header")
    if not (data.lstrip(b"\r\n\xef\xbb\xbf")[:3] == b"ply" and start[:1] == b"p") or end < 0:
        raise ValueError("no PLY heading")
    close = data.find(b"\n", end)
    if close < 0:
        close = len(data)
    if data[end + 10 : end + 11] == b"\r" and data[end + 11 : end + 12] != b"\n":  # lines of old Macs
        close = end + 10
    order, elements, comments = None, [], []
    for line in data[:end].decode("utf-8", errors="replace").replace("\r", "\n").split("\n"):
        words = line.split()
        if words[:1] == ["format"] and len(words) > 1:
            order = _ORDERS.get(words[1])
        elif words[:1] == ["element"]:
            elements.append(_Element(words[1], int(words[2])))
        elif words[:2] == ["property", "list"]:
            if np.dtype(_TYPES[words[2]]).kind == "f":
                raise ValueError(f"lists counted by {words[2]}")
            elements[-1].properties[words[4]] = (_TYPES[words[3]], _TYPES[words[2]])
        elif words[:1] == ["property"]:
            elements[-1].properties[words[2]] = (_TYPES[words[1]], None)
        elif words[:1] == ["comment"]:
            comments.append(line.split("comment", 1)[1].strip())
    if order is None:
        raise ValueError("no format that is ascii, binary_little_endian or binary_big_endian")
    for element in elements:
        least = sum(np.dtype(count or value).itemsize if order else 2 for value, count in element.properties.values())
        believed(where, path, element.count, least, element.name)
    return order, elements, comments, data[close + 1 :]


class _Binary:
    """Reads the tables of a binary file one after the other."""

    def __init__(self, path: pathlib.Path, body: bytes, order: str, where: str) -> None:
        self.path, self.body, self.order, self.where, self.offset = path, body, order, where, 0

    def tables(self, elements: list[_Element]) -> dict[str, dict[str, Any]]:
        return {element.name: self._table(element) for element in elements}

    def _table(self, element: _Element) -> dict[str, Any]:
        if any(count for _, count in element.properties.values()):
            return self._with_lists(element)
        row = np.dtype([(name, self.order + value) for name, (value, _) in element.properties.items()])
        if self.offset + element.count * row.itemsize > len(self.body):
            raise self._short(element, (len(self.body) - self.offset) // max(row.itemsize, 1))
        rows = np.frombuffer(self.body, row, element.count, self.offset)
        self.offset += element.count * row.itemsize
        return {name: rows[name] for name in element.properties}

    def _short(self, element: _Element, rows: int) -> Exception:
        text = f"{self.path} with {rows} of {element.count} rows of {element.name}"
        return fail(self.where, "path", "a whole PLY file", text, "It is cut short, or damaged.")

    def _with_lists(self, element: _Element) -> dict[str, Any]:
        same = self._all_alike(element)
        if same is not None:
            return same
        columns: dict[str, tuple[list[int], list[int]]] = {name: ([], []) for name in element.properties}
        plan = [
            (*columns[name], np.dtype(value).itemsize, np.dtype(self.order + count) if count else None)
            for name, (value, count) in element.properties.items()
        ]
        body, end = self.body, len(self.body)
        word: Literal["little", "big"] = "little" if self.order == "<" else "big"
        offset = self.offset
        for i in range(element.count):
            for offsets, sizes, size, head in plan:
                n = 1
                if head is not None:
                    n = int.from_bytes(body[offset : offset + head.itemsize], word, signed=head.kind == "i")
                    offset += head.itemsize
                offsets.append(offset)
                sizes.append(n)
                offset += n * size
                if n < 0 or offset > end:
                    raise self._short(element, i)
        self.offset = offset
        raw = np.frombuffer(body, np.uint8)
        result: dict[str, Any] = {}
        for name, (value, count) in element.properties.items():
            dtype = np.dtype(self.order + value)
            starts, each = np.array(columns[name][0], np.int64), np.array(columns[name][1], np.int64)
            within = np.arange(each.sum()) - np.repeat(np.cumsum(each) - each, each)
            at = np.repeat(starts, each) + within * dtype.itemsize
            flat = raw[at[:, None] + np.arange(dtype.itemsize)].reshape(-1).view(dtype)
            result[name] = _List(flat, each) if count else flat
        return result

    def _all_alike(self, element: _Element) -> dict[str, Any] | None:
        """Read a table whose lists are all as long as those of its first row; None if they are not."""
        fields, offset = [], self.offset
        for name, (value, count) in element.properties.items():
            if count:
                kind = np.dtype(self.order + count)
                if kind.kind == "f" or offset + kind.itemsize > len(self.body):
                    return None
                n = int(np.frombuffer(self.body, kind, 1, offset)[0])
                offset += kind.itemsize
                if not 0 < n <= len(self.body):
                    return None
                fields += [(f"#{name}", kind), (name, self.order + value, (n,))]
                offset += n * np.dtype(value).itemsize
            else:
                fields.append((name, self.order + value))
                offset += np.dtype(value).itemsize
        row = np.dtype(fields)
        if element.count == 0 or self.offset + element.count * row.itemsize > len(self.body):
            return None
        rows = np.frombuffer(self.body, row, element.count, self.offset)
        lists = [name for name, (_, count) in element.properties.items() if count]
        if not all((rows[f"#{name}"] == rows[name].shape[1]).all() for name in lists):
            return None
        self.offset += element.count * row.itemsize
        sizes = {name: np.full(element.count, rows[name].shape[1], np.int64) for name in lists}
        return {
            name: _List(rows[name].reshape(-1), sizes[name]) if name in sizes else rows[name]
            for name in element.properties
        }


class _Text:
    """Reads the tables of an ASCII file: row after row where each is a line, else word after word."""

    def __init__(self, path: pathlib.Path, body: bytes, order: str, where: str) -> None:
        self.path, self.where, self.offset = path, where, 0
        self.lines = [line for line in body.splitlines() if line.strip()]
        self.words: list[bytes] = []

    def tables(self, elements: list[_Element]) -> dict[str, dict[str, Any]]:
        if len(self.lines) == sum(element.count for element in elements):
            return {element.name: self._by_line(element) for element in elements}
        self.words = b" ".join(self.lines).split()
        return {element.name: self._table(element) for element in elements}

    def _by_line(self, element: _Element) -> dict[str, Any]:
        """Read the next lines; what is in one after the properties of its row is passed over."""
        rows = [line.split() for line in self.lines[self.offset : self.offset + element.count]]
        self.offset += element.count
        alike = self._all_alike(element, rows)
        if alike is not None:
            return alike
        if any(count for _, count in element.properties.values()):
            self.words = []
            for row in rows:
                end = 0
                for _, count in element.properties.values():
                    end += 1 + (int(row[end]) if count and end < len(row) else 0)
                if end > len(row):
                    raise ValueError(f"a row of {element.name} of {len(row)} words")
                self.words += row[:end]
        else:
            self.words = [word for row in rows for word in row[: len(element.properties)]]
        before, self.offset = self.offset, 0
        table = self._table(element)
        self.offset = before
        return table

    @staticmethod
    def _all_alike(element: _Element, rows: list[list[bytes]]) -> dict[str, Any] | None:
        """Read rows of as many words each, whose lists are as long as those of the first; None if they are not."""
        width = len(rows[0]) if rows else 0
        if not rows or any(len(row) != width for row in rows):
            return None
        table = np.array(rows, dtype=np.float64)
        result: dict[str, Any] = {}
        offset = 0
        for name, (value, count) in element.properties.items():
            if offset >= width:
                return None
            if not count:
                result[name] = _as(table[:, offset], value)
                offset += 1
                continue
            n = table[0, offset]
            if not (0 < n < width and n == int(n) and (table[:, offset] == n).all() and offset + n < width):
                return None
            flat = table[:, offset + 1 : offset + 1 + int(n)].reshape(-1)
            result[name] = _List(_as(flat, value), np.full(len(rows), int(n), np.int64))
            offset += 1 + int(n)
        return result

    def _table(self, element: _Element) -> dict[str, Any]:
        names = list(element.properties)
        if not any(count for _, count in element.properties.values()):
            words = self._take(element, element.count * len(names))
            table = np.array(words, dtype=np.float64).reshape(-1, max(len(names), 1))
            return {name: _as(table[:, i], element.properties[name][0]) for i, name in enumerate(names)}
        values: dict[str, list[bytes]] = {name: [] for name in names}
        sizes: dict[str, list[int]] = {name: [] for name in names}
        for _ in range(element.count):
            for name, (_, count) in element.properties.items():
                n = int(self._take(element, 1)[0]) if count else 1
                if n < 0:
                    raise ValueError(f"a list of {n} in {element.name}")
                values[name] += self._take(element, n)
                sizes[name].append(n)
        result: dict[str, Any] = {}
        for name, (value, count) in element.properties.items():
            flat = _as(np.array(values[name], dtype=np.float64), value)
            result[name] = _List(flat, np.array(sizes[name], dtype=np.int64)) if count else flat
        return result

    def _take(self, element: _Element, count: int) -> list[bytes]:
        words = self.words[self.offset : self.offset + count]
        if len(words) < count:
            text = f"{self.path}, which ends in its {element.count} rows of {element.name}"
            raise fail(self.where, "path", "a whole PLY file", text, "It is cut short, or damaged.")
        self.offset += count
        return words


def _as(values: np.ndarray, kind: str) -> np.ndarray:
    """Return numbers of a text with the dtype that the heading says, if they are such."""
    dtype = np.dtype(kind)
    if dtype.kind == "f":
        return values
    bounds = np.iinfo(dtype)
    if not np.isfinite(values).all() or (values != np.rint(values)).any():
        return values  # whole numbers they should be: colours as fractions are found in files
    if len(values) and not bounds.min <= values.min() <= values.max() <= bounds.max:
        return values.astype(np.int64) if (np.abs(values) < 2.0**62).all() else values
    return values.astype(dtype)


def _polygons(tables: dict[str, dict[str, Any]]) -> tuple[np.ndarray, np.ndarray, int]:
    """Return the corners of all polygons, how many each has, and how many polygons are no strips or fans."""
    flats, sizes = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
    plain = 0
    for name, table in tables.items():
        kind = "strip" if "strip" in name.lower() else "fan" if "fan" in name.lower() else name
        if kind not in ("face", "strip", "fan"):
            continue
        corners = _corner_list(table)
        if corners is None:
            continue
        flat, count = _indices(corners.flat), corners.sizes
        if kind != "face":
            flat = _unrolled(flat, count, kind)
            count = np.full(len(flat) // 3, 3)
        else:
            plain = len(count)
        # Those that have colours and coordinates of their own come first.
        offset = 0 if kind == "face" else len(flats)
        flats.insert(offset, flat)
        sizes.insert(offset, count)
    return np.concatenate(flats), np.concatenate(sizes), plain


def _corner_list(table: dict[str, Any]) -> _List | None:
    """Return the list of the corners of each face: of the usual name, else the first of whole numbers."""
    for name in ("vertex_indices", "vertex_index"):
        if isinstance(table.get(name), _List):
            return table[name]
    return next((x for x in table.values() if isinstance(x, _List) and x.flat.dtype.kind in "ui"), None)


def _indices(values: np.ndarray) -> np.ndarray:
    if values.dtype.kind == "f" and not (np.isfinite(values).all() and (values == np.rint(values)).all()):
        raise ValueError("indices that are no whole numbers")
    # −1, which ends a strip, may be written as an unsigned number.
    signed = values.view(values.dtype.str.replace("u4", "i4")) if values.dtype.str.endswith("u4") else values
    return signed.astype(np.int64)


def _unrolled(flat: np.ndarray, sizes: np.ndarray, kind: str) -> np.ndarray:
    """Return the corners of the triangles of strips or fans, which end with a row or at −1."""
    result = [np.zeros(0, np.int64)]
    for row in np.split(flat, np.cumsum(sizes)[:-1]):
        for part in np.split(row, np.flatnonzero(row < 0)):
            part = part[part >= 0]
            i = np.arange(max(len(part) - 2, 0))
            if kind == "strip":
                faces = part[np.stack((i, i + 1 + i % 2, i + 2 - i % 2), axis=1)] if len(i) else np.zeros((0, 3), int)
                # Corners that come twice only join strips.
                keep = (faces[:, 0] != faces[:, 1]) & (faces[:, 1] != faces[:, 2]) & (faces[:, 2] != faces[:, 0])
                result.append(faces[keep].reshape(-1))
            elif len(i):
                result.append(part[np.stack((0 * i, i + 1, i + 2), axis=1)].reshape(-1))
    return np.concatenate(result)


def _colors(table: dict[str, Any]) -> np.ndarray | None:
    """Return (n, 3) or, where not all is opaque, (n, 4) colours in [0, 1]."""
    for prefix in ("", "diffuse_"):
        names = [f"{prefix}{name}" for name in ("red", "green", "blue")]
        if all(isinstance(table.get(name), np.ndarray) for name in names):
            names += [name for name in (f"{prefix}alpha", "alpha") if isinstance(table.get(name), np.ndarray)][:1]
            columns = [_fraction(table[name]) for name in names]
            if len(columns) == 4 and (columns[3] >= 1).all():
                columns = columns[:3]
            return np.stack(columns, axis=1)
    return None


def _fraction(values: np.ndarray) -> np.ndarray:
    if values.dtype.kind in "ui" and values.dtype.itemsize < 8:
        most = 65535.0 if values.dtype.itemsize == 2 else 255.0
        return values / most
    return values / 255.0 if values.max(initial=0.0) > 1.0 else values.astype(np.float64)


def _looks(
    path: pathlib.Path,
    vertex: dict[str, Any],
    face: dict[str, Any],
    comments: list[str],
    corners: np.ndarray,
    owner: np.ndarray,
    faces: np.ndarray,
    joins: int,
    allow_outside: bool,
) -> dict[str, Any]:
    """Return texture coordinates, of corners or of vertices, and the textures on them."""
    uv = uv_faces = None
    of_corners, listed = face.get("texcoord"), _corner_list(face)
    if isinstance(of_corners, _List) and listed is not None and joins and len(of_corners.flat) >= 2:
        uv = np.asarray(of_corners.flat, dtype=np.float64)
        uv = uv[: len(uv) // 2 * 2].reshape(-1, 2)
        own = np.arange(corners.max() + 1)  # each corner has its own, where its face has as many as it has corners
        given = listed.sizes
        begin = np.cumsum(of_corners.sizes // 2) - of_corners.sizes // 2
        fits = of_corners.sizes == 2 * given
        first = np.cumsum(given) - given
        uv_faces = np.full(corners.shape, -1)
        known = owner < joins
        known[known] &= fits[owner[known]]
        uv_faces[known] = own[corners[known]] - first[owner[known]][:, None] + begin[owner[known]][:, None]
    else:
        for names in _UV:
            if all(isinstance(vertex.get(name), np.ndarray) for name in names):
                uv = np.stack([np.asarray(vertex[name], dtype=np.float64) for name in names], axis=1)
                uv_faces = faces
                break
    if uv is None or uv_faces is None:
        return {}
    pictures = [_picture(path, c[11:].strip(), allow_outside) for c in comments if c.lower().startswith("texturefile")]
    looks = [Look(picture=picture) for picture in pictures] or [Look()]
    of_face = np.zeros(len(faces), np.int64)
    number = face.get("texnumber")
    if isinstance(number, np.ndarray) and len(looks) > 1:
        of_face[owner < joins] = np.asarray(number)[owner[owner < joins]].astype(np.int64).clip(0, len(looks) - 1)
    dress = dressed(looks, of_face, uv, uv_faces)
    warn_lost(path, dress.lost)
    own_faces = None if dress.uv_faces is None or np.array_equal(dress.uv_faces, faces) else dress.uv_faces
    return {"uv": dress.uv, "uv_faces": own_faces, "texture": dress.texture}


def _picture(path: pathlib.Path, name: str, allow_outside: bool) -> Picture | None:
    found = inside(path.parent, name, allow_outside)
    if found is None or not found.is_file():
        reason = "outside of its folder: pass allow_outside=True" if found is None else "which is not there"
        warn_lost(path, [f"the image {name[:200]!r} ({reason})"])
        return None
    return Picture(read_image(found, "Mesh.load"))


def write_mesh_ply(mesh: Mesh, path: pathlib.Path) -> None:
    """Write vertices and faces as binary PLY: positions in float32, indices in int32."""
    vertices = mesh.vertices.detach().cpu().numpy().astype("<f4")
    faces = np.empty(mesh.num_faces, dtype=[("count", "u1"), ("index", "<i4", (3,))])
    faces["count"], faces["index"] = 3, mesh.faces.cpu().numpy()
    heading = ["ply", "format binary_little_endian 1.0", f"element vertex {len(vertices)}"]
    heading += [f"property float {axis}" for axis in "xyz"]
    heading += [f"element face {len(faces)}", "property list uchar int vertex_indices", "end_header\n"]
    path.write_bytes("\n".join(heading).encode() + vertices.tobytes() + faces.tobytes())
