# SPDX-License-Identifier: Apache-2.0
"""GLB that we write: what other programs see, and looks that come back."""

import contextlib
import json
import pathlib
import struct

import numpy as np
import pytest
import torch
import trimesh

import geodiff as gd

# Colours are stored in 8 bits.
BYTE = 0.5 / 255 + 1e-6
LIGHTS = [gd.AmbientLight(0.7), gd.DirectionalLight((0.2, 0.3, 1.0), 0.5)]


def tree(path: pathlib.Path) -> dict:
    data = path.read_bytes()
    assert data[:4] == b"glTF" and struct.unpack_from("<I", data, 8)[0] == len(data)
    (length,) = struct.unpack_from("<I", data, 12)
    return json.loads(data[20 : 20 + length])


def square(**more) -> gd.Mesh:
    return gd.Mesh([[-1.0, -1, 0], [1, -1, 0], [1, 1, 0], [-1, 1, 0]], [[0, 1, 2], [0, 2, 3]], **more)


def sheet(**more) -> gd.Mesh:
    """One triangle that covers the whole image."""
    return gd.Mesh([[-50.0, -50, 0], [50, -50, 0], [0, 70, 0]], [[0, 1, 2]], **more)


UV = torch.tensor([[0.0, 0], [1, 0], [1, 1], [0, 1]])
LOOKS = {
    "plain": {},
    "white texture": {"uv": UV, "texture": torch.ones(2, 2, 3)},
    "grey texture": {"uv": UV, "texture": torch.full((2, 2, 4), 1.0) * torch.tensor([100, 100, 100, 255]) / 255},
    "one channel": {"uv": UV, "texture": torch.tensor([[[0.2], [1.0]]])},
    "uv alone": {"uv": UV},
    "vertex colours": {"vertex_colors": torch.tensor([[1.0, 0, 0], [0, 1, 0], [0, 0, 1], [0.2, 0.4, 0.6]])},
    "grey vertex colours": {"vertex_colors": torch.tensor([[1.0], [0.2], [0.4], [0.6]])},
    "alpha": {"vertex_colors": torch.tensor([[1.0, 0, 0, 0.2], [0, 1, 0, 1], [0, 0, 1, 1], [0, 1, 1, 0.4]])},
    "face colours": {"face_colors": torch.tensor([[1.0, 0.5, 0.2], [0, 0.25, 1]])},
    "grey face colours": {"face_colors": torch.tensor([[0.5], [0.25]])},
    "face colours and all": {
        "uv": UV,
        "texture": torch.rand(3, 4, 3),
        "vertex_colors": torch.rand(4, 3),
        "face_colors": torch.tensor([[1.0, 0.5, 0.2], [0, 0.25, 1]]),
        "material": gd.Material(ambient=0.5, diffuse=(0.5, 1.0, 0.25), specular=0.6, shininess=7.0),
    },
    "all": {"uv": UV, "texture": torch.rand(3, 4, 3), "vertex_colors": torch.rand(4, 3)},
    "material": {"material": gd.Material(diffuse=(1.0, 0.5, 0.0), ambient=0.5, specular=0.3, shininess=9.0)},
    "all and material": {
        "uv": UV,
        "texture": torch.rand(3, 4, 3),
        "vertex_colors": torch.rand(4, 3),
        "material": gd.Material(diffuse=(1.0, 0.5, 0.0)),
    },
}


@pytest.mark.parametrize("ending", ["glb", "obj"])
@pytest.mark.parametrize("lights", [None, LIGHTS], ids=["unlit", "lit"])
@pytest.mark.parametrize("name", LOOKS)
def test_looks_come_back(tmp_path: pathlib.Path, name: str, lights: list | None, ending: str) -> None:
    mesh = square(**LOOKS[name])
    said = "OBJ does not hold the alpha of vertex_colors" if (name, ending) == ("alpha", "obj") else None
    with pytest.warns(UserWarning, match=said) if said else contextlib.nullcontext():
        mesh.save(tmp_path / f"a.{ending}")
    again = gd.Mesh.load(tmp_path / f"a.{ending}")
    assert torch.equal(again.vertices, mesh.vertices) and torch.equal(again.faces, mesh.faces)
    camera = gd.Camera.look_at((0.2, 0.1, 3.0), (0, 0, 0), (0, 1, 0), fov_deg=45)
    render = gd.Renderer(12, outputs=("rgb",))
    before, after = (render(m, camera, lights).rgb for m in (mesh, again))
    assert torch.allclose(before, after, atol=2 * BYTE)


