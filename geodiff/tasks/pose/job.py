# SPDX-License-Identifier: Apache-2.0
"""Recover the pose of a camera from one image of a known mesh."""

import dataclasses
import math
import os
import pathlib
import sys
import time
from collections.abc import Mapping
from typing import Any

import torch
from tqdm import tqdm

from geodiff.modes import outside_autocast, with_gradients
from geodiff.scene.camera import Camera
from geodiff.scene.light import as_lights
from geodiff.scene.mesh import Mesh
from geodiff.tasks.checkpoint import FINITE, Checkpoint, Like, Many, Number, fingerprint
from geodiff.tasks.device import job_device
from geodiff.tasks.lock import output_folder
from geodiff.tasks.overlap import hard_iou
from geodiff.tasks.pose import outputs
from geodiff.tasks.pose.descent import Descent
from geodiff.tasks.pose.explained import explained, outline_pixels, say_unexplained
from geodiff.tasks.pose.followed import Followed
from geodiff.tasks.pose.input import (
    DEFAULT_FOV,
    as_batch,
    check_seen,
    lens_and_start,
    one_camera,
    one_mesh,
    read_targets,
    sphere,
    view_of_all,
    whole_view,
)
from geodiff.tasks.pose.modes import pose_modes, ranked
from geodiff.tasks.pose.newton import Newton
from geodiff.tasks.pose.poses import Poses, rotation_angle_deg
from geodiff.tasks.pose.result import FitPoseResult
from geodiff.tasks.pose.sampling import Sampling
from geodiff.tasks.pose.search import half_turns, screen
from geodiff.tasks.pose.settings import BLANK, FitPoseSettings
from geodiff.tasks.pose.target import PoseLoss, PoseTargets
from geodiff.tasks.progress import Callback, Progress, as_callback
from geodiff.validation import fail

_WHERE = "fit_pose"
_SNAPSHOTS = 30  # of the poses on the way, for the animation
_SPREAD = 60.0  # degrees around a given start
_LEFT = 0.03  # squared difference of coverage; true poses leave less than half of it to images without noise


