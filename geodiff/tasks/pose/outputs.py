# SPDX-License-Identifier: Apache-2.0
"""What fit_pose writes: the mesh over the image, an animation of the descent and metrics.json."""

import json
import pathlib
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageDraw

import geodiff
from geodiff.scene.atomic import replacing
from geodiff.scene.camera import Camera
from geodiff.scene.mesh import Mesh
from geodiff.tasks import pictures
from geodiff.tasks.animations import write_animation
from geodiff.tasks.pose.result import FitPoseResult
from geodiff.tasks.pose.target import PoseTargets

_WHERE = "fit_pose"
_PANEL = 240  # pixels of the shorter side
_LIKELY = 0.1  # probability from which on another mode is drawn
_HOLD = 12  # frames of the result at the end


def write_outputs(
    result: FitPoseResult, mesh: Mesh, targets: PoseTargets, folder: pathlib.Path, *, command: str | None
) -> dict[str, pathlib.Path]:
    """Write all files of a finished search, each whole or not at all; return their paths by kind."""
    files = {
        "overlay": folder / "overlay.png",
        "animation": folder / "optimisation.gif",
        "metrics": folder / "metrics.json",
    }
    with replacing(files["overlay"], _WHERE) as part:
        overlay(result, mesh, targets).save(part, format="PNG")
    frames = [np.asarray(frame) for frame in animation(result, mesh, targets)]
    write_animation(files["animation"], frames, 10, _WHERE)
    with replacing(files["metrics"], _WHERE) as part:
        part.write_text(json.dumps(metrics(result, mesh, targets, command), indent=1) + "\n")
    return files


def metrics(result: FitPoseResult, mesh: Mesh, targets: PoseTargets, command: str | None) -> dict[str, Any]:
    """Return what metrics.json holds."""
    return {
        "pose": describe(result.camera, targets.image_size),
        "iou": result.iou,
        "iou_is": "hard intersection over union, at the image's resolution",
        "explained": result.explained,
        "explained_is": "from 0 to 1: 1 if the masks overlap by 0.8 and more, 0 if by ½ and less, but for a quarter of "
        "the pixels on both sides of the mesh's outline",
        "loss": result.loss,
        "error": result.error,
        "modes": [
            {
                "probability": mode.probability,
                "loss": mode.loss,
                "angle_deg": mode.angle_deg,
                **describe(mode.camera, targets.image_size),
            }
            for mode in result.modes
        ],
        "probability_is": "relative to the other modes found, under Gaussian noise of the pixels that could tell, "
        "times `explained`",
        "free_axes": result.free_axes.tolist(),
        "others": [
            {"loss": float(loss), **describe(camera, targets.image_size)}
            for loss, camera in list(zip(result.losses, result.cameras, strict=True))[1:]
        ],
        "steps": len(result.history),
        "seconds": result.seconds,
        "device": result.device,
        "image_size": list(targets.image_size),
        "vertices": mesh.num_vertices,
        "faces": mesh.num_faces,
        "settings": result.settings.as_dict(),
        "version": geodiff.__version__,
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "command": command,
        "history": {name: [record[name] for record in result.history] for name in result.history[-1]},
    }


def describe(camera: Camera, image_size: tuple[int, int]) -> dict[str, Any]:
    """Return a pose as plain numbers: world to camera, OpenGL's pose matrix, and the intrinsics in pixels."""
    return {
        "rotation": camera.rotation.tolist(),
        "translation": camera.translation.tolist(),
        "camera_to_world": camera.camera_to_world.tolist(),
        "position": camera.position.tolist(),
        "orthographic": camera.is_orthographic,
        "focal": camera.focal.tolist(),
        "principal": camera.principal.tolist(),
        "K": camera.K(image_size).tolist(),
    }


def overlay(result: FitPoseResult, mesh: Mesh, targets: PoseTargets) -> Image.Image:
    """Draw image, start and result, and how they differ: both grey, the image alone red, the mesh alone blue.

    The next best mode has a column of its own where it is likely.
    """
    size = _size(targets.image_size)
    ground = pictures.backdrop(size)
    picture, alpha = _picture(targets, size)
    rows = [[pictures.over(picture, alpha, ground)], [pictures.difference(alpha, alpha)]]
    error = "" if result.error is None else f", {result.error['angle_deg']:.2f}° off"
    titles = ["image", "start", f"fit: IoU {result.iou:.3f}{error}"]
    cameras = [result.start, result.camera]
    if len(result.modes) > 1 and result.modes[1].probability >= _LIKELY:
        cameras.append(result.modes[1].camera)
        titles.append(f"or so: {100 * result.modes[1].probability:.0f} %, {result.modes[1].angle_deg:.0f}° away")
    for camera in cameras:
        color, own = pictures.shaded(mesh, camera, size)
        rows[0].append(pictures.over(color, own, ground))
        rows[1].append(pictures.difference(alpha, own))
    return pictures.grid(rows, ("view", "overlay"), tuple(titles))


def animation(result: FitPoseResult, mesh: Mesh, targets: PoseTargets) -> list[Image.Image]:
    """Draw the way of the pose that won: the mesh beside its difference from the image."""
    size = _size(targets.image_size)
    ground = np.full((*size, 3), 0.95, dtype=np.float32)  # a gradient would show bands in 256 colours
    _, target = _picture(targets, size)
    frames = []
    for step, camera in zip(result.snapshot_steps, result.snapshots, strict=True):
        color, alpha = pictures.shaded(mesh, camera, size)
        both = (pictures.over(color, alpha, ground), pictures.difference(target, alpha))
        frame = pictures.to_image(np.concatenate(both, axis=1))
        last = step == result.settings.steps
        text = f"the result, IoU {result.iou:.3f}" if last else f"step {step} of {result.settings.steps}"
        ImageDraw.Draw(frame).text((8, 6), text, fill=(70, 70, 70))
        frames.append(frame)
    frames += [frames[-1]] * _HOLD
    return frames


def _picture(targets: PoseTargets, size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Return the image's colours, or a dark silhouette, and its coverage, at another size."""
    alpha = pictures.resized(targets.alpha[0].float().numpy(), size)
    if targets.color is None:
        return np.full((*size, 3), 0.25, dtype=np.float32), alpha
    color = pictures.resized(targets.color[0].float().numpy(), size) / np.maximum(alpha, 1e-3)[..., None]
    return np.clip(color, 0, 1), alpha


def _size(image_size: tuple[int, int]) -> tuple[int, int]:
    factor = _PANEL / min(image_size)
    return round(image_size[0] * factor), round(image_size[1] * factor)
