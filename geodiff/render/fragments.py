# SPDX-License-Identifier: Apache-2.0
"""The faces that a pixel sees, for shaders of one's own."""

import math
from dataclasses import dataclass, field

import torch

from geodiff.modes import outside_autocast
from geodiff.render.view import BACKENDS, pack
from geodiff.scene.camera import Camera
from geodiff.scene.mesh import Mesh
from geodiff.scene.mesh_batch import MeshBatch
from geodiff.scene.pose import pixel_size
from geodiff.validation import as_tensor, fail, matches, shapes_repr


@outside_autocast
@dataclass(frozen=True)
class Fragments:
    """The k nearest faces of each pixel; the batch is that of mesh and camera, broadcast.

    Attributes:
        face_id: index within its own mesh, −1 where there is none, `(..., H, W, k)` int64.
        distance: signed distance of the pixel centre to the face, NDC, positive inside, `(..., H, W, k)`; −1e10 where
            there is none, so that every distribution is 0 there.
        barycentric: perspective-correct coordinates, `(..., H, W, k, 3)`, of the pixel centre where the face covers it,
            else of the face's point nearest to it in the image; 0 where there is none.
        depth: of that point, infinite where there is none, `(..., H, W, k)`.
    """

    __repr__ = shapes_repr

    face_id: torch.Tensor
    distance: torch.Tensor
    barycentric: torch.Tensor
    depth: torch.Tensor
    _faces: torch.Tensor = field(repr=False)
    _starts: torch.Tensor = field(repr=False)
    _backend: str = field(repr=False)

    @property
    def mask(self) -> torch.Tensor:
        """Whether the fragment is there, `(..., H, W, k)` bool."""
        return self.face_id >= 0

    def interpolate(self, values: torch.Tensor, faces: torch.Tensor | None = None) -> torch.Tensor:
        """Interpolate an attribute of the vertices at each fragment.

        Args:
            values: `(..., V, C)`, such as `mesh.vertices` or `mesh.vertex_normals`; its batch broadcasts with the
                images'. Of a `MeshBatch`: packed, `(ΣV, C)`.
            faces: `(F, 3)` where the corners of the faces have indices of their own, such as `mesh.uv_faces`; not for a
                `MeshBatch`.

        Returns:
            `(..., H, W, k, C)`, 0 where there is no fragment.

        Gradients: in the values and, through the barycentrics, in mesh and camera.

        Raises:
            ValueError: values or faces of the wrong shape.

        Example:
            >>> import geodiff as gd
            >>> ball, camera = gd.icosphere(3), gd.Camera.orbit(2.0, fov_deg=60)
            >>> seen = gd.fragments(ball, camera, 2, k=2)
            >>> seen.interpolate(ball.vertices)[0, 0].norm(dim=-1).round(decimals=1)  # where a ray enters and leaves
            tensor([1., 1.])
        """
        where = "Fragments.interpolate"
        values = as_tensor(where, "values", values)
        batch = self.face_id.shape[:-3]
        if not matches(values.shape, ("...", "V", "C")):
            raise fail(where, "values", "of shape (..., V, C)", values)
        corners = self._faces if faces is None else faces
        if corners.shape != self._faces.shape:
            raise fail(where, "faces", f"of shape {tuple(self._faces.shape)}, one row for each face", faces)
        count = values.shape[-2]
        if values.shape[:-2].numel() != 1:
            try:
                wide = values.expand(*batch, *values.shape[-2:])
            except RuntimeError:
                expected = f"of a batch that broadcasts to the images' {tuple(batch)}"
                raise fail(where, "values", expected, values) from None
            rows, stride = wide.reshape(-1, values.shape[-1]), count
        else:
            rows, stride = values.reshape(-1, values.shape[-1]), 0
        mask = self.mask.reshape(-1)
        hit = mask.nonzero()[:, 0]
        image = hit // max(math.prod(self.face_id.shape[-3:]), 1)
        start = self._starts[image]
        index = corners[self.face_id.reshape(-1)[hit] + start[:, 0]] + start[:, 1:] + (image * stride)[:, None]
        if index.numel() and int(index.max()) >= len(rows):
            raise fail(where, "values", "one row for each vertex", values, "Or pass faces=.")
        ops = BACKENDS[self._backend]
        mixed = ops.blend(rows.to(self.barycentric.dtype), index, self.barycentric.reshape(-1, 3)[hit])
        dense = mixed.new_zeros(len(mask), mixed.shape[1]).index_copy(0, hit, mixed)
        return dense.reshape(*self.face_id.shape, mixed.shape[1])


@outside_autocast
def fragments(
    mesh: Mesh | MeshBatch,
    camera: Camera,
    image_size: int | tuple[int, int],
    k: int = 8,
    *,
    blur: float = 0.0,
    backend: str = "kernel",
) -> Fragments:
    """Find the k nearest faces (in depth) of every pixel, for a shader of one's own.

    Args:
        mesh: `vertices (..., V, 3)`, or a `MeshBatch` of B meshes.
        camera: a camera whose batch broadcasts with the mesh's.
        image_size: `H` for a square image, or `(H, W)`.
        k: how many faces a pixel keeps.
        blur: NDC: also faces that miss the pixel centre by no more than this; 0 for hard images. A face of
            distribution F and scale τ counts up to about `τ·F.cull_radius(ε)`.
        backend: `"kernel"`, or `"reference"` for the slow twin in plain torch.

    Returns:
        `Fragments`.

    Gradients: of distance, barycentric and depth, in vertices and camera. Which faces are there is piecewise constant:
    where a face enters or leaves, or two swap, the result jumps unless the shader gives such a face no weight. A mesh
    wholly behind the camera gives a warning and no fragments.

    Raises:
        TypeError, ValueError: as each argument's check says.

    Example:
        Alpha of ``Renderer(16, "logistic", scale=0.02)``:

        >>> import geodiff as gd
        >>> camera, mesh = gd.Camera.orbit(2.7, 30, 20, fov_deg=60), gd.icosphere(0)
        >>> seen = gd.fragments(mesh, camera, 16, k=20, blur=0.4)
        >>> alpha = 1 - (1 - torch.sigmoid(seen.distance / 0.02)).prod(dim=-1)
        >>> torch.allclose(alpha, gd.Renderer(16, "logistic", scale=0.02)(mesh, camera).alpha, atol=1e-3)
        True
    """
    size = pixel_size("fragments", image_size)
    view = pack("fragments", mesh, camera, size, backend)
    found = view.ops.fragments(*view.packed, **view.frame, k=k, blur=blur)
    return Fragments(
        face_id=found.face_id.reshape(*view.batch, *size, k),
        distance=found.distance.reshape(*view.batch, *size, k),
        barycentric=found.barycentric.reshape(*view.batch, *size, k, 3),
        depth=found.depth.reshape(*view.batch, *size, k),
        _faces=mesh.faces,
        _starts=view.starts,
        _backend=backend,
    )
