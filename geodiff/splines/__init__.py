# SPDX-License-Identifier: Apache-2.0
"""Splines: NURBS curves, surfaces and volumes with gradients in everything, knots included; see docs/splines.md.

Each name is imported from its file on first use.
"""

import importlib
from typing import TYPE_CHECKING, Any

_FILES = {
    "arrange": ("joined", "normalised", "reversed_", "swapaxes", "transposed"),
    "basis": ("BSplineBasis",),
    "closest": ("ClosestPoint", "closest_point"),
    "conics": ("arc", "circle", "conic", "ellipse", "hyperbola", "line", "parabola", "polyline"),
    "construct": ("compatible", "coons", "extrude", "loft", "revolve", "ruled"),
    "curve": ("NURBSCurve",),
    "files": ("load_splines", "save_splines"),
    "fit": ("SplineFit", "fit_curve", "fit_surface"),
    "fit_unordered": ("fit_cloud",),
    "knots": ("greville", "knots_to_logits", "logits_to_knots", "multiplicities", "uniform_knots"),
    "measure": ("arc_length", "area", "bounding_box", "centroid", "length_at", "parameter_at_length", "volume"),
    "pieces": ("PieceFit", "fit_pieces"),
    "place": ("rotate", "scale", "transform", "translate"),
    "reduce": ("reduced", "remove_knot"),
    "refine": ("bezier", "clamped", "elevated", "insert_knots", "refined", "split", "trimmed_to"),
    "shapes": ("box", "cone", "cylinder", "disk", "plane", "sphere", "torus"),
    "spline": ("NURBS",),
    "surface": ("NURBSSurface",),
    "sweeping": ("sweep",),
    "trim": ("TrimmedSurface",),
    "nurbs_volume": ("NURBSVolume",),
}
_HOME = {name: file for file, names in _FILES.items() for name in names}

__all__ = [
    "NURBS",
    "BSplineBasis",
    "ClosestPoint",
    "NURBSCurve",
    "NURBSSurface",
    "NURBSVolume",
    "PieceFit",
    "SplineFit",
    "TrimmedSurface",
    "arc",
    "arc_length",
    "area",
    "bezier",
    "bounding_box",
    "box",
    "centroid",
    "circle",
    "clamped",
    "closest_point",
    "compatible",
    "cone",
    "conic",
    "coons",
    "cylinder",
    "disk",
    "elevated",
    "ellipse",
    "extrude",
    "fit_cloud",
    "fit_curve",
    "fit_pieces",
    "fit_surface",
    "greville",
    "hyperbola",
    "insert_knots",
    "joined",
    "knots_to_logits",
    "length_at",
    "line",
    "load_splines",
    "loft",
    "logits_to_knots",
    "multiplicities",
    "normalised",
    "parabola",
    "parameter_at_length",
    "plane",
    "polyline",
    "reduced",
    "refined",
    "remove_knot",
    "reversed_",
    "revolve",
    "rotate",
    "ruled",
    "save_splines",
    "scale",
    "sphere",
    "split",
    "swapaxes",
    "sweep",
    "torus",
    "transform",
    "translate",
    "transposed",
    "trimmed_to",
    "uniform_knots",
    "volume",
]

if TYPE_CHECKING:
    from geodiff.splines.arrange import joined, normalised, reversed_, swapaxes, transposed
    from geodiff.splines.basis import BSplineBasis
    from geodiff.splines.closest import ClosestPoint, closest_point
    from geodiff.splines.conics import arc, circle, conic, ellipse, hyperbola, line, parabola, polyline
    from geodiff.splines.construct import compatible, coons, extrude, loft, revolve, ruled
    from geodiff.splines.curve import NURBSCurve
    from geodiff.splines.files import load_splines, save_splines
    from geodiff.splines.fit import SplineFit, fit_curve, fit_surface
    from geodiff.splines.fit_unordered import fit_cloud
    from geodiff.splines.knots import greville, knots_to_logits, logits_to_knots, multiplicities, uniform_knots
    from geodiff.splines.measure import arc_length, area, bounding_box, centroid, length_at, parameter_at_length, volume
    from geodiff.splines.nurbs_volume import NURBSVolume
    from geodiff.splines.pieces import PieceFit, fit_pieces
    from geodiff.splines.place import rotate, scale, transform, translate
    from geodiff.splines.reduce import reduced, remove_knot
    from geodiff.splines.refine import bezier, clamped, elevated, insert_knots, refined, split, trimmed_to
    from geodiff.splines.shapes import box, cone, cylinder, disk, plane, sphere, torus
    from geodiff.splines.spline import NURBS
    from geodiff.splines.surface import NURBSSurface
    from geodiff.splines.sweeping import sweep
    from geodiff.splines.trim import TrimmedSurface


def __getattr__(name: str) -> Any:
    if name in _HOME:
        value = getattr(importlib.import_module(f"geodiff.splines.{_HOME[name]}"), name)
        globals()[name] = value
        return value
    if name in _FILES:
        return importlib.import_module(f"geodiff.splines.{name}")
    raise AttributeError(f"module 'geodiff.splines' has no attribute '{name}'")


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOME, *_FILES})
