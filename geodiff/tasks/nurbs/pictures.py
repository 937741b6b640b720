# SPDX-License-Identifier: Apache-2.0
"""Pictures of NURBS surfaces: shaded, with their knot lines and control points; and maps of the error."""

import os
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageDraw

from geodiff.render.renderer import rasterize
from geodiff.scene.camera import Camera
from geodiff.splines import NURBSSurface
from geodiff.splines.knots import multiplicities
from geodiff.tasks import pictures

_LINE, _DOT = (0.72, 0.22, 0.12), (0.15, 0.32, 0.62)
_FINE = 3  # lines and dots are drawn so many times larger and averaged


def draw_surface(
    surface: NURBSSurface,
    camera: Camera,
    size: tuple[int, int],
    *,
    knot_lines: bool = True,
    control_points: bool = False,
    samples: int = 128,
) -> np.ndarray:
    """Draw a surface in soft grey, its knot lines (red) and control points (blue) over it, (H, W, 3) in [0, 1].

    Args:
        surface: one surface in space.
        camera: one camera.
        size: (H, W).
        knot_lines: draw the curves over which u or v is a knot, where they are seen.
        control_points: draw all of them, the hidden ones too.
        samples: points along u and along v.
    """
    surface, camera = surface.detach().to(dtype=torch.float32), camera.to(dtype=torch.float32)
    mesh = surface.tessellate(samples, samples)
    color, alpha = pictures.shaded(mesh, camera, size)
    picture = pictures.over(color, alpha, pictures.backdrop(size))
    if knot_lines:
        fine = (size[0] * _FINE, size[1] * _FINE)
        depth = rasterize(mesh, camera, fine).depth
        curves = _knot_curves(surface, 2 * samples)
        strength = min(0.75, 24 / len(curves))  # many lines must not hide the surface
        low, high = mesh.bounds
        slack = 0.01 * float((high - low).norm())
        picture = _painted(picture, _seen_lines(curves, camera, depth, slack), _LINE, strength)
    if control_points:
        picture = _painted(picture, _dots(surface.control_points.reshape(-1, 3), camera, size), _DOT, 0.9)
    return picture


def _knot_curves(surface: NURBSSurface, samples: int) -> list[torch.Tensor]:
    """Return the curves u = knot and v = knot, each (samples, 3), borders included."""
    curves: list[torch.Tensor] = []
    for axis in (0, 1):
        low, high = (float(end) for end in surface.domain[axis])
        values, _ = multiplicities(surface.knots[axis])
        values = values[(values >= low) & (values <= high)]
        lines = surface.grid(values, samples) if axis == 0 else surface.grid(samples, values).transpose(0, 1)
        curves.extend(lines)
    return curves


def _seen_lines(curves: Sequence[torch.Tensor], camera: Camera, depth: torch.Tensor, slack: float) -> np.ndarray:
    """Draw curves where nothing is before them by more than `slack`: coverage (H, W) at the fine resolution."""
    height, width = depth.shape
    page = Image.new("L", (width, height))
    draw = ImageDraw.Draw(page)
    # A pixel is seen against the nearest surface around it, so that a line along an outline is drawn too.
    far = torch.nn.functional.max_pool2d(depth[None, None], 2 * _FINE + 1, 1, _FINE)[0, 0]
    for curve in curves:
        at = camera.project(curve, (height, width))
        column = at[:, 0].long().clamp(0, width - 1)
        row = at[:, 1].long().clamp(0, height - 1)
        seen = (at[:, 2] <= far[row, column] + slack).tolist()
        xy = at[:, :2].tolist()
        for i in range(len(xy) - 1):
            if seen[i] and seen[i + 1]:
                draw.line((*xy[i], *xy[i + 1]), fill=255, width=_FINE)
    return np.asarray(page, dtype=np.float32) / 255