@outside_autocast
@with_gradients
def fit_pose(
    mesh: Mesh | str | os.PathLike[str],
    image: torch.Tensor | str | os.PathLike[str],
    camera: Camera | None = None,
    *,
    start: Camera | None = None,
    mask: torch.Tensor | str | os.PathLike[str] | None = None,
    depth: torch.Tensor | None = None,
    lights: Any = None,
    truth: Camera | None = None,
    device: torch.device | str | None = None,
    settings: FitPoseSettings | Mapping[str, Any] | None = None,
    output: str | os.PathLike[str] | None = None,
    resume: bool = True,
    callback: Callback | None = None,
    progress: bool = True,
    command: str | None = None,
    **changes: Any,
) -> FitPoseResult:
    """Recover where a camera stood from one image of a known mesh.

    Many rotations are screened, from around a guess or from everywhere; the best that are well apart are followed
    through the soft renderer, all at once, while τ falls; the best of them at the end is the result, and others that
    explain the image, too, are its ``modes``. Silhouettes are followed by second-order steps (Levenberg–Marquardt),
    colours and depth by gradient descent; ``method="sampling"`` takes the best of random turns, by hard masks, instead.
    Rotations move in the tangent space of SO(3), ``R ← exp([δ]×) R`` about the axes of the camera, the mesh's middle by
    its place in the image and its size f/d. From a silhouette alone, a mesh with a plane of symmetry looks much the
    same from two sides; only perspective tells them apart.

    Args:
        mesh: one mesh (V, 3), or its file.
        image: coverage (H, W) in [0, 1]; colour with alpha (H, W, 4); colour (H, W, 3) with ``mask``; or the file of an
            image, of which grey ones are coverage.
        camera: the lens (focal length, principal point, near plane); its pose has no say. Left out: that of ``start``,
            else a field of view of 40°. Of its near plane and a hundredth of the mesh's radius, the less is taken.
        start: one camera, the guess to search around; its middle of the mesh must be ahead of it.
        mask: coverage (H, W) of the mesh in the image, or its file; goes before the image's own.
        depth: (H, W) along the viewing direction, for the loss ``"depth"``; 0, infinite or NaN where unknown.
        lights: for the loss ``"color"``, as `Renderer` takes them; without a batch.
        truth: one camera, the answer, only to be compared with.
        device: where the images are rendered and compared while poses are followed: "cpu", "cuda", "cuda:1", or "auto",
            a GPU if one works here; left out, where the mesh is. Poses, the screening and the result are the host's. A
            checkpoint goes on on any.
        settings: a `FitPoseSettings`, or a dictionary of its fields; left out, the defaults.
        output: a folder, made where missing, for ``overlay.png``, ``optimisation.gif``, ``metrics.json`` and the
            checkpoint.
        resume: go on from the checkpoint in ``output``, if there is one, to bitwise the same result as without the
            interruption; False starts afresh. A finished job removes its checkpoint.
        callback: called after each step with a `Progress`, whose ``state`` are the cameras that the step led to.
        progress: show a progress bar.
        command: the command line, to be noted in ``metrics.json``.
        **changes: fields of `FitPoseSettings`, for instance ``starts=30, focal=True``.

    Returns:
        A `FitPoseResult`.

    Raises:
        TypeError, ValueError: as each argument's check says; an image of nothing, or of nothing but the mesh; a mesh
            behind the start; a checkpoint that is damaged or of another job.
        OSError: ``output`` cannot be written to, or the disk is full; ValueError: another process writes there.
        RuntimeError: a device that is not there.

    Warns:
        UserWarning: the mesh does not explain the image in any pose that was found; the result's ``explained`` is less
            than 1 then, and so is what the probabilities of its ``modes`` sum to.

    Example:
        >>> import geodiff as gd
        >>> mesh = gd.box((1.0, 0.5, 0.3))
        >>> truth = gd.Camera.orbit(4.0, 30, 40, fov_deg=40)
        >>> image = gd.rasterize(mesh, truth, 48).mask.float()
        >>> start = gd.Camera.orbit(5.0, 10, 60, fov_deg=40)
        >>> fit = fit_pose(mesh, image, start=start, candidates=50, starts=3, steps=20, progress=False)
        >>> fit.iou > 0.9
        True
    """
    settings = FitPoseSettings.of(settings, changes)
    placed = job_device(_WHERE, device, mesh.device if isinstance(mesh, Mesh) else None)
    mesh = one_mesh(mesh)
    targets = read_targets(image, mask, depth, settings, mesh.dtype)
    given = {"camera": camera, "start": start, "truth": truth}
    centre, radius = sphere(mesh)
    camera, start, truth = (whole_view(one_camera(name, value), radius) for name, value in given.items())
    lens = camera if camera is not None else start
    if lens is None:
        lens = Camera.orbit(1.0, fov_deg=DEFAULT_FOV, near=1e-3 * radius)
    lens, start = lens_and_start(lens.detach().to(dtype=mesh.dtype), start, camera, centre, radius)
    spread = settings.spread
    if spread is None:
        spread = 180.0 if start is None else _SPREAD
    again = start is not None and settings.is_contour and settings.method == "gradient"
    again = again and all(getattr(settings, name) is None for name in BLANK)
    settings = settings.completed(spread)
    if start is None:
        start = view_of_all(lens, centre, radius, mesh.dtype)
    check_seen(start, truth, settings, centre, radius, targets)
    told = as_callback(_WHERE, callback)
    # After all other checks, but before the work.
    with output_folder(_WHERE, output) as folder:
        poses = Poses.of(as_batch(start), lens, centre, radius)
        job = _Job(mesh, targets, poses, spread, settings, lights, folder, placed)
        job.resume(resume)
        checkpoint = job.checkpoint
        job.run(told, progress)
        if again and settings.steps < settings.thorough().steps and job.ended_badly:
            other = _Job(mesh, targets, poses, spread, settings.thorough(), lights, None, placed)
            other.run(told, progress)
            seconds = job.seconds + other.seconds
            job = other if other.best <= job.best or not math.isfinite(job.best) else job
            job.seconds = seconds
        result = _result(job, mesh, targets, start, truth, centre)
        if folder is not None:
            files = outputs.write_outputs(result, mesh, targets, folder, command=command)
            result = dataclasses.replace(result, files=files)
            checkpoint.remove()
    return result


