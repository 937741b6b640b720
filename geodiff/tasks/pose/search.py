# SPDX-License-Identifier: Apache-2.0
"""Which rotations are followed: a screening of many, and the twins of meshes with a plane of symmetry."""

import math

import numpy as np
import torch
from scipy.spatial import cKDTree

from geodiff.render.renderer import rasterize
from geodiff.scene.mesh import Mesh
from geodiff.tasks.pose.poses import Poses, rotations_near
from geodiff.tasks.pose.settings import FitPoseSettings
from geodiff.tasks.pose.target import PoseLoss, PoseTargets
from geodiff.tasks.pose.views import best_views, is_cut

_CHUNK = 128  # images rendered at once
_APART = 20.0  # degrees between starts, and between those of silhouettes
_APART_VIEWS = 12.0
_TRIED = 3  # silhouettes: how many are put in place for each start
_AGAIN, _GROW = (1, 3), (0.7, 1.5)  # how often areas are compared again, if the border cuts none or some, and bounds
_SYMMETRIC = 0.06  # radii by which vertices of a mirror image may be off: about an edge


def screen(
    mesh: Mesh,
    start: Poses,
    image: PoseTargets,
    spread_deg: float,
    settings: FitPoseSettings,
    loss: PoseLoss,
) -> Poses:
    """Choose up to ``settings.starts`` poses to follow, for one image: the start, and the best candidates well apart.

    Each candidate rotation is put where the areas (by distance) and the centroids of mask and target agree, as far as
    those may move.

    Args:
        mesh: one mesh.
        start: one pose.
        image: one image.
        spread_deg: the angle around the start.
        settings: see `FitPoseSettings`.
        loss: what candidates are ranked by, at an edge of half a pixel.

    Returns:
        Poses of which the first is the start.
    """
    count = settings.candidates if spread_deg > 0 else 1
    if count == 1 or settings.starts == 1:
        return start
    target = image.resized(settings.search_size)
    pixel = 2.0 / min(target.image_size)
    by_views = settings.loss == ("silhouette",)
    apart = min(_APART_VIEWS if by_views else _APART, 0.25 * spread_deg)
    if by_views:
        listed = best_views(mesh, start, image, count, spread_deg, settings)
        own = _spread_out(listed, _TRIED * settings.starts, apart)
        rotation = torch.cat((start.rotation, listed[own]))
    else:
        rotation = rotations_near(start.rotation[0], count, spread_deg, settings.seed)
    count = len(rotation)
    every = torch.zeros(count, dtype=torch.long)
    poses = start[every]
    poses.rotation = rotation
    if settings.translation != "fixed":
        poses = aligned(mesh, poses, target, settings)
    values = []
    with torch.no_grad():
        for i in range(0, count, _CHUNK):
            cameras = poses[torch.arange(i, min(i + _CHUNK, count))].cameras()
            if by_views:
                mask = rasterize(mesh, cameras, target.image_size).mask.to(target.alpha.dtype)
                both = (mask * target.alpha).sum((-2, -1))
                values.append(1 - both / (mask.sum((-2, -1)) + target.alpha.sum() - both))
            else:
                scale = 0.5 * pixel if not settings.distribution.is_squared else 0.25 * pixel**2  # type: ignore[union-attr]
                values.append(loss(cameras, target[torch.zeros(len(cameras), dtype=torch.long)], scale))
    order = torch.cat(values).argsort(stable=True)
    order = order[order > 0]
    # The start, as it is given, does not keep others off.
    best = order[_spread_out(rotation[order], settings.starts - 1, apart)]
    result = poses[torch.cat((torch.zeros(1, dtype=torch.long), best))]
    for name in Poses.fields:
        getattr(result, name)[0] = getattr(start, name)[0]
    return result


def _spread_out(rotations: torch.Tensor, count: int, apart_deg: float) -> torch.Tensor:
    """Return the numbers of up to ``count`` rotations (N, 3, 3) that are an angle apart, the first before others."""
    chosen: list[int] = []
    flat = rotations.flatten(1)
    near = torch.zeros(len(flat), dtype=torch.bool)
    least = 1 + 2 * math.cos(math.radians(apart_deg))  # trace of the rotation between them
    for i in range(len(flat)):
        if len(chosen) == count:
            break
        if not near[i]:
            chosen.append(i)
            near |= flat @ flat[i] > least
    return torch.tensor(chosen, dtype=torch.long)