def _dots(points: torch.Tensor, camera: Camera, size: tuple[int, int]) -> np.ndarray:
    height, width = size[0] * _FINE, size[1] * _FINE
    page = Image.new("L", (width, height))
    draw = ImageDraw.Draw(page)
    r = max(0.8 * _FINE, 0.008 * height / max(1.0, len(points) / 150) ** 0.5)
    for x, y, d in camera.project(points, (height, width)).tolist():
        if d > 0:
            draw.ellipse((x - r, y - r, x + r, y + r), fill=255)
    return np.asarray(page, dtype=np.float32) / 255


def _painted(picture: np.ndarray, ink: np.ndarray, color: Sequence[float], strength: float) -> np.ndarray:
    """Lay a colour over a picture (H, W, 3) by coverage at the fine resolution."""
    height, width = picture.shape[:2]
    cover = strength * ink.reshape(height, _FINE, width, _FINE).mean((1, 3))[..., None]
    return picture * (1 - cover) + np.asarray(color, dtype=np.float32) * cover


def overview(surface: NURBSSurface, points: torch.Tensor, kind: str, size: tuple[int, int] = (330, 460)) -> Image.Image:
    """Draw the points, the surface fitted to them with its knot lines, and from behind with its control points.

    Heights are scaled to a fifth of the longer side of their field: a landscape would look flat, an objective steep.
    Grids and clouds are turned so that their thinnest direction is up. Control points outside of the picture are cut.
    """
    row = [
        draw_points(surface, points, kind, size),
        draw_fit(surface, points, kind, size),
        draw_fit(surface, points, kind, size, azimuth_deg=120, control_points=True),
    ]
    return pictures.grid([row], [""], ["the points", "the surface and its knot lines", "from behind, control points"])


def draw_fit(
    surface: NURBSSurface,
    points: torch.Tensor,
    kind: str,
    size: tuple[int, int],
    azimuth_deg: float = -60.0,
    **options: Any,
) -> np.ndarray:
    """Draw a surface as `draw_surface` does, seen and scaled as `overview` says, (H, W, 3)."""
    scale, view = _staged(surface, points, kind, size, azimuth_deg)
    return draw_surface(surface.replace(control_points=surface.control_points * scale), view, size, **options)


def draw_points(
    surface: NURBSSurface, points: torch.Tensor, kind: str, size: tuple[int, int], azimuth_deg: float = -60.0
) -> np.ndarray:
    """Draw points, seen as `draw_fit` sees their surface: a grid joined by straight pieces, a cloud as dots."""
    scale, view = _staged(surface, points, kind, size, azimuth_deg)
    scaled = points.to(scale) * scale
    if kind != "cloud":
        joined = NURBSSurface(scaled, degree=(1, 1))
        return draw_surface(joined, view, size, knot_lines=False, samples=min(max(joined.shape), 512))
    height, width = size[0] * _FINE, size[1] * _FINE
    at = view.project(scaled, (height, width))
    at = at[at[:, 2].argsort(descending=True)]  # the nearest on top, and darkest
    shade = (at[:, 2] - at[:, 2].min()) / (at[:, 2].max() - at[:, 2].min()).clamp_min(1e-12)
    page = pictures.to_image(pictures.backdrop((height, width)))
    draw = ImageDraw.Draw(page)
    r = max(0.5 * _FINE, 0.12 * height / len(at) ** 0.5)
    for (x, y, _), grey in zip(at.tolist(), (60 + 140 * shade).int().tolist(), strict=True):
        draw.ellipse((x - r, y - r, x + r, y + r), fill=(grey, grey, grey))
    fine = np.asarray(page, dtype=np.float32) / 255
    return fine.reshape(size[0], _FINE, size[1], _FINE, 3).mean((1, 3))


def _staged(
    surface: NURBSSurface, points: torch.Tensor, kind: str, size: tuple[int, int], azimuth_deg: float
) -> tuple[torch.Tensor, Camera]:
    """Return a factor for each coordinate, (3,), and a camera for what they scale."""
    cloud = points.detach().double().reshape(-1, 3)
    scale, up = torch.ones(3, dtype=torch.float64), [0.0, 0.0, 1.0]
    if kind == "heights":
        extent = cloud.amax(0) - cloud.amin(0)
        if float(extent[2]) > 0:
            scale[2] = extent[:2].max() / (5 * extent[2])
    else:
        up = _thinnest(surface, cloud)
    drawn = torch.cat([cloud, surface.grid(24, 24).detach().double().reshape(-1, 3)]) * scale
    return scale, pictures.looking_at(drawn, azimuth_deg, 40, up, aspect=size[1] / size[0])