def test_white_in_white_light_is_white_before_and_after(tmp_path: pathlib.Path) -> None:
    mesh = sheet(uv=UV[:3], texture=torch.ones(2, 2, 3))
    camera = gd.Camera.look_at((0, 0, 3.0), (0, 0, 0), (0, 1, 0), fov_deg=20)
    render = gd.Renderer(8, outputs=("rgb",))
    mesh.save(tmp_path / "a.glb")
    for one in (mesh, gd.Mesh.load(tmp_path / "a.glb"), gd.Mesh.from_trimesh(trimesh.load_mesh(tmp_path / "a.glb"))):
        assert torch.allclose(render(one, camera, [gd.AmbientLight(1.0)]).rgb, torch.ones(()), atol=1e-3)


@pytest.mark.parametrize("name", LOOKS)
def test_other_programs_see_a_matt_surface_of_two_sides(tmp_path: pathlib.Path, name: str) -> None:
    """The numbers of the specification: factor 1 (or the diffuse colour), metallic 0, rough, doubleSided."""
    mesh = square(**LOOKS[name])
    mesh.save(tmp_path / "a.glb")
    found = tree(tmp_path / "a.glb")
    primitives, materials = found["meshes"][0]["primitives"], found["materials"]
    assert [p["material"] for p in primitives] == list(range(len(materials))) == list(range(len(primitives)))
    if mesh.face_colors is not None:
        seen = [m["pbrMetallicRoughness"]["baseColorFactor"][:3] for m in materials]
        diffuse = torch.ones(3) if mesh.material is None else mesh.material.diffuse
        assert np.allclose(seen, (mesh.face_colors * diffuse).numpy(), atol=1e-6)
        return
    (material,), (primitive,) = materials, primitives
    assert material["doubleSided"] is True
    surface = material["pbrMetallicRoughness"]
    assert (surface["metallicFactor"], surface["roughnessFactor"]) == (0.0, 1.0)
    base = [1.0, 1, 1, 1] if mesh.material is None else [1.0, 0.5, 0, 1]
    assert surface["baseColorFactor"] == pytest.approx(base)
    assert ("baseColorTexture" in surface) == (mesh.texture is not None)
    assert ("TEXCOORD_0" in primitive["attributes"]) == (mesh.uv is not None)
    assert ("COLOR_0" in primitive["attributes"]) == (mesh.vertex_colors is not None)
    for view in found["bufferViews"]:
        assert view["byteOffset"] % 4 == 0
    peer = trimesh.load_mesh(tmp_path / "a.glb", process=False)
    assert np.allclose(peer.vertices, mesh.vertices) and np.array_equal(peer.faces, mesh.faces)


def light_of(number: float) -> float:
    """sRGB as IEC 61966-2-1 has it."""
    return number / 12.92 if number <= 0.04045 else ((number + 0.055) / 1.055) ** 2.4


def accessor(path: pathlib.Path, name: str) -> np.ndarray:
    """Read an attribute of the first primitive as the specification says, with nothing of ours."""
    found, data = tree(path), path.read_bytes()
    entry = found["accessors"][found["meshes"][0]["primitives"][0]["attributes"][name]]
    view = found["bufferViews"][entry["bufferView"]]
    start = 20 + struct.unpack_from("<I", data, 12)[0] + 8 + view["byteOffset"]
    dtype = {5121: np.uint8, 5123: np.uint16, 5126: np.float32}[entry["componentType"]]
    rows = np.frombuffer(data[start : start + view["byteLength"]], dtype).reshape(entry["count"], -1)
    return rows / np.iinfo(dtype).max if entry.get("normalized") else rows


