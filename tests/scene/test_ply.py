# SPDX-License-Identifier: Apache-2.0
"""PLY, STL and OFF as they are found, and what is wrong with those that are not read."""

import contextlib
import pathlib
import struct

import numpy as np
import pytest
import torch
import trimesh

import geodiff as gd
from geodiff.scene.images import write_image

POINTS = [[0.0, 0, 0], [1, 0, 0], [0, 1, 0], [1, 1, 0], [0, 2, 0]]
XYZ = "property float x\nproperty float y\nproperty float z\n"
FACE = "property list uchar int vertex_indices\n"


def ply(folder: pathlib.Path, elements: str, body: str | bytes, order: str = "ascii") -> gd.Mesh:
    data = body.encode() if isinstance(body, str) else body
    (folder / "a.ply").write_bytes(f"ply\nformat {order} 1.0\n{elements}end_header\n".encode() + data)
    return gd.Mesh.load(folder / "a.ply")


def rows(values) -> str:
    return "".join(" ".join(f"{x:g}" for x in row) + "\n" for row in values)


# --- PLY --------------------------------------------------------------------------------


@pytest.mark.parametrize(("order", "mark"), [("ascii", ""), ("binary_little_endian", "<"), ("binary_big_endian", ">")])
def test_strips_and_fans(tmp_path: pathlib.Path, order: str, mark: str) -> None:
    elements = f"element vertex 5\n{XYZ}element tristrips 1\nproperty list int int vertex_indices\n"
    elements += "element trifans 2\nproperty list uchar uint vertex_indices\n"
    strip, fans = [0, 1, 2, 3, -1, 2, 3, 4], ([0, 1, 3, 4], [1, 3, 2])
    if mark:
        body = np.array(POINTS, f"{mark}f4").tobytes() + np.array([8, *strip], f"{mark}i4").tobytes()
        body += b"".join(bytes([len(fan)]) + np.array(fan, f"{mark}u4").tobytes() for fan in fans)
        mesh = ply(tmp_path, elements, body, order)
    else:
        mesh = ply(tmp_path, elements, rows([*POINTS, [8, *strip], *([len(f), *f] for f in fans)]))
    assert mesh.faces.tolist() == [[0, 1, 2], [1, 3, 2], [2, 3, 4], [0, 1, 3], [0, 3, 4], [1, 3, 2]]
    assert (mesh.face_normals[:, 2] > 0).all()


@pytest.mark.parametrize("prefix", ["", "diffuse_"])
def test_colours(tmp_path: pathlib.Path, prefix: str) -> None:
    colors = "".join(f"property uchar {prefix}{name}\n" for name in ("red", "green", "blue"))
    body = rows([(*p, 255, 51, 0) for p in POINTS[:3]]) + "3 0 1 2 0 0 255\n"
    plain = "property uchar red\nproperty uchar green\nproperty uchar blue\n"
    mesh = ply(tmp_path, f"element vertex 3\n{XYZ}{colors}element face 1\n{FACE}{plain}", body)
    assert torch.allclose(mesh.vertex_colors, torch.tensor([1.0, 0.2, 0]))
    assert mesh.face_colors.tolist() == [[0, 0, 1]]
    for kind, value, expected in (("float", 0.5, 0.5), ("ushort", 13107, 0.2), ("float", 255, 1.0)):
        names = "".join(f"property {kind} {name}\n" for name in ("red", "green", "blue"))
        mesh = ply(
            tmp_path,
            f"element vertex 3\n{XYZ}{names}element face 1\n{FACE}",
            rows([(*p, *[value] * 3) for p in POINTS[:3]]) + "3 0 1 2\n",
        )
        assert torch.allclose(mesh.vertex_colors, torch.tensor(expected))


