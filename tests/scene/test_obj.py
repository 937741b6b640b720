# SPDX-License-Identifier: Apache-2.0
"""OBJ as it is found: materials, concave polygons, marks of byte order, odd faces, paths that lead elsewhere."""

import pathlib

import pytest
import torch

import geodiff as gd
from geodiff.scene.images import write_image

SQUARES = "".join(f"v {x} {y} 0\n" for y in (0, 1) for x in range(5))  # 1 … 5 below, 6 … 10 above
COORDINATES = "vt 0 0\nvt 1 0\nvt 1 1\nvt 0 1\nvt 2 0\nvt 2 2\nvt 0 2\n"


def obj(folder: pathlib.Path, text: str, materials: str | None = None, **more) -> gd.Mesh:
    (folder / "a.obj").write_text(text)
    if materials is not None:
        (folder / "a.mtl").write_text(materials)
    return gd.Mesh.load(folder / "a.obj", **more)


def square(k: int, uv: str = "1234") -> str:
    """Return the line of a face: the square [k, k + 1] × [0, 1]."""
    corners = (k + 1, k + 2, k + 7, k + 6)
    return "f " + " ".join(f"{c}/{t}" if uv else str(c) for c, t in zip(corners, uv or "1234", strict=True)) + "\n"


def color_at(mesh: gd.Mesh, x: float, y: float, lights=None) -> list[float]:
    camera = gd.Camera.look_at((x, y, 1.0), (x, y, 0), (0, 1, 0), fov_deg=0.01)
    return [round(c, 3) for c in gd.Renderer(1, outputs=("rgb",))(mesh, camera, lights).rgb[0, 0].tolist()]


# --- materials --------------------------------------------------------------------------


def test_several_colours(tmp_path: pathlib.Path) -> None:
    materials = "newmtl red\nKd 1 0 0\nnewmtl green\nKd 0 1 0\nnewmtl unused\nKd .3 .3 .3\nmap_Kd gone.png\n"
    text = (
        "mtllib a.mtl\n" + SQUARES + square(0, "") + "usemtl red\n" + square(1, "") + "usemtl green\n" + square(2, "")
    )
    mesh = obj(tmp_path, text + "usemtl red\n" + square(3, ""), materials)
    assert [color_at(mesh, x + 0.3, 0.6) for x in range(4)] == [[1, 1, 1], [1, 0, 0], [0, 1, 0], [1, 0, 0]]
    assert mesh.num_vertices == 10  # none of them torn
    lit = color_at(mesh, 1.3, 0.6, [gd.AmbientLight(1.0)])
    assert lit == [1, 0, 0]


def test_textures_and_colours_together(tmp_path: pathlib.Path) -> None:
    """Two pictures, one of which tiles and one clamped, each times its colour; a plain square; one without picture."""
    write_image(tmp_path / "one.png", torch.tensor([[[1.0, 0, 0], [0, 1, 0]], [[0, 0, 1], [1, 1, 1]]]))
    write_image(tmp_path / "two.png", torch.tensor([[[1.0, 1, 1]], [[0, 0, 0]]]))
    materials = "newmtl one\nmap_Kd one.png\nnewmtl two\nKd 0 .6 1\nmap_Kd -clamp on two.png\nnewmtl blue\nKd 0 0 1\n"
    text = (
        "mtllib a.mtl\n"
        + SQUARES
        + COORDINATES
        + "usemtl one\n"
        + square(0, "1567")
        + "usemtl two\n"
        + square(1, "1567")
    )
    text += "usemtl blue\n" + square(2) + "usemtl one\n" + square(3, "")
    mesh = obj(tmp_path, text, materials)
    assert mesh.texture is not None
    # Texel centres of the tiled picture: its quarters at 1/8, 3/8, … of the square.
    for x, y, expected in (
        (1 / 8, 7 / 8, [1, 0, 0]),
        (3 / 8, 7 / 8, [0, 1, 0]),
        (1 / 8, 5 / 8, [0, 0, 1]),
        (5 / 8, 7 / 8, [1, 0, 0]),
        (7 / 8, 1 / 8, [1, 1, 1]),
        (1.6, 0.9, [0, 0.6, 1]),
        (1.6, 0.55, [0, 0.6, 1]),
        (1.6, 0.05, [0, 0, 0]),
        (2.4, 0.3, [0, 0, 1]),
        (3.4, 0.3, [1, 1, 1]),
    ):
        assert color_at(mesh, x, y) == pytest.approx(expected, abs=2e-3), (x, y)


