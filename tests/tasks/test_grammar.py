# SPDX-License-Identifier: Apache-2.0
"""All jobs are told and tell in one way: settings, callbacks, checkpoints."""

import importlib
import inspect
import pathlib
from collections.abc import Callable
from typing import Any

import pytest
import torch

import geodiff as gd
from geodiff.settings import Settings
from geodiff.tasks.checkpoint import load_checkpoint, read_checkpoint, save_checkpoint
from geodiff.tasks.progress import Progress, as_callback

SETTINGS: dict[str, type[Settings]] = {
    "fit_mesh": gd.tasks.FitMeshSettings,
    "fit_pose": gd.tasks.FitPoseSettings,
    "fit_nurbs": gd.tasks.FitNURBSSettings,
    "fit_atlas": gd.tasks.FitAtlasSettings,
    "sweep": gd.tasks.SweepSettings,
}


def ball(count: int = 200) -> torch.Tensor:
    return torch.nn.functional.normalize(torch.randn(count, 3, generator=torch.Generator().manual_seed(0)), dim=1)


def quick(name: str, folder: pathlib.Path, **more: Any) -> Any:
    """Run a job that takes no second, into a folder."""
    box = gd.box((0.7, 0.35, 0.5))
    camera = gd.Camera.orbit(2.732, 20.0, torch.arange(4) * 90.0, fov_deg=30)
    alpha = gd.rasterize(box, camera, 16).mask.float()
    common: dict[str, Any] = {"output": folder, "progress": False}
    if name == "fit_mesh":
        settings = {"steps": 2, "subdivisions": 1}
        return gd.tasks.fit_mesh(alpha, camera, settings=settings, **common, **more)
    if name == "fit_pose":
        settings = {"steps": 2, "candidates": 4, "starts": 2, "size": 16, "search_size": 16, "polish": 0}
        return gd.tasks.fit_pose(box, alpha[0], camera[0], settings=settings, **common, **more)
    if name == "fit_nurbs":
        settings = {"control_shape": (5, 5), "free_knots": True}
        x, y = torch.meshgrid(torch.linspace(0, 1, 9), torch.linspace(0, 1, 9), indexing="ij")
        return gd.tasks.fit_nurbs((3 * x).sin() * y, settings=settings, **common, **more)
    if name == "fit_atlas":
        settings = {
            "widths": (8,),
            "steps": 20,
            "rounds": 1,
            "chunk": 4,
            "target": 60,
            "watertight": False,
            "samples": 100,
        }
        return gd.fit_atlas(ball(), settings=settings, **common, **more)
    options = {"views": 2, "size": 8, "steps": 1, "subdivisions": 1}
    settings = {"family": "logistic+probabilistic", "scales": [0.01, 0.03], "lrs": [0.2]}
    return gd.tasks.sweep("shape", box, settings=settings, options=options, **common, **more)


@pytest.fixture(autouse=True)
def no_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    for task in ("mesh", "pose", "nurbs", "atlas"):  # they take the most time
        module = importlib.import_module(f"geodiff.tasks.{task}.outputs")
        written = "finish" if task == "atlas" else "write_outputs"
        plain = (lambda result, *_, **__: result) if task in ("nurbs", "atlas") else (lambda *_, **__: {})
        monkeypatch.setattr(module, written, plain)


def test_the_same_arguments_everywhere() -> None:
    shared = ("settings", "output", "callback", "progress", "command", "changes")
    for name, settings in SETTINGS.items():
        parameters = inspect.signature(getattr(gd.tasks, name)).parameters
        assert set(shared) <= set(parameters) and ("resume" in parameters) == (name != "fit_nurbs")
        # What can be set is a field, not an argument beside them.
        assert not set(parameters) & set(vars(settings()))


@pytest.mark.parametrize("name", SETTINGS)
def test_one_callback(name: str, tmp_path: pathlib.Path) -> None:
    told: list[Progress] = []
    result = quick(name, tmp_path, callback=told.append)
    assert type(result.settings) is SETTINGS[name]
    assert told and [progress.step for progress in told] == sorted(progress.step for progress in told)
    assert all(progress.total is None or 0 < progress.step <= progress.total for progress in told)
    for progress in told:
        assert progress.loss == progress.record.get("loss") and "record" not in repr(progress)
    if name in ("fit_mesh", "fit_pose", "fit_atlas"):
        assert [progress.record for progress in told] == result.history and told[-1].step == told[-1].total
    # As it was called before: three arguments, or a dictionary.
    before: list[Any] = []
    if name in ("fit_mesh", "fit_pose"):
        with pytest.warns(
            DeprecationWarning, match=rf"{name}: `callback\(step, record, state\)` is now `callback\(progress\)`"
        ):
            quick(
                name, tmp_path, callback=lambda step, record, state: before.append((step, record["step"], type(state)))
            )
        assert before == [(0, 0, type(told[0].state)), (1, 1, type(told[0].state))]
    elif name != "fit_nurbs":
        key = "member" if name == "sweep" else "stage"
        with pytest.warns(DeprecationWarning, match=r"`progress\[name\]` is now `progress.record\[name\]`"):
            quick(name, tmp_path, resume=False, callback=lambda row: before.append(row[key]))
        assert before == [progress.record[key] for progress in told]
    with pytest.raises(TypeError, match=f"{name}: `callback` must be a function of a Progress; got int 3"):
        quick(name, tmp_path, callback=3)


