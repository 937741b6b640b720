# SPDX-License-Identifier: Apache-2.0
"""Open3D: with stand-ins that carry its fields, and the real thing where it is installed."""

import pathlib
import sys
import types
from typing import Any

import numpy as np
import pytest
import torch

import geodiff as gd
from geodiff.interop import Points, from_open3d, points_from_open3d, points_to_open3d, to_open3d


class TriangleMesh:
    def __init__(self, vertices: Any = (), triangles: Any = ()) -> None:
        self.vertices, self.triangles = vertices, triangles
        self.vertex_colors: Any = ()
        self.triangle_uvs: Any = ()
        self.textures: Any = ()
        self.triangle_material_ids: Any = ()


class PointCloud:
    def __init__(self, points: Any = ()) -> None:
        self.points, self.colors, self.normals = points, (), ()


@pytest.fixture(params=["stand-in", "open3d"])
def open3d(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Any:
    if request.param == "open3d":
        return pytest.importorskip("open3d", exc_type=ImportError)
    module = types.ModuleType("open3d")
    module.geometry = types.SimpleNamespace(TriangleMesh=TriangleMesh, PointCloud=PointCloud, Image=np.array)  # type: ignore
    vectors = ("Vector3dVector", "Vector3iVector", "Vector2dVector", "IntVector")
    module.utility = types.SimpleNamespace(**dict.fromkeys(vectors, np.array))  # type: ignore
    monkeypatch.setitem(sys.modules, "open3d", module)
    return module


def test_meshes_there_and_back(open3d: Any) -> None:
    mesh = gd.icosphere(1, dtype=torch.float64).with_attributes(vertex_colors=torch.rand(42, 3))
    theirs = to_open3d(mesh)
    assert isinstance(theirs, open3d.geometry.TriangleMesh)
    assert np.array_equal(np.asarray(theirs.vertices), mesh.vertices)
    again = from_open3d(theirs, torch.float64)
    assert torch.equal(again.vertices, mesh.vertices) and torch.equal(again.faces, mesh.faces)
    assert torch.equal(again.vertex_colors, mesh.vertex_colors) and again.uv is None
    assert from_open3d(theirs).dtype == torch.float32
    empty = from_open3d(to_open3d(gd.Mesh(torch.zeros(0, 3), torch.zeros(0, 3, dtype=torch.int64))))
    assert empty.num_vertices == empty.num_faces == 0


def test_corners_keep_their_coordinates(open3d: Any) -> None:
    mesh = gd.plane(1.0, 1).with_attributes(uv=torch.rand(6, 2), uv_faces=[[3, 4, 5], [0, 2, 1]])
    again = from_open3d(to_open3d(mesh))
    assert torch.equal(again.uv[again.uv_faces], mesh.uv[mesh.uv_faces])


def textured(channels: int = 3, **modes: Any) -> gd.Mesh:
    pixels = torch.randint(0, 256, (4, 6, channels)) / 255
    corners = {"uv": torch.rand(6, 2), "uv_faces": [[3, 4, 5], [0, 2, 1]]}
    return gd.plane(1.0, 1).with_attributes(texture=gd.Texture(pixels, **modes), **corners)


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_textures_there_and_back(open3d: Any, channels: int) -> None:
    mesh = textured(channels)
    theirs = to_open3d(mesh)
    again = from_open3d(theirs)
    assert torch.allclose(again.texture.image, mesh.texture.image, atol=1e-6)
    # Their row 0 is at the bottom.
    bottom = np.asarray(theirs.textures[0])[0].reshape(6, channels)
    assert np.array_equal(bottom, (mesh.texture.image[-1] * 255).round().byte())
    with pytest.warns(UserWarning, match="to_open3d: the wrap 'clamp' of texture left out"):
        to_open3d(textured(wrap="clamp"))


def test_files_have_the_same_texture(tmp_path: pathlib.Path) -> None:
    # Of the same file both readers must make the same texture, right way up.
    open3d = pytest.importorskip("open3d", exc_type=ImportError)
    mesh = textured()
    mesh.save(tmp_path / "mesh.obj")
    for read in (open3d.io.read_triangle_mesh, open3d.t.io.read_triangle_mesh):
        again = from_open3d(read(str(tmp_path / "mesh.obj")))
        assert torch.allclose(again.texture.image, mesh.texture.image, atol=1e-6)
        assert torch.allclose(again.uv[again.uv_faces], mesh.uv[mesh.uv_faces], atol=1e-5)
    open3d.io.write_triangle_mesh(str(tmp_path / "theirs.obj"), to_open3d(mesh))
    again = gd.Mesh.load(tmp_path / "theirs.obj")
    assert torch.allclose(again.texture.image, mesh.texture.image, atol=1e-6)


def test_clouds_there_and_back(open3d: Any) -> None:
    cloud = Points(torch.rand(9, 3), torch.rand(9, 3), torch.rand(9, 3))
    again = points_from_open3d(points_to_open3d(cloud))
    assert all(torch.equal(a, b) for a, b in zip(again, cloud, strict=True))
    bare = points_from_open3d(points_to_open3d(np.zeros((4, 3))), torch.float64)
    assert bare.positions.shape == (4, 3) and bare.colors is None and bare.normals is None
    assert bare.positions.dtype == torch.float64


def test_what_is_left_out_is_said(open3d: Any) -> None:
    mesh = gd.box().with_attributes(vertex_colors=torch.rand(8, 4), face_colors=torch.rand(12, 3))
    with pytest.warns(UserWarning, match="to_open3d: face_colors, the alpha of vertex_colors left out"):
        assert torch.equal(from_open3d(to_open3d(mesh)).vertex_colors, mesh.vertex_colors[:, :3])
    with pytest.warns(UserWarning, match="to_open3d: vertex_colors of 1 channels left out"):
        to_open3d(gd.box().with_attributes(vertex_colors=torch.rand(8, 1)))
    theirs = to_open3d(gd.Mesh(torch.eye(3), [[0, 1, 2]], uv=torch.rand(3, 2), texture=torch.rand(2, 2, 3)))
    theirs.textures = [*theirs.textures, theirs.textures[0]]
    # The faces name the first alone; where they name none, there is no telling.
    assert from_open3d(theirs).texture is not None
    theirs.triangle_material_ids = open3d.utility.IntVector([])
    with pytest.warns(UserWarning, match="from_open3d: 2 textures left out; a Mesh holds one"):
        assert from_open3d(theirs).texture is None


def test_tensor_geometry() -> None:
    theirs = types.SimpleNamespace(to_legacy=lambda: TriangleMesh(np.eye(3), [[0, 1, 2]]))
    assert from_open3d(theirs).num_faces == 1
    cloud = types.SimpleNamespace(to_legacy=lambda: PointCloud(np.eye(3)))
    assert torch.equal(points_from_open3d(cloud).positions, torch.eye(3))


def test_messages(open3d: Any) -> None:
    with pytest.raises(TypeError, match="from_open3d: `mesh` must be an Open3D TriangleMesh"):
        from_open3d("mesh")
    with pytest.raises(TypeError, match="to_open3d: `mesh` must be a Mesh"):
        to_open3d("mesh")
    with pytest.raises(ValueError, match="to_open3d: `mesh` must be one mesh; got a batch"):
        to_open3d(gd.box().with_vertices(torch.rand(2, 8, 3)))
    with pytest.raises(TypeError, match="points_from_open3d: `cloud` must be an Open3D PointCloud"):
        points_from_open3d("cloud")
    with pytest.raises(ValueError, match=r"`positions` must be of shape \(N, 3\)"):
        points_to_open3d(torch.rand(4, 2))
    with pytest.raises(ValueError, match=r"`normals` must be of shape \(4, 3\)"):
        points_to_open3d(torch.rand(4, 3), normals=torch.rand(5, 3))


def test_absence_is_explained(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "open3d", None)
    for call in (lambda: to_open3d(gd.box()), lambda: points_to_open3d(torch.rand(4, 3))):
        with pytest.raises(ImportError, match=r"Open3D is not usable here .*pip install 'geodiff\[open3d\]'"):
            call()
