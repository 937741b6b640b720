# SPDX-License-Identifier: Apache-2.0
"""Meshes, their textures and cameras from and to PyTorch3D; they stay on their device and in the autograd graph.

PyTorch3D multiplies row vectors, ``X_view = X R + T``, and looks along +z with x to the left and y up; its normalised
image coordinates have x to the left, y up, and [−1, 1] on the shorter side. A half turn around y is all that lies
between its axes and ours, and the rows of images are the same.
"""

import importlib
from typing import Any

import torch

from geodiff.modes import outside_autocast
from geodiff.scene.camera import Camera
from geodiff.scene.mesh import Mesh
from geodiff.scene.mesh_batch import MeshBatch
from geodiff.scene.texture import Texture
from geodiff.validation import fail, positive, warn

# Half a turn around y: x right, y up, looking along −z, from x left, y up, looking along +z; its own inverse.
_TURN = (-1.0, 1.0, -1.0)
_FOV, _FOV_ORTHOGRAPHIC = "FoVPerspectiveCameras", "FoVOrthographicCameras"
_PERSPECTIVE, _ORTHOGRAPHIC = "PerspectiveCameras", "OrthographicCameras"
# What PyTorch3D holds one of, the first in this order.
_LOOKS = ("texture", "vertex_colors", "face_colors")
# Coordinates so little beyond the texels, in texels, are rounding.
_TEXEL = 1e-3
_CAMERAS = (_FOV, _FOV_ORTHOGRAPHIC, _PERSPECTIVE, _ORTHOGRAPHIC)


@outside_autocast
def from_pytorch3d(meshes: Any) -> MeshBatch:
    """Make a batch from PyTorch3D's ``Meshes``, with its vertex colours, textures or face colours.

    Args:
        meshes: a ``Meshes`` of one mesh or more. ``TexturesVertex`` become vertex colours, ``TexturesUV`` of one map a
            mesh a `Texture`, and ``TexturesAtlas`` of one texel a face become face colours; others are left out with
            a warning.

    Returns:
        One mesh for each of its own; gradients flow back to its vertices, colours, maps and coordinates. A single one
        is ``batch[0]``. Where its coordinates count from the middle of the first texel to that of the last
        (``align_corners=True``), they are changed to ours, from edge to edge. The padding "border" becomes the wrap
        "clamp", "reflection" "mirror".

    Raises:
        TypeError: something other than ``Meshes``.
        ValueError: no meshes in it, NaN, or corners without a texture coordinate.

    Example:
        ``mesh = gd.interop.from_pytorch3d(meshes)[0]``
    """
    if not hasattr(meshes, "verts_list") or not hasattr(meshes, "faces_list"):
        raise fail("from_pytorch3d", "meshes", "a pytorch3d.structures.Meshes", meshes, error=TypeError)
    vertices, faces = meshes.verts_list(), meshes.faces_list()
    looks = _looks_from(getattr(meshes, "textures", None), len(vertices))
    return MeshBatch([Mesh(v, f, **look) for v, f, look in zip(vertices, faces, looks, strict=True)])


@outside_autocast
def to_pytorch3d(mesh: Mesh | MeshBatch) -> Any:
    """Return PyTorch3D's ``Meshes`` with one kind of appearance, the only one that it holds.

    A texture becomes ``TexturesUV``; else vertex colours ``TexturesVertex``; else face colours ``TexturesAtlas`` of one
    texel a face. PyTorch3D does not tile textures: of the wrap "repeat" what lies in [0, 1] is the same, but for half a
    texel at the edges of the image, where its colours do not go over into those of the other side.

    Args:
        mesh: a mesh, a batch of positions over the same faces, or a batch of different meshes. What has no place is
            left out with a warning; so is a colour or texture that not all meshes of a batch have, or not of the same
            channels and modes. PyTorch3D scales textures of different sizes to the largest before it looks them up.

    Returns:
        A ``Meshes`` of float32, PyTorch3D's only dtype; gradients flow back to the vertices, colours and textures.

    Raises:
        ImportError: PyTorch3D is not installed.
        TypeError: something other than a mesh.
        ValueError: a batch with more than one batch axis.

    Example:
        ``meshes = gd.interop.to_pytorch3d(gd.icosphere(3))``
    """
    where = "to_pytorch3d"
    if not isinstance(mesh, Mesh | MeshBatch):
        raise fail(where, "mesh", "a Mesh or a MeshBatch", mesh, error=TypeError)
    if isinstance(mesh, Mesh) and len(mesh.batch_shape) > 1:
        raise fail(
            where, "mesh", "with one batch axis at the most", mesh.vertices, "Reshape its vertices to (B, V, 3)."
        )
    parts = [mesh] if isinstance(mesh, Mesh) and not mesh.batch_shape else list(mesh)
    textures = _looks_to(parts)
    vertices = [part.vertices.float() for part in parts]
    return _pytorch3d("structures").Meshes(vertices, [part.faces for part in parts], textures)