@pytest.mark.parametrize("callback", [print, lambda progress: None, lambda progress, more=1: None, lambda *told: None])
def test_callbacks_of_one_argument_are_left_as_they_are(callback: Callable[..., Any]) -> None:
    assert as_callback("fit_mesh", callback) is callback and as_callback("fit_mesh", None) is None


def test_old_callbacks_that_take_the_rest() -> None:
    steps: list[int] = []
    with pytest.warns(DeprecationWarning, match="is now `callback"):
        called = as_callback("fit_mesh", lambda step, *rest: steps.append(step))
    assert called is not None
    called(Progress(3, 5, 0.1, {}))
    assert steps == [2]


class Stop(Exception):
    pass


@pytest.mark.parametrize("name", ["fit_mesh", "fit_pose", "fit_atlas"])
def test_how_often_checkpoints_are_written(name: str, tmp_path: pathlib.Path) -> None:
    path = tmp_path / "checkpoint.pt"

    def second(progress: Progress) -> None:
        if len(progress.record) and progress.step == 2:
            raise Stop

    for seconds, written in ((None, False), (1e6, False), (0, True)):
        with pytest.raises(Stop):
            quick(name, tmp_path, callback=second, checkpoint_seconds=seconds)
        assert path.exists() == written
    with pytest.raises(ValueError, match=f"{name}: `checkpoint_seconds` must be finite and ≥ 0; got -1"):
        quick(name, tmp_path, checkpoint_seconds=-1)
    # What it was made with has no word of how often.
    assert "checkpoint_seconds" not in read_checkpoint(path.read_bytes())["inputs"]


def test_checkpoints_written_before_are_read(tmp_path: pathlib.Path) -> None:
    """Those of fit_atlas called the step length rate; those of fit_mesh and fit_pose are as they were."""
    path = tmp_path / "checkpoint.pt"

    def second(progress: Progress) -> None:
        if progress.step == 2:
            raise Stop

    with pytest.raises(Stop):
        quick("fit_atlas", tmp_path, callback=second, checkpoint_seconds=0)
    content = read_checkpoint(path.read_bytes())
    inputs = content["inputs"]
    inputs["rate"] = inputs.pop("lr")
    save_checkpoint(path, "fit_atlas", inputs, content["state"])
    told: list[Progress] = []
    with pytest.raises(ValueError, match=r"made with lr 0\.005 \(now 0\.01\)"):
        quick("fit_atlas", tmp_path, lr=0.01)
    result = quick("fit_atlas", tmp_path, callback=told.append)
    assert told[0].step == 3 and len(result.history) == told[-1].total
    save_checkpoint(path, "j", {"rate": 1}, {})
    assert load_checkpoint(path, "j", {"lr": 1}, {}, {"rate": "lr"}) == {}
    with pytest.raises(ValueError, match=r"made with lr None \(now 1\)"):
        load_checkpoint(path, "j", {"lr": 1}, {})


def test_modules_are_found_under_the_names_that_the_documentation_had() -> None:
    for name in ("fit_mesh", "fit_pose", "fit_nurbs", "fit_atlas", "sweep", "render_views", "view"):
        module = importlib.import_module(f"geodiff.tasks.{name}")
        assert inspect.ismodule(module) and getattr(module, name) is getattr(gd.tasks, name)
        assert callable(getattr(gd.tasks, name))
    assert importlib.import_module("geodiff.tasks.settings").FitMeshSettings is gd.tasks.FitMeshSettings
    assert importlib.import_module("geodiff.tasks.pose_settings").FitPoseSettings is gd.tasks.FitPoseSettings
    assert importlib.import_module("geodiff.tasks.sweep_jobs").JOBS
    assert importlib.import_module("geodiff.tasks.clouds").read_cloud_file
