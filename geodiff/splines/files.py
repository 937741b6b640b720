# SPDX-License-Identifier: Apache-2.0
"""Splines from and to files: the JSON of geomdl, Rhino's 3dm, IGES and STEP; and as triangles."""

import json
import os
import pathlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

from geodiff import guard
from geodiff.modes import outside_autocast
from geodiff.readers import apart
from geodiff.readers.shapes import UNITS, Damaged, Missing
from geodiff.scene.atomic import replacing
from geodiff.scene.mesh import Mesh
from geodiff.splines.reading import KINDS, Reading, needed
from geodiff.splines.spline import AXIS_NAMES, NURBS
from geodiff.splines.surface import NURBSSurface
from geodiff.validation import check_finite, choice, fail, warn

_NAMES = {kind: name for name, kind in KINDS.items()}
_SPLINES = ("json", "3dm", "igs", "iges", "stp", "step")
_MESHES = ("obj", "ply", "stl", "glb")
_LOAD, _SAVE = "load_splines", "save_splines"


@outside_autocast
def load_splines(
    path: str | os.PathLike[str],
    *,
    dtype: torch.dtype = torch.float64,
    unsupported: str = "error",
    unit: str = "mm",
    trusted: bool = False,
) -> list[NURBS]:
    """Read the curves, surfaces and volumes of a JSON (geomdl), 3dm (Rhino), IGES or STEP file, in its order.

    Knots and domains are those of the file. (geomdl itself scales them to [0, 1] when it reads a file.) Rhino's format
    leaves out the first and the last knot, which have no effect: they are made equal to their neighbours. Other curves
    and whole surfaces, such as lines, arcs and cylinders, are converted to NURBS; a face counts as whole if its loop
    is within 1e-4 of its domain of the domain's border. Objects of Rhino's blocks are read once for each place where
    the block was inserted, and not at all where it was not. Names, colours, layers and the sense of faces are not read.

    3dm, IGES and STEP go through compiled libraries that damaged files can crash or hang. So they are read in a process
    of their own, within limits of memory (4 GB, and 100 times the file) and time (60 s of computing, and 20 s for each
    megabyte); it costs some 0.3 s (3dm) to 1 s (IGES, STEP). What a file says twice is compared, but none of these
    formats has a checksum: another digit in a coordinate cannot be noticed.

    Args:
        path: the file; its ending says its format. All but JSON need ``pip install geodiff[cad]``.
        dtype: torch.float64 or torch.float32.
        unsupported: what to do with what cannot be such a spline, for example a trimmed surface or a mesh: ``"error"``,
            or ``"skip"`` with one warning for all of them.
        unit: of the coordinates returned: ``"um"``, ``"mm"``, ``"cm"``, ``"m"``, ``"km"``, ``"in"``, ``"ft"``, ``"yd"``
            or ``"mi"``, whatever the unit of the file. Numbers of a file that says no unit are taken for this one, with
            a warning (IGES defines that they are inches then). JSON has no units: its numbers are never scaled.
        trusted: read in this process and without limits; for large files that you know to be sound.

    Returns:
        splines without batch axes.

    Raises:
        FileNotFoundError: no such file.
        ImportError: the library for the format is not installed.
        RuntimeError: no Python interpreter can be started to read apart (in frozen programs).
        ValueError: an unknown ending or unit, a damaged file, also one that crashes its library or takes too long,
            one without splines, sizes that do not go together, NaN, something unsupported.

    Example:
        >>> import tempfile, torch, geodiff as gd
        >>> from geodiff.splines.files import load_splines, save_splines
        >>> path = tempfile.mkdtemp() + "/arc.json"
        >>> points = torch.tensor([[1.0, 0.0], [1.0, 1.0], [0.0, 1.0]])
        >>> save_splines(path, gd.NURBSCurve(points, weights=torch.tensor([1.0, 0.5**0.5, 1.0]), degree=2))
        >>> load_splines(path)
        [NURBSCurve((3,) points in 2-D, degree (2,), rational)]
    """
    path = pathlib.Path(path)
    ending = _ending(_LOAD, path, _SPLINES)
    choice(_LOAD, "unsupported", unsupported, ("error", "skip"))
    if dtype not in (torch.float32, torch.float64):
        raise fail(_LOAD, "dtype", "torch.float64 or torch.float32", repr(dtype), error=TypeError)
    if not path.is_file():
        raise fail(_LOAD, "path", "a file that exists", str(path), error=FileNotFoundError)
    choice(_LOAD, "unit", unit, tuple(UNITS))
    reading = Reading(path, dtype, unsupported == "skip")
    if ending == "json":
        with guard.reading(_LOAD, path):
            _read_json(reading)
    else:
        _read_cad(reading, ending, unit, trusted)
    if not reading.splines and not reading.refused:
        raise fail(_LOAD, "path", "a file with splines", f"{path} without any")
    for text in reading.warnings():
        warn(text)
    return reading.splines


