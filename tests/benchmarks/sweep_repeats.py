# SPDX-License-Identifier: Apache-2.0
"""Sweeps as one heat map, and how much of their order is luck: the best members again, from views moved a little.

A descent through silhouettes is chaotic, so the best of many runs are partly the lucky ones. Job, τ and rates are
those of the sweep; each time all cameras are higher by another hundred-thousandth of a degree. What the best lose on
average when they run again is what their choice owed to luck; what one member's repeats differ by is the least by which
two members must differ to be told apart.

    python tests/benchmarks/sweep_repeats.py out/map out/map_heavy -o out/repeats

Several sweeps are of one job, with members, τ or rates of their own.
"""

import argparse
import csv
import json
import pathlib
import statistics
from typing import Any

import geodiff as gd
from geodiff.tasks.sweep.kinds import SHAPE
from geodiff.tasks.sweep.outputs import write_heatmaps

ASSETS = pathlib.Path(__file__).resolve().parents[2] / "assets"
Row = dict[str, Any]


def read_table(path: pathlib.Path) -> list[Row]:
    """Return the runs of a table that did not fail."""
    with path.open(encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row["iou"]]
    return [
        {
            "member": f"{row['distribution']}+{row['tconorm']}",
            **{name: float(row[name]) for name in ("scale", "lr", "iou")},
        }
        for row in rows
    ]


def best_runs(rows: list[Row]) -> dict[str, Row]:
    """Return the best run of each member over τ and rates, the best member first."""
    best: dict[str, Row] = {}
    for row in sorted(rows, key=lambda row: -row["iou"]):
        best.setdefault(row["member"], row)
    return best


def runs_again(
    folder: pathlib.Path, rows: list[Row], members: list[str], mesh: pathlib.Path, output: pathlib.Path, time: int
) -> list[Row]:
    """Run what a sweep ran of some members, from cameras that are a little higher."""
    members = [name for name in members if any(row["member"] == name for row in rows)]
    if not members:
        return []
    job = json.loads((folder / "sweep.json").read_text(encoding="utf-8"))["options"]
    job["elevation"] = [angle + 1e-5 * time for angle in job["elevation"]]
    scales, lrs = (list(dict.fromkeys(row[name] for row in rows)) for name in ("scale", "lr"))
    result = gd.tasks.sweep("shape", mesh, output=output, options=job, family=members, scales=scales, lrs=lrs)
    return read_table(result.files["table"])


def report(members: list[str], tables: list[dict[str, Row]]) -> str:
    """Return a table of members: their best run in the sweep, and in each repetition."""
    lines, lost, variances = (
        ["| member | in the sweep | again | mean | best τ of each |", "|---|---|---|---|---|"],
        [],
        [],
    )
    for name in members:
        first, *again = (table[name] for table in tables)
        ious = [run["iou"] for run in again]
        lost.append(first["iou"] - statistics.mean(ious))
        variances.append(statistics.variance(ious) if len(ious) > 1 else 0.0)
        shown, scales = (
            ", ".join(f"{x:.3f}" for x in ious),
            ", ".join(f"{table[name]['scale']:.1e}" for table in tables),
        )
        lines.append(f"| `{name}` | {first['iou']:.3f} | {shown} | {statistics.mean(ious):.3f} | {scales} |")
    spread = statistics.mean(variances) ** 0.5
    return "\n".join([*lines, "", f"Lost on average {statistics.mean(lost):.3f}; standard deviation {spread:.3f}."])


def main() -> None:
    """Draw, run, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sweeps", type=pathlib.Path, nargs="+", help="folders of sweeps of the job 'shape'")
    parser.add_argument("--mesh", type=pathlib.Path, default=ASSETS / "airplane.obj")
    parser.add_argument("-o", "--output", type=pathlib.Path, default=pathlib.Path("out/repeats"))
    parser.add_argument("--count", type=int, default=20, help="members")
    parser.add_argument("--times", type=int, default=3)
    options = parser.parse_args()
    options.output.mkdir(parents=True, exist_ok=True)
    swept = [read_table(folder / "table.csv") for folder in options.sweeps]
    order = {m.name: i for i, m in enumerate(gd.soft.family())}
    every = sorted((row for rows in swept for row in rows), key=lambda row: order.get(row["member"], len(order)))
    write_heatmaps(options.output, SHAPE, every)
    tables = [best_runs(every)]
    members = list(tables[0])[: options.count]
    for time in range(1, options.times + 1):
        rows: list[Row] = []
        for number, (folder, own) in enumerate(zip(options.sweeps, swept, strict=True)):
            rows += runs_again(folder, own, members, options.mesh, options.output / f"{time}_{number}", time)
        tables.append(best_runs(rows))
    text = report(members, tables)
    (options.output / "repeats.md").write_text(text + "\n", encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
