# SPDX-License-Identifier: Apache-2.0
"""Fit a NURBS surface to a grid of points, a field of heights or an unordered cloud, from file to files."""

import contextlib
import dataclasses
import os
import pathlib
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from geodiff.modes import outside_autocast
from geodiff.splines.fit import fit_surface
from geodiff.splines.fit_unordered import fit_cloud
from geodiff.tasks.clouds import ENDINGS, finite, load
from geodiff.tasks.device import job_device
from geodiff.tasks.lock import output_folder
from geodiff.tasks.nurbs import outputs, spans
from geodiff.tasks.nurbs.result import FitNURBSResult
from geodiff.tasks.nurbs.settings import FitNURBSSettings
from geodiff.tasks.progress import Callback, Progress, as_callback
from geodiff.validation import as_tensor, describe, fail

_WHERE = "fit_nurbs"


@outside_autocast
def fit_nurbs(
    points: Any,
    *,
    array: str | None = None,
    columns: str | None = None,
    noise_classes: bool = False,
    device: torch.device | str | None = None,
    settings: FitNURBSSettings | Mapping[str, Any] | None = None,
    output: str | os.PathLike[str] | None = None,
    callback: Callback | None = None,
    progress: bool = True,
    command: str | None = None,
    **changes: Any,
) -> FitNURBSResult:
    """Fit a NURBS surface to points by least squares, and write surface, pictures and figures.

    Grids and heights go through `geodiff.splines.fit.fit_surface`, at equally spaced parameters; clouds through
    `geodiff.splines.fit_cloud`, which finds the parameters too. Runs take seconds to a few minutes, so there
    are no checkpoints. Files are written together once the fit is done: all of them, or, if it fails, none, and those
    of an earlier run stay as they were.

    Args:
        points: a grid (N, M, 3), heights (N, M), a cloud (N, 3); or the path of one: ``.npy``, ``.npz``, or a cloud as
            `geodiff.tasks.clouds.read_cloud_file` reads it. Points of a cloud that are not finite are dropped.
        array: which array of a ``.npz``; it may be left out where there is only one, or one named points or elevation.
        columns: what the columns of a table are, a word each, such as ``x,y,z,-,r,g,b``.
        noise_classes: keep the points that a LAS file calls noise (classes 7 and 18) or withheld.
        device: where the surface that is found lives: "cpu", "cuda", "cuda:1", or "auto", a GPU if one works here; left
            out, where the points are. The fit itself is the host's: least squares in double precision, and trees.
        settings: a `FitNURBSSettings`, or a dictionary of its fields; left out, the defaults.
        output: a folder, made where missing, for ``surface.json`` and other ``formats``, ``surface.png`` (with knot
            lines), ``error.png`` (needs Matplotlib: ``pip install geodiff[plot]``) and ``metrics.json``.
        callback: called after each iteration of a free fit or of a cloud's with a `Progress`; what it raises ends it.
        progress: show a progress bar.
        command: the command line, to be noted in ``metrics.json``.
        **changes: fields of `FitNURBSSettings`, for instance ``control_shape=(5, 6), free_knots=True``.

    Returns:
        A `FitNURBSResult`.

    Raises:
        TypeError, ValueError: as each argument's check says; points that are not finite or too few.
        FileNotFoundError: no such file.
        ImportError: a format whose library is not installed.
        RuntimeError: a device that is not there.
        OSError: ``output`` cannot be written to, or the disk is full; ValueError: another process writes there.

    Example:
        >>> import torch
        >>> x, y = torch.meshgrid(torch.linspace(0, 1, 20), torch.linspace(0, 2, 30), indexing="ij")
        >>> fit = fit_nurbs(torch.stack([x, y, x * y], -1), control_shape=(4, 5), progress=False)
        >>> fit.kind, fit.max < 1e-6
        ('grid', True)
    """
    settings = FitNURBSSettings.of(settings, changes)
    told = as_callback(_WHERE, callback)
    source = os.fspath(points) if isinstance(points, str | os.PathLike) else None
    notes: list[str] = []
    if source is None:
        for name, value in {"array": array, "columns": columns}.items():
            if value is not None:
                raise fail(_WHERE, name, "left out where the points are no file", repr(value))
        data = as_tensor(_WHERE, "points", points)
        placed = job_device(_WHERE, device, data.device)
    else:
        placed = job_device(_WHERE, device)
        data, notes = _read(source, array, columns, noise_classes)
    kind, data = _arranged(data, settings.kind, settings.spacing)
    free: dict[str, Any] = {"free_knots": settings.free_knots, "rational": settings.rational}
    if kind == "cloud":
        for name, asked in free.items():
            if asked:
                fix = "Clouds are fitted with uniform knots and without weights."
                raise fail(_WHERE, name, "left out for a cloud", "True", fix)
    elif settings.trim > 0:
        fix = "Pass the points in no order, (N, 3), with kind='cloud'."
        raise fail(_WHERE, "trim", "left out for a grid and for heights", f"{settings.trim}", fix)
    with _folder(output) as folder:
        begin = time.perf_counter()
        with tqdm(desc="fit-nurbs", unit="step", disable=not progress) as bar:

            def tell(iteration: int, objective: float) -> None:
                bar.set_postfix(objective=f"{objective:.4g}", refresh=False)
                bar.update()
                if told is not None:
                    told(Progress(iteration, None, objective, {"step": iteration, "loss": objective}))

            common: dict[str, Any] = {"degree": settings.degree, "callback": tell}
            if settings.smoothing is not None:
                common["smoothing"] = settings.smoothing
            if kind == "cloud":
                fit = fit_cloud(data, settings.control_shape, trim=settings.trim, **common)
            else:
                if any(free.values()):
                    common |= {"starts": settings.starts, "seed": settings.seed}
                fit = fit_surface(data, settings.control_shape, **free, **common)
        seconds = time.perf_counter() - begin
        counted = data.reshape(-1, 3) if fit.kept is None else data[fit.kept]
        low, high = counted.amin(0), counted.amax(0)
        at = fit.parameters if fit.kept is None else [u[fit.kept] for u in fit.parameters]
        empty = spans.empty(fit.surface, at) if kind == "cloud" else []
        if fit.kept is not None:
            notes = [*notes, f"{len(data) - len(counted)} of {len(data)} points are left out as outliers (trim)."]
        result = FitNURBSResult(
            surface=fit.surface.detach(),
            kind=kind,
            points=data,
            errors=fit.errors.detach(),
            parameters=tuple(u.detach() for u in fit.parameters),
            mse=float(fit.mse),
            rms=fit.rms,
            max=fit.max,
            kept=fit.kept,
            diagonal=float((high - low).norm()),
            seconds=seconds,
            iterations=int(fit.iterations),
            settings=settings,
            empty_spans=empty,
            notes=[*notes, *spans.notes(empty, fit.surface)],
        )
        if folder is not None:
            facts = {
                "source": source,
                "device": str(placed),
                "command": command,
                "message": fit.message,
                "converged": fit.converged,
            }
            result = outputs.write_outputs(result, folder, facts)
    return result if placed.type == "cpu" else dataclasses.replace(result, surface=result.surface.to(placed))


