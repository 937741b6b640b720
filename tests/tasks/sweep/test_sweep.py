# SPDX-License-Identifier: Apache-2.0
"""The same table whoever makes it and however often it is killed."""

import csv
import json
import pathlib
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import geodiff as gd
from geodiff.tasks import Progress
from geodiff.tasks.sweep import kinds
from geodiff.tasks.sweep.job import sweep
from geodiff.tasks.sweep.kinds import JOBS, SHAPE, Case, Job, register_job, select_family
from geodiff.tasks.sweep.outputs import best_of, participation, write_heatmaps

ROOT = pathlib.Path(__file__).resolve().parents[3]
QUICK = {"views": 4, "size": 16, "steps": 3, "subdivisions": 1, "hold_out": 2}
GRID: dict[str, Any] = {
    "family": "logistic+probabilistic, gaussian.squared+yager(2)",
    "scales": [0.03, 0.01],
    "lrs": [0.1, 0.2],
    "options": QUICK,
    "progress": False,
}


def box() -> gd.Mesh:
    return gd.box((0.7, 0.35, 0.5))


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """Return the table of GRID, made in one go."""
    folder = tmp_path_factory.mktemp("whole")
    sweep("shape", box(), output=folder, **GRID)
    return (folder / "table.csv").read_bytes()


def _prepare_known(mesh: gd.Mesh, options: dict) -> dict:
    return options


def _run_known(prepared: dict, case: Case) -> dict:
    """A score that is known; it fails in three ways."""
    if case.scale == 7:
        raise ValueError("seven is too much\nand more")
    if case.scale == 8:
        return {"score": float("nan"), "random": 1}
    if case.scale == 9:
        raise KeyError("a mistake in the job")
    return {"score": case.scale + case.lr, "random": float(torch.rand(()))}


@pytest.fixture
def known(monkeypatch: pytest.MonkeyPatch) -> Job:
    monkeypatch.setattr(kinds, "JOBS", JOBS)
    job = Job("known", {"seed": 0}, (1.0, 2.0), (0.5,), ("score", "random"), "score", _prepare_known, _run_known, False)
    monkeypatch.setitem(JOBS, "known", job)
    return job


def test_shape(tmp_path: pathlib.Path, table: bytes) -> None:
    result = sweep("shape", box(), output=tmp_path, **GRID)
    rows = list(csv.DictReader((tmp_path / "table.csv").read_text().splitlines()))
    assert [r["distribution"] for r in rows] == ["logistic"] * 4 + ["gaussian.squared"] * 4
    assert [r["scale"] for r in rows[:4]] == ["0.03", "0.03", "0.01", "0.01"]
    assert result.failed == 0 and result.run == 8 and result.leads
    # One row is what fit_mesh gives by itself, on one thread.
    images = gd.tasks.render_views(box(), views=4, size=16, hard=True)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        fit = gd.tasks.fit_mesh(
            images,
            template="sphere",
            steps=3,
            subdivisions=1,
            hold_out=2,
            scale=0.01,
            lr=0.2,
            distribution="logistic",
            progress=False,
        )
    finally:
        torch.set_num_threads(threads)
    assert float(rows[3]["iou"]) == fit.iou_held_out and float(rows[3]["iou_train"]) == fit.iou_train
    assert result.best is not None and result.best["iou"] == max(float(r["iou"]) for r in rows)
    assert (tmp_path / "table.csv").read_bytes() == table
    facts = json.loads((tmp_path / "sweep.json").read_text())
    assert facts["runs"] == 8 and facts["options"]["steps"] == 3
    assert torch.get_num_threads() == threads


def test_goes_on_after_a_kill(tmp_path: pathlib.Path, table: bytes) -> None:
    done = []

    def stop(progress: Progress) -> None:
        done.append(progress.record)
        if len(done) == 3:
            raise KeyboardInterrupt

    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        with pytest.raises(KeyboardInterrupt):
            sweep("shape", box(), output=tmp_path, callback=stop, **GRID)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(threads)
    journal = tmp_path / "rows.jsonl"
    lines = journal.read_bytes().splitlines(keepends=True)
    assert len(lines) == 4 and not (tmp_path / "table.csv").exists()
    # Killed in the middle of a line; the run of that line is done again.
    journal.write_bytes(b"".join(lines)[:-20])
    again: list[Progress] = []
    result = sweep("shape", box(), output=tmp_path, callback=again.append, **GRID)
    assert result.run == len(again) == 6 and (tmp_path / "table.csv").read_bytes() == table
    # Once all is there, nothing is run, and nothing changes.
    assert sweep("shape", box(), output=tmp_path, **GRID).run == 0
    assert (tmp_path / "table.csv").read_bytes() == table


def test_two_workers_make_the_same_table(tmp_path: pathlib.Path, table: bytes) -> None:
    result = sweep("shape", box(), output=tmp_path, workers=2, **GRID)
    assert result.run == 8 and (tmp_path / "table.csv").read_bytes() == table