class _Job:
    """The search, and all that a checkpoint must hold of it."""

    def __init__(
        self,
        mesh: Mesh,
        targets: PoseTargets,
        start: Poses,
        spread: float,
        settings: FitPoseSettings,
        lights: Any,
        folder: pathlib.Path | None,
        device: torch.device,
    ) -> None:
        self.mesh, self.targets, self.start, self.spread, self.settings = mesh, targets, start, spread, settings
        self.loss = PoseLoss(mesh, start.radius, settings, lights, device)
        images = [v for v in (targets.alpha, targets.color, targets.depth) if v is not None]
        looks: list[Any] = [mesh.vertices, mesh.faces, mesh.vertex_colors, mesh.face_colors, mesh.uv, mesh.uv_faces]
        looks += [None if mesh.texture is None else mesh.texture.image]
        if mesh.material is not None:
            looks += vars(mesh.material).values()
        for light in [] if lights is None else as_lights(_WHERE, lights, ()):
            looks += vars(light).values()
        inputs = {
            **settings.inputs(),
            "image_fingerprint": fingerprint(images),
            "start_fingerprint": fingerprint([getattr(start, name) for name in Poses.fields]),
            "lens_fingerprint": fingerprint([start.lens.focal, start.lens.principal]),
            "mesh_fingerprint": fingerprint(
                [mesh.vertices, mesh.faces, *(x for x in looks if isinstance(x, torch.Tensor))]
            ),
        }
        self.checkpoint = Checkpoint(folder, _WHERE, inputs, settings.checkpoint_seconds)
        # Twins are far from a guess.
        self.twins = half_turns(mesh) if spread > 90 else None
        self.descent = self._descent(start)
        self.history: list[dict[str, Any]] = []
        self.snapshots: list[dict[str, Any]] = []
        self.seconds = 0.0

    def _descent(self, poses: Poses) -> Followed:
        image = torch.zeros(len(poses), dtype=torch.long)
        kind: type[Followed] = Newton if self.settings.is_contour else Descent
        if self.settings.method == "sampling":
            kind = Sampling
        return kind(poses, image, self.targets, self.settings, self.loss, self.twins)

    def run(self, callback: Callback | None, show: bool) -> None:
        """Take the steps that are left."""
        settings = self.settings
        begin = time.perf_counter()
        if not self.history:
            poses = screen(self.mesh, self.start, self.targets, self.spread, settings, self.loss)
            self.descent = self._descent(poses)
        bar = tqdm(total=settings.steps, initial=self.descent.step, desc="fit-pose", unit="step", disable=not show)
        with bar:
            while self.descent.step < settings.steps:
                step = self.descent.step
                if step % math.ceil(settings.steps / _SNAPSHOTS) == 0:
                    now = {name: getattr(self.descent.poses, name) for name in Poses.fields}
                    self.snapshots.append({"step": step, "number": self.descent.number, **now})
                loss = self.descent.advance()
                record = {
                    "step": step,
                    "scale": settings.scale_at(step),
                    "loss": float(loss.min()),
                    "count": len(loss),
                }
                self.history.append(record)
                self.seconds += time.perf_counter() - begin
                if callback is not None:
                    cameras = self.descent.poses.cameras()
                    callback(Progress(self.descent.step, settings.steps, float(loss.min()), record, cameras))
                if self.descent.step < settings.steps:
                    self.checkpoint.save(self.state)
                bar.set_postfix(loss=f"{record['loss']:.4f}", poses=record["count"], refresh=False)
                bar.update()
                begin = time.perf_counter()
            begin = time.perf_counter()
            self.descent.finish()
            self.seconds += time.perf_counter() - begin

    @property
    def ended_badly(self) -> bool:
        """Whether the best pose leaves a pixel of the image's outline more than another search may better."""
        alpha = self.descent.fine.alpha[0]
        return not self.best * float(alpha.sum()) < _LEFT * outline_pixels(alpha >= 0.5)

    @property
    def best(self) -> float:
        """The least loss of the poses at the last τ."""
        return float(self.descent.value.min())

    def state(self) -> dict[str, Any]:
        """Return what a checkpoint holds; the step is the length of the history."""
        return {
            "descent": self.descent.state(),
            "history": self.history,
            "snapshots": self.snapshots,
            "seconds": self.seconds,
        }

    def _like(self) -> dict[str, Any]:
        """Return what a checkpoint's state must look like."""
        dtype, steps = self.start.rotation.dtype, Number(0, self.settings.steps)

        def poses(count: str) -> dict[str, Like]:
            shapes: dict[str, tuple[int | str, ...]] = {"rotation": (count, 3, 3), "shift": (count, 2)}
            return {name: Like(dtype, shapes.get(name, (count,))) for name in Poses.fields}

        return {
            "descent": {"poses": poses("N"), **self.descent.like()},
            "history": Many({"step": steps, "scale": FINITE, "loss": FINITE, "count": Number(1, sys.maxsize)}),
            "snapshots": Many({"step": steps, "number": Like(torch.int64, ("each",)), **poses("each")}),
            "seconds": Number(0.0, FINITE.high),
        }

    def resume(self, wanted: bool) -> None:
        """Go on from a checkpoint, or remove it where a fresh start is wanted."""
        state = self.checkpoint.load(wanted, self._like())
        if state is None:
            return
        self.history, self.snapshots, self.seconds = state["history"], state["snapshots"], state["seconds"]
        self.descent.load(state["descent"], len(self.history))


