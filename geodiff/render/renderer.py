# SPDX-License-Identifier: Apache-2.0
"""From a mesh and a camera to images: the soft renderer and the hard rasteriser."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from geodiff import ops, reference, soft
from geodiff.ops.culling import MAX_ERROR
from geodiff.scene.camera import Camera
from geodiff.scene.mesh import Mesh, MeshBatch
from geodiff.scene.pose import pixel_size
from geodiff.validation import choice, describe, fail, positive


@dataclass(frozen=True)
class RenderOutput:
    """What a renderer returns.

    Attributes:
        alpha: soft coverage in [0, 1], `(..., H, W)`; the batch is that of mesh and camera, broadcast.
    """

    alpha: torch.Tensor


@dataclass(frozen=True)
class HardOutput:
    """What the hard rasteriser returns; the batch is that of mesh and camera, broadcast.

    Attributes:
        mask: whether a face covers the pixel centre, `(..., H, W)` bool.
        depth: distance along the viewing direction, infinite where empty, `(..., H, W)`.
        face_id: index of the nearest face, −1 where empty, `(..., H, W)` int64.
        barycentric: perspective-correct weights of its corners, 0 where empty, `(..., H, W, 3)`.
    """

    mask: torch.Tensor
    depth: torch.Tensor
    face_id: torch.Tensor
    barycentric: torch.Tensor


class Renderer:
    """Render soft silhouettes of meshes: one object for the whole family of GenDR's renderers.

    At pixel q, `alpha(q) = ⊥_f F(d(q, f)/τ)`: the signed distance d (NDC, positive inside) to each face f goes through
    the CDF F of a distribution of scale τ, and the faces are joined by a T-conorm ⊥ (Petersen et al., "GenDR: a
    generalized differentiable renderer", 2022).

    Args:
        image_size: `H` for a square image, or `(H, W)`.
        distribution: an object or a name of `geodiff.soft`, for instance `"logistic"`, `gd.soft.Gamma(0.5).reversed()`.
        scale: τ > 0, in NDC (NDC² for a squared distribution): how soft the edges are. A float or a tensor without
            axes, which may require a gradient.
        tconorm: an object or a name of `geodiff.soft`, for instance `"probabilistic"`, `gd.soft.Yager(2.0)`.
        coverage: `"faces"`, GenDR's: every face covers pixels by itself. `"edges"`, Pix2Vex's: a face covers a pixel by
            the product of F over the lines of its three edges. `"contour"`: one CDF a pixel, of the distance
            to the outline of the mesh's image, positive inside; the same image however finely the shape is
            tessellated, without seams. It takes no T-conorm.
        scale_px: τ in pixels instead of `scale` (for a squared distribution, its root).
        max_error: faces far from a pixel are left out as long as alpha changes by no more than this.
        backend: `"kernel"`, or `"reference"` for the slow twin in plain torch. User-defined distributions and
            T-conorms always go through the twin.

    Gradients: in vertices, in every parameter of the camera, in `scale`, and in the parameters of distribution and
    T-conorm. Finite everywhere; the same bits on any number of threads.

    Raises:
        TypeError, ValueError: as each argument's check says.

    Example:
        >>> import geodiff as gd
        >>> camera = gd.Camera.orbit(distance=2.7, elevation_deg=30, azimuth_deg=0, fov_deg=60)
        >>> gd.Renderer(64, distribution="logistic", scale=1e-2)(gd.icosphere(2), camera).alpha.shape
        torch.Size([64, 64])
    """

    def __init__(
        self,
        image_size: int | tuple[int, int],
        distribution: "soft.Distribution | str | Callable[..., Any]" = "logistic",
        scale: float | torch.Tensor | None = None,
        tconorm: "soft.TConorm | str | Callable[..., Any]" = "probabilistic",
        coverage: str = "faces",
        *,
        scale_px: float | torch.Tensor | None = None,
        max_error: float = MAX_ERROR,
        backend: str = "kernel",
    ) -> None:
        self.image_size = pixel_size("Renderer", image_size)
        self.distribution = soft.as_distribution(distribution)
        self.tconorm = soft.as_tconorm(tconorm)
        self.coverage = choice("Renderer", "coverage", coverage, ("faces", "edges", "contour"))
        self.backend = choice("Renderer", "backend", backend, ("kernel", "reference"))
        if scale is not None and scale_px is not None:
            raise fail("Renderer", "scale_px", "given instead of `scale`", "both", "Leave one of them out.")
        if scale_px is not None:
            positive("Renderer", "scale_px", scale_px, "It is a length in pixels.")
            length = scale_px * (2 / min(self.image_size))
            scale = length * length if self.distribution.is_squared else length
        self.scale = 1e-2 if scale is None else scale
        positive("Renderer", "scale", self.scale, "τ is a length in NDC (an area for a squared distribution).")
        if isinstance(self.scale, torch.Tensor) and self.scale.numel() != 1:
            fix = "Make a Renderer for each value."
            raise fail("Renderer", "scale", "a number or a tensor with one element", self.scale, fix)
        if not isinstance(max_error, int | float) or not 0 <= max_error < 1:
            raise fail("Renderer", "max_error", "in [0, 1)", describe(max_error), "It bounds the error of alpha.")
        self.max_error = max_error

    def __call__(self, mesh: Mesh | MeshBatch, camera: Camera) -> RenderOutput:
        """Render one mesh, a batch of one topology, or a `MeshBatch`, seen by one camera or a batch of them.

        Args:
            mesh: `vertices (..., V, 3)`, or a `MeshBatch` of B meshes.
            camera: a camera whose batch broadcasts with the mesh's (for a `MeshBatch`: B cameras, or one).

        Returns:
            `RenderOutput` with `alpha (..., H, W)`; without a batch, `(H, W)`.
        """
        clip, faces, layout, batch = pack("Renderer", mesh, camera)
        if self.coverage == "contour":
            alpha = self._contour(clip, faces, layout, mesh, camera.near)
            return RenderOutput(alpha=alpha.reshape(*batch, *self.image_size))
        model: dict[str, Any] = {
            "distribution": self.distribution,
            "tconorm": self.tconorm,
            "scale": self.scale,
            "image_size": self.image_size,
            "near": camera.near,
            "coverage": self.coverage,
        }
        if self.backend == "reference":
            alpha = reference.silhouette(clip, faces, layout, **model)
        else:
            alpha = ops.silhouette(clip, faces, layout, max_error=self.max_error, **model)
        return RenderOutput(alpha=alpha.reshape(*batch, *self.image_size))

    def _contour(
        self, clip: torch.Tensor, faces: torch.Tensor, layout: torch.Tensor, mesh: Mesh | MeshBatch, near: float
    ) -> torch.Tensor:
        model: dict[str, Any] = {
            "distribution": self.distribution,
            "scale": self.scale,
            "image_size": self.image_size,
            "near": near,
        }
        if self.backend == "reference":
            return reference.contour(clip, faces, layout, **model)
        edges = mesh.edge_cycles if isinstance(mesh, MeshBatch) else mesh.topology.edge_cycles
        return ops.contour(clip, faces, layout, edges=edges, max_error=self.max_error, **model)

    def __repr__(self) -> str:
        scale = float(self.scale)
        return (
            f"Renderer({self.image_size[0]}×{self.image_size[1]}, {self.distribution!r}, scale={scale:g}, "
            f"{self.tconorm!r}, coverage='{self.coverage}')"
        )


def rasterize(mesh: Mesh | MeshBatch, camera: Camera, image_size: int | tuple[int, int]) -> HardOutput:
    """Rasterise without softness: a z-buffer, for targets and metrics.

    A pixel whose centre is inside a face or on its edge is covered, whatever the face's winding; the nearest face wins,
    and of equally near ones that of lowest index.

    Args:
        mesh: `vertices (..., V, 3)`, or a `MeshBatch` of B meshes.
        camera: a camera whose batch broadcasts with the mesh's.
        image_size: `H` for a square image, or `(H, W)`.

    Returns:
        `HardOutput` with `mask`, `depth`, `face_id` (within its own mesh) and `barycentric`.

    Gradients: none.

    Raises:
        TypeError, ValueError: as each argument's check says.

    Example:
        >>> import geodiff as gd
        >>> camera = gd.Camera.orbit(distance=2.0, elevation_deg=0, azimuth_deg=0, fov_deg=60)
        >>> gd.rasterize(gd.box(), camera, 1).depth
        tensor([[1.5000]])
    """
    size = pixel_size("rasterize", image_size)
    clip, faces, layout, batch = pack("rasterize", mesh, camera)
    with torch.no_grad():
        raster = ops.rasterize(clip, faces, layout, image_size=size, near=camera.near)
    face_id = raster.face_id.reshape(*batch, *size)
    return HardOutput(
        mask=face_id >= 0,
        depth=raster.depth.reshape(*batch, *size),
        face_id=face_id,
        barycentric=raster.barycentric.reshape(*batch, *size, 3),
    )


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
        torch.broadcast_shapes(mesh.batch_shape, camera.batch_shape)
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
