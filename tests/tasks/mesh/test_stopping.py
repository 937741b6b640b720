# SPDX-License-Identifier: Apache-2.0
"""Fits that end before all steps are taken: when, the same after an interruption, and said."""

import json
import pathlib
from typing import Any

import pytest
import torch

import geodiff as gd
from geodiff.tasks import FitMeshSettings, Progress, fit_mesh
from geodiff.tasks.mesh.stopping import Patience
from tests.tasks.mesh.test_fit_mesh import Stop, box, orbit, targets

OPTIONS: dict[str, Any] = {"steps": 60, "lr": 0.5, "evaluate_every": 2, "patience": 10, "progress": False}
OPTIONS |= {"template": "sphere", "subdivisions": 2, "remesh_every": 0}


@pytest.mark.parametrize("loss", ["iou", "squared"])
def test_when(loss: str) -> None:
    patience = Patience(FitMeshSettings(patience=4, loss=loss))
    losses = [0.5, 0.4, 0.3, 0.2, 0.29999, 0.31, 0.3, 0.2]
    over = []
    for step, value in enumerate(losses):
        measured = step % 2 == 0  # the better values in between count for nothing
        iou = (1 - value if loss == "iou" else 0.1) if measured else None
        patience.see({"step": step, "iou": iou, "iou_loss": value if loss == "squared" else 0.1})
        over.append(patience.is_over)
    assert over == [False] * 6 + [True] * 2  # a gain of less than a thousandth is none
    assert not Patience(FitMeshSettings()).is_over


@pytest.mark.parametrize("patience", [1, 5])
def test_no_end_before_a_measurement(patience: int) -> None:
    """A fit that is measured every five steps, and is better each time, goes on however little it may wait."""
    watch = Patience(FitMeshSettings(patience=patience, loss="iou"))
    for step in range(20):
        watch.see({"step": step, "iou": 0.5 + 0.02 * step if step % 5 == 0 else None, "iou_loss": 0.1})
        assert not watch.is_over
    watch.see({"step": 20, "iou": 0.5, "iou_loss": 0.1})
    assert watch.is_over


def test_ends_early_and_bitwise_the_same_after_an_interruption(tmp_path: pathlib.Path) -> None:
    images = targets(box(), orbit())
    whole = fit_mesh(images, **OPTIONS)
    taken = len(whole.history)
    assert 12 <= taken < 60 and whole.stopped_early
    measured = [record["iou"] for record in whole.history if record["iou"] is not None]
    assert max(measured[-4:]) <= max(measured[:-4])  # of the ten steps after the best
    full = fit_mesh(images, **OPTIONS | {"patience": None})
    assert len(full.history) == 60 and not full.stopped_early and full.history[:taken] == whole.history

    def stop(progress: Progress) -> None:
        if progress.step == taken - 3:
            raise Stop

    with pytest.raises(Stop):
        fit_mesh(images, output=tmp_path, callback=stop, checkpoint_seconds=0, **OPTIONS)
    rest = fit_mesh(images, output=tmp_path, checkpoint_seconds=0, **OPTIONS)
    assert rest.history == whole.history and rest.best_step == whole.best_step
    assert bool((rest.mesh.vertices == whole.mesh.vertices).all())
    told = json.loads((tmp_path / "metrics.json").read_text())
    assert told["stopped_early"] is True and told["steps"] == taken


@pytest.mark.parametrize(
    ("value", "error", "match"),
    [
        (0, ValueError, "fit_mesh: `patience` must be an integer ≥ 1; got 0"),
        (2.5, TypeError, "`patience` must be an integer ≥ 1"),
    ],
)
def test_bad_patience(value: Any, error: type[Exception], match: str) -> None:
    with pytest.raises(error, match=match):
        FitMeshSettings(patience=value)


def test_adam_takes_shorter_steps() -> None:
    """A step of Adam moves each vertex by itself, one of large_steps what is around with it."""
    for template in ("hull", "sphere"):
        large, adam = (FitMeshSettings(optimizer=name).completed(template, 64).lr for name in ("large_steps", "adam"))
        assert adam == pytest.approx(large / 9)
    ring = gd.Camera.orbit(2.732, 30, torch.arange(0, 360, 45), fov_deg=30)
    images = gd.rasterize(gd.box(0.6), ring, 32).mask.float()
    assert fit_mesh(images, ring, optimizer="adam", steps=4, progress=False).iou_train > 0.95
