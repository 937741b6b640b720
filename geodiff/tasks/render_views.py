# SPDX-License-Identifier: Apache-2.0
"""Images of a mesh from around it, with their cameras: input for fit_mesh, made from a known answer."""

import math
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from tqdm import tqdm

from geodiff.modes import outside_autocast
from geodiff.scene.camera import Camera
from geodiff.scene.files import PosedImages
from geodiff.scene.mesh import Mesh
from geodiff.scene.pose import pixel_size
from geodiff.tasks.descent_settings import is_number
from geodiff.tasks.pictures import shaded
from geodiff.validation import choice, describe, fail, integer, number, positive, seed_number

_WHERE = "render_views"
_SAMPLES = 4  # a side of a pixel
_MARGIN = 1.05
_LEAST_FOV = 1e-6  # degrees
_FARTHEST = 1e9  # radii of the mesh
_MOST = 10**5  # images, which are all in memory


@outside_autocast
def render_views(
    mesh: Mesh,
    *,
    views: int = 24,
    placement: str = "orbit",
    elevation: float | Sequence[float] = 30.0,
    distance: float | None = None,
    fov: float = 30.0,
    size: int | tuple[int, int] = (64, 64),
    hard: bool = False,
    seed: int = 0,
    progress: bool = False,
) -> PosedImages:
    """Render a mesh in soft grey from cameras around the middle of its bounding box.

    Args:
        mesh: one mesh (V, 3).
        views: how many images, ≥ 1.
        placement: ``"orbit"``: evenly around, azimuth k·360°/views; ``"random"``: anywhere on the sphere up to 80°.
        elevation: degrees over the horizon in (−90, 90), for ``"orbit"``; of several, view k takes the (k mod n)-th.
        distance: of the cameras; None: so far that the bounding sphere fits in the image.
        fov: full field of view of the shorter side, degrees.
        size: (H, W), or one number for a square.
        hard: alpha is 1 where the pixel's centre is covered; else the mean over 4×4 samples of a pixel.
        seed: of the random placement.
        progress: show a progress bar.

    Returns:
        `PosedImages` with colour and alpha.

    Raises:
        TypeError, ValueError: a value out of its range, an unknown placement, a mesh without extent.

    Example:
        >>> import geodiff as gd
        >>> render_views(gd.icosphere(2), views=4, size=(24, 32))
        PosedImages(4 images of 24×32, float32, cpu)
    """
    if not isinstance(mesh, Mesh):
        raise fail(_WHERE, "mesh", "a Mesh", describe(mesh), "Read one with Mesh.load(path).", TypeError)
    if mesh.batch_shape:
        raise fail(_WHERE, "mesh", "one mesh", f"a batch of {tuple(mesh.batch_shape)}", "Take mesh[i].")
    if mesh.num_vertices == 0:
        raise fail(_WHERE, "mesh", "of some extent", "one without vertices")
    size = pixel_size(_WHERE, size, "size")
    choice(_WHERE, "placement", placement, ("orbit", "random"))
    views = integer(_WHERE, "views", views, 1, _MOST)
    seed = seed_number(_WHERE, seed)
    if not is_number(fov) or not 0 < fov < 180:
        raise fail(_WHERE, "fov", "in (0, 180) degrees", describe(fov))
    number(_WHERE, "fov", fov, _LEAST_FOV, 180)
    elevations: list[Any] = list(elevation) if isinstance(elevation, Iterable) else [elevation]
    if not elevations or not all(is_number(e) and -90 < e < 90 for e in elevations):
        raise fail(_WHERE, "elevation", "in (−90, 90) degrees", str(elevation), "Use ±89 for a view from the pole.")
    if distance is not None:
        positive(_WHERE, "distance", distance, "It is a length in the mesh's unit.")
    if placement == "random":
        generator = torch.Generator().manual_seed(seed)
        u = torch.rand(2, views, generator=generator, dtype=torch.float64)
        azimuth = 360.0 * u[0]
        limit = math.sin(math.radians(80.0))
        tilt = (limit * (2 * u[1] - 1)).asin().rad2deg()
    else:
        azimuth = torch.arange(views, dtype=torch.float64) * (360.0 / views)
        tilt = torch.tensor([elevations[k % len(elevations)] for k in range(views)], dtype=torch.float64)
    low, high = mesh.bounds.detach().double()
    centre = 0.5 * (low + high)
    radius = float((mesh.vertices.detach().double() - centre).norm(dim=-1).max())
    if radius == 0:
        raise fail(_WHERE, "mesh", "of some extent", "all vertices in one point")
    if distance is not None and distance > _FARTHEST * radius:
        raise fail(_WHERE, "distance", f"up to {_FARTHEST * radius:g}, a billion radii of the mesh", f"{distance:g}")
    if distance is None:
        distance = _MARGIN * radius / math.sin(math.radians(0.5 * fov))
    near = 1e-3 * distance
    cameras = Camera.orbit(distance, tilt, azimuth, fov_deg=fov, at=centre, near=near).to(dtype=mesh.dtype)
    colors, alphas = [], []
    for camera in tqdm(cameras, total=views, desc="render", unit="view", disable=not progress):
        color, alpha = shaded(mesh, camera, size, supersample=1 if hard else _SAMPLES)
        colors.append(torch.from_numpy(color))
        alphas.append(torch.from_numpy(alpha))
    return PosedImages(torch.stack(colors).clamp(0, 1), torch.stack(alphas), cameras.to(dtype=torch.float32))
