# SPDX-License-Identifier: Apache-2.0
"""What files that people have hold: units, blocks, display styles, missing ranges, loops a little off, whole tori."""

import math
import pathlib
import re
import warnings
from typing import Any

import numpy as np
import pytest
import torch

from geodiff.splines import NURBSCurve, NURBSSurface
from geodiff.splines.files import save_splines
from tests.splines.splines import ENDINGS, ROUND_TRIP, assert_same, load_here, make, needs

# Of the international inch and what follows from it (1959), and of the SI's prefixes.
MILLIMETRES = {"um": 0.001, "mm": 1.0, "cm": 10.0, "m": 1000.0, "km": 1e6, "in": 25.4, "ft": 304.8, "yd": 914.4}


def line(x: float = 10.0) -> NURBSCurve:
    return NURBSCurve(torch.tensor([[0.0, 0.0, 0.0], [x, 0.0, 0.0]], dtype=torch.float64), degree=1)


def length(curve: Any) -> float:
    return float((curve.control_points[-1] - curve.control_points[0]).norm())


# Units ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("unit", MILLIMETRES)
@pytest.mark.parametrize("ending", ENDINGS)
def test_units_of_what_we_write(tmp_path: pathlib.Path, ending: str, unit: str) -> None:
    needs(ending)
    path, spline = tmp_path / f"a.{ending}", make((5, 6), (3, 2), 3, True)
    save_splines(path, spline, unit=unit)
    for other, millimetres in (("mm", 1.0), ("m", 1000.0), ("in", 25.4), (unit, MILLIMETRES[unit])):
        factor = MILLIMETRES[unit] / millimetres
        (back,) = load_here(path, unit=other)
        # In units of its own size the spline is what it was, but for some roundings.
        assert_same(back.replace(control_points=back.control_points / factor), spline)


def test_the_units_that_files_say(tmp_path: pathlib.Path) -> None:
    """What other programs see."""
    needs("3dm"), needs("step")
    import rhino3dm

    for ending in ENDINGS:
        save_splines(tmp_path / f"a.{ending}", line(), unit="in")
    model = rhino3dm.File3dm.Read(str(tmp_path / "a.3dm"))
    assert model.Settings.ModelUnitSystem == rhino3dm.UnitSystem.Inches
    assert model.Objects[0].Geometry.PointAtEnd.X == 10.0
    assert ",1,4HINCH," in (tmp_path / "a.igs").read_text()
    text = (tmp_path / "a.step").read_text()
    assert "CONVERSION_BASED_UNIT('INCH'" in text
    assert "(1.0000000000000000E+01,0.0000" in text  # the numbers stay


def test_a_3dm_in_inches_becomes_a_step_in_millimetres(tmp_path: pathlib.Path) -> None:
    needs("3dm"), needs("step")
    rhino = pytest.importorskip("rhino3dm")
    model = rhino.File3dm()
    model.Settings.ModelUnitSystem = rhino.UnitSystem.Inches
    model.Objects.AddLine(rhino.Point3d(0, 0, 0), rhino.Point3d(10, 0, 0))
    model.Write(str(tmp_path / "a.3dm"), 7)
    read = load_here(tmp_path / "a.3dm")
    assert length(read[0]) == pytest.approx(254.0, rel=1e-15)
    save_splines(tmp_path / "a.step", read)
    assert "(2.5400000000000000E+02,0.0000" in (tmp_path / "a.step").read_text()
    assert length(load_here(tmp_path / "a.step")[0]) == pytest.approx(254.0, rel=1e-15)


RHINO = {
    "Microns": 1e-3, "Centimeters": 10.0, "Decimeters": 100.0, "Meters": 1e3, "Feet": 304.8, "Mils": 0.0254,
    "Microinches": 2.54e-5, "PrinterPoints": 25.4 / 72, "Miles": 1609344.0, "NauticalMiles": 1852000.0,
}  # fmt: skip


