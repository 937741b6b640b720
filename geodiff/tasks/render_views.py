# SPDX-License-Identifier: Apache-2.0
"""Images of a mesh from around it, with their cameras: input for fit_mesh, made from a known answer."""

import math
from collections.abc import Sequence

import torch
from tqdm import tqdm

from geodiff.modes import outside_autocast
from geodiff.scene.camera import Camera
from geodiff.scene.files import PosedImages
from geodiff.scene.mesh import Mesh
from geodiff.scene.pose import pixel_size
from geodiff.tasks.pictures import shaded
from geodiff.validation import choice, describe, fail, positive

_WHERE = "render_views"
_SAMPLES = 4  # a side of a pixel
_MARGIN = 1.05


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
    if not isinstance(views, int) or isinstance(views, bool) or views < 1:
        raise fail(_WHERE, "views", "an integer ≥ 1", views)
    if not isinstance(fov, int | float) or not 0 < fov < 180:
        raise fail(_WHERE, "fov", "in (0, 180) degrees", describe(fov))
    elevations = [float(elevation)] if isinstance(elevation, int | float) else [float(e) for e in elevation]
    if not elevations or not all(-90 < e < 90 for e in elevations):
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
