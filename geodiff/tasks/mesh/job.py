# SPDX-License-Identifier: Apache-2.0
"""Recover a mesh from posed images of its silhouette."""

import dataclasses
import math
import os
import pathlib
import time
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from tqdm import tqdm

from geodiff import losses
from geodiff.adam import Adam
from geodiff.modes import outside_autocast, with_gradients
from geodiff.render.renderer import Renderer
from geodiff.scene.camera import Camera
from geodiff.scene.files import PosedImages
from geodiff.scene.light import Light
from geodiff.scene.material import Material
from geodiff.scene.mesh import Mesh
from geodiff.scene.remesh import mean_edge_length
from geodiff.tasks.checkpoint import FINITE, Checkpoint, Like, Many, Number, fingerprint
from geodiff.tasks.device import job_device
from geodiff.tasks.lock import output_folder
from geodiff.tasks.mesh import outputs, refine
from geodiff.tasks.mesh.agreement import say_disagreement
from geodiff.tasks.mesh.cameras import SLACK, MovingCameras, moving_cameras
from geodiff.tasks.mesh.contradictions import check_placed, good_views, views_of_something
from geodiff.tasks.mesh.hull import hull_of
from geodiff.tasks.mesh.large_steps import AdamUniform, LaplacianPreconditioner
from geodiff.tasks.mesh.result import FitMeshResult
from geodiff.tasks.mesh.settings import FitMeshSettings
from geodiff.tasks.mesh.start import (
    FAR,
    check_colors,
    check_look,
    check_seen,
    data_device,
    is_hull,
    object_frame,
    posed_images,
    split,
    start_mesh,
)
from geodiff.tasks.mesh.stopping import Patience
from geodiff.tasks.overlap import hard_iou
from geodiff.tasks.progress import Callback, Progress, as_callback
from geodiff.tasks.specks import without_specks
from geodiff.tasks.turns import summed_by_turns, turns
from geodiff.validation import fail

_WHERE = "fit_mesh"
_VERTICES = 642  # of the default template, for which the weights and λ are written
# In a checkpoint.
_KEPT = (
    *("best", "best_topology", "best_score", "best_iou", "best_step", "history"),
    *("snapshots", "snapshot_topologies", "snapshot_steps", "seconds"),
)
_TERMS = ("loss", "iou_loss", "laplacian", "flatness")
_HOST = torch.device("cpu")
_SNAPSHOTS = 36  # of the vertices on the way, for the animation


