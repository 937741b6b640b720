# SPDX-License-Identifier: Apache-2.0
"""How a mesh is shown: in its own colours, lit, over a background."""

import os
import pathlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import ImageColor

from geodiff.render.coverage import COVERAGES as SOFT_COVERAGES
from geodiff.render.renderer import OUTPUTS, Renderer
from geodiff.render.shading import SHADINGS
from geodiff.scene.atomic import replacing
from geodiff.scene.camera import Camera
from geodiff.scene.images import read_image
from geodiff.scene.light import AmbientLight, DirectionalLight, Light, as_lights
from geodiff.scene.mesh import Mesh
from geodiff.tasks import pictures
from geodiff.validation import as_tensor, choice, fail, positive

COVERAGES = ("hard", *SOFT_COVERAGES)
# Around the viewer: their sum is near 1 on what faces the camera, so that colours look as they are in the file.
_AMBIENT = 0.45
_STUDIO = (((-0.42, 0.60, 0.68), 0.60), ((0.75, 0.10, 0.45), 0.15))  # directions in view space, brightnesses
_MOST_SAMPLES = 64  # a side of a pixel
_CREASE = 0.77  # cosine: faces at more than 40° to each other meet in an edge that is seen


@dataclass(frozen=True)
class Look:
    """How a mesh is shown.

    Attributes:
        shading: ``"unlit"``, ``"lambert"``, ``"phong"`` or ``"gouraud"``; None: Phong where the mesh has a material,
            else Lambert.
        lights: of the scene; None: one from above the viewer's left shoulder, a weaker one from the right, and some
            from everywhere.
        coverage: ``"hard"`` (by pixel centres) or one of the renderer's soft ones.
        scale_px: how soft, in pixels.
        supersample: samples a side of each pixel.
    """

    shading: str | None = None
    lights: Sequence[Light] | None = None
    coverage: str = "hard"
    scale_px: float = 0.5
    supersample: int = 4

    def checked(self, where: str) -> "Look":
        """Return itself.

        Raises:
            TypeError, ValueError: a value out of its range.
        """
        if self.shading is not None:
            choice(where, "shading", self.shading, SHADINGS)
        choice(where, "coverage", self.coverage, COVERAGES)
        positive(where, "scale_px", self.scale_px, "It is a length in pixels.")
        if not isinstance(self.supersample, int) or isinstance(self.supersample, bool) or self.supersample < 1:
            raise fail(where, "supersample", "an integer ≥ 1", self.supersample)
        if self.supersample > _MOST_SAMPLES:
            raise fail(where, "supersample", f"an integer ≤ {_MOST_SAMPLES}", str(self.supersample))
        if self.lights is not None:
            as_lights(where, self.lights, ())
        return self


def has_looks(mesh: Mesh) -> bool:
    """Whether a mesh has colours, a texture or a material of its own."""
    return any(getattr(mesh, name) is not None for name in ("vertex_colors", "face_colors", "texture", "material"))


def rendered(
    mesh: Mesh, camera: Camera, size: tuple[int, int], look: Look, outputs: Sequence[str] = ()
) -> dict[str, np.ndarray]:
    """Render one mesh, seen by one camera.

    Args:
        mesh: one mesh; `ready` has made it so that its edges are seen.
        camera: one camera.
        size: (H, W).
        look: how it is shown.
        outputs: what else of the renderer's outputs is wanted.

    Returns:
        By name: alpha (H, W), rgb (H, W, 3) not multiplied by alpha, float32; and what else was asked for.
    """
    mesh, camera = mesh.detach(), camera.detach()
    hard: dict[str, Any] = {"distribution": "heaviside", "tconorm": "maximum", "scale": 1e-6}
    soft: dict[str, Any] = {"coverage": look.coverage, "scale_px": look.scale_px}
    shading = look.shading or ("lambert" if mesh.material is None else "phong")
    render = Renderer(
        size,
        **(hard if look.coverage == "hard" else soft),
        shading=shading,
        supersample=look.supersample,
        outputs=("rgb", *outputs),
    )
    lights = look.lights
    if lights is None:
        lights = [AmbientLight(_AMBIENT)]
        for direction, brightness in _STUDIO:
            way = camera.rotation.double().mT @ torch.tensor(direction, dtype=torch.float64)
            lights.append(DirectionalLight(way.to(mesh.dtype), brightness))
    out = render(mesh, camera, None if shading == "unlit" else lights)
    result = {name: getattr(out, name).numpy() for name in ("alpha", "rgb", *outputs)}
    alpha = np.clip(result["alpha"].astype(np.float32), 0, 1)
    color = result["rgb"].astype(np.float32) / np.maximum(alpha, 1e-6)[..., None]
    return {**result, "alpha": alpha, "rgb": np.maximum(color, 0)}


