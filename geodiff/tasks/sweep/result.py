# SPDX-License-Identifier: Apache-2.0
"""What `sweep` returns."""

import pathlib
from dataclasses import dataclass, field
from typing import Any

from geodiff.tasks.sweep.settings import SweepSettings


@dataclass(frozen=True)
class SweepResult:
    """What `sweep` returns, the same in all processes.

    Attributes:
        rows: one a run, in the order of the table: ``member``, ``scale``, ``lr``, the job's columns (None where it
            failed), ``error`` (None, or why it failed) and ``seconds``.
        best: the row of the best score; None where all failed.
        failed: how many failed.
        run: how many ran now, in all processes; the others were there already.
        leads: whether this process wrote the files: the first of a team, and one that is alone.
        files: what was written, by kind.
        settings: what it was made with.
    """

    rows: list[dict[str, Any]] = field(repr=False)
    best: dict[str, Any] | None
    failed: int
    run: int
    leads: bool
    files: dict[str, pathlib.Path] = field(repr=False)
    settings: SweepSettings = field(repr=False)
