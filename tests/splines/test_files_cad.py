# SPDX-License-Identifier: Apache-2.0
"""Splines in 3dm, IGES and STEP files, checked against rhino3dm and Open CASCADE."""

import pathlib
import re
import sys
from typing import Any

import numpy as np
import pytest
import torch

from geodiff.splines import NURBS, NURBSCurve, NURBSSurface
from geodiff.splines.files import load_splines, save_splines
from tests.splines import splines
from tests.splines.splines import CASES, ENDINGS, ROUND_TRIP, assert_same, load_here, make, needs


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
@pytest.mark.parametrize("clamped", [True, False], ids=["clamped", "unclamped"])
@pytest.mark.parametrize("ending", ENDINGS)
def test_round_trip(tmp_path: pathlib.Path, ending: str, case: tuple, clamped: bool, capfd: Any) -> None:
    needs(ending)
    spline = make(*case, clamped=clamped)
    save_splines(tmp_path / f"a.{ending}", spline)
    (back,) = load_here(tmp_path / f"a.{ending}")
    assert_same(back, spline, knots=clamped or ending != "3dm")  # Rhino drops two knots, which have no effect
    assert back.is_rational == spline.is_rational
    assert capfd.readouterr() == ("", "")  # Open CASCADE keeps quiet


@pytest.mark.parametrize("ending", ENDINGS)
def test_read_apart_is_the_same(tmp_path: pathlib.Path, ending: str) -> None:
    needs(ending)
    save_splines(tmp_path / f"a.{ending}", [make((5,), (3,), 2), make((4, 4), (2, 3), 3, True)])
    apart, here = load_splines(tmp_path / f"a.{ending}"), load_here(tmp_path / f"a.{ending}")
    for one, other in zip(apart, here, strict=True):
        assert torch.equal(one.homogeneous, other.homogeneous)
        assert all(torch.equal(a, b) for a, b in zip(one.knots, other.knots, strict=True))
    (tmp_path / f"bad.{ending}").write_bytes((tmp_path / f"a.{ending}").read_bytes()[:500])
    with pytest.raises(ValueError, match=rf"a sound file; got .*bad.{ending} \(.*Is the file damaged"):
        load_splines(tmp_path / f"bad.{ending}")


@pytest.mark.parametrize("ending", ENDINGS)
def test_several_of_both_kinds_in_order(tmp_path: pathlib.Path, ending: str) -> None:
    needs(ending)
    splines = [make((5,), (3,), 2), make((4, 4), (2, 3), 3, True), make((6,), (2,), 3, True)]
    save_splines(tmp_path / f"a.{ending}", splines)
    for back, spline in zip(load_here(tmp_path / f"a.{ending}"), splines, strict=True):
        assert_same(back, spline)


@pytest.mark.parametrize("periodic", [(True, False), (True, True)])
@pytest.mark.parametrize("ending", ENDINGS)
def test_periodic_splines_are_written_unrolled(tmp_path: pathlib.Path, ending: str, periodic: tuple) -> None:
    needs(ending)
    spline = make((6, 5), (3, 2), 3, True, periodic=periodic)
    save_splines(tmp_path / f"a.{ending}", spline)
    (back,) = load_here(tmp_path / f"a.{ending}")
    assert back.periodic == (False, False)
    assert_same(back, spline, knots=ending != "3dm")


def sphere() -> NURBSSurface:
    """Make a sphere of radius 2, with poles and a seam, from two arcs (Piegl and Tiller, section 8.5)."""
    half = 0.5**0.5
    square = torch.tensor([[1, 0], [1, 1], [0, 1], [-1, 1], [-1, 0], [-1, -1], [0, -1], [1, -1], [1, 0]]).double()
    arc = torch.tensor([[0, -1], [1, -1], [1, 0], [1, 1], [0, 1]]).double()
    points = torch.cat([square[:, None] * arc[None, :, :1], arc[None, :, 1:].expand(9, 5, 1)], -1)
    corners = torch.tensor([1, half] * 4 + [1]).double()
    weights = corners[:, None] * corners[None, :5]
    turns = [0, 0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 4]
    knots_u, knots_v = torch.tensor(turns).double(), torch.tensor([0, 0, 0, 1, 1, 2, 2, 2]).double()
    return NURBSSurface(2 * points, knots_u, knots_v, weights, (2, 2))