@outside_autocast
def save_splines(
    path: str | os.PathLike[str],
    splines: NURBS | Sequence[NURBS],
    *,
    samples: tuple[int, int] = (64, 64),
    unit: str = "mm",
) -> None:
    """Write splines as JSON (geomdl), 3dm (Rhino), IGES or STEP, or surfaces as triangles in OBJ, PLY, STL or GLB.

    The file appears whole or not at all. Periodic axes are written unrolled (see `NURBS.opened`): the same points over
    one period, but no longer marked as periodic. Their knots, like others that are not clamped, are written as they
    are, which all four formats allow.

    JSON holds splines of one kind and any dimension. IGES, STEP and 3dm hold curves and surfaces together, in space:
    points in the plane get z = 0. Degrees are at least 1, at most 25 in IGES and STEP. The same splines make the same
    bytes: files do not say when they were made.

    Args:
        path: the file; its ending says its format, its folder is made where missing. 3dm, IGES and STEP need
            ``pip install geodiff[cad]``.
        splines: one or several, without batch axes; of a batch, save ``[spline[i] for i in range(len)]``.
        samples: points along u and v of each surface, where it becomes triangles.
        unit: of the coordinates, which 3dm, IGES and STEP files say (`load_splines` lists the units); the numbers stay
            as they are, but for yards, which IGES and STEP do not have: they become feet. The other formats have no
            unit.

    Raises:
        ImportError: the library for the format is not installed.
        OSError: the folder cannot be written to.
        TypeError: something other than splines; samples that are not two.
        ValueError: an unknown ending or unit, nothing to save, a batch, NaN, what the format does not hold.

    Example:
        >>> import tempfile, torch, geodiff as gd
        >>> from geodiff.splines.files import save_splines
        >>> net = torch.stack(torch.meshgrid(*[torch.arange(4.0)] * 2, indexing="ij") + (torch.zeros(4, 4),), -1)
        >>> path = tempfile.mkdtemp() + "/square.ply"
        >>> save_splines(path, gd.NURBSSurface(net), samples=(10, 20))
        >>> gd.Mesh.load(path)
        Mesh(vertices=(200, 3), faces=(342, 3), float32, cpu)
    """
    path = pathlib.Path(path)
    ending = _ending(_SAVE, path, _SPLINES + _MESHES)
    choice(_SAVE, "unit", unit, tuple(UNITS))
    several = [splines] if isinstance(splines, NURBS) else splines
    if not isinstance(several, Sequence) or not all(isinstance(spline, NURBS) for spline in several):
        wrong = (
            next((s for s in several if not isinstance(s, NURBS)), several)
            if isinstance(several, Sequence)
            else several
        )
        fix = "Of a trimmed surface, save the surface." if hasattr(wrong, "surface") else ""
        raise fail(_SAVE, "splines", "a NURBS curve, surface or volume, or several", wrong, fix, TypeError)
    if not several:
        raise fail(_SAVE, "splines", "at least one spline", "none")
    if not isinstance(samples, Sequence) or len(samples) != 2:
        raise fail(_SAVE, "samples", "two counts, along u and v", repr(samples), error=TypeError)
    if ending in _MESHES:
        _tessellated(several, samples).save(path)
        return
    plain = [_plain(spline, path) for spline in several]
    with replacing(path, _SAVE) as part:
        if ending == "json":
            text = json.dumps(_json(plain, path), indent=1)
            part.write_text(text, encoding="utf-8")
        elif ending == "3dm":
            from geodiff.splines.files_rhino import write_rhino

            write_rhino(part, [_in_space(spline, path) for spline in plain], unit)
        else:
            from geodiff.splines.files_occ import write_occ

            kind = "iges" if ending in ("igs", "iges") else "step"
            write_occ(part, [_in_space(spline, path) for spline in plain], kind, unit)