@pytest.mark.parametrize("name", [*RHINO, "None", "Unset", "CustomUnits"])
def test_units_of_rhino(tmp_path: pathlib.Path, name: str) -> None:
    rhino = pytest.importorskip("rhino3dm")
    model = rhino.File3dm()
    model.Settings.ModelUnitSystem = getattr(rhino.UnitSystem, name)
    model.Objects.AddLine(rhino.Point3d(0, 0, 0), rhino.Point3d(10, 0, 0))
    model.Write(str(tmp_path / "a.3dm"), 7)
    if name in RHINO:
        assert length(load_here(tmp_path / "a.3dm")[0]) == pytest.approx(10 * RHINO[name], rel=1e-14)
        return
    with pytest.warns(UserWarning, match=r"a.3dm: it says no unit of length, so its numbers are taken for in \(Rhino"):
        (read,) = load_here(tmp_path / "a.3dm", unit="in")
    assert length(read) == 10


IGES_UNITS = {
    "1,2HIN,": 25.4, "3,2HFT,": 304.8, "6,1HM,": 1000.0, "10,2HCM,": 10.0, "9,2HUM,": 0.001, "3,3HMIL,": 0.0254,
    ",2HIN,": 25.4,
}  # fmt: skip


@pytest.mark.parametrize("flag", [*IGES_UNITS, ",,", "3,5HCUBIT,"])
def test_units_of_iges(tmp_path: pathlib.Path, flag: str) -> None:
    needs("igs")
    path = tmp_path / "a.igs"
    save_splines(path, line())
    rows = path.read_text().splitlines()
    (row,) = (i for i, text in enumerate(rows) if "2,2HMM,1," in text)
    rows[row] = rows[row][:72].replace("2,2HMM,1,", flag + "1,").ljust(72)[:72] + rows[row][72:]
    path.write_text("\n".join(rows) + "\n")
    if flag in IGES_UNITS:
        assert length(load_here(path)[0]) == pytest.approx(10 * IGES_UNITS[flag], rel=1e-14)
    elif flag == ",,":  # the standard's default is 1, the inch
        with pytest.warns(UserWarning, match=r"a.igs: it says no unit of length, so inches are assumed, as IGES has"):
            assert length(load_here(path)[0]) == pytest.approx(254)
    else:
        with pytest.warns(UserWarning, match=r"no unit of length, so its numbers are taken for the unit that was ask"):
            assert length(load_here(path, unit="m")[0]) == 10


def test_step_without_a_unit(tmp_path: pathlib.Path) -> None:
    needs("step")
    path = tmp_path / "a.step"
    save_splines(path, line())
    text = path.read_text()
    without = re.sub(r"GLOBAL_UNIT_ASSIGNED_CONTEXT\(\s*\(#\d+,#\d+,#\d+\)\)", "", text)
    assert without != text
    shorter = re.sub(r"(GLOBAL_UNIT_ASSIGNED_CONTEXT\(\s*\()#\d+,", r"\1", text)
    cubit = text.replace("( LENGTH_UNIT() NAMED_UNIT(*) SI_UNIT(.MILLI.,.METRE.) )",
                         "( CONTEXT_DEPENDENT_UNIT('CUBIT') LENGTH_UNIT() NAMED_UNIT(#9001) )")  # fmt: skip
    cubit = cubit.replace("ENDSEC;\nEND-ISO", "#9001=DIMENSIONAL_EXPONENTS(1.,0.,0.,0.,0.,0.,0.);\nENDSEC;\nEND-ISO")
    for changed in (without, shorter, cubit):
        assert changed != text
        path.write_text(changed)
        with pytest.warns(UserWarning, match=r"no unit of length, so its numbers are taken for the unit that was ask"):
            assert length(load_here(path, unit="in")[0]) == 10
    path.write_text(text.replace(".MILLI.", "$"))
    assert length(load_here(path)[0]) == pytest.approx(10000)


