# SPDX-License-Identifier: Apache-2.0
"""The poses that explain an image, with probabilities; and what of a rotation the image does not tell."""

import math
from dataclasses import dataclass

import torch

from geodiff.scene.camera import Camera
from geodiff.scene.mesh import Mesh
from geodiff.tasks.pose.explained import outline_pixels
from geodiff.tasks.pose.newton import NOISE, edge_width
from geodiff.tasks.pose.poses import Poses, rotation_angle_deg, rotation_from_vector
from geodiff.tasks.pose.target import PoseLoss, PoseTargets
from geodiff.validation import shapes_repr

_APART = 10.0  # degrees between modes
_LEAST = 1e-3  # probability of those that are listed
_NOISE_OF_ALL = 0.05  # least standard deviation of a pixel, of other values than an outline's coverage
_TURNED = (20.0, 90.0, -20.0, 45.0, 135.0, 180.0)  # degrees at which a free one is tried
_FREE = math.log(10.0)  # loss of log-likelihood that such turns may bring


@dataclass(frozen=True)
class PoseMode:
    """A pose that explains the image.

    Attributes:
        camera: the pose.
        probability: relative to the others that were found, which it sums to 1 with (to less where the mesh does not
            explain the image: see ``explained`` of `FitPoseResult`). Pixels are taken to have Gaussian
            noise, for a silhouette those along its outline, of the variance that the best pose leaves, of a standard
            deviation of ½ at least (0.05 with colours or depth). All poses are as likely before; around a ``start``,
            where the image leaves several, those near it are likelier: Gaussian of half the ``spread``.
        loss: as of `FitPoseResult`.
        angle_deg: between its rotation and the first mode's; how much of it is about free axes does not count.
    """

    __repr__ = shapes_repr

    camera: Camera
    probability: float
    loss: float
    angle_deg: float


@torch.no_grad()
def ranked(
    poses: Poses, cost: torch.Tensor, loss: PoseLoss, targets: PoseTargets, start: torch.Tensor, spread_deg: float
) -> torch.Tensor:
    """Return the order (N,) of poses found for one image, best first: by cost, then nearness to a guess.

    Args:
        poses: N.
        cost: (N,) sums of squares at the last τ.
        loss: what was minimised.
        targets: the image at the size at which it was.
        start: (3, 3) rotation of the guess.
        spread_deg: the angle around it; 180 is none.
    """
    area, variance = _noise(cost.min(), loss, targets)
    score = cost.double() * area / (2 * variance) - _log_prior(poses, start, spread_deg)
    return torch.where(torch.isfinite(cost), score, math.inf).argsort(stable=True)


def _log_prior(poses: Poses, start: torch.Tensor, spread_deg: float) -> torch.Tensor:
    off = rotation_angle_deg(poses.rotation, start).double()
    return torch.zeros_like(off) if spread_deg in (0, 180) else -0.5 * (off / (0.5 * spread_deg)).square()


def _noise(best: torch.Tensor, loss: PoseLoss, targets: PoseTargets) -> tuple[float, float]:
    """Return the area that sums of squares are over, and the variance that the best one leaves a pixel with noise."""
    silhouette = loss.settings.loss == ("silhouette",)
    alpha = targets.alpha[0].double()
    area = float(alpha.sum())
    pixels = outline_pixels(alpha >= 0.5) if silhouette else area
    least = (NOISE if silhouette else _NOISE_OF_ALL) ** 2
    return area, max(float(best) * area / pixels, least)


