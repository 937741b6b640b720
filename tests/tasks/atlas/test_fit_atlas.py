# SPDX-License-Identifier: Apache-2.0
"""fit_atlas: from clouds to surfaces and files; stopped, killed, shared by processes."""

import dataclasses
import importlib.util
import json
import pathlib
import signal
import subprocess
import sys
import time
from collections.abc import Callable

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image

import geodiff as gd
from geodiff.atlas import closed, watertight
from geodiff.cli import main
from geodiff.tasks.atlas import outputs
from geodiff.tasks.atlas import pictures as atlas_pictures
from geodiff.tasks.checkpoint import read_checkpoint, save_checkpoint
from geodiff.tasks.clouds import read_cloud_file
from tests.tasks.atlas.balls import BALL, NOISE, QUIET, SMALL, ball

ROOT = pathlib.Path(gd.__file__).parents[1]
FIELDS = ("points", "chart", "point", "uv", "inside", "outlier", "sign", "confidence")
FILES = {"atlas.npz", "samples.ply", "charts.obj", "charts.glb", "pictures.png", "errors.png", "metrics.json"}


def same(one: gd.Atlas, other: gd.Atlas) -> bool:
    pairs = [(getattr(one, name), getattr(other, name)) for name in FIELDS]
    pairs += zip(one.charts.parameters(), other.charts.parameters(), strict=True)
    return all(torch.equal(a, b) for a, b in pairs) and (one.noise, one.seed) == (other.noise, other.seed)


