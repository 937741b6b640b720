# SPDX-License-Identifier: Apache-2.0
import json
import math
import pathlib

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

import geodiff as gd
from geodiff.scene.images import write_image

# Poses pass through a product of float32 matrices on the way.
POSE = 2e-6


def some(count: int = 4, height: int = 6, width: int = 8, **orbit) -> gd.PosedImages:
    rgba = torch.randint(0, 256, (count, height, width, 4)) / 255
    cameras = gd.Camera.orbit(3.0, 20, torch.arange(count) * 50.0, **{"fov_deg": 40, **orbit})
    return gd.PosedImages(rgba, cameras=cameras)


def same_cameras(one: gd.Camera, other: gd.Camera) -> None:
    for name in ("rotation", "translation", "focal", "principal"):
        assert torch.allclose(getattr(one, name), getattr(other, name), atol=POSE, rtol=POSE), name


def write(folder: pathlib.Path, image: torch.Tensor | None = None, frame: dict | None = None, **meta) -> pathlib.Path:
    """Write a transforms.json of one frame that is right but for what is passed."""
    write_image(folder / "a.png", torch.rand(6, 8, 4) if image is None else image)
    frames = [{"file_path": "a.png", "transform_matrix": np.eye(4).tolist(), **(frame or {})}]
    content = {"camera_angle_x": 0.8, "frames": frames, **meta}
    (folder / "transforms.json").write_text(json.dumps({k: v for k, v in content.items() if v is not None}))
    return folder


# --- round trips ------------------------------------------------------------------------


@pytest.mark.parametrize("bits", [8, 16])
def test_round_trip(tmp_path: pathlib.Path, bits: int) -> None:
    posed = some()
    if bits == 16:
        posed = gd.PosedImages(posed.images, torch.rand_like(posed.alpha), posed.cameras, ["a", "b/c", "b/d", "e"])
    path = posed.save(tmp_path / "deep" / "set", alpha_bits=bits)
    for source in (path, path.parent):
        again = gd.PosedImages.load(source)
        assert torch.equal(again.images, posed.images)
        assert torch.allclose(again.alpha, posed.alpha, atol=0.51 / (2**bits - 1))
        same_cameras(again.cameras, posed.cameras)
        assert again.names == posed.names


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=20)
@given(
    st.integers(1, 9),
    st.integers(1, 9),
    st.floats(5, 150),
    st.floats(0.5, 2),
    st.floats(-1, 1),
    st.floats(-1, 1),
    st.booleans(),
)
def test_any_pinhole_camera_round_trips(
    tmp_path: pathlib.Path, height: int, width: int, fov: float, stretch: float, px: float, py: float, shared: bool
) -> None:
    base = gd.Camera.orbit(2.0, -30, [10.0, 200.0], fov_deg=fov if shared else [fov, fov / 2])
    focal = base.focal * torch.tensor([1.0, stretch])
    cameras = gd.Camera(base.rotation, base.translation, focal, (px, py))
    gd.PosedImages(None, torch.ones(2, height, width), cameras).save(tmp_path)
    meta = json.loads((tmp_path / "transforms.json").read_text())
    assert ("fl_x" in meta) == shared
    same_cameras(gd.PosedImages.load(tmp_path).cameras, cameras)


def test_masks_alone_are_saved_white(tmp_path: pathlib.Path) -> None:
    alpha = torch.randint(0, 256, (4, 6, 8)) / 255
    gd.PosedImages(None, alpha, some().cameras).save(tmp_path)
    again = gd.PosedImages.load(tmp_path)
    assert torch.equal(again.alpha, alpha)
    assert (again.images == 1).all()


def test_saving_over_an_older_set_leaves_nothing_else(tmp_path: pathlib.Path) -> None:
    some().save(tmp_path)
    posed = some(count=2, height=3)
    posed.save(tmp_path)
    assert len(gd.PosedImages.load(tmp_path)) == 2
    assert sorted(p.name for p in tmp_path.iterdir()) == ["images", "transforms.json"]