@outside_autocast
def camera_from_pytorch3d(cameras: Any, image_size: Any = None) -> Camera:
    """Make a batch of cameras from PyTorch3D's perspective or orthographic ones.

    The near plane is ``znear`` / 2 where the camera has a ``znear``, as PyTorch3D's rasteriser clips it, else ours.

    Args:
        cameras: ``FoVPerspectiveCameras``, ``PerspectiveCameras``, ``FoVOrthographicCameras`` or
            ``OrthographicCameras``; ``K`` comes before the other intrinsics, as it does there.
        image_size: (H, W), or one number for a square: for cameras with ``in_ndc=False``, whose intrinsics are in
            pixels, where they do not carry their own.

    Returns:
        A `Camera` of batch (N,); gradients flow back to R, T and the intrinsics.

    Raises:
        TypeError: something else, or the fisheye camera.
        ValueError: pixel intrinsics without an image size, skew, different near planes, or an R that is not a rotation.

    Example:
        ``camera = gd.interop.camera_from_pytorch3d(FoVPerspectiveCameras(R=R, T=T, fov=60))[0]``
    """
    where = "camera_from_pytorch3d"
    kinds = [cls.__name__ for cls in type(cameras).__mro__ if cls.__name__ in _CAMERAS]
    if not kinds:
        raise fail(where, "cameras", f"one of PyTorch3D's {', '.join(_CAMERAS)}", cameras, error=TypeError)
    kind = kinds[0]
    R, T = cameras.R, cameras.T
    orthographic = kind in (_ORTHOGRAPHIC, _FOV_ORTHOGRAPHIC)
    if getattr(cameras, "K", None) is not None:
        focal, principal = _from_matrix(where, cameras.K, orthographic)
    elif kind == _FOV:
        focal, principal = _from_fov(cameras, R)
    elif kind == _FOV_ORTHOGRAPHIC:
        focal, principal = _from_box(cameras, R)
    else:
        focal, principal = _tensor(cameras.focal_length, R), _tensor(cameras.principal_point, R)
        focal = focal if focal.dim() == 2 else focal.reshape(-1, 1)
        focal = focal.expand(*focal.shape[:-1], 2)
    if not _in_ndc(cameras):
        size = _tensor(_image_size(where, cameras, image_size), R)
        to_ndc = 2.0 / size.min(-1, keepdim=True).values
        focal, principal = focal * to_ndc, (0.5 * size.flip(-1) - principal) * to_ndc
    turn = R.new_tensor(_TURN)
    mirror = R.new_tensor((-1.0, 1.0))
    options = {}
    if getattr(cameras, "znear", None) is not None:
        near = _tensor(cameras.znear, R).detach()
        if bool((near != near.reshape(-1)[0]).any()):
            raise fail(where, "cameras", "of one znear", str(near.tolist()), "Convert them in groups of the same.")
        options["near"] = 0.5 * float(near.reshape(-1)[0])
    return Camera(turn[:, None] * R.mT, turn * T, focal, mirror * principal, orthographic=orthographic, **options)