def test_two_processes_of_torchrun_make_the_same_table(tmp_path: pathlib.Path, table: bytes) -> None:
    box().save(tmp_path / "box.obj")
    # What another machine of an earlier team has done.
    sweep("shape", tmp_path / "box.obj", output=tmp_path / "out", **(GRID | {"scales": [0.03]}))
    (tmp_path / "out" / "rows.jsonl").rename(tmp_path / "out" / "rows.5.jsonl")
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m", "geodiff.cli"]
    command += ["sweep", "shape", str(tmp_path / "box.obj"), "-o", str(tmp_path / "out"), "--family", GRID["family"]]
    command += ["--scales", "0.03,0.01", "--lrs", "0.1,0.2"]
    command += [f"--set={name}={value}" for name, value in QUICK.items()]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert run.stdout.count("8 runs, 4 of them now, 0 failed") == 1  # of both, only one speaks
    assert (tmp_path / "out" / "table.csv").read_bytes() == table
    whole = (tmp_path / "out" / "rows.jsonl").read_text().splitlines()
    assert len(whole) == 9 and (tmp_path / "out" / "rows.1.jsonl").exists()


def test_a_process_group_of_the_caller_serves(tmp_path: pathlib.Path, known: Job) -> None:
    torch.distributed.init_process_group("gloo", store=torch.distributed.HashStore(), rank=0, world_size=1)
    try:
        assert sweep("known", box(), output=tmp_path, progress=False).run == 72  # 36 members at two τ
        assert torch.distributed.is_initialized()
    finally:
        torch.distributed.destroy_process_group()


def test_failures_are_rows(tmp_path: pathlib.Path, known: Job) -> None:
    grid = {"family": "logistic+probabilistic", "lrs": [0.5], "output": tmp_path, "progress": False}
    result = sweep("known", box(), scales=[7, 8, 2, 1], **grid)
    assert [row["error"] for row in result.rows] == ["seven is too much", "score not finite", None, None]
    assert result.failed == 2 and result.best is not None and result.best["score"] == 1.5  # the lowest is best here
    assert [row["score"] for row in result.rows] == [None, None, 2.5, 1.5]
    # Each run draws the same numbers, whatever ran before it.
    assert result.rows[2]["random"] == result.rows[3]["random"]
    with pytest.raises(KeyError, match="a mistake in the job"):
        sweep("known", box(), scales=[9], **grid)
    longer = sweep("known", box(), scales=[3, 2], **grid)
    assert longer.run == 1 and [row["score"] for row in longer.rows] == [3.5, 2.5]
    assert sweep("known", box(), scales=[7], **grid).best is None
    assert sweep("known", box(), scales=[3, 2], resume=False, **grid).run == 2


def test_heat_maps(tmp_path: pathlib.Path, known: Job) -> None:
    names = ["logistic+probabilistic", "logistic+yager(2)", "gaussian.squared+yager(2)"]
    rows = [
        {"member": name, "scale": scale, "lr": lr, "score": score, "error": None}
        for name, scale, lr, score in (
            (names[0], 0.1, 1.0, 0.5),
            (names[0], 0.1, 2.0, 0.25),
            (names[0], 1.0, 1.0, 0.75),
            (names[1], 1.0, 1.0, None),
            (names[2], 0.1, 1.0, 0.125),
        )
    ]
    files = write_heatmaps(tmp_path, known, rows)
    assert files["heatmap"].read_text().splitlines() == [
        "distribution,probabilistic,yager(2)",
        "logistic,0.25,",
        "gaussian.squared,,0.125",
    ]
    assert files["scales"].read_text().splitlines() == [
        "member,1.0,0.1",
        f"{names[0]},0.75,0.25",
        f"{names[1]},,",
        f"{names[2]},,0.125",
    ]
    for name in ("heatmap_png", "scales_png"):
        assert np.asarray(Image.open(files[name]).convert("L")).std() > 10
    # Of ten numbers the best one, of a hundred the best ten; and nothing where nothing is known.
    table = np.array([[1.0, 5.0, np.nan], [4.0, 2.0, 3.0], [0.0, 0.1, np.nan]])
    assert [list(part) for part in participation(table, True)] == [[1, 0, 0], [0, 1, 0]]
    assert [list(part) for part in participation(table, False, 0.3)] == [[0, 0, 2], [1, 1, 0]]
    assert [part.sum() for part in participation(np.full((2, 3), np.nan), True)] == [0, 0]
    many = np.arange(100.0).reshape(10, 10)
    assert [list(part) for part in participation(many, True)] == [[0] * 9 + [10], [1] * 10]
    highest = best_of(SHAPE, ["a", "a"], ["b", "b"], [1, 2], ["a"], ["b"])
    assert highest.tolist() == [[2]]
    assert "heatmap" in write_heatmaps(tmp_path, known, rows[3:4])


