# SPDX-License-Identifier: Apache-2.0
"""Poisson's equation in another process: the same bits, and done in this one where that fails."""

import importlib.util
import multiprocessing.spawn
import os
import pathlib
import signal
import sys
from typing import Any

import numpy as np
import pytest
import torch

from geodiff.atlas import beside, closed
from geodiff.atlas.beside import Beside
from geodiff.atlas.closed import begin_closing, closed_mesh
from geodiff.atlas.poisson_worker import packed, unpacked
from geodiff.atlas.watertight import poisson_faces

DEPTH = 4


def ball(count: int) -> torch.Tensor:
    return torch.nn.functional.normalize(torch.randn(count, 3, generator=torch.Generator().manual_seed(1)), dim=1)


def test_arrays_there_and_back() -> None:
    one, other = np.arange(6.0).reshape(2, 3), np.array([1, 2])
    back = unpacked(packed(one, other), 2)
    assert np.array_equal(back[0], one) and np.array_equal(back[1], other)
    with pytest.raises(EOFError):
        unpacked(packed(one), 2)


def test_the_same_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    """The other process solves, whatever folder it was started in; nothing is solved here, but what it did not."""
    pytest.importorskip("open3d", exc_type=ImportError)
    here = []

    def counted(where: str, *given: Any) -> tuple[np.ndarray, np.ndarray]:
        here.append(1)
        return poisson_faces(where, *given)

    monkeypatch.setattr(closed, "poisson_faces", counted)
    x = ball(500)
    with Beside() as other:
        finish = begin_closing(x, x, depth=DEPTH, beside=other)
        assert other._process is not None
        found = finish()
    assert not here
    assert other._process.poll() is not None  # nothing goes on
    alone = closed_mesh(x, x, depth=DEPTH)
    assert here == [1] and found.way == "poisson"
    assert torch.equal(found.mesh.vertices, alone.mesh.vertices) and torch.equal(found.mesh.faces, alone.mesh.faces)
    with Beside() as other:
        begin_closing(x, x, depth=DEPTH, beside=other)
        assert other._process is not None
        os.kill(other._process.pid, signal.SIGKILL)
        assert other.result() is None
        again = begin_closing(x, x, depth=DEPTH, beside=other)()
    assert here == [1, 1] and torch.equal(again.mesh.vertices, found.mesh.vertices)


@pytest.mark.parametrize("way", ["unwanted", "absent", "no interpreter"])
def test_no_process(way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if way == "absent":
        monkeypatch.setitem(sys.modules, "open3d", None)
        assert not beside._installed()
    if way == "no interpreter":
        monkeypatch.setattr(multiprocessing.spawn, "get_executable", lambda: "/no/such/program")
        monkeypatch.setattr(importlib.util, "find_spec", lambda _: True)
    with Beside(way != "unwanted") as other:
        other.ask(np.zeros((4, 3)), np.ones((4, 3)), DEPTH, 1)
        assert other._process is None and other.result() is None


def test_the_working_directory_is_not_imported_from(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor does what lies on the path of modules, or a directory that is gone, stop anything."""
    pytest.importorskip("open3d", exc_type=ImportError)
    for name in ("json", "runpy", "sys", "types"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('not this one')")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [b"/no/such/place", *(place for place in sys.path if place)])
    x = ball(500).double().numpy()
    with Beside() as other:
        other.ask((x + 1) / 2, x, DEPTH, 1)
        assert other.result() is not None
    monkeypatch.setattr(sys, "path", ["", *sys.path])
    monkeypatch.setattr(os, "getcwd", _gone)
    with Beside() as other:
        assert other._process is None and other.result() is None


def test_pipes_that_are_closed_say_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """As after Ctrl-C: no traceback of the thread, and nothing found."""
    pytest.importorskip("open3d", exc_type=ImportError)

    def closed_under_it(_: bytes) -> tuple[bytes, bytes]:
        raise ValueError("I/O operation on closed file")

    with Beside() as other:
        assert other._process is not None
        monkeypatch.setattr(other._process, "communicate", closed_under_it)
        other.ask(np.zeros((4, 3)), np.ones((4, 3)), DEPTH, 1)
        assert other.result() is None


def _gone() -> str:
    raise FileNotFoundError
