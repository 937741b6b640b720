# SPDX-License-Identifier: Apache-2.0
"""Triangle splatting: each face is a window over its own image, and windows are laid over one another by depth."""

from collections.abc import Sequence
from typing import Any

import torch

from geodiff.constants import on_device
from geodiff.modes import outside_autocast
from geodiff.render.fragment_list import FragmentList
from geodiff.render.outputs import RenderOutput
from geodiff.render.renderer import Renderer
from geodiff.render.shading import shade
from geodiff.render.view import View, pack
from geodiff.scene.camera import Camera
from geodiff.scene.light import Light
from geodiff.scene.mesh import Mesh
from geodiff.scene.mesh_batch import MeshBatch
from geodiff.validation import choice, describe, fail, integer, looks_at_values, positive

_OUTPUTS = ("alpha", "rgb", "depth")
_LAYERS = 8  # looked for at first


@outside_autocast
class TriangleSplats:
    """Render a mesh, or a soup of triangles, by triangle splatting (Held et al., "Triangle splatting", 2025).

    At pixel q, a face has the weight `o·I(q)`, `I(q) = ReLU(φ(q)/φ(s))^σ`: φ is the signed distance in the image to the
    nearest side, s the incentre, so that I is 1 there and 0 on the outline. σ → 0 fills the triangle evenly; a large σ
    is a point. Faces are laid over one another from front to back, by their depth at the pixel:
    `alpha = 1 − Π(1 − o_f I_f)`, `rgb = Σ_f c_f o_f I_f Π_{in front}(1 − o I) + (1 − alpha)·background`.

    It makes a surface of triangles that each end smoothly, so *inside* a mesh's image, too, alpha falls to 0 at all
    edges: it is a way to fit loose triangles to images, not one to look at meshes. Outside of a triangle it has no
    gradient. Faces that reach behind the near plane are left out.

    Args:
        image_size: `H` for a square image, or `(H, W)`.
        sigma: σ > 0: a number, or a tensor without axes or `(F,)`, one for each face (of a `MeshBatch` `(ΣF,)`).
        opacity: o in [0, 1], likewise.
        background: as of `Renderer`.
        shading: as of `Renderer`.
        normals: as of `Renderer`.
        outputs: of ``"alpha"``, ``"rgb"`` and ``"depth"`` (the mean over what is seen, infinite where nothing is).
        max_fragments: how many faces a pixel takes at most, those in front; None for all.
        backend: ``"kernel"`` or ``"reference"``, as of `Renderer`.

    Gradients: in vertices, camera, colours, lights, background, σ and o, at a fixed order of the faces: rgb jumps where
    two faces of different colours swap; alpha does not know of the order. For σ < 1 it has no bound at an outline.

    Raises:
        TypeError, ValueError: as each argument's check says.

    Example:
        >>> import geodiff as gd
        >>> camera = gd.Camera.orbit(distance=2.7, fov_deg=60)
        >>> gd.render.TriangleSplats(32, sigma=0.5)(gd.icosphere(1), camera).alpha.shape
        torch.Size([32, 32])
    """

    def __init__(
        self,
        image_size: int | tuple[int, int],
        sigma: float | torch.Tensor = 1.0,
        opacity: float | torch.Tensor = 1.0,
        *,
        background: Any = (0.0, 0.0, 0.0),
        shading: Any = None,
        normals: str = "smooth",
        outputs: str | Sequence[str] = ("alpha",),
        max_fragments: int | None = None,
        backend: str = "kernel",
    ) -> None:
        where = "TriangleSplats"
        look = {"background": background, "shading": shading, "normals": normals, "backend": backend}
        # Whose checks, colours and backgrounds are these.
        self._renderer = Renderer(image_size, outputs=outputs, **look)
        for name in self._renderer.outputs:
            choice(where, "outputs", name, _OUTPUTS)
        if max_fragments is not None:
            integer(where, "max_fragments", max_fragments, 1)
        self.max_fragments = max_fragments
        positive(where, "sigma", sigma, "It says how fast a face fades from its middle.")
        self.sigma, self.opacity = sigma, opacity
        least, most = (opacity, opacity)
        if isinstance(opacity, torch.Tensor):
            shown = opacity.detach() if looks_at_values(opacity) and opacity.numel() else torch.ones(1)
            least, most = float(shown.min()), float(shown.max())
        elif not isinstance(opacity, int | float) or isinstance(opacity, bool):
            raise fail(where, "opacity", "a number or a tensor", opacity, "It is in [0, 1].", TypeError)
        if not 0 <= least <= most <= 1:
            raise fail(where, "opacity", "in [0, 1]", f"values from {least:g} to {most:g}")

    def __call__(
        self, mesh: Mesh | MeshBatch, camera: Camera, lights: "Light | Sequence[Light] | None" = None
    ) -> RenderOutput:
        """Render, with the arguments of `Renderer.__call__`.

        Returns:
            `RenderOutput` with `alpha (..., H, W)` and what `outputs` names.
        """
        own = self._renderer
        view = pack("TriangleSplats", mesh, camera, own.image_size, own.backend)
        own._check_backgrounds(view.batch)
        shader, lights = own._lighting(lights, view.batch)
        found = self._layers(view)
        weight = self._weights(view, found)
        size = (*view.batch, *own.image_size)
        alpha = weight.sum(dim=-1)
        images = {}
        if "depth" in own.outputs:
            depth = torch.where(found.there, found.dense_maps.depth, 0.0)
            mean = (weight * depth).sum(dim=-1) / torch.where(alpha > 0, alpha, 1.0)
            images["depth"] = torch.where(alpha > 0, mean, torch.inf).reshape(size)
        if "rgb" in own.outputs:
            colors = shade(view, lights, *found.points, shader=shader, normals=own.normals, wanted=("rgb",)).color
            assert colors is not None
            rgb = (weight[..., None] * found.dense(colors)).sum(dim=-2)
            behind = own._background_like(alpha)
            rest = (1 - alpha).reshape(*size, 1)
            images["rgb"] = rgb.reshape(*size, 3) + rest * behind
        return RenderOutput(alpha=alpha.reshape(size), **images)

    def _layers(self, view: View) -> FragmentList:
        """Return all faces that cover each pixel, the nearest first."""
        most = max(view.most_faces, 1)
        most = most if self.max_fragments is None else min(most, self.max_fragments)
        k = min(_LAYERS, most)
        while True:
            maps = view.ops.fragments(*view.packed, **view.frame, k=k, blur=0.0)
            if k == most or not bool((maps.face_id[..., -1] >= 0).any()):
                break
            k = min(2 * k, most)
        face, shape = maps.face_id.reshape(-1), maps.face_id.shape
        place = (face >= 0).nonzero()[:, 0]
        image = place // max(shape[1:].numel(), 1)
        barycentric = maps.barycentric.reshape(-1, 3).index_select(0, place)
        return FragmentList(shape, place, image, face.index_select(0, place), barycentric, maps)

    def _weights(self, view: View, found: FragmentList) -> torch.Tensor:
        """Return what each layer has of the pixel, `o·I` times what those in front let through, (B, H, W, k)."""
        radius, first, own_first = _inradii(view)
        row = first[found.image] + found.face
        own_row = own_first[found.image] + found.face
        distance = found.dense_maps.distance.reshape(-1).index_select(0, found.place)
        inside = _gather(view, radius, row, distance)
        share = torch.where(inside > 0, distance / torch.where(inside > 0, inside, 1.0), 0.0)
        share = share.clamp(torch.finfo(share.dtype).tiny, 1.0)
        power = self._per_face("sigma", self.sigma, view, own_row, distance)
        window = torch.where(inside > 0, torch.exp(power * share.log()), 0.0)
        own = found.dense(window * self._per_face("opacity", self.opacity, view, own_row, distance))
        through = torch.cumprod(1 - own, dim=-1)
        return own * torch.cat([torch.ones_like(through[..., :1]), through[..., :-1]], dim=-1)

    def _per_face(self, name: str, value: Any, view: View, row: torch.Tensor, like: torch.Tensor) -> Any:
        if not isinstance(value, torch.Tensor):
            return value
        count = len(view.faces)
        if value.shape not in ((), (1,), (count,)):
            raise fail("TriangleSplats", name, f"a number or of shape ({count},), one for each face", describe(value))
        values = value.to(like).reshape(-1)
        return _gather(view, values, row if len(values) == count else torch.zeros_like(row), like)

    def __repr__(self) -> str:
        height, width = self._renderer.image_size
        shown = [
            describe(v) if isinstance(v, torch.Tensor) and v.numel() != 1 else f"{float(v):g}"
            for v in (self.sigma, self.opacity)
        ]
        return f"TriangleSplats({height}×{width}, sigma={shown[0]}, opacity={shown[1]})"


