# SPDX-License-Identifier: Apache-2.0
"""Colours of a mesh from photographs, against the colours that were photographed."""

import dataclasses
import json
import math
import pathlib
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image

import geodiff as gd
from geodiff import tasks
from geodiff.cli import main
from geodiff.tasks.mesh import harmonics

GOLDEN = 180 * (3 - math.sqrt(5))
HEIGHTS = [math.degrees(math.asin(-0.75 + 1.5 * (i + 0.5) / 12)) for i in range(12)]
CAMERAS = gd.Camera.orbit(2.8, torch.tensor(HEIGHTS), torch.arange(12) * GOLDEN % 360, fov_deg=45)
BALL = gd.icosphere(3)
LAMPS = [gd.AmbientLight(0.4), gd.DirectionalLight((1, 2, 3), 0.6)]


def paint(p: torch.Tensor) -> torch.Tensor:
    x, y, z = (4 * p).unbind(-1)
    return 0.5 + 0.3 * torch.stack([torch.sin(x + torch.sin(y)), torch.cos(y - z), torch.sin(1.3 * z)], -1)


def photographs(mesh: gd.Mesh, size: int = 64, lights: list[gd.AmbientLight] | None = None) -> gd.PosedImages:
    shading = "unlit" if lights is None else "phong"
    render = gd.Renderer(size, coverage="hard", outputs="rgb", supersample=4, shading=shading)
    out = render(mesh, CAMERAS, lights)
    colors = (out.rgb / out.alpha.clamp_min(1e-6)[..., None]).clamp(0, 1)
    return gd.PosedImages(colors, out.alpha.clamp(0, 1), CAMERAS)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_vertices(dtype: torch.dtype) -> None:
    painted = BALL.with_attributes(vertex_colors=paint(BALL.vertices)).to(dtype=dtype)
    posed = photographs(painted)
    before = [posed.images.clone(), posed.alpha.clone()]
    found = tasks.fit_colors(BALL.to(dtype=dtype), posed, kind="vertices", views=range(1, 12))
    assert found.mesh.dtype == dtype and found.seen == 1
    seen_well = BALL.vertices[:, 1] > -0.85  # no camera is below; there, vertices are seen aslant and by few pixels
    assert float((found.mesh.vertex_colors - painted.vertex_colors)[seen_well].abs().max()) < 0.01
    assert float(found.psnr[0]) > 45 and float(found.ssim.min()) > 0.99  # view 0 is held out
    assert torch.equal(before[0], posed.images) and torch.equal(before[1], posed.alpha)


def test_a_texture_knows_more_than_vertices() -> None:
    pytest.importorskip("xatlas", reason="xatlas is not installed (the extra 'texture')")
    fine = gd.icosphere(5)
    posed = photographs(fine.with_attributes(vertex_colors=paint(3 * fine.vertices)), 96)
    coarse = {
        kind: tasks.fit_colors(BALL, posed, kind=kind, size=256, views=range(1, 12)) for kind in ("vertices", "texture")
    }
    assert float(coarse["texture"].psnr[0]) > float(coarse["vertices"].psnr[0]) + 6
    assert float(coarse["texture"].psnr[0]) > 32
    # What a viewer shows: the renderer's own picture of the mesh, without anything else that was returned.
    out = gd.Renderer(96, coverage="hard", outputs="rgb", supersample=2)(coarse["texture"].mesh, CAMERAS[0])
    both = (out.alpha >= 0.999) & (posed.alpha[0] >= 0.999)
    assert float(gd.render.psnr(out.rgb, posed.images[0], both)) > 32
    again = tasks.fit_colors(BALL, posed, size=256, views=range(1, 12))
    assert torch.equal(again.mesh.texture.image, coarse["texture"].mesh.texture.image)


