# SPDX-License-Identifier: Apache-2.0
"""Images through lenses, read by three kinds of files: what is seen is where the cameras say."""

import json
import pathlib

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

import geodiff as gd
from geodiff.scene.colmap import read_colmap_points
from geodiff.scene.images import write_image
from tests import camera_files as files

REPROJECTION = 0.1  # pixels, of the centres of balls
SIZE, FOCAL, PRINCIPAL = (90, 120), (96.0, 93.0), (61.5, 43.5)
POSES = [([0.0, 0.0, 0.0], [0.0, 0.0, 0.0]), ([0.05, -0.2, 0.1], [0.6, 0.1, 0.3])]
BROWN = (-0.25, 0.06, 0.01, -0.008, 0.004)
FISHEYE = (0.03, -0.01, 0.004, -0.001)


def poses() -> list[tuple[np.ndarray, np.ndarray]]:
    return [(Rotation.from_rotvec(r).as_matrix(), np.array(t)) for r, t in POSES]


def write_images(folder: pathlib.Path, formula, coefficients, focal=FOCAL, size=SIZE, principal=PRINCIPAL) -> None:
    for i, (R, t) in enumerate(poses()):
        alpha = files.ball_image(size, focal, principal, formula, coefficients, R, t)
        files.write_png(folder / f"view {i}.png", alpha)


def check(posed: gd.PosedImages, balls: int = 5) -> None:
    """Compare where the images show the balls with where the cameras do, as geodiff draws them at four times the size.

    And the cameras' poses with those that were written.
    """
    assert len(posed) == len(POSES)
    height, width = posed.image_size
    seen = 0
    for i, (R, t) in enumerate(poses()):
        camera = posed.cameras[i]
        _, R_back, t_back = camera.to_opencv((height, width))
        assert np.allclose(R_back, R, atol=1e-6) and np.allclose(t_back, t, atol=1e-6)
        drawn = gd.rasterize(files.balls(), camera, (4 * height, 4 * width)).mask.double().numpy()
        expected = files.centroids(drawn.reshape(height, 4, width, 4).mean((1, 3)))
        found = files.centroids(posed.alpha[i].double().numpy())
        assert len(found) == len(expected)
        assert np.abs(found - expected).max() < REPROJECTION
        seen += len(found)
    assert seen >= 2 * balls - 4


def transforms(folder: pathlib.Path, **lens) -> pathlib.Path:
    """Write frames with OpenGL's camera-to-world matrices."""
    frames = []
    for i, (R, t) in enumerate(poses()):
        matrix = np.eye(4)
        matrix[:3, :3], matrix[:3, 3] = R.T @ np.diag([1.0, -1, -1]), -R.T @ t
        frames.append({"file_path": f"images/view {i}", "transform_matrix": matrix.tolist()})
    meta = {"fl_x": FOCAL[0], "fl_y": FOCAL[1], "cx": PRINCIPAL[0], "cy": PRINCIPAL[1], "w": SIZE[1], "h": SIZE[0]}
    meta |= {"aabb_scale": 4, "applied_transform": np.eye(4)[:3].tolist(), "frames": frames, **lens}
    folder.mkdir(exist_ok=True)
    (folder / "transforms.json").write_text(json.dumps(meta))
    return folder


@pytest.mark.parametrize("kind", ["opencv", "unnamed", "radial", "fisheye", "is_fisheye", "pinhole"])
def test_transforms(tmp_path: pathlib.Path, kind: str) -> None:
    brown = dict(zip(("k1", "k2", "p1", "p2", "k3"), BROWN, strict=True))
    fish = dict(zip(("k1", "k2", "k3", "k4"), FISHEYE, strict=True))
    formula, coefficients, lens = {
        "opencv": (files.brown, BROWN, {"camera_model": "OPENCV", **brown}),
        "unnamed": (files.brown, BROWN, brown),
        "radial": (files.brown, (0.2,), {"camera_model": "SIMPLE_RADIAL", "k1": 0.2}),
        "fisheye": (files.fisheye, FISHEYE, {"camera_model": "OPENCV_FISHEYE", **fish}),
        "is_fisheye": (files.fisheye, FISHEYE, {"is_fisheye": True, **fish}),
        "pinhole": (files.brown, (), {"camera_model": "PINHOLE"}),
    }[kind]
    write_images(tmp_path / "images", formula, coefficients)
    check(gd.PosedImages.load(transforms(tmp_path, **lens)))


