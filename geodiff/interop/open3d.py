# SPDX-License-Identifier: Apache-2.0
"""Meshes and point clouds from and to Open3D, which holds float64 and no gradients."""

from typing import Any, NamedTuple

import numpy as np
import torch

from geodiff.modes import outside_autocast
from geodiff.scene.images import as_bytes, warn_clipped
from geodiff.scene.mesh import Mesh
from geodiff.validation import fail, promote, shape_text, shapes_repr, warn


class Points(NamedTuple):
    """A point cloud.

    Attributes:
        positions: (N, 3).
        colors: (N, 3) in [0, 1], or None.
        normals: (N, 3), or None.
    """

    def __repr__(self) -> str:
        return shapes_repr(self)

    positions: torch.Tensor
    colors: torch.Tensor | None = None
    normals: torch.Tensor | None = None


@outside_autocast
def from_open3d(mesh: Any, dtype: torch.dtype = torch.float32) -> Mesh:
    """Make a mesh from an Open3D ``TriangleMesh``, with its vertex colours, texture coordinates and texture.

    Args:
        mesh: an ``open3d.geometry.TriangleMesh``, whose textures have their row 0 at the bottom, or an
            ``open3d.t.geometry.TriangleMesh``, whose ``albedo`` has it on top; the other attributes of the latter are
            those that Open3D's ``to_legacy`` keeps. Of several textures in use all are left out with a warning.
        dtype: torch.float32 or torch.float64 (Open3D has float64).

    Raises:
        TypeError: something else.
        ValueError: NaN, or indices out of range.

    Example:
        ``mesh = gd.interop.from_open3d(o3d.io.read_triangle_mesh("chair.ply"))``
    """
    albedo = _albedo(mesh)
    mesh = mesh.to_legacy() if hasattr(mesh, "to_legacy") else mesh
    if not hasattr(mesh, "vertices") or not hasattr(mesh, "triangles"):
        raise fail("from_open3d", "mesh", "an Open3D TriangleMesh", mesh, error=TypeError)
    vertices, colors = _read(mesh.vertices, 3, dtype), _read(mesh.vertex_colors, 3, dtype)
    faces = np.array(mesh.triangles, dtype=np.int64).reshape(-1, 3)
    attributes: dict[str, Any] = {"vertex_colors": colors if len(colors) else None}
    uv = _read(mesh.triangle_uvs, 2, dtype)
    if len(uv):
        attributes |= {"uv": uv, "uv_faces": torch.arange(len(uv)).reshape(-1, 3)}
        attributes["texture"] = _texture(mesh, dtype) if albedo is None else _image(albedo, dtype)
    return Mesh(vertices, faces, **attributes)


@outside_autocast
def to_open3d(mesh: Mesh) -> Any:
    """Return an ``open3d.geometry.TriangleMesh`` with the same vertices, faces, vertex colours and texture.

    Args:
        mesh: no batch. Face colours, the material, the wrap of a texture other than "repeat", Open3D's only one, and
            an alpha of the vertex colours are left out with a warning. The texture becomes one of 8 bits.

    Raises:
        ImportError: Open3D is not installed.
        TypeError: something other than a `Mesh`.
        ValueError: a batch.

    Example:
        ``o3d.visualization.draw(gd.interop.to_open3d(gd.icosphere(3)))``
    """
    if not isinstance(mesh, Mesh):
        raise fail("to_open3d", "mesh", "a Mesh", mesh, error=TypeError)
    if mesh.batch_shape:
        raise fail("to_open3d", "mesh", "one mesh", f"a batch of {tuple(mesh.batch_shape)}", "Take mesh[i].")
    open3d = _open3d()
    vector, corners = open3d.utility.Vector3dVector, open3d.utility.Vector3iVector
    result = open3d.geometry.TriangleMesh(vector(_write(mesh.vertices)), corners(mesh.faces_int32.cpu().numpy()))
    lost = [name for name in ("face_colors", "material") if getattr(mesh, name) is not None]
    if mesh.vertex_colors is not None:
        channels = mesh.vertex_colors.shape[-1]
        if channels in (3, 4):
            result.vertex_colors = vector(_write(mesh.vertex_colors[..., :3]))
        if channels != 3:
            lost.append("the alpha of vertex_colors" if channels == 4 else f"vertex_colors of {channels} channels")
    if mesh.uv is not None and mesh.uv_faces is not None:
        result.triangle_uvs = open3d.utility.Vector2dVector(_write(mesh.uv[mesh.uv_faces.reshape(-1)]))
    if mesh.texture is not None:
        # Row 0 at the bottom, as its readers of files have it.
        warn_clipped("to_open3d", texture=mesh.texture.image)
        result.textures = [open3d.geometry.Image(np.ascontiguousarray(as_bytes(mesh.texture.image)[::-1]))]
        result.triangle_material_ids = open3d.utility.IntVector(np.zeros(mesh.num_faces, dtype=np.int32))
        if mesh.texture.wrap != "repeat":
            lost.append(f"the wrap {mesh.texture.wrap!r} of texture")
    if lost:
        warn(f"to_open3d: {', '.join(lost)} left out")
    return result


