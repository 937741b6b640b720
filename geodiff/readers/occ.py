# SPDX-License-Identifier: Apache-2.0
"""Read B-splines, curves and rectangular faces of IGES and STEP files, through Open CASCADE."""

import contextlib
import math
import pathlib
import tempfile
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from geodiff.readers import iges
from geodiff.readers.shapes import Damaged, Missing, Shapes, Stopped, torus

# Whether to cut IGES splines into smooth pieces, where they come as parts of something: no.
_PIECES = "read.iges.bspline.continuity"
_TRIMMED = "Untrim it, or split it into whole surfaces, where it was made."
# How far, as a fraction of the domain, the border of a face may be from the border of the domain. Files have such gaps
# where a loop was computed in space: 1e-4 of a part is what CAD systems call closed.
_NEAR = 1e-4
_TURN = 2 * math.pi
_FAR = 1e99  # parameters beyond are Open CASCADE's infinity
# Whose damage counts: what shapes are made of. Not styles, dates, names, tolerances.
_GEOMETRY = ("StepGeom_", "StepShape_", "StepRepr_")


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Check that Open CASCADE is there, keep it from printing, and from cutting splines."""
    try:
        from OCP.collections import Array1_double  # noqa: F401  (not in releases before 8)
        from OCP.Message import Message
    except ImportError as error:
        raise Missing("cadquery-ocp-novtk", "OCP >= 8") from error
    from OCP.Interface import Interface_Static

    messenger = Message.DefaultMessenger_s()
    printers = list(messenger.Printers())
    for printer in printers:
        messenger.RemovePrinter(printer)
    continuity = Interface_Static.IVal_s(_PIECES)
    Interface_Static.SetIVal_s(_PIECES, 0)
    try:
        yield
    finally:
        Interface_Static.SetIVal_s(_PIECES, continuity)
        for printer in printers:
            messenger.AddPrinter(printer)


def own(error: Exception) -> None:
    """Raise an error again unless it is Open CASCADE's: its classes have no common base in Python."""
    if not type(error).__module__.startswith("OCP"):
        raise error


def read(path: str, *, kind: str, skip: bool, unit: str) -> tuple[dict[str, Any], list[np.ndarray]]:
    """Read IGES or STEP: B-splines as they are, other curves and rectangular faces converted to NURBS."""
    with quiet():
        shapes = Shapes(skip, unit)
        try:
            (_read_iges if kind == "iges" else _read_step)(shapes, path)
        except Stopped:
            pass
        return shapes.facts(), shapes.arrays


def _read_iges(shapes: Shapes, path: str) -> None:
    from OCP.IGESControl import IGESControl_Controller, IGESControl_Reader

    IGESControl_Controller.Init_s()
    header, whole, odd = iges.verified(path)
    shapes.notes += odd
    if whole is None:
        reader = _opened(IGESControl_Reader(), path)
    else:
        with tempfile.TemporaryDirectory() as folder:
            place = pathlib.Path(folder) / "whole.igs"
            place.write_bytes(whole)
            reader = _opened(IGESControl_Reader(), str(place))
    _check_whole(reader.Model(), "iges")
    section = reader.IGESModel().GlobalSection()
    flag, name = (field.strip().decode(errors="replace") for field in (*header, b"", b"")[:2])
    if not flag and not name:
        shapes.measured_in(None, "inches are assumed, as IGES has it")
        shapes.measured_in(25.4, "")
    elif section.UnitFlag() == 3:  # "see the name", and the name is none that IGES knows
        shapes.measured_in(None, "its numbers are taken for the unit that was asked for")
    else:
        shapes.measured_in(section.UnitValue(), "")
    plain = shapes.scale
    converted = 1.0 if section.UnitFlag() == 3 else 1 / shapes.unit  # what Open CASCADE converts is in millimetres
    for root in range(1, reader.NbRootsForTransfer() + 1):
        entity = reader.RootForTransfer(root)
        label = f"root {root}, IGES {entity.TypeNumber()} ({_kind(entity)})"
        shapes.scale = plain
        if not _add_entity(shapes, label, entity):
            shapes.scale = converted
            _add_root(shapes, label, reader, reader.TransferOneRoot, root)