MODELS = {
    "SIMPLE_PINHOLE": (files.brown, (), 96.0, ()),
    "PINHOLE": (files.brown, (), FOCAL, ()),
    "SIMPLE_RADIAL": (files.brown, (-0.2,), 96.0, (-0.2,)),
    "RADIAL": (files.brown, BROWN[:2], 96.0, BROWN[:2]),
    "OPENCV": (files.brown, BROWN[:4], FOCAL, BROWN[:4]),
    "OPENCV_FISHEYE": (files.fisheye, FISHEYE, FOCAL, FISHEYE),
    "FULL_OPENCV": (files.brown, BROWN, FOCAL, (*BROWN, 0.0, 0.0, 0.0)),
    "SIMPLE_RADIAL_FISHEYE": (files.fisheye, FISHEYE[:1], 96.0, FISHEYE[:1]),
    "RADIAL_FISHEYE": (files.fisheye, FISHEYE[:2], 96.0, FISHEYE[:2]),
}


def colmap(folder: pathlib.Path, model: str = "PINHOLE", *, binary: bool, parameters=None, **changes) -> pathlib.Path:
    """Write a model whose images are seen out of order, with points and without."""
    focal, rest = (FOCAL, ()) if model not in MODELS else MODELS[model][2:]
    focal = (focal,) if isinstance(focal, float) else focal
    parameters = (*focal, *PRINCIPAL, *rest) if parameters is None else parameters
    images = [
        (files.quaternion(R), t, 7, f"view {i}.png", [(1.5, 2.5, -1), (3.0, 4.0, 1)][: 2 * (1 - i)])
        for i, (R, t) in enumerate(poses())
    ]
    points = [((1.0, 2.0, 3.0), (255, 0, 51)), ((-4.0, 0.5, 1e-3), (1, 2, 3))]
    content = {"cameras": {7: (model, SIZE, parameters)}, "images": images[::-1], "points": points, **changes}
    return files.write_colmap(folder, **content, binary=binary)


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("binary", [False, True])
def test_colmap(tmp_path: pathlib.Path, model: str, binary: bool) -> None:
    formula, coefficients, focal, _ = MODELS[model]
    if binary and model not in ("OPENCV", "PINHOLE"):  # the same cameras as from text, exactly
        write_images(tmp_path / "images", files.brown, (), size=(9, 12))
        cameras = []
        for kind in (True, False):
            folder = tmp_path / str(kind)
            colmap(folder / "sparse" / "0", model, binary=kind)
            cameras.append(gd.PosedImages.load(folder / "sparse" / "0", images=tmp_path / "images").cameras)
        assert torch.equal(cameras[0].focal, cameras[1].focal)
        assert torch.equal(cameras[0].principal, cameras[1].principal)
        assert torch.equal(cameras[0].rotation, cameras[1].rotation)
        return
    write_images(tmp_path / "images", formula, coefficients, (focal, focal) if isinstance(focal, float) else focal)
    colmap(tmp_path / "sparse" / "0", model, binary=binary)
    posed = gd.PosedImages.load(tmp_path)
    assert posed.names == ["view 0", "view 1"]
    check(posed)