@pytest.mark.parametrize("ending", ENDINGS)
def test_poles_seams_and_creases(tmp_path: pathlib.Path, ending: str) -> None:
    needs(ending)
    radius = sphere().grid(20, 20).norm(dim=-1)
    torch.testing.assert_close(radius, torch.full_like(radius, 2.0))
    crease = NURBSCurve(torch.rand(7, 3).double(), torch.tensor([0, 0, 0, 0, 1, 1, 1, 2, 2, 2, 2]).double())
    save_splines(tmp_path / f"a.{ending}", [sphere(), crease])
    ball, bent = load_here(tmp_path / f"a.{ending}")
    assert_same(ball, sphere())
    assert_same(bent, crease)


# 3dm -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
@pytest.mark.parametrize("clamped", [True, False], ids=["clamped", "unclamped"])
def test_rhino_evaluates_what_we_write(tmp_path: pathlib.Path, case: tuple, clamped: bool) -> None:
    rhino = pytest.importorskip("rhino3dm")
    spline = make(*case, clamped=clamped)
    save_splines(tmp_path / "a.3dm", [spline])
    shape = rhino.File3dm.Read(str(tmp_path / "a.3dm")).Objects[0].Geometry
    domains = [shape.Domain] if spline.axes == 1 else [shape.Domain(0), shape.Domain(1)]
    for (low, high), domain in zip(spline.domain, domains, strict=True):
        assert (domain.T0, domain.T1) == (float(low), float(high))
    parameters, expected = inside(spline)
    found = [shape.PointAt(*p) for p in parameters]
    points = torch.tensor([[p.X, p.Y, p.Z] for p in found], dtype=torch.float64)
    torch.testing.assert_close(points, expected, rtol=0, atol=ROUND_TRIP)


def inside(spline: NURBS) -> tuple[list[list[float]], torch.Tensor]:
    """Return parameters within the domain, and the points there, in space."""
    at = [torch.linspace(float(low), float(high), 9, dtype=torch.float64)[1:-1] for low, high in spline.domain]
    combinations = torch.cartesian_prod(*at).reshape(-1, spline.axes)
    points = torch.nn.functional.pad(spline(*combinations.unbind(-1)), (0, 3 - spline.dim))
    return combinations.tolist(), points


def test_what_rhino_made(tmp_path: pathlib.Path) -> None:
    rhino = pytest.importorskip("rhino3dm")
    circle = rhino.Circle(rhino.Point3d(1, 2, 3), 2.0)
    path, model = tmp_path / "made.3dm", rhino.File3dm()
    model.Objects.AddLine(rhino.Point3d(0, 0, 0), rhino.Point3d(3, 4, 0))
    model.Objects.AddCircle(circle)
    model.Objects.AddBrep(rhino.Brep.CreateFromCylinder(rhino.Cylinder(circle, 5.0), False, False))
    plane = rhino.NurbsCurve(2, False, 3, 3)
    for i, (x, y) in enumerate([(1, 0), (1, 1), (0, 1)]):
        plane.Points[i] = rhino.Point4d(x, y, 0, 1)
    for i, knot in enumerate([0, 0, 1, 1]):
        plane.Knots[i] = knot
    model.Objects.AddCurve(plane)
    model.Write(str(path), 7)
    line, ring, tube, flat = load_here(path)
    torch.testing.assert_close(line.grid(2), torch.tensor([[0, 0, 0], [3, 4, 0]]).double())
    center = torch.tensor([1.0, 2, 3]).double()
    distance = (ring.grid(30) - center).norm(dim=-1)
    torch.testing.assert_close(distance, torch.full_like(distance, 2.0), rtol=0, atol=ROUND_TRIP)
    assert isinstance(tube, NURBSSurface)
    distance = (tube.grid(30, 7) - center)[..., :2].norm(dim=-1)
    torch.testing.assert_close(distance, torch.full_like(distance, 2.0), rtol=0, atol=ROUND_TRIP)
    torch.testing.assert_close(flat(0.5)[:2], torch.tensor([0.75, 0.75]).double())

    model.Objects.AddBrep(rhino.Brep.CreateFromBox(rhino.Box(rhino.BoundingBox(0, 0, 0, 1, 1, 1))))
    model.Write(str(path), 7)
    with pytest.raises(ValueError, match=r"made.3dm with object 4: a Brep of 6 faces. In Rhino, explode it"):
        load_here(path)
    model.Objects.AddPoint(1.0, 2.0, 3.0)
    model.Objects.AddMesh(rhino.Mesh())
    model.Write(str(path), 7)
    with pytest.warns(UserWarning) as caught:
        assert len(load_here(path, unsupported="skip")) == 4
    (warning,) = caught  # one for all that was left out, where the caller is
    assert warning.filename == splines.__file__
    said = str(warning.message)
    for text in (
        "left out 3 of 7",
        "a Brep of 6 faces (object 4)",
        "a Point (object 5)",
        "a Mesh (object 6)",
        "gd.Mesh reads meshes from OBJ",
    ):
        assert text in said


