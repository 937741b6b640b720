# SPDX-License-Identifier: Apache-2.0
"""The sweep's pose job: its pairs are what they claim, and a sweep of it runs."""

import math
import pathlib
import subprocess
import sys
from typing import Any

import pytest
import torch

import geodiff as gd
from geodiff.tasks.sweep.job import sweep
from geodiff.tasks.sweep.pose import POSE

QUICK = {"pairs": 4, "steps": 40, "size": 32, "search_size": 16}


def mesh() -> gd.Mesh:
    return gd.box((1.0, 0.5, 0.3)).translated((3.0, 0.0, 1.0))


def test_pairs_are_off_by_the_angle() -> None:
    pairs = POSE.prepare(mesh(), {**POSE.options, "pairs": 200, "angles": [30, 30]})
    middle = torch.tensor([[3.0, 0, 1]])
    cosine = ((pairs.start.rotation * pairs.truth.rotation).sum((-2, -1)) - 1) / 2
    angle = cosine.clamp(-1, 1).acos().rad2deg()
    # Elevation and azimuth of 30° together are a rotation by about 30°.
    assert float((angle - 30).abs().max()) < 1.5
    radius = math.sqrt(0.5**2 + 0.25**2 + 0.15**2)
    for camera, low, high in ((pairs.truth, 2.5, 4.0), (pairs.start, 2.0, 10.0)):
        at = camera.project(middle.expand(200, 1, 3))[:, 0]
        assert torch.allclose(at[:, :2], torch.zeros(200, 2), atol=1e-4)  # float32 at some radii from the origin
        assert low <= float(at[:, 2].min() / radius) and float(at[:, 2].max() / radius) <= high
    assert bool((pairs.images.sum((-2, -1)) > 0).all())


def test_sweep(tmp_path: pathlib.Path) -> None:
    grid: dict[str, Any] = {"family": "logistic+probabilistic", "lrs": [0.1], "options": QUICK, "progress": False}
    result = sweep("pose", mesh(), output=tmp_path, scales=[0.03, 1e-6], **grid)
    good, blind = result.rows
    assert result.failed == 0
    # At such a τ the silhouette has no soft edge to follow.
    assert good["iou"] > 0.65 and blind["iou"] < 0.4
    assert (tmp_path / "table.csv").read_text().startswith("distribution,tconorm,scale,lr,found,angle_median,iou,error")


def test_the_command_knows_the_job() -> None:
    # In a process of its own: this file imports the job itself.
    code = "from geodiff.cli import main; main(['sweep', 'pose', 'nowhere.obj', '-o', 'nowhere'])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 2 and "`path` must be a file that exists" in done.stderr


def test_messages(tmp_path: pathlib.Path) -> None:
    for options, match in (
        ({"pairs": 0}, "`pairs` must be an integer ≥ 1"),
        ({"angles": [3, 1]}, "`angles` must be two angles in"),
        ({"scale_decay": 0}, "`scale_decay` must be positive"),
        ({"starts": 0}, "`starts` must be an integer ≥ 1"),
    ):
        with pytest.raises(ValueError, match=match):
            sweep("pose", mesh(), output=tmp_path, options=options, progress=False)
