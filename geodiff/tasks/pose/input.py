# SPDX-License-Identifier: Apache-2.0
"""What goes into fit_pose, checked: mesh, image, mask, depth, cameras; and files that the command line names."""

import os
import pathlib
from collections.abc import Sequence
from typing import Any

import torch

from geodiff.arrays import load_arrays
from geodiff.scene.camera import Camera
from geodiff.scene.files import PosedImages
from geodiff.scene.images import label_scale, read_image
from geodiff.scene.light import AmbientLight, DirectionalLight, Light
from geodiff.scene.mesh import Mesh
from geodiff.settings import LARGEST
from geodiff.tasks.device import brought_home
from geodiff.tasks.pose.settings import FitPoseSettings
from geodiff.tasks.pose.target import PoseTargets
from geodiff.tasks.specks import without_specks
from geodiff.validation import as_tensor, check_finite, fail, floating, number

_WHERE = "fit_pose"
DEFAULT_FOV = 40.0  # degrees
_SMALLEST = 8  # pixels
_NEAR = 0.01  # of the mesh's radius


def read_targets(image: Any, mask: Any, depth: Any, settings: FitPoseSettings, dtype: torch.dtype) -> PoseTargets:
    """Check what the pose is fitted to, and return it as a batch of one."""
    picture, mask = _picture("image", image, dtype), None if mask is None else _picture("mask", mask, dtype)
    if mask is not None and mask.dim() == 3:
        if mask.shape[-1] not in (1, 4):
            raise fail(_WHERE, "mask", "coverage of shape (H, W)", mask, "Give a grey image, or one with alpha.")
        mask = mask[..., -1]
    color = None
    if picture.dim() == 3 and picture.shape[-1] == 1:
        picture = picture[..., 0]
    if picture.dim() == 3:
        if picture.shape[-1] == 3 and mask is None:
            fix = "Pass mask=, the coverage of the mesh in the image, or an image with alpha."
            raise fail(_WHERE, "image", "coverage (H, W), or colour with alpha (H, W, 4)", picture, fix)
        alpha = picture[..., 3] if mask is None else mask
        color = picture[..., :3]
    else:
        alpha = picture if mask is None else mask
    height, width = alpha.shape
    if picture.shape[:2] != alpha.shape:
        raise fail(_WHERE, "mask", f"of the image's size {tuple(picture.shape[:2])}", mask, "Resize one of them.")
    if min(height, width) < _SMALLEST:
        raise fail(_WHERE, "image", f"of {_SMALLEST} pixels a side or more", f"{height}×{width}")
    if not bool((alpha >= 0.5).any()):
        raise fail(
            _WHERE,
            "image",
            "of something: coverage of ½ or more somewhere",
            "an empty one",
            "Is it inverted, or black?",
        )
    alpha = without_specks(_WHERE, alpha, settings.keep_components)
    if settings.loss == ("silhouette",) and bool((alpha >= 0.5).all()):
        raise fail(_WHERE, "image", "of an outline", "one covered all over", "Is its alpha channel missing?")
    if "color" in settings.loss:
        if color is None:
            raise fail(_WHERE, "image", "in colour for loss='color'", picture, "Pass (H, W, 4), or (H, W, 3) and mask.")
    if "depth" in settings.loss:
        depth = _known_depth(depth, alpha)[None]
    elif depth is not None:
        raise fail(_WHERE, "depth", "left out where the loss has no 'depth'", depth, "Add it: loss=('depth', …).")
    # Without a loss of its own, colour is for the pictures.
    return PoseTargets(alpha[None], None if color is None else (color * alpha[..., None])[None], depth)


def _picture(name: str, value: Any, dtype: torch.dtype) -> torch.Tensor:
    """Return an image (H, W) or (H, W, C) with numbers in [0, 1]."""
    if isinstance(value, str | os.PathLike):
        value = read_image(pathlib.Path(value), _WHERE)
        if value.shape[-1] in (1, 4):  # masks of labels
            value[..., -1] *= label_scale(value[..., -1])
    value = as_tensor(_WHERE, name, value)
    if not value.is_floating_point():
        if value.numel() and int(value.max()) > 1:
            raise fail(_WHERE, name, "of numbers in [0, 1]", value, "Divide 8-bit images by 255.", TypeError)
        value = value.float()
    value = brought_home(_WHERE, name, value)
    if value.dim() not in (2, 3) or (value.dim() == 3 and value.shape[-1] not in (1, 3, 4)) or value.numel() == 0:
        fix = "One image at a time; channels come last."
        raise fail(_WHERE, name, "of shape (H, W), (H, W, 3) or (H, W, 4)", value, fix)
    floating(_WHERE, name, value, ("...", "N"))
    low, high = (float(bound) for bound in torch.aminmax(value))
    if low < -1e-3 or high > 1 + 1e-3:
        raise fail(_WHERE, name, "in [0, 1]", f"values in [{low:g}, {high:g}]", "Divide 8-bit images by 255.")
    return value.detach().to(dtype).clamp(0, 1)


