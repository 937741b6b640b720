# SPDX-License-Identifier: Apache-2.0
"""geodiff/native/_cpu.pyi is what the extension takes, and mypy checks the calls of kernels by it."""

import importlib.util
import pathlib
import subprocess
import sys

import pytest

CHECKOUT = pathlib.Path(__file__).parents[2]

CALLS = {
    "blend_forward, values=x, index=x, weight=x, out=x": "",
    "blend_forward, values=x, index=x, wait=x, out=x": 'Unexpected keyword argument "wait"',
    "blend_forward, values=x, index=x, weight=x": 'Missing named argument "out"',
    "blend_forward, values=x, index=x, weight=x, out=1": 'Argument "out" to "call" has incompatible type "int"',
    "blend_foreward, values=x": 'Module has no attribute "blend_foreward"',
}


def test_the_stubs_are_current() -> None:
    pytest.importorskip("nanobind.stubgen")
    spec = importlib.util.spec_from_file_location("stubs", CHECKOUT / ".ci" / "stubs.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert module.is_current(), "run `make stubs`"


@pytest.mark.slow
def test_mypy_checks_calls_of_kernels(tmp_path: pathlib.Path) -> None:
    pytest.importorskip("mypy")
    lines = ["import torch", "from geodiff.ops import _op", "x = torch.zeros(1)"]
    lines += [f"_op.call(_op.kernels.{call})" for call in CALLS]
    (tmp_path / "calls.py").write_text("\n".join(lines) + "\n")
    command = [sys.executable, "-m", "mypy", "--follow-imports=silent", str(tmp_path / "calls.py")]
    said = subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True).stdout
    for number, message in enumerate(CALLS.values(), start=4):
        found = [line for line in said.splitlines() if f"calls.py:{number}:" in line]
        assert message in "".join(found) if message else not found, said