def _result(
    job: _Job, mesh: Mesh, targets: PoseTargets, start: Camera, truth: Camera | None, centre: torch.Tensor
) -> FitPoseResult:
    guess = job.start.rotation[0], job.spread
    order = ranked(job.descent.poses, job.descent.value, job.loss, job.descent.fine, *guess)
    if not math.isfinite(float(job.descent.value[order[0]])):
        fix = "Look at the distribution, the T-conorm and the scale."
        raise fail(_WHERE, "loss", "finite for one pose at least", "none that is", fix)
    cameras = job.descent.poses[order].cameras()
    number = int(job.descent.number[order[0]])
    trail, steps = [], []
    for snapshot in job.snapshots:
        own = (snapshot["number"] == number).nonzero()[:, 0]
        if not len(own):  # a twin, before it came
            continue
        steps.append(snapshot["step"])
        fields = (snapshot[name][own] for name in Poses.fields)
        trail.append(Poses(job.start.lens, job.start.centre, job.start.radius, *fields).cameras())
    camera = cameras[0]
    share, iou = explained(mesh, camera, targets.alpha[0]), hard_iou(mesh, camera, targets.alpha[0])
    say_unexplained(share, iou)
    own = (job.descent.poses[order], job.descent.value[order])
    modes, free_axes = pose_modes(*own, job.loss, job.descent.fine, share, *guess)
    return FitPoseResult(
        camera=camera,
        modes=modes,
        free_axes=free_axes,
        loss=float(job.descent.value[order[0]]),
        iou=iou,
        explained=share,
        cameras=cameras,
        losses=job.descent.value[order],
        history=job.history,
        error=None if truth is None else pose_error(camera, truth.detach().to(dtype=mesh.dtype), centre),
        seconds=job.seconds,
        settings=job.settings,
        start=start,
        snapshots=Camera.cat([*trail, as_batch(camera)]),
        snapshot_steps=[*steps, job.settings.steps],
        device=str(job.loss.device),
    )


def pose_error(camera: Camera, truth: Camera, centre: torch.Tensor) -> dict[str, float]:
    """Return how far a camera is from the true one; see `FitPoseResult.error`."""
    error = {"angle_deg": float(rotation_angle_deg(camera.rotation, truth.rotation))}
    middle, true = (c.to_view(centre[None])[0] for c in (camera, truth))
    if camera.is_orthographic:  # how far it stands off shows nowhere
        error["position"] = float((middle - true)[:2].norm())
    else:
        error["position"] = float((camera.position - truth.position).norm())
        error["distance"] = float(middle[2] / true[2])
    return {**error, "focal": float(camera.focal[0] / truth.focal[0])}
