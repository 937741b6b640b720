# SPDX-License-Identifier: Apache-2.0
"""How a scene is seen: the soft renderer, the hard rasteriser, coverage and shaders of one's own, fragments."""

from geodiff.render import presets
from geodiff.render.coverage import Contour, Coverage, Edges, Faces, Softness
from geodiff.render.fragments import Fragments, fragments
from geodiff.render.points import SurfacePoints
from geodiff.render.renderer import HardOutput, Renderer, RenderOutput, rasterize
from geodiff.render.shading import gouraud, lambert, phong, unlit
from geodiff.render.view import View

__all__ = [
    "Contour",
    "Coverage",
    "Edges",
    "Faces",
    "Fragments",
    "HardOutput",
    "RenderOutput",
    "Renderer",
    "Softness",
    "SurfacePoints",
    "View",
    "fragments",
    "gouraud",
    "lambert",
    "phong",
    "presets",
    "rasterize",
    "unlit",
]
