# SPDX-License-Identifier: Apache-2.0
"""Images of a mesh from around it, with their cameras: to look at, and input for fit_mesh with a known answer."""

import math
import os
import pathlib
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from geodiff.modes import outside_autocast
from geodiff.scene.camera import Camera
from geodiff.scene.files import PosedImages
from geodiff.scene.light import Light
from geodiff.scene.mesh import Mesh
from geodiff.scene.pose import pixel_size
from geodiff.settings import is_number
from geodiff.tasks import appearance
from geodiff.tasks.animations import check_animation, write_animation
from geodiff.tasks.pictures import over, shaded, to_image
from geodiff.validation import choice, describe, fail, integer, number, positive, seed_number, warn

_WHERE = "render_views"
_SAMPLES = 4  # a side of a pixel
_MARGIN = 1.05
_LEAST_FOV = 1e-6  # degrees
_FARTHEST = 1e9  # radii of the mesh
_MOST = 10**5  # images, which are all in memory
_HIGHLIGHTS = 0.01  # of what is seen may be whiter than white without a word


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
    shading: str | None = None,
    lights: Light | Sequence[Light] | None = None,
    background: Any = None,
    coverage: str = "hard",
    scale_px: float = 0.5,
    supersample: int | None = None,
    seed: int = 0,
    progress: bool = False,
    maps: dict[str, list[np.ndarray]] | None = None,
) -> PosedImages:
    """Render a mesh, in its own colours or else in soft grey, from cameras around the middle of its bounding box.

    Args:
        mesh: one mesh (V, 3).
        views: how many images, ≥ 1.
        placement: ``"orbit"``, evenly around, at azimuth k·360°/views; or ``"random"``, anywhere up to 80°.
        elevation: degrees over the horizon in (−90, 90), for ``"orbit"``; of several, the views take turns.
        distance: of the cameras from the middle of the mesh; None: so far that all of it fits in the image.
        fov: full field of view of the shorter side, degrees.
        size: (H, W), or one number for a square.
        hard: alpha is 0 or 1 by the pixel's centre; else the mean over the samples of a pixel.
        shading: ``"unlit"``, ``"lambert"``, ``"phong"`` or ``"gouraud"``; None: Phong where the mesh has a material,
            else Lambert.
        lights: a light or several; None: two that follow the viewer, and some from everywhere.
        background: what is laid under the colours: a name, ``"#rrggbb"``, ``"r,g,b"`` or the file of an image; None:
            nothing. Three numbers in [0, 1] or an image, too. Without, colours are not multiplied by alpha.
        coverage: ``"hard"``, ``"faces"``, ``"edges"`` or ``"contour"``: the soft ones blur edges. See `Renderer`.
        scale_px: how soft the soft coverages are, in pixels.
        supersample: samples a side of each pixel; None: 4, or 1 if ``hard``.
        seed: of the placement ``"random"``.
        progress: show a progress bar.
        maps: gets, for each name of the renderer's outputs that is in it, the arrays of all views.

    A mesh without colours, texture and material, for which none of these is given, is grey. Edges of more than 40° are
    seen as such. What is brighter than white is clipped; with lights of
    your own a warning says so if it is more than a hundredth of what is seen.

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
    samples = (1 if hard else _SAMPLES) if supersample is None else supersample
    given = [lights] if isinstance(lights, Light) else lights
    look = appearance.Look(shading, given, coverage, scale_px, samples).checked(_WHERE)
    ground = appearance.background(_WHERE, background, size)
    plain = appearance.Look(supersample=samples) == look and not appearance.has_looks(mesh) and not maps
    shown = mesh if plain else appearance.ready(mesh)
    colors, alphas, brightest, white, covered = [], [], 1.0, 0, 0
    for camera in tqdm(cameras, total=views, desc="render", unit="view", disable=not progress):
        if plain:
            color, alpha = shaded(mesh, camera, size, supersample=samples)
        else:
            out = appearance.rendered(shown, camera, size, look, tuple(maps or ()))
            peak, alpha = out["rgb"].max(axis=-1), out["alpha"]
            color, seen = np.minimum(out["rgb"], 1), alpha > 0.5
            white, covered = white + int((peak[seen] > 1 + 0.5 / 255).sum()), covered + int(seen.sum())
            brightest = max(brightest, float(peak[seen].max(initial=0)))
            for name, arrays in (maps or {}).items():
                arrays.append(out[name])
        colors.append(torch.from_numpy(color if ground is None else over(color, alpha, ground)))
        alphas.append(torch.from_numpy(alpha))
    if lights is not None and white > _HIGHLIGHTS * covered:  # those around the viewer lift white itself to 1.1 at most
        warn(
            f"{_WHERE}: {100 * white / covered:.0f} % of what is seen is overexposed, up to {brightest:.2g} where 1 is "
            "white, and is clipped. Take dimmer lights, or darker colours."
        )
    return PosedImages(torch.stack(colors).clamp(0, 1), torch.stack(alphas), cameras.to(dtype=torch.float32))


def animate(
    mesh: Mesh,
    path: str | os.PathLike[str],
    *,
    frames: int = 72,
    fps: float = 25.0,
    elevation: float = 30.0,
    background: Any = "white",
    **options: Any,
) -> pathlib.Path:
    """Turn a mesh once around and write that as an animation.

    Args:
        mesh: one mesh (V, 3).
        path: a .gif, or an .mp4 (with the extra ``geodiff[video]``).
        frames: of the turn, ≥ 1.
        fps: frames a second, in (0, 100].
        elevation: of the camera, degrees.
        background: as of `render_views`; None is white.
        options: the others of `render_views`.

    Returns:
        The path.

    Raises:
        TypeError, ValueError: as `render_views`; another ending.
        ImportError: MP4 without the package that writes it.
        OSError: the file cannot be written.
    """
    where = "animate"
    check_animation(where, "path", path)
    positive(where, "fps", fps, "They are frames a second.")
    if fps > 100:
        raise fail(where, "fps", "at most 100", str(fps), "A GIF counts in hundredths of a second.")
    ground = "white" if appearance.background(where, background, (1, 1)) is None else background
    images = render_views(mesh, views=frames, elevation=elevation, background=ground, **options)
    assert images.images is not None
    pictures = [np.asarray(to_image(image.numpy())) for image in images.images]
    write_animation(path, pictures, fps, where, dither=appearance.has_looks(mesh))
    return pathlib.Path(path)
