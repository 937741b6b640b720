# SPDX-License-Identifier: Apache-2.0
"""The files of a sweep: the journal that it goes on from, the table, and heat maps."""

import contextlib
import csv
import json
import math
import os
import pathlib
import zlib
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from geodiff.scene.atomic import replacing
from geodiff.tasks.sweep.kinds import JOBS, Case, Job
from geodiff.validation import fail

_WHERE = "sweep"
VERSION = 2  # of the journal
_ANNOTATED = 400  # cells, up to which their numbers are written into the picture
_MEMBERS = 60  # the best ones, in the picture of members and τ


class Journal:
    """One line for each finished run, on the disk before the next begins.

    The first line says what the rows belong to. Each has its checksum: one that is damaged is an error, since the rest
    of the sweep may be long; the last one, where it was cut off, is as if it had never been.
    """

    def __init__(self, folder: pathlib.Path, rank: int, inputs: dict[str, Any]) -> None:
        self.path = folder / ("rows.jsonl" if rank == 0 else f"rows.{rank}.jsonl")
        self.inputs = inputs

    def __enter__(self) -> "Journal":
        with self._telling():
            self._file = self.path.open("a+b")
            self._file.seek(0)
            whole = self._file.read().rfind(b"\n") + 1
            self._file.truncate(whole)
        if not whole:
            self._write({"sweep": self.inputs, "version": VERSION})
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(OSError):  # told when the row was written
            self._file.close()

    def append(self, row: dict[str, Any]) -> None:
        """Write a row, to the disk."""
        self._write(row)

    def _write(self, line: dict[str, Any]) -> None:
        with self._telling():
            self._file.write(_signed(line))
            self._file.flush()
            os.fsync(self._file.fileno())
            # A file whose folder was deleted can be written to, for nothing.
            self.path.stat()

    @contextlib.contextmanager
    def _telling(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            fix = "The rows before it are whole: mend that and give the same command again."
            got = f"{self.path} ({error.strerror})"
            raise fail(_WHERE, "output", "a folder that can be written to", got, fix, OSError) from error

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
            ValueError: they are of another job, or damaged; says what differs, or where.
            OSError: they cannot be read.
        """
        rows: dict[Case, dict[str, Any]] = {}
        columns = {*Case._fields, *JOBS[inputs["kind"]].columns, "error", "seconds"}
        for path in Journal.paths(folder):
            for number, text in enumerate(path.read_bytes().split(b"\n")[:-1]):
                line = _verified(path, number, text)
                if number == 0:
                    _same_job(path, line["sweep"], inputs)
                elif set(line) == columns and _sound(line):
                    rows.setdefault(Case(line["member"], line["scale"], line["lr"]), line)
                else:
                    raise _damaged(path, number, "is no row of this job")
        return rows

    @staticmethod
    def rewrite(folder: pathlib.Path, inputs: dict[str, Any], rows: dict[Case, dict[str, Any]]) -> None:
        """Write all rows into the first journal, those from other machines too."""
        with replacing(folder / "rows.jsonl", _WHERE) as part:
            lines = [{"sweep": inputs, "version": VERSION}, *rows.values()]
            part.write_bytes(b"".join(_signed(line) for line in lines))


def _signed(line: dict[str, Any]) -> bytes:
    """Return a line of JSON whose last entry is the checksum of what is before it."""
    text = json.dumps(line)[:-1]
    return f'{text}, "crc": {zlib.crc32(text.encode())}}}\n'.encode()


def _verified(path: pathlib.Path, number: int, text: bytes) -> dict[str, Any]:
    """Return what a line holds, without its checksum."""
    body, comma, crc = text.rpartition(b', "crc": ')
    try:
        line: Any = json.loads(text)
    except (ValueError, RecursionError):
        line = None
    if number == 0 and not (isinstance(line, dict) and isinstance(line.get("sweep"), dict)):
        raise _damaged(path, number, "is not that of a sweep", remove=False)
    if number == 0 and line.get("version") != VERSION:
        raise _damaged(path, number, "is of another version of geodiff", remove=False)
    if line is None or not comma or crc != b"%d}" % zlib.crc32(body):
        raise _damaged(path, number, "is damaged: its checksum is another", remove=number > 0)
    del line["crc"]
    return dict(line)


def _sound(row: dict[str, Any]) -> bool:
    """Whether the entries of a row are of the kinds that they must be."""

    def finite(value: Any) -> bool:
        return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)

    rest = (value for name, value in row.items() if name not in ("member", "error"))
    told = row["error"] is None or isinstance(row["error"], str)
    known = finite(row["scale"]) and finite(row["lr"])
    return known and told and isinstance(row["member"], str) and all(x is None or finite(x) for x in rest)


def _damaged(path: pathlib.Path, number: int, what: str, remove: bool = True) -> Exception:
    fix = "Start afresh with resume=False (--fresh), or choose another output folder."
    if remove:
        fix = f"Take that line out to run its case again. {fix}"
    return fail(_WHERE, "output", "a folder of sound rows", f"{path}, whose line {number + 1} {what}", fix)


def _same_job(path: pathlib.Path, theirs: dict[str, Any], inputs: dict[str, Any]) -> None:
    changed = []
    for name in ("kind", "mesh_fingerprint"):
        if theirs.get(name) != inputs[name]:
            changed.append("another mesh" if name != "kind" else f"kind {theirs.get(name)!r}")
    before = theirs.get("options")
    before = before if isinstance(before, dict) else {}
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
    shown = [panel for panel in panels if panel[0]]
    _draw(files["heatmap_png"], job, shown, "T-conorm", "best over τ and rate", margins=True)
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


def participation(table: np.ndarray, highest: bool, share: float = 0.1) -> tuple[np.ndarray, np.ndarray]:
    """Return how many of the best cells of a table (R, C) are in each row (R,) and in each column (C,).

    The best are a share of those that are known, rounded, and one at least; of equal ones the first.
    """
    scores = np.where(np.isnan(table), -np.inf, table if highest else -table).reshape(-1)
    known = int((scores > -np.inf).sum())
    best = np.zeros(len(scores), dtype=np.int64)
    best[np.argsort(-scores, kind="stable")[: min(max(round(share * known), 1), known)]] = 1
    cells = best.reshape(table.shape)
    return cells.sum(1), cells.sum(0)


def _labelled(labels: Sequence[str], table: np.ndarray) -> list[list[Any]]:
    return [
        [label, *(None if np.isnan(x) else float(x) for x in values)]
        for label, values in zip(labels, table, strict=True)
    ]


def _write_csv(path: pathlib.Path, header: Sequence[str], lines: Sequence[Sequence[Any]]) -> None:
    with replacing(path, _WHERE) as part, part.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows([header, *lines])


def _draw(
    path: pathlib.Path,
    job: Job,
    panels: Sequence[tuple[list[str], list[str], np.ndarray]],
    across: str,
    what: str,
    margins: bool = False,
) -> None:
    """Draw tables side by side in one range of colours; in the margins how often rows and columns are among the best.

    Those are the best tenth of each table by itself.
    """
    from matplotlib.figure import Figure

    tall, wide = max(len(p[0]) for p in panels), max(len(p[1]) for p in panels)
    size = (2.2 + len(panels) * (1.9 + 0.34 * wide) + 0.4, 2.3 + 0.27 * tall)
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
        if margins and min(table.shape) > 1:
            beside, above = participation(table, job.highest)
            top = axes.inset_axes((0, 1.01, 1, min(0.6 / (0.27 * tall), 0.15)), sharex=axes)
            side = axes.inset_axes((1.01, 0, min(0.5 / (0.34 * wide), 0.15), 1), sharey=axes)
            top.bar(range(len(above)), above, color="0.35")
            side.barh(range(len(beside)), beside, color="0.35")
            for bars in (top, side):
                bars.axis("off")
            top.set_title("best tenth", fontsize=7, loc="left", pad=2)
    bar = figure.colorbar(drawn, shrink=0.9, aspect=30)
    bar.set_label(f"{job.score}, {what}", fontsize=8)
    bar.ax.tick_params(labelsize=7)
    with replacing(path, _WHERE) as part:
        figure.savefig(part, dpi=130, format="png")