def test_trimmed_faces_of_rhino(tmp_path: pathlib.Path) -> None:
    rhino = pytest.importorskip("rhino3dm")
    border = rhino.Circle(rhino.Point3d(0, 0, 0), 1.0).ToNurbsCurve()
    brep = rhino.Brep.CreateTrimmedPlane(rhino.Plane.WorldXY(), border)
    path, model = tmp_path / "trimmed.3dm", rhino.File3dm()
    model.Objects.AddBrep(brep)
    model.Write(str(path), 7)
    with pytest.raises(
        ValueError, match=r"trimmed.3dm with object 0: a Brep that is trimmed. In Rhino, explode it and untrim"
    ):
        load_here(path)


# IGES and STEP -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
@pytest.mark.parametrize("clamped", [True, False], ids=["clamped", "unclamped"])
@pytest.mark.parametrize("ending", ["iges", "stp"])
def test_open_cascade_evaluates_what_we_write(tmp_path: pathlib.Path, ending: str, case: tuple, clamped: bool) -> None:
    needs(ending)
    from OCP.BRep import BRep_Tool
    from OCP.BRepAdaptor import BRepAdaptor_Curve
    from OCP.IGESControl import IGESControl_Reader
    from OCP.Interface import Interface_Static
    from OCP.STEPControl import STEPControl_Reader
    from OCP.TopAbs import TopAbs_ShapeEnum
    from OCP.TopExp import TopExp_Explorer
    from OCP.TopoDS import TopoDS

    spline = make(*case, clamped=clamped)
    save_splines(tmp_path / f"a.{ending}", spline)
    reader = (IGESControl_Reader if ending == "iges" else STEPControl_Reader)()
    reader.ReadFile(str(tmp_path / f"a.{ending}"))
    Interface_Static.SetIVal_s("read.iges.bspline.continuity", 0)  # in one piece, corners and all
    reader.TransferRoots()
    parameters, expected = inside(spline)
    if spline.axes == 1:
        shape = TopExp_Explorer(reader.OneShape(), TopAbs_ShapeEnum.TopAbs_EDGE).Current()
        curve = BRepAdaptor_Curve(TopoDS.Edge(shape))
        assert (curve.FirstParameter(), curve.LastParameter()) == tuple(float(end) for end in spline.domain[0])
        found = [curve.Value(*p) for p in parameters]
    else:
        shape = TopExp_Explorer(reader.OneShape(), TopAbs_ShapeEnum.TopAbs_FACE).Current()
        surface = BRep_Tool.Surface_s(TopoDS.Face(shape))
        assert surface.Bounds() == tuple(float(end) for ends in spline.domain for end in ends)
        found = [surface.Value(*p) for p in parameters]
    points = torch.tensor([[p.X(), p.Y(), p.Z()] for p in found], dtype=torch.float64)
    torch.testing.assert_close(points, expected, rtol=0, atol=ROUND_TRIP)


def write_shape(path: pathlib.Path, shape: Any) -> None:
    """Write a shape of Open CASCADE with its own writers."""
    from OCP.IGESControl import IGESControl_Controller, IGESControl_Writer
    from OCP.STEPControl import STEPControl_StepModelType, STEPControl_Writer

    if path.suffix == ".igs":
        IGESControl_Controller.Init_s()
        writer = IGESControl_Writer("MM", 0)
        writer.AddShape(shape)
        writer.ComputeModel()
    else:
        writer = STEPControl_Writer()
        writer.Transfer(shape, STEPControl_StepModelType.STEPControl_AsIs)
    writer.Write(str(path))


