# SPDX-License-Identifier: Apache-2.0
import numpy as np
import pytest
import torch
import trimesh
from hypothesis import given
from hypothesis import strategies as st

import geodiff as gd
from geodiff.interop import from_trimesh, from_trimesh_scene, to_trimesh, to_trimesh_scene


@given(st.integers(0, 8), st.integers(0, 5), st.sampled_from([torch.float32, torch.float64]))
def test_trimesh_round_trip(num_vertices: int, num_faces: int, dtype: torch.dtype) -> None:
    num_faces = num_faces if num_vertices else 0
    mesh = gd.Mesh(torch.rand(num_vertices, 3, dtype=dtype), torch.randint(0, max(num_vertices, 1), (num_faces, 3)))
    peer = to_trimesh(mesh)
    assert isinstance(peer, trimesh.Trimesh)
    again = from_trimesh(peer, dtype)
    assert torch.equal(again.vertices, mesh.vertices)
    assert torch.equal(again.faces, mesh.faces)


def test_methods_are_the_functions() -> None:
    peer = trimesh.creation.box()
    mesh = gd.Mesh.from_trimesh(peer)
    assert mesh.dtype == torch.float32
    assert np.array_equal(mesh.faces, peer.faces)
    assert mesh.to_trimesh().is_watertight
    assert gd.interop.to_trimesh is to_trimesh


def test_colors_and_alpha() -> None:
    peer = trimesh.creation.box()
    rgba = np.random.default_rng(0).integers(0, 255, (8, 4), dtype=np.uint8)
    peer.visual.vertex_colors = rgba
    mesh = from_trimesh(peer, torch.float64)
    assert np.allclose(mesh.vertex_colors * 255, rgba)
    assert np.array_equal(to_trimesh(mesh).visual.vertex_colors, rgba)
    rgba[:, 3] = 255
    peer.visual.vertex_colors = rgba
    assert from_trimesh(peer).vertex_colors.shape == (8, 3)


def test_seams_repeat_vertices() -> None:
    mesh = gd.plane(1.0, 1).with_attributes(uv=torch.rand(6, 2), uv_faces=[[0, 1, 2], [3, 4, 5]])
    peer = to_trimesh(mesh)
    assert peer.vertices.shape == (6, 3)
    assert np.allclose(peer.vertices[peer.faces], mesh.vertices[mesh.faces])
    assert np.allclose(peer.visual.uv[peer.faces], mesh.uv[mesh.uv_faces])


def test_what_is_left_out_is_said() -> None:
    with pytest.warns(
        UserWarning, match="to_trimesh: trimesh holds one of vertex_colors, face_colors: only vertex_colors"
    ):
        to_trimesh(gd.box().with_attributes(vertex_colors=torch.rand(8, 3), face_colors=torch.rand(12, 3)))


def test_gradients_are_cut() -> None:
    mesh = gd.Mesh(torch.rand(3, 3, requires_grad=True), [[0, 1, 2]])
    assert np.allclose(to_trimesh(mesh).vertices, mesh.vertices.detach())


def test_messages() -> None:
    with pytest.raises(TypeError, match=r"from_trimesh: `mesh` must be a trimesh.Trimesh.*Join the meshes of a Scene"):
        from_trimesh(trimesh.Scene())
    with pytest.raises(TypeError, match="to_trimesh: `mesh` must be a Mesh"):
        to_trimesh(trimesh.creation.box())
    with pytest.raises(ValueError, match="to_trimesh: `mesh` must be one mesh; got a batch"):
        to_trimesh(gd.box().with_vertices(torch.rand(2, 8, 3)))
    batched = gd.box().with_vertices(torch.rand(2, 8, 3)).with_attributes(vertex_colors=torch.rand(2, 8, 3))
    assert to_trimesh(batched[0]).visual.kind == "vertex"


