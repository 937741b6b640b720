# SPDX-License-Identifier: Apache-2.0
"""From a mesh and a camera to what the kernels take: packed clip coordinates, faces and a layout."""

import math

import torch

from geodiff.scene.camera import Camera
from geodiff.scene.mesh import Mesh
from geodiff.scene.mesh_batch import MeshBatch
from geodiff.validation import common_batch, fail, looks_at_values, warn


def pack(
    where: str, mesh: Mesh | MeshBatch, camera: Camera
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, tuple[int, ...]]:
    """Return packed clip-space vertices `(N, 4)`, faces `(F, 3)`, layout `(B, 3)` and the batch shape of the images."""
    if not isinstance(camera, Camera):
        raise fail(
            where, "camera", "a geodiff.Camera", camera, "Make one with Camera.orbit or Camera.look_at.", TypeError
        )
    if isinstance(mesh, MeshBatch):
        count = len(mesh)
        if camera.batch_shape not in ((), (1,), (count,)):
            raise fail(
                where,
                "camera",
                f"one camera or {count}, one for each mesh of the batch",
                f"a batch of shape {tuple(camera.batch_shape)}",
                "Use a Mesh with the batch axis (B, 1, V, 3) for all pairs.",
            )
        own = camera[mesh.vertex_batch] if camera.batch_shape == (count,) and count > 1 else camera
        points = mesh.vertices[:, None] if own.batch_shape not in ((), (1,)) else mesh.vertices
        return own.to_clip(points).reshape(-1, 4), mesh.faces, mesh.layout, (count,)
    if not isinstance(mesh, Mesh):
        raise fail(
            where, "mesh", "a geodiff.Mesh or MeshBatch", mesh, "Make one with Mesh(vertices, faces).", TypeError
        )
    try:
        common_batch(mesh.batch_shape, camera.batch_shape)
    except RuntimeError:
        raise fail(
            where,
            "camera",
            f"of a batch that broadcasts with the mesh's {tuple(mesh.batch_shape)}",
            f"a batch of {tuple(camera.batch_shape)}",
            "For all pairs give the mesh vertices (B, 1, V, 3).",
        ) from None
    clip = camera.to_clip(mesh.vertices)
    batch = tuple(clip.shape[:-2])
    return clip.reshape(-1, 4), mesh.faces_int32, mesh.layout_for(math.prod(batch)), batch


def depth_range(mesh: Mesh | MeshBatch, clip: torch.Tensor, images: int, near: float) -> torch.Tensor:
    """Return the least and greatest depth (B, 2) of each image's vertices, none less than `near`; 1 and 1 for no mesh.

    Gradients: in `clip`; where several vertices tie they share it.
    """
    if len(clip) == 0:
        return clip.new_ones(images, 2)
    depth = clip[:, 2].clamp(min=near)
    if isinstance(mesh, MeshBatch):
        parts = depth.split([len(own.vertices) for own in mesh])
        ends = [torch.stack([part.amin(), part.amax()]) if len(part) else part.new_ones(2) for part in parts]
        return torch.stack(ends)
    depth = depth.reshape(images, -1)
    return torch.stack([depth.amin(dim=1), depth.amax(dim=1)], dim=1)


def warn_if_biased(where: str, coverage: str, camera: Camera) -> bool:
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


def warn_if_behind(where: str, clip: torch.Tensor, layout: torch.Tensor, near: float) -> None:
    """Warn of images whose mesh is wholly behind the near plane: they are empty, and their gradient is zero."""
    if not looks_at_values(clip) or len(clip) == 0 or len(layout) == 0:
        return
    with torch.no_grad():
        if float(clip[:, 2].amin()) > near:  # as mostly: everything is in front
            return
        seen = (clip[:, 2] > near).to(torch.int64).cumsum(0)
        starts = layout[:, 0]
        ends = torch.cat([starts[1:], starts.new_tensor([len(clip)])])  # images follow each other
        before = torch.where(starts > 0, seen[(starts - 1).clamp(min=0)], 0)
        after = torch.where(ends > 0, seen[(ends - 1).clamp(min=0)], 0)
        behind = ((after == before) & (ends > starts) & (layout[:, 2] > 0)).nonzero()[:, 0]
    if len(behind):
        what = "the mesh is" if len(layout) == 1 else f"in {len(behind)} of {len(layout)} images the mesh is"
        warn(
            f"{where}: {what} wholly behind the camera (nothing is deeper than near = {near:g}): an empty image with "
            "zero gradient. Turn the camera around, or move it back.",
        )
