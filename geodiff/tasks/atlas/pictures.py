# SPDX-License-Identifier: Apache-2.0
"""Pictures of an atlas: the points, the surface, its charts and how sure it is; and how far the points lie from it."""

import io
from typing import Any

import numpy as np
import torch
from PIL import Image

from geodiff.atlas.atlas import Atlas
from geodiff.atlas.metrics import closest_of
from geodiff.render.renderer import rasterize
from geodiff.scene.camera import Camera
from geodiff.scene.mesh import Mesh
from geodiff.tasks import pictures

AZIMUTHS = (30.0, 120.0, 210.0, 300.0)
_ELEVATION = 25.0
SIZE = (300, 300)  # of a picture
_FINE = 3  # dots are drawn so many times larger and averaged
_MOST_DOTS = 40_000
_GOLDEN = 0.6180339887
_DOT, _STRAY = (0.30, 0.36, 0.45), (0.85, 0.15, 0.10)
# From doubtful to sure.
_SCALE = np.array([[0.60, 0.05, 0.05], [0.85, 0.45, 0.05], [0.80, 0.75, 0.15], [0.15, 0.50, 0.30]])


class Overview:
    """Draws the points, the surface, the charts in colours and the confidence, from four sides.

    Confidence goes from red (0) over yellow to green (1). Points that no chart is fitted to are red.

    Args:
        atlas: fitted.
        mesh: `atlas.to_mesh()`.
        size: (H, W) of a picture; left out, `SIZE`.
        up: ``"x"``, ``"y"``, ``"z"``, or with a minus.
    """

    def __init__(self, atlas: Atlas, mesh: Mesh, size: tuple[int, int] | None = None, up: str = "y") -> None:
        self._size = size = size or SIZE
        self._middle = middle = (atlas.points.amin(0) + atlas.points.amax(0)) / 2
        mesh, points = _staged(mesh, middle), (atlas.points - middle).float()
        good = points[~atlas.outlier]
        axis = [(-1.0 if up.startswith("-") else 1.0) * (name == up[-1]) for name in "xyz"]
        cameras = [pictures.looking_at(good, azimuth, _ELEVATION, axis).to(dtype=torch.float32) for azimuth in AZIMUTHS]
        self._cameras = cameras
        chart, sure = face_facts(atlas, mesh.vertices.double() + middle.double(), mesh.faces)
        tints = {"surface": None, "charts": chart_colors(len(atlas))[chart], "confidence": confidence_colors(sure)}
        drawn = [draw(mesh, camera, size, *tints.values()) for camera in cameras]
        normals = point_normals(atlas)
        self._rows = {"points": [draw_points(atlas, points, mesh, camera, size, normals) for camera in cameras]}
        self._rows |= dict(zip(tints, map(list, zip(*drawn, strict=True)), strict=True))

    def page(self, watertight: Mesh | None = None) -> Image.Image:
        """Return all in one, with the watertight mesh, if there is one."""
        rows = dict(self._rows)
        if watertight is not None:
            closed = _staged(watertight, self._middle)
            rows["watertight"] = [draw(closed, camera, self._size, None)[0] for camera in self._cameras]
        return pictures.grid(list(rows.values()), list(rows), [f"from {azimuth:.0f}°" for azimuth in AZIMUTHS])


def draw(mesh: Mesh, camera: Camera, size: tuple[int, int], *tints: np.ndarray | None) -> list[np.ndarray]:
    """Draw a mesh in grey (None) or colours of its faces (F, 3), over a soft ground: for each (H, W, 3) in [0, 1]."""
    ground = pictures.backdrop(size)
    return [pictures.over(color, alpha, ground) for color, alpha in pictures.tinted(mesh, camera, size, tints)]


