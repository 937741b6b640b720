# SPDX-License-Identifier: Apache-2.0
"""The `geodiff` command. Whatever needs torch is imported by the command that needs it, so that --help is quick."""

import functools
import importlib.metadata
import importlib.util
import json
import os
import pathlib
import re
import shlex
import sys
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import click

import geodiff
from geodiff.cli_fields import given, options_of, source_of
from geodiff.cli_options import clean

# OpenMP reads it when torch is loaded. Where other programs share the cores, threads that spin while they wait for one
# another make a step several times as slow as one thread alone; asleep, they cost next to nothing.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

# What each extra of pyproject.toml brings, and of which major version where that matters.
_EXTRAS = {
    "cad": ("rhino3dm", "OCP"),
    "cholmod": ("cvxopt",),
    "cuda": ("cuda.bindings 13",),
    "cuda12": ("cuda.bindings 12",),
    "docs": ("mkdocs",),
    "draco": ("DracoPy",),
    "texture": ("xatlas",),
    "las": ("laspy", "lazrs"),
    "open3d": ("open3d",),
    "plot": ("matplotlib",),
    "pot": ("ot",),
    "video": ("imageio_ffmpeg",),
    "view": ("viser",),
}


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(geodiff.__version__, prog_name="geodiff")
def main() -> None:
    """Differentiable geometry and rendering: recover meshes from images."""


@main.result_callback()
def _leave(_: Any) -> None:
    """Leave a process of torchrun without the interpreter's end, at which threads of gloo abort one time in twenty."""
    if "TORCHELASTIC_RUN_ID" in os.environ:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(0)


@main.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@clean
def info(as_json: bool) -> None:
    """Say what is installed here: version, torch, devices, kernels, SIMD level, threads, extras."""
    import torch

    from geodiff.native import cpu

    try:
        kernels = ", ".join(cpu.kernels())
        simd, levels = cpu.simd_level(), ", ".join(cpu.simd_levels())
    except RuntimeError as error:
        kernels, simd, levels = f"none: {error}", "none", "none"
    from geodiff.native.gpu import cache, compiler, driver

    gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    try:
        nvrtc = f"{compiler.version()}, up to sm_{max(compiler.supported())}"
    except RuntimeError:
        nvrtc = "none"
    facts = {
        "geodiff": geodiff.__version__,
        "python": sys.version.split()[0],
        "torch": torch.__version__,
        "devices": ", ".join(["cpu", *(f"{name} (cuda:{i})" for i, name in enumerate(gpus))]),
        "kernels": kernels,
        "simd": simd,
        "levels": f"{levels} (GEODIFF_SIMD chooses)",
        "threads": cpu.threads(),
        "driver": driver.version() or "none",
        "nvrtc": nvrtc,
        "cache": f"{cache.place()} (GEODIFF_CACHE chooses)",
        "extras": ", ".join(
            f"{name} {'yes' if all(map(_found, modules)) else 'no'}" for name, modules in _EXTRAS.items()
        ),
    }
    if as_json:
        click.echo(json.dumps(facts, indent=1))
        return
    for name, value in facts.items():
        click.echo(f"{name:8} {value}")


def _found(module: str) -> bool:
    name, _, major = module.partition(" ")
    try:
        found = importlib.util.find_spec(name) is not None
        return found and (not major or importlib.metadata.version(name.replace(".", "-")).startswith(f"{major}."))
    except ModuleNotFoundError:  # the package around it is missing, or its metadata
        return False


