# SPDX-License-Identifier: Apache-2.0
"""Several materials of a file as the one texture, the colours of faces and the one material that a mesh has."""

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from geodiff.reference.shading import wrapped
from geodiff.scene.material import Material
from geodiff.scene.texture import Texture
from geodiff.validation import warn

# The most texels that pictures and their repetitions may take together, before they are made coarser.
_MOST_TEXELS = 2**24
_WHITE = (1.0, 1.0, 1.0)


@dataclass(eq=False)
class Picture:
    """An image with what a file says of its use.

    Attributes:
        image: (H, W, C) float32, C is 1, 3 or 4.
        wrap: beyond [0, 1] along u and along v, as ``Texture`` names it.
        filter: ``"bilinear"`` or ``"nearest"``.
        mipmaps: of the texture.
    """

    image: torch.Tensor
    wrap: tuple[str, str] = ("repeat", "repeat")
    filter: str = "bilinear"
    mipmaps: bool = False


@dataclass(frozen=True)
class Look:
    """How some faces look.

    Attributes:
        color: multiplied with everything else: MTL's Kd, glTF's base colour.
        picture: multiplied with it; None where there is none.
        ambient: the material's own, None where it is `color`.
        specular: of the material.
        shininess: of the material.
    """

    color: tuple[float, ...] = _WHITE
    picture: Picture | None = None
    ambient: tuple[float, ...] | None = None
    specular: tuple[float, ...] | None = None
    shininess: float = 32.0

    def material(self) -> Material | None:
        """Return the material of a mesh that looks like this all over; None for a plain white one."""
        if self.color == _WHITE and self.ambient is None and self.specular is None:
            return None
        specular = 0.2 if self.specular is None else self.specular
        return Material(self.color if self.ambient is None else self.ambient, self.color, specular, self.shininess)


@dataclass
class Dress:
    """What `dressed` hands to ``Mesh``."""

    uv: np.ndarray | None = None
    uv_faces: np.ndarray | None = None
    texture: Texture | None = None
    face_colors: np.ndarray | None = None
    material: Material | None = None
    lost: list[str] = field(default_factory=list)


def dressed(looks: list[Look], of_face: np.ndarray, uv: np.ndarray | None, uv_faces: np.ndarray | None) -> Dress:
    """Return one texture, material and colours of faces with which a mesh looks as with several materials.

    Colours become those of the faces. Pictures are laid side by side in one image, each with as many of its repetitions
    as its faces show and a texel more on every side, so that bilinear interpolation gives the same colours. What cannot
    be had is named in ``lost``.

    Args:
        looks: the materials.
        of_face: (F,) the material of each face.
        uv: (T, 2) texture coordinates, v up; None where there are none.
        uv_faces: (F, 3) those of the corners; −1 for faces without, whose pictures do not show.
    """
    if uv is not None and not np.isfinite(uv).all():
        raise ValueError("texture coordinates that are not finite")
    result = Dress(uv, uv_faces)
    bare: np.ndarray = np.ones(len(of_face), bool) if uv_faces is None else np.any(uv_faces < 0, axis=1)
    used = np.unique(of_face)
    shown = [None if bare[of_face == k].all() else looks[k].picture for k in used]
    pictures = list(dict.fromkeys(picture for picture in shown if picture is not None))
    result.material, result.face_colors = _colors(looks, of_face, used, result.lost)
    if pictures:
        assert uv is not None and uv_faces is not None
        number = {id(picture): i for i, picture in enumerate(pictures)}
        which = np.full(len(looks), -1)
        which[used] = [-1 if picture is None else number[id(picture)] for picture in shown]
        of_picture = np.where(bare, -1, which[of_face])
        if len(pictures) == 1 and (of_picture == 0).all() and pictures[0].wrap[0] == pictures[0].wrap[1]:
            only = pictures[0]
            result.texture = Texture(only.image, only.wrap[0], only.filter, only.mipmaps)
        else:
            _join(result, pictures, of_picture, uv, uv_faces)
    elif uv_faces is not None and bare.any():
        # Nothing shows there: those corners share one more coordinate.
        assert uv is not None
        result.uv = np.concatenate((uv, np.zeros((1, 2))))
        result.uv_faces = np.where(uv_faces < 0, len(uv), uv_faces)
    return result