def test_unknown_units_are_refused(tmp_path: pathlib.Path) -> None:
    with pytest.raises(ValueError, match=r"save_splines: `unit` must be one of um, mm, .*; got 'inch'"):
        save_splines(tmp_path / "a.json", line(), unit="inch")
    save_splines(tmp_path / "a.json", line(), unit="in")
    assert length(load_here(tmp_path / "a.json", unit="m")[0]) == 10  # JSON has no units
    with pytest.raises(ValueError, match=r"load_splines: `unit` must be one of um, mm, .*; got 'inches'"):
        load_here(tmp_path / "a.json", unit="inches")


# Blocks of Rhino -----------------------------------------------------------------------------------------------------


def block(rhino: Any, model: Any, name: str, parts: list[Any]) -> Any:
    """Define a block; return its id."""
    attributes = tuple(rhino.ObjectAttributes() for _ in parts)
    model.InstanceDefinitions.Add(name, "", "", "", rhino.Point3d(0, 0, 0), tuple(parts), attributes)
    return next(found.Id for found in model.InstanceDefinitions if found.Name == name)


def test_blocks_are_where_they_were_inserted(tmp_path: pathlib.Path) -> None:
    rhino = pytest.importorskip("rhino3dm")
    path, model = tmp_path / "blocks.3dm", rhino.File3dm()
    segment = rhino.LineCurve(rhino.Point3d(0, 0, 0), rhino.Point3d(1, 0, 0))
    arc = rhino.Circle(rhino.Point3d(0, 0, 0), 1.0).ToNurbsCurve()
    block(rhino, model, "unused", [segment])
    inner = block(rhino, model, "inner", [segment, arc])
    turn = rhino.Transform.Rotation(math.pi / 2, rhino.Vector3d(0, 0, 1), rhino.Point3d(0, 0, 0))
    outer = block(rhino, model, "outer", [rhino.InstanceReference(inner, turn)])
    plane = rhino.Plane(rhino.Point3d(0, 0, 0), rhino.Vector3d(0, 0, 1))
    stretched = rhino.Transform.Scale(plane, 2.0, 3.0, 1.0)
    moved = rhino.Transform.Multiply(rhino.Transform.Translation(10, 0, 5), stretched)
    model.Objects.AddCurve(segment)
    model.Objects.Add(rhino.InstanceReference(inner, rhino.Transform.Translation(0, 0, 7)), rhino.ObjectAttributes())
    model.Objects.Add(rhino.InstanceReference(outer, moved), rhino.ObjectAttributes())
    model.Write(str(path), 7)
    found = load_here(path)
    ends = [curve.control_points[[0, -1]] for curve in found if curve.degrees == (1,)]
    # By itself; lifted by 7; turned to (0, 1), stretched to (0, 3), moved by (10, 0, 5).
    expected = [[[0, 0, 0], [1, 0, 0]], [[0, 0, 7], [1, 0, 7]], [[10, 0, 5], [10, 3, 5]]]
    torch.testing.assert_close(torch.stack(ends), torch.tensor(expected).double(), rtol=0, atol=ROUND_TRIP)
    circle, ellipse = (curve.grid(50) for curve in found if curve.degrees == (2,))
    shape = (ellipse - torch.tensor([10.0, 0, 5]).double()) / torch.tensor([2.0, 3.0, 1.0]).double()
    for points, height in ((circle, 7.0), (shape, 0.0)):
        torch.testing.assert_close(points[:, :2].norm(dim=-1), torch.ones(50).double(), rtol=0, atol=ROUND_TRIP)
        torch.testing.assert_close(points[:, 2], torch.full((50,), height).double(), rtol=0, atol=ROUND_TRIP)


