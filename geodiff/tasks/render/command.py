# SPDX-License-Identifier: Apache-2.0
"""What `geodiff render` does."""

import json
import pathlib
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from geodiff.render.renderer import OUTPUTS
from geodiff.scene.light import AmbientLight, DirectionalLight, Light
from geodiff.scene.mesh import Mesh
from geodiff.settings import LARGEST
from geodiff.tasks import appearance
from geodiff.tasks.animations import check_animation
from geodiff.tasks.lock import output_folder
from geodiff.tasks.render.views import animate as turn
from geodiff.tasks.render.views import render_views
from geodiff.validation import fail, number

_WHERE = "render"


def render_command(
    mesh: pathlib.Path,
    *,
    output: pathlib.Path | None,
    animate: pathlib.Path | None = None,
    views: int | None = None,
    size: int | tuple[int, int] | None = None,
    light: Sequence[tuple[float, float, float, float]] = (),
    ambient: float | None = None,
    outputs: str = "",
    fps: float = 25.0,
    alpha_bits: int = 8,
    **options: Any,
) -> Iterator[str]:
    """Write what the options ask for, and say so line by line.

    Args:
        mesh: its file.
        output: folder for images and transforms.json.
        animate: write one full turn as a .gif, or as an .mp4 with the extra geodiff[video].
        views: how many images, ≥ 1; None: 24, and 72 for an animation.
        size: rows, or rows x columns, of an image; None: 64, and 256 for an animation.
        light: direction to a distant light, and its brightness, several times; None: lights around the viewer.
        ambient: brightness from everywhere; None: 0.2 with --light.
        outputs: of depth,normal,face_id,uv,alpha: written as .npy and .png, too.
        fps: frames a second of the animation.
        alpha_bits: 16 writes alpha as masks of their own, as --background always does.
        options: the others of `render_views`.

    Raises:
        TypeError, ValueError, OSError, ImportError: as `render_views` and `PosedImages.save`; neither an output nor an
            animation; another process writes to the folder.
    """
    if output is None and animate is None:
        raise fail(_WHERE, "output", "given where there is no --animate", "neither", "Add -o FOLDER.")
    if animate is not None:
        check_animation(_WHERE, "animate", animate)
    number(_WHERE, "fps", fps, 1e-2, 1000)
    if "scale_px" in options:
        number(_WHERE, "scale_px", options["scale_px"], 1e-6, 1e6)
    if alpha_bits not in (8, 16):
        raise fail(_WHERE, "alpha_bits", "8 or 16", str(alpha_bits))
    for name, lit in (("ambient", () if ambient is None else (ambient,)), ("light", [x for one in light for x in one])):
        for value in lit:
            number(_WHERE, name, value, -LARGEST, LARGEST)
    options["lights"] = _lights(ambient, light)
    wanted = appearance.extra_outputs(_WHERE, outputs)
    if wanted and output is None:
        raise fail(_WHERE, "outputs", "left out where there is no -o", outputs, "Add -o FOLDER.")
    # A wrong one is told before the work starts.
    opaque = appearance.background(_WHERE, options.get("background"), (1, 1)) is not None
    given = Mesh.load(mesh)
    if output is not None:
        maps: dict[str, list[np.ndarray]] = {name: [] for name in wanted}
        images = render_views(
            given, views=24 if views is None else views, size=size or 64, progress=True, maps=maps, **options
        )
        with output_folder(_WHERE, output):  # images and maps are of one run
            before = _listed(output)
            before |= _maps(OUTPUTS, before)
            path = images.save(output, alpha_bits=16 if opaque else alpha_bits)
            folders = appearance.write_maps(output, images.names, maps)
            left = sorted(before - _listed(output) - _maps(wanted, images.names))
            left = [name for name in left if (output / name).is_file()]
        yield f"{len(images)} images of {images.image_size[0]}×{images.image_size[1]}: {path}"
        for folder in folders:
            yield f"  {folder.name:13} {folder}"
        if left:
            yield f"Of a former run, and no longer in transforms.json: {len(left)} files such as {output / left[-1]}"
    if animate is not None:
        frames = 72 if views is None else views
        options["elevation"] = tuple(options.get("elevation", ()))[:1] or 30.0
        turn(given, animate, frames=frames, fps=fps, size=size or 256, progress=True, **options)
        yield f"{frames} frames: {animate}"


def _listed(folder: pathlib.Path) -> set[str]:
    """Name the images and masks of a folder's transforms.json."""
    try:
        frames = json.loads((folder / "transforms.json").read_text(encoding="utf-8"))["frames"]
        return {str(frame[name]) for frame in frames for name in ("file_path", "mask_path") if name in frame}
    except (OSError, ValueError, KeyError, TypeError):  # nothing that is known
        return set()


def _maps(kinds: Iterable[str], images: Iterable[str]) -> set[str]:
    """Name the files of further outputs of images."""
    stems = {pathlib.PurePosixPath(name).name.removesuffix(".png") for name in images}
    return {f"{kind}/{stem}.{ending}" for kind in kinds for stem in stems for ending in ("npy", "png")}


def _lights(ambient: float | None, light: Sequence[tuple[float, float, float, float]]) -> list[Light] | None:
    """Return the lights that the command line names, None for those around the viewer."""
    if ambient is None and not light:
        return None
    lights: list[Light] = [AmbientLight(0.2 if ambient is None else ambient)]
    return lights + [DirectionalLight((x, y, z), brightness) for x, y, z, brightness in light]
