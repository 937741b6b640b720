# SPDX-License-Identifier: Apache-2.0
"""The materials of Wavefront OBJ files: colours, pictures, and which polygons have them."""

import contextlib
import math
import os
import pathlib
import sys

import numpy as np
import torch

from geodiff.guard import inside
from geodiff.scene.images import read_image
from geodiff.scene.looks import Look, Picture

# The first line of our MTL files, in which Ka is what it says.
OURS = "# geodiff: ambient, diffuse and specular are Ka, Kd and Ks"
UNMOVED = (1.0, 1.0, 0.0, 0.0)
# Options of map_Kd and how many words follow them at most.
_OPTIONS = {
    **dict.fromkeys(("blendu", "blendv", "cc", "clamp", "imfchan", "texres", "type", "boost", "bm"), 1),
    "mm": 2,
    **dict.fromkeys(("o", "s", "t"), 3),
}


def decoded(data: bytes) -> str:
    """Return text of UTF-8, or of UTF-16 where the mark of its byte order says so, without that mark."""
    if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return data.decode("utf-16", errors="replace")
    return data.decode("utf-8-sig", errors="replace")


def read_looks(
    path: pathlib.Path,
    lines: list[str],
    kind: np.ndarray,
    face_lines: np.ndarray,
    allow_outside: bool,
    lost: list[str],
) -> tuple[list[Look], np.ndarray, np.ndarray]:
    """Return the materials in use, (n,) which one each polygon has, and (m, 4) scales and offsets of the pictures."""
    library: dict[str, dict[str, list[str]]] = {}
    for i in np.flatnonzero(kind == "mtllib"):
        for found in _library_paths(path, _rest(lines[i]), allow_outside, lost):
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
    maps = _Maps(path, allow_outside, lost)
    looks = [_look(library.get(name, {}), maps) for name in names] + [(Look(), UNMOVED)]
    return [look for look, _ in looks], of_polygon, np.array([move for _, move in looks])


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
    for line in decoded(path.read_bytes()).splitlines():
        words = line.split()
        if line.startswith(OURS):
            ours = True
        elif words[:1] == ["newmtl"]:
            entry = library.setdefault(_rest(line.strip()), {"ours": ["yes"]} if ours else {})
        elif words and words[0] == "map_Kd":
            entry["map_Kd"] = [_rest(line.strip())]
        elif words:
            entry.setdefault(words[0], words[1:])


def _number(words: list[str] | None, default: float = 1.0) -> float:
    with contextlib.suppress(ValueError, IndexError):
        value = float((words or [])[-1])
        return value if math.isfinite(value) else default
    return default


def _color(words: list[str] | None, least: float = 0.0) -> tuple[float, ...] | None:
    """Return three numbers; None for spectral curves and other rarities."""
    with contextlib.suppress(ValueError):
        numbers = [float(word) for word in (words or [])[:3]]
        numbers = numbers * 3 if len(numbers) == 1 else numbers
        if len(numbers) == 3 and all(least <= x < math.inf for x in numbers):
            return tuple(numbers)
    return None


class _Maps:
    """The pictures of the statements map_Kd of a file, each read once."""

    def __init__(self, path: pathlib.Path, allow_outside: bool, lost: list[str]) -> None:
        self.path, self.allow_outside, self.lost = path, allow_outside, lost
        self._known: dict[str, tuple[Picture | None, tuple[float, ...]]] = {}
        self._images: dict[pathlib.Path, torch.Tensor | None] = {}
        self._pictures: dict[tuple[pathlib.Path, str], Picture] = {}

    def read(self, text: str) -> tuple[Picture | None, tuple[float, ...]]:
        """Return the picture, None if it is not there, and the scale and offset of its coordinates."""
        if text not in self._known:
            options, name = _options(text)
            wrap = "clamp" if options.get("clamp") == ["on"] else "repeat"
            scale = [_number([word]) for word in options.get("s", [])][:2]
            offset = [_number([word], 0.0) for word in options.get("o", [])][:2]
            move = (*[*scale, 1.0, 1.0][:2], *[*offset, 0.0, 0.0][:2])
            self._known[text] = self._picture(name, wrap), move
        return self._known[text]

    def _picture(self, name: str, wrap: str) -> Picture | None:
        found = inside(self.path.parent, name.strip('"'), self.allow_outside)
        if found is None:
            self.lost.append(f"the texture {name[:200]} (outside of its folder: pass allow_outside=True)")
            return None
        if found not in self._images:
            self._images[found] = read_image(found, "Mesh.load") if os.path.isfile(found) else None
        image = self._images[found]
        if image is None:
            self.lost.append(f"the texture {found.name[:200]}, which is not there")
            return None
        return self._pictures.setdefault((found, wrap), Picture(image, (wrap, wrap)))


def _options(text: str) -> tuple[dict[str, list[str]], str]:
    """Part the options of a statement map_Kd, which come first, from the name, which may have blanks in it."""
    options: dict[str, list[str]] = {}
    rest = text
    while (words := rest.split()) and words[0].startswith("-") and words[0][1:] in _OPTIONS:
        option = words[0][1:]
        count = 1
        while count < len(words) - 1 and count <= _OPTIONS[option] and (count == 1 or _is_number(words[count])):
            count += 1
        options[option] = words[1:count]
        rest = rest.split(maxsplit=count)[-1]
    return options, rest


def _look(entry: dict[str, list[str]], maps: _Maps) -> tuple[Look, tuple[float, ...]]:
    """Return the look that statements of an MTL file describe, and the scale and offset of its picture."""
    least = -sys.float_info.max if "ours" in entry else 0.0
    ambient, color, specular = (_color(entry.get(word), least) for word in ("Ka", "Kd", "Ks"))
    picture: Picture | None = None
    move: tuple[float, ...] = UNMOVED
    if entry.get("map_Kd", [""])[0]:
        picture, move = maps.read(entry["map_Kd"][0])
    lost = maps.lost
    opacity = (_number(entry.get("d")), 1.0 - _number(entry.get("Tr"), 0.0))
    if min(opacity) < 1:
        lost.append("transparency (d, Tr)")
    if _color(entry.get("Ke")) not in (None, (0.0, 0.0, 0.0)):
        lost.append("emitted light (Ke)")
    if ambient is None and color is None and specular is None:
        return Look(picture=picture), move
    color = color or (1.0, 1.0, 1.0)
    if "ours" not in entry and ambient == (1.0, 1.0, 1.0):
        ambient = None
    if ambient is None and specular is None and color == (1.0, 1.0, 1.0):
        return Look(picture=picture), move
    shininess = _number(entry.get("Ns"), 0.0)
    if specular is None and "ours" not in entry:
        specular = (0.0, 0.0, 0.0)
    look = Look(color, picture, ambient, specular, shininess if shininess > 0 else 32.0)
    return look, move


def _is_number(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return True
