# SPDX-License-Identifier: Apache-2.0
"""What is seen, as one object: a mesh and a camera, packed as the kernels take them, and who computes."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from types import ModuleType
from typing import Any

import torch

from geodiff import ops, reference
from geodiff.constants import on_device
from geodiff.modes import outside_autocast
from geodiff.recording import is_replaying, or_nan, sizes
from geodiff.render.points import SurfacePoints
from geodiff.scene.camera import Camera
from geodiff.scene.light import Light
from geodiff.scene.mesh import Mesh
from geodiff.scene.mesh_batch import MeshBatch
from geodiff.validation import choice, common_batch, fail, looks_at_values, shapes_repr, warn

BACKENDS = {"kernel": ops, "reference": reference}
"""Who computes: the kernels, or their twins in plain torch."""


@dataclass(frozen=True, eq=False)
class View:
    """What is seen: B images of a mesh, or of the meshes of a batch. Everything that renders takes one.

    Attributes:
        mesh: a `Mesh`, or a `MeshBatch`.
        camera: one camera, or a batch of them.
        image_size: `(H, W)`, in samples: with supersampling, more than pixels.
        batch: the shape of the batch of images, of B in all; `()` for a single image.
        clip: vertices of all images `(x·w, y·w, depth, w)`, `(N, 4)`.
        faces: corners of all faces, `(F, 3)`, indices local to the image's mesh.
        layout: one row `[vertex_start, face_start, face_count]` an image, `(B, 3)`; on the host.
        backend: who computes, ``"kernel"`` or ``"reference"``.
    """

    __repr__ = shapes_repr

    mesh: Any
    camera: Camera
    image_size: tuple[int, int]
    batch: tuple[int, ...]
    clip: torch.Tensor
    faces: torch.Tensor
    layout: torch.Tensor
    backend: str

    @property
    def ops(self) -> ModuleType:
        """`geodiff.ops` or `geodiff.reference`: functions of the same names and arguments."""
        return BACKENDS[self.backend]

    @property
    def packed(self) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """`(clip, faces, layout)`: what the ops take first."""
        return self.clip, self.faces, self.layout

    @property
    def frame(self) -> dict[str, Any]:
        """`image_size` and `near`: what the ops take by name."""
        return {"image_size": self.image_size, "near": self.camera.near}

    @property
    def images(self) -> int:
        """B."""
        return len(self.layout)

    @property
    def most_faces(self) -> int:
        """How many faces an image has at most."""
        return len(self.mesh.faces)

    @property
    def edge_cycles(self) -> torch.Tensor:
        """For each side of a face the next side on the same edge, see `geodiff.reference.edge_cycles`, `(F, 3)`."""
        return self.mesh.topology.edge_cycles

    @property
    def is_face_colored(self) -> bool:
        """Whether colours jump from face to face."""
        return self.mesh.face_colors is not None

    @property
    def starts(self) -> torch.Tensor:
        """Where the faces and the vertices of each image begin in those of `mesh`, `(B, 2)`."""
        return torch.zeros(self.images, 2, dtype=torch.int64, device=self.clip.device)

    @outside_autocast
    def depth_ends(self) -> torch.Tensor:
        """Return the least and greatest depth (B, 2) of each image's vertices, from `near` on; 1 and 1 for no mesh.

        Gradients: in `clip`; where several vertices tie they share it.
        """
        if len(self.clip) == 0:
            return self.clip.new_ones(self.images, 2)
        return self._depth_ends(self.clip[:, 2].clamp(min=self.camera.near))

    def _depth_ends(self, depth: torch.Tensor) -> torch.Tensor:
        depth = depth.reshape(self.images, -1)
        return torch.stack([depth.amin(dim=1), depth.amax(dim=1)], dim=1)

    @outside_autocast
    def surface_points(
        self, image: torch.Tensor, face: torch.Tensor, barycentric: torch.Tensor, lights: list[Light], **options: Any
    ) -> list[SurfacePoints]:
        """Return points seen on the surfaces, mesh by mesh.

        Args:
            image: which of the B images a point is in, (P,), ascending.
            face: (P,), an index within the image's mesh.
            barycentric: (P, 3).
            lights: of all images.
            options: of `SurfacePoints`.
        """
        seen = image, face, barycentric, partial(self.footprint, image, face, barycentric)
        return [SurfacePoints(self.mesh, self.camera, lights, self.batch, *seen, ops=self.ops, **options)]

    @outside_autocast
    def footprint(self, image: torch.Tensor, face: torch.Tensor, barycentric: torch.Tensor) -> torch.Tensor:
        """Return what twice a face's area in the texture is multiplied with for its texels a sample, at each point.

        A plane through the clip positions M = [v_1 v_2 v_3] maps pixels to barycentrics with the Jacobian w³/|det M|.
        """
        with torch.no_grad():
            start = on_device(self.layout, image.device)[image]
            corners = self.clip[self.faces[face + start[:, 1]].long() + start[:, :1]]
            corners = torch.cat([corners[..., :2], corners[..., 3:]], dim=-1)
            w = (barycentric * corners[..., 2]).sum(dim=-1)
            det = torch.linalg.det(corners).abs()
            step = 2 / min(self.image_size)
            return w**3 / det.clamp(min=torch.finfo(det.dtype).tiny) * step**2


class _BatchView(View):
    """Of meshes of their own textures and sizes, each in one image."""

    @property
    def most_faces(self) -> int:
        return int(self.layout[:, 2].max())

    @property
    def edge_cycles(self) -> torch.Tensor:
        return self.mesh.edge_cycles

    @property
    def is_face_colored(self) -> bool:
        return any(mesh.face_colors is not None for mesh in self.mesh)

    @property
    def starts(self) -> torch.Tensor:
        return on_device(self.layout, self.clip.device)[:, [1, 0]]

    def _depth_ends(self, depth: torch.Tensor) -> torch.Tensor:
        parts = depth.split([len(own.vertices) for own in self.mesh])
        return torch.stack(
            [torch.stack([part.amin(), part.amax()]) if len(part) else part.new_ones(2) for part in parts]
        )

    @outside_autocast
    def surface_points(
        self, image: torch.Tensor, face: torch.Tensor, barycentric: torch.Tensor, lights: list[Light], **options: Any
    ) -> list[SurfacePoints]:
        parts = self._split(image, face, barycentric)
        points = []
        for i, (mesh, (own_image, *own, at)) in enumerate(zip(self.mesh, parts, strict=True)):
            eye = self.camera[i if len(self.camera) > 1 else 0] if self.camera.batch_shape else self.camera
            own_lights = [light.select(self.batch, i) for light in lights]
            seen = torch.zeros_like(own_image), *own, partial(self.footprint, own_image, *own)
            points.append(SurfacePoints(mesh, eye, own_lights, (), *seen, ops=self.ops, at=at, **options))
        return points

    def _split(self, image: torch.Tensor, face: torch.Tensor, barycentric: torch.Tensor) -> Iterator[tuple[Any, ...]]:
        """Yield each image's part of a list, and where in it that is; None where parts follow each other."""
        first = torch.searchsorted(image, torch.arange(self.images + 1, device=image.device))
        counts = first.diff()
        ends = sizes(*counts) if not image.is_cpu else counts.tolist()
        if image.is_cpu or not is_replaying():
            parts = (part.split(ends) for part in (image, face, barycentric))
            yield from ((*part, None) for part in zip(*parts, strict=True))
            return
        ends[-1] = len(image)  # it has what the list has too many, too
        for i, (size, faces) in enumerate(zip(ends, self.layout[:, 2].tolist(), strict=True)):
            own = torch.arange(size if faces else 0, device=image.device)
            there, at = own < counts[i], first[i] + own
            index = at.clamp(max=len(image) - 1)
            own_face = torch.where(there, face[index], own % max(faces, 1))
            mixed = torch.where(there[:, None], or_nan(barycentric[index], counts[i], size), 1 / 3)
            yield torch.full_like(own, i), own_face, mixed, torch.where(there, at, len(image))


