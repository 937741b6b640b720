# SPDX-License-Identifier: Apache-2.0
"""What `fit_pose` returns."""

import pathlib
from dataclasses import dataclass, field
from typing import Any

import torch

from geodiff.scene.camera import Camera
from geodiff.tasks.pose.modes import PoseMode
from geodiff.tasks.pose.settings import FitPoseSettings
from geodiff.validation import shapes_repr


@dataclass(frozen=True)
class FitPoseResult:
    """What `fit_pose` returns.

    Attributes:
        camera: the pose found: that of least loss.
        modes: the poses that explain the image, best first, with their probabilities: that of ``camera``, and others,
            10° and more away, that the image hardly tells from it. See `PoseMode`.
        free_axes: (K, 3) unit vectors in the mesh's coordinates about which the image does not tell the turn: one for
            what is as round as a bottle, two or more for a ball. Modes that differ by that alone are one.
        loss: its loss at the last τ: squared differences of the terms that are compared, added.
        iou: the intersection over union of its hard mask and the image's coverage ≥ ½, at the image's resolution.
        explained: from 0 to 1, how far the mesh explains the image in this pose: 1 where the masks overlap by 0.8 and
            more, 0 where they do so by ½ and less, as anything does that is put there. Pixels that the grid may get
            wrong do not count. Less than 1 is warned of; the probabilities of the modes sum to it.
        cameras: a batch of the poses followed to the end, best first; others of nearly the same loss are poses that the
            image hardly tells apart.
        losses: theirs, (N,).
        history: for each step the ``step``, ``scale``, the least ``loss`` of all poses followed, and their ``count``.
        error: where the truth is known: ``angle_deg`` between the rotations (geodesic), ``position`` between the
            cameras (in the world's unit), ``distance`` and ``focal`` as ratios to the true ones; else None. How far an
            orthographic camera stands off shows nowhere: there is no ``distance``, and ``position`` is how far the
            middle of the mesh is off across the viewing direction.
        seconds: how long it took, over all resumed parts.
        settings: what it was made with.
        start: the camera it started from: the guess, or a view from ahead.
        snapshots: the way of ``camera`` during the descent, a batch.
        snapshot_steps: the step of each.
        device: where images were rendered and compared.
        files: what was written, by kind, where there was an output folder.
    """

    __repr__ = shapes_repr

    camera: Camera
    modes: list[PoseMode] = field(repr=False)
    free_axes: torch.Tensor = field(repr=False)
    loss: float
    iou: float
    explained: float
    cameras: Camera = field(repr=False)
    losses: torch.Tensor = field(repr=False)
    history: list[dict[str, Any]] = field(repr=False)
    error: dict[str, float] | None
    seconds: float
    settings: FitPoseSettings = field(repr=False)
    start: Camera = field(repr=False)
    snapshots: Camera = field(repr=False)
    snapshot_steps: list[int] = field(repr=False)
    files: dict[str, pathlib.Path] = field(default_factory=dict, repr=False)
    device: str = "cpu"
