# SPDX-License-Identifier: Apache-2.0
"""What there is: meshes, primitives, cameras and posed images."""

from geodiff.scene.camera import Camera
from geodiff.scene.mesh import Mesh, MeshBatch
from geodiff.scene.primitives import box, cylinder, icosphere, plane, torus
from geodiff.scene.topology import Topology

__all__ = ["Camera", "Mesh", "MeshBatch", "Topology", "box", "cylinder", "icosphere", "plane", "torus"]