def pack(where: str, mesh: Any, camera: Any, image_size: tuple[int, int], backend: str = "kernel") -> View:
    """Return what a camera sees of a mesh or a `MeshBatch`; warn of images whose mesh is wholly behind it.

    Raises:
        TypeError, ValueError: no mesh, no camera, batches that do not fit, an unknown backend.
    """
    if not isinstance(camera, Camera):
        fix = "Make one with Camera.orbit or Camera.look_at."
        raise fail(where, "camera", "a geodiff.Camera", camera, fix, TypeError)
    choice(where, "backend", backend, tuple(BACKENDS))
    if isinstance(mesh, MeshBatch):
        count = len(mesh)
        if camera.batch_shape not in ((), (1,), (count,)):
            expected = f"one camera or {count}, one for each mesh of the batch"
            fix = "Use a Mesh with the batch axis (B, 1, V, 3) for all pairs."
            raise fail(where, "camera", expected, f"a batch of shape {tuple(camera.batch_shape)}", fix)
        many = camera.batch_shape == (count,) and count > 1
        own = camera[mesh.vertex_batch] if many else camera
        clip = own.to_clip(mesh.vertices[:, None] if many else mesh.vertices).reshape(-1, 4)
        view: View = _BatchView(mesh, camera, image_size, (count,), clip, mesh.faces, mesh.layout, backend)
    elif isinstance(mesh, Mesh):
        try:
            common_batch(mesh.batch_shape, camera.batch_shape)
        except RuntimeError:
            expected = f"of a batch that broadcasts with the mesh's {tuple(mesh.batch_shape)}"
            fix = "For all pairs give the mesh vertices (B, 1, V, 3)."
            raise fail(where, "camera", expected, f"a batch of {tuple(camera.batch_shape)}", fix) from None
        clip = camera.to_clip(mesh.vertices)
        batch = tuple(clip.shape[:-2])
        packed = (
            clip if clip.dim() == 2 else clip.reshape(-1, 4),
            mesh.faces_int32,
            mesh.topology.layout(math.prod(batch)),
        )
        view = View(mesh, camera, image_size, batch, *packed, backend)
    else:
        fix = "Make one with Mesh(vertices, faces)."
        raise fail(where, "mesh", "a geodiff.Mesh or MeshBatch", mesh, fix, TypeError)
    _warn_if_behind(where, view)
    return view