def test_a_scaled_and_moved_picture(tmp_path: pathlib.Path) -> None:
    write_image(tmp_path / "one.png", torch.tensor([[[1.0, 0, 0], [0, 1, 0]], [[0, 0, 1], [1, 1, 1]]]))
    text = "mtllib a.mtl\nusemtl one\n" + SQUARES + COORDINATES + square(0)
    mesh = obj(tmp_path, text, "newmtl one\nmap_Kd -s 0.5 0.5 1 -o 0.5 0 0 -mm 0 1 one.png\n")
    # The lower right quarter of the picture: its middle is the centre of the white texel.
    assert color_at(mesh, 0.51, 0.5) == pytest.approx([1, 1, 1], abs=0.02)


def test_ambient_colours(tmp_path: pathlib.Path) -> None:
    """Ka 1 1 1, which Blender writes for every material, is no white light on a red thing; other numbers count."""
    text = "mtllib a.mtl\nusemtl red\n" + SQUARES + square(0, "")
    light = [gd.AmbientLight(1.0)]
    for ka, expected in (
        ("Ka 1 1 1\n", [1, 0, 0]),
        ("", [1, 0, 0]),
        ("Ka .2 .2 .2\n", [0.2] * 3),
        ("Ka 0 0 0\n", [0] * 3),
    ):
        assert color_at(obj(tmp_path, text, f"newmtl red\n{ka}Kd 1 0 0\n"), 0.3, 0.6, light) == pytest.approx(expected)
    for ambient in (1.0, 0.4):
        material = gd.Material(ambient=ambient, diffuse=(0.5, 0.25, 1), specular=0.1, shininess=3.0)
        obj(tmp_path, text, "").with_attributes(material=material).save(tmp_path / "b.obj")
        again = gd.Mesh.load(tmp_path / "b.obj").material
        assert again.ambient.tolist() == [pytest.approx(ambient)] * 3 and again.diffuse.tolist() == [0.5, 0.25, 1]


def test_what_materials_lose_is_said(tmp_path: pathlib.Path) -> None:
    text = (
        "mtllib a.mtl\n"
        + SQUARES
        + "usemtl a\n"
        + square(0, "")
        + "usemtl b\n"
        + square(1, "")
        + "usemtl c\n"
        + square(2, "")
    )
    materials = "newmtl a\nKd 1 0 0\nKs 1 1 1\nNs 9\nd 0.5\nnewmtl b\nKd 1 1 0\nKe 1 1 1\nKa .5 .5 .5\n"
    expected = (
        r"^Mesh\.load: left out of .*a\.obj: the material c, of which nothing is said; transparency \(d, Tr\); "
        r"emitted light \(Ke\); highlights \(Ks, Ns\) of all materials but one; ambient colours that differ"
    )
    with pytest.warns(UserWarning, match=expected):
        obj(tmp_path, text, materials)


def test_libraries(tmp_path: pathlib.Path) -> None:
    (tmp_path / "b.mtl").write_text("newmtl blue\nKd 0 0 1\n")
    (tmp_path / "with blank.mtl").write_bytes(b"\xef\xbb\xbfnewmtl green light\nKd 0 1 0\n")
    red = "newmtl red\nKd 1 0 0\n"
    for line, name, expected in (
        ("mtllib a.mtl b.mtl", "blue", [0, 0, 1]),
        ("mtllib a.mtl b.mtl", "red", [1, 0, 0]),
        ("mtllib with blank.mtl", "green light", [0, 1, 0]),
        ("mtllib .\\a.mtl # red", "red", [1, 0, 0]),
    ):
        mesh = obj(tmp_path, f"{line}\nusemtl {name}\n" + SQUARES + square(0, ""), red)
        assert mesh.material.diffuse.tolist() == expected
    with pytest.warns(UserWarning, match=r"materials in gone\.mtl, which is not there"):
        obj(tmp_path, "mtllib a.mtl gone.mtl\nusemtl red\n" + SQUARES + square(0, ""), red)


