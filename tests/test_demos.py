# SPDX-License-Identifier: Apache-2.0
"""The demos of splines run, in their small version, and make the picture that they announce."""

import pathlib
import runpy
import sys

import pytest
from PIL import Image

ROOT = pathlib.Path(__file__).resolve().parents[1]


def run(name: str, output: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> Image.Image:
    """Run a demo; return its picture, read whole."""
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(sys, "argv", [name, "--quick", "-o", str(output)])
    runpy.run_path(str(ROOT / "demos" / f"{name}.py"), run_name="__main__")
    with Image.open(output / f"{name}.png") as page:
        return page.convert("RGB")


def test_images(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    page = run("nurbs_images", tmp_path, monkeypatch)
    scores = [
        float(line.split("IoU ")[1].split()[0]) for line in capsys.readouterr().out.splitlines() if "IoU " in line
    ]
    assert scores[-1] > scores[0] + 0.2
    assert page.width > 1000 and page.height > 800
    assert (tmp_path / "vase.obj").is_file()