def test_scene_there_and_back() -> None:
    camera = gd.Camera.orbit(3.0, 20, 130, fov_deg=50).to(dtype=torch.float64)
    meshes = {"ball": gd.icosphere(1), "box": gd.box()}
    scene = to_trimesh_scene(meshes, camera, (48, 64))
    again, back = from_trimesh_scene(scene, torch.float64)
    assert list(again) == ["ball", "box"]
    for name, mesh in meshes.items():
        assert torch.equal(again[name].vertices.float(), mesh.vertices) and torch.equal(again[name].faces, mesh.faces)
    points = torch.rand(9, 3).double()
    assert back is not None
    assert torch.allclose(back.project(points, (48, 64)), camera.project(points, (48, 64)), atol=1e-9)


def test_scene_keeps_textures() -> None:
    pixels, corners = torch.randint(0, 256, (4, 6, 3)) / 255, [[3, 4, 5], [0, 2, 1]]
    mesh = gd.plane(1.0, 1).with_attributes(uv=torch.rand(6, 2), uv_faces=corners, texture=pixels)
    again = from_trimesh_scene(to_trimesh_scene({"sheet": mesh, "box": gd.box()}))[0]
    assert torch.allclose(again["sheet"].texture.image, pixels) and again["box"].texture is None
    assert torch.equal(again["sheet"].uv[again["sheet"].uv_faces], mesh.uv[mesh.uv_faces])


def test_scene_camera_sees_what_trimesh_sees() -> None:
    # The ray that trimesh sends through the middle of each pixel must come back to it.
    scene = to_trimesh_scene(gd.box(), gd.Camera.orbit(3.0, 20, 130, fov_deg=50), (6, 8))
    origins, directions, pixels = scene.camera_rays()
    _, camera = from_trimesh_scene(scene, torch.float64)
    seen = camera.project(torch.from_numpy(np.array(origins + 2 * directions)), (6, 8))[:, :2].numpy()
    # It counts rows from below.
    assert np.allclose(seen, np.stack((pixels[:, 0] + 0.5, 5.5 - pixels[:, 1]), axis=-1), atol=1e-9)


def test_meshes_of_a_scene_stand_in_the_world() -> None:
    scene = trimesh.Scene()
    box = trimesh.creation.box()
    scene.add_geometry(box, node_name="here", geom_name="box")
    far = trimesh.transformations.translation_matrix([5, 0, 0])
    scene.add_geometry(box, node_name="there", geom_name="box2", transform=far)
    scene.add_geometry(trimesh.PointCloud(np.zeros((4, 3))))
    meshes, camera = from_trimesh_scene(scene)
    assert set(meshes) == {"here", "there"} and camera is None
    assert meshes["there"].bounds.mean(0).tolist() == [5, 0, 0]


def test_batches_make_scenes() -> None:
    pair = gd.MeshBatch([gd.box(), gd.icosphere(0)])
    moved = gd.box().with_vertices(gd.box().vertices + torch.arange(3)[:, None, None])
    assert list(to_trimesh_scene(pair).geometry) == ["mesh_0", "mesh_1"]
    assert len(to_trimesh_scene(moved).geometry) == 3 and len(to_trimesh_scene(gd.box()).geometry) == 1


def test_scene_messages() -> None:
    camera = gd.Camera.orbit(3.0)
    with pytest.raises(TypeError, match=r"from_trimesh_scene: `scene` must be a trimesh.Scene"):
        from_trimesh_scene(trimesh.creation.box())
    with pytest.raises(TypeError, match="to_trimesh_scene: `meshes` must be a Mesh, a MeshBatch or a dictionary"):
        to_trimesh_scene([gd.box()])
    with pytest.raises(ValueError, match="`camera` must be one camera; got a batch"):
        to_trimesh_scene(gd.box(), gd.Camera.orbit(3.0, 0.0, torch.zeros(2)))
    with pytest.raises(
        ValueError, match="`camera` must be a perspective camera with its principal point in the middle"
    ):
        to_trimesh_scene(gd.box(), gd.Camera.orthographic())
    assert to_trimesh_scene(gd.box(), camera, 32).camera.resolution.tolist() == [32, 32]