@pytest.mark.parametrize("binary", [False, True])
def test_mixed_polygons_concave_ones_and_their_colours(tmp_path: pathlib.Path, binary: bool) -> None:
    arrow = [[0, 0, 0], [2, 0, 0], [2, 2, 0], [1, 0.5, 0]]  # concave at its last corner, of area 1.5
    names = "property uchar red\nproperty uchar green\nproperty uchar blue\n"
    elements = f"element vertex 4\n{XYZ}element face 2\n{FACE}{names}"
    faces = (([1, 2, 3, 0], (255, 0, 0)), ([0, 1, 3], (0, 255, 0)))
    if binary:
        body = np.array(arrow, "<f4").tobytes()
        body += b"".join(bytes([len(f)]) + np.array(f, "<i4").tobytes() + bytes(c) for f, c in faces)
        mesh = ply(tmp_path, elements, body, "binary_little_endian")
    else:
        mesh = ply(tmp_path, elements, rows([*arrow, *([len(f), *f, *c] for f, c in faces)]))
    assert mesh.face_areas[:2].sum() == pytest.approx(1.5)
    assert mesh.face_colors.tolist() == [[1, 0, 0], [1, 0, 0], [0, 1, 0]]


def test_textures_of_meshlab(tmp_path: pathlib.Path) -> None:
    """Coordinates of corners, and the number of each face's picture."""
    write_image(tmp_path / "one.png", torch.tensor([[[1.0, 0, 0]]]))
    write_image(tmp_path / "two.png", torch.tensor([[[0.0, 0, 1]]]))
    elements = f"comment TextureFile one.png\ncomment TextureFile two.png\nelement vertex 4\n{XYZ}"
    elements += f"element face 2\n{FACE}property list uchar float texcoord\nproperty int texnumber\n"
    body = rows(POINTS[:4]) + "3 0 1 2 6 0 0 1 0 0 1 0\n3 1 3 2 6 1 0 1 1 0 1 1\n"
    mesh = ply(tmp_path, elements, body)
    middle = mesh.uv[mesh.uv_faces].mean(1)
    assert torch.allclose(mesh.texture.sample(middle), torch.tensor([[1.0, 0, 0], [0, 0, 1]]), atol=1e-6)
    (tmp_path / "two.png").unlink()
    with pytest.warns(UserWarning, match=r"left out of .*a\.ply: the image 'two\.png' \(which is not there\)"):
        gd.Mesh.load(tmp_path / "a.ply")
    with pytest.warns(
        UserWarning, match=r"the image '\.\./two\.png' \(outside of its folder: pass allow_outside=True\)"
    ):
        ply(tmp_path, elements.replace("two.png", "../two.png"), body)


def test_rows_with_more_in_them_than_the_heading_says(tmp_path: pathlib.Path) -> None:
    """As MeshLab has written them: a row ends where its line does; where rows span lines, words count."""
    body = rows([(*p, 7) for p in POINTS[:3]]) + "3 0 1 2 9 1 1 1\n3 0 2 1\n"
    elements = TRIANGLE.replace("face 1", "face 2")
    assert ply(tmp_path, elements, body).faces.tolist() == [[0, 1, 2], [0, 2, 1]]
    words = "0 0\n0 1 0 0\n0 1 0 3 0\n1 2 3 0 2 1"
    assert ply(tmp_path, elements, words).faces.tolist() == [[0, 1, 2], [0, 2, 1]]


def test_lists_of_another_name(tmp_path: pathlib.Path) -> None:
    elements = f"element vertex 3\n{XYZ}element face 1\nproperty list uchar float texcoord\n"
    mesh = ply(tmp_path, elements + "property list uchar int corners\n", rows(POINTS[:3]) + "6 0 0 1 0 0 1 3 0 1 2\n")
    assert mesh.faces.tolist() == [[0, 1, 2]]
    assert mesh.uv[mesh.uv_faces].tolist() == [[[0, 0], [1, 0], [0, 1]]]


def test_binary_and_text_of_a_peer(tmp_path: pathlib.Path) -> None:
    peer = trimesh.creation.icosphere(subdivisions=1)
    for encoding in ("ascii", "binary"):
        peer.export(tmp_path / "a.ply", encoding=encoding)
        mesh = gd.Mesh.load(tmp_path / "a.ply")
        assert np.allclose(mesh.vertices, peer.vertices, atol=1e-6) and np.array_equal(mesh.faces, peer.faces)