@pytest.mark.parametrize("place", ["sparse/0", "sparse", "."])
def test_where_models_are(tmp_path: pathlib.Path, place: str) -> None:
    write_images(tmp_path / ("images" if place != "." else "."), files.brown, ())
    model = colmap(tmp_path / place, binary=True)
    expected = gd.PosedImages.load(tmp_path).cameras
    for path in (model, model / "images.bin", model / "cameras.bin"):
        assert torch.equal(gd.PosedImages.load(path).cameras.translation, expected.translation)
    folder = tmp_path if place == "." else tmp_path / "images"
    assert torch.equal(gd.PosedImages.load(model, images=folder).cameras.focal, expected.focal)


@pytest.mark.parametrize("binary", [False, True])
def test_colmap_points(tmp_path: pathlib.Path, binary: bool) -> None:
    points, colors = read_colmap_points(colmap(tmp_path, binary=binary))
    assert points.tolist() == [[1.0, 2.0, 3.0], [-4.0, 0.5, 1e-3]]
    assert torch.equal((colors * 255).round(), torch.tensor([[255.0, 0, 51], [1, 2, 3]]))


def calibration(folder: pathlib.Path, kind: str, formula: str = "brown", **changes) -> pathlib.Path:
    """Write a calibration as FileStorage does, or lists as Python programs do."""
    K = np.array([[FOCAL[0], 0, PRINCIPAL[0] - 0.5], [0, FOCAL[1], PRINCIPAL[1] - 0.5], [0, 0, 1]])
    coefficients = np.array(BROWN if formula == "brown" else FISHEYE)[:, None]
    extrinsic = np.array([(*r, *t) for r, t in POSES])
    matrices = {"camera_matrix": K, "distortion_coefficients": coefficients, "extrinsic_parameters": extrinsic}
    matrices = {name: changes.get(name, value) for name, value in matrices.items()}
    matrices = {name: value for name, value in matrices.items() if value is not None}
    if kind == "yml":
        text = '%YAML:1.0\n---\ncalibration_time: "Sun 01 Jan: 12:00"\nnframes: 2\nimage_width: 120\nimage_height: 90\n'
        text += "# flags: +fix_aspectRatio\nflags: 2\n" + f"fisheye_model: {int(formula == 'fisheye')}\n"
        text += "".join(files.matrix_yaml(name, value) for name, value in matrices.items())
        text += "grid:\n   - { x:1., y:.Nan }\n   - [ 1, 2,\n       3 ]\n   -\n      name: a\nlist:\n- 1\n- 2\n"
        text += changes.get("more", "")
    elif kind == "xml":
        text = '<?xml version="1.0"?>\n<opencv_storage>\n<calibration_time>"now then"</calibration_time>\n'
        text += "<image_width>120</image_width>\n<image_height>90</image_height>\n"
        text += f"<fisheye_model>{int(formula == 'fisheye')}</fisheye_model>\n<list><_>1</_><_>2</_></list>\n"
        text += "".join(files.matrix_xml(name, value) for name, value in matrices.items())
        text += changes.get("more", "") + "</opencv_storage>\n"
    else:
        content = {name: files.matrix_json(value) for name, value in matrices.items()}
        text = json.dumps({**content, "fisheye_model": formula == "fisheye", **changes.get("more", {})})
    path = folder / f"calibration.{kind}"
    path.write_text(text)
    return path


@pytest.mark.parametrize(
    ("kind", "formula"), [("yml", "brown"), ("yml", "fisheye"), ("xml", "brown"), ("json", "brown")]
)
def test_calibrations(tmp_path: pathlib.Path, kind: str, formula: str) -> None:
    coefficients = BROWN if formula == "brown" else FISHEYE
    write_images(tmp_path / "images", getattr(files, formula), coefficients)
    path = calibration(tmp_path, kind, formula)
    check(gd.PosedImages.load(path if kind == "json" else tmp_path))


