# SPDX-License-Identifier: Apache-2.0
"""What there is: meshes, textures, materials, lights, primitives, iso-surfaces, voxels, cameras and posed images."""

from geodiff.scene.camera import Camera
from geodiff.scene.components import face_components
from geodiff.scene.geodesic import geodesic, graph_distance
from geodiff.scene.isosurface import isosurface
from geodiff.scene.light import AmbientLight, DirectionalLight, PointLight
from geodiff.scene.material import Material
from geodiff.scene.mesh import Mesh
from geodiff.scene.mesh_batch import MeshBatch
from geodiff.scene.primitives import box, cylinder, icosphere, plane, torus
from geodiff.scene.proximity import ClosestPoints, closest_point, point_mesh_distance
from geodiff.scene.sampling import SurfaceSamples
from geodiff.scene.texture import Texture
from geodiff.scene.topology import Topology
from geodiff.scene.voxels import voxelized

__all__ = [
    "AmbientLight",
    "Camera",
    "ClosestPoints",
    "DirectionalLight",
    "Material",
    "Mesh",
    "MeshBatch",
    "PointLight",
    "SurfaceSamples",
    "Texture",
    "Topology",
    "box",
    "closest_point",
    "cylinder",
    "face_components",
    "geodesic",
    "graph_distance",
    "icosphere",
    "isosurface",
    "plane",
    "point_mesh_distance",
    "torus",
    "voxelized",
]