def _warn_if_behind(where: str, view: View) -> None:
    """Warn of images whose mesh is wholly behind the near plane: they are empty, and their gradient is zero."""
    clip, near = view.clip, view.camera.near
    if not looks_at_values(clip) or len(clip) == 0 or len(view.layout) == 0:
        return
    layout = view.layout.to(clip.device)
    depth = clip.detach()[:, 2]
    if depth.amin().item() > near:  # as mostly: everything is in front
        return
    seen = (depth > near).to(torch.int64).cumsum(0)
    starts = layout[:, 0]
    ends = torch.cat([starts[1:], starts.new_full((1,), len(clip))])  # images follow each other
    before = torch.where(starts > 0, seen[(starts - 1).clamp(min=0)], 0)
    after = torch.where(ends > 0, seen[(ends - 1).clamp(min=0)], 0)
    behind = ((after == before) & (ends > starts) & (layout[:, 2] > 0)).nonzero()[:, 0]
    if len(behind):
        what = "the mesh is" if len(layout) == 1 else f"in {len(behind)} of {len(layout)} images the mesh is"
        deepest = max(float(depth[starts[i] : ends[i]].max()) for i in behind)
        place, fix = "wholly behind the camera", "Turn the camera around, or move it back."
        if deepest > 0:
            place, fix = f"nearer than the near plane, at {deepest:g} at most", "Give the camera a smaller near."
        none = f"nothing is deeper than near = {near:g}): an empty image with zero gradient"
        warn(f"{where}: {what} {place} ({none}. {fix}")


def warn_if_biased(where: str, coverage: Any, camera: Camera) -> bool:
    """Warn of a camera that is optimised through faces that are soft one by one; return whether it was said."""
    fields = (camera.rotation, camera.translation, camera.focal, camera.principal)
    if torch.compiler.is_compiling() or not torch.is_grad_enabled() or not any(x.requires_grad for x in fields):
        return False
    warn(
        f"{where}: the camera has a gradient, and coverage={coverage!r} makes the mesh fatter the finer it is "
        "tessellated, so that an optimised camera ends too far away. Use coverage='contour' for poses; "
        "Renderer.warn_of_bias = False keeps quiet.",
    )
    return True
