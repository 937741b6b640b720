# SPDX-License-Identifier: Apache-2.0
"""Recover a surface from a cloud of points as an atlas of charts, from file to meshes, pictures and figures."""

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

import geodiff
from geodiff.atlas.atlas import Atlas
from geodiff.atlas.beside import Beside
from geodiff.atlas.cloud import Cloud, read_cloud
from geodiff.atlas.confidence import WITHIN
from geodiff.atlas.fit import FAR, Fitter
from geodiff.atlas.fitted import FittedCharts
from geodiff.atlas.settings import Settings
from geodiff.modes import outside_autocast
from geodiff.scene.mesh import Mesh
from geodiff.tasks.atlas import outputs
from geodiff.tasks.atlas.preview import preview
from geodiff.tasks.atlas.result import FitAtlasResult
from geodiff.tasks.atlas.settings import FitAtlasSettings
from geodiff.tasks.atlas.stages import Stages, expected
from geodiff.tasks.checkpoint import FINITE, Checkpoint, Like, Many, Number, fingerprint
from geodiff.tasks.clouds import ENDINGS, read_cloud_file
from geodiff.tasks.device import job_device
from geodiff.tasks.lock import output_folder
from geodiff.tasks.progress import Callback, Progress, as_callback
from geodiff.tasks.team import Team
from geodiff.validation import as_tensor, choice, fail, floating

_WHERE = "fit_atlas"
_BAR = "{desc}{percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt} chunks [{elapsed}{postfix}]"
_UNSURE = 0.2  # share of points of low confidence from which on that is told
_MOST = 0.8  # share of a chart's points
_MESHES = ("ply", "obj", "stl", "glb")


