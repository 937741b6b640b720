# SPDX-License-Identifier: Apache-2.0
"""Wavefront OBJ, read and written here because it alone has separate indices for positions and texture coordinates.

Readers that make one vertex of each (position, texture coordinate, normal) tear a mesh apart at its seams and reorder
it; this one keeps the vertices and the faces of the file, in its order.
"""

import contextlib
import math
import os
import pathlib
import warnings

import numpy as np
import torch

from geodiff.guard import inside
from geodiff.scene.images import read_image, write_image
from geodiff.scene.looks import Look, Picture, dressed, warn_lost
from geodiff.scene.material import Material
from geodiff.scene.mesh import Mesh
from geodiff.scene.polygons import triangulate
from geodiff.validation import fail

# The first line of our MTL files, in which Ka is what it says.
_OURS = "# geodiff: ambient, diffuse and specular are Ka, Kd and Ks"
# Options of map_Kd and how many words follow them at most.
_OPTIONS = {
    **dict.fromkeys(("blendu", "blendv", "cc", "clamp", "imfchan", "texres", "type", "boost", "bm"), 1),
    "mm": 2,
    **dict.fromkeys(("o", "s", "t"), 3),
}


def load_obj(path: pathlib.Path, dtype: torch.dtype = torch.float32, allow_outside: bool = False) -> Mesh:
    """Read an OBJ file: positions, colours after positions, polygons, texture coordinates, and materials.

    Groups, normals, smoothing, lines and points are passed over. Polygons are cut into triangles. Of materials the
    pictures (``map_Kd``) and the numbers (``Ka``, ``Kd``, ``Ks``, ``Ns``) are read; of several, pictures are laid side
    by side in one texture, and colours become those of the faces. ``Ka 1 1 1``, which programs write whatever the
    colour, counts as ``Kd``, as does none.

    Args:
        path: the file.
        dtype: of the result.
        allow_outside: read materials and pictures outside of the file's folder too.

    Raises:
        ValueError: not an OBJ file, no faces, or faces that name vertices that are not there.
    """
    text = _decoded(path.read_bytes()).replace("\\\n", " ").replace("\\\r\n", " ")
    lines = [line.strip() for line in text.splitlines()]
    kind = np.array([line.split(maxsplit=1)[0] if line else "" for line in lines], dtype=object)
    positions = _numbers(path, lines, np.flatnonzero(kind == "v"), 3)
    uv = _numbers(path, lines, np.flatnonzero(kind == "vt"), 1)
    face_lines = np.flatnonzero(kind == "f")
    if len(face_lines) == 0 or len(positions) == 0:
        raise fail(
            "Mesh.load",
            "path",
            "an OBJ file with vertices and faces",
            f"{path} with {len(positions)} vertices and {len(face_lines)} faces",
        )
    rows = [lines[i].split("#", 1)[0].split()[1:] for i in face_lines]
    sizes = np.array([len(row) for row in rows])
    if sizes.max() < 3:
        raise fail(
            "Mesh.load", "path", "made of polygons of three or more corners", _place(path, face_lines, sizes < 3)
        )
    corners = _corners(path, [token for row in rows for token in row])
    line_of_corner = np.repeat(face_lines, sizes)
    indices = _absolute(path, corners[:, 0], kind == "v", len(positions), line_of_corner, "vertices")
    corner_uv = None
    if len(uv) and (corners[:, 1] != 0).any():
        missing = corners[:, 1] == 0
        given = np.where(missing, 1, corners[:, 1])
        corner_uv = _absolute(path, given, kind == "vt", len(uv), line_of_corner, "texture coordinates")
        corner_uv[missing] = -1
        uv = np.concatenate((uv, np.zeros((len(uv), 1))), axis=1)[:, :2]
    cut, owner = triangulate(positions[:, :3], indices, sizes, f"Mesh.load: {path}", stacklevel=5)
    faces = indices[cut]
    lost: list[str] = []
    looks, of_polygon = _looks(path, lines, kind, face_lines, allow_outside, lost)
    dress = dressed(looks, of_polygon[owner], uv if corner_uv is not None else None, _at(corner_uv, cut))
    warn_lost(path, lost + dress.lost, stacklevel=5)
    uv_faces = dress.uv_faces
    if uv_faces is not None and dress.uv is not None and len(dress.uv) == len(positions):
        uv_faces = None if np.array_equal(uv_faces, faces) else uv_faces
    colors = positions[:, 3:] if positions.shape[1] >= 6 else None
    if colors is not None:
        colors = colors[:, :4] / 255.0 if colors[:, :3].max(initial=0.0) > 1.0 else colors[:, :4]
        if colors.shape[1] < 4 or (colors[:, 3] == colors[0, 3]).all():  # alpha, if it says anything
            colors = colors[:, :3]
    return Mesh(
        torch.from_numpy(positions[:, :3].copy()).to(dtype),
        faces,
        vertex_colors=None if colors is None else torch.from_numpy(colors.copy()).to(dtype),
        uv=None if dress.uv is None else torch.from_numpy(dress.uv).to(dtype),
        uv_faces=uv_faces,
        face_colors=None if dress.face_colors is None else torch.from_numpy(dress.face_colors).to(dtype),
        texture=None if dress.texture is None else dress.texture.map(lambda image: image.to(dtype)),
        material=dress.material,
    )


