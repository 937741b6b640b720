# SPDX-License-Identifier: Apache-2.0
"""Splines from and to IGES (entities 126 and 128) and STEP files, through Open CASCADE."""

import io
import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from geodiff.readers.occ import own, quiet
from geodiff.readers.shapes import Missing
from geodiff.splines.reading import needed
from geodiff.splines.spline import NURBS
from geodiff.validation import fail

# All 17 digits. (Open CASCADE writes 9 or 12; asked for more in its default style it cuts off exponents.)
_FORMAT = "%.16E"
# Open CASCADE's names of units. Neither format has the yard: it becomes three feet.
_UNITS = {"um": "UM", "mm": "MM", "cm": "CM", "m": "M", "km": "KM", "in": "INCH", "ft": "FT", "mi": "MI"}
# The same splines make the same bytes, so the files do not say when they were made.
_STEP_UNITS = ("write.step.unit", "xstep.cascade.unit")  # of the file, and of the numbers that it is given
_DATE = "2000-01-01T00:00:00"


def write_occ(path: pathlib.Path, splines: Sequence[NURBS], kind: str, unit: str) -> None:
    """Write curves and surfaces in space, in a unit of length, as ``kind``, "iges" or "step"."""
    if unit == "yd":
        splines, unit = [spline.replace(control_points=3 * spline.control_points) for spline in splines], "ft"
    try:
        path.write_bytes(_content(splines, kind, unit))
    except Missing as error:
        raise needed(error, path) from error


def _content(splines: Sequence[NURBS], kind: str, unit: str) -> bytes:
    with quiet():
        shapes = []
        for spline in splines:
            try:
                shapes.append(_geometry(spline))
            except Exception as error:
                own(error)
                fix = "Degrees above 25 and jumps at interior knots are not taken. Save it as .json."
                got = f"{spline!r} ({error})"
                raise fail("save_splines", "splines", "what Open CASCADE takes for valid", got, fix) from error
        return (_iges if kind == "iges" else _step)(shapes, _UNITS[unit])


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


def _iges(shapes: Sequence[Any], unit: str) -> bytes:
    from OCP.Geom import Geom_Curve
    from OCP.GeomToIGES import GeomToIGES_GeomCurve, GeomToIGES_GeomSurface
    from OCP.IGESControl import IGESControl_Controller, IGESControl_Writer
    from OCP.IGESData import IGESData_IGESWriter
    from OCP.IGESSelect import IGESSelect_WorkLibrary
    from OCP.TCollection import TCollection_HAsciiString

    IGESControl_Controller.Init_s()
    control = IGESControl_Writer(unit, 0)
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
    date = TCollection_HAsciiString(_DATE[:10].replace("-", "") + "." + _DATE[11:].replace(":", ""))
    header = control.Model().GlobalSection()
    header.SetDate(date)
    header.SetLastChangeDate(date)
    control.Model().SetGlobalSection(header)
    writer = IGESData_IGESWriter(control.Model())
    writer.FloatWriter().SetFormat(_FORMAT)
    writer.SendModel(IGESSelect_WorkLibrary.DefineProtocol_s())
    return _printed(writer)


def _step(shapes: Sequence[Any], unit: str) -> bytes:
    from OCP.APIHeaderSection import APIHeaderSection_MakeHeader
    from OCP.BRepBuilderAPI import BRepBuilderAPI_MakeEdge, BRepBuilderAPI_MakeFace
    from OCP.Geom import Geom_Curve
    from OCP.Interface import Interface_Static
    from OCP.StepAP214 import StepAP214
    from OCP.StepBasic import StepBasic_Product
    from OCP.STEPControl import STEPControl_Controller, STEPControl_StepModelType, STEPControl_Writer
    from OCP.StepData import StepData_StepWriter
    from OCP.TCollection import TCollection_HAsciiString

    STEPControl_Controller.Init_s()
    before = [Interface_Static.CVal_s(name) for name in _STEP_UNITS]
    for name in _STEP_UNITS:
        Interface_Static.SetCVal_s(name, unit)
    control = STEPControl_Writer()
    try:
        for shape in shapes:
            if isinstance(shape, Geom_Curve):
                body = BRepBuilderAPI_MakeEdge(shape).Edge()
            else:
                body = BRepBuilderAPI_MakeFace(shape, 1e-7).Face()
            control.Transfer(body, STEPControl_StepModelType.STEPControl_AsIs)
    finally:
        for name, value in zip(_STEP_UNITS, before, strict=True):
            Interface_Static.SetCVal_s(name, value)
    model = control.Model()
    APIHeaderSection_MakeHeader(model).SetTimeStamp(TCollection_HAsciiString(_DATE))
    entities = (model.Entity(i) for i in range(1, model.NbEntities() + 1))
    products = [entity for entity in entities if isinstance(entity, StepBasic_Product)]
    for i, product in enumerate(products, 1):  # Open CASCADE counts on from call to call
        name = TCollection_HAsciiString(f"geodiff {i}")
        product.SetId(name)
        product.SetName(name)
    writer = StepData_StepWriter(model)
    writer.FloatWriter().SetFormat(_FORMAT)
    writer.SendModel(StepAP214.Protocol_s())
    return _printed(writer)


def _printed(writer: Any) -> bytes:
    content = io.BytesIO()
    if not writer.Print(content):
        raise fail("save_splines", "splines", "what Open CASCADE can write", "a failure of its writer", "Use .json.")
    return content.getvalue()
