# SPDX-License-Identifier: Apache-2.0
"""What `geodiff render` shows: colours, lights, backgrounds, outputs and animations."""

import gc
import importlib.util
import pathlib
import warnings
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image

import geodiff as gd
from geodiff.cli import main
from geodiff.tasks import appearance, render_views
from geodiff.tasks.animations import write_animation
from geodiff.tasks.render.views import animate

ORANGE = (0.9, 0.5, 0.1)
BYTES = 0.51 / 255  # rounding to 8 bits


def run(*arguments: Any) -> str:
    result = CliRunner().invoke(main, [str(a) for a in arguments])
    assert result.exit_code == 0, result.output
    return result.output


def refused(*arguments: Any) -> str:
    result = CliRunner().invoke(main, [str(a) for a in arguments])
    assert result.exit_code == 2, result.output
    return result.output


def frames_of(path: pathlib.Path) -> np.ndarray:
    import imageio.v3 as imageio

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)  # of the decoder's pipes
        frames = np.asarray(imageio.imread(path))
        gc.collect()
    return frames


def orange_ball() -> gd.Mesh:
    ball = gd.icosphere(2)
    return ball.with_attributes(vertex_colors=torch.tensor(ORANGE).expand(ball.num_vertices, 3))


def inside(images: gd.PosedImages) -> torch.Tensor:
    assert images.images is not None
    return images.images[images.alpha > 0.999]


# --- colours and lights -----------------------------------------------------------------------------------------------


def test_unlit_colors_are_those_of_the_mesh() -> None:
    seen = inside(render_views(orange_ball(), views=2, size=32, shading="unlit"))
    torch.testing.assert_close(seen, torch.tensor(ORANGE).expand(len(seen), 3), atol=1e-5, rtol=0)
    box = gd.box().with_attributes(face_colors=torch.rand(12, 3))
    seen = inside(render_views(box, views=3, size=32, shading="unlit", hard=True))
    distance = torch.cdist(seen, box.face_colors, compute_mode="donot_use_mm_for_euclid_dist")
    assert distance.min(1).values.max() < 1e-5 and len(distance.min(1).indices.unique()) >= 6
    image = torch.rand(4, 4, 3)
    flat = gd.plane(2.0).with_attributes(texture=gd.Texture(image, filter="nearest"))
    seen = inside(render_views(flat, views=1, size=48, elevation=80, shading="unlit", hard=True))
    distance = torch.cdist(seen, image.reshape(-1, 3), compute_mode="donot_use_mm_for_euclid_dist")
    assert distance.min(1).values.max() < 1e-5


def test_default_lights_show_colors_about_as_they_are() -> None:
    seen = inside(render_views(orange_ball(), views=4, size=32))
    ratio = seen / torch.tensor(ORANGE)
    assert 0.8 < float(ratio.mean()) < 1.0 and float(ratio.min()) > 0.4
    # The light follows the viewer: all views of a ball are alike.
    views = render_views(orange_ball(), views=4, size=32).images
    assert float((views - views[:1]).abs().mean()) < 0.01


def test_lights_by_lambert_s_law() -> None:
    """Seen from the side of the light: brightness 0.2 + 0.7 n·l, with n the position on the unit ball."""
    lights = [gd.AmbientLight(0.2), gd.DirectionalLight((0, 0, 1), 0.7)]
    ball = gd.icosphere(4)
    images = render_views(ball, views=1, size=64, elevation=0, lights=lights, shading="lambert", hard=True, fov=5)
    hard = gd.rasterize(ball, images.cameras, 64)
    corners = ball.vertices[ball.faces[hard.face_id[hard.mask]]]
    normal = torch.nn.functional.normalize((hard.barycentric[hard.mask][..., None] * corners).sum(-2), dim=-1)
    expected = 0.2 + 0.7 * normal[:, 2].clamp(min=0)
    assert images.images is not None
    torch.testing.assert_close(images.images[hard.mask][:, 0], expected, atol=5e-3, rtol=0)  # normals of the vertices


