# SPDX-License-Identifier: Apache-2.0
"""Wavefront OBJ, read and written here because it alone has separate indices for positions and texture coordinates.

Readers that make one vertex of each (position, texture coordinate, normal) tear a mesh apart at its seams and reorder
it; this one keeps the vertices and the faces of the file, in its order.
"""

import contextlib
import pathlib
import warnings

import numpy as np
import torch

from geodiff.scene.images import read_image, write_image
from geodiff.scene.material import Material
from geodiff.scene.mesh import Mesh
from geodiff.scene.texture import Texture
from geodiff.validation import fail


def load_obj(path: pathlib.Path, dtype: torch.dtype = torch.float32) -> Mesh:
    """Read an OBJ file: positions, colours after positions, polygons (cut into fans), texture coordinates, one texture.

    Groups, normals, smoothing, lines and points are passed over. The picture (``map_Kd``) and the numbers (``Ka``,
    ``Kd``, ``Ks``, ``Ns``) of the material are read if all faces share one.

    Args:
        path: the file.
        dtype: of the result.

    Raises:
        ValueError: not an OBJ file, no faces, or faces that name vertices that are not there.
    """
    text = path.read_bytes().decode("utf-8", errors="replace").replace("\\\n", " ").replace("\\\r\n", " ")
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
    if sizes.min() < 3:
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
        if missing.any():
            # Faces without texture coordinates share one more.
            corner_uv[missing] = len(uv)
            uv = np.concatenate((uv, np.zeros((1, uv.shape[1]))))
        uv = np.concatenate((uv, np.zeros((len(uv), 1))), axis=1)[:, :2]
    # The first corner of each polygon with each two that follow.
    count = sizes - 2
    begin = np.cumsum(sizes) - sizes
    step = np.arange(count.sum()) - np.repeat(np.cumsum(count) - count, count)
    first = np.repeat(begin, count)
    fan = np.stack((first, first + step + 1, first + step + 2), axis=-1)
    colors = positions[:, -3:] if positions.shape[1] >= 6 else None
    if colors is not None and colors.max(initial=0.0) > 1.0:
        colors = colors / 255.0
    faces = indices[fan]
    uv_faces = None if corner_uv is None else corner_uv[fan]
    if uv_faces is not None and len(uv) == len(positions) and np.array_equal(uv_faces, faces):
        uv_faces = None
    texture, material = _looks(path, lines, kind, dtype)
    return Mesh(
        torch.from_numpy(positions[:, :3].copy()).to(dtype),
        faces,
        vertex_colors=None if colors is None else torch.from_numpy(colors.copy()).to(dtype),
        uv=None if corner_uv is None else torch.from_numpy(uv.copy()).to(dtype),
        uv_faces=uv_faces,
        texture=texture if corner_uv is not None else None,
        material=material,
    )


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
    except ValueError as error:
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


def _looks(
    path: pathlib.Path, lines: list[str], kind: np.ndarray, dtype: torch.dtype
) -> tuple[Texture | None, Material | None]:
    """Return the one picture and the one material that the faces in use name, where there is one."""
    used = {lines[i].split(maxsplit=1)[-1] for i in np.flatnonzero(kind == "usemtl")}
    pictures, clamped = set(), False
    materials: dict[str, dict[str, list[float]]] = {}
    for i in np.flatnonzero(kind == "mtllib"):
        library = path.parent / lines[i].split(maxsplit=1)[-1]
        if not library.is_file():
            warnings.warn(f"Mesh.load: {path} names materials in {library.name}, which is not there", stacklevel=4)
            continue
        name = ""
        for line in library.read_text(errors="replace").splitlines():
            words = line.split()
            if words[:1] == ["newmtl"]:
                name = line.split(maxsplit=1)[-1].strip()
            elif not words or (used and name not in used):
                continue
            elif words[0] == "map_Kd":
                # Options, which start with a hyphen, come before the name.
                rest = line.split(maxsplit=1)[-1].strip()
                if words[1:2] == ["-clamp"]:
                    clamped = words[2:3] == ["on"]
                    rest = rest.split(maxsplit=2)[-1]
                pictures.add(library.parent / (words[-1] if rest.startswith("-") else rest).replace("\\", "/"))
            elif words[0] in ("Ka", "Kd", "Ks", "Ns"):
                # Spectral curves and other rarities are not numbers: passed over.
                with contextlib.suppress(ValueError):
                    materials.setdefault(name, {})[words[0]] = [float(word) for word in words[1:4]]
    if len(pictures) > 1:
        warnings.warn(f"Mesh.load: {path} uses {len(pictures)} textures; a Mesh holds one: left out", stacklevel=4)
    texture = None
    if len(pictures) == 1:
        (picture,) = pictures
        if picture.is_file():
            texture = Texture(read_image(picture, "Mesh.load").to(dtype), wrap="clamp" if clamped else "repeat")
        else:
            warnings.warn(f"Mesh.load: {path} names the texture {picture}, which is not there: left out", stacklevel=4)
    numbers = next(iter(materials.values())) if len(materials) == 1 else {}
    return texture, _material(numbers)


def _material(numbers: dict[str, list[float]]) -> Material | None:
    """Return the material of an MTL file's Ka, Kd, Ks and Ns; None if it says nothing but white."""
    colors = {key: value * 3 if len(value) == 1 else value for key, value in numbers.items() if key != "Ns"}
    if not colors or (set(numbers) == {"Kd"} and colors["Kd"] == [1.0, 1.0, 1.0]):
        return None
    if any(len(value) != 3 or min(value) < 0 for value in colors.values()):
        return None
    shininess = numbers.get("Ns", [0.0])[0]
    return Material(
        ambient=colors.get("Ka", (1.0, 1.0, 1.0)),
        diffuse=colors.get("Kd", (1.0, 1.0, 1.0)),
        specular=colors.get("Ks", (0.0, 0.0, 0.0)),
        shininess=shininess if shininess > 0 else 32.0,
    )


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
        library = "newmtl surface\n" + ("Kd 1 1 1\n" if mesh.material is None else _material_lines(mesh.material))
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
