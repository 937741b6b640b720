# SPDX-License-Identifier: Apache-2.0
"""Splines from and to IGES (entities 126 and 128) and STEP files, through Open CASCADE."""

import contextlib
import io
import pathlib
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from geodiff.splines.files import Reading, needed
from geodiff.splines.spline import NURBS
from geodiff.validation import fail

# All 17 digits. (Open CASCADE writes 9 or 12; asked for more in its default style it cuts off exponents.)
_FORMAT = "%.16E"
# Whether to cut IGES splines into smooth pieces, where they come as parts of something: no.
_PIECES = "read.iges.bspline.continuity"
_NUMBER = re.compile(rb"[+-]?(\d+\.?\d*|\.\d+)([EeDd][+-]?\d+)?")
_TRIMMED = "Untrim it, or split it into whole surfaces, where it was made."
# How far, as a fraction of the domain, the border of a face may be from the border of the domain.
_NEAR = 1e-6


@contextlib.contextmanager
def _quiet(path: pathlib.Path) -> Iterator[None]:
    """Check that Open CASCADE is there, keep it from printing, and from cutting splines."""
    try:
        from OCP.collections import Array1_double  # noqa: F401  (not in releases before 8)
        from OCP.Message import Message
    except ImportError as error:
        raise needed("OCP >= 8", "cadquery-ocp-novtk", path) from error
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


def _own(error: Exception) -> None:
    """Raise an error again unless it is Open CASCADE's: its classes have no common base in Python."""
    if not type(error).__module__.startswith("OCP"):
        raise error


# Writing -------------------------------------------------------------------------------------------------------------


def write_occ(path: pathlib.Path, splines: Sequence[NURBS], kind: str) -> None:
    """Write curves and surfaces in space as ``kind``, "iges" or "step"."""
    with _quiet(path):
        shapes = []
        for spline in splines:
            try:
                shapes.append(_geometry(spline))
            except Exception as error:
                _own(error)
                fix = "Degrees above 25 and jumps at interior knots are not taken. Save it as .json."
                got = f"{spline!r} ({error})"
                raise fail("save_splines", "splines", "what Open CASCADE takes for valid", got, fix) from error
        content = (_iges if kind == "iges" else _step)(shapes)
    path.write_bytes(content)


def _geometry(spline: NURBS) -> Any:
    from OCP.collections import Array1_double, Array1_gp_Pnt, Array1_int, Array2_double, Array2_gp_Pnt
    from OCP.Geom import Geom_BSplineCurve, Geom_BSplineSurface
    from OCP.gp import gp_Pnt

    def row(kind: Any, values: Sequence[Any]) -> Any:
        array = kind(1, len(values))
        for i, value in enumerate(values, 1):
            array.SetValue(i, value)
        return array

    def net(kind: Any, values: Sequence[Sequence[Any]]) -> Any:
        array = kind(1, len(values), 1, len(values[0]))
        for i, line in enumerate(values, 1):
            for j, value in enumerate(line, 1):
                array.SetValue(i, j, value)
        return array

    distinct = [np.unique(knots.numpy(), return_counts=True) for knots in spline.knots]
    knots = [row(Array1_double, values.tolist()) for values, _ in distinct]
    counts = [row(Array1_int, number.tolist()) for _, number in distinct]
    points = spline.control_points.tolist()
    if spline.axes == 1:
        poles = row(Array1_gp_Pnt, [gp_Pnt(*p) for p in points])
        weights = [] if spline.weights is None else [row(Array1_double, spline.weights.tolist())]
        return Geom_BSplineCurve(poles, *weights, *knots, *counts, *spline.degrees)
    poles = net(Array2_gp_Pnt, [[gp_Pnt(*p) for p in line] for line in points])
    weights = [] if spline.weights is None else [net(Array2_double, spline.weights.tolist())]
    return Geom_BSplineSurface(poles, *weights, *knots, *counts, *spline.degrees)


def _iges(shapes: Sequence[Any]) -> bytes:
    from OCP.Geom import Geom_Curve
    from OCP.GeomToIGES import GeomToIGES_GeomCurve, GeomToIGES_GeomSurface
    from OCP.IGESControl import IGESControl_Controller, IGESControl_Writer
    from OCP.IGESData import IGESData_IGESWriter
    from OCP.IGESSelect import IGESSelect_WorkLibrary

    IGESControl_Controller.Init_s()
    control = IGESControl_Writer("MM", 0)
    for shape in shapes:
        one = isinstance(shape, Geom_Curve)
        convert = GeomToIGES_GeomCurve() if one else GeomToIGES_GeomSurface()
        convert.SetModel(control.Model())
        convert.SetUnit(1.0)
        if one:
            entity = convert.TransferCurve(shape, shape.FirstParameter(), shape.LastParameter())
        else:
            entity = convert.TransferSurface(shape, *shape.Bounds())
        control.AddEntity(entity)
    control.ComputeModel()
    writer = IGESData_IGESWriter(control.Model())
    writer.FloatWriter().SetFormat(_FORMAT)
    writer.SendModel(IGESSelect_WorkLibrary.DefineProtocol_s())
    return _printed(writer)


