# SPDX-License-Identifier: Apache-2.0
"""The options of commands are the fields of settings: each of them, with its default and its kind."""

import dataclasses
import functools
import importlib
import inspect
import json
import operator
import pathlib
import subprocess
import sys
import typing
from collections.abc import Sequence
from typing import Any

import click
import pytest
from click.testing import CliRunner

import geodiff as gd
from geodiff.cli import main
from geodiff.cli_fields import Field, help_of, options_of, source_of
from geodiff.cli_options import Numbers, Pair, Size, Widths

SETTINGS = {
    "fit-mesh": "tasks.mesh.settings.FitMeshSettings",
    "fit-pose": "tasks.pose.settings.FitPoseSettings",
    "fit-nurbs": "tasks.nurbs.settings.FitNURBSSettings",
    "fit-atlas": "tasks.atlas.settings.FitAtlasSettings",
    "sweep": "tasks.sweep.settings.SweepSettings",
}
FUNCTIONS = {
    "render": ("tasks.render.views.render_views", "tasks.render.command.render_command"),
    "fit-mesh": ("tasks.mesh.job.fit_mesh",),
    "fit-pose": ("tasks.pose.job.fit_pose", "tasks.pose.input.command_inputs", "tasks.pose.input.command_lights"),
    "fit-nurbs": ("tasks.nurbs.job.fit_nurbs",),
    "fit-atlas": ("tasks.atlas.job.fit_atlas",),
    "view": ("tasks.view.page.view",),
}
# Options that are no field and no argument of that name, or are the same for all commands.
COMMON = {"strict", "output", "resume", "device", "debug", "set", "settings", "seed", "scale_start", "scale_end"}
COMMON |= {"pictures", "masks", "max_size"}  # of PosedImages.load
KINDS = {
    int: click.types.IntParamType,
    float: click.types.FloatParamType,
    str: click.types.StringParamType,
    bool: click.types.BoolParamType,
    pathlib.Path: click.Path,
    tuple[int, int]: Pair,
    tuple[int, ...]: Widths,
    Sequence[float]: Numbers,
    int | tuple[int, int]: Size,
}
COUNTS = {tuple[float, float]: 2, tuple[float, float, float]: 3, Sequence[tuple[float, float, float, float]]: 4}


def found(path: str) -> Any:
    """Import what a path without "geodiff." names."""
    module, name = path.rsplit(".", 1)
    return getattr(importlib.import_module(f"geodiff.{module}"), name)


def truly(path: str) -> dict[str, tuple[Any, Any]]:
    """Return kinds and defaults of a class's fields or of a function's arguments, as Python has them."""
    value = inspect.unwrap(found(path))
    hints = typing.get_type_hints(value, vars(importlib.import_module("typing")) | {"soft": gd.soft})
    if dataclasses.is_dataclass(value):
        return {field.name: (hints[field.name], field.default) for field in dataclasses.fields(value)}
    parameters = inspect.signature(value).parameters.values()
    return {p.name: (hints[p.name], p.default) for p in parameters if p.default is not p.empty}


def options(command: str) -> dict[str, click.Option]:
    """Return the options of a command that --help shows, by name."""
    return {str(p.name): p for p in main.commands[command].params if isinstance(p, click.Option) and not p.hidden}


def without_none(kind: Any) -> Any:
    parts = [part for part in typing.get_args(kind) if part is not type(None)]
    return functools.reduce(operator.or_, parts) if type(None) in typing.get_args(kind) else kind


def check(option: click.Option, kind: Any, default: Any) -> None:
    """Compare an option with what it sets."""
    name = str(option.name)
    kind = without_none(kind)
    assert option.default in (None, ()) or "UNSET" in repr(option.default).upper(), name  # what is not given is not set
    if kind in COUNTS:
        assert option.nargs == COUNTS[kind] and option.multiple == (COUNTS[kind] == 4), name
    elif kind in KINDS:
        assert isinstance(option.type, KINDS[kind]) and option.nargs == 1 and not option.multiple, (name, option.type)
    elif kind in (str | Sequence[str], float | Sequence[float]):
        assert option.multiple and isinstance(option.type, KINDS[typing.get_args(kind)[0]]), name
    else:  # names of things, and files of them
        assert isinstance(option.type, click.Path | click.types.StringParamType), (name, kind)
    text = option.help or ""
    if default is None or default == () or default == "":
        return
    if isinstance(default, bool):
        told = (option.opts if default else option.secondary_opts)[0].removeprefix("--")
    elif isinstance(default, tuple):
        told = ("x" if isinstance(option.type, Pair | Widths) else " ").join(
            f"{one:g}" if isinstance(one, float) else str(one) for one in default
        )
    else:
        told = f"{default:g}" if isinstance(default, float) else str(default)
    assert text.endswith(f"  [default: {told}]"), (name, text)


@pytest.mark.parametrize("command", SETTINGS)
def test_each_field_is_an_option(command: str) -> None:
    there = options(command)
    fields = truly(SETTINGS[command])
    assert fields
    for name, (kind, default) in fields.items():
        assert there[name].opts[0] == "--" + {"formats": "format"}.get(name, name).replace("_", "-")
        check(there[name], kind, default)
    # And each old name is one that is not shown.
    hidden = {p.name for p in main.commands[command].params if isinstance(p, click.Option) and p.hidden}
    assert set(found(SETTINGS[command])._renamed) <= hidden


