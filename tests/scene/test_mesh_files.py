# SPDX-License-Identifier: Apache-2.0
import pathlib
import re
import warnings

import numpy as np
import pytest
import torch
import trimesh
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import geodiff as gd
from geodiff.scene import mesh_files
from geodiff.scene.atomic import replacing
from geodiff.scene.attributes import seams_split
from geodiff.scene.images import read_image, write_image

FORMATS = ("obj", "ply", "stl", "glb")
# Colours are stored in 8 bits by all but OBJ.
BYTE = 0.5 / 255 + 1e-6


def cube_corner(**attributes) -> gd.Mesh:
    """Three faces of a cube; one vertex more is in no face."""
    v = torch.tensor([[9.0, 9, 9], [0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1]])
    return gd.Mesh(v, [[1, 3, 2], [4, 1, 2], [3, 1, 4]], **attributes)


# --- round trips -----------------------------------------------------------------------


@pytest.mark.parametrize("ending", FORMATS)
def test_round_trip(tmp_path: pathlib.Path, ending: str) -> None:
    mesh = gd.torus(nu=7, nv=5).with_vertices(torch.rand(35, 3))
    mesh.save(tmp_path / f"mesh.{ending}")
    again = gd.Mesh.load(str(tmp_path / f"mesh.{ending}"))
    if ending == "stl":
        # STL has no vertices of its own: the same triangles in the same order, joined again.
        assert again.num_vertices == mesh.num_vertices
        assert again.is_closed
    else:
        assert torch.equal(again.vertices, mesh.vertices)
        assert torch.equal(again.faces, mesh.faces)
    assert torch.equal(again.vertices[again.faces], mesh.vertices[mesh.faces])
    assert again.dtype == torch.float32


@pytest.mark.parametrize("ending", ["obj", "ply", "glb"])
def test_vertices_in_no_face_and_doubled_vertices_stay(tmp_path: pathlib.Path, ending: str) -> None:
    mesh = cube_corner()
    mesh = gd.Mesh(torch.cat((mesh.vertices, mesh.vertices)), torch.cat((mesh.faces, mesh.faces + 5)))
    mesh.save(tmp_path / f"mesh.{ending}")
    again = gd.Mesh.load(tmp_path / f"mesh.{ending}")
    assert torch.equal(again.vertices, mesh.vertices)
    assert torch.equal(again.faces, mesh.faces)
    assert gd.Mesh.load(tmp_path / f"mesh.{ending}", weld=True).num_vertices == 5


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=30)
@given(st.lists(st.floats(allow_nan=False, allow_infinity=False, width=32), min_size=9, max_size=9), st.booleans())
def test_obj_numbers_come_back_bit_for_bit(tmp_path: pathlib.Path, numbers: list[float], wide: bool) -> None:
    dtype = torch.float64 if wide else torch.float32
    v = torch.tensor(numbers, dtype=dtype).reshape(3, 3) * (1 / 3 if wide else 1)
    gd.Mesh(v, [[0, 1, 2]]).save(tmp_path / "mesh.obj")
    again = gd.Mesh.load(tmp_path / "mesh.obj", dtype=dtype)
    assert torch.equal(again.vertices, v)


@pytest.mark.parametrize("ending", ["obj", "ply", "glb"])
def test_vertex_colors(tmp_path: pathlib.Path, ending: str) -> None:
    mesh = cube_corner(vertex_colors=torch.rand(5, 3))
    mesh.save(tmp_path / f"mesh.{ending}")
    again = gd.Mesh.load(tmp_path / f"mesh.{ending}")
    assert again.vertex_colors.shape == (5, 3)
    assert torch.allclose(again.vertex_colors, mesh.vertex_colors, atol=1e-7 if ending == "obj" else BYTE)


def test_face_colors_in_ply(tmp_path: pathlib.Path) -> None:
    mesh = cube_corner(face_colors=torch.rand(3, 3))
    mesh.save(tmp_path / "mesh.ply")
    assert torch.allclose(gd.Mesh.load(tmp_path / "mesh.ply").face_colors, mesh.face_colors, atol=BYTE)


def textured(channels: int = 3) -> gd.Mesh:
    texture = torch.randint(0, 256, (6, 5, channels)) / 255
    uv_faces = [[0, 1, 2], [3, 0, 1], [4, 5, 0]]
    return cube_corner(uv=torch.rand(6, 2), uv_faces=uv_faces, texture=texture)


