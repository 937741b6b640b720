# SPDX-License-Identifier: Apache-2.0
"""Read curves and surfaces of Rhino's 3dm files, through rhino3dm."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from geodiff.readers.shapes import Damaged, Missing, Shapes, Stopped

# Rhino keeps homogeneous control points (w P, w), and knots without the first and the last, which have no effect.

# Rhino's names of units, in millimetres.
RHINO_UNITS = {
    "Angstroms": 1e-7,
    "Nanometers": 1e-6,
    "Microns": 1e-3,
    "Millimeters": 1.0,
    "Centimeters": 10.0,
    "Decimeters": 100.0,
    "Meters": 1e3,
    "Dekameters": 1e4,
    "Hectometers": 1e5,
    "Kilometers": 1e6,
    "Megameters": 1e9,
    "Gigameters": 1e12,
    "Microinches": 25.4e-6,
    "Mils": 25.4e-3,
    "Inches": 25.4,
    "Feet": 304.8,
    "Yards": 914.4,
    "Miles": 1609344.0,
    "PrinterPoints": 25.4 / 72,
    "PrinterPicas": 25.4 / 6,
    "NauticalMiles": 1852e3,
    "AstronomicalUnits": 149597870700e3,
    "LightYears": 9460730472580800e3,
    "Parsecs": 3.0856775814913673e19,
}
_DEPTH = 100  # of blocks in blocks; Rhino itself makes a handful


def library() -> Any:
    """Return rhino3dm, or raise `Missing`."""
    try:
        import rhino3dm
    except ImportError as error:
        raise Missing("rhino3dm", "rhino3dm") from error
    return rhino3dm


def read(path: str, *, skip: bool, unit: str) -> tuple[dict[str, Any], list[np.ndarray]]:
    """Read curves, surfaces and untrimmed faces, blocks where they were inserted; convert what is exactly a NURBS."""
    r = library()
    shapes = Shapes(skip, unit)
    model = r.File3dm.Read(path)
    if model is None:
        raise Damaged("rhino3dm cannot read it")
    name = model.Settings.ModelUnitSystem.name
    shapes.measured_in(RHINO_UNITS.get(name), f"its numbers are taken for {unit} (Rhino's unit system is {name})")
    try:
        _Model(r, model, shapes).read()
    except Stopped:
        pass
    return shapes.facts(), shapes.arrays


class _Model:
    def __init__(self, r: Any, model: Any, shapes: Shapes) -> None:
        self.r, self.model, self.shapes = r, model, shapes
        self.objects = list(model.Objects)
        self.by_id = {str(item.Attributes.Id): item for item in self.objects}
        self.blocks = {str(block.Id): block for block in model.InstanceDefinitions}

    def read(self) -> None:
        for i, item in enumerate(self.objects):
            # What belongs to a block's definition is no object of its own: it is where the block was inserted.
            if not item.Attributes.IsInstanceDefinitionObject:
                self.add(f"object {i}", item, None, ())

    def add(self, label: str, item: Any, matrix: np.ndarray | None, inside: tuple[str, ...]) -> None:
        """Read an object, moved by a (4, 4) matrix, within the blocks of given ids."""
        shape, r = item.Geometry, self.r
        named = f"{label}, {_a(shape)}"
        if item.Attributes.ActiveSpace == r.ActiveSpace.PageSpace:
            self.shapes.refuse("something on a layout page", label, "Only the model itself is read.")
        elif isinstance(shape, r.InstanceReference):
            self.insert(label, shape, matrix, inside)
        elif isinstance(shape, r.Curve):
            self.add_curve(named, shape, matrix)
        elif isinstance(shape, r.Brep) and shape.IsSurface:
            self.add_surface(named, shape.Faces[0].UnderlyingSurface(), matrix)
        elif isinstance(shape, r.Brep):
            count = len(shape.Faces)
            what = "a Brep that is trimmed" if count == 1 else f"a Brep of {count} faces"
            self.shapes.refuse(what, label, "In Rhino, explode it and untrim its faces.")
        elif isinstance(shape, r.Extrusion) or not isinstance(shape, r.Surface):
            mesh = isinstance(shape, r.Mesh)
            fix = "gd.Mesh reads meshes from OBJ, PLY, STL and GLB." if mesh else "In Rhino, convert it to NURBS."
            self.shapes.refuse(_a(shape), label, fix)
        else:
            self.add_surface(named, shape, matrix)

    def insert(self, label: str, shape: Any, matrix: np.ndarray | None, inside: tuple[str, ...]) -> None:
        own = str(shape.ParentIdefId)
        if own in inside or len(inside) >= _DEPTH:
            raise Damaged(f"{label}: a block that holds itself")
        block = self.blocks.get(own)
        if block is None:
            raise Damaged(f"{label}: its block is not in the file")
        members = [str(member) for member in block.GetObjectIds()]
        if not members:
            fix = "In Rhino, embed linked blocks, or explode it."
            self.shapes.refuse("a block without objects", f"{label} of {block.Name!r}", fix)
        x = shape.Xform
        move = np.array([[getattr(x, f"M{i}{j}") for j in range(4)] for i in range(4)])
        move = move if matrix is None else matrix @ move
        if not np.isfinite(move).all() or move[3, 3] == 0 or np.abs(move[3, :3]).max() > 0:
            raise Damaged(f"{label}: a block placed by something that is no affine map")
        for i, member in enumerate(members):
            item = self.by_id.get(member)
            if item is None:
                raise Damaged(f"{label}: an object of its block is not in the file")
            self.add(f"{label}, object {i} of block {block.Name!r}", item, move / move[3, 3], (*inside, own))

    def add_curve(self, label: str, shape: Any, matrix: np.ndarray | None) -> None:
        nurbs = shape.ToNurbsCurve()
        if nurbs is None:
            self.shapes.refuse(_a(shape), label, "In Rhino, convert it to NURBS.")
            return
        points = np.array([_four(nurbs.Points[i]) for i in range(len(nurbs.Points))])
        self.add_nurbs(label, points, nurbs, [nurbs.Knots], [nurbs.Degree], matrix)

    def add_surface(self, label: str, shape: Any, matrix: np.ndarray | None) -> None:
        nurbs = None if shape is None else shape.ToNurbsSurface()
        if nurbs is None:
            self.shapes.refuse(_a(shape), label, "In Rhino, convert it to NURBS.")
            return
        rows, columns = nurbs.Points.CountU, nurbs.Points.CountV
        net = np.array([[_four(nurbs.Points[i, j]) for j in range(columns)] for i in range(rows)])
        self.add_nurbs(label, net, nurbs, [nurbs.KnotsU, nurbs.KnotsV], [nurbs.Degree(0), nurbs.Degree(1)], matrix)

    def add_nurbs(
        self,
        label: str,
        homogeneous: np.ndarray,
        nurbs: Any,
        vectors: Sequence[Any],
        degree: Sequence[int],
        matrix: np.ndarray | None,
    ) -> None:
        if homogeneous.size == 0:
            raise Damaged(f"{label} has no control points")
        knots = [np.pad(np.array(list(vector.ToList()), dtype=float), 1, mode="edge") for vector in vectors]
        weights = homogeneous[..., 3]
        if nurbs.IsRational and not (weights > 0).all():
            raise Damaged(f"{label} has a weight of {weights.min():g}, not positive")
        points = homogeneous[..., :3] / weights[..., None] if nurbs.IsRational else homogeneous[..., :3]
        if matrix is not None:
            points = points @ matrix[:3, :3].T + matrix[:3, 3]
        self.shapes.add(label, points, weights if nurbs.IsRational else None, knots, degree)


def _four(point: Any) -> tuple[float, float, float, float]:
    return point.X, point.Y, point.Z, point.W


def _a(shape: Any) -> str:
    name = type(shape).__name__
    return f"{'an' if name[0] in 'AEIOU' else 'a'} {name}"
