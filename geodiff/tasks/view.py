# SPDX-License-Identifier: Apache-2.0
"""Look at meshes and turn them: in the browser, or in a notebook."""

import html
import os
import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np
import trimesh
from trimesh.viewer.notebook import scene_to_html

from geodiff.interop.trimesh import to_trimesh_scene
from geodiff.modes import outside_autocast
from geodiff.scene.atomic import replacing
from geodiff.scene.mesh import Mesh
from geodiff.scene.mesh_batch import MeshBatch
from geodiff.validation import fail

Meshes = Mesh | MeshBatch | Mapping[str, Mesh]
_GREY = (165, 168, 172, 255)
_FROM = np.array([0.55, 0.45, 0.90])  # a little from above and from the right; times the size of the scene


class Display:
    """A page with meshes that can be turned; notebooks show it as the value of a cell.

    Attributes:
        page: the whole page as HTML. It holds the viewer, too, and needs no network.
        height: of the picture in a notebook, in pixels.
    """

    def __init__(self, page: str, height: int) -> None:
        self.page, self.height = page, height

    def _repr_html_(self) -> str:
        inner = html.escape(self.page, quote=True)
        return f'<iframe srcdoc="{inner}" width="100%" height="{self.height}" style="border:none;"></iframe>'

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the page to a file, for any browser."""
        with replacing(path, "Display.save") as part:
            part.write_text(self.page, encoding="utf-8")


@outside_autocast
def display(meshes: Meshes, *, height: int = 480) -> Display:
    """Show meshes in a notebook (Jupyter, VS Code, marimo), to be turned with the mouse; by trimesh's viewer.

    Args:
        meshes: a mesh, a batch of either kind, or meshes by name; with their colours or texture.
        height: of the picture in pixels, ≥ 1.

    Returns:
        The `Display`, to be the last value of a cell.

    Raises:
        TypeError: something other than meshes.
        ValueError: no faces in them, or ``height`` < 1.

    Example:
        >>> import geodiff as gd
        >>> gd.display(gd.icosphere(2))._repr_html_()[:14]
        '<iframe srcdoc'
    """
    if not isinstance(height, int) or isinstance(height, bool) or height < 1:
        raise fail("display", "height", "an integer ≥ 1", height)
    return Display(scene_to_html(_scene("display", meshes)), height)


@outside_autocast
def view(
    meshes: Meshes | str | os.PathLike[str], *, host: str = "127.0.0.1", port: int = 8080, block: bool = True
) -> Any:
    """Show meshes in the browser with viser, to be turned with the mouse.

    Args:
        meshes: a mesh, a batch of either kind, meshes by name, or the file of one.
        host: the address to serve at; ``"0.0.0.0"`` lets other machines look, too.
        port: the first one to try; the next free one is taken.
        block: serve until interrupted (Ctrl-C). False returns at once.

    Returns:
        The ``viser.ViserServer``; ``.stop()`` ends it, ``.scene`` takes more.

    Raises:
        ImportError: viser is not installed; it comes with ``geodiff[view]``.
        TypeError: something other than meshes.
        ValueError: no faces in them, or a port that is none.

    Example:
        ``gd.tasks.view(gd.icosphere(3))``
    """
    if not isinstance(port, int) or isinstance(port, bool) or not 1 <= port <= 65535:
        raise fail("view", "port", "an integer in [1, 65535]", port)
    if isinstance(meshes, str | os.PathLike):
        meshes = {pathlib.Path(meshes).stem: Mesh.load(meshes)}
    scene = _scene("view", meshes)
    try:
        import viser
    except ImportError as error:
        raise ImportError("view: viser is not installed. Install it with pip install 'geodiff[view]'.") from error
    server = viser.ViserServer(host=host, port=port)
    server.scene.set_up_direction("+y")
    centre, size = scene.centroid, float(scene.scale) or 1.0
    server.initial_camera.look_at = np.asarray(centre, dtype=np.float64)
    server.initial_camera.position = np.asarray(centre + size * _FROM, dtype=np.float64)
    for node in scene.graph.nodes_geometry:
        server.scene.add_mesh_trimesh(f"/{node}", scene.geometry[scene.graph[node][1]])
    if block:
        try:
            server.sleep_forever()
        except KeyboardInterrupt:
            pass
        finally:
            server.stop()
    return server


def _scene(where: str, meshes: Any) -> trimesh.Scene:
    """Make a scene whose meshes are seen from both sides, grey where they have no colours."""
    if not isinstance(meshes, Mesh | MeshBatch | Mapping):
        raise fail(where, "meshes", "a Mesh, a MeshBatch or a dictionary of meshes", meshes, error=TypeError)
    scene = to_trimesh_scene(meshes)
    if not scene.geometry or scene.bounds is None:
        raise fail(where, "meshes", "with something to see", "no faces")
    for source in scene.geometry.values():
        if source.visual.kind is None:
            material = trimesh.visual.material.PBRMaterial(
                baseColorFactor=_GREY, metallicFactor=0.0, roughnessFactor=0.7, doubleSided=True
            )
            source.visual = trimesh.visual.TextureVisuals(material=material)
    return scene