def _read_step(shapes: Shapes, path: str) -> None:
    from OCP.collections import Sequence_TCollection_AsciiString as Names
    from OCP.STEPControl import STEPControl_Reader

    reader = _opened(STEPControl_Reader(), path)
    _check_whole(reader.Model(), "step")
    units, angles, solid = Names(), Names(), Names()
    reader.FileUnits(units, angles, solid)
    named = [units.Value(i).ToCString() for i in range(1, units.Length() + 1)]
    known = [bool(name) and name != "UNKNOWN" for name in named]
    if any(known):
        shapes.scale = 1 / shapes.unit  # Open CASCADE converts to millimetres
    if not all(known):
        shapes.notes.append("some of its shapes say no unit of length, so their numbers are taken for millimetres")
    if not any(known):  # Open CASCADE leaves the numbers as they are
        shapes.notes.clear()
        shapes.measured_in(None, "its numbers are taken for the unit that was asked for")
    for root in range(1, reader.NbRootsForTransfer() + 1):
        label = f"root {root}, {_kind(reader.RootForTransfer(root))}"
        _add_root(shapes, label, reader, reader.TransferRoot, root)


def _opened(reader: Any, path: str) -> Any:
    from OCP.IFSelect import IFSelect_ReturnStatus

    if reader.ReadFile(path) != IFSelect_ReturnStatus.IFSelect_RetDone:
        raise Damaged("Open CASCADE cannot read it")
    return reader


def _add_root(shapes: Shapes, label: str, reader: Any, transfer: Callable[[int], bool], root: int) -> None:
    reader.ClearShapes()
    try:
        done = transfer(root)
    except Exception as error:
        own(error)
        done = False
    found = [_add_shape(shapes, label, reader.Shape(i)) for i in range(1, reader.NbShapes() + 1)]
    if not (done and any(found)):
        shapes.refuse("something without curves and surfaces", label, "Convert it to B-splines where it was made.")


def _kind(entity: Any) -> str:
    return type(entity).__name__.rpartition("_")[2]


def _check_whole(model: Any, kind: str) -> None:
    """Refuse damage that Open CASCADE notes, but reads round by leaving out or guessing knots, points or entities."""
    for i in range(1, model.NbEntities() + 1):
        entity = model.Entity(i)
        name = type(entity).__name__
        if kind == "step" and (not name.startswith(_GEOMETRY) or "Context" in name):  # contexts give units, or do not
            continue
        label = f"entity {i}, {_kind(entity)}"
        check = model.Check(i, True)
        fails = [str(check.CFail(k)) for k in range(1, check.NbFails() + 1)]
        fails = [text for text in fails if "(context_of_items)" not in text]
        if fails:
            raise Damaged(f"{label}: {fails[0]}")
        if kind == "step" and "BSpline" in label and (model.IsReportEntity(i, True) or not _adds_up(entity)):
            raise Damaged(f"{label}: its knots are out of order, or do not fit its control points")


def _adds_up(entity: Any) -> bool:
    """Whether a B-spline of a STEP file has K + P + 1 knots an axis; true of kinds without knots of their own."""
    if hasattr(entity, "KnotMultiplicities"):
        found = [(entity.KnotMultiplicities(), entity.NbControlPointsList(), entity.Degree())]
    elif hasattr(entity, "UMultiplicities"):
        rows, columns = entity.NbControlPointsListI(), entity.NbControlPointsListJ()
        found = [
            (entity.UMultiplicities(), rows, entity.UDegree()),
            (entity.VMultiplicities(), columns, entity.VDegree()),
        ]
    else:
        return True
    return all(sum(multiplicities) == count + degree + 1 for multiplicities, count, degree in found)


