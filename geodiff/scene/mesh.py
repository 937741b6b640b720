# SPDX-License-Identifier: Apache-2.0
"""Triangle meshes: one, or a batch of positions over shared faces."""

import copy
import os
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import TYPE_CHECKING, Any

import torch

from geodiff import ops
from geodiff.modes import is_transformed, lasting, outside_autocast
from geodiff.saving import Saved
from geodiff.scene import attributes, quantities, transforms
from geodiff.scene.material import Material
from geodiff.scene.polygons import polygons_cut
from geodiff.scene.texture import Texture
from geodiff.scene.topology import Topology
from geodiff.validation import Place, as_tensor, choice, fail, floating, placement

if TYPE_CHECKING:
    import trimesh

    from geodiff.scene.proximity import ClosestPoints
    from geodiff.scene.sampling import SurfaceSamples


@outside_autocast
class Mesh(Saved):
    """A triangle mesh, or a batch of vertex positions over the same faces.

    Methods return new meshes and never change this one. What follows from the faces alone is found on first use and
    shared by every mesh made with ``with_vertices``. What follows from the positions (normals, areas) is kept too,
    unless the positions require a gradient, when it is computed afresh so that its graph is too. Front faces are
    those whose vertices are seen counter-clockwise.

    Args:
        vertices: (..., V, 3) float32 or float64 tensor or array, finite.
        faces: (F, 3) integers in [0, V); F may be 0, and faces may have no area.
        vertex_colors: (..., V, C), usually C = 3 with values in [0, 1].
        uv: (..., T, 2) texture coordinates, u to the right and v up, (0, 0) the lower left corner of the texture.
        uv_faces: (F, 3) integers in [0, T), the texture coordinate of each corner; left out, T = V and ``faces`` serve.
        face_colors: (..., F, C).
        texture: a ``Texture``, or an image (..., H, W, C), row 0 on top, to make one of; needs ``uv``.
        material: a ``Material``, how the surface reflects light; where left out the renderer takes ``Material()``.

    Where several colours are given (vertices, faces, texture), the renderer multiplies them; without any the mesh is
    white, times what its material makes of that.

    Gradients flow to the vertices and the attributes. Mixed dtypes are promoted to the widest.

    Raises:
        TypeError: faces that are not integers, half precision, or things that are not tensors.
        ValueError: NaN or infinity, indices out of range, quads, attributes of the wrong length.
        RuntimeError: tensors on different devices.

    Example:
        >>> import torch, geodiff as gd
        >>> mesh = gd.Mesh(torch.eye(3), torch.tensor([[0, 1, 2]]))
        >>> mesh.face_areas
        tensor([0.8660])
    """

    _fields_kept = ("vertices", "topology", "uv_faces", "material", *attributes.AXES)
    vertices: torch.Tensor
    topology: Topology
    vertex_colors: torch.Tensor | None
    uv: torch.Tensor | None
    uv_faces: torch.Tensor | None
    face_colors: torch.Tensor | None
    texture: Texture | None
    material: Material | None

    def __init__(
        self,
        vertices: Any,
        faces: Any,
        vertex_colors: Any = None,
        uv: Any = None,
        uv_faces: Any = None,
        face_colors: Any = None,
        texture: Any = None,
        material: Material | None = None,
    ) -> None:
        listed = isinstance(vertices, list | tuple)
        vertices = as_tensor("Mesh", "vertices", vertices)
        if listed and vertices.dtype == torch.int64:  # whole numbers in a list are coordinates like others
            vertices = vertices.to(torch.get_default_dtype())
        floating("Mesh", "vertices", vertices, ("...", "V", 3))
        if isinstance(faces, Topology):
            topology = faces
            if topology.num_vertices != vertices.shape[-2]:
                expected = f"of shape (..., {topology.num_vertices}, 3) as in the topology"
                raise fail("Mesh", "vertices", expected, vertices)
        else:
            faces = as_tensor("Mesh", "faces", faces)
            # An empty list of faces has no dtype of its own.
            if faces.numel() == 0 and faces.dim() <= 1:
                faces = faces.new_zeros((0, 3), dtype=torch.int64)
            attributes.same_device("faces", faces, vertices)
            topology = Topology(faces, vertices.shape[-2])
        self.topology = topology
        given = {"vertex_colors": vertex_colors, "uv": uv, "face_colors": face_colors, "texture": texture}
        values = attributes.checked(topology, vertices, given)
        self.vertices = values["vertices"]
        for name in given:
            setattr(self, name, values.get(name))
        if material is not None and not isinstance(material, Material):
            raise fail("Mesh", "material", "a geodiff.Material", material, error=TypeError)
        self.material = material
        self.uv_faces = attributes.checked_uv_faces(topology, self.uv, uv_faces)
        if self.texture is not None and self.uv is None:
            raise fail("Mesh", "uv", "given with `texture`", "None", "Pass uv=(V, 2), or leave the texture out.")
        attributes.check_batch(self)
        self._cache: dict[str, torch.Tensor] = {}
        self._cache_version = -1

    # --- making, reading, writing -----------------------------------------------------------------------------------

    @classmethod
    def triangulated(cls, vertices: Any, polygons: Any, **more: Any) -> "Mesh":
        """Make a mesh from polygons: convex ones are cut into fans around their first vertex, others ear by ear.

        Args:
            vertices: (..., V, 3); of a batch the first decides how polygons are cut.
            polygons: (F, n) integers with n ≥ 3, or a list of sequences of three or more vertex indices. Where their
                sides cross, a warning says so.
            more: the other arguments of ``Mesh`` that are not counted by face.

        Raises:
            TypeError: indices that are not integers.
            ValueError: a polygon of fewer than three vertices, or indices out of range.

        Example:
            >>> import torch, geodiff as gd
            >>> gd.Mesh.triangulated(torch.rand(5, 3), [[0, 1, 2, 3], [0, 3, 4]]).faces.tolist()
            [[0, 1, 2], [0, 2, 3], [0, 3, 4]]
        """
        where = "Mesh.triangulated"
        points = as_tensor(where, "vertices", vertices)
        floating(where, "vertices", points, ("...", "V", 3))
        return cls(vertices, polygons_cut(where, points, polygons), **more)

    @classmethod
    def load(
        cls,
        path: str | os.PathLike[str],
        weld: bool | None = None,
        dtype: torch.dtype = torch.float32,
        allow_outside: bool = False,
    ) -> "Mesh":
        """Read a mesh from an OBJ, PLY, STL, GLB, glTF or OFF file; see ``mesh_files.load_mesh``."""
        from geodiff.scene.mesh_files import load_mesh

        return load_mesh(path, weld, dtype, allow_outside)

    def save(self, path: str | os.PathLike[str], *, srgb: bool = False, unlit: bool = False) -> None:
        """Write the mesh as OBJ, PLY, STL or GLB, whole or not at all; see ``mesh_files.save_mesh``."""
        from geodiff.scene.mesh_files import save_mesh

        save_mesh(self, path, srgb=srgb, unlit=unlit)

    @classmethod
    def from_trimesh(cls, mesh: "trimesh.Trimesh", dtype: torch.dtype = torch.float32) -> "Mesh":
        """Make a mesh from a ``trimesh.Trimesh``; see ``mesh_files.from_trimesh``."""
        from geodiff.scene.mesh_files import from_trimesh

        return from_trimesh(mesh, dtype)

    def to_trimesh(self) -> "trimesh.Trimesh":
        """Return a ``trimesh.Trimesh``; see ``mesh_files.to_trimesh``."""
        from geodiff.scene.mesh_files import to_trimesh

        return to_trimesh(self)

    def welded(self) -> "Mesh":
        """Return the mesh with vertices at the very same position joined; see ``mesh_files.welded``."""
        from geodiff.scene.mesh_files import welded

        return welded(self)

    # --- shape ------------------------------------------------------------------------------------------------------

    @property
    def faces(self) -> torch.Tensor:
        """(F, 3) int64."""
        return self.topology.faces

    @property
    def faces_int32(self) -> torch.Tensor:
        """(F, 3) contiguous int32, cached."""
        return self.topology.faces_int32

    @property
    def num_vertices(self) -> int:
        """V."""
        return self.vertices.shape[-2]

    @property
    def num_faces(self) -> int:
        """F."""
        return self.topology.num_faces

    @property
    def batch_shape(self) -> torch.Size:
        """The leading shape of the vertices, empty for a single mesh."""
        return self.vertices.shape[:-2]

    @property
    def dtype(self) -> torch.dtype:
        """Of the vertices and attributes."""
        return self.vertices.dtype

    @property
    def device(self) -> torch.device:
        """Of everything."""
        return self.vertices.device

    def __repr__(self) -> str:
        parts = [f"vertices={tuple(self.vertices.shape)}", f"faces={tuple(self.faces.shape)}"]
        for name in attributes.AXES:
            value = getattr(self, name)
            if value is not None:
                parts.append(f"{name}={tuple(value.shape)}")
        return f"Mesh({', '.join(parts)}, {str(self.dtype).removeprefix('torch.')}, {self.device})"

    def __getitem__(self, index: Any) -> "Mesh":
        """Select meshes of a batch; the faces and their caches are shared."""
        if not self.batch_shape:
            raise fail("Mesh", "index", "used on a batch (B, V, 3)", self.vertices, "This is one mesh.", TypeError)
        changes: dict[str, Any] = {"vertices": self.vertices[index]}
        for name, axes in attributes.AXES.items():
            value = getattr(self, name)
            if value is not None and len(value.shape) > axes:
                changes[name] = attributes.selected(value, axes, self.batch_shape, index)
        if self.material is not None:
            changes["material"] = self.material.select(self.batch_shape, index)
        return self._replace(**changes)

    def __iter__(self) -> Iterator["Mesh"]:
        if not self.batch_shape:
            raise fail("Mesh", "mesh", "a batch (B, V, 3) to iterate", self.vertices, error=TypeError)
        return (self[i] for i in range(self.batch_shape[0]))

    def layout_for(self, batch: int) -> torch.Tensor:
        """Return the (B, 3) rows [vertex_start, face_start, face_count] of B images of this mesh.

        For ops that take packed vertices: image b has vertices [b·V, (b + 1)·V) and all images share the faces. It is
        on the host, whatever the mesh's device.
        """
        return self.topology.layout(batch).clone()

    # --- new meshes from this one -------------------------------------------------------------------------------------

    def _saved(self) -> dict[str, Any]:
        fields = {name: getattr(self, name) for name in self._fields_kept if getattr(self, name) is not None}
        if self.uv_faces is self.topology.faces:
            del fields["uv_faces"]
        return {"faces": fields.pop("topology"), **fields}

    def _replace(self, **changes: Any) -> "Mesh":
        fields = {name: getattr(self, name) for name in ("vertices", "uv_faces", "material", *attributes.AXES)}
        fields.update(changes)
        return Mesh(faces=fields.pop("topology", self.topology), **fields)

    def _changed(self, **changes: Any) -> "Mesh":
        """Do as `_replace`; the rest was checked when it came in, and training loops come here at every step."""
        mesh = copy.copy(self)
        vars(mesh).update(changes)
        attributes.check_batch(mesh)
        return mesh

    def with_vertices(self, vertices: Any) -> "Mesh":
        """Return the mesh with other positions (..., V, 3), which keeps its faces, its attributes and their caches."""
        vertices = as_tensor("Mesh.with_vertices", "vertices", vertices)
        floating("Mesh.with_vertices", "vertices", vertices, ("...", self.num_vertices, 3))
        attributes.same_device("vertices", vertices, self.vertices)
        if vertices.dtype != self.dtype:
            return self._replace(vertices=vertices)
        return self._changed(vertices=vertices, _cache={}, _cache_version=-1)

    def with_attributes(self, **changes: Any) -> "Mesh":
        """Return the mesh with some of vertex_colors, uv, uv_faces, face_colors, texture and material replaced.

        None drops one.
        """
        for name in changes:
            choice("Mesh.with_attributes", "attributes", name, (*attributes.AXES, "uv_faces", "material"))
        if "uv" in changes and "uv_faces" not in changes:
            changes["uv_faces"] = None
        if list(changes) == ["texture"] and changes["texture"] is not None and self.uv is not None:
            texture = attributes.checked(self.topology, self.vertices, changes)["texture"]
            if texture.dtype == self.dtype:
                return self._changed(texture=texture, _cache=dict(self._cache))
        return self._replace(**changes)

    def _map(self, change: Callable[[torch.Tensor], torch.Tensor]) -> dict[str, Any]:
        values = {name: getattr(self, name) for name in ("vertices", "material", *attributes.AXES)}
        return {name: attributes.mapped(value, change) for name, value in values.items() if value is not None}

    def to(self, device: Place = None, dtype: torch.dtype | None = None) -> "Mesh":
        """Return the mesh on another device or in another dtype (float32 or float64), which may also come first."""
        device, dtype = placement("Mesh.to", device, dtype)
        changes = self._map(lambda value: value.to(device=device, dtype=dtype))
        topology = self.topology if device is None else self.topology.to(device)
        uv_faces = self.uv_faces
        if uv_faces is not None:
            uv_faces = topology.faces if uv_faces is self.topology.faces else uv_faces.to(device)
        return self._replace(topology=topology, uv_faces=uv_faces, **changes)

    def detach(self) -> "Mesh":
        """Return the mesh cut off from the autograd graph."""
        return self._replace(**self._map(torch.Tensor.detach))

    def clone(self) -> "Mesh":
        """Return the mesh with its own copies of vertices and attributes."""
        return self._replace(**self._map(torch.Tensor.clone))

    def translated(self, offset: Any) -> "Mesh":
        """Return the mesh moved by ``offset`` (..., 3); a batch of offsets gives a batch of meshes."""
        return self.with_vertices(transforms.translated(self.vertices, offset))

    def scaled(self, factor: Any) -> "Mesh":
        """Return the mesh scaled about the origin by a number, (..., 1) even factors or (..., 3) along x, y and z.

        An odd count of negative factors turns the mesh inside out: see ``flipped``.
        """
        return self.with_vertices(transforms.scaled(self.vertices, factor))

    def rotated(self, rotation: Any) -> "Mesh":
        """Return the mesh turned about the origin: x ↦ R x for ``rotation`` R (..., 3, 3)."""
        return self.with_vertices(transforms.rotated(self.vertices, rotation))

    def transformed(self, matrix: Any) -> "Mesh":
        """Return the mesh under the affine map x ↦ A x + t with ``matrix`` [[A, t], [0, 1]] of shape (..., 4, 4)."""
        return self.with_vertices(transforms.transformed(self.vertices, matrix))

    def normalized(self, kind: str = "box") -> "Mesh":
        """Return each mesh moved so that its bounding box is centred on the origin, and scaled evenly.

        Args:
            kind: "box" makes the longest side of the bounding box 1; "sphere" puts the farthest vertex at distance 1.

        Raises:
            ValueError: an unknown kind, or a mesh without extent.
        """
        return self.with_vertices(transforms.normalized(self.vertices, kind))

    def flipped(self) -> "Mesh":
        """Return the mesh with the winding of every face, hence its normals, reversed."""
        uv_faces = None if self.uv_faces is None or self.uv_faces is self.faces else self.uv_faces.flip(-1)
        return self._replace(topology=Topology(self.faces.flip(-1), self.num_vertices), uv_faces=uv_faces)

    def subdivided(self, times: int = 1) -> "Mesh":
        """Return the mesh with each triangle cut into four, ``times`` times; see ``subdivision.subdivided``."""
        from geodiff.scene.subdivision import subdivided

        return subdivided(self, times)

    def unwrapped(self, size: int = 512, padding: int = 2) -> "Mesh":
        """Return the mesh with texture coordinates for a texture of a size; see ``unwrap.unwrapped``."""
        from geodiff.scene.unwrap import unwrapped

        return unwrapped(self, size, padding)

    def remeshed(self, edge_length: Any = None, **options: Any) -> "Mesh":
        """Return a mesh of even triangles over the same surface; see ``remesh.remesh``, which has the arguments."""
        from geodiff.scene.remesh import remeshed

        return remeshed(self, edge_length, **options)

    def self_intersections(self) -> torch.Tensor:
        """Return the (N, 2) pairs of faces that meet where they should not; see ``intersections``."""
        from geodiff.scene.intersections import self_intersections

        return self_intersections(self)

    # --- points of the surface ----------------------------------------------------------------------------------------

    def sample(
        self,
        count: int,
        *,
        seed: int | None = None,
        generator: torch.Generator | None = None,
        normals: str = "flat",
    ) -> "SurfaceSamples":
        """Draw points of the surface with normals and colours, uniform in area; see ``sampling.sample_surface``."""
        from geodiff.scene.sampling import sample_surface

        return sample_surface(self, count, seed=seed, generator=generator, normals=normals)

    def closest_point(self, points: Any) -> "ClosestPoints":
        """Return the nearest to points (..., N, 3) on the surface, with gradients; see ``proximity.closest_point``."""
        from geodiff.scene.proximity import closest_point

        return closest_point(points, self)

    def voxelized(self, resolution: int = 32, *, bounds: Any = None) -> torch.Tensor:
        """Return which centres of a grid's cells are inside, (..., N, N, N); see ``scene.voxelized``."""
        from geodiff.scene.voxels import voxelized

        return voxelized(self, resolution, bounds=bounds)

    # --- quantities -------------------------------------------------------------------------------------------------

    def _quantity(self, name: str, compute: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]) -> torch.Tensor:
        v = self.vertices
        # Under a gradient a cached value would hand out a graph that a backward pass has already freed, in forward mode
        # and torch.func a tangent or a level that ends; an inference tensor cannot tell whether it was written to.
        # While torch.compile traces, nothing is kept either.
        if torch.compiler.is_compiling() or v.requires_grad or v.is_inference() or is_transformed(v):
            return compute(v, self.faces)
        if self._cache_version != v._version:
            self._cache.clear()
            self._cache_version = v._version
        if name not in self._cache:
            with lasting():
                self._cache[name] = compute(v, self.faces)
        return self._cache[name]

    @property
    def face_normals(self) -> torch.Tensor:
        """(..., F, 3) unit normals; 0 for faces of no area. See ``quantities.face_normals``."""
        return self._quantity("face_normals", quantities.face_normals)

    @property
    def face_areas(self) -> torch.Tensor:
        """(..., F) areas. See ``quantities.face_areas``."""
        return self._quantity("face_areas", quantities.face_areas)

    @property
    def vertex_normals(self) -> torch.Tensor:
        """(..., V, 3) unit normals, weighted by area. See ``ops.vertex_normals``."""
        return self.vertex_normals_by(ops)

    def vertex_normals_by(self, backend: ModuleType) -> torch.Tensor:
        """Return `vertex_normals` as `geodiff.ops` or its twin `geodiff.reference` computes them."""
        name = f"{backend.__name__}.vertex_normals"
        return self._quantity(name, lambda vertices, _: backend.vertex_normals(vertices, self.faces_int32))

    @property
    def bounds(self) -> torch.Tensor:
        """(..., 2, 3) least and greatest coordinates over the vertices; where several tie they share the gradient."""
        return transforms.bounds(self.vertices)

    def laplacian(self, kind: str = "uniform", normalized: bool = False) -> torch.Tensor:
        """Return the sparse (V, V) Laplacian, "uniform" or "cotangent". See ``quantities.laplacian``."""
        return quantities.laplacian(self.topology, self.vertices, kind, normalized)

    @property
    def edges(self) -> torch.Tensor:
        """(E, 2) edges, each once, lower vertex first, sorted."""
        return self.topology.edges

    @property
    def edge_faces(self) -> torch.Tensor:
        """(E, 2) faces at each edge, −1 where there is none. See ``Topology.edge_faces``."""
        return self.topology.edge_faces

    @property
    def face_pairs(self) -> torch.Tensor:
        """(P, 2) pairs of faces that share an edge. See ``Topology.face_pairs``."""
        return self.topology.face_pairs

    @property
    def face_pair_edges(self) -> torch.Tensor:
        """(P,) the edge that each of ``face_pairs`` shares."""
        return self.topology.face_pair_edges

    @property
    def boundary_edges(self) -> torch.Tensor:
        """(b, 2) edges with a single face."""
        return self.topology.boundary_edges

    @property
    def vertex_degree(self) -> torch.Tensor:
        """(V,) how many edges meet at each vertex."""
        return self.topology.vertex_degree

    @property
    def adjacency(self) -> torch.Tensor:
        """(V, V) sparse COO, 1 where an edge joins two vertices; faces that share an edge are in ``face_pairs``."""
        both = torch.cat((self.edges, self.edges.flip(1))).T
        ones = torch.ones(both.shape[1], dtype=self.dtype, device=self.device)
        size = (self.num_vertices, self.num_vertices)
        return torch.sparse_coo_tensor(both, ones, size, check_invariants=False).coalesce()

    @property
    def is_closed(self) -> bool:
        """Whether there are faces and no boundary edge."""
        return self.topology.is_closed

    @property
    def euler_characteristic(self) -> int:
        """V − E + F over the vertices in use."""
        return self.topology.euler_characteristic