def test_lamps_are_taken_out() -> None:
    painted = BALL.with_attributes(vertex_colors=paint(BALL.vertices))
    posed = photographs(painted, lights=LAMPS)
    found = tasks.fit_colors(BALL, posed, kind="vertices", lights=LAMPS)
    assert float((found.mesh.vertex_colors - painted.vertex_colors).abs().max()) < 0.03
    baked = tasks.fit_colors(BALL, posed, kind="vertices")
    assert float((baked.mesh.vertex_colors - painted.vertex_colors).abs().max()) > 0.15
    assert float(found.psnr.min()) > 38


def test_light_of_a_grey_ball() -> None:
    grey = BALL.with_attributes(vertex_colors=torch.full_like(BALL.vertices, 0.5))
    found = tasks.fit_colors(BALL, photographs(grey, lights=LAMPS), kind="vertices", lights="harmonics")
    assert found.harmonics is not None and found.harmonics.shape == (9, 3)
    # Brightest towards the lamp, and the colours no longer know of it.
    directions = torch.nn.functional.normalize(BALL.vertices, dim=-1)
    light = (harmonics.basis(directions) @ found.harmonics)[:, 0]
    towards = directions @ torch.nn.functional.normalize(torch.tensor([1.0, 2.0, 3.0]), dim=0)
    assert float(torch.corrcoef(torch.stack([light, towards.clamp_min(0)]))[0, 1]) > 0.95
    baked = tasks.fit_colors(BALL, photographs(grey, lights=LAMPS), kind="vertices")
    spread = [float(r.mesh.vertex_colors.std(0).mean() / r.mesh.vertex_colors.mean()) for r in (found, baked)]
    assert spread[0] < 0.3 * spread[1] and float(found.psnr.mean()) > 32


def between(mesh: gd.Mesh, hard: Any, values: torch.Tensor) -> torch.Tensor:
    """What values at vertices are at the pixels of a hard image."""
    return (values[mesh.faces[hard.face_id.clamp_min(0)]] * hard.barycentric[..., None]).sum(-2)


def test_light_inside_an_open_mesh() -> None:
    # A bowl of one colour, seen from both sides: each side is lit by what its own normal faces.
    bowl = gd.Mesh(BALL.vertices, BALL.faces[BALL.vertices[BALL.faces][..., 2].mean(-1) < 0])
    light = torch.zeros(9, 3)
    light[0], light[2] = 0.6, 0.2  # from +z, which the inside faces
    azimuths = torch.tensor([0.0, 20.0, 180.0, 160.0])
    eyes = gd.Camera.orbit(2.8, torch.tensor([10.0, -10.0, 5.0, -5.0]), azimuths, fov_deg=45)
    images = []
    for i, side in enumerate((-1, -1, 1, 1)):
        hard = gd.rasterize(bowl, eyes[i], 64)
        at = torch.nn.functional.normalize(between(bowl, hard, bowl.vertices), dim=-1)
        images.append(0.5 * harmonics.basis(side * at) @ light * hard.mask[..., None])
    posed = gd.PosedImages(torch.stack(images).clamp(0, 1), gd.rasterize(bowl, eyes, 64).mask.float(), eyes)
    found = tasks.fit_colors(bowl, posed, kind="vertices", lights="harmonics", samples=1)
    assert float(found.psnr.min()) > 30
    value = (harmonics.basis(torch.tensor([[0.0, 0.0, 1.0], [0.0, 0.0, -1.0]])) @ found.harmonics)[:, 0]
    assert float(value[0] / value[1]) > 1.5  # as it is: brighter from +z, though the outside faces -z