@pytest.mark.parametrize("channels", [3, 4])
@pytest.mark.parametrize("ending", ["obj", "glb"])
def test_texture_with_seams(tmp_path: pathlib.Path, ending: str, channels: int) -> None:
    mesh = textured(channels)
    mesh.save(tmp_path / f"mesh.{ending}")
    again = gd.Mesh.load(tmp_path / f"mesh.{ending}")
    corners = again.vertices[again.faces]
    assert torch.equal(corners, mesh.vertices[mesh.faces])
    assert torch.allclose(again.uv[again.uv_faces], mesh.uv[mesh.uv_faces], atol=1e-7)
    assert torch.equal(again.texture.image, mesh.texture.image)
    assert len(again.boundary_edges) == len(mesh.boundary_edges)
    assert (gd.Mesh.load(tmp_path / f"mesh.{ending}", weld=False).num_vertices > 5) == (ending == "glb")


@pytest.mark.parametrize("with_texture", [False, True])
def test_materials_in_obj(tmp_path: pathlib.Path, with_texture: bool) -> None:
    material = gd.Material((0.1, 0.2, 0.3), (0.4, 0.5, 0.6), 0.25, 17.5)
    mesh = (textured() if with_texture else cube_corner()).with_attributes(material=material)
    mesh.save(tmp_path / "mesh.obj")
    again = gd.Mesh.load(tmp_path / "mesh.obj")
    for name in ("ambient", "diffuse", "specular", "shininess"):
        assert torch.equal(getattr(again.material, name), getattr(material, name))
    assert (again.texture is not None) == with_texture
    batched = mesh.with_attributes(material=gd.Material(ambient=torch.ones(2, 3)))
    with pytest.raises(ValueError, match=r"Mesh\.save: `material` must be without a batch"):
        batched.save(tmp_path / "batch.obj")


def test_materials_of_other_programs(tmp_path: pathlib.Path) -> None:
    (tmp_path / "mesh.obj").write_text("mtllib a.mtl\nusemtl one\nv 0 0 0\nv 1 0 0\nv 0 1 0\nf 1 2 3\n")
    for text, expected in (
        (
            "Kd 0.8 0.7 0.6\nNs 0\nillum 2\n",
            "Material(ambient=(0.8, 0.7, 0.6), diffuse=(0.8, 0.7, 0.6), specular=0, shininess=32)",
        ),
        ("Ka 0 0 0\nKs .5\nNs 96\n", "Material(ambient=0, diffuse=1, specular=0.5, shininess=96)"),
        ("Kd 1 1 1\n", "None"),
        ("Kd spectral curve.rfl\n", "None"),
        ("Kd -1 0 0\n", "None"),
    ):
        (tmp_path / "a.mtl").write_text(f"newmtl two\nKd 0 0 0\nnewmtl one\n{text}")
        assert str(gd.Mesh.load(tmp_path / "mesh.obj").material) == expected


@pytest.mark.parametrize("looks", ["plain", "colors", "texture"])
def test_materials_in_glb(tmp_path: pathlib.Path, looks: str) -> None:
    material = gd.Material((0.1, 0.2, 0.3), (0.4, 1.5, 0.6), 0.25, 17.5)
    mesh = (textured() if looks == "texture" else cube_corner()).with_attributes(material=material)
    if looks == "colors":
        mesh = mesh.with_attributes(vertex_colors=torch.eye(5)[:, :3])
    mesh.save(tmp_path / "mesh.glb")
    again = gd.Mesh.load(tmp_path / "mesh.glb")
    assert again.material is not None
    for name in ("ambient", "diffuse", "specular", "shininess"):
        assert torch.equal(getattr(again.material, name), getattr(material, name))
    assert (again.texture is None) == (mesh.texture is None)
    assert (again.vertex_colors is None) == (mesh.vertex_colors is None)
    if looks == "plain":  # another program sees the diffuse colour
        seen = trimesh.load_mesh(tmp_path / "mesh.glb").visual.material.baseColorFactor
        assert np.allclose(seen, np.array([0.4, 1.0, 0.6, 1.0]) * 255, atol=1)
    batched = mesh.with_attributes(material=gd.Material(ambient=torch.ones(2, 3)))
    with pytest.raises(ValueError, match=r"Mesh\.save: `material` must be without a batch"):
        batched.save(tmp_path / "batched.glb")


