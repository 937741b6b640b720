# SPDX-License-Identifier: Apache-2.0
"""What fit_nurbs writes: the surface, pictures of it and metrics.json."""

import dataclasses
import importlib.util
import json
import pathlib
from typing import Any

import torch

import geodiff
from geodiff.scene.atomic import replacing
from geodiff.splines.files import save_splines
from geodiff.tasks.nurbs import pictures
from geodiff.tasks.nurbs.result import FitNURBSResult
from geodiff.tasks.nurbs.settings import FORMATS

_WHERE = "fit_nurbs"


_SAMPLES = (128, 128)  # of the triangles written


def metrics(result: FitNURBSResult, more: dict[str, Any]) -> dict[str, Any]:
    """Return what metrics.json holds."""
    surface = result.surface
    weights = surface.weights
    return {
        "mse": result.mse,
        "mse_is": "mean of squared residuals over points and x, y, z",
        "rms": result.rms,
        "max": result.max,
        "diagonal": result.diagonal,
        "rms_over_diagonal": result.rms / result.diagonal if result.diagonal else None,
        "max_over_diagonal": result.max / result.diagonal if result.diagonal else None,
        "kind": result.kind,
        "points": list(result.points.shape[:-1]),
        "left_out": 0 if result.kept is None else int((~result.kept).sum()),
        "control": list(surface.shape),
        "degree": list(surface.degree),
        "knots_u": surface.knots_u.tolist(),
        "knots_v": surface.knots_v.tolist(),
        "weights": None if weights is None else [float(weights.min()), float(weights.max())],
        "empty_spans": [list(span) for span in result.empty_spans],
        "iterations": result.iterations,
        "converged": more["converged"],
        "message": more["message"],
        "seconds": result.seconds,
        "settings": result.settings.as_dict(),
        "source": more["source"],
        "version": geodiff.__version__,
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "command": more["command"],
        "notes": result.notes,
    }


def write_outputs(result: FitNURBSResult, folder: pathlib.Path, more: dict[str, Any]) -> FitNURBSResult:
    """Write all files into a folder beside the others, then move them, metrics.json last; drop what is out of date."""
    formats = result.settings.formats
    files = {name: folder / f"surface.{name}" for name in formats}
    files["picture"] = folder / "surface.png"
    notes = list(result.notes)
    if importlib.util.find_spec("matplotlib") is None:
        notes.append('error.png is left out: it needs Matplotlib, pip install "geodiff[plot]"')
    else:
        files["error"] = folder / "error.png"
    files["metrics"] = folder / "metrics.json"
    result = dataclasses.replace(result, files=files, notes=notes)
    with replacing(files["metrics"], _WHERE) as part:
        for name in formats:
            save_splines(part.parent / f"surface.{name}", result.surface, samples=_SAMPLES)
        points, errors, at = result.points, result.errors, result.parameters
        if result.kept is not None:
            points, errors, at = points[result.kept], errors[result.kept], tuple(u[result.kept] for u in at)
        pictures.overview(result.surface, points, result.kind).save(part.parent / "surface.png")
        if "error" in files:
            pictures.error_map(
                part.parent / "error.png", result.surface, errors, at, result.diagonal, empty=result.empty_spans
            )
        part.write_text(json.dumps(metrics(result, more), indent=1) + "\n", encoding="utf-8")
    for old in [*(folder / f"surface.{name}" for name in FORMATS), folder / "error.png"]:
        if old not in files.values():
            old.unlink(missing_ok=True)  # of an earlier fit: it would pass for this one's
    return result
