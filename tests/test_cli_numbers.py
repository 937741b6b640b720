# SPDX-License-Identifier: Apache-2.0
"""Every numeric option of every command, given what it cannot take: a message that names it, and exit code 2."""

import contextlib
import json
import re
from collections.abc import Iterator
from typing import Any

import click
import numpy as np
import pytest
import torch
from click.testing import CliRunner

import geodiff as gd
from geodiff.cli import main
from geodiff.cli_options import Numbers, Pair, Size, Widths
from geodiff.tasks.atlas import outputs as atlas_outputs
from geodiff.tasks.mesh import outputs as mesh_outputs
from geodiff.tasks.nurbs import outputs as nurbs_outputs
from geodiff.tasks.pose import outputs as pose_outputs
from geodiff.tasks.sweep import job as sweep_job

INTEGERS = ("-1", "0", str(10**30), str(-(10**30)), "1.5", "nan")
REALS = ("-1", "0", "nan", "inf", "-inf", "1e308", "-1e308")
TEXTS = ("-1", "0", "nan", "inf", "1e308", "", "1x", "1x1x1x0", "0.1,nan", "1:2:0", "1e-1:1e-2:-3", "9" * 30)
# What may be said that is no error: 0 where it means none, negative angles, directions and brightnesses; and counts
# that say at most so many, or every so many steps.
_GOOD = {
    "-1": "elevation start light ambient",
    "0": "seed elevation smoothing laplacian flatness hold_out subdivisions checkpoint_every checkpoint_seconds betas "
    "polish spread start light ambient noise consistency rounds refine degree remesh_every keep_components rematch "
    "trim",
    "1e308": "checkpoint_every checkpoint_seconds",
    str(10**30): "views_per_step hold_out evaluate_every remesh_every size search_size chunk max_points target "
    "max_size patience",
}
GOOD = {wrong: set(names.split()) for wrong, names in _GOOD.items()}
# Several numbers, or a light: the words that the message has instead of the option's name.
TOLD_AS = {"start": "distance|elevation|azimuth|start", "light": "light|direction"}
# Old names of options: the message has the new one.
TOLD_AS |= {"checkpoint_every": "checkpoint_seconds", "rate": "lr", "rates": "lrs|rates"}


def numeric(option: click.Parameter) -> bool:
    kinds = (click.types.IntParamType, click.types.FloatParamType, click.Tuple, Numbers, Pair, Size, Widths)
    return isinstance(option, click.Option) and not option.is_flag and isinstance(option.type, kinds)


@pytest.fixture(scope="module")
def commands(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[str]]:
    """Arguments with which each command is quick."""
    tmp = tmp_path_factory.mktemp("numbers")
    gd.box((0.7, 0.35, 0.5)).save(tmp / "box.obj")
    made = CliRunner().invoke(main, ["render", str(tmp / "box.obj"), "--views", "4", "--size", "16", "-o", str(tmp)])
    assert made.exit_code == 0, made.output
    x, y = torch.meshgrid(torch.linspace(0, 1, 10), torch.linspace(0, 2, 12), indexing="ij")
    np.save(tmp / "heights.npy", (x * y).numpy())
    ball = torch.nn.functional.normalize(torch.randn(200, 3, generator=torch.Generator().manual_seed(0)), dim=1)
    np.save(tmp / "ball.npy", ball.numpy())
    own: dict[str, tuple[Any, ...]] = {
        "render": (tmp / "box.obj", "--views", 2, "--size", 8),
        "fit-mesh": (tmp, "--steps", 2, "--subdivisions", 1),
        "fit-pose": (tmp / "box.obj", tmp / "images" / "000.png", "--steps", 2, "--candidates", 4, "--starts", 2,
                     "--size", 16, "--polish", 1, "--loss", "color"),
        "fit-nurbs": (tmp / "heights.npy", "--control-shape", "4x4", "--free-knots"),
        "fit-atlas": (tmp / "ball.npy", "--steps", 2, "--rounds", 1, "--samples", 100, "--widths", 8,
                      "--no-watertight"),
        "sweep": ("shape", tmp / "box.obj", "--family", "logistic+average", "--scales", 0.01, "--lrs", 0.1,
                  "--set=steps=1", "--set=views=2", "--set=size=8", "--set=subdivisions=1"),
        "view": (tmp / "box.obj",),
    }  # fmt: skip
    return {name: [*map(str, arguments), "-o", str(tmp / "out" / name)] for name, arguments in own.items()}