def test_heat_maps_without_matplotlib(tmp_path: pathlib.Path, known: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert set(sweep("known", box(), output=tmp_path, progress=False).files) == {"table", "facts", "heatmap", "scales"}


def test_families() -> None:
    assert len(select_family("thesis")) == 1242 and len(select_family("spanning")) == 36
    chosen, rules = select_family("spanning"), {type(m.tconorm) for m in select_family("thesis")}
    assert all(m.in_thesis for m in chosen) and {type(m.tconorm) for m in chosen} == rules
    laws = {m.distribution.unsquared() if m.distribution.is_squared else m.distribution for m in chosen}
    assert {law.tail[0] for law in laws} == {"finite", "exponential", "super-exponential", "polynomial"}
    assert sum(m.distribution.is_squared for m in chosen) == 12
    assert len(select_family("all")) == len(gd.soft.family())
    assert [m.name for m in select_family(["levy+frank(3)", "levy+frank(3), cauchy+average"])] == [
        "levy+frank(3)",
        "cauchy+average",
    ]
    assert len(select_family("*+maximum")) == len({m.name for m in gd.soft.family() if m.name.endswith("+maximum")})


def test_messages(tmp_path: pathlib.Path, known: Job) -> None:
    def refused(error: type[Exception], match: str, kind: str = "known", mesh: Any = None, **more: Any) -> None:
        with pytest.raises(error, match=match):
            sweep(kind, box() if mesh is None else mesh, output=tmp_path, progress=False, **more)

    refused(ValueError, "sweep: `kind` must be one of .*shape", kind="shap")
    refused(TypeError, "sweep: `mesh` must be a Mesh or the path of one", mesh=3)
    refused(ValueError, "sweep: `mesh` must be one mesh with faces", mesh=box().with_vertices(torch.rand(2, 8, 3)))
    refused(ValueError, "sweep: `scales` must be positive", scales=[0.1, -1])
    refused(ValueError, "sweep: `lrs` must be one number or more", lrs=[])
    refused(ValueError, "sweep: `workers` must be an integer ≥ 1", workers=0)
    refused(ValueError, "`options` must be those of known; got 'sed'. Did you mean 'seed'", options={"sed": 1})
    refused(TypeError, "`options` must be plain numbers", options={"seed": object()})
    refused(ValueError, "`steps` must be an integer ≥ 1", kind="shape", options={"steps": 0})
    refused(ValueError, "`scale_decay` must be positive", kind="shape", options={"scale_decay": 0})
    refused(ValueError, "select_family: `names` must be patterns that match", family="no*")
    refused(
        ValueError, "select_family: `names` must be thesis, all, spanning, or.*Did you mean 'thesis'", family="thes"
    )
    refused(ValueError, "select_family: `names` must be one member or more", family=",")
    with pytest.raises(ValueError, match="register_job: `score` must be one of score, random"):
        register_job(Job("x", {}, (), (), ("score", "random"), "scor", _prepare_known, _run_known))
    sweep("known", box(), output=tmp_path, progress=False)
    refused(ValueError, r"`output` must be a folder for rows.*seed 0 \(now 1\)\. Start afresh", options={"seed": 1})
    refused(ValueError, "rows.jsonl with another mesh", mesh=gd.box())
    refused(ValueError, "rows.jsonl with kind 'known'", kind="shape")
    (tmp_path / "rows.jsonl").write_text('no json\n{"sweep": {}}\n')
    refused(ValueError, r"rows\.jsonl, whose line 1 is not that of a sweep", kind="shape")


def test_command(tmp_path: pathlib.Path) -> None:
    from click.testing import CliRunner

    from geodiff.cli import main

    box().save(tmp_path / "box.obj")
    call = ["sweep", "shape", str(tmp_path / "box.obj"), "-o", str(tmp_path / "out"), "--family", "logistic+average"]
    call += [f"--set={name}={value}" for name, value in QUICK.items()]
    done = CliRunner().invoke(main, [*call, "--scales", "1e-1:1e-3:3", "--lrs", "0.2", "--set", "optimizer=adam"])
    assert done.exit_code == 0, done.output
    assert "3 runs, 3 of them now, 0 failed" in done.output and "best: member logistic+average" in done.output
    rows = list(csv.DictReader((tmp_path / "out" / "table.csv").read_text().splitlines()))
    assert [float(row["scale"]) for row in rows] == pytest.approx([0.1, 0.01, 0.001])
    for wrong, message in (
        (["--scales", "1:2"], "neither positive numbers such as"),
        (["--lrs=-1"], "neither positive numbers such as"),
        (["--scales", "0:1:3"], "neither positive numbers such as"),
        (["--set", "steps"], "`--set` must be of the form NAME=VALUE"),
        (["--device", "gpu"], "`device` must be cpu"),
    ):
        failed = CliRunner().invoke(main, [*call, *wrong])
        assert failed.exit_code == 2 and message in failed.output
