# SPDX-License-Identifier: Apache-2.0
"""Finite elements: fields on grids, meshes and NURBS, with gradients in all that they depend on; see docs/fem.md."""

from geodiff.fem.elasticity import elastic_energy, elasticity, solve_elasticity, von_mises
from geodiff.fem.grid import grid_space
from geodiff.fem.mesh import mesh_space
from geodiff.fem.nurbs import glued, nurbs_space
from geodiff.fem.plate import bending, solve_plate
from geodiff.fem.solve import energy, solve_heat, solve_poisson
from geodiff.fem.space import Elements, Space

__all__ = [
    "Elements",
    "Space",
    "bending",
    "elastic_energy",
    "elasticity",
    "energy",
    "glued",
    "grid_space",
    "mesh_space",
    "nurbs_space",
    "solve_elasticity",
    "solve_heat",
    "solve_plate",
    "solve_poisson",
    "von_mises",
]