def _known_depth(depth: Any, alpha: torch.Tensor) -> torch.Tensor:
    """Return depth (H, W), 0 where unknown."""
    if depth is None:
        raise fail(_WHERE, "depth", "given for loss='depth'", "None", "Pass a depth map (H, W).")
    depth = brought_home(_WHERE, "depth", as_tensor(_WHERE, "depth", depth)).detach().to(alpha.dtype)
    if depth.shape != alpha.shape:
        raise fail(_WHERE, "depth", f"of the image's size {tuple(alpha.shape)}", depth, "Resize one of them.")
    known = torch.isfinite(depth) & (depth > 0) & (alpha >= 0.5)
    if not bool(known.any()):
        raise fail(_WHERE, "depth", "known somewhere on the mesh", "no positive finite number there")
    return torch.where(known, depth, 0)


def one_mesh(mesh: Any) -> Mesh:
    """Return the one mesh, read where it is a file."""
    if isinstance(mesh, str | os.PathLike):
        mesh = Mesh.load(mesh)
    if not isinstance(mesh, Mesh):
        raise fail(_WHERE, "mesh", "a Mesh or the path of one", mesh, error=TypeError)
    if mesh.batch_shape:
        raise fail(_WHERE, "mesh", "one mesh", f"a batch of {tuple(mesh.batch_shape)}", "Take mesh[i].")
    mesh = brought_home(_WHERE, "mesh", mesh)
    if not mesh.num_faces:
        raise fail(_WHERE, "mesh", "of one face or more", "none", "A point cloud has no silhouette.")
    check_finite(_WHERE, "mesh", mesh.vertices)
    return mesh.detach()


def sphere(mesh: Mesh) -> tuple[torch.Tensor, float]:
    """Return the middle of the mesh's bounding box (3,) and the radius of the sphere around it."""
    centre = mesh.bounds.mean(0)
    radius = float((mesh.vertices - centre).norm(dim=-1).max())
    if not radius > 0:
        raise fail(_WHERE, "mesh", "of some extent", "all vertices in one point")
    return centre, radius


def one_camera(name: str, camera: Any) -> Camera | None:
    """Return one camera, on the host; or None."""
    if camera is None:
        return None
    if not isinstance(camera, Camera):
        raise fail(_WHERE, name, "a Camera", camera, "Make one with Camera.orbit or Camera.look_at.", TypeError)
    if camera.batch_shape:
        raise fail(_WHERE, name, "one camera", f"a batch of {tuple(camera.batch_shape)}", "Take camera[i].")
    home: Camera = brought_home(_WHERE, name, camera)
    return home


def whole_view(camera: Camera | None, radius: float) -> Camera | None:
    """Return a camera whose near plane suits a mesh of this radius; the default one is made for a radius of 1."""
    if camera is None:
        return None
    near = min(camera.near, _NEAR * radius)
    lens = camera.focal, camera.principal
    return Camera(camera.rotation, camera.translation, *lens, orthographic=camera.is_orthographic, near=near)


def lens_and_start(
    lens: Camera, start: Camera | None, camera: Camera | None, centre: torch.Tensor, radius: float
) -> tuple[Camera, Camera | None]:
    """Return the lens and the start with that lens."""
    if start is None:
        return lens, None
    start = start.detach().to(dtype=lens.dtype)
    if camera is not None:
        start = Camera(
            start.rotation,
            start.translation,
            lens.focal,
            lens.principal,
            orthographic=lens.is_orthographic,
            near=lens.near,
        )
    depth = float(-start.to_view(centre[None])[0, 2])
    if not depth > start.near:
        fix = "Turn the camera around, or leave `start` out to search everywhere."
        raise fail(
            _WHERE, "start", "a camera with the mesh ahead of it", f"the middle of the mesh at depth {depth:.3g}", fix
        )
    return lens, start


def check_seen(
    start: Camera,
    truth: Camera | None,
    settings: FitPoseSettings,
    centre: torch.Tensor,
    radius: float,
    targets: PoseTargets,
) -> None:
    """Require a mesh ahead of the true camera, and one in the image where only the rotation moves."""
    if truth is not None:
        depth = float(-truth.detach().to(dtype=centre.dtype).to_view(centre[None])[0, 2])
        if not depth > truth.near:
            got = f"the middle of the mesh at depth {depth:.3g}"
            raise fail(_WHERE, "truth", "a camera with the mesh ahead of it", got, "Is it turned around?")
    if settings.translation != "fixed":
        return
    w = start.to_clip(centre[None])[0, 3]
    at = start.to_clip(centre[None])[0, :2] / w
    height, width = targets.image_size
    half = at.new_tensor([width, height]) / min(height, width)
    # A sphere's image is a little larger than its radius over its depth; a camera inside sees it everywhere.
    reach = radius * start.focal / (w - radius).clamp_min(1e-6 * radius)
    if not start.is_orthographic and bool((at.abs() - reach > half).any()):
        got = f"its middle at ({float(at[0]):.3g}, {float(at[1]):.3g}) in NDC"
        fix = "Turn the camera to it, or let it move with translation='free'."
        raise fail(_WHERE, "start", "a camera with the mesh in its image, for translation='fixed'", got, fix)