def _decoded(data: bytes) -> str:
    """Return text of UTF-8, or of UTF-16 where the mark of its byte order says so, without that mark."""
    if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return data.decode("utf-16", errors="replace")
    return data.decode("utf-8-sig", errors="replace")


def _at(table: np.ndarray | None, places: np.ndarray) -> np.ndarray | None:
    return None if table is None else table[places]


def _place(path: pathlib.Path, numbers: np.ndarray, bad: np.ndarray) -> str:
    return f"{path}, line {int(numbers[np.flatnonzero(bad)[0]]) + 1}"


def _numbers(path: pathlib.Path, lines: list[str], where: np.ndarray, least: int) -> np.ndarray:
    """Return the numbers of some lines as a table as wide as all of them allow."""
    rows = [lines[i].split("#", 1)[0].split()[1:] for i in where]
    if not rows:
        return np.zeros((0, least))
    width = min(map(len, rows))
    try:
        if width < least:
            raise ValueError(f"a line of {width} numbers where {least} are needed")
        return np.array([row[:width] for row in rows], dtype=np.float64)
    except ValueError as error:
        raise fail("Mesh.load", "path", "a readable OBJ file", f"{path} ({error})") from error


def _corners(path: pathlib.Path, tokens: list[str]) -> np.ndarray:
    """Return (corners, 2) position and texture indices as in the file, 0 where there is none, of 'v', 'v/t', 'v//n'."""
    try:
        slashes = {token.count("/") for token in tokens}
        if len(slashes) == 1:
            text = " ".join(tokens).replace("//", "/0/").replace("/", " ")
            table = np.array(text.split(), dtype=np.int64).reshape(len(tokens), -1)
        else:
            parts = [(*token.split("/"), "0")[:2] for token in tokens]
            table = np.array([(v, t or "0") for v, t in parts], dtype=np.int64)
    except (ValueError, OverflowError) as error:
        raise fail("Mesh.load", "path", "a readable OBJ file", f"{path} ({error})") from error
    return table[:, :2] if table.shape[1] > 1 else np.concatenate((table, np.zeros_like(table)), axis=1)


def _absolute(
    path: pathlib.Path, index: np.ndarray, defines: np.ndarray, count: int, line: np.ndarray, what: str
) -> np.ndarray:
    """Return indices from 0: the file counts from 1, or with negative numbers back from the line where they stand."""
    before = np.cumsum(defines)
    result = np.where(index < 0, index + before[line], index - 1)
    bad = (index == 0) | (result < 0) | (result >= count)
    if bad.any():
        raise fail(
            "Mesh.load",
            "path",
            f"an OBJ file whose faces name the {count} {what} it has",
            f"index {int(index[bad][0])} in {_place(path, line, bad)}",
            "The file is cut short or damaged.",
        )
    return result


# --- materials ---


def _looks(
    path: pathlib.Path,
    lines: list[str],
    kind: np.ndarray,
    face_lines: np.ndarray,
    allow_outside: bool,
    lost: list[str],
) -> tuple[list[Look], np.ndarray]:
    """Return the materials in use, and (n,) which one each polygon has."""
    libraries = [rest for i in np.flatnonzero(kind == "mtllib") if (rest := _rest(lines[i]))]
    library: dict[str, dict[str, list[str]]] = {}
    for names in libraries:
        for found in _library_paths(path, names, allow_outside, lost):
            _read_library(found, library)
    use_lines = np.flatnonzero(kind == "usemtl")
    uses = [_rest(lines[i]) for i in use_lines]
    which = np.searchsorted(use_lines, face_lines) - 1  # the last one before each face
    if not uses and len(library) == 1:  # files that forget to say so
        uses, which = list(library), np.zeros(len(face_lines), np.int64)
    names = list(dict.fromkeys(uses[k] for k in np.unique(which[which >= 0])))
    number = {name: k for k, name in enumerate(names)}
    of_polygon = np.array([number[uses[k]] if k >= 0 else len(names) for k in which.tolist()], dtype=np.int64)
    absent = [name for name in names if name not in library]
    if absent and library:
        lost.append(f"the material{'s' if len(absent) > 1 else ''} {', '.join(absent[:5])}, of which nothing is said")
    pictures: dict[pathlib.Path | str, Picture | None] = {}
    looks = [_look(path, library.get(name, {}), pictures, allow_outside, lost) for name in names]
    return [*looks, Look()], of_polygon


