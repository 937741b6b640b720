# SPDX-License-Identifier: Apache-2.0
"""Files that appear whole or not at all, on full disks and in folders that vanish, and what killed processes leave."""

import errno
import os
import pathlib
import re
import shutil
import socket
import subprocess
import sys
import time

import pytest
import torch

import geodiff as gd
from geodiff.scene import atomic
from geodiff.scene.atomic import alive, replacing, swept

ROOT = pathlib.Path(gd.__file__).parents[1]
GONE = 2**22 + 1  # above the largest process number that Linux gives


def test_a_file_replaces_the_old_one_and_what_is_beside_it_comes_first(tmp_path: pathlib.Path) -> None:
    (tmp_path / "a.obj").write_text("old")
    with replacing(tmp_path / "a.obj") as part:
        part.write_text("new")
        part.with_suffix(".mtl").write_text("beside")
        assert (tmp_path / "a.obj").read_text() == "old"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.mtl", "a.obj"]
    with pytest.raises(RuntimeError, match="midway"), replacing(tmp_path / "a.obj") as part:
        part.write_text("newer")
        raise RuntimeError("midway")
    assert (tmp_path / "a.obj").read_text() == "new" and len(list(tmp_path.iterdir())) == 2


def test_errors_name_the_file(tmp_path: pathlib.Path) -> None:
    target = tmp_path / "a.txt"
    name = re.escape(str(target))
    with pytest.raises(IsADirectoryError, match=r"save: `path` must be a file; got the folder .*Name a file in it"):
        with replacing(tmp_path):
            pass
    with pytest.raises(OSError, match=rf"here: `path` must be where there is a folder with room for it; got {name} "
                       r"\(No space left on device\)\. Free some space"):  # fmt: skip
        with replacing(target, "here"):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match=r"`path` must be in a folder that can be written to; got .*file/a\.txt"):
        with replacing(tmp_path / "file" / "a.txt"):
            pass
    # The folder is deleted while the file is being written.
    with pytest.raises(OSError, match=r"got .*sub/a\.txt \(No such file or directory\)"):
        with replacing(tmp_path / "sub" / "a.txt") as part:
            part.write_text("whole")
            shutil.rmtree(tmp_path / "sub")
    # An error of geodiff's own is not told twice.
    with (
        pytest.raises(OSError, match=r"^inner: `path` must be a file"),
        replacing(target),
        replacing(tmp_path, "inner"),
    ):
        pass
    # A writer within another: the file is named where it was to go.
    with pytest.raises(OSError, match=rf"^inner: .* got {re.escape(str(tmp_path))}/b\.txt \(No space"):
        with replacing(target) as part, replacing(part.parent / "b.txt", "inner"):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


FULL = """
import resource, signal, sys, geodiff as gd, torch
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
ball = gd.icosphere(4)
cameras = gd.Camera.orbit(3.0, 30, torch.arange(2) * 90.0)
images = gd.PosedImages(None, torch.rand(2, 99, 99), cameras)
resource.setrlimit(resource.RLIMIT_FSIZE, (4000, 4000))
for call in (lambda: ball.save(sys.argv[1] + "/ball.obj"), lambda: ball.save(sys.argv[1] + "/ball.ply"),
             lambda: ball.save(sys.argv[1] + "/ball.glb"), lambda: gd.tasks.display(ball).save(sys.argv[1] + "/p.html"),
             lambda: images.save(sys.argv[1] + "/images")):
    try:
        call()
        print("written")
    except OSError as error:
        print(error)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="limits the size of files as Linux does")
def test_a_full_disk(tmp_path: pathlib.Path) -> None:
    """A limit on the size of files stands for the disk; every writer says which file found no room."""
    done = subprocess.run([sys.executable, "-c", FULL, str(tmp_path)], cwd=ROOT, capture_output=True, text=True)
    lines = done.stdout.splitlines()
    assert done.returncode == 0 and len(lines) == 5, done.stderr
    for line, name in zip(lines, ("ball.obj", "ball.ply", "ball.glb", "p.html", "images"), strict=True):
        assert f"{tmp_path}/{name}" in line and "File too large" in line, line
    assert [p.name for p in tmp_path.iterdir()] in (["images"], []) and not list(tmp_path.glob("images/*"))


def test_what_killed_processes_left_is_swept(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    host = socket.gethostname()[:64]
    dead = [f".geodiff-{GONE}-{host}-abcdefgh"]
    old = [".geodiff-12345678", f".geodiff-{os.getpid()}-elsewhere.example.com-a_cdefg1"]
    living = [
        f".geodiff-{os.getpid()}-{host}-abcdefgh",
        f".geodiff-{os.getppid()}-{host}-abcdefgh",
        ".geodiff-87654321",
    ]
    others = [".geodiff-notes", ".geodiffs", "geodiff-12345678", ".geodiff-12345678.txt"]
    for name in dead + old + living + others:
        (tmp_path / name).mkdir()
        (tmp_path / name / "half").write_text("half")
    for name in old:
        yesterday = time.time() - 25 * 3600
        os.utime(tmp_path / name, (yesterday, yesterday))
    (tmp_path / ".geodiff-lock").write_text("a file")
    (tmp_path / ".geodiff-11111111").symlink_to(tmp_path / "geodiff-12345678")
    kept = {*living, *others, ".geodiff-lock", ".geodiff-11111111"}
    # The first file that a process writes into a folder.
    monkeypatch.setattr(atomic, "_swept", set())
    gd.icosphere(1).save(tmp_path / "ball.ply")
    assert {p.name for p in tmp_path.iterdir()} == kept | {"ball.ply"}
    assert (tmp_path / "geodiff-12345678" / "half").exists()
    swept(tmp_path / "none")  # is no error


KILLED = """
import sys, time
from geodiff.scene.atomic import replacing
with replacing(sys.argv[1]) as part:
    part.write_text("half")
    print("ready", flush=True)
    time.sleep(60)
"""


def test_of_one_that_was_killed_here(tmp_path: pathlib.Path) -> None:
    job = subprocess.Popen([sys.executable, "-c", KILLED, str(tmp_path / "a.txt")], cwd=ROOT, stdout=subprocess.PIPE)
    assert job.stdout is not None and job.stdout.readline() == b"ready\n"
    (left,) = tmp_path.iterdir()
    swept(tmp_path)
    assert left.exists(), "it lives"
    job.kill()
    job.wait()
    swept(tmp_path)
    assert not left.exists()
    job.stdout.close()


def test_who_lives() -> None:
    host = socket.gethostname()
    assert alive(os.getpid(), host) and alive(1, host) and alive(GONE, "elsewhere")
    assert not alive(GONE, host) and not alive(10**30, host)


def test_posed_images_too(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / f".geodiff-{GONE}-{socket.gethostname()[:64]}-abcdefgh").mkdir()
    monkeypatch.setattr(atomic, "_swept", set())
    cameras = gd.Camera.orbit(3.0, 30, torch.arange(2) * 90.0)
    gd.PosedImages(None, torch.ones(2, 8, 8), cameras).save(tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["images", "transforms.json"]
