# SPDX-License-Identifier: Apache-2.0
"""The sweep's job of camera poses: how many of a number of starts, off by some angle, find the pose."""

import statistics
import warnings
from typing import Any, NamedTuple

import torch

from geodiff.render.renderer import rasterize
from geodiff.scene.camera import Camera
from geodiff.scene.mesh import Mesh
from geodiff.settings import LARGEST
from geodiff.soft.family import member
from geodiff.tasks.pose.job import fit_pose
from geodiff.tasks.pose.settings import FitPoseSettings
from geodiff.tasks.sweep.kinds import Case, Job, register_job
from geodiff.validation import fail, integer, number, positive

_FOV = 40.0  # degrees
_FOUND = 3.0  # degrees

_OPTIONS = {
    "pairs": 12,
    "angles": [15.0, 75.0],
    "steps": 100,
    "lr_decay": 0.1,
    "scale_decay": 1e-2,
    "candidates": 1,
    "starts": 1,
    "finalists": 1,
    "spread": 0.0,
    "translation": "distance",
    "search_size": 32,
    "size": 64,
    "seed": 0,
}


class _Pairs(NamedTuple):
    mesh: Mesh
    truth: Camera
    start: Camera
    images: torch.Tensor
    settings: FitPoseSettings
    decay: float


def _prepare(mesh: Mesh, options: dict[str, Any]) -> _Pairs:
    options = dict(options)
    count, angles, decay = options.pop("pairs"), options.pop("angles"), options.pop("scale_decay")
    integer("sweep", "pairs", count, 1, 10**6)
    positive("sweep", "scale_decay", decay, "It is what is left of τ at the last step.")
    number("sweep", "scale_decay", decay, 0, LARGEST)
    if not isinstance(angles, list) or len(angles) != 2 or not 0 <= angles[0] <= angles[1] <= 180:
        raise fail("sweep", "angles", "two angles in [0, 180] degrees, the smaller first", repr(angles))
    settings = FitPoseSettings(**options)
    centre = mesh.bounds.mean(0)
    radius = float((mesh.vertices - centre).norm(dim=-1).max())
    generator = torch.Generator().manual_seed(settings.seed)
    elevation, azimuth = torch.randn(2, count, generator=generator) * 60.0
    u = torch.rand(4, count, generator=generator)
    truth = Camera.orbit(radius * (2.5 + 1.5 * u[0]), elevation, azimuth, fov_deg=_FOV, at=centre, near=1e-2 * radius)
    # The start is off in elevation and azimuth where the true pose has 0 of both, and anywhere from near to far.
    size, turn = angles[0] + (angles[1] - angles[0]) * u[1], 2 * torch.pi * u[2]
    off = Camera.orbit(radius * (2 + 8 * u[3]), size * turn.sin(), size * turn.cos(), fov_deg=_FOV)
    rotation = off.rotation @ truth.rotation
    start = Camera(rotation, off.translation - (rotation @ centre[:, None])[..., 0], truth.focal, near=truth.near)
    images = rasterize(mesh, truth, settings.size).mask.to(mesh.dtype)
    return _Pairs(mesh, truth, start, images, settings, decay)


def _run(pairs: _Pairs, case: Case) -> dict[str, float | int | None]:
    renderer = member(case.member)
    angles, overlaps = [], []
    for i, image in enumerate(pairs.images):
        with warnings.catch_warnings():
            # Members of the family that find nothing are what a sweep is for.
            warnings.filterwarnings("ignore", "fit_pose: the mesh does not explain the image")
            fit = fit_pose(
                pairs.mesh,
                image,
                start=pairs.start[i],
                truth=pairs.truth[i],
                settings=pairs.settings,
                progress=False,
                distribution=renderer.distribution,
                tconorm=renderer.tconorm,
                coverage="faces",
                scale=(case.scale, case.scale * pairs.decay),
                lr=case.lr,
            )
        assert fit.error is not None
        angles.append(fit.error["angle_deg"])
        overlaps.append(fit.iou)
    return {
        "found": sum(angle <= _FOUND for angle in angles) / len(angles),
        "angle_median": statistics.median(angles),
        "iou": statistics.fmean(overlaps),
    }


POSE = register_job(
    Job(
        name="pose",
        options=_OPTIONS,
        scales=tuple(10 ** (-0.5 - 0.5 * n) for n in range(6)),
        lrs=(0.03, 0.1, 0.3),
        columns=("found", "angle_median", "iou"),
        score="found",
        prepare=_prepare,
        run=_run,
    )
)
"""Descend by `fit_pose` from one start each, without its search; ``found`` is the part within 3° of the true rotation.

True poses have elevation and azimuth N(0, 60°) and distances from 2.5 to 4 radii of the mesh; starts are off by
``angles`` in a random direction, at 2 to 10 radii (F. Petersen, "Learning with differentiable algorithms", 2022, 5.4.2,
but for the field of view, which is known here). τ is that of the first step, and ``scale_decay`` what is left of it.
"""