@outside_autocast
def fit_atlas(
    points: Any,
    *,
    normals: Any = None,
    array: str | None = None,
    columns: str | None = None,
    noise_classes: bool = False,
    file_normals: bool = True,
    truth: Mesh | torch.Tensor | str | os.PathLike[str] | None = None,
    device: torch.device | str | None = None,
    settings: FitAtlasSettings | Settings | Mapping[str, Any] | None = None,
    output: str | os.PathLike[str] | None = None,
    resume: bool = True,
    callback: Callback | None = None,
    progress: bool = True,
    command: str | None = None,
    **changes: Any,
) -> FitAtlasResult:
    """Recover a surface from a cloud of points: with noise, without normals, open or closed.

    The cloud is covered by overlapping patches of one sheet each; a small network maps the unit square to each of them
    and stops at the noise; then neighbouring charts are brought to agree, turned to one side and trimmed to where the
    points are. Started by ``torchrun``, its processes share the charts and give the same atlas; the first of them
    writes the files.

    Args:
        points: (N, 3), or the path of a cloud: see `geodiff.tasks.clouds.read_cloud_file`.
        normals: (N, 3), pointing to one side, of any length; left out, those of the file, or estimated ones.
        array: which array of an ``.npz``.
        columns: what the columns of a table are, a word each, such as ``x,y,z,-,r,g,b``; ``nx,ny,nz`` are normals.
        noise_classes: keep the points that a LAS file calls noise (classes 7 and 18) or withheld.
        file_normals: use the normals of the file, if it has any; not where they do not all point to one side.
        truth: the true surface, only to be compared with: a mesh, points (T, 3), or the path of either.
        device: where charts are trained: "cpu", "cuda", "cuda:1", or "auto", a GPU if one works here; left out, where
            the points are. Neighbours, patches, matching and the result are the host's. A checkpoint goes on on any.
        settings: a `FitAtlasSettings`, a `geodiff.atlas.settings.Settings`, or a dictionary of fields; left out, the
            defaults.
        output: a folder, made where missing, for ``atlas.npz``, ``samples.ply`` (points, normals, confidence),
            ``charts.obj`` and ``charts.glb`` (all charts in one, with a texture layout), ``watertight.ply`` (see
            `geodiff.atlas.closed.closed_mesh`), ``pictures.png``, ``errors.png`` (needs Matplotlib) and
            ``metrics.json``. Files of an earlier fit are replaced, others left alone.
        resume: go on from the checkpoint in ``output``, if there is one, to bitwise the same result as without the
            interruption; False starts afresh. A finished job removes its checkpoint.
        callback: called after each chunk of charts with a `Progress`.
        progress: show a progress bar.
        command: the command line, to be noted in ``metrics.json``.
        **changes: fields of `FitAtlasSettings`, for instance ``target=60, widths=(128, 128)``.

    Returns:
        A `FitAtlasResult`.

    Raises:
        TypeError, ValueError: as each argument's check says; fewer than 16 distinct points, NaN, points on a line; a
            checkpoint that is damaged or of another job.
        FileNotFoundError: no such file.
        ImportError: LAS files without laspy.
        RuntimeError: a device that is not there.
        OSError: ``output`` cannot be written to, or the disk is full; ValueError: another process writes there.

    Example:
        >>> import torch, geodiff as gd
        >>> ball = torch.nn.functional.normalize(torch.randn(600, 3), dim=1)
        >>> fit = gd.fit_atlas(ball + 0.01 * torch.randn(600, 3), steps=30, rounds=1, progress=False)
        >>> found = fit.atlas.sample(1000)
        >>> bool((found.points.norm(dim=1) - 1).abs().mean() < 0.01)
        True
    """
    begin = time.perf_counter()
    settings = FitAtlasSettings.of(settings, changes)
    told = as_callback(_WHERE, callback)
    source = os.fspath(points) if isinstance(points, str | os.PathLike) else None
    placed = job_device(_WHERE, device, points.device if isinstance(points, torch.Tensor) else None)
    points, normals, said = _read(points, normals, array, columns, noise_classes, file_normals)
    given = len(points)
    if settings.preview:
        points, normals, settings, note = preview(points, normals, settings)
        said = (*said, note)
    known = None if truth is None else _truth(truth)
    # After the checks of the arguments, but before the work.
    with Team.join() as team, output_folder(_WHERE, output if team.leads else None) as folder:
        # Where there is another core, Poisson's equation is solved there while this process draws.
        closing = team.leads and folder is not None and settings.watertight and torch.get_num_threads() > 1
        with tqdm(bar_format=_BAR, disable=not (progress and team.leads)) as bar, Beside(closing) as beside:
            stages = Stages(bar)
            stages.plan(expected(len(points), settings, folder is not None, known is not None))
            stages.begin("cloud")
            cloud = read_cloud(points, normals, most=settings.max_points, seed=settings.seed)
            stages.begin("cover")
            job = _Job(cloud, settings, team, folder, stages, begin, placed)
            job.resume(resume)
            fit = job.run(told)
            stages.begin("orient")
            atlas = Atlas.from_fit(fit, normals=cloud.normals if cloud.given else None, seed=settings.seed)
            facts = {"source": source, "command": command, "given": given, "processes": team.size}
            result = FitAtlasResult(
                atlas=atlas,
                metrics=fit_metrics(atlas, fit, cloud, job, facts),
                notes=[*said, *fit.notes, *unsure(atlas)],
                files={},
                history=job.history,
                settings=settings,
                seconds=job.seconds,
                leads=team.leads,
            )
            if team.leads and (folder is not None or known is not None):
                result = outputs.finish(result, settings, known, folder, stages, lambda: job.seconds, beside)
            stages.end()
            result.metrics["speed"].setdefault("stages", stages.rounded())
            job.checkpoint.remove()
        shared = team.union({"metrics": result.metrics, "notes": result.notes} if team.leads else {})
    return dataclasses.replace(result, **shared, seconds=job.seconds)