@pytest.mark.parametrize("flag", ["srgb", "unlit"])
@pytest.mark.parametrize("name", LOOKS)
def test_colours_of_photographs(tmp_path: pathlib.Path, name: str, flag: str) -> None:
    """COLOR_0 and baseColorFactor are linear, baseColorTexture is sRGB (glTF 2.0, 3.7.2.1 and 3.9.2)."""
    mesh, plain = square(**LOOKS[name]), tmp_path / "plain.glb"
    mesh.save(plain)
    path = tmp_path / "a.glb"
    mesh.save(path, **{flag: True})
    found, before = tree(path), tree(plain)
    assert found.get("extensionsUsed") == (["KHR_materials_unlit"] if flag == "unlit" else None)
    assert "extensionsRequired" not in found and "extensionsUsed" not in before and "extras" not in before["asset"]
    for material, raw in zip(found["materials"], before["materials"], strict=True):
        assert material.get("extensions") == ({"KHR_materials_unlit": {}} if flag == "unlit" else None)
        factor, numbers = (m["pbrMetallicRoughness"]["baseColorFactor"] for m in (material, raw))
        assert factor == pytest.approx([*map(light_of, numbers[:3]), numbers[3]], abs=1e-12)
    if mesh.vertex_colors is not None:
        now, numbers = accessor(path, "COLOR_0"), accessor(plain, "COLOR_0")
        assert np.allclose(now[:, :3], np.vectorize(light_of)(numbers[:, :3]), atol=2.4 * BYTE)
        assert np.allclose(now[:, 3], numbers[:, 3], atol=BYTE)
    if mesh.texture is not None:  # the very same picture
        old, new = (gd.Mesh.load(file).texture for file in (plain, path))
        assert old is not None and new is not None and torch.equal(old.image, new.image)
    peer = trimesh.load_mesh(path, process=False)
    assert np.allclose(peer.triangles, mesh.vertices[mesh.faces])
    again = gd.Mesh.load(path)  # without a warning
    camera = gd.Camera.look_at((0.2, 0.1, 3.0), (0, 0, 0), (0, 1, 0), fov_deg=45)
    for lights in (None, LIGHTS):
        one, other = (gd.Renderer(12, outputs=("rgb",))(m, camera, lights).rgb for m in (mesh, again))
        assert torch.allclose(one, other, atol=2 * BYTE)


def test_vertex_colours_of_photographs_come_back_in_all_their_bits(tmp_path: pathlib.Path) -> None:
    strip = gd.plane(resolution=15)
    colors = torch.arange(256)[:, None].expand(256, 3) / 255
    assert strip.num_vertices == len(colors)
    strip.with_attributes(vertex_colors=colors).save(tmp_path / "a.glb", unlit=True)
    again = gd.Mesh.load(tmp_path / "a.glb").vertex_colors
    assert again is not None and float((again - colors).abs().max()) < 12.92 / 65535  # far below a byte's 1/510
    stored = accessor(tmp_path / "a.glb", "COLOR_0")[:, 0]
    assert np.allclose(stored, [light_of(k / 255) for k in range(256)], atol=1 / 65535)


@pytest.mark.parametrize("flag", ["srgb", "unlit"])
def test_white_stays_white(tmp_path: pathlib.Path, flag: str) -> None:
    colors = torch.ones(4, 3)
    square(vertex_colors=colors).save(tmp_path / "a.glb", **{flag: True})
    again = gd.Mesh.load(tmp_path / "a.glb")
    assert again.material is None  # a base colour a bit below 1 would ask for one
    assert again.vertex_colors is not None and torch.equal(again.vertex_colors, colors)


def test_flags_of_colours(tmp_path: pathlib.Path) -> None:
    for name in ("srgb", "unlit"):
        with pytest.raises(TypeError, match=rf"Mesh\.save: `{name}` must be True or False; got int 1"):
            square().save(tmp_path / "a.glb", **{name: 1})
    assert not (tmp_path / "a.glb").exists()
    square(vertex_colors=torch.full((4, 3), 0.5)).save(tmp_path / "a.ply", unlit=True)
    colors = gd.Mesh.load(tmp_path / "a.ply").vertex_colors
    assert colors is not None and torch.allclose(colors, torch.tensor(0.5), atol=BYTE)