def _rest(line: str) -> str:
    """Return what follows the first word, without a comment."""
    words = line.split(maxsplit=1)
    return words[1].split(" #", 1)[0].strip() if len(words) > 1 else ""


def _library_paths(path: pathlib.Path, names: str, allow_outside: bool, lost: list[str]) -> list[pathlib.Path]:
    """Return the files of a line `mtllib`: of one name with blanks in it, else of several names."""
    whole = inside(path.parent, names.strip('"'), allow_outside)
    if whole is not None and os.path.isfile(whole):
        return [whole]
    result = []
    for name in names.split() if len(names) < 10_000 else []:
        found = inside(path.parent, name, allow_outside)
        if found is None:
            lost.append(f"materials in {name[:200]} (outside of its folder: pass allow_outside=True)")
        elif not os.path.isfile(found):
            # Whether blanks part names or are part of one cannot be told.
            lost.append(f"materials in {found.name[:200]}, which is not there")
        else:
            result.append(found)
    return result


def _read_library(path: pathlib.Path, library: dict[str, dict[str, list[str]]]) -> None:
    """Add the materials of an MTL file: the words of their statements by the first."""
    entry: dict[str, list[str]] = {}
    ours = False
    for line in _decoded(path.read_bytes()).splitlines():
        words = line.split()
        if line.startswith(_OURS):
            ours = True
        elif words[:1] == ["newmtl"]:
            entry = library.setdefault(_rest(line.strip()), {"ours": ["yes"]} if ours else {})
        elif words and words[0] == "map_Kd":
            entry["map_Kd"] = [_rest(line.strip())]
        elif words:
            entry.setdefault(words[0], words[1:])


def _look(
    path: pathlib.Path,
    entry: dict[str, list[str]],
    pictures: dict[pathlib.Path | str, Picture | None],
    allow_outside: bool,
    lost: list[str],
) -> Look:
    """Return the look that statements of an MTL file describe."""
    ambient, color, specular = (_color(entry.get(word)) for word in ("Ka", "Kd", "Ks"))
    picture = None
    if entry.get("map_Kd", [""])[0]:
        picture = _picture(path, entry["map_Kd"][0], pictures, allow_outside, lost)
    opacity = (_number(entry.get("d")), 1.0 - _number(entry.get("Tr"), 0.0))
    if min(opacity) < 1:
        lost.append("transparency (d, Tr)")
    if _color(entry.get("Ke")) not in (None, (0.0, 0.0, 0.0)):
        lost.append("emitted light (Ke)")
    if ambient is None and color is None and specular is None:
        return Look(picture=picture)
    color = color or (1.0, 1.0, 1.0)
    if "ours" not in entry and ambient == (1.0, 1.0, 1.0):
        ambient = None
    if ambient is None and specular is None and color == (1.0, 1.0, 1.0):
        return Look(picture=picture)
    shininess = _number(entry.get("Ns"), 0.0)
    return Look(color, picture, ambient, specular or (0.0, 0.0, 0.0), shininess if shininess > 0 else 32.0)


def _number(words: list[str] | None, default: float = 1.0) -> float:
    with contextlib.suppress(ValueError, IndexError):
        value = float((words or [])[-1])
        return value if math.isfinite(value) else default
    return default


def _color(words: list[str] | None) -> tuple[float, ...] | None:
    """Return three numbers; None for spectral curves and other rarities."""
    with contextlib.suppress(ValueError):
        numbers = [float(word) for word in (words or [])[:3]]
        numbers = numbers * 3 if len(numbers) == 1 else numbers
        if len(numbers) == 3 and all(0 <= x < math.inf for x in numbers):
            return tuple(numbers)
    return None