def view_of_all(lens: Camera, centre: torch.Tensor, radius: float, dtype: torch.dtype) -> Camera:
    """Return a camera with this lens that sees all of the mesh, in the middle of the image."""
    distance = 1.1 * radius * (1.0 + max(float(lens.focal.max()), 1.0))
    offset = centre.new_tensor([0.0, 0.0, -distance])
    return Camera(
        torch.eye(3, dtype=dtype),
        offset - centre,
        lens.focal,
        lens.principal,
        orthographic=lens.is_orthographic,
        near=lens.near,
    )


def as_batch(camera: Camera) -> Camera:
    """Return one camera as a batch of one."""
    return Camera.cat([camera])


def command_inputs(
    mesh: pathlib.Path,
    image: pathlib.Path,
    *,
    cameras: pathlib.Path | None = None,
    fov: float | None = None,
    start: tuple[float, float, float] | None = None,
    depth: pathlib.Path | None = None,
) -> dict[str, Any]:
    """Read what the command line names; return it as arguments of `fit_pose`.

    Args:
        mesh: the file of the mesh.
        image: the file of the image.
        cameras: a transforms.json that lists IMAGE: gives the lens and the true pose to compare with.
        fov: full field of view of the shorter side, degrees; None: 40.
        start: a guess to search around: elevation and azimuth (degrees) and distance from the mesh.
        depth: depth map, .npy, for --loss depth.

    Raises:
        FileNotFoundError, ValueError: files that are missing or not what they should be; no view, or several, of the
            image's name in ``cameras``.
    """
    loaded = Mesh.load(mesh)
    inputs: dict[str, Any] = {"mesh": loaded, "image": image}
    if cameras is not None:
        if fov is not None:
            raise fail(_WHERE, "fov", "left out where `cameras` has the lens", str(fov))
        posed = PosedImages.load(cameras)
        view = _view_of(posed, image)
        inputs["camera"] = inputs["truth"] = posed.cameras[view]
        alpha = posed.alpha[view][..., None]
        inputs["image"] = torch.cat((posed.photograph(view), alpha), dim=-1) if posed.in_color else alpha[..., 0]
    elif fov is not None:
        inputs["camera"] = Camera.orbit(1.0, fov_deg=fov)
    if start is not None:
        elevation, azimuth, distance = start
        at = sphere(one_mesh(loaded))[0]
        inputs["start"] = Camera.orbit(distance, elevation, azimuth, at=at, fov_deg=DEFAULT_FOV if fov is None else fov)
    if depth is not None:
        try:
            inputs["depth"] = torch.as_tensor(load_arrays(depth))
        except OSError as error:
            raise fail(_WHERE, "depth", "a file that can be read", f"{depth} ({error})", error=type(error)) from error
        except Exception as error:  # whatever a damaged header brings
            raise fail(_WHERE, "depth", "an .npy file of numbers", f"{depth} ({error})") from error
    return inputs


def command_lights(
    loss: tuple[str, ...], *, ambient: float | None = None, light: Sequence[tuple[float, float, float, float]] = ()
) -> list[Light] | None:
    """Return the lights that the command line names, None for colours as they are.

    Args:
        loss: what is compared.
        ambient: brightness from everywhere, for --loss color.
        light: direction towards a distant light, for --loss color, several times; None: unlit.

    Raises:
        ValueError: lights where colours are not compared, or a direction of length zero.
    """
    for name, lit in (("ambient", () if ambient is None else (ambient,)), ("light", [x for one in light for x in one])):
        for value in lit:
            number(_WHERE, name, value, -LARGEST, LARGEST)
    lights: list[Light] = [] if ambient is None else [AmbientLight(ambient)]
    lights += [DirectionalLight((x, y, z), brightness) for x, y, z, brightness in light]
    if lights and "color" not in loss:
        got = f"{', '.join(loss) or 'silhouette'} with lights"
        raise fail(_WHERE, "loss", "color where there are lights", got, "Add --loss color, or leave the lights out.")
    return lights or None


def _view_of(images: PosedImages, image: pathlib.Path) -> int:
    """Return the number of the view whose file an image is, by its name."""
    stem = image.stem
    found = [i for i, name in enumerate(images.names) if pathlib.PurePosixPath(name).stem == stem]
    if len(found) != 1:
        few = ", ".join(images.names[:5]) + (", …" if len(images) > 5 else "")
        raise fail(_WHERE, "cameras", f"a transforms.json with one view called {stem}", f"the views {few}")
    return found[0]
