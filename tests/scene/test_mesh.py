# SPDX-License-Identifier: Apache-2.0
import copy
import math
import pickle

import numpy as np
import pytest
import torch
from torch.autograd import gradcheck

import geodiff as gd

FACES = torch.tensor([[0, 1, 2], [0, 2, 3]])


def square(**attributes) -> gd.Mesh:
    return gd.Mesh(torch.tensor([[0.0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0]]), FACES, **attributes)


def dressed() -> gd.Mesh:
    return square(
        vertex_colors=torch.rand(4, 3),
        uv=torch.rand(5, 2),
        uv_faces=torch.tensor([[0, 1, 2], [4, 2, 3]]),
        face_colors=torch.rand(2, 3),
        texture=torch.rand(6, 7, 3),
    )


# --- what comes in --------------------------------------------------------------------------------


def test_arrays_and_lists_are_taken_and_copied() -> None:
    vertices = np.random.default_rng(0).random((4, 3))
    vertices.flags.writeable = False
    mesh = gd.Mesh(vertices, [[0, 1, 2]])
    assert mesh.dtype == torch.float64
    assert np.array_equal(mesh.vertices, vertices)
    big_endian = gd.Mesh(vertices.astype(">f4")[::-1], np.array([[0, 1, 2]], dtype=np.uint32))
    assert big_endian.dtype == torch.float32
    assert np.array_equal(big_endian.vertices, vertices[::-1].astype(np.float32))
    assert big_endian.faces.dtype == torch.int64