def test_paths_stay_in_the_folder(tmp_path: pathlib.Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "out.mtl").write_text("newmtl red\nKd 1 0 0\n")
    write_image(tmp_path / "out.png", torch.zeros(2, 2, 3))
    text = "mtllib ../out.mtl\nusemtl red\n" + SQUARES + COORDINATES + square(0)
    with pytest.warns(
        UserWarning, match=r"materials in \.\./out\.mtl \(outside of its folder: pass allow_outside=True\)"
    ):
        assert obj(tmp_path / "in", text).material is None
    assert obj(tmp_path / "in", text, allow_outside=True).material is not None
    for name in ("../out.png", "..\\out.png", str(tmp_path / "out.png")):
        (tmp_path / "in" / "a.mtl").write_text(f"newmtl red\nmap_Kd {name}\n")
        with pytest.warns(
            UserWarning, match=r"the texture .*out\.png \(outside of its folder: pass allow_outside=True\)"
        ):
            assert obj(tmp_path / "in", text.replace("../out", "a")).texture is None
        assert obj(tmp_path / "in", text.replace("../out", "a"), allow_outside=True).texture is not None


# --- shape ------------------------------------------------------------------------------


def test_a_concave_polygon(tmp_path: pathlib.Path) -> None:
    """A U of area 3·2 − 1·1 = 5, with coordinates that go with its corners."""
    corners = [(0, 0), (3, 0), (3, 2), (2, 2), (2, 1), (1, 1), (1, 2), (0, 2)]
    text = "".join(f"v {x} {y} 0\nvt {x} {y}\n" for x, y in corners) + "f " + " ".join(f"{i}/{i}" for i in range(1, 9))
    mesh = obj(tmp_path, text)
    assert float(mesh.face_areas.sum()) == pytest.approx(5)
    assert torch.equal(mesh.vertices[mesh.faces][..., :2], mesh.uv[mesh.uv_faces])


def test_odd_faces(tmp_path: pathlib.Path) -> None:
    with pytest.warns(UserWarning, match=r"a\.obj: left out 1 face of fewer than three corners"):
        assert obj(tmp_path, SQUARES + "f 1 2\n" + square(0, "")).num_faces == 2
    with pytest.warns(UserWarning, match=r"a\.obj: 1 polygon whose sides cross"):
        obj(tmp_path, SQUARES + "f 1 7 2 6\n")
    with pytest.raises(ValueError, match=r"a readable OBJ file; got .*a\.obj .*int"):
        obj(tmp_path, SQUARES + "f 1 2 99999999999999999999999\n")


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_marks_of_byte_order(tmp_path: pathlib.Path, encoding: str) -> None:
    (tmp_path / "a.obj").write_text(SQUARES + square(0, ""), encoding=encoding)
    assert gd.Mesh.load(tmp_path / "a.obj").num_vertices == 10


def test_colours_with_alpha(tmp_path: pathlib.Path) -> None:
    rows = ("0 0 0 1 0 0 1", "1 0 0 0 .5 0 0.25", "0 1 0 0 0 1 1")
    mesh = obj(tmp_path, "".join(f"v {row}\n" for row in rows) + "f 1 2 3\n")
    assert mesh.vertex_colors.tolist() == [[1, 0, 0, 1], [0, 0.5, 0, 0.25], [0, 0, 1, 1]]
    opaque = obj(
        tmp_path,
        "".join(f"v {row[:-4]} 1.0\n" for row in ("0 0 0 1 0 0    ", "1 0 0 0 1 0    ", "0 1 0 0 0 1    "))
        + "f 1 2 3\n",
    )
    assert opaque.vertex_colors.tolist() == torch.eye(3).tolist()