@outside_autocast
@with_gradients
def fit_mesh(
    images: PosedImages | torch.Tensor | str | os.PathLike[str],
    cameras: Camera | None = None,
    *,
    template: str | os.PathLike[str] | Mesh = "hull",
    lights: Light | Sequence[Light] | None = None,
    material: Material | None = None,
    background: Any = None,
    device: torch.device | str | None = None,
    settings: FitMeshSettings | Mapping[str, Any] | None = None,
    output: str | os.PathLike[str] | None = None,
    resume: bool = True,
    callback: Callback | None = None,
    progress: bool = True,
    command: str | None = None,
    **changes: Any,
) -> FitMeshResult:
    """Recover a mesh from images of its silhouette by gradient descent through the soft renderer.

    It starts from the visual hull of the images, which has their holes and parts and is the same on every machine, and
    minimises ``silhouettes + w_l·V/642·laplacian/unit² + w_f·flatness`` over the V vertices, which move freely
    (Liu et al., "Soft Rasterizer", 2019; Petersen et al., "GenDR", 2022). From another template, silhouettes
    are compared by their soft IoU, and the scale τ of the soft edges falls on the way; a sphere is remeshed, finer and
    finer, while the faces of a mesh of one's own stay. Every few steps the hard IoU in
    the training views is measured; the mesh of the best (of the least silhouette loss, if that is ``"squared"``) is the
    result. The held-out views have no part in it. Where colours are asked for, its vertices then move along their
    normals to where the photographs agree on them (``photometric``).

    Args:
        images: `PosedImages`; the path of what `PosedImages.load` reads, a ``transforms.json``, a COLMAP model or an
            OpenCV calibration, or its folder; or coverage (B, H, W) in [0, 1].
        cameras: the B cameras that go with a tensor of coverage.
        template: ``"hull"``, the visual hull; ``"sphere"``, an icosphere where the silhouettes point to; a mesh (V, 3),
            used as it is; or its file. What settings leave open is filled in for it: see `FitMeshSettings`.
        lights: the lamps under which images in colour were made, to be taken out of the texture; see `fit_colors`.
        material: how the surface answers to them, which becomes that of the mesh; left out, `Material()`.
        background: what is behind the object in photographs without masks, to be cut away: a colour such as white, an
            image of it alone, or "auto", the colour along their borders; see `PosedImages.load`. `images` may then be
            photographs (B, H, W, 3), too.
        device: where the steps are taken: "cpu", "cuda", "cuda:1", or "auto", a GPU if one works here; left out, where
            the images are. Hull, remeshing, cameras, pictures and the result are the host's, whichever it is. A
            checkpoint goes on on any.
        settings: a `FitMeshSettings`, or a dictionary of its fields; left out, the defaults.
        output: a folder, made where missing, for the mesh, pictures, ``metrics.json`` and the checkpoint.
        resume: go on from the checkpoint in ``output``, if there is one, to bitwise the same result as without the
            interruption; False starts afresh. A finished job removes its checkpoint.
        callback: called after each step with a `Progress`, whose ``state`` is the mesh that the step started from.
        progress: show a progress bar.
        command: the command line, to be noted in ``metrics.json``.
        **changes: fields of `FitMeshSettings`, for instance ``steps=100, lr=0.1``.

    Returns:
        A `FitMeshResult`.

    Raises:
        TypeError, ValueError: as each argument's check says; images without any coverage, or silhouettes that no object
            has; a checkpoint that is damaged or of another job.
        OSError: ``output`` cannot be written to, or the disk is full; ValueError: another process writes there.
        RuntimeError: a device that is not there.

    Warns:
        UserWarning: as `visual_hull` does, of views that contradict each other and of what stays unknown; of what
            ``keep_components`` took out.

    Example:
        >>> import torch, geodiff as gd
        >>> cameras = gd.Camera.orbit(2.732, 30, torch.arange(0, 360, 45), fov_deg=30)
        >>> target = gd.rasterize(gd.box(0.6), cameras, 32).mask.float()
        >>> fit = fit_mesh(target, cameras, hold_out=0, progress=False)
        >>> fit.iou_train > 0.95
        True
    """
    settings = FitMeshSettings.of(settings, changes)
    placed = job_device(_WHERE, device, data_device(images))
    settings = refine.chosen(settings, isinstance(template, str) and template == "sphere")
    posed = posed_images(images, cameras, background=background)
    if settings.keep_components:
        posed = posed._with(without_specks(_WHERE, posed.alpha, settings.keep_components), posed.cameras)
    train, held_out = split(len(posed), settings.hold_out)
    if not bool((posed.alpha[train] >= 0.5).any()):
        raise fail(
            _WHERE, "images", "of something: coverage of ½ or more in a view to be fitted", "empty ones", "Invert them?"
        )
    masks = PosedImages(None, posed.alpha, posed.cameras, posed.names)  # parts of it are copies
    train = [train[i] for i in good_views(_WHERE, masks[train])]
    seen = views_of_something(_WHERE, masks, held_out)
    kind = "hull" if is_hull(template) else "other"
    settings = settings.completed(kind, min(posed.image_size), len(train))
    if settings.texture or settings.vertex_colors:
        check_colors(_WHERE, posed, settings)
    check_look(_WHERE, lights, material)
    centre, unit = object_frame(posed)
    moving = moving_cameras(masks, train, centre, settings) if settings.refine_cameras else None
    if moving is not None:
        masks = moving.at_start
    if is_hull(template):
        start = refine.even(hull_of(masks[train], settings.resolution, SLACK if moving else None, _WHERE))
    else:
        check_placed(_WHERE, masks[train], centre)
        say_disagreement(_WHERE, masks[train], centre)
        start = start_mesh(template, settings, posed, centre)
    check_seen(start, masks[train], centre, unit, template, settings)
    told = as_callback(_WHERE, callback)
    # After all other checks, but before the work.
    with output_folder(_WHERE, output) as folder:
        job = _Job(start, masks, train, unit, settings, folder, moving, placed)
        job.mends = is_hull(template) or bool(settings.remesh_every)
        job.resume(resume)
        job.run(told, progress)
        mesh = job.best_mesh()
        del job.views  # copies of most masks
        snapshots = [*(vertices.cpu() for vertices in job.snapshots), mesh.vertices]
        if moving is not None:
            posed, snapshots = moving.result(posed, job.best_moves, snapshots)
            mesh = mesh.with_vertices(snapshots[-1])
        if material is not None:
            mesh = mesh.with_attributes(material=material.map(lambda value: value.to(_HOST)))
        colors = None
        if (settings.texture or settings.vertex_colors) and mesh.num_faces:
            from geodiff.tasks.mesh.colors import fit_colors
            from geodiff.tasks.mesh.photometric import consistent

            if settings.photometric and len(train) > 1:
                mesh = consistent(mesh, posed, train)
            kind = "texture" if settings.texture else "vertices"
            lamps = settings.light if lights is None else lights
            colors = fit_colors(mesh, posed, kind=kind, size=settings.texture_size, lights=lamps, views=train)
        result = FitMeshResult(
            mesh=mesh if colors is None else colors.mesh,
            iou_train=job.best_iou
            if torch.equal(mesh.vertices, job.best.cpu())
            else hard_iou(mesh, posed.cameras[train], posed.alpha[train]),
            iou_held_out=hard_iou(mesh, posed.cameras[seen], posed.alpha[seen]) if seen else None,
            best_step=job.best_step,
            history=job.history,
            seconds=job.seconds,
            settings=settings,
            train=train,
            held_out=held_out,
            snapshots=torch.stack(snapshots) if job.same_faces(mesh) else snapshots,
            snapshot_faces=[*(job.topologies[i].faces for i in job.snapshot_topologies), mesh.faces],
            snapshot_steps=[*job.snapshot_steps, job.best_step],
            cameras=None if moving is None else posed.cameras,
            colors=colors,
            device=str(placed),
        )
        if folder is not None:
            files = outputs.write_outputs(result, posed, folder, command=command)
            result = dataclasses.replace(result, files=files)
            job.checkpoint.remove()
    return result