def _read_cad(reading: Reading, ending: str, unit: str, trusted: bool) -> None:
    options: dict[str, Any] = {"skip": reading.skip, "unit": unit}
    if ending != "3dm":
        options["kind"] = "iges" if ending in ("igs", "iges") else "step"
    module = f"geodiff.readers.{'rhino' if ending == '3dm' else 'occ'}"
    try:
        facts, arrays = apart.read(module, reading.path, options, trusted=trusted)
    except Missing as error:
        raise needed(error, reading.path) from error
    except Damaged as error:
        raise reading.damaged(str(error)) from error
    reading.notes += facts["notes"]
    rest = iter(arrays)
    for label, degree, rational in facts["splines"]:
        points, weights = next(rest), next(rest) if rational else None
        reading.add(label, points, weights, [next(rest) for _ in degree], degree)
    for what, label, fix in facts["refused"]:
        reading.refuse(what, label, fix)


def _ending(where: str, path: pathlib.Path, known: tuple[str, ...]) -> str:
    ending = path.suffix.lower().removeprefix(".")
    if ending in _MESHES and ending not in known:
        fix = "Triangles are not splines: gd.Mesh.load reads them."
        raise fail(where, "path", f"a file name ending in one of .{', .'.join(known)}", str(path), fix)
    if not ending:
        raise fail(where, "path", f"a file name ending in one of .{', .'.join(known)}", str(path))
    return choice(where, "path", ending, known)


def _plain(spline: NURBS, path: pathlib.Path) -> NURBS:
    """Return what files hold: float64, on the CPU, without graph, batch and periodic axes; checked."""
    name = _NAMES[type(spline)] if type(spline) in _NAMES else type(spline).__name__
    if spline.batch_shape:
        fix = "Save its members: [spline[i] for i in range(len)], or flatten the batch first."
        raise fail(_SAVE, "splines", "without batch axes", f"a {name} of batch {tuple(spline.batch_shape)}", fix)
    if min(spline.degrees) < 1:
        fix = "Of degree 0 there are only steps, which other programs do not read."
        raise fail(_SAVE, "splines", f"of degree 1 or more in {path.suffix} files", f"degree {spline.degrees}", fix)
    for tensor in (spline.control_points, *([] if spline.weights is None else [spline.weights]), *spline.knots):
        check_finite(_SAVE, "splines", tensor)
    return spline.detach().to("cpu", torch.float64).opened()


def _in_space(spline: NURBS, path: pathlib.Path) -> NURBS:
    """Return a curve or surface in three dimensions."""
    if spline.axes > 2:
        fix = "Save volumes as .json, or their faces as surfaces."
        raise fail(_SAVE, "splines", f"curves and surfaces in {path.suffix} files", "a volume", fix)
    if spline.dim not in (2, 3):
        raise fail(_SAVE, "splines", f"of 2 or 3 dimensions in {path.suffix} files", f"D = {spline.dim}", "Use .json.")
    flat = spline.control_points
    if spline.dim == 3:
        return spline
    return spline.replace(control_points=torch.cat([flat, torch.zeros_like(flat[..., :1])], -1))


def _tessellated(splines: Sequence[NURBS], samples: tuple[int, int]) -> Mesh:
    vertices: list[torch.Tensor] = []
    faces: list[torch.Tensor] = []
    count = 0
    for spline in splines:
        if not isinstance(spline, NURBSSurface):
            fix = f"Save curves and volumes as .{', .'.join(_SPLINES)}."
            raise fail(_SAVE, "splines", "surfaces, where they become triangles", repr(spline), fix)
        if spline.batch_shape:
            raise fail(_SAVE, "splines", "without batch axes", repr(spline), "Save its members.")
        mesh = spline.detach().tessellate(*samples)
        vertices.append(mesh.vertices.cpu().double())
        faces.append(mesh.faces.cpu() + count)
        count += mesh.num_vertices
    return Mesh(torch.cat(vertices), torch.cat(faces))


# JSON ----------------------------------------------------------------------------------------------------------------

# geomdl's own defaults for the step at which it samples what it reads.
_DELTA = {1: 0.01, 2: 0.05, 3: 0.1}