@outside_autocast
def camera_to_pytorch3d(camera: Camera, *, fov: bool = False, zfar: float = 100.0) -> Any:
    """Return PyTorch3D's ``PerspectiveCameras`` or ``OrthographicCameras``, in NDC.

    Args:
        camera: one camera, or a batch (N,). float64 becomes float32, PyTorch3D's only dtype.
        fov: return ``FoVPerspectiveCameras`` instead, whose ``znear`` and ``zfar`` PyTorch3D's rasteriser and softmax
            shaders read; for a perspective camera with its principal point in the middle.
        zfar: of those.

    Returns:
        N cameras; gradients flow back to pose and intrinsics. Their znear is twice our near plane, since PyTorch3D
        clips at half of it.

    Raises:
        ImportError: PyTorch3D is not installed.
        TypeError: something other than a `Camera`.
        ValueError: more than one batch axis, or with ``fov`` an orthographic or off-centre camera.

    Example:
        ``cameras = gd.interop.camera_to_pytorch3d(gd.Camera.orbit(2.7, 30, 45))``
    """
    where = "camera_to_pytorch3d"
    if not isinstance(camera, Camera):
        raise fail(where, "camera", "a Camera", camera, error=TypeError)
    if len(camera.batch_shape) > 1:
        raise fail(where, "camera", "with one batch axis at the most", f"the batch {tuple(camera.batch_shape)}")
    positive(where, "zfar", zfar)
    if fov and (camera.is_orthographic or bool((camera.principal.detach() != 0).any())):
        raise fail(where, "fov", "False for an orthographic or off-centre camera", "True")
    camera = (camera if camera.batch_shape else Camera.stack([camera])).to(dtype=torch.float32)
    turn = camera.rotation.new_tensor(_TURN)
    pose = {"R": (turn[:, None] * camera.rotation).mT, "T": turn * camera.translation, "device": camera.device}
    renderer = _pytorch3d("renderer")
    if fov:
        fx, fy = camera.focal.unbind(-1)
        lens = {"fov": 2 * torch.atan(1 / fy), "degrees": False, "aspect_ratio": fy / fx}
        return renderer.FoVPerspectiveCameras(znear=2 * camera.near, zfar=zfar, **lens, **pose)
    kind = renderer.OrthographicCameras if camera.is_orthographic else renderer.PerspectiveCameras
    principal = camera.principal * camera.principal.new_tensor((-1.0, 1.0))
    return kind(focal_length=camera.focal, principal_point=principal, in_ndc=True, **pose)


def _looks_from(textures: Any, count: int) -> list[dict[str, Any]]:
    """Read the attributes of each mesh from PyTorch3D's textures."""
    where, why = "from_pytorch3d", ""
    if textures is None:
        return [{}] * count
    if hasattr(textures, "verts_features_list"):
        return [{"vertex_colors": colors} for colors in textures.verts_features_list()]
    if hasattr(textures, "atlas_list"):
        atlas = textures.atlas_list()
        if all(part.shape[1] == 1 for part in atlas):
            return [{"face_colors": part[:, 0, 0]} for part in atlas]
        why = " of more than one texel a face"
    elif hasattr(textures, "maps_list"):
        maps = textures.maps_list()
        if textures.maps_ids_padded() is not None:
            why = " of several maps a mesh"
        elif any(image.shape[-1] not in (1, 3, 4) for image in maps):
            why = f" of {maps[0].shape[-1]} channels"
        else:
            return _from_maps(textures, maps)
    warn(
        f"{where}: {type(textures).__name__}{why} left out, only TexturesVertex, TexturesUV of one map a mesh and "
        "TexturesAtlas of one texel a face are taken over",
    )
    return [{}] * count


def _from_maps(textures: Any, maps: Any) -> list[dict[str, Any]]:
    """Read textures and coordinates; theirs look u up as ``grid_sample`` does, ours from edge to edge of the image."""
    aligned, padding = textures.align_corners, textures.padding_mode
    looks, beyond = [], False
    for image, uv, uv_faces in zip(maps, textures.verts_uvs_list(), textures.faces_uvs_list(), strict=True):
        size = uv.new_tensor((image.shape[1], image.shape[0]))
        if aligned:
            uv = (uv * (size - 1) + 0.5) / size
        # In texels from the middle of the first; the last is at size − 1.
        place = uv.detach() * size - 0.5
        beyond |= bool(((place < -_TEXEL) | (place > size - 1 + _TEXEL)).any())
        texture = Texture(image, "mirror" if padding == "reflection" else "clamp", textures.sampling_mode)
        looks.append({"texture": texture, "uv": uv, "uv_faces": uv_faces})
    if beyond and (padding == "zeros" or (padding == "reflection" and aligned)):
        instead = "the edge goes on" if padding == "zeros" else "mirrored at the edge, not at the middle of a texel"
        warn(
            f"from_pytorch3d: padding_mode='{padding}' with coordinates beyond the texels: {instead}",
        )
    return looks