TRIANGLE = f"element vertex 3\n{XYZ}element face 1\n{FACE}"


@pytest.mark.parametrize(
    ("elements", "body", "order", "message"),
    [
        (
            f"element vertex 1000000000000\n{XYZ}element face 1\n{FACE}",
            "",
            "ascii",
            r"as long as its header says.*1000000000000 vertex",
        ),
        (TRIANGLE.replace("face 1", "face 999999999999"), "", "binary_little_endian", r"too few for 999999999999 face"),
        (TRIANGLE.replace("vertex 3", "vertex -3"), "", "ascii", r"too few for -3 vertex"),
        (TRIANGLE, rows(POINTS[:3]), "ascii", r"a whole PLY file; got .* which ends in its 1 rows of face"),
        (TRIANGLE, rows(POINTS[:3]) + "3 0 1 7\n", "ascii", r"faces that name vertices beyond the 3"),
        (TRIANGLE, rows(POINTS[:3]) + "3 0 1 1.5\n", "ascii", r"indices that are no whole numbers"),
        (TRIANGLE, rows(POINTS[:3]) + "-3 0 1 2\n", "ascii", r"a list of -3 in face"),
        (TRIANGLE, rows(POINTS[:3]) + "2 0 1\n", "ascii", r"no faces of three or more corners"),
        (TRIANGLE, bytes(30), "binary_big_endian", r"a whole PLY file; got .* with 2 of 3 rows of vertex"),
        (TRIANGLE, bytes(36) + b"\3" + bytes(11), "binary_big_endian", r"with 0 of 1 rows of face"),
        (TRIANGLE.replace("float x", "half x"), "", "ascii", r"KeyError: 'half'"),
        (
            TRIANGLE.replace("float x", "float a"),
            rows(POINTS[:3]) + "3 0 1 2\n",
            "ascii",
            r"no vertices with x, y and z",
        ),
        (TRIANGLE.replace("list uchar", "list float"), "", "ascii", r"lists counted by float"),
        (TRIANGLE, "", "binary_middle_endian", r"no format that is ascii"),
    ],
)
def test_damaged_ply(tmp_path: pathlib.Path, elements: str, body: str | bytes, order: str, message: str) -> None:
    with pytest.warns(UserWarning, match="fewer than three") if "2 0 1\n" in str(body) else contextlib.nullcontext():
        with pytest.raises(ValueError, match=message) as caught:
            ply(tmp_path, elements, body, order)
    assert str(caught.value).startswith("Mesh.load: `path` must be ") and "a.ply" in str(caught.value)


# --- STL --------------------------------------------------------------------------------

FACET = "facet normal 0 0 1\n outer loop\n  vertex 0 0 0\n  VERTEX 1.0e0 0 0\n  vertex 0 +1 -0\n endloop\nendfacet\n"


def stl(folder: pathlib.Path, data: str | bytes) -> gd.Mesh:
    (folder / "a.stl").write_bytes(data.encode() if isinstance(data, str) else data)
    return gd.Mesh.load(folder / "a.stl", weld=False)


def test_text_of_stl(tmp_path: pathlib.Path) -> None:
    for text in (
        f"solid a\n{FACET}endsolid a\n",
        f"solid a\n{FACET}",  # without endsolid
        f"solid a\n{FACET}endsolid a\nsolid b\nendsolid b\n",
        f"SOLID\r\n{FACET}".replace("\n", "\r\n"),
        f"solid vertex of a name\n{FACET}",
        f"solid a\n{FACET}".rsplit("endloop", 1)[0],
    ):
        mesh = stl(tmp_path, text)
        assert mesh.vertices.tolist() == [[0, 0, 0], [1, 0, 0], [0, 1, 0]]
    assert stl(tmp_path, f"solid a\n{FACET * 2}endsolid a\nsolid b\n{FACET}").num_faces == 3