def test_calibrations_of_python_programs(tmp_path: pathlib.Path) -> None:
    write_images(tmp_path, files.brown, BROWN)
    lists = {"rvecs": [[[x] for x in r] for r, _ in POSES], "tvecs": [t for _, t in POSES]}
    K = [[FOCAL[0], 0, PRINCIPAL[0] - 0.5], [0, FOCAL[1], PRINCIPAL[1] - 0.5], [0, 0, 1]]
    names = ["view 0.png", "view 1.png"]
    content = {"camera_matrix": K, "dist_coeff": [list(BROWN)], "image_names": names, **lists}
    (tmp_path / "a.json").write_text(json.dumps(content))
    check(gd.PosedImages.load(tmp_path / "a.json"))


# --- several sizes, masks -------------------------------------------------------------------------------------------


def mixed(folder: pathlib.Path) -> gd.PosedImages:
    """A set of two lenses and two sizes, one of them upright."""
    sizes, lenses = (SIZE, (130, 80)), [{}, {"fl_x": 84.0, "fl_y": 90.0, "cx": 41.0, "cy": 60.0}]
    path = transforms(folder)
    meta = json.loads((path / "transforms.json").read_text())
    for i, (R, t) in enumerate(poses()):
        lens = {key: meta[key] for key in ("fl_x", "fl_y", "cx", "cy")} | lenses[i]
        meta["frames"][i] |= {**lens, "w": sizes[i][1], "h": sizes[i][0]}
        focal, principal = (lens["fl_x"], lens["fl_y"]), (lens["cx"], lens["cy"])
        alpha = files.ball_image(sizes[i], focal, principal, files.brown, (), R, t)
        files.write_png(folder / "images" / f"view {i}.png", alpha)
    (path / "transforms.json").write_text(json.dumps(meta))
    with pytest.warns(UserWarning, match=r"load: images of 2 sizes \(1 of .*: brought to 90×120, their cameras with"):
        return gd.PosedImages.load(path)


def test_images_of_several_sizes_and_lenses(tmp_path: pathlib.Path) -> None:
    posed = mixed(tmp_path)
    assert posed.image_size == SIZE
    check(posed, balls=4)


@pytest.mark.parametrize("most", [80, 37])
def test_max_size(tmp_path: pathlib.Path, most: int) -> None:
    write_images(tmp_path / "images", files.brown, BROWN)
    path = transforms(tmp_path, **dict(zip(("k1", "k2", "p1", "p2", "k3"), BROWN, strict=True)))
    posed = gd.PosedImages.load(path, max_size=most)
    assert posed.image_size == (round(0.75 * most), most)
    assert float(posed.alpha.mean()) == pytest.approx(float(gd.PosedImages.load(path).alpha.mean()), rel=0.02)
    if most == 80:
        check(posed)
    assert gd.PosedImages.load(path, max_size=999).image_size == SIZE
    with pytest.raises(ValueError, match="load: `max_size` must be an integer ≥ 1; got 0"):
        gd.PosedImages.load(path, max_size=0)


def test_colours_of_what_is_cut_out(tmp_path: pathlib.Path) -> None:
    """Black under transparency does not darken the rim of a picture that is made smaller, nor colours left out."""
    path = transforms(tmp_path)
    for i in range(2):
        picture = np.zeros((*SIZE, 4))
        picture[20:61, 31:80] = (0.2, 0.6, 0.8, 1.0)
        files.write_png(tmp_path / "images" / f"view {i}.png", picture)
    posed = gd.PosedImages.load(path, max_size=53)
    inside = posed.alpha > 1e-3
    assert torch.allclose(posed.images[inside], torch.tensor([0.2, 0.6, 0.8]), atol=1e-5)
    assert ((posed.alpha > 0) & (posed.alpha < 1)).any()
    plain = gd.PosedImages.load(path, colors=False)
    assert plain.images is None and torch.equal(plain.alpha, gd.PosedImages.load(path).alpha)