def test_blocks_in_another_unit_and_surfaces(tmp_path: pathlib.Path) -> None:
    rhino = pytest.importorskip("rhino3dm")
    path, model = tmp_path / "blocks.3dm", rhino.File3dm()
    model.Settings.ModelUnitSystem = rhino.UnitSystem.Meters
    ball = rhino.Sphere(rhino.Point3d(0, 0, 0), 2.0).ToNurbsSurface()
    own = block(rhino, model, "ball", [ball])
    model.Objects.Add(rhino.InstanceReference(own, rhino.Transform.Translation(1, 2, 3)), rhino.ObjectAttributes())
    model.Write(str(path), 7)
    (back,) = load_here(path)
    radius = (back.grid(12, 9) - torch.tensor([1000.0, 2000.0, 3000.0]).double()).norm(dim=-1)
    torch.testing.assert_close(radius, torch.full_like(radius, 2000.0), rtol=1e-13, atol=0)


def test_broken_blocks_are_named(tmp_path: pathlib.Path) -> None:
    rhino = pytest.importorskip("rhino3dm")
    from geodiff.readers.rhino import _Model
    from geodiff.readers.shapes import Damaged, Shapes

    class Reference:
        ParentIdefId, Xform = "self", rhino.Transform.Identity()

    class Item:
        Geometry, Attributes = Reference(), rhino.ObjectAttributes()

    class Block:
        Name, Id = "linked", "self"

        def __init__(self, *ids: str) -> None:
            self.ids = ids

        def GetObjectIds(self) -> tuple[str, ...]:
            return self.ids

    def insert(block: Block | None, inside: tuple[str, ...] = (), **objects: Any) -> Shapes:
        reader = _Model(rhino, rhino.File3dm(), Shapes(skip=True, unit="mm"))
        reader.by_id, reader.blocks = objects, {} if block is None else {"self": block}
        reader.insert("object 0", Reference(), None, inside)
        return reader.shapes

    assert insert(Block()).refused[0][:2] == ("a block without objects", "object 0 of 'linked'")
    with pytest.raises(Damaged, match="object 0: its block is not in the file"):
        insert(None)
    with pytest.raises(Damaged, match="object 0: an object of its block is not in the file"):
        insert(Block("gone"))
    with pytest.raises(Damaged, match="object 0: a block that holds itself"):
        insert(Block("gone"), ("self",))
    Reference.Xform = rhino.Transform.ZeroTransformation()
    Reference.Xform.M33 = 0.0
    with pytest.raises(Damaged, match="object 0: a block placed by something that is no affine map"):
        insert(Block("gone"))


# Display styles, ranges, loops ---------------------------------------------------------------------------------------

STYLES = """#9001=CURVE_STYLE('',$,POSITIVE_LENGTH_MEASURE(0.1),$);
#9002=POINT_STYLE('',(),$,$);
#9003=PRESENTATION_STYLE_ASSIGNMENT((#9001,#9002));
#9004=APPROVAL_DATE_TIME($,$);
ENDSEC;
END-ISO"""


def test_styles_are_no_damage(tmp_path: pathlib.Path) -> None:
    needs("step")
    path, spline = tmp_path / "a.step", make((6,), (3,))
    save_splines(path, spline)
    text = path.read_text()
    assert text.count("ENDSEC;\nEND-ISO") == 1
    path.write_text(text.replace("ENDSEC;\nEND-ISO", STYLES))
    (back,) = load_here(path)
    assert_same(back, spline)


def without_ranges(text: str, count: int, blank: bool) -> str:
    """Leave out the last parameters of the first entity of an IGES file, or their values, as some programs do."""
    lines = text.splitlines()
    rows = [i for i, row in enumerate(lines) if row[72:73] == "P" and int(row[64:72]) == 1]
    fields = "".join(lines[i][:64].rstrip() for i in rows).rstrip(";").split(",")
    parts = [*(field + "," for field in fields[: len(fields) - count]), *([","] * (count - 1) if blank else [])]
    parts[-1] = parts[-1].rstrip(",") + ";"
    pieces = [""]
    for part in parts:
        if len(pieces[-1] + part) > 64:
            pieces.append("")
        pieces[-1] += part
    pieces += [""] * (len(rows) - len(pieces))  # so many lines the file says
    for i, piece in zip(rows, pieces, strict=True):
        lines[i] = piece.ljust(64) + lines[i][64:]
    return "\n".join(lines) + "\n"