def _step(shapes: Sequence[Any]) -> bytes:
    from OCP.BRepBuilderAPI import BRepBuilderAPI_MakeEdge, BRepBuilderAPI_MakeFace
    from OCP.Geom import Geom_Curve
    from OCP.StepAP214 import StepAP214
    from OCP.STEPControl import STEPControl_StepModelType, STEPControl_Writer
    from OCP.StepData import StepData_StepWriter

    control = STEPControl_Writer()
    for shape in shapes:
        if isinstance(shape, Geom_Curve):
            body = BRepBuilderAPI_MakeEdge(shape).Edge()
        else:
            body = BRepBuilderAPI_MakeFace(shape, 1e-7).Face()
        control.Transfer(body, STEPControl_StepModelType.STEPControl_AsIs)
    writer = StepData_StepWriter(control.Model())
    writer.FloatWriter().SetFormat(_FORMAT)
    writer.SendModel(StepAP214.Protocol_s())
    return _printed(writer)


def _printed(writer: Any) -> bytes:
    content = io.BytesIO()
    if not writer.Print(content):
        raise fail("save_splines", "splines", "what Open CASCADE can write", "a failure of its writer", "Use .json.")
    return content.getvalue()


# Reading -------------------------------------------------------------------------------------------------------------


def read_occ(reading: Reading, kind: str) -> None:
    """Read IGES or STEP: B-splines as they are, other curves and rectangular faces converted to NURBS."""
    with _quiet(reading.path):
        from OCP.IFSelect import IFSelect_ReturnStatus
        from OCP.IGESControl import IGESControl_Controller, IGESControl_Reader
        from OCP.STEPControl import STEPControl_Reader

        if kind == "iges":
            IGESControl_Controller.Init_s()
        reader = IGESControl_Reader() if kind == "iges" else STEPControl_Reader()
        if reader.ReadFile(str(reading.path)) != IFSelect_ReturnStatus.IFSelect_RetDone:
            raise reading.damaged("Open CASCADE cannot read it")
        _check_whole(reading, reader.Model(), kind)
        unit = reader.IGESModel().GlobalSection().UnitValue() if kind == "iges" else 1.0
        for root in range(1, reader.NbRootsForTransfer() + 1):
            entity = reader.RootForTransfer(root)
            name = type(entity).__name__.rpartition("_")[2]
            label = f"IGES {entity.TypeNumber()} ({name})" if kind == "iges" else name
            label = f"root {root}, {label}"
            if kind == "iges" and _add_entity(reading, label, entity, unit):
                continue
            reader.ClearShapes()
            try:
                done = reader.TransferOneRoot(root) if kind == "iges" else reader.TransferRoot(root)
            except Exception as error:
                _own(error)
                done = False
            found = [_add_shape(reading, label, reader.Shape(i)) for i in range(1, reader.NbShapes() + 1)]
            if not (done and any(found)):
                reading.refuse(label, "Convert it to B-splines where it was made.")


def _check_whole(reading: Reading, model: Any, kind: str) -> None:
    """Refuse damage that Open CASCADE notes, but reads round by leaving out or guessing knots, points or entities."""
    if kind == "iges":
        _check_numbers(reading)
    for i in range(1, model.NbEntities() + 1):
        entity = model.Entity(i)
        label = f"entity {i}, {type(entity).__name__.rpartition('_')[2]}"
        check = model.Check(i, True)
        if check.NbFails():
            raise reading.damaged(f"{label}: {check.CFail(1)}")
        if kind == "step" and "BSpline" in label and (model.IsReportEntity(i, True) or not _adds_up(entity)):
            raise reading.damaged(f"{label}: its knots are out of order, or do not fit its control points")


def _check_numbers(reading: Reading) -> None:
    """Refuse an IGES file without end, or with a spline in which something is no number: taken for 0 otherwise."""
    lines = [line for line in reading.path.read_bytes().splitlines() if line.strip()]
    if not lines or lines[-1][72:73] != b"T":  # columns 65 to 72 point to the entity, column 73 names the section
        raise reading.damaged("its end is missing")
    parameters: dict[bytes, list[bytes]] = {}
    for line in lines:
        if line[72:73] == b"P":
            parameters.setdefault(line[64:72].strip(), []).append(line[:64])
    # The header starts with the two delimiters, ",," for the usual comma and semicolon, else such as "1H/,1H!,".
    header = next((line for line in lines if line[72:73] == b"G"), b",,").lstrip()
    comma, rest = (header[2:3], header[4:]) if header.startswith(b"1H") else (b",", header[1:])
    end = rest[2:3] if rest.startswith(b"1H") else b";"
    for entity, rows in parameters.items():
        fields = [field.strip() for field in b"".join(rows).partition(end)[0].split(comma)]
        if fields[0] not in (b"126", b"128"):
            continue
        wrong = next((f for f in fields if f and not _NUMBER.fullmatch(f)), None)
        if wrong is not None:
            text = wrong.decode(errors="replace")
            raise reading.damaged(f"IGES {fields[0].decode()} of directory entry {int(entity)}: {text!r} is no number")


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


