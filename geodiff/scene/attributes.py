# SPDX-License-Identifier: Apache-2.0
"""What a mesh carries besides vertices and faces: colours, texture coordinates, a texture; and how they must fit."""

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from geodiff.scene.material import Material
from geodiff.scene.texture import Texture
from geodiff.scene.topology import Topology
from geodiff.validation import as_tensor, broadcasts_to, fail, floating, integers, looks_at_values

AXES = {"vertex_colors": 2, "uv": 2, "face_colors": 2, "texture": 3}
"""The attributes, and how many axes each has after those of a batch."""


def checked(topology: Topology, vertices: torch.Tensor, given: dict[str, Any]) -> dict[str, Any]:
    """Return the vertices and those attributes that are not None, on one device and of the widest dtype."""
    sizes: dict[str, tuple[int | str, ...]] = {
        "vertex_colors": ("...", topology.num_vertices, "C"),
        "uv": ("...", "T", 2),
        "face_colors": ("...", topology.num_faces, "C"),
        "texture": ("...", "H", "W", "C"),
    }
    values: dict[str, Any] = {"vertices": vertices}
    for name, value in given.items():
        if value is None:
            continue
        if name != "texture":
            value = floating("Mesh", name, as_tensor("Mesh", name, value), sizes[name])
        elif not isinstance(value, Texture):  # which looks at the numbers
            value = Texture(floating("Mesh", name, as_tensor("Mesh", name, value), sizes[name], finite=False))
        same_device(name, value, vertices)
        values[name] = value
    dtype = functools.reduce(torch.promote_types, (value.dtype for value in values.values()))
    return {
        name: value if value.dtype == dtype else mapped(value, lambda tensor: tensor.to(dtype))
        for name, value in values.items()
    }


def checked_uv_faces(topology: Topology, uv: torch.Tensor | None, uv_faces: Any) -> torch.Tensor | None:
    """Return the texture coordinate (F, 3) of each corner: the faces where nothing else is said; None without any."""
    if uv is None:
        if uv_faces is not None:
            raise fail("Mesh", "uv", "given with `uv_faces`", "None", "Pass uv=(T, 2).")
        return None
    count = uv.shape[-2]
    if uv_faces is None:
        if count != topology.num_vertices:
            expected = f"of shape (..., {topology.num_vertices}, 2), one for each vertex"
            raise fail("Mesh", "uv", expected, uv, "Pass uv_faces=(F, 3) where corners have their own.")
        return topology.faces
    if uv_faces is topology.faces:
        return topology.faces
    value = as_tensor("Mesh", "uv_faces", uv_faces)
    same_device("uv_faces", value, uv)
    value = integers("Mesh", "uv_faces", value, (topology.num_faces, 3), "One row for each face.")
    if value.numel() and looks_at_values(value) and not (0 <= int(value.min()) and int(value.max()) < count):
        expected = f"indices in [0, {count}) since there are {count} texture coordinates"
        raise fail("Mesh", "uv_faces", expected, f"indices from {int(value.min())} to {int(value.max())}")
    return value


def check_batch(mesh: Any) -> None:
    """Require attributes of a mesh without a batch, or with one that broadcasts to that of its vertices."""
    for name, axes in AXES.items():
        value = getattr(mesh, name)
        if value is not None and not broadcasts_to(value.shape[:-axes], mesh.batch_shape):
            expected = f"without a batch, or with the batch {tuple(mesh.batch_shape)} of the vertices"
            raise fail("Mesh", name, expected, value)


def mapped(value: Any, change: Callable[[torch.Tensor], torch.Tensor]) -> Any:
    """Apply a change to a tensor, or to the tensors of a texture or material."""
    return value.map(change) if isinstance(value, Texture | Material) else change(value)


def selected(value: Any, axes: int, batch: torch.Size, index: Any) -> Any:
    """Return an attribute of some meshes of a batch."""
    return mapped(value, lambda tensor: tensor.expand(*batch, *tensor.shape[-axes:])[index])


def seams_split(faces: np.ndarray, uv_faces: torch.Tensor) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Make one vertex of each pair of a vertex and a texture coordinate in use: return both, and the faces of pairs."""
    vertex, corner = faces.reshape(-1), uv_faces.cpu().numpy().reshape(-1)
    if not len(vertex):
        return vertex, corner, faces
    count = int(corner.max()) + 1
    of = np.zeros(count, dtype=np.int64)
    of[corner] = vertex
    if (of[corner] == vertex).all():  # as a rule: then there are fewer coordinates to sort than corners
        used = np.zeros(count, dtype=bool)
        used[corner] = True
        used_corner = np.flatnonzero(used)
        order = used_corner[np.argsort(of[used_corner], kind="stable")]
        rank = np.empty(count, dtype=np.int64)
        rank[order] = np.arange(len(order))
        return of[order], order, rank[corner].reshape(-1, 3)
    unique, inverse = np.unique(vertex * count + corner, return_inverse=True)
    return unique // count, unique % count, inverse.reshape(-1, 3)


def same_device(name: str, value: Any, vertices: torch.Tensor) -> None:
    """Require a tensor on the device of the vertices."""
    if value.device != vertices.device:
        expected = f"on {vertices.device} like the vertices"
        raise fail("Mesh", name, expected, str(value.device), "Use .to(device).", RuntimeError)
