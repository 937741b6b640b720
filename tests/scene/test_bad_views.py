# SPDX-License-Identifier: Apache-2.0
"""Views that are refused: each message names the file, the field and the view."""

import json
import pathlib

import numpy as np
import pytest

import geodiff as gd
from geodiff.scene.colmap import read_colmap_points
from tests import camera_files as files
from tests.scene.test_views import SIZE, calibration, colmap, write_images

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