class _Job:
    """The fit of the charts, and all that a checkpoint must hold of it."""

    def __init__(
        self,
        cloud: Cloud,
        settings: FitAtlasSettings,
        team: Team,
        folder: pathlib.Path | None,
        stages: Stages,
        begin: float,
        device: torch.device,
    ) -> None:
        self.team, self.stages = team, stages
        self.fitter = Fitter(cloud, settings, device)
        points = fingerprint([cloud.points, *([cloud.normals] if cloud.given else [])])
        inputs = {**settings.inputs(), "points_fingerprint": points}
        # A preview neither goes on from the checkpoint of a whole fit nor replaces it.
        self.checkpoint = Checkpoint(
            None if settings.preview else folder, _WHERE, inputs, settings.checkpoint_seconds, {"rate": "lr"}
        )
        self.history: list[dict[str, Any]] = []
        self.before, self.begin = 0.0, begin
        self.told = 0  # chunks that are in the history
        self.fitted = self.covered = self.seconds

    @property
    def seconds(self) -> float:
        """How long the job has taken so far, over all its parts."""
        return self.before + time.perf_counter() - self.begin

    def resume(self, wanted: bool) -> None:
        """Go on from the checkpoint, of whoever leads; or remove it where a fresh start is wanted."""
        state = self.checkpoint.load(wanted, self._like())
        if self.team.size > 1:
            state = self.team.union({"state": state} if self.team.leads else {})["state"]
        if state is not None:
            self.fitter.restore(state["fitter"])
            self.history, self.before = state["history"], state["seconds"]
            self.told = int(self.fitter.done.sum())

    def state(self) -> dict[str, Any]:
        """Return what a checkpoint holds."""
        return {"fitter": self.fitter.state(), "history": self.history, "seconds": self.seconds}

    def _like(self) -> dict[str, Any]:
        """Return what a checkpoint's state must look like."""
        counts = dict.fromkeys(("chunk", "chunks", "converged"), Number(0, sys.maxsize))
        seconds = Number(0.0, FINITE.high)
        return {
            "fitter": {name: Like.of(tensor) for name, tensor in self.fitter.state().items()},
            "history": Many({"stage": str, "loss": seconds, "seconds": seconds, **counts}),
            "seconds": seconds,
        }

    def run(self, callback: Callback | None) -> FittedCharts:
        """Fit all charts."""
        done = self.fitter.done
        bar, rank, size = self.stages.bar, self.team.rank, self.team.size
        bar.reset(total=done.numel())
        before = done.clone()

        def tell(stage: str, finished: int, chunks: int, converged: int, loss: float) -> None:
            # Chunks that a checkpoint brought along are told again, but belong to the history already.
            now = int(done.sum())
            bar.set_postfix(converged=f"{converged}/{len(self.fitter.cover)}", loss=f"{loss:.2e}", refresh=False)
            bar.update(now - bar.n)
            # Of this process's own chunks, without those that were done before it began.
            row = 0 if stage == "fit" else int(stage.split()[1])
            mine, known = done[row, rank::size], before[row, rank::size]
            if stage != self.stages.name:
                self.stages.begin(stage)
            self.stages.at(float((mine & ~known).sum()) / max(int((~known).sum()), 1))
            if now <= self.told:
                return
            self.told = now
            self.history.append({"stage": stage, "chunk": finished, "chunks": chunks, "converged": converged,
                                 "loss": loss, "seconds": round(self.seconds, 3)})  # fmt: skip
            if self.team.size == 1:
                self.save()
            if callback is not None:
                callback(Progress(now, done.numel(), loss, self.history[-1]))

        # One process saves after the record of a chunk, a team when all know what all have done.
        exchanged = None if self.team.size == 1 else (lambda fitter: self.save(now=True))
        fit = self.fitter.run(tell, exchanged, self.team, self.checkpoint.due)
        self.fitted = self.seconds
        return fit

    def save(self, now: bool = False) -> None:
        """Save a checkpoint, if it is time to, or at once."""
        self.checkpoint.save(self.state, now=now or bool(self.fitter.done.all()))


def fit_metrics(atlas: Atlas, fit: FittedCharts, cloud: Cloud, job: _Job, facts: dict[str, Any]) -> dict[str, Any]:
    """Return what is known of a fit without the true surface; distances are relative to the diagonal."""
    good = ~atlas.outlier
    off = (atlas.points - atlas.fitted_points()).norm(dim=1)[good].double() / cloud.diagonal
    steps = int(fit.steps.sum())
    converged, unfitted = down_to_noise(atlas, fit, cloud if job.fitter.settings.noise is None else None)
    seconds = max(job.fitted - job.covered, 1e-9)
    return {
        "points": {
            "given": facts["given"],
            "fitted": int(good.sum()),
            "duplicates": cloud.duplicates,
            "outliers": int(atlas.outlier.sum()),
            "unfitted": unfitted,
            "normals": "given" if cloud.given else "estimated",
        },
        "diagonal": cloud.diagonal,
        "noise": fit.noise,
        "noise_over_diagonal": fit.noise / cloud.diagonal,
        "distances_are": "relative to the diagonal of the points' box",
        "points_to_surface": {
            "mean": float(off.mean()),
            "rms": float(off.square().mean().sqrt()),
            "p95": float(off.quantile(0.95)) if len(off) < 1 << 24 else None,
            "max": float(off.max()),
        },
        "disagreement": atlas.disagreement / cloud.diagonal,
        "confidence": float(atlas.confidence[good].mean()),
        "tolerance": None if atlas.tolerance is None else float(atlas.tolerance[good].median()) / cloud.diagonal,
        "area": atlas.domain.surface_area,
        "charts": {
            "count": len(atlas),
            "converged": converged,
            "folded": fit.folded,
            "memberships": len(atlas.chart),
            "parameters": sum(p.numel() for p in atlas.charts.parameters()),
            "steps_mean": steps / len(atlas),
        },
        "speed": {
            "cover_seconds": job.covered,
            "fit_seconds": seconds,
            "charts_x_steps_per_second": steps / seconds,
            "peak_memory_mb": peak_memory_mb(),
            "threads": torch.get_num_threads(),
            "processes": facts["processes"],
            "device": str(job.fitter.device),
        },
        "settings": job.fitter.settings.as_dict(),
        "preview": job.fitter.settings.preview,
        "source": facts["source"],
        "command": facts["command"],
        "version": geodiff.__version__,
        "torch": torch.__version__,
    }


