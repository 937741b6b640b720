# SPDX-License-Identifier: Apache-2.0
"""Remeshing while a mesh is fitted: even triangles, finer as the fit goes on and where the surface bends."""

import math
from collections.abc import Mapping
from typing import Any

import torch

from geodiff.scene.mesh import Mesh
from geodiff.scene.remesh import RemeshResult, mean_edge_length, remesh, sizing
from geodiff.tasks.mesh.settings import FitMeshSettings

_ITERATIONS = 3  # the mesh is even from the last time
_ERROR = 0.25  # of a surface from its triangles, in pixels
_RANGE = 2.0  # lengths are between the half of what is wanted and the double
_THIN, _FEW = 10.0, 0.01  # degrees, and the part of triangles that may have such an angle
_LAST = 0.9  # the part of the fit in which lengths fall and the mesh changes


def is_due(settings: FitMeshSettings, step: int) -> bool:
    """Whether the mesh is remeshed before a step counted from 0."""
    every = settings.remesh_every
    return bool(every) and step > 0 and step % every == 0 and step <= _LAST * settings.steps


def refined(mesh: Mesh, start: float, settings: FitMeshSettings, step: int, unit: float, pixels: int) -> RemeshResult:
    """Return the mesh with the edges that are wanted at a step.

    Their length goes from that at the start to ``edge_length``, geometrically; where the surface bends it is less, so
    that triangles leave it by no more than a quarter of a pixel.

    Args:
        mesh: as it is now.
        start: the mean length of edges of the mesh that the fit started from.
        settings: of the fit.
        step: counted from 0.
        unit: the world length of a unit of the picture.
        pixels: of the shorter side of the images.
    """
    pixel = 2 * unit / pixels
    last = 2 * pixel if settings.edge_length is None else settings.edge_length * unit
    share = min(step / (_LAST * settings.steps), 1.0)
    wanted = start * (last / start) ** share
    error = _ERROR * pixel
    lengths = sizing(mesh.detach(), error, shortest=wanted / _RANGE, longest=wanted * _RANGE)
    return remesh(mesh.detach(), lengths, iterations=_ITERATIONS, feature_angle_deg=None)


def carried(result: RemeshResult, moments: Mapping[str, Any]) -> dict[str, Any]:
    """Return what an optimiser knows of the vertices, for those of the new mesh."""
    return {
        name: result.carry(value) if isinstance(value, torch.Tensor) and value.dim() == 2 else value
        for name, value in moments.items()
    }


def finished(mesh: Mesh) -> Mesh:
    """Return the result as it is if 99 % of its triangles have no angle below 10°; else with even ones once more."""
    if not mesh.num_faces or float((_least_angles(mesh) < math.radians(_THIN)).double().mean()) <= _FEW:
        return mesh
    return remesh(mesh, 0.9 * mean_edge_length(mesh), feature_angle_deg=None).mesh


def _least_angles(mesh: Mesh) -> torch.Tensor:
    corners = mesh.vertices.detach().double()[mesh.faces]
    u, v = corners.roll(-1, 1) - corners, corners.roll(1, 1) - corners
    return torch.atan2(torch.linalg.cross(u, v).norm(dim=-1), (u * v).sum(-1)).amin(-1)
