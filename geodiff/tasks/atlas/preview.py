# SPDX-License-Identifier: Apache-2.0
"""A first look at a surface, in seconds, of whatever cloud."""

import dataclasses
from typing import Any

import numpy as np
import torch

from geodiff.tasks.atlas.settings import FitAtlasSettings
from geodiff.validation import as_tensor, check_finite

POINTS = 3000
_STEPS, _ROUNDS, _SAMPLES = 30, 1, 30_000


def preview(
    points: torch.Tensor, normals: Any, settings: FitAtlasSettings
) -> tuple[torch.Tensor, Any, FitAtlasSettings, str]:
    """Return some of the points (N, 3), their normals, settings for a coarse fit, and a note on that."""
    count, most = len(points), min(POINTS, settings.max_points or POINTS)
    if normals is not None:
        normals = as_tensor("fit_atlas", "normals", normals)
    for name, value in ({"points": points} | ({} if normals is None else {"normals": normals})).items():
        check_finite("fit_atlas", name, value)  # while the rows are those of the caller
    if count > most and (normals is None or normals.shape[:1] == points.shape[:1]):
        rows = torch.from_numpy(np.sort(np.random.default_rng(settings.seed).choice(count, most, replace=False)))
        points, normals = points[rows], None if normals is None else normals[rows]
    settings = dataclasses.replace(
        settings,
        steps=min(settings.steps, _STEPS),
        rounds=min(settings.rounds, _ROUNDS),
        samples=min(settings.samples, _SAMPLES),
        watertight=False,
    )
    note = f"This is a preview, of {len(points)} of {count} points with fewer steps and without watertight.ply."
    return points, normals, settings, note
