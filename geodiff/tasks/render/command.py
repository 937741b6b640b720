# SPDX-License-Identifier: Apache-2.0
"""What `geodiff render` does."""

import pathlib
from collections.abc import Iterator
from typing import Any

import numpy as np

from geodiff.scene.light import AmbientLight, DirectionalLight, Light
from geodiff.scene.mesh import Mesh
from geodiff.settings import LARGEST
from geodiff.tasks import appearance
from geodiff.tasks.animations import check_animation
from geodiff.tasks.lock import output_folder
from geodiff.tasks.render.views import animate, render_views
from geodiff.validation import fail, number

_WHERE = "render"


def render_command(
    mesh: pathlib.Path,
    *,
    output: pathlib.Path | None,
    animate: pathlib.Path | None,
    views: int | None,
    size: tuple[int, int] | None,
    light: tuple[tuple[float, float, float, float], ...],
    ambient: float | None,
    background: str | None,
    outputs: str,
    fps: float,
    alpha_bits: str,
    **options: Any,
) -> Iterator[str]:
    """Write what the options ask for, and say so line by line.

    Raises:
        TypeError, ValueError, OSError, ImportError: as `render_views` and `PosedImages.save`; neither an output nor an
            animation; another process writes to the folder.
    """
    if output is None and animate is None:
        raise fail(_WHERE, "output", "given where there is no --animate", "neither", "Add -o FOLDER.")
    if animate is not None:
        check_animation(_WHERE, "animate", animate)
    number(_WHERE, "fps", fps, 1e-2, 1000)
    number(_WHERE, "scale_px", options["scale_px"], 1e-6, 1e6)
    for name, lit in (("ambient", () if ambient is None else (ambient,)), ("light", [x for one in light for x in one])):
        for value in lit:
            number(_WHERE, name, value, -LARGEST, LARGEST)
    options["lights"] = _lights(ambient, light)
    wanted = appearance.extra_outputs(_WHERE, outputs)
    if wanted and output is None:
        raise fail(_WHERE, "outputs", "left out where there is no -o", outputs, "Add -o FOLDER.")
    appearance.background(_WHERE, background, (1, 1))  # a wrong one before the work starts
    given = Mesh.load(mesh)
    if output is not None:
        maps: dict[str, list[np.ndarray]] = {name: [] for name in wanted}
        images = render_views(
            given,
            views=24 if views is None else views,
            size=size or (64, 64),
            background=background,
            progress=True,
            maps=maps,
            **options,
        )
        opaque = appearance.background(_WHERE, background, (1, 1)) is not None
        with output_folder(_WHERE, output):  # images and maps are of one run
            path = images.save(output, alpha_bits=16 if opaque else int(alpha_bits))
            folders = appearance.write_maps(output, images.names, maps)
        yield f"{len(images)} images of {images.image_size[0]}×{images.image_size[1]}: {path}"
        for folder in folders:
            yield f"  {folder.name:13} {folder}"
    if animate is not None:
        yield _animation(given, animate, views, size, background, fps, options)


def _animation(
    mesh: Mesh,
    path: pathlib.Path,
    views: int | None,
    size: tuple[int, int] | None,
    background: str | None,
    fps: float,
    options: dict[str, Any],
) -> str:
    elevation = options.pop("elevation", (30.0,))
    frames = 72 if views is None else views
    animate(
        mesh,
        path,
        frames=frames,
        fps=fps,
        elevation=elevation[0],
        size=size or (256, 256),
        background=background,
        progress=True,
        **options,
    )
    return f"{frames} frames: {path}"


def _lights(ambient: float | None, light: tuple[tuple[float, float, float, float], ...]) -> list[Light] | None:
    """Return the lights that the command line names, None for those around the viewer."""
    if ambient is None and not light:
        return None
    lights: list[Light] = [AmbientLight(0.2 if ambient is None else ambient)]
    return lights + [DirectionalLight((x, y, z), brightness) for x, y, z, brightness in light]