def names(folder: pathlib.Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


class Stop(Exception):
    pass


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> gd.tasks.FitAtlasResult:
    output = tmp_path_factory.mktemp("whole") / "out"
    return gd.fit_atlas(ball(), output=output, truth=gd.icosphere(4), watertight=False, command="x", **SMALL)


@pytest.fixture(autouse=True)
def small_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """All but `whole`, which is made before this, is drawn small: to save time."""
    monkeypatch.setattr(atlas_pictures, "SIZE", (40, 40))


# --- from end to end --------------------------------------------------------------------------------------------------


def test_a_ball(whole: gd.tasks.FitAtlasResult) -> None:
    found = whole.atlas.sample(5000)
    off = (found.points.norm(dim=1) - 1).abs()
    raw = (ball().norm(dim=1) - 1).abs().mean()
    assert off.mean() < 0.6 * raw  # the bar
    outwards = (found.normals * torch.nn.functional.normalize(found.points, dim=1)).sum(1)
    assert outwards.mean() > 0.97
    assert whole.atlas.noise == pytest.approx(NOISE, rel=0.3)
    assert whole.metrics["area"] == pytest.approx(4 * np.pi, rel=0.05)


def test_the_files(whole: gd.tasks.FitAtlasResult) -> None:
    folder = whole.files["metrics"].parent
    assert names(folder) == FILES == {path.name for path in whole.files.values()}
    assert same(gd.Atlas.load(folder / "atlas.npz"), whole.atlas)
    read = read_cloud_file(folder / "samples.ply")
    drawn = whole.atlas.sample(2000)
    torch.testing.assert_close(read.points, drawn.points, rtol=0, atol=0)
    assert read.normals is not None
    torch.testing.assert_close(read.normals, drawn.normals, rtol=0, atol=0)
    for ending in ("obj", "glb"):
        mesh = gd.Mesh.load(folder / f"charts.{ending}")
        assert mesh.uv is not None and mesh.uv.min() >= 0 and mesh.uv.max() <= 1
        assert mesh.num_faces == whole.metrics["surface"]["charts_faces"] > 500
    facts = json.loads((folder / "metrics.json").read_text())
    assert facts["points"] == {"given": BALL, "fitted": BALL, "duplicates": 0, "outliers": 0,
                               "unfitted": facts["points"]["unfitted"], "normals": "estimated"}  # fmt: skip
    assert facts["command"] == "x" and facts["settings"]["widths"] == [16, 16] and facts["seconds"] > 0
    assert facts["charts"]["count"] == len(whole.atlas) and len(facts["history"]) == 3 * facts["history"][0]["chunks"]
    assert facts["speed"]["charts_x_steps_per_second"] > 0 and not facts["preview"]
    assert sum(facts["speed"]["stages"].values()) == pytest.approx(facts["seconds"], rel=0.5)


def test_the_figures_against_the_truth(whole: gd.tasks.FitAtlasResult) -> None:
    truth = whole.metrics["truth"]
    # Measured anew; the ball of 5 120 triangles lies within 1e-3 of the round one.
    off = (whole.atlas.sample(2000).points.norm(dim=1) - 1).abs()
    diagonal = 2 * 3**0.5
    assert truth["samples"]["accuracy"]["mean"] * diagonal == pytest.approx(float(off.mean()), abs=1e-3)
    assert truth["input"]["accuracy"]["mean"] > truth["fitted_points"]["accuracy"]["mean"] / 0.6
    assert truth["samples"]["orientation"] > 0.99


def test_the_pictures_show_something(whole: gd.tasks.FitAtlasResult) -> None:
    with Image.open(whole.files["pictures"]) as page:
        assert page.width > 1200 and page.height > 1200
        rows = np.asarray(page.convert("RGB")).astype(int)
    spread = rows.max(2) - rows.min(2)
    third = len(rows) // 4
    assert (spread[third : 2 * third] > 60).mean() < 0.01  # the surface is grey
    assert (spread[2 * third : 3 * third] > 60).mean() > 0.2  # the charts are not
    with Image.open(whole.files["errors"]) as page:
        assert page.width > 800 and page.convert("L").getextrema()[0] < 100


def test_an_open_surface(tmp_path: pathlib.Path) -> None:
    generator = torch.Generator().manual_seed(0)
    flat = torch.rand(800, 2, generator=generator, dtype=torch.float64)
    cloud = torch.cat([flat, 0.3 * (3 * flat[:, :1]).sin()], 1)
    fit = gd.fit_atlas(cloud, output=tmp_path, watertight=False, **SMALL)
    low, high = fit.atlas.sample(5000).points.aminmax(dim=0)
    # Nothing beyond the border, by more than the spacing of the points; and nothing missing there.
    assert low[:2].min() > -0.02 and high[:2].max() < 1.02
    assert low[:2].max() < 0.05 and high[:2].min() > 0.95
    assert fit.metrics["surface"]["charts_boundary_edges"] > 40


def test_normals_in_the_file_decide_the_side(tmp_path: pathlib.Path) -> None:
    inwards = -torch.nn.functional.normalize(ball(), dim=1)
    np.save(tmp_path / "a.npy", torch.cat([ball(), 3 * inwards], 1).numpy())
    options = {**SMALL, "steps": 5, "rounds": 0}
    for use, side in ((True, -1), (False, 1)):
        fit = gd.fit_atlas(tmp_path / "a.npy", file_normals=use, **options)
        found = fit.atlas.sample(500)
        assert ((found.points * found.normals).sum(1) * side > 0).double().mean() > 0.95
        assert fit.metrics["points"]["normals"] == ("given" if use else "estimated")
    fit = gd.fit_atlas(tmp_path / "a.npy", normals=-inwards, **options)  # the argument goes before the file
    found = fit.atlas.sample(500)
    assert ((found.points * found.normals).sum(1) > 0).double().mean() > 0.95


def test_normals_of_random_signs_are_not_believed() -> None:
    """What estimators without orientation give: with them the ball would be turned inside out in patches."""
    points = ball()
    outside = torch.nn.functional.normalize(points, dim=1)
    drawn = torch.where(torch.rand(BALL, 1, generator=torch.Generator().manual_seed(1)) < 0.5, -outside, outside)
    believed = gd.fit_atlas(points, normals=-outside, **SMALL)
    fit = gd.fit_atlas(points, normals=drawn, **SMALL)
    inward, outward = (f.atlas.sample(2000) for f in (believed, fit))
    assert float((inward.normals * inward.points).sum(1).max()) < 0
    assert float((outward.normals * outward.points).sum(1).min()) > 0
    assert any("contradict each other" in note and "without their signs" in note for note in fit.notes), fit.notes
    assert not any("contradict" in note for note in believed.notes)


def test_far_from_the_origin(tmp_path: pathlib.Path, whole: gd.tasks.FitAtlasResult) -> None:
    away = torch.tensor([4e6, -5e6, 100.0], dtype=torch.float64)
    fit = gd.fit_atlas(ball() + away, output=tmp_path, watertight=False, **SMALL)
    near = (fit.atlas.sample(2000).points - away).norm(dim=1)
    # Coordinates of seven digits before the point are known to 1e-9, in float64.
    assert (near - 1).abs().mean() < 1.2 * (whole.atlas.sample(2000).points.norm(dim=1) - 1).abs().mean()
    assert any(
        note.startswith("charts.glb and watertight.ply are moved by −(4000000, -5000000, 100)") for note in fit.notes
    )
    assert gd.Mesh.load(tmp_path / "charts.glb").vertices.norm(dim=1).max() < 1.2


# --- files that are there, and files that cannot be made --------------------------------------------------------------


def test_a_folder_that_exists(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("watertight.ply", "errors.png", "metrics.json", "mine.txt"):
        (tmp_path / name).write_text("old")

    def missing(where: str) -> None:
        raise ImportError(f"{where}: Open3D is not installed. Get it. Without it, something.")

    monkeypatch.setattr(watertight, "load_open3d", missing)
    monkeypatch.setitem(sys.modules, "open3d", None)  # nor in a process of its own
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *rest: None if name == "matplotlib" else find(name))
    fit = gd.fit_atlas(ball(), output=tmp_path, **{**SMALL, "steps": 5, "rounds": 0, "depth": 5})
    # What is not made anew would pass for this fit's; what is not ours stays.
    assert names(tmp_path) == (FILES - {"errors.png"}) | {"watertight.ply", "mine.txt"}
    assert gd.Mesh.load(tmp_path / "watertight.ply").is_closed
    assert fit.metrics["surface"]["watertight_by"] == "winding"
    assert not any("watertight" in text for text in fit.metrics["failed_checks"])
    assert [note for note in fit.notes if not note.startswith("Not to be relied on")] == [
        "watertight.ply is made by the winding number, not by Poisson's equation: Open3D is not installed. Get it.",
        'errors.png is left out: it needs Matplotlib, pip install "geodiff[plot]"',
    ]
    assert json.loads((tmp_path / "metrics.json").read_text())["notes"] == fit.notes


def test_a_watertight_mesh(tmp_path: pathlib.Path) -> None:
    pytest.importorskip("open3d", exc_type=ImportError)
    options = {**SMALL, "steps": 5, "rounds": 0, "samples": 5000, "depth": 5}
    fit = gd.fit_atlas(ball(), output=tmp_path, **options)
    mesh = gd.Mesh.load(tmp_path / "watertight.ply")
    assert len(mesh.boundary_edges) == 0 and (mesh.vertices.norm(dim=1) - 1).abs().max() < 0.2
    assert fit.metrics["surface"]["watertight_boundary_edges"] == 0


def test_two_balls_and_what_is_kept(tmp_path: pathlib.Path) -> None:
    cloud = torch.cat([ball(900), 0.7 * ball(600) + torch.tensor([3.0, 0, 0])])
    options = {**SMALL, "steps": 5, "rounds": 0, "depth": 5}
    fit = gd.fit_atlas(cloud, output=tmp_path, **options)
    assert any("watertight.ply holds 1 of 2 parts" in note and "--keep-components 2" in note for note in fit.notes)
    facts = json.loads((tmp_path / "metrics.json").read_text())
    assert facts["surface"]["watertight_components"] == 1 and facts["notes"] == fit.notes
    fit = gd.fit_atlas(cloud, output=tmp_path, keep_components=2, **options)
    assert fit.metrics["surface"]["watertight_components"] == 2
    assert not any("parts" in note for note in fit.notes)
    assert gd.Mesh.load(tmp_path / "watertight.ply").is_closed


@pytest.mark.parametrize("strict", [False, True])
def test_strict(strict: bool, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    points = ball(400)
    random = torch.Generator().manual_seed(1)
    normals = torch.nn.functional.normalize(points, dim=1) * torch.randint(2, (400, 1), generator=random).mul(2).sub(1)
    np.savetxt(tmp_path / "ball.xyz", torch.cat([points, normals], 1).numpy())
    real = closed.begin_closing

    def broken(*arguments: torch.Tensor, **options: object) -> Callable[[], closed.Closed]:
        found = real(*arguments, **options)()  # type: ignore[arg-type]
        wrong = dataclasses.replace(found.faults, boundary_edges=7)
        return lambda: dataclasses.replace(found, faults=wrong, crossings=3)

    monkeypatch.setattr(outputs, "begin_closing", broken)
    command = ["fit-atlas", str(tmp_path / "ball.xyz"), "-o", str(tmp_path / "out"), "--widths", "8", "--steps", "2"]
    command += ["--rounds", "0", "--target", "60", "--samples", "500", "--depth", "4", *["--strict"] * strict]
    found = CliRunner().invoke(main, command)
    assert (found.exit_code != 0) == strict
    assert ("missed its own checks: " in found.output) == strict
    facts = json.loads((tmp_path / "out" / "metrics.json").read_text())
    failed = "; ".join(facts["failed_checks"])
    for text in ("charts are down to the noise", "The given normals contradict each other",
                 "watertight.ply: 7 boundary edges", "watertight.ply: 3 pairs of faces cross"):  # fmt: skip
        assert text in failed
    # What is printed as a note is in metrics.json, and the other way round.
    told = found.output.split("metrics.json\n", 1)[1].split("Error: ")[0]
    assert [line.strip() for line in told.splitlines() if line.strip()] == facts["notes"]
    assert sum(note.startswith("Not to be relied on") for note in facts["notes"]) >= 1


def test_what_a_fit_misses(whole: gd.tasks.FitAtlasResult) -> None:
    def missed(*notes: str, **metrics: object) -> list[str]:
        changed = {key: {**whole.metrics[key], **new} if isinstance(new, dict) else new for key, new in metrics.items()}
        return outputs.missed_checks(dataclasses.replace(whole, metrics={**whole.metrics, **changed}, notes=[*notes]))

    good = {"charts": {"count": 10, "converged": 9}, "points": {"fitted": 100, "unfitted": 1}, "confidence": 0.8}
    assert missed(**good) == []
    assert "4 of 10 charts" in missed(**{**good, "charts": {"count": 10, "converged": 4}})[0]
    assert "5 of 100 points" in missed(**{**good, "points": {"fitted": 100, "unfitted": 5}})[0]
    assert (
        "51 of 101 points were left out"
        in missed(**{**good, "points": {"fitted": 50, "unfitted": 0, "outliers": 51}})[0]
    )
    assert "mean confidence is 0.30" in missed(**{**good, "confidence": 0.3})[0]
    assert missed("The given normals contradict each other: 40 %.", **good) == [
        "The given normals contradict each other"
    ]


@pytest.mark.parametrize("name", ["plane", "ball", "cube", "noise on one side"])
def test_what_a_good_fit_does_not_miss(name: str) -> None:
    """Without noise, no chart is down to it; and noise of one place is not that of all."""
    random = np.random.default_rng(0)
    count = 1200 if name == "cube" else 600
    square = np.c_[random.random((count, 2)), np.zeros(count)]
    if name == "ball":
        points = ball(count, 0.0).numpy()
    elif name == "cube":
        points, side = random.random((count, 3)), random.integers(6, size=count)
        points[np.arange(count), side // 2] = side % 2
    else:
        sigma = np.where(square[:, :1] > 0.6, 0.03, 0.003) * (name != "plane")
        points = square + sigma * random.normal(size=square.shape)
    fit = gd.fit_atlas(points, **QUIET)
    assert outputs.missed_checks(fit) == []
    if name == "ball":
        few = gd.fit_atlas(points, steps=2, rounds=0, **QUIET)
        assert any("down to the noise" in text for text in outputs.missed_checks(few))


def test_a_preview(tmp_path: pathlib.Path) -> None:
    """Of some of the points, said to be one, and a checkpoint of the whole fit is neither read nor replaced."""
    np.save(tmp_path / "ball.npy", torch.cat([ball(4000), torch.nn.functional.normalize(ball(4000), dim=1)], 1).numpy())
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "checkpoint.pt").write_bytes(b"of the whole fit")
    command = ["fit-atlas", str(tmp_path / "ball.npy"), "-o", str(tmp_path / "out"), "--preview", "--widths", "16x16"]
    found = CliRunner().invoke(main, [*command, "--target", "200"])
    assert found.exit_code == 0, found.output
    assert "This is a preview, of 3000 of 4000 points" in found.output
    assert names(tmp_path / "out") == FILES | {"checkpoint.pt"}
    assert (tmp_path / "out" / "checkpoint.pt").read_bytes() == b"of the whole fit"
    facts = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert facts["preview"] and facts["points"]["given"] == 4000 and facts["points"]["fitted"] == 3000
    assert facts["points"]["normals"] == "given" and facts["notes"][0].startswith("This is a preview")
    assert set(facts["speed"]["stages"]) == {
        "cloud", "cover", "fit", "agree 1", "orient", "samples", "mesh", "files", "pictures"
    }  # fmt: skip
    off = gd.Atlas.load(tmp_path / "out" / "atlas.npz").fitted_points().norm(dim=1) - 1
    assert off.abs().mean() < NOISE


def test_a_preview_of_bad_points() -> None:
    """Told in the caller's rows, not in those of the draw."""
    points = ball(4000)
    points[3000, 1] = torch.nan
    with pytest.raises(ValueError, match=r"`points` must be finite; got nan at index \(3000, 1\)"):
        gd.fit_atlas(points, preview=True, **QUIET)
    with pytest.raises(ValueError, match=r"`normals` must be finite; got nan at index \(3000, 1\)"):
        gd.fit_atlas(ball(4000), normals=points, preview=True, **QUIET)
    for preview in (False, True):
        with pytest.raises(ValueError, match=r"`points` must be of shape \(N, 3\)"):
            gd.fit_atlas(torch.tensor(5.0), preview=preview, **QUIET)
        with pytest.raises(ValueError, match=r"`normals` must be of shape \(4000, 3\)"):
            gd.fit_atlas(ball(4000), normals=torch.tensor(5.0), preview=preview, **QUIET)


def test_an_output_in_the_way(tmp_path: pathlib.Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="fit_atlas: `output` must be a folder that can be written to"):
        gd.fit_atlas(ball(), output=tmp_path / "file", **SMALL)


# --- interrupted, killed, shared --------------------------------------------------------------------------------------


@pytest.mark.parametrize("after", [2, 8])
def test_resumed_is_bitwise_the_same(after: int, tmp_path: pathlib.Path, whole: gd.tasks.FitAtlasResult) -> None:
    """Stopped among the local fits, and within a round of agreement."""
    chunks = whole.history[0]["chunks"]
    assert 2 < chunks < 8 < 2 * chunks  # or the stops are elsewhere
    seen = []

    def stop(progress: gd.tasks.Progress) -> None:
        seen.append(progress)
        if len(seen) == after:
            raise Stop

    with pytest.raises(Stop):
        gd.fit_atlas(ball(), output=tmp_path, watertight=False, checkpoint_seconds=0, callback=stop, **SMALL)
    assert names(tmp_path) == {"checkpoint.pt"}
    with pytest.raises(ValueError, match=r"checkpoint of the same job; got .* made with steps 60 \(now 61\)"):
        gd.fit_atlas(ball(), output=tmp_path, **{**SMALL, "steps": 61})
    with pytest.raises(ValueError, match="made with other points"):
        gd.fit_atlas(1.5 * ball(), output=tmp_path, **SMALL)
    rest: list[gd.tasks.Progress] = []
    fit = gd.fit_atlas(ball(), output=tmp_path, watertight=False, callback=rest.append, **SMALL)
    assert same(fit.atlas, whole.atlas) and len(rest) == len(whole.history) - after
    timeless = [[{k: v for k, v in r.items() if k != "seconds"} for r in h] for h in (fit.history, whole.history)]
    assert timeless[0] == timeless[1]
    assert names(tmp_path) == FILES


def test_a_checkpoint_of_another_version_is_refused(tmp_path: pathlib.Path) -> None:
    """Of before the normals of charts were kept: it is said to be of another version, not only damaged."""
    options = {**SMALL, "steps": 2, "rounds": 0, "watertight": False, "checkpoint_seconds": 0}

    def stop(progress: gd.tasks.Progress) -> None:
        raise Stop

    with pytest.raises(Stop):
        gd.fit_atlas(ball(), output=tmp_path, callback=stop, **options)
    path = tmp_path / "checkpoint.pt"
    content = read_checkpoint(path.read_bytes())
    del content["state"]["fitter"]["facing"]
    save_checkpoint(path, "fit_atlas", content["inputs"], content["state"])
    with pytest.raises(ValueError, match=r"of another version, or damaged: fitter lacks facing.* Start afresh with"):
        gd.fit_atlas(ball(), output=tmp_path, **options)


def test_fresh_forgets_the_checkpoint(tmp_path: pathlib.Path) -> None:
    (tmp_path / "checkpoint.pt").write_bytes(b"something else")
    options = {**SMALL, "steps": 2, "rounds": 0, "watertight": False}
    with pytest.raises(ValueError, match="fit_atlas: `resume` must be given a sound checkpoint"):
        gd.fit_atlas(ball(), output=tmp_path, **options)
    gd.fit_atlas(ball(), output=tmp_path, resume=False, **options)
    assert names(tmp_path) == FILES


KILLED = """
import sys, numpy as np, torch, geodiff as gd
torch.set_num_threads(1)
gd.fit_atlas(sys.argv[1], output=sys.argv[2], checkpoint_seconds=0, progress=False, widths=(16, 16), steps=60,
             rounds=40, chunk=4, target=60, watertight=False)
"""


def test_killed_and_resumed(tmp_path: pathlib.Path) -> None:
    """SIGKILL while checkpoints are being written all the time: the one there is whole, and the job goes on."""
    np.save(tmp_path / "ball.npy", ball().numpy())
    arguments = [sys.executable, "-c", KILLED, str(tmp_path / "ball.npy"), str(tmp_path / "out")]
    job = subprocess.Popen(arguments, cwd=ROOT)
    checkpoint = tmp_path / "out" / "checkpoint.pt"
    until = time.monotonic() + 60
    while not checkpoint.exists() and job.poll() is None and time.monotonic() < until:
        time.sleep(0.02)
    time.sleep(0.2)
    job.send_signal(signal.SIGKILL)
    assert job.wait() == -signal.SIGKILL, "the job ended before it could be killed"
    reached = len(read_checkpoint(checkpoint.read_bytes())["state"]["history"])
    records: list[dict] = []

    def few(progress: gd.tasks.Progress) -> None:
        records.append(progress.record)
        if len(records) == 3:
            raise Stop

    with pytest.raises(Stop):
        gd.fit_atlas(tmp_path / "ball.npy", output=tmp_path / "out", callback=few, checkpoint_seconds=0,
                     **{**SMALL, "rounds": 40, "chunk": 4})  # fmt: skip
    again = read_checkpoint(checkpoint.read_bytes())["state"]["history"]
    assert reached >= 1 and len(again) == reached + 3 and again[reached:] == records


def test_two_processes_of_torchrun_make_the_same_atlas(tmp_path: pathlib.Path, whole: gd.tasks.FitAtlasResult) -> None:
    np.save(tmp_path / "ball.npy", ball().numpy())
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m", "geodiff.cli"]
    command += ["fit-atlas", str(tmp_path / "ball.npy"), "-o", str(tmp_path / "out"), "--no-watertight"]
    command += ["--widths", "16x16"]
    for name in ("steps", "rounds", "chunk", "target", "samples"):
        command += [f"--{name}", str(SMALL[name])]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert run.stdout.count("down to the noise") == 1  # of both, only one speaks
    assert same(gd.Atlas.load(tmp_path / "out" / "atlas.npz"), whole.atlas)
    facts = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert facts["speed"]["processes"] == 2 and facts["charts"] == whole.metrics["charts"]


KILLED_IN_A_TEAM = """
import os, pathlib, signal, sys, torch, geodiff as gd
from geodiff.atlas import fit
fit.MEET = 1
first, rank = os.environ["TORCHELASTIC_RESTART_COUNT"] == "0", os.environ["RANK"]
steps = []

def told(progress):
    steps.append(progress.record["stage"])
    if first and rank == sys.argv[3] and len(steps) == int(sys.argv[4]):
        os.kill(os.getpid(), signal.SIGKILL)

gd.fit_atlas(sys.argv[1], output=sys.argv[2], checkpoint_seconds=0, progress=False, callback=told, watertight=False,
             widths=(16, 16), steps=60, rounds=2, chunk=16, target=60, samples=2000)
pathlib.Path(sys.argv[2], f"steps{rank}").write_text(",".join(steps))
"""


@pytest.mark.parametrize(("rank", "after"), [(1, 2), pytest.param(0, 4, marks=pytest.mark.slow)])
def test_a_killed_team_resumes(rank: int, after: int, tmp_path: pathlib.Path, whole: gd.tasks.FitAtlasResult) -> None:
    """One of two processes dies within the first fits (or a round of agreement), torchrun ends and restarts both."""
    np.save(tmp_path / "ball.npy", ball().numpy())
    (tmp_path / "job.py").write_text(KILLED_IN_A_TEAM)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "--max-restarts=1"]
    command += [str(tmp_path / "job.py"), str(tmp_path / "ball.npy"), str(tmp_path / "out"), str(rank), str(after)]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert same(gd.Atlas.load(tmp_path / "out" / "atlas.npz"), whole.atlas)
    facts = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert facts["speed"]["processes"] == 2
    # What was saved was not done again: each process has told of fewer chunks than the stages have.
    chunks = whole.history[0]["chunks"]
    told = [(tmp_path / "out" / f"steps{r}").read_text().split(",") for r in (0, 1)]
    assert sum(map(len, told)) < 3 * chunks
    assert told[0].count("fit") + told[1].count("fit") < chunks
