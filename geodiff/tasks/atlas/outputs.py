# SPDX-License-Identifier: Apache-2.0
"""What fit_atlas makes of an atlas: samples, meshes, figures against the truth, and the files of all that."""

import dataclasses
import importlib.util
import json
import pathlib
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import torch

from geodiff.atlas.atlas import Atlas
from geodiff.atlas.beside import Beside
from geodiff.atlas.closed import Closed, begin_closing, depth_for
from geodiff.atlas.metrics import surface_metrics
from geodiff.atlas.sample import Samples
from geodiff.scene.atomic import replacing
from geodiff.scene.mesh import Mesh
from geodiff.tasks.atlas import pictures
from geodiff.tasks.atlas.result import FitAtlasResult
from geodiff.tasks.atlas.settings import FitAtlasSettings
from geodiff.tasks.atlas.stages import Stages
from geodiff.tasks.clouds import write_ply

_WHERE = "fit_atlas"
_LOST = 1e-5  # of the diagonal, from which the rounding of float32 files matters
_CONVERGED = 0.5  # share of charts
_UNFITTED = 0.02  # share of points
_CONFIDENCE = 0.5  # mean of the points
CONTRADICTION = "The given normals contradict each other"  # as `read_cloud` tells it
NAMES = {
    "atlas": "atlas.npz",
    "samples": "samples.ply",
    "obj": "charts.obj",
    "glb": "charts.glb",
    "watertight": "watertight.ply",
    "pictures": "pictures.png",
    "errors": "errors.png",
    "metrics": "metrics.json",
}


@dataclasses.dataclass
class _Surface:
    """What an atlas gives out."""

    samples: Samples
    mesh: Mesh
    closed: Closed | None

    @property
    def watertight(self) -> Mesh | None:
        return None if self.closed is None else self.closed.mesh


@dataclasses.dataclass(frozen=True)
class _Drawn:
    """What is drawn beside the watertight mesh: all but that; and a PNG of errors to come, if Matplotlib is there."""

    overview: pictures.Overview
    errors: Future[bytes] | None


def finish(
    result: FitAtlasResult,
    wanted: FitAtlasSettings,
    truth: Mesh | torch.Tensor | None,
    folder: pathlib.Path | None,
    stages: Stages,
    seconds: Callable[[], float],
    beside: Beside,
) -> FitAtlasResult:
    """Return the result with figures against the truth, if that is known, and with files, if there is a folder.

    Args:
        result: with the atlas.
        wanted: what to make.
        truth: the true surface.
        folder: to write to.
        stages: the clock of the job.
        seconds: how long the job has taken so far.
        beside: a process that solves Poisson's equation while this one measures and draws.
    """
    with ThreadPoolExecutor(1) as aside:
        return _finish(result, wanted, truth, folder, stages, seconds, beside, aside)


def _finish(
    result: FitAtlasResult,
    wanted: FitAtlasSettings,
    truth: Mesh | torch.Tensor | None,
    folder: pathlib.Path | None,
    stages: Stages,
    seconds: Callable[[], float],
    beside: Beside,
    aside: ThreadPoolExecutor,
) -> FitAtlasResult:
    atlas = result.atlas
    stages.begin("samples")
    samples = atlas.sample(wanted.samples, seed=atlas.seed)
    closing = None
    if folder is not None and wanted.watertight:
        facing = samples.normals.norm(dim=1) > 0.5
        depth = wanted.depth or depth_for(atlas.fitted_points()[~atlas.outlier], atlas.seed)
        closing = begin_closing(samples.points[facing], samples.normals[facing], depth=depth, beside=beside,
                                open_boundaries=wanted.open_boundaries,
                                keep_components=wanted.keep_components)  # fmt: skip
    stages.begin("mesh")
    found = _Surface(samples, atlas.to_mesh(wanted.refine), None)
    metrics = dict(result.metrics)
    if truth is not None:
        stages.begin("truth")
        metrics["truth"] = _against(truth, atlas, found, wanted)
    if folder is None:
        return _judged(result, metrics, found, wanted)
    stages.begin("pictures")
    drawn = _draw(atlas, found.mesh, metrics, result.settings.up, aside)
    files = _Files(folder, found, closing is not None, drawn)
    # All that does not need the watertight mesh is written while that is made.
    with replacing(files.paths["metrics"], _WHERE) as part:
        stages.begin("files")
        files.write_early(atlas, part.parent)
        if closing is not None:
            stages.begin("watertight")
            found.closed = closing()
            if truth is not None:
                stages.begin("truth")
                metrics["truth"]["watertight"] = _compared(found.closed.mesh, None, truth, atlas, wanted)
        result = _judged(result, metrics, found, wanted)
        stages.begin("files")
        files.write_late(part.parent)
        stages.end()
        notes = [*result.notes, *files.notes]
        metrics = dict(result.metrics)
        metrics["speed"] = {**metrics["speed"], "stages": stages.rounded()}
        metrics |= {"seconds": round(seconds(), 3), "notes": notes, "history": result.history}
        part.write_text(json.dumps(metrics, indent=1) + "\n", encoding="utf-8")
    for kind, name in NAMES.items():
        if kind not in files.paths:
            (folder / name).unlink(missing_ok=True)  # of an earlier fit: it would pass for this one's
    return dataclasses.replace(result, metrics=metrics, notes=notes, files=files.paths)