@pytest.mark.parametrize("name", ["masks/view {}.png", "masks/images/view {}.png", "mask/view {}.jpg.png"])
def test_masks_in_a_folder(tmp_path: pathlib.Path, name: str) -> None:
    path = transforms(tmp_path)
    (tmp_path / "images").mkdir()
    for i in range(2):
        write_image(tmp_path / "images" / f"view {i}.jpg", torch.rand(*SIZE, 3))
    with pytest.raises(ValueError, match=r"got colour without either in images/view 0\. Add masks, in a folder masks"):
        gd.PosedImages.load(path)
    masks = [(np.random.default_rng(i).random(SIZE) > 0.5).astype(float) for i in range(2)]
    for i in range(2):
        files.write_png(tmp_path / name.format(i), masks[i])
    posed = gd.PosedImages.load(path)
    assert torch.equal(posed.alpha, torch.from_numpy(np.stack(masks)).float())
    (tmp_path / name.split("/")[0]).rename(tmp_path / "elsewhere")
    again = gd.PosedImages.load(path, masks=tmp_path / "elsewhere")
    assert torch.equal(posed.alpha, again.alpha)
    next((tmp_path / "elsewhere").rglob("view 1*")).unlink()
    with pytest.raises(
        FileNotFoundError, match=r"load: `masks` must be a folder with a mask for images/view 1; got .*else"
    ):
        gd.PosedImages.load(path, masks=tmp_path / "elsewhere")
    with pytest.raises(FileNotFoundError, match=r"load: `masks` must be a folder that exists; got .*gone"):
        gd.PosedImages.load(path, masks=tmp_path / "gone")


def test_labels_are_told_before_they_are_made_smaller(tmp_path: pathlib.Path) -> None:
    path = transforms(tmp_path, k1=0.1)
    for i in range(2):
        files.write_png(tmp_path / "images" / f"view {i}.png", (np.random.default_rng(i).random(SIZE) > 0.3) / 255)
    assert float(gd.PosedImages.load(path, max_size=20).alpha.mean()) == pytest.approx(0.7, abs=0.03)


def test_images_that_are_gone(tmp_path: pathlib.Path) -> None:
    write_images(tmp_path / "images", files.brown, ())
    path = transforms(tmp_path)
    (tmp_path / "images" / "view 0.png").unlink()
    with pytest.warns(UserWarning, match=r"load: 1 of 2 images are not there, and left out: images/view 0$"):
        assert gd.PosedImages.load(path).names == ["view 1"]


def test_names_that_differ_in_their_ending_alone(tmp_path: pathlib.Path) -> None:
    path = transforms(tmp_path)
    meta = json.loads((path / "transforms.json").read_text())
    for i, name in enumerate(("a.png", "a.webp")):
        meta["frames"][i]["file_path"] = name
        write_image(tmp_path / "a.png", torch.rand(*SIZE, 4))
    (tmp_path / "a.webp").write_bytes((tmp_path / "a.png").read_bytes())
    (path / "transforms.json").write_text(json.dumps(meta))
    assert gd.PosedImages.load(path).names == ["a.png", "a.webp"]


# --- what is refused ------------------------------------------------------------------------------------------------

Q = (1.0, 0.0, 0.0, 0.0)
IMAGE = (Q, (0.0, 0.0, 1.0), 7, "view 0.png", [])


def refused(tmp_path: pathlib.Path, message: str, error: type[Exception] = ValueError, **options) -> None:
    with pytest.raises(error, match=r"^PosedImages\.load: .*" + message):
        gd.PosedImages.load(tmp_path, **options)


