# SPDX-License-Identifier: Apache-2.0
"""Splines from and to Rhino's 3dm files, through rhino3dm."""

import itertools
import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from geodiff.splines.files import Reading, needed
from geodiff.splines.spline import NURBS
from geodiff.validation import fail

# Rhino keeps homogeneous control points (w P, w), and knots without the first and the last, which have no effect.


def _rhino3dm(path: pathlib.Path) -> Any:
    try:
        import rhino3dm
    except ImportError as error:
        raise needed("rhino3dm", "rhino3dm", path) from error
    return rhino3dm


def write_rhino(path: pathlib.Path, splines: Sequence[NURBS]) -> None:
    """Write curves and surfaces in space; its first argument is a file that may be left half done."""
    r = _rhino3dm(path)
    model = r.File3dm()
    for spline in splines:
        homogeneous = spline.homogeneous.numpy()
        orders = [p + 1 for p in spline.degrees]
        if spline.axes == 1:
            made = r.NurbsCurve(3, spline.is_rational, orders[0], spline.shape[0])
            vectors = [made.Knots]
        else:
            made = r.NurbsSurface.Create(3, spline.is_rational, *orders, *spline.shape)
            vectors = [made.KnotsU, made.KnotsV]
        for index in itertools.product(*(range(count) for count in spline.shape)):
            point = r.Point4d(*homogeneous[index].tolist())
            made.Points[index if spline.axes > 1 else index[0]] = point
        for vector, knots in zip(vectors, spline.knots, strict=True):
            for i, knot in enumerate(knots[1:-1].tolist()):
                vector[i] = knot
        if not made.IsValid:
            fix = "Are interior knots repeated more often than the degree, or spans tiny? Save it as .json."
            raise fail("save_splines", "splines", "what Rhino takes for valid", repr(spline), fix)
        (model.Objects.AddCurve if spline.axes == 1 else model.Objects.AddSurface)(made)
    if not model.Write(str(path), 7):  # the version that Rhino 7 and later read
        raise fail("save_splines", "path", "a file that can be written", str(path), "Is the disk full?", OSError)


def read_rhino(reading: Reading) -> None:
    """Read curves, surfaces and untrimmed faces; convert what is not a NURBS, but is one exactly."""
    r = _rhino3dm(reading.path)
    model = r.File3dm.Read(str(reading.path))
    if model is None:
        raise reading.damaged("rhino3dm cannot read it")
    for i, item in enumerate(model.Objects):
        shape = item.Geometry
        label = f"object {i}, a {type(shape).__name__}"
        if isinstance(shape, r.Curve):
            _add_curve(reading, label, shape)
        elif isinstance(shape, r.Brep) and shape.IsSurface:
            _add_surface(reading, label, shape.Faces[0].UnderlyingSurface())
        elif isinstance(shape, r.Brep):
            count = len(shape.Faces)
            what = "trimmed" if count == 1 else f"of {count} faces"
            reading.refuse(f"{label} {what}", "In Rhino, explode it and untrim its faces.")
        elif isinstance(shape, r.Extrusion) or not isinstance(shape, r.Surface):
            mesh = isinstance(shape, r.Mesh)
            fix = "gd.Mesh reads meshes from OBJ, PLY, STL and GLB." if mesh else "In Rhino, convert it to NURBS."
            reading.refuse(label, fix)
        else:
            _add_surface(reading, label, shape)


def _add_curve(reading: Reading, label: str, shape: Any) -> None:
    nurbs = shape.ToNurbsCurve()
    if nurbs is None:
        reading.refuse(label, "In Rhino, convert it to NURBS.")
        return
    points = [nurbs.Points[i] for i in range(len(nurbs.Points))]
    _add(reading, label, np.array([_four(p) for p in points]), nurbs, [nurbs.Knots], [nurbs.Degree])


def _add_surface(reading: Reading, label: str, shape: Any) -> None:
    nurbs = None if shape is None else shape.ToNurbsSurface()
    if nurbs is None:
        reading.refuse(label, "In Rhino, convert it to NURBS.")
        return
    rows, columns = nurbs.Points.CountU, nurbs.Points.CountV
    net = np.array([[_four(nurbs.Points[i, j]) for j in range(columns)] for i in range(rows)])
    _add(reading, label, net, nurbs, [nurbs.KnotsU, nurbs.KnotsV], [nurbs.Degree(0), nurbs.Degree(1)])


def _four(point: Any) -> tuple[float, float, float, float]:
    return point.X, point.Y, point.Z, point.W


def _add(
    reading: Reading, label: str, homogeneous: np.ndarray, nurbs: Any, vectors: Sequence[Any], degree: Sequence[int]
) -> None:
    knots = [np.pad(np.array(list(vector.ToList())), 1, mode="edge") for vector in vectors]
    weights = homogeneous[..., 3]
    if nurbs.IsRational and not (weights > 0).all():
        raise reading.damaged(f"{label} has a weight of {weights.min():g}, not positive")
    points = homogeneous[..., :3] / weights[..., None] if nurbs.IsRational else homogeneous[..., :3]
    reading.add(label, points, weights if nurbs.IsRational else None, knots, degree)
