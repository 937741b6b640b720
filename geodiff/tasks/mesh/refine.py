# SPDX-License-Identifier: Apache-2.0
"""Remeshing while a mesh is fitted: even triangles, finer as the fit goes on and where the surface bends."""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import torch

from geodiff.scene.mesh import Mesh
from geodiff.scene.remesh import RemeshResult, mean_edge_length, remesh, sizing
from geodiff.tasks.mesh.settings import FitMeshSettings

_EVERY = 20  # steps between remeshings, unless told
_ITERATIONS = 3  # the mesh is even from the last time
_ERROR = 0.25  # of a surface from its triangles, in pixels
_RANGE = 2.0  # lengths are between the half of what is wanted and the double
_HULL_ERROR, _HULL_RANGE = 0.07, (0.4, 1.5)  # of a hull from its triangles, and their edges, in its mean edges
_ROUNDS = 20  # of smoothing folds
_THIN, _FEW = 10.0, 0.01  # degrees, and the part of triangles that may have such an angle
_LAST = 0.9  # the part of the fit in which lengths fall and the mesh changes


def chosen(settings: FitMeshSettings, is_ball: bool) -> FitMeshSettings:
    """Return the settings with `remesh_every` filled in: a template of the user's own keeps its faces unless asked."""
    if settings.remesh_every is not None:
        return settings
    return dataclasses.replace(settings, remesh_every=_EVERY if is_ball else 0)


def is_due(settings: FitMeshSettings, step: int) -> bool:
    """Whether the mesh is remeshed before a step counted from 0."""
    every = settings.remesh_every or 0
    return every > 0 and step > 0 and step % every == 0 and step <= _LAST * settings.steps


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
    last = min(2 * pixel, start) if settings.edge_length is None else settings.edge_length * unit
    share = min(step / (_LAST * settings.steps), 1.0)
    mesh = untangled(mesh.detach())
    wanted = start * (last / start) ** share
    error = _ERROR * pixel
    lengths = sizing(mesh, error, shortest=wanted / _RANGE, longest=wanted * _RANGE)
    return remesh(mesh, lengths, iterations=_ITERATIONS, feature_angle_deg=None)


def carried(result: RemeshResult, moments: Mapping[str, Any]) -> dict[str, Any]:
    """Return what an optimiser knows of the vertices, for those of the new mesh."""
    return {
        name: result.carry(value) if isinstance(value, torch.Tensor) and value.dim() == 2 else value
        for name, value in moments.items()
    }


def even(mesh: Mesh) -> Mesh:
    """Return a hull with even triangles that do not meet: its grid leaves thin ones, and folds where it is coarse.

    They are smaller where the surface bends, so that thin parts keep their edges, and larger where it is flat.
    """
    mesh = untangled(mesh)
    length = mean_edge_length(mesh)
    lengths = sizing(mesh, _HULL_ERROR * length, shortest=_HULL_RANGE[0] * length, longest=_HULL_RANGE[1] * length)
    return remesh(mesh, lengths, iterations=_ITERATIONS, feature_angle_deg=None).mesh


def finished(mesh: Mesh) -> Mesh:
    """Return the result, mended where its triangles are thin or meet others; as it is where nothing is to be done."""
    if not mesh.num_faces:
        return mesh
    mesh = untangled(mesh)
    if float((_least_angles(mesh) < math.radians(_THIN)).double().mean()) > _FEW:
        mesh = remesh(mesh, 0.9 * mean_edge_length(mesh), feature_angle_deg=None).mesh
    return mesh


def untangled(mesh: Mesh) -> Mesh:
    """Return the mesh with folds smoothed away until no faces meet, or as few as found."""
    best, least = mesh, math.inf
    a, b = mesh.edges.unbind(-1)
    degree = mesh.vertex_degree.clamp_min(1)[:, None]
    for turn in range(_ROUNDS):
        pairs = mesh.self_intersections()
        if len(pairs) < least:
            best, least = mesh, len(pairs)
        if not len(pairs):
            break
        at = mesh.vertices
        near = torch.zeros(mesh.num_vertices, dtype=torch.bool)
        near[mesh.faces[pairs].reshape(-1)] = True
        if turn >= _ROUNDS // 2:  # what does not come apart by itself takes its surroundings along
            near[torch.cat((a[near[b]], b[near[a]]))] = True
        middle = torch.zeros_like(at).index_add(0, a, at[b]).index_add(0, b, at[a]) / degree
        mesh = mesh.with_vertices(torch.where(near[:, None], 0.5 * at + 0.5 * middle, at))
    return best


def _least_angles(mesh: Mesh) -> torch.Tensor:
    corners = mesh.vertices.detach().double()[mesh.faces]
    u, v = corners.roll(-1, 1) - corners, corners.roll(1, 1) - corners
    return torch.atan2(torch.linalg.cross(u, v).norm(dim=-1), (u * v).sum(-1)).amin(-1)