def test_a_killed_save_leaves_no_transforms(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    def killed(path: pathlib.Path, image: torch.Tensor, bits: int) -> None:
        calls.append(path)
        if len(calls) == 3:
            raise KeyboardInterrupt
        write_image(path, image, bits)

    monkeypatch.setattr("geodiff.scene.files.write_image", killed)
    with pytest.raises(KeyboardInterrupt):
        some().save(tmp_path)
    assert list(tmp_path.iterdir()) == []


# --- what others write ---------------------------------------------------------------------


def test_blender_layout(tmp_path: pathlib.Path) -> None:
    """The horizontal field, OpenGL camera-to-world matrices, no ending on the file name, another name of the JSON."""
    image = torch.rand(6, 8, 4)
    c, s = math.cos(0.3), math.sin(0.3)
    matrix = [[c, 0, s, 3 * s], [0, 1, 0, 0.5], [-s, 0, c, 3 * c], [0, 0, 0, 1]]
    write(tmp_path, image, {"file_path": "./a", "transform_matrix": matrix, "rotation": 0.1}, camera_angle_x=0.6)
    (tmp_path / "transforms.json").rename(tmp_path / "transforms_train.json")
    posed = gd.PosedImages.load(tmp_path)
    assert posed.names == ["a"]
    assert torch.allclose(posed.cameras.position, torch.tensor([[3 * s, 0.5, 3 * c]]), atol=POSE)
    assert torch.allclose(posed.cameras.forward, torch.tensor([[-s, 0, -c]]), atol=POSE)
    # A point at the edge of the horizontal field is seen at the edge of the image.
    edge = torch.tensor([[math.tan(0.3), 0, -1.0]]) @ posed.cameras.rotation[0] + posed.cameras.position
    assert torch.allclose(posed.cameras.project(edge, (6, 8))[0, 0, :2], torch.tensor([8.0, 3.0]), atol=1e-4)


def test_pixel_intrinsics_of_each_frame(tmp_path: pathlib.Path) -> None:
    lens = {"fl_x": 10.0, "fl_y": 12.0, "cx": 3.5, "cy": 2.5, "w": 8, "h": 6}
    write(tmp_path, frame=lens, camera_angle_x=None, camera_model="OPENCV", k1=0.0, p1=0)
    posed = gd.PosedImages.load(tmp_path, dtype=torch.float64)
    expected = torch.tensor([[10.0, 0, 3.5], [0, 12, 2.5], [0, 0, 1]], dtype=torch.float64)
    assert torch.allclose(posed.cameras.K((6, 8))[0], expected)
    assert posed.alpha.dtype == torch.float64
    write(tmp_path, camera_angle_x=None, fl_x=10)
    expected = torch.tensor([[10.0, 0, 4], [0, 10, 3], [0, 0, 1]])
    assert torch.allclose(gd.PosedImages.load(tmp_path).cameras.K((6, 8))[0], expected)
    write(tmp_path, camera_angle_y=0.5)
    fy = float(gd.PosedImages.load(tmp_path).cameras.K((6, 8))[0, 1, 1])
    assert fy == pytest.approx(3 / math.tan(0.25), rel=1e-6)


def test_three_row_matrices_and_near(tmp_path: pathlib.Path) -> None:
    write(tmp_path, frame={"transform_matrix": np.eye(4)[:3].tolist()})
    posed = gd.PosedImages.load(tmp_path, near=0.5)
    assert posed.cameras.near == 0.5
    assert (posed.cameras.position == 0).all()


@pytest.mark.parametrize("channels", [1, 3])
def test_an_image_without_colour_is_a_mask(tmp_path: pathlib.Path, channels: int) -> None:
    grey = torch.randint(0, 256, (6, 8, 1)) / 255
    write(tmp_path, grey.expand(-1, -1, channels))
    assert torch.equal(gd.PosedImages.load(tmp_path).alpha[0], grey[..., 0])


@pytest.mark.parametrize("kind", ["grey", "colour", "alpha", "palette"])
def test_mask_path(tmp_path: pathlib.Path, kind: str) -> None:
    mask = (torch.rand(6, 8, 1) > 0.5).float()
    if kind == "palette":
        Image.fromarray((mask[..., 0].numpy() * 255).astype(np.uint8)).convert("P").save(tmp_path / "mask.png")
    else:
        full = {"grey": mask, "colour": mask.expand(-1, -1, 3), "alpha": torch.cat((torch.rand(6, 8, 3), mask), -1)}
        write_image(tmp_path / "mask.png", full[kind])
    write(tmp_path, torch.rand(6, 8, 3), {"mask_path": "mask.png"})
    assert torch.equal(gd.PosedImages.load(tmp_path).alpha[0], mask[..., 0])


def test_opaque(tmp_path: pathlib.Path) -> None:
    write(tmp_path, torch.rand(6, 8, 3))
    with pytest.raises(
        ValueError, match=r"images with an alpha channel or a `mask_path`; got colour without.*opaque=True"
    ):
        gd.PosedImages.load(tmp_path)
    assert (gd.PosedImages.load(tmp_path, opaque=True).alpha == 1).all()


# --- in memory -----------------------------------------------------------------------------


def test_subsets() -> None:
    posed = some(13)
    train, test = posed.hold_out(every=6)
    assert test.names == ["000", "006", "012"]
    assert len(train) == 10
    assert sorted(train.names + test.names) == posed.names
    assert torch.equal(test.images[1], posed.images[6])
    assert torch.equal(test.cameras.translation[1], posed.cameras.translation[6])
    some_, rest = posed.split(torch.tensor([5, 2]))
    assert some_.names == ["002", "005"]
    assert len(rest) == 11
    assert posed[2:4].names == ["002", "003"]
    assert posed[[3, 1]].names == ["003", "001"]
    assert bool(posed)


def test_repr_and_to() -> None:
    assert repr(some()) == "PosedImages(4 images of 6×8, float32, cpu)"
    assert some().image_size == (6, 8)
    moved = some().to(dtype=torch.float64)
    assert moved.alpha.dtype == moved.images.dtype == moved.cameras.dtype == torch.float64


def test_rounding_beyond_one_is_let_pass() -> None:
    posed = some()
    assert gd.PosedImages(None, posed.alpha.clamp(0, 0) + 1.000001, posed.cameras).alpha.max() > 1


# --- messages --------------------------------------------------------------------------------

RGB = torch.rand(4, 6, 8, 3)
ALPHA = torch.rand(4, 6, 8)
CAMERAS = gd.Camera.orbit(2.0, 0, [0.0, 10, 20, 30])


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: gd.PosedImages(None, None, CAMERAS), ValueError, r"`images` must be given where `alpha` is left out"),
        (lambda: gd.PosedImages(RGB, None, CAMERAS), ValueError, r"`alpha` must be given where `images` has no alpha"),
        (lambda: gd.PosedImages(RGB.movedim(-1, 1), ALPHA, CAMERAS), ValueError, r"of 3 or 4 channels, last.*movedim"),
        (lambda: gd.PosedImages(255 * RGB, ALPHA, CAMERAS), ValueError, r"`images` must be in \[0, 1\].*Divide 8-bit"),
        (lambda: gd.PosedImages(RGB, ALPHA - 0.5, CAMERAS), ValueError, r"`alpha` must be in \[0, 1\].*Clamp"),
        (lambda: gd.PosedImages(RGB, ALPHA * math.nan, CAMERAS), ValueError, r"`alpha` must be finite"),
        (
            lambda: gd.PosedImages(RGB, ALPHA[:, 1:], CAMERAS),
            ValueError,
            r"`alpha` must be of shape \(4, 6, 8\) like the",
        ),
        (lambda: gd.PosedImages(RGB, ALPHA), TypeError, r"`cameras` must be a Camera; got NoneType"),
        (lambda: gd.PosedImages(RGB, ALPHA, CAMERAS[:3]), ValueError, r"`cameras` must be a batch of 4, one for each"),
        (lambda: gd.PosedImages(RGB, ALPHA, CAMERAS, ["a"] * 4), ValueError, r"`names` must be 4 different names"),
        (lambda: gd.PosedImages(RGB, ALPHA, CAMERAS, "abc"), ValueError, r"`names` must be 4 different names"),
        (
            lambda: gd.PosedImages(RGB, ALPHA, CAMERAS, ["a", "b", "c", "../d"]),
            ValueError,
            r"`names` must be relative paths without '..'; got '../d'",
        ),
        (lambda: some()[0], TypeError, r"`index` must be a slice, list or tensor.*Use \[0:0 \+ 1\]"),
        (
            lambda: some().split([]),
            ValueError,
            r"split: `train_indices` must be different, at least one and fewer than all 4",
        ),
        (lambda: some().split([0, 1, 2, 3]), ValueError, r"split: `train_indices` must be different"),
        (lambda: some().split([0, 0]), ValueError, r"split: `train_indices` must be different"),
        (lambda: some().split([4]), ValueError, r"split: `train_indices` must be in \[0, 4\)"),
        (lambda: some().hold_out(1), ValueError, r"hold_out: `every` must be an integer of at least 2"),
        (lambda: some().save("x", alpha_bits=12), ValueError, r"save: `alpha_bits` must be 8 or 16"),
        (
            lambda: gd.PosedImages(RGB, ALPHA, gd.Camera.orbit(2.0, 0, [0.0, 10, 20, 30], extent=2.0)).save("x"),
            ValueError,
            r"save: `cameras` must be perspective; got orthographic ones",
        ),
    ],
)
def test_messages(make, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        make()


SHEAR = np.eye(4)
SHEAR[0, 1] = 0.1
MIRROR = np.diag([1.0, 1, -1, 1])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"camera_angle_x": None}, r"positive `fl_x` \(pixels\) or `camera_angle_x`.*frame 0 without"),
        ({"camera_angle_x": 4.0}, r"positive `fl_x` \(pixels\) or `camera_angle_x`"),
        ({"fl_x": -3.0}, r"positive `fl_x`"),
        ({"fl_x": "wide"}, r"`fl_x` must be a finite number; got 'wide' in .*frame 0"),
        ({"k4": 0.1, "k6": -0.01}, r"`k4, k6` must be 0, where k1, .* no fisheye; got 0.1, -0.01 in .*frame 0.*Undist"),
        ({"is_fisheye": True, "p2": 0.1}, r"`p2` must be 0, where k1, k2, k3, k4 are the coefficients of a fisheye"),
        ({"k1": "much"}, r"`k1` must be a finite number; got 'much' in .*frame 0"),
        (
            {"k1": -40.0, "k2": -1e4},
            r"`path` must be of distortion that can be undone; got coefficients -40, -10000, .*0",
        ),
        ({"camera_model": "ORTHOGRAPHIC"}, r"`camera_model` must be one of PINHOLE.*got 'ORTHOGRAPHIC' in .*frame 0"),
        ({"is_equirectangular": True}, r"`camera_model` must be .*got is_equirectangular in"),
        ({"w": 16, "h": 12}, r"`w` must be 8, the size of the images; got 16 in.*Were the images resized"),
        ({"frames": []}, r"a transforms.json with a list of `frames`"),
        ({"frames": None}, r"a transforms.json with a list of `frames`"),
        ({"frames": [1]}, r"a transforms.json with a list of `frames`"),
        ({"frame": {"file_path": None}}, r"`frames` must be given a `file_path` each; got frame 0 without"),
        ({"frame": {"transform_matrix": None}}, r"`transform_matrix` must be 4×4 numbers; got None in .*frame 0"),
        ({"frame": {"transform_matrix": [[1, 2], [3, 4]]}}, r"`transform_matrix` must be 4×4 finite numbers"),
        ({"frame": {"transform_matrix": (2 * np.eye(4)).tolist()}}, r"`transform_matrix` must be rigid.*off by 3"),
        ({"frame": {"transform_matrix": SHEAR.tolist()}}, r"`transform_matrix` must be rigid"),
        ({"frame": {"transform_matrix": MIRROR.tolist()}}, r"`transform_matrix` must be rigid.*determinant -1.*mirror"),
    ],
)
def test_bad_transforms(tmp_path: pathlib.Path, changes: dict, message: str) -> None:
    write(tmp_path, **changes)
    with pytest.raises(ValueError, match=r"PosedImages.load: .*" + message):
        gd.PosedImages.load(tmp_path)