@pytest.mark.parametrize("binary", [False, True])
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"model": "FOV", "parameters": (1.0,) * 5},
            r"`camera model` must be one of SIMPLE_PINHOLE, .*; got FOV in .*came",
        ),
        ({"model": "THIN_PRISM_FISHEYE", "parameters": (1.0,) * 12}, r"`camera model` must be .*THIN_PRISM_FISHEYE in"),
        (
            {"parameters": (-1.0, 1.0, 1.0, 1.0)},
            r"`PARAMS` must be of a positive focal length and size; got .*-1 and 1, ",
        ),
        (
            {"parameters": (1.0, 1.0, float("nan"), 1.0)},
            r"`PARAMS` must be finite; got 1.0, 1.0, nan, 1.0 in .*cameras",
        ),
        ({"images": []}, r"`path` must be a COLMAP model of one or more images; got .*images\.\w+ without any"),
        (
            {"images": [(Q, (0.0,) * 3, 8, "view 0.png", [])]},
            r"`CAMERA_ID` must be one of cameras\.\w+ \(7\); got 8 in .*vi",
        ),
        ({"images": [((0.0,) * 4, *IMAGE[1:])]}, r"`QW QX .*TZ` must be a quaternion of length 1.*got 0, 0, .*view 0"),
        (
            {"images": [(Q, (0.0, float("inf"), 0.0), *IMAGE[2:])]},
            r"`QW QX QY QZ TX TY TZ` must be .* inf, 0 in .*view 0",
        ),
        (
            {"images": [IMAGE, (*IMAGE[:3], "../x.png", [])]},
            r"`NAME` must be in .*images; got '\.\./x\.png' in .*allow_out",
        ),
    ],
)
def test_bad_models(tmp_path: pathlib.Path, binary: bool, changes: dict, message: str) -> None:
    files.write_png(tmp_path / "images" / "view 0.png", np.ones(SIZE))
    colmap(tmp_path / "sparse" / "0", binary=binary, **changes)
    options = {"images": tmp_path / "images"} if "../x" in str(changes) else {}
    refused(tmp_path, message, **options)


@pytest.mark.parametrize(
    ("file", "text", "message"),
    [
        (
            "cameras.txt",
            "7 PINHOLE 200\n",
            r"`path` must be lines CAMERA_ID MODEL .*'7 PINHOLE 200\\n' in .*cameras.txt, line 1",
        ),
        ("cameras.txt", "7 PINHOLE 200 150 1 1\n", r"`PARAMS` must be 4 numbers for PINHOLE; got 2 in .*line 1"),
        (
            "cameras.txt",
            "7 PINHOLE w 150 1 1 1 1\n",
            r"`WIDTH` must be a whole number; got 'w' in .*cameras.txt, line 1",
        ),
        ("cameras.txt", "7 PINHOLE 200 150 1 x 1 1\n", r"`PARAMS` must be a number; got 'x' in .*cameras.txt, line 1"),
        ("cameras.txt", "7 OTHER 200 150 1 1 1 1\n", r"`camera model` must be one of .*; got OTHER in .*line 1"),
        (
            "images.txt",
            "# none\n1 1 0 0\n",
            r"`path` must be lines IMAGE_ID QW .* got '1 1 0 0\\n' in .*images.txt, line 2",
        ),
        ("images.txt", "1 1 0 0 a 0 0 0 7 a.png\n\n", r"`QW QX QY QZ TX TY TZ` must be a number; got 'a' in .*line 1"),
    ],
)
def test_bad_text(tmp_path: pathlib.Path, file: str, text: str, message: str) -> None:
    files.write_png(tmp_path / "view 0.png", np.ones(SIZE))
    (colmap(tmp_path, binary=False) / file).write_text(text)
    refused(tmp_path, message)