@outside_autocast
def points_from_open3d(cloud: Any, dtype: torch.dtype = torch.float32) -> Points:
    """Return the positions, colours and normals of an Open3D ``PointCloud``, of either geometry.

    Raises:
        TypeError: something else.

    Example:
        ``x = gd.interop.points_from_open3d(o3d.io.read_point_cloud("scan.ply")).positions``
    """
    cloud = cloud.to_legacy() if hasattr(cloud, "to_legacy") else cloud
    if not hasattr(cloud, "points"):
        raise fail("points_from_open3d", "cloud", "an Open3D PointCloud", cloud, error=TypeError)
    positions, colors, normals = (_read(value, 3, dtype) for value in (cloud.points, cloud.colors, cloud.normals))
    return Points(positions, colors if len(colors) else None, normals if len(normals) else None)


@outside_autocast
def points_to_open3d(positions: Any, colors: Any = None, normals: Any = None) -> Any:
    """Return an ``open3d.geometry.PointCloud``.

    Args:
        positions: (N, 3) tensor or array, or `Points`.
        colors: (N, 3) in [0, 1].
        normals: (N, 3).

    Raises:
        ImportError: Open3D is not installed.
        ValueError: wrong shapes, NaN or infinity.

    Example:
        ``cloud = gd.interop.points_to_open3d(torch.rand(1000, 3))``
    """
    where = "points_to_open3d"
    if isinstance(positions, Points):
        positions, colors, normals = positions
    given = {"positions": positions, "colors": colors, "normals": normals}
    values = promote(where, **{name: value for name, value in given.items() if value is not None})
    shape: tuple[int | str, ...] = ("N", 3)
    for name, value in values.items():
        if value.dim() != 2 or value.shape[1] != 3 or (shape[0] != "N" and len(value) != shape[0]):
            raise fail(where, name, f"of shape {shape_text(shape)}", value)
        shape = (len(value), 3)
    open3d = _open3d()
    vector = open3d.utility.Vector3dVector
    cloud = open3d.geometry.PointCloud(vector(_write(values["positions"])))
    if "colors" in values:
        cloud.colors = vector(_write(values["colors"]))
    if "normals" in values:
        cloud.normals = vector(_write(values["normals"]))
    return cloud


def _albedo(mesh: Any) -> np.ndarray | None:
    """Return the image (H, W, C) of a tensor mesh's material, which ``to_legacy`` does not keep."""
    maps = getattr(getattr(mesh, "material", None), "texture_maps", {})
    image = maps["albedo"].as_tensor().cpu().numpy() if "albedo" in maps else np.zeros(0)
    return image if image.size else None


def _texture(mesh: Any, dtype: torch.dtype) -> torch.Tensor | None:
    """Return the one image that the faces of a legacy mesh name, row 0 on top; its list may have empty ones."""
    images = [np.asarray(image) for image in mesh.textures]
    named = np.unique(np.asarray(mesh.triangle_material_ids, dtype=np.int64))
    named = named if len(named) else np.arange(len(images))
    used = [images[i] for i in named if i < len(images) and images[i].size]
    if len(used) > 1:
        warn(f"from_open3d: {len(used)} textures left out; a Mesh holds one")
    return _image(used[0][::-1], dtype) if len(used) == 1 else None


def _image(pixels: np.ndarray, dtype: torch.dtype) -> torch.Tensor:
    """Return 8- or 16-bit or floating-point pixels as numbers from 0 to 1, (H, W, C)."""
    top = np.iinfo(pixels.dtype).max if np.issubdtype(pixels.dtype, np.integer) else 1
    value = torch.tensor(np.ascontiguousarray(pixels, dtype=np.float64) / top, dtype=dtype)
    return value if value.dim() == 3 else value[..., None]


def _read(values: Any, width: int, dtype: torch.dtype) -> torch.Tensor:
    return torch.tensor(np.asarray(values, dtype=np.float64), dtype=dtype).reshape(-1, width)


def _write(value: torch.Tensor) -> np.ndarray:
    return np.ascontiguousarray(value.detach().cpu().double().numpy())


def _open3d() -> Any:
    try:
        import open3d
    except ImportError as error:
        raise ImportError(
            f"geodiff.interop: Open3D is not usable here ({error}). Install it with pip install 'geodiff[open3d]'."
        ) from error
    return open3d
