# SPDX-License-Identifier: Apache-2.0
"""A packed batch of different meshes."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch

from geodiff.constants import on_device
from geodiff.modes import outside_autocast
from geodiff.saving import Saved
from geodiff.scene.attributes import same_device
from geodiff.scene.mesh import Mesh
from geodiff.scene.sampling import SurfaceSamples
from geodiff.validation import Place, as_tensor, fail, floating


@outside_autocast
class MeshBatch(Saved):
    """Meshes of different sizes, packed one after another.

    Args:
        meshes: one or more single meshes (no batch axis), on one device; dtypes are promoted to the widest.

    Attributes:
        vertices: (ΣV, 3) all vertices.
        faces: (ΣF, 3) all faces, with indices local to their mesh.
        layout: (B, 3) int64 rows [vertex_start, face_start, face_count], on the host whatever the device.

    Raises:
        TypeError: something other than meshes.
        ValueError: no meshes, or a batched one.

    Example:
        >>> import geodiff as gd
        >>> pair = gd.MeshBatch([gd.icosphere(0), gd.box()])
        >>> pair.layout.tolist()
        [[0, 0, 20], [12, 20, 12]]
        >>> pair[1]
        Mesh(vertices=(8, 3), faces=(12, 3), float32, cpu)
    """

    def __init__(self, meshes: Sequence[Mesh]) -> None:
        meshes = list(meshes)
        if not meshes:
            raise fail("MeshBatch", "meshes", "one or more meshes", "none")
        for mesh in meshes:
            if not isinstance(mesh, Mesh):
                raise fail("MeshBatch", "meshes", "a sequence of Mesh", mesh, error=TypeError)
            if mesh.batch_shape:
                raise fail("MeshBatch", "meshes", "single meshes of vertices (V, 3)", mesh.vertices, "Pass [*mesh].")
            same_device("meshes", mesh.vertices, meshes[0].vertices)
        self._meshes = meshes
        self._sizes = [mesh.num_vertices for mesh in meshes]
        self.vertices = torch.cat([mesh.vertices for mesh in meshes])
        self.faces = torch.cat([mesh.faces for mesh in meshes])
        vertex_start = np.cumsum([0, *self._sizes[:-1]])
        face_count = [mesh.num_faces for mesh in meshes]
        face_start = np.cumsum([0, *face_count[:-1]])
        rows = np.stack((vertex_start, face_start, face_count), axis=-1).astype(np.int64)
        self.layout = torch.from_numpy(rows)

    _fields_kept = ("vertices", "faces", "layout")

    def _saved(self) -> dict[str, Any]:
        return {"meshes": list(self)}

    def __len__(self) -> int:
        return len(self._meshes)

    def __getitem__(self, index: int) -> Mesh:
        """Return one mesh, with its attributes and its topology's caches."""
        return self._meshes[index].with_vertices(self.vertices.split(self._sizes)[index])

    def __iter__(self) -> Iterator[Mesh]:
        return (self[i] for i in range(len(self)))

    def __repr__(self) -> str:
        name = str(self.vertices.dtype).removeprefix("torch.")
        return (
            f"MeshBatch({len(self)} meshes, vertices={tuple(self.vertices.shape)}, faces={tuple(self.faces.shape)}, "
            f"{name}, {self.vertices.device})"
        )

    @property
    def edge_cycles(self) -> torch.Tensor:
        """(ΣF, 3) int32, for each side of a face the next side on the same edge; see ``reference.edge_cycles``."""
        starts = self.layout[:, 1].tolist()
        return torch.cat(
            [mesh.topology.edge_cycles + 3 * start for mesh, start in zip(self._meshes, starts, strict=True)]
        )

    @property
    def vertex_batch(self) -> torch.Tensor:
        """(ΣV,) int64, the mesh that each packed vertex belongs to."""
        sizes = on_device(torch.tensor(self._sizes, device="cpu"), self.vertices.device)
        index = torch.arange(len(self), device=self.vertices.device)
        return index.repeat_interleave(sizes, output_size=sum(self._sizes))

    def with_vertices(self, vertices: Any) -> "MeshBatch":
        """Return the batch with other packed positions (ΣV, 3), sharing faces and their caches."""
        vertices = as_tensor("MeshBatch.with_vertices", "vertices", vertices)
        floating("MeshBatch.with_vertices", "vertices", vertices, (sum(self._sizes), 3))
        parts = vertices.split(self._sizes)
        return MeshBatch([mesh.with_vertices(part) for mesh, part in zip(self._meshes, parts, strict=True)])

    def sample(
        self,
        count: int,
        *,
        seed: int | None = None,
        generator: torch.Generator | None = None,
        normals: str = "flat",
    ) -> SurfaceSamples:
        """Draw (B, count) points, as `Mesh.sample` does of each mesh; colours where all have some, of as many channels.

        Raises:
            TypeError, ValueError: as `Mesh.sample`.
        """
        if seed is not None and generator is None:  # one sequence for all, as for a batch of one topology
            generator = torch.Generator().manual_seed(seed)
            seed = None
        parts = [mesh.sample(count, seed=seed, generator=generator, normals=normals) for mesh in self]
        points, directions, _, face, weights = (list(values) for values in zip(*parts, strict=True))
        colors = [part.colors for part in parts if part.colors is not None]
        alike = len(colors) == len(parts) and len({c.shape[-1] for c in colors}) == 1
        return SurfaceSamples(
            torch.stack(points),
            torch.stack(directions),
            torch.stack(colors) if alike else None,
            torch.stack(face),
            torch.stack(weights),
        )

    def to(self, device: Place = None, dtype: torch.dtype | None = None) -> "MeshBatch":
        """Return the batch on another device or in another dtype, as `Mesh.to`."""
        return MeshBatch([mesh.to(device, dtype) for mesh in self])
