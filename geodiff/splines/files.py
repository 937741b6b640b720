# SPDX-License-Identifier: Apache-2.0
"""Splines from and to files: the JSON of geomdl, Rhino's 3dm, IGES and STEP; and as triangles."""

import json
import os
import pathlib
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

from geodiff.modes import outside_autocast
from geodiff.scene.atomic import replacing
from geodiff.scene.mesh import Mesh
from geodiff.splines.curve import NURBSCurve
from geodiff.splines.nurbs_volume import NURBSVolume
from geodiff.splines.spline import AXIS_NAMES, NURBS
from geodiff.splines.surface import NURBSSurface
from geodiff.validation import check_finite, choice, fail

_KINDS: dict[str, type[NURBS]] = {"curve": NURBSCurve, "surface": NURBSSurface, "volume": NURBSVolume}
_NAMES = {kind: name for name, kind in _KINDS.items()}
_SPLINES = ("json", "3dm", "igs", "iges", "stp", "step")
_MESHES = ("obj", "ply", "stl", "glb")
_LOAD, _SAVE = "load_splines", "save_splines"


@outside_autocast
def load_splines(
    path: str | os.PathLike[str], *, dtype: torch.dtype = torch.float64, unsupported: str = "error"
) -> list[NURBS]:
    """Read the curves, surfaces and volumes of a JSON (geomdl), 3dm (Rhino), IGES or STEP file, in its order.

    Knots and domains are those of the file. (geomdl itself scales them to [0, 1] when it reads a file.) Rhino's format
    leaves out the first and the last knot, which have no effect: they are made equal to their neighbours. Other curves
    and whole surfaces, such as lines, arcs and cylinders, are converted to NURBS. IGES and STEP are read in
    millimetres, whatever the unit of the file. Names, colours, layers and the sense of faces are not read.

    Args:
        path: the file; its ending says its format. All but JSON need ``pip install geodiff[cad]``.
        dtype: torch.float64 or torch.float32.
        unsupported: what to do with what cannot be such a spline, for example a trimmed surface or a mesh: ``"error"``,
            or ``"skip"`` with a warning.

    Returns:
        splines without batch axes.

    Raises:
        FileNotFoundError: no such file.
        ImportError: the library for the format is not installed.
        ValueError: an unknown ending, a damaged file, one without splines, sizes that do not go together, NaN,
            something unsupported.

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
    reading = Reading(path, dtype, unsupported == "skip")
    if ending == "json":
        _read_json(reading)
    elif ending == "3dm":
        from geodiff.splines.files_rhino import read_rhino

        read_rhino(reading)
    else:
        from geodiff.splines.files_occ import read_occ

        read_occ(reading, "iges" if ending in ("igs", "iges") else "step")
    if not reading.splines and not reading.skipped:
        raise fail(_LOAD, "path", "a file with splines", f"{path} without any")
    return reading.splines


@outside_autocast
def save_splines(
    path: str | os.PathLike[str], splines: NURBS | Sequence[NURBS], *, samples: tuple[int, int] = (64, 64)
) -> None:
    """Write splines as JSON (geomdl), 3dm (Rhino), IGES or STEP, or surfaces as triangles in OBJ, PLY, STL or GLB.

    The file appears whole or not at all. Periodic axes are written unrolled (see `NURBS.opened`): the same points over
    one period, but no longer marked as periodic. Their knots, like others that are not clamped, are written as they
    are, which all four formats allow.

    JSON holds splines of one kind and any dimension. IGES, STEP and 3dm hold curves and surfaces together, in space:
    points in the plane get z = 0; the unit is the millimetre. Degrees are at least 1, at most 25 in IGES and STEP.

    Args:
        path: the file; its ending says its format, its folder is made where missing. 3dm, IGES and STEP need
            ``pip install geodiff[cad]``.
        splines: one or several, without batch axes; of a batch, save ``[spline[i] for i in range(len)]``.
        samples: points along u and v of each surface, where it becomes triangles.

    Raises:
        ImportError: the library for the format is not installed.
        OSError: the folder cannot be written to.
        TypeError: something other than splines; samples that are not two.
        ValueError: an unknown ending, nothing to save, a batch, NaN, what the format does not hold.

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

            write_rhino(part, [_in_space(spline, path) for spline in plain])
        else:
            from geodiff.splines.files_occ import write_occ

            write_occ(part, [_in_space(s, path) for s in plain], "iges" if ending in ("igs", "iges") else "step")


class Reading:
    """What has been read of one file so far, and what happens to what cannot be read.

    Args:
        path: the file, for messages.
        dtype: of the splines.
        skip: pass over what is unsupported, with a warning, rather than raise.
    """

    def __init__(self, path: pathlib.Path, dtype: torch.dtype, skip: bool) -> None:
        self.path = path
        self.dtype = dtype
        self.skip = skip
        self.splines: list[NURBS] = []
        self.skipped = 0

    def add(self, label: str, points: Any, weights: Any, knots: Sequence[Any], degree: Sequence[int]) -> None:
        """Keep a spline: control points `(K…, D)`, weights `(K…)` or None; the number of knot vectors says its kind."""
        kind: Any = tuple(_KINDS.values())[len(knots) - 1]
        try:
            tensors = [torch.as_tensor(np.asarray(k, dtype=np.float64)) for k in knots]
            weights = None if weights is None else torch.as_tensor(np.asarray(weights, dtype=np.float64))
            points = torch.as_tensor(np.asarray(points, dtype=np.float64))
            vectors: Any = {1: tensors[:1], 2: tensors, 3: [tensors]}[len(tensors)]
            spline = kind(points, *vectors, weights=weights, degree=tuple(degree)).to(dtype=self.dtype)
        except (ValueError, TypeError) as error:
            raise self.damaged(f"{label}: {error}") from error
        self.splines.append(spline)

    def refuse(self, label: str, fix: str) -> None:
        """Pass over something unsupported, or raise."""
        if not self.skip:
            hint = f'{fix} Or pass unsupported="skip" to leave it out.'
            raise fail(_LOAD, "path", "a file of NURBS curves, surfaces and volumes", f"{self.path} with {label}", hint)
        self.skipped += 1
        warnings.warn(f"{_LOAD}: left out {label} of {self.path}. {fix}", stacklevel=5)

    def damaged(self, reason: str) -> Exception:
        """Build the error for a file that is not sound."""
        return fail(_LOAD, "path", "a sound file", f"{self.path} ({reason})", "Is the file damaged?")


def needed(module: str, distribution: str, path: pathlib.Path) -> Exception:
    """Build the error for a library that is missing."""
    text = f'{path.suffix} files need {distribution} ({module}), which is not installed: pip install "geodiff[cad]"'
    return ImportError(f"geodiff.splines: {text}, or use .json.")


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
    if not isinstance(shape, dict) or shape.get("type") not in _KINDS or not isinstance(shape.get("data"), list):
        expected = 'no "shape" with "type" curve, surface or volume and a list "data", as geomdl writes it'
        raise reading.damaged(expected)
    for i, entry in enumerate(shape["data"]):
        label = f"{shape['type']} {i}"
        if not isinstance(entry, dict):
            raise reading.damaged(f"{label} is no object")
        if entry.get("type", "spline") != "spline":
            reading.refuse(f"{label} of type {entry['type']!r}", "Its points can be fitted by a spline.")
            continue
        trims = entry.get("trims")
        if trims and (not isinstance(trims, dict) or trims.get("data", True)):
            reading.refuse(f"the trim curves of {label}", "Delete its trims in the file to read the whole surface.")
            continue
        _add_json(reading, label, entry, _KINDS[shape["type"]].axes)


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
