# SPDX-License-Identifier: Apache-2.0
"""Whole jobs, from files to files: what the command line runs. Each has a folder; what they share is beside those.

A job is imported when it is first used.
"""

import importlib
import importlib.util
import sys
import types
from typing import TYPE_CHECKING, Any

_EXPORTS = {
    "fit_atlas": "atlas.job",
    "FitAtlasResult": "atlas.result",
    "FitAtlasSettings": "atlas.settings",
    "fit_colors": "mesh.colors",
    "FitColorsResult": "mesh.result",
    "visual_hull": "mesh.hull",
    "fit_mesh": "mesh.job",
    "FitMeshResult": "mesh.result",
    "FitMeshSettings": "mesh.settings",
    "fit_nurbs": "nurbs.job",
    "FitNURBSResult": "nurbs.result",
    "FitNURBSSettings": "nurbs.settings",
    "fit_pose": "pose.job",
    "FitPoseResult": "pose.result",
    "PoseMode": "pose.modes",
    "FitPoseSettings": "pose.settings",
    "Progress": "progress",
    "render_views": "render.views",
    "sweep": "sweep.job",
    "SweepResult": "sweep.result",
    "SweepSettings": "sweep.settings",
    "Display": "view.page",
    "display": "view.page",
    "view": "view.page",
}

if TYPE_CHECKING:
    from geodiff.tasks.atlas.job import fit_atlas
    from geodiff.tasks.atlas.result import FitAtlasResult
    from geodiff.tasks.atlas.settings import FitAtlasSettings
    from geodiff.tasks.mesh.colors import fit_colors
    from geodiff.tasks.mesh.hull import visual_hull
    from geodiff.tasks.mesh.job import fit_mesh
    from geodiff.tasks.mesh.result import FitColorsResult, FitMeshResult
    from geodiff.tasks.mesh.settings import FitMeshSettings
    from geodiff.tasks.nurbs.job import fit_nurbs
    from geodiff.tasks.nurbs.result import FitNURBSResult
    from geodiff.tasks.nurbs.settings import FitNURBSSettings
    from geodiff.tasks.pose.job import fit_pose
    from geodiff.tasks.pose.modes import PoseMode
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
    "FitColorsResult",
    "FitMeshResult",
    "FitMeshSettings",
    "FitNURBSResult",
    "FitNURBSSettings",
    "FitPoseResult",
    "FitPoseSettings",
    "PoseMode",
    "Progress",
    "SweepResult",
    "SweepSettings",
    "display",
    "fit_atlas",
    "fit_colors",
    "fit_mesh",
    "fit_nurbs",
    "fit_pose",
    "render_views",
    "sweep",
    "view",
    "visual_hull",
]


class _Tasks(types.ModuleType):
    """This package: `sweep` and `view` are functions in it, though there are folders of those names."""

    def __getattr__(self, name: str) -> Any:
        if name in _EXPORTS:
            value = getattr(importlib.import_module(f"{__name__}.{_EXPORTS[name]}"), name)
        elif not name.startswith("_") and importlib.util.find_spec(f"{__name__}.{name}"):
            value = importlib.import_module(f"{__name__}.{name}")
        else:
            raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
        super().__setattr__(name, value)
        return value

    def __setattr__(self, name: str, value: Any) -> None:
        if not (name in _EXPORTS and isinstance(value, types.ModuleType)):
            super().__setattr__(name, value)

    def __dir__(self) -> list[str]:
        return sorted({*vars(self), *_EXPORTS})


sys.modules[__name__].__class__ = _Tasks


class _Moved(types.ModuleType):
    """A module that is somewhere else now, and imported from there when something of it is asked for."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # those who look at all modules
            raise AttributeError(name)
        return getattr(importlib.import_module(f"{__name__}.{_FORMER[self.__name__.rpartition('.')[2]]}"), name)


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
for _old in _FORMER:
    sys.modules[f"{__name__}.{_old}"] = _Moved(f"{__name__}.{_old}")
del _old
