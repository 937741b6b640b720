# SPDX-License-Identifier: Apache-2.0
"""Wavefront OBJ, read and written here because it alone has separate indices for positions and texture coordinates.

Readers that make one vertex of each (position, texture coordinate, normal) tear a mesh apart at its seams and reorder
it; this one keeps the vertices and the faces of the file, in its order.
"""

import pathlib
import warnings

import numpy as np
import torch

from geodiff.scene.images import read_image, write_image
from geodiff.scene.mesh import Mesh
from geodiff.validation import fail


def load_obj(path: pathlib.Path, dtype: torch.dtype = torch.float32) -> Mesh:
    """Read an OBJ file: positions, colours after positions, polygons (cut into fans), texture coordinates, one texture.

    Groups, normals, smoothing, lines and points are passed over; so are materials, but for the picture (``map_Kd``) if
    all faces share one.

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
    return Mesh(
        torch.from_numpy(positions[:, :3].copy()).to(dtype),
        faces,
        vertex_colors=None if colors is None else torch.from_numpy(colors.copy()).to(dtype),
        uv=None if corner_uv is None else torch.from_numpy(uv.copy()).to(dtype),
        uv_faces=uv_faces,
        texture=None if corner_uv is None else _texture(path, lines, kind, dtype),
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


def _texture(path: pathlib.Path, lines: list[str], kind: np.ndarray, dtype: torch.dtype) -> torch.Tensor | None:
    """Return the one picture that the materials in use name, if there is one."""
    used = {lines[i].split(maxsplit=1)[-1] for i in np.flatnonzero(kind == "usemtl")}
    pictures = set()
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
            elif words[:1] == ["map_Kd"] and (name in used or not used):
                # Options, which start with a hyphen, come before the name.
                rest = line.split(maxsplit=1)[-1].strip()
                pictures.add(library.parent / (words[-1] if rest.startswith("-") else rest).replace("\\", "/"))
    if len(pictures) > 1:
        warnings.warn(f"Mesh.load: {path} uses {len(pictures)} textures; a Mesh holds one: left out", stacklevel=4)
    if len(pictures) != 1:
        return None
    (picture,) = pictures
    if not picture.is_file():
        warnings.warn(f"Mesh.load: {path} names the texture {picture}, which is not there: left out", stacklevel=4)
        return None
    return read_image(picture, "Mesh.load").to(dtype)


def write_obj(mesh: Mesh, path: pathlib.Path) -> None:
    """Write an OBJ file, and beside it ``STEM.mtl`` and ``STEM.png`` if the mesh has a texture.

    Nine significant digits for float32 and seventeen for float64, so that reading gives back the same numbers.
    """
    number = "%.9g" if mesh.dtype == torch.float32 else "%.17g"
    vertices = mesh.vertices.detach().cpu().numpy()
    if mesh.vertex_colors is not None:
        colors = mesh.vertex_colors.detach().cpu().numpy()[:, :3]
        vertices = np.concatenate((vertices, colors), axis=1)
    parts = []
    if mesh.texture is not None:
        write_image(path.with_suffix(".png"), mesh.texture.image)
        path.with_suffix(".mtl").write_text(f"newmtl texture\nKd 1 1 1\nmap_Kd {path.stem}.png\n")
        parts.append(f"mtllib {path.stem}.mtl\nusemtl texture\n")
    parts.append(_table("v", number, vertices))
    faces = mesh.faces.cpu().numpy() + 1
    if mesh.uv is None or mesh.uv_faces is None:
        parts.append(_table("f", "%d", faces))
    else:
        parts.append(_table("vt", number, mesh.uv.detach().cpu().numpy()))
        both = np.stack((faces, mesh.uv_faces.cpu().numpy() + 1), axis=-1).reshape(-1, 6)
        parts.append(("f %d/%d %d/%d %d/%d\n" * len(both)) % tuple(both.reshape(-1).tolist()))
    path.write_text("".join(parts))


def _table(word: str, number: str, rows: np.ndarray) -> str:
    line = f"{word} {' '.join([number] * rows.shape[1])}\n"
    return (line * len(rows)) % tuple(rows.reshape(-1).tolist())
