# SPDX-License-Identifier: Apache-2.0
"""How a scene is seen: the soft renderer, the hard rasteriser, fragments for shaders of one's own."""

from geodiff.render import presets
from geodiff.render.fragments import Fragments, fragments
from geodiff.render.renderer import HardOutput, Renderer, RenderOutput, rasterize

__all__ = ["Fragments", "HardOutput", "RenderOutput", "Renderer", "fragments", "presets", "rasterize"]
