# SPDX-License-Identifier: Apache-2.0
"""The pure-torch twin of every op, same name and arguments: slow, plain, any dtype, any plug-in."""

from geodiff.reference.contour import contour, contour_distance
from geodiff.reference.fragments import FragmentMaps, Ranking, blend, fragments
from geodiff.reference.jumps import jumps
from geodiff.reference.normals import vertex_normals
from geodiff.reference.outline import edge_cycles
from geodiff.reference.polygons import Polygons, near_clip, signed_distance
from geodiff.reference.rasterize import Raster, rasterize
from geodiff.reference.shading import composite, reflect, sample
from geodiff.reference.silhouette import silhouette
from geodiff.reference.softmax import Heaviest, Mixture, heaviest, mix
from geodiff.reference.spline import basis, basis_matrix, find_span, spline, spline_grid
from geodiff.reference.surface import surface
from geodiff.reference.transport import apply, apply_gradient, lse, pair_cost
from geodiff.reference.visible import Visible, visible

__all__ = [
    "FragmentMaps",
    "Heaviest",
    "Mixture",
    "Polygons",
    "Ranking",
    "Raster",
    "Visible",
    "apply",
    "apply_gradient",
    "basis",
    "basis_matrix",
    "blend",
    "composite",
    "contour",
    "contour_distance",
    "edge_cycles",
    "find_span",
    "fragments",
    "heaviest",
    "jumps",
    "lse",
    "mix",
    "near_clip",
    "pair_cost",
    "rasterize",
    "reflect",
    "sample",
    "signed_distance",
    "silhouette",
    "spline",
    "spline_grid",
    "surface",
    "vertex_normals",
    "visible",
]
