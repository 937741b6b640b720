# SPDX-License-Identifier: Apache-2.0
"""What the choice of the best owes to luck (tests/benchmarks/sweep_repeats.py), beside what it is by hand."""

import pathlib
import sys
from typing import Any

import pytest

import geodiff as gd
from geodiff.tasks.sweep.job import sweep
from tests.benchmarks import sweep_repeats

QUICK = {"views": 4, "size": 16, "steps": 3, "subdivisions": 1, "hold_out": 2}


def run(member: str, iou: float, scale: float = 0.01) -> dict[str, Any]:
    return {"member": member, "iou": iou, "scale": scale, "lr": 0.1}


def test_the_best_run_of_each_member_comes_first() -> None:
    rows = [run("a", 0.3), run("b", 0.7, 0.1), run("a", 0.5, 0.2), run("b", 0.6)]
    assert sweep_repeats.best_runs(rows) == {"b": run("b", 0.7, 0.1), "a": run("a", 0.5, 0.2)}
    assert list(sweep_repeats.best_runs(rows)) == ["b", "a"]


def test_what_is_lost_and_the_spread_are_those_by_hand() -> None:
    # a loses 0.1 and its repeats have a variance of 0.02; b gains 0.05, and has one of 0.005.
    tables = [{"a": run("a", a), "b": run("b", b)} for a, b in ((0.8, 0.5), (0.6, 0.5), (0.8, 0.6))]
    lines = sweep_repeats.report(["a", "b"], tables).splitlines()
    assert lines[2].startswith("| `a` | 0.800 | 0.600, 0.800 | 0.700 |")
    assert lines[-1] == f"Lost on average 0.025; standard deviation {0.0125**0.5:.3f}."


def test_sweeps_are_joined_and_run_again(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mesh = tmp_path / "box.obj"
    gd.box((0.7, 0.35, 0.5)).save(mesh)
    for name, family in (("one", "logistic+probabilistic"), ("two", "uniform+einstein")):
        grid: dict[str, Any] = {"scales": [0.03], "lrs": [0.1], "options": QUICK, "progress": False}
        sweep("shape", mesh, output=tmp_path / name, family=family, **grid)
    given = [str(tmp_path / "one"), str(tmp_path / "two"), "-o", str(tmp_path / "out"), "--mesh", str(mesh)]
    monkeypatch.setattr(sys, "argv", ["sweep_repeats", *given, "--count", "2", "--times", "2"])
    sweep_repeats.main()
    lines = (tmp_path / "out" / "repeats.md").read_text().splitlines()
    assert {line.split("`")[1] for line in lines[2:4]} == {"logistic+probabilistic", "uniform+einstein"}
    # Each member again, twice, by the sweep that it is from.
    assert {path.parent.name for path in (tmp_path / "out").glob("*/table.csv")} == {"1_0", "1_1", "2_0", "2_1"}
    assert all(len(line.split("|")[3].split(",")) == 2 for line in lines[2:4])