def _add_entity(shapes: Shapes, label: str, entity: Any) -> bool:
    """Read IGES 126 and 128, whose very knots Open CASCADE's own conversion may change; or return False."""
    from OCP.IGESGeom import IGESGeom_BSplineCurve, IGESGeom_BSplineSurface

    def point(*index: int) -> list[float]:
        return _three((entity.TransformedPole if entity.HasTransf() else entity.Pole)(*index))

    if isinstance(entity, IGESGeom_BSplineCurve):
        degree, last = [entity.Degree()], entity.UpperIndex()
        knots = [np.array([entity.Knot(i) for i in range(-degree[0], last + 2)])]
        points: Any = [point(i) for i in range(last + 1)]
        weights: Any = [entity.Weight(i) for i in range(last + 1)]
        found: list[tuple[float, ...]] = [(entity.UMin(), entity.UMax())]
    elif isinstance(entity, IGESGeom_BSplineSurface):
        degree = [entity.DegreeU(), entity.DegreeV()]
        rows, columns = range(entity.UpperIndexU() + 1), range(entity.UpperIndexV() + 1)
        knots = [
            np.array([entity.KnotU(i) for i in range(-degree[0], len(rows) + 1)]),
            np.array([entity.KnotV(i) for i in range(-degree[1], len(columns) + 1)]),
        ]
        points = [[point(i, j) for j in columns] for i in rows]
        weights = [[entity.Weight(i, j) for j in columns] for i in rows]
        # Open CASCADE 8 mixes up UMax and VMin; a release that does not shall do too.
        low, high = (entity.UMin(), entity.VMin()), (entity.UMax(), entity.VMax())
        found = [(*low, *high), (low[0], high[0], low[1], high[1])]
    else:
        return False
    domain = [float(end) for k, p in zip(knots, degree, strict=True) for end in (k[p], k[-p - 1])]
    said = any(high != low for ends in found for low, high in zip(ends[::2], ends[1::2], strict=True))
    if said and not any(np.allclose(ends, domain, rtol=1e-9, atol=0) for ends in found):
        # A part of its domain only; or knots that could not be read, which Open CASCADE passes over.
        signs = np.resize([1.0, -1.0], len(domain))
        part = any((signs * (np.array(ends) - domain) >= 0).all() for ends in found)
        if not part or any((np.diff(k) < 0).any() for k in knots):
            raise Damaged(f"{label}: its knots and its parameter range do not go together")
        return False
    shapes.add(label, points, None if entity.IsPolynomial() else weights, knots, degree)
    return True


def _add_shape(shapes: Shapes, label: str, shape: Any) -> bool:
    """Read the faces of a shape, and its edges without face; return whether there was anything in it."""
    from OCP.TopAbs import TopAbs_ShapeEnum as Kind
    from OCP.TopoDS import TopoDS

    faces = list(_within(shape, Kind.TopAbs_FACE))
    edges = list(_within(shape, Kind.TopAbs_EDGE, Kind.TopAbs_FACE))
    points = list(_within(shape, Kind.TopAbs_VERTEX, Kind.TopAbs_EDGE))
    for face in faces:
        _converted(shapes, label, _add_face, TopoDS.Face(face))
    for edge in edges:
        _converted(shapes, label, _add_edge, TopoDS.Edge(edge))
    if points:
        shapes.refuse("points", label, "Points are not splines; delete them where it was made.")
    return bool(faces or edges or points)


def _converted(shapes: Shapes, label: str, add: Callable[[Shapes, str, Any], None], part: Any) -> None:
    try:
        add(shapes, label, part)
    except Exception as error:
        own(error)
        what = f"something that Open CASCADE does not convert ({error})"
        shapes.refuse(what, label, "Make it a B-spline where it was made.")


def _within(shape: Any, kind: Any, avoid: Any = None) -> Iterator[Any]:
    from OCP.TopExp import TopExp_Explorer

    explorer = TopExp_Explorer(shape, kind) if avoid is None else TopExp_Explorer(shape, kind, avoid)
    while explorer.More():
        yield explorer.Current()
        explorer.Next()


def _add_edge(shapes: Shapes, label: str, edge: Any) -> None:
    from OCP.BRep import BRep_Tool
    from OCP.BRepAdaptor import BRepAdaptor_Curve
    from OCP.Geom import Geom_BSplineCurve, Geom_OffsetCurve, Geom_TrimmedCurve
    from OCP.GeomConvert import GeomConvert

    curve = BRep_Tool.Curve_s(edge, 0.0, 0.0)
    if isinstance(curve, Geom_OffsetCurve):
        shapes.refuse("an offset curve", label, "Make it a B-spline where it was made.")
        return
    ends = BRepAdaptor_Curve(edge)
    low, high = ends.FirstParameter(), ends.LastParameter()
    whole = isinstance(curve, Geom_BSplineCurve) and (low, high) == (curve.FirstParameter(), curve.LastParameter())
    if not whole:
        curve = GeomConvert.CurveToBSplineCurve_s(Geom_TrimmedCurve(curve, low, high))
    periodic = curve.IsPeriodic()
    if periodic:
        curve.SetNotPeriodic()
    points = [_three(curve.Pole(i)) for i in range(1, curve.NbPoles() + 1)]
    weights = [curve.Weight(i) for i in range(1, curve.NbPoles() + 1)] if curve.IsRational() else None
    knots = _expanded(curve.Knots(), curve.Multiplicities(), curve.Degree(), periodic)
    shapes.add(label, points, weights, [knots], [curve.Degree()])