def test_the_base_colour_of_another_programs_glb(tmp_path: pathlib.Path) -> None:
    for factor, expected in (([204, 102, 51, 255], [0.8, 0.4, 0.2]), ([255, 255, 255, 255], None)):
        material = trimesh.visual.material.PBRMaterial(baseColorFactor=factor, metallicFactor=0.0)
        uv = np.random.default_rng(0).random((8, 2))
        box = trimesh.creation.box()
        box.visual = trimesh.visual.TextureVisuals(uv=uv, material=material)
        box.export(tmp_path / "box.glb")
        found = gd.Mesh.load(tmp_path / "box.glb").material
        if expected is None:
            assert found is None
        else:
            assert found is not None
            for color in (found.ambient, found.diffuse):
                torch.testing.assert_close(color, torch.tensor(expected), atol=1e-6, rtol=0)


@pytest.mark.parametrize("wrap", ["repeat", "clamp", "mirror"])
@pytest.mark.parametrize(("filter", "mipmaps"), [("bilinear", True), ("nearest", False)])
def test_modes_of_textures(tmp_path: pathlib.Path, wrap: str, filter: str, mipmaps: bool) -> None:
    plain = textured()
    assert plain.texture is not None
    mesh = plain.with_attributes(texture=gd.Texture(plain.texture, wrap, filter, mipmaps), uv_faces=plain.uv_faces)
    mesh.save(tmp_path / "mesh.glb")
    again = gd.Mesh.load(tmp_path / "mesh.glb").texture
    assert again is not None and (again.wrap, again.filter, again.mipmaps) == (wrap, filter, mipmaps)
    if wrap == "mirror":
        with pytest.warns(UserWarning, match="OBJ does not hold wrap='mirror'"):
            mesh.save(tmp_path / "mesh.obj")
    else:
        mesh.save(tmp_path / "mesh.obj")
        again = gd.Mesh.load(tmp_path / "mesh.obj").texture
        assert again is not None and again.wrap == wrap


def test_uv_for_each_vertex(tmp_path: pathlib.Path) -> None:
    mesh = cube_corner(uv=torch.rand(5, 2))
    for ending in ("obj", "ply"):
        mesh.save(tmp_path / f"mesh.{ending}")
        again = gd.Mesh.load(tmp_path / f"mesh.{ending}")
        assert torch.allclose(again.uv[again.uv_faces], mesh.uv[mesh.uv_faces], atol=1e-7)


def test_other_programs_files(tmp_path: pathlib.Path) -> None:
    """Files written by trimesh itself, and a scene of two placed objects."""
    peer = trimesh.creation.icosphere(subdivisions=1)
    for ending in FORMATS:
        peer.export(tmp_path / f"mesh.{ending}")
        mesh = gd.Mesh.load(tmp_path / f"mesh.{ending}")
        assert mesh.is_closed
        assert np.isclose(mesh.face_areas.sum(), peer.area)
    scene = trimesh.Scene()
    scene.add_geometry(peer)
    move = np.eye(4)
    move[0, 3] = 5.0
    scene.add_geometry(peer, transform=move)
    scene.export(tmp_path / "scene.glb")
    both = gd.Mesh.load(tmp_path / "scene.glb")
    assert both.num_faces == 2 * len(peer.faces)
    assert both.euler_characteristic == 4
    assert torch.allclose(both.bounds[:, 0], torch.tensor([-1.0, 6.0]), atol=1e-6)


@pytest.mark.shared_data
def test_real_files(shared_data: pathlib.Path) -> None:
    spot = gd.Mesh.load(shared_data / "spot_triangulated.obj")
    assert (spot.num_vertices, spot.num_faces, spot.uv.shape[0]) == (2930, 5856, 3225)
    assert spot.is_closed
    assert spot.euler_characteristic == 2
    assert spot.texture.shape == (1024, 1024, 3)
    for name, size in (
        ("airplane.obj", (1352, 2700)),
        ("teapot.obj", (1292, 2464)),
        ("rocker-arm.obj", (10044, 20088)),
    ):
        mesh = gd.Mesh.load(shared_data / name)
        assert (mesh.num_vertices, mesh.num_faces) == size
        peer = trimesh.load_mesh(shared_data / name, process=False)
        assert np.allclose(mesh.vertices, peer.vertices)
        assert np.array_equal(mesh.faces, peer.faces)