def _judged(
    result: FitAtlasResult, metrics: dict[str, Any], found: _Surface, wanted: FitAtlasSettings
) -> FitAtlasResult:
    """Return the result with what was found, and what it misses."""
    missed = missed_checks(result)
    failed = [*missed, *failed_checks(found.closed, wanted)]
    told = [f"Not to be relied on: {text}." for text in missed if text != CONTRADICTION]
    notes = [*result.notes, *told, *([] if found.closed is None else found.closed.notes)]
    return dataclasses.replace(
        result, metrics={**metrics, "surface": _facts(found), "failed_checks": failed}, notes=notes
    )


def _draw(atlas: Atlas, mesh: Mesh, metrics: dict[str, Any], up: str | None, aside: ThreadPoolExecutor) -> _Drawn:
    terrain = pathlib.Path(metrics["source"] or "").suffix.lower() in (".las", ".laz")
    overview = pictures.Overview(atlas, mesh, up=up or ("z" if terrain else "y"))
    if importlib.util.find_spec("matplotlib") is None:
        return _Drawn(overview, None)
    # Numbers alone, none of torch's modes in another thread.
    off = pictures.signed_distances(atlas)
    return _Drawn(overview, aside.submit(pictures.errors, pictures.blank(), off, dict(metrics)))


def missed_checks(result: FitAtlasResult) -> list[str]:
    """Return what the fit itself promises and does not hold."""
    charts, points, confidence = (result.metrics[name] for name in ("charts", "points", "confidence"))
    missed = []
    if charts["converged"] < _CONVERGED * charts["count"]:
        missed.append(f"{charts['converged']} of {charts['count']} charts are down to the noise")
    if points["unfitted"] > _UNFITTED * points["fitted"]:
        missed.append(f"{points['unfitted']} of {points['fitted']} points are farther than 4 σ from all charts")
    if points["outliers"] > points["fitted"]:
        missed.append(
            f"{points['outliers']} of {points['outliers'] + points['fitted']} points were left out as isolated"
        )
    if confidence < _CONFIDENCE:
        missed.append(f"the mean confidence is {confidence:.2f}, below {_CONFIDENCE}")
    if any(note.startswith(CONTRADICTION) for note in result.notes):
        missed.append(CONTRADICTION)
    return missed


def failed_checks(closed: Closed | None, wanted: FitAtlasSettings) -> list[str]:
    """Return what a surface promises and does not hold."""
    if closed is None:
        return []
    wrong = [closed.faults.told(wanted.open_boundaries)]
    wrong += [f"{closed.crossings} pairs of faces cross"] if closed.crossings else []
    return [f"{NAMES['watertight']}: {text}" for text in wrong if text]


def _facts(found: _Surface) -> dict[str, Any]:
    mesh, closed = found.mesh, found.closed
    facts: dict[str, Any] = {
        "samples": len(found.samples.points),
        "charts_vertices": mesh.num_vertices,
        "charts_faces": mesh.num_faces,
        "charts_boundary_edges": len(mesh.boundary_edges),
    }
    if closed is not None:
        facts |= {
            "watertight_vertices": closed.mesh.num_vertices,
            "watertight_faces": closed.mesh.num_faces,
            "watertight_by": closed.way,
            "watertight_depth": closed.depth,
            **{f"watertight_{name}": n for name, n in dataclasses.asdict(closed.faults).items()},
            "watertight_self_intersections": closed.crossings,
            "watertight_components": closed.components,
            "watertight_parts_found": closed.parts,
            "watertight_points_kept": closed.points_kept,
            "watertight_area_invented": closed.invented,
        }
    return facts