@pytest.mark.parametrize("file", ["cameras.bin", "images.bin"])
def test_binary_files_cut_short(tmp_path: pathlib.Path, file: str) -> None:
    files.write_png(tmp_path / "view 0.png", np.ones(SIZE))
    whole = (colmap(tmp_path, binary=True) / file).read_bytes()
    for length in (0, 7, 20, len(whole) // 2, len(whole) - 1):
        (tmp_path / file).write_bytes(whole[:length])
        refused(tmp_path, rf"`path` must be .*{file}")
    (tmp_path / file).write_bytes(b"\xff" * 7 + b"\x0f" + whole[8:])
    refused(
        tmp_path,
        rf"`path` must be a file as long as its header says; got .*{file} of .* too few for .*(cameras|images)",
    )
    if file == "cameras.bin":
        (tmp_path / file).write_bytes(whole[:12] + b"\x40" + whole[13:])
        refused(tmp_path, r"`camera model` must be one of .*; got number 64 in .*cameras.bin, camera 7")


def test_models_without_their_images(tmp_path: pathlib.Path) -> None:
    model = colmap(tmp_path / "sparse" / "0", binary=True)
    refused(tmp_path, r"`images` must be a folder with the images .* got 'view 0.png' of .*images=…", FileNotFoundError)
    write_images(tmp_path / "images", files.brown, (), size=(90, 90))
    refused(tmp_path, r"`images` must be of the proportions of its camera, 90×120; got 90×90 for .*view 0.png\)")
    with pytest.raises(FileNotFoundError, match=r"load: `images` must be a folder that exists"):
        gd.PosedImages.load(tmp_path, images=tmp_path / "gone")
    (model / "cameras.bin").unlink()
    with pytest.raises(
        ValueError, match=r"load: `path` must be a file of a COLMAP model; got .*images.bin without the oth"
    ):
        gd.PosedImages.load(model / "images.bin")
    with pytest.raises(FileNotFoundError, match=r"read_colmap_points: `folder` must be one with points3D.bin or"):
        read_colmap_points(tmp_path)
    (tmp_path / "points3D.txt").write_text("1 2 3\n")
    with pytest.raises(
        ValueError, match=r"read_colmap_points: `path` must be a readable COLMAP file; .*line 1 has 3 num"
    ):
        read_colmap_points(tmp_path)
    (tmp_path / "points3D.txt").write_text("1 2 3 nan 0 0 0 0\n")
    with pytest.raises(ValueError, match=r"read_colmap_points: `path` must be .*NaN or infinity"):
        read_colmap_points(tmp_path)


def test_several_models(tmp_path: pathlib.Path) -> None:
    write_images(tmp_path / "images", files.brown, ())
    for name in ("0", "1"):
        colmap(tmp_path / "sparse" / name, binary=True)
    with pytest.warns(UserWarning, match="has the models 0, 1, of which 0 is taken; name another's folder"):
        gd.PosedImages.load(tmp_path)


EMPTY = np.zeros((0, 6))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"camera_matrix": None}, r"`path` must be an OpenCV calibration with `camera_matrix`; got .*yml without"),
        ({"camera_matrix": np.eye(2)}, r"`camera_matrix` must be a matrix of 3×3; got \(2, 2\) in .*yml"),
        ({"camera_matrix": np.diag([-1.0, 1, 1])}, r"`camera_matrix` must be \[\[fx, 0, cx\].*positive.*yml"),
        ({"camera_matrix": np.array([[9.0, 1, 1], [0, 9, 1], [0, 0, 1]])}, r"`camera_matrix` must be .*Skew is not"),
        ({"camera_matrix": np.full((3, 3), np.inf)}, r"`camera_matrix` must be finite numbers; got others.*camera_m"),
        ({"distortion_coefficients": np.zeros(7)}, r"`distortion_coefficients` must be 4, 5, 8 or 12 .*; got 7 in"),
        ({"distortion_coefficients": np.full(14, 0.1)}, r"`distortion_coefficients` must be .*tilted.*got 14 in"),
        ({"extrinsic_parameters": None}, r"`path` must be .*with `extrinsic_parameters`; got .*yml without"),
        ({"extrinsic_parameters": np.zeros((2, 5))}, r"`extrinsic_parameters` must be of 6 columns.*got \(2, 5\) in"),
        ({"extrinsic_parameters": np.zeros((3, 6))}, r"`images` must be 3, one for each .*; got 2 in .*image_names"),
        ({"more": "image_names: 7\n"}, r"`image_names` must be a list of names; got another thing in .*yml"),
        ({"more": "image_names: [ a ]\n"}, r"`images` must be 2, one for each pose .*; got 1 in"),
        ({"more": "camera_matrix: hello\n"}, r"`camera_matrix` must be a matrix of numbers; got another thing in"),
        ({"more": "image_width: -3\n"}, r"`image_width` must be a number of pixels; got -3 in .*yml"),
        ({"more": "image_width: 121\n"}, r"`images` must be of the size 90×121 of the cali.*; got 90×120 for .*view 0"),
        ({"more": "a: [ 1, 2 ] ]\n"}, r"`path` must be a readable OpenCV .*; got .*yml \(brackets that do not"),
        ({"more": "a: { 1, 2 }\n"}, r"`path` must be a readable .*\(a key without value in brackets\)"),
        ({"more": 'a: [ 1 "b" ]\n'}, r"`path` must be a readable .*\(a comma is missing in brackets\)"),
        ({"more": "a: [ , ]\n"}, r"`path` must be a readable .*\(a value is missing in brackets\)"),
        ({"more": "what?\n"}, r"`path` must be a readable .*\(line 40, 'what\?', is not KEY: VALUE\)"),
        ({"more": "      b: 1\n"}, r"`path` must be a readable .*\(line 40 is indented otherwise"),
        ({"more": "a: " + "[" * 99 + "]" * 99 + "\n"}, r"`path` must be a readable .*\(nested too deeply\)"),
    ],
)
def test_bad_calibrations(tmp_path: pathlib.Path, changes: dict, message: str) -> None:
    write_images(tmp_path / "images", files.brown, ())
    calibration(tmp_path, "yml", **changes)
    refused(tmp_path, message)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("<a></a>", r"a <a>, not an <opencv_storage>"),
        ('<!DOCTYPE a [<!ENTITY b "c">]><opencv_storage/>', r"a document type"),
        ("<opencv_storage>", r"ParseError: no element found"),
        ("<opencv_storage>" + "<a>" * 99 + "</a>" * 99 + "</opencv_storage>", r"nested too deeply"),
    ],
)
def test_bad_xml(tmp_path: pathlib.Path, text: str, message: str) -> None:
    (tmp_path / "a.xml").write_text(text)
    refused(tmp_path, rf"`path` must be a readable OpenCV calibration file; got .*a\.xml \({message}")


