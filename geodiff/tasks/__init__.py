# SPDX-License-Identifier: Apache-2.0
"""Whole jobs, from files to files: what the command line runs."""

from geodiff.tasks.fit_atlas import FitAtlasResult, fit_atlas
from geodiff.tasks.fit_mesh import FitMeshResult, fit_mesh
from geodiff.tasks.fit_nurbs import FitNURBSResult, fit_nurbs
from geodiff.tasks.fit_pose import FitPoseResult, fit_pose
from geodiff.tasks.pose_settings import FitPoseSettings
from geodiff.tasks.render_views import render_views
from geodiff.tasks.settings import FitMeshSettings
from geodiff.tasks.sweep import SweepResult, sweep
from geodiff.tasks.view import Display, display, view

__all__ = [
    "Display",
    "FitAtlasResult",
    "FitMeshResult",
    "FitMeshSettings",
    "FitNURBSResult",
    "FitPoseResult",
    "FitPoseSettings",
    "SweepResult",
    "display",
    "fit_atlas",
    "fit_mesh",
    "fit_nurbs",
    "fit_pose",
    "render_views",
    "sweep",
    "view",
]
