# SPDX-License-Identifier: Apache-2.0
"""What `fit_mesh` and `fit_colors` return."""

import os
import pathlib
from dataclasses import dataclass, field
from typing import Any

import torch

from geodiff.modes import outside_autocast
from geodiff.scene.camera import Camera
from geodiff.scene.light import Light
from geodiff.scene.mesh import Mesh
from geodiff.tasks.mesh.settings import FitMeshSettings
from geodiff.validation import shapes_repr


@dataclass(frozen=True)
class FitColorsResult:
    """What `fit_colors` returns.

    Attributes:
        mesh: with the texture or the vertex colours; for ``lights="baked"`` as photographed, else without the light.
        harmonics: (9, 3) coefficients of the light, for ``lights="harmonics"``, else None.
        seen: the share of the texels on the surface, or of the vertices, that some view sees.
        psnr: of each view, decibels, over the pixels that both it and the mesh cover; (B,).
        ssim: of each view, of the pictures with all that is not so covered in white; (B,). NaN for images of less than
            11 pixels a side.
        lights: the lamps that were given, which are out of the colours; None for the other kinds of light.
    """

    __repr__ = shapes_repr

    mesh: Mesh
    harmonics: torch.Tensor | None
    seen: float
    psnr: torch.Tensor = field(repr=False)
    ssim: torch.Tensor = field(repr=False)
    lights: list[Light] | None = field(default=None, repr=False)

    @outside_autocast
    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the mesh so that viewers show it as it was photographed: `Mesh.save` with the flags that fit.

        Where the colours hold the light, a GLB file says so (``unlit``).
        """
        self.mesh.save(path, srgb=True, unlit=self.harmonics is None and self.lights is None)


@dataclass(frozen=True)
class FitMeshResult:
    """What `fit_mesh` returns.

    Attributes:
        mesh: the mesh of the best hard IoU in the training views, of all that were measured.
        iou_train: its mean hard IoU in the views it was fitted to.
        iou_held_out: the same in the held-out views; None where there are none.
        best_step: the step (counted from 0) at whose start it was; the number of steps taken for the mesh at the end.
        history: for each step its ``loss`` and the parts of it, ``scale``, and ``iou`` where measured, else None.
        seconds: how long the steps took, over all resumed parts.
        settings: what it was made with.
        train: the indices of the views it was fitted to.
        held_out: those of the others.
        snapshots: vertices on the way, (K, V, 3), for an animation; a list of (V, 3) where it was remeshed.
        snapshot_faces: the faces of each.
        snapshot_steps: the step of each.
        cameras: for ``refine_cameras``, all views' as they were found, in the world of the given ones; else None.
        device: where the steps were taken.
        colors: of the texture or vertex colours, where they were asked for: a `FitColorsResult`.
        files: what was written, by kind, where there was an output folder.
    """

    __repr__ = shapes_repr

    mesh: Mesh
    iou_train: float
    iou_held_out: float | None
    best_step: int
    history: list[dict[str, Any]] = field(repr=False)
    seconds: float
    settings: FitMeshSettings
    train: list[int] = field(repr=False)
    held_out: list[int] = field(repr=False)
    snapshots: torch.Tensor | list[torch.Tensor] = field(repr=False)
    snapshot_steps: list[int] = field(repr=False)
    snapshot_faces: list[torch.Tensor] = field(default_factory=list, repr=False)
    cameras: Camera | None = field(default=None, repr=False)
    colors: FitColorsResult | None = field(default=None, repr=False)
    files: dict[str, pathlib.Path] = field(default_factory=dict, repr=False)
    device: str = "cpu"

    @property
    def stopped_early(self) -> bool:
        """Whether it ended for want of ``patience``, before all steps were taken."""
        return len(self.history) < self.settings.steps
