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


def test_a_mesh_of_a_colmap_folder(tmp_path: pathlib.Path) -> None:
    write_images(tmp_path / "images", files.brown, (-0.2,), (96.0, 96.0))
    colmap(tmp_path / "sparse" / "0", "SIMPLE_RADIAL", binary=True)
    fit = gd.tasks.fit_mesh(tmp_path, template=files.balls(), steps=1, hold_out=0, progress=False)
    assert fit.history[0]["iou"] > 0.97


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