def test_overexposed_pictures_are_told_of(tmp_path: pathlib.Path) -> None:
    ball = gd.icosphere(2).with_attributes(vertex_colors=torch.ones(162, 3))
    bright = [gd.AmbientLight(0.4), gd.DirectionalLight((0, 0, 1), 1.6)]
    text = r"render_views: \d\d % of what is seen is overexposed, up to (1.9|2) where 1 is white, and is clip"
    with pytest.warns(UserWarning, match=text):
        seen = render_views(ball, views=1, size=32, elevation=0, lights=bright).images
    assert seen is not None and float(seen.max()) == 1.0
    render_views(ball, views=1, size=32)  # lights around the viewer do not
    ball.save(tmp_path / "ball.ply")
    with pytest.warns(UserWarning, match="overexposed"):
        run("render", tmp_path / "ball.ply", "-o", tmp_path / "out", "--views", 1, "--ambient", 3)


def test_a_mesh_without_looks_stays_grey() -> None:
    grey = inside(render_views(gd.box(), views=2, size=24))
    assert float((grey.max(-1).values - grey.min(-1).values).max()) < 0.08


def test_sharp_edges_are_split_and_smooth_ones_are_not() -> None:
    assert appearance.ready(gd.icosphere(3)).num_vertices == 642
    box = appearance.ready(gd.box())
    assert box.num_vertices == 24
    torch.testing.assert_close(box.vertex_normals[box.faces], box.face_normals[:, None].expand(-1, 3, 3))
    split = gd.torus().with_attributes(face_colors=torch.rand(gd.torus().num_faces, 3))
    loose = gd.Mesh(split.vertices[split.faces].reshape(-1, 3), np.arange(3 * split.num_faces).reshape(-1, 3))
    assert appearance.ready(loose).num_vertices == appearance.ready(split).num_vertices == split.num_vertices
    cone = appearance.ready(gd.cylinder())
    torch.testing.assert_close(cone.vertices[cone.faces], gd.cylinder().vertices[gd.cylinder().faces])


# --- backgrounds and coverage -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "color"),
    [
        ("white", (1, 1, 1)),
        ("#336699", (0.2, 0.4, 0.6)),
        ("0.1,0.2,0.9", (0.1, 0.2, 0.9)),
        ("rgb(255,0,51)", (1, 0, 0.2)),
    ],
)
def test_backgrounds_by_name(text: str, color: tuple[float, ...]) -> None:
    images = render_views(orange_ball(), views=1, size=(20, 30), background=text)
    assert images.images is not None
    torch.testing.assert_close(images.images[0, 0, 0], torch.tensor(color, dtype=torch.float32), atol=1e-6, rtol=0)
    bare = render_views(orange_ball(), views=1, size=(20, 30))
    alpha = images.alpha[..., None]
    expected = bare.images * alpha + torch.tensor(color, dtype=torch.float32) * (1 - alpha)
    torch.testing.assert_close(images.images, expected, atol=1e-5, rtol=0)
    torch.testing.assert_close(images.alpha, bare.alpha)


def test_background_from_a_file(tmp_path: pathlib.Path) -> None:
    half = np.zeros((40, 60, 3), dtype=np.uint8)
    half[:, :30] = 200
    Image.fromarray(half).save(tmp_path / "half.png")
    images = render_views(orange_ball(), views=1, size=(20, 30), background=tmp_path / "half.png")
    assert images.images is not None
    assert images.images[0, 0, 0].tolist() == pytest.approx([200 / 255] * 3, abs=BYTES)
    assert images.images[0, 0, -1].tolist() == pytest.approx([0] * 3, abs=BYTES)


def test_soft_coverage_is_the_renderer_s() -> None:
    images = render_views(orange_ball(), views=1, size=32, coverage="contour", scale_px=2.0, supersample=1)
    expected = gd.Renderer(32, coverage="contour", scale_px=2.0)(orange_ball(), images.cameras).alpha
    torch.testing.assert_close(images.alpha, expected, atol=1e-5, rtol=0)
    hard = render_views(orange_ball(), views=1, size=32, hard=True)
    assert torch.equal(hard.alpha, gd.rasterize(orange_ball(), hard.cameras, 32).mask.float())


# --- the command ------------------------------------------------------------------------------------------------------