def _against(truth: Mesh | torch.Tensor, atlas: Atlas, found: _Surface, wanted: FitAtlasSettings) -> dict[str, Any]:
    """Return the figures of `surface_metrics` for what went in and for what came out, but the watertight mesh."""
    good = ~atlas.outlier
    outputs: dict[str, tuple[Any, Any]] = {
        "input": (atlas.points[good], None),
        "fitted_points": (atlas.fitted_points()[good], None),
        "samples": (found.samples.points, found.samples.normals),
        "charts": (found.mesh, None),
    }
    figures: dict[str, Any] = {"distances_are": "relative to the diagonal of the truth's box"}
    for name, (surface, normals) in outputs.items():
        figures[name] = _compared(surface, normals, truth, atlas, wanted, curve=name == "samples")
    figures["accuracy_over_input"] = figures["fitted_points"]["accuracy"]["mean"] / max(
        figures["input"]["accuracy"]["mean"], 1e-300
    )
    return figures


def _compared(
    surface: Any, normals: Any, truth: Mesh | torch.Tensor, atlas: Atlas, wanted: FitAtlasSettings, curve: bool = False
) -> dict[str, Any]:
    one = surface_metrics(surface, truth, output_normals=normals, samples=wanted.samples, seed=atlas.seed).as_dict()
    return one if curve else {name: value for name, value in one.items() if name != "curve"}


class _Files:
    """What is written to a folder beside the others before all are moved, metrics.json last.

    Attributes:
        paths: of the files in the end, by their kinds.
        notes: what is to be said of them.
    """

    def __init__(self, folder: pathlib.Path, found: _Surface, closed: bool, drawn: _Drawn) -> None:
        self._found, self._drawn = found, drawn
        self.paths = {kind: folder / name for kind, name in NAMES.items()}
        self.notes: list[str] = []
        if not closed:
            del self.paths["watertight"]
        if drawn.errors is None:
            self.notes.append(f'{NAMES["errors"]} is left out: it needs Matplotlib, pip install "geodiff[plot]"')
            del self.paths["errors"]

    def write_early(self, atlas: Atlas, folder: pathlib.Path) -> None:
        """Write what the watertight mesh is not in."""
        self._shift, note = _shift(atlas)
        if note:
            self.notes.append(note)
        atlas.save(folder / NAMES["atlas"])
        samples = self._found.samples
        columns = [samples.points, samples.normals, samples.confidence[:, None]]
        names = ("x", "y", "z", "nx", "ny", "nz", "confidence")
        write_ply(folder / NAMES["samples"], dict(zip(names, torch.cat(columns, 1).T, strict=True)), _WHERE)
        self._found.mesh.save(folder / NAMES["obj"])
        _moved(self._found.mesh, self._shift).save(folder / NAMES["glb"])

    def write_late(self, folder: pathlib.Path) -> None:
        """Write the watertight mesh, and the pictures."""
        closed = self._found.watertight
        if closed is not None:
            _moved(closed, self._shift).save(folder / NAMES["watertight"])
        page = self._drawn.overview.page(closed)
        page.save(folder / NAMES["pictures"], format="PNG", compress_level=3)
        if self._drawn.errors is not None:
            (folder / NAMES["errors"]).write_bytes(self._drawn.errors.result())


def _shift(atlas: Atlas) -> tuple[torch.Tensor, str]:
    """Return how far to move what is written in single precision, and a note that says so; zero where it fits."""
    low, high = atlas.points.amin(0), atlas.points.amax(0)
    rounding = float(torch.maximum(low.abs(), high.abs()).max()) * 2.0**-24
    if rounding <= _LOST * float((high - low).norm()):
        return torch.zeros_like(low), ""
    shift = (low + high).div(2).round()
    text = ", ".join(f"{x:.0f}" for x in shift.tolist())
    names = f"{NAMES['glb']} and {NAMES['watertight']}"
    return shift, f"{names} are moved by −({text}): these formats keep seven digits only."


def _moved(mesh: Mesh, shift: torch.Tensor) -> Mesh:
    return mesh.with_vertices(mesh.vertices - shift.to(mesh.vertices)) if bool(shift.any()) else mesh