@torch.no_grad()
def pose_modes(
    poses: Poses,
    cost: torch.Tensor,
    loss: PoseLoss,
    targets: PoseTargets,
    explained: float = 1.0,
    start: torch.Tensor | None = None,
    spread_deg: float = 180.0,
) -> tuple[list[PoseMode], torch.Tensor]:
    """Return the modes of poses found for one image, best first, and free axes (K, 3).

    Args:
        poses: N, best first.
        cost: (N,) sums of squares at the last τ.
        loss: what was minimised.
        targets: the image at the size at which it was.
        explained: what the probabilities sum to.
        start: (3, 3) rotation of a guess; None: there was none.
        spread_deg: the angle around it.

    Returns:
        Poses well apart of probability 1e-3 and more, and the unit vectors in the mesh's coordinates about which the
        rotation may be any, as far as the image says; two or more of them: all of the rotation.
    """
    area, variance = _noise(cost.min(), loss, targets)
    free = _free_axes(poses[torch.tensor([0])].cameras(), loss, targets, area, variance)
    likelihood = -cost.double() * area / (2 * variance)
    if start is not None:
        likelihood = likelihood + _log_prior(poses, start, spread_deg)
    likelihood = likelihood - likelihood[0]
    chosen: list[int] = []
    for i in range(len(poses)):
        if float(likelihood[i]) < math.log(_LEAST):
            break
        if all(_angle(poses.rotation[i], poses.rotation[j], free) > _APART for j in chosen):
            chosen.append(i)
    weight = likelihood[chosen].exp()
    weight = explained * weight / weight.sum()
    cameras = poses[torch.tensor(chosen)].cameras()
    modes = [
        PoseMode(
            camera=cameras[k],
            probability=float(weight[k]),
            loss=float(cost[i]),
            angle_deg=_angle(poses.rotation[i], poses.rotation[0], free),
        )
        for k, i in enumerate(chosen)
    ]
    return modes, free


def _angle(a: torch.Tensor, b: torch.Tensor, free: torch.Tensor) -> float:
    """Return the angle in degrees between rotations, about free axes of the mesh: between where they take these."""
    if len(free) == 0:
        return float(rotation_angle_deg(a, b))
    if len(free) > 1:
        return 0.0
    chord = ((a - b).double() @ free[0].double()).norm() / 2
    return float(2 * chord.clamp(0, 1).asin().rad2deg())


def _free_axes(camera: Camera, loss: PoseLoss, targets: PoseTargets, area: float, variance: float) -> torch.Tensor:
    """Return axes (K, 3) of the mesh a turn about which leaves the image as likely as it is, for one pose (1,).

    What is round is so about a principal axis through its middle.
    """
    settings = loss.settings
    # Edges of a quarter of a pixel see less of the pixels' grid, and of how round things are cut into facets.
    wide = 0.25 * 2.0 / min(targets.image_size)
    scale = max(settings.scale[1], wide * wide if settings.distribution.is_squared else wide)  # type: ignore[union-attr]
    soft = targets.softened(edge_width(settings, scale))
    middle, axes = _principal_axes(loss.mesh)

    def cost(axis: torch.Tensor, angles: tuple[float, ...]) -> torch.Tensor:
        turns = rotation_from_vector(axis * torch.tensor(angles, dtype=axis.dtype).deg2rad()[:, None])
        rotation = camera.rotation @ turns
        moved = camera.translation + ((camera.rotation - rotation) @ middle)
        turned = Camera(
            rotation,
            moved,
            camera.focal,
            camera.principal,
            orthographic=camera.is_orthographic,
            near=camera.near,
        )
        images = soft[torch.zeros(len(angles), dtype=torch.long)]
        return loss.residuals(turned, images, scale).square().sum(-1).double().to(axis.device)

    most = float(cost(axes[0], (0.0,))[0]) + _FREE * 2 * variance / area
    # A few turns tell most that are not free.
    found = [axis for axis in axes if bool((cost(axis, _TURNED[:2]) < most).all())]
    found = [axis for axis in found if bool((cost(axis, _TURNED[2:]) < most).all())]
    return torch.stack(found) if found else axes[:0]


def _principal_axes(mesh: Mesh) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the middle (3,) of a mesh's surface, and its principal axes (3, 3), one a row."""
    area = mesh.face_areas.double()
    corners = mesh.vertices.double()[mesh.faces]
    middle = (area[:, None] * corners.mean(1)).sum(0) / area.sum().clamp_min(1e-300)
    corners = corners - middle
    # Of the surface, not of its triangles' middles: how squares are cut into triangles has no say.
    vectors = torch.cat((corners, corners.sum(1, keepdim=True)), dim=1)
    _, axes = torch.linalg.eigh(torch.einsum("f,fni,fnj->ij", area, vectors, vectors))
    return middle.to(mesh.dtype), axes.mT.to(mesh.dtype)