def _json(splines: Sequence[NURBS], path: pathlib.Path) -> dict[str, Any]:
    """Lay splines out as geomdl does: control points without their weights, v fastest, then u, then w."""
    kinds = {_NAMES[type(spline)] for spline in splines}
    if len(kinds) > 1:
        fix = "Save each kind into a file of its own."
        raise fail(_SAVE, "splines", f"of one kind in {path.suffix} files", " and ".join(sorted(kinds)), fix)
    data = []
    for spline in splines:
        one = spline.axes == 1
        order = (2, 0, 1) if spline.axes == 3 else tuple(range(spline.axes))
        points = spline.control_points.permute(*order, -1).reshape(-1, spline.dim)
        entry: dict[str, Any] = {"type": "spline", "rational": spline.is_rational, "dimension": spline.dim}
        for name, value in (("degree", spline.degrees), ("knotvector", [k.tolist() for k in spline.knots])):
            entry |= {name if one else f"{name}_{a}": x for a, x in zip(AXIS_NAMES, value, strict=False)}
        if not one:
            entry |= {f"size_{a}": count for a, count in zip(AXIS_NAMES, spline.shape, strict=False)}
        entry["control_points"] = {"points": points.tolist()}
        if spline.weights is not None:
            entry["control_points"]["weights"] = spline.weights.permute(order).reshape(-1).tolist()
        entry["delta"] = _DELTA[1] if one else [_DELTA[spline.axes]] * spline.axes
        data.append(entry)
    return {"shape": {"type": kinds.pop(), "count": len(data), "data": data}}


def _read_json(reading: Reading) -> None:
    try:
        content = json.loads(reading.path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError, OSError) as error:
        raise reading.damaged(f"not JSON: {error}") from error
    shape = content.get("shape") if isinstance(content, dict) else None
    if not isinstance(shape, dict) or shape.get("type") not in KINDS or not isinstance(shape.get("data"), list):
        expected = 'no "shape" with "type" curve, surface or volume and a list "data", as geomdl writes it'
        raise reading.damaged(expected)
    for i, entry in enumerate(shape["data"]):
        label = f"{shape['type']} {i}"
        if not isinstance(entry, dict):
            raise reading.damaged(f"{label} is no object")
        if entry.get("type", "spline") != "spline":
            reading.refuse(f"a spline of type {entry['type']!r}", label, "Its points can be fitted by a spline.")
            continue
        trims = entry.get("trims")
        if trims and (not isinstance(trims, dict) or trims.get("data", True)):
            reading.refuse("trim curves", label, "Delete its trims in the file to read the whole surface.")
            continue
        _add_json(reading, label, entry, KINDS[shape["type"]].axes)


def _add_json(reading: Reading, label: str, entry: dict[str, Any], axes: int) -> None:
    def get(name: str, read: Callable[[Any], Any], source: Any = entry) -> Any:
        if not isinstance(source, dict) or name not in source:
            raise reading.damaged(f"{label} has no {name!r}")
        try:
            return read(source[name])
        except (ValueError, TypeError, OverflowError) as error:
            raise reading.damaged(f"{label}, {name!r}: {error}") from error

    suffixes = [""] if axes == 1 else [f"_{a}" for a in AXIS_NAMES[:axes]]
    degree = [get(f"degree{s}", _integer) for s in suffixes]
    knots = [get(f"knotvector{s}", lambda k: _numbers(k, 1)) for s in suffixes]
    control = get("control_points", lambda c: c)
    points = get("points", lambda p: _numbers(p, 2), control)
    weights = get("weights", lambda w: _numbers(w, 1), control) if "weights" in control else None
    sizes = [len(points)] if axes == 1 else [get(f"size{s}", _integer) for s in suffixes]
    if int(np.prod(sizes)) != len(points):
        text = "×".join(str(n) for n in sizes)
        raise reading.damaged(f"{label} has {len(points)} control points where its sizes say {text}")
    if weights is not None and len(weights) != len(points):
        raise reading.damaged(f"{label} has {len(weights)} weights for {len(points)} control points")
    if axes == 3:  # back from v fastest, then u, then w
        sizes = [sizes[2], sizes[0], sizes[1]]
    points = points.reshape(*sizes, points.shape[1])
    weights = None if weights is None else weights.reshape(sizes)
    if axes == 3:
        points = points.transpose(1, 2, 0, 3)
        weights = None if weights is None else weights.transpose(1, 2, 0)
    reading.add(label, points, weights, knots, degree)


def _integer(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{value!r} is no integer")
    return value


def _numbers(value: Any, dimensions: int) -> np.ndarray:
    array = np.asarray(value, dtype=np.float64)
    if array.ndim != dimensions or array.size == 0:
        kind = "a list of numbers" if dimensions == 1 else "a list of points of one dimension"
        raise ValueError(f"not {kind}")
    return array