# --- OBJ -------------------------------------------------------------------------------


def obj(tmp_path: pathlib.Path, text: str) -> gd.Mesh:
    (tmp_path / "mesh.obj").write_text(text)
    return gd.Mesh.load(tmp_path / "mesh.obj")


SQUARE = "v 0 0 0\nv 1 0 0\nv 1 1 0\nv 0 1 0\n"


def test_obj_forms_of_faces(tmp_path: pathlib.Path) -> None:
    fan = [[0, 1, 2], [0, 2, 3]]
    assert obj(tmp_path, SQUARE + "f 1 2 3 4\n").faces.tolist() == fan
    assert obj(tmp_path, SQUARE + "f -4 -3 -2 -1\nv 9 9 9\n").faces.tolist() == fan
    assert obj(tmp_path, SQUARE + "vn 0 0 1\nvn 0 1 0\nf 1//1 2//1 3//2 4//2\n").faces.tolist() == fan
    assert (
        obj(tmp_path, "# hello\r\ng a\r\n" + SQUARE + "s off\r\nf 1 2 \\\n 3 # c\r\nl 1 2\r\nf 1 3 4").faces.tolist()
        == fan
    )
    mixed = obj(tmp_path, SQUARE + "vt 0 0\nvt 1 0\nvt 1 1\nf 1/1 2/2 3/3\nf 1 3//1 4\n")
    assert mixed.faces.tolist() == fan
    assert mixed.uv.tolist() == [[0, 0], [1, 0], [1, 1], [0, 0]]
    assert mixed.uv_faces.tolist() == [[0, 1, 2], [3, 3, 3]]
    deep = obj(tmp_path, SQUARE + "vt 0 0 0\nvt 1 0 0\nvt 1 1 0\nvt 0 1 0\nvn 0 0 1\nf 1/1/1 2/2/1 3/3/1 4/4/1\n")
    assert deep.uv.shape == (4, 2)
    assert deep.uv_faces is deep.faces
    assert obj(tmp_path, SQUARE + "vt 0.5\nf 1/1 2/1 3/1\n").uv.tolist() == [[0.5, 0.0]]
    materials = "usemtl b\nf 1 2 3\nusemtl a\nf 1 3 4\n"
    assert obj(tmp_path, SQUARE + materials).faces.tolist() == fan


def test_obj_colors(tmp_path: pathlib.Path) -> None:
    ones = obj(tmp_path, "v 0 0 0 1 0 0\nv 1 0 0 0 0.5 0\nv 0 1 0 0 0 1\nf 1 2 3\n")
    assert ones.vertex_colors.tolist() == [[1, 0, 0], [0, 0.5, 0], [0, 0, 1]]
    bytes_ = obj(tmp_path, "v 0 0 0 255 0 0\nv 1 0 0 0 51 0\nv 0 1 0 0 0 1\nf 1 2 3\n")
    assert torch.allclose(bytes_.vertex_colors[1], torch.tensor([0.0, 0.2, 0.0]))
    assert obj(tmp_path, "v 0 0 0 1\nv 1 0 0 1\nv 0 1 0 1\nf 1 2 3\n").vertex_colors is None