def _add_face(shapes: Shapes, label: str, face: Any) -> None:
    from OCP.BRep import BRep_Tool
    from OCP.BRepTools import BRepTools
    from OCP.Geom import Geom_BSplineSurface, Geom_OffsetSurface, Geom_RectangularTrimmedSurface, Geom_ToroidalSurface
    from OCP.GeomConvert import GeomConvert

    surface = BRep_Tool.Surface_s(face)
    while isinstance(surface, Geom_RectangularTrimmedSurface):
        surface = surface.BasisSurface()
    name = type(surface).__name__.rpartition("_")[2]
    if isinstance(surface, Geom_OffsetSurface):
        shapes.refuse("an offset surface", label, "Make it a B-spline where it was made.")
        return
    bounds = np.array(BRepTools.UVBounds_s(face))
    size = bounds[[1, 3]] - bounds[[0, 2]]
    if not (np.abs(bounds) < _FAR).all() or not (size > 0).all():
        shapes.refuse(f"a {name} without bounds", label, _TRIMMED)
        return
    if not _fills(face, bounds, size):
        shapes.refuse(f"a trimmed {name}", label, _TRIMMED)
        return
    full = isinstance(surface, Geom_ToroidalSurface) and bool((size >= _TURN * (1 - _NEAR)).any())
    if full:  # which Open CASCADE refuses to convert where rounding makes it more than one turn
        shapes.add(label, *_torus(surface, bounds, size), [2, 2])
        return
    whole = isinstance(surface, Geom_BSplineSurface) and bool(
        (np.abs(bounds - surface.Bounds()) <= _NEAR * size.repeat(2)).all()
    )
    if not whole:
        surface = GeomConvert.SurfaceToBSplineSurface_s(Geom_RectangularTrimmedSurface(surface, *bounds.tolist()))
    periodic = surface.IsUPeriodic(), surface.IsVPeriodic()
    if periodic[0]:
        surface.SetUNotPeriodic()
    if periodic[1]:
        surface.SetVNotPeriodic()
    rows, columns = range(1, surface.NbUPoles() + 1), range(1, surface.NbVPoles() + 1)
    points = [[_three(surface.Pole(i, j)) for j in columns] for i in rows]
    rational = surface.IsURational() or surface.IsVRational()
    weights = [[surface.Weight(i, j) for j in columns] for i in rows] if rational else None
    knots = [
        _expanded(surface.UKnots(), surface.UMultiplicities(), surface.UDegree(), periodic[0]),
        _expanded(surface.VKnots(), surface.VMultiplicities(), surface.VDegree(), periodic[1]),
    ]
    shapes.add(label, points, weights, knots, [surface.UDegree(), surface.VDegree()])


def _torus(surface: Any, bounds: np.ndarray, size: np.ndarray) -> tuple[np.ndarray, np.ndarray, list[np.ndarray]]:
    around = surface.Torus()
    place = around.Position()
    axes = (place.XDirection(), place.YDirection(), place.Direction())
    turns = np.where(size >= _TURN * (1 - _NEAR), _TURN, size)
    ends = (bounds[0], bounds[0] + turns[0], bounds[2], bounds[2] + turns[1])
    where = np.array([_three(place.Location()), *(_three(axis) for axis in axes)])
    return torus(where, (around.MajorRadius(), around.MinorRadius()), ends)


def _expanded(knots: Any, multiplicities: Any, degree: int, periodic: bool) -> np.ndarray:
    """Write out repeated knots; where Open CASCADE took a closed spline for periodic, clamp what was clamped."""
    every = np.repeat(list(knots), list(multiplicities))
    for first, last, end in ((1, degree, 0), (-2, -degree - 1, -1)):
        if periodic and every[first] == every[last]:
            every[end] = every[first]  # the outermost knots have no effect
    return every


def _fills(face: Any, bounds: np.ndarray, size: np.ndarray) -> bool:
    """Whether a face is a whole rectangle of its surface's parameters: all its edges are on the rectangle's border."""
    from OCP.BRepAdaptor import BRepAdaptor_Curve2d
    from OCP.TopAbs import TopAbs_ShapeEnum as Kind
    from OCP.TopoDS import TopoDS

    for edge in _within(face, Kind.TopAbs_EDGE):
        curve = BRepAdaptor_Curve2d(TopoDS.Edge(edge), face)
        at = [curve.Value(u) for u in np.linspace(curve.FirstParameter(), curve.LastParameter(), 9)]
        uv = np.array([[p.X(), p.Y()] for p in at])
        off = [np.abs(uv[:, i // 2] - bounds[i]).max() / size[i // 2] for i in range(4)]
        if min(off) > _NEAR:
            return False
    return True


def _three(point: Any) -> list[float]:
    return [point.X(), point.Y(), point.Z()]
