# SPDX-License-Identifier: Apache-2.0
"""The files of a sweep: the journal that it goes on from, the table, and heat maps."""

import csv
import json
import os
import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from geodiff.scene.atomic import replacing
from geodiff.tasks.sweep_jobs import Case, Job
from geodiff.validation import fail

_WHERE = "sweep"
_ANNOTATED = 400  # cells, up to which their numbers are written into the picture
_MEMBERS = 60  # the best ones, in the picture of members and τ


class Journal:
    """One line for each finished run, on the disk before the next begins.

    The first line says what the rows belong to. A line that was cut off is as if it had never been.
    """

    def __init__(self, folder: pathlib.Path, rank: int, inputs: dict[str, Any]) -> None:
        self.path = folder / ("rows.jsonl" if rank == 0 else f"rows.{rank}.jsonl")
        self.inputs = inputs

    def __enter__(self) -> "Journal":
        self._file = self.path.open("a+b")
        self._file.seek(0)
        whole = self._file.read().rfind(b"\n") + 1
        self._file.truncate(whole)
        if not whole:
            self._write({"sweep": self.inputs})
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def append(self, row: dict[str, Any]) -> None:
        """Write a row, to the disk."""
        self._write(row)

    def _write(self, line: dict[str, Any]) -> None:
        self._file.write(json.dumps(line).encode() + b"\n")
        self._file.flush()
        os.fsync(self._file.fileno())

    @staticmethod
    def paths(folder: pathlib.Path) -> list[pathlib.Path]:
        """List the journals of a folder, of all processes."""
        return sorted(folder.glob("rows*.jsonl"))

    @staticmethod
    def remove(folder: pathlib.Path) -> None:
        """Remove the journals of a folder."""
        for path in Journal.paths(folder):
            path.unlink(missing_ok=True)

    @staticmethod
    def read(folder: pathlib.Path, inputs: dict[str, Any]) -> dict[Case, dict[str, Any]]:
        """Return the rows of all journals of a folder by case.

        Raises:
            ValueError: they are of another job; says what differs.
        """
        rows: dict[Case, dict[str, Any]] = {}
        for path in Journal.paths(folder):
            for line in path.read_bytes().split(b"\n")[:-1]:
                try:
                    row = json.loads(line)
                except ValueError:  # two that wrote at once, or a disk that lost power
                    continue
                if "sweep" in row:
                    _same_job(path, row["sweep"], inputs)
                else:
                    rows.setdefault(Case(row["member"], row["scale"], row["lr"]), row)
        return rows

    @staticmethod
    def rewrite(folder: pathlib.Path, inputs: dict[str, Any], rows: dict[Case, dict[str, Any]]) -> None:
        """Write all rows into the first journal, those from other machines too."""
        with replacing(folder / "rows.jsonl", _WHERE) as part:
            lines = [{"sweep": inputs}, *rows.values()]
            part.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")


def _same_job(path: pathlib.Path, theirs: dict[str, Any], inputs: dict[str, Any]) -> None:
    changed = []
    for name in ("kind", "mesh_fingerprint"):
        if theirs.get(name) != inputs[name]:
            changed.append("another mesh" if name != "kind" else f"kind {theirs.get(name)!r}")
    before = theirs.get("options", {})
    for name in {**before, **inputs["options"]}:
        if before.get(name) != inputs["options"].get(name):
            changed.append(f"{name} {before.get(name)!r} (now {inputs['options'].get(name)!r})")
    if changed:
        fix = "Start afresh with resume=False (--fresh), or choose another output folder."
        raise fail(_WHERE, "output", "a folder for rows of the same job", f"{path} with {', '.join(changed)}", fix)


def write_table(
    folder: pathlib.Path, job: Job, rows: Sequence[dict[str, Any]], facts: dict[str, Any]
) -> dict[str, pathlib.Path]:
    """Write ``table.csv``, ``sweep.json`` and the heat maps; return their paths by kind.

    Seconds are in ``sweep.json`` and the journal, not in the table, which is the same whoever made it.
    """
    files = {"table": folder / "table.csv", "facts": folder / "sweep.json"}
    header = ["distribution", "tconorm", "scale", "lr", *job.columns, "error"]
    lines = [[*row["member"].split("+"), row["scale"], row["lr"]] + [row[name] for name in header[4:]] for row in rows]
    _write_csv(files["table"], header, lines)
    with replacing(files["facts"], _WHERE) as part:
        part.write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
    return files | write_heatmaps(folder, job, rows)


