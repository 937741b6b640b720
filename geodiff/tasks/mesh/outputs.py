# SPDX-License-Identifier: Apache-2.0
"""What fit_mesh writes: the mesh, a picture beside the targets, an animation and metrics.json."""

import json
import math
import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageDraw

import geodiff
from geodiff.scene.atomic import replacing
from geodiff.scene.camera import Camera
from geodiff.scene.files import PosedImages
from geodiff.scene.mesh import Mesh
from geodiff.tasks import pictures
from geodiff.tasks.animations import write_animation
from geodiff.tasks.mesh.result import FitMeshResult
from geodiff.validation import warn

_CELL = 160  # pixels of the shorter side of a picture in the grid
_PANEL = 240  # and in the animation
_COLUMNS = 8
_TURNS = 24  # frames that turn the finished mesh once around


def write_outputs(
    result: FitMeshResult, images: PosedImages, folder: pathlib.Path, *, command: str | None
) -> dict[str, pathlib.Path]:
    """Write all files of a finished fit, each whole or not at all; return their paths by kind.

    ``mesh.obj`` (or other ``formats``; with colours ``mesh.glb``, too), ``side_by_side.png``, ``optimisation.gif``,
    ``metrics.json``, and ``cameras.json``, a ``transforms.json`` of the refined cameras, where there are any.
    """
    files: dict[str, pathlib.Path] = {}
    if result.mesh.num_faces:
        extra = ("glb",) if result.colors is not None and "glb" not in result.settings.formats else ()
        for name in (*result.settings.formats, *extra):
            files[name] = folder / f"mesh.{name}"
            (result.mesh if result.colors is None else result.colors).save(files[name])
    else:
        warn("fit_mesh: the template has no faces, so no mesh file is written")
    if result.cameras is not None:
        files["cameras"] = folder / "cameras.json"
        with replacing(files["cameras"], "fit_mesh") as part:
            part.write_text(json.dumps(images._transforms("fit_mesh"), indent=1) + "\n")
    files["side_by_side"] = folder / "side_by_side.png"
    with replacing(files["side_by_side"], "fit_mesh") as part:
        side_by_side(result, images).save(part, format="PNG")
    files["animation"] = folder / "optimisation.gif"
    frames = [np.asarray(frame) for frame in animation(result, images)]
    write_animation(files["animation"], frames, 12.5, "fit_mesh")
    files["metrics"] = folder / "metrics.json"
    with replacing(files["metrics"], "fit_mesh") as part:
        part.write_text(json.dumps(metrics(result, images, command), indent=1) + "\n")
    return files


def metrics(result: FitMeshResult, images: PosedImages, command: str | None) -> dict[str, Any]:
    """Return what metrics.json holds."""
    last = result.history[-1]
    return {
        "iou_train": result.iou_train,
        "iou_held_out": result.iou_held_out,
        "iou_is": "mean over the views of the hard intersection over union, at the images' resolution",
        **_qualities(result),
        "loss": last["loss"],
        "best_step": result.best_step,
        "steps": len(result.history),
        "stopped_early": result.stopped_early,
        "seconds": result.seconds,
        "device": result.device,
        "views_train": result.train,
        "views_held_out": result.held_out,
        "image_size": list(images.image_size),
        "vertices": result.mesh.num_vertices,
        "faces": result.mesh.num_faces,
        "self_intersections": len(result.mesh.self_intersections()),
        "settings": result.settings.as_dict(),
        "version": geodiff.__version__,
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "command": command,
        "history": {name: [record[name] for record in result.history] for name in last},
    }


