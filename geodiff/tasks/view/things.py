# SPDX-License-Identifier: Apache-2.0
"""Everything that geodiff writes, as meshes to look at: points as little solids, curves as tubes."""

import collections
import os
import pathlib
from collections.abc import Iterable

import numpy as np
import torch

from geodiff.scene.mesh import Mesh
from geodiff.scene.primitives import icosphere
from geodiff.tasks.tables import TABLES
from geodiff.validation import fail

MESHES = ("glb", "gltf", "ply", "obj", "stl", "off")
SPLINES = ("json", "3dm", "step", "stp", "iges", "igs")
CLOUDS = (*TABLES, "npy", "npz", "las", "laz")
# What lies beside results and is none to look at, and which of several files of one name is taken.
_OTHERS = ("metrics.json", "transforms.json", "settings.json", "checkpoint.json")
_ORDER = ("npz", "json", "glb", "gltf", "ply", "obj", "stl", "off", "3dm", "step", "stp", "iges", "igs")
_PICTURES = (".png", ".gif", ".mp4", ".jpg", ".jpeg")
_POINTS = 20_000  # of a cloud are shown, evenly
_SAMPLES = 200  # along a curve
_BLUE, _ORANGE = (0.22, 0.43, 0.72), (0.85, 0.42, 0.16)


def things_to_see(paths: Iterable[str | os.PathLike[str]], where: str) -> dict[str, Mesh]:
    """Read files and folders as meshes by name.

    Args:
        paths: meshes (also PLY of points), splines (``surface.json``, 3DM, STEP, IGES), an ``atlas.npz``, clouds, and
            folders of such files, of which one of each name is taken and set in a row along x.
        where: the public function, for messages.

    Raises:
        FileNotFoundError: no such file.
        ValueError: an unknown ending, a damaged file, nothing to see in it.
        ImportError: a format that needs a package that is not installed.
    """
    found: dict[str, Mesh] = {}
    for path in map(pathlib.Path, paths):
        files = _of_folder(path, where) if path.is_dir() else [path]
        things = [thing for file in files for thing in _of_file(file, where).items()]
        meshes = [mesh for _, mesh in things]
        for (name, _), mesh in zip(things, _side_by_side(meshes) if path.is_dir() else meshes, strict=True):
            new, number = name, 1
            while new in found:
                number += 1
                new = f"{name}_{number}"
            found[new] = mesh
    return found


def _side_by_side(meshes: list[Mesh]) -> list[Mesh]:
    """Return meshes in a row along x: results show the same thing several times, one in the other."""
    placed: list[Mesh] = []
    end = None
    for mesh in meshes:
        if mesh.num_vertices and len(meshes) > 1:
            low, high = mesh.bounds[:, 0].double()
            if end is not None:
                offset = torch.tensor([end - float(low), 0.0, 0.0], dtype=torch.float64)
                mesh = mesh.to(dtype=torch.float64).translated(offset)
            end = float(mesh.bounds[1, 0]) + 0.15 * float(high - low)
        placed.append(mesh)
    return placed


def _of_folder(folder: pathlib.Path, where: str) -> list[pathlib.Path]:
    """Return the files in a folder that can be seen, one of each name."""
    best: dict[str, pathlib.Path] = {}
    for path in sorted(folder.iterdir()):
        ending = path.suffix.lower().removeprefix(".")
        if path.name in _OTHERS or path.name.startswith(".") or ending not in _ORDER or not path.is_file():
            continue
        if path.stem not in best or _ORDER.index(ending) < _ORDER.index(best[path.stem].suffix.lower()[1:]):
            best[path.stem] = path
    if "atlas" in best and "charts" in best:  # what fit-atlas writes: the same surface, meshed already
        del best["atlas"]
    if not best:
        expected = f"a folder with files to see, of .{', .'.join(_ORDER)}"
        there = collections.Counter(_kind_of(path) for path in folder.iterdir() if not path.name.startswith("."))
        found = ", ".join(f"{count} {kind}" for kind, count in sorted(there.items())) or "nothing"
        fix = "Name a file, or the folder of a result."
        if any(kind in there for kind in _PICTURES):
            fix += " Pictures are for a viewer of images."
        raise fail(where, "path", expected, f"{folder}, in which there is {found}", fix)
    return list(best.values())


def _kind_of(path: pathlib.Path) -> str:
    """Name what a folder holds: a folder, one of the files beside results, or a file by its ending."""
    if path.is_dir():
        return "folders"
    return path.name if path.name in _OTHERS else path.suffix.lower() or "files without ending"


def _of_file(path: pathlib.Path, where: str) -> dict[str, Mesh]:
    ending = path.suffix.lower().removeprefix(".")
    if not path.is_file():
        fix = "Check the spelling and the working folder."
        raise fail(where, "path", "a file or a folder that exists", str(path), fix, FileNotFoundError)
    if ending in SPLINES:
        return _splines(path)
    if ending == "npz":
        with np.load(path, allow_pickle=False) as archive:
            names = set(archive.files)
        if "points" not in names and len(names) > 2:
            from geodiff.atlas.atlas import Atlas

            return {path.stem: Atlas.load(path).to_mesh()}
    if ending in CLOUDS:
        return {path.stem: _cloud(path, where)}
    if ending not in MESHES:
        known = f"of one of .{', .'.join((*MESHES, *SPLINES, *CLOUDS))}"
        raise fail(where, "path", known, str(path))
    try:
        mesh = Mesh.load(path, dtype=torch.float64)
    except ValueError:
        if ending not in ("ply", "obj"):
            raise
        try:
            return {path.stem: _cloud(path, where)}
        except ValueError:
            pass
        raise  # what is wrong with it as a mesh
    if mesh.num_faces == 0 and mesh.num_vertices:
        return {path.stem: solids(mesh.vertices, mesh.vertex_colors)}
    return {path.stem: mesh}