@main.command("compile")
@click.option("--arch", "archs", multiple=True, required=True, metavar="ARCH", help="As sm_90; may be repeated.")
@click.option("--full", is_flag=True, help="Every renderer in every form: thousands of kernels, hours.")
@click.option(
    "--family", multiple=True, metavar="NAME", help="In float32 alone, and of renderers those named, as for sweep."
)
@clean
def compile_kernels(archs: tuple[str, ...], full: bool, family: tuple[str, ...]) -> None:
    """Compile the GPU's kernels ahead of their first use, into the cache that `geodiff info` names. Needs no GPU."""
    from tqdm import tqdm

    from geodiff.native.gpu import cache, compiler, names
    from geodiff.validation import fail

    for arch in archs:
        if not re.fullmatch(r"sm_\d+", arch):
            raise fail("compile", "--arch", "sm_ and a number, as sm_90", repr(arch))
    wanted = list(_kernels(family) if family else names.kernel_names(full))
    for arch in archs:
        for header, name in tqdm(wanted, desc=arch, unit="kernel"):
            compiler.kernel(header, name, arch)
    if cache.is_in_memory():
        raise fail("compile", "GEODIFF_CACHE", "a folder that can be written", cache.place(), error=RuntimeError)
    click.echo(f"{len(wanted)} kernels for {', '.join(archs)} in {cache.folder()}")


def _kernels(family: Iterable[str]) -> Iterator[tuple[str, str]]:
    """Yield the kernels of float32 that all renderers share, and those of members of the family."""
    from geodiff.native.gpu import names
    from geodiff.tasks.sweep.kinds import select_family

    yield from names.shared("float")
    for write in ("false", "true"):
        yield "raster/contour_kernels.h", f"gd::contour_cut<{write}>"
    found: dict[tuple[str, str], None] = {}
    for member in select_family(family):
        law, join = member.distribution, member.tconorm
        if law.kernel_id is not None and join.kernel_id is not None:
            p = 0.0 if join.p is None else float(join.p)
            own = names.renderer(law.kernel_id, law.is_reversed, law.is_squared, join.kernel_id, p)
            found |= dict.fromkeys(own)
    yield from found


_PATH = click.Path(path_type=pathlib.Path)
_output = click.option("-o", "--output", required=True, type=_PATH, help="Folder to write to.")
_resume = click.option(
    "--resume/--fresh", default=True, show_default=True, help="Go on from what is in OUT, or start anew."
)
_device = click.option(
    "--device", default="cpu", show_default=True, help="cpu, cuda, cuda:1, …, or auto: a GPU if one works here."
)