def trimesh_picture(scene: Any, camera: gd.Camera, size: int) -> torch.Tensor:
    """Draw what trimesh has read: its triangles, its coordinates, its image, by the rules of glTF."""
    (part,) = scene.geometry.values()
    image = np.asarray(part.visual.material.baseColorTexture.convert("RGB"), dtype=np.float32) / 255
    height, width = image.shape[:2]
    mesh = gd.Mesh(torch.tensor(np.array(part.vertices), dtype=torch.float32), torch.tensor(np.array(part.faces)))
    hard = gd.rasterize(mesh, camera, size)
    uv = between(mesh, hard, torch.tensor(np.array(part.visual.uv), dtype=torch.float32)).numpy()
    # trimesh turns glTF's v, which runs down from the first row, upwards.
    x, y = uv[..., 0] * width - 0.5, (1 - uv[..., 1]) * height - 0.5
    out = np.zeros((size, size, 3), np.float32)
    for dx in (0, 1):
        for dy in (0, 1):
            column, row = np.floor(x).astype(int) + dx, np.floor(y).astype(int) + dy
            share = (1 - abs(x - column)) * (1 - abs(y - row))
            out += share[..., None] * image[row.clip(0, height - 1), column.clip(0, width - 1)]
    return torch.from_numpy(out) * hard.mask[..., None]


def test_others_see_the_texture_that_was_found(tmp_path: pathlib.Path) -> None:
    trimesh = pytest.importorskip("trimesh", reason="trimesh is not installed")
    pytest.importorskip("xatlas", reason="xatlas is not installed (the extra 'texture')")
    ball = gd.icosphere(2)
    posed = photographs(gd.icosphere(4).with_attributes(vertex_colors=paint(gd.icosphere(4).vertices)), 64)
    found = tasks.fit_colors(ball, posed, size=128)
    found.save(tmp_path / "ball.glb")
    scene = trimesh.load(tmp_path / "ball.glb", process=False)
    ours = gd.Renderer(96, coverage="hard", outputs="rgb")(found.mesh, CAMERAS[3])
    theirs = trimesh_picture(scene, CAMERAS[3], 96)
    assert float((ours.rgb - theirs).abs().max()) < 1.1 / 255 + 1e-3  # 8 bits
    (part,) = scene.geometry.values()
    assert part.visual.material.baseColorFactor is None or (part.visual.material.baseColorFactor == 255).all()
    data = (tmp_path / "ball.glb").read_bytes()
    tree = json.loads(data[20 : 20 + int.from_bytes(data[12:16], "little")])
    assert tree["samplers"][0]["wrapS"] == tree["samplers"][0]["wrapT"] == 33071  # clamp to the edge
    assert tree["images"][0]["mimeType"] == "image/png"
    # What is baked in shall not be lit again; what was taken out shall.
    assert tree["extensionsUsed"] == ["KHR_materials_unlit"] and "extensionsRequired" not in tree
    assert tree["materials"][0]["extensions"] == {"KHR_materials_unlit": {}}
    for without in (dataclasses.replace(found, lights=LAMPS), dataclasses.replace(found, harmonics=torch.zeros(9, 3))):
        without.save(tmp_path / "lit.glb")
        assert b"KHR_materials_unlit" not in (tmp_path / "lit.glb").read_bytes()


def test_the_picture_is_lit_by_the_lamps_that_were_given(tmp_path: pathlib.Path) -> None:
    painted = BALL.with_attributes(vertex_colors=paint(BALL.vertices))
    posed = photographs(painted, lights=LAMPS)
    fit = tasks.fit_mesh(posed, vertex_colors=True, lights=LAMPS, steps=1, output=tmp_path, progress=False)
    assert fit.colors.lights == LAMPS
    with Image.open(tmp_path / "side_by_side.png") as page:
        pixels = np.asarray(page.convert("RGB")).astype(float)
    first, second = pixels[20:170], pixels[186:336]  # targets over fits, both on the same ground
    assert abs(first - second).mean() < 6


