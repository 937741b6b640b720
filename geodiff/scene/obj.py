# SPDX-License-Identifier: Apache-2.0
"""Wavefront OBJ, read and written here because it alone has separate indices for positions and texture coordinates.

Readers that make one vertex of each (position, texture coordinate, normal) tear a mesh apart at its seams and reorder
it; this one keeps the vertices and the faces of the file, in its order.
"""

import pathlib

import numpy as np
import torch

from geodiff.scene.images import write_image
from geodiff.scene.looks import color_runs, dressed, warn_lost
from geodiff.scene.material import Material
from geodiff.scene.mesh import Mesh
from geodiff.scene.mtl import OURS, UNMOVED, decoded, read_looks
from geodiff.scene.polygons import triangulate
from geodiff.validation import fail, warn

# The first line of files of ours with colours above 1, which are taken for bytes elsewhere.
_NO_BYTES = "# geodiff: colours are in [0, 1] or beyond"


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
    text = decoded(path.read_bytes()).replace("\\\n", " ").replace("\\\r\n", " ")
    lines = [line.strip() for line in text.splitlines()]
    kind = np.array([line.split(maxsplit=1)[0] if line else "" for line in lines], dtype=object)
    positions = _numbers(path, lines, np.flatnonzero(kind == "v"), 3)
    uv = _numbers(path, lines, np.flatnonzero(kind == "vt"), 1)
    face_lines = np.flatnonzero(kind == "f")
    if len(face_lines) == 0 or len(positions) == 0:
        got = f"{path} with {len(positions)} vertices and {len(face_lines)} faces"
        raise fail("Mesh.load", "path", "an OBJ file with vertices and faces", got)
    rows = [lines[i].split("#", 1)[0].split()[1:] for i in face_lines]
    sizes = np.array([len(row) for row in rows])
    if sizes.max() < 3:
        expected = "made of polygons of three or more corners"
        raise fail("Mesh.load", "path", expected, _place(path, face_lines, sizes < 3))
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
    cut, owner = triangulate(positions[:, :3], indices, sizes, f"Mesh.load: {path}")
    faces = indices[cut]
    lost: list[str] = []
    looks, of_polygon, moves = read_looks(path, lines, kind, face_lines, allow_outside, lost)
    uv_faces = None if corner_uv is None else corner_uv[cut]
    if uv_faces is not None and (moves != UNMOVED).any():
        uv, uv_faces = _moved(uv, uv_faces, moves[of_polygon[owner]])
    dress = dressed(looks, of_polygon[owner], uv if uv_faces is not None else None, uv_faces)
    warn_lost(path, lost + dress.lost)
    uv_faces = dress.uv_faces
    if uv_faces is not None and dress.uv is not None and len(dress.uv) == len(positions):
        uv_faces = None if np.array_equal(uv_faces, faces) else uv_faces
    colors = positions[:, 3:] if positions.shape[1] >= 6 else None
    if colors is not None:
        bytes_ = colors[:, :3].max(initial=0.0) > 1.0 and not text.startswith(_NO_BYTES)
        colors = colors[:, :4] / 255.0 if bytes_ else colors[:, :4]
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