def _add_entity(reading: Reading, label: str, entity: Any, unit: float) -> bool:
    """Read IGES 126 and 128, whose very knots Open CASCADE's own conversion may change; or return False."""
    from OCP.IGESGeom import IGESGeom_BSplineCurve, IGESGeom_BSplineSurface

    def point(*index: int) -> list[float]:
        return [unit * x for x in _three((entity.TransformedPole if entity.HasTransf() else entity.Pole)(*index))]

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
    if not any(np.allclose(ends, domain, rtol=1e-9, atol=0) for ends in found):
        # A part of its domain only; or knots that could not be read, which Open CASCADE passes over.
        signs = np.resize([1.0, -1.0], len(domain))
        part = any((signs * (np.array(ends) - domain) >= 0).all() for ends in found)
        if not part or any((np.diff(k) < 0).any() for k in knots):
            raise reading.damaged(f"{label}: its knots and its parameter range do not go together")
        return False
    reading.add(label, points, None if entity.IsPolynomial() else weights, knots, degree)
    return True


def _add_shape(reading: Reading, label: str, shape: Any) -> bool:
    """Read the faces of a shape, and its edges without face; return whether there was anything in it."""
    from OCP.TopAbs import TopAbs_ShapeEnum as Kind
    from OCP.TopoDS import TopoDS

    faces = list(_within(shape, Kind.TopAbs_FACE))
    edges = list(_within(shape, Kind.TopAbs_EDGE, Kind.TopAbs_FACE))
    points = list(_within(shape, Kind.TopAbs_VERTEX, Kind.TopAbs_EDGE))
    for face in faces:
        _converted(reading, label, _add_face, TopoDS.Face(face))
    for edge in edges:
        _converted(reading, label, _add_edge, TopoDS.Edge(edge))
    if points:
        reading.refuse(f"{label}: points", "Points are not splines; delete them where it was made.")
    return bool(faces or edges or points)


def _converted(reading: Reading, label: str, add: Callable[[Reading, str, Any], None], part: Any) -> None:
    try:
        add(reading, label, part)
    except Exception as error:
        _own(error)
        reading.refuse(
            f"{label}: something that Open CASCADE does not convert ({error})", "Make it a B-spline where it was made."
        )


def _within(shape: Any, kind: Any, avoid: Any = None) -> Iterator[Any]:
    from OCP.TopExp import TopExp_Explorer

    explorer = TopExp_Explorer(shape, kind) if avoid is None else TopExp_Explorer(shape, kind, avoid)
    while explorer.More():
        yield explorer.Current()
        explorer.Next()


def _add_edge(reading: Reading, label: str, edge: Any) -> None:
    from OCP.BRep import BRep_Tool
    from OCP.BRepAdaptor import BRepAdaptor_Curve
    from OCP.Geom import Geom_BSplineCurve, Geom_OffsetCurve, Geom_TrimmedCurve
    from OCP.GeomConvert import GeomConvert

    curve = BRep_Tool.Curve_s(edge, 0.0, 0.0)
    if isinstance(curve, Geom_OffsetCurve):
        reading.refuse(f"{label}: an offset curve", "Make it a B-spline where it was made.")
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
    reading.add(label, points, weights, [knots], [curve.Degree()])


def _add_face(reading: Reading, label: str, face: Any) -> None:
    from OCP.BRep import BRep_Tool
    from OCP.BRepTools import BRepTools
    from OCP.Geom import Geom_BSplineSurface, Geom_OffsetSurface, Geom_RectangularTrimmedSurface
    from OCP.GeomConvert import GeomConvert

    surface = BRep_Tool.Surface_s(face)
    name = type(surface).__name__.rpartition("_")[2]
    if isinstance(surface, Geom_OffsetSurface):
        reading.refuse(f"{label}: an offset surface", "Make it a B-spline where it was made.")
        return
    bounds = np.array(BRepTools.UVBounds_s(face))
    size = bounds[[1, 3]] - bounds[[0, 2]]
    if not _fills(face, bounds, size):
        reading.refuse(f"{label}: a trimmed {name}", _TRIMMED)
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
    reading.add(label, points, weights, knots, [surface.UDegree(), surface.VDegree()])


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