def down_to_noise(atlas: Atlas, fit: FittedCharts, cloud: Cloud | None) -> tuple[int, int]:
    """Return how many charts are down to the noise, and how many points are farther than 4 σ from all their charts.

    σ is the noise of each place, as the cloud tells it, if given; but never less than the confidence takes it for: of a
    scan without noise, no chart would get there. A chart is there where four fifths of its points are within 2 σ.
    """
    point, chart = fit.cover.point, fit.cover.chart
    sigma = torch.maximum(fit.local_noise, as_tensor(_WHERE, "tolerance", atlas.tolerance).double() / WITHIN)
    if cloud is not None:
        sigma = torch.maximum(sigma, cloud.noise.local)
    count = torch.bincount(chart, minlength=len(atlas))
    off = (fit.predicted - fit.cover.points[point]).norm(dim=1).double()
    near = sigma.new_zeros(len(atlas)).index_add(0, chart, (off <= WITHIN * sigma[point]).double())
    least = torch.full_like(sigma, math.inf).scatter_reduce(0, point, off, "amin")
    good = ~fit.cover.outlier
    far = least[good] > FAR * sigma[good].clamp(min=float(least[good].median()))
    return int((fit.converged | (near >= _MOST * count)).sum()), int(far.sum())


def unsure(atlas: Atlas) -> list[str]:
    """Return a note where much of the surface is likely not the true one."""
    sure = atlas.confidence[~atlas.outlier]
    share = float((sure < 0.5).double().mean())
    if share <= _UNSURE:
        return []
    note = (
        f"{share:.0%} of the points are likely farther than two standard deviations of the noise from the true surface"
    )
    return [f"{note}, as where sheets merge: see the confidence in samples.ply and pictures.png."]


def peak_memory_mb() -> float | None:
    """Return the most memory that this process has held, where the system tells."""
    try:
        import resource
    except ImportError:  # Windows
        return None
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(most / (1 << 20 if sys.platform == "darwin" else 1 << 10), 1)


def _read(
    points: Any, normals: Any, array: str | None, columns: str | None, noise_classes: bool, file_normals: bool
) -> tuple[Any, Any, tuple[str, ...]]:
    """Return points and normals, from a file or as they came, and what is to be said of the file."""
    if not isinstance(points, str | os.PathLike):
        for name, value in {"array": array, "columns": columns}.items():
            if value is not None:
                raise fail(_WHERE, name, "left out where the points are no file", repr(value))
        points = as_tensor(_WHERE, "points", points)
        if points.ndim != 2:
            raise fail(_WHERE, "points", "of shape (N, 3)", points, "One row a point.")
        return points, normals, ()
    read = read_cloud_file(points, array=array, columns=columns, noise_classes=noise_classes)
    return read.points, normals if normals is not None or not file_normals else read.normals, read.notes


def _truth(truth: Any) -> Mesh | torch.Tensor:
    """Return the true surface: a mesh with faces, or points."""
    if isinstance(truth, str | os.PathLike):
        path = pathlib.Path(truth)
        ending = choice(_WHERE, "truth", path.suffix.lower().removeprefix("."), (*dict.fromkeys(_MESHES + ENDINGS),))
        if not path.is_file():
            raise fail(_WHERE, "truth", "a file that exists", str(path), error=FileNotFoundError)
        if ending in _MESHES:
            truth = Mesh.load(path)
            truth = truth if truth.num_faces else truth.vertices
        else:
            truth = read_cloud_file(path).points
    if isinstance(truth, Mesh):
        if truth.batch_shape or not truth.num_faces:
            raise fail(_WHERE, "truth", "one mesh with faces, or points (T, 3)", truth.vertices)
        return truth.detach()
    return floating(_WHERE, "truth", as_tensor(_WHERE, "truth", truth).detach(), ("T", 3))
