# SPDX-License-Identifier: Apache-2.0
"""The pure-torch twin of every op, same name and arguments: slow, plain, any dtype, any plug-in."""

from geodiff.reference.fragments import Fragments, Ranking, blend, fragments
from geodiff.reference.polygons import Polygons, near_clip, signed_distance
from geodiff.reference.rasterize import Raster, rasterize
from geodiff.reference.shading import reflect, sample
from geodiff.reference.silhouette import silhouette
from geodiff.reference.spline import basis, basis_matrix, find_span, spline, spline_grid

__all__ = [
    "Fragments",
    "Polygons",
    "Ranking",
    "Raster",
    "basis",
    "basis_matrix",
    "blend",
    "find_span",
    "fragments",
    "near_clip",
    "rasterize",
    "reflect",
    "sample",
    "signed_distance",
    "silhouette",
    "spline",
    "spline_grid",
]