def _cloud(path: pathlib.Path, where: str) -> Mesh:
    from geodiff.tasks.clouds import read_cloud_file

    cloud = read_cloud_file(path, where=where)
    return solids(cloud.points)


def _splines(path: pathlib.Path) -> dict[str, Mesh]:
    from geodiff.splines.curve import NURBSCurve
    from geodiff.splines.files import load_splines
    from geodiff.splines.surface import NURBSSurface

    splines = load_splines(path)
    surfaces = [spline for spline in splines if isinstance(spline, NURBSSurface)]
    curves = [spline for spline in splines if isinstance(spline, NURBSCurve)]
    if not surfaces and not curves:
        raise fail("view", "path", "a file of surfaces or curves", f"{path} of {len(splines)} volumes")
    shown = {}
    for i, surface in enumerate(surfaces):
        shown[path.stem if len(splines) == 1 else f"{path.stem}_{i}"] = _in_space(surface).tessellate(64, 64)
    if curves:
        lines = [_in_space(curve)(_parameters(curve)) for curve in curves]
        everything = torch.cat([*lines, *(mesh.vertices.double() for mesh in shown.values())])
        radius = 0.004 * float((everything.amax(0) - everything.amin(0)).max())
        for i, line in enumerate(lines):
            name = path.stem if len(splines) == 1 else f"{path.stem}_curve_{i}"
            shown[name] = tube(line, radius or 1.0)
    return shown


def _in_space(spline):  # type: ignore[no-untyped-def]
    """Return a spline without gradients, of three dimensions in float64."""
    spline = spline.detach().to(torch.float64)
    points = spline.control_points[..., :3]
    missing = 3 - points.shape[-1]
    return spline.replace(control_points=torch.nn.functional.pad(points, (0, missing)))


def _parameters(curve) -> torch.Tensor:  # type: ignore[no-untyped-def]
    low, high = (float(end) for end in curve.domain[0])
    return torch.linspace(low, high, _SAMPLES, dtype=torch.float64)


def solids(points: torch.Tensor, colors: torch.Tensor | None = None) -> Mesh:
    """Return a cloud (N, 3) as a mesh of octahedra, of a size that lets them be told apart.

    Args:
        points: (N, 3); of more than 20 000 every k-th is shown.
        colors: (N, C) in [0, 1], or None for blue.
    """
    step = -(-len(points) // _POINTS)
    points = points.detach().double()[::step]
    size = float((points.amax(0) - points.amin(0)).max()) or 1.0
    radius = min(0.02, max(0.0025, 0.35 / max(len(points), 1) ** 0.5)) * size
    corners = torch.tensor([[1.0, 0, 0], [-1, 0, 0], [0, 1, 0], [0, -1, 0], [0, 0, 1], [0, 0, -1]], dtype=torch.float64)
    faces = torch.tensor([[0, 2, 4], [2, 1, 4], [1, 3, 4], [3, 0, 4], [2, 0, 5], [1, 2, 5], [3, 1, 5], [0, 3, 5]])
    if len(points) <= 200:  # round ones, where they are few and large
        ball = icosphere(1, dtype=torch.float64)
        corners, faces = ball.vertices, ball.faces
    vertices = (points[:, None] + radius * corners).reshape(-1, 3)
    index = torch.arange(len(points))[:, None, None] * len(corners) + faces
    if colors is None:
        colors = points.new_tensor(_BLUE).expand(len(points), 3)
    else:
        colors = colors.detach().double()[::step, :3]
    colors = colors.clamp(0, 1).repeat_interleave(len(corners), dim=0)
    return Mesh(vertices, index.reshape(-1, 3), vertex_colors=colors)


def tube(line: torch.Tensor, radius: float, sides: int = 8) -> Mesh:
    """Return a curve (N, 3) of points as a tube of one radius, open at its ends."""
    line = line.detach().double()
    keep = torch.ones(len(line), dtype=torch.bool)
    keep[1:] = (line[1:] - line[:-1]).norm(dim=-1) > 1e-9 * radius
    line = line[keep]
    if len(line) < 2:
        return solids(line)
    way = torch.nn.functional.normalize(torch.gradient(line, dim=0)[0], dim=-1)
    frame = [torch.linalg.cross(way[0], torch.eye(3, dtype=torch.float64)[int(way[0].abs().argmin())])]
    for i in range(1, len(line)):  # carried along, so that the tube does not twist
        frame.append(frame[-1] - (frame[-1] @ way[i]) * way[i])
    one = torch.nn.functional.normalize(torch.stack(frame), dim=-1)
    two = torch.linalg.cross(way, one)
    angle = torch.arange(sides, dtype=torch.float64) * (2 * torch.pi / sides)
    ring = angle.cos()[:, None] * one[:, None] + angle.sin()[:, None] * two[:, None]
    vertices = (line[:, None] + radius * ring).reshape(-1, 3)
    along, around = torch.meshgrid(torch.arange(len(line) - 1), torch.arange(sides), indexing="ij")
    a, b = (along * sides + around).reshape(-1), (along * sides + (around + 1) % sides).reshape(-1)
    faces = torch.cat((torch.stack((a, b, b + sides), -1), torch.stack((a, b + sides, a + sides), -1)))
    return Mesh(vertices, faces, vertex_colors=line.new_tensor(_ORANGE).expand(len(vertices), 3))