def _picture(
    path: pathlib.Path,
    text: str,
    pictures: dict[pathlib.Path | str, Picture | None],
    allow_outside: bool,
    lost: list[str],
) -> Picture | None:
    """Return the picture of a statement map_Kd, whose options come before the name; None if it is not there."""
    if text in pictures:
        return pictures[text]
    words, clamped, moved = text.split(), False, False
    name = text
    while words and words[0].startswith("-") and words[0][1:] in _OPTIONS:
        option = words.pop(0)[1:]
        most = _OPTIONS[option]
        values = []
        while words and len(values) < most and (len(values) < 1 or _is_number(words[0])) and len(words) > 1:
            values.append(words.pop(0))
        clamped = values == ["on"] if option == "clamp" else clamped
        moved |= (option == "s" and any(_number([v]) != 1 for v in values)) or (
            option == "o" and any(_number([v], 0.0) != 0 for v in values)
        )
        name = " ".join(words)
    if moved:
        lost.append("scales and offsets of textures (-s, -o)")
    found = inside(path.parent, name.strip('"'), allow_outside)
    picture = None
    if found is None:
        lost.append(f"the texture {name[:200]} (outside of its folder: pass allow_outside=True)")
    elif not os.path.isfile(found):
        lost.append(f"the texture {found.name[:200]}, which is not there")
    else:
        wrap = "clamp" if clamped else "repeat"
        picture = Picture(read_image(found, "Mesh.load"), (wrap, wrap))
        # The same picture by two statements is one.
        picture = next((p for p in pictures.values() if p and p.wrap == picture.wrap and _same(p, picture)), picture)
    pictures[text] = picture
    return picture


def _same(a: Picture, b: Picture) -> bool:
    return a.image.shape == b.image.shape and bool(torch.equal(a.image, b.image))


def _is_number(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return True


def write_obj(mesh: Mesh, path: pathlib.Path) -> None:
    """Write an OBJ file, and beside it ``STEM.mtl`` if it has a material or a texture, and ``STEM.png``.

    Nine significant digits for float32 and seventeen for float64, so that reading gives back the same numbers.
    """
    number = "%.9g" if mesh.dtype == torch.float32 else "%.17g"
    vertices = mesh.vertices.detach().cpu().numpy()
    if mesh.vertex_colors is not None:
        colors = mesh.vertex_colors.detach().cpu().numpy()[:, :3]
        vertices = np.concatenate((vertices, colors), axis=1)
    parts = []
    if mesh.texture is not None or mesh.material is not None:
        library = f"{_OURS}\nnewmtl surface\n" + (
            "Kd 1 1 1\n" if mesh.material is None else _material_lines(mesh.material)
        )
        if mesh.texture is not None:
            write_image(path.with_suffix(".png"), mesh.texture.image)
            library += f"map_Kd {'-clamp on ' if mesh.texture.wrap == 'clamp' else ''}{path.stem}.png\n"
            if mesh.texture.wrap == "mirror":
                warnings.warn("Mesh.save: OBJ does not hold wrap='mirror': it is read as 'repeat'", stacklevel=4)
        path.with_suffix(".mtl").write_text(library)
        parts.append(f"mtllib {path.stem}.mtl\nusemtl surface\n")
    parts.append(_table("v", number, vertices))
    faces = mesh.faces.cpu().numpy() + 1
    if mesh.uv is None or mesh.uv_faces is None:
        parts.append(_table("f", "%d", faces))
    else:
        parts.append(_table("vt", number, mesh.uv.detach().cpu().numpy()))
        both = np.stack((faces, mesh.uv_faces.cpu().numpy() + 1), axis=-1).reshape(-1, 6)
        parts.append(("f %d/%d %d/%d %d/%d\n" * len(both)) % tuple(both.reshape(-1).tolist()))
    path.write_text("".join(parts))


def _material_lines(material: Material) -> str:
    if material.batch_shape:
        raise fail("Mesh.save", "material", "without a batch", f"a batch of {tuple(material.batch_shape)}")
    rows = (("Ka", material.ambient), ("Kd", material.diffuse), ("Ks", material.specular), ("Ns", material.shininess))
    return "".join(
        f"{word} {' '.join(f'{x:.9g}' for x in value.detach().reshape(-1).tolist())}\n" for word, value in rows
    )


def _table(word: str, number: str, rows: np.ndarray) -> str:
    line = f"{word} {' '.join([number] * rows.shape[1])}\n"
    return (line * len(rows)) % tuple(rows.reshape(-1).tolist())