def test_a_view_of_nothing_leaves_the_mean_of_the_others(tmp_path: pathlib.Path) -> None:
    posed = photographs(BALL.with_attributes(vertex_colors=paint(BALL.vertices)), 32)
    posed.alpha[3] = 0
    with pytest.warns(UserWarning, match="the mask of view 003 is empty"):
        tasks.fit_mesh(posed, vertex_colors=True, steps=1, output=tmp_path, progress=False)
    measured = json.loads((tmp_path / "metrics.json").read_text())
    assert measured["psnr_train"] > 20 and measured["ssim_train"] > 0.8


def test_the_basis_is_orthonormal() -> None:
    ball = gd.icosphere(5)
    values = harmonics.basis(torch.nn.functional.normalize(ball.vertices.double(), dim=-1))
    a, b, c = ball.vertices.double()[ball.faces].unbind(1)
    area = torch.linalg.cross(b - a, c - a).norm(dim=-1) / 2
    at = values[ball.faces].mean(1)
    product = (at * area[:, None]).T @ at / area.sum()
    assert torch.allclose(product, torch.eye(9, dtype=torch.float64), atol=2e-3)


def test_what_no_view_sees_takes_the_colours_around() -> None:
    painted = BALL.with_attributes(vertex_colors=torch.tensor([0.8, 0.3, 0.1]).expand(642, 3))
    posed = photographs(painted)
    found = tasks.fit_colors(BALL, posed, kind="vertices", views=[0])
    assert 0.2 < found.seen < 0.6
    assert torch.allclose(found.mesh.vertex_colors, painted.vertex_colors, atol=0.01)


def test_a_layout_of_ones_own(tmp_path: pathlib.Path) -> None:
    uv = torch.tensor([[0.0, 0.0], [1.0, 0.0], [1.0, 1.0], [0.0, 1.0]])
    square = gd.Mesh(torch.tensor([[-1.0, -1, 0], [1, -1, 0], [1, 1, 0], [-1, 1, 0]]), [[0, 1, 2], [0, 2, 3]], uv=uv)
    image = torch.rand(16, 16, 3, generator=torch.Generator().manual_seed(0))
    cameras = gd.Camera.orbit(3.0, torch.tensor([0.0, 20.0, -20.0]), torch.tensor([0.0, 20.0, -25.0]), fov_deg=45)
    render = gd.Renderer(96, coverage="hard", outputs="rgb", supersample=2)
    out = render(square.with_attributes(texture=gd.Texture(image, wrap="clamp")), cameras)
    posed = gd.PosedImages((out.rgb / out.alpha.clamp_min(1e-6)[..., None]).clamp(0, 1), out.alpha, cameras)
    posed.save(tmp_path)
    found = tasks.fit_colors(square, tmp_path, size=16)
    assert torch.equal(found.mesh.uv, uv)
    # A pixel is a sixth of a texel: the image itself, but for the rim and 8 bits.
    assert float((found.mesh.texture.image - image)[1:-1, 1:-1].abs().max()) < 0.05


def test_from_photographs_to_a_file(tmp_path: pathlib.Path) -> None:
    pytest.importorskip("xatlas", reason="xatlas is not installed (the extra 'texture')")
    ring = gd.torus(0.6, 0.25)
    posed = photographs(ring.with_attributes(vertex_colors=paint(ring.vertices)), 64)
    posed.save(tmp_path / "views")
    result = CliRunner().invoke(
        main, ["fit-mesh", str(tmp_path / "views"), "-o", str(tmp_path / "out"), "--texture", "--texture-size", "256"]
    )
    assert result.exit_code == 0, result.output
    assert "PSNR" in result.output
    metrics = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert metrics["psnr_held_out"] > 28 and metrics["ssim_held_out"] > 0.95 and metrics["iou_held_out"] > 0.9
    mesh = gd.Mesh.load(tmp_path / "out" / "mesh.glb")
    # Whole, though its texture has seams; with the hole (and what else twelve silhouettes leave open).
    plain = gd.Mesh.load(tmp_path / "out" / "mesh.obj")
    assert mesh.is_closed and mesh.euler_characteristic == plain.euler_characteristic <= 0
    # The file shows what was found: the held-out views, 0 and 6, as read, in 8 bits.
    out = gd.Renderer(64, coverage="hard", outputs="rgb", supersample=2)(mesh, CAMERAS[[0, 6]])
    both = (out.alpha >= 0.999) & (posed.alpha[[0, 6]] >= 0.999)
    quality = gd.render.psnr(out.rgb, posed.images[[0, 6]], both).mean()
    assert float(quality) == pytest.approx(metrics["psnr_held_out"], abs=0.2)
    with Image.open(tmp_path / "out" / "side_by_side.png") as page:
        assert np.asarray(page.convert("RGB")).std() > 10


