# SPDX-License-Identifier: Apache-2.0
"""Finite elements: fields on grids, meshes and NURBS, with gradients in all that they depend on; see docs/fem.md."""

from geodiff.fem.grid import grid_space
from geodiff.fem.mesh import mesh_space
from geodiff.fem.nurbs import glued, nurbs_space
from geodiff.fem.solve import energy, solve_heat, solve_poisson
from geodiff.fem.space import Elements, Space

__all__ = [
    "Elements",
    "Space",
    "energy",
    "glued",
    "grid_space",
    "mesh_space",
    "nurbs_space",
    "solve_heat",
    "solve_poisson",
]