def write_heatmaps(folder: pathlib.Path, job: Job, rows: Sequence[dict[str, Any]]) -> dict[str, pathlib.Path]:
    """Write the best scores of distribution and T-conorm, and of member and τ, as CSV, and PNG with Matplotlib."""
    halves = [row["member"].split("+") for row in rows]
    scores = [row[job.score] for row in rows]
    scales = sorted({row["scale"] for row in rows}, reverse=True)
    wheres = [f"{scale:.3g}" for scale in scales]
    plain, squared = (
        sorted({d for d, _ in halves if d.endswith(".squared") is form}, key=[d for d, _ in halves].index)
        for form in (False, True)
    )
    tconorms = list(dict.fromkeys(t for _, t in halves))
    pairs = best_of(job, [d for d, _ in halves], [t for _, t in halves], scores, plain + squared, tconorms)
    names = list(dict.fromkeys(row["member"] for row in rows))
    along = best_of(job, [row["member"] for row in rows], [row["scale"] for row in rows], scores, names, scales)
    files = {"heatmap": folder / "heatmap.csv", "scales": folder / "scales.csv"}
    _write_csv(files["heatmap"], ["distribution", *tconorms], _labelled(plain + squared, pairs))
    _write_csv(files["scales"], ["member", *map(repr, scales)], _labelled(names, along))
    try:
        import matplotlib  # noqa: F401
    except ImportError:
        return files
    count = len(plain)
    panels = [(plain, tconorms, pairs[:count]), (squared, tconorms, pairs[count:])]
    files["heatmap_png"] = folder / "heatmap.png"
    _draw(files["heatmap_png"], job, [panel for panel in panels if panel[0]], "T-conorm", "best over τ and rate")
    top = np.where(np.isnan(along), -np.inf, along if job.highest else -along).max(1)
    best = sorted(np.argsort(-top, kind="stable")[:_MEMBERS])
    files["scales_png"] = folder / "scales.png"
    _draw(files["scales_png"], job, [([names[i] for i in best], wheres, along[best])], "τ", "best over the rate")
    return files


def best_of(
    job: Job, down: Sequence[Any], across: Sequence[Any], scores: Sequence[Any], rows: Sequence, columns: Sequence
) -> np.ndarray:
    """Return the best score (R, C) of those with each pair of labels; NaN where there is none."""
    table = np.full((len(rows), len(columns)), np.nan)
    row, column = {label: i for i, label in enumerate(rows)}, {label: i for i, label in enumerate(columns)}
    better = np.fmax if job.highest else np.fmin
    for d, a, score in zip(down, across, scores, strict=True):
        if score is not None:
            at = row[d], column[a]
            table[at] = better(table[at], score)
    return table


def _labelled(labels: Sequence[str], table: np.ndarray) -> list[list[Any]]:
    return [
        [label, *(None if np.isnan(x) else float(x) for x in values)]
        for label, values in zip(labels, table, strict=True)
    ]


def _write_csv(path: pathlib.Path, header: Sequence[str], lines: Sequence[Sequence[Any]]) -> None:
    with replacing(path, _WHERE) as part, part.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows([header, *lines])


def _draw(
    path: pathlib.Path, job: Job, panels: Sequence[tuple[list[str], list[str], np.ndarray]], across: str, what: str
) -> None:
    """Draw tables side by side in one range of colours."""
    from matplotlib.figure import Figure

    tall, wide = max(len(p[0]) for p in panels), max(len(p[1]) for p in panels)
    size = (2.2 + len(panels) * (1.9 + 0.34 * wide), 1.9 + 0.27 * tall)
    figure = Figure(figsize=size, layout="constrained")
    known = np.concatenate([table[~np.isnan(table)] for _, _, table in panels])
    low, high = (float(known.min()), float(known.max())) if known.size else (0.0, 1.0)
    drawn: Any = None
    for axes, (down, columns, table) in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
        axes.set_facecolor("0.88")  # where nothing is known
        drawn = axes.imshow(table, aspect="auto", vmin=low, vmax=high, cmap="viridis" if job.highest else "viridis_r")
        axes.set_xticks(range(len(columns)), columns, rotation=90, fontsize=7)
        axes.set_yticks(range(len(down)), down, fontsize=7)
        axes.set_xlabel(across, fontsize=8)
        if table.size <= _ANNOTATED:
            bright = table > low + 0.6 * (high - low) if job.highest else table < low + 0.4 * (high - low)
            for i, j in zip(*np.nonzero(~np.isnan(table)), strict=True):
                color = "black" if bright[i, j] else "white"
                text = f"{table[i, j]:.2f}".removeprefix("0")
                axes.text(j, i, text, ha="center", va="center", fontsize=6, color=color)
    bar = figure.colorbar(drawn, shrink=0.9, aspect=30)
    bar.set_label(f"{job.score}, {what}", fontsize=8)
    bar.ax.tick_params(labelsize=7)
    with replacing(path, _WHERE) as part:
        figure.savefig(part, dpi=130, format="png")
