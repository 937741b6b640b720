# SPDX-License-Identifier: Apache-2.0
"""Images as cameras and programs write them; the pixels that went in are what comes out."""

import contextlib
import io
import json
import pathlib
import struct
import zlib

import numpy as np
import pytest
import tifffile
import torch
from PIL import Image

import geodiff as gd
from geodiff.scene.images import label_scale, read_image, write_image
from geodiff.tasks.pose.input import _picture

RNG = np.random.default_rng(0)


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(array: np.ndarray, bits: int) -> bytes:
    """Return a PNG as its specification says (ISO/IEC 15948), without filters."""
    height, width, channels = array.shape
    rows = b"".join(b"\0" + row.astype(f">u{bits // 8}").tobytes() for row in array)
    head = struct.pack(">IIBBBBB", width, height, bits, {1: 0, 2: 4, 3: 2, 4: 6}[channels], 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_sixteen_bits(tmp_path: pathlib.Path, channels: int) -> None:
    pixels = RNG.integers(0, 65536, (5, 7, channels))
    (tmp_path / "a.png").write_bytes(png(pixels, 16))
    assert np.abs(read_image(tmp_path / "a.png", "test").numpy() - pixels / 65535).max() < 1e-7


@pytest.mark.parametrize("shape", [(5, 7), (5, 7, 3), (5, 7, 4)])
@pytest.mark.parametrize("dtype", ["float32", "float64", "uint16", "uint8", "float16"])
def test_tiff(tmp_path: pathlib.Path, shape: tuple[int, ...], dtype: str) -> None:
    kind = np.dtype(dtype)
    pixels = RNG.random(shape) if kind.kind == "f" else RNG.integers(0, np.iinfo(kind).max + 1, shape)
    options = {"photometric": "rgb" if len(shape) == 3 else "minisblack", "extrasamples": ["unassalpha"]}
    if shape[-1] != 4:
        del options["extrasamples"]
    tifffile.imwrite(tmp_path / "a.tif", pixels.astype(kind), **options)
    expected = pixels.astype(kind).astype(float) / (1 if kind.kind == "f" else np.iinfo(kind).max)
    assert np.abs(read_image(tmp_path / "a.tif", "test").numpy().reshape(shape) - expected).max() < 1e-7


def test_tiff_of_other_programs(tmp_path: pathlib.Path) -> None:
    pixels = RNG.integers(0, 256, (5, 7, 3)).astype(np.uint8)
    for options in ({"compression": "tiff_lzw"}, {"compression": "packbits"}, {"compression": "tiff_deflate"}):
        Image.fromarray(pixels).save(tmp_path / "a.tif", **options)
        assert np.allclose(read_image(tmp_path / "a.tif", "test"), pixels / 255, atol=1e-7)
    planes = RNG.random((3, 5, 7)).astype(np.float32)
    tifffile.imwrite(tmp_path / "a.tif", planes, photometric="rgb", planarconfig="separate")
    assert np.array_equal(read_image(tmp_path / "a.tif", "test").numpy(), np.moveaxis(planes, 0, -1))
    tifffile.imwrite(tmp_path / "a.tif", pixels[..., 0], photometric="miniswhite")
    assert np.allclose(read_image(tmp_path / "a.tif", "test")[..., 0], 1 - pixels[..., 0] / 255, atol=1e-7)
    Image.fromarray(pixels).convert("P").save(tmp_path / "a.tif")
    assert read_image(tmp_path / "a.tif", "test").shape == (5, 7, 3)


BOMB = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", 10**5, 10**5, 8, 2, 0, 0, 0))
BOMB += chunk(b"IDAT", b"") + chunk(b"IEND", b"")
NOISE = RNG.integers(0, 256, (9, 9, 3))

# Where the first pixel of the first row is seen, and the last of the first row (Exif 2.3, tag 0x0112).
SEEN = {1: "tl tr", 2: "tr tl", 3: "br bl", 4: "bl br", 5: "tl bl", 6: "tr br", 7: "br tr", 8: "bl tl"}


@pytest.mark.parametrize("ending", ["png", "jpg", "tif"])
@pytest.mark.parametrize("turn", SEEN)
def test_orientation(tmp_path: pathlib.Path, turn: int, ending: str) -> None:
    pixels = np.zeros((16, 24, 3), np.uint8)
    pixels[:8, :8], pixels[:8, -8:] = (255, 0, 0), (0, 0, 255)
    tags = Image.Exif()
    tags[0x0112] = turn
    options = {"exif": tags} | ({"quality": 100, "subsampling": 0} if ending == "jpg" else {})
    Image.fromarray(pixels).save(tmp_path / f"a.{ending}", **options)
    image = read_image(tmp_path / f"a.{ending}", "test")
    assert image.shape == ((16, 24, 3) if turn < 5 else (24, 16, 3))
    corner = {"t": 3, "b": -3, "l": 3, "r": -3}
    for name, color in zip(SEEN[turn].split(), ([1.0, 0, 0], [0, 0, 1.0]), strict=True):
        assert torch.allclose(image[corner[name[0]], corner[name[1]]], torch.tensor(color), atol=0.02)


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("a.png", BOMB, "Decompression"),
        ("a.png", png(NOISE, 8)[:90], "a.png"),
        ("a.png", png(NOISE, 8).replace(b"IDAT\x78", b"IDAT\x00"), "a.png"),
        ("a.tif", b"II*\0\x08\0\0\0", "a.tif"),
        ("a.tif", b"MM\0*", "a.tif"),
        ("a.hdr", b"#?RADIANCE\n", "a.hdr"),
        ("a.jpg", b"\xff\xd8\xff", "a.jpg"),
        ("a.png", b"", "a.png"),
    ],
)
def test_damaged(tmp_path: pathlib.Path, name: str, data: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(data)
    with pytest.raises(ValueError, match=rf"^test: `path` must be a readable image; got .*{message}.*damaged"):
        read_image(tmp_path / name, "test")
    with pytest.raises(ValueError, match=r"^test: `path` must be a readable image; got .*whole\.glb"):
        read_image(io.BytesIO(data), "test", tmp_path / "whole.glb")


def test_a_bomb_by_way_of_a_material(tmp_path: pathlib.Path) -> None:
    (tmp_path / "bomb.png").write_bytes(BOMB)
    (tmp_path / "a.mtl").write_text("newmtl m\nmap_Kd bomb.png\n")
    (tmp_path / "a.obj").write_text("mtllib a.mtl\nusemtl m\nv 0 0 0\nv 1 0 0\nv 0 1 0\nvt 0 0\nf 1/1 2/1 3/1\n")
    with pytest.raises(
        ValueError, match=r"^Mesh\.load: `path` must be a readable image; got .*bomb\.png .*Decompression"
    ):
        gd.Mesh.load(tmp_path / "a.obj")


def test_nan_in_an_image(tmp_path: pathlib.Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", np.full((4, 4), np.nan, np.float32))
    with pytest.raises(ValueError, match=r"readable image; got .*a\.tif \(NaN or infinity in it\)"):
        read_image(tmp_path / "a.tif", "test")


# --- masks and sets ---------------------------------------------------------------------


def posed(folder: pathlib.Path, mask: np.ndarray, bits: int = 8, **frame) -> gd.PosedImages:
    write_image(folder / "a.png", torch.rand(6, 8, 3))
    (folder / "m.png").write_bytes(png(mask[..., None], bits))
    entry = {"file_path": "a.png", "mask_path": "m.png", "transform_matrix": np.eye(4).tolist(), **frame}
    text = json.dumps({"camera_angle_x": 0.8, "frames": [entry]})
    (folder / "transforms.json").write_text(text, encoding="utf-8-sig")
    return gd.PosedImages.load(folder)


@pytest.mark.parametrize("bits", [8, 16])
def test_masks_of_labels(tmp_path: pathlib.Path, bits: int) -> None:
    labels = RNG.integers(0, 2, (6, 8))
    assert posed(tmp_path, labels, bits).alpha[0].tolist() == labels.tolist()
    assert posed(tmp_path, labels * (2**bits - 1), bits).alpha[0].tolist() == labels.tolist()
    assert posed(tmp_path, labels * 0, bits).alpha.sum() == 0
    soft = RNG.integers(0, 2**bits, (6, 8))
    assert torch.allclose(posed(tmp_path, soft, bits).alpha[0], torch.tensor(soft / (2**bits - 1)).float())
    assert _picture("mask", tmp_path / "m.png", torch.float32).max() > 0.9
    (tmp_path / "m.png").write_bytes(png(labels[..., None], bits))
    assert _picture("mask", tmp_path / "m.png", torch.float32)[..., 0].tolist() == labels.tolist()
    assert label_scale(torch.zeros(0)) == 1.0
    # One image of a set that shows very little, as others show more, keeps its numbers.
    assert label_scale(torch.tensor([[0, 1 / 255], [0.5, 1]])) == 1.0


def test_one_mask_of_labels_among_others() -> None:
    hard = torch.tensor([[0.0, 1.0], [1.0, 1.0]])
    labels, empty = torch.tensor([[0.0, 1.0], [0.0, 0.0]]) / 255, torch.zeros(2, 2)
    masks = torch.stack((hard, labels, empty))
    assert torch.equal((masks * label_scale(masks))[1], labels * 255)
    assert torch.equal((masks * label_scale(masks))[::2], masks[::2])
    soft = torch.stack((hard / 2, labels, empty))
    with pytest.warns(UserWarning, match="PosedImages.load: 1 of 3 masks hold only 0 and 1, among soft ones"):
        assert torch.equal(soft * label_scale(soft), soft)


# --- colours that do not fit ------------------------------------------------------------


SQUARE = torch.tensor([[0.0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0]]), torch.tensor([[0, 1, 2], [0, 2, 3]])
BRIGHT = torch.tensor([[2.0, 0, 0], [0, 1.001, 0], [0, -0.001, 1], [-0.5, 0.4, 0.6]])
LOST = {"vertex_colors": BRIGHT, "face_colors": BRIGHT[::3], "texture": BRIGHT.reshape(2, 2, 3)}


@pytest.mark.parametrize("name", LOST)
@pytest.mark.parametrize("ending", ["ply", "glb", "obj"])
def test_colours_that_are_clipped(tmp_path: pathlib.Path, name: str, ending: str) -> None:
    """Two numbers are outside; those beyond by less than half a byte are rounded, not clipped."""
    mesh = gd.Mesh(*SQUARE, **{name: LOST[name]}, uv=SQUARE[0][:, :2] if name == "texture" else None)
    kept = ending == "obj" and name != "texture"  # as floating point
    if ending == "ply" and name == "texture":
        return  # left out, with a warning of its own
    match = rf"(to_trimesh|Mesh.save): colours outside of \[0, 1\] are clipped: 2 of .* of {name}, .* -0.5 to 2$"
    with contextlib.nullcontext() if kept else pytest.warns(UserWarning, match=match) as told:
        mesh.save(tmp_path / f"a.{ending}")
    loaded = getattr(gd.Mesh.load(tmp_path / f"a.{ending}"), name)
    loaded = loaded.image if name == "texture" else loaded
    expected = LOST[name] if kept else LOST[name].clamp(0, 1)
    assert torch.allclose(loaded[..., :3], expected, atol=0.5 / 255 + 1e-6)
    if told is not None:
        assert len(told) == 1


def test_several_colours_are_told_of_at_once(tmp_path: pathlib.Path) -> None:
    mesh = gd.Mesh(*SQUARE, uv=SQUARE[0][:, :2], **LOST)
    match = "2 of 12 numbers of vertex_colors.*; 2 of 6 numbers of face_colors.*; 2 of 12 numbers of texture"
    with pytest.warns(UserWarning, match=match) as told:
        mesh.save(tmp_path / "a.glb")
    assert len(told) == 1
    with pytest.warns(UserWarning, match=r"to_trimesh: colours .*: 1 of 3 numbers of material, .* from 0 to 3"):
        gd.Mesh(*SQUARE, material=gd.Material(diffuse=(3.0, 0.0, 1.0))).to_trimesh()


@pytest.mark.parametrize("name", ["img/A", "img\\A", "./img/A.png", "img/A.PNG", "img\\A.png"])
def test_names_of_other_systems(tmp_path: pathlib.Path, name: str) -> None:
    (tmp_path / "img").mkdir()
    write_image(tmp_path / "img" / "A.PNG", torch.rand(6, 8, 3))
    set_ = posed(tmp_path, np.full((6, 8), 255), file_path=name)
    assert set_.names == ["img/A"]


def test_paths_stay_in_the_folder(tmp_path: pathlib.Path) -> None:
    (tmp_path / "in").mkdir()
    write_image(tmp_path / "b.png", torch.rand(6, 8, 3))
    for key in ("file_path", "mask_path"):
        for name in ("../b.png", str(tmp_path / "b.png"), "..\\b.png"):
            expected = rf"^PosedImages\.load: `{key}` must be in the folder of transforms\.json; got .*allow_outside"
            with pytest.raises(ValueError, match=expected):
                posed(tmp_path / "in", np.full((6, 8), 255), **{key: name})
            set_ = gd.PosedImages.load(tmp_path / "in", allow_outside=True)
            assert len(set_) == 1
    inside = str(tmp_path / "in" / "a.png")
    assert len(posed(tmp_path / "in", np.full((6, 8), 255), file_path=inside)) == 1


@pytest.mark.parametrize(
    ("frame", "message"),
    [
        ({"mask_path": 7}, r"`mask_path` must be the name of a file; got 7 in .*transforms\.json"),
        ({"mask_path": ["m.png"]}, r"`mask_path` must be the name of a file"),
        ({"file_path": "."}, r"`file_path` must be in the folder of"),
        ({"fl_x": 10**400}, r"`fl_x` must be a finite number; got 1000.*transforms\.json, frame 0"),
        ({"transform_matrix": [[10**400] * 4] * 4}, r"`transform_matrix` must be 4×4 numbers; got .*frame 0"),
        ({"camera_model": ["PINHOLE"]}, r"`camera_model` must be one of"),
    ],
)
def test_damaged_sets(tmp_path: pathlib.Path, frame: dict, message: str) -> None:
    with pytest.raises(ValueError, match=r"^PosedImages\.load: .*" + message):
        posed(tmp_path, np.full((6, 8), 255), **frame)


def test_names_that_are_too_long(tmp_path: pathlib.Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"^PosedImages\.load: `path` must be an image that exists"):
        posed(tmp_path, np.full((6, 8), 255), file_path="a" * 5000)
    with pytest.raises(FileNotFoundError, match=r"^PosedImages\.load: `path` must be a file or folder that exists"):
        gd.PosedImages.load("a" * 5000)


@pytest.mark.parametrize(
    "text", ["[" * 100000, '{"frames": 1' + "0" * 5000 + "}", "\ufeff\ufeff{}", '{"frames": [{}]}']
)
def test_damaged_json(tmp_path: pathlib.Path, text: str) -> None:
    (tmp_path / "transforms.json").write_text(text)
    with pytest.raises(ValueError, match=r"^PosedImages\.load: .*transforms\.json"):
        gd.PosedImages.load(tmp_path)
