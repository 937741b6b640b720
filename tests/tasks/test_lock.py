# SPDX-License-Identifier: Apache-2.0
"""One process at a time in an output folder, whatever the job; and folders swept of what killed ones left."""

import json
import os
import pathlib
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from typing import Any

import pytest
import torch
from click.testing import CliRunner

import geodiff as gd
from geodiff.cli import main
from geodiff.tasks import lock
from geodiff.tasks.lock import LOCK, output_folder

ROOT = pathlib.Path(gd.__file__).parents[1]
GONE = 2**22 + 1  # above the largest process number that Linux gives
HOLDER = """
import sys, time
from geodiff.tasks.lock import output_folder
with output_folder("fit_mesh", sys.argv[1]):
    print("ready", flush=True)
    time.sleep(60)
"""


def note(folder: pathlib.Path, pid: int, host: str) -> None:
    (folder / LOCK).write_text(json.dumps({"pid": pid, "host": host, "job": "fit_pose"}))


def mesh(folder: pathlib.Path, **more: Any) -> Any:
    cameras = gd.Camera.orbit(2.732, 20.0, torch.arange(4) * 90.0, fov_deg=30)
    alpha = gd.rasterize(gd.box((0.7, 0.35, 0.5)), cameras, 16).mask.float()
    return gd.tasks.fit_mesh(alpha, cameras, output=folder, steps=2, subdivisions=1, progress=False, **more)


def pose(folder: pathlib.Path, **more: Any) -> Any:
    box = gd.box((1.0, 0.5, 0.3))
    image = gd.rasterize(box, gd.Camera.orbit(4.0, 30, 40, fov_deg=40), 16).mask.float()
    return gd.tasks.fit_pose(box, image, output=folder, steps=2, candidates=4, starts=2, size=16, polish=0,
                             progress=False, **more)  # fmt: skip


def nurbs(folder: pathlib.Path, **_: Any) -> Any:
    return gd.tasks.fit_nurbs(torch.rand(6, 6), kind="heights", control_shape=(4, 4), output=folder, progress=False)


def atlas(folder: pathlib.Path, **more: Any) -> Any:
    ball = torch.nn.functional.normalize(torch.randn(200, 3), dim=1)
    return gd.fit_atlas(ball, output=folder, widths=(8,), steps=2, rounds=0, watertight=False, samples=100,
                        progress=False, **more)  # fmt: skip


def sweep(folder: pathlib.Path, **more: Any) -> Any:
    options = {"views": 2, "size": 8, "steps": 1, "subdivisions": 1}
    return gd.tasks.sweep("shape", gd.box(), output=folder, family="logistic+probabilistic", scales=[0.01],
                          lrs=[0.2], options=options, progress=False, **more)  # fmt: skip


JOBS = {"fit_mesh": mesh, "fit_pose": pose, "fit_nurbs": nurbs, "fit_atlas": atlas, "sweep": sweep}