class _Job:
    """The optimisation, and all that a checkpoint must hold of it."""

    def __init__(
        self,
        template: Mesh,
        posed: PosedImages,
        train: list[int],
        unit: float,
        settings: FitMeshSettings,
        folder: pathlib.Path | None,
        moving: MovingCameras | None = None,
        device: torch.device = _HOST,
    ) -> None:
        self.moving, self.device = moving, device
        self.best_moves = torch.zeros(0) if moving is None else moving.z.detach().clone()
        self.template, self.views, self.unit, self.settings = template, posed[train].to(device), unit, settings
        self.mends = False  # whether what is thin or folded in the result is mended
        self.topologies = [template.topology]  # one after the other, if it is remeshed; the host's
        self.start_length = mean_edge_length(template)
        inputs = {
            **settings.inputs(),
            "images_fingerprint": fingerprint([posed.alpha]),
            "cameras_fingerprint": fingerprint(
                [posed.cameras.rotation, posed.cameras.translation, posed.cameras.focal, posed.cameras.principal]
            ),
            "template_fingerprint": fingerprint([template.vertices, template.faces]),
        }
        self.checkpoint = Checkpoint(folder, _WHERE, inputs, settings.checkpoint_seconds)
        self._adopt(template)
        self.step = 0
        self.seconds = 0.0
        self.best_score, self.best_iou, self.best_step = -math.inf, 0.0, 0
        self.best = self.template.vertices.detach().clone()
        self.history: list[dict[str, Any]] = []
        self.patience = Patience(settings)
        self.best_topology = 0
        self.snapshots: list[torch.Tensor] = []
        self.snapshot_topologies: list[int] = []
        self.snapshot_steps: list[int] = []

    def _adopt(self, mesh: Mesh) -> None:
        """Go on with a mesh, whose vertices are in no step yet."""
        settings = self.settings
        mesh = mesh if self.device == _HOST else mesh.to(self.device)
        self.template = mesh
        self.density = mesh.num_vertices / _VERTICES
        # Lengths in the world's unit make gradients in its inverse, and ε with them.
        lr, eps = settings.lr * self.unit, 1e-8 / self.unit
        self.latent = mesh.vertices.detach().clone()
        self.optimizer: torch.optim.Optimizer
        self.precondition: LaplacianPreconditioner | None = None
        if settings.optimizer == "large_steps":
            self.precondition = LaplacianPreconditioner(mesh, smoothing=settings.smoothing * self.density)
            self.latent = self.precondition.to_latent(self.latent)
            self.latent.requires_grad_()
            self.optimizer = AdamUniform([self.latent], lr=lr, betas=settings.betas, eps=eps)
        else:
            self.latent.requires_grad_()
            self.optimizer = Adam([self.latent], lr=lr, betas=settings.betas, eps=eps)

    def _remesh(self) -> None:
        """Go on with other triangles, and with what the optimiser knew."""
        with torch.no_grad():
            mesh = self.template.with_vertices(self.vertices()).detach().to("cpu")
            pixels = min(self.views.image_size)
            result = refine.refined(mesh, self.start_length, self.settings, self.step, self.unit, pixels)
            moments = self._here(refine.carried(result, self._moments()))
        self._adopt(result.mesh)
        self.topologies.append(result.mesh.topology)
        if moments:
            self.optimizer.state[self.latent] = moments

    def _here(self, values: Any) -> Any:
        """Return tensors of a checkpoint or of the host's, in whatever they are, where the steps are taken."""
        if isinstance(values, torch.Tensor):
            return values.to(self.device) if values.dim() else values
        if isinstance(values, dict):
            return {name: self._here(value) for name, value in values.items()}
        return [self._here(value) for value in values] if isinstance(values, list) else values

    def same_faces(self, mesh: Mesh) -> bool:
        """Whether the result has the faces that all meshes on the way had."""
        return len(self.topologies) == 1 and mesh.topology is self.topologies[0]

    def vertices(self) -> torch.Tensor:
        """Return the vertices as they are now, with their graph."""
        if self.latent.numel() and not float(self.latent.detach().abs().max()) <= FAR * self.unit:
            raise self._diverged()
        return self.latent if self.precondition is None else self.precondition.from_latent(self.latent)

    def _diverged(self) -> Exception:
        got = f"{self.settings.lr:g}, which throws them out by step {self.step}"
        return fail(_WHERE, "lr", "small enough to keep vertices and loss finite", got, "Make it smaller.")

    def best_mesh(self) -> Mesh:
        """Return the mesh of the best IoU so far; mended, unless its faces are the user's own."""
        mesh = Mesh(self.best.cpu(), self.topologies[self.best_topology])
        return refine.finished(mesh) if self.mends else mesh

    def run(self, callback: Callback | None, show: bool) -> None:
        """Take the steps that are left."""
        settings = self.settings
        bar = tqdm(total=settings.steps, initial=self.step, desc="fit-mesh", unit="step", disable=not show)
        with bar:
            while self.step < settings.steps and not self.patience.is_over:
                begin = time.perf_counter()
                record, mesh = self._advance()
                self.seconds += time.perf_counter() - begin
                if callback is not None:
                    callback(Progress(self.step, settings.steps, record["loss"], record, mesh))
                if self.step < settings.steps:
                    self.checkpoint.save(self.state)
                bar.set_postfix(loss=f"{record['loss']:.4f}", IoU=f"{self.best_iou:.4f}", refresh=False)
                bar.update()
            if self.moving is not None:
                self.views = self.moving.placed(self.views)
            with torch.no_grad():
                vertices = self.vertices()
                silhouette = self._silhouette(self.template.with_vertices(vertices), self.step - 1)
                self._measure(vertices, self.step, float(silhouette))
            bar.set_postfix(loss=f"{self.history[-1]['loss']:.4f}", IoU=f"{self.best_iou:.4f}")

    def _advance(self) -> tuple[dict[str, Any], Mesh]:
        """Take one step; return its record and the mesh it started from."""
        settings, step = self.settings, self.step
        if refine.is_due(settings, step):
            self._remesh()
        if self.moving is not None:
            self.views = self.moving.placed(self.views)
        vertices = self.vertices()
        mesh = self.template.with_vertices(vertices)
        if step % math.ceil(settings.steps / _SNAPSHOTS) == 0:
            self.snapshots.append(vertices.detach().clone())
            self.snapshot_topologies.append(len(self.topologies) - 1)
            self.snapshot_steps.append(step)
        silhouette = self._silhouette(mesh, step)
        iou = self._measure(vertices, step, float(silhouette.detach())) if step % settings.evaluate_every == 0 else None
        # On a smooth surface the sum of the Laplacian falls with the square of the edges' length, as 1 / V; the sum of
        # the flatness is that of creases, which are as sharp between small faces.
        laplacian = losses.laplacian(mesh, reduction="sum") * self.density / self.unit**2
        flatness = losses.flatness(mesh, reduction="sum")
        loss = silhouette + settings.laplacian * laplacian + settings.flatness_at(step) * flatness
        lr = settings.lr_at(step) * self.unit
        if lr / (1 - settings.betas[0]) > torch.finfo(self.latent.dtype).max:  # the optimisers' longest step
            raise self._diverged()
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        self.optimizer.zero_grad()
        if loss.requires_grad:  # not where the template has no faces: it is a result like any other
            loss.backward()
            self.optimizer.step()
            if self.moving is not None:
                self.moving.step(lr / (settings.lr * self.unit))
        terms = [term.detach() for term in (loss, silhouette, laplacian, flatness)]
        record: dict[str, Any] = {
            "step": step,
            **dict(zip(_TERMS, torch.stack(terms).tolist(), strict=True)),
            "scale": settings.scale_at(step),
            "iou": iou,
        }
        if not math.isfinite(record["loss"]):
            raise self._diverged()
        self.history.append(record)
        self.patience.see(record)
        self.step += 1
        return record, mesh.detach()

    def _silhouette(self, mesh: Mesh, step: int) -> torch.Tensor:
        """Return the loss of the silhouettes in the views of a step."""
        settings, views = self.settings, self._views(step)
        size = tuple(settings.samples * pixels for pixels in views.image_size)
        render = Renderer(
            (size[0], size[1]), settings.distribution, settings.scale_at(step), settings.tconorm, settings.coverage
        )
        area = views.alpha.sum().clamp_min(1.0)

        def share(mesh: Mesh, some: PosedImages) -> torch.Tensor:
            alpha = render(mesh, some.cameras).alpha
            if settings.samples > 1:
                alpha = torch.nn.functional.avg_pool2d(alpha[:, None], settings.samples)[:, 0]
            if settings.loss == "iou":
                return losses.iou(alpha.clamp(0, 1), some.alpha) * (len(some) / len(views))
            return (alpha - some.alpha).square().sum() / area

        return summed_by_turns(share, mesh, views, turns(len(views), (size[0], size[1])))

    def _measure(self, vertices: torch.Tensor, step: int, silhouette: float) -> float:
        iou = hard_iou(self.template.with_vertices(vertices.detach()), self.views.cameras, self.views.alpha)
        # Pixels that a hull's surface crosses may be counted by chance: there, the smooth loss says what is better.
        score = iou if self.settings.loss == "iou" else -silhouette
        if score > self.best_score:
            self.best_score, self.best_iou, self.best_step = score, iou, step
            self.best = vertices.detach().clone()
            self.best_topology = len(self.topologies) - 1
            if self.moving is not None:
                self.best_moves = self.moving.z.detach().clone()
        return iou

    def _views(self, step: int) -> PosedImages:
        count = self.settings.views_per_step
        if count is None or count >= len(self.views):
            return self.views
        # From seed and step alone, so that a resumed job draws the same.
        generator = torch.Generator().manual_seed(self.settings.seed * 1_000_003 + step)
        return self.views[torch.randperm(len(self.views), generator=generator)[:count].sort().values]

    def state(self) -> dict[str, Any]:
        """Return what a checkpoint holds; the step is the length of the history."""
        moments = {name: float(value) if name == "step" else value for name, value in self._moments().items()}
        return {
            "latent": self.latent.detach(),
            "moments": moments,
            "topologies": [topology.faces for topology in self.topologies[1:]],
            **({} if self.moving is None else {"cameras": self.moving.state(), "best_moves": self.best_moves}),
            **{name: getattr(self, name) for name in _KEPT},
        }

    def _moments(self) -> dict[str, Any]:
        """Return what the optimiser knows; nothing before the first step and where there are no faces."""
        moments: dict[str, Any] = self.optimizer.state[self.latent]
        return moments

    def _like(self) -> dict[str, Any]:
        """Return what a checkpoint's state must look like."""
        steps, vertices = Number(0, self.settings.steps), Like.of(self.latent)
        best = snapshot = vertices
        if self.settings.remesh_every:
            vertices, best, snapshot = (Like(vertices.dtype, (size, 3)) for size in "VWS")
        which = Number(0, self.settings.steps)
        names = ("exp_avg", "exp_avg_sq") if self.precondition is None else ("first", "second")
        record = {name: FINITE for name in ("loss", "iou_loss", "laplacian", "flatness", "scale")}
        cameras = {} if self.moving is None else self.moving.like(self.settings.steps)
        return {
            **cameras,
            "latent": vertices,
            "moments": {"step": Number(1.0, self.settings.steps), **dict.fromkeys(names, vertices)}
            if self.template.num_faces
            else {},
            "topologies": Many(Like(torch.int64, ("F", 3))),
            "best": best,
            "best_topology": which,
            "best_score": FINITE,
            "best_iou": Number(0.0, 1.0),
            "best_step": steps,
            "history": Many({**record, "step": steps, "iou": Number(0.0, 1.0, none=True)}),
            "snapshots": Many(snapshot, "snapshots"),
            "snapshot_topologies": Many(which, "snapshots"),
            "snapshot_steps": Many(steps, "snapshots"),
            "seconds": Number(0.0, FINITE.high),
        }

    def resume(self, wanted: bool) -> None:
        """Go on from a checkpoint, or remove it where a fresh start is wanted."""
        state = self.checkpoint.load(wanted, self._like())
        if state is None:
            return
        if state["topologies"]:
            vertices = torch.zeros_like(state["latent"])  # they follow from the latent coordinates
            meshes = [Mesh(vertices.new_zeros(int(f.max()) + 1, 3), f) for f in state["topologies"][:-1]]
            meshes.append(Mesh(vertices, state["topologies"][-1]))
            self.topologies += [mesh.topology for mesh in meshes]
            self._adopt(meshes[-1])
        with torch.no_grad():
            self.latent.copy_(state["latent"])
        moments = state["moments"]
        if moments:
            step = moments["step"]
            moments["step"] = torch.tensor(step) if self.precondition is None else int(step)
            self.optimizer.state[self.latent] = self._here(moments)
        if self.moving is not None:
            self.moving.restore(state["cameras"])
            self.best_moves = state["best_moves"]
        for name in _KEPT:
            setattr(self, name, self._here(state[name]) if name in ("best", "snapshots") else state[name])
        for record in self.history:
            self.patience.see(record)
        self.step = len(self.history)