@pytest.mark.parametrize("blank", [False, True], ids=["short", "blank"])
@pytest.mark.parametrize("case, count", [(((5, 6), (3, 2)), 4), (((6,), (3,)), 5)], ids=["128", "126"])
def test_iges_without_ranges(tmp_path: pathlib.Path, case: Any, count: int, blank: bool) -> None:
    needs("igs")
    path, spline, other = tmp_path / "a.igs", make(*case, 3, True), make((7,), (2,))
    save_splines(path, [spline, other])
    path.write_text(without_ranges(path.read_text(), count, blank))
    for back, wanted in zip(load_here(path), [spline, other], strict=True):
        assert_same(back, wanted)


def plane_face(off: float) -> Any:
    """Make a square of a bilinear surface over [0, 100]², one side of its loop off by a part of the domain."""
    from OCP.BRepBuilderAPI import BRepBuilderAPI_MakeFace, BRepBuilderAPI_MakePolygon
    from OCP.gp import gp_Pnt

    from geodiff.splines.files_occ import _geometry

    corners = torch.tensor([[[0.0, 0], [0, 100]], [[100, 0], [100, 100]]]).double()
    net = torch.nn.functional.pad(corners, (0, 1))
    knots = torch.tensor([0.0, 0, 100, 100]).double()
    surface = _geometry(NURBSSurface(net, knots, knots, degree=(1, 1)))
    far = 100 * (1 - off)
    ring = [(0.0, 0.0), (100.0, 0.0), (far, 100.0), (0.0, 100.0)]
    wire = BRepBuilderAPI_MakePolygon(*(gp_Pnt(x, y, 0.0) for x, y in ring), True).Wire()
    return BRepBuilderAPI_MakeFace(surface, wire).Face()


@pytest.mark.parametrize("off, whole", [(1.5e-5, True), (1e-3, False)])
@pytest.mark.parametrize("ending", ["igs", "step"])
def test_loops_a_little_off_the_border(tmp_path: pathlib.Path, ending: str, off: float, whole: bool) -> None:
    needs(ending)
    from tests.splines.test_files_cad import write_shape

    path = tmp_path / f"a.{ending}"
    write_shape(path, plane_face(off))
    if not whole:
        with pytest.raises(ValueError, match=r"a trimmed (BSplineSurface|Plane)"):
            load_here(path)
        return
    (back,) = load_here(path)
    corners = back.grid(2, 2).reshape(-1, 3)
    torch.testing.assert_close(corners.amax(0), torch.tensor([100.0, 100, 0]).double(), rtol=0, atol=2e-3)
    torch.testing.assert_close(corners.amin(0), torch.zeros(3).double(), rtol=0, atol=2e-3)