@pytest.mark.parametrize("name", ["plain", "uv alone", "white texture", "material"])
def test_trimesh_gets_no_dark_metal(name: str) -> None:
    mesh = square(**LOOKS[name])
    visual = gd.Mesh.to_trimesh(mesh).visual
    if name == "plain":
        return
    assert visual.material.metallicFactor == 0.0 and visual.material.doubleSided
    seen = np.asarray(visual.material.baseColorFactor, dtype=float)
    seen = seen / 255 if seen.max() > 1 else seen
    assert seen[:3] == pytest.approx([1, 1, 1] if mesh.material is None else [1, 0.5, 0], abs=BYTE)
    again = gd.Mesh.from_trimesh(gd.Mesh.to_trimesh(mesh))
    assert (again.texture is None) == (mesh.texture is None)
    assert (again.material is None) == (mesh.material is None)
    if mesh.material is not None:
        assert torch.allclose(again.material.diffuse, mesh.material.diffuse, atol=BYTE)


def test_trimesh_materials(tmp_path: pathlib.Path) -> None:
    box = trimesh.creation.box()
    made_up = trimesh.visual.TextureVisuals(uv=np.zeros((8, 2)))
    red = trimesh.visual.TextureVisuals(material=trimesh.visual.material.SimpleMaterial(diffuse=[255, 0, 0, 255]))
    for visual, expected in ((made_up, None), (red, [1.0, 0, 0])):
        box.visual = visual
        mesh = gd.Mesh.from_trimesh(box)
        assert mesh.texture is None
        assert (mesh.material is None) if expected is None else mesh.material.diffuse.tolist() == expected
    with pytest.warns(UserWarning, match="trimesh holds one of vertex_colors, material: only vertex_colors kept"):
        square(vertex_colors=torch.ones(4, 3), material=gd.Material(diffuse=0.5)).to_trimesh()
    with pytest.raises(ValueError, match=r"to_trimesh: `material` must be without a batch"):
        square(material=gd.Material(diffuse=torch.ones(2, 3))).to_trimesh()


def test_colours_of_an_odd_number_of_channels(tmp_path: pathlib.Path) -> None:
    for ending in ("glb", "obj"):
        expected = (
            rf"Mesh\.save: `vertex_colors` must be of 1, 3 or 4 channels in {ending.upper()} files; got 2 channels"
        )
        with pytest.raises(ValueError, match=expected):
            square(vertex_colors=torch.ones(4, 2)).save(tmp_path / f"a.{ending}")
    with pytest.raises(ValueError, match=r"to_trimesh: `vertex_colors` must be of 1, 3 or 4 channels; got 2 channels"):
        square(vertex_colors=torch.ones(4, 2)).save(tmp_path / "a.ply")
    for channels in (1, 3, 4):
        colors = torch.tensor([[0.2, 0.4, 0.6, 1.0]]).expand(4, 4)[:, :channels]
        square(vertex_colors=colors).save(tmp_path / "a.ply")
        found = gd.Mesh.load(tmp_path / "a.ply").vertex_colors
        assert torch.allclose(found, colors[:, :3].expand(4, 3), atol=BYTE)


def test_a_materials_colour_is_seen_without_lights() -> None:
    camera = gd.Camera.orbit(4.0, 0, [0.0, 40.0], fov_deg=20)
    render = gd.Renderer(6, outputs=("rgb",))
    red = gd.Material(ambient=0.3, diffuse=(1.0, 0.2, 0.0))
    assert torch.allclose(render(sheet(material=red), camera).rgb, torch.tensor([1.0, 0.2, 0.0]), atol=1e-4)
    colors = torch.tensor([0.5, 0.5, 1.0]).expand(3, 3)
    both = render(sheet(material=red, vertex_colors=colors), camera).rgb
    assert torch.allclose(both, torch.tensor([0.5, 0.1, 0.0]), atol=1e-4)
    each = gd.Material(diffuse=torch.tensor([[1.0, 0, 0], [0, 0, 1]], requires_grad=True))
    image = render(sheet(material=each), camera).rgb
    assert torch.allclose(image[0], torch.tensor([1.0, 0, 0]), atol=1e-4)
    assert torch.allclose(image[1], torch.tensor([0.0, 0, 1]), atol=1e-4)
    (gradient,) = torch.autograd.grad(image.sum(), each.diffuse)
    assert torch.allclose(gradient, torch.full((2, 3), 36.0), rtol=1e-3)
