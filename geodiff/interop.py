# SPDX-License-Identifier: Apache-2.0
"""To and from other libraries' objects.

Cameras go to and from OpenCV with ``Camera.from_opencv`` and ``Camera.to_opencv``.
"""

from geodiff.scene.mesh_files import from_trimesh, to_trimesh

__all__ = ["from_trimesh", "to_trimesh"]
