# SPDX-License-Identifier: Apache-2.0
"""What `fit_nurbs` returns."""

import pathlib
from dataclasses import dataclass, field

import torch

from geodiff.splines import NURBSSurface
from geodiff.tasks.nurbs.settings import FitNURBSSettings
from geodiff.validation import shapes_repr


@dataclass(frozen=True, eq=False)
class FitNURBSResult:
    """What `fit_nurbs` returns.

    Attributes:
        surface: the fitted surface, float64.
        kind: what the points were taken for: ``"grid"``, ``"heights"`` or ``"cloud"``.
        points: the points as they were fitted, (N, M, 3) or (N, 3), float64.
        errors: the distance of each point from the surface at its parameters, (N, M) or (N,).
        parameters: of the points: along each axis of a grid, or of each point of a cloud.
        mse: mean of the squared residuals over the (kept) points and the three coordinates.
        rms: root of the mean squared distance of the (kept) points.
        max: the largest distance of these.
        diagonal: of the bounding box of the (kept) points, the unit for `rms` and `max` that does not depend on theirs.
        seconds: how long the fit took, without reading and writing.
        iterations: of the best start; 0 where the fit is linear.
        settings: what it was made with.
        empty_spans: of a cloud, the spans between knots, (u0, u1, v0, v1), that hold no points: there the surface is
            smooth, and no more.
        kept: which points of a cloud were not left out as outliers (`trim`), (N,) bool; None without `trim`.
        files: what was written, by kind, where there was an output folder.
        notes: what a user should be told: what was left out, and where there is no data.
    """

    __repr__ = shapes_repr

    surface: NURBSSurface
    kind: str
    points: torch.Tensor = field(repr=False)
    errors: torch.Tensor = field(repr=False)
    parameters: tuple[torch.Tensor, ...] = field(repr=False)
    mse: float
    rms: float
    max: float
    diagonal: float
    seconds: float
    iterations: int
    settings: FitNURBSSettings = field(repr=False)
    empty_spans: list[tuple[float, float, float, float]] = field(default_factory=list, repr=False)
    kept: torch.Tensor | None = field(default=None, repr=False)
    files: dict[str, pathlib.Path] = field(default_factory=dict, repr=False)
    notes: list[str] = field(default_factory=list, repr=False)