def ready(mesh: Mesh) -> Mesh:
    """Return a mesh to be shown: joined where vertices are at one place, smooth but for its sharp edges.

    Corners at a vertex share a normal where their faces are joined by edges that are not sharp. Faces keep their order.
    """
    from scipy.sparse import coo_matrix, csgraph

    mesh = mesh.detach().welded()
    topology, count = mesh.topology, mesh.num_faces
    if count == 0:
        return mesh
    normals = mesh.face_normals
    pairs = topology.face_pairs
    gentle = (normals[pairs[:, 0]] * normals[pairs[:, 1]]).sum(-1).abs() > _CREASE
    pairs, ends = pairs[gentle], topology.edges[topology.face_pair_edges[gentle]]
    # Corner 3f + k of either face at either end of a gentle edge.
    index = mesh.faces[pairs][:, :, None, :] == ends[:, None, :, None]
    corner = (3 * pairs[:, :, None] + index.int().argmax(-1)).permute(0, 2, 1).reshape(-1, 2).numpy()
    links = coo_matrix((np.ones(len(corner)), corner.T), shape=(3 * count, 3 * count))
    number, group = csgraph.connected_components(links, directed=False)
    source = np.zeros(number, dtype=np.int64)
    source[group] = mesh.faces.reshape(-1).numpy()
    colors = mesh.vertex_colors
    return Mesh(
        mesh.vertices[source],
        group.reshape(-1, 3).astype(np.int64),
        vertex_colors=None if colors is None else colors[source],
        uv=mesh.uv,
        uv_faces=mesh.uv_faces,
        face_colors=mesh.face_colors,
        texture=mesh.texture,
        material=mesh.material,
    )


def background(where: str, value: Any, size: tuple[int, int]) -> np.ndarray | None:
    """Read a background as (H, W, 3) in [0, 1], or None for none.

    Args:
        where: the public function, for messages.
        value: None or ``"transparent"``; a name or a code such as ``"white"``, ``"#1e90ff"`` or ``"0.2,0.3,0.4"``;
            three numbers in [0, 1]; an image (H, W, 3) in [0, 1]; or the file of one. Images are scaled to the size.
        size: (H, W).

    Raises:
        TypeError, ValueError: none of these, or values out of range.
        FileNotFoundError: neither a colour nor a file.
    """
    expected = "a colour (a name, '#rrggbb' or 'r,g,b'), an image or the file of one"
    if value is None or (isinstance(value, str) and value.lower() in ("", "none", "transparent")):
        return None
    if isinstance(value, str) and not pathlib.Path(value).is_file():
        value = _named_color(where, value, expected)
    if isinstance(value, str | os.PathLike):
        image = read_image(pathlib.Path(value), where)
        if image.shape[-1] in (2, 4):  # over white
            image = image[..., :-1] * image[..., -1:] + 1 - image[..., -1:]
    else:
        image = as_tensor(where, "background", value).detach().cpu().to(torch.float32)
        if image.shape != (3,) and (image.dim() != 3 or image.shape[-1] != 3):
            raise fail(where, "background", expected, image)
        if not bool(((image >= 0) & (image <= 1)).all()):
            raise fail(where, "background", "in [0, 1]", f"{float(image.min()):g} to {float(image.max()):g}")
        if image.dim() == 1:
            image = image.expand(*size, 3)
    array = image.expand(*image.shape[:2], 3).numpy()
    return pictures.resized(array, size) if array.shape[:2] != size else np.ascontiguousarray(array)


def _named_color(where: str, text: str, expected: str) -> Any:
    """Return the colour that a text says, or the path of a file."""
    parts = text.split(",")
    if len(parts) == 3:
        try:
            return [float(part) for part in parts]
        except ValueError:
            pass
    try:
        return [channel / 255 for channel in ImageColor.getrgb(text)[:3]]
    except ValueError:
        if pathlib.Path(text).suffix:
            return pathlib.Path(text)
        raise fail(where, "background", expected, repr(text), "Such as white, '#1e90ff' or 0.2,0.3,0.4.") from None


def write_maps(folder: pathlib.Path, names: Sequence[str], maps: dict[str, list[np.ndarray]]) -> list[pathlib.Path]:
    """Write further outputs, each as numbers (NAME.npy) and as a picture to look at (NAME.png); return the folders."""
    for kind, arrays in maps.items():
        for name, array in zip(names, arrays, strict=True):
            with replacing(folder / kind / f"{name}.npy", "render") as part:
                np.save(part, array)
            with replacing(folder / kind / f"{name}.png", "render") as part:
                pictures.to_image(_to_look_at(kind, array)).save(part, format="PNG")
    return [folder / kind for kind in maps]


def _to_look_at(kind: str, array: np.ndarray) -> np.ndarray:
    """Return a picture (H, W, 3) of an output: depth the lighter the nearer, faces in colours by their number."""
    if kind == "alpha":
        return np.repeat(array[..., None], 3, axis=-1)
    if kind == "depth":
        seen = np.isfinite(array)
        low, high = (array[seen].min(), array[seen].max()) if seen.any() else (0.0, 1.0)
        grey = np.where(seen, 1 - 0.8 * (np.where(seen, array, low) - low) / max(high - low, 1e-30), 0.0)
        return np.repeat(grey[..., None], 3, axis=-1)
    if kind == "normal":
        return np.where((array != 0).any(-1, keepdims=True), 0.5 + 0.5 * array, 0.0)
    if kind == "uv":
        return np.concatenate((array % 1.0, np.zeros_like(array[..., :1])), axis=-1)
    number = array[..., None].astype(np.uint64) + np.uint64(1)
    mixed = (number * np.array([2654435761, 2246822519, 3266489917], dtype=np.uint64)) >> np.uint64(24)
    color = 0.25 + 0.75 * (mixed % np.uint64(256)).astype(np.float64) / 255
    return np.where(array[..., None] >= 0, color, 0.0)


def extra_outputs(where: str, outputs: str | Sequence[str]) -> tuple[str, ...]:
    """Return names of the renderer's outputs, other than rgb, each once.

    Raises:
        ValueError: an unknown name.
    """
    names = outputs.split(",") if isinstance(outputs, str) else list(outputs)
    wanted = [choice(where, "outputs", name.strip(), OUTPUTS) for name in names if name.strip()]
    return tuple(name for name in dict.fromkeys(wanted) if name != "rgb")