def test_colours_are_asked_of_masks() -> None:
    masks = gd.PosedImages(None, photographs(BALL.with_attributes(vertex_colors=paint(BALL.vertices))).alpha, CAMERAS)
    with pytest.raises(ValueError, match="`images` must be in colour"):
        tasks.fit_mesh(masks, vertex_colors=True, progress=False)
    with pytest.raises(ValueError, match="`vertex_colors` must be False with `texture`"):
        tasks.fit_mesh(masks, vertex_colors=True, texture=True, progress=False)
    with pytest.raises(ValueError, match="`light` must be"):
        tasks.fit_mesh(masks, light="sun", progress=False)
    with pytest.raises(TypeError, match="`texture` must be True or False"):
        tasks.fit_mesh(masks, texture=1, progress=False)


def test_what_cannot_be_coloured() -> None:
    masks = gd.PosedImages(None, torch.ones(12, 8, 8), CAMERAS)
    with pytest.raises(ValueError, match="`images` must be with colours"):
        tasks.fit_colors(BALL, masks)
    posed = gd.PosedImages(torch.ones(12, 8, 8, 3), torch.zeros(12, 8, 8), CAMERAS)
    with pytest.raises(ValueError, match="`mesh` must be seen in some view"):
        tasks.fit_colors(BALL, posed, kind="vertices")
    with pytest.raises(ValueError, match="one mesh of vertices"):
        tasks.fit_colors(gd.Mesh(BALL.vertices[None], BALL.faces), posed)
    with pytest.raises(TypeError, match="`images` must be PosedImages"):
        tasks.fit_colors(BALL, torch.ones(12, 8, 8, 3))
    seen = photographs(BALL.with_attributes(vertex_colors=paint(BALL.vertices)), 24)
    for dark in ([], [gd.AmbientLight(0.0)]):
        with pytest.raises(ValueError, match="`lights` must be lamps that light the mesh"):
            tasks.fit_colors(BALL, seen, kind="vertices", lights=dark)
    with pytest.raises(ValueError, match="`views` must be one view or more"):
        tasks.fit_colors(BALL, seen, views=[])
    for view in (0.5, 12, -1):
        with pytest.raises((TypeError, ValueError), match="`views` must be an integer"):
            tasks.fit_colors(BALL, seen, views=[view])
    for name, value in (("kind", "paint"), ("size", 3), ("samples", 0), ("lights", "sun")):
        with pytest.raises(ValueError, match=f"`{name}` must be"):
            tasks.fit_colors(BALL, posed, **{name: value})


@pytest.mark.parametrize("lights", ["baked", "harmonics"])
def test_bytes_of_files_give_the_same_colours_and_are_never_all_in_numbers(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, lights: str
) -> None:
    path = photographs(BALL.with_attributes(vertex_colors=paint(BALL.vertices)), 32).save(tmp_path)
    numbers = gd.PosedImages.load(path)
    numbers.images += 0.0
    how = {"template": BALL, "vertex_colors": True, "light": lights, "steps": 1, "progress": False}
    expected = tasks.fit_mesh(numbers, **how)
    whole = gd.PosedImages.images.fget

    def images(self: gd.PosedImages) -> torch.Tensor | None:
        assert self._photographs is None, "all photographs at once"
        return whole(self)

    monkeypatch.setattr(gd.PosedImages, "images", property(images, gd.PosedImages.images.fset))
    found = tasks.fit_mesh(path, output=tmp_path / "out", **how)
    assert torch.equal(found.mesh.vertices, expected.mesh.vertices)
    assert torch.equal(found.mesh.vertex_colors, expected.mesh.vertex_colors)
    for name in ("psnr", "ssim"):
        assert torch.equal(getattr(found.colors, name), getattr(expected.colors, name))


