# SPDX-License-Identifier: Apache-2.0
"""What a fit starts from: images and cameras as they came, and a template where the silhouettes point to."""

import math
import os
import pathlib
from typing import Any

import torch

from geodiff.scene.camera import Camera
from geodiff.scene.files import PosedImages
from geodiff.scene.light import as_lights
from geodiff.scene.material import Material
from geodiff.scene.mesh import Mesh
from geodiff.scene.primitives import icosphere
from geodiff.tasks.device import brought_home
from geodiff.tasks.mesh.settings import LIGHTS, FitMeshSettings
from geodiff.tasks.turns import turns
from geodiff.validation import as_tensor, choice, fail, nearest

_WHERE = "fit_mesh"
_NEAR = 0.01  # of the distance to what images show
FAR = 1e9  # units of the picture; beyond it, powers of lengths overflow in float32


def is_hull(template: Any) -> bool:
    """Whether a template is the visual hull of the images."""
    return isinstance(template, str) and template == "hull"


def load_whole(path: str | os.PathLike[str], background: Any = None) -> PosedImages:
    """Return the images of a file, which says no near plane, with one that lies before what they show in any unit."""
    posed = PosedImages.load(path, background=background)
    cameras = posed.cameras.detach().to(dtype=torch.float64)
    at = cameras.position
    wide = len(posed) and float((at - at.mean(0)).norm(dim=-1).max()) * _NEAR >= cameras.near
    if wide or not bool(_areas(posed).any()):
        return posed
    depth = -cameras.to_view(object_frame(posed)[0][None])[:, 0, 2]
    near = min([cameras.near, *(_NEAR * depth[depth > 0]).tolist()])
    lens = posed.cameras.focal, posed.cameras.principal
    whole = Camera(posed.cameras.rotation, posed.cameras.translation, *lens, near=near)
    return posed._with(posed.alpha, whole)


def posed_images(images: Any, cameras: Any, where: str = _WHERE, background: Any = None) -> PosedImages:
    """Return the images with their cameras, on the CPU, in one dtype; cut out before a background that is known."""
    if isinstance(images, str | os.PathLike):
        images = load_whole(images, background=background)
    elif background is not None:
        if not isinstance(images, PosedImages):
            images = PosedImages(images, torch.ones(as_tensor(where, "images", images).shape[:3]), cameras)
            cameras = None
        images = images.without_background(background)
    if isinstance(images, PosedImages):
        if cameras is not None:
            raise fail(where, "cameras", "left out where `images` has its own", cameras, "Pass the coverage alone.")
        posed = images
    else:
        alpha = as_tensor(where, "images", images)
        if not alpha.is_floating_point():
            if alpha.numel() and int(alpha.max()) > 1:
                raise fail(where, "images", "coverage in [0, 1]", alpha, "Divide 8-bit images by 255.", TypeError)
            alpha = alpha.float()
        if not isinstance(cameras, Camera):
            raise fail(
                where, "cameras", "a Camera, one for each image", cameras, "Make them with Camera.orbit.", TypeError
            )
        posed = PosedImages(None, alpha, cameras)
    if not len(posed):
        raise fail(where, "images", "one or more images", "none")
    alpha, cameras = (brought_home(where, "images", part.detach()) for part in (posed.alpha, posed.cameras))
    return posed._with(alpha, cameras).to("cpu", torch.promote_types(posed.alpha.dtype, posed.cameras.dtype))


def data_device(images: Any) -> torch.device | None:
    """Return where images are that were given as tensors; None for files."""
    if isinstance(images, PosedImages):
        return images.alpha.device
    return images.device if isinstance(images, torch.Tensor) else None


def check_colors(where: str, posed: PosedImages, settings: FitMeshSettings) -> None:
    """Require images in colour, and what makes a layout of the texture, before the work begins."""
    if not posed.in_color:
        raise fail(where, "images", "in colour for `texture` or `vertex_colors`", "masks alone")
    if settings.texture:
        try:
            import xatlas  # noqa: F401
        except ImportError:
            fix = 'pip install "geodiff[texture]", or take vertex_colors.'
            raise fail(where, "texture", "False without xatlas", "True", fix, ImportError) from None


def check_look(where: str, lights: Any, material: Any) -> None:
    """Require lamps and a material that serve a mesh, before the work begins."""
    if isinstance(lights, str):
        choice(where, "lights", lights, LIGHTS)
    elif lights is not None and not as_lights(where, lights, ()):
        raise fail(where, "lights", "one lamp or more", "none", "Or leave it out.")
    if not (material is None or isinstance(material, Material)):
        raise fail(where, "material", "a Material", material, "Pass Material(specular=…).", TypeError)
    if material is not None and material.batch_shape:
        raise fail(where, "material", "without a batch", f"a batch of {tuple(material.batch_shape)}")


def split(count: int, every: int) -> tuple[list[int], list[int]]:
    """Return the indices of the training and the held-out views; a single view is never held out."""
    held_out = [i for i in range(count) if i % every == 0] if every and count > 1 else []
    return [i for i in range(count) if i not in set(held_out)], held_out


