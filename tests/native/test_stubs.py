# SPDX-License-Identifier: Apache-2.0
"""geodiff/native/_cpu.pyi is what the extension takes; see also kernel_calls.py."""

import importlib.util
import pathlib

import pytest

CHECKOUT = pathlib.Path(__file__).parents[2]


def test_the_stubs_are_current() -> None:
    pytest.importorskip("nanobind.stubgen")
    spec = importlib.util.spec_from_file_location("stubs", CHECKOUT / ".ci" / "stubs.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert module.is_current(), "run `make stubs`"