def test_missing_and_damaged_files(tmp_path: pathlib.Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"`path` must be a file or folder that exists"):
        gd.PosedImages.load(tmp_path / "gone")
    with pytest.raises(
        FileNotFoundError, match=r"`path` must be a folder with a transforms.json, a COLMAP.* with none"
    ):
        gd.PosedImages.load(tmp_path)
    for name in ("transforms_train.json", "transforms_test.json"):
        (tmp_path / name).write_text("{}")
    with pytest.raises(ValueError, match=r"with transforms_test.json, transforms_train.json. Name the file itself"):
        gd.PosedImages.load(tmp_path)
    (tmp_path / "transforms.json").write_text('{"frames": [')
    with pytest.raises(ValueError, match=r"`path` must be a readable JSON file"):
        gd.PosedImages.load(tmp_path)
    write(tmp_path, frame={"file_path": "gone.png"})
    with pytest.raises(FileNotFoundError, match=r"`path` must be an image that exists; got .*gone.png"):
        gd.PosedImages.load(tmp_path)
    write(tmp_path, frame={"mask_path": "gone.png"})
    with pytest.raises(FileNotFoundError, match=r"`path` must be an image that exists; got .*gone.png"):
        gd.PosedImages.load(tmp_path)
    write(tmp_path)
    (tmp_path / "a.png").write_bytes(b"not a picture")
    with pytest.raises(ValueError, match=r"`path` must be a readable image; got .*a.png"):
        gd.PosedImages.load(tmp_path)


def test_images_of_different_sizes(tmp_path: pathlib.Path) -> None:
    path = some(2).save(tmp_path)
    write_image(tmp_path / "images" / "001.png", torch.rand(5, 8, 4))
    with pytest.raises(ValueError, match=r"`h` must be 5, the size of the images; got 6 in .*frame 1.*resized"):
        gd.PosedImages.load(path)
    meta = json.loads(path.read_text())
    path.write_text(json.dumps({key: value for key, value in meta.items() if key not in "wh"}))
    with pytest.warns(UserWarning, match=r"images of 2 sizes \(.*\): brought to 6×8, their cameras with them"):
        posed = gd.PosedImages.load(path)
    assert posed.image_size == (6, 8)
    write_image(tmp_path / "mask.png", torch.rand(5, 8, 1))
    write(tmp_path, frame={"mask_path": "mask.png"})
    with pytest.raises(
        ValueError, match=r"`mask_path` must be of the size 6×8 of its image a.png; got 5×8 in .*mask.png"
    ):
        gd.PosedImages.load(path)


def test_a_folder_that_cannot_be_written(tmp_path: pathlib.Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match=r"save: `folder` must be a folder that can be written to; got .*Choose another"):
        some().save(tmp_path / "file" / "set")