@pytest.mark.parametrize("command", FUNCTIONS)
def test_each_other_option_is_an_argument(command: str) -> None:
    arguments = {k: v for path in FUNCTIONS[command] for k, v in truly(path).items()}
    fields = truly(SETTINGS[command]) if command in SETTINGS else {}
    others = set(options(command)) - set(fields) - COMMON
    assert others <= set(arguments) and (others or command in ("sweep",))
    for name in others:
        check(options(command)[name], *arguments[name])


def test_all_commands_are_compared() -> None:
    assert set(main.commands) == {*SETTINGS, *FUNCTIONS, "info", "compile"}


@pytest.mark.parametrize("path", [*SETTINGS.values(), *(path for paths in FUNCTIONS.values() for path in paths)])
def test_the_source_says_what_python_has(path: str) -> None:
    source = source_of(path)
    real = truly(path)
    assert list(source.fields) == list(real) or set(source.fields) == set(real)
    for name, field in source.fields.items():
        assert field.default == real[name][1] and type(field.default) is type(real[name][1]), name
        assert field.text, f"{path}: {name} is not documented"
    value = found(path)
    if inspect.isclass(value):
        assert source.renamed == {k: v if isinstance(v, str) else v[0] for k, v in value._renamed.items()}


def test_a_field_that_is_added_is_an_option(monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path) -> None:
    """Nothing else is to be touched: here, in a source of its own."""
    (tmp_path / "mine.py").write_text(
        "from geodiff.settings import Settings\n"
        "LEAST = 3\n"
        "class Mine(Settings):\n"
        '    """Own.\n\n    Attributes:\n        depth_of: of the `tree`, in metres; None: all of it. More.\n'
        '        least: ``"a"`` or\n            another.\n        warm: from before.\n    """\n'
        '    _renamed: dict = {"deep": "depth_of"}\n'
        "    depth_of: float | None = None\n    least: int = LEAST\n    warm: bool = True\n"
    )
    monkeypatch.setattr("geodiff.cli_fields._ROOT", tmp_path)

    @click.command()
    @options_of("mine.Mine", warm="--warm/--cold")
    def command(**given: Any) -> None:
        click.echo(json.dumps(given))

    text = CliRunner().invoke(command, ["--help"]).output
    assert "--depth-of FLOAT" in text and "Of the tree, in metres.  [default: all of it]" in text
    assert "a or another.  [default: 3]" in text and "--warm / --cold" in text and "[default: warm]" in text
    assert "deep" not in text and "More" not in text
    given = json.loads(CliRunner().invoke(command, ["--deep", "2", "--cold"]).output)
    assert given == {"depth_of": None, "least": None, "warm": False, "deep": 2.0}
    with pytest.raises(LookupError, match=r"geodiff.mine has no Yours"):
        options_of("mine.Yours")


def test_kinds_without_an_option_are_told() -> None:
    with pytest.raises(KeyError, match="complex"):
        help_of(Field("z", "complex", (1j, 2j), ""), "--z")


def test_old_options_reach_the_settings(monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path) -> None:
    got: dict[str, Any] = {}

    def called(*_: Any, **given: Any) -> None:
        got.clear()
        got.update(given)
        raise KeyboardInterrupt

    for job in ("fit_mesh", "fit_nurbs", "fit_atlas", "sweep"):
        monkeypatch.setattr(gd.tasks, job, called)

    def settings(command: str, *arguments: object) -> dict[str, Any]:
        done = CliRunner().invoke(main, [command, *map(str, arguments), "-o", str(tmp_path / "out")])
        assert done.exit_code == 130, done.output
        return {name: got[name] for name in got if name not in ("output", "resume", "command", "device")}

    assert settings("fit-mesh", "views") == {}
    old = settings(
        "fit-mesh", "views", "--checkpoint-every", 0, "--formats", "ply", "--format", "obj", "--scale-end", 5
    )
    assert old == {"checkpoint_every": 0, "formats": ("ply", "obj"), "scale": (None, 5)}
    assert settings("fit-mesh", "views", "--scale", 3, 2, "--scale-start", 4) == {"scale": (4, 2)}
    old = settings("fit-nurbs", "grid.npy", "--control", "4x5", "--save", "ply", "--fixed-knots", "--rational")
    assert old == {"control": (4, 5), "formats": ("ply",), "free_knots": False, "rational": True}
    old = settings("fit-atlas", "cloud.ply", "--rate", 0.5, "--ignore-normals", "--no-robust", "--widths", "paper")
    assert old == {"rate": 0.5, "file_normals": False, "robust": False, "widths": (128, 256, 512, 512)}
    old = settings("sweep", "shape", "box.obj", "--rates", "0.1,0.2", "--set", "steps=3", "--seed", 4)
    assert old == {"rates": (0.1, 0.2), "options": {"seed": 4, "steps": 3}}


def test_old_options_say_the_new_name(tmp_path: pathlib.Path) -> None:
    """In a process of its own: Python hides warnings of old names from those who type commands."""
    command = [sys.executable, "-m", "geodiff", "fit-nurbs", "none.npy", "-o", "out", "--control", "4x4"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 2 and "`points` must be a file that exists" in done.stderr
    assert "Warning: fit_nurbs: `control` is now `control_shape`; the old name goes away in a later" in done.stderr
