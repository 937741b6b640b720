# SPDX-License-Identifier: Apache-2.0
"""geodiff: differentiable geometry and rendering for PyTorch.

The names most people need are here; each is imported from its room on first use, so ``import geodiff`` is cheap and
never needs the compiled kernels.
"""

import importlib
import sys
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0.dev0"

_EXPORTS = {
    "checks": "geodiff.validation",
    "Recording": "geodiff.recording",
    "Mesh": "geodiff.scene.mesh",
    "MeshBatch": "geodiff.scene.mesh_batch",
    "Camera": "geodiff.scene.camera",
    "Texture": "geodiff.scene.texture",
    "Material": "geodiff.scene.material",
    "AmbientLight": "geodiff.scene.light",
    "DirectionalLight": "geodiff.scene.light",
    "PointLight": "geodiff.scene.light",
    "icosphere": "geodiff.scene.primitives",
    "box": "geodiff.scene.primitives",
    "torus": "geodiff.scene.primitives",
    "cylinder": "geodiff.scene.primitives",
    "plane": "geodiff.scene.primitives",
    "BSplineBasis": "geodiff.splines.basis",
    "NURBSCurve": "geodiff.splines.curve",
    "NURBSSurface": "geodiff.splines.surface",
    "NURBSVolume": "geodiff.splines.nurbs_volume",
    "isosurface": "geodiff.scene.isosurface",
    "PosedImages": "geodiff.scene.files",
    "point_mesh_distance": "geodiff.scene.proximity",
    "Renderer": "geodiff.render.renderer",
    "RenderOutput": "geodiff.render.renderer",
    "rasterize": "geodiff.render.renderer",
    "fragments": "geodiff.render.fragments",
    "presets": "geodiff.render",
    "display": "geodiff.tasks.view",
    "Atlas": "geodiff.atlas.atlas",
    "fit_atlas": "geodiff.tasks.atlas.job",
    "fit_mesh": "geodiff.tasks.mesh.job",
    "fit_nurbs": "geodiff.tasks.nurbs.job",
    "fit_pose": "geodiff.tasks.pose.job",
    "chamfer": "geodiff.transport.chamfer",
    "sinkhorn": "geodiff.transport.sinkhorn",
    "sinkhorn_divergence": "geodiff.transport.divergence",
    "SinkhornLoss": "geodiff.transport.divergence",
    "robust_pool": "geodiff.transport.pooling",
}
_ROOMS = (
    "soft",
    "sparse",
    "implicit",
    "csg",
    "optim",
    "scene",
    "transport",
    "splines",
    "fem",
    "render",
    "reference",
    "ops",
    "native",
    "losses",
    "atlas",
    "tasks",
    "interop",
)

__all__ = [*_EXPORTS, "__version__", "atlas", "csg", "fem", "losses", "scene", "soft", "splines", "tasks"]

if TYPE_CHECKING:
    from geodiff import atlas, csg, fem, losses, scene, soft, splines, tasks
    from geodiff.atlas.atlas import Atlas
    from geodiff.recording import Recording
    from geodiff.render import presets
    from geodiff.render.fragments import fragments
    from geodiff.render.renderer import Renderer, RenderOutput, rasterize
    from geodiff.scene.camera import Camera
    from geodiff.scene.files import PosedImages
    from geodiff.scene.isosurface import isosurface
    from geodiff.scene.light import AmbientLight, DirectionalLight, PointLight
    from geodiff.scene.material import Material
    from geodiff.scene.mesh import Mesh
    from geodiff.scene.mesh_batch import MeshBatch
    from geodiff.scene.primitives import box, cylinder, icosphere, plane, torus
    from geodiff.scene.proximity import point_mesh_distance
    from geodiff.scene.texture import Texture
    from geodiff.splines.basis import BSplineBasis
    from geodiff.splines.curve import NURBSCurve
    from geodiff.splines.nurbs_volume import NURBSVolume
    from geodiff.splines.surface import NURBSSurface
    from geodiff.tasks.atlas.job import fit_atlas
    from geodiff.tasks.mesh.job import fit_mesh
    from geodiff.tasks.nurbs.job import fit_nurbs
    from geodiff.tasks.pose.job import fit_pose
    from geodiff.tasks.view.page import display
    from geodiff.transport.chamfer import chamfer
    from geodiff.transport.divergence import SinkhornLoss, sinkhorn_divergence
    from geodiff.transport.pooling import robust_pool
    from geodiff.transport.sinkhorn import sinkhorn
    from geodiff.validation import checks


if "torch" in sys.modules:  # then it costs nothing, and torch.load knows our objects from here on
    from geodiff import saving as _saving


def __getattr__(name: str) -> Any:
    if name in _EXPORTS:
        value = getattr(importlib.import_module(_EXPORTS[name]), name)
    elif name in _ROOMS:
        value = importlib.import_module(f"geodiff.{name}")
    else:
        raise AttributeError(f"module 'geodiff' has no attribute '{name}'")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_EXPORTS, *_ROOMS})
