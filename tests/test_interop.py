# SPDX-License-Identifier: Apache-2.0
import numpy as np
import pytest
import torch
import trimesh
from hypothesis import given
from hypothesis import strategies as st

import geodiff as gd
from geodiff.interop import from_trimesh, to_trimesh


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
