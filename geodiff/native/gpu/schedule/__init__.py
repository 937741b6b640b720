# SPDX-License-Identifier: Apache-2.0
"""What each kernel of the CPU extension is on a GPU: a function of the same name and arguments that launches some.

A kernel that is missing here does not run on a GPU yet.
"""

import functools
import importlib
from collections.abc import Callable
from typing import Any

_FILES = {
    "fragments_forward": "fragments",
    "fragments_backward": "fragments",
    "visible_forward": "fragments",
    "visible_backward": "fragments",
    "blend_forward": "shading",
    "blend_backward": "shading",
    "texture_forward": "shading",
    "texture_backward": "shading",
    "composite_forward": "shading",
    "composite_backward": "shading",
    "reflect_forward": "shading",
    "reflect_backward": "shading",
    "surface_forward": "shading",
    "surface_backward": "shading",
    "vertex_normals_forward": "shading",
    "vertex_normals_backward": "shading",
    "contour_forward": "contour",
    "contour_backward": "contour",
    "rasterize": "rasterize",
    "jumps": "jumps",
    "silhouette_forward": "silhouette",
    "spline_basis": "spline",
    "spline_basis_backward": "spline",
    "spline_forward": "splines",
    "spline_backward": "splines",
    "silhouette_backward": "silhouette",
    "transport": "transport",
    "matrix_times": "matrix",
    "heaviest": "softmax",
    "heaviest_backward": "softmax",
    "mix_forward": "softmax",
    "mix_backward": "softmax",
    "nearest_triangle": "host",
    "neighbour_axes": "host",
    "self_intersections": "host",
    "remesh": "host",
    "pieces_take": "host",
    "surface_net": "host",
    "net_sum": "host",
    "winding_sum": "host",
    "smooth_along_normals": "host",
    "train_charts": "host",
    "places_of_charts": "host",
}
"""Kernels, and the file that has each."""


@functools.cache
def of(kernel: str) -> Callable[..., Any]:
    """Return the schedule of a kernel.

    Raises:
        RuntimeError: where there is none yet.
    """
    if kernel not in _FILES:
        raise RuntimeError(f"geodiff: {kernel} has no kernel for a GPU yet. Use .cpu().")
    found: Callable[..., Any] = getattr(importlib.import_module(f"{__name__}.{_FILES[kernel]}"), kernel)
    return found
