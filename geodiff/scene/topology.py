# SPDX-License-Identifier: Apache-2.0
"""Which vertices and faces are neighbours: everything about a mesh that does not depend on where its vertices are."""

import torch

from geodiff.modes import cached, is_plain, kept, lasting
from geodiff.reference.outline import edge_cycles
from geodiff.saving import Saved
from geodiff.validation import fail, integers, looks_at_values


class Topology(Saved):
    """Hold faces and find out, on first use, their edges and neighbours.

    Meshes that differ only in their vertex positions share one object, so nothing is computed twice. A face that names
    a vertex twice is a segment or a point: it stays among ``faces`` but has no edges and is nobody's neighbour.
    Everything is computed with sorts over all faces at once, on the device of the faces.

    Args:
        faces: (F, 3) integer tensor of vertex indices; F may be 0.
        num_vertices: V; every index is in [0, V).

    Raises:
        TypeError: faces that are not integers.
        ValueError: a wrong shape or an index out of range.

    Example:
        >>> import torch
        >>> square = Topology(torch.tensor([[0, 1, 2], [0, 2, 3]]), 4)
        >>> square.edges.tolist()
        [[0, 1], [0, 2], [0, 3], [1, 2], [2, 3]]
        >>> square.face_pairs.tolist()
        [[0, 1]]
    """

    _fields_kept = ("faces", "num_vertices")

    def __init__(self, faces: torch.Tensor, num_vertices: int) -> None:
        fix = "Triangulate quads with Mesh.triangulated()." if faces.dim() == 2 and faces.shape[-1] > 3 else ""
        self.faces = kept(integers("Mesh", "faces", faces.detach(), ("F", 3), fix))
        self.num_vertices = num_vertices
        if self.faces.numel() and looks_at_values(self.faces):
            low, high = (int(x) for x in torch.aminmax(self.faces))
            if low < 0 or high >= num_vertices:
                where = int(((self.faces < 0) | (self.faces >= num_vertices)).any(dim=1).nonzero()[0, 0])
                raise fail(
                    "Mesh",
                    "faces",
                    f"indices in [0, {num_vertices}) since there are {num_vertices} vertices",
                    f"{self.faces[where].tolist()} in face {where}",
                    "OBJ files count from 1: subtract 1." if low >= 1 else "Drop or repair those faces.",
                )

    def layout(self, batch: int) -> torch.Tensor:
        """Return what `Mesh.layout_for` does; a small one is kept as long as nobody changes it. Always on the host."""
        if not is_plain((self.faces,)):
            return self._layout_rows(batch)
        rows: torch.Tensor | None = self.__dict__.get("_layout")
        if rows is None or len(rows) != batch or rows._version:
            with lasting():
                rows = self._layout_rows(batch)
                self.__dict__["_layout"] = rows if batch <= 64 else None
        return rows

    def _layout_rows(self, batch: int) -> torch.Tensor:
        starts = torch.arange(batch, device="cpu") * self.num_vertices
        zero = torch.zeros_like(starts)
        return torch.stack([starts, zero, torch.full_like(starts, self.num_faces)], dim=1)

    def __repr__(self) -> str:
        return f"Topology(faces={self.num_faces}, vertices={self.num_vertices}, device={self.faces.device})"

    @property
    def num_faces(self) -> int:
        """F."""
        return len(self.faces)

    @cached
    def faces_int32(self) -> torch.Tensor:
        """(F, 3) contiguous int32 copy of the faces, the form that kernels read."""
        return self.faces.to(torch.int32)

    @cached
    def edge_cycles(self) -> torch.Tensor:
        """(F, 3) int32, for each side of a face the next side on the same edge; see ``reference.edge_cycles``."""
        return edge_cycles(self.faces)

    @cached
    def _sides(self) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Sides of proper triangles: key low·V + high (sorted), face of each, and whether a new key starts there."""
        f = self.faces
        proper = ((f[:, 0] != f[:, 1]) & (f[:, 1] != f[:, 2]) & (f[:, 2] != f[:, 0])).nonzero()[:, 0]
        ends = f[proper][:, [0, 1, 1, 2, 2, 0]].reshape(-1, 2)
        a, b = ends.unbind(1)
        key = torch.minimum(a, b) * self.num_vertices + torch.maximum(a, b)
        # A stable sort keeps the faces of one edge in ascending order.
        key, order = torch.sort(key, stable=True)
        face = proper.repeat_interleave(3)[order]
        first = torch.ones(len(key), dtype=torch.bool, device=f.device)
        first[1:] = key[1:] != key[:-1]
        return key, face, first

    @cached
    def edges(self) -> torch.Tensor:
        """(E, 2) int64 edges, each once, lower vertex first, in lexicographic order."""
        key, _, first = self._sides
        unique = key[first]
        width = max(self.num_vertices, 1)
        return torch.stack((unique // width, unique % width), dim=-1)

    @cached
    def edge_face_count(self) -> torch.Tensor:
        """(E,) how many faces meet at each edge: 1 at a boundary, 2 inside, more where the mesh is not a manifold."""
        _, _, first = self._sides
        start = first.nonzero()[:, 0]
        end = torch.cat((start[1:], start.new_tensor([len(first)])))[: len(start)]
        return end - start

    @cached
    def edge_faces(self) -> torch.Tensor:
        """(E, 2) the two faces at each edge, lower first, −1 where there is none.

        Where more than two meet, the two lowest; ``face_pairs`` has them all.
        """
        _, face, first = self._sides
        start = first.nonzero()[:, 0]
        second = face[(start + 1).clamp(max=max(len(face) - 1, 0))]
        return torch.stack((face[start], torch.where(self.edge_face_count > 1, second, -1)), dim=-1)

    @cached
    def _pairs(self) -> tuple[torch.Tensor, torch.Tensor]:
        _, face, first = self._sides
        count = self.edge_face_count
        start = first.nonzero()[:, 0]
        # The k-th face of an edge with n faces is paired with the n - 1 - k that come after it.
        edge = torch.arange(len(count), device=face.device).repeat_interleave(count)
        row = torch.arange(len(face), device=face.device)
        later = count[edge] - 1 - (row - start[edge])
        one = row.repeat_interleave(later)
        begin = (later.cumsum(0) - later).repeat_interleave(later)
        other = one + 1 + torch.arange(len(one), device=face.device) - begin
        return torch.stack((face[one], face[other]), dim=-1), edge[one]

    @property
    def face_pairs(self) -> torch.Tensor:
        """(P, 2) all pairs of faces that share an edge, lower face first; n faces at one edge give n(n − 1)/2 pairs."""
        return self._pairs[0]

    @property
    def face_pair_edges(self) -> torch.Tensor:
        """(P,) the edge, a row of ``edges``, that each of ``face_pairs`` shares."""
        return self._pairs[1]

    @cached
    def boundary_edges(self) -> torch.Tensor:
        """(b, 2) the edges with a single face."""
        return self.edges[self.edge_face_count == 1]

    @cached
    def vertex_degree(self) -> torch.Tensor:
        """(V,) int64, how many edges meet at each vertex; 0 for a vertex in no face."""
        return torch.bincount(self.edges.reshape(-1), minlength=self.num_vertices)

    @cached
    def is_closed(self) -> bool:
        """Whether there are faces and no boundary edge."""
        return bool(len(self.edges) > 0 and (self.edge_face_count > 1).all())

    @cached
    def is_edge_manifold(self) -> bool:
        """Whether no edge has more than two faces."""
        return bool((self.edge_face_count <= 2).all())

    @cached
    def euler_characteristic(self) -> int:
        """Vertices − edges + faces of the proper triangles, counting only the vertices they use: 2 − 2·genus if closed.

        Holds for one connected piece; over several pieces it adds up.
        """
        used = int((self.vertex_degree > 0).sum())
        return used - len(self.edges) + len(self._sides[0]) // 3

    def to(self, device: torch.device | str) -> "Topology":
        """Return it on another device, with whatever was computed so far."""
        if torch.device(device) == self.faces.device:
            return self
        moved = object.__new__(Topology)
        for name, value in self.__dict__.items():
            if isinstance(value, torch.Tensor):
                value = value.to(device)
            elif isinstance(value, tuple):
                value = tuple(part.to(device) for part in value)
            elif not isinstance(value, int):
                continue  # the tables of losses
            moved.__dict__[name] = value
        return moved
