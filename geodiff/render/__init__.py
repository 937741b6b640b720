# SPDX-License-Identifier: Apache-2.0
"""How a scene is seen: the soft renderer and the hard rasteriser."""

from geodiff.render.renderer import HardOutput, Renderer, RenderOutput, rasterize

__all__ = ["HardOutput", "RenderOutput", "Renderer", "rasterize"]
