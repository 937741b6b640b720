# SPDX-License-Identifier: Apache-2.0
"""Colours that are kept in bytes, against what the files hold."""

import copy
import pathlib
import pickle

import numpy as np
import pytest
import torch
from PIL import Image

import geodiff as gd
from geodiff.scene.images import read_image
from geodiff.scene.photographs import Photograph, rooms

CAMERAS = gd.Camera.orbit(3.0, 20, torch.arange(0, 360, 120.0), fov_deg=45)


def written(folder: pathlib.Path, size: int = 16) -> pathlib.Path:
    """Three pictures of random bytes and alpha, every byte among them."""
    rng = np.random.default_rng(0)
    (folder / "images").mkdir(parents=True)
    alpha = torch.ones(3, size, size)
    path = gd.PosedImages(torch.ones(3, size, size, 3), alpha, CAMERAS).save(folder)
    for i in range(3):
        pixels = rng.integers(0, 256, (size, size, 4), dtype=np.uint8)
        pixels[..., :3].reshape(-1)[:256] = np.arange(256)
        Image.fromarray(pixels).save(folder / "images" / f"{i:03d}.png")
    return path


def plain(folder: pathlib.Path, dtype: torch.dtype) -> torch.Tensor:
    return torch.stack([read_image(folder / "images" / f"{i:03d}.png", "")[..., :3] for i in range(3)]).to(dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_photographs_from_files_are_the_same_to_the_bit(tmp_path: pathlib.Path, dtype: torch.dtype) -> None:
    path, expected = written(tmp_path / "a"), plain(tmp_path / "a", dtype)
    posed = gd.PosedImages.load(path, dtype=dtype)
    stored = posed._photographs
    assert stored is not None and all(one.pixels.dtype == torch.uint8 and not len(one.places) for one in stored)
    assert posed.in_color and repr(posed).startswith("PosedImages(3 images of 16×16")
    for i in range(3):
        assert torch.equal(posed.photograph(i), expected[i]) and posed.photograph(i).dtype == dtype
    posed.photograph(0).zero_()  # memory of its own
    for part, rows in ((posed[1:], [1, 2]), (posed[[2, 0]], [2, 0]), (posed.split([1])[1], [0, 2])):
        assert part._photographs is not None and torch.equal(part.photograph(0), expected[rows[0]])
        assert torch.equal(part.images, expected[rows])
    wide, narrow = posed.to(torch.float64), posed.to(torch.float32)
    assert torch.equal(wide.images, expected.double()) and torch.equal(narrow.images, expected.float())
    posed.save(tmp_path / "b")
    assert torch.equal(plain(tmp_path / "b", dtype), expected)
    assert posed._photographs is not None  # nothing of this has asked for all
    for other in (copy.copy(posed), copy.deepcopy(posed), pickle.loads(pickle.dumps(posed))):
        assert torch.equal(other.images, expected)
    assert posed.images is posed.images and torch.equal(posed.images, expected)
    posed.images[1] = 0.5  # what is written into it stays
    assert bool((posed.photograph(1) == 0.5).all()) and bool((posed[1:2].images == 0.5).all())


def test_what_is_no_byte_is_kept_as_it_is(tmp_path: pathlib.Path) -> None:
    path = written(tmp_path / "a", 24)
    small = gd.PosedImages.load(path, max_size=12)  # means of four
    assert small._photographs is not None and small._photographs[0].pixels.dtype == torch.float32
    whole = plain(tmp_path / "a", torch.float32)
    alpha = gd.PosedImages.load(path).alpha
    weighted = [
        torch.nn.functional.avg_pool2d(x.movedim(-1, 1), 2) for x in (whole * alpha[..., None], alpha[..., None])
    ]
    assert torch.allclose(small.images.movedim(-1, 1), weighted[0] / weighted[1], atol=1e-5)
    deep = (torch.arange(24 * 24) * 100).reshape(24, 24).numpy().astype(np.uint16)
    Image.fromarray(deep).save(tmp_path / "a" / "images" / "001.png")
    mixed = gd.PosedImages.load(path)
    assert mixed._photographs is not None
    assert [one.pixels.dtype for one in mixed._photographs] == [torch.uint8, torch.float32, torch.uint8]
    assert torch.equal(mixed.images[1, ..., 0], torch.from_numpy(deep.astype(np.float32) / np.float32(65535)))


def test_a_few_that_are_no_bytes_are_kept_beside() -> None:
    colors = torch.arange(300).remainder(256).reshape(10, 10, 3) / 255
    colors[3, 4] = torch.tensor([0.123456, 1.00002, -0.0001])
    kept = Photograph.of(colors, rooms(1, (10, 10))[0])
    assert kept.pixels.dtype == torch.uint8 and len(kept.places) == 3
    assert torch.equal(kept.numbers(torch.float32), colors)
    assert torch.equal(kept.numbers(torch.float64), colors.double())
    assert kept.extremes == pytest.approx([-0.0001, 1.00002])
    assert torch.equal(kept.to("cpu").numbers(torch.float32), colors)
    assert torch.equal(Photograph.of(colors + 0.001, rooms(1, (10, 10))[0]).numbers(torch.float32), colors + 0.001)
    assert Photograph.of(torch.zeros(0, 4, 3), rooms(1, (0, 4))[0]).extremes == []


def test_a_background_that_is_cut_away_leaves_bytes(tmp_path: pathlib.Path) -> None:
    (tmp_path / "images").mkdir()
    path = gd.PosedImages(torch.ones(3, 64, 64, 3), torch.ones(3, 64, 64), CAMERAS).save(tmp_path)
    for i in range(3):
        pixels = np.full((64, 64, 3), 250, np.uint8)
        pixels[16:48, 16:48] = (200, 40 + i, 30)
        pixels[15, 16:48] = (225, 145, 140)  # half of it
        Image.fromarray(pixels).save(tmp_path / "images" / f"{i:03d}.png")
    posed = gd.PosedImages.load(path, background="auto")
    stored = posed._photographs
    assert stored is not None and all(one.pixels.dtype == torch.uint8 for one in stored)
    assert any(len(one.places) for one in stored)
    again = gd.PosedImages.load(path, opaque=True).without_background("auto")
    assert torch.equal(posed.images, again.images) and torch.equal(posed.alpha, again.alpha)
    floats = gd.PosedImages(plain(tmp_path, torch.float64), torch.ones(3, 64, 64).double(), CAMERAS.to(torch.float64))
    assert torch.allclose(floats.without_background("auto").images, posed.images.double(), atol=1e-6)


def test_no_photographs_at_all(tmp_path: pathlib.Path) -> None:
    none = gd.PosedImages.load(written(tmp_path))[0:0]
    assert copy.deepcopy(none).images.shape == none.images.shape == (0, 16, 16, 3)


def test_photograph_of_a_view_that_is_not_there() -> None:
    posed = gd.PosedImages(torch.ones(3, 4, 4, 3), torch.ones(3, 4, 4), CAMERAS)
    assert torch.equal(posed.photograph(2), torch.ones(4, 4, 3)) and posed.in_color
    with pytest.raises(ValueError, match=r"PosedImages\.photograph: `index` must be .*; got 3"):
        posed.photograph(3)
    masks = gd.PosedImages(None, torch.ones(3, 4, 4), CAMERAS)
    assert not masks.in_color and masks.images is None
    with pytest.raises(ValueError, match=r"PosedImages\.photograph: `images` must be in colour; got masks alone"):
        masks.photograph(0)
