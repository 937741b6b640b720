# SPDX-License-Identifier: Apache-2.0
"""The device script, from its first line to its last, on the host."""

import json
import os
import pathlib
import subprocess
import sys
import time

import pytest
import torch

from geodiff import ops
from geodiff.native.gpu import emulated
from geodiff.ops import _op
from tests.device import checks
from tests.device import run as script
from tests.device.through import through

ROOT = pathlib.Path(script.__file__).parents[2]


def rehearse(out: pathlib.Path, steps: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "GEODIFF_REHEARSE": "1", "OUT": str(out), "STEPS": steps, "OMP_WAIT_POLICY": "passive"}
    command = [sys.executable, "-m", "tests.device.run"]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)


@pytest.mark.skipif(sys.platform != "linux", reason="forks, as on the machines that have a device")
def test_the_script_is_rehearsed(tmp_path: pathlib.Path) -> None:
    """All steps but those that start Python again; each leaves its file, and rows of all that it looked at."""
    done = rehearse(tmp_path, "smoke repeat streams faults graph sanitize bench")
    assert done.returncode == 0, done.stdout + done.stderr
    steps = json.loads((tmp_path / "steps.json").read_text())
    assert [row["status"] for row in steps] == ["passed"] * 7
    for name in ("smoke", "repeat", "streams", "faults", "graph", "bench"):
        rows = json.loads((tmp_path / f"{name}.json").read_text())
        text = (tmp_path / f"{name}.txt").read_text()
        assert rows and all(row["case"] in text for row in rows), name
        assert not any("FAILED" in row.get("verdict", "") for row in rows)
    assert "transport_lse float64" in done.stdout and "bench" in done.stdout.splitlines()[-2]
    assert done.stdout.rstrip().endswith(f"Everything is in {tmp_path}.")


@pytest.mark.skipif(sys.platform != "linux", reason="forks")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_step_that_fails_or_hangs_is_told_of(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    for name, value in {"OUT": str(tmp_path), "STEPS": "env smoke faults", "GEODIFF_REHEARSE": "1"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setitem(script.STEPS, "smoke", 1)
    monkeypatch.setattr(script, "env", lambda place: 0)
    monkeypatch.setattr(checks, "smoke", lambda place: time.sleep(60))
    monkeypatch.setattr(checks, "faults", lambda place: 1 / 0)
    assert script.main() == 1
    rows = {row["step"]: row["status"] for row in json.loads((tmp_path / "steps.json").read_text())}
    assert rows == {"env": "passed", "smoke": "out of time", "faults": "failed (1)"}
    told = capfd.readouterr()
    assert "FAILED ZeroDivisionError" in told.out and "FAILED ZeroDiv" in (tmp_path / "faults.txt").read_text()
    monkeypatch.setenv("STEPS", "dance")
    assert script.main() == 2
    assert "There is no step dance; there are env, smoke, tests, " in capfd.readouterr().err
    monkeypatch.setattr(script, "env", lambda place: 1)  # there is no device: what comes after it is not begun
    monkeypatch.setenv("STEPS", "env faults")
    assert script.main() == 1
    assert [row["step"] for row in json.loads((tmp_path / "steps.json").read_text())] == ["env"]


def test_ops_go_through_a_device_and_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the tests marked cuda do, with the emulator for the device: the same bits as without the copies."""

    def run() -> list[torch.Tensor]:
        generator = torch.Generator().manual_seed(2)
        control, ends = torch.rand(4, 3, generator=generator).requires_grad_(), torch.tensor([0.0, 0, 0, 0.5, 1, 1, 1])
        value = ops.spline(control, [ends], [torch.rand(9, generator=generator)], [2])
        clip = torch.rand(12, 4, generator=generator).add(torch.tensor([-0.5, -0.5, 1, 1]))
        faces, layout = torch.arange(12, dtype=torch.int32).reshape(4, 3), torch.tensor([[0, 0, 4]])
        return [
            value.detach(),
            *torch.autograd.grad(value.square().sum(), control),
            *ops.rasterize(clip, faces, layout, image_size=(5, 6)),
            *ops.visible(clip, faces, layout, image_size=(5, 6)),
        ]

    with emulated():
        expected = run()
        monkeypatch.setitem(_op._BACKENDS, "cpu", through(torch.device("cpu")))
        for own, other in zip(run(), expected, strict=True):
            assert torch.equal(own, other)


def test_what_is_only_read_does_not_count_as_changed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Or autograd would refuse what it has kept of it; NaN is no change, either."""
    monkeypatch.setitem(_op._BACKENDS, "cpu", through(torch.device("cpu")))
    x, h = torch.rand(5, 3, requires_grad=True), torch.tensor([0.0, torch.nan, -torch.inf, 1, 2])
    before = x._version
    with emulated():
        total = ops.vertex_normals(x, torch.tensor([[0, 1, 2], [2, 3, 4]], dtype=torch.int32)).sum()
        clip = torch.tensor([[-1.0, -1, 1, 1], [1, -1, 1, 1], [0, 1, 1, 1]], requires_grad=True)
        faces, layout = torch.tensor([[0, 1, 2]], dtype=torch.int32), torch.tensor([[0, 0, 1]])
        total = total + ops.contour(clip, faces, layout, scale=0.1, image_size=(4, 4)).sum()
        versions = [value._version for value in (x, clip, faces, layout)]
        total.backward()
    assert x._version == before and not any(versions)
    seen = {"h": h, "out": torch.zeros(5)}
    monkeypatch.setattr("tests.device.through.schedule.of", lambda name: lambda h, out: out.fill_(1.0))
    through(torch.device("cpu"))("any", seen)
    assert h._version == 0 and seen["out"].tolist() == [1.0] * 5


def test_what_reads_back_has_no_other_excuse() -> None:
    def refused(text: str) -> bool:
        raise RuntimeError(text)

    rows: list[dict[str, str]] = []
    captures = ("Cannot copy between CPU and CUDA tensors during CUDA graph capture", "CUDA_ERROR_STREAM_CAPTURE_MERGE")
    assert [checks.verdict("it", lambda text=text: refused(text), rows, "reads it") for text in captures] == [0, 0]
    assert checks.verdict("it", lambda: refused("an illegal memory access"), rows, "reads it") == 1
    assert checks.verdict("it", lambda: False, rows, "reads it") == 1
    assert rows[0]["verdict"] == "reads it" and rows[2]["verdict"] == "FAILED RuntimeError: an illegal memory access"


def test_a_corner_is_the_end_of_one_edge_and_the_start_of_the_next() -> None:
    """Rounding says which, so that both are right, but for the distance, and where the edge is the same."""
    distance, along = torch.tensor([[[0.1, -0.2]]]), torch.tensor([[[1.0, 0.4]]])
    nearest = torch.tensor([[[[5, -2], [6, -1]]]])
    other = [distance, torch.tensor([[[0.0, 0.4]]]), torch.tensor([[[[6, -2], [6, -1]]]])]
    given = [distance, along, nearest]
    assert checks.compared("contour", other, given, 1e-6)["verdict"] == "same"
    for wrong in ([distance + 0.1, *other[1:]], [distance, along + 0.1, nearest]):
        assert checks.compared("contour", wrong, given, 1e-6)["verdict"].startswith("FAILED")
