# SPDX-License-Identifier: Apache-2.0
"""glTF as its specification says: what is read, what is warned of, what is refused."""

import contextlib
import json
import math
import pathlib
import sys

import numpy as np
import pytest
import torch

import geodiff as gd
from tests.fuzz_files import gltf_file
from tests.gltf_files import File

TRIANGLE = [[0.0, 0, 0], [1, 0, 0], [0, 1, 0]]


def load(file: File, tmp_path: pathlib.Path, **more) -> gd.Mesh:
    return gd.Mesh.load(file.write(tmp_path / "a.glb"), **{"weld": False, **more})


def color_at(mesh: gd.Mesh, x: float, y: float) -> list[float]:
    """Return the colour that a camera above sees at (x, y), by the renderer."""
    camera = gd.Camera.look_at((x, y, 1.0), (x, y, 0), (0, 1, 0), fov_deg=0.01)
    return [round(c, 3) for c in gd.Renderer(1, outputs=("rgb",))(mesh, camera).rgb[0, 0].tolist()]


# --- accessors --------------------------------------------------------------------------


@pytest.mark.parametrize("ending", ["glb", "gltf", "external"])
def test_containers(tmp_path: pathlib.Path, ending: str) -> None:
    file = File()
    file.shown(file.triangle())
    path = tmp_path / ("a.glb" if ending == "glb" else "a.gltf")
    mesh = gd.Mesh.load(file.write(path, external=ending == "external"))
    assert mesh.vertices.tolist() == TRIANGLE and mesh.faces.tolist() == [[0, 1, 2]]
    if ending != "glb":
        path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
        assert gd.Mesh.load(path).num_faces == 1


@pytest.mark.parametrize("base", [True, False])
def test_sparse_accessors(tmp_path: pathlib.Path, base: bool) -> None:
    file = File()
    primitive = file.triangle()
    entry = file.tree["accessors"][primitive["attributes"]["POSITION"]]
    entry["sparse"] = {
        "count": 2,
        "indices": {"bufferView": file.view(np.array([1, 2], "u1").tobytes()), "componentType": 5121},
        "values": {"bufferView": file.view(np.array([[7, 8, 9], [-1, 0, 4]], "f4").tobytes())},
    }
    if not base:
        del entry["bufferView"]
    file.shown(primitive)
    assert load(file, tmp_path).vertices.tolist() == [[0, 0, 0], [7, 8, 9], [-1, 0, 4]]