# Open CASCADE's own writers round to 9 digits in IGES, and to 12 in STEP.
ROUNDED = {"igs": 1e-8, "step": 1e-11}


@pytest.mark.parametrize("ending", ROUNDED)
def test_circles_and_cylinders_are_converted(tmp_path: pathlib.Path, ending: str) -> None:
    needs(ending)
    from OCP.BRepBuilderAPI import BRepBuilderAPI_MakeEdge, BRepBuilderAPI_MakeFace
    from OCP.gp import gp_Ax2, gp_Ax3, gp_Circ, gp_Cylinder, gp_Dir, gp_Pnt

    path = tmp_path / f"a.{ending}"
    up = gp_Dir(0.0, 0.0, 1.0)
    write_shape(path, BRepBuilderAPI_MakeEdge(gp_Circ(gp_Ax2(gp_Pnt(1, 2, 3), up), 2.0), 0.5, 2.5).Edge())
    (arc,) = load_here(path)
    angle = torch.tensor([0.5, 2.5]).double()
    ends = torch.stack([1 + 2 * angle.cos(), 2 + 2 * angle.sin(), torch.full_like(angle, 3.0)], -1)
    torch.testing.assert_close(arc.grid(2), ends, rtol=0, atol=ROUNDED[ending])
    distance = (arc.grid(30) - torch.tensor([1.0, 2, 3]).double()).norm(dim=-1)
    torch.testing.assert_close(distance, torch.full_like(distance, 2.0), rtol=0, atol=ROUNDED[ending])

    tube = gp_Cylinder(gp_Ax3(gp_Pnt(0, 0, 0), up), 2.0)
    write_shape(path, BRepBuilderAPI_MakeFace(tube, 0.0, 2 * np.pi, -1.0, 4.0).Face())
    (back,) = load_here(path)
    points = back.grid(20, 20)
    distance = points[..., :2].norm(dim=-1)
    torch.testing.assert_close(distance, torch.full_like(distance, 2.0), rtol=0, atol=ROUNDED[ending])
    assert float(points[..., 2].min()) == pytest.approx(-1.0, abs=ROUNDED[ending])
    assert float(points[..., 2].max()) == pytest.approx(4.0, abs=ROUNDED[ending])


@pytest.mark.parametrize("ending", ROUNDED)
def test_trimmed_faces_are_refused_or_skipped(tmp_path: pathlib.Path, ending: str) -> None:
    needs(ending)
    from OCP.BRep import BRep_Builder
    from OCP.BRepBuilderAPI import BRepBuilderAPI_MakeEdge, BRepBuilderAPI_MakeFace, BRepBuilderAPI_MakeWire
    from OCP.gp import gp_Ax2, gp_Circ, gp_Dir, gp_Pln, gp_Pnt
    from OCP.TopoDS import TopoDS_Compound

    up = gp_Dir(0.0, 0.0, 1.0)
    ring = BRepBuilderAPI_MakeEdge(gp_Circ(gp_Ax2(gp_Pnt(0, 0, 0), up), 1.0)).Edge()
    disc = BRepBuilderAPI_MakeFace(gp_Pln(gp_Pnt(0, 0, 0), up), BRepBuilderAPI_MakeWire(ring).Wire()).Face()
    whole = BRepBuilderAPI_MakeFace(gp_Pln(gp_Pnt(0, 0, 0), up), 0.0, 1.0, 0.0, 2.0).Face()
    both = TopoDS_Compound()
    BRep_Builder().MakeCompound(both)
    BRep_Builder().Add(both, disc)
    BRep_Builder().Add(both, whole)
    path = tmp_path / f"trimmed.{ending}"
    write_shape(path, both)
    with pytest.raises(ValueError, match=rf"trimmed.{ending} with root 1, .*: a trimmed .*. Untrim it, or split it"):
        load_here(path)
    with pytest.warns(UserWarning, match=rf"left out 1 of 2 parts of .*trimmed.{ending}: a trimmed .* \(root 1, "):
        (square,) = load_here(path, unsupported="skip")
    assert float(square.grid(2, 2).reshape(-1, 3).norm(dim=-1).max()) == pytest.approx(5**0.5, abs=1e-8)


