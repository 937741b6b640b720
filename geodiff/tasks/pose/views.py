# SPDX-License-Identifier: Apache-2.0
"""Rotations ranked by silhouette: one render a viewing direction, compared at all turns about it at once."""

import math

import torch

from geodiff.render.renderer import rasterize
from geodiff.scene.camera import Camera
from geodiff.scene.mesh import Mesh
from geodiff.tasks.pose.poses import Poses, rotation_from_vector
from geodiff.tasks.pose.settings import FitPoseSettings
from geodiff.tasks.pose.target import PoseTargets

_TURNS = 64  # about the viewing direction
_RADII = 20
_REACH = 2.8  # radii of the disc of the mask's area
_LISTED = 2000  # of the best are looked at
_SIZES = (1.0, 1.2, 1.45, 1.75)  # of all of the object, if the image shows a part of it: that of the part by these
_GOLDEN = math.pi * (3 - math.sqrt(5))


@torch.no_grad()
def best_views(
    mesh: Mesh, start: Poses, target: PoseTargets, count: int, spread_deg: float, settings: FitPoseSettings
) -> torch.Tensor:
    """Return rotations (M, 3, 3), best first, within an angle of the start.

    Masks of the mesh, seen along the axis from evenly spread directions, and the image's are resampled on circles about
    their centroids, in units of their size; their overlaps at all turns are a correlation along the circles (by FFT).

    Args:
        mesh: one mesh.
        start: one pose.
        target: one image, the larger the better if it shows the mesh small.
        count: directions, ≥ 1.
        spread_deg: in [0, 180].
        settings: says what may move.
    """
    alpha = target.alpha[0]
    origin, size = _place(alpha, start, settings)
    sizes = size * size.new_tensor(_SIZES if is_cut(alpha) and settings.translation != "fixed" else (1.0,))
    wanted, known = _described(alpha.expand(len(sizes), -1, -1), origin.expand(len(sizes), -1), sizes)
    ray = _to_ray(start, origin[0])
    first = ray.mT @ start.rotation[0]
    tilt = _tilts(count, spread_deg, settings.seed, first.dtype)
    seen = rotation_from_vector(tilt) @ first
    masks, lens, distance = _masks(mesh, start, seen, float(size[0]), settings.search_size)
    if settings.translation == "free":
        own, _ = _described(masks, *_moments(masks))
    else:
        nowhere = torch.zeros(len(masks), 2, dtype=masks.dtype)
        length = _moments(masks)[1]
        if settings.translation == "fixed":  # then the size is known, too
            depth = 1.0 if start.lens.is_orthographic else float(start.distance[0] / distance)
            length = (size * lens / float(start.focal[0]) * depth).expand(len(masks))
        own, _ = _described(masks, nowhere, length)
    overlap = torch.stack([_overlap(own, *pair) for pair in zip(wanted, known, strict=True)]).amax(0)
    # Turned by φ after the tilt: the image's circle at θ is the view's at θ − φ.
    turn = torch.arange(_TURNS, dtype=first.dtype) * (2 * math.pi / _TURNS)
    angle = 2 * ((tilt.norm(dim=-1) / 2).cos()[:, None] * (turn / 2).cos().abs()).clamp(0, 1).acos()
    overlap = torch.where(angle <= math.radians(spread_deg) + 1e-3, overlap, -torch.inf).flatten()
    order = overlap.argsort(descending=True, stable=True)[: min(_LISTED, int(overlap.isfinite().sum()))]
    axis = torch.zeros(len(order), 3, dtype=first.dtype)
    axis[:, 2] = turn[order % _TURNS]
    return ray @ rotation_from_vector(axis) @ seen[order // _TURNS]


def _tilts(count: int, spread_deg: float, seed: int, dtype: torch.dtype) -> torch.Tensor:
    """Return rotation vectors (count, 3) across the viewing axis, to directions evenly spread; the first is 0."""
    i = torch.arange(count, dtype=torch.float64)
    z = 1 - (1 - math.cos(math.radians(spread_deg))) * i / max(count - 1, 1)
    turned = torch.rand((), generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    angle, around = z.clamp(-1, 1).acos(), i * _GOLDEN + 2 * math.pi * turned
    return torch.stack((angle * around.cos(), angle * around.sin(), torch.zeros_like(i)), dim=-1).to(dtype)


def _to_ray(start: Poses, place: torch.Tensor) -> torch.Tensor:
    """Return the rotation (3, 3) of the viewing axis to the ray through a place (2,) in the image."""
    if start.lens.is_orthographic:
        return torch.eye(3, dtype=place.dtype)
    focal = start.focal[0] * start.lens.focal / start.lens.focal[0]
    x, y = ((place - start.lens.principal) / focal).unbind()
    length = torch.hypot(x, y).clamp_min(1e-12)
    # The axis is (0, 0, −1) × (x, y, −1).
    axis = torch.stack((y, -x, torch.zeros_like(x))) / length
    return rotation_from_vector(axis * length.atan())


def _place(alpha: torch.Tensor, start: Poses, settings: FitPoseSettings) -> tuple[torch.Tensor, torch.Tensor]:
    """Return where the circles of the image are, (1, 2), and their unit (1,)."""
    centroid, size = _moments(alpha[None])
    if settings.translation == "free":
        return centroid, size
    return start.shift + start.lens.principal, size


def _moments(masks: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return centroids (N, 2) of masks in NDC, and the radii (N,) of discs of their area."""
    height, width = masks.shape[-2:]
    pixel = 2.0 / min(height, width)
    x = (torch.arange(width, dtype=masks.dtype) + 0.5 - 0.5 * width) * pixel
    y = (0.5 * height - 0.5 - torch.arange(height, dtype=masks.dtype)) * pixel
    area = masks.sum((-2, -1))
    at = torch.stack(((masks.sum(-2) * x).sum(-1), (masks.sum(-1) * y).sum(-1)), dim=-1)
    return at / area.clamp_min(1e-6)[:, None], (area.clamp_min(1.0) / math.pi).sqrt() * pixel


def is_cut(alpha: torch.Tensor) -> bool:
    """Whether a mask (H, W) goes up to the border of its image, and what it shows may go on beyond it."""
    rim = torch.cat((alpha[0], alpha[-1], alpha[:, 0], alpha[:, -1]))
    return bool((rim >= 0.5).any())


def _described(masks: torch.Tensor, origin: torch.Tensor, size: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Resample masks (N, H, W) on circles: (N, radii, turns), counter-clockwise; and say what is in the image."""
    height, width = masks.shape[-2:]
    turn = torch.arange(_TURNS, dtype=masks.dtype) * (2 * math.pi / _TURNS)
    radius = (torch.arange(_RADII, dtype=masks.dtype) + 0.5) * (_REACH / _RADII)
    circle = radius[:, None, None] * torch.stack((turn.cos(), turn.sin()), dim=-1)
    points = origin[:, None, None] + size[:, None, None, None] * circle
    shorter = min(height, width)
    grid = points * points.new_tensor([shorter / width, -shorter / height])
    rings = torch.nn.functional.grid_sample(masks[:, None], grid, align_corners=False)[:, 0]
    return rings, (grid.abs() <= 1).all(-1).to(rings.dtype)


def _masks(
    mesh: Mesh, start: Poses, rotation: torch.Tensor, size: float, pixels: int
) -> tuple[torch.Tensor, float, float]:
    """Render hard masks, with the mesh on the axis and as large as the image; return them, focal length and distance.

    The distance, and with it the perspective, is that where a mesh as full as most has the area of the image's mask.
    """
    radius = start.radius
    if start.lens.is_orthographic:
        focal, distance = 0.95 / radius, max(float(start.distance[0]), float(start.lens.near) + 2 * radius)
    else:
        distance = 0.65 * radius * float(start.focal[0]) / size
        distance = min(max(distance, 1.3 * radius + float(start.lens.near)), 1e3 * radius)
        focal = 0.95 * math.sqrt(distance**2 - radius**2) / radius
    away = start.centre.new_tensor([0.0, 0.0, -distance])
    cameras = Camera(
        rotation,
        away - rotation @ start.centre,
        focal * start.lens.focal / start.lens.focal[0],
        orthographic=start.lens.is_orthographic,
        near=start.lens.near,
    )
    return rasterize(mesh, cameras, pixels).mask.to(rotation.dtype), focal, distance


def _overlap(own: torch.Tensor, wanted: torch.Tensor, known: torch.Tensor) -> torch.Tensor:
    """Return intersection over union (N, turns) of resampled masks and an image, turned by each of the angles.

    What is beyond the border of the image is not known (0), and does not count.
    """
    radius = (torch.arange(_RADII, dtype=own.dtype) + 0.5)[:, None]

    def correlation(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        both = torch.fft.rfft(a * radius).conj() * torch.fft.rfft(b)
        return torch.fft.irfft(both.sum(1), n=_TURNS)

    common = correlation(own, wanted)
    if bool(known.all()):
        area = (own * own * radius).sum((-2, -1))[:, None]
    else:
        area = correlation(own * own, known)
    return common / (area + (wanted * wanted * radius).sum() - common).clamp_min(1e-6)