def side_by_side(result: FitMeshResult, images: PosedImages) -> Image.Image:
    """Draw the targets over the fit and their difference, in up to eight views, half of them held out."""
    held_out = _spread(result.held_out, _COLUMNS // 2)
    train = _spread(result.train, _COLUMNS - len(held_out))
    chosen = sorted(train) + sorted(held_out)
    size = _size(images.image_size, _CELL)
    ground = pictures.backdrop(size)
    rows: list[list[np.ndarray]] = [[], [], []]
    titles = []
    for i in chosen:
        target = images.alpha[i].detach().float().clamp(0, 1).numpy()
        color, alpha = _seen(result, images.cameras[i : i + 1], size)
        large = pictures.resized(target, size)
        # Scaled after the multiplication by alpha, so that what is outside does not bleed in.
        ink = pictures.resized(_target_color(images, i) * target[..., None], size)
        rows[0].append(ink + ground * (1 - large[..., None]))
        rows[1].append(pictures.over(color, alpha, ground))
        rows[2].append(pictures.difference(large, alpha))
        titles.append(f"{'held out' if i in result.held_out else 'train'} {images.names[i]}"[-22:])
    return pictures.grid(rows, ("target", "fit", "difference"), titles)


def _seen(result: FitMeshResult, camera: Camera, size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Draw the mesh in grey, or in the colours it was found to have."""
    if result.colors is None:
        color, alpha = pictures.shaded(result.mesh, camera[0], size)
        return color, alpha
    from geodiff.tasks.mesh.colors import picture

    colors, eye = result.colors, camera.to(dtype=result.mesh.dtype)
    rgb, cover = picture(result.mesh, eye, size, colors.lights, colors.harmonics, 2)
    return (rgb / cover.clamp_min(1e-6)[..., None]).clamp(0, 1).float().numpy(), cover.float().numpy()


def _qualities(result: FitMeshResult) -> dict[str, float | None]:
    """Return PSNR and SSIM, mean over the views that show the object."""
    if result.colors is None:
        return {}
    means = {}
    for name, views in (("train", result.train), ("held_out", result.held_out)):
        for what in ("psnr", "ssim"):
            value = float(getattr(result.colors, what)[views].nanmean()) if views else math.nan
            means[f"{what}_{name}"] = value if math.isfinite(value) else None
    return means


def _target_color(images: PosedImages, index: int) -> np.ndarray:
    """Return the colours of an image, or a dark silhouette where it has none."""
    if images.in_color:
        color: np.ndarray = images.photograph(index).detach().float().numpy()
        if (color[images.alpha[index].numpy() >= 0.5] < 0.999).any():
            return color
    return np.full((*images.image_size, 3), 0.25, dtype=np.float32)


def animation(result: FitMeshResult, images: PosedImages) -> list[Image.Image]:
    """Draw the mesh turning while the optimisation goes on, beside its difference from one target; then once around."""
    size = _size(images.image_size, _PANEL)
    index = result.train[0]
    target = pictures.resized(images.alpha[index].detach().float().clamp(0, 1).numpy(), size)
    steps = [*result.snapshot_steps, *[result.best_step] * _TURNS]
    vertices = [*result.snapshots, *[result.mesh.vertices] * _TURNS]
    azimuths = [360.0 / _TURNS * k for k in range(len(steps))]
    centre = result.mesh.bounds.mean(0) if result.mesh.num_vertices else torch.zeros(3)
    cameras = pictures.turntable(images.cameras, centre, azimuths, 25.0)
    ground = np.full((*size, 3), 0.95, dtype=np.float32)  # a gradient would show bands in 256 colours
    frames = []
    faces = [*result.snapshot_faces, *[result.mesh.faces] * _TURNS]
    for k, (step, at) in enumerate(zip(steps, vertices, strict=True)):
        mesh = Mesh(at, faces[k])
        turning = pictures.over(*pictures.shaded(mesh, cameras[k], size), ground)
        fit = pictures.coverage(mesh, images.cameras[index], size)
        frame = pictures.to_image(np.concatenate((turning, pictures.difference(target, fit)), axis=1))
        text = f"step {step} of {result.settings.steps}" if k < len(result.snapshot_steps) - 1 else "the result"
        ImageDraw.Draw(frame).text((8, 6), text, fill=(70, 70, 70))
        frames.append(frame)
    return frames


def _spread(values: Sequence[int], count: int) -> list[int]:
    """Choose up to ``count`` of the values, evenly."""
    if len(values) <= count:
        return list(values)
    return [values[round(k * (len(values) - 1) / max(count - 1, 1))] for k in range(count)]


def _size(image_size: tuple[int, int], shorter: int) -> tuple[int, int]:
    """Return a size of the same proportions with the given shorter side."""
    height, width = image_size
    factor = shorter / min(height, width)
    return round(height * factor), round(width * factor)