def _looks_to(parts: list[Mesh]) -> Any:
    """Make PyTorch3D's textures of the first kind that all meshes have; say what is left out."""
    present = {name for part in parts for name in (*_LOOKS, "uv", "material") if getattr(part, name) is not None}
    kept = next((name for name in _LOOKS if name in present and _uniform(parts, name)), None)
    lost = present - ({kept, "uv"} if kept == "texture" else {kept})
    values: list[Any] = [] if kept is None else [getattr(part, kept) for part in parts]
    if kept == "texture" and any(texture.mipmaps for texture in values):
        lost.add("mipmaps")
    if lost:
        warn(f"to_pytorch3d: {', '.join(sorted(lost))} left out")
    if kept is None:
        return None
    renderer = _pytorch3d("renderer")
    if kept == "vertex_colors":
        return renderer.TexturesVertex([colors.float() for colors in values])
    if kept == "face_colors":
        return renderer.TexturesAtlas([colors.float()[:, None, None] for colors in values])
    uvs, wrap = [part.uv.float() for part in parts if part.uv is not None], values[0].wrap
    if wrap == "repeat" and any(bool(((uv < 0) | (uv > 1)).any()) for uv in uvs):
        warn(
            "to_pytorch3d: PyTorch3D does not tile textures: beyond [0, 1] their edge goes on instead",
        )
    return renderer.TexturesUV(
        [texture.image.float() for texture in values],
        [part.uv_faces for part in parts],
        uvs,
        padding_mode="reflection" if wrap == "mirror" else "border",
        align_corners=False,
        sampling_mode=values[0].filter,
    )


def _uniform(parts: list[Mesh], name: str) -> bool:
    """Tell whether all meshes have the attribute, of the same channels and modes."""
    values = [getattr(part, name) for part in parts]
    if any(value is None for value in values):
        return False
    return len({(v.shape[-1], v.wrap, v.filter) if isinstance(v, Texture) else v.shape[-1] for v in values}) == 1


def _from_matrix(where: str, K: torch.Tensor, orthographic: bool) -> tuple[torch.Tensor, torch.Tensor]:
    """Read column-style K (N, 4, 4): x = (K₀₀ X + K₀₂ Z) / Z, or K₀₀ X + K₀₃."""
    if bool((K[:, 0, 1] != 0).any() | (K[:, 1, 0] != 0).any()):
        raise fail(where, "cameras", "without skew in K", str(K[:, :2, :2].detach().tolist()))
    return torch.stack((K[:, 0, 0], K[:, 1, 1]), -1), K[:, :2, 3 if orthographic else 2]


def _from_fov(cameras: Any, like: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    angle = _tensor(cameras.fov, like)
    y = 1 / torch.tan(0.5 * (angle.deg2rad() if cameras.degrees else angle))
    focal = torch.stack(torch.broadcast_tensors(y / _tensor(cameras.aspect_ratio, like), y), -1)
    return focal, torch.zeros_like(focal)


def _from_box(cameras: Any, like: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    low = torch.stack(torch.broadcast_tensors(_tensor(cameras.min_x, like), _tensor(cameras.min_y, like)), -1)
    high = torch.stack(torch.broadcast_tensors(_tensor(cameras.max_x, like), _tensor(cameras.max_y, like)), -1)
    scale = _tensor(cameras.scale_xyz, like)
    return 2 * scale[..., :2] / (high - low), -(high + low) / (high - low)


def _in_ndc(cameras: Any) -> bool:
    given = getattr(cameras, "in_ndc", True)
    return bool(given() if callable(given) else given)


def _image_size(where: str, cameras: Any, image_size: Any) -> Any:
    if image_size is None:
        image_size = getattr(cameras, "image_size", None)
    if image_size is None:
        fix = "Pass image_size=(H, W)."
        raise fail(where, "image_size", "given for cameras with in_ndc=False", "None", fix)
    return (image_size, image_size) if isinstance(image_size, int) else image_size


def _tensor(value: Any, like: torch.Tensor) -> torch.Tensor:
    return torch.as_tensor(value, dtype=like.dtype, device=like.device)


def _pytorch3d(module: str) -> Any:
    try:
        return importlib.import_module(f"pytorch3d.{module}")
    except ImportError as error:
        raise ImportError(
            "geodiff.interop: PyTorch3D is not installed. No package index carries it: build it from its source, as "
            "its INSTALL.md says."
        ) from error
