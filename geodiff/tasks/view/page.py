# SPDX-License-Identifier: Apache-2.0
"""Look at meshes and turn them: in the browser, or in a notebook."""

import base64
import html
import os
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
import trimesh
from trimesh.viewer.notebook import scene_to_html

from geodiff.interop.trimesh import to_trimesh_scene
from geodiff.modes import outside_autocast
from geodiff.scene.atomic import replacing
from geodiff.scene.camera import Camera
from geodiff.scene.mesh import Mesh
from geodiff.scene.mesh_batch import MeshBatch
from geodiff.tasks.appearance import ready
from geodiff.tasks.view.things import things_to_see
from geodiff.validation import fail

Meshes = Mesh | MeshBatch | Mapping[str, Mesh]
_GREY = (0.38, 0.39, 0.41, 1.0)  # in linear light, as glTF has its factors
_ELEVATION, _AZIMUTH, _FOV = 24.0, 32.0, 40.0  # of the first view, degrees
# trimesh's page, made brighter and titled: what it says, and what ours says instead. A version that says it otherwise
# still shows the meshes.
_PAGE = (
    ("tracklight=new THREE.DirectionalLight(0xffffff,1.75);scene.add(tracklight);",
     "tracklight=new THREE.DirectionalLight(0xffffff,0.75);scene.add(tracklight);"
     "scene.add(new THREE.HemisphereLight(0xffffff,0xb8b4ae,0.45));"),
    ("renderer=new THREE.WebGLRenderer({antialias:true});",
     "renderer=new THREE.WebGLRenderer({antialias:true});renderer.outputEncoding=THREE.sRGBEncoding;"),
)  # fmt: skip
_LABEL = (
    '<div style="position:absolute;left:14px;top:10px;font:15px sans-serif;color:#444;pointer-events:none">{}</div>'
)


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
def display(meshes: Meshes, *, height: int = 480, title: str | None = None) -> Display:
    """Show meshes in a notebook (Jupyter, VS Code, marimo), to be turned with the mouse; by trimesh's viewer.

    Args:
        meshes: a mesh, a batch of either kind, or meshes by name; with their colours or texture.
        height: of the picture in pixels, ≥ 1.
        title: of the page; None: the names of the meshes.

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
    scene = _scene("display", meshes)
    names = [str(node) for node in scene.graph.nodes_geometry]
    if title is None:
        title = ", ".join(names[:6]) + (f" and {len(names) - 6} more" if len(names) > 6 else "")
    page = scene_to_html(scene)
    # The scene once more, as GLB that is lit well; it stands in the page as the longest word.
    before = base64.b64encode(scene.export(file_type="glb")).decode("ascii")
    page = page.replace(before, base64.b64encode(glb(scene)).decode("ascii"))
    for old, new in _PAGE:
        page = page.replace(old, new)
    text = html.escape(title)
    page = page.replace("<title>trimesh: threejs viewer</title>", f"<title>{text}</title>")
    return Display(
        page.replace('<div id="container"></div>', f'<div id="container"></div>{_LABEL.format(text)}'), height
    )


def check_port(port: int) -> None:
    """Check the number of a port, before anything is read."""
    if not isinstance(port, int) or isinstance(port, bool) or not 1 <= port <= 65535:
        raise fail("view", "port", "an integer in [1, 65535]", port)


@outside_autocast
def view(
    meshes: Meshes | str | os.PathLike[str],
    *,
    host: str = "127.0.0.1",
    port: int = 8080,
    block: bool = True,
    title: str | None = None,
) -> Any:
    """Show meshes in the browser with viser, to be turned with the mouse.

    Args:
        meshes: a mesh, a batch of either kind, meshes by name; or a file or a folder that geodiff has written.
        host: the address to serve at; 0.0.0.0 lets other machines look, too.
        port: the first one to try; the next free one is taken.
        block: serve until interrupted (Ctrl-C). False returns at once.
        title: shown above the meshes; None: the first name.

    Returns:
        The ``viser.ViserServer``; ``.stop()`` ends it, ``.scene`` takes more.

    Raises:
        ImportError: viser is not installed; it comes with ``geodiff[view]``.
        TypeError: something other than meshes.
        ValueError: no faces in them, or a port that is none.

    Example:
        ``gd.tasks.view(gd.icosphere(3))``
    """
    check_port(port)
    if isinstance(meshes, str | os.PathLike):
        meshes = things_to_see([meshes], "view")
    scene = _scene("view", meshes)
    try:
        import viser
    except ImportError as error:
        raise ImportError("view: viser is not installed. Install it with pip install 'geodiff[view]'.") from error
    server = viser.ViserServer(host=host, port=port)
    names = [str(node) for node in scene.graph.nodes_geometry]
    server.gui.set_panel_label(title if title is not None else names[0])
    server.scene.set_up_direction("+y")
    server.initial_camera.look_at = np.asarray(scene.bounds.mean(axis=0), dtype=np.float64)
    server.initial_camera.position = np.asarray(scene.camera_transform[:3, 3], dtype=np.float64)
    for node in names:
        server.scene.add_glb(f"/{node}", glb(trimesh.Scene({node: scene.geometry[scene.graph[node][1]]})))
    if block:
        try:
            server.sleep_forever()
        except KeyboardInterrupt:
            pass
        finally:
            server.stop()
    return server


def _scene(where: str, meshes: Any) -> trimesh.Scene:
    """Make a scene whose meshes are smooth but for sharp edges, seen from a little above and from the right."""
    if not isinstance(meshes, Mesh | MeshBatch | Mapping):
        raise fail(where, "meshes", "a Mesh, a MeshBatch or a dictionary of meshes", meshes, error=TypeError)
    scene = to_trimesh_scene(_shown(where, meshes))
    if not scene.geometry or scene.bounds is None:
        raise fail(where, "meshes", "with something to see", "no faces")
    low, high = scene.bounds
    radius = max(float(np.linalg.norm(high - low)) / 2, 1e-12)
    distance = 0.9 * radius / np.sin(np.radians(_FOV / 2))
    camera = Camera.orbit(
        torch.tensor(distance, dtype=torch.float64), _ELEVATION, _AZIMUTH, fov_deg=_FOV, at=0.5 * (low + high)
    )
    size = (480, 640)
    K = camera.K(size).numpy()
    scene.camera = trimesh.scene.Camera(
        resolution=size[::-1], focal=(K[0, 0], K[1, 1]), z_near=distance / 1000, z_far=distance * 1000
    )
    scene.camera_transform = camera.camera_to_world.numpy()
    return scene


def _shown(where: str, meshes: Any) -> dict[str, Mesh]:
    """Return single meshes by name, ready to be shown: sharp edges split, colours of faces at corners of their own."""
    if isinstance(meshes, Mesh | MeshBatch):
        several = list(meshes) if isinstance(meshes, MeshBatch) or meshes.batch_shape else [meshes]
        meshes = {f"mesh_{i}": mesh for i, mesh in enumerate(several)}
    result = {}
    for name, mesh in meshes.items():
        if not isinstance(mesh, Mesh):
            raise fail(where, "meshes", "a Mesh, a MeshBatch or a dictionary of meshes", mesh, error=TypeError)
        mesh = _painted(ready(mesh))
        if mesh.face_colors is not None and mesh.texture is None:
            normal = mesh.vertex_normals[mesh.faces].reshape(-1, 3)
            colors = mesh.face_colors.repeat_interleave(3, dim=0)
            if mesh.vertex_colors is not None and mesh.vertex_colors.shape[-1] == colors.shape[-1]:
                colors = colors * mesh.vertex_colors[mesh.faces].reshape(colors.shape)
            corners = np.arange(3 * mesh.num_faces).reshape(-1, 3)
            mesh = Mesh(mesh.vertices[mesh.faces].reshape(-1, 3), corners, vertex_colors=colors)
            mesh._cache["vertex_normals"], mesh._cache_version = normal, mesh.vertices._version
        result[name] = mesh
    return result


def _painted(mesh: Mesh) -> Mesh:
    """Return a mesh whose material's colour is in its texture or vertex colours, without coordinates of no texture."""
    texture, material = mesh.texture, mesh.material
    if texture is None:
        colors = mesh.vertex_colors
        if material is not None:
            colors = mesh.vertices.new_ones(mesh.num_vertices, 3) if colors is None else colors[..., :3]
            colors = colors * material.diffuse.clamp(0, 1)
        return mesh.with_attributes(uv=None, material=None, vertex_colors=colors)
    if material is not None:
        image = texture.image.expand(*texture.shape[:-1], 3) if texture.shape[-1] == 1 else texture.image
        tint = torch.cat((material.diffuse.clamp(0, 1), image.new_ones(image.shape[-1] - 3)))
        texture = texture.with_image(image * tint)
    return mesh.with_attributes(texture=texture, material=None, vertex_colors=None, face_colors=None)