def object_frame(posed: PosedImages) -> tuple[torch.Tensor, float]:
    """Return where the silhouettes point to, (3,), and the world length of one NDC unit there."""
    cameras = posed.cameras.detach().to(dtype=torch.float64)
    weight = _areas(posed)
    seen = (weight > 0).nonzero()[:, 0]
    cameras, weight = cameras[seen], weight[seen]
    height, width = posed.image_size
    s = 2.0 / min(height, width)
    columns, rows = torch.arange(width).double(), torch.arange(height).double()
    parts = (posed.alpha[seen[part]].double() for part in turns(len(seen), posed.image_size))
    moments = [(alpha.sum(-2) @ columns, alpha.sum(-1) @ rows) for alpha in parts]
    x, y = ((torch.cat(moment) + 0.5 * weight) / weight for moment in zip(*moments, strict=True))
    at = torch.stack(((x - 0.5 * width) * s, (0.5 * height - y) * s), dim=-1)
    near, far = (cameras.unproject(torch.cat((at, torch.full_like(x, d)[:, None]), -1)[:, None])[:, 0] for d in (1, 2))
    direction = torch.nn.functional.normalize(far - near, dim=-1)
    # The point nearest to all rays; a whisper of pull to the origin decides where one ray alone does not.
    across = torch.eye(3, dtype=torch.float64) - direction[:, :, None] * direction[:, None, :]
    left = across.sum(0) + 1e-6 * torch.eye(3, dtype=torch.float64)
    centre = torch.linalg.solve(left, (across @ near[..., None]).sum(0)[:, 0])
    w = cameras.to_clip(centre[None])[:, 0, 3].clamp_min(cameras.near)
    unit = float((w / cameras.focal.mean(-1)).mean())
    return centre, unit


def _areas(posed: PosedImages) -> torch.Tensor:
    """Return the pixels that each silhouette covers, (B,), float64."""
    parts = turns(len(posed), posed.image_size)
    return torch.cat([posed.alpha[part].double().sum((-2, -1)) for part in parts])


def check_seen(
    start: Mesh, views: PosedImages, centre: torch.Tensor, unit: float, template: Any, settings: FitMeshSettings
) -> None:
    """Require a start that some view shows a part of: no other has a gradient."""
    if not start.num_faces:
        return
    ball = isinstance(template, str) and template == "sphere"
    name, what = ("init_radius", "the sphere's") if ball else ("template", "its")
    points = start.vertices.double()
    far = float((points - centre).norm(dim=-1).max()) / unit
    if not far <= FAR:
        raise fail(_WHERE, name, "of a size like the object's", f"{what} vertices {far:.3g} times as far as it is wide")
    cameras = views.cameras.to(dtype=torch.float64)
    clip = cameras.to_clip(points)
    ahead = -cameras.to_view(points)[..., 2:] > cameras.near
    at = clip[..., :2] / torch.where(ahead, clip[..., 3:], 1.0)
    low = torch.where(ahead, at, math.inf).amin(-2)
    high = torch.where(ahead, at, -math.inf).amax(-2)
    height, width = views.image_size
    half = at.new_tensor([width, height]) / min(height, width)
    if not bool(((low < half) & (high > -half)).all(-1).any()):
        box = ", ".join(f"{a:.3g} to {b:.3g}" for a, b in zip(*start.bounds.tolist(), strict=True))
        where = ", ".join(f"{x:.3g}" for x in centre.tolist())
        fix = f"The silhouettes point to ({where}): move the template there, and look at its unit."
        raise fail(_WHERE, name, "in some view", f"{what} box {box}, out of every one", fix)


def start_mesh(template: Any, settings: FitMeshSettings, posed: PosedImages, centre: torch.Tensor) -> Mesh:
    """Return the mesh to start from, a ball where the silhouettes point to unless told."""
    dtype = posed.alpha.dtype
    if isinstance(template, Mesh):
        if template.vertices.dim() != 2:
            raise fail(_WHERE, "template", "one mesh of vertices (V, 3)", template.vertices, "Take mesh[i].")
        template = brought_home(_WHERE, "template", template)
        return Mesh(template.vertices.detach().to(dtype), template.faces)
    if not isinstance(template, str | os.PathLike):
        raise fail(_WHERE, "template", "'hull', 'sphere', a Mesh or the path of one", template, error=TypeError)
    if str(template) != "sphere":
        if isinstance(template, str) and not pathlib.Path(template).suffix and not pathlib.Path(template).exists():
            raise fail(
                _WHERE,
                "template",
                "'hull', 'sphere' or the path of a mesh",
                repr(template),
                nearest(template, ["hull", "sphere"]),
            )
        mesh = Mesh.load(template, dtype=dtype)
        return Mesh(mesh.vertices, mesh.faces)
    radius = settings.init_radius
    if radius is None:
        # A ball of radius r at depth w has the image area π (f r / w)².
        cameras = posed.cameras.detach().to(dtype=torch.float64)
        w = cameras.to_clip(centre[None])[:, 0, 3].clamp_min(cameras.near)
        area = float(_areas(posed).mean()) * (2.0 / min(posed.image_size)) ** 2
        radius = math.sqrt(area / (math.pi * float((cameras.focal.mean(-1) / w).square().mean())))
    ball = icosphere(settings.subdivisions, radius, dtype=dtype)
    return ball.translated(centre.to(dtype))
