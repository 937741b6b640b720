# SPDX-License-Identifier: Apache-2.0
"""What `fit_atlas` returns."""

import pathlib
from dataclasses import dataclass, field
from typing import Any

from geodiff.atlas.atlas import Atlas
from geodiff.tasks.atlas.settings import FitAtlasSettings


@dataclass(frozen=True, eq=False)
class FitAtlasResult:
    """What `fit_atlas` returns, the same in all processes of a team.

    Attributes:
        atlas: the surface: call it, sample it, mesh it, save it.
        metrics: what metrics.json holds; lengths are in the unit of the points unless they say otherwise.
        notes: what one should know: points that were dropped, files that were left out and why.
        files: what was written, by kind, where there was an output folder and this process wrote it.
        history: a record for each chunk of charts of this process: ``stage``, ``chunk`` and ``chunks`` done, charts
            ``converged``, ``loss`` (mean square residual in patch radii) and ``seconds``.
        settings: what it was made with.
        seconds: how long it took, over all resumed parts, with writing.
        leads: whether this process wrote the files: the first of a team, and one that is alone.
    """

    atlas: Atlas
    metrics: dict[str, Any] = field(repr=False)
    notes: list[str]
    files: dict[str, pathlib.Path] = field(repr=False)
    history: list[dict[str, Any]] = field(repr=False)
    settings: FitAtlasSettings = field(repr=False)
    seconds: float
    leads: bool = field(default=True, repr=False)
