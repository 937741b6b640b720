# SPDX-License-Identifier: Apache-2.0
"""The command line: what it writes, and how it says that it cannot."""

import importlib.util
import json
import os
import pathlib
import re
import signal
import subprocess
import sys
import time

import click
import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result

import geodiff as gd
from geodiff.cli import main

ROOT = pathlib.Path(__file__).resolve().parents[1]


def call(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def succeed(*arguments: object) -> str:
    result = call(*arguments)
    assert result.exit_code == 0, result.output
    return result.output


def refused(*arguments: object) -> str:
    """Return the message of a command that must fail: one, clean, with exit code 2."""
    result = call(*arguments)
    assert result.exit_code == 2, result.output
    assert "Traceback" not in result.output
    return result.output


@pytest.fixture
def views(tmp_path: pathlib.Path) -> pathlib.Path:
    mesh = tmp_path / "box.obj"
    gd.box((0.7, 0.35, 0.5)).save(mesh)
    succeed("render", mesh, "--views", 8, "--size", 32, "-o", tmp_path / "views")
    return tmp_path / "views"


FAST = ("--steps", 30, "--subdivisions", 2)


def test_info() -> None:
    text = succeed("info")
    for name in (
        "geodiff",
        "torch",
        "devices",
        "kernels",
        "simd",
        "levels",
        "threads",
        "driver",
        "nvrtc",
        "cache",
        "extras",
    ):
        assert f"\n{name} " in f"\n{text}"
    facts = json.loads(succeed("info", "--json"))
    assert facts["geodiff"] == gd.__version__ and facts["torch"] == torch.__version__
    from geodiff.native import cpu

    # Each kernel of the table, and what the sources define; each extra that users have use for.
    sources = "\n".join(path.read_text() for path in (ROOT / "cuda" / "cpu").glob("isa_*.cpp"))
    defined = re.findall(r"^const geodiff::Kernel<geodiff::\w+> kernel::(\w+) =", sources, re.MULTILINE)
    once = "jumps matrix_times nearest_triangle neighbour_axes net_sum pieces_take remesh".split()
    once += ["self_intersections", "surface_net"]
    assert len(defined) > 30 and sorted(facts["kernels"].split(", ")) == sorted([*defined, *once])
    assert facts["kernels"].split(", ") == cpu.kernels()
    section = (ROOT / "pyproject.toml").read_text().split("[project.optional-dependencies]\n")[1].split("\n[")[0]
    extras = re.findall(r"^([\w-]+) =", section, re.MULTILINE)
    assert {fact.split()[0] for fact in facts["extras"].split(", ")} == set(extras) - {"dev", "test"}
    assert facts["simd"] in ("baseline", "v3", "v4")
    assert facts["simd"] in facts["levels"] and "GEODIFF_SIMD" in facts["levels"]


def test_info_without_kernels_says_how_to_get_them(monkeypatch: pytest.MonkeyPatch) -> None:
    from geodiff.native import cpu

    monkeypatch.setitem(sys.modules, "geodiff.native._cpu", None)
    cpu.extension.cache_clear()
    try:
        assert "pip install" in succeed("info")
    finally:
        cpu.extension.cache_clear()


def test_help_is_quick_and_complete() -> None:
    code = (
        "import sys; from click.testing import CliRunner; from geodiff.cli import main\n"
        "names = 'info render fit-mesh fit-pose fit-nurbs fit-atlas sweep view compile'.split()\n"
        "for command in names:\n"
        "    assert CliRunner().invoke(main, [command, '--help']).exit_code == 0\n"
        "assert not {'torch', 'scipy', 'trimesh'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)
    assert "fit-mesh" in succeed("--help") and gd.__version__ in succeed("--version")


def test_python_dash_m_is_the_command() -> None:
    command = [sys.executable, "-m", "geodiff"]
    shown = subprocess.run([*command, "--version"], check=True, cwd=ROOT, capture_output=True, text=True).stdout
    assert shown == f"geodiff, version {gd.__version__}\n"
    unknown = subprocess.run([*command, "fit-mash"], cwd=ROOT, capture_output=True, text=True)
    assert unknown.returncode == 2 and unknown.stderr.startswith("Usage: geodiff ")


def test_threads_wait_asleep_unless_the_user_says_otherwise() -> None:
    code = "import os, geodiff.cli; print(os.environ['OMP_WAIT_POLICY'])"
    for given, expected in (({}, "passive"), ({"OMP_WAIT_POLICY": "active"}, "active")):
        environment = {name: value for name, value in os.environ.items() if name != "OMP_WAIT_POLICY"} | given
        done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, text=True)
        assert done.stdout.strip() == expected, done.stderr


def test_render_and_fit_make_a_round_trip(
    views: pathlib.Path, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.argv", ["/somewhere/bin/geodiff", "fit-mesh", "my views"])
    text = succeed("fit-mesh", views, "-o", tmp_path / "fit", "--format", "ply", *FAST)
    metrics = json.loads((tmp_path / "fit" / "metrics.json").read_text())
    assert metrics["iou_train"] > 0.9 and metrics["command"] == "geodiff fit-mesh 'my views'"
    assert f"IoU {metrics['iou_train']:.3f} in 6 views fitted, {metrics['iou_held_out']:.3f} in 2 held out" in text
    for name in ("mesh.ply", "side_by_side.png", "optimisation.gif", "metrics.json"):
        assert str(tmp_path / "fit" / name) in text and (tmp_path / "fit" / name).is_file()
    # The fit can be rendered again, and is a template for another.
    succeed("render", tmp_path / "fit" / "mesh.ply", "--views", 2, "--hard", "-o", tmp_path / "again")
    succeed("fit-mesh", views / "transforms.json", "--template", tmp_path / "fit" / "mesh.ply", "-o", tmp_path / "more",
            "--steps", 2, "--hold-out", 0)  # fmt: skip
    more = json.loads((tmp_path / "more" / "metrics.json").read_text())
    assert more["iou_train"] > 0.88 and more["iou_held_out"] is None


def test_options_reach_the_settings(views: pathlib.Path, tmp_path: pathlib.Path) -> None:
    succeed("fit-mesh", views, "-o", tmp_path / "fit", "--steps", 2, "--optimizer", "adam", "--lr", 0.02, "--seed", 7,
            "--betas", 0.5, 0.6, "--distribution", "gamma(0.5).reversed", "--tconorm", "yager(2)", "--scale-end", 0.002,
            "--views-per-step", 3, "--subdivisions", 1, "--fresh")  # fmt: skip
    settings = json.loads((tmp_path / "fit" / "metrics.json").read_text())["settings"]
    assert settings["optimizer"] == "adam" and settings["lr"] == 0.02 and settings["seed"] == 7
    assert settings["betas"] == [0.5, 0.6]
    assert settings["distribution"] == "Gamma(shape=0.5).reversed()" and settings["tconorm"] == "Yager(p=2.0)"
    first = gd.tasks.FitMeshSettings().completed("hull", 32).scale[0]
    assert settings["scale"] == [first, 0.002] and settings["views_per_step"] == 3


def test_render_options(tmp_path: pathlib.Path) -> None:
    gd.torus().save(tmp_path / "torus.glb")
    common = ("render", tmp_path / "torus.glb", "--views", 3, "--size", "12x20")
    succeed(*common, "--elevation", 40, "--elevation", -40, "--distance", 5, "--fov", 50, "--alpha-bits", 16,
            "-o", tmp_path / "a")  # fmt: skip
    images = gd.PosedImages.load(tmp_path / "a")
    assert images.image_size == (12, 20) and len(images) == 3
    assert images.cameras.position.norm(dim=-1).tolist() == pytest.approx([5.0] * 3, rel=1e-4)
    assert (images.cameras.position[:, 1] > 0).tolist() == [True, False, True]
    succeed(*common, "--placement", "random", "--seed", 3, "--hard", "-o", tmp_path / "b")
    assert set(gd.PosedImages.load(tmp_path / "b").alpha.unique().tolist()) == {0.0, 1.0}


def test_bad_meshes(tmp_path: pathlib.Path) -> None:
    out = ("-o", tmp_path / "out")
    assert "Error: Mesh.load: `path` must be a file that exists" in refused("render", tmp_path / "none.obj", *out)
    (tmp_path / "bad.obj").write_text("v 0 0 nan\nv 1 0 0\nv 0 1 0\nf 1 2 3\n")
    assert "Error: " in refused("render", tmp_path / "bad.obj", *out)
    (tmp_path / "points.obj").write_text("v 0 0 0\nv 1 0 0\n")
    assert "faces" in refused("render", tmp_path / "points.obj", *out)
    (tmp_path / "mesh.xyz").write_text("")
    assert "`path` must be one of obj, ply" in refused("render", tmp_path / "mesh.xyz", *out)
    assert not (tmp_path / "out").exists()


def test_warnings_are_messages_of_the_command(tmp_path: pathlib.Path) -> None:
    """In a process of its own: what pytest makes of warnings is not what users see."""
    (tmp_path / "mesh.obj").write_text("mtllib none.mtl\nv 0 0 0\nv 1 0 0\nv 0 1 0\nf 1 2 3\nf 1 2\n")
    command = [sys.executable, "-m", "geodiff", "render", "mesh.obj", "-o", "views", "--views", "1"]
    said = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True).stderr
    assert "Warning: Mesh.load: mesh.obj: left out 1 face of fewer than three corners\n" in said
    assert "Warning: Mesh.load: left out of mesh.obj: materials in none.mtl, which is not there\n" in said
    assert ".py" not in said and "UserWarning" not in said


def test_bad_images(views: pathlib.Path, tmp_path: pathlib.Path) -> None:
    out = ("-o", tmp_path / "out", *FAST)
    assert "Error: PosedImages.load: `path` must be a file or folder that exists" in refused(
        "fit-mesh", tmp_path / "none", *out
    )
    (tmp_path / "empty").mkdir()
    assert "a folder with a transforms.json" in refused("fit-mesh", tmp_path / "empty", *out)
    from PIL import Image

    Image.new("RGBA", (16, 16)).save(views / "images" / "003.png")
    assert "`w` must be 16, the size of the images; got 32" in refused("fit-mesh", views, *out)
    (views / "images" / "003.png").write_bytes(b"no picture")
    assert "a readable image" in refused("fit-mesh", views, *out)
    transforms = views / "transforms.json"
    meta = json.loads(transforms.read_text())
    meta = {key: value for key, value in meta.items() if key in ("frames", "w", "h")}
    meta["frames"] = meta["frames"][:1]
    transforms.write_text(json.dumps(meta))
    assert "positive `fl_x` (pixels) or `camera_angle_x`" in refused("fit-mesh", views, *out)
    transforms.write_text("{")
    assert "a readable JSON file" in refused("fit-mesh", views, *out)
    transforms.write_text(json.dumps({**meta, "camera_angle_x": 0.5}))
    (views / "images" / "000.png").unlink()
    assert "an image that exists" in refused("fit-mesh", views, *out)
    assert not (tmp_path / "out").exists()


def test_bad_options(views: pathlib.Path, tmp_path: pathlib.Path) -> None:
    mesh, out = tmp_path / "box.obj", ("-o", tmp_path / "out")
    assert "`steps` must be an integer ≥ 1; got 0" in refused("fit-mesh", views, *out, "--steps", 0)
    assert "Did you mean 'gaussian'?" in refused("fit-mesh", views, *out, "--distribution", "gausian")
    assert "Did you mean 'yager'?" in refused("fit-mesh", views, *out, "--tconorm", "yagr(2)")
    assert "Yager" in refused("fit-mesh", views, *out, "--tconorm", "yager(-1)")
    assert "`scale` must be two positive numbers" in refused("fit-mesh", views, *out, "--scale-end", 0)
    assert "Did you mean 'obj'?" in refused("fit-mesh", views, *out, "--format", "ob")
    assert "Did you mean 'sphere'?" in refused("fit-mesh", views, *out, "--template", "shpere")
    assert "`device` must be cpu or auto; got 'cuda'" in refused("render", mesh, *out, "--device", "cuda")
    assert "`device` must be cpu, cuda, cuda:N or auto; got 'gpu'" in refused(
        "fit-mesh", views, *out, "--device", "gpu"
    )
    if not torch.cuda.is_available():
        assert "`device` must be cpu: no GPU works here; got cuda:1" in refused(
            "fit-mesh", views, *out, "--device", "cuda:1"
        )
    assert "Missing option '-o'" in refused("fit-mesh", views)
    assert "`output` must be given where there is no --animate" in refused("render", mesh)
    assert "neither a size such as 64 nor" in refused("render", mesh, *out, "--size", "64by64")
    assert "`views` must be an integer ≥ 1" in refused("render", mesh, *out, "--views", 0)
    assert "No such command 'fitmesh'" in refused("fitmesh")
    assert not (tmp_path / "out").exists()


def test_an_output_that_cannot_be_written(views: pathlib.Path, tmp_path: pathlib.Path) -> None:
    (tmp_path / "file").write_text("in the way")
    message = "must be a folder that can be written to"
    assert f"fit_mesh: `output` {message}" in refused("fit-mesh", views, "-o", tmp_path / "file", *FAST)
    assert f"render: `output` {message}" in refused(
        "render", tmp_path / "box.obj", "-o", tmp_path / "file" / "below", "--views", 1
    )


def test_a_foreign_checkpoint_is_refused_unless_fresh(views: pathlib.Path, tmp_path: pathlib.Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "checkpoint.pt").write_bytes(b"something else")
    assert "--fresh" in refused("fit-mesh", views, "-o", out, *FAST)
    succeed("fit-mesh", views, "-o", out, "--steps", 2, "--subdivisions", 1, "--fresh")


def test_debug_shows_where_an_error_came_from(tmp_path: pathlib.Path) -> None:
    result = call("render", tmp_path / "none.obj", "-o", tmp_path / "out", "--debug")
    assert isinstance(result.exception, FileNotFoundError)


@pytest.mark.parametrize("command", list(main.commands))
def test_ctrl_c_is_130_and_advice_in_every_command(
    command: str, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever is being done when it comes: here, what a command looks at first."""

    def interrupted(*arguments: object, **options: object) -> None:
        raise KeyboardInterrupt

    out = tmp_path / "out"
    file = tmp_path / "some.obj"
    file.touch()
    arguments: list[object] = [file] * sum(isinstance(p, click.Argument) for p in main.commands[command].params)
    if any(option.name == "output" for option in main.commands[command].params):
        arguments += ["-o", out]
    for first in (gd.tasks, gd.Mesh):
        for name in (*gd.tasks.__all__, "load"):
            if hasattr(first, name) and not isinstance(getattr(first, name), type):
                monkeypatch.setattr(first, name, interrupted)
    monkeypatch.setattr("geodiff.native.cpu.extension", interrupted)
    monkeypatch.setattr("geodiff.native.gpu.names.kernel_names", interrupted)
    result = call(command, *arguments, *(["--arch", "sm_90"] if command == "compile" else []))
    assert result.exit_code == 130, result.output
    advice = {
        "info": "Nothing was written; the same command starts anew.",
        "compile": "Nothing was written; the same command starts anew.",
        "render": f"Nothing in {out} was changed, unless it was done; the same command starts anew.",
        "fit-nurbs": f"Nothing in {out} was changed, unless it was done; the same command starts anew.",
        "view": f"Nothing in {out} was changed, unless it was done; the same command starts anew.",
    }
    goes_on = f"The same command goes on from what is in {out}, if a checkpoint or rows are there yet."
    assert result.output == f"\nInterrupted. {advice.get(command, goes_on)}\n"
    assert isinstance(call(command, *arguments, "--debug").exception, SystemExit)  # click's own way


@pytest.fixture
def cloud(tmp_path: pathlib.Path) -> pathlib.Path:
    x, y = torch.meshgrid(torch.linspace(0, 1, 14), torch.linspace(0, 2, 16), indexing="ij")
    np.save(tmp_path / "grid.npy", torch.stack([x, y, (3 * x).sin() * y], -1).numpy())
    np.savez(tmp_path / "heights.npz", one=(x * y).numpy(), two=(x + y).numpy())
    np.save(tmp_path / "cloud.npy", torch.stack([x, y, 0.2 * x * y], -1).reshape(-1, 3).numpy())
    return tmp_path


def test_fit_nurbs(cloud: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["/somewhere/bin/geodiff", "fit-nurbs", "my grid.npy"])
    kinds = ["ply", "3dm"] if importlib.util.find_spec("rhino3dm") else ["ply"]
    text = succeed("fit-nurbs", cloud / "grid.npy", "-o", cloud / "out", "--control-shape", "6x5", "--degree", "3x2",
                   "--free-knots", *(word for kind in kinds for word in ("--save", kind)))  # fmt: skip
    metrics = json.loads((cloud / "out" / "metrics.json").read_text())
    assert metrics["control"] == [6, 5] and metrics["degree"] == [3, 2] and metrics["settings"]["free_knots"] is True
    assert metrics["command"] == "geodiff fit-nurbs 'my grid.npy'" and metrics["source"] == str(cloud / "grid.npy")
    assert 0 < metrics["rms_over_diagonal"] < 1e-2
    assert f"grid of 14×16 points, 6×5 control points: rms {metrics['rms']:.4g}" in text
    files = ("surface.json", *(f"surface.{kind}" for kind in kinds), "surface.png", "error.png", "metrics.json")
    assert all(str(cloud / "out" / name) in text for name in files)
    assert sorted(files) == sorted(path.name for path in (cloud / "out").iterdir())


def test_fit_nurbs_takes_heights_and_clouds(cloud: pathlib.Path) -> None:
    assert "heights of 14×16 points, 8×8" in succeed("fit-nurbs", cloud / "heights.npz", "--array", "two", "-o",
                                                     cloud / "a", "--spacing", 0.1, 0.2)  # fmt: skip
    assert json.loads((cloud / "a" / "metrics.json").read_text())["settings"]["spacing"] == [0.1, 0.2]
    assert "cloud of 224 points, 4×4" in succeed("fit-nurbs", cloud / "cloud.npy", "--control-shape", 4, "-o",
                                                 cloud / "b", "--smoothing", 1e-6)  # fmt: skip
    assert "22 of 224 points are left out" in succeed("fit-nurbs", cloud / "cloud.npy", "--control-shape", 4, "-o",
                                                      cloud / "b", "--trim", 0.1)  # fmt: skip


def test_fit_nurbs_refuses(cloud: pathlib.Path) -> None:
    grid, out = cloud / "grid.npy", ("-o", cloud / "out")
    assert "Error: fit_nurbs: `points` must be a file that exists" in refused("fit-nurbs", cloud / "none.npy", *out)
    assert "`array` must be given where a file has several; got one, two" in refused(
        "fit-nurbs", cloud / "heights.npz", *out
    )
    assert "Error: fit_surface: " in refused("fit-nurbs", grid, *out, "--control-shape", "40x40", "--free-knots")
    assert "Error: fit_surface: " in refused("fit-nurbs", grid, *out, "--control-shape", "3x8")
    text = refused("fit-nurbs", grid, *out, "--control-shape", "8by8")
    assert "neither a number such as 8 nor a pair such as 8x12" in text
    assert "`formats` must be one of json, 3dm" in refused("fit-nurbs", grid, *out, "--save", "dwg")
    assert "Did you mean 'heights'?" in refused("fit-nurbs", grid, *out, "--kind", "height")
    assert "`rational` must be left out for a cloud" in refused("fit-nurbs", cloud / "cloud.npy", *out, "--rational")
    assert "fit_nurbs: `device` must be cpu" in refused("fit-nurbs", grid, *out, "--device", "nvidia")
    assert "Missing option '-o'" in refused("fit-nurbs", grid)
    assert not (cloud / "out").exists()


@pytest.mark.slow
def test_ctrl_c_ends_a_sweep_and_its_workers_at_once(tmp_path: pathlib.Path) -> None:
    """It goes to all processes of the terminal; only the first speaks, and no run is waited for."""
    gd.icosphere(2).save(tmp_path / "ball.ply")
    command = [sys.executable, "-m", "geodiff", "sweep", "shape", str(tmp_path / "ball.ply"), "-o", str(tmp_path / "o")]
    command += ["--workers", "2", "--family", "logistic+*", "--set", "views=4", "--set", "size=16", "--set", "steps=9"]
    # As from a terminal: where the tests run in the background, children would inherit that they ignore Ctrl-C.
    job = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                           start_new_session=True,
                           preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL))  # fmt: skip
    rows = tmp_path / "o" / "rows.jsonl"
    until = time.monotonic() + 120
    while not (rows.exists() and rows.read_bytes().count(b"\n") > 1) and time.monotonic() < until:
        assert job.poll() is None, job.communicate()
        time.sleep(0.05)
    os.killpg(job.pid, signal.SIGINT)
    _, told = job.communicate(timeout=60)
    assert job.returncode == 130 and "Traceback" not in told, told
    goes_on = f"The same command goes on from what is in {tmp_path / 'o'}, if a checkpoint or rows are there yet."
    assert told.rstrip().endswith(goes_on), told
    assert {p.name for p in (tmp_path / "o").iterdir()} == {"rows.jsonl"}
    with pytest.raises(ProcessLookupError):  # nobody of them is left
        for _ in range(100):
            os.killpg(job.pid, 0)
            time.sleep(0.1)


@pytest.mark.parametrize("arch", ["90", "sm_90a", "volta"])
def test_compile_for_what_is_no_architecture(arch: str) -> None:
    result = call("compile", "--arch", "sm_80", "--arch", arch)
    assert result.exit_code == 2 and f"`--arch` must be sm_ and a number, as sm_90; got '{arch}'" in result.output


def test_compile_for_a_family_has_all_that_its_renderers_launch(monkeypatch: pytest.MonkeyPatch) -> None:
    """Kernels that do nothing stand in for the device's: their names count."""
    compiled, launched = set(), set()
    compiler, launcher = (importlib.import_module(f"geodiff.native.gpu.{name}") for name in ("compiler", "launcher"))
    monkeypatch.setattr(compiler, "kernel", lambda header, name, arch: compiled.add((header, name)))

    class Idle:
        sizes = None

        def launch(self, *_: object) -> None:
            pass

    def build(header: str, name: str, device: torch.device) -> Idle:
        launched.add((header, name))
        return Idle()

    monkeypatch.setattr(launcher, "_build", build)
    monkeypatch.setattr(launcher, "_built", {})
    family = "gamma(2).reversed+yager(8)"
    assert call("compile", "--arch", "sm_90", "--family", family).exit_code == 0
    member = gd.soft.member(family)
    for coverage in ("faces", "edges"):
        for scale in (0.1, torch.tensor(0.1, requires_grad=True)):
            vertices = gd.box().vertices.requires_grad_()
            options = {"scale": scale, "coverage": coverage}
            with gd.native.gpu.emulated():
                render = gd.Renderer(4, member.distribution, tconorm=member.tconorm, **options)
                render(gd.box().with_vertices(vertices), gd.Camera.orbit(3.0, fov_deg=60)).alpha.sum().backward()
    assert len(launched) > 10 and launched <= compiled, launched - compiled
    assert call("compile", "--arch", "sm_90", "--family", "gama+yager").exit_code == 2