def test_light_from_a_part_of_the_pixels(monkeypatch: pytest.MonkeyPatch) -> None:
    light = torch.zeros(9, 3)
    light[0], light[1], light[3] = 0.6, 0.15, torch.tensor([0.1, 0.05, 0.0])
    images = []
    for i in range(12):
        hard = gd.rasterize(BALL, CAMERAS[i], 64)
        at = torch.nn.functional.normalize(between(BALL, hard, BALL.vertices), dim=-1)
        images.append(0.7 * harmonics.basis(at) @ light * hard.mask[..., None])
    posed = gd.PosedImages(torch.stack(images).clamp(0, 1), gd.rasterize(BALL, CAMERAS, 64).mask.float(), CAMERAS)
    every = tasks.fit_colors(BALL, posed, kind="vertices", lights="harmonics", samples=1)
    monkeypatch.setattr("geodiff.tasks.mesh.colors._MOST_LIT", 12 * 200)  # of some 900 a view
    part = tasks.fit_colors(BALL, posed, kind="vertices", lights="harmonics", samples=1)
    assert not torch.equal(every.harmonics, part.harmonics)
    assert torch.allclose(every.harmonics, part.harmonics, atol=0.01)
    assert float(part.psnr.min()) > 40


def test_the_gloss_of_the_surface_is_taken_out_with_the_lamps() -> None:
    gloss = gd.Material(specular=0.9, shininess=12.0)
    posed = photographs(BALL.with_attributes(vertex_colors=paint(BALL.vertices), material=gloss), lights=LAMPS)
    quality = {}
    for name, material in (("told", gloss), ("not told", None)):
        how = {"template": BALL, "vertex_colors": True, "photometric": False, "steps": 1, "progress": False}
        fit = tasks.fit_mesh(posed, lights=LAMPS, material=material, **how)
        assert str(fit.mesh.material) == str(material)
        quality[name] = float(fit.colors.psnr[fit.held_out].mean())
    assert quality["told"] > quality["not told"] + 3, quality
    plain = tasks.fit_mesh(posed, material=gloss, template=BALL, steps=1, progress=False)
    assert str(plain.mesh.material) == str(gloss)  # without colours, too


@pytest.mark.parametrize(
    ("wrong", "error", "match"),
    [
        ({"material": 0.5}, TypeError, "`material` must be a Material; got"),
        ({"material": gd.Material(diffuse=torch.rand(3, 3))}, ValueError, "`material` must be without a batch; got"),
        ({"lights": 3}, TypeError, "`lights` must be a light or a sequence of lights; got int 3"),
        ({"lights": "lamps"}, ValueError, "`lights` must be one of baked, harmonics; got 'lamps'"),
        ({"lights": []}, ValueError, "`lights` must be one lamp or more; got none"),
        ({"lights": gd.AmbientLight(torch.rand(3, 3))}, ValueError, "`lights` must be without a batch"),
    ],
)
def test_lamps_and_material_are_checked_before_the_work(wrong: dict, error: type, match: str) -> None:
    def never(_: object) -> None:
        raise AssertionError("the work has begun")

    how = {"template": BALL, "vertex_colors": True, "steps": 1, "progress": False, "callback": never}
    with pytest.raises(error, match=f"fit_mesh: {match}"):
        tasks.fit_mesh(photographs(BALL), **how, **wrong)