def _moved(uv: np.ndarray, uv_faces: np.ndarray, moves: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return coordinates of the corners scaled and offset as each face's picture (F, 4) is."""
    corners = uv[uv_faces] * moves[:, None, :2] + moves[:, None, 2:]
    rows, inverse = np.unique(corners.reshape(-1, 2), axis=0, return_inverse=True)
    return rows, np.where(uv_faces < 0, -1, inverse.reshape(-1, 3))


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
        expected = f"an OBJ file whose faces name the {count} {what} it has"
        got = f"index {int(index[bad][0])} in {_place(path, line, bad)}"
        raise fail("Mesh.load", "path", expected, got, "The file is cut short or damaged.")
    return result


def write_obj(mesh: Mesh, path: pathlib.Path) -> None:
    """Write an OBJ file, and beside it ``STEM.mtl`` if it has a material or a texture, and ``STEM.png``.

    Nine significant digits for float32 and seventeen for float64, so that reading gives back the same numbers.
    """
    number = "%.9g" if mesh.dtype == torch.float32 else "%.17g"
    vertices = mesh.vertices.detach().cpu().numpy()
    parts = []
    if mesh.vertex_colors is not None:
        colors = mesh.vertex_colors.detach().cpu().numpy()
        if colors.shape[1] not in (1, 3, 4):
            expected = "of 1, 3 or 4 channels in OBJ files"
            raise fail("Mesh.save", "vertex_colors", expected, f"{colors.shape[1]} channels")
        if colors.shape[1] == 4 and (colors[:, 3] != 1).any():
            warn("Mesh.save: OBJ does not hold the alpha of vertex_colors: left out")
        colors = np.broadcast_to(colors[:, :3], (len(colors), 3))
        vertices = np.concatenate((vertices, colors), axis=1)
        if colors.max(initial=0.0) > 1:
            parts.append(f"{_NO_BYTES}\n")
    runs = [(0, mesh.num_faces, (1.0, 1.0, 1.0))] if mesh.face_colors is None else color_runs(mesh.face_colors)
    names: dict[tuple[float, float, float], str] = {}
    dressed_up = mesh.texture is not None or mesh.material is not None or mesh.face_colors is not None
    if dressed_up:
        picture = ""
        if mesh.texture is not None:
            write_image(path.with_suffix(".png"), mesh.texture.image)
            picture = f"map_Kd {'-clamp on ' if mesh.texture.wrap == 'clamp' else ''}{path.stem}.png\n"
            if mesh.texture.wrap == "mirror":
                warn("Mesh.save: OBJ does not hold wrap='mirror': it is read as 'repeat'")
        library = f"{OURS}\n"
        for _, _, color in runs:
            if color not in names:
                names[color] = f"surface{len(names) or ''}"
                library += f"newmtl {names[color]}\n{_material_lines(mesh.material, color)}{picture}"
        path.with_suffix(".mtl").write_text(library)
        parts.append(f"mtllib {path.stem}.mtl\n")
    parts.append(_table("v", number, vertices))
    faces = mesh.faces.cpu().numpy() + 1
    if mesh.uv is not None and mesh.uv_faces is not None:
        parts.append(_table("vt", number, mesh.uv.detach().cpu().numpy()))
        faces = np.stack((faces, mesh.uv_faces.cpu().numpy() + 1), axis=-1).reshape(-1, 6)
    line = "f %d %d %d\n" if faces.shape[1] == 3 else "f %d/%d %d/%d %d/%d\n"
    for begin, end, color in runs:
        if dressed_up:
            parts.append(f"usemtl {names[color]}\n")
        parts.append((line * (end - begin)) % tuple(faces[begin:end].reshape(-1).tolist()))
    path.write_text("".join(parts))


def _material_lines(material: Material | None, color: tuple[float, float, float]) -> str:
    if material is None:
        return f"Kd {' '.join(f'{x:.9g}' for x in color)}\n"
    if material.batch_shape:
        raise fail("Mesh.save", "material", "without a batch", f"a batch of {tuple(material.batch_shape)}")
    own = material.ambient.new_tensor(color)
    rows = [("Ka", material.ambient * own), ("Kd", material.diffuse * own)]
    rows += [("Ks", material.specular), ("Ns", material.shininess)]
    return "".join(
        f"{word} {' '.join(f'{x:.9g}' for x in value.detach().reshape(-1).tolist())}\n" for word, value in rows
    )


def _table(word: str, number: str, rows: np.ndarray) -> str:
    line = f"{word} {' '.join([number] * rows.shape[1])}\n"
    return (line * len(rows)) % tuple(rows.reshape(-1).tolist())