def _thinnest(surface: NURBSSurface, cloud: torch.Tensor) -> list[float]:
    """Return the direction in which the points vary least, on the side to which the normals of the surface point."""
    centred = cloud - cloud.mean(0)
    axis = torch.linalg.eigh(centred.mT @ centred).eigenvectors[:, 0]
    normals = surface.detach().normal(8, 8, grid=True).double().reshape(-1, 3)
    side = float((normals @ axis).sum())
    return (axis if side >= 0 else -axis).tolist()


def error_map(
    path: str | os.PathLike[str],
    surface: NURBSSurface,
    errors: torch.Tensor,
    parameters: Sequence[torch.Tensor],
    diagonal: float,
    title: str = "",
    empty: Sequence[tuple[float, float, float, float]] = (),
) -> None:
    """Write a picture of the error over (u, v), with the knots as lines; as a fraction of the diagonal. By Matplotlib.

    Spans without points are hatched.

    Args:
        path: a PNG to write.
        surface: the fitted surface.
        errors: distances (N, M) on a grid or (N,) of scattered points.
        parameters: of the points: along each axis of a grid, or of each scattered point.
        diagonal: the unit of the picture.
        title: over it.
        empty: spans (u0, u1, v0, v1) without points.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.2, 5.0), layout="constrained")
    axes = figure.subplots()
    draw_error(figure, axes, surface, errors, parameters, diagonal)
    for u0, u1, v0, v1 in empty:
        axes.fill([u0, u1, u1, u0], [v0, v0, v1, v1], facecolor="0.92", edgecolor="0.6", hatch="//", linewidth=0)
    rms = float(errors.double().square().mean().sqrt())
    text = f"largest {float(errors.max()) / (diagonal or 1):.2g}, rms {rms / (diagonal or 1):.2g} of the diagonal"
    axes.set_title(title or text, fontsize=10)
    figure.savefig(path, dpi=110)


def draw_error(
    figure: Any,
    axes: Any,
    surface: NURBSSurface,
    errors: torch.Tensor,
    parameters: Sequence[torch.Tensor],
    diagonal: float,
    largest: float | None = None,
    bar: bool = True,
) -> None:
    """Draw the error map on the axes of a Matplotlib figure; its colours end at `largest`, and are told by a bar."""
    u, v = (x.detach().double().numpy() for x in parameters)
    relative = errors.detach().double().numpy() / (diagonal or 1.0)
    options: dict[str, Any] = {"cmap": "viridis", "vmin": 0.0, "vmax": largest or float(relative.max()) or 1e-16}
    if relative.ndim == 2:
        drawn = axes.pcolormesh(u, v, relative.T, shading="nearest", rasterized=True, **options)
    else:
        order = relative.argsort(kind="stable")  # the largest on top
        dot = max(0.5, 2e4 / len(relative) ** 1.1)
        drawn = axes.scatter(u[order], v[order], c=relative[order], s=min(dot, 20.0), linewidths=0, **options)
    for axis, line in ((0, axes.axvline), (1, axes.axhline)):
        low, high = (float(end) for end in surface.domain[axis])
        inside = [knot for knot in multiplicities(surface.knots[axis])[0].tolist() if low < knot < high]
        strength = min(0.8, 16 / max(len(inside), 1))  # many lines must not hide the map
        for knot in inside:
            line(knot, color="white" if relative.ndim == 2 else "0.4", linewidth=0.7, alpha=strength)
    axes.set(xlabel="u", ylabel="v")
    axes.set(xlim=[float(x) for x in surface.domain[0]], ylim=[float(x) for x in surface.domain[1]])
    if bar:
        extend = "max" if float(relative.max()) > options["vmax"] else "neither"
        label = "distance / diagonal of the bounding box"
        figure.colorbar(drawn, ax=axes, label=label, format="%.1e", extend=extend)
