# SPDX-License-Identifier: Apache-2.0
"""Scenes of several meshes and a camera from and to ``trimesh.Scene``."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
import trimesh

from geodiff.modes import outside_autocast
from geodiff.scene.camera import Camera
from geodiff.scene.mesh import Mesh
from geodiff.scene.mesh_batch import MeshBatch
from geodiff.scene.mesh_files import from_trimesh, to_trimesh
from geodiff.validation import fail


@outside_autocast
def from_trimesh_scene(
    scene: trimesh.Scene, dtype: torch.dtype = torch.float32
) -> tuple[dict[str, Mesh], Camera | None]:
    """Return the meshes of a ``trimesh.Scene``, where they stand in the world, and its camera.

    Args:
        scene: its meshes; points and paths in it are passed over. A mesh that stands in several places comes several
            times.
        dtype: torch.float32 or torch.float64 (trimesh has float64).

    Returns:
        The meshes by the name of their node, and the camera (its intrinsics for images of its resolution); None where
        the scene has none of its own.

    Raises:
        TypeError: something other than a ``Scene``.

    Example:
        >>> import trimesh
        >>> meshes, camera = from_trimesh_scene(trimesh.Scene([trimesh.creation.box()]))
        >>> list(meshes.values()), camera
        ([Mesh(vertices=(8, 3), faces=(12, 3), float32, cpu)], None)
    """
    if not isinstance(scene, trimesh.Scene):
        raise fail("from_trimesh_scene", "scene", "a trimesh.Scene", scene, error=TypeError)
    meshes = {}
    for node in scene.graph.nodes_geometry:
        matrix, name = scene.graph[node]
        source = scene.geometry[name]
        if isinstance(source, trimesh.Trimesh):
            # Moved in float64, before it is rounded.
            meshes[str(node)] = from_trimesh(source.copy().apply_transform(matrix), dtype)
    if not scene.has_camera:
        return meshes, None
    to_camera = torch.tensor(np.linalg.inv(scene.camera_transform), dtype=torch.float64)
    width, height = (int(n) for n in scene.camera.resolution)
    K = torch.tensor(np.asarray(scene.camera.K), dtype=torch.float64)
    camera = Camera.from_K(K, to_camera[:3, :3], to_camera[:3, 3], image_size=(height, width))
    return meshes, camera.to(dtype=dtype)


@outside_autocast
def to_trimesh_scene(
    meshes: Mesh | MeshBatch | Mapping[str, Mesh],
    camera: Camera | None = None,
    image_size: int | tuple[int, int] = (480, 640),
) -> trimesh.Scene:
    """Return a ``trimesh.Scene`` of one mesh or more, and a camera.

    Args:
        meshes: a mesh, or a batch of either kind, or meshes by the names that their nodes shall have.
        camera: one perspective camera with its principal point in the middle, the only kind that trimesh has.
        image_size: (H, W), or one number for a square: the resolution of the scene's camera.

    Raises:
        TypeError: something other than meshes.
        ValueError: a batch of cameras, or one that trimesh has no place for.

    Example:
        >>> import geodiff as gd
        >>> to_trimesh_scene({"ball": gd.icosphere(1), "box": gd.box()}).geometry.keys()
        odict_keys(['ball', 'box'])
    """
    where = "to_trimesh_scene"
    if isinstance(meshes, Mesh):
        meshes = dict(_named([meshes] if not meshes.batch_shape else list(meshes)))
    elif isinstance(meshes, MeshBatch):
        meshes = dict(_named(list(meshes)))
    elif not isinstance(meshes, Mapping):
        raise fail(where, "meshes", "a Mesh, a MeshBatch or a dictionary of meshes", meshes, error=TypeError)
    scene = trimesh.Scene()
    for name, mesh in meshes.items():
        scene.add_geometry(to_trimesh(mesh), node_name=name, geom_name=name)
    if camera is None:
        return scene
    if camera.batch_shape:
        raise fail(where, "camera", "one camera", f"a batch of {tuple(camera.batch_shape)}", "Take camera[i].")
    if camera.is_orthographic or bool((camera.principal.detach() != 0).any()):
        raise fail(where, "camera", "a perspective camera with its principal point in the middle", "another")
    height, width = (image_size, image_size) if isinstance(image_size, int) else image_size
    camera = camera.detach().to("cpu", torch.float64)
    K = camera.K((height, width)).numpy()
    scene.camera = trimesh.scene.Camera(resolution=(width, height), focal=(K[0, 0], K[1, 1]), z_near=camera.near)
    scene.camera_transform = camera.camera_to_world.numpy()
    return scene


def _named(meshes: list[Mesh]) -> list[tuple[str, Any]]:
    """Give each mesh the name mesh_0, mesh_1, …."""
    return [(f"mesh_{i}", mesh) for i, mesh in enumerate(meshes)]
