# SPDX-License-Identifier: Apache-2.0
"""The `geodiff` command. Whatever needs torch is imported by the command that needs it, so that --help is quick."""

import importlib.util
import json
import os
import pathlib
import shlex
import sys
from typing import Any

import click

import geodiff
from geodiff.cli_options import Numbers, Pair, Size, Widths, clean, on_cpu

# OpenMP reads it when torch is loaded. Where other programs share the cores, threads that spin while they wait for one
# another make a step several times as slow as one thread alone; asleep, they cost next to nothing.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

# What each extra of pyproject.toml brings.
_EXTRAS = {
    "cad": ("rhino3dm", "OCP"),
    "cuda": ("cuda.bindings",),
    "docs": ("mkdocs",),
    "draco": ("DracoPy",),
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
    gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    facts = {
        "geodiff": geodiff.__version__,
        "python": sys.version.split()[0],
        "torch": torch.__version__,
        "devices": ", ".join(["cpu", *(f"{name} (not used yet)" for name in gpus)]),
        "kernels": kernels,
        "simd": simd,
        "levels": f"{levels} (GEODIFF_SIMD chooses)",
        "threads": cpu.threads(),
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
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:  # the package around it is missing
        return False


@main.command()
@click.argument("mesh", type=click.Path(path_type=pathlib.Path))
@click.option("-o", "--output", type=click.Path(path_type=pathlib.Path), help="Folder to write to.")
@click.option("--animate", type=click.Path(path_type=pathlib.Path),
              help="Write one full turn as a .gif, or as an .mp4 with the extra geodiff[video].")  # fmt: skip
@click.option("--views", type=int, help="How many images.  [default: 24, and 72 for an animation]")
@click.option("--placement", type=click.Choice(["orbit", "random"]), default="orbit", show_default=True,
              help="Evenly around, or anywhere on the sphere (by --seed).")  # fmt: skip
@click.option("--elevation", multiple=True, type=float, default=(30.0,), show_default=True,
              help="Degrees over the horizon; given several times, the views take turns.")  # fmt: skip
@click.option("--distance", type=float, help="From the middle of the mesh; left out, all of it fits in the image.")
@click.option("--fov", default=30.0, show_default=True, help="Full field of view of the shorter side, degrees.")
@click.option("--size", type=Size(), help="Rows, or rows x columns, of an image.  [default: 64, 256 for an animation]")
@click.option("--shading", type=click.Choice(["unlit", "lambert", "phong", "gouraud"]),
              help="[default: phong where the file has a material, else lambert]")  # fmt: skip
@click.option("--light", nargs=4, type=float, multiple=True, metavar="X Y Z BRIGHTNESS",
              help="Direction to a distant light; several times.  [default: lights around the viewer]")  # fmt: skip
@click.option("--ambient", type=float, help="Brightness from everywhere.  [default: 0.2 with --light]")
@click.option("--background", metavar="COLOUR or IMAGE",
              help="white, '#1e90ff', 0.2,0.3,0.4 or a file.  [default: none, white for an animation]")  # fmt: skip
@click.option("--hard", is_flag=True, help="Alpha is 0 or 1 by the pixel's centre, not anti-aliased.")
@click.option("--supersample", type=click.IntRange(1, 16), help="Samples a side of each pixel.  [default: 4]")
@click.option("--coverage", type=click.Choice(["hard", "faces", "edges", "contour"]), default="hard", show_default=True,
              help="Of the renderer: the soft ones blur edges by --scale-px.")  # fmt: skip
@click.option("--scale-px", default=0.5, show_default=True, help="How soft the soft coverages are, in pixels.")
@click.option("--outputs", default="", metavar="NAMES",
              help="Of depth,normal,face_id,uv,alpha: written as .npy and .png, too.")  # fmt: skip
@click.option("--fps", default=25.0, show_default=True, help="Frames a second of the animation.")
@click.option("--alpha-bits", type=click.Choice(["8", "16"]), default="8", show_default=True,
              help="16 writes alpha as masks of their own, as --background always does.")  # fmt: skip
@click.option("--seed", default=0, show_default=True, help="Of --placement random.")
@click.option("--device", default="cpu", show_default=True, help="Only cpu so far.")
@clean
def render(mesh: pathlib.Path, device: str, **options: Any) -> None:
    """Render MESH (OBJ, PLY, STL, GLB) from around it, in its own colours or else in grey.

    Writes images and transforms.json, as fit-mesh reads them, to the folder OUT, or an animation, or both.
    """
    on_cpu("render", device)
    from geodiff.tasks.render.command import render_command

    for line in render_command(mesh, **options):
        click.echo(line)


@main.command("fit-mesh")
@click.argument("images", type=click.Path(path_type=pathlib.Path))
@click.option("-o", "--output", required=True, type=click.Path(path_type=pathlib.Path), help="Folder to write to.")
@click.option("--template", default="sphere", show_default=True, help="'sphere', or the file of a mesh to start from.")
@click.option("--steps", type=int, help="Gradient steps.  [default: 100]")
@click.option("--optimizer", help="large_steps or adam.  [default: large_steps]")
@click.option("--lr", type=float, help="First step length; 1 is half the picture.  [default: 0.18]")
@click.option("--lr-decay", type=float, help="What is left of it at the last step.  [default: 0.3]")
@click.option(
    "--betas", nargs=2, type=float, default=None, help="Decay of the optimiser's moments.  [default: 0.8 0.95]"
)
@click.option("--smoothing", type=float, help="λ of large_steps.  [default: 1]")
@click.option("--distribution", help="Soft edge, such as logistic or 'gamma(0.5).reversed'.  [default: logistic]")
@click.option("--tconorm", help="How faces are joined, such as probabilistic or 'yager(2)'.  [default: probabilistic]")
@click.option("--scale-start", type=float, help="τ at the first step.  [default: 0.01]")
@click.option("--scale-end", type=float, help="τ at the last step.  [default: 0.001]")
@click.option("--laplacian", type=float, help="Weight of the Laplacian.  [default: 0.016]")
@click.option("--flatness", type=float, help="Weight of the flatness at the first step.  [default: 0.0003]")
@click.option("--flatness-decay", type=float, help="What is left of it at the last step.  [default: 0.1]")
@click.option("--views-per-step", type=int, help="Draw so many views at each step.  [default: all]")
@click.option("--hold-out", type=int, help="Measure with every n-th view, fit the others; 0: none.  [default: 6]")
@click.option("--evaluate-every", type=int, help="Steps between measurements of the IoU.  [default: 5]")
@click.option("--subdivisions", type=int, help="Of the sphere.  [default: 3, 642 vertices]")
@click.option("--init-radius", type=float, help="Of the sphere.  [default: by the size of the silhouettes]")
@click.option("--checkpoint-every", type=int, help="Steps; 0: never.  [default: 25]")
@click.option("--seed", type=int, help="Of what is random.  [default: 0]")
@click.option("--format", "formats", multiple=True, default=("obj",), show_default=True,
              help="obj, ply, glb or stl; may be given several times.")  # fmt: skip
@click.option("--resume/--fresh", default=True, show_default=True, help="Go on from a checkpoint, or start anew.")
@click.option("--device", default="cpu", show_default=True, help="Only cpu so far.")
@clean
def fit_mesh(
    images: pathlib.Path,
    output: pathlib.Path,
    template: str,
    formats: tuple[str, ...],
    resume: bool,
    device: str,
    scale_start: float | None,
    scale_end: float | None,
    **options: Any,
) -> None:
    """Recover a mesh from IMAGES, a transforms.json or the folder it is in.

    Writes mesh.obj, side_by_side.png, optimisation.gif and metrics.json to OUT.
    """
    on_cpu("fit-mesh", device)
    from geodiff import tasks

    changes = {name: value for name, value in options.items() if value is not None}
    if scale_start is not None or scale_end is not None:
        start, end = tasks.FitMeshSettings().scale
        changes["scale"] = (start if scale_start is None else scale_start, end if scale_end is None else scale_end)
    result = tasks.fit_mesh(
        images,
        template=template,
        output=output,
        formats=formats,
        resume=resume,
        command=shlex.join(["geodiff", *sys.argv[1:]]),
        **changes,
    )
    held_out = "" if result.iou_held_out is None else f", {result.iou_held_out:.3f} in {len(result.held_out)} held out"
    click.echo(f"\nIoU {result.iou_train:.3f} in {len(result.train)} views fitted{held_out}; "
               f"{len(result.history)} steps in {result.seconds:.1f} s")  # fmt: skip
    for kind, path in result.files.items():
        click.echo(f"  {kind:13} {path}")


@main.command("fit-pose")
@click.argument("mesh", type=click.Path(path_type=pathlib.Path))
@click.argument("image", type=click.Path(path_type=pathlib.Path))
@click.option("-o", "--output", required=True, type=click.Path(path_type=pathlib.Path), help="Folder to write to.")
@click.option("--cameras", type=click.Path(path_type=pathlib.Path),
              help="A transforms.json that lists IMAGE: gives the lens and the true pose to compare with.")  # fmt: skip
@click.option("--fov", type=float, help="Full field of view of the shorter side, degrees.  [default: 40]")
@click.option("--start", nargs=3, type=float, default=None,
              help="A guess to search around: elevation and azimuth (degrees) and distance from the mesh.")  # fmt: skip
@click.option(
    "--mask", type=click.Path(path_type=pathlib.Path), help="Coverage of the mesh in IMAGE, if not its alpha."
)
@click.option("--depth", type=click.Path(path_type=pathlib.Path), help="Depth map, .npy, for --loss depth.")
@click.option("--loss", multiple=True, help="silhouette, color or depth; several are added.  [default: silhouette]")
@click.option("--ambient", type=float, help="Brightness from everywhere, for --loss color.")
@click.option("--light", nargs=4, type=float, multiple=True, metavar="X Y Z BRIGHTNESS",
              help="Direction towards a distant light, for --loss color; several times.  [default: unlit]")  # fmt: skip
@click.option("--translation", help="free, distance or fixed.  [default: free]")
@click.option("--focal", is_flag=True, default=None, help="Fit the focal length, too.")
@click.option("--steps", type=int, help="Gradient steps.  [default: 60]")
@click.option("--polish", type=int, help="Gauss-Newton steps at each of four τ after them.  [default: 6]")
@click.option("--candidates", type=int, help="Rotations to look at first.  [default: 1000]")
@click.option("--starts", type=int, help="How many of them to follow.  [default: 24]")
@click.option("--finalists", type=int, help="How many of those to the end.  [default: 6]")
@click.option("--spread", type=float, help="Degrees around the start.  [default: 60 with --start, else 180]")
@click.option("--lr", type=float, help="First step length, radians.  [default: 0.1]")
@click.option("--distribution", help="Soft edge, such as logistic or 'gamma(0.5).reversed'.  [default: logistic]")
@click.option("--tconorm", help="How faces are joined, such as probabilistic or 'yager(2)'.  [default: probabilistic]")
@click.option("--coverage", help="contour, or faces joined by the T-conorm.  [default: contour]")
@click.option("--scale-start", type=float, help="τ at the first step.  [default: 0.02]")
@click.option("--scale-end", type=float, help="τ at the last step.  [default: 0.001]")
@click.option("--size", type=int, help="Pixels of the shorter side to fit at, at most.  [default: 64]")
@click.option("--checkpoint-every", type=int, help="Steps; 0: never.  [default: 25]")
@click.option("--seed", type=int, help="Of the candidates.  [default: 0]")
@click.option("--resume/--fresh", default=True, show_default=True, help="Go on from a checkpoint, or start anew.")
@click.option("--device", default="cpu", show_default=True, help="Only cpu so far.")
@clean
def fit_pose(
    mesh: pathlib.Path,
    image: pathlib.Path,
    output: pathlib.Path,
    cameras: pathlib.Path | None,
    fov: float | None,
    start: tuple[float, float, float] | None,
    depth: pathlib.Path | None,
    loss: tuple[str, ...],
    ambient: float | None,
    light: tuple[tuple[float, float, float, float], ...],
    scale_start: float | None,
    scale_end: float | None,
    mask: pathlib.Path | None,
    resume: bool,
    device: str,
    **options: Any,
) -> None:
    """Recover the pose of the camera that saw MESH in IMAGE, a silhouette or an image with alpha.

    Writes overlay.png, optimisation.gif and metrics.json to OUT.
    """
    on_cpu("fit-pose", device)
    from geodiff import tasks
    from geodiff.tasks.pose.input import command_inputs, command_lights

    changes = {name: value for name, value in options.items() if value is not None}
    if loss:
        changes["loss"] = loss
    if scale_start is not None or scale_end is not None:
        first, last = tasks.FitPoseSettings().scale
        changes["scale"] = (first if scale_start is None else scale_start, last if scale_end is None else scale_end)
    lights = command_lights(ambient, light, loss)
    inputs = command_inputs(mesh, image, cameras, fov, start, depth)
    result = tasks.fit_pose(
        **inputs,
        mask=mask,
        lights=lights,
        output=output,
        resume=resume,
        command=shlex.join(["geodiff", *sys.argv[1:]]),
        **changes,
    )
    position = ", ".join(f"{x:.4g}" for x in result.camera.position.tolist())
    click.echo(f"\nCamera at ({position}), IoU {result.iou:.3f}; {len(result.history)} steps in {result.seconds:.1f} s")
    if result.error is not None:
        click.echo(f"{result.error['angle_deg']:.3g}° from the true rotation, position off by "
                   f"{result.error['position']:.4g}, distance × {result.error['distance']:.4g}")  # fmt: skip
    for kind, path in result.files.items():
        click.echo(f"  {kind:13} {path}")


@main.command("fit-nurbs")
@click.argument("points", type=click.Path(path_type=pathlib.Path))
@click.option("-o", "--output", required=True, type=click.Path(path_type=pathlib.Path), help="Folder to write to.")
@click.option("--kind", default="auto", show_default=True,
              help="grid, heights or cloud; auto goes by the shape; rows of x, y, z are a cloud.")  # fmt: skip
@click.option("--array", help="Which array of an .npz.")
@click.option("--spacing", nargs=2, type=float, default=(1.0, 1.0), show_default=True,
              help="Of heights: the distance of neighbours along x and y, in their unit.")  # fmt: skip
@click.option("--control", type=Pair(), default="8x8", show_default=True, help="Control points along u and v.")
@click.option("--degree", type=Pair(), default="3x3", show_default=True, help="Degree along u and v.")
@click.option("--free-knots/--fixed-knots", default=False, show_default=True,
              help="Let the interior knots move, too (grids and heights).")  # fmt: skip
@click.option("--rational", is_flag=True, help="Let the weights move, too (grids and heights).")
@click.option("--smoothing", type=float, help="Weight of the bending energy.  [default: 0; for a cloud 1e-8]")
@click.option("--starts", default=1, show_default=True, help="Of a free fit: one is uniform, the others random.")
@click.option("--seed", default=0, show_default=True, help="Of the random starts.")
@click.option("--save", "formats", multiple=True, default=("obj",), show_default=True,
              help="Besides json: 3dm, igs, stp, or triangles: obj, ply, stl, glb; several times.")  # fmt: skip
@click.option("--device", default="cpu", show_default=True, help="Only cpu so far.")
@clean
def fit_nurbs(points: pathlib.Path, output: pathlib.Path, device: str, **options: Any) -> None:
    """Fit a NURBS surface to POINTS: a grid (N, M, 3), heights (N, M), or a cloud.

    Reads .npy and .npz; clouds also from .ply, .obj, .xyz, .csv and .txt. Writes surface.json, surface.obj,
    surface.png, error.png (with Matplotlib) and metrics.json to OUT, all of them when the fit is done: it takes seconds
    to minutes, so an interrupted one leaves nothing behind and starts anew.
    """
    on_cpu("fit-nurbs", device)
    from geodiff import tasks

    result = tasks.fit_nurbs(points, output=output, command=shlex.join(["geodiff", *sys.argv[1:]]), **options)
    shape = "×".join(str(n) for n in result.points.shape[:-1])
    scale = result.diagonal or 1.0
    click.echo(f"\n{result.kind} of {shape} points, {'×'.join(str(n) for n in result.surface.shape)} control points: "
               f"rms {result.rms:.4g} ({result.rms / scale:.2g} of the diagonal), largest {result.max:.4g} "
               f"({result.max / scale:.2g}), mse {result.mse:.6g}; {result.seconds:.1f} s")  # fmt: skip
    for kind, path in result.files.items():
        click.echo(f"  {kind:13} {path}")
    for note in result.notes:
        click.echo(f"  {note}")


@main.command("fit-atlas")
@click.argument("cloud", type=click.Path(path_type=pathlib.Path))
@click.option("-o", "--output", required=True, type=click.Path(path_type=pathlib.Path), help="Folder to write to.")
@click.option("--truth", type=click.Path(path_type=pathlib.Path), help="The true surface, a mesh or points: measure.")
@click.option("--array", help="Which array of an .npz.")
@click.option("--ignore-normals", is_flag=True, help="Estimate normals, even if CLOUD has some.")
@click.option("--target", type=int, help="Points a patch.  [default: 100]")
@click.option("--radius", type=float, help="Of all patches, in diagonals.  [default: each its own, by --target]")
@click.option("--widths", type=Widths(), help="Of a chart's hidden layers.  [default: small, 64x64x64]")
@click.option("--activation", help="relu, softplus or tanh.  [default: relu]")
@click.option("--matching", help="hybrid, projection, exact or sinkhorn.  [default: hybrid]")
@click.option("--steps", type=int, help="Of a chart, at most.  [default: 60]")
@click.option("--rate", type=float, help="Step length.  [default: 0.005]")
@click.option("--noise", type=float, help="Known σ, in the unit of the points; 0: none.  [default: estimated]")
@click.option("--stop", type=float, help="Residual at which a chart is done, in σ.  [default: 1]")
@click.option("--consistency", type=float, help="Weight of agreement between charts.  [default: 2]")
@click.option("--rounds", type=int, help="Of agreement.  [default: 3]")
@click.option("--robust/--no-robust", default=None, help="Points far off count less.  [default: robust]")
@click.option("--chunk", type=int, help="Charts in memory at once.  [default: 256]")
@click.option("--max-points", type=int, help="Of larger clouds a random part is fitted.  [default: 200000]")
@click.option("--seed", type=int, help="Of what is random.  [default: 0]")
@click.option("--samples", default=200_000, show_default=True, help="Points in samples.ply.")
@click.option("--refine", default=0, show_default=True, help="Times to cut the triangles of charts.obj into four.")
@click.option("--watertight/--no-watertight", default=True, show_default=True, help="Make watertight.ply (Open3D).")
@click.option("--depth", default=8, show_default=True, help="Of its octree.")
@click.option("--open-boundaries", is_flag=True, help="Leave its holes and borders open.")
@click.option("--resume/--fresh", default=True, show_default=True, help="Go on from a checkpoint, or start anew.")
@click.option("--device", default="cpu", show_default=True, help="Only cpu so far.")
@clean
def fit_atlas(cloud: pathlib.Path, output: pathlib.Path, ignore_normals: bool, device: str, **options: Any) -> None:
    """Recover the surface of CLOUD: points with noise, open or closed, with or without normals.

    Reads .ply, .xyz, .csv, .txt, .obj, .npy, .npz, .las and .laz. Writes the atlas, samples with normals, meshes,
    pictures and metrics.json to OUT. Over several processes with torchrun: torchrun --nproc-per-node 2 --no-python
    geodiff fit-atlas CLOUD -o OUT.
    """
    on_cpu("fit-atlas", device)
    from geodiff import tasks

    chosen = {name: value for name, value in options.items() if value is not None}
    result = tasks.fit_atlas(
        cloud,
        output=output,
        file_normals=not ignore_normals,
        command=shlex.join(["geodiff", *sys.argv[1:]]),
        **chosen,
    )
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
    for kind, path in result.files.items():
        click.echo(f"  {kind:13} {path}")
    for note in result.notes:
        click.echo(f"  {note}")


@main.command()
@click.argument("kind")
@click.argument("mesh", type=click.Path(path_type=pathlib.Path))
@click.option("-o", "--output", required=True, type=click.Path(path_type=pathlib.Path), help="Folder to write to.")
@click.option("--family", multiple=True, default=("spanning",), show_default=True,
              help="spanning, thesis, all, members such as logistic+probabilistic, patterns such as 'gaussian+*'; "
              "with commas between, or given several times.")  # fmt: skip
@click.option("--scales", type=Numbers(), help="τ: 0.1,0.03 or FIRST:LAST:COUNT.  [default: by KIND]")
@click.option("--rates", type=Numbers(), help="Learning rates, likewise.  [default: by KIND]")
@click.option("--set", "settings", multiple=True, metavar="NAME=VALUE", help="An option of the job, such as steps=50.")
@click.option("--workers", default=1, show_default=True, help="Processes, of one thread each.")
@click.option("--seed", type=int, help="Of what is random.  [default: 0]")
@click.option("--resume/--fresh", default=True, show_default=True, help="Go on from the rows in OUT, or start anew.")
@click.option("--device", default="cpu", show_default=True, help="Only cpu so far.")
@clean
def sweep(
    kind: str,
    mesh: pathlib.Path,
    output: pathlib.Path,
    settings: tuple[str, ...],
    seed: int | None,
    device: str,
    **options: Any,
) -> None:
    """Run a job of KIND (shape or pose) for MESH with many renderers, τ and learning rates.

    Each finished run is kept in OUT; the same command goes on from there. Over several processes with --workers, over
    several machines with torchrun: torchrun --nnodes 2 … --no-python geodiff sweep shape MESH -o OUT. Writes table.csv,
    sweep.json, and the heat maps heatmap.csv and scales.csv, as PNG too with Matplotlib.
    """
    on_cpu("sweep", device)
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
    result = tasks.sweep(
        kind, mesh, output=output, options=chosen, command=shlex.join(["geodiff", *sys.argv[1:]]), **options
    )
    if not result.leads:
        return
    click.echo(f"{len(result.rows)} runs, {result.run} of them now, {result.failed} failed")
    if result.best is not None:
        click.echo("best: " + ", ".join(f"{k} {v}" for k, v in result.best.items() if k not in ("error", "seconds")))
    for file, path in result.files.items():
        click.echo(f"  {file:13} {path}")


@main.command()
@click.argument("paths", nargs=-1, required=True, type=click.Path(path_type=pathlib.Path))
@click.option("-o", "--output", type=click.Path(path_type=pathlib.Path),
              help="Write one HTML page that holds everything and a viewer, and serve nothing.")  # fmt: skip
@click.option("--host", default="127.0.0.1", show_default=True, help="0.0.0.0 lets other machines look, too.")
@click.option("--port", type=click.IntRange(1, 65535), default=8080, show_default=True, help="The first to try.")
@clean
def view(paths: tuple[pathlib.Path, ...], output: pathlib.Path | None, host: str, port: int) -> None:
    """Look at PATHS in the browser: with the extra geodiff[view], or as a page with -o.

    Files of meshes (OBJ, PLY, STL, GLB, OFF), splines (surface.json, 3DM, STEP, IGES), an atlas.npz, clouds of points,
    or folders of results.
    """
    from geodiff import tasks
    from geodiff.tasks.view.things import things_to_see

    found = things_to_see(paths, "view")
    title = ", ".join(str(path) for path in paths)
    if output is not None:
        tasks.display(found, title=title).save(output)
        faces = sum(mesh.num_faces for mesh in found.values())
        click.echo(f"{', '.join(found)} ({faces} triangles) to turn in any browser: {output}")
        return
    tasks.view(found, host=host, port=port, title=title)


if __name__ == "__main__":
    main()