@pytest.mark.parametrize(
    ("dtype", "most", "low"), [("int8", 127, -1.0), ("uint8", 255, 0), ("int16", 32767, -1.0), ("uint16", 65535, 0)]
)
def test_quantised_positions(tmp_path: pathlib.Path, dtype: str, most: int, low: float) -> None:
    """f = c / max, signed ones max(c / max, −1) (glTF 2.0, 3.6.2.2); raw numbers where not normalised."""
    rows = [[0, 0, 0], [most, 0, 0], [0, most // 2, np.iinfo(dtype).min]]
    for normal in (True, False):
        file = File()
        position = file.accessor(rows, dtype, stride=8, **({"normalized": True} if normal else {}))
        file.tree["extensionsRequired"] = ["KHR_mesh_quantization"]
        file.shown({"attributes": {"POSITION": position}})
        expected = np.array(rows, float)
        if normal:
            expected = np.array([[0, 0, 0], [1, 0, 0], [0, (most // 2) / most, low]])
        assert np.allclose(load(file, tmp_path, dtype=torch.float64).vertices, expected, atol=1e-15)


def test_quantised_texture_coordinates_and_strides(tmp_path: pathlib.Path) -> None:
    file = File()
    uv = file.accessor([[0, 0], [65535, 0], [0, 13107]], "uint16", normalized=True)
    file.shown(file.triangle(attributes={"TEXCOORD_0": uv}))
    assert np.allclose(load(file, tmp_path).uv, [[0, 1], [1, 1], [0, 0.8]], atol=1e-7)


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
@pytest.mark.parametrize("channels", [3, 4])
def test_colours_of_vertices_with_a_material(tmp_path: pathlib.Path, dtype: str, channels: int) -> None:
    """COLOR_0 and the base colour are multiplied (glTF 2.0, 3.9.2)."""
    rows = np.array([[1.0, 0.2, 0, 1], [1, 0.2, 0, 1], [1, 0.2, 0, 0.4]])[:, :channels]
    raw = rows if dtype == "float32" else np.rint(rows * np.iinfo(dtype).max)
    file = File()
    color = file.accessor(raw, dtype, **({} if dtype == "float32" else {"normalized": True}))
    material = file.add("materials", pbrMetallicRoughness={"baseColorFactor": [0.5, 1, 1, 1], "metallicFactor": 0})
    file.shown(file.triangle(attributes={"COLOR_0": color}, material=material))
    mesh = load(file, tmp_path)
    assert np.allclose(mesh.vertex_colors, rows, atol=1e-6)
    assert color_at(mesh, 0.3, 0.3) == [0.5, 0.2, 0.0]


# --- triangles --------------------------------------------------------------------------


def test_strips_fans_and_lists(tmp_path: pathlib.Path) -> None:
    corners = [[0, 0, 0], [1, 0, 0], [0, 1, 0], [1, 1, 0], [0, 2, 0]]
    for mode, order, faces in (
        (4, [0, 1, 2, 2, 1, 3], [[0, 1, 2], [2, 1, 3]]),
        (5, None, [[0, 1, 2], [1, 3, 2], [2, 3, 4]]),
        (5, [0, 1, 2, 2, 3, 3, 1, 4], [[0, 1, 2], [3, 4, 1]]),
        (6, [0, 1, 3, 4], [[1, 3, 0], [3, 4, 0]]),
    ):
        file = File()
        primitive = {"attributes": {"POSITION": file.accessor(corners)}, "mode": mode}
        if order is not None:
            primitive["indices"] = file.accessor(order, "uint8")
        file.shown(primitive)
        mesh = load(file, tmp_path)
        assert mesh.faces.tolist() == faces
    normals = mesh.face_normals[:, 2]
    assert (normals > 0).all()


def test_hierarchy_and_mirrors(tmp_path: pathlib.Path) -> None:
    """p = T·R·S·v down the tree; a mirrored node turns its triangles, so that fronts stay fronts."""
    file = File()
    mesh = file.add("meshes", primitives=[file.triangle()])
    half = math.sqrt(0.5)
    child = file.add("nodes", mesh=mesh, translation=[1, 0, 0], scale=[-2, 1, 1])
    root = file.add("nodes", children=[child], rotation=[0, 0, half, half], translation=[0, 0, 5])
    other = file.add("nodes", mesh=mesh, matrix=[1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 0, 7, 8, 9, 1])
    hidden = file.add("nodes", mesh=mesh)
    file.tree |= {"scene": 1, "scenes": [{"nodes": [hidden]}, {"nodes": [root, other]}]}
    found = load(file, tmp_path, dtype=torch.float64)
    # x ↦ 1 − 2x, then a quarter turn about z: (x, y) ↦ (−y, x), then up by 5.
    assert np.allclose(found.vertices[:3], [[0, 1, 5], [0, -1, 5], [-1, 1, 5]])
    assert np.allclose(found.vertices[3:], np.add(TRIANGLE, (7, 8, 9)))
    assert np.allclose(found.face_normals, [[0, 0, 1], [0, 0, 1]])


def test_instances(tmp_path: pathlib.Path) -> None:
    file = File()
    places = {
        "TRANSLATION": file.accessor([[0, 0, 0], [5, 0, 0], [0, 5, 0]]),
        "SCALE": file.accessor([[1, 1, 1], [2, 2, 2], [1, 1, 1]]),
        "ROTATION": file.accessor([[0, 0, 0, 32767]] * 3, "int16", normalized=True),
        "_ID": file.accessor([1, 2, 3], "uint8"),
    }
    file.tree["extensionsRequired"] = ["EXT_mesh_gpu_instancing"]
    file.shown(file.triangle(), translation=[0, 0, 1], extensions={"EXT_mesh_gpu_instancing": {"attributes": places}})
    base = np.array(TRIANGLE)
    expected = np.concatenate((np.add(base, (0, 0, 1)), np.add(2 * base, (5, 0, 1)), np.add(base, (0, 5, 1))))
    assert np.allclose(load(file, tmp_path).vertices, expected)
    places["SCALE"] = file.accessor([[1, 1, 1]])
    with pytest.raises(
        ValueError, match=r"Mesh\.load: `path` must be a readable GLB.*a\.glb.*instances of \[1, 3\] rows"
    ):
        load(file, tmp_path)


def test_morph_targets_and_skins_as_they_stand(tmp_path: pathlib.Path) -> None:
    file = File()
    target = {"POSITION": file.accessor([[0, 0, 2], [0, 0, 4], [0, 0, 0]])}
    mesh = file.add("meshes", primitives=[file.triangle(targets=[target])], weights=[0.5])
    file.add("nodes", mesh=mesh)
    file.add("nodes", mesh=mesh, weights=[1.0])
    z = load(file, tmp_path).vertices[:, 2]
    assert z.tolist() == [1, 2, 0, 2, 4, 0]
    file = File()
    joints = file.accessor([[0, 1, 0, 0]] * 3, "uint8")
    weights = file.accessor([[255, 0, 0, 0], [0, 255, 0, 0], [51, 204, 0, 0]], "uint8", normalized=True)
    root = file.add("nodes", translation=[0, 0, 10], children=[1])
    tip = file.add("nodes", translation=[0, 0, 10])
    bind = np.stack([np.eye(4), np.eye(4)])
    bind[1, :3, 3] = (0, 3, 0)
    inverse = file.accessor(bind.transpose(0, 2, 1).reshape(2, 16))
    file.tree["skins"] = [{"joints": [root, tip], "inverseBindMatrices": inverse}]
    primitive = file.triangle(attributes={"JOINTS_0": joints, "WEIGHTS_0": weights})
    file.shown(primitive, skin=0, translation=[100, 0, 0])  # its own place has no effect
    file.tree |= {"scene": 0, "scenes": [{"nodes": [root, 2]}]}
    found = load(file, tmp_path, dtype=torch.float64).vertices
    assert np.allclose(found, [[0, 0, 10], [1, 3, 20], [0, 1 + 0.8 * 3, 18]], atol=1e-12)


def test_one_mesh_with_two_skins(tmp_path: pathlib.Path) -> None:
    file = File()
    joints = {"JOINTS_0": file.accessor([[0, 0, 0, 0]] * 3, "uint8"), "WEIGHTS_0": file.accessor([[1, 0, 0, 0]] * 3)}
    mesh = file.add("meshes", primitives=[file.triangle(attributes=joints)])
    for k in (0, 1):
        joint = file.add("nodes", translation=[0, 0, 10 * k])
        file.tree.setdefault("skins", []).append({"joints": [joint]})
        file.add("nodes", mesh=mesh, skin=k)
    assert load(file, tmp_path).vertices[:, 2].tolist() == [0, 0, 0, 10, 10, 10]


def test_parts_with_the_same_vertices_share_them(tmp_path: pathlib.Path) -> None:
    file = File()
    square = file.square()
    lower = {**square, "indices": file.accessor([0, 1, 2], "uint8"), "material": file.add("materials")}
    upper = {**square, "indices": file.accessor([0, 2, 3], "uint8"), "material": file.add("materials")}
    file.shown(lower, upper)
    file.shown(lower, translation=[5, 0, 0])
    mesh = load(file, tmp_path)
    assert mesh.faces.tolist() == [[0, 1, 2], [0, 2, 3], [4, 5, 6]] and mesh.num_vertices == 8


def test_torn_vertices_are_joined(tmp_path: pathlib.Path) -> None:
    file = File()
    corners = [[0, 0, 0], [1, 0, 0], [0, 1, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0]]
    file.shown({"attributes": {"POSITION": file.accessor(corners)}})
    path = file.write(tmp_path / "a.glb")
    assert gd.Mesh.load(path).num_vertices == 4
    assert gd.Mesh.load(path, weld=False).num_vertices == 6


def test_points_lines_and_what_else_is_left_out_is_said(tmp_path: pathlib.Path) -> None:
    file = File()
    file.shown(file.triangle(), {**file.triangle(), "mode": 1})
    with pytest.warns(UserWarning, match=r"Mesh\.load: left out of .*a\.glb: points and lines$"):
        assert load(file, tmp_path).num_faces == 1
    surface = {"emissiveFactor": [1, 0, 0], "alphaMode": "MASK", "normalTexture": {"index": 0}}
    extensions = {"KHR_materials_clearcoat": {}, "KHR_materials_unlit": {}}
    file = File()
    file.shown(file.triangle(material=file.add("materials", extensions=extensions, **surface)))
    text = r"transparency \(alphaMode MASK\); emitted light; normal maps; KHR_materials_clearcoat$"
    with pytest.warns(UserWarning, match=text):
        load(file, tmp_path)


# --- looks ------------------------------------------------------------------------------

RED, GREEN, BLUE, WHITE = [255, 0, 0], [0, 255, 0], [0, 0, 255], [255, 255, 255]
FOUR = [[RED, GREEN], [BLUE, WHITE]]  # as seen, row 0 on top
NEAREST = {"minFilter": 9728, "magFilter": 9728}


def textured(**info) -> tuple[File, int]:
    file = File()
    source, sampler = file.image(FOUR), file.add("samplers", **NEAREST)
    texture = file.add("textures", source=source, sampler=sampler)
    look = {"baseColorTexture": {"index": texture, **info}, "metallicFactor": 0}
    return file, file.add("materials", pbrMetallicRoughness=look)


QUARTERS = (
    (0.2, 0.7),
    (0.7, 0.8),
    (0.3, 0.2),
    (0.8, 0.3),
)  # off the diagonal: top left, top right, bottom left, bottom right


def quarters(mesh: gd.Mesh, x: float = 0.0) -> list[list[int]]:
    return [[round(255 * c) for c in color_at(mesh, u + x, v)] for u, v in QUARTERS]


def test_a_texture_is_the_right_way_up(tmp_path: pathlib.Path) -> None:
    file, material = textured()
    file.shown(file.square(material=material))
    assert quarters(load(file, tmp_path)) == [RED, GREEN, BLUE, WHITE]


def test_other_coordinates_and_their_transform(tmp_path: pathlib.Path) -> None:
    file, material = textured(texCoord=1)
    swapped = file.accessor([[1, 1], [0, 1], [0, 0], [1, 0]])  # left and right
    file.shown(file.square(material=material, attributes={"TEXCOORD_1": swapped}))
    assert quarters(load(file, tmp_path)) == [GREEN, RED, WHITE, BLUE]
    # By half the picture to the right in u: each point shows what is half a picture further.
    move = {"KHR_texture_transform": {"offset": [0.5, 0.0], "texCoord": 0}}
    file, material = textured(texCoord=1, extensions=move)
    file.tree["extensionsRequired"] = ["KHR_texture_transform"]
    file.shown(file.square(material=material))
    assert quarters(load(file, tmp_path)) == [GREEN, RED, WHITE, BLUE]
    # The picture turns clockwise by a quarter, about the upper left corner, out of the square; repeated it comes back.
    turn = {"KHR_texture_transform": {"rotation": math.pi / 2}}
    file, material = textured(extensions=turn)
    file.shown(file.square(material=material))
    assert quarters(load(file, tmp_path)) == [BLUE, RED, WHITE, GREEN]
    half = {"KHR_texture_transform": {"scale": [0.5, 0.5], "offset": [0.5, 0]}}  # the upper right quarter
    file, material = textured(extensions=half)
    file.shown(file.square(material=material))
    assert quarters(load(file, tmp_path)) == [GREEN] * 4


def test_several_textures_that_tile_a_plain_part_and_unused_materials(tmp_path: pathlib.Path) -> None:
    """Sampled by the renderer, each square shows its own material, through its own sampler."""
    file, four = textured()
    stripes = file.image([[RED], [BLUE]])
    clamp = file.add("samplers", wrapS=10497, wrapT=33071, **NEAREST)
    look = {"baseColorTexture": {"index": file.add("textures", source=stripes, sampler=clamp)}, "metallicFactor": 0}
    striped = file.add("materials", pbrMetallicRoughness=look)
    plain = file.add("materials", pbrMetallicRoughness={"baseColorFactor": [0, 1, 0, 1], "metallicFactor": 0})
    file.add("materials", pbrMetallicRoughness={"baseColorTexture": {"index": 99}})  # used by nothing
    twice = file.accessor([[3.0, 2.0], [5.0, 2.0], [5.0, 0.0], [3.0, 0.0]])
    file.shown(file.square(material=four, attributes={"TEXCOORD_0": twice}))
    file.shown(file.square(material=striped, attributes={"TEXCOORD_0": twice}), translation=[2, 0, 0])
    file.shown(file.square(material=plain), translation=[4, 0, 0])
    file.shown(file.square(), translation=[6, 0, 0])
    mesh = load(file, tmp_path)
    assert [[round(255 * c) for c in color_at(mesh, *p)] for p in ((0.1, 0.9), (0.4, 0.9), (0.6, 0.9), (0.1, 0.2))] == [
        RED,
        GREEN,
        RED,
        BLUE,
    ]
    # v from 2 (below) to 0 (above) with its edge going on: the last row from the middle down.
    assert [[round(255 * c) for c in color_at(mesh, 2.3, y)] for y in (0.9, 0.6, 0.4, 0.1)] == [RED, BLUE, BLUE, BLUE]
    assert quarters(mesh, 4) == [GREEN] * 4
    assert quarters(mesh, 6) == [WHITE] * 4


@pytest.mark.parametrize(
    ("sampler", "expected"),
    [
        ({}, ("bilinear", False)),
        ({"minFilter": 9987, "magFilter": 9729}, ("bilinear", True)),
        ({"minFilter": 9984, "magFilter": 9728}, ("nearest", True)),
        ({"magFilter": 9728}, ("nearest", False)),
        ({"minFilter": 9986, "magFilter": 9729}, ("bilinear", True)),
        ({"minFilter": 9729, "magFilter": 9728}, ("nearest", False)),
    ],
)
def test_filters(tmp_path: pathlib.Path, sampler: dict, expected: tuple[str, bool]) -> None:
    file, material = textured()
    file.tree["samplers"] = [sampler or {"wrapS": 10497}]
    file.shown(file.square(material=material))
    path = file.write(tmp_path / "a.glb")
    differ = sampler == {"minFilter": 9729, "magFilter": 9728}
    with pytest.warns(UserWarning, match="filters for pictures made smaller") if differ else contextlib.nullcontext():
        texture = gd.Mesh.load(path).texture
    assert (texture.filter, texture.mipmaps) == expected


def test_a_grey_texture_of_two_by_two(tmp_path: pathlib.Path) -> None:
    file = File()
    texture = file.add("textures", source=file.image(np.full((2, 2, 4), [100, 100, 100, 255])))
    material = file.add("materials", pbrMetallicRoughness={"baseColorTexture": {"index": texture}, "metallicFactor": 0})
    file.shown(file.square(material=material))
    mesh = load(file, tmp_path)
    assert mesh.texture is not None and quarters(mesh) == [[100] * 3] * 4


def test_base_colours(tmp_path: pathlib.Path) -> None:
    file = File()
    red = file.add("materials", pbrMetallicRoughness={"baseColorFactor": [1, 0, 0, 1], "metallicFactor": 0})
    file.shown(file.square(material=red))
    mesh = load(file, tmp_path)
    assert mesh.face_colors is None and mesh.material.diffuse.tolist() == mesh.material.ambient.tolist() == [1, 0, 0]
    assert quarters(mesh) == [RED] * 4  # without lights too
    glossy = {"KHR_materials_pbrSpecularGlossiness": {"diffuseFactor": [0, 0, 1, 1]}}
    file.shown(file.square(material=file.add("materials", extensions=glossy)), translation=[2, 0, 0])
    both = load(file, tmp_path)
    assert quarters(both) == [RED] * 4 and quarters(both, 2) == [BLUE] * 4
    file.tree["materials"][0]["pbrMetallicRoughness"]["baseColorFactor"] = [-1, 0, 0, 1]
    with pytest.raises(ValueError, match=r"a\.glb.*materials\[0\] of base colour"):
        load(file, tmp_path)


# --- packed -----------------------------------------------------------------------------


def draco(tmp_path: pathlib.Path, required: bool = True) -> pathlib.Path:
    dracopy = pytest.importorskip("DracoPy")
    ball = gd.icosphere(1)
    uv = np.random.default_rng(0).random((ball.num_vertices, 2))
    packed = dracopy.encode(
        ball.vertices.numpy(), ball.faces.numpy().astype(np.uint32), tex_coord=uv, preserve_order=True
    )
    numbers = {a["attribute_type"]: a["unique_id"] for a in dracopy.decode(packed).attributes}
    file = File()
    entry = {"componentType": 5126, "count": ball.num_vertices, "type": "VEC3"}
    file.tree["accessors"] = [entry, {**entry, "type": "VEC2"}, {"componentType": 5123, "count": 240, "type": "SCALAR"}]
    inside = {"bufferView": file.view(packed), "attributes": {"POSITION": numbers[0], "TEXCOORD_0": numbers[3]}}
    primitive = {"attributes": {"POSITION": 0, "TEXCOORD_0": 1}, "indices": 2}
    file.shown({**primitive, "extensions": {"KHR_draco_mesh_compression": inside}})
    file.tree["extensionsRequired" if required else "extensionsUsed"] = ["KHR_draco_mesh_compression"]
    return file.write(tmp_path / "draco.glb")


@pytest.mark.parametrize("required", [True, False])
def test_draco(tmp_path: pathlib.Path, required: bool) -> None:
    ball = gd.icosphere(1)
    mesh = gd.Mesh.load(draco(tmp_path, required), weld=False)
    # Draco rounds positions to 14 bits of their extent, 2.
    assert torch.allclose(mesh.vertices[mesh.faces], ball.vertices[ball.faces], atol=2 / 2**14)
    assert mesh.uv is not None


def test_draco_without_what_unpacks_it(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = draco(tmp_path)
    monkeypatch.setitem(sys.modules, "DracoPy", None)
    with pytest.raises(
        ImportError, match=r'Mesh\.load: .*draco\.glb is packed with Draco.*pip install "geodiff\[draco\]"'
    ):
        gd.Mesh.load(path)


def test_meshopt(tmp_path: pathlib.Path) -> None:
    file = File()
    file.shown(file.triangle())
    file.tree["buffers"] = [{"byteLength": 36, "extensions": {"EXT_meshopt_compression": {"fallback": True}}}]
    packed = {
        "EXT_meshopt_compression": {"buffer": 0, "byteLength": 4, "byteStride": 12, "count": 3, "mode": "ATTRIBUTES"}
    }
    file.tree["bufferViews"][0] |= {"buffer": 1, "extensions": packed}
    with pytest.raises(ValueError, match=r"without extensions that are not read here; got .*packed with EXT_meshopt"):
        load(file, tmp_path)
    file.tree["bufferViews"][0]["buffer"] = 0  # with an unpacked copy
    assert load(file, tmp_path).num_faces == 1
    file.tree["extensionsRequired"] = ["EXT_meshopt_compression", "VENDOR_x"]
    with pytest.raises(ValueError, match=r"a\.glb, which requires EXT_meshopt_compression, VENDOR_x\. Save it without"):
        load(file, tmp_path)


# --- damage -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t["asset"].update(version="1.0"), r"glTF of version 2; got .* of version 1.0"),
        (lambda t: t.pop("asset"), r"no JSON object with an asset"),
        (lambda t: t["accessors"][0].update(count=10**12), r"too short for 1000000000000 rows"),
        (lambda t: (t["accessors"][0].pop("bufferView"), t["accessors"][0].update(count=10**12)), r"without data"),
        (lambda t: t["accessors"][0].update(count=-1), r"accessors\[0\] of -1 rows"),
        (lambda t: t["accessors"][0].update(componentType=1), r"KeyError: 1"),
        (lambda t: t["accessors"][0].update(byteOffset=-4), r"with offset -4"),
        (lambda t: t["bufferViews"][0].update(byteLength=10**9), r"bufferViews\[0\] reaches beyond its buffer"),
        (lambda t: t["bufferViews"][0].update(byteOffset=-1), r"bufferViews\[0\] reaches beyond its buffer"),
        (lambda t: t["bufferViews"][0].update(buffer=3), r"buffers\[3\] is not there"),
        (lambda t: t["nodes"][0].update(mesh=-1), r"meshes\[-1\] is not there"),
        (lambda t: t["nodes"][0].update(mesh=True), r"meshes\[True\] is not there"),
        (lambda t: t["nodes"].__setitem__(0, 7), r"nodes\[0\] is no object"),
        (lambda t: t["nodes"][0].update(children=[0]), r"no triangles in its scene"),
        (
            lambda t: t.update(nodes=[{"children": [1]}, {"children": [1]}], scenes=[{"nodes": [0]}]),
            r"hangs from two others",
        ),
        (lambda t: t["nodes"][0].update(scale=[1e400, 1, 1]), r"a node with a transform that is not finite"),
        (lambda t: t["nodes"][0].update(rotation="x"), r"Is it damaged"),
        (lambda t: t["meshes"][0]["primitives"][0].update(mode=9), r"a primitive of mode 9"),
        (lambda t: t["meshes"][0]["primitives"][0].update(mode=[]), r"a primitive of mode \[\]"),
        (lambda t: t["meshes"][0].update(primitives=[]), r"no triangles in its scene"),
    ],
)
def test_damaged(tmp_path: pathlib.Path, change, message: str) -> None:
    file = File()
    file.shown(file.triangle())
    path = file.write(tmp_path / "a.gltf", external=True)
    tree = json.loads(path.read_text())
    change(tree)
    path.write_text(json.dumps(tree))
    with pytest.raises(ValueError, match=message) as caught:
        gd.Mesh.load(path)
    assert str(caught.value).startswith("Mesh.load: `path` must be ") and "a.gltf" in str(caught.value)


def test_cut_short_and_missing_data(tmp_path: pathlib.Path) -> None:
    path = gltf_file().write(tmp_path / "a.glb")
    data = path.read_bytes()
    for length in (3, 11, 19, 200, len(data) - 1):
        path.write_bytes(data[:length])
        with pytest.raises(ValueError, match=r"^Mesh\.load: `path` must be a readable GLB file; got .*a\.glb"):
            gd.Mesh.load(path)
    file = File()
    file.shown(file.triangle())
    path = file.write(tmp_path / "b.gltf", external=True)
    (tmp_path / "b data.bin").write_bytes(b"abc")
    with pytest.raises(ValueError, match=r"b\.gltf \(buffer 0 is cut short: 3 bytes of 36"):
        gd.Mesh.load(path)
    (tmp_path / "b data.bin").unlink()
    with pytest.raises(FileNotFoundError, match=r"a file whose data is there; got .*b\.gltf, which names b data\.bin"):
        gd.Mesh.load(path)


def test_data_and_images_stay_in_the_folder(tmp_path: pathlib.Path) -> None:
    (tmp_path / "in").mkdir()
    file = File()
    material = file.add("materials", pbrMetallicRoughness={"baseColorTexture": {"index": 0}, "metallicFactor": 0})
    file.add("textures", source=file.add("images", uri="../secret.png"))
    file.shown(file.square(material=material))
    path = file.write(tmp_path / "in" / "a.gltf", external=True)
    gd.scene.images.write_image(tmp_path / "secret.png", torch.zeros(2, 2, 3))
    with pytest.warns(
        UserWarning, match=r"the image '\.\./secret\.png' \(outside of its folder: pass allow_outside=True\)"
    ):
        assert gd.Mesh.load(path).texture is None
    assert gd.Mesh.load(path, allow_outside=True).texture is not None
    (tmp_path / "in" / "a data.bin").rename(tmp_path / "a data.bin")
    path.write_text(path.read_text().replace("a%20data.bin", "../a%20data.bin"))
    with pytest.raises(
        ValueError, match=r"a file whose data lies in its folder; got .*a\.gltf, which names '\.\./a%20data"
    ):
        gd.Mesh.load(path)
    assert gd.Mesh.load(path, allow_outside=True).num_faces == 2