def test_obj_materials(tmp_path: pathlib.Path) -> None:
    write_image(tmp_path / "one picture.png", torch.ones(2, 2, 3))
    write_image(tmp_path / "two.png", torch.zeros(2, 2, 3))
    (tmp_path / "a.mtl").write_text(
        "newmtl one\nmap_Kd one picture.png\nnewmtl two\nmap_Kd -s 1 1 1 two.png\nnewmtl gone\nmap_Kd gone.png\n"
    )
    face = SQUARE + "vt 0 0\nf 1/1 2/1 3/1\n"
    assert (obj(tmp_path, "mtllib a.mtl\nusemtl one\n" + face).texture.image == 1).all()
    assert (obj(tmp_path, "mtllib a.mtl\nusemtl two\n" + face).texture.image == 0).all()
    with pytest.warns(UserWarning, match=r"left out of .*mesh.obj: the texture gone.png, which is not there"):
        assert obj(tmp_path, "mtllib a.mtl\nusemtl gone\n" + face).texture is None
    with pytest.warns(UserWarning, match=r"left out of .*mesh.obj: materials in b.mtl, which is not there"):
        assert obj(tmp_path, "mtllib b.mtl\nusemtl gone\n" + face).texture is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"an OBJ file with vertices and faces; got .* with 0 vertices and 0 faces"),
        ("hello world", r"with 0 vertices and 0 faces"),
        (SQUARE, r"with 4 vertices and 0 faces"),
        (
            SQUARE + "f 1 2 5\n",
            r"whose faces name the 4 vertices it has; got index 5 in .*mesh.obj, line 5. The file is cut",
        ),
        (SQUARE + "f 0 1 2\n", r"got index 0 in .*line 5"),
        (SQUARE + "f -5 -4 -3\n", r"got index -5 in .*line 5"),
        (SQUARE + "f 1/1 2/1 3/2\nvt 0 0\n", r"name the 1 texture coordinates it has; got index 2"),
        (SQUARE + "f 1 2\n", r"polygons of three or more corners; got .*line 5"),
        (SQUARE + "f a b c\n", r"a readable OBJ file"),
        (SQUARE + "f 1 2/x 3\n", r"a readable OBJ file"),
        ("v 0 zero 0\nf 1 1 1\n", r"a readable OBJ file"),
        ("v 0 0\nf 1 1 1\n", r"a readable OBJ file.*a line of 2 numbers"),
        ("v nan 0 0\nv 1 0 0\nv 0 1 0\nf 1 2 3\n", r"`vertices` must be finite"),
    ],
)
def test_bad_obj(tmp_path: pathlib.Path, text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        obj(tmp_path, text)


# --- messages --------------------------------------------------------------------------


def test_load_messages(tmp_path: pathlib.Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"Mesh.load: `path` must be a file that exists; got .*gone.obj"):
        gd.Mesh.load(tmp_path / "gone.obj")
    with pytest.raises(
        ValueError, match=r"Mesh.load: `path` must be one of obj, ply, .*; got 'objj'. Did you mean 'obj'"
    ):
        gd.Mesh.load("a.objj")
    with pytest.raises(ValueError, match=r"a file name ending in one of .obj, .ply"):
        gd.Mesh.load(tmp_path)
    axes = "".join(f"property float {axis}\n" for axis in "xyz")
    (tmp_path / "points.ply").write_text(f"ply\nformat ascii 1.0\nelement vertex 1\n{axes}end_header\n0 0 0\n")
    with pytest.raises(
        ValueError, match=r"a PLY file with faces; got .*points.ply without any. It is damaged, or a point"
    ):
        gd.Mesh.load(tmp_path / "points.ply")
    for name, content in (("bad.ply", b"ply\nxx"), ("bad.glb", b"abc"), ("bad.off", b"OFF\n1 2")):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ValueError, match=r"Mesh.load: `path` must be a readable (PLY|GLB|OFF) file; got .*bad"):
            gd.Mesh.load(tmp_path / name)
    for name in ("bytes.stl", "bytes.off"):
        (tmp_path / name).write_bytes(b"\x00garbage\xff" * 20)
        with pytest.raises(ValueError, match=r"(a whole STL file|a readable OFF file); got .*bytes.*damaged") as caught:
            gd.Mesh.load(tmp_path / name)
        assert "module" not in str(caught.value).lower()
    (tmp_path / "bad.stl").write_bytes(b"abcdef")
    with pytest.raises(ValueError, match=r"a (readable STL file|STL file with faces); got .*bad.stl"):
        gd.Mesh.load(tmp_path / "bad.stl")


