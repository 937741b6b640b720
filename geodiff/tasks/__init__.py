# SPDX-License-Identifier: Apache-2.0
"""Whole jobs, from files to files: what the command line runs. Each has a folder; what they share is beside those."""

import sys

from geodiff.tasks.atlas.job import fit_atlas
from geodiff.tasks.atlas.result import FitAtlasResult
from geodiff.tasks.atlas.settings import FitAtlasSettings
from geodiff.tasks.mesh.hull import visual_hull
from geodiff.tasks.mesh.job import fit_mesh
from geodiff.tasks.mesh.result import FitMeshResult
from geodiff.tasks.mesh.settings import FitMeshSettings
from geodiff.tasks.nurbs.job import fit_nurbs
from geodiff.tasks.nurbs.result import FitNURBSResult
from geodiff.tasks.nurbs.settings import FitNURBSSettings
from geodiff.tasks.pose.job import fit_pose
from geodiff.tasks.pose.result import FitPoseResult
from geodiff.tasks.pose.settings import FitPoseSettings
from geodiff.tasks.progress import Progress
from geodiff.tasks.render.views import render_views
from geodiff.tasks.sweep import SweepResult, sweep
from geodiff.tasks.sweep.settings import SweepSettings
from geodiff.tasks.view import Display, display, view

__all__ = [
    "Display",
    "FitAtlasResult",
    "FitAtlasSettings",
    "FitMeshResult",
    "FitMeshSettings",
    "FitNURBSResult",
    "FitNURBSSettings",
    "FitPoseResult",
    "FitPoseSettings",
    "Progress",
    "SweepResult",
    "SweepSettings",
    "display",
    "fit_atlas",
    "fit_mesh",
    "fit_nurbs",
    "fit_pose",
    "render_views",
    "sweep",
    "view",
    "visual_hull",
]

# The modules that documentation named before each task had a folder are found under those names, too.
_FORMER = {
    "fit_atlas": "atlas.job",
    "fit_mesh": "mesh.job",
    "fit_nurbs": "nurbs.job",
    "fit_pose": "pose.job",
    "pose_settings": "pose.settings",
    "render_views": "render.views",
    "settings": "mesh.settings",
    "sweep_jobs": "sweep.kinds",
}
for _old, _new in _FORMER.items():
    sys.modules[f"{__name__}.{_old}"] = sys.modules[f"{__name__}.{_new}"]
del _old, _new
