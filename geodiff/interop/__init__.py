# SPDX-License-Identifier: Apache-2.0
"""To and from other libraries' objects; none of the libraries is imported before it is needed.

Cameras go to and from OpenCV with ``Camera.from_opencv`` and ``Camera.to_opencv``.
"""

from geodiff.interop.open3d import Points, from_open3d, points_from_open3d, points_to_open3d, to_open3d
from geodiff.interop.pytorch3d import camera_from_pytorch3d, camera_to_pytorch3d, from_pytorch3d, to_pytorch3d
from geodiff.interop.trimesh import from_trimesh_scene, to_trimesh_scene
from geodiff.scene.mesh_files import from_trimesh, to_trimesh

__all__ = [
    "Points",
    "camera_from_pytorch3d",
    "camera_to_pytorch3d",
    "from_open3d",
    "from_pytorch3d",
    "from_trimesh",
    "from_trimesh_scene",
    "points_from_open3d",
    "points_to_open3d",
    "to_open3d",
    "to_pytorch3d",
    "to_trimesh",
    "to_trimesh_scene",
]