def _gather(view: View, values: torch.Tensor, row: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """Return `values[row]`; through `blend`, so that the gradient's sums over pixels have a fixed order."""
    one = like.new_ones(len(row), 1)
    picked: torch.Tensor = view.ops.blend(values.to(like)[:, None], row[:, None], one)
    return picked[:, 0]


def _inradii(view: View) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return the radius in the image of the circle within each face of each image, 0 where it has none.

    And where the faces of each image begin there, and in `view.faces`.
    """
    layout = on_device(view.layout, view.clip.device)
    image = torch.repeat_interleave(layout[:, 2])
    first = layout[:, 2].cumsum(0) - layout[:, 2]
    face = layout[:, 1][image] + torch.arange(len(image), device=image.device) - first[image]
    corners = view.clip[view.faces[face].long() + layout[:, 0][image, None]]
    ahead = (corners[..., 2] >= view.camera.near).all(dim=-1)
    w = torch.where(ahead[:, None], corners[..., 3], 1.0)
    at = corners[..., :2] / w[..., None]
    sides = at.roll(-1, dims=1) - at
    tiny = torch.finfo(at.dtype).tiny
    around = sides.square().sum(dim=-1).clamp(min=tiny).sqrt().sum(dim=-1)
    twice = (sides[:, 0, 0] * sides[:, 1, 1] - sides[:, 0, 1] * sides[:, 1, 0]).abs()
    return torch.where(ahead, twice / around, 0.0), first, layout[:, 1]
