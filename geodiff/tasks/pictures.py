# SPDX-License-Identifier: Apache-2.0
"""Plain pictures of a mesh, for people to look at: shaded in soft grey by the hard rasteriser, and captioned."""

import math
from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image, ImageDraw

from geodiff.render.renderer import rasterize
from geodiff.scene.camera import Camera
from geodiff.scene.mesh import Mesh

# A key light from above on the left, behind the viewer's shoulder, and a weaker one from the right, in view space.
_KEY, _FILL = (-0.42, 0.60, 0.68), (0.75, 0.10, 0.45)
_GREY = (0.62, 0.63, 0.65)
_CREASE = 0.83  # corners whose face turns away from the vertex normal by more than this cosine are shaded flat
_BLOCK = 1 << 20  # pixels shaded at once
_MARGIN = 1.04


def shaded(
    mesh: Mesh, camera: Camera, size: tuple[int, int], supersample: int = 2, tint: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Shade a mesh in soft grey, or in colours of its own, lit from both sides.

    Args:
        mesh: one mesh (V, 3).
        camera: one camera, or a batch of B.
        size: (H, W) of the result.
        supersample: samples a side of each pixel, averaged.
        tint: linear colours in [0, 1] of the faces (F, 3).

    Returns:
        Colour (..., H, W, 3) in sRGB and [0, 1], not multiplied by alpha, and alpha (..., H, W), both float32.
    """
    if camera.batch_shape:
        parts = [shaded(mesh, one, size, supersample, tint) for one in camera]
        return np.stack([color for color, _ in parts]), np.stack([alpha for _, alpha in parts])
    return tinted(mesh, camera, size, [tint], supersample)[0]


def tinted(
    mesh: Mesh,
    camera: Camera,
    size: tuple[int, int],
    tints: Sequence[np.ndarray | None],
    supersample: int = 2,
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return what `shaded` does for one camera, for each of several colourings: the mesh is drawn and lit once."""
    camera = camera.detach()
    if mesh.vertices.requires_grad:  # else the mesh itself, which keeps its normals for the next view
        mesh = mesh.detach()
    height, width = size
    fine = (height * supersample, width * supersample)
    hard = rasterize(mesh, camera, fine)
    hit = hard.mask.reshape(-1).numpy()
    face_id = hard.face_id.reshape(-1).numpy()[hit]
    # Only the faces that are seen are turned into the view.
    shown, face = np.unique(face_id, return_inverse=True)
    normals = (_corner_normals(mesh, shown) @ camera.rotation.to(mesh.dtype).mT.numpy()).astype(np.float32)
    weights = hard.barycentric.reshape(-1, 3).numpy()[hit].astype(np.float32)
    parts = [
        _light(normals[face[i : i + _BLOCK]], weights[i : i + _BLOCK]) for i in range(0, max(len(face), 1), _BLOCK)
    ]
    light, shine = (np.concatenate(part) for part in zip(*parts, strict=True))
    alpha = _block_means(hit.astype(np.float32).reshape(fine), supersample)
    result = []
    for tint in tints:
        base = np.asarray(_GREY, dtype=np.float32) if tint is None else tint.astype(np.float32)[face_id]
        linear = np.zeros((hit.size, 3), dtype=np.float32)
        linear[hit] = np.broadcast_to(base, (len(face_id), 3)) * light + shine
        color = _block_means(linear.reshape(*fine, 3), supersample) / np.maximum(alpha, 1e-6)[..., None]
        result.append((np.clip(color, 0, 1) ** np.float32(1 / 2.2), alpha))
    return result


def coverage(mesh: Mesh, camera: Camera, size: tuple[int, int], supersample: int = 2) -> np.ndarray:
    """Return alpha (H, W) of one mesh seen by one camera, as `shaded` does."""
    hit = rasterize(mesh.detach(), camera.detach(), (size[0] * supersample, size[1] * supersample)).mask
    return _block_means(hit.numpy().astype(np.float32), supersample)


def _block_means(image: np.ndarray, side: int) -> np.ndarray:
    """Average (H·side, W·side, ...) over blocks; adding slices is many times faster than a mean over two axes."""
    parts = (image[i::side, j::side] for i in range(side) for j in range(side))
    total: np.ndarray = sum(parts, np.zeros((), dtype=np.float32))
    return total / np.float32(side * side)


def _corner_normals(mesh: Mesh, faces: np.ndarray) -> np.ndarray:
    """Return the normals at the corners (F, 3, 3) of some faces: the vertex's, or the face's at a crease."""
    flat = mesh.face_normals.numpy()[faces, None]
    smooth = mesh.vertex_normals.numpy()[mesh.faces.numpy()[faces]]
    return np.where((flat * smooth).sum(-1, keepdims=True) > _CREASE, smooth, flat)


def _light(corners: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return light and gloss (N, 1) on samples with corner normals (N, 3, 3) in view space."""
    normal = (corners * weights[..., None]).sum(1)
    normal /= np.maximum(np.linalg.norm(normal, axis=-1, keepdims=True), 1e-6)
    normal = np.where(normal[:, 2:] < 0, -normal, normal)  # both sides of a surface are lit

    def lambert(direction: Sequence[float]) -> np.ndarray:
        toward = (np.asarray(direction) / np.linalg.norm(direction)).astype(np.float32)
        return np.maximum(normal @ toward, 0.0)[:, None]

    sky = 0.5 + 0.5 * normal[:, 1:2]
    shine: np.ndarray = 0.10 * lambert((_KEY[0], _KEY[1], _KEY[2] + 1.0)) ** 24
    light: np.ndarray = 0.10 + 0.16 * sky + 0.80 * lambert(_KEY) + 0.14 * lambert(_FILL)
    return light, shine


def backdrop(size: tuple[int, int]) -> np.ndarray:
    """Return a soft vertical gradient (H, W, 3), lighter on top."""
    top, bottom = np.array([0.97, 0.975, 0.985]), np.array([0.84, 0.86, 0.89])
    t = np.linspace(0, 1, size[0])[:, None, None]
    return np.broadcast_to((1 - t) * top + t * bottom, (*size, 3)).astype(np.float32)


def over(color: np.ndarray, alpha: np.ndarray, ground: np.ndarray) -> np.ndarray:
    """Lay colour (H, W, 3) of coverage alpha (H, W) over an opaque ground."""
    return color * alpha[..., None] + ground * (1 - alpha[..., None])


def difference(target: np.ndarray, fit: np.ndarray) -> np.ndarray:
    """Colour where two silhouettes (H, W) differ, (H, W, 3): both grey, target alone red, fit alone blue."""
    both, missing, extra = target * fit, target * (1 - fit), fit * (1 - target)
    empty = 1 - both - missing - extra
    parts = ((both, (0.72, 0.73, 0.75)), (missing, (0.85, 0.25, 0.20)), (extra, (0.20, 0.45, 0.85)), (empty, (1, 1, 1)))
    return sum((part[..., None] * np.asarray(tint) for part, tint in parts), np.zeros(3)).astype(np.float32)


def resized(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Scale (H, W) or (H, W, C) in [0, 1] to another size, smoothly."""
    channels = image[..., None] if image.ndim == 2 else image
    scaled = [
        np.asarray(Image.fromarray(channels[..., c].astype(np.float32)).resize(size[::-1], Image.Resampling.BICUBIC))
        for c in range(channels.shape[-1])
    ]
    result = np.clip(np.stack(scaled, axis=-1), 0, 1)
    return result[..., 0] if image.ndim == 2 else result


def grid(
    rows: Sequence[Sequence[np.ndarray]], row_titles: Sequence[str], column_titles: Sequence[str], gap: int = 6
) -> Image.Image:
    """Set pictures of one size (H, W, 3) in rows and columns, titled on the left and on top."""
    height, width = rows[0][0].shape[:2]
    left = 10 + max(int(ImageDraw.Draw(Image.new("RGB", (1, 1))).textlength(title)) for title in row_titles)
    top = 18
    page = Image.new("RGB", (left + len(rows[0]) * (width + gap), top + len(rows) * (height + gap)), "white")
    draw = ImageDraw.Draw(page)
    for j, title in enumerate(column_titles):
        draw.text((left + j * (width + gap) + width // 2, 4), title, fill=(60, 60, 60), anchor="ma")
    for i, (row, title) in enumerate(zip(rows, row_titles, strict=True)):
        y = top + i * (height + gap)
        draw.text((5, y + height // 2), title, fill=(60, 60, 60), anchor="lm")
        for j, picture in enumerate(row):
            page.paste(to_image(picture), (left + j * (width + gap), y))
    return page


def to_image(picture: np.ndarray) -> Image.Image:
    """Turn (H, W, 3) in [0, 1] into an image of 8 bits."""
    return Image.fromarray(np.rint(np.clip(picture, 0, 1) * 255).astype(np.uint8))


def turntable(cameras: Camera, centre: torch.Tensor, azimuths_deg: Sequence[float], elevation_deg: float) -> Camera:
    """Return cameras that circle a point as far off as the given ones on average, with their lens and their up.

    Args:
        cameras: a batch of B, which says distance, lens and which way is up.
        centre: (3,) the point to look at.
        azimuths_deg: of the result; 0 is where the first of ``cameras`` stands.
        elevation_deg: over the plane across up.
    """
    cameras = cameras.detach().to(dtype=torch.float64)
    centre = centre.detach().double()
    up = cameras.rotation[:, 1].mean(0)
    # Views from all around above tip up in all directions: what is left is the axis they circle, an axis of the world.
    axis = torch.zeros(3, dtype=torch.float64)
    strongest = int(up.abs().argmax())
    axis[strongest] = 1.0 if up[strongest] >= 0 else -1.0
    offset = cameras.position - centre
    # An orthographic camera's distance does not change its image; keep the average all the same.
    distance = float(offset.norm(dim=-1).mean())
    ahead = offset[0] - (offset[0] @ axis) * axis
    if float(ahead.norm()) < 1e-6 * distance:
        ahead = torch.roll(axis, 1)
    ahead = ahead / ahead.norm()
    side = torch.linalg.cross(axis, ahead)
    azimuth, elevation = torch.as_tensor(azimuths_deg, dtype=torch.float64).deg2rad(), float(np.deg2rad(elevation_deg))
    flat = azimuth.cos()[:, None] * ahead + azimuth.sin()[:, None] * side
    eye = centre + distance * (np.cos(elevation) * flat + np.sin(elevation) * axis)
    looking = Camera.look_at(eye, centre, axis, near=cameras.near)
    return Camera(
        looking.rotation,
        looking.translation,
        0.9 * cameras.focal.mean(0),  # room for what turns into the image
        orthographic=cameras.is_orthographic,
        near=cameras.near,
    )


def looking_at(
    points: torch.Tensor,
    azimuth_deg: float = -60.0,
    elevation_deg: float = 35.0,
    up: Sequence[float] = (0.0, 0.0, 1.0),
    fov_deg: float = 25.0,
    aspect: float = 1.0,
) -> Camera:
    """Return a camera that sees all points (N, 3), from a direction around the axis `up`.

    It is as near as an image allows that is `aspect` >= 1 times as wide as high.

    Azimuth is measured from x towards y where up is z, from z towards x where up is y: as the axes follow each other.
    """
    points = points.detach().double().reshape(-1, 3)
    axis = torch.nn.functional.normalize(torch.tensor(up, dtype=torch.float64), dim=0)
    follows = torch.eye(3, dtype=torch.float64)[(int(axis.abs().argmax()) + 1) % 3]
    side = torch.nn.functional.normalize(follows - (follows @ axis) * axis, dim=0)
    azimuth, elevation = math.radians(azimuth_deg), math.radians(elevation_deg)
    flat = math.cos(azimuth) * side + math.sin(azimuth) * torch.linalg.cross(axis, side)
    backward = math.cos(elevation) * flat + math.sin(elevation) * axis
    middle = 0.5 * (points.amin(0) + points.amax(0))
    radius = float((points - middle).norm(dim=-1).max()) or 1.0
    # As near as all points allow: each must lie in the cone of the lens.
    right = torch.nn.functional.normalize(torch.linalg.cross(axis, backward), dim=0)
    across = torch.stack([right, torch.linalg.cross(backward, right)])
    offset = points - middle
    reach = (offset @ across.mT / torch.tensor([aspect, 1.0])).abs().amax(-1) / math.tan(
        math.radians(0.5 * fov_deg)
    ) + offset @ backward
    distance = _MARGIN * float(reach.max()) + 0.02 * radius
    return Camera.look_at(middle + distance * backward, middle, axis, fov_deg=fov_deg, near=1e-3 * radius)