# Tori ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bounds", [(0, 1, 0, 1), (0, 1, 0.1, 0.4), (0.2, 0.3, 0, 1), (0.3, 1.3, 0.1, 0.2)], ids=str)
@pytest.mark.parametrize("excess", [0.0, 1e-10])
def test_tori_of_a_full_turn(bounds: tuple[float, ...], excess: float) -> None:
    """A torus is (sqrt(x² + y²) - R)² + z² = r² in its own axes; Open CASCADE refuses more than one turn by a bit."""
    needs("step")
    from OCP.Geom import Geom_ToroidalSurface
    from OCP.gp import gp_Ax3, gp_Dir, gp_Pnt, gp_Torus

    from geodiff.readers.occ import _torus

    ends = np.array(bounds) * 2 * math.pi * np.array([1, 1 + excess, 1, 1 + excess])
    place = gp_Ax3(gp_Pnt(1.0, 2.0, 3.0), gp_Dir(1.0, 2.0, 2.0), gp_Dir(2.0, 1.0, -2.0))
    torus = Geom_ToroidalSurface(gp_Torus(place, 3.0, 1.0))
    points, weights, knots = _torus(torus, ends, ends[[1, 3]] - ends[[0, 2]])
    surface = NURBSSurface(
        torch.tensor(points), *(torch.tensor(vector) for vector in knots), weights=torch.tensor(weights), degree=(2, 2)
    ).replace(outside="clamp")
    axes = torch.tensor([[2, 1, -2], [-2, 2, -1], [1, 2, 2]]).double() / 3  # x, y = z × x, z
    local = (surface.grid(41, 41) - torch.tensor([1.0, 2.0, 3.0]).double()) @ axes.T
    ring = local[..., :2].norm(dim=-1) - 3
    torch.testing.assert_close(ring**2 + local[..., 2] ** 2, torch.ones(41, 41).double(), rtol=0, atol=1e-13)
    # Angles at the ends, and halfway, are Open CASCADE's own.
    low, high = [float(end) for end in ends[::2]], [float(end) for end in ends[1::2]]
    for u in (low[0], (low[0] + high[0]) / 2, high[0]):
        for v in (low[1], (low[1] + high[1]) / 2, high[1]):
            value = torus.Value(u, v)
            wanted = torch.tensor([value.X(), value.Y(), value.Z()], dtype=torch.float64)
            at = torch.tensor([u, v], dtype=torch.float64)
            torch.testing.assert_close(surface(*at), wanted, rtol=0, atol=1e-13 + 30 * excess)  # radius 4 times 2π


@pytest.mark.parametrize("ending", ["igs", "step"])
def test_a_whole_torus_in_a_file(tmp_path: pathlib.Path, ending: str) -> None:
    needs(ending)
    from OCP.BRepPrimAPI import BRepPrimAPI_MakeTorus

    from tests.splines.test_files_cad import ROUNDED, write_shape

    path = tmp_path / f"a.{ending}"
    write_shape(path, BRepPrimAPI_MakeTorus(3.0, 1.0).Shape())
    (back,) = load_here(path)
    points = back.grid(30, 30)
    ring = points[..., :2].norm(dim=-1) - 3
    square = ring**2 + points[..., 2] ** 2
    torch.testing.assert_close(square, torch.ones_like(square), rtol=0, atol=10 * ROUNDED[ending])
    assert float(points[..., 0].min()) == pytest.approx(-4, abs=0.1)


# The same bytes ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ending", [*ENDINGS, "json", "obj", "ply", "stl", "glb"])
def test_the_same_splines_make_the_same_bytes(tmp_path: pathlib.Path, monkeypatch: Any, ending: str) -> None:
    """Also in another folder, by another name, at another time, and after other files."""
    if ending in ENDINGS:
        needs(ending)
    surface = make((5, 6), (3, 2), 3, True)
    splines = [surface, make((4, 4), (3, 3), seed=1)]
    first, second = tmp_path / f"a.{ending}", tmp_path / "else" / f"some other name.{ending}"
    save_splines(first, splines)
    import time

    time.sleep(1.05 if ending in ENDINGS else 0)  # their times are in seconds
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        save_splines(second, splines)
    content = first.read_bytes()
    assert content == second.read_bytes()
    assert str(tmp_path).encode() not in content
    assert str(tmp_path).encode("utf-16-le") not in content


def test_rhino_reads_what_was_settled(tmp_path: pathlib.Path) -> None:
    rhino = pytest.importorskip("rhino3dm")
    save_splines(tmp_path / "a.3dm", [make((5,), (3,)), make((5,), (3,))])
    model = rhino.File3dm.Read(str(tmp_path / "a.3dm"))
    assert model.Created.year == model.LastEdited.year == 2000
    assert len({str(item.Attributes.Id) for item in model.Objects}) == 2  # ids differ, the shapes do not
    assert [layer.Name for layer in model.Layers] == ["Default"]
