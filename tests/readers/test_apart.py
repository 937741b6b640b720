# SPDX-License-Identifier: Apache-2.0
"""Reading in a process of its own: what a file can do to it, and where it can be started from."""

import multiprocessing
import multiprocessing.spawn
import os
import pathlib
import subprocess
import sys
import textwrap

import numpy as np
import pytest

from geodiff.readers import apart
from geodiff.readers.shapes import Damaged, Missing
from tests.readers.hostile import ask

HOSTILE = "tests.readers.hostile"
posix = pytest.mark.skipif(os.name == "nt", reason="limits of memory and computing are the system's")


@pytest.fixture
def path(tmp_path: pathlib.Path) -> pathlib.Path:
    (tmp_path / "some.laz").write_bytes(b"anything")
    return tmp_path / "some.laz"


def test_what_comes_back(path: pathlib.Path) -> None:
    facts, arrays = apart.read(HOSTILE, path, {"what": "print"})
    here, same = apart.read(HOSTILE, path, {"what": "print"}, trusted=True)
    assert facts["pid"] != os.getpid() == here["pid"]
    assert facts["text"] == "é"
    assert "torch" not in facts["modules"]  # it starts quickly
    for array, other in zip(arrays, same, strict=True):
        assert array.dtype == other.dtype
        assert np.array_equal(array, other)
        assert array.flags.writeable


@pytest.mark.parametrize(
    "what, message",
    [
        pytest.param("crash", "the reader crashed with signal 6, SIGABRT", marks=posix),
        ("exit", "the reader crashed with status 0"),
        pytest.param("hang", "took more than 1 s or 4 GB; where you know that .*trusted=True", marks=posix),
        ("sleep", "took more than 1 s"),
        pytest.param("fill", "it asks for more memory than there is", marks=posix),
        ("raise", "^LookupError: no such$"),
    ],
)
def test_what_a_file_can_do(path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, what: str, message: str) -> None:
    if what in ("hang", "sleep"):
        monkeypatch.setattr(apart, "_SECONDS", (1, 0))
        monkeypatch.setattr(apart, "_PATIENCE", 3 if what == "sleep" else 60)
    with pytest.raises(Damaged, match=message):
        apart.read(HOSTILE, path, {"what": what})


def test_what_is_not_installed(path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "laspy", None)
    for trusted in (False, True):
        with pytest.raises(Missing) as caught:
            apart.read("geodiff.readers.las", path, {}, trusted=trusted)
        assert caught.value.needs == ("laspy", "laspy")


def test_without_an_interpreter(path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(multiprocessing.spawn, "get_executable", lambda: None)
    with pytest.raises(RuntimeError, match=r"no Python to start. Name one with multiprocessing.set_exec.*trusted=True"):
        apart.read(HOSTILE, path, {"what": "print"})
    monkeypatch.undo()
    monkeypatch.setattr(apart, "_START", "raise ImportError('geodiff is gone')")
    with pytest.raises(RuntimeError, match=r"did not start \(ImportError: geodiff is gone\)"):
        apart.read(HOSTILE, path, {"what": "print"})


SCRIPT = """
import pathlib, sys
sys.path.insert(0, {root!r})
from geodiff.readers import apart
facts, arrays = apart.read("tests.readers.hostile", pathlib.Path({path!r}), {{"what": "print"}})
print(len(arrays))
"""


@pytest.mark.parametrize("way", ["script", "stdin"])
def test_without_a_guarded_main(tmp_path: pathlib.Path, path: pathlib.Path, way: str) -> None:
    root = os.fspath(pathlib.Path(__file__).parents[2])
    text = textwrap.dedent(SCRIPT).format(root=root, path=os.fspath(path))
    (tmp_path / "script.py").write_text(text)
    command = [sys.executable, "script.py"] if way == "script" else [sys.executable, "-"]
    done = subprocess.run(command, input=text, capture_output=True, text=True, check=True, cwd=tmp_path)
    assert done.stdout == "4\n"  # once: the script itself is not run again


def test_within_a_daemon(path: pathlib.Path) -> None:
    context = multiprocessing.get_context("spawn")
    queue = context.Queue()
    process = context.Process(target=ask, args=(path, queue), daemon=True)
    process.start()
    assert queue.get(timeout=120) == 4
    process.join()
