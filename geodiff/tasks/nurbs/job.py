# SPDX-License-Identifier: Apache-2.0
"""Fit a NURBS surface to a grid of points, a field of heights or an unordered cloud, from file to files."""

import contextlib
import importlib.util
import os
import pathlib
import time
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from geodiff.modes import outside_autocast
from geodiff.splines.fit import fit_surface
from geodiff.splines.fit_unordered import fit_cloud
from geodiff.tasks.clouds import load
from geodiff.tasks.lock import output_folder
from geodiff.tasks.nurbs import outputs
from geodiff.tasks.nurbs.outputs import FORMATS
from geodiff.tasks.nurbs.result import FitNURBSResult
from geodiff.validation import as_tensor, choice, describe, fail, integer, number, positive, seed_number

KINDS = ("auto", "grid", "heights", "cloud")
_NEEDS = {"3dm": ("rhino3dm", "cad"), "igs": ("OCP", "cad"), "stp": ("OCP", "cad")}
_ENDINGS = ("npy", "npz", "ply", "obj", "xyz", "csv", "txt")
_WHERE = "fit_nurbs"


@outside_autocast
def fit_nurbs(
    points: Any,
    *,
    kind: str = "auto",
    array: str | None = None,
    spacing: tuple[float, float] = (1.0, 1.0),
    control: tuple[int, int] = (8, 8),
    degree: tuple[int, int] = (3, 3),
    free_knots: bool = False,
    rational: bool = False,
    smoothing: float | None = None,
    starts: int = 1,
    seed: int = 0,
    output: str | os.PathLike[str] | None = None,
    formats: Sequence[str] = ("json", "obj"),
    progress: bool = True,
    command: str | None = None,
) -> FitNURBSResult:
    """Fit a NURBS surface to points by least squares, and write surface, pictures and figures.

    Grids and heights go through `geodiff.splines.fit.fit_surface`, at equally spaced parameters; clouds through
    `geodiff.splines.fit_cloud`, which finds the parameters too. Runs take seconds to a few minutes, so there
    are no checkpoints. Files are written together once the fit is done: all of them, or, if it fails, none, and those
    of an earlier run stay as they were.

    Args:
        points: a grid (N, M, 3), heights (N, M), a cloud (N, 3); or the path of one: ``.npy``, ``.npz``, ``.ply``,
            ``.obj`` (its vertices), or ``.xyz``, ``.csv``, ``.txt`` with x, y, z first in each row.
        kind: ``"grid"``, ``"heights"``, ``"cloud"``, or ``"auto"``: by the shape; (N, 3) is a cloud.
        array: which array of a ``.npz``; it may be left out where there is only one, or one named points or elevation.
        spacing: of heights: the distance of neighbours along the first axis, x, and the second, y, in their unit.
        control: (K1, K2) control points.
        degree: (P1, P2).
        free_knots: let the interior knots move; for grids and heights.
        rational: let the weights move, within [0.1, 10]; for grids and heights.
        smoothing: weight of the bending energy, ≥ 0 as `fit_surface` defines it (left out, 0), > 0 as `fit_cloud` does
            (left out, its own default).
        starts: of free fits: one from uniform knots, the others random; the best is the result.
        seed: of the random starts.
        output: a folder, made where missing, for ``surface.json`` and other ``formats``, ``surface.png`` (with knot
            lines), ``error.png`` (needs Matplotlib: ``pip install geodiff[plot]``) and ``metrics.json``.
        formats: ``"json"`` (always written), ``"3dm"``, ``"igs"``, ``"stp"`` (these need ``geodiff[cad]``); and as
            triangles ``"obj"``, ``"ply"``, ``"stl"``, ``"glb"``.
        progress: show a progress bar.
        command: the command line, to be noted in ``metrics.json``.

    Returns:
        A `FitNURBSResult`.

    Raises:
        TypeError, ValueError: as each argument's check says; points that are not finite or too few.
        FileNotFoundError: no such file.
        ImportError: a format whose library is not installed.
        OSError: ``output`` cannot be written to, or the disk is full; ValueError: another process writes there.

    Example:
        >>> import torch
        >>> x, y = torch.meshgrid(torch.linspace(0, 1, 20), torch.linspace(0, 2, 30), indexing="ij")
        >>> fit = fit_nurbs(torch.stack([x, y, x * y], -1), control=(4, 5), progress=False)
        >>> fit.kind, fit.max < 1e-6
        ('grid', True)
    """
    formats = _formats(formats)
    choice(_WHERE, "kind", kind, KINDS)
    # Also where the fit has no use for them: what is written into metrics.json has a meaning.
    starts = integer(_WHERE, "starts", starts, 1, 10**6)
    seed = seed_number(_WHERE, seed)
    if smoothing is not None:
        smoothing = number(_WHERE, "smoothing", smoothing, 0, 1e30)
    settings = {
        "kind": kind,
        "control": list(control),
        "degree": list(degree),
        "free_knots": free_knots,
        "rational": rational,
        "smoothing": smoothing,
        "starts": starts,
        "seed": seed,
        "spacing": list(spacing),
    }
    source = os.fspath(points) if isinstance(points, str | os.PathLike) else None
    data = as_tensor(_WHERE, "points", points) if source is None else read_points(source, array)
    _spacing(spacing)
    kind, data = _arranged(data, kind, spacing)
    if kind == "cloud":
        for name, asked in (("free_knots", free_knots), ("rational", rational)):
            if asked:
                fix = "Clouds are fitted with uniform knots and without weights."
                raise fail(_WHERE, name, "left out for a cloud", "True", fix)
    with _folder(output) as folder:
        begin = time.perf_counter()
        with tqdm(desc="fit-nurbs", unit="step", disable=not progress) as bar:

            def tell(iteration: int, objective: float) -> None:
                bar.set_postfix(objective=f"{objective:.4g}", refresh=False)
                bar.update()

            common: dict[str, Any] = {"degree": degree, "callback": tell}
            if smoothing is not None:
                common["smoothing"] = smoothing
            if kind == "cloud":
                fit = fit_cloud(data, control, **common)
            else:
                more: dict[str, Any] = {"starts": starts, "seed": seed} if free_knots or rational else {}
                fit = fit_surface(data, control, free_knots=free_knots, rational=rational, **more, **common)
        seconds = time.perf_counter() - begin
        low, high = data.reshape(-1, 3).amin(0), data.reshape(-1, 3).amax(0)
        result = FitNURBSResult(
            surface=fit.surface.detach(),
            kind=kind,
            points=data,
            errors=fit.errors.detach(),
            parameters=tuple(u.detach() for u in fit.parameters),
            mse=float(fit.mse),
            rms=fit.rms,
            max=fit.max,
            diagonal=float((high - low).norm()),
            seconds=seconds,
            iterations=int(fit.iterations),
            settings=settings,
        )
        if folder is not None:
            facts = {"source": source, "command": command, "message": fit.message, "converged": fit.converged}
            result = outputs.write_outputs(result, folder, formats, facts)
    return result


def read_points(path: str | os.PathLike[str], array: str | None = None) -> torch.Tensor:
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
    values, _ = load(_WHERE, path, array, _ENDINGS)
    return torch.from_numpy(np.array(values, dtype=np.float64, order="C"))


def _spacing(spacing: Sequence[float]) -> None:
    if len(tuple(spacing)) != 2:
        raise fail(_WHERE, "spacing", "two lengths, along x and along y", repr(tuple(spacing)))
    for step in spacing:
        positive(_WHERE, "spacing", step, "It is the distance of neighbouring heights.")
        number(_WHERE, "spacing", step, 0, 1e100)


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


def _formats(formats: Sequence[str]) -> list[str]:
    names = [formats] if isinstance(formats, str) else list(formats)
    for name in names:
        choice(_WHERE, "formats", name, FORMATS)
        if name in _NEEDS:
            module, extra = _NEEDS[name]
            if importlib.util.find_spec(module) is None:
                got = f"{name!r}, which needs {module}"
                fix = f'pip install "geodiff[{extra}]", or leave it out.'
                raise fail(_WHERE, "formats", "of installed libraries", got, fix, ImportError)
    return list(dict.fromkeys(["json", *names]))


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
