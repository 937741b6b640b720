# SPDX-License-Identifier: Apache-2.0
"""Each job writes the same bytes again: meshes, splines, pictures, animations; but for the times in its figures."""

import importlib.util
import json
import math
import os
import pathlib
import subprocess
import sys
from typing import Any

import pytest

CHECKOUT = pathlib.Path(__file__).parents[2]
# What differs by nature: how long it took, and where it wrote.
_OF_THE_RUN = {"seconds", "speed", "command", "source"}

SETUP = """
import pathlib, sys, torch
import geodiff as gd
from geodiff.tasks import fit_atlas, fit_mesh, fit_nurbs, fit_pose, render_views
base = pathlib.Path(sys.argv[1])
cameras = gd.Camera.orbit(2.732, 20.0, torch.arange(4) * 90.0, fov_deg=30)
box = gd.box((0.7, 0.35, 0.5))
"""
JOBS = {
    "fit_nurbs": """
x, y = torch.meshgrid(torch.linspace(0, 1, 12), torch.linspace(0, 2, 15), indexing="ij")
fit_nurbs(torch.stack([x, y, 0.3 * torch.sin(3 * x) * y], -1), control_shape=(5, 6), output=out, progress=False,
          formats=FORMATS)
""",
    "fit_mesh": """
images = gd.PosedImages(None, gd.rasterize(box, cameras, 32).mask.float(), cameras)
fit_mesh(images, steps=3, subdivisions=1, output=out, progress=False)
""",
    "fit_pose": """
camera = gd.Camera.orbit(3.0, 25, 40, fov_deg=40)
fit_pose(box, gd.rasterize(box, camera, 48).mask.float(), camera, output=out, progress=False, search_size=24, size=48,
         steps=4, polish=1, candidates=20, starts=2, finalists=1)
""",
    "fit_atlas": """
cloud = gd.icosphere(3).vertices
fit_atlas(cloud, output=out, progress=False, watertight=False, widths=(8, 8), steps=4, rounds=0, chunk=16, target=60,
          samples=500)
""",
    "render_views": """
render_views(box, views=3, size=24).save(out)
""",
}


def contents(folder: pathlib.Path) -> dict[str, Any]:
    """Return what is in a folder, figures without what is of the run."""
    found: dict[str, Any] = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            data: Any = path.read_bytes()
            if path.name in ("metrics.json", "metrics.jsonl", "atlas.json"):
                data = [_plain(json.loads(line)) for line in _documents(data.decode())]
            found[path.relative_to(folder).as_posix()] = data
    return found


def _documents(text: str) -> list[str]:
    try:
        json.loads(text)
    except ValueError:
        return text.splitlines()
    return [text]


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _plain(part) for name, part in value.items() if name not in _OF_THE_RUN}
    if isinstance(value, list):
        return [_plain(part) for part in value]
    return "NaN" if isinstance(value, float) and math.isnan(value) else value


@pytest.mark.slow
def test_jobs_write_the_same_bytes_again(tmp_path: pathlib.Path) -> None:
    formats = ["json", "obj", "ply", "stl", "glb"]
    formats += ["3dm"] if importlib.util.find_spec("rhino3dm") else []
    formats += ["igs", "stp"] if importlib.util.find_spec("OCP") else []
    text = SETUP + "".join(f"out = base / {name!r}{job}" for name, job in JOBS.items())
    results = []
    for turn in (1, 2):
        folder = tmp_path / f"run {turn}"
        environment = {**os.environ, "PYTHONHASHSEED": str(turn), "PYTHONPATH": os.fspath(CHECKOUT)}
        command = [sys.executable, "-c", text.replace("FORMATS", repr(formats)), str(folder)]
        done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        results.append(contents(folder))
    first, second = results
    assert first.keys() == second.keys()
    assert {name.partition("/")[0] for name in first} == set(JOBS)
    assert [name for name in first if first[name] != second[name]] == []