@pytest.fixture(autouse=True)
def no_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave out what takes most of the time, and reads none of these numbers."""
    for module in (mesh_outputs, pose_outputs):
        monkeypatch.setattr(module, "write_outputs", lambda *_, **__: {})
    monkeypatch.setattr(atlas_outputs, "_finish", lambda result, *_: result)
    monkeypatch.setattr(nurbs_outputs, "write_outputs", lambda result, *_: result)
    monkeypatch.setattr(sweep_job, "write_table", lambda *_: {})
    monkeypatch.setattr("geodiff.cli_options._plain_warnings", contextlib.nullcontext)  # which are not looked at here


def cases(command: str) -> Iterator[tuple[click.Option, list[str], str]]:
    """Yield each numeric option of a command, the numbers to give it, and the wrong one among them."""
    for option in main.commands[command].params:
        if not isinstance(option, click.Option) or not numeric(option):
            continue
        integer = isinstance(option.type, click.types.IntParamType)
        text = isinstance(option.type, Numbers | Pair | Size | Widths)
        for wrong in TEXTS if text else INTEGERS if integer else REALS:
            for place in range(option.nargs):
                numbers = ["0.5"] * option.nargs
                numbers[place] = wrong
                yield option, numbers, wrong


def test_all_commands_are_walked() -> None:
    with_numbers = {name for name, command in main.commands.items() if any(map(numeric, command.params))}
    assert with_numbers == {"render", "fit-mesh", "fit-pose", "fit-nurbs", "fit-atlas", "sweep", "view"}
    assert sum(1 for name in with_numbers for _ in cases(name)) > 500


@pytest.mark.filterwarnings("ignore:.* is now `:DeprecationWarning")
@pytest.mark.filterwarnings("ignore:.*the mesh does not explain the image")  # after two steps
@pytest.mark.parametrize("command", ["render", "fit-mesh", "fit-pose", "fit-nurbs", "fit-atlas", "sweep", "view"])
def test_numbers(command: str, commands: dict[str, list[str]]) -> None:
    faults = []
    for option, numbers, wrong in cases(command):
        name = str(option.name)
        fresh = ["--fresh"] if any(o.name == "resume" for o in main.commands[command].params) else []
        result = CliRunner().invoke(main, [command, *commands[command], *fresh, option.opts[-1], *numbers])
        told = TOLD_AS.get(name, name.replace("_start", "").replace("_end", "")).replace("_", "[_-]")
        good = result.exit_code == 0 and name in GOOD.get(wrong, ())
        refused = result.exit_code == 2 and re.search(told, result.output.splitlines()[-1]) is not None
        if not (good or refused) or "Traceback" in result.output:
            last = result.output.strip().splitlines()[-1:] or [repr(result.exception)]
            faults.append(f"{option.opts[-1]} {' '.join(numbers)}: exit code {result.exit_code}, {last[0][:160]}")
    assert not faults, "\n" + "\n".join(faults)


def test_numbers_of_a_sweeps_job(commands: dict[str, list[str]]) -> None:
    """They are options of another kind: --set NAME=VALUE."""
    from geodiff.tasks.sweep.kinds import JOBS

    faults = []
    for kind, job in {name: JOBS[name] for name in ("shape", "pose")}.items():
        for name, default in job.options.items():
            if isinstance(default, bool | str):
                continue
            for wrong in ("-1", "NaN", "Infinity", "1e308", '"one"', "null", "[]", "true", str(10**30)):
                arguments = [kind if a == "shape" else a for a in commands["sweep"]]
                if kind == "pose":
                    arguments = [a for a in arguments if a not in ("--set=views=2", "--set=subdivisions=1")]
                    arguments += ["--set=pairs=1", "--set=size=16", "--set=search_size=16"]
                result = CliRunner().invoke(main, ["sweep", *arguments, "--fresh", f"--set={name}={wrong}"])
                line = result.output.strip().splitlines()[-1]
                fine = (name, wrong) in (("elevation", "-1"), ("spread", "null")) or name in GOOD.get(wrong, ())
                # Left to the job.
                fine |= (kind, wrong) == ("pose", "null") and name in ("steps", "candidates", "starts", "finalists")
                refused = result.exit_code == 2 and name in line
                if not (refused or (fine and result.exit_code == 0)):
                    faults.append(f"{kind} --set {name}={wrong}: exit code {result.exit_code}, {line[:160]}")
    assert not faults, "\n" + "\n".join(faults)


@pytest.mark.parametrize("seed", [-1, 2**32, 0.5, True, None, "0", float("nan")])
def test_seeds_in_python(seed: Any) -> None:
    """The same for whoever calls the functions."""
    kinds = (ValueError, TypeError)
    ball = torch.nn.functional.normalize(torch.randn(200, 3), dim=1)
    with pytest.raises(kinds, match="render_views: `seed` must be an integer"):
        gd.tasks.render_views(gd.box(), seed=seed)
    for settings, where in ((gd.tasks.FitMeshSettings, "fit_mesh"), (gd.tasks.FitPoseSettings, "fit_pose")):
        with pytest.raises(kinds, match=f"{where}: `seed` must be an integer"):
            settings(seed=seed)
    with pytest.raises(kinds, match="fit_atlas: `seed` must be an integer"):
        gd.fit_atlas(ball, seed=seed)
    with pytest.raises(kinds, match="fit_nurbs: `seed` must be an integer"):
        gd.tasks.fit_nurbs(torch.rand(6, 6), kind="heights", seed=seed, progress=False)
    with pytest.raises(kinds, match="fit_surface: `seed` must be an integer"):
        gd.splines.fit_surface(torch.rand(9, 9, 3), (4, 4), free_knots=True, seed=seed)
    with pytest.raises(kinds, match="cover: `seed` must be an integer"):
        gd.atlas.cover(ball, seed=seed)


def test_numbers_of_numpy_are_numbers() -> None:
    """What NumPy calls an integer is one, and is written to JSON like one."""
    settings = gd.tasks.FitMeshSettings(steps=np.int64(3), seed=np.int32(2), lr=np.float32(0.5))
    assert json.loads(json.dumps(settings.as_dict()))["steps"] == 3