@pytest.mark.parametrize("ending", ROUNDED)
def test_points_are_refused(tmp_path: pathlib.Path, ending: str) -> None:
    needs(ending)
    from OCP.BRepBuilderAPI import BRepBuilderAPI_MakeVertex
    from OCP.gp import gp_Pnt

    write_shape(tmp_path / f"a.{ending}", BRepBuilderAPI_MakeVertex(gp_Pnt(1, 2, 3)).Vertex())
    with pytest.raises(ValueError, match=rf"a.{ending} with root 1, .*: points. Points are not splines"):
        load_here(tmp_path / f"a.{ending}")


def test_iges_in_inches(tmp_path: pathlib.Path) -> None:
    needs("igs")
    splines = [make((6,), (2,), 3, True), make((5, 6), (3, 2), 3, True)]
    save_splines(tmp_path / "a.igs", splines)
    text = (tmp_path / "a.igs").read_text()
    assert "2,2HMM,1," in text
    (tmp_path / "a.igs").write_text(text.replace("2,2HMM,1,", "1,2HIN,1,"))
    for back, spline in zip(load_here(tmp_path / "a.igs"), splines, strict=True):
        assert_same(back, spline.replace(control_points=25.4 * spline.control_points))

    (tmp_path / "a.igs").write_text(text.replace("2,2HMM,1,", "0,2HQQ,1,"))
    with pytest.raises(ValueError, match=r"a sound file; got .*a.igs \(its header gives no unit of length\)"):
        load_here(tmp_path / "a.igs")


def test_iges_of_a_part_of_a_domain(tmp_path: pathlib.Path) -> None:
    needs("igs")
    # Of degree 1, and so with corners, which Open CASCADE would cut it at if left to itself.
    path, spline = tmp_path / "a.igs", make((6,), (1,), 3, True)
    save_splines(path, spline)
    before, low, after = path.read_text().rpartition("-1.5000000000000000E+00")
    path.write_text(before + "-1.0000000000000000E+00" + after)
    assert low
    (back,) = load_here(path)
    assert [float(end) for end in back.domain[0]] == [-1.0, 2.0]
    at = torch.linspace(-1, 2, 20).double()
    torch.testing.assert_close(back(at), spline(at), rtol=0, atol=ROUND_TRIP)