MOST_RUNS = 4096
"""The most materials that colours of faces are written as."""


def color_runs(face_colors: torch.Tensor) -> list[tuple[int, int, tuple[float, float, float]]]:
    """Return faces (first, one past the last) that follow one another in one colour, and that colour.

    Args:
        face_colors: (F, C), C is 1, 3 or 4.
    """
    rows = face_colors.detach().cpu().double().numpy()
    rows = np.broadcast_to(rows[:, :3], (len(rows), 3))
    ends = [*(np.flatnonzero((rows[1:] != rows[:-1]).any(axis=1)) + 1).tolist(), len(rows)]
    return [
        (begin, end, (float(rows[begin, 0]), float(rows[begin, 1]), float(rows[begin, 2])))
        for begin, end in zip([0, *ends], ends, strict=False)
    ]


def warn_lost(path: Any, lost: list[str]) -> None:
    """Say once what of a file's looks a mesh does not hold."""
    names = list(dict.fromkeys(lost))
    if names:
        warn(f"Mesh.load: left out of {path}: {'; '.join(names)}")


def _colors(
    looks: list[Look], of_face: np.ndarray, used: np.ndarray, lost: list[str]
) -> tuple[Material | None, np.ndarray | None]:
    """Return the material that all share, and the colours (F, 3) where they have different ones."""
    some = [looks[k] for k in used]
    counts = np.bincount(of_face, minlength=len(looks))
    # Of the most faces; one that says nothing of highlights takes those of the others.
    first = looks[max(used.tolist(), key=lambda k: (looks[k].specular is not None, counts[k]))]
    gloss = {(look.specular, look.shininess if any(look.specular) else 0.0) for look in some if look.specular}
    if len(gloss) > 1:
        lost.append("highlights (Ks, Ns) of all materials but one")
    if len({(look.color, look.ambient) for look in some}) == 1:
        return first.material(), None
    ratio = _ratio(some)
    if ratio is None:
        lost.append("ambient colours that differ from the diffuse ones")
    ambient = ratio if ratio is not None and ratio != _WHITE else None
    table = np.ones((len(looks), 3))
    table[used] = [look.color for look in some]
    shared = Look(ambient=ambient, specular=first.specular, shininess=first.shininess)
    return shared.material(), table[of_face]


def _ratio(some: list[Look]) -> tuple[float, ...] | None:
    """Return what all ambient colours are of the diffuse ones, if that is the same for all."""
    diffuse = np.array([look.color for look in some])
    ambient = np.array([look.color if look.ambient is None else look.ambient for look in some])
    part = np.divide(ambient, diffuse, out=np.ones_like(diffuse), where=diffuse > 0)
    known = np.where(diffuse > 0, part, -1.0).max(axis=0)
    known = np.where(known < 0, 1.0, known)
    return tuple(known.tolist()) if np.allclose(ambient, diffuse * known, rtol=1e-5, atol=1e-7) else None


@dataclass
class _Cell:
    """Part of a picture's endless pattern, in texels: rows from `top`, columns from `left`; and where it is."""

    left: int
    top: int
    width: int
    height: int
    x: int = 0
    y: int = 0