def _scale_ends(settings: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Take --scale-start and --scale-end, too, each of which leaves the other as it is."""

    def decorate(command: Callable[..., Any]) -> Callable[..., Any]:
        @click.option("--scale-start", type=float, hidden=True)
        @click.option("--scale-end", type=float, hidden=True)
        @functools.wraps(command)
        def wrapped(scale_start: float | None, scale_end: float | None, **options: Any) -> None:
            if scale_start is not None or scale_end is not None:
                first, last = options["scale"] or source_of(settings).fields["scale"].default or (None, None)
                options["scale"] = (
                    first if scale_start is None else scale_start,
                    last if scale_end is None else scale_end,
                )
            command(**options)

        return wrapped

    return decorate


def _settings(options: dict[str, Any]) -> dict[str, Any]:
    """Return the settings that were given, and the command line."""
    return {**given(options), "command": shlex.join(["geodiff", *sys.argv[1:]])}


def _on(device: str) -> str:
    return "" if device == "cpu" else f" on {device}"


def _tell(files: dict[str, pathlib.Path], notes: Iterable[str] = ()) -> None:
    for kind, path in files.items():
        click.echo(f"  {kind:13} {path}")
    for note in notes:
        click.echo(f"  {note}")


@main.command()
@click.argument("mesh", type=_PATH)
@click.option("-o", "--output", type=_PATH, help="Folder to write to.")
@options_of("tasks.render.command.render_command", "animate", "views", "size")
@options_of("tasks.render.views.render_views", "placement", "elevation", "distance", "fov", "shading")
@options_of("tasks.render.command.render_command", "light", "ambient")
@options_of("tasks.render.views.render_views", "background", "hard", "supersample", "coverage", "scale_px")
@options_of("tasks.render.command.render_command", "outputs", "fps", "alpha_bits")
@options_of("tasks.render.views.render_views", "seed")
@_device
@clean
def render(mesh: pathlib.Path, output: pathlib.Path | None, device: str, **options: Any) -> None:
    """Render MESH (OBJ, PLY, STL, GLB) from around it, in its own colours or else in grey.

    Writes images and transforms.json, as fit-mesh reads them, to the folder OUT, or an animation, or both.
    """
    from geodiff.tasks.render.command import render_command
    from geodiff.validation import fail

    if device not in ("cpu", "auto"):
        raise fail("render", "device", "cpu or auto", repr(device), "Pictures are made on the host.", RuntimeError)
    for line in render_command(mesh, output=output, **given(options)):
        click.echo(line)


@main.command("fit-mesh")
@click.argument("images", type=_PATH)
@_output
@options_of("tasks.mesh.job.fit_mesh", "template", "background")
@click.option("--images", "pictures", type=_PATH, help="Folder of the pictures of a COLMAP model or a calibration.")
@click.option("--masks", type=_PATH, help="Folder with a mask for each image.")
@click.option("--max-size", type=int, help="Longest side of the images in pixels; larger ones are made smaller.")
@options_of("tasks.mesh.settings.FitMeshSettings", formats="--format --formats")
@_scale_ends("tasks.mesh.settings.FitMeshSettings")
@_resume
@_device
@clean
def fit_mesh(
    images: pathlib.Path,
    output: pathlib.Path,
    resume: bool,
    pictures: pathlib.Path | None,
    masks: pathlib.Path | None,
    max_size: int | None,
    **options: Any,
) -> None:
    """Recover a mesh from IMAGES: a transforms.json, a COLMAP model or an OpenCV calibration, or the folder it is in.

    Writes mesh.obj, side_by_side.png, optimisation.gif and metrics.json to OUT; with --texture or --vertex-colors
    mesh.glb, too.
    """
    from geodiff import tasks

    source: Any = images
    if (pictures, masks, max_size) != (None, None, None):
        source = geodiff.PosedImages.load(
            images, images=pictures, masks=masks, max_size=max_size, background=options.pop("background")
        )
    result = tasks.fit_mesh(source, output=output, resume=resume, **_settings(options))
    held_out = "" if result.iou_held_out is None else f", {result.iou_held_out:.3f} in {len(result.held_out)} held out"
    click.echo(f"\nIoU {result.iou_train:.3f} in {len(result.train)} views fitted{held_out}; "
               f"{len(result.history)} steps in {result.seconds:.1f} s{_on(result.device)}")  # fmt: skip
    if result.colors is not None:
        views = result.held_out or result.train
        quality = [float(value[views].nanmean()) for value in (result.colors.psnr, result.colors.ssim)]
        click.echo(f"Colours: PSNR {quality[0]:.1f} dB, SSIM {quality[1]:.3f} in "
                   f"{len(views)} views {'held out' if result.held_out else 'fitted'}")  # fmt: skip
    _tell(result.files)


@main.command("fit-pose")
@click.argument("mesh", type=_PATH)
@click.argument("image", type=_PATH)
@_output
@options_of("tasks.pose.input.command_inputs", "cameras", "fov", "start")
@options_of("tasks.pose.job.fit_pose", "mask")
@options_of("tasks.pose.input.command_inputs", "depth")
@options_of("tasks.pose.input.command_lights", "ambient", "light")
@options_of("tasks.pose.settings.FitPoseSettings")
@_scale_ends("tasks.pose.settings.FitPoseSettings")
@click.option("--strict", is_flag=True, help="End with an error where the mesh does not explain the image.")
@_resume
@_device
@clean
def fit_pose(
    mesh: pathlib.Path, image: pathlib.Path, output: pathlib.Path, strict: bool, resume: bool, **options: Any
) -> None:
    """Recover the pose of the camera that saw MESH in IMAGE, a silhouette or an image with alpha.

    Writes overlay.png, optimisation.gif and metrics.json to OUT.
    """
    from geodiff import tasks
    from geodiff.tasks.pose.input import command_inputs, command_lights

    lights = command_lights(options["loss"], ambient=options.pop("ambient"), light=options.pop("light"))
    inputs = command_inputs(mesh, image, **{name: options.pop(name) for name in ("cameras", "fov", "start", "depth")})
    result = tasks.fit_pose(**inputs, lights=lights, output=output, resume=resume, **_settings(options))
    position = ", ".join(f"{x:.4g}" for x in result.camera.position.tolist())
    took = f"{len(result.history)} steps in {result.seconds:.1f} s{_on(result.device)}"
    click.echo(f"\nCamera at ({position}), IoU {result.iou:.3f}; {took}")
    if len(result.free_axes) > 1:
        click.echo("The image does not tell the rotation: the mesh looks the same from everywhere")
    elif len(result.free_axes):
        axis = ", ".join(f"{x:.3g}" for x in result.free_axes[0].tolist())
        click.echo(f"The image does not tell the turn about the axis ({axis}) of the mesh")
    for mode in result.modes[1:]:
        click.echo(
            f"or {mode.angle_deg:.0f}° away, {mode.probability:.0%} (the first: {result.modes[0].probability:.0%})"
        )
    if result.error is not None:
        click.echo(f"{result.error['angle_deg']:.3g}° from the true rotation, position off by "
                   f"{result.error['position']:.4g}, distance × {result.error['distance']:.4g}")  # fmt: skip
    _tell(result.files)
    if strict and result.explained < 1:
        raise click.ClickException(f"fit-pose: the mesh does not explain the image: IoU {result.iou:.2f}")


@main.command("fit-nurbs")
@click.argument("points", type=_PATH)
@_output
@options_of("tasks.nurbs.job.fit_nurbs", "array", "columns", "noise_classes")
@options_of("tasks.nurbs.settings.FitNURBSSettings", formats="--format --formats --save",
            free_knots="--free-knots/--fixed-knots")  # fmt: skip
@_device
@clean
def fit_nurbs(points: pathlib.Path, output: pathlib.Path, **options: Any) -> None:
    """Fit a NURBS surface to POINTS: a grid (N, M, 3), heights (N, M), or a cloud.

    Reads .npy and .npz; clouds also from .ply, .obj, .las, .laz and tables (.xyz, .csv, .txt, .pts, …). Writes
    surface.json, surface.obj, surface.png, error.png (with Matplotlib) and metrics.json to OUT, all of them when the
    fit is done: it takes seconds to minutes, so an interrupted one leaves nothing behind and starts anew.
    """
    from geodiff import tasks

    result = tasks.fit_nurbs(points, output=output, **_settings(options))
    shape = "×".join(str(n) for n in result.points.shape[:-1])
    scale = result.diagonal or 1.0
    click.echo(f"\n{result.kind} of {shape} points, {'×'.join(str(n) for n in result.surface.shape)} control points: "
               f"rms {result.rms:.4g} ({result.rms / scale:.2g} of the diagonal), largest {result.max:.4g} "
               f"({result.max / scale:.2g}), mse {result.mse:.6g}; {result.seconds:.1f} s")  # fmt: skip
    _tell(result.files, result.notes)


@main.command("fit-atlas")
@click.argument("cloud", type=_PATH)
@_output
@options_of("tasks.atlas.job.fit_atlas", "truth", "array", "columns", "noise_classes", "file_normals")
@click.option("--ignore-normals", is_flag=True, hidden=True, help="--no-file-normals, as it was called.")
@options_of("tasks.atlas.settings.FitAtlasSettings")
@click.option("--strict", is_flag=True, help="End with an error where what was found misses its own checks.")
@_resume
@_device
@clean
def fit_atlas(
    cloud: pathlib.Path, output: pathlib.Path, ignore_normals: bool, strict: bool, resume: bool, **options: Any
) -> None:
    """Recover the surface of CLOUD: points with noise, open or closed, with or without normals.

    Reads .ply, .obj, .npy, .npz, .las, .laz and tables (.xyz, .csv, .txt, .pts, …). Writes the atlas, samples with
    normals, meshes, pictures and metrics.json to OUT. Over several processes with torchrun: torchrun --nproc-per-node 2
    --no-python geodiff fit-atlas CLOUD -o OUT.
    """
    from geodiff import tasks

    if ignore_normals:
        options["file_normals"] = False
    result = tasks.fit_atlas(cloud, output=output, resume=resume, **_settings(options))
    if not result.leads:
        return
    facts = result.metrics
    off, charts = facts["points_to_surface"], facts["charts"]
    click.echo(f"\n{charts['count']} charts of {facts['points']['fitted']} points, {charts['converged']} down to the "
               f"noise ({facts['noise_over_diagonal']:.2g} of the diagonal); points off the surface: rms "
               f"{off['rms']:.2g}, largest {off['max']:.2g} of the diagonal; {result.seconds:.1f} s")  # fmt: skip
    truth = facts.get("truth")
    if truth is not None:
        there, back = (truth["samples"][name] for name in ("accuracy", "completeness"))
        click.echo(f"Against the truth: accuracy mean {there['mean']:.2e}, largest {there['max']:.2e}; completeness "
                   f"mean {back['mean']:.2e}; the points' own {truth['input']['accuracy']['mean']:.2e}")  # fmt: skip
    _tell(result.files, result.notes)
    if strict and facts.get("failed_checks"):
        raise click.ClickException("fit-atlas: missed its own checks: " + "; ".join(facts["failed_checks"]))


@main.command()
@click.argument("kind")
@click.argument("mesh", type=_PATH)
@_output
@options_of("tasks.sweep.settings.SweepSettings")
@click.option("--set", "settings", multiple=True, metavar="NAME=VALUE", help="An option of the job, such as steps=50.")
@click.option("--seed", type=int, help="Of what is random in the job.  [default: 0]")
@_resume
@_device
@clean
def sweep(
    kind: str,
    mesh: pathlib.Path,
    output: pathlib.Path,
    settings: tuple[str, ...],
    seed: int | None,
    resume: bool,
    **options: Any,
) -> None:
    """Run a job of KIND (shape or pose) for MESH with many renderers, τ and learning rates.

    Each finished run is kept in OUT; the same command goes on from there. Over several processes with --workers, over
    several machines with torchrun: torchrun --nnodes 2 … --no-python geodiff sweep shape MESH -o OUT. Writes table.csv,
    sweep.json, and the heat maps heatmap.csv and scales.csv, as PNG too with Matplotlib.
    """
    from geodiff import tasks
    from geodiff.validation import fail

    chosen: dict[str, Any] = {} if seed is None else {"seed": seed}
    for text in settings:
        name, equals, value = text.partition("=")
        if not equals:
            raise fail("sweep", "--set", "of the form NAME=VALUE", repr(text))
        try:
            chosen[name] = json.loads(value)
        except ValueError:
            chosen[name] = value
    result = tasks.sweep(kind, mesh, output=output, options=chosen, resume=resume, **_settings(options))
    if not result.leads:
        return
    click.echo(f"{len(result.rows)} runs, {result.run} of them now, {result.failed} failed")
    if result.best is not None:
        click.echo("best: " + ", ".join(f"{k} {v}" for k, v in result.best.items() if k not in ("error", "seconds")))
    _tell(result.files)


@main.command()
@click.argument("paths", nargs=-1, required=True, type=_PATH)
@click.option("-o", "--output", type=_PATH,
              help="Write one HTML page that holds everything and a viewer, and serve nothing.")  # fmt: skip
@options_of("tasks.view.page.view", "host", "port")
@clean
def view(paths: tuple[pathlib.Path, ...], output: pathlib.Path | None, **options: Any) -> None:
    """Look at PATHS in the browser: with the extra geodiff[view], or as a page with -o.

    Files of meshes (OBJ, PLY, STL, GLB, OFF), splines (surface.json, 3DM, STEP, IGES), an atlas.npz, clouds of points,
    or folders of results.
    """
    from geodiff import tasks
    from geodiff.tasks.view.page import check_port
    from geodiff.tasks.view.things import things_to_see

    if options["port"] is not None:
        check_port(options["port"])
    found = things_to_see(paths, "view")
    title = ", ".join(str(path) for path in paths)
    if output is not None:
        tasks.display(found, title=title).save(output)
        faces = sum(mesh.num_faces for mesh in found.values())
        click.echo(f"{', '.join(found)} ({faces} triangles) to turn in any browser: {output}")
        return
    tasks.view(found, title=title, **given(options))


if __name__ == "__main__":
    main()