# What is refused -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ending", ENDINGS)
def test_saving_refuses(tmp_path: pathlib.Path, ending: str) -> None:
    needs(ending)
    path = tmp_path / f"a.{ending}"
    with pytest.raises(
        ValueError, match=rf"curves and surfaces in .{ending} files; got a volume. Save volumes as .json"
    ):
        save_splines(path, make((3, 3, 3), (1, 1, 1)))
    with pytest.raises(ValueError, match=rf"of 2 or 3 dimensions in .{ending} files; got D = 4. Use .json"):
        save_splines(path, make((5,), (3,), 4))
    torn = NURBSCurve(torch.rand(8, 3).double(), torch.tensor([0] * 4 + [1] * 4 + [2] * 4).double())
    with pytest.raises(ValueError, match=r"what (Rhino|Open CASCADE) takes for valid; got NURBSCurve\(\(8,\)"):
        save_splines(path, torn)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "ending, module", [("3dm", "rhino3dm"), ("igs", "OCP.collections"), ("step", "OCP.collections")]
)
def test_a_missing_library_is_explained(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, ending: str, module: str
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    path = tmp_path / f"a.{ending}"
    message = rf'.{ending} files need .* which is not installed: pip install "geodiff\[cad\]", or use .json'
    with pytest.raises(ImportError, match=message):
        save_splines(path, make((5,), (3,)))
    assert list(tmp_path.iterdir()) == []
    path.write_text("something")
    with pytest.raises(ImportError, match=message):
        load_here(path)


@pytest.mark.parametrize("ending", ENDINGS)
def test_a_failed_save_leaves_the_old_file(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, ending: str
) -> None:
    needs(ending)
    path = tmp_path / f"a.{ending}"
    save_splines(path, make((5,), (3,)))
    old = path.read_bytes()
    if ending == "3dm":
        import rhino3dm

        class Full(rhino3dm.File3dm):  # type: ignore[misc]
            def Write(self, path: str, version: int) -> bool:
                pathlib.Path(path).write_bytes(b"half")
                return False

        monkeypatch.setattr(rhino3dm, "File3dm", Full)
        message = r"`path` must be a file that can be written; got .*Is the disk full"
    else:
        from geodiff.splines import files_occ

        class Silent:
            def Print(self, stream: Any) -> bool:
                return False

        whole = files_occ._printed
        monkeypatch.setattr(files_occ, "_printed", lambda writer: whole(Silent()))
        message = r"`splines` must be what Open CASCADE can write"
    with pytest.raises((OSError, ValueError), match=message):
        save_splines(path, make((6,), (3,)))
    assert path.read_bytes() == old
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


def test_what_a_library_does_not_convert() -> None:
    needs("step")
    from OCP.Geom import Geom_OffsetCurve
    from OCP.gp import gp_Dir

    from geodiff.readers import occ
    from geodiff.readers.shapes import Damaged, Shapes

    shapes = Shapes(skip=True, unit="mm")

    def offset(*_: Any) -> None:
        Geom_OffsetCurve(None, 1.0, gp_Dir(0.0, 0.0, 0.0))

    occ._converted(shapes, "root 1", offset, None)
    ((what, label, _),) = shapes.refused
    assert label == "root 1"
    assert re.match(r"something that Open CASCADE does not convert \(.*norm", what)

    def damaged(*_: Any) -> None:
        raise Damaged("badly")

    with pytest.raises(Damaged, match="badly"):
        occ._converted(shapes, "root 1", damaged, None)


def test_offsets_are_refused(tmp_path: pathlib.Path) -> None:
    needs("step")
    from OCP.BRepBuilderAPI import BRepBuilderAPI_MakeEdge, BRepBuilderAPI_MakeFace
    from OCP.Geom import Geom_OffsetCurve, Geom_OffsetSurface
    from OCP.gp import gp_Dir

    from geodiff.readers.occ import _add_edge
    from geodiff.readers.shapes import Shapes
    from geodiff.splines.files_occ import _geometry

    curve = Geom_OffsetCurve(_geometry(make((6,), (3,))), 0.01, gp_Dir(0.0, 0.0, 1.0))
    edge = BRepBuilderAPI_MakeEdge(curve).Edge()
    write_shape(tmp_path / "a.step", edge)  # Open CASCADE writes nothing but the product
    with pytest.raises(ValueError, match=r"a.step with root 1, ProductDefinition: .* Convert it to B-splines"):
        load_here(tmp_path / "a.step")
    shapes = Shapes(skip=True, unit="mm")
    _add_edge(shapes, "root 1", edge)
    assert shapes.refused == [("an offset curve", "root 1", "Make it a B-spline where it was made.")]
    surface = Geom_OffsetSurface(_geometry(make((6, 5), (3, 3))), 0.01)
    write_shape(tmp_path / "a.step", BRepBuilderAPI_MakeFace(surface, 1e-7).Face())
    with pytest.raises(ValueError, match=r"a.step with root 1, .*: an offset surface. Make it a B-spline"):
        load_here(tmp_path / "a.step")


def test_what_rhino_does_not_convert(tmp_path: pathlib.Path) -> None:
    rhino = pytest.importorskip("rhino3dm")
    from geodiff.readers.rhino import _Model
    from geodiff.readers.shapes import Shapes

    class Odd:
        def ToNurbsCurve(self) -> None: ...

        def ToNurbsSurface(self) -> None: ...

    reader = _Model(rhino, rhino.File3dm(), Shapes(skip=True, unit="mm"))
    for add in (reader.add_curve, reader.add_surface):
        add("object 1", Odd(), None)
    assert reader.shapes.refused == [("an Odd", "object 1", "In Rhino, convert it to NURBS.")] * 2
    curve = rhino.NurbsCurve(3, True, 2, 2)
    curve.Points[0], curve.Points[1] = rhino.Point4d(0, 0, 0, 1), rhino.Point4d(1, 0, 0, -1)
    curve.Knots[0], curve.Knots[1] = 0.0, 1.0
    model = rhino.File3dm()
    model.Objects.AddCurve(curve)
    model.Write(str(tmp_path / "a.3dm"), 7)
    with pytest.raises(ValueError, match=r"a.3dm \(object 0, a NurbsCurve has a weight of -1, not positive"):
        load_here(tmp_path / "a.3dm")
