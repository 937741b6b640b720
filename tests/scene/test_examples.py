# SPDX-License-Identifier: Apache-2.0
"""Run the examples of the docstrings of this room and of docs/conventions.md."""

import doctest
import importlib
import pathlib

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
MODULES = sorted(path.stem for path in (ROOT / "geodiff" / "scene").glob("*.py") if path.stem != "__init__")


@pytest.mark.parametrize("name", MODULES)
def test_docstrings(name: str) -> None:
    assert doctest.testmod(importlib.import_module(f"geodiff.scene.{name}"), optionflags=doctest.ELLIPSIS).failed == 0


def test_conventions() -> None:
    page = ROOT / "docs" / "conventions.md"
    result = doctest.testfile(str(page), module_relative=False, optionflags=doctest.ELLIPSIS, encoding="utf-8")
    assert result.attempted > 20
    assert result.failed == 0