def glb(scene: trimesh.Scene) -> bytes:
    """Return a scene as GLB that any viewer lights well: matt, from both sides, its colours in linear light."""
    copy = scene.copy()
    for source in copy.geometry.values():
        if getattr(source.visual, "kind", None) == "vertex":
            colors = np.asarray(source.visual.vertex_colors).copy()
            # glTF has colours of vertices in linear light, unlike textures and 8-bit colours elsewhere.
            s = colors[:, :3] / 255.0
            linear = np.where(s <= 0.04045, s / 12.92, ((s + 0.055) / 1.055) ** 2.4)
            colors[:, :3] = np.rint(255 * linear)
            source.visual.vertex_colors = colors

    def lit(tree: dict[str, Any]) -> None:
        materials = tree.setdefault("materials", [])
        for material in materials:
            surface = material.setdefault("pbrMetallicRoughness", {})
            surface.setdefault("metallicFactor", 0.0)
            surface.setdefault("roughnessFactor", 0.8)
            material["doubleSided"] = True
        for entry in tree.get("meshes", []):
            for primitive in entry["primitives"]:
                if "material" not in primitive:
                    primitive["material"] = len(materials)
                    base = [1.0] * 4 if "COLOR_0" in primitive["attributes"] else list(_GREY)
                    surface = {"baseColorFactor": base, "metallicFactor": 0.0, "roughnessFactor": 0.8}
                    materials.append({"pbrMetallicRoughness": surface, "doubleSided": True})
        if not materials:
            del tree["materials"]

    data = trimesh.exchange.gltf.export_glb(copy, include_normals=True, tree_postprocessor=lit)
    return bytes(data)