@pytest.fixture(scope="module")
def held(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A folder that another process holds."""
    folder = tmp_path_factory.mktemp("held")
    holder = subprocess.Popen([sys.executable, "-c", HOLDER, str(folder)], cwd=ROOT, stdout=subprocess.PIPE)
    assert holder.stdout is not None and holder.stdout.readline() == b"ready\n"
    yield folder, holder
    holder.kill()
    holder.wait()
    holder.stdout.close()


@pytest.mark.parametrize("job", list(JOBS))
def test_another_process_is_named(job: str, held: tuple[pathlib.Path, Any]) -> None:
    folder, holder = held
    (folder / "rows.jsonl").write_text("theirs")
    more = {} if job == "fit_nurbs" else {"resume": False}  # not even a fresh start takes away what is not its own
    with pytest.raises(ValueError, match=rf"{job}: `output` must be a folder that no other process writes to; got .*"
                       rf"held by process {holder.pid} on .* \(fit_mesh\)\. Wait for it or end it"):  # fmt: skip
        JOBS[job](folder, **more)
    assert (folder / LOCK).exists() and (folder / "rows.jsonl").read_text() == "theirs"


def test_render_keeps_off_too(held: tuple[pathlib.Path, Any], tmp_path: pathlib.Path) -> None:
    folder, holder = held
    before = set(folder.iterdir())
    gd.box().save(tmp_path / "box.obj")
    command = ["render", str(tmp_path / "box.obj"), "--views", "2", "--size", "8", "-o"]
    result = CliRunner().invoke(main, [*command, str(folder)])
    assert result.exit_code == 2
    assert "Error: render: `output` must be a folder that no other process writes to; got " in result.output
    assert f"held by process {holder.pid} on " in result.output and set(folder.iterdir()) == before
    assert CliRunner().invoke(main, [*command, str(tmp_path / "mine")]).exit_code == 0
    assert {path.name for path in (tmp_path / "mine").iterdir()} == {"images", "transforms.json"}


class Stop(BaseException):
    """Stands for Ctrl-C, which pytest would take for its own."""


@pytest.mark.parametrize("job", list(JOBS))
def test_the_lock_is_there_during_a_job_and_gone_afterwards(
    job: str, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After the end, an error or Ctrl-C; the lock of a process that is gone is taken over, what it left is swept."""
    note(tmp_path, GONE, socket.gethostname())
    left = tmp_path / f".geodiff-{GONE}-{socket.gethostname()[:64]}-abcdefgh"
    left.mkdir()
    seen: list[dict[str, Any]] = []
    ends: list[type[BaseException] | None] = [ValueError, Stop, None]
    whole = lock._held

    def watched(where: str, folder: pathlib.Path) -> Any:
        context = whole(where, folder)
        kept = context.__exit__

        class Watched:
            def __enter__(self) -> None:
                context.__enter__()
                seen.append(json.loads((folder / LOCK).read_text()))

            def __exit__(self, *error: Any) -> Any:
                assert (folder / LOCK).exists() and not left.exists()
                return kept(*error)

        return Watched()

    monkeypatch.setattr(lock, "_held", watched)
    for end in ends:
        with monkeypatch.context() as patch:
            if end is not None:
                broken = {"fit_mesh": "geodiff.tasks.mesh.job._Job.run", "fit_pose": "geodiff.tasks.pose.job._Job.run",
                          "fit_nurbs": "geodiff.tasks.nurbs.job.fit_surface",
                          "fit_atlas": "geodiff.tasks.atlas.job._Job.run",
                          "sweep": "geodiff.tasks.sweep.job.run_case"}[job]  # fmt: skip
                module, names = ".".join(broken.split(".")[:4]), broken.split(".")[4:]
                target: Any = sys.modules[module]  # not by attributes: functions have names of folders
                for name in names[:-1]:
                    target = getattr(target, name)

                def fails(*_: Any, end: type[BaseException] = end, **__: Any) -> None:
                    raise end("stopped here")

                patch.setattr(target, names[-1], fails)
                with pytest.raises(end, match="stopped here"):
                    JOBS[job](tmp_path)
            else:
                JOBS[job](tmp_path)
        assert not list(tmp_path.glob(".geodiff*"))
    assert [s["pid"] for s in seen] == [os.getpid()] * 3 and {s["job"] for s in seen} == {job}


def test_the_lock_of_a_killed_process_is_taken_over(tmp_path: pathlib.Path) -> None:
    holder = subprocess.Popen([sys.executable, "-c", HOLDER, str(tmp_path)], cwd=ROOT, stdout=subprocess.PIPE)
    assert holder.stdout is not None and holder.stdout.readline() == b"ready\n"
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    holder.stdout.close()
    assert json.loads((tmp_path / LOCK).read_text())["pid"] == holder.pid
    with output_folder("sweep", tmp_path):
        assert json.loads((tmp_path / LOCK).read_text()) == {
            "pid": os.getpid(), "host": socket.gethostname(), "job": "sweep"}  # fmt: skip
    assert not (tmp_path / LOCK).exists()


def test_of_many_at_once_one_gets_it(tmp_path: pathlib.Path) -> None:
    inside, most, refused = [0], [0], [0]
    guard = threading.Lock()

    def work() -> None:
        for _ in range(30):
            try:
                with output_folder("job", tmp_path):
                    with guard:
                        inside[0] += 1
                        most[0] = max(most[0], inside[0])
                    with guard:
                        inside[0] -= 1
            except ValueError:
                refused[0] += 1

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == [1] and refused[0] < 120 and not list(tmp_path.iterdir())


@pytest.mark.parametrize("why", ["no such call", "no locks here"])
def test_where_the_file_system_has_no_locks(why: str, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file itself says whose it is."""
    if why == "no such call":
        monkeypatch.setattr(lock, "fcntl", None)
    else:
        import errno
        import fcntl

        def without(*_: object) -> None:
            raise OSError(errno.ENOLCK, "No locks available")

        monkeypatch.setattr(fcntl, "flock", without)
    take: Callable[[], Any] = lambda: output_folder("sweep", tmp_path)  # noqa: E731
    note(tmp_path, os.getppid(), socket.gethostname())
    with pytest.raises(ValueError, match=rf"held by process {os.getppid()} on .* \(fit_pose\)\. Wait"), take():
        pass
    note(tmp_path, GONE, "elsewhere")  # nobody here can tell
    with pytest.raises(ValueError, match=rf"process {GONE} on elsewhere .*if it is gone, remove .*{LOCK}"), take():
        pass
    for stale in (json.dumps({"pid": GONE, "host": socket.gethostname(), "job": "x"}), "", "no json", '{"pid": []}'):
        (tmp_path / LOCK).write_text(stale)
        with take(), pytest.raises(ValueError, match=f"held by process {os.getpid()} on"), take():
            pass
        assert not (tmp_path / LOCK).exists()


def test_a_folder_deleted_meanwhile(tmp_path: pathlib.Path) -> None:
    import shutil

    with output_folder("sweep", tmp_path / "out") as folder:
        assert folder == tmp_path / "out"
        shutil.rmtree(tmp_path / "out")
    assert not (tmp_path / "out").exists()
    with output_folder("sweep", None) as nothing:
        assert nothing is None


@pytest.mark.parametrize("job", ["fit_mesh", "fit_pose", "fit_atlas", "sweep"])
def test_a_folder_deleted_in_mid_run_is_named(job: str, tmp_path: pathlib.Path) -> None:
    import shutil

    out = tmp_path / "out"

    def gone(*_: object) -> None:
        shutil.rmtree(out, ignore_errors=True)

    more: dict[str, Any] = {"callback": gone}
    if job in ("fit_mesh", "fit_pose"):
        more["checkpoint_seconds"] = 0
    if job == "sweep":
        with pytest.raises(OSError, match=rf"sweep: `output` must be a folder that can be written to; got {out}/rows"):
            gd.tasks.sweep("shape", gd.box(), output=out, family="logistic+probabilistic", scales=[0.01, 0.02],
                           lrs=[0.2], options={"views": 2, "size": 8, "steps": 1, "subdivisions": 1},
                           progress=False, callback=gone)  # fmt: skip
        return
    if job == "fit_atlas":
        more |= {"checkpoint_seconds": 0, "chunk": 1, "target": 60}
    with pytest.raises(
        OSError, match=rf"{job}: `output` must be a folder that can be written to; got {out}/checkpoint"
    ):
        JOBS[job](out, **more)


def test_a_full_disk_leaves_the_checkpoint_before(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The disk fills up while the second checkpoint is written: the first is whole, and the job goes on from it."""
    import errno

    from geodiff.tasks import checkpoint as module

    calls: list[int] = []
    replace = os.replace

    def full(source: Any, target: Any) -> None:
        calls.append(1)
        if len(calls) == 2:
            raise OSError(errno.ENOSPC, "No space left on device")
        replace(source, target)

    monkeypatch.setattr(module.os, "replace", full)
    with pytest.raises(OSError, match=r"got .*checkpoint\.pt .*No space left on device.*The checkpoint before it"):
        _three_steps(tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["checkpoint.pt"]
    monkeypatch.undo()
    steps: list[int] = []
    _three_steps(tmp_path, callback=lambda progress: steps.append(progress.step))
    assert steps == [2, 3, 4]


def _three_steps(folder: pathlib.Path, **more: Any) -> Any:
    cameras = gd.Camera.orbit(2.732, 20.0, torch.arange(4) * 90.0, fov_deg=30)
    alpha = gd.rasterize(gd.box((0.7, 0.35, 0.5)), cameras, 16).mask.float()
    return gd.tasks.fit_mesh(alpha, cameras, output=folder, steps=4, checkpoint_seconds=0, subdivisions=1,
                             progress=False, **more)  # fmt: skip


@pytest.mark.slow
def test_a_team_keeps_off_a_folder_that_another_process_holds(
    held: tuple[pathlib.Path, Any], tmp_path: pathlib.Path
) -> None:
    """The first process of torchrun's holds the folder for all; none of them touches what is in it before."""
    folder, holder = held
    (folder / "rows.jsonl").write_text("theirs")
    gd.box().save(tmp_path / "box.obj")
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m", "geodiff.cli"]
    command += ["sweep", "shape", str(tmp_path / "box.obj"), "-o", str(folder), "--fresh", "--family", "logistic+*"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode != 0 and f"held by process {holder.pid} on" in done.stderr, done.stderr
    assert (folder / "rows.jsonl").read_text() == "theirs" and not (folder / "rows.1.jsonl").exists()