def _join(result: Dress, pictures: list[Picture], of_picture: np.ndarray, uv: np.ndarray, uv_faces: np.ndarray) -> None:
    """Lay pictures side by side, a white one too for faces without, and give the corners coordinates in that."""
    images = [picture.image for picture in pictures]
    corners = [_nearest_tile(uv[uv_faces[of_picture == i]], picture.wrap) for i, picture in enumerate(pictures)]
    plain = bool((of_picture < 0).any())
    coarse = False
    while True:
        cells = [_cell(image, corner) for image, corner in zip(images, corners, strict=True)]
        if plain:
            cells.append(_Cell(0, 0, 3, 3))
        if sum(cell.width * cell.height for cell in cells) <= _MOST_TEXELS:
            break
        coarse = True
        largest = max(range(len(images)), key=lambda i: cells[i].width * cells[i].height)
        images[largest] = _half(images[largest])
    if coarse:
        result.lost.append("detail of textures (repeated often, they were made coarser to fit into one image)")
    if any(picture.mipmaps for picture in pictures):
        result.lost.append("mip-maps (textures were laid out anew)")
    filters = {picture.filter for picture in pictures}
    if len(filters) > 1:
        result.lost.append("filters of textures that differ (all are bilinear)")
    width, height = _pack(cells)
    channels = max(3, *(image.shape[-1] for image in images))
    atlas = torch.ones(height, width, channels)
    table = np.zeros((3 * len(of_picture), 2)).reshape(-1, 3, 2)
    for i, cell in enumerate(cells):
        if i == len(pictures):  # the white one: it is white already
            table[of_picture < 0] = _placed(np.full((1, 3, 2), 1.5), cell, width, height)
            continue
        wrap_u, wrap_v = pictures[i].wrap
        down = wrapped(torch.arange(cell.top, cell.top + cell.height), images[i].shape[0], wrap_v)
        across = wrapped(torch.arange(cell.left, cell.left + cell.width), images[i].shape[1], wrap_u)
        part = images[i][down][:, across]
        part = part.expand(-1, -1, 3) if part.shape[-1] == 1 else part
        atlas[cell.y : cell.y + cell.height, cell.x : cell.x + cell.width, : part.shape[-1]] = part
        texels = _texels(images[i], corners[i])
        if images[i].shape[:2] == (1, 1):  # one colour everywhere
            texels = np.full_like(texels, 0.5)
        table[of_picture == i] = _placed(texels - (cell.left, cell.top), cell, width, height)
    rows, inverse = np.unique(table.reshape(-1, 2), axis=0, return_inverse=True)
    result.uv, result.uv_faces = rows, inverse.reshape(-1, 3)
    result.texture = Texture(atlas, "clamp", filters.pop() if len(filters) == 1 else "bilinear")


def _nearest_tile(corners: np.ndarray, wrap: tuple[str, str]) -> np.ndarray:
    """Move the coordinates (n, 3, 2) of each face by whole tiles, to near the first."""
    for axis in (0, 1):
        period = {"repeat": 1.0, "mirror": 2.0}.get(wrap[axis])
        if period:
            low = corners[..., axis].min(axis=1, keepdims=True)
            corners[..., axis] -= np.floor(low / period) * period
    return corners


def _texels(image: torch.Tensor, corners: np.ndarray) -> np.ndarray:
    """Return column and row (not rounded, to the right and down) in texels."""
    return np.stack((corners[..., 0] * image.shape[1], (1.0 - corners[..., 1]) * image.shape[0]), axis=-1)


def _cell(image: torch.Tensor, corners: np.ndarray) -> _Cell:
    if image.shape[:2] == (1, 1):
        return _Cell(-1, -1, 3, 3)
    texels = _texels(image, corners).reshape(-1, 2)
    # Texels whose centres the interpolation looks at, and one more for rounding. What is huge shall not overflow.
    low = np.floor(texels.min(axis=0) - 1.5).clip(-(2.0**40), 2.0**40)
    size = np.ceil(texels.max(axis=0) + 1.5).clip(-(2.0**40), 2.0**40) - low
    return _Cell(int(low[0]), int(low[1]), int(size[0]), int(size[1]))


def _placed(texels: np.ndarray, cell: _Cell, width: int, height: int) -> np.ndarray:
    """Return coordinates, v up, in the whole image of texels in a cell."""
    return np.stack(((texels[..., 0] + cell.x) / width, 1.0 - (texels[..., 1] + cell.y) / height), axis=-1)


def _half(image: torch.Tensor) -> torch.Tensor:
    planes = image.permute(2, 0, 1)[None]
    size = (max(1, image.shape[0] // 2), max(1, image.shape[1] // 2))
    return torch.nn.functional.adaptive_avg_pool2d(planes, size)[0].permute(1, 2, 0)


def _pack(cells: list[_Cell]) -> tuple[int, int]:
    """Place cells on shelves, the highest first; return the width and height of all."""
    width = max(max(cell.width for cell in cells), math.isqrt(sum(cell.width * cell.height for cell in cells)) + 1)
    x = y = shelf = 0
    for cell in sorted(cells, key=lambda cell: -cell.height):
        if x + cell.width > width:
            x, y, shelf = 0, y + shelf, 0
        cell.x, cell.y = x, y
        x, shelf = x + cell.width, max(shelf, cell.height)
    return width, y + shelf