def aligned(mesh: Mesh, poses: Poses, target: PoseTargets, settings: FitPoseSettings) -> Poses:
    """Move poses so that areas and, where they are free to, centroids of masks and target agree."""
    lens, height, width = poses.lens, *target.image_size
    # From where all of the mesh is seen, whatever the guess was.
    aside = poses[torch.arange(len(poses))]
    if settings.translation == "free":
        aside.shift = -lens.principal.expand_as(poses.shift)
    if not lens.is_orthographic:
        aside.distance = poses.radius * (1 + 1.1 * poses.focal.clamp_min(1.0))
    y, x = (0.5 * n - 0.5 - torch.arange(n, dtype=target.alpha.dtype) for n in (height, width))
    pixel = 2.0 / min(height, width)
    x, y = -x * pixel, y * pixel

    def moments(image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        area = image.sum((-2, -1))
        at = torch.stack(((image.sum(-2) * x).sum(-1), (image.sum(-1) * y).sum(-1)), dim=-1)
        return area, at / area.clamp_min(1e-6)[:, None]

    wanted_area, wanted_at = moments(target.alpha)
    # Perspective, and the border of the image, make areas grow by other than the square: so once more from there.
    for turn in range(1 + _AGAIN[int(is_cut(target.alpha[0]))]):
        parts = []
        for i in range(0, len(aside), _CHUNK):
            part = aside[torch.arange(i, min(i + _CHUNK, len(aside)))]
            parts.append(moments(rasterize(mesh, part.cameras(), target.image_size).mask.to(target.alpha.dtype)))
        own_area, own_at = (torch.cat(values) for values in zip(*parts, strict=True))
        grow = (wanted_area / own_area.clamp_min(1.0)).sqrt()
        if turn:
            grow = grow.clamp(*_GROW)
        step = torch.zeros(len(poses), 7, dtype=target.alpha.dtype)
        step[:, 6 if lens.is_orthographic else 5] = grow.log()
        result = aside.moved(step, settings)
        if settings.translation == "free":
            # The offset of the centroid from the middle of the mesh grows with the mesh.
            factor = result.focal / result.distance / (aside.focal / aside.distance)
            offset = own_at - (aside.shift + lens.principal)
            result.shift = wanted_at - lens.principal - factor[:, None] * offset
        aside = result = result.settled()
    return result


def half_turns(mesh: Mesh) -> torch.Tensor:
    """Return the half turns Q (K, 3, 3) about the normals of a mesh's planes of symmetry.

    With the mirror at the plane, −Q, the mesh stays as it is, so Q takes it to its image in the middle point, and the
    silhouette to that turned by 180°. Turned back, which is the twin diag(−1, −1, 1) R Q of a pose R, it is the same,
    exactly for an orthographic camera. Planes are looked for through the middle of the bounding box, across the
    principal axes.

    Example:
        >>> import geodiff as gd
        >>> half_turns(gd.box((1.0, 0.5, 0.25))).shape
        torch.Size([3, 3, 3])
    """
    points = mesh.vertices.double()
    points = points - 0.5 * (points.amin(0) + points.amax(0))
    corners = points[mesh.faces]
    # Of the surface, not of its triangles' middles: how squares are cut into triangles has no say.
    vectors = torch.cat((corners, corners.sum(1, keepdim=True)), dim=1)
    moment = torch.einsum("f,fni,fnj->ij", mesh.face_areas.double(), vectors, vectors)
    _, axes = torch.linalg.eigh(moment)
    turns = []
    for normal in axes.mT:
        mirrored = points - 2 * (points @ normal)[:, None] * normal
        far = cKDTree(points.numpy()).query(mirrored.numpy())[0]
        if np.quantile(far, 0.9) < _SYMMETRIC * float(points.norm(dim=-1).max()):
            turns.append(2 * normal[:, None] * normal - torch.eye(3, dtype=torch.float64))
    return torch.stack(turns).to(mesh.dtype) if turns else mesh.vertices.new_zeros(0, 3, 3)
