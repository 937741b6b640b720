# SPDX-License-Identifier: Apache-2.0
"""One file an op: its schema, checks and calls of kernels, through the door `_op`. Twins: geodiff.reference."""

from geodiff.ops.basis import basis
from geodiff.ops.contour import contour
from geodiff.ops.fragments import blend, fragments
from geodiff.ops.jumps import jumps
from geodiff.ops.normals import vertex_normals
from geodiff.ops.rasterize import rasterize
from geodiff.ops.shading import composite, reflect, sample
from geodiff.ops.silhouette import count_pairs, silhouette
from geodiff.ops.softmax import heaviest, mix
from geodiff.ops.spline import spline, spline_grid
from geodiff.ops.surface import surface
from geodiff.ops.transport import apply, apply_gradient, lse
from geodiff.ops.visible import visible

__all__ = [
    "apply",
    "apply_gradient",
    "basis",
    "blend",
    "composite",
    "contour",
    "count_pairs",
    "fragments",
    "heaviest",
    "jumps",
    "lse",
    "mix",
    "rasterize",
    "reflect",
    "sample",
    "silhouette",
    "spline",
    "spline_grid",
    "surface",
    "vertex_normals",
    "visible",
]
