# SPDX-License-Identifier: Apache-2.0
"""Everything runs on a device that is not the host, and says how often the two wait for each other."""

import json
import pathlib
import re
import subprocess
import sys

import pytest
from torch.utils import backend_registration

ROOT = pathlib.Path(__file__).resolve().parents[1]
KINDS = ("reads", "uploads", "replayed")
SINGLE = 1e-5  # of the largest gradient: float32, sums in other orders

pytestmark = pytest.mark.skipif(
    not hasattr(backend_registration, "_setup_privateuseone_for_python_backend"), reason="this torch makes no devices"
)


def run(module: str) -> str:
    """Run a module of `tests.pretend` in a process of its own: a device is registered for all of one."""
    # Torch's compiler warns of itself.
    command = [sys.executable, "-W", "error", "-W", "ignore::DeprecationWarning", "-m", f"tests.pretend.{module}"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def table() -> dict[str, tuple[int, ...]]:
    """What docs/gpu.md says of a fitting step: reads, uploads, and both in a replay."""
    text = (ROOT / "docs" / "gpu.md").read_text(encoding="utf-8").split("## A fitting step")[1].split("\n## ")[0]
    rows = re.findall(r"^\| (.+?) \| (\d+) \| (\d+) \| (\d+) \|", text, re.MULTILINE)
    return {name: tuple(map(int, counts)) for name, *counts in rows}


def test_a_fitting_step_waits_no_more_often_than_the_table_says() -> None:
    report, said = json.loads(run("cases")), table()
    faults = {}
    for name, found in report.items():
        if "error" in found:
            faults[name] = found["error"]
        elif found["off"] > SINGLE or any(found[kind] > most for kind, most in zip(KINDS, said[name], strict=True)):
            faults[name] = str(found)
    assert not faults, "\n".join(f"{name}: {what}" for name, what in faults.items())
    assert set(report) <= set(said) and len(report) >= 15


def test_jobs_compiled_steps_and_faults() -> None:
    assert run("jobs").split("\n")[-2] == "all"