def test_python_calibrations_that_are_wrong(tmp_path: pathlib.Path) -> None:
    K = [[100.0, 0, 50], [0, 100, 50], [0, 0, 1]]
    path = tmp_path / "a.json"
    for more, message in (
        ({"rvecs": [[0, 0, 0]]}, "with `tvecs`; got .*a.json without"),
        ({"rvecs": [[0, 0, 0]], "tvecs": [[0, 0]]}, "`tvecs` must be three numbers for each image"),
        ({"rvecs": [[0, 0, 0]], "tvecs": [[0, 0, 1]] * 2}, "`rvecs` must be as many as tvecs; got 1 and 2 in .*a.json"),
        ({"dist": [0.1] * 5, "fisheye": True}, "`dist` must be 4 numbers of a fisheye; got 5 in .*a.json"),
        ({"dist": [0.1] * 5, "distortion_model": "equidistant"}, "`dist` must be 4 numbers of a fisheye; got 5 in"),
    ):
        path.write_text(json.dumps({"camera_matrix": K, **more}))
        refused(path, message)
    (tmp_path / "b.yml").write_text("[ 1 ]")
    refused(tmp_path / "b.yml", r"`path` must be an OpenCV calibration with a `camera_matrix`; got .*b.yml")
    for name in ("c.yml", "d.xml"):
        (tmp_path / name).write_text("")
    path.unlink()
    refused(
        tmp_path, r"`path` must be a folder with .*OpenCV calibration; got .* with b.yml, c.yml, d.xml. Name the file"
    )