def read_points(
    path: str | os.PathLike[str],
    array: str | None = None,
    *,
    columns: str | None = None,
    noise_classes: bool = False,
) -> torch.Tensor:
    r"""Read a grid, heights or a cloud from a file, as `fit_nurbs` takes it; float64.

    Raises:
        FileNotFoundError: no such file.
        ValueError: an unknown ending, a damaged file, one without points, an array that is not there.

    Example:
        >>> import pathlib, tempfile
        >>> path = pathlib.Path(tempfile.mkdtemp()) / "three.csv"
        >>> _ = path.write_text("x,y,z\n0,0,0\n1,0,0\n0,1,0.5\n")
        >>> read_points(path).shape
        torch.Size([3, 3])
    """
    return _read(path, array, columns, noise_classes)[0]


def _read(
    path: str | os.PathLike[str], array: str | None, columns: str | None, noise_classes: bool
) -> tuple[torch.Tensor, list[str]]:
    values, _, notes = load(_WHERE, path, array, ENDINGS, columns, noise_classes)
    if pathlib.Path(path).suffix.lower() not in (".npy", ".npz") and len(values):  # whose arrays may be grids
        points, _, lost = finite(_WHERE, path, values)
        return points, [*notes, *lost]
    return torch.from_numpy(np.array(values, dtype=np.float64, order="C")), notes


def _arranged(data: torch.Tensor, kind: str, spacing: Sequence[float]) -> tuple[str, torch.Tensor]:
    """Decide what the points are; return them as float64 with three coordinates, heights as points over their grid."""
    shape = tuple(data.shape)
    if kind == "auto":
        kind = "grid" if len(shape) == 3 else "cloud" if len(shape) == 2 and shape[1] == 3 else "heights"
    wanted = {"grid": "(N, M, 3)", "heights": "(N, M)", "cloud": "(N, 3)"}[kind]
    if len(shape) != (3 if kind == "grid" else 2) or (kind != "heights" and shape[-1] != 3):
        fix = "A grid is (N, M, 3), heights (N, M), a cloud (N, 3)."
        raise fail(_WHERE, "points", f"of shape {wanted} for kind {kind!r}", describe(data), fix)
    if data.is_complex() or data.dtype == torch.bool:
        raise fail(_WHERE, "points", "real numbers", describe(data), error=TypeError)
    if data.numel() == 0:
        raise fail(_WHERE, "points", "some points", "none")
    data = data.detach().to("cpu", torch.float64)
    bad = int((~torch.isfinite(data)).sum())
    if bad:
        fix = "Drop them from a cloud; fill holes in a grid, or pass the points that are there as a cloud."
        raise fail(_WHERE, "points", "finite", f"{bad} of {data.numel()} numbers that are not", fix)
    if kind == "heights":
        x, y = (torch.arange(n, dtype=torch.float64) * float(step) for n, step in zip(shape, spacing, strict=True))
        data = torch.stack([*torch.meshgrid(x, y, indexing="ij"), data], -1)
    return kind, data


@contextlib.contextmanager
def _folder(output: str | os.PathLike[str] | None) -> Iterator[pathlib.Path | None]:
    """Make the output folder before the work starts; take it away again if that fails and nothing is in it."""
    if output is None:
        yield None
        return
    made = not pathlib.Path(output).exists()
    try:
        with output_folder(_WHERE, output) as folder:
            yield folder
    except BaseException:
        if made:
            with contextlib.suppress(OSError):
                pathlib.Path(output).rmdir()
        raise