def test_attributes_promote_to_the_widest_dtype() -> None:
    mesh = square(vertex_colors=torch.rand(4, 3, dtype=torch.float64))
    assert mesh.dtype == torch.float64
    assert mesh.to(dtype=torch.float32).vertex_colors.dtype == torch.float32


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (
            {"vertices": torch.tensor([[math.nan, 0, 0]] * 4)},
            ValueError,
            r"`vertices` must be finite; got nan at index \(0, 0\)",
        ),
        ({"vertices": torch.full((4, 3), math.inf)}, ValueError, r"`vertices` must be finite; got inf"),
        (
            {"vertices": torch.zeros(4, 2)},
            ValueError,
            r"`vertices` must be of shape \(..., V, 3\); got float32 of shape \(4, 2\)",
        ),
        (
            {"vertices": torch.zeros(4, 3).half()},
            TypeError,
            r"`vertices` must be float32 or float64.*Convert it with .float\(\)",
        ),
        ({"vertices": torch.zeros(4, 3).long()}, TypeError, r"`vertices` must be a floating tensor"),
        ({"vertices": "ball.obj"}, TypeError, r"`vertices` must be a tensor or an array of numbers; got str"),
        ({"vertices": [["a"]]}, TypeError, r"`vertices` must be a tensor or an array of numbers"),
        ({"faces": torch.tensor([[0.0, 1, 2]])}, TypeError, r"`faces` must be an integer tensor of shape \(F, 3\)"),
        ({"faces": torch.tensor([[0, 1, 2, 3]])}, ValueError, "Triangulate quads with Mesh.triangulated"),
        ({"faces": torch.tensor([[0, 1, 4]])}, ValueError, r"indices in \[0, 4\)"),
        ({"faces": FACES.to("meta")}, RuntimeError, r"`faces` must be on cpu like the vertices; got meta"),
        ({"vertex_colors": torch.rand(3, 3)}, ValueError, r"`vertex_colors` must be of shape \(..., 4, C\)"),
        (
            {"vertex_colors": torch.rand(5, 4, 3)},
            ValueError,
            r"`vertex_colors` must be without a batch, or with the batch \(\)",
        ),
        ({"face_colors": torch.rand(4, 3)}, ValueError, r"`face_colors` must be of shape \(..., 2, C\)"),
        ({"face_colors": torch.rand(2, 3).to("meta")}, RuntimeError, r"`face_colors` must be on cpu"),
        (
            {"uv": torch.rand(5, 2)},
            ValueError,
            r"`uv` must be of shape \(..., 4, 2\), one for each vertex.*Pass uv_faces",
        ),
        ({"uv": torch.rand(4, 3)}, ValueError, r"`uv` must be of shape \(..., T, 2\)"),
        ({"uv_faces": FACES}, ValueError, "`uv` must be given with `uv_faces`"),
        (
            {"uv": torch.rand(4, 2), "uv_faces": FACES[:1]},
            ValueError,
            r"`uv_faces` must be an integer tensor of shape \(2, 3\)",
        ),
        ({"uv": torch.rand(3, 2), "uv_faces": FACES}, ValueError, r"`uv_faces` must be indices in \[0, 3\)"),
        ({"texture": torch.rand(4, 4, 3)}, ValueError, "`uv` must be given with `texture`"),
        (
            {"texture": torch.rand(4, 4), "uv": torch.rand(4, 2)},
            ValueError,
            r"`texture` must be of shape \(..., H, W, C\)",
        ),
    ],
)
def test_bad_arguments(arguments: dict, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        gd.Mesh(**{"vertices": torch.rand(4, 3), "faces": FACES, **arguments})


def test_triangulated() -> None:
    angle = torch.arange(6) * torch.pi / 3
    v = torch.stack((angle.cos(), angle.sin(), 0 * angle), -1)
    assert gd.Mesh.triangulated(v, torch.tensor([[0, 1, 2, 3], [2, 3, 4, 5]])).faces.tolist() == [
        [0, 1, 2],
        [0, 2, 3],
        [2, 3, 4],
        [2, 4, 5],
    ]
    mixed = gd.Mesh.triangulated(v, [[0, 1, 2], [5, 4, 3, 2, 1], [0, 1, 2, 3]])
    assert mixed.faces.tolist() == [[0, 1, 2], [5, 4, 3], [5, 3, 2], [5, 2, 1], [0, 1, 2], [0, 2, 3]]
    assert gd.Mesh.triangulated(v, []).num_faces == 0
    assert gd.Mesh.triangulated(v, np.array([[0, 1, 2]]), vertex_colors=torch.rand(6, 3)).vertex_colors is not None
    with pytest.raises(ValueError, match=r"of three or more vertices; got 2 in polygon 1"):
        gd.Mesh.triangulated(v, [[0, 1, 2], [3, 4]])
    with pytest.raises(TypeError, match=r"Mesh.triangulated: `polygons` must be sequences of integers"):
        gd.Mesh.triangulated(v, [[0.0, 1, 2]])
    with pytest.raises(TypeError, match=r"Mesh.triangulated: `polygons` must be an integer tensor of shape \(F, n\)"):
        gd.Mesh.triangulated(v, torch.rand(2, 4))


# --- caches ---------------------------------------------------------------------------------------


def test_topology_is_shared_and_quantities_are_kept() -> None:
    mesh = gd.icosphere(1)
    edges = mesh.edges
    moved = mesh.with_vertices(2 * mesh.vertices)
    assert moved.edges is edges
    assert moved.face_pairs is mesh.face_pairs
    assert mesh.face_areas is mesh.face_areas
    assert torch.allclose(moved.face_areas, 4 * mesh.face_areas)


def test_writing_to_the_vertices_refreshes_the_cache() -> None:
    mesh = gd.icosphere(0)
    before = mesh.face_areas
    mesh.vertices.mul_(2.0)
    assert torch.allclose(mesh.face_areas, 4 * before)


def test_a_training_loop_sees_fresh_gradients() -> None:
    """One mesh, its vertices updated in place: no freed graph, no stale value, no value cached without its graph."""
    v = gd.icosphere(0).vertices.clone().requires_grad_()
    mesh = gd.Mesh(v, gd.icosphere(0).faces)
    with torch.no_grad():
        assert not mesh.face_areas.requires_grad
    optimizer = torch.optim.SGD([v], lr=0.01)
    areas = []
    for _ in range(3):
        optimizer.zero_grad()
        mesh.face_areas.sum().backward()
        (mesh.face_areas.sum() + mesh.vertex_normals.sum()).backward()
        optimizer.step()
        areas.append(mesh.face_areas.sum().item())
    assert areas[0] > areas[1] > areas[2]


def test_inference_mode() -> None:
    with torch.inference_mode():
        mesh = gd.icosphere(0).translated((1.0, 0, 0))
        assert torch.allclose(mesh.face_areas, gd.icosphere(0).face_areas)


def test_copies() -> None:
    mesh = dressed()
    assert mesh.edges.shape == (5, 2)
    for twin in (copy.deepcopy(mesh), pickle.loads(pickle.dumps(mesh)), mesh.clone()):
        assert torch.equal(twin.vertices, mesh.vertices)
        assert torch.equal(twin.edges, mesh.edges)
        assert torch.equal(twin.texture.image, mesh.texture.image)
        assert twin.vertices.data_ptr() != mesh.vertices.data_ptr()


# --- new meshes -----------------------------------------------------------------------------------


def test_with_vertices_keeps_the_rest() -> None:
    mesh = dressed()
    other = mesh.with_vertices(torch.rand(2, 4, 3, dtype=torch.float64))
    assert other.batch_shape == (2,)
    assert other.vertex_colors.dtype == torch.float64
    assert torch.equal(other.uv_faces, mesh.uv_faces)
    with pytest.raises(ValueError, match=r"Mesh.with_vertices: `vertices` must be of shape \(..., 4, 3\)"):
        mesh.with_vertices(torch.rand(5, 3))
    with pytest.raises(ValueError, match=r"Mesh.with_vertices: `vertices` must be finite"):
        mesh.with_vertices(torch.full((4, 3), math.nan))
    with pytest.raises(RuntimeError, match=r"`vertices` must be on cpu"):
        mesh.with_vertices(torch.rand(4, 3).to("meta"))
    with pytest.raises(ValueError, match=r"`vertices` must be of shape \(..., 4, 3\) as in the topology"):
        gd.Mesh(torch.rand(5, 3), mesh.topology)


def test_with_attributes() -> None:
    mesh = dressed()
    assert mesh.with_attributes(vertex_colors=None).vertex_colors is None
    bare = mesh.with_attributes(uv=None, texture=None)
    assert bare.uv_faces is None
    assert mesh.with_attributes(uv=torch.rand(4, 2)).uv_faces is mesh.faces
    with pytest.raises(ValueError, match=r"Mesh.with_attributes: `attributes` must be one of.*Did you mean 'texture'"):
        mesh.with_attributes(textures=None)


def test_with_a_new_texture_alone() -> None:
    mesh = dressed()
    image = torch.rand(3, 2, 3, requires_grad=True)
    normals = mesh.vertex_normals
    textured = mesh.with_attributes(texture=image)
    assert textured.texture is not None and textured.texture.image is image and mesh.texture is not textured.texture
    assert textured.vertices is mesh.vertices and textured.uv is mesh.uv and textured.vertex_normals is normals
    textured.vertices.add_(1.0)  # both look again, each for itself
    assert textured.vertex_normals is not normals and torch.equal(textured.vertex_normals, mesh.vertex_normals)
    clamped = gd.Texture(image, wrap="clamp")
    assert mesh.with_attributes(texture=clamped).texture is clamped
    assert mesh.with_attributes(texture=image.double()).vertices.dtype == torch.float64
    with pytest.raises(ValueError, match=r"Mesh: `texture` must be of shape \(\.\.\., H, W, C\)"):
        mesh.with_attributes(texture=torch.rand(3))
    with pytest.raises(ValueError, match="Texture: `image` must be finite"):
        mesh.with_attributes(texture=torch.full((2, 2, 3), math.nan))
    with pytest.raises(ValueError, match="batch"):
        mesh.with_vertices(torch.rand(3, 4, 3)).with_attributes(texture=torch.rand(2, 2, 2, 3))
    with pytest.raises(ValueError, match="`uv` must be given with `texture`"):
        square().with_attributes(texture=image)


def test_batches_index_and_iterate() -> None:
    mesh = dressed().with_vertices(torch.rand(3, 4, 3)).with_attributes(vertex_colors=torch.rand(3, 4, 3))
    assert [part.vertices.shape for part in mesh] == [(4, 3)] * 3
    assert torch.equal(mesh[2].vertex_colors, mesh.vertex_colors[2])
    assert mesh[1:].vertices.shape == (2, 4, 3)
    assert mesh[[0, 2]].vertex_colors.shape == (2, 4, 3)
    assert mesh[0].topology is mesh.topology
    with pytest.raises(TypeError, match=r"`index` must be used on a batch \(B, V, 3\)"):
        square()[0]
    with pytest.raises(TypeError, match=r"`mesh` must be a batch \(B, V, 3\) to iterate"):
        list(square())


def test_transforms_against_the_matrix() -> None:
    mesh = gd.box((1.0, 2.0, 3.0), dtype=torch.float64)
    angle = torch.tensor(0.3, dtype=torch.float64)
    c, s = angle.cos(), angle.sin()
    R = torch.tensor([[c, -s, 0], [s, c, 0], [0, 0, 1]], dtype=torch.float64)
    matrix = torch.eye(4, dtype=torch.float64)
    matrix[:3, :3] = R @ torch.diag(torch.tensor([2.0, 3.0, 4.0], dtype=torch.float64))
    matrix[:3, 3] = torch.tensor([1.0, -2.0, 0.5])
    step = mesh.scaled((2.0, 3.0, 4.0)).rotated(R).translated((1.0, -2.0, 0.5))
    whole = mesh.transformed(matrix)
    peer = mesh.to_trimesh().apply_transform(matrix.numpy())
    assert np.allclose(step.vertices, peer.vertices)
    assert np.allclose(whole.vertices, peer.vertices)
    assert torch.equal(mesh.scaled(2.0).vertices, 2 * mesh.vertices)
    many = mesh.translated(torch.rand(5, 3)).scaled(torch.rand(5, 1))
    assert many.vertices.shape == (5, 8, 3)
    assert mesh.transformed(matrix.expand(2, 4, 4)).vertices.shape == (2, 8, 3)


def test_transform_gradients() -> None:
    mesh = gd.box(dtype=torch.float64)
    offset = torch.rand(3, dtype=torch.float64, requires_grad=True)
    factor = torch.rand(3, dtype=torch.float64, requires_grad=True)
    assert gradcheck(lambda o, f: mesh.scaled(f).translated(o).normalized("sphere").vertices, (offset, factor))


def test_transform_messages() -> None:
    mesh = gd.box()
    with pytest.raises(ValueError, match=r"Mesh.translated: `offset` must be of shape \(..., 3\)"):
        mesh.translated((1.0, 2.0))
    with pytest.raises(
        ValueError, match=r"Mesh.scaled: `factor` must be a number, \(..., 1\) or \(..., 3\).*factor\[:, None\]"
    ):
        mesh.scaled(torch.rand(5))
    with pytest.raises(ValueError, match=r"Mesh.rotated: `rotation` must be of shape \(..., 3, 3\)"):
        mesh.rotated(torch.eye(4))
    with pytest.raises(ValueError, match=r"Mesh.transformed: `matrix` must be affine, its last row"):
        mesh.transformed(2 * torch.eye(4))
    with pytest.raises(ValueError, match=r"Mesh.normalized: `kind` must be one of box, sphere"):
        mesh.normalized("cube")
    with pytest.raises(ValueError, match=r"Mesh.normalized: `mesh` must be of some extent"):
        mesh.scaled(0.0).normalized()
    with pytest.raises(ValueError, match=r"Mesh.bounds: `mesh` must be of at least one vertex"):
        _ = gd.Mesh(torch.zeros(0, 3), []).bounds
    with pytest.raises(ValueError, match=r"Mesh.translated: `offset` must be finite"):
        mesh.translated((math.nan, 0, 0))


def test_normalized() -> None:
    mesh = gd.box((1.0, 2.0, 4.0)).translated((5.0, 5.0, 5.0))
    box = mesh.normalized()
    assert torch.allclose(box.bounds, torch.tensor([[-0.125, -0.25, -0.5], [0.125, 0.25, 0.5]]))
    sphere = mesh.normalized("sphere")
    assert torch.allclose(torch.linalg.norm(sphere.vertices, dim=-1).max(), torch.tensor(1.0))


def test_flipped_turns_the_normals() -> None:
    mesh = dressed()
    flipped = mesh.flipped()
    assert torch.allclose(flipped.face_normals, -mesh.face_normals)
    assert torch.equal(flipped.uv_faces, mesh.uv_faces.flip(-1))
    plain = gd.plane(1.0, 2)
    assert torch.equal(plain.flipped().uv_faces, plain.faces.flip(-1))


def test_detach_and_requires_grad() -> None:
    v = torch.rand(4, 3, requires_grad=True)
    mesh = gd.Mesh(v, FACES)
    assert mesh.face_normals.requires_grad
    assert not mesh.detach().face_normals.requires_grad


def test_to_moves_everything() -> None:
    mesh = dressed()
    assert mesh.edges is not None
    moved = mesh.topology.to("meta")
    assert moved.faces.device.type == "meta"
    assert mesh.to("cpu").topology is mesh.topology
    assert mesh.to(dtype=torch.float64).texture.dtype == torch.float64


def test_layout_for() -> None:
    assert square().layout_for(3).tolist() == [[0, 0, 2], [4, 0, 2], [8, 0, 2]]
    assert square().layout_for(3).dtype == torch.int64


def test_repr() -> None:
    assert repr(square()) == "Mesh(vertices=(4, 3), faces=(2, 3), float32, cpu)"
    assert repr(dressed()) == (
        "Mesh(vertices=(4, 3), faces=(2, 3), vertex_colors=(4, 3), uv=(5, 2), face_colors=(2, 3), "
        "texture=(6, 7, 3), float32, cpu)"
    )


# --- packed batches -------------------------------------------------------------------------------


def test_mesh_batch_packs_and_unpacks() -> None:
    meshes = [gd.icosphere(0), gd.Mesh(torch.rand(2, 3), []), dressed()]
    batch = gd.MeshBatch(meshes)
    assert batch.layout.tolist() == [[0, 0, 20], [12, 20, 0], [14, 20, 2]]
    assert len(batch) == 3
    assert batch.vertex_batch.tolist() == [0] * 12 + [1] * 2 + [2] * 4
    for i, (start, face_start, count) in enumerate(batch.layout.tolist()):
        assert torch.equal(batch.faces[face_start : face_start + count], meshes[i].faces)
        assert torch.equal(batch.vertices[start : start + meshes[i].num_vertices], batch[i].vertices)
    assert torch.equal(batch[-1].texture.image, meshes[2].texture.image)
    assert [m.num_faces for m in batch] == [20, 0, 2]
    assert repr(batch) == "MeshBatch(3 meshes, vertices=(18, 3), faces=(22, 3), float32, cpu)"
    assert batch.to(dtype=torch.float64).vertices.dtype == torch.float64


def test_mesh_batch_with_vertices_carries_the_gradient() -> None:
    batch = gd.MeshBatch([gd.icosphere(0), gd.box()])
    v = batch.vertices.clone().requires_grad_()
    moved = batch.with_vertices(v)
    moved[1].face_areas.sum().backward()
    assert (v.grad[:12] == 0).all()
    assert (v.grad[12:] != 0).any()
    assert moved[0].topology is batch[0].topology


def test_mesh_batch_messages() -> None:
    with pytest.raises(ValueError, match=r"MeshBatch: `meshes` must be one or more meshes; got none"):
        gd.MeshBatch([])
    with pytest.raises(TypeError, match=r"MeshBatch: `meshes` must be a sequence of Mesh"):
        gd.MeshBatch([torch.rand(3, 3)])
    with pytest.raises(ValueError, match=r"`meshes` must be single meshes.*Pass \[\*mesh\]"):
        gd.MeshBatch([square().with_vertices(torch.rand(2, 4, 3))])
    with pytest.raises(ValueError, match=r"MeshBatch.with_vertices: `vertices` must be of shape \(4, 3\)"):
        gd.MeshBatch([square()]).with_vertices(torch.rand(5, 3))


def test_adjacency_has_the_edges_both_ways():
    mesh = gd.box()
    dense = mesh.adjacency.to_dense()
    assert torch.equal(dense, dense.T) and dense.diagonal().abs().max() == 0
    assert torch.equal(dense.sum(1).long(), mesh.vertex_degree)
    pairs = {tuple(sorted(pair)) for pair in dense.nonzero().tolist()}
    assert pairs == {tuple(sorted(pair)) for pair in mesh.to_trimesh().edges_unique.tolist()}


def test_a_dtype_may_come_first() -> None:
    mesh = gd.box()
    assert mesh.to(torch.float64).dtype == mesh.to(dtype=torch.float64).dtype == torch.float64
    assert gd.MeshBatch([mesh, mesh]).to(torch.float64)[0].dtype == torch.float64
    assert gd.Camera.orbit(2.0).to(torch.float64).rotation.dtype == torch.float64
    with pytest.raises(TypeError, match=r"Mesh\.to: `dtype` must be torch\.float32 or torch\.float64"):
        mesh.to(torch.float16)


def test_whole_numbers_in_a_list_are_coordinates() -> None:
    mesh = gd.Mesh([[0, 0, 0], [1, 0, 0], [0, 1, 0]], [[0, 1, 2]])
    assert mesh.dtype == torch.float32 and float(mesh.vertices[1, 0]) == 1.0
    with pytest.raises(TypeError, match="Mesh: `vertices` must be a floating tensor"):
        gd.Mesh(torch.zeros(3, 3, dtype=torch.int64), [[0, 1, 2]])
