# SPDX-License-Identifier: Apache-2.0
"""How a scene is seen: the soft renderer, the hard rasteriser, coverage and shaders of one's own, fragments."""

from geodiff.render import presets
from geodiff.render.components import component_means, connected_components
from geodiff.render.coverage import Antialiased, Contour, Coverage, Edges, Faces, Hard, Softness
from geodiff.render.fragments import Fragments, fragments
from geodiff.render.image_metrics import psnr, ssim
from geodiff.render.ordering import front_to_back
from geodiff.render.points import SurfacePoints
from geodiff.render.renderer import HardOutput, Renderer, RenderOutput, rasterize
from geodiff.render.shading import gouraud, lambert, phong, unlit
from geodiff.render.splats import TriangleSplats
from geodiff.render.tracing import TraceOutput, sphere_trace
from geodiff.render.view import View
from geodiff.render.visibility import antialias, edge_gradient

__all__ = [
    "Antialiased",
    "Contour",
    "Coverage",
    "Edges",
    "Faces",
    "Fragments",
    "Hard",
    "HardOutput",
    "RenderOutput",
    "Renderer",
    "Softness",
    "SurfacePoints",
    "TraceOutput",
    "TriangleSplats",
    "View",
    "antialias",
    "component_means",
    "connected_components",
    "edge_gradient",
    "fragments",
    "front_to_back",
    "gouraud",
    "lambert",
    "phong",
    "presets",
    "psnr",
    "rasterize",
    "sphere_trace",
    "ssim",
    "unlit",
]