def test_the_folder_is_read_by_fit_mesh_whatever_the_background(tmp_path: pathlib.Path) -> None:
    orange_ball().save(tmp_path / "ball.ply")
    common = ("render", tmp_path / "ball.ply", "--views", 2, "--size", "20x30")
    run(*common, "-o", tmp_path / "plain")
    run(*common, "-o", tmp_path / "ground", "--background", "navy", "--light", 1, 1, 1, 0.7, "--shading", "phong")
    plain, ground = (gd.PosedImages.load(tmp_path / name) for name in ("plain", "ground"))
    torch.testing.assert_close(plain.alpha, ground.alpha, atol=2 * BYTES, rtol=0)
    with Image.open(tmp_path / "ground" / "images" / "000.png") as picture:
        assert picture.mode == "RGB" and picture.getpixel((0, 0)) == (0, 0, 128)
    with Image.open(tmp_path / "plain" / "images" / "000.png") as picture:
        assert picture.mode == "RGBA"


def test_outputs(tmp_path: pathlib.Path) -> None:
    orange_ball().save(tmp_path / "ball.ply")
    names = ("depth", "normal", "face_id", "alpha")
    said = run("render", tmp_path / "ball.ply", "--views", 2, "--size", 24, "--hard", "-o", tmp_path / "out",
               "--outputs", "depth,normal, face_id,rgb,alpha")  # fmt: skip
    assert all(f"{name} " in said for name in names)
    cameras = gd.PosedImages.load(tmp_path / "out").cameras
    hard = gd.rasterize(gd.Mesh.load(tmp_path / "ball.ply"), cameras, 24)
    maps = {name: np.load(tmp_path / "out" / name / "001.npy") for name in names}
    mask = hard.mask[1].numpy()
    np.testing.assert_allclose(maps["depth"][mask], hard.depth[1].numpy()[mask], rtol=1e-5)
    assert np.isinf(maps["depth"][~mask]).all() and (maps["face_id"] == hard.face_id[1].numpy()).all()
    assert maps["normal"].shape == (24, 24, 3) and (maps["alpha"] == mask).all()
    for name in names:
        with Image.open(tmp_path / "out" / name / "000.png") as picture:
            assert picture.size == (24, 24) and picture.getextrema()[0][1] > 200


def test_turntables(tmp_path: pathlib.Path) -> None:
    box = gd.box().with_attributes(face_colors=torch.rand(12, 3, generator=torch.Generator().manual_seed(0)))
    box.save(tmp_path / "box.ply")
    common = ("render", tmp_path / "box.ply", "--views", 6, "--size", "32x41", "--supersample", 2)
    assert "6 frames" in run(*common, "--animate", tmp_path / "turn.gif")
    first = (tmp_path / "turn.gif").read_bytes()
    run(*common, "--animate", tmp_path / "turn.gif", "-o", tmp_path / "both")
    assert (tmp_path / "turn.gif").read_bytes() == first and (tmp_path / "both" / "transforms.json").is_file()
    with Image.open(tmp_path / "turn.gif") as film:
        assert film.n_frames == 6 and film.size == (41, 32) and film.info["loop"] == 0 and film.info["duration"] == 40
        corner = film.convert("RGB").getpixel((0, 0))
        assert min(corner) > 240
    if importlib.util.find_spec("imageio_ffmpeg") is not None:
        animate(box, tmp_path / "turn.mp4", frames=6, size=(32, 41), background="black", supersample=1)
        frames = frames_of(tmp_path / "turn.mp4")
        assert frames.shape == (6, 32, 40, 3) and frames[:, 0, 0].max() < 8 and frames.max() > 60
        first = (tmp_path / "turn.mp4").read_bytes()
        animate(box, tmp_path / "turn.mp4", frames=6, size=(32, 41), background="black", supersample=1)
        assert (tmp_path / "turn.mp4").read_bytes() == first


def test_a_gif_of_few_colors_is_exact(tmp_path: pathlib.Path) -> None:
    frames = [np.zeros((8, 9, 3), dtype=np.uint8) for _ in range(5)]
    for k, frame in enumerate(frames):
        frame[k, :, k % 3] = 50 * (k + 1)
    write_animation(tmp_path / "a.gif", frames, 10, "test")
    with Image.open(tmp_path / "a.gif") as film:
        for k, frame in enumerate(frames):
            film.seek(k)
            assert np.abs(np.asarray(film.convert("RGB")).astype(int) - frame).max() <= 1