def draw_points(
    atlas: Atlas,
    points: torch.Tensor,
    mesh: Mesh,
    camera: Camera,
    size: tuple[int, int] = SIZE,
    normals: torch.Tensor | None = None,
) -> np.ndarray:
    """Draw the points of a cloud (N, 3) as dots, lit by the normals of the surface; those behind it are hidden.

    `normals` are the atlas's `point_normals`, where they are known.
    """
    normals = point_normals(atlas) if normals is None else normals
    height, width = size[0] * _FINE, size[1] * _FINE
    at = camera.project(points, (height, width))
    column, row = at[:, 0].long(), at[:, 1].long()
    seen = (column >= 0) & (column < width) & (row >= 0) & (row < height) & (at[:, 2] > 0)
    depth = rasterize(mesh, camera, (height, width)).depth
    far = depth[None, None]
    for side in ((2 * _FINE + 1, 1), (1, 2 * _FINE + 1)):  # the largest of a column, then of a row of these
        far = torch.nn.functional.max_pool2d(far, side, 1, (side[0] // 2, side[1] // 2))
    far = far[0, 0]
    slack = 0.015 * float((mesh.vertices.amax(0) - mesh.vertices.amin(0)).norm())
    seen &= at[:, 2] <= far[row.clamp(0, height - 1), column.clamp(0, width - 1)] + slack
    keep = seen.nonzero()[:, 0]
    radius = min(2.4, max(0.5, 0.3 * size[0] / max(len(points), 1) ** 0.5)) * _FINE
    keep = keep[:: max(1, -(-len(keep) // _MOST_DOTS))]
    order = at[keep, 2].argsort(descending=True)
    chosen = keep[order].numpy()
    facing = normals[chosen].double() @ camera.rotation.double().mT
    light = 0.45 + 0.55 * (facing @ torch.tensor([-0.37, 0.53, 0.76], dtype=torch.float64)).abs().numpy()
    color = light[:, None] ** (1 / 2.2) * np.where(atlas.outlier.numpy()[chosen, None], _STRAY, _DOT) ** np.float64(0.8)
    reach = int(np.ceil(radius))
    y, x = np.mgrid[-reach : reach + 1, -reach : reach + 1]
    inside = x * x + y * y <= radius * radius
    page = pictures.backdrop((height, width)).copy()
    rows = np.clip(row.numpy()[chosen, None] + y[inside], 0, height - 1)
    columns = np.clip(column.numpy()[chosen, None] + x[inside], 0, width - 1)
    # Of a place that is written several times the last counts: the nearest point's.
    page[rows.ravel(), columns.ravel()] = np.repeat(color, inside.sum(), axis=0)
    return page.reshape(size[0], _FINE, size[1], _FINE, 3).mean((1, 3))


def point_normals(atlas: Atlas) -> torch.Tensor:
    """Return the outward normals (N, 3) of the surface at the points of the cloud; 0 for outliers."""
    first, rows = atlas.by_point
    covered = (first[1:] > first[:-1]).nonzero()[:, 0]
    deepest = rows[first[covered]]
    normals = atlas.points.new_zeros(len(atlas.points), 3)
    normals[covered] = atlas.normals(atlas.chart[deepest], atlas.uv[deepest]).to(normals)
    return normals


def face_facts(atlas: Atlas, vertices: torch.Tensor, faces: torch.Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Return for each face of a mesh, by the point of the cloud nearest to its middle: chart (F,), confidence (F,)."""
    owned = (atlas.domain.owner >= 0).nonzero()[:, 0]
    near = owned[closest_of(vertices[faces].mean(1), atlas.fitted_points()[owned].double()).face]
    return atlas.domain.owner[near].numpy(), atlas.confidence[near].numpy()


def chart_colors(count: int) -> np.ndarray:
    """Return linear colours (count, 3), neighbours in number far apart in hue."""
    hue = (np.arange(count) * _GOLDEN) % 1
    shade = 0.75 + 0.25 * ((np.arange(count) * _GOLDEN**2 * 7) % 1)
    wheel = np.clip(np.abs((hue[:, None] * 6 + np.array([0, 4, 2])) % 6 - 3) - 1, 0, 1)
    return (0.18 + 0.62 * wheel) * shade[:, None]


def confidence_colors(confidence: np.ndarray) -> np.ndarray:
    """Return linear colours (F, 3) of confidences (F,) in [0, 1]."""
    place = np.clip(confidence, 0, 1) * (len(_SCALE) - 1)
    left = np.minimum(place.astype(int), len(_SCALE) - 2)
    part = (place - left)[:, None]
    return (1 - part) * _SCALE[left] + part * _SCALE[left + 1]


def signed_distances(atlas: Atlas) -> np.ndarray:
    """Return how far the points that are no outliers lie from the surface along its normals, outside positive."""
    good = ~atlas.outlier
    rest = (atlas.points - atlas.fitted_points())[good].double()
    return np.asarray((rest * point_normals(atlas)[good].double()).sum(1))


def blank() -> Any:
    """Return a figure for `errors`; in the main thread, since it looks for IPython, which Open3D may be importing."""
    from matplotlib.figure import Figure

    return Figure(figsize=(10.5, 4.0))


def errors(figure: Any, off: np.ndarray, metrics: dict[str, Any]) -> bytes:
    """Draw a histogram of the points' distances from the surface, and which share lies within which; by Matplotlib.

    Args:
        figure: `blank`.
        off: `signed_distances`.
        metrics: of `fit_atlas`, with what is known of the truth.

    Returns:
        A PNG.
    """
    diagonal = metrics["diagonal"]
    off = 1e3 * off / diagonal
    noise = 1e3 * metrics["noise_over_diagonal"]
    bound = max(4 * noise, float(np.quantile(np.abs(off), 0.995)), 1e-9)
    left, right = figure.subplots(1, 2)
    figure.subplots_adjust(
        left=0.02, right=0.99, bottom=0.13, top=0.92, wspace=0.1
    )  # a layout of its own takes as long
    left.hist(np.clip(off, -bound, bound), bins=81, range=(-bound, bound), density=True, color="#7a8ca5")
    if noise > 0:
        x = np.linspace(-bound, bound, 201)
        normal = np.exp(-0.5 * (x / noise) ** 2) / (noise * np.sqrt(2 * np.pi))
        left.plot(x, normal, color="#b3261e", label=f"noise as estimated, σ = {noise:.2g}")
        left.legend(frameon=False, fontsize=8, loc="upper right")
    left.set(xlabel="from the surface to the points, outwards, ‰ of the diagonal", yticks=[], xlim=(-bound, bound))
    left.set_title(f"{len(off)} points, rms {np.sqrt((off**2).mean()):.2g} ‰", fontsize=10)
    share = 100 * (np.arange(len(off)) + 1) / len(off)
    right.plot(np.sort(np.abs(off)), share, label="points to the surface", color="#7a8ca5")
    limit = 1.2 * bound
    truth = metrics.get("truth")
    if truth is not None:
        curve = truth["samples"]["curve"]
        scale = truth["samples"]["scale"] / diagonal
        threshold = 1e3 * scale * np.asarray(curve["threshold"])
        right.plot(threshold, 100 * np.asarray(curve["output"]), label="surface to the truth", color="#b3261e")
        right.plot(threshold, 100 * np.asarray(curve["truth"]), label="truth to the surface", color="#2a6f4e")
    right.set(xlabel="within … ‰ of the diagonal", ylabel="%", xlim=(0, limit), ylim=(0, 101))
    right.grid(alpha=0.3)
    right.legend(frameon=False, fontsize=8, loc="lower right")
    right.set_title("share that lies within a distance", fontsize=10)
    file = io.BytesIO()
    figure.savefig(file, dpi=110, format="png")
    return file.getvalue()


def _staged(mesh: Mesh, middle: torch.Tensor) -> Mesh:
    """Return a mesh about the origin in single precision, without its texture."""
    return Mesh((mesh.vertices.detach() - middle.to(mesh.vertices)).float(), mesh.faces)