def test_a_file_cut_short(tmp_path: pathlib.Path) -> None:
    for ending in FORMATS:
        gd.icosphere(1).save(tmp_path / f"mesh.{ending}")
        whole = (tmp_path / f"mesh.{ending}").read_bytes()
        (tmp_path / f"mesh.{ending}").write_bytes(whole[: len(whole) // 2])
        with pytest.raises(ValueError, match=r"Mesh.load: `path` must be"):
            gd.Mesh.load(tmp_path / f"mesh.{ending}")


def test_save_messages(tmp_path: pathlib.Path) -> None:
    mesh = cube_corner()
    with pytest.raises(ValueError, match=r"Mesh.save: `path` must be one of obj, ply, stl, glb; got 'xyz'"):
        mesh.save(tmp_path / "mesh.xyz")
    with pytest.raises(ValueError, match=r"Mesh.save: `path` must be a file name ending in one of"):
        mesh.save(tmp_path / "mesh")
    with pytest.raises(ValueError, match=r"Mesh.save: `mesh` must be one mesh; got a batch of \(2,\). Take mesh\[i\]"):
        mesh.with_vertices(torch.rand(2, 5, 3)).save(tmp_path / "mesh.obj")
    with pytest.raises(ValueError, match=r"Mesh.save: `mesh` must be a mesh with faces"):
        gd.Mesh(torch.rand(3, 3), []).save(tmp_path / "mesh.obj")
    (tmp_path / "file").write_text("")
    with pytest.raises(
        OSError, match=r"Mesh.save: `path` must be in a folder that can be written to; got .*Choose another"
    ):
        mesh.save(tmp_path / "file" / "mesh.obj")
    (tmp_path / "folder.obj").mkdir()
    with pytest.raises(IsADirectoryError, match=r"Mesh.save: `path` must be a file; got the folder"):
        mesh.save(tmp_path / "folder.obj")


def test_what_a_format_does_not_hold_is_said(tmp_path: pathlib.Path) -> None:
    with pytest.warns(UserWarning, match=r"Mesh.save: STL does not hold vertex_colors: left out of .*mesh.stl"):
        cube_corner(vertex_colors=torch.rand(5, 3)).save(tmp_path / "mesh.stl")
    with pytest.warns(UserWarning, match=r"STL does not hold uv, texture"):
        textured().save(tmp_path / "mesh.stl")
    with pytest.warns(UserWarning, match=r"PLY does not hold texture"):
        textured().save(tmp_path / "mesh.ply")
    with pytest.warns(UserWarning, match=r"PLY does not hold material"):
        cube_corner(material=gd.Material()).save(tmp_path / "mesh.ply")
    for ending in ("obj", "glb"):
        with pytest.warns(UserWarning, match=rf"{ending.upper()} does not hold face_colors"):
            cube_corner(face_colors=torch.rand(3, 2)).save(tmp_path / f"mesh.{ending}")
        many = gd.icosphere(4)
        with pytest.warns(UserWarning, match=rf"{ending.upper()} does not hold face_colors"):
            many.with_attributes(face_colors=torch.rand(many.num_faces, 3)).save(tmp_path / f"mesh.{ending}")
    assert gd.Mesh.load(tmp_path / "mesh.ply").texture is None


def test_saving_makes_the_folder_and_leaves_nothing_behind(tmp_path: pathlib.Path) -> None:
    textured().save(tmp_path / "new" / "deep" / "mesh.obj")
    assert sorted(p.name for p in (tmp_path / "new" / "deep").iterdir()) == ["mesh.mtl", "mesh.obj", "mesh.png"]


def test_a_failed_save_keeps_the_old_file(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "mesh.ply"
    cube_corner().save(path)
    before = path.read_bytes()

    def broken(_: gd.Mesh, target: pathlib.Path) -> None:
        target.write_bytes(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(mesh_files, "write_mesh_ply", broken)
    with pytest.raises(KeyboardInterrupt):
        cube_corner().save(path)
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["mesh.ply"]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_plain_ply_is_what_trimesh_writes(tmp_path: pathlib.Path, dtype: torch.dtype) -> None:
    ball = gd.icosphere(2, dtype=dtype)
    ball.save(tmp_path / "ours.ply")
    ball.to_trimesh().export(tmp_path / "peer.ply", file_type="ply")
    peer = (tmp_path / "peer.ply").read_bytes()
    assert (tmp_path / "ours.ply").read_bytes() == re.sub(rb"comment [^\n]*\n", b"", peer, count=1)


@pytest.mark.parametrize("shared", [False, True])
def test_seams_are_split_in_the_order_of_vertices(shared: bool) -> None:
    random = np.random.default_rng(0)
    corner = random.integers(0, 40, (60, 3))
    # A coordinate belongs to one vertex as a rule, but may belong to several.
    faces = random.integers(0, 9, (60, 3)) if shared else random.integers(0, 9, 40)[corner]
    vertex, uv, split = seams_split(faces, torch.from_numpy(corner))
    pairs, inverse = np.unique(np.stack((faces, corner), -1).reshape(-1, 2), axis=0, return_inverse=True)
    assert (np.stack((vertex, uv), 1) == pairs).all() and (split == inverse.reshape(-1, 3)).all()


def test_replacing_moves_what_was_written(tmp_path: pathlib.Path) -> None:
    with replacing(tmp_path / "a.txt") as part:
        part.write_text("a")
        (part.parent / "b.txt").write_text("b")
        assert not (tmp_path / "a.txt").exists()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.txt", "b.txt"]


# --- welding and images -----------------------------------------------------------------


def test_welded() -> None:
    v = torch.tensor([[1.0, 0, 0], [0.0, 0, 0], [0, 1, 0], [-0.0, 0, 0], [1, 0, 0]], requires_grad=True)
    mesh = gd.Mesh(v, [[0, 1, 2], [4, 2, 3]])
    joined = mesh.welded()
    assert joined.vertices.tolist() == [[1, 0, 0], [0, 0, 0], [0, 1, 0]]
    assert joined.faces.tolist() == [[0, 1, 2], [0, 2, 1]]
    assert joined.vertices.requires_grad
    colors = torch.zeros(5, 3)
    colors[3] = 1.0
    assert mesh.with_attributes(vertex_colors=colors).welded().num_vertices == 4
    assert gd.Mesh(torch.zeros(0, 3), []).welded().num_vertices == 0
    with pytest.raises(ValueError, match="welded: `mesh` must be one mesh"):
        mesh.with_vertices(torch.rand(2, 5, 3)).welded()


def test_images(tmp_path: pathlib.Path) -> None:
    for channels in (1, 3, 4):
        image = torch.randint(0, 256, (5, 7, channels)) / 255
        write_image(tmp_path / "a.png", image)
        assert torch.equal(read_image(tmp_path / "a.png", "test"), image)
    fine = torch.randint(0, 65536, (5, 7, 1)) / 65535
    write_image(tmp_path / "a.png", fine, bits=16)
    assert torch.allclose(read_image(tmp_path / "a.png", "test"), fine, atol=1e-7)
    write_image(tmp_path / "a.png", torch.tensor([[[-1.0], [2.0]]]))
    assert read_image(tmp_path / "a.png", "test").flatten().tolist() == [0, 1]
    with pytest.raises(FileNotFoundError, match="test: `path` must be an image that exists"):
        read_image(tmp_path / "gone.png", "test")
    (tmp_path / "bad.png").write_bytes(b"not an image")
    with pytest.raises(ValueError, match="test: `path` must be a readable image"):
        read_image(tmp_path / "bad.png", "test")
    whole = (tmp_path / "a.png").read_bytes()
    (tmp_path / "cut.png").write_bytes(whole[:40])
    with pytest.raises(ValueError, match="test: `path` must be a readable image"):
        read_image(tmp_path / "cut.png", "test")


def test_loading_warns_of_nothing(tmp_path: pathlib.Path) -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for ending in FORMATS:
            gd.icosphere(0).save(tmp_path / f"mesh.{ending}")
            assert gd.Mesh.load(tmp_path / f"mesh.{ending}").num_faces == 20
    assert not caught


@pytest.mark.parametrize("ending", ["obj", "ply"])
def test_a_file_with_nan_is_named(tmp_path: pathlib.Path, ending: str) -> None:
    path = tmp_path / f"bad.{ending}"
    text = "v 0 0 nan\nv 1 0 0\nv 0 1 0\nf 1 2 3\n"
    if ending == "ply":
        text = "ply\nformat ascii 1.0\nelement vertex 3\nproperty float x\nproperty float y\nproperty float z\n"
        text += "element face 1\nproperty list uchar int vertex_indices\nend_header\n"
        text += "0 0 nan\n1 0 0\n0 1 0\n3 0 1 2\n"
    path.write_text(text)
    with pytest.raises(
        ValueError,
        match=rf"Mesh\.load: `path` must be a readable {ending.upper()} file; got .*bad\.{ending} .*finite; got nan",
    ):
        gd.Mesh.load(path)