def test_errors(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gd.box().save(tmp_path / "box.obj")
    mesh, out = tmp_path / "box.obj", ("-o", tmp_path / "out")
    assert "`output` must be given where there is no --animate" in refused("render", mesh)
    assert "`background` must be a colour (a name," in refused("render", mesh, *out, "--background", "bluish")
    assert "`background` must be in [0, 1]" in refused("render", mesh, *out, "--background", "0,0,300")
    assert "`path` must be an image that exists" in refused("render", mesh, *out, "--background", "none.png")
    assert "`outputs` must be one of alpha, rgb" in refused("render", mesh, *out, "--outputs", "deep")
    assert "`animate` must be one of gif, mp4" in refused("render", mesh, "--animate", tmp_path / "a.avi")
    assert "ending in .gif or .mp4" in refused("render", mesh, "--animate", tmp_path / "a")
    (tmp_path / "folder.gif").mkdir()
    assert "render: `animate` must be a file; got the folder" in refused(
        "render", mesh, "--animate", tmp_path / "folder.gif"
    )
    assert "`outputs` must be left out where there is no -o" in refused(
        "render", mesh, "--animate", tmp_path / "a.gif", "--outputs", "depth"
    )
    assert not (tmp_path / "out").exists()
    with pytest.raises(ValueError, match="`shading` must be one of unlit"):
        render_views(gd.box(), views=1, shading="toon")
    with pytest.raises(ValueError, match="`coverage` must be one of hard"):
        render_views(gd.box(), views=1, coverage="soft")
    with pytest.raises(ValueError, match="`supersample` must be an integer ≥ 1"):
        render_views(gd.box(), views=1, supersample=0)
    with pytest.raises(TypeError, match="`lights` must be a light or a sequence of lights"):
        render_views(gd.box(), views=1, lights=0.5)
    with pytest.raises(ValueError, match="`background` must be a colour"):
        render_views(gd.box(), views=1, background=torch.rand(4, 4))
    with pytest.raises(ValueError, match="animate: `fps` must be at most 100"):
        animate(gd.box(), tmp_path / "a.gif", fps=200)
    with pytest.raises(OSError, match="`path` must be in a folder that can be written to"):
        animate(gd.box(), tmp_path / "box.obj" / "a.gif", frames=1, size=8)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r"imageio-ffmpeg, which writes MP4, is not installed.*geodiff\[video\]"):
        animate(gd.box(), tmp_path / "a.mp4")


def test_files_of_a_former_run_are_told(tmp_path: pathlib.Path) -> None:
    """They stay where they are: nobody knows whether a set of images is ours."""
    gd.box().save(tmp_path / "box.ply")
    out = tmp_path / "out"
    call = ("render", tmp_path / "box.ply", "--size", 8, "-o", out)
    said = run(*call, "--views", 4, "--outputs", "depth,normal", "--alpha-bits", 16)
    assert "Of a former" not in said
    assert "Of a former" not in run(*call, "--views", 4, "--outputs", "depth,normal", "--alpha-bits", 16)
    (out / "images" / "own.png").write_bytes(b"of somebody else's")
    said = run(*call, "--views", 3, "--outputs", "depth")
    # An image, all masks, a depth and all normals, both in two formats.
    left = f"{1 + 4 + 2 + 8} files such as {out / 'normal' / '003.png'}"
    assert f"Of a former run, and no longer in transforms.json: {left}" in said
    assert (out / "images" / "003.png").exists() and len(gd.PosedImages.load(out)) == 3
    (out / "transforms.json").write_text("{}")
    assert "Of a former" not in run(*call, "--views", 1)


def test_alpha_bits_are_checked_before_the_work(tmp_path: pathlib.Path) -> None:
    gd.box().save(tmp_path / "box.ply")
    told = refused("render", tmp_path / "box.ply", "-o", tmp_path / "out", "--alpha-bits", 12)
    assert "render: `alpha_bits` must be 8 or 16; got 12" in told and not (tmp_path / "out").exists()