def test_bytes_of_stl(tmp_path: pathlib.Path) -> None:
    row = struct.pack("<12fH", 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0)
    for head in (b"", b"solid with a misleading name"):
        mesh = stl(tmp_path, head.ljust(80) + struct.pack("<I", 2) + row * 2)
        assert mesh.num_faces == 2
    # Bytes after the last triangle do no harm.
    for head in (b"", b"solid"):
        assert stl(tmp_path, head.ljust(80) + struct.pack("<I", 1) + row + b"more").num_faces == 1


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (
            bytes(80) + struct.pack("<I", 3) + bytes(120),
            r"a whole STL file; got .*a\.stl with 2 of 3 triangles\. It is cut short",
        ),
        (bytes(40), r"a readable STL file; got .*a\.stl of 40 bytes\. It is cut short"),
        (bytes(80) + struct.pack("<I", 0), r"a STL file with faces; got .*a\.stl without any"),
        (
            f"solid a\n{FACET}facet\n vertex 0 0 0\n vertex 1 0 0\n vertex 0 1\n",
            r"whole STL file; got .*a\.stl with 6 corners, 5 of",
        ),
        (f"solid a\n{FACET}".replace("1.0e0", "one"), r"could not convert string to float: b'one'"),
        (f"solid a\n{FACET}".replace("1.0e0", "nan"), r"`vertices` must be finite; got nan"),
    ],
)
def test_damaged_stl(tmp_path: pathlib.Path, data: str | bytes, message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        stl(tmp_path, data)
    assert str(caught.value).startswith("Mesh.load: `path` must be ") and "a.stl" in str(caught.value)


# --- OFF --------------------------------------------------------------------------------


def off(folder: pathlib.Path, text: str) -> gd.Mesh:
    (folder / "a.off").write_text(text)
    return gd.Mesh.load(folder / "a.off")


def test_off(tmp_path: pathlib.Path) -> None:
    arrow = "0 0 0\n2 0 0 # a corner\n2 2 0\n1 0.5 0\n"
    for head in ("OFF\n4 1 0\n", "OFF 4 1 0\n", " \t OFF4 1 0 # or so\n", "# of ours\n\noff\n4 1 4\n"):
        mesh = off(tmp_path, head + arrow + "4 1 2 3 0\n")
        assert float(mesh.face_areas.sum()) == pytest.approx(1.5) and mesh.face_colors is None
    colored = off(tmp_path, "OFF\n4 2 0\n" + arrow + "4 1 2 3 0 255 0 0\n3 0 1 3 0 51 0 255\n")
    assert torch.allclose(colored.face_colors, torch.tensor([[1.0, 0, 0], [1, 0, 0], [0, 0.2, 0]]))
    colored = off(tmp_path, "COFF\n3 1 0\n0 0 0 1 0 0 1\n1 0 0 0 0.5 0 1\n0 1 0 0 0 1 1\n3 0 1 2\n")
    assert colored.vertex_colors.tolist() == [[1, 0, 0], [0, 0.5, 0], [0, 0, 1]]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("OFF\n1000000000000 1 0\n", r"as long as its header says; got .*too few for 1000000000000 vertices"),
        ("OFF\n3 1 0\n0.000 0.000 0.000\n", r"cut short: 1 of 3 vertices and 0 of 1 faces"),
        ("OFF\n3 1 0\n0 0 0\n1 0 0\n0 1 0\n3 0 1 3\n", r"a vertex that is none of the 3"),
        ("OFF\n3 1 0\n0 0 0\n1 0 0\n0 1 0\n4 0 1 2\n", r"a face with fewer corners than it says"),
        ("OFF\n3 1 0\n0 0\n1 0\n0 1\n3 0 1 2\n", r"a vertex of 2 numbers"),
        ("OFF\n3 0 0\n0 0 0\n1 0 0\n0 1 0\n", r"it has no faces: a point cloud"),
        ("OFF BINARY\n", r"binary OFF is not read"),
        ("4OFF\n1 1 0\n", r"it begins with '4OFF'"),
        ("hello\n", r"it begins with 'hello'"),
    ],
)
def test_damaged_off(tmp_path: pathlib.Path, text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        off(tmp_path, text)
    assert str(caught.value).startswith("Mesh.load: `path` must be ") and "a.off" in str(caught.value)
